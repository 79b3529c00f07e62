/**
 * ShareAcknowledge (API 79, KIP-932), and what it has in common with the acknowledgements that ride in ShareFetch: ranges of
 * offsets with what became of them, turned into settlements of the queue. Those of a partition are settled together or not
 * at all.
 */
import { MillraceError } from '../../protocol/errors.ts';
import type {
  ShareAcknowledgeRequest,
  ShareAcknowledgeResponseInit,
  ShareFetchRequest,
} from '../../protocol/kafka/messages.ts';
import type { Broker } from '../broker.ts';
import type { Settlement, SettleKind } from '../queue.ts';
import type { QueuePartition } from '../queues.ts';
import type { Call } from './call.ts';
import { failureOf } from './failure.ts';
import { CLOSE_EPOCH, memberOf, OPEN_EPOCH, type ShareSession, type ShareSessions } from './share-sessions.ts';

type ShareRequest = ShareFetchRequest | ShareAcknowledgeRequest;
type AcknowledgementBatch = ShareRequest['topics'][number]['partitions'][number]['acknowledgementBatches'][number];

/** By Kafka's number. */
const KINDS: readonly SettleKind[] = ['gap', 'accept', 'release', 'reject', 'renew'];
const RENEW = KINDS.indexOf('renew');
/** In answers that are not about another leader. */
export const NO_LEADER = { leaderId: 0, leaderEpoch: 0 };

/** What became of the acknowledgements of one partition. */
export interface Acknowledged {
  readonly topicId: string;
  readonly partitionIndex: number;
  /** 0: they are settled. */
  readonly errorCode: number;
  readonly errorMessage: string | null;
}

/** Settles what the request acknowledges: one answer for each partition that it has acknowledgements for. */
export function acknowledge(
  broker: Broker,
  session: ShareSession,
  request: ShareRequest,
  allows: (topic: string) => boolean,
): Acknowledged[] {
  const results: Acknowledged[] = [];
  for (const { topicId, partitions } of request.topics) {
    for (const { partitionIndex, acknowledgementBatches } of partitions) {
      if (acknowledgementBatches.length === 0) continue;
      let failure: { errorCode: number; errorMessage: string | null } = { errorCode: 0, errorMessage: null };
      try {
        const settlements = settlementsOf(acknowledgementBatches, {
          canRenew: request.isRenewAck,
          nowMs: broker.clock.now(),
          lockMs: session.lockMs,
        });
        const partition = partitionOf(broker, session, topicId, partitionIndex, allows);
        checkRenewal(broker, session, settlements);
        const held = heldPart(partition, settlements);
        if (held.length > 0) partition.queue.settle(session.consumer, partitionIndex, held);
      } catch (error) {
        failure = failureOf(error);
      }
      results.push({ topicId, partitionIndex, ...failure });
    }
  }
  return results;
}

/** Whether any partition comes with acknowledgements. */
export function hasAcknowledgements({ topics }: ShareRequest): boolean {
  return topics.some(({ partitions }) => partitions.some((one) => one.acknowledgementBatches.length > 0));
}

function partitionOf(
  broker: Broker,
  session: ShareSession,
  topicId: string,
  index: number,
  allows: (topic: string) => boolean,
): QueuePartition {
  const topic = broker.topics.getById(topicId);
  if (topic === undefined) throw new MillraceError('UNKNOWN_TOPIC_ID');
  if (!allows(topic.name)) throw new MillraceError('TOPIC_AUTHORIZATION_FAILED');
  const partition = broker.queues.findShareQueue(session.group, topicId)?.partition(index);
  if (partition === undefined) throw new MillraceError('UNKNOWN_TOPIC_OR_PARTITION');
  return partition;
}

function settlementsOf(
  batches: readonly AcknowledgementBatch[],
  { canRenew, nowMs, lockMs }: { canRenew: boolean; nowMs: number; lockMs: number },
): Settlement[] {
  const settlements: Settlement[] = [];
  for (const { firstOffset, lastOffset, acknowledgeTypes: types, releaseDelayMs, rejectReason } of batches) {
    const count = lastOffset - firstOffset + 1;
    const isRange = firstOffset >= 0 && count > 0;
    if (!isRange || (types.length !== 1 && types.length !== count)) throw new MillraceError('INVALID_REQUEST');
    for (let from = 0; from < types.length; ) {
      const type = types[from];
      const kind = KINDS[type];
      if (kind === undefined || (type === RENEW && !canRenew)) throw new MillraceError('INVALID_REQUEST');
      let to = from + 1;
      while (to < types.length && types[to] === type) to++;
      const last = types.length === 1 ? lastOffset : firstOffset + to - 1;
      const range = { firstOffset: firstOffset + from, lastOffset: last, kind };
      from = to;
      if (kind === 'renew') settlements.push({ ...range, untilMs: nowMs + lockMs });
      else if (kind === 'release' && releaseDelayMs > 0)
        settlements.push({ ...range, untilMs: nowMs + releaseDelayMs });
      else if (kind === 'reject' && rejectReason !== null) settlements.push({ ...range, reason: rejectReason });
      else settlements.push(range);
    }
  }
  return settlements;
}

function checkRenewal(broker: Broker, { group }: ShareSession, settlements: readonly Settlement[]): void {
  if (!settlements.some(({ kind }) => kind === 'renew')) return;
  if (broker.topics.groupConfigs.get(group).canRenewAcknowledge) return;
  const message = 'Renewing acquisition locks is not enabled for the group.';
  throw new MillraceError('INVALID_RECORD_STATE', message);
}

/** As Kafka: what is below the start is done, whoever did it; nothing above what was handed out can be acknowledged. */
function heldPart({ startOffset, nextOffset }: QueuePartition, settlements: readonly Settlement[]): Settlement[] {
  const held: Settlement[] = [];
  for (const settlement of settlements) {
    if (settlement.lastOffset >= nextOffset) {
      const message = `Offset ${settlement.lastOffset} was not acquired: nothing from ${nextOffset} on was.`;
      // With nothing in flight Kafka's words are others.
      throw new MillraceError(nextOffset > startOffset ? 'INVALID_REQUEST' : 'INVALID_RECORD_STATE', message);
    }
    if (settlement.lastOffset < startOffset) continue;
    held.push(settlement.firstOffset >= startOffset ? settlement : { ...settlement, firstOffset: startOffset });
  }
  return held;
}

type AcknowledgeCall = Call<ShareAcknowledgeRequest, ShareAcknowledgeResponseInit>;

export function shareAcknowledge(broker: Broker, call: AcknowledgeCall, sessions: ShareSessions): void {
  const { request } = call;
  try {
    const session = sessionOf(call, sessions);
    const results = acknowledge(broker, session, request, (topic) => call.allows('READ', 'TOPIC', topic));
    const { lockMs } = session;
    if (request.shareSessionEpoch === CLOSE_EPOCH) sessions.close(session, false);
    broker.queues.whenDurable(() => call.reply(answer(results, lockMs)));
  } catch (error) {
    call.reply({
      throttleTimeMs: 0,
      ...failureOf(error),
      acquisitionLockTimeoutMs: 0,
      responses: [],
      nodeEndpoints: [],
    });
  }
}

function sessionOf(call: AcknowledgeCall, sessions: ShareSessions): ShareSession {
  const { groupId, memberId } = memberOf(call.request);
  const { shareSessionEpoch: epoch } = call.request;
  if (!call.allows('READ', 'GROUP', groupId)) throw new MillraceError('GROUP_AUTHORIZATION_FAILED');
  // Only a fetch opens one.
  if (epoch === OPEN_EPOCH) throw new MillraceError('INVALID_SHARE_SESSION_EPOCH');
  const session = sessions.next(groupId, memberId, epoch);
  if (epoch !== CLOSE_EPOCH) {
    session.advance();
    sessions.bind(session, call.connection);
  }
  return session;
}

function answer(results: readonly Acknowledged[], lockMs: number): ShareAcknowledgeResponseInit {
  type Topic = ShareAcknowledgeResponseInit['responses'][number];
  const topics = new Map<string, { topicId: string; partitions: Topic['partitions'][number][] }>();
  for (const { topicId, ...result } of results) {
    const topic = topics.get(topicId) ?? { topicId, partitions: [] };
    topics.set(topicId, topic);
    topic.partitions.push({ ...result, currentLeader: NO_LEADER });
  }
  const responses = [...topics.values()];
  return { throttleTimeMs: 0, errorCode: 0, acquisitionLockTimeoutMs: lockMs, responses, nodeEndpoints: [] };
}
