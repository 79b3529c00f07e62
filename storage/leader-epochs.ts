/**
 * Which leader epoch began at which offset of a partition, in memory and in Kafka's `leader-epoch-checkpoint`:
 *
 *     0            format version
 *     2            entries
 *     1 0          epoch, its first offset
 *     4 1200
 *
 * Always true: epochs and offsets both rise from entry to entry. An epoch ends where the next one starts.
 */
import { MillraceError } from '../protocol/errors.ts';
import { type Disk, writeAll } from './disk.ts';
import { TEMPORARY_SUFFIX } from './snapshot.ts';

export interface EpochStart {
  readonly epoch: number;
  readonly startOffset: number;
}

export const LEADER_EPOCH_FILE = 'leader-epoch-checkpoint';

const NONE = -1;

export class LeaderEpochs {
  #entries: EpochStart[];

  constructor(entries: readonly EpochStart[] = []) {
    this.#entries = [...entries];
  }

  /**
   * Reads the file's content. What contradicts itself is an error: a wrong epoch would let a reader miss a cut.
   * @throws MillraceError DATA_DIR_CORRUPT
   */
  static decode(bytes: Uint8Array, path: string): LeaderEpochs {
    const lines = Buffer.from(bytes).toString('latin1').split('\n');
    const corrupt = (found: string): MillraceError =>
      new MillraceError(
        'DATA_DIR_CORRUPT',
        `${path}: expected version 0, a count and that many epochs, found ${found}`,
      );
    if (lines[0] !== '0') throw corrupt(`version '${lines[0]}'`);
    const rows = lines.slice(2).filter((line) => line !== '');
    if (rows.length !== Number(lines[1])) throw corrupt(`count '${lines[1]}' and ${rows.length} epochs`);
    const entries: EpochStart[] = [];
    for (const row of rows) {
      const [epoch, startOffset, ...more] = row.split(' ').map(Number);
      const last = entries.at(-1);
      const isNumber = Number.isSafeInteger(epoch) && Number.isSafeInteger(startOffset) && more.length === 0;
      const hasRisen = last === undefined || (epoch > last.epoch && startOffset > last.startOffset);
      if (!isNumber || !hasRisen) throw corrupt(`line '${row}'`);
      entries.push({ epoch, startOffset });
    }
    return new LeaderEpochs(entries);
  }

  encode(): Buffer {
    const rows = this.#entries.map(({ epoch, startOffset }) => `${epoch} ${startOffset}\n`);
    return Buffer.from(`0\n${rows.length}\n${rows.join('')}`);
  }

  get entries(): readonly EpochStart[] {
    return this.#entries;
  }

  /** −1 if there is none yet. */
  get latest(): number {
    return this.#entries.at(-1)?.epoch ?? NONE;
  }

  /** The epoch is in force from `startOffset` on. Answers whether that is news, to be stored. */
  assign(epoch: number, startOffset: number): boolean {
    if (epoch <= this.latest) return false;
    // An earlier epoch that begins where this one does has no records: it is as if it had not been.
    this.truncateFromEnd(startOffset);
    this.#entries.push({ epoch, startOffset });
    return true;
  }

  /** The epoch in force at `offset`, −1 if unknown. */
  epochFor(offset: number): number {
    return this.#entries.findLast((entry) => entry.startOffset <= offset)?.epoch ?? NONE;
  }

  /**
   * What OffsetForLeaderEpoch answers (KIP-101, KIP-279): the largest epoch that is not above `epoch` and the offset at which
   * it ends; the log's end for the latest; −1 and −1 for an epoch above all.
   */
  endOffsetFor(epoch: number, logEndOffset: number): { leaderEpoch: number; endOffset: number } {
    if (epoch === NONE || epoch > this.latest) return { leaderEpoch: NONE, endOffset: NONE };
    if (epoch === this.latest) return { leaderEpoch: epoch, endOffset: logEndOffset };
    const next = this.#entries.findIndex((entry) => entry.epoch > epoch);
    const floor = this.#entries[next - 1];
    return { leaderEpoch: floor?.epoch ?? epoch, endOffset: this.#entries[next].startOffset };
  }

  /** The log was cut: nothing at or above `endOffset` is left. Answers whether that changed anything. */
  truncateFromEnd(endOffset: number): boolean {
    const before = this.#entries.length;
    this.#entries = this.#entries.filter((entry) => entry.startOffset < endOffset);
    return this.#entries.length !== before;
  }

  /** The log starts at `startOffset` now; the epoch in force there stays known. Answers whether that changed anything. */
  truncateFromStart(startOffset: number): boolean {
    const inForce = this.#entries.findLast((entry) => entry.startOffset <= startOffset);
    if (inForce === undefined || inForce.startOffset === startOffset) {
      const isOldest = inForce === undefined || inForce === this.#entries[0];
      if (isOldest) return false;
    }
    const later = this.#entries.filter((entry) => entry.startOffset > startOffset);
    this.#entries = inForce === undefined ? later : [{ epoch: inForce.epoch, startOffset }, ...later];
    return true;
  }
}

/** Writes the file anew. Not synced. */
export async function saveEpochs(disk: Disk, folder: string, epochs: LeaderEpochs): Promise<void> {
  const path = `${folder}/${LEADER_EPOCH_FILE}`;
  const file = await disk.open(path + TEMPORARY_SUFFIX, 'write');
  try {
    await file.truncate(0);
    await writeAll(file, [epochs.encode()], 0);
  } finally {
    await file.close();
  }
  await disk.rename(path + TEMPORARY_SUFFIX, path);
}
