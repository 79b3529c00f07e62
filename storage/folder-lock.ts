/**
 * The lock on a data folder, exclusive for the broker, shared for offline readers. It ends with its process, however
 * that ends: kill -9 needs no repair.
 *
 * Two mechanisms, both used where both are there, so that a process without the native package sees one with it:
 * 1. flock(2) on `FOLDER/.lock`, through the optional package fs-ext. The kernel drops it with the process.
 * 2. Claims: each holder has a file of its own in `FOLDER/.locks/`, named and filled with what identifies the process
 *    for good: pid, its start time (/proc/PID/stat, field 22), the machine's boot id and the pid namespace. A pid that
 *    was given to another process meanwhile has another start time.
 *
 * Why claims cannot go wrong: a claim is made with O_EXCL *before* the others are looked at, so of two processes at
 * least one sees the other. A claim of a dead process names that process, so removing it can never remove the claim of
 * a living one (which a single lock file that is taken over could). Nobody holds the lock until its claim says `held`;
 * of two claims that are both still `asking`, the one with the higher name withdraws.
 *
 * Not for network file systems that several machines mount.
 */
import * as fs from 'node:fs';
import { join } from 'node:path';
import { MillraceError } from '../protocol/errors.ts';
import type { DiskLock } from './disk.ts';

export type LockKind = 'exclusive' | 'shared';

interface Flock {
  flockSync(fd: number, flags: 'exnb' | 'shnb' | 'un'): void;
}

interface Claim {
  pid: number;
  /** Start time of the process in clock ticks since boot; '' where the system does not tell. */
  started: string;
  boot: string;
  /** Pid namespace: inside another one our view of pids says nothing. */
  namespace: string;
  kind: LockKind;
  state: 'asking' | 'held';
  /** Whether the holder has the flock, too: then whoever gets the flock knows that the holder is gone. */
  hasFlock: boolean;
}

/** Looks at the claims this many times, so far apart, while another process decides, however busy the machine is. */
const LOOKS_MAX = 1000;
const LOOK_INTERVAL_MS = 5;

const isNodeError = (error: unknown): error is NodeJS.ErrnoException => error instanceof Error && 'code' in error;

/** fs-ext, or undefined where it is not installed or does not fit this Node. */
export async function loadFlock(): Promise<Flock | undefined> {
  // A name in a variable: the package is optional and has no types.
  const name = 'fs-ext';
  try {
    const loaded = (await import(name)) as { default?: Flock } & Flock;
    return loaded.default ?? loaded;
  } catch {
    return undefined; // Not there or built for another Node: claims alone do.
  }
}

/**
 * Takes the lock of `folder`, which must exist.
 * @throws MillraceError DATA_DIR_LOCKED naming the holder.
 */
export async function lockFolder(folder: string, kind: LockKind, flock: Flock | undefined): Promise<DiskLock> {
  const fd = flock === undefined ? undefined : takeFlock(flock, folder, kind);
  let claimPath: string;
  try {
    claimPath = claim(folder, kind, fd !== undefined);
  } catch (error) {
    if (fd !== undefined) fs.closeSync(fd);
    throw error;
  }
  let isHeld = true;
  return {
    async release() {
      if (!isHeld) return;
      isHeld = false;
      fs.rmSync(claimPath, { force: true });
      if (fd !== undefined) fs.closeSync(fd);
    },
  };
}

function takeFlock(flock: Flock, folder: string, kind: LockKind): number {
  const path = join(folder, '.lock');
  const fd = fs.openSync(path, fs.constants.O_RDWR | fs.constants.O_CREAT, 0o640);
  try {
    flock.flockSync(fd, kind === 'exclusive' ? 'exnb' : 'shnb');
    return fd;
  } catch (error) {
    const inode = fs.fstatSync(fd).ino;
    fs.closeSync(fd);
    if (!isNodeError(error) || (error.code !== 'EAGAIN' && error.code !== 'EWOULDBLOCK')) throw error;
    throw lockedError(folder, kind, flockHolder(inode));
  }
}

/** The pid that has a flock on `inode`, if the system tells. Lines of /proc/locks: `1: FLOCK ADVISORY WRITE 4711 08:01:1234 0 EOF`. */
function flockHolder(inode: number): number | undefined {
  const line = readText('/proc/locks')
    .split('\n')
    .find((each) => each.includes('FLOCK') && each.includes(`:${inode} `));
  const pid = Number(line?.trim().split(/\s+/)[4]);
  return pid > 0 ? pid : undefined;
}

/** Makes our claim and answers its path, or throws DATA_DIR_LOCKED. */
function claim(folder: string, kind: LockKind, hasFlock: boolean): string {
  const folderOfClaims = join(folder, '.locks');
  fs.mkdirSync(folderOfClaims, { recursive: true });
  const own: Claim = {
    pid: process.pid,
    started: processStart(process.pid),
    boot: readText('/proc/sys/kernel/random/boot_id').trim(),
    namespace: pidNamespace(),
    kind,
    state: 'asking',
    hasFlock,
  };
  const name = createClaim(folderOfClaims, own);
  const path = join(folderOfClaims, name);
  try {
    for (let looks = 0; looks < LOOKS_MAX; looks++) {
      const conflict = firstConflict(folderOfClaims, name, own);
      if (conflict === undefined) {
        replaceClaim(path, { ...own, state: 'held' });
        return path;
      }
      const mustYield = conflict.claim.state === 'held' || name > conflict.name;
      if (mustYield) throw lockedError(folder, kind, conflict.claim.pid, conflict.claim, conflict.path);
      pause(LOOK_INTERVAL_MS);
    }
    throw lockedError(folder, kind, undefined);
  } catch (error) {
    fs.rmSync(path, { force: true });
    throw error;
  }
}

/** Blocks the thread: a start has nothing else to do, and the clock of the broker is not for this. */
function pause(ms: number): void {
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, ms);
}

function createClaim(folder: string, own: Claim): string {
  for (let number = 0; ; number++) {
    const name = `${own.pid}-${own.started || '0'}-${own.boot.slice(0, 8) || '0'}-${number}`;
    try {
      // Filled under another name first: a claim that can be seen is whole.
      const temporary = join(folder, `.${name}.new`);
      fs.writeFileSync(temporary, JSON.stringify(own));
      try {
        fs.linkSync(temporary, join(folder, name));
      } finally {
        fs.rmSync(temporary, { force: true });
      }
      return name;
    } catch (error) {
      if (!isNodeError(error)) throw error;
      if (error.code === 'EEXIST') continue;
      if (error.code !== 'EPERM' && error.code !== 'ENOSYS' && error.code !== 'ENOTSUP') throw error;
      // No hard links here: O_EXCL gives the same, but for the moment between creation and content, in which the
      // others take an empty claim for one that is still asking.
      try {
        fs.writeFileSync(join(folder, name), JSON.stringify(own), { flag: 'wx' });
        return name;
      } catch (exists) {
        if (!isNodeError(exists) || exists.code !== 'EEXIST') throw exists;
      }
    }
  }
}

function replaceClaim(path: string, next: Claim): void {
  const temporary = join(path, '..', `.${path.slice(path.lastIndexOf('/') + 1)}.new`);
  fs.writeFileSync(temporary, JSON.stringify(next));
  fs.renameSync(temporary, path);
}

interface Conflict {
  name: string;
  path: string;
  claim: Claim;
}

/** The first claim of another living holder that excludes ours; claims of the dead are removed on the way. */
function firstConflict(folder: string, ownName: string, own: Claim): Conflict | undefined {
  for (const name of fs.readdirSync(folder).sort()) {
    if (name === ownName || name.startsWith('.')) continue;
    const path = join(folder, name);
    const other = readClaim(path);
    if (other === undefined) continue;
    if (!isAlive(other, own)) {
      fs.rmSync(path, { force: true });
      continue;
    }
    if (own.kind === 'exclusive' || other.kind === 'exclusive') return { name, path, claim: other };
  }
  return undefined;
}

/** Undefined if it went away meanwhile. */
function readClaim(path: string): Claim | undefined {
  let text: string;
  try {
    text = fs.readFileSync(path, 'utf8');
  } catch (error) {
    if (isNodeError(error) && error.code === 'ENOENT') return undefined;
    throw error;
  }
  const name = path.slice(path.lastIndexOf('/') + 1);
  try {
    return JSON.parse(text) as Claim; // Written by `createClaim`, of this or another version of ours.
  } catch {
    const [pid, started] = name.split('-');
    return { pid: Number(pid), started, boot: '', namespace: '', kind: 'exclusive', state: 'asking', hasFlock: false };
  }
}

function isAlive(other: Claim, own: Claim): boolean {
  if (other.boot !== '' && own.boot !== '' && other.boot !== own.boot) return false;
  // We hold the flock in a way that excludes theirs, so they do not hold it any more.
  if (own.hasFlock && other.hasFlock && (own.kind === 'exclusive' || other.kind === 'exclusive')) return false;
  // In another namespace (container) its pid means nothing to us: rather ask a person than share the folder.
  if (other.namespace !== '' && other.namespace !== own.namespace) return true;
  const started = processStart(other.pid);
  if (started !== '') return other.started === '' || other.started === started;
  if (own.started !== '') return false; // This system tells start times, and there is no such process.
  try {
    process.kill(other.pid, 0);
    return true;
  } catch (error) {
    return isNodeError(error) && error.code === 'EPERM';
  }
}

/** Field 22 of /proc/PID/stat; the second field, the name, is in parentheses and may hold spaces and parentheses. */
function processStart(pid: number): string {
  const text = readText(`/proc/${pid}/stat`);
  if (text === '') return '';
  const fields = text.slice(text.lastIndexOf(')') + 2).split(' ');
  // A zombie (state Z) holds nothing any more.
  return fields[0] === 'Z' || fields[0] === 'X' ? '' : (fields[19] ?? '');
}

function pidNamespace(): string {
  try {
    return fs.readlinkSync('/proc/self/ns/pid');
  } catch {
    return ''; // No /proc here.
  }
}

function readText(path: string): string {
  try {
    return fs.readFileSync(path, 'utf8');
  } catch {
    return ''; // Not on this system, or the process is gone.
  }
}

function lockedError(folder: string, kind: LockKind, pid?: number, claim?: Claim, claimPath?: string): MillraceError {
  const holder = pid === undefined ? 'another process' : `process ${pid}`;
  const what =
    kind === 'exclusive'
      ? 'Stop it first, or give this one a folder of its own (--data-dir).'
      : 'Stop the broker first, or read through it instead of from its folder.';
  const isElsewhere = claim !== undefined && claim.namespace !== '' && claim.namespace !== pidNamespace();
  const hint = isElsewhere
    ? ` It runs in another container, or did; if it is gone for sure, remove ${claimPath} and start again.`
    : '';
  return new MillraceError('DATA_DIR_LOCKED', `Data folder ${folder} is in use by ${holder}. ${what}${hint}`);
}
