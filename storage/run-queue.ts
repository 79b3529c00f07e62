/**
 * The runs of one partition that are in memory: always the end of its log.
 *
 *   oldest … | not in a segment … | not durable … newest
 *
 * The three parts may be empty; runs pass from right to left, and leave at the left when their slab is evicted. With a
 * direct write a run may be in its segment when it becomes durable; it is counted as such afterwards.
 */
import assert from 'node:assert';
import { batchBaseOffset, batchLastOffset, batchSizeBytes } from '../protocol/record-batch.ts';
import type { LogSlice } from './log.ts';
import { noRun, type Run, type RunOwner, type Slab, type TailCache } from './tail-cache.ts';

/** Places of so many forgotten runs are taken out of the list together. */
const FORGOTTEN_MIN = 16;

const nothing: LogSlice = { chunks: [], sizeBytes: 0, release() {} };

/** A read that found nothing. */
export function emptySlice(): LogSlice {
  return nothing;
}

export class RunQueue {
  readonly #cache: TailCache;
  readonly #runs: Run[] = [];
  #oldest = 0;
  #unwritten = 0;
  #undurable = 0;
  /** Bytes that are durable or not, but not in a segment. */
  unwrittenBytes = 0;

  constructor(cache: TailCache) {
    this.#cache = cache;
  }

  /** Smallest offset in memory; infinite if there is none. */
  get firstOffset(): number {
    return this.#oldest < this.#runs.length ? this.#runs[this.#oldest].baseOffset : Number.POSITIVE_INFINITY;
  }
  get newest(): Run | undefined {
    return this.#oldest < this.#runs.length ? this.#runs.at(-1) : undefined;
  }
  /** Whether there are durable runs that are not in a segment. */
  get hasDurableUnwritten(): boolean {
    return this.#unwritten < this.#undurable;
  }

  /** Infinite if everything is in segments. */
  get firstUnwrittenOffset(): number {
    return this.#unwritten < this.#runs.length ? this.#runs[this.#unwritten].baseOffset : Number.POSITIVE_INFINITY;
  }

  add(owner: RunOwner, slab: Slab): Run {
    const run = this.#cache.addRun(owner, slab);
    this.#runs.push(run);
    return run;
  }

  /** Its slab is evicted. */
  forget(run: Run): void {
    assert(this.#runs[this.#oldest] === run);
    assert(this.#oldest < this.#unwritten);
    this.#runs[this.#oldest] = noRun;
    this.#oldest++;
    if (this.#oldest < FORGOTTEN_MIN || this.#oldest * 2 < this.#runs.length) return;
    this.#runs.splice(0, this.#oldest);
    this.#unwritten -= this.#oldest;
    this.#undurable -= this.#oldest;
    this.#oldest = 0;
  }

  /** Runs of groups up to `groupNumber` are durable. Answers the offset after them, −1 if there were none. */
  settle(groupNumber: number): number {
    let end = -1;
    for (; this.#undurable < this.#runs.length; this.#undurable++) {
      const run = this.#runs[this.#undurable];
      if (run.group > groupNumber) break;
      end = run.nextOffset;
    }
    return end;
  }

  /** Unwritten runs of groups up to `groupNumber`, oldest first; by default the durable ones. */
  unwritten(groupNumber?: number): Run[] {
    let end = this.#undurable;
    if (groupNumber !== undefined) while (end < this.#runs.length && this.#runs[end].group <= groupNumber) end++;
    return this.#runs.slice(this.#unwritten, end);
  }

  /** The oldest unwritten run is in its segment. */
  written(run: Run): void {
    assert(this.#runs[this.#unwritten] === run);
    assert(this.#unwritten < this.#undurable, 'only what is durable counts as written');
    this.#unwritten++;
    this.unwrittenBytes -= run.sizeBytes;
    this.#cache.runWritten(run);
  }

  /** Group of the batch with this offset; 0 if it is not in memory, since it is durable then. */
  groupOf(offset: number): number {
    const index = this.#find(offset);
    return index < 0 ? 0 : this.#runs[index].group;
  }

  /** Runs from the one that holds `offset` on. */
  *from(offset: number): Iterable<Run> {
    for (let index = Math.max(this.#find(offset), this.#oldest); index < this.#runs.length; index++) {
      yield this.#runs[index];
    }
  }

  /** Index of the run with `offset`, −1 if it is not in memory. */
  #find(offset: number): number {
    const runs = this.#runs;
    let low = this.#oldest;
    let high = runs.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (runs[middle].nextOffset <= offset) low = middle + 1;
      else high = middle;
    }
    return low < runs.length && runs[low].baseOffset <= offset ? low : -1;
  }

  /**
   * Whole batches from the one with `offset` on, below `limitOffset`, as views. The last one may be cut by `maxBytes`; the
   * first one comes whole or, without `wholeFirst`, not at all if it is larger.
   */
  read(offset: number, limitOffset: number, maxBytes: number, wholeFirst: boolean): LogSlice {
    let index = this.#find(offset);
    assert(index >= 0);
    const runs = this.#runs;
    let run = runs[index];
    let { buffer } = run.slab;
    let at = run.position;
    while (batchLastOffset(buffer, at) < offset) at += batchSizeBytes(buffer, at);
    const firstBytes = batchSizeBytes(buffer, at);
    if (batchLastOffset(buffer, at) >= limitOffset) return nothing;
    if (firstBytes > maxBytes && !wholeFirst) return nothing;
    const wantedBytes = Math.max(maxBytes, firstBytes);
    const slice = new MemorySlice(this.#cache);
    for (;;) {
      // `at` is where the piece starts, `end` where it ends: neighbours in a slab make one piece.
      let end = run.position + readableBytes(run, limitOffset);
      let isLast = end < run.position + run.sizeBytes;
      while (!isLast && end - at < wantedBytes - slice.sizeBytes && index + 1 < runs.length) {
        const next = runs[index + 1];
        if (next.slab !== run.slab || next.position !== end) break;
        const nextBytes = readableBytes(next, limitOffset);
        end += nextBytes;
        isLast = nextBytes < next.sizeBytes;
        index++;
        run = next;
      }
      const size = Math.min(end - at, wantedBytes - slice.sizeBytes);
      if (size > 0) slice.add(run.slab, buffer.subarray(at, at + size));
      if (isLast || slice.sizeBytes >= wantedBytes || ++index >= runs.length) return slice;
      run = runs[index];
      if (run.baseOffset >= limitOffset) return slice;
      buffer = run.slab.buffer;
      at = run.position;
    }
  }
}

/** Bytes of the batches of a run that end below `limitOffset`. */
function readableBytes(run: Run, limitOffset: number): number {
  if (run.nextOffset <= limitOffset) return run.sizeBytes;
  if (run.baseOffset >= limitOffset) return 0;
  const { buffer } = run.slab;
  let at = run.position;
  while (batchBaseOffset(buffer, at) < limitOffset && batchLastOffset(buffer, at) < limitOffset) {
    at += batchSizeBytes(buffer, at);
  }
  return at - run.position;
}

/** The bytes of runs in order, neighbours in a slab as one piece. */
export function piecesOf(runs: readonly Run[]): Buffer[] {
  const pieces: Buffer[] = [];
  for (let index = 0; index < runs.length; ) {
    const { slab, position } = runs[index];
    let end = position;
    for (; index < runs.length && runs[index].slab === slab && runs[index].position === end; index++) {
      end += runs[index].sizeBytes;
    }
    pieces.push(slab.buffer.subarray(position, end));
  }
  return pieces;
}

class MemorySlice implements LogSlice {
  readonly #cache: TailCache;
  readonly chunks: Buffer[] = [];
  readonly #held: Slab[] = [];
  sizeBytes = 0;
  #isReleased = false;

  constructor(cache: TailCache) {
    this.#cache = cache;
  }

  add(slab: Slab, bytes: Buffer): void {
    this.#cache.hold(slab);
    this.#held.push(slab);
    this.chunks.push(bytes);
    this.sizeBytes += bytes.length;
  }

  release(): void {
    if (this.#isReleased) return;
    this.#isReleased = true;
    for (const slab of this.#held) this.#cache.letGo(slab);
  }
}
