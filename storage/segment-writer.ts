/**
 * Brings journaled bytes to their segments: in one write of a partition's share once that is large, after a while at
 * the latest, or when unwritten bytes near their limit. Those that have waited longest go first: their bytes are in the
 * slabs that the tail cache gives up next. A few writes are under way at a time.
 *
 * Always true: only durable bytes are written; a partition has one write at a time.
 */
import type { Clock, Timer } from './clock.ts';

/** What the writer needs of a partition. */
export interface WriteTarget {
  /** Bytes that are not in a segment. */
  readonly unwrittenBytes: number;
  readonly hasDurableUnwritten: boolean;
  /** Writes what is durable now. Resolves at once if a write is under way. */
  writeBehind(): Promise<void>;
  /** As `writeBehind`, on the calling thread, if that is possible: for little. Throws what the disk says. */
  writeBehindNow(): boolean;
  /** Clock time (monotonic ms) at which it is due, 0 if it does not wait to become more; of this writer. */
  lingerUntilMs: number;
  /** It waits for its turn, or is written. */
  isQueued: boolean;
  /** What it had when it was queued. */
  queuedBytes: number;
}

export interface SegmentWriterOptions {
  clock: Clock;
  /** `journal.segment.bytes` */
  segmentBytesMin: number;
  /** `journal.segment.linger.ms` */
  lingerMs: number;
  /** `log.unwritten.bytes.max` */
  unwrittenBytesMax: number;
  /** Whether another file may be opened now; if not, `resume` follows. */
  mayOpen: () => boolean;
  onFatal: (error: unknown) => void;
  /** There is room again. */
  onRoom: () => void;
}

const WRITES_MAX = 4;
/** Of the limit of unwritten bytes: the more may wait, the fewer and larger the writes. */
const RELIEF_SHARE = 0.75;
/** Up to this much is written on the calling thread. */
export const BEHIND_NOW_BYTES_MAX = 64 * 1024;
/** Removals under way at a time: thousands may be wanted at once, and what somebody waits for must not queue behind them. */
const REMOVALS_MAX = 2;

export class SegmentWriter {
  readonly #options: SegmentWriterOptions;
  /** Partitions with bytes that are waited for to become more, by due time. */
  readonly #lingering = new Set<WriteTarget>();
  readonly #queue: WriteTarget[] = [];
  #queuedBytes = 0;
  #writes = 0;
  #timer: Timer | undefined;
  #unwrittenBytes = 0;
  #isStopped = false;
  #tasks = 0;
  #removals = 0;
  readonly #removalsWaiting: (() => void)[] = [];
  #whenIdle: (() => void)[] = [];
  writeCount = 0;
  /** Bytes brought to segments since the start, directly or behind the journal. */
  writtenBytes = 0;

  constructor(options: SegmentWriterOptions) {
    this.#options = options;
  }

  /** Appended bytes that are not in a segment. */
  get unwrittenBytes(): number {
    return this.#unwrittenBytes;
  }
  get hasRoom(): boolean {
    return this.#unwrittenBytes < this.#options.unwrittenBytesMax;
  }

  appended(sizeBytes: number): void {
    this.#unwrittenBytes += sizeBytes;
  }
  written(sizeBytes: number): void {
    const hadRoom = this.hasRoom;
    this.#unwrittenBytes -= sizeBytes;
    this.writtenBytes += sizeBytes;
    if (!hadRoom && this.hasRoom) this.#options.onRoom();
  }

  /** The partition has durable bytes that are not in its segment. */
  durable(target: WriteTarget): void {
    const { segmentBytesMin, lingerMs, clock } = this.#options;
    if (!target.hasDurableUnwritten || target.isQueued) return;
    if (target.unwrittenBytes >= segmentBytesMin) this.#enqueue(target);
    else if (target.lingerUntilMs === 0) {
      target.lingerUntilMs = clock.monotonic() + lingerMs;
      this.#lingering.add(target);
      this.#timer ??= clock.after(lingerMs, this.#onTimer);
    }
  }

  /**
   * After a group: when unwritten bytes near their limit, as much is written as it takes. Memory is short because many
   * partitions have a little each: a call on this thread costs less than handing so little to another one.
   */
  relieve(): void {
    const limitBytes = this.#options.unwrittenBytesMax * RELIEF_SHARE;
    if (this.#unwrittenBytes - this.#queuedBytes <= limitBytes) return;
    for (const target of this.#lingering) {
      if (!this.#writeNow(target)) this.#enqueue(target);
      if (this.#unwrittenBytes - this.#queuedBytes <= limitBytes) return;
    }
  }

  #writeNow(target: WriteTarget): boolean {
    if (target.unwrittenBytes > BEHIND_NOW_BYTES_MAX || this.#isStopped) return false;
    try {
      if (!target.writeBehindNow()) return false;
    } catch (error) {
      this.#options.onFatal(error);
      return true;
    }
    this.writeCount++;
    this.#lingering.delete(target);
    target.lingerUntilMs = 0;
    this.durable(target);
    return true;
  }

  /** Writes the partition's durable bytes soon, however few. */
  hurry(target: WriteTarget): void {
    if (target.hasDurableUnwritten && !target.isQueued) this.#enqueue(target);
  }

  /** Runs a task that no group waits for: sealing, snapshots, removals. `idle` waits for them. */
  background(task: () => Promise<void>): void {
    this.#tasks++;
    task().then(() => {
      this.#tasks--;
      if (this.#tasks > 0) return;
      const waiting = this.#whenIdle;
      this.#whenIdle = [];
      for (const resolve of waiting) resolve();
    }, this.#options.onFatal);
  }

  /** Runs a task that removes files when its turn has come. */
  async removal(task: () => Promise<void>): Promise<void> {
    while (this.#removals >= REMOVALS_MAX) {
      await new Promise<void>((resolve) => {
        this.#removalsWaiting.push(resolve);
      });
    }
    this.#removals++;
    try {
      await task();
    } finally {
      this.#removals--;
      this.#removalsWaiting.shift()?.();
    }
  }

  /** Resolves when no background task is under way. */
  async idle(): Promise<void> {
    if (this.#tasks === 0) return;
    await new Promise<void>((resolve) => {
      this.#whenIdle.push(resolve);
    });
  }

  /** Files may be opened again. */
  resume(): void {
    this.#next();
  }

  stop(): void {
    this.#isStopped = true;
    this.#timer?.cancel();
  }

  readonly #onTimer = (): void => {
    this.#timer = undefined;
    const now = this.#options.clock.monotonic();
    for (const target of this.#lingering) {
      if (target.lingerUntilMs > now) {
        this.#timer = this.#options.clock.after(target.lingerUntilMs - now, this.#onTimer);
        return;
      }
      this.#enqueue(target);
    }
  };

  #enqueue(target: WriteTarget): void {
    this.#lingering.delete(target);
    target.lingerUntilMs = 0;
    target.isQueued = true;
    target.queuedBytes = target.unwrittenBytes;
    this.#queuedBytes += target.queuedBytes;
    this.#queue.push(target);
    this.#next();
  }

  #next(): void {
    while (this.#writes < WRITES_MAX && this.#queue.length > 0 && !this.#isStopped) {
      if (!this.#options.mayOpen()) return;
      const target = this.#queue.shift();
      if (target === undefined) return;
      this.#queuedBytes -= target.queuedBytes;
      this.#writes++;
      this.writeCount++;
      target.writeBehind().then(() => {
        this.#writes--;
        target.isQueued = false;
        // What became durable meanwhile waits for its turn again.
        this.durable(target);
        this.#next();
      }, this.#options.onFatal);
    }
  }
}
