/**
 * The messages of a channel that wait for their ack, by delivery tag. Tags rise by one, and so do mostly the offsets behind
 * them: messages are kept in runs, and which of a run are acked already in bits, made when somebody acks out of order.
 *
 * Always true: a run holds neighbouring tags with neighbouring offsets of one partition, 1024 at most; runs are in the order
 * of tags; every tag below the `low` of its run is acked, `low` itself is not.
 */

const RUN_TAGS_MAX = 1024;
/** Runs that are done at the front are dropped so many at once. */
const DROP_RUNS = 64;

interface Run<H> {
  readonly holder: H;
  readonly firstTag: number;
  readonly firstOffset: number;
  count: number;
  /** The first tag that is not acked; `firstTag + count` if all are. */
  low: number;
  /** Of tags above `low`, by their number in the run. */
  acked: Uint32Array | undefined;
}

export class Unacked<H> {
  #runs: Run<H>[] = [];
  /** Index of the first run that is not done. */
  #first = 0;
  #size = 0;

  /** Messages that wait. */
  get size(): number {
    return this.#size;
  }

  /** `tag` is larger than all before. */
  add(tag: number, holder: H, offset: number): void {
    this.#size++;
    const last = this.#runs.at(-1);
    if (
      last !== undefined &&
      last.holder === holder &&
      last.count < RUN_TAGS_MAX &&
      last.firstTag + last.count === tag &&
      last.firstOffset + last.count === offset
    ) {
      last.count++;
      return;
    }
    this.#runs.push({ holder, firstTag: tag, firstOffset: offset, count: 1, low: tag, acked: undefined });
  }

  has(tag: number): boolean {
    const run = this.#find(tag);
    return run !== undefined && !isAcked(run, tag);
  }

  /** Calls `visit` with the message of this tag, which waits no more. False: it did not wait. */
  take(tag: number, visit: (holder: H, firstOffset: number, lastOffset: number) => void): boolean {
    const run = this.#find(tag);
    if (run === undefined || isAcked(run, tag)) return false;
    const { firstTag, firstOffset, holder } = run;
    if (tag === run.low) passAcked(run, tag + 1);
    else {
      run.acked ??= new Uint32Array(RUN_TAGS_MAX / 32);
      const number = tag - firstTag;
      run.acked[number >>> 5] |= 1 << (number & 31);
    }
    this.#size--;
    this.#dropDone();
    const offset = firstOffset + (tag - firstTag);
    visit(holder, offset, offset);
    return true;
  }

  /** The same for all tags up to this one, in runs and in their order. */
  takeTo(lastTag: number, visit: (holder: H, firstOffset: number, lastOffset: number) => void): void {
    for (let index = this.#first; index < this.#runs.length; index++) {
      const run = this.#runs[index];
      if (run.firstTag > lastTag) break;
      const { holder, firstTag, firstOffset } = run;
      const end = Math.min(lastTag + 1, firstTag + run.count);
      while (run.low < end) {
        const from = run.low;
        let to = run.acked === undefined ? end : from + 1;
        while (to < end && !isAcked(run, to)) to++;
        passAcked(run, to);
        this.#size -= to - from;
        visit(holder, firstOffset + (from - firstTag), firstOffset + (to - 1 - firstTag));
      }
    }
    this.#dropDone();
  }

  /** The lowest tag that waits of each run. */
  *lowest(): Iterable<{ readonly holder: H; readonly tag: number }> {
    for (let index = this.#first; index < this.#runs.length; index++) {
      const { holder, firstTag, count, low } = this.#runs[index];
      if (low < firstTag + count) yield { holder, tag: low };
    }
  }

  clear(): void {
    this.#runs = [];
    this.#first = 0;
    this.#size = 0;
  }

  #find(tag: number): Run<H> | undefined {
    const runs = this.#runs;
    let low = this.#first;
    let high = runs.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (runs[middle].firstTag + runs[middle].count <= tag) low = middle + 1;
      else high = middle;
    }
    const run = runs[low];
    return run !== undefined && run.firstTag <= tag ? run : undefined;
  }

  #dropDone(): void {
    const runs = this.#runs;
    while (
      this.#first < runs.length &&
      runs[this.#first].low === runs[this.#first].firstTag + runs[this.#first].count
    ) {
      this.#first++;
    }
    if (this.#first < DROP_RUNS && this.#first < runs.length) return;
    // Less than half of them is done: moving the others would cost more than it frees.
    if (this.#first * 2 < runs.length) return;
    runs.splice(0, this.#first);
    this.#first = 0;
  }
}

function isAcked<H>({ acked, firstTag, low }: Run<H>, tag: number): boolean {
  if (tag < low) return true;
  const number = tag - firstTag;
  return acked !== undefined && (acked[number >>> 5] & (1 << (number & 31))) !== 0;
}

/** `from` and what is acked after it is behind us. */
function passAcked<H>(run: Run<H>, from: number): void {
  run.low = from;
  const end = run.firstTag + run.count;
  if (run.acked !== undefined) while (run.low < end && isAcked(run, run.low)) run.low++;
}
