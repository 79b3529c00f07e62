/** The log on a given disk and clock, small enough that everything happens within a few batches. */
import { buildBatch, readRecords, batchSizeBytes } from '../../protocol/record-batch.ts';
import type { Clock, Random } from '../../storage/clock.ts';
import { DataDir } from '../../storage/data-dir.ts';
import type { Disk } from '../../storage/disk.ts';
import type { FileSplice, LogConfig, LogSlice } from '../../storage/log.ts';
import { LogEngine, type LogEngineSettings } from '../../storage/log-engine.ts';
import type { PartitionLog } from '../../storage/partition-log.ts';

const KIB = 1024;
const MIB = 1024 * KIB;

export const smallSettings: LogEngineSettings = {
  isSynced: true,
  flushLingerMs: 1,
  journalFileBytes: MIB,
  journalFiles: 3,
  journalEntryBytes: MIB,
  journalGroupBytes: 256 * KIB,
  journalDirectBytes: 64 * KIB,
  journalSegmentBytes: 4 * KIB,
  journalSegmentLingerMs: 20,
  journalCheckpointBytes: MIB,
  tailCacheBytes: 4 * MIB,
  unwrittenBytesMax: 2 * MIB,
  openFilesMax: 100,
  diskReserveBytes: 0,
  producerExpirationMs: 86_400_000,
  producersMax: 100_000,
  transientBytesMax: 1024 * 1024,
  compactor: { dedupeBufferBytes: 64 * KIB, bytesPerSecond: 2 ** 40 },
};

export const plainConfig: LogConfig = {
  segmentBytes: MIB,
  segmentMs: 7 * 86_400_000,
  segmentIndexBytes: 10 * MIB,
  indexIntervalBytes: 4096,
  retentionMs: -1,
  retentionBytes: -1,
  fileDeleteDelayMs: 0,
  timestampType: 'CreateTime',
  timestampBeforeMaxMs: Number.MAX_SAFE_INTEGER,
  timestampAfterMaxMs: Number.MAX_SAFE_INTEGER,
  maxMessageBytes: 2 ** 31 - 1,
};

export interface LogWorld {
  disk: Disk;
  clock: Clock;
  random: Random;
  /** Default 'data'. */
  path?: string;
  settings?: Partial<LogEngineSettings>;
  warnings?: string[];
  onFatal?: (error: Error) => void;
}

export async function openLogEngine(world: LogWorld): Promise<LogEngine> {
  const { disk, clock, random, settings = {}, warnings = [] } = world;
  const engine = await LogEngine.open({
    disk,
    clock,
    random,
    dataDir: await DataDir.open(disk, world.path ?? 'data', { random }),
    settings: { ...smallSettings, ...settings },
    warn: (message) => void warnings.push(message),
  });
  engine.onFatal(
    world.onFatal ??
      ((error) => {
        throw error;
      }),
  );
  return engine;
}

export const topicIdOf = (number: number): string => `00000000-0000-4000-8000-${String(number).padStart(12, '0')}`;

/** Partition 0 of the topic `topic-NUMBER`. */
export function openLog(engine: LogEngine, number = 1, config: Partial<LogConfig> = {}): PartitionLog {
  return engine.openPartition({
    topicId: topicIdOf(number),
    topic: `topic-${number}`,
    index: 0,
    config: { ...plainConfig, ...config },
  });
}

export const waited = { origin: 'client', urgency: 'waited' } as const;

/** One record, filled up to about `sizeBytes`. */
export function valueBatch(value: string, sizeBytes = 0, timestamp = 1000): Buffer {
  return buildBatch([{ key: null, value: Buffer.from(`${value}:`.padEnd(sizeBytes, '.')), timestamp }]);
}

export const whenDurable = (engine: LogEngine, position = engine.lastPosition): Promise<void> =>
  new Promise((resolve) => engine.whenDurable(position, resolve));

export async function sliceBytes(slice: LogSlice, pieceBytes = Number.POSITIVE_INFINITY): Promise<Buffer> {
  const pieces: Buffer[] = [];
  for (const chunk of slice.chunks) {
    if (chunk instanceof Uint8Array) pieces.push(Buffer.from(chunk));
    // A read of the log has no other splices.
    else pieces.push(await spliceBytes(chunk as FileSplice, pieceBytes));
  }
  slice.release();
  return Buffer.concat(pieces);
}

async function spliceBytes(splice: FileSplice, pieceBytes: number): Promise<Buffer> {
  const bytes = Buffer.alloc(splice.length);
  for (let at = 0; at < bytes.length; ) {
    at += await splice.read(bytes.subarray(at, Math.min(bytes.length, at + pieceBytes)), at);
  }
  return bytes;
}

/** The values (up to their first ':') of all records from `offset` to the high watermark; checks that offsets are dense. */
export async function valuesFrom(log: PartitionLog, offset: number, maxBytes = MIB): Promise<string[]> {
  const values: string[] = [];
  let next = offset;
  while (next < log.highWatermark) {
    const before = next;
    const bytes = await sliceBytes(await log.read(next, maxBytes, { wholeFirst: true }));
    for (let at = 0; at + 61 <= bytes.length; at += batchSizeBytes(bytes, at)) {
      if (at + batchSizeBytes(bytes, at) > bytes.length) break;
      for (const record of readRecords(bytes, at)) {
        if (record.offset < next) continue;
        if (record.offset !== next) throw new Error(`offset ${record.offset}, expected ${next}`);
        values.push(String(record.value).split(':')[0]);
        next++;
      }
    }
    if (next === before) throw new Error(`nothing at ${next}, high watermark ${log.highWatermark}`);
  }
  return values;
}
