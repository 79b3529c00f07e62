/**
 * Heaps of offsets in typed arrays. `OffsetHeap`: lowest offset first, 8 bytes each. `DelayHeap`: soonest time first, then
 * lowest offset, 16 bytes each. Both have four children a node, so that a million entries are ten levels deep. Entries that
 * have become void are not looked for: whoever takes one out asks whether it still holds.
 */
const SMALLEST = 16;

export class OffsetHeap {
  #offsets = new Float64Array(SMALLEST);
  #count = 0;

  get count(): number {
    return this.#count;
  }

  /** The lowest; only if there is one. */
  get top(): number {
    return this.#offsets[0];
  }

  push(offset: number): void {
    if (this.#count === this.#offsets.length) this.#offsets = grown(this.#offsets);
    const offsets = this.#offsets;
    let at = this.#count++;
    while (at > 0) {
      const parent = (at - 1) >> 2;
      if (offsets[parent] <= offset) break;
      offsets[at] = offsets[parent];
      at = parent;
    }
    offsets[at] = offset;
  }

  /** Takes the lowest out. */
  pop(): number {
    const offsets = this.#offsets;
    const top = offsets[0];
    const count = --this.#count;
    const last = offsets[count];
    let at = 0;
    for (;;) {
      const first = 4 * at + 1;
      if (first >= count) break;
      let best = first;
      const end = first + 4 < count ? first + 4 : count;
      for (let child = first + 1; child < end; child++) if (offsets[child] < offsets[best]) best = child;
      if (offsets[best] >= last) break;
      offsets[at] = offsets[best];
      at = best;
    }
    offsets[at] = last;
    if (count === 0 && offsets.length > 1024) this.clear();
    return top;
  }

  clear(): void {
    this.#offsets = new Float64Array(SMALLEST);
    this.#count = 0;
  }
}

export class DelayHeap {
  /** Time and offset of each entry side by side. */
  #entries = new Float64Array(SMALLEST);
  #count = 0;

  get count(): number {
    return this.#count;
  }

  /** Infinity if there is none. */
  get nextMs(): number {
    return this.#count === 0 ? Number.POSITIVE_INFINITY : this.#entries[0];
  }

  /** Offset of the soonest; only if there is one. */
  get top(): number {
    return this.#entries[1];
  }

  push(atMs: number, offset: number): void {
    if (2 * this.#count === this.#entries.length) this.#entries = grown(this.#entries);
    const entries = this.#entries;
    let at = this.#count++;
    while (at > 0) {
      const parent = (at - 1) >> 2;
      if (isBefore(entries, parent, atMs, offset)) break;
      entries[2 * at] = entries[2 * parent];
      entries[2 * at + 1] = entries[2 * parent + 1];
      at = parent;
    }
    entries[2 * at] = atMs;
    entries[2 * at + 1] = offset;
  }

  /** Takes the soonest out and answers its offset. */
  pop(): number {
    const entries = this.#entries;
    const top = entries[1];
    const count = --this.#count;
    const lastMs = entries[2 * count];
    const last = entries[2 * count + 1];
    let at = 0;
    for (;;) {
      const first = 4 * at + 1;
      if (first >= count) break;
      let best = first;
      const end = first + 4 < count ? first + 4 : count;
      for (let child = first + 1; child < end; child++) {
        if (!isBefore(entries, best, entries[2 * child], entries[2 * child + 1])) best = child;
      }
      if (!isBefore(entries, best, lastMs, last)) break;
      entries[2 * at] = entries[2 * best];
      entries[2 * at + 1] = entries[2 * best + 1];
      at = best;
    }
    entries[2 * at] = lastMs;
    entries[2 * at + 1] = last;
    if (count === 0 && entries.length > 1024) this.clear();
    return top;
  }

  /** Drops the entries that do not hold any more. */
  retain(isKept: (offset: number) => boolean): void {
    const old = this.#entries;
    const count = this.#count;
    this.clear();
    for (let at = 0; at < count; at++) if (isKept(old[2 * at + 1])) this.push(old[2 * at], old[2 * at + 1]);
  }

  clear(): void {
    this.#entries = new Float64Array(SMALLEST);
    this.#count = 0;
  }
}

/** True if entry `index` comes before (or is) the other. */
function isBefore(entries: Float64Array, index: number, atMs: number, offset: number): boolean {
  const entryMs = entries[2 * index];
  return entryMs < atMs || (entryMs === atMs && entries[2 * index + 1] <= offset);
}

function grown(array: Float64Array): Float64Array<ArrayBuffer> {
  const larger = new Float64Array(array.length * 2);
  larger.set(array);
  return larger;
}
