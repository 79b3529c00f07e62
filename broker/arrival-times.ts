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
    let low = 0;
    let high = this.#offsets.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (this.#offsets[middle] <= offset) low = middle + 1;
      else high = middle;
    }
    return low === 0 ? undefined : this.#times[low - 1];
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
