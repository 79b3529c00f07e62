/** Exchanges: lists, single ones, declaring and deleting. */
import type { Exchange } from '../amqp/exchanges.ts';
import type { Vhost } from '../amqp/vhost.ts';
import { asUser } from './acting.ts';
import { textField, truthField } from './fields.ts';
import { type Fact, listed } from './listing.ts';
import {
  exchangeName,
  INTERNAL_USER,
  isExchange,
  isVhost,
  type ManagementParts,
  policyNames,
  shownVhosts,
  vhostOf,
} from './parts.ts';
import type { Reading } from './rates.ts';
import { notFound, type Resource, type Resources } from './resource.ts';
import { messageStats } from './stats.ts';
import { jsonToTable, tableToJson } from './tables.ts';

export function exchangeResources(parts: ManagementParts): Resources {
  const list: Resource = {
    allowed: 'vhost',
    exists: isVhost(parts),
    get(call) {
      const facts: Fact[] = [];
      for (const vhost of shownVhosts(parts, call)) {
        for (const exchange of vhost.exchanges.all()) facts.push(exchangeFact(parts, vhost, exchange));
      }
      return listed(facts, call.request.query, { sorts: ['vhost', 'name'], isPaged: true });
    },
  };
  return {
    '/exchanges': list,
    '/exchanges/:vhost': list,
    '/exchanges/:vhost/:exchange': {
      allowed: 'vhost',
      exists: ({ params }) => isExchange(parts, params),
      get({ params }) {
        const vhost = vhostOf(parts, params['vhost']);
        const exchange = vhost?.exchanges.get(exchangeName(params['exchange']));
        if (vhost === undefined || exchange === undefined) return undefined;
        return { ...exchangeFact(parts, vhost, exchange), incoming: [], outgoing: [] };
      },
      async put(call) {
        const { vhost, exchange } = call.params;
        if (vhostOf(parts, vhost) === undefined) throw notFound('vhost_not_found');
        const body = await call.json();
        const method = {
          method: 'exchange.declare',
          exchange: exchangeName(exchange),
          type: textField(body, 'type', 'direct'),
          durable: truthField(body, 'durable'),
          autoDelete: truthField(body, 'auto_delete'),
          internal: truthField(body, 'internal'),
          arguments: jsonToTable(body['arguments']),
        } as const;
        await asUser(parts, { call, vhost, style: 'short' }, (client) => client.call(method));
      },
      async remove(call) {
        const { vhost, exchange } = call.params;
        const ifUnused = call.request.query.get('if-unused') === 'true';
        const method = { method: 'exchange.delete', exchange: exchangeName(exchange), ifUnused } as const;
        await asUser(parts, { call, vhost, style: 'short' }, (client) => client.call(method));
      },
    },
  };
}

export function exchangeReading(vhost: Vhost, { name }: Exchange): Reading {
  const { publishIn = 0, publishOut = 0 } = vhost.exchanges.counters(name) ?? {};
  return { publish_in: publishIn, publish_out: publishOut };
}

function exchangeFact(parts: ManagementParts, vhost: Vhost, exchange: Exchange): Fact {
  const { name, type, isDurable, isAutoDelete, isInternal, arguments: table } = exchange;
  return {
    name,
    vhost: vhost.name,
    type,
    durable: isDurable,
    auto_delete: isAutoDelete,
    internal: isInternal,
    arguments: tableToJson(table),
    ...policyNames(parts, { vhost: vhost.name, name, kind: 'exchange' }),
    user_who_performed_action: INTERNAL_USER,
    ...messageStats([exchangeReading(vhost, exchange)], parts.rates.of(exchange)),
  };
}
