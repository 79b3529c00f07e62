/**
 * One consumer that reads the log of a queue or topic partition and takes nothing: a cursor, moved on by credit.
 *
 * Always true: messages are handed on in the order of offsets, each once, from exactly where the consumer wanted to begin;
 * one read at a time is on its way, of a bounded size; what retention takes before it was read is skipped.
 */
import { MillraceError } from '../../protocol/errors.ts';
import type { RecordCursor } from '../../protocol/record-walk.ts';
import type { Partition } from '../../broker/engine.ts';
import type { QueuedSpans, QueueReader } from '../../broker/queue-reader.ts';
import type { LogReader, Queue } from '../../broker/queue-handle.ts';
import type { StreamFilter, StreamRequest, StreamStart } from './stream-arguments.ts';

/** Of one read; what a filter leaves out counts, too. */
const READ_MESSAGES_MAX = 2000;
const READ_BYTES_MAX = 256 * 1024;
const FILTER_VALUE = Buffer.from('x-stream-filter-value');

export interface StreamHost {
  readonly reader: QueueReader;
  /** Messages of the log, some of which `wants` may not want. */
  arrived(found: QueuedSpans): void;
  /** The queue or its topic has ended, or cannot be read any more. */
  ended(): void;
  /** Calls `want` at the end of the turn. */
  schedule(): void;
}

export class StreamReading implements LogReader {
  readonly #host: StreamHost;
  readonly #queue: Queue;
  readonly #log: Partition;
  readonly #filter: StreamFilter | undefined;
  /** Undefined: it is being looked for. */
  #next: number | undefined;
  #isReading = false;
  #isClosed = false;
  #unwatch: (() => void) | undefined;

  constructor(queue: Queue, log: Partition, { start, filter }: StreamRequest, host: StreamHost) {
    this.#host = host;
    this.#queue = queue;
    this.#log = log;
    this.#filter = filter;
    queue.readers.add(this);
    this.#seek(start);
  }

  #seek(start: StreamStart): void {
    const { startOffset, lastStableOffset: endOffset } = this.#log;
    switch (start.kind) {
      case 'first':
        this.#next = startOffset;
        return;
      case 'next':
        this.#next = endOffset;
        return;
      case 'last':
        this.#next = Math.max(startOffset, endOffset - 1);
        return;
      case 'offset':
        this.#next = start.offset;
        return;
      case 'time':
        this.#log.offsetForTime(start.ms).then(
          (found) => {
            this.#next = found?.offset ?? this.#log.lastStableOffset;
            this.#host.schedule();
          },
          (error: unknown) => this.#failed(error),
        );
    }
  }

  /** It takes so many messages now. */
  want(messages: number): void {
    if (this.#isClosed || this.#isReading || this.#next === undefined || messages <= 0) return;
    const log = this.#log;
    const next = Math.max(this.#next, log.startOffset);
    const endOffset = log.lastStableOffset;
    if (next >= endOffset) return this.#watch(Math.max(next, log.highWatermark));
    const wantedMax = this.#filter === undefined ? Math.min(READ_MESSAGES_MAX, messages) : READ_MESSAGES_MAX;
    const lastOffset = Math.min(next + wantedMax, endOffset) - 1;
    try {
      const found = this.#host.reader.spans(log, [{ firstOffset: next, lastOffset }], READ_BYTES_MAX);
      if (!(found instanceof Promise)) return this.#arrived(found, lastOffset);
      this.#isReading = true;
      found.then(
        (spans) => {
          this.#isReading = false;
          this.#arrived(spans, lastOffset);
        },
        (error: unknown) => this.#failed(error),
      );
    } catch (error) {
      this.#failed(error);
    }
  }

  #arrived(found: QueuedSpans, lastOffset: number): void {
    if (!this.#isClosed) {
      this.#next = Math.min(lastOffset + 1, found.restFrom);
      this.#host.arrived(found);
    }
    found.release();
    this.#host.schedule();
  }

  /** A filter had more than was wanted: reading goes on there. */
  stoppedAt(offset: number): void {
    this.#next = offset;
  }

  #watch(offset: number): void {
    if (this.#unwatch !== undefined) return;
    let isCalled = false;
    const unwatch = this.#log.whenAbove(offset, () => {
      isCalled = true;
      this.#unwatch = undefined;
      if (!this.#isClosed && this.#log.highWatermark > offset) this.#host.schedule();
    });
    if (!isCalled) this.#unwatch = unwatch;
  }

  /** Whether the record that the cursor is at passes the filter. */
  wants(cursor: RecordCursor): boolean {
    const filter = this.#filter;
    if (filter === undefined) return true;
    const { bytes } = cursor;
    cursor.rewindHeaders();
    while (cursor.nextHeader()) {
      const { headerKeyStart, headerKeyEnd, headerValueStart, headerValueSize } = cursor;
      if (headerKeyEnd - headerKeyStart !== FILTER_VALUE.length) continue;
      if (FILTER_VALUE.compare(bytes, headerKeyStart, headerKeyEnd) !== 0) continue;
      const end = headerValueStart + Math.max(0, headerValueSize);
      return filter.values.some((value) => value.compare(bytes, headerValueStart, end) === 0);
    }
    return filter.isUnfilteredToo;
  }

  #failed(error: unknown): void {
    this.#isReading = false;
    // A partition that cannot be read is fenced and says so itself; anything else is a broken invariant.
    if (!(error instanceof MillraceError)) throw error;
    if (this.#isClosed) return;
    this.close();
    this.#host.ended();
  }

  left(): void {
    this.close();
    this.#host.ended();
  }

  close(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#unwatch?.();
    this.#unwatch = undefined;
    this.#queue.readers.delete(this);
  }
}
