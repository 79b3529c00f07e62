/**
 * Deduplication of one queue: its window of ids (`dedup.ts`) with a place in the state log, and what follows from it. A
 * message whose id was sent before, within the window, is in the log but finished at once. Which one of two is the
 * duplicate is decided by the log's order, so a start finds the same.
 */
import { type DedupBudget, dedupHash, DedupWindow } from './dedup.ts';
import type { IndexedBatch } from './queue-lane.ts';
import type { LogEntry, LoggedState } from './queue-log.ts';

export class QueueDedup implements LoggedState {
  readonly window: DedupWindow;
  readonly #highWatermark: (partition: number) => number;
  readonly #nowMs: () => number;
  /** Its place in the state log; set once it has one. */
  entry: LogEntry<LoggedState> | undefined;

  constructor(parts: {
    windowMs: number;
    budget: DedupBudget;
    highWatermark: (partition: number) => number;
    nowMs: () => number;
  }) {
    this.window = new DedupWindow({ windowMs: parts.windowMs, budget: parts.budget });
    this.#highWatermark = parts.highWatermark;
    this.#nowMs = parts.nowMs;
  }

  /** Remembers the ids of a batch that are new. */
  add(partition: number, { baseOffset, appendedMs, entries }: IndexedBatch): void {
    for (const { offsetDelta, attributes } of entries) {
      if (attributes.dedupId === undefined) continue;
      const hash = dedupHash(attributes.dedupId);
      if (this.window.find(hash, appendedMs) !== undefined) continue;
      this.window.add(hash, { partition, offset: baseOffset + offsetDelta, timeMs: appendedMs });
    }
  }

  /** Offsets of the batch whose id was sent before. Adds what the window does not know yet. */
  duplicates(partition: number, batch: IndexedBatch): number[] {
    this.add(partition, batch);
    const duplicates: number[] = [];
    for (const { offsetDelta, attributes } of batch.entries) {
      if (attributes.dedupId === undefined) continue;
      const offset = batch.baseOffset + offsetDelta;
      const first = this.window.find(dedupHash(attributes.dedupId), batch.appendedMs);
      if (first !== undefined && (first.offset !== offset || first.partition !== partition)) duplicates.push(offset);
    }
    return duplicates;
  }

  takeChanges(): Buffer | undefined {
    return this.window.takeChanges(this.#highWatermark);
  }
  applyChanges(bytes: Buffer): void {
    this.window.applyChanges(bytes, this.#nowMs());
  }
  snapshot(): Iterable<Buffer> {
    return this.window.snapshot();
  }
}
