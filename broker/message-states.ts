/**
 * The state of each message of a range, 2 bits each, in chunks of 16,384. A chunk whose messages are all alike is one of
 * two shared constants, so what was never touched and what is all done cost a pointer; a chunk that is all done vanishes
 * when it is the first. Below the first chunk everything is done, above the last everything is fresh.
 *
 * A word holds 16 messages: message i in bits 2i and 2i + 1.
 */
export type MessageState = 0 | 1 | 2 | 3;
/** Never handed out, and due. */
export const FRESH = 0;
/** In the flight table: in flight, came back, or is leaving. */
export const TRACKED = 1;
export const DONE = 2;
/** Never handed out, and not due yet. */
export const DELAYED = 3;

export const CHUNK_MESSAGES = 16_384;
const CHUNK_WORDS = CHUNK_MESSAGES / 16;
const LOW_BITS = 0x5555_5555;
const ALL_FRESH = new Uint32Array(CHUNK_WORDS);
const ALL_DONE = new Uint32Array(CHUNK_WORDS).fill(0xaaaa_aaaa);

export class MessageStates {
  #chunks: Uint32Array[] = [];
  /** How many messages of the chunk are done. */
  #doneCounts: number[] = [];
  /** Number of the first chunk: its first offset divided by the chunk's size. */
  #firstChunk: number;

  /** Everything below `startOffset` is done, everything else fresh. */
  constructor(startOffset: number) {
    this.#firstChunk = Math.floor(startOffset / CHUNK_MESSAGES);
    this.setRange(this.#firstChunk * CHUNK_MESSAGES, startOffset, DONE);
  }

  /** Offset below which everything is done because it has no chunk any more. */
  get floorOffset(): number {
    return this.#firstChunk * CHUNK_MESSAGES;
  }

  /** Memory of the chunks that are not constants. */
  get sizeBytes(): number {
    let count = 0;
    for (const chunk of this.#chunks) if (chunk !== ALL_FRESH && chunk !== ALL_DONE) count++;
    return count * CHUNK_WORDS * 4;
  }

  get(offset: number): MessageState {
    const index = Math.floor(offset / CHUNK_MESSAGES) - this.#firstChunk;
    if (index < 0) return DONE;
    if (index >= this.#chunks.length) return FRESH;
    const at = offset % CHUNK_MESSAGES;
    // The mask leaves one of the four.
    return ((this.#chunks[index][at >>> 4] >>> ((at & 15) << 1)) & 3) as MessageState;
  }

  set(offset: number, state: MessageState): void {
    const index = this.#chunkIndex(offset);
    let chunk = this.#chunks[index];
    if (chunk === ALL_FRESH || chunk === ALL_DONE) chunk = this.#chunks[index] = chunk.slice();
    const at = offset % CHUNK_MESSAGES;
    const word = chunk[at >>> 4];
    const shift = (at & 15) << 1;
    const old = (word >>> shift) & 3;
    if (old === state) return;
    chunk[at >>> 4] = (word & ~(3 << shift)) | (state << shift);
    if (state === DONE) {
      if (++this.#doneCounts[index] === CHUNK_MESSAGES) this.#chunks[index] = ALL_DONE;
    } else if (old === DONE) this.#doneCounts[index]--;
  }

  setRange(offset: number, endOffset: number, state: MessageState): void {
    let at = offset;
    while (at < endOffset) {
      const index = this.#chunkIndex(at);
      const first = at % CHUNK_MESSAGES;
      const end = Math.min(CHUNK_MESSAGES, first + (endOffset - at));
      if (first === 0 && end === CHUNK_MESSAGES && (state === DONE || state === FRESH)) {
        this.#chunks[index] = state === DONE ? ALL_DONE : ALL_FRESH;
        this.#doneCounts[index] = state === DONE ? CHUNK_MESSAGES : 0;
      } else this.#fill(index, first, end, state);
      at += end - first;
    }
  }

  #fill(index: number, first: number, end: number, state: MessageState): void {
    let chunk = this.#chunks[index];
    if (chunk === ALL_FRESH || chunk === ALL_DONE) chunk = this.#chunks[index] = chunk.slice();
    const pattern = state * LOW_BITS;
    let done = this.#doneCounts[index];
    for (let at = first; at < end; ) {
      const bit = at & 15;
      const count = Math.min(16 - bit, end - at);
      const mask = count === 16 ? -1 : ((1 << (count << 1)) - 1) << (bit << 1);
      const word = chunk[at >>> 4];
      if (state === DONE) done += count - countBits((word >>> 1) & ~word & LOW_BITS & mask);
      else done -= countBits((word >>> 1) & ~word & LOW_BITS & mask);
      chunk[at >>> 4] = (word & ~mask) | (pattern & mask);
      at += count;
    }
    this.#doneCounts[index] = done;
    if (done === CHUNK_MESSAGES) this.#chunks[index] = ALL_DONE;
  }

  /** The first message at or above `offset` in this state; `endOffset` if there is none below it. */
  next(state: MessageState, offset: number, endOffset: number): number {
    return this.#search(state, false, offset, endOffset);
  }

  /** The first message at or above `offset` in another state; `endOffset` if there is none below it. */
  nextNot(state: MessageState, offset: number, endOffset: number): number {
    return this.#search(state, true, offset, endOffset);
  }

  #search(state: MessageState, isInverse: boolean, offset: number, endOffset: number): number {
    let at = offset;
    const floor = this.floorOffset;
    if (at < floor) {
      if ((state === DONE) !== isInverse) return Math.min(at, endOffset);
      at = floor;
    }
    while (at < endOffset) {
      const index = Math.floor(at / CHUNK_MESSAGES) - this.#firstChunk;
      if (index >= this.#chunks.length) return (state === FRESH) !== isInverse ? at : endOffset;
      const chunk = this.#chunks[index];
      const base = at - (at % CHUNK_MESSAGES);
      if (chunk === ALL_FRESH || chunk === ALL_DONE) {
        const isMatch = state === (chunk === ALL_FRESH ? FRESH : DONE);
        if (isMatch !== isInverse) return at;
      } else {
        let word = (at - base) >>> 4;
        let bits = matching(chunk[word], state, isInverse) & (-1 << ((at & 15) << 1));
        while (bits === 0 && ++word < CHUNK_WORDS) bits = matching(chunk[word], state, isInverse);
        if (bits !== 0) return Math.min(endOffset, base + word * 16 + ((31 - Math.clz32(bits & -bits)) >>> 1));
      }
      at = base + CHUNK_MESSAGES;
    }
    return endOffset;
  }

  /** How many messages are done from `offset` up to `endOffset`. */
  countDone(offset: number, endOffset: number): number {
    let at = offset;
    let count = 0;
    if (at < this.floorOffset) {
      const end = Math.min(this.floorOffset, endOffset);
      count = end - at;
      at = end;
    }
    while (at < endOffset) {
      const index = Math.floor(at / CHUNK_MESSAGES) - this.#firstChunk;
      if (index >= this.#chunks.length) break;
      const base = at - (at % CHUNK_MESSAGES);
      const first = at - base;
      const end = Math.min(CHUNK_MESSAGES, endOffset - base);
      if (end - first === CHUNK_MESSAGES) count += this.#doneCounts[index];
      else {
        const chunk = this.#chunks[index];
        for (let i = first; i < end; i++) if (((chunk[i >>> 4] >>> ((i & 15) << 1)) & 3) === DONE) count++;
      }
      at = base + CHUNK_MESSAGES;
    }
    return count;
  }

  /** Frees the chunks that lie below `offset`, which are all done. */
  dropBelow(offset: number): void {
    const count = Math.min(Math.floor(offset / CHUNK_MESSAGES) - this.#firstChunk, this.#chunks.length);
    if (count > 0) {
      this.#chunks.splice(0, count);
      this.#doneCounts.splice(0, count);
      this.#firstChunk += count;
    }
    if (this.#chunks.length === 0) this.#firstChunk = Math.max(this.#firstChunk, Math.floor(offset / CHUNK_MESSAGES));
    else return;
    this.setRange(this.#firstChunk * CHUNK_MESSAGES, offset, DONE);
  }

  /** Chunks from `offset` down to the floor come back, all done, so that messages there can change again. */
  lowerFloor(offset: number): void {
    const target = Math.floor(offset / CHUNK_MESSAGES);
    const count = this.#firstChunk - target;
    if (count <= 0) return;
    this.#chunks = [...Array.from({ length: count }, () => ALL_DONE), ...this.#chunks];
    this.#doneCounts = [...Array.from({ length: count }, () => CHUNK_MESSAGES), ...this.#doneCounts];
    this.#firstChunk = target;
  }

  /** Which messages of the chunk that begins at `offset` are done: `all`, `none`, or a bit each, lowest first. */
  doneBits(offset: number): 'all' | 'none' | Uint8Array {
    const index = Math.floor(offset / CHUNK_MESSAGES) - this.#firstChunk;
    if (index < 0) return 'all';
    if (index >= this.#chunks.length || this.#doneCounts[index] === 0) return 'none';
    if (this.#doneCounts[index] === CHUNK_MESSAGES) return 'all';
    const chunk = this.#chunks[index];
    const bits = new Uint8Array(CHUNK_MESSAGES / 8);
    for (let i = 0; i < CHUNK_MESSAGES; i++) {
      if (((chunk[i >>> 4] >>> ((i & 15) << 1)) & 3) === DONE) bits[i >>> 3] |= 1 << (i & 7);
    }
    return bits;
  }

  #chunkIndex(offset: number): number {
    const index = Math.floor(offset / CHUNK_MESSAGES) - this.#firstChunk;
    while (this.#chunks.length <= index) {
      this.#chunks.push(ALL_FRESH);
      this.#doneCounts.push(0);
    }
    return index;
  }
}

/** The lower bit of each pair of `word` that is (not) in this state. */
function matching(word: number, state: MessageState, isInverse: boolean): number {
  const low = state & 1 ? word : ~word;
  const high = state & 2 ? word >>> 1 : ~(word >>> 1);
  const bits = low & high;
  return (isInverse ? ~bits : bits) & LOW_BITS;
}

function countBits(word: number): number {
  let bits = word - ((word >>> 1) & 0x5555_5555);
  bits = (bits & 0x3333_3333) + ((bits >>> 2) & 0x3333_3333);
  return Math.imul((bits + (bits >>> 4)) & 0x0f0f_0f0f, 0x0101_0101) >>> 24;
}
