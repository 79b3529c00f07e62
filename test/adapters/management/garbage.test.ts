import fc from 'fast-check';
import test from 'ava';
import { startTestBroker } from '../../support/broker.ts';

const GUEST = { authorization: `Basic ${Buffer.from('guest:guest').toString('base64')}` };
const NAMES = [
  '%2F',
  'q',
  'x',
  'amq.default',
  'amq.topic',
  'guest',
  'v',
  'max-queues',
  '~',
  'q~abc',
  '%C3%BC',
  'e',
  '1',
];
const PATHS = [
  ...[
    'overview',
    'cluster-name',
    'nodes',
    'nodes/:',
    'whoami',
    'extensions',
    'feature-flags',
    'feature-flags/:/enable',
  ],
  ...['definitions', 'definitions/:', 'parameters', 'parameters/:', 'parameters/:/:', 'parameters/:/:/:'],
  ...['global-parameters', 'global-parameters/:', 'policies', 'policies/:', 'policies/:/:', 'operator-policies/:/:'],
  ...['vhost-limits', 'vhost-limits/:', 'vhost-limits/:/:', 'user-limits/:', 'user-limits/:/:'],
  ...['connections', 'connections/:', 'connections/username/:', 'connections/:/channels', 'channels', 'channels/:'],
  ...['consumers', 'consumers/:', 'exchanges', 'exchanges/:', 'exchanges/:/:', 'exchanges/:/:/publish'],
  ...['exchanges/:/:/bindings/source', 'exchanges/:/:/bindings/destination', 'queues', 'queues/:', 'queues/:/:'],
  ...['queues/detailed', 'queues/:/:/bindings', 'queues/:/:/contents', 'queues/:/:/get', 'queues/:/:/actions'],
  ...[
    'bindings',
    'bindings/:',
    'bindings/:/e/:/q/:',
    'bindings/:/e/:/e/:',
    'bindings/:/e/:/q/:/:',
    'bindings/:/e/:/z/:',
  ],
  ...['vhosts', 'vhosts/:', 'vhosts/:/permissions', 'vhosts/:/connections', 'users', 'users/:', 'users/bulk-delete'],
  ...['users/:/permissions', 'permissions', 'permissions/:/:', 'topic-permissions/:/:', 'topic-permissions/:/:/:'],
  ...['health/checks/alarms', 'health/checks/port-listener/:', 'health/checks/certificate-expiration/:/:'],
];
/** Fields that bodies have, so that garbage gets past the first check. */
const FIELDS = [
  ...[
    'type',
    'durable',
    'auto_delete',
    'internal',
    'arguments',
    'routing_key',
    'properties',
    'payload',
    'name',
    'node',
  ],
  ...['payload_encoding', 'count', 'ackmode', 'encoding', 'truncate', 'pattern', 'definition', 'priority', 'apply-to'],
  ...['value', 'password', 'password_hash', 'hashing_algorithm', 'tags', 'configure', 'write', 'read', 'exchange'],
  ...[
    'description',
    'default_queue_type',
    'users',
    'vhosts',
    'permissions',
    'topic_permissions',
    'parameters',
    'queues',
  ],
  ...['exchanges', 'bindings', 'policies', 'global_parameters', 'limits', 'metadata', 'vhost', 'source', 'destination'],
  ...['destination_type', 'user', 'component', 'headers', 'delivery_mode', 'timestamp', 'administrator', 'action'],
];
const VALUES = [
  'string',
  'auto',
  'base64',
  'ack_requeue_true',
  'reject_requeue_false',
  'direct',
  'x',
  'q',
  '/',
  'all',
  '.*',
  '(',
];

const value = fc.letrec((tie) => ({
  value: fc.oneof(
    { depthSize: 'small' },
    fc.constantFrom<unknown>(...VALUES, null, true, false, 0, 1, -1, 1.5, 2 ** 60, '', '\0', 'ü', 'x'.repeat(300)),
    fc.array(tie('value'), { maxLength: 3 }),
    tie('object'),
  ),
  object: fc.dictionary(fc.constantFrom(...FIELDS), tie('value'), { maxKeys: 8 }),
}));

const request = fc.record({
  method: fc.constantFrom('GET', 'PUT', 'PUT', 'POST', 'POST', 'DELETE'),
  path: fc.constantFrom(...PATHS),
  names: fc.array(fc.constantFrom(...NAMES), { minLength: 4, maxLength: 4 }),
  query: fc.constantFrom(
    ...[
      '',
      '?page=1&page_size=5&name=q&use_regex=true',
      '?page=1&name=[',
      '?sort=message_stats.publish&sort_reverse=true',
    ],
    ...[
      '?columns=name,a.b,,.',
      '?disable_stats=true&enable_queue_totals=true',
      '?if-unused=true',
      '?page=99999999999999999999',
    ],
  ),
  body: fc.oneof({ weight: 5, arbitrary: value.object }, { weight: 1, arbitrary: value.value }),
});

test('whatever is asked with whatever body, the broker has an answer for it', async (t) => {
  const broker = await startTestBroker();
  try {
    await fc.assert(
      fc.asyncProperty(request, async ({ method, path, names, query, body }) => {
        let next = 0;
        const filled = path.replace(/:/g, () => names[next++]);
        // The user that asks must stay.
        if (/guest|bulk-delete/.test(filled) && method !== 'GET') return;
        const isMe = JSON.stringify(body).includes('guest');
        if (isMe) return;
        const response = await fetch(`${broker.management}/api/${filled}${query}`, {
          method,
          headers: { ...GUEST, 'content-type': 'application/json' },
          ...(method === 'GET' ? {} : { body: JSON.stringify(body) }),
        });
        const text = await response.text();
        // A check that is not met.
        const isCheck = filled.startsWith('health') && response.status === 503;
        if (response.status >= 500 && !isCheck) throw new Error(`${method} ${filled}: ${response.status} ${text}`);
        if (response.status === 400) t.truthy((JSON.parse(text) as { reason: unknown }).reason, text);
      }),
      { numRuns: Number(process.env['MILLRACE_FUZZ_RUNS'] ?? 400) },
    );
    t.deepEqual(broker.lines, []);
    // Nothing that acted for the user is left.
    t.regex(await (await fetch(`${broker.http}/metrics`)).text(), /^millrace_amqp_channels 0$/m);
  } finally {
    await broker.stop();
  }
});
