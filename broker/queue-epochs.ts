/**
 * Which ranges of a queue were replayed: their epoch, which makes delivery handles of before void, and the time, from which
 * their TTL counts. A later replay wins where ranges overlap. Replays are rare: a sorted list.
 */
export interface EpochRange {
  readonly offset: number;
  readonly endOffset: number;
  readonly epoch: number;
  readonly atMs: number;
}

/** Beyond, the two lowest become one, with the gap between them: handles of what lies there become void for nothing. */
const RANGES_MAX = 1000;

export class QueueEpochs {
  #ranges: EpochRange[] = [];
  #base = 0;
  #newest = 0;

  /** Epoch of what was never replayed. */
  get base(): number {
    return this.#base;
  }
  /** The highest that was ever given. */
  get newest(): number {
    return this.#newest;
  }
  get ranges(): readonly EpochRange[] {
    return this.#ranges;
  }

  at(offset: number): number {
    return this.find(offset)?.epoch ?? this.#base;
  }

  find(offset: number): EpochRange | undefined {
    const ranges = this.#ranges;
    let low = 0;
    let high = ranges.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (ranges[middle].endOffset <= offset) low = middle + 1;
      else high = middle;
    }
    const range = ranges[low];
    return range !== undefined && range.offset <= offset ? range : undefined;
  }

  add(added: EpochRange): void {
    const ranges: EpochRange[] = [];
    for (const range of this.#ranges) {
      if (range.endOffset <= added.offset || range.offset >= added.endOffset) {
        ranges.push(range);
        continue;
      }
      if (range.offset < added.offset) ranges.push({ ...range, endOffset: added.offset });
      if (range.endOffset > added.endOffset) ranges.push({ ...range, offset: added.endOffset });
    }
    ranges.push(added);
    ranges.sort((a, b) => a.offset - b.offset);
    if (ranges.length > RANGES_MAX) {
      const [first, second] = ranges;
      const newer = first.epoch > second.epoch ? first : second;
      ranges.splice(0, 2, { ...newer, offset: first.offset, endOffset: second.endOffset });
    }
    this.#ranges = ranges;
    this.#newest = Math.max(this.#newest, added.epoch);
  }

  /** Forgets what is below `offset`. */
  trim(offset: number): void {
    if (this.#ranges.length === 0 || this.#ranges[0].offset >= offset) return;
    this.#ranges = this.#ranges
      .filter((range) => range.endOffset > offset)
      .map((range) => (range.offset < offset ? { ...range, offset } : range));
  }

  /** Everything is of epoch `base` now. */
  reset(base: number, newest: number): void {
    this.#ranges = [];
    this.#base = base;
    this.#newest = newest;
  }
}
