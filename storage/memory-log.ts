/**
 * One partition's log in memory, for what does not outlive the broker: no journal, no sync. What is appended is as durable
 * as it gets at once. Bytes are in slabs, which go when the last batch in them has: what retention may take
 * (`retentionLimit`: no queue needs it any more) goes with the next append. When all such logs hold more than their
 * budget, a slab that is full goes to a scratch file and is read from there.
 *
 * Always true: `startOffset` ≤ `highWatermark` = `endOffset`; the bytes of all slabs in memory are counted in the budget.
 * Callbacks of `whenAbove` come at the end of a turn, never within an append.
 */
import { MillraceError } from '../protocol/errors.ts';
import {
  batchLastOffsetDelta,
  batchProducerId,
  findTimestamp,
  maxTimestampRecord,
  type RecordPlace,
  stampAppendTime,
  stampBatch,
} from '../protocol/record-batch.ts';
import { checkClientBatch } from './client-batch.ts';
import type { Clock } from './clock.ts';
import type { Appended, AppendOptions, LogConfig, LogSlice, OffsetAndTime, PartitionSpec, ReadOptions } from './log.ts';
import { OffsetWaiters } from './offset-waiters.ts';
import { ProducerState } from './producer-state.ts';
import { type ScratchFile, type ScratchPlace, SLOT_BYTES } from './scratch-file.ts';

const SLAB_BYTES_MIN = 1024;
/** Batches that are gone stay in the list until there are so many. */
const GONE_MAX = 64;

/** Bytes of all logs in memory. */
export interface MemoryBudget {
  /** What is beyond it goes to the scratch file; where that fails or is too slow, appends of clients are refused beyond twice as much. */
  readonly bytesMax: number;
  bytes: number;
}

export interface MemoryLogContext {
  readonly clock: Clock;
  readonly leaderEpoch: number;
  readonly producersMax: number;
  readonly memoryBudget: MemoryBudget;
  readonly scratch: ScratchFile;
}

interface Slab {
  readonly sizeBytes: number;
  /** Undefined while it is only in the scratch file. */
  buffer: Buffer | undefined;
  usedBytes: number;
  place: ScratchPlace | undefined;
  /** Reads of the scratch file that are under way. */
  readers: number;
  /** Nothing in it is needed any more. */
  isGone: boolean;
}

interface StoredBatch {
  readonly slab: Slab;
  readonly position: number;
  readonly sizeBytes: number;
  readonly baseOffset: number;
  readonly nextOffset: number;
}

export class MemoryLog {
  retentionLimit?: () => number;
  readonly isTransient = true;
  readonly isFenced = false;
  readonly topicId: string;
  readonly topic: string;
  readonly index: number;
  config: LogConfig;
  isDeleted = false;
  readonly #context: MemoryLogContext;
  readonly #name: string;
  /** In order of offsets; those before `#first` are gone. */
  #batches: StoredBatch[] = [];
  #first = 0;
  #slab: Slab | undefined;
  #sizeBytes = 0;
  #startOffset = 0;
  #endOffset = 0;
  #producers: ProducerState | undefined;
  readonly #waiters = new OffsetWaiters();
  #isWaking = false;

  constructor(context: MemoryLogContext, { topicId, topic, index, config }: PartitionSpec) {
    this.#context = context;
    this.topicId = topicId;
    this.topic = topic;
    this.index = index;
    this.config = config;
    this.#name = `${topic}-${index}`;
  }

  get startOffset(): number {
    return this.#startOffset;
  }
  get highWatermark(): number {
    return this.#endOffset;
  }
  get lastStableOffset(): number {
    return this.#endOffset;
  }
  get endOffset(): number {
    return this.#endOffset;
  }
  get leaderEpoch(): number {
    return this.#context.leaderEpoch;
  }
  get sizeBytes(): number {
    return this.#sizeBytes;
  }
  get producerCount(): number {
    return this.#producers?.count ?? 0;
  }

  prepare(): undefined {
    return undefined;
  }

  append(batch: Buffer, { origin }: AppendOptions): Appended {
    this.#checkUsable();
    const { clock, memoryBudget } = this.#context;
    if (origin === 'internal') return this.#store(batch, -1);
    this.retain();
    if (memoryBudget.bytes + batch.length > 2 * memoryBudget.bytesMax) {
      throw new MillraceError(
        'KAFKA_STORAGE_ERROR',
        `transient queues hold ${memoryBudget.bytes} bytes, log.transient.bytes.max is ${memoryBudget.bytesMax}`,
      );
    }
    checkClientBatch(batch, this.config, clock.now(), this.#name);
    if (batchProducerId(batch, 0) >= 0) {
      this.#producers ??= new ProducerState({ name: this.#name, producersMax: this.#context.producersMax });
    }
    const duplicate = this.#producers?.duplicateOf(batch);
    if (duplicate !== undefined) {
      const { baseOffset, lastOffset } = duplicate;
      return {
        baseOffset,
        lastOffset,
        appendTimeMs: this.#appendTimeMs(duplicate.timestamp),
        position: 0,
        isDuplicate: true,
      };
    }
    return this.#store(batch, this.#appendTimeMs(clock.now()));
  }

  /** A part of an atomic commit: the broker's own batch. */
  appendAtomic(batch: Buffer): Appended {
    return this.#store(batch, -1);
  }

  #checkUsable(): void {
    if (this.isDeleted) throw new MillraceError('UNKNOWN_TOPIC_OR_PARTITION', `${this.#name} is deleted`);
  }

  #appendTimeMs(timeMs: number): number {
    return this.config.timestampType === 'LogAppendTime' ? timeMs : -1;
  }

  #store(batch: Buffer, appendTimeMs: number): Appended {
    const baseOffset = this.#endOffset;
    const nextOffset = baseOffset + batchLastOffsetDelta(batch, 0) + 1;
    const slab = this.#slabFor(batch.length);
    const { buffer, usedBytes: position } = slab;
    // Copy: the one that every payload gets.
    batch.copy(buffer, position);
    slab.usedBytes += batch.length;
    stampBatch(buffer, position, baseOffset, this.leaderEpoch);
    if (appendTimeMs >= 0) stampAppendTime(buffer, position, appendTimeMs);
    this.#batches.push({ slab, position, sizeBytes: batch.length, baseOffset, nextOffset });
    this.#sizeBytes += batch.length;
    this.#endOffset = nextOffset;
    this.#producers?.apply(buffer, position, this.#context.clock.now());
    this.#wakeSoon();
    return { baseOffset, lastOffset: nextOffset - 1, appendTimeMs, position: 0, isDuplicate: false };
  }

  /** The one that is appended to is always in memory. */
  #slabFor(sizeBytes: number): Slab & { readonly buffer: Buffer } {
    const current = this.#slab;
    if (current?.buffer !== undefined && current.usedBytes + sizeBytes <= current.sizeBytes) {
      return current as Slab & { readonly buffer: Buffer };
    }
    const { memoryBudget } = this.#context;
    // A log that has held much gets larger ones.
    const wantedBytes = Math.min(SLOT_BYTES, Math.max(SLAB_BYTES_MIN, 2 * (current?.sizeBytes ?? 0)));
    const slabBytes = Math.max(sizeBytes, wantedBytes);
    const buffer = Buffer.allocUnsafeSlow(slabBytes);
    const slab = { sizeBytes: slabBytes, buffer, usedBytes: 0, place: undefined, readers: 0, isGone: false };
    memoryBudget.bytes += slabBytes;
    this.#slab = slab;
    if (current === undefined) return slab;
    if (this.#batches.at(-1)?.slab !== current || this.#first === this.#batches.length) this.#free(current);
    else if (memoryBudget.bytes > memoryBudget.bytesMax) this.#spill(current);
    return slab;
  }

  /** To the scratch file; if that fails it stays in memory. */
  #spill(slab: Slab): void {
    const { scratch, memoryBudget } = this.#context;
    const { buffer } = slab;
    if (buffer === undefined) return;
    scratch.write(buffer.subarray(0, slab.usedBytes)).then(
      (place) => {
        slab.place = place;
        if (slab.isGone) return this.#leaveScratch(slab);
        slab.buffer = undefined;
        memoryBudget.bytes -= slab.sizeBytes;
      },
      // Memory grows up to its limit, then sends are refused: that is told to who sends.
      () => {},
    );
  }

  #leaveScratch(slab: Slab): void {
    if (slab.place === undefined || slab.readers > 0) return;
    this.#context.scratch.release(slab.place);
    slab.place = undefined;
  }

  #free(slab: Slab): void {
    if (slab.isGone) return;
    slab.isGone = true;
    if (slab.buffer !== undefined) this.#context.memoryBudget.bytes -= slab.sizeBytes;
    slab.buffer = undefined;
    this.#leaveScratch(slab);
  }

  /** Forgets what no queue needs any more. */
  retain(): void {
    if (this.retentionLimit !== undefined) this.moveStart(this.retentionLimit());
  }

  /** Moves the start up; the batches below it go at once. */
  moveStart(offset: number): void {
    if (offset <= this.#startOffset || this.isDeleted) return;
    this.#startOffset = Math.min(offset, this.#endOffset);
    while (this.#first < this.#batches.length && this.#batches[this.#first].nextOffset <= this.#startOffset) {
      const { slab, sizeBytes } = this.#batches[this.#first++];
      this.#sizeBytes -= sizeBytes;
      const isLastOfSlab = this.#batches[this.#first]?.slab !== slab;
      if (isLastOfSlab && slab !== this.#slab) this.#free(slab);
    }
    if (this.#first < GONE_MAX || this.#first * 2 < this.#batches.length) return;
    this.#batches.splice(0, this.#first);
    this.#first = 0;
  }

  /** Its end; who waits is woken. */
  delete(): void {
    if (this.isDeleted) return;
    const slabs = new Set(this.#batches.slice(this.#first).map(({ slab }) => slab));
    if (this.#slab !== undefined) slabs.add(this.#slab);
    for (const slab of slabs) this.#free(slab);
    this.isDeleted = true;
    this.#batches = [];
    this.#first = 0;
    this.#slab = undefined;
    this.#sizeBytes = 0;
    this.#wakeSoon();
  }

  // --- reading ---

  read(offset: number, maxBytes: number, options: ReadOptions): LogSlice | Promise<LogSlice> {
    this.#checkUsable();
    if (offset < this.#startOffset || offset > this.#endOffset) {
      throw new MillraceError(
        'OFFSET_OUT_OF_RANGE',
        `${this.#name}: offset ${offset}, have ${this.#startOffset} to ${this.#endOffset}`,
      );
    }
    const limit = Math.min(options.limitOffset ?? this.#endOffset, this.#endOffset);
    const runs: { slab: Slab; from: number; to: number }[] = [];
    let sizeBytes = 0;
    for (let at = this.#find(offset); at < this.#batches.length; at++) {
      const { slab, position, sizeBytes: batchBytes, nextOffset } = this.#batches[at];
      const isWhole = options.wholeFirst && sizeBytes === 0;
      if (nextOffset > limit || (sizeBytes + batchBytes > maxBytes && !isWhole)) break;
      sizeBytes += batchBytes;
      const run = runs.at(-1);
      if (run?.slab === slab) run.to = position + batchBytes;
      else runs.push({ slab, from: position, to: position + batchBytes });
    }
    const chunks = runs.map(
      ({ slab, from, to }) => slab.buffer?.subarray(from, to) ?? this.#readScratch(slab, from, to),
    );
    const release = (): void => {};
    // Narrowed by hand: what is not a promise is bytes.
    if (runs.every((_, at) => chunks[at] instanceof Buffer)) return { chunks: chunks as Buffer[], sizeBytes, release };
    return Promise.all(chunks).then((read) => ({ chunks: read, sizeBytes, release }));
  }

  async #readScratch(slab: Slab, from: number, to: number): Promise<Buffer> {
    if (slab.place === undefined) throw new MillraceError('OFFSET_OUT_OF_RANGE', `${this.#name} was cut`);
    slab.readers++;
    try {
      return await this.#context.scratch.read(slab.place, from, to);
    } finally {
      slab.readers--;
      if (slab.isGone) this.#leaveScratch(slab);
    }
  }

  /** Index of the batch that holds the offset. */
  #find(offset: number): number {
    let low = this.#first;
    let high = this.#batches.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (this.#batches[middle].nextOffset <= offset) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  async offsetForTime(timestamp: number): Promise<OffsetAndTime | undefined> {
    return this.#search((bytes, position) => findTimestamp(bytes, position, timestamp, this.#startOffset), true);
  }
  async offsetOfMaxTime(): Promise<OffsetAndTime | undefined> {
    return this.#search((bytes, position) => maxTimestampRecord(bytes, position), false);
  }

  /** Of what is found in each batch, the first or the newest. */
  async #search(
    look: (bytes: Buffer, position: number) => RecordPlace | undefined,
    isFirst: boolean,
  ): Promise<OffsetAndTime | undefined> {
    let best: OffsetAndTime | undefined;
    for (const { slab, position, sizeBytes } of this.#batches.slice(this.#first)) {
      if (slab.isGone) continue;
      const bytes = slab.buffer ?? (await this.#readScratch(slab, position, position + sizeBytes));
      const found = look(bytes, bytes === slab.buffer ? position : 0);
      if (found === undefined || (best !== undefined && found.timestamp <= best.timestamp)) continue;
      best = { ...found, leaderEpoch: this.leaderEpoch };
      if (isFirst) return best;
    }
    return best;
  }

  endOffsetForEpoch(leaderEpoch: number): { leaderEpoch: number; endOffset: number } {
    const isKnown = leaderEpoch === this.leaderEpoch;
    return isKnown ? { leaderEpoch, endOffset: this.#endOffset } : { leaderEpoch: -1, endOffset: -1 };
  }
  epochForOffset(_offset: number): number {
    return this.leaderEpoch;
  }

  whenAbove(offset: number, callback: () => void): () => void {
    const withdraw = this.#waiters.add(offset, callback);
    if (this.#endOffset > offset || this.isDeleted) this.#wakeSoon();
    return withdraw;
  }

  #wakeSoon(): void {
    if (this.#isWaking) return;
    this.#isWaking = true;
    this.#context.clock.endOfTurn(() => {
      this.#isWaking = false;
      this.#waiters.wake(this.isDeleted ? Number.POSITIVE_INFINITY : this.#endOffset);
    });
  }
}
