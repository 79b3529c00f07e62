/**
 * ShareFetch (API 78, KIP-932): settles what the request acknowledges, then hands out messages of the session's partitions
 * to the member, waiting for some if there are none.
 *
 * The queues decide what the member gets, in their serve loop at the end of the turn (`queue-serving.ts`); the answer is made
 * of whole stored batches where it can be (`queue-reader.ts`) and leaves when what was acknowledged is durable and what was
 * acquired may leave (`QueueRegistry.whenLeased`).
 */
import type { Payload } from '../../protocol/bytes.ts';
import { kafkaCode, MillraceError } from '../../protocol/errors.ts';
import type { ShareFetchRequest, ShareFetchResponseInit } from '../../protocol/kafka/messages.ts';
import type { Timer } from '../../storage/clock.ts';
import type { Broker } from '../broker.ts';
import type { AcquiredRun, Acquisition } from '../queue.ts';
import type { QueuedBatches } from '../queue-reader.ts';
import type { Queue, QueuePartition } from '../queues.ts';
import type { Call } from './call.ts';
import { failureOf } from './failure.ts';
import type { ChunksSplice } from './fetch.ts';
import { acknowledge, type Acknowledged, hasAcknowledgements, NO_LEADER } from './share-acknowledge.ts';
import {
  CLOSE_EPOCH,
  memberOf,
  OPEN_EPOCH,
  type SessionTaker,
  type ShareSession,
  type ShareSessions,
} from './share-sessions.ts';

export type ShareFetchCall = Call<ShareFetchRequest, ShareFetchResponseInit>;
type PartitionAnswer = ShareFetchResponseInit['responses'][number]['partitions'][number];

/** Acquire modes of KIP-1206: up to the end of a batch, or exactly as many as asked for. */
const BATCH_OPTIMIZED = 0;
const RECORD_LIMIT = 1;
const NO_RECORDS = Buffer.alloc(0);
/** Delivery counts are int16. */
const DELIVERY_COUNT_MAX = 32_767;

export function shareFetch(broker: Broker, call: ShareFetchCall, sessions: ShareSessions): void {
  const { request } = call;
  const allows = (topic: string): boolean => call.allows('READ', 'TOPIC', topic);
  try {
    const session = sessionOf(call, sessions);
    const fetch = new ShareFetch(broker, call, session);
    fetch.note(acknowledge(broker, session, request, allows));
    if (request.shareSessionEpoch === CLOSE_EPOCH) {
      sessions.close(session, false);
      return fetch.answer();
    }
    for (const { topicId, partitions } of request.topics) {
      for (const { partitionIndex } of partitions) session.add(topicId, partitionIndex);
    }
    for (const { topicId, partitions } of request.forgottenTopicsData) session.forget(topicId, partitions);
    sessions.count(session);
    session.join(allows, (topicId, index, error) => fetch.refuse(topicId, index, error));
    fetch.start();
  } catch (error) {
    const failure = failureOf(error);
    call.reply({ throttleTimeMs: 0, ...failure, acquisitionLockTimeoutMs: 0, responses: [], nodeEndpoints: [] });
  }
}

function sessionOf(call: ShareFetchCall, sessions: ShareSessions): ShareSession {
  const { request } = call;
  const { groupId, memberId } = memberOf(request);
  const { shareSessionEpoch: epoch } = request;
  if (!call.allows('READ', 'GROUP', groupId)) throw new MillraceError('GROUP_AUTHORIZATION_FAILED');
  const { shareAcquireMode, isRenewAck, maxBytes, minBytes, maxRecords, maxWaitMs } = request;
  if (shareAcquireMode !== BATCH_OPTIMIZED && shareAcquireMode !== RECORD_LIMIT) {
    throw new MillraceError('INVALID_REQUEST', `There is no acquire mode ${shareAcquireMode}.`);
  }
  // KIP-1222: who renews fetches nothing.
  if (isRenewAck && (maxBytes !== 0 || minBytes !== 0 || maxRecords !== 0 || maxWaitMs !== 0)) {
    throw new MillraceError('INVALID_REQUEST', 'A request that renews locks must not ask for records.');
  }
  if (epoch === OPEN_EPOCH && hasAcknowledgements(request)) {
    throw new MillraceError('INVALID_REQUEST', 'A request that opens a session must not acknowledge.');
  }
  const session = epoch === OPEN_EPOCH ? sessions.open(groupId, memberId) : sessions.next(groupId, memberId, epoch);
  if (epoch === CLOSE_EPOCH) return session;
  if (epoch !== OPEN_EPOCH) session.advance();
  sessions.bind(session, call.connection);
  return session;
}

/** What the member got of one partition. */
interface Taken {
  readonly partition: QueuePartition;
  runs: AcquiredRun[];
  batches: QueuedBatches | undefined;
  errorCode: number;
}

/** One request from its arrival to its answer. */
class ShareFetch implements SessionTaker {
  readonly #broker: Broker;
  readonly #call: ShareFetchCall;
  readonly #session: ShareSession;
  readonly #lockMs: number;
  /** Topic id → partition → answer, of all that the answer names. */
  readonly #answers = new Map<string, Map<number, PartitionAnswer>>();
  readonly #taken = new Map<QueuePartition, Taken>();
  /** What must be durable before the answer leaves. */
  #waitCount = 0;
  #isRead = false;
  #isDone = false;
  #timer: Timer | undefined;
  #withdrawals: (() => void)[] = [];

  constructor(broker: Broker, call: ShareFetchCall, session: ShareSession) {
    this.#broker = broker;
    this.#call = call;
    this.#session = session;
    this.#lockMs = session.lockMs;
  }

  /** What became of the acknowledgements. */
  note(results: readonly Acknowledged[]): void {
    for (const { topicId, partitionIndex, errorCode, errorMessage } of results) {
      const answer = this.#answerFor(topicId, partitionIndex);
      answer.acknowledgeErrorCode = errorCode;
      answer.acknowledgeErrorMessage = errorMessage;
    }
    if (results.length === 0) return;
    this.#waitCount++;
    this.#broker.queues.whenDurable(this.#waited);
  }
  readonly #waited = (): void => {
    this.#waitCount--;
    this.#answerIfComplete();
  };

  /** Nothing can be taken from this partition. */
  refuse(topicId: string, index: number, error: MillraceError): void {
    this.#answerFor(topicId, index).errorCode = kafkaCode(error);
  }

  #answerFor(topicId: string, partitionIndex: number): Mutable<PartitionAnswer> {
    let partitions = this.#answers.get(topicId);
    if (partitions === undefined) {
      partitions = new Map();
      this.#answers.set(topicId, partitions);
    }
    let answer = partitions.get(partitionIndex);
    if (answer === undefined) {
      answer = {
        partitionIndex,
        errorCode: 0,
        errorMessage: null,
        acknowledgeErrorCode: 0,
        acknowledgeErrorMessage: null,
        currentLeader: NO_LEADER,
        records: NO_RECORDS,
        acquiredRecords: [],
      };
      partitions.set(partitionIndex, answer);
    }
    return answer;
  }

  start(): void {
    const { request, connection } = this.#call;
    const { maxRecords, maxBytes, maxWaitMs, shareSessionEpoch, minBytes } = request;
    if (shareSessionEpoch === OPEN_EPOCH) {
      for (const [topicId, indexes] of this.#session.partitions) {
        for (const index of indexes) this.#answerFor(topicId, index);
      }
    }
    if (maxRecords <= 0 || maxBytes <= 0 || this.#session.partitions.size === 0) return this.answer();
    this.#session.taker = this;
    this.#withdrawals.push(connection.onEnding(() => this.hurry()));
    // What is refused is told with what comes of the rest, as Kafka does: a client must not ask again and again.
    const isUrgent = maxWaitMs <= 0 || connection.isEnding || !this.#session.isTaking;
    if (!isUrgent) this.#timer = this.#broker.clock.after(maxWaitMs, () => this.#lastChance());
    if (isUrgent) this.#lastChance();
    else if (minBytes <= 1) this.#want();
    else this.#wantWhenEnough();
  }

  #want(): void {
    const { maxRecords, maxBytes, shareAcquireMode } = this.#call.request;
    this.#session.consumer.want({
      messages: maxRecords,
      bytes: maxBytes,
      isOnce: true,
      ...(shareAcquireMode === BATCH_OPTIMIZED ? { batchEnd: this.#batchEnd } : {}),
    });
  }
  readonly #batchEnd = (partition: QueuePartition, offset: number): number =>
    partition.log.isFenced ? offset : this.#broker.queueReader.batchEnd(partition.log, offset);

  /** Waits until about `minBytes` can be handed out. */
  #wantWhenEnough(): void {
    let readyBytes = 0;
    const partitions = [...this.#session.consumer.queues()].flatMap((queue) =>
      queue.partitions().filter(({ index }) => this.#session.partitions.get(queue.topic.id)?.has(index)),
    );
    for (const { log, state } of partitions) {
      const averageBytes = log.sizeBytes / Math.max(1, log.endOffset - log.startOffset);
      readyBytes += state.counts.ready * averageBytes;
    }
    if (readyBytes >= this.#call.request.minBytes) return this.#want();
    const again = (): void => {
      if (this.#session.taker === this && this.#taken.size === 0) this.#wantWhenEnough();
    };
    // The queue learns of new messages in this turn: after it, look again.
    for (const { log } of partitions) {
      this.#withdrawals.push(log.whenAbove(log.highWatermark, () => this.#broker.clock.endOfTurn(again)));
    }
  }

  /** Takes what is there in this turn; if that is nothing, so be it. */
  #lastChance(): void {
    if (this.#taken.size > 0 || this.#isDone) return;
    this.#want();
    this.#broker.clock.endOfTurn(() => {
      if (this.#taken.size === 0) this.hurry();
    });
  }

  hurry(): void {
    // What was taken is on its way already.
    if (this.#taken.size > 0 || this.#isDone) return;
    this.#stopWaiting();
    if (this.#call.connection.isClosed) {
      this.#isDone = true;
      return this.#call.replyNothing();
    }
    this.answer();
  }

  #stopWaiting(): void {
    this.#timer?.cancel();
    for (const withdraw of this.#withdrawals) withdraw();
    this.#withdrawals = [];
    if (this.#session.taker !== this) return;
    this.#session.taker = undefined;
    this.#session.consumer.want({ messages: 0 });
  }

  acquired(queue: Queue, acquisition: Acquisition): void {
    const { partition: index, runs } = acquisition;
    const partition = queue.partition(index);
    if (partition === undefined) return;
    this.#waitCount++;
    this.#broker.queues.whenLeased(acquisition, this.#waited);
    const taken = this.#taken.get(partition);
    if (taken === undefined)
      this.#taken.set(partition, { partition, runs: [...runs], batches: undefined, errorCode: 0 });
    else taken.runs.push(...runs);
  }

  served(): void {
    this.#stopWaiting();
    const takens = [...this.#taken.values()];
    let bytesLeft = this.#call.request.maxBytes;
    for (let at = 0; at < takens.length; at++) {
      const reading = this.#read(takens[at], bytesLeft);
      if (reading instanceof Promise) {
        this.#readOn(reading, takens, at, bytesLeft).catch((error: unknown) => this.#call.fail(error));
        return;
      }
      bytesLeft -= reading;
    }
    this.#complete();
  }

  async #readOn(first: Promise<number>, takens: readonly Taken[], from: number, bytes: number): Promise<void> {
    let bytesLeft = bytes - (await first);
    for (const taken of takens.slice(from + 1)) bytesLeft -= await this.#read(taken, bytesLeft);
    this.#complete();
  }

  /** Reads what was taken of a partition, at most about `bytesMax`. Answers how many bytes that was. */
  #read(taken: Taken, bytesMax: number): number | Promise<number> {
    if (taken.runs.length > 1) taken.runs = merged(taken.runs);
    // The first batch of an answer comes whatever its size; later partitions have their turn another time.
    if (bytesMax <= 0) {
      this.#giveBack(taken, taken.runs[0].firstOffset);
      return 0;
    }
    const done = (batches: QueuedBatches): number => {
      taken.batches = batches;
      return batches.sizeBytes;
    };
    const failed = (error: unknown): number => {
      if (!(error instanceof MillraceError)) throw error;
      taken.errorCode = kafkaCode(error);
      this.#giveBack(taken, taken.runs[0].firstOffset);
      return 0;
    };
    try {
      const reading = this.#broker.queueReader.batches(taken.partition.log, taken.runs, bytesMax);
      return reading instanceof Promise ? reading.then(done, failed) : done(reading);
    } catch (error) {
      return failed(error);
    }
  }

  /** What was taken from `fromOffset` on was not delivered: as if it had not been taken. */
  #giveBack(taken: Taken, fromOffset: number): void {
    const kept: AcquiredRun[] = [];
    for (const run of taken.runs) {
      if (run.firstOffset < fromOffset) kept.push({ ...run, lastOffset: Math.min(run.lastOffset, fromOffset - 1) });
      if (run.lastOffset < fromOffset) continue;
      this.#settle(taken, Math.max(run.firstOffset, fromOffset), run.lastOffset, 'undo');
    }
    taken.runs = kept;
  }

  #settle({ partition }: Taken, firstOffset: number, lastOffset: number, kind: 'undo' | 'gap'): void {
    const { consumer } = this.#session;
    if (consumer.isClosed || partition.queue.isDeleted) return;
    try {
      partition.queue.settle(consumer, partition.index, [{ firstOffset, lastOffset, kind }]);
    } catch (error) {
      // Its lock has run out while a disk was slow, or the queue was reset: somebody else's by now.
      if (!(error instanceof MillraceError)) throw error;
    }
  }

  #complete(): void {
    for (const taken of this.#taken.values()) {
      const { batches } = taken;
      if (batches === undefined) continue;
      if (batches.restFrom !== Number.POSITIVE_INFINITY) this.#giveBack(taken, batches.restFrom);
      for (const { firstOffset, lastOffset } of batches.gaps) this.#settle(taken, firstOffset, lastOffset, 'gap');
      if (batches.gaps.length > 0) taken.runs = without(taken.runs, batches.gaps);
    }
    this.#isRead = true;
    this.#answerIfComplete();
  }

  #answerIfComplete(): void {
    if (this.#waitCount > 0 || !this.#isRead) return;
    this.#isDone = true;
    const batchSize = Math.max(1, this.#call.request.batchSize);
    const read: QueuedBatches[] = [];
    for (const { partition, runs, batches, errorCode } of this.#taken.values()) {
      if (batches !== undefined) read.push(batches);
      if (runs.length === 0 && errorCode === 0) continue;
      const answer = this.#answerFor(partition.log.topicId, partition.index);
      answer.errorCode = errorCode;
      if (batches === undefined || errorCode !== 0) continue;
      answer.records = payloadOf(batches);
      answer.acquiredRecords = runs.flatMap((run) => pieces(run, batchSize));
      this.#broker.traffic.fetchedBytes += batches.sizeBytes;
    }
    this.#call.reply(this.#response(), () => {
      for (const batches of read) batches.release();
    });
  }

  #response(): ShareFetchResponseInit {
    const responses = [...this.#answers].map(([topicId, partitions]) => ({
      topicId,
      partitions: [...partitions.values()],
    }));
    return { throttleTimeMs: 0, errorCode: 0, acquisitionLockTimeoutMs: this.#lockMs, responses, nodeEndpoints: [] };
  }

  /** Answers without messages, when what was decided is durable. */
  answer(): void {
    if (this.#isDone) return;
    this.#isDone = true;
    this.#broker.queues.whenDurable(() => this.#call.reply(this.#response()));
  }
}

type Mutable<T> = { -readonly [Key in keyof T]: T[Key] };

/** In order of offsets, neighbours with the same count as one. */
function merged(runs: readonly AcquiredRun[]): AcquiredRun[] {
  const ordered = [...runs].sort((a, b) => a.firstOffset - b.firstOffset);
  const result = [ordered[0]];
  for (const run of ordered.slice(1)) {
    const last = result[result.length - 1];
    const isNext = last.lastOffset + 1 === run.firstOffset && last.acquiredCount === run.acquiredCount;
    if (isNext) result[result.length - 1] = { ...last, lastOffset: run.lastOffset };
    else result.push(run);
  }
  return result;
}

/** `runs` without the offsets of `gaps`; both ascending. */
function without(
  runs: readonly AcquiredRun[],
  gaps: readonly { readonly firstOffset: number; readonly lastOffset: number }[],
): AcquiredRun[] {
  let rest = [...runs];
  for (const gap of gaps) {
    rest = rest.flatMap((run) => {
      if (gap.lastOffset < run.firstOffset || gap.firstOffset > run.lastOffset) return [run];
      const before = { ...run, lastOffset: gap.firstOffset - 1 };
      const after = { ...run, firstOffset: gap.lastOffset + 1 };
      return [before, after].filter(({ firstOffset, lastOffset }) => firstOffset <= lastOffset);
    });
  }
  return rest;
}

/** Cut into about `batchSize` messages each, which is how many a client acknowledges together. */
function pieces(
  { firstOffset, lastOffset, acquiredCount }: AcquiredRun,
  batchSize: number,
): { firstOffset: number; lastOffset: number; deliveryCount: number }[] {
  const deliveryCount = Math.min(acquiredCount, DELIVERY_COUNT_MAX);
  const count = Math.max(1, Math.floor((lastOffset - firstOffset + 1) / batchSize));
  return Array.from({ length: count }, (_piece, index) => {
    const first = firstOffset + index * batchSize;
    return { firstOffset: first, lastOffset: index === count - 1 ? lastOffset : first + batchSize - 1, deliveryCount };
  });
}

function payloadOf({ chunks, sizeBytes }: QueuedBatches): Payload {
  if (chunks.length === 1) return chunks[0];
  const splice: ChunksSplice = { isSplice: true, length: sizeBytes, chunks };
  return splice;
}
