/**
 * Reads the messages of queues by offset. Queues hand out single records, the log keeps batches: this is the bridge. All
 * readers share one bounded cache of open batches (`open-batches.ts`), so that a batch handed out message by message is
 * opened once. Called by dead letters, jobs and every door that delivers.
 *
 * Always true: a record nobody asked for is not parsed; views of records stay valid as long as somebody has them; views
 * of whole stored batches (`batches`) until they are released. An offset without a record (a control batch, compaction,
 * below the start of the log) is a gap, never an error.
 */
import type { Payload } from '../protocol/bytes.ts';
import { MillraceError } from '../protocol/errors.ts';
import {
  ATTRIBUTE_CONTROL,
  BATCH_OVERHEAD_BYTES,
  type BatchPiece,
  batchAttributes,
  batchBaseOffset,
  batchLastOffset,
  batchRecordCount,
  batchSizeBytes,
  type RecordHeader,
  subsetBatch,
} from '../protocol/record-batch.ts';
import type { FileSplice, LogSlice, Partition } from './engine.ts';
import { type LogRecord, OpenBatch, OpenBatches } from './open-batches.ts';
import { type Chunk, ChunkPool } from './chunk-pool.ts';

/** Neighbouring offsets, both ends inclusive. An `AcquiredRun` is one. */
export interface OffsetRun {
  readonly firstOffset: number;
  readonly lastOffset: number;
}

export interface QueuedRecord {
  readonly offset: number;
  /** In ms since 1970; −1 if the producer gave none. */
  readonly timestamp: number;
  readonly key: Buffer | null;
  readonly value: Buffer | null;
  /** In order; none is parsed before the first use. */
  readonly headers: readonly RecordHeader[];
}

export interface QueuedRecords {
  /** In order of offsets. */
  readonly records: readonly QueuedRecord[];
  /** Offsets that were asked for and have no record: settle them as 'gap'. */
  readonly gaps: readonly OffsetRun[];
}

/** Neighbouring records of an open batch. */
export interface RecordSpan {
  readonly batch: OpenBatch;
  readonly index: number;
  readonly count: number;
}

export interface QueuedSpans {
  /** In order of offsets; valid until `release`. */
  readonly spans: readonly RecordSpan[];
  /** Offsets that were asked for, below `restFrom`, and have no record: settle them as 'gap'. */
  readonly gaps: readonly OffsetRun[];
  /** What was asked for from here on did not fit into the bytes that were allowed; infinity: it did. */
  readonly restFrom: number;
  /** Called once, when the records were looked at. */
  release(): void;
}

export interface QueuedBatches {
  /** Whole record batches in order of offsets. Valid until `release`. */
  readonly chunks: readonly Payload[];
  readonly sizeBytes: number;
  /** Offsets that were asked for, below `restFrom`, and have no record. */
  readonly gaps: readonly OffsetRun[];
  /** Everything asked for from here on did not fit into `bytesMax` and is not in `chunks`; infinity: all of it is. */
  readonly restFrom: number;
  /** Called once, when the bytes were sent or dropped. */
  release(): void;
}

export interface QueueReaderOptions {
  /** `queue.open.batches.bytes` */
  readonly openBytesMax: number;
  /** `decompressed.bytes.max` */
  readonly decompressedBytesMax: number;
}

/**
 * How much is read at once for records. From a file: one hop to a thread pays for many batches, and a view pins at most
 * this much. From memory it costs nothing but the headers passed over.
 */
const RECORDS_READ_BYTES = 128 * 1024;
/** Of a file, where what was read before is not continued: a few messages out of many. */
const JUMP_READ_BYTES = 16 * 1024;
/** The same for batches, of which more is used. */
const BATCHES_READ_BYTES = 1024 * 1024;
const NOTHING = Buffer.alloc(0);

export class QueueReader {
  readonly #open: OpenBatches;
  readonly #decompressedBytesMax: number;
  readonly #chunks = new ChunkPool();
  /** Where the last read of a partition's files ended. */
  readonly #readAhead = new WeakMap<Partition, number>();

  constructor(options: QueueReaderOptions) {
    this.#open = new OpenBatches(options.openBytesMax);
    this.#decompressedBytesMax = options.decompressedBytesMax;
  }

  /** Bytes held by open batches. */
  get openBytes(): number {
    return this.#open.sizeBytes;
  }

  /**
   * The records at the offsets of `runs` (ascending), which are below the high watermark. Synchronous when the batches
   * are open or in the tail cache. Errors: KAFKA_STORAGE_ERROR for a partition whose files fail or whose bytes are not
   * what was written.
   */
  records(partition: Partition, runs: readonly OffsetRun[]): QueuedRecords | Promise<QueuedRecords> {
    const reading = new SpansReading(partition, runs, this.#open, this.#chunks, this.#decompressedBytesMax);
    reading.isOwning = true;
    return this.#read(reading)?.then(recordsOf) ?? recordsOf(reading);
  }

  /**
   * The same as places in open batches: for who walks through many without an object for each. About `bytesMax` of them;
   * the batch that reaches it is in it.
   */
  spans(partition: Partition, runs: readonly OffsetRun[], bytesMax?: number): QueuedSpans | Promise<QueuedSpans> {
    const reading = new SpansReading(partition, runs, this.#open, this.#chunks, this.#decompressedBytesMax, bytesMax);
    return this.#readOrRelease(reading);
  }

  /**
   * The same as batches, for a share fetch: a stored batch whole (a view) where `runs` cover at least half of its
   * records, else a batch rebuilt from just those, uncompressed, without a producer, offsets kept. The first batch comes
   * whatever `bytesMax` says; then as many as fit.
   */
  batches(partition: Partition, runs: readonly OffsetRun[], bytesMax: number): QueuedBatches | Promise<QueuedBatches> {
    const reading = new BatchesReading(partition, runs, this.#open, this.#chunks, this.#decompressedBytesMax, bytesMax);
    return this.#readOrRelease(reading);
  }

  /** Last offset of the batch that holds `offset`, if that is known without reading a file; else `offset` itself. */
  batchEnd(partition: Partition, offset: number): number {
    const open = this.#open.find(partition, offset);
    if (open !== undefined) return open.lastOffset;
    if (offset < partition.startOffset || offset >= partition.highWatermark) return offset;
    const slice = partition.read(offset, 1, { wholeFirst: true });
    if (slice instanceof Promise) {
      // A file that cannot be read is fenced, and whoever reads its records is told.
      slice.then(
        (found) => found.release(),
        () => {},
      );
      return offset;
    }
    const [chunk] = slice.chunks;
    const lastOffset = Buffer.isBuffer(chunk) ? batchLastOffset(chunk, 0) : offset;
    slice.release();
    return Math.max(offset, lastOffset);
  }

  /** Forgets what is open of a partition that is deleted. */
  forget(partition: Partition): void {
    this.#open.forget(partition);
  }

  /** `reading` with all it wants; one that fails gives back what it holds. */
  #readOrRelease<R extends Reading & { release(): void }>(reading: R): R | Promise<R> {
    try {
      const pending = this.#read(reading);
      if (pending === undefined) return reading;
      return pending.catch((error: unknown) => {
        reading.release();
        throw error;
      });
    } catch (error) {
      reading.release();
      throw error;
    }
  }

  /** Feeds `reading` until it has all it wants. Undefined: it has. */
  #read<R extends Reading>(reading: R): Promise<R> | undefined {
    const { partition, wanted } = reading;
    while (!wanted.isDone) {
      if (wanted.next < partition.startOffset) {
        wanted.skipTo(partition.startOffset);
        continue;
      }
      const open = this.#open.find(partition, wanted.next);
      if (open !== undefined) {
        if (reading.takeOpen(open)) this.#open.drop(open);
        else this.#open.recount(open);
        continue;
      }
      const slice = partition.read(wanted.next, this.#readBytes(reading), { wholeFirst: true });
      if (slice instanceof Promise || !isInMemory(slice)) return this.#readOn(reading, slice);
      this.#takeFromMemory(reading, slice);
    }
    return undefined;
  }

  #readBytes({ partition, wanted, readBytes }: Reading): number {
    // What goes on where the last read of this partition's files ended, or asks for much, reads ahead.
    const { endOffset, startOffset, sizeBytes } = partition;
    const wantedBytes = (wanted.runLast - wanted.next + 1) * (sizeBytes / Math.max(1, endOffset - startOffset));
    if (wantedBytes > JUMP_READ_BYTES || this.#readAhead.get(partition) === wanted.next) return readBytes;
    return Math.min(readBytes, JUMP_READ_BYTES);
  }

  async #readOn<R extends Reading>(reading: R, pending: LogSlice | Promise<LogSlice>): Promise<R> {
    const slice = await pending;
    if (isInMemory(slice)) this.#takeFromMemory(reading, slice);
    else await this.#takeFromFile(reading, slice);
    await this.#read(reading);
    return reading;
  }

  #takeFromMemory(reading: Reading, slice: LogSlice): void {
    const before = reading.wanted.next;
    let isKept = false;
    for (const chunk of slice.chunks) {
      if (!Buffer.isBuffer(chunk)) throw new TypeError('a slice of memory has buffers only');
      isKept = eachWanted(reading, chunk, (at, sizeBytes) => reading.takeView(chunk, at, sizeBytes, slice)) || isKept;
    }
    if (!isKept) slice.release();
    if (reading.wanted.next === before) throw nothingAt(reading.partition, before);
  }

  async #takeFromFile(reading: Reading, slice: LogSlice): Promise<void> {
    const before = reading.wanted.next;
    // Copy: these bytes outlive the slice, in the cache and on their way out.
    const memory = this.#chunks.take(slice.sizeBytes);
    const bytes = memory.bytes.subarray(0, slice.sizeBytes);
    try {
      let end = 0;
      for (const chunk of slice.chunks) {
        const target = bytes.subarray(end, end + chunk.length);
        if (chunk instanceof Uint8Array) target.set(chunk);
        // The log's own slices have no other splices than ranges of files.
        else await (chunk as FileSplice).read(target, 0);
        end += chunk.length;
      }
      this.#takeFromChunk(reading, memory, bytes);
    } finally {
      slice.release();
      memory.release();
    }
    if (reading.wanted.next === before) throw nothingAt(reading.partition, before);
  }

  #takeFromChunk(reading: Reading, memory: Chunk, bytes: Buffer): void {
    // All of it is kept, wanted or not: what comes next is likely to be wanted soon.
    for (let at = 0; at + BATCH_OVERHEAD_BYTES <= bytes.length; ) {
      const sizeBytes = batchSizeBytes(bytes, at);
      if (sizeBytes < BATCH_OVERHEAD_BYTES || at + sizeBytes > bytes.length) break;
      const stored = bytes.subarray(at, at + sizeBytes);
      const batch = new OpenBatch(reading.partition, stored, this.#decompressedBytesMax, memory);
      const isUsedUp = batch.lastOffset >= reading.wanted.next && reading.takeOpen(batch);
      if (isUsedUp || batch.isControl) batch.end();
      else this.#open.add(batch);
      this.#readAhead.set(reading.partition, batch.lastOffset + 1);
      at += sizeBytes;
    }
  }
}

/** Calls `take` for the batches of `chunk` that hold something wanted, until nothing is. Whether any call answered true. */
function eachWanted(reading: Reading, chunk: Buffer, take: (at: number, sizeBytes: number) => boolean): boolean {
  let isKept = false;
  let at = 0;
  while (at + BATCH_OVERHEAD_BYTES <= chunk.length && !reading.wanted.isDone) {
    const sizeBytes = batchSizeBytes(chunk, at);
    if (at + sizeBytes > chunk.length) break;
    if (batchLastOffset(chunk, at) >= reading.wanted.next && take(at, sizeBytes)) isKept = true;
    at += sizeBytes;
  }
  return isKept;
}

function isInMemory(slice: LogSlice): boolean {
  for (const chunk of slice.chunks) if (!(chunk instanceof Uint8Array)) return false;
  return true;
}

function nothingAt(partition: Partition, offset: number): MillraceError {
  return new MillraceError(
    'KAFKA_STORAGE_ERROR',
    `${partition.topic}-${partition.index}: no batch at or after offset ${offset}, which a queue has handed out (high watermark ${partition.highWatermark})`,
  );
}

/** What `QueueReader` shows the log to, batch by batch, in order of offsets. */
interface Reading {
  readonly partition: Partition;
  readonly wanted: WantedOffsets;
  /** How much is asked of the log at most. */
  readonly readBytes: number;
  /** An open batch that ends at or above what is wanted next. True: it is not worth keeping. */
  takeOpen(batch: OpenBatch): boolean;
  /** The same batch in memory of the log. True: the view is used, and `slice` released later. */
  takeView(chunk: Buffer, at: number, sizeBytes: number, slice: LogSlice): boolean;
}

/** Walks through the offsets of runs, and notes those that have no record. */
class WantedOffsets {
  readonly #runs: readonly OffsetRun[];
  #index = 0;
  /** The next offset; infinity after the last. */
  next: number;
  readonly gaps: OffsetRun[] = [];

  constructor(runs: readonly OffsetRun[]) {
    this.#runs = runs;
    this.next = runs.length === 0 ? Number.POSITIVE_INFINITY : runs[0].firstOffset;
  }

  get isDone(): boolean {
    return this.next === Number.POSITIVE_INFINITY;
  }
  /** Of the run that `next` is in. */
  get runLast(): number {
    return this.#runs[this.#index].lastOffset;
  }

  /** Passes what is wanted below `offset`. */
  passTo(offset: number): void {
    while (this.next < offset) {
      if (this.runLast >= offset) this.next = offset;
      else this.#nextRun();
    }
  }

  /** The same, and what is passed are gaps. */
  skipTo(offset: number): void {
    while (this.next < offset) {
      const lastOffset = Math.min(this.runLast, offset - 1);
      const newest = this.gaps.at(-1);
      if (newest !== undefined && newest.lastOffset + 1 === this.next) {
        this.gaps[this.gaps.length - 1] = { firstOffset: newest.firstOffset, lastOffset };
      } else this.gaps.push({ firstOffset: this.next, lastOffset });
      if (lastOffset === this.runLast) this.#nextRun();
      else this.next = lastOffset + 1;
    }
  }

  /** How many offsets up to `lastOffset` are wanted. */
  countTo(lastOffset: number): number {
    let count = 0;
    let from = this.next;
    for (let index = this.#index; from <= lastOffset; ) {
      count += Math.min(this.#runs[index].lastOffset, lastOffset) - from + 1;
      if (++index === this.#runs.length) break;
      from = this.#runs[index].firstOffset;
    }
    return count;
  }

  /** Nothing from `offset` on is wanted after all. */
  stopAt(offset: number): void {
    for (
      let newest = this.gaps.at(-1);
      newest !== undefined && newest.lastOffset >= offset;
      newest = this.gaps.at(-1)
    ) {
      this.gaps.pop();
      if (newest.firstOffset < offset) {
        this.gaps.push({ firstOffset: newest.firstOffset, lastOffset: offset - 1 });
        break;
      }
    }
    this.next = Number.POSITIVE_INFINITY;
  }

  #nextRun(): void {
    this.#index++;
    this.next = this.#index < this.#runs.length ? this.#runs[this.#index].firstOffset : Number.POSITIVE_INFINITY;
  }
}

/** Calls `visit` for runs of records of `batch` that are wanted, by their numbers. What is wanted and not there is a gap. */
function eachWantedRun(batch: OpenBatch, wanted: WantedOffsets, visit: (index: number, count: number) => void): void {
  while (wanted.next <= batch.lastOffset) {
    const index = batch.indexFrom(wanted.next);
    if (index === batch.recordCount) return wanted.skipTo(batch.lastOffset + 1);
    const offset = batch.offsetOf(index);
    if (offset > wanted.next) {
      wanted.skipTo(offset);
      continue;
    }
    // In a dense batch as many as the run has, else one at a time.
    const last = batch.isDense ? Math.min(wanted.runLast, batch.lastOffset) : offset;
    visit(index, last - offset + 1);
    wanted.passTo(last + 1);
  }
}

class SpansReading implements Reading, QueuedSpans {
  readonly partition: Partition;
  readonly wanted: WantedOffsets;
  readonly readBytes = RECORDS_READ_BYTES;
  readonly spans: RecordSpan[] = [];
  restFrom = Number.POSITIVE_INFINITY;
  /** Views of its records may be held for ever. */
  isOwning = false;
  readonly #open: OpenBatches;
  readonly #chunks: ChunkPool;
  readonly #decompressedBytesMax: number;
  #bytesLeft: number;
  /** What `spans` lie in. */
  readonly #held: Chunk[] = [];

  constructor(
    partition: Partition,
    runs: readonly OffsetRun[],
    open: OpenBatches,
    chunks: ChunkPool,
    decompressedBytesMax: number,
    bytesMax = Number.POSITIVE_INFINITY,
  ) {
    this.partition = partition;
    this.wanted = new WantedOffsets(runs);
    this.#open = open;
    this.#chunks = chunks;
    this.#decompressedBytesMax = decompressedBytesMax;
    this.#bytesLeft = bytesMax;
  }

  get gaps(): readonly OffsetRun[] {
    return this.wanted.gaps;
  }

  takeOpen(batch: OpenBatch): boolean {
    const { wanted } = this;
    wanted.skipTo(batch.baseOffset);
    if (batch.isControl) wanted.skipTo(batch.lastOffset + 1);
    if (wanted.next > batch.lastOffset) return false;
    if (this.isOwning) batch.own();
    const { chunk } = batch;
    chunk?.retain();
    if (chunk !== undefined) this.#held.push(chunk);
    let taken = 0;
    let end = 0;
    eachWantedRun(batch, wanted, (index, count) => {
      this.spans.push({ batch, index, count });
      taken += count;
      end = index + count;
    });
    this.#bytesLeft -= (batch.stored.length * taken) / batch.recordCount;
    if (this.#bytesLeft <= 0 && !wanted.isDone) {
      this.restFrom = wanted.next;
      wanted.stopAt(wanted.next);
    }
    // Queues hand out in order: who has had the last record has mostly had the others.
    return chunk !== undefined && end === batch.recordCount;
  }

  takeView(chunk: Buffer, at: number, sizeBytes: number): boolean {
    openCopy(this, this.#open, this.#chunks, chunk, at, sizeBytes, this.#decompressedBytesMax);
    return false;
  }

  release(): void {
    for (const chunk of this.#held.splice(0)) chunk.release();
  }
}

/** Of batches that have their bytes for themselves. */
function recordsOf({ spans, gaps }: QueuedSpans): QueuedRecords {
  const records: LogRecord[] = [];
  for (const { batch, index, count } of spans) {
    for (let at = index; at < index + count; at++) records.push(batch.record(at));
  }
  return { records, gaps };
}

/** Has `reading` take an open batch that does not depend on the memory of the log, and keeps it unless it is used up. */
function openCopy(
  reading: Reading,
  open: OpenBatches,
  chunks: ChunkPool,
  bytes: Buffer,
  at: number,
  sizeBytes: number,
  decompressedBytesMax: number,
): void {
  if ((batchAttributes(bytes, at) & ATTRIBUTE_CONTROL) !== 0) {
    reading.wanted.skipTo(batchLastOffset(bytes, at) + 1);
    return;
  }
  const chunk = chunks.take(sizeBytes);
  // Copy: open batches are held for a while, memory of the log is not.
  bytes.copy(chunk.bytes, 0, at, at + sizeBytes);
  const batch = new OpenBatch(reading.partition, chunk.bytes.subarray(0, sizeBytes), decompressedBytesMax, chunk);
  chunk.release();
  if (reading.takeOpen(batch)) batch.end();
  else open.add(batch);
}

class BatchesReading implements Reading, QueuedBatches {
  readonly partition: Partition;
  readonly wanted: WantedOffsets;
  readonly chunks: Buffer[] = [];
  sizeBytes = 0;
  restFrom = Number.POSITIVE_INFINITY;
  readonly #open: OpenBatches;
  readonly #chunks: ChunkPool;
  readonly #decompressedBytesMax: number;
  readonly #bytesMax: number;
  /** What `chunks` has views of. */
  readonly #held: (LogSlice | Chunk)[] = [];
  /** The last of `chunks` is a view of this memory, which ends there. */
  #viewed: Buffer | undefined;
  #viewStart = 0;
  #viewEnd = 0;

  constructor(
    partition: Partition,
    runs: readonly OffsetRun[],
    open: OpenBatches,
    chunks: ChunkPool,
    decompressedBytesMax: number,
    bytesMax: number,
  ) {
    this.partition = partition;
    this.wanted = new WantedOffsets(runs);
    this.#open = open;
    this.#chunks = chunks;
    this.#decompressedBytesMax = decompressedBytesMax;
    this.#bytesMax = bytesMax;
  }

  get gaps(): readonly OffsetRun[] {
    return this.wanted.gaps;
  }
  get readBytes(): number {
    return Math.min(BATCHES_READ_BYTES, Math.max(1, this.#bytesMax - this.sizeBytes));
  }

  takeView(chunk: Buffer, at: number, sizeBytes: number, slice: LogSlice): boolean {
    const { wanted } = this;
    const from = wanted.next;
    const baseOffset = batchBaseOffset(chunk, at);
    const lastOffset = batchLastOffset(chunk, at);
    const recordCount = batchRecordCount(chunk, at);
    wanted.skipTo(baseOffset);
    // What was wanted lies in a hole before it.
    if (wanted.next > lastOffset) return false;
    const isControl = (batchAttributes(chunk, at) & ATTRIBUTE_CONTROL) !== 0;
    const isDense = recordCount === lastOffset - baseOffset + 1;
    if (isControl || !isDense || wanted.countTo(lastOffset) * 2 < recordCount) {
      openCopy(this, this.#open, this.#chunks, chunk, at, sizeBytes, this.#decompressedBytesMax);
      return false;
    }
    if (!this.#hasRoom(sizeBytes, from)) return false;
    wanted.passTo(lastOffset + 1);
    this.sizeBytes += sizeBytes;
    if (this.#viewed === chunk && this.#viewEnd === at) this.chunks.pop();
    else this.#viewStart = at;
    this.#viewed = chunk;
    this.#viewEnd = at + sizeBytes;
    this.chunks.push(chunk.subarray(this.#viewStart, this.#viewEnd));
    if (this.#held.at(-1) !== slice) this.#held.push(slice);
    return true;
  }

  takeOpen(batch: OpenBatch): boolean {
    const { wanted } = this;
    const from = wanted.next;
    wanted.skipTo(batch.baseOffset);
    if (wanted.next > batch.lastOffset) return false;
    if (batch.isControl) {
      wanted.skipTo(batch.lastOffset + 1);
      return false;
    }
    const wantedCount = wanted.countTo(batch.lastOffset);
    let bytes = batch.stored;
    if (batch.isDense && wantedCount * 2 >= batch.recordCount) {
      wanted.passTo(batch.lastOffset + 1);
    } else {
      batch.own();
      bytes = wantedPart(batch, wanted);
      if (bytes.length === 0) return false;
    }
    if (!this.#hasRoom(bytes.length, from)) return false;
    this.#push(bytes, batch.chunk);
    return batch.chunk !== undefined && wantedCount === batch.recordCount;
  }

  /** Of a chunk, if `bytes` lie in one. */
  #push(bytes: Buffer, chunk: Chunk | undefined): void {
    this.sizeBytes += bytes.length;
    const memory = chunk?.bytes;
    const at = bytes.byteOffset - (memory?.byteOffset ?? 0);
    if (memory !== undefined && this.#viewed === memory && this.#viewEnd === at) this.chunks.pop();
    else this.#viewStart = at;
    this.#viewed = memory;
    this.#viewEnd = at + bytes.length;
    this.chunks.push(memory === undefined ? bytes : memory.subarray(this.#viewStart, this.#viewEnd));
    if (chunk === undefined || this.#held.at(-1) === chunk) return;
    chunk.retain();
    this.#held.push(chunk);
  }

  #hasRoom(sizeBytes: number, from: number): boolean {
    if (this.chunks.length === 0 || this.sizeBytes + sizeBytes <= this.#bytesMax) return true;
    this.restFrom = from;
    this.wanted.stopAt(from);
    return false;
  }

  release(): void {
    for (const held of this.#held.splice(0)) held.release();
  }
}

/** The batch with what is wanted of it; the whole of it if that is half, or not larger. Empty: nothing of it is wanted. */
function wantedPart(batch: OpenBatch, wanted: WantedOffsets): Buffer {
  const pieces: BatchPiece[] = [];
  let count = 0;
  let sizeBytes = BATCH_OVERHEAD_BYTES;
  eachWantedRun(batch, wanted, (index, runCount) => {
    const start = batch.positionOf(index);
    const end = batch.positionOf(index + runCount);
    pieces.push({ start, end, lastOffsetDelta: batch.offsetOf(index + runCount - 1) - batch.baseOffset });
    count += runCount;
    sizeBytes += end - start;
  });
  if (count === 0) return NOTHING;
  if (count * 2 >= batch.recordCount || sizeBytes >= batch.stored.length) return batch.stored;
  return subsetBatch(batch.stored, batch.records, pieces, count);
}
