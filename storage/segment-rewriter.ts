/**
 * Rewrites sealed segments of a log: neighbours that fit become one, filtered by jobs step by step, at a bounded rate,
 * and then take the place of the old ones (`segment-swap.ts`). The active segment is never among them.
 *
 * Always true: the log is not touched before the new files are complete, checked and synced; what was given up leaves
 * only files that are removed, now or when the log is next prepared.
 */
import type { Clock, Timer } from './clock.ts';
import type { Disk } from './disk.ts';
import type { Jobs } from './jobs.ts';
import type { PartitionLog } from './partition-log.ts';
import { type Segment, type SegmentState, SWAP_SUFFIX, SWAPPED_ENDINGS } from './segment.ts';
import { CLEANED_SUFFIX, type CleanedSegment, RewriteFailure, type RewriteRules } from './segment-rewrite.ts';

export interface RewriterParts {
  clock: Clock;
  disk: Disk;
  jobs: Jobs;
  /** Read and written together; may change. */
  bytesPerSecond: () => number;
}

/** For metrics. */
export interface RewriteCounters {
  /** Segments that gave their place to another, and what was in their files and in the new ones. */
  segments: number;
  bytesBefore: number;
  bytesAfter: number;
  droppedRecords: number;
  /** Read to find out, and written, whatever became of it. */
  processedBytes: number;
}

/** Indexes of a segment and the range of its offsets are in 32 bits. */
const OFFSETS_MAX = 2 ** 31 - 1;

export class SegmentRewriter {
  readonly counters: RewriteCounters = {
    segments: 0,
    bytesBefore: 0,
    bytesAfter: 0,
    droppedRecords: 0,
    processedBytes: 0,
  };
  readonly #parts: RewriterParts;
  #nextMs = 0;
  #wake: (() => void) | undefined;
  isStopped = false;

  constructor(parts: RewriterParts) {
    this.#parts = parts;
  }

  stop(): void {
    this.isStopped = true;
    this.#wake?.();
  }

  /**
   * Rewrites `segments`, which are held by the caller. False if it was given up: stopped, or the log or one of them is going.
   * `onNamed` is called once, when no stop undoes any of it.
   * @throws RewriteFailure
   */
  async rewrite(
    log: PartitionLog,
    segments: readonly Segment[],
    rules: RewriteRules,
    onNamed: () => void,
  ): Promise<boolean> {
    // One more than there are swaps: it ends with the last group.
    let unnamed = 1;
    const named = (): void => {
      unnamed--;
      if (unnamed === 0) onNamed();
    };
    for (const group of groupsOf(segments, log.config.segmentBytes, log.config.segmentIndexBytes)) {
      unnamed++;
      const outcome = await this.#rewriteGroup(log, group, rules, named);
      if (outcome === 'given up') return false;
      if (outcome === 'unchanged') unnamed--;
    }
    named();
    return true;
  }

  /** Waits as long as the rate wants after so many bytes. */
  async pace(processedBytes: number): Promise<void> {
    const { clock, bytesPerSecond } = this.#parts;
    this.counters.processedBytes += processedBytes;
    const now = clock.monotonic();
    this.#nextMs = Math.max(this.#nextMs, now) + (processedBytes * 1000) / bytesPerSecond();
    const waitMs = this.#nextMs - now;
    if (waitMs < 1 || this.isStopped) return;
    let timer: Timer | undefined;
    await new Promise<void>((resolve) => {
      this.#wake = resolve;
      timer = clock.after(waitMs, resolve);
    });
    timer?.cancel();
    this.#wake = undefined;
  }

  #mayGoOn(log: PartitionLog, group: readonly Segment[]): boolean {
    return !this.isStopped && log.swaps.areThere(group);
  }

  async #rewriteGroup(
    log: PartitionLog,
    group: readonly Segment[],
    rules: RewriteRules,
    onNamed: () => void,
  ): Promise<'given up' | 'unchanged' | 'replaced'> {
    const { disk } = this.#parts;
    const [first] = group;
    const { path } = first;
    const giveUp = async <T>(outcome: T): Promise<T> => {
      for (const suffix of [CLEANED_SUFFIX, SWAP_SUFFIX]) {
        for (const ending of SWAPPED_ENDINGS) await disk.remove(path + ending + suffix);
      }
      return outcome;
    };
    try {
      if (!this.#mayGoOn(log, group)) return 'given up';
      await giveUp(undefined);
      const filtered = await this.#filter(log, group, rules);
      if (filtered === undefined) return await giveUp('given up');
      if (filtered.changedBatches === 0 && group.length === 1) return await giveUp('unchanged');
      const cleaned = await this.#seal(log, group);
      await this.pace(cleaned.sizeBytes);
      if (!this.#mayGoOn(log, group)) return await giveUp('given up');
      for (const ending of SWAPPED_ENDINGS) {
        await disk.rename(path + ending + CLEANED_SUFFIX, path + ending + SWAP_SUFFIX);
      }
      await disk.syncDirectory(path.slice(0, path.lastIndexOf('/')));
      if (!this.#mayGoOn(log, group)) return await giveUp('given up');
      log.swaps.replace(group, stateOf(group, cleaned), onNamed);
      this.#count(group, cleaned, filtered.droppedCount);
      return 'replaced';
    } catch (error) {
      // Whatever is left goes with the next try, or when the log is next prepared.
      await giveUp(undefined).catch(() => {});
      throw RewriteFailure.from('target', error);
    }
  }

  async #filter(
    log: PartitionLog,
    group: readonly Segment[],
    rules: RewriteRules,
  ): Promise<{ changedBatches: number; droppedCount: number } | undefined> {
    const { jobs } = this.#parts;
    const target = `${group[0].path}.log${CLEANED_SUFFIX}`;
    let [targetPosition, changedBatches, droppedCount] = [0, 0, 0];
    for (const segment of group) {
      const endPosition = segment.writtenBytes;
      for (let position = 0; position < endPosition; ) {
        const source = { path: segment.file.path, position, endPosition };
        const done = await jobs.run('filterPiece', { source, rules, target, targetPosition });
        const processedBytes = done.position - position + done.targetPosition - targetPosition;
        position = done.position;
        targetPosition = done.targetPosition;
        changedBatches += done.changedBatches;
        droppedCount += done.droppedCount;
        await this.pace(processedBytes);
        if (!this.#mayGoOn(log, group)) return undefined;
      }
    }
    return { changedBatches, droppedCount };
  }

  #seal(log: PartitionLog, group: readonly Segment[]): Promise<CleanedSegment> {
    const [{ path, baseOffset }] = group;
    const { endOffset } = group[group.length - 1];
    const { indexIntervalBytes } = log.config;
    return this.#parts.jobs.run('sealCleaned', { path, baseOffset, endOffset, indexIntervalBytes });
  }

  #count(group: readonly Segment[], cleaned: CleanedSegment, droppedCount: number): void {
    this.counters.segments += group.length;
    for (const { writtenBytes } of group) this.counters.bytesBefore += writtenBytes;
    this.counters.bytesAfter += cleaned.sizeBytes;
    this.counters.droppedRecords += droppedCount;
  }
}

function stateOf(group: readonly Segment[], cleaned: CleanedSegment): SegmentState {
  const [{ baseOffset, createdMs }] = group;
  const { sizeBytes, firstTimestamp, largestTimestamp, largestTimestampOffset, batchBytesMax } = cleaned;
  return {
    baseOffset,
    writtenBytes: sizeBytes,
    writtenOffset: group[group.length - 1].endOffset,
    createdMs,
    firstTimestamp,
    largestTimestamp,
    largestTimestampOffset,
    batchBytesMax,
    isRewritten: true,
  };
}

/** Neighbours that fit into one segment, whatever is taken out of them, as Apache Kafka groups them. */
export function groupsOf(segments: readonly Segment[], bytesMax: number, indexBytesMax: number): Segment[][] {
  const groups: Segment[][] = [];
  let group: Segment[] = [];
  let [bytes, entries] = [0, 0];
  // The time index has the larger entries, and one for the end.
  const entriesMax = Math.floor(indexBytesMax / 12) - 1;
  for (const segment of segments) {
    const [first] = group;
    const fits =
      first !== undefined &&
      bytes + segment.writtenBytes <= bytesMax &&
      entries + segment.entryCountMax <= entriesMax &&
      segment.endOffset - first.baseOffset <= OFFSETS_MAX;
    if (!fits) {
      group = [];
      groups.push(group);
      [bytes, entries] = [0, 0];
    }
    group.push(segment);
    bytes += segment.writtenBytes;
    entries += segment.entryCountMax;
  }
  return groups;
}
