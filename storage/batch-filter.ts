/**
 * Takes records out of a stored batch, as Apache Kafka's log cleaner does. What stays keeps its offset: base offset and
 * last offset of the batch stay as they were, there are only fewer records between them. A batch without records goes,
 * or stays as a header alone where a producer's newest sequence is known by it. Control batches stay as they are.
 *
 * Tombstones (KIP-534): the first time that a batch is seen to hold some, it gets a delete horizon, in the place of its
 * base timestamp; once that has passed they go.
 *
 * Always true: the result, if it is not the batch itself, is a whole batch with a right CRC in the codec of the original.
 */
import { writeInt64 } from '../protocol/bytes.ts';
import { codecs, compress } from '../protocol/compression.ts';
import {
  ATTRIBUTE_COMPRESSION,
  ATTRIBUTE_CONTROL,
  ATTRIBUTE_DELETE_HORIZON,
  ATTRIBUTE_TIMESTAMP_TYPE,
  BATCH_OVERHEAD_BYTES,
  batchAttributes,
  batchBaseOffset,
  batchBaseTimestamp,
  batchLastOffset,
  batchMaxTimestamp,
  batchRecordCount,
  LOG_OVERHEAD_BYTES,
  openRecords,
  sealCrc,
} from '../protocol/record-batch.ts';
import type { RecordCursor } from '../protocol/record-walk.ts';
import { varlongSizeBytes, writeVarint, writeVarlong } from '../protocol/record-writer.ts';
import type { KeyMap } from './key-map.ts';

/** Decides on one record after the other; they are asked in the order of the log. */
export interface RecordFilter {
  /** Before the records of a batch that has some. */
  begin(bytes: Buffer, position: number): void;
  keeps(offset: number, record: RecordCursor): boolean;
}

export interface BatchRules {
  filter: RecordFilter;
  /** What batches with tombstones get that have no horizon yet; −1: they get none. */
  deleteHorizonMs: number;
  /** Whether the batch that ends at `lastOffset` is the newest of a producer. */
  isProducersLast(lastOffset: number): boolean;
}

export interface FilteredBatch {
  /** Undefined: it goes. The batch itself, as a view, if nothing has changed. */
  bytes: Buffer | undefined;
  isChanged: boolean;
  keptCount: number;
  droppedCount: number;
}

/** What a batch that was stored may open to: more than any option allows it to have been. */
export const OPENED_BYTES_MAX = 2 ** 30;

/** Of the records of the last batch. */
interface Kept {
  /** Where the kept records are, neighbours as one: start, end, start, end … */
  ranges: number[];
  count: number;
  maxTimestamp: number;
  hasTombstones: boolean;
}

/** The batch at `position`, `sizeBytes` long and checked, without what the rules do not keep. */
export function filterBatch(bytes: Buffer, position: number, sizeBytes: number, rules: BatchRules): FilteredBatch {
  const batch = bytes.subarray(position, position + sizeBytes);
  const attributes = batchAttributes(batch, 0);
  const count = batchRecordCount(batch, 0);
  if ((attributes & ATTRIBUTE_CONTROL) !== 0) return asItIs(batch, count);
  if (count === 0) {
    if (rules.isProducersLast(batchLastOffset(batch, 0))) return asItIs(batch, 0);
    return { bytes: undefined, isChanged: true, keptCount: 0, droppedCount: 0 };
  }
  const records = openRecords(batch, 0, OPENED_BYTES_MAX);
  const kept = keptRecords(batch, records, count, rules.filter);
  const droppedCount = count - kept.count;
  if (kept.count === 0) {
    const isKept = rules.isProducersLast(batchLastOffset(batch, 0));
    return { bytes: isKept ? emptied(batch) : undefined, isChanged: true, keptCount: 0, droppedCount };
  }
  const getsHorizon = kept.hasTombstones && rules.deleteHorizonMs >= 0 && (attributes & ATTRIBUTE_DELETE_HORIZON) === 0;
  if (droppedCount === 0 && !getsHorizon) return asItIs(batch, count);
  const rebuilt = rebuild(batch, records.bytes, kept, getsHorizon ? rules.deleteHorizonMs : -1);
  return { bytes: rebuilt, isChanged: true, keptCount: kept.count, droppedCount };
}

function asItIs(batch: Buffer, keptCount: number): FilteredBatch {
  return { bytes: batch, isChanged: false, keptCount, droppedCount: 0 };
}

function keptRecords(batch: Buffer, cursor: RecordCursor, count: number, filter: RecordFilter): Kept {
  const kept: Kept = { ranges: [], count: 0, maxTimestamp: -1, hasTombstones: false };
  const { ranges } = kept;
  const baseOffset = batchBaseOffset(batch, 0);
  const baseTimestamp = batchBaseTimestamp(batch, 0);
  filter.begin(batch, 0);
  for (let index = 0; index < count; index++) {
    const start = cursor.position;
    cursor.next();
    if (!filter.keeps(baseOffset + cursor.offsetDelta, cursor)) continue;
    if (ranges.length > 0 && ranges[ranges.length - 1] === start) ranges[ranges.length - 1] = cursor.position;
    else ranges.push(start, cursor.position);
    kept.count++;
    if (cursor.valueSize < 0) kept.hasTombstones = true;
    const timestamp = baseTimestamp + cursor.timestampDelta;
    if (timestamp > kept.maxTimestamp) kept.maxTimestamp = timestamp;
  }
  return kept;
}

/** The header alone. Its largest timestamp stays, as in Apache Kafka. */
function emptied(batch: Buffer): Buffer {
  // Copy: of the header.
  const header = Buffer.from(batch.subarray(0, BATCH_OVERHEAD_BYTES));
  const attributes = batchAttributes(batch, 0) & ~(ATTRIBUTE_COMPRESSION | ATTRIBUTE_DELETE_HORIZON);
  header.writeInt32BE(BATCH_OVERHEAD_BYTES - LOG_OVERHEAD_BYTES, 8);
  header.writeInt16BE(attributes, 21);
  writeInt64(header, 27, -1);
  header.writeInt32BE(0, 57);
  sealCrc(header, 0);
  return header;
}

/** `horizonMs` −1: base timestamp and horizon stay, and with them every byte of a record. */
function rebuild(batch: Buffer, source: Buffer, kept: Kept, horizonMs: number): Buffer {
  const attributes = batchAttributes(batch, 0);
  const codec = codecs[attributes & ATTRIBUTE_COMPRESSION];
  let pieces: Buffer[] = [];
  for (let at = 0; at < kept.ranges.length; at += 2) pieces.push(source.subarray(kept.ranges[at], kept.ranges[at + 1]));
  if (horizonMs >= 0) pieces = [rebased(pieces, batchBaseTimestamp(batch, 0) - horizonMs)];
  // Copy: records move together.
  if (codec !== 'none') pieces = [compress(codec, pieces.length === 1 ? pieces[0] : Buffer.concat(pieces))];
  const rebuilt = Buffer.concat([batch.subarray(0, BATCH_OVERHEAD_BYTES), ...pieces]);
  rebuilt.writeInt32BE(rebuilt.length - LOG_OVERHEAD_BYTES, 8);
  if (horizonMs >= 0) {
    rebuilt.writeInt16BE(attributes | ATTRIBUTE_DELETE_HORIZON, 21);
    writeInt64(rebuilt, 27, horizonMs);
  }
  const hasAppendTime = (attributes & ATTRIBUTE_TIMESTAMP_TYPE) !== 0;
  writeInt64(rebuilt, 35, hasAppendTime ? batchMaxTimestamp(batch, 0) : kept.maxTimestamp);
  rebuilt.writeInt32BE(kept.count, 57);
  sealCrc(rebuilt, 0);
  return rebuilt;
}

/** The same records for a base timestamp that is `shiftMs` earlier. */
function rebased(pieces: readonly Buffer[], shiftMs: number): Buffer {
  let size = 0;
  for (const piece of pieces) size += piece.length;
  // A delta takes at most ten bytes, the size before it up to two more than it did.
  const deltas: { start: number; end: number; delta: number; piece: Buffer }[] = [];
  let extra = 0;
  for (const piece of pieces) {
    for (let at = 0; at < piece.length; ) {
      const body = readVarint(piece, at);
      const start = body.end;
      const delta = readVarint(piece, start + 1);
      const end = start + body.value;
      deltas.push({ start: delta.end, end, delta: delta.value + shiftMs, piece });
      extra += 12;
      at = end;
    }
  }
  const target = Buffer.allocUnsafe(size + extra);
  let at = 0;
  for (const { start, end, delta, piece } of deltas) {
    at = writeVarint(target, at, 1 + varlongSizeBytes(delta) + end - start);
    target[at++] = 0;
    at = writeVarlong(target, at, delta);
    at += piece.copy(target, at, start, end);
  }
  return target.subarray(0, at);
}

/** A zigzag varint or varlong of a record that was walked: it is known to be sound. */
function readVarint(bytes: Buffer, position: number): { value: number; end: number } {
  let at = position;
  let byte = bytes[at++];
  const isNegative = (byte & 1) !== 0;
  // Without its lowest bit, which is the sign, it stays below 2^53.
  let half = (byte & 0x7f) >>> 1;
  for (let scale = 64; byte >= 0x80; scale *= 128) {
    byte = bytes[at++];
    half += (byte & 0x7f) * scale;
  }
  return { value: isNegative ? -half - 1 : half, end: at };
}

/** Keeps the newest record of each key: of all that the map has seen, up to `mappedTo`; what comes later stays. */
export class KeyFilter implements RecordFilter {
  readonly #map: KeyMap;
  readonly #mappedTo: number;
  readonly #nowMs: number;
  #dropsTombstones = false;

  constructor(map: KeyMap, mappedTo: number, nowMs: number) {
    this.#map = map;
    this.#mappedTo = mappedTo;
    this.#nowMs = nowMs;
  }

  begin(bytes: Buffer, position: number): void {
    const hasHorizon = (batchAttributes(bytes, position) & ATTRIBUTE_DELETE_HORIZON) !== 0;
    this.#dropsTombstones = hasHorizon && this.#nowMs >= batchBaseTimestamp(bytes, position);
  }

  keeps(offset: number, record: RecordCursor): boolean {
    if (offset >= this.#mappedTo) return true;
    // Without a key nothing says what it replaces; it was there before the topic was compacted.
    if (record.keySize < 0) return false;
    if (record.valueSize < 0 && this.#dropsTombstones) return false;
    return offset >= this.#map.get(record.bytes.subarray(record.keyStart, record.keyStart + record.keySize));
  }
}

/** Keeps the records with the offsets given, which rise; everything else between `from` and `to` goes. */
export class OffsetFilter implements RecordFilter {
  readonly #from: number;
  readonly #to: number;
  readonly #keep: Float64Array;
  #next = 0;

  constructor(from: number, to: number, keep: Float64Array) {
    this.#from = from;
    this.#to = to;
    this.#keep = keep;
  }

  begin(bytes: Buffer, position: number): void {
    this.#next = indexOf(this.#keep, batchBaseOffset(bytes, position));
  }

  keeps(offset: number): boolean {
    if (offset < this.#from || offset >= this.#to) return true;
    while (this.#next < this.#keep.length && this.#keep[this.#next] < offset) this.#next++;
    return this.#next < this.#keep.length && this.#keep[this.#next] === offset;
  }
}

/** Index of the first number that is not below `wanted`. */
export function indexOf(sorted: Float64Array, wanted: number): number {
  let low = 0;
  let high = sorted.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (sorted[middle] < wanted) low = middle + 1;
    else high = middle;
  }
  return low;
}
