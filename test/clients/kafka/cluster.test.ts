import test from 'ava';
import { KafkaCluster, parseAddresses } from '../../../clients/kafka/cluster.ts';
import { ConnectionError } from '../../../clients/kafka/errors.ts';
import { fetchRecords, listOffsets, produce } from '../../../clients/kafka/records.ts';
import type { ProduceRequest } from '../../../protocol/kafka/messages.ts';
import { buildBatch, stampBatch } from '../../../protocol/record-batch.ts';
import { systemClock } from '../../../storage/clock.ts';
import { type FakeHandlers, fakeBroker } from './fake-broker.ts';

const leaders = (ports: readonly number[], leaderIds: readonly number[]) => ({
  brokers: ports.map((port, index) => ({ nodeId: index + 1, host: '127.0.0.1', port })),
  clusterId: 'c',
  controllerId: 1,
  topics: [
    {
      errorCode: 0,
      name: 't',
      partitions: leaderIds.map((leaderId, partitionIndex) => ({
        errorCode: 0,
        partitionIndex,
        leaderId,
        replicaNodes: [leaderId],
        isrNodes: [leaderId],
      })),
    },
  ],
});

const cluster = (port: number, retryTimeoutMs = 5_000) =>
  new KafkaCluster({ bootstrap: [{ host: '127.0.0.1', port }], clock: systemClock, clientId: 'test', retryTimeoutMs });

const record = (value: string) => ({ key: null, value: Buffer.from(value), timestamp: 1 });

const produced = ({ topicData }: ProduceRequest, errorCode: number, baseOffset = 0) => ({
  responses: topicData.map(({ name, partitionData }) => ({
    name,
    partitionResponses: partitionData.map(({ index }) => ({ index, errorCode, baseOffset, logAppendTimeMs: -1 })),
  })),
});

test('a partition is written at its leader, and at its new one after it moved', async (t) => {
  const second: FakeHandlers = { Produce: ({ request }) => produced(request, 0, 42) };
  const newLeader = await fakeBroker(second);
  let metadataCount = 0;
  const old = await fakeBroker({
    Metadata: ({ port }) => leaders([port, newLeader.port], [metadataCount++ === 0 ? 1 : 2]),
    // NOT_LEADER_OR_FOLLOWER
    Produce: ({ request }) => produced(request, 6),
  });
  const client = cluster(old.port);
  t.is(await produce(client, { topic: 't', partition: 0 }, [record('a')]), 42);
  t.deepEqual(old.asked, ['ApiVersions', 'Metadata', 'Produce', 'Metadata']);
  client.close();
  await Promise.all([old.close(), newLeader.close()]);
});

test('an error that will not pass is thrown at once, with what the broker said', async (t) => {
  const broker = await fakeBroker({
    Metadata: ({ port }) => leaders([port], [1]),
    // MESSAGE_TOO_LARGE
    Produce: ({ request }) => produced(request, 10),
  });
  const client = cluster(broker.port);
  await t.throwsAsync(produce(client, { topic: 't', partition: 0 }, [record('a')]), { code: 'MESSAGE_TOO_LARGE' });
  t.is(broker.asked.filter((api) => api === 'Produce').length, 1);
  client.close();
  await broker.close();
});

test('a lost connection is opened again', async (t) => {
  let produceCount = 0;
  const broker = await fakeBroker({
    Metadata: ({ port }) => leaders([port], [1]),
    Produce: ({ request, socket }) => {
      if (produceCount++ === 0) return void socket.destroy();
      return produced(request, 0, 7);
    },
  });
  const client = cluster(broker.port);
  t.is(await produce(client, { topic: 't', partition: 0 }, [record('a')]), 7);
  t.is(broker.connectionCount, 2);
  client.close();
  await broker.close();
});

test('the next bootstrap address is tried, and without any the failure is final at once', async (t) => {
  const broker = await fakeBroker({ Metadata: ({ port }) => leaders([port], [1]) });
  const gone = await fakeBroker({});
  await gone.close();
  const bootstrap = [gone.port, broker.port].map((port) => ({ host: '127.0.0.1', port }));
  const client = new KafkaCluster({ bootstrap, clock: systemClock, clientId: 'test' });
  t.is((await client.topics()).length, 1);
  client.close();
  await broker.close();
  const nobody = new KafkaCluster({ bootstrap: bootstrap.slice(0, 1), clock: systemClock, clientId: 'test' });
  await t.throwsAsync(
    nobody.retry(() => nobody.topics()),
    { instanceOf: ConnectionError },
  );
});

test('fetched records start at the asked offset, and aborted transactions and control batches are left out', async (t) => {
  const at = (offset: number, batch: Buffer) => (stampBatch(batch, 0, offset, 0), batch);
  const transaction = { producerId: 9, producerEpoch: 0, isTransactional: true };
  const bytes = Buffer.concat([
    at(0, buildBatch([record('a'), record('b')])),
    at(2, buildBatch([record('aborted')], transaction)),
    at(3, buildBatch([record('marker')], { ...transaction, isControl: true })),
    at(4, buildBatch([record('committed')], transaction)),
    at(5, buildBatch([record('marker')], { ...transaction, isControl: true })),
  ]);
  const partition = { partitionIndex: 0, errorCode: 0, highWatermark: 6, lastStableOffset: 6, records: bytes };
  const abortedTransactions = [{ producerId: 9, firstOffset: 2 }];
  const broker = await fakeBroker({
    Metadata: ({ port }) => leaders([port], [1]),
    Fetch: () => ({ errorCode: 0, responses: [{ topic: 't', partitions: [{ ...partition, abortedTransactions }] }] }),
  });
  const client = cluster(broker.port);
  const [fetched] = await fetchRecords(client, [{ topic: 't', partition: 0, offset: 1 }]);
  t.deepEqual(
    fetched.records.map(({ offset, value }) => [offset, String(value)]),
    [
      [1, 'b'],
      [4, 'committed'],
    ],
  );
  t.is(fetched.nextOffset, 6);
  t.is(fetched.endOffset, 6);
  client.close();
  await broker.close();
});

test('offsets of several partitions are asked from their leaders', async (t) => {
  const answers = (topics: { name: string; partitions: { partitionIndex: number }[] }[], offset: number) => ({
    topics: topics.map(({ name, partitions }) => ({
      name,
      partitions: partitions.map(({ partitionIndex }) => ({ partitionIndex, errorCode: 0, timestamp: -1, offset })),
    })),
  });
  const second = await fakeBroker({ ListOffsets: ({ request }) => answers((request as { topics: [] }).topics, 20) });
  const first = await fakeBroker({
    Metadata: ({ port }) => leaders([port, second.port], [1, 2]),
    ListOffsets: ({ request }) => answers((request as { topics: [] }).topics, 10),
  });
  const client = cluster(first.port);
  const found = await listOffsets(client, [
    { topic: 't', partition: 0, timestamp: -1 },
    { topic: 't', partition: 1, timestamp: -1 },
  ]);
  t.deepEqual(
    found.map(({ partition, offset }) => [partition, offset]),
    [
      [0, 10],
      [1, 20],
    ],
  );
  client.close();
  await Promise.all([first.close(), second.close()]);
});

test('addresses are read with and without ports and brackets', (t) => {
  t.deepEqual(parseAddresses('a:1, b ,[::1]:2,[fe80::1]'), [
    { host: 'a', port: 1 },
    { host: 'b', port: 9092 },
    { host: '::1', port: 2 },
    { host: 'fe80::1', port: 9092 },
  ]);
  t.throws(() => parseAddresses('a:b:c'), { message: /not HOST:PORT/ });
  t.throws(() => parseAddresses('a:99999'), { message: /not HOST:PORT/ });
});
