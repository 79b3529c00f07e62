/**
 * ConsumerGroupHeartbeat and ConsumerGroupDescribe as Apache Kafka 4.4 answers them, and what the other group APIs say of
 * consumer groups. Expected answers were recorded from Kafka; test/compat/consumer-groups.test.ts asks both.
 */
import test from 'ava';
import { consumerGroupDescribe, consumerGroupHeartbeat } from '../../../broker/kafka/consumer-groups.ts';
import { offsetCommit, offsetDelete, offsetFetch } from '../../../broker/kafka/group-offsets.ts';
import {
  deleteGroups,
  describeGroups,
  joinGroup,
  leaveGroup,
  listGroups,
  syncGroup,
} from '../../../broker/kafka/groups.ts';
import { errors } from '../../../protocol/errors.ts';
import { apis } from '../../../protocol/kafka/apis.ts';
import type {
  ConsumerGroupHeartbeatRequestInit,
  ConsumerGroupHeartbeatResponse,
} from '../../../protocol/kafka/messages.ts';
import { subscription } from '../../support/group-bench.ts';
import { ask, type AskOptions } from '../../support/kafka-call.ts';
import { type MemoryBroker, openMemoryBroker } from '../../support/memory-broker.ts';

const VALUES = { 'group.consumer.assignment.interval.ms': 0 };
const JOIN = { memberEpoch: 0, rebalanceTimeoutMs: 1_000, subscribedTopicNames: ['t1'], topicPartitions: [] };

class Bench {
  readonly memory: MemoryBroker;
  constructor(memory: MemoryBroker) {
    this.memory = memory;
  }
  static async open(values: Record<string, string | number> = {}): Promise<Bench> {
    const memory = await openMemoryBroker({ ...VALUES, ...values });
    memory.broker.topics.create({ name: 't1', partitionCount: 3, overrides: new Map() });
    memory.broker.topics.create({ name: 't2', partitionCount: 2, overrides: new Map() });
    return new Bench(memory);
  }
  get broker(): MemoryBroker['broker'] {
    return this.memory.broker;
  }
  id(name: string): string {
    return this.broker.topics.get(name)?.id ?? '';
  }
  beat(
    request: Partial<ConsumerGroupHeartbeatRequestInit> = {},
    options: Partial<AskOptions> = {},
  ): ConsumerGroupHeartbeatResponse {
    const full = { groupId: 'g', memberId: 'm1', memberEpoch: 0, ...request };
    const asked = ask(this.broker, apis.ConsumerGroupHeartbeat, consumerGroupHeartbeat, full, {
      version: 1,
      ...options,
    });
    if (asked.response === undefined) throw new Error('no answer yet');
    return asked.response;
  }
  describe(groupIds: string[] = ['g'], options: Partial<AskOptions> = {}) {
    const request = { groupIds, includeAuthorizedOperations: false };
    const asked = ask(this.broker, apis.ConsumerGroupDescribe, consumerGroupDescribe, request, {
      version: 1,
      ...options,
    });
    return asked.response?.groups ?? [];
  }
  commit(version: number, generation: number, memberId: string, topic = 't1'): number | undefined {
    const name = version >= 10 ? { topicId: this.id(topic) } : { name: topic };
    const partitions = [{ partitionIndex: 0, committedOffset: 5, committedLeaderEpoch: -1, committedMetadata: '' }];
    const asked = ask(
      this.broker,
      apis.OffsetCommit,
      offsetCommit,
      { groupId: 'g', generationIdOrMemberEpoch: generation, memberId, topics: [{ ...name, partitions }] },
      { version },
    );
    return asked.response?.topics[0].partitions[0].errorCode;
  }
  join(groupId: string, memberId = '') {
    return ask(
      this.broker,
      apis.JoinGroup,
      joinGroup,
      {
        groupId,
        memberId,
        sessionTimeoutMs: 10_000,
        rebalanceTimeoutMs: 10_000,
        protocolType: 'consumer',
        protocols: [{ name: 'range', metadata: subscription('t1') }],
      },
      { version: 9 },
    );
  }
  list(typesFilter: string[], statesFilter: string[] = []) {
    const asked = ask(this.broker, apis.ListGroups, listGroups, { statesFilter, typesFilter }, { version: 5 });
    return asked.response?.groups.map(({ groupId, groupState, groupType, protocolType }) =>
      [groupId, groupState, groupType, protocolType].join(' '),
    );
  }
}

test('requests that no group could take are refused in the words of Kafka', async (t) => {
  const bench = await Bench.open();
  for (const [request, error, message] of [
    [{ ...JOIN, groupId: '' }, 'INVALID_REQUEST', "GroupId can't be empty."],
    [{ ...JOIN, memberId: '' }, 'INVALID_REQUEST', "MemberId can't be empty."],
    [{ ...JOIN, instanceId: '' }, 'INVALID_REQUEST', "InstanceId can't be empty."],
    [{ ...JOIN, rackId: '' }, 'INVALID_REQUEST', "RackId can't be empty."],
    [{ ...JOIN, rebalanceTimeoutMs: -1 }, 'INVALID_REQUEST', 'RebalanceTimeoutMs must be provided in first request.'],
    [{ ...JOIN, topicPartitions: null }, 'INVALID_REQUEST', 'TopicPartitions must be empty when (re-)joining.'],
    [
      { ...JOIN, subscribedTopicNames: null },
      'INVALID_REQUEST',
      'Either SubscribedTopicNames or SubscribedTopicRegex must be non-null when (re-)joining.',
    ],
    [{ memberEpoch: -5 }, 'INVALID_REQUEST', 'MemberEpoch is invalid.'],
    [{ memberEpoch: -2 }, 'INVALID_REQUEST', "InstanceId can't be null."],
    [
      { ...JOIN, serverAssignor: 'nope' },
      'UNSUPPORTED_ASSIGNOR',
      'ServerAssignor nope is not supported. Supported assignors: uniform, range.',
    ],
    [{ memberEpoch: 1 }, 'GROUP_ID_NOT_FOUND', 'Consumer group g not found.'],
    [{ memberEpoch: -1 }, 'GROUP_ID_NOT_FOUND', 'Group g not found.'],
    [
      { ...JOIN, subscribedTopicNames: null, subscribedTopicRegex: '(' },
      'INVALID_REGULAR_EXPRESSION',
      'SubscribedTopicRegex `(` is not a valid regular expression: missing closing ).',
    ],
  ] as const) {
    const answer = bench.beat(request);
    t.is(answer.errorCode, errors[error].kafka, message);
    t.is(answer.errorMessage, message);
    t.deepEqual([answer.memberId, answer.memberEpoch, answer.assignment], [null, 0, null]);
  }
  t.is(bench.broker.groups.groupCount, 0);
});

test('a member joins, is described, and leaves', async (t) => {
  const bench = await Bench.open();
  const answer = bench.beat(JOIN);
  t.like(answer, { errorCode: 0, memberId: 'm1', memberEpoch: 2, heartbeatIntervalMs: 5_000 });
  t.deepEqual(answer.assignment?.topicPartitions, [{ topicId: bench.id('t1'), partitions: [0, 1, 2] }]);
  const assignment = { topicPartitions: [{ topicId: bench.id('t1'), topicName: 't1', partitions: [0, 1, 2] }] };
  t.deepEqual(bench.describe(), [
    {
      errorCode: 0,
      errorMessage: null,
      groupId: 'g',
      groupState: 'Stable',
      groupEpoch: 2,
      assignmentEpoch: 2,
      assignorName: 'uniform',
      authorizedOperations: -2_147_483_648,
      members: [
        {
          memberId: 'm1',
          instanceId: null,
          rackId: null,
          memberEpoch: 2,
          clientId: 'test',
          clientHost: '/127.0.0.1',
          subscribedTopicNames: ['t1'],
          subscribedTopicRegex: '',
          assignment,
          targetAssignment: assignment,
          memberType: 1,
        },
      ],
    },
  ]);
  t.like(bench.beat({ memberEpoch: -1 }), { errorCode: 0, memberId: 'm1', memberEpoch: -1, heartbeatIntervalMs: 0 });
  t.like(bench.describe()[0], { groupState: 'Empty', groupEpoch: 3, assignmentEpoch: 3 });
});

test('before version 1 the broker names the member', async (t) => {
  const bench = await Bench.open();
  const answer = bench.beat({ ...JOIN, memberId: '' }, { version: 0 });
  t.is(answer.errorCode, 0);
  t.truthy(answer.memberId);
  t.is(bench.beat({ memberId: '', memberEpoch: 1 }, { version: 0 }).errorMessage, "MemberId can't be empty.");
});

test('groups and topics that the client may not see are not told', async (t) => {
  const bench = await Bench.open();
  const code = (denied: string): number => bench.beat(JOIN, { denied: [denied] }).errorCode;
  t.is(code('READ GROUP g'), errors.GROUP_AUTHORIZATION_FAILED.kafka);
  t.is(code('DESCRIBE TOPIC t1'), errors.TOPIC_AUTHORIZATION_FAILED.kafka);
  const found = bench.beat(
    { ...JOIN, subscribedTopicNames: null, subscribedTopicRegex: 't.' },
    { denied: ['DESCRIBE TOPIC t1'] },
  );
  t.deepEqual(
    found.assignment?.topicPartitions.map(({ topicId }) => topicId),
    [bench.id('t2')],
  );
  t.is(bench.describe(['g'], { denied: ['DESCRIBE GROUP g'] })[0].errorCode, errors.GROUP_AUTHORIZATION_FAILED.kafka);
  const hidden = bench.describe(['g'], { denied: ['DESCRIBE TOPIC t2'] })[0];
  t.is(hidden.errorCode, errors.TOPIC_AUTHORIZATION_FAILED.kafka);
  t.deepEqual(hidden.members, []);
});

test('what cannot be described', async (t) => {
  const bench = await Bench.open();
  bench.beat(JOIN);
  bench.join('classic');
  const described = bench.describe(['g', 'g', 'nope', 'classic', '']);
  t.deepEqual(
    described.map(({ errorCode, errorMessage }) => [errorCode, errorMessage]),
    [
      [0, null],
      [errors.INVALID_REQUEST.kafka, null],
      [errors.GROUP_ID_NOT_FOUND.kafka, 'Group nope not found.'],
      [errors.GROUP_ID_NOT_FOUND.kafka, 'Group classic is not a consumer group.'],
      [errors.INVALID_GROUP_ID.kafka, null],
    ],
  );
});

test('members commit and fetch with their epoch', async (t) => {
  const bench = await Bench.open();
  bench.beat(JOIN);
  t.is(bench.commit(10, 2, 'm1'), 0);
  t.is(bench.commit(9, 2, 'm1'), 0);
  t.is(bench.commit(8, 2, 'm1'), errors.UNSUPPORTED_VERSION.kafka);
  t.is(bench.commit(9, 1, 'm1'), errors.STALE_MEMBER_EPOCH.kafka);
  t.is(bench.commit(9, 7, 'm1'), errors.STALE_MEMBER_EPOCH.kafka);
  t.is(bench.commit(9, -1, ''), errors.UNKNOWN_MEMBER_ID.kafka);
  t.is(bench.commit(9, 2, 'zz'), errors.UNKNOWN_MEMBER_ID.kafka);
  const fetch = (memberId: string | null, memberEpoch: number): unknown[] => {
    const topics = [{ name: 't1', partitionIndexes: [0] }];
    const request = { groups: [{ groupId: 'g', memberId, memberEpoch, topics }], requireStable: false };
    const { response } = ask(bench.broker, apis.OffsetFetch, offsetFetch, request, { version: 9 });
    const group = response?.groups[0];
    return [group?.errorCode, group?.topics[0]?.partitions[0].committedOffset];
  };
  t.deepEqual(fetch('m1', 2), [0, 5]);
  t.deepEqual(fetch(null, -1), [0, 5]);
  t.deepEqual(fetch('m1', 1), [errors.STALE_MEMBER_EPOCH.kafka, undefined]);
  t.deepEqual(fetch('zz', 1), [errors.UNKNOWN_MEMBER_ID.kafka, undefined]);
  t.deepEqual(fetch('', -1), [errors.UNKNOWN_MEMBER_ID.kafka, undefined]);
});

test('the other group APIs say what a consumer group is', async (t) => {
  const bench = await Bench.open();
  bench.beat(JOIN);
  t.deepEqual(bench.list(['Consumer']), ['g Stable consumer consumer']);
  t.deepEqual(bench.list(['classic']), []);
  t.deepEqual(bench.list([], ['stable']), ['g Stable consumer consumer']);
  const describe = (version: number): unknown => {
    const request = { groups: ['g'], includeAuthorizedOperations: false };
    const group = ask(bench.broker, apis.DescribeGroups, describeGroups, request, { version }).response?.groups[0];
    return [group?.errorCode, group?.errorMessage, group?.groupState];
  };
  t.deepEqual(describe(6), [errors.GROUP_ID_NOT_FOUND.kafka, 'Group g is not a classic group.', 'Dead']);
  t.deepEqual(describe(5), [0, null, 'Dead']);
  const sync = {
    groupId: 'g',
    generationId: 1,
    memberId: 'm1',
    protocolType: 'consumer',
    protocolName: 'range',
    assignments: [],
  };
  t.is(
    ask(bench.broker, apis.SyncGroup, syncGroup, sync, { version: 5 }).response?.errorCode,
    errors.UNKNOWN_MEMBER_ID.kafka,
  );
  const remove = (): number | undefined =>
    ask(bench.broker, apis.DeleteGroups, deleteGroups, { groupsNames: ['g'] }, { version: 2 }).response?.results[0]
      .errorCode;
  t.is(remove(), errors.NON_EMPTY_GROUP.kafka);
  const deleteOffset = (name: string): number | undefined =>
    ask(
      bench.broker,
      apis.OffsetDelete,
      offsetDelete,
      { groupId: 'g', topics: [{ name, partitions: [{ partitionIndex: 0 }] }] },
      { version: 0 },
    ).response?.topics[0].partitions[0].errorCode;
  t.is(deleteOffset('t1'), errors.GROUP_SUBSCRIBED_TO_TOPIC.kafka);
  t.is(deleteOffset('t2'), 0);
  const leaving = { groupId: 'g', members: [{ memberId: 'm1' }, { memberId: 'zz' }] };
  const left = ask(bench.broker, apis.LeaveGroup, leaveGroup, leaving, { version: 5 }).response;
  t.deepEqual(
    left?.members.map(({ errorCode }) => errorCode),
    [0, errors.UNKNOWN_MEMBER_ID.kafka],
  );
  t.is(remove(), 0);
  t.deepEqual(bench.list([]), []);
});

test('an empty group goes over to the other protocol and keeps its offsets', async (t) => {
  const bench = await Bench.open();
  t.is(bench.commit(9, -1, ''), 0);
  t.deepEqual(bench.list([]), ['g Empty classic ']);
  t.is(bench.beat(JOIN).errorCode, 0);
  t.deepEqual(bench.list([]), ['g Stable consumer consumer']);
  bench.beat({ memberEpoch: -1 });
  const joined = bench.join('g');
  t.is(joined.response?.errorCode, errors.MEMBER_ID_REQUIRED.kafka);
  bench.join('g', joined.response?.memberId);
  await bench.memory.clock.advance(10);
  t.is(bench.beat({ memberEpoch: 2 }).errorMessage, 'Group g is not a consumer group.');
  t.is(bench.broker.groups.offset('g', 't1', 0)?.offset, 5);
});

test('memory for groups and members is bounded', async (t) => {
  const groups = await Bench.open({ 'groups.max': 1 });
  groups.beat(JOIN);
  t.is(groups.beat({ ...JOIN, groupId: 'h' }).errorCode, errors.POLICY_VIOLATION.kafka);
  const members = await Bench.open({ 'groups.members.bytes.max': 1_048_576 });
  t.is(members.beat(JOIN).errorCode, 0);
  let code = 0;
  const subscribedTopicNames = Array.from({ length: 1_000 }, (_value, index) => `${'x'.repeat(200)}${index}`);
  for (let count = 2; count < 10 && code === 0; count++) {
    code = members.beat({ ...JOIN, memberId: `m${count}`, subscribedTopicNames }).errorCode;
  }
  t.is(code, errors.POLICY_VIOLATION.kafka);
  t.is(members.beat(JOIN).errorCode, 0);
});
