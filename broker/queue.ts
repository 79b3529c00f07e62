/**
 * Value types of queues: what the state machine (`queue-state.ts`), the registry (`queues.ts`) and the doors hand to each
 * other. A queue is one consumer of a topic that takes messages one by one: acquire (take with a lock), settle (accept,
 * release, reject), renew (longer lock), as in KIP-932. Offsets, counts and milliseconds are safe integers.
 */
import type { Position } from './engine.ts';

/** Which protocol family acquires and settles; each has its own idea of locks and attempt limits. */
export type QueueDoor = 'kafka' | 'amqp' | 'sqs';

/**
 * `owned`: made together with its topic, starts at 0, ends with it. `attached`: declared over a topic that exists. `plain`:
 * a share group that nobody declared, exactly KIP-932. `stream`: a topic that is only read as a log; it has no state.
 */
export type QueueKind = 'owned' | 'attached' | 'plain' | 'stream';

/** What a partition's queue state is known by; the group id of a declared queue is the queue's name. */
export interface QueueKey {
  readonly group: string;
  readonly topicId: string;
  readonly partition: number;
}

/** Neighbouring messages that were acquired together and are alike. Both ends inclusive. */
export interface AcquiredRun {
  readonly firstOffset: number;
  readonly lastOffset: number;
  /** How often these have been handed out, this time included: KIP-932's delivery count, SQS's receive count. */
  readonly acquiredCount: number;
  /** How many of those came back as failures: AMQP's x-delivery-count. */
  readonly failedCount: number;
}

/**
 * `gap`: there is no record at these offsets (control batches, compaction). `undo`: it was never delivered, as if it had
 * not been acquired.
 */
export type SettleKind = 'accept' | 'release' | 'reject' | 'renew' | 'gap' | 'undo';

/** One settlement of neighbouring messages. Both ends inclusive. */
export interface Settlement {
  readonly firstOffset: number;
  readonly lastOffset: number;
  readonly kind: SettleKind;
  /** `release`: not available again before this time. Default: at once. `renew`: the new end of the lock. */
  readonly untilMs?: number;
  /** `release`: whether it counts as a failure (AMQP's x-delivery-count). Default true. */
  readonly isFailure?: boolean;
  /** `reject`, for the history of a dead letter. */
  readonly reason?: string;
}

/** Why a message leaves its queue other than by being accepted; the words of RabbitMQ's x-death. */
export type LeaveReason = 'expired' | 'rejected' | 'delivery_limit' | 'maxlen';

/** A consumer of a queue as the queue sees it; numbered by the registry, never 0. */
export type OwnerId = number;

/** Messages of one partition, locked for one consumer. They leave when `QueueRegistry.whenLeased` calls back. */
export interface Acquisition {
  readonly partition: number;
  /** In the order of delivery: ascending, unless the queue has priorities or fair groups (for Kafka always). */
  readonly runs: readonly AcquiredRun[];
  readonly messageCount: number;
  /** End of the lock on the broker's wall clock; infinity: as long as the consumer is there. */
  readonly lockedUntilMs: number;
  /** They may leave before it is durable that they were handed out (`queue.leases`). */
  readonly isForgettable: boolean;
}

/** What a door knows of a message without opening the batch that holds it. */
export interface MessageAttributes {
  /** 0 … 255, larger first; 0 if the record says nothing. */
  readonly priority: number;
  /** Wall clock; not handed out before. 0: at once. */
  readonly notBeforeMs: number;
  /** Wall clock; not handed out from then on. Infinity: never. */
  readonly expiresAtMs: number;
  /** Ordered or fair group; undefined: none. */
  readonly group: string | undefined;
  readonly dedupId: string | undefined;
}

/** Messages of a queue by what can happen to them next. Exact. */
export interface QueueCounts {
  /** Could be handed out now. */
  ready: number;
  inFlight: number;
  /** Not due yet. */
  delayed: number;
  /** Behind a message of the same ordered group that is in flight. */
  blocked: number;
}

/** The answer to a settlement somebody waits for. */
export interface Settled {
  /** Durable when the engine's position has reached it. */
  readonly position: Position;
}
