/**
 * Small state files that are replaced as a whole: after a crash there is the old content or the new one, never a mix.
 * The new content goes to `PATH.tmp`, is synced, takes the name, and then the folder is synced: who has awaited
 * `writeSnapshot` may rely on it.
 */
import type { Disk } from './disk.ts';
import { writeAll } from './disk.ts';

/** Ending of unfinished files; whatever bears it at a start is a leftover. */
export const TEMPORARY_SUFFIX = '.tmp';

export async function writeSnapshot(
  disk: Disk,
  path: string,
  bytes: Uint8Array,
  mode: 'write' | 'private' = 'write',
): Promise<void> {
  const temporary = path + TEMPORARY_SUFFIX;
  const file = await disk.open(temporary, mode);
  try {
    // A leftover of an earlier try may be longer.
    if ((await file.size()) > 0) await file.truncate(0);
    await writeAll(file, [bytes], 0);
    await file.sync();
  } finally {
    await file.close();
  }
  await disk.rename(temporary, path);
  await disk.syncDirectory(folderOf(path));
}

/** The content, or undefined if it was never written. */
export function readSnapshot(disk: Disk, path: string): Promise<Uint8Array | undefined> {
  return disk.readFile(path);
}

/** The folder that holds `path`. */
export function folderOf(path: string): string {
  const end = path.lastIndexOf('/');
  if (end === -1) return '.';
  return end === 0 ? '/' : path.slice(0, end);
}
