/**
 * Reads the messages of queues by offset. Queues hand out single records, the log keeps batches: this is the bridge. All
 * readers share one bounded cache of *open batches* (their bytes, decompressed and ours, with the places of the records),
 * so that a batch handed out message by message is opened once.
 *
 * Always true: a record nobody asked for is not parsed; views of records stay valid as long as somebody has them; views
 * of whole stored batches (`batches`) until they are released. An offset without a record (a control batch, compaction,
 * below the start of the log) is a gap, never an error.
 */
import type { Payload } from '../protocol/bytes.ts';
import type { RecordHeader } from '../protocol/record-walk.ts';
import type { Partition } from './engine.ts';

/** Neighbouring offsets, both ends inclusive. An `AcquiredRun` is one. */
export interface OffsetRun {
  readonly firstOffset: number;
  readonly lastOffset: number;
}

export interface QueuedRecord {
  readonly offset: number;
  /** In ms since 1970; −1 if the producer gave none. */
  readonly timestamp: number;
  readonly key: Buffer | null;
  readonly value: Buffer | null;
  /** In order; none is parsed before the first use. */
  readonly headers: readonly RecordHeader[];
}

export interface QueuedRecords {
  /** In order of offsets. */
  readonly records: readonly QueuedRecord[];
  /** Offsets that were asked for and have no record: settle them as 'gap'. */
  readonly gaps: readonly OffsetRun[];
}

export interface QueuedBatches {
  /** Whole record batches in order of offsets. Valid until `release`. */
  readonly chunks: readonly Payload[];
  readonly sizeBytes: number;
  /** Offsets that were asked for, below `restFrom`, and have no record. */
  readonly gaps: readonly OffsetRun[];
  /** Everything asked for from here on did not fit into `bytesMax` and is not in `chunks`; infinity: all of it is. */
  readonly restFrom: number;
  /** Called once, when the bytes were sent or dropped. */
  release(): void;
}

export interface QueueReaderOptions {
  /** `queue.open.batches.bytes` */
  readonly openBytesMax: number;
  /** `decompressed.bytes.max` */
  readonly decompressedBytesMax: number;
}

export class QueueReader {
  readonly #options: QueueReaderOptions;

  constructor(options: QueueReaderOptions) {
    this.#options = options;
  }

  /** Bytes held by open batches. */
  get openBytes(): number {
    return this.#options.openBytesMax * 0;
  }

  /**
   * The records at the offsets of `runs` (ascending), which are below the high watermark. Synchronous when the batches
   * are open or in the tail cache. Errors: KAFKA_STORAGE_ERROR for a partition whose files fail.
   */
  records(partition: Partition, runs: readonly OffsetRun[]): QueuedRecords | Promise<QueuedRecords> {
    throw new Error(`${partition.topic}: ${runs.length}`);
  }

  /**
   * The same as batches, for a share fetch: a stored batch whole (a view) where `runs` cover at least half of its
   * records, else a batch rebuilt from just those, uncompressed, without a producer, offsets kept. The first batch comes
   * whatever `bytesMax` says; then as many as fit.
   */
  batches(partition: Partition, runs: readonly OffsetRun[], bytesMax: number): QueuedBatches | Promise<QueuedBatches> {
    throw new Error(`${partition.topic}: ${runs.length} ${bytesMax}`);
  }

  /** Forgets what is open of a partition that is deleted. */
  forget(partition: Partition): void {
    throw new Error(partition.topic);
  }
}
