/**
 * Ends a channel that keeps a message unacked for too long (RabbitMQ's `consumer_timeout`), so that a consumer that hangs
 * does not keep messages for ever.
 *
 * Deliveries note no times: from time to time the newest delivery tag is noted with the time, and what is not acked and not
 * above an old note was delivered before it. So the end comes up to two intervals late.
 */
import type { Clock, Timer } from '../../storage/clock.ts';

const INTERVAL_MS_MAX = 60_000;

export interface AckTimeoutHost {
  readonly clock: Clock;
  /** Messages that wait for their ack. */
  readonly waitingCount: number;
  readonly lastTag: number;
  /** The lowest tag that waits of each queue, and how long it may; 0: for ever. */
  waiting(): Iterable<{ readonly tag: number; readonly timeoutMs: number }>;
  timedOut(timeoutMs: number): void;
}

interface Note {
  readonly timeMs: number;
  /** Delivered by then. */
  readonly tag: number;
}

export class AckTimeout {
  readonly #host: AckTimeoutHost;
  #notes: Note[] = [];
  #timer: Timer | undefined;

  constructor(host: AckTimeoutHost) {
    this.#host = host;
  }

  /** There may be more that waits than before. */
  watch(): void {
    if (this.#timer !== undefined || this.#host.waitingCount === 0) return;
    let shortestMs = Number.POSITIVE_INFINITY;
    for (const { timeoutMs } of this.#host.waiting()) shortestMs = Math.min(shortestMs, timeoutMs || shortestMs);
    this.#note();
    this.#timer = this.#host.clock.after(Math.min(INTERVAL_MS_MAX, Math.max(1, shortestMs / 4)), () => {
      this.#timer = undefined;
      if (!this.#check()) this.watch();
    });
  }

  #note(): void {
    const { clock, lastTag } = this.#host;
    const newest = this.#notes.at(-1);
    if (newest === undefined || newest.tag < lastTag) this.#notes.push({ timeMs: clock.monotonic(), tag: lastTag });
  }

  /** True: it was too long. */
  #check(): boolean {
    const { clock } = this.#host;
    const nowMs = clock.monotonic();
    let lowest = Number.POSITIVE_INFINITY;
    for (const { tag, timeoutMs } of this.#host.waiting()) {
      lowest = Math.min(lowest, tag);
      const note = this.#notes.find((each) => each.tag >= tag);
      if (timeoutMs === 0 || note === undefined || nowMs - note.timeMs < timeoutMs) continue;
      this.#host.timedOut(timeoutMs);
      return true;
    }
    this.#notes = this.#notes.filter(({ tag }) => tag >= lowest);
    return false;
  }

  close(): void {
    this.#timer?.cancel();
    this.#timer = undefined;
    this.#notes = [];
  }
}
