/**
 * Who wants messages of one queue, and whose turn it is: consumers of higher priority first, those of equal priority in
 * turn and in portions. An exclusive consumer, and the active one of a single-active queue, keep all others from it.
 */
import type { OwnerId } from './queue.ts';

/** A turn is at most this many messages, so that one consumer's large prefetch does not starve the others. */
export const PORTION_MAX = 32;

export interface DemandingConsumer {
  readonly owner: OwnerId;
  /** Larger first. Any integer. */
  readonly priority: number;
  readonly isExclusive: boolean;
}

export interface Portion {
  readonly owner: OwnerId;
  readonly messages: number;
}

export class QueueDemand {
  /** `isSingleActive` may change while running. */
  isSingleActive = false;

  constructor(_options: { isSingleActive?: boolean } = {}) {}

  get consumerCount(): number {
    throw new Error('not built yet');
  }

  /** The only consumer that is served now, if the queue is single-active or a consumer is exclusive. */
  get activeOwner(): OwnerId | undefined {
    throw new Error('not built yet');
  }

  /** False: the queue has an exclusive consumer, or this one wants to be exclusive and is not alone. */
  add(_consumer: DemandingConsumer): boolean {
    throw new Error('not built yet');
  }

  /** Its demand ends. */
  remove(_owner: OwnerId): void {
    throw new Error('not built yet');
  }

  /** It could take this many messages now. Replaces what it wanted before. Unknown owners are ignored. */
  want(_owner: OwnerId, _messages: number): void {
    throw new Error('not built yet');
  }

  /** What it could still take. */
  wanted(_owner: OwnerId): number {
    throw new Error('not built yet');
  }

  /** Whose turn it is and how much: its whole demand if nobody of its priority waits beside it. Changes nothing. */
  next(): Portion | undefined {
    throw new Error('not built yet');
  }

  /** It got that many: its demand shrinks and it goes to the end of the line. 0: it only loses its turn. */
  served(_owner: OwnerId, _messages: number): void {
    throw new Error('not built yet');
  }
}
