/**
 * Reading from segment files: where an offset or a time is, and ranges that are read only while they are sent.
 *
 * Always true: nothing beyond `writtenBytes` is looked at. A file that does not hold what the log knows of it is an error
 * to the caller, who fences the partition.
 */
import {
  batchBaseOffset,
  batchLastOffset,
  batchMaxTimestamp,
  batchRecordCount,
  batchSizeBytes,
  findTimestamp,
  maxTimestampRecord,
  type RecordPlace,
} from '../protocol/record-batch.ts';
import type { DiskFile } from './disk.ts';
import type { FileSplice } from './log.ts';
import { BATCH_HEADER_BYTES, type Segment } from './segment.ts';

/** A batch in a segment file. */
export interface Place {
  position: number;
  sizeBytes: number;
  baseOffset: number;
  lastOffset: number;
  recordCount: number;
  maxTimestamp: number;
}

const WINDOW_BYTES = 16 * 1024;

/** Walks the headers of a segment file from a batch's position on; undefined at the end of what is written. */
class HeaderWalk {
  readonly #segment: Segment;
  readonly #file: DiskFile;
  readonly window = Buffer.allocUnsafe(WINDOW_BYTES);
  /** Where in `window` the header of the last batch is. */
  inWindow = 0;
  #windowStart = 0;
  #windowSize = 0;
  position: number;

  constructor(segment: Segment, file: DiskFile, position: number) {
    this.#segment = segment;
    this.#file = file;
    this.position = position;
  }

  async next(): Promise<Place | undefined> {
    const at = this.position;
    const { writtenBytes, writtenOffset, file } = this.#segment;
    if (at >= writtenBytes) return undefined;
    if (at < this.#windowStart || at + BATCH_HEADER_BYTES > this.#windowStart + this.#windowSize) {
      const wanted = Math.min(WINDOW_BYTES, writtenBytes - at);
      this.#windowSize = await this.#file.read(this.window.subarray(0, wanted), at);
      this.#windowStart = at;
      if (this.#windowSize < BATCH_HEADER_BYTES) throw new Error(`${file.path}: ends at ${at}, expected a batch there`);
    }
    const inWindow = at - this.#windowStart;
    this.inWindow = inWindow;
    const sizeBytes = batchSizeBytes(this.window, inWindow);
    if (sizeBytes < BATCH_HEADER_BYTES || at + sizeBytes > writtenBytes) {
      throw new Error(`${file.path}: batch of ${sizeBytes} bytes at ${at}, ${writtenBytes - at} are left`);
    }
    const lastOffset = batchLastOffset(this.window, inWindow);
    if (lastOffset >= writtenOffset) {
      throw new Error(`${file.path}: batch up to offset ${lastOffset} at ${at}, expected the end at ${writtenOffset}`);
    }
    this.position = at + sizeBytes;
    return {
      position: at,
      sizeBytes,
      baseOffset: batchBaseOffset(this.window, inWindow),
      lastOffset,
      recordCount: batchRecordCount(this.window, inWindow),
      maxTimestamp: batchMaxTimestamp(this.window, inWindow),
    };
  }
}

/** Calls `visit` with the header of every batch that ends at or after `offset`. */
export async function walkHeaders(
  segment: Segment,
  offset: number,
  visit: (bytes: Buffer, position: number) => void,
): Promise<void> {
  const { offsets } = await segment.loadIndexes();
  const file = await segment.file.use('read');
  try {
    const walk = new HeaderWalk(segment, file, offsets.positionFor(offset));
    for (;;) {
      const place = await walk.next();
      if (place === undefined) return;
      if (place.lastOffset >= offset) visit(walk.window, walk.inWindow);
    }
  } finally {
    segment.file.done();
  }
}

/**
 * The first batch that ends at or after `offset`, and has `recordsMin` records; undefined if the written part ends before
 * it. A rewrite may leave batches without any.
 */
export async function locate(segment: Segment, offset: number, recordsMin = 0): Promise<Place | undefined> {
  if (segment.writtenBytes === 0) return undefined;
  const { offsets } = await segment.loadIndexes();
  const file = await segment.file.use('read');
  try {
    const walk = new HeaderWalk(segment, file, offsets.positionFor(offset));
    for (;;) {
      const place = await walk.next();
      if (place === undefined || (place.lastOffset >= offset && place.recordCount >= recordsMin)) return place;
    }
  } finally {
    segment.file.done();
  }
}

/** The first record at or after `timestamp` and `minOffset` in the segment file, below `limitOffset`. */
export async function locateTime(
  segment: Segment,
  timestamp: number,
  minOffset: number,
  limitOffset: number,
): Promise<RecordPlace | undefined> {
  const { offsets, times } = await segment.loadIndexes();
  const file = await segment.file.use('read');
  try {
    const from = Math.max(times.offsetBefore(timestamp), minOffset);
    const walk = new HeaderWalk(segment, file, offsets.positionFor(from));
    for (;;) {
      const place = await walk.next();
      if (place === undefined || place.baseOffset >= limitOffset) return undefined;
      if (place.lastOffset < minOffset || place.maxTimestamp < timestamp) continue;
      const found = findTimestamp(await readBatch(file, place), 0, timestamp, minOffset);
      if (found !== undefined) return found.offset < limitOffset ? found : undefined;
    }
  } finally {
    segment.file.done();
  }
}

/** The earliest record with the largest timestamp in the segment file, of those at `minOffset` or later. */
export async function locateMaxTime(segment: Segment, minOffset: number): Promise<RecordPlace | undefined> {
  const { offsets } = await segment.loadIndexes();
  const newest = await locate(segment, segment.largestTimestampOffset);
  if (newest === undefined) return undefined;
  const file = await segment.file.use('read');
  try {
    let best = maxTimestampRecord(await readBatch(file, newest), 0, minOffset);
    if (best?.timestamp === segment.largestTimestamp) return best;
    // The newest record was deleted from the front of the log: look through what is left.
    best = undefined;
    const walk = new HeaderWalk(segment, file, offsets.positionFor(minOffset));
    for (;;) {
      const place = await walk.next();
      if (place === undefined) return best;
      if (place.lastOffset < minOffset || (best !== undefined && place.maxTimestamp <= best.timestamp)) continue;
      const found = maxTimestampRecord(await readBatch(file, place), 0, minOffset);
      if (found !== undefined && (best === undefined || found.timestamp > best.timestamp)) best = found;
    }
  } finally {
    segment.file.done();
  }
}

async function readBatch(file: DiskFile, place: Place): Promise<Buffer> {
  const bytes = Buffer.allocUnsafe(place.sizeBytes);
  const readBytes = await file.read(bytes, place.position);
  if (readBytes < bytes.length) throw new Error(`${file.path}: ends in the batch at ${place.position}`);
  return bytes;
}

/** Where a reader has come to: it asks for `nextOffset` next, which is at `position` of the segment. */
export interface ReadHint {
  segment: Segment;
  nextOffset: number;
  position: number;
}

/**
 * A range of whole batches (the last one perhaps cut) of a segment file. While it is read in order it follows the
 * batches, so that the place where the next sequential read begins is known without a look-up.
 */
export class FileRange implements FileSplice {
  readonly isSplice = true;
  readonly length: number;
  readonly #segment: Segment;
  readonly #position: number;
  readonly #onFailure: (error: unknown) => void;
  readonly #onEnd: (hint: ReadHint) => void;
  /** Relative to the range: where the next batch starts, −1 if it is not known any more; and the offset it has. */
  #boundary = 0;
  #boundaryOffset: number;
  /** How far the range was read in order. */
  #readTo = 0;
  /** The beginning of a batch header that the last read cut. */
  #carry: Buffer | undefined;

  constructor(
    segment: Segment,
    position: number,
    length: number,
    firstOffset: number,
    onFailure: (error: unknown) => void,
    onEnd: (hint: ReadHint) => void,
  ) {
    this.#segment = segment;
    this.#position = position;
    this.length = length;
    this.#boundaryOffset = firstOffset;
    this.#onFailure = onFailure;
    this.#onEnd = onEnd;
  }

  async read(target: Uint8Array, offset: number): Promise<number> {
    const size = Math.min(target.length, this.length - offset);
    const bytes = size === target.length ? target : target.subarray(0, size);
    try {
      const file = await this.#segment.file.use('read');
      try {
        const readBytes = await file.read(bytes, this.#position + offset);
        if (readBytes < size) {
          throw new Error(`${file.path}: ${readBytes} bytes at ${this.#position + offset}, expected ${size}`);
        }
      } finally {
        this.#segment.file.done();
      }
    } catch (error) {
      this.#onFailure(error);
      throw error;
    }
    this.#follow(bytes, offset);
    return size;
  }

  #follow(bytes: Uint8Array, offset: number): void {
    if (offset !== this.#readTo) this.#boundary = -1;
    this.#readTo = offset + bytes.length;
    if (this.#boundary < 0) return;
    const view = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length);
    if (this.#carry !== undefined) this.#followCarry(this.#carry, view, offset);
    let at = this.#boundary - offset;
    // Not below 0: the last batch, which the range cuts, may have begun in an earlier piece.
    while (at >= 0 && at + HINT_HEADER_BYTES <= view.length) {
      const sizeBytes = batchSizeBytes(view, at);
      if (sizeBytes < BATCH_HEADER_BYTES || this.#boundary + sizeBytes > this.length) break;
      this.#boundaryOffset = batchLastOffset(view, at) + 1;
      this.#boundary += sizeBytes;
      at += sizeBytes;
    }
    if (at >= 0 && at < view.length && at + HINT_HEADER_BYTES > view.length)
      this.#carry = Buffer.from(view.subarray(at));
    if (this.#readTo >= this.length) this.#finish();
  }

  /** Completes the header that began in the last read. */
  #followCarry(carry: Buffer, view: Buffer, offset: number): void {
    this.#carry = undefined;
    const header = Buffer.concat([carry, view.subarray(0, HINT_HEADER_BYTES)]);
    if (header.length < HINT_HEADER_BYTES || this.#boundary + carry.length !== offset) {
      this.#boundary = -1;
      return;
    }
    const sizeBytes = batchSizeBytes(header, 0);
    if (this.#boundary + sizeBytes > this.length) return;
    this.#boundaryOffset = batchLastOffset(header, 0) + 1;
    this.#boundary += sizeBytes;
  }

  #finish(): void {
    if (this.#boundary <= 0) return;
    this.#onEnd({
      segment: this.#segment,
      nextOffset: this.#boundaryOffset,
      position: this.#position + this.#boundary,
    });
  }
}

/** Base offset, size, …, last offset delta: what following the batches needs. */
const HINT_HEADER_BYTES = 27;
