/** Limits of connections, answers and addresses, on a broker with real sockets. */
import { once } from 'node:events';
import net from 'node:net';
import test from 'ava';
import { buildBatch } from '../../protocol/record-batch.ts';
import { startTestBroker } from '../support/broker.ts';
import { RawClient } from '../support/raw-client.ts';

const ZERO_ID = '00000000-0000-0000-0000-000000000000';

test('connections.max holds for both loopback addresses together', async (t) => {
  const broker = await startTestBroker({ 'connections.max': 2 });
  t.teardown(() => broker.stop());
  const first = await RawClient.connect(broker.bootstrap);
  const second = await RawClient.connect(broker.bootstrap);
  t.is((await second.ask('ApiVersions', 0, {})).errorCode, 0);
  const port = Number(broker.bootstrap.split(':')[1]);
  for (const host of ['127.0.0.1', '::1']) {
    const third = net.connect({ host, port });
    // A machine without IPv6 refuses, which ends it as well.
    third.on('error', () => {});
    third.resume();
    await once(third, 'close');
  }
  first.close();
  second.close();
  // The broker notices the end in a later turn.
  for (;;) {
    const next = await RawClient.connect(broker.bootstrap);
    const answered = await next.ask('ApiVersions', 0, {}).catch(() => undefined);
    next.close();
    if (answered) break;
  }
  t.pass();
});

test('connections.max.idle.ms ends silent connections', async (t) => {
  const broker = await startTestBroker({ 'connections.max.idle.ms': 1000 });
  t.teardown(() => broker.stop());
  const client = await RawClient.connect(broker.bootstrap);
  t.is(await client.frame(), undefined);
});

test('advertised.listeners is what Metadata, FindCoordinator and DescribeCluster tell', async (t) => {
  const broker = await startTestBroker({ 'advertised.listeners': 'PLAINTEXT://[2001:db8::7]:19092' });
  t.teardown(() => broker.stop());
  const client = await RawClient.connect(broker.bootstrap);
  t.teardown(() => client.close());
  const [node] = (await client.ask('Metadata', 9, { topics: [] })).brokers;
  const coordinator = await client.ask('FindCoordinator', 3, { key: 'g', keyType: 0 });
  const [described] = (await client.ask('DescribeCluster', 0, { includeClusterAuthorizedOperations: false })).brokers;
  for (const { host, port } of [node, coordinator, described]) t.deepEqual([host, port], ['2001:db8::7', 19_092]);
});

test('fetch.max.bytes bounds an answer that asks for more', async (t) => {
  const broker = await startTestBroker({ 'fetch.max.bytes': 4096, 'num.partitions': 1 });
  t.teardown(() => broker.stop());
  const client = await RawClient.connect(broker.bootstrap);
  t.teardown(() => client.close());
  await client.ask('Metadata', 9, { topics: [{ topicId: ZERO_ID, name: 't' }], allowAutoTopicCreation: true });
  const record = { key: null, value: Buffer.alloc(1000), headers: [], timestamp: Date.now() };
  for (let number = 0; number < 10; number++) {
    const topicData = [{ name: 't', partitionData: [{ index: 0, records: buildBatch([record]) }] }];
    const { responses } = await client.ask('Produce', 9, { acks: -1, timeoutMs: 1000, topicData });
    t.is(responses[0].partitionResponses[0].errorCode, 0);
  }
  const partitions = [{ partition: 0, fetchOffset: 0, partitionMaxBytes: 1024 * 1024 }];
  const wish = { maxWaitMs: 0, minBytes: 1, maxBytes: 1024 * 1024, isolationLevel: 0, forgottenTopicsData: [] };
  const answer = await client.ask('Fetch', 11, { ...wish, topics: [{ topic: 't', partitions }] });
  const length = answer.responses[0].partitions[0].records?.length ?? 0;
  t.true(length > 1000);
  t.true(length <= 4096);
});

test('a broker that stops answers what waits, long polls too', async (t) => {
  const broker = await startTestBroker();
  const client = await RawClient.connect(broker.bootstrap);
  await client.ask('Metadata', 9, { topics: [{ topicId: ZERO_ID, name: 't' }], allowAutoTopicCreation: true });
  const partitions = [{ partition: 0, fetchOffset: 0, partitionMaxBytes: 1024 * 1024 }];
  const wish = { maxWaitMs: 600_000, minBytes: 1, maxBytes: 1024 * 1024, isolationLevel: 0, forgottenTopicsData: [] };
  const answer = client.ask('Fetch', 11, { ...wish, topics: [{ topic: 't', partitions }] });
  // Asked on another connection later, so the poll is waiting by then.
  const other = await RawClient.connect(broker.bootstrap);
  await other.ask('ApiVersions', 0, {});
  await broker.stop();
  t.is((await answer).responses[0].partitions[0].errorCode, 0);
});
