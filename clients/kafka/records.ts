/**
 * Records in and out of a cluster: produce a batch, fetch from offsets, look offsets up. One call is one round of
 * requests, one to each leader that is concerned, all at the same time.
 */
import type { Codec } from '../../protocol/compression.ts';
import { MillraceError } from '../../protocol/errors.ts';
import { apis } from '../../protocol/kafka/apis.ts';
import type { FetchResponsePartition } from '../../protocol/kafka/messages.ts';
import {
  ATTRIBUTE_CONTROL,
  ATTRIBUTE_TRANSACTIONAL,
  type DecodedRecord,
  type RecordInit,
  batchAttributes,
  batchLastOffset,
  batchProducerId,
  buildBatch,
  checkStoredBatch,
  eachBatch,
  readRecords,
} from '../../protocol/record-batch.ts';
import type { KafkaCluster } from './cluster.ts';
import type { KafkaConnection } from './connection.ts';
import { throwOnError } from './errors.ts';

export interface TopicPartition {
  readonly topic: string;
  readonly partition: number;
}

export interface ProduceOptions {
  /** −1 (default): safe before it is answered; 1: written; 0: nothing is answered. */
  readonly acks?: -1 | 0 | 1;
  /** Default 'none'. */
  readonly compression?: Codec;
  /** How long the broker may take, default 30 s. */
  readonly timeoutMs?: number;
}

/** The last version whose requests name topics by name. Later ones use topic ids. */
const PRODUCE_BY_NAME_MAX = 12;
const FETCH_BY_NAME_MAX = 12;

/**
 * Appends the records as one batch; answers the offset of the first one (−1 with acks=0). Repeated after errors that
 * may pass, which can write it twice when an answer was lost: this producer is not idempotent.
 */
export function produce(
  cluster: KafkaCluster,
  target: TopicPartition,
  records: readonly RecordInit[],
  options: ProduceOptions = {},
): Promise<number> {
  const { acks = -1, compression = 'none', timeoutMs = 30_000 } = options;
  const { topic, partition } = target;
  const batch = buildBatch(records, { compression });
  const topicData = [{ name: topic, partitionData: [{ index: partition, records: batch }] }];
  const build = () => ({ acks, timeoutMs, topicData });
  const limits = { maxVersion: PRODUCE_BY_NAME_MAX };
  return cluster.retry(async () => {
    const leader = await cluster.leader(topic, partition);
    if (acks === 0) {
      await leader.sendUnanswered(apis.Produce, build, limits);
      return -1;
    }
    const response = await leader.send(apis.Produce, build, { ...limits, timeoutMs: timeoutMs + 5_000 });
    const answer = response.responses[0]?.partitionResponses[0];
    if (!answer) throw new MillraceError('UNKNOWN_SERVER_ERROR', `no answer for ${topic}-${partition}`);
    throwOnError(answer.errorCode, `produce to ${topic}-${partition}`, answer.errorMessage);
    return answer.baseOffset;
  });
}

export interface FetchOptions {
  /** How long the broker may wait for the first byte, default 500 ms. */
  readonly maxWaitMs?: number;
  /** Default 1. */
  readonly minBytes?: number;
  /** Of one answer, default 16 MiB. */
  readonly maxBytes?: number;
  /** Of one partition, default 1 MiB. */
  readonly partitionBytesMax?: number;
  /** Also records of open and aborted transactions; default false. */
  readonly readUncommitted?: boolean;
}

export interface FetchPosition extends TopicPartition {
  readonly offset: number;
}

export interface FetchedPartition extends TopicPartition {
  /** From the asked offset on, without control records. May be empty although there is more. */
  readonly records: readonly DecodedRecord[];
  /** Where to go on. Past all that was looked at, also where no record came of it. */
  readonly nextOffset: number;
  /** End of what can be read: the high watermark, or the last stable offset unless `readUncommitted`. */
  readonly endOffset: number;
  readonly startOffset: number;
}

/** Fetches once from each position. An error of any partition fails the call (OFFSET_OUT_OF_RANGE names it). */
export async function fetchRecords(
  cluster: KafkaCluster,
  positions: readonly FetchPosition[],
  options: FetchOptions = {},
): Promise<FetchedPartition[]> {
  const byLeader = await groupByLeader(cluster, positions);
  const answers = [...byLeader].map(([leaderId, owned]) => fetchFrom(cluster, leaderId, owned, options));
  return (await Promise.all(answers)).flat();
}

async function fetchFrom(
  cluster: KafkaCluster,
  leaderId: number,
  positions: readonly FetchPosition[],
  options: FetchOptions,
): Promise<FetchedPartition[]> {
  const { maxWaitMs = 500, minBytes = 1, maxBytes = 16 * 1024 * 1024, readUncommitted = false } = options;
  const partitionMaxBytes = options.partitionBytesMax ?? 1024 * 1024;
  const connection = await cluster.node(leaderId);
  const topics = byTopic(positions, ({ partition, offset }) => ({
    partition,
    fetchOffset: offset,
    partitionMaxBytes,
  })).map(({ name, partitions }) => ({ topic: name, partitions }));
  const response = await connection.send(
    apis.Fetch,
    // Session epoch −1: a full fetch that opens no session.
    (version) => ({
      replicaId: -1,
      maxWaitMs,
      minBytes,
      maxBytes,
      isolationLevel: readUncommitted ? 0 : 1,
      ...(version >= 7 ? { sessionId: 0, sessionEpoch: -1 } : {}),
      topics,
    }),
    { maxVersion: FETCH_BY_NAME_MAX, timeoutMs: maxWaitMs + 30_000 },
  );
  throwOnError(response.errorCode ?? 0, 'fetch');
  const offsets = new Map(positions.map(({ topic, partition, offset }) => [`${topic}-${partition}`, offset]));
  return response.responses.flatMap(({ topic, partitions }) =>
    partitions.map((answer) => {
      const name = `${topic}-${answer.partitionIndex}`;
      const from = offsets.get(name) ?? 0;
      throwOnError(answer.errorCode, `fetch ${name} from offset ${from}`);
      return decode({ topic, partition: answer.partitionIndex }, answer, from, readUncommitted);
    }),
  );
}

function decode(
  target: TopicPartition,
  answer: FetchResponsePartition,
  from: number,
  readUncommitted: boolean,
): FetchedPartition {
  const bytes = answer.records ?? Buffer.alloc(0);
  const aborted = new AbortedTransactions(readUncommitted ? [] : (answer.abortedTransactions ?? []));
  const records: DecodedRecord[] = [];
  let nextOffset = from;
  eachBatch(bytes, (position) => {
    if (checkStoredBatch(bytes, position, bytes.length - position) < 0) {
      throw new MillraceError(
        'CORRUPT_MESSAGE',
        `a batch of ${target.topic}-${target.partition} near ${nextOffset} is corrupt`,
      );
    }
    const isSkipped = aborted.skips(bytes, position);
    // The last batch before the asked offset may end before it, on compacted topics.
    nextOffset = Math.max(nextOffset, batchLastOffset(bytes, position) + 1);
    if (isSkipped) return;
    for (const record of readRecords(bytes, position)) if (record.offset >= from) records.push(record);
  });
  return {
    ...target,
    records,
    nextOffset,
    endOffset: readUncommitted ? answer.highWatermark : Math.max(answer.lastStableOffset, 0),
    startOffset: answer.logStartOffset ?? -1,
  };
}

/** Tells the batches of aborted transactions, and control batches, from the others (KIP-98). */
class AbortedTransactions {
  readonly #starts: { producerId: number; firstOffset: number }[];
  readonly #open = new Set<number>();

  constructor(starts: readonly { producerId: number; firstOffset: number }[]) {
    this.#starts = [...starts].sort((a, b) => a.firstOffset - b.firstOffset);
  }

  /** Called for every batch in order. */
  skips(bytes: Buffer, position: number): boolean {
    const lastOffset = batchLastOffset(bytes, position);
    while (this.#starts.length > 0 && this.#starts[0].firstOffset <= lastOffset) {
      const start = this.#starts.shift();
      if (start) this.#open.add(start.producerId);
    }
    const attributes = batchAttributes(bytes, position);
    const producerId = batchProducerId(bytes, position);
    if ((attributes & ATTRIBUTE_CONTROL) !== 0) {
      // Commit or abort: either way the producer's transaction ends here.
      this.#open.delete(producerId);
      return true;
    }
    return (attributes & ATTRIBUTE_TRANSACTIONAL) !== 0 && this.#open.has(producerId);
  }
}

/** Special timestamps of ListOffsets. */
export const LATEST = -1;
export const EARLIEST = -2;

export interface FoundOffset extends TopicPartition {
  /** −1: no record at or after the time. */
  readonly offset: number;
  /** −1 for the special timestamps. */
  readonly timestamp: number;
}

/** The first offset at or after a time (ms since 1970), or LATEST or EARLIEST, of each partition. */
export function listOffsets(
  cluster: KafkaCluster,
  targets: readonly (TopicPartition & { readonly timestamp: number })[],
  options: { readonly readUncommitted?: boolean } = {},
): Promise<FoundOffset[]> {
  const isolationLevel = options.readUncommitted ? 0 : 1;
  return cluster.retry(async () => {
    const byLeader = await groupByLeader(cluster, targets);
    const ask = async (connection: KafkaConnection, owned: typeof targets) => {
      const topics = byTopic(owned, ({ partition, timestamp }) => ({ partitionIndex: partition, timestamp }));
      const response = await connection.send(apis.ListOffsets, (version) => ({
        replicaId: -1,
        ...(version >= 2 ? { isolationLevel } : {}),
        topics,
      }));
      return response.topics.flatMap(({ name, partitions }) =>
        partitions.map(({ partitionIndex, errorCode, offset, timestamp }) => {
          throwOnError(errorCode, `offsets of ${name}-${partitionIndex}`);
          return { topic: name, partition: partitionIndex, offset, timestamp };
        }),
      );
    };
    const answers = [...byLeader].map(async ([leaderId, owned]) => ask(await cluster.node(leaderId), owned));
    return (await Promise.all(answers)).flat();
  });
}

async function groupByLeader<T extends TopicPartition>(
  cluster: KafkaCluster,
  targets: readonly T[],
): Promise<Map<number, T[]>> {
  const byLeader = new Map<number, T[]>();
  for (const target of targets) {
    const leaderId = await cluster.leaderId(target.topic, target.partition);
    const owned = byLeader.get(leaderId);
    if (owned) owned.push(target);
    else byLeader.set(leaderId, [target]);
  }
  return byLeader;
}

/** Requests list the partitions of a topic together. */
export function byTopic<T extends TopicPartition, Entry>(
  targets: readonly T[],
  entry: (target: T) => Entry,
): { name: string; partitions: Entry[] }[] {
  const topics = new Map<string, Entry[]>();
  for (const target of targets) {
    const partitions = topics.get(target.topic);
    if (partitions) partitions.push(entry(target));
    else topics.set(target.topic, [entry(target)]);
  }
  return [...topics].map(([name, partitions]) => ({ name, partitions }));
}
