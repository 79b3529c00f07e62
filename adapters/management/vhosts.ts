/** Virtual hosts: what is said of them, and the sums of what is in them. */
import type { VhostFacts } from '../../broker/directory-state.ts';
import type { MessageCounters } from '../amqp/counters.ts';
import { isMonitor, visibleVhosts } from './authorize.ts';
import { tagsField, textField } from './fields.ts';
import { type Fact, listed } from './listing.ts';
import { clientConnections, isVhost, type ManagementParts, vhostOf } from './parts.ts';
import { queueLengths } from './queue-facts.ts';
import type { Reading } from './rates.ts';
import type { Resources } from './resource.ts';
import { deliverReading, lengthReading, messageReading, messageStats, publishReading, withRates } from './stats.ts';

export function vhostResources(parts: ManagementParts): Resources {
  const { vhosts } = parts.directory;
  return {
    '/vhosts': {
      allowed: 'user',
      get({ user, request }) {
        const seen = visibleVhosts(user, parts.directory, isMonitor(user));
        const shown = vhosts.list().filter(({ name }) => seen.has(name));
        // Which fields are shown cannot be chosen here.
        const query = new URLSearchParams(request.query);
        query.delete('columns');
        return listed(
          shown.map((vhost) => vhostFact(parts, vhost, request.query)),
          query,
          { sorts: ['name'], isPaged: true },
        );
      },
    },
    '/vhosts/:vhost': {
      allowed: 'admin',
      exists: isVhost(parts),
      get({ params, request }) {
        const vhost = vhosts.get(params['vhost']);
        return vhost && vhostFact(parts, vhost, request.query);
      },
      async put(call) {
        const name = call.params['vhost'];
        await putVhost(parts, { ...(await call.json()), name }, call.user.name);
      },
      async remove({ params }) {
        await vhosts.delete(params['vhost']);
      },
    },
    '/vhosts/:vhost/start/:node': { allowed: 'admin', exists: isVhost(parts), post: async () => undefined },
  };
}

/** A vhost as a PUT or a definitions file tells of one. Who makes it may use it. */
export async function putVhost({ directory }: ManagementParts, body: Fact, user: string): Promise<void> {
  const name = textField(body, 'name');
  const queueType = body['default_queue_type'] ?? body['defaultqueuetype'];
  const isNew = await directory.vhosts.put(name, {
    description: textField(body, 'description'),
    tags: tagsField(body['tags']),
    // 'undefined' is what older versions export where nothing was said.
    ...(queueType === undefined || queueType === null || queueType === 'undefined'
      ? {}
      : { defaultQueueType: textField({ queueType }, 'queueType') }),
  });
  if (isNew) await directory.users.permit({ user, vhost: name, configure: '.*', write: '.*', read: '.*' });
}

/** What a definitions file has of a vhost, too. */
export function describedVhost({ name, description, tags, defaultQueueType }: VhostFacts): Fact {
  const type = defaultQueueType === '' ? 'classic' : defaultQueueType;
  return {
    name,
    description,
    tags,
    default_queue_type: type,
    metadata: { description, tags, default_queue_type: type },
  };
}

function vhostFact(parts: ManagementParts, vhost: VhostFacts, query: URLSearchParams): Fact {
  const fact = { ...describedVhost(vhost), tracing: false, cluster_state: { [parts.nodeName]: 'running' } };
  if (query.get('disable_stats') === 'true') return fact;
  const rates = parts.rates.of(vhostOf(parts, vhost.name) ?? vhost);
  const { counters, lengths, octets } = vhostSums(parts, vhost.name);
  return {
    ...fact,
    ...withRates(lengths, rates),
    ...withRates(octets, rates),
    ...messageStats([publishReading(counters), deliverReading(counters)], rates),
  };
}

export function vhostReading(parts: ManagementParts, name: string): Reading {
  const { counters, lengths, octets } = vhostSums(parts, name);
  return { ...lengths, ...octets, ...messageReading(counters) };
}

export interface VhostSums {
  readonly counters: MessageCounters;
  readonly lengths: Reading;
  /** Of the connections that are there. */
  readonly octets: Reading;
}

/** Over its queues, and over the channels that are there and were. */
export function vhostSums(parts: ManagementParts, name: string): VhostSums {
  let ready = 0;
  let unacknowledged = 0;
  for (const queue of vhostOf(parts, name)?.queues() ?? []) {
    const lengths = queueLengths(queue);
    ready += lengths['messages_ready'];
    unacknowledged += lengths['messages_unacknowledged'];
  }
  const octets = { recv_oct: 0, send_oct: 0 };
  for (const connection of clientConnections(parts)) {
    if (connection.vhostName !== name) continue;
    octets.recv_oct += connection.receivedBytes;
    octets.send_oct += connection.sentBytes;
  }
  return { counters: parts.amqp.counters(name), lengths: lengthReading(ready, unacknowledged), octets };
}
