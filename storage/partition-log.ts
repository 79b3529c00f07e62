/**
 * One partition's log: takes batches into the commit order, brings them to segment files, rolls, reads, retains.
 *
 *   start ≤ high watermark ≤ end          offsets: what readers may see, what was appended
 *   runs: [ … | unwritten … | not durable … ]   the end of the log in memory, see tail-cache.ts
 *
 * A batch is in a run at once, durable when its group ends, and in the segment after that (journal) or just before that
 * (direct). One write is under way at a time, in order of offsets. `append` is synchronous and allocates one run per
 * 64 KiB at most.
 *
 * Always true: what a reader sees is durable; a segment file gets no byte that is not durable, except by a direct write
 * of the group in flight; nothing is removed above the high watermark or under a reader.
 */
import assert from 'node:assert';
import { MillraceError } from '../protocol/errors.ts';
import {
  batchCrc,
  batchLastOffsetDelta,
  batchMaxTimestamp,
  batchProducerId,
  type RecordPlace,
  stampAppendTime,
  stampBatch,
} from '../protocol/record-batch.ts';
import type { PartitionState } from './checkpoint.ts';
import { checkClientBatch } from './client-batch.ts';
import type { Group, Member, Share } from './committer.ts';
import { isExhausted } from './disk.ts';
import { keyText, type OtherPart, type PartitionKey, partitionKey } from './journal-record.ts';
import { LeaderEpochs, saveEpochs } from './leader-epochs.ts';
import type { Appended, AppendOptions, LogConfig, LogSlice, OffsetAndTime, PartitionSpec, ReadOptions } from './log.ts';
import type { LogContext } from './log-context.ts';
import { cutBeyondEnd, removeLeftovers, tidyFolder } from './log-folder.ts';
import { LogReader } from './log-reader.ts';
import type { ProducerState } from './producer-state.ts';
import { ProducerStore, snapshotFileName } from './producer-store.ts';
import type { Unsynced } from './partition-recovery.ts';
import type { PendingLog, RecoveredPartition } from './recovery.ts';
import { OffsetWaiters } from './offset-waiters.ts';
import { removeSegment, retainedFrom } from './retention.ts';
import { emptySlice, RunQueue } from './run-queue.ts';
import { RunWriter } from './run-writer.ts';
import { offsetFileName, Segment, type SegmentState } from './segment.ts';
import { SegmentSwaps } from './segment-swap.ts';
import { BEHIND_NOW_BYTES_MAX, type WriteTarget } from './segment-writer.ts';
import { writeSnapshot } from './snapshot.ts';
import { type Run, RUN_BYTES_MAX, runDigest } from './tail-cache.ts';

const INT32_MAX = 2_147_483_647;
/** A partition below this has no index files before it rolls or the broker stops: they would hardly be shorter than a walk. */
const SMALL_BYTES = 1024 * 1024;

export class PartitionLog implements Member, WriteTarget {
  /** Retention takes nothing at or above what this answers; undefined: no limit. */
  retentionLimit?: () => number;
  readonly topicId: string;
  readonly topic: string;
  readonly index: number;
  readonly key: PartitionKey;
  readonly keyText: string;
  readonly name: string;
  config: LogConfig;
  /** Somebody has opened it since the start. */
  isOpened = false;
  isFenced: boolean;
  /** Fenced by recovery, for good. A read that fails fences until the next start, which looks again. */
  #isDamaged: boolean;
  /** Decided, not necessarily durable: until it is, its bytes are kept like all others. */
  isDeleted = false;
  #isGone = false;

  // Of the committer, see `Member`.
  share: Share | undefined;
  directGroupNumber = -1;
  /** Of the engine: it is on the list for the next checkpoint. */
  isDirty = false;
  // Of the segment writer, see `WriteTarget`.
  lingerUntilMs = 0;
  isQueued = false;
  queuedBytes = 0;

  readonly #context: LogContext;
  readonly #reader: LogReader;
  readonly #runs: RunQueue;
  readonly #writer: RunWriter;
  #folder: string | undefined;
  #makingFolder: Promise<void> | undefined;
  /** That the folder is there and whose it is survives a power cut, by itself or because a checkpoint says so. */
  #isFolderSynced = true;
  /** The piece that was made last tells of it. */
  #isFolderInPiece = false;
  #startOffset: number;
  /** As far as it is durable. */
  #durableStart: number;
  #highWatermark: number;
  #endOffset: number;
  readonly #epochs: LeaderEpochs;
  #savedEpoch: number;
  /** That of this start is in `#epochs`. */
  #isEpochAssigned = false;
  readonly #producers: ProducerState;
  readonly #producerStore: ProducerStore;
  #isPrepared: boolean;
  #preparing: Promise<void> | undefined;
  /** `prepare` has failed for want of descriptors or memory; it can be called again. */
  #loadFailure: MillraceError | undefined;
  /** Since the start: the journal has what its segments may lack. Until then no segments are known. */
  #pending: PendingLog | undefined;
  #recovering: Promise<void> | undefined;
  /** What recovery has found in its folder. */
  #foundNames: readonly string[] | undefined;
  /** Oldest first; the last one is appended to. Empty until the first append. */
  readonly #segments: Segment[] = [];
  /** The last one, once something was appended to it. */
  #appended: Segment | undefined;
  readonly #unsynced = new Set<Segment>();
  /** Ranges of segments that recovery has left unsynced. */
  #unsyncedRanges: { segment: Segment; from: number; to: number }[] = [];
  /** The newest sync, which ends after all before it. */
  #syncing: Promise<void> = Promise.resolve();
  #whenReleased: (() => void)[] = [];
  /** Made when a segment is first rewritten. */
  #swaps: SegmentSwaps | undefined;
  /** Segments that are on their way out of the log. */
  readonly #leaving = new Set<Promise<void>>();
  #lastTask: Promise<void> = Promise.resolve();
  #isOpenPartTaken: boolean;
  #markedCheckpoint = -1;
  /** Undefined if there were none yet. */
  #waiters: OffsetWaiters | undefined;

  /** `recovered`: what a start has found of it. */
  constructor(context: LogContext, spec: PartitionSpec, recovered?: RecoveredPartition) {
    const state = recovered?.state;
    this.#context = context;
    this.topicId = spec.topicId;
    this.topic = spec.topic;
    this.index = spec.index;
    this.name = `${spec.topic}-${spec.index}`;
    this.key = partitionKey(spec.topicId, spec.index);
    this.keyText = keyText(this.key);
    this.config = spec.config;
    this.#isDamaged = state?.isFenced ?? false;
    this.isFenced = this.#isDamaged;
    this.#folder = state?.folder;
    this.#startOffset = state?.startOffset ?? 0;
    this.#durableStart = this.#startOffset;
    this.#epochs = new LeaderEpochs(state?.epochs);
    // The file is not synced and may be anything.
    this.#savedEpoch = -1;
    this.#producerStore = new ProducerStore({ name: this.name, producersMax: context.producersMax, stored: state });
    this.#producers = this.#producerStore.state;
    this.#isPrepared = state === undefined;
    this.#isOpenPartTaken = state !== undefined;
    this.#runs = new RunQueue(context.cache);
    if (recovered !== undefined && 'pending' in recovered) this.#pending = recovered.pending;
    else {
      for (const each of state?.segments ?? []) this.#segments.push(Segment.fromState(context.files, this.#path, each));
    }
    for (const segment of this.#segments.slice(0, -1)) segment.isSealed = true;
    if (recovered !== undefined && 'unsynced' in recovered) this.#noteUnsynced(recovered.unsynced);
    this.#endOffset = this.#pending?.endOffset ?? this.#segments.at(-1)?.writtenOffset ?? this.#startOffset;
    this.#highWatermark = this.#endOffset;
    if (state?.segments.some(({ isSwapPending }) => isSwapPending) === true) this.#swaps = this.#makeSwaps(true);
    this.#writer = new RunWriter({
      runs: this.#runs,
      segments: this.#segments,
      writer: context.writer,
      makeFolder: () => this.#makeFolder(),
      onWrite: (segment) => this.#unsynced.add(segment),
      onEnd: () => this.#dropSegments(),
    });
    this.#reader = new LogReader(
      this.#segments,
      this.#runs,
      (error) => this.fence(error),
      () => this.#released(),
    );
  }

  #noteUnsynced({ isFolderNew, syncedBytes, isWrittenHere }: Unsynced): void {
    this.#isFolderSynced = !isFolderNew;
    for (const segment of this.#segments) {
      const from = syncedBytes.get(segment.baseOffset);
      if (from === undefined || segment.writtenBytes === 0) continue;
      segment.syncedBytes = from;
      segment.isEntrySynced = false;
      this.#unsynced.add(segment);
      if (!isWrittenHere) this.#unsyncedRanges.push({ segment, from, to: segment.writtenBytes });
    }
  }

  get startOffset(): number {
    return Math.min(this.#startOffset, this.#highWatermark);
  }
  get highWatermark(): number {
    return this.#highWatermark;
  }
  get lastStableOffset(): number {
    return this.#highWatermark;
  }
  get endOffset(): number {
    return this.#endOffset;
  }
  get leaderEpoch(): number {
    return this.#context.leaderEpoch;
  }
  get sizeBytes(): number {
    let size = this.#pending?.sizeBytes ?? 0;
    for (const segment of this.#segments) size += segment.sizeBytes;
    return size;
  }
  get producerCount(): number {
    return this.#producers.count;
  }
  get unwrittenBytes(): number {
    return this.#runs.unwrittenBytes;
  }
  get firstUnwrittenOffset(): number {
    return this.#runs.firstUnwrittenOffset;
  }
  get hasDurableUnwritten(): boolean {
    return this.#runs.hasDurableUnwritten && !this.#isGone;
  }
  get segments(): readonly Segment[] {
    return this.#segments;
  }
  get folder(): string | undefined {
    return this.#folder;
  }
  get #path(): string {
    assert(this.#folder !== undefined);
    return `${this.#context.dataDir.path}/${this.#folder}`;
  }
  get #active(): Segment | undefined {
    return this.#segments.at(-1);
  }

  // --- append ---

  append(batch: Buffer, { origin, urgency, appendTimeMs: timeMs }: AppendOptions): Appended {
    this.checkWritable();
    if (batch.length > this.config.segmentBytes) {
      throw new MillraceError(
        'RECORD_LIST_TOO_LARGE',
        `${this.name}: batch of ${batch.length} bytes, segment.bytes is ${this.config.segmentBytes}`,
      );
    }
    if (origin === 'internal') return this.#store(batch, this.#context.committer.join(urgency), -1);
    if (this.#context.isFull) {
      throw new MillraceError('KAFKA_STORAGE_ERROR', 'free disk space is below log.disk.reserve.bytes');
    }
    const nowMs = timeMs ?? this.#context.clock.now();
    checkClientBatch(batch, this.config, nowMs, this.name);
    const duplicate = this.#checkProducer(batch);
    if (duplicate !== undefined) return duplicate;
    const appendTimeMs = this.config.timestampType === 'LogAppendTime' ? nowMs : -1;
    return this.#store(batch, this.#context.committer.join(urgency), appendTimeMs);
  }

  /** A part of an atomic commit: the broker's own batch, in `group`. Whoever calls has checked every part before. */
  appendAtomic(batch: Buffer, group: Group): Appended {
    const appended = this.#store(batch, group, -1);
    assert(this.share !== undefined);
    this.share.isAtomic = true;
    return appended;
  }

  /** @throws MillraceError STOPPING, KAFKA_STORAGE_ERROR, UNKNOWN_TOPIC_OR_PARTITION */
  checkWritable(): void {
    const { stopped } = this.#context;
    if (stopped !== undefined) throw stopped;
    this.#checkUsable();
    if (this.#isPrepared) return;
    assert(this.#loadFailure !== undefined, `${this.name}: append before prepare`);
    throw this.#loadFailure;
  }

  #checkUsable(): void {
    if (this.isDeleted) throw new MillraceError('UNKNOWN_TOPIC_OR_PARTITION', `${this.name} is deleted`);
    if (this.isFenced)
      throw new MillraceError('KAFKA_STORAGE_ERROR', `${this.name} is damaged; the broker's log says how`);
  }

  #checkProducer(batch: Buffer): Appended | undefined {
    const duplicate = this.#producers.duplicateOf(batch);
    if (duplicate === undefined) return undefined;
    const { baseOffset, lastOffset, timestamp } = duplicate;
    return {
      baseOffset,
      lastOffset,
      appendTimeMs: this.config.timestampType === 'LogAppendTime' ? timestamp : -1,
      // An answer must not come before the original is durable.
      position: this.#runs.groupOf(lastOffset),
      isDuplicate: true,
    };
  }

  #store(batch: Buffer, group: Group, appendTimeMs: number): Appended {
    const { cache, committer, writer, leaderEpoch, clock } = this.#context;
    const sizeBytes = batch.length;
    const baseOffset = this.#endOffset;
    const nextOffset = baseOffset + batchLastOffsetDelta(batch, 0) + 1;
    const maxTimestamp = appendTimeMs >= 0 ? appendTimeMs : batchMaxTimestamp(batch, 0);
    const segment = this.#segmentFor(sizeBytes, nextOffset - 1, maxTimestamp);
    const slab = cache.slabFor(sizeBytes);
    const { buffer } = slab;
    const position = slab.usedBytes;
    // Copy: the one that every payload gets.
    batch.copy(buffer, position);
    slab.usedBytes = position + sizeBytes;
    stampBatch(buffer, position, baseOffset, leaderEpoch);
    if (appendTimeMs >= 0) stampAppendTime(buffer, position, appendTimeMs);

    const startsSegment = segment.sizeBytes === 0;
    // A share of the group says that the newest run may be of it; else that is not looked at: it is cold in most partitions.
    let run = this.share?.groupNumber === group.number ? this.#runs.newest : undefined;
    const isMerged =
      run !== undefined &&
      !startsSegment &&
      run.group === group.number &&
      run.slab === slab &&
      run.position + run.sizeBytes === position &&
      run.sizeBytes + sizeBytes <= RUN_BYTES_MAX;
    if (run === undefined || !isMerged) {
      run = this.#runs.add(this, slab);
      run.begin(position, baseOffset, group.number, startsSegment);
      group.runs.push(run);
    }
    run.sizeBytes += sizeBytes;
    run.nextOffset = nextOffset;
    run.batchCount++;
    run.digest = runDigest(run.digest, batchCrc(buffer, position));
    if (maxTimestamp > run.maxTimestamp) run.maxTimestamp = maxTimestamp;
    segment.appended(sizeBytes, nextOffset, maxTimestamp);
    this.#endOffset = nextOffset;
    this.#runs.unwrittenBytes += sizeBytes;
    writer.appended(sizeBytes);
    committer.count(group, this, sizeBytes);
    if (!this.#isEpochAssigned) {
      this.#epochs.assign(leaderEpoch, baseOffset);
      this.#isEpochAssigned = true;
    }
    if (batchProducerId(buffer, position) >= 0) this.#producers.apply(buffer, position, clock.now());
    return { baseOffset, lastOffset: nextOffset - 1, appendTimeMs, position: group.number, isDuplicate: false };
  }

  /** The segment for a batch; rolls as Kafka does: by size, by age, at a full index, at 2³¹−1 relative offset. */
  #segmentFor(sizeBytes: number, lastOffset: number, maxTimestamp: number): Segment {
    const active = this.#appended ?? this.#active;
    if (active === undefined) return this.#addSegment();
    this.#appended = active;
    if (active.sizeBytes === 0) return active;
    const { segmentBytes, segmentMs, segmentIndexBytes } = this.config;
    const isOld =
      active.firstTimestamp >= 0 && maxTimestamp >= 0
        ? maxTimestamp - active.firstTimestamp > segmentMs
        : this.#context.clock.now() - active.createdMs > segmentMs;
    const isFull =
      active.sizeBytes + sizeBytes > segmentBytes ||
      // The time index has the larger entries, and keeps one for the roll.
      active.entryCount >= Math.floor(segmentIndexBytes / 12) - 1 ||
      lastOffset - active.baseOffset > INT32_MAX;
    return isOld || isFull ? this.#addSegment() : active;
  }

  #addSegment(): Segment {
    const { files, clock, writer } = this.#context;
    const before = this.#active;
    // The folder gets its name when it is made, by the first write.
    const segment = Segment.create(files, this.#folder === undefined ? '' : this.#path, this.#endOffset, clock.now());
    segment.indexIntervalBytes = this.config.indexIntervalBytes;
    this.#segments.push(segment);
    this.#appended = segment;
    if (before !== undefined && this.#producers.count > 0) {
      const bytes = this.#producers.encode();
      writer.background(() => this.#exclusive(() => this.#saveProducers(segment.baseOffset, bytes)));
    }
    if (before !== undefined && before.writtenBytes === before.sizeBytes) writer.background(() => before.seal());
    return segment;
  }

  // --- to the segments ---

  takeOpenPart(): OtherPart | undefined {
    if (this.#isOpenPartTaken) return undefined;
    this.#isOpenPartTaken = true;
    return { kind: 'open', key: this.key, topic: this.topic };
  }

  takeDirectMark(): OtherPart | undefined {
    if (this.#markedCheckpoint === this.#context.checkpointNumber) return undefined;
    this.#markedCheckpoint = this.#context.checkpointNumber;
    return this.mark();
  }

  mark(): OtherPart {
    const segment = this.#segments.findLast((candidate) => candidate.syncedBytes > 0);
    return {
      kind: 'mark',
      key: this.key,
      segmentBase: segment?.baseOffset ?? 0,
      syncedBytes: segment?.syncedBytes ?? 0,
    };
  }

  forgetOldestRun(run: Run): void {
    this.#runs.forget(run);
  }

  writeDirect(groupNumber: number, isSynced: boolean): Promise<void> | undefined {
    if (isSynced) return this.#writer.direct(groupNumber).then(() => this.sync());
    return this.#writer.directNow(groupNumber) ? undefined : this.#writer.direct(groupNumber);
  }

  async writeBehind(): Promise<void> {
    if (!this.#isGone || this.#writer.isWriting) await this.#writer.behind();
  }

  writeBehindNow(): boolean {
    return !this.#isGone && this.#writer.behindNow();
  }

  settle(groupNumber: number, isDirect: boolean): void {
    const end = this.#runs.settle(groupNumber);
    if (end >= 0) {
      assert(end > this.#highWatermark);
      this.#highWatermark = end;
      // Only now, or a checkpoint begun since the append has taken it for covered.
      this.#context.markDirty(this);
    }
    if (isDirect) this.#writer.settleDirect(this.#context.isSynced);
    else this.#context.writer.durable(this);
  }

  wake(): void {
    this.#waiters?.wake(this.isDeleted || this.isFenced ? Number.POSITIVE_INFINITY : this.#highWatermark);
  }

  #makeFolder(): Promise<void> | undefined {
    if (this.#folder !== undefined) return undefined;
    this.#makingFolder ??= this.#createFolder();
    return this.#makingFolder;
  }

  async #createFolder(): Promise<void> {
    const { dataDir } = this.#context;
    this.#isFolderSynced = false;
    this.#folder = await dataDir.createPartition(this.topic, { topicId: this.topicId, index: this.index });
    for (const segment of this.#segments) segment.moveTo(this.#path);
  }

  /**
   * Syncs what was written to segments so far, and the directory entries that lead to it. Resolves after the syncs that
   * were under way: the segments that they have taken off the list are not on the platter before that.
   */
  sync(): Promise<void> {
    const tasks = [this.#syncSegments()];
    if (this.#folder !== undefined && !this.#isFolderSynced) tasks.push(this.#syncFolder(this.#folder));
    if (tasks.length > 1) this.#syncing = Promise.all(tasks).then(() => {});
    return this.#syncing;
  }

  /** A new folder, for a direct write: a checkpoint tells whose it is, but comes later. */
  async #syncFolder(folder: string): Promise<void> {
    const { dataDir } = this.#context;
    await Promise.all([dataDir.syncPartition(folder), dataDir.sync()]);
    this.#isFolderSynced = true;
  }

  /** As `sync`, but for the entry of the folder itself. */
  #syncSegments(): Promise<void> {
    const { files } = this.#context;
    const tasks = [this.#syncing];
    const written = [...this.#unsynced].map((segment) => ({ segment, writtenBytes: segment.writtenBytes }));
    this.#unsynced.clear();
    const ranges = this.#unsyncedRanges;
    this.#unsyncedRanges = [];
    for (const { segment } of written) tasks.push(segment.file.sync(ranges.find((range) => range.segment === segment)));
    const fresh = this.#segments.filter((segment) => segment.isFileMade && !segment.isEntrySynced);
    if (fresh.length > 0) {
      tasks.push(
        files.disk.syncDirectory(this.#path).then(() => {
          for (const segment of fresh) segment.isEntrySynced = true;
        }),
      );
    }
    this.#syncing = Promise.all(tasks).then(() => {
      // Only now: a mark says of one segment that all before it are synced, too.
      for (const { segment, writtenBytes } of written) {
        segment.syncedBytes = Math.max(segment.syncedBytes, writtenBytes);
        if (!this.#unsynced.has(segment)) segment.file.isDirty = false;
      }
    });
    return this.#syncing;
  }

  // --- read ---

  read(offset: number, maxBytes: number, options: ReadOptions): LogSlice | Promise<LogSlice> {
    this.#checkUsable();
    const { startOffset } = this;
    if (offset < startOffset || offset > this.#highWatermark) {
      throw new MillraceError(
        'OFFSET_OUT_OF_RANGE',
        `${this.name}: offset ${offset}, have ${startOffset} to ${this.#highWatermark}`,
      );
    }
    const limitOffset = Math.min(options.limitOffset ?? this.#highWatermark, this.#highWatermark);
    if (offset >= limitOffset) return emptySlice();
    const recovering = this.#recovered();
    if (recovering !== undefined) return recovering.then(() => this.read(offset, maxBytes, options));
    return this.#reader.read(offset, limitOffset, maxBytes, options.wholeFirst);
  }

  async offsetForTime(timestamp: number): Promise<OffsetAndTime | undefined> {
    this.#checkUsable();
    await this.#recovered();
    this.#checkUsable();
    return this.#withEpoch(await this.#reader.findTime(timestamp, this.startOffset, this.#highWatermark));
  }

  async offsetOfMaxTime(): Promise<OffsetAndTime | undefined> {
    this.#checkUsable();
    await this.#recovered();
    this.#checkUsable();
    return this.#withEpoch(await this.#reader.findMaxTime(this.startOffset, this.#highWatermark));
  }

  #withEpoch(place: RecordPlace | undefined): OffsetAndTime | undefined {
    return place && { ...place, leaderEpoch: this.epochForOffset(place.offset) };
  }

  endOffsetForEpoch(leaderEpoch: number): { leaderEpoch: number; endOffset: number } {
    // Nobody has seen what is above the high watermark, and a crash may give its offsets to another epoch.
    const endOffset = this.#highWatermark;
    if (leaderEpoch === this.leaderEpoch) return { leaderEpoch, endOffset };
    const { latest } = this.#epochs;
    if (latest >= 0 && leaderEpoch > latest && leaderEpoch < this.leaderEpoch)
      return { leaderEpoch: latest, endOffset };
    return this.#epochs.endOffsetFor(leaderEpoch, endOffset);
  }

  epochForOffset(offset: number): number {
    const epoch = this.#epochs.epochFor(offset);
    return epoch < 0 ? this.leaderEpoch : epoch;
  }

  whenAbove(offset: number, callback: () => void): () => void {
    this.#waiters ??= new OffsetWaiters();
    const withdraw = this.#waiters.add(offset, callback);
    if (this.#highWatermark > offset || this.isDeleted || this.isFenced) this.wake();
    return withdraw;
  }

  /** A read has failed or the log does not hold what it must: nothing more is served or taken. */
  fence(error: unknown): void {
    if (this.isFenced || isExhausted(error)) return;
    this.isFenced = true;
    this.#context.markDirty(this);
    this.#context.warn(`${this.name} is fenced: ${error instanceof Error ? error.message : String(error)}`);
    this.wake();
  }

  // --- start, retention, end ---

  /** Moves the start up; visible at once. The part must be in a group; `startDurable` follows. */
  moveStart(offset: number): void {
    assert(offset <= this.#endOffset, `${this.name}: start ${offset} is above the end ${this.#endOffset}`);
    if (offset <= this.#startOffset) return;
    this.#startOffset = offset;
  }

  startDurable(offset: number): void {
    if (offset > this.#durableStart) this.#durableStart = offset;
    this.#epochs.truncateFromStart(this.#durableStart);
    this.#context.markDirty(this);
    this.#dropSegments();
  }

  /** The start that retention wants now; rolls if the active segment is to go, for which the log must be prepared. */
  retentionStart(nowMs: number): number {
    const limit = Math.min(this.#highWatermark, this.retentionLimit?.() ?? Number.POSITIVE_INFINITY);
    const start = retainedFrom(this.#segments, this.config, this.#startOffset, limit, nowMs);
    const active = this.#active;
    if (active !== undefined && active.sizeBytes > 0 && start >= active.endOffset && this.#isPrepared)
      this.#addSegment();
    return start;
  }

  expireProducers(nowMs: number): void {
    this.#producers.expire(nowMs, this.#context.producerExpirationMs);
  }

  /** Removes the files of segments that end at or below the durable start, once nobody reads or writes them. */
  #dropSegments(): void {
    while (this.#segments.length > 1) {
      const [segment, next] = this.#segments;
      if (segment.isSwapPending) return;
      if (next.baseOffset > this.#durableStart) return;
      if (!this.#isProducerStateAbove(next.baseOffset)) return;
      if (segment.writtenBytes !== segment.sizeBytes || this.#writer.isWriting) return;
      segment.isDropped = true;
      if (segment.readers > 0) return;
      this.#segments.shift();
      this.#unsynced.delete(segment);
      this.#context.markDirty(this);
      this.#removeSegment(segment);
    }
  }

  #removeSegment(segment: Segment): void {
    const leaving = removeSegment(segment, this.#context, this.config.fileDeleteDelayMs).finally(() => {
      this.#leaving.delete(leaving);
    });
    this.#leaving.add(leaving);
    this.#context.writer.background(() => leaving);
  }

  // --- rewriting ---

  /** Where the newest batch of each producer ends, rising. */
  producerEnds(): Float64Array {
    return this.#producers.lastOffsets();
  }

  get swaps(): SegmentSwaps {
    this.#swaps ??= this.#makeSwaps(false);
    return this.#swaps;
  }

  #makeSwaps(isInCheckpoint: boolean): SegmentSwaps {
    const { files, writer } = this.#context;
    return new SegmentSwaps(
      {
        files,
        segments: this.#segments,
        coveredTo: () => {
          const isUsable = this.#isPrepared && !this.isFenced && !this.isDeleted && !this.#isGone;
          return isUsable ? this.#producerStore.durableOffset : -1;
        },
        path: () => this.#path,
        onFolder: (task) => writer.background(() => this.#exclusive(task)),
        changed: () => this.#context.markDirty(this),
        released: () => this.#released(),
        remove: (segment) => this.#removeSegment(segment),
      },
      isInCheckpoint,
    );
  }

  /** Whether a restart would know the producers without what lies below `offset`; if not, sees to it that it soon does. */
  #isProducerStateAbove(offset: number): boolean {
    if (this.#producerStore.durableOffset >= offset) return true;
    const preparing = this.prepare();
    if (preparing !== undefined) {
      const task = preparing.then(
        () => this.#released(),
        () => {}, // It is tried again when the start moves, or by an append.
      );
      this.#context.writer.background(() => task);
      return false;
    }
    if (this.#producers.count === 0) return true;
    this.#context.markDirty(this);
    this.#context.requestCheckpoint();
    return false;
  }

  /** The next checkpoint tells of a folder that is new: its entry must be synced first. */
  get isFolderNew(): boolean {
    return this.#isFolderInPiece && !this.#isFolderSynced;
  }

  /** The checkpoint with the last piece is complete. */
  checkpointed(): void {
    const staleSnapshots = this.#producerStore.checkpointed();
    if (this.#isFolderInPiece) this.#isFolderSynced = true;
    if (this.#isGone) return;
    this.#swaps?.checkpointed();
    this.#dropSegments();
    for (const offset of staleSnapshots) {
      // That of a segment goes with it.
      if (this.#segments.some((segment) => segment.baseOffset === offset)) continue;
      const remove = async (): Promise<void> => {
        if (!this.#isGone) await this.#context.files.disk.remove(`${this.#path}/${snapshotFileName(offset)}`);
      };
      this.#context.writer.background(() => this.#exclusive(remove));
    }
  }

  /** The end of the partition is decided: nobody uses it any more. Readers are woken when it is durable; files go with `remove`. */
  delete(): void {
    this.isDeleted = true;
  }

  /** A segment that is to go has lost its last reader. */
  #released(): void {
    if (!this.#isGone) {
      this.#swaps?.finish();
      this.#dropSegments();
    }
    const waiting = this.#whenReleased;
    this.#whenReleased = [];
    for (const resolve of waiting) resolve();
  }

  /** The deletion is durable: the files go when the last write and read have ended, after `before`. */
  remove(before?: () => Promise<void>): Promise<void> {
    this.#isGone = true;
    return this.#exclusive(async () => {
      await before?.();
      await this.#remove();
    });
  }

  async #remove(): Promise<void> {
    // What its segments lack is not wanted any more.
    await this.#recovering?.catch(() => {});
    this.#pending = undefined;
    await this.#writer.idle();
    // Before the wait for readers, who hold what they read themselves: appends elsewhere may wait for this room.
    for (const run of this.#runs.unwritten()) {
      this.#runs.written(run);
      this.#context.writer.written(run.sizeBytes);
    }
    for (const segment of this.#segments) segment.isDropped = true;
    while (this.#segments.some(({ readers }) => readers > 0) || this.#swaps?.hasReaders === true) {
      await new Promise<void>((resolve) => {
        this.#whenReleased.push(resolve);
      });
    }
    await this.#makingFolder;
    const { dataDir, clock, writer } = this.#context;
    const folder = this.#folder;
    if (folder === undefined) return;
    // What has left the log may still be sealed or renamed in the folder that goes.
    await Promise.all(this.#leaving);
    let retired = '';
    await writer.removal(async () => {
      await this.close();
      retired = await dataDir.retire(folder);
    });
    const remove = (): Promise<void> => writer.removal(() => dataDir.remove(retired));
    const delayMs = this.config.fileDeleteDelayMs;
    if (delayMs === 0) await remove();
    else clock.after(delayMs, () => writer.background(remove));
  }

  // --- checkpoint ---

  /** Keeps the producer state as it is now for the piece that is made when everything appended so far is in segments. */
  captureProducers(): void {
    if (this.#isPrepared) this.#producerStore.capture(this.#endOffset);
  }

  /** Work on the folder beside the log's own writes: one after the other, the removal last. */
  #exclusive<T>(task: () => Promise<T>): Promise<T> {
    const run = this.#lastTask.then(task);
    // Who asked for it is told of its failure; the next one is not.
    this.#lastTask = run.then(
      () => {},
      () => {},
    );
    return run;
  }

  /** Brings what is durable to the segments, syncs it and answers its piece of the checkpoint; undefined if there is none. */
  checkpoint(saveAll: boolean): Promise<PartitionState | undefined> {
    // Its removal may wait for a reader for ever.
    if (this.#isGone) return Promise.resolve(undefined);
    return this.#exclusive(() => this.#checkpoint(saveAll));
  }

  async #checkpoint(saveAll: boolean): Promise<PartitionState | undefined> {
    await this.#recovered();
    const durableOffset = this.#highWatermark;
    while (this.#runs.firstUnwrittenOffset < durableOffset && !this.#isGone) {
      if (this.unwrittenBytes > BEHIND_NOW_BYTES_MAX || !this.writeBehindNow()) await this.writeBehind();
    }
    if (this.#folder === undefined || this.#isGone) return undefined;
    // What is counted as written now is what will have been synced.
    const segments: SegmentState[] = [];
    for (const segment of this.#segments) {
      segments.push(segment.state());
      if (segment.writtenBytes !== segment.sizeBytes) break;
    }
    this.#swaps?.inPiece();
    const startOffset = this.#durableStart;
    const endOffset = segments.at(-1)?.writtenOffset ?? startOffset;
    await this.#producerStore.keep(endOffset, this.#saveProducers);
    this.#isFolderInPiece = true;
    await this.#syncSegments();
    const epochs = this.#epochs.entries.filter((entry) => entry.startOffset < endOffset);
    if (saveAll || this.sizeBytes >= SMALL_BYTES) await this.#saveForTools(saveAll);
    return {
      topicId: this.topicId,
      index: this.index,
      topic: this.topic,
      folder: this.#folder,
      startOffset,
      isFenced: this.#isDamaged,
      epochs,
      producers: this.#producerStore.inline,
      producersOffset: this.#producerStore.offset,
      segments,
    };
  }

  /** What is found again without it, or is for Kafka's tools only: files of their own, which small partitions do without. */
  async #saveForTools(saveAll: boolean): Promise<void> {
    for (const segment of this.#segments.slice()) {
      if (segment.isSealed || segment.isDropped) continue;
      await segment.saveIndexes(saveAll);
    }
    await this.#saveEpochs();
  }

  readonly #saveProducers = async (offset: number, bytes: Buffer): Promise<void> => {
    if (this.#isGone) return;
    await this.#makeFolder();
    await writeSnapshot(this.#context.files.disk, `${this.#path}/${snapshotFileName(offset)}`, bytes);
  };

  /** For Kafka's tools; what is read back is the checkpoint's copy. */
  async #saveEpochs(): Promise<void> {
    // Of a fenced log even the folder may be missing.
    if (this.isFenced || this.#epochs.latest === this.#savedEpoch) return;
    this.#savedEpoch = this.#epochs.latest;
    await saveEpochs(this.#context.files.disk, this.#path, this.#epochs);
  }

  /** At the end: the producer state goes into a file, as Kafka has it. */
  async saveProducersAtEnd(): Promise<void> {
    if (!this.#isPrepared || this.#folder === undefined || this.isDeleted || this.#producers.count === 0) return;
    await this.#saveProducers(this.#endOffset, this.#producers.encode());
  }

  async close(): Promise<void> {
    await this.#swaps?.close();
    for (const segment of this.#segments) await segment.close();
  }

  // --- first use after a start ---

  /** Resolves when the segments have what the journal has, which is looked at once. Undefined if that was so. */
  #recovered(): Promise<void> | undefined {
    if (this.#pending === undefined || this.#isGone) return undefined;
    this.#recovering ??= this.#recover(this.#pending).finally(() => {
      this.#recovering = undefined;
    });
    return this.#recovering;
  }

  async #recover(pending: PendingLog): Promise<void> {
    try {
      const { state, unsynced, segments, names } = await pending.recover();
      this.#folder = state.folder;
      this.#segments.push(...segments);
      this.#noteUnsynced(unsynced);
      this.#foundNames = names;
      this.#pending = undefined;
      if (state.isFenced) {
        this.#isDamaged = true;
        this.isFenced = true;
        this.wake();
        return;
      }
      assert(this.#active?.writtenOffset === this.#endOffset, `${this.name}: recovered to another end`);
      this.#dropSegments();
    } catch (error) {
      // Of one that is deleted the journal may be gone already.
      if (this.isDeleted) return;
      // Nothing may take the place of what is only in the journal.
      if (!isExhausted(error)) this.#context.fatal(error);
      throw error;
    }
  }

  prepare(): Promise<void> | undefined {
    if (this.#isPrepared || this.isFenced || this.isDeleted) return undefined;
    this.#preparing ??= this.#prepare().finally(() => {
      this.#preparing = undefined;
    });
    return this.#preparing;
  }

  async #prepare(): Promise<void> {
    try {
      await this.#recovered();
      if (this.isFenced) return;
      await this.#context.dataDir.restoreIdentity(this.#folder ?? '', { topicId: this.topicId, index: this.index });
      await this.#tidyFolder();
      await this.#checkActive();
      const { files, clock } = this.#context;
      await this.#producerStore.load(files.disk, this.#path, this.#segments, clock.now(), (message) =>
        this.#context.warn(message),
      );
      this.#isPrepared = true;
    } catch (error) {
      this.fence(error);
      if (this.isFenced) return;
      this.#loadFailure = new MillraceError('KAFKA_STORAGE_ERROR', `${this.name} cannot be loaded now`, {
        cause: error,
      });
      throw this.#loadFailure;
    }
  }

  /** Removes what the checkpoint does not know, and forgets what it knows but is gone. */
  async #tidyFolder(): Promise<void> {
    const { disk } = this.#context.files;
    const names = this.#foundNames ?? (await disk.list(this.#path));
    this.#foundNames = undefined;
    // The checkpoint may name segments that were given up, but had readers then.
    while (this.#segments.length > 1 && this.#segments[1].baseOffset <= this.#durableStart) {
      if (names.includes(`${offsetFileName(this.#segments[0].baseOffset)}.log`)) break;
      this.#unsynced.delete(this.#segments[0]);
      this.#segments.shift();
    }
    this.#active?.noteFiles(new Set(names));
    await tidyFolder(disk, this.#path, names, this.#segments, snapshotFileName(this.#producerStore.offset));
  }

  /** Files that an earlier process has taken out of the log and was to remove. */
  async removeLeftovers(): Promise<void> {
    // In a log that is prepared there are none.
    if (this.#folder === undefined || this.#isGone || this.#isPrepared) return;
    const { disk } = this.#context.files;
    await removeLeftovers(disk, this.#path, this.#foundNames ?? (await disk.list(this.#path)));
  }

  async #checkActive(): Promise<void> {
    const active = this.#active;
    if (active === undefined) return;
    active.indexIntervalBytes = this.config.indexIntervalBytes;
    await cutBeyondEnd(active);
    const { offsets } = await active.loadIndexes();
    active.entryCount = Math.max(active.entryCount, offsets.count);
  }
}
