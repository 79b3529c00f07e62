import test from 'ava';
import { resolveOptions } from '../../../broker/config.ts';
import { openBroker } from '../../../broker/main.ts';
import { buildBatch } from '../../../protocol/record-batch.ts';
import { MemoryClient } from '../../support/memory-broker.ts';
import { frameOf } from '../../support/raw-client.ts';
import { SimClock } from '../../support/sim-clock.ts';
import { SimDisk } from '../../support/sim-disk.ts';
import { SimRandom } from '../../support/sim-random.ts';

const MIB = 1024 * 1024;

test('answers that nobody takes hold a bounded amount of memory, and who reads is left alone', async (t) => {
  const clock = new SimClock();
  const lines: string[] = [];
  const opened = await openBroker({
    disk: new SimDisk({ clock }),
    clock,
    random: new SimRandom(1),
    dataDir: '/data',
    options: resolveOptions({
      'log.disk.reserve.bytes': 0,
      'log.tail.cache.bytes': 4 * MIB,
      'journal.file.bytes': MIB,
    }),
    log: (line) => void lines.push(line),
  });
  const connect = (): MemoryClient => {
    const client = new MemoryClient();
    // The Kafka door makes nothing else.
    client.connection = opened.acceptKafka(client) as NonNullable<MemoryClient['connection']>;
    return client;
  };
  const [partition] = opened.broker.topics.autoCreate('t').partitions;
  await clock.advance(100);
  const record = { key: null, value: Buffer.alloc(512 * 1024), headers: [], timestamp: clock.now() };
  const records = buildBatch([record]);
  const producer = connect();
  const idle: MemoryClient[] = [];
  const reader = connect();
  const fetchFrom = (client: MemoryClient, fetchOffset: number): void =>
    client.send(
      frameOf('Fetch', 11, {
        maxWaitMs: 0,
        minBytes: 1,
        maxBytes: 50 * MIB,
        isolationLevel: 0,
        topics: [{ topic: 't', partitions: [{ partition: 0, fetchOffset, partitionMaxBytes: 50 * MIB }] }],
        forgottenTopicsData: [],
      }),
    );
  for (let round = 0; round < 8; round++) {
    for (let number = 0; number < 6; number++) {
      producer.send(
        frameOf('Produce', 7, {
          acks: -1,
          timeoutMs: 1000,
          topicData: [{ name: 't', partitionData: [{ index: 0, records }] }],
        }),
      );
      await clock.advance(600);
    }
    const client = connect();
    client.isReading = false;
    fetchFrom(client, partition.highWatermark - 2);
    idle.push(client);
    fetchFrom(reader, partition.highWatermark - 2);
    await clock.advance(600);
  }
  t.is(producer.frames.length, 48);
  t.is(reader.frames.length, 8);
  t.false(reader.isDestroyed);
  const page = opened.metrics.render();
  const pinned = Number(/^millrace_pinned_bytes (\d+)$/m.exec(page)?.[1]);
  t.true(pinned > 0);
  t.true(pinned <= 8 * MIB + MIB);
  // The oldest have gone, the newest is still there.
  t.true(idle[0].isDestroyed);
  t.false(idle[7].isDestroyed);
  t.true(lines.some((line) => line.includes('log.tail.cache.bytes')));
  // With them everything they held.
  for (const client of idle) client.destroy();
  t.regex(opened.metrics.render(), /^millrace_pinned_bytes 0$/m);
  await Promise.all([opened.close(), clock.advance(1000)]);
});
