/**
 * The deduplication window of one queue: the ids of the last `windowMs`, each as 16 bytes of SHA-256 with the place of the
 * first send. Typed arrays, at most 40 B an id: a ring of entries in time order and a hash table of entry numbers.
 *
 * The records of the log carry their ids, so the log is the truth and this an index of it: changes go to the state log
 * lazily, only for what is durable, and after a restart what the log has beyond `coveredOffset` is added again.
 *
 * Always true: an id within the window is found; when there is no room the send is refused (throttled), never passed.
 */

/** Ids of all queues together, against `queue.dedup.max`. */
export class DedupBudget {
  readonly idsMax: number;
  ids = 0;

  constructor(idsMax: number) {
    this.idsMax = idsMax;
  }
}

export interface DedupOptions {
  /** `dedup.window.ms` */
  readonly windowMs: number;
  readonly budget: DedupBudget;
}

/** The first send of an id. */
export interface DedupEntry {
  readonly partition: number;
  readonly offset: number;
  readonly timeMs: number;
}

/** 16 bytes that stand for an id (or a content). */
export function dedupHash(id: string | Uint8Array): Buffer {
  throw new Error(`${id.length}`);
}

export class DedupWindow {
  windowMs: number;
  readonly #budget: DedupBudget;

  constructor(options: DedupOptions) {
    this.windowMs = options.windowMs;
    this.#budget = options.budget;
  }

  /** Ids in memory, some of them perhaps expired. */
  get size(): number {
    return this.#budget.ids;
  }
  /** Memory of the window. */
  get sizeBytes(): number {
    return 0;
  }

  /** The first send of this id, if it is within the window. */
  find(hash: Uint8Array, nowMs: number): DedupEntry | undefined {
    throw new Error(`${hash.length} ${nowMs}`);
  }

  /** Makes room for `count` ids by forgetting expired ones, or throws THROTTLING_QUOTA_EXCEEDED. Before the append. */
  checkRoom(count: number, nowMs: number): void {
    throw new Error(`${count} ${nowMs}`);
  }

  /** Remembers the first send. After `find` found nothing, in the same turn. */
  add(hash: Uint8Array, entry: DedupEntry): void {
    throw new Error(`${hash.length} ${entry.offset}`);
  }

  /** Forgets up to `countMax` (default 10,000) expired ids. Answers how many. */
  expire(nowMs: number, countMax = 10_000): number {
    throw new Error(`${nowMs} ${countMax}`);
  }

  /** When the oldest id expires; infinity if there is none. */
  get nextExpiryMs(): number {
    throw new Error('skeleton');
  }

  /**
   * What is to be written to the state log: ids below `highWatermark(partition)` that were not taken before. `applyChanges`
   * of it, in order, on a fresh window gives the same ids.
   */
  takeChanges(highWatermark: (partition: number) => number): Buffer | undefined {
    throw new Error(`${highWatermark(0)}`);
  }
  applyChanges(bytes: Uint8Array, nowMs: number): void {
    throw new Error(`${bytes.length} ${nowMs}`);
  }
  /** Pieces of at most 256 KiB that rebuild what was taken so far; the first resets. */
  snapshot(): Iterable<Buffer> {
    throw new Error('skeleton');
  }
  /** After `applyChanges`: ids of this partition from here on must be added again from the log; 0 if nothing is known. */
  coveredOffset(partition: number): number {
    throw new Error(`${partition}`);
  }
  /** The log of `partition` up to `offset` has nothing more to add (batches without ids), so that a restart need not read it. */
  cover(partition: number, offset: number): void {
    throw new Error(`${partition} ${offset}`);
  }
}
