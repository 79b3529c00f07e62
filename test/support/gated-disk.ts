/**
 * A disk whose operations can be held up one by one, for tests of what overlaps: a gate catches the next operation of a
 * kind on a path, says when it has arrived, and lets it go when it is opened.
 */
import type { Disk, DiskFile, DiskLock, DiskStat, OpenMode } from '../../storage/disk.ts';

export type GatedKind = 'open' | 'read' | 'write' | 'sync' | 'rename' | 'remove';

export interface Gate {
  /** An operation is waiting. */
  readonly arrived: Promise<void>;
  /** Lets it go; later ones pass. With an error it fails instead. */
  open(error?: Error): void;
}

interface Barrier {
  readonly kind: GatedKind;
  readonly path: string;
  readonly arrive: () => void;
  readonly opened: Promise<Error | undefined>;
}

export class GatedDisk implements Disk {
  readonly #disk: Disk;
  readonly #barriers: Barrier[] = [];
  /** Files open at the moment. */
  openFiles = 0;

  constructor(disk: Disk) {
    this.#disk = disk;
  }

  /** Holds the next operation of this kind on a path that contains `path`. */
  hold(kind: GatedKind, path: string): Gate {
    let arrive = (): void => {};
    const arrived = new Promise<void>((resolve) => {
      arrive = resolve;
    });
    let open = (_error?: Error): void => {};
    const opened = new Promise<Error | undefined>((resolve) => {
      open = resolve;
    });
    this.#barriers.push({ kind, path, arrive, opened });
    return { arrived, open };
  }

  async pass(kind: GatedKind, path: string): Promise<void> {
    const index = this.#barriers.findIndex((barrier) => barrier.kind === kind && path.includes(barrier.path));
    if (index < 0) return;
    const [barrier] = this.#barriers.splice(index, 1);
    barrier.arrive();
    const error = await barrier.opened;
    if (error !== undefined) throw error;
  }

  async open(path: string, mode: OpenMode): Promise<DiskFile> {
    await this.pass('open', path);
    const file = await this.#disk.open(path, mode);
    this.openFiles++;
    return new GatedFile(this, file);
  }
  readFile(path: string): Promise<Uint8Array | undefined> {
    return this.#disk.readFile(path);
  }
  list(path: string): Promise<string[]> {
    return this.#disk.list(path);
  }
  stat(path: string): Promise<DiskStat | undefined> {
    return this.#disk.stat(path);
  }
  makeDirectory(path: string): Promise<void> {
    return this.#disk.makeDirectory(path);
  }
  async rename(from: string, to: string): Promise<void> {
    await this.pass('rename', to);
    return this.#disk.rename(from, to);
  }
  async remove(path: string): Promise<void> {
    await this.pass('remove', path);
    return this.#disk.remove(path);
  }
  removeDirectory(path: string): Promise<void> {
    return this.#disk.removeDirectory(path);
  }
  syncDirectory(path: string): Promise<void> {
    return this.#disk.syncDirectory(path);
  }
  freeBytes(path: string): Promise<number> {
    return this.#disk.freeBytes(path);
  }
  lock(path: string, kind: 'exclusive' | 'shared'): Promise<DiskLock> {
    return this.#disk.lock(path, kind);
  }
}

class GatedFile implements DiskFile {
  readonly #disk: GatedDisk;
  readonly #file: DiskFile;
  #isClosed = false;

  constructor(disk: GatedDisk, file: DiskFile) {
    this.#disk = disk;
    this.#file = file;
  }

  get path(): string {
    return this.#file.path;
  }
  async read(target: Uint8Array, position: number): Promise<number> {
    await this.#disk.pass('read', this.path);
    return this.#file.read(target, position);
  }
  async write(buffers: readonly Uint8Array[], position: number): Promise<number> {
    await this.#disk.pass('write', this.path);
    return this.#file.write(buffers, position);
  }
  writeNow(buffers: readonly Uint8Array[], position: number): number {
    return this.#file.writeNow(buffers, position);
  }
  async sync(): Promise<void> {
    await this.#disk.pass('sync', this.path);
    return this.#file.sync();
  }
  size(): Promise<number> {
    return this.#file.size();
  }
  truncate(sizeBytes: number): Promise<void> {
    return this.#file.truncate(sizeBytes);
  }
  close(): Promise<void> {
    if (!this.#isClosed) this.#disk.openFiles--;
    this.#isClosed = true;
    return this.#file.close();
  }
}
