/** Messages in and out over HTTP: `exchanges/…/publish` and `queues/…/get`. */
import { readProperties, type Properties } from '../../protocol/amqp/properties.ts';
import { Reader } from '../../protocol/bytes.ts';
import { asUser } from './acting.ts';
import type { DirectClient } from './direct-client.ts';
import { objectField, textField, wholeField } from './fields.ts';
import type { Fact } from './listing.ts';
import { exchangeName, isExchange, isQueue, type ManagementParts } from './parts.ts';
import { ApiError, badRequest, type Call, type Resources } from './resource.ts';
import { jsonToTable, tableToJson } from './tables.ts';

const ACK_MODES = ['ack_requeue_true', 'ack_requeue_false', 'reject_requeue_true', 'reject_requeue_false'];

export function messageResources(parts: ManagementParts): Resources {
  return {
    '/exchanges/:vhost/:exchange/publish': {
      allowed: 'vhost',
      exists: ({ params }) => isExchange(parts, params),
      missing: 'exchange_not_found',
      post: (call) => publish(parts, call),
    },
    '/queues/:vhost/:queue/get': {
      allowed: 'vhost',
      exists: ({ params }) => isQueue(parts, params),
      missing: 'queue_not_found',
      post: (call) => get(parts, call),
    },
  };
}

async function publish(parts: ManagementParts, call: Call): Promise<Fact> {
  const body = await call.json(['routing_key', 'properties', 'payload', 'payload_encoding']);
  const { payload, payload_encoding: encoding } = body;
  if (typeof payload !== 'string') throw badRequest('payload_not_string');
  // A publish would wait for them to end.
  if (parts.amqp.alarms.length > 0) {
    throw new ApiError(503, 'service_unavailable', `the broker is low on ${parts.amqp.alarms.join(' and ')}`);
  }
  const properties = propertiesOf(objectField(body, 'properties'));
  const to = { exchange: exchangeName(call.params['exchange']), routingKey: textField(body, 'routing_key') };
  return asUser(parts, { call, vhost: call.params['vhost'], style: 'published' }, async (client) => {
    const { isConfirmed, isRouted } = await client.publish(to, properties, decoded(payload, encoding));
    if (!isConfirmed) throw badRequest('rejected Unable to publish message. Check queue limits.');
    return { routed: isRouted };
  });
}

function decoded(payload: string, encoding: unknown): Buffer {
  if (encoding === 'string') return Buffer.from(payload);
  if (encoding !== 'base64') throw badRequest(['unsupported_encoding', encoding]);
  if (!/^[A-Za-z0-9+/\s]*={0,2}\s*$/.test(payload)) throw badRequest(['not_base64', payload]);
  return Buffer.from(payload, 'base64');
}

async function get(parts: ManagementParts, call: Call): Promise<Fact[]> {
  const body = await call.json(['ackmode', 'count', 'encoding']);
  const { ackmode, encoding } = body;
  const count = wholeField(body, 'count');
  if (!ACK_MODES.includes(String(ackmode))) throw badRequest(['unknown_ackmode', ackmode]);
  if (encoding !== 'auto' && encoding !== 'base64') {
    throw badRequest('Unsupported encoding. Please use auto or base64.');
  }
  const bytesMax = body['truncate'] === undefined ? Number.MAX_SAFE_INTEGER : wholeField(body, 'truncate');
  const { vhost, queue } = call.params;
  return asUser(parts, { call, vhost, style: 'coded' }, async (client) => {
    const facts: Fact[] = [];
    const tags: number[] = [];
    while (facts.length < count) {
      const got = await next(client, queue, ackmode === 'ack_requeue_false');
      if (got === undefined) break;
      tags.push(got.tag);
      facts.push({ ...got.fact, ...payloadOf(got.body.subarray(0, bytesMax), encoding) });
    }
    if (ackmode !== 'ack_requeue_false') {
      const requeue = ackmode !== 'reject_requeue_false';
      for (const deliveryTag of tags) client.tell({ method: 'basic.reject', deliveryTag, requeue });
    }
    return facts;
  });
}

async function next(
  client: DirectClient,
  queue: string,
  noAck: boolean,
): Promise<{ tag: number; fact: Fact; body: Buffer } | undefined> {
  const { method, properties, body } = await client.call({ method: 'basic.get', queue, noAck });
  if (method.method !== 'basic.get-ok') return undefined;
  const { deliveryTag, redelivered, exchange, routingKey, messageCount } = method;
  const fact = {
    payload_bytes: body.length,
    redelivered,
    exchange,
    routing_key: routingKey,
    message_count: messageCount,
    properties: propertiesFact(readProperties(new Reader(properties))),
  };
  return { tag: deliveryTag, fact, body };
}

function payloadOf(body: Buffer, encoding: 'auto' | 'base64'): Fact {
  if (encoding === 'auto') {
    const text = body.toString();
    if (Buffer.from(text).equals(body)) return { payload: text, payload_encoding: 'string' };
  }
  return { payload: body.toString('base64'), payload_encoding: 'base64' };
}

const NAMES = [
  ['content_type', 'contentType'],
  ['content_encoding', 'contentEncoding'],
  ['correlation_id', 'correlationId'],
  ['reply_to', 'replyTo'],
  ['expiration', 'expiration'],
  ['message_id', 'messageId'],
  ['type', 'type'],
  ['user_id', 'userId'],
  ['app_id', 'appId'],
  ['cluster_id', 'clusterId'],
] as const;
const NUMBERS = [
  ['delivery_mode', 'deliveryMode'],
  ['priority', 'priority'],
  ['timestamp', 'timestamp'],
] as const;

/** An empty list if there are none: Erlang's JSON cannot tell. */
function propertiesFact(properties: Properties): Fact | readonly [] {
  const fact: Record<string, unknown> = {};
  for (const [name, key] of [...NAMES, ...NUMBERS]) {
    const value = properties[key];
    if (value !== undefined) fact[name] = typeof value === 'bigint' ? Number(value) : value;
  }
  if (properties.headers !== undefined) fact['headers'] = tableToJson(properties.headers);
  return Object.keys(fact).length === 0 ? [] : fact;
}

function propertiesOf(body: Fact): Properties {
  const properties: Record<string, unknown> = {};
  for (const [name, key] of NAMES) {
    const value = body[name];
    if (value === undefined) continue;
    if (typeof value !== 'string') throw badRequest(['not_string', name]);
    properties[key] = value;
  }
  for (const [name, key] of NUMBERS) {
    const value = body[name];
    if (value === undefined) continue;
    if (typeof value !== 'number' || !Number.isSafeInteger(value) || value < 0) throw badRequest(['not_int', name]);
    properties[key] = value;
  }
  if (body['headers'] !== undefined) properties['headers'] = jsonToTable(body['headers']);
  // Every field was checked above.
  return properties as Properties;
}
