/**
 * The group coordinator: all groups of the broker, their committed offsets, and the log that keeps both
 * (`__consumer_offsets`, in Kafka's own records). Groups are decided by `Group`; this file finds them, gives them time
 * with one timer, bounds them, expires offsets, and lets answers wait for what they lean on.
 *
 * After a restart members carry on with their id and generation; only their sessions start anew.
 */
import { type ErrorCode, MillraceError } from '../protocol/errors.ts';
import { ZERO_UUID } from '../protocol/kafka/fields.ts';
import type { Clock, Random, Timer } from '../storage/clock.ts';
import { randomUuid } from '../storage/clock.ts';
import type { Options } from './config.ts';
import { Deadlines } from './deadlines.ts';
import type { Engine } from './engine.ts';
import { Group, type GroupState, type Instant } from './group.ts';
import {
  type JoinAnswer,
  type JoinRequest,
  protocolsBytes,
  refusedJoin,
  refusedSync,
  type SyncAnswer,
  type SyncRequest,
} from './group-member.ts';
import type { TopicPartition } from './group-offsets.ts';
import {
  type CommittedOffset,
  decodeGroupEvent,
  encodeGroupEvent,
  type GroupEvent,
  groupEventBytes,
} from './group-records.ts';
import type { MemberIdentity } from './group-roster.ts';
import { StateLog } from './state-log.ts';
import type { TopicRegistry } from './topics.ts';

export type { CommittedOffset } from './group-records.ts';
export type { GroupState } from './group.ts';

export const GROUPS_TOPIC = '__consumer_offsets';

/** Kept whole and rewritten by its owner; the rest is as for any topic. */
const GROUPS_TOPIC_CONFIGS = new Map([
  ['cleanup.policy', 'compact'],
  ['retention.ms', '-1'],
  ['retention.bytes', '-1'],
  ['segment.bytes', String(64 * 1024 * 1024)],
  ['segment.ms', '9007199254740991'],
  ['file.delete.delay.ms', '0'],
]);

/** Events of one commit are split at this size: one commit is one journal record, which is bounded. */
const COMMIT_BYTES = 1024 * 1024;
const COMMIT_EVENTS = 1000;
/** Groups looked at for expired offsets before others get their turn. */
const EXPIRY_GROUPS = 500;

export interface OffsetToCommit extends TopicPartition {
  readonly topicId: string;
  readonly offset: number;
  readonly leaderEpoch: number;
  readonly metadata: string;
}

export interface CommitRequest extends MemberIdentity {
  readonly groupId: string;
  readonly generation: number;
  /** How long to keep the offsets, if the client says so itself (before OffsetCommit 5); −1: as the broker does. */
  readonly retentionMs: number;
  /** What an unknown group answers a member of it: ILLEGAL_GENERATION before OffsetCommit 9, then GROUP_ID_NOT_FOUND. */
  readonly unknownGroupError: ErrorCode;
  readonly offsets: readonly OffsetToCommit[];
}

interface Parts {
  engine: Engine;
  clock: Clock;
  random: Random;
  options: Options;
  topics: Pick<TopicRegistry, 'get' | 'ensureInternal'>;
}

export class GroupCoordinator {
  readonly #clock: Clock;
  readonly #random: Random;
  readonly #options: Options;
  readonly #topics: Parts['topics'];
  readonly #log: StateLog<GroupEvent>;
  readonly #commitBytesMax: number;
  readonly #groups = new Map<string, Group>();
  /** When each group must be looked at; one entry of a group counts, the one in `#scheduled`. */
  readonly #deadlines = new Deadlines<Group>();
  readonly #scheduled = new Map<Group, number>();
  #timer: Timer | undefined;
  #timerAtMs = Number.POSITIVE_INFINITY;
  #expiryTimer: Timer | undefined;
  #membersBytes = 0;
  #offsetCount = 0;
  #isLoaded = false;
  #isClosed = false;

  constructor(parts: Parts) {
    this.#clock = parts.clock;
    this.#random = parts.random;
    this.#options = parts.options;
    this.#topics = parts.topics;
    // Half of it: what events take is only estimated.
    this.#commitBytesMax = parts.options['journal.entry.bytes'] / 2;
    const { partitions } = parts.topics.ensureInternal(GROUPS_TOPIC, 1, GROUPS_TOPIC_CONFIGS);
    this.#log = new StateLog(
      parts.engine,
      partitions[0],
      {
        encode: encodeGroupEvent,
        decode: decodeGroupEvent,
        apply: (event) => this.#apply(event),
        live: () => this.#live(),
      },
      parts.clock,
      this.#commitBytesMax,
    );
  }

  /** Reads the log. Once, after the topics are loaded and before the first request. */
  async load(): Promise<void> {
    await this.#log.load();
    this.#isLoaded = true;
    const now = this.#now();
    // A crash may have come between the end of a topic and that of its offsets.
    this.#deleteOffsets((_group, topic, { topicId }) => !this.#isTopic(topic, topicId));
    for (const group of this.#groups.values()) {
      group.restartSessions(now);
      this.#membersBytes += group.membersBytes;
      this.#settle(group);
    }
    this.#expiryTimer = this.#clock.after(this.#options['offsets.retention.check.interval.ms'], () =>
      this.#unlessStopped(() => this.#expire()),
    );
  }

  /** Stops the timers; members that wait are not answered any more. */
  close(): void {
    this.#isClosed = true;
    this.#timer?.cancel();
    this.#expiryTimer?.cancel();
  }

  /** Calls back when everything that any answer so far leaned on is durable. */
  whenDurable(callback: () => void): void {
    this.#log.whenDurable(callback);
  }

  get groupCount(): number {
    return this.#groups.size;
  }
  get offsetCount(): number {
    return this.#offsetCount;
  }
  /** About the memory that members of all groups take. */
  get membersBytes(): number {
    return this.#membersBytes;
  }

  /** A group that exists. Reading it is fine; change it only through the coordinator. */
  get(groupId: string): Group | undefined {
    return this.#groups.get(groupId);
  }
  groups(): Iterable<Group> {
    return this.#groups.values();
  }
  /** Every committed offset of every group, for lag: the end of the partition minus `offset`. */
  *committed(): Iterable<{ group: string; state: GroupState; topic: string; partition: number; offset: number }> {
    for (const group of this.#groups.values()) {
      for (const [topic, partitions] of group.offsets.topics()) {
        for (const [partition, { offset }] of partitions) {
          yield { group: group.id, state: group.state, topic, partition, offset };
        }
      }
    }
  }

  join(request: JoinRequest, reply: (answer: JoinAnswer) => void): void {
    const refuse = (error: ErrorCode): void => reply(refusedJoin(error, request.memberId));
    if (request.groupId === '') return refuse('INVALID_GROUP_ID');
    const { sessionTimeoutMs } = request;
    if (
      sessionTimeoutMs < this.#options['group.min.session.timeout.ms'] ||
      sessionTimeoutMs > this.#options['group.max.session.timeout.ms']
    ) {
      return refuse('INVALID_SESSION_TIMEOUT');
    }
    const bytesMax = this.#options['groups.members.bytes.max'];
    if (this.#membersBytes + protocolsBytes(request.protocols) > bytesMax) return refuse('POLICY_VIOLATION');
    const group = request.memberId === '' ? this.#groupOrNew(request.groupId) : this.#groups.get(request.groupId);
    if (group === undefined) return refuse(request.memberId === '' ? 'POLICY_VIOLATION' : 'UNKNOWN_MEMBER_ID');
    this.#within(group, () => group.join(this.#now(), request, reply));
  }

  sync(request: SyncRequest, reply: (answer: SyncAnswer) => void): void {
    if (request.groupId === '') return reply(refusedSync('INVALID_GROUP_ID'));
    const group = this.#groups.get(request.groupId);
    if (group === undefined) return reply(refusedSync('UNKNOWN_MEMBER_ID'));
    this.#within(group, () => group.sync(this.#now(), request, reply));
  }

  heartbeat(request: MemberIdentity & { readonly groupId: string; readonly generation: number }): ErrorCode {
    if (request.groupId === '') return 'INVALID_GROUP_ID';
    const group = this.#groups.get(request.groupId);
    if (group === undefined) return 'UNKNOWN_MEMBER_ID';
    return this.#within(group, () => group.heartbeat(this.#now(), request));
  }

  /** One error per member, or one for the request. */
  leave(groupId: string, leaving: readonly MemberIdentity[]): ErrorCode | readonly ErrorCode[] {
    if (groupId === '') return 'INVALID_GROUP_ID';
    const group = this.#groups.get(groupId);
    if (group === undefined) return leaving.map(() => 'UNKNOWN_MEMBER_ID');
    return this.#within(group, () => group.leave(this.#now(), leaving));
  }

  /** Replies when the offsets are durable, or at once with why they were refused: one error each, in order. */
  commit(request: CommitRequest, reply: (errors: readonly ErrorCode[]) => void): void {
    const now = this.#now();
    const refuse = (error: ErrorCode): void => reply(request.offsets.map(() => error));
    const existing = this.#groups.get(request.groupId);
    if (existing === undefined && request.generation >= 0) return refuse(request.unknownGroupError);
    const refusal = existing === undefined ? undefined : existing.commitRefusal(now, request);
    if (existing !== undefined) this.#settle(existing);
    if (refusal !== undefined) return refuse(refusal);

    const errors = request.offsets.map((offset) => this.#offsetError(offset));
    const accepted = request.offsets.filter((_offset, index) => errors[index] === 'NONE');
    if (accepted.length === 0) return reply(errors);
    if (existing === undefined && !this.#hasRoomForGroup()) return refuse('POLICY_VIOLATION');
    this.#commit(
      accepted.map(
        (offset): GroupEvent => ({
          kind: 'offset',
          group: request.groupId,
          topic: offset.topic,
          partition: offset.partition,
          committed: {
            offset: offset.offset,
            leaderEpoch: offset.leaderEpoch,
            metadata: offset.metadata,
            commitTimeMs: now.wallMs,
            expireTimeMs:
              request.retentionMs < 0 ? -1 : Math.min(now.wallMs + request.retentionMs, Number.MAX_SAFE_INTEGER),
            topicId: offset.topicId,
          },
        }),
      ),
      'waited',
    );
    this.#log.whenDurable(() => reply(errors));
  }

  #offsetError({ metadata }: OffsetToCommit): ErrorCode {
    const isLong = metadata.length > this.#options['offset.metadata.max.bytes'];
    return isLong ? 'OFFSET_METADATA_TOO_LARGE' : 'NONE';
  }

  /** What a group has committed for a partition. */
  offset(groupId: string, topic: string, partition: number): CommittedOffset | undefined {
    return this.#groups.get(groupId)?.offsets.get(topic, partition);
  }

  /** Ends committed offsets (KIP-496): one error for each of `targets`, or one for the request. */
  deleteOffsets(groupId: string, targets: readonly TopicPartition[]): ErrorCode | readonly ErrorCode[] {
    if (groupId === '') return 'INVALID_GROUP_ID';
    const group = this.#groups.get(groupId);
    if (group === undefined) return 'GROUP_ID_NOT_FOUND';
    // Only of consumers is it known what they subscribe to.
    if (group.state !== 'Empty' && group.protocolType !== 'consumer') return 'NON_EMPTY_GROUP';
    const events: GroupEvent[] = [];
    const results = targets.map(({ topic, partition }): ErrorCode => {
      if (group.isSubscribedTo(topic)) return 'GROUP_SUBSCRIBED_TO_TOPIC';
      if (group.offsets.get(topic, partition) !== undefined) {
        events.push({ kind: 'offset gone', group: groupId, topic, partition });
      }
      return 'NONE';
    });
    this.#commit(events, 'waited');
    this.#settle(group);
    return results;
  }

  /** Ends a group and its offsets (KIP-222). */
  deleteGroup(groupId: string): ErrorCode {
    const group = this.#groups.get(groupId);
    if (group === undefined) return 'GROUP_ID_NOT_FOUND';
    if (group.state !== 'Empty') return 'NON_EMPTY_GROUP';
    this.#endGroup(group, 'waited');
    return 'NONE';
  }

  /** A topic is gone: so is what was committed for it, in every group. */
  topicDeleted({ name, id }: { readonly name: string; readonly id: string }): void {
    this.#deleteOffsets((_group, topic, { topicId }) => topic === name && (topicId === id || topicId === ZERO_UUID));
  }

  #isTopic(name: string, id: string): boolean {
    const topic = this.#topics.get(name);
    return topic !== undefined && (id === ZERO_UUID || topic.id === id);
  }

  #deleteOffsets(matches: (group: Group, topic: string, committed: CommittedOffset) => boolean): void {
    const events: GroupEvent[] = [];
    const touched: Group[] = [];
    for (const group of this.#groups.values()) {
      const selected = group.offsets.select((topic, committed) => matches(group, topic, committed));
      if (selected.length === 0) continue;
      touched.push(group);
      for (const target of selected) events.push({ kind: 'offset gone', group: group.id, ...target });
    }
    this.#commit(events, 'lazy');
    for (const group of touched) this.#settle(group);
  }

  #endGroup(group: Group, urgency: 'waited' | 'lazy'): void {
    const events: GroupEvent[] = group.offsets
      .select(() => true)
      .map((target) => ({ kind: 'offset gone', group: group.id, ...target }));
    if (group.stored !== undefined) events.push({ kind: 'group gone', group: group.id });
    this.#commit(events, urgency);
    this.#drop(group);
  }

  /** Looks at some groups for offsets that nobody has needed for long (KIP-211), then goes on later. */
  #expire(rest: Iterator<Group> = this.#groups.values()): void {
    const nowMs = this.#clock.now();
    for (let count = 0; count < EXPIRY_GROUPS; count++) {
      const next = rest.next();
      if (next.done) {
        const intervalMs = this.#options['offsets.retention.check.interval.ms'];
        this.#expiryTimer = this.#clock.after(intervalMs, () => this.#unlessStopped(() => this.#expire()));
        return;
      }
      this.#expireGroup(next.value, nowMs);
    }
    this.#expiryTimer = this.#clock.after(0, () => this.#unlessStopped(() => this.#expire(rest)));
  }

  #expireGroup(group: Group, nowMs: number): void {
    const start = group.retentionStart();
    const retentionMs = this.#options['offsets.retention.minutes'] * 60_000;
    const expired = group.offsets.select((topic, { commitTimeMs, expireTimeMs }) => {
      if (start === undefined || group.isSubscribedTo(topic)) return false;
      if (expireTimeMs >= 0) return nowMs >= expireTimeMs;
      return nowMs - (start === 'commit' ? commitTimeMs : start) >= retentionMs;
    });
    if (group.isVacant && expired.length === group.offsets.count) return this.#endGroup(group, 'lazy');
    this.#commit(
      expired.map((target) => ({ kind: 'offset gone', group: group.id, ...target })),
      'lazy',
    );
    this.#settle(group);
  }

  #commit(events: readonly GroupEvent[], urgency: 'waited' | 'lazy'): void {
    const bytesMax = Math.min(COMMIT_BYTES, this.#commitBytesMax);
    let part: GroupEvent[] = [];
    let partBytes = 0;
    for (const event of events) {
      const eventBytes = groupEventBytes(event);
      if (part.length === COMMIT_EVENTS || (part.length > 0 && partBytes + eventBytes > bytesMax)) {
        this.#log.commit(part, { urgency });
        part = [];
        partBytes = 0;
      }
      part.push(event);
      partBytes += eventBytes;
    }
    if (part.length > 0) this.#log.commit(part, { urgency });
  }

  #apply(event: GroupEvent): void {
    switch (event.kind) {
      case 'offset':
        return this.#countOffsets(this.#groupFor(event.group), ({ offsets }) =>
          offsets.set(event.topic, event.partition, event.committed),
        );
      case 'offset gone': {
        const group = this.#groups.get(event.group);
        if (group === undefined) return;
        this.#countOffsets(group, ({ offsets }) => offsets.delete(event.topic, event.partition));
        if (!this.#isLoaded && group.isBlank) this.#groups.delete(group.id);
        return;
      }
      case 'group': {
        const group = this.#groupFor(event.group);
        // While running the group itself has decided this and knows more than the record says.
        if (this.#isLoaded) group.stored = event.value;
        else group.load(event.value);
        return;
      }
      case 'group gone': {
        const group = this.#groups.get(event.group);
        if (group === undefined) return;
        group.stored = undefined;
        if (!this.#isLoaded) this.#forgetMembers(group);
        return;
      }
    }
  }

  /** A group's record is gone, its offsets may follow: what is left is as if only offsets had been committed. */
  #forgetMembers(group: Group): void {
    this.#groups.delete(group.id);
    if (group.offsets.count === 0) return;
    const bare = new Group(group.id, this.#host());
    for (const [topic, partitions] of group.offsets.topics()) {
      for (const [partition, committed] of partitions) bare.offsets.set(topic, partition, committed);
    }
    this.#groups.set(bare.id, bare);
  }

  #countOffsets(group: Group, change: (group: Group) => void): void {
    const before = group.offsets.count;
    change(group);
    this.#offsetCount += group.offsets.count - before;
  }

  *#live(): Iterable<GroupEvent> {
    for (const group of this.#groups.values()) {
      if (group.stored !== undefined) yield { kind: 'group', group: group.id, value: group.stored };
      for (const [topic, partitions] of group.offsets.topics()) {
        for (const [partition, committed] of partitions) {
          yield { kind: 'offset', group: group.id, topic, partition, committed };
        }
      }
    }
  }

  #host(): ConstructorParameters<typeof Group>[1] {
    return {
      log: {
        commit: (events) => this.#commit(events, 'waited'),
        whenDurable: (callback) => this.#log.whenDurable(callback),
      },
      options: this.#options,
      // A client id of any length must leave room in a string of the protocol.
      newMemberId: (prefix) => `${prefix.slice(0, 1000)}-${randomUuid(this.#random)}`,
    };
  }

  #groupFor(groupId: string): Group {
    let group = this.#groups.get(groupId);
    if (group === undefined) {
      group = new Group(groupId, this.#host());
      this.#groups.set(groupId, group);
    }
    return group;
  }

  #hasRoomForGroup(): boolean {
    return this.#groups.size < this.#options['groups.max'];
  }

  #groupOrNew(groupId: string): Group | undefined {
    return this.#groups.has(groupId) || this.#hasRoomForGroup() ? this.#groupFor(groupId) : undefined;
  }

  /** Runs what may change the group, then looks at what follows from it. */
  #within<T>(group: Group, act: () => T): T {
    const before = group.membersBytes;
    try {
      return act();
    } finally {
      this.#membersBytes += group.membersBytes - before;
      this.#settle(group);
    }
  }

  /** Forgets a group that has nothing left, or sees to it that it gets its time. */
  #settle(group: Group): void {
    if (this.#groups.get(group.id) !== group) return;
    if (group.isBlank) return this.#drop(group);
    const atMs = group.nextDeadlineMs;
    if (atMs >= (this.#scheduled.get(group) ?? Number.POSITIVE_INFINITY)) return;
    this.#scheduled.set(group, atMs);
    this.#deadlines.add(atMs, group);
    // Entries that were overtaken by sooner ones pile up only if many groups come and go.
    if (this.#deadlines.count > 2 * this.#scheduled.size + 1000) {
      this.#deadlines.prune((other, otherMs) => this.#scheduled.get(other) === otherMs);
    }
    this.#setTimer();
  }

  #drop(group: Group): void {
    this.#groups.delete(group.id);
    this.#scheduled.delete(group);
    this.#membersBytes -= group.membersBytes;
  }

  #setTimer(): void {
    const atMs = this.#deadlines.nextMs;
    if (this.#isClosed || atMs >= this.#timerAtMs) return;
    this.#timer?.cancel();
    this.#timerAtMs = atMs;
    this.#timer = this.#clock.after(Math.max(0, Math.ceil(atMs - this.#clock.monotonic())), () => {
      this.#timerAtMs = Number.POSITIVE_INFINITY;
      // After what has arrived: a process that stood still must not take waiting heartbeats for silence.
      this.#clock.endOfTurn(() => {
        this.#unlessStopped(() => this.#tick());
        this.#setTimer();
      });
    });
  }

  /** For what timers do: when the log has stopped its owner knows, and there is nobody to tell here. */
  #unlessStopped(act: () => void): void {
    if (this.#isClosed) return;
    try {
      act();
    } catch (error) {
      const isStopped =
        error instanceof MillraceError && (error.code === 'STOPPING' || error.code === 'KAFKA_STORAGE_ERROR');
      if (!isStopped) throw error;
      this.close();
    }
  }

  #tick(): void {
    const now = this.#now();
    // First all, then each: what becomes due meanwhile waits for the next turn.
    const dueGroups: Group[] = [];
    for (let due = this.#deadlines.takeDue(now.monotonicMs); due; due = this.#deadlines.takeDue(now.monotonicMs)) {
      if (this.#scheduled.get(due.item) !== due.atMs) continue;
      this.#scheduled.delete(due.item);
      dueGroups.push(due.item);
    }
    for (const group of dueGroups) this.#within(group, () => group.tick(now));
  }

  #now(): Instant {
    return { monotonicMs: this.#clock.monotonic(), wallMs: this.#clock.now() };
  }
}
