/** The group APIs as Apache Kafka 4.4 answers them, version by version. */
import test from 'ava';
import type { Broker } from '../../../broker/broker.ts';
import type { Call, Handler } from '../../../broker/kafka/call.ts';
import { offsetCommit, offsetDelete, offsetFetch } from '../../../broker/kafka/group-offsets.ts';
import {
  deleteGroups,
  describeGroups,
  findCoordinator,
  heartbeat,
  joinGroup,
  leaveGroup,
  listGroups,
  syncGroup,
} from '../../../broker/kafka/groups.ts';
import { Reader, Writer } from '../../../protocol/bytes.ts';
import { errors, type ErrorCode } from '../../../protocol/errors.ts';
import { apis } from '../../../protocol/kafka/apis.ts';
import { subscription } from '../../support/group-bench.ts';
import { type MemoryBroker, openMemoryBroker } from '../../support/memory-broker.ts';

type Apis = typeof apis;

const handlers = {
  FindCoordinator: findCoordinator,
  JoinGroup: joinGroup,
  SyncGroup: syncGroup,
  Heartbeat: heartbeat,
  LeaveGroup: leaveGroup,
  DescribeGroups: describeGroups,
  ListGroups: listGroups,
  DeleteGroups: deleteGroups,
  OffsetCommit: offsetCommit,
  OffsetFetch: offsetFetch,
  OffsetDelete: offsetDelete,
} as const;
type Name = keyof typeof handlers;
type RequestOf<N extends Name> = Parameters<Apis[N]['writeRequest']>[1];
type ResponseOf<N extends Name> = ReturnType<Apis[N]['readResponse']>;

interface Denied {
  operation: string;
  type: string;
  name: string;
}

class Client {
  readonly memory: MemoryBroker;
  readonly denied: Denied[] = [];
  clientId = 'a';
  remoteHost = '127.0.0.1';

  constructor(memory: MemoryBroker) {
    this.memory = memory;
  }
  static async open(values: Record<string, string | number> = {}): Promise<Client> {
    const memory = await openMemoryBroker(values);
    for (const name of ['t1', 't2']) {
      memory.broker.topics.create({ name, partitionCount: 3, overrides: new Map() });
    }
    return new Client(memory);
  }

  /** Sends a request through the bytes of its version, lets the answer take the same way. */
  start<N extends Name>(name: N, version: number, request: RequestOf<N>): ResponseOf<N>[] {
    // `name` picks one codec and its handler; the compiler cannot follow that through the union.
    const api = apis[name] as unknown as {
      writeRequest(writer: Writer, value: unknown, version: number): void;
      readRequest(reader: Reader, version: number): unknown;
      writeResponse(writer: Writer, value: unknown, version: number): void;
      readResponse(reader: Reader, version: number): ResponseOf<N>;
    };
    const handle = handlers[name] as unknown as Handler<unknown, unknown>;
    const requestWriter = new Writer();
    api.writeRequest(requestWriter, request, version);
    const requestBytes = requestWriter.finish();
    const answers: ResponseOf<N>[] = [];
    const call: Call<unknown, unknown> = {
      request: api.readRequest(new Reader(requestBytes), version),
      version,
      clientId: this.clientId,
      connection: {
        principal: 'User:ANONYMOUS',
        localHost: '127.0.0.1',
        localPort: 9092,
        remoteHost: this.remoteHost,
        clientSoftwareName: '',
        clientSoftwareVersion: '',
        isClosed: false,
        isEnding: false,
        onClose: () => () => {},
        onEnding: () => () => {},
      } as Call<unknown, unknown>['connection'],
      allows: (operation, type, target) =>
        !this.denied.some((no) => no.operation === operation && no.type === type && no.name === target),
      reply: (response) => {
        const writer = new Writer();
        api.writeResponse(writer, response, version);
        answers.push(api.readResponse(new Reader(writer.finish()), version));
      },
      replyNothing: () => {},
      fail: (error) => {
        throw error;
      },
    };
    void handle(this.memory.broker as Broker, call);
    // The frame's buffer is used again for the next request.
    requestBytes.fill(0xee);
    return answers;
  }
  ask<N extends Name>(name: N, version: number, request: RequestOf<N>): ResponseOf<N> {
    const answers = this.start(name, version, request);
    if (answers.length !== 1) throw new Error(`${answers.length} answers to ${name} ${version}`);
    return answers[0];
  }

  /** A stable group of this one member; its id. */
  async stable(groupId: string, version = 9): Promise<string> {
    const request = {
      groupId,
      sessionTimeoutMs: 10_000,
      rebalanceTimeoutMs: 20_000,
      memberId: '',
      protocolType: 'consumer',
      protocols: [{ name: 'range', metadata: subscription('t1') }],
    };
    const { memberId } = version >= 4 ? this.ask('JoinGroup', version, request) : { memberId: '' };
    const joins = this.start('JoinGroup', version, { ...request, memberId });
    await this.memory.clock.advance(1);
    const [joined] = joins;
    this.ask('SyncGroup', 3, {
      groupId,
      generationId: joined.generationId,
      memberId: joined.memberId,
      assignments: [{ memberId: joined.memberId, assignment: Buffer.from('mine') }],
    });
    return joined.memberId;
  }
  topicId(name: string): string {
    return this.memory.broker.topics.get(name)?.id ?? '';
  }
}

const code = (name: ErrorCode): number => errors[name].kafka;
const partitionOf = (partitionIndex: number, committedOffset: number) => ({
  partitionIndex,
  committedOffset,
  committedLeaderEpoch: 2,
  committedMetadata: 'hi',
});

test('FindCoordinator: one key, many keys, transactions; share groups are refused', async (t) => {
  const client = await Client.open();
  t.like(client.ask('FindCoordinator', 0, { key: 'g' }), { errorCode: 0, nodeId: 1, host: '127.0.0.1', port: 9092 });
  for (const keyType of [0, 1]) {
    t.like(client.ask('FindCoordinator', 2, { key: 'g', keyType }), { errorCode: 0, errorMessage: 'NONE', nodeId: 1 });
  }
  t.like(client.ask('FindCoordinator', 2, { key: 'g', keyType: 7 }), { errorCode: 42, nodeId: -1, host: '', port: -1 });
  t.like(client.ask('FindCoordinator', 6, { keyType: 2, coordinatorKeys: ['g'] }).coordinators[0], { errorCode: 42 });
  client.denied.push({ operation: 'DESCRIBE', type: 'GROUP', name: 'b' });
  const { coordinators } = client.ask('FindCoordinator', 4, { keyType: 0, coordinatorKeys: ['a', 'b', ''] });
  t.deepEqual(
    coordinators.map(({ key, errorCode, port }) => [key, errorCode, port]),
    [
      ['a', 0, 9092],
      ['b', code('GROUP_AUTHORIZATION_FAILED'), -1],
      ['', 0, 9092],
    ],
  );
  client.denied.push({ operation: 'DESCRIBE', type: 'TRANSACTIONAL_ID', name: 'x' });
  t.like(client.ask('FindCoordinator', 1, { key: 'x', keyType: 1 }), {
    errorCode: code('TRANSACTIONAL_ID_AUTHORIZATION_FAILED'),
  });
});

for (let version = 0; version <= 9; version++) {
  test(`JoinGroup ${version}: a member joins and is described`, async (t) => {
    const client = await Client.open();
    const memberId = await client.stable('g', version);
    t.regex(memberId, /^a-[0-9a-f-]{36}$/);
    const [group] = client.ask('DescribeGroups', 6, { groups: ['g'], includeAuthorizedOperations: true }).groups;
    t.like(group, {
      errorCode: 0,
      errorMessage: null,
      groupState: 'Stable',
      protocolType: 'consumer',
      protocolData: 'range',
      authorizedOperations: 3400,
    });
    t.like(group.members[0], { memberId, clientId: 'a', clientHost: '/127.0.0.1', groupInstanceId: null });
    t.deepEqual(group.members[0].memberMetadata, subscription('t1'));
    t.is(group.members[0].memberAssignment.toString(), 'mine');
    t.is(client.ask('Heartbeat', 4, { groupId: 'g', generationId: 1, memberId }).errorCode, 0);
  });
}

test('JoinGroup refused: the names of protocols are empty before version 7 and null after', async (t) => {
  const client = await Client.open();
  const request = {
    groupId: 'g',
    sessionTimeoutMs: 10,
    rebalanceTimeoutMs: 10,
    memberId: 'x',
    protocolType: 'consumer',
    protocols: [],
  };
  t.like(client.ask('JoinGroup', 5, request), { errorCode: 26, generationId: -1, protocolName: '', memberId: 'x' });
  t.like(client.ask('JoinGroup', 7, request), { errorCode: 26, protocolType: null, protocolName: null, leader: '' });
  client.denied.push({ operation: 'READ', type: 'GROUP', name: 'g' });
  t.is(client.ask('JoinGroup', 9, request).errorCode, code('GROUP_AUTHORIZATION_FAILED'));
  t.is(client.ask('Heartbeat', 4, { groupId: 'g', generationId: 1, memberId: 'x' }).errorCode, 30);
  t.is(client.ask('LeaveGroup', 4, { groupId: 'g', members: [{ memberId: 'x' }] }).errorCode, 30);
  const sync = { groupId: 'g', generationId: 1, memberId: 'x', assignments: [] };
  t.is(client.ask('SyncGroup', 4, sync).errorCode, 30);
});

test('SyncGroup 5 must name protocol type and name, and is told both', async (t) => {
  const client = await Client.open();
  const memberId = await client.stable('g');
  const request = { groupId: 'g', generationId: 1, memberId, assignments: [] };
  t.is(client.ask('SyncGroup', 5, request).errorCode, 23);
  t.is(client.ask('SyncGroup', 5, { ...request, protocolType: 'consumer' }).errorCode, 23);
  const answer = client.ask('SyncGroup', 5, { ...request, protocolType: 'consumer', protocolName: 'range' });
  t.like(answer, { errorCode: 0, protocolType: 'consumer', protocolName: 'range' });
  t.is(answer.assignment.toString(), 'mine');
});

test('LeaveGroup: one member before version 3, then many', async (t) => {
  const client = await Client.open();
  const memberId = await client.stable('g');
  t.is(client.ask('LeaveGroup', 2, { groupId: 'g', memberId: 'q' }).errorCode, 25);
  t.deepEqual(client.ask('LeaveGroup', 5, { groupId: 'gg', members: [{ memberId: 'q' }] }).members, [
    { memberId: 'q', groupInstanceId: null, errorCode: 25 },
  ]);
  t.like(client.ask('LeaveGroup', 5, { groupId: '', members: [{ memberId: 'q' }] }), { errorCode: 24, members: [] });
  const members = [{ memberId: 'q' }, { memberId: '', groupInstanceId: 'i' }, { memberId, reason: 'bye' }];
  t.deepEqual(
    client.ask('LeaveGroup', 5, { groupId: 'g', members }).members.map(({ errorCode }) => errorCode),
    [25, 25, 0],
  );
  t.is(client.ask('LeaveGroup', 0, { groupId: 'g', memberId }).errorCode, 25);
  t.is(client.ask('DescribeGroups', 6, { groups: ['g'] }).groups[0].groupState, 'Empty');
});

test('DescribeGroups: an unknown group is Dead, and an error from version 6 on', async (t) => {
  const client = await Client.open();
  t.like(client.ask('DescribeGroups', 5, { groups: ['nix'], includeAuthorizedOperations: true }).groups[0], {
    errorCode: 0,
    groupState: 'Dead',
    authorizedOperations: 3400,
  });
  t.like(client.ask('DescribeGroups', 6, { groups: ['nix'], includeAuthorizedOperations: true }).groups[0], {
    errorCode: 69,
    errorMessage: 'Group nix not found.',
    groupState: 'Dead',
    authorizedOperations: -2147483648,
  });
  client.denied.push({ operation: 'DESCRIBE', type: 'GROUP', name: 'nix' });
  t.is(client.ask('DescribeGroups', 0, { groups: ['nix'] }).groups[0].errorCode, 30);
});

test('DescribeGroups: metadata only of a stable group, assignments as they were last', async (t) => {
  const client = await Client.open();
  const memberId = await client.stable('g');
  client.start('JoinGroup', 3, {
    groupId: 'g',
    sessionTimeoutMs: 10_000,
    rebalanceTimeoutMs: 10_000,
    memberId: '',
    protocolType: 'consumer',
    protocols: [{ name: 'range', metadata: subscription('t2') }],
  });
  const [group] = client.ask('DescribeGroups', 5, { groups: ['g'] }).groups;
  t.like(group, { groupState: 'PreparingRebalance', protocolType: 'consumer', protocolData: '' });
  t.is(group.members.length, 2);
  t.like(group.members[0], { memberId, memberMetadata: Buffer.alloc(0), memberAssignment: Buffer.from('mine') });
});

test('ListGroups: states and types filter, whatever their case', async (t) => {
  const client = await Client.open();
  await client.stable('g');
  client.ask('OffsetCommit', 8, {
    groupId: 's',
    memberId: '',
    topics: [{ name: 't1', partitions: [partitionOf(0, 1)] }],
  });
  const ids = (statesFilter: string[], typesFilter: string[]): string[] =>
    client.ask('ListGroups', 5, { statesFilter, typesFilter }).groups.map(({ groupId }) => groupId);
  t.deepEqual(ids([], []), ['g', 's']);
  t.deepEqual(ids(['STABLE'], ['Classic']), ['g']);
  t.deepEqual(ids(['empty', 'dead'], []), ['s']);
  t.deepEqual(ids(['bogus'], []), []);
  t.deepEqual(ids([], ['consumer']), []);
  t.deepEqual(client.ask('ListGroups', 5, { statesFilter: [], typesFilter: [] }).groups[0], {
    groupId: 'g',
    protocolType: 'consumer',
    groupState: 'Stable',
    groupType: 'classic',
  });
  t.is(client.ask('ListGroups', 0, {}).groups.length, 2);
  client.denied.push({ operation: 'DESCRIBE', type: 'CLUSTER', name: 'kafka-cluster' });
  client.denied.push({ operation: 'DESCRIBE', type: 'GROUP', name: 's' });
  t.deepEqual(ids([], []), ['g']);
});

test('DeleteGroups: one result per group', async (t) => {
  const client = await Client.open();
  await client.stable('g');
  client.ask('OffsetCommit', 8, {
    groupId: 's',
    memberId: '',
    topics: [{ name: 't1', partitions: [partitionOf(0, 1)] }],
  });
  client.denied.push({ operation: 'DELETE', type: 'GROUP', name: 'no' });
  const { results } = client.ask('DeleteGroups', 3, { groupsNames: ['g', 'nix', '', 's', 's', 'no'] });
  t.deepEqual(
    results.map(({ groupId, errorCode }) => [groupId, errorCode]),
    [
      ['g', 68],
      ['nix', 69],
      ['', 69],
      ['s', 0],
      ['no', 30],
    ],
  );
});

for (const version of [2, 5, 6, 7, 9, 10]) {
  test(`OffsetCommit ${version} and OffsetFetch of every version`, async (t) => {
    const client = await Client.open();
    const memberId = await client.stable('g');
    const named = (name: string, partitions: ReturnType<typeof partitionOf>[]) => ({
      ...(version >= 10 ? { topicId: client.topicId(name) } : { name }),
      partitions: partitions.map(({ committedLeaderEpoch, ...rest }) =>
        version >= 6 ? { ...rest, committedLeaderEpoch } : rest,
      ),
    });
    const { topics } = client.ask('OffsetCommit', version, {
      groupId: 'g',
      generationIdOrMemberEpoch: 1,
      memberId,
      topics: [
        named('t1', [partitionOf(0, 5), partitionOf(9, 5), partitionOf(-1, 5)]),
        named('t2', [partitionOf(2, 6)]),
      ],
    });
    t.deepEqual(
      topics.map(({ partitions }) => partitions.map(({ partitionIndex, errorCode }) => [partitionIndex, errorCode])),
      [
        [
          [0, 0],
          [9, 3],
          [-1, 3],
        ],
        [[2, 0]],
      ],
    );
    const committedLeaderEpoch = version >= 6 ? 2 : -1;
    for (let fetchVersion = 1; fetchVersion <= 7; fetchVersion++) {
      const fetched = client.ask('OffsetFetch', fetchVersion, {
        groupId: 'g',
        topics: [{ name: 't1', partitionIndexes: [0, 1] }],
      });
      t.deepEqual(fetched.topics[0].partitions, [
        {
          partitionIndex: 0,
          committedOffset: 5,
          committedLeaderEpoch: fetchVersion >= 5 ? committedLeaderEpoch : -1,
          metadata: 'hi',
          errorCode: 0,
        },
        { partitionIndex: 1, committedOffset: -1, committedLeaderEpoch: -1, metadata: '', errorCode: 0 },
      ]);
      t.is(fetched.errorCode, 0);
    }
    t.deepEqual(
      client.ask('OffsetFetch', 7, { groupId: 'g', topics: null, requireStable: true }).topics.map(({ name }) => name),
      ['t1', 't2'],
    );
    for (const fetchVersion of [8, 9]) {
      const { groups } = client.ask('OffsetFetch', fetchVersion, {
        groups: [
          { groupId: 'g', topics: null },
          { groupId: 'nix', topics: [{ name: 't1', partitionIndexes: [0] }] },
          { groupId: 'nix', topics: null },
        ],
      });
      t.deepEqual(
        groups.map(({ topics: found }) => found.map(({ partitions }) => partitions.map((p) => p.committedOffset))),
        [[[5], [6]], [[-1]], []],
      );
    }
    const unknown = '00000000-0000-0000-0000-0000000000ff';
    const { groups } = client.ask('OffsetFetch', 10, {
      groups: [
        { groupId: 'g', topics: null },
        {
          groupId: 'g',
          topics: [
            { topicId: unknown, partitionIndexes: [0] },
            { topicId: client.topicId('t2'), partitionIndexes: [2] },
          ],
        },
      ],
    });
    t.deepEqual(
      groups[0].topics.map(({ topicId }) => topicId),
      [client.topicId('t1'), client.topicId('t2')],
    );
    t.like(groups[1].topics[0], { topicId: unknown });
    t.is(groups[1].topics[0].partitions[0].errorCode, 100);
    t.is(groups[1].topics[1].partitions[0].committedOffset, 6);
  });
}

test('OffsetCommit: topics and groups that are unknown or not allowed', async (t) => {
  const client = await Client.open();
  client.denied.push({ operation: 'READ', type: 'TOPIC', name: 't2' });
  const topics = ['t1', 't2', 'nix'].map((name) => ({ name, partitions: [partitionOf(0, 1)] }));
  const codes = (request: RequestOf<'OffsetCommit'>, version = 8): number[] =>
    client.ask('OffsetCommit', version, request).topics.map(({ partitions }) => partitions[0].errorCode);
  t.deepEqual(codes({ groupId: 's', memberId: '', topics }), [0, 29, 3]);
  t.deepEqual(codes({ groupId: 'g', memberId: 'm', generationIdOrMemberEpoch: 1, topics }), [22, 29, 3]);
  t.deepEqual(codes({ groupId: 'g', memberId: 'm', generationIdOrMemberEpoch: 1, topics }, 9), [69, 29, 3]);
  const byId = [{ topicId: '00000000-0000-0000-0000-0000000000ff', partitions: [partitionOf(0, 1)] }];
  t.deepEqual(codes({ groupId: 's', memberId: '', topics: byId }, 10), [100]);
  client.denied.push({ operation: 'READ', type: 'GROUP', name: 's' });
  t.deepEqual(codes({ groupId: 's', memberId: '', topics }), [30, 30, 30]);
  t.is(client.ask('OffsetCommit', 8, { groupId: 'x', memberId: '', topics: [] }).topics.length, 0);
});

test('OffsetCommit 2 to 4 may say how long offsets are kept', async (t) => {
  const client = await Client.open();
  const topics = [{ name: 't1', partitions: [{ partitionIndex: 0, committedOffset: 1, committedMetadata: null }] }];
  client.ask('OffsetCommit', 2, { groupId: 's', memberId: '', retentionTimeMs: 5_000, topics });
  const { clock, broker } = client.memory;
  t.is(broker.groups.offset('s', 't1', 0)?.expireTimeMs, clock.now() + 5_000);
  client.ask('OffsetCommit', 4, { groupId: 's', memberId: '', retentionTimeMs: Number.MAX_SAFE_INTEGER, topics });
  t.is(broker.groups.offset('s', 't1', 0)?.expireTimeMs, Number.MAX_SAFE_INTEGER);
});

test('OffsetFetch: what is not allowed is refused in the form of its version', async (t) => {
  const client = await Client.open();
  client.ask('OffsetCommit', 8, {
    groupId: 's',
    memberId: '',
    topics: ['t1', 't2'].map((name) => ({ name, partitions: [partitionOf(0, 1)] })),
  });
  client.denied.push({ operation: 'DESCRIBE', type: 'TOPIC', name: 't2' });
  const topics = ['t1', 't2'].map((name) => ({ name, partitionIndexes: [0] }));
  t.deepEqual(
    client.ask('OffsetFetch', 7, { groupId: 's', topics }).topics.map(({ partitions }) => partitions[0].errorCode),
    [0, 29],
  );
  t.deepEqual(
    client.ask('OffsetFetch', 7, { groupId: 's', topics: null }).topics.map(({ name }) => name),
    ['t1'],
  );
  client.denied.push({ operation: 'DESCRIBE', type: 'GROUP', name: 's' });
  t.is(client.ask('OffsetFetch', 1, { groupId: 's', topics }).topics[0].partitions[0].errorCode, 30);
  t.like(client.ask('OffsetFetch', 7, { groupId: 's', topics }), { errorCode: 30, topics: [] });
  t.like(client.ask('OffsetFetch', 8, { groups: [{ groupId: 's', topics }] }).groups[0], { errorCode: 30, topics: [] });
});

test('a short request cannot ask for the same large answer many times', async (t) => {
  const client = await Client.open();
  client.ask('OffsetCommit', 8, {
    groupId: 's',
    memberId: '',
    topics: [{ name: 't1', partitions: [partitionOf(0, 1)] }],
  });
  const { groups } = client.ask('OffsetFetch', 9, {
    groups: [
      { groupId: 's', topics: null },
      { groupId: 's', topics: [{ name: 't1', partitionIndexes: [0] }] },
      { groupId: 's', topics: null },
    ],
  });
  t.deepEqual(
    groups.map(({ topics, errorCode }) => [topics.length, errorCode]),
    [
      [1, 0],
      [1, 0],
      [0, code('INVALID_REQUEST')],
    ],
  );
  t.deepEqual(
    client.ask('DescribeGroups', 5, { groups: ['s', 'x', 's'] }).groups.map(({ errorCode }) => errorCode),
    [0, 0, code('INVALID_REQUEST')],
  );
});

test('OffsetDelete: per partition, or for the whole request', async (t) => {
  const client = await Client.open();
  const memberId = await client.stable('g');
  const topics = ['t1', 't2'].map((name) => ({ name, partitions: [partitionOf(0, 5)] }));
  client.ask('OffsetCommit', 8, { groupId: 'g', generationIdOrMemberEpoch: 1, memberId, topics });
  const asked = [
    { name: 't1', partitions: [{ partitionIndex: 0 }] },
    { name: 't2', partitions: [{ partitionIndex: 0 }, { partitionIndex: 5 }] },
    { name: 'nix', partitions: [{ partitionIndex: 0 }] },
  ];
  t.deepEqual(
    client
      .ask('OffsetDelete', 0, { groupId: 'g', topics: asked })
      .topics.map(({ partitions }) => partitions.map(({ errorCode }) => errorCode)),
    [[86], [0, 3], [3]],
  );
  t.is(client.ask('OffsetFetch', 7, { groupId: 'g', topics: null }).topics.length, 1);
  t.like(client.ask('OffsetDelete', 0, { groupId: 'nix', topics: asked }), { errorCode: 69, topics: [] });
  t.like(client.ask('OffsetDelete', 0, { groupId: '', topics: asked }), { errorCode: 24, topics: [] });
  client.denied.push({ operation: 'DELETE', type: 'GROUP', name: 'g' });
  t.is(client.ask('OffsetDelete', 0, { groupId: 'g', topics: asked }).errorCode, 30);
});
