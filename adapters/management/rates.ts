/**
 * Rates of counters: what was counted is read every few seconds and compared with what it was before. While nobody has
 * asked for a while nothing is read.
 */
import type { Clock, Timer } from '../../storage/clock.ts';

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
    if (this.#timer !== undefined) return;
    this.#sample();
    this.#wait();
  }

  /** A second, by name; a name that is not there has not been seen long enough. */
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
      if (this.#clock.monotonic() - this.#askedMs > WATCHED_MS) return;
      this.#sample();
      this.#wait();
    });
  }

  #sample(): void {
    const atMs = this.#clock.monotonic();
    const nowMs = this.#clock.now();
    for (const [key, values] of this.#read()) {
      const before = this.#samples.get(key);
      if (before === undefined || atMs <= before.atMs) {
        this.#samples.set(key, { values, rates: NO_RATES, atMs, changedMs: nowMs });
        continue;
      }
      const seconds = (atMs - before.atMs) / 1000;
      const rates: Record<string, number> = {};
      let isSame = true;
      for (const [name, value] of Object.entries(values)) {
        const difference = value - (before.values[name] ?? value);
        if (difference !== 0) isSame = false;
        rates[name] = difference / seconds;
      }
      before.values = values;
      before.rates = rates;
      before.atMs = atMs;
      if (!isSame) before.changedMs = nowMs;
    }
  }
}
