import test from 'ava';
import type { FetchResponse } from '../../../protocol/kafka/messages.ts';
import { buildBatch } from '../../../protocol/record-batch.ts';
import { type MemoryBroker, type MemoryClient, openMemoryBroker } from '../../support/memory-broker.ts';
import { frameOf } from '../../support/raw-client.ts';

const one = buildBatch([{ key: null, value: Buffer.from('v'), headers: [], timestamp: 1000 }], {});

interface Target {
  topic?: string;
  topicId?: string;
  partition?: number;
  fetchOffset?: number;
  partitionMaxBytes?: number;
  currentLeaderEpoch?: number;
  lastFetchedEpoch?: number;
}
type More = Partial<Omit<Parameters<typeof frameOf<'Fetch'>>[2], 'topics'>>;

async function opened(batches: number, durability: 'at once' | 'manual' = 'at once') {
  const memory = await openMemoryBroker({}, durability);
  const topic = memory.broker.topics.autoCreate('t');
  if (durability === 'manual') memory.engine.sync();
  const client = memory.connect();
  for (let number = 0; number < batches; number++) {
    client.send(
      frameOf('Produce', 7, {
        acks: -1,
        timeoutMs: 1000,
        topicData: [{ name: 't', partitionData: [{ index: 0, records: one }] }],
      }),
    );
  }
  await memory.clock.advance(1);
  return { ...memory, topic, partition: topic.partitions[0] };
}

/** Sends one Fetch and answers what came back within a millisecond. */
async function fetch(
  { clock }: MemoryBroker,
  client: MemoryClient,
  version: number,
  targets: readonly Target[],
  more: More = {},
): Promise<FetchResponse | undefined> {
  const before = client.frames.length;
  client.send(
    frameOf('Fetch', version, {
      maxWaitMs: 0,
      minBytes: 1,
      maxBytes: 1024 * 1024,
      isolationLevel: 0,
      sessionEpoch: -1,
      topics: targets.map(({ topic = 't', topicId, ...partition }) => ({
        topic,
        topicId,
        partitions: [{ partition: 0, fetchOffset: 0, partitionMaxBytes: 1024 * 1024, ...partition }],
      })),
      forgottenTopicsData: [],
      ...more,
    }),
  );
  await clock.advance(1);
  return client.frames.length > before ? client.answer(before, 'Fetch', version) : undefined;
}

const errorOf = (response: FetchResponse | undefined): number | undefined =>
  response?.responses[0]?.partitions[0]?.errorCode;

test('errors of a session name no session', async (t) => {
  const memory = await opened(1);
  const client = memory.connect();
  const first = await fetch(memory, client, 11, [{}], { sessionEpoch: 0 });
  const sessionId = first?.sessionId ?? 0;
  t.true(sessionId > 0);
  const wrong = await fetch(memory, client, 11, [], { sessionId, sessionEpoch: 7 });
  t.deepEqual([wrong?.errorCode, wrong?.sessionId], [71, 0]);
  const unknown = await fetch(memory, client, 11, [], { sessionId: sessionId + 1, sessionEpoch: 1 });
  t.deepEqual([unknown?.errorCode, unknown?.sessionId], [70, 0]);
  const mixed = await fetch(memory, client, 13, [], { sessionId, sessionEpoch: 1 });
  t.deepEqual([mixed?.errorCode, mixed?.sessionId], [106, 0]);
  // None of them has ended the session or moved its epoch.
  t.is((await fetch(memory, client, 11, [], { sessionId, sessionEpoch: 1 }))?.errorCode, 0);
});

test('a session that has forgotten its last partition is over', async (t) => {
  const memory = await opened(1);
  const client = memory.connect();
  const sessionId = (await fetch(memory, client, 11, [{}], { sessionEpoch: 0 }))?.sessionId ?? 0;
  const forgottenTopicsData = [{ topic: 't', partitions: [0] }];
  const emptied = await fetch(memory, client, 11, [], { sessionId, sessionEpoch: 1, forgottenTopicsData });
  t.deepEqual([emptied?.errorCode, emptied?.sessionId, emptied?.responses.length], [0, 0, 0]);
  t.is((await fetch(memory, client, 11, [], { sessionId, sessionEpoch: 2 }))?.errorCode, 70);
});

test('more bytes than an answer may have are not waited for', async (t) => {
  const memory = await opened(1);
  const wish = { maxWaitMs: 60_000, minBytes: 500_000, maxBytes: 50 };
  t.is(errorOf(await fetch(memory, memory.connect(), 11, [{}], wish)), 0);
});

test('an offset between the high watermark and the end is waited at, one beyond the end is out of range', async (t) => {
  const memory = await opened(2, 'manual');
  const { partition, engine } = memory;
  t.deepEqual([partition.highWatermark, partition.endOffset], [0, 2]);
  const client = memory.connect();
  t.is(errorOf(await fetch(memory, client, 11, [{ fetchOffset: 3 }])), 1);
  t.is(await fetch(memory, client, 11, [{ fetchOffset: 1 }], { maxWaitMs: 60_000 }), undefined);
  engine.sync();
  await memory.clock.advance(1);
  t.is(client.answer(1, 'Fetch', 11).responses[0].partitions[0].records?.length, one.length);
});

test('an offset below the start is out of range whatever epoch is told', async (t) => {
  const memory = await opened(3);
  memory.engine.commit([{ kind: 'start', partition: memory.partition, offset: 2 }], 'waited');
  const client = memory.connect();
  t.is(errorOf(await fetch(memory, client, 12, [{ fetchOffset: 1, lastFetchedEpoch: 1 }])), 1);
  t.is(errorOf(await fetch(memory, client, 12, [{ fetchOffset: 1 }])), 1);
});

test('an epoch that never was is out of range', async (t) => {
  const memory = await opened(1);
  t.is(errorOf(await fetch(memory, memory.connect(), 12, [{ lastFetchedEpoch: 99 }])), 1);
});

test('other brokers cannot follow a partition', async (t) => {
  const memory = await opened(1);
  const client = memory.connect();
  t.is(errorOf(await fetch(memory, client, 11, [{}], { replicaId: 5 })), 6);
  const { topicId } = memory.partition;
  const answer = await fetch(memory, client, 17, [{ topicId }], { replicaState: { replicaId: 5, replicaEpoch: 1 } });
  t.is(errorOf(answer), 6);
  // A debugging consumer is a consumer.
  t.is(errorOf(await fetch(memory, client, 11, [{}], { replicaId: -2 })), 0);
});

test('whoever knows a leader of before a restart is told the present one', async (t) => {
  const memory = await opened(1);
  // As after five starts.
  for (const part of [memory.partition, memory.engine]) Object.defineProperty(part, 'leaderEpoch', { value: 5 });
  const { topicId } = memory.partition;
  const answer = await fetch(memory, memory.connect(), 16, [{ topicId, currentLeaderEpoch: 4 }]);
  t.is(errorOf(answer), 74);
  t.deepEqual(answer?.responses[0].partitions[0].currentLeader, { leaderId: 1, leaderEpoch: 5 });
  t.deepEqual(answer?.nodeEndpoints, [{ nodeId: 1, host: '127.0.0.1', port: 9092, rack: null }]);
});

test('a failure inside a waiting fetch ends its connection and not whoever woke it', async (t) => {
  const memory = await opened(0);
  const reader = memory.connect();
  t.is(await fetch(memory, reader, 11, [{}], { maxWaitMs: 60_000 }), undefined);
  memory.partition.read = () => {
    throw new Error('broken');
  };
  const producer = memory.connect();
  producer.send(
    frameOf('Produce', 7, {
      acks: -1,
      timeoutMs: 1000,
      topicData: [{ name: 't', partitionData: [{ index: 0, records: one }] }],
    }),
  );
  await memory.clock.advance(1);
  t.is(producer.frames.length, 1);
  t.true(reader.isDestroyed);
  t.is(memory.reports.length, 1);
});

test('a session that served one partition serves the others first the next time', async (t) => {
  const memory = await opened(1);
  memory.broker.topics.autoCreate('u');
  const producer = memory.connect();
  for (const name of ['t', 'u', 't', 'u']) {
    producer.send(
      frameOf('Produce', 7, {
        acks: -1,
        timeoutMs: 1000,
        topicData: [{ name, partitionData: [{ index: 0, records: one }] }],
      }),
    );
  }
  const client = memory.connect();
  const small = { maxBytes: one.length };
  const served: string[] = [];
  const names = (response: FetchResponse | undefined): void => {
    for (const { topic, partitions } of response?.responses ?? [])
      if ((partitions[0].records?.length ?? 0) > 0) served.push(topic);
  };
  const first = await fetch(memory, client, 11, [{ topic: 't' }, { topic: 'u' }], { ...small, sessionEpoch: 0 });
  names(first);
  for (let sessionEpoch = 1; sessionEpoch < 4; sessionEpoch++)
    names(await fetch(memory, client, 11, [], { ...small, sessionId: first?.sessionId ?? 0, sessionEpoch }));
  t.deepEqual(served, ['t', 'u', 't', 'u']);
});

test('a session may begin without partitions', async (t) => {
  const memory = await opened(1);
  const client = memory.connect();
  const first = await fetch(memory, client, 11, [], { sessionEpoch: 0 });
  const sessionId = first?.sessionId ?? 0;
  t.true(sessionId > 0);
  const next = await fetch(memory, client, 11, [{}], { sessionId, sessionEpoch: 1 });
  t.deepEqual([next?.sessionId, next?.responses.length], [sessionId, 1]);
});
