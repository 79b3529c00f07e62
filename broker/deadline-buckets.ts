/**
 * The deadline of each of many rows, which mostly come in bunches: rows with the same deadline hang on one bucket, and a
 * heap orders the buckets, not the rows. Setting and moving cost the same however many rows there are. 12 bytes a row, 24 a
 * bucket. Infinity is no deadline.
 */
const SMALLEST = 16;

export class DeadlineBuckets {
  /** Of each row: its bucket (0: none) and its neighbours in it. */
  #bucketOf: Uint32Array;
  #previous: Uint32Array;
  #next: Uint32Array;

  #times = new Float64Array(SMALLEST);
  #firstRow = new Uint32Array(SMALLEST);
  /** Where in the heap the bucket is; of a free bucket the next free one. */
  #place = new Uint32Array(SMALLEST);
  #heap = new Uint32Array(SMALLEST);
  #heapCount = 0;
  #usedBuckets = 1;
  #freeBucket = 0;
  /** The bucket that took the last row: the next one usually has the same deadline. */
  #latest = 0;

  constructor(rowCapacity: number) {
    this.#bucketOf = new Uint32Array(rowCapacity);
    this.#previous = new Uint32Array(rowCapacity);
    this.#next = new Uint32Array(rowCapacity);
  }

  get sizeBytes(): number {
    return this.#bucketOf.length * 12 + this.#times.length * 20;
  }

  /** The soonest deadline, infinity if there is none. */
  get nextMs(): number {
    return this.#heapCount === 0 ? Number.POSITIVE_INFINITY : this.#times[this.#heap[0]];
  }

  /** A row with the soonest deadline; only if there is one. */
  get first(): number {
    return this.#firstRow[this.#heap[0]];
  }

  get(row: number): number {
    const bucket = this.#bucketOf[row];
    return bucket === 0 ? Number.POSITIVE_INFINITY : this.#times[bucket];
  }

  set(row: number, atMs: number): void {
    const old = this.#bucketOf[row];
    if (old !== 0) {
      if (this.#times[old] === atMs) return;
      this.#unlink(row, old);
    }
    if (atMs === Number.POSITIVE_INFINITY) return;
    const latest = this.#latest;
    const bucket = latest !== 0 && this.#times[latest] === atMs ? latest : this.#addBucket(atMs);
    this.#latest = bucket;
    const first = this.#firstRow[bucket];
    this.#bucketOf[row] = bucket;
    this.#previous[row] = 0;
    this.#next[row] = first;
    if (first !== 0) this.#previous[first] = row;
    this.#firstRow[bucket] = row;
  }

  grow(rowCapacity: number): void {
    this.#bucketOf = larger(this.#bucketOf, rowCapacity);
    this.#previous = larger(this.#previous, rowCapacity);
    this.#next = larger(this.#next, rowCapacity);
  }

  #unlink(row: number, bucket: number): void {
    const previous = this.#previous[row];
    const next = this.#next[row];
    this.#bucketOf[row] = 0;
    if (next !== 0) this.#previous[next] = previous;
    if (previous !== 0) this.#next[previous] = next;
    else {
      this.#firstRow[bucket] = next;
      if (next === 0) this.#removeBucket(bucket);
    }
  }

  #addBucket(atMs: number): number {
    let bucket = this.#freeBucket;
    if (bucket !== 0) this.#freeBucket = this.#place[bucket];
    else {
      if (this.#usedBuckets === this.#times.length) {
        const size = this.#times.length * 2;
        const times = new Float64Array(size);
        times.set(this.#times);
        this.#times = times;
        this.#firstRow = larger(this.#firstRow, size);
        this.#place = larger(this.#place, size);
        this.#heap = larger(this.#heap, size);
      }
      bucket = this.#usedBuckets++;
    }
    this.#times[bucket] = atMs;
    this.#firstRow[bucket] = 0;
    this.#rise(this.#heapCount++, bucket);
    return bucket;
  }

  #removeBucket(bucket: number): void {
    const place = this.#place[bucket];
    const last = this.#heap[--this.#heapCount];
    if (last !== bucket) {
      if (place > 0 && this.#times[this.#heap[(place - 1) >> 1]] > this.#times[last]) this.#rise(place, last);
      else this.#sink(place, last);
    }
    this.#place[bucket] = this.#freeBucket;
    this.#freeBucket = bucket;
    if (this.#latest === bucket) this.#latest = 0;
  }

  #rise(place: number, bucket: number): void {
    const atMs = this.#times[bucket];
    let at = place;
    while (at > 0) {
      const parent = (at - 1) >> 1;
      const above = this.#heap[parent];
      if (this.#times[above] <= atMs) break;
      this.#heap[at] = above;
      this.#place[above] = at;
      at = parent;
    }
    this.#heap[at] = bucket;
    this.#place[bucket] = at;
  }

  #sink(place: number, bucket: number): void {
    const atMs = this.#times[bucket];
    let at = place;
    for (;;) {
      let child = 2 * at + 1;
      if (child >= this.#heapCount) break;
      if (child + 1 < this.#heapCount && this.#times[this.#heap[child + 1]] < this.#times[this.#heap[child]]) child++;
      const below = this.#heap[child];
      if (this.#times[below] >= atMs) break;
      this.#heap[at] = below;
      this.#place[below] = at;
      at = child;
    }
    this.#heap[at] = bucket;
    this.#place[bucket] = at;
  }
}

function larger(array: Uint32Array, size: number): Uint32Array<ArrayBuffer> {
  const copy = new Uint32Array(size);
  copy.set(array);
  return copy;
}
