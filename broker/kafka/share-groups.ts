/** Kafka's APIs for the members of share groups (KIP-932): ShareGroupHeartbeat and ShareGroupDescribe. */
import { MillraceError } from '../../protocol/errors.ts';
import type {
  ShareGroupDescribeRequest,
  ShareGroupDescribeResponseInit,
  ShareGroupHeartbeatRequest,
  ShareGroupHeartbeatResponseInit,
} from '../../protocol/kafka/messages.ts';
import type { Broker } from '../broker.ts';
import { SHARE_ASSIGNOR, SHARE_LEAVE_EPOCH, type ShareMember } from '../share-group.ts';
import type { Call } from './call.ts';
import { failureOf } from './failure.ts';
import {
  checkHeartbeatAllowed,
  describedGroup,
  describeGroups,
  heartbeatResponse,
  namedPartitions,
} from './member-groups.ts';

type HeartbeatCall = Call<ShareGroupHeartbeatRequest, ShareGroupHeartbeatResponseInit>;

export function shareGroupHeartbeat(broker: Broker, call: HeartbeatCall): void {
  try {
    checkHeartbeatAllowed(call);
    checkRequest(call.request);
    const response = answerHeartbeat(broker, call);
    broker.groups.whenDurable(() => call.reply(response));
  } catch (error) {
    call.reply({ throttleTimeMs: 0, ...failureOf(error), memberEpoch: 0, heartbeatIntervalMs: 0 });
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
  return heartbeatResponse(answer);
}

type DescribeCall = Call<ShareGroupDescribeRequest, ShareGroupDescribeResponseInit>;

export function shareGroupDescribe(broker: Broker, call: DescribeCall): void {
  const groups = describeGroups(broker, call, 'share', (group) => {
    const members = group.members.map((member) => describeMember(broker, member));
    const topicNames = members.flatMap(({ assignment, subscribedTopicNames }) => [
      ...subscribedTopicNames,
      ...assignment.topicPartitions.map(({ topicName }) => topicName),
    ]);
    return describedGroup(call, group, { assignorName: SHARE_ASSIGNOR, members, topicNames });
  });
  broker.groups.whenDurable(() => call.reply({ throttleTimeMs: 0, groups }));
}

function describeMember(broker: Broker, { id, profile, progress }: ShareMember) {
  return {
    memberId: id,
    rackId: profile.rackId,
    memberEpoch: progress.epoch,
    clientId: profile.clientId,
    clientHost: profile.clientHost,
    subscribedTopicNames: profile.topicNames,
    assignment: { topicPartitions: namedPartitions(broker, progress.assigned) },
  };
}
