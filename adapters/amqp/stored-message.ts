/**
 * Where the parts of a message lie in a record that `recordOf` made (`properties.ts`), found without decoding any of them:
 * for who copies them as they are.
 */
import type { RecordCursor } from '../../protocol/record-walk.ts';
import { headerNames, RESERVED } from '../../broker/queue-attributes.ts';
import { EXCHANGE, PROPERTIES, ROUTING_KEY } from './properties.ts';

const PREFIX = Buffer.from(RESERVED);
const EXCHANGE_BYTES = Buffer.from(EXCHANGE);
const ROUTING_KEY_BYTES = Buffer.from(ROUTING_KEY);
const PROPERTIES_BYTES = Buffer.from(PROPERTIES);
/** Its consumers are told what happened to it. */
const DEATH = Buffer.from(headerNames.death);
/** Flags of properties. */
const PROPERTIES_BYTES_MIN = 2;

export class StoredMessage {
  /** An AMQP client published it, and consumers get its properties as they came. */
  isPlain = false;
  propertiesStart = 0;
  propertiesEnd = 0;
  /** Empty: the default exchange. */
  exchangeStart = 0;
  exchangeEnd = 0;
  /** −1: the name of the queue. */
  routingKeyStart = -1;
  routingKeyEnd = -1;

  /** Of the record that the cursor is at. */
  read(cursor: RecordCursor): void {
    const { bytes } = cursor;
    this.isPlain = false;
    this.exchangeStart = 0;
    this.exchangeEnd = 0;
    this.routingKeyStart = -1;
    this.routingKeyEnd = -1;
    let hasDied = false;
    cursor.rewindHeaders();
    while (cursor.nextHeader()) {
      const { headerKeyStart: start, headerKeyEnd: end, headerValueStart: valueStart, headerValueSize } = cursor;
      if (headerValueSize < 0 || !startsWith(bytes, start, end, PREFIX)) continue;
      const valueEnd = valueStart + headerValueSize;
      if (isName(bytes, start, end, PROPERTIES_BYTES)) {
        this.isPlain = headerValueSize >= PROPERTIES_BYTES_MIN;
        this.propertiesStart = valueStart;
        this.propertiesEnd = valueEnd;
      } else if (isName(bytes, start, end, ROUTING_KEY_BYTES)) {
        this.routingKeyStart = valueStart;
        this.routingKeyEnd = valueEnd;
      } else if (isName(bytes, start, end, EXCHANGE_BYTES)) {
        this.exchangeStart = valueStart;
        this.exchangeEnd = valueEnd;
      } else if (isName(bytes, start, end, DEATH)) hasDied = true;
    }
    if (hasDied) this.isPlain = false;
  }
}

const isName = (bytes: Buffer, start: number, end: number, name: Buffer): boolean =>
  end - start === name.length && startsWith(bytes, start, end, name);

/** Compared from the end, where names differ. */
function startsWith(bytes: Buffer, start: number, end: number, name: Buffer): boolean {
  if (end - start < name.length) return false;
  for (let index = name.length - 1; index >= 0; index--) if (bytes[start + index] !== name[index]) return false;
  return true;
}
