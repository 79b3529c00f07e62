/** Kafka's APIs of committed offsets: OffsetCommit, OffsetFetch and OffsetDelete. */
import { type ErrorCode, errors } from '../../protocol/errors.ts';
import type {
  OffsetCommitRequest,
  OffsetCommitResponseInit,
  OffsetDeleteRequest,
  OffsetDeleteResponseInit,
  OffsetFetchRequest,
  OffsetFetchResponseInit,
} from '../../protocol/kafka/messages.ts';
import type { Broker } from '../broker.ts';
import type { CommittedOffset, OffsetToCommit } from '../groups.ts';
import type { Topic } from '../topics.ts';
import type { Call } from './call.ts';

/** From this version on topics go by their ids (KIP-848). */
const BY_ID_VERSION = 10;
/** From this version on members of consumer groups may commit. */
const MEMBER_EPOCH_VERSION = 9;

export function offsetCommit(broker: Broker, call: Call<OffsetCommitRequest, OffsetCommitResponseInit>): void {
  const { request, version } = call;
  const isAllowed = call.allows('READ', 'GROUP', request.groupId);
  const offsets: OffsetToCommit[] = [];
  /** Where the errors of `offsets` go. */
  const slots: { errorCode: number }[] = [];
  const topics = request.topics.map(({ name, topicId, partitions }) => {
    const topic = version >= BY_ID_VERSION ? broker.topics.getById(topicId) : broker.topics.get(name);
    const error = isAllowed
      ? topicError(call, topic, { name, isById: version >= BY_ID_VERSION })
      : 'GROUP_AUTHORIZATION_FAILED';
    return {
      name,
      topicId,
      partitions: partitions.map((partition) => {
        const { partitionIndex } = partition;
        if (error !== 'NONE' || topic === undefined) return { partitionIndex, errorCode: errors[error].kafka };
        if (topic.partitions[partitionIndex] === undefined) {
          return { partitionIndex, errorCode: errors.UNKNOWN_TOPIC_OR_PARTITION.kafka };
        }
        offsets.push({
          topic: topic.name,
          topicId: topic.id,
          partition: partitionIndex,
          offset: partition.committedOffset,
          leaderEpoch: partition.committedLeaderEpoch,
          metadata: partition.committedMetadata ?? '',
        });
        const slot = { partitionIndex, errorCode: 0 };
        slots.push(slot);
        return slot;
      }),
    };
  });
  if (offsets.length === 0) return call.reply({ topics });
  broker.groups.commit(
    {
      groupId: request.groupId,
      generation: request.generationIdOrMemberEpoch,
      memberId: request.memberId,
      instanceId: request.groupInstanceId,
      retentionMs: request.retentionTimeMs,
      isOldVersion: version < MEMBER_EPOCH_VERSION,
      unknownGroupError: version >= MEMBER_EPOCH_VERSION ? 'GROUP_ID_NOT_FOUND' : 'ILLEGAL_GENERATION',
      offsets,
    },
    (results) => {
      results.forEach((error, index) => {
        slots[index].errorCode = errors[error].kafka;
      });
      call.reply({ topics });
    },
  );
}

function topicError(
  call: Call<unknown, unknown>,
  topic: Topic | undefined,
  asked: { name: string; isById: boolean },
): ErrorCode {
  if (asked.isById && topic === undefined) return 'UNKNOWN_TOPIC_ID';
  if (!call.allows('READ', 'TOPIC', topic?.name ?? asked.name)) return 'TOPIC_AUTHORIZATION_FAILED';
  return topic === undefined ? 'UNKNOWN_TOPIC_OR_PARTITION' : 'NONE';
}

interface FetchedPartition {
  partitionIndex: number;
  committedOffset: number;
  committedLeaderEpoch: number;
  metadata: string;
  errorCode: number;
}

interface FetchedTopic {
  name: string;
  topicId?: string;
  partitions: FetchedPartition[];
}

type FetchCall = Call<OffsetFetchRequest, OffsetFetchResponseInit>;

export function offsetFetch(broker: Broker, call: FetchCall): void {
  const { request, version } = call;
  let response: OffsetFetchResponseInit;
  if (version >= 8) {
    const whole = new Set<string>();
    response = {
      groups: request.groups.map((group) => {
        const { groupId, topics } = group;
        // All of a group once is enough; a short request must not ask for an answer of any size.
        if (topics === null && whole.has(groupId)) {
          return { groupId, topics: [], errorCode: errors.INVALID_REQUEST.kafka };
        }
        if (topics === null) whole.add(groupId);
        return { groupId, ...fetchGroup(broker, call, group) };
      }),
    };
  } else {
    const { topics, errorCode } = fetchGroup(broker, call, request);
    // Version 1 has no error of the whole request.
    const refused = (request.topics ?? []).map(({ name, partitionIndexes }) => ({
      name,
      partitions: partitionIndexes.map((index) => fetched(index, undefined, errorCode)),
    }));
    response = { topics: version === 1 && errorCode !== 0 ? refused : topics, errorCode };
  }
  // Whoever reads an offset may act on it: it must not be lost after that.
  broker.groups.whenDurable(() => call.reply(response));
}

interface AskedGroup {
  readonly groupId: string;
  /** From version 9 on: who asks, if a member of a consumer group does. */
  readonly memberId?: string | null;
  readonly memberEpoch?: number;
  /** Null: all that there are. */
  readonly topics:
    | readonly { readonly name: string; readonly topicId?: string; readonly partitionIndexes: readonly number[] }[]
    | null;
}

function fetchGroup(
  broker: Broker,
  call: FetchCall,
  { groupId, topics, memberId = null, memberEpoch = -1 }: AskedGroup,
): { topics: FetchedTopic[]; errorCode: number } {
  if (!call.allows('DESCRIBE', 'GROUP', groupId)) {
    return { topics: [], errorCode: errors.GROUP_AUTHORIZATION_FAILED.kafka };
  }
  const group = broker.groups.get(groupId);
  const refusal = group?.type === 'consumer' ? group.fetchRefusal(memberId, memberEpoch) : undefined;
  if (refusal !== undefined) return { topics: [], errorCode: errors[refusal].kafka };
  if (topics === null) return { topics: fetchAll(broker, call, groupId), errorCode: 0 };
  const isById = call.version >= BY_ID_VERSION;
  const found = topics.map(({ name: askedName, topicId, partitionIndexes }): FetchedTopic => {
    const name = isById && topicId !== undefined ? broker.topics.getById(topicId)?.name : askedName;
    let errorCode = 0;
    if (name === undefined) errorCode = errors.UNKNOWN_TOPIC_ID.kafka;
    else if (!call.allows('DESCRIBE', 'TOPIC', name)) errorCode = errors.TOPIC_AUTHORIZATION_FAILED.kafka;
    return {
      name: askedName,
      ...(topicId === undefined ? {} : { topicId }),
      partitions: partitionIndexes.map((index) => {
        if (name === undefined || errorCode !== 0) return fetched(index, undefined, errorCode);
        return fetched(index, broker.groups.offset(groupId, name, index), 0);
      }),
    };
  });
  return { topics: found, errorCode: 0 };
}

function fetchAll(broker: Broker, call: FetchCall, groupId: string): FetchedTopic[] {
  const all: FetchedTopic[] = [];
  for (const [name, partitions] of broker.groups.get(groupId)?.offsets.topics() ?? []) {
    const topic = broker.topics.get(name);
    if (topic === undefined || !call.allows('DESCRIBE', 'TOPIC', name)) continue;
    const topicId = call.version >= BY_ID_VERSION ? { topicId: topic.id } : {};
    all.push({
      name,
      ...topicId,
      partitions: [...partitions].map(([index, committed]) => fetched(index, committed, 0)),
    });
  }
  return all;
}

function fetched(partitionIndex: number, committed: CommittedOffset | undefined, errorCode: number): FetchedPartition {
  return {
    partitionIndex,
    committedOffset: committed?.offset ?? -1,
    committedLeaderEpoch: committed?.leaderEpoch ?? -1,
    metadata: committed?.metadata ?? '',
    errorCode,
  };
}

export function offsetDelete(broker: Broker, call: Call<OffsetDeleteRequest, OffsetDeleteResponseInit>): void {
  const { groupId, topics: asked } = call.request;
  if (!call.allows('DELETE', 'GROUP', groupId)) {
    return call.reply({ errorCode: errors.GROUP_AUTHORIZATION_FAILED.kafka, topics: [] });
  }
  const targets: { topic: string; partition: number }[] = [];
  const slots: { errorCode: number }[] = [];
  const topics = asked.map(({ name, partitions }) => {
    const topic = broker.topics.get(name);
    const error = topicError(call, topic, { name, isById: false });
    return {
      name,
      partitions: partitions.map(({ partitionIndex }) => {
        if (error !== 'NONE') return { partitionIndex, errorCode: errors[error].kafka };
        if (topic?.partitions[partitionIndex] === undefined) {
          return { partitionIndex, errorCode: errors.UNKNOWN_TOPIC_OR_PARTITION.kafka };
        }
        targets.push({ topic: name, partition: partitionIndex });
        const slot = { partitionIndex, errorCode: 0 };
        slots.push(slot);
        return slot;
      }),
    };
  });
  const result = broker.groups.deleteOffsets(groupId, targets);
  if (typeof result === 'string') return call.reply({ errorCode: errors[result].kafka, topics: [] });
  result.forEach((error, index) => {
    slots[index].errorCode = errors[error].kafka;
  });
  broker.groups.whenDurable(() => call.reply({ errorCode: 0, topics }));
}
