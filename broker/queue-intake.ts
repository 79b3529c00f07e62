/**
 * What a batch goes through on its way into a topic with a declared queue, from whatever door: reserved headers, length
 * limits, deduplication, attributes. `check` before the append (it may refuse), `appended` right after it.
 */
import type { Appended, Partition } from './engine.ts';

/** What `check` found, for `appended`. Opaque to doors. */
export interface PendingIntake {
  readonly recordCount: number;
}

export interface QueueIntake {
  /**
   * Looks into a batch that passed the produce checks. `kafka`: reserved headers are refused (INVALID_RECORD), documented
   * producer headers are honoured. Throws POLICY_VIOLATION when a queue is full and its overflow is `refuse`.
   */
  check(partition: Partition, batch: Buffer, origin: 'kafka' | 'broker'): PendingIntake;
  /** The batch has its offsets. Nothing to do for one that was sent twice. */
  appended(partition: Partition, pending: PendingIntake, appended: Appended): void;
}
