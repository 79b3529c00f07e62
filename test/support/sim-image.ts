/**
 * What a simulated disk holds, and what a power cut or a kill leaves of it. Pure data, no time.
 *
 * A file is its *stable* content (what a power cut cannot take) and a list of changes since, in order; `cached` is what
 * readers see, all changes applied. A folder likewise: stable names, and changes of names since. A sync makes changes
 * stable; a power cut keeps any subset of the others, whole or torn at 512 B or 4 KiB, each on its own: a later
 * change may survive an earlier one. That is more than real file systems do, and nothing that POSIX promises against.
 *
 * Content is pages that never change once written, so a copy of the whole image shares everything.
 */
import type { SimRandom } from './sim-random.ts';

const PAGE_BYTES = 4096;
const zeroPage = Buffer.alloc(PAGE_BYTES);

/** Bytes with a size; `undefined` pages are zeros. */
export class Content {
  #pages: (Uint8Array | undefined)[];
  #sizeBytes: number;
  #isShared = false;

  constructor(pages: (Uint8Array | undefined)[] = [], sizeBytes = 0) {
    this.#pages = pages;
    this.#sizeBytes = sizeBytes;
  }

  get sizeBytes(): number {
    return this.#sizeBytes;
  }

  /** A copy that shares all pages until one of the two is changed. */
  fork(): Content {
    this.#isShared = true;
    const copy = new Content(this.#pages, this.#sizeBytes);
    copy.#isShared = true;
    return copy;
  }

  read(target: Uint8Array, position: number): number {
    const length = Math.max(0, Math.min(target.length, this.#sizeBytes - position));
    for (let done = 0; done < length; ) {
      const at = position + done;
      const start = at % PAGE_BYTES;
      const part = Math.min(PAGE_BYTES - start, length - done);
      const page = this.#pages[(at - start) / PAGE_BYTES] ?? zeroPage;
      target.set(page.subarray(start, start + part), done);
      done += part;
    }
    return length;
  }

  write(bytes: Uint8Array, position: number): void {
    this.#own();
    for (let done = 0; done < bytes.length; ) {
      const at = position + done;
      const start = at % PAGE_BYTES;
      const part = Math.min(PAGE_BYTES - start, bytes.length - done);
      const index = (at - start) / PAGE_BYTES;
      const page = new Uint8Array(PAGE_BYTES);
      const old = this.#pages[index];
      if (old !== undefined) page.set(old);
      page.set(bytes.subarray(done, done + part), start);
      while (this.#pages.length < index) this.#pages.push(undefined);
      this.#pages[index] = part === PAGE_BYTES && zeroPage.equals(page) ? undefined : page;
      done += part;
    }
    this.#sizeBytes = Math.max(this.#sizeBytes, position + bytes.length);
  }

  truncate(sizeBytes: number): void {
    this.#own();
    if (sizeBytes < this.#sizeBytes) {
      const whole = Math.ceil(sizeBytes / PAGE_BYTES);
      if (this.#pages.length > whole) this.#pages.length = whole;
      const rest = sizeBytes % PAGE_BYTES;
      const last = rest === 0 ? undefined : this.#pages[whole - 1];
      if (last !== undefined) {
        const page = new Uint8Array(PAGE_BYTES);
        page.set(last.subarray(0, rest));
        this.#pages[whole - 1] = page;
      }
    }
    this.#sizeBytes = sizeBytes;
  }

  #own(): void {
    if (!this.#isShared) return;
    this.#pages = this.#pages.slice();
    this.#isShared = false;
  }
}

export type FileChange =
  | { readonly kind: 'write'; readonly position: number; readonly bytes: Uint8Array }
  | { readonly kind: 'truncate'; readonly sizeBytes: number };

/** `flying`: not yet returned to the caller. `doomed`: a sync of it failed, no later sync makes it stable. */
type ChangeState = 'flying' | 'cached' | 'doomed' | 'stable';

export interface PendingChange {
  readonly change: FileChange;
  state: ChangeState;
}

export class SimInode {
  readonly kind = 'file';
  modifiedMs: number;
  cached: Content;
  #stable: Content;
  pending: PendingChange[] = [];

  constructor(modifiedMs: number, stable = new Content(), cached = stable.fork()) {
    this.modifiedMs = modifiedMs;
    this.#stable = stable;
    this.cached = cached;
  }

  add(change: FileChange, state: ChangeState): PendingChange {
    apply(this.cached, change);
    const pending = { change, state };
    this.pending.push(pending);
    return pending;
  }

  /** Moves what is stable at the head of the list into the stable content. */
  fold(): void {
    let count = 0;
    while (count < this.pending.length && this.pending[count].state === 'stable') count++;
    if (count === 0) return;
    if (count === this.pending.length) {
      this.#stable = this.cached.fork();
      this.pending = [];
      return;
    }
    for (let index = 0; index < count; index++) apply(this.#stable, this.pending[index].change);
    this.pending = this.pending.slice(count);
  }

  fork(): SimInode {
    const copy = new SimInode(this.modifiedMs, this.#stable.fork(), this.cached.fork());
    copy.pending = this.pending.map(({ change, state }) => ({ change, state }));
    return copy;
  }

  /** As after the process died: what had returned is there, of what was under way perhaps a part. */
  afterKill(random: SimRandom): SimInode {
    if (this.pending.every(({ state }) => state !== 'flying')) return this.fork();
    const cached = this.#stable.fork();
    const copy = new SimInode(this.modifiedMs, this.#stable.fork(), cached);
    for (const { change, state } of this.pending) {
      const kept = state === 'flying' ? beginning(change, random) : change;
      if (kept !== undefined) copy.add(kept, state === 'flying' ? 'cached' : state);
    }
    return copy;
  }

  /** As after a power cut: see `CutOptions`. */
  afterPowerCut(random: SimRandom, options: CutOptions): SimInode {
    const content = this.#stable.fork();
    let reachedBytes = content.sizeBytes;
    for (const { change, state } of this.pending) {
      if (change.kind === 'write') reachedBytes = Math.max(reachedBytes, change.position + change.bytes.length);
      for (const part of state === 'stable' ? [change] : survivors(change, random, options)) {
        apply(content, part);
        if (part.kind === 'truncate') reachedBytes = part.sizeBytes;
      }
    }
    // The size can be durable before the data: then the lost end reads as zeros.
    if (reachedBytes > content.sizeBytes && options.unsynced !== 'lost' && random.chance(options.sizeKept ?? 0.3)) {
      content.truncate(reachedBytes);
    }
    return new SimInode(this.modifiedMs, content);
  }
}

export interface CutOptions {
  /**
   * What happens to changes that no sync covers. `lost`: all gone. `kept`: all there. `whole`: each there or not (so
   * in any order). `torn`: each piece of `tornBytes` of each write there or not. `prefix`: each up to some piece.
   */
  unsynced: 'lost' | 'kept' | 'whole' | 'torn' | 'prefix';
  /** Size of a piece; default 512. */
  tornBytes?: 512 | 4096;
  /** Probability that a change, or a piece of it, is kept; default 0.5. */
  keptProbability?: number;
  /** Probability that a file keeps its size though the data at its end is lost; default 0.3. */
  sizeKept?: number;
  /** What happens to names in folders that were not synced; default as `unsynced`: all, none, or each on its own. */
  names?: 'lost' | 'kept' | 'some';
}

function survivors(change: FileChange, random: SimRandom, options: CutOptions): FileChange[] {
  const probability = options.keptProbability ?? 0.5;
  if (options.unsynced === 'lost') return [];
  if (options.unsynced === 'kept') return [change];
  if (options.unsynced === 'whole' || change.kind === 'truncate') return random.chance(probability) ? [change] : [];
  const pieceBytes = options.tornBytes ?? 512;
  const { position, bytes } = change;
  const end = position + bytes.length;
  const kept: FileChange[] = [];
  const pieces = Math.ceil(end / pieceBytes) - Math.floor(position / pieceBytes);
  const prefixPieces = random.below(pieces + 1);
  let number = 0;
  for (let at = position; at < end; number++) {
    const next = Math.min(end, (Math.floor(at / pieceBytes) + 1) * pieceBytes);
    const isKept = options.unsynced === 'prefix' ? number < prefixPieces : random.chance(probability);
    if (isKept) kept.push({ kind: 'write', position: at, bytes: bytes.subarray(at - position, next - position) });
    at = next;
  }
  return kept;
}

/** What a system call that was under way when its process was killed has done: nothing, all, or a part of a write. */
function beginning(change: FileChange, random: SimRandom): FileChange | undefined {
  const dice = random.below(3);
  if (dice === 0) return undefined;
  if (dice === 1 || change.kind === 'truncate') return change;
  return {
    kind: 'write',
    position: change.position,
    bytes: change.bytes.subarray(0, random.below(change.bytes.length)),
  };
}

function apply(content: Content, change: FileChange): void {
  if (change.kind === 'truncate') content.truncate(change.sizeBytes);
  else if (change.bytes.length > 0) content.write(change.bytes, change.position);
}

export type SimNode = SimInode | SimFolder;

/** One or more names set (to a node) or removed in one step; a rename is one step over two names or two folders. */
export interface NameChange {
  readonly sets: readonly { readonly folder: SimFolder; readonly name: string; readonly node: SimNode | undefined }[];
  isStable: boolean;
}

export class SimFolder {
  readonly kind = 'folder';
  readonly cached = new Map<string, SimNode>();
  readonly stable = new Map<string, SimNode>();
}

/** A whole file system. */
export class SimImage {
  readonly root: SimFolder;
  /** In the order in which they happened, over all folders. */
  nameChanges: NameChange[];

  constructor(root = new SimFolder(), nameChanges: NameChange[] = []) {
    this.root = root;
    this.nameChanges = nameChanges;
  }

  change(sets: NameChange['sets']): void {
    for (const { folder, name, node } of sets) setName(folder.cached, name, node);
    this.nameChanges.push({ sets, isStable: false });
  }

  /** fsync of a folder: everything that touched its names so far is stable. */
  syncNames(folder: SimFolder, upTo: number): void {
    for (const change of this.nameChanges.slice(0, upTo)) {
      if (change.sets.some((set) => set.folder === folder)) change.isStable = true;
    }
    this.nameChanges = this.nameChanges.filter((change) => {
      if (!change.isStable) return true;
      for (const { folder: where, name, node } of change.sets) setName(where.stable, name, node);
      return false;
    });
  }

  /** A copy that goes its own way. */
  fork(): SimImage {
    return this.#copy((inode) => inode.fork());
  }

  /** What the next process finds when this one was killed: the page cache has survived. */
  afterKill(random: SimRandom): SimImage {
    return this.#copy((inode) => inode.afterKill(random));
  }

  /** What is there after a power cut. Everything in it is stable. */
  afterPowerCut(random: SimRandom, options: CutOptions): SimImage {
    const fate =
      options.names ?? (options.unsynced === 'lost' || options.unsynced === 'kept' ? options.unsynced : 'some');
    const names = new Map<SimFolder, Map<string, SimNode>>();
    for (const { sets } of this.nameChanges) {
      const isKept = fate === 'kept' || (fate === 'some' && random.chance(0.5));
      if (!isKept) continue;
      for (const { folder, name, node } of sets) {
        let changed = names.get(folder);
        if (changed === undefined) names.set(folder, (changed = new Map(folder.stable)));
        setName(changed, name, node);
      }
    }
    const inodes = new Map<SimInode, SimInode>();
    const walk = (folder: SimFolder): SimFolder => {
      const copy = new SimFolder();
      for (const [name, node] of names.get(folder) ?? folder.stable) {
        let next: SimNode;
        if (node.kind === 'folder') next = walk(node);
        else {
          next = inodes.get(node) ?? node.afterPowerCut(random, options);
          inodes.set(node, next);
        }
        copy.stable.set(name, next);
        copy.cached.set(name, next);
      }
      return copy;
    };
    return new SimImage(walk(this.root));
  }

  /** Bytes allocated, in pages. */
  usedBytes(): number {
    let sum = 0;
    const walk = (folder: SimFolder): void => {
      for (const node of folder.cached.values()) {
        if (node.kind === 'folder') walk(node);
        else sum += Math.ceil(node.cached.sizeBytes / PAGE_BYTES) * PAGE_BYTES;
      }
    };
    walk(this.root);
    return sum;
  }

  #copy(forkInode: (inode: SimInode) => SimInode): SimImage {
    const copies = new Map<SimNode, SimNode>();
    const copyFolder = (folder: SimFolder): SimFolder => {
      const known = copies.get(folder);
      if (known?.kind === 'folder') return known;
      const copy = new SimFolder();
      copies.set(folder, copy);
      for (const [name, node] of folder.cached) copy.cached.set(name, copyNode(node));
      for (const [name, node] of folder.stable) copy.stable.set(name, copyNode(node));
      return copy;
    };
    const copyNode = (node: SimNode): SimNode => {
      if (node.kind === 'folder') return copyFolder(node);
      const known = copies.get(node);
      if (known !== undefined) return known;
      const copy = forkInode(node);
      copies.set(node, copy);
      return copy;
    };
    const root = copyFolder(this.root);
    const nameChanges = this.nameChanges.map(({ sets, isStable }) => ({
      sets: sets.map(({ folder, name, node }) => ({
        folder: copyFolder(folder),
        name,
        node: node === undefined ? undefined : copyNode(node),
      })),
      isStable,
    }));
    return new SimImage(root, nameChanges);
  }
}

function setName(names: Map<string, SimNode>, name: string, node: SimNode | undefined): void {
  if (node === undefined) names.delete(name);
  else names.set(name, node);
}
