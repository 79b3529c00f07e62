/**
 * What a consumer group decides (KIP-848), as records of `__consumer_offsets` in Apache Kafka's own layout:
 *
 *   key    int16 3 · group             value  ConsumerGroupMetadataValue 0: the group epoch
 *   key    int16 5 · group, member     value  ConsumerGroupMemberMetadataValue 0: what the member says about itself
 *   key    int16 6 · group             value  ConsumerGroupTargetAssignmentMetadataValue 0: the epoch of the target
 *   key    int16 7 · group, member     value  ConsumerGroupTargetAssignmentMemberValue 0: what it should have
 *   key    int16 8 · group, member     value  ConsumerGroupCurrentMemberAssignmentValue 0: what it has
 *   key    int16 16 · group, regex     value  ConsumerGroupRegularExpressionValue 0: the topics that match
 *
 * A value starts with its version (int16); no value at all means "gone". Key 4 is Kafka 4.0's and is skipped.
 */
import { type Reader, Writer } from '../protocol/bytes.ts';
import {
  readConsumerGroupCurrentMemberAssignmentKey,
  readConsumerGroupCurrentMemberAssignmentValue,
  readConsumerGroupMemberMetadataKey,
  readConsumerGroupMemberMetadataValue,
  readConsumerGroupMetadataKey,
  readConsumerGroupMetadataValue,
  readConsumerGroupRegularExpressionKey,
  readConsumerGroupRegularExpressionValue,
  readConsumerGroupTargetAssignmentMemberKey,
  readConsumerGroupTargetAssignmentMemberValue,
  readConsumerGroupTargetAssignmentMetadataKey,
  readConsumerGroupTargetAssignmentMetadataValue,
  writeConsumerGroupCurrentMemberAssignmentKey,
  writeConsumerGroupCurrentMemberAssignmentValue,
  writeConsumerGroupMemberMetadataKey,
  writeConsumerGroupMemberMetadataValue,
  writeConsumerGroupMetadataKey,
  writeConsumerGroupMetadataValue,
  writeConsumerGroupRegularExpressionKey,
  writeConsumerGroupRegularExpressionValue,
  writeConsumerGroupTargetAssignmentMemberKey,
  writeConsumerGroupTargetAssignmentMemberValue,
  writeConsumerGroupTargetAssignmentMetadataKey,
  writeConsumerGroupTargetAssignmentMetadataValue,
} from '../protocol/kafka/messages.ts';
import type { Partitions } from './consumer-assignors.ts';
import { ownProtocols, protocolsBytes } from './group-member.ts';
import { type HeldPartitions, MEMBER_STATES, type MemberProfile, type MemberProgress } from './consumer-member.ts';

export interface ResolvedRegex {
  /** Names that matched, sorted. */
  readonly topics: readonly string[];
  readonly version: number;
  /** Wall clock. */
  readonly timeMs: number;
}

/** A value of null: gone. */
export type ConsumerGroupEvent =
  | {
      readonly kind: 'consumer group';
      readonly group: string;
      readonly value: { readonly epoch: number; readonly metadataHash: number } | null;
    }
  | {
      readonly kind: 'consumer member';
      readonly group: string;
      readonly member: string;
      readonly value: MemberProfile | null;
    }
  | {
      readonly kind: 'consumer target';
      readonly group: string;
      readonly value: { readonly epoch: number; readonly timeMs: number } | null;
    }
  | {
      readonly kind: 'consumer member target';
      readonly group: string;
      readonly member: string;
      readonly value: Partitions | null;
    }
  | {
      readonly kind: 'consumer member progress';
      readonly group: string;
      readonly member: string;
      readonly value: MemberProgress | null;
    }
  | {
      readonly kind: 'consumer regex';
      readonly group: string;
      readonly regex: string;
      readonly value: ResolvedRegex | null;
    };

const KEYS = {
  'consumer group': 3,
  'consumer member': 5,
  'consumer target': 6,
  'consumer member target': 7,
  'consumer member progress': 8,
  'consumer regex': 16,
} as const;
const VALUE_VERSION = 0;

export function isConsumerGroupEvent(event: { readonly kind: string }): event is ConsumerGroupEvent {
  return Object.hasOwn(KEYS, event.kind);
}

export function encodeConsumerGroupEvent(event: ConsumerGroupEvent): { key: Buffer; value: Buffer | null } {
  const key = new Writer();
  key.int16(KEYS[event.kind]);
  const value = new Writer();
  value.int16(VALUE_VERSION);
  switch (event.kind) {
    case 'consumer group':
      writeConsumerGroupMetadataKey(key, { groupId: event.group }, 0);
      if (event.value !== null) writeConsumerGroupMetadataValue(value, event.value, VALUE_VERSION);
      break;
    case 'consumer member':
      writeConsumerGroupMemberMetadataKey(key, { groupId: event.group, memberId: event.member }, 0);
      if (event.value !== null) writeProfile(value, event.value);
      break;
    case 'consumer target':
      writeConsumerGroupTargetAssignmentMetadataKey(key, { groupId: event.group }, 0);
      if (event.value !== null) {
        const { epoch, timeMs } = event.value;
        const stored = { assignmentEpoch: epoch, assignmentTimestamp: timeMs };
        writeConsumerGroupTargetAssignmentMetadataValue(value, stored, VALUE_VERSION);
      }
      break;
    case 'consumer member target':
      writeConsumerGroupTargetAssignmentMemberKey(key, { groupId: event.group, memberId: event.member }, 0);
      if (event.value !== null) {
        const topicPartitions = [...event.value].map(([topicId, indexes]) => ({ topicId, partitions: [...indexes] }));
        writeConsumerGroupTargetAssignmentMemberValue(value, { topicPartitions }, VALUE_VERSION);
      }
      break;
    case 'consumer member progress':
      writeConsumerGroupCurrentMemberAssignmentKey(key, { groupId: event.group, memberId: event.member }, 0);
      if (event.value !== null) writeProgress(value, event.value);
      break;
    case 'consumer regex':
      writeConsumerGroupRegularExpressionKey(key, { groupId: event.group, regularExpression: event.regex }, 0);
      if (event.value !== null) {
        const { topics, version, timeMs } = event.value;
        writeConsumerGroupRegularExpressionValue(value, { topics, version, timestamp: timeMs }, VALUE_VERSION);
      }
      break;
  }
  return { key: key.finish(), value: event.value === null ? null : value.finish() };
}

function writeProfile(writer: Writer, profile: MemberProfile): void {
  writeConsumerGroupMemberMetadataValue(
    writer,
    {
      instanceId: profile.instanceId,
      rackId: profile.rackId,
      clientId: profile.clientId,
      clientHost: profile.clientHost,
      subscribedTopicNames: profile.topicNames,
      subscribedTopicRegex: profile.topicRegex,
      rebalanceTimeoutMs: profile.rebalanceTimeoutMs,
      serverAssignor: profile.assignor,
      classicMemberMetadata: profile.classic && {
        sessionTimeoutMs: profile.classic.sessionTimeoutMs,
        supportedProtocols: profile.classic.protocols,
      },
    },
    VALUE_VERSION,
  );
}

function writeProgress(writer: Writer, progress: MemberProgress): void {
  const stored = (held: HeldPartitions): { topicId: string; partitions: number[]; assignmentEpochs: number[] }[] =>
    [...held].map(([topicId, partitions]) => ({
      topicId,
      partitions: [...partitions.keys()],
      assignmentEpochs: [...partitions.values()],
    }));
  writeConsumerGroupCurrentMemberAssignmentValue(
    writer,
    {
      memberEpoch: progress.epoch,
      previousMemberEpoch: progress.previousEpoch,
      state: progress.state,
      assignedPartitions: stored(progress.assigned),
      partitionsPendingRevocation: stored(progress.revoking),
    },
    VALUE_VERSION,
  );
}

/** `key` stands after its kind, `value` after its version (undefined: gone). Undefined for a record of another kind. */
export function decodeConsumerGroupEvent(
  kind: number,
  key: Reader,
  value: Reader | undefined,
  version: number,
): ConsumerGroupEvent | undefined {
  switch (kind) {
    case KEYS['consumer group']: {
      const group = readConsumerGroupMetadataKey(key, 0).groupId;
      const stored = value === undefined ? null : readConsumerGroupMetadataValue(value, version);
      return { kind: 'consumer group', group, value: stored };
    }
    case KEYS['consumer member']: {
      const { groupId, memberId } = readConsumerGroupMemberMetadataKey(key, 0);
      return { kind: 'consumer member', group: groupId, member: memberId, value: readProfile(value, version) };
    }
    case KEYS['consumer target']: {
      const group = readConsumerGroupTargetAssignmentMetadataKey(key, 0).groupId;
      if (value === undefined) return { kind: 'consumer target', group, value: null };
      const stored = readConsumerGroupTargetAssignmentMetadataValue(value, version);
      const target = { epoch: stored.assignmentEpoch, timeMs: stored.assignmentTimestamp };
      return { kind: 'consumer target', group, value: target };
    }
    case KEYS['consumer member target']: {
      const { groupId, memberId } = readConsumerGroupTargetAssignmentMemberKey(key, 0);
      const stored = value === undefined ? null : readConsumerGroupTargetAssignmentMemberValue(value, version);
      const target =
        stored && new Map(stored.topicPartitions.map(({ topicId, partitions }) => [topicId, new Set(partitions)]));
      return { kind: 'consumer member target', group: groupId, member: memberId, value: target };
    }
    case KEYS['consumer member progress']: {
      const { groupId, memberId } = readConsumerGroupCurrentMemberAssignmentKey(key, 0);
      return {
        kind: 'consumer member progress',
        group: groupId,
        member: memberId,
        value: readProgress(value, version),
      };
    }
    case KEYS['consumer regex']: {
      const { groupId, regularExpression } = readConsumerGroupRegularExpressionKey(key, 0);
      const stored = value === undefined ? null : readConsumerGroupRegularExpressionValue(value, version);
      const resolved = stored && { topics: stored.topics, version: stored.version, timeMs: stored.timestamp };
      return { kind: 'consumer regex', group: groupId, regex: regularExpression, value: resolved };
    }
    default:
      return undefined;
  }
}

function readProfile(reader: Reader | undefined, version: number): MemberProfile | null {
  if (reader === undefined) return null;
  const stored = readConsumerGroupMemberMetadataValue(reader, version);
  return {
    instanceId: stored.instanceId,
    rackId: stored.rackId,
    clientId: stored.clientId,
    clientHost: stored.clientHost,
    topicNames: stored.subscribedTopicNames,
    topicRegex: stored.subscribedTopicRegex,
    rebalanceTimeoutMs: stored.rebalanceTimeoutMs,
    assignor: stored.serverAssignor,
    classic: stored.classicMemberMetadata && {
      sessionTimeoutMs: stored.classicMemberMetadata.sessionTimeoutMs,
      protocols: ownProtocols(stored.classicMemberMetadata.supportedProtocols),
    },
  };
}

function readProgress(reader: Reader | undefined, version: number): MemberProgress | null {
  if (reader === undefined) return null;
  const stored = readConsumerGroupCurrentMemberAssignmentValue(reader, version);
  const held = (
    topics: readonly { topicId: string; partitions: number[]; assignmentEpochs: number[] | null }[],
  ): HeldPartitions =>
    new Map(
      topics.map(({ topicId, partitions, assignmentEpochs }) => [
        topicId,
        // Before Kafka 4.3 epochs were not kept: whoever is at the member's epoch may commit.
        new Map(partitions.map((partition, index) => [partition, assignmentEpochs?.[index] ?? stored.memberEpoch])),
      ]),
    );
  const state = Object.values(MEMBER_STATES).find((one) => one === stored.state);
  return {
    epoch: stored.memberEpoch,
    previousEpoch: stored.previousMemberEpoch,
    state: state ?? MEMBER_STATES.stable,
    assigned: held(stored.assignedPartitions),
    revoking: held(stored.partitionsPendingRevocation),
  };
}

/** About how many bytes the event takes besides the group's name; never less than it does. */
export function consumerGroupEventBytes(event: ConsumerGroupEvent): number {
  switch (event.kind) {
    case 'consumer group':
    case 'consumer target':
      return 32;
    case 'consumer member': {
      const memberBytes = Buffer.byteLength(event.member);
      return memberBytes + (event.value === null ? 0 : profileBytes(event.value));
    }
    case 'consumer member target':
      return Buffer.byteLength(event.member) + partitionsBytes(event.value);
    case 'consumer member progress': {
      const { value } = event;
      const heldBytes = value === null ? 0 : 64 + partitionsBytes(value.assigned) + partitionsBytes(value.revoking);
      return Buffer.byteLength(event.member) + heldBytes;
    }
    case 'consumer regex': {
      const textBytes = 32 + Buffer.byteLength(event.regex);
      return textBytes + namesBytes(event.value?.topics ?? []);
    }
  }
}

export function profileBytes(profile: MemberProfile): number {
  const texts = [profile.instanceId, profile.rackId, profile.clientId, profile.clientHost, profile.topicRegex];
  const classicBytes = profile.classic === null ? 0 : 16 + protocolsBytes(profile.classic.protocols);
  return (
    64 +
    classicBytes +
    namesBytes(profile.topicNames) +
    namesBytes([...texts, profile.assignor].map((text) => text ?? ''))
  );
}

function namesBytes(names: readonly string[]): number {
  let sizeBytes = 0;
  for (const name of names) sizeBytes += 5 + Buffer.byteLength(name);
  return sizeBytes;
}

function partitionsBytes(partitions: ReadonlyMap<string, { readonly size: number }> | null): number {
  let sizeBytes = 0;
  for (const { size } of partitions?.values() ?? []) sizeBytes += 40 + 8 * size;
  return sizeBytes;
}
