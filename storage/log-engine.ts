/**
 * The embedded log: partitions on one shared journal in one data folder (docs/architecture.md, "The log"). It wires the
 * parts together, makes commits atomic, checkpoints, watches the disk, and stops everything after a failed write or sync.
 *
 * Always true: what `durablePosition` covers survives kill -9 and, with `log.flush: synced`, a power cut; after the first
 * failure nothing becomes durable any more and `onFatal` is called once.
 */
import assert from 'node:assert';
import { MillraceError } from '../protocol/errors.ts';
import { encodePartition, writeCheckpoint } from './checkpoint.ts';
import type { Clock, Random, Timer } from './clock.ts';
import { Committer } from './committer.ts';
import { Compactor, type CompactorSettings, type RewriteRequest, type RewriteResult } from './compactor.ts';
import type { DataDir } from './data-dir.ts';
import type { Disk } from './disk.ts';
import { InlineJobs, type Jobs } from './jobs.ts';
import { Journal } from './journal.ts';
import type { JournalBytes } from './journaled-parts.ts';
import { keyText, partitionKey } from './journal-record.ts';
import type { LogContext } from './log-context.ts';
import { type MemoryBudget, MemoryLog } from './memory-log.ts';
import type { Appended, LogConfig, PartitionSpec, Position } from './log.ts';
import { OpenFiles } from './open-files.ts';
import { PartitionLog } from './partition-log.ts';
import { type Recovered, type RecoveredPartition, recover } from './recovery.ts';
import { ScratchFile } from './scratch-file.ts';
import { SegmentWriter } from './segment-writer.ts';
import { TailCache } from './tail-cache.ts';

/** Sizes and times of the engine; `broker/config.ts` has the options, their defaults and reasons. */
export interface LogEngineSettings {
  isSynced: boolean;
  flushLingerMs: number;
  journalFileBytes: number;
  journalFiles: number;
  journalEntryBytes: number;
  journalGroupBytes: number;
  journalDirectBytes: number;
  journalSegmentBytes: number;
  journalSegmentLingerMs: number;
  journalCheckpointBytes: number;
  tailCacheBytes: number;
  /** Of logs in memory; what is beyond it goes to a scratch file. */
  transientBytesMax: number;
  unwrittenBytesMax: number;
  openFilesMax: number;
  diskReserveBytes: number;
  producerExpirationMs: number;
  producersMax: number;
  compactor: CompactorSettings;
}

export interface LogEngineOptions {
  disk: Disk;
  clock: Clock;
  random: Random;
  /** Open; the engine closes it. */
  dataDir: DataDir;
  /** Default: inline. The engine closes them. */
  jobs?: Jobs;
  settings: LogEngineSettings;
  /** Cut tails, fenced partitions and the like, for the broker's own log. */
  warn: (message: string) => void;
}

/** One piece of an atomic commit. */
type CommitPartOf<Log> =
  | { kind: 'append'; partition: Log; batch: Buffer }
  | { kind: 'start'; partition: Log; offset: number }
  | { kind: 'delete'; partition: Log };
export type LogCommitPart = CommitPartOf<PartitionLog | MemoryLog>;
type StoredPart = CommitPartOf<PartitionLog>;

/** For metrics and benchmarks. */
export interface LogCounters {
  groups: number;
  journalRecords: number;
  journalBytes: number;
  /** Of those, not covered by a checkpoint: what a restart has to read. */
  journalHeldBytes: number;
  directWrites: number;
  segmentWrites: number;
  checkpoints: number;
  cacheBytes: number;
  /** Beyond the cache, held by readers that have fallen behind it. */
  pinnedBytes: number;
  unwrittenBytes: number;
  openFiles: number;
  /** Of logs in memory, and what of them is in the scratch file. */
  transientBytes: number;
  scratchBytes: number;
}

/** Written directly between checkpoints, at most: bounds the walk after a crash. */
const DIRECT_BYTES_PER_CHECKPOINT = 256 * 1024 * 1024;
/** Partitions that a checkpoint brings to the disk at a time. */
const CHECKPOINT_PARALLEL = 8;
const FREE_SPACE_INTERVAL_MS = 1000;

/** Stands in until somebody opens the partition. */
const unopenedConfig: LogConfig = {
  segmentBytes: 2 ** 30,
  segmentMs: Number.MAX_SAFE_INTEGER,
  segmentIndexBytes: 10 * 1024 * 1024,
  indexIntervalBytes: 4096,
  retentionMs: -1,
  retentionBytes: -1,
  fileDeleteDelayMs: 60_000,
  timestampType: 'CreateTime',
  timestampBeforeMaxMs: Number.MAX_SAFE_INTEGER,
  timestampAfterMaxMs: Number.MAX_SAFE_INTEGER,
  maxMessageBytes: 2 ** 31 - 1,
};

function isStored(part: LogCommitPart): part is StoredPart {
  return !(part.partition instanceof MemoryLog);
}

export class LogEngine implements LogContext {
  readonly clock: Clock;
  readonly files: OpenFiles;
  readonly cache: TailCache;
  readonly committer: Committer;
  readonly writer: SegmentWriter;
  readonly compactor: Compactor;
  readonly dataDir: DataDir;
  readonly leaderEpoch: number;
  readonly producersMax: number;
  readonly isSynced: boolean;
  readonly memoryBudget: MemoryBudget;
  readonly scratch: ScratchFile;
  isFull = false;
  stopped: MillraceError | undefined;
  checkpointNumber = 0;

  readonly #disk: Disk;
  readonly #settings: LogEngineSettings;
  readonly #warn: (message: string) => void;
  readonly #journal: Journal;
  readonly #logs = new Map<string, PartitionLog>();
  readonly #dirty = new Set<PartitionLog>();
  /** Each partition's piece of the checkpoint, as of when it was last synced. */
  readonly #pieces = new Map<string, Buffer>();
  #roomWaiters: (() => void)[] = [];
  #onFatal: ((error: Error) => void) | undefined;
  #fatalError: Error | undefined;
  #checkpointing: Promise<void> | undefined;
  #isCheckpointWanted = false;
  #whenStarved: (() => void)[] = [];
  #checkpointJournalBytes = 0;
  #checkpointSegmentBytes = 0;
  /** Journal written before the last checkpoint that was completed. */
  #coveredJournalBytes = 0;
  #freeSpaceTimer: Timer | undefined;
  #checkpointCount = 0;
  /** What partitions that are pending since the start read from, until the first checkpoint. */
  #recoveredJournal: JournalBytes | undefined;

  private constructor(
    options: LogEngineOptions,
    journal: Journal,
    files: OpenFiles,
    leaderEpoch: number,
    recovered: Recovered,
  ) {
    const { clock, disk, settings } = options;
    this.clock = clock;
    this.dataDir = options.dataDir;
    this.leaderEpoch = leaderEpoch;
    this.isSynced = settings.isSynced;
    this.producersMax = settings.producersMax;
    this.memoryBudget = { bytesMax: settings.transientBytesMax, bytes: 0 };
    this.scratch = new ScratchFile(disk, `${this.dataDir.path}/transient.scratch`);
    this.#disk = disk;
    this.#settings = settings;
    this.#warn = options.warn;
    this.#journal = journal;
    this.files = files;
    const onFatal = (error: unknown): void => this.fatal(error);
    this.writer = new SegmentWriter({
      clock,
      segmentBytesMin: settings.journalSegmentBytes,
      lingerMs: settings.journalSegmentLingerMs,
      unwrittenBytesMax: settings.unwrittenBytesMax,
      mayOpen: () => {
        if (!this.files.areTooMany) return true;
        this.#checkpointSoon();
        return false;
      },
      onFatal,
      onRoom: () => this.#wakeRoom(),
    });
    this.cache = new TailCache({
      budgetBytes: settings.tailCacheBytes,
      onPressure: (slab) => {
        for (const run of slab.runs) {
          // A slab has runs of partition logs only; the cache does not need to know.
          const log = run.owner as PartitionLog;
          if (log.firstUnwrittenOffset <= run.baseOffset) this.writer.hurry(log);
        }
      },
    });
    this.compactor = new Compactor({
      clock,
      disk,
      jobs: options.jobs ?? new InlineJobs(disk),
      folder: this.dataDir.path,
      settings: settings.compactor,
      logs: () => this.#logs.values(),
      checkpoint: () => this.checkpoint(false),
      requestCheckpoint: () => this.requestCheckpoint(),
      warn: options.warn,
    });
    this.committer = new Committer({
      clock,
      journal,
      isSynced: settings.isSynced,
      groupBytesMax: settings.journalGroupBytes,
      directBytesMin: settings.journalDirectBytes,
      lingerMs: settings.flushLingerMs,
      onFatal,
      onGroupEnd: () => {
        this.writer.relieve();
        this.#checkpointIfDue();
      },
      onStarved: () => this.#starved(),
    });
    // Counted below zero: what a restart has to read is more than what this process has written.
    this.#coveredJournalBytes = -recovered.chain.sizeBytes;
    this.#checkpointJournalBytes = -recovered.chain.sizeBytes;
    this.#recoveredJournal = recovered.journal;
    for (const partition of recovered.partitions) this.#restore(partition);
    this.#watchFreeSpace();
  }

  /** Recovers what the data folder holds and is ready for use. */
  static async open(options: LogEngineOptions): Promise<LogEngine> {
    const { disk, clock, random, dataDir, settings, warn } = options;
    const journalFolder = `${dataDir.path}/journal`;
    const checkpointPath = `${dataDir.path}/checkpoint`;
    await disk.makeDirectory(journalFolder);
    const files = new OpenFiles(disk, settings.openFilesMax);
    const recovered = await recover({ disk, clock, dataDir, checkpointPath, journalFolder, files, warn });
    const { leaderEpoch, nextSequence, chain } = recovered;
    // The leader epoch is taken. For the rest, this start leaves the checkpoint and the journal as they are.
    await writeCheckpoint(disk, checkpointPath, { sequence: recovered.sequence, leaderEpoch }, recovered.pieces);
    let engine: LogEngine | undefined;
    const journal = await Journal.open({
      disk,
      random,
      folder: journalFolder,
      fileCount: settings.journalFiles,
      fileBytes: settings.journalFileBytes,
      isSynced: settings.isSynced,
      leaderEpoch,
      firstSequence: nextSequence,
      before: chain,
      onError: (error) => engine?.fatal(error),
    });
    engine = new LogEngine(options, journal, files, leaderEpoch, recovered);
    await engine.#checkFreeSpace();
    await engine.compactor.load();
    if (chain.lastSequences.size > 0) {
      // One crash after the other must not make the journal longer and longer.
      if (chain.lastSequences.size > settings.journalFiles) await engine.checkpoint(false);
      else engine.#checkpointSoon();
    }
    engine.#removeLeftovers();
    return engine;
  }

  /** What an earlier process was about to remove, one after the other: nobody waits for it. */
  #removeLeftovers(): void {
    const restored = [...this.#logs.values()];
    this.writer.background(async () => {
      // After what others wait for; and it knows what is in the folders that it has looked at.
      await this.#checkpointing?.catch(() => {});
      await this.scratch.removeLeftover();
      await this.dataDir.removeLeftovers();
      for (const log of restored) {
        if (this.stopped !== undefined) return;
        await log.removeLeftovers();
      }
    });
  }

  #restore(partition: RecoveredPartition): void {
    const { topicId, topic, index } = partition.state;
    const log = new PartitionLog(this, { topicId, topic, index, config: unopenedConfig }, partition);
    this.#logs.set(log.keyText, log);
    if ('piece' in partition) this.#pieces.set(log.keyText, partition.piece);
    else this.markDirty(log);
    // Its segments have their names by now.
    if (partition.state.segments.some(({ isSwapPending }) => isSwapPending)) this.markDirty(log);
  }

  get producerExpirationMs(): number {
    return this.#settings.producerExpirationMs;
  }

  get counters(): LogCounters {
    return {
      groups: this.committer.groupCount,
      journalRecords: this.committer.recordCount,
      journalBytes: this.#journal.writtenBytes,
      journalHeldBytes: this.#journal.writtenBytes - this.#coveredJournalBytes,
      directWrites: this.committer.directCount,
      segmentWrites: this.writer.writeCount,
      checkpoints: this.#checkpointCount,
      cacheBytes: this.cache.sizeBytes,
      pinnedBytes: this.cache.pinnedBytes,
      unwrittenBytes: this.writer.unwrittenBytes,
      openFiles: this.files.count,
      transientBytes: this.memoryBudget.bytes,
      scratchBytes: this.scratch.usedBytes,
    };
  }

  onGroupMs(callback: (ms: number) => void): void {
    this.committer.onGroupMs = callback;
  }

  // --- partitions ---

  openPartition(spec: PartitionSpec): PartitionLog {
    const key = keyText(partitionKey(spec.topicId, spec.index));
    const known = this.#logs.get(key);
    if (known !== undefined) {
      assert(!known.isOpened, `${spec.topic}-${spec.index} is open already`);
      known.config = spec.config;
      known.isOpened = true;
      return known;
    }
    const log = new PartitionLog(this, spec);
    log.isOpened = true;
    this.#logs.set(key, log);
    return log;
  }

  openTransient(spec: PartitionSpec): MemoryLog {
    return new MemoryLog(this, spec);
  }

  async discardUnopened(): Promise<void> {
    const parts: LogCommitPart[] = [];
    for (const log of this.#logs.values()) if (!log.isOpened) parts.push({ kind: 'delete', partition: log });
    if (parts.length === 0) return;
    const { position } = this.commit(parts, 'waited');
    await this.#durable(position);
  }

  // --- commits ---

  get durablePosition(): Position {
    return this.committer.durablePosition;
  }

  get lastPosition(): Position {
    return this.committer.newestPosition;
  }

  whenDurable(position: Position, callback: () => void): void {
    this.committer.whenDurable(position, callback);
  }

  commit(parts: readonly LogCommitPart[], urgency: 'waited' | 'lazy'): { position: Position; appended: Appended[] } {
    if (this.stopped !== undefined) throw this.stopped;
    if (!parts.every(isStored)) return this.#commitMixed(parts, urgency);
    let sizeBytes = 0;
    for (const part of parts) {
      if (part.kind === 'append') {
        part.partition.checkWritable();
        sizeBytes += part.batch.length;
      } else if (part.partition.isDeleted) {
        throw new MillraceError('UNKNOWN_TOPIC_OR_PARTITION', `${part.partition.name} is deleted`);
      }
    }
    if (sizeBytes > this.#settings.journalEntryBytes) {
      throw new MillraceError(
        'RECORD_LIST_TOO_LARGE',
        `an atomic commit of ${sizeBytes} bytes, journal.entry.bytes is ${this.#settings.journalEntryBytes}`,
      );
    }
    // Nothing below fails: all parts are in the group or none.
    const group = this.committer.join(urgency);
    const appended: Appended[] = [];
    for (const part of parts) {
      const { partition } = part;
      switch (part.kind) {
        case 'append':
          appended.push(partition.appendAtomic(part.batch, group));
          break;
        case 'start':
          this.#commitStart(partition, part.offset, group);
          break;
        case 'delete':
          partition.delete();
          group.others.push({ kind: 'delete', key: partition.key });
          group.effects.push(() => this.#deleted(partition));
          break;
      }
    }
    return { position: group.number, appended };
  }

  /** Logs in memory take their parts right after the others have theirs: a crash forgets them whole. */
  #commitMixed(
    parts: readonly LogCommitPart[],
    urgency: 'waited' | 'lazy',
  ): { position: Position; appended: Appended[] } {
    for (const { partition } of parts) {
      if (!partition.isDeleted) continue;
      throw new MillraceError('UNKNOWN_TOPIC_OR_PARTITION', `${partition.topic}-${partition.index} is deleted`);
    }
    const kept = parts.filter(isStored);
    // What is only in memory is not waited for; a position never goes back.
    const stored = kept.length > 0 ? this.commit(kept, urgency) : { position: this.lastPosition, appended: [] };
    const storedAppends = stored.appended.values();
    const appended: Appended[] = [];
    for (const part of parts) {
      if (isStored(part)) {
        const next = part.kind === 'append' ? storedAppends.next().value : undefined;
        if (next !== undefined) appended.push(next);
        continue;
      }
      // What is not stored is in memory.
      const log = part.partition as MemoryLog;
      if (part.kind === 'append') appended.push(log.appendAtomic(part.batch));
      else if (part.kind === 'start') log.moveStart(part.offset);
      else log.delete();
    }
    return { position: stored.position, appended };
  }

  #commitStart(partition: PartitionLog, offset: number, group: { others: unknown[]; effects: (() => void)[] }): void {
    partition.moveStart(offset);
    group.others.push({ kind: 'start', key: partition.key, offset });
    group.effects.push(() => partition.startDurable(offset));
  }

  #deleted(partition: PartitionLog): void {
    this.#logs.delete(partition.keyText);
    this.#dirty.delete(partition);
    this.#pieces.delete(partition.keyText);
    partition.wake();
    // The name of its folder may be another's soon, which must not be taken for it: that it is deleted lasts as long as that.
    const before = this.isSynced ? undefined : (): Promise<void> => this.#journal.sync();
    this.writer.background(() => partition.remove(before));
    this.writer.background(() => this.compactor.forget(partition));
  }

  #durable(position: Position): Promise<void> {
    return new Promise((resolve) => this.committer.whenDurable(position, resolve));
  }

  startNow(): void {
    this.committer.startNow();
  }

  // --- room ---

  get hasRoom(): boolean {
    return this.writer.hasRoom;
  }

  whenRoom(callback: () => void): void {
    if (this.hasRoom) callback();
    else this.#roomWaiters.push(callback);
  }

  #wakeRoom(): void {
    const waiting = this.#roomWaiters;
    this.#roomWaiters = [];
    for (const callback of waiting) callback();
  }

  #watchFreeSpace(): void {
    this.#freeSpaceTimer = this.clock.after(FREE_SPACE_INTERVAL_MS, () => {
      this.#checkFreeSpace().then(
        () => {
          if (this.stopped === undefined) this.#watchFreeSpace();
        },
        (error: unknown) => this.fatal(error),
      );
    });
  }

  async #checkFreeSpace(): Promise<void> {
    this.isFull = (await this.#disk.freeBytes(this.dataDir.path)) < this.#settings.diskReserveBytes;
  }

  // --- retention ---

  async retain(): Promise<void> {
    if (this.stopped !== undefined) return;
    const now = this.clock.now();
    const parts: LogCommitPart[] = [];
    for (const log of this.#logs.values()) {
      if (!log.isOpened || log.isDeleted || log.isFenced) continue;
      log.expireProducers(now);
      let offset = log.retentionStart(now);
      const preparing = offset > log.startOffset ? log.prepare() : undefined;
      if (preparing !== undefined) {
        try {
          await preparing;
        } catch {
          continue; // For want of descriptors or memory: the next run tries again.
        }
        if (log.isDeleted || log.isFenced) continue;
        offset = log.retentionStart(now);
      }
      if (offset > log.startOffset) parts.push({ kind: 'start', partition: log, offset });
    }
    if (parts.length === 0) return;
    // While others were prepared, some may have been deleted.
    const { position } = this.commit(
      parts.filter(({ partition }) => !partition.isDeleted),
      'waited',
    );
    await this.#durable(position);
  }

  /** Compacts logs that are dirty enough. */
  async compact(): Promise<void> {
    if (this.stopped === undefined) await this.compactor.run();
  }

  /** Drops records of sealed segments. */
  rewrite(partition: PartitionLog, request: RewriteRequest): Promise<RewriteResult> {
    return this.compactor.rewrite(partition, request);
  }

  // --- checkpoints ---

  markDirty(log: PartitionLog): void {
    if (log.isDirty) return;
    log.isDirty = true;
    this.#dirty.add(log);
  }

  #checkpointIfDue(): void {
    const journalBytes = this.#journal.writtenBytes - this.#checkpointJournalBytes;
    const segmentBytes = this.writer.writtenBytes - this.#checkpointSegmentBytes;
    const isDue = journalBytes >= this.#settings.journalCheckpointBytes || segmentBytes >= DIRECT_BYTES_PER_CHECKPOINT;
    if (isDue) this.#checkpointSoon();
  }

  #starved(): void {
    const waiting = this.#whenStarved;
    this.#whenStarved = [];
    for (const resolve of waiting) resolve();
    this.#checkpointSoon();
  }

  #checkpointSoon(): void {
    // Also while it closes: the last groups may need the room that a checkpoint makes.
    if (this.#checkpointing !== undefined || this.#fatalError !== undefined) return;
    this.checkpoint(false).catch((error: unknown) => this.fatal(error));
  }

  requestCheckpoint(): void {
    if (this.#checkpointing !== undefined) this.#isCheckpointWanted = true;
    else this.#checkpointSoon();
  }

  /** Syncs what the journal holds and lets its files be reused. One at a time. */
  checkpoint(saveAll: boolean): Promise<void> {
    if (this.#checkpointing !== undefined) return this.#checkpointing;
    const checkpointing = this.#checkpoint(saveAll).catch((error: unknown) => {
      // Before another one can begin: it would take what this one has not brought to the disk for covered.
      this.fatal(error);
      throw error;
    });
    this.#checkpointing = checkpointing.finally(() => {
      this.#checkpointing = undefined;
      // What starved during this checkpoint needs the next one, unless this one has made room.
      this.committer.unstarve();
      this.files.relieve();
      this.writer.resume();
      if (!this.#isCheckpointWanted) return;
      this.#isCheckpointWanted = false;
      this.#checkpointSoon();
    });
    return this.#checkpointing;
  }

  async #checkpoint(saveAll: boolean): Promise<void> {
    const sequence = this.committer.settledSequence;
    const journalBytes = this.#journal.writtenBytes;
    this.#checkpointJournalBytes = journalBytes;
    this.#checkpointSegmentBytes = this.writer.writtenBytes;
    this.checkpointNumber++;
    const dirty = [...this.#dirty];
    this.#dirty.clear();
    for (const log of dirty) {
      log.isDirty = false;
      log.captureProducers();
    }
    // The producer state that was captured becomes valid with what is under way; a journal that waits for this
    // checkpoint cannot bring that, and the older state stays.
    await this.#durableOrStarved(this.committer.newestPosition);
    this.#whenStarved = [];
    const waiting = dirty.values();
    const lane = async (): Promise<void> => {
      for (const log of waiting) {
        const state = await log.checkpoint(saveAll);
        if (state !== undefined && this.#logs.get(log.keyText) === log)
          this.#pieces.set(log.keyText, encodePartition(state));
      }
    };
    await Promise.all(Array.from({ length: CHECKPOINT_PARALLEL }, lane));
    if (dirty.some((log) => log.isFolderNew)) await this.dataDir.sync();
    if (this.#fatalError !== undefined) return;
    const head = { sequence, leaderEpoch: this.leaderEpoch };
    await writeCheckpoint(this.#disk, `${this.dataDir.path}/checkpoint`, head, [...this.#pieces.values()]);
    this.#checkpointCount++;
    this.#coveredJournalBytes = journalBytes;
    await this.#recoveredJournal?.close();
    this.#recoveredJournal = undefined;
    this.#journal.release(sequence);
    for (const log of dirty) log.checkpointed();
  }

  #durableOrStarved(position: Position): Promise<void> {
    if (this.committer.isStarved || position <= this.durablePosition) return Promise.resolve();
    return new Promise((resolve) => {
      this.#whenStarved.push(resolve);
      this.committer.whenDurable(position, resolve);
    });
  }

  // --- end ---

  onFatal(callback: (error: Error) => void): void {
    this.#onFatal = callback;
    if (this.#fatalError !== undefined) callback(this.#fatalError);
  }

  warn(message: string): void {
    this.#warn(message);
  }

  fatal(error: unknown): void {
    if (this.#fatalError !== undefined) return;
    this.#fatalError = error instanceof Error ? error : new Error(String(error));
    this.stopped = new MillraceError('KAFKA_STORAGE_ERROR', `the log has stopped: ${this.#fatalError.message}`, {
      cause: error,
    });
    this.committer.stop();
    this.writer.stop();
    this.compactor.stop();
    this.#freeSpaceTimer?.cancel();
    this.#onFatal?.(this.#fatalError);
  }

  async close(): Promise<void> {
    if (this.stopped !== undefined) return;
    this.stopped = new MillraceError('STOPPING');
    this.#freeSpaceTimer?.cancel();
    await this.compactor.close();
    await this.#durable(this.committer.newestPosition);
    await this.writer.idle();
    await this.#checkpointing;
    for (const log of this.#logs.values()) await log.saveProducersAtEnd();
    await this.checkpoint(true);
    await this.writer.idle();
    await this.compactor.saved();
    this.committer.stop();
    this.writer.stop();
    for (const log of this.#logs.values()) await log.close();
    await this.scratch.close();
    await this.#journal.close();
    await this.dataDir.close();
  }
}
