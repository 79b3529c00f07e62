/** A clock that stands still until `advance` moves it; timers run inside `advance`, in order of time. */
import type { Clock, Timer } from '../../storage/clock.ts';

interface Pending {
  atMs: number;
  sequence: number;
  callback: () => void;
}

export class ManualClock implements Clock {
  #nowMs: number;
  #elapsedMs = 0;
  #sequence = 0;
  #timers: Pending[] = [];

  /** `nowMs`: wall clock at the start. */
  constructor(nowMs = 1_700_000_000_000) {
    this.#nowMs = nowMs;
  }

  now(): number {
    return this.#nowMs;
  }
  monotonic(): number {
    return this.#elapsedMs;
  }
  get pendingTimers(): number {
    return this.#timers.length;
  }
  after(delayMs: number, callback: () => void): Timer {
    const pending = { atMs: this.#elapsedMs + Math.max(0, delayMs), sequence: this.#sequence++, callback };
    this.#timers.push(pending);
    return {
      cancel: () => {
        this.#timers = this.#timers.filter((other) => other !== pending);
      },
    };
  }
  /** At the next `advance`, also one by 0 ms. */
  endOfTurn(callback: () => void): void {
    this.after(0, callback);
  }

  advance(ms: number): void {
    const endMs = this.#elapsedMs + ms;
    for (;;) {
      const due = this.#timers
        .filter(({ atMs }) => atMs <= endMs)
        .sort((a, b) => a.atMs - b.atMs || a.sequence - b.sequence)[0];
      if (due === undefined) break;
      this.#timers = this.#timers.filter((other) => other !== due);
      const stepMs = Math.max(0, due.atMs - this.#elapsedMs);
      this.#elapsedMs += stepMs;
      this.#nowMs += stepMs;
      due.callback();
    }
    const restMs = endMs - this.#elapsedMs;
    this.#elapsedMs += restMs;
    this.#nowMs += restMs;
  }
}
