/**
 * Strings and field tables of AMQP 0-9-1, with the type letters that RabbitMQ reads and writes (its errata page "Field types";
 * the specification's own letters were never used by anybody):
 *
 *   S long string   x bytes   I int32   i uint32   l int64   L int64   s int16   u uint16   b int8   B uint8
 *   t bool   f float   d double   D decimal (scale octet, int32)   T timestamp (seconds, uint64)   F table   A array   V nothing
 *
 * A value keeps its letter, so that a table written again has the same bytes. 64 bit integers that fit are numbers, others bigints.
 */
import { type Reader, Writer } from '../bytes.ts';
import { ProtocolError } from '../errors.ts';

export const NO_BYTES = Buffer.alloc(0);

export type FieldValue =
  | { readonly type: 'S' | 'x'; readonly value: Buffer }
  | { readonly type: 'I' | 'i' | 's' | 'u' | 'b' | 'B' | 'f' | 'd'; readonly value: number }
  | { readonly type: 'l' | 'L' | 'T'; readonly value: number | bigint }
  | { readonly type: 't'; readonly value: boolean }
  | { readonly type: 'D'; readonly scale: number; readonly value: number }
  | { readonly type: 'F'; readonly value: Table }
  | { readonly type: 'A'; readonly value: readonly FieldValue[] }
  | { readonly type: 'V' };

/** Names and values in wire order; a name may come twice, the last one counts. */
export type Table = readonly (readonly [name: string, value: FieldValue])[];

export const NO_TABLE: Table = [];

/** Tables in tables and arrays go no deeper: nobody needs it, and reading is recursive. */
const DEPTH_MAX = 64;
const SHORT_STRING_BYTES_MAX = 255;

export function readShortString(reader: Reader): string {
  return reader.text(reader.uint8());
}

export function writeShortString(writer: Writer, value: string): void {
  const sizeBytes = Buffer.byteLength(value);
  if (sizeBytes > SHORT_STRING_BYTES_MAX) throw new RangeError(`short string of ${sizeBytes} bytes; 255 are allowed`);
  writer.uint8(sizeBytes);
  writer.text(value, sizeBytes);
}

/** `value` cut to what a short string holds, between two characters. */
export function clippedToShortString(value: string): string {
  const bytes = Buffer.from(value);
  if (bytes.length <= SHORT_STRING_BYTES_MAX) return value;
  let end = SHORT_STRING_BYTES_MAX;
  while ((bytes[end] & 0xc0) === 0x80) end--;
  return bytes.toString('utf8', 0, end);
}

/** A view. */
export function readLongString(reader: Reader): Buffer {
  return reader.view(reader.uint32());
}

export function writeLongString(writer: Writer, value: Uint8Array | string): void {
  const bytes = typeof value === 'string' ? Buffer.from(value) : value;
  writer.uint32(bytes.length);
  writer.raw(bytes);
}

/** The value under this name, if there is one. */
export function fieldOf(table: Table, name: string): FieldValue | undefined {
  for (let index = table.length - 1; index >= 0; index--) if (table[index][0] === name) return table[index][1];
  return undefined;
}

export const textField = (value: string): FieldValue => ({ type: 'S', value: Buffer.from(value) });

/** Refuses with ProtocolError what is cut, nested too deeply, or of a type that RabbitMQ does not know. */
export function readTable(reader: Reader, depth = 0): Table {
  const sizeBytes = reader.uint32();
  if (sizeBytes === 0) return NO_TABLE;
  const end = endOf(reader, sizeBytes, depth);
  const table: (readonly [string, FieldValue])[] = [];
  while (reader.offset < end) table.push([readShortString(reader), readField(reader, depth)]);
  return finished(reader, end, table);
}

function readArray(reader: Reader, depth: number): FieldValue[] {
  const end = endOf(reader, reader.uint32(), depth);
  const values: FieldValue[] = [];
  while (reader.offset < end) values.push(readField(reader, depth));
  return finished(reader, end, values);
}

function endOf(reader: Reader, sizeBytes: number, depth: number): number {
  if (depth >= DEPTH_MAX) throw new ProtocolError(`tables are nested deeper than ${DEPTH_MAX}`);
  if (sizeBytes > reader.remaining) {
    throw new ProtocolError(`table of ${sizeBytes} bytes at byte ${reader.offset}, ${reader.remaining} left`);
  }
  return reader.offset + sizeBytes;
}

function finished<T>(reader: Reader, end: number, value: T): T {
  if (reader.offset !== end) throw new ProtocolError(`a table ends at byte ${reader.offset} instead of ${end}`);
  return value;
}

function readField(reader: Reader, depth: number): FieldValue {
  if (--reader.elementsLeft < 0) throw new ProtocolError(`too many table fields before byte ${reader.offset}`);
  const type = String.fromCharCode(reader.uint8());
  switch (type) {
    case 'S':
    case 'x':
      return { type, value: readLongString(reader) };
    case 't':
      return { type, value: reader.bool() };
    case 'I':
      return { type, value: reader.int32() };
    case 'i':
      return { type, value: reader.uint32() };
    case 's':
      return { type, value: reader.int16() };
    case 'u':
      return { type, value: reader.uint16() };
    case 'b':
      return { type, value: reader.int8() };
    case 'B':
      return { type, value: reader.uint8() };
    case 'l':
    case 'L':
      return { type, value: narrowed(reader.view(8).readBigInt64BE(0)) };
    case 'T':
      return { type, value: narrowed(reader.view(8).readBigUInt64BE(0)) };
    case 'f':
      return { type, value: reader.view(4).readFloatBE(0) };
    case 'd':
      return { type, value: reader.float64() };
    case 'D':
      return { type, scale: reader.uint8(), value: reader.int32() };
    case 'F':
      return { type, value: readTable(reader, depth + 1) };
    case 'A':
      return { type, value: readArray(reader, depth + 1) };
    case 'V':
      return { type };
    default:
      throw new ProtocolError(`table field of unknown type '${type}' before byte ${reader.offset}`);
  }
}

function narrowed(value: bigint): number | bigint {
  return value >= Number.MIN_SAFE_INTEGER && value <= Number.MAX_SAFE_INTEGER ? Number(value) : value;
}

export function writeTable(writer: Writer, table: Table): void {
  if (table.length === 0) return writer.uint32(0);
  const inner = new Writer();
  for (const [name, value] of table) {
    writeShortString(inner, name);
    writeField(inner, value);
  }
  writeLongString(writer, inner.finish());
}

/** The table alone, with its length in front. */
export function tableBytes(table: Table): Buffer {
  const writer = new Writer();
  writeTable(writer, table);
  return writer.finish();
}

function writeField(writer: Writer, field: FieldValue): void {
  writer.uint8(field.type.charCodeAt(0));
  switch (field.type) {
    case 'S':
    case 'x':
      return writeLongString(writer, field.value);
    case 't':
      return writer.bool(field.value);
    case 'I':
      return writer.int32(field.value);
    case 'i':
      return writer.uint32(field.value);
    case 's':
      return writer.int16(field.value);
    case 'u':
      return writer.uint16(field.value);
    case 'b':
      return writer.int8(field.value);
    case 'B':
      return writer.uint8(field.value);
    case 'l':
    case 'L':
    case 'T': {
      const bytes = Buffer.alloc(8);
      if (field.type === 'T') bytes.writeBigUInt64BE(BigInt(field.value));
      else bytes.writeBigInt64BE(BigInt(field.value));
      return writer.raw(bytes);
    }
    case 'f': {
      const bytes = Buffer.alloc(4);
      bytes.writeFloatBE(field.value);
      return writer.raw(bytes);
    }
    case 'd':
      return writer.float64(field.value);
    case 'D':
      writer.uint8(field.scale);
      return writer.int32(field.value);
    case 'F':
      return writeTable(writer, field.value);
    case 'A': {
      const inner = new Writer();
      for (const value of field.value) writeField(inner, value);
      return writeLongString(writer, inner.finish());
    }
    case 'V':
      return;
  }
}
