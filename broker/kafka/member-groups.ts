/**
 * What the handlers of consumer groups (KIP-848) and share groups (KIP-932) have in common: heartbeats that carry a
 * subscription and bring an assignment, and how a group is described.
 */
import { type ErrorCode, errors, MillraceError } from '../../protocol/errors.ts';
import type { Broker } from '../broker.ts';
import type { Partitions } from '../consumer-assignors.ts';
import type { AnyGroup } from '../group-store.ts';
import { authorizedOperations } from './authorized-operations.ts';
import type { Call } from './call.ts';

interface HeartbeatRequest {
  readonly groupId: string;
  readonly subscribedTopicNames: readonly string[] | null;
}

export function checkHeartbeatAllowed<Response>(call: Call<HeartbeatRequest, Response>): void {
  const { groupId, subscribedTopicNames } = call.request;
  if (!call.allows('READ', 'GROUP', groupId)) throw new MillraceError('GROUP_AUTHORIZATION_FAILED');
  for (const name of new Set(subscribedTopicNames ?? [])) {
    if (!call.allows('DESCRIBE', 'TOPIC', name)) throw new MillraceError('TOPIC_AUTHORIZATION_FAILED');
  }
}

/** What a coordinator answers to a heartbeat, as both protocols write it. */
export function heartbeatResponse<
  Answer extends { memberId: string; memberEpoch: number; heartbeatIntervalMs: number; assignment: Partitions | null },
>({ memberId, memberEpoch, heartbeatIntervalMs, assignment }: Answer) {
  return {
    throttleTimeMs: 0,
    errorCode: 0,
    memberId,
    memberEpoch,
    heartbeatIntervalMs,
    assignment: assignment && {
      topicPartitions: [...assignment].map(([topicId, indexes]) => ({ topicId, partitions: sorted(indexes) })),
    },
  };
}

export interface NamedPartitions {
  topicId: string;
  topicName: string;
  partitions: number[];
}

/** With the names of their topics; topics that are gone meanwhile have none any more and are left out. */
export function namedPartitions(
  broker: Broker,
  partitions: Iterable<readonly [topicId: string, indexes: { keys(): Iterable<number> }]>,
): NamedPartitions[] {
  return [...partitions].flatMap(([topicId, indexes]) => {
    const topic = broker.topics.getById(topicId);
    return topic === undefined ? [] : [{ topicId, topicName: topic.name, partitions: sorted(indexes.keys()) }];
  });
}

function sorted(indexes: Iterable<number>): number[] {
  return [...indexes].sort((a, b) => a - b);
}

interface DescribeRequest {
  readonly groupIds: readonly string[];
  readonly includeAuthorizedOperations: boolean;
}

export interface DescribedGroup<Member> {
  errorCode: number;
  errorMessage: string | null;
  groupId: string;
  groupState: string;
  groupEpoch: number;
  assignmentEpoch: number;
  assignorName: string;
  members: Member[];
  authorizedOperations?: number;
}

/** Describes the groups of a request that are of this type; the others are not found. */
export function describeGroups<Type extends AnyGroup['type'], Response, Member>(
  broker: Broker,
  call: Call<DescribeRequest, Response>,
  type: Type,
  describe: (group: Extract<AnyGroup, { type: Type }>) => DescribedGroup<Member>,
): DescribedGroup<Member>[] {
  const described = new Set<string>();
  return call.request.groupIds.map((groupId) => {
    // Once is enough; a short request must not ask for an answer of any size.
    if (described.has(groupId)) return undescribed(groupId, 'INVALID_REQUEST');
    described.add(groupId);
    if (!call.allows('DESCRIBE', 'GROUP', groupId)) return undescribed(groupId, 'GROUP_AUTHORIZATION_FAILED');
    if (groupId.trim() === '') return undescribed(groupId, 'INVALID_GROUP_ID');
    const group = broker.groups.get(groupId);
    if (group?.type !== type) {
      const message = group === undefined ? `Group ${groupId} not found.` : `Group ${groupId} is not a ${type} group.`;
      return undescribed(groupId, 'GROUP_ID_NOT_FOUND', message);
    }
    // Its type has been compared; TypeScript does not narrow by a type parameter.
    return describe(group as Extract<AnyGroup, { type: Type }>);
  });
}

/** A group with its members, unless one of `topicNames` is hidden from the client. */
export function describedGroup<Response, Member>(
  call: Call<DescribeRequest, Response>,
  group: { readonly id: string; readonly state: string; readonly epoch: number; readonly targetEpoch: number },
  { assignorName, members, topicNames }: { assignorName: string; members: Member[]; topicNames: Iterable<string> },
): DescribedGroup<Member> {
  for (const name of new Set(topicNames)) {
    if (call.allows('DESCRIBE', 'TOPIC', name)) continue;
    const message = 'The described group uses topics that the client is not authorized to describe.';
    return undescribed(group.id, 'TOPIC_AUTHORIZATION_FAILED', message);
  }
  return {
    ...undescribed<Member>(group.id, 'NONE'),
    groupState: group.state,
    groupEpoch: group.epoch,
    assignmentEpoch: group.targetEpoch,
    assignorName,
    members,
    ...(call.request.includeAuthorizedOperations
      ? { authorizedOperations: authorizedOperations(call, 'GROUP', group.id) }
      : {}),
  };
}

function undescribed<Member>(
  groupId: string,
  error: ErrorCode,
  errorMessage: string | null = null,
): DescribedGroup<Member> {
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
