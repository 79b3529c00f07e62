/**
 * Brings the log back after a stop of any kind, before anything is served:
 *
 *   checkpoint → journal headers: which partitions, which starts, which deletions, how far is known synced
 *   → each touched partition: walk its segments above the checkpoint, cut at the first bad batch
 *   → journal again: every append part is there already, or is appended
 *
 * A bad batch or a missing file below what was known synced fences the partition. Nothing of the journal or the checkpoint
 * is changed here, and what is done to segments is done again in the same way: a crash at any moment is harmless. What the
 * journal holds is not synced here: the journal stays until the engine's first checkpoint covers it, and every start before
 * that reads it again. Cuts, and what the journal does not hold, are synced before anybody sees the partition.
 */
import assert from 'node:assert';
import {
  batchBaseOffset,
  batchLastOffset,
  batchLeaderEpoch,
  batchSizeBytes,
  checkStoredBatch,
} from '../protocol/record-batch.ts';
import { MillraceError } from '../protocol/errors.ts';
import { type Checkpoint, type PartitionState, readCheckpoint } from './checkpoint.ts';
import type { Clock } from './clock.ts';
import type { DataDir } from './data-dir.ts';
import { type Disk, writeAll, writeAnew } from './disk.ts';
import { openChain, readJournal, SEQUENCE_GAP } from './journal-reader.ts';
import type { ReadChain } from './journal.ts';
import { keyText, partitionKey, type ReadPart } from './journal-record.ts';
import { LeaderEpochs } from './leader-epochs.ts';
import { OpenFiles } from './open-files.ts';
import { offsetFileName, Segment, SEGMENT_ENDINGS } from './segment.ts';
import { locate } from './segment-reader.ts';
import { WalkedBatches } from './walked-batches.ts';

export interface RecoveryOptions {
  disk: Disk;
  clock: Clock;
  dataDir: DataDir;
  checkpointPath: string;
  journalFolder: string;
  /** `log.open.files.max` */
  openFilesMax: number;
  warn: (message: string) => void;
}

/** A partition that the journal names: the checkpoint does not tell all of it. */
export interface Unsynced {
  /** The folder was made, or its entry may not be on the platter. */
  isFolderNew: boolean;
  /** By base offset, segments with bytes that are not synced: how many are. */
  syncedBytes: ReadonlyMap<number, number>;
}

/** Either what the checkpoint has of it still holds, or something is not synced. */
export type RecoveredPartition = { state: PartitionState } & ({ piece: Buffer } | { unsynced: Unsynced });

export interface Recovered {
  partitions: RecoveredPartition[];
  /** The checkpoint that was read, and its pieces as they are stored. */
  sequence: number;
  pieces: readonly Buffer[];
  chain: ReadChain;
  /** Of this start: larger than all before. */
  leaderEpoch: number;
  /** First sequence of the new journal chain: larger than any written before. */
  nextSequence: number;
}

/** What the journal says of one partition, beside its appends. */
interface JournalNews {
  /** If the journal opens it. */
  topic: string | undefined;
  isAppended: boolean;
  startOffset: number;
  isDeleted: boolean;
  markBase: number;
  markBytes: number;
}

export async function recover(options: RecoveryOptions): Promise<Recovered> {
  const { disk, checkpointPath, journalFolder } = options;
  // After a kill, names may be in the page cache only, that of the newest checkpoint too: a power cut from here on must not
  // bring back the older one, whose journal is about to be written over.
  await disk.syncDirectory(options.dataDir.path);
  await disk.syncDirectory(journalFolder);
  const stored = await readCheckpoint(disk, checkpointPath);
  if (stored === undefined && options.dataDir.folders.length > 0) {
    // It is written before the first partition is made: without it nothing here can be told from leftovers.
    throw new MillraceError(
      'DATA_DIR_CORRUPT',
      `${checkpointPath} is missing, but there are partition folders; restore it from a backup`,
    );
  }
  const checkpoint: Checkpoint = stored ?? { head: { sequence: 1, leaderEpoch: -1 }, partitions: [], pieces: [] };
  const chain = await openChain(disk, journalFolder);
  const { sequence } = checkpoint.head;

  const news = new Map<string, JournalNews>();
  let lastSequence = sequence - 1;
  const lastSequences = new Map<string, number>();
  let last: ReadChain['last'];
  let chainBytes = 0;
  for await (const record of readJournal(disk, chain, sequence)) {
    lastSequence = record.sequence;
    lastSequences.set(record.path, lastSequence);
    last = { path: record.path, position: record.position, sizeBytes: record.sizeBytes };
    chainBytes += record.sizeBytes;
    for (const part of record.parts) notePart(news, part);
  }

  const states = new Map<string, PartitionState>();
  for (const state of checkpoint.partitions) states.set(keyText(partitionKey(state.topicId, state.index)), state);
  // A deleted partition's folder may bear the name of a newer one by now: who it belongs to is looked up like that of any.
  for (const [key, item] of news) if (item.isDeleted) states.delete(key);
  const folders = await identifyFolders(options, states, news, chain.files.at(-1)?.isSynced ?? true);
  const files = new OpenFiles(disk, options.openFilesMax);
  const touched = new Map<string, PartitionRecovery>();
  for (const [key, item] of news) {
    const state = states.get(key);
    if (!isThere(item, state)) continue;
    touched.set(key, new PartitionRecovery(options, files, key, item, state, folders.get(key)));
  }
  await inParallel(touched.values(), (recovery) => recovery.scan());

  let pendingBytes = 0;
  const again = lastSequence < sequence ? [] : readJournal(disk, chain, sequence, lastSequence);
  for await (const record of again) {
    for (const part of record.parts) {
      if (part.kind !== 'append') continue;
      pendingBytes += part.bytes.length;
      const writing = touched.get(part.key)?.replay(part, record.isSynced);
      if (writing !== undefined) await writing;
    }
    if (pendingBytes < PENDING_BYTES_MAX) continue;
    pendingBytes = 0;
    await inParallel(touched.values(), (recovery) => recovery.flush());
  }

  const pieces = new Map(checkpoint.partitions.map((state, index) => [state, checkpoint.pieces[index]]));
  const unsynced = new Map<string, Unsynced>();
  await inParallel(touched, async ([key, recovery]) => {
    await recovery.flush();
    const state = await recovery.finish();
    if (state === undefined) states.delete(key);
    else {
      states.set(key, state);
      unsynced.set(key, recovery.unsynced);
    }
  });
  // Those that were synced here are in no checkpoint yet.
  if ([...touched.values()].some((recovery) => recovery.needsFolderSync)) await options.dataDir.sync();
  return {
    partitions: [...states].map(([key, state]) => {
      const news = unsynced.get(key);
      if (news !== undefined) return { state, unsynced: news };
      const piece = pieces.get(state);
      assert(piece !== undefined);
      return { state, piece };
    }),
    sequence,
    pieces: checkpoint.pieces,
    chain: { firstSequence: sequence, endSequence: lastSequence + 1, lastSequences, last, sizeBytes: chainBytes },
    leaderEpoch: checkpoint.head.leaderEpoch + 1,
    nextSequence: Math.max(lastSequence, chain.largestFirstSequence) + SEQUENCE_GAP,
  };
}

function notePart(news: Map<string, JournalNews>, part: ReadPart): void {
  let item = news.get(part.key);
  if (item === undefined) {
    item = { topic: undefined, isAppended: false, startOffset: 0, isDeleted: false, markBase: 0, markBytes: 0 };
    news.set(part.key, item);
  }
  switch (part.kind) {
    case 'append':
      item.isAppended = true;
      return;
    case 'start':
      item.startOffset = Math.max(item.startOffset, part.offset);
      return;
    case 'delete':
      item.isDeleted = true;
      return;
    case 'open':
      item.topic = part.topic;
      return;
    case 'mark':
      item.markBase = part.segmentBase;
      item.markBytes = part.syncedBytes;
      return;
  }
}

/**
 * Whether a partition that the journal names is there. One that neither the checkpoint nor the journal opens was deleted
 * before the checkpoint: nothing is appended after that, but a mark may have come later, and its files may not be gone.
 */
function isThere(item: JournalNews, state: PartitionState | undefined): boolean {
  if (item.isDeleted) return false;
  return state !== undefined || item.topic !== undefined || item.isAppended;
}

/**
 * Folders that the checkpoint does not know: by partition key those of partitions that the journal names. Others were made
 * for what was never acknowledged, or belong to deleted partitions, and go; with `log.flush: written` the journal may have
 * lost their mention, so they are set aside.
 */
async function identifyFolders(
  options: RecoveryOptions,
  states: ReadonlyMap<string, PartitionState>,
  news: ReadonlyMap<string, JournalNews>,
  isSynced: boolean,
): Promise<Map<string, string>> {
  const { dataDir, warn } = options;
  const known = new Set<string>();
  for (const state of states.values()) known.add(state.folder);
  const found = new Map<string, string>();
  for (const folder of dataDir.folders.slice()) {
    if (known.has(folder)) continue;
    const identity = await dataDir.identify(folder);
    const key = identity && keyText(partitionKey(identity.topicId, identity.index));
    const item = key === undefined ? undefined : news.get(key);
    const isMissed = key !== undefined && item !== undefined && !states.has(key) && !found.has(key);
    if (isMissed && isThere(item, undefined)) found.set(key, folder);
    else if (item?.isDeleted === true || (isSynced && (identity !== undefined || (await dataDir.isAnonymous(folder)))))
      await dataDir.remove(await dataDir.retire(folder));
    else warn(`${folder} is set aside as ${await dataDir.setAside(folder)}: the journal does not know it`);
  }
  return found;
}

/** Work on so many partitions at a time: as many as libuv has threads. */
const PARALLEL = 16;

async function inParallel<T>(items: Iterable<T>, task: (item: T) => Promise<void>): Promise<void> {
  const iterator = items[Symbol.iterator]();
  const lane = async (): Promise<void> => {
    for (let next = iterator.next(); next.done !== true; next = iterator.next()) await task(next.value);
  };
  await Promise.all(Array.from({ length: PARALLEL }, lane));
}

/** Journaled bytes collected before they are compared with the segments, all partitions together and one. */
const PENDING_BYTES_MAX = 8 * 1024 * 1024;
const PENDING_PARTITION_BYTES_MAX = 1024 * 1024;

/** A segment below this does without indexes here: `saveIndexes` would not save them, and their first use finds them. */
const SMALL_BYTES = 1024 * 1024;

type AppendPart = Extract<ReadPart, { kind: 'append' }>;

/** Bytes read at a time in a walk; a larger batch gets a window of its own. */
const WINDOW_BYTES = 1024 * 1024;

class PartitionRecovery {
  readonly #options: RecoveryOptions;
  readonly #files: OpenFiles;
  readonly #topicId: string;
  readonly #index: number;
  readonly #topic: string;
  readonly #news: JournalNews;
  readonly #state: PartitionState | undefined;
  readonly #startOffset: number;
  readonly #epochs: LeaderEpochs;
  readonly #segments: Segment[] = [];
  #folder: string | undefined;
  #isFenced: boolean;
  /** Cut, and the cut is not synced. */
  readonly #cut = new Set<Segment>();
  /** Names were taken out of the folder. */
  #isFolderChanged = false;
  #isFolderMade = false;
  /** Up to here, from the end of the checkpoint on without a gap, the journal has all batches. */
  #journaledTo: number;
  readonly #syncedBytes = new Map<number, number>();
  /** What was synced here is found again by its folder's name only. */
  needsFolderSync = false;
  readonly #walked = new WalkedBatches();
  /** Parts that follow one another, not yet compared. */
  #pending: AppendPart[] = [];
  #pendingBytes = 0;
  #isPendingSynced = true;

  constructor(
    options: RecoveryOptions,
    files: OpenFiles,
    key: string,
    news: JournalNews,
    state: PartitionState | undefined,
    folder: string | undefined,
  ) {
    this.#options = options;
    this.#files = files;
    this.#topicId = state?.topicId ?? uuidOf(key);
    this.#index = Number.parseInt(key.slice(32), 16);
    this.#topic = state?.topic ?? news.topic ?? '';
    this.#news = news;
    this.#state = state;
    this.#folder = state?.folder ?? folder;
    this.#startOffset = Math.max(state?.startOffset ?? 0, news.startOffset);
    this.#epochs = new LeaderEpochs(state?.epochs);
    this.#isFenced = state?.isFenced ?? false;
    this.#journaledTo = state?.segments.at(-1)?.writtenOffset ?? this.#startOffset;
  }

  /** After `finish`. */
  get unsynced(): Unsynced {
    return { isFolderNew: this.#isFolderMade || this.#state === undefined, syncedBytes: this.#syncedBytes };
  }

  get #path(): string {
    assert(this.#folder !== undefined);
    return `${this.#options.dataDir.path}/${this.#folder}`;
  }
  get #name(): string {
    return `${this.#topic}-${this.#index}`;
  }
  get #isNameless(): boolean {
    return this.#topic === '';
  }
  get #endOffset(): number {
    return this.#segments.at(-1)?.writtenOffset ?? this.#startOffset;
  }

  #fence(reason: string): void {
    if (!this.#isFenced) this.#options.warn(`${this.#name} is fenced: ${reason}`);
    this.#isFenced = true;
  }

  /** Finds the end of what its segments hold. */
  async scan(): Promise<void> {
    if (this.#folder === undefined || this.#isFenced) return;
    const { disk } = this.#options;
    const present = new Set(await disk.list(this.#path));
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
      const segment = Segment.fromState(this.#files, this.#path, state);
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
    const segment = Segment.create(this.#files, this.#path, baseOffset, this.#options.clock.now());
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
      else await segment.loadIndexes();
      let window = Buffer.allocUnsafe(Math.min(WINDOW_BYTES, sizeBytes - segment.writtenBytes));
      for (;;) {
        const at = segment.writtenBytes;
        const readBytes = await file.read(window.subarray(0, Math.min(window.length, sizeBytes - at)), at);
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
          this.#options.warn(`${file.path} is cut at ${at}, ${sizeBytes - at} bytes were never acknowledged`);
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
      await this.#options.disk.remove(`${this.#path}/${name}`);
      this.#isFolderChanged = true;
    }
  }

  /** Takes an append part of the journal; small ones are collected. */
  replay(part: AppendPart, isSynced: boolean): Promise<void> | undefined {
    if (part.baseOffset <= this.#journaledTo) this.#journaledTo = Math.max(this.#journaledTo, part.nextOffset);
    // Not while earlier parts wait: if one of them differs, the log is cut below this one.
    if (this.#pending.length === 0 && this.#walked.hold(part.bytes, part.baseOffset)) return undefined;
    const last = this.#pending.at(-1);
    const follows = last === undefined || (last.nextOffset === part.baseOffset && !part.startsSegment);
    const writing = !follows || this.#pendingBytes >= PENDING_PARTITION_BYTES_MAX ? this.flush() : undefined;
    if (writing !== undefined) return writing.then(() => this.replay(part, isSynced));
    // Copy: the journal's window is much larger.
    this.#pending.push({ ...part, bytes: Buffer.from(part.bytes) });
    this.#pendingBytes += part.bytes.length;
    this.#isPendingSynced = isSynced;
    return undefined;
  }

  async flush(): Promise<void> {
    const parts = this.#pending;
    if (parts.length === 0) return;
    this.#pending = [];
    this.#pendingBytes = 0;
    const bytes = parts.length === 1 ? parts[0].bytes : Buffer.concat(parts.map((part) => part.bytes));
    const { nextOffset } = parts[parts.length - 1];
    await this.#replay({ ...parts[0], bytes, nextOffset }, this.#isPendingSynced);
  }

  /** Skipped if it is there, appended at the end, in place of what differs. */
  async #replay(part: AppendPart, isSynced: boolean): Promise<void> {
    if (this.#isFenced || part.nextOffset <= this.#startOffset) return;
    if (this.#folder === undefined && this.#isNameless) {
      assert(!isSynced, `the journal appends to partition ${this.#index} of topic ${this.#topicId} and never named it`);
      // With `log.flush: written` a power cut may take the record that named it and leave later ones.
      this.#options.warn(
        `${this.#topicId}-${this.#index}: dropped from offset ${part.baseOffset} on, since it was only written`,
      );
      return;
    }
    const known = this.#state?.segments.at(-1)?.writtenOffset ?? 0;
    if (part.nextOffset <= known && this.#endOffset >= known) return;
    if (part.baseOffset > this.#endOffset) {
      if (part.baseOffset > this.#startOffset || this.#endOffset > this.#startOffset) {
        const found = `journal has offset ${part.baseOffset}, the log ends at ${this.#endOffset}`;
        if (isSynced) this.#fence(found);
        else this.#options.warn(`${this.#name}: ${found}; dropped, since it was only written`);
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
      if (samePrefix < 0) await this.#cutAt(part.baseOffset);
      else bytes = bytes.subarray(samePrefix);
    }
    await this.#append(bytes, part.startsSegment && bytes === part.bytes);
  }

  /** How many bytes of the part are in the log already, all of them equal; −1 if they differ. */
  async #samePrefix(part: AppendPart): Promise<number> {
    const segment = this.#segments.findLast((candidate) => candidate.baseOffset <= part.baseOffset);
    assert(segment !== undefined);
    const place = await locate(segment, part.baseOffset);
    if (place === undefined || place.baseOffset !== part.baseOffset) return -1;
    const size = Math.min(part.bytes.length, segment.writtenBytes - place.position);
    const stored = Buffer.allocUnsafe(size);
    const file = await segment.file.use('read');
    try {
      await file.read(stored, place.position);
    } finally {
      segment.file.done();
    }
    return stored.equals(part.bytes.subarray(0, size)) ? size : -1;
  }

  /** The journal is right: what the segments have from `offset` on is not what was acknowledged. */
  async #cutAt(offset: number): Promise<void> {
    this.#options.warn(`${this.#name} is cut at offset ${offset}: the journal has other batches`);
    this.#walked.clear();
    for (;;) {
      const segment = this.#segments.at(-1);
      if (segment === undefined || segment.baseOffset < offset) break;
      this.#segments.pop();
      this.#cut.delete(segment);
      await segment.close();
      for (const ending of SEGMENT_ENDINGS) await this.#options.disk.remove(segment.path + ending);
      this.#isFolderChanged = true;
    }
    const segment = this.#segments.at(-1);
    this.#epochs.truncateFromEnd(offset);
    if (segment === undefined) return;
    segment.isSealed = false;
    const place = await locate(segment, offset);
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
    const identity = { topicId: this.#topicId, index: this.#index };
    this.#folder = await this.#options.dataDir.createPartition(this.#topic, identity);
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
    if (segment.writtenBytes >= SMALL_BYTES || segment.hasIndexFiles) await segment.loadIndexes();
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

  /**
   * Syncs cuts and what the journal does not hold, and answers what the next checkpoint says of the partition; undefined if
   * it has nothing.
   */
  async finish(): Promise<PartitionState | undefined> {
    if (this.#folder === undefined) {
      if (this.#startOffset === 0 || this.#isNameless) return undefined;
      // Everything it had is below its start: where it goes on must be known all the same.
      await this.#makeFolder();
    }
    if (!this.#isFenced) await this.#sync();
    for (const segment of this.#segments) await segment.close();
    const segments =
      this.#isFenced && this.#state !== undefined ? this.#state.segments : this.#segments.map((s) => s.state());
    this.#epochs.truncateFromStart(this.#startOffset);
    assert(this.#folder !== undefined);
    return {
      topicId: this.#topicId,
      index: this.#index,
      topic: this.#topic,
      folder: this.#folder,
      startOffset: this.#startOffset,
      isFenced: this.#isFenced,
      epochs: this.#epochs.entries,
      producers: this.#state?.producers,
      producersOffset: this.#state?.producersOffset ?? 0,
      segments,
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
    await this.#options.disk.syncDirectory(this.#path);
    if (isJournaled || this.#folder === undefined) return;
    if (this.#isFolderMade || this.#state === undefined) await this.#options.dataDir.syncPartition(this.#folder);
    this.needsFolderSync = true;
  }
}

function uuidOf(key: string): string {
  return `${key.slice(0, 8)}-${key.slice(8, 12)}-${key.slice(12, 16)}-${key.slice(16, 20)}-${key.slice(20, 32)}`;
}
