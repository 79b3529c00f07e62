/** Connections of AMQP clients, their channels and consumers: lists, single ones, and closing by force. */
import type { Channel } from '../amqp/channel.ts';
import type { AmqpConnection } from '../amqp/connection.ts';
import type { Subscription } from '../amqp/deliveries.ts';
import { isMonitor } from './authorize.ts';
import { type Fact, listed } from './listing.ts';
import { clientConnections, GARBAGE_COLLECTION, isVhost, type ManagementParts, timeText } from './parts.ts';
import type { Reading } from './rates.ts';
import type { Call, Resource, Resources } from './resource.ts';
import { deliverReading, messageStats, publishReading, withRates } from './stats.ts';
import { tableToJson } from './tables.ts';

const CLOSE_REASON = 'Closed via management plugin';
const PAGED = { sorts: ['vhost', 'name'], isPaged: true };

export function connectionResources(parts: ManagementParts): Resources {
  const named = (name: string): AmqpConnection | undefined =>
    clientConnections(parts).find((each) => each.name === name);
  const ownerOf = (params: Readonly<Record<string, string>>): string | undefined => named(params['connection'])?.user;
  const ofUser = (params: Readonly<Record<string, string>>): AmqpConnection[] =>
    clientConnections(parts).filter(({ user }) => user === params['username']);
  return {
    '/connections': {
      allowed: 'user',
      get: ({ user, request }) =>
        listed(
          clientConnections(parts)
            .filter((each) => isMonitor(user) || each.user === user.name)
            .map((each) => (hasStats(request.query) ? connectionFact(parts, each) : trackedFact(parts, each))),
          request.query,
          PAGED,
        ),
    },
    '/connections/:connection': {
      allowed: ownerOf,
      exists: ({ params }) => named(params['connection']) !== undefined,
      get({ params }) {
        const connection = named(params['connection']);
        if (connection === undefined) return undefined;
        const fact = Object.entries(connectionFact(parts, connection));
        // What is nothing in a list is empty text here.
        return Object.fromEntries(fact.map(([name, value]) => [name, value ?? '']));
      },
      async remove({ params, request }) {
        named(params['connection'])?.close(reasonOf(request.headers['x-reason']));
      },
    },
    '/connections/username/:username': {
      allowed: ({ username }) => username,
      get: ({ params, request }) =>
        listed(
          ofUser(params).map((each) => trackedFact(parts, each)),
          request.query,
          PAGED,
        ),
      async remove({ params, request }) {
        for (const each of ofUser(params)) each.close(reasonOf(request.headers['x-reason']));
      },
    },
    '/connections/:connection/channels': {
      allowed: ownerOf,
      exists: ({ params }) => named(params['connection']) !== undefined,
      get({ params, request }) {
        const channels = [...(named(params['connection'])?.channels() ?? [])];
        return listed(
          channels.map((each) => channelFact(parts, each)),
          request.query,
          PAGED,
        );
      },
    },
    '/vhosts/:vhost/connections': {
      allowed: 'vhost',
      exists: isVhost(parts),
      get: ({ params, user, request }) =>
        listed(
          clientConnections(parts)
            .filter((each) => each.vhostName === params['vhost'] && (isMonitor(user) || each.user === user.name))
            .map((each) => connectionFact(parts, each)),
          request.query,
          PAGED,
        ),
    },
    '/channels': channelList(parts),
    '/vhosts/:vhost/channels': { ...channelList(parts), allowed: 'vhost', exists: isVhost(parts) },
    '/channels/:channel': {
      allowed: ({ channel }) => channelNamed(parts, channel)?.connection.user,
      exists: ({ params }) => channelNamed(parts, params['channel']) !== undefined,
      get({ params }) {
        const channel = channelNamed(parts, params['channel']);
        if (channel === undefined) return undefined;
        return {
          ...channelFact(parts, channel),
          consumer_details: [...channel.subscriptions()].map((each) =>
            consumerFact(parts, { channel, subscription: each }),
          ),
          publishes: [],
          deliveries: [],
        };
      },
    },
    '/consumers': consumerList(parts),
    '/consumers/:vhost': { ...consumerList(parts), exists: isVhost(parts) },
  };
}

const hasStats = (query: URLSearchParams): boolean => query.get('disable_stats') !== 'true';

function reasonOf(header: string | string[] | undefined): string {
  return typeof header === 'string' && header !== '' ? header : CLOSE_REASON;
}

// --- connections ---

export const octetReading = ({ receivedBytes, sentBytes }: AmqpConnection): Reading => ({
  recv_oct: receivedBytes,
  send_oct: sentBytes,
});

function connectionFact(parts: ManagementParts, connection: AmqpConnection): Fact {
  const { peer, clientProperties, connectedAtMs, heartbeatMs } = connection;
  const providedName = clientProperties.find(([name]) => name === 'connection_name')?.[1];
  return {
    ...withRates(octetReading(connection), parts.rates.of(connection)),
    ...withRates({ reductions: 0 }, {}),
    recv_cnt: connection.receivedFrames,
    send_cnt: connection.sentFrames,
    send_pend: connection.unsentBytes,
    state: connection.isBlocked ? 'blocked' : 'running',
    channels: connection.channelCount,
    garbage_collection: GARBAGE_COLLECTION,
    auth_mechanism: connection.mechanism,
    channel_max: connection.channelMax,
    client_properties: tableToJson(clientProperties),
    connected_at: connectedAtMs,
    frame_max: connection.frameBytesMax,
    host: peer.localHost,
    port: peer.localPort,
    peer_host: peer.remoteHost,
    peer_port: peer.remotePort,
    name: connection.name,
    node: parts.nodeName,
    protocol: 'AMQP 0-9-1',
    peer_cert_issuer: null,
    peer_cert_subject: null,
    peer_cert_validity: null,
    ssl: false,
    ssl_cipher: null,
    ssl_hash: null,
    ssl_key_exchange: null,
    ssl_protocol: null,
    timeout: heartbeatMs / 1000,
    type: 'network',
    user: connection.user,
    user_who_performed_action: connection.user,
    ...(providedName?.type === 'S' ? { user_provided_name: providedName.value.toString() } : {}),
    vhost: connection.vhostName,
  };
}

function trackedFact(parts: ManagementParts, { name, user, vhostName }: AmqpConnection): Fact {
  return { name, vhost: vhostName, user, node: parts.nodeName };
}

// --- channels ---

function* channelsOf(parts: ManagementParts): IterableIterator<Channel> {
  for (const connection of clientConnections(parts)) yield* connection.channels();
}

/** Of the vhost that the path names, or of all: those that this user sees. */
function* shownChannels(parts: ManagementParts, { params, user }: Call): IterableIterator<Channel> {
  for (const channel of channelsOf(parts)) {
    const { user: owner, vhostName } = channel.connection;
    const isAsked = vhostName === (params['vhost'] ?? vhostName);
    if (isAsked && (isMonitor(user) || owner === user.name)) yield channel;
  }
}

const channelName = ({ connection, number }: Channel): string => `${connection.name} (${number})`;

function channelNamed(parts: ManagementParts, name: string): Channel | undefined {
  for (const channel of channelsOf(parts)) if (channelName(channel) === name) return channel;
  return undefined;
}

function channelList(parts: ManagementParts): Resource {
  return {
    allowed: 'user',
    get(call) {
      const channels = [...shownChannels(parts, call)];
      return listed(
        channels.map((each) => channelFact(parts, each)),
        call.request.query,
        PAGED,
      );
    },
  };
}

function channelFact(parts: ManagementParts, channel: Channel): Fact {
  const { connection, counters, number } = channel;
  const { user, vhostName } = connection;
  const idleSinceMs = parts.rates.idleSinceMs(channel);
  return {
    name: channelName(channel),
    number,
    node: parts.nodeName,
    user,
    user_who_performed_action: user,
    vhost: vhostName,
    connection_details: connectionDetails(connection),
    state: 'running',
    ...(idleSinceMs === undefined ? {} : { idle_since: timeText(idleSinceMs) }),
    acks_uncommitted: 0,
    messages_uncommitted: 0,
    messages_unacknowledged: channel.unackedCount,
    messages_unconfirmed: channel.unconfirmedCount,
    consumer_count: [...channel.subscriptions()].length,
    confirm: channel.isConfirming,
    transactional: channel.isTransactional,
    prefetch_count: channel.prefetch,
    pending_raft_commands: 0,
    garbage_collection: GARBAGE_COLLECTION,
    ...withRates({ reductions: 0 }, {}),
    ...messageStats([publishReading(counters), deliverReading(counters)], parts.rates.of(channel)),
  };
}

export function connectionDetails({ name, peer }: AmqpConnection): Fact {
  return { name, peer_host: peer.remoteHost, peer_port: peer.remotePort };
}

// --- consumers ---

function consumerList(parts: ManagementParts): Resource {
  return {
    allowed: 'user',
    get(call) {
      const facts: Fact[] = [];
      for (const channel of shownChannels(parts, call)) {
        for (const subscription of channel.subscriptions()) facts.push(consumerFact(parts, { channel, subscription }));
      }
      return listed(facts, call.request.query, { sorts: ['vhost', 'name'] });
    },
  };
}

/** A consumer, and where it is. */
export interface ShownConsumer {
  readonly channel: Channel;
  readonly subscription: Subscription;
}

/** Consumers of AMQP clients by their queue. */
export type ConsumerIndex = ReadonlyMap<object, readonly ShownConsumer[]>;

export function consumerIndex(parts: ManagementParts): ConsumerIndex {
  const index = new Map<object, ShownConsumer[]>();
  for (const channel of channelsOf(parts)) {
    for (const subscription of channel.subscriptions()) {
      const { amqpQueue } = subscription;
      const known = index.get(amqpQueue);
      if (known === undefined) index.set(amqpQueue, [{ channel, subscription }]);
      else known.push({ channel, subscription });
    }
  }
  return index;
}

/** It is served: nobody else has the queue for himself, and it does not only read the log. */
export function isActive({ consumer, amqpQueue }: Subscription): boolean {
  if (consumer === undefined) return false;
  return amqpQueue.queue
    .partitions()
    .every(({ demand: { activeOwner } }) => activeOwner === undefined || activeOwner === consumer.id);
}

export function consumerFact(parts: ManagementParts, { channel, subscription }: ShownConsumer): Fact {
  const { connection, number } = channel;
  const { tag, isNoAck, prefetch, isExclusive, amqpQueue } = subscription;
  const { settings } = amqpQueue.queue;
  const active = isActive(subscription);
  return {
    consumer_tag: tag,
    ack_required: !isNoAck,
    active,
    activity_status: settings['single.active.consumer'] ? (active ? 'single_active' : 'waiting') : 'up',
    arguments: tableToJson(subscription.arguments),
    channel_details: {
      ...connectionDetails(connection),
      name: channelName(channel),
      connection_name: connection.name,
      node: parts.nodeName,
      number,
      user: connection.user,
    },
    consumer_timeout: settings['consumer.timeout.ms'] < 0 ? parts.consumerTimeoutMs : settings['consumer.timeout.ms'],
    exclusive: isExclusive,
    prefetch_count: prefetch,
    queue: { name: amqpQueue.name, vhost: connection.vhostName },
  };
}
