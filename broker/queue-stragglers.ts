/**
 * A forgotten message must not pin the log: an owned queue keeps what it has not finished beyond the retention of its
 * topic, and with it everything that follows. Where almost all of that is finished and old enough to go, the segments are
 * rewritten to hold just the messages that are left, at their offsets.
 */
import type { Clock } from '../storage/clock.ts';
import type { Engine } from './engine.ts';
import type { QueuePartition } from './queue-partition.ts';

/** Less than this many finished messages are not worth a rewrite. */
const FINISHED_MIN = 10_000;
/** Nor is it if more than one in so many is left. */
const FINISHED_PER_LEFT = 10;
/** Offsets looked at in one turn. */
const SLICE_OFFSETS = 100_000;

export interface StragglerParts {
  readonly engine: Engine;
  readonly clock: Clock;
  /** Calls back when everything that queues have decided so far is durable. */
  readonly whenDurable: (callback: () => void) => void;
}

export class QueueStragglers {
  readonly #parts: StragglerParts;
  /** Up to where the partition was rewritten. */
  readonly #rewrittenTo = new WeakMap<QueuePartition, number>();
  /** Records that rewrites have dropped. */
  droppedCount = 0;

  constructor(parts: StragglerParts) {
    this.#parts = parts;
  }

  /** Rewrites what of the partition is finished and not to be kept for replay. Resolves when it is done. */
  async release(partition: QueuePartition): Promise<void> {
    const { engine, clock, whenDurable } = this.#parts;
    const { queue, log, state } = partition;
    if (queue.isDeleted || log.isFenced) return;
    const { retentionMs } = log.config;
    if (retentionMs < 0) return;
    const kept = await log.offsetForTime(clock.now() - retentionMs);
    const to = Math.min(kept?.offset ?? log.highWatermark, state.nextOffset);
    const from = Math.max(log.startOffset, this.#rewrittenTo.get(partition) ?? 0);
    if (to - from < FINISHED_MIN) return;
    const keep: number[] = [];
    for (let offset = from; offset < to; ) {
      const end = Math.min(to, offset + SLICE_OFFSETS);
      for (; offset < end; offset++) if (!state.isDone(offset)) keep.push(offset);
      if (keep.length * FINISHED_PER_LEFT > to - from) return;
      // Others have their turn.
      await new Promise<void>((resolve) => clock.endOfTurn(resolve));
      if (queue.isDeleted || log.isFenced) return;
    }
    // What is finished only in memory may be unfinished again after a crash, and must be there then.
    await new Promise<void>(whenDurable);
    if (queue.isDeleted || log.isFenced) return;
    const { rewrittenTo, droppedRecords } = await engine.rewrite(log, { from, to, keep: Float64Array.from(keep) });
    this.#rewrittenTo.set(partition, rewrittenTo);
    this.droppedCount += droppedRecords;
  }
}
