/**
 * The Engine in memory, for tests of what stands on it. Batches are kept as given, offsets and epochs are stamped; there
 * is no producer state and no retention.
 *
 * With `durability: 'at once'` (the default) everything is durable when the call returns. With 'manual' nothing is until
 * `sync()`: high watermarks stay, `whenDurable` waits. `restart()` answers an engine that found what was durable here,
 * as after a power cut.
 */
import {
  batchLastOffset,
  batchLastOffsetDelta,
  findTimestamp,
  maxTimestampRecord,
  stampAppendTime,
  stampBatch,
} from '../../protocol/record-batch.ts';
import { MillraceError } from '../../protocol/errors.ts';
import { systemClock, type Clock } from '../../storage/clock.ts';
import type {
  Appended,
  AppendOptions,
  CommitPart,
  Engine,
  LogConfig,
  LogSlice,
  OffsetAndTime,
  Partition,
  PartitionSpec,
  Position,
  ReadOptions,
  RewriteRequest,
  RewriteResult,
} from '../../broker/engine.ts';

/** What is durable of a partition. */
interface Stored {
  batches: Buffer[];
  startOffset: number;
  endOffset: number;
  epochs: { epoch: number; startOffset: number }[];
}

export interface MemoryEngineOptions {
  durability?: 'at once' | 'manual';
  clock?: Clock;
}

interface Waiter {
  offset: number;
  callback: () => void;
}

export class MemoryPartition implements Partition {
  readonly topicId: string;
  readonly topic: string;
  readonly index: number;
  config: LogConfig;
  readonly leaderEpoch: number;
  readonly batches: Buffer[];
  readonly epochs: { epoch: number; startOffset: number }[];
  startOffset: number;
  highWatermark: number;
  endOffset: number;
  producerCount = 0;
  isFenced = false;
  isTransient = false;
  isDeleted = false;
  readonly #engine: MemoryEngine;
  #waiters: Waiter[] = [];

  constructor(engine: MemoryEngine, spec: PartitionSpec, stored: Stored) {
    this.#engine = engine;
    this.topicId = spec.topicId;
    this.topic = spec.topic;
    this.index = spec.index;
    this.config = spec.config;
    this.leaderEpoch = engine.leaderEpoch;
    this.batches = [...stored.batches];
    this.epochs = [...stored.epochs];
    this.startOffset = stored.startOffset;
    this.endOffset = stored.endOffset;
    this.highWatermark = stored.endOffset;
  }

  get lastStableOffset(): number {
    return this.highWatermark;
  }
  get sizeBytes(): number {
    return this.batches.reduce((sum, batch) => sum + batch.length, 0);
  }

  prepare(): undefined {
    return undefined;
  }

  append(batch: Buffer, options: AppendOptions): Appended {
    if (options.origin === 'client') {
      if (batch.length > this.config.maxMessageBytes)
        throw new MillraceError(
          'MESSAGE_TOO_LARGE',
          `${this.topic}-${this.index}: batch of ${batch.length} bytes, max.message.bytes ${this.config.maxMessageBytes}`,
        );
      if (this.#engine.isFull) throw new MillraceError('KAFKA_STORAGE_ERROR');
    }
    const stampsTime = options.origin === 'client' && this.config.timestampType === 'LogAppendTime';
    return this.#engine.append(this, batch, stampsTime);
  }

  read(offset: number, maxBytes: number, options: ReadOptions): LogSlice {
    if (this.isDeleted) throw new MillraceError('UNKNOWN_TOPIC_OR_PARTITION');
    if (this.isFenced) throw new MillraceError('KAFKA_STORAGE_ERROR');
    if (offset < this.startOffset || offset > this.highWatermark)
      throw new MillraceError(
        'OFFSET_OUT_OF_RANGE',
        `${this.topic}-${this.index}: offset ${offset}, have ${this.startOffset} to ${this.highWatermark}`,
      );
    const limit = Math.min(options.limitOffset ?? this.highWatermark, this.highWatermark);
    const chunks: Buffer[] = [];
    let sizeBytes = 0;
    for (const batch of this.batches) {
      const last = batchLastOffset(batch, 0);
      if (last < offset) continue;
      if (last >= limit) break;
      const isFirst = chunks.length === 0;
      if (sizeBytes + batch.length > maxBytes && !(isFirst && options.wholeFirst)) break;
      chunks.push(batch);
      sizeBytes += batch.length;
    }
    return { chunks, sizeBytes, release() {} };
  }

  async offsetForTime(timestamp: number): Promise<OffsetAndTime | undefined> {
    for (const batch of this.#readable()) {
      const found = findTimestamp(batch, 0, timestamp, this.startOffset);
      if (found) return { ...found, leaderEpoch: this.epochForOffset(found.offset) };
    }
    return undefined;
  }

  async offsetOfMaxTime(): Promise<OffsetAndTime | undefined> {
    let best: OffsetAndTime | undefined;
    for (const batch of this.#readable()) {
      const found = maxTimestampRecord(batch, 0);
      if (found && (best === undefined || found.timestamp > best.timestamp))
        best = { ...found, leaderEpoch: this.epochForOffset(found.offset) };
    }
    return best;
  }

  #readable(): Buffer[] {
    return this.batches.filter((batch) => batchLastOffset(batch, 0) < this.highWatermark);
  }

  endOffsetForEpoch(leaderEpoch: number): { leaderEpoch: number; endOffset: number } {
    if (leaderEpoch < 0) return { leaderEpoch: -1, endOffset: -1 };
    if (leaderEpoch === this.leaderEpoch) return { leaderEpoch, endOffset: this.endOffset };
    const next = this.epochs.findIndex(({ epoch }) => epoch > leaderEpoch);
    if (next === -1) {
      const newest = this.epochs.at(-1);
      if (newest === undefined || leaderEpoch > this.leaderEpoch) return { leaderEpoch: -1, endOffset: -1 };
      return { leaderEpoch: newest.epoch, endOffset: this.endOffset };
    }
    const floor = next === 0 ? leaderEpoch : this.epochs[next - 1].epoch;
    return { leaderEpoch: floor, endOffset: this.epochs[next].startOffset };
  }

  epochForOffset(offset: number): number {
    return this.epochs.findLast(({ startOffset }) => startOffset <= offset)?.epoch ?? this.leaderEpoch;
  }

  whenAbove(offset: number, callback: () => void): () => void {
    const waiter: Waiter = { offset, callback };
    this.#waiters.push(waiter);
    if (this.highWatermark > offset || this.isDeleted || this.isFenced) this.wake();
    return () => {
      this.#waiters = this.#waiters.filter((other) => other !== waiter);
    };
  }

  /** Calls the waiters whose condition holds. */
  wake(): void {
    const all = this.isDeleted || this.isFenced;
    const due = this.#waiters.filter(({ offset }) => all || this.highWatermark > offset);
    this.#waiters = this.#waiters.filter((waiter) => !due.includes(waiter));
    for (const { callback } of due) callback();
  }

  /** As after a failed read. */
  fence(): void {
    this.isFenced = true;
    this.wake();
  }
}

const keyOf = (spec: { topicId: string; index: number }): string => `${spec.topicId}:${spec.index}`;

export class MemoryEngine implements Engine {
  readonly #clock: Clock;
  readonly #isManual: boolean;
  readonly #stored: Map<string, Stored>;
  readonly #open = new Map<string, MemoryPartition>();
  #newest: Position = 0;
  /** What becomes durable, in order of positions. */
  #pending: { position: Position; store: () => void }[] = [];
  #waiters: { position: Position; callback: () => void }[] = [];
  #roomWaiters: (() => void)[] = [];
  #fatal: ((error: Error) => void) | undefined;
  #stopped: MillraceError | undefined;
  #hasRoom = true;
  durablePosition: Position = 0;
  isFull = false;
  /** How often `retain` ran. */
  retainCount = 0;

  readonly leaderEpoch: number;

  constructor(options: MemoryEngineOptions = {}, stored = new Map<string, Stored>(), leaderEpoch = 0) {
    this.leaderEpoch = leaderEpoch;
    this.#clock = options.clock ?? systemClock;
    this.#isManual = options.durability === 'manual';
    this.#stored = stored;
  }

  /** Position of the newest append or commit. */
  get lastPosition(): Position {
    return this.#newest;
  }
  /** Partitions of the "data folder", opened or not. */
  get storedKeys(): string[] {
    return [...this.#stored.keys()];
  }

  /** Bytes of everything in the "data folder". */
  get sizeBytes(): number {
    let sizeBytes = 0;
    for (const { batches } of this.#stored.values()) for (const batch of batches) sizeBytes += batch.length;
    return sizeBytes;
  }

  startNow(): void {}

  append(partition: MemoryPartition, batch: Buffer, stampsTime = false): Appended {
    this.#checkRunning();
    if (partition.isDeleted) throw new MillraceError('UNKNOWN_TOPIC_OR_PARTITION');
    if (partition.isFenced) throw new MillraceError('KAFKA_STORAGE_ERROR');
    const position = ++this.#newest;
    const appended = this.#append(partition, batch, stampsTime, position);
    this.#settle();
    return appended;
  }

  #append(partition: MemoryPartition, source: Buffer, stampsTime: boolean, position: Position): Appended {
    const batch = Buffer.from(source);
    const baseOffset = partition.endOffset;
    stampBatch(batch, 0, baseOffset, partition.leaderEpoch);
    const appendTimeMs = stampsTime ? this.#clock.now() : -1;
    if (stampsTime) stampAppendTime(batch, 0, appendTimeMs);
    const lastOffset = baseOffset + batchLastOffsetDelta(batch, 0);
    if (partition.epochs.at(-1)?.epoch !== partition.leaderEpoch)
      partition.epochs.push({ epoch: partition.leaderEpoch, startOffset: baseOffset });
    partition.batches.push(batch);
    partition.endOffset = lastOffset + 1;
    const endOffset = partition.endOffset;
    this.#pending.push({
      position,
      store: () => {
        const stored = this.#storedOf(partition);
        stored.batches.push(batch);
        stored.endOffset = endOffset;
        if (stored.epochs.at(-1)?.epoch !== partition.leaderEpoch)
          stored.epochs.push({ epoch: partition.leaderEpoch, startOffset: baseOffset });
        partition.highWatermark = endOffset;
        partition.wake();
      },
    });
    return { baseOffset, lastOffset, appendTimeMs, position, isDuplicate: false };
  }

  commit(parts: readonly CommitPart[], _urgency: 'waited' | 'lazy'): { position: Position; appended: Appended[] } {
    this.#checkRunning();
    const position = ++this.#newest;
    const appended: Appended[] = [];
    for (const part of parts) {
      const partition = this.#mine(part.partition);
      switch (part.kind) {
        case 'append':
          appended.push(this.#append(partition, part.batch, false, position));
          break;
        case 'start':
          this.#moveStart(partition, part.offset, position);
          break;
        case 'delete':
          partition.isDeleted = true;
          this.#open.delete(keyOf(partition));
          partition.wake();
          this.#pending.push({ position, store: () => void this.#stored.delete(keyOf(partition)) });
          break;
      }
    }
    this.#settle();
    return { position, appended };
  }

  #moveStart(partition: MemoryPartition, offset: number, position: Position): void {
    if (offset > partition.endOffset) throw new RangeError(`start ${offset} is above the end ${partition.endOffset}`);
    if (offset <= partition.startOffset) return;
    partition.startOffset = offset;
    const isBelow = (batch: Buffer): boolean => batchLastOffset(batch, 0) < offset;
    while (partition.batches.length > 0 && isBelow(partition.batches[0])) partition.batches.shift();
    this.#pending.push({
      position,
      store: () => {
        const stored = this.#storedOf(partition);
        stored.startOffset = offset;
        while (stored.batches.length > 0 && isBelow(stored.batches[0])) stored.batches.shift();
      },
    });
  }

  whenDurable(position: Position, callback: () => void): void {
    if (position <= this.durablePosition) callback();
    else this.#waiters.push({ position, callback });
  }

  /** `restart` finds it again, but nobody opens it then. */
  openTransient(spec: PartitionSpec): MemoryPartition {
    const partition = this.openPartition(spec);
    partition.isTransient = true;
    return partition;
  }

  openPartition(spec: PartitionSpec): MemoryPartition {
    const key = keyOf(spec);
    if (this.#open.has(key)) throw new Error(`partition ${spec.topic}-${spec.index} is open already`);
    const stored = this.#stored.get(key);
    const partition = new MemoryPartition(
      this,
      spec,
      stored ?? { batches: [], startOffset: 0, endOffset: 0, epochs: [] },
    );
    this.#open.set(key, partition);
    return partition;
  }

  async discardUnopened(): Promise<void> {
    for (const key of this.#stored.keys()) if (!this.#open.has(key)) this.#stored.delete(key);
  }

  get hasRoom(): boolean {
    return this.#hasRoom;
  }
  set hasRoom(value: boolean) {
    this.#hasRoom = value;
    if (!value) return;
    for (const callback of this.#roomWaiters.splice(0)) callback();
  }
  whenRoom(callback: () => void): void {
    if (this.#hasRoom) callback();
    else this.#roomWaiters.push(callback);
  }

  /** Rewrites nothing. */
  async rewrite(_partition: Partition, { from }: RewriteRequest): Promise<RewriteResult> {
    return { rewrittenTo: from, droppedRecords: 0, freedBytes: 0 };
  }

  async retain(): Promise<void> {
    this.retainCount++;
  }
  onFatal(callback: (error: Error) => void): void {
    this.#fatal = callback;
  }
  /** As after a failed sync: nothing pending becomes durable, nothing new is taken. */
  fail(error: Error): void {
    this.#stopped = new MillraceError('KAFKA_STORAGE_ERROR', error.message, { cause: error });
    this.#fatal?.(error);
  }
  async close(): Promise<void> {
    this.sync();
    this.#stopped = new MillraceError('STOPPING');
  }

  /** Makes everything up to `position` (default: all) durable and calls back who waits for it. */
  sync(position: Position = this.#newest): void {
    if (this.#stopped) return;
    while (this.#pending.length > 0 && this.#pending[0].position <= position) this.#pending.shift()?.store();
    this.durablePosition = Math.max(this.durablePosition, Math.min(position, this.#newest));
    const due = this.#waiters
      .filter((waiter) => waiter.position <= this.durablePosition)
      .sort((a, b) => a.position - b.position);
    this.#waiters = this.#waiters.filter((waiter) => waiter.position > this.durablePosition);
    for (const { callback } of due) callback();
  }

  /** The engine that a new process finds: what was durable, under the next leader epoch. */
  restart(options: MemoryEngineOptions = { durability: this.#isManual ? 'manual' : 'at once', clock: this.#clock }) {
    const stored = new Map<string, Stored>();
    for (const [key, from] of this.#stored)
      stored.set(key, {
        ...from,
        batches: [...from.batches],
        epochs: [...from.epochs],
      });
    return new MemoryEngine(options, stored, this.leaderEpoch + 1);
  }

  #settle(): void {
    if (!this.#isManual) this.sync();
  }
  #checkRunning(): void {
    if (this.#stopped) throw this.#stopped;
  }
  #mine(partition: Partition): MemoryPartition {
    const mine = this.#open.get(keyOf(partition));
    if (mine !== partition) throw new MillraceError('UNKNOWN_TOPIC_OR_PARTITION');
    return mine;
  }
  #storedOf(partition: MemoryPartition): Stored {
    const key = keyOf(partition);
    let stored = this.#stored.get(key);
    if (!stored) {
      stored = { batches: [], startOffset: 0, endOffset: 0, epochs: [] };
      this.#stored.set(key, stored);
    }
    return stored;
  }
}
