/**
 * Garbage on the Kafka port: every API in every version with cut, overlong and random bytes, hostile lengths and counts,
 * compressed bombs, half-open connections, a client that never reads. The broker answers precisely or closes that
 * connection; it never falls, never fills its memory, and others are served meanwhile.
 */
import { once } from 'node:events';
import { gzipSync } from 'node:zlib';
import test from 'ava';
import { apis } from '../../protocol/kafka/apis.ts';
import { errors } from '../../protocol/errors.ts';
import { buildBatch } from '../../protocol/record-batch.ts';
import { crc32c } from '../../protocol/crc32c.ts';
import { SimRandom } from '../support/sim-random.ts';
import { startTestBroker, type TestBroker } from '../support/broker.ts';
import { frameOf, RawClient } from '../support/raw-client.ts';

const SEED = 20;
let broker: TestBroker;

test.before(async () => {
  broker = await startTestBroker({
    'socket.request.max.bytes': 4 * 1024 * 1024,
    'decompressed.bytes.max': 2 * 1024 * 1024,
  });
});
test.after.always(async () => broker?.stop());

/** Another client's view: the broker is unharmed. */
async function isServing(): Promise<boolean> {
  const client = await RawClient.connect(broker.bootstrap);
  const answer = await client.ask('ApiVersions', 0, {});
  client.close();
  return answer.errorCode === 0 && answer.apiKeys.length > 20;
}

function random(seed: number): (below: number) => number {
  const source = new SimRandom(seed);
  return (below) => Buffer.from(source.fill(new Uint8Array(4))).readUInt32BE(0) % below;
}

/** A frame around `body` with a valid header of this API and version. */
function framed(apiKey: number, version: number, flexibleFrom: number, body: Buffer): Buffer {
  const isFlexible = version >= flexibleFrom;
  const header = Buffer.alloc(isFlexible ? 11 : 10);
  header.writeInt16BE(apiKey, 0);
  header.writeInt16BE(version, 2);
  header.writeInt32BE(1, 4);
  header.writeInt16BE(-1, 8);
  const length = Buffer.alloc(4);
  length.writeInt32BE(header.length + body.length, 0);
  return Buffer.concat([length, header, body]);
}

test('random bodies of every API and version are answered or end their connection', async (t) => {
  t.timeout(60_000);
  const next = random(SEED);
  for (const api of Object.values(apis)) {
    for (let version = api.minVersion; version <= api.maxVersion; version++) {
      await Promise.all(
        Array.from({ length: 4 }, async (_, kind) => {
          const size = [0, 1 + next(16), 64, 4096][kind];
          const body = Buffer.from(Array.from({ length: size }, () => (next(3) === 0 ? 0xff : next(256))));
          const client = await RawClient.connect(broker.bootstrap);
          client.send(framed(api.key, version, api.flexibleFrom, body));
          client.socket.end();
          if (!client.isClosed) await once(client.socket, 'close');
          client.close();
        }),
      );
    }
  }
  t.true(await isServing());
  t.deepEqual(
    broker.lines.filter((line) => !line.includes('refused')),
    [],
  );
});

test('frames with hostile lengths end their connection at once', async (t) => {
  for (const length of [-1, -2_147_483_648, 4 * 1024 * 1024 + 1, 2_147_483_647]) {
    const client = await RawClient.connect(broker.bootstrap);
    const bytes = Buffer.alloc(4);
    bytes.writeInt32BE(length);
    client.send(bytes);
    t.is(await client.frame(), undefined, `length ${length}`);
  }
  for (const length of [0, 1, 7]) {
    const client = await RawClient.connect(broker.bootstrap);
    const bytes = Buffer.alloc(4 + length);
    bytes.writeInt32BE(length);
    client.send(bytes);
    t.is(await client.frame(), undefined, `length ${length}`);
  }
  t.true(await isServing());
});

test('an API that is not served, or not in that version, ends the connection', async (t) => {
  for (const [key, version] of [
    [999, 0],
    [-1, 0],
    [3, 99],
    [0, 2],
    [4, 0],
  ]) {
    const client = await RawClient.connect(broker.bootstrap);
    client.send(framed(key, version, 99, Buffer.alloc(8)));
    t.is(await client.frame(), undefined, `api ${key} version ${version}`);
  }
});

test('ApiVersions of an unknown version is answered in version 0 with error 35', async (t) => {
  const client = await RawClient.connect(broker.bootstrap);
  client.send(framed(18, 77, 3, Buffer.from([0])));
  const frame = await client.frame();
  t.is(frame?.readInt16BE(4), errors.UNSUPPORTED_VERSION.kafka);
  // The connection stays usable, so that the client can ask again.
  const answer = await client.ask('ApiVersions', 3, { clientSoftwareName: 'raw', clientSoftwareVersion: '1.0' });
  t.is(answer.errorCode, 0);
  client.close();
});

test('broken batches are refused with their own error and nothing is stored', async (t) => {
  const client = await RawClient.connect(broker.bootstrap);
  await client.ask('Metadata', 9, { topics: [{ name: 'broken' }], allowAutoTopicCreation: true });
  const good = buildBatch([{ key: null, value: Buffer.from('v'), headers: [], timestamp: 1000 }], {});
  const resealed = (change: (batch: Buffer) => void): Buffer => {
    const batch = Buffer.from(good);
    change(batch);
    batch.writeUInt32BE(crc32c(batch, 21, batch.length - 21), 17);
    return batch;
  };
  const flipped = Buffer.from(good);
  flipped[flipped.length - 1] ^= 1;
  const cases: [string, Buffer, number[]][] = [
    ['a bit flipped', flipped, [2]],
    ['cut', good.subarray(0, good.length - 3), [2, 87]],
    ['two batches', Buffer.concat([good, good]), [87, 2]],
    ['empty', Buffer.alloc(0), [87, 2]],
    ['magic 1', resealed((batch) => batch.writeInt8(1, 16)), [2, 43, 87]],
    ['count too high', resealed((batch) => batch.writeInt32BE(1_000_000, 57)), [2, 87]],
    ['count negative', resealed((batch) => batch.writeInt32BE(-1, 57)), [2, 87]],
    ['control batch', resealed((batch) => batch.writeInt16BE(0x20, 21)), [87]],
    ['unknown codec', resealed((batch) => batch.writeInt16BE(6, 21)), [2, 76, 87]],
    ['gzip of nothing', resealed((batch) => batch.writeInt16BE(1, 21)), [2, 87]],
    ['lz4 of nothing', resealed((batch) => batch.writeInt16BE(3, 21)), [2, 87]],
    ['zstd of nothing', resealed((batch) => batch.writeInt16BE(4, 21)), [2, 87]],
    ['snappy of nothing', resealed((batch) => batch.writeInt16BE(2, 21)), [2, 87]],
  ];
  for (const [name, records, expected] of cases) {
    const answer = await client.ask('Produce', 9, {
      acks: -1,
      timeoutMs: 1000,
      topicData: [{ name: 'broken', partitionData: [{ index: 0, records }] }],
    });
    const { errorCode } = answer.responses[0].partitionResponses[0];
    t.true(expected.includes(errorCode), `${name}: ${errorCode}`);
  }
  const offsets = await client.ask('ListOffsets', 5, {
    replicaId: -1,
    isolationLevel: 0,
    topics: [{ name: 'broken', partitions: [{ partitionIndex: 0, timestamp: -1 }] }],
  });
  t.is(offsets.topics[0].partitions[0].offset, 0);
  client.close();
});

test('a compressed bomb is refused without being opened whole', async (t) => {
  const client = await RawClient.connect(broker.bootstrap);
  await client.ask('Metadata', 9, { topics: [{ name: 'bomb' }], allowAutoTopicCreation: true });
  const head = buildBatch([{ key: null, value: Buffer.from('v'), headers: [], timestamp: 1000 }], {}).subarray(0, 61);
  const bomb = Buffer.concat([head, gzipSync(Buffer.alloc(200 * 1024 * 1024), { level: 9 })]);
  bomb.writeInt32BE(bomb.length - 12, 8);
  bomb.writeInt16BE(1, 21);
  bomb.writeUInt32BE(crc32c(bomb, 21, bomb.length - 21), 17);
  const before = process.memoryUsage().rss;
  const answer = await client.ask('Produce', 9, {
    acks: -1,
    timeoutMs: 1000,
    topicData: [{ name: 'bomb', partitionData: [{ index: 0, records: bomb }] }],
  });
  t.not(answer.responses[0].partitionResponses[0].errorCode, 0);
  t.true(process.memoryUsage().rss - before < 100 * 1024 * 1024);
  client.close();
});

test('half-open connections and claimed lengths cost next to nothing', async (t) => {
  const clients = await Promise.all(Array.from({ length: 300 }, () => RawClient.connect(broker.bootstrap)));
  const before = process.memoryUsage().rss;
  const claim = Buffer.alloc(6);
  claim.writeInt32BE(4 * 1024 * 1024, 0);
  for (const client of clients) client.send(claim);
  t.true(await isServing());
  t.true(process.memoryUsage().rss - before < 64 * 1024 * 1024);
  for (const client of clients) client.close();
});

test('a client that never reads holds a bounded part of its answers', async (t) => {
  const producer = await RawClient.connect(broker.bootstrap);
  await producer.ask('Metadata', 9, { topics: [{ name: 'unread' }], allowAutoTopicCreation: true });
  const records = buildBatch([{ key: null, value: Buffer.alloc(512 * 1024), headers: [], timestamp: 1000 }], {});
  for (let index = 0; index < 60; index++) {
    await producer.ask('Produce', 9, {
      acks: -1,
      timeoutMs: 1000,
      topicData: [{ name: 'unread', partitionData: [{ index: 0, records }] }],
    });
  }
  const reader = await RawClient.connect(broker.bootstrap);
  reader.socket.pause();
  const fetch = frameOf('Fetch', 11, {
    maxWaitMs: 0,
    minBytes: 0,
    maxBytes: 50 * 1024 * 1024,
    isolationLevel: 0,
    topics: [{ topic: 'unread', partitions: [{ partition: 0, fetchOffset: 0, partitionMaxBytes: 50 * 1024 * 1024 }] }],
    forgottenTopicsData: [],
  });
  const before = process.memoryUsage().rss;
  for (let index = 0; index < 100; index++) reader.send(fetch);
  t.true(await isServing());
  t.true(process.memoryUsage().rss - before < 64 * 1024 * 1024, `${(process.memoryUsage().rss - before) / 1e6} MB`);
  // When it reads after all, everything is there, in order.
  reader.socket.resume();
  for (let index = 0; index < 3; index++) t.true(((await reader.frame())?.length ?? 0) > 512 * 1024);
  reader.close();
  producer.close();
});
