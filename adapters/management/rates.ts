/**
 * Rates of counters: what was counted is read every few seconds and compared with what it was before. While nobody has
 * asked for a while nothing is read.
 */
import type { Clock, Timer } from '../../storage/clock.ts';

/** Things that are read in one go, before others have their turn. */
const GO = 500;
/** As RabbitMQ's `collect_statistics_interval`. */
const SAMPLE_MS = 5_000;
const WATCHED_MS = 600_000;

/** Values by the name that the API gives them. */
export type Reading = Readonly<Record<string, number>>;

interface Sample {
  values: Reading;
  rates: Reading;
  atMs: number;
  /** Wall clock: when the values were seen to be others than before. */
  changedMs: number;
}

const NO_RATES: Reading = {};

export class Rates {
  readonly #clock: Clock;
  readonly #read: () => Iterable<readonly [key: object, values: Reading]>;
  readonly #samples = new WeakMap<object, Sample>();
  #timer: Timer | undefined;
  #askedMs = 0;

  constructor(clock: Clock, read: () => Iterable<readonly [key: object, values: Reading]>) {
    this.#clock = clock;
    this.#read = read;
  }

  /** Somebody looks. */
  asked(): void {
    this.#askedMs = this.#clock.monotonic();
    if (this.#timer === undefined) this.#sample(this.#read()[Symbol.iterator]());
  }

  /** A second, by name; a name that is not there has not changed, or not been seen long enough. */
  of(key: object): Reading {
    return this.#samples.get(key)?.rates ?? NO_RATES;
  }

  /** Since when (wall clock) nothing of it has changed; undefined while something does, or it is not known. */
  idleSinceMs(key: object): number | undefined {
    const sample = this.#samples.get(key);
    return sample === undefined || this.#clock.now() - sample.changedMs < SAMPLE_MS ? undefined : sample.changedMs;
  }

  close(): void {
    this.#timer?.cancel();
  }

  #wait(): void {
    this.#timer = this.#clock.after(SAMPLE_MS, () => {
      this.#timer = undefined;
      if (this.#clock.monotonic() - this.#askedMs <= WATCHED_MS) this.#sample(this.#read()[Symbol.iterator]());
    });
  }

  #sample(things: Iterator<readonly [key: object, values: Reading]>): void {
    const atMs = this.#clock.monotonic();
    const nowMs = this.#clock.now();
    for (let count = 0; count < GO; count++) {
      const { value, done } = things.next();
      if (done === true) return this.#wait();
      this.#take(value[0], value[1], { atMs, nowMs });
    }
    this.#timer = this.#clock.after(0, () => this.#sample(things));
  }

  #take(key: object, values: Reading, { atMs, nowMs }: { atMs: number; nowMs: number }): void {
    const before = this.#samples.get(key);
    if (before === undefined || atMs <= before.atMs) {
      this.#samples.set(key, { values, rates: NO_RATES, atMs, changedMs: nowMs });
      return;
    }
    const seconds = (atMs - before.atMs) / 1000;
    let rates: Record<string, number> | undefined;
    for (const [name, value] of Object.entries(values)) {
      const difference = value - (before.values[name] ?? value);
      if (difference === 0) continue;
      rates ??= {};
      rates[name] = difference / seconds;
    }
    before.values = values;
    before.rates = rates ?? NO_RATES;
    before.atMs = atMs;
    if (rates !== undefined) before.changedMs = nowMs;
  }
}
