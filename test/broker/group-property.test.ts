/**
 * Random clients against one group: whatever they send, in whatever order, every request is answered exactly once, a
 * generation has one leader, generations rise, and a group that came back from its log knows what it had promised.
 */
import test from 'ava';
import fc from 'fast-check';
import type { JoinAnswer, SyncAnswer } from '../../broker/group-member.ts';
import { Asked, GroupBench, subscription } from '../support/group-bench.ts';

const CLIENTS = 5;

type Step =
  | { kind: 'join'; client: number; protocols: number; version: number; isAnew: boolean }
  | { kind: 'sync'; client: number; isStale: boolean }
  /** Some or all do what well-behaved clients do next. */
  | { kind: 'all'; act: 'join' | 'sync'; who: number; protocols: number }
  /** They do so until the group is stable, if nobody is in the way. */
  | { kind: 'settle'; who: number; protocols: number }
  | { kind: 'heartbeat'; client: number }
  | { kind: 'commit'; client: number }
  | { kind: 'leave'; client: number; other: number }
  | { kind: 'wait'; ms: number }
  | { kind: 'durable' }
  | { kind: 'restart' };

const client = fc.nat(CLIENTS - 1);
/** A set of clients, one bit each. */
const some = fc.oneof(fc.constant(2 ** CLIENTS - 1), fc.nat(2 ** CLIENTS - 1));
const step: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 6,
    arbitrary: fc.record({
      kind: fc.constant('join' as const),
      client,
      protocols: fc.nat(2),
      version: fc.constantFrom(3, 5, 8, 9),
      isAnew: fc.boolean(),
    }),
  },
  { weight: 6, arbitrary: fc.record({ kind: fc.constant('sync' as const), client, isStale: fc.boolean() }) },
  {
    weight: 12,
    arbitrary: fc.record({
      kind: fc.constant('all' as const),
      act: fc.constantFrom('join' as const, 'sync' as const),
      who: some,
      protocols: fc.nat(2),
    }),
  },
  { weight: 6, arbitrary: fc.record({ kind: fc.constant('settle' as const), who: some, protocols: fc.nat(2) }) },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant('heartbeat' as const), client }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('commit' as const), client }) },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant('leave' as const), client, other: client }) },
  {
    weight: 3,
    arbitrary: fc.record({
      kind: fc.constant('wait' as const),
      ms: fc.constantFrom(0, 0, 1, 500, 3_000, 6_000, 12_000),
    }),
  },
  { weight: 4, arbitrary: fc.constant({ kind: 'durable' as const }) },
  { weight: 1, arbitrary: fc.constant({ kind: 'restart' as const }) },
);

const PROTOCOLS = [
  [{ name: 'range', metadata: subscription('a') }],
  [
    { name: 'range', metadata: subscription('a', 'b') },
    { name: 'rr', metadata: subscription('a', 'b') },
  ],
  [
    { name: 'rr', metadata: subscription('c') },
    { name: 'range', metadata: subscription('c') },
  ],
];

class World {
  bench: GroupBench;
  readonly options: Record<string, number>;
  readonly joins: Asked<JoinAnswer>[] = [];
  readonly syncs: Asked<SyncAnswer>[] = [];
  /** What each client believes. Odd clients are static. */
  readonly clients = Array.from({ length: CLIENTS }, (_value, index) => ({
    memberId: '',
    generation: -1,
    instanceId: index % 2 === 1 ? `i${index}` : null,
  }));
  /** What leaders were told in this life, by generation. */
  generations = new Map<number, { leader: string; members: string }>();
  readonly counts = { generations: 0, assignments: 0, refusals: 0 };

  constructor(options: Record<string, number>) {
    this.options = options;
    this.bench = new GroupBench(options);
    this.bench.isDurableAtOnce = false;
  }

  run(next: Step): void {
    const { bench } = this;
    switch (next.kind) {
      case 'join':
        return this.#join(next);
      case 'sync': {
        const self = this.clients[next.client];
        const generation = next.isStale ? self.generation - 1 : self.generation;
        const assignments = Object.fromEntries(bench.group.members.map(({ id }) => [id, `${generation}:${id}`]));
        const asked = bench.syncGroup(self.memberId, assignments, { generation, instanceId: self.instanceId });
        this.syncs.push(asked);
        return;
      }
      case 'all': {
        for (let index = 0; index < CLIENTS; index++) {
          if ((next.who & (1 << index)) === 0) continue;
          if (next.act === 'sync') this.run({ kind: 'sync', client: index, isStale: false });
          else this.run({ kind: 'join', client: index, protocols: next.protocols, version: 5, isAnew: false });
          if (next.act === 'join' && this.joins.at(-1)?.answers[0]?.error === 'MEMBER_ID_REQUIRED') {
            this.run({ kind: 'join', client: index, protocols: next.protocols, version: 5, isAnew: false });
          }
        }
        return;
      }
      case 'settle':
        this.run({ ...next, kind: 'all', act: 'join' });
        bench.advance(2_000);
        this.run({ ...next, kind: 'all', act: 'join' });
        this.run({ ...next, kind: 'all', act: 'sync' });
        return bench.sync();
      case 'heartbeat': {
        const { memberId, generation, instanceId } = this.clients[next.client];
        bench.heartbeat(memberId, { generation, instanceId });
        return;
      }
      case 'commit': {
        bench.group.commitRefusal(bench.now, this.clients[next.client]);
        return;
      }
      case 'leave': {
        const leaving = [this.clients[next.client], this.clients[next.other]];
        const errors = bench.group.leave(bench.now, leaving);
        if (errors.length !== 2) throw new Error('one error each');
        return;
      }
      case 'wait':
        return bench.advance(next.ms);
      case 'durable':
        return bench.sync();
      case 'restart':
        return this.#restart();
    }
  }

  #join(next: Extract<Step, { kind: 'join' }>): void {
    const self = this.clients[next.client];
    const asked = new Asked<JoinAnswer>();
    const remember = (answer: JoinAnswer): void => {
      asked.reply(answer);
      if (answer.error === 'MEMBER_ID_REQUIRED') self.memberId = answer.memberId;
      if (answer.error === 'UNKNOWN_MEMBER_ID' || answer.error === 'FENCED_INSTANCE_ID') self.memberId = '';
      if (answer.error !== 'NONE') return;
      self.memberId = answer.memberId;
      self.generation = answer.generation;
      if (answer.members.length === 0) return;
      if (answer.memberId !== answer.leaderId) throw new Error('only the leader is told the members');
      if (!answer.members.some(({ memberId }) => memberId === answer.memberId))
        throw new Error('the leader is a member');
      // A static member may come back under a new id; it is the same one.
      const name = (member: { memberId: string; groupInstanceId: string | null }): string =>
        member.groupInstanceId ?? member.memberId;
      const told = { leader: self.instanceId ?? answer.memberId, members: answer.members.map(name).sort().join() };
      const known = this.generations.get(answer.generation);
      if (known === undefined) this.counts.generations++;
      else if (known.leader !== told.leader || known.members !== told.members) {
        throw new Error(`generation ${answer.generation} is ${JSON.stringify(known)} and ${JSON.stringify(told)}`);
      }
      this.generations.set(answer.generation, told);
    };
    this.joins.push(asked);
    const { bench } = this;
    bench.group.join(
      bench.now,
      {
        groupId: 'g',
        memberId: next.isAnew && self.instanceId !== null ? '' : self.memberId,
        instanceId: self.instanceId,
        clientId: `c${next.client}`,
        clientHost: '/h',
        sessionTimeoutMs: 10_000,
        rebalanceTimeoutMs: 5_000,
        protocolType: 'consumer',
        protocols: PROTOCOLS[next.protocols],
        requiresKnownMember: next.version >= 4,
        canSkipAssignment: next.version >= 9,
      },
      remember,
    );
  }

  #restart(): void {
    const { group } = this.bench;
    const { stored } = group;
    this.bench = new GroupBench(this.options, this.bench);
    this.bench.isDurableAtOnce = false;
    // Nobody of the old life is answered any more; its connections are gone.
    this.joins.length = 0;
    this.syncs.length = 0;
    this.generations = new Map();
    if (stored === undefined) return;
    const ids = this.bench.group.members.map(({ id, assignment }) => `${id}=${assignment}`);
    const kept = stored.members.map(({ memberId, assignment }) => `${memberId}=${assignment}`);
    if (this.bench.group.generation !== stored.generation) throw new Error('the generation is kept');
    if (ids.join() !== kept.join()) throw new Error('members and assignments are kept');
  }

  check(generationBefore: number): void {
    const { group } = this.bench;
    if (group.generation < generationBefore) throw new Error('generations rise');
    for (const { answers } of [...this.joins, ...this.syncs]) {
      if (answers.length > 1) throw new Error('answered twice');
    }
    const ids = new Set(group.members.map(({ id }) => id));
    if (group.leaderId !== null && !ids.has(group.leaderId)) throw new Error('the leader is a member');
    if (group.leaderId === null && ids.size > 0) throw new Error('members have a leader');
    if ((group.state === 'Empty') !== (ids.size === 0) && group.state !== 'PreparingRebalance') {
      throw new Error(`${ids.size} members in state ${group.state}`);
    }
    const statics = group.members.flatMap(({ instanceId }) => (instanceId === null ? [] : [instanceId]));
    if (new Set(statics).size !== statics.length) throw new Error('one member per instance id');
    const waiting = group.members.some(({ joins }) => joins.length > 0);
    if (waiting && group.state !== 'PreparingRebalance') throw new Error(`joins wait in state ${group.state}`);
    const syncing = group.members.some(({ syncs }) => syncs.length > 0);
    if (syncing && group.state !== 'CompletingRebalance') throw new Error(`syncs wait in state ${group.state}`);
    if (group.nextDeadlineMs <= this.bench.nowMs && group.state !== 'PreparingRebalance') {
      // Only the initial delay of 0 ms may be due already.
      throw new Error('the past is dealt with');
    }
  }

  #count(): void {
    for (const { answers } of this.syncs) {
      if (answers[0].error !== 'NONE') this.counts.refusals++;
      else if (answers[0].assignment.length > 0) this.counts.assignments++;
    }
  }

  /** Everybody falls silent: at the end nothing waits and nothing is left. */
  end(): void {
    for (let round = 0; round < 20; round++) {
      this.bench.advance(60_000);
      this.bench.sync();
    }
    for (const { answers } of [...this.joins, ...this.syncs]) {
      if (answers.length !== 1) throw new Error(`${answers.length} answers`);
    }
    this.#count();
    const { group } = this.bench;
    if (group.members.length > 0) throw new Error('silent members are removed');
    if (group.state !== 'Empty') throw new Error(`an empty group is ${group.state}`);
    if (group.membersBytes !== 0) throw new Error(`${group.membersBytes} bytes are left`);
  }
}

const totals = { generations: 0, assignments: 0, refusals: 0 };

test('random clients: one leader, rising generations, each request answered once', (t) => {
  fc.assert(
    fc.property(
      fc.array(step, { minLength: 1, maxLength: 80 }),
      fc.constantFrom({}, { 'group.max.size': 3 }, { 'group.initial.rebalance.delay.ms': 2_000 }),
      (steps, options) => {
        const world = new World(options);
        for (const next of steps) {
          const before = next.kind === 'restart' ? -1 : world.bench.group.generation;
          world.run(next);
          world.check(before);
        }
        world.end();
        totals.generations += world.counts.generations;
        totals.assignments += world.counts.assignments;
        totals.refusals += world.counts.refusals;
      },
    ),
    { numRuns: 300 },
  );
  t.log(totals);
  // Otherwise the clients do not get far enough for this to mean anything.
  t.true(totals.generations > 300);
  t.true(totals.assignments > 300);
  t.true(totals.refusals > 500);
});
