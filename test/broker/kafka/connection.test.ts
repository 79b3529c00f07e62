import test from 'ava';
import { buildBatch } from '../../../protocol/record-batch.ts';
import { openMemoryBroker } from '../../support/memory-broker.ts';
import { frameOf } from '../../support/raw-client.ts';

const one = buildBatch([{ key: null, value: Buffer.from('v'), headers: [], timestamp: 1000 }], {});

function produceFrame(correlationId: number, topic: string, acks = -1, records: Buffer = one): Buffer {
  return frameOf(
    'Produce',
    7,
    { acks, timeoutMs: 1000, topicData: [{ name: topic, partitionData: [{ index: 0, records }] }] },
    correlationId,
  );
}
function fetchFrame(
  correlationId: number,
  topic: string,
  more: { maxWaitMs?: number; minBytes?: number; fetchOffset?: number } = {},
): Buffer {
  return frameOf(
    'Fetch',
    11,
    {
      maxWaitMs: more.maxWaitMs ?? 0,
      minBytes: more.minBytes ?? 1,
      maxBytes: 1024 * 1024,
      isolationLevel: 0,
      topics: [
        { topic, partitions: [{ partition: 0, fetchOffset: more.fetchOffset ?? 0, partitionMaxBytes: 1024 * 1024 }] },
      ],
      forgottenTopicsData: [],
    },
    correlationId,
  );
}
const versionsFrame = (correlationId: number): Buffer => frameOf('ApiVersions', 0, {}, correlationId);

test('answers leave in the order of the requests, whenever they are ready', async (t) => {
  const { broker, engine, clock, connect } = await openMemoryBroker({}, 'manual');
  broker.topics.autoCreate('t');
  engine.sync();
  const client = connect();
  client.send(produceFrame(1, 't'), versionsFrame(2), versionsFrame(3));
  await clock.advance(1);
  t.deepEqual(client.answered, []);
  engine.sync();
  await clock.advance(1);
  t.deepEqual(client.answered, [1, 2, 3]);
});

test('requests are executed while earlier ones wait for their sync', async (t) => {
  const { broker, engine, clock, connect } = await openMemoryBroker({}, 'manual');
  const topic = broker.topics.autoCreate('t');
  engine.sync();
  const client = connect();
  client.send(produceFrame(1, 't'), produceFrame(2, 't'), produceFrame(3, 't'));
  t.is(topic.partitions[0].endOffset, 3);
  t.is(topic.partitions[0].highWatermark, 0);
  engine.sync();
  await clock.advance(1);
  t.deepEqual(
    [0, 1, 2].map((index) => client.answer(index, 'Produce', 7).responses[0].partitionResponses[0].baseOffset),
    [0, 1, 2],
  );
});

test('a batch that is not durable is not fetched', async (t) => {
  const { broker, engine, clock, connect } = await openMemoryBroker({}, 'manual');
  broker.topics.autoCreate('t');
  engine.sync();
  const client = connect();
  client.send(produceFrame(1, 't'));
  const reader = connect();
  reader.send(fetchFrame(1, 't'));
  await clock.advance(1);
  t.is(reader.answer(0, 'Fetch', 11).responses[0].partitions[0].records?.length, 0);
});

test('a long poll wakes when data is durable, and ends after its wait', async (t) => {
  const { broker, engine, clock, connect } = await openMemoryBroker({}, 'manual');
  broker.topics.autoCreate('t');
  engine.sync();
  const reader = connect();
  reader.send(fetchFrame(1, 't', { maxWaitMs: 500 }));
  await clock.advance(499);
  t.deepEqual(reader.answered, []);
  await clock.advance(2);
  t.deepEqual(reader.answered, [1]);
  reader.send(fetchFrame(2, 't', { maxWaitMs: 500 }));
  const client = connect();
  client.send(produceFrame(1, 't'));
  await clock.advance(10);
  t.deepEqual(reader.answered, [1]);
  engine.sync();
  await clock.advance(1);
  t.deepEqual(reader.answered, [1, 2]);
  t.true((reader.answer(1, 'Fetch', 11).responses[0].partitions[0].records?.length ?? 0) > 0);
});

test('a fetch waits for min bytes but not longer than its wait', async (t) => {
  const { broker, clock, connect } = await openMemoryBroker();
  broker.topics.autoCreate('t');
  const client = connect();
  client.send(produceFrame(1, 't'));
  const reader = connect();
  reader.send(fetchFrame(1, 't', { maxWaitMs: 300, minBytes: 2 * one.length }));
  await clock.advance(200);
  t.deepEqual(reader.answered, []);
  client.send(produceFrame(2, 't'));
  await clock.advance(1);
  t.deepEqual(reader.answered, [1]);
  reader.send(fetchFrame(2, 't', { maxWaitMs: 300, minBytes: 1_000_000 }));
  await clock.advance(301);
  t.is(reader.answer(1, 'Fetch', 11).responses[0].partitions[0].records?.length, 2 * one.length);
});

test('at most so many requests are in flight, then the connection is not read', async (t) => {
  const { broker, engine, clock, connect } = await openMemoryBroker({ 'requests.in.flight.max': 4 }, 'manual');
  const topic = broker.topics.autoCreate('t');
  engine.sync();
  const client = connect();
  client.send(...Array.from({ length: 10 }, (_, index) => produceFrame(index, 't')));
  t.is(topic.partitions[0].endOffset, 4);
  t.true(client.isPaused);
  for (let round = 0; round < 3; round++) {
    engine.sync();
    await clock.advance(1);
  }
  t.deepEqual(client.answered, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
  t.false(client.isPaused);
});

test('a peer that does not read is not read either', async (t) => {
  const { broker, clock, connect } = await openMemoryBroker({ 'connection.unsent.bytes.max': 64 * 1024 });
  broker.topics.autoCreate('t');
  const producer = connect();
  const large = buildBatch([{ key: null, value: Buffer.alloc(50_000), headers: [], timestamp: 1000 }], {});
  producer.send(produceFrame(1, 't', -1, large));
  const reader = connect();
  reader.isReading = false;
  reader.send(...Array.from({ length: 20 }, (_, index) => fetchFrame(index, 't')));
  await clock.advance(1);
  t.true(reader.unreadBytes <= 2 * 64 * 1024);
  reader.send(fetchFrame(20, 't'));
  t.true(reader.isPaused);
  reader.isReading = true;
  for (let round = 0; round < 20; round++) {
    reader.read();
    await clock.advance(1);
  }
  t.is(reader.answered.length, 21);
});

test('produce with acks=0 is not answered and the next request is', async (t) => {
  const { broker, clock, connect } = await openMemoryBroker();
  const topic = broker.topics.autoCreate('t');
  const client = connect();
  client.send(produceFrame(1, 't', 0), versionsFrame(2));
  await clock.advance(1);
  t.deepEqual(client.answered, [2]);
  t.is(topic.partitions[0].endOffset, 1);
});

test('any split of the byte stream gives the same answers', async (t) => {
  const { broker, clock, connect } = await openMemoryBroker();
  broker.topics.autoCreate('t');
  const bytes = Buffer.concat([produceFrame(1, 't'), versionsFrame(2), produceFrame(3, 't'), fetchFrame(4, 't')]);
  for (const step of [1, 2, 3, 7, 50]) {
    const client = connect();
    for (let at = 0; at < bytes.length; at += step) client.send(bytes.subarray(at, at + step));
    await clock.advance(1);
    t.deepEqual(client.answered, [1, 2, 3, 4]);
  }
});

test('a connection that ends while it waits is forgotten', async (t) => {
  const { broker, engine, clock, connect } = await openMemoryBroker({}, 'manual');
  broker.topics.autoCreate('t');
  engine.sync();
  const client = connect();
  client.send(produceFrame(1, 't'), fetchFrame(2, 't', { maxWaitMs: 60_000 }));
  client.destroy();
  engine.sync();
  await clock.advance(60_001);
  t.deepEqual(client.answered, []);
});

test('an incremental fetch session answers only what has news', async (t) => {
  const { broker, clock, connect } = await openMemoryBroker();
  broker.topics.autoCreate('a');
  broker.topics.autoCreate('b');
  const reader = connect();
  const ask = (correlationId: number, sessionId: number, sessionEpoch: number, topics: string[], offset = 0): void =>
    reader.send(
      frameOf(
        'Fetch',
        11,
        {
          maxWaitMs: 0,
          minBytes: 1,
          maxBytes: 1024 * 1024,
          isolationLevel: 0,
          sessionId,
          sessionEpoch,
          topics: topics.map((topic) => ({
            topic,
            partitions: [{ partition: 0, fetchOffset: offset, partitionMaxBytes: 1024 * 1024 }],
          })),
          forgottenTopicsData: [],
        },
        correlationId,
      ),
    );
  ask(1, 0, 0, ['a', 'b']);
  await clock.advance(1);
  const { sessionId, responses } = reader.answer(0, 'Fetch', 11);
  t.true(sessionId > 0);
  t.is(responses.length, 2);
  ask(2, sessionId, 1, []);
  await clock.advance(1);
  t.is(reader.answer(1, 'Fetch', 11).responses.length, 0);
  const client = connect();
  client.send(produceFrame(1, 'b'));
  ask(3, sessionId, 2, []);
  await clock.advance(1);
  const third = reader.answer(2, 'Fetch', 11);
  t.deepEqual(
    third.responses.map(({ topic }) => topic),
    ['b'],
  );
  // The wrong epoch, and a session that does not exist.
  ask(4, sessionId, 9, []);
  ask(5, sessionId + 1, 1, []);
  await clock.advance(1);
  t.is(reader.answer(3, 'Fetch', 11).errorCode, 71);
  t.is(reader.answer(4, 'Fetch', 11).errorCode, 70);
});

test('requests of all connections together hold a bounded amount of memory', async (t) => {
  const { broker, connect, reports } = await openMemoryBroker({ 'requests.buffered.bytes.max': 1024 * 1024 });
  broker.topics.autoCreate('t');
  const half = Buffer.alloc(300 * 1024);
  half.writeInt32BE(50 * 1024 * 1024);
  const clients = Array.from({ length: 5 }, () => connect());
  for (const client of clients) client.send(half);
  t.true(clients.filter(({ isDestroyed }) => isDestroyed).length >= 2);
  t.true(reports.every((line) => line.includes('requests.buffered.bytes.max')));
  // Those that are gone have given their part back.
  for (const client of clients) client.destroy();
  const next = connect();
  next.send(half.subarray(0, 200 * 1024));
  t.false(next.isDestroyed);
});

test('what an answer lies in is let go only when the peer has taken all of it', async (t) => {
  const { broker, clock, connect } = await openMemoryBroker({ 'connection.unsent.bytes.max': 64 * 1024 });
  const [partition] = broker.topics.autoCreate('t').partitions;
  const large = buildBatch([{ key: null, value: Buffer.alloc(40_000), headers: [], timestamp: 1000 }], {});
  connect().send(produceFrame(1, 't', -1, large));
  const released: number[] = [];
  let reads = 0;
  const read = partition.read.bind(partition);
  partition.read = (...args) => {
    const slice = read(...args);
    if (slice instanceof Promise) return slice;
    const number = reads++;
    return {
      ...slice,
      chunks: slice.chunks,
      sizeBytes: slice.sizeBytes,
      release: () => {
        released.push(number);
        slice.release();
      },
    };
  };
  const reader = connect();
  reader.isReading = false;
  reader.send(fetchFrame(1, 't'));
  await clock.advance(1);
  // Together the two answers reach the limit of unsent bytes exactly with the end of the second.
  reader.send(fetchFrame(2, 't'));
  await clock.advance(1);
  t.deepEqual(released, []);
  reader.read(1);
  await clock.advance(1);
  t.deepEqual(released, [0]);
  reader.read(1);
  await clock.advance(1);
  t.deepEqual(released, [0, 1]);
});

test('a transport that reports a write after the end lets nothing go twice', async (t) => {
  const { broker, clock, connect } = await openMemoryBroker();
  const [partition] = broker.topics.autoCreate('t').partitions;
  connect().send(produceFrame(1, 't'));
  let releases = 0;
  const read = partition.read.bind(partition);
  partition.read = (...args) => {
    const slice = read(...args);
    if (slice instanceof Promise) return slice;
    return { chunks: slice.chunks, sizeBytes: slice.sizeBytes, release: () => void releases++ };
  };
  const reader = connect();
  reader.isReading = false;
  reader.send(fetchFrame(1, 't'));
  await clock.advance(1);
  reader.destroy();
  t.is(releases, 1);
  reader.read();
  t.is(releases, 1);
});

test('a client that has shut down its side gets its answers, and then the end', async (t) => {
  const { broker, engine, clock, connect } = await openMemoryBroker({}, 'manual');
  broker.topics.autoCreate('t');
  engine.sync();
  const client = connect();
  client.send(produceFrame(1, 't'), versionsFrame(2));
  client.connection?.onEnd();
  await clock.advance(10);
  t.false(client.isEnded);
  engine.sync();
  await clock.advance(1);
  t.deepEqual(client.answered, [1, 2]);
  t.true(client.isEnded);
});

test('a client that shuts down its side while nothing is asked is gone at once', async (t) => {
  const { connect } = await openMemoryBroker();
  const client = connect();
  client.connection?.onEnd();
  t.true(client.isEnded);
});

test('a long poll of a client that has shut down its side is answered at once', async (t) => {
  const { broker, clock, connect } = await openMemoryBroker();
  broker.topics.autoCreate('t');
  const client = connect();
  client.send(fetchFrame(1, 't', { maxWaitMs: 60_000 }));
  await clock.advance(1);
  t.deepEqual(client.answered, []);
  client.connection?.onEnd();
  await clock.advance(1);
  t.deepEqual(client.answered, [1]);
  t.true(client.isEnded);
});

test('draining answers what was asked, long polls at once, and reads nothing more', async (t) => {
  const { broker, engine, clock, connect } = await openMemoryBroker({}, 'manual');
  broker.topics.autoCreate('t');
  engine.sync();
  const producer = connect();
  producer.send(produceFrame(1, 't'));
  const reader = connect();
  reader.send(fetchFrame(1, 't', { maxWaitMs: 60_000 }));
  await clock.advance(1);
  for (const { connection } of [producer, reader]) connection?.drain();
  t.true(producer.isPaused);
  t.false(producer.connection?.isIdle);
  await clock.advance(1);
  t.deepEqual(reader.answered, [1]);
  t.true(reader.connection?.isIdle);
  t.false(producer.connection?.isIdle);
  engine.sync();
  await clock.advance(1);
  t.deepEqual(producer.answered, [1]);
  t.true(producer.connection?.isIdle);
});

test('a refused batch that nobody waits for ends the connection without a word to the operator', async (t) => {
  const { connect, reports } = await openMemoryBroker();
  const client = connect();
  client.send(produceFrame(1, 'nowhere', 0));
  t.true(client.isDestroyed);
  t.deepEqual(reports, []);
});
