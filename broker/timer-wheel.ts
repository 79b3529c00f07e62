/**
 * Many items, each with one time at which it must be looked at, moved often and seldom reached: a hierarchical timer
 * wheel. Setting, moving and deleting cost the same however many there are.
 *
 * Six wheels of 64 slots: a slot of the first is a millisecond, of each other as long as one turn of the wheel before it;
 * 64⁶ ms are two years, beyond that an item waits in the last slot. An item is in the first wheel that its time fits
 * into, seen from where the wheels stand; as they turn, a slot of a slower wheel is spread over the faster ones.
 */
const SLOT_BITS = 6;
const SLOTS = 1 << SLOT_BITS;
const LEVELS = 6;

interface Entry<Item> {
  readonly item: Item;
  atMs: number;
  slot: Slot<Item>;
}

interface Slot<Item> {
  readonly level: number;
  readonly index: number;
  readonly entries: Set<Entry<Item>>;
}

export class TimerWheel<Item> {
  readonly #entries = new Map<Item, Entry<Item>>();
  readonly #slots: Slot<Item>[] = Array.from({ length: LEVELS * SLOTS }, (_, at) => ({
    level: Math.floor(at / SLOTS),
    index: at % SLOTS,
    entries: new Set<Entry<Item>>(),
  }));
  /** How many entries each level has. */
  readonly #counts: number[] = new Array<number>(LEVELS).fill(0);
  /** Every item that was due before this was given out or is in `#due`. Undefined before the first item. */
  #standsAtMs: number | undefined;
  /** Reached, not taken out yet. */
  readonly #due: Slot<Item> = { level: -1, index: 0, entries: new Set() };

  get count(): number {
    return this.#entries.size;
  }

  /** Not later than the soonest time, for the one timer that serves all; infinity if there is none. */
  get nextMs(): number {
    const standsAtMs = this.#standsAtMs;
    if (standsAtMs === undefined || this.#entries.size === 0) return Number.POSITIVE_INFINITY;
    // Nothing is in a slot before where the wheels stand.
    let soonest = this.#due.entries.size > 0 ? standsAtMs : this.#nextSlotMs(standsAtMs);
    for (const { atMs } of this.#due.entries) soonest = Math.min(soonest, atMs);
    return soonest;
  }

  /** Sets or moves the time of an item. Infinity deletes. */
  set(item: Item, atMs: number): void {
    const entry = this.#entries.get(item);
    if (entry !== undefined) {
      if (entry.atMs === atMs) return;
      this.#unlink(entry);
    }
    if (atMs === Number.POSITIVE_INFINITY) {
      this.#entries.delete(item);
      return;
    }
    const whole = Math.ceil(atMs);
    // Other items may be due sooner than the first.
    this.#standsAtMs ??= Math.max(0, whole - SLOTS ** (LEVELS - 1));
    if (entry === undefined) {
      const added: Entry<Item> = { item, atMs, slot: this.#due };
      this.#entries.set(item, added);
      this.#link(added, this.#slotFor(whole));
      return;
    }
    entry.atMs = atMs;
    this.#link(entry, this.#slotFor(whole));
  }

  delete(item: Item): void {
    this.set(item, Number.POSITIVE_INFINITY);
  }

  /** Takes out an item whose time is not after `nowMs`, roughly the soonest first; undefined if there is none. */
  takeDue(nowMs: number): Item | undefined {
    this.#turn(nowMs);
    for (const entry of this.#due.entries) {
      // The clock may have been set back since it was reached.
      if (entry.atMs > nowMs) continue;
      this.#unlink(entry);
      this.#entries.delete(entry.item);
      return entry.item;
    }
    return undefined;
  }

  /** Moves on to `nowMs`: what is reached becomes due, slots of slower wheels are spread. */
  #turn(nowMs: number): void {
    let standsAtMs = this.#standsAtMs;
    if (standsAtMs === undefined) return;
    const target = Math.floor(nowMs) + 1;
    while (standsAtMs < target) {
      const nextMs = this.#nextSlotMs(standsAtMs);
      if (nextMs >= target) {
        this.#standsAtMs = target;
        return;
      }
      standsAtMs = nextMs + 1;
      this.#standsAtMs = standsAtMs;
      this.#openSlots(nextMs);
    }
  }

  /** Everything in slots that begin or are at `atMs` goes where it belongs now. */
  #openSlots(atMs: number): void {
    for (let level = LEVELS - 1; level >= 0; level--) {
      if (this.#counts[level] === 0) continue;
      const slot = this.#slots[level * SLOTS + (Math.floor(atMs / SLOTS ** level) % SLOTS)];
      for (const entry of slot.entries) {
        const wholeMs = Math.ceil(entry.atMs);
        this.#unlink(entry);
        this.#link(entry, this.#slotFor(wholeMs));
      }
    }
  }

  /** The first time at or after `fromMs` at which a slot with entries begins. */
  #nextSlotMs(fromMs: number): number {
    let soonest = Number.POSITIVE_INFINITY;
    for (let level = 0; level < LEVELS; level++) {
      if (this.#counts[level] === 0) continue;
      const slotMs = SLOTS ** level;
      const first = Math.floor(fromMs / slotMs);
      for (let step = 0; step <= SLOTS; step++) {
        const startMs = Math.max(fromMs, (first + step) * slotMs);
        if (startMs >= soonest) break;
        if (this.#slots[level * SLOTS + ((first + step) % SLOTS)].entries.size > 0) {
          soonest = startMs;
          break;
        }
      }
    }
    return soonest;
  }

  #slotFor(atMs: number): Slot<Item> {
    const standsAtMs = this.#standsAtMs ?? atMs;
    if (atMs < standsAtMs) return this.#due;
    let slotMs = 1;
    for (let level = 0; level < LEVELS; level++, slotMs *= SLOTS) {
      const steps = Math.floor(atMs / slotMs) - Math.floor(standsAtMs / slotMs);
      if (steps < SLOTS) return this.#slots[level * SLOTS + (Math.floor(atMs / slotMs) % SLOTS)];
    }
    // Further than the wheels reach: looked at again when its slot comes.
    const last = Math.floor(standsAtMs / (slotMs / SLOTS)) + SLOTS - 1;
    return this.#slots[(LEVELS - 1) * SLOTS + (last % SLOTS)];
  }

  #link(entry: Entry<Item>, slot: Slot<Item>): void {
    entry.slot = slot;
    slot.entries.add(entry);
    if (slot.level >= 0) this.#counts[slot.level]++;
  }

  #unlink(entry: Entry<Item>): void {
    const { slot } = entry;
    slot.entries.delete(entry);
    if (slot.level >= 0) this.#counts[slot.level]--;
  }
}
