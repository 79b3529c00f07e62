/** The clock of one life of a simulated process. */
import type { Clock, Timer } from '../../storage/clock.ts';

/** The clock as one life of the process sees it: with the process, its timers end. */
export class LifeClock implements Clock {
  readonly #clock: Clock;
  isDead = false;

  constructor(clock: Clock) {
    this.#clock = clock;
  }
  now(): number {
    return this.#clock.now();
  }
  monotonic(): number {
    return this.#clock.monotonic();
  }
  after(delayMs: number, callback: () => void): Timer {
    return this.#clock.after(delayMs, () => {
      if (!this.isDead) callback();
    });
  }
  endOfTurn(callback: () => void): void {
    this.#clock.endOfTurn(() => {
      if (!this.isDead) callback();
    });
  }
}
