/**
 * What the queues of one partition share: how far its log was looked into, and what the records say to queues (the index
 * of attributes). Where a queue is declared on the topic, no message is shown to a queue before its attributes are known:
 * they come from the intake if it saw the batch, and from the log if not (after a start, for a queue declared over a log
 * that is there, for batches of the broker's own). The log is the truth, so the order of both does not matter.
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
import { AttributeIndex } from './attribute-index.ts';
import type { Partition } from './engine.ts';
import { type AttributeEntry, batchAttributes } from './queue-attributes.ts';
import { readWhole } from './state-log.ts';

/** Read from the log at a time. */
const READ_BYTES = 1024 * 1024;

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
  readonly dedupBy: 'id' | 'content' | undefined;
  readonly decompressedBytesMax: number;
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

  /** Nothing below `firstOffset` matters to any queue. */
  constructor(log: Partition, firstOffset: number, host: LaneHost) {
    this.log = log;
    this.#indexedEnd = Math.max(firstOffset, log.startOffset);
    this.#indexedFrom = firstOffset;
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
  }
  /** Before the first `advance`: begins at `offset`, if that is lower. */
  reach(offset: number): void {
    this.#indexedFrom = Math.min(this.#indexedFrom, offset);
    this.#indexedEnd = Math.min(this.#indexedEnd, Math.max(offset, this.log.startOffset));
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
      this.#host.extended(this, end, []);
      return;
    }
    this.#takeSeen(end);
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
    for (const { baseOffset, lastOffset, entries } of this.#seen) {
      if (lastOffset < this.#indexedEnd) {
        count++;
        continue;
      }
      if (baseOffset !== this.#indexedEnd || lastOffset >= end) break;
      this.#append(baseOffset, entries);
      this.#indexedEnd = lastOffset + 1;
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

  /** Reads up to what the intake has seen, or to the end. */
  async #readOn(): Promise<void> {
    const { log } = this;
    await log.prepare();
    while (!this.#isEnded) {
      const end = Math.min(this.#seen[0]?.baseOffset ?? Number.POSITIVE_INFINITY, log.highWatermark);
      const from = Math.max(this.#indexedEnd, log.startOffset);
      if (from >= end) return;
      const slice = await log.read(from, READ_BYTES, { wholeFirst: true });
      let bytes: Buffer;
      try {
        bytes = await readWhole(slice);
      } finally {
        slice.release();
      }
      if (this.#isEnded) return;
      this.#index(bytes, from, end);
      if (this.#indexedEnd > from) continue;
      // Compaction has taken all that was there.
      this.#indexedEnd = end;
      this.#host.extended(this, end, []);
    }
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
      if (needsTimes || entries.length > 0) {
        batches.push({ baseOffset, lastOffset, appendedMs: batchMaxTimestamp(bytes, position), entries });
      }
      return true;
    });
    this.#host.extended(this, this.#indexedEnd, batches);
  }

  /** The topic is gone or nobody needs it any more. */
  end(): void {
    this.#isEnded = true;
    this.#seen = [];
  }
}
