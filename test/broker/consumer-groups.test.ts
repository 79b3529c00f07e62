/** Consumer groups in the coordinator, on the engine in memory: what is durable, what a restart finds, what expires. */
import test from 'ava';
import type { ConsumerGroup, ConsumerHeartbeat, ConsumerHeartbeatAnswer } from '../../broker/consumer-group.ts';
import { resolveOptions } from '../../broker/config.ts';
import type { JoinAnswer } from '../../broker/group-member.ts';
import { GroupCoordinator } from '../../broker/groups.ts';
import { TopicRegistry } from '../../broker/topics.ts';
import { Asked, joinRequest } from '../support/group-bench.ts';
import { ConsumerGroupBench } from '../support/consumer-group-bench.ts';
import { MemoryEngine } from '../support/memory-engine.ts';
import { SimClock } from '../support/sim-clock.ts';
import { SimRandom } from '../support/sim-random.ts';

const DAY_MS = 24 * 3_600_000;

class Bench {
  readonly clock: SimClock;
  readonly engine: MemoryEngine;
  readonly topics: TopicRegistry;
  readonly groups: GroupCoordinator;

  private constructor(clock: SimClock, engine: MemoryEngine, topics: TopicRegistry, groups: GroupCoordinator) {
    this.clock = clock;
    this.engine = engine;
    this.topics = topics;
    this.groups = groups;
  }
  static async open(clock = new SimClock(), old?: MemoryEngine): Promise<Bench> {
    const engine = old ?? new MemoryEngine({ durability: 'manual', clock });
    const random = new SimRandom(7);
    const options = resolveOptions({ 'group.consumer.assignment.interval.ms': 0 });
    const topics = new TopicRegistry({ engine, clock, random, options });
    await topics.load();
    const groups = new GroupCoordinator({ engine, clock, random, options, topics });
    await groups.load();
    if (topics.get('t') === undefined) topics.create({ name: 't', partitionCount: 3, overrides: new Map() });
    engine.sync();
    return new Bench(clock, engine, topics, groups);
  }
  /** The same broker after a power cut. */
  restart(): Promise<Bench> {
    this.groups.close();
    return Bench.open(this.clock, this.engine.restart());
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
  commit(generation: number, memberId: string): void {
    this.groups.commit(
      {
        groupId: 'g',
        memberId,
        instanceId: null,
        generation,
        retentionMs: -1,
        isOldVersion: false,
        unknownGroupError: 'GROUP_ID_NOT_FOUND',
        offsets: [
          {
            topic: 't',
            topicId: this.topics.get('t')?.id ?? '',
            partition: 0,
            offset: 5,
            leaderEpoch: -1,
            metadata: '',
          },
        ],
      },
      () => {},
    );
  }
  get group(): ConsumerGroup {
    const group = this.groups.get('g');
    if (group?.type !== 'consumer') throw new Error('no consumer group');
    return group;
  }
  state(): unknown {
    return ConsumerGroupBench.state(this.group);
  }
}

test('a restarted broker finds members, epochs and partitions; sessions start anew', async (t) => {
  const before = await Bench.open();
  before.beat('a', 0);
  before.beat('b', 0, { topicNames: [], topicRegex: 't' });
  before.beat('a', 2);
  before.commit(2, 'a');
  before.engine.sync();
  const state = before.state();
  const after = await before.restart();
  t.deepEqual(after.state(), state);
  t.is(after.groups.offset('g', 't', 0)?.offset, 5);
  t.true(after.groups.membersBytes > 0);
  t.is(after.beat('b', after.group.members[1].progress.epoch).assignment, null);
  await after.clock.advance(9_999);
  t.true(after.group.has('a'));
  await after.clock.advance(50_000);
  t.is(after.group.state, 'Empty');
  t.is(after.groups.membersBytes, 0);
});

test('what was not durable is not there after a power cut, and nothing that answers tell is without it', async (t) => {
  const before = await Bench.open();
  before.beat('a', 0);
  before.engine.sync();
  let isDurable = false;
  before.beat('b', 0);
  before.groups.whenDurable(() => {
    isDurable = true;
  });
  t.false(isDurable);
  const after = await before.restart();
  t.true(after.group.has('a'));
  t.false(after.group.has('b'));
});

test('a group that changed its protocol is read as what it was last', async (t) => {
  let bench = await Bench.open();
  bench.commit(-1, '');
  bench.beat('a', 0);
  bench.engine.sync();
  bench = await bench.restart();
  t.is(bench.group.state, 'Stable');
  t.is(bench.groups.offset('g', 't', 0)?.offset, 5);

  bench.groups.consumerLeave('g', { memberId: 'a', instanceId: null, memberEpoch: -1 });
  const joined = new Asked<JoinAnswer>();
  bench.groups.join(joinRequest('g', {}), joined.reply);
  bench.engine.sync();
  bench = await bench.restart();
  t.is(bench.groups.get('g')?.type, 'classic');
  t.is(bench.groups.offset('g', 't', 0)?.offset, 5);
  bench.beat('a', 0);
  bench.engine.sync();
  bench = await bench.restart();
  t.is(bench.group.epoch, 2);
});

test('offsets of consumer groups expire as those of others, and then the group', async (t) => {
  const bench = await Bench.open();
  bench.beat('a', 0);
  bench.commit(2, 'a');
  bench.groups.consumerLeave('g', { memberId: 'a', instanceId: null, memberEpoch: -1 });
  await bench.clock.advance(6 * DAY_MS);
  t.is(bench.groups.offset('g', 't', 0)?.offset, 5);
  await bench.clock.advance(2 * DAY_MS);
  t.is(bench.groups.get('g'), undefined);
  bench.engine.sync();
  const after = await bench.restart();
  t.is(after.groups.groupCount, 0);
});

test('the log of a busy group stays bounded and says the same', async (t) => {
  const bench = await Bench.open();
  bench.beat('a', 0);
  const names = Array.from({ length: 100 }, (_value, index) => `topic-${'x'.repeat(50)}${index}`);
  for (let round = 0; round < 400; round++) {
    const { epoch } = bench.group.members[0].progress;
    bench.beat('a', epoch, { topicNames: ['t', ...names.slice(0, 50 + (round % 50))] });
  }
  bench.engine.sync();
  const state = bench.state();
  const after = await bench.restart();
  t.deepEqual(after.state(), state);
  const log = after.topics.get('__consumer_offsets')?.partitions[0];
  t.true((log?.startOffset ?? 0) > 0);
});
