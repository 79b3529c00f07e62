/**
 * The records inside a batch: a cursor that walks them without allocating, and the size arithmetic of their varints.
 *
 *   record (magic 2)  length varint | attributes int8 | timestampDelta varlong | offsetDelta varint
 *                     | keySize varint | key | valueSize varint | value | headerCount varint | headers
 *   header            keySize varint | key | valueSize varint | value
 *
 * Varints are zigzag; a size of −1 is null (not allowed for header keys). Source: KIP-98, protocol guide "Record".
 */
import { MillraceError } from './errors.ts';

const TWO_28 = 2 ** 28;

/** Fields of one record at a time; positions are into `bytes`, and a size of −1 means null. */
export class RecordCursor {
  readonly bytes: Buffer;
  readonly #end: number;
  #at: number;
  #recordEnd = 0;
  timestampDelta = 0;
  offsetDelta = 0;
  keyStart = 0;
  keySize = -1;
  valueStart = 0;
  valueSize = -1;
  headerCount = 0;
  /** Where the first header starts. */
  headersStart = 0;

  constructor(bytes: Buffer, start: number, end: number) {
    this.bytes = bytes;
    this.#at = start;
    this.#end = end;
  }

  /** Where the next record starts. */
  get position(): number {
    return this.#at;
  }

  /** Moves to the next record and checks its structure; INVALID_RECORD if it does not fit where it stands. */
  next(): void {
    this.#recordEnd = this.#end;
    const size = this.#varint();
    const end = this.#at + size;
    if (size < 0 || end > this.#end) throw invalid(`record of ${size} bytes at byte ${this.#at}, end at ${this.#end}`);
    this.#recordEnd = end;
    this.#skip(1);
    this.timestampDelta = this.#varlong();
    this.offsetDelta = this.#varint();
    this.keySize = this.#varint();
    this.keyStart = this.#at;
    if (this.keySize > 0) this.#skip(this.keySize);
    this.valueSize = this.#varint();
    this.valueStart = this.#at;
    if (this.valueSize > 0) this.#skip(this.valueSize);
    const headers = this.#varint();
    this.headerCount = headers;
    this.headersStart = this.#at;
    if (headers !== 0) this.#skipHeaders(headers);
    if (this.#at !== end) throw invalid(`record at byte ${end - size} ends at ${this.#at}, its length says ${end}`);
  }

  /** Header `key` and `value` ranges of the current record, in order. Allocates: not for the check. */
  headers(): { key: string; value: Buffer | null }[] {
    const after = this.#at;
    const found: { key: string; value: Buffer | null }[] = [];
    this.#at = this.headersStart;
    for (let index = 0; index < this.headerCount; index++) {
      const keySize = this.#varint();
      const keyStart = this.#at;
      this.#at += keySize;
      const valueSize = this.#varint();
      const valueStart = this.#at;
      if (valueSize > 0) this.#at += valueSize;
      found.push({
        key: this.bytes.toString('utf8', keyStart, keyStart + keySize),
        value: valueSize < 0 ? null : this.bytes.subarray(valueStart, valueStart + valueSize),
      });
    }
    this.#at = after;
    return found;
  }

  #skipHeaders(count: number): void {
    if (count < 0) throw invalid(`${count} headers before byte ${this.#at}`);
    // Each header takes two bytes at least, so a count that lies ends at the record's end, not later.
    for (let index = 0; index < count; index++) {
      const keySize = this.#varint();
      if (keySize < 0) throw invalid(`header without a key before byte ${this.#at}`);
      this.#skip(keySize);
      const valueSize = this.#varint();
      if (valueSize > 0) this.#skip(valueSize);
    }
  }

  #skip(sizeBytes: number): void {
    const at = this.#at + sizeBytes;
    if (at > this.#recordEnd)
      throw invalid(`${sizeBytes} bytes at byte ${this.#at}, record ends at ${this.#recordEnd}`);
    this.#at = at;
  }

  #varint(): number {
    const bytes = this.bytes;
    const end = this.#recordEnd;
    let at = this.#at;
    let value = 0;
    for (let shift = 0; shift < 35; shift += 7) {
      if (at >= end) throw invalid(`varint at byte ${this.#at} runs past ${end}`);
      const byte = bytes[at++];
      if (shift === 28 && byte > 0x0f) break;
      value |= (byte & 0x7f) << shift;
      if (byte < 0x80) {
        this.#at = at;
        return (value >>> 1) ^ -(value & 1);
      }
    }
    throw invalid(`varint at byte ${this.#at} is longer than 32 bits`);
  }

  #varlong(): number {
    const bytes = this.bytes;
    const end = this.#recordEnd;
    let at = this.#at;
    let low = 0;
    let high = 0;
    for (let shift = 0; shift < 70; shift += 7) {
      if (at >= end) throw invalid(`varlong at byte ${this.#at} runs past ${end}`);
      const byte = bytes[at++];
      if (shift < 28) low |= (byte & 0x7f) << shift;
      else high += (byte & 0x7f) * 2 ** (shift - 28);
      if (byte < 0x80) {
        this.#at = at;
        if (shift < 28) return (low >>> 1) ^ -(low & 1);
        // raw = high * 2^28 + low; zigzag: even → raw / 2, odd → -(raw + 1) / 2.
        const half = high * (TWO_28 / 2) + (low >>> 1);
        const value = (low & 1) === 0 ? half : -half - 1;
        if (!Number.isSafeInteger(value)) throw invalid(`varlong before byte ${at} is beyond 2^53`);
        return value;
      }
    }
    throw invalid(`varlong at byte ${this.#at} is longer than 64 bits`);
  }
}

function invalid(message: string): MillraceError {
  return new MillraceError('INVALID_RECORD', message);
}

/** Bytes that the zigzag varint of an int32 takes. */
export function varintSizeBytes(value: number): number {
  const raw = (value << 1) ^ (value >> 31);
  return raw >>> 7 === 0 ? 1 : raw >>> 14 === 0 ? 2 : raw >>> 21 === 0 ? 3 : raw >>> 28 === 0 ? 4 : 5;
}

/** Bytes that the zigzag varlong of a safe integer takes. */
export function varlongSizeBytes(value: number): number {
  let rest = Math.floor((value >= 0 ? value : -value - 1) / 64);
  let size = 1;
  for (; rest > 0; rest = Math.floor(rest / 128)) size++;
  return size;
}

/** Writes the zigzag varint of an int32; answers the position after it. */
export function writeVarint(bytes: Buffer, position: number, value: number): number {
  let raw = ((value << 1) ^ (value >> 31)) >>> 0;
  let at = position;
  for (; raw >= 0x80; raw >>>= 7) bytes[at++] = (raw & 0x7f) | 0x80;
  bytes[at++] = raw;
  return at;
}

/** Writes the zigzag varlong of a safe integer; answers the position after it. */
export function writeVarlong(bytes: Buffer, position: number, value: number): number {
  const half = value >= 0 ? value : -value - 1;
  let at = position;
  let part = (half % 64) * 2 + (value >= 0 ? 0 : 1);
  let rest = Math.floor(half / 64);
  for (; rest > 0; rest = Math.floor(rest / 128)) {
    bytes[at++] = part | 0x80;
    part = rest % 128;
  }
  bytes[at++] = part;
  return at;
}
