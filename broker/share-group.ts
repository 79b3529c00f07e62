/**
 * The members of one share group (KIP-932): the broker decides who takes from which partition and tells each member in
 * the answer to its heartbeat. A plain synchronous state machine without I/O, clock or randomness. Which messages they
 * took, and what became of those, is the queues' affair.
 *
 *   group epoch   rises when members, subscriptions or the subscribed topics change
 *   target        who should take from what, computed for a group epoch (share-assignor.ts)
 *   progress      what each member was told; as partitions are shared it takes all of its target at once
 *
 * Always true: everything that outlives a restart changes by events alone, in `apply`. Refusals are thrown as
 * `MillraceError` before anything is decided.
 */
import { MillraceError } from '../protocol/errors.ts';
import type { Options } from './config.ts';
import type { Partitions } from './consumer-assignors.ts';
import { isSameNames } from './consumer-member.ts';
import type { Instant } from './group.ts';
import type { GroupSettings } from './group-configs.ts';
import { GroupOffsets } from './group-offsets.ts';
import { MemberSessions } from './member-sessions.ts';
import { assignShares, type ShareAssignorMember } from './share-assignor.ts';
import {
  type ShareGroupEvent,
  shareGroupEventBytes,
  type ShareProfile,
  shareProfileBytes,
  type ShareProgress,
} from './share-group-records.ts';
import { Subscriptions, type TopicCatalog } from './subscriptions.ts';

/** As ListGroups and ShareGroupDescribe show it. */
export type ShareGroupState = 'Empty' | 'Stable' | 'Dead';

/** Where a share group's decisions go, and what it must know of the broker. */
export interface ShareGroupHost {
  /** Gives the events their place in the commit order and applies them. */
  commit(events: readonly ShareGroupEvent[]): void;
  readonly options: Pick<Options, 'group.share.max.size' | 'message.max.bytes'>;
  readonly topics: TopicCatalog;
  /** The group's configs in force. */
  settings(): GroupSettings;
}

export interface ShareHeartbeat {
  readonly memberId: string;
  /** 0: joins. */
  readonly memberEpoch: number;
  readonly clientId: string;
  readonly clientHost: string;
  /** Null in the following: as before. */
  readonly rackId: string | null;
  readonly topicNames: readonly string[] | null;
}

export interface ShareHeartbeatAnswer {
  readonly memberId: string;
  readonly memberEpoch: number;
  readonly heartbeatIntervalMs: number;
  /** Null: as before. */
  readonly assignment: Partitions | null;
}

export interface ShareMember {
  readonly id: string;
  readonly profile: ShareProfile;
  readonly progress: ShareProgress;
}

/** An epoch that says goodbye. */
export const SHARE_LEAVE_EPOCH = -1;
export const SHARE_ASSIGNOR = 'simple';

const NO_PARTITIONS: Partitions = new Map();
const NEW_PROGRESS: ShareProgress = { epoch: 0, previousEpoch: -1, assigned: NO_PARTITIONS };
/** About the memory that an assigned partition takes, in target and progress. */
const ASSIGNED_BYTES = 64;
/** A member that waits for the next assignment is not told to come back sooner than this. */
const HEARTBEAT_MIN_MS = 100;

export class ShareGroup {
  readonly type = 'share';
  readonly protocolType = 'share';
  readonly id: string;
  /** Always empty: how far the group is on a partition is the state of its queue. */
  readonly offsets = new GroupOffsets();
  readonly #host: ShareGroupHost;
  #epoch = 0;
  #metadataHash = 0;
  #targetEpoch = 0;
  #targetTimeMs = 0;
  readonly #members = new Map<string, ShareMember>();
  readonly #targets = new Map<string, Partitions>();
  readonly #sessions = new MemberSessions();
  readonly #subscriptions: Subscriptions;
  #membersBytes = 0;

  constructor(id: string, host: ShareGroupHost) {
    this.id = id;
    this.#host = host;
    this.#subscriptions = new Subscriptions(id, host.topics);
  }

  get state(): ShareGroupState {
    return this.#members.size === 0 ? 'Empty' : 'Stable';
  }
  get epoch(): number {
    return this.#epoch;
  }
  get targetEpoch(): number {
    return this.#targetEpoch;
  }
  /** In the order in which they came. */
  get members(): readonly ShareMember[] {
    return [...this.#members.values()];
  }
  has(memberId: string): boolean {
    return this.#members.has(memberId);
  }
  /** `tick` has work at this time (monotonic); never later than the soonest deadline. */
  get nextDeadlineMs(): number {
    return this.#sessions.nextDeadlineMs;
  }
  /** About the memory that members take. */
  get membersBytes(): number {
    return this.#membersBytes;
  }
  /** Whether there is nothing to remember: the coordinator forgets it. */
  get isBlank(): boolean {
    return this.isVacant && this.#epoch === 0;
  }
  get isVacant(): boolean {
    return this.#members.size === 0;
  }
  isSubscribedTo(topic: string): boolean {
    return this.#subscriptions.has(topic);
  }
  /** Share groups do not expire, and commit no offsets. */
  retentionStart(): undefined {
    return undefined;
  }

  /** Throws what the answer says. */
  heartbeat(now: Instant, request: ShareHeartbeat): ShareHeartbeatAnswer {
    const before = this.#find(request);
    const profile = this.#profile(before?.profile, request);
    const isNewSubscription = before === undefined || !isSameNames(before.profile.topicNames, profile.topicNames);
    const events: ShareGroupEvent[] = [];
    if (before === undefined || isNewSubscription || !isSameClient(before.profile, profile)) {
      events.push(this.#memberEvent(request.memberId, profile));
    }
    // A group begins at 1, as Kafka's. In one commit with what it is raised for: a member that is known without it would
    // never get a target.
    const epoch = Math.max(this.#epoch, 1) + (isNewSubscription ? 1 : 0);
    if (epoch !== this.#epoch) events.unshift(this.#epochEvent(epoch, this.#metadataHash));
    if (events.length > 0) this.#host.commit(events);
    const { shareSessionTimeoutMs } = this.#host.settings();
    this.#sessions.touch(request.memberId, now.monotonicMs + shareSessionTimeoutMs);
    if (isNewSubscription || this.#subscriptions.isStale) this.#refresh(now, isNewSubscription);
    const waitMs = this.#assign(now);

    const member = this.#member(request.memberId);
    const progress = this.#reconcile(member, isNewSubscription);
    if (progress !== member.progress) {
      this.#host.commit([{ kind: 'share member progress', group: this.id, member: member.id, value: progress }]);
    }
    const had = before?.progress.assigned ?? NO_PARTITIONS;
    const isTold =
      request.memberEpoch === 0 || request.topicNames !== null || !isSamePartitions(had, progress.assigned);
    return {
      memberId: request.memberId,
      memberEpoch: progress.epoch,
      heartbeatIntervalMs: this.#intervalMs(waitMs),
      assignment: isTold ? progress.assigned : null,
    };
  }

  /** Makes an empty group one that is remembered. */
  found(): void {
    if (this.#epoch === 0) this.#host.commit([this.#epochEvent(1, 0)]);
  }

  /** Its goodbye. Throws what the answer says. */
  leave(memberId: string): ShareHeartbeatAnswer {
    const member = this.#members.get(memberId);
    if (member === undefined) throw this.#unknown(memberId);
    this.#remove([member]);
    return { memberId, memberEpoch: SHARE_LEAVE_EPOCH, heartbeatIntervalMs: 0, assignment: null };
  }

  /** After a restart: sessions start anew. */
  restartSessions(now: Instant): void {
    const { shareSessionTimeoutMs } = this.#host.settings();
    for (const id of this.#members.keys()) this.#sessions.touch(id, now.monotonicMs + shareSessionTimeoutMs);
  }

  /** Puts out whoever has been silent for too long. */
  tick(now: Instant): void {
    const late = this.#sessions.late(now.monotonicMs).map((id) => this.#member(id));
    if (late.length > 0) this.#remove(late);
  }

  /** What the log must hold for this group to be read again. */
  *live(): Iterable<ShareGroupEvent> {
    const group = this.id;
    if (this.#epoch === 0 && this.#members.size === 0) return;
    yield this.#epochEvent(this.#epoch, this.#metadataHash);
    for (const { id, profile } of this.#members.values()) yield this.#memberEvent(id, profile);
    for (const [member, value] of this.#targets) yield { kind: 'share member target', group, member, value };
    yield { kind: 'share target', group, value: { epoch: this.#targetEpoch, timeMs: this.#targetTimeMs } };
    for (const { id, progress } of this.#members.values()) {
      yield { kind: 'share member progress', group, member: id, value: progress };
    }
  }

  /** What ends a group without members in the log. */
  endEvents(): ShareGroupEvent[] {
    if (this.#epoch === 0) return [];
    return [
      { kind: 'share target', group: this.id, value: null },
      { kind: 'share group', group: this.id, value: null },
    ];
  }

  apply(event: ShareGroupEvent): void {
    switch (event.kind) {
      case 'share group':
        this.#epoch = event.value?.epoch ?? 0;
        this.#metadataHash = event.value?.metadataHash ?? 0;
        return;
      case 'share member':
        return this.#applyMember(event.member, event.value);
      case 'share target':
        this.#targetEpoch = event.value?.epoch ?? 0;
        this.#targetTimeMs = event.value?.timeMs ?? 0;
        return;
      case 'share member target':
        if (event.value === null) this.#targets.delete(event.member);
        else this.#targets.set(event.member, event.value);
        return;
      case 'share member progress': {
        const member = this.#members.get(event.member);
        // The end of a member that is gone already.
        if (member === undefined) return;
        const progress = event.value ?? NEW_PROGRESS;
        this.#membersBytes += ASSIGNED_BYTES * (countOf(progress.assigned) - countOf(member.progress.assigned));
        this.#members.set(event.member, { ...member, progress });
        return;
      }
    }
  }

  #applyMember(id: string, profile: ShareProfile | null): void {
    const before = this.#members.get(id);
    if (before !== undefined) {
      this.#membersBytes -= memberBytes(before);
      this.#subscriptions.remove(subscriber(before.profile));
    }
    if (profile === null) {
      this.#members.delete(id);
      this.#sessions.delete(id);
      return;
    }
    const member = { id, profile, progress: before?.progress ?? NEW_PROGRESS };
    this.#members.set(id, member);
    this.#membersBytes += memberBytes(member);
    this.#subscriptions.add(subscriber(profile));
  }

  /** The member that asks, if it is known; its epoch must be. */
  #find({ memberId, memberEpoch }: ShareHeartbeat): ShareMember | undefined {
    const member = this.#members.get(memberId);
    const sizeMax = this.#host.options['group.share.max.size'];
    if (member === undefined && memberEpoch === 0 && this.#members.size >= sizeMax) {
      const message = `The share group has reached its maximum capacity of ${sizeMax} members.`;
      throw new MillraceError('GROUP_MAX_SIZE_REACHED', message);
    }
    if (memberEpoch === 0) return member;
    if (member === undefined) throw this.#unknown(memberId);
    const { epoch, previousEpoch } = member.progress;
    // The answer to the last heartbeat may have been lost.
    if (memberEpoch === epoch || memberEpoch === previousEpoch) return member;
    const isGreater = memberEpoch > epoch;
    const comparison = `a ${isGreater ? 'greater' : 'smaller'} member epoch (${memberEpoch}) than the one known by the group coordinator (${epoch})`;
    const previous = isGreater ? '' : `, and it does not match the previous member epoch (${previousEpoch})`;
    const todo = 'The member must abandon all its partitions and rejoin.';
    throw new MillraceError('FENCED_MEMBER_EPOCH', `The share group member has ${comparison}${previous}. ${todo}`);
  }

  #profile(before: ShareProfile | undefined, request: ShareHeartbeat): ShareProfile {
    const profile = {
      rackId: request.rackId ?? before?.rackId ?? null,
      clientId: request.clientId,
      clientHost: request.clientHost,
      topicNames: request.topicNames === null ? (before?.topicNames ?? []) : [...new Set(request.topicNames)].sort(),
    };
    const sizeBytes = shareGroupEventBytes(this.#memberEvent(request.memberId, profile));
    if (sizeBytes <= this.#host.options['message.max.bytes'] / 2) return profile;
    throw new MillraceError('INVALID_REQUEST', 'The subscription is larger than the group log takes.');
  }

  #unknown(memberId: string): MillraceError {
    return new MillraceError('UNKNOWN_MEMBER_ID', `Member ${memberId} is not a member of group ${this.id}.`);
  }

  #member(id: string): ShareMember {
    const member = this.#members.get(id);
    if (member === undefined) throw new Error(`no member '${id}' in share group '${this.id}'`);
    return member;
  }

  #memberEvent(member: string, value: ShareProfile): ShareGroupEvent {
    return { kind: 'share member', group: this.id, member, value };
  }

  #epochEvent(epoch: number, metadataHash: number): ShareGroupEvent {
    return { kind: 'share group', group: this.id, value: { epoch, metadataHash } };
  }

  /** Takes members out; the others get their partitions with the next target. */
  #remove(members: readonly ShareMember[]): void {
    const group = this.id;
    const events = members.flatMap(({ id: member }): ShareGroupEvent[] => [
      { kind: 'share member progress', group, member, value: null },
      { kind: 'share member target', group, member, value: null },
      { kind: 'share member', group, member, value: null },
    ]);
    // The epoch first: if only part of this survives, there is a new target and the rest runs into its session timeout.
    const epoch = this.#epoch + 1;
    // Nobody is left to assign anything to; who comes next need not wait.
    if (members.length === this.#members.size)
      events.push({ kind: 'share target', group, value: { epoch, timeMs: 0 } });
    this.#host.commit([this.#epochEvent(epoch, this.#metadataHash), ...events]);
  }

  /** Looks at the topics again, as they or the subscriptions have changed; raises the epoch if it has not been raised. */
  #refresh(now: Instant, isRaised: boolean): void {
    this.#subscriptions.resolve(now.wallMs, () => true);
    const hash = this.#subscriptions.hash();
    if (hash === this.#metadataHash) return;
    this.#host.commit([this.#epochEvent(isRaised ? this.#epoch : this.#epoch + 1, hash)]);
  }

  /** Computes a new target if the group has a newer epoch, at most once an interval. Answers how long until it may. */
  #assign(now: Instant): number {
    if (this.#epoch <= this.#targetEpoch) return Number.POSITIVE_INFINITY;
    const intervalMs = this.#host.settings().shareAssignmentIntervalMs;
    // A clock that was set back must not hold the group up.
    const sinceMs = Math.abs(now.wallMs - this.#targetTimeMs);
    if (this.#targetTimeMs !== 0 && sinceMs < intervalMs) return intervalMs - sinceMs;
    const members = [...this.#members.values()].map(
      ({ id, profile }): ShareAssignorMember => ({
        id,
        topics: this.#subscriptions.idsOf(subscriber(profile)),
        current: this.#targets.get(id) ?? NO_PARTITIONS,
      }),
    );
    const events: ShareGroupEvent[] = [];
    for (const [member, value] of assignShares(members, this.#subscriptions.partitionCounts())) {
      const old = this.#targets.get(member);
      if (old === undefined || !isSamePartitions(old, value)) {
        events.push({ kind: 'share member target', group: this.id, member, value });
      }
    }
    // Last: a target of which only part survived is computed again.
    const value = { epoch: this.#epoch, timeMs: now.wallMs };
    this.#host.commit([...events, { kind: 'share target', group: this.id, value }]);
    return Number.POSITIVE_INFINITY;
  }

  /** What the member has from now on; the same object if that is what it has. */
  #reconcile({ id, profile, progress }: ShareMember, isNewSubscription: boolean): ShareProgress {
    const isThere = progress.epoch === this.#targetEpoch;
    if (isThere && !isNewSubscription) return progress;
    // Of topics it does not subscribe to any more nothing is left, even before there is a new target.
    const topics = this.#subscriptions.idsOf(subscriber(profile));
    const target = [...(this.#targets.get(id) ?? NO_PARTITIONS)].filter(([topicId]) => topics.has(topicId));
    const assigned: Partitions = new Map(target);
    if (isThere) return isSamePartitions(assigned, progress.assigned) ? progress : { ...progress, assigned };
    return { epoch: this.#targetEpoch, previousEpoch: progress.epoch, assigned };
  }

  /** Whoever waits for an assignment comes back when it is due, not a whole interval later. */
  #intervalMs(waitMs: number): number {
    const intervalMs = this.#host.settings().shareHeartbeatIntervalMs;
    return Math.min(intervalMs, Math.max(HEARTBEAT_MIN_MS, Math.ceil(waitMs)));
  }
}

/** Share groups have no regular expressions. */
function subscriber({ topicNames }: ShareProfile): { topicNames: readonly string[]; topicRegex: null } {
  return { topicNames, topicRegex: null };
}

function isSameClient(a: ShareProfile, b: ShareProfile): boolean {
  return a.rackId === b.rackId && a.clientId === b.clientId && a.clientHost === b.clientHost;
}

function isSamePartitions(a: Partitions, b: Partitions): boolean {
  if (a.size !== b.size) return false;
  for (const [topicId, partitions] of a) {
    const others = b.get(topicId);
    if (others === undefined || others.size !== partitions.size) return false;
    for (const partition of partitions) if (!others.has(partition)) return false;
  }
  return true;
}

function countOf(partitions: Partitions): number {
  let count = 0;
  for (const { size } of partitions.values()) count += size;
  return count;
}

function memberBytes({ id, profile, progress }: ShareMember): number {
  return 512 + 2 * id.length + 2 * shareProfileBytes(profile) + ASSIGNED_BYTES * countOf(progress.assigned);
}
