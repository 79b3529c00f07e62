/**
 * What the group coordinator decides, as records of `__consumer_offsets` in Apache Kafka's own layout, so that Kafka's
 * tools read them:
 *
 *   key    int16 1 · group, topic, partition   value  OffsetCommitValue 4, or 1 if the commit set its own expiry
 *   key    int16 2 · group                     value  GroupMetadataValue 3
 *
 * A value starts with its version (int16); no value at all means "gone". What consumer groups store is in
 * consumer-group-records.ts, what share groups store in share-group-records.ts; keys of other kinds belong to later versions of the broker and are skipped.
 */
import { asBuffer, Reader, Writer } from '../protocol/bytes.ts';
import { ZERO_UUID } from '../protocol/kafka/fields.ts';
import {
  type GroupMetadataValue,
  readConsumerProtocolSubscription,
  readGroupMetadataKey,
  readGroupMetadataValue,
  readOffsetCommitKey,
  readOffsetCommitValue,
  writeGroupMetadataKey,
  writeGroupMetadataValue,
  writeOffsetCommitKey,
  writeOffsetCommitValue,
} from '../protocol/kafka/messages.ts';
import type { DecodedRecord, RecordInit } from '../protocol/record-batch.ts';
import {
  type ConsumerGroupEvent,
  consumerGroupEventBytes,
  decodeConsumerGroupEvent,
  encodeConsumerGroupEvent,
  isConsumerGroupEvent,
} from './consumer-group-records.ts';
import {
  decodeShareGroupEvent,
  encodeShareGroupEvent,
  isShareGroupEvent,
  type ShareGroupEvent,
  shareGroupEventBytes,
} from './share-group-records.ts';

export interface CommittedOffset {
  readonly offset: number;
  /** −1: not known. */
  readonly leaderEpoch: number;
  readonly metadata: string;
  /** Wall clock of the commit. */
  readonly commitTimeMs: number;
  /** Set by clients before OffsetCommit 5 (`retention_time_ms`); −1: the broker's retention applies. */
  readonly expireTimeMs: number;
  /** The zero UUID if not known. */
  readonly topicId: string;
}

export type GroupEvent =
  | {
      readonly kind: 'offset';
      readonly group: string;
      readonly topic: string;
      readonly partition: number;
      readonly committed: CommittedOffset;
    }
  | { readonly kind: 'offset gone'; readonly group: string; readonly topic: string; readonly partition: number }
  /** The whole of the group's durable state; what a restarted broker carries on with. */
  | { readonly kind: 'group'; readonly group: string; readonly value: GroupMetadataValue }
  | { readonly kind: 'group gone'; readonly group: string }
  | ConsumerGroupEvent
  | ShareGroupEvent;

const OFFSET_KEYS_MAX = 1;
const GROUP_KEY = 2;
const GROUP_VALUE = 3;
const OFFSET_VALUE = 4;
const OFFSET_VALUE_WITH_EXPIRY = 1;

export function encodeGroupEvent(event: GroupEvent, nowMs: number): RecordInit {
  if (isConsumerGroupEvent(event)) return { ...encodeConsumerGroupEvent(event), timestamp: nowMs };
  if (isShareGroupEvent(event)) return { ...encodeShareGroupEvent(event), timestamp: nowMs };
  const key = new Writer();
  let value: Buffer | null = null;
  if (event.kind === 'group' || event.kind === 'group gone') {
    key.int16(GROUP_KEY);
    writeGroupMetadataKey(key, { group: event.group }, 0);
    if (event.kind === 'group') value = groupValueBytes(event.value);
  } else {
    key.int16(OFFSET_KEYS_MAX);
    writeOffsetCommitKey(key, event, 0);
    if (event.kind === 'offset') value = offsetValueBytes(event.committed);
  }
  return { key: key.finish(), value, timestamp: nowMs };
}

function groupValueBytes(value: GroupMetadataValue): Buffer {
  const writer = new Writer();
  writer.int16(GROUP_VALUE);
  writeGroupMetadataValue(writer, value, GROUP_VALUE);
  return writer.finish();
}

function offsetValueBytes(committed: CommittedOffset): Buffer {
  const version = committed.expireTimeMs >= 0 ? OFFSET_VALUE_WITH_EXPIRY : OFFSET_VALUE;
  const writer = new Writer();
  writer.int16(version);
  writeOffsetCommitValue(
    writer,
    {
      offset: committed.offset,
      leaderEpoch: version === OFFSET_VALUE ? committed.leaderEpoch : -1,
      metadata: committed.metadata,
      commitTimestamp: committed.commitTimeMs,
      expireTimestamp: committed.expireTimeMs,
      topicId: version === OFFSET_VALUE ? committed.topicId : ZERO_UUID,
    },
    version,
  );
  return writer.finish();
}

export function decodeGroupEvent(record: DecodedRecord): GroupEvent | undefined {
  if (record.key === null) return undefined;
  const key = new Reader(record.key);
  const kind = key.int16();
  if (kind >= 0 && kind <= OFFSET_KEYS_MAX) {
    const { group, topic, partition } = readOffsetCommitKey(key, 0);
    if (record.value === null) return { kind: 'offset gone', group, topic, partition };
    return { kind: 'offset', group, topic, partition, committed: readCommitted(new Reader(record.value)) };
  }
  if (kind !== GROUP_KEY) {
    const value = record.value === null ? undefined : new Reader(record.value);
    const version = value?.int16() ?? 0;
    return decodeConsumerGroupEvent(kind, key, value, version) ?? decodeShareGroupEvent(kind, key, value, version);
  }
  const { group } = readGroupMetadataKey(key, 0);
  if (record.value === null) return { kind: 'group gone', group };
  const reader = new Reader(record.value);
  const value = readGroupMetadataValue(reader, reader.int16());
  return { kind: 'group', group, value: { ...value, members: value.members.map(ownBytes) } };
}

function readCommitted(reader: Reader): CommittedOffset {
  const value = readOffsetCommitValue(reader, reader.int16());
  return {
    offset: value.offset,
    leaderEpoch: value.leaderEpoch,
    metadata: value.metadata,
    commitTimeMs: value.commitTimestamp,
    expireTimeMs: value.expireTimestamp,
    topicId: value.topicId,
  };
}

type StoredMember = GroupMetadataValue['members'][number];

// Copy: what was read is a view of a whole batch, which must not live as long as the member.
function ownBytes(member: StoredMember): StoredMember {
  return { ...member, subscription: Buffer.from(member.subscription), assignment: Buffer.from(member.assignment) };
}

/** About how many bytes the event takes in a batch; never less than it does. */
export function groupEventBytes(event: GroupEvent): number {
  const overheadBytes = 128 + Buffer.byteLength(event.group);
  switch (event.kind) {
    case 'group':
      return overheadBytes + groupValueSizeBytes(event.value);
    case 'group gone':
      return overheadBytes;
    case 'offset':
      return overheadBytes + Buffer.byteLength(event.topic) + Buffer.byteLength(event.committed.metadata);
    case 'offset gone':
      return overheadBytes + Buffer.byteLength(event.topic);
    default:
      return overheadBytes + (isShareGroupEvent(event) ? shareGroupEventBytes(event) : consumerGroupEventBytes(event));
  }
}

function groupValueSizeBytes(value: GroupMetadataValue): number {
  let sizeBytes = Buffer.byteLength(value.protocolType) + textBytes(value.protocol) + textBytes(value.leader);
  for (const member of value.members) {
    sizeBytes += 32 + Buffer.byteLength(member.memberId) + textBytes(member.groupInstanceId);
    sizeBytes += Buffer.byteLength(member.clientId) + Buffer.byteLength(member.clientHost);
    sizeBytes += member.subscription.length + member.assignment.length;
  }
  return sizeBytes;
}

function textBytes(text: string | null): number {
  return text === null ? 0 : Buffer.byteLength(text);
}

/** The topics that a member of protocol type `consumer` subscribes to; undefined if the bytes are not a subscription. */
export function subscribedTopics(metadata: Uint8Array): readonly string[] | undefined {
  try {
    const reader = new Reader(asBuffer(metadata));
    const version = reader.int16();
    if (version < 0) return undefined;
    // Newer versions only add fields at the end.
    return readConsumerProtocolSubscription(reader, Math.min(version, 3)).topics;
  } catch {
    // Anything may stand there: members agree on the format among themselves.
    return undefined;
  }
}
