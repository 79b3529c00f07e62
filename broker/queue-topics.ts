/**
 * What the queues over one topic share: the lanes that tell them what its logs have, the intake that looks into what is
 * appended, and their windows of deduplication. Part of the registry (`queues.ts`).
 */
import { batchRecordCount } from '../protocol/record-batch.ts';
import type { Clock } from '../storage/clock.ts';
import type { AttributeFiles } from './attribute-files.ts';
import type { Options } from './config.ts';
import { DedupBudget } from './dedup.ts';
import type { Partition } from './engine.ts';
import type { DedupBy } from './queue-attributes.ts';
import { QueueDedup } from './queue-dedup.ts';
import type { Queue } from './queue-handle.ts';
import { QueueIntake } from './queue-intake.ts';
import { type IndexedBatch, QueueLane } from './queue-lane.ts';
import { type LoggedState, type QueueLog, WINDOW } from './queue-log.ts';
import type { QueuePartition } from './queue-partition.ts';
import type { QueueServing } from './queue-serving.ts';

/** After a read has failed for want of descriptors or memory. */
const RETRY_MS = 1000;
/** The index of attributes is cut when the start of its queues has moved so far. */
const TRIM_OFFSETS = 4096;

export interface TopicQueues {
  readonly queues: Set<Queue>;
  readonly lanes: Map<Partition, Set<QueueLane>>;
  /** By name of the queue. */
  readonly windows: Map<string, QueueDedup>;
  /** Where a queue is declared. */
  intake: QueueIntake | undefined;
}

export interface QueueTopicsParts {
  readonly clock: Clock;
  readonly options: Options;
  readonly log: QueueLog<LoggedState>;
  readonly serving: QueueServing;
  /** Where attribute indexes are kept over a restart; undefined: nowhere. */
  readonly files: AttributeFiles | undefined;
  readonly report: (message: string, error: unknown) => void;
}

export class QueueTopics {
  readonly #parts: QueueTopicsParts;
  readonly #topics = new Map<string, TopicQueues>();
  readonly #budget: DedupBudget;
  #isLoaded = false;
  #isClosed = false;

  constructor(parts: QueueTopicsParts) {
    this.#parts = parts;
    this.#budget = new DedupBudget(parts.options['queue.dedup.max']);
  }

  find(topicId: string): TopicQueues | undefined {
    return this.#topics.get(topicId);
  }
  /** As `find`, made if there is none. */
  of(topicId: string): TopicQueues {
    let shared = this.#topics.get(topicId);
    if (shared === undefined) {
      shared = { queues: new Set(), lanes: new Map(), windows: new Map(), intake: undefined };
      this.#topics.set(topicId, shared);
    }
    return shared;
  }

  /** The state log was read: windows that are not in it get their place. */
  loaded(): void {
    this.#isLoaded = true;
    for (const { windows, queues, lanes } of this.#topics.values()) {
      for (const queue of queues) {
        const dedup = windows.get(queue.name);
        if (dedup === undefined || dedup.entry !== undefined) continue;
        this.#logWindow(queue, dedup);
        for (const lanesOfPartition of lanes.values()) for (const lane of lanesOfPartition) lane.needIds(0);
      }
    }
  }
  /** All lanes go on from where their states are. */
  begin(): void {
    for (const lane of this.#allLanes()) this.follow(lane);
    const { files, report } = this.#parts;
    files?.removeUnused().catch((error: unknown) => {
      if (!this.#isClosed) report('attributes of queues that are gone are not removed', error);
    });
  }
  close(): void {
    this.#isClosed = true;
    this.#parts.files?.close();
    for (const lane of this.#allLanes()) lane.end();
  }
  *#allLanes(): Iterable<QueueLane> {
    for (const { lanes } of this.#topics.values())
      for (const lanesOfPartition of lanes.values()) yield* lanesOfPartition;
  }

  /** The queue is declared, or its settings have changed. */
  declared(queue: Queue): void {
    this.#openIntake(queue.topic.id, this.of(queue.topic.id));
    this.#openWindow(queue);
  }

  /** The queue has ended. */
  remove(queue: Queue): void {
    const topicId = queue.topic.id;
    const shared = this.#topics.get(topicId);
    if (shared === undefined) return;
    shared.queues.delete(queue);
    const window = shared.windows.get(queue.name);
    if (window !== undefined && queue.kind !== 'plain') {
      this.#parts.serving.unwatch(window);
      window.window.clear();
      shared.windows.delete(queue.name);
    }
    this.#endLanes(shared);
    if (shared.queues.size === 0) this.#topics.delete(topicId);
  }

  /** Lanes that no queue needs any more. */
  #endLanes(shared: TopicQueues): void {
    const used = new Set<QueueLane>();
    for (const queue of shared.queues) for (const { lane } of queue.partitions()) used.add(lane);
    for (const [log, lanes] of shared.lanes) {
      for (const lane of lanes) {
        if (used.has(lane) || lane.isKept) continue;
        lane.end();
        lanes.delete(lane);
      }
      if (lanes.size === 0) this.#parts.files?.forget(log);
    }
  }

  /** The index of attributes forgets what no queue asks for any more. */
  trim({ lane, state, index, log }: QueuePartition): void {
    if (state.startOffset - lane.indexedFrom < TRIM_OFFSETS || lane.isKept) return;
    let start = state.startOffset;
    for (const other of this.find(log.topicId)?.queues ?? []) {
      const sharing = other.partition(index);
      if (sharing?.lane === lane) start = Math.min(start, sharing.state.startOffset);
    }
    lane.trim(start);
  }

  // --- lanes: what the log has, told to the states ---

  lanesOf(log: Partition): Set<QueueLane> {
    const { lanes } = this.of(log.topicId);
    let lanesOfPartition = lanes.get(log);
    if (lanesOfPartition === undefined) {
      lanesOfPartition = new Set();
      lanes.set(log, lanesOfPartition);
    }
    return lanesOfPartition;
  }

  /** A lane that a state which begins at `startOffset` can take its messages from. */
  laneFor(queue: Queue, log: Partition, startOffset: number): QueueLane {
    const hasTimes = queue.settings['delay.ms'] > 0 || queue.settings['ttl.ms'] >= 0;
    for (const lane of this.lanesOf(log)) {
      if (startOffset >= lane.indexedEnd || (!hasTimes && lane.suffices(startOffset))) return lane;
    }
    return this.#newLane(log, startOffset);
  }

  #newLane(log: Partition, firstOffset: number): QueueLane {
    const { queues } = this.of(log.topicId);
    const { options, report, clock, files } = this.#parts;
    const isIndexed = (): boolean => this.find(log.topicId)?.intake !== undefined;
    const lane = new QueueLane(log, firstOffset, {
      get isIndexed() {
        return isIndexed();
      },
      get needsTimes() {
        for (const { settings } of queues) {
          if (settings['delay.ms'] > 0 || settings['ttl.ms'] >= 0 || settings['dedup.window.ms'] > 0) return true;
        }
        return false;
      },
      get isGrouped() {
        return isGrouped(queues);
      },
      get dedupBy() {
        return dedupBy(queues);
      },
      decompressedBytesMax: options['decompressed.bytes.max'],
      files: log.isTransient === true ? undefined : files?.of(log),
      unsavedBytesMax: options['queue.attributes.unsaved.bytes'],
      turn: () => new Promise((resolve) => clock.endOfTurn(resolve)),
      extended: (extended, endOffset, batches) => this.#extended(extended, endOffset, batches),
      failed: (failed, error) => {
        if (this.#isClosed) return;
        report(`queues over ${log.topic}-${log.index} get nothing more for now`, error);
        if (!log.isFenced) clock.after(RETRY_MS, () => this.follow(failed));
      },
    });
    this.lanesOf(log).add(lane);
    return lane;
  }

  /** Keeps the lane at the high watermark. */
  follow(lane: QueueLane): void {
    lane.advance();
    if (lane.isWatching || lane.isEnded || lane.log.isFenced || this.#isClosed) return;
    lane.isWatching = true;
    const { log } = lane;
    const end = log.highWatermark;
    log.whenAbove(end, () => {
      lane.isWatching = false;
      // Else it is deleted or has failed.
      if (log.highWatermark > end) this.follow(lane);
    });
  }

  #extended(lane: QueueLane, endOffset: number, batches: readonly IndexedBatch[]): void {
    const shared = this.find(lane.log.topicId);
    if (shared === undefined) return;
    const nowMs = this.#parts.clock.now();
    for (const queue of shared.queues) {
      const partition = queue.partition(lane.log.index);
      if (partition?.lane !== lane) continue;
      partition.extend(endOffset, batches, nowMs);
      const dedup = shared.windows.get(queue.name);
      if (dedup?.entry !== undefined) {
        for (const batch of batches) {
          const duplicates = dedup.duplicates(partition.index, batch);
          if (duplicates.length > 0) partition.state.discard(duplicates);
        }
        dedup.window.cover(partition.index, endOffset);
        this.#parts.serving.dirty(dedup.entry);
        this.#parts.serving.watch(dedup);
      }
      this.#parts.serving.change(partition);
    }
  }

  /** Sees to it that the partition has a lane with the attributes of everything from `offset` on; a promise if that takes a while. */
  reach(partition: QueuePartition, offset: number): Promise<void> | undefined {
    const { queue, log, lane, state } = partition;
    if (lane.suffices(offset)) return undefined;
    const lower = this.#newLane(log, offset);
    lower.isKept = true;
    this.follow(lower);
    const take = (): void => {
      lower.isKept = false;
      const shared = this.find(queue.topic.id);
      if (queue.isDeleted || shared === undefined) return lower.end();
      // Lane and index change together: what follows is in the index that the state looks into.
      partition.lane = lower;
      state.useAttributes(lower.attributes);
      this.#extended(lower, lower.indexedEnd, []);
      this.#endLanes(shared);
    };
    if (!lower.isCaughtUp) return lower.caughtUp().then(take);
    take();
    return undefined;
  }

  /** The state begins anew at `offset`. */
  rebase(partition: QueuePartition, offset: number): void {
    const { queue, log, state } = partition;
    const lane = this.laneFor(queue, log, offset);
    partition.lane = lane;
    state.reset(offset, lane.attributes);
    const nowMs = this.#parts.clock.now();
    if (lane.indexedEnd > offset) state.extend(lane.indexedEnd, nowMs, nowMs);
    this.follow(lane);
    const shared = this.find(queue.topic.id);
    if (shared !== undefined) this.#endLanes(shared);
  }

  // --- what comes in ---

  #openIntake(topicId: string, shared: TopicQueues): void {
    const { clock, options } = this.#parts;
    const { queues, windows } = shared;
    shared.intake ??= new QueueIntake({
      clock,
      decompressedBytesMax: options['decompressed.bytes.max'],
      *queues() {
        for (const queue of queues) if (queue.kind !== 'plain') yield queue;
      },
      get isGrouped() {
        return isGrouped(queues);
      },
      get dedupBy() {
        return dedupBy(queues);
      },
      windows: () => windows.values(),
      lanes: (partition) => this.find(topicId)?.lanes.get(partition) ?? [],
    });
  }

  /** The deduplication window of the queue, as its settings say. */
  #openWindow(queue: Queue): void {
    const { windows } = this.of(queue.topic.id);
    const windowMs = queue.settings['dedup.window.ms'];
    const known = windows.get(queue.name);
    if (known !== undefined) known.window.windowMs = windowMs;
    if (known !== undefined || windowMs === 0) return;
    const { partitions } = queue.topic;
    const dedup = new QueueDedup({
      windowMs,
      budget: this.#budget,
      highWatermark: (partition) => partitions[partition]?.highWatermark ?? 0,
      isCaughtUp: () => this.#isCaughtUp(queue.topic.id),
    });
    windows.set(queue.name, dedup);
    if (this.#isLoaded) this.#logWindow(queue, dedup);
  }

  /** Everything that the logs of the topic have is known to its queues. */
  #isCaughtUp(topicId: string): boolean {
    for (const lanes of this.find(topicId)?.lanes.values() ?? []) {
      for (const lane of lanes) if (!lane.isCaughtUp) return false;
    }
    return true;
  }

  #logWindow(queue: Queue, dedup: QueueDedup): void {
    const key = { group: queue.name, topicId: queue.topic.id, partition: WINDOW };
    dedup.entry = { id: this.#parts.log.newId(), key, startOffset: 0, state: dedup };
    if (queue.isInMemory) return;
    this.#parts.log.add(dedup.entry);
    this.#parts.serving.event({ kind: 'opened', id: dedup.entry.id, key, startOffset: 0 });
  }

  /** While loading: all states of a partition share one lane, which begins where the lowest of them does (`QueueLane.reach`). */
  firstLane(log: Partition): QueueLane {
    const [lane = this.#newLane(log, Number.MAX_SAFE_INTEGER)] = this.lanesOf(log);
    return lane;
  }

  /** Batches of the broker's own are about to be appended in this order: dead letters and other moves. */
  appending(appends: readonly { readonly partition: Partition; readonly batch: Buffer }[]): void {
    const ends = new Map<Partition, number>();
    for (const { partition, batch } of appends) {
      const baseOffset = ends.get(partition) ?? partition.endOffset;
      ends.set(partition, baseOffset + batchRecordCount(batch, 0));
      this.find(partition.topicId)?.intake?.appending(partition, batch, baseOffset);
    }
  }
}

function isGrouped(queues: Iterable<Queue>): boolean {
  for (const { settings } of queues) if (settings.ordered || settings.fair) return true;
  return false;
}

function dedupBy(queues: Iterable<Queue>): DedupBy | undefined {
  for (const { settings } of queues) {
    // The table allows nothing else.
    if (settings['dedup.window.ms'] > 0) return settings['dedup.by'] as DedupBy;
  }
  return undefined;
}
