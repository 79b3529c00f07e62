/**
 * One group of the consumer protocol (KIP-848): the broker decides who has which partition and tells each member in the
 * answer to its heartbeat. A plain synchronous state machine without I/O, clock or randomness.
 *
 *   group epoch   rises when members, subscriptions or the subscribed topics change
 *   target        who should have what, computed for a group epoch by an assignor
 *   progress      what each member has; it moves towards the target at its own pace (consumer-member.ts)
 *
 * Members of the classic protocol (consumer-classic.ts) are members like any other, of whom JoinGroup, SyncGroup and
 * Heartbeat are the heartbeats. When the last member of the consumer protocol goes and others stay, the group becomes a
 * classic one, if `group.consumer.migration.policy` allows it.
 *
 * Always true: everything that outlives a restart changes by events alone, in `apply`, so a group that is read from the
 * log is the one that wrote it; a partition is given to a member only when no other holds it or has yet to give it up.
 * Refusals are thrown as `MillraceError` before anything is decided.
 */
import { type ErrorCode, MillraceError } from '../protocol/errors.ts';
import { type AssignorMember, assignors, type Partitions } from './consumer-assignors.ts';
import {
  assignmentBytes,
  byTopicId,
  classicMember,
  type EmbeddedSubscription,
  hasCommonProtocol,
  readSubscription,
} from './consumer-classic.ts';
import { type ConsumerGroupEvent, consumerGroupEventBytes } from './consumer-group-records.ts';
import { StoredConsumerGroup } from './consumer-group-stored.ts';
import {
  type ClassicMembership,
  type ConsumerMember,
  isSameHeld,
  indexesOf,
  isSameNames,
  isSamePartitions,
  isSameProfile,
  isSameProgress,
  isWithin,
  type HeldPartitions,
  type MemberProfile,
  type MemberProgress,
  MEMBER_STATES,
  NO_HELD,
  reconcile,
} from './consumer-member.ts';
import type { Options } from './config.ts';
import type { GroupSettings } from './group-configs.ts';
import { GroupOffsets } from './group-offsets.ts';
import {
  type JoinAnswer,
  type JoinRequest,
  type Member,
  ownProtocols,
  refusedJoin,
  refusedSync,
  type SyncAnswer,
  type SyncRequest,
} from './group-member.ts';
import type { MemberIdentity } from './group-roster.ts';
import { MemberSessions } from './member-sessions.ts';
import type { TopicCatalog } from './subscriptions.ts';
import type { Instant } from './group.ts';

export type ConsumerGroupState = 'Empty' | 'Assigning' | 'Reconciling' | 'Stable' | 'Dead';

/** Where a consumer group's decisions go, and what it must know of the broker. */
export interface ConsumerGroupHost {
  /** Gives the events their place in the commit order and applies them. */
  commit(events: readonly ConsumerGroupEvent[]): void;
  /**
   * Makes a classic group of this one: commits `ending`, then the group of these members. False if that may not be;
   * nothing has happened then. `hasToRebalance`: somebody left, so who stays must share anew.
   */
  becomeClassic(
    ending: () => ConsumerGroupEvent[],
    members: readonly Member[],
    generation: number,
    hasToRebalance: boolean,
  ): boolean;
  /** A new unique id. */
  newMemberId(): string;
  readonly options: Pick<Options, 'group.consumer.max.size' | 'group.consumer.assignors' | 'message.max.bytes'>;
  /** The group's configs in force. */
  settings(): GroupSettings;
  readonly topics: TopicCatalog;
}

export interface ConsumerHeartbeat {
  readonly groupId: string;
  readonly memberId: string;
  /** 0: joins. */
  readonly memberEpoch: number;
  readonly clientId: string;
  readonly clientHost: string;
  /** Null in the following: as before. */
  readonly instanceId: string | null;
  readonly rackId: string | null;
  /** -1: as before. */
  readonly rebalanceTimeoutMs: number;
  readonly topicNames: readonly string[] | null;
  readonly topicRegex: string | null;
  readonly assignor: string | null;
  /** What the member has; null if it does not say. */
  readonly owned: Partitions | null;
  /** Set if the member speaks the classic protocol. */
  readonly classic?: ClassicMembership;
  /** Whether the member may know of a topic that a regular expression finds; undefined: it has no such subscription. */
  readonly canSee: ((topic: string) => boolean) | undefined;
}

export interface ConsumerHeartbeatAnswer {
  readonly memberId: string;
  readonly memberEpoch: number;
  readonly heartbeatIntervalMs: number;
  /** Null: as before. */
  readonly assignment: Partitions | null;
}

/** The member that asks; with the static member whose place it takes, if it takes one. */
interface FoundMember {
  predecessor?: ConsumerMember | undefined;
  before?: ConsumerMember | undefined;
}

/** Epochs that say goodbye. */
export const LEAVE_EPOCH = -1;
export const LEAVE_STATIC_EPOCH = -2;

export class ConsumerGroup {
  readonly type = 'consumer';
  readonly protocolType = 'consumer';
  readonly id: string;
  readonly offsets: GroupOffsets;
  readonly #host: ConsumerGroupHost;
  /** What outlives a restart. */
  readonly #stored: StoredConsumerGroup;
  readonly #sessions = new MemberSessions();

  constructor(id: string, host: ConsumerGroupHost, offsets = new GroupOffsets()) {
    this.id = id;
    this.#host = host;
    this.offsets = offsets;
    this.#stored = new StoredConsumerGroup(id, host.topics);
  }

  get state(): ConsumerGroupState {
    if (this.#stored.members.size === 0) return 'Empty';
    if (this.#stored.epoch > this.#stored.targetEpoch) return 'Assigning';
    for (const { progress } of this.#stored.members.values()) {
      if (progress.state !== MEMBER_STATES.stable || progress.epoch !== this.#stored.targetEpoch) return 'Reconciling';
    }
    return 'Stable';
  }
  get epoch(): number {
    return this.#stored.epoch;
  }
  get targetEpoch(): number {
    return this.#stored.targetEpoch;
  }
  /** In the order in which they came. */
  get members(): readonly ConsumerMember[] {
    return [...this.#stored.members.values()];
  }
  has(memberId: string): boolean {
    return this.#stored.members.has(memberId);
  }
  target(memberId: string): Partitions {
    return this.#stored.target(memberId);
  }
  /** The assignor that most members ask for, the broker's first if none does. */
  get assignorName(): string {
    const votes = new Map<string, number>();
    for (const { profile } of this.#stored.members.values()) {
      if (profile.assignor !== null) votes.set(profile.assignor, (votes.get(profile.assignor) ?? 0) + 1);
    }
    let elected = this.#assignorNames[0];
    let most = 0;
    for (const [name, count] of votes) {
      if (count <= most) continue;
      elected = name;
      most = count;
    }
    return elected;
  }
  /** `tick` has work at this time; never later than the soonest deadline. */
  get nextDeadlineMs(): number {
    return this.#sessions.nextDeadlineMs;
  }
  /** About the memory that members take. */
  get membersBytes(): number {
    return this.#stored.membersBytes;
  }
  /** Whether there is nothing to remember. */
  get isBlank(): boolean {
    return this.isVacant && this.#stored.epoch === 0 && this.offsets.count === 0;
  }
  get isVacant(): boolean {
    return this.#stored.members.size === 0;
  }
  isSubscribedTo(topic: string): boolean {
    return this.#stored.subscriptions.has(topic);
  }
  /** From when an offset's retention counts (KIP-211): always from its commit. */
  retentionStart(): 'commit' {
    return 'commit';
  }

  get #assignorNames(): readonly string[] {
    return this.#host.options['group.consumer.assignors'].split(',').map((name) => name.trim());
  }

  /** Throws what the answer says. */
  heartbeat(now: Instant, request: ConsumerHeartbeat): ConsumerHeartbeatAnswer {
    const { before, reached, assignedBefore } = this.#turn(now, request, this.#find(request));
    if (before !== undefined && before.profile.classic !== null) this.#sessions.hasNoRounds(request.memberId);

    const isFull =
      request.rebalanceTimeoutMs !== -1 &&
      (request.topicNames !== null || request.topicRegex !== null) &&
      request.owned !== null;
    const isTold =
      request.memberEpoch === 0 || isFull || !isSameHeld(before?.progress.assigned ?? assignedBefore, reached.assigned);
    return {
      memberId: request.memberId,
      memberEpoch: reached.epoch,
      heartbeatIntervalMs: this.#host.settings().consumerHeartbeatIntervalMs,
      assignment: isTold ? indexesOf(reached) : null,
    };
  }

  /** What a heartbeat and a JoinGroup share: takes in what the member says, and moves it towards its target. */
  #turn(
    now: Instant,
    request: ConsumerHeartbeat,
    found: FoundMember,
  ): { before: ConsumerMember | undefined; reached: MemberProgress; assignedBefore: HeldPartitions } {
    const hasNewSubscription = this.#announce(now, request, found);
    this.#assign(now);

    const member = this.#member(request.memberId);
    const reached = this.#reconcile(member, request.owned ?? undefined, hasNewSubscription);
    if (reached !== member.progress) {
      this.#host.commit([{ kind: 'consumer member progress', group: this.id, member: member.id, value: reached }]);
      this.#expectRevocation(now, request.memberId, reached);
    }
    return { before: found.before, reached, assignedBefore: member.progress.assigned };
  }

  /** JoinGroup of a member that speaks the classic protocol. */
  classicJoin(now: Instant, request: JoinRequest): JoinAnswer {
    const { instanceId, protocols } = request;
    const sizeMax = this.#host.options['group.consumer.max.size'];
    if (!this.#stored.members.has(request.memberId) && this.#stored.members.size >= sizeMax) {
      return refusedJoin('GROUP_MAX_SIZE_REACHED', '');
    }
    const subscription = protocols.length === 0 ? undefined : readSubscription(protocols[0].metadata);
    const isCommon = request.protocolType === this.protocolType && hasCommonProtocol(this.#memberships(), protocols);
    if (subscription === undefined || !isCommon) return refusedJoin('INCONSISTENT_GROUP_PROTOCOL', '');
    const isNew = request.memberId === '';
    const memberId = isNew ? this.#host.newMemberId() : request.memberId;
    if (isNew && instanceId === null && request.requiresKnownMember) return refusedJoin('MEMBER_ID_REQUIRED', memberId);
    const found: FoundMember = { before: this.#stored.members.get(memberId) };
    if (instanceId !== null) {
      const holder = this.#stored.members.get(this.#stored.staticIds.get(instanceId) ?? '');
      if (isNew) found.predecessor = holder;
      else if (holder === undefined) return refusedJoin('UNKNOWN_MEMBER_ID', memberId);
      else if (holder.id !== memberId) return refusedJoin('FENCED_INSTANCE_ID', memberId);
    }
    let reached: MemberProgress;
    try {
      ({ reached } = this.#turn(now, this.#asHeartbeat(request, memberId, subscription), found));
    } catch (error) {
      if (error instanceof MillraceError && error.code === 'INVALID_REQUEST') return refusedJoin(error.code, memberId);
      throw error;
    }
    this.#sessions.expectSync(memberId, now.monotonicMs + Math.max(0, request.rebalanceTimeoutMs));
    if (found.predecessor?.profile.classic === null) this.#becomeClassic(new Set(), false);
    return {
      error: 'NONE',
      memberId,
      generation: reached.epoch,
      protocolType: this.protocolType,
      protocolName: protocols[0].name,
      leaderId: '',
      skipAssignment: false,
      members: [],
    };
  }

  #asHeartbeat(request: JoinRequest, memberId: string, subscription: EmbeddedSubscription): ConsumerHeartbeat {
    return {
      groupId: this.id,
      memberId,
      memberEpoch: 0,
      clientId: request.clientId,
      clientHost: request.clientHost,
      instanceId: request.instanceId,
      rackId: subscription.rackId,
      rebalanceTimeoutMs: request.rebalanceTimeoutMs,
      topicNames: subscription.topics,
      topicRegex: null,
      assignor: null,
      owned: byTopicId(this.#host.topics, subscription.owned),
      classic: { sessionTimeoutMs: request.sessionTimeoutMs, protocols: ownProtocols(request.protocols) },
      canSee: undefined,
    };
  }

  /** SyncGroup of a member that speaks the classic protocol. */
  classicSync(now: Instant, request: SyncRequest): SyncAnswer {
    const member = this.#classicMember(request);
    if (typeof member === 'string') return refusedSync(member);
    const protocolName = member.profile.classic?.protocols[0].name ?? '';
    const isOther = (asked: string | null, own: string): boolean => asked !== null && asked !== own;
    if (isOther(request.protocolType, this.protocolType) || isOther(request.protocolName, protocolName)) {
      return refusedSync('INCONSISTENT_GROUP_PROTOCOL');
    }
    const { progress } = member;
    if (request.generation !== progress.epoch) return refusedSync('ILLEGAL_GENERATION');
    // Who is giving up partitions has joined already: it gets what it keeps, and joins again by itself.
    if (this.#stored.targetEpoch > progress.epoch && progress.state !== MEMBER_STATES.unrevoked) {
      this.#expectJoin(now, member);
      return refusedSync('REBALANCE_IN_PROGRESS');
    }
    this.#sessions.hasSynced(member.id);
    this.#touch(member.id, now);
    const assignment = assignmentBytes(member, progress.assigned, this.#host.topics);
    return { error: 'NONE', protocolType: this.protocolType, protocolName, assignment };
  }

  /** Heartbeat of a member that speaks the classic protocol: whether it must join again. */
  classicHeartbeat(now: Instant, request: MemberIdentity & { readonly generation: number }): ErrorCode {
    const member = this.#classicMember(request);
    if (typeof member === 'string') return member;
    const { epoch, state } = member.progress;
    if (request.generation !== epoch) return 'ILLEGAL_GENERATION';
    this.#touch(member.id, now);
    // Where nobody speaks the consumer protocol there is no other heartbeat that would see to it.
    if (this.#stored.subscriptions.isStale && !this.#stored.subscriptions.hasRegex)
      this.#refresh(now, undefined, false);
    this.#assign(now);
    const canTakeMore = state === MEMBER_STATES.unreleased && !this.#isWaiting(member);
    if (epoch >= this.#stored.targetEpoch && state !== MEMBER_STATES.unrevoked && !canTakeMore) return 'NONE';
    this.#expectJoin(now, member);
    return 'REBALANCE_IN_PROGRESS';
  }

  #classicMember({ memberId, instanceId }: MemberIdentity): ConsumerMember | ErrorCode {
    if (instanceId !== null) {
      const holderId = this.#stored.staticIds.get(instanceId);
      if (holderId === undefined) return 'UNKNOWN_MEMBER_ID';
      if (holderId !== memberId) return 'FENCED_INSTANCE_ID';
    }
    const member = this.#stored.members.get(memberId);
    return member === undefined || member.profile.classic === null ? 'UNKNOWN_MEMBER_ID' : member;
  }

  #memberships(): ClassicMembership[] {
    return [...this.#stored.members.values()].flatMap(({ profile }) =>
      profile.classic === null ? [] : [profile.classic],
    );
  }

  #expectJoin(now: Instant, { id, profile }: ConsumerMember): void {
    this.#sessions.expectJoin(id, now.monotonicMs + Math.max(0, profile.rebalanceTimeoutMs));
  }

  /** Whether another member still holds something of this one's target. */
  #isWaiting({ id, progress }: ConsumerMember): boolean {
    for (const [topicId, partitions] of this.target(id)) {
      for (const partition of partitions) {
        if (!progress.assigned.get(topicId)?.has(partition) && this.#stored.holders.has(topicId, partition))
          return true;
      }
    }
    return false;
  }

  /** Makes a classic group of this one without `gone`, if all who stay speak that protocol. */
  #becomeClassic(gone: ReadonlySet<string>, hasToRebalance: boolean): boolean {
    const members: Member[] = [];
    for (const member of this.#stored.members.values()) {
      if (gone.has(member.id)) continue;
      const classic = classicMember(member, this.target(member.id), this.#host.topics);
      if (classic === undefined) return false;
      members.push(classic);
    }
    const ending = (): ConsumerGroupEvent[] => {
      const all = [...this.#stored.members.values()];
      const unused = this.#stored.subscriptions.unused(all.map(({ profile }) => profile));
      return [...all.flatMap(({ id }) => this.#stored.endMember(id)), ...unused, ...this.endEvents()];
    };
    return members.length > 0 && this.#host.becomeClassic(ending, members, this.#stored.epoch, hasToRebalance);
  }

  /** A goodbye, for good or (a static member) for now. Throws what the answer says. */
  leave(request: MemberIdentity & { readonly memberEpoch: number }): ConsumerHeartbeatAnswer {
    const { memberId, instanceId, memberEpoch } = request;
    const member = instanceId === null ? this.#stored.members.get(memberId) : this.#staticMember(instanceId, memberId);
    if (member === undefined) throw this.#unknown(memberId);
    if (memberEpoch === LEAVE_STATIC_EPOCH && instanceId !== null) {
      const progress = { ...member.progress, epoch: LEAVE_STATIC_EPOCH, revoking: NO_HELD };
      this.#host.commit([{ kind: 'consumer member progress', group: this.id, member: member.id, value: progress }]);
    } else {
      this.#remove([member]);
    }
    return { memberId, memberEpoch, heartbeatIntervalMs: 0, assignment: null };
  }

  /** LeaveGroup of the classic protocol, for administrators: they name static members by their instance id alone. */
  evict(leaving: readonly MemberIdentity[]): ErrorCode[] {
    const removed = new Set<ConsumerMember>();
    const results = leaving.map(({ memberId, instanceId }): ErrorCode => {
      const holderId = instanceId === null ? memberId : (this.#stored.staticIds.get(instanceId) ?? '');
      const member = this.#stored.members.get(holderId);
      if (member === undefined) return 'UNKNOWN_MEMBER_ID';
      if (memberId !== '' && memberId !== holderId) return 'FENCED_INSTANCE_ID';
      removed.add(member);
      return 'NONE';
    });
    if (removed.size > 0) this.#remove([...removed]);
    return results;
  }

  /** Why this commit is refused, if it is. */
  commitRefusal(
    _now: Instant,
    request: {
      readonly memberId: string;
      readonly generation: number;
      readonly isOldVersion: boolean;
      readonly offsets: readonly { readonly topicId: string; readonly partition: number }[];
    },
  ): ErrorCode | undefined {
    // Administrators may move the offsets of a group that nobody is in.
    if (request.generation < 0 && this.#stored.members.size === 0) return undefined;
    const member = this.#stored.members.get(request.memberId);
    if (member === undefined) return 'UNKNOWN_MEMBER_ID';
    if (member.profile.classic !== null) {
      return request.generation === member.progress.epoch ? undefined : 'ILLEGAL_GENERATION';
    }
    if (request.isOldVersion) return 'UNSUPPORTED_VERSION';
    const { epoch, assigned } = member.progress;
    if (request.generation === epoch) return undefined;
    if (request.generation > epoch) return 'STALE_MEMBER_EPOCH';
    // An answer may have overtaken the commit (KIP-1251): what the member had at that epoch is still its own.
    const isOwn = request.offsets.every(({ topicId, partition }) => {
      const since = assigned.get(topicId)?.get(partition);
      return since !== undefined && request.generation >= since;
    });
    return isOwn ? undefined : 'STALE_MEMBER_EPOCH';
  }

  /** Why offsets are not told, if so. `memberId` null with a negative epoch: whoever asks is not a member. */
  fetchRefusal(memberId: string | null, memberEpoch: number): ErrorCode | undefined {
    if (memberId === null && memberEpoch < 0) return undefined;
    const member = this.#stored.members.get(memberId ?? '');
    if (member === undefined) return 'UNKNOWN_MEMBER_ID';
    if (member.progress.epoch === memberEpoch) return undefined;
    return member.profile.classic === null ? 'STALE_MEMBER_EPOCH' : 'ILLEGAL_GENERATION';
  }

  /** After a restart: sessions start anew. */
  restartSessions(now: Instant): void {
    for (const { id, progress } of this.#stored.members.values()) {
      this.#touch(id, now);
      this.#expectRevocation(now, id, progress);
    }
  }

  /** Puts out whoever has been silent, or has kept what it was told to give up, for too long. */
  tick(now: Instant): void {
    const late = this.#sessions.late(now.monotonicMs).map((id) => this.#member(id));
    if (late.length > 0) this.#remove(late);
  }

  /** What the log must hold for this group to be read again. */
  live(): Iterable<ConsumerGroupEvent> {
    return this.#stored.live();
  }

  /** What ends a group without members. */
  endEvents(): ConsumerGroupEvent[] {
    return this.#stored.endEvents();
  }

  apply(event: ConsumerGroupEvent): void {
    this.#stored.apply(event);
    if (event.kind === 'consumer member' && event.value === null) this.#sessions.delete(event.member);
  }

  /** Takes in who the member is and what it subscribes to; true if that is something else than before. */
  #announce(now: Instant, request: ConsumerHeartbeat, { predecessor, before }: FoundMember): boolean {
    const profile = this.#profile(predecessor?.profile ?? before?.profile, request);
    this.#checkProfile(request, profile, before?.profile);

    const events: ConsumerGroupEvent[] = [];
    if (predecessor !== undefined) this.#replace(predecessor, request.memberId, profile, events);
    else if (before === undefined || !isSameProfile(before.profile, profile)) {
      events.push(this.#memberEvent(request.memberId, profile));
    }
    const former = (predecessor ?? before)?.profile;
    const hasNewNames = !isSameNames(former?.topicNames ?? [], profile.topicNames);
    const hasNewRegex = (former?.topicRegex ?? '') !== (profile.topicRegex ?? '');
    const hasBump = hasNewNames || hasNewRegex || (former?.assignor ?? null) !== profile.assignor;
    // A group begins at 1, as Kafka's. In one commit with what it is raised for: a member that is known without it would
    // never get a target.
    const epoch = Math.max(this.#stored.epoch, 1) + (hasBump ? 1 : 0);
    if (epoch !== this.#stored.epoch) events.unshift(this.#epochEvent(epoch, this.#stored.metadataHash));
    if (events.length > 0) this.#host.commit(events);
    this.#touch(request.memberId, now);
    if (hasBump || this.#stored.subscriptions.isStale) this.#refresh(now, request, hasBump);
    return hasNewNames || hasNewRegex;
  }

  #find(request: ConsumerHeartbeat): FoundMember {
    const { memberId, memberEpoch, instanceId } = request;
    const known = this.#stored.members.get(memberId);
    const sizeMax = this.#host.options['group.consumer.max.size'];
    if (known === undefined && this.#stored.members.size >= sizeMax) {
      throw groupIsFull(sizeMax);
    }
    if (memberEpoch > 0) {
      const member = instanceId === null ? known : this.#staticMember(instanceId, memberId);
      if (member === undefined) throw this.#unknown(memberId);
      checkEpoch(member, request);
      return { before: member };
    }
    if (instanceId === null) return known === undefined ? {} : { before: known };
    const holder = this.#stored.members.get(this.#stored.staticIds.get(instanceId) ?? '');
    if (holder === undefined) return known === undefined ? {} : { before: known };
    // One that speaks the classic protocol cannot say that it comes back: whoever has its instance id is it.
    if (holder.progress.epoch !== LEAVE_STATIC_EPOCH && holder.profile.classic === null) {
      throw new MillraceError(
        'UNRELEASED_INSTANCE_ID',
        `Static member ${memberId} with instance id ${instanceId} cannot join the group because the instance id is owned by ${holder.id} member.`,
      );
    }
    return { predecessor: holder };
  }

  #staticMember(instanceId: string, memberId: string): ConsumerMember {
    const holder = this.#stored.members.get(this.#stored.staticIds.get(instanceId) ?? '');
    if (holder === undefined) throw new MillraceError('UNKNOWN_MEMBER_ID', `Instance id ${instanceId} is unknown.`);
    if (holder.id !== memberId) {
      throw new MillraceError(
        'FENCED_INSTANCE_ID',
        `Static member ${memberId} with instance id ${instanceId} was fenced by member ${holder.id}.`,
      );
    }
    return holder;
  }

  #unknown(memberId: string): MillraceError {
    return new MillraceError('UNKNOWN_MEMBER_ID', `Member ${memberId} is not a member of group ${this.id}.`);
  }

  #member(id: string): ConsumerMember {
    const member = this.#stored.members.get(id);
    if (member === undefined) throw new Error(`no member '${id}' in consumer group '${this.id}'`);
    return member;
  }

  #profile(before: MemberProfile | undefined, request: ConsumerHeartbeat): MemberProfile {
    const isClassic = request.classic !== undefined;
    return {
      instanceId: request.instanceId ?? before?.instanceId ?? null,
      rackId: request.rackId ?? before?.rackId ?? null,
      clientId: request.clientId,
      clientHost: request.clientHost,
      topicNames: request.topicNames === null ? (before?.topicNames ?? []) : [...new Set(request.topicNames)].sort(),
      topicRegex: isClassic ? null : (request.topicRegex ?? before?.topicRegex ?? null),
      rebalanceTimeoutMs:
        request.rebalanceTimeoutMs === -1 ? (before?.rebalanceTimeoutMs ?? -1) : request.rebalanceTimeoutMs,
      assignor: isClassic ? null : (request.assignor ?? before?.assignor ?? null),
      classic: request.classic ?? null,
    };
  }

  #checkProfile(request: ConsumerHeartbeat, profile: MemberProfile, before: MemberProfile | undefined): void {
    const { topicRegex } = profile;
    const isNew = topicRegex !== null && topicRegex !== '' && topicRegex !== before?.topicRegex;
    if (isNew) this.#stored.subscriptions.check(topicRegex);
    const sizeBytes = consumerGroupEventBytes(this.#memberEvent(request.memberId, profile));
    if (sizeBytes <= this.#host.options['message.max.bytes'] / 2) return;
    throw new MillraceError('INVALID_REQUEST', 'The subscription is larger than the group log takes.');
  }

  #memberEvent(member: string, value: MemberProfile): ConsumerGroupEvent {
    return { kind: 'consumer member', group: this.id, member, value };
  }

  /** A static member came back, perhaps under a new id: it takes over what the old one had and should have. */
  #replace(old: ConsumerMember, id: string, profile: MemberProfile, events: ConsumerGroupEvent[]): void {
    const target = this.#stored.targets.get(old.id);
    const progress = { ...old.progress, epoch: 0, previousEpoch: 0 };
    events.push(...this.#stored.endMember(old.id), this.#memberEvent(id, profile));
    if (target !== undefined)
      events.push({ kind: 'consumer member target', group: this.id, member: id, value: target });
    events.push({ kind: 'consumer member progress', group: this.id, member: id, value: progress });
  }

  /** Takes members out; the others get their partitions with the next target. */
  #remove(members: readonly ConsumerMember[]): void {
    const gone = new Set(members.map(({ id }) => id));
    if (this.#becomeClassic(gone, true)) return;
    const events = members.flatMap(({ id }) => this.#stored.endMember(id));
    events.push(...this.#stored.subscriptions.unused(members.map(({ profile }) => profile)));
    // The epoch first: if only part of this survives, there is a new target and the rest runs into its session timeout.
    const epoch = this.#stored.epoch + 1;
    const isLast = gone.size === this.#stored.members.size;
    // Nobody is left to assign anything to; who comes next need not wait.
    if (isLast) events.push({ kind: 'consumer target', group: this.id, value: { epoch, timeMs: 0 } });
    this.#host.commit([this.#epochEvent(epoch, this.#stored.metadataHash), ...events]);
  }

  #epochEvent(epoch: number, hash: number): ConsumerGroupEvent {
    return { kind: 'consumer group', group: this.id, value: { epoch, metadataHash: hash } };
  }

  /** Looks at the topics again, as they or the subscriptions have changed; raises the epoch if it has not been raised. */
  #refresh(now: Instant, request: ConsumerHeartbeat | undefined, hasBump: boolean): void {
    // What expressions find is for those to say who may look for topics.
    if (request?.canSee !== undefined || !this.#stored.subscriptions.hasRegex) {
      const events = this.#stored.subscriptions.resolve(now.wallMs, request?.canSee ?? (() => false));
      if (events.length > 0) this.#host.commit(events);
    }
    const hash = this.#stored.subscriptions.hash();
    if (hash === this.#stored.metadataHash) return;
    this.#host.commit([this.#epochEvent(hasBump ? this.#stored.epoch : this.#stored.epoch + 1, hash)]);
  }

  /** Computes a new target if the group has a newer epoch, at most once an interval. */
  #assign(now: Instant): void {
    if (this.#stored.epoch <= this.#stored.targetEpoch) return;
    const intervalMs = this.#host.settings().consumerAssignmentIntervalMs;
    // A clock that was set back must not hold the group up.
    const sinceMs = Math.abs(now.wallMs - this.#stored.targetTimeMs);
    if (this.#stored.targetTimeMs !== 0 && sinceMs < intervalMs) return;
    const members = [...this.#stored.members.values()].map(({ id, profile }): AssignorMember => {
      return {
        id,
        instanceId: profile.instanceId,
        topics: this.#stored.subscriptions.idsOf(profile),
        current: this.target(id),
      };
    });
    const computed = assignors[this.assignorName](members, this.#stored.subscriptions.partitionCounts());
    const events: ConsumerGroupEvent[] = [];
    for (const [member, value] of computed) {
      const old = this.#stored.targets.get(member);
      if (old === undefined || !isSamePartitions(old, value)) {
        events.push({ kind: 'consumer member target', group: this.id, member, value });
      }
    }
    // Last: a target of which only part survived is computed again.
    const value = { epoch: this.#stored.epoch, timeMs: now.wallMs };
    this.#host.commit([...events, { kind: 'consumer target', group: this.id, value }]);
  }

  #reconcile(member: ConsumerMember, owned: Partitions | undefined, hasNewSubscription: boolean): MemberProgress {
    const { progress } = member;
    const isThere = progress.state === MEMBER_STATES.stable && progress.epoch === this.#stored.targetEpoch;
    if (isThere && !hasNewSubscription) return progress;
    const reached = reconcile(progress, {
      targetEpoch: this.#stored.targetEpoch,
      target: this.target(member.id),
      topics: this.#stored.subscriptions.idsOf(member.profile),
      hasNewSubscription,
      owned,
      isHeld: (topicId, partition) => this.#stored.holders.has(topicId, partition),
    });
    return isSameProgress(progress, reached) ? progress : reached;
  }

  #touch(memberId: string, now: Instant): void {
    const { classic } = this.#member(memberId).profile;
    const timeoutMs = classic?.sessionTimeoutMs ?? this.#host.settings().consumerSessionTimeoutMs;
    this.#sessions.touch(memberId, now.monotonicMs + timeoutMs);
  }

  #expectRevocation(now: Instant, memberId: string, { state }: MemberProgress): void {
    if (state !== MEMBER_STATES.unrevoked) return this.#sessions.hasRevoked(memberId);
    const { classic, rebalanceTimeoutMs } = this.#member(memberId).profile;
    const timeoutMs = Math.max(0, rebalanceTimeoutMs);
    // Of a member that speaks the classic protocol a new JoinGroup is expected.
    if (classic !== null) return this.#sessions.expectJoin(memberId, now.monotonicMs + timeoutMs);
    this.#sessions.expectRevocation(memberId, now.monotonicMs + timeoutMs);
  }
}

/** The answer to the last heartbeat may have been lost: its epoch is fine as long as the member has nothing else. */
function checkEpoch(member: ConsumerMember, { memberEpoch, owned }: ConsumerHeartbeat): void {
  const { epoch, previousEpoch, assigned } = member.progress;
  if (memberEpoch === epoch) return;
  const isRetry = memberEpoch < epoch && memberEpoch === previousEpoch && owned !== null && isWithin(owned, assigned);
  if (isRetry) return;
  const comparison = memberEpoch > epoch ? 'greater' : 'smaller';
  throw new MillraceError(
    'FENCED_MEMBER_EPOCH',
    `The consumer group member has a ${comparison} member epoch (${memberEpoch}) than the one known by the group coordinator (${epoch}). The member must abandon all its partitions and rejoin.`,
  );
}

export function groupIsFull(sizeMax: number): MillraceError {
  const message = `The consumer group has reached its maximum capacity of ${sizeMax} members.`;
  return new MillraceError('GROUP_MAX_SIZE_REACHED', message);
}
