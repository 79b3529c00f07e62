/**
 * By when each member of a consumer group must be heard of, and by when it must have given up what it was told to.
 * Not stored: after a restart all of it starts anew.
 */
interface Session {
  deadlineMs: number;
  /** Infinity if it has nothing to give up. */
  revokeDeadlineMs: number;
}

export class MemberSessions {
  readonly #sessions = new Map<string, Session>();
  /** Never later than the soonest deadline; exact after `late`. */
  nextDeadlineMs = Number.POSITIVE_INFINITY;

  /** The member was heard of. */
  touch(memberId: string, deadlineMs: number): void {
    const session = this.#sessions.get(memberId);
    if (session === undefined) this.#sessions.set(memberId, { deadlineMs, revokeDeadlineMs: Number.POSITIVE_INFINITY });
    else session.deadlineMs = deadlineMs;
    this.#expect(deadlineMs);
  }

  /** The member has something to give up, or something else than before: its time runs from now on. */
  expectRevocation(memberId: string, deadlineMs: number): void {
    const session = this.#sessions.get(memberId);
    if (session === undefined) return;
    session.revokeDeadlineMs = deadlineMs;
    this.#expect(deadlineMs);
  }
  hasRevoked(memberId: string): void {
    const session = this.#sessions.get(memberId);
    if (session !== undefined) session.revokeDeadlineMs = Number.POSITIVE_INFINITY;
  }

  delete(memberId: string): void {
    this.#sessions.delete(memberId);
  }

  /** Ids of those whose time is over; they stay until they are deleted. */
  late(nowMs: number): string[] {
    const late: string[] = [];
    this.nextDeadlineMs = Number.POSITIVE_INFINITY;
    for (const [id, { deadlineMs, revokeDeadlineMs }] of this.#sessions) {
      const soonestMs = Math.min(deadlineMs, revokeDeadlineMs);
      if (soonestMs <= nowMs) late.push(id);
      else this.#expect(soonestMs);
    }
    return late;
  }

  #expect(deadlineMs: number): void {
    if (deadlineMs < this.nextDeadlineMs) this.nextDeadlineMs = deadlineMs;
  }
}
