/**
 * One queue's state on one partition: which messages are done, which are in flight and for whom, which come next. A plain
 * synchronous state machine without I/O, clock or randomness: the registry (`queues.ts`) calls it, makes its changes
 * durable and answers afterwards.
 *
 * Order: highest priority first, then lowest offset; a message that came back takes its place again. Every mutation
 * also writes what it decided to a list of changes (`queue-changes.ts`), which on a fresh state give the same state
 * again. Times are milliseconds of the wall clock, offsets safe integers, ranges inclusive at both ends unless an end is
 * called `endOffset`.
 */
import type { AttributeIndex } from './attribute-index.ts';
import type { AcquiredRun, LeaveReason, OwnerId, QueueCounts, QueueDoor, Settlement } from './queue.ts';

/**
 * How often a message may be tried. All limits of a queue apply to all its messages, the lower wins; what a limit counts
 * and when it strikes are those of its family:
 * - `acquired` of `sqs` (maxReceiveCount): leaves instead of being handed out for the `max + 1`st time;
 * - `acquired` of any other (KIP-932 delivery count limit): leaves when it comes back from the `max`th time;
 * - `failed` (AMQP x-delivery-limit): leaves when it comes back as a failure for the `max + 1`st time.
 */
export interface AttemptLimit {
  readonly door: QueueDoor;
  readonly counter: 'acquired' | 'failed';
  /** ≥ 1 for `acquired`, ≥ 0 for `failed`. */
  readonly max: number;
}

export interface QueueStateSettings {
  /** A message waits while an earlier one of its group is in flight, or is not due. Wins over `isFair`. */
  readonly isOrdered: boolean;
  /** Groups with ≥ 30 messages and more than 10 % of all in flight come after all others. */
  readonly isFair: boolean;
  readonly hasPriority: boolean;
  /** From the append on; −1: none. The lower of this and the message's own wins. */
  readonly ttlMs: number;
  /** From the append on, for messages that bring no not-before of their own. */
  readonly delayMs: number;
  readonly limits: readonly AttemptLimit[];
  /** How many messages one search may pass over (blocked groups, noisy tenants) before it gives up until the next call. */
  readonly lookaheadMax: number;
}

export const DEFAULT_STATE_SETTINGS: QueueStateSettings = {
  isOrdered: false,
  isFair: false,
  hasPriority: false,
  ttlMs: -1,
  delayMs: 0,
  limits: [],
  lookaheadMax: 1_000_000,
};

export interface QueueStateOptions {
  /** First offset that belongs to the queue; where it begins if it has no stored changes. */
  readonly startOffset: number;
  readonly settings: QueueStateSettings;
  /** Of the partition, shared by its queues. Without it no record has attributes. */
  readonly attributes?: AttributeIndex;
}

export interface AcquireOptions {
  readonly owner: OwnerId;
  readonly door: QueueDoor;
  readonly messagesMax: number;
  /** Infinity: until settled or released. */
  readonly lockedUntilMs: number;
  /** Given back when the broker starts anew, because the connection that held it is gone (AMQP, share sessions). */
  readonly isBoundToConnection: boolean;
  readonly nowMs: number;
  /**
   * Last offset of the batch that holds an offset. If given, an acquisition that reaches `messagesMax` inside a batch goes on
   * with what follows directly in it (KIP-1206 `batch_optimized`).
   */
  readonly batchEnd?: (offset: number) => number;
}

/** A message that is to leave the queue: the broker holds it until `left`. */
export interface LeavingMessage {
  readonly offset: number;
  readonly reason: LeaveReason;
  readonly acquiredCount: number;
  readonly failedCount: number;
  /** Whose limit struck, if `reason` is `delivery_limit`: its dead-letter target is meant. */
  readonly limitDoor: QueueDoor | undefined;
}

/** A message in flight. */
export interface MessageLock {
  /** 0: whoever held it before the broker started anew. */
  readonly owner: OwnerId;
  readonly door: QueueDoor;
  readonly lockedUntilMs: number;
  readonly acquiredCount: number;
  readonly failedCount: number;
}

export interface PurgeOptions {
  /** Only what is below. Default: everything that was extended to. */
  readonly untilOffset?: number;
  /** Also what is in flight; its settlements then fail. */
  readonly takeInFlight: boolean;
}

/** How many messages one `advance` looks at by default: a few milliseconds. */
export const ADVANCE_MESSAGES_MAX = 10_000;

export class QueueState {
  constructor(_options: QueueStateOptions) {}

  /** All below are done; nothing above `endOffset` exists yet. */
  get startOffset(): number {
    throw new Error('not built yet');
  }

  /** Nothing at or above was ever handed out. */
  get nextOffset(): number {
    throw new Error('not built yet');
  }

  /** What `extend` was last called with. */
  get endOffset(): number {
    throw new Error('not built yet');
  }

  /** The lowest message that is not done (ready, in flight, delayed, leaving); `endOffset` if there is none. */
  get oldestUnfinished(): number {
    throw new Error('not built yet');
  }

  /** Exact at all times. Leaving messages count nowhere here. */
  get counts(): QueueCounts {
    throw new Error('not built yet');
  }

  /** Messages that wait for `left`. */
  get leavingCount(): number {
    throw new Error('not built yet');
  }

  /** Leaving messages that `takeLeaving` has not given yet. */
  get untakenLeavingCount(): number {
    throw new Error('not built yet');
  }

  /** When `advance` has something to do: a lock runs out, a delay ends, a message expires. Infinity: nothing is due ever. */
  get nextDeadlineMs(): number {
    throw new Error('not built yet');
  }

  /** The last search gave up at `lookaheadMax`: calling `acquire` again may find something. */
  get isSearchPending(): boolean {
    throw new Error('not built yet');
  }

  /** True if there is something for `takeChanges`. */
  get hasChanges(): boolean {
    throw new Error('not built yet');
  }

  get settings(): QueueStateSettings {
    throw new Error('not built yet');
  }

  /** New settings. What is delayed already stays so; a queue TTL that begins here counts from now for what is there. */
  configure(_settings: QueueStateSettings, _nowMs: number): void {
    throw new Error('not built yet');
  }

  /**
   * The log is readable up to here. `appendedMs`: when those messages were appended; queue TTL and delay count from it. At
   * a start, after `applyChanges`, it is called batch by batch with the times of the log (once is enough without either).
   */
  extend(_endOffset: number, _appendedMs: number, _nowMs: number): void {
    throw new Error('not built yet');
  }

  /** Retention or DeleteRecords took what is below: whatever it was doing, it is done. Answers how many were unfinished. */
  trim(_logStartOffset: number): number {
    throw new Error('not built yet');
  }

  /**
   * Locks up to `messagesMax` messages for `owner`, in the order in which they should be delivered: ascending, unless the
   * queue has priorities or fair groups. Expired messages and those at an SQS limit leave instead. Call `advance` first.
   */
  acquire(_options: AcquireOptions): AcquiredRun[] {
    throw new Error('not built yet');
  }

  /**
   * All or nothing. Throws INVALID_RECORD_STATE if any of the messages is not in flight, its lock has run out, it is not
   * `owner`'s (`any`: whoever holds it), or two settlements name the same message.
   */
  settle(_owner: OwnerId | 'any', _settlements: readonly Settlement[], _nowMs: number): void {
    throw new Error('not built yet');
  }

  /** Gives back all that the owner holds. `isFailure`: counts as a failed attempt. Answers how many. */
  releaseOwner(_owner: OwnerId, _nowMs: number, _options: { isFailure: boolean }): number {
    throw new Error('not built yet');
  }

  /** How many messages the owner holds. */
  heldBy(_owner: OwnerId): number {
    throw new Error('not built yet');
  }

  /**
   * Locks that ran out (which counts as a failure), delays that ended, messages that expired while first in their lane. Looks at no more than
   * `messagesMax`; true if more is due now: call it again in another turn.
   */
  advance(_nowMs: number, _messagesMax: number = ADVANCE_MESSAGES_MAX): boolean {
    throw new Error('not built yet');
  }

  /** Messages that are to leave and were not taken yet, in the order in which they left their lane; after a start all, by offset. */
  takeLeaving(_max: number): LeavingMessage[] {
    throw new Error('not built yet');
  }

  /** These have left, in the same commit as what was made of them. Throws INVALID_RECORD_STATE if one was not leaving. */
  left(_offsets: readonly number[]): void {
    throw new Error('not built yet');
  }

  /** Up to `count` ready messages leave with reason `maxlen`, the next in turn first (as RabbitMQ drops from the head). Answers how many. */
  dropOldest(_count: number, _nowMs: number): number {
    throw new Error('not built yet');
  }

  /**
   * Of these messages, those that wait (ready, delayed or blocked) are done at once: duplicates of earlier sends. Others are
   * left as they are. Called by the registry right after the `extend` that showed them. Answers how many.
   */
  discard(_offsets: readonly number[]): number {
    throw new Error('not built yet');
  }

  /** Everything that waits is done, delayed or not. Leaving messages stay. Answers how many. */
  purge(_nowMs: number, _options: PurgeOptions): number {
    throw new Error('not built yet');
  }

  /**
   * Makes finished messages available again, as if never handed out: no delay, the queue's TTL from now, epoch raised. What
   * waits, is in flight or leaving stays as it is. `firstOffset` may be below the start; then `attributes` is an index that
   * reaches down to it (default: the one there is). Answers how many came back.
   */
  replay(_firstOffset: number, _lastOffset: number, _nowMs: number, _attributes?: AttributeIndex): number {
    throw new Error('not built yet');
  }

  /** Forgets everything and starts at `startOffset`, above or below (AlterShareGroupOffsets). Call `extend` afterwards. */
  reset(_startOffset: number, _attributes?: AttributeIndex): void {
    throw new Error('not built yet');
  }

  /** Rises with each replay of the message; a delivery handle of another epoch is void. */
  epochOf(_offset: number): number {
    throw new Error('not built yet');
  }

  /** Undefined: not in flight (or its lock has run out by `nowMs`). */
  lockOf(_offset: number, _nowMs: number): MessageLock | undefined {
    throw new Error('not built yet');
  }

  /** Unfinished offsets from `fromOffset` up that are not in flight and not leaving, ready or not, for peek. At most `max`. */
  waiting(_fromOffset: number, _max: number): number[] {
    throw new Error('not built yet');
  }

  /** True if the message is finished (or below the start). */
  isDone(_offset: number): boolean {
    throw new Error('not built yet');
  }

  /** What must become durable since the last call; undefined: nothing. */
  takeChanges(): Buffer | undefined {
    throw new Error('not built yet');
  }

  /**
   * Takes in what `takeChanges` or `snapshot` gave, in order, before the first `extend`. Locks bound to a connection are
   * given back (acquired count kept), others stay with owner 0. Throws MillraceError CORRUPT_MESSAGE on bytes it cannot read.
   */
  applyChanges(_bytes: Buffer): void {
    throw new Error('not built yet');
  }

  /**
   * Pieces of at most 256 KiB that rebuild the state; the first resets what was applied before. They include pending changes, which
   * are dropped. The state must not change until the last piece was taken.
   */
  snapshot(): Iterable<Buffer> {
    throw new Error('not built yet');
  }
}
