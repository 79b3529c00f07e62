/**
 * `Disk` on the machine's file system. Thin: integer descriptors and callback calls (fs.promises costs several times as
 * much per operation), nothing is buffered, nothing is retried.
 *
 * Always true: a closed `DiskFile` never reaches its descriptor again (the number may belong to another file by then);
 * `close` waits for what is still under way.
 */
import * as fs from 'node:fs';
import type { Disk, DiskFile, DiskLock, DiskStat, OpenMode } from './disk.ts';
import { loadFlock, lockFolder } from './folder-lock.ts';

/** Linux's IOV_MAX; more buffers than that in one call are an error. */
const BUFFERS_MAX = 1024;

/**
 * O_DSYNC where it means what it says. macOS has the flag, but only F_FULLFSYNC (which fdatasync of libuv is there)
 * empties the drive's cache; Windows has none. There, a write is followed by fdatasync.
 */
const synchronousFlag: number | undefined = process.platform === 'linux' ? fs.constants.O_DSYNC : undefined;

export interface NodeDiskOptions {
  /** Use flock(2) for the folder lock if the optional package is there; default true. */
  useFlock?: boolean;
  /** Open 'synced' files O_DSYNC where the system has it, else write + fdatasync; default true. */
  useSynchronousFlag?: boolean;
}

export class NodeDisk implements Disk {
  readonly #useFlock: boolean;
  readonly #synchronousFlag: number | undefined;

  constructor(options: NodeDiskOptions = {}) {
    this.#useFlock = options.useFlock ?? true;
    this.#synchronousFlag = (options.useSynchronousFlag ?? true) ? synchronousFlag : undefined;
  }

  open(path: string, mode: OpenMode): Promise<DiskFile> {
    const isSynced = mode === 'synced';
    const flags =
      mode === 'read'
        ? fs.constants.O_RDONLY
        : fs.constants.O_RDWR | fs.constants.O_CREAT | (isSynced ? (this.#synchronousFlag ?? 0) : 0);
    const syncsByCall = isSynced && this.#synchronousFlag === undefined;
    return new Promise((resolve, reject) => {
      fs.open(path, flags, mode === 'private' ? 0o600 : 0o640, (error, fd) => {
        if (error) reject(error);
        else resolve(new NodeFile(path, fd, syncsByCall));
      });
    });
  }

  async readFile(path: string): Promise<Uint8Array | undefined> {
    return orUndefined(await settled(called<Buffer>((done) => fs.readFile(path, done))));
  }

  async list(path: string): Promise<string[]> {
    const names = orUndefined(await settled(called<string[]>((done) => fs.readdir(path, done))));
    return names === undefined ? [] : names.sort();
  }

  async stat(path: string): Promise<DiskStat | undefined> {
    const stat = orUndefined(await settled(called<fs.Stats>((done) => fs.stat(path, done))));
    if (stat === undefined) return undefined;
    return { sizeBytes: stat.size, isDirectory: stat.isDirectory(), modifiedMs: stat.mtimeMs };
  }

  async makeDirectory(path: string): Promise<void> {
    await fs.promises.mkdir(path, { recursive: true, mode: 0o750 });
  }

  rename(from: string, to: string): Promise<void> {
    return called((done) => fs.rename(from, to, done));
  }

  async remove(path: string): Promise<void> {
    orUndefined(await settled(called<void>((done) => fs.unlink(path, done))));
  }

  removeDirectory(path: string): Promise<void> {
    return fs.promises.rm(path, { recursive: true, force: true });
  }

  async syncDirectory(path: string): Promise<void> {
    // Windows cannot open a folder for this, and keeps its directory entries in its own journal.
    if (process.platform === 'win32') return;
    const fd = await called<number>((done) => fs.open(path, 'r', done));
    try {
      await called<void>((done) => fs.fsync(fd, done));
    } finally {
      await called<void>((done) => fs.close(fd, done));
    }
  }

  async freeBytes(path: string): Promise<number> {
    const stat = await fs.promises.statfs(path);
    return stat.bavail * stat.bsize;
  }

  async lock(path: string, kind: 'exclusive' | 'shared'): Promise<DiskLock> {
    return lockFolder(path, kind, this.#useFlock ? await loadFlock() : undefined);
  }
}

class NodeFile implements DiskFile {
  readonly path: string;
  #fd: number;
  readonly #syncsByCall: boolean;
  #pending = 0;
  #whenIdle: (() => void) | undefined;

  constructor(path: string, fd: number, syncsByCall: boolean) {
    this.path = path;
    this.#fd = fd;
    this.#syncsByCall = syncsByCall;
  }

  read(target: Uint8Array, position: number): Promise<number> {
    return new Promise((resolve, reject) => {
      const fd = this.#begin();
      let done = 0;
      const next = (error: NodeJS.ErrnoException | null, readBytes: number): void => {
        if (error === null) {
          done += readBytes;
          // read(2) may answer less than there is; only 0 means the end.
          if (readBytes > 0 && done < target.length) {
            fs.read(fd, target, done, target.length - done, position + done, next);
            return;
          }
        }
        this.#end();
        if (error) reject(this.#named(error));
        else resolve(done);
      };
      if (target.length === 0) next(null, 0);
      else fs.read(fd, target, 0, target.length, position, next);
    });
  }

  write(buffers: readonly Uint8Array[], position: number): Promise<number> {
    return new Promise((resolve, reject) => {
      const fd = this.#begin();
      const finish = (error: NodeJS.ErrnoException | null, writtenBytes: number): void => {
        this.#end();
        if (error) reject(this.#named(error));
        else if (writtenBytes === 0 && hasBytes(buffers)) reject(this.#nothingWritten(position));
        else resolve(writtenBytes);
      };
      const written = (error: NodeJS.ErrnoException | null, writtenBytes: number): void => {
        if (error || !this.#syncsByCall) finish(error, writtenBytes);
        else fs.fdatasync(fd, (syncError) => finish(syncError, writtenBytes));
      };
      if (buffers.length === 0) finish(null, 0);
      else if (buffers.length === 1) fs.write(fd, buffers[0], 0, buffers[0].length, position, written);
      else fs.writev(fd, within(buffers), position, written);
    });
  }

  writeNow(buffers: readonly Uint8Array[], position: number): number {
    const fd = this.#openFd();
    if (buffers.length === 0) return 0;
    try {
      const writtenBytes =
        buffers.length === 1
          ? fs.writeSync(fd, buffers[0], 0, buffers[0].length, position)
          : fs.writevSync(fd, within(buffers), position);
      if (this.#syncsByCall) fs.fdatasyncSync(fd);
      if (writtenBytes === 0 && hasBytes(buffers)) throw this.#nothingWritten(position);
      return writtenBytes;
    } catch (error) {
      throw this.#named(error);
    }
  }

  sync(): Promise<void> {
    return this.#call((fd, done) => fs.fdatasync(fd, done));
  }

  async size(): Promise<number> {
    try {
      // On the calling thread: of an open file the kernel has the size in memory, and a thread costs twenty times the call.
      return fs.fstatSync(this.#openFd()).size;
    } catch (error) {
      throw this.#named(error);
    }
  }

  truncate(sizeBytes: number): Promise<void> {
    return this.#call((fd, done) => fs.ftruncate(fd, sizeBytes, done));
  }

  async close(): Promise<void> {
    const fd = this.#fd;
    if (fd === -1) return;
    this.#fd = -1;
    if (this.#pending > 0) {
      await new Promise<void>((resolve) => {
        this.#whenIdle = resolve;
      });
    }
    await new Promise<void>((resolve, reject) => {
      fs.close(fd, (error) => (error ? reject(this.#named(error)) : resolve()));
    });
  }

  #call(run: (fd: number, done: (error: NodeJS.ErrnoException | null) => void) => void): Promise<void> {
    return new Promise((resolve, reject) => {
      run(this.#begin(), (error) => {
        this.#end();
        if (error) reject(this.#named(error));
        else resolve();
      });
    });
  }

  #openFd(): number {
    if (this.#fd === -1) throw new Error(`${this.path} is closed`);
    return this.#fd;
  }
  #begin(): number {
    const fd = this.#openFd();
    this.#pending++;
    return fd;
  }
  #end(): void {
    this.#pending--;
    if (this.#pending === 0) this.#whenIdle?.();
  }

  /** Errors of calls on a descriptor do not name the file. */
  #named(error: unknown): unknown {
    if (error instanceof Error && !error.message.includes(this.path)) error.message += `, ${this.path}`;
    return error;
  }

  #nothingWritten(position: number): Error {
    return Object.assign(new Error(`EIO: nothing was written at ${position}, ${this.path}`), { code: 'EIO' });
  }
}

/** What one call takes. The cast: Node's types want a mutable array, writev only reads it. */
function within(buffers: readonly Uint8Array[]): Uint8Array[] {
  return buffers.length > BUFFERS_MAX ? buffers.slice(0, BUFFERS_MAX) : (buffers as Uint8Array[]);
}

function hasBytes(buffers: readonly Uint8Array[]): boolean {
  return buffers.some((buffer) => buffer.length > 0);
}

type Settled<T> = { value: T } | { error: NodeJS.ErrnoException };

/** A callback call as a promise. */
function called<T>(run: (done: (error: NodeJS.ErrnoException | null, value?: T) => void) => void): Promise<T> {
  return new Promise((resolve, reject) => {
    // A call without an error has a value, save those whose T is void.
    run((error, value) => (error ? reject(error) : resolve(value as T)));
  });
}

async function settled<T>(promise: Promise<T>): Promise<Settled<T>> {
  try {
    return { value: await promise };
  } catch (error) {
    if (error instanceof Error) return { error };
    throw error;
  }
}

/** The value, undefined if the path does not exist, else the error is thrown. */
function orUndefined<T>(result: Settled<T>): T | undefined {
  if ('value' in result) return result.value;
  if (result.error.code === 'ENOENT') return undefined;
  throw result.error;
}
