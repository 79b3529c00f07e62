/**
 * Kafka's group APIs: FindCoordinator, JoinGroup, SyncGroup, Heartbeat, LeaveGroup, DescribeGroups, ListGroups and
 * DeleteGroups. They turn requests into calls of the coordinator and its answers into each version's form.
 */
import { type ErrorCode, errors } from '../../protocol/errors.ts';
import type {
  DeleteGroupsRequest,
  DeleteGroupsResponseInit,
  DescribeGroupsRequest,
  DescribeGroupsResponseInit,
  FindCoordinatorRequest,
  FindCoordinatorResponseInit,
  HeartbeatRequest,
  HeartbeatResponseInit,
  JoinGroupRequest,
  JoinGroupResponseInit,
  LeaveGroupRequest,
  LeaveGroupResponseInit,
  ListGroupsRequest,
  ListGroupsResponseInit,
  SyncGroupRequest,
  SyncGroupResponseInit,
} from '../../protocol/kafka/messages.ts';
import type { Broker } from '../broker.ts';
import type { Group } from '../group.ts';
import { type JoinAnswer, metadataFor, NO_BYTES, refusedJoin, refusedSync, type SyncAnswer } from '../group-member.ts';
import { authorizedOperations, CLUSTER } from './authorized-operations.ts';
import type { Call, ResourceType } from './call.ts';

/** What a coordinator is asked for; 2 is a partition of a share group (KIP-932), a key between brokers. */
const COORDINATOR_TYPES: ReadonlyMap<number, ResourceType> = new Map([
  [0, 'GROUP'],
  [1, 'TRANSACTIONAL_ID'],
  [2, 'CLUSTER'],
]);
const SHARE_MIN_VERSION = 6;
/** `group:topic id in base64:partition` */
const SHARE_KEY = /^.+:[\w-]{22}:\d+$/;

/** "Not asked for" in authorized operations (KIP-430). */
const NO_OPERATIONS = -2_147_483_648;

export function findCoordinator(broker: Broker, call: Call<FindCoordinatorRequest, FindCoordinatorResponseInit>): void {
  const { key, keyType, coordinatorKeys } = call.request;
  const type = keyType === 2 && call.version < SHARE_MIN_VERSION ? undefined : COORDINATOR_TYPES.get(keyType);
  const find = (wanted: string): { errorCode: number; nodeId: number; host: string; port: number; text: string } => {
    const error = findError(call, type, wanted);
    const { text } = errors[error];
    if (error !== 'NONE') return { errorCode: errors[error].kafka, nodeId: -1, host: '', port: -1, text };
    return { errorCode: 0, nodeId: broker.options['node.id'], ...broker.advertised(call.connection), text: 'NONE' };
  };
  if (call.version < 4) {
    const { text, ...found } = find(key);
    return call.reply({ ...found, errorMessage: text });
  }
  call.reply({
    coordinators: coordinatorKeys.map((wanted) => {
      const { text, ...found } = find(wanted);
      return { key: wanted, ...found, errorMessage: found.errorCode === 0 ? '' : text };
    }),
  });
}

function findError(call: Call<unknown, unknown>, type: ResourceType | undefined, name: string): ErrorCode {
  if (type === undefined || (type === 'CLUSTER' && !SHARE_KEY.test(name))) return 'INVALID_REQUEST';
  if (type === 'CLUSTER') return call.allows('CLUSTER_ACTION', type, CLUSTER) ? 'NONE' : 'CLUSTER_AUTHORIZATION_FAILED';
  if (call.allows('DESCRIBE', type, name)) return 'NONE';
  return type === 'GROUP' ? 'GROUP_AUTHORIZATION_FAILED' : 'TRANSACTIONAL_ID_AUTHORIZATION_FAILED';
}

export function joinGroup(broker: Broker, call: Call<JoinGroupRequest, JoinGroupResponseInit>): void {
  const { request, version } = call;
  const reply = (answer: JoinAnswer): void =>
    call.reply({
      errorCode: errors[answer.error].kafka,
      generationId: answer.generation,
      protocolType: answer.protocolType,
      protocolName: answer.protocolName ?? (version >= 7 ? null : ''),
      leader: answer.leaderId,
      skipAssignment: answer.skipAssignment,
      memberId: answer.memberId,
      members: answer.members,
    });
  if (!call.allows('READ', 'GROUP', request.groupId)) return reply(refusedJoin('GROUP_AUTHORIZATION_FAILED', ''));
  broker.groups.join(
    {
      groupId: request.groupId,
      memberId: request.memberId,
      instanceId: request.groupInstanceId,
      clientId: call.clientId,
      clientHost: `/${call.connection.remoteHost}`,
      sessionTimeoutMs: request.sessionTimeoutMs,
      rebalanceTimeoutMs: version === 0 ? request.sessionTimeoutMs : request.rebalanceTimeoutMs,
      protocolType: request.protocolType,
      protocols: request.protocols,
      requiresKnownMember: version >= 4,
      canSkipAssignment: version >= 9,
    },
    reply,
  );
}

export function syncGroup(broker: Broker, call: Call<SyncGroupRequest, SyncGroupResponseInit>): void {
  const { request, version } = call;
  const reply = (answer: SyncAnswer): void =>
    call.reply({
      errorCode: errors[answer.error].kafka,
      protocolType: answer.protocolType,
      protocolName: answer.protocolName,
      assignment: answer.assignment,
    });
  // KIP-559 makes both mandatory.
  if (version >= 5 && (request.protocolType === null || request.protocolName === null)) {
    return reply(refusedSync('INCONSISTENT_GROUP_PROTOCOL'));
  }
  if (!call.allows('READ', 'GROUP', request.groupId)) return reply(refusedSync('GROUP_AUTHORIZATION_FAILED'));
  broker.groups.sync(
    {
      groupId: request.groupId,
      generation: request.generationId,
      memberId: request.memberId,
      instanceId: request.groupInstanceId,
      protocolType: request.protocolType,
      protocolName: request.protocolName,
      assignments: request.assignments,
    },
    reply,
  );
}

export function heartbeat(broker: Broker, call: Call<HeartbeatRequest, HeartbeatResponseInit>): void {
  const { groupId, generationId, memberId, groupInstanceId } = call.request;
  const error = call.allows('READ', 'GROUP', groupId)
    ? broker.groups.heartbeat({ groupId, generation: generationId, memberId, instanceId: groupInstanceId })
    : 'GROUP_AUTHORIZATION_FAILED';
  call.reply({ errorCode: errors[error].kafka });
}

export function leaveGroup(broker: Broker, call: Call<LeaveGroupRequest, LeaveGroupResponseInit>): void {
  const { groupId, memberId, members } = call.request;
  const leaving = call.version < 3 ? [{ memberId, groupInstanceId: null }] : members;
  const result = call.allows('READ', 'GROUP', groupId)
    ? broker.groups.leave(
        groupId,
        leaving.map((member) => ({ memberId: member.memberId, instanceId: member.groupInstanceId })),
      )
    : 'GROUP_AUTHORIZATION_FAILED';
  if (typeof result === 'string') return call.reply({ errorCode: errors[result].kafka });
  const response =
    call.version < 3
      ? { errorCode: errors[result[0]].kafka }
      : {
          errorCode: 0,
          members: leaving.map((member, index) => ({
            memberId: member.memberId,
            groupInstanceId: member.groupInstanceId,
            errorCode: errors[result[index]].kafka,
          })),
        };
  broker.groups.whenDurable(() => call.reply(response));
}

type DescribedGroup = DescribeGroupsResponseInit['groups'][number];

export function describeGroups(broker: Broker, call: Call<DescribeGroupsRequest, DescribeGroupsResponseInit>): void {
  const described = new Set<string>();
  const groups = call.request.groups.map((groupId) => {
    // Once is enough; a short request must not ask for an answer of any size.
    if (described.has(groupId)) return undescribed(groupId, 'INVALID_REQUEST', '');
    described.add(groupId);
    if (!call.allows('DESCRIBE', 'GROUP', groupId)) return undescribed(groupId, 'GROUP_AUTHORIZATION_FAILED', '');
    const group = broker.groups.get(groupId);
    // Before version 6 an unknown group is one that is Dead (KIP-1043).
    if (group === undefined && call.version >= 6) {
      return undescribed(groupId, 'GROUP_ID_NOT_FOUND', 'Dead', `Group ${groupId} not found.`);
    }
    if (group !== undefined && group.type !== 'classic' && call.version >= 6) {
      return undescribed(groupId, 'GROUP_ID_NOT_FOUND', 'Dead', `Group ${groupId} is not a classic group.`);
    }
    const answer = group?.type === 'classic' ? describe(group) : undescribed(groupId, 'NONE', 'Dead');
    if (!call.request.includeAuthorizedOperations) return answer;
    return { ...answer, authorizedOperations: authorizedOperations(call, 'GROUP', groupId) };
  });
  broker.groups.whenDurable(() => call.reply({ groups }));
}

function undescribed(groupId: string, error: ErrorCode, groupState: string, errorMessage?: string): DescribedGroup {
  return {
    errorCode: errors[error].kafka,
    errorMessage: errorMessage ?? null,
    groupId,
    groupState,
    protocolType: '',
    protocolData: '',
    members: [],
    authorizedOperations: NO_OPERATIONS,
  };
}

function describe(group: Group): DescribedGroup {
  // Protocol and metadata belong together only when all have agreed.
  const isStable = group.state === 'Stable';
  return {
    ...undescribed(group.id, 'NONE', group.state),
    protocolType: group.protocolType,
    protocolData: isStable ? group.protocolName : '',
    members: group.members.map((member) => ({
      memberId: member.id,
      groupInstanceId: member.instanceId,
      clientId: member.clientId,
      clientHost: member.clientHost,
      memberMetadata: isStable ? metadataFor(member, group.protocolName) : NO_BYTES,
      memberAssignment: member.assignment,
    })),
  };
}

export function listGroups(broker: Broker, call: Call<ListGroupsRequest, ListGroupsResponseInit>): void {
  const states = new Set(call.request.statesFilter.map((state) => state.toLowerCase()));
  const types = new Set(call.request.typesFilter.map((type) => type.toLowerCase()));
  const groups: { groupId: string; protocolType: string; groupState: string; groupType: string }[] = [];
  const seesAll = call.allows('DESCRIBE', 'CLUSTER', CLUSTER);
  for (const { id, state, protocolType, type } of broker.groups.groups()) {
    if (types.size > 0 && !types.has(type)) continue;
    if (states.size > 0 && !states.has(state.toLowerCase())) continue;
    if (!seesAll && !call.allows('DESCRIBE', 'GROUP', id)) continue;
    groups.push({ groupId: id, protocolType, groupState: state, groupType: type });
  }
  broker.groups.whenDurable(() => call.reply({ errorCode: 0, groups }));
}

export function deleteGroups(broker: Broker, call: Call<DeleteGroupsRequest, DeleteGroupsResponseInit>): void {
  const results = [...new Set(call.request.groupsNames)].map((groupId) => {
    const isAllowed = call.allows('DELETE', 'GROUP', groupId);
    const error = isAllowed ? broker.groups.deleteGroup(groupId) : 'GROUP_AUTHORIZATION_FAILED';
    return { groupId, errorCode: errors[error].kafka };
  });
  broker.groups.whenDurable(() => call.reply({ results }));
}
