/**
 * By when each member of a consumer group must be heard of, and by when it must have done what it was told to: given up
 * partitions or, if it speaks the classic protocol, joined again and then synced. Not stored: after a restart all of it
 * starts anew.
 */
interface Session {
  deadlineMs: number;
  /** Infinity where nothing is expected. */
  revokeDeadlineMs: number;
  joinDeadlineMs: number;
  syncDeadlineMs: number;
}

const NEVER = Number.POSITIVE_INFINITY;

export class MemberSessions {
  readonly #sessions = new Map<string, Session>();
  /** Never later than the soonest deadline; exact after `late`. */
  nextDeadlineMs = Number.POSITIVE_INFINITY;

  /** The member was heard of. */
  touch(memberId: string, deadlineMs: number): void {
    const session = this.#sessions.get(memberId);
    if (session !== undefined) session.deadlineMs = deadlineMs;
    else {
      const nothing = { revokeDeadlineMs: NEVER, joinDeadlineMs: NEVER, syncDeadlineMs: NEVER };
      this.#sessions.set(memberId, { deadlineMs, ...nothing });
    }
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
    if (session !== undefined) session.revokeDeadlineMs = NEVER;
  }

  /** The member was told to join again; told once more it has no more time. */
  expectJoin(memberId: string, deadlineMs: number): void {
    const session = this.#sessions.get(memberId);
    if (session === undefined || session.joinDeadlineMs !== NEVER) return;
    session.joinDeadlineMs = deadlineMs;
    this.#expect(deadlineMs);
  }
  /** The member has joined: next it must sync. */
  expectSync(memberId: string, deadlineMs: number): void {
    const session = this.#sessions.get(memberId);
    if (session === undefined) return;
    session.joinDeadlineMs = NEVER;
    session.revokeDeadlineMs = NEVER;
    session.syncDeadlineMs = deadlineMs;
    this.#expect(deadlineMs);
  }
  hasSynced(memberId: string): void {
    const session = this.#sessions.get(memberId);
    if (session !== undefined) session.syncDeadlineMs = NEVER;
  }
  /** The member speaks the consumer protocol: neither join nor sync is expected of it. */
  hasNoRounds(memberId: string): void {
    const session = this.#sessions.get(memberId);
    if (session === undefined) return;
    session.joinDeadlineMs = NEVER;
    session.syncDeadlineMs = NEVER;
  }

  delete(memberId: string): void {
    this.#sessions.delete(memberId);
  }

  /** Ids of those whose time is over; they stay until they are deleted. */
  late(nowMs: number): string[] {
    const late: string[] = [];
    this.nextDeadlineMs = NEVER;
    for (const [id, session] of this.#sessions) {
      const { deadlineMs, revokeDeadlineMs, joinDeadlineMs, syncDeadlineMs } = session;
      const soonestMs = Math.min(deadlineMs, revokeDeadlineMs, joinDeadlineMs, syncDeadlineMs);
      if (soonestMs <= nowMs) late.push(id);
      else this.#expect(soonestMs);
    }
    return late;
  }

  #expect(deadlineMs: number): void {
    if (deadlineMs < this.nextDeadlineMs) this.nextDeadlineMs = deadlineMs;
  }
}
