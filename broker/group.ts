/**
 * One group of the classic protocol: members, generations, who leads, who waits. A plain synchronous state machine
 * without I/O, clock or randomness: time is passed in, `nextDeadlineMs` says when `tick` must be called at the latest.
 *
 *   Empty → PreparingRebalance → CompletingRebalance → Stable → PreparingRebalance …   (→ Empty when all are gone)
 *
 * Preparing: members have been told to join, their JoinGroups wait until all came or the rebalance timeout removed the
 * rest. Completing: a generation exists, SyncGroups wait for the leader's assignment. Rules are those of Apache Kafka's
 * GroupCoordinator with KIP-345 (static members), KIP-394 (ids before joining), KIP-559 and KIP-814.
 *
 * Always true: every reply is called exactly once; an answer that tells of an assignment waits until it is durable; a
 * closed connection never removes a member, only its session timeout or LeaveGroup does.
 */
import type { ErrorCode } from '../protocol/errors.ts';
import type { GroupMetadataValue } from '../protocol/kafka/messages.ts';
import type { Options } from './config.ts';
import {
  hasSameProtocols,
  type JoinAnswer,
  type JoinRequest,
  type Member,
  metadataFor,
  NO_BYTES,
  ownProtocols,
  type Protocol,
  refusedJoin,
  refusedSync,
  type SyncAnswer,
  type SyncRequest,
} from './group-member.ts';
import { GroupOffsets } from './group-offsets.ts';
import { type GroupEvent, groupEventBytes } from './group-records.ts';
import { type MemberIdentity, Roster } from './group-roster.ts';

export type GroupState = 'Empty' | 'PreparingRebalance' | 'CompletingRebalance' | 'Stable' | 'Dead';

/** When something is asked: both clocks, as timeouts must not jump and records carry wall time. */
export interface Instant {
  readonly monotonicMs: number;
  readonly wallMs: number;
}

/** Where a group's decisions go. */
export interface GroupLog {
  /** Takes their place in the commit order and applies them. */
  commit(events: readonly GroupEvent[]): void;
  /** Calls back when everything committed so far is durable. */
  whenDurable(callback: () => void): void;
}

export type GroupOptions = Pick<
  Options,
  'group.initial.rebalance.delay.ms' | 'group.max.size' | 'message.max.bytes' | 'journal.entry.bytes'
>;

export interface GroupHost {
  readonly log: GroupLog;
  readonly options: GroupOptions;
  /** A new unique id that starts with `prefix`. */
  newMemberId(prefix: string): string;
}

/** How long the JoinGroup of a member that has no id yet may wait: nobody could tell it from one that is gone. */
export const NEW_MEMBER_JOIN_TIMEOUT_MS = 5 * 60_000;
/** Shortest time after which a group whose static members are all away looks again. */
const LEADERLESS_WAIT_MS = 1_000;
const PENDING_MEMBER_BYTES = 256;

export class Group {
  readonly type = 'classic';
  readonly id: string;
  readonly offsets: GroupOffsets;
  /** As last committed; undefined while the log knows nothing of this group but offsets. */
  stored: GroupMetadataValue | undefined;
  /** `tick` has work at this time; never later than the soonest deadline. */
  nextDeadlineMs = Number.POSITIVE_INFINITY;
  readonly #host: GroupHost;
  #state: GroupState = 'Empty';
  #stateTimeMs = -1;
  #generation = 0;
  #protocolType: string | null = null;
  #protocolName: string | null = null;
  /** What the members subscribe to; undefined if that is not known. */
  #subscribedTopics: ReadonlySet<string> | undefined;
  #roster = new Roster();
  /** Ids handed out with MEMBER_ID_REQUIRED that have not joined yet → when they lapse. */
  readonly #pendingMembers = new Map<string, number>();
  /** Who has not sent SyncGroup in this generation. */
  readonly #pendingSyncs = new Set<string>();
  #syncDeadlineMs = Number.POSITIVE_INFINITY;
  #joinDeadlineMs = Number.POSITIVE_INFINITY;
  /** While a group that was empty waits for more members. */
  #initialDelay: { delayMs: number; remainingMs: number; hasNewMember: boolean } | undefined;
  #wasEmpty = false;

  constructor(id: string, host: GroupHost, offsets = new GroupOffsets()) {
    this.id = id;
    this.#host = host;
    this.offsets = offsets;
  }

  get state(): GroupState {
    return this.#state;
  }
  get generation(): number {
    return this.#generation;
  }
  get protocolType(): string {
    return this.#protocolType ?? '';
  }
  get protocolName(): string {
    return this.#protocolName ?? '';
  }
  get leaderId(): string | null {
    return this.#roster.leaderId;
  }
  /** In the order in which they came. */
  get members(): readonly Member[] {
    return this.#roster.all();
  }
  /** Wall clock of the last change of state, −1 if it never had one. */
  get stateTimeMs(): number {
    return this.#stateTimeMs;
  }
  /** About the memory that members take. */
  get membersBytes(): number {
    return this.#roster.sizeBytes + this.#pendingMembers.size * PENDING_MEMBER_BYTES;
  }
  /** Whether there is nothing to remember. */
  get isBlank(): boolean {
    return this.isVacant && this.stored === undefined && this.offsets.count === 0;
  }
  /** Empty, and nobody is about to join. */
  get isVacant(): boolean {
    return this.#state === 'Empty' && this.#pendingMembers.size === 0;
  }

  /**
   * Takes over what the log holds, or what a consumer group leaves: then with more than the log knows of its members.
   * Once everything is there, `restartSessions` lets time run.
   */
  load(value: GroupMetadataValue, members: readonly Member[] = storedMembers(value)): void {
    this.stored = value;
    this.#roster = new Roster();
    this.#state = value.members.length === 0 ? 'Empty' : 'Stable';
    this.#stateTimeMs = value.currentStateTimestamp;
    this.#generation = value.generation;
    this.#protocolType = value.protocolType === '' ? null : value.protocolType;
    this.#protocolName = value.protocol;
    for (const member of members) this.#roster.add(member);
    this.#roster.lead(value.leader);
    this.#subscribedTopics = this.#findSubscribedTopics();
  }

  /**
   * Sessions start anew. A group that is larger than allowed now rebalances, and so does one that came from a consumer
   * group that somebody left (it has no leader, see `classicValue`).
   */
  restartSessions(now: Instant): void {
    for (const member of this.#roster.all()) this.#touch(member, now);
    const isLeaderless = this.#roster.size > 0 && this.stored?.leader === null;
    if (isLeaderless || this.#roster.size > this.#host.options['group.max.size']) this.#prepareRebalance(now);
  }

  /** It becomes a consumer group: whoever waits here asks again, there. */
  release(): void {
    for (const member of this.#roster.all()) {
      for (const reply of this.#roster.takeJoins(member)) reply(refusedJoin('REBALANCE_IN_PROGRESS', member.id));
      for (const reply of member.syncs) reply(refusedSync('REBALANCE_IN_PROGRESS'));
      member.syncs = [];
    }
  }

  join(now: Instant, request: JoinRequest, reply: (answer: JoinAnswer) => void): void {
    const { memberId, instanceId } = request;
    const refuse = (error: ErrorCode): void => reply(refusedJoin(error, memberId));
    if (!this.#hasPlaceFor(memberId)) {
      this.#pendingMembers.delete(memberId);
      const member = this.#roster.find(memberId);
      if (member !== undefined) this.#remove(member);
      this.#completeJoinIfAllCame(now);
      return reply(refusedJoin('GROUP_MAX_SIZE_REACHED', ''));
    }
    if (!this.#supports(request.protocolType, request.protocols)) return refuse('INCONSISTENT_GROUP_PROTOCOL');
    if (memberId === '') return this.#joinAnew(now, request, reply);
    if (this.#pendingMembers.has(memberId) && instanceId === null) return this.#add(now, memberId, request, reply);

    const error = this.#roster.refusal(request);
    if (error !== undefined) return refuse(error);
    const member = this.#roster.get(memberId);
    switch (this.#state) {
      case 'PreparingRebalance':
        return this.#rejoin(now, member, request, reply);
      case 'CompletingRebalance':
        // A retry: the first answer was lost.
        if (hasSameProtocols(member, request.protocols)) return reply(this.#joined(member));
        return this.#rejoin(now, member, request, reply);
      case 'Stable':
        // The leader may ask for a new assignment although its own metadata is the same (it watches the topics).
        if (memberId !== this.#roster.leaderId && hasSameProtocols(member, request.protocols)) {
          return reply(this.#joined(member));
        }
        return this.#rejoin(now, member, request, reply);
      case 'Empty':
      case 'Dead':
        return refuse('UNKNOWN_MEMBER_ID');
    }
  }

  sync(now: Instant, request: SyncRequest, reply: (answer: SyncAnswer) => void): void {
    const error = this.#roster.refusal(request) ?? this.#syncRefusal(request);
    if (error !== undefined) return reply(refusedSync(error));
    const member = this.#roster.get(request.memberId);
    this.#pendingSyncs.delete(member.id);
    if (this.#pendingSyncs.size === 0) this.#syncDeadlineMs = Number.POSITIVE_INFINITY;
    if (this.#state === 'Stable') {
      const answer = this.#assigned(member);
      return this.#host.log.whenDurable(() => reply(answer));
    }
    member.syncs.push(reply);
    if (member.id === this.#roster.leaderId) this.#assign(now, request.assignments);
  }

  heartbeat(now: Instant, request: MemberIdentity & { readonly generation: number }): ErrorCode {
    const error = this.#roster.refusal(request);
    if (error !== undefined) return error;
    if (request.generation !== this.#generation) return 'ILLEGAL_GENERATION';
    this.#touch(this.#roster.get(request.memberId), now);
    return this.#state === 'PreparingRebalance' ? 'REBALANCE_IN_PROGRESS' : 'NONE';
  }

  /** One error for each of `leaving`. By group.instance.id alone if the member id is empty (for administrators). */
  leave(now: Instant, leaving: readonly MemberIdentity[]): ErrorCode[] {
    let hasRemoved = false;
    const errors = leaving.map(({ memberId, instanceId }): ErrorCode => {
      if (memberId !== '' && this.#pendingMembers.delete(memberId)) return 'NONE';
      const id = memberId === '' && instanceId !== null ? (this.#roster.staticId(instanceId) ?? '') : memberId;
      const error = this.#roster.refusal({ memberId: id, instanceId });
      if (error !== undefined) return error;
      this.#remove(this.#roster.get(id));
      hasRemoved = true;
      return 'NONE';
    });
    if (hasRemoved) this.#rebalance(now);
    else this.#completeJoinIfAllCame(now);
    return errors;
  }

  /** Why a commit of offsets is refused, if it is. A member that may commit is thereby alive. */
  commitRefusal(now: Instant, request: MemberIdentity & { readonly generation: number }): ErrorCode | undefined {
    const { generation, memberId, instanceId } = request;
    // Consumers outside of group management, and administrators.
    if (generation < 0 && this.#state === 'Empty') return undefined;
    if (generation < 0 && memberId === '' && instanceId === null) return 'UNKNOWN_MEMBER_ID';
    const error = this.#roster.refusal(request);
    if (error !== undefined) return error;
    if (generation !== this.#generation) return 'ILLEGAL_GENERATION';
    // It has the new generation but not its assignment yet: it should not have anything to commit.
    if (this.#state === 'CompletingRebalance') return 'REBALANCE_IN_PROGRESS';
    this.#touch(this.#roster.get(memberId), now);
    return undefined;
  }

  /** Removes whoever has been silent for too long and ends what has waited long enough. */
  tick(now: Instant): void {
    const nowMs = now.monotonicMs;
    for (const [id, deadlineMs] of this.#pendingMembers) if (deadlineMs <= nowMs) this.#pendingMembers.delete(id);
    for (const member of this.#roster.all()) {
      if (member.deadlineMs > nowMs) continue;
      const isWaiting = member.joins.length > 0 || member.syncs.length > 0;
      // Its session starts again when it is answered.
      if (isWaiting && !member.isNew) member.deadlineMs = Number.POSITIVE_INFINITY;
      else if (this.#roster.has(member.id)) {
        this.#remove(member);
        this.#rebalance(now);
      }
    }
    this.#completeJoinIfAllCame(now);
    if (this.#joinDeadlineMs <= nowMs) this.#endJoinWait(now);
    if (this.#syncDeadlineMs <= nowMs) this.#endSyncWait(now);
    this.#findNextDeadline();
  }

  isSubscribedTo(topic: string): boolean {
    return this.#subscribedTopics?.has(topic) ?? this.#protocolType === 'consumer';
  }

  /** From when an offset's retention counts (KIP-211): a time, the time of its commit, or not at all. */
  retentionStart(): number | 'commit' | undefined {
    if (this.#protocolType === null) return this.#state === 'Empty' ? 'commit' : undefined;
    if (this.#state === 'Empty') return this.#stateTimeMs >= 0 ? this.#stateTimeMs : 'commit';
    const isSettled = this.#state === 'Stable' && this.#protocolType === 'consumer';
    return isSettled && this.#subscribedTopics !== undefined ? 'commit' : undefined;
  }

  #syncRefusal(request: SyncRequest): ErrorCode | undefined {
    if (request.generation !== this.#generation) return 'ILLEGAL_GENERATION';
    const { protocolType, protocolName } = request;
    const isOther = (asked: string | null, own: string | null): boolean =>
      asked !== null && own !== null && asked !== own;
    if (isOther(protocolType, this.#protocolType) || isOther(protocolName, this.#protocolName)) {
      return 'INCONSISTENT_GROUP_PROTOCOL';
    }
    return this.#state === 'PreparingRebalance' ? 'REBALANCE_IN_PROGRESS' : undefined;
  }

  #hasPlaceFor(memberId: string): boolean {
    const sizeMax = this.#host.options['group.max.size'];
    const member = this.#roster.find(memberId);
    switch (this.#state) {
      case 'Empty':
      case 'Dead':
        return true;
      case 'PreparingRebalance':
        return (member !== undefined && member.joins.length > 0) || this.#roster.waitingCount < sizeMax;
      case 'CompletingRebalance':
      case 'Stable':
        return member !== undefined || this.#roster.size < sizeMax;
    }
  }

  /** Whether the group would still have a protocol in common. */
  #supports(protocolType: string, protocols: readonly Protocol[]): boolean {
    if (this.#roster.size === 0) return protocolType !== '' && protocols.length > 0;
    return protocolType === this.#protocolType && this.#roster.supports(protocols);
  }

  #joinAnew(now: Instant, request: JoinRequest, reply: (answer: JoinAnswer) => void): void {
    const { instanceId } = request;
    const id = this.#host.newMemberId(instanceId ?? request.clientId);
    if (instanceId !== null) {
      const current = this.#roster.staticId(instanceId);
      if (current === undefined) return this.#add(now, id, request, reply);
      return this.#replaceStatic(now, this.#roster.get(current), id, request, reply);
    }
    if (!request.requiresKnownMember) return this.#add(now, id, request, reply);
    const deadlineMs = now.monotonicMs + request.sessionTimeoutMs;
    this.#pendingMembers.set(id, deadlineMs);
    this.#expect(deadlineMs);
    reply(refusedJoin('MEMBER_ID_REQUIRED', id));
  }

  #add(now: Instant, id: string, request: JoinRequest, reply: (answer: JoinAnswer) => void): void {
    if (this.#initialDelay !== undefined) this.#initialDelay.hasNewMember = true;
    if (this.#roster.size === 0) this.#protocolType = request.protocolType;
    this.#pendingMembers.delete(id);
    this.#roster.add({
      id,
      instanceId: request.instanceId,
      clientId: request.clientId,
      clientHost: request.clientHost,
      sessionTimeoutMs: request.sessionTimeoutMs,
      rebalanceTimeoutMs: request.rebalanceTimeoutMs,
      protocols: ownProtocols(request.protocols),
      assignment: NO_BYTES,
      deadlineMs: now.monotonicMs + NEW_MEMBER_JOIN_TIMEOUT_MS,
      isNew: true,
      joins: [reply],
      syncs: [],
    });
    this.#expect(now.monotonicMs + NEW_MEMBER_JOIN_TIMEOUT_MS);
    this.#rebalance(now);
  }

  #rejoin(now: Instant, member: Member, request: JoinRequest, reply: (answer: JoinAnswer) => void): void {
    this.#roster.update(member, request);
    this.#roster.wait(member, reply);
    this.#rebalance(now);
  }

  /** A static member came back under a new id (KIP-345): it takes the place, the old one is fenced. */
  #replaceStatic(
    now: Instant,
    old: Member,
    id: string,
    request: JoinRequest,
    reply: (answer: JoinAnswer) => void,
  ): void {
    const leaderBefore = this.#roster.leaderId;
    const member: Member = { ...old, id, joins: [reply], syncs: [] };
    this.#roster.replace(old, member);
    this.#pendingSyncs.delete(old.id);
    for (const answer of old.joins) answer(refusedJoin('FENCED_INSTANCE_ID', old.id));
    for (const answer of old.syncs) answer(refusedSync('FENCED_INSTANCE_ID'));
    this.#roster.update(member, request);
    this.#touch(member, now);

    // Its old id may be in the assignment that the leader is about to send.
    if (this.#state === 'CompletingRebalance') return this.#prepareRebalance(now);
    if (this.#state !== 'Stable' || this.#roster.electProtocol() !== this.#protocolName) return this.#rebalance(now);
    const value = this.#value((other) => other.assignment);
    if (!this.#fits(value)) return this.#prepareRebalance(now);
    this.#host.log.commit([{ kind: 'group', group: this.id, value }]);
    this.#roster.takeJoins(member);
    const joined = this.#joined(member);
    // Before JoinGroup 9 a leader that came back must not think it is one, or it would compute an assignment.
    const answer = request.canSkipAssignment
      ? { ...joined, skipAssignment: id === this.#roster.leaderId }
      : { ...joined, leaderId: leaderBefore ?? '', members: [] };
    this.#host.log.whenDurable(() => reply(answer));
  }

  /** Takes the member out and tells whoever waits for it. */
  #remove(member: Member): void {
    const { syncs } = member;
    const joins = this.#roster.takeJoins(member);
    member.syncs = [];
    this.#roster.remove(member);
    this.#pendingSyncs.delete(member.id);
    for (const reply of joins) reply(refusedJoin('UNKNOWN_MEMBER_ID', ''));
    for (const reply of syncs) reply(refusedSync('UNKNOWN_MEMBER_ID'));
  }

  #rebalance(now: Instant): void {
    if (this.#state === 'PreparingRebalance') this.#completeJoinIfAllCame(now);
    else this.#prepareRebalance(now);
  }

  #prepareRebalance(now: Instant): void {
    if (this.#state === 'CompletingRebalance') this.#cancelSyncs(now, 'REBALANCE_IN_PROGRESS');
    this.#pendingSyncs.clear();
    this.#syncDeadlineMs = Number.POSITIVE_INFINITY;
    this.#wasEmpty = this.#state === 'Empty';
    this.#enter('PreparingRebalance', now);
    if (!this.#wasEmpty) {
      if (!this.#hasEverybody()) return this.#waitForJoins(now, this.#roster.rebalanceTimeoutMs());
      return this.#completeJoin(now);
    }
    const delayMs = this.#host.options['group.initial.rebalance.delay.ms'];
    this.#initialDelay = {
      delayMs,
      remainingMs: Math.max(0, this.#roster.rebalanceTimeoutMs() - delayMs),
      hasNewMember: false,
    };
    this.#waitForJoins(now, delayMs);
  }

  #waitForJoins(now: Instant, delayMs: number): void {
    this.#joinDeadlineMs = now.monotonicMs + Math.max(0, delayMs);
    this.#expect(this.#joinDeadlineMs);
  }

  #hasEverybody(): boolean {
    return this.#pendingMembers.size === 0 && this.#roster.waitingCount === this.#roster.size;
  }

  #completeJoinIfAllCame(now: Instant): void {
    // A group that was empty waits for its delay, however many came.
    if (this.#state !== 'PreparingRebalance' || this.#wasEmpty) return;
    if (this.#hasEverybody()) this.#completeJoin(now);
  }

  #endJoinWait(now: Instant): void {
    const initial = this.#initialDelay;
    if (initial?.hasNewMember && initial.remainingMs > 0) {
      const delayMs = Math.min(this.#host.options['group.initial.rebalance.delay.ms'], initial.remainingMs);
      const remainingMs = Math.max(0, initial.remainingMs - initial.delayMs);
      this.#initialDelay = { delayMs, remainingMs, hasNewMember: false };
      return this.#waitForJoins(now, delayMs);
    }
    this.#completeJoin(now);
  }

  #completeJoin(now: Instant): void {
    this.#initialDelay = undefined;
    this.#joinDeadlineMs = Number.POSITIVE_INFINITY;
    // Static members keep their place until their session ends.
    for (const member of this.#roster.all()) {
      if (member.joins.length === 0 && member.instanceId === null) this.#remove(member);
    }
    if (this.#roster.size === 0) return this.#becomeEmpty(now);
    // Nobody is there to lead: wait for them, or for the end of their sessions.
    if (!this.#roster.electLeader()) {
      return this.#waitForJoins(now, Math.max(LEADERLESS_WAIT_MS, this.#roster.rebalanceTimeoutMs()));
    }

    this.#generation++;
    // Nobody was let in without a protocol in common with all.
    this.#protocolName = this.#roster.electProtocol();
    this.#subscribedTopics = this.#findSubscribedTopics();
    this.#enter('CompletingRebalance', now);
    this.#pendingSyncs.clear();
    const members = this.#roster.all();
    const answers = members.map((member) => ({
      replies: this.#roster.takeJoins(member),
      answer: this.#joined(member),
    }));
    for (const member of members) {
      member.isNew = false;
      this.#touch(member, now);
      this.#pendingSyncs.add(member.id);
    }
    this.#syncDeadlineMs = now.monotonicMs + Math.max(0, this.#roster.rebalanceTimeoutMs());
    this.#expect(this.#syncDeadlineMs);
    for (const { replies, answer } of answers) for (const reply of replies) reply(answer);
  }

  #becomeEmpty(now: Instant): void {
    const value = { ...this.#value(() => NO_BYTES), generation: this.#generation + 1, protocol: null, leader: null };
    // A group that never got as far as an assignment leaves no trace.
    if (this.stored !== undefined || this.offsets.count > 0) {
      const event = { kind: 'group', group: this.id, value: { ...value, currentStateTimestamp: now.wallMs } } as const;
      this.#host.log.commit([event]);
    }
    this.#generation = value.generation;
    this.#protocolName = null;
    this.#subscribedTopics = this.#findSubscribedTopics();
    this.#enter('Empty', now);
  }

  #assign(now: Instant, assignments: SyncRequest['assignments']): void {
    // Copy: the assignments are views of the request.
    const given = new Map(assignments.map(({ memberId, assignment }) => [memberId, Buffer.from(assignment)]));
    const value = this.#value(({ id }) => given.get(id) ?? NO_BYTES);
    if (!this.#fits(value)) {
      this.#cancelSyncs(now, 'UNKNOWN_SERVER_ERROR');
      return this.#prepareRebalance(now);
    }
    this.#host.log.commit([{ kind: 'group', group: this.id, value }]);
    const answers: { replies: Member['syncs']; answer: SyncAnswer }[] = [];
    for (const member of this.#roster.all()) {
      this.#roster.assign(member, given.get(member.id) ?? NO_BYTES);
      if (member.syncs.length === 0) continue;
      answers.push({ replies: member.syncs, answer: this.#assigned(member) });
      member.syncs = [];
      this.#touch(member, now);
    }
    this.#enter('Stable', now);
    this.#host.log.whenDurable(() => {
      for (const { replies, answer } of answers) for (const reply of replies) reply(answer);
    });
  }

  #cancelSyncs(now: Instant, error: ErrorCode): void {
    for (const member of this.#roster.all()) {
      this.#roster.assign(member, NO_BYTES);
      if (member.syncs.length === 0) continue;
      for (const reply of member.syncs) reply(refusedSync(error));
      member.syncs = [];
      this.#touch(member, now);
    }
  }

  #endSyncWait(now: Instant): void {
    for (const id of this.#pendingSyncs) {
      const member = this.#roster.find(id);
      if (member !== undefined) this.#remove(member);
    }
    this.#prepareRebalance(now);
  }

  #enter(state: GroupState, now: Instant): void {
    this.#state = state;
    this.#stateTimeMs = now.wallMs;
  }

  #joined(member: Member): JoinAnswer {
    const isLeader = member.id === this.#roster.leaderId;
    return {
      error: 'NONE',
      memberId: member.id,
      generation: this.#generation,
      protocolType: this.#protocolType,
      protocolName: this.#protocolName,
      leaderId: this.#roster.leaderId ?? '',
      skipAssignment: false,
      members: isLeader
        ? this.#roster.all().map((other) => ({
            memberId: other.id,
            groupInstanceId: other.instanceId,
            metadata: metadataFor(other, this.#protocolName),
          }))
        : [],
    };
  }

  #assigned(member: Member): SyncAnswer {
    return {
      error: 'NONE',
      protocolType: this.#protocolType,
      protocolName: this.#protocolName,
      assignment: member.assignment,
    };
  }

  /** The group as a record, with these assignments. */
  #value(assignmentOf: (member: Member) => Buffer): GroupMetadataValue {
    return {
      protocolType: this.protocolType,
      generation: this.#generation,
      protocol: this.#protocolName,
      leader: this.#roster.leaderId,
      currentStateTimestamp: this.#stateTimeMs,
      members: this.#roster.stored(this.#protocolName, assignmentOf),
    };
  }

  #fits(value: GroupMetadataValue): boolean {
    const { options } = this.#host;
    const bytesMax = Math.min(options['message.max.bytes'], options['journal.entry.bytes'] / 2);
    return groupEventBytes({ kind: 'group', group: this.id, value }) <= bytesMax;
  }

  #findSubscribedTopics(): ReadonlySet<string> | undefined {
    return this.#protocolType === 'consumer' ? this.#roster.subscribedTopics(this.#protocolName) : undefined;
  }

  #touch(member: Member, now: Instant): void {
    member.deadlineMs = now.monotonicMs + member.sessionTimeoutMs;
    this.#expect(member.deadlineMs);
  }

  #expect(deadlineMs: number): void {
    if (deadlineMs < this.nextDeadlineMs) this.nextDeadlineMs = deadlineMs;
  }

  #findNextDeadline(): void {
    this.nextDeadlineMs = Math.min(this.#joinDeadlineMs, this.#syncDeadlineMs);
    for (const deadlineMs of this.#pendingMembers.values()) this.#expect(deadlineMs);
    for (const { deadlineMs } of this.#roster.all()) this.#expect(deadlineMs);
  }
}

function storedMembers({ protocol, members }: GroupMetadataValue): Member[] {
  return members.map((stored) => ({
    id: stored.memberId,
    instanceId: stored.groupInstanceId,
    clientId: stored.clientId,
    clientHost: stored.clientHost,
    sessionTimeoutMs: stored.sessionTimeout,
    rebalanceTimeoutMs: stored.rebalanceTimeout < 0 ? stored.sessionTimeout : stored.rebalanceTimeout,
    protocols: protocol === null ? [] : [{ name: protocol, metadata: stored.subscription }],
    assignment: stored.assignment,
    deadlineMs: Number.POSITIVE_INFINITY,
    isNew: false,
    joins: [],
    syncs: [],
  }));
}
