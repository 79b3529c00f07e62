/** What all partitions of an engine share, as one of them sees it. `LogEngine` is it. */
import type { MillraceError } from '../protocol/errors.ts';
import type { Clock } from './clock.ts';
import type { Committer } from './committer.ts';
import type { DataDir } from './data-dir.ts';
import type { OpenFiles } from './open-files.ts';
import type { PartitionLog } from './partition-log.ts';
import type { SegmentWriter } from './segment-writer.ts';
import type { TailCache } from './tail-cache.ts';

export interface LogContext {
  readonly clock: Clock;
  readonly files: OpenFiles;
  readonly cache: TailCache;
  readonly committer: Committer;
  readonly writer: SegmentWriter;
  readonly dataDir: DataDir;
  readonly leaderEpoch: number;
  /** May change while the broker runs. */
  readonly producerExpirationMs: number;
  readonly producersMax: number;
  /** `log.flush: synced` */
  readonly isSynced: boolean;
  /** Below the disk reserve: clients' batches are refused. */
  readonly isFull: boolean;
  /** Set once nothing may be appended any more. */
  readonly stopped: MillraceError | undefined;
  /** Counts the checkpoints begun: a direct write is marked once in each. */
  readonly checkpointNumber: number;
  /** It has changed since its piece of the checkpoint was made. */
  markDirty(log: PartitionLog): void;
  /** A checkpoint, begun now or after the one under way. */
  requestCheckpoint(): void;
  fatal(error: unknown): void;
  warn(message: string): void;
}
