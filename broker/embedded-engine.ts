/**
 * The Engine on the embedded log: one process, one data folder, no other service. Translates options into settings; the
 * work is in `storage/log-engine.ts`. Called by `broker/main.ts` and the simulation.
 */
import type { Clock, Random } from '../storage/clock.ts';
import { DataDir } from '../storage/data-dir.ts';
import type { Disk } from '../storage/disk.ts';
import type { CompactionCounters } from '../storage/compactor.ts';
import type { Jobs } from '../storage/jobs.ts';
import { type LogCounters, LogEngine } from '../storage/log-engine.ts';
import type { Options } from './config.ts';
import type { Engine } from './engine.ts';

export interface EmbeddedEngineOptions {
  disk: Disk;
  clock: Clock;
  random: Random;
  /** Default: inline. */
  jobs?: Jobs;
  /** Path of the data folder; made if it is not there. */
  dataDir: string;
  options: Options;
  /** Cut tails, fenced partitions and the like, in words. */
  warn: (message: string) => void;
}

export interface EmbeddedEngine extends Engine {
  readonly dataDir: DataDir;
  readonly counters: LogCounters;
  readonly compactor: { readonly counters: CompactionCounters };
  /** Compacts the logs that are dirty enough; called by a timer of the broker. */
  compact(): Promise<void>;
  /** Called with the duration of every group: from the start of its write to its end. */
  onGroupMs(callback: (ms: number) => void): void;
}

/**
 * Locks the data folder, recovers what it holds, and is ready.
 * @throws MillraceError DATA_DIR_LOCKED, DATA_DIR_FORMAT, DATA_DIR_CORRUPT, INVALID_OPTION
 */
export async function openEmbeddedEngine(from: EmbeddedEngineOptions): Promise<EmbeddedEngine> {
  const { disk, clock, random, jobs, options, warn } = from;
  const dataDir = await DataDir.open(disk, from.dataDir, { random, nodeId: options['node.id'] });
  try {
    return await LogEngine.open({
      disk,
      clock,
      random,
      dataDir,
      settings: settingsOf(options),
      warn,
      ...(jobs === undefined ? {} : { jobs }),
    });
  } catch (error) {
    await dataDir.close();
    throw error;
  }
}

function settingsOf(options: Options) {
  return {
    isSynced: options['log.flush'] === 'synced',
    flushLingerMs: options['log.flush.linger.ms'],
    journalFileBytes: options['journal.file.bytes'],
    journalFiles: options['journal.files'],
    journalEntryBytes: options['journal.entry.bytes'],
    journalGroupBytes: options['journal.group.bytes'],
    journalDirectBytes: options['journal.direct.bytes'],
    journalSegmentBytes: options['journal.segment.bytes'],
    journalSegmentLingerMs: options['journal.segment.linger.ms'],
    journalCheckpointBytes: options['journal.checkpoint.bytes'],
    tailCacheBytes: options['log.tail.cache.bytes'],
    unwrittenBytesMax: options['log.unwritten.bytes.max'],
    openFilesMax: options['log.open.files.max'],
    // These two may change while the broker runs.
    get diskReserveBytes() {
      return options['log.disk.reserve.bytes'];
    },
    get producerExpirationMs() {
      return options['producer.id.expiration.ms'];
    },
    transientBytesMax: options['log.transient.bytes.max'],
    producersMax: options['producer.states.per.partition.max'],
    compactor: {
      get dedupeBufferBytes() {
        return options['log.cleaner.dedupe.buffer.size'];
      },
      get bytesPerSecond() {
        return options['log.cleaner.io.max.bytes.per.second'];
      },
    },
  };
}
