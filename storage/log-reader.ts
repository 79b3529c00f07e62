/**
 * The read side of one partition: from runs in memory, synchronously, or else a range of one segment file.
 *
 * Always true: nothing at or above the limit is answered; a range holds its segment until it is released; a file that
 * cannot be read or does not hold what it must fences the partition.
 */
import assert from 'node:assert';
import {
  batchMaxTimestamp,
  batchSizeBytes,
  findTimestamp,
  maxTimestampRecord,
  type RecordPlace,
} from '../protocol/record-batch.ts';
import { MillraceError } from '../protocol/errors.ts';
import type { LogSlice } from './log.ts';
import { emptySlice, type RunQueue } from './run-queue.ts';
import type { Segment } from './segment.ts';
import { FileRange, locate, locateMaxTime, locateTime, type ReadHint } from './segment-reader.ts';

/** Places of sequential readers that are remembered for a partition. */
const HINTS_MAX = 8;

export class LogReader {
  readonly #segments: readonly Segment[];
  readonly #runs: RunQueue;
  readonly #fence: (error: unknown) => void;
  readonly #onRelease: () => void;
  #hints: ReadHint[] = [];

  /** `segments` is the log's own list, oldest first. `onRelease`: a segment has lost its last reader. */
  constructor(segments: readonly Segment[], runs: RunQueue, fence: (error: unknown) => void, onRelease: () => void) {
    this.#segments = segments;
    this.#runs = runs;
    this.#fence = fence;
    this.#onRelease = onRelease;
  }

  /** `offset` is within the log and below `limitOffset`. See `Partition.read`. */
  read(offset: number, limitOffset: number, maxBytes: number, wholeFirst: boolean): LogSlice | Promise<LogSlice> {
    if (offset >= this.#runs.firstOffset) return this.#runs.read(offset, limitOffset, maxBytes, wholeFirst);
    const segment = this.#segmentOf(offset);
    // In a rewritten one a batch without records may come next.
    const hint = segment.isRewritten
      ? undefined
      : this.#hints.find((candidate) => candidate.nextOffset === offset && candidate.segment === segment);
    if (hint !== undefined && segment.writtenOffset <= limitOffset && maxBytes >= segment.batchBytesMax) {
      const readableBytes = segment.writtenBytes - hint.position;
      if (readableBytes > 0) return this.#range(segment, hint.position, Math.min(maxBytes, readableBytes), offset);
    }
    return this.#readFile(segment, offset, limitOffset, maxBytes, wholeFirst);
  }

  async #readFile(
    segment: Segment,
    offset: number,
    limitOffset: number,
    maxBytes: number,
    wholeFirst: boolean,
  ): Promise<LogSlice> {
    const slice = await this.#guarded(segment, async () => {
      // There are clients that do not get past an answer without records.
      const place = await locate(segment, offset, 1);
      if (place === undefined) return undefined;
      if (place.lastOffset >= limitOffset) return emptySlice();
      if (place.sizeBytes > maxBytes && !wholeFirst) return emptySlice();
      let endPosition = segment.writtenBytes;
      if (segment.writtenOffset > limitOffset) {
        // The first batch that ends at or above the limit: the range ends before it.
        const beyond = await locate(segment, limitOffset);
        if (beyond !== undefined) endPosition = beyond.position;
      }
      const length = Math.min(Math.max(maxBytes, place.sizeBytes), endPosition - place.position);
      return this.#range(segment, place.position, length, place.baseOffset);
    });
    if (slice !== undefined) return slice;
    // Its last records were taken out by a rewrite: what follows is in the next one.
    const nextOffset = segment.writtenOffset;
    assert(nextOffset > offset, 'what is not in memory is in the segment');
    return nextOffset >= limitOffset ? emptySlice() : this.read(nextOffset, limitOffset, maxBytes, wholeFirst);
  }

  #range(segment: Segment, position: number, length: number, firstOffset: number): LogSlice {
    segment.readers++;
    let isReleased = false;
    const range = new FileRange(segment, position, length, firstOffset, this.#fence, this.#remember);
    return {
      chunks: [range],
      sizeBytes: length,
      release: () => {
        if (isReleased) return;
        isReleased = true;
        this.#letGo(segment);
      },
    };
  }

  readonly #remember = (hint: ReadHint): void => {
    if (this.#hints.length >= HINTS_MAX) this.#hints.shift();
    this.#hints.push(hint);
  };

  /** The first record at or after `timestamp` within the offsets given. */
  async findTime(timestamp: number, minOffset: number, limitOffset: number): Promise<RecordPlace | undefined> {
    for (const listed of this.#segments.slice()) {
      const segment = current(listed);
      if (segment.writtenOffset <= minOffset || segment.largestTimestamp < timestamp) continue;
      if (segment.isDropped) continue;
      const found = await this.#guarded(segment, () => locateTime(segment, timestamp, minOffset, limitOffset));
      if (found !== undefined) return found;
    }
    // What is in memory only. What has reached a segment meanwhile is still in memory or was looked through above.
    for (const run of this.#runs.from(Math.max(minOffset, this.#runs.firstOffset))) {
      if (run.baseOffset >= limitOffset) return undefined;
      if (run.maxTimestamp < timestamp) continue;
      const { buffer } = run.slab;
      for (let at = run.position; at < run.position + run.sizeBytes; at += batchSizeBytes(buffer, at)) {
        const found = findTimestamp(buffer, at, timestamp, minOffset);
        if (found !== undefined) return found.offset < limitOffset ? found : undefined;
      }
    }
    return undefined;
  }

  /** The earliest record with the largest timestamp. */
  async findMaxTime(minOffset: number, limitOffset: number): Promise<RecordPlace | undefined> {
    let best = this.#maxTimeInMemory(minOffset, limitOffset);
    // The newest segment first: it mostly has the newest record, and then the others need not be opened.
    for (const listed of this.#segments.slice().reverse()) {
      const segment = current(listed);
      if (segment.writtenOffset <= minOffset || segment.writtenBytes === 0) continue;
      if (segment.isDropped || (best !== undefined && segment.largestTimestamp < best.timestamp)) continue;
      const found = await this.#guarded(segment, () => locateMaxTime(segment, minOffset));
      if (found === undefined || found.offset >= limitOffset) continue;
      if (best === undefined || found.timestamp >= best.timestamp) best = found;
    }
    return best;
  }

  #maxTimeInMemory(minOffset: number, limitOffset: number): RecordPlace | undefined {
    let best: RecordPlace | undefined;
    for (const run of this.#runs.from(Math.max(minOffset, this.#runs.firstOffset))) {
      if (run.nextOffset > limitOffset) break;
      if (best !== undefined && run.maxTimestamp <= best.timestamp) continue;
      const { buffer } = run.slab;
      for (let at = run.position; at < run.position + run.sizeBytes; at += batchSizeBytes(buffer, at)) {
        if (best !== undefined && batchMaxTimestamp(buffer, at) <= best.timestamp) continue;
        const found = maxTimestampRecord(buffer, at, minOffset);
        if (found !== undefined && (best === undefined || found.timestamp > best.timestamp)) best = found;
      }
    }
    return best;
  }

  #segmentOf(offset: number): Segment {
    const segment = this.#segments.findLast((candidate) => candidate.baseOffset <= offset);
    assert(segment !== undefined);
    return segment;
  }

  /** Runs `task` with the segment held. */
  async #guarded<T>(segment: Segment, task: () => Promise<T>): Promise<T> {
    segment.readers++;
    try {
      return await task();
    } catch (error) {
      this.#fence(error);
      throw new MillraceError('KAFKA_STORAGE_ERROR', `${segment.file.path} cannot be read`, { cause: error });
    } finally {
      this.#letGo(segment);
    }
  }

  #letGo(segment: Segment): void {
    segment.readers--;
    if (segment.readers === 0 && segment.isDropped) this.#onRelease();
  }
}

/** A segment may be rewritten while others are looked through. */
function current(segment: Segment): Segment {
  let found = segment;
  while (found.replacement !== undefined) found = found.replacement;
  return found;
}
