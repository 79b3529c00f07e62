/**
 * Things that must be looked at by a certain time, soonest first: a binary heap. One timer serves all of them.
 * An item may be in it several times; whoever takes it out asks whether it is still due.
 */
export class Deadlines<Item> {
  #heap: { readonly atMs: number; readonly item: Item }[] = [];

  get count(): number {
    return this.#heap.length;
  }

  /** The soonest deadline, infinity if there is none. */
  get nextMs(): number {
    return this.#heap.length === 0 ? Number.POSITIVE_INFINITY : this.#heap[0].atMs;
  }

  add(atMs: number, item: Item): void {
    const heap = this.#heap;
    const entry = { atMs, item };
    let at = heap.length;
    heap.push(entry);
    while (at > 0) {
      const parent = (at - 1) >> 1;
      if (heap[parent].atMs <= atMs) break;
      heap[at] = heap[parent];
      at = parent;
    }
    heap[at] = entry;
  }

  /** Takes out the soonest if its deadline is not after `nowMs`. */
  takeDue(nowMs: number): { readonly atMs: number; readonly item: Item } | undefined {
    const heap = this.#heap;
    const first = heap[0];
    if (first === undefined || first.atMs > nowMs) return undefined;
    const last = heap.pop();
    if (last !== undefined && heap.length > 0) this.#sink(last);
    return first;
  }

  /** Drops everything for which `isCurrent` does not hold. */
  prune(isCurrent: (item: Item, atMs: number) => boolean): void {
    const kept = this.#heap.filter(({ item, atMs }) => isCurrent(item, atMs));
    this.#heap = [];
    for (const { atMs, item } of kept) this.add(atMs, item);
  }

  #sink(entry: { readonly atMs: number; readonly item: Item }): void {
    const heap = this.#heap;
    let at = 0;
    for (;;) {
      let child = 2 * at + 1;
      if (child >= heap.length) break;
      if (child + 1 < heap.length && heap[child + 1].atMs < heap[child].atMs) child++;
      if (heap[child].atMs >= entry.atMs) break;
      heap[at] = heap[child];
      at = child;
    }
    heap[at] = entry;
  }
}
