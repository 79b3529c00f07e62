/** Share groups in the coordinator, on the engine in memory: who has what, what is durable, and the other kinds of groups. */
import test from 'ava';
import { resolveOptions } from '../../broker/config.ts';
import { GroupCoordinator } from '../../broker/groups.ts';
import type { ShareGroup, ShareHeartbeat, ShareHeartbeatAnswer } from '../../broker/share-group.ts';
import { TopicRegistry } from '../../broker/topics.ts';
import { MillraceError } from '../../protocol/errors.ts';
import { ZERO_UUID } from '../../protocol/kafka/fields.ts';
import { joinRequest } from '../support/group-bench.ts';
import { MemoryEngine } from '../support/memory-engine.ts';
import { SimClock } from '../support/sim-clock.ts';
import { SimRandom } from '../support/sim-random.ts';

class Bench {
  readonly clock: SimClock;
  readonly engine: MemoryEngine;
  readonly topics: TopicRegistry;
  readonly groups: GroupCoordinator;
  readonly deleted: string[];

  private constructor(parts: Pick<Bench, 'clock' | 'engine' | 'topics' | 'groups' | 'deleted'>) {
    this.clock = parts.clock;
    this.engine = parts.engine;
    this.topics = parts.topics;
    this.groups = parts.groups;
    this.deleted = parts.deleted;
  }
  static async open(values: Record<string, number> = {}, clock = new SimClock(), old?: MemoryEngine): Promise<Bench> {
    const engine = old ?? new MemoryEngine({ durability: 'manual', clock });
    const parts = { engine, clock, random: new SimRandom(7), options: resolveOptions(values) };
    const topics = new TopicRegistry(parts);
    await topics.load();
    const deleted: string[] = [];
    const onShareGroupDeleted = (groupId: string): void => void deleted.push(groupId);
    const groups = new GroupCoordinator({ ...parts, topics, onShareGroupDeleted });
    await groups.load();
    if (topics.get('t') === undefined) topics.create({ name: 't', partitionCount: 3, overrides: new Map() });
    engine.sync();
    return new Bench({ clock, engine, topics, groups, deleted });
  }
  /** The same broker after a power cut. */
  restart(): Promise<Bench> {
    this.groups.close();
    return Bench.open({}, this.clock, this.engine.restart());
  }

  beat(
    memberId: string,
    memberEpoch: number,
    request: Partial<ShareHeartbeat> = {},
    groupId = 'g',
  ): ShareHeartbeatAnswer {
    const topicNames = memberEpoch === 0 ? ['t'] : null;
    const client = { clientId: 'c', clientHost: '/127.0.0.1', rackId: null };
    return this.groups.shareHeartbeat(groupId, { memberId, memberEpoch, ...client, topicNames, ...request });
  }
  get group(): ShareGroup {
    const group = this.groups.get('g');
    if (group?.type !== 'share') throw new Error('no share group');
    return group;
  }
  /** Member → partitions of `t`. */
  assigned(): Record<string, number[]> {
    const id = this.topics.get('t')?.id ?? '';
    const list = this.group.members.map((member) => [
      member.id,
      [...(member.progress.assigned.get(id) ?? [])].sort((a, b) => a - b),
    ]);
    return Object.fromEntries(list);
  }
}

function code(act: () => unknown): string {
  try {
    act();
    return 'NONE';
  } catch (error) {
    return error instanceof MillraceError ? `${error.code} ${error.message}` : String(error);
  }
}
const consumer = (groupId: string) => ({
  groupId,
  memberId: 'm',
  memberEpoch: 0,
  clientId: 'c',
  clientHost: '/h',
  instanceId: null,
  rackId: null,
  rebalanceTimeoutMs: 1000,
  topicNames: ['t'],
  topicRegex: null,
  assignor: null,
  owned: new Map(),
  canSee: () => true,
});
const commit = (groupId: string) => ({
  groupId,
  memberId: '',
  instanceId: null,
  generation: -1,
  retentionMs: -1,
  isOldVersion: false,
  unknownGroupError: 'ILLEGAL_GENERATION' as const,
  offsets: [{ topic: 't', topicId: ZERO_UUID, partition: 0, offset: 1, leaderEpoch: -1, metadata: '' }],
});

test('whoever joins first gets everything at once, the next what is even after the assignment interval', async (t) => {
  const bench = await Bench.open();
  const first = bench.beat('a', 0);
  t.is(first.memberEpoch, 2);
  t.is(first.heartbeatIntervalMs, 5000);
  t.deepEqual(bench.assigned(), { a: [0, 1, 2] });
  t.deepEqual([...(first.assignment?.values() ?? [])], [new Set([0, 1, 2])]);
  t.is(bench.beat('a', 2).assignment, null);

  await bench.clock.advance(400);
  const second = bench.beat('b', 0);
  t.is(second.memberEpoch, 2);
  t.is(second.assignment?.size, 0);
  // Not told to wait a whole heartbeat interval for what will be there in 600 ms.
  t.is(second.heartbeatIntervalMs, 600);
  await bench.clock.advance(600);
  t.is(bench.beat('b', 2).memberEpoch, 3);
  t.is(bench.beat('a', 2).memberEpoch, 3);
  t.deepEqual(bench.assigned(), { a: [0, 1], b: [2] });
  t.is(bench.group.state, 'Stable');

  // More members than partitions: everybody has something.
  for (const id of ['c', 'd', 'e']) bench.beat(id, 0);
  await bench.clock.advance(1000);
  for (const { id, progress } of bench.group.members) bench.beat(id, progress.epoch);
  const shares = Object.values(bench.assigned());
  t.true(shares.every((partitions) => partitions.length > 0));
  for (const partition of [0, 1, 2]) t.is(shares.filter((partitions) => partitions.includes(partition)).length, 2);
});

test('a retry of the last epoch is fine, any other is fenced, and a rejoin gets everything again', async (t) => {
  const bench = await Bench.open({ 'group.share.assignment.interval.ms': 0 });
  bench.beat('a', 0);
  bench.beat('b', 0);
  t.is(bench.beat('a', 2).memberEpoch, 3);
  t.is(bench.beat('a', 2).memberEpoch, 3);
  t.is(
    code(() => bench.beat('a', 4)),
    'FENCED_MEMBER_EPOCH The share group member has a greater member epoch (4) than the one known by the group coordinator (3). The member must abandon all its partitions and rejoin.',
  );
  t.is(
    code(() => bench.beat('a', 1)),
    'FENCED_MEMBER_EPOCH The share group member has a smaller member epoch (1) than the one known by the group coordinator (3), and it does not match the previous member epoch (2). The member must abandon all its partitions and rejoin.',
  );
  t.is(
    code(() => bench.beat('x', 3)),
    'UNKNOWN_MEMBER_ID Member x is not a member of group g.',
  );
  const again = bench.beat('a', 0);
  t.is(again.memberEpoch, 3);
  t.is(again.assignment?.size, 1);
});

test('topics that come, grow, go, or are not subscribed to any more change the assignment', async (t) => {
  const bench = await Bench.open({ 'group.share.assignment.interval.ms': 0 });
  bench.beat('a', 0, { topicNames: ['t', 'late'] });
  t.is(bench.beat('a', 2).assignment, null);
  const late = bench.topics.create({ name: 'late', partitionCount: 1, overrides: new Map() });
  const told = bench.beat('a', 2);
  t.is(told.memberEpoch, 3);
  t.deepEqual(told.assignment?.get(late.id), new Set([0]));
  bench.topics.addPartitions(late, 2);
  t.deepEqual(bench.beat('a', 3).assignment?.get(late.id), new Set([0, 1]));
  bench.topics.delete(late);
  t.is(bench.beat('a', 4).assignment?.has(late.id), false);
  t.is(bench.beat('a', 5, { topicNames: ['late'] }).assignment?.size, 0);
});

test('whoever is silent is put out, and a goodbye raises the epoch', async (t) => {
  const bench = await Bench.open({ 'group.share.assignment.interval.ms': 0 });
  bench.beat('a', 0);
  bench.beat('b', 0);
  await bench.clock.advance(44_000);
  bench.beat('a', 2);
  await bench.clock.advance(2_000);
  t.deepEqual(
    bench.group.members.map(({ id }) => id),
    ['a'],
  );
  bench.beat('a', 3);
  t.deepEqual(bench.assigned(), { a: [0, 1, 2] });
  t.deepEqual(bench.groups.shareLeave('g', 'a'), {
    memberId: 'a',
    memberEpoch: -1,
    heartbeatIntervalMs: 0,
    assignment: null,
  });
  t.is(bench.group.state, 'Empty');
  t.is(bench.group.epoch, bench.group.targetEpoch);
  t.regex(
    code(() => bench.groups.shareLeave('g', 'a')),
    /^UNKNOWN_MEMBER_ID/,
  );
  t.is(bench.groups.membersBytes, 0);
});

test('a restarted broker finds members, epochs and partitions; sessions start anew', async (t) => {
  const before = await Bench.open({ 'group.share.assignment.interval.ms': 0 });
  before.beat('a', 0, { rackId: 'r' });
  before.beat('b', 0);
  before.beat('a', 2);
  before.engine.sync();
  const members = before.group.members;
  const after = await before.restart();
  t.deepEqual(after.group.members, members);
  t.is(after.group.epoch, 3);
  t.is(after.group.targetEpoch, 3);
  t.true(after.groups.membersBytes > 0);
  t.is(after.beat('b', 3).assignment, null);
  await after.clock.advance(46_000);
  t.is(after.group.state, 'Empty');
  t.is(after.groups.deleteGroup('g'), 'NONE');
  after.engine.sync();
  t.is((await after.restart()).groups.get('g'), undefined);
});

test('a group takes so many members and no more, and there are so many groups', async (t) => {
  const bench = await Bench.open({ 'group.share.max.size': 1, 'groups.max': 1 });
  bench.beat('a', 0);
  t.is(
    code(() => bench.beat('b', 0)),
    'GROUP_MAX_SIZE_REACHED The share group has reached its maximum capacity of 1 members.',
  );
  t.regex(
    code(() => bench.beat('a', 0, {}, 'other')),
    /^POLICY_VIOLATION/,
  );
});

test('consumers of either protocol and commits are refused by a share group, also by an empty one', async (t) => {
  const bench = await Bench.open();
  const { groups, deleted } = bench;
  bench.beat('one', 0);
  for (const state of ['Stable', 'Empty'] as const) {
    t.is(groups.get('g')?.state, state);
    groups.join(joinRequest('g'), ({ error, memberId }) =>
      t.deepEqual([error, memberId], ['INCONSISTENT_GROUP_PROTOCOL', '']),
    );
    t.is(
      code(() => groups.consumerHeartbeat(consumer('g'))),
      'GROUP_ID_NOT_FOUND Group g is not a consumer group.',
    );
    groups.commit(commit('g'), (errors) => t.deepEqual(errors, ['GROUP_ID_NOT_FOUND']));
    t.deepEqual(groups.leave('g', [{ memberId: 'one', instanceId: null }]), ['UNKNOWN_MEMBER_ID']);
    t.is(groups.heartbeat({ groupId: 'g', generation: 1, memberId: 'one', instanceId: null }), 'UNKNOWN_MEMBER_ID');
    t.is(groups.deleteOffsets('g', []), 'GROUP_ID_NOT_FOUND');
    if (state === 'Stable') {
      t.is(groups.deleteGroup('g'), 'NON_EMPTY_GROUP');
      groups.shareLeave('g', 'one');
    }
  }
  t.is(groups.membersBytes, 0);
  t.is(groups.deleteGroup('g'), 'NONE');
  t.deepEqual(deleted, ['g']);
  t.is(groups.get('g'), undefined);
});

test('share members are refused by a group of another kind, also by one that only has offsets', async (t) => {
  const bench = await Bench.open();
  const { groups } = bench;
  groups.consumerHeartbeat(consumer('consumers'));
  groups.commit(commit('offsets'), () => {});
  for (const id of ['consumers', 'offsets']) {
    t.is(
      code(() => bench.beat('m', 0, {}, id)),
      `GROUP_ID_NOT_FOUND Group ${id} is not a share group.`,
    );
  }
  t.is(
    code(() => bench.beat('m', 1, {}, 'none')),
    'GROUP_ID_NOT_FOUND Share group none not found.',
  );
  t.is(
    code(() => groups.shareLeave('none', 'm')),
    'GROUP_ID_NOT_FOUND Group none not found.',
  );
});
