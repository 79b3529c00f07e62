/**
 * A member of a consumer group (KIP-848), and how it gets from what it has to what it should have: it gives up first,
 * then moves to the new epoch and takes what others have given up. Values and pure functions only.
 *
 *   stable ── target changed, something to give up ──→ unrevoked ── heartbeat without it ──┐
 *     │                                                                                    ↓
 *     └── target changed, nothing to give up ──→ stable, or unreleased while another member still holds some of it
 */
import type { Partitions } from './consumer-assignors.ts';
import { isSameProtocols, type Protocol } from './group-member.ts';

/** As Kafka stores them. */
export const MEMBER_STATES = { stable: 0, unrevoked: 1, unreleased: 2 } as const;
export type MemberState = (typeof MEMBER_STATES)[keyof typeof MEMBER_STATES];

/** Topic id → partition → the member epoch at which the member got it. */
export type HeldPartitions = ReadonlyMap<string, ReadonlyMap<number, number>>;

/** What is known of a member that speaks the classic protocol. */
export interface ClassicMembership {
  readonly sessionTimeoutMs: number;
  /** In order of preference; the bytes are its own. */
  readonly protocols: readonly Protocol[];
}

/** What a member says about itself. */
export interface MemberProfile {
  readonly instanceId: string | null;
  readonly rackId: string | null;
  readonly clientId: string;
  readonly clientHost: string;
  readonly topicNames: readonly string[];
  /** Null or empty: none. */
  readonly topicRegex: string | null;
  readonly rebalanceTimeoutMs: number;
  readonly assignor: string | null;
  /** Null: it speaks the consumer protocol. */
  readonly classic: ClassicMembership | null;
}

export interface MemberProgress {
  /** -2: a static member that has left for now. */
  readonly epoch: number;
  readonly previousEpoch: number;
  readonly state: MemberState;
  readonly assigned: HeldPartitions;
  /** Told to give up, not known to have done so. */
  readonly revoking: HeldPartitions;
}

export interface ConsumerMember {
  readonly id: string;
  readonly profile: MemberProfile;
  readonly progress: MemberProgress;
}

export const NO_HELD: HeldPartitions = new Map();
export const NEW_PROGRESS: MemberProgress = {
  epoch: 0,
  previousEpoch: -1,
  state: MEMBER_STATES.stable,
  assigned: NO_HELD,
  revoking: NO_HELD,
};

export interface Reconciliation {
  readonly targetEpoch: number;
  readonly target: Partitions;
  /** What the member subscribes to now; anything else it gives up. */
  readonly topics: ReadonlySet<string>;
  readonly hasNewSubscription: boolean;
  /** What the member says it has; undefined if it said nothing. */
  readonly owned: Partitions | undefined;
  /** Whether any member holds the partition or has not given it up yet. */
  isHeld(topicId: string, partition: number): boolean;
}

/** Where the member goes next; the same object if nowhere. */
export function reconcile(progress: MemberProgress, to: Reconciliation): MemberProgress {
  switch (progress.state) {
    case MEMBER_STATES.stable:
      if (progress.epoch !== to.targetEpoch) return next(progress, to);
      return to.hasNewSubscription ? dropUnsubscribed(progress, to) : progress;
    case MEMBER_STATES.unrevoked:
      if (!ownsAny(progress.revoking, to.owned)) return next(progress, to);
      return to.hasNewSubscription ? dropUnsubscribed(progress, to) : progress;
    case MEMBER_STATES.unreleased:
      return next(progress, to);
  }
}

/** Whether the member still has any of `partitions`, as far as it is known. */
function ownsAny(partitions: HeldPartitions, owned: Partitions | undefined): boolean {
  if (owned === undefined) return true;
  for (const [topicId, indexes] of owned) {
    const held = partitions.get(topicId);
    if (held === undefined) continue;
    for (const index of indexes) if (held.has(index)) return true;
  }
  return false;
}

function next(progress: MemberProgress, to: Reconciliation): MemberProgress {
  const kept = new Map<string, Map<number, number>>();
  const revoked = new Map<string, Map<number, number>>();
  const added: [topicId: string, partition: number][] = [];
  let isAnyHeld = false;
  const wanted = (topicId: string): ReadonlySet<number> | undefined =>
    to.topics.has(topicId) ? to.target.get(topicId) : undefined;
  for (const [topicId, partitions] of progress.assigned) {
    const target = wanted(topicId);
    for (const [partition, epoch] of partitions)
      hold(target?.has(partition) ? kept : revoked, topicId, partition, epoch);
  }
  for (const topicId of to.target.keys()) {
    for (const partition of wanted(topicId) ?? []) {
      if (kept.get(topicId)?.has(partition)) continue;
      const isFree = !to.isHeld(topicId, partition) || progress.revoking.get(topicId)?.has(partition);
      if (isFree) added.push([topicId, partition]);
      else isAnyHeld = true;
    }
  }
  if (revoked.size > 0 && ownsAny(revoked, to.owned)) {
    const { unrevoked } = MEMBER_STATES;
    return { ...progress, previousEpoch: progress.epoch, state: unrevoked, assigned: kept, revoking: revoked };
  }
  for (const [topicId, partition] of added) hold(kept, topicId, partition, to.targetEpoch);
  return {
    epoch: to.targetEpoch,
    previousEpoch: progress.epoch,
    state: isAnyHeld ? MEMBER_STATES.unreleased : MEMBER_STATES.stable,
    assigned: kept,
    revoking: NO_HELD,
  };
}

/** Partitions of topics that the member does not subscribe to any more go at once, before there is a new target. */
function dropUnsubscribed(progress: MemberProgress, to: Reconciliation): MemberProgress {
  const kept = new Map(progress.assigned);
  const revoking = new Map(progress.revoking);
  for (const [topicId, partitions] of progress.assigned) {
    if (to.topics.has(topicId)) continue;
    kept.delete(topicId);
    revoking.set(topicId, new Map([...(revoking.get(topicId) ?? []), ...partitions]));
  }
  if (kept.size === progress.assigned.size) return progress;
  const changed = { ...progress, previousEpoch: progress.epoch, assigned: kept };
  if (!ownsAny(revoking, to.owned)) return changed;
  return { ...changed, state: MEMBER_STATES.unrevoked, revoking };
}

function hold(held: Map<string, Map<number, number>>, topicId: string, partition: number, epoch: number): void {
  const partitions = held.get(topicId);
  if (partitions === undefined) held.set(topicId, new Map([[partition, epoch]]));
  else partitions.set(partition, epoch);
}

export function isSameHeld(a: HeldPartitions, b: HeldPartitions): boolean {
  if (a === b) return true;
  if (a.size !== b.size) return false;
  for (const [topicId, partitions] of a) {
    const others = b.get(topicId);
    if (others === undefined || others.size !== partitions.size) return false;
    for (const partition of partitions.keys()) if (!others.has(partition)) return false;
  }
  return true;
}

/** Whether `owned` is within `held`. */
export function isWithin(owned: Partitions, held: HeldPartitions): boolean {
  for (const [topicId, indexes] of owned) {
    const partitions = held.get(topicId);
    if (partitions === undefined) return false;
    for (const index of indexes) if (!partitions.has(index)) return false;
  }
  return true;
}

export function isSameProgress(a: MemberProgress, b: MemberProgress): boolean {
  if (a === b) return true;
  if (a.epoch !== b.epoch || a.previousEpoch !== b.previousEpoch || a.state !== b.state) return false;
  return isSameHeld(a.assigned, b.assigned) && isSameHeld(a.revoking, b.revoking);
}

export function isSameProfile(a: MemberProfile, b: MemberProfile): boolean {
  return (
    a.instanceId === b.instanceId &&
    a.rackId === b.rackId &&
    a.clientId === b.clientId &&
    a.clientHost === b.clientHost &&
    a.topicRegex === b.topicRegex &&
    a.rebalanceTimeoutMs === b.rebalanceTimeoutMs &&
    a.assignor === b.assignor &&
    isSameNames(a.topicNames, b.topicNames) &&
    isSameMembership(a.classic, b.classic)
  );
}

function isSameMembership(a: ClassicMembership | null, b: ClassicMembership | null): boolean {
  if (a === null || b === null) return a === b;
  return a.sessionTimeoutMs === b.sessionTimeoutMs && isSameProtocols(a.protocols, b.protocols);
}

export function isSameNames(a: readonly string[], b: readonly string[]): boolean {
  return a.length === b.length && a.every((name, index) => name === b[index]);
}

/** What a member has, without since when. */
export function indexesOf({ assigned }: MemberProgress): Partitions {
  return new Map([...assigned].map(([topicId, partitions]) => [topicId, new Set(partitions.keys())]));
}

export function isSamePartitions(a: Partitions, b: Partitions): boolean {
  if (a.size !== b.size) return false;
  for (const [topicId, partitions] of a) {
    const others = b.get(topicId);
    if (others === undefined || others.size !== partitions.size) return false;
    for (const partition of partitions) if (!others.has(partition)) return false;
  }
  return true;
}
