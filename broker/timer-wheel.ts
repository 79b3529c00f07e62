/**
 * Many items, each with one time at which it must be looked at, moved often and seldom reached: a hierarchical timer
 * wheel. Setting, moving and deleting cost the same however many there are.
 */
export class TimerWheel<Item> {
  get count(): number {
    throw new Error('not built yet');
  }

  /** Not later than the soonest time, for the one timer that serves all; infinity if there is none. */
  get nextMs(): number {
    throw new Error('not built yet');
  }

  /** Sets or moves the time of an item. Infinity deletes. */
  set(_item: Item, _atMs: number): void {
    throw new Error('not built yet');
  }

  delete(_item: Item): void {
    throw new Error('not built yet');
  }

  /** Takes out an item whose time is not after `nowMs`, soonest first; undefined if there is none. */
  takeDue(_nowMs: number): Item | undefined {
    throw new Error('not built yet');
  }
}
