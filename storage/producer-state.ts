/**
 * What a partition knows of its idempotent producers: their epoch, their last five batches, an open transaction. Pure and
 * synchronous. Checks see every append that was applied, synced or not.
 *
 * The rules are Apache Kafka's (KIP-98, KIP-360; asked of 4.4): a batch with the sequence range and epoch of one of the
 * last five is a duplicate; an older epoch is refused; a new epoch starts at sequence 0; otherwise the sequence follows
 * the last one, 0 after 2³¹−1; a producer that is not known (its state expired, its records are gone) may start anywhere.
 *
 * On disk it is Kafka's `OFFSET.snapshot` (ProducerSnapshot.json in kafka-storage), which describes a producer by its
 * last batch. Here a producer has one entry for each of its last five, oldest first: Kafka's readers keep the last one,
 * ours keep all, so that a retry of any of them is recognised after a restart, too.
 *
 *     0 int16  version, 1        then per entry (46 bytes)
 *     2 uint32 CRC32C of 6 … end     0 int64 producer id       26 int64 timestamp
 *     6 int32  entries               8 int16 epoch             34 int32 coordinator epoch
 *                                   10 int32 last sequence     38 int64 first offset of the open transaction, −1
 *                                   14 int64 last offset
 *                                   22 int32 offset delta
 *
 * An entry without a batch (an epoch raised by a control batch) has sequence −1 and offset −1.
 */
import { readInt64, writeInt64 } from '../protocol/bytes.ts';
import { crc32c } from '../protocol/crc32c.ts';
import { MillraceError } from '../protocol/errors.ts';
import {
  ATTRIBUTE_CONTROL,
  ATTRIBUTE_TRANSACTIONAL,
  BATCH_OVERHEAD_BYTES,
  batchAttributes,
  batchBaseOffset,
  batchBaseSequence,
  batchLastOffsetDelta,
  batchMaxTimestamp,
  batchProducerEpoch,
  batchProducerId,
  batchRecordCount,
  batchSizeBytes,
} from '../protocol/record-batch.ts';
import { RecordCursor } from '../protocol/record-walk.ts';

/** As many as a producer may have in flight (`max.in.flight.requests.per.connection` with idempotence). */
const BATCHES_KEPT = 5;
const SEQUENCE_MAX = 0x7fff_ffff;
const NONE = -1;
const SNAPSHOT_VERSION = 1;
const SNAPSHOT_HEADER_BYTES = 10;
const ENTRY_BYTES = 46;

export interface ProducerStateOptions {
  /** `topic-partition`, for messages. */
  name: string;
  /** producer.id.expiration.ms: a producer that is silent for so long is forgotten; default a day. */
  expirationMs?: number;
  /** Producers known at a time; the longest silent one without an open transaction makes room. Default 100,000 (about 60 MB). */
  producersMax?: number;
}

/** A batch of the last five. */
interface BatchMark {
  lastSequence: number;
  lastOffset: number;
  /** Last minus first offset, and last minus first sequence. */
  offsetDelta: number;
  timestamp: number;
}

interface Producer {
  epoch: number;
  /** Oldest first. */
  batches: BatchMark[];
  coordinatorEpoch: number;
  /** First offset of the open transaction, −1 without. */
  transactionOffset: number;
  /** Largest timestamp of its last batch. */
  timestamp: number;
  /** By our clock, when it last appended, or when its state was loaded. */
  seenMs: number;
}

export interface DuplicateBatch {
  readonly baseOffset: number;
  readonly lastOffset: number;
  readonly timestamp: number;
}

/** As DescribeProducers answers it. */
export interface ProducerDescription {
  readonly producerId: number;
  readonly epoch: number;
  readonly lastSequence: number;
  readonly timestamp: number;
  readonly coordinatorEpoch: number;
  readonly transactionOffset: number;
}

export class ProducerState {
  readonly #name: string;
  readonly #expirationMs: number;
  readonly #producersMax: number;
  /** In the order of their last append. */
  readonly #producers = new Map<number, Producer>();

  constructor(options: ProducerStateOptions) {
    this.#name = options.name;
    this.#expirationMs = options.expirationMs ?? 86_400_000;
    this.#producersMax = options.producersMax ?? 100_000;
  }

  get count(): number {
    return this.#producers.size;
  }

  /**
   * Whether a client's batch may be appended, or which earlier one it repeats. `producerId` ≥ 0.
   * @throws MillraceError OUT_OF_ORDER_SEQUENCE_NUMBER, INVALID_PRODUCER_EPOCH
   */
  check(
    producerId: number,
    epoch: number,
    baseSequence: number,
    recordCount: number,
  ): 'append' | { duplicateOf: DuplicateBatch } {
    const producer = this.#producers.get(producerId);
    if (producer === undefined) return 'append';
    const last = producer.batches.at(-1);
    if (epoch === producer.epoch) {
      if (last !== undefined && baseSequence === sequenceAfter(last.lastSequence, 1)) return 'append';
      const duplicate = findDuplicate(producer, baseSequence, recordCount);
      if (duplicate !== undefined) return { duplicateOf: duplicate };
      // A marker has fenced the epoch below this one: the first batch of the new one starts at 0.
      const expected = last === undefined ? 0 : sequenceAfter(last.lastSequence, 1);
      if (baseSequence === expected) return 'append';
      throw this.#outOfOrder(producerId, epoch, baseSequence, `${expected} at epoch ${producer.epoch}`);
    }
    if (epoch < producer.epoch) {
      throw new MillraceError(
        'INVALID_PRODUCER_EPOCH',
        `${this.#name}: producer ${producerId} sent epoch ${epoch}, its epoch is ${producer.epoch}`,
      );
    }
    if (baseSequence === 0) return 'append';
    throw this.#outOfOrder(producerId, epoch, baseSequence, `0, as its epoch is new (was ${producer.epoch})`);
  }

  /** As `check`: the batch that a client's batch repeats; undefined if it is to be appended. */
  duplicateOf(batch: Buffer): DuplicateBatch | undefined {
    const producerId = batchProducerId(batch, 0);
    if (producerId < 0) return undefined;
    const [epoch, baseSequence] = [batchProducerEpoch(batch, 0), batchBaseSequence(batch, 0)];
    const verdict = this.check(producerId, epoch, baseSequence, batchRecordCount(batch, 0));
    return verdict === 'append' ? undefined : verdict.duplicateOf;
  }

  /**
   * Takes note of a batch that is in the log's order now, stamped with its base offset. Header bytes suffice, except for
   * control batches, which are needed whole. The way to build the state from a log: apply all batches in order.
   */
  apply(bytes: Buffer, position: number, nowMs: number): void {
    const producerId = batchProducerId(bytes, position);
    if (producerId < 0) return;
    const attributes = batchAttributes(bytes, position);
    const epoch = batchProducerEpoch(bytes, position);
    const timestamp = batchMaxTimestamp(bytes, position);
    const producer = this.#producerAt(producerId, epoch);
    producer.timestamp = timestamp;
    producer.seenMs = nowMs;
    if ((attributes & ATTRIBUTE_CONTROL) !== 0) {
      producer.transactionOffset = NONE;
      producer.coordinatorEpoch = coordinatorEpochOf(bytes, position) ?? producer.coordinatorEpoch;
      return;
    }
    const baseOffset = batchBaseOffset(bytes, position);
    const offsetDelta = batchLastOffsetDelta(bytes, position);
    const lastSequence = sequenceAfter(batchBaseSequence(bytes, position), offsetDelta);
    if (producer.batches.length === BATCHES_KEPT) producer.batches.shift();
    producer.batches.push({ lastSequence, lastOffset: baseOffset + offsetDelta, offsetDelta, timestamp });
    const isTransactional = (attributes & ATTRIBUTE_TRANSACTIONAL) !== 0;
    if (isTransactional && producer.transactionOffset === NONE) producer.transactionOffset = baseOffset;
  }

  /** Forgets who has been silent for `expirationMs`. Answers how many that were. */
  expire(nowMs: number, expirationMs = this.#expirationMs): number {
    let count = 0;
    for (const [producerId, producer] of this.#producers) {
      // In the order of their last append: the first that is too young ends the search.
      if (nowMs - producer.seenMs < expirationMs) break;
      if (producer.transactionOffset !== NONE) continue;
      this.#producers.delete(producerId);
      count++;
    }
    return count;
  }

  /** The log was cut: batches at or above `endOffset` have never been. A producer without any other is not known any more. */
  truncate(endOffset: number): void {
    for (const [producerId, producer] of this.#producers) {
      producer.batches = producer.batches.filter((batch) => batch.lastOffset < endOffset);
      if (producer.transactionOffset >= endOffset) producer.transactionOffset = NONE;
      if (producer.batches.length === 0) this.#producers.delete(producerId);
    }
  }

  clear(): void {
    this.#producers.clear();
  }

  /** First offset of the earliest open transaction, undefined if none is open. */
  firstTransactionOffset(): number | undefined {
    let first: number | undefined;
    for (const { transactionOffset } of this.#producers.values()) {
      if (transactionOffset !== NONE && (first === undefined || transactionOffset < first)) first = transactionOffset;
    }
    return first;
  }

  /** Where the newest batch of each producer ends, rising. */
  lastOffsets(): Float64Array {
    const offsets: number[] = [];
    for (const { batches } of this.#producers.values()) {
      const last = batches.at(-1);
      if (last !== undefined) offsets.push(last.lastOffset);
    }
    return Float64Array.from(offsets).sort();
  }

  *describe(): Iterable<ProducerDescription> {
    for (const [producerId, producer] of this.#producers) {
      const { epoch, timestamp, coordinatorEpoch, transactionOffset } = producer;
      const lastSequence = producer.batches.at(-1)?.lastSequence ?? NONE;
      yield { producerId, epoch, lastSequence, timestamp, coordinatorEpoch, transactionOffset };
    }
  }

  /** The content of a `.snapshot` file. */
  encode(): Buffer {
    const entries: [number, Producer, BatchMark][] = [];
    for (const [producerId, producer] of this.#producers) {
      const { timestamp } = producer;
      const none: BatchMark = { lastSequence: NONE, lastOffset: NONE, offsetDelta: 0, timestamp };
      for (const batch of producer.batches.length > 0 ? producer.batches : [none])
        entries.push([producerId, producer, batch]);
    }
    const bytes = Buffer.alloc(SNAPSHOT_HEADER_BYTES + entries.length * ENTRY_BYTES);
    bytes.writeInt16BE(SNAPSHOT_VERSION, 0);
    bytes.writeInt32BE(entries.length, 6);
    let at = SNAPSHOT_HEADER_BYTES;
    for (const [producerId, producer, batch] of entries) {
      writeInt64(bytes, at, producerId);
      bytes.writeInt16BE(producer.epoch, at + 8);
      bytes.writeInt32BE(batch.lastSequence, at + 10);
      writeInt64(bytes, at + 14, batch.lastOffset);
      bytes.writeInt32BE(batch.offsetDelta, at + 22);
      writeInt64(bytes, at + 26, batch.timestamp);
      bytes.writeInt32BE(producer.coordinatorEpoch, at + 34);
      writeInt64(bytes, at + 38, producer.transactionOffset);
      at += ENTRY_BYTES;
    }
    bytes.writeUInt32BE(crc32c(bytes, 6, bytes.length - 6), 2);
    return bytes;
  }

  /**
   * Replaces the state by that of a snapshot file.
   * @throws MillraceError DATA_DIR_CORRUPT; the state is then empty. The remedy is an older snapshot and more of the log.
   */
  load(bytes: Uint8Array, nowMs: number): void {
    this.clear();
    for (const { producerId, epoch, batch, coordinatorEpoch, transactionOffset } of decodeSnapshot(bytes, this.#name)) {
      const producer = this.#producerAt(producerId, epoch);
      if (batch.lastOffset !== NONE) producer.batches.push(batch);
      if (producer.batches.length > BATCHES_KEPT) producer.batches.shift();
      producer.coordinatorEpoch = coordinatorEpoch;
      producer.transactionOffset = transactionOffset;
      producer.timestamp = batch.timestamp;
      producer.seenMs = nowMs;
    }
  }

  /** The producer, now the youngest, at `epoch`; batches of another epoch are of no use any more. */
  #producerAt(producerId: number, epoch: number): Producer {
    let producer = this.#producers.get(producerId);
    if (producer === undefined) {
      if (this.#producers.size >= this.#producersMax) this.#makeRoom();
      producer = { epoch, batches: [], coordinatorEpoch: NONE, transactionOffset: NONE, timestamp: NONE, seenMs: 0 };
    } else {
      this.#producers.delete(producerId);
      if (producer.epoch !== epoch) {
        producer.epoch = epoch;
        producer.batches = [];
      }
    }
    this.#producers.set(producerId, producer);
    return producer;
  }

  #makeRoom(): void {
    for (const [producerId, producer] of this.#producers) {
      if (producer.transactionOffset !== NONE) continue;
      this.#producers.delete(producerId);
      return;
    }
  }

  #outOfOrder(producerId: number, epoch: number, baseSequence: number, expected: string): MillraceError {
    return new MillraceError(
      'OUT_OF_ORDER_SEQUENCE_NUMBER',
      `${this.#name}: producer ${producerId} at epoch ${epoch} sent sequence ${baseSequence}, expected ${expected}`,
    );
  }
}

/** One entry of a snapshot file, as it is stored. */
export interface SnapshotEntry {
  readonly producerId: number;
  readonly epoch: number;
  readonly batch: BatchMark;
  readonly coordinatorEpoch: number;
  readonly transactionOffset: number;
}

/**
 * The entries of a `.snapshot` file, ours or Kafka's.
 * @throws MillraceError DATA_DIR_CORRUPT
 */
export function decodeSnapshot(snapshot: Uint8Array, name: string): SnapshotEntry[] {
  const bytes = Buffer.from(snapshot.buffer, snapshot.byteOffset, snapshot.length);
  const corrupt = (expected: string, found: number): MillraceError =>
    new MillraceError('DATA_DIR_CORRUPT', `${name}: producer snapshot: expected ${expected}, found ${found}`);
  if (bytes.length < SNAPSHOT_HEADER_BYTES) throw corrupt('at least 10 bytes', bytes.length);
  const version = bytes.readInt16BE(0);
  if (version !== SNAPSHOT_VERSION) throw corrupt(`version ${SNAPSHOT_VERSION}`, version);
  const crc = crc32c(bytes, 6, bytes.length - 6);
  if (crc !== bytes.readUInt32BE(2)) throw corrupt(`CRC ${crc}`, bytes.readUInt32BE(2));
  const count = bytes.readInt32BE(6);
  const sizeBytes = SNAPSHOT_HEADER_BYTES + count * ENTRY_BYTES;
  if (count < 0 || sizeBytes !== bytes.length) throw corrupt(`${sizeBytes} bytes for ${count} entries`, bytes.length);
  const entries: SnapshotEntry[] = [];
  for (let at = SNAPSHOT_HEADER_BYTES; at < bytes.length; at += ENTRY_BYTES) {
    entries.push({
      producerId: readInt64(bytes, at),
      epoch: bytes.readInt16BE(at + 8),
      batch: {
        lastSequence: bytes.readInt32BE(at + 10),
        lastOffset: readInt64(bytes, at + 14),
        offsetDelta: bytes.readInt32BE(at + 22),
        timestamp: readInt64(bytes, at + 26),
      },
      coordinatorEpoch: bytes.readInt32BE(at + 34),
      transactionOffset: readInt64(bytes, at + 38),
    });
  }
  return entries;
}

/** Sequences run from 0 to 2³¹−1 and start again at 0. */
function sequenceAfter(sequence: number, count: number): number {
  const next = sequence + count;
  return next > SEQUENCE_MAX ? next - SEQUENCE_MAX - 1 : next;
}

function findDuplicate(producer: Producer, baseSequence: number, recordCount: number): DuplicateBatch | undefined {
  const lastSequence = sequenceAfter(baseSequence, recordCount - 1);
  for (const batch of producer.batches) {
    if (batch.lastSequence !== lastSequence || batch.offsetDelta !== recordCount - 1) continue;
    return {
      baseOffset: batch.lastOffset - batch.offsetDelta,
      lastOffset: batch.lastOffset,
      timestamp: batch.timestamp,
    };
  }
  return undefined;
}

/** From the end-of-transaction marker: value is version int16, coordinator epoch int32. Undefined if only the header is there. */
function coordinatorEpochOf(bytes: Buffer, position: number): number | undefined {
  const end = position + batchSizeBytes(bytes, position);
  if (end > bytes.length || end <= position + BATCH_OVERHEAD_BYTES) return undefined;
  const record = new RecordCursor(bytes, position + BATCH_OVERHEAD_BYTES, end);
  record.next();
  return record.valueSize >= 6 ? bytes.readInt32BE(record.valueStart + 2) : undefined;
}
