import test from 'ava';
import type { AppendOptions } from '../../../broker/engine.ts';
import {
  deleteRecords,
  describeLogDirs,
  listPartitionReassignments,
  offsetForLeaderEpoch,
} from '../../../broker/kafka/log-admin.ts';
import { apis } from '../../../protocol/kafka/apis.ts';
import { buildBatch } from '../../../protocol/record-batch.ts';
import { ask, type AskOptions } from '../../support/kafka-call.ts';
import { MemoryEngine, type MemoryPartition } from '../../support/memory-engine.ts';
import { openTopicsBroker, type TopicsBroker } from '../../support/topics-broker.ts';

const none: ReadonlyMap<string, string> = new Map();
const CLIENT: AppendOptions = { origin: 'client', urgency: 'waited' };
const batch = buildBatch([{ key: null, value: Buffer.from('v'), timestamp: 1 }]);

/** Topic `orders` with two partitions; the first holds `count` records. */
async function withRecords(count: number, engine = new MemoryEngine()): Promise<TopicsBroker> {
  const broker = await openTopicsBroker({ engine });
  const topic = broker.topics.create({ name: 'orders', partitionCount: 2, overrides: none });
  broker.topics.ensureInternal('__consumer_offsets', 1, new Map([['cleanup.policy', 'compact']]));
  for (let index = 0; index < count; index++) topic.partitions[0].append(batch, CLIENT);
  return broker;
}

type Target = [partition: number, offset: number];

function askDelete(broker: TopicsBroker, targets: Record<string, Target[]>, options: Partial<AskOptions> = {}) {
  const topics = Object.entries(targets).map(([name, partitions]) => ({
    name,
    partitions: partitions.map(([partitionIndex, offset]) => ({ partitionIndex, offset })),
  }));
  return ask(broker, apis.DeleteRecords, deleteRecords, { topics, timeoutMs: 1 }, { version: 2, ...options });
}
function remove(broker: TopicsBroker, targets: Record<string, Target[]>, options: Partial<AskOptions> = {}) {
  return askDelete(broker, targets, options).response?.topics.map(({ name, partitions }) => [
    name,
    ...partitions.map(({ lowWatermark, errorCode }) => [lowWatermark, errorCode]),
  ]);
}

for (const version of [0, 1, 2]) {
  test(`DeleteRecords ${version} moves the start up and never down`, async (t) => {
    const broker = await withRecords(5);
    t.deepEqual(remove(broker, { orders: [[0, 2]] }, { version }), [['orders', [2, 0]]]);
    t.is(broker.topics.partition('orders', 0)?.startOffset, 2);
    t.deepEqual(remove(broker, { orders: [[0, 1]] }, { version }), [['orders', [2, 0]]]);
    t.deepEqual(
      remove(
        broker,
        {
          orders: [
            [0, -1],
            [1, -1],
          ],
        },
        { version },
      ),
      [['orders', [5, 0], [0, 0]]],
    );
    t.is((await openTopicsBroker({ engine: broker.engine.restart() })).topics.partition('orders', 0)?.startOffset, 5);
  });
}

test('records that cannot be deleted are refused, partition by partition', async (t) => {
  const broker = await withRecords(3);
  const targets: Record<string, Target[]> = {
    orders: [
      [0, 4],
      [9, 0],
      [1, 0],
    ],
    nosuch: [[0, 0]],
    __consumer_offsets: [[0, 0]],
  };
  t.deepEqual(remove(broker, targets), [
    ['orders', [-1, 1], [-1, 3], [0, 0]],
    ['nosuch', [-1, 3]],
    ['__consumer_offsets', [-1, 17]],
  ]);
  t.deepEqual(remove(broker, { orders: [[0, -2]] }), [['orders', [-1, 1]]]);
  t.deepEqual(remove(broker, { orders: [[0, 2]] }, { denied: ['DELETE TOPIC orders'] }), [['orders', [-1, 29]]]);
  (broker.topics.partition('orders', 0) as MemoryPartition).fence();
  t.deepEqual(remove(broker, { orders: [[0, 2]] }), [['orders', [-1, 56]]]);
});

test('a partition named several times counts once, with its last offset', async (t) => {
  const broker = await withRecords(3);
  const topics = [
    {
      name: 'orders',
      partitions: [
        { partitionIndex: 0, offset: 3 },
        { partitionIndex: 0, offset: 2 },
      ],
    },
    { name: 'orders', partitions: [{ partitionIndex: 0, offset: 1 }] },
  ];
  const { response } = ask(broker, apis.DeleteRecords, deleteRecords, { topics, timeoutMs: 1 }, { version: 2 });
  t.deepEqual(response?.topics, [
    { name: 'orders', partitions: [{ partitionIndex: 0, lowWatermark: 1, errorCode: 0 }] },
  ]);
});

test('nothing above the high watermark is deleted, and the answer waits for the sync, a second one for the first too', async (t) => {
  const engine = new MemoryEngine({ durability: 'manual' });
  const broker = await withRecords(2, engine);
  engine.sync();
  broker.topics.partition('orders', 0)?.append(batch, CLIENT);
  t.deepEqual(remove(broker, { orders: [[0, 3]] }), [['orders', [-1, 1]]]);
  const first = askDelete(broker, { orders: [[0, -1]] });
  const second = askDelete(broker, { orders: [[0, 1]] });
  t.is(first.response, undefined);
  t.is(second.response, undefined);
  engine.sync();
  t.is(first.response?.topics[0].partitions[0].lowWatermark, 2);
  t.is(second.response?.topics[0].partitions[0].lowWatermark, 2);
});

function epochs(broker: TopicsBroker, asked: [number, number, number][], options: Partial<AskOptions> = {}) {
  const version = options.version ?? 4;
  const partitions = asked.map(([partition, currentLeaderEpoch, leaderEpoch]) => ({
    partition,
    currentLeaderEpoch,
    leaderEpoch,
  }));
  const request = { ...(version >= 3 ? { replicaId: -1 } : {}), topics: [{ topic: 'orders', partitions }] };
  const { response } = ask(broker, apis.OffsetForLeaderEpoch, offsetForLeaderEpoch, request, { ...options, version });
  return response?.topics[0].partitions.map(({ errorCode, leaderEpoch, endOffset }) => [
    errorCode,
    leaderEpoch,
    endOffset,
  ]);
}

for (const version of [2, 3, 4]) {
  test(`OffsetForLeaderEpoch ${version} tells where each epoch ends`, async (t) => {
    const before = await withRecords(3);
    const broker = await openTopicsBroker({ engine: before.engine.restart() });
    broker.topics.partition('orders', 0)?.append(batch, CLIENT);
    t.deepEqual(
      epochs(
        broker,
        [
          [0, -1, 0],
          [0, 1, 1],
          [0, -1, 5],
          [0, -1, -1],
          [0, 0, 0],
          [0, 2, 0],
          [9, -1, 0],
        ],
        { version },
      ),
      [
        [0, 0, 3],
        [0, 1, 4],
        [0, -1, -1],
        [0, -1, -1],
        [74, -1, -1],
        [75, -1, -1],
        [3, -1, -1],
      ],
    );
    t.deepEqual(epochs(broker, [[0, -1, 0]], { version, denied: ['DESCRIBE TOPIC'] }), [[29, -1, -1]]);
  });
}

test('an epoch ends for readers where the high watermark is', async (t) => {
  const engine = new MemoryEngine({ durability: 'manual' });
  const broker = await withRecords(1, engine);
  engine.sync();
  broker.topics.partition('orders', 0)?.append(batch, CLIENT);
  t.deepEqual(epochs(broker, [[0, 0, 0]]), [[0, 0, 1]]);
});

for (let version = 1; version <= 5; version++) {
  test(`DescribeLogDirs ${version} tells sizes in the one data folder`, async (t) => {
    const broker = await withRecords(2);
    const dirs = (topics: { topic: string; partitions: number[] }[] | null, denied: string[] = []) =>
      ask(broker, apis.DescribeLogDirs, describeLogDirs, { topics }, { version, denied }).response;
    const all = dirs(null);
    t.is(all?.results[0].logDir, '/memory');
    t.deepEqual(
      all?.results[0].topics.map(({ name, partitions }) => [
        name,
        ...partitions.map(({ partitionIndex, partitionSize }) => [partitionIndex, partitionSize]),
      ]),
      [
        ['__consumer_offsets', [0, 0]],
        ['orders', [0, 2 * batch.length], [1, 0]],
      ],
    );
    const some = dirs([
      { topic: 'orders', partitions: [1, 1, 9] },
      { topic: 'orders', partitions: [1] },
      { topic: 'nosuch', partitions: [0] },
    ]);
    t.deepEqual(
      some?.results[0].topics.map(({ name, partitions }) => [name, partitions.length]),
      [['orders', 1]],
    );
    t.deepEqual(dirs([])?.results[0].topics, []);
    const denied = dirs(null, ['DESCRIBE CLUSTER']);
    t.deepEqual(denied?.results, []);
    t.is(denied?.errorCode, version >= 3 ? 31 : 0);
  });
}

test('no partition is ever being reassigned', async (t) => {
  const broker = await withRecords(0);
  const list = (denied: string[] = []) =>
    ask(broker, apis.ListPartitionReassignments, listPartitionReassignments, { topics: null }, { version: 0, denied })
      .response;
  t.like(list(), { errorCode: 0, errorMessage: null, topics: [] });
  t.like(list(['DESCRIBE CLUSTER']), { errorCode: 31, topics: [] });
});
