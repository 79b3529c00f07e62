/**
 * The newest batches in memory. Every append is copied once, into the current slab; the journal, the segments and
 * readers at the end of the log all use that copy.
 *
 * A `Run` is a contiguous piece of one partition in one slab: the unit of the journal, of segment writes and of reads.
 * Slabs are filled in arrival order, so the bytes of one group are nearly contiguous, and are evicted oldest first: the
 * runs of a partition that are in memory are always the end of its log.
 *
 * Always true: a slab with bytes that are not yet in a segment is not evicted; an evicted slab is reused only when its
 * last reader has let go. Slab memory is recycled, never garbage.
 */
import assert from 'node:assert';

/** What the cache and the committer need to know of the partition that owns a run. */
export interface RunOwner {
  /** The oldest run in memory goes. Called in order of offsets. */
  forgetOldestRun(run: Run): void;
}

export class Slab {
  readonly buffer: Buffer;
  usedBytes = 0;
  /** Runs of it that are not yet in a segment. */
  unwrittenRuns = 0;
  readers = 0;
  isCached = true;
  readonly runs: Run[] = [];

  constructor(sizeBytes: number) {
    this.buffer = Buffer.allocUnsafeSlow(sizeBytes);
  }
}

/** Used again when its slab is evicted: nobody keeps one beyond that. */
export class Run {
  owner: RunOwner;
  slab: Slab;
  position = 0;
  sizeBytes = 0;
  baseOffset = 0;
  nextOffset = 0;
  maxTimestamp = -1;
  batchCount = 0;
  /** Fingerprint of the CRCs of its batches, see `runDigest`. */
  digest = 0;
  /** Position (group number) under which it becomes durable. */
  group = 0;
  /** The first of a new segment. */
  startsSegment = false;

  constructor(owner: RunOwner, slab: Slab) {
    this.owner = owner;
    this.slab = slab;
  }

  /** Empty, at the end of what is used of the slab. */
  begin(position: number, baseOffset: number, group: number, startsSegment: boolean): void {
    this.position = position;
    this.sizeBytes = 0;
    this.baseOffset = baseOffset;
    this.nextOffset = baseOffset;
    this.maxTimestamp = -1;
    this.batchCount = 0;
    this.digest = 0;
    this.group = group;
    this.startsSegment = startsSegment;
  }
}

/** What free runs belong to: they must not keep a partition that is deleted, nor a slab that is given up. */
const nobody: RunOwner = { forgetOldestRun() {} };
const noSlab = new Slab(0);
/** Stands where a run was that is used elsewhere by now. */
export const noRun = new Run(nobody, noSlab);

/** Continues the fingerprint of a run by the CRC of its next batch: different CRCs give different digests. */
export function runDigest(digest: number, batchCrc: number): number {
  return (Math.imul(digest, 0x01000193) + batchCrc) >>> 0;
}

/** Runs are not merged beyond this, so that a read finds its place in one quickly. */
export const RUN_BYTES_MAX = 64 * 1024;
/** What a run costs beside its bytes, for the budget. */
const RUN_OVERHEAD_BYTES = 128;
const SLAB_BYTES = 1024 * 1024;
/** Free runs kept for reuse: those of some slabs of small batches. */
const FREE_RUNS_MAX = 8192;
/** Free slabs kept for reuse beyond the budget. */
const POOL_BYTES_MAX = 4 * SLAB_BYTES;

export interface TailCacheOptions {
  /** `log.tail.cache.bytes` */
  budgetBytes: number;
  /** The oldest slab should go but has bytes that are not in a segment: write those. */
  onPressure: (slab: Slab) => void;
}

export class TailCache {
  readonly #budgetBytes: number;
  readonly #slabBytes: number;
  readonly #onPressure: (slab: Slab) => void;
  /** Oldest first; the last is the current one. */
  #slabs: Slab[] = [];
  #slabsBytes = 0;
  #runCount = 0;
  /** They live long enough to be moved twice by the collector, and to make it late for them: so they are used again. */
  readonly #freeRuns: Run[] = [];
  #pool: Slab[] = [];
  #poolBytes = 0;
  /** Of evicted slabs whose readers have not let go. */
  #pinnedBytes = 0;

  constructor(options: TailCacheOptions) {
    this.#budgetBytes = options.budgetBytes;
    this.#slabBytes = Math.min(SLAB_BYTES, Math.max(64 * 1024, options.budgetBytes / 8));
    this.#onPressure = options.onPressure;
  }

  /** Memory in use: slabs and runs, not the pool. */
  get sizeBytes(): number {
    return this.#slabsBytes + this.#runCount * RUN_OVERHEAD_BYTES;
  }

  /** Memory beyond the budget that readers hold: they read slower than the cache moves on. */
  get pinnedBytes(): number {
    return this.#pinnedBytes;
  }

  /** The current slab, with at least `sizeBytes` free behind `usedBytes`. */
  slabFor(sizeBytes: number): Slab {
    const current = this.#slabs.at(-1);
    if (current !== undefined && current.buffer.length - current.usedBytes >= sizeBytes) return current;
    let capacity = this.#slabBytes;
    while (capacity < sizeBytes) capacity *= 2;
    this.#evictTo(this.#budgetBytes - capacity);
    const slab = this.#recycled(capacity) ?? new Slab(capacity);
    this.#slabs.push(slab);
    this.#slabsBytes += capacity;
    return slab;
  }

  /** A new run in the slab. */
  addRun(owner: RunOwner, slab: Slab): Run {
    const run = this.#freeRuns.pop() ?? new Run(owner, slab);
    run.owner = owner;
    run.slab = slab;
    slab.runs.push(run);
    slab.unwrittenRuns++;
    this.#runCount++;
    return run;
  }

  /** The bytes of the run are in a segment. */
  runWritten(run: Run): void {
    assert(run.slab.unwrittenRuns > 0);
    run.slab.unwrittenRuns--;
  }

  hold(slab: Slab): void {
    slab.readers++;
  }
  letGo(slab: Slab): void {
    assert(slab.readers > 0);
    slab.readers--;
    if (slab.readers > 0 || slab.isCached) return;
    this.#pinnedBytes -= slab.buffer.length;
    this.#recycle(slab);
  }

  #evictTo(targetBytes: number): void {
    let evicted = 0;
    // The current slab stays: appends may still merge into its last run.
    while (this.sizeBytes > targetBytes && evicted < this.#slabs.length - 1) {
      const slab = this.#slabs[evicted];
      if (slab.unwrittenRuns > 0) {
        this.#onPressure(slab);
        break;
      }
      for (const run of slab.runs) {
        run.owner.forgetOldestRun(run);
        run.owner = nobody;
        run.slab = noSlab;
        if (this.#freeRuns.length < FREE_RUNS_MAX) this.#freeRuns.push(run);
      }
      this.#runCount -= slab.runs.length;
      this.#slabsBytes -= slab.buffer.length;
      slab.runs.length = 0;
      slab.isCached = false;
      if (slab.readers === 0) this.#recycle(slab);
      else this.#pinnedBytes += slab.buffer.length;
      evicted++;
    }
    if (evicted > 0) this.#slabs.splice(0, evicted);
  }

  #recycle(slab: Slab): void {
    if (this.#poolBytes + slab.buffer.length > POOL_BYTES_MAX) return;
    this.#pool.push(slab);
    this.#poolBytes += slab.buffer.length;
  }

  #recycled(capacity: number): Slab | undefined {
    const index = this.#pool.findIndex((slab) => slab.buffer.length === capacity);
    if (index < 0) return undefined;
    const [slab] = this.#pool.splice(index, 1);
    this.#poolBytes -= capacity;
    assert(slab.unwrittenRuns === 0);
    assert(slab.readers === 0);
    slab.usedBytes = 0;
    slab.isCached = true;
    return slab;
  }
}
