/**
 * The folder of one log between two processes: what the last one has left there is brought in line with what the
 * checkpoint knows, before the first append.
 *
 * Always true: nothing goes that the checkpoint needs; a cut is durable before anything is written there.
 */
import type { Disk } from './disk.ts';
import { DELETED_SUFFIX, offsetFileName, type Segment, SEGMENT_ENDINGS } from './segment.ts';

/** Removes what nobody knows: files that retention was about to remove, or that an unfinished write has made. */
export async function tidyFolder(
  disk: Disk,
  folder: string,
  names: readonly string[],
  segments: readonly Segment[],
  snapshot: string,
): Promise<void> {
  const kept = new Set<string>([snapshot]);
  for (const segment of segments) {
    for (const ending of SEGMENT_ENDINGS) kept.add(offsetFileName(segment.baseOffset) + ending);
  }
  for (const name of names) {
    const isOurs = /^[0-9]{20}\.|\.tmp$/.test(name);
    if (isOurs && !kept.has(name)) await disk.remove(`${folder}/${name}`);
  }
}

/** Removes files that an earlier process has taken out of the log and was to remove. */
export async function removeLeftovers(disk: Disk, folder: string, names: readonly string[]): Promise<void> {
  for (const name of names) {
    if (name.endsWith(DELETED_SUFFIX)) await disk.remove(`${folder}/${name}`);
  }
}

/** What lies beyond the known end was never acknowledged: it goes, durably, before anything is written there. */
export async function cutBeyondEnd(segment: Segment): Promise<void> {
  const file = await segment.file.use('write');
  try {
    const size = await file.size();
    if (size < segment.writtenBytes) {
      throw new Error(`${file.path} has ${size} bytes, ${segment.writtenBytes} were synced`);
    }
    if (size > segment.writtenBytes) {
      await file.truncate(segment.writtenBytes);
      await file.sync();
    }
  } finally {
    segment.file.done();
  }
}
