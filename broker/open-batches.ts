/**
 * The cache of open batches behind `queue-reader.ts`: batches of the log with the places of their records, the least
 * recently used forgotten first. A batch is decompressed, and its records are looked for, only when one is wanted.
 *
 * Always true: a batch that `own` was called for has its bytes for itself, so a view of a record needs no release; others
 * may lie in a chunk that is used again, and who looks at them holds that; at most `bytesMax` are held (a batch that is
 * larger by itself is not kept).
 */
import { crc32c } from '../protocol/crc32c.ts';
import { MillraceError } from '../protocol/errors.ts';
import {
  ATTRIBUTE_COMPRESSION,
  ATTRIBUTE_CONTROL,
  ATTRIBUTE_TIMESTAMP_TYPE,
  BATCH_OVERHEAD_BYTES,
  batchAttributes,
  batchBaseOffset,
  batchBaseTimestamp,
  batchCrc,
  batchLastOffsetDelta,
  batchMaxTimestamp,
  batchRecordCount,
  type RecordHeader,
} from '../protocol/record-batch.ts';
import { codecs, decompress } from '../protocol/compression.ts';
import { RecordCursor } from '../protocol/record-walk.ts';
import type { Chunk } from './chunk-pool.ts';
import type { Partition } from './engine.ts';

/** What a batch costs beside its bytes: objects and its place in the cache. */
const OVERHEAD_BYTES = 512;
/** Where the CRC of a batch begins to count. */
const CRC_START = 21;
const NONE: readonly RecordHeader[] = [];

/** A record of an open batch; its headers are parsed when they are first looked at. */
export class LogRecord {
  readonly offset: number;
  readonly timestamp: number;
  readonly key: Buffer | null;
  readonly value: Buffer | null;
  readonly #records: Buffer;
  /** Where the record starts in `#records`; −1 when there is nothing to parse (any more). */
  #position: number;
  #headers: readonly RecordHeader[] = NONE;

  constructor(
    offset: number,
    timestamp: number,
    key: Buffer | null,
    value: Buffer | null,
    records: Buffer,
    position: number,
  ) {
    this.offset = offset;
    this.timestamp = timestamp;
    this.key = key;
    this.value = value;
    this.#records = records;
    this.#position = position;
  }

  get headers(): readonly RecordHeader[] {
    if (this.#position >= 0) {
      const cursor = new RecordCursor(this.#records, this.#position, this.#records.length);
      cursor.next();
      this.#headers = cursor.headers();
      this.#position = -1;
    }
    return this.#headers;
  }
}

export class OpenBatch {
  readonly partition: Partition;
  readonly baseOffset: number;
  readonly lastOffset: number;
  readonly recordCount: number;
  readonly isControl: boolean;
  /** As it is in the log. */
  stored: Buffer;
  /** What `stored` lies in, if others lie there too; it is used until `own` or `end`. */
  #chunk: Chunk | undefined;
  readonly #decompressedBytesMax: number;
  readonly #baseTimestamp: number;
  /** The timestamp of every record, where the broker's append time counts. */
  readonly #appendTime: number | undefined;
  /** Undefined until a record is wanted. */
  #cursor: RecordCursor | undefined;
  /** Where records start, as far as somebody had to look. */
  #positions: Uint32Array | undefined;
  #located = 0;
  #locatedEnd = 0;
  /** Offset deltas, for a batch some records of which were compacted away. */
  #deltas: Int32Array | undefined;
  /** The cache's list, and what it counts for this batch. */
  older: OpenBatch | undefined;
  newer: OpenBatch | undefined;
  countedBytes = 0;

  /** `stored` is exactly one batch and stays as it is, in a chunk as long as that is used. */
  constructor(partition: Partition, stored: Buffer, decompressedBytesMax: number, chunk?: Chunk) {
    this.partition = partition;
    this.stored = stored;
    this.#chunk = chunk;
    chunk?.retain();
    this.baseOffset = batchBaseOffset(stored, 0);
    this.lastOffset = this.baseOffset + batchLastOffsetDelta(stored, 0);
    this.recordCount = batchRecordCount(stored, 0);
    const attributes = batchAttributes(stored, 0);
    this.isControl = (attributes & ATTRIBUTE_CONTROL) !== 0;
    this.#baseTimestamp = batchBaseTimestamp(stored, 0);
    this.#appendTime = (attributes & ATTRIBUTE_TIMESTAMP_TYPE) !== 0 ? batchMaxTimestamp(stored, 0) : undefined;
    this.#decompressedBytesMax = decompressedBytesMax;
  }

  /** What its bytes lie in, if they are not its own. */
  get chunk(): Chunk | undefined {
    return this.#chunk;
  }
  /** From now on its bytes are nobody else's, so views of its records need no release. */
  own(): void {
    if (this.#chunk === undefined) return;
    const before = this.stored;
    // Copy: a chunk is used again, and one batch should not hold a megabyte.
    this.stored = Buffer.from(before);
    if (this.#cursor?.bytes === before) this.#cursor = this.#storedCursor();
    this.end();
  }
  /** Nobody looks at it any more. */
  end(): void {
    this.#chunk?.release();
    this.#chunk = undefined;
  }

  /** Whether every offset from base to last has a record. */
  get isDense(): boolean {
    return this.recordCount === this.lastOffset - this.baseOffset + 1;
  }

  /** Memory it holds. */
  get sizeBytes(): number {
    const records = this.#cursor?.bytes;
    const openedBytes = records === undefined || records === this.stored ? 0 : records.length;
    return OVERHEAD_BYTES + this.stored.length + openedBytes + (this.#positions?.byteLength ?? 0);
  }

  /** Number of the first record at or above `offset`; `recordCount` if there is none. Opens the batch if need be. */
  indexFrom(offset: number): number {
    if (this.isDense) return Math.min(Math.max(0, offset - this.baseOffset), this.recordCount);
    const deltas = this.#allDeltas();
    const delta = offset - this.baseOffset;
    let low = 0;
    let high = this.recordCount;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (deltas[middle] < delta) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  /** Offset of record `index`, which is less than `recordCount`. */
  offsetOf(index: number): number {
    return this.baseOffset + (this.isDense ? index : this.#allDeltas()[index]);
  }

  record(index: number): LogRecord {
    const cursor = this.#opened();
    const position = this.positionOf(index);
    cursor.position = position;
    cursor.next();
    const { bytes, keyStart, keySize, valueStart, valueSize } = cursor;
    return new LogRecord(
      this.baseOffset + cursor.offsetDelta,
      this.timestampOf(cursor),
      keySize < 0 ? null : bytes.subarray(keyStart, keyStart + keySize),
      valueSize < 0 ? null : bytes.subarray(valueStart, valueStart + valueSize),
      bytes,
      cursor.headerCount === 0 ? -1 : position,
    );
  }

  /** The cursor of all records, whose `next` comes to record `index`; valid until the next call of any method. */
  cursorAt(index: number): RecordCursor {
    const cursor = this.#opened();
    cursor.position = this.positionOf(index);
    return cursor;
  }

  /** Of the record that the cursor is at. */
  timestampOf({ timestampDelta }: RecordCursor): number {
    return this.#appendTime ?? this.#baseTimestamp + timestampDelta;
  }

  /** The bytes of the records, decompressed. */
  get records(): Buffer {
    return this.#opened().bytes;
  }

  /** Where record `index` starts in `records`; for `recordCount`, where the last one ends. */
  positionOf(index: number): number {
    const cursor = this.#opened();
    if (index === this.#located) return this.#locatedEnd;
    if (index > this.#located) {
      this.#positions ??= new Uint32Array(this.recordCount);
      const positions = this.#positions;
      const { bytes, end } = cursor;
      let at = this.#locatedEnd;
      for (let next = this.#located; next < index; next++) {
        positions[next] = at;
        at = recordEnd(bytes, at, end);
      }
      this.#located = index;
      this.#locatedEnd = at;
      return at;
    }
    // What was located was written down.
    return this.#positions?.[index] ?? 0;
  }

  #opened(): RecordCursor {
    if (this.#cursor !== undefined) return this.#cursor;
    const { stored } = this;
    if (crc32c(stored, CRC_START, stored.length - CRC_START) !== batchCrc(stored, 0)) {
      throw new MillraceError(
        'KAFKA_STORAGE_ERROR',
        `${this.partition.topic}-${this.partition.index}: the batch at offset ${this.baseOffset} fails its checksum`,
      );
    }
    const codec = codecs[batchAttributes(stored, 0) & ATTRIBUTE_COMPRESSION] ?? 'none';
    if (codec === 'none') {
      this.#cursor = this.#storedCursor();
      this.#locatedEnd = BATCH_OVERHEAD_BYTES;
    } else {
      const records = decompress(codec, stored.subarray(BATCH_OVERHEAD_BYTES), this.#decompressedBytesMax);
      this.#cursor = new RecordCursor(records, 0, records.length);
    }
    return this.#cursor;
  }

  #storedCursor(): RecordCursor {
    return new RecordCursor(this.stored, BATCH_OVERHEAD_BYTES, this.stored.length);
  }

  #allDeltas(): Int32Array {
    if (this.#deltas !== undefined) return this.#deltas;
    const cursor = this.#opened();
    const deltas = new Int32Array(this.recordCount);
    for (let index = 0; index < deltas.length; index++) {
      cursor.position = this.positionOf(index);
      cursor.next();
      deltas[index] = cursor.offsetDelta;
    }
    this.#deltas = deltas;
    return deltas;
  }
}

/** Where the record that starts at `start` ends: its size is all that is looked at. */
function recordEnd(bytes: Buffer, start: number, end: number): number {
  let at = start;
  let raw = 0;
  for (let shift = 0; shift < 35 && at < end; shift += 7) {
    const byte = bytes[at++];
    raw |= (byte & 0x7f) << shift;
    if (byte < 0x80) {
      const next = at + (raw >>> 1);
      if ((raw & 1) === 0 && next <= end) return next;
      break;
    }
  }
  throw new MillraceError('INVALID_RECORD', `the record at byte ${start} does not end before byte ${end}`);
}

export class OpenBatches {
  readonly #bytesMax: number;
  /** Of one partition, by offset. */
  readonly #partitions = new Map<Partition, OpenBatch[]>();
  #oldest: OpenBatch | undefined;
  #newest: OpenBatch | undefined;
  #sizeBytes = 0;

  /** `queue.open.batches.bytes` */
  constructor(bytesMax: number) {
    this.#bytesMax = bytesMax;
  }

  get sizeBytes(): number {
    return this.#sizeBytes;
  }

  /** The open batch that holds `offset`, which becomes the most recently used. */
  find(partition: Partition, offset: number): OpenBatch | undefined {
    const batches = this.#partitions.get(partition);
    if (batches === undefined) return undefined;
    const index = indexFrom(batches, offset);
    if (index === batches.length || batches[index].baseOffset > offset) return undefined;
    const batch = batches[index];
    if (batch !== this.#newest) {
      this.#unlink(batch);
      this.#link(batch);
    }
    return batch;
  }

  add(batch: OpenBatch): void {
    let batches = this.#partitions.get(batch.partition);
    if (batches === undefined) {
      batches = [];
      this.#partitions.set(batch.partition, batches);
    }
    const index = indexFrom(batches, batch.baseOffset);
    // Two that read at the same time: the first stays.
    if (index < batches.length && batches[index].baseOffset <= batch.lastOffset) return batch.end();
    if (index === batches.length) batches.push(batch);
    else batches.splice(index, 0, batch);
    this.#link(batch);
    this.recount(batch);
  }

  /** To be called when a batch may have grown, by having been opened. */
  recount(batch: OpenBatch): void {
    // Not in the cache (any more).
    if (batch !== this.#newest && batch.newer === undefined) return;
    const sizeBytes = batch.sizeBytes;
    this.#sizeBytes += sizeBytes - batch.countedBytes;
    batch.countedBytes = sizeBytes;
    while (this.#sizeBytes > this.#bytesMax && this.#oldest !== undefined) this.#remove(this.#oldest);
  }

  /** It was used up: nobody is expected to want it again. */
  drop(batch: OpenBatch): void {
    if (batch === this.#newest || batch.newer !== undefined) this.#remove(batch);
    else batch.end();
  }

  forget(partition: Partition): void {
    for (const batch of this.#partitions.get(partition)?.slice() ?? []) this.#remove(batch);
  }

  #remove(batch: OpenBatch): void {
    this.#unlink(batch);
    this.#sizeBytes -= batch.countedBytes;
    batch.countedBytes = 0;
    batch.end();
    const batches = this.#partitions.get(batch.partition);
    if (batches === undefined) return;
    const index = indexFrom(batches, batch.baseOffset);
    // The oldest is mostly the first, which goes without moving the others.
    if (index === 0 && batches[0] === batch) batches.shift();
    else if (batches[index] === batch) batches.splice(index, 1);
    if (batches.length === 0) this.#partitions.delete(batch.partition);
  }

  #link(batch: OpenBatch): void {
    batch.older = this.#newest;
    if (this.#newest === undefined) this.#oldest = batch;
    else this.#newest.newer = batch;
    this.#newest = batch;
  }

  #unlink(batch: OpenBatch): void {
    if (batch.older === undefined) this.#oldest = batch.newer;
    else batch.older.newer = batch.newer;
    if (batch.newer === undefined) this.#newest = batch.older;
    else batch.newer.older = batch.older;
    batch.older = undefined;
    batch.newer = undefined;
  }
}

/** Index of the first batch that ends at or above `offset`. */
function indexFrom(batches: readonly OpenBatch[], offset: number): number {
  let low = 0;
  let high = batches.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (batches[middle].lastOffset < offset) low = middle + 1;
    else high = middle;
  }
  return low;
}
