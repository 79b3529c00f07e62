/**
 * One queue as the API shows it. RabbitMQ has other fields for each type of queue; counts are the queue's, whatever door its
 * messages came in by, and `message_stats` is AMQP's.
 */
import { queueType } from '../amqp/queue-arguments.ts';
import { readyCount } from '../amqp/streams.ts';
import type { AmqpQueue, Vhost } from '../amqp/vhost.ts';
import { type ConsumerIndex, connectionDetails, consumerFact, isActive } from './connections.ts';
import type { Fact, LazyFact } from './listing.ts';
import { GARBAGE_COLLECTION, type ManagementParts, policyNames, timeText } from './parts.ts';
import type { Reading } from './rates.ts';
import { deliverReading, lengthReading, messageStats, withRates } from './stats.ts';
import { tableToJson } from './tables.ts';

/** Lists show less than single queues do. */
export type Detail = 'basic' | 'detailed' | 'full';

export interface Shown {
  readonly vhost: Vhost;
  readonly queue: AmqpQueue;
  readonly query: URLSearchParams;
  readonly detail: Detail;
  readonly consumers: ConsumerIndex;
}

/** For lists. */
export function lazyQueue(parts: ManagementParts, shown: Shown): LazyFact {
  return { plain: plainFact(parts, shown.vhost, shown.queue), whole: () => queueFact(parts, shown) };
}

export function queueFact(parts: ManagementParts, shown: Shown): Fact {
  const { vhost, queue, query, detail } = shown;
  const plain = plainFact(parts, vhost, queue);
  if (query.get('disable_stats') === 'true') {
    const policy = policyNames(parts, subjectOf(vhost, queue));
    if (query.get('enable_queue_totals') !== 'true') return { ...plain, ...policy };
    return { online: null, ...plain, ...policy, ...queueLengths(queue) };
  }
  const isDetailed = detail !== 'basic' || query.has('columns');
  return {
    ...plain,
    ...statsFact(parts, shown),
    ...(isDetailed ? detailFact(parts, shown) : {}),
    ...(detail === 'full' ? fullFact(parts, shown) : {}),
  };
}

type QueueType = 'classic' | 'quorum' | 'stream';
// Every queue that is there has one of them.
const typeOf = ({ arguments: table }: AmqpQueue): QueueType => queueType(table) as QueueType;

const subjectOf = (vhost: Vhost, queue: AmqpQueue) =>
  ({ vhost: vhost.name, name: queue.name, kind: 'queue', type: typeOf(queue) }) as const;

function plainFact({ nodeName }: ManagementParts, vhost: Vhost, queue: AmqpQueue): Fact {
  const type = typeOf(queue);
  return {
    name: queue.name,
    vhost: vhost.name,
    durable: queue.isDurable && !queue.isExclusive,
    auto_delete: queue.isAutoDelete,
    exclusive: queue.isExclusive,
    arguments: shownArguments(queue),
    type,
    state: 'running',
    node: nodeName,
    ...(type === 'classic' ? {} : { leader: nodeName, members: [nodeName], online: [nodeName] }),
  };
}

/** With the type, which RabbitMQ adds to every queue that is declared without one. */
export function shownArguments(queue: AmqpQueue): Fact {
  return { ...tableToJson(queue.arguments), 'x-queue-type': typeOf(queue) };
}

/** Delayed messages and those behind a locked group are ready as RabbitMQ would have them: nobody holds them. */
export function queueLengths(amqpQueue: AmqpQueue): Reading {
  const { queue } = amqpQueue;
  if (queue.kind === 'stream') return lengthReading(readyCount(amqpQueue), 0);
  const { ready, inFlight, delayed, blocked } = queue.counts();
  return lengthReading(ready + delayed + blocked, inFlight);
}

export const queueReading = (queue: AmqpQueue): Reading => ({
  ...queueLengths(queue),
  publish: queue.counters.publish,
  ...deliverReading(queue.counters),
});

function statsFact(parts: ManagementParts, { vhost, queue, consumers }: Shown): Fact {
  const rates = parts.rates.of(queue);
  const { counters } = queue;
  const lengths = queueLengths(queue);
  const type = typeOf(queue);
  const readers = consumers.get(queue)?.length ?? 0;
  const common = {
    ...withRates(lengths, rates),
    ...withRates({ reductions: 0 }, {}),
    ...messageStats([{ publish: counters.publish }, deliverReading(counters)], rates),
    memory: 0,
    ...policyNames(parts, subjectOf(vhost, queue)),
    effective_policy_definition: parts.directory.policies.effective(subjectOf(vhost, queue)).definition,
  };
  if (type === 'stream') {
    const segments = queue.queue.topic.partitions.length;
    return { ...common, consumers: readers, readers: { [parts.nodeName]: readers }, segments };
  }
  const { consumerCount } = queue.queue;
  const capacity = consumerCount === 0 ? 0 : takingConsumers(queue) / consumerCount;
  const bytes = averageBytes(queue);
  const ofMessages = {
    ...common,
    consumers: consumerCount,
    consumer_capacity: capacity,
    consumer_utilisation: capacity,
    message_bytes: lengths['messages'] * bytes,
    message_bytes_ready: lengths['messages_ready'] * bytes,
    message_bytes_unacknowledged: lengths['messages_unacknowledged'] * bytes,
    message_bytes_persistent: lengths['messages'] * bytes,
    message_bytes_ram: 0,
    messages_persistent: lengths['messages'],
    messages_ram: 0,
  };
  if (type === 'classic') {
    return {
      ...ofMessages,
      message_bytes_paged_out: 0,
      messages_paged_out: 0,
      messages_ready_ram: 0,
      messages_unacknowledged_ram: 0,
      storage_version: 2,
    };
  }
  const active = activeTag(queue, consumers);
  return {
    ...ofMessages,
    delivery_limit: queue.queue.settings['failed.limit'],
    message_bytes_dlx: 0,
    messages_dlx: 0,
    messages_ready_high: 0,
    messages_ready_normal: lengths['messages_ready'],
    messages_ready_returned: 0,
    open_files: { [parts.nodeName]: 0 },
    publishers: 0,
    ...(active === undefined ? {} : { single_active_consumer_tag: active }),
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

/** Of the consumer that a single-active queue serves; a quorum queue names its only consumer so, too. */
function activeTag(queue: AmqpQueue, consumers: ConsumerIndex): string | undefined {
  const all = consumers.get(queue) ?? [];
  const isSingle = queue.queue.settings['single.active.consumer'];
  if (isSingle) return all.find(({ subscription }) => isActive(subscription))?.subscription.tag;
  return typeOf(queue) === 'quorum' && all.length === 1 ? all[0].subscription.tag : undefined;
}

function detailFact(parts: ManagementParts, { vhost, queue, consumers }: Shown): Fact {
  const type = typeOf(queue);
  const policy = policyNames(parts, subjectOf(vhost, queue));
  const idleSinceMs = parts.rates.idleSinceMs(queue);
  const exclusive = consumers.get(queue)?.find(({ subscription }) => subscription.isExclusive);
  return {
    garbage_collection: GARBAGE_COLLECTION,
    policy: policy['policy'] ?? null,
    operator_policy: policy['operator_policy'] ?? null,
    ...(type === 'stream' ? {} : { single_active_consumer_tag: activeTag(queue, consumers) ?? null }),
    ...(type === 'classic'
      ? { exclusive_consumer_tag: exclusive?.subscription.tag ?? null, head_message_timestamp: null }
      : {}),
    ...(idleSinceMs === undefined ? {} : { idle_since: timeText(idleSinceMs) }),
  };
}

function fullFact(parts: ManagementParts, { queue, consumers }: Shown): Fact {
  const owner = [...parts.amqp.connections].find((connection) => connection === queue.owner);
  return {
    consumer_details: (consumers.get(queue) ?? []).map((each) => consumerFact(parts, each)),
    incoming: [],
    deliveries: [],
    ...(owner === undefined ? {} : { owner_pid_details: connectionDetails(owner) }),
  };
}
