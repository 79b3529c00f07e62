/**
 * What the generated message code calls: the pieces that depend on whether a version is flexible (KIP-482), and the
 * refusals. Reading refuses with `ProtocolError`, because the peer is wrong; writing with `RangeError`, because we are.
 */
import { type Payload, type Reader, Writer } from '../bytes.ts';
import { ProtocolError } from '../errors.ts';

/** Kafka's "no id". */
export const ZERO_UUID = '00000000-0000-0000-0000-000000000000';

export const NO_BYTES: Buffer = Buffer.alloc(0);

export function unreadableVersion(message: string, version: number): ProtocolError {
  return new ProtocolError(`${message} has no version ${version}`);
}

export function unwritableVersion(message: string, version: number): RangeError {
  return new RangeError(`${message} has no version ${version}`);
}

/** A value other than the default in a field that the version does not have. */
export function notInVersion(field: string, version: number): RangeError {
  return new RangeError(`${field} has a value, but version ${version} does not have the field`);
}

export function required<T>(value: T | null, field: string, version: number): T {
  if (value === null) throw new RangeError(`${field} must not be null in version ${version}`);
  return value;
}

/** Length of an array that may not be null. */
export function readLength(reader: Reader, isFlexible: boolean): number {
  const length = isFlexible ? reader.compactArrayLength() : reader.arrayLength();
  if (length < 0) throw new ProtocolError(`null before byte ${reader.offset} where an array is required`);
  return length;
}

/** Length of an array, −1 for null. */
export function readNullableLength(reader: Reader, isFlexible: boolean): number {
  return isFlexible ? reader.compactArrayLength() : reader.arrayLength();
}

export function writeLength(writer: Writer, length: number, isFlexible: boolean): void {
  if (isFlexible) writer.compactArrayLength(length);
  else writer.arrayLength(length);
}

export function readString(reader: Reader, isFlexible: boolean): string {
  return isFlexible ? reader.compactString() : reader.string();
}

export function readNullableString(reader: Reader, isFlexible: boolean): string | null {
  return isFlexible ? reader.compactNullableString() : reader.nullableString();
}

export function writeString(writer: Writer, value: string, isFlexible: boolean): void {
  if (isFlexible) writer.compactString(value);
  else writer.string(value);
}

export function writeNullableString(writer: Writer, value: string | null, isFlexible: boolean): void {
  if (isFlexible) writer.compactNullableString(value);
  else writer.nullableString(value);
}

export function readBytes(reader: Reader, isFlexible: boolean): Buffer {
  return isFlexible ? reader.compactByteArray() : reader.byteArray();
}

export function readNullableBytes(reader: Reader, isFlexible: boolean): Buffer | null {
  return isFlexible ? reader.compactNullableByteArray() : reader.nullableByteArray();
}

export function writeBytes(writer: Writer, value: Payload, isFlexible: boolean): void {
  if (isFlexible) writer.compactByteArray(value);
  else writer.byteArray(value);
}

export function writeNullableBytes(writer: Writer, value: Payload | null, isFlexible: boolean): void {
  if (isFlexible) writer.compactNullableByteArray(value);
  else writer.nullableByteArray(value);
}

/** Skips tagged fields where none is known. */
export function skipTags(reader: Reader): void {
  for (let count = reader.uvarint(); count > 0; count--) {
    reader.uvarint();
    reader.skip(reader.uvarint());
  }
}

/** After a known tagged field: it must have taken exactly the bytes it claimed. */
export function endTag(reader: Reader, end: number): void {
  if (reader.offset !== end) throw new ProtocolError(`tagged field ends at byte ${reader.offset} instead of ${end}`);
}

/** One tagged field whose size is only known once it is written. */
export function writeTag(writer: Writer, tag: number, body: Writer): void {
  writer.uvarint(tag);
  writer.uvarint(body.length);
  for (const chunk of body.chunks()) writer.raw(chunk);
}

/** For the body of a tagged field. */
export function tagWriter(): Writer {
  return new Writer(64);
}
