/**
 * How far each partition is compacted, in Apache Kafka's `cleaner-offset-checkpoint`:
 *
 *     0                       format version
 *     2                       entries
 *     orders 0 1200           topic, partition, first offset that is not compacted
 *
 * It names topics, not ids: what is too far or too near for the log that bears the name is not believed. Too small an
 * offset costs work, a missing file all of it once.
 */
import type { Disk } from './disk.ts';
import { readSnapshot, writeSnapshot } from './snapshot.ts';

export const CLEANER_OFFSETS_FILE = 'cleaner-offset-checkpoint';

interface Named {
  readonly topic: string;
  readonly index: number;
}

export class CleanerOffsets {
  readonly #disk: Disk;
  readonly #path: string;
  readonly #offsets = new Map<string, number>();
  #isChanged = false;
  #saving: Promise<void> = Promise.resolve();

  constructor(disk: Disk, folder: string) {
    this.#disk = disk;
    this.#path = `${folder}/${CLEANER_OFFSETS_FILE}`;
  }

  /** Reads the file; of one that is not what it should be nothing is believed. */
  async load(): Promise<void> {
    const bytes = await readSnapshot(this.#disk, this.#path);
    if (bytes === undefined) return;
    const [version, count, ...rows] = Buffer.from(bytes).toString('latin1').trimEnd().split('\n');
    if (version !== '0' || rows.length !== Number(count)) return;
    for (const row of rows) {
      const match = /^([a-zA-Z0-9._-]+ \d+) (\d+)$/.exec(row);
      if (match !== null && Number.isSafeInteger(Number(match[2]))) this.#offsets.set(match[1], Number(match[2]));
    }
  }

  /** Undefined if it was never compacted. */
  get(log: Named): number | undefined {
    return this.#offsets.get(nameOf(log));
  }

  set(log: Named, offset: number): void {
    this.#offsets.set(nameOf(log), offset);
    this.#isChanged = true;
  }

  /** Answers whether there was an entry. */
  delete(log: Named): boolean {
    const isDeleted = this.#offsets.delete(nameOf(log));
    if (isDeleted) this.#isChanged = true;
    return isDeleted;
  }

  /** Writes what has changed; one after the other. */
  save(): Promise<void> {
    this.#saving = this.#saving.catch(() => {}).then(() => this.#save());
    return this.#saving;
  }

  async #save(): Promise<void> {
    if (!this.#isChanged) return;
    this.#isChanged = false;
    const rows = [...this.#offsets].map(([name, offset]) => `${name} ${offset}\n`);
    await writeSnapshot(this.#disk, this.#path, Buffer.from(`0\n${rows.length}\n${rows.join('')}`));
  }
}

function nameOf({ topic, index }: Named): string {
  return `${topic} ${index}`;
}
