/**
 * The group coordinator: all groups of the broker, their committed offsets, and the log that keeps both
 * (`__consumer_offsets`, in Kafka's own records). Groups are decided by `Group` (classic protocol) and `ConsumerGroup`
 * (KIP-848); this file finds them, sees to it that one of one protocol becomes one of the other, bounds them, expires
 * offsets, and lets answers wait for what they lean on. Members of share groups (KIP-932) are `ShareGroup`'s: one id is one
 * group of one kind, and as with Apache Kafka a group that exists, empty or not, is not joined by members of another.
 *
 * After a restart members carry on with their id and generation; only their sessions start anew.
 */
import { type ErrorCode, MillraceError } from '../protocol/errors.ts';
import { ZERO_UUID } from '../protocol/kafka/fields.ts';
import type { Clock, Random, Timer } from '../storage/clock.ts';
import { randomUuid } from '../storage/clock.ts';
import type { Options } from './config.ts';
import { assignors } from './consumer-assignors.ts';
import {
  type ConsumerGroup,
  type ConsumerGroupState,
  type ConsumerHeartbeat,
  type ConsumerHeartbeatAnswer,
  groupIsFull,
} from './consumer-group.ts';
import type { GroupState, Instant } from './group.ts';
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
import type { CommittedOffset, GroupEvent } from './group-records.ts';
import type { MemberIdentity } from './group-roster.ts';
import { type AnyGroup, endEvents, type GroupParts, GroupStore } from './group-store.ts';
import { GroupTimers } from './group-timers.ts';
import type { ShareGroup, ShareGroupState, ShareHeartbeat, ShareHeartbeatAnswer } from './share-group.ts';

export type { CommittedOffset } from './group-records.ts';
export type { GroupState } from './group.ts';
export { type AnyGroup, GROUPS_TOPIC } from './group-store.ts';

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
  /** Before OffsetCommit 9: members of consumer groups may not use it. */
  readonly isOldVersion: boolean;
  /** What an unknown group answers a member of it: ILLEGAL_GENERATION before OffsetCommit 9, then GROUP_ID_NOT_FOUND. */
  readonly unknownGroupError: ErrorCode;
  readonly offsets: readonly OffsetToCommit[];
}

export class GroupCoordinator {
  readonly #clock: Clock;
  readonly #random: Random;
  readonly #options: Options;
  readonly #topics: GroupParts['topics'];
  readonly #onShareGroupDeleted: ((groupId: string) => void) | undefined;
  readonly #store: GroupStore;
  readonly #timers: GroupTimers<AnyGroup>;
  #expiryTimer: Timer | undefined;
  #membersBytes = 0;
  #isClosed = false;

  constructor(parts: GroupParts) {
    this.#clock = parts.clock;
    this.#random = parts.random;
    this.#options = parts.options;
    this.#topics = parts.topics;
    this.#onShareGroupDeleted = parts.onShareGroupDeleted;
    this.#timers = new GroupTimers(parts.clock, (groups) => this.#unlessStopped(() => this.#tick(groups)));
    checkAssignors(parts.options['group.consumer.assignors']);
    this.#store = new GroupStore(parts);
  }

  /** Reads the log. Once, after the topics are loaded and before the first request. */
  async load(): Promise<void> {
    await this.#store.load();
    const now = this.#now();
    // A crash may have come between the end of a topic and that of its offsets.
    this.#deleteOffsets((_group, topic, { topicId }) => !this.#isTopic(topic, topicId));
    for (const group of this.#store.all()) {
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
    this.#timers.close();
    this.#expiryTimer?.cancel();
  }

  /** Calls back when everything that any answer so far leaned on is durable. */
  whenDurable(callback: () => void): void {
    this.#store.whenDurable(callback);
  }

  get groupCount(): number {
    return this.#store.size;
  }
  get offsetCount(): number {
    return this.#store.offsetCount;
  }
  /** About the memory that members of all groups take. */
  get membersBytes(): number {
    return this.#membersBytes;
  }

  /** A group that exists. Reading it is fine; change it only through the coordinator. */
  get(groupId: string): AnyGroup | undefined {
    return this.#store.get(groupId);
  }
  groups(): Iterable<AnyGroup> {
    return this.#store.all();
  }
  /** Every committed offset of every group, for lag: the end of the partition minus `offset`. */
  *committed(): Iterable<{
    group: string;
    state: GroupState | ConsumerGroupState | ShareGroupState;
    topic: string;
    partition: number;
    offset: number;
  }> {
    for (const group of this.#store.all()) {
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
    const isNew = request.memberId === '';
    if (isNew) this.#convertEmpty(this.#store.get(request.groupId), 'classic');
    const group = isNew ? this.#groupOrNew(request.groupId) : this.#store.get(request.groupId);
    if (group === undefined) return refuse(isNew ? 'POLICY_VIOLATION' : 'UNKNOWN_MEMBER_ID');
    if (group.type === 'share') return reply(refusedJoin('INCONSISTENT_GROUP_PROTOCOL', ''));
    if (group.type === 'consumer') {
      if (group.isVacant) return refuse('UNKNOWN_MEMBER_ID');
      const answer = this.#within(group, () => group.classicJoin(this.#now(), request));
      return this.#store.whenDurable(() => reply(answer));
    }
    this.#within(group, () => group.join(this.#now(), request, reply));
  }

  sync(request: SyncRequest, reply: (answer: SyncAnswer) => void): void {
    if (request.groupId === '') return reply(refusedSync('INVALID_GROUP_ID'));
    const group = this.#store.get(request.groupId);
    if (group === undefined || group.type === 'share') return reply(refusedSync('UNKNOWN_MEMBER_ID'));
    if (group.type === 'consumer') {
      const answer = this.#within(group, () => group.classicSync(this.#now(), request));
      return this.#store.whenDurable(() => reply(answer));
    }
    this.#within(group, () => group.sync(this.#now(), request, reply));
  }

  heartbeat(request: MemberIdentity & { readonly groupId: string; readonly generation: number }): ErrorCode {
    if (request.groupId === '') return 'INVALID_GROUP_ID';
    const group = this.#store.get(request.groupId);
    if (group === undefined || group.type === 'share') return 'UNKNOWN_MEMBER_ID';
    if (group.type === 'consumer') return this.#within(group, () => group.classicHeartbeat(this.#now(), request));
    return this.#within(group, () => group.heartbeat(this.#now(), request));
  }

  /** For members of consumer groups that come without one. */
  newMemberId(): string {
    return randomUuid(this.#random);
  }

  /** UNSUPPORTED_ASSIGNOR for one that members may not ask for. */
  checkAssignor(name: string | null): void {
    const names = this.#options['group.consumer.assignors'].split(',').map((one) => one.trim());
    if (name === null || names.includes(name)) return;
    const message = `ServerAssignor ${name} is not supported. Supported assignors: ${names.join(', ')}.`;
    throw new MillraceError('UNSUPPORTED_ASSIGNOR', message);
  }

  /** A heartbeat of a consumer group's member (KIP-848). Throws a `MillraceError` that says what the answer says. */
  consumerHeartbeat(request: ConsumerHeartbeat): ConsumerHeartbeatAnswer {
    const group = this.#consumerGroup(request.groupId, request.memberEpoch === 0 ? request : undefined);
    return this.#within(group, () => {
      if (!group.has(request.memberId)) this.#checkMembersRoom(request);
      return group.heartbeat(this.#now(), request);
    });
  }

  /** Its goodbye. Throws as `consumerHeartbeat`. */
  consumerLeave(groupId: string, request: MemberIdentity & { readonly memberEpoch: number }): ConsumerHeartbeatAnswer {
    const group = this.#consumerGroup(groupId, undefined, 'Group');
    return this.#within(group, () => group.leave(request));
  }

  /**
   * A heartbeat of a share group's member (KIP-932). Throws a `MillraceError` that says what the answer says;
   * POLICY_VIOLATION when there are as many groups, or members, as there may be.
   */
  shareHeartbeat(groupId: string, request: ShareHeartbeat): ShareHeartbeatAnswer {
    const group = this.#shareGroup(groupId, request.memberEpoch === 0, 'Share group');
    return this.#within(group, () => {
      if (!group.has(request.memberId)) this.#checkMembersRoom({ ...request, topicRegex: null });
      return group.heartbeat(this.#now(), request);
    });
  }

  /** Its goodbye. Throws as `shareHeartbeat`. */
  shareLeave(groupId: string, memberId: string): ShareHeartbeatAnswer {
    const group = this.#shareGroup(groupId, false, 'Group');
    return this.#within(group, () => group.leave(memberId));
  }

  /**
   * The share group of this id without members, for administrators who move its offsets; as with Kafka it is there from
   * then on if it was not before. NON_EMPTY_GROUP, GROUP_ID_NOT_FOUND (another kind of group), INVALID_GROUP_ID.
   */
  foundShareGroup(groupId: string): void {
    if (groupId === '') throw new MillraceError('INVALID_GROUP_ID', 'The group id is invalid.');
    const group = this.#shareGroup(groupId, true, 'Share group');
    this.#within(group, () => {
      if (!group.isVacant) throw new MillraceError('NON_EMPTY_GROUP', 'The group is not empty.');
      group.found();
    });
  }

  #shareGroup(groupId: string, isJoining: boolean, subject: string): ShareGroup {
    const group = this.#store.get(groupId);
    if (group?.type === 'share') return group;
    if (group !== undefined) {
      throw new MillraceError('GROUP_ID_NOT_FOUND', `Group ${groupId} is not a share group.`);
    }
    if (!isJoining) throw new MillraceError('GROUP_ID_NOT_FOUND', `${subject} ${groupId} not found.`);
    if (!this.#hasRoomForGroup()) {
      throw new MillraceError('POLICY_VIOLATION', 'There are as many groups as there may be.');
    }
    return this.#store.shareFor(groupId);
  }

  #checkMembersRoom({
    topicNames,
    topicRegex,
    memberId,
  }: Pick<ConsumerHeartbeat, 'topicNames' | 'topicRegex' | 'memberId'>): void {
    let sizeBytes = 1024 + 2 * memberId.length + 2 * (topicRegex?.length ?? 0);
    for (const name of topicNames ?? []) sizeBytes += 10 + 2 * name.length;
    if (this.#membersBytes + sizeBytes <= this.#options['groups.members.bytes.max']) return;
    throw new MillraceError('POLICY_VIOLATION', 'The members of all groups take as much memory as they may.');
  }

  /** The consumer group of this name; made, or made of a classic one, for a member that joins. */
  #consumerGroup(groupId: string, joining: ConsumerHeartbeat | undefined, subject = 'Consumer group'): ConsumerGroup {
    const group = this.#store.get(groupId);
    if (group?.type === 'consumer') return group;
    if (joining === undefined) {
      const what =
        group === undefined ? `${subject} ${groupId} not found.` : `Group ${groupId} is not a consumer group.`;
      throw new MillraceError('GROUP_ID_NOT_FOUND', what);
    }
    if (group === undefined && !this.#hasRoomForGroup()) {
      throw new MillraceError('POLICY_VIOLATION', 'There are as many groups as there may be.');
    }
    if (group?.type === 'share') {
      throw new MillraceError('GROUP_ID_NOT_FOUND', `Group ${groupId} is not a consumer group.`);
    }
    // Whoever was only told an id is no member: that id will do in a consumer group, too.
    if (group === undefined || group.state === 'Empty') {
      this.#convertEmpty(group, 'consumer');
      return this.#store.consumerFor(groupId);
    }
    // What is refused must leave the group as it is.
    this.#checkJoining(joining, group.members.length);
    return this.#within(group, () => this.#store.upgrade(group));
  }

  #checkJoining(joining: ConsumerHeartbeat, memberCount: number): void {
    const { topicRegex } = joining;
    if (topicRegex !== null && topicRegex !== '') this.#store.checkRegex(topicRegex);
    const sizeMax = this.#options['group.consumer.max.size'];
    if (memberCount === sizeMax) throw groupIsFull(sizeMax);
    this.#checkMembersRoom(joining);
  }

  #convertEmpty(group: AnyGroup | undefined, type: 'classic' | 'consumer'): void {
    if (group === undefined || group.type === 'share' || group.type === type || group.state !== 'Empty') return;
    this.#timers.forget(group);
    this.#membersBytes -= group.membersBytes;
    this.#store.convert(group, type);
  }

  /** One error per member, or one for the request. */
  leave(groupId: string, leaving: readonly MemberIdentity[]): ErrorCode | readonly ErrorCode[] {
    if (groupId === '') return 'INVALID_GROUP_ID';
    const group = this.#store.get(groupId);
    if (group === undefined || group.type === 'share') return leaving.map(() => 'UNKNOWN_MEMBER_ID');
    if (group.type === 'consumer') return this.#within(group, () => group.evict(leaving));
    return this.#within(group, () => group.leave(this.#now(), leaving));
  }

  /** Replies when the offsets are durable, or at once with why they were refused: one error each, in order. */
  commit(request: CommitRequest, reply: (errors: readonly ErrorCode[]) => void): void {
    const now = this.#now();
    const refuse = (error: ErrorCode): void => reply(request.offsets.map(() => error));
    const existing = this.#store.get(request.groupId);
    if (existing?.type === 'share') return refuse('GROUP_ID_NOT_FOUND');
    if (existing === undefined && request.generation >= 0) return refuse(request.unknownGroupError);
    const refusal = existing?.commitRefusal(now, request);
    if (existing !== undefined) this.#settle(existing);
    if (refusal !== undefined) return refuse(refusal);

    const errors = request.offsets.map((offset) => this.#offsetError(offset));
    const accepted = request.offsets.filter((_offset, index) => errors[index] === 'NONE');
    if (accepted.length === 0) return reply(errors);
    if (existing === undefined && !this.#hasRoomForGroup()) return refuse('POLICY_VIOLATION');
    this.#store.commit(
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
    this.#store.whenDurable(() => reply(errors));
  }

  #offsetError({ metadata }: OffsetToCommit): ErrorCode {
    const isLong = metadata.length > this.#options['offset.metadata.max.bytes'];
    return isLong ? 'OFFSET_METADATA_TOO_LARGE' : 'NONE';
  }

  /** What a group has committed for a partition. */
  offset(groupId: string, topic: string, partition: number): CommittedOffset | undefined {
    return this.#store.get(groupId)?.offsets.get(topic, partition);
  }

  /** Ends committed offsets (KIP-496): one error for each of `targets`, or one for the request. */
  deleteOffsets(groupId: string, targets: readonly TopicPartition[]): ErrorCode | readonly ErrorCode[] {
    if (groupId === '') return 'INVALID_GROUP_ID';
    const group = this.#store.get(groupId);
    if (group === undefined || group.type === 'share') return 'GROUP_ID_NOT_FOUND';
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
    this.#store.commit(events, 'waited');
    this.#settle(group);
    return results;
  }

  /** Ends a group and its offsets (KIP-222). */
  deleteGroup(groupId: string): ErrorCode {
    const group = this.#store.get(groupId);
    if (group === undefined) return 'GROUP_ID_NOT_FOUND';
    if (group.state !== 'Empty') return 'NON_EMPTY_GROUP';
    this.#endGroup(group, 'waited');
    if (group.type === 'share') this.#onShareGroupDeleted?.(groupId);
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

  #deleteOffsets(matches: (group: AnyGroup, topic: string, committed: CommittedOffset) => boolean): void {
    const events: GroupEvent[] = [];
    const touched: AnyGroup[] = [];
    for (const group of this.#store.all()) {
      const selected = group.offsets.select((topic, committed) => matches(group, topic, committed));
      if (selected.length === 0) continue;
      touched.push(group);
      for (const target of selected) events.push({ kind: 'offset gone', group: group.id, ...target });
    }
    this.#store.commit(events, 'lazy');
    for (const group of touched) this.#settle(group);
  }

  #endGroup(group: AnyGroup, urgency: 'waited' | 'lazy'): void {
    const events: GroupEvent[] = group.offsets
      .select(() => true)
      .map((target) => ({ kind: 'offset gone', group: group.id, ...target }));
    events.push(...endEvents(group));
    this.#store.commit(events, urgency);
    this.#drop(group);
  }

  /** Looks at some groups for offsets that nobody has needed for long (KIP-211), then goes on later. */
  #expire(rest: Iterator<AnyGroup> = this.#store.all()): void {
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

  #expireGroup(group: AnyGroup, nowMs: number): void {
    const start = group.retentionStart();
    const retentionMs = this.#options['offsets.retention.minutes'] * 60_000;
    const expired = group.offsets.select((topic, { commitTimeMs, expireTimeMs }) => {
      if (start === undefined || group.isSubscribedTo(topic)) return false;
      if (expireTimeMs >= 0) return nowMs >= expireTimeMs;
      return nowMs - (start === 'commit' ? commitTimeMs : start) >= retentionMs;
    });
    // A share group stays until it is deleted, as Kafka's: how far it is does not expire.
    const isOver = group.type !== 'share' && group.isVacant && expired.length === group.offsets.count;
    if (isOver) return this.#endGroup(group, 'lazy');
    this.#store.commit(
      expired.map((target) => ({ kind: 'offset gone', group: group.id, ...target })),
      'lazy',
    );
    this.#settle(group);
  }

  #hasRoomForGroup(): boolean {
    return this.#store.size < this.#options['groups.max'];
  }

  #groupOrNew(groupId: string): AnyGroup | undefined {
    const group = this.#store.get(groupId);
    return group === undefined && this.#hasRoomForGroup() ? this.#store.classicFor(groupId) : group;
  }

  /** Runs what may change the group, then looks at what follows from it. */
  #within<T>(group: AnyGroup, act: () => T): T {
    const before = group.membersBytes;
    try {
      return act();
    } finally {
      const after = this.#store.get(group.id);
      if (after === undefined || after === group) {
        this.#membersBytes += group.membersBytes - before;
        this.#settle(group);
      } else this.#succeed(group, before, after);
    }
  }

  /** The group has gone over to the other protocol: another object stands for it. */
  #succeed(group: AnyGroup, bytesBefore: number, successor: AnyGroup): void {
    this.#timers.forget(group);
    if (successor.type === 'consumer') successor.restartSessions(this.#now());
    this.#membersBytes += successor.membersBytes - bytesBefore;
    this.#settle(successor);
  }

  /** Forgets a group that has nothing left, or sees to it that it gets its time. */
  #settle(group: AnyGroup): void {
    if (this.#store.get(group.id) !== group) return;
    if (group.isBlank) this.#drop(group);
    else this.#timers.watch(group);
  }

  #drop(group: AnyGroup): void {
    this.#store.delete(group);
    this.#timers.forget(group);
    this.#membersBytes -= group.membersBytes;
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

  #tick(groups: readonly AnyGroup[]): void {
    const now = this.#now();
    for (const group of groups) this.#within(group, () => group.tick(now));
  }

  #now(): Instant {
    return { monotonicMs: this.#clock.monotonic(), wallMs: this.#clock.now() };
  }
}

function checkAssignors(list: string): void {
  for (const name of list.split(',')) {
    if (Object.hasOwn(assignors, name.trim())) continue;
    const known = Object.keys(assignors).join(', ');
    throw new MillraceError('INVALID_OPTION', `group.consumer.assignors may name ${known}, not '${name.trim()}'`);
  }
}
