/**
 * `Disk` in memory, over a `SimImage`. Deterministic; every operation is counted and traced, can be made to fail, and
 * the world can be stopped at any of them.
 *
 * Operations that change something (and syncs) are numbered from 1 in the order in which they start; reads have numbers
 * of their own. Without `latency` an operation ends in a promise callback, so that plain `await` works; with it, it ends
 * on the clock and operations overlap.
 *
 *     const disk = new SimDisk();
 *     … run something …
 *     const after = new SimDisk({ image: disk.image().afterPowerCut(new SimRandom(7), { unsynced: 'torn' }) });
 */
import { crc32 } from 'node:zlib';
import { MillraceError } from '../../protocol/errors.ts';
import type { Clock } from '../../storage/clock.ts';
import type { Disk, DiskFile, DiskLock, DiskStat, OpenMode } from '../../storage/disk.ts';
import { type PendingChange, SimFolder, SimImage, SimInode, type SimNode } from './sim-image.ts';
import type { SimRandom } from './sim-random.ts';

export type DiskFault = 'EIO' | 'ENOSPC' | 'short';

export interface SimDiskOptions {
  /** What the disk holds at first; it belongs to the disk from then on. Default: nothing. */
  image?: SimImage;
  /** Time for `modifiedMs` and latencies. */
  clock?: Clock;
  /** How long an operation takes, drawn evenly; one in twenty takes up to `slowMs` (default: none does). Needs `clock`. */
  latency?: { random: SimRandom; minMs: number; maxMs: number; slowMs?: number };
  /** Size of the disk in bytes; default unlimited. Counted in pages of 4 KiB. */
  spaceBytes?: number;
  /** Called when each numbered operation is under way (started, not answered): the moments at which the world may end. */
  onOperation?: (number: number, what: string) => void;
}

interface StartedWrite {
  pending: PendingChange;
  error: DiskFault | undefined;
  writtenBytes: number;
}

export class SimDisk implements Disk {
  readonly #image: SimImage;
  readonly #clock: Clock | undefined;
  readonly #latency: SimDiskOptions['latency'];
  readonly #onOperation: SimDiskOptions['onOperation'];
  #spaceBytes: number;
  #operations = 0;
  #reads = 0;
  #syncs = 0;
  #stopAt = Number.POSITIVE_INFINITY;
  #isStopped = false;
  /** Faults that `failAt` asked for and that have happened. */
  faultsInjected = 0;
  #faults: { from: number; to: number; of: 'operation' | 'read'; fault: DiskFault; path: string }[] = [];
  #traceHash = 0;
  #trace: string[] | undefined;
  readonly #locks = new Map<string, { kind: 'exclusive' | 'shared'; count: number }>();

  constructor(options: SimDiskOptions = {}) {
    this.#image = options.image ?? new SimImage();
    this.#clock = options.clock;
    this.#latency = options.latency;
    this.#onOperation = options.onOperation;
    this.#spaceBytes = options.spaceBytes ?? Number.POSITIVE_INFINITY;
  }

  /** Changes and syncs started so far. */
  get operations(): number {
    return this.#operations;
  }
  get reads(): number {
    return this.#reads;
  }
  /** Syncs of files and folders, and synced writes, that have ended. */
  get syncs(): number {
    return this.#syncs;
  }
  get isStopped(): boolean {
    return this.#isStopped;
  }
  /** Hash over all operations so far: their kind, path, place and bytes. */
  get traceHash(): number {
    return this.#traceHash;
  }
  /** The operations as text, from the call of `recordTrace` on. */
  get trace(): readonly string[] {
    return this.#trace ?? [];
  }
  recordTrace(): void {
    this.#trace ??= [];
  }

  /** A copy of everything, as of now. */
  image(): SimImage {
    return this.#image.fork();
  }

  /** The world ends with operation `number` under way: it and all later ones never end, nor do reads. */
  stopAt(number: number): void {
    this.#stopAt = number;
  }
  stop(): void {
    this.#isStopped = true;
  }

  /** Operation `number` fails (`short`: a write does less than asked, once). `times` in a row; `path`: only those whose path contains it. */
  failAt(
    number: number,
    fault: DiskFault,
    options: { times?: number; of?: 'operation' | 'read'; path?: string } = {},
  ): void {
    const { times = 1, of = 'operation', path = '' } = options;
    this.#faults.push({ from: number, to: number + times - 1, of, fault, path });
  }
  /** From now on no fault is injected. */
  heal(): void {
    this.#faults = [];
  }

  setSpace(bytes: number): void {
    this.#spaceBytes = bytes;
  }

  async open(path: string, mode: OpenMode): Promise<DiskFile> {
    const found = this.#find(path);
    if (found?.kind === 'folder') throw diskError('EISDIR', 'open', path);
    if (found !== undefined || mode === 'read') {
      await this.#turn(this.#read('open', path));
      if (found === undefined) throw diskError('ENOENT', 'open', path);
      return new SimFile(this, path, found, mode);
    }
    const { folder, name } = this.#parent(path, 'open');
    const inode = new SimInode(this.#now());
    await this.#changeNames('create', path, [{ folder, name, node: inode }]);
    return new SimFile(this, path, inode, mode);
  }

  async readFile(path: string): Promise<Uint8Array | undefined> {
    await this.#turn(this.#read('readFile', path));
    const inode = this.#find(path);
    if (inode === undefined) return undefined;
    if (inode.kind === 'folder') throw diskError('EISDIR', 'read', path);
    const bytes = new Uint8Array(inode.cached.sizeBytes);
    inode.cached.read(bytes, 0);
    return bytes;
  }

  async list(path: string): Promise<string[]> {
    await this.#turn(this.#read('list', path));
    const folder = this.#find(path);
    if (folder === undefined) return [];
    if (folder.kind === 'file') throw diskError('ENOTDIR', 'scandir', path);
    return [...folder.cached.keys()].sort();
  }

  async stat(path: string): Promise<DiskStat | undefined> {
    await this.#turn(this.#read('stat', path));
    const node = this.#find(path);
    if (node === undefined) return undefined;
    if (node.kind === 'folder') return { sizeBytes: 0, isDirectory: true, modifiedMs: 0 };
    return { sizeBytes: node.cached.sizeBytes, isDirectory: false, modifiedMs: node.modifiedMs };
  }

  async makeDirectory(path: string): Promise<void> {
    let folder = this.#image.root;
    let at = '';
    for (const name of partsOf(path)) {
      at += `/${name}`;
      let next = folder.cached.get(name);
      if (next?.kind === 'file') throw diskError('EEXIST', 'mkdir', path);
      if (next === undefined) {
        await this.#changeNames('mkdir', at, [{ folder, name, node: new SimFolder() }]);
        // Another call may have made it meanwhile; the map has the one that counts.
        next = folder.cached.get(name);
        if (next?.kind !== 'folder') throw diskError('ENOENT', 'mkdir', path);
      }
      folder = next;
    }
    await this.#turn(undefined);
  }

  async rename(from: string, to: string): Promise<void> {
    const source = this.#parent(from, 'rename');
    const target = this.#parent(to, 'rename');
    const node = source.folder.cached.get(source.name);
    if (node === undefined) throw diskError('ENOENT', 'rename', from);
    const replaced = target.folder.cached.get(target.name);
    if (replaced?.kind === 'folder' && replaced.cached.size > 0) throw diskError('ENOTEMPTY', 'rename', to);
    await this.#changeNames(`rename to ${to}`, from, [
      { ...source, node: undefined },
      { ...target, node },
    ]);
  }

  async remove(path: string): Promise<void> {
    const node = this.#find(path);
    if (node === undefined) return this.#turn(undefined);
    if (node.kind === 'folder') throw diskError('EISDIR', 'unlink', path);
    await this.#changeNames('remove', path, [{ ...this.#parent(path, 'unlink'), node: undefined }]);
  }

  async removeDirectory(path: string): Promise<void> {
    const node = this.#find(path);
    if (node === undefined) return this.#turn(undefined);
    if (node.kind === 'folder') {
      for (const name of [...node.cached.keys()].sort()) await this.removeDirectory(`${path}/${name}`);
    }
    if (this.#find(path) !== node) return;
    await this.#changeNames('remove', path, [{ ...this.#parent(path, 'rmdir'), node: undefined }]);
  }

  async syncDirectory(path: string): Promise<void> {
    const folder = this.#find(path);
    if (folder?.kind !== 'folder') throw diskError('ENOENT', 'open', path);
    if (this.#isStopped) return never();
    const fault = this.#begin('syncDirectory', path);
    const covered = this.#image.nameChanges.slice();
    this.#underWay(`syncDirectory ${path}`);
    if (this.#isStopped) return never();
    await this.#turn(undefined);
    if (fault === 'EIO' || fault === 'ENOSPC') throw diskError(fault, 'fsync', path);
    const last = covered.findLast((change) => this.#image.nameChanges.includes(change));
    this.#image.syncNames(folder, last === undefined ? 0 : this.#image.nameChanges.indexOf(last) + 1);
    this.#syncs++;
  }

  async freeBytes(path: string): Promise<number> {
    await this.#turn(this.#read('statfs', path));
    return this.#spaceBytes === Number.POSITIVE_INFINITY
      ? 2 ** 50
      : Math.max(0, this.#spaceBytes - this.#image.usedBytes());
  }

  async lock(path: string, kind: 'exclusive' | 'shared'): Promise<DiskLock> {
    await this.#turn(undefined);
    const held = this.#locks.get(path);
    if (held !== undefined && (kind === 'exclusive' || held.kind === 'exclusive')) {
      throw new MillraceError('DATA_DIR_LOCKED', `Data folder ${path} is in use by process 1.`);
    }
    this.#locks.set(path, { kind, count: (held?.count ?? 0) + 1 });
    let isHeld = true;
    const locks = this.#locks;
    return {
      async release() {
        const now = locks.get(path);
        if (!isHeld || now === undefined) return;
        isHeld = false;
        if (now.count === 1) locks.delete(path);
        else locks.set(path, { kind, count: now.count - 1 });
      },
    };
  }

  // What files need. Not for tests.

  async readAt(path: string, inode: SimInode, target: Uint8Array, position: number): Promise<number> {
    await this.#turn(this.#read('read', path));
    return inode.cached.read(target, position);
  }

  async write(
    path: string,
    inode: SimInode,
    buffers: readonly Uint8Array[],
    position: number,
    isSynced: boolean,
  ): Promise<number> {
    if (this.#isStopped) return never();
    const write = this.#startWrite(path, inode, buffers, position);
    if (this.#isStopped) return never();
    await this.#turn(undefined);
    return this.#endWrite(path, inode, write, isSynced);
  }

  writeNow(path: string, inode: SimInode, buffers: readonly Uint8Array[], position: number, isSynced: boolean): number {
    const write = this.#startWrite(path, inode, buffers, position);
    // The caller's thread stands still for good; here, its caller has to notice. Nothing of it is ever answered.
    if (this.#isStopped) throw new SimStopped();
    return this.#endWrite(path, inode, write, isSynced);
  }

  async sync(path: string, inode: SimInode): Promise<void> {
    if (this.#isStopped) return never();
    const fault = this.#begin('sync', path);
    const covered = inode.pending.filter(({ state }) => state === 'cached');
    this.#underWay(`sync ${path}`);
    if (this.#isStopped) return never();
    await this.#turn(undefined);
    if (fault === 'EIO' || fault === 'ENOSPC') {
      // The kernel reports a failed write-back once and forgets it: no later sync covers these bytes.
      for (const pending of covered) if (pending.state === 'cached') pending.state = 'doomed';
      throw diskError(fault, 'fdatasync', path);
    }
    for (const pending of covered) if (pending.state === 'cached') pending.state = 'stable';
    inode.fold();
    this.#syncs++;
  }

  async truncate(path: string, inode: SimInode, sizeBytes: number): Promise<void> {
    if (this.#isStopped) return never();
    const fault = this.#begin('truncate', path, `to ${sizeBytes}`);
    if (fault === 'EIO' || fault === 'ENOSPC') {
      await this.#turn(undefined);
      throw diskError(fault, 'ftruncate', path);
    }
    this.#allocate(inode, sizeBytes);
    const pending = inode.add({ kind: 'truncate', sizeBytes }, 'flying');
    this.#underWay(`truncate ${path} to ${sizeBytes}`);
    if (this.#isStopped) return never();
    await this.#turn(undefined);
    pending.state = 'cached';
    inode.modifiedMs = this.#now();
  }

  async sizeOf(path: string, inode: SimInode): Promise<number> {
    await this.#turn(this.#read('size', path));
    return inode.cached.sizeBytes;
  }

  #startWrite(path: string, inode: SimInode, buffers: readonly Uint8Array[], position: number): StartedWrite {
    const whole = Buffer.concat(buffers);
    const fault = this.#begin('write', path, `${position}+${whole.length}`, whole);
    let bytes: Uint8Array = whole;
    let error: DiskFault | undefined = fault;
    if (fault === 'short') {
      bytes = whole.subarray(0, Math.max(1, whole.length >>> 1));
      error = undefined;
    } else if (fault !== undefined) {
      // Half of it may have got there before the error.
      bytes = whole.subarray(0, this.#operations % 2 === 0 ? 0 : whole.length >>> 1);
    } else {
      const room = this.#allocate(inode, position + whole.length);
      if (room < position + whole.length) {
        bytes = whole.subarray(0, Math.max(0, room - position));
        if (bytes.length === 0) error = 'ENOSPC';
      }
    }
    const pending = inode.add({ kind: 'write', position, bytes }, 'flying');
    this.#underWay(`write ${path} ${position}+${whole.length}`);
    return { pending, error, writtenBytes: bytes.length };
  }

  #endWrite(path: string, inode: SimInode, write: StartedWrite, isSynced: boolean): number {
    inode.modifiedMs = this.#now();
    if (write.error !== undefined) {
      write.pending.state = 'doomed';
      throw diskError(write.error, 'write', path);
    }
    write.pending.state = isSynced ? 'stable' : 'cached';
    if (isSynced) {
      inode.fold();
      this.#syncs++;
    }
    return write.writtenBytes;
  }

  /** How far the file may reach, at most `endBytes`. */
  #allocate(inode: SimInode, endBytes: number): number {
    if (this.#spaceBytes === Number.POSITIVE_INFINITY) return endBytes;
    const has = Math.ceil(inode.cached.sizeBytes / 4096) * 4096;
    const wants = Math.ceil(endBytes / 4096) * 4096;
    if (wants <= has) return endBytes;
    const free = Math.max(0, Math.floor((this.#spaceBytes - this.#image.usedBytes()) / 4096) * 4096);
    return Math.min(endBytes, has + Math.min(wants - has, free));
  }

  async #changeNames(
    what: string,
    path: string,
    sets: { folder: SimFolder; name: string; node: SimNode | undefined }[],
  ): Promise<void> {
    if (this.#isStopped) return never();
    const fault = this.#begin(what, path);
    if (fault === 'EIO' || fault === 'ENOSPC') {
      await this.#turn(undefined);
      throw diskError(fault, what, path);
    }
    this.#image.change(sets);
    this.#underWay(`${what} ${path}`);
    if (this.#isStopped) return never();
    await this.#turn(undefined);
  }

  /** Numbers and traces an operation that changes something; answers the fault it is to have. */
  #begin(kind: string, path: string, detail = '', bytes?: Uint8Array): DiskFault | undefined {
    if (this.#isStopped) throw new SimStopped();
    const number = ++this.#operations;
    const what = `${kind} ${path} ${detail}`;
    this.#note(what, bytes);
    if (number >= this.#stopAt) this.#isStopped = true;
    return this.#faultAt('operation', number, path);
  }

  #underWay(what: string): void {
    this.#onOperation?.(this.#operations, what);
  }

  #read(kind: string, path: string): string | undefined {
    const number = ++this.#reads;
    const fault = this.#faultAt('read', number, path);
    return fault === 'EIO' ? `${kind} ${path}` : undefined;
  }

  #faultAt(of: 'operation' | 'read', number: number, path: string): DiskFault | undefined {
    for (const each of this.#faults) {
      if (each.of !== of || number < each.from || number > each.to || !path.includes(each.path)) continue;
      this.faultsInjected++;
      return each.fault;
    }
    return undefined;
  }

  #note(what: string, bytes?: Uint8Array): void {
    const hash = crc32(what, this.#traceHash);
    this.#traceHash = bytes === undefined ? hash : crc32(bytes, hash);
    this.#trace?.push(`${this.#operations} ${what}`);
  }

  /** Lets time pass; never ends if the world has. */
  async #turn(failing: string | undefined): Promise<void> {
    if (this.#isStopped) return never();
    const latency = this.#latency;
    if (latency !== undefined && this.#clock !== undefined) {
      const clock = this.#clock;
      const isSlow = latency.slowMs !== undefined && latency.random.chance(0.05);
      const spanMs = (isSlow ? (latency.slowMs ?? 0) : latency.maxMs) - latency.minMs;
      const delayMs = latency.minMs + (spanMs * latency.random.uint32()) / 4_294_967_296;
      await new Promise<void>((resolve) => clock.after(delayMs, resolve));
    } else {
      await undefined;
    }
    if (this.#isStopped) return never();
    if (failing !== undefined) throw diskError('EIO', failing.split(' ')[0], failing);
  }

  #now(): number {
    return this.#clock?.now() ?? 0;
  }

  #find(path: string): SimNode | undefined {
    let node: SimNode = this.#image.root;
    for (const name of partsOf(path)) {
      const next: SimNode | undefined = node.kind === 'folder' ? node.cached.get(name) : undefined;
      if (next === undefined) return undefined;
      node = next;
    }
    return node;
  }

  #parent(path: string, call: string): { folder: SimFolder; name: string } {
    const parts = partsOf(path);
    const name = parts.pop();
    const folder = this.#find(parts.join('/'));
    if (name === undefined || folder?.kind !== 'folder') throw diskError('ENOENT', call, path);
    return { folder, name };
  }
}

/** Thrown into code that goes on after the world has stopped; it must not be taken for an answer of the disk. */
export class SimStopped extends Error {
  override readonly name = 'SimStopped';
  constructor() {
    super('the simulated world has stopped');
  }
}

class SimFile implements DiskFile {
  readonly path: string;
  readonly #disk: SimDisk;
  readonly #inode: SimInode;
  readonly #mode: OpenMode;
  #isOpen = true;

  constructor(disk: SimDisk, path: string, inode: SimInode, mode: OpenMode) {
    this.#disk = disk;
    this.path = path;
    this.#inode = inode;
    this.#mode = mode;
  }

  async read(target: Uint8Array, position: number): Promise<number> {
    this.#check('read');
    return this.#disk.readAt(this.path, this.#inode, target, position);
  }
  async write(buffers: readonly Uint8Array[], position: number): Promise<number> {
    this.#check('write');
    return this.#disk.write(this.path, this.#inode, buffers, position, this.#mode === 'synced');
  }
  writeNow(buffers: readonly Uint8Array[], position: number): number {
    this.#check('write');
    return this.#disk.writeNow(this.path, this.#inode, buffers, position, this.#mode === 'synced');
  }
  async sync(): Promise<void> {
    this.#check('sync');
    return this.#disk.sync(this.path, this.#inode);
  }
  async size(): Promise<number> {
    this.#check('size');
    return this.#disk.sizeOf(this.path, this.#inode);
  }
  async truncate(sizeBytes: number): Promise<void> {
    this.#check('write');
    return this.#disk.truncate(this.path, this.#inode, sizeBytes);
  }
  async close(): Promise<void> {
    this.#isOpen = false;
  }

  #check(call: 'read' | 'write' | 'sync' | 'size'): void {
    if (!this.#isOpen) throw new Error(`${this.path} is closed`);
    if (call === 'write' && this.#mode === 'read') throw diskError('EBADF', 'write', this.path);
  }
}

function partsOf(path: string): string[] {
  return path.split('/').filter((part) => part !== '' && part !== '.');
}

function diskError(code: string, call: string, path: string): NodeJS.ErrnoException {
  return Object.assign(new Error(`${code}: simulated, ${call} '${path}'`), { code, syscall: call, path });
}

function never(): Promise<never> {
  return new Promise(() => {});
}
