/**
 * The disk as a parameter: everything the broker does to files goes through `Disk` and `DiskFile`. `NodeDisk` is the
 * real one; the simulation has one that loses, tears and reorders what was not synced.
 *
 * Paths are absolute or relative to whatever the implementation was given; '/' separates. Errors are thrown as Node
 * throws them (`code`: ENOENT, ENOSPC, EIO …). Nothing here retries.
 */

/** `read`: must exist. `write`: made if missing, read and write. `synced`: as `write`, opened O_DSYNC: a write that has ended is on the platter. `private`: as `write`, one that is made is for its owner only. */
export type OpenMode = 'read' | 'write' | 'synced' | 'private';

export interface DiskFile {
  readonly path: string;
  /** Reads up to `target.length` bytes at `position`; fewer only at the end of the file. */
  read(target: Uint8Array, position: number): Promise<number>;
  /** Writes the buffers one after the other at `position`; answers how many bytes were written, which may be fewer. */
  write(buffers: readonly Uint8Array[], position: number): Promise<number>;
  /** As `write`, on the calling thread: only for small writes to the page cache. */
  writeNow(buffers: readonly Uint8Array[], position: number): number;
  /** fdatasync: the bytes written so far, and the size needed to read them, survive a power cut. */
  sync(): Promise<void>;
  size(): Promise<number>;
  /** Cuts or extends (with zeros) to `sizeBytes`. */
  truncate(sizeBytes: number): Promise<void>;
  close(): Promise<void>;
}

export interface DiskStat {
  sizeBytes: number;
  isDirectory: boolean;
  modifiedMs: number;
}

/** A held folder lock; `release` is idempotent. Ends with the process, however that ends. */
export interface DiskLock {
  release(): Promise<void>;
}

export interface Disk {
  open(path: string, mode: OpenMode): Promise<DiskFile>;
  /** The whole file, or undefined if there is none. */
  readFile(path: string): Promise<Uint8Array | undefined>;
  /** Names in a folder, sorted, without '.' and '..'; empty if the folder does not exist. */
  list(path: string): Promise<string[]>;
  /** Undefined if there is nothing. */
  stat(path: string): Promise<DiskStat | undefined>;
  /** Makes the folder and its parents; no error if it exists. Its directory entry needs `syncDirectory` of the parent. */
  makeDirectory(path: string): Promise<void>;
  /** Replaces `to` if it exists. Durable after `syncDirectory` of the parent(s). */
  rename(from: string, to: string): Promise<void>;
  /** Removes a file; no error if it is not there. */
  remove(path: string): Promise<void>;
  /** Removes a folder and all below it; no error if it is not there. */
  removeDirectory(path: string): Promise<void>;
  /** Makes creations, renames and removals directly inside the folder survive a power cut. */
  syncDirectory(path: string): Promise<void>;
  /** Bytes an ordinary user may still write to the file system that holds `path`. */
  freeBytes(path: string): Promise<number>;
  /** Takes the folder lock or throws a `MillraceError` with code DATA_DIR_LOCKED that names the holder. */
  lock(path: string, kind: 'exclusive' | 'shared'): Promise<DiskLock>;
}

/** Whether the process or the machine ran out of file descriptors or memory: the file is not to blame, and later it works. */
export function isExhausted(error: unknown): boolean {
  const code = error instanceof Error && 'code' in error ? error.code : undefined;
  return code === 'EMFILE' || code === 'ENFILE' || code === 'ENOMEM';
}

/** Writes all of `buffers` at `position`: a short write is continued, an error is not. */
export async function writeAll(file: DiskFile, buffers: readonly Uint8Array[], position: number): Promise<void> {
  let rest = buffers;
  let at = position;
  for (;;) {
    const written = await file.write(rest, at);
    rest = unwritten(rest, written);
    if (rest.length === 0) return;
    at += written;
  }
}

/** As `writeAll`, on the calling thread. */
export function writeAllNow(file: DiskFile, buffers: readonly Uint8Array[], position: number): void {
  let rest = buffers;
  let at = position;
  for (;;) {
    const written = file.writeNow(rest, at);
    rest = unwritten(rest, written);
    if (rest.length === 0) return;
    at += written;
  }
}

/** What is left of `buffers` after their first `writtenBytes`. */
function unwritten(buffers: readonly Uint8Array[], writtenBytes: number): readonly Uint8Array[] {
  let skip = writtenBytes;
  for (let index = 0; index < buffers.length; index++) {
    const buffer = buffers[index];
    if (skip < buffer.length) {
      if (index === 0 && skip === 0) return buffers;
      return [buffer.subarray(skip), ...buffers.slice(index + 1)];
    }
    skip -= buffer.length;
  }
  return [];
}

const ANEW_BYTES = 1024 * 1024;

/**
 * Writes once more what a file has from `from` to `to`. A sync that failed leaves pages that read well but count as clean:
 * no later sync brings them to the platter, and the process before this one may have ended because of just that.
 */
export async function writeAnew(file: DiskFile, from: number, to: number): Promise<void> {
  const window = Buffer.allocUnsafe(Math.max(0, Math.min(ANEW_BYTES, to - from)));
  for (let at = from; at < to; ) {
    const readBytes = await file.read(window.subarray(0, Math.min(window.length, to - at)), at);
    if (readBytes === 0) throw new Error(`${file.path} ends at ${at}, it had ${to} bytes`);
    await writeAll(file, [window.subarray(0, readBytes)], at);
    at += readBytes;
  }
}
