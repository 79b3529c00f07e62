/**
 * CreateTopics (API 19), DeleteTopics (20) and CreatePartitions (37). Every topic of a request is decided on its own and
 * in order; the answer leaves when all of it is durable, errors too: "exists already" leans on the one who made it.
 * Checks, their order and their messages are those of Apache Kafka 4.4's controller.
 */
import { errors, MillraceError, type ErrorCode } from '../../protocol/errors.ts';
import { ZERO_UUID } from '../../protocol/kafka/fields.ts';
import type {
  CreatePartitionsRequest,
  CreatePartitionsRequestTopic,
  CreatePartitionsResponseInit,
  CreateTopicsRequest,
  CreateTopicsRequestTopic,
  CreateTopicsResponseInit,
  CreateTopicsResponseTopicInit,
  DeleteTopicsRequest,
  DeleteTopicsResponseInit,
  DeleteTopicsResponseTopicInit,
} from '../../protocol/kafka/messages.ts';
import type { Broker } from '../broker.ts';
import { checkTopicConfigs } from '../topic-config.ts';
import type { Topic } from '../topics.ts';
import { CLUSTER } from './authorized-operations.ts';
import type { Call } from './call.ts';
import { describeTopicConfigs } from './config-entries.ts';
import { failureOf } from './failure.ts';

type CreateTopicsCall = Call<CreateTopicsRequest, CreateTopicsResponseInit>;

/** Result fields of KIP-525 (partitions, configs) and KIP-516 (topic id). */
const ECHO_MIN_VERSION = 5;
const NAME_OF_KAFKAS_METADATA = '__cluster_metadata';

/** Keys that occur more than once. */
function repeated<T>(keys: readonly T[]): Set<T> {
  const seen = new Set<T>();
  return new Set(keys.filter((key) => seen.size === seen.add(key).size));
}

export function createTopics(broker: Broker, call: CreateTopicsCall): void {
  const { request } = call;
  const duplicates = repeated(request.topics.map(({ name }) => name));
  const topics: CreateTopicsResponseTopicInit[] = [];
  const unique = new Map(request.topics.map((topic) => [topic.name, topic]));
  const total = request.topics.reduce((sum, topic) => sum + Math.max(1, partitionCountOf(broker, topic)), 0);
  for (const [name, topic] of unique) {
    try {
      if (duplicates.has(name)) throw new MillraceError('INVALID_REQUEST', 'Duplicate topic name.');
      if (name === NAME_OF_KAFKAS_METADATA)
        throw new MillraceError('INVALID_REQUEST', `Creation of internal topic ${name} is prohibited.`);
      if (!call.allows('CREATE', 'CLUSTER', CLUSTER) && !call.allows('CREATE', 'TOPIC', name))
        throw new MillraceError('TOPIC_AUTHORIZATION_FAILED', 'Authorization failed.');
      if (total > broker.options['partitions.per.topic.max'])
        throw new MillraceError('POLICY_VIOLATION', 'Excessively large number of partitions per request.');
      topics.push(createTopic(broker, call, topic));
    } catch (error) {
      topics.push({ name, topicId: ZERO_UUID, ...failureOf(error) });
    }
  }
  broker.topics.whenDurable(() => call.reply({ topics }));
}

function partitionCountOf(broker: Broker, { numPartitions, assignments }: CreateTopicsRequestTopic): number {
  if (assignments.length > 0) return assignments.length;
  return numPartitions === -1 ? broker.options['num.partitions'] : numPartitions;
}

function createTopic(
  broker: Broker,
  call: CreateTopicsCall,
  request: CreateTopicsRequestTopic,
): CreateTopicsResponseTopicInit {
  const { name } = request;
  broker.topics.checkName(name);
  const overrides = checkTopicConfigs(request.configs.map((config) => [config.name, config.value] as const));
  checkPlacement(broker, request);
  const partitionCount = partitionCountOf(broker, request);
  broker.topics.checkRoom(1, partitionCount);
  const topicId = call.request.validateOnly ? ZERO_UUID : broker.topics.create({ name, partitionCount, overrides }).id;
  const created = { name, topicId, errorCode: 0, errorMessage: null };
  if (call.version < ECHO_MIN_VERSION) return created;
  if (!call.allows('DESCRIBE_CONFIGS', 'TOPIC', name))
    return { ...created, topicConfigErrorCode: errors.TOPIC_AUTHORIZATION_FAILED.kafka, configs: [] };
  const configs = describeTopicConfigs(broker, overrides).map((entry) => ({
    name: entry.name,
    value: entry.value,
    readOnly: entry.readOnly,
    configSource: entry.configSource,
    isSensitive: false,
  }));
  return { ...created, numPartitions: partitionCount, replicationFactor: 1, configs };
}

/** Number of partitions, replication factor and manual assignment: there is one node, so little is left to choose. */
function checkPlacement(broker: Broker, topic: CreateTopicsRequestTopic): void {
  const { numPartitions, replicationFactor, assignments } = topic;
  if (assignments.length > 0) {
    const manual = 'A manual partition assignment was specified, but';
    if (replicationFactor !== -1)
      throw new MillraceError('INVALID_REQUEST', `${manual} replication factor was not set to -1.`);
    if (numPartitions !== -1) throw new MillraceError('INVALID_REQUEST', `${manual} numPartitions was not set to -1.`);
    const indexes = new Set<number>();
    for (const { partitionIndex, brokerIds } of assignments) {
      if (indexes.has(partitionIndex)) {
        throw new MillraceError(
          'INVALID_REPLICA_ASSIGNMENT',
          `Found multiple manual partition assignments for partition ${partitionIndex}`,
        );
      }
      indexes.add(partitionIndex);
      checkReplicas(broker, brokerIds);
    }
    for (let index = 0; index < assignments.length; index++) {
      if (!indexes.has(index)) {
        throw new MillraceError(
          'INVALID_REPLICA_ASSIGNMENT',
          'partitions should be a consecutive 0-based integer sequence',
        );
      }
    }
    return;
  }
  if (replicationFactor < -1 || replicationFactor === 0) {
    throw new MillraceError(
      'INVALID_REPLICATION_FACTOR',
      'Replication factor must be larger than 0, or -1 to use the default value.',
    );
  }
  if (numPartitions < -1 || numPartitions === 0) {
    throw new MillraceError('INVALID_PARTITIONS', 'Number of partitions was set to an invalid non-positive value.');
  }
  if (replicationFactor > 1) {
    throw new MillraceError(
      'INVALID_REPLICATION_FACTOR',
      `Unable to replicate the partition ${replicationFactor} time(s): The target replication factor of ${replicationFactor} cannot be reached because only 1 broker(s) are registered.`,
    );
  }
}

function checkReplicas(broker: Broker, brokerIds: readonly number[]): void {
  const manual = 'The manual partition assignment includes';
  if (brokerIds.length === 0) throw new MillraceError('INVALID_REPLICA_ASSIGNMENT', `${manual} an empty replica list.`);
  for (const id of brokerIds) {
    if (id !== broker.options['node.id'])
      throw new MillraceError(
        'INVALID_REPLICA_ASSIGNMENT',
        `${manual} broker ${id}, but no such broker is registered.`,
      );
  }
  if (brokerIds.length > 1)
    throw new MillraceError('INVALID_REPLICA_ASSIGNMENT', `${manual} the broker ${brokerIds[0]} more than once.`);
}

type DeleteTopicsCall = Call<DeleteTopicsRequest, DeleteTopicsResponseInit>;

/** Topics by id or name in one list (KIP-516). */
const DELETE_BY_ID_MIN_VERSION = 6;
const DELETION_DISABLED_MIN_VERSION = 3;

interface DeleteTarget {
  name: string | null;
  topicId: string;
}

export function deleteTopics(broker: Broker, call: DeleteTopicsCall): void {
  const { request, version } = call;
  const targets: DeleteTarget[] =
    version >= DELETE_BY_ID_MIN_VERSION
      ? request.topics
      : request.topicNames.map((name) => ({ name, topicId: ZERO_UUID }));
  const duplicateNames = repeated(targets.flatMap(({ name }) => (name === null ? [] : [name])));
  const duplicateIds = repeated(targets.flatMap(({ topicId }) => (topicId === ZERO_UUID ? [] : [topicId])));
  const namedIds = new Set(targets.map(({ name }) => (name === null ? undefined : broker.topics.get(name)?.id)));
  const check = ({ name, topicId }: DeleteTarget): Topic => {
    if (name !== null && topicId !== ZERO_UUID)
      throw new MillraceError('INVALID_REQUEST', 'You may not specify both topic name and topic id.');
    if (name !== null) {
      if (duplicateNames.has(name)) throw new MillraceError('INVALID_REQUEST', 'Duplicate topic name.');
      return deletable(call, broker.topics.get(name), { name, unknown: 'UNKNOWN_TOPIC_OR_PARTITION' });
    }
    if (topicId === ZERO_UUID) throw new MillraceError('INVALID_REQUEST', 'Neither topic name nor id were specified.');
    if (duplicateIds.has(topicId)) throw new MillraceError('INVALID_REQUEST', 'Duplicate topic id.');
    if (namedIds.has(topicId))
      throw new MillraceError('INVALID_REQUEST', 'The provided topic name maps to an ID that was already supplied.');
    return deletable(call, broker.topics.getById(topicId), { unknown: 'UNKNOWN_TOPIC_ID' });
  };
  const responses: DeleteTopicsResponseTopicInit[] = [];
  const answered = new Set<string>();
  for (const target of targets) {
    const key = `${target.topicId} ${target.name}`;
    if (answered.has(key)) continue;
    answered.add(key);
    try {
      if (!broker.options['delete.topic.enable']) {
        throw new MillraceError(
          version >= DELETION_DISABLED_MIN_VERSION ? 'TOPIC_DELETION_DISABLED' : 'INVALID_REQUEST',
        );
      }
      const topic = check(target);
      broker.topics.delete(topic);
      broker.groups.topicDeleted(topic);
      responses.push({ name: topic.name, topicId: topic.id, errorCode: 0 });
    } catch (error) {
      const name = version >= DELETE_BY_ID_MIN_VERSION ? target.name : (target.name ?? '');
      responses.push({ name, topicId: target.topicId, ...failureOf(error) });
    }
  }
  broker.topics.whenDurable(() => call.reply({ responses }));
}

/** The texts of Kafka where clients show them. */
const UNKNOWN_TEXTS = {
  UNKNOWN_TOPIC_OR_PARTITION: 'This server does not host this topic-partition.',
  UNKNOWN_TOPIC_ID: 'This server does not host this topic ID.',
} as const satisfies Partial<Record<ErrorCode, string>>;

function deletable(
  call: DeleteTopicsCall,
  topic: Topic | undefined,
  { name, unknown }: { name?: string; unknown: keyof typeof UNKNOWN_TEXTS },
): Topic {
  const named = topic?.name ?? name;
  // Who may not describe a name does not learn whether it exists.
  if (named !== undefined && !call.allows('DESCRIBE', 'TOPIC', named))
    throw new MillraceError('TOPIC_AUTHORIZATION_FAILED');
  if (!topic) throw new MillraceError(unknown, UNKNOWN_TEXTS[unknown]);
  if (!call.allows('DELETE', 'TOPIC', topic.name)) throw new MillraceError('TOPIC_AUTHORIZATION_FAILED');
  refuseInternal(topic);
  return topic;
}

/** The broker keeps its state in internal topics: clients read them, nothing else. */
export function refuseInternal(topic: Topic): void {
  if (topic.isInternal)
    throw new MillraceError('POLICY_VIOLATION', `Topic '${topic.name}' is internal; only the broker changes it.`);
}

type CreatePartitionsCall = Call<CreatePartitionsRequest, CreatePartitionsResponseInit>;

export function createPartitions(broker: Broker, call: CreatePartitionsCall): void {
  const { request } = call;
  const duplicates = repeated(request.topics.map(({ name }) => name));
  const results: { name: string; errorCode: number; errorMessage: string | null }[] = [];
  for (const [name, topic] of new Map(request.topics.map((each) => [each.name, each]))) {
    try {
      if (duplicates.has(name)) throw new MillraceError('INVALID_REQUEST', 'Duplicate topic name.');
      if (!call.allows('ALTER', 'TOPIC', name)) throw new MillraceError('TOPIC_AUTHORIZATION_FAILED');
      addPartitions(broker, topic, request.validateOnly);
      results.push({ name, errorCode: 0, errorMessage: null });
    } catch (error) {
      results.push({ name, ...failureOf(error) });
    }
  }
  broker.topics.whenDurable(() => call.reply({ results }));
}

function addPartitions(broker: Broker, request: CreatePartitionsRequestTopic, validateOnly: boolean): void {
  const { name, count, assignments } = request;
  const topic = broker.topics.get(name);
  if (!topic) throw new MillraceError('UNKNOWN_TOPIC_OR_PARTITION', UNKNOWN_TEXTS.UNKNOWN_TOPIC_OR_PARTITION);
  refuseInternal(topic);
  const before = topic.partitions.length;
  if (count === before) throw new MillraceError('INVALID_PARTITIONS', `Topic already has ${count} partition(s).`);
  if (count < before) {
    throw new MillraceError(
      'INVALID_PARTITIONS',
      `The topic ${name} currently has ${before} partition(s); ${count} would not be an increase.`,
    );
  }
  if (count > broker.options['partitions.per.topic.max'])
    throw new MillraceError('POLICY_VIOLATION', 'Excessively large number of additional partitions per request.');
  if (assignments !== null) {
    if (assignments.length !== count - before) {
      throw new MillraceError(
        'INVALID_REPLICA_ASSIGNMENT',
        `Attempted to add ${count - before} additional partition(s), but only ${assignments.length} assignment(s) were specified.`,
      );
    }
    for (const { brokerIds } of assignments) checkReplicas(broker, brokerIds);
  }
  broker.topics.checkRoom(0, count - before);
  if (!validateOnly) broker.topics.addPartitions(topic, count);
}
