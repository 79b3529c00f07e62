/**
 * What the queues of one partition share: how far its log was looked into, and what the records say to queues (the index
 * of attributes). Where a queue is declared on the topic, no message is shown to a queue before its attributes are known:
 * they come from the intake if it saw the batch, and from the log if not (after a start, for a queue declared over a log
 * that is there, for batches of the broker's own). The log is the truth, so the order of both does not matter. What was
 * found out and is not done with after so many bytes of log is kept in files (`attribute-files.ts`), so that a start need
 * not read the log again.
 *
 * Always true: `indexedEnd` ≤ high watermark; queues are extended up to it and no further.
 */
import {
  batchAttributes as attributeBits,
  ATTRIBUTE_CONTROL,
  batchBaseOffset,
  batchLastOffset,
  batchMaxTimestamp,
  eachBatch,
} from '../protocol/record-batch.ts';
import { ArrivalTimes } from './arrival-times.ts';
import type { PartitionAttributes, PieceName } from './attribute-files.ts';
import { AttributeIndex } from './attribute-index.ts';
import { type AttributePiece, encodePiece, PIECE_OFFSETS_MAX } from './attribute-piece.ts';
import type { Partition } from './engine.ts';
import { type AttributeEntry, batchAttributes, type DedupBy } from './queue-attributes.ts';
import { readWhole } from './state-log.ts';

/** Read from the log at a time. */
const READ_BYTES = 1024 * 1024;
/** Offsets of a kept piece that are taken in in one turn: a few milliseconds. */
const SLICE_OFFSETS = 32_768;

/** A batch whose attributes are known. */
export interface IndexedBatch {
  readonly baseOffset: number;
  readonly lastOffset: number;
  /** Wall clock of the append: queue delay and TTL count from it. */
  readonly appendedMs: number;
  readonly entries: readonly AttributeEntry[];
}

export interface LaneHost {
  /** The records of this topic must be looked into: there is a declared queue. */
  readonly isIndexed: boolean;
  /** Delay, TTL or deduplication of a queue need the time of every batch. */
  readonly needsTimes: boolean;
  readonly isGrouped: boolean;
  readonly dedupBy: DedupBy | undefined;
  readonly decompressedBytesMax: number;
  /** Where the index is kept over a restart; undefined: nowhere. */
  readonly files: PartitionAttributes | undefined;
  /** So much of the log may be read again at a start. */
  readonly unsavedBytesMax: number;
  /** Resolves in another turn. */
  turn(): Promise<void>;
  /** Messages below `endOffset` are known now; `batches` says of which: all, or with nothing to say those with attributes. */
  extended(lane: QueueLane, endOffset: number, batches: readonly IndexedBatch[]): void;
  /** The log cannot be read. Unless it is fenced, `advance` may succeed later. */
  failed(lane: QueueLane, error: unknown): void;
}

export class QueueLane {
  readonly log: Partition;
  readonly attributes = new AttributeIndex();
  readonly #host: LaneHost;
  /** What the intake has seen, in order of offsets, at or above `#indexedEnd`. */
  #seen: IndexedBatch[] = [];
  #indexedEnd: number;
  #indexedFrom: number;
  #reading: Promise<void> | undefined;
  #isEnded = false;
  /** Somebody calls `advance` when the high watermark moves. */
  isWatching = false;
  /** A queue is about to go over to it. */
  isKept = false;
  /** Everything above was looked into, and everything above that for groups, too. */
  #knownFrom: number;
  #groupsFrom: number;
  /** Ids of deduplication, which are in no file, are needed from here on. */
  #idsFrom = Number.POSITIVE_INFINITY;
  /** Times of batches that are in no file yet, known from `#timesFrom` on. */
  readonly #times = new ArrivalTimes();
  #timesFrom: number;
  /** When it is asked again whether there is enough to be kept. */
  #lookAt = 0;

  /** Nothing below `firstOffset` matters to any queue. */
  constructor(log: Partition, firstOffset: number, host: LaneHost) {
    this.log = log;
    this.#indexedEnd = Math.max(firstOffset, log.startOffset);
    this.#indexedFrom = firstOffset;
    this.#knownFrom = firstOffset;
    this.#groupsFrom = firstOffset;
    this.#timesFrom = firstOffset;
    this.#host = host;
  }

  /** Nothing below is known. */
  get indexedFrom(): number {
    return this.#indexedFrom;
  }
  /** No queue asks for what is below any more. */
  trim(offset: number): void {
    if (offset <= this.#indexedFrom) return;
    this.#indexedFrom = offset;
    this.attributes.trim(offset);
    if (this.#host.files?.claim(this)) this.#host.files.trim(offset);
  }
  /** Before the first `advance`: begins at `offset`, if that is lower. */
  reach(offset: number): void {
    this.#indexedFrom = Math.min(this.#indexedFrom, offset);
    this.#indexedEnd = Math.min(this.#indexedEnd, Math.max(offset, this.log.startOffset));
    this.#knownFrom = this.#indexedFrom;
    this.#groupsFrom = this.#indexedFrom;
    this.#timesFrom = this.#indexedFrom;
  }
  /** Before the first `advance`: what is from here on is read from the log, for its ids of deduplication. */
  needIds(offset: number): void {
    this.#idsFrom = Math.min(this.#idsFrom, offset);
  }
  /** Whether a queue over the topic, as it is now, finds here what it must know of records from `offset` on. */
  suffices(offset: number): boolean {
    const { isIndexed, isGrouped } = this.#host;
    if (!isIndexed) return true;
    return this.#indexedFrom <= offset && this.#knownFrom <= offset && (!isGrouped || this.#groupsFrom <= offset);
  }

  /** Everything below is known. */
  get indexedEnd(): number {
    return this.#indexedEnd;
  }
  /** False while the log is being read. */
  get isCaughtUp(): boolean {
    return this.#reading === undefined;
  }

  get isEnded(): boolean {
    return this.#isEnded;
  }
  /** Resolves when the log has been read. */
  async caughtUp(): Promise<void> {
    while (this.#reading !== undefined) await this.#reading;
  }

  /** The intake has seen a batch, which is in the log now but perhaps not durable. In order. */
  seen(batch: IndexedBatch): void {
    const last = this.#seen.at(-1);
    if (batch.baseOffset < Math.max(this.#indexedEnd, last === undefined ? 0 : last.lastOffset + 1)) return;
    this.#seen.push(batch);
  }

  /** Goes on to the high watermark, at once if the log need not be read. */
  advance(): void {
    if (this.#reading !== undefined || this.#isEnded) return;
    const { log } = this;
    if (this.#indexedEnd < log.startOffset) this.#indexedEnd = log.startOffset;
    const end = log.highWatermark;
    if (this.#indexedEnd >= end) return;
    if (!this.#host.isIndexed) {
      this.#seen = [];
      this.#indexedEnd = end;
      this.#knownFrom = end;
      this.#groupsFrom = end;
      this.#host.extended(this, end, []);
      return;
    }
    this.#takeSeen(end);
    this.#save();
    if (this.#indexedEnd >= end) return;
    this.#reading = this.#readOn().then(
      () => {
        this.#reading = undefined;
        this.advance();
      },
      (error: unknown) => {
        this.#reading = undefined;
        if (!this.#isEnded) this.#host.failed(this, error);
      },
    );
  }

  /** What the intake has seen and is next. */
  #takeSeen(end: number): void {
    let count = 0;
    for (const { baseOffset, lastOffset, appendedMs, entries } of this.#seen) {
      if (lastOffset < this.#indexedEnd) {
        count++;
        continue;
      }
      if (baseOffset !== this.#indexedEnd || lastOffset >= end) break;
      this.#append(baseOffset, entries);
      this.#indexedEnd = lastOffset + 1;
      this.#looked(baseOffset, appendedMs);
      count++;
    }
    if (count === 0) return;
    const batches = this.#seen.splice(0, count);
    this.#host.extended(this, this.#indexedEnd, batches);
  }

  #append(baseOffset: number, entries: readonly AttributeEntry[]): void {
    for (const { offsetDelta, attributes } of entries) {
      const offset = baseOffset + offsetDelta;
      if (offset >= this.#indexedEnd) this.attributes.append(offset, attributes);
    }
  }

  /** Reads up to what the intake has seen, or to the end: what is kept in files from there, the rest from the log. */
  async #readOn(): Promise<void> {
    const { log } = this;
    const { files } = this.#host;
    await log.prepare();
    await files?.load(log);
    while (!this.#isEnded) {
      const end = Math.min(this.#seen[0]?.baseOffset ?? Number.POSITIVE_INFINITY, log.highWatermark);
      const from = Math.max(this.#indexedEnd, log.startOffset);
      if (from >= end) return;
      const piece = from < this.#idsFrom ? files?.above(from) : undefined;
      if (files !== undefined && piece !== undefined && piece.from <= from) {
        const content = await files.read(piece);
        if (content !== undefined) await this.#takePiece(files, piece, content, from, end);
      } else await this.#readLog(from, Math.min(end, piece?.from ?? end));
    }
  }

  async #takePiece(
    files: PartitionAttributes,
    piece: PieceName,
    content: AttributePiece,
    from: number,
    end: number,
  ): Promise<void> {
    const { isGrouped, needsTimes } = this.#host;
    if ((isGrouped && !content.hasGroups) || (needsTimes && !content.hasTimes)) return files.discard(piece);
    const until = Math.min(content.endOffset, end, this.#idsFrom);
    if (!content.hasGroups) this.#groupsFrom = until;
    this.#timesFrom = until;
    for (let at = from; at < until && !this.#isEnded; ) {
      const next = Math.min(until, at + SLICE_OFFSETS);
      content.addTo(this.attributes, at, next);
      this.#indexedEnd = next;
      const batches: IndexedBatch[] = [];
      for (const { offset, endOffset, atMs } of content.arrivals(at, next)) {
        batches.push({ baseOffset: offset, lastOffset: endOffset - 1, appendedMs: atMs, entries: [] });
      }
      this.#host.extended(this, next, batches);
      at = next;
      // Others have their turn.
      await this.#host.turn();
    }
  }

  async #readLog(from: number, end: number): Promise<void> {
    const slice = await this.log.read(from, READ_BYTES, { wholeFirst: true });
    let bytes: Buffer;
    try {
      bytes = await readWhole(slice);
    } finally {
      slice.release();
    }
    if (this.#isEnded) return;
    this.#index(bytes, from, end);
    if (this.#indexedEnd <= from) {
      // Compaction has taken all that was there.
      this.#indexedEnd = end;
      this.#host.extended(this, end, []);
    }
    this.#save();
  }

  #index(bytes: Buffer, from: number, end: number): void {
    const { isGrouped, dedupBy, decompressedBytesMax, needsTimes } = this.#host;
    const batches: IndexedBatch[] = [];
    eachBatch(bytes, (position) => {
      const baseOffset = batchBaseOffset(bytes, position);
      const lastOffset = batchLastOffset(bytes, position);
      if (lastOffset < from) return true;
      if (baseOffset >= end) return false;
      const isControl = (attributeBits(bytes, position) & ATTRIBUTE_CONTROL) !== 0;
      const entries = isControl
        ? []
        : batchAttributes(bytes, position, decompressedBytesMax, { isFromClient: false, isGrouped, dedupBy }).entries;
      if (this.#indexedEnd < from) this.#indexedEnd = from;
      this.#append(baseOffset, entries);
      this.#indexedEnd = lastOffset + 1;
      const appendedMs = batchMaxTimestamp(bytes, position);
      this.#looked(Math.max(baseOffset, from), appendedMs);
      if (needsTimes || entries.length > 0) batches.push({ baseOffset, lastOffset, appendedMs, entries });
      return true;
    });
    this.#host.extended(this, this.#indexedEnd, batches);
  }

  /** Up to `#indexedEnd` from here on, into records that were appended then. */
  #looked(offset: number, appendedMs: number): void {
    if (!this.#host.isGrouped) this.#groupsFrom = this.#indexedEnd;
    if (this.#host.needsTimes) this.#times.add(offset, appendedMs);
    else this.#timesFrom = this.#indexedEnd;
  }

  /** Keeps in a file what no file has yet, if it is enough. */
  #save(): void {
    const { files, unsavedBytesMax } = this.#host;
    const { log } = this;
    if (files === undefined || this.#indexedEnd < this.#lookAt || !files.maySave || !files.claim(this)) return;
    const from = Math.max(files.endOffset, this.#indexedFrom, log.startOffset);
    const endOffset = Math.min(this.#indexedEnd, from + PIECE_OFFSETS_MAX - 1);
    this.#times.trim(from);
    if (this.#knownFrom > from) return;
    const averageBytes = Math.max(1, log.sizeBytes) / Math.max(1, log.endOffset - log.startOffset);
    const missing = unsavedBytesMax / averageBytes - (endOffset - from);
    this.#lookAt = this.#indexedEnd + Math.max(1, Math.floor(missing / 2));
    if (missing > 0) return;
    const epoch = log.epochForOffset(endOffset - 1);
    if (epoch < 0) return;
    const times = this.#timesFrom <= from ? this.#times : undefined;
    const range = { from, endOffset, hasGroups: this.#groupsFrom <= from, times };
    files.save({ from, endOffset, epoch }, encodePiece(this.attributes, range));
  }

  /** The topic is gone or nobody needs it any more. */
  end(): void {
    this.#isEnded = true;
    this.#seen = [];
  }
}
