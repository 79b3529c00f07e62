/**
 * Share sessions (KIP-932): the broker remembers from which partitions a member of a share group takes, so that a request
 * names only what changed. One for each group and member, with the member's consumer of the queues: what it holds stays its
 * own when the session is opened anew, and goes back when the session is closed or its connection ends.
 *
 * Always true: a session has joined the queues of exactly those of its partitions that exist, as of its last request.
 */
import { MillraceError } from '../../protocol/errors.ts';
import type { Broker } from '../broker.ts';
import type { Acquisition } from '../queue.ts';
import type { Consumer } from '../queue-consumer.ts';
import type { Queue } from '../queues.ts';
import type { ClientConnection } from './call.ts';

/** Of the request that opens a session, and of the one that closes it. */
export const OPEN_EPOCH = 0;
export const CLOSE_EPOCH = -1;
const EPOCH_MAX = 2_147_483_647;

/** Whoever waits for messages of a session. */
export interface SessionTaker {
  acquired(queue: Queue, acquisition: Acquisition): void;
  /** After the last `acquired` of a turn. */
  served(): void;
  /** Somebody else is to have the session: answer now with what there is. */
  hurry(): void;
}

export class ShareSession {
  readonly group: string;
  readonly memberId: string;
  /** What the next request must say. */
  epoch = 1;
  /** Topic id → partitions, in the order in which they were named. */
  readonly partitions = new Map<string, Set<number>>();
  /** Size of `partitions` as it was last counted. */
  countedPartitions = 0;
  readonly consumer: Consumer;
  taker: SessionTaker | undefined;
  readonly #broker: Broker;
  /** By topic id. */
  readonly #joined = new Map<string, { queue: Queue; indexes: string }>();
  #connection: ClientConnection | undefined;
  #forgetConnection: (() => void) | undefined;

  constructor(broker: Broker, group: string, memberId: string) {
    this.#broker = broker;
    this.group = group;
    this.memberId = memberId;
    this.consumer = broker.queues.consumer({
      door: 'kafka',
      lockMs: this.lockMs,
      onAcquired: (queue, acquisition) => {
        if (this.taker !== undefined) return this.taker.acquired(queue, acquisition);
        // Nobody waits any more: as if they had not been handed out.
        for (const { firstOffset, lastOffset } of acquisition.runs) {
          queue.settle(this.consumer, acquisition.partition, [{ firstOffset, lastOffset, kind: 'undo' }]);
        }
      },
      onServed: () => this.taker?.served(),
      onLeft: (queue) => this.#joined.delete(queue.topic.id),
    });
  }

  /** Whether there is any partition that it can take from. */
  get isTaking(): boolean {
    for (const { indexes } of this.#joined.values()) if (indexes !== '') return true;
    return false;
  }

  /** How long what is handed out stays locked: what the declared queue of this name says, or else the group. */
  get lockMs(): number {
    const { queues, topics } = this.#broker;
    const declaredMs = queues.get(this.group)?.settings['lock.duration.ms'] ?? 0;
    return declaredMs > 0 ? declaredMs : topics.groupConfigs.get(this.group).shareRecordLockDurationMs;
  }

  advance(): void {
    this.epoch = this.epoch === EPOCH_MAX ? 1 : this.epoch + 1;
  }

  /** Lives as long as this connection from now on. */
  bind(connection: ClientConnection, onClose: () => void): void {
    if (this.#connection === connection) return;
    this.#forgetConnection?.();
    this.#connection = connection;
    this.#forgetConnection = connection.onClose(onClose);
  }

  add(topicId: string, index: number): void {
    const indexes = this.partitions.get(topicId);
    if (indexes === undefined) this.partitions.set(topicId, new Set([index]));
    else indexes.add(index);
  }
  forget(topicId: string, forgotten: readonly number[]): void {
    const indexes = this.partitions.get(topicId);
    if (indexes === undefined) return;
    for (const index of forgotten) indexes.delete(index);
    if (indexes.size === 0) this.partitions.delete(topicId);
  }

  /**
   * Joins the queues of the session's partitions and leaves the others; `refused` is told of partitions that cannot be
   * taken from.
   */
  join(
    allows: (topic: string) => boolean,
    refused: (topicId: string, index: number, error: MillraceError) => void,
  ): void {
    this.consumer.lockMs = this.lockMs;
    for (const [topicId, { queue }] of this.#joined) if (!this.partitions.has(topicId)) this.#leave(topicId, queue);
    for (const [topicId, indexes] of this.partitions) {
      const refuseAll = (error: MillraceError): void => {
        for (const index of indexes) refused(topicId, index, error);
        const before = this.#joined.get(topicId);
        if (before !== undefined) this.#leave(topicId, before.queue);
      };
      const topic = this.#broker.topics.getById(topicId);
      if (topic === undefined) {
        refuseAll(new MillraceError('UNKNOWN_TOPIC_ID'));
        continue;
      }
      if (!allows(topic.name)) {
        refuseAll(new MillraceError('TOPIC_AUTHORIZATION_FAILED'));
        continue;
      }
      if (!this.#mayTake(topic)) {
        refuseAll(new MillraceError('UNKNOWN_SERVER_ERROR', `Group ${this.group} does not share topic ${topic.name}.`));
        continue;
      }
      const known: number[] = [];
      for (const index of indexes) {
        const partition = topic.partitions[index];
        if (partition === undefined) refused(topicId, index, new MillraceError('UNKNOWN_TOPIC_OR_PARTITION'));
        else if (partition.isFenced) refused(topicId, index, new MillraceError('KAFKA_STORAGE_ERROR'));
        else known.push(index);
      }
      this.#joinQueue(this.#broker.queues.shareQueue(this.group, topic), known, refuseAll);
    }
  }

  /** A request alone must not make the state of a queue: somebody of the group subscribes to the topic, or it is there. */
  #mayTake(topic: { readonly id: string; readonly name: string }): boolean {
    if (this.#broker.queues.findShareQueue(this.group, topic.id) !== undefined) return true;
    const group = this.#broker.groups.get(this.group);
    return group?.type === 'share' && group.isSubscribedTo(topic.name);
  }

  #joinQueue(queue: Queue, indexes: readonly number[], refuseAll: (error: MillraceError) => void): void {
    const topicId = queue.topic.id;
    const before = this.#joined.get(topicId);
    const joined = { queue, indexes: indexes.join() };
    if (before?.queue === queue && before.indexes === joined.indexes) return;
    if (before !== undefined && before.queue !== queue) this.#leave(topicId, before.queue);
    try {
      this.consumer.join(queue, indexes);
      this.#joined.set(topicId, joined);
    } catch (error) {
      if (!(error instanceof MillraceError)) throw error;
      refuseAll(error);
    }
  }

  #leave(topicId: string, queue: Queue): void {
    this.#joined.delete(topicId);
    if (!queue.isDeleted) this.consumer.leave(queue);
  }

  close(isFailure: boolean): void {
    this.taker?.hurry();
    this.#forgetConnection?.();
    this.consumer.close({ isFailure });
  }
}

/** Kafka's members make up ids of 22 characters; a limit, because the broker keeps them. */
const MEMBER_ID_LENGTH_MAX = 1024;

/** Which group and member a request is about. INVALID_REQUEST if it does not say. */
export function memberOf(request: { readonly groupId: string | null; readonly memberId: string | null }): {
  groupId: string;
  memberId: string;
} {
  const { groupId, memberId } = request;
  if (groupId === null || memberId === null || memberId === '' || memberId.length > MEMBER_ID_LENGTH_MAX) {
    throw new MillraceError('INVALID_REQUEST');
  }
  return { groupId, memberId };
}

/** All share sessions of a broker, at most `group.share.max.share.sessions`. */
export class ShareSessions {
  readonly #broker: Broker;
  readonly #sessions = new Map<string, ShareSession>();
  #partitionCount = 0;

  constructor(broker: Broker) {
    this.#broker = broker;
  }

  get size(): number {
    return this.#sessions.size;
  }

  /** The session that is open. SHARE_SESSION_NOT_FOUND. */
  get(group: string, memberId: string): ShareSession {
    const session = this.#sessions.get(keyOf(group, memberId));
    if (session === undefined) throw new MillraceError('SHARE_SESSION_NOT_FOUND');
    return session;
  }

  /** As `get`, if the request is the next. INVALID_SHARE_SESSION_EPOCH; `CLOSE_EPOCH` always is. */
  next(group: string, memberId: string, epoch: number): ShareSession {
    const session = this.get(group, memberId);
    if (epoch !== CLOSE_EPOCH && epoch !== session.epoch) throw new MillraceError('INVALID_SHARE_SESSION_EPOCH');
    session.taker?.hurry();
    return session;
  }

  /**
   * After the partitions of a session have changed. SHARE_SESSION_LIMIT_REACHED, and the session ends, if those of all
   * sessions are more than `fetch.sessions.partitions.max`.
   */
  count(session: ShareSession): void {
    let size = 0;
    for (const indexes of session.partitions.values()) size += indexes.size;
    this.#partitionCount += size - session.countedPartitions;
    session.countedPartitions = size;
    if (this.#partitionCount <= this.#broker.options['fetch.sessions.partitions.max']) return;
    this.close(session, false);
    throw new MillraceError('SHARE_SESSION_LIMIT_REACHED', 'Share sessions have as many partitions as they may.');
  }

  /** A new session without partitions; what the member holds stays its own. SHARE_SESSION_LIMIT_REACHED. */
  open(group: string, memberId: string): ShareSession {
    const key = keyOf(group, memberId);
    const known = this.#sessions.get(key);
    if (known !== undefined) {
      known.taker?.hurry();
      known.partitions.clear();
      known.epoch = 1;
      return known;
    }
    const sizeMax = this.#broker.options['group.share.max.share.sessions'];
    if (this.#sessions.size >= sizeMax) throw new MillraceError('SHARE_SESSION_LIMIT_REACHED');
    const session = new ShareSession(this.#broker, group, memberId);
    this.#sessions.set(key, session);
    return session;
  }

  /** Ends the session; what the member holds goes back, as a failure if the member did not say goodbye. */
  close(session: ShareSession, isFailure: boolean): void {
    if (!this.#sessions.delete(keyOf(session.group, session.memberId))) return;
    this.#partitionCount -= session.countedPartitions;
    session.close(isFailure);
  }

  /** The session goes on with this connection, and ends with it. */
  bind(session: ShareSession, connection: ClientConnection): void {
    session.bind(connection, () => this.close(session, true));
  }
}

// No group id holds a line feed that could be mistaken: the length says where it ends.
const keyOf = (group: string, memberId: string): string => `${group.length}\n${group}${memberId}`;
