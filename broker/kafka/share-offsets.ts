/**
 * Where share groups are on their partitions (KIP-932): DescribeShareGroupOffsets, AlterShareGroupOffsets and
 * DeleteShareGroupOffsets. The start offset of a partition is that of its queue's state.
 */
import { errors, MillraceError } from '../../protocol/errors.ts';
import { ZERO_UUID } from '../../protocol/kafka/fields.ts';
import type {
  AlterShareGroupOffsetsRequest,
  AlterShareGroupOffsetsResponseInit,
  DeleteShareGroupOffsetsRequest,
  DeleteShareGroupOffsetsResponseInit,
  DescribeShareGroupOffsetsRequest,
  DescribeShareGroupOffsetsResponseInit,
} from '../../protocol/kafka/messages.ts';
import type { Broker } from '../broker.ts';
import type { Call } from './call.ts';
import { queueCommand } from './queue-command.ts';
import { failureOf } from './failure.ts';

const NO_FAILURE = { errorCode: 0, errorMessage: null };
/** Of a partition that the group never took from. */
const UNKNOWN = { startOffset: -1, leaderEpoch: 0, lag: -1, ...NO_FAILURE };

type DescribeCall = Call<DescribeShareGroupOffsetsRequest, DescribeShareGroupOffsetsResponseInit>;
type DescribedGroup = DescribeShareGroupOffsetsResponseInit['groups'][number];
type DescribedTopic = DescribedGroup['topics'][number];
type AskedTopics = DescribeShareGroupOffsetsRequest['groups'][number]['topics'];

export function describeShareGroupOffsets(broker: Broker, call: DescribeCall): void {
  const described = new Set<string>();
  const groups = call.request.groups.map(({ groupId, topics }): DescribedGroup => {
    try {
      // Once is enough; a short request must not ask for an answer of any size.
      if (described.has(groupId)) throw new MillraceError('INVALID_REQUEST', 'The group is named twice.');
      described.add(groupId);
      if (!call.allows('DESCRIBE', 'GROUP', groupId)) throw new MillraceError('GROUP_AUTHORIZATION_FAILED');
      return { groupId, topics: describeTopics(broker, call, groupId, topics), ...NO_FAILURE };
    } catch (error) {
      return { groupId, topics: [], ...failureOf(error) };
    }
  });
  broker.queues.whenDurable(() => call.reply({ throttleTimeMs: 0, groups }));
}

function describeTopics(broker: Broker, call: DescribeCall, groupId: string, asked: AskedTopics): DescribedTopic[] {
  if (asked === null) {
    const names = namesOf(broker, groupId).filter((name) => call.allows('DESCRIBE', 'TOPIC', name));
    return names.map((name) => {
      const indexes = broker.topics.get(name)?.partitions.keys() ?? [];
      return describeTopic(broker, groupId, name, [...indexes]);
    });
  }
  return asked.map(({ topicName, partitions }) => {
    if (call.allows('DESCRIBE', 'TOPIC', topicName)) return describeTopic(broker, groupId, topicName, partitions);
    const failure = failureOf(new MillraceError('TOPIC_AUTHORIZATION_FAILED'));
    return {
      topicName,
      topicId: ZERO_UUID,
      partitions: partitions.map((partitionIndex) => ({ partitionIndex, ...UNKNOWN, ...failure })),
    };
  });
}

/** Topics that the group has taken from, and those that its members subscribe to. */
function namesOf(broker: Broker, groupId: string): string[] {
  const names = new Set(broker.queues.queuesOf(groupId).map(({ topic }) => topic.name));
  const group = broker.groups.get(groupId);
  if (group?.type === 'share') {
    for (const { profile } of group.members) for (const name of profile.topicNames) names.add(name);
  }
  return [...names].filter((name) => broker.topics.get(name) !== undefined).sort();
}

function describeTopic(broker: Broker, groupId: string, topicName: string, indexes: readonly number[]): DescribedTopic {
  const topicId = broker.topics.get(topicName)?.id ?? ZERO_UUID;
  const queue = broker.queues.findShareQueue(groupId, topicId);
  const partitions = indexes.map((partitionIndex) => {
    const partition = queue?.partition(partitionIndex);
    if (partition === undefined) return { partitionIndex, ...UNKNOWN };
    const { ready, inFlight, delayed, blocked } = partition.counts();
    const lag = ready + inFlight + delayed + blocked;
    const { startOffset, log } = partition;
    return { partitionIndex, startOffset, leaderEpoch: Math.max(0, log.leaderEpoch), lag, ...NO_FAILURE };
  });
  return { topicName, topicId, partitions };
}

type AlterCall = Call<AlterShareGroupOffsetsRequest, AlterShareGroupOffsetsResponseInit>;

export function alterShareGroupOffsets(broker: Broker, call: AlterCall): void {
  const { groupId, topics, queueCommand: command } = call.request;
  if (command !== null) return queueCommand(broker, call, command);
  try {
    if (!call.allows('READ', 'GROUP', groupId)) throw new MillraceError('GROUP_AUTHORIZATION_FAILED');
    broker.groups.foundShareGroup(groupId);
    const responses = topics.map(({ topicName, partitions }) => ({
      topicName,
      topicId: broker.topics.get(topicName)?.id ?? ZERO_UUID,
      partitions: partitions.map(({ partitionIndex, startOffset }) => ({
        partitionIndex,
        ...moved(broker, call, { topicName, partitionIndex, startOffset }),
      })),
    }));
    broker.groups.whenDurable(() =>
      broker.queues.whenDurable(() => call.reply({ throttleTimeMs: 0, errorCode: 0, responses })),
    );
  } catch (error) {
    call.reply({ throttleTimeMs: 0, ...failureOf(error), responses: [] });
  }
}

function moved(
  broker: Broker,
  call: AlterCall,
  to: { topicName: string; partitionIndex: number; startOffset: number },
): { errorCode: number; errorMessage: string | null } {
  const { topicName, partitionIndex, startOffset } = to;
  try {
    if (!call.allows('READ', 'TOPIC', topicName)) throw new MillraceError('TOPIC_AUTHORIZATION_FAILED');
    const topic = broker.topics.get(topicName);
    const log = topic?.partitions[partitionIndex];
    if (topic === undefined || log === undefined) throw new MillraceError('UNKNOWN_TOPIC_OR_PARTITION');
    // Nothing is outside of the log, whoever asks for it.
    const offset = Math.min(Math.max(startOffset, log.startOffset), log.highWatermark);
    broker.queues.shareQueue(call.request.groupId, topic).moveTo(partitionIndex, offset);
    return NO_FAILURE;
  } catch (error) {
    return failureOf(error);
  }
}

type DeleteCall = Call<DeleteShareGroupOffsetsRequest, DeleteShareGroupOffsetsResponseInit>;

export function deleteShareGroupOffsets(broker: Broker, call: DeleteCall): void {
  const { groupId, topics } = call.request;
  try {
    if (!call.allows('DELETE', 'GROUP', groupId)) throw new MillraceError('GROUP_AUTHORIZATION_FAILED');
    broker.groups.foundShareGroup(groupId);
    const responses = topics.map(({ topicName }) => ({
      topicName,
      topicId: broker.topics.get(topicName)?.id ?? ZERO_UUID,
      ...forgotten(broker, call, topicName),
    }));
    broker.queues.whenDurable(() => call.reply({ throttleTimeMs: 0, errorCode: 0, responses }));
  } catch (error) {
    call.reply({ throttleTimeMs: 0, ...failureOf(error), responses: [] });
  }
}

function forgotten(
  broker: Broker,
  call: DeleteCall,
  topicName: string,
): { errorCode: number; errorMessage: string | null } {
  try {
    if (!call.allows('READ', 'TOPIC', topicName)) throw new MillraceError('TOPIC_AUTHORIZATION_FAILED');
    const topic = broker.topics.get(topicName);
    if (topic === undefined) throw new MillraceError('UNKNOWN_TOPIC_OR_PARTITION');
    const queue = broker.queues.findShareQueue(call.request.groupId, topic.id);
    if (queue === undefined) {
      const message = 'There is no offset information to delete.';
      return { errorCode: errors.UNKNOWN_TOPIC_OR_PARTITION.kafka, errorMessage: message };
    }
    if (queue.kind !== 'plain') {
      throw new MillraceError('INVALID_REQUEST', `'${queue.name}' is a declared queue: delete or purge that.`);
    }
    broker.queues.delete(queue);
    return NO_FAILURE;
  } catch (error) {
    return failureOf(error);
  }
}
