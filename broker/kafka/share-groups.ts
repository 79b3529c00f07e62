/** Kafka's APIs for the members of share groups (KIP-932): ShareGroupHeartbeat and ShareGroupDescribe. */
import { type ErrorCode, errors, MillraceError } from '../../protocol/errors.ts';
import type {
  ShareGroupDescribeRequest,
  ShareGroupDescribeResponseInit,
  ShareGroupHeartbeatRequest,
  ShareGroupHeartbeatResponseInit,
} from '../../protocol/kafka/messages.ts';
import type { Broker } from '../broker.ts';
import type { Partitions } from '../consumer-assignors.ts';
import { SHARE_ASSIGNOR, SHARE_LEAVE_EPOCH, type ShareGroup, type ShareMember } from '../share-group.ts';
import { authorizedOperations } from './authorized-operations.ts';
import type { Call } from './call.ts';
import { failureOf } from './failure.ts';

type HeartbeatCall = Call<ShareGroupHeartbeatRequest, ShareGroupHeartbeatResponseInit>;

export function shareGroupHeartbeat(broker: Broker, call: HeartbeatCall): void {
  try {
    checkAllowed(call);
    checkRequest(call.request);
    const response = answerHeartbeat(broker, call);
    broker.groups.whenDurable(() => call.reply(response));
  } catch (error) {
    call.reply({ throttleTimeMs: 0, ...failureOf(error), memberEpoch: 0, heartbeatIntervalMs: 0 });
  }
}

function checkAllowed(call: HeartbeatCall): void {
  const { groupId, subscribedTopicNames } = call.request;
  if (!call.allows('READ', 'GROUP', groupId)) throw new MillraceError('GROUP_AUTHORIZATION_FAILED');
  for (const name of new Set(subscribedTopicNames ?? [])) {
    if (!call.allows('DESCRIBE', 'TOPIC', name)) throw new MillraceError('TOPIC_AUTHORIZATION_FAILED');
  }
}

/** What must hold for any group, with Kafka's words. */
function checkRequest({
  groupId,
  memberId,
  memberEpoch,
  rackId,
  subscribedTopicNames,
}: ShareGroupHeartbeatRequest): void {
  const invalid = (message: string): MillraceError => new MillraceError('INVALID_REQUEST', message);
  if (memberId.trim() === '') throw invalid("MemberId can't be empty.");
  if (groupId.trim() === '') throw invalid("GroupId can't be empty.");
  if (rackId !== null && rackId.trim() === '') throw invalid("RackId can't be empty.");
  if (memberEpoch < SHARE_LEAVE_EPOCH) throw invalid('MemberEpoch is invalid.');
  if (memberEpoch === 0 && (subscribedTopicNames ?? []).length === 0) {
    throw invalid('SubscribedTopicNames must be set in first request.');
  }
}

function answerHeartbeat(broker: Broker, call: HeartbeatCall): ShareGroupHeartbeatResponseInit {
  const { groupId, memberId, memberEpoch, rackId, subscribedTopicNames } = call.request;
  const answer =
    memberEpoch === SHARE_LEAVE_EPOCH
      ? broker.groups.shareLeave(groupId, memberId)
      : broker.groups.shareHeartbeat(groupId, {
          memberId,
          memberEpoch,
          clientId: call.clientId,
          clientHost: `/${call.connection.remoteHost}`,
          rackId,
          topicNames: subscribedTopicNames,
        });
  return {
    throttleTimeMs: 0,
    errorCode: 0,
    memberId: answer.memberId,
    memberEpoch: answer.memberEpoch,
    heartbeatIntervalMs: answer.heartbeatIntervalMs,
    assignment: answer.assignment && { topicPartitions: topicPartitions(answer.assignment) },
  };
}

function topicPartitions(partitions: Partitions): { topicId: string; partitions: number[] }[] {
  return [...partitions].map(([topicId, indexes]) => ({ topicId, partitions: sorted(indexes) }));
}

function sorted(indexes: Iterable<number>): number[] {
  return [...indexes].sort((a, b) => a - b);
}

type DescribeCall = Call<ShareGroupDescribeRequest, ShareGroupDescribeResponseInit>;
type DescribedGroup = ShareGroupDescribeResponseInit['groups'][number];

export function shareGroupDescribe(broker: Broker, call: DescribeCall): void {
  const described = new Set<string>();
  const groups = call.request.groupIds.map((groupId): DescribedGroup => {
    // Once is enough; a short request must not ask for an answer of any size.
    if (described.has(groupId)) return undescribed(groupId, 'INVALID_REQUEST');
    described.add(groupId);
    if (!call.allows('DESCRIBE', 'GROUP', groupId)) return undescribed(groupId, 'GROUP_AUTHORIZATION_FAILED');
    if (groupId.trim() === '') return undescribed(groupId, 'INVALID_GROUP_ID');
    const group = broker.groups.get(groupId);
    if (group?.type !== 'share') {
      const message = group === undefined ? `Group ${groupId} not found.` : `Group ${groupId} is not a share group.`;
      return undescribed(groupId, 'GROUP_ID_NOT_FOUND', message);
    }
    return describe(broker, call, group);
  });
  broker.groups.whenDurable(() => call.reply({ throttleTimeMs: 0, groups }));
}

function undescribed(groupId: string, error: ErrorCode, errorMessage: string | null = null): DescribedGroup {
  return {
    errorCode: errors[error].kafka,
    errorMessage,
    groupId,
    groupState: '',
    groupEpoch: 0,
    assignmentEpoch: 0,
    assignorName: '',
    members: [],
  };
}

function describe(broker: Broker, call: DescribeCall, group: ShareGroup): DescribedGroup {
  const members = group.members.map((member) => describeMember(broker, member));
  const names = members.flatMap(({ assignment, subscribedTopicNames }) => [
    ...subscribedTopicNames,
    ...assignment.topicPartitions.map(({ topicName }) => topicName),
  ]);
  for (const name of new Set(names)) {
    if (call.allows('DESCRIBE', 'TOPIC', name)) continue;
    const message = 'The described group uses topics that the client is not authorized to describe.';
    return undescribed(group.id, 'TOPIC_AUTHORIZATION_FAILED', message);
  }
  return {
    ...undescribed(group.id, 'NONE'),
    groupState: group.state,
    groupEpoch: group.epoch,
    assignmentEpoch: group.targetEpoch,
    assignorName: SHARE_ASSIGNOR,
    members,
    ...(call.request.includeAuthorizedOperations
      ? { authorizedOperations: authorizedOperations(call, 'GROUP', group.id) }
      : {}),
  };
}

function describeMember(broker: Broker, { id, profile, progress }: ShareMember): DescribedGroup['members'][number] {
  // Topics that are gone meanwhile have no name any more.
  const assigned = [...progress.assigned].flatMap(([topicId, indexes]) => {
    const topic = broker.topics.getById(topicId);
    return topic === undefined ? [] : [{ topicId, topicName: topic.name, partitions: sorted(indexes) }];
  });
  return {
    memberId: id,
    rackId: profile.rackId,
    memberEpoch: progress.epoch,
    clientId: profile.clientId,
    clientHost: profile.clientHost,
    subscribedTopicNames: profile.topicNames,
    assignment: { topicPartitions: assigned },
  };
}
