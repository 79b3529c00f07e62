/**
 * Runs a state machine on the log: decide, take a place in the commit order, apply at once, answer when that place is
 * durable (docs/architecture.md, "State is a log too"). The machine is plain synchronous code that turns events into state.
 *
 * Always true: applied state is never rolled back, since a failed commit stops the broker; an answer that leans on
 * this machine's state waits for `position`. The log stays bounded: past twice its live size the machine appends its
 * live state again in one atomic commit that also moves the start of the log up. Live state too large for one commit is
 * appended in several, of which the last moves the start: a crash in between replays what was there and part of it again,
 * which must be the same (live events set things, they do not add).
 */
import {
  batchSizeBytes,
  buildBatch,
  readRecords,
  type DecodedRecord,
  type RecordInit,
} from '../protocol/record-batch.ts';
import type { Clock } from '../storage/clock.ts';
import type { CommitPart, Engine, FileSplice, LogSlice, Partition, Position } from './engine.ts';

export interface StateMachine<Event> {
  encode(event: Event, nowMs: number): RecordInit;
  /** Undefined for a record that this version does not know and may skip. */
  decode(record: DecodedRecord): Event | undefined;
  apply(event: Event): void;
  /** The events that rebuild the live state. */
  live(): Iterable<Event>;
}

/** A log smaller than this (and than one commit may be) is never rewritten. */
const REWRITE_MIN_BYTES = 1024 * 1024;
const BATCH_RECORDS_MAX = 1000;
const BATCH_BYTES = 1024 * 1024;
/** More than the framing of any record. */
const RECORD_OVERHEAD_BYTES = 64;
const READ_BYTES = 1024 * 1024;

export class StateLog<Event> {
  readonly #engine: Engine;
  readonly #partition: Partition;
  readonly #machine: StateMachine<Event>;
  readonly #clock: Clock;
  readonly #commitBytesMax: number;
  #position: Position = 0;
  #liveBytes = 0;
  #bytesSinceRewrite = 0;

  /** `commitBytesMax` (default: no limit) is at most `journal.entry.bytes`. */
  constructor(
    engine: Engine,
    partition: Partition,
    machine: StateMachine<Event>,
    clock: Clock,
    commitBytesMax = Number.POSITIVE_INFINITY,
  ) {
    this.#commitBytesMax = commitBytesMax;
    this.#engine = engine;
    this.#partition = partition;
    this.#machine = machine;
    this.#clock = clock;
  }

  /** Position of the newest event. */
  get position(): Position {
    return this.#position;
  }

  /** Applies everything the log holds. Once, before the first commit. */
  async load(): Promise<void> {
    await this.#partition.prepare();
    let offset = this.#partition.startOffset;
    while (offset < this.#partition.highWatermark) {
      const slice = await this.#partition.read(offset, READ_BYTES, { wholeFirst: true });
      const bytes = await readWhole(slice);
      slice.release();
      const from = offset;
      for (
        let at = 0;
        at + 12 <= bytes.length && at + batchSizeBytes(bytes, at) <= bytes.length;
        at += batchSizeBytes(bytes, at)
      ) {
        for (const record of readRecords(bytes, at)) {
          // A read starts at the batch that holds the offset, which may begin below it.
          if (record.offset < offset) continue;
          const event = this.#machine.decode(record);
          if (event !== undefined) this.#machine.apply(event);
          offset = record.offset + 1;
        }
        this.#liveBytes += batchSizeBytes(bytes, at);
      }
      if (offset === from)
        throw new Error(
          `state log ${this.#partition.topic}: no batch at offset ${offset}, high watermark ${this.#partition.highWatermark}`,
        );
    }
  }

  /**
   * Commits the events (and `others` with them, all or nothing) and applies them. `isPartial`: the machine is ahead of its
   * events, the rest follows at once; the log is not rewritten in between.
   */
  commit(
    events: readonly Event[],
    options: { others?: readonly CommitPart[]; urgency?: 'waited' | 'lazy'; isPartial?: boolean } = {},
  ): Position {
    const batch = this.#batch(events);
    const parts: CommitPart[] = [{ kind: 'append', partition: this.#partition, batch }, ...(options.others ?? [])];
    const { position } = this.#engine.commit(parts, options.urgency ?? 'waited');
    this.#committed(events, batch.length, position, options.isPartial);
    return position;
  }

  /**
   * The events as a part of a commit that somebody else makes, in this turn and next; `committed` right after it, with its
   * position.
   */
  part(events: readonly Event[]): { part: CommitPart; committed: (position: Position) => void } {
    const batch = this.#batch(events);
    return {
      part: { kind: 'append', partition: this.#partition, batch },
      committed: (position) => this.#committed(events, batch.length, position),
    };
  }

  #committed(events: readonly Event[], sizeBytes: number, position: Position, isPartial = false): void {
    this.#position = position;
    for (const event of events) this.#machine.apply(event);
    this.#bytesSinceRewrite += sizeBytes;
    if (isPartial) return;
    const minBytes = Math.min(REWRITE_MIN_BYTES, this.#commitBytesMax);
    if (this.#bytesSinceRewrite > Math.max(minBytes, this.#liveBytes)) this.#rewrite();
  }

  /** Calls back when everything this machine has decided so far is durable. */
  whenDurable(callback: () => void): void {
    this.#engine.whenDurable(this.#position, callback);
  }

  #rewrite(): void {
    const partition = this.#partition;
    const start = partition.endOffset;
    const now = this.#clock.now();
    const batchBytes = Math.min(BATCH_BYTES, this.#commitBytesMax);
    let parts: CommitPart[] = [];
    let partsBytes = 0;
    let records: RecordInit[] = [];
    let recordsBytes = 0;
    let liveBytes = 0;
    const flush = (): void => {
      if (records.length === 0) return;
      const batch = buildBatch(records);
      if (parts.length > 0 && partsBytes + batch.length > this.#commitBytesMax) {
        this.#engine.commit(parts, 'lazy');
        parts = [];
        partsBytes = 0;
      }
      parts.push({ kind: 'append', partition, batch });
      partsBytes += batch.length;
      liveBytes += batch.length;
      records = [];
      recordsBytes = 0;
    };
    for (const event of this.#machine.live()) {
      const record = this.#machine.encode(event, now);
      const recordBytes = RECORD_OVERHEAD_BYTES + (record.key?.length ?? 0) + (record.value?.length ?? 0);
      if (recordsBytes + recordBytes > batchBytes) flush();
      records.push(record);
      recordsBytes += recordBytes;
      if (records.length === BATCH_RECORDS_MAX) flush();
    }
    flush();
    parts.push({ kind: 'start', partition, offset: start });
    this.#position = this.#engine.commit(parts, 'lazy').position;
    this.#liveBytes = liveBytes;
    this.#bytesSinceRewrite = 0;
  }

  #batch(events: readonly Event[]): Buffer {
    const now = this.#clock.now();
    return buildBatch(
      events.map((event) => this.#machine.encode(event, now)),
      {},
    );
  }
}

/** All bytes of a slice in one buffer. Copy: what is read so is decoded once. */
export async function readWhole({ chunks, sizeBytes }: LogSlice): Promise<Buffer> {
  const target = Buffer.allocUnsafe(sizeBytes);
  let at = 0;
  for (const chunk of chunks) {
    if (chunk instanceof Uint8Array) target.set(chunk, at);
    // What is not bytes yet is a range of a file.
    else await (chunk as FileSplice).read(target.subarray(at, at + chunk.length), 0);
    at += chunk.length;
  }
  return target;
}
