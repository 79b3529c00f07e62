/**
 * A simulated member of a consumer group, by the classic protocol: joins, leads if it is told to, reads what it is
 * assigned, commits, leaves or falls silent. Beside it, the consumer without a group that only commits.
 */
import { errors } from '../../protocol/errors.ts';
import { Writer } from '../../protocol/bytes.ts';
import { nameOf, type TopicModel } from './broker-oracle.ts';
import { type ResponseOf, SimClient, type World } from './clients.ts';

const NO_GENERATION = -1;

interface Assigned {
  readonly topic: TopicModel;
  readonly partition: number;
  position: number;
}

export class SimMember {
  readonly #world: World;
  readonly #client: SimClient;
  readonly #group: string;
  readonly #topics: readonly TopicModel[];
  readonly #instanceId: string | null;
  readonly #sessionTimeoutMs: number;
  readonly #rebalanceTimeoutMs: number;
  #memberId = '';
  #generation = NO_GENERATION;
  #assigned: Assigned[] = [];
  /** When the last request was sent that the coordinator accepted. */
  #acceptedMs = 0;
  /** A JoinGroup was sent whose answer never came: the group may be in a generation we do not know. */
  #isJoinInDoubt = false;

  constructor(world: World, name: string, group: string, topics: readonly TopicModel[]) {
    this.#world = world;
    this.#client = new SimClient(world, name);
    this.#group = group;
    this.#topics = topics;
    const { random } = this.#client;
    this.#instanceId = random.chance(0.25) ? `static-${name}` : null;
    this.#sessionTimeoutMs = random.between(600, 4000);
    this.#rebalanceTimeoutMs = random.between(1000, 4000);
  }

  async run(): Promise<void> {
    const { random } = this.#client;
    await this.#world.sleep(random.below(3000));
    while (!this.#world.isEnding) {
      await this.#client.connect(true);
      if (!(await this.#join())) {
        await this.#world.sleep(random.between(10, 200));
        continue;
      }
      await this.#poll();
      const dice = random.below(10);
      if (dice === 0) await this.#leave();
      // As a process that is paused: its session may end.
      else if (dice === 1) await this.#world.sleep(random.below(6000));
    }
    if (random.chance(0.5) && this.#client.isConnected) await this.#leave();
    this.#client.close();
  }

  async #leave(): Promise<void> {
    const members = [{ memberId: this.#memberId, groupInstanceId: this.#instanceId }];
    await this.#client.ask('LeaveGroup', 4, { groupId: this.#group, members });
    this.#memberId = '';
    this.#world.note(`${this.#client.name} leaves`);
    await this.#world.sleep(this.#client.random.below(2000));
  }

  /** JoinGroup and SyncGroup; true with an assignment. */
  async #join(): Promise<boolean> {
    const { groups, node, clock } = this.#world;
    const { random } = this.#client;
    const version = random.between(5, 9);
    const atLeast = groups.syncedGeneration(this.#group);
    this.#isJoinInDoubt = true;
    const waitMs = 60_000;
    const joined = await this.#client.ask(
      'JoinGroup',
      version,
      {
        groupId: this.#group,
        sessionTimeoutMs: this.#sessionTimeoutMs,
        rebalanceTimeoutMs: this.#rebalanceTimeoutMs,
        memberId: this.#memberId,
        groupInstanceId: this.#instanceId,
        protocolType: 'consumer',
        protocols: [{ name: 'range', metadata: subscription(this.#topics) }],
      },
      waitMs,
    );
    if (joined === undefined) return false;
    switch (joined.errorCode) {
      case 0:
        break;
      case errors.MEMBER_ID_REQUIRED.kafka:
        this.#memberId = joined.memberId;
        return false;
      case errors.UNKNOWN_MEMBER_ID.kafka:
      case errors.FENCED_INSTANCE_ID.kafka:
        this.#memberId = '';
        return false;
      case errors.REBALANCE_IN_PROGRESS.kafka:
        return false;
      default:
        this.#world.fail(`${this.#client.name}: JoinGroup answers ${joined.errorCode}`);
        return false;
    }
    this.#memberId = joined.memberId;
    this.#generation = joined.generationId;
    const life = node.starts;
    const answer = { generation: joined.generationId, leader: joined.leader };
    groups.joined(this.#group, life, answer, this.#world.isLossy ? 0 : atLeast);
    const isLeader = joined.leader === joined.memberId && !joined.skipAssignment && joined.members.length > 0;
    const sentMs = clock.monotonic();
    const synced = await this.#client.ask(
      'SyncGroup',
      random.between(3, 5),
      {
        groupId: this.#group,
        generationId: joined.generationId,
        memberId: joined.memberId,
        groupInstanceId: this.#instanceId,
        protocolType: 'consumer',
        protocolName: 'range',
        assignments: isLeader ? assign(joined.members, this.#topics) : [],
      },
      waitMs,
    );
    if (synced === undefined) return false;
    switch (synced.errorCode) {
      case 0:
        break;
      case errors.UNKNOWN_MEMBER_ID.kafka:
      case errors.FENCED_INSTANCE_ID.kafka:
        this.#memberId = '';
        return false;
      case errors.ILLEGAL_GENERATION.kafka:
      case errors.REBALANCE_IN_PROGRESS.kafka:
        return false;
      default:
        this.#world.fail(`${this.#client.name}: SyncGroup answers ${synced.errorCode}`);
        return false;
    }
    this.#isJoinInDoubt = false;
    this.#acceptedMs = sentMs;
    const assigned = assignedIn(synced.assignment, this.#topics);
    const names = assigned.map(({ topic, partition }) => nameOf(topic, partition));
    if (!this.#world.isLossy) groups.synced(this.#group, joined.generationId, joined.memberId, names);
    this.#assigned = assigned;
    this.#world.onPromise?.('assigned');
    return this.#fetchPositions();
  }

  async #fetchPositions(): Promise<boolean> {
    const { groups } = this.#world;
    const atLeast = this.#assigned.map(({ topic, partition }) => groups.acknowledged(this.#group, topic.id, partition));
    const topics = this.#assigned.map(({ topic, partition }) => ({ name: topic.name, partitionIndexes: [partition] }));
    if (topics.length === 0) return true;
    const isNew = this.#client.random.chance(0.5);
    const answer = isNew
      ? await this.#client.ask('OffsetFetch', 8, { groups: [{ groupId: this.#group, topics }] })
      : await this.#client.ask('OffsetFetch', 5, { groupId: this.#group, topics });
    if (answer === undefined) return false;
    const found = isNew ? answer.groups[0].topics : (answer.topics ?? []);
    this.#assigned.forEach((place, index) => {
      const offset = found[index].partitions[0].committedOffset;
      const minimum = this.#world.isLossy ? -1 : atLeast[index];
      groups.fetched(this.#group, place.topic.id, place.partition, offset, minimum);
      place.position = Math.max(0, offset);
    });
    return true;
  }

  /** Reads, commits and heartbeats until the group rebalances, or something ends it. */
  async #poll(): Promise<void> {
    const { random } = this.#client;
    const rounds = random.between(3, 40);
    for (let round = 0; round < rounds && !this.#world.isEnding; round++) {
      await this.#world.sleep(random.between(20, Math.min(400, this.#sessionTimeoutMs / 3)));
      if (!this.#client.isConnected) {
        // A connection that ends does not end the membership.
        await this.#client.connect(true);
      }
      if (random.chance(0.5) && this.#assigned.length > 0 && !(await this.#read(random.pick(this.#assigned)))) return;
      if (random.chance(0.4) && !(await this.#commit())) return;
      if (!(await this.#heartbeat())) return;
    }
  }

  async #heartbeat(): Promise<boolean> {
    const sentMs = this.#world.clock.monotonic();
    const answer = await this.#client.ask('Heartbeat', 4, {
      groupId: this.#group,
      generationId: this.#generation,
      memberId: this.#memberId,
      groupInstanceId: this.#instanceId,
    });
    if (answer === undefined) return true;
    return this.#accepted('Heartbeat', answer.errorCode, sentMs);
  }

  /** Whether the coordinator still takes us for a member of this generation; complains if it has no reason not to. */
  #accepted(what: string, errorCode: number, sentMs: number): boolean {
    const world = this.#world;
    if (errorCode === 0) {
      this.#acceptedMs = sentMs;
      return true;
    }
    if (errorCode === errors.REBALANCE_IN_PROGRESS.kafka) return false;
    const silentMs = world.clock.monotonic() - this.#acceptedMs;
    const isExcused =
      this.#isJoinInDoubt ||
      world.isLossy ||
      silentMs >= 0.9 * Math.min(this.#sessionTimeoutMs, this.#rebalanceTimeoutMs);
    switch (errorCode) {
      case errors.UNKNOWN_MEMBER_ID.kafka:
        this.#memberId = '';
        break;
      case errors.ILLEGAL_GENERATION.kafka:
        break;
      default:
        world.fail(`${this.#client.name}: ${what} answers ${errorCode}`);
        return false;
    }
    if (!isExcused) {
      world.fail(
        `${this.#client.name}: ${what} answers ${errorCode}, ${silentMs} ms after the last answer in generation ${this.#generation}`,
      );
    }
    return false;
  }

  async #read(place: Assigned): Promise<boolean> {
    const { topic, partition, position } = place;
    const { log } = this.#world;
    const promised = log.partition(topic, partition).knownEnd;
    const answer = await this.#client.ask(
      'Fetch',
      12,
      {
        replicaId: -1,
        maxWaitMs: 100,
        minBytes: 1,
        maxBytes: 20_000,
        sessionEpoch: -1,
        topics: [{ topic: topic.name, partitions: [{ partition, fetchOffset: position, partitionMaxBytes: 20_000 }] }],
      },
      100,
    );
    const found = answer?.responses[0]?.partitions[0];
    if (found === undefined) return true;
    if (found.errorCode === errors.OFFSET_OUT_OF_RANGE.kafka) {
      const listed = await this.#client.ask('ListOffsets', 7, {
        replicaId: -1,
        topics: [{ name: topic.name, partitions: [{ partitionIndex: partition, timestamp: -2 }] }],
      });
      const start = listed?.topics[0]?.partitions[0];
      if (start === undefined || start.errorCode !== 0) return true;
      if (start.offset <= position && !this.#world.isLossy) {
        this.#world.fail(
          `${this.#client.name}: ${nameOf(topic, partition)}: committed position ${position} is out of range, the log starts at ${start.offset}`,
        );
      }
      place.position = Math.max(start.offset, 0);
      return true;
    }
    if (found.errorCode === errors.KAFKA_STORAGE_ERROR.kafka && this.#world.diskTroubleMs >= 0) return true;
    if (found.errorCode !== 0) {
      this.#world.fail(`${this.#client.name}: ${nameOf(topic, partition)}: Fetch answers ${found.errorCode}`);
      return true;
    }
    const { highWatermark } = found;
    log.checkEnd(topic, partition, highWatermark, this.#world.isLossy ? 0 : promised);
    const bytes = found.records ?? Buffer.alloc(0);
    place.position = log.read({ topic, partition, from: position, highWatermark, bytes });
    return true;
  }

  async #commit(): Promise<boolean> {
    const { groups, clock } = this.#world;
    const { random } = this.#client;
    const places = this.#assigned.filter(() => random.chance(0.7)).map((place) => ({ ...place }));
    if (places.length === 0) return true;
    const committedMetadata = random.chance(0.05) ? 'm'.repeat(random.below(30_000)) : 'm';
    for (const { topic, partition, position } of places) groups.committing(this.#group, topic.id, partition, position);
    const sentMs = clock.monotonic();
    const answer = await this.#client.ask('OffsetCommit', random.between(2, 9), {
      groupId: this.#group,
      generationIdOrMemberEpoch: this.#generation,
      memberId: this.#memberId,
      groupInstanceId: null,
      topics: places.map(({ topic, partition, position }) => ({
        name: topic.name,
        partitions: [{ partitionIndex: partition, committedOffset: position, committedMetadata }],
      })),
    });
    if (answer === undefined) return true;
    let isAccepted = true;
    answer.topics.forEach(({ partitions: [{ errorCode }] }, index) => {
      const { topic, partition, position } = places[index];
      if (errorCode === 0) {
        groups.committed(this.#group, topic.id, partition, position);
        this.#world.onPromise?.('committed');
      }
      if (isAccepted) isAccepted = this.#accepted('OffsetCommit', errorCode, sentMs);
    });
    return isAccepted;
  }
}

/** ConsumerProtocolSubscription, version 0. */
function subscription(topics: readonly TopicModel[]): Buffer {
  const writer = new Writer();
  writer.int16(0);
  writer.int32(topics.length);
  for (const { name } of topics) writer.string(name);
  writer.int32(-1);
  return writer.finish();
}

/** Round robin, as text: what members tell each other is their own business. */
function assign(
  members: ResponseOf<'JoinGroup'>['members'],
  topics: readonly TopicModel[],
): { memberId: string; assignment: Buffer }[] {
  const lists = members.map((): string[] => []);
  let next = 0;
  for (const topic of topics) {
    for (let partition = 0; partition < topic.partitionsMin; partition++) {
      lists[next++ % lists.length].push(`${topic.name} ${partition}`);
    }
  }
  return members.map(({ memberId }, index) => ({ memberId, assignment: Buffer.from(lists[index].join(',')) }));
}

function assignedIn(assignment: Buffer, topics: readonly TopicModel[]): Assigned[] {
  const text = assignment.toString();
  if (text === '') return [];
  return text.split(',').flatMap((each) => {
    const [name, partition] = each.split(' ');
    const topic = topics.find((one) => one.name === name);
    return topic === undefined ? [] : [{ topic, partition: Number(partition), position: 0 }];
  });
}

/** Asks for everything that a group has committed, and compares. */
export async function verifyCommits(
  world: World,
  client: SimClient,
  groupId: string,
  topics: readonly TopicModel[],
): Promise<void> {
  const { groups } = world;
  const places = topics.flatMap((topic) =>
    Array.from({ length: topic.partitionsMin }, (_, partition) => ({ topic, partition })),
  );
  const atLeast = places.map(({ topic, partition }) => groups.acknowledged(groupId, topic.id, partition));
  const asked = places.map(({ topic, partition }) => ({ name: topic.name, partitionIndexes: [partition] }));
  const answer = await client.ask('OffsetFetch', 8, { groups: [{ groupId, topics: asked }] });
  answer?.groups[0].topics.forEach(({ partitions: [{ committedOffset }] }, index) => {
    const { topic, partition } = places[index];
    groups.fetched(groupId, topic.id, partition, committedOffset, world.isLossy ? -1 : atLeast[index]);
  });
}

/** Commits ever higher offsets of a topic that may go away, and reads them back. */
export async function commitAlone(world: World, name: string, topicOf: () => TopicModel | undefined): Promise<void> {
  const client = new SimClient(world, name);
  const { random } = client;
  const { groups } = world;
  const groupId = `alone-${name}`;
  for (let offset = 1; !world.isEnding; offset++) {
    await world.sleep(random.between(50, 1500));
    const topic = topicOf();
    if (topic === undefined) continue;
    await client.connect(true);
    if (random.chance(0.5)) {
      const atLeast = groups.acknowledged(groupId, topic.id, 0);
      const request = { groups: [{ groupId, topics: [{ topicId: topic.id, partitionIndexes: [0] }] }] };
      const answer = await client.ask('OffsetFetch', 10, request);
      const found = answer?.groups[0].topics[0]?.partitions[0];
      if (found === undefined || topic.status !== 'live') continue;
      if (found.errorCode !== 0) world.fail(`${name}: OffsetFetch answers ${found.errorCode}`);
      groups.fetched(groupId, topic.id, 0, found.committedOffset, world.isLossy ? -1 : atLeast);
      continue;
    }
    groups.committing(groupId, topic.id, 0, offset);
    const partitions = [{ partitionIndex: 0, committedOffset: offset, committedMetadata: null }];
    const answer = await client.ask('OffsetCommit', 10, {
      groupId,
      generationIdOrMemberEpoch: NO_GENERATION,
      memberId: '',
      topics: [{ topicId: topic.id, partitions }],
    });
    const result = answer?.topics[0].partitions[0];
    if (result?.errorCode === 0) groups.committed(groupId, topic.id, 0, offset);
    else if (result !== undefined && topic.status === 'live') {
      world.fail(`${name}: OffsetCommit answers ${result.errorCode}`);
    }
  }
  client.close();
}
