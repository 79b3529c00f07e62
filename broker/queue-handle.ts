/**
 * One queue as doors hold it: its settings, its partitions, and what can be asked of it. Made by `QueueRegistry`.
 */
import { MillraceError } from '../protocol/errors.ts';
import type { Clock } from '../storage/clock.ts';
import type { AcquiredRun, OwnerId, QueueCounts, QueueDoor, QueueKind, Settlement } from './queue.ts';
import type { Consumer } from './queue-consumer.ts';
import type { QueuePartition } from './queue-partition.ts';
import type { Due, QueueServing } from './queue-serving.ts';
import type { QueueFamily, QueueSettings } from './queue-settings.ts';
import type { Topic } from './topics.ts';

/** What a queue needs of the registry. */
export interface QueueHost {
  readonly clock: Clock;
  readonly serving: QueueServing;
  /** The partition with its state, made now if there is none; undefined if that takes a while or there is no such partition. */
  ensure(queue: Queue, index: number): QueuePartition | undefined;
  /** Sees to it that the partition's lane reaches down to `offset`; a promise if the log must be read. */
  reach(partition: QueuePartition, offset: number): Promise<void> | undefined;
  /** Begins the partition's state anew at `offset`; where the log must be read first, it has nothing until that is done. */
  rebase(partition: QueuePartition, offset: number): void;
  expired(queue: Queue): void;
  /** Append time of the record at an offset. */
  timeOf(partition: QueuePartition, offset: number): Promise<number | undefined>;
  settled(messages: number): void;
}

/** Settings in force, and what goes with them. */
export interface QueueValues {
  readonly settings: QueueSettings;
  /** Whose words each setting that was set came in. Empty for plain groups. */
  readonly origins: ReadonlyMap<string, QueueFamily>;
  /** How many messages of a partition may be in flight. */
  readonly locksMax: number;
  /** Where a state begins on a partition that has none. */
  readonly reset: 'earliest' | 'latest' | { readonly beforeMs: number };
  /** KIP-1191: dead letters carry key and value, or only headers that tell of them. */
  readonly copiesDeadLetters: boolean;
}

/** Somebody who reads the log of a queue. */
export interface LogReader {
  /** The queue has ended (or its topic). */
  left(): void;
}

export class Queue {
  /** The group id. */
  readonly name: string;
  readonly kind: QueueKind;
  readonly topic: Topic;
  /** Consumers that joined. */
  readonly joined = new Set<Consumer>();
  /** Who reads it as a log and takes nothing. */
  readonly readers = new Set<LogReader>();
  readonly #host: QueueHost;
  #values: QueueValues;
  /** Those that have a state, by index in the topic and in a row. */
  #byIndex: (QueuePartition | undefined)[] = [];
  #partitions: QueuePartition[] = [];
  #isDeleted = false;
  #usedMs: number;
  readonly #expiry: Due;
  /** Since the start of the broker. */
  delivered = 0;
  settled = 0;
  deadLettered = 0;
  #oldest: { offset: number; timeMs: number | undefined } | undefined;

  constructor(host: QueueHost, init: { name: string; kind: QueueKind; topic: Topic; values: QueueValues }) {
    this.#host = host;
    this.name = init.name;
    this.kind = init.kind;
    this.topic = init.topic;
    this.#values = init.values;
    this.#usedMs = host.clock.now();
    const nextDeadlineMs = (): number => {
      const { 'expires.ms': expiresMs } = this.settings;
      return this.#isDeleted || expiresMs < 0 ? Number.POSITIVE_INFINITY : this.#usedMs + expiresMs;
    };
    this.#expiry = {
      get nextDeadlineMs() {
        return nextDeadlineMs();
      },
      due: (nowMs) => {
        if (this.consumerCount > 0) this.#usedMs = nowMs;
        else if (nextDeadlineMs() <= nowMs) host.expired(this);
        return false;
      },
    };
    this.used();
  }

  get settings(): QueueSettings {
    return this.#values.settings;
  }
  get origins(): ReadonlyMap<string, QueueFamily> {
    return this.#values.origins;
  }
  get locksMax(): number {
    return this.#values.locksMax;
  }
  get reset(): QueueValues['reset'] {
    return this.#values.reset;
  }
  get copiesDeadLetters(): boolean {
    return this.#values.copiesDeadLetters;
  }
  get isDeleted(): boolean {
    return this.#isDeleted;
  }
  /** Neither its messages nor its state are in any log. */
  get isInMemory(): boolean {
    return this.topic.partitions[0]?.isTransient === true;
  }
  /** Consumers and readers of the log. */
  get consumerCount(): number {
    return this.joined.size + this.readers.size;
  }

  /** Somebody uses it: the time after which an unused queue is deleted begins anew. */
  used(): void {
    this.#usedMs = this.#host.clock.now();
    if (this.settings['expires.ms'] >= 0) this.#host.serving.watch(this.#expiry);
  }

  // --- partitions ---

  /** Those that have a state; a plain group has none before somebody joins. */
  partitions(): readonly QueuePartition[] {
    return this.#partitions;
  }
  partition(index: number): QueuePartition | undefined {
    return this.#byIndex[index];
  }
  /** As `partition`, making the state if there is none; undefined if that takes a while. */
  ensure(index: number): QueuePartition | undefined {
    return this.partition(index) ?? this.#host.ensure(this, index);
  }
  #known(index: number): QueuePartition {
    const partition = this.partition(index);
    if (partition !== undefined && !this.#isDeleted) return partition;
    throw new MillraceError('UNKNOWN_TOPIC_OR_PARTITION', `queue '${this.name}' has no partition ${index}`);
  }

  // --- what is in it ---

  /** Over all partitions; in a stream everything waits. */
  counts(): QueueCounts {
    const sum: QueueCounts = { ready: 0, inFlight: 0, delayed: 0, blocked: 0 };
    if (this.kind === 'stream') {
      for (const { highWatermark, startOffset } of this.topic.partitions) sum.ready += highWatermark - startOffset;
    }
    for (const partition of this.#partitions) {
      const { ready, inFlight, delayed, blocked } = partition.counts();
      sum.ready += ready;
      sum.inFlight += inFlight;
      sum.delayed += delayed;
      sum.blocked += blocked;
    }
    return sum;
  }

  /** When (wall clock) the oldest message that is not finished was appended; undefined if there is none. */
  async oldestMs(): Promise<number | undefined> {
    let oldest: number | undefined;
    for (const partition of this.#partitions) {
      const { oldestUnfinished, endOffset } = partition.state;
      if (oldestUnfinished >= endOffset) continue;
      const timeMs = await this.#host.timeOf(partition, oldestUnfinished);
      if (timeMs !== undefined && (oldest === undefined || timeMs < oldest)) oldest = timeMs;
    }
    return oldest;
  }

  /** As `oldestMs`, as far as it is known without reading; begins to read it if it is not. For who asks again and again. */
  lastOldestMs(): number | undefined {
    const unfinished = this.#partitions.filter(({ state }) => state.oldestUnfinished < state.endOffset);
    if (unfinished.length === 0) return undefined;
    const offset = unfinished.reduce((sum, { state }) => sum + state.oldestUnfinished, 0);
    if (this.#oldest?.offset !== offset) {
      this.#oldest = { offset, timeMs: this.#oldest?.timeMs };
      this.oldestMs().then(
        (timeMs) => {
          this.#oldest = { offset, timeMs };
        },
        // A partition that cannot be read says so elsewhere.
        () => {},
      );
    }
    return this.#oldest.timeMs;
  }

  // --- what is done to it ---

  /**
   * All or nothing. `any`: whoever holds it (a handle was checked instead). INVALID_RECORD_STATE if something is not held.
   * Durable with the next commit; who waits for it asks `QueueRegistry.whenDurable`.
   */
  settle(owner: Consumer | OwnerId | 'any', index: number, settlements: readonly Settlement[]): void {
    const id = typeof owner === 'object' ? owner.id : owner;
    this.#settleAt(this.#known(index), id, settlements, this.#host.clock.now());
  }

  #settleAt(
    partition: QueuePartition,
    owner: OwnerId | 'any',
    settlements: readonly Settlement[],
    nowMs: number,
  ): void {
    partition.state.settle(owner, settlements, nowMs);
    let messages = 0;
    for (const { kind, firstOffset, lastOffset } of settlements)
      if (kind !== 'renew') messages += lastOffset - firstOffset + 1;
    this.settled += messages;
    this.#host.settled(messages);
    this.#host.serving.change(partition);
  }

  /**
   * Takes up to `messagesMax` outside of any demand, at once and for `owner` (`QueueRegistry.newOwner`): nothing while a
   * consumer has the queue for itself. `lockMs`: the locks last so long, whatever becomes of the owner; default: until
   * it gives them back or the broker ends.
   */
  acquire(
    owner: OwnerId,
    index: number,
    messagesMax: number,
    door: QueueDoor = 'kafka',
    lockMs?: number,
  ): readonly AcquiredRun[] {
    const partition = this.#known(index);
    if (partition.demand.activeOwner !== undefined || partition.log.isFenced) return [];
    const { clock, serving } = this.#host;
    const nowMs = clock.now();
    partition.state.advance(nowMs);
    const runs = partition.state.acquire({
      owner,
      door,
      messagesMax,
      lockedUntilMs: lockMs === undefined ? Number.POSITIVE_INFINITY : nowMs + lockMs,
      isBoundToConnection: lockMs === undefined,
      nowMs,
    });
    // Also without a message: one may have left instead.
    if (partition.state.hasChanges) serving.change(partition);
    for (const { firstOffset, lastOffset } of runs) this.delivered += lastOffset - firstOffset + 1;
    return runs;
  }

  /** Gives back what `owner` holds. */
  release(owner: OwnerId, isFailure = false): void {
    for (const partition of this.#partitions) this.#host.serving.release(partition, owner, isFailure);
  }

  /** Of these messages, those that wait are finished: they were moved or are duplicates. Answers how many. */
  discard(index: number, offsets: readonly number[]): number {
    const partition = this.#known(index);
    const count = partition.state.discard(offsets);
    if (count > 0) this.#host.serving.change(partition);
    return count;
  }

  /** Ends one message, whoever holds it or nobody (a handle was checked instead). False: it was finished, or is about to leave. */
  finish(index: number, offset: number): boolean {
    const partition = this.#known(index);
    const { state } = partition;
    const nowMs = this.#host.clock.now();
    state.advance(nowMs);
    if (state.lockOf(offset, nowMs) !== undefined) {
      this.#settleAt(partition, 'any', [{ kind: 'accept', firstOffset: offset, lastOffset: offset }], nowMs);
      return true;
    }
    const isFinished = state.discard([offset]) > 0;
    this.#host.serving.change(partition);
    return isFinished;
  }

  /** Everything that waits (with `isInFlightToo` also what is in flight) is finished. Answers how many messages. */
  purge(options: { isInFlightToo?: boolean; untilOffset?: number } = {}): number {
    const { isInFlightToo = false, untilOffset } = options;
    let count = 0;
    for (const partition of this.#partitions) {
      count += partition.state.purge({
        takeInFlight: isInFlightToo,
        ...(untilOffset === undefined ? {} : { untilOffset }),
      });
      if (!partition.isReady)
        partition.purgedTo = Math.min(untilOffset ?? Number.POSITIVE_INFINITY, partition.log.highWatermark);
      this.#host.serving.change(partition);
    }
    return count;
  }

  /** Finished messages of the range (both ends inclusive) are available again. Answers how many. */
  replay(index: number, firstOffset: number, lastOffset: number): number | Promise<number> {
    const partition = this.#known(index);
    const from = Math.max(firstOffset, partition.log.startOffset);
    const now = (): number => {
      const { clock, serving } = this.#host;
      if (this.#isDeleted) throw new MillraceError('QUEUE_NOT_FOUND', `the queue '${this.name}' was deleted`);
      const count = partition.state.replay(from, lastOffset, clock.now());
      serving.change(partition);
      return count;
    };
    const reaching = this.#host.reach(partition, from);
    return reaching === undefined ? now() : reaching.then(now);
  }

  /** Begins anew at this offset; what was in flight is forgotten. Makes the state of the partition if there is none. */
  moveTo(index: number, offset: number): void {
    const partition = this.ensure(index) ?? this.#known(index);
    this.#host.rebase(partition, offset);
    this.#host.serving.change(partition);
  }

  // --- for the registry ---

  add(partition: QueuePartition): void {
    this.#byIndex[partition.index] = partition;
    this.#partitions = this.#byIndex.filter((each) => each !== undefined);
    for (const consumer of this.joined) consumer.opened(partition);
  }

  configure(values: QueueValues): void {
    this.#values = values;
    this.used();
  }

  end(): void {
    this.#isDeleted = true;
    this.#host.serving.unwatch(this.#expiry);
    for (const consumer of this.joined) consumer.left(this);
    this.joined.clear();
    for (const reader of this.readers) reader.left();
    this.readers.clear();
    this.#byIndex = [];
    this.#partitions = [];
  }
}
