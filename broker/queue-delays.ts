/**
 * Which messages of a queue wait for their time, and for how long. A message that is delayed has the state DELAYED; the
 * time of one that says it itself is in the attribute index, which survives a restart, so only what is due soon is held
 * here a second time: in a heap, 16 bytes each. What is further off costs 16 bytes for each block of 1,024 offsets: the
 * soonest time of the block, which is looked through when that comes near (docs/decisions/0034-attributes-outlive-a-restart.md).
 * Delays that the queue gives are not in the index: their messages are always in the heap.
 *
 * Always true: a message in DELAYED is in the heap, in `#due`, or in a block whose `soonestMs` is not after its time;
 * what the heap or a block says of a message in another state is void.
 */
import type { AttributeIndex } from './attribute-index.ts';
import { DELAYED, FRESH, type MessageStates } from './message-states.ts';
import { DelayHeap } from './offset-heap.ts';
import type { QueueEpochs } from './queue-epochs.ts';

const BLOCK_OFFSETS = 1024;
/** Looking through a block counts as so many messages. */
export const BLOCK_COST = 64;

interface Block {
  /** Of those that are not in the heap; may be void. */
  soonestMs: number;
  /** What is due up to here is in the heap. */
  heapedToMs: number;
}

export interface DelayedMessages {
  readonly states: MessageStates;
  readonly attributes: AttributeIndex;
  readonly epochs: QueueEpochs;
}

export class QueueDelays {
  /** What is due within this time is in the heap, at the latest when half of it is over. */
  memoryMs: number;
  #states: MessageStates;
  #attributes: AttributeIndex;
  #epochs: QueueEpochs;
  readonly #heap = new DelayHeap();
  /** The soonest of each block, by its number. Void unless the block says the same time. */
  readonly #far = new DelayHeap();
  readonly #blocks = new Map<number, Block>();
  /** Found due while their block was looked through. */
  #due: number[] = [];

  constructor(memoryMs: number, { states, attributes, epochs }: DelayedMessages) {
    this.memoryMs = memoryMs;
    this.#states = states;
    this.#attributes = attributes;
    this.#epochs = epochs;
  }

  get sizeBytes(): number {
    return (this.#heap.count + this.#far.count) * 16 + this.#blocks.size * 64;
  }

  /** The index was made anew: times are the same. */
  useAttributes(attributes: AttributeIndex): void {
    this.#attributes = attributes;
  }

  /**
   * Fresh messages of the range that are not due become delayed. `defaultDueMs`: for those that say nothing of it
   * themselves and were not replayed. Answers how many.
   */
  delay(from: number, endOffset: number, defaultDueMs: number, nowMs: number): number {
    const attributes = this.#attributes;
    let count = 0;
    if (defaultDueMs > nowMs) {
      for (let offset = from; offset < endOffset; offset++) {
        if (this.#ownDueMs(offset) !== 0 || this.#epochs.find(offset) !== undefined || !this.#take(offset)) continue;
        this.#heap.push(defaultDueMs, offset);
        count++;
      }
    }
    for (let entry = attributes.firstFrom(from); entry >= 0; entry = attributes.following(entry)) {
      const offset = attributes.offsetAt(entry);
      if (offset >= endOffset) break;
      const dueMs = attributes.notBeforeAt(entry);
      if (dueMs <= nowMs || !this.#take(offset)) continue;
      this.#add(offset, dueMs, nowMs);
      count++;
    }
    return count;
  }

  /** Messages of the range that the queue has delayed, not they themselves, are due. Answers how many. */
  endDefaults(from: number, endOffset: number): number {
    const states = this.#states;
    let count = 0;
    for (let at = states.next(DELAYED, from, endOffset); at < endOffset; at = states.next(DELAYED, at + 1, endOffset)) {
      if (this.#ownDueMs(at) > 0) continue;
      states.set(at, FRESH);
      count++;
    }
    return count;
  }

  #take(offset: number): boolean {
    if (this.#states.get(offset) !== FRESH) return false;
    this.#states.set(offset, DELAYED);
    return true;
  }

  #ownDueMs(offset: number): number {
    const entry = this.#attributes.find(offset);
    return entry < 0 ? 0 : this.#attributes.notBeforeAt(entry);
  }

  #add(offset: number, dueMs: number, nowMs: number): void {
    if (dueMs <= nowMs + this.memoryMs) {
      this.#heap.push(dueMs, offset);
      return;
    }
    const number = Math.floor(offset / BLOCK_OFFSETS);
    const block = this.#blocks.get(number);
    if (block === undefined) this.#blocks.set(number, { soonestMs: dueMs, heapedToMs: Number.NEGATIVE_INFINITY });
    else if (dueMs <= block.heapedToMs) {
      // The clock went back: who looks through the block takes it for one that is in the heap.
      this.#heap.push(dueMs, offset);
      return;
    } else if (dueMs < block.soonestMs) block.soonestMs = dueMs;
    else return;
    this.#far.push(dueMs, offset);
  }

  /** When the soonest is due; infinity if nothing is delayed. */
  get nextMs(): number {
    const states = this.#states;
    for (let at = this.#due.length - 1; at >= 0; at--) {
      if (states.get(this.#due[at]) === DELAYED) return Number.NEGATIVE_INFINITY;
      this.#due.pop();
    }
    const heap = this.#heap;
    while (heap.count > 0 && states.get(heap.top) !== DELAYED) heap.pop();
    for (;;) {
      const farMs = this.#far.nextMs;
      if (farMs >= heap.nextMs) return heap.nextMs;
      const number = Math.floor(this.#far.top / BLOCK_OFFSETS);
      const block = this.#blocks.get(number);
      if (block?.soonestMs === farMs) {
        if (states.get(this.#far.top) === DELAYED) return farMs;
        this.#far.pop();
        this.#look(number, block, Number.NEGATIVE_INFINITY, block.heapedToMs);
      } else this.#far.pop();
    }
  }

  /** Looks through one block of which something is due soon. False: there is none. */
  approach(nowMs: number): boolean {
    const far = this.#far;
    while (far.nextMs <= nowMs + this.memoryMs / 2) {
      const soonestMs = far.nextMs;
      const number = Math.floor(far.top / BLOCK_OFFSETS);
      far.pop();
      const block = this.#blocks.get(number);
      if (block?.soonestMs !== soonestMs) continue;
      this.#look(number, block, nowMs, nowMs + this.memoryMs);
      return true;
    }
    return false;
  }

  /** Takes what is due up to `toMs` out of the block; what is due by `nowMs` need not go through the heap. */
  #look(number: number, block: Block, nowMs: number, toMs: number): void {
    const attributes = this.#attributes;
    const endOffset = (number + 1) * BLOCK_OFFSETS;
    let soonestMs = Number.POSITIVE_INFINITY;
    let soonest = -1;
    for (let entry = attributes.firstFrom(number * BLOCK_OFFSETS); entry >= 0; entry = attributes.following(entry)) {
      const offset = attributes.offsetAt(entry);
      if (offset >= endOffset) break;
      const dueMs = attributes.notBeforeAt(entry);
      // 0: the queue has delayed it, if anybody has.
      if (dueMs === 0 || dueMs <= block.heapedToMs || this.#states.get(offset) !== DELAYED) continue;
      if (dueMs <= nowMs) this.#due.push(offset);
      else if (dueMs <= toMs) this.#heap.push(dueMs, offset);
      else if (dueMs < soonestMs) {
        soonestMs = dueMs;
        soonest = offset;
      }
    }
    if (soonest < 0) {
      this.#blocks.delete(number);
      return;
    }
    block.heapedToMs = Math.max(block.heapedToMs, toMs);
    block.soonestMs = soonestMs;
    this.#far.push(soonestMs, soonest);
  }

  /** One that is due and in no block, made fresh; −1 if there is none. */
  takeDue(nowMs: number): number {
    const states = this.#states;
    for (;;) {
      let offset = this.#due.pop();
      if (offset === undefined) {
        if (this.#heap.nextMs > nowMs) return -1;
        offset = this.#heap.pop();
      }
      if (states.get(offset) !== DELAYED) continue;
      states.set(offset, FRESH);
      return offset;
    }
  }

  /** Forgets what is void, so that it holds no memory and is not met one by one. */
  prune(): void {
    const isKept = (offset: number): boolean => this.#states.get(offset) === DELAYED;
    this.#heap.retain(isKept);
    this.#due = this.#due.filter(isKept);
  }
}
