/**
 * One partition of a queue: its state, who wants messages of it, and the lane that tells it what the log has. Mutations
 * of the state go through `change`, so that none is forgotten when a turn is committed (`queue-serving.ts`).
 */
import type { Partition } from './engine.ts';
import type { OwnerId, QueueCounts } from './queue.ts';
import { QueueDemand } from './queue-demand.ts';
import type { IndexedBatch, QueueLane } from './queue-lane.ts';
import type { LogEntry } from './queue-log.ts';
import type { QueueState } from './queue-state.ts';
import type { Queue } from './queues.ts';

export class QueuePartition {
  readonly queue: Queue;
  readonly index: number;
  readonly log: Partition;
  /** For reading: `lockOf`, `epochOf` and the like. */
  readonly state: QueueState;
  readonly demand: QueueDemand;
  lane: QueueLane;
  /** Its place in the state log. */
  readonly entry: LogEntry<QueueState>;
  /** Dead letters are being read or wait for their target. */
  isMoving = false;
  /** Consumers that are gone and still hold something, which is given back a part in each turn. */
  readonly releasing = new Set<OwnerId>();
  /** A purge has ended everything below, of which not all was known yet. */
  purgedTo = 0;

  constructor(queue: Queue, index: number, parts: { log: Partition; lane: QueueLane; entry: LogEntry<QueueState> }) {
    this.queue = queue;
    this.index = index;
    this.log = parts.log;
    this.lane = parts.lane;
    this.entry = parts.entry;
    this.state = parts.entry.state;
    this.demand = new QueueDemand({ isSingleActive: queue.settings['single.active.consumer'] });
  }

  /** False while the log is being read for what its records say to queues; what is known is handed out meanwhile. */
  get isReady(): boolean {
    return this.lane.isCaughtUp && this.lane.indexedEnd >= this.log.highWatermark;
  }
  get startOffset(): number {
    return this.state.startOffset;
  }
  get nextOffset(): number {
    return this.state.nextOffset;
  }
  counts(): QueueCounts {
    return this.state.counts;
  }

  /** Takes in what the lane knows. With delay or TTL each batch counts from its own time. */
  extend(endOffset: number, batches: readonly IndexedBatch[], nowMs: number): void {
    const { state } = this;
    const from = state.endOffset;
    if (endOffset <= from) return;
    const { settings } = this.queue;
    if (settings['delay.ms'] > 0 || settings['ttl.ms'] >= 0) {
      for (const { lastOffset, appendedMs } of batches) {
        if (lastOffset >= state.endOffset) state.extend(lastOffset + 1, appendedMs < 0 ? nowMs : appendedMs, nowMs);
      }
    }
    if (endOffset > state.endOffset) state.extend(endOffset, nowMs, nowMs);
    if (from < this.purgedTo) state.purge({ untilOffset: this.purgedTo, takeInFlight: false });
  }
}
