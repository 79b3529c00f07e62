/** The coordinator on the engine in memory: durability, restarts, expiry, limits. */
import test from 'ava';
import type { Group } from '../../broker/group.ts';
import { type CommitRequest, GroupCoordinator, GROUPS_TOPIC } from '../../broker/groups.ts';
import type { JoinAnswer, SyncAnswer } from '../../broker/group-member.ts';
import { decodeGroupEvent } from '../../broker/group-records.ts';
import { resolveOptions } from '../../broker/config.ts';
import { TopicRegistry } from '../../broker/topics.ts';
import { readRecords } from '../../protocol/record-batch.ts';
import type { ErrorCode } from '../../protocol/errors.ts';
import { Asked, type JoinOptions, joinRequest } from '../support/group-bench.ts';
import { MemoryEngine, type MemoryPartition } from '../support/memory-engine.ts';
import { ManualClock } from '../support/manual-clock.ts';
import { SimClock } from '../support/sim-clock.ts';
import { SimRandom } from '../support/sim-random.ts';

const MINUTE_MS = 60_000;
const DAY_MS = 24 * 60 * MINUTE_MS;

class Bench {
  readonly clock: SimClock | ManualClock;
  readonly engine: MemoryEngine;
  readonly topics: TopicRegistry;
  readonly groups: GroupCoordinator;
  readonly values: Record<string, string | number | boolean>;

  private constructor(parts: Pick<Bench, 'clock' | 'engine' | 'topics' | 'groups' | 'values'>) {
    this.clock = parts.clock;
    this.engine = parts.engine;
    this.topics = parts.topics;
    this.groups = parts.groups;
    this.values = parts.values;
  }

  static async open(
    values: Bench['values'] = {},
    parts: { engine?: MemoryEngine; clock?: SimClock | ManualClock } = {},
  ): Promise<Bench> {
    const clock = parts.clock ?? new SimClock();
    const engine = parts.engine ?? new MemoryEngine({ durability: 'manual', clock });
    const random = new SimRandom(7);
    const options = resolveOptions(values);
    const topics = new TopicRegistry({ engine, clock, random, options });
    await topics.load();
    const groups = new GroupCoordinator({ engine, clock, random, options, topics });
    await groups.load();
    for (const name of ['t1', 't2']) {
      if (topics.get(name) === undefined) topics.create({ name, partitionCount: 3, overrides: new Map() });
    }
    engine.sync();
    return new Bench({ clock, engine, topics, groups, values });
  }

  /** The same broker after a power cut. */
  restart(values = this.values): Promise<Bench> {
    this.groups.close();
    return Bench.open(values, { engine: this.engine.restart(), clock: this.clock });
  }

  get log(): MemoryPartition {
    // Every partition here is one of the engine in memory.
    return this.topics.partition(GROUPS_TOPIC, 0) as MemoryPartition;
  }
  /** What the log holds, as keys of Kafka's records would be shown. */
  logged(): string[] {
    return this.log.batches.flatMap((batch) =>
      readRecords(batch, 0).map((record) => {
        const event = decodeGroupEvent(record);
        if (event === undefined) return '?';
        if (event.kind === 'offset')
          return `${event.group} ${event.topic}-${event.partition}=${event.committed.offset}`;
        if (event.kind === 'offset gone') return `${event.group} ${event.topic}-${event.partition} gone`;
        if (event.kind === 'group gone') return `${event.group} gone`;
        if (event.kind !== 'group') return `${event.group} ${event.kind}`;
        return `${event.group} generation ${event.value.generation} of ${event.value.members.length}`;
      }),
    );
  }

  group(id: string): Group {
    const group = this.groups.get(id);
    if (group?.type !== 'classic') throw new Error(`no classic group '${id}'`);
    return group;
  }

  join(groupId: string, options: JoinOptions = {}): Asked<JoinAnswer> {
    const asked = new Asked<JoinAnswer>();
    this.groups.join(joinRequest(groupId, options), asked.reply);
    return asked;
  }
  sync(groupId: string, memberId: string, assignments: Record<string, string> = {}): Asked<SyncAnswer> {
    const asked = new Asked<SyncAnswer>();
    this.groups.sync(
      {
        groupId,
        memberId,
        instanceId: null,
        generation: this.group(groupId).generation,
        protocolType: null,
        protocolName: null,
        assignments: Object.entries(assignments).map(([id, text]) => ({ memberId: id, assignment: Buffer.from(text) })),
      },
      asked.reply,
    );
    return asked;
  }
  commit(
    groupId: string,
    offsets: Record<string, number>,
    options: Partial<CommitRequest> & { metadata?: string } = {},
  ): Asked<readonly ErrorCode[]> {
    const asked = new Asked<readonly ErrorCode[]>();
    const { metadata = '', ...rest } = options;
    this.groups.commit(
      {
        groupId,
        memberId: '',
        instanceId: null,
        generation: -1,
        retentionMs: -1,
        isOldVersion: false,
        unknownGroupError: 'ILLEGAL_GENERATION',
        offsets: Object.entries(offsets).map(([name, offset]) => {
          const [topic, partition] = name.split('-');
          const topicId = this.topics.get(topic)?.id ?? '00000000-0000-0000-0000-000000000000';
          return { topic, topicId, partition: Number(partition), offset, leaderEpoch: 3, metadata };
        }),
        ...rest,
      },
      asked.reply,
    );
    return asked;
  }
  /** A stable group of one member; its id. */
  async stable(groupId: string, options: JoinOptions = {}): Promise<string> {
    const asked = this.join(groupId, { version: 3, ...options });
    await this.clock.advance(1);
    const { memberId } = asked.answer;
    this.sync(groupId, memberId, { [memberId]: 'all' });
    this.engine.sync();
    return memberId;
  }
  heartbeat(groupId: string, memberId: string, generation = 1): ErrorCode {
    return this.groups.heartbeat({ groupId, memberId, instanceId: null, generation });
  }
  offset(groupId: string, name: string): number | undefined {
    const [topic, partition] = name.split('-');
    return this.groups.offset(groupId, topic, Number(partition))?.offset;
  }
}

test('a commit is answered when its records are durable, and seen at once by what comes after', async (t) => {
  const bench = await Bench.open();
  const asked = bench.commit('g', { 't1-0': 5, 't1-1': 6 }, { metadata: 'note' });
  t.false(asked.isAnswered);
  t.is(bench.offset('g', 't1-0'), 5);
  let isDurable = false;
  bench.groups.whenDurable(() => {
    isDurable = true;
  });
  t.false(isDurable, 'an OffsetFetch waits for what it leans on');
  bench.engine.sync();
  t.deepEqual(asked.answer, ['NONE', 'NONE']);
  t.true(isDurable);
  t.like(bench.groups.offset('g', 't1', 0), { offset: 5, leaderEpoch: 3, metadata: 'note', expireTimeMs: -1 });
  t.deepEqual(bench.logged(), ['g t1-0=5', 'g t1-1=6']);
  t.is(bench.group('g').state, 'Empty');
});

test('after a restart members carry on with id and generation, without a rebalance', async (t) => {
  const bench = await Bench.open();
  const memberId = await bench.stable('g');
  bench.commit('g', { 't1-0': 5 }, { memberId, generation: 1 });
  bench.commit('other', { 't2-1': 9 });
  bench.engine.sync();
  const lost = bench.commit('g', { 't1-0': 99 }, { memberId, generation: 1 });
  const after = await bench.restart();
  t.false(lost.isAnswered);
  t.is(after.group('g').state, 'Stable');
  t.is(after.heartbeat('g', memberId), 'NONE');
  t.is(after.offset('g', 't1-0'), 5, 'what was not acknowledged is gone');
  t.is(after.offset('other', 't2-1'), 9);
  const sync = after.sync('g', memberId);
  t.is(sync.answer.assignment.toString(), 'all');
  await after.clock.advance(9_000);
  t.is(after.heartbeat('g', memberId), 'NONE', 'sessions started anew');
  await after.clock.advance(10_000);
  t.is(after.group('g').state, 'Empty');
});

test('a JoinGroup that was not followed by a durable assignment is forgotten by a restart', async (t) => {
  const bench = await Bench.open();
  const asked = bench.join('g', { version: 3 });
  await bench.clock.advance(1);
  const { memberId } = asked.answer;
  const sync = bench.sync('g', memberId, { [memberId]: 'x' });
  t.false(sync.isAnswered);
  const after = await bench.restart();
  t.is(after.groups.get('g'), undefined);
  t.is(after.heartbeat('g', memberId), 'UNKNOWN_MEMBER_ID');
});

test('the one timer serves all groups', async (t) => {
  const bench = await Bench.open();
  const ids = new Map<string, string>();
  for (const [groupId, sessionTimeoutMs] of [
    ['a', 30_000],
    ['b', 6_000],
    ['c', 12_000],
  ] as const) {
    ids.set(groupId, await bench.stable(groupId, { sessionTimeoutMs }));
  }
  const states = (): string[] => ['a', 'b', 'c'].map((id) => bench.group(id).state);
  await bench.clock.advance(6_000);
  t.deepEqual(states(), ['Stable', 'Empty', 'Stable']);
  await bench.clock.advance(5_000);
  t.is(bench.heartbeat('c', ids.get('c') ?? ''), 'NONE');
  await bench.clock.advance(6_000);
  t.deepEqual(states(), ['Stable', 'Empty', 'Stable']);
  await bench.clock.advance(6_000);
  t.deepEqual(states(), ['Stable', 'Empty', 'Empty']);
  await bench.clock.advance(10_000);
  t.deepEqual(states(), ['Empty', 'Empty', 'Empty']);
});

test('a heartbeat that has arrived counts, although the timer came first', async (t) => {
  const clock = new ManualClock();
  const bench = await Bench.open({}, { clock });
  const asked = bench.join('g', { version: 3 });
  clock.advance(1);
  const { memberId } = asked.answer;
  bench.sync('g', memberId);
  clock.after(10_000, () => bench.heartbeat('g', memberId));
  clock.advance(10_000);
  t.is(bench.group('g').state, 'Stable');
  clock.advance(10_000);
  t.is(bench.group('g').state, 'Empty');
});

test('the log is rewritten from what lives and loses nothing', async (t) => {
  const bench = await Bench.open();
  const memberId = await bench.stable('g');
  bench.commit('simple', { 't1-2': 77 }, { metadata: 'kept' });
  bench.join('g', { version: 3 });
  t.is(bench.group('g').state, 'PreparingRebalance', 'what is not durable yet is not rewritten either');
  let commits = 0;
  while (bench.log.startOffset === 0) {
    bench.commit('g', { 't1-0': commits++ }, { memberId, generation: 1, metadata: 'x'.repeat(4_000) });
    if (commits > 5_000) throw new Error('the log grows for ever');
  }
  bench.engine.sync();
  const after = await bench.restart();
  t.is(after.offset('g', 't1-0'), commits - 1);
  t.like(after.groups.offset('simple', 't1', 2), { offset: 77, metadata: 'kept', leaderEpoch: 3 });
  t.is(after.group('g').state, 'Stable');
  t.is(after.heartbeat('g', memberId), 'NONE');
  t.is(after.groups.groupCount, 2);
  t.is(after.groups.offsetCount, 2);
});

test('live state larger than one commit is rewritten in several, the last of which moves the start', async (t) => {
  const bench = await Bench.open({ 'journal.entry.bytes': 4 * 1024 * 1024 });
  const sizes: { bytes: number; hasStart: boolean }[] = [];
  const commit = bench.engine.commit.bind(bench.engine);
  bench.engine.commit = (parts, urgency) => {
    const bytes = parts.reduce((sum, part) => sum + (part.kind === 'append' ? part.batch.length : 0), 0);
    sizes.push({ bytes, hasStart: parts.some(({ kind }) => kind === 'start') });
    return commit(parts, urgency);
  };
  let groups = 0;
  for (let round = 0; round < 2_000; round++) {
    bench.commit(`g${groups++}`, { 't1-0': round, 't1-1': round }, { metadata: 'x'.repeat(4_000) });
  }
  const rewrites = sizes.filter(({ hasStart }) => hasStart);
  t.true(rewrites.length > 2);
  t.true(rewrites.length < 8, 'more rarely the larger it is');
  for (const { bytes } of sizes) t.true(bytes <= 2 * 1024 * 1024);
  bench.engine.sync();
  const after = await bench.restart();
  t.is(after.groups.groupCount, groups);
  for (let index = 0; index < groups; index += 37) t.is(after.offset(`g${index}`, 't1-1'), index);
});

test('commits of strangers: unknown groups, members and generations', async (t) => {
  const bench = await Bench.open();
  t.deepEqual(bench.commit('g', { 't1-0': 1 }, { generation: 1 }).answer, ['ILLEGAL_GENERATION']);
  const options = { generation: 1, unknownGroupError: 'GROUP_ID_NOT_FOUND' } as const;
  t.deepEqual(bench.commit('g', { 't1-0': 1 }, options).answer, ['GROUP_ID_NOT_FOUND']);
  t.is(bench.groups.get('g'), undefined);
  const memberId = await bench.stable('g');
  t.deepEqual(bench.commit('g', { 't1-0': 1 }).answer, ['UNKNOWN_MEMBER_ID']);
  t.deepEqual(bench.commit('g', { 't1-0': 1 }, { memberId, generation: 2 }).answer, ['ILLEGAL_GENERATION']);
  t.is(bench.offset('g', 't1-0'), undefined);
});

test('metadata that is too long is refused alone', async (t) => {
  const bench = await Bench.open({ 'offset.metadata.max.bytes': 10 });
  t.deepEqual(bench.commit('g', { 't1-0': 1 }, { metadata: 'x'.repeat(11) }).answer, ['OFFSET_METADATA_TOO_LARGE']);
  t.is(bench.groups.get('g'), undefined, 'and makes no group');
  const asked = bench.commit('g', { 't1-0': 1 }, { metadata: 'x'.repeat(10) });
  bench.engine.sync();
  t.deepEqual(asked.answer, ['NONE']);
});

test('a commit of any size is split into bounded batches and answered once', async (t) => {
  const bench = await Bench.open();
  const offsets = Object.fromEntries(Array.from({ length: 2_500 }, (_value, index) => [`t1-${index}`, index]));
  const asked = bench.commit('g', offsets);
  bench.engine.sync();
  t.is(asked.answer.length, 2_500);
  t.is(bench.log.batches.length, 3);
  t.is((await bench.restart()).groups.offsetCount, 2_500);
});

test('offsets of an empty group expire so long after it became empty, then the group is gone', async (t) => {
  const bench = await Bench.open({ 'offsets.retention.minutes': 60 });
  const memberId = await bench.stable('g');
  bench.commit('g', { 't1-0': 5 }, { memberId, generation: 1 });
  for (let hours = 0; hours < 3; hours++) {
    for (let beats = 0; beats < 400; beats++) {
      await bench.clock.advance(9_000);
      bench.heartbeat('g', memberId);
    }
  }
  t.is(bench.offset('g', 't1-0'), 5, 'kept while somebody subscribes');
  bench.groups.leave('g', [{ memberId, instanceId: null }]);
  await bench.clock.advance(55 * MINUTE_MS);
  t.is(bench.offset('g', 't1-0'), 5);
  await bench.clock.advance(20 * MINUTE_MS);
  t.is(bench.groups.get('g'), undefined);
  t.deepEqual(bench.logged().slice(-2), ['g t1-0 gone', 'g gone']);
  t.is(bench.groups.offsetCount, 0);
  bench.engine.sync();
  t.is((await bench.restart()).groups.groupCount, 0);
});

test('offsets of topics that nobody subscribes to expire by their commit while the group lives', async (t) => {
  const bench = await Bench.open({ 'offsets.retention.minutes': 30 });
  const options = { sessionTimeoutMs: 30 * MINUTE_MS };
  const memberId = await bench.stable('g', options);
  bench.commit('g', { 't1-0': 5, 't2-0': 6 }, { memberId, generation: 1 });
  for (let minutes = 0; minutes < 60; minutes += 20) {
    await bench.clock.advance(20 * MINUTE_MS);
    t.is(bench.heartbeat('g', memberId), 'NONE');
  }
  t.is(bench.offset('g', 't1-0'), 5);
  t.is(bench.offset('g', 't2-0'), undefined);
});

test('offsets without members expire by their commit, or when their commit said', async (t) => {
  const bench = await Bench.open({ 'offsets.retention.minutes': 60 });
  bench.commit('g', { 't1-0': 1 });
  bench.commit('g', { 't1-1': 1 }, { retentionMs: 10 * DAY_MS });
  await bench.clock.advance(40 * MINUTE_MS);
  bench.commit('g', { 't1-2': 1 });
  await bench.clock.advance(40 * MINUTE_MS);
  t.deepEqual(
    ['t1-0', 't1-1', 't1-2'].map((name) => bench.offset('g', name)),
    [undefined, 1, 1],
  );
  await bench.clock.advance(2 * DAY_MS);
  t.is(bench.offset('g', 't1-1'), 1);
  bench.engine.sync();
  const after = await bench.restart();
  t.is(after.offset('g', 't1-1'), 1);
  await after.clock.advance(9 * DAY_MS);
  t.is(after.groups.get('g'), undefined);
});

test('when a topic is deleted so are its offsets, also if the crash came in between', async (t) => {
  const bench = await Bench.open();
  bench.commit('g', { 't1-0': 1, 't2-0': 2 });
  bench.commit('only', { 't1-0': 1 });
  bench.engine.sync();
  const topic = bench.topics.get('t1');
  if (topic === undefined) throw new Error('t1 exists');
  bench.topics.delete(topic);
  bench.engine.sync();
  const crashed = await bench.restart();
  t.is(crashed.offset('g', 't1-0'), undefined);
  t.is(crashed.offset('g', 't2-0'), 2);
  t.is(crashed.groups.get('only'), undefined);

  const other = await Bench.open();
  other.commit('g', { 't1-0': 1, 't2-0': 2 });
  const deleted = other.topics.get('t1');
  if (deleted === undefined) throw new Error('t1 exists');
  other.topics.delete(deleted);
  other.groups.topicDeleted(deleted);
  t.is(other.offset('g', 't1-0'), undefined);
  other.topics.create({ name: 't1', partitionCount: 1, overrides: new Map() });
  other.commit('g', { 't1-0': 50 });
  other.groups.topicDeleted(deleted);
  t.is(other.offset('g', 't1-0'), 50, 'a topic of the same name made later has its own');
  other.engine.sync();
  t.is((await other.restart()).offset('g', 't1-0'), 50);
});

test('groups are deleted with their offsets, unless they have members', async (t) => {
  const bench = await Bench.open();
  const memberId = await bench.stable('g');
  bench.commit('g', { 't1-0': 1 }, { memberId, generation: 1 });
  t.is(bench.groups.deleteGroup('g'), 'NON_EMPTY_GROUP');
  t.is(bench.groups.deleteGroup('nobody'), 'GROUP_ID_NOT_FOUND');
  t.deepEqual(bench.groups.leave('g', [{ memberId, instanceId: null }]), ['NONE']);
  t.is(bench.groups.deleteGroup('g'), 'NONE');
  t.is(bench.groups.get('g'), undefined);
  bench.engine.sync();
  const after = await bench.restart();
  t.is(after.groups.groupCount, 0);
  t.is(after.groups.offsetCount, 0);
});

test('single offsets are deleted, unless somebody subscribes to their topic', async (t) => {
  const bench = await Bench.open();
  t.is(bench.groups.deleteOffsets('g', []), 'GROUP_ID_NOT_FOUND');
  t.is(bench.groups.deleteOffsets('', []), 'INVALID_GROUP_ID');
  const memberId = await bench.stable('g');
  bench.commit('g', { 't1-0': 1, 't2-0': 2 }, { memberId, generation: 1 });
  const targets = [
    { topic: 't1', partition: 0 },
    { topic: 't2', partition: 0 },
    { topic: 't2', partition: 1 },
  ];
  t.deepEqual(bench.groups.deleteOffsets('g', targets), ['GROUP_SUBSCRIBED_TO_TOPIC', 'NONE', 'NONE']);
  t.is(bench.offset('g', 't2-0'), undefined);
  t.is(bench.offset('g', 't1-0'), 1);
  await bench.stable('connect', { protocolType: 'connect' });
  t.is(bench.groups.deleteOffsets('connect', targets), 'NON_EMPTY_GROUP');
});

test('what never became a group leaves nothing behind', async (t) => {
  const bench = await Bench.open();
  t.is(bench.join('g', { protocols: [] }).answer.error, 'INCONSISTENT_GROUP_PROTOCOL');
  t.is(bench.groups.get('g'), undefined);
  const pending = bench.join('g').answer.memberId;
  t.is(bench.group('g').state, 'Empty');
  await bench.clock.advance(10_000);
  t.is(bench.groups.get('g'), undefined);
  t.is(bench.join('g', { memberId: pending }).answer.error, 'UNKNOWN_MEMBER_ID');
  bench.join('g', { version: 3 });
  await bench.clock.advance(1);
  await bench.clock.advance(6 * MINUTE_MS);
  t.is(bench.groups.get('g'), undefined);
  t.is(bench.groups.membersBytes, 0);
  t.deepEqual(bench.logged(), []);
});

test('the number of groups and the memory of their members are bounded', async (t) => {
  const bench = await Bench.open({ 'groups.max': 2, 'groups.members.bytes.max': 1024 * 1024 });
  await bench.stable('a');
  bench.commit('b', { 't1-0': 1 });
  t.is(bench.join('c').answer.error, 'POLICY_VIOLATION');
  t.deepEqual(bench.commit('c', { 't1-0': 1 }).answer, ['POLICY_VIOLATION']);
  t.is(bench.join('b').answer.error, 'MEMBER_ID_REQUIRED');
  const protocols = [{ name: 'range', metadata: Buffer.alloc(600_000) }];
  t.is(bench.join('b', { version: 3, protocols }).isAnswered, false);
  t.is(bench.join('b', { version: 3, protocols }).answer.error, 'POLICY_VIOLATION');
  t.true(bench.groups.membersBytes < 700_000);
});

test('requests with bad timeouts or without a group are refused', async (t) => {
  const bench = await Bench.open();
  t.is(bench.join('').answer.error, 'INVALID_GROUP_ID');
  t.is(bench.join('g', { sessionTimeoutMs: 5_999 }).answer.error, 'INVALID_SESSION_TIMEOUT');
  t.is(bench.join('g', { sessionTimeoutMs: 1_800_001 }).answer.error, 'INVALID_SESSION_TIMEOUT');
  t.is(bench.join('g', { memberId: 'x' }).answer.error, 'UNKNOWN_MEMBER_ID');
  t.is(bench.heartbeat('', 'x'), 'INVALID_GROUP_ID');
  t.is(bench.groups.leave('', []), 'INVALID_GROUP_ID');
  t.deepEqual(bench.groups.leave('g', [{ memberId: 'x', instanceId: null }]), ['UNKNOWN_MEMBER_ID']);
});

test('when the log has failed, timers end quietly', async (t) => {
  const bench = await Bench.open({ 'offsets.retention.minutes': 1 });
  await bench.stable('g');
  bench.commit('s', { 't1-0': 1 });
  bench.engine.fail(new Error('the disk is gone'));
  t.throws(() => bench.commit('s', { 't1-0': 2 }));
  await bench.clock.advance(DAY_MS);
  t.is(bench.offset('s', 't1-0'), 1);
});

test('lag is told from all committed offsets', async (t) => {
  const bench = await Bench.open();
  bench.commit('g', { 't1-0': 5, 't2-1': 6 });
  t.deepEqual(
    [...bench.groups.committed()],
    [
      { group: 'g', state: 'Empty', topic: 't1', partition: 0, offset: 5 },
      { group: 'g', state: 'Empty', topic: 't2', partition: 1, offset: 6 },
    ],
  );
});

test('member ids fit into any version of the protocol, whatever the client calls itself', async (t) => {
  const bench = await Bench.open();
  const { memberId } = bench.join('g', { clientId: 'x'.repeat(32_767) }).answer;
  t.true(memberId.length < 2_000);
});
