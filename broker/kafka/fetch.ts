/**
 * Fetch (API 1). The read path starts here: plan which bytes of which partitions to send (`Partition.read`), wait if
 * there are too few, and answer with splices that the connection streams as its socket drains.
 */
import type { Payload, Splice } from '../../protocol/bytes.ts';
import { errors, kafkaCode, MillraceError } from '../../protocol/errors.ts';
import type {
  FetchRequest,
  FetchResponseInit,
  FetchResponsePartitionInit,
  FetchResponseTopicInit,
} from '../../protocol/kafka/messages.ts';
import type { Timer } from '../../storage/clock.ts';
import type { Broker } from '../broker.ts';
import type { LogSlice, Partition } from '../engine.ts';
import type { Topic } from '../topics.ts';
import type { Call } from './call.ts';
import {
  type FetchSession,
  FetchSessions,
  type FetchTarget,
  FINAL_EPOCH,
  INITIAL_EPOCH,
  nextEpoch,
  targetKey,
} from './fetch-sessions.ts';

type FetchCall = Call<FetchRequest, FetchResponseInit>;

/** Topic ids replace names (KIP-516). */
const TOPIC_ID_MIN_VERSION = 13;
/** The replica is told with its epoch (KIP-903). */
const REPLICA_STATE_MIN_VERSION = 15;
/** Whoever has an outdated leader is told the new one (KIP-951). */
const LEADER_MIN_VERSION = 16;
const READ_COMMITTED = 1;
const NO_RECORDS = Buffer.alloc(0);

/** Several chunks as one payload of the response; the sender unfolds it. */
export interface ChunksSplice extends Splice {
  readonly chunks: readonly Payload[];
}

/** What one attempt found for one partition. */
interface Found {
  target: FetchTarget;
  errorCode: number;
  partition: Partition | undefined;
  /** When it was looked at. */
  highWatermark: number;
  slice: LogSlice | undefined;
  diverging: { epoch: number; endOffset: number } | undefined;
}

/** Handles every Fetch of one broker. */
export class FetchHandler {
  readonly sessions: FetchSessions;

  constructor(sessions: FetchSessions) {
    this.sessions = sessions;
  }

  handle(broker: Broker, call: FetchCall): void {
    const opened = this.#session(call);
    if ('errorCode' in opened) {
      call.reply({ errorCode: opened.errorCode, sessionId: 0, responses: [] });
      return;
    }
    new Fetch(broker, call, opened.targets, opened.session, opened.isIncremental).start();
  }

  /** The partitions this request means, by KIP-227's rules. */
  #session(
    call: FetchCall,
  ):
    | { errorCode: number }
    | { targets: Map<string, FetchTarget>; session: FetchSession | undefined; isIncremental: boolean } {
    const { request, version } = call;
    const usesIds = version >= TOPIC_ID_MIN_VERSION;
    if (request.sessionEpoch === INITIAL_EPOCH || request.sessionEpoch === FINAL_EPOCH) {
      if (request.sessionId !== 0) this.sessions.remove(request.sessionId);
      const targets = new Map<string, FetchTarget>();
      mergeTargets(targets, request, usesIds);
      const wantsSession = request.sessionEpoch === INITIAL_EPOCH;
      return {
        targets,
        session: wantsSession ? this.sessions.open(targets, usesIds) : undefined,
        isIncremental: false,
      };
    }
    const session = this.sessions.use(request.sessionId);
    if (!session) return { errorCode: errors.FETCH_SESSION_ID_NOT_FOUND.kafka };
    if (session.epoch !== request.sessionEpoch) return { errorCode: errors.INVALID_FETCH_SESSION_EPOCH.kafka };
    if (session.usesIds !== usesIds) return { errorCode: errors.FETCH_SESSION_TOPIC_ID_ERROR.kafka };
    mergeTargets(session.targets, request, usesIds);
    for (const { topic, topicId, partitions } of request.forgottenTopicsData) {
      for (const partition of partitions) session.targets.delete(targetKey(usesIds ? topicId : topic, partition));
    }
    if (!this.sessions.count(session)) return { errorCode: errors.FETCH_SESSION_ID_NOT_FOUND.kafka };
    if (session.targets.size === 0) {
      // Nothing is left to remember: the client opens another session when it wants something again.
      this.sessions.remove(session.id);
      return { targets: session.targets, session: undefined, isIncremental: false };
    }
    session.epoch = nextEpoch(session.epoch);
    return { targets: session.targets, session, isIncremental: true };
  }
}

function mergeTargets(targets: Map<string, FetchTarget>, request: FetchRequest, usesIds: boolean): void {
  for (const { topic, topicId, partitions } of request.topics) {
    const name = usesIds ? topicId : topic;
    for (const { partition, fetchOffset, partitionMaxBytes, currentLeaderEpoch, lastFetchedEpoch } of partitions) {
      const key = targetKey(name, partition);
      const target = targets.get(key);
      if (target) {
        target.fetchOffset = fetchOffset;
        target.partitionMaxBytes = partitionMaxBytes;
        target.currentLeaderEpoch = currentLeaderEpoch;
        target.lastFetchedEpoch = lastFetchedEpoch;
      } else {
        targets.set(key, {
          topic: name,
          partition,
          fetchOffset,
          partitionMaxBytes,
          currentLeaderEpoch,
          lastFetchedEpoch,
          sentHighWatermark: -1,
          sentStartOffset: -1,
          isAnswered: false,
        });
      }
    }
  }
}

/** One request from its arrival to its answer. */
class Fetch {
  readonly #broker: Broker;
  readonly #call: FetchCall;
  readonly #targets: Map<string, FetchTarget>;
  readonly #session: FetchSession | undefined;
  readonly #isIncremental: boolean;
  readonly #maxBytes: number;
  readonly #minBytes: number;
  #timer: Timer | undefined;
  #withdrawals: (() => void)[] = [];
  #isDue = false;
  #isRunning = false;
  #isAgain = false;

  constructor(
    broker: Broker,
    call: FetchCall,
    targets: Map<string, FetchTarget>,
    session: FetchSession | undefined,
    isIncremental: boolean,
  ) {
    this.#broker = broker;
    this.#call = call;
    this.#targets = targets;
    this.#session = session;
    this.#isIncremental = isIncremental;
    this.#maxBytes = Math.min(call.request.maxBytes, broker.options['fetch.max.bytes']);
    // No answer ever has more than its maximum: nobody waits for that.
    this.#minBytes = Math.min(call.request.minBytes, this.#maxBytes);
  }

  start(): void {
    // Kafka answers at once when nothing is asked for or no byte is needed.
    this.#isDue = this.#call.request.maxWaitMs <= 0 || this.#minBytes <= 0 || this.#targets.size === 0;
    this.#attempt();
  }

  #attempt(): void {
    if (this.#isRunning) {
      this.#isAgain = true;
      return;
    }
    const found: Found[] = [];
    try {
      const targets = [...this.#targets.values()];
      for (let index = 0, bytes = 0; index < targets.length; index++) {
        const one = this.#find(targets[index], bytes);
        if (one instanceof Promise) {
          // A file's index has to be loaded: go on asynchronously from here.
          this.#isRunning = true;
          this.#attemptSlowly(found, one, targets, index + 1, bytes).catch((error: unknown) =>
            this.#failed(found, error),
          );
          return;
        }
        found.push(one);
        bytes += one.slice?.sizeBytes ?? 0;
      }
      this.#decide(found);
    } catch (error) {
      // Also when the high watermark called: what went wrong here is no concern of whoever moved it.
      this.#failed(found, error);
    }
  }

  #failed(found: readonly Found[], error: unknown): void {
    this.#withdraw();
    this.#timer?.cancel();
    for (const { slice } of found) slice?.release();
    this.#call.fail(error);
  }

  async #attemptSlowly(
    found: Found[],
    first: Promise<Found>,
    targets: FetchTarget[],
    from: number,
    before: number,
  ): Promise<void> {
    let one = await first;
    found.push(one);
    let bytes = before + (one.slice?.sizeBytes ?? 0);
    for (let index = from; index < targets.length; index++) {
      one = await this.#find(targets[index], bytes);
      found.push(one);
      bytes += one.slice?.sizeBytes ?? 0;
    }
    this.#isRunning = false;
    this.#decide(found);
    if (this.#isAgain) {
      this.#isAgain = false;
      if (this.#isWaiting) this.#wake();
    }
  }

  #find(target: FetchTarget, bytesBefore: number): Found | Promise<Found> {
    const found: Found = {
      target,
      errorCode: 0,
      partition: undefined,
      highWatermark: -1,
      slice: undefined,
      diverging: undefined,
    };
    try {
      const partition = this.#partition(target);
      found.partition = partition;
      found.highWatermark = partition.highWatermark;
      if (target.fetchOffset < partition.startOffset) throw new MillraceError('OFFSET_OUT_OF_RANGE');
      if (target.lastFetchedEpoch >= 0) {
        const { leaderEpoch, endOffset } = partition.endOffsetForEpoch(target.lastFetchedEpoch);
        // An epoch that never was.
        if (leaderEpoch < 0) throw new MillraceError('OFFSET_OUT_OF_RANGE');
        if (leaderEpoch < target.lastFetchedEpoch || endOffset < target.fetchOffset) {
          found.diverging = { epoch: leaderEpoch, endOffset };
          return found;
        }
      }
      const isCommitted = this.#call.request.isolationLevel === READ_COMMITTED;
      const limitOffset = isCommitted ? partition.lastStableOffset : partition.highWatermark;
      const room = Math.min(target.partitionMaxBytes, this.#maxBytes - bytesBefore);
      // Between the high watermark and the end there is nothing to read yet, but a consumer there must not be sent elsewhere.
      if (target.fetchOffset > partition.endOffset) throw new MillraceError('OFFSET_OUT_OF_RANGE');
      if (target.fetchOffset >= limitOffset || (room <= 0 && bytesBefore > 0)) return found;
      // The first batch of an answer comes whole, or a consumer with a small limit would never get past it.
      const slice = partition.read(target.fetchOffset, Math.max(room, 0), {
        wholeFirst: bytesBefore === 0,
        limitOffset,
      });
      if (!(slice instanceof Promise)) {
        found.slice = slice;
        return found;
      }
      return slice.then(
        (loaded) => {
          found.slice = loaded;
          return found;
        },
        (error: unknown) => failed(found, error),
      );
    } catch (error) {
      return failed(found, error);
    }
  }

  #partition(target: FetchTarget): Partition {
    const { request, version } = this.#call;
    const usesIds = version >= TOPIC_ID_MIN_VERSION;
    const topic: Topic | undefined = usesIds
      ? this.#broker.topics.getById(target.topic)
      : this.#broker.topics.get(target.topic);
    if (!topic) throw new MillraceError(usesIds ? 'UNKNOWN_TOPIC_ID' : 'UNKNOWN_TOPIC_OR_PARTITION');
    if (!this.#call.allows('READ', 'TOPIC', topic.name)) throw new MillraceError('TOPIC_AUTHORIZATION_FAILED');
    const partition = topic.partitions[target.partition];
    if (!partition) throw new MillraceError('UNKNOWN_TOPIC_OR_PARTITION');
    checkLeaderEpoch(partition, target.currentLeaderEpoch);
    // Another broker that wants to follow: this node's partitions have no other replica.
    const replicaId = version >= REPLICA_STATE_MIN_VERSION ? request.replicaState.replicaId : request.replicaId;
    if (replicaId >= 0) throw new MillraceError('NOT_LEADER_OR_FOLLOWER');
    if (partition.isFenced) throw new MillraceError('KAFKA_STORAGE_ERROR');
    return partition;
  }

  get #isWaiting(): boolean {
    return this.#withdrawals.length > 0;
  }

  #decide(found: Found[]): void {
    let bytes = 0;
    const { isClosed, isEnding } = this.#call.connection;
    let isUrgent = this.#isDue || isClosed || isEnding;
    for (const { slice, errorCode, diverging } of found) {
      bytes += slice?.sizeBytes ?? 0;
      if (errorCode !== 0 || diverging) isUrgent = true;
    }
    if (isUrgent || bytes >= this.#minBytes) this.#answer(found);
    else this.#wait(found);
  }

  #wait(found: Found[]): void {
    // What has changed since it was looked at calls back at once, before everything is registered.
    this.#isRunning = true;
    for (const { partition, slice, highWatermark } of found) {
      slice?.release();
      if (partition) this.#withdrawals.push(partition.whenAbove(highWatermark, this.#wake));
    }
    this.#withdrawals.push(this.#call.connection.onEnding(this.#end));
    this.#timer ??= this.#broker.clock.after(this.#call.request.maxWaitMs, this.#expire);
    this.#isRunning = false;
    if (!this.#isAgain) return;
    this.#isAgain = false;
    this.#wake();
  }

  readonly #wake = (): void => {
    this.#withdraw();
    this.#attempt();
  };
  readonly #expire = (): void => {
    this.#isDue = true;
    this.#wake();
  };
  readonly #end = (): void => {
    if (!this.#call.connection.isClosed) return this.#expire();
    this.#withdraw();
    this.#timer?.cancel();
    this.#call.replyNothing();
  };

  #withdraw(): void {
    const withdrawals = this.#withdrawals;
    this.#withdrawals = [];
    for (const withdraw of withdrawals) withdraw();
  }

  #answer(found: Found[]): void {
    this.#timer?.cancel();
    const responses: FetchResponseTopicInit[] = [];
    const usesIds = this.#call.version >= TOPIC_ID_MIN_VERSION;
    const byTopic = new Map<string, FetchResponsePartitionInit[]>();
    const slices: LogSlice[] = [];
    for (const one of found) {
      const { target, slice } = one;
      const hasNews = this.#note(one);
      if (this.#isIncremental && !hasNews) {
        slice?.release();
        continue;
      }
      if (slice) {
        slices.push(slice);
        this.#broker.traffic.fetchedBytes += slice.sizeBytes;
      }
      let partitions = byTopic.get(target.topic);
      if (!partitions) {
        partitions = [];
        byTopic.set(target.topic, partitions);
        responses.push(usesIds ? { topicId: target.topic, partitions } : { topic: target.topic, partitions });
      }
      partitions.push(partitionAnswer(one, this.#call.request.isolationLevel === READ_COMMITTED));
      if (slice && slice.sizeBytes > 0 && this.#session) {
        // Served last next time, so that a busy partition does not starve the others.
        const key = targetKey(target.topic, target.partition);
        if (this.#targets.delete(key)) this.#targets.set(key, target);
      }
    }
    const response: FetchResponseInit = { errorCode: 0, sessionId: this.#session?.id ?? 0, responses };
    const isOutdated = this.#call.version >= LEADER_MIN_VERSION && found.some(hasOutdatedLeader);
    this.#call.reply(isOutdated ? this.#withLeader(response) : response, () => {
      for (const slice of slices) slice.release();
    });
  }

  /** Clients that knew a leader of before a restart need not ask for metadata (KIP-951). */
  #withLeader(response: FetchResponseInit): FetchResponseInit {
    const nodeId = this.#broker.options['node.id'];
    const { host, port } = this.#broker.advertised(this.#call.connection);
    const currentLeader = { leaderId: nodeId, leaderEpoch: this.#broker.engine.leaderEpoch };
    const responses = response.responses?.map((topic) => ({
      ...topic,
      partitions: topic.partitions?.map((partition) =>
        hasOutdatedLeader(partition) ? { ...partition, currentLeader } : partition,
      ),
    }));
    return { ...response, responses, nodeEndpoints: [{ nodeId, host, port, rack: null }] };
  }

  /** Whether an incremental answer names this partition, and what it then said. */
  #note({ target, slice, errorCode, partition, diverging }: Found): boolean {
    const highWatermark = partition?.highWatermark ?? -1;
    const startOffset = partition?.startOffset ?? -1;
    const hasNews =
      !target.isAnswered ||
      (slice?.sizeBytes ?? 0) > 0 ||
      errorCode !== 0 ||
      diverging !== undefined ||
      target.sentHighWatermark !== highWatermark ||
      target.sentStartOffset !== startOffset;
    target.sentHighWatermark = highWatermark;
    target.sentStartOffset = startOffset;
    // An error is told again until it is gone, and then that it is gone.
    target.isAnswered = errorCode === 0 && diverging === undefined;
    return hasNews;
  }
}

const OUTDATED_LEADER: ReadonlySet<number> = new Set([
  errors.FENCED_LEADER_EPOCH.kafka,
  errors.NOT_LEADER_OR_FOLLOWER.kafka,
]);

function hasOutdatedLeader({ errorCode }: { errorCode?: number | undefined }): boolean {
  return errorCode !== undefined && OUTDATED_LEADER.has(errorCode);
}

function failed(found: Found, error: unknown): Found {
  if (!(error instanceof MillraceError)) throw error;
  found.errorCode = kafkaCode(error);
  return found;
}

/** KIP-320: the client's view of the leader must be neither behind nor ahead. */
export function checkLeaderEpoch(partition: Partition, currentLeaderEpoch: number): void {
  if (currentLeaderEpoch < 0) return;
  if (currentLeaderEpoch < partition.leaderEpoch) throw new MillraceError('FENCED_LEADER_EPOCH');
  if (currentLeaderEpoch > partition.leaderEpoch) throw new MillraceError('UNKNOWN_LEADER_EPOCH');
}

function partitionAnswer(
  { target, errorCode, partition, slice, diverging }: Found,
  isCommitted: boolean,
): FetchResponsePartitionInit {
  const isKnown = errorCode === 0 && partition !== undefined;
  return {
    partitionIndex: target.partition,
    errorCode,
    highWatermark: isKnown ? partition.highWatermark : -1,
    lastStableOffset: isKnown ? partition.lastStableOffset : -1,
    logStartOffset: isKnown ? partition.startOffset : -1,
    // Read-committed consumers want a list, others null; there are no transactions yet, so nothing is aborted.
    abortedTransactions: isCommitted && isKnown ? [] : null,
    records: slice && slice.sizeBytes > 0 ? payloadOf(slice) : NO_RECORDS,
    divergingEpoch: diverging,
  };
}

function payloadOf(slice: LogSlice): Payload {
  if (slice.chunks.length === 1) return slice.chunks[0];
  const splice: ChunksSplice = { isSplice: true, length: slice.sizeBytes, chunks: slice.chunks };
  return splice;
}
