/**
 * One partition between what its folder has and what journal and checkpoint say of it: its segments are walked above the
 * checkpoint and cut at the first bad batch, and every append part of the journal is there already or is appended.
 *
 * What is done to segments is done again in the same way: a crash at any moment is harmless. What the journal holds is
 * not synced here. Cuts, and what the journal does not hold, are synced before anybody sees the partition.
 *
 * Segments that cannot be read are written again from where the checkpoint ends, if the journal has all of that; else the
 * partition is fenced.
 */
import assert from 'node:assert';
import {
  batchBaseOffset,
  batchLastOffset,
  batchLeaderEpoch,
  batchSizeBytes,
  checkStoredBatch,
} from '../protocol/record-batch.ts';
import type { PartitionState } from './checkpoint.ts';
import type { Clock } from './clock.ts';
import type { DataDir } from './data-dir.ts';
import { type Disk, isExhausted, writeAll, writeAnew } from './disk.ts';
import { type JournalBytes, type JournaledParts, PartReader } from './journaled-parts.ts';
import { LeaderEpochs } from './leader-epochs.ts';
import type { OpenFiles } from './open-files.ts';
import { offsetFileName, Segment, SEGMENT_ENDINGS } from './segment.ts';
import { locate, type Place } from './segment-reader.ts';
import { WalkedBatches } from './walked-batches.ts';

/** What recoveries share. */
export interface RecoveryContext {
  disk: Disk;
  clock: Clock;
  dataDir: DataDir;
  files: OpenFiles;
  journal: JournalBytes;
  warn: (message: string) => void;
}

/** What the journal says of one partition. */
export interface JournalNews {
  topicId: string;
  index: number;
  /** If the journal opens it. */
  topic: string | undefined;
  startOffset: number;
  isDeleted: boolean;
  /** It was written directly: the journal does not have all of it. */
  isMarked: boolean;
  markBase: number;
  markBytes: number;
  /** All of it was on the platter before it was acknowledged. */
  isSynced: boolean;
  parts: JournaledParts;
}

/** A partition whose folder and journal agree. */
export interface RecoveredLog {
  state: PartitionState;
  unsynced: Unsynced;
  /** Those of `state`, perhaps open. */
  segments: readonly Segment[];
  /** Names that were in its folder before. */
  names: readonly string[];
}

/** What of a recovered partition is in its files, but not synced there. */
export interface Unsynced {
  /** The folder was made, or its entry may not be on the platter. */
  isFolderNew: boolean;
  /** By base offset, segments with bytes that are not synced: how many are. */
  syncedBytes: ReadonlyMap<number, number>;
  /** The rest was written by this process: a sync is enough for it. */
  isWrittenHere: boolean;
}

/** Journaled bytes collected before they are compared or appended. */
const PENDING_BYTES_MAX = 1024 * 1024;

/** A segment below this does without indexes here: `saveIndexes` would not save them, and their first use finds them. */
const SMALL_BYTES = 1024 * 1024;

/** Bytes read at a time in a walk; a larger batch gets a window of its own. */
const WINDOW_BYTES = 1024 * 1024;

/** Batches that the journal has. */
interface Append {
  baseOffset: number;
  nextOffset: number;
  startsSegment: boolean;
  bytes: Buffer;
}

/** A segment that could not be read, or did not hold what it must. */
class ReadFailure extends Error {}

export class PartitionRecovery {
  readonly #context: RecoveryContext;
  readonly #news: JournalNews;
  readonly #state: PartitionState | undefined;
  readonly #topic: string;
  readonly #startOffset: number;
  readonly #endMax: number;
  readonly #epochs: LeaderEpochs;
  readonly #segments: Segment[] = [];
  #folder: string | undefined;
  #names: readonly string[] = [];
  #isFenced: boolean;
  /** Cut, and the cut is not synced. */
  readonly #cut = new Set<Segment>();
  /** Names were taken out of the folder. */
  #isFolderChanged = false;
  #isFolderMade = false;
  /** Up to here, from the end of the checkpoint on without a gap, the journal has all batches. */
  readonly #journaledTo: number;
  readonly #syncedBytes = new Map<number, number>();
  /** What was synced here is found again by its folder's name only. */
  needsFolderSync = false;
  readonly #walked = new WalkedBatches();
  /** Parts that follow one another, not yet compared. */
  #pending: Append[] = [];
  #pendingBytes = 0;
  /** Nothing is read from segments any more. */
  #isWrittenAgain = false;

  /**
   * `folder`: if the checkpoint does not know it. `endMax`: the journal has everything up to there from where the checkpoint
   * ends; what lies beyond was never acknowledged, and goes.
   */
  constructor(
    context: RecoveryContext,
    news: JournalNews,
    state: PartitionState | undefined,
    folder: string | undefined,
    endMax = Number.POSITIVE_INFINITY,
  ) {
    this.#context = context;
    this.#news = news;
    this.#state = state;
    this.#topic = state?.topic ?? news.topic ?? '';
    this.#folder = state?.folder ?? folder;
    this.#startOffset = startOf(news, state);
    this.#endMax = endMax;
    this.#epochs = new LeaderEpochs(state?.epochs);
    this.#isFenced = state?.isFenced ?? false;
    this.#journaledTo = journaledTo(news, state);
  }

  /** Undefined if there is nothing of it. */
  async recover(): Promise<RecoveredLog | undefined> {
    await this.#fenced(async () => {
      await this.#scan();
      await this.#replayParts();
      if (this.#endOffset > this.#endMax && !this.#isFenced) {
        await this.#cutAt(this.#endMax, 'what follows was never acknowledged');
      }
    });
    return this.#finish();
  }

  /** Runs `task`. If a segment cannot be read in it, that is written again where it can be, or the partition is fenced. */
  async #fenced(task: () => Promise<void>): Promise<void> {
    try {
      await task();
    } catch (error) {
      if (!(error instanceof ReadFailure)) throw error;
      const isTold = this.#endMax !== Number.POSITIVE_INFINITY;
      if (isTold && !this.#isWrittenAgain) await this.#fenced(() => this.#writeAgain(error));
      else this.#fence(error.message);
    }
  }

  /** Of the segments only what the checkpoint knows is left; the journal has the rest. */
  async #writeAgain(failure: ReadFailure): Promise<void> {
    this.#context.warn(`${this.#name} is written again from the journal: ${failure.message}`);
    this.#isWrittenAgain = true;
    for (const segment of this.#segments) await segment.close();
    this.#segments.length = 0;
    this.#cut.clear();
    this.#walked.clear();
    this.#pending = [];
    this.#pendingBytes = 0;
    this.#names = await this.#context.disk.list(this.#path);
    const present = new Set(this.#names);
    this.#addKnown(present);
    this.#epochs.truncateFromEnd(this.#endOffset);
    for (const segment of this.#segments.slice(0, -1)) segment.isSealed = true;
    const active = this.#segments.at(-1);
    if (this.#isFenced) return;
    if (active !== undefined && present.has(`${offsetFileName(active.baseOffset)}.log`)) await this.#cutKnown(active);
    await this.#removeBeyond(present);
    await this.#replayParts();
  }

  /** Cuts the last segment of the checkpoint there. Its indexes go: they may know more, and are made again when they are used. */
  async #cutKnown(segment: Segment): Promise<void> {
    for (const ending of ['.index', '.timeindex']) await this.#context.disk.remove(segment.path + ending);
    segment.hasIndexFiles = false;
    this.#isFolderChanged = true;
    const file = await segment.file.use('write');
    try {
      await file.truncate(segment.writtenBytes);
    } finally {
      segment.file.done();
    }
    this.#cut.add(segment);
  }

  async #read<T>(path: string, task: () => Promise<T>): Promise<T> {
    try {
      return await task();
    } catch (error) {
      if (isExhausted(error)) throw error;
      throw new ReadFailure(`${path} cannot be read: ${String(error)}`, { cause: error });
    }
  }

  get #path(): string {
    assert(this.#folder !== undefined);
    return `${this.#context.dataDir.path}/${this.#folder}`;
  }
  get #name(): string {
    return `${this.#topic}-${this.#news.index}`;
  }
  get #isNameless(): boolean {
    return this.#topic === '';
  }
  get #endOffset(): number {
    return this.#segments.at(-1)?.writtenOffset ?? this.#startOffset;
  }

  #fence(reason: string): void {
    if (!this.#isFenced) this.#context.warn(`${this.#name} is fenced: ${reason}`);
    this.#isFenced = true;
  }

  /** Finds the end of what its segments hold. */
  async #scan(): Promise<void> {
    if (this.#folder === undefined || this.#isFenced) return;
    this.#names = await this.#context.disk.list(this.#path);
    const present = new Set(this.#names);
    const later = this.#baseOfStart(present);
    if (later >= 0) this.#segments.push(this.#newSegment(later));
    else this.#addKnown(present);
    if (present.size === 0 && !this.#isFenced) {
      // With `log.flush: written` a power cut may take the folder and leave what names it. It held nothing above the start.
      this.#segments.length = 0;
      this.#folder = undefined;
      return;
    }
    for (const segment of this.#segments.slice(0, -1)) segment.isSealed = true;
    if (this.#isFenced || this.#segments.length === 0) return;
    await this.#walk(present);
  }

  /** Segments of the checkpoint, but for those that end at or below the start: they may be gone already. */
  #addKnown(present: ReadonlySet<string>): void {
    const states = this.#state?.segments ?? [];
    for (const [index, state] of states.entries()) {
      if (index + 1 < states.length && states[index + 1].baseOffset <= this.#startOffset) continue;
      if (!present.has(`${offsetFileName(state.baseOffset)}.log`)) {
        if (state.writtenOffset <= this.#startOffset) continue;
        if (state.writtenBytes > 0) this.#fence(`segment ${state.baseOffset} is missing`);
      }
      const segment = Segment.fromState(this.#context.files, this.#path, state);
      segment.noteFiles(present);
      this.#segments.push(segment);
    }
  }

  /**
   * Base offset of the segment that holds the start, if it was made since the checkpoint; else −1. What is below it is not
   * looked at: it may be gone, or back without its unsynced bytes.
   */
  #baseOfStart(present: ReadonlySet<string>): number {
    const known = this.#state?.segments.at(-1);
    let base = -1;
    for (const name of present) {
      const match = /^([0-9]{20})\.log$/.exec(name);
      const offset = match === null ? -1 : Number(match[1]);
      const isNew = known === undefined ? offset >= 0 : offset > known.baseOffset && offset >= known.writtenOffset;
      if (isNew && offset <= this.#startOffset && offset > base) base = offset;
    }
    return base;
  }

  #newSegment(baseOffset: number): Segment {
    const segment = Segment.create(this.#context.files, this.#path, baseOffset, this.#context.clock.now());
    segment.isFileMade = true;
    return segment;
  }

  /** Walks the batches beyond what the checkpoint knows, over all segments that follow; cuts at the first bad one. */
  async #walk(present: ReadonlySet<string>): Promise<void> {
    for (;;) {
      const segment = this.#segments.at(-1);
      assert(segment !== undefined);
      if (!present.has(`${offsetFileName(segment.baseOffset)}.log`)) return;
      const isWhole = await this.#walkSegment(segment);
      if (this.#isFenced) return;
      if (!isWhole) break;
      const next = segment.writtenOffset;
      if (next === segment.baseOffset || !present.has(`${offsetFileName(next)}.log`)) break;
      segment.isSealed = true;
      this.#segments.push(this.#newSegment(next));
    }
    await this.#removeBeyond(present);
  }

  async #walkSegment(segment: Segment): Promise<boolean> {
    const file = await segment.file.use('write');
    try {
      const sizeBytes = await file.size();
      if (sizeBytes < segment.writtenBytes) {
        this.#fence(`${file.path} has ${sizeBytes} bytes, ${segment.writtenBytes} were synced`);
        return false;
      }
      if (sizeBytes === segment.writtenBytes) return true;
      if (sizeBytes < SMALL_BYTES && !segment.hasIndexFiles) segment.isUnindexed = true;
      else await this.#read(file.path, () => segment.loadIndexes());
      let window = Buffer.allocUnsafe(Math.min(WINDOW_BYTES, sizeBytes - segment.writtenBytes));
      for (;;) {
        const at = segment.writtenBytes;
        const target = window.subarray(0, Math.min(window.length, sizeBytes - at));
        const readBytes = await this.#read(file.path, () => file.read(target, at));
        const wholeBytes = this.#noteWhole(segment, window, readBytes);
        if (at + wholeBytes === sizeBytes) return true;
        if (wholeBytes > 0) continue;
        // Not even one: it is larger than the window, or bad.
        const declared = readBytes >= 12 ? batchSizeBytes(window, 0) : 0;
        if (declared > window.length && declared <= sizeBytes - at && declared < 2 ** 30) {
          window = Buffer.allocUnsafe(declared);
          continue;
        }
        const isKnown = segment.baseOffset < this.#news.markBase || at < this.#markOf(segment);
        if (isKnown) this.#fence(`${file.path}: bad batch at ${at}, below what was synced`);
        else {
          this.#context.warn(`${file.path} is cut at ${at}, ${sizeBytes - at} bytes were never acknowledged`);
          await file.truncate(at);
          this.#cut.add(segment);
        }
        return false;
      }
    } finally {
      segment.file.done();
    }
  }

  #markOf(segment: Segment): number {
    return segment.baseOffset === this.#news.markBase ? this.#news.markBytes : 0;
  }

  /** Notes the whole good batches at the start of `window`; answers their size. */
  #noteWhole(segment: Segment, window: Buffer, availableBytes: number): number {
    let at = 0;
    let offset = segment.writtenOffset;
    while (at < availableBytes) {
      const sizeBytes = checkStoredBatch(window, at, availableBytes - at);
      if (sizeBytes < 0 || batchBaseOffset(window, at) !== offset) break;
      const epoch = batchLeaderEpoch(window, at);
      if (epoch < this.#epochs.latest) break;
      this.#epochs.assign(epoch, offset);
      this.#walked.note(window, at, offset);
      offset = batchLastOffset(window, at) + 1;
      at += sizeBytes;
    }
    segment.written(window, 0, at);
    return at;
  }

  /** Segment files beyond the end are what an unfinished group has left. */
  async #removeBeyond(present: ReadonlySet<string>): Promise<void> {
    const kept = new Set(this.#segments.map((segment) => offsetFileName(segment.baseOffset)));
    const end = this.#endOffset;
    for (const name of present) {
      const match = /^([0-9]{20})\.(?:log|index|timeindex|snapshot)$/.exec(name);
      if (match === null || kept.has(match[1]) || Number(match[1]) < end) continue;
      if (name.endsWith('.snapshot') && Number(match[1]) === end) continue;
      await this.#context.disk.remove(`${this.#path}/${name}`);
      this.#isFolderChanged = true;
    }
  }

  /** Every part of the journal: skipped if it is there, else read and collected. */
  async #replayParts(): Promise<void> {
    const { parts } = this.#news;
    const known = this.#state?.segments.at(-1)?.writtenOffset ?? 0;
    const reader = new PartReader(parts, this.#context.journal);
    for (let index = 0; index < parts.count && !this.#isFenced; index++) {
      const part = parts.at(index);
      if (part.nextOffset <= this.#startOffset || (part.nextOffset <= known && this.#endOffset >= known)) continue;
      // Not while earlier parts wait: if one of them differs, the log is cut below this one.
      if (this.#pending.length === 0 && this.#walked.hold(part)) continue;
      if (this.#isUnnamed(part.baseOffset)) return;
      const last = this.#pending.at(-1);
      const follows = last === undefined || (last.nextOffset === part.baseOffset && !part.startsSegment);
      if (!follows || this.#pendingBytes >= PENDING_BYTES_MAX) await this.#replayPending();
      const { baseOffset, nextOffset, startsSegment } = part;
      this.#pending.push({ baseOffset, nextOffset, startsSegment, bytes: await reader.bytesOf(index) });
      this.#pendingBytes += part.sizeBytes;
    }
    await this.#replayPending();
  }

  /** With `log.flush: written` a power cut may take the record that named it and leave later ones. */
  #isUnnamed(offset: number): boolean {
    if (this.#folder !== undefined || !this.#isNameless) return false;
    const { topicId, index, isSynced } = this.#news;
    assert(!isSynced, `the journal appends to partition ${index} of topic ${topicId} and never named it`);
    this.#context.warn(`${topicId}-${index}: dropped from offset ${offset} on, since it was only written`);
    return true;
  }

  async #replayPending(): Promise<void> {
    const parts = this.#pending;
    if (parts.length === 0) return;
    this.#pending = [];
    this.#pendingBytes = 0;
    const bytes = parts.length === 1 ? parts[0].bytes : Buffer.concat(parts.map((part) => part.bytes));
    const { nextOffset } = parts[parts.length - 1];
    await this.#replay({ ...parts[0], bytes, nextOffset });
  }

  /** Skipped if it is there, appended at the end, in place of what differs. */
  async #replay(part: Append): Promise<void> {
    if (this.#isFenced) return;
    if (part.baseOffset > this.#endOffset) {
      if (part.baseOffset > this.#startOffset || this.#endOffset > this.#startOffset) {
        const found = `journal has offset ${part.baseOffset}, the log ends at ${this.#endOffset}`;
        if (this.#news.isSynced) this.#fence(found);
        else this.#context.warn(`${this.#name}: ${found}; dropped, since it was only written`);
        return;
      }
      // All that was below is removed: the log begins here.
      this.#segments.length = 0;
      this.#walked.clear();
    }
    let { bytes } = part;
    if (this.#segments.length > 0 && part.baseOffset < this.#endOffset) {
      const samePrefix = await this.#samePrefix(part);
      if (samePrefix === bytes.length) return;
      if (samePrefix < 0) await this.#cutAt(part.baseOffset, 'the journal has other batches');
      else bytes = bytes.subarray(samePrefix);
    }
    await this.#append(bytes, part.startsSegment && bytes === part.bytes);
  }

  /** How many bytes of the part are in the log already, all of them equal; −1 if they differ. */
  async #samePrefix(part: Append): Promise<number> {
    const segment = this.#segments.findLast((candidate) => candidate.baseOffset <= part.baseOffset);
    assert(segment !== undefined);
    const place = await this.#locate(segment, part.baseOffset);
    if (place === undefined || place.baseOffset !== part.baseOffset) return -1;
    const size = Math.min(part.bytes.length, segment.writtenBytes - place.position);
    const stored = Buffer.allocUnsafe(size);
    const file = await segment.file.use('read');
    try {
      await this.#read(file.path, () => file.read(stored, place.position));
    } finally {
      segment.file.done();
    }
    return stored.equals(part.bytes.subarray(0, size)) ? size : -1;
  }

  #locate(segment: Segment, offset: number): Promise<Place | undefined> {
    return this.#read(segment.file.path, () => locate(segment, offset));
  }

  /** The journal is right: what the segments have from `offset` on is not what was acknowledged. */
  async #cutAt(offset: number, reason: string): Promise<void> {
    this.#context.warn(`${this.#name} is cut at offset ${offset}: ${reason}`);
    this.#walked.clear();
    for (;;) {
      const segment = this.#segments.at(-1);
      if (segment === undefined || segment.baseOffset < offset) break;
      this.#segments.pop();
      this.#cut.delete(segment);
      await segment.close();
      for (const ending of SEGMENT_ENDINGS) await this.#context.disk.remove(segment.path + ending);
      this.#isFolderChanged = true;
    }
    const segment = this.#segments.at(-1);
    this.#epochs.truncateFromEnd(offset);
    if (segment === undefined) return;
    segment.isSealed = false;
    const place = await this.#locate(segment, offset);
    if (place === undefined) return;
    await segment.cut(place.position, place.baseOffset);
    const file = await segment.file.use('write');
    try {
      await file.truncate(place.position);
    } finally {
      segment.file.done();
    }
    this.#cut.add(segment);
  }

  async #makeFolder(): Promise<void> {
    const { topicId, index } = this.#news;
    this.#folder = await this.#context.dataDir.createPartition(this.#topic, { topicId, index });
    this.#isFolderMade = true;
  }

  async #append(bytes: Buffer, startsSegment: boolean): Promise<void> {
    const baseOffset = batchBaseOffset(bytes, 0);
    if (this.#folder === undefined) await this.#makeFolder();
    let segment = this.#segments.at(-1);
    if (segment === undefined || (startsSegment && segment.writtenBytes > 0)) {
      if (segment !== undefined) segment.isSealed = true;
      segment = this.#newSegment(baseOffset);
      this.#segments.push(segment);
    }
    assert(segment.writtenOffset === baseOffset);
    const isIndexed = segment.writtenBytes >= SMALL_BYTES || segment.hasIndexFiles;
    if (isIndexed && !this.#isWrittenAgain) await this.#read(segment.file.path, () => segment.loadIndexes());
    else segment.isUnindexed = true;
    const file = await segment.file.use('write');
    try {
      await writeAll(file, [bytes], segment.writtenBytes);
    } finally {
      segment.file.done();
    }
    for (let at = 0; at < bytes.length; at += batchSizeBytes(bytes, at)) {
      this.#epochs.assign(batchLeaderEpoch(bytes, at), batchBaseOffset(bytes, at));
    }
    segment.written(bytes, 0, bytes.length);
  }

  /** Syncs cuts and what the journal does not hold. */
  async #finish(): Promise<RecoveredLog | undefined> {
    if (this.#folder === undefined) {
      if (this.#startOffset === 0 || this.#isNameless) return undefined;
      // Everything it had is below its start: where it goes on must be known all the same.
      await this.#makeFolder();
    }
    if (!this.#isFenced) await this.#sync();
    // Of an empty one the file may not have been made, or not for good.
    for (const segment of this.#segments) segment.isFileMade = segment.writtenBytes > 0;
    const segments =
      this.#isFenced && this.#state !== undefined ? this.#state.segments : this.#segments.map((s) => s.state());
    this.#epochs.truncateFromStart(this.#startOffset);
    assert(this.#folder !== undefined);
    return {
      state: {
        topicId: this.#news.topicId,
        index: this.#news.index,
        topic: this.#topic,
        folder: this.#folder,
        startOffset: this.#startOffset,
        isFenced: this.#isFenced,
        epochs: this.#epochs.entries,
        producers: this.#state?.producers,
        producersOffset: this.#state?.producersOffset ?? 0,
        segments,
      },
      unsynced: {
        isFolderNew: this.#isFolderMade || this.#state === undefined,
        syncedBytes: this.#syncedBytes,
        isWrittenHere: this.#isWrittenAgain,
      },
      segments: this.#segments,
      names: this.#names,
    };
  }

  async #sync(): Promise<void> {
    if (this.#endOffset < this.#startOffset) {
      for (const segment of this.#segments) await segment.close();
      this.#segments.length = 0;
    }
    if (this.#segments.length === 0) this.#segments.push(this.#newSegment(this.#startOffset));
    const isJournaled = this.#journaledTo >= this.#endOffset;
    for (const segment of this.#segments) {
      const known = this.#state?.segments.find(({ baseOffset }) => baseOffset === segment.baseOffset);
      const isMarked = segment.baseOffset < this.#news.markBase;
      const from = isMarked ? segment.writtenBytes : Math.max(known?.writtenBytes ?? 0, this.#markOf(segment));
      const isMore = known === undefined || known.writtenBytes < segment.writtenBytes;
      if (isJournaled && isMore) this.#syncedBytes.set(segment.baseOffset, Math.min(from, segment.writtenBytes));
      if ((isJournaled || !isMore) && !this.#cut.has(segment)) continue;
      const file = await segment.file.use('write');
      try {
        if (!isJournaled) await writeAnew(file, from, segment.writtenBytes);
        await file.sync();
      } finally {
        segment.file.done();
      }
      if (!isJournaled) this.#isFolderChanged = true;
    }
    for (const segment of this.#segments) if (segment.sizeBytes >= SMALL_BYTES) await segment.saveIndexes(false);
    if (!this.#isFolderChanged) return;
    await this.#context.disk.syncDirectory(this.#path);
    if (isJournaled || this.#folder === undefined) return;
    if (this.#isFolderMade || this.#state === undefined) await this.#context.dataDir.syncPartition(this.#folder);
    this.needsFolderSync = true;
  }
}

/** Where the partition starts: what is below was given up. */
export function startOf(news: JournalNews, state: PartitionState | undefined): number {
  return Math.max(state?.startOffset ?? 0, news.startOffset);
}

/** Up to which offset, from the end of the checkpoint on without a gap, the journal has all batches. */
export function journaledTo(news: JournalNews, state: PartitionState | undefined): number {
  let end = state?.segments.at(-1)?.writtenOffset ?? startOf(news, state);
  for (let index = 0; index < news.parts.count; index++) {
    const { baseOffset, nextOffset } = news.parts.at(index);
    if (baseOffset <= end && nextOffset > end) end = nextOffset;
  }
  return end;
}
