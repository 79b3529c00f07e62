/**
 * What an administrator asks of a cluster: topics, their configs and sizes, groups and their offsets. Each function is
 * one question; it is repeated while its error may pass, and fails with a `MillraceError` or a `ConnectionError`.
 */
import { Reader } from '../../protocol/bytes.ts';
import { apis } from '../../protocol/kafka/apis.ts';
import type { DescribeGroupsResponseGroup } from '../../protocol/kafka/messages.ts';
import { errors } from '../../protocol/errors.ts';
import type { KafkaCluster } from './cluster.ts';
import type { KafkaConnection } from './connection.ts';
import { kafkaError, throwOnError } from './errors.ts';
import { byTopic, type TopicPartition } from './records.ts';

const TIMEOUT_MS = 30_000;
/** `ConfigResource.Type` */
const TOPIC_RESOURCE = 2;
/** `AlterConfigOp.OpType` */
const SET = 0;
const DELETE = 1;
/** The last versions whose requests name topics by name. Later ones use topic ids. */
const OFFSETS_BY_NAME_MAX = 9;
const DELETE_TOPICS_BY_NAME_MAX = 5;

export interface NewTopic {
  readonly name: string;
  /** Absent: the broker's default. */
  readonly partitionCount?: number | undefined;
  readonly replicationFactor?: number | undefined;
  readonly configs?: Readonly<Record<string, string>>;
}

export function createTopic(cluster: KafkaCluster, topic: NewTopic): Promise<void> {
  const { name, partitionCount = -1, replicationFactor = -1, configs = {} } = topic;
  return cluster.retry(async () => {
    const connection = await cluster.controller();
    const response = await connection.send(apis.CreateTopics, () => ({
      topics: [
        {
          name,
          numPartitions: partitionCount,
          replicationFactor,
          assignments: [],
          configs: Object.entries(configs).map(([key, value]) => ({ name: key, value })),
        },
      ],
      timeoutMs: TIMEOUT_MS,
    }));
    for (const answer of response.topics) {
      throwOnError(answer.errorCode, `create topic '${name}'`, answer.errorMessage);
    }
    cluster.forget();
  });
}

export function deleteTopic(cluster: KafkaCluster, name: string): Promise<void> {
  return cluster
    .retry(async () => {
      const connection = await cluster.controller();
      const response = await connection.send(apis.DeleteTopics, () => ({ topicNames: [name], timeoutMs: TIMEOUT_MS }), {
        maxVersion: DELETE_TOPICS_BY_NAME_MAX,
      });
      for (const answer of response.responses) {
        // "There is none" may pass, for a topic that is being made; here it is the answer.
        if (answer.errorCode !== 0) throw final(answer.errorCode, `delete topic '${name}'`, answer.errorMessage);
      }
      cluster.forget();
    })
    .catch(unwrapFinal);
}

/** Raises the number of partitions to `count`. */
export function addPartitions(cluster: KafkaCluster, name: string, count: number): Promise<void> {
  return cluster
    .retry(async () => {
      const connection = await cluster.controller();
      const response = await connection.send(apis.CreatePartitions, () => ({
        topics: [{ name, count, assignments: null }],
        timeoutMs: TIMEOUT_MS,
        validateOnly: false,
      }));
      for (const { errorCode, errorMessage } of response.results) {
        if (errorCode !== 0) throw final(errorCode, `partitions of topic '${name}'`, errorMessage);
      }
      cluster.forget();
    })
    .catch(unwrapFinal);
}

export interface ConfigEntry {
  readonly name: string;
  /** Null: hidden, or not set. */
  readonly value: string | null;
  /** Set for this topic, not a default. */
  readonly isOwn: boolean;
  readonly isReadOnly: boolean;
}

/** `DescribeConfigsResponse.ConfigSource.TOPIC_CONFIG` */
const SOURCE_TOPIC = 1;

export function topicConfigs(cluster: KafkaCluster, name: string): Promise<ConfigEntry[]> {
  return cluster.retry(async () => {
    const connection = await cluster.any();
    const response = await connection.send(apis.DescribeConfigs, () => ({
      resources: [{ resourceType: TOPIC_RESOURCE, resourceName: name, configurationKeys: null }],
    }));
    const result = response.results[0];
    throwOnError(result.errorCode, `configs of topic '${name}'`, result.errorMessage);
    return result.configs.map((config) => ({
      name: config.name,
      value: config.value,
      isOwn: config.configSource === SOURCE_TOPIC,
      isReadOnly: config.readOnly,
    }));
  });
}

/** Sets the configs of a topic; null takes one back to its default. Others stay as they are (KIP-339). */
export function alterTopicConfigs(
  cluster: KafkaCluster,
  name: string,
  changes: Readonly<Record<string, string | null>>,
): Promise<void> {
  return cluster
    .retry(async () => {
      const connection = await cluster.controller();
      const configs = Object.entries(changes).map(([key, value]) => ({
        name: key,
        configOperation: value === null ? DELETE : SET,
        value,
      }));
      const response = await connection.send(apis.IncrementalAlterConfigs, () => ({
        resources: [{ resourceType: TOPIC_RESOURCE, resourceName: name, configs }],
        validateOnly: false,
      }));
      for (const { errorCode, errorMessage } of response.responses) {
        if (errorCode !== 0) throw final(errorCode, `configs of topic '${name}'`, errorMessage);
      }
    })
    .catch(unwrapFinal);
}

export interface PartitionSize extends TopicPartition {
  readonly sizeBytes: number;
}

/** Bytes on the disks of all brokers, one entry for each replica. */
export function partitionSizes(cluster: KafkaCluster): Promise<PartitionSize[]> {
  return cluster.retry(async () => {
    const sizes: PartitionSize[] = [];
    for (const { id } of await cluster.brokers()) {
      const connection = await cluster.node(id);
      const response = await connection.send(apis.DescribeLogDirs, () => ({ topics: null }));
      for (const { errorCode, topics } of response.results) {
        throwOnError(errorCode, `log folders of broker ${id}`);
        for (const { name, partitions } of topics) {
          for (const { partitionIndex, partitionSize } of partitions) {
            sizes.push({ topic: name, partition: partitionIndex, sizeBytes: partitionSize });
          }
        }
      }
    }
    return sizes;
  });
}

export interface GroupListing {
  readonly groupId: string;
  readonly protocolType: string;
  /** Empty from brokers that do not say. */
  readonly state: string;
  readonly type: string;
}

/** All groups of all brokers. */
export function listGroups(cluster: KafkaCluster): Promise<GroupListing[]> {
  return cluster.retry(async () => {
    const groups: GroupListing[] = [];
    for (const { id } of await cluster.brokers()) {
      const connection = await cluster.node(id);
      const response = await connection.send(apis.ListGroups, () => ({}));
      throwOnError(response.errorCode, `groups of broker ${id}`);
      for (const { groupId, protocolType, groupState, groupType } of response.groups) {
        groups.push({ groupId, protocolType, state: groupState ?? '', type: groupType ?? '' });
      }
    }
    return groups.sort((a, b) => (a.groupId < b.groupId ? -1 : 1));
  });
}

export interface GroupMember {
  readonly memberId: string;
  readonly instanceId: string | null;
  readonly clientId: string;
  readonly clientHost: string;
  readonly partitions: readonly TopicPartition[];
}

export interface GroupInfo {
  readonly groupId: string;
  /** Kafka's words: Stable, Empty, Dead; PreparingRebalance, CompletingRebalance; Assigning, Reconciling (KIP-848). */
  readonly state: string;
  readonly protocolType: string;
  /** The assignor. */
  readonly protocol: string;
  readonly members: readonly GroupMember[];
}

/** A group of either protocol. One that does not exist is answered as Dead, or as GROUP_ID_NOT_FOUND. */
export function describeGroup(cluster: KafkaCluster, groupId: string): Promise<GroupInfo> {
  return cluster.retry(async () => {
    const connection = await cluster.coordinator(groupId);
    const consumerGroup = await describeConsumerGroup(connection, groupId);
    if (consumerGroup !== undefined) return consumerGroup;
    const response = await connection.send(apis.DescribeGroups, () => ({ groups: [groupId] }));
    const group = response.groups[0];
    throwOnError(group.errorCode, `group '${groupId}'`, group.errorMessage);
    return {
      groupId,
      state: group.groupState,
      protocolType: group.protocolType,
      protocol: group.protocolData,
      members: group.members.map((member) => ({
        memberId: member.memberId,
        instanceId: member.groupInstanceId ?? null,
        clientId: member.clientId,
        clientHost: member.clientHost,
        partitions: assignedPartitions(group, member.memberAssignment),
      })),
    };
  });
}

/** A group of the consumer protocol (KIP-848); undefined if it is none, or the broker knows none. */
async function describeConsumerGroup(connection: KafkaConnection, groupId: string): Promise<GroupInfo | undefined> {
  if (connection.version(apis.ConsumerGroupDescribe) === undefined) return undefined;
  const request = { groupIds: [groupId], includeAuthorizedOperations: false };
  const group = (await connection.send(apis.ConsumerGroupDescribe, () => request)).groups[0];
  if (group.errorCode === errors.GROUP_ID_NOT_FOUND.kafka) return undefined;
  throwOnError(group.errorCode, `group '${groupId}'`, group.errorMessage);
  return {
    groupId,
    state: group.groupState,
    protocolType: 'consumer',
    protocol: group.assignorName,
    members: group.members.map((member) => ({
      memberId: member.memberId,
      instanceId: member.instanceId,
      clientId: member.clientId,
      clientHost: member.clientHost,
      partitions: member.assignment.topicPartitions.flatMap(({ topicName, partitions }) =>
        partitions.map((partition) => ({ topic: topicName, partition })),
      ),
    })),
  };
}

/** Kafka's `ConsumerProtocolAssignment`: version, then topics with partitions; later versions only add to the end. */
function assignedPartitions({ protocolType }: DescribeGroupsResponseGroup, assignment: Buffer): TopicPartition[] {
  if (protocolType !== 'consumer' || assignment.length === 0) return [];
  const reader = new Reader(assignment);
  reader.int16();
  const partitions: TopicPartition[] = [];
  for (let topics = reader.arrayLength(); topics > 0; topics--) {
    const topic = reader.string();
    for (let count = reader.arrayLength(); count > 0; count--) partitions.push({ topic, partition: reader.int32() });
  }
  return partitions;
}

export interface CommittedOffset extends TopicPartition {
  readonly offset: number;
  readonly metadata: string | null;
}

/** All offsets that the group has committed. */
export function committedOffsets(cluster: KafkaCluster, groupId: string): Promise<CommittedOffset[]> {
  return cluster.retry(async () => {
    const connection = await cluster.coordinator(groupId);
    const response = await connection.send(
      apis.OffsetFetch,
      (version) => (version >= 8 ? { groups: [{ groupId, topics: null }] } : { groupId, topics: null }),
      { maxVersion: OFFSETS_BY_NAME_MAX },
    );
    const group = response.groups?.[0] ?? response;
    throwOnError(group.errorCode ?? 0, `offsets of group '${groupId}'`);
    const found: CommittedOffset[] = [];
    for (const { name, partitions } of group.topics) {
      for (const { partitionIndex, committedOffset, metadata, errorCode } of partitions) {
        throwOnError(errorCode, `offset of group '${groupId}' for ${name}-${partitionIndex}`);
        if (committedOffset >= 0)
          found.push({ topic: name, partition: partitionIndex, offset: committedOffset, metadata });
      }
    }
    return found;
  });
}

/** Commits from outside of the group, which the coordinator only takes while it has no members. */
export function commitOffsets(
  cluster: KafkaCluster,
  groupId: string,
  offsets: readonly (TopicPartition & { readonly offset: number })[],
): Promise<void> {
  return cluster.retry(async () => {
    const connection = await cluster.coordinator(groupId);
    const topics = byTopic(offsets, ({ partition, offset }) => ({
      partitionIndex: partition,
      committedOffset: offset,
      committedMetadata: '',
    }));
    const response = await connection.send(
      apis.OffsetCommit,
      () => ({ groupId, generationIdOrMemberEpoch: -1, memberId: '', topics }),
      { maxVersion: OFFSETS_BY_NAME_MAX },
    );
    for (const { name, partitions } of response.topics) {
      for (const { partitionIndex, errorCode } of partitions) {
        throwOnError(errorCode, `commit of group '${groupId}' for ${name}-${partitionIndex}`);
      }
    }
  });
}

export function deleteGroup(cluster: KafkaCluster, groupId: string): Promise<void> {
  return cluster.retry(async () => {
    const connection = await cluster.coordinator(groupId);
    const response = await connection.send(apis.DeleteGroups, () => ({ groupsNames: [groupId] }));
    for (const { errorCode, errorMessage } of response.results) {
      throwOnError(errorCode, `delete group '${groupId}'`, errorMessage);
    }
  });
}

/** Keeps an error that would count as passing from being repeated. */
class FinalError extends Error {
  override readonly name = 'FinalError';
}

function final(errorCode: number, what: string, detail: string | null | undefined): FinalError {
  return new FinalError(what, { cause: kafkaError(errorCode, what, detail) });
}

function unwrapFinal(error: unknown): never {
  throw error instanceof FinalError ? error.cause : error;
}
