/** What `QueueState` takes and answers. */
import type { AttributeIndex } from './attribute-index.ts';
import type { LeaveReason, OwnerId, QueueDoor } from './queue.ts';

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
  /** Highest priority level; higher ones count as this. 0: priorities are ignored. */
  readonly priorityMax: number;
  /** From the append on; −1: none. The lower of this and the message's own wins. */
  readonly ttlMs: number;
  /** From the append on, for messages that bring no not-before of their own. */
  readonly delayMs: number;
  readonly limits: readonly AttemptLimit[];
  /** How many messages one search may pass over (blocked groups, noisy tenants) before it gives up until the next call. */
  readonly lookaheadMax: number;
  /** Delays that end within this time are held in memory a second time; what is further off is left to the index. */
  readonly delayMemoryMs: number;
}

export const DEFAULT_STATE_SETTINGS: QueueStateSettings = {
  isOrdered: false,
  isFair: false,
  priorityMax: 0,
  ttlMs: -1,
  delayMs: 0,
  limits: [],
  lookaheadMax: 1_000_000,
  delayMemoryMs: 600_000,
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
