/** When messages were appended, for what a queue counts from then on: 16 bytes for each time, not for each message. */
export class ArrivalTimes {
  #offsets: number[] = [];
  #times: number[] = [];

  /** What follows from `offset` on was appended then. Offsets rise. */
  add(offset: number, atMs: number): void {
    if (this.#times.at(-1) === atMs) return;
    this.#offsets.push(offset);
    this.#times.push(atMs);
  }

  /** Undefined: not known any more, or never was. */
  at(offset: number): number | undefined {
    const above = this.#above(offset);
    return above === 0 ? undefined : this.#times[above - 1];
  }

  /** Index of the first time of what begins above `offset`. */
  #above(offset: number): number {
    let low = 0;
    let high = this.#offsets.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (this.#offsets[middle] <= offset) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  /** The times of what lies from `offset` up to `endOffset`, in order; what is not known is left out. */
  *between(offset: number, endOffset: number): Iterable<{ offset: number; endOffset: number; atMs: number }> {
    for (let index = Math.max(0, this.#above(offset) - 1); index < this.#offsets.length; index++) {
      const from = Math.max(offset, this.#offsets[index]);
      const end = Math.min(endOffset, this.#offsets[index + 1] ?? endOffset);
      if (from >= endOffset) return;
      if (from < end) yield { offset: from, endOffset: end, atMs: this.#times[index] };
    }
  }

  /** Forgets what is below `offset`, in larger pieces. */
  trim(offset: number): void {
    let gone = 0;
    while (gone + 1 < this.#offsets.length && this.#offsets[gone + 1] <= offset) gone++;
    if (gone * 2 < this.#offsets.length && gone < 1000) return;
    this.#offsets.splice(0, gone);
    this.#times.splice(0, gone);
  }

  clear(): void {
    this.#offsets = [];
    this.#times = [];
  }
}
