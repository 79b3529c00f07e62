/**
 * Time that only moves when it is told to. Timers run in the order of their due time, those of the same instant in the
 * order in which they were set; before each of them all promise callbacks have run, and after those what waits for the
 * end of the turn.
 *
 * `settle(promise)` is how a test waits for anything that needs timers: it runs the world until the promise is settled.
 */
import type { Clock, Timer } from '../../storage/clock.ts';

interface Entry {
  dueMs: number;
  order: number;
  callback: (() => void) | undefined;
}

/** One turn of the real loop: all promise callbacks that can run have run after it. */
const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

export class SimClock implements Clock {
  #wallOffsetMs: number;
  #elapsedMs = 0;
  #order = 0;
  /** Sorted by due time and order, the next one last. */
  readonly #timers: Entry[] = [];
  #endOfTurn: (() => void)[] = [];

  constructor(startMs = 1_700_000_000_000) {
    this.#wallOffsetMs = startMs;
  }

  now(): number {
    return Math.floor(this.#wallOffsetMs + this.#elapsedMs);
  }

  monotonic(): number {
    return this.#elapsedMs;
  }

  after(delayMs: number, callback: () => void): Timer {
    const entry: Entry = { dueMs: this.#elapsedMs + Math.max(0, delayMs), order: this.#order++, callback };
    if (entry.dueMs !== Number.POSITIVE_INFINITY) this.#insert(entry);
    return {
      cancel() {
        entry.callback = undefined;
      },
    };
  }

  endOfTurn(callback: () => void): void {
    this.#endOfTurn.push(callback);
  }

  /** Moves the wall clock (not the timers), back or forth. */
  jump(byMs: number): void {
    this.#wallOffsetMs += byMs;
  }

  /** Runs everything that is due within the next `byMs` and leaves the clock exactly there. */
  async advance(byMs: number): Promise<void> {
    const endMs = this.#elapsedMs + byMs;
    while (await this.#step(endMs)) {
      // Each step runs one timer or one end of turn.
    }
    this.#elapsedMs = endMs;
  }

  /** Runs timers until none is left, or `limitMs` have passed. */
  async runUntilIdle(limitMs = 3_600_000): Promise<void> {
    const endMs = this.#elapsedMs + limitMs;
    while (await this.#step(endMs)) {
      // As above.
    }
  }

  /** Runs until `promise` is settled and answers as it does; fails if nothing is left to run, or after `limitMs`. */
  async settle<T>(promise: Promise<T>, limitMs = 3_600_000): Promise<T> {
    let isSettled = false;
    const mark = (): void => {
      isSettled = true;
    };
    promise.then(mark, mark);
    const endMs = this.#elapsedMs + limitMs;
    for (;;) {
      await turn();
      if (isSettled) return promise;
      if (await this.#step(endMs)) continue;
      if (isSettled) return promise;
      throw new Error(`nothing can settle the promise: ${this.#timers.length} timers left at ${this.#elapsedMs} ms`);
    }
  }

  /** Whether anything (a timer up to `untilMs`, an end of turn) ran. */
  async #step(untilMs: number): Promise<boolean> {
    await turn();
    if (this.#endOfTurn.length > 0) {
      const callbacks = this.#endOfTurn;
      this.#endOfTurn = [];
      for (const callback of callbacks) callback();
      return true;
    }
    for (let next = this.#timers.at(-1); next !== undefined && next.dueMs <= untilMs; next = this.#timers.at(-1)) {
      this.#timers.pop();
      const callback = next.callback;
      if (callback === undefined) continue;
      this.#elapsedMs = Math.max(this.#elapsedMs, next.dueMs);
      callback();
      return true;
    }
    return false;
  }

  #insert(entry: Entry): void {
    const timers = this.#timers;
    let low = 0;
    let high = timers.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      const other = timers[middle];
      // Later ones first; a new entry goes before those of the same instant, which run earlier (from the end).
      if (other.dueMs > entry.dueMs) low = middle + 1;
      else high = middle;
    }
    timers.splice(low, 0, entry);
  }
}
