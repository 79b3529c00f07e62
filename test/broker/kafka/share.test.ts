/** What share groups do beyond the dialogue with clients (test/compat/share-wire.test.ts): restarts, limits, our own fields. */
import test from 'ava';
import { buildBatch } from '../../../protocol/record-batch.ts';
import { startTestBroker, type TestBroker } from '../../support/broker.ts';
import { RawClient } from '../../support/raw-client.ts';

const LIMITS = { maxWaitMs: 2000, minBytes: 1, maxBytes: 1 << 20, maxRecords: 500, batchSize: 500 };

class Member {
  readonly client: RawClient;
  readonly memberId: string;
  readonly topicId: string;
  #epoch = 0;

  private constructor(client: RawClient, memberId: string, topicId: string) {
    this.client = client;
    this.memberId = memberId;
    this.topicId = topicId;
  }

  /** Of group `g` over topic `t`, from the start. */
  static async join(broker: TestBroker, memberId: string): Promise<Member> {
    const client = await RawClient.connect(broker.bootstrap);
    const config = { name: 'share.auto.offset.reset', configOperation: 0, value: 'earliest' };
    const resources = [{ resourceType: 32, resourceName: 'g', configs: [config] }];
    await client.ask('IncrementalAlterConfigs', 1, { resources, validateOnly: false });
    const beat = await client.ask('ShareGroupHeartbeat', 1, {
      groupId: 'g',
      memberId,
      memberEpoch: 0,
      rackId: null,
      subscribedTopicNames: ['t'],
    });
    const { topics } = await client.ask('Metadata', 12, { topics: [{ name: 't' }] });
    if (beat.errorCode !== 0) throw new Error(`heartbeat: ${beat.errorCode}`);
    return new Member(client, memberId, topics[0].topicId);
  }

  topics(batch?: Record<string, unknown> & { firstOffset: number; lastOffset: number; acknowledgeTypes: number[] }) {
    const acknowledgementBatches = batch === undefined ? [] : [batch];
    return [{ topicId: this.topicId, partitions: [{ partitionIndex: 0, acknowledgementBatches }] }];
  }

  /** The error, or what was acquired as `first-last×count`. */
  async fetch(options: Partial<typeof LIMITS> = {}): Promise<string> {
    const answer = await this.client.ask('ShareFetch', 2, {
      groupId: 'g',
      memberId: this.memberId,
      shareSessionEpoch: this.#epoch,
      topics: this.#epoch === 0 ? this.topics() : [],
      forgottenTopicsData: [],
      ...LIMITS,
      ...options,
    });
    if (answer.errorCode !== 0) return `error ${answer.errorCode}`;
    this.#epoch++;
    const acquired = answer.responses.flatMap(({ partitions }) => partitions.flatMap((one) => one.acquiredRecords));
    return acquired.map((run) => `${run.firstOffset}-${run.lastOffset}×${run.deliveryCount}`).join(' ');
  }

  async acknowledge(batch: Parameters<Member['topics']>[0]): Promise<number> {
    const request = { groupId: 'g', memberId: this.memberId, shareSessionEpoch: this.#epoch++ };
    const answer = await this.client.ask('ShareAcknowledge', 2, { ...request, topics: this.topics(batch) });
    return answer.errorCode === 0 ? (answer.responses[0]?.partitions[0].errorCode ?? 0) : answer.errorCode;
  }
}

async function open(options: Record<string, number> = {}): Promise<TestBroker> {
  const broker = await startTestBroker(options);
  const client = await RawClient.connect(broker.bootstrap);
  const topic = { name: 't', numPartitions: 1, replicationFactor: 1, assignments: [], configs: [] };
  await client.ask('CreateTopics', 7, { topics: [topic], timeoutMs: 5000 });
  client.close();
  return broker;
}

async function produce(broker: TestBroker, count: number): Promise<void> {
  const client = await RawClient.connect(broker.bootstrap);
  const record = { key: null, value: Buffer.from('v'), timestamp: Date.now() };
  const records = buildBatch(Array.from({ length: count }, () => record));
  const topicData = [{ name: 't', partitionData: [{ index: 0, records }] }];
  await client.ask('Produce', 9, { transactionalId: null, acks: -1, timeoutMs: 5000, topicData });
  client.close();
}

test('a restart gives back what members held, counted, and keeps what they had done', async (t) => {
  const broker = await open();
  try {
    await produce(broker, 10);
    const before = await Member.join(broker, 'a');
    t.is(await before.fetch(), '0-9×1');
    t.is(await before.acknowledge({ firstOffset: 0, lastOffset: 3, acknowledgeTypes: [1] }), 0);
    t.is(await before.acknowledge({ firstOffset: 6, lastOffset: 6, acknowledgeTypes: [3] }), 0);
    await broker.restart();
    const after = await Member.join(broker, 'a');
    t.is(await after.fetch(), '4-5×2 7-9×2');
    after.client.close();
  } finally {
    await broker.stop();
  }
});

test('a release with a delay does not come again before it is over', async (t) => {
  const broker = await open();
  try {
    await produce(broker, 2);
    const member = await Member.join(broker, 'a');
    t.is(await member.fetch(), '0-1×1');
    const startedMs = performance.now();
    const release = { firstOffset: 0, lastOffset: 0, acknowledgeTypes: [2], releaseDelayMs: 400 };
    t.is(await member.acknowledge(release), 0);
    const reject = { firstOffset: 1, lastOffset: 1, acknowledgeTypes: [3], rejectReason: 'not for us' };
    t.is(await member.acknowledge(reject), 0);
    t.is(await member.fetch({ maxWaitMs: 50 }), '');
    t.is(await member.fetch(), '0-0×2');
    t.true(performance.now() - startedMs >= 399);
    member.client.close();
  } finally {
    await broker.stop();
  }
});

test('an acknowledgement does not wait for a fetch of the same connection that waits for records', async (t) => {
  const broker = await open();
  try {
    await produce(broker, 1);
    const member = await Member.join(broker, 'a');
    t.is(await member.fetch(), '0-0×1');
    const startedMs = performance.now();
    const waiting = member.fetch({ maxWaitMs: 10_000 });
    await new Promise((resolve) => setImmediate(resolve));
    // The epoch of a request that waits counts already.
    const request = { groupId: 'g', memberId: 'a', shareSessionEpoch: 2 };
    const topics = member.topics({ firstOffset: 0, lastOffset: 0, acknowledgeTypes: [1] });
    const acknowledged = await member.client.ask('ShareAcknowledge', 2, { ...request, topics });
    t.is(acknowledged.responses[0].partitions[0].errorCode, 0);
    t.is(await waiting, '');
    t.true(performance.now() - startedMs < 5_000);
    member.client.close();
  } finally {
    await broker.stop();
  }
});

test('sessions, and the partitions they remember, are bounded', async (t) => {
  const broker = await open({ 'group.share.max.share.sessions': 2, 'fetch.sessions.partitions.max': 1000 });
  try {
    const members = [await Member.join(broker, 'a'), await Member.join(broker, 'b'), await Member.join(broker, 'c')];
    t.is(await members[0].fetch({ maxWaitMs: 1 }), '');
    t.is(await members[1].fetch({ maxWaitMs: 1 }), '');
    t.is(await members[2].fetch({ maxWaitMs: 1 }), 'error 133');
    members[0].client.close();
    // The broker learns of it in a moment.
    let answer = await members[2].fetch({ maxWaitMs: 1 });
    for (let tries = 0; tries < 200 && answer !== ''; tries++) answer = await members[2].fetch({ maxWaitMs: 1 });
    t.is(answer, '');
    const partitions = Array.from({ length: 1000 }, (_one, partitionIndex) => {
      return { partitionIndex, acknowledgementBatches: [] };
    });
    const request = { groupId: 'g', memberId: 'c', shareSessionEpoch: 1, forgottenTopicsData: [], ...LIMITS };
    const topics = [{ topicId: members[2].topicId, partitions }];
    t.is((await members[2].client.ask('ShareFetch', 2, { ...request, topics })).errorCode, 133);
    t.is(await members[1].fetch({ maxWaitMs: 1 }), '');
    for (const { client } of members) client.close();
  } finally {
    await broker.stop();
  }
});
