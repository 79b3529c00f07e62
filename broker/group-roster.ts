/**
 * Who is in a group: members by id and by group.instance.id, who leads, what they have in common, who waits for its
 * JoinGroup. Keeps the counts that a join asks for, so that a rebalance of n members costs n steps, not n².
 *
 * Always true: a roster with members has a leader among them; each static member's instance id leads to its current id.
 */
import type { ErrorCode } from '../protocol/errors.ts';
import type { GroupMetadataValue } from '../protocol/kafka/messages.ts';
import {
  type JoinAnswer,
  type JoinRequest,
  type Member,
  memberBytes,
  metadataFor,
  ownProtocols,
  type Protocol,
} from './group-member.ts';
import { subscribedTopics } from './group-records.ts';

/** Who a request says it comes from. */
export interface MemberIdentity {
  readonly memberId: string;
  readonly instanceId: string | null;
}

export class Roster {
  readonly #members = new Map<string, Member>();
  /** group.instance.id → member id. */
  readonly #staticIds = new Map<string, string>();
  /** Protocol → how many members have it. */
  readonly #support = new Map<string, number>();
  #leaderId: string | null = null;
  #waitingCount = 0;
  #sizeBytes = 0;

  get size(): number {
    return this.#members.size;
  }
  /** Members whose JoinGroup waits. */
  get waitingCount(): number {
    return this.#waitingCount;
  }
  /** About the memory they take. */
  get sizeBytes(): number {
    return this.#sizeBytes;
  }
  get leaderId(): string | null {
    return this.#leaderId;
  }

  /** In the order in which they came. */
  all(): Member[] {
    return [...this.#members.values()];
  }
  has(id: string): boolean {
    return this.#members.has(id);
  }
  find(id: string): Member | undefined {
    return this.#members.get(id);
  }
  get(id: string): Member {
    const member = this.#members.get(id);
    if (member === undefined) throw new Error(`no member '${id}' here`);
    return member;
  }
  staticId(instanceId: string): string | undefined {
    return this.#staticIds.get(instanceId);
  }

  /** Why this is nobody here, if so. */
  refusal({ memberId, instanceId }: MemberIdentity): ErrorCode | undefined {
    if (instanceId !== null) {
      const current = this.#staticIds.get(instanceId);
      if (current === undefined) return 'UNKNOWN_MEMBER_ID';
      if (current !== memberId) return 'FENCED_INSTANCE_ID';
    }
    return this.#members.has(memberId) ? undefined : 'UNKNOWN_MEMBER_ID';
  }

  add(member: Member): void {
    this.#members.set(member.id, member);
    if (member.instanceId !== null) this.#staticIds.set(member.instanceId, member.id);
    this.#leaderId ??= member.id;
    if (member.joins.length > 0) this.#waitingCount++;
    this.#count(member, 1);
  }

  /** Takes it out; if it led, the first of the others leads. */
  remove(member: Member): void {
    this.#members.delete(member.id);
    if (member.instanceId !== null) this.#staticIds.delete(member.instanceId);
    if (this.#leaderId === member.id) this.#leaderId = firstKey(this.#members);
    if (member.joins.length > 0) this.#waitingCount--;
    this.#count(member, -1);
  }

  /** `successor` takes the place of `old`, also as the leader. */
  replace(old: Member, successor: Member): void {
    const isLeader = this.#leaderId === old.id;
    this.remove(old);
    this.add(successor);
    if (isLeader) this.#leaderId = successor.id;
  }

  /** As the log knows it. */
  lead(id: string | null): void {
    if (id !== null && this.#members.has(id)) this.#leaderId = id;
  }

  update(member: Member, request: JoinRequest): void {
    this.#count(member, -1);
    member.protocols = ownProtocols(request.protocols);
    member.sessionTimeoutMs = request.sessionTimeoutMs;
    member.rebalanceTimeoutMs = request.rebalanceTimeoutMs;
    this.#count(member, 1);
  }

  assign(member: Member, assignment: Buffer): void {
    this.#sizeBytes += assignment.length - member.assignment.length;
    member.assignment = assignment;
  }

  wait(member: Member, reply: (answer: JoinAnswer) => void): void {
    if (member.joins.length === 0) this.#waitingCount++;
    member.joins.push(reply);
  }

  /** Who waited for this member's JoinGroup; nobody does any more. */
  takeJoins(member: Member): Member['joins'] {
    const replies = member.joins;
    if (replies.length > 0) this.#waitingCount--;
    member.joins = [];
    return replies;
  }

  /** Whether one of `protocols` is common to all members. */
  supports(protocols: readonly Protocol[]): boolean {
    return protocols.some(({ name }) => this.#support.get(name) === this.#members.size);
  }

  /**
   * Of the protocols that all members have, the one that most of them prefer; on a tie the one voted for first.
   * Null if there is none.
   */
  electProtocol(): string | null {
    const votes = new Map<string, number>();
    for (const { protocols } of this.#members.values()) {
      const choice = protocols.find(({ name }) => this.#support.get(name) === this.#members.size);
      if (choice !== undefined) votes.set(choice.name, (votes.get(choice.name) ?? 0) + 1);
    }
    let elected: string | null = null;
    let most = 0;
    for (const [name, count] of votes) {
      if (count <= most) continue;
      elected = name;
      most = count;
    }
    return elected;
  }

  /** Makes sure that somebody leads who waits for its JoinGroup; false if nobody waits. */
  electLeader(): boolean {
    if (this.#waitingCount === 0) return false;
    if (this.#leaderId !== null && this.get(this.#leaderId).joins.length > 0) return true;
    for (const { id, joins } of this.#members.values()) {
      if (joins.length === 0) continue;
      this.#leaderId = id;
      break;
    }
    return true;
  }

  /** The longest that any member asks for. */
  rebalanceTimeoutMs(): number {
    let longestMs = 0;
    for (const { rebalanceTimeoutMs } of this.#members.values()) longestMs = Math.max(longestMs, rebalanceTimeoutMs);
    return longestMs;
  }

  /** All topics that members of protocol type `consumer` subscribe to; undefined if one of them cannot be read. */
  subscribedTopics(protocolName: string | null): ReadonlySet<string> | undefined {
    const topics = new Set<string>();
    for (const member of this.#members.values()) {
      const own = subscribedTopics(metadataFor(member, protocolName));
      if (own === undefined) return undefined;
      for (const topic of own) topics.add(topic);
    }
    return topics;
  }

  /** The members as the log keeps them. */
  stored(protocolName: string | null, assignmentOf: (member: Member) => Buffer): GroupMetadataValue['members'] {
    return this.all().map((member) => ({
      memberId: member.id,
      groupInstanceId: member.instanceId,
      clientId: member.clientId,
      clientHost: member.clientHost,
      rebalanceTimeout: member.rebalanceTimeoutMs,
      sessionTimeout: member.sessionTimeoutMs,
      subscription: metadataFor(member, protocolName),
      assignment: assignmentOf(member),
    }));
  }

  /** Counts the member in or out: its bytes and its protocols. */
  #count(member: Member, step: 1 | -1): void {
    this.#sizeBytes += step * memberBytes(member);
    for (const { name } of member.protocols) {
      const count = (this.#support.get(name) ?? 0) + step;
      if (count === 0) this.#support.delete(name);
      else this.#support.set(name, count);
    }
  }
}

function firstKey(map: ReadonlyMap<string, unknown>): string | null {
  for (const key of map.keys()) return key;
  return null;
}
