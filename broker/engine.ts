/**
 * The Engine seam: what doors and coordinators see of the log. Two implementations are meant: the embedded log
 * (`broker/embedded-engine.ts` on `storage/log-engine.ts`) and, later, an existing Kafka cluster.
 *
 * The order of things is one number: every append, start move and deletion takes a `Position` when it is made, is
 * visible to later checks at once, and is durable when `durablePosition` has reached it. Answers wait for that.
 * Synchronous calls never wait; what may have to load something first is a promise or has a `prepare`.
 */
import type { RewriteRequest, RewriteResult } from '../storage/compactor.ts';
import type {
  Appended,
  AppendOptions,
  LogConfig,
  LogSlice,
  OffsetAndTime,
  PartitionSpec,
  Position,
  ReadOptions,
} from '../storage/log.ts';

export type { RewriteRequest, RewriteResult } from '../storage/compactor.ts';
export type {
  Appended,
  AppendOptions,
  FileSplice,
  LogConfig,
  LogSlice,
  OffsetAndTime,
  PartitionSpec,
  Position,
  ReadOptions,
} from '../storage/log.ts';

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
  /** In memory only (`Engine.openTransient`). */
  readonly isTransient?: boolean;
  /** Retention takes nothing at or above what this answers; undefined: no limit. */
  retentionLimit?: () => number;

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

/** One piece of an atomic commit. */
export type CommitPart =
  | { kind: 'append'; partition: Partition; batch: Buffer }
  /** Moves the start offset up (DeleteRecords, state logs that rewrote themselves). */
  | { kind: 'start'; partition: Partition; offset: number }
  /** Ends the partition: later reads and appends fail, its files go once the commit is durable. */
  | { kind: 'delete'; partition: Partition };

export interface Engine {
  readonly durablePosition: Position;
  /** Raised by every start and durable before anything is served: the leader epoch of all partitions. */
  readonly leaderEpoch: number;
  /** The newest position taken. */
  readonly lastPosition: Position;
  /** All parts or none, whatever happens, in one journal record. Bounded by `journal.entry.bytes`. Allowed below the disk reserve. */
  commit(parts: readonly CommitPart[], urgency: 'waited' | 'lazy'): { position: Position; appended: Appended[] };
  /** Calls back (later in this turn or in another, never inside the call unless already durable) when `position` is durable; in order of positions. */
  whenDurable(position: Position, callback: () => void): void;
  /** At the end of a turn: what somebody waits for is written now, while the caller goes on. */
  startNow(): void;
  /** The partition with this id, its kept content if the data folder has any, else empty. Its folder is made at the first append. */
  openPartition(spec: PartitionSpec): Partition;
  /**
   * A new, empty partition that does not outlive the process. What is appended is as durable as it gets at once; what
   * `retentionLimit` allows goes by itself.
   */
  openTransient(spec: PartitionSpec): Partition;
  /** Partitions of the data folder that nobody opened since the start belong to deleted topics: their files go. Called once, after the metadata is loaded. */
  discardUnopened(): Promise<void>;

  /** False while unwritten bytes are at their limit: readers of sockets pause until `whenRoom`. */
  readonly hasRoom: boolean;
  whenRoom(callback: () => void): void;
  /** True while free disk space is below the reserve: client appends are refused, the broker's own go on. */
  readonly isFull: boolean;
  /** Applies retention and rolls by age everywhere; called by a timer of the broker. */
  retain(): Promise<void>;
  /**
   * Drops records of sealed segments: between `from` and `to` all but those at the offsets in `keep`, which rise. Offsets stay as
   * they are; reads go on. Resolves when it is done as far as it can be now (`rewrittenTo`); a crash may bring records back.
   */
  rewrite(partition: Partition, request: RewriteRequest): Promise<RewriteResult>;
  /** Called at most once: a write or sync failed, nothing more will be answered, the process must end. */
  onFatal(callback: (error: Error) => void): void;
  /** Syncs and checkpoints everything, then closes. Further appends fail with STOPPING. */
  close(): Promise<void>;
}
