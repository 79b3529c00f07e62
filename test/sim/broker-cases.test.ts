/** Mistakes that the simulation of the whole broker has found, each in a few lines: the real broker, one client or two. */
import test from 'ava';
import { resolveOptions } from '../../broker/config.ts';
import { errors } from '../../protocol/errors.ts';
import { buildBatch, readRecords } from '../../protocol/record-batch.ts';
import { SimRandom } from '../support/sim-random.ts';
import { createWorld } from './broker-run.ts';
import { SimClient, type World } from './clients.ts';

interface Bench extends AsyncDisposable {
  world: World;
  client: SimClient;
  /** Runs the world until `promise` is settled. */
  settle: <T>(promise: Promise<T>) => Promise<T>;
  restart: () => Promise<void>;
}

async function openBench(options: Record<string, string | number | boolean> = {}): Promise<Bench> {
  const failures: string[] = [];
  const listeners = { note: () => {}, fail: (text: string) => void failures.push(text) };
  const small = { 'journal.file.bytes': 1024 * 1024, 'log.disk.reserve.bytes': 0, ...options };
  const world = createWorld(new SimRandom(1), listeners, resolveOptions(small));
  const settle = <T>(promise: Promise<T>): Promise<T> => world.clock.settle(promise);
  const client = new SimClient(world, 'client', { isGood: true });
  const restart = async (): Promise<void> => {
    await settle(world.node.start());
    await settle(client.connect());
  };
  await restart();
  return {
    world,
    client,
    settle,
    restart,
    async [Symbol.asyncDispose]() {
      await settle(world.node.stop());
      if (failures.length > 0) throw new Error(failures.join('\n'));
    },
  };
}

async function createTopic({ client }: Bench, configs: Record<string, string> = {}): Promise<string> {
  const answer = await client.ask('CreateTopics', 7, {
    topics: [
      {
        name: 'topic',
        numPartitions: 1,
        replicationFactor: 1,
        assignments: [],
        configs: Object.entries(configs).map(([name, value]) => ({ name, value })),
      },
    ],
  });
  return answer?.topics[0]?.topicId ?? 'not created';
}

async function produce({ client }: Bench, topicId: string, value: string, baseSequence = -1): Promise<number> {
  const identity = baseSequence < 0 ? {} : { producerId: 77, producerEpoch: 0, baseSequence };
  const records = buildBatch([{ key: null, value: Buffer.from(value), timestamp: 1_700_000_000_000 }], identity);
  const topicData = [{ topicId, partitionData: [{ index: 0, records }] }];
  const answer = await client.ask('Produce', 13, { acks: -1, timeoutMs: 1000, topicData });
  return answer?.responses[0]?.partitionResponses[0]?.errorCode ?? -1;
}

async function fetchOne(
  client: SimClient,
  topicId: string,
  fetchOffset: number,
  maxWaitMs = 0,
): Promise<{ errorCode: number; value: string | undefined }> {
  const partitions = [{ partition: 0, fetchOffset, partitionMaxBytes: 1 }];
  const request = { maxWaitMs, minBytes: 1, topics: [{ topicId, partitions }] };
  const found = (await client.ask('Fetch', 13, request, maxWaitMs))?.responses[0]?.partitions[0];
  const bytes = found?.records ?? Buffer.alloc(0);
  const value = bytes.length === 0 ? undefined : readRecords(bytes, 0)[0].value?.toString();
  return { errorCode: found?.errorCode ?? -1, value };
}

test('a fetch that waits when its topic is deleted is answered', async (t) => {
  await using bench = await openBench();
  const { world, settle } = bench;
  const topicId = await settle(createTopic(bench));
  const other = new SimClient(world, 'other', { isGood: true });
  await settle(other.connect());
  const waiting = fetchOne(other, topicId, 0, 20_000);
  await world.clock.advance(100);
  const deleted = await settle(
    bench.client.ask('DeleteTopics', 6, { topics: [{ name: null, topicId }], timeoutMs: 1000 }),
  );
  t.is(deleted?.responses[0]?.errorCode, 0);
  t.is((await settle(waiting)).errorCode, errors.UNKNOWN_TOPIC_ID.kafka);
  t.true(world.clock.monotonic() < 1000);
});

test('a connection at its limit of requests reads on after an answer from a file', async (t) => {
  await using bench = await openBench({ 'requests.in.flight.max': 1 });
  const { client, settle } = bench;
  const topicId = await settle(createTopic(bench));
  const values = ['a', 'b', 'c'];
  for (const value of values) t.is(await settle(produce(bench, topicId, value)), 0);
  await settle(bench.world.node.stop());
  await bench.restart();
  // In this version nothing follows the records.
  const fetches = values.map((_value, fetchOffset) =>
    client.ask('Fetch', 11, {
      maxWaitMs: 0,
      minBytes: 1,
      sessionEpoch: -1,
      topics: [{ topic: 'topic', partitions: [{ partition: 0, fetchOffset, partitionMaxBytes: 1 }] }],
    }),
  );
  for (const answer of await settle(Promise.all(fetches))) {
    t.true((answer?.responses[0]?.partitions[0]?.records?.length ?? 0) > 0);
  }
  t.true(bench.world.clock.monotonic() < 10_000);
});

test('a producer is known after a kill although its records have gone', async (t) => {
  await using bench = await openBench({ 'log.retention.check.interval.ms': 500 });
  const { settle, world } = bench;
  const topicId = await settle(createTopic(bench, { 'retention.ms': '100' }));
  for (let sequence = 0; sequence < 20; sequence++) t.is(await settle(produce(bench, topicId, 'v', sequence)), 0);
  // Retention takes what has reached a segment (journal.segment.linger.ms).
  await world.clock.advance(8000);
  world.node.die({ kind: 'kill' });
  await world.clock.advance(10);
  await bench.restart();
  t.is((await settle(fetchOne(bench.client, topicId, 0))).errorCode, errors.OFFSET_OUT_OF_RANGE.kafka);
  t.is(await settle(produce(bench, topicId, 'v', 19)), 0);
  t.is(await settle(produce(bench, topicId, 'v', 20)), 0);
  t.is(await settle(produce(bench, topicId, 'v', 22)), errors.OUT_OF_ORDER_SEQUENCE_NUMBER.kafka);
});

test('what a failed sync has left in the page cache is not taken for durable', async (t) => {
  await using bench = await openBench({ 'journal.direct.bytes': 0 });
  const { client, settle, world } = bench;
  const topicId = await settle(createTopic(bench));
  t.is(await settle(produce(bench, topicId, 'first')), 0);
  const { disk } = world.node;
  // The write that follows, and then its sync.
  disk?.failAt(disk.operations + 2, 'EIO', { path: '.log', times: 3 });
  const answer = produce(bench, topicId, 'second');
  await world.clock.advance(100);
  t.is(await settle(answer), -1);
  t.true(world.node.isDown);
  await bench.restart();
  const { value } = await settle(fetchOne(client, topicId, 1));
  t.is(value, 'second');
  world.node.die({ kind: 'power cut', cut: { unsynced: 'lost' } });
  await world.clock.advance(10);
  await bench.restart();
  t.deepEqual(await settle(fetchOne(client, topicId, 1)), { errorCode: 0, value: 'second' });
});

test('a read that fails costs its partition until the next start', async (t) => {
  await using bench = await openBench();
  const { client, settle, world } = bench;
  const topicId = await settle(createTopic(bench));
  t.is(await settle(produce(bench, topicId, 'value')), 0);
  await settle(world.node.stop());
  await bench.restart();
  const { disk } = world.node;
  disk?.failAt(disk.reads + 1, 'EIO', { of: 'read', path: 'topic-0', times: 10 });
  await settle(fetchOne(client, topicId, 0));
  await settle(client.connect());
  t.is((await settle(fetchOne(client, topicId, 0))).errorCode, errors.KAFKA_STORAGE_ERROR.kafka);
  await settle(world.node.stop());
  await bench.restart();
  t.deepEqual(await settle(fetchOne(client, topicId, 0)), { errorCode: 0, value: 'value' });
});
