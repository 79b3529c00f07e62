/**
 * Groups that go from the classic protocol to the consumer protocol and back with their members in them (KIP-848). What
 * is expected was asked of Apache Kafka 4.4 with the same requests, except where a comment says otherwise.
 */
import test from 'ava';
import type { ConsumerHeartbeat, ConsumerHeartbeatAnswer } from '../../broker/consumer-group.ts';
import { resolveOptions } from '../../broker/config.ts';
import type { JoinAnswer, SyncAnswer } from '../../broker/group-member.ts';
import { GroupCoordinator } from '../../broker/groups.ts';
import { TopicRegistry } from '../../broker/topics.ts';
import { Reader, Writer } from '../../protocol/bytes.ts';
import { type ErrorCode, MillraceError } from '../../protocol/errors.ts';
import {
  readConsumerProtocolAssignment,
  writeConsumerProtocolAssignment,
  writeConsumerProtocolSubscription,
} from '../../protocol/kafka/messages.ts';
import { Asked, type JoinOptions, joinRequest } from '../support/group-bench.ts';
import { MemoryEngine } from '../support/memory-engine.ts';
import { SimClock } from '../support/sim-clock.ts';
import { SimRandom } from '../support/sim-random.ts';

type Values = Record<string, string | number>;

function subscription(owned: readonly number[] = []): Buffer {
  const writer = new Writer();
  writer.int16(3);
  const ownedPartitions = owned.length > 0 ? [{ topic: 't', partitions: [...owned] }] : [];
  writeConsumerProtocolSubscription(
    writer,
    { topics: ['t'], userData: null, ownedPartitions, generationId: -1, rackId: null },
    3,
  );
  return writer.finish();
}

function assignment(partitions: readonly number[]): Buffer {
  const writer = new Writer();
  writer.int16(3);
  writeConsumerProtocolAssignment(
    writer,
    { assignedPartitions: [{ topic: 't', partitions: [...partitions] }], userData: null },
    3,
  );
  return writer.finish();
}

function partitionsIn(bytes: Buffer): number[] {
  if (bytes.length === 0) return [];
  const reader = new Reader(bytes);
  return readConsumerProtocolAssignment(reader, reader.int16()).assignedPartitions.flatMap(
    ({ partitions }) => partitions,
  );
}

interface Joining extends JoinOptions {
  readonly owned?: readonly number[];
}

class Bench {
  readonly clock: SimClock;
  readonly engine: MemoryEngine;
  readonly values: Values;
  readonly topics: TopicRegistry;
  readonly groups: GroupCoordinator;

  private constructor(
    clock: SimClock,
    engine: MemoryEngine,
    values: Values,
    topics: TopicRegistry,
    groups: GroupCoordinator,
  ) {
    this.clock = clock;
    this.engine = engine;
    this.values = values;
    this.topics = topics;
    this.groups = groups;
  }
  static async open(values: Values = {}, clock = new SimClock(), old?: MemoryEngine): Promise<Bench> {
    const engine = old ?? new MemoryEngine({ clock });
    const random = new SimRandom(7);
    const options = resolveOptions({ 'group.consumer.assignment.interval.ms': 0, ...values });
    const topics = new TopicRegistry({ engine, clock, random, options });
    await topics.load();
    const groups = new GroupCoordinator({ engine, clock, random, options, topics });
    await groups.load();
    if (topics.get('t') === undefined) topics.create({ name: 't', partitionCount: 4, overrides: new Map() });
    return new Bench(clock, engine, values, topics, groups);
  }
  /** The same broker after a power cut. */
  restart(values = this.values): Promise<Bench> {
    this.groups.close();
    return Bench.open(values, this.clock, this.engine.restart());
  }

  /** A round of JoinGroup; the answer comes when the group has waited for everybody. */
  start({ owned = [], ...options }: Joining = {}): Asked<JoinAnswer> {
    const asked = new Asked<JoinAnswer>();
    const protocols = [{ name: 'cooperative-sticky', metadata: subscription(owned) }];
    this.groups.join(joinRequest('g', { version: 3, protocols, ...options }), asked.reply);
    return asked;
  }
  async join(options: Joining = {}): Promise<JoinAnswer> {
    const asked = this.start(options);
    await this.clock.advance(1);
    return asked.answer;
  }
  sync(memberId: string, generation: number, given: Record<string, number[]> = {}, instanceId: string | null = null) {
    const asked = new Asked<SyncAnswer>();
    this.groups.sync(
      {
        groupId: 'g',
        generation,
        memberId,
        instanceId,
        protocolType: 'consumer',
        protocolName: 'cooperative-sticky',
        assignments: Object.entries(given).map(([id, parts]) => ({ memberId: id, assignment: assignment(parts) })),
      },
      asked.reply,
    );
    const { error, assignment: bytes } = asked.answer;
    return error === 'NONE' ? partitionsIn(bytes) : error;
  }
  beatClassic(memberId: string, generation: number, instanceId: string | null = null): ErrorCode {
    return this.groups.heartbeat({ groupId: 'g', generation, memberId, instanceId });
  }
  beat(memberId: string, memberEpoch: number, options: Partial<ConsumerHeartbeat> = {}): ConsumerHeartbeatAnswer {
    const joins = memberEpoch === 0 ? { rebalanceTimeoutMs: 10_000, topicNames: ['t'], owned: new Map() } : {};
    return this.groups.consumerHeartbeat({
      groupId: 'g',
      memberId,
      memberEpoch,
      clientId: 'c',
      clientHost: '/127.0.0.1',
      instanceId: null,
      rackId: null,
      rebalanceTimeoutMs: -1,
      topicNames: null,
      topicRegex: null,
      assignor: null,
      owned: null,
      canSee: () => true,
      ...joins,
      ...options,
    });
  }
  parts({ assignment: given }: ConsumerHeartbeatAnswer): number[] {
    return [...(given?.values() ?? [])].flatMap((indexes) => [...indexes]);
  }
  refusal(act: () => unknown): string {
    try {
      act();
      return 'NONE';
    } catch (error) {
      if (error instanceof MillraceError) return `${error.code} ${error.message}`;
      throw error;
    }
  }
  commit(memberId: string, generation: number, offset = 5, isOldVersion = true): ErrorCode {
    const asked = new Asked<readonly ErrorCode[]>();
    const topicId = this.topics.get('t')?.id ?? '';
    this.groups.commit(
      {
        groupId: 'g',
        memberId,
        instanceId: null,
        generation,
        retentionMs: -1,
        isOldVersion,
        unknownGroupError: 'ILLEGAL_GENERATION',
        offsets: [{ topic: 't', topicId, partition: 0, offset, leaderEpoch: -1, metadata: '' }],
      },
      asked.reply,
    );
    return asked.answer[0];
  }

  /** A stable classic group of one member with all partitions. */
  async stable(options: Joining = {}): Promise<string> {
    const { memberId, generation } = await this.join(options);
    this.sync(memberId, generation, { [memberId]: [0, 1, 2, 3] }, options.instanceId ?? null);
    return memberId;
  }
  get state(): string {
    const group = this.groups.get('g');
    return group === undefined ? 'none' : `${group.type} ${group.state}`;
  }
  /** Type of each member, its epoch and partitions. */
  get members(): string[] {
    const group = this.groups.get('g');
    if (group?.type !== 'consumer') return [];
    return group.members.map(({ profile, progress }) => {
      const held = [...progress.assigned.values()].flatMap((partitions) => [...partitions.keys()]);
      return `${profile.classic === null ? 'consumer' : 'classic'} ${progress.epoch} [${held}]`;
    });
  }
}

test('a member of the consumer protocol turns a classic group over; everybody keeps what they have and gives up by rounds', async (t) => {
  const bench = await Bench.open();
  const a = await bench.stable();
  t.is(bench.commit(a, 1), 'NONE');
  t.is(
    bench.refusal(() => bench.beat('c', 3)),
    'GROUP_ID_NOT_FOUND Group g is not a consumer group.',
  );
  const joined = bench.beat('c', 0);
  t.deepEqual([joined.memberEpoch, bench.parts(joined)], [2, []]);
  t.is(bench.state, 'consumer Reconciling');
  t.deepEqual(bench.members, ['classic 1 [0,1,2,3]', 'consumer 2 []']);
  t.is(bench.groups.offset('g', 't', 0)?.offset, 5);

  t.is(bench.beatClassic(a, 2), 'ILLEGAL_GENERATION');
  t.is(bench.beatClassic('c', 2), 'UNKNOWN_MEMBER_ID');
  t.is(bench.beatClassic('nobody', 2), 'UNKNOWN_MEMBER_ID');
  t.is(bench.beatClassic(a, 1), 'REBALANCE_IN_PROGRESS');
  t.is(bench.sync(a, 1), 'REBALANCE_IN_PROGRESS');
  t.is(bench.commit(a, 1, 6), 'NONE');
  t.is(bench.commit(a, 9), 'ILLEGAL_GENERATION');
  t.is(bench.commit('', -1), 'UNKNOWN_MEMBER_ID');
  const group = bench.groups.get('g');
  t.is(group?.type === 'consumer' ? group.fetchRefusal(a, 7) : '', 'ILLEGAL_GENERATION');

  t.like(await bench.join({ memberId: a, owned: [0, 1, 2, 3] }), {
    error: 'NONE',
    generation: 1,
    leaderId: '',
    memberId: a,
  });
  t.deepEqual(bench.sync(a, 1), [0, 1]);
  t.is(bench.beatClassic(a, 1), 'REBALANCE_IN_PROGRESS');
  t.deepEqual(bench.parts(bench.beat('c', 2, { owned: new Map() })), []);
  t.like(await bench.join({ memberId: a, owned: [0, 1] }), { generation: 2, protocolName: 'cooperative-sticky' });
  t.deepEqual(bench.sync(a, 2), [0, 1]);
  t.is(bench.sync(a, 3), 'ILLEGAL_GENERATION');
  t.is(bench.beatClassic(a, 2), 'NONE');
  t.deepEqual(bench.parts(bench.beat('c', 2, { owned: new Map() })), [2, 3]);
  t.is(bench.state, 'consumer Stable');
});

test('an eager member has given everything up when it joins again', async (t) => {
  const bench = await Bench.open();
  const a = await bench.stable();
  bench.beat('c', 0);
  t.like(await bench.join({ memberId: a }), { generation: 2 });
  t.deepEqual(bench.sync(a, 2), [0, 1]);
  t.deepEqual(bench.parts(bench.beat('c', 2, { owned: new Map() })), [2, 3]);
});

test('classic members join a consumer group, new and with an id that the group has not heard of', async (t) => {
  const bench = await Bench.open();
  bench.beat('c', 0);
  const told = await bench.join({ version: 4 });
  t.is(told.error, 'MEMBER_ID_REQUIRED');
  t.like(await bench.join({ version: 4, memberId: told.memberId }), { error: 'NONE', memberId: told.memberId });
  t.like(await bench.join({ memberId: 'stranger' }), { error: 'NONE', memberId: 'stranger' });
  t.is((await bench.join()).error, 'NONE');
  t.is((await bench.join({ protocolType: 'connect' })).error, 'INCONSISTENT_GROUP_PROTOCOL');
  const other = [{ name: 'range', metadata: subscription() }];
  t.is((await bench.join({ protocols: other })).error, 'INCONSISTENT_GROUP_PROTOCOL');
  const garbage = [{ name: 'cooperative-sticky', metadata: Buffer.from([0, 1, 2]) }];
  t.is((await bench.join({ protocols: garbage })).error, 'INCONSISTENT_GROUP_PROTOCOL');
  t.deepEqual(
    bench.members.map((text) => text.split(' ')[0]),
    ['consumer', 'classic', 'classic', 'classic'],
  );
  const large = [{ name: 'cooperative-sticky', metadata: Buffer.concat([subscription(), Buffer.alloc(600_000)]) }];
  t.is((await bench.join({ protocols: large })).error, 'INVALID_REQUEST');
  const full = await Bench.open({ 'group.consumer.max.size': 1 });
  full.beat('c', 0);
  t.is((await full.join()).error, 'GROUP_MAX_SIZE_REACHED');
});

test('the group is a classic one again when its last consumer has left; the rest joins again', async (t) => {
  const bench = await Bench.open();
  const a = await bench.stable();
  bench.beat('c', 0);
  await bench.join({ memberId: a, owned: [0, 1, 2, 3] });
  bench.sync(a, 1);
  await bench.join({ memberId: a, owned: [0, 1] });
  bench.sync(a, 2);
  bench.beat('c', 2, { owned: new Map() });
  bench.groups.consumerLeave('g', { memberId: 'c', instanceId: null, memberEpoch: -1 });
  t.is(bench.state, 'classic PreparingRebalance');
  const group = bench.groups.get('g');
  t.deepEqual(group?.type === 'classic' ? group.members.map(({ assignment: bytes }) => partitionsIn(bytes)) : [], [
    [0, 1],
  ]);
  t.is(bench.commit(a, 2), 'NONE');
  t.is(bench.beatClassic(a, 2), 'REBALANCE_IN_PROGRESS');
  t.like(await bench.join({ memberId: a, owned: [0, 1] }), { generation: 3, leaderId: a });
});

test('a member that was behind when the group went back finds another generation', async (t) => {
  const bench = await Bench.open();
  const a = await bench.stable();
  bench.beat('c', 0);
  bench.groups.consumerLeave('g', { memberId: 'c', instanceId: null, memberEpoch: -1 });
  t.is(bench.beatClassic(a, 1), 'ILLEGAL_GENERATION');
  t.is(bench.commit(a, 1), 'ILLEGAL_GENERATION');
  t.like(await bench.join({ memberId: a }), { generation: 3 });
});

test('the last consumer may also be put out: by silence, or by an administrator', async (t) => {
  const silent = await Bench.open();
  const a = await silent.stable({ sessionTimeoutMs: 600_000 });
  silent.beat('c', 0);
  await silent.clock.advance(46_000);
  t.is(silent.state, 'classic PreparingRebalance');
  t.true(silent.groups.membersBytes > 0);
  t.is(silent.groups.leave('g', [{ memberId: a, instanceId: null }])[0], 'NONE');
  t.is(silent.groups.membersBytes, 0);

  const evicted = await Bench.open();
  await evicted.stable();
  evicted.beat('c', 0);
  t.is(evicted.groups.leave('g', [{ memberId: 'c', instanceId: null }])[0], 'NONE');
  t.is(evicted.state, 'classic PreparingRebalance');
});

test('a round that a classic member does not take part in puts it out, and so does silence', async (t) => {
  const bench = await Bench.open();
  const a = await bench.stable({ sessionTimeoutMs: 600_000, rebalanceTimeoutMs: 5_000 });
  const keepAlive = async (): Promise<void> => {
    for (let ms = 0; ms < 6_000; ms += 1_000) {
      await bench.clock.advance(1_000);
      bench.beat('c', 2);
      bench.beatClassic(a, 1);
    }
  };
  bench.beat('c', 0);
  await keepAlive();
  t.deepEqual(
    bench.members.map((text) => text.split(' ')[0]),
    ['consumer'],
  );
  // Joined, but never synced.
  const late = await bench.join({ sessionTimeoutMs: 600_000, rebalanceTimeoutMs: 5_000 });
  t.is(late.error, 'NONE');
  await bench.clock.advance(4_000);
  t.is(bench.members.length, 2);
  await bench.clock.advance(2_000);
  t.is(bench.members.length, 1);
  const quiet = await bench.join({ sessionTimeoutMs: 6_000, rebalanceTimeoutMs: 60_000 });
  bench.sync(quiet.memberId, quiet.generation);
  await bench.clock.advance(7_000);
  t.is(bench.members.length, 1);
});

test('static members: whoever has the instance id takes the place, without a new assignment', async (t) => {
  const bench = await Bench.open();
  const a = await bench.stable({ instanceId: 'i' });
  const taken = bench.beat('c', 0, { instanceId: 'i' });
  t.deepEqual([taken.memberEpoch, bench.parts(taken)], [1, [0, 1, 2, 3]]);
  t.is(bench.state, 'consumer Stable');
  t.is(bench.beatClassic(a, 1, 'i'), 'FENCED_INSTANCE_ID');
  bench.beat('d', 0);
  t.regex(
    bench.refusal(() => bench.beat('e', 0, { instanceId: 'i' })),
    /^UNRELEASED_INSTANCE_ID/,
  );
  // And back: a classic member takes the place of one that speaks the consumer protocol at once.
  const back = await bench.join({ instanceId: 'i' });
  t.is(back.error, 'NONE');
  t.regex(
    bench.refusal(() => bench.beat('c', 1, { instanceId: 'i' })),
    /^FENCED_INSTANCE_ID/,
  );
  t.is((await bench.join({ instanceId: 'i', memberId: 'c' })).error, 'FENCED_INSTANCE_ID');
  t.is((await bench.join({ instanceId: 'j', memberId: 'x' })).error, 'UNKNOWN_MEMBER_ID');
  t.deepEqual(bench.members, ['consumer 2 []', 'classic 2 [0,1]']);
});

test('a classic member in the place of the last consumer makes a classic group, without a rebalance', async (t) => {
  const bench = await Bench.open();
  bench.beat('c', 0, { instanceId: 'i' });
  bench.groups.consumerLeave('g', { memberId: 'c', instanceId: 'i', memberEpoch: -2 });
  const { memberId, generation } = await bench.join({ instanceId: 'i' });
  t.is(generation, 2);
  t.is(bench.state, 'classic Stable');
  t.deepEqual(bench.sync(memberId, 2, {}, 'i'), [0, 1, 2, 3]);
  t.is(bench.beatClassic(memberId, 2, 'i'), 'NONE');
});

test('who waits in a group that goes over is told to join again', async (t) => {
  const bench = await Bench.open();
  const a = await bench.stable();
  const waiting = bench.start();
  t.is(bench.state, 'classic PreparingRebalance');
  bench.beat('c', 0);
  t.is(waiting.answer.error, 'REBALANCE_IN_PROGRESS');
  t.is(bench.members.length, 3);
  t.is(bench.beatClassic(a, 1), 'REBALANCE_IN_PROGRESS');
});

test('a heartbeat of the consumer protocol makes a classic member one of that protocol', async (t) => {
  const bench = await Bench.open();
  const a = await bench.stable();
  bench.beat('c', 0);
  await bench.join({ memberId: a });
  bench.beat(a, 2, { owned: new Map() });
  t.deepEqual(bench.members, ['consumer 2 [0,1]', 'consumer 2 []']);
  await bench.clock.advance(44_000);
  t.is(bench.members.length, 2);
});

test('what cannot go over stays as it is, and Kafka says why', async (t) => {
  const prefix = 'GROUP_ID_NOT_FOUND Cannot upgrade classic group g to consumer group because';
  const connect = await Bench.open();
  await connect.join({ protocolType: 'connect' });
  t.is(
    connect.refusal(() => connect.beat('c', 0)),
    `${prefix} the group does not use the consumer embedded protocol.`,
  );
  const malformed = await Bench.open();
  await malformed.join({ protocols: [{ name: 'x', metadata: Buffer.from([1]) }] });
  t.is(
    malformed.refusal(() => malformed.beat('c', 0)),
    `${prefix} the embedded consumer protocol is malformed.`,
  );
  t.is(malformed.state, 'classic CompletingRebalance');
  const full = await Bench.open({ 'group.consumer.max.size': 1 });
  await full.stable();
  t.regex(
    full.refusal(() => full.beat('c', 0)),
    /^GROUP_MAX_SIZE_REACHED/,
  );
  t.is(full.state, 'classic Stable');
  const regex = await Bench.open();
  await regex.stable();
  t.regex(
    regex.refusal(() => regex.beat('c', 0, { topicRegex: '(' })),
    /^INVALID_REGULAR_EXPRESSION/,
  );
  t.is(regex.state, 'classic Stable');
});

for (const policy of ['bidirectional', 'upgrade', 'downgrade', 'disabled']) {
  test(`group.consumer.migration.policy=${policy}`, async (t) => {
    const bench = await Bench.open({ 'group.consumer.migration.policy': policy });
    await bench.stable();
    const mayUpgrade = policy === 'bidirectional' || policy === 'upgrade';
    const refusal = bench.refusal(() => bench.beat('c', 0));
    t.is(refusal === 'NONE', mayUpgrade);
    if (!mayUpgrade) t.regex(refusal, /because online upgrade is disabled\.$/);

    const back = await Bench.open({ 'group.consumer.migration.policy': policy });
    back.beat('c', 0);
    const { memberId } = await back.join();
    back.groups.consumerLeave('g', { memberId: 'c', instanceId: null, memberEpoch: -1 });
    const mayDowngrade = policy === 'bidirectional' || policy === 'downgrade';
    t.is(back.state.split(' ')[0], mayDowngrade ? 'classic' : 'consumer');
    // Where it may not go back the classic member gets the partitions all the same.
    if (mayDowngrade) return;
    t.is(back.beatClassic(memberId, back.groups.get('g')?.type === 'consumer' ? 3 : 0), 'REBALANCE_IN_PROGRESS');
    const again = await back.join({ memberId });
    t.deepEqual(back.sync(memberId, again.generation), [0, 1, 2, 3]);
  });
}

test('a restart in the middle carries on where it was, in either direction', async (t) => {
  let bench = await Bench.open();
  const a = await bench.stable();
  bench.commit(a, 1);
  bench.beat('c', 0);
  await bench.join({ memberId: a, owned: [0, 1, 2, 3] });
  bench = await bench.restart();
  t.deepEqual(bench.members, ['classic 1 [0,1]', 'consumer 2 []']);
  t.is(bench.groups.offset('g', 't', 0)?.offset, 5);
  t.deepEqual(bench.sync(a, 1), [0, 1]);
  t.is(bench.beatClassic(a, 1), 'REBALANCE_IN_PROGRESS');
  t.like(await bench.join({ memberId: a, owned: [0, 1] }), { generation: 2 });
  t.deepEqual(bench.parts(bench.beat('c', 2, { owned: new Map() })), [2, 3]);

  bench.groups.consumerLeave('g', { memberId: 'c', instanceId: null, memberEpoch: -1 });
  bench = await bench.restart();
  // Kafka's would be Stable, and nobody would get what the other had until somebody joins or leaves.
  t.is(bench.state, 'classic PreparingRebalance');
  t.is(bench.beatClassic(a, 2), 'REBALANCE_IN_PROGRESS');
  t.is(bench.groups.offset('g', 't', 0)?.offset, 5);
  await bench.clock.advance(11_000);
  t.is(bench.state, 'classic Empty');
});

test('a partition that a leader gave to two members has one holder after the group went over', async (t) => {
  const bench = await Bench.open();
  const first = bench.start();
  const second = bench.start();
  await bench.clock.advance(1);
  const ids = [first, second].map(({ answer }) => answer.memberId);
  const { leaderId, generation } = first.answer;
  const other = ids.find((id) => id !== leaderId) ?? '';
  const asked = new Asked<SyncAnswer>();
  const request = { groupId: 'g', generation, instanceId: null, protocolType: null, protocolName: null };
  bench.groups.sync({ ...request, memberId: other, assignments: [] }, asked.reply);
  bench.sync(leaderId, generation, { [leaderId]: [0, 1, 2, 9], [other]: [2, 3] });
  bench.beat('c', 0);
  const held = bench.members.flatMap((text) => text.match(/\d(?=[,\]])/g) ?? []);
  t.deepEqual(held.sort(), ['0', '1', '2', '3']);
});

test('topics that come reach a group in which nobody speaks the consumer protocol', async (t) => {
  const bench = await Bench.open({ 'group.consumer.migration.policy': 'upgrade' });
  bench.beat('c', 0);
  const { memberId } = await bench.join();
  bench.groups.consumerLeave('g', { memberId: 'c', instanceId: null, memberEpoch: -1 });
  const { generation } = await bench.join({ memberId });
  t.deepEqual(bench.sync(memberId, generation), [0, 1, 2, 3]);
  const topic = bench.topics.get('t');
  if (topic !== undefined) bench.topics.addPartitions(topic, 6);
  t.is(bench.beatClassic(memberId, generation), 'REBALANCE_IN_PROGRESS');
  const again = await bench.join({ memberId, owned: [0, 1, 2, 3] });
  t.deepEqual(bench.sync(memberId, again.generation), [0, 1, 2, 3, 4, 5]);
});
