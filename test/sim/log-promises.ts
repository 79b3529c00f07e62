/**
 * What the log has promised while a workload ran on it, and the check that a log opened later keeps it: every
 * acknowledged record is there, unless a rewrite was asked to drop it, nothing a reader has seen changes, offsets never
 * change, nothing is invented, deleted partitions stay away, atomic commits are there whole or not at all, retries are still recognised.
 *
 * Promises are made per partition and only grow, so the state at any moment is a few numbers over shared lists.
 */
import {
  BATCH_OVERHEAD_BYTES,
  batchBaseOffset,
  batchLastOffset,
  batchSizeBytes,
  buildBatch,
  readRecords,
} from '../../protocol/record-batch.ts';
import type { FileSplice, LogSlice } from '../../storage/log.ts';
import type { PartitionLog } from '../../storage/partition-log.ts';

/** Something that was promised is not so: what an exploration is for. Any other error is a mistake somewhere. */
export class BrokenPromise extends Error {
  constructor(message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = 'BrokenPromise';
  }
}

/** An error with more said before it, of the same kind. */
export function withPlace(place: string, error: unknown): Error {
  const text = `${place}: ${error instanceof Error ? error.message : String(error)}`;
  return error instanceof BrokenPromise ? new BrokenPromise(text, { cause: error }) : new Error(text, { cause: error });
}

/** A batch of an idempotent producer. */
export interface SentBatch {
  producerId: number;
  sequence: number;
  baseOffset: number;
  values: readonly string[];
}

/** One partition of a workload. */
export class Promises {
  readonly topicId: string;
  readonly topic: string;
  /** By offset, what the record holds; only appended to. */
  readonly values: string[];
  /** Of idempotent producers, by offset; only appended to. */
  readonly sent: SentBatch[];
  /** Offsets that a rewrite was asked to drop: they may be gone, or there or back. Only appended to. */
  readonly droppable: number[];
  /** Below this everything was acknowledged or seen by a reader. */
  safeEnd = 0;
  /** The start was acknowledged to be at least `safeStart`, and asked to be at most `startMax`. */
  safeStart = 0;
  startMax = 0;
  isDeletionAsked = false;
  isDeleted = false;

  constructor(topicId: string, topic: string, values: string[] = [], sent: SentBatch[] = [], droppable: number[] = []) {
    this.topicId = topicId;
    this.topic = topic;
    this.values = values;
    this.sent = sent;
    this.droppable = droppable;
  }

  acknowledged(lastOffset: number): void {
    this.safeEnd = Math.max(this.safeEnd, lastOffset + 1);
  }

  now(): PromisesAt {
    const { safeEnd, safeStart, startMax, isDeletionAsked, isDeleted } = this;
    const counts = { appended: this.values.length, sent: this.sent.length, dropped: this.droppable.length };
    return { of: this, safeEnd, safeStart, startMax, isDeletionAsked, isDeleted, ...counts };
  }
}

/** The promises at one moment. */
export interface PromisesAt {
  readonly of: Promises;
  readonly safeEnd: number;
  readonly safeStart: number;
  readonly startMax: number;
  readonly isDeletionAsked: boolean;
  readonly isDeleted: boolean;
  /** Records and batches that had been appended by then, acknowledged or not. */
  readonly appended: number;
  readonly sent: number;
  /** How many of `droppable` had been asked for. */
  readonly dropped: number;
}

/** The parts of one atomic commit: first offsets. */
export type AtomicCommit = readonly { readonly of: Promises; readonly offset: number }[];

/** What is kept after an end of the given kind. Without `isKept` (`log.flush: written` and a power cut) only sense is. */
export interface Terms {
  isKept: boolean;
}

/** Throws an error that says what is wrong with `log`. Answers where it starts and ends. */
export async function checkPartition(
  log: PartitionLog,
  at: PromisesAt,
  terms: Terms,
): Promise<{ start: number; end: number } | undefined> {
  const { of } = at;
  const fail = (what: string): never => {
    throw new BrokenPromise(`${log.name} (${of.topicId.slice(-4)}): ${what}`);
  };
  if (at.isDeleted && terms.isKept) {
    if (log.endOffset !== 0) fail(`was deleted and is back, up to ${log.endOffset}`);
    return undefined;
  }
  if (log.isFenced) {
    // Without promises its files may have gone before it was known that they may.
    if (!terms.isKept) return undefined;
    fail('is fenced');
  }
  if (at.isDeletionAsked && log.endOffset === 0) return undefined;
  if (terms.isKept && log.endOffset < at.safeEnd) fail(`ends at ${log.endOffset}, ${at.safeEnd} was acknowledged`);
  if (log.endOffset > at.appended) fail(`ends at ${log.endOffset}, only ${at.appended} were ever sent`);
  if (log.highWatermark !== log.endOffset) fail(`high watermark ${log.highWatermark}, end ${log.endOffset}`);
  if (terms.isKept && log.startOffset < at.safeStart)
    fail(`starts at ${log.startOffset}, ${at.safeStart} was acknowledged`);
  if (log.startOffset > at.startMax) fail(`starts at ${log.startOffset}, at most ${at.startMax} was asked for`);
  let records: Map<number, string>;
  try {
    records = await readRecordsOf(log, log.startOffset, 3000);
  } catch (error) {
    if (log.isFenced && !terms.isKept) return undefined;
    throw new BrokenPromise(`cannot be read: ${String(error)}`, { cause: error });
  }
  const mayBeGone = goneIn(log, of, log.endOffset, at.dropped, records);
  for (let offset = log.startOffset; offset < log.endOffset; offset++) {
    const value = records.get(offset);
    if (value === undefined && !mayBeGone(offset)) fail(`has nothing at ${offset}`);
    if (value !== undefined && value !== of.values[offset]) {
      fail(`has '${value.slice(0, 40)}' at ${offset}, sent was '${of.values[offset].slice(0, 40)}'`);
    }
  }
  return { start: log.startOffset, end: log.endOffset };
}

/**
 * Which records may be gone below `end`: those that a rewrite was asked to drop; of a compacted log those with the key of a
 * later one, which must be there itself (`records`; default: it was appended).
 */
export function goneIn(
  log: PartitionLog,
  of: Promises,
  end: number,
  droppedCount: number,
  records?: ReadonlyMap<number, string>,
): (offset: number) => boolean {
  const droppable = new Set(of.droppable.slice(0, droppedCount));
  if (log.config.compaction === undefined) return (offset) => droppable.has(offset);
  const newest = new Map<string, number>();
  for (let offset = 0; offset < end; offset++) {
    if (records === undefined || records.has(offset)) newest.set(keyOf(of.values[offset]), offset);
  }
  return (offset) => (newest.get(keyOf(of.values[offset])) ?? -1) > offset;
}

/** Sends each producer's newest batches again: they must be recognised, and what follows them must be taken. */
export function checkRetries(log: PartitionLog, at: PromisesAt): void {
  const kept = at.of.sent.slice(0, at.sent).filter(({ baseOffset }) => baseOffset < log.endOffset);
  const byProducer = new Map<number, SentBatch[]>();
  for (const batch of kept) {
    const batches = byProducer.get(batch.producerId) ?? [];
    batches.push(batch);
    byProducer.set(batch.producerId, batches);
  }
  for (const [producerId, batches] of byProducer) {
    const last = batches[batches.length - 1];
    // Below the start only the producer's newest batch is sure to be remembered.
    if (last.baseOffset < log.startOffset) continue;
    for (const batch of batches.slice(-5)) {
      if (batch.baseOffset < log.startOffset) continue;
      const again = log.append(producerBatch(batch), { origin: 'client', urgency: 'lazy' });
      if (again.isDuplicate && again.baseOffset === batch.baseOffset) continue;
      throw new BrokenPromise(
        `${log.name}: producer ${producerId} sent sequence ${batch.sequence} (offset ${batch.baseOffset}) again; it was taken as offset ${again.baseOffset}`,
      );
    }
    const next = { ...last, sequence: last.sequence + last.values.length };
    const taken = log.append(producerBatch(next), { origin: 'client', urgency: 'lazy' });
    if (taken.isDuplicate)
      throw new BrokenPromise(`${log.name}: producer ${producerId}: a new batch was taken for a duplicate`);
  }
}

export function producerBatch({ producerId, sequence, values }: Omit<SentBatch, 'baseOffset'>): Buffer {
  return buildBatch(recordsOf(values), { producerId, producerEpoch: 0, baseSequence: sequence });
}

export function plainBatch(values: readonly string[]): Buffer {
  return buildBatch(recordsOf(values));
}

const recordsOf = (values: readonly string[]) =>
  values.map((value) => ({ key: Buffer.from(keyOf(value)), value: Buffer.from(value), timestamp: 1000 }));

/** One of a few: values begin with `topic:seed:number:`. */
function keyOf(value: string): string {
  return `key ${Number(/(\d+):\.*$/.exec(value)?.[1]) % 6}`;
}

/** All values from `offset` to the high watermark by offset; throws if offsets do not rise. */
export async function readRecordsOf(log: PartitionLog, offset: number, maxBytes: number): Promise<Map<number, string>> {
  const values = new Map<number, string>();
  const end = log.highWatermark;
  for (let next = offset; next < end; ) {
    const before = next;
    const bytes = await bytesOf(await log.read(next, maxBytes, { wholeFirst: true }));
    for (let at = 0; at + BATCH_OVERHEAD_BYTES <= bytes.length; at += batchSizeBytes(bytes, at)) {
      if (at + batchSizeBytes(bytes, at) > bytes.length) break;
      if (batchBaseOffset(bytes, at) < next && next !== before) throw new Error(`${log.name}: goes back at ${next}`);
      for (const record of readRecords(bytes, at)) {
        if (record.offset < next || record.offset >= end) continue;
        values.set(record.offset, String(record.value));
        next = record.offset + 1;
      }
      next = Math.max(next, Math.min(end, batchLastOffset(bytes, at) + 1));
    }
    if (next > before) continue;
    // After the last record that is left, nothing comes any more.
    if (bytes.length === 0) break;
    throw new Error(`${log.name}: nothing at ${next}, high watermark ${end}`);
  }
  return values;
}

async function bytesOf(slice: LogSlice): Promise<Buffer> {
  try {
    const pieces: Buffer[] = [];
    for (const chunk of slice.chunks) {
      if (chunk instanceof Uint8Array) pieces.push(Buffer.from(chunk));
      else {
        const piece = Buffer.alloc(chunk.length);
        // The one kind of splice that there is.
        await (chunk as FileSplice).read(piece, 0);
        pieces.push(piece);
      }
    }
    return Buffer.concat(pieces);
  } finally {
    slice.release();
  }
}
