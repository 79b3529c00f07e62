/** Kafka's APIs of the consumer group protocol (KIP-848): ConsumerGroupHeartbeat and ConsumerGroupDescribe. */
import { MillraceError } from '../../protocol/errors.ts';
import type {
  ConsumerGroupDescribeRequest,
  ConsumerGroupDescribeResponseInit,
  ConsumerGroupHeartbeatRequest,
  ConsumerGroupHeartbeatResponseInit,
} from '../../protocol/kafka/messages.ts';
import type { Broker } from '../broker.ts';
import type { Partitions } from '../consumer-assignors.ts';
import { type ConsumerGroup, LEAVE_EPOCH, LEAVE_STATIC_EPOCH } from '../consumer-group.ts';
import type { ConsumerMember, MemberProgress } from '../consumer-member.ts';
import type { Call } from './call.ts';
import { failureOf } from './failure.ts';
import {
  checkHeartbeatAllowed,
  describedGroup,
  describeGroups,
  heartbeatResponse,
  namedPartitions,
} from './member-groups.ts';

/** From this version on members make their own ids (KIP-1082) and may subscribe by a regular expression. */
const OWN_ID_VERSION = 1;
/** What a member is in ConsumerGroupDescribe (KIP-1099). */
const CLASSIC_MEMBER = 0;
const CONSUMER_MEMBER = 1;

type HeartbeatCall = Call<ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponseInit>;

export function consumerGroupHeartbeat(broker: Broker, call: HeartbeatCall): void {
  try {
    checkHeartbeatAllowed(call);
    checkRequest(call);
    const response = answerHeartbeat(broker, call);
    broker.groups.whenDurable(() => call.reply(response));
  } catch (error) {
    call.reply({ throttleTimeMs: 0, ...failureOf(error), memberEpoch: 0, heartbeatIntervalMs: 0 });
  }
}

/** What must hold for any group, with Kafka's words. */
function checkRequest({ request, version }: HeartbeatCall): void {
  const invalid = (message: string): MillraceError => new MillraceError('INVALID_REQUEST', message);
  const { memberEpoch } = request;
  const isGiven = (text: string | null): boolean => text === null || text.trim() !== '';
  if (version >= OWN_ID_VERSION && !isGiven(request.memberId)) throw invalid("MemberId can't be empty.");
  if (!isGiven(request.groupId)) throw invalid("GroupId can't be empty.");
  if (!isGiven(request.instanceId)) throw invalid("InstanceId can't be empty.");
  if (!isGiven(request.rackId)) throw invalid("RackId can't be empty.");
  if (memberEpoch > 0 || memberEpoch === LEAVE_EPOCH) {
    if (!isGiven(request.memberId)) throw invalid("MemberId can't be empty.");
  } else if (memberEpoch === 0) {
    if (request.rebalanceTimeoutMs === -1) throw invalid('RebalanceTimeoutMs must be provided in first request.');
    if (request.topicPartitions === null || request.topicPartitions.length > 0) {
      throw invalid('TopicPartitions must be empty when (re-)joining.');
    }
    if (request.subscribedTopicNames === null && request.subscribedTopicRegex === null) {
      throw invalid('Either SubscribedTopicNames or SubscribedTopicRegex must be non-null when (re-)joining.');
    }
  } else if (memberEpoch === LEAVE_STATIC_EPOCH) {
    if (!isGiven(request.memberId)) throw invalid("MemberId can't be empty.");
    if (request.instanceId === null) throw invalid("InstanceId can't be null.");
  } else {
    throw invalid(`MemberEpoch is invalid.`);
  }
}

function answerHeartbeat(broker: Broker, call: HeartbeatCall): ConsumerGroupHeartbeatResponseInit {
  const { request, version } = call;
  const { groupId, instanceId, memberEpoch } = request;
  broker.groups.checkAssignor(request.serverAssignor);
  const isLeaving = memberEpoch === LEAVE_EPOCH || memberEpoch === LEAVE_STATIC_EPOCH;
  const memberId = request.memberId === '' && version < OWN_ID_VERSION ? broker.groups.newMemberId() : request.memberId;
  const answer = isLeaving
    ? broker.groups.consumerLeave(groupId, { memberId, instanceId, memberEpoch })
    : broker.groups.consumerHeartbeat({
        groupId,
        memberId,
        memberEpoch,
        clientId: call.clientId,
        clientHost: `/${call.connection.remoteHost}`,
        instanceId,
        rackId: request.rackId,
        rebalanceTimeoutMs: request.rebalanceTimeoutMs,
        topicNames: request.subscribedTopicNames,
        topicRegex: request.subscribedTopicRegex,
        assignor: request.serverAssignor,
        owned: request.topicPartitions === null ? null : partitionsOf(request.topicPartitions),
        canSee: (topic) => call.allows('DESCRIBE', 'TOPIC', topic),
      });
  return heartbeatResponse(answer);
}

function partitionsOf(topics: readonly { topicId: string; partitions: readonly number[] }[]): Partitions {
  const owned = new Map<string, Set<number>>();
  for (const { topicId, partitions } of topics) {
    owned.set(topicId, new Set([...(owned.get(topicId) ?? []), ...partitions]));
  }
  return owned;
}

type DescribeCall = Call<ConsumerGroupDescribeRequest, ConsumerGroupDescribeResponseInit>;

export function consumerGroupDescribe(broker: Broker, call: DescribeCall): void {
  const groups = describeGroups(broker, call, 'consumer', (group) => {
    const members = group.members.map((member) => describeMember(broker, group, member));
    const topicNames = members.flatMap(({ assignment, targetAssignment, subscribedTopicNames }) => [
      ...subscribedTopicNames,
      ...assignment.topicPartitions.map(({ topicName }) => topicName),
      ...targetAssignment.topicPartitions.map(({ topicName }) => topicName),
    ]);
    return describedGroup(call, group, { assignorName: group.assignorName, members, topicNames });
  });
  broker.groups.whenDurable(() => call.reply({ throttleTimeMs: 0, groups }));
}

function heldBy({ assigned, revoking }: MemberProgress): Map<string, Map<number, number>> {
  const held = new Map<string, Map<number, number>>();
  for (const partitions of [assigned, revoking]) {
    for (const [topicId, epochs] of partitions) held.set(topicId, new Map([...(held.get(topicId) ?? []), ...epochs]));
  }
  return held;
}

function describeMember(broker: Broker, group: ConsumerGroup, { id, profile, progress }: ConsumerMember) {
  return {
    memberId: id,
    instanceId: profile.instanceId,
    rackId: profile.rackId,
    memberEpoch: progress.epoch,
    clientId: profile.clientId,
    clientHost: profile.clientHost,
    subscribedTopicNames: profile.topicNames,
    subscribedTopicRegex: profile.topicRegex ?? '',
    // As Kafka: what the member is to give up is its own until it has done so.
    assignment: { topicPartitions: namedPartitions(broker, heldBy(progress)) },
    targetAssignment: { topicPartitions: namedPartitions(broker, group.target(id)) },
    memberType: profile.classic === null ? CONSUMER_MEMBER : CLASSIC_MEMBER,
  };
}
