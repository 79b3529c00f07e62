/**
 * The producer state of one log together with the copy that a restart begins with: inside the checkpoint while it is
 * small, else in a `.snapshot` file beside the segments. What follows that copy is read from the headers of the log.
 *
 * Always true: the file that the last complete checkpoint names is there; of older ones at most one is left.
 */
import type { PartitionState } from './checkpoint.ts';
import type { Disk } from './disk.ts';
import { ProducerState } from './producer-state.ts';
import { offsetFileName, type Segment } from './segment.ts';
import { walkHeaders } from './segment-reader.ts';
import { readSnapshot } from './snapshot.ts';

/** State up to this size goes into the checkpoint. */
const INLINE_BYTES_MAX = 16 * 1024;

export interface ProducerStoreOptions {
  name: string;
  /** producer.states.per.partition.max */
  producersMax: number;
  /** What the checkpoint has. */
  stored: Pick<PartitionState, 'producers' | 'producersOffset'> | undefined;
}

/** File name of the producer state up to `offset`. */
export function snapshotFileName(offset: number): string {
  return `${offsetFileName(offset)}.snapshot`;
}

export class ProducerStore {
  readonly state: ProducerState;
  readonly #name: string;
  /** What the next checkpoint says: the state up to `offset`, here or in the file of that offset. */
  inline: Uint8Array | undefined;
  offset: number;
  /** Where that of the last complete checkpoint stands: a restart needs all batches from there on. */
  durableOffset: number;
  /** Offsets of files that only a checkpoint before the next one names. */
  #stale: number[] = [];
  #captured: { offset: number; bytes: Buffer } | undefined;

  constructor({ name, producersMax, stored }: ProducerStoreOptions) {
    this.#name = name;
    this.state = new ProducerState({ name, producersMax });
    this.inline = stored?.producers;
    this.offset = stored?.producersOffset ?? 0;
    this.durableOffset = this.offset;
  }

  /** Keeps the state as it is now, up to `endOffset`, for `keep`. */
  capture(endOffset: number): void {
    this.#captured = { offset: endOffset, bytes: this.state.encode() };
  }

  /** The captured state becomes that of the checkpoint if the log is synced that far. `save` writes a snapshot file. */
  async keep(syncedOffset: number, save: (offset: number, bytes: Buffer) => Promise<void>): Promise<void> {
    const captured = this.#captured;
    this.#captured = undefined;
    if (captured === undefined || captured.offset > syncedOffset) return;
    const isInline = captured.bytes.length <= INLINE_BYTES_MAX;
    if (!isInline) await save(captured.offset, captured.bytes);
    if (this.inline === undefined && this.offset < captured.offset) this.#stale.push(this.offset);
    this.inline = isInline ? captured.bytes : undefined;
    this.offset = captured.offset;
  }

  /** A checkpoint that names the state kept last is complete. Answers the offsets of files that none names any more. */
  checkpointed(): readonly number[] {
    this.durableOffset = this.offset;
    const stale = this.#stale;
    if (stale.length > 0) this.#stale = [];
    return stale;
  }

  /** Brings the state to the end of the log. May be called again if it has failed. */
  async load(
    disk: Disk,
    folder: string,
    segments: readonly Segment[],
    nowMs: number,
    warn: (message: string) => void,
  ): Promise<void> {
    this.state.clear();
    let from = segments[0]?.baseOffset ?? 0;
    const bytes = this.inline ?? (await readSnapshot(disk, `${folder}/${snapshotFileName(this.offset)}`));
    if (bytes !== undefined) {
      try {
        this.state.load(bytes, nowMs);
        from = Math.max(from, this.offset);
      } catch (error) {
        warn(`${this.#name}: producer state is built again from the log: ${String(error)}`);
      }
    }
    // A copy: retention may take the first away meanwhile.
    for (const segment of segments.slice()) {
      if (segment.writtenOffset <= from) continue;
      await walkHeaders(segment, from, (header, position) => this.state.apply(header, position, nowMs));
    }
  }
}
