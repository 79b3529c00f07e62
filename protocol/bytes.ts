/**
 * Reader and writer over bytes: Kafka's primitive types (protocol guide, "Protocol Primitive Types"), big-endian.
 *
 * A reader never looks past its end and never allocates by a length that the input claims but does not hold; what does
 * not fit is a `ProtocolError`. A writer collects small values in one growing buffer and takes large byte arrays by
 * reference, so that a response with megabytes of records is never copied together.
 */
import { ProtocolError } from './errors.ts';

const TWO_32 = 4_294_967_296;
/** Kafka allows no longer string, also where the length prefix could say so. */
const STRING_BYTES_MAX = 0x7fff;
/** Default of `Reader.elementsLeft`: no request needs as many, and a million small objects are 100 MB. */
const ELEMENTS_MAX = 250_000;

/** int64 at `offset` as a number; outside ±(2⁵³−1) is a `ProtocolError`. */
export function readInt64(bytes: Buffer, offset: number): number {
  const value = bytes.readInt32BE(offset) * TWO_32 + bytes.readUInt32BE(offset + 4);
  if (!Number.isSafeInteger(value)) throw new ProtocolError(`int64 at byte ${offset} is beyond 2^53`);
  return value;
}

/** Writes a safe integer as int64. */
export function writeInt64(bytes: Buffer, offset: number, value: number): void {
  const high = Math.floor(value / TWO_32);
  bytes.writeInt32BE(high, offset);
  bytes.writeUInt32BE(value - high * TWO_32, offset + 4);
}

/** A view of the same memory as a Buffer. */
export function asBuffer(bytes: Uint8Array): Buffer {
  return bytes instanceof Buffer ? bytes : Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

export class Reader {
  readonly bytes: Buffer;
  offset: number;
  readonly end: number;
  /** How many more array elements may be read: small elements become objects many times their size on the wire. */
  elementsLeft: number = ELEMENTS_MAX;

  constructor(bytes: Uint8Array, offset = 0, end = bytes.length) {
    this.bytes = asBuffer(bytes);
    this.offset = offset;
    this.end = end;
  }

  get remaining(): number {
    return this.end - this.offset;
  }

  /** Moves past `sizeBytes` and answers where they start. */
  skip(sizeBytes: number): number {
    const at = this.offset;
    if (sizeBytes < 0 || sizeBytes > this.end - at) {
      throw new ProtocolError(`${sizeBytes} bytes expected at byte ${at}, ${this.end - at} left`);
    }
    this.offset = at + sizeBytes;
    return at;
  }

  bool(): boolean {
    return this.bytes[this.skip(1)] !== 0;
  }
  int8(): number {
    return this.bytes.readInt8(this.skip(1));
  }
  uint8(): number {
    return this.bytes[this.skip(1)];
  }
  int16(): number {
    return this.bytes.readInt16BE(this.skip(2));
  }
  uint16(): number {
    return this.bytes.readUInt16BE(this.skip(2));
  }
  int32(): number {
    return this.bytes.readInt32BE(this.skip(4));
  }
  uint32(): number {
    return this.bytes.readUInt32BE(this.skip(4));
  }
  int64(): number {
    return readInt64(this.bytes, this.skip(8));
  }
  /** int64 that may be "beyond everything": outside ±(2⁵³−1) it is read as the nearest number inside. */
  int64Clipped(): number {
    const at = this.skip(8);
    const value = this.bytes.readInt32BE(at) * TWO_32 + this.bytes.readUInt32BE(at + 4);
    return Math.min(Math.max(value, Number.MIN_SAFE_INTEGER), Number.MAX_SAFE_INTEGER);
  }
  float64(): number {
    return this.bytes.readDoubleBE(this.skip(8));
  }
  /** 16 bytes as lower-case UUID text with hyphens. */
  uuid(): string {
    const at = this.skip(16);
    const hex = this.bytes.toString('hex', at, at + 16);
    return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-${hex.slice(12, 16)}-${hex.slice(16, 20)}-${hex.slice(20)}`;
  }

  /** Unsigned varint of at most 32 bits. */
  uvarint(): number {
    let value = this.uint8();
    if (value < 0x80) return value;
    value &= 0x7f;
    for (let shift = 7; shift < 35; shift += 7) {
      const byte = this.uint8();
      value += (byte & 0x7f) * 2 ** shift;
      if (byte < 0x80) {
        if (value >= TWO_32) break;
        return value;
      }
    }
    throw new ProtocolError(`varint before byte ${this.offset} is longer than 32 bits`);
  }
  /** Zigzag varint of at most 32 bits. */
  varint(): number {
    const raw = this.uvarint();
    return (raw >>> 1) ^ -(raw & 1);
  }
  /** Zigzag varint of at most 64 bits; outside ±(2⁵³−1) is a `ProtocolError`. */
  varlong(): number {
    let low = 0;
    let high = 0;
    for (let shift = 0; shift < 70; shift += 7) {
      const byte = this.uint8();
      const part = byte & 0x7f;
      if (shift < 28) low += part * 2 ** shift;
      else high += part * 2 ** (shift - 28);
      if (byte < 0x80) {
        // raw = high * 2^28 + low; zigzag: even → raw / 2, odd → -(raw + 1) / 2.
        const half = high * 2 ** 27 + Math.floor(low / 2);
        const value = low % 2 === 0 ? half : -half - 1;
        if (!Number.isSafeInteger(value)) break;
        return value;
      }
    }
    throw new ProtocolError(`varlong before byte ${this.offset} does not fit 2^53`);
  }

  /** A view of the next `sizeBytes`, not a copy. */
  view(sizeBytes: number): Buffer {
    const at = this.skip(sizeBytes);
    return this.bytes.subarray(at, at + sizeBytes);
  }
  text(sizeBytes: number): string {
    const at = this.skip(sizeBytes);
    return this.bytes.toString('utf8', at, at + sizeBytes);
  }

  string(): string {
    return present(this.nullableString(), this.offset);
  }
  nullableString(): string | null {
    const size = this.int16();
    return size < 0 ? null : this.text(size);
  }
  compactString(): string {
    return present(this.compactNullableString(), this.offset);
  }
  compactNullableString(): string | null {
    const size = this.uvarint();
    if (size - 1 > STRING_BYTES_MAX) throw new ProtocolError(`string of ${size - 1} bytes before byte ${this.offset}`);
    return size === 0 ? null : this.text(size - 1);
  }
  byteArray(): Buffer {
    return present(this.nullableByteArray(), this.offset);
  }
  nullableByteArray(): Buffer | null {
    const size = this.int32();
    return size < 0 ? null : this.view(size);
  }
  compactByteArray(): Buffer {
    return present(this.compactNullableByteArray(), this.offset);
  }
  compactNullableByteArray(): Buffer | null {
    const size = this.uvarint();
    return size === 0 ? null : this.view(size - 1);
  }

  /** Length of an int32-counted array, −1 for null; each element takes at least one byte, so the rest bounds it. */
  arrayLength(): number {
    return this.#checkedLength(this.int32());
  }
  /** Length of a uvarint-counted array, −1 for null. */
  compactArrayLength(): number {
    return this.#checkedLength(this.uvarint() - 1);
  }
  #checkedLength(length: number): number {
    if (length > this.remaining) {
      throw new ProtocolError(`array of ${length} elements at byte ${this.offset}, ${this.remaining} bytes left`);
    }
    if (length < 0) return -1;
    this.elementsLeft -= length;
    if (this.elementsLeft < 0) throw new ProtocolError(`too many array elements before byte ${this.offset}`);
    return length;
  }
}

function present<T>(value: T | null, offset: number): T {
  if (value === null) throw new ProtocolError(`null before byte ${offset} where a value is required`);
  return value;
}

function checkStringSize(sizeBytes: number): void {
  if (sizeBytes > STRING_BYTES_MAX)
    throw new RangeError(`string of ${sizeBytes} bytes; ${STRING_BYTES_MAX} are allowed`);
}

/** Stands for bytes that are produced only while they are sent (a range of a segment file). Nothing but the sender looks inside. */
export interface Splice {
  readonly isSplice: true;
  readonly length: number;
}

/** A byte array of a message that is written: in memory, or spliced in on the way out. */
export type Payload = Uint8Array | Splice;

/** Bytes to send: small parts written together, large ones by reference, in order. */
export type Chunks = Payload[];

const BY_REFERENCE_MIN = 1024;

export class Writer {
  #buffer: Buffer;
  #size = 0;
  #chunkStart = 0;
  #chunks: Chunks = [];
  #chunksBytes = 0;

  constructor(initialBytes = 256) {
    this.#buffer = Buffer.allocUnsafe(initialBytes);
  }

  /** Bytes written so far, those taken by reference included. */
  get length(): number {
    return this.#chunksBytes + this.#size - this.#chunkStart;
  }

  #room(sizeBytes: number): number {
    const at = this.#size;
    if (at + sizeBytes > this.#buffer.length) {
      const used = at - this.#chunkStart;
      const grown = Buffer.allocUnsafe(Math.max(256, (used + sizeBytes) * 2));
      this.#buffer.copy(grown, 0, this.#chunkStart, at);
      this.#buffer = grown;
      this.#chunkStart = 0;
      this.#size = used + sizeBytes;
      return used;
    }
    this.#size = at + sizeBytes;
    return at;
  }

  bool(value: boolean): void {
    this.uint8(value ? 1 : 0);
  }
  // `#room` may replace `#buffer`: it has to run before `this.#buffer` is read.
  int8(value: number): void {
    const at = this.#room(1);
    this.#buffer.writeInt8(value, at);
  }
  uint8(value: number): void {
    const at = this.#room(1);
    this.#buffer[at] = value;
  }
  int16(value: number): void {
    const at = this.#room(2);
    this.#buffer.writeInt16BE(value, at);
  }
  uint16(value: number): void {
    const at = this.#room(2);
    this.#buffer.writeUInt16BE(value, at);
  }
  int32(value: number): void {
    const at = this.#room(4);
    this.#buffer.writeInt32BE(value, at);
  }
  uint32(value: number): void {
    const at = this.#room(4);
    this.#buffer.writeUInt32BE(value, at);
  }
  int64(value: number): void {
    const at = this.#room(8);
    writeInt64(this.#buffer, at, value);
  }
  float64(value: number): void {
    const at = this.#room(8);
    this.#buffer.writeDoubleBE(value, at);
  }
  uuid(value: string): void {
    const at = this.#room(16);
    const hex = value.replaceAll('-', '');
    const size = this.#buffer.write(hex, at, 16, 'hex');
    if (size !== 16 || hex.length !== 32) throw new RangeError(`${value} is not a UUID`);
  }
  uvarint(value: number): void {
    let rest = value;
    while (rest >= 0x80) {
      this.uint8((rest % 0x80) | 0x80);
      rest = Math.floor(rest / 0x80);
    }
    this.uint8(rest);
  }
  varint(value: number): void {
    this.uvarint(((value << 1) ^ (value >> 31)) >>> 0);
  }
  varlong(value: number): void {
    // Zigzag without 64-bit arithmetic: `rest` * 128 + `first` is the zigzag value, whose doubling may pass 2^53.
    const half = value >= 0 ? value : -value - 1;
    const first = (half % 64) * 2 + (value >= 0 ? 0 : 1);
    const rest = Math.floor(half / 64);
    if (rest === 0) return this.uint8(first);
    this.uint8(first | 0x80);
    this.uvarint(rest);
  }
  /** Copies small arrays, takes large ones by reference: the caller must not change those before they are sent. */
  raw(bytes: Payload): void {
    if (bytes instanceof Uint8Array && bytes.length < BY_REFERENCE_MIN) {
      const at = this.#room(bytes.length);
      this.#buffer.set(bytes, at);
      return;
    }
    this.#cut();
    this.#chunks.push(bytes);
    this.#chunksBytes += bytes.length;
  }
  text(value: string, sizeBytes: number): void {
    const at = this.#room(sizeBytes);
    this.#buffer.write(value, at, sizeBytes, 'utf8');
  }
  string(value: string): void {
    const size = Buffer.byteLength(value);
    checkStringSize(size);
    this.int16(size);
    this.text(value, size);
  }
  nullableString(value: string | null): void {
    if (value === null) this.int16(-1);
    else this.string(value);
  }
  compactString(value: string): void {
    const size = Buffer.byteLength(value);
    checkStringSize(size);
    this.uvarint(size + 1);
    this.text(value, size);
  }
  compactNullableString(value: string | null): void {
    if (value === null) this.uvarint(0);
    else this.compactString(value);
  }
  byteArray(value: Payload): void {
    this.int32(value.length);
    this.raw(value);
  }
  nullableByteArray(value: Payload | null): void {
    if (value === null) this.int32(-1);
    else this.byteArray(value);
  }
  compactByteArray(value: Payload): void {
    this.uvarint(value.length + 1);
    this.raw(value);
  }
  compactNullableByteArray(value: Payload | null): void {
    if (value === null) this.uvarint(0);
    else this.compactByteArray(value);
  }
  arrayLength(length: number): void {
    this.int32(length);
  }
  compactArrayLength(length: number): void {
    this.uvarint(length + 1);
  }

  /** All bytes in order, as few pieces as possible. The writer starts anew after it. */
  chunks(): Chunks {
    this.#cut();
    const chunks = this.#chunks;
    this.#chunks = [];
    this.#chunksBytes = 0;
    return chunks;
  }
  /** All bytes in one piece (a copy if there were several); not for messages with splices. */
  finish(): Buffer {
    const chunks = this.chunks().map((chunk) => {
      if (chunk instanceof Uint8Array) return chunk;
      throw new TypeError('a splice has no bytes of its own; take chunks() instead');
    });
    return chunks.length === 1 ? asBuffer(chunks[0]) : Buffer.concat(chunks);
  }

  #cut(): void {
    if (this.#size > this.#chunkStart) {
      this.#chunks.push(this.#buffer.subarray(this.#chunkStart, this.#size));
      this.#chunksBytes += this.#size - this.#chunkStart;
      this.#chunkStart = this.#size;
    }
  }
}
