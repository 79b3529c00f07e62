/**
 * A message as AMQP has it and as the log keeps it (docs/amqp.md, "One record, three views"). A publish becomes a record
 * whose headers a Kafka client understands; exchange, routing key and the properties as they came are kept beside them, so
 * that an AMQP consumer gets the same bytes. A record without those came from elsewhere: its headers become the table.
 *
 *   millrace.amqp.exchange, millrace.amqp.routing.key     left out for the default exchange and the queue's own name
 *   millrace.amqp.properties                              flags and properties as on the wire
 *   millrace.amqp.bcc                                     a routing key of BCC, once for each: no consumer sees them
 */
import { readProperties, writeProperties, type Properties } from '../../protocol/amqp/properties.ts';
import { type FieldValue, fieldOf, NO_TABLE, type Table } from '../../protocol/amqp/table.ts';
import { Reader } from '../../protocol/bytes.ts';
import type { RecordHeader } from '../../protocol/record-batch.ts';
import type { Letter } from '../../broker/dead-letters.ts';
import { type DeathHistory, deathHistory, headerNames, RESERVED } from '../../broker/queue-attributes.ts';
import { withDeaths } from './deaths.ts';
import { erlangType } from './argument-fields.ts';

export const EXCHANGE = 'millrace.amqp.exchange';
export const ROUTING_KEY = 'millrace.amqp.routing.key';
export const PROPERTIES = 'millrace.amqp.properties';
const BCC = 'millrace.amqp.bcc';
const { ttlMs: TTL, priority: PRIORITY, delayMs: DELAY } = headerNames;
const GROUP_HEADER = 'x-group-id';
const HEADER_NAME_BYTES_MAX = 255;
const PERSISTENT = 2;
const NO_BODY = Buffer.alloc(0);
const NO_KEYS: readonly string[] = [];
const NO_MORE_KEYS = { cc: NO_KEYS, bcc: NO_KEYS } as const;

/** What a publish carries, its properties opened once. */
export interface Message {
  readonly exchange: string;
  readonly routingKey: string;
  readonly properties: Properties;
  /** As they came, without BCC. Valid until the record is built. */
  readonly propertyBytes: Buffer;
  readonly body: Buffer;
  readonly bccKeys: readonly string[];
  /** Of `x-delayed-message`; 0: none. */
  readonly delayMs: number;
}

/** The message as a record of the topic of a queue with this AMQP name. */
export function recordOf(message: Message, queueName: string, timeMs: number): Letter {
  const { exchange, routingKey, properties, propertyBytes, body, bccKeys, delayMs } = message;
  const headers: RecordHeader[] = [];
  let key: Buffer | null = null;
  for (const [name, field] of properties.headers ?? NO_TABLE) {
    if (name === GROUP_HEADER && field.type === 'S') key = field.value;
    if (name.startsWith(RESERVED) || name === GROUP_HEADER) continue;
    const value = headerBytes(field);
    if (value !== undefined) headers.push({ key: name, value });
  }
  if (exchange !== '') headers.push({ key: EXCHANGE, value: Buffer.from(exchange) });
  if (exchange !== '' || routingKey !== queueName) headers.push({ key: ROUTING_KEY, value: Buffer.from(routingKey) });
  headers.push({ key: PROPERTIES, value: propertyBytes });
  for (const bccKey of bccKeys) headers.push({ key: BCC, value: Buffer.from(bccKey) });
  if (properties.expiration !== undefined) headers.push({ key: TTL, value: Buffer.from(properties.expiration) });
  if (properties.priority) headers.push({ key: PRIORITY, value: Buffer.from(String(properties.priority)) });
  if (delayMs > 0) headers.push({ key: DELAY, value: Buffer.from(String(delayMs)) });
  return { key, value: body, headers, timestamp: timeMs };
}

/** Text and bytes as they are, numbers and truth values as text; tables, arrays and decimals have no counterpart. */
function headerBytes(field: FieldValue): Buffer | null | undefined {
  switch (field.type) {
    case 'S':
    case 'x':
      return field.value;
    case 'V':
      return null;
    case 'F':
    case 'A':
    case 'D':
      return undefined;
    default:
      return Buffer.from(String(field.value));
  }
}

/** What an AMQP consumer is given. */
export interface Delivery {
  readonly exchange: string;
  readonly routingKey: string;
  readonly propertyBytes: Buffer;
  readonly body: Buffer;
}

export interface DeliveryOptions {
  readonly queueName: string;
  /** Content headers are never cut into frames: a view that is larger loses its headers table. */
  readonly headerBytesMax: number;
  /** `x-delivery-count` of quorum queues; 0: none is added. */
  readonly failedCount: number;
}

export function deliveryOf(
  record: { key: Buffer | null; value: Buffer | null; headers: readonly RecordHeader[] },
  { queueName, headerBytesMax, failedCount }: DeliveryOptions,
): Delivery {
  const { exchange, routingKey, propertyBytes: stored, hasDied } = addressOf(record.headers, queueName);
  let propertyBytes = stored ?? writeProperties(foreignProperties(record));
  const history = hasDied ? deathHistory(record.headers) : undefined;
  if (history !== undefined) propertyBytes = deadProperties(propertyBytes, history);
  if (failedCount > 0) propertyBytes = withHeader(propertyBytes, 'x-delivery-count', { type: 'l', value: failedCount });
  if (propertyBytes.length > headerBytesMax) {
    const { headers: _, ...rest } = readProperties(new Reader(propertyBytes));
    propertyBytes = writeProperties(rest);
  }
  return { exchange, routingKey, propertyBytes, body: record.value ?? NO_BODY };
}

/** With its history, and without the expiration, which has been taken off. */
function deadProperties(propertyBytes: Buffer, history: DeathHistory): Buffer {
  const { headers = NO_TABLE, expiration: _, ...others } = readProperties(new Reader(propertyBytes));
  return writeProperties({ ...others, headers: withDeaths(headers, history) });
}

/** How a record was published. */
export interface Address extends Pick<Message, 'exchange' | 'routingKey' | 'bccKeys'> {
  /** Undefined: no AMQP client wrote it. */
  readonly propertyBytes: Buffer | undefined;
  readonly hasDied: boolean;
}

/** How a record was published; one that no AMQP client wrote: to the queue in which it is. */
export function addressOf(headers: readonly RecordHeader[], queueName: string): Address {
  let exchange = '';
  let routingKey = queueName;
  let propertyBytes: Buffer | undefined;
  let bccKeys = NO_KEYS;
  let hasDied = false;
  for (const { key, value } of headers) {
    if (value === null || !key.startsWith(RESERVED)) continue;
    if (key === EXCHANGE) exchange = value.toString();
    else if (key === ROUTING_KEY) routingKey = value.toString();
    else if (key === PROPERTIES) propertyBytes = value;
    else if (key === BCC) bccKeys = [...bccKeys, value.toString()];
    else if (key === headerNames.death) hasDied = true;
  }
  return { exchange, routingKey, propertyBytes, bccKeys, hasDied };
}

/** Headers of a record, published anew. `isRenamed`: under this key alone. */
export function addressed(
  headers: readonly RecordHeader[],
  { exchange, routingKey, isRenamed }: { exchange: string; routingKey: string; isRenamed: boolean },
): RecordHeader[] {
  const kept = headers.filter(({ key }) => key !== EXCHANGE && key !== ROUTING_KEY && !(isRenamed && key === BCC));
  const address: RecordHeader[] = [{ key: ROUTING_KEY, value: Buffer.from(routingKey) }];
  if (exchange !== '') address.push({ key: EXCHANGE, value: Buffer.from(exchange) });
  return [...kept, ...address];
}

/** Headers of a record as if it had been published to the queue where it is. */
export function unaddressed(headers: readonly RecordHeader[]): RecordHeader[] {
  return headers.filter(({ key }) => key !== EXCHANGE && key !== ROUTING_KEY && key !== BCC);
}

/** Properties of a record that no AMQP client wrote. */
function foreignProperties(record: { key: Buffer | null; headers: readonly RecordHeader[] }): Properties {
  let priority: number | undefined;
  let expiration: string | undefined;
  for (const { key, value } of record.headers) {
    if (value === null) continue;
    if (key === PRIORITY) priority = Number(value.toString());
    else if (key === TTL) expiration = value.toString();
  }
  return {
    headers: tableOf(record),
    deliveryMode: PERSISTENT,
    // Not on every topic such headers are checked.
    ...(priority !== undefined && priority >= 0 && priority <= 255 ? { priority } : {}),
    ...(expiration !== undefined && /^\d{1,14}$/.test(expiration) ? { expiration } : {}),
  };
}

/** Headers of a record that no AMQP client wrote. */
function tableOf({ key, headers }: { key: Buffer | null; headers: readonly RecordHeader[] }): Table {
  const table: [string, FieldValue][] = [];
  for (const { key: name, value } of headers) {
    if (name.startsWith(RESERVED) || Buffer.byteLength(name) > HEADER_NAME_BYTES_MAX) continue;
    table.push([name, value === null ? { type: 'V' } : { type: 'S', value }]);
  }
  if (key !== null) table.push([GROUP_HEADER, { type: 'S', value: key }]);
  return table;
}

function withHeader(propertyBytes: Buffer, name: string, field: FieldValue): Buffer {
  const properties = readProperties(new Reader(propertyBytes));
  const others = (properties.headers ?? NO_TABLE).filter(([other]) => other !== name);
  return writeProperties({ ...properties, headers: [...others, [name, field]] });
}

/** Properties without the header BCC, which no consumer may see. */
export function withoutBcc(properties: Properties): Buffer {
  const headers = (properties.headers ?? NO_TABLE).filter(([name]) => name !== 'BCC');
  return writeProperties({ ...properties, headers });
}

/** Routing keys in the headers CC and BCC; `invalid` if one of them is no list of texts. */
export function moreKeys(
  headers: Table,
): { readonly cc: readonly string[]; readonly bcc: readonly string[] } | { invalid: string; type: string } {
  if (headers.length === 0) return NO_MORE_KEYS;
  const keys = { CC: NO_KEYS, BCC: NO_KEYS };
  for (const name of ['CC', 'BCC'] as const) {
    const field = fieldOf(headers, name);
    if (field === undefined) continue;
    if (field.type !== 'A') return { invalid: name, type: erlangType(field) };
    const found: string[] = [];
    for (const each of field.value) {
      if (each.type !== 'S') return { invalid: name, type: erlangType(each) };
      found.push(each.value.toString());
    }
    keys[name] = found;
  }
  return { cc: keys.CC, bcc: keys.BCC };
}

/** Those of CC, of a message that was stored. */
export function ccKeysOf(propertyBytes: Buffer | undefined): readonly string[] {
  if (propertyBytes === undefined) return NO_KEYS;
  const more = moreKeys(readProperties(new Reader(propertyBytes)).headers ?? NO_TABLE);
  return 'invalid' in more ? NO_KEYS : more.cc;
}
