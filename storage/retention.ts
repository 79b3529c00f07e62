/**
 * Which segments of a log retention gives up (those at its beginning that are too old, or beyond its size), and how the files
 * of a segment go.
 */
import type { LogConfig } from './log.ts';
import type { LogContext } from './log-context.ts';
import type { Segment } from './segment.ts';

/** The start that retention wants for a log that starts at `startOffset`. Whole segments go, none above `limitOffset`. */
export function retainedFrom(
  segments: readonly Segment[],
  { retentionMs, retentionBytes }: LogConfig,
  startOffset: number,
  limitOffset: number,
  nowMs: number,
): number {
  const active = segments.at(-1);
  let start = startOffset;
  let sizeBytes = 0;
  for (const segment of segments) if (segment.endOffset > start) sizeBytes += segment.sizeBytes;
  for (const segment of segments) {
    if (segment.endOffset <= start || (segment.sizeBytes === 0 && segment === active)) continue;
    if (segment.endOffset > limitOffset) break;
    const ageFrom = segment.largestTimestamp >= 0 ? segment.largestTimestamp : segment.createdMs;
    const isOld = retentionMs >= 0 && nowMs - ageFrom > retentionMs;
    const isBeyond = retentionBytes >= 0 && sizeBytes - segment.sizeBytes >= retentionBytes;
    // By size, the active segment stays.
    if (!isOld && !(isBeyond && segment !== active)) break;
    // Its largest timestamp counts what is in the file only.
    if (segment.writtenBytes !== segment.sizeBytes) break;
    sizeBytes -= segment.sizeBytes;
    start = segment.endOffset;
  }
  return start;
}

/** Renames the files of a segment that nobody uses any more, and removes them after `delayMs`. Resolves after the first. */
export async function removeSegment(
  segment: Segment,
  { writer, clock }: Pick<LogContext, 'writer' | 'clock'>,
  delayMs: number,
): Promise<void> {
  await writer.removal(() => segment.retire());
  const remove = (): Promise<void> => writer.removal(() => segment.removeRetired());
  if (delayMs === 0) writer.background(remove);
  else clock.after(delayMs, () => writer.background(remove));
}
