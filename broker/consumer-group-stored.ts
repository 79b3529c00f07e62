/**
 * What is known of a consumer group (KIP-848) and outlives a restart: members, their targets and progress, epochs,
 * resolved expressions. It changes by events alone, so a group that is read from the log is the one that wrote it; what
 * is looked up often (static members, who holds which partition, memory) follows from it here.
 */
import type { Partitions } from './consumer-assignors.ts';
import { type ConsumerGroupEvent, profileBytes } from './consumer-group-records.ts';
import { type ConsumerMember, type MemberProfile, type MemberProgress, NEW_PROGRESS } from './consumer-member.ts';
import { PartitionHolders } from './partition-holders.ts';
import { Subscriptions, type TopicCatalog } from './subscriptions.ts';

/** About the memory that a held partition takes: in progress, target and among the holders. */
const HELD_BYTES = 150;

export class StoredConsumerGroup {
  readonly #id: string;
  readonly #members = new Map<string, ConsumerMember>();
  readonly #targets = new Map<string, Partitions>();
  readonly #staticIds = new Map<string, string>();
  readonly holders = new PartitionHolders();
  readonly subscriptions: Subscriptions;
  #epoch = 0;
  #metadataHash = 0;
  #targetEpoch = 0;
  #targetTimeMs = 0;
  #membersBytes = 0;

  constructor(id: string, topics: TopicCatalog) {
    this.#id = id;
    this.subscriptions = new Subscriptions(id, topics);
  }

  get epoch(): number {
    return this.#epoch;
  }
  get metadataHash(): number {
    return this.#metadataHash;
  }
  get targetEpoch(): number {
    return this.#targetEpoch;
  }
  /** Wall clock of the last target; 0: the next need not wait. */
  get targetTimeMs(): number {
    return this.#targetTimeMs;
  }
  /** In the order in which they came. */
  get members(): ReadonlyMap<string, ConsumerMember> {
    return this.#members;
  }
  get targets(): ReadonlyMap<string, Partitions> {
    return this.#targets;
  }
  /** group.instance.id → member id. */
  get staticIds(): ReadonlyMap<string, string> {
    return this.#staticIds;
  }
  target(memberId: string): Partitions {
    return this.#targets.get(memberId) ?? new Map();
  }
  /** About the memory that members take. */
  get membersBytes(): number {
    return this.#membersBytes + HELD_BYTES * this.holders.count;
  }

  /** What the log must hold for this group to be read again. */
  *live(): Iterable<ConsumerGroupEvent> {
    const group = this.#id;
    if (this.#epoch === 0 && this.#members.size === 0) return;
    const value = { epoch: this.#epoch, metadataHash: this.#metadataHash };
    yield { kind: 'consumer group', group, value };
    for (const { id, profile } of this.#members.values()) {
      yield { kind: 'consumer member', group, member: id, value: profile };
    }
    for (const [regex, resolved] of this.subscriptions.resolved)
      yield { kind: 'consumer regex', group, regex, value: resolved };
    for (const [member, target] of this.#targets)
      yield { kind: 'consumer member target', group, member, value: target };
    yield { kind: 'consumer target', group, value: { epoch: this.#targetEpoch, timeMs: this.#targetTimeMs } };
    for (const { id, progress } of this.#members.values()) {
      yield { kind: 'consumer member progress', group, member: id, value: progress };
    }
  }

  /** What ends a group without members. */
  endEvents(): ConsumerGroupEvent[] {
    if (this.#epoch === 0) return [];
    return [
      { kind: 'consumer target', group: this.#id, value: null },
      { kind: 'consumer group', group: this.#id, value: null },
    ];
  }

  endMember(member: string): ConsumerGroupEvent[] {
    return [
      { kind: 'consumer member progress', group: this.#id, member, value: null },
      { kind: 'consumer member target', group: this.#id, member, value: null },
      { kind: 'consumer member', group: this.#id, member, value: null },
    ];
  }

  apply(event: ConsumerGroupEvent): void {
    switch (event.kind) {
      case 'consumer group':
        this.#epoch = event.value?.epoch ?? 0;
        this.#metadataHash = event.value?.metadataHash ?? 0;
        return;
      case 'consumer member':
        return this.#applyMember(event.member, event.value);
      case 'consumer target':
        this.#targetEpoch = event.value?.epoch ?? 0;
        this.#targetTimeMs = event.value?.timeMs ?? 0;
        return;
      case 'consumer member target':
        if (event.value === null) this.#targets.delete(event.member);
        else this.#targets.set(event.member, event.value);
        return;
      case 'consumer member progress':
        return this.#applyProgress(event.member, event.value ?? NEW_PROGRESS);
      case 'consumer regex':
        return this.subscriptions.set(event.regex, event.value);
    }
  }

  #applyMember(id: string, profile: MemberProfile | null): void {
    const before = this.#members.get(id);
    if (before !== undefined) {
      this.#membersBytes -= memberBytes(id, before.profile);
      this.subscriptions.remove(before.profile);
      const { instanceId } = before.profile;
      if (instanceId !== null && this.#staticIds.get(instanceId) === id) this.#staticIds.delete(instanceId);
    }
    if (profile === null) {
      this.#members.delete(id);
      return;
    }
    this.#members.set(id, { id, profile, progress: before?.progress ?? NEW_PROGRESS });
    this.#membersBytes += memberBytes(id, profile);
    this.subscriptions.add(profile);
    if (profile.instanceId !== null) this.#staticIds.set(profile.instanceId, id);
  }

  #applyProgress(id: string, progress: MemberProgress): void {
    const before = this.#members.get(id);
    // The end of a member that is gone already.
    if (before === undefined) return;
    this.holders.remove(id, before.progress);
    this.holders.add(id, progress);
    this.#members.set(id, { ...before, progress });
  }
}

function memberBytes(id: string, profile: MemberProfile): number {
  return 512 + 2 * id.length + 2 * profileBytes(profile);
}
