/**
 * The consumer group protocol, request by request, against Millrace and (MILLRACE_COMPAT_BOOTSTRAP) against Apache Kafka
 * 4.4. Kafka then runs with group.consumer.assignment.interval.ms=0, group.consumer.assignor.offload.enable=false and
 * group.consumer.migration.policy=disabled, so that it answers in the same heartbeat.
 */
import test from 'ava';
import { errors } from '../../protocol/errors.ts';
import type {
  ConsumerGroupHeartbeatRequestInit,
  ConsumerGroupHeartbeatResponse,
} from '../../protocol/kafka/messages.ts';
import { RawClient } from '../support/raw-client.ts';
import { openTarget, type Target } from './target.ts';

let target: Target;
let client: RawClient;
const run = `${process.pid}-${Date.now().toString(36)}`;
const topics = [`t1-${run}`, `t2-${run}`];
const ids = new Map<string, string>();

test.before(async () => {
  target = await openTarget({ 'group.consumer.assignment.interval.ms': 0 });
  client = await RawClient.connect(target.bootstrap);
  const created = await client.ask('CreateTopics', 7, {
    topics: topics.map((name, index) => ({
      name,
      numPartitions: 3 - index,
      replicationFactor: 1,
      assignments: [],
      configs: [],
    })),
    timeoutMs: 5_000,
    validateOnly: false,
  });
  for (const { name, topicId } of created.topics) ids.set(topicId ?? '', name.slice(0, 2));
  await untilKnown();
});
test.after.always(async () => {
  client?.close();
  await target?.stop();
});

/** Kafka's coordinator learns of new topics, and becomes the coordinator at all, a little after they are created. */
async function untilKnown(): Promise<void> {
  const group = new Group('known');
  for (;;) {
    await client.ask('FindCoordinator', 4, { keyType: 0, coordinatorKeys: [group.id] });
    const answer = await group.beat('m1', { ...JOIN, subscribedTopicNames: topics });
    if (answer.endsWith(' t1:0,1,2 t2:0,1')) return;
    await group.beat('m1', { memberEpoch: -1 });
  }
}

const t1 = topics[0];
const JOIN = { memberEpoch: 0, rebalanceTimeoutMs: 10_000, topicPartitions: [], subscribedTopicNames: [t1] };

const owned = (...partitions: number[]): { topicId: string; partitions: number[] }[] => [
  { topicId: [...ids].find(([, name]) => name === 't1')?.[0] ?? '', partitions },
];
const plain = (parts: readonly { topicId: string; partitions: number[] }[]): string =>
  parts
    .map(({ topicId, partitions }) => `${ids.get(topicId)}:${partitions.sort((a, b) => a - b).join()}`)
    .sort()
    .join(' ');

class Group {
  readonly id: string;
  constructor(name: string) {
    this.id = `${name}-${run}`;
  }
  ask(memberId: string, request: Partial<ConsumerGroupHeartbeatRequestInit>): Promise<ConsumerGroupHeartbeatResponse> {
    return client.ask('ConsumerGroupHeartbeat', 1, { groupId: this.id, memberId, memberEpoch: 0, ...request });
  }
  /** `epoch`, or `epoch topic:partitions`, or the error. */
  async beat(memberId: string, request: Partial<ConsumerGroupHeartbeatRequestInit>): Promise<string> {
    const { errorCode, memberEpoch, assignment } = await this.ask(memberId, request);
    if (errorCode !== 0)
      return Object.entries(errors).find(([, { kafka }]) => kafka === errorCode)?.[0] ?? `${errorCode}`;
    return assignment === null ? `${memberEpoch}` : `${memberEpoch} ${plain(assignment.topicPartitions)}`;
  }
  /** `state group-epoch target-epoch assignor`, then a line a member. */
  async describe(): Promise<string[]> {
    const request = { groupIds: [this.id], includeAuthorizedOperations: false };
    const { groups } = await client.ask('ConsumerGroupDescribe', 1, request);
    const { groupState, groupEpoch, assignmentEpoch, assignorName, members } = groups[0];
    const lines = members.map(({ memberId, memberEpoch, assignment, targetAssignment, memberType }) => {
      const has = plain(assignment.topicPartitions);
      return `${memberId} ${memberEpoch} ${memberType} ${has} > ${plain(targetAssignment.topicPartitions)}`;
    });
    return [`${groupState} ${groupEpoch} ${assignmentEpoch} ${assignorName}`, ...lines.sort()];
  }
  async commit(generation: number, partitions: number[], version = 9): Promise<number[]> {
    const { topics: answered } = await client.ask('OffsetCommit', version, {
      groupId: this.id,
      generationIdOrMemberEpoch: generation,
      memberId: 'm1',
      topics: [
        {
          name: t1,
          partitions: partitions.map((partitionIndex) => ({
            partitionIndex,
            committedOffset: 1,
            committedMetadata: '',
          })),
        },
      ],
    });
    return answered[0].partitions.map(({ errorCode }) => errorCode);
  }
}

test.serial('two members share a topic: revoke, acknowledge, assign', async (t) => {
  const group = new Group('share');
  t.is(await group.beat('m1', JOIN), '2 t1:0,1,2');
  t.is(await group.beat('m1', { memberEpoch: 2 }), '2');
  t.is(await group.beat('m2', JOIN), '3 ');
  t.deepEqual(await group.describe(), ['Reconciling 3 3 uniform', 'm1 2 1 t1:0,1,2 > t1:0,1', 'm2 3 1  > t1:2']);
  t.is(await group.beat('m1', { memberEpoch: 2 }), '2 t1:0,1');
  t.is(await group.beat('m1', { memberEpoch: 2, topicPartitions: owned(0, 1, 2) }), '2');
  t.is(await group.beat('m2', { memberEpoch: 3 }), '3');
  t.deepEqual((await group.describe())[1], 'm1 2 1 t1:0,1,2 > t1:0,1');
  t.is(await group.beat('m1', { memberEpoch: 2, topicPartitions: owned(0, 1) }), '3');
  t.is(await group.beat('m1', { memberEpoch: 2, topicPartitions: owned(0, 1) }), '3');
  t.is(await group.beat('m1', { memberEpoch: 2 }), 'FENCED_MEMBER_EPOCH');
  t.is(await group.beat('m2', { memberEpoch: 3 }), '3 t1:2');
  t.deepEqual((await group.describe())[0], 'Stable 3 3 uniform');

  t.deepEqual(await group.commit(3, [0, 1]), [0, 0]);
  t.deepEqual(await group.commit(2, [0, 1]), [0, 0]);
  t.deepEqual(await group.commit(2, [0, 2]), [113, 113]);
  t.deepEqual(await group.commit(4, [0]), [113]);
  t.deepEqual(await group.commit(3, [0], 8), [35]);

  t.is(await group.beat('m1', { memberEpoch: 3, subscribedTopicNames: topics }), '3 t1:0');
  t.is(await group.beat('m1', { memberEpoch: 3, topicPartitions: owned(0) }), '4 t1:0 t2:0,1');
  t.is(await group.beat('m2', { memberEpoch: 3, topicPartitions: owned(2) }), '4 t1:1,2');
  t.is(await group.beat('m2', { memberEpoch: -1 }), '-1');
  t.is(await group.beat('m2', { memberEpoch: -1 }), 'UNKNOWN_MEMBER_ID');
  t.is(await group.beat('m1', { memberEpoch: 4 }), '5 t1:0,1,2 t2:0,1');
  t.is(await group.beat('m1', { memberEpoch: -1 }), '-1');
  t.deepEqual(await group.describe(), ['Empty 6 6 uniform']);
});

test.serial('static members leave for now, are fenced, and come back under another id', async (t) => {
  const group = new Group('static');
  const own = { instanceId: 'i1' };
  t.is(await group.beat('m1', { ...JOIN, ...own }), '2 t1:0,1,2');
  t.is(await group.beat('m2', { ...JOIN, ...own }), 'UNRELEASED_INSTANCE_ID');
  t.is(await group.beat('m2', { ...own, memberEpoch: 2 }), 'FENCED_INSTANCE_ID');
  t.is(await group.beat('m1', { ...own, memberEpoch: -2 }), '-2');
  t.deepEqual(await group.describe(), ['Reconciling 2 2 uniform', 'm1 -2 1 t1:0,1,2 > t1:0,1,2']);
  t.is(await group.beat('m1', { ...own, memberEpoch: 2 }), 'FENCED_MEMBER_EPOCH');
  t.is(await group.beat('m2', { ...JOIN, ...own }), '2 t1:0,1,2');
  t.is(await group.beat('m2', { ...own, memberEpoch: -1 }), '-1');
});

test.serial('range, and a change of the assignor', async (t) => {
  const group = new Group('range');
  const join = { ...JOIN, subscribedTopicNames: topics, serverAssignor: 'range' };
  t.is(await group.beat('b', join), '2 t1:0,1,2 t2:0,1');
  t.is(await group.beat('a', join), '3 ');
  t.deepEqual(await group.describe(), [
    'Reconciling 3 3 range',
    'a 3 1  > t1:0,1 t2:0',
    'b 2 1 t1:0,1,2 t2:0,1 > t1:2 t2:1',
  ]);
  t.is(await group.beat('b', { memberEpoch: 2, serverAssignor: 'uniform' }), '2 t1:2 t2:1');
  t.is((await group.describe())[0], 'Reconciling 4 4 uniform');
});

test.serial('nothing to subscribe to, and a topic that does not exist', async (t) => {
  const nothing = new Group('nothing');
  t.is(await nothing.beat('m1', { ...JOIN, subscribedTopicNames: [] }), '1 ');
  t.deepEqual(await nothing.describe(), ['Stable 1 1 uniform', 'm1 1 1  > ']);
  const unknown = new Group('unknown');
  t.is(await unknown.beat('m1', { ...JOIN, subscribedTopicNames: [`nope-${run}`] }), '2 ');
});
