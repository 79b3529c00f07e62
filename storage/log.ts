/**
 * Value types of the log: what callers hand in and get back. The Engine seam (`broker/engine.ts`) re-exports them, so
 * that storage can name them without knowing the broker.
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
  /** With `compact` in cleanup.policy. */
  compaction?: CompactionConfig | undefined;
}

export interface CompactionConfig {
  /** min.cleanable.dirty.ratio */
  minDirtyRatio: number;
  /** min.compaction.lag.ms */
  minLagMs: number;
  /** max.compaction.lag.ms */
  maxLagMs: number;
  /** delete.retention.ms */
  deleteRetentionMs: number;
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
  /** Default: now. What is appended to many partitions at once has one time: then it is the same everywhere. */
  appendTimeMs?: number;
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

export interface ReadOptions {
  wholeFirst: boolean;
  limitOffset?: number;
}
