/** Queues: lists, single ones, declaring, deleting and purging. Counts are of all doors, rates of AMQP's. */
import type { AmqpQueue, Vhost } from '../amqp/vhost.ts';
import { queueType } from '../amqp/queue-arguments.ts';
import { asUser } from './acting.ts';
import { visibleVhosts } from './authorize.ts';
import { consumersOf } from './connections.ts';
import { textField, truthField } from './fields.ts';
import { type LazyFact, listedLazily } from './listing.ts';
import {
  GARBAGE_COLLECTION,
  isQueue,
  type ManagementParts,
  policyNames,
  queueOf,
  timeText,
  vhostOf,
  vhostsOf,
} from './parts.ts';
import type { Reading } from './rates.ts';
import { badRequest, notFound, type Resource, type Resources } from './resource.ts';
import { deliverReading, lengthReading, messageStats, withRates } from './stats.ts';
import { jsonToTable, tableToJson } from './tables.ts';

type Detail = 'basic' | 'detailed' | 'full';

export function queueResources(parts: ManagementParts): Resources {
  const list = (detail: Detail): Resource => ({
    allowed: 'vhost',
    exists: ({ params }) => params['vhost'] === undefined || vhostOf(parts, params['vhost']) !== undefined,
    get({ params, request, user }) {
      const { query } = request;
      const seen = visibleVhosts(user, parts.directory);
      const facts: Fact[] = [];
      for (const vhost of vhostsOf(parts, params['vhost'])) {
        if (!seen.has(vhost.name)) continue;
        for (const queue of vhost.queues()) facts.push(listedFact(parts, { vhost, queue, query, detail }));
      }
      return listed(facts, query, { sorts: ['vhost', 'name'], isPaged: true });
    },
  });
  return {
    '/queues': list('basic'),
    '/queues/detailed': list('detailed'),
    '/queues/:vhost': list('basic'),
    '/queues/:vhost/:queue': {
      allowed: 'vhost',
      exists: ({ params }) => isQueue(parts, params),
      get({ params, request }) {
        const vhost = vhostOf(parts, params['vhost']);
        const queue = vhost?.find(params['queue']);
        if (vhost === undefined || queue === undefined) return undefined;
        return listedFact(parts, { vhost, queue, query: request.query, detail: 'full' });
      },
      async put(call) {
        const { vhost, queue } = call.params;
        if (Buffer.byteLength(queue) > 255) {
          throw badRequest(`queue should be less than 255 bytes, actually was ${Buffer.byteLength(queue)}\n`);
        }
        if (vhostOf(parts, vhost) === undefined) throw notFound('vhost_not_found');
        const body = await call.json();
        textField(body, 'node');
        const method = {
          method: 'queue.declare',
          queue,
          durable: truthField(body, 'durable'),
          autoDelete: truthField(body, 'auto_delete'),
          arguments: jsonToTable(body['arguments']),
        } as const;
        await asUser(parts, { call, vhost, style: 'short' }, (client) => client.call(method));
      },
      async remove(call) {
        const { vhost, queue } = call.params;
        const { query } = call.request;
        const [ifUnused, ifEmpty] = ['if-unused', 'if-empty'].map((name) => query.get(name) === 'true');
        const method = { method: 'queue.delete', queue, ifUnused, ifEmpty } as const;
        await asUser(parts, { call, vhost, style: 'short' }, (client) => client.call(method));
      },
    },
    '/queues/:vhost/:queue/contents': {
      allowed: 'vhost',
      exists: ({ params }) => isQueue(parts, params),
      async remove(call) {
        const { vhost, queue } = call.params;
        await asUser(parts, { call, vhost, style: 'short' }, (client) => client.call({ method: 'queue.purge', queue }));
      },
    },
    '/queues/:vhost/:queue/actions': {
      allowed: 'admin',
      exists: ({ params }) => isQueue(parts, params),
      missing: 'queue_not_found',
      async post(call) {
        const { action } = await call.json(['action']);
        throw badRequest(['unknown', action]);
      },
    },
    '/queues/quorum/:vhost/:queue/status': {
      allowed: 'monitor',
      exists: ({ params }) => isQueue(parts, params),
      get({ params }) {
        const queue = queueOf(parts, params);
        if (queue === undefined || queueType(queue.arguments) !== 'quorum') return undefined;
        return [{ 'Node Name': parts.nodeName, 'Raft State': 'leader', Membership: 'voter', Term: 1 }];
      },
    },
  };
}

interface Shown {
  readonly vhost: Vhost;
  readonly queue: AmqpQueue;
  readonly query: URLSearchParams;
  readonly detail: Detail;
}

function listedFact(parts: ManagementParts, { vhost, queue, query, detail }: Shown): Fact {
  const plain = plainFact(parts, vhost, queue);
  if (query.get('disable_stats') === 'true') {
    const policy = policyNames(parts, subjectOf(vhost, queue));
    if (query.get('enable_queue_totals') !== 'true') return { ...plain, ...policy };
    return { online: null, ...plain, ...policy, ...queueLengths(queue) };
  }
  const isDetailed = detail !== 'basic' || query.has('columns');
  return {
    ...plain,
    ...statsFact(parts, vhost, queue),
    ...(isDetailed ? detailFact(parts, vhost, queue) : {}),
    ...(detail === 'full' ? fullFact(parts, queue) : {}),
  };
}

function plainFact(parts: ManagementParts, vhost: Vhost, queue: AmqpQueue): Fact {
  const { name, isDurable, isAutoDelete, isExclusive, arguments: table } = queue;
  const type = queueType(table);
  return {
    name,
    vhost: vhost.name,
    durable: isDurable,
    auto_delete: isAutoDelete,
    exclusive: isExclusive,
    arguments: shownArguments(queue),
    type,
    state: 'running',
    node: parts.nodeName,
    ...(type === 'classic' ? {} : { leader: parts.nodeName, members: [parts.nodeName], online: [parts.nodeName] }),
  };
}

/** With the type, which RabbitMQ adds to every queue that is declared without one. */
export function shownArguments({ arguments: table }: AmqpQueue): Fact {
  return { ...tableToJson(table), 'x-queue-type': queueType(table) };
}

const subjectOf = (vhost: Vhost, { name, arguments: table }: AmqpQueue) =>
  ({ vhost: vhost.name, name, kind: 'queue', type: queueType(table) as 'classic' | 'quorum' | 'stream' }) as const;

/** Delayed messages and those behind a locked group are ready as RabbitMQ would have them: nobody holds them. */
export function queueLengths({ queue }: AmqpQueue): Reading {
  const { ready, inFlight, delayed, blocked } = queue.counts();
  return lengthReading(ready + delayed + blocked, inFlight);
}

export const queueReading = (queue: AmqpQueue): Reading => ({
  ...queueLengths(queue),
  publish: queue.counters.publish,
  ...deliverReading(queue.counters),
});

function statsFact(parts: ManagementParts, vhost: Vhost, queue: AmqpQueue): Fact {
  const rates = parts.rates.of(queue);
  const { counters } = queue;
  const lengths = queueLengths(queue);
  const bytes = averageBytes(queue);
  const { consumerCount } = queue.queue;
  const capacity = consumerCount === 0 ? 0 : takingConsumers(queue) / consumerCount;
  return {
    ...withRates(lengths, rates),
    ...withRates({ reductions: 0 }, {}),
    ...messageStats([{ publish: counters.publish }, deliverReading(counters)], rates),
    consumers: consumerCount,
    consumer_capacity: capacity,
    consumer_utilisation: capacity,
    memory: 0,
    message_bytes: lengths['messages'] * bytes,
    message_bytes_ready: lengths['messages_ready'] * bytes,
    message_bytes_unacknowledged: lengths['messages_unacknowledged'] * bytes,
    message_bytes_persistent: lengths['messages'] * bytes,
    message_bytes_ram: 0,
    message_bytes_paged_out: 0,
    messages_persistent: lengths['messages'],
    messages_ram: 0,
    messages_ready_ram: 0,
    messages_unacknowledged_ram: 0,
    messages_paged_out: 0,
    ...policyNames(parts, subjectOf(vhost, queue)),
    effective_policy_definition: parts.directory.policies.effective(subjectOf(vhost, queue)).definition,
    storage_version: 2,
  };
}

/** Roughly, by the size of the log. */
function averageBytes({ queue }: AmqpQueue): number {
  let bytes = 0;
  let messages = 0;
  for (const { sizeBytes, startOffset, highWatermark } of queue.topic.partitions) {
    bytes += sizeBytes;
    messages += highWatermark - startOffset;
  }
  return messages === 0 ? 0 : Math.round(bytes / messages);
}

function takingConsumers({ queue }: AmqpQueue): number {
  let count = 0;
  for (const { wanted } of queue.joined) if (wanted > 0) count++;
  return count;
}

function detailFact(parts: ManagementParts, vhost: Vhost, queue: AmqpQueue): Fact {
  const policy = policyNames(parts, subjectOf(vhost, queue));
  const idleSinceMs = parts.rates.idleSinceMs(queue);
  return {
    garbage_collection: GARBAGE_COLLECTION,
    exclusive_consumer_tag: null,
    single_active_consumer_tag: null,
    head_message_timestamp: null,
    policy: policy['policy'] ?? null,
    operator_policy: policy['operator_policy'] ?? null,
    ...(idleSinceMs === undefined ? {} : { idle_since: timeText(idleSinceMs) }),
  };
}

function fullFact(parts: ManagementParts, queue: AmqpQueue): Fact {
  return { consumer_details: consumersOf(parts, queue), incoming: [], deliveries: [] };
}
