/** Bindings, of exchanges to queues and to exchanges, in all the ways in which the API asks for them. */
import { tableBytes } from '../../protocol/amqp/table.ts';
import type { Binding } from '../amqp/exchanges.ts';
import type { Vhost } from '../amqp/vhost.ts';
import { asUser } from './acting.ts';
import { textField } from './fields.ts';
import { type Fact, listed } from './listing.ts';
import { exchangeName, isVhost, type ManagementParts, shownVhosts, vhostOf } from './parts.ts';
import { parsed } from './rest.ts';
import { badRequest, type Call, Created, notFound, type Resource, type Resources } from './resource.ts';
import { jsonToTable, tableToJson } from './tables.ts';

const BODY_BYTES_MAX = 5000;
const SORTS = { sorts: ['vhost', 'source', 'type', 'destination', 'routing_key', 'properties_key'] };

type Params = Readonly<Record<string, string>>;

export function bindingResources(parts: ManagementParts): Resources {
  const listOf = (select: (vhost: Vhost, params: Params) => Iterable<Binding>): Resource => ({
    allowed: 'vhost',
    exists: isVhost(parts),
    get(call) {
      const facts: Fact[] = [];
      for (const vhost of shownVhosts(parts, call)) {
        for (const binding of select(vhost, call.params)) facts.push(bindingFact(vhost, binding));
      }
      return listed(facts, call.request.query, SORTS);
    },
  });
  return {
    '/bindings': listOf(allBindings),
    '/bindings/:vhost': listOf(allBindings),
    '/exchanges/:vhost/:exchange/bindings/source': listOf((vhost, { exchange }) =>
      [...allBindings(vhost)].filter(({ source }) => source === exchangeName(exchange)),
    ),
    '/exchanges/:vhost/:exchange/bindings/destination': listOf((vhost, { exchange }) =>
      bindingsTo(vhost, 'exchange', exchangeName(exchange)),
    ),
    '/queues/:vhost/:queue/bindings': listOf((vhost, { queue }) => bindingsTo(vhost, 'queue', queue)),
    '/bindings/:vhost/e/:source/:kind/:destination': {
      ...listOf(between),
      // A POST says itself what is missing.
      exists: ({ params, request }) =>
        isKind(params) && (request.method === 'POST' || vhostOf(parts, params['vhost']) !== undefined),
      post: (call) => bind(parts, call),
    },
    '/bindings/:vhost/e/:source/:kind/:destination/:key': {
      allowed: 'vhost',
      exists: ({ params }) => one(parts, params) !== undefined,
      get({ params }) {
        const found = one(parts, params);
        return found && bindingFact(found.vhost, found.binding);
      },
      async remove(call) {
        const found = one(parts, call.params);
        if (found === undefined) return;
        const { source, destination, destinationKind, routingKey, arguments: table } = found.binding;
        await asUser(parts, { call, vhost: found.vhost.name, style: 'short' }, (client) =>
          client.call(
            destinationKind === 'queue'
              ? { method: 'queue.unbind', queue: destination, exchange: source, routingKey, arguments: table }
              : { method: 'exchange.unbind', destination, source, routingKey, arguments: table },
          ),
        );
      },
    },
  };
}

function between(vhost: Vhost, params: Params): readonly Binding[] {
  const source = exchangeName(params['source']);
  return bindingsTo(vhost, kindOf(params), destinationOf(params)).filter((binding) => binding.source === source);
}

function bindingsTo(vhost: Vhost, kind: Binding['destinationKind'], destination: string): readonly Binding[] {
  const bindings = vhost.exchanges.bindingsTo(kind, destination);
  if (kind === 'exchange' || vhost.find(destination) === undefined) return bindings;
  return [defaultBinding(destination), ...bindings];
}

const isKind = ({ kind }: Params): boolean => kind === 'q' || kind === 'e';
const kindOf = ({ kind }: Params): Binding['destinationKind'] => (kind === 'e' ? 'exchange' : 'queue');
const destinationOf = (params: Params): string =>
  params['kind'] === 'e' ? exchangeName(params['destination']) : params['destination'];

async function bind(parts: ManagementParts, call: Call): Promise<Created> {
  const { params, request } = call;
  if (vhostOf(parts, params['vhost']) === undefined) throw notFound('vhost_not_found');
  const bytes = await request.body(BODY_BYTES_MAX).catch(() => {
    throw badRequest('Payload size limit exceeded');
  });
  const body = parsed(bytes);
  const routingKey = textField(body, 'routing_key');
  const table = jsonToTable(body['arguments']);
  const source = exchangeName(params['source']);
  const destination = destinationOf(params);
  await asUser(parts, { call, vhost: params['vhost'], style: 'short' }, (client) =>
    client.call(
      kindOf(params) === 'queue'
        ? { method: 'queue.bind', queue: destination, exchange: source, routingKey, arguments: table }
        : { method: 'exchange.bind', destination, source, routingKey, arguments: table },
    ),
  );
  const key = propertiesKey({ routingKey, arguments: table });
  return new Created(`${quoted(params['destination'])}/${quoted(key).replaceAll('%7E', '~')}`);
}

function one(parts: ManagementParts, params: Params): { vhost: Vhost; binding: Binding } | undefined {
  const vhost = vhostOf(parts, params['vhost']);
  if (vhost === undefined || !isKind(params)) return undefined;
  const [first, second] = params['key'].split('~', 2);
  // '~' alone is the empty key without arguments, '~HASH' the empty key with some.
  const routingKey = unquoted(first);
  const hash = second === undefined || second === '' ? '' : unquoted(second);
  for (const binding of between(vhost, params)) {
    if (binding.routingKey === routingKey && argumentsHash(binding) === hash) return { vhost, binding };
  }
  return undefined;
}

/** Those of the default exchange, too, which binds every queue under its name. */
function* allBindings(vhost: Vhost): IterableIterator<Binding> {
  for (const { name } of vhost.queues()) yield defaultBinding(name);
  yield* vhost.exchanges.bindings();
}

const defaultBinding = (queue: string): Binding => ({
  source: '',
  destination: queue,
  destinationKind: 'queue',
  routingKey: queue,
  arguments: [],
});

function bindingFact(vhost: Vhost, binding: Binding): Fact {
  const { source, destination, destinationKind, routingKey, arguments: table } = binding;
  return {
    source,
    vhost: vhost.name,
    destination,
    destination_type: destinationKind,
    routing_key: routingKey,
    arguments: tableToJson(table),
    properties_key: propertiesKey(binding),
  };
}

/** What a binding is called in paths: its key and, if it has arguments, a hash of them. */
function propertiesKey(binding: Pick<Binding, 'routingKey' | 'arguments'>): string {
  const { routingKey, arguments: table } = binding;
  if (table.length === 0) return routingKey === '' ? '~' : quoted(routingKey);
  return `${quoted(routingKey)}~${quoted(argumentsHash(binding))}`;
}

/** Empty without arguments. Only compared with what this made before, so it need not be RabbitMQ's. */
function argumentsHash({ arguments: table }: Pick<Binding, 'arguments'>): string {
  if (table.length === 0) return '';
  const sorted = [...table].sort(([one], [other]) => (one < other ? -1 : one > other ? 1 : 0));
  let hash = 0x811c9dc5;
  for (const byte of tableBytes(sorted)) hash = Math.imul(hash ^ byte, 0x01000193);
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(hash >>> 0);
  return bytes.toString('base64url');
}

function quoted(text: string): string {
  return encodeURIComponent(text)
    .replace(/[!'()*~]/g, (char) => `%${char.charCodeAt(0).toString(16).toUpperCase()}`)
    .replaceAll('%20', '+');
}

function unquoted(text: string): string {
  try {
    return decodeURIComponent(text.replaceAll('+', ' '));
  } catch {
    return text;
  }
}
