/**
 * The attempt limits of a queue, each with the counter and the moment of its family: see `AttemptLimit`.
 */
import type { AttemptLimit } from './queue-state-types.ts';

export class AttemptLimits {
  /** A message that was handed out this often leaves instead of being handed out again. Infinity: no limit. */
  readonly receivesMax: number;
  readonly #atReturn: readonly AttemptLimit[];

  constructor(limits: readonly AttemptLimit[]) {
    this.receivesMax = Math.min(...limits.filter(isReceiveLimit).map(({ max }) => max));
    this.#atReturn = limits.filter((limit) => !isReceiveLimit(limit));
  }

  /** The limit that keeps a message with these counts, its return included, from coming back; the first if there are several. */
  reached(acquiredCount: number, failedCount: number): AttemptLimit | undefined {
    for (const limit of this.#atReturn) {
      if (limit.counter === 'acquired' ? acquiredCount >= limit.max : failedCount > limit.max) return limit;
    }
    return undefined;
  }
}

function isReceiveLimit({ door, counter }: AttemptLimit): boolean {
  return door === 'sqs' && counter === 'acquired';
}
