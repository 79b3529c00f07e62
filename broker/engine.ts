/**
 * The Engine seam: what doors and coordinators see of the log. Two implementations are meant: the embedded log
 * (`storage/log-engine.ts`) and, later, an existing Kafka cluster.
 *
 * The order of things is one number: every append, start move and deletion takes a `Position` when it is made, is
 * visible to later checks at once, and is durable when `durablePosition` has reached it. Answers wait for that.
 * Synchronous calls never wait; what may have to load something first is a promise or has a `prepare`.
 */
import type { Payload, Splice } from '../protocol/bytes.ts';

/** Place in the engine's commit order; 0 is "durable since before the start". */
export type Position = number;

/** Settings of one partition's log; names and meaning are those of Kafka's topic configs. */
export interface LogConfig {
  /** segment.bytes */
  segmentBytes: number;
  /** segment.ms */
  segmentMs: number;
  /** segment.index.bytes */
  segmentIndexBytes: number;
  /** index.interval.bytes */
  indexIntervalBytes: number;
  /** retention.ms; −1: no limit */
  retentionMs: number;
  /** retention.bytes; −1: no limit */
  retentionBytes: number;
  /** file.delete.delay.ms */
  fileDeleteDelayMs: number;
  /** message.timestamp.type */
  timestampType: 'CreateTime' | 'LogAppendTime';
  /** message.timestamp.before.max.ms */
  timestampBeforeMaxMs: number;
  /** message.timestamp.after.max.ms */
  timestampAfterMaxMs: number;
  /** max.message.bytes */
  maxMessageBytes: number;
}

export interface PartitionSpec {
  /** UUID text; the partition is known by this and its index, never by its name. */
  topicId: string;
  /** Only for folder names and messages. */
  topic: string;
  index: number;
  config: LogConfig;
}

export interface AppendOptions {
  /**
   * `client`: timestamps are checked or stamped, producer state is checked. `internal`: the broker's own batch (state
   * logs): only stamped with offset and epoch.
   */
  origin: 'client' | 'internal';
  /** Whether anybody waits. A `lazy` append joins the next group and starts one only after `log.flush.linger.ms`. */
  urgency: 'waited' | 'lazy';
}

export interface Appended {
  baseOffset: number;
  lastOffset: number;
  /** LogAppendTime of the batch, −1 with CreateTime. */
  appendTimeMs: number;
  /** Durable when `durablePosition` reaches it; a duplicate has that of the original batch. */
  position: Position;
  isDuplicate: boolean;
}

/** Bytes found by a read: whole batches in order, the last one perhaps cut. `release` is called once, when they were sent or dropped. */
export interface LogSlice {
  readonly chunks: readonly Payload[];
  readonly sizeBytes: number;
  release(): void;
}

/** A range of a segment file, read only while it is sent. */
export interface FileSplice extends Splice {
  /** Reads the bytes from `offset` (0 … length) into `target`; rejects if the file fails, which fences the partition. */
  read(target: Uint8Array, offset: number): Promise<number>;
}

export interface OffsetAndTime {
  offset: number;
  timestamp: number;
  leaderEpoch: number;
}

/** One partition's log. Offsets: start ≤ lastStable ≤ highWatermark ≤ end. */
export interface Partition {
  readonly topicId: string;
  readonly topic: string;
  readonly index: number;
  config: LogConfig;
  readonly startOffset: number;
  /** End of what is synced (with `log.flush: written`, of what is written). Readers see nothing at or above it. */
  readonly highWatermark: number;
  readonly lastStableOffset: number;
  /** End of what was appended, synced or not. */
  readonly endOffset: number;
  readonly leaderEpoch: number;
  /** Bytes of all segments. */
  readonly sizeBytes: number;
  readonly isFenced: boolean;

  /** A promise if producer state or files must be loaded before `append`; undefined if it can be called now. */
  prepare(): Promise<void> | undefined;
  /** Copies one checked record batch into the log's order. Throws `MillraceError` (sequence, epoch, timestamp, size, KAFKA_STORAGE_ERROR when full or fenced). */
  append(batch: Buffer, options: AppendOptions): Appended;
  /**
   * Batches from the one that holds `offset`, up to `maxBytes`; with `wholeFirst` the first batch comes whole even if it is larger.
   * Nothing at or above `limitOffset` (default: the high watermark). Empty at the end. OFFSET_OUT_OF_RANGE outside start … high watermark.
   * Synchronous when the tail cache has it.
   */
  read(offset: number, maxBytes: number, options: ReadOptions): LogSlice | Promise<LogSlice>;
  /** First record with a timestamp at or after `timestamp`. */
  offsetForTime(timestamp: number): Promise<OffsetAndTime | undefined>;
  /** Record with the largest timestamp, the earliest if several. */
  offsetOfMaxTime(): Promise<OffsetAndTime | undefined>;
  /** Largest epoch ≤ `leaderEpoch` and where it ends, as OffsetForLeaderEpoch answers; epoch −1 and offset −1 if unknown. */
  endOffsetForEpoch(leaderEpoch: number): { leaderEpoch: number; endOffset: number };
  /** Epoch that was in force at `offset`. */
  epochForOffset(offset: number): number;
  /** Calls back once, when the high watermark has risen above `offset`, the partition is deleted or fenced. Returns a function that withdraws it. */
  whenAbove(offset: number, callback: () => void): () => void;
  /** Producers with state here, for DescribeProducers and metrics. */
  readonly producerCount: number;
}

export interface ReadOptions {
  wholeFirst: boolean;
  limitOffset?: number;
}

/** One piece of an atomic commit. */
export type CommitPart =
  | { kind: 'append'; partition: Partition; batch: Buffer }
  /** Moves the start offset up (DeleteRecords, state logs that rewrote themselves). */
  | { kind: 'start'; partition: Partition; offset: number }
  /** Ends the partition: later reads and appends fail, its files go once the commit is durable. */
  | { kind: 'delete'; partition: Partition };

export interface Engine {
  readonly durablePosition: Position;
  /** All parts or none, whatever happens, in one journal record. Bounded by `journal.entry.bytes`. Allowed below the disk reserve. */
  commit(parts: readonly CommitPart[], urgency: 'waited' | 'lazy'): { position: Position; appended: Appended[] };
  /** Calls back (later in this turn or in another, never inside the call unless already durable) when `position` is durable; in order of positions. */
  whenDurable(position: Position, callback: () => void): void;
  /** The partition with this id, its kept content if the data folder has any, else empty. Its folder is made at the first append. */
  openPartition(spec: PartitionSpec): Partition;
  /** Partitions of the data folder that nobody opened since the start belong to deleted topics: their files go. Called once, after the metadata is loaded. */
  discardUnopened(): Promise<void>;

  /** False while unwritten bytes are at their limit: readers of sockets pause until `whenRoom`. */
  readonly hasRoom: boolean;
  whenRoom(callback: () => void): void;
  /** True while free disk space is below the reserve: client appends are refused, the broker's own go on. */
  readonly isFull: boolean;
  /** Applies retention and rolls by age everywhere; called by a timer of the broker. */
  retain(): Promise<void>;
  /** Called at most once: a write or sync failed, nothing more will be answered, the process must end. */
  onFatal(callback: (error: Error) => void): void;
  /** Syncs and checkpoints everything, then closes. Further appends fail with STOPPING. */
  close(): Promise<void>;
}
