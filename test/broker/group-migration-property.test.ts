/**
 * Random members of either protocol in one group, with a broker that restarts now and then: no partition is worked on by
 * two members at once, no record is handled after it was committed, and when the noise ends every partition has a member
 * and the group is of the type that its members ask for.
 */
import test from 'ava';
import fc from 'fast-check';
import { resolveOptions } from '../../broker/config.ts';
import type { JoinAnswer, SyncAnswer } from '../../broker/group-member.ts';
import { GroupCoordinator } from '../../broker/groups.ts';
import { TopicRegistry } from '../../broker/topics.ts';
import { Reader, Writer } from '../../protocol/bytes.ts';
import { type ErrorCode, MillraceError } from '../../protocol/errors.ts';
import {
  readConsumerProtocolAssignment,
  readConsumerProtocolSubscription,
  writeConsumerProtocolAssignment,
  writeConsumerProtocolSubscription,
} from '../../protocol/kafka/messages.ts';
import { Asked, joinRequest } from '../support/group-bench.ts';
import { MemoryEngine } from '../support/memory-engine.ts';
import { SimClock } from '../support/sim-clock.ts';
import { SimRandom } from '../support/sim-random.ts';

const CLIENTS = 5;
const PARTITIONS = 6;
const SESSION_MS = 6_000;
const ALL = Array.from({ length: PARTITIONS }, (_value, index) => index);

type Step =
  | { kind: 'start'; client: number; protocol: 'classic' | 'consumer' }
  | { kind: 'leave' | 'die'; client: number }
  | { kind: 'time'; seconds: number; order: number }
  | { kind: 'restart' };

const client = fc.nat(CLIENTS - 1);
const step: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 6,
    arbitrary: fc.record({
      kind: fc.constant('start' as const),
      client,
      protocol: fc.constantFrom('classic' as const, 'consumer' as const),
    }),
  },
  { weight: 4, arbitrary: fc.record({ kind: fc.constantFrom('leave' as const, 'die' as const), client }) },
  {
    weight: 12,
    arbitrary: fc.record({
      kind: fc.constant('time' as const),
      seconds: fc.integer({ min: 1, max: 8 }),
      order: fc.nat(),
    }),
  },
  { weight: 1, arbitrary: fc.constant({ kind: 'restart' as const }) },
);

class World {
  readonly clock = new SimClock();
  readonly isEager: boolean;
  engine = new MemoryEngine({ clock: this.clock });
  groups!: GroupCoordinator;
  topicId = '';
  readonly clients = new Map<number, Classic | Consumer>();
  #starts = 0;

  constructor(isEager: boolean) {
    this.isEager = isEager;
  }

  async open(): Promise<void> {
    const options = resolveOptions({ 'group.consumer.session.timeout.ms': SESSION_MS });
    const parts = { engine: this.engine, clock: this.clock, random: new SimRandom(++this.#starts), options };
    const topics = new TopicRegistry(parts);
    await topics.load();
    this.groups = new GroupCoordinator({ ...parts, topics });
    await this.groups.load();
    const topic = topics.get('t') ?? topics.create({ name: 't', partitionCount: PARTITIONS, overrides: new Map() });
    this.topicId = topic.id;
  }

  async run(next: Step): Promise<void> {
    switch (next.kind) {
      case 'start':
        if (this.clients.has(next.client)) return;
        this.clients.set(
          next.client,
          next.protocol === 'classic' ? new Classic(this) : new Consumer(this, ++this.#starts),
        );
        return;
      case 'leave':
        this.clients.get(next.client)?.leave();
        this.clients.delete(next.client);
        return;
      case 'die':
        this.clients.delete(next.client);
        return;
      case 'time':
        return this.pass(next.seconds, next.order);
      case 'restart':
        this.groups.close();
        this.engine = this.engine.restart();
        await this.open();
        for (const one of this.clients.values()) one.disconnected();
        return;
    }
  }

  /** Everybody who lives acts twice a second. */
  async pass(seconds: number, order = 0): Promise<void> {
    for (let turn = 0; turn < 2 * seconds; turn++) {
      await this.clock.advance(500);
      const living = [...this.clients.values()];
      for (let index = 0; index < living.length; index++) {
        living[(index + order + turn) % living.length].act();
        this.check();
      }
    }
  }

  check(): void {
    const used = [...this.clients.values()].flatMap(({ positions }) => [...positions.keys()]);
    if (new Set(used).size < used.length) throw new Error(`two members work on the same partition: ${used}`);
  }

  async settle(): Promise<void> {
    await this.pass(40);
    if (this.clients.size === 0) return;
    const used = [...this.clients.values()].flatMap(({ positions }) => [...positions.keys()]).sort((a, b) => a - b);
    if (String(used) !== String(ALL)) throw new Error(`in the end members work on ${used}`);
    const hasConsumer = [...this.clients.values()].some((one) => one instanceof Consumer);
    const type = this.groups.get('g')?.type;
    if (type !== (hasConsumer ? 'consumer' : 'classic')) throw new Error(`in the end the group is ${type}`);
    for (const partition of ALL) {
      if (this.groups.offset('g', 't', partition) === undefined) throw new Error(`nobody worked on ${partition}`);
    }
  }
}

/** What clients of both kinds do with partitions: handle the next record of each, and commit it. */
class Work {
  readonly #world: World;
  /** Partition → next offset. */
  readonly positions = new Map<number, number>();

  constructor(world: World) {
    this.#world = world;
  }

  take(partitions: readonly number[]): void {
    for (const partition of this.positions.keys())
      if (!partitions.includes(partition)) this.positions.delete(partition);
    for (const partition of partitions) {
      if (this.positions.has(partition)) continue;
      this.positions.set(partition, this.#world.groups.offset('g', 't', partition)?.offset ?? 0);
    }
  }

  advance(memberId: string, generation: number): void {
    for (const [partition, offset] of this.positions) {
      const committed = this.#world.groups.offset('g', 't', partition)?.offset ?? 0;
      if (offset < committed) throw new Error(`${partition}: ${offset} is handled after ${committed} was committed`);
      const asked = new Asked<readonly ErrorCode[]>();
      this.#world.groups.commit(
        {
          groupId: 'g',
          memberId,
          instanceId: null,
          generation,
          retentionMs: -1,
          isOldVersion: false,
          unknownGroupError: 'ILLEGAL_GENERATION',
          offsets: [
            { topic: 't', topicId: this.#world.topicId, partition, offset: offset + 1, leaderEpoch: -1, metadata: '' },
          ],
        },
        asked.reply,
      );
      // A record whose commit was refused is handled again, by whoever has the partition then.
      if (asked.answer[0] === 'NONE') this.positions.set(partition, offset + 1);
    }
  }
}

class Consumer {
  readonly #world: World;
  readonly #work: Work;
  readonly #id: string;
  #epoch = 0;

  constructor(world: World, number: number) {
    this.#world = world;
    this.#work = new Work(world);
    this.#id = `consumer-${number}`;
  }

  get positions(): ReadonlyMap<number, number> {
    return this.#work.positions;
  }

  act(): void {
    if (this.#epoch > 0) this.#work.advance(this.#id, this.#epoch);
    try {
      const answer = this.#world.groups.consumerHeartbeat({
        groupId: 'g',
        memberId: this.#id,
        memberEpoch: this.#epoch,
        clientId: 'c',
        clientHost: '/h',
        instanceId: null,
        rackId: null,
        rebalanceTimeoutMs: 10_000,
        topicNames: ['t'],
        topicRegex: null,
        assignor: null,
        owned: new Map([[this.#world.topicId, new Set(this.#work.positions.keys())]]),
        ...(this.#epoch === 0 ? { owned: new Map() } : {}),
        canSee: () => true,
      });
      this.#epoch = answer.memberEpoch;
      if (answer.assignment !== null) this.#work.take([...(answer.assignment.get(this.#world.topicId) ?? [])]);
    } catch (error) {
      if (!(error instanceof MillraceError)) throw error;
      this.#work.take([]);
      this.#epoch = 0;
    }
  }

  leave(): void {
    this.#work.positions.clear();
    if (this.#epoch === 0) return;
    try {
      this.#world.groups.consumerLeave('g', { memberId: this.#id, instanceId: null, memberEpoch: -1 });
    } catch (error) {
      if (!(error instanceof MillraceError)) throw error;
    }
  }
  disconnected(): void {}
}

class Classic {
  readonly #world: World;
  readonly #work: Work;
  #id = '';
  #generation = -1;
  #joining: Asked<JoinAnswer> | undefined;
  #syncing: Asked<SyncAnswer> | undefined;

  constructor(world: World) {
    this.#world = world;
    this.#work = new Work(world);
  }

  get positions(): ReadonlyMap<number, number> {
    return this.#work.positions;
  }

  act(): void {
    if (this.#joining !== undefined) {
      if (this.#joining.isAnswered) this.#joined(this.#joining.answer);
    } else if (this.#syncing !== undefined) {
      if (this.#syncing.isAnswered) this.#synced(this.#syncing.answer);
    } else if (this.#generation < 0) this.#join();
    else {
      this.#work.advance(this.#id, this.#generation);
      const { groups } = this.#world;
      this.#heard(
        groups.heartbeat({ groupId: 'g', generation: this.#generation, memberId: this.#id, instanceId: null }),
      );
    }
  }

  leave(): void {
    this.#work.positions.clear();
    if (this.#id !== '') this.#world.groups.leave('g', [{ memberId: this.#id, instanceId: null }]);
  }
  disconnected(): void {
    if (this.#joining === undefined && this.#syncing === undefined) return;
    this.#joining = undefined;
    this.#syncing = undefined;
    this.#generation = -1;
  }

  get #protocol(): string {
    return this.#world.isEager ? 'range' : 'cooperative-sticky';
  }

  #heard(error: ErrorCode): void {
    if (error === 'NONE') return;
    if (error === 'UNKNOWN_MEMBER_ID') this.#id = '';
    // Somebody else may have them by now.
    if (error !== 'REBALANCE_IN_PROGRESS') this.#work.take([]);
    this.#join();
  }

  #join(): void {
    if (this.#world.isEager) this.#work.take([]);
    this.#generation = -1;
    this.#syncing = undefined;
    const asked = new Asked<JoinAnswer>();
    this.#joining = asked;
    const writer = new Writer();
    writer.int16(1);
    const ownedPartitions = [{ topic: 't', partitions: [...this.#work.positions.keys()] }];
    writeConsumerProtocolSubscription(writer, { topics: ['t'], userData: null, ownedPartitions }, 1);
    const protocols = [{ name: this.#protocol, metadata: writer.finish() }];
    const timeouts = { sessionTimeoutMs: SESSION_MS, rebalanceTimeoutMs: 10_000 };
    this.#world.groups.join(joinRequest('g', { memberId: this.#id, version: 3, protocols, ...timeouts }), asked.reply);
  }

  #joined(answer: JoinAnswer): void {
    this.#joining = undefined;
    if (answer.error !== 'NONE') return this.#heard(answer.error);
    this.#id = answer.memberId;
    this.#generation = answer.generation;
    const asked = new Asked<SyncAnswer>();
    this.#syncing = asked;
    this.#world.groups.sync(
      {
        groupId: 'g',
        generation: answer.generation,
        memberId: this.#id,
        instanceId: null,
        protocolType: 'consumer',
        protocolName: this.#protocol,
        assignments: answer.leaderId === this.#id ? share(answer.members) : [],
      },
      asked.reply,
    );
  }

  #synced({ error, assignment }: SyncAnswer): void {
    this.#syncing = undefined;
    if (error !== 'NONE') return this.#heard(error);
    const reader = new Reader(assignment);
    const { assignedPartitions } =
      assignment.length === 0 ? { assignedPartitions: [] } : readConsumerProtocolAssignment(reader, reader.int16());
    const given = assignedPartitions.flatMap(({ partitions }) => partitions);
    const hasRevoked = [...this.#work.positions.keys()].some((partition) => !given.includes(partition));
    this.#work.take(given);
    // The cooperative protocol: what was given up is shared in the next round.
    if (hasRevoked) this.#join();
  }
}

/** A leader's assignment, sticky; what another member still has is left for the next round. */
function share(members: JoinAnswer['members']): { memberId: string; assignment: Buffer }[] {
  const owners = new Map<number, string>();
  for (const { memberId, metadata } of members) {
    const reader = new Reader(metadata);
    const { ownedPartitions } = readConsumerProtocolSubscription(reader, reader.int16());
    for (const partition of ownedPartitions.flatMap(({ partitions }) => partitions)) owners.set(partition, memberId);
  }
  const room = new Map(
    members.map(({ memberId }, index) => [
      memberId,
      Math.floor(PARTITIONS / members.length) + (index < PARTITIONS % members.length ? 1 : 0),
    ]),
  );
  const given = new Map<string, number[]>(members.map(({ memberId }) => [memberId, []]));
  const left: number[] = [];
  const give = (memberId: string, partition: number): void => {
    given.get(memberId)?.push(partition);
    room.set(memberId, (room.get(memberId) ?? 0) - 1);
  };
  for (const partition of ALL) {
    const owner = owners.get(partition);
    if (owner !== undefined && (room.get(owner) ?? 0) > 0) give(owner, partition);
    else left.push(partition);
  }
  for (const partition of left) {
    const [taker] = [...room].find(([, places]) => places > 0) ?? [''];
    const owner = owners.get(partition);
    if (owner === undefined || owner === taker) give(taker, partition);
    else room.set(taker, (room.get(taker) ?? 0) - 1);
  }
  return [...given].map(([memberId, partitions]) => {
    const writer = new Writer();
    writer.int16(1);
    writeConsumerProtocolAssignment(writer, { assignedPartitions: [{ topic: 't', partitions }], userData: null }, 1);
    return { memberId, assignment: writer.finish() };
  });
}

test('members of both protocols never work on the same partition, and all of it is worked on in the end', async (t) => {
  await fc.assert(
    fc.asyncProperty(fc.boolean(), fc.array(step, { minLength: 5, maxLength: 40 }), async (isEager, steps) => {
      const world = new World(isEager);
      await world.open();
      for (const next of steps) await world.run(next);
      await world.settle();
      world.groups.close();
    }),
    { numRuns: Number(process.env['MILLRACE_RUNS'] ?? 60) },
  );
  t.pass();
});
