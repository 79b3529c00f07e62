/**
 * Writes messages to a peer: method, content header and body of `basic.deliver`, `basic.get-ok` and `basic.return`.
 *
 * A message that an AMQP client published is stored with its properties as they came (`properties.ts`), so a delivery is
 * bytes of the log copied between a few of our own: nothing is decoded, and no object is made for it. Only messages that
 * look different from what is stored, or come from another door, are built first (`deliveryOf`).
 *
 *   basic.deliver   class 60 | method 60 | consumer tag | delivery tag int64 | redelivered | exchange | routing key
 *   content header  class 60 | weight 0 | body size int64 | flags | properties
 */
import {
  contentHeaderFrame,
  FRAME_BODY,
  FRAME_END,
  FRAME_HEADER,
  FRAME_METHOD,
  FRAME_OVERHEAD_BYTES,
} from '../../protocol/amqp/frame.ts';
import { methodIds } from '../../protocol/amqp/methods.ts';
import { FLAG_CONTENT_ENCODING, FLAG_CONTENT_TYPE, FLAG_HEADERS } from '../../protocol/amqp/properties.ts';
import type { RecordCursor } from '../../protocol/record-walk.ts';
import { type Output, PACK_BYTES_MAX } from './output.ts';
import { deliveryOf } from './properties.ts';
import { StoredMessage } from './stored-message.ts';

/** Type, channel and size in front of a frame's payload. */
const FRAME_HEAD_BYTES = 7;
/** Class, weight and body size in front of the properties. */
const CONTENT_HEAD_BYTES = 12;
const BASIC = 60;
const STREAM_OFFSET = 'x-stream-offset';
/** A table entry: name, type `l`, int64. */
const STREAM_OFFSET_ENTRY = Buffer.from([
  STREAM_OFFSET.length,
  ...Buffer.from(STREAM_OFFSET),
  0x6c,
  0,
  0,
  0,
  0,
  0,
  0,
  0,
  0,
]);
const STREAM_OFFSET_BYTES = STREAM_OFFSET_ENTRY.length;
const INT64_BYTES = 8;
const TWO_32 = 2 ** 32;

/** Where messages of a consumer go. */
export interface DeliveryTarget {
  /** Bytes of a consumer tag. */
  readonly consumerTag: Buffer;
  readonly queueName: string;
  /** Bytes of `queueName`: the routing key of what has none of its own. */
  readonly queueNameBytes: Buffer;
  /** Failed deliveries are told in a header. */
  readonly isQuorum: boolean;
}

export class DeliveryWriter {
  readonly #output: Output;
  readonly #channel: number;
  readonly #frameBytesMax: number;
  readonly #stored = new StoredMessage();

  constructor(output: Output, channel: number, frameBytesMax: number) {
    this.#output = output;
    this.#channel = channel;
    this.#frameBytesMax = frameBytesMax;
  }

  /** What properties may have: content headers are never cut into frames. */
  get propertyBytesMax(): number {
    return this.#frameBytesMax - FRAME_OVERHEAD_BYTES - CONTENT_HEAD_BYTES;
  }

  /** The record that the cursor is at. `streamOffset`: told in a header; −1: not. */
  deliver(
    target: DeliveryTarget,
    deliveryTag: number,
    isRedelivered: boolean,
    failedCount: number,
    cursor: RecordCursor,
    streamOffset: number,
  ): void {
    const stored = this.#stored;
    stored.read(cursor);
    const { bytes, valueStart } = cursor;
    const { propertiesStart, propertiesEnd, exchangeStart, exchangeEnd, routingKeyStart, routingKeyEnd } = stored;
    const valueEnd = valueStart + Math.max(0, cursor.valueSize);
    const hasCount = failedCount > 0 && target.isQuorum;
    const isAsStored = stored.isPlain && !hasCount;
    if (isAsStored && propertiesEnd - propertiesStart + STREAM_OFFSET_BYTES + 4 <= this.propertyBytesMax) {
      const routingKey = routingKeyStart < 0 ? target.queueNameBytes : bytes;
      const routingStart = routingKeyStart < 0 ? 0 : routingKeyStart;
      const routingEnd = routingKeyStart < 0 ? routingKey.length : routingKeyEnd;
      this.#method(
        target,
        deliveryTag,
        isRedelivered,
        bytes,
        exchangeStart,
        exchangeEnd,
        routingKey,
        routingStart,
        routingEnd,
      );
      this.#header(bytes, propertiesStart, propertiesEnd, valueEnd - valueStart, streamOffset);
      this.#body(bytes, valueStart, valueEnd);
      return;
    }
    const record = {
      key: cursor.keySize < 0 ? null : bytes.subarray(cursor.keyStart, cursor.keyStart + cursor.keySize),
      value: cursor.valueSize < 0 ? null : bytes.subarray(valueStart, valueEnd),
      headers: cursor.headers(),
    };
    const { exchange, routingKey, propertyBytes, body } = deliveryOf(record, {
      queueName: target.queueName,
      headerBytesMax: this.propertyBytesMax - STREAM_OFFSET_BYTES - 4,
      failedCount: hasCount ? failedCount : 0,
    });
    const exchangeBytes = Buffer.from(exchange);
    const keyBytes = Buffer.from(routingKey);
    this.#method(
      target,
      deliveryTag,
      isRedelivered,
      exchangeBytes,
      0,
      exchangeBytes.length,
      keyBytes,
      0,
      keyBytes.length,
    );
    this.#header(propertyBytes, 0, propertyBytes.length, body.length, streamOffset);
    this.#body(body, 0, body.length);
  }

  /** Header and body, after a method that was written by others. */
  content(propertyBytes: Buffer, body: Buffer): void {
    this.#output.push(contentHeaderFrame(this.#channel, body.length, propertyBytes));
    this.#body(body, 0, body.length);
  }

  #method(
    { consumerTag }: DeliveryTarget,
    deliveryTag: number,
    isRedelivered: boolean,
    exchange: Buffer,
    exchangeStart: number,
    exchangeEnd: number,
    routingKey: Buffer,
    routingStart: number,
    routingEnd: number,
  ): void {
    const exchangeBytes = exchangeEnd - exchangeStart;
    const routingBytes = routingEnd - routingStart;
    const sizeBytes = 4 + 1 + consumerTag.length + INT64_BYTES + 1 + 1 + exchangeBytes + 1 + routingBytes;
    let at = this.#frame(FRAME_METHOD, sizeBytes);
    const { bytes } = this.#output;
    at = bytes.writeUInt32BE(methodIds['basic.deliver'], at);
    bytes[at++] = consumerTag.length;
    at += consumerTag.copy(bytes, at);
    at = writeInt64(bytes, at, deliveryTag);
    bytes[at++] = isRedelivered ? 1 : 0;
    bytes[at++] = exchangeBytes;
    at = copied(exchange, exchangeStart, exchangeEnd, bytes, at);
    bytes[at++] = routingBytes;
    at = copied(routingKey, routingStart, routingEnd, bytes, at);
    bytes[at] = FRAME_END;
  }

  #header(properties: Buffer, start: number, end: number, bodyBytes: number, streamOffset: number): void {
    const hasOffset = streamOffset >= 0;
    const tableAt = hasOffset ? tableStart(properties, start) : -1;
    const hasTable = hasOffset && (properties.readUInt16BE(start) & FLAG_HEADERS) !== 0;
    const addedBytes = hasOffset ? STREAM_OFFSET_BYTES + (hasTable ? 0 : 4) : 0;
    let at = this.#frame(FRAME_HEADER, CONTENT_HEAD_BYTES + (end - start) + addedBytes);
    const { bytes } = this.#output;
    at = bytes.writeUInt16BE(BASIC, at);
    at = bytes.writeUInt16BE(0, at);
    at = writeInt64(bytes, at, bodyBytes);
    if (!hasOffset) at = copied(properties, start, end, bytes, at);
    else {
      const flagsAt = at;
      at = copied(properties, start, tableAt, bytes, at);
      bytes.writeUInt16BE(properties.readUInt16BE(start) | FLAG_HEADERS, flagsAt);
      const tableBytes = hasTable ? properties.readUInt32BE(tableAt) : 0;
      const entriesStart = hasTable ? tableAt + 4 : tableAt;
      at = bytes.writeUInt32BE(tableBytes + STREAM_OFFSET_BYTES, at);
      at = copied(properties, entriesStart, entriesStart + tableBytes, bytes, at);
      // The last one counts, if a message that was read from a stream is published again.
      at += STREAM_OFFSET_ENTRY.copy(bytes, at);
      writeInt64(bytes, at - INT64_BYTES, streamOffset);
      at = copied(properties, entriesStart + tableBytes, end, bytes, at);
    }
    bytes[at] = FRAME_END;
  }

  #body(body: Buffer, start: number, end: number): void {
    const pieceBytesMax = this.#frameBytesMax - FRAME_OVERHEAD_BYTES;
    for (let from = start; from < end; from += pieceBytesMax) {
      const to = Math.min(end, from + pieceBytesMax);
      if (to - from <= PACK_BYTES_MAX) {
        const at = this.#frame(FRAME_BODY, to - from);
        const { bytes } = this.#output;
        bytes[copied(body, from, to, bytes, at)] = FRAME_END;
        continue;
      }
      const at = this.#output.take(FRAME_HEAD_BYTES);
      this.#head(at, FRAME_BODY, to - from);
      this.#output.push(body.subarray(from, to));
      const endAt = this.#output.take(1);
      this.#output.bytes[endAt] = FRAME_END;
    }
  }

  /** A frame with room for its payload and end; answers where the payload starts. */
  #frame(type: number, payloadBytes: number): number {
    const at = this.#output.take(payloadBytes + FRAME_OVERHEAD_BYTES);
    return this.#head(at, type, payloadBytes);
  }
  #head(at: number, type: number, payloadBytes: number): number {
    const { bytes } = this.#output;
    bytes[at] = type;
    bytes.writeUInt16BE(this.#channel, at + 1);
    return bytes.writeUInt32BE(payloadBytes, at + 3);
  }
}

/** Where the headers table is, or would be: after content type and content encoding. */
function tableStart(properties: Buffer, start: number): number {
  const flags = properties.readUInt16BE(start);
  let at = start + 2;
  if (flags & FLAG_CONTENT_TYPE) at += 1 + properties[at];
  if (flags & FLAG_CONTENT_ENCODING) at += 1 + properties[at];
  return at;
}

function writeInt64(bytes: Buffer, at: number, value: number): number {
  bytes.writeUInt32BE(Math.floor(value / TWO_32), at);
  return bytes.writeUInt32BE(value % TWO_32, at + 4);
}

/** Below this a loop beats the call. */
const LOOP_BYTES_MAX = 24;
function copied(source: Buffer, start: number, end: number, target: Buffer, at: number): number {
  if (end - start > LOOP_BYTES_MAX) source.copy(target, at, start, end);
  else for (let from = start, to = at; from < end; ) target[to++] = source[from++];
  return at + end - start;
}
