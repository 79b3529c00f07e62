/**
 * Runs of neighbouring messages, as a queue's state hands them out and gets them back.
 */
import type { Settlement } from './queue.ts';

export interface MutableRun {
  firstOffset: number;
  lastOffset: number;
  acquiredCount: number;
  failedCount: number;
}

/** Each begins above the end of the one before it. */
export function areApart(settlements: readonly Settlement[]): boolean {
  let end = -1;
  for (const { firstOffset, lastOffset } of settlements) {
    if (firstOffset <= end) return false;
    end = lastOffset;
  }
  return true;
}

/** The next messages, in order of delivery; one run with the last if they go on from it and are alike. */
export function addToRuns(
  runs: MutableRun[],
  offset: number,
  count: number,
  acquiredCount: number,
  failedCount: number,
): void {
  const last = runs.length > 0 ? runs[runs.length - 1] : undefined;
  if (
    last !== undefined &&
    last.lastOffset === offset - 1 &&
    last.acquiredCount === acquiredCount &&
    last.failedCount === failedCount
  ) {
    last.lastOffset += count;
    return;
  }
  runs.push({ firstOffset: offset, lastOffset: offset + count - 1, acquiredCount, failedCount });
}
