/**
 * Metadata (API 3), DescribeTopicPartitions (75) and DescribeCluster (60): who the broker is and which topics it has.
 *
 * Answers leave when everything the registry knew at that moment is durable, so no client ever acts on a topic that a
 * power cut could undo. A topic that Metadata creates is created before it is answered.
 */
import { errors, kafkaCode, MillraceError, type ErrorCode } from '../../protocol/errors.ts';
import { ZERO_UUID } from '../../protocol/kafka/fields.ts';
import type {
  DescribeClusterRequest,
  DescribeClusterResponseInit,
  DescribeTopicPartitionsRequest,
  DescribeTopicPartitionsResponseInit,
  DescribeTopicPartitionsResponseTopicInit,
  MetadataRequest,
  MetadataResponseInit,
  MetadataResponseTopicInit,
} from '../../protocol/kafka/messages.ts';
import type { Broker } from '../broker.ts';
import type { Partition } from '../engine.ts';
import { topicNameProblem } from '../topic-names.ts';
import type { Topic } from '../topics.ts';
import { authorizedOperations, CLUSTER } from './authorized-operations.ts';
import type { Call } from './call.ts';

type MetadataCall = Call<MetadataRequest, MetadataResponseInit>;

/** Topics may be asked for by id (KIP-516); null names before are a mistake. */
const IDS_MIN_VERSION = 12;
const TOPIC_OPERATIONS_MIN_VERSION = 8;
const CLUSTER_OPERATIONS_VERSIONS = { min: 8, max: 10 };

export function metadata(broker: Broker, call: MetadataCall): void {
  const { request, version } = call;
  const { host, port } = broker.advertised(call.connection);
  const nodeId = broker.options['node.id'];
  const topics = metadataTopics(broker, call);
  const withClusterOperations =
    request.includeClusterAuthorizedOperations &&
    version >= CLUSTER_OPERATIONS_VERSIONS.min &&
    version <= CLUSTER_OPERATIONS_VERSIONS.max;
  const response: MetadataResponseInit = {
    brokers: [{ nodeId, host, port, rack: null }],
    clusterId: broker.clusterId,
    controllerId: nodeId,
    topics,
    ...(withClusterOperations ? { clusterAuthorizedOperations: clusterOperations(call) } : {}),
  };
  broker.topics.whenDurable(() => call.reply(response));
}

function metadataTopics(broker: Broker, call: MetadataCall): MetadataResponseTopicInit[] {
  const { request, version } = call;
  // Version 0 has no null: there, no names means all topics.
  if (request.topics === null || (version === 0 && request.topics.length === 0)) {
    const visible = broker.topics.all().filter(({ name }) => call.allows('DESCRIBE', 'TOPIC', name));
    return visible.map((topic) => describeTopic(broker, call, topic));
  }
  if (version < IDS_MIN_VERSION && request.topics.some(({ name, topicId }) => name === null || topicId !== ZERO_UUID)) {
    return request.topics.map(({ name, topicId }) => failure('INVALID_REQUEST', name ?? '', topicId));
  }
  // As Apache Kafka: with one id in the request, names are not looked at.
  const ids = new Set(request.topics.map(({ topicId }) => topicId).filter((id) => id !== ZERO_UUID));
  if (ids.size > 0) return [...ids].map((id) => topicWithId(broker, call, id));
  const names = new Set(request.topics.map(({ name }) => name ?? ''));
  return [...names].map((name) => topicNamed(broker, call, name));
}

function topicWithId(broker: Broker, call: MetadataCall, id: string): MetadataResponseTopicInit {
  const topic = broker.topics.getById(id);
  if (!topic) return failure('UNKNOWN_TOPIC_ID', null, id);
  // The id is no secret, the name is.
  if (!call.allows('DESCRIBE', 'TOPIC', topic.name)) return failure('TOPIC_AUTHORIZATION_FAILED', null, id);
  return describeTopic(broker, call, topic);
}

function topicNamed(broker: Broker, call: MetadataCall, name: string): MetadataResponseTopicInit {
  if (!call.allows('DESCRIBE', 'TOPIC', name)) return failure('TOPIC_AUTHORIZATION_FAILED', name);
  const topic = broker.topics.get(name);
  if (topic) return describeTopic(broker, call, topic);
  if (topicNameProblem(name) !== undefined) return failure('INVALID_TOPIC_EXCEPTION', name);
  if (!call.request.allowAutoTopicCreation || !broker.options['auto.create.topics.enable'])
    return failure('UNKNOWN_TOPIC_OR_PARTITION', name);
  if (!call.allows('CREATE', 'CLUSTER', CLUSTER) && !call.allows('CREATE', 'TOPIC', name))
    return failure('TOPIC_AUTHORIZATION_FAILED', name);
  try {
    return describeTopic(broker, call, broker.topics.autoCreate(name));
  } catch (error) {
    if (!(error instanceof MillraceError)) throw error;
    return { errorCode: kafkaCode(error), name, partitions: [] };
  }
}

function failure(code: ErrorCode, name: string | null, topicId = ZERO_UUID): MetadataResponseTopicInit {
  return { errorCode: errors[code].kafka, name, topicId, partitions: [] };
}

function describeTopic(broker: Broker, call: MetadataCall, topic: Topic): MetadataResponseTopicInit {
  const { request, version } = call;
  const withOperations = request.includeTopicAuthorizedOperations && version >= TOPIC_OPERATIONS_MIN_VERSION;
  const nodeId = broker.options['node.id'];
  return {
    errorCode: 0,
    name: topic.name,
    topicId: topic.id,
    isInternal: topic.isInternal,
    partitions: topic.partitions.map((partition) => describePartition(partition, nodeId)),
    ...(withOperations ? { topicAuthorizedOperations: authorizedOperations(call, 'TOPIC', topic.name) } : {}),
  };
}

/** A fenced partition has no leader: clients wait for one instead of asking this node again and again. */
function describePartition(partition: Partition, nodeId: number) {
  const isOnline = !partition.isFenced;
  return {
    errorCode: isOnline ? 0 : errors.LEADER_NOT_AVAILABLE.kafka,
    partitionIndex: partition.index,
    leaderId: isOnline ? nodeId : -1,
    leaderEpoch: partition.leaderEpoch,
    replicaNodes: [nodeId],
    isrNodes: isOnline ? [nodeId] : [],
    offlineReplicas: isOnline ? [] : [nodeId],
  };
}

/** 0 for who may not even describe the cluster. */
function clusterOperations(call: Pick<MetadataCall, 'allows'>): number {
  return call.allows('DESCRIBE', 'CLUSTER', CLUSTER) ? authorizedOperations(call, 'CLUSTER', CLUSTER) : 0;
}

type DescribeTopicPartitionsCall = Call<DescribeTopicPartitionsRequest, DescribeTopicPartitionsResponseInit>;

/** KIP-966: topics by name, a page of at most so many partitions at a time. */
export function describeTopicPartitions(broker: Broker, call: DescribeTopicPartitionsCall): void {
  const { request } = call;
  const { cursor } = request;
  const from = cursor?.topicName ?? '';
  const isAll = request.topics.length === 0;
  const asked = isAll ? broker.topics.all().map(({ name }) => name) : request.topics.map(({ name }) => name);
  const names = [...new Set(asked)].filter((name) => name >= from).sort();
  const isCursorValid = cursor === null || (cursor.partitionIndex >= 0 && (isAll || names.includes(from)));
  if (!isCursorValid) {
    return call.reply({ topics: request.topics.map(({ name }) => refusal('INVALID_REQUEST', name)) });
  }
  const limit = broker.options['max.request.partition.size.limit'];
  let room = Math.max(1, Math.min(limit, request.responsePartitionLimit));
  let nextCursor: DescribeTopicPartitionsResponseInit['nextCursor'] = null;
  const topics: DescribeTopicPartitionsResponseTopicInit[] = [];
  const refused: DescribeTopicPartitionsResponseTopicInit[] = [];
  for (const name of names) {
    if (!call.allows('DESCRIBE', 'TOPIC', name)) {
      if (!isAll) refused.push(refusal('TOPIC_AUTHORIZATION_FAILED', name));
      continue;
    }
    if (room === 0) {
      nextCursor = { topicName: name, partitionIndex: 0 };
      break;
    }
    const topic = broker.topics.get(name);
    if (!topic) {
      const code = topicNameProblem(name) === undefined ? 'UNKNOWN_TOPIC_OR_PARTITION' : 'INVALID_TOPIC_EXCEPTION';
      topics.push(refusal(code, name));
      continue;
    }
    const first = name === from ? (cursor?.partitionIndex ?? 0) : 0;
    const partitions = topic.partitions.slice(first, first + room);
    room -= partitions.length;
    topics.push({
      errorCode: 0,
      name,
      topicId: topic.id,
      isInternal: topic.isInternal,
      partitions: partitions.map((partition) => ({
        ...describePartition(partition, broker.options['node.id']),
        eligibleLeaderReplicas: [],
        lastKnownElr: [],
      })),
      topicAuthorizedOperations: authorizedOperations(call, 'TOPIC', name),
    });
    const next = first + partitions.length;
    if (next < topic.partitions.length) {
      nextCursor = { topicName: name, partitionIndex: next };
      break;
    }
  }
  const response: DescribeTopicPartitionsResponseInit = { topics: [...topics, ...refused], nextCursor };
  broker.topics.whenDurable(() => call.reply(response));
}

function refusal(code: ErrorCode, name: string): DescribeTopicPartitionsResponseTopicInit {
  return { errorCode: errors[code].kafka, name, topicId: ZERO_UUID, partitions: [] };
}

type DescribeClusterCall = Call<DescribeClusterRequest, DescribeClusterResponseInit>;

/** `EndpointType` of Kafka (KIP-919). */
const BROKER_ENDPOINT = 1;
const CONTROLLER_ENDPOINT = 2;

export function describeCluster(broker: Broker, call: DescribeClusterCall): void {
  const { request } = call;
  const { endpointType } = request;
  if (endpointType !== BROKER_ENDPOINT) {
    const isController = endpointType === CONTROLLER_ENDPOINT;
    return call.reply({
      errorCode: errors[isController ? 'MISMATCHED_ENDPOINT_TYPE' : 'UNSUPPORTED_ENDPOINT_TYPE'].kafka,
      errorMessage: isController
        ? 'The request was sent to an endpoint of type BROKER, but we wanted an endpoint of type CONTROLLER'
        : `Unsupported endpoint type ${endpointType}`,
      endpointType: BROKER_ENDPOINT,
      clusterId: '',
      brokers: [],
    });
  }
  const { host, port } = broker.advertised(call.connection);
  const nodeId = broker.options['node.id'];
  call.reply({
    errorCode: 0,
    errorMessage: null,
    endpointType: BROKER_ENDPOINT,
    clusterId: broker.clusterId,
    controllerId: nodeId,
    brokers: [{ brokerId: nodeId, host, port, rack: null, isFenced: false }],
    ...(request.includeClusterAuthorizedOperations ? { clusterAuthorizedOperations: clusterOperations(call) } : {}),
  });
}
