/**
 * How fast messages come into queues and are finished, over the last minute: two numbers a queue, looked at every ten
 * seconds. `queue-commands.ts` shows them.
 */
import type { Clock, Timer } from '../storage/clock.ts';
import type { Queue } from './queues.ts';

const SAMPLE_MS = 10_000;
/** With the newest, a minute. */
const SAMPLES_MAX = 7;

/** Messages that came in and that were finished, since the beginning. */
interface Sample {
  readonly atMs: number;
  readonly received: number;
  readonly finished: number;
}

export interface Rates {
  /** Messages a second. */
  readonly in: number;
  readonly out: number;
}

export class QueueRates {
  readonly #clock: Clock;
  readonly #queues: () => Iterable<Queue>;
  #samples = new WeakMap<Queue, Sample[]>();
  #timer: Timer;

  constructor(clock: Clock, queues: () => Iterable<Queue>) {
    this.#clock = clock;
    this.#queues = queues;
    this.#timer = clock.after(SAMPLE_MS, this.#look);
  }

  readonly #look = (): void => {
    for (const queue of this.#queues()) {
      const samples = this.#samples.get(queue);
      const sample = this.#sample(queue);
      if (samples === undefined) this.#samples.set(queue, [sample]);
      else {
        samples.push(sample);
        if (samples.length > SAMPLES_MAX) samples.shift();
      }
    }
    this.#timer = this.#clock.after(SAMPLE_MS, this.#look);
  };

  #sample(queue: Queue): Sample {
    let received = 0;
    for (const { state } of queue.partitions()) received += state.endOffset;
    const { ready, inFlight, delayed, blocked } = queue.counts();
    return { atMs: this.#clock.monotonic(), received, finished: received - ready - inFlight - delayed - blocked };
  }

  /** Undefined: the queue is too new to say. */
  of(queue: Queue): Rates | undefined {
    const oldest = this.#samples.get(queue)?.[0];
    if (oldest === undefined) return undefined;
    const { atMs, received, finished } = this.#sample(queue);
    const seconds = (atMs - oldest.atMs) / 1000;
    if (seconds <= 0) return undefined;
    // A replay makes what was finished unfinished again.
    const rate = (count: number): number => Math.round((Math.max(0, count) / seconds) * 10) / 10;
    return { in: rate(received - oldest.received), out: rate(finished - oldest.finished) };
  }

  close(): void {
    this.#timer.cancel();
  }
}
