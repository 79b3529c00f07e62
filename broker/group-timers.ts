/**
 * Gives groups their time: each says when it must be looked at (`nextDeadlineMs`), one timer serves all of them. What is
 * due is looked at after everything that has arrived: a process that stood still must not take waiting heartbeats for
 * silence.
 */
import type { Clock, Timer } from '../storage/clock.ts';
import { Deadlines } from './deadlines.ts';

export class GroupTimers<Group extends { readonly nextDeadlineMs: number }> {
  readonly #clock: Clock;
  readonly #onDue: (groups: readonly Group[]) => void;
  /** When each group must be looked at; one entry of a group counts, the one in `#scheduled`. */
  readonly #deadlines = new Deadlines<Group>();
  readonly #scheduled = new Map<Group, number>();
  #timer: Timer | undefined;
  #timerAtMs = Number.POSITIVE_INFINITY;
  #isClosed = false;

  constructor(clock: Clock, onDue: (groups: readonly Group[]) => void) {
    this.#clock = clock;
    this.#onDue = onDue;
  }

  close(): void {
    this.#isClosed = true;
    this.#timer?.cancel();
  }

  /** Sees to it that the group gets its time. */
  watch(group: Group): void {
    const atMs = group.nextDeadlineMs;
    if (atMs >= (this.#scheduled.get(group) ?? Number.POSITIVE_INFINITY)) return;
    this.#scheduled.set(group, atMs);
    this.#deadlines.add(atMs, group);
    // Entries that were overtaken by sooner ones pile up only if many groups come and go.
    if (this.#deadlines.count > 2 * this.#scheduled.size + 1000) {
      this.#deadlines.prune((other, otherMs) => this.#scheduled.get(other) === otherMs);
    }
    this.#setTimer();
  }

  forget(group: Group): void {
    this.#scheduled.delete(group);
  }

  #setTimer(): void {
    const atMs = this.#deadlines.nextMs;
    if (this.#isClosed || atMs >= this.#timerAtMs) return;
    this.#timer?.cancel();
    this.#timerAtMs = atMs;
    this.#timer = this.#clock.after(Math.max(0, Math.ceil(atMs - this.#clock.monotonic())), () => {
      this.#timerAtMs = Number.POSITIVE_INFINITY;
      this.#clock.endOfTurn(() => {
        if (this.#isClosed) return;
        this.#onDue(this.#takeDue());
        this.#setTimer();
      });
    });
  }

  /** First all, then each: what becomes due meanwhile waits for the next turn. */
  #takeDue(): Group[] {
    const nowMs = this.#clock.monotonic();
    const dueGroups: Group[] = [];
    for (let due = this.#deadlines.takeDue(nowMs); due; due = this.#deadlines.takeDue(nowMs)) {
      if (this.#scheduled.get(due.item) !== due.atMs) continue;
      this.#scheduled.delete(due.item);
      dueGroups.push(due.item);
    }
    return dueGroups;
  }
}
