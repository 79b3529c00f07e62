/**
 * What a share group decides (KIP-932), as records of `__consumer_offsets` in Apache Kafka's own layout:
 *
 *   key    int16 10 · group, member    value  ShareGroupMemberMetadataValue 0: what the member says about itself
 *   key    int16 11 · group            value  ShareGroupMetadataValue 0: the group epoch
 *   key    int16 12 · group            value  ShareGroupTargetAssignmentMetadataValue 0: the epoch of the target
 *   key    int16 13 · group, member    value  ShareGroupTargetAssignmentMemberValue 0: what it should have
 *   key    int16 14 · group, member    value  ShareGroupCurrentMemberAssignmentValue 0: what it has
 *
 * A value starts with its version (int16); no value at all means "gone". Key 15, which partitions have a state, is not
 * written: the log of queues knows.
 */
import { type Reader, Writer } from '../protocol/bytes.ts';
import {
  readShareGroupCurrentMemberAssignmentKey,
  readShareGroupCurrentMemberAssignmentValue,
  readShareGroupMemberMetadataKey,
  readShareGroupMemberMetadataValue,
  readShareGroupMetadataKey,
  readShareGroupMetadataValue,
  readShareGroupTargetAssignmentMemberKey,
  readShareGroupTargetAssignmentMemberValue,
  readShareGroupTargetAssignmentMetadataKey,
  readShareGroupTargetAssignmentMetadataValue,
  writeShareGroupCurrentMemberAssignmentKey,
  writeShareGroupCurrentMemberAssignmentValue,
  writeShareGroupMemberMetadataKey,
  writeShareGroupMemberMetadataValue,
  writeShareGroupMetadataKey,
  writeShareGroupMetadataValue,
  writeShareGroupTargetAssignmentMemberKey,
  writeShareGroupTargetAssignmentMemberValue,
  writeShareGroupTargetAssignmentMetadataKey,
  writeShareGroupTargetAssignmentMetadataValue,
} from '../protocol/kafka/messages.ts';
import type { Partitions } from './consumer-assignors.ts';

/** What a member says about itself. */
export interface ShareProfile {
  readonly rackId: string | null;
  readonly clientId: string;
  readonly clientHost: string;
  /** Sorted. */
  readonly topicNames: readonly string[];
}

export interface ShareProgress {
  readonly epoch: number;
  readonly previousEpoch: number;
  readonly assigned: Partitions;
}

/** A value of null: gone. */
export type ShareGroupEvent =
  | {
      readonly kind: 'share group';
      readonly group: string;
      readonly value: { readonly epoch: number; readonly metadataHash: number } | null;
    }
  | {
      readonly kind: 'share member';
      readonly group: string;
      readonly member: string;
      readonly value: ShareProfile | null;
    }
  | {
      readonly kind: 'share target';
      readonly group: string;
      readonly value: { readonly epoch: number; readonly timeMs: number } | null;
    }
  | {
      readonly kind: 'share member target';
      readonly group: string;
      readonly member: string;
      readonly value: Partitions | null;
    }
  | {
      readonly kind: 'share member progress';
      readonly group: string;
      readonly member: string;
      readonly value: ShareProgress | null;
    };

const KEYS = {
  'share member': 10,
  'share group': 11,
  'share target': 12,
  'share member target': 13,
  'share member progress': 14,
} as const;
const VALUE_VERSION = 0;
/** The only state that a member of a share group is ever in: it gives nothing up step by step. */
const STABLE = 0;

export function isShareGroupEvent(event: { readonly kind: string }): event is ShareGroupEvent {
  return Object.hasOwn(KEYS, event.kind);
}

export function encodeShareGroupEvent(event: ShareGroupEvent): { key: Buffer; value: Buffer | null } {
  const key = new Writer();
  key.int16(KEYS[event.kind]);
  const value = new Writer();
  value.int16(VALUE_VERSION);
  switch (event.kind) {
    case 'share group':
      writeShareGroupMetadataKey(key, { groupId: event.group }, 0);
      if (event.value !== null) writeShareGroupMetadataValue(value, event.value, VALUE_VERSION);
      break;
    case 'share member':
      writeShareGroupMemberMetadataKey(key, { groupId: event.group, memberId: event.member }, 0);
      if (event.value !== null) {
        const { topicNames, ...rest } = event.value;
        writeShareGroupMemberMetadataValue(value, { ...rest, subscribedTopicNames: topicNames }, VALUE_VERSION);
      }
      break;
    case 'share target':
      writeShareGroupTargetAssignmentMetadataKey(key, { groupId: event.group }, 0);
      if (event.value !== null) {
        const stored = { assignmentEpoch: event.value.epoch, assignmentTimestamp: event.value.timeMs };
        writeShareGroupTargetAssignmentMetadataValue(value, stored, VALUE_VERSION);
      }
      break;
    case 'share member target':
      writeShareGroupTargetAssignmentMemberKey(key, { groupId: event.group, memberId: event.member }, 0);
      if (event.value !== null) {
        writeShareGroupTargetAssignmentMemberValue(value, { topicPartitions: stored(event.value) }, VALUE_VERSION);
      }
      break;
    case 'share member progress':
      writeShareGroupCurrentMemberAssignmentKey(key, { groupId: event.group, memberId: event.member }, 0);
      if (event.value !== null) {
        const { epoch, previousEpoch, assigned } = event.value;
        const progress = { memberEpoch: epoch, previousMemberEpoch: previousEpoch, state: STABLE };
        const assignedPartitions = stored(assigned);
        writeShareGroupCurrentMemberAssignmentValue(value, { ...progress, assignedPartitions }, VALUE_VERSION);
      }
      break;
  }
  return { key: key.finish(), value: event.value === null ? null : value.finish() };
}

function stored(partitions: Partitions): { topicId: string; partitions: number[] }[] {
  return [...partitions].map(([topicId, indexes]) => ({ topicId, partitions: [...indexes] }));
}

function partitionsOf(topics: readonly { topicId: string; partitions: readonly number[] }[]): Partitions {
  return new Map(topics.map(({ topicId, partitions }) => [topicId, new Set(partitions)]));
}

/** `key` stands after its kind, `value` after its version (undefined: gone). Undefined for a record of another kind. */
export function decodeShareGroupEvent(
  kind: number,
  key: Reader,
  value: Reader | undefined,
  version: number,
): ShareGroupEvent | undefined {
  switch (kind) {
    case KEYS['share group']: {
      const group = readShareGroupMetadataKey(key, 0).groupId;
      const read = value === undefined ? null : readShareGroupMetadataValue(value, version);
      return { kind: 'share group', group, value: read };
    }
    case KEYS['share member']: {
      const { groupId, memberId } = readShareGroupMemberMetadataKey(key, 0);
      const read = value === undefined ? null : readShareGroupMemberMetadataValue(value, version);
      return { kind: 'share member', group: groupId, member: memberId, value: read && profileOf(read) };
    }
    case KEYS['share target']: {
      const group = readShareGroupTargetAssignmentMetadataKey(key, 0).groupId;
      const read = value === undefined ? null : readShareGroupTargetAssignmentMetadataValue(value, version);
      const target = read && { epoch: read.assignmentEpoch, timeMs: read.assignmentTimestamp };
      return { kind: 'share target', group, value: target };
    }
    case KEYS['share member target']: {
      const { groupId, memberId } = readShareGroupTargetAssignmentMemberKey(key, 0);
      const read = value === undefined ? null : readShareGroupTargetAssignmentMemberValue(value, version);
      const target = read && partitionsOf(read.topicPartitions);
      return { kind: 'share member target', group: groupId, member: memberId, value: target };
    }
    case KEYS['share member progress']: {
      const { groupId, memberId } = readShareGroupCurrentMemberAssignmentKey(key, 0);
      const read = value === undefined ? null : readShareGroupCurrentMemberAssignmentValue(value, version);
      const progress = read && {
        epoch: read.memberEpoch,
        previousEpoch: read.previousMemberEpoch,
        assigned: partitionsOf(read.assignedPartitions),
      };
      return { kind: 'share member progress', group: groupId, member: memberId, value: progress };
    }
    default:
      return undefined;
  }
}

function profileOf(read: {
  rackId: string | null;
  clientId: string;
  clientHost: string;
  subscribedTopicNames: string[];
}): ShareProfile {
  const { rackId, clientId, clientHost, subscribedTopicNames } = read;
  return { rackId, clientId, clientHost, topicNames: subscribedTopicNames };
}

/** About how many bytes the event takes besides the group's name; never less than it does. */
export function shareGroupEventBytes(event: ShareGroupEvent): number {
  switch (event.kind) {
    case 'share group':
    case 'share target':
      return 32;
    case 'share member':
      return Buffer.byteLength(event.member) + (event.value === null ? 0 : shareProfileBytes(event.value));
    case 'share member target':
      return Buffer.byteLength(event.member) + partitionsBytes(event.value);
    case 'share member progress':
      return 64 + Buffer.byteLength(event.member) + partitionsBytes(event.value?.assigned ?? null);
  }
}

export function shareProfileBytes({ rackId, clientId, clientHost, topicNames }: ShareProfile): number {
  let sizeBytes = 64;
  for (const text of [rackId ?? '', clientId, clientHost, ...topicNames]) sizeBytes += 5 + Buffer.byteLength(text);
  return sizeBytes;
}

function partitionsBytes(partitions: Partitions | null): number {
  let sizeBytes = 0;
  for (const { size } of partitions?.values() ?? []) sizeBytes += 40 + 8 * size;
  return sizeBytes;
}
