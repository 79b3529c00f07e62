/** Who waits for a log to grow beyond an offset. */
interface Waiter {
  readonly offset: number;
  readonly callback: () => void;
}

export class OffsetWaiters {
  readonly #waiting = new Set<Waiter>();

  /** `callback` is called once, by `wake`. Answers what withdraws it. */
  add(offset: number, callback: () => void): () => void {
    const waiter: Waiter = { offset, callback };
    this.#waiting.add(waiter);
    return () => {
      this.#waiting.delete(waiter);
    };
  }

  /** Calls all who wait for an offset below `endOffset`. */
  wake(endOffset: number): void {
    for (const waiter of this.#waiting) {
      if (waiter.offset >= endOffset) continue;
      this.#waiting.delete(waiter);
      waiter.callback();
    }
  }
}
