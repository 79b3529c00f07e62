/**
 * DeleteMessage and ChangeMessageVisibility: what a receipt handle may do. Of a standard queue any genuine handle of a
 * message that is not finished deletes it, also after its lock has run out or somebody else has received it; of a FIFO queue
 * only the handle that holds the lock does. Deleting what is deleted is no error. A lock is changed by whoever holds it.
 */
import { limits } from '../../protocol/sqs/actions.ts';
import { invalidValue, SqsError } from '../../protocol/sqs/errors.ts';
import type { Clock } from '../../storage/clock.ts';
import type { QueuePartition } from '../../broker/queues.ts';
import type { SqsQueue } from './queue-book.ts';
import { invalidHandle, type Receipt, type Receipts } from './receipts.ts';

const SECOND_MS = 1000;

export interface SettlingParts {
  readonly clock: Clock;
  readonly receipts: Receipts;
}

export class Settling {
  readonly #parts: SettlingParts;

  constructor(parts: SettlingParts) {
    this.#parts = parts;
  }

  /** Decided; durable when the queues say so. ReceiptHandleIsInvalid, InvalidParameterValue. */
  delete(target: SqsQueue, handle: string): void {
    const { receipt, partition } = this.#open(target, handle);
    const { queue, state, index } = partition;
    const { offset } = receipt;
    // A replay has made an end of what the handle was for.
    if (state.isDone(offset) || state.epochOf(offset) !== receipt.epoch) return;
    if (target.isFifo && !this.#holds(partition, receipt)) throw expired(handle);
    queue.finish(index, offset);
  }

  /** The same. MessageNotInflight. */
  changeVisibility(target: SqsQueue, handle: string, seconds: number): void {
    if (seconds < 0 || seconds > limits.visibilitySecondsMax) {
      const reason = `VisibilityTimeout must be an integer between 0 and ${limits.visibilitySecondsMax}.`;
      throw invalidValue('VisibilityTimeout', seconds, reason);
    }
    const { receipt, partition } = this.#open(target, handle);
    const { queue, state, index } = partition;
    const { offset } = receipt;
    if (state.isDone(offset) || state.epochOf(offset) !== receipt.epoch) {
      const reason = 'Message does not exist or is not available for visibility timeout change.';
      throw invalidValue('ReceiptHandle', handle, reason);
    }
    if (!this.#holds(partition, receipt)) {
      if (target.isFifo) throw expired(handle);
      throw new SqsError('MessageNotInflight', 'The specified message is not in flight.');
    }
    const nowMs = this.#parts.clock.now();
    if (nowMs + seconds * SECOND_MS > receipt.receivedMs + limits.visibilitySecondsMax * SECOND_MS) {
      const reason = `Total VisibilityTimeout for the message is beyond the limit [${limits.visibilitySecondsMax} seconds]`;
      throw invalidValue('VisibilityTimeout', seconds, reason);
    }
    const place = { firstOffset: offset, lastOffset: offset };
    if (seconds === 0) queue.settle('any', index, [{ kind: 'release', ...place }]);
    else queue.settle('any', index, [{ kind: 'renew', ...place, untilMs: nowMs + seconds * SECOND_MS }]);
  }

  #open({ queue }: SqsQueue, handle: string): { receipt: Receipt; partition: QueuePartition } {
    const receipt = this.#parts.receipts.open(handle);
    const partition = receipt.topicId === queue.topic.id ? queue.partition(receipt.partition) : undefined;
    if (partition === undefined) throw invalidHandle(handle);
    return { receipt, partition };
  }

  /** The lock is the one that was given with the handle. */
  #holds({ state }: QueuePartition, { offset, receiveCount }: Receipt): boolean {
    const lock = state.lockOf(offset, this.#parts.clock.now());
    return lock?.door === 'sqs' && lock.acquiredCount === receiveCount;
  }
}

const expired = (handle: string): SqsError => invalidValue('ReceiptHandle', handle, 'The receipt handle has expired.');
