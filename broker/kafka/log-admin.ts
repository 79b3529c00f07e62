/**
 * APIs about the logs behind topics: DescribeLogDirs (35), DeleteRecords (21), OffsetForLeaderEpoch (23) and
 * ListPartitionReassignments (46).
 */
import { errors, kafkaCode, MillraceError } from '../../protocol/errors.ts';
import type {
  DeleteRecordsRequest,
  DeleteRecordsResponseInit,
  DescribeLogDirsRequest,
  DescribeLogDirsResponseInit,
  ListPartitionReassignmentsRequest,
  ListPartitionReassignmentsResponseInit,
  OffsetForLeaderEpochRequest,
  OffsetForLeaderEpochResponseInit,
} from '../../protocol/kafka/messages.ts';
import type { Broker } from '../broker.ts';
import type { Partition, Position } from '../engine.ts';
import { listItems, topicConfigValue } from '../topic-config.ts';
import { CLUSTER } from './authorized-operations.ts';
import type { Call } from './call.ts';
import { checkLeaderEpoch } from './fetch.ts';

type DescribeLogDirsCall = Call<DescribeLogDirsRequest, DescribeLogDirsResponseInit>;

/** There is one log directory. Partitions that do not exist are left out, as Apache Kafka does. */
export function describeLogDirs(broker: Broker, call: DescribeLogDirsCall): void {
  if (!call.allows('DESCRIBE', 'CLUSTER', CLUSTER))
    return call.reply({ errorCode: errors.CLUSTER_AUTHORIZATION_FAILED.kafka, results: [] });
  const asked = call.request.topics;
  const topics =
    asked === null
      ? broker.topics.all().map(({ name, partitions }) => ({ name, partitions }))
      : merged(asked.map(({ topic, partitions }) => [topic, partitions])).map(([name, indexes]) => ({
          name,
          partitions: [...new Set(indexes)].flatMap((index) => broker.topics.partition(name, index) ?? []),
        }));
  const response: DescribeLogDirsResponseInit = {
    errorCode: 0,
    results: [
      {
        errorCode: 0,
        logDir: broker.dataDir,
        topics: topics
          .filter(({ partitions }) => partitions.length > 0)
          .map(({ name, partitions }) => ({
            name,
            partitions: partitions.map(({ index, sizeBytes }) => ({
              partitionIndex: index,
              partitionSize: sizeBytes,
              offsetLag: 0,
              isFutureKey: false,
            })),
          })),
      },
    ],
  };
  broker.topics.whenDurable(() => call.reply(response));
}

/** The lists given for one name in one list: how often a name is repeated must not matter. */
function merged<T>(lists: readonly [name: string, items: readonly T[]][]): [string, T[]][] {
  const byName = new Map<string, T[]>();
  for (const [name, items] of lists) {
    const known = byName.get(name);
    if (known === undefined) byName.set(name, [...items]);
    else for (const item of items) known.push(item);
  }
  return [...byName];
}

type DeleteRecordsCall = Call<DeleteRecordsRequest, DeleteRecordsResponseInit>;

/** Stands for the high watermark. */
const ALL_RECORDS = -1;

/** Moves start offsets up (KIP-107). Each partition is a commit of its own; the answer leaves when all are durable. */
export function deleteRecords(broker: Broker, call: DeleteRecordsCall): void {
  let position: Position = broker.topics.position;
  const trim = (name: string, partitionIndex: number, offset: number) => {
    try {
      const partition = trimmablePartition(broker, call, name, partitionIndex);
      position = Math.max(position, broker.topics.trim(partition, checkedStart(partition, offset)));
      return { partitionIndex, lowWatermark: partition.startOffset, errorCode: 0 };
    } catch (error) {
      if (!(error instanceof MillraceError)) throw error;
      return { partitionIndex, lowWatermark: -1, errorCode: kafkaCode(error) };
    }
  };
  const asked = merged(call.request.topics.map(({ name, partitions }) => [name, partitions]));
  const topics = asked.map(([name, partitions]) => {
    // A partition named twice counts once, with its last offset.
    const offsets = new Map(partitions.map(({ partitionIndex, offset }) => [partitionIndex, offset]));
    return { name, partitions: [...offsets].map(([index, offset]) => trim(name, index, offset)) };
  });
  broker.engine.whenDurable(position, () => call.reply({ topics }));
}

function trimmablePartition(broker: Broker, call: DeleteRecordsCall, name: string, index: number): Partition {
  if (!call.allows('DELETE', 'TOPIC', name)) throw new MillraceError('TOPIC_AUTHORIZATION_FAILED');
  const topic = broker.topics.get(name);
  const partition = topic?.partitions[index];
  if (!topic || !partition) throw new MillraceError('UNKNOWN_TOPIC_OR_PARTITION');
  if (topic.isInternal)
    throw new MillraceError('INVALID_TOPIC_EXCEPTION', `Cannot delete records of internal topic ${name}`);
  const policy = listItems(topicConfigValue('cleanup.policy', topic.overrides, broker.options));
  if (policy.includes('compact') && !policy.includes('delete')) throw new MillraceError('POLICY_VIOLATION');
  if (partition.isFenced) throw new MillraceError('KAFKA_STORAGE_ERROR');
  return partition;
}

function checkedStart(partition: Partition, offset: number): number {
  const start = offset === ALL_RECORDS ? partition.highWatermark : offset;
  if (start < 0 || start > partition.highWatermark) throw new MillraceError('OFFSET_OUT_OF_RANGE');
  return start;
}

type OffsetForLeaderEpochCall = Call<OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponseInit>;

const NO_EPOCH = { leaderEpoch: -1, endOffset: -1 };

/** Where an epoch ends, so that a consumer notices a log that was cut below it (KIP-320). */
export function offsetForLeaderEpoch(broker: Broker, call: OffsetForLeaderEpochCall): void {
  const topics = call.request.topics.map(({ topic: name, partitions }) => ({
    topic: name,
    partitions: partitions.map(({ partition: index, currentLeaderEpoch, leaderEpoch }) => {
      try {
        if (!call.allows('DESCRIBE', 'TOPIC', name)) throw new MillraceError('TOPIC_AUTHORIZATION_FAILED');
        const partition = broker.topics.partition(name, index);
        if (!partition) throw new MillraceError('UNKNOWN_TOPIC_OR_PARTITION');
        checkLeaderEpoch(partition, currentLeaderEpoch);
        const found = leaderEpoch < 0 ? NO_EPOCH : partition.endOffsetForEpoch(leaderEpoch);
        // Readers see nothing above the high watermark, so no epoch ends above it for them.
        const endOffset = Math.min(found.endOffset, partition.highWatermark);
        return { errorCode: 0, partition: index, leaderEpoch: found.leaderEpoch, endOffset };
      } catch (error) {
        if (!(error instanceof MillraceError)) throw error;
        return { errorCode: kafkaCode(error), partition: index, leaderEpoch: -1, endOffset: -1 };
      }
    }),
  }));
  broker.topics.whenDurable(() => call.reply({ topics }));
}

/** One node has nowhere to move a partition to. */
export function listPartitionReassignments(
  _broker: Broker,
  call: Call<ListPartitionReassignmentsRequest, ListPartitionReassignmentsResponseInit>,
): void {
  const isAllowed = call.allows('DESCRIBE', 'CLUSTER', CLUSTER);
  call.reply({
    errorCode: isAllowed ? 0 : errors.CLUSTER_AUTHORIZATION_FAILED.kafka,
    errorMessage: isAllowed ? null : errors.CLUSTER_AUTHORIZATION_FAILED.text,
    topics: [],
  });
}
