/**
 * Up to where messages of a queue's partition may be handed out before it is durable that they were (`queue.leases`). The
 * mark is durable itself and runs ahead of what is handed out, so that a start knows which messages may have been handed
 * out without a trace: they are told to be redelivered.
 *
 * Always true: what leaves before its acquisition is durable is below a mark that is durable. Part of `QueueState`, whose
 * changes and snapshots carry the mark; positions come from who commits them (`queue-serving.ts`).
 */
import type { Position } from './engine.ts';
import type { ChangeWriter } from './queue-changes.ts';

/**
 * How far the mark runs ahead: at first, and at most. It moves when half of that is used up, and twice as far from then on
 * when what is handed out within the time of a sync did not fit into the other half. After a crash up to so many messages
 * are told to be redelivered that are not.
 */
const AHEAD_MESSAGES_MIN = 64;
const AHEAD_MESSAGES_MAX = 16_384;

export class HandOutMark {
  readonly #changes: ChangeWriter;
  #aheadMessages = AHEAD_MESSAGES_MIN;
  #offset: number;
  /** What of it is durable. */
  #durableOffset: number;
  /** Not durable yet, as far as is known; the position is undefined until it is committed. */
  #pending: { readonly offset: number; position: Position | undefined } | undefined;
  /** Messages below may have been handed out before the start. */
  #doubtEnd: number;

  constructor(changes: ChangeWriter, startOffset: number) {
    this.#changes = changes;
    this.#offset = startOffset;
    this.#durableOffset = startOffset;
    this.#doubtEnd = startOffset;
  }

  /** Where it is; a snapshot has it. */
  get offset(): number {
    return this.#offset;
  }

  /** It was read back, and is durable. */
  recovered(offset: number): void {
    this.#offset = offset;
    this.#durableOffset = offset;
    this.#doubtEnd = offset;
  }
  /** After `recovered`: the log ends here, so nothing above was handed out. */
  doubtBelow(logEndOffset: number): void {
    this.#doubtEnd = Math.min(this.#doubtEnd, logEndOffset);
  }

  /** Whether a message that is handed out for the `acquiredCount`th time, as far as is known, may have been before. */
  isRedelivery(offset: number, acquiredCount: number): boolean {
    return acquiredCount > 1 || offset < this.#doubtEnd;
  }

  /**
   * Messages up to `lastOffset` are handed out: true if they may leave before that is durable. Moves the mark ahead in
   * good time; that it is committed with the next commit is told by `committed`.
   */
  covers(lastOffset: number, durablePosition: Position): boolean {
    const pending = this.#pending;
    if (pending?.position !== undefined && pending.position <= durablePosition) {
      this.#durableOffset = pending.offset;
      this.#pending = undefined;
    }
    const isCovered = lastOffset < this.#durableOffset;
    if (!isCovered) this.#aheadMessages = Math.min(AHEAD_MESSAGES_MAX, 2 * this.#aheadMessages);
    const isNear = this.#pending === undefined && lastOffset + this.#aheadMessages / 2 >= this.#offset;
    if (isNear || lastOffset >= this.#offset) this.#move(lastOffset + 1 + this.#aheadMessages);
    return isCovered;
  }

  #move(offset: number): void {
    this.#offset = offset;
    this.#changes.noteMark(offset);
    this.#pending = { offset, position: undefined };
  }

  /** The changes of the state up to now are durable with `position`. */
  committed(position: Position): void {
    if (this.#pending !== undefined) this.#pending.position ??= position;
  }

  /** The state begins anew at `startOffset`: what was handed out before stays in doubt. */
  reset(startOffset: number): void {
    if (this.#offset > startOffset) this.#changes.noteMark(this.#offset);
    else this.#offset = startOffset;
  }

  /** Nothing more is handed out, and all that was is told in the changes. False: it says so already. */
  end(startOffset: number): boolean {
    if (this.#offset <= startOffset) return false;
    this.#offset = startOffset;
    this.#changes.noteMark(startOffset);
    return true;
  }
}
