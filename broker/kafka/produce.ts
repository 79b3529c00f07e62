/**
 * Produce (API 0) and InitProducerId (API 22). The write path starts here: check the batch, append it to its partition,
 * answer when the position it took is durable.
 */
import { errors, kafkaCode, MillraceError, ProtocolError } from '../../protocol/errors.ts';
import type {
  InitProducerIdRequest,
  InitProducerIdResponseInit,
  ProduceRequest,
  ProduceResponseInit,
  ProduceResponsePartitionInit,
  ProduceResponseTopicInit,
} from '../../protocol/kafka/messages.ts';
import { batchAttributes, checkCompressedRecords, checkProducedBatch } from '../../protocol/record-batch.ts';
import type { Broker } from '../broker.ts';
import type { AppendOptions, Appended, Partition, Position } from '../engine.ts';
import type { Topic } from '../topics.ts';
import type { Call } from './call.ts';
import { KeylessRecordsError, refuseKeylessRecords } from './keyless-records.ts';

type ProduceCall = Call<ProduceRequest, ProduceResponseInit>;

const WAITED: AppendOptions = { origin: 'client', urgency: 'waited' };
const LAZY: AppendOptions = { origin: 'client', urgency: 'lazy' };
const COMPRESSION_MASK = 0x07;
const TRANSACTIONAL_MASK = 0x10;
const ZSTD = 4;
/** Produce requests before this version may not carry zstd (KIP-110). */
const ZSTD_MIN_VERSION = 7;
/** Topic ids replace names (KIP-516). */
const TOPIC_ID_MIN_VERSION = 13;

export function produce(broker: Broker, call: ProduceCall): void | Promise<void> {
  const { request } = call;
  const loading: Promise<void>[] = [];
  for (const topicData of request.topicData) {
    const topic = topicOf(broker, call, topicData);
    if (!topic) continue;
    for (const { index } of topicData.partitionData) {
      const promise = topic.partitions[index]?.prepare();
      if (promise) loading.push(promise);
    }
  }
  if (loading.length === 0) return execute(broker, call);
  // Copy: the request's bytes are only valid in this call, and it goes on after files were read.
  for (const { partitionData } of request.topicData) {
    for (const data of partitionData) if (data.records) data.records = Buffer.from(data.records);
  }
  // A partition that cannot be loaded is fenced: its append says so.
  return Promise.allSettled(loading).then(() => execute(broker, call));
}

function topicOf(broker: Broker, call: ProduceCall, data: { name: string; topicId: string }): Topic | undefined {
  return call.version >= TOPIC_ID_MIN_VERSION ? broker.topics.getById(data.topicId) : broker.topics.get(data.name);
}

function execute(broker: Broker, call: ProduceCall): void {
  const { request } = call;
  const { acks } = request;
  let position: Position = 0;
  let isFailed = false;
  const responses: ProduceResponseTopicInit[] = [];
  for (const topicData of request.topicData) {
    const topic = topicOf(broker, call, topicData);
    const partitionResponses: ProduceResponsePartitionInit[] = [];
    for (const { index, records } of topicData.partitionData) {
      try {
        if (acks < -1 || acks > 1) throw new MillraceError('INVALID_REQUIRED_ACKS');
        const partition = writablePartition(call, topic, index);
        const appended = appendChecked(broker, call, partition, records, acks === 0 ? LAZY : WAITED);
        if (appended.position > position) position = appended.position;
        partitionResponses.push({
          index,
          errorCode: 0,
          baseOffset: appended.baseOffset,
          logAppendTimeMs: appended.appendTimeMs,
          logStartOffset: partition.startOffset,
        });
      } catch (error) {
        if (!(error instanceof MillraceError)) throw error;
        isFailed = true;
        partitionResponses.push({
          index,
          errorCode: kafkaCode(error),
          baseOffset: -1,
          logAppendTimeMs: -1,
          logStartOffset: -1,
          errorMessage: error.message,
          ...(error instanceof KeylessRecordsError
            ? { recordErrors: error.recordErrors, logStartOffset: error.logStartOffset }
            : {}),
        });
      }
    }
    responses.push({ name: topicData.name, topicId: topicData.topicId, partitionResponses });
  }
  if (acks === 0) {
    // Nothing can be answered, so a failure is told by closing the connection, as Kafka does.
    if (isFailed) throw new ProtocolError('a batch sent with acks=0 was refused');
    return call.replyNothing();
  }
  const response: ProduceResponseInit = { responses };
  // Even a refused request waits: a duplicate's original may not be durable yet.
  broker.engine.whenDurable(position, () => call.reply(response));
}

function writablePartition(call: ProduceCall, topic: Topic | undefined, index: number): Partition {
  if (!topic) {
    throw new MillraceError(call.version >= TOPIC_ID_MIN_VERSION ? 'UNKNOWN_TOPIC_ID' : 'UNKNOWN_TOPIC_OR_PARTITION');
  }
  if (!call.allows('WRITE', 'TOPIC', topic.name)) throw new MillraceError('TOPIC_AUTHORIZATION_FAILED');
  if (topic.isInternal) {
    throw new MillraceError('INVALID_TOPIC_EXCEPTION', `topic ${topic.name} is internal; clients may only read it`);
  }
  const partition = topic.partitions[index];
  if (!partition) throw new MillraceError('UNKNOWN_TOPIC_OR_PARTITION');
  return partition;
}

function appendChecked(
  broker: Broker,
  call: ProduceCall,
  partition: Partition,
  records: Buffer | null,
  options: AppendOptions,
): Appended {
  if (!records || records.length === 0) {
    throw new MillraceError(
      'INVALID_RECORD',
      'a produce request carries exactly one batch for each partition, found none',
    );
  }
  checkProducedBatch(records, 0, records.length, { maxBytes: partition.config.maxMessageBytes });
  const attributes = batchAttributes(records, 0);
  // Transactions come later; a batch of one must not pass as an ordinary one.
  if (attributes & TRANSACTIONAL_MASK) throw new MillraceError('INVALID_TXN_STATE', 'transactions are not served yet');
  const codec = attributes & COMPRESSION_MASK;
  if (codec !== 0) {
    if (codec === ZSTD && call.version < ZSTD_MIN_VERSION) throw new MillraceError('UNSUPPORTED_COMPRESSION_TYPE');
    checkCompressedRecords(records, 0, broker.options['decompressed.bytes.max']);
  }
  if (partition.config.compaction !== undefined) {
    refuseKeylessRecords(partition, records, broker.options['decompressed.bytes.max']);
  }
  const intake = broker.queues.intake(partition.topicId);
  const pending = intake?.check(partition, records, 'kafka');
  const appended = partition.append(records, options);
  if (pending !== undefined) intake?.appended(partition, pending, appended);
  const { traffic } = broker;
  if (appended.isDuplicate) {
    traffic.duplicateBatches++;
  } else {
    traffic.producedBatches++;
    traffic.producedRecords += appended.lastOffset - appended.baseOffset + 1;
    traffic.producedBytes += records.length;
  }
  return appended;
}

/**
 * InitProducerId of idempotent producers. Transactional ids come with transactions; until then they are refused, in
 * the error that makes producers stop instead of retrying.
 */
export function initProducerId(broker: Broker, call: Call<InitProducerIdRequest, InitProducerIdResponseInit>): void {
  const { transactionalId, producerId, producerEpoch } = call.request;
  // An id goes with an epoch, both or none (KIP-360).
  if (transactionalId === '' || producerId < -1 || producerEpoch < -1 || producerId < 0 !== producerEpoch < 0) {
    call.reply({ errorCode: errors.INVALID_REQUEST.kafka, producerId: -1, producerEpoch: -1 });
    return;
  }
  if (transactionalId !== null) {
    call.reply({ errorCode: errors.UNSUPPORTED_VERSION.kafka, producerId: -1, producerEpoch: -1 });
    return;
  }
  if (!call.allows('IDEMPOTENT_WRITE', 'CLUSTER', 'kafka-cluster')) {
    call.reply({ errorCode: errors.CLUSTER_AUTHORIZATION_FAILED.kafka, producerId: -1, producerEpoch: -1 });
    return;
  }
  // KIP-360: without a transactional id a producer that lost its place gets a new id, whatever it had.
  call.reply({ errorCode: 0, producerId: broker.producerIds.next(), producerEpoch: 0 });
}
