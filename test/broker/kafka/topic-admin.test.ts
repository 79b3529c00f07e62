import test from 'ava';
import { createPartitions, createTopics, deleteTopics } from '../../../broker/kafka/topic-admin.ts';
import { apis } from '../../../protocol/kafka/apis.ts';
import { ZERO_UUID } from '../../../protocol/kafka/fields.ts';
import type {
  CreatePartitionsRequestTopicInit,
  CreateTopicsRequestTopicInit,
  DeleteTopicsRequestTopicInit,
} from '../../../protocol/kafka/messages.ts';
import { ask, type AskOptions } from '../../support/kafka-call.ts';
import { MemoryEngine } from '../../support/memory-engine.ts';
import { openTopicsBroker, type TopicsBroker } from '../../support/topics-broker.ts';

const none: ReadonlyMap<string, string> = new Map();

const topic = (name: string, rest: Partial<CreateTopicsRequestTopicInit> = {}): CreateTopicsRequestTopicInit => ({
  name,
  numPartitions: 1,
  replicationFactor: 1,
  assignments: [],
  configs: [],
  ...rest,
});
const assigned = (...assignments: [number, number[]][]): Partial<CreateTopicsRequestTopicInit> => ({
  numPartitions: -1,
  replicationFactor: -1,
  assignments: assignments.map(([partitionIndex, brokerIds]) => ({ partitionIndex, brokerIds })),
});

function create(
  broker: TopicsBroker,
  topics: CreateTopicsRequestTopicInit[],
  { validateOnly = false, version = 7, ...options }: Partial<AskOptions> & { validateOnly?: boolean } = {},
) {
  const asked = ask(broker, apis.CreateTopics, createTopics, { topics, validateOnly }, { version, ...options });
  if (!asked.response) throw new Error('CreateTopics was not answered');
  return asked.response.topics;
}
const told = (results: readonly { name: string | null; errorCode: number; errorMessage: string | null }[]) =>
  results.map(({ name, errorCode, errorMessage }) => [name, errorCode, errorMessage]);

for (let version = 2; version <= 7; version++) {
  test(`CreateTopics ${version} creates, and says what its version can say`, async (t) => {
    const broker = await openTopicsBroker({ options: { 'num.partitions': 4 } });
    const [made, standard] = create(
      broker,
      [
        topic('a', { numPartitions: 2, configs: [{ name: 'retention.ms', value: ' 77 ' }] }),
        topic('b', { numPartitions: -1, replicationFactor: -1 }),
      ],
      { version },
    );
    t.like(made, { name: 'a', errorCode: 0 });
    t.like(standard, { name: 'b', errorCode: 0 });
    t.is(broker.topics.get('a')?.partitions.length, 2);
    t.is(broker.topics.get('b')?.partitions.length, 4);
    t.is(broker.topics.get('a')?.partitions[1].config.retentionMs, 77);
    t.is(made.topicId, version >= 7 ? (broker.topics.get('a')?.id ?? '') : ZERO_UUID);
    t.is(standard.numPartitions, version >= 5 ? 4 : -1);
    t.is(standard.replicationFactor, version >= 5 ? 1 : -1);
    const retention = made.configs?.find(({ name }) => name === 'retention.ms');
    t.deepEqual(
      retention,
      version >= 5
        ? { name: 'retention.ms', value: '77', readOnly: false, configSource: 1, isSensitive: false }
        : undefined,
    );
  });
}

test('what is asked for wrongly is refused topic by topic, in the words of Apache Kafka', async (t) => {
  const broker = await openTopicsBroker();
  create(broker, [topic('a.b')]);
  const cases: [CreateTopicsRequestTopicInit, number, string][] = [
    [topic('a.b'), 36, "Topic 'a.b' already exists."],
    [topic('a_b'), 17, "Topic 'a_b' collides with existing topic: a.b"],
    [topic(''), 17, 'Topic name is invalid: the empty string is not allowed'],
    [topic('..'), 17, "Topic name is invalid: '..' is not allowed"],
    [
      topic('a b'),
      17,
      "Topic name is invalid: 'a b' contains one or more characters other than ASCII alphanumerics, '.', '_' and '-'",
    ],
    [topic('__x'), 17, "Topic name is invalid: names that start with '__', as '__x' does, belong to the broker"],
    [topic('__cluster_metadata'), 42, 'Creation of internal topic __cluster_metadata is prohibited.'],
    [
      topic('r0', { replicationFactor: 0 }),
      38,
      'Replication factor must be larger than 0, or -1 to use the default value.',
    ],
    [topic('p0', { numPartitions: 0 }), 37, 'Number of partitions was set to an invalid non-positive value.'],
    [topic('p-2', { numPartitions: -2 }), 37, 'Number of partitions was set to an invalid non-positive value.'],
    [
      topic('r2', { replicationFactor: 2 }),
      38,
      'Unable to replicate the partition 2 time(s): The target replication factor of 2 cannot be reached because only 1 broker(s) are registered.',
    ],
    [topic('c', { configs: [{ name: 'foo', value: '1' }] }), 40, 'Unknown topic config name: foo'],
    [
      topic('n', { configs: [{ name: 'retention.ms', value: null }] }),
      40,
      'Null value not supported for topic configs: retention.ms',
    ],
    // The configs are looked at before the numbers.
    [topic('cn', { numPartitions: 0, configs: [{ name: 'foo', value: '1' }] }), 40, 'Unknown topic config name: foo'],
    [topic('g', assigned([0, [1]], [2, [1]])), 39, 'partitions should be a consecutive 0-based integer sequence'],
    [
      topic('u', assigned([0, [7]])),
      39,
      'The manual partition assignment includes broker 7, but no such broker is registered.',
    ],
    [topic('d', assigned([0, [1, 1]])), 39, 'The manual partition assignment includes the broker 1 more than once.'],
    [topic('e', assigned([0, []])), 39, 'The manual partition assignment includes an empty replica list.'],
    [topic('m', assigned([0, [1]], [0, [1]])), 39, 'Found multiple manual partition assignments for partition 0'],
    [
      topic('ar', { ...assigned([0, [1]]), replicationFactor: 1 }),
      42,
      'A manual partition assignment was specified, but replication factor was not set to -1.',
    ],
    [
      topic('an', { ...assigned([0, [1]]), numPartitions: 1 }),
      42,
      'A manual partition assignment was specified, but numPartitions was not set to -1.',
    ],
  ];
  const results = create(broker, [...cases.map(([request]) => request), topic('good')]);
  t.deepEqual(told(results), [...cases.map(([{ name }, code, message]) => [name, code, message]), ['good', 0, null]]);
  t.deepEqual(
    broker.topics.all().map(({ name }) => name),
    ['a.b', 'good'],
  );
});

test('a manual assignment to this node works', async (t) => {
  const broker = await openTopicsBroker();
  t.is(create(broker, [topic('a', assigned([1, [1]], [0, [1]]))])[0].numPartitions, 2);
  t.is(broker.topics.get('a')?.partitions.length, 2);
});

test('a name twice in a request is refused once and not created', async (t) => {
  const broker = await openTopicsBroker();
  t.deepEqual(told(create(broker, [topic('d'), topic('d'), topic('e')])), [
    ['d', 42, 'Duplicate topic name.'],
    ['e', 0, null],
  ]);
  t.is(broker.topics.get('d'), undefined);
});

test('too many partitions in a request are refused', async (t) => {
  const broker = await openTopicsBroker();
  const refusal = 'Excessively large number of partitions per request.';
  t.deepEqual(told(create(broker, [topic('a', { numPartitions: 2_000_000_000 }), topic('b')])), [
    ['a', 44, refusal],
    ['b', 44, refusal],
  ]);
});

test('validateOnly checks and changes nothing', async (t) => {
  const broker = await openTopicsBroker();
  create(broker, [topic('a')]);
  const [fine, exists] = create(broker, [topic('v', { numPartitions: 3 }), topic('a')], { validateOnly: true });
  t.like(fine, { errorCode: 0, numPartitions: 3 });
  t.is(exists.errorCode, 36);
  t.is(broker.topics.get('v'), undefined);
});

test('creating needs CREATE on cluster or topic; seeing the configs DESCRIBE_CONFIGS', async (t) => {
  const broker = await openTopicsBroker();
  t.deepEqual(told(create(broker, [topic('a')], { denied: ['CREATE CLUSTER', 'CREATE TOPIC a'] })), [
    ['a', 29, 'Authorization failed.'],
  ]);
  const [made] = create(broker, [topic('b')], { denied: ['CREATE CLUSTER', 'DESCRIBE_CONFIGS TOPIC'] });
  t.like(made, { errorCode: 0, topicConfigErrorCode: 29, numPartitions: -1, replicationFactor: -1, configs: [] });
});

test('creation and "already exists" are answered when the topic is durable', async (t) => {
  const engine = new MemoryEngine({ durability: 'manual' });
  const broker = await openTopicsBroker({ engine });
  const request = { topics: [topic('a')] };
  const first = ask(broker, apis.CreateTopics, createTopics, request, { version: 5 });
  const second = ask(broker, apis.CreateTopics, createTopics, request, { version: 5 });
  t.is(first.response, undefined);
  t.is(second.response, undefined);
  engine.sync();
  t.is(first.response?.topics[0].errorCode, 0);
  t.is(second.response?.topics[0].errorCode, 36);
});

function remove(broker: TopicsBroker, topics: Partial<DeleteTopicsRequestTopicInit>[], denied: string[] = []) {
  const request = { topics: topics.map((each) => ({ name: null, topicId: ZERO_UUID, ...each })), timeoutMs: 1 };
  const asked = ask(broker, apis.DeleteTopics, deleteTopics, request, { version: 6, denied });
  return asked.response?.responses.map(({ name, topicId, errorCode }) => [name, topicId, errorCode]);
}

for (let version = 1; version <= 6; version++) {
  test(`DeleteTopics ${version} deletes by name`, async (t) => {
    const broker = await openTopicsBroker();
    create(broker, [topic('a'), topic('b')]);
    const names = ['a', 'nosuch'];
    const request =
      version >= 6
        ? { topics: names.map((name) => ({ name, topicId: ZERO_UUID })), timeoutMs: 1 }
        : { topicNames: names, timeoutMs: 1 };
    const { response } = ask(broker, apis.DeleteTopics, deleteTopics, request, { version });
    t.deepEqual(told(response?.responses ?? []), [
      ['a', 0, null],
      ['nosuch', 3, version >= 5 ? 'This server does not host this topic-partition.' : null],
    ]);
    t.deepEqual(
      broker.topics.all().map(({ name }) => name),
      ['b'],
    );
  });
}

test('deleting by id, and every way to name a topic wrongly', async (t) => {
  const broker = await openTopicsBroker();
  create(broker, [topic('a'), topic('b'), topic('c')]);
  const idOf = (name: string): string => broker.topics.get(name)?.id ?? '';
  const [a, b] = [idOf('a'), idOf('b')];
  const unknown = '00000000-0000-0000-0000-000000000777';
  t.deepEqual(remove(broker, [{ topicId: a }, { topicId: unknown }]), [
    ['a', a, 0],
    [null, unknown, 100],
  ]);
  t.deepEqual(broker.forgotten, ['a']);
  t.deepEqual(
    remove(broker, [{ name: 'b', topicId: b }, {}, { name: 'c' }, { name: 'c' }, { topicId: b }, { topicId: b }]),
    [
      ['b', b, 42],
      [null, ZERO_UUID, 42],
      ['c', ZERO_UUID, 42],
      [null, b, 42],
    ],
  );
  t.deepEqual(remove(broker, [{ name: 'b' }, { topicId: b }]), [
    ['b', b, 0],
    [null, b, 42],
  ]);
});

test('deleting needs DELETE, and without DESCRIBE nobody learns what exists', async (t) => {
  const broker = await openTopicsBroker();
  create(broker, [topic('a')]);
  const id = broker.topics.get('a')?.id ?? '';
  t.deepEqual(remove(broker, [{ name: 'a' }, { name: 'nosuch' }], ['DESCRIBE TOPIC']), [
    ['a', ZERO_UUID, 29],
    ['nosuch', ZERO_UUID, 29],
  ]);
  t.deepEqual(remove(broker, [{ topicId: id }], ['DELETE TOPIC a']), [[null, id, 29]]);
  t.is(broker.topics.size, 1);
});

test('deletion may be switched off, and internal topics stay', async (t) => {
  const broker = await openTopicsBroker({ options: { 'delete.topic.enable': false } });
  create(broker, [topic('a')]);
  t.is(remove(broker, [{ name: 'a' }])?.[0][2], 73);
  const { response } = ask(
    broker,
    apis.DeleteTopics,
    deleteTopics,
    { topicNames: ['a'], timeoutMs: 1 },
    { version: 2 },
  );
  t.is(response?.responses[0].errorCode, 42);
  const open = await openTopicsBroker();
  open.topics.ensureInternal('__consumer_offsets', 1, none);
  t.is(remove(open, [{ name: '__consumer_offsets' }])?.[0][2], 44);
  t.is(open.topics.size, 1);
});

function grow(
  broker: TopicsBroker,
  topics: Partial<CreatePartitionsRequestTopicInit>[],
  { version = 3, validateOnly = false, ...options }: Partial<AskOptions> & { validateOnly?: boolean } = {},
) {
  const request = {
    topics: topics.map((each) => ({ name: 'a', count: 3, assignments: null, ...each })),
    timeoutMs: 1,
    validateOnly,
  };
  return told(
    ask(broker, apis.CreatePartitions, createPartitions, request, { version, ...options }).response?.results ?? [],
  );
}
const replicas = (...lists: number[][]) => ({ assignments: lists.map((brokerIds) => ({ brokerIds })) });

for (let version = 0; version <= 3; version++) {
  test(`CreatePartitions ${version} adds partitions`, async (t) => {
    const broker = await openTopicsBroker();
    create(broker, [topic('a')]);
    t.deepEqual(grow(broker, [{ count: 3 }], { version }), [['a', 0, null]]);
    t.is(broker.topics.get('a')?.partitions.length, 3);
  });
}

test('partitions that cannot be added are refused in the words of Apache Kafka', async (t) => {
  const broker = await openTopicsBroker();
  create(broker, [topic('a', { numPartitions: 2 })]);
  broker.topics.ensureInternal('__consumer_offsets', 1, none);
  const one = (request: Partial<CreatePartitionsRequestTopicInit>, options: Partial<AskOptions> = {}) =>
    grow(broker, [request], options)[0].slice(1);
  t.deepEqual(one({ count: 2 }), [37, 'Topic already has 2 partition(s).']);
  t.deepEqual(one({ count: 1 }), [37, 'The topic a currently has 2 partition(s); 1 would not be an increase.']);
  t.deepEqual(one({ count: -1 }), [37, 'The topic a currently has 2 partition(s); -1 would not be an increase.']);
  t.deepEqual(one({ count: 20_000 }), [44, 'Excessively large number of additional partitions per request.']);
  t.deepEqual(one({ name: 'nosuch' }), [3, 'This server does not host this topic-partition.']);
  t.deepEqual(one({ count: 4, ...replicas([1]) }), [
    39,
    'Attempted to add 2 additional partition(s), but only 1 assignment(s) were specified.',
  ]);
  t.deepEqual(one({ ...replicas([9]) }), [
    39,
    'The manual partition assignment includes broker 9, but no such broker is registered.',
  ]);
  t.is(one({ name: '__consumer_offsets' })[0], 44);
  t.is(one({}, { denied: ['ALTER TOPIC a'] })[0], 29);
  t.deepEqual(grow(broker, [{}, {}]), [['a', 42, 'Duplicate topic name.']]);
  t.deepEqual(grow(broker, [{}], { validateOnly: true }), [['a', 0, null]]);
  t.is(broker.topics.get('a')?.partitions.length, 2);
  t.deepEqual(one({ count: 4, ...replicas([1], [1]) }), [0, null]);
  t.is(broker.topics.get('a')?.partitions.length, 4);
});
