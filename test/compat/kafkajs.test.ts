/** kafkajs 2.2 as people use it: topics, all codecs, keys and headers, groups, offsets by time, admin calls. */
import test from 'ava';
import kafkajs from 'kafkajs';
import type { CompressionTypes as Compression, Kafka as Client, KafkaMessage } from 'kafkajs';
import { compress, decompress, type Codec } from '../../protocol/compression.ts';
import { loadNative } from '../../storage/native.ts';
import { startTestBroker, type TestBroker } from '../support/broker.ts';

const { CompressionCodecs, CompressionTypes, ConfigResourceTypes, Kafka, logLevel } = kafkajs;
const MAX_BYTES = 16 * 1024 * 1024;
let broker: TestBroker;

function client(): Client {
  return new Kafka({
    clientId: 'compat',
    brokers: [broker.bootstrap],
    logLevel: logLevel.NOTHING,
    retry: { retries: 3 },
  });
}

test.before(async () => {
  await loadNative();
  broker = await startTestBroker();
  // kafkajs brings gzip only; the others are plugged in, here with our own codecs.
  const plug = (name: Codec) => () => ({
    compress: async (encoder: { buffer: Buffer }) => compress(name, encoder.buffer),
    decompress: async (buffer: Buffer) => decompress(name, buffer, MAX_BYTES),
  });
  CompressionCodecs[CompressionTypes.Snappy] = plug('snappy');
  CompressionCodecs[CompressionTypes.LZ4] = plug('lz4');
  CompressionCodecs[CompressionTypes.ZSTD] = plug('zstd');
});
test.after.always(async () => broker?.stop());

/** Reads `count` messages of a topic from the beginning with a new group. */
async function consume(topic: string, count: number): Promise<(KafkaMessage & { partition: number })[]> {
  const consumer = client().consumer({ groupId: `read-${topic}`, maxWaitTimeInMs: 100 });
  await consumer.connect();
  await consumer.subscribe({ topic, fromBeginning: true });
  const messages: (KafkaMessage & { partition: number })[] = [];
  await new Promise<void>((resolve, reject) => {
    consumer
      .run({
        eachMessage: async ({ message, partition }) => {
          messages.push({ ...message, partition });
          if (messages.length === count) resolve();
        },
      })
      .catch(reject);
  });
  await consumer.disconnect();
  return messages;
}

for (const [name, compression] of Object.entries(CompressionTypes).filter(([, value]) => typeof value === 'number')) {
  test(`what is produced with ${name} is consumed unchanged`, async (t) => {
    const topic = `codec-${name}`;
    const producer = client().producer();
    await producer.connect();
    const value = 'mill'.repeat(500);
    await producer.send({
      topic,
      // Values of kafkajs's own enum.
      compression: compression as Compression,
      messages: [
        { key: 'k', value, headers: { h: 'x', many: ['a', 'b'] }, timestamp: '1700000000000' },
        { key: null, value: null },
        { key: Buffer.from([0, 255]), value: Buffer.from([1, 2, 3]) },
      ],
    });
    await producer.disconnect();
    const messages = await consume(topic, 3);
    t.deepEqual(
      messages.map(({ offset, key, value: read }) => ({
        offset,
        key: key && Buffer.from(key),
        value: read && Buffer.from(read),
      })),
      [
        { offset: '0', key: Buffer.from('k'), value: Buffer.from(value) },
        { offset: '1', key: null, value: null },
        { offset: '2', key: Buffer.from([0, 255]), value: Buffer.from([1, 2, 3]) },
      ],
    );
    t.is(messages[0].timestamp, '1700000000000');
    t.is(String(messages[0].headers?.['h']), 'x');
    t.deepEqual([messages[0].headers?.['many']].flat().map(String), ['a', 'b']);
  });
}

test('an idempotent producer sends in order without duplicates', async (t) => {
  const producer = client().producer({ idempotent: true, maxInFlightRequests: 5 });
  await producer.connect();
  for (let batch = 0; batch < 20; batch++) {
    await producer.send({
      topic: 'idempotent',
      messages: Array.from({ length: 5 }, (_, index) => ({ key: 'same', value: String(batch * 5 + index) })),
    });
  }
  await producer.disconnect();
  const messages = await consume('idempotent', 100);
  t.deepEqual(
    messages.map(({ value }) => Number(value)),
    Array.from({ length: 100 }, (_, index) => index),
  );
});

test('keyed messages of six partitions keep their order by key', async (t) => {
  const admin = client().admin();
  await admin.connect();
  t.true(await admin.createTopics({ topics: [{ topic: 'keyed', numPartitions: 6 }] }));
  t.false(await admin.createTopics({ topics: [{ topic: 'keyed', numPartitions: 6 }] }));
  const producer = client().producer();
  await producer.connect();
  await producer.send({
    topic: 'keyed',
    messages: Array.from({ length: 600 }, (_, index) => ({ key: `key-${index % 20}`, value: String(index) })),
  });
  await producer.disconnect();
  const messages = await consume('keyed', 600);
  const byKey = new Map<string, { partition: number; values: number[] }>();
  for (const { key, value, partition } of messages) {
    const entry = byKey.get(String(key)) ?? { partition, values: [] };
    t.is(entry.partition, partition);
    entry.values.push(Number(value));
    byKey.set(String(key), entry);
  }
  t.is(byKey.size, 20);
  for (const { values } of byKey.values())
    t.deepEqual(
      values,
      [...values].sort((a, b) => a - b),
    );
  const offsets = await admin.fetchTopicOffsets('keyed');
  t.is(
    offsets.reduce((total, { high }) => total + Number(high), 0),
    600,
  );
  await admin.disconnect();
});

test('offsets by time, deleted records, partitions added, configs, topics deleted', async (t) => {
  const admin = client().admin();
  await admin.connect();
  await admin.createTopics({
    topics: [{ topic: 'times', numPartitions: 1, configEntries: [{ name: 'retention.ms', value: '-1' }] }],
  });
  const producer = client().producer();
  await producer.connect();
  for (const timestamp of [1000, 2000, 3000]) {
    await producer.send({ topic: 'times', messages: [{ value: String(timestamp), timestamp: String(timestamp) }] });
  }
  await producer.disconnect();
  const [{ offset }] = await admin.fetchTopicOffsetsByTimestamp('times', 1500);
  t.is(offset, '1');
  await admin.deleteTopicRecords({ topic: 'times', partitions: [{ partition: 0, offset: '2' }] });
  const [{ low, high }] = await admin.fetchTopicOffsets('times');
  t.deepEqual([low, high], ['2', '3']);
  await admin.createPartitions({ topicPartitions: [{ topic: 'times', count: 3 }] });
  const { topics } = await admin.fetchTopicMetadata({ topics: ['times'] });
  t.is(topics[0].partitions.length, 3);
  const described = await admin.describeConfigs({
    includeSynonyms: false,
    resources: [{ type: ConfigResourceTypes.TOPIC, name: 'times', configNames: ['retention.ms'] }],
  });
  t.is(described.resources[0].configEntries[0].configValue, '-1');
  await admin.alterConfigs({
    validateOnly: false,
    resources: [
      { type: ConfigResourceTypes.TOPIC, name: 'times', configEntries: [{ name: 'retention.ms', value: '123456' }] },
    ],
  });
  await admin.deleteTopics({ topics: ['times'] });
  t.false((await admin.listTopics()).includes('times'));
  const cluster = await admin.describeCluster();
  t.is(cluster.brokers.length, 1);
  t.is(`${cluster.brokers[0].host}:${cluster.brokers[0].port}`, broker.bootstrap);
  await admin.disconnect();
});
