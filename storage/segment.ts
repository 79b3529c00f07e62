/**
 * One segment of a partition: a `.log` file of record batches and its two indexes, in Kafka's names and formats.
 *
 * Always true: the file holds whole batches with dense offsets from the base offset, up to `writtenBytes` and
 * `writtenOffset`; index entries exist only for those. `sizeBytes` and `endOffset` also count what is still on its way.
 * `PartitionLog` writes and rolls, `LogReader` looks up and reads.
 */
import assert from 'node:assert';
import { batchLastOffset, batchMaxTimestamp, batchRecordCount, batchSizeBytes } from '../protocol/record-batch.ts';
import { writeAll } from './disk.ts';
import { OffsetIndex, TimeIndex } from './index-file.ts';
import { type IndexHolder, LazyFile, type OpenFiles } from './open-files.ts';

/** What a checkpoint keeps of a segment. */
export interface SegmentState {
  baseOffset: number;
  writtenBytes: number;
  writtenOffset: number;
  createdMs: number;
  /** Largest timestamp of its first batch, −1 if empty: the age that `segment.ms` counts from. */
  firstTimestamp: number;
  largestTimestamp: number;
  /** Last offset of the batch with the largest timestamp. */
  largestTimestampOffset: number;
  batchBytesMax: number;
  /** It takes the place of older ones: its files have their names only once the checkpoint that says this is complete. */
  isSwapPending?: boolean;
  /** Records were taken out of it: there may be fewer than offsets, and batches without any. */
  isRewritten?: boolean;
}

export interface Indexes {
  offsets: OffsetIndex;
  times: TimeIndex;
}

/** An index is saved when this much of the segment is not in it; less is found again by walking that much. */
const UNSAVED_BYTES_MAX = 1024 * 1024;
/** Bytes of a batch that a walk over headers needs. */
export const BATCH_HEADER_BYTES = 61;

/** Kafka's files of one segment. The snapshot is that of the producers at its base offset. */
export const SEGMENT_ENDINGS = ['.log', '.index', '.timeindex', '.snapshot'] as const;

/** Kafka's ending for files that are complete and about to take the place of others. */
export const SWAP_SUFFIX = '.swap';
/** The log file last: an index without its log is noticed, a log with another one's index is not. */
export const SWAPPED_ENDINGS = ['.index', '.timeindex', '.log'] as const;

/** Kafka's name for a file that is out of the log and waits for its removal. */
export const DELETED_SUFFIX = '.deleted';

/** File name of an offset, without its ending: 20 digits, as Kafka has it. */
export function offsetFileName(offset: number): string {
  return String(offset).padStart(20, '0');
}

export class Segment implements IndexHolder {
  readonly baseOffset: number;
  /** Of its files, without their endings. */
  path: string;
  /** After their endings, while it is about to take the place of others. */
  #suffix: string;
  readonly file: LazyFile;
  readonly #files: OpenFiles;
  /** Logical size and end: everything appended. */
  sizeBytes: number;
  endOffset: number;
  /** What is in the file. */
  writtenBytes: number;
  writtenOffset: number;
  syncedBytes: number;
  createdMs: number;
  firstTimestamp: number;
  largestTimestamp: number;
  largestTimestampOffset: number;
  batchBytesMax: number;
  /** Records were taken out of it. */
  readonly isRewritten: boolean;
  /** The file is there; its directory entry is known to be on the platter. */
  isFileMade: boolean;
  isEntrySynced: boolean;
  /** Reads under way. Its files go after the last of them. */
  readers = 0;
  isDropped = false;
  /** What has taken its place; it is used by those who read it already. */
  replacement: Segment | undefined;
  /** Written while its indexes are not in memory; they are made from the file when they are asked for. */
  isUnindexed = false;
  /** False if it is known that there are none: they are not looked for. */
  hasIndexFiles = true;
  indexIntervalBytes = 4096;
  /** Append-side count for the roll at a full index. */
  bytesSinceEntry = 0;
  entryCount = 0;
  #indexes: Indexes | undefined;
  #loading: Promise<Indexes> | undefined;
  #bytesSinceIndex = 0;
  /** Entries of the index files as this process knows them, −1: unknown, the files are written anew. */
  #savedOffsets = -1;
  #savedTimes = -1;
  #savedBytes = 0;
  isSealed = false;
  #last: Promise<void> = Promise.resolve();

  private constructor(files: OpenFiles, folder: string, state: SegmentState, suffix = '') {
    this.#files = files;
    this.baseOffset = state.baseOffset;
    this.path = `${folder}/${offsetFileName(state.baseOffset)}`;
    this.#suffix = suffix;
    this.file = new LazyFile(files, `${this.path}.log${suffix}`);
    this.sizeBytes = state.writtenBytes;
    this.writtenBytes = state.writtenBytes;
    this.syncedBytes = state.writtenBytes;
    this.endOffset = state.writtenOffset;
    this.writtenOffset = state.writtenOffset;
    this.createdMs = state.createdMs;
    this.firstTimestamp = state.firstTimestamp;
    this.largestTimestamp = state.largestTimestamp;
    this.largestTimestampOffset = state.largestTimestampOffset;
    this.batchBytesMax = state.batchBytesMax;
    this.isRewritten = state.isRewritten === true;
    // Of an empty one the file may not have been made, or not for good.
    const isEmpty = state.writtenBytes === 0;
    this.isFileMade = !isEmpty;
    this.isEntrySynced = !isEmpty;
    if (isEmpty) this.#indexes = { offsets: new OffsetIndex(this.baseOffset), times: new TimeIndex(this.baseOffset) };
  }

  /** A segment without bytes; its file is made by the first write. */
  static create(files: OpenFiles, folder: string, baseOffset: number, nowMs: number): Segment {
    const state: SegmentState = {
      baseOffset,
      writtenBytes: 0,
      writtenOffset: baseOffset,
      createdMs: nowMs,
      firstTimestamp: -1,
      largestTimestamp: -1,
      largestTimestampOffset: baseOffset,
      batchBytesMax: 0,
    };
    return new Segment(files, folder, state);
  }

  /** A segment that a checkpoint knows. */
  static fromState(files: OpenFiles, folder: string, state: SegmentState): Segment {
    return new Segment(files, folder, state);
  }

  /** A rewritten one, which takes the place of older ones when `finishSwap` is called. It gets no more bytes. */
  static forSwap(files: OpenFiles, folder: string, state: SegmentState): Segment {
    const segment = new Segment(files, folder, state, SWAP_SUFFIX);
    segment.isSealed = true;
    return segment;
  }

  get isSwapPending(): boolean {
    return this.#suffix !== '';
  }

  /** Gives its files their names; the caller syncs the folder. */
  async finishSwap(): Promise<void> {
    // Held open: nobody looks for it by name meanwhile. Indexes that are read now and have their new names already are made.
    await this.file.use('read');
    try {
      for (const ending of SWAPPED_ENDINGS) {
        const path = this.path + ending;
        await this.#files.disk.rename(path + SWAP_SUFFIX, path);
      }
      this.#suffix = '';
      this.file.path = `${this.path}.log`;
    } finally {
      this.file.done();
    }
  }

  state(): SegmentState {
    return {
      ...(this.isSwapPending ? { isSwapPending: true } : {}),
      ...(this.isRewritten ? { isRewritten: true } : {}),
      baseOffset: this.baseOffset,
      writtenBytes: this.writtenBytes,
      writtenOffset: this.writtenOffset,
      createdMs: this.createdMs,
      firstTimestamp: this.firstTimestamp,
      largestTimestamp: this.largestTimestamp,
      largestTimestampOffset: this.largestTimestampOffset,
      batchBytesMax: this.batchBytesMax,
    };
  }

  /** Its folder has a name now. */
  moveTo(folder: string): void {
    this.path = `${folder}/${offsetFileName(this.baseOffset)}`;
    this.file.path = `${this.path}.log`;
  }

  get indexBytes(): number {
    return this.#indexes === undefined ? 0 : this.#indexes.offsets.sizeBytes + this.#indexes.times.sizeBytes;
  }

  /** Entries that an index of it has at most. */
  get entryCountMax(): number {
    return Math.ceil(this.writtenBytes / (this.indexIntervalBytes + 1));
  }

  /** Counts an appended batch; the caller has decided that it belongs here. */
  appended(sizeBytes: number, nextOffset: number, maxTimestamp: number): void {
    if (this.sizeBytes === 0) this.firstTimestamp = maxTimestamp;
    if (this.bytesSinceEntry > this.indexIntervalBytes) {
      this.entryCount++;
      this.bytesSinceEntry = 0;
    }
    this.bytesSinceEntry += sizeBytes;
    this.sizeBytes += sizeBytes;
    this.endOffset = nextOffset;
  }

  /** Notes whole batches that are in the file now, at its end. Their headers are read from `bytes`. */
  written(bytes: Buffer, position: number, sizeBytes: number): void {
    const end = position + sizeBytes;
    const indexes = this.#indexes;
    assert(indexes !== undefined || this.isUnindexed, 'a segment that is written has its indexes in memory');
    for (let at = position; at < end; ) {
      const batchBytes = batchSizeBytes(bytes, at);
      this.#note(indexes, bytes, at, batchBytes);
      this.writtenBytes += batchBytes;
      at += batchBytes;
      assert(at <= end);
    }
    if (this.sizeBytes < this.writtenBytes) this.sizeBytes = this.writtenBytes;
    if (this.endOffset < this.writtenOffset) this.endOffset = this.writtenOffset;
  }

  #note(indexes: Indexes | undefined, bytes: Buffer, at: number, batchBytes: number): void {
    const lastOffset = batchLastOffset(bytes, at);
    const timestamp = batchMaxTimestamp(bytes, at);
    if (this.writtenBytes === 0) this.firstTimestamp = timestamp;
    if (timestamp > this.largestTimestamp) {
      this.largestTimestamp = timestamp;
      this.largestTimestampOffset = lastOffset;
    }
    if (batchBytes > this.batchBytesMax) this.batchBytesMax = batchBytes;
    if (indexes !== undefined && this.#bytesSinceIndex > this.indexIntervalBytes) {
      indexes.offsets.add(lastOffset, this.writtenBytes);
      indexes.times.add(this.largestTimestamp, this.largestTimestampOffset);
      this.#bytesSinceIndex = 0;
    }
    this.#bytesSinceIndex += batchBytes;
    this.writtenOffset = lastOffset + 1;
  }

  /** Reads the indexes into memory, and walks the batches that they do not know of. */
  loadIndexes(): Promise<Indexes> {
    if (this.#indexes !== undefined) {
      if (this.isSealed) this.#files.indexUsed(this);
      return Promise.resolve(this.#indexes);
    }
    this.#loading ??= this.#load().finally(() => {
      this.#loading = undefined;
    });
    return this.#loading;
  }

  async #load(): Promise<Indexes> {
    // Under its own names: the plain ones are those of the old segment while it is about to take its place.
    const offsetBytes = await this.#readIndexFile('.index');
    const timeBytes = await this.#readIndexFile('.timeindex');
    let offsets = new OffsetIndex(this.baseOffset, offsetBytes);
    let times = new TimeIndex(this.baseOffset, timeBytes);
    if (!offsets.isPlausible(this.writtenBytes, this.writtenOffset) || !times.isPlausible(this.writtenOffset)) {
      offsets = new OffsetIndex(this.baseOffset);
      times = new TimeIndex(this.baseOffset);
      await this.#emptyIndexFiles();
    } else if (offsetBytes.length % 8 === 0 && timeBytes.length % 12 === 0) {
      this.#savedOffsets = offsets.count;
      this.#savedTimes = times.count;
    }
    const indexes = { offsets, times };
    await this.#walkUnindexed(indexes);
    this.#indexes = indexes;
    if (this.isSealed) this.#files.indexUsed(this);
    return indexes;
  }

  async #readIndexFile(ending: string): Promise<Buffer> {
    if (!this.hasIndexFiles) return Buffer.alloc(0);
    return Buffer.from((await this.#files.disk.readFile(this.path + ending + this.#suffix)) ?? []);
  }

  /**
   * Entries that do not fit go durably, before the segment grows: later they might look as if they did. Files that are not
   * there stay so.
   */
  async #emptyIndexFiles(): Promise<void> {
    const { disk } = this.#files;
    for (const ending of [`.index${this.#suffix}`, `.timeindex${this.#suffix}`]) {
      if ((await disk.stat(this.path + ending)) === undefined) continue;
      const file = await disk.open(this.path + ending, 'write');
      try {
        await file.truncate(0);
        await file.sync();
      } finally {
        await file.close();
      }
    }
    this.#savedOffsets = 0;
    this.#savedTimes = 0;
    this.#savedBytes = 0;
  }

  async #walkUnindexed(indexes: Indexes): Promise<void> {
    const { offsets, times } = indexes;
    const indexedTo = offsets.lastPosition;
    this.#savedBytes = indexedTo;
    let largest = times.lastTimestamp;
    let largestOffset = times.lastOffset;
    // A power cut may have kept less of the time index than of the other one: it goes on where it ends, if anything newer
    // than its last entry is there. Mostly that is the last batch of the offset index.
    let at = largest < this.largestTimestamp ? offsets.positionFor(largestOffset) : indexedTo;
    let sinceIndex = 0;
    const file = await this.file.use('read');
    try {
      const window = Buffer.allocUnsafe(64 * 1024);
      let windowStart = 0;
      let windowSize = 0;
      while (at < this.writtenBytes) {
        if (at < windowStart || at + BATCH_HEADER_BYTES > windowStart + windowSize) {
          windowSize = await file.read(window, at);
          windowStart = at;
          assert(windowSize >= BATCH_HEADER_BYTES, `${this.file.path}: no batch at ${at}`);
        }
        const batchBytes = batchSizeBytes(window, at - windowStart);
        const lastOffset = batchLastOffset(window, at - windowStart);
        // A rewrite may leave batches without records, whose time is that of none.
        const hasRecords = batchRecordCount(window, at - windowStart) > 0;
        const timestamp = hasRecords ? batchMaxTimestamp(window, at - windowStart) : -1;
        assert(batchBytes >= BATCH_HEADER_BYTES, `${this.file.path}: batch of ${batchBytes} bytes at ${at}`);
        if (timestamp > largest) {
          largest = timestamp;
          largestOffset = lastOffset;
        }
        if (at > indexedTo && sinceIndex > this.indexIntervalBytes) {
          offsets.add(lastOffset, at);
          times.add(largest, largestOffset);
          sinceIndex = 0;
        } else if (at === indexedTo && at > 0) times.add(largest, largestOffset);
        if (at >= indexedTo) sinceIndex += batchBytes;
        at += batchBytes;
      }
    } finally {
      this.file.done();
    }
    this.#bytesSinceIndex = sinceIndex;
    this.bytesSinceEntry = sinceIndex;
    this.entryCount = offsets.count;
  }

  /** Frees the memory of the indexes of a segment that gets no more bytes. */
  forgetIndexes(): void {
    if (this.isSealed) this.#indexes = undefined;
  }

  /** Saves the indexes if it is worth while, or in any case with `isForced`. Not synced: what is lost is found again. */
  saveIndexes(isForced: boolean): Promise<void> {
    return this.#exclusive(() => this.#saveIndexes(isForced));
  }

  async #saveIndexes(isForced: boolean): Promise<void> {
    const indexes = this.#indexes;
    if (indexes === undefined) return;
    if (!isForced && this.writtenBytes - this.#savedBytes < UNSAVED_BYTES_MAX) return;
    const { offsets, times } = indexes;
    const writtenBytes = this.writtenBytes;
    this.#savedOffsets = await this.#save('.index', offsets.bytes, 8, this.#savedOffsets);
    this.#savedTimes = await this.#save('.timeindex', times.bytes, 12, this.#savedTimes);
    this.#savedBytes = writtenBytes;
  }

  async #save(ending: string, bytes: Buffer, entryBytes: number, saved: number): Promise<number> {
    const count = bytes.length / entryBytes;
    if (saved === count) return count;
    // An empty segment has no files yet, unless its batches were cut off.
    if (this.writtenBytes === 0 && (await this.#files.disk.stat(this.path + ending)) === undefined) return saved;
    const file = await this.#files.disk.open(this.path + ending, 'write');
    try {
      const from = Math.max(0, saved) * entryBytes;
      const isReplaced = saved < 0 && (await file.size()) > 0;
      if (isReplaced) await file.truncate(0);
      if (bytes.length > from) await writeAll(file, [bytes.subarray(from)], from);
      // The old entries may be of batches that were cut off; they must not come back beside the new ones.
      if (isReplaced) await file.sync();
    } finally {
      await file.close();
    }
    return count;
  }

  /** The segment gets no more bytes: its last timestamp goes into the index, and both files are saved. */
  seal(): Promise<void> {
    return this.#exclusive(() => this.#seal());
  }

  async #seal(): Promise<void> {
    if (this.isSealed || this.isDropped) return;
    assert(this.writtenBytes === this.sizeBytes);
    const indexes = await this.loadIndexes();
    indexes.times.add(this.largestTimestamp, this.largestTimestampOffset);
    await this.#saveIndexes(true);
    this.isSealed = true;
    this.#files.indexUsed(this);
  }

  /** Work on its files beside the log's own: one after the other. */
  #exclusive(task: () => Promise<void>): Promise<void> {
    const run = this.#last.then(task);
    // Who asked for it is told of its failure; the next one is not.
    this.#last = run.catch(() => {});
    return run;
  }

  /** Ends its use: closes the file and lets its indexes go. */
  close(): Promise<void> {
    return this.#exclusive(() => this.#close());
  }

  async #close(): Promise<void> {
    this.#files.indexGone(this);
    await this.file.close();
  }

  /** Takes its files out of the log; nobody reads or writes it any more. `removeRetired` follows, or the next start. */
  retire(): Promise<void> {
    return this.#exclusive(() => this.#retire());
  }

  async #retire(): Promise<void> {
    await this.#close();
    const { disk } = this.#files;
    // The log file last: whoever looks after a kill finds no index without its log.
    for (const ending of [...SEGMENT_ENDINGS].reverse()) {
      const path = this.path + ending;
      if ((await disk.stat(path)) !== undefined) await disk.rename(path, path + DELETED_SUFFIX);
    }
  }

  async removeRetired(): Promise<void> {
    for (const ending of SEGMENT_ENDINGS) await this.#files.disk.remove(this.path + ending + DELETED_SUFFIX);
  }

  /** Everything written is synced. */
  noteSynced(): void {
    this.syncedBytes = this.writtenBytes;
  }

  /** What the listing of its folder says. */
  noteFiles(names: ReadonlySet<string>): void {
    const name = offsetFileName(this.baseOffset);
    this.hasIndexFiles = names.has(`${name}.index`) || names.has(`${name}.timeindex`);
  }

  /** Forgets everything at and above `position`, where the batch of `offset` started; the file itself is cut by the caller. */
  async cut(position: number, offset: number): Promise<void> {
    const indexes = this.#indexes;
    assert(indexes !== undefined);
    indexes.offsets.cut(position);
    indexes.times.cut(offset);
    await this.#emptyIndexFiles();
    this.writtenBytes = position;
    this.sizeBytes = position;
    this.writtenOffset = offset;
    this.endOffset = offset;
    this.syncedBytes = Math.min(this.syncedBytes, position);
    if (this.largestTimestampOffset >= offset) {
      // What is left is at most this young; exact again when the segment is walked the next time.
      this.largestTimestampOffset = Math.max(this.baseOffset, offset - 1);
    }
  }
}
