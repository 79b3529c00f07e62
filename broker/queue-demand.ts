/**
 * Who wants messages of one queue, and whose turn it is: consumers of higher priority first, those of equal priority in
 * turn and in portions. An exclusive consumer, and the active one of a single-active queue, keep all others from it.
 */
import type { OwnerId } from './queue.ts';

/** A turn is at most this many messages, so that one consumer's large prefetch does not starve the others. */
export const PORTION_MAX = 32;

export interface DemandingConsumer {
  readonly owner: OwnerId;
  /** Larger first. Any integer. */
  readonly priority: number;
  readonly isExclusive: boolean;
}

export interface Portion {
  readonly owner: OwnerId;
  readonly messages: number;
}

interface Member {
  readonly consumer: DemandingConsumer;
  wanted: number;
  /** Neighbours in the line of those of its priority that want something; undefined: it wants nothing. */
  previous: Member | undefined;
  next: Member | undefined;
}

interface Level {
  readonly priority: number;
  memberCount: number;
  /** Whose turn it is, in a ring. */
  turn: Member | undefined;
}

export class QueueDemand {
  #isSingleActive: boolean;
  /** In the order in which they came. */
  readonly #members = new Map<OwnerId, Member>();
  /** Highest priority first. */
  readonly #levels: Level[] = [];
  #active: Member | undefined;

  constructor({ isSingleActive = false }: { isSingleActive?: boolean } = {}) {
    this.#isSingleActive = isSingleActive;
  }

  get isSingleActive(): boolean {
    return this.#isSingleActive;
  }

  /** May change while running. Who was active stays so. */
  set isSingleActive(isSingleActive: boolean) {
    this.#isSingleActive = isSingleActive;
    this.#chooseActive();
  }

  get consumerCount(): number {
    return this.#members.size;
  }

  /** The only consumer that is served now, if the queue is single-active or a consumer is exclusive. */
  get activeOwner(): OwnerId | undefined {
    return this.#active?.consumer.owner;
  }

  /** False: the queue has an exclusive consumer, or this one wants to be exclusive and is not alone, or is here already. */
  add(consumer: DemandingConsumer): boolean {
    if (this.#members.has(consumer.owner)) return false;
    if (this.#active?.consumer.isExclusive || (consumer.isExclusive && this.#members.size > 0)) return false;
    this.#members.set(consumer.owner, { consumer, wanted: 0, previous: undefined, next: undefined });
    this.#level(consumer.priority).memberCount++;
    this.#chooseActive();
    return true;
  }

  /** Its demand ends. Of a single-active queue, the one of highest priority that came first takes over. */
  remove(owner: OwnerId): void {
    const member = this.#members.get(owner);
    if (member === undefined) return;
    this.want(owner, 0);
    this.#members.delete(owner);
    const level = this.#level(member.consumer.priority);
    if (--level.memberCount === 0) this.#levels.splice(this.#levels.indexOf(level), 1);
    if (this.#active === member) {
      this.#active = undefined;
      this.#chooseActive();
    }
  }

  #chooseActive(): void {
    if (this.#active !== undefined && (this.#isSingleActive || this.#active.consumer.isExclusive)) return;
    this.#active = undefined;
    for (const member of this.#members.values()) {
      if (!this.#isSingleActive && !member.consumer.isExclusive) continue;
      if (this.#active === undefined || member.consumer.priority > this.#active.consumer.priority)
        this.#active = member;
    }
  }

  /** It could take this many messages now. Replaces what it wanted before. Unknown owners are ignored. */
  want(owner: OwnerId, messages: number): void {
    const member = this.#members.get(owner);
    if (member === undefined) return;
    member.wanted = messages;
    if (messages > 0) {
      if (member.next === undefined) this.#joinLine(member);
    } else if (member.next !== undefined) this.#leaveLine(member);
  }

  /** What it could still take. */
  wanted(owner: OwnerId): number {
    return this.#members.get(owner)?.wanted ?? 0;
  }

  /** Whose turn it is and how much: its whole demand if nobody of its priority waits beside it. Changes nothing. */
  next(): Portion | undefined {
    const active = this.#active;
    if (active !== undefined) {
      return active.wanted > 0 ? { owner: active.consumer.owner, messages: active.wanted } : undefined;
    }
    for (const { turn } of this.#levels) {
      if (turn === undefined) continue;
      const messages = turn.next === turn ? turn.wanted : Math.min(turn.wanted, PORTION_MAX);
      return { owner: turn.consumer.owner, messages };
    }
    return undefined;
  }

  /** It got that many: its demand shrinks and it goes to the end of the line. 0: it only loses its turn. */
  served(owner: OwnerId, messages: number): void {
    const member = this.#members.get(owner);
    if (member === undefined || member.next === undefined) return;
    const level = this.#level(member.consumer.priority);
    if (level.turn === member) level.turn = member.next;
    this.want(owner, Math.max(0, member.wanted - messages));
  }

  /** At the end of the line: just before whose turn it is. */
  #joinLine(member: Member): void {
    const level = this.#level(member.consumer.priority);
    const turn = level.turn ?? member;
    const last = turn.previous ?? member;
    member.previous = last;
    member.next = turn;
    last.next = member;
    turn.previous = member;
    level.turn = turn;
  }

  #leaveLine(member: Member): void {
    const { previous, next } = member;
    const level = this.#level(member.consumer.priority);
    if (level.turn === member) level.turn = next === member ? undefined : next;
    if (previous !== undefined) previous.next = next;
    if (next !== undefined) next.previous = previous;
    member.previous = undefined;
    member.next = undefined;
  }

  #level(priority: number): Level {
    const levels = this.#levels;
    let at = 0;
    while (at < levels.length && levels[at].priority > priority) at++;
    if (at === levels.length || levels[at].priority !== priority) {
      levels.splice(at, 0, { priority, memberCount: 0, turn: undefined });
    }
    return levels[at];
  }
}
