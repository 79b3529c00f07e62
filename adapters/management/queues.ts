/** Queues: lists, single ones, declaring, deleting and purging. */
import { queueType } from '../amqp/queue-arguments.ts';
import { asUser } from './acting.ts';
import { consumerIndex } from './connections.ts';
import { textField, truthField } from './fields.ts';
import { type LazyFact, listedLazily } from './listing.ts';
import { isQueue, isVhost, type ManagementParts, queueOf, shownVhosts, vhostOf } from './parts.ts';
import { type Detail, lazyQueue, queueFact } from './queue-facts.ts';
import { badRequest, notFound, type Resource, type Resources } from './resource.ts';
import { jsonToTable } from './tables.ts';

export function queueResources(parts: ManagementParts): Resources {
  const list = (detail: Detail): Resource => ({
    allowed: 'vhost',
    exists: isVhost(parts),
    get(call) {
      const { query } = call.request;
      const consumers = consumerIndex(parts);
      const facts: LazyFact[] = [];
      for (const vhost of shownVhosts(parts, call)) {
        for (const queue of vhost.queues()) facts.push(lazyQueue(parts, { vhost, queue, query, detail, consumers }));
      }
      return listedLazily(facts, query, { sorts: ['vhost', 'name'], pause: parts.pause });
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
        const consumers = consumerIndex(parts);
        return queueFact(parts, { vhost, queue, query: request.query, detail: 'full', consumers });
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
