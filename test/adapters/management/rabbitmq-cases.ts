/**
 * Requests that are made of this broker and of RabbitMQ, with what each is answered. `rabbitmq-4.0.5.txt` is what RabbitMQ
 * said: `node dist/test/adapters/management/rabbitmq-cases.js HTTP-URL AMQP-URL` on an empty broker prints it. What differs
 * from run to run (nodes, hashes, times) is masked; statistics are compared by the names and types of their fields.
 */
import amqp from 'amqplib';

interface StepOptions {
  /** `user:password`. Default: guest:guest; empty: nobody. */
  readonly as?: string;
  /** `shape`: names and types of fields only. Default: everything. */
  readonly view?: 'shape';
  readonly headers?: Readonly<Record<string, string>>;
}
type Step = readonly [request: string, body?: unknown, options?: StepOptions];

/** Before any client has connected. */
const STEPS: readonly Step[] = [
  // Who comes in.
  ['GET /whoami'],
  ['GET /whoami', undefined, { as: '' }],
  ['GET /whoami', undefined, { as: 'guest:wrong' }],
  ['GET /whoami', undefined, { as: 'nobody:guest' }],
  ['GET /whoami', undefined, { as: '', headers: { authorization: 'Basic !!!' } }],
  ['GET /whoami', undefined, { as: '', headers: { authorization: 'Bearer abc' } }],
  ['GET /auth', undefined, { as: '' }],
  ['GET /version', undefined, { view: 'shape' }],
  ['GET /nope'],
  ['POST /whoami', {}],
  ['PATCH /queues/%2F/q', {}],
  ['OPTIONS /queues/%2F/q'],
  ['OPTIONS /bindings/%2F/e/x/q/q'],
  ['HEAD /whoami'],

  // Users and tags.
  ['PUT /users/monitor', { password: 'p', tags: 'monitoring' }],
  ['PUT /users/manager', { password: 'p', tags: 'management' }],
  ['PUT /users/maker', { password: 'p', tags: 'policymaker' }],
  ['PUT /users/plain', { password: 'p', tags: '' }],
  [
    'PUT /users/hashed',
    { password_hash: 'kI3GCqW5JLMJa4iX1lo7X4D6XbYqlLgxIs30+P6tENUV2POR', tags: ['administrator', 'mine'] },
  ],
  [
    'PUT /users/hashed',
    { password_hash: 'kI3GCqW5JLMJa4iX1lo7X4D6XbYqlLgxIs30+P6tENUV2POR', tags: 'administrator, mine' },
  ],
  ['PUT /users/untagged', { password: 'p' }],
  ['PUT /users/both', { password: 'p', password_hash: '', tags: '' }],
  ['PUT /users/nohash', { password_hash: '', tags: 'management' }],
  ['PUT /users/md5', { password: 'p', tags: '', hashing_algorithm: 'rabbit_password_hashing_md5' }],
  ['PUT /users/bare', { tags: 'administrator' }],
  ['PUT /users/bad', '{'],
  ['GET /users/plain'],
  ['GET /users/hashed'],
  ['GET /users/nope'],
  ['GET /users'],
  ['GET /users?columns=name,tags'],
  ['GET /users?page=1&page_size=2'],
  ['GET /users/without-permissions'],
  ['GET /whoami', undefined, { as: 'monitor:p' }],
  ['GET /whoami', undefined, { as: 'plain:p' }],
  ['GET /whoami', undefined, { as: 'nohash:' }],
  ['GET /whoami', undefined, { as: 'bare:' }],
  ['GET /users', undefined, { as: 'monitor:p' }],
  ['GET /nodes', undefined, { as: 'manager:p' }],
  ['POST /users/bulk-delete', { users: ['untagged', 'md5', 'never'] }],
  ['POST /users/bulk-delete', {}],
  ['DELETE /users/bare'],
  ['DELETE /users/bare'],

  // Vhosts.
  ['PUT /vhosts/v1', { description: 'one', tags: 'a, b' }],
  ['PUT /vhosts/v2'],
  ['PUT /vhosts/v2', { default_queue_type: 'quorum' }],
  ['PUT /vhosts/v%2F3', {}],
  ['GET /vhosts/v1?disable_stats=true'],
  ['GET /vhosts/v2?disable_stats=true'],
  ['GET /vhosts/nope'],
  ['GET /vhosts?disable_stats=true'],
  ['GET /vhosts', undefined, { as: 'manager:p' }],
  ['GET /vhosts?columns=name&disable_stats=true'],
  ['GET /vhosts?sort=name&sort_reverse=true&columns=name&disable_stats=true'],
  ['DELETE /vhosts/v%2F3'],
  ['DELETE /vhosts/v%2F3'],
  ['PUT /vhosts/x', {}, { as: 'manager:p' }],
  ['GET /vhosts/v1/permissions'],
  ['GET /vhosts/v1/topic-permissions'],

  // Permissions.
  ['PUT /permissions/v1/manager', { configure: '^m', write: '.*', read: '.*' }],
  ['PUT /permissions/v1/manager', { configure: '^m', write: '.*', read: '' }],
  ['PUT /permissions/v1/manager', { configure: '^m' }],
  ['PUT /permissions/v1/nobody', { configure: '', write: '', read: '' }],
  ['PUT /permissions/nope/manager', { configure: '', write: '', read: '' }],
  ['GET /permissions'],
  ['GET /permissions/v1/manager'],
  ['GET /permissions/v1/monitor'],
  ['GET /permissions/nope/monitor'],
  ['GET /users/manager/permissions'],
  ['GET /users/nope/permissions'],
  ['PUT /topic-permissions/v1/manager', { exchange: 'amq.topic', write: '^a', read: '^b' }],
  ['PUT /topic-permissions/v1/manager', { exchange: 'amq.topic' }],
  ['GET /topic-permissions'],
  ['GET /topic-permissions/v1/manager'],
  ['GET /topic-permissions/v1/plain'],
  ['GET /users/manager/topic-permissions'],
  ['DELETE /topic-permissions/v1/manager'],
  ['DELETE /topic-permissions/v1/manager'],
  ['DELETE /permissions/v1/plain'],

  // Exchanges.
  ['GET /exchanges/%2F'],
  ['GET /exchanges/%2F/amq.default'],
  ['GET /exchanges/%2F/nope'],
  ['GET /exchanges/nope'],
  ['PUT /exchanges/%2F/topic', { type: 'topic', durable: true, arguments: { 'alternate-exchange': 'amq.fanout' } }],
  ['PUT /exchanges/%2F/topic', { type: 'topic', durable: true, arguments: { 'alternate-exchange': 'amq.fanout' } }],
  ['PUT /exchanges/%2F/topic', { type: 'direct', durable: true }],
  ['PUT /exchanges/%2F/topic', { type: 'topic', durable: false }],
  ['PUT /exchanges/%2F/inner', { type: 'fanout', durable: 'true', internal: true, auto_delete: false, arguments: {} }],
  ['PUT /exchanges/%2F/bad', { type: 'foo' }],
  ['PUT /exchanges/%2F/bad', { type: 'direct', durable: 'maybe' }],
  ['PUT /exchanges/%2F/bad', '[1]'],
  ['PUT /exchanges/%2F/bad', '"text"'],
  ['PUT /exchanges/%2F/bad', '{bad'],
  ['PUT /exchanges/%2F/amq.mine', { type: 'direct' }],
  ['PUT /exchanges/%2F/amq.default', { type: 'direct' }],
  ['PUT /exchanges/nope/x', { type: 'direct' }],
  ['PUT /exchanges/%2F/plain', {}],
  ['GET /exchanges/%2F/topic'],
  ['GET /exchanges/%2F/plain'],
  ['GET /exchanges?columns=name,type&sort=type'],
  ['GET /exchanges/%2F?page=1&page_size=3&columns=name'],
  ['GET /exchanges/%2F?page=2&page_size=3&columns=name'],
  ['GET /exchanges/%2F?page=9&page_size=3&columns=name'],
  ['GET /exchanges/%2F?page=1&name=AMQ.T&columns=name'],
  ['GET /exchanges/%2F?page=1&name=%5Eamq.%5Btf%5D&use_regex=true&columns=name'],
  ['GET /exchanges/%2F?page=0'],
  ['GET /exchanges/%2F?page=1&page_size=501'],
  ['GET /exchanges/%2F?page=x'],
  ['DELETE /exchanges/%2F/plain'],
  ['DELETE /exchanges/%2F/plain'],
  ['DELETE /exchanges/%2F/amq.direct'],
  ['PUT /exchanges/v1/x', { type: 'direct' }, { as: 'manager:p' }],
  ['PUT /exchanges/v1/mx', { type: 'direct' }, { as: 'manager:p' }],
  ['PUT /exchanges/v2/mx', { type: 'direct' }, { as: 'manager:p' }],
  ['GET /exchanges/v2', undefined, { as: 'manager:p' }],
  ['GET /exchanges/v2/amq.direct', undefined, { as: 'monitor:p' }],

  // Queues.
  ['PUT /queues/%2F/q1', { durable: true }],
  ['PUT /queues/%2F/q1', { durable: true }],
  ['PUT /queues/%2F/q1', { durable: false }],
  ['PUT /queues/%2F/q1', { durable: true, arguments: { 'x-message-ttl': 5 } }],
  ['PUT /queues/%2F/ttl', { durable: true, arguments: { 'x-message-ttl': 60000, 'x-max-length': 10, 'x-foo': 'bar' } }],
  ['PUT /queues/%2F/transient', {}],
  ['PUT /queues/%2F/quorum', { durable: true, arguments: { 'x-queue-type': 'quorum' } }],
  ['PUT /queues/%2F/bad', { durable: true, arguments: { 'x-queue-type': 'nope' } }],
  ['PUT /queues/%2F/bad', { durable: true, arguments: { 'x-message-ttl': 'soon' } }],
  ['PUT /queues/%2F/bad', { durable: true, arguments: { 'x-message-ttl': -1 } }],
  ['PUT /queues/%2F/bad', { durable: true, arguments: { 'x-overflow': 'nope' } }],
  ['PUT /queues/%2F/bad', { durable: 'maybe' }],
  ['PUT /queues/%2F/bad', { auto_delete: 1 }],
  ['PUT /queues/%2F/bad', '{bad'],
  ['PUT /queues/%2F/amq.mine', {}],
  ['PUT /queues/nope/q', {}],
  [`PUT /queues/%2F/${'n'.repeat(256)}`, {}],
  ['GET /queues/%2F/quorum?disable_stats=true'],
  ['GET /queues/%2F/ttl?disable_stats=true'],
  ['GET /queues/%2F/transient?disable_stats=true'],
  ['GET /queues/%2F/nope'],
  ['GET /queues/nope/q'],
  ['GET /queues/nope'],
  ['GET /queues?disable_stats=true'],
  ['GET /queues?disable_stats=true&enable_queue_totals=true', undefined, { view: 'shape' }],
  ['GET /queues/%2F?page=1&page_size=2&columns=name'],
  ['GET /queues/%2F?page=1&use_regex=true&pagination=false&name=%5Eq&page_size=100&columns=name'],
  ['GET /queues/%2F?page=1&name=UO&columns=name'],
  ['GET /queues/%2F?sort=name&sort_reverse=true&columns=name,arguments.x-message-ttl'],
  ['GET /queues/v1', undefined, { as: 'manager:p' }],
  ['GET /queues', undefined, { as: 'manager:p' }],
  ['POST /queues/%2F/q1/actions', { action: 'sync' }],
  ['POST /queues/%2F/q1/actions', {}],
  ['POST /queues/%2F/nope/actions', { action: 'sync' }],
  ['PUT /queues/v1/other', {}, { as: 'manager:p' }],
  ['PUT /queues/v1/mine', {}, { as: 'manager:p' }],
  ['GET /queues/v1/mine?disable_stats=true', undefined, { as: 'manager:p' }],
  ['PUT /queues/v2/typed', { durable: true }],
  ['GET /queues/v2/typed?columns=name,type,arguments'],

  // Bindings.
  ['POST /bindings/%2F/e/topic/q/q1', { routing_key: 'a.b' }],
  ['POST /bindings/%2F/e/topic/q/q1', { routing_key: 'a.b' }],
  ['POST /bindings/%2F/e/topic/q/q1', { routing_key: 'a b/c#~' }],
  ['POST /bindings/%2F/e/topic/q/q1', {}],
  ['POST /bindings/%2F/e/topic/q/q1'],
  ['POST /bindings/%2F/e/topic/e/inner', { routing_key: '#' }],
  ['POST /bindings/%2F/e/amq.headers/q/q1', { arguments: { 'x-match': 'all', k: 1 } }],
  ['POST /bindings/%2F/e/topic/q/nope', {}],
  ['POST /bindings/%2F/e/nope/q/q1', {}],
  ['POST /bindings/%2F/e/topic/e/nope', {}],
  ['POST /bindings/%2F/e/amq.default/q/q1', {}],
  ['POST /bindings/nope/e/topic/q/q1', {}],
  ['POST /bindings/%2F/e/topic/q/q1', { arguments: { long: 'x'.repeat(6000) } }],
  ['GET /bindings/%2F/e/topic/q/q1'],
  ['GET /bindings/%2F/e/topic/e/inner'],
  ['GET /bindings/%2F/e/topic/q/q1/a.b'],
  ['GET /bindings/%2F/e/topic/q/q1/~'],
  ['GET /bindings/%2F/e/topic/q/q1/zzz'],
  ['GET /bindings/%2F/e/amq.default/q/q1/q1'],
  ['GET /bindings?columns=source,destination,routing_key'],
  ['GET /bindings/%2F?columns=source,destination,destination_type'],
  ['GET /bindings/nope'],
  ['GET /queues/%2F/q1/bindings'],
  ['GET /exchanges/%2F/topic/bindings/source'],
  ['GET /exchanges/%2F/inner/bindings/destination'],
  ['GET /exchanges/%2F/amq.default/bindings/source'],
  ['DELETE /bindings/%2F/e/topic/q/q1/a.b'],
  ['DELETE /bindings/%2F/e/topic/q/q1/a.b'],
  ['DELETE /bindings/%2F/e/topic/q/q1/a+b%252Fc%2523%257E'],
  ['DELETE /exchanges/%2F/topic?if-unused=true'],

  // Messages.
  [
    'POST /exchanges/%2F/amq.default/publish',
    { properties: {}, routing_key: 'q1', payload: 'one', payload_encoding: 'string' },
  ],
  [
    'POST /exchanges/%2F/amq.default/publish',
    {
      properties: {
        content_type: 'text/plain',
        delivery_mode: 2,
        priority: 3,
        headers: { a: 1, b: 'two', c: true, d: [1, 'x'], e: { f: 'g' }, g: 1.5 },
        message_id: 'm',
        timestamp: 1700000000,
        type: 't',
        app_id: 'a',
        correlation_id: 'c',
        reply_to: 'r',
        content_encoding: 'e',
      },
      routing_key: 'q1',
      payload: Buffer.from('two').toString('base64'),
      payload_encoding: 'base64',
    },
  ],
  [
    'POST /exchanges/%2F/amq.default/publish',
    {
      properties: {},
      routing_key: 'q1',
      payload: Buffer.from([0xff, 0]).toString('base64'),
      payload_encoding: 'base64',
    },
  ],
  [
    'POST /exchanges/%2F/amq.default/publish',
    { properties: {}, routing_key: 'nowhere', payload: 'x', payload_encoding: 'string' },
  ],
  [
    'POST /exchanges/%2F/amq.default/publish',
    { properties: {}, routing_key: 'q1', payload: 'x', payload_encoding: 'hex' },
  ],
  [
    'POST /exchanges/%2F/amq.default/publish',
    { properties: {}, routing_key: 'q1', payload: '%%', payload_encoding: 'base64' },
  ],
  [
    'POST /exchanges/%2F/amq.default/publish',
    { properties: {}, routing_key: 'q1', payload: 5, payload_encoding: 'string' },
  ],
  ['POST /exchanges/%2F/amq.default/publish', { routing_key: 'q1', payload: 'x' }],
  [
    'POST /exchanges/%2F/amq.default/publish',
    { properties: { delivery_mode: 'x' }, routing_key: 'q1', payload: 'x', payload_encoding: 'string' },
  ],
  [
    'POST /exchanges/%2F/amq.default/publish',
    { properties: { app_id: 5 }, routing_key: 'q1', payload: 'x', payload_encoding: 'string' },
  ],
  [
    'POST /exchanges/%2F/amq.default/publish',
    { properties: { user_id: 'me' }, routing_key: 'q1', payload: 'x', payload_encoding: 'string' },
  ],
  [
    'POST /exchanges/%2F/amq.default/publish',
    { properties: { expiration: 'x' }, routing_key: 'q1', payload: 'x', payload_encoding: 'string' },
  ],
  [
    'POST /exchanges/%2F/inner/publish',
    { properties: {}, routing_key: 'q1', payload: 'x', payload_encoding: 'string' },
  ],
  ['POST /exchanges/%2F/nope/publish', { properties: {}, routing_key: 'q1', payload: 'x', payload_encoding: 'string' }],
  ['POST /exchanges/nope/x/publish', { properties: {}, routing_key: 'q1', payload: 'x', payload_encoding: 'string' }],
  [
    'POST /exchanges/%2F/amq.default/publish',
    { properties: { headers: { a: null } }, routing_key: 'q1', payload: 'x', payload_encoding: 'string' },
  ],
  ['POST /queues/%2F/q1/get', { count: 1, ackmode: 'ack_requeue_true', encoding: 'auto' }],
  ['POST /queues/%2F/q1/get', { count: '2', ackmode: 'ack_requeue_false', encoding: 'auto', truncate: 2 }],
  ['POST /queues/%2F/q1/get', { count: 5, ackmode: 'reject_requeue_true', encoding: 'auto' }],
  ['POST /queues/%2F/q1/get', { count: 5, ackmode: 'reject_requeue_false', encoding: 'base64' }],
  ['POST /queues/%2F/q1/get', { count: 5, ackmode: 'ack_requeue_true', encoding: 'auto' }],
  ['POST /queues/%2F/q1/get', { count: 5, ackmode: 'ack_requeue_true', encoding: 'hex' }],
  ['POST /queues/%2F/q1/get', { count: 'many', ackmode: 'ack_requeue_true', encoding: 'auto' }],
  ['POST /queues/%2F/q1/get', { count: 1 }],
  ['POST /queues/%2F/nope/get', { count: 1, ackmode: 'ack_requeue_true', encoding: 'auto' }],
  [
    'POST /exchanges/%2F/amq.default/publish',
    { properties: {}, routing_key: 'q1', payload: 'gone', payload_encoding: 'string' },
  ],
  ['DELETE /queues/%2F/q1?if-empty=true'],
  ['DELETE /queues/%2F/q1/contents'],
  ['DELETE /queues/%2F/nope/contents'],
  ['POST /queues/%2F/q1/get', { count: 1, ackmode: 'ack_requeue_true', encoding: 'auto' }],
  ['GET /aliveness-test/%2F'],
  ['GET /aliveness-test/nope'],
  ['DELETE /queues/%2F/aliveness-test'],

  // Policies and parameters.
  ['PUT /policies/%2F/p1', { pattern: '^ttl', definition: { 'max-length': 5 }, priority: 3, 'apply-to': 'queues' }],
  ['PUT /policies/%2F/p1', { pattern: '^ttl', definition: { 'max-length': 5 }, priority: 4, 'apply-to': 'queues' }],
  [
    'PUT /policies/%2F/p2',
    { pattern: '.*', definition: { 'alternate-exchange': 'amq.fanout' }, 'apply-to': 'exchanges' },
  ],
  ['PUT /policies/%2F/p3', { pattern: 'x', definition: { 'message-ttl': 5 } }],
  ['PUT /policies/%2F/bad', { pattern: 'x' }],
  ['PUT /policies/%2F/bad', { pattern: '(', definition: { 'max-length': 5 } }],
  ['PUT /policies/%2F/bad', { pattern: 'x', definition: {} }],
  ['PUT /policies/%2F/bad', { pattern: 'x', definition: { nope: 1 } }],
  ['PUT /policies/%2F/bad', { pattern: 'x', definition: { 'max-length': 'x' } }],
  ['PUT /policies/%2F/bad', { pattern: 'x', definition: { 'max-length': 5 }, 'apply-to': 'nope' }],
  ['PUT /policies/%2F/bad', { pattern: 'x', definition: { 'max-length': 5 }, priority: 'x' }],
  ['PUT /policies/nope/bad', { pattern: 'x', definition: { 'max-length': 5 } }],
  ['GET /policies'],
  ['GET /policies/%2F'],
  ['GET /policies/nope'],
  ['GET /policies/%2F/p1'],
  ['GET /policies/%2F/nope'],
  ['PUT /policies/v1/p', { pattern: 'x', definition: { 'max-length': 5 } }, { as: 'manager:p' }],
  ['PUT /policies/v1/p', { pattern: 'x', definition: { 'max-length': 5 } }, { as: 'maker:p' }],
  ['DELETE /policies/%2F/p3'],
  ['DELETE /policies/%2F/p3'],
  ['PUT /operator-policies/%2F/o1', { pattern: '^ttl', definition: { 'max-length': 4 }, 'apply-to': 'queues' }],
  ['PUT /operator-policies/%2F/o2', { pattern: '^ttl', definition: { 'dead-letter-exchange': 'x' } }],
  ['GET /operator-policies'],
  ['GET /operator-policies/%2F/o1'],
  ['GET /operator-policies/%2F/nope'],
  ['GET /parameters'],
  ['GET /parameters/operator_policy'],
  ['GET /parameters/operator_policy/%2F'],
  ['GET /parameters/federation-upstream/%2F'],
  ['GET /parameters/nope/nope'],
  ['GET /parameters/federation-upstream/%2F/nope'],
  ['PUT /parameters/policy/%2F/n', { value: {} }],
  ['PUT /parameters/federation-upstream/nope/n', { value: {} }],
  ['PUT /global-parameters/mine', { value: { a: [1, 'b'], c: { d: true } } }],
  ['PUT /global-parameters/mine', { value: 'text' }],
  ['PUT /global-parameters/mine', {}],
  ['GET /global-parameters/mine'],
  ['GET /global-parameters/nope'],
  ['DELETE /global-parameters/mine'],
  ['DELETE /global-parameters/mine'],
  ['GET /global-parameters', undefined, { as: 'manager:p' }],
  ['PUT /cluster-name', { name: 'the-cluster' }],
  ['GET /cluster-name'],
  ['PUT /cluster-name', {}],

  // Limits.
  ['PUT /vhost-limits/v1/max-queues', { value: 10 }],
  ['PUT /vhost-limits/v1/max-connections', { value: 5 }],
  ['PUT /vhost-limits/v1/nope', { value: 5 }],
  ['PUT /vhost-limits/v1/max-queues', { value: 'x' }],
  ['PUT /vhost-limits/v1/max-queues', {}],
  ['PUT /vhost-limits/nope/max-queues', { value: 5 }],
  ['GET /vhost-limits'],
  ['GET /vhost-limits/v1'],
  ['GET /vhost-limits/v2'],
  ['GET /vhost-limits/nope'],
  ['DELETE /vhost-limits/v1/max-connections'],
  ['DELETE /vhost-limits/nope/max-connections'],
  ['PUT /user-limits/manager/max-channels', { value: 7 }],
  ['PUT /user-limits/manager/nope', { value: 7 }],
  ['GET /user-limits'],
  ['GET /user-limits/manager'],
  ['GET /user-limits/nope'],
  ['DELETE /user-limits/manager/max-channels'],
  ['GET /user-limits/manager'],

  // Health and the broker itself.
  ['GET /health/checks/alarms'],
  ['GET /health/checks/local-alarms'],
  ['GET /health/checks/virtual-hosts'],
  ['GET /health/checks/node-is-quorum-critical'],
  ['GET /health/checks/certificate-expiration/1/months'],
  ['GET /health/checks/certificate-expiration/x/months'],
  ['GET /health/checks/certificate-expiration/1/ages'],
  ['GET /health/checks/protocol-listener/amqp091'],
  ['GET /health/checks/protocol-listener/mqtt', undefined, { view: 'shape' }],
  ['GET /health/checks/port-listener/1', undefined, { view: 'shape' }],
  ['GET /health/checks/port-listener/x'],
  ['GET /healthchecks/node'],
  ['GET /overview?disable_stats=true', undefined, { view: 'shape' }],
  ['GET /nodes/nope'],
  ['GET /feature-flags', undefined, { as: '' }],
  ['POST /rebalance/queues'],
  ['GET /auth/hash_password/secret', undefined, { view: 'shape' }],
  ['GET /connections'],
  ['GET /connections/nope'],
  ['DELETE /connections/nope'],
  ['GET /channels'],
  ['GET /channels/nope'],
  ['GET /consumers'],
  ['GET /consumers/nope'],
  ['GET /connections/username/guest'],
  ['GET /connections?page=1'],

  // Definitions.
  ['GET /definitions'],
  ['GET /definitions/%2F'],
  ['GET /definitions/nope'],
  ['GET /definitions', undefined, { as: 'monitor:p' }],
  ['POST /definitions', '{bad'],
  ['POST /definitions', {}],
  ['POST /definitions/nope', {}],
  [
    'POST /definitions',
    {
      exchanges: [
        {
          name: 'ix',
          vhost: 'nope',
          type: 'direct',
          durable: true,
          auto_delete: false,
          internal: false,
          arguments: {},
        },
      ],
    },
  ],
  ['POST /definitions', { users: [{ name: 'imported', password_hash: '', tags: '' }], vhosts: [{ name: 'iv' }] }],
  [
    'POST /definitions/v2',
    {
      queues: [{ name: 'iq', durable: true, auto_delete: false, arguments: {} }],
      exchanges: [{ name: 'ix', type: 'fanout', durable: true, auto_delete: false, internal: false, arguments: {} }],
      bindings: [{ source: 'ix', destination: 'iq', destination_type: 'queue', routing_key: 'k', arguments: {} }],
    },
  ],
  ['GET /definitions/v2'],
  ['DELETE /queues/%2F/q1?if-unused=true'],
  ['DELETE /queues/%2F/q1'],
  ['DELETE /vhosts/v2'],
  ['GET /queues/v2'],
];

/** Who may ask what, by tag: the users of the steps, who have permissions in v1 (management) or nowhere. */
const TAGS = ['plain', 'manager', 'maker', 'monitor'];
const TAGGED: readonly string[] = [
  ...[
    'overview',
    'cluster-name',
    'nodes',
    'nodes/nope',
    'extensions',
    'whoami',
    'feature-flags',
    'deprecated-features',
  ],
  ...['definitions', 'definitions/v1', 'parameters', 'parameters/x', 'parameters/x/v1', 'parameters/x/%2F'],
  ...['parameters/x/v1/y', 'global-parameters', 'global-parameters/y', 'policies', 'policies/v1', 'policies/%2F'],
  ...['policies/v1/x', 'policies/%2F/x', 'operator-policies', 'operator-policies/v1', 'operator-policies/%2F/x'],
  ...['vhost-limits', 'vhost-limits/v1', 'vhost-limits/%2F', 'user-limits', 'user-limits/manager', 'connections'],
  ...['connections/username/manager', 'connections/username/guest', 'channels'],
  ...['consumers', 'consumers/v1', 'consumers/%2F', 'exchanges', 'exchanges/v1', 'exchanges/%2F', 'exchanges/nope'],
  ...['exchanges/v1/amq.direct', 'exchanges/%2F/amq.direct', 'queues', 'queues/v1', 'queues/%2F', 'queues/v1/mine'],
  ...['queues/%2F/x', 'queues/v1/mine/bindings', 'bindings', 'bindings/v1', 'bindings/%2F', 'vhosts', 'vhosts/v1'],
  ...['vhosts/v1/permissions', 'vhosts/v1/connections', 'vhosts/%2F/channels', 'users', 'users/manager'],
  ...['users/without-permissions', 'users/manager/permissions', 'permissions', 'permissions/v1/manager'],
  ...['topic-permissions', 'topic-permissions/v1/manager', 'aliveness-test/%2F', 'health/checks/alarms'],
  ...['health/checks/virtual-hosts', 'healthchecks/node', 'auth/hash_password/x', 'auth', 'version'],
];

/** While a client has a connection with a channel, a consumer and messages that are not acked. */
const BUSY_STEPS: readonly Step[] = [
  ['GET /connections', undefined, { view: 'shape' }],
  ['GET /connections', undefined, { as: 'manager:p' }],
  ['GET /channels', undefined, { view: 'shape' }],
  ['GET /channels', undefined, { as: 'manager:p' }],
  ['GET /consumers', undefined, { view: 'shape' }],
  ['GET /consumers/%2F', undefined, { view: 'shape' }],
  ['GET /queues/%2F/busy', undefined, { view: 'shape' }],
  ['GET /queues/%2F?columns=name,messages,messages_ready,messages_unacknowledged,consumers'],
  [
    'GET /queues/%2F/busy?columns=messages,messages_ready,messages_unacknowledged,consumers,message_stats.publish,message_stats.deliver_get,message_stats.ack',
  ],
  ['GET /queues/detailed?page=1&name=ttl', undefined, { view: 'shape' }],
  ['GET /queues?page=1&name=ttl', undefined, { view: 'shape' }],
  ['GET /exchanges/%2F/amq.default', undefined, { view: 'shape' }],
  ['GET /vhosts/%2F', undefined, { view: 'shape' }],
  ['GET /queues/%2F/ttl?columns=policy,operator_policy,effective_policy_definition'],
  ['GET /overview', undefined, { view: 'shape', as: 'monitor:p' }],
  ['GET /overview', undefined, { view: 'shape' }],
  ['GET /nodes?columns=name,type,running,mem_used,disk_free_alarm,mem_alarm', undefined, { view: 'shape' }],
  ['GET /connections/username/guest', undefined, { view: 'shape' }],
  ['GET /vhosts/%2F/connections', undefined, { view: 'shape' }],
  ['GET /vhosts/%2F/channels', undefined, { view: 'shape' }],
  ['DELETE /queues/%2F/busy?if-unused=true'],
  ['GET /queues/%2F/busy-exclusive', undefined, { view: 'shape' }],
  ['GET /queues/%2F/busy-exclusive?columns=exclusive,durable,name'],
  ['GET /queues/%2F/busy-exclusive?disable_stats=true', undefined, { view: 'shape' }],
  ['GET /queues/%2F/busy-single?columns=single_active_consumer_tag,exclusive_consumer_tag,consumers,consumer_details'],
  ['GET /queues/%2F/busy-alone?columns=single_active_consumer_tag,exclusive_consumer_tag,consumers,consumer_details'],
  ['GET /queues/%2F/busy-quorum', undefined, { view: 'shape' }],
  [
    'GET /queues/%2F/busy-quorum?columns=messages,messages_ready,messages_unacknowledged,consumers,single_active_consumer_tag',
  ],
  ['GET /queues/%2F?name=busy-quorum&page=1', undefined, { view: 'shape' }],
  ['GET /queues/%2F/busy-stream', undefined, { view: 'shape' }],
  ['GET /queues/%2F/busy-stream?columns=messages,type,consumers,consumer_details'],
  ['GET /queues/%2F?name=busy-stream&page=1', undefined, { view: 'shape' }],
];

/** One line for each request: what was asked and what came. `settleMs`: until statistics are there. */
export async function* outcomes(urls: { http: string; amqp: string }, settleMs = 0): AsyncGenerator<string> {
  for (const step of STEPS) yield outcome(urls.http, step);
  for (const path of TAGGED) yield allowed(urls.http, path);
  const connection = await amqp.connect(urls.amqp, { clientProperties: { connection_name: 'oracle' } });
  connection.on('error', () => {});
  const channel = await connection.createConfirmChannel();
  await channel.assertQueue('busy', { durable: true });
  for (let count = 0; count < 5; count++) channel.sendToQueue('busy', Buffer.from('message'), { persistent: true });
  await channel.waitForConfirms();
  await channel.prefetch(3);
  let received = 0;
  await new Promise<void>((resolve) => {
    void channel.consume('busy', (message) => {
      if (message !== null && ++received === 1) channel.ack(message);
      if (received === 4) resolve();
    });
  });
  await channel.checkQueue('busy');
  await moreQueues(channel);
  await new Promise((resolve) => setTimeout(resolve, settleMs));
  for (const step of BUSY_STEPS) yield outcome(urls.http, step);
  const closed = new Promise<string>((resolve) =>
    connection.on('close', (error?: Error) => resolve(error?.message ?? '')),
  );
  const [{ name }] = (await (await ask(urls.http, ['GET /connections'])).json()) as [{ name: string }];
  const path = `/connections/${encodeURIComponent(name)}`;
  yield outcome(urls.http, [`GET ${path}`, undefined, { view: 'shape' }]);
  yield outcome(urls.http, [`GET ${path}/channels`, undefined, { view: 'shape' }]);
  yield outcome(urls.http, [`GET /channels/${encodeURIComponent(`${name} (1)`)}`, undefined, { view: 'shape' }]);
  yield outcome(urls.http, [`DELETE ${path}`, undefined, { as: 'manager:p' }]);
  yield outcome(urls.http, [`DELETE ${path}`, undefined, { headers: { 'x-reason': 'because' } }]);
  yield `closed | ${await closed}`;
}

async function allowed(http: string, path: string): Promise<string> {
  const statuses: string[] = [];
  for (const user of TAGS) {
    const response = await ask(http, [`GET /${path}`, undefined, { as: `${user}:p` }]);
    await response.text();
    statuses.push(`${user} ${response.status}`);
  }
  return `GET /${path} by tag | ${statuses.join(', ')}`;
}

/** Queues of each type, and consumers of each kind. */
async function moreQueues(channel: amqp.ConfirmChannel): Promise<void> {
  const ignore = (): void => {};
  await channel.assertQueue('busy-exclusive', { exclusive: true });
  await channel.assertQueue('busy-single', { durable: true, arguments: { 'x-single-active-consumer': true } });
  await channel.assertQueue('busy-quorum', { durable: true, arguments: { 'x-queue-type': 'quorum' } });
  await channel.assertQueue('busy-stream', { durable: true, arguments: { 'x-queue-type': 'stream' } });
  await channel.assertQueue('busy-alone', { durable: true });
  await channel.consume('busy-single', ignore, { consumerTag: 'one' });
  await channel.consume('busy-single', ignore, { consumerTag: 'two', priority: 3 });
  await channel.consume('busy-alone', ignore, { consumerTag: 'only', exclusive: true, noAck: true });
  await channel.consume('busy-quorum', ignore, { consumerTag: 'quorum' });
  await channel.consume('busy-stream', ignore, { consumerTag: 'stream', arguments: { 'x-stream-offset': 'first' } });
  for (const name of ['busy-quorum', 'busy-stream']) channel.sendToQueue(name, Buffer.from('message'));
  await channel.waitForConfirms();
}

async function ask(http: string, [request, body, { as = 'guest:guest', headers } = {}]: Step): Promise<Response> {
  const [method, path] = request.split(' ');
  const authorization = as === '' ? {} : { authorization: `Basic ${Buffer.from(as).toString('base64')}` };
  return fetch(`${http}/api${path}`, {
    method,
    headers: { 'content-type': 'application/json', ...authorization, ...headers },
    ...(body === undefined ? {} : { body: typeof body === 'string' ? body : JSON.stringify(body) }),
  });
}

async function outcome(http: string, step: Step): Promise<string> {
  const [request, body, { as = 'guest:guest', view } = {}] = step;
  const response = await ask(http, step);
  const text = await response.text();
  const location = response.headers.get('location');
  const allow = response.headers.get('allow');
  const asked = `${request}${body === undefined ? '' : ` ${clipped(typeof body === 'string' ? body : JSON.stringify(body))}`}`;
  const who = as === 'guest:guest' ? '' : ` as ${as === '' ? 'nobody' : as}`;
  const more = [location && `location ${location}`, allow && `allow ${allow}`].filter(Boolean).join(' ');
  return masked(
    `${asked}${who} | ${[response.status, more, shownBody(text, view)].filter((part) => part !== '' && part !== null).join(' ')}`,
  );
}

const clipped = (text: string): string => (text.length > 200 ? `${text.slice(0, 200)}…` : text);

function shownBody(text: string, view: 'shape' | undefined): string {
  if (text === '') return '';
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return text;
  }
  return JSON.stringify(view === 'shape' ? shapeOf(value) : sorted(value));
}

function sorted(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(sorted);
  if (typeof value !== 'object' || value === null) return value;
  const entries = Object.entries(value).filter(([name]) => !UNCOMPARED.has(name));
  const isDefinitions = 'rabbitmq_definition_format' in value;
  return Object.fromEntries(
    entries
      .sort(([a], [b]) => (a < b ? -1 : 1))
      .map(([name, each]) => [
        name,
        MASKED.has(name) ? '…' : isDefinitions || name === 'consumer_details' ? ordered(sorted(each)) : sorted(each),
      ]),
  );
}

/** Lists of definitions have no order. */
function ordered(value: unknown): unknown {
  if (!Array.isArray(value)) return value;
  return value
    .map((each) => JSON.stringify(each))
    .sort()
    .map((text) => JSON.parse(text) as unknown);
}

/** Of lists the shape of the first element. */
function shapeOf(value: unknown): unknown {
  if (Array.isArray(value)) return value.length === 0 ? [] : [shapeOf(value[0])];
  if (value === null) return 'null';
  if (typeof value !== 'object') return typeof value;
  const entries = Object.entries(value).filter(([name]) => !UNCOMPARED.has(name));
  return Object.fromEntries(
    entries
      .sort(([a], [b]) => (a < b ? -1 : 1))
      .map(([name, each]) => [
        name,
        OPAQUE.has(name) ? '…' : name === 'consumer_details' ? shapes(each) : shapeOf(each),
      ]),
  );
}

/** Each shape once: the order of consumers is nobody's. */
function shapes(value: unknown): unknown {
  if (!Array.isArray(value)) return shapeOf(value);
  return [...new Set(value.map((each) => JSON.stringify(shapeOf(each))))].sort();
}

/** There or not by chance, or of one product only. */
const UNCOMPARED = new Set(['idle_since', 'backing_queue_status', 'cowboy_opts']);
/** Differ between brokers. */
const MASKED = new Set([
  'peer_port',
  'user_who_performed_action',
  'password_hash',
  'rabbit_version',
  'rabbitmq_version',
  'product_name',
  'product_version',
]);
/** What is in them is another product's. */
const OPAQUE = new Set([
  'open_files',
  'client_properties',
  'exchange_types',
  'listeners',
  'contexts',
  'churn_rates',
  'cluster_state',
]);

function masked(line: string): string {
  return (
    line
      .replace(/"(r\d+|millrace)@[^"]*"/g, '"NODE"')
      .replace(/(r\d+|millrace)@[\w.-]+/g, 'NODE')
      .replace(/"\w+-cluster-id-[^"]*"/g, '"CLUSTER"')
      // Each engine of regular expressions has its own words.
      .replace(/is invalid: \{.*?\}/, 'is invalid: …')
      .replace(/~[A-Za-z0-9_-]{6}\b/g, '~HASH')
      .replace(/\b\d+\.\d+\.\d+\.\d+(:\d+|%3A\d+)?/g, 'HOST')
  );
}

if (process.argv[1]?.endsWith('rabbitmq-cases.js')) {
  const [http, amqpUrl] = process.argv.slice(2);
  for await (const line of outcomes({ http, amqp: amqpUrl }, 12_000)) console.log(line);
}
