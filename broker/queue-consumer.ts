/**
 * One consumer of one or many queues, of any door: what it has joined, how much it wants, and what it holds locks on.
 *
 * Always true: `onAcquired` and `onServed` run in the serve loop (`queue-serving.ts`), never inside a call of the door;
 * what was acquired may leave when `QueueRegistry.whenDurable` calls back, asked from within `onAcquired`.
 */
import type { Acquisition, OwnerId, QueueDoor } from './queue.ts';
import type { Queue } from './queues.ts';

export interface ConsumerOptions {
  readonly door: QueueDoor;
  /** Larger ones are served first. Default 0. */
  readonly priority?: number;
  /** While it is there, nobody else gets anything from the queues it joined. Default false. */
  readonly isExclusive?: boolean;
  /** How long what is handed out stays locked; `connection`: as long as the consumer is there. */
  readonly lockMs: number | 'connection';
  /** Whether a restart of the broker ends the locks. Default: all doors' but SQS's. */
  readonly isBoundToConnection?: boolean;
  /** Some messages are this consumer's now. Read them, and answer when they are durable. */
  onAcquired(queue: Queue, acquisition: Acquisition): void;
  /** After the last `onAcquired` of a turn: nothing more comes before the next one. */
  onServed?(): void;
  /** The queue has ended (or its topic): the consumer is not joined any more and holds nothing of it. */
  onLeft?(queue: Queue): void;
}

export interface Wanted {
  /** How many more messages it takes; replaces what it wanted before. 0: nothing for now. */
  readonly messages: number;
  /** Roughly: messages are estimated by the average size of the log. Default: no limit. */
  readonly bytes?: number;
  /** A pull: after the first turn that brings something, nothing more is wanted. Default false: credit. */
  readonly isOnce?: boolean;
}

export interface Consumer {
  readonly id: OwnerId;
  readonly door: QueueDoor;
  /** Messages that it still takes. */
  readonly wanted: number;
  /** Changes the lock time of what is handed out from now on. */
  lockMs: number | 'connection';
  /** Takes from these partitions of the queue (default: all, also those added later); replaces an earlier join. */
  join(queue: Queue, partitions?: readonly number[]): void;
  /** Takes nothing more from the queue; what it holds stays locked. */
  leave(queue: Queue): void;
  want(wanted: Wanted): void;
  /**
   * The consumer is gone: leaves all queues, and what it holds goes back to its place. `isFailure`: whether that counts
   * as a failed delivery.
   */
  close(options: { isFailure: boolean }): void;
}
