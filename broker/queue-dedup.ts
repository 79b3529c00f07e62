/**
 * Deduplication of one queue: its window of ids (`dedup.ts`) with a place in the state log, and what follows from it. A
 * message whose id was sent before, within the window, is in the log but finished at once. Which one of two is the
 * duplicate is decided by the log's order, so a start finds the same.
 */
import { type DedupBudget, dedupHash, DedupWindow } from './dedup.ts';
import type { IndexedBatch } from './queue-lane.ts';
import type { LogEntry, LoggedState } from './queue-log.ts';
import type { Due } from './queue-serving.ts';

/** How long after its append a record is looked at, at the latest: until then the ids of before are kept. */
const GRACE_MS = 60_000;
/** Ids are forgotten this often. */
const FORGET_MS = 1_000;

export class QueueDedup implements LoggedState, Due {
  readonly window: DedupWindow;
  readonly #highWatermark: (partition: number) => number;
  readonly #isCaughtUp: () => boolean;
  #lookAgainMs = 0;
  /** Its place in the state log; set once it has one. */
  entry: LogEntry<LoggedState> | undefined;

  constructor(parts: {
    windowMs: number;
    budget: DedupBudget;
    highWatermark: (partition: number) => number;
    /** False while the log is being read for what a start has to find out. */
    isCaughtUp: () => boolean;
  }) {
    this.window = new DedupWindow({ windowMs: parts.windowMs, budget: parts.budget, graceMs: GRACE_MS });
    this.#highWatermark = parts.highWatermark;
    this.#isCaughtUp = parts.isCaughtUp;
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

  /** When ids are to be forgotten. */
  get nextDeadlineMs(): number {
    return Math.max(this.#lookAgainMs, this.window.nextExpiryMs);
  }
  due(nowMs: number): boolean {
    this.#lookAgainMs = nowMs + FORGET_MS;
    if (!this.#isCaughtUp()) return false;
    if (this.window.expire(nowMs) === 0) return false;
    // There may be more: at once.
    if (this.window.nextExpiryMs <= nowMs) this.#lookAgainMs = 0;
    return false;
  }

  takeChanges(): Buffer | undefined {
    return this.window.takeChanges(this.#highWatermark);
  }
  applyChanges(bytes: Buffer): void {
    this.window.applyChanges(bytes);
  }
  snapshot(): Iterable<Buffer> {
    return this.window.snapshot();
  }
}
