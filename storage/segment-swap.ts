/**
 * Rewritten segments take the place of those they were made from, so that a stop at any moment leaves either:
 *
 *   1  BASE.log.cleaned and its indexes are complete and synced, then bear `.swap`, and the folder is synced
 *   2  the new segment is in the list: what is read from now on comes from it; the files of the old ones stay
 *   3  a checkpoint names it, as pending, in the place of the old ones. From here on the new files count
 *   4  once the old segments have lost their last reader, the new files take their names over the old ones', and the folder
 *      is synced; the files of those that were merged into the first one go
 *   5  the next checkpoint names it like any other
 *
 * A start removes `.swap` files that no checkpoint names, and does step 4 for those that one does. Only segments that end at or
 * below what the last complete checkpoint and its producer state cover are rewritten: no journal part that a recovery
 * compares, and no walk of it, can meet one. The next rewrite of a partition waits for step 5, so that a `.swap` file is never
 * taken for the one of an earlier rewrite.
 */
import type { Disk } from './disk.ts';
import type { OpenFiles } from './open-files.ts';
import { offsetFileName, Segment, type SegmentState, SWAP_SUFFIX, SWAPPED_ENDINGS } from './segment.ts';

/** The log that the segments are of. */
export interface SwapHost {
  readonly files: OpenFiles;
  /** The log's own list. */
  readonly segments: Segment[];
  /** Segments up to here may be rewritten: a start neither walks nor replays what is in them. −1: none, nor may files be touched. */
  coveredTo(): number;
  path(): string;
  /** Work on the folder, one after the other; a failure stops the broker. */
  onFolder(task: () => Promise<void>): void;
  /** Its piece of the checkpoint is to be made again. */
  changed(): void;
  /** A segment may have lost its last reader. */
  released(): void;
  /** Takes its files out of the log and removes them after a while. */
  remove(segment: Segment): void;
}

interface Swap {
  readonly old: readonly Segment[];
  readonly next: Segment;
  readonly onNamed: () => void;
  isInPiece: boolean;
  isNamed: boolean;
}

export class SegmentSwaps {
  readonly #host: SwapHost;
  #pending: Swap[] = [];
  #isFinishing = false;
  #isInPiece = false;
  /** The checkpoint in force names one as pending. */
  #isInCheckpoint: boolean;

  constructor(host: SwapHost, isInCheckpoint: boolean) {
    this.#host = host;
    this.#isInCheckpoint = isInCheckpoint;
  }

  /** Another rewrite has to wait. */
  get isBusy(): boolean {
    return this.#pending.length > 0 || this.#isInCheckpoint;
  }

  /** Segments that may be rewritten now, oldest first: sealed ones, from the first on. */
  get candidates(): readonly Segment[] {
    if (this.isBusy) return [];
    const { segments } = this.#host;
    const end = this.#host.coveredTo();
    const sealed = segments.slice(0, -1);
    const stop = sealed.findIndex((each) => !each.isSealed || each.isDropped || each.endOffset > end);
    return stop === -1 ? sealed : sealed.slice(0, stop);
  }

  /** Keeps the files of segments until the answer is called. */
  hold(segments: readonly Segment[]): () => void {
    for (const segment of segments) segment.readers++;
    return () => {
      for (const segment of segments) segment.readers--;
      this.#host.released();
    };
  }

  /** Whether all of them are still in the log, and it may be changed. */
  areThere(segments: readonly Segment[]): boolean {
    return this.#host.coveredTo() >= 0 && segments.every(({ isDropped }) => !isDropped);
  }

  /** Neighbours give their place to a new segment, whose files are complete. `onNamed`: a stop does not undo it any more. */
  replace(old: readonly Segment[], state: SegmentState, onNamed: () => void): void {
    const { files, segments } = this.#host;
    const next = Segment.forSwap(files, this.#host.path(), state);
    segments.splice(segments.indexOf(old[0]), old.length, next);
    for (const segment of old) {
      segment.replacement = next;
      segment.isDropped = true;
    }
    this.#pending.push({ old, next, onNamed, isInPiece: false, isNamed: false });
    this.#host.changed();
  }

  /** The piece of the checkpoint was made of the list as it is now. */
  inPiece(): void {
    this.#isInPiece = this.#pending.length > 0;
    for (const swap of this.#pending) swap.isInPiece = true;
  }

  /** The checkpoint with that piece is complete. */
  checkpointed(): void {
    this.#isInCheckpoint = this.#isInPiece;
    for (const swap of this.#pending) {
      if (!swap.isInPiece || swap.isNamed) continue;
      swap.isNamed = true;
      swap.onNamed();
    }
    this.finish();
  }

  /** Step 4 for those that nobody reads any more; the last reader of one calls it again. */
  finish(): void {
    if (this.#isFinishing || this.#ready() === undefined) return;
    this.#isFinishing = true;
    this.#host.onFolder(async () => {
      for (let swap = this.#ready(); swap !== undefined; swap = this.#ready()) {
        if (this.#host.coveredTo() < 0) break; // The next start does it, if there is still something.
        await this.#finish(swap);
      }
      this.#isFinishing = false;
    });
  }

  #ready(): Swap | undefined {
    return this.#pending.find(({ isNamed, old }) => isNamed && old.every(({ readers }) => readers === 0));
  }

  async #finish(swap: Swap): Promise<void> {
    const [replaced, ...merged] = swap.old;
    await replaced.close();
    await swap.next.finishSwap();
    await this.#host.files.disk.syncDirectory(this.#host.path());
    this.#pending = this.#pending.filter((each) => each !== swap);
    this.#host.changed();
    for (const segment of merged) this.#host.remove(segment);
  }

  get hasReaders(): boolean {
    return this.#pending.some(({ old }) => old.some(({ readers }) => readers > 0));
  }

  async close(): Promise<void> {
    for (const { old } of this.#pending) for (const segment of old) await segment.close();
  }
}

/** Step 4 at a start, for all partitions that the checkpoint names with pending ones. May be cut off and run again. */
export async function finishSwaps(
  disk: Disk,
  path: string,
  partitions: Iterable<{ readonly state: { readonly folder: string; readonly segments: readonly SegmentState[] } }>,
): Promise<void> {
  for (const { state } of partitions) {
    const { folder, segments } = state;
    const pending = segments.filter(({ isSwapPending }) => isSwapPending === true);
    // With `log.flush: written` a power cut may take the folder and leave what names it.
    if (pending.length === 0 || (await disk.stat(`${path}/${folder}`)) === undefined) continue;
    for (const segment of pending) {
      const name = `${path}/${folder}/${offsetFileName(segment.baseOffset)}`;
      const log = await disk.stat(`${name}.log${SWAP_SUFFIX}`);
      // Its log has its name already if it is not there; its indexes may have been faster or slower.
      const isAnother = log !== undefined && log.sizeBytes !== segment.writtenBytes;
      for (const ending of SWAPPED_ENDINGS) {
        const from = name + ending + SWAP_SUFFIX;
        if ((await disk.stat(from)) === undefined) continue;
        if (isAnother) await disk.remove(from);
        else await disk.rename(from, name + ending);
      }
    }
    // Also if there was nothing to rename: it may have been done without reaching the platter, and the next checkpoint names it.
    await disk.syncDirectory(`${path}/${folder}`);
  }
}
