/** ListOffsets (API 2): the offset at a time, or at one of the special values below. */
import { kafkaCode, MillraceError } from '../../protocol/errors.ts';
import type {
  ListOffsetsRequest,
  ListOffsetsResponseInit,
  ListOffsetsResponsePartitionInit,
  ListOffsetsResponseTopicInit,
} from '../../protocol/kafka/messages.ts';
import type { Broker } from '../broker.ts';
import type { OffsetAndTime, Partition } from '../engine.ts';
import type { Call } from './call.ts';
import { checkLeaderEpoch } from './fetch.ts';

/** Special timestamps (`ListOffsetsRequest` of Kafka; KIP-734, KIP-405, KIP-1005, KIP-1023). */
const LATEST = -1;
const EARLIEST = -2;
const MAX_TIMESTAMP = -3;
const EARLIEST_LOCAL = -4;
const LATEST_TIERED = -5;
const EARLIEST_PENDING_UPLOAD = -6;
/** Versions from which the special values may be used. */
const MIN_VERSIONS = new Map([
  [MAX_TIMESTAMP, 7],
  [EARLIEST_LOCAL, 8],
  [LATEST_TIERED, 9],
  [EARLIEST_PENDING_UPLOAD, 11],
]);
const READ_COMMITTED = 1;
/** Answers tell the leader epoch from this version on (KIP-320). */
const LEADER_EPOCH_MIN_VERSION = 4;

type ListCall = Call<ListOffsetsRequest, ListOffsetsResponseInit>;

export function listOffsets(broker: Broker, call: ListCall): void {
  answer(broker, call).catch((error: unknown) => call.fail(error));
}

async function answer(broker: Broker, call: ListCall): Promise<void> {
  const topics: ListOffsetsResponseTopicInit[] = [];
  const seen = new Set<string>();
  for (const { name, partitions } of call.request.topics) {
    const answers: ListOffsetsResponsePartitionInit[] = [];
    for (const { partitionIndex, currentLeaderEpoch, timestamp } of partitions) {
      try {
        const key = `${partitionIndex} ${name}`;
        if (seen.has(key))
          throw new MillraceError('INVALID_REQUEST', `partition ${name}-${partitionIndex} is asked for twice`);
        seen.add(key);
        if (!call.allows('DESCRIBE', 'TOPIC', name)) throw new MillraceError('TOPIC_AUTHORIZATION_FAILED');
        const partition = broker.topics.get(name)?.partitions[partitionIndex];
        if (!partition) throw new MillraceError('UNKNOWN_TOPIC_OR_PARTITION');
        checkLeaderEpoch(partition, currentLeaderEpoch);
        const found = await lookUp(partition, timestamp, call);
        answers.push({
          partitionIndex,
          errorCode: 0,
          timestamp: found?.timestamp ?? -1,
          offset: found?.offset ?? -1,
          leaderEpoch: call.version >= LEADER_EPOCH_MIN_VERSION ? (found?.leaderEpoch ?? -1) : -1,
        });
      } catch (error) {
        if (!(error instanceof MillraceError)) throw error;
        answers.push({ partitionIndex, errorCode: kafkaCode(error), timestamp: -1, offset: -1, leaderEpoch: -1 });
      }
    }
    topics.push({ name, partitions: answers });
  }
  call.reply({ topics });
}

async function lookUp(partition: Partition, timestamp: number, call: ListCall): Promise<OffsetAndTime | undefined> {
  const limit = call.request.isolationLevel === READ_COMMITTED ? partition.lastStableOffset : partition.highWatermark;
  if (timestamp < 0 && (timestamp < EARLIEST_PENDING_UPLOAD || call.version < (MIN_VERSIONS.get(timestamp) ?? 0))) {
    throw new MillraceError('UNSUPPORTED_VERSION');
  }
  switch (timestamp) {
    case LATEST:
      return { offset: limit, timestamp: -1, leaderEpoch: partition.leaderEpoch };
    case EARLIEST:
    case EARLIEST_LOCAL: {
      const offset = partition.startOffset;
      return { offset, timestamp: -1, leaderEpoch: partition.epochForOffset(offset) };
    }
    case LATEST_TIERED:
      // Nothing is ever moved to tiered storage.
      return undefined;
    case EARLIEST_PENDING_UPLOAD:
      return undefined;
    case MAX_TIMESTAMP:
      return partition.offsetOfMaxTime();
    default: {
      const found = await partition.offsetForTime(timestamp);
      return found && found.offset < limit ? found : undefined;
    }
  }
}
