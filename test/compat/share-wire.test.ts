/**
 * The dialogue of share sessions, request by request (KIP-932, KIP-1206, KIP-1222): which error comes at which level, what is
 * handed out, what a session remembers. The expectations are the answers of Apache Kafka 4.4, with which the same test passes
 * (MILLRACE_COMPAT_BOOTSTRAP; started with group.share.min.record.lock.duration.ms=1000).
 */
import test from 'ava';
import type { apis } from '../../protocol/kafka/apis.ts';
import { buildBatch } from '../../protocol/record-batch.ts';
import { RawClient } from '../support/raw-client.ts';
import { openTarget, type Target } from './target.ts';

type Request<Name extends 'ShareFetch' | 'ShareAcknowledge'> = Parameters<(typeof apis)[Name]['writeRequest']>[1];
type FetchAnswer = ReturnType<typeof apis.ShareFetch.readResponse>;
type AckAnswer = ReturnType<typeof apis.ShareAcknowledge.readResponse>;

const NOWHERE = '11111111-2222-3333-4444-555555555555';
const run = process.pid.toString(36);
let target: Target;

test.before(async () => {
  target = await openTarget({ 'group.share.min.record.lock.duration.ms': 1000 });
});
test.after.always(async () => target?.stop());

/** A member of a group of its own over a topic of its own. */
class Dialogue {
  readonly client: RawClient;
  readonly heart: RawClient;
  readonly group: string;
  readonly topic: string;
  topicId = '';
  memberId = 'one';

  private constructor(name: string, client: RawClient, heart: RawClient) {
    this.group = `${name}-group-${run}`;
    this.topic = `${name}-${run}`;
    this.client = client;
    this.heart = heart;
  }

  static async open(name: string, configs: Record<string, string> = {}): Promise<Dialogue> {
    const client = await RawClient.connect(target.bootstrap);
    const dialogue = new Dialogue(name, client, await RawClient.connect(target.bootstrap));
    const { topic, group, heart } = dialogue;
    const made = await client.ask('CreateTopics', 7, {
      topics: [{ name: topic, numPartitions: 1, replicationFactor: 1, assignments: [], configs: [] }],
      timeoutMs: 5000,
    });
    dialogue.topicId = made.topics[0].topicId;
    const entries = Object.entries({ 'share.auto.offset.reset': 'earliest', ...configs });
    const set = entries.map(([key, value]) => ({ name: key, configOperation: 0, value }));
    const resources = [{ resourceType: 32, resourceName: group, configs: set }];
    await client.ask('IncrementalAlterConfigs', 1, { resources, validateOnly: false });
    // A Kafka that is new makes its internal topics with the first group.
    const join = { groupId: group, memberId: 'one', rackId: null };
    let beat = await heart.ask('ShareGroupHeartbeat', 1, { ...join, memberEpoch: 0, subscribedTopicNames: [topic] });
    for (let tries = 0; tries < 100 && (beat.assignment?.topicPartitions.length ?? 0) === 0; tries++) {
      await new Promise((resolve) => setTimeout(resolve, 100));
      const isIn = beat.errorCode === 0;
      const subscribedTopicNames = isIn ? null : [topic];
      const memberEpoch = isIn ? beat.memberEpoch : 0;
      beat = await heart.ask('ShareGroupHeartbeat', 1, { ...join, memberEpoch, subscribedTopicNames });
    }
    return dialogue;
  }

  async produce(batches: number, records = 10): Promise<void> {
    for (let count = 0; count < batches; count++) {
      const record = { key: null, value: Buffer.from('v'), timestamp: Date.now() };
      const bytes = buildBatch(Array.from({ length: records }, () => record));
      const topicData = [{ name: this.topic, partitionData: [{ index: 0, records: bytes }] }];
      await this.client.ask('Produce', 9, { transactionalId: null, acks: -1, timeoutMs: 5000, topicData });
    }
  }

  async fetch(epoch: number, request: Partial<Request<'ShareFetch'>> = {}, version = 2): Promise<string> {
    const limits = { maxWaitMs: 300, minBytes: 1, maxBytes: 1 << 20, maxRecords: 500, batchSize: 500 };
    const answer = await this.client.ask('ShareFetch', version, {
      groupId: this.group,
      memberId: this.memberId,
      shareSessionEpoch: epoch,
      ...limits,
      topics: [],
      forgottenTopicsData: [],
      ...request,
    });
    return fetchText(answer);
  }

  async acknowledge(epoch: number, request: Partial<Request<'ShareAcknowledge'>>): Promise<string> {
    const { group: groupId, memberId } = this;
    const all = { groupId, memberId, shareSessionEpoch: epoch, topics: [], ...request };
    return ackText(await this.client.ask('ShareAcknowledge', 2, all));
  }

  /** The partition, with acknowledgements `[first, last, types...]`. */
  part(...acks: readonly (readonly number[])[]): Request<'ShareFetch'>['topics'] {
    return this.partOf(this.topicId, 0, ...acks);
  }
  partOf(
    topicId: string,
    partitionIndex: number,
    ...acks: readonly (readonly number[])[]
  ): Request<'ShareFetch'>['topics'] {
    const acknowledgementBatches = acks.map(([firstOffset, lastOffset, ...acknowledgeTypes]) => {
      return { firstOffset, lastOffset, acknowledgeTypes };
    });
    return [{ topicId, partitions: [{ partitionIndex, acknowledgementBatches }] }];
  }

  close(): void {
    this.client.close();
    this.heart.close();
  }
}

/** `top` or `0`, then for each partition `fetch error/acknowledge error`, then what was acquired as `first-last×count`. */
function fetchText({ errorCode, responses }: FetchAnswer): string {
  const partitions = responses.flatMap((topic) => topic.partitions);
  const texts = partitions.map((one) => {
    const acquired = one.acquiredRecords.map(
      ({ firstOffset, lastOffset, deliveryCount }) => `${firstOffset}-${lastOffset}×${deliveryCount}`,
    );
    return [`${one.errorCode}/${one.acknowledgeErrorCode}`, ...acquired].join(' ');
  });
  return [errorCode, ...texts].join(' | ');
}

function ackText({ errorCode, responses }: AckAnswer): string {
  return [errorCode, ...responses.flatMap((topic) => topic.partitions.map((one) => one.errorCode))].join(' | ');
}

test('a session is opened with 0, counted, and closed with -1', async (t) => {
  const d = await Dialogue.open('session');
  t.is(await d.fetch(0, { groupId: null }), '42');
  t.is(await d.fetch(0, { memberId: null }), '42');
  t.is(await d.fetch(0, { memberId: '' }), '42');
  t.is(await d.fetch(1), '122');
  t.is(await d.fetch(-1), '122');
  t.is(await d.fetch(0, { topics: d.part([0, 1, 1]) }), '42');
  t.is(await d.fetch(0), '0');
  t.is(await d.fetch(5), '123');
  t.is(await d.fetch(-2), '123');
  t.is(await d.fetch(1), '0');
  t.is(await d.acknowledge(1, {}), '123');
  t.is(await d.acknowledge(0, {}), '123');
  t.is(await d.acknowledge(2, {}), '0');
  t.is(await d.acknowledge(3, { memberId: null }), '42');
  t.is(await d.acknowledge(-1, {}), '0');
  t.is(await d.acknowledge(-1, {}), '122');
  d.close();
});

test('whole batches come in batch-optimized mode, and exactly as many as asked for in record-limit mode', async (t) => {
  const d = await Dialogue.open('modes');
  await d.produce(6);
  t.is(await d.fetch(0, { topics: d.part(), maxRecords: 5 }), '0 | 0/0 0-9×1');
  t.is(await d.fetch(1, { maxRecords: 25, batchSize: 10 }), '0 | 0/0 10-19×1 20-29×1 30-39×1');
  t.is(await d.fetch(2, { maxRecords: 3, shareAcquireMode: 1 }), '0 | 0/0 40-42×1');
  t.is(await d.fetch(3, { maxRecords: 2 }), '0 | 0/0 43-49×1');
  t.is(await d.fetch(4, { maxRecords: 0 }), '0');
  t.is(await d.fetch(5, { maxBytes: 0 }), '0');
  t.is(await d.fetch(6), '0 | 0/0 50-59×1');
  t.is(await d.fetch(7, { maxWaitMs: 10 }), '0');
  d.close();
});

test('acknowledgements of a partition are taken together or not at all', async (t) => {
  const d = await Dialogue.open('acks');
  await d.produce(4);
  t.is(await d.fetch(0, { topics: d.part() }), '0 | 0/0 0-39×1');
  const refused: [number, readonly (readonly number[])[]][] = [
    // Beyond what was handed out; backwards; too few types; none; unknown ones; a renewal that is not announced.
    [
      42,
      [
        [0, 2, 1],
        [100, 101, 1],
      ],
    ],
    [42, [[8, 7, 1]]],
    [42, [[5, 9, 1, 1]]],
    [42, [[5, 9]]],
    [42, [[5, 9, 5]]],
    [42, [[5, 9, -1]]],
    [42, [[5, 9, 4]]],
    // The same record twice.
    [
      121,
      [
        [5, 7, 1],
        [7, 8, 1],
      ],
    ],
  ];
  let epoch = 1;
  for (const [error, acks] of refused) {
    t.is(await d.fetch(epoch++, { topics: d.part(...acks), maxWaitMs: 10 }), `0 | 0/${error}`, JSON.stringify(acks));
  }
  // Accepted, released, rejected; the released one comes again.
  t.is(await d.fetch(epoch++, { topics: d.part([0, 2, 1], [3, 4, 2, 3]) }), '0 | 0/0 3-3×2');
  // What is below the start is done, whoever says so.
  t.is(await d.fetch(epoch++, { topics: d.part([0, 2, 1]), maxWaitMs: 10 }), '0 | 0/0');
  t.is(await d.acknowledge(epoch++, { topics: d.part([4, 4, 1]) }), '0 | 121');
  t.is(await d.acknowledge(epoch++, { topics: d.part([5, 6, 0]) }), '0 | 0');
  t.is(await d.acknowledge(epoch++, { topics: d.part() }), '0');
  t.is(await d.acknowledge(epoch++, { topics: d.partOf(NOWHERE, 0, [5, 5, 1]) }), '0 | 100');
  t.is(await d.acknowledge(epoch++, { topics: d.partOf(d.topicId, 7, [5, 5, 1]) }), '0 | 3');
  d.close();
});

test('a lock is renewed by a request that asks for nothing else', async (t) => {
  const d = await Dialogue.open('renewing');
  await d.produce(1);
  t.is(await d.fetch(0, { topics: d.part() }), '0 | 0/0 0-9×1');
  const nothing = { maxWaitMs: 0, minBytes: 0, maxBytes: 0, maxRecords: 0 };
  t.is(await d.fetch(1, { topics: d.part([0, 4, 4]), isRenewAck: true }), '42');
  t.is(await d.fetch(1, { topics: d.part([0, 4, 4]), isRenewAck: true, ...nothing }), '0 | 0/0');
  t.is(await d.fetch(2, { topics: d.part([0, 4, 4]), ...nothing }, 1), '0 | 0/42');
  t.is(await d.acknowledge(3, { topics: d.part([0, 4, 4]) }), '0 | 42');
  t.is(await d.acknowledge(4, { topics: d.part([0, 3, 4], [4, 4, 1]), isRenewAck: true }), '0 | 0');
  d.close();
});

test('a session that is opened anew keeps what its member holds, one that is closed gives it back', async (t) => {
  const d = await Dialogue.open('anew');
  await d.produce(2);
  t.is(await d.fetch(0, { topics: d.part() }), '0 | 0/0 0-19×1');
  t.is(await d.fetch(0, { topics: d.part(), maxWaitMs: 10 }), '0 | 0/0');
  t.is(await d.acknowledge(1, { topics: d.part([0, 9, 1]) }), '0 | 0');
  t.is(await d.fetch(-1, { topics: d.part([10, 10, 1]), maxWaitMs: 10 }), '0 | 0/0');
  t.is(await d.fetch(0, { topics: d.part() }), '0 | 0/0 11-19×2');
  d.close();
});

test('what a member of a lost connection held goes to the others', async (t) => {
  const d = await Dialogue.open('lost');
  await d.produce(1);
  const { client } = d;
  const other = await RawClient.connect(target.bootstrap);
  const request = { groupId: d.group, memberId: 'other', shareSessionEpoch: 0, topics: d.part() };
  const limits = { maxWaitMs: 1000, minBytes: 1, maxBytes: 1 << 20, maxRecords: 500, batchSize: 500 };
  const taken = await other.ask('ShareFetch', 1, { ...request, ...limits, forgottenTopicsData: [] });
  t.is(fetchText(taken), '0 | 0/0 0-9×1');
  t.is(await d.fetch(0, { topics: d.part(), maxWaitMs: 50 }), '0 | 0/0');
  const again = d.fetch(1, { maxWaitMs: 5000 });
  other.close();
  t.is(await again, '0 | 0/0 0-9×2');
  client.close();
  d.close();
});

test('partitions that are not there are refused one by one, until they are forgotten', async (t) => {
  const d = await Dialogue.open('unknown');
  const topics = [...d.partOf(NOWHERE, 0), ...d.partOf(d.topicId, 9)];
  t.is(await d.fetch(0, { topics, maxWaitMs: 50 }), '0 | 100/0 | 3/0');
  t.is(await d.fetch(1, { maxWaitMs: 50 }), '0 | 100/0 | 3/0');
  const forgottenTopicsData = [
    { topicId: d.topicId, partitions: [9] },
    { topicId: NOWHERE, partitions: [0] },
  ];
  t.is(await d.fetch(2, { maxWaitMs: 50, forgottenTopicsData }), '0');
  t.is(await d.fetch(0, { groupId: `nobody-${run}`, topics: d.part(), maxWaitMs: 50 }), '0 | -1/0');
  d.close();
});

test('the limit of deliveries, the end of a lock, and renewals that the group does not allow', async (t) => {
  const configs = {
    'share.delivery.count.limit': '2',
    'share.record.lock.duration.ms': '1000',
    'share.renew.acknowledge.enable': 'false',
  };
  const d = await Dialogue.open('limits', configs);
  await d.produce(1);
  t.is(await d.fetch(0, { topics: d.part() }), '0 | 0/0 0-9×1');
  t.is(await d.acknowledge(1, { topics: d.part([0, 0, 4]), isRenewAck: true }), '0 | 121');
  t.is(await d.acknowledge(2, { topics: d.part([0, 9, 2]) }), '0 | 0');
  t.is(await d.fetch(3), '0 | 0/0 0-9×2');
  t.is(await d.acknowledge(4, { topics: d.part([0, 4, 2]) }), '0 | 0');
  // The first five are given up; the others are when their lock runs out.
  t.is(await d.fetch(5, { maxWaitMs: 1500 }), '0');
  t.is(await d.acknowledge(6, { topics: d.part([5, 9, 1]) }), '0 | 0');
  await d.produce(1);
  t.is(await d.fetch(7, { maxWaitMs: 2000 }), '0 | 0/0 10-19×1');
  d.close();
});

test('offsets of share groups are told, moved and forgotten', async (t) => {
  const d = await Dialogue.open('offsets');
  await d.produce(2);
  const { client, group: groupId, topic: topicName } = d;
  const at = async (): Promise<string> => {
    const groups = [{ groupId, topics: null }];
    const answer = await client.ask('DescribeShareGroupOffsets', 1, { groups });
    const partitions = answer.groups[0].topics.flatMap((topic) => topic.partitions);
    return [answer.groups[0].errorCode, ...partitions.map(({ startOffset, lag }) => `${startOffset}+${lag}`)].join(' ');
  };
  const alter = async (partitionIndex: number, startOffset: number, name = topicName): Promise<string> => {
    const topics = [{ topicName: name, partitions: [{ partitionIndex, startOffset }] }];
    const { errorCode, responses } = await client.ask('AlterShareGroupOffsets', 0, { groupId, topics });
    return [errorCode, ...responses.flatMap((one) => one.partitions.map((part) => part.errorCode))].join(' ');
  };
  const forget = async (name = topicName): Promise<string> => {
    const topics = [{ topicName: name }];
    const { errorCode, responses } = await client.ask('DeleteShareGroupOffsets', 0, { groupId, topics });
    return [errorCode, ...responses.map((one) => one.errorCode)].join(' ');
  };
  t.is(await at(), '0 -1+-1');
  t.is(await alter(0, 3), '68');
  t.is(await forget(), '68');
  t.is(await d.fetch(0, { topics: d.part() }), '0 | 0/0 0-19×1');
  t.is(await d.acknowledge(-1, { topics: d.part([0, 4, 1], [6, 7, 1]) }), '0 | 0');
  await d.heart.ask('ShareGroupHeartbeat', 1, {
    groupId,
    memberId: 'one',
    memberEpoch: -1,
    rackId: null,
    subscribedTopicNames: null,
  });
  for (let tries = 0; tries < 50 && (await at()) !== '0 5+13'; tries++) {
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  t.is(await at(), '0 5+13');
  t.is(await alter(0, 3), '0 0');
  t.is(await at(), '0 3+17');
  t.is(await alter(7, 3), '0 3');
  t.is(await alter(0, 3, `nowhere-${run}`), '0 3');
  t.is(await forget(), '0 0');
  t.is(await at(), '0');
  t.is(await forget(), '0 3');
  t.is(await forget(`nowhere-${run}`), '0 3');
  d.close();
});
