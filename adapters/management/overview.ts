/** The broker as a whole: overview, nodes, who asks, names, versions, feature flags. */
import { passwordHash } from '../../broker/password-hash.ts';
import { EXCHANGE_TYPES } from '../amqp/exchanges.ts';
import { MessageCounters } from '../amqp/counters.ts';
import { MECHANISMS } from '../amqp/login.ts';
import { isMonitor, visibleVhosts } from './authorize.ts';
import { textField } from './fields.ts';
import { type Fact, listed } from './listing.ts';
import { clientConnections, type ManagementParts, vhostOf } from './parts.ts';
import type { Reading } from './rates.ts';
import { badRequest, type Call, type Resources } from './resource.ts';
import { deliverReading, lengthReading, messageStats, publishReading, withRates } from './stats.ts';
import { vhostSums } from './vhosts.ts';

export function overviewResources(parts: ManagementParts): Resources {
  const { parameters } = parts.directory;
  const isNode = ({ params }: Call): boolean => params['node'] === parts.nodeName;
  return {
    '/overview': { allowed: 'user', get: (call) => overview(parts, call) },
    '/cluster-name': {
      allowed: 'user',
      get: () => ({ name: parts.clusterName() }),
      async put(call) {
        const body = await call.json(['name']);
        await parameters.putGlobal('cluster_name', textField(body, 'name'));
      },
    },
    '/nodes': {
      allowed: 'monitor',
      get: ({ request }) => listed([nodeFact(parts)], request.query, { sorts: ['name'] }),
    },
    '/nodes/:node': { allowed: 'monitor', exists: isNode, get: () => nodeFact(parts) },
    '/nodes/:node/memory': {
      allowed: 'monitor',
      exists: isNode,
      get: () => ({
        memory: { ...process.memoryUsage(), total: { rss: parts.machine.memoryBytes() }, strategy: 'rss' },
      }),
    },
    '/extensions': { allowed: 'user', get: () => [] },
    '/auth': { allowed: 'anybody', get: () => ({ oauth_enabled: false }) },
    '/auth/hash_password/:password': {
      allowed: 'admin',
      get: ({ params }) => ({ ok: passwordHash(params['password'], parts.random) }),
    },
    '/whoami': {
      allowed: 'user',
      get: ({ user }) => ({ name: user.name, tags: user.tags, is_internal_user: true }),
    },
    '/version': { allowed: 'anybody', get: () => parts.productVersion },
    '/feature-flags': {
      allowed: 'user',
      get: ({ request }) => listed(FEATURE_FLAGS, request.query, { sorts: ['name'] }),
    },
    '/feature-flags/:name/enable': {
      allowed: 'admin',
      async put({ params }) {
        if (!FEATURE_FLAGS.some(({ name }) => name === params['name']))
          throw badRequest('The feature flag is not supported');
      },
    },
    '/deprecated-features': { allowed: 'user', get: () => [] },
    '/deprecated-features/used': { allowed: 'user', get: () => [] },
    '/rebalance/queues': { allowed: 'admin', post: async () => undefined },
    '/reset': { allowed: 'admin', remove: async () => {} },
    '/reset/:node': { allowed: 'admin', exists: isNode, remove: async () => {} },
  };
}

const FEATURE_FLAGS: readonly Fact[] = [
  'quorum_queue',
  'stream_queue',
  'direct_exchange_routing_v2',
  'message_containers',
].map((name) => ({ name, state: 'enabled', stability: 'required', provided_by: 'millrace', desc: '', doc_url: '' }));

const enabledFact = (name: string): Fact => ({ name, description: '', enabled: true });

/** Messages do not go to a disk or come from it one by one. */
function overviewStats(counters: MessageCounters, rates: Reading): Fact {
  const { message_stats: stats } = messageStats([publishReading(counters), deliverReading(counters)], rates);
  return stats === undefined ? {} : { ...withRates({ disk_reads: 0, disk_writes: 0 }, {}), ...(stats as Fact) };
}

function overview(parts: ManagementParts, { user, request }: Call): Fact {
  const isSeeingAll = isMonitor(user);
  const seen = visibleVhosts(user, parts.directory, isSeeingAll);
  const counters = new MessageCounters();
  const lengths = { messages: 0, messages_ready: 0, messages_unacknowledged: 0 };
  const rates: Record<string, number> = {};
  let queues = 0;
  let exchanges = 0;
  for (const name of seen) {
    const vhost = vhostOf(parts, name);
    if (vhost === undefined) continue;
    const sums = vhostSums(parts, name);
    counters.add(sums.counters);
    add(lengths, sums.lengths);
    add(rates, parts.rates.of(vhost));
    for (const _ of vhost.queues()) queues++;
    for (const _ of vhost.exchanges.all()) exchanges++;
  }
  const connections = clientConnections(parts).filter(({ vhostName }) => seen.has(vhostName));
  const channels = connections.reduce((sum, connection) => sum + connection.channelCount, 0);
  const isPlain = request.query.get('disable_stats') === 'true';
  const { messages_ready: ready, messages_unacknowledged: unacknowledged } = lengths;
  return {
    management_version: parts.version,
    rates_mode: 'basic',
    sample_retention_policies: { global: [600, 3600, 28800, 86400], basic: [600, 3600], detailed: [600] },
    exchange_types: EXCHANGE_TYPES.map(enabledFact),
    product_version: parts.productVersion,
    product_name: parts.productName,
    rabbitmq_version: parts.version,
    cluster_name: parts.clusterName(),
    cluster_tags: {},
    node_tags: {},
    erlang_version: '26',
    erlang_full_version: `Node.js ${process.version}`,
    disable_stats: isPlain,
    default_queue_type: 'classic',
    is_op_policy_updating_enabled: true,
    enable_queue_totals: false,
    ...(isPlain
      ? { node: parts.nodeName, object_totals: { queues, exchanges, connections: connections.length } }
      : {
          message_stats: overviewStats(counters, rates),
          churn_rates: {},
          queue_totals: withRates(lengthReading(ready, unacknowledged), rates),
          object_totals: {
            ...(isSeeingAll ? { consumers: parts.queues.consumerCount } : {}),
            queues,
            exchanges,
            connections: connections.length,
            channels,
          },
          statistics_db_event_queue: 0,
        }),
    ...(isSeeingAll && !isPlain
      ? { node: parts.nodeName, listeners: listenerFacts(parts), contexts: contextFacts(parts) }
      : {}),
  };
}

function add(sums: Record<string, number>, values: Reading): void {
  for (const [name, value] of Object.entries(values)) sums[name] = (sums[name] ?? 0) + value;
}

function listenerFacts({ listeners, nodeName: node }: ManagementParts): Fact[] {
  return listeners().map(({ protocol, host, port }) => ({ node, protocol, ip_address: host, port, socket_opts: [] }));
}

function contextFacts({ listeners, nodeName: node }: ManagementParts): Fact[] {
  return listeners()
    .filter(({ protocol }) => protocol === 'http')
    .map(({ host, port }) => ({
      node,
      description: 'Management API',
      path: '/',
      ip: host,
      port: String(port),
      protocol: 'http',
      ssl_opts: [],
    }));
}

function nodeFact(parts: ManagementParts): Fact {
  const { machine } = parts;
  return {
    name: parts.nodeName,
    type: 'disc',
    running: true,
    being_drained: false,
    os_pid: String(machine.processId),
    processors: machine.processors,
    uptime: machine.uptimeMs(),
    run_queue: 0,
    rates_mode: 'basic',
    mem_limit: machine.memoryBytesMax,
    mem_alarm: parts.amqp.alarms.includes('memory'),
    mem_calculation_strategy: 'rss',
    disk_free_alarm: parts.amqp.alarms.includes('disk'),
    db_dir: parts.dataDir,
    config_files: [],
    log_files: [],
    net_ticktime: 60,
    enabled_plugins: ['rabbitmq_management'],
    applications: [{ name: 'rabbit', description: parts.productName, version: parts.version }],
    auth_mechanisms: MECHANISMS.map(enabledFact),
    exchange_types: EXCHANGE_TYPES.map(enabledFact),
    contexts: contextFacts(parts),
    cluster_links: [],
    partitions: [],
    ra_open_file_metrics: {},
    metrics_gc_queue_length: {},
    ...withRates({ mem_used: machine.memoryBytes(), sockets_used: parts.amqp.connections.size }, {}),
  };
}
