/**
 * Brings the runs of one partition to its segments, one write at a time and in order of offsets: directly, as the group
 * in flight, or behind the journal. Small writes to an open segment are made on the calling thread.
 *
 * Always true: a segment gets no byte that is not durable, except by a direct write; what a direct write has brought
 * counts as written only after `settleDirect`.
 */
import assert from 'node:assert';
import { WRITE_NOW_BYTES_MAX } from './committer.ts';
import { writeAll, writeAllNow } from './disk.ts';
import { piecesOf, type RunQueue } from './run-queue.ts';
import type { Segment } from './segment.ts';
import type { SegmentWriter } from './segment-writer.ts';
import type { Run } from './tail-cache.ts';

export interface RunWriterOptions {
  runs: RunQueue;
  /** Of the log, which adds to them and takes from them; the last one is appended to. */
  segments: readonly Segment[];
  writer: SegmentWriter;
  /** Segments have no files before this has ended. */
  makeFolder: () => Promise<void> | undefined;
  /** The segment has bytes that are not synced. */
  onWrite: (segment: Segment) => void;
  /** A write has ended, and what it brought is counted. */
  onEnd: () => void;
}

export class RunWriter {
  readonly #options: RunWriterOptions;
  isWriting = false;
  #whenEnded: (() => void)[] = [];
  /** Runs that the direct write of the group in flight brings to the segments. */
  #directRuns: Run[] = [];

  constructor(options: RunWriterOptions) {
    this.#options = options;
  }

  /** Resolves when no write is under way. */
  async idle(): Promise<void> {
    while (this.isWriting) await this.#end();
  }

  /** Writes everything up to and with group `groupNumber`. `settleDirect` must follow. */
  async direct(groupNumber: number): Promise<void> {
    while (this.isWriting) await this.#end();
    this.isWriting = true;
    this.#directRuns = this.#options.runs.unwritten(groupNumber);
    await this.#write(this.#directRuns);
  }

  /** As `direct`, on the calling thread; false if that is not possible. */
  directNow(groupNumber: number): boolean {
    const { runs } = this.#options;
    if (this.isWriting || runs.unwrittenBytes > WRITE_NOW_BYTES_MAX) return false;
    const written = runs.unwritten(groupNumber);
    if (!this.#writeNow(written)) return false;
    this.isWriting = true;
    this.#directRuns = written;
    return true;
  }

  /** The group of the direct write is durable; its segments are synced if `isSynced`. */
  settleDirect(isSynced: boolean): void {
    const runs = this.#directRuns;
    this.#directRuns = [];
    this.#written(runs);
    // One write at a time: what was synced is all that is written.
    if (isSynced) for (const run of runs) this.#segmentOf(run.baseOffset).noteSynced();
  }

  /** Journaled and durable bytes reach their segments. Resolves at the end of the write under way if there is one. */
  async behind(): Promise<void> {
    if (this.isWriting) return this.#end();
    const runs = this.#options.runs.unwritten();
    if (runs.length === 0) return;
    this.isWriting = true;
    await this.#write(runs);
    this.#written(runs);
  }

  /** As `behind`, on the calling thread; false if that is not possible. */
  behindNow(): boolean {
    if (this.isWriting) return false;
    const runs = this.#options.runs.unwritten();
    if (runs.length === 0 || !this.#writeNow(runs)) return false;
    this.#written(runs);
    return true;
  }

  #end(): Promise<void> {
    return new Promise((resolve) => {
      this.#whenEnded.push(resolve);
    });
  }

  /** Writes the runs at the ends of their segments. They count as written only after `#written`. */
  async #write(runs: readonly Run[]): Promise<void> {
    await this.#options.makeFolder();
    for (let index = 0; index < runs.length; ) {
      const segment = this.#segmentOf(runs[index].baseOffset);
      const from = index;
      while (index < runs.length && runs[index].baseOffset < segment.endOffset) index++;
      const file = await segment.file.use('write');
      try {
        await writeAll(file, piecesOf(runs.slice(from, index)), segment.writtenBytes);
      } finally {
        segment.file.done();
      }
      this.#wasWritten(segment);
    }
  }

  /** The same at once, if all are of the newest segment and it is open. */
  #writeNow(runs: readonly Run[]): boolean {
    const segment = this.#options.segments.at(-1);
    const file = segment?.file.writable;
    if (segment === undefined || file === undefined || runs[0].baseOffset < segment.baseOffset) return false;
    writeAllNow(file, piecesOf(runs), segment.writtenBytes);
    this.#wasWritten(segment);
    return true;
  }

  #wasWritten(segment: Segment): void {
    segment.isFileMade = true;
    segment.file.isDirty = true;
    this.#options.onWrite(segment);
  }

  /** Counts runs that are durable and in their segments. */
  #written(written: readonly Run[]): void {
    const { runs, segments, writer, onEnd } = this.#options;
    for (const run of written) {
      const segment = this.#segmentOf(run.baseOffset);
      segment.written(run.slab.buffer, run.position, run.sizeBytes);
      runs.written(run);
      writer.written(run.sizeBytes);
      if (segment !== segments.at(-1) && segment.writtenBytes === segment.sizeBytes) {
        writer.background(() => segment.seal());
      }
    }
    this.isWriting = false;
    const waiting = this.#whenEnded;
    if (waiting.length > 0) {
      this.#whenEnded = [];
      for (const resolve of waiting) resolve();
    }
    onEnd();
  }

  #segmentOf(offset: number): Segment {
    const segment = this.#options.segments.findLast((candidate) => candidate.baseOffset <= offset);
    assert(segment !== undefined);
    return segment;
  }
}
