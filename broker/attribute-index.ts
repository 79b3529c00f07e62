/**
 * What the records of one partition say about their own delivery: priority, not-before, expiry, group. The queues of the
 * partition decide from this and never open a batch. One index serves all queues of a partition; it can be rebuilt from
 * the log. At most 24 bytes a record that says anything, nothing for the others.
 */
import type { MessageAttributes } from './queue.ts';

export class AttributeIndex {
  /** How many records have an entry. */
  get count(): number {
    throw new Error('not built yet');
  }

  /** Memory of the entries, without group names. */
  get sizeBytes(): number {
    throw new Error('not built yet');
  }

  /**
   * Adds the attributes of a record, offsets rising; called before `QueueState.extend` reaches it. A record that says
   * nothing (priority 0, due, never expires, no group) takes no entry.
   */
  append(_offset: number, _attributes: MessageAttributes): void {
    throw new Error('not built yet');
  }

  /** Forgets what is below `offset`. */
  trim(_offset: number): void {
    throw new Error('not built yet');
  }

  /** Undefined: the record says nothing. The dedup id is not kept. */
  get(_offset: number): MessageAttributes | undefined {
    throw new Error('not built yet');
  }
}
