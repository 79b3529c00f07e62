/**
 * Room on the disk for bytes that need not survive the process: one file, never synced, made with its first use and removed
 * at the end. Slots of 64 KiB are given and taken back; more than one side by side, for more bytes, are always new ones at
 * the end of the file, which is written from its beginning again once nothing is in it.
 */
import { type Disk, type DiskFile, writeAll } from './disk.ts';

export const SLOT_BYTES = 64 * 1024;

export interface ScratchPlace {
  readonly slot: number;
  readonly slots: number;
}

export class ScratchFile {
  readonly #disk: Disk;
  readonly #path: string;
  #opening: Promise<DiskFile> | undefined;
  #free: number[] = [];
  #endSlot = 0;
  #usedSlots = 0;

  constructor(disk: Disk, path: string) {
    this.#disk = disk;
    this.#path = path;
  }

  get usedBytes(): number {
    return this.#usedSlots * SLOT_BYTES;
  }

  /** Rejects if the disk does; nothing is kept then. */
  async write(bytes: Buffer): Promise<ScratchPlace> {
    const place = this.#take(Math.max(1, Math.ceil(bytes.length / SLOT_BYTES)));
    try {
      // One that fails is tried again with the next write.
      this.#opening ??= this.#open().catch((error: unknown) => {
        this.#opening = undefined;
        throw error;
      });
      await writeAll(await this.#opening, [bytes], place.slot * SLOT_BYTES);
      return place;
    } catch (error) {
      this.release(place);
      throw error;
    }
  }

  async read({ slot }: ScratchPlace, from: number, to: number): Promise<Buffer> {
    const file = await this.#opening;
    const target = Buffer.allocUnsafeSlow(to - from);
    const readBytes = file === undefined ? 0 : await file.read(target, slot * SLOT_BYTES + from);
    if (readBytes !== target.length) throw new Error(`${this.#path} has ${readBytes} of ${target.length} bytes`);
    return target;
  }

  release({ slot, slots }: ScratchPlace): void {
    this.#usedSlots -= slots;
    if (this.#usedSlots === 0) {
      // What is written over needs no room of its own; the file keeps the size it once had.
      this.#free = [];
      this.#endSlot = 0;
      return;
    }
    for (let each = slot; each < slot + slots; each++) this.#free.push(each);
  }

  #take(slots: number): ScratchPlace {
    this.#usedSlots += slots;
    const free = slots === 1 ? this.#free.pop() : undefined;
    if (free !== undefined) return { slot: free, slots };
    const slot = this.#endSlot;
    this.#endSlot += slots;
    return { slot, slots };
  }

  async #open(): Promise<DiskFile> {
    const file = await this.#disk.open(this.#path, 'write');
    await file.truncate(0);
    return file;
  }

  /** What an earlier process has left. */
  async removeLeftover(): Promise<void> {
    if (this.#opening === undefined) await this.#disk.remove(this.#path);
  }

  async close(): Promise<void> {
    const file = await this.#opening?.catch(() => undefined);
    if (file === undefined) return;
    await file.close();
    await this.#disk.remove(this.#path);
  }
}
