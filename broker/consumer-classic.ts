/**
 * Members of the classic protocol in a consumer group, as there are while a group goes over from one protocol to the
 * other (KIP-848, "online migration"): what they say in the consumer's embedded protocol (ConsumerProtocolSubscription,
 * ConsumerProtocolAssignment) and how both kinds of group turn into each other. Values and pure functions only.
 */
import { asBuffer, Reader, Writer } from '../protocol/bytes.ts';
import {
  type GroupMetadataValue,
  readConsumerProtocolAssignment,
  readConsumerProtocolSubscription,
  writeConsumerProtocolAssignment,
} from '../protocol/kafka/messages.ts';
import type { Partitions } from './consumer-assignors.ts';
import type { ConsumerGroupEvent } from './consumer-group-records.ts';
import {
  type ClassicMembership,
  type ConsumerMember,
  type HeldPartitions,
  MEMBER_STATES,
  type MemberProfile,
} from './consumer-member.ts';
import { type Member, metadataFor, NO_BYTES, type Protocol } from './group-member.ts';
import { Roster } from './group-roster.ts';
import { Subscriptions, type TopicCatalog } from './subscriptions.ts';

/** The newest version of the embedded protocol; later ones only add fields at the end. */
const EMBEDDED_VERSION = 3;

export interface EmbeddedSubscription {
  readonly topics: readonly string[];
  /** Topic name → partitions. Empty: none, or the version has no word for them, or they were given up to join. */
  readonly owned: ReadonlyMap<string, readonly number[]>;
  readonly rackId: string | null;
}

/** Undefined if the bytes are not a subscription. */
export function readSubscription(metadata: Uint8Array): EmbeddedSubscription | undefined {
  try {
    const reader = new Reader(asBuffer(metadata));
    const version = reader.int16();
    if (version < 0) return undefined;
    const { topics, ownedPartitions, rackId } = readConsumerProtocolSubscription(
      reader,
      Math.min(version, EMBEDDED_VERSION),
    );
    const owned = new Map(ownedPartitions.map(({ topic, partitions }) => [topic, partitions]));
    return { topics, owned, rackId };
  } catch {
    return undefined;
  }
}

/** Topic name → partitions; none for no bytes; undefined if they are not an assignment. */
function readAssignment(assignment: Uint8Array): ReadonlyMap<string, readonly number[]> | undefined {
  if (assignment.length === 0) return new Map();
  try {
    const reader = new Reader(asBuffer(assignment));
    const version = reader.int16();
    if (version < 0) return undefined;
    const { assignedPartitions } = readConsumerProtocolAssignment(reader, Math.min(version, EMBEDDED_VERSION));
    return new Map(assignedPartitions.map(({ topic, partitions }) => [topic, partitions]));
  } catch {
    return undefined;
  }
}

/** Partitions by topic id, of topics that exist. */
export function byTopicId(topics: TopicCatalog, named: ReadonlyMap<string, readonly number[]>): Partitions {
  const partitions = new Map<string, Set<number>>();
  for (const [name, indexes] of named) {
    const topic = topics.get(name);
    if (topic !== undefined) partitions.set(topic.id, new Set(indexes));
  }
  return partitions;
}

/** What a member is to have, in the version of the embedded protocol that it speaks. */
export function assignmentBytes(
  { profile }: ConsumerMember,
  partitions: ReadonlyMap<string, { keys(): Iterable<number> }>,
  topics: TopicCatalog,
): Buffer {
  const metadata = profile.classic?.protocols[0]?.metadata ?? NO_BYTES;
  const spoken = metadata.length >= 2 ? metadata.readInt16BE(0) : EMBEDDED_VERSION;
  const version = Math.max(0, Math.min(spoken, EMBEDDED_VERSION));
  const assignedPartitions: { topic: string; partitions: number[] }[] = [];
  for (const topic of profile.topicNames) {
    const held = partitions.get(topics.get(topic)?.id ?? '');
    if (held !== undefined) assignedPartitions.push({ topic, partitions: [...held.keys()].sort((a, b) => a - b) });
  }
  const writer = new Writer();
  writer.int16(version);
  writeConsumerProtocolAssignment(writer, { assignedPartitions, userData: null }, version);
  return writer.finish();
}

/** Whether one of `protocols` is common to all of `members`; with no members any will do. */
export function hasCommonProtocol(members: readonly ClassicMembership[], protocols: readonly Protocol[]): boolean {
  return protocols.some(({ name }) =>
    members.every(({ protocols: others }) => others.some((other) => other.name === name)),
  );
}

/** What a classic group looks like from outside. */
export interface ClassicGroup {
  readonly id: string;
  readonly generation: number;
  readonly protocolName: string;
  readonly members: readonly Member[];
}

/**
 * The consumer group that a classic one becomes, as events: everybody keeps what they have, at the group's generation.
 * Undefined if a member does not speak the consumer's embedded protocol.
 */
export function upgradeEvents(classic: ClassicGroup, topics: TopicCatalog): ConsumerGroupEvent[] | undefined {
  const group = classic.id;
  // Nobody has been told of generation 0; a consumer group begins at 1.
  const epoch = Math.max(1, classic.generation);
  const subscriptions = new Subscriptions(group, topics);
  const taken = new Set<string>();
  /** Of these partitions those that exist and that nobody has: a leader may have given one to two members. */
  const take = (named: ReadonlyMap<string, readonly number[]>): HeldPartitions => {
    const held = new Map<string, Map<number, number>>();
    for (const [name, indexes] of named) {
      const topic = topics.get(name);
      for (const index of topic === undefined ? [] : indexes) {
        const key = `${topic?.id} ${index}`;
        if (topic === undefined || index < 0 || index >= topic.partitionCount || taken.has(key)) continue;
        taken.add(key);
        held.set(topic.id, (held.get(topic.id) ?? new Map<number, number>()).set(index, epoch));
      }
    }
    return held;
  };
  const joined: {
    id: string;
    profile: MemberProfile;
    owned: EmbeddedSubscription['owned'];
    assigned: HeldPartitions;
  }[] = [];
  for (const member of classic.members) {
    const chosen = metadataFor(member, classic.protocolName);
    const subscription = readSubscription(chosen.length > 0 ? chosen : (member.protocols[0]?.metadata ?? NO_BYTES));
    const assigned = readAssignment(member.assignment);
    if (subscription === undefined || assigned === undefined) return undefined;
    const profile: MemberProfile = {
      instanceId: member.instanceId,
      rackId: subscription.rackId,
      clientId: member.clientId,
      clientHost: member.clientHost,
      topicNames: [...new Set(subscription.topics)].sort(),
      topicRegex: null,
      rebalanceTimeoutMs: member.rebalanceTimeoutMs,
      assignor: null,
      classic: { sessionTimeoutMs: member.sessionTimeoutMs, protocols: member.protocols },
    };
    subscriptions.add(profile);
    joined.push({ id: member.id, profile, owned: subscription.owned, assigned: take(assigned) });
  }
  const events = joined.flatMap(({ id, profile, owned, assigned }): ConsumerGroupEvent[] => {
    // What a member had when it joined and was not given again it may not have put down yet; it will join without it.
    const revoking = take(owned);
    const state = revoking.size === 0 ? MEMBER_STATES.stable : MEMBER_STATES.unrevoked;
    const target = new Map([...assigned].map(([topicId, partitions]) => [topicId, new Set(partitions.keys())]));
    return [
      { kind: 'consumer member', group, member: id, value: profile },
      { kind: 'consumer member target', group, member: id, value: target },
      {
        kind: 'consumer member progress',
        group,
        member: id,
        value: { epoch, previousEpoch: epoch, state, assigned, revoking },
      },
    ];
  });
  // First, so that a group of which only part survives has its epoch. Time 0: the next target need not wait.
  const value = { epoch, metadataHash: subscriptions.hash() };
  return [
    { kind: 'consumer group', group, value },
    ...events,
    { kind: 'consumer target', group, value: { epoch, timeMs: 0 } },
  ];
}

/** A member of a consumer group that speaks the classic protocol, as a classic group knows it. */
export function classicMember(member: ConsumerMember, target: Partitions, topics: TopicCatalog): Member | undefined {
  const { classic } = member.profile;
  if (classic === null) return undefined;
  return {
    id: member.id,
    instanceId: member.profile.instanceId,
    clientId: member.profile.clientId,
    clientHost: member.profile.clientHost,
    sessionTimeoutMs: classic.sessionTimeoutMs,
    rebalanceTimeoutMs: member.profile.rebalanceTimeoutMs,
    protocols: classic.protocols,
    assignment: assignmentBytes(member, target, topics),
    deadlineMs: Number.POSITIVE_INFINITY,
    isNew: false,
    joins: [],
    syncs: [],
  };
}

/**
 * The classic group of these members, as the log keeps it. Without a leader, which no other group with members is, if
 * they have to share anew: a restart before they have must not take it for one that is at rest.
 */
export function classicValue(
  members: readonly Member[],
  generation: number,
  { wallMs, hasToRebalance }: { wallMs: number; hasToRebalance: boolean },
): GroupMetadataValue {
  const roster = new Roster();
  for (const member of members) roster.add(member);
  const protocol = roster.electProtocol();
  return {
    protocolType: 'consumer',
    generation,
    protocol,
    leader: hasToRebalance ? null : roster.leaderId,
    currentStateTimestamp: wallMs,
    members: roster.stored(protocol, ({ assignment }) => assignment),
  };
}
