import test from 'ava';
import { options as optionTable } from '../../../broker/config.ts';
import {
  alterConfigs,
  describeConfigs,
  incrementalAlterConfigs,
  listConfigResources,
} from '../../../broker/kafka/configs.ts';
import { topicConfigs } from '../../../broker/topic-config.ts';
import { apis } from '../../../protocol/kafka/apis.ts';
import { ask, type AskOptions } from '../../support/kafka-call.ts';
import { MemoryEngine } from '../../support/memory-engine.ts';
import { openTopicsBroker, type TopicsBroker, type TopicsBrokerOptions } from '../../support/topics-broker.ts';

const TOPIC = 2;
const BROKER = 4;
const LOGGER = 8;
const METRICS = 16;
const GROUP = 32;
const SET = 0;
const DELETE = 1;
const APPEND = 2;
const SUBTRACT = 3;

const none: ReadonlyMap<string, string> = new Map();

async function withTopic(init: TopicsBrokerOptions = {}): Promise<TopicsBroker> {
  const broker = await openTopicsBroker(init);
  broker.topics.create({ name: 'orders', partitionCount: 1, overrides: none });
  broker.topics.ensureInternal('__consumer_offsets', 1, new Map([['cleanup.policy', 'compact']]));
  return broker;
}

interface Describe {
  keys?: string[] | null;
  synonyms?: boolean;
  documentation?: boolean;
}

function describe(
  broker: TopicsBroker,
  resourceType: number,
  resourceName: string,
  { keys = null, synonyms = false, documentation = false }: Describe = {},
  { version = 4, ...options }: Partial<AskOptions> = {},
) {
  const { response } = ask(
    broker,
    apis.DescribeConfigs,
    describeConfigs,
    {
      resources: [{ resourceType, resourceName, configurationKeys: keys }],
      includeSynonyms: synonyms,
      ...(version >= 3 ? { includeDocumentation: documentation } : {}),
    },
    { version, ...options },
  );
  if (!response) throw new Error('DescribeConfigs was not answered');
  return response.results[0];
}
function one(broker: TopicsBroker, type: number, name: string, key: string) {
  const { configs } = describe(broker, type, name, { keys: [key], synonyms: true });
  const [config] = configs;
  return [
    config?.value,
    config?.configSource,
    config?.synonyms.map(({ name, value, source }) => [name, value, source]),
  ];
}

for (let version = 1; version <= 4; version++) {
  test(`DescribeConfigs ${version} shows every config of a topic`, async (t) => {
    const broker = await withTopic();
    for (const keys of [null, []]) {
      const { errorCode, configs } = describe(broker, TOPIC, 'orders', { keys }, { version });
      t.is(errorCode, 0);
      t.deepEqual(
        configs.map(({ name }) => name),
        Object.keys(topicConfigs),
      );
      t.true(
        configs.every(({ configSource, isSensitive, readOnly }) => configSource === 5 && !isSensitive && !readOnly),
      );
      t.true(configs.every(({ synonyms }) => synonyms.length === 0));
      t.is(configs[0].configType, version >= 3 ? 7 : 0);
    }
  });
}

test('a value is shown with all that stands behind it', async (t) => {
  const broker = await withTopic({ options: { 'log.retention.ms': 500 } });
  t.deepEqual(one(broker, TOPIC, 'orders', 'segment.bytes'), [
    '1073741824',
    5,
    [['log.segment.bytes', '1073741824', 5]],
  ]);
  broker.topics.configureOptions('cluster', new Map([['log.retention.ms', '600']]));
  broker.topics.configureOptions('node', new Map([['log.retention.ms', '700']]));
  t.deepEqual(one(broker, TOPIC, 'orders', 'retention.ms').slice(0, 2), ['700', 2]);
  const orders = broker.topics.get('orders');
  if (orders) broker.topics.configure(orders, new Map([['retention.ms', '800']]));
  const chain = [
    ['log.retention.ms', '700', 2],
    ['log.retention.ms', '600', 3],
    ['log.retention.ms', '500', 4],
    ['log.retention.ms', '604800000', 5],
  ];
  t.deepEqual(one(broker, TOPIC, 'orders', 'retention.ms'), ['800', 1, [['retention.ms', '800', 1], ...chain]]);
  t.deepEqual(one(broker, BROKER, '1', 'log.retention.ms'), ['700', 2, chain]);
  t.deepEqual(one(broker, BROKER, '', 'log.retention.ms'), ['600', 3, [['log.retention.ms', '600', 3]]]);
  t.deepEqual(one(broker, TOPIC, 'orders', 'flush.ms'), [
    '9223372036854775807',
    5,
    [['log.flush.interval.ms', '9223372036854775807', 5]],
  ]);
  t.deepEqual(one(broker, TOPIC, 'orders', 'segment.jitter.ms'), ['0', 5, []]);
  t.deepEqual(one(broker, TOPIC, '__consumer_offsets', 'cleanup.policy').slice(0, 2), ['compact', 1]);
});

test('the broker shows every option, what can change, its type and why it is so', async (t) => {
  const broker = await withTopic({ options: { 'num.partitions': 3 } });
  const { configs } = describe(broker, BROKER, '1', { documentation: true });
  const byName = new Map(configs.map((config) => [config.name, config]));
  for (const [name, { reason }] of Object.entries(optionTable)) t.is(byName.get(name)?.documentation, reason, name);
  t.like(byName.get('num.partitions'), { value: '3', configSource: 4, configType: 3, readOnly: false });
  t.like(byName.get('node.id'), { value: '1', configSource: 5, readOnly: true });
  t.like(byName.get('auto.create.topics.enable'), { value: 'true', configType: 1, readOnly: true });
  t.like(byName.get('log.retention.ms'), { value: '604800000', configType: 5, readOnly: false });
  t.like(byName.get('log.message.timestamp.before.max.ms'), { value: '9223372036854775807' });
  t.like(byName.get('log.cleanup.policy'), { value: 'delete', configType: 7, readOnly: true });
  t.is(byName.size, configs.length);
  t.deepEqual(describe(broker, BROKER, '').configs, []);
});

test('only the keys asked for are shown; documentation only if asked for', async (t) => {
  const broker = await withTopic();
  const { configs } = describe(broker, TOPIC, 'orders', { keys: ['retention.ms', 'nosuch'] });
  t.deepEqual(
    configs.map(({ name, documentation }) => [name, documentation]),
    [['retention.ms', null]],
  );
  const [documented] = describe(broker, TOPIC, 'orders', { keys: ['retention.ms'], documentation: true }).configs;
  t.truthy(documented.documentation);
});

test('resources that cannot be described are refused in the words of Apache Kafka', async (t) => {
  const broker = await withTopic();
  const told = (type: number, name: string, denied: string[] = []) => {
    const { errorCode, errorMessage, configs } = describe(broker, type, name, {}, { denied });
    t.deepEqual(configs, []);
    return [errorCode, errorMessage];
  };
  t.deepEqual(told(TOPIC, 'nosuch'), [3, '']);
  t.deepEqual(told(TOPIC, ''), [17, 'Topic name is invalid: the empty string is not allowed']);
  t.deepEqual(told(BROKER, '2'), [42, 'Unexpected broker id, expected 1 or empty string, but received 2']);
  t.deepEqual(told(BROKER, 'x'), [42, 'Broker id must be an integer, but it is: x']);
  t.is(told(LOGGER, '1')[0], 42);
  t.is(told(99, 'x')[0], 42);
  t.deepEqual(told(GROUP, ''), [42, 'Group name must not be empty']);
  t.deepEqual(told(METRICS, 'm'), [0, '']);
  t.is(told(TOPIC, 'orders', ['DESCRIBE_CONFIGS TOPIC orders'])[0], 29);
  t.is(told(BROKER, '1', ['DESCRIBE_CONFIGS CLUSTER'])[0], 31);
  t.is(told(GROUP, 'g', ['DESCRIBE_CONFIGS GROUP'])[0], 30);
});

test('a resource is described once, however often it is asked for', async (t) => {
  const broker = await withTopic();
  const resource = { resourceType: BROKER, resourceName: '1', configurationKeys: null };
  const { response } = ask(
    broker,
    apis.DescribeConfigs,
    describeConfigs,
    { resources: Array.from({ length: 1000 }, () => resource), includeDocumentation: true },
    { version: 4 },
  );
  t.is(response?.results.length, 1000);
  t.true((response?.results[0].configs.length ?? 0) > 50);
  t.true(response?.results.slice(1).every(({ errorCode, configs }) => errorCode === 42 && configs.length === 0));
});

type Operation = [name: string, operation: number, value: string | null];

function change(
  broker: TopicsBroker,
  resourceType: number,
  resourceName: string,
  operations: Operation[],
  { validateOnly = false, version = 1, ...options }: Partial<AskOptions> & { validateOnly?: boolean } = {},
) {
  const configs = operations.map(([name, configOperation, value]) => ({ name, configOperation, value }));
  const request = { resources: [{ resourceType, resourceName, configs }], validateOnly };
  const asked = ask(broker, apis.IncrementalAlterConfigs, incrementalAlterConfigs, request, { version, ...options });
  const [result] = asked.response?.responses ?? [];
  return [result?.errorCode, result?.errorMessage];
}

for (const version of [0, 1]) {
  test(`IncrementalAlterConfigs ${version} sets and deletes, and open partitions obey`, async (t) => {
    const broker = await withTopic();
    const config = () => broker.topics.get('orders')?.partitions[0].config;
    t.deepEqual(change(broker, TOPIC, 'orders', [['retention.ms', SET, ' 1000 ']], { version }), [0, null]);
    t.deepEqual(one(broker, TOPIC, 'orders', 'retention.ms').slice(0, 2), ['1000', 1]);
    t.is(config()?.retentionMs, 1000);
    t.deepEqual(
      change(
        broker,
        TOPIC,
        'orders',
        [
          ['retention.ms', DELETE, null],
          ['nosuch', DELETE, ''],
          ['max.message.bytes', SET, '9'],
        ],
        { version },
      ),
      [0, null],
    );
    t.is(config()?.retentionMs, 604_800_000);
    t.is(config()?.maxMessageBytes, 9);
  });
}

test('items are appended to lists and taken from them', async (t) => {
  const broker = await withTopic();
  const key = 'leader.replication.throttled.replicas';
  const value = () => one(broker, TOPIC, 'orders', key)[0];
  t.is(change(broker, TOPIC, 'orders', [[key, APPEND, '0:1,1:1']])[0], 0);
  t.is(change(broker, TOPIC, 'orders', [[key, APPEND, '1:1, 2:1']])[0], 0);
  t.is(value(), '0:1,1:1,2:1');
  t.is(change(broker, TOPIC, 'orders', [[key, SUBTRACT, '1:1,9:9']])[0], 0);
  t.is(value(), '0:1,2:1');
  t.is(change(broker, TOPIC, 'orders', [['cleanup.policy', SUBTRACT, 'delete']])[0], 0);
  t.is(broker.topics.get('orders')?.partitions[0].config.retentionMs, -1);
  t.is(change(broker, TOPIC, 'orders', [['cleanup.policy', APPEND, 'delete']])[0], 0);
  t.is(change(broker, TOPIC, 'orders', [['cleanup.policy', APPEND, 'compact']])[0], 0);
  t.is(broker.topics.get('orders')?.partitions[0].config.compaction?.minDirtyRatio, 0.5);
});

test('changes that cannot be made are refused in the words of Apache Kafka, and nothing of them is made', async (t) => {
  const broker = await withTopic();
  const cases: [number, string, Operation[], number, string][] = [
    [TOPIC, 'nosuch', [['retention.ms', SET, '5']], 3, "The topic 'nosuch' does not exist."],
    [TOPIC, '', [['retention.ms', SET, '5']], 42, 'Default topic resources are not allowed.'],
    [TOPIC, 'orders', [['foo', SET, '5']], 40, 'Unknown topic config name: foo'],
    [
      TOPIC,
      'orders',
      [
        ['segment.ms', SET, '5'],
        ['retention.ms', SET, 'x'],
      ],
      40,
      'Invalid value x for configuration retention.ms: Not a number of type LONG',
    ],
    [TOPIC, 'orders', [['retention.ms', SET, null]], 42, 'Null value not supported for : retention.ms'],
    [
      TOPIC,
      'orders',
      [
        ['retention.ms', SET, '5'],
        ['retention.ms', SET, '6'],
      ],
      42,
      'Error due to duplicate config keys',
    ],
    [
      TOPIC,
      'orders',
      [['retention.ms', APPEND, '5']],
      40,
      "Can't APPEND to key retention.ms because its type is not LIST.",
    ],
    [TOPIC, 'orders', [['foo', SUBTRACT, '5']], 40, 'Unknown topic config name: foo'],
    [TOPIC, 'orders', [['retention.ms', 9, '5']], 42, 'Unknown config operation 9'],
    [
      TOPIC,
      '__consumer_offsets',
      [['cleanup.policy', SET, 'delete']],
      44,
      "Topic '__consumer_offsets' is internal; only the broker changes it.",
    ],
    [BROKER, '2', [['log.retention.ms', SET, '5']], 42, 'Unexpected broker id, expected 1, but received 2'],
    [BROKER, 'x', [['log.retention.ms', SET, '5']], 42, 'Node id must be an integer, but it is: x'],
    [BROKER, '1', [['node.id', SET, '5']], 42, 'Cannot update these configs dynamically: [node.id]'],
    [
      BROKER,
      '',
      [['log.cleanup.policy', SET, 'compact']],
      42,
      'Cannot update these configs dynamically: [log.cleanup.policy]',
    ],
    [BROKER, '1', [['foo.bar', SET, '5']], 42, 'Unknown broker config name: foo.bar'],
    [GROUP, 'g', [['foo', SET, '1']], 40, 'Unknown group config name: foo'],
    [GROUP, '', [], 42, 'Default group resources are not allowed.'],
    [
      GROUP,
      'g',
      [['streams.num.standby.replicas', SET, '1']],
      40,
      'Unknown group config name: streams.num.standby.replicas',
    ],
    [
      GROUP,
      'g',
      [['share.isolation.level', APPEND, 'x']],
      40,
      "Can't APPEND to key share.isolation.level because its type is not LIST.",
    ],
    [99, 'x', [], 42, 'Unknown resource type 99'],
  ];
  for (const [type, name, operations, code, message] of cases)
    t.deepEqual(change(broker, type, name, operations), [code, message]);
  t.deepEqual([...(broker.topics.get('orders')?.overrides ?? [])], []);
  t.is(change(broker, BROKER, '1', [['log.retention.ms', SET, 'x']])[0], 42);
  t.is(change(broker, METRICS, 'm', [])[0], 42);
  t.is(change(broker, LOGGER, '1', [])[0], 42);
  t.is(change(broker, TOPIC, 'orders', [], { denied: ['ALTER_CONFIGS TOPIC orders'] })[0], 29);
  t.is(change(broker, BROKER, '1', [], { denied: ['ALTER_CONFIGS CLUSTER'] })[0], 31);
  t.is(change(broker, GROUP, 'g', [], { denied: ['ALTER_CONFIGS GROUP'] })[0], 30);
});

test('configs of a group are set, shown with where they come from, listed and taken back', async (t) => {
  const broker = await withTopic();
  const shown = (key: string) => one(broker, GROUP, 'g', key);
  const session = 'consumer.session.timeout.ms';
  const asOption = ['group.consumer.session.timeout.ms', '45000', 5];
  t.deepEqual(shown(session), ['45000', 5, [asOption]]);
  t.deepEqual(shown('share.auto.offset.reset'), ['latest', 5, [['share.auto.offset.reset', 'latest', 5]]]);
  const set: [string, number, string][] = [
    [session, SET, '50000'],
    ['share.auto.offset.reset', SET, 'by_duration:PT1H'],
    ['nope', DELETE, ''],
  ];
  t.deepEqual(change(broker, GROUP, 'g', set), [0, null]);
  t.deepEqual(shown(session), ['50000', 8, [[session, '50000', 8], asOption]]);
  t.is(broker.topics.groupConfigs.get('g').consumerSessionTimeoutMs, 50_000);
  const listed = () =>
    ask(broker, apis.ListConfigResources, listConfigResources, { resourceTypes: [GROUP] }, { version: 1 }).response
      ?.configResources;
  t.deepEqual(listed(), [{ resourceName: 'g', resourceType: GROUP }]);
  const again = await openTopicsBroker({ engine: broker.engine.restart() });
  t.is(one(again, GROUP, 'g', session)[0], '50000');
  const reset: [string, number, string][] = [
    [session, DELETE, ''],
    ['share.auto.offset.reset', DELETE, ''],
  ];
  t.deepEqual(change(broker, GROUP, 'g', reset), [0, null]);
  t.deepEqual(listed(), []);
  t.is(replace(broker, GROUP, 'g', [['share.delivery.count.limit', '3']], 2)[0], 0);
  t.is(broker.topics.groupConfigs.get('g').shareDeliveryCountLimit, 3);
});

test('a resource twice in a request is changed by neither', async (t) => {
  const broker = await withTopic();
  const resource = (value: string) => ({
    resourceType: TOPIC,
    resourceName: 'orders',
    configs: [{ name: 'retention.ms', configOperation: SET, value }],
  });
  const { response } = ask(
    broker,
    apis.IncrementalAlterConfigs,
    incrementalAlterConfigs,
    { resources: [resource('1'), resource('2')], validateOnly: false },
    { version: 1 },
  );
  t.deepEqual(
    response?.responses.map(({ errorCode, errorMessage }) => [errorCode, errorMessage]),
    Array.from({ length: 2 }, () => [42, 'Each resource must appear at most once.']),
  );
  t.is(broker.topics.get('orders')?.overrides.size, 0);
});

test('options of this node and of all nodes change while running and outlive a restart', async (t) => {
  const broker = await withTopic();
  t.deepEqual(change(broker, BROKER, '', [['message.max.bytes', SET, '500']]), [0, null]);
  t.deepEqual(change(broker, BROKER, '1', [['message.max.bytes', SET, ' 400 ']]), [0, null]);
  t.is(broker.options['message.max.bytes'], 400);
  t.is(broker.topics.get('orders')?.partitions[0].config.maxMessageBytes, 400);
  const again = await openTopicsBroker({ engine: broker.engine.restart() });
  t.is(again.options['message.max.bytes'], 400);
  t.deepEqual(change(again, BROKER, '1', [['message.max.bytes', DELETE, null]]), [0, null]);
  t.is(again.options['message.max.bytes'], 500);
  t.is(again.topics.get('orders')?.partitions[0].config.maxMessageBytes, 500);
});

test('validateOnly checks and changes nothing', async (t) => {
  const broker = await withTopic();
  const options = { validateOnly: true };
  t.deepEqual(change(broker, TOPIC, 'orders', [['retention.ms', SET, '5']], options), [0, null]);
  t.is(change(broker, TOPIC, 'orders', [['retention.ms', SET, 'x']], options)[0], 40);
  t.deepEqual(change(broker, BROKER, '1', [['message.max.bytes', SET, '5']], options), [0, null]);
  t.is(broker.topics.get('orders')?.overrides.size, 0);
  t.is(broker.options['message.max.bytes'], 1_048_588);
});

test('a change is answered when it is durable, and so is who sees it', async (t) => {
  const engine = new MemoryEngine({ durability: 'manual' });
  const broker = await withTopic({ engine });
  engine.sync();
  const configs = [{ name: 'retention.ms', configOperation: SET, value: '5' }];
  const asked = ask(
    broker,
    apis.IncrementalAlterConfigs,
    incrementalAlterConfigs,
    { resources: [{ resourceType: TOPIC, resourceName: 'orders', configs }], validateOnly: false },
    { version: 1 },
  );
  const seen = ask(
    broker,
    apis.DescribeConfigs,
    describeConfigs,
    { resources: [{ resourceType: TOPIC, resourceName: 'orders', configurationKeys: ['retention.ms'] }] },
    { version: 4 },
  );
  t.is(asked.response, undefined);
  t.is(seen.response, undefined);
  engine.sync();
  t.is(asked.response?.responses[0].errorCode, 0);
  t.is(seen.response?.results[0].configs[0].value, '5');
});

function replace(
  broker: TopicsBroker,
  resourceType: number,
  resourceName: string,
  values: [string, string | null][],
  version = 2,
) {
  const configs = values.map(([name, value]) => ({ name, value }));
  const request = { resources: [{ resourceType, resourceName, configs }], validateOnly: false };
  const [result] = ask(broker, apis.AlterConfigs, alterConfigs, request, { version }).response?.responses ?? [];
  return [result?.errorCode, result?.errorMessage];
}

for (const version of [0, 1, 2]) {
  test(`AlterConfigs ${version} replaces everything a resource has of its own`, async (t) => {
    const broker = await withTopic();
    const overrides = () => Object.fromEntries(broker.topics.get('orders')?.overrides ?? []);
    t.deepEqual(
      replace(
        broker,
        TOPIC,
        'orders',
        [
          ['retention.ms', '5'],
          ['segment.ms', '6'],
        ],
        version,
      ),
      [0, null],
    );
    t.deepEqual(overrides(), { 'retention.ms': '5', 'segment.ms': '6' });
    t.deepEqual(replace(broker, TOPIC, 'orders', [['segment.ms', '7']], version), [0, null]);
    t.deepEqual(overrides(), { 'segment.ms': '7' });
    t.deepEqual(replace(broker, TOPIC, 'orders', [['segment.ms', null]], version), [
      42,
      'Null value not supported for : segment.ms',
    ]);
    t.deepEqual(replace(broker, TOPIC, 'orders', [], version), [0, null]);
    t.deepEqual(overrides(), {});
    t.deepEqual(replace(broker, BROKER, '1', [['message.max.bytes', '9']], version), [0, null]);
    t.deepEqual(replace(broker, BROKER, '1', [['num.partitions', '2']], version), [0, null]);
    t.is(broker.options['message.max.bytes'], 1_048_588);
    t.is(broker.options['num.partitions'], 2);
    t.is(replace(broker, TOPIC, '__consumer_offsets', [], version)[0], 44);
    t.deepEqual(replace(broker, TOPIC, 'nosuch', [], version), [3, "The topic 'nosuch' does not exist."]);
  });
}

test('ListConfigResources names topics and the node; version 0 knows client metrics only', async (t) => {
  const broker = await withTopic();
  const list = (version: number, resourceTypes?: number[], denied: string[] = []) =>
    ask(broker, apis.ListConfigResources, listConfigResources, { resourceTypes }, { version, denied }).response;
  const topics = [
    { resourceName: '__consumer_offsets', resourceType: TOPIC },
    { resourceName: 'orders', resourceType: TOPIC },
  ];
  const node = { resourceName: '1', resourceType: BROKER };
  t.deepEqual(list(1, [])?.configResources, [node, ...topics]);
  t.deepEqual(list(1, [TOPIC, TOPIC])?.configResources, topics);
  t.deepEqual(list(1, [GROUP, METRICS, LOGGER])?.configResources, []);
  t.deepEqual(list(0)?.configResources, []);
  t.is(list(1, [99])?.errorCode, 35);
  t.is(list(1, [], ['DESCRIBE_CONFIGS CLUSTER'])?.errorCode, 31);
});
