/**
 * Key compaction (`cleanup.policy=compact`), as Apache Kafka's log cleaner does it: of each key the newest record stays, with
 * its offset. A run takes the dirtiest log first, and goes on until none is dirty enough:
 *
 *     start … clean … first dirty offset … dirty … first offset that may not be cleaned yet … active segment
 *
 *   1  the keys of the dirty part go into a map of bounded size, up to where it is full
 *   2  everything below that, the clean part too, is rewritten without what the map has a newer record of
 *   3  when no stop undoes that, the first dirty offset is moved up and saved
 *
 * Rewrites for others (records that a queue has done with) go through here, too: one after the other.
 */
import type { Clock } from './clock.ts';
import { CleanerOffsets } from './cleaner-offsets.ts';
import { type Disk, isExhausted } from './disk.ts';
import type { Jobs } from './jobs.ts';
import { KeyMap } from './key-map.ts';
import type { CompactionConfig } from './log.ts';
import type { PartitionLog } from './partition-log.ts';
import type { Segment } from './segment.ts';
import { RewriteFailure, type RewriteRules } from './segment-rewrite.ts';
import { type RewriteCounters, SegmentRewriter } from './segment-rewriter.ts';

/** `broker/config.ts` has the options, their defaults and reasons. Both may change while it runs. */
export interface CompactorSettings {
  /** log.cleaner.dedupe.buffer.size */
  dedupeBufferBytes: number;
  /** log.cleaner.io.max.bytes.per.second */
  bytesPerSecond: number;
}

export interface CompactorParts {
  clock: Clock;
  disk: Disk;
  jobs: Jobs;
  /** The data folder. */
  folder: string;
  settings: CompactorSettings;
  logs: () => Iterable<PartitionLog>;
  /** Completes a checkpoint: of what is not in one nothing may be rewritten. */
  checkpoint: () => Promise<void>;
  /** A checkpoint soon: it makes what was rewritten count. */
  requestCheckpoint: () => void;
  warn: (message: string) => void;
}

/** What to drop of a log: between `from` and `to` all records but those at the offsets in `keep`, which rise. */
export interface RewriteRequest {
  from: number;
  to: number;
  keep: Float64Array;
}

export interface RewriteResult {
  /** From `from` up to here nothing else is left. Less than `to` where segments are still written, or in no checkpoint. */
  rewrittenTo: number;
  droppedRecords: number;
  freedBytes: number;
}

/** For metrics. */
export interface CompactionCounters extends RewriteCounters {
  /** Logs that were compacted. */
  runs: number;
  /** That of the dirtiest log at the last look. */
  maxDirtyRatio: number;
  /** Logs that cannot be compacted until the next start. */
  uncleanable: number;
}

/** What may be cleaned of a log. */
interface Dirty {
  readonly log: PartitionLog;
  readonly config: CompactionConfig;
  readonly fromOffset: number;
  readonly toOffset: number;
  readonly ratio: number;
  readonly isDue: boolean;
}

/** One that may be under way, one that names what was rewritten before, and one that names it without saying so. */
const CHECKPOINTS_MAX = 3;
/** A rewrite takes at most this share of the free disk space. */
const FREE_SHARE = 0.5;

export class Compactor {
  readonly #parts: CompactorParts;
  readonly #rewriter: SegmentRewriter;
  readonly #offsets: CleanerOffsets;
  /** By key text of the log: what failed, and would fail again. */
  readonly #uncleanable = new Map<string, string>();
  #lane: Promise<void> = Promise.resolve();
  #running: Promise<void> | undefined;
  #runs = 0;
  #maxDirtyRatio = 0;

  constructor(parts: CompactorParts) {
    const { clock, disk, jobs, settings } = parts;
    this.#parts = parts;
    this.#rewriter = new SegmentRewriter({ clock, disk, jobs, bytesPerSecond: () => settings.bytesPerSecond });
    this.#offsets = new CleanerOffsets(disk, parts.folder);
  }

  get counters(): CompactionCounters {
    return {
      ...this.#rewriter.counters,
      runs: this.#runs,
      maxDirtyRatio: this.#maxDirtyRatio,
      uncleanable: this.#uncleanable.size,
    };
  }

  load(): Promise<void> {
    return this.#offsets.load();
  }

  /** First offset that is not compacted. */
  dirtyFrom(log: PartitionLog): number {
    const offset = this.#offsets.get(log) ?? 0;
    return offset > log.endOffset || offset < log.startOffset ? log.startOffset : offset;
  }

  /** The log is deleted: nothing is known of the next one with its name. */
  async forget(log: PartitionLog): Promise<void> {
    this.#uncleanable.delete(log.keyText);
    if (this.#offsets.delete(log)) await this.#offsets.save();
  }

  /** Compacts all logs that are dirty enough. One run at a time; resolves with the one under way. */
  run(): Promise<void> {
    this.#running ??= this.#exclusive(() => this.#run()).finally(() => {
      this.#running = undefined;
    });
    return this.#running;
  }

  /** Resolves when the new segments are read from; a stop may undo it until the next checkpoint. */
  rewrite(log: PartitionLog, request: RewriteRequest): Promise<RewriteResult> {
    return this.#exclusive(() => this.#rewrite(log, request));
  }

  /** Nothing is begun any more, and what is under way ends soon. */
  stop(): void {
    this.#rewriter.stop();
  }

  async close(): Promise<void> {
    this.stop();
    await this.#lane;
    await this.#parts.jobs.close();
  }

  /** After the last checkpoint: what it has named is saved. */
  async saved(): Promise<void> {
    await this.#offsets.save();
  }

  #exclusive<T>(task: () => Promise<T>): Promise<T> {
    const run = this.#lane.then(task);
    // Who asked for it is told of its failure; the next one is not.
    this.#lane = run.then(
      () => {},
      () => {},
    );
    return run;
  }

  async #run(): Promise<void> {
    const seen = new Set<PartitionLog>();
    while (!this.#rewriter.isStopped) {
      const dirty = this.#dirtiest(seen);
      if (dirty === undefined) break;
      seen.add(dirty.log);
      await this.#guarded(dirty.log, () => this.#compact(dirty));
    }
    if (seen.size > 0) this.#parts.requestCheckpoint();
  }

  #dirtiest(seen: ReadonlySet<PartitionLog>): Dirty | undefined {
    let dirtiest: Dirty | undefined;
    let maxRatio = 0;
    const now = this.#parts.clock.now();
    for (const log of this.#parts.logs()) {
      const { compaction } = log.config;
      if (compaction === undefined || !log.isOpened || log.isDeleted || log.isFenced) continue;
      const dirty = this.#measure(log, compaction, now);
      maxRatio = Math.max(maxRatio, dirty.ratio);
      if (!dirty.isDue || seen.has(log) || this.#uncleanable.has(log.keyText)) continue;
      if (dirtiest === undefined || dirty.ratio > dirtiest.ratio) dirtiest = dirty;
    }
    this.#maxDirtyRatio = maxRatio;
    return dirtiest;
  }

  #measure(log: PartitionLog, config: CompactionConfig, nowMs: number): Dirty {
    const fromOffset = this.dirtyFrom(log);
    let toOffset = fromOffset;
    let [cleanBytes, dirtyBytes] = [0, 0];
    let firstTimestamp = -1;
    for (const segment of log.segments.slice(0, -1)) {
      if (segment.endOffset <= fromOffset) {
        cleanBytes += segment.sizeBytes;
        continue;
      }
      const isYoung = config.minLagMs > 0 && segment.largestTimestamp > nowMs - config.minLagMs;
      if (!segment.isSealed || isYoung || segment.endOffset > log.lastStableOffset) break;
      if (dirtyBytes === 0) firstTimestamp = segment.firstTimestamp;
      dirtyBytes += segment.sizeBytes;
      toOffset = segment.endOffset;
    }
    const ratio = dirtyBytes === 0 ? 0 : dirtyBytes / (cleanBytes + dirtyBytes);
    const isLate = dirtyBytes > 0 && firstTimestamp >= 0 && nowMs - firstTimestamp > config.maxLagMs;
    return { log, config, fromOffset, toOffset, ratio, isDue: isLate || ratio > config.minDirtyRatio };
  }

  async #compact({ log, config, fromOffset, toOffset }: Dirty): Promise<void> {
    const segments = await this.#segmentsBelow(log, toOffset);
    const end = segments.at(-1)?.endOffset ?? 0;
    if (end <= fromOffset || !(await this.#hasRoom(segments))) return;
    const release = log.swaps.hold(segments);
    try {
      const dirty = segments.filter(({ endOffset }) => endOffset > fromOffset);
      const keyCount = end - Math.max(fromOffset, dirty[0].baseOffset);
      const map = KeyMap.allocate(keyCount, this.#parts.settings.dedupeBufferBytes);
      const mappedTo = await this.#mapKeys(log, dirty, fromOffset, map);
      if (mappedTo <= fromOffset) return;
      const nowMs = this.#parts.clock.now();
      const rules: RewriteRules = {
        keep: { kind: 'keys', map: map.buffer, mappedTo },
        nowMs,
        deleteHorizonMs: nowMs + config.deleteRetentionMs,
        producerEnds: shared(log.producerEnds()),
      };
      const below = segments.filter(({ baseOffset }) => baseOffset < mappedTo);
      const isDone = await this.#rewriter.rewrite(log, below, rules, () => this.#compacted(log, mappedTo));
      if (isDone) this.#runs++;
    } finally {
      release();
    }
  }

  #compacted(log: PartitionLog, offset: number): void {
    if (log.isDeleted) return;
    this.#offsets.set(log, offset);
    this.#offsets.save().catch((error: unknown) => {
      this.#parts.warn(`how far partitions are compacted cannot be saved: ${textOf(error)}`);
    });
  }

  /** Answers the offset below which all keys of the dirty segments are in the map; −1 if it was given up. */
  async #mapKeys(log: PartitionLog, dirty: readonly Segment[], fromOffset: number, map: KeyMap): Promise<number> {
    let mappedTo = -1;
    for (const segment of dirty) {
      const endPosition = segment.writtenBytes;
      for (let position = 0; position < endPosition; ) {
        if (this.#rewriter.isStopped || !log.swaps.areThere(dirty)) return -1;
        const source = { path: segment.file.path, position, endPosition };
        const mapped = await this.#parts.jobs.run('mapKeys', { source, fromOffset, map: map.buffer });
        await this.#rewriter.pace(mapped.position - position);
        position = mapped.position;
        mappedTo = Math.max(mappedTo, mapped.mappedTo);
        if (!mapped.isFull) continue;
        if (mappedTo > fromOffset) return mappedTo;
        const found = `log.cleaner.dedupe.buffer.size has no room for the keys of one batch at offset ${fromOffset}`;
        throw new RewriteFailure('content', found);
      }
      mappedTo = segment.endOffset;
    }
    return mappedTo;
  }

  async #rewrite(log: PartitionLog, { from, to, keep }: RewriteRequest): Promise<RewriteResult> {
    const { droppedRecords, bytesBefore, bytesAfter } = this.#rewriter.counters;
    let rewrittenTo = from;
    await this.#guarded(log, async () => {
      const segments = (await this.#segmentsBelow(log, to)).filter(({ endOffset }) => endOffset > from);
      if (segments.length === 0 || !(await this.#hasRoom(segments))) return;
      const release = log.swaps.hold(segments);
      try {
        const rules: RewriteRules = {
          keep: { kind: 'offsets', from, to, keep: shared(keep) },
          nowMs: this.#parts.clock.now(),
          deleteHorizonMs: -1,
          producerEnds: shared(log.producerEnds()),
        };
        const isDone = await this.#rewriter.rewrite(log, segments, rules, () => {});
        if (isDone) rewrittenTo = Math.min(to, segments[segments.length - 1].endOffset);
      } finally {
        release();
      }
      this.#parts.requestCheckpoint();
    });
    const after = this.#rewriter.counters;
    const freedBytes = after.bytesBefore - bytesBefore - (after.bytesAfter - bytesAfter);
    return { rewrittenTo, droppedRecords: after.droppedRecords - droppedRecords, freedBytes };
  }

  /** Those that may be rewritten now and begin below `offset`; checkpoints are made while that brings more of them. */
  async #segmentsBelow(log: PartitionLog, offset: number): Promise<Segment[]> {
    await log.prepare();
    for (let tries = 0; tries < CHECKPOINTS_MAX && !this.#rewriter.isStopped; tries++) {
      const covered = log.swaps.candidates.at(-1)?.endOffset ?? 0;
      const wanted = log.segments.findLast(({ isSealed, baseOffset }) => isSealed && baseOffset < offset);
      if (wanted === undefined || wanted.endOffset <= covered) break;
      await this.#parts.checkpoint();
    }
    return log.swaps.candidates.filter(({ baseOffset }) => baseOffset < offset);
  }

  async #hasRoom(segments: readonly Segment[]): Promise<boolean> {
    let bytes = 0;
    for (const { writtenBytes } of segments) bytes += writtenBytes;
    return bytes <= (await this.#parts.disk.freeBytes(this.#parts.folder)) * FREE_SHARE;
  }

  /** Tells what cannot be rewritten. A log that cannot be read is fenced; one with nonsense in it is left as it is. */
  async #guarded(log: PartitionLog, task: () => Promise<void>): Promise<void> {
    try {
      await task();
    } catch (error) {
      if (this.#rewriter.isStopped || log.isDeleted || log.isFenced || isExhausted(error)) return;
      const kind = error instanceof RewriteFailure ? error.kind : 'content';
      if (kind === 'source') return log.fence(error);
      if (kind === 'content') this.#uncleanable.set(log.keyText, textOf(error));
      const until = kind === 'content' ? 'until the next start' : 'this time';
      this.#parts.warn(`${log.name} is not compacted ${until}: ${textOf(error)}`);
    }
  }
}

/** In memory that a thread sees without a copy. */
function shared(numbers: Float64Array): Float64Array {
  const copy = new Float64Array(new SharedArrayBuffer(numbers.byteLength));
  copy.set(numbers);
  return copy;
}

function textOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
