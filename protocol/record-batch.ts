/**
 * Record batches, magic 2: the unit of storage, transfer and checksum. Source: KIP-98, protocol guide "Record Batch".
 *
 *    0 int64  base offset             43 int64 producer id (−1: none)
 *    8 int32  size of what follows    51 int16 producer epoch
 *   12 int32  leader epoch            53 int32 base sequence
 *   16 int8   magic, 2                57 int32 record count
 *   17 uint32 CRC32C of 21 … end      61 records (`record-walk.ts`), compressed as one piece if a codec is set
 *   21 int16  attributes: codec 0–2, timestamp type 3, transactional 4, control 5, delete horizon 6
 *   23 int32  last offset delta
 *   27 int64  base timestamp          With the delete horizon set this is the horizon, and deltas still count from it.
 *   35 int64  max timestamp
 *
 * Base offset, size and leader epoch are outside the CRC: the broker stamps them into batches it did not build. What
 * reads or checks a header does not allocate. A position is where a batch starts in `bytes`.
 */
import { readInt64, writeInt64 } from './bytes.ts';
import { type Codec, codecs, compress, decompress } from './compression.ts';
import { crc32c } from './crc32c.ts';
import { MillraceError } from './errors.ts';
import { RecordCursor, type RecordHeader, type TimestampSpan, walkRecords } from './record-walk.ts';
import { type RecordInit, recordBodyBytes, varintSizeBytes, writeRecordBody, writeVarint } from './record-writer.ts';

export type { RecordHeader, RecordInit };

/** Bytes of a batch before its first record. */
export const BATCH_OVERHEAD_BYTES = 61;
/** Bytes before and with the size field, which does not count them. */
export const LOG_OVERHEAD_BYTES = 12;

export const ATTRIBUTE_COMPRESSION = 0x07;
export const ATTRIBUTE_TIMESTAMP_TYPE = 0x08;
export const ATTRIBUTE_TRANSACTIONAL = 0x10;
export const ATTRIBUTE_CONTROL = 0x20;
export const ATTRIBUTE_DELETE_HORIZON = 0x40;

/** How far a compressed batch may grow when opened, unless the caller says otherwise: 128 MiB. */
export const DECOMPRESSED_BYTES_MAX = 128 * 1024 * 1024;

const MAGIC = 2;
const CRC_START = 21;
const NO_TIMESTAMP = -1;
const EMPTY = Buffer.alloc(0);

export function batchBaseOffset(bytes: Buffer, position: number): number {
  return readInt64(bytes, position);
}
/** Size of the whole batch, the 12 bytes before the counted ones included. */
export function batchSizeBytes(bytes: Buffer, position: number): number {
  return bytes.readInt32BE(position + 8) + LOG_OVERHEAD_BYTES;
}
export function batchLeaderEpoch(bytes: Buffer, position: number): number {
  return bytes.readInt32BE(position + 12);
}
export function batchMagic(bytes: Buffer, position: number): number {
  return bytes.readInt8(position + 16);
}
export function batchCrc(bytes: Buffer, position: number): number {
  return bytes.readUInt32BE(position + 17);
}
export function batchAttributes(bytes: Buffer, position: number): number {
  return bytes.readInt16BE(position + 21);
}
export function batchLastOffsetDelta(bytes: Buffer, position: number): number {
  return bytes.readInt32BE(position + 23);
}
export function batchLastOffset(bytes: Buffer, position: number): number {
  return readInt64(bytes, position) + bytes.readInt32BE(position + 23);
}
export function batchBaseTimestamp(bytes: Buffer, position: number): number {
  return readInt64(bytes, position + 27);
}
export function batchMaxTimestamp(bytes: Buffer, position: number): number {
  return readInt64(bytes, position + 35);
}
export function batchProducerId(bytes: Buffer, position: number): number {
  return readInt64(bytes, position + 43);
}
export function batchProducerEpoch(bytes: Buffer, position: number): number {
  return bytes.readInt16BE(position + 51);
}
export function batchBaseSequence(bytes: Buffer, position: number): number {
  return bytes.readInt32BE(position + 53);
}
export function batchRecordCount(bytes: Buffer, position: number): number {
  return bytes.readInt32BE(position + 57);
}

/** The codec of a batch; undefined for the three numbers that mean none. */
export function batchCodec(bytes: Buffer, position: number): Codec | undefined {
  return codecs[batchAttributes(bytes, position) & ATTRIBUTE_COMPRESSION];
}

export interface ProduceLimits {
  /** `max.message.bytes`: size of a batch as sent. */
  readonly maxBytes: number;
  /** Oldest and newest record timestamp in ms since 1970 (KIP-937); a record without one (−1) always passes. */
  readonly minTimestamp?: number;
  readonly maxTimestamp?: number;
}

/**
 * Checks what a producer sent: one batch, whole, alone in its `sizeBytes`, with records that can be stored as they are.
 * The base offset is the broker's to decide and not looked at. As in Apache Kafka, a wrong max timestamp and the mark of
 * append time are put right in place (with a new CRC); nothing else is changed. The records of compressed batches are
 * left to `checkCompressedRecords`.
 *
 * Errors: INVALID_RECORD, CORRUPT_MESSAGE, MESSAGE_TOO_LARGE, UNSUPPORTED_COMPRESSION_TYPE, INVALID_TIMESTAMP.
 */
export function checkProducedBatch(bytes: Buffer, position: number, sizeBytes: number, limits: ProduceLimits): void {
  if (sizeBytes < BATCH_OVERHEAD_BYTES) refuse('INVALID_RECORD', `${sizeBytes} bytes are less than a batch`);
  const magic = batchMagic(bytes, position);
  if (magic !== MAGIC) {
    // Apache Kafka tells the formats it once had from those that never were.
    refuse(magic === 0 || magic === 1 ? 'INVALID_RECORD' : 'CORRUPT_MESSAGE', `batch of magic ${magic}, expected 2`);
  }
  const declaredBytes = batchSizeBytes(bytes, position);
  if (declaredBytes < BATCH_OVERHEAD_BYTES) refuse('CORRUPT_MESSAGE', `batch says it has ${declaredBytes} bytes`);
  if (declaredBytes !== sizeBytes) {
    refuse('INVALID_RECORD', `${sizeBytes} bytes are not exactly one batch, the first says it has ${declaredBytes}`);
  }
  if (sizeBytes > limits.maxBytes) {
    refuse('MESSAGE_TOO_LARGE', `batch of ${sizeBytes} bytes, at most ${limits.maxBytes} are allowed`);
  }
  const crc = crc32c(bytes, position + CRC_START, sizeBytes - CRC_START);
  if (crc !== batchCrc(bytes, position)) {
    refuse('CORRUPT_MESSAGE', `batch of ${sizeBytes} bytes has CRC ${crc}, says ${batchCrc(bytes, position)}`);
  }
  checkProducedHeader(bytes, position, sizeBytes);
  if ((batchAttributes(bytes, position) & ATTRIBUTE_TIMESTAMP_TYPE) !== 0) {
    bytes.writeInt16BE(batchAttributes(bytes, position) & ~ATTRIBUTE_TIMESTAMP_TYPE, position + 21);
    sealCrc(bytes, position);
  }
  if ((batchAttributes(bytes, position) & ATTRIBUTE_COMPRESSION) === 0) {
    checkRecords(bytes, position, bytes, position + BATCH_OVERHEAD_BYTES, position + sizeBytes, limits);
  }
}

/** Fields of the header that must fit each other. */
function checkProducedHeader(bytes: Buffer, position: number, sizeBytes: number): void {
  const attributes = batchAttributes(bytes, position);
  if (batchCodec(bytes, position) === undefined) {
    refuse('UNSUPPORTED_COMPRESSION_TYPE', `codec ${attributes & ATTRIBUTE_COMPRESSION} is not known`);
  }
  if ((attributes & ATTRIBUTE_CONTROL) !== 0) refuse('INVALID_RECORD', 'clients may not write control batches');
  if ((attributes & ATTRIBUTE_DELETE_HORIZON) !== 0) {
    refuse('INVALID_RECORD', 'only the broker may write batches with a delete horizon');
  }
  const count = batchRecordCount(bytes, position);
  if (count < 1) refuse('INVALID_RECORD', `batch of ${count} records`);
  if (count !== batchLastOffsetDelta(bytes, position) + 1) {
    refuse('INVALID_RECORD', `${count} records, last offset delta ${batchLastOffsetDelta(bytes, position)}`);
  }
  if (!hasSafeInt64(bytes, position + 27) || !hasSafeInt64(bytes, position + 35)) {
    refuse('INVALID_TIMESTAMP', 'timestamps of the batch are beyond 2^53');
  }
  if (!hasSafeInt64(bytes, position + 43)) refuse('INVALID_RECORD', 'producer id of the batch is beyond 2^53');
  if (batchProducerId(bytes, position) >= 0 && batchBaseSequence(bytes, position) < 0) {
    refuse('INVALID_RECORD', `producer id ${batchProducerId(bytes, position)} without a sequence number`);
  }
  if ((attributes & ATTRIBUTE_TRANSACTIONAL) !== 0 && batchProducerId(bytes, position) < 0) {
    refuse('INVALID_RECORD', 'transactional batch without a producer id');
  }
  if (sizeBytes === BATCH_OVERHEAD_BYTES) refuse('INVALID_RECORD', `batch of ${count} records has no bytes of records`);
}

/** Filled anew by each check. */
const span: TimestampSpan = { minDelta: 0, maxDelta: 0 };

/** Walks the records, which lie in `records` from `start` to `end`. Puts a wrong max timestamp of the batch right. */
function checkRecords(
  bytes: Buffer,
  position: number,
  records: Buffer,
  start: number,
  end: number,
  limits: ProduceLimits | undefined,
): void {
  walkRecords(records, start, end, batchRecordCount(bytes, position), span);
  const minTimestamp = batchBaseTimestamp(bytes, position) + span.minDelta;
  const maxTimestamp = batchBaseTimestamp(bytes, position) + span.maxDelta;
  if (!Number.isSafeInteger(minTimestamp) || !Number.isSafeInteger(maxTimestamp)) {
    refuse('INVALID_TIMESTAMP', 'timestamps of the batch are beyond 2^53');
  }
  if (limits?.maxTimestamp !== undefined && maxTimestamp > limits.maxTimestamp) {
    refuse('INVALID_TIMESTAMP', `timestamp ${maxTimestamp}, the newest allowed is ${limits.maxTimestamp}`);
  }
  if (limits?.minTimestamp !== undefined && minTimestamp < limits.minTimestamp) {
    checkOldest(bytes, position, new RecordCursor(records, start, end), limits.minTimestamp);
  }
  if (maxTimestamp !== batchMaxTimestamp(bytes, position)) {
    writeInt64(bytes, position + 35, maxTimestamp);
    sealCrc(bytes, position);
  }
}

/** A second look at a batch with an old timestamp: those without one do not count. */
function checkOldest(bytes: Buffer, position: number, cursor: RecordCursor, minTimestamp: number): void {
  for (let left = batchRecordCount(bytes, position); left > 0; left--) {
    cursor.next();
    const timestamp = batchBaseTimestamp(bytes, position) + cursor.timestampDelta;
    if (timestamp < minTimestamp && timestamp !== NO_TIMESTAMP) {
      refuse('INVALID_TIMESTAMP', `timestamp ${timestamp}, the oldest allowed is ${minTimestamp}`);
    }
  }
}

/**
 * The part of the check that `checkProducedBatch` leaves out: opens a compressed batch that has passed it, and walks its
 * records. Nothing to do for an uncompressed one.
 *
 * Errors: INVALID_RECORD for garbage, MESSAGE_TOO_LARGE beyond `maxDecompressedBytes`, INVALID_TIMESTAMP.
 */
export function checkCompressedRecords(
  bytes: Buffer,
  position: number,
  maxDecompressedBytes: number,
  limits?: ProduceLimits,
): void {
  if ((batchAttributes(bytes, position) & ATTRIBUTE_COMPRESSION) === 0) return;
  const cursor = openRecords(bytes, position, maxDecompressedBytes);
  checkRecords(bytes, position, cursor.bytes, cursor.position, cursor.end, limits);
}

/**
 * For recovery: the size of the batch at `position` if it lies whole within `availableBytes`, with the right magic, a
 * sane size, offsets and count, and the right CRC; else −1. Never throws, whatever the bytes.
 */
export function checkStoredBatch(bytes: Buffer, position: number, availableBytes: number): number {
  const leftBytes = Math.min(availableBytes, bytes.length - position);
  if (leftBytes < BATCH_OVERHEAD_BYTES) return -1;
  const sizeBytes = batchSizeBytes(bytes, position);
  if (sizeBytes < BATCH_OVERHEAD_BYTES || sizeBytes > leftBytes) return -1;
  if (batchMagic(bytes, position) !== MAGIC) return -1;
  if (!hasSafeInt64(bytes, position) || batchBaseOffset(bytes, position) < 0) return -1;
  if (batchLastOffsetDelta(bytes, position) < 0 || batchRecordCount(bytes, position) < 0) return -1;
  if (!Number.isSafeInteger(batchLastOffset(bytes, position))) return -1;
  for (const field of [27, 35, 43]) if (!hasSafeInt64(bytes, position + field)) return -1;
  const crc = crc32c(bytes, position + CRC_START, sizeBytes - CRC_START);
  return crc === batchCrc(bytes, position) ? sizeBytes : -1;
}

/** Writes what the broker decides and the CRC does not cover. */
export function stampBatch(bytes: Buffer, position: number, baseOffset: number, leaderEpoch: number): void {
  writeInt64(bytes, position, baseOffset);
  bytes.writeInt32BE(leaderEpoch, position + 12);
}

/** Makes it a batch with append time: every record in it now has `timestamp` (ms since 1970). Writes a new CRC. */
export function stampAppendTime(bytes: Buffer, position: number, timestamp: number): void {
  bytes.writeInt16BE(batchAttributes(bytes, position) | ATTRIBUTE_TIMESTAMP_TYPE, position + 21);
  writeInt64(bytes, position + 35, timestamp);
  sealCrc(bytes, position);
}

/** Writes the CRC of a batch whose other fields are as they shall be. */
export function sealCrc(bytes: Buffer, position: number): void {
  const sizeBytes = batchSizeBytes(bytes, position);
  bytes.writeUInt32BE(crc32c(bytes, position + CRC_START, sizeBytes - CRC_START), position + 17);
}

export interface RecordPlace {
  offset: number;
  /** In ms since 1970. */
  timestamp: number;
}

/**
 * The first record of the batch whose timestamp is `targetTimestamp` or later and whose offset is `minOffset` or later.
 * Opens compressed batches.
 */
export function findTimestamp(
  bytes: Buffer,
  position: number,
  targetTimestamp: number,
  minOffset = 0,
  maxDecompressedBytes = DECOMPRESSED_BYTES_MAX,
): RecordPlace | undefined {
  if (batchMaxTimestamp(bytes, position) < targetTimestamp) return undefined;
  const walk = new BatchWalk(bytes, position, maxDecompressedBytes);
  while (walk.next()) {
    if (walk.timestamp >= targetTimestamp && walk.offset >= minOffset) {
      return { offset: walk.offset, timestamp: walk.timestamp };
    }
  }
  return undefined;
}

/** The first record with the largest timestamp of those at `minOffset` or later; undefined if there is none. */
export function maxTimestampRecord(
  bytes: Buffer,
  position: number,
  minOffset = 0,
  maxDecompressedBytes = DECOMPRESSED_BYTES_MAX,
): RecordPlace | undefined {
  const walk = new BatchWalk(bytes, position, maxDecompressedBytes);
  let found: RecordPlace | undefined;
  while (walk.next()) {
    if (walk.offset >= minOffset && (found === undefined || walk.timestamp > found.timestamp)) {
      found = { offset: walk.offset, timestamp: walk.timestamp };
    }
  }
  return found;
}

export interface DecodedRecord {
  offset: number;
  /** In ms since 1970; −1 if the producer gave none. */
  timestamp: number;
  key: Buffer | null;
  value: Buffer | null;
  headers: RecordHeader[];
}

/**
 * All records of the batch at `position`. Keys and values are views: of `bytes`, or of what was decompressed. The CRC is
 * not checked here (`checkStoredBatch` does). Errors as in `checkCompressedRecords`.
 */
export function readRecords(
  bytes: Buffer,
  position: number,
  maxDecompressedBytes = DECOMPRESSED_BYTES_MAX,
): DecodedRecord[] {
  const walk = new BatchWalk(bytes, position, maxDecompressedBytes);
  const records: DecodedRecord[] = [];
  while (walk.next()) {
    const { bytes: source, keyStart, keySize, valueStart, valueSize, headerCount } = walk.cursor;
    records.push({
      offset: walk.offset,
      timestamp: walk.timestamp,
      key: keySize < 0 ? null : source.subarray(keyStart, keyStart + keySize),
      value: valueSize < 0 ? null : source.subarray(valueStart, valueStart + valueSize),
      headers: headerCount === 0 ? [] : walk.cursor.headers(),
    });
  }
  return records;
}

/** Walks the records of a stored batch with absolute offsets and timestamps. */
class BatchWalk {
  readonly cursor: RecordCursor;
  readonly #count: number;
  readonly #baseOffset: number;
  readonly #baseTimestamp: number;
  /** The timestamp of every record, where the broker's append time counts. */
  readonly #appendTime: number | undefined;
  #index = 0;

  constructor(bytes: Buffer, position: number, maxDecompressedBytes: number) {
    this.cursor = openRecords(bytes, position, maxDecompressedBytes);
    this.#count = batchRecordCount(bytes, position);
    this.#baseOffset = batchBaseOffset(bytes, position);
    this.#baseTimestamp = batchBaseTimestamp(bytes, position);
    const hasAppendTime = (batchAttributes(bytes, position) & ATTRIBUTE_TIMESTAMP_TYPE) !== 0;
    this.#appendTime = hasAppendTime ? batchMaxTimestamp(bytes, position) : undefined;
  }

  get offset(): number {
    return this.#baseOffset + this.cursor.offsetDelta;
  }
  get timestamp(): number {
    return this.#appendTime ?? this.#baseTimestamp + this.cursor.timestampDelta;
  }

  next(): boolean {
    if (this.#index >= this.#count) return false;
    this.#index++;
    this.cursor.next();
    return true;
  }
}

/** What the timestamps of a batch's records are made of. */
export interface RecordTimes {
  readonly recordCount: number;
  readonly baseTimestamp: number;
  /** The timestamp of every record, where the broker's append time counts. */
  readonly appendTime: number | undefined;
}

export function recordTimes(bytes: Buffer, position: number): RecordTimes {
  const hasAppendTime = (batchAttributes(bytes, position) & ATTRIBUTE_TIMESTAMP_TYPE) !== 0;
  return {
    recordCount: batchRecordCount(bytes, position),
    baseTimestamp: batchBaseTimestamp(bytes, position),
    appendTime: hasAppendTime ? batchMaxTimestamp(bytes, position) : undefined,
  };
}

/** A cursor before the first record of the batch; decompresses if need be. Errors as in `checkCompressedRecords`. */
export function openRecords(bytes: Buffer, position: number, maxDecompressedBytes: number): RecordCursor {
  const codec = batchCodec(bytes, position);
  if (codec === undefined) {
    throw new MillraceError('UNSUPPORTED_COMPRESSION_TYPE', `batch at byte ${position} has a codec that is not known`);
  }
  const start = position + BATCH_OVERHEAD_BYTES;
  const end = position + batchSizeBytes(bytes, position);
  if (end > bytes.length || end < start) {
    throw new MillraceError('INVALID_RECORD', `batch at byte ${position} ends at ${end} of ${bytes.length}`);
  }
  if (codec === 'none') return new RecordCursor(bytes, start, end);
  const records = decompress(codec, bytes.subarray(start, end), maxDecompressedBytes);
  return new RecordCursor(records, 0, records.length);
}

/**
 * Calls `visit` for every whole batch from `start`, until it answers false; a partial batch at the end is left out, as
 * fetch responses may have one. Answers where the last visited batch ends. CORRUPT_MESSAGE if a size cannot be true.
 */
export function eachBatch(
  bytes: Buffer,
  visit: (position: number, sizeBytes: number) => boolean | void,
  start = 0,
  end = bytes.length,
): number {
  let position = start;
  while (end - position >= BATCH_OVERHEAD_BYTES) {
    const sizeBytes = batchSizeBytes(bytes, position);
    if (sizeBytes < BATCH_OVERHEAD_BYTES) refuse('CORRUPT_MESSAGE', `batch at byte ${position} has ${sizeBytes} bytes`);
    if (sizeBytes > end - position) break;
    const isStopped = visit(position, sizeBytes) === false;
    position += sizeBytes;
    if (isStopped) break;
  }
  return position;
}

export interface BatchOptions {
  /** Default 0. */
  readonly baseOffset?: number;
  /** Default 'none'. */
  readonly compression?: Codec;
  /** Default 'CreateTime'. With 'LogAppendTime' every record reads with the largest timestamp given. */
  readonly timestampType?: 'CreateTime' | 'LogAppendTime';
  /** Default −1, as those of epoch and sequence: not idempotent. */
  readonly producerId?: number;
  readonly producerEpoch?: number;
  readonly baseSequence?: number;
  readonly isTransactional?: boolean;
  readonly isControl?: boolean;
  /** Default −1: not known. */
  readonly leaderEpoch?: number;
}

/** One batch of all `records`, at least one. */
export function buildBatch(records: readonly RecordInit[], options: BatchOptions = {}): Buffer {
  const first = records[0];
  if (first === undefined) throw new RangeError('a batch has at least one record');
  let sizeBytes = BATCH_OVERHEAD_BYTES;
  for (let index = 0; index < records.length; index++) {
    const bodyBytes = recordBodyBytes(records[index], index, first.timestamp);
    sizeBytes += varintSizeBytes(bodyBytes) + bodyBytes;
  }
  const builder = new BatchBuilder(sizeBytes, sizeBytes);
  for (const record of records) builder.add(record);
  return builder.build(options);
}

/** Collects records into one batch until it is full. */
export class BatchBuilder {
  readonly #maxBytes: number;
  #bytes: Buffer;
  #sizeBytes = BATCH_OVERHEAD_BYTES;
  #recordCount = 0;
  #baseTimestamp = 0;
  #maxTimestamp = NO_TIMESTAMP;

  /** The batch is full at `maxBytes` before compression; `initialBytes` (default 1 KiB) are allocated at once. */
  constructor(maxBytes: number, initialBytes = 1024) {
    this.#maxBytes = maxBytes;
    this.#bytes = Buffer.allocUnsafe(initialBytes);
  }

  /** Size so far, before compression. */
  get sizeBytes(): number {
    return this.#sizeBytes;
  }
  get recordCount(): number {
    return this.#recordCount;
  }

  /** Copies the record in; false, and nothing done, if it does not fit any more. The first one always does. */
  add(record: RecordInit): boolean {
    if (this.#recordCount === 0) this.#baseTimestamp = record.timestamp;
    const bodyBytes = recordBodyBytes(record, this.#recordCount, this.#baseTimestamp);
    const end = this.#sizeBytes + varintSizeBytes(bodyBytes) + bodyBytes;
    if (end > this.#maxBytes && this.#recordCount > 0) return false;
    if (end > this.#bytes.length) {
      const grown = Buffer.allocUnsafe(Math.max(end, this.#bytes.length * 2));
      this.#bytes.copy(grown, 0, 0, this.#sizeBytes);
      this.#bytes = grown;
    }
    const start = writeVarint(this.#bytes, this.#sizeBytes, bodyBytes);
    writeRecordBody(this.#bytes, start, record, this.#recordCount, record.timestamp - this.#baseTimestamp);
    if (this.#recordCount === 0 || record.timestamp > this.#maxTimestamp) this.#maxTimestamp = record.timestamp;
    this.#sizeBytes = end;
    this.#recordCount++;
    return true;
  }

  /** Memory that it holds. */
  get heldBytes(): number {
    return this.#bytes.length;
  }

  /** The batch. The builder is empty afterwards and may be filled again. */
  build(options: BatchOptions = {}): Buffer {
    const batch = this.#finish(options);
    this.#bytes = EMPTY;
    return batch;
  }

  /** As `build`, but the batch lies in the builder's memory: it is valid until the next `add`. */
  buildInPlace(options: BatchOptions = {}): Buffer {
    return this.#finish(options);
  }

  #finish(options: BatchOptions): Buffer {
    if (this.#recordCount === 0) throw new RangeError('a batch has at least one record');
    const codec = options.compression ?? 'none';
    let batch = this.#bytes;
    if (batch.length > this.#sizeBytes) batch = batch.subarray(0, this.#sizeBytes);
    if (codec !== 'none') {
      const records = compress(codec, batch.subarray(BATCH_OVERHEAD_BYTES));
      batch = Buffer.allocUnsafe(BATCH_OVERHEAD_BYTES + records.length);
      records.copy(batch, BATCH_OVERHEAD_BYTES);
    }
    this.#writeHeader(batch, codecs.indexOf(codec), options);
    this.#sizeBytes = BATCH_OVERHEAD_BYTES;
    this.#recordCount = 0;
    return batch;
  }

  #writeHeader(batch: Buffer, codecNumber: number, options: BatchOptions): void {
    let attributes = codecNumber;
    if (options.timestampType === 'LogAppendTime') attributes |= ATTRIBUTE_TIMESTAMP_TYPE;
    if (options.isTransactional === true) attributes |= ATTRIBUTE_TRANSACTIONAL;
    if (options.isControl === true) attributes |= ATTRIBUTE_CONTROL;
    writeInt64(batch, 0, options.baseOffset ?? 0);
    batch.writeInt32BE(batch.length - LOG_OVERHEAD_BYTES, 8);
    batch.writeInt32BE(options.leaderEpoch ?? -1, 12);
    batch.writeInt8(MAGIC, 16);
    batch.writeInt16BE(attributes, 21);
    batch.writeInt32BE(this.#recordCount - 1, 23);
    writeInt64(batch, 27, this.#baseTimestamp);
    writeInt64(batch, 35, this.#maxTimestamp);
    writeInt64(batch, 43, options.producerId ?? -1);
    batch.writeInt16BE(options.producerEpoch ?? -1, 51);
    batch.writeInt32BE(options.baseSequence ?? -1, 53);
    batch.writeInt32BE(this.#recordCount, 57);
    sealCrc(batch, 0);
  }
}

/** Neighbouring records of a batch: where they lie among its (decompressed) records, and the last one's offset delta. */
export interface BatchPiece {
  readonly start: number;
  readonly end: number;
  readonly lastOffsetDelta: number;
}

/**
 * A batch with some of the records of `stored`, which lie in `pieces` of `records`: uncompressed, of no producer, in no
 * transaction. Base offset, base timestamp and max timestamp (an upper bound) stay, so records are copied as they are.
 */
export function subsetBatch(
  stored: Buffer,
  records: Buffer,
  pieces: readonly BatchPiece[],
  recordCount: number,
): Buffer {
  let sizeBytes = BATCH_OVERHEAD_BYTES;
  for (const { start, end } of pieces) sizeBytes += end - start;
  const batch = Buffer.allocUnsafe(sizeBytes);
  stored.copy(batch, 0, 0, BATCH_OVERHEAD_BYTES);
  let at = BATCH_OVERHEAD_BYTES;
  for (const { start, end } of pieces) at += records.copy(batch, at, start, end);
  batch.writeInt32BE(sizeBytes - LOG_OVERHEAD_BYTES, 8);
  batch.writeInt16BE(batchAttributes(stored, 0) & ATTRIBUTE_TIMESTAMP_TYPE, 21);
  batch.writeInt32BE(pieces[pieces.length - 1].lastOffsetDelta, 23);
  writeInt64(batch, 43, -1);
  batch.writeInt16BE(-1, 51);
  batch.writeInt32BE(-1, 53);
  batch.writeInt32BE(recordCount, 57);
  sealCrc(batch, 0);
  return batch;
}

/** Whether the int64 at `at` is a safe integer: its high half is within 21 bits of sign. */
function hasSafeInt64(bytes: Buffer, at: number): boolean {
  const high = bytes.readInt32BE(at);
  return high >= -0x20_0000 && high < 0x20_0000 && !(high === -0x20_0000 && bytes.readUInt32BE(at + 4) === 0);
}

function refuse(code: MillraceError['code'], message: string): never {
  throw new MillraceError(code, message);
}
