/**
 * The content header of AMQP 0-9-1: class id, weight, body size, and the properties of class basic behind a word of flags,
 * highest bit first in the order of `Properties`.
 *
 * The bytes of the properties as they came are kept beside what was read from them, so that a message that nobody changes
 * leaves with the bytes it came with.
 */
import { type Reader, Writer } from '../bytes.ts';
import { ProtocolError } from '../errors.ts';
import { type Table, readShortString, readTable, writeShortString, writeTable } from './table.ts';

export interface Properties {
  readonly contentType?: string;
  readonly contentEncoding?: string;
  readonly headers?: Table;
  /** 2: persistent; everything else: transient. */
  readonly deliveryMode?: number;
  readonly priority?: number;
  readonly correlationId?: string;
  readonly replyTo?: string;
  /** Milliseconds as decimal text. */
  readonly expiration?: string;
  readonly messageId?: string;
  /** Seconds since 1970 by convention, uint64. */
  readonly timestamp?: number | bigint;
  readonly type?: string;
  readonly userId?: string;
  readonly appId?: string;
  readonly clusterId?: string;
}

/** Class id of basic, the only class with content. */
const BASIC = 60;
export const FLAG_CONTENT_TYPE = 1 << 15;
export const FLAG_CONTENT_ENCODING = 1 << 14;
export const FLAG_HEADERS = 1 << 13;
const FLAG_DELIVERY_MODE = 1 << 12;
const FLAG_PRIORITY = 1 << 11;
const FLAG_CORRELATION_ID = 1 << 10;
const FLAG_REPLY_TO = 1 << 9;
const FLAG_EXPIRATION = 1 << 8;
const FLAG_MESSAGE_ID = 1 << 7;
const FLAG_TIMESTAMP = 1 << 6;
const FLAG_TYPE = 1 << 5;
const FLAG_USER_ID = 1 << 4;
const FLAG_APP_ID = 1 << 3;
const FLAG_CLUSTER_ID = 1 << 2;
/** Bit 1 has no property, bit 0 says that another word of flags follows: class basic has neither. */
const FLAGS_UNKNOWN = 0x0003;

export interface ContentHeader {
  readonly bodyBytes: number;
  /** Flags and properties as they came: a view. */
  readonly properties: Buffer;
}

/** Payload of a header frame. Refuses with ProtocolError another class than basic, and a size beyond 2⁵³. */
export function readContentHeader(reader: Reader): ContentHeader {
  const classId = reader.uint16();
  if (classId !== BASIC) throw new ProtocolError(`content header of class ${classId}; ${BASIC} was expected`);
  reader.skip(2);
  const bodyBytes = reader.int64();
  if (bodyBytes < 0) throw new ProtocolError(`content of ${bodyBytes} bytes`);
  return { bodyBytes, properties: reader.view(reader.remaining) };
}

/** `properties`: flags and properties as `writeProperties` or `readContentHeader` gives them. */
export function writeContentHeader(writer: Writer, bodyBytes: number, properties: Uint8Array): void {
  writer.uint16(BASIC);
  writer.uint16(0);
  writer.int64(bodyBytes);
  writer.raw(properties);
}

/** Refuses with ProtocolError what is cut, or bytes left over. */
export function readProperties(reader: Reader): Properties {
  const flags = reader.uint16();
  if (flags & FLAGS_UNKNOWN) throw new ProtocolError(`property flags ${flags.toString(16)} are not those of basic`);
  const properties: { -readonly [Name in keyof Properties]: Properties[Name] } = {};
  if (flags & FLAG_CONTENT_TYPE) properties.contentType = readShortString(reader);
  if (flags & FLAG_CONTENT_ENCODING) properties.contentEncoding = readShortString(reader);
  if (flags & FLAG_HEADERS) properties.headers = readTable(reader);
  if (flags & FLAG_DELIVERY_MODE) properties.deliveryMode = reader.uint8();
  if (flags & FLAG_PRIORITY) properties.priority = reader.uint8();
  if (flags & FLAG_CORRELATION_ID) properties.correlationId = readShortString(reader);
  if (flags & FLAG_REPLY_TO) properties.replyTo = readShortString(reader);
  if (flags & FLAG_EXPIRATION) properties.expiration = readShortString(reader);
  if (flags & FLAG_MESSAGE_ID) properties.messageId = readShortString(reader);
  if (flags & FLAG_TIMESTAMP) properties.timestamp = readTimestamp(reader);
  if (flags & FLAG_TYPE) properties.type = readShortString(reader);
  if (flags & FLAG_USER_ID) properties.userId = readShortString(reader);
  if (flags & FLAG_APP_ID) properties.appId = readShortString(reader);
  if (flags & FLAG_CLUSTER_ID) properties.clusterId = readShortString(reader);
  if (reader.remaining > 0) throw new ProtocolError(`${reader.remaining} bytes after the last property`);
  return properties;
}

function readTimestamp(reader: Reader): number | bigint {
  const value = reader.view(8).readBigUInt64BE(0);
  return value <= Number.MAX_SAFE_INTEGER ? Number(value) : value;
}

/** Flags and properties. RangeError for a string that does not fit. */
export function writeProperties(properties: Properties): Buffer {
  const writer = new Writer();
  const { headers, deliveryMode, priority, timestamp } = properties;
  let flags = 0;
  // The flags come first, when all is known: two bytes are held free for them.
  writer.uint16(0);
  const text = (flag: number, value: string | undefined): void => {
    if (value === undefined) return;
    flags |= flag;
    writeShortString(writer, value);
  };
  text(FLAG_CONTENT_TYPE, properties.contentType);
  text(FLAG_CONTENT_ENCODING, properties.contentEncoding);
  if (headers !== undefined) {
    flags |= FLAG_HEADERS;
    writeTable(writer, headers);
  }
  if (deliveryMode !== undefined) {
    flags |= FLAG_DELIVERY_MODE;
    writer.uint8(deliveryMode);
  }
  if (priority !== undefined) {
    flags |= FLAG_PRIORITY;
    writer.uint8(priority);
  }
  text(FLAG_CORRELATION_ID, properties.correlationId);
  text(FLAG_REPLY_TO, properties.replyTo);
  text(FLAG_EXPIRATION, properties.expiration);
  text(FLAG_MESSAGE_ID, properties.messageId);
  if (timestamp !== undefined) {
    flags |= FLAG_TIMESTAMP;
    const bytes = Buffer.alloc(8);
    bytes.writeBigUInt64BE(BigInt(timestamp));
    writer.raw(bytes);
  }
  text(FLAG_TYPE, properties.type);
  text(FLAG_USER_ID, properties.userId);
  text(FLAG_APP_ID, properties.appId);
  text(FLAG_CLUSTER_ID, properties.clusterId);
  const bytes = writer.finish();
  bytes.writeUInt16BE(flags, 0);
  return bytes;
}
