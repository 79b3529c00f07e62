import test from 'ava';
import { describeCluster, describeTopicPartitions, metadata } from '../../../broker/kafka/metadata.ts';
import { apis } from '../../../protocol/kafka/apis.ts';
import { ZERO_UUID } from '../../../protocol/kafka/fields.ts';
import type { DescribeTopicPartitionsRequestInit, MetadataRequestInit } from '../../../protocol/kafka/messages.ts';
import { ask, type AskOptions } from '../../support/kafka-call.ts';
import { MemoryEngine, type MemoryPartition } from '../../support/memory-engine.ts';
import { openTopicsBroker, type TopicsBroker, type TopicsBrokerOptions } from '../../support/topics-broker.ts';

const UNKNOWN_TOPIC = 3;
const LEADER_NOT_AVAILABLE = 5;
const INVALID_TOPIC = 17;
const TOPIC_DENIED = 29;
const POLICY_VIOLATION = 44;
const INVALID_REQUEST = 42;
const UNKNOWN_ID = 100;
const NOT_ASKED = -2_147_483_648;

const none: ReadonlyMap<string, string> = new Map();

async function withTopics(init: TopicsBrokerOptions = {}): Promise<TopicsBroker> {
  const broker = await openTopicsBroker(init);
  broker.topics.create({ name: 'orders', partitionCount: 3, overrides: none });
  broker.topics.create({ name: 'events', partitionCount: 1, overrides: none });
  broker.topics.ensureInternal('__consumer_offsets', 1, new Map([['cleanup.policy', 'compact']]));
  return broker;
}

function askMetadata(broker: TopicsBroker, request: MetadataRequestInit, options: AskOptions) {
  const { response } = ask(broker, apis.Metadata, metadata, request, options);
  if (!response) throw new Error('Metadata was not answered');
  return response;
}
const named = (...names: string[]): MetadataRequestInit['topics'] => names.map((name) => ({ name }));
const brief = (topics: readonly { name: string | null; errorCode: number }[]) =>
  topics.map(({ name, errorCode }) => [name, errorCode]);

for (let version = 0; version <= 13; version++) {
  test(`version ${version} tells the node, the cluster and every topic`, async (t) => {
    const broker = await withTopics();
    const all = askMetadata(broker, { topics: version === 0 ? [] : null }, { version });
    t.deepEqual(all.brokers, [{ nodeId: 1, host: '127.0.0.1', port: 9092, rack: null }]);
    t.is(all.clusterId, version >= 2 ? 'memory-cluster' : null);
    t.is(all.controllerId, version >= 1 ? 1 : -1);
    t.deepEqual(brief(all.topics), [
      ['__consumer_offsets', 0],
      ['events', 0],
      ['orders', 0],
    ]);
    t.is(all.topics[0].isInternal, version >= 1);
    t.is(all.topics[2].topicId, version >= 10 ? (broker.topics.get('orders')?.id ?? '') : ZERO_UUID);
    t.deepEqual(
      all.topics[2].partitions.map(({ partitionIndex, leaderId, isrNodes }) => [partitionIndex, leaderId, isrNodes]),
      [
        [0, 1, [1]],
        [1, 1, [1]],
        [2, 1, [1]],
      ],
    );
    t.is(all.topics[2].topicAuthorizedOperations, NOT_ASKED);
  });
}

test('from version 1 on an empty list asks for no topic', async (t) => {
  t.deepEqual(askMetadata(await withTopics(), { topics: [] }, { version: 1 }).topics, []);
});

test('topics by name: once each, unknown and bad names with their errors', async (t) => {
  const broker = await withTopics();
  const request = { topics: named('orders', 'orders', 'a b', 'nosuch'), allowAutoTopicCreation: false };
  t.deepEqual(brief(askMetadata(broker, request, { version: 12 }).topics), [
    ['orders', 0],
    ['a b', INVALID_TOPIC],
    ['nosuch', UNKNOWN_TOPIC],
  ]);
});

test('topics by id, and what a request may not mix', async (t) => {
  const broker = await withTopics();
  const id = broker.topics.get('orders')?.id ?? '';
  const unknown = '00000000-0000-0000-0000-000000000777';
  const topics = [
    { topicId: id, name: null },
    { topicId: unknown, name: null },
    { topicId: ZERO_UUID, name: 'events' },
  ];
  t.deepEqual(
    askMetadata(broker, { topics }, { version: 12 }).topics.map(({ name, topicId, errorCode }) => [
      name,
      topicId,
      errorCode,
    ]),
    [
      ['orders', id, 0],
      [null, unknown, UNKNOWN_ID],
    ],
  );
  t.deepEqual(
    brief(
      askMetadata(broker, { topics: [{ topicId: id, name: null }] }, { version: 12, denied: ['DESCRIBE TOPIC'] })
        .topics,
    ),
    [[null, TOPIC_DENIED]],
  );
  for (const version of [10, 11])
    t.deepEqual(brief(askMetadata(broker, { topics: [{ topicId: id, name: null }] }, { version }).topics), [
      ['', INVALID_REQUEST],
    ]);
});

test('an unknown topic is created and answered as created, for versions that cannot say no too', async (t) => {
  const broker = await withTopics({ options: { 'num.partitions': 2 } });
  for (const version of [0, 3, 4, 13]) {
    const [topic] = askMetadata(broker, { topics: named(`fresh-${version}`) }, { version }).topics;
    t.is(topic.errorCode, 0);
    t.is(topic.partitions.length, 2);
    t.truthy(broker.topics.get(`fresh-${version}`));
  }
});

test('a topic is not created when request, option, permission, name or room forbid it', async (t) => {
  const broker = await withTopics({ options: { 'topics.max': 3 } });
  const one = (name: string, options: Partial<AskOptions> & { auto?: boolean } = {}): number =>
    askMetadata(
      broker,
      { topics: named(name), allowAutoTopicCreation: options.auto ?? true },
      { version: 9, ...options },
    ).topics[0].errorCode;
  t.is(one('x', { auto: false }), UNKNOWN_TOPIC);
  t.is(one('x', { denied: ['CREATE CLUSTER', 'CREATE TOPIC'] }), TOPIC_DENIED);
  t.is(one('x', { denied: ['DESCRIBE TOPIC x'] }), TOPIC_DENIED);
  t.is(one('__x'), INVALID_TOPIC);
  t.is(one('x'), POLICY_VIOLATION);
  t.is(broker.topics.size, 3);
  const closed = await withTopics({ options: { 'auto.create.topics.enable': false } });
  t.is(askMetadata(closed, { topics: named('x') }, { version: 9 }).topics[0].errorCode, UNKNOWN_TOPIC);
  const open = await withTopics();
  t.is(askMetadata(open, { topics: named('x') }, { version: 9, denied: ['CREATE CLUSTER'] }).topics[0].errorCode, 0);
});

test('a topic does not come back by itself while clients may still have the id of the one that was deleted', async (t) => {
  const broker = await withTopics();
  const ask = (): number => askMetadata(broker, { topics: named('orders') }, { version: 12 }).topics[0].errorCode;
  const orders = broker.topics.get('orders');
  t.truthy(orders);
  if (orders) broker.topics.delete(orders);
  t.is(ask(), UNKNOWN_TOPIC);
  broker.clock.advance(400);
  t.is(ask(), UNKNOWN_TOPIC);
  broker.clock.advance(100);
  t.is(ask(), 0);
  const again = broker.topics.get('orders');
  if (again) broker.topics.delete(again);
  // Who asks for it in so many words gets it.
  broker.topics.create({ name: 'orders', partitionCount: 1, overrides: none });
  t.is(ask(), 0);
});

test('topics that may not be described are not listed, and named ones are refused without an id', async (t) => {
  const broker = await withTopics();
  const options = { version: 12, denied: ['DESCRIBE TOPIC orders'] };
  t.deepEqual(brief(askMetadata(broker, { topics: null }, options).topics), [
    ['__consumer_offsets', 0],
    ['events', 0],
  ]);
  const [topic] = askMetadata(broker, { topics: named('orders') }, options).topics;
  t.is(topic.errorCode, TOPIC_DENIED);
  t.is(topic.topicId, ZERO_UUID);
});

test('authorized operations are the bits of Apache Kafka', async (t) => {
  const broker = await withTopics();
  const request = {
    topics: named('orders'),
    includeTopicAuthorizedOperations: true,
    includeClusterAuthorizedOperations: true,
  };
  const response = askMetadata(broker, request, { version: 10 });
  t.is(response.topics[0].topicAuthorizedOperations, 3576);
  t.is(response.clusterAuthorizedOperations, 8096);
  const denied = askMetadata(broker, request, { version: 8, denied: ['DESCRIBE CLUSTER', 'WRITE TOPIC'] });
  t.is(denied.topics[0].topicAuthorizedOperations, 3576 - 16);
  t.is(denied.clusterAuthorizedOperations, 0);
});

test('an answer that shows a fresh topic waits until the topic is durable', async (t) => {
  const engine = new MemoryEngine({ durability: 'manual' });
  const broker = await openTopicsBroker({ engine });
  const first = ask(broker, apis.Metadata, metadata, { topics: named('fresh') }, { version: 9 });
  const second = ask(broker, apis.Metadata, metadata, { topics: null }, { version: 9 });
  t.is(first.response, undefined);
  t.is(second.response, undefined);
  engine.sync();
  t.is(first.response?.topics[0].errorCode, 0);
  t.is(second.response?.topics.length, 1);
});

test('a fenced partition has no leader', async (t) => {
  const broker = await withTopics();
  (broker.topics.partition('orders', 1) as MemoryPartition).fence();
  const [topic] = askMetadata(broker, { topics: named('orders') }, { version: 9 }).topics;
  t.deepEqual(
    topic.partitions.map(({ errorCode, leaderId }) => [errorCode, leaderId]),
    [
      [0, 1],
      [LEADER_NOT_AVAILABLE, -1],
      [0, 1],
    ],
  );
  t.deepEqual(topic.partitions[1].offlineReplicas, [1]);
});

test('the advertised address follows the connection', async (t) => {
  const connection = { localHost: '10.0.0.7', localPort: 19_092 };
  const broker = await withTopics();
  t.like(askMetadata(broker, { topics: [] }, { version: 9, connection }).brokers[0], {
    host: '10.0.0.7',
    port: 19_092,
  });
  const { response } = ask(
    broker,
    apis.DescribeCluster,
    describeCluster,
    { includeClusterAuthorizedOperations: false },
    { version: 0, connection },
  );
  t.like(response?.brokers[0], { host: '10.0.0.7', port: 19_092 });
});

test('DescribeCluster answers for brokers only', async (t) => {
  const broker = await withTopics();
  const cluster = (version: number, endpointType?: number, denied: string[] = []) =>
    ask(
      broker,
      apis.DescribeCluster,
      describeCluster,
      { includeClusterAuthorizedOperations: true, endpointType },
      { version, denied },
    ).response;
  for (const version of [0, 1, 2])
    t.like(cluster(version), {
      errorCode: 0,
      clusterId: 'memory-cluster',
      controllerId: 1,
      clusterAuthorizedOperations: 8096,
    });
  t.is(cluster(2, 1, ['DESCRIBE CLUSTER'])?.clusterAuthorizedOperations, 0);
  t.like(cluster(1, 2), { errorCode: 114, brokers: [] });
  t.like(cluster(2, 3), { errorCode: 115, errorMessage: 'Unsupported endpoint type 3' });
});

const page = (broker: TopicsBroker, request: Partial<DescribeTopicPartitionsRequestInit>, denied: string[] = []) => {
  const { response } = ask(
    broker,
    apis.DescribeTopicPartitions,
    describeTopicPartitions,
    { topics: [], ...request },
    { version: 0, denied },
  );
  if (!response) throw new Error('DescribeTopicPartitions was not answered');
  return {
    topics: response.topics.map(({ name, errorCode, partitions }) => [
      name,
      errorCode,
      partitions.map(({ partitionIndex }) => partitionIndex),
    ]),
    next: response.nextCursor && [response.nextCursor.topicName, response.nextCursor.partitionIndex],
  };
};

test('DescribeTopicPartitions pages through all topics in order', async (t) => {
  const broker = await withTopics();
  t.deepEqual(page(broker, { responsePartitionLimit: 3 }), {
    topics: [
      ['__consumer_offsets', 0, [0]],
      ['events', 0, [0]],
      ['orders', 0, [0]],
    ],
    next: ['orders', 1],
  });
  t.deepEqual(page(broker, { responsePartitionLimit: 3, cursor: { topicName: 'orders', partitionIndex: 1 } }), {
    topics: [['orders', 0, [1, 2]]],
    next: null,
  });
  t.deepEqual(page(broker, { responsePartitionLimit: 2 }).next, ['orders', 0]);
  t.deepEqual(page(broker, { responsePartitionLimit: 0 }).next, ['events', 0]);
  // A topic that was deleted between two pages is stepped over.
  t.deepEqual(page(broker, { cursor: { topicName: 'eventa', partitionIndex: 3 } }).topics, [
    ['events', 0, [0]],
    ['orders', 0, [0, 1, 2]],
  ]);
});

test('DescribeTopicPartitions by name: unknown, bad and forbidden names, and cursors that fit nothing', async (t) => {
  const broker = await withTopics();
  const topics = [{ name: 'orders' }, { name: 'nosuch' }, { name: 'a b' }, { name: 'events' }];
  t.deepEqual(page(broker, { topics }, ['DESCRIBE TOPIC events']).topics, [
    ['a b', INVALID_TOPIC, []],
    ['nosuch', UNKNOWN_TOPIC, []],
    ['orders', 0, [0, 1, 2]],
    ['events', TOPIC_DENIED, []],
  ]);
  t.is(broker.topics.get('nosuch'), undefined);
  const orders = [{ name: 'orders' }];
  for (const cursor of [
    { topicName: 'orders', partitionIndex: -1 },
    { topicName: 'other', partitionIndex: 0 },
  ])
    t.deepEqual(page(broker, { topics: orders, cursor }), { topics: [['orders', INVALID_REQUEST, []]], next: null });
  t.deepEqual(page(broker, { topics: orders, cursor: { topicName: 'orders', partitionIndex: 9 } }), {
    topics: [['orders', 0, []]],
    next: null,
  });
});

test('the broker’s own limit of partitions in a page wins', async (t) => {
  const broker = await withTopics({ options: { 'max.request.partition.size.limit': 2 } });
  t.deepEqual(page(broker, { responsePartitionLimit: 2000 }).next, ['orders', 0]);
});
