/** Offsets in the order in which they were put in, 8 bytes each, in blocks that are freed as they are emptied. */
const BLOCK = 4096;

export class OffsetFifo {
  #blocks: Float64Array[] = [];
  #first = 0;
  #end = 0;

  get count(): number {
    return this.#end - this.#first;
  }

  /** The one that was put in first; only if there is one. */
  get top(): number {
    return this.#blocks[0][this.#first];
  }

  push(offset: number): void {
    const block = Math.floor(this.#end / BLOCK);
    if (block === this.#blocks.length) this.#blocks.push(new Float64Array(BLOCK));
    this.#blocks[block][this.#end++ % BLOCK] = offset;
  }

  shift(): number {
    const offset = this.#blocks[0][this.#first++];
    if (this.#first === BLOCK) {
      this.#blocks.shift();
      this.#first = 0;
      this.#end -= BLOCK;
    }
    return offset;
  }

  clear(): void {
    this.#blocks = [];
    this.#first = 0;
    this.#end = 0;
  }
}
