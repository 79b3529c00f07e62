/**
 * The work of rewriting sealed segments, in steps of a megabyte that keep nothing between them: each is a function of
 * paths, positions and shared buffers, and runs in a worker (`jobs.ts`) or inline.
 *
 *     mapKeys      which is the newest record of each key
 *     filterPiece  batches of a segment, filtered, at the end of a `.cleaned` file
 *     sealCleaned  that file read once more and checked, its indexes written, everything synced
 *
 * What a segment is made of is in `batch-filter.ts`; when it takes the place of the old ones, in `segment-swap.ts`.
 * Nothing here is part of the log: a step that fails leaves a file that is removed.
 */
import {
  batchBaseOffset,
  batchLastOffset,
  batchAttributes,
  batchMaxTimestamp,
  batchSizeBytes,
  checkStoredBatch,
  openRecords,
  ATTRIBUTE_CONTROL,
  batchRecordCount,
  BATCH_OVERHEAD_BYTES,
} from '../protocol/record-batch.ts';
import {
  type BatchRules,
  filterBatch,
  indexOf,
  KeyFilter,
  OffsetFilter,
  OPENED_BYTES_MAX,
  type RecordFilter,
} from './batch-filter.ts';
import { type Disk, type DiskFile, writeAll } from './disk.ts';
import { OffsetIndex, TimeIndex } from './index-file.ts';
import { KeyMap } from './key-map.ts';

/** Ending of a file that is being written; whatever bears it at a start is a leftover. */
export const CLEANED_SUFFIX = '.cleaned';
/** Read by one step; a larger batch is read whole. */
export const STEP_BYTES = 1024 * 1024;
const POSITION_MAX = 2 ** 31 - 1;

export type FailureKind = 'source' | 'content' | 'target';

/** Why a step was given up: the old segment could not be read, it does not hold what it must, or the new file failed. */
export class RewriteFailure extends Error {
  readonly kind: FailureKind;
  /** Of the system, as ENOSPC; undefined if it was none. */
  readonly code: string | undefined;

  constructor(kind: FailureKind, message: string, code?: string) {
    super(message);
    this.kind = kind;
    this.code = code;
  }

  static from(kind: FailureKind, error: unknown): RewriteFailure {
    if (error instanceof RewriteFailure) return error;
    const code = error instanceof Error && 'code' in error && typeof error.code === 'string' ? error.code : undefined;
    return new RewriteFailure(kind, error instanceof Error ? error.message : String(error), code);
  }
}

/** A piece of a segment file. */
interface SourcePiece {
  path: string;
  position: number;
  /** End of what is written. */
  endPosition: number;
}

export interface MapKeysInput {
  source: SourcePiece;
  /** Records below are not looked at. */
  fromOffset: number;
  map: SharedArrayBuffer;
}

export interface MapKeysOutput {
  /** Where the next step begins. */
  position: number;
  /** After the last batch whose keys are all in the map; −1 if there was none. */
  mappedTo: number;
  isFull: boolean;
}

/** Notes the offsets of keys until the piece ends or the map is full. */
export async function mapKeys(disk: Disk, { source, fromOffset, map }: MapKeysInput): Promise<MapKeysOutput> {
  const keys = new KeyMap(map);
  const output: MapKeysOutput = { position: source.position, mappedTo: -1, isFull: false };
  const { bytes, wholeBytes } = await readPiece(disk, source);
  for (let at = 0; at < wholeBytes; at += batchSizeBytes(bytes, at)) {
    const nextOffset = batchLastOffset(bytes, at) + 1;
    if (nextOffset > fromOffset && !mapBatch(bytes, at, fromOffset, keys)) return { ...output, isFull: true };
    output.position = source.position + at + batchSizeBytes(bytes, at);
    output.mappedTo = nextOffset;
  }
  return output;
}

/** False if the map is full before the last record. */
function mapBatch(bytes: Buffer, position: number, fromOffset: number, keys: KeyMap): boolean {
  if ((batchAttributes(bytes, position) & ATTRIBUTE_CONTROL) !== 0) return true;
  const baseOffset = batchBaseOffset(bytes, position);
  const record = openBatch(bytes, position);
  for (let left = batchRecordCount(bytes, position); left > 0; left--) {
    record.next();
    const offset = baseOffset + record.offsetDelta;
    if (record.keySize < 0 || offset < fromOffset) continue;
    if (keys.isFull) return false;
    keys.put(record.bytes.subarray(record.keyStart, record.keyStart + record.keySize), offset);
  }
  return true;
}

function openBatch(bytes: Buffer, position: number): ReturnType<typeof openRecords> {
  try {
    return openRecords(bytes, position, OPENED_BYTES_MAX);
  } catch (error) {
    throw RewriteFailure.from('content', error);
  }
}

/** What stays, in a form that a thread can be told. */
export type KeepRules =
  | { kind: 'keys'; map: SharedArrayBuffer; mappedTo: number }
  /** Between `from` and `to` only the offsets in `keep`, which rise. */
  | { kind: 'offsets'; from: number; to: number; keep: Float64Array };

export interface RewriteRules {
  keep: KeepRules;
  nowMs: number;
  /** See `BatchRules`. */
  deleteHorizonMs: number;
  /** Last offsets of the newest batches of producers, rising. */
  producerEnds: Float64Array;
}

export interface FilterPieceInput {
  source: SourcePiece;
  rules: RewriteRules;
  target: string;
  targetPosition: number;
}

export interface FilterPieceOutput {
  position: number;
  targetPosition: number;
  keptCount: number;
  droppedCount: number;
  changedBatches: number;
}

/** Appends what stays of a piece to the target. */
export async function filterPiece(disk: Disk, input: FilterPieceInput): Promise<FilterPieceOutput> {
  const { source, target, targetPosition } = input;
  const { bytes, wholeBytes } = await readPiece(disk, source);
  const rules = batchRules(input.rules);
  const output: FilterPieceOutput = {
    position: source.position + wholeBytes,
    targetPosition,
    keptCount: 0,
    droppedCount: 0,
    changedBatches: 0,
  };
  const kept: Buffer[] = [];
  for (let at = 0, sizeBytes = 0; at < wholeBytes; at += sizeBytes) {
    sizeBytes = batchSizeBytes(bytes, at);
    const filtered = filterSound(bytes, at, sizeBytes, rules);
    output.keptCount += filtered.keptCount;
    output.droppedCount += filtered.droppedCount;
    if (filtered.isChanged) output.changedBatches++;
    if (filtered.bytes === undefined) continue;
    kept.push(filtered.bytes);
    output.targetPosition += filtered.bytes.length;
  }
  if (output.targetPosition > POSITION_MAX) throw new RewriteFailure('content', `${target} would be larger than 2 GiB`);
  if (kept.length > 0) await writeTarget(disk, target, (file) => writeAll(file, kept, targetPosition));
  return output;
}

function filterSound(...batch: Parameters<typeof filterBatch>): ReturnType<typeof filterBatch> {
  try {
    return filterBatch(...batch);
  } catch (error) {
    throw RewriteFailure.from('content', error);
  }
}

function batchRules({ keep, nowMs, deleteHorizonMs, producerEnds }: RewriteRules): BatchRules {
  const filter: RecordFilter =
    keep.kind === 'keys'
      ? new KeyFilter(new KeyMap(keep.map), keep.mappedTo, nowMs)
      : new OffsetFilter(keep.from, keep.to, keep.keep);
  return {
    filter,
    deleteHorizonMs,
    isProducersLast: (lastOffset) => producerEnds[indexOf(producerEnds, lastOffset)] === lastOffset,
  };
}

export interface SealCleanedInput {
  /** Of the segment's files, without endings. */
  path: string;
  baseOffset: number;
  /** The base offset of what follows. */
  endOffset: number;
  indexIntervalBytes: number;
}

/** What is in the new segment. */
export interface CleanedSegment {
  sizeBytes: number;
  firstTimestamp: number;
  largestTimestamp: number;
  largestTimestampOffset: number;
  batchBytesMax: number;
}

/** Checks every batch of a `.cleaned` file, writes its indexes beside it, and syncs all three. */
export async function sealCleaned(disk: Disk, input: SealCleanedInput): Promise<CleanedSegment> {
  const { path, baseOffset, endOffset } = input;
  const offsets = new OffsetIndex(baseOffset);
  const times = new TimeIndex(baseOffset);
  const found: CleanedSegment = {
    sizeBytes: 0,
    firstTimestamp: -1,
    largestTimestamp: -1,
    largestTimestampOffset: baseOffset,
    batchBytesMax: 0,
  };
  let nextOffset = baseOffset;
  let sinceIndex = 0;
  await writeTarget(disk, `${path}.log${CLEANED_SUFFIX}`, async (file) => {
    const endPosition = await file.size();
    while (found.sizeBytes < endPosition) {
      const { bytes, wholeBytes } = await readBatches(file, found.sizeBytes, endPosition);
      for (let at = 0, sizeBytes = 0; at < wholeBytes; at += sizeBytes) {
        sizeBytes = batchSizeBytes(bytes, at);
        const lastOffset = batchLastOffset(bytes, at);
        if (batchBaseOffset(bytes, at) < nextOffset || lastOffset >= endOffset) {
          throw new Error(
            `${file.path}: offset ${lastOffset} at ${found.sizeBytes}, expected ${nextOffset} to ${endOffset}`,
          );
        }
        // Of a batch without records the time is that of none.
        const timestamp = batchRecordCount(bytes, at) > 0 ? batchMaxTimestamp(bytes, at) : -1;
        if (found.firstTimestamp < 0) found.firstTimestamp = timestamp;
        if (timestamp > found.largestTimestamp) {
          found.largestTimestamp = timestamp;
          found.largestTimestampOffset = lastOffset;
        }
        if (sinceIndex > input.indexIntervalBytes) {
          offsets.add(lastOffset, found.sizeBytes);
          times.add(found.largestTimestamp, found.largestTimestampOffset);
          sinceIndex = 0;
        }
        sinceIndex += sizeBytes;
        found.batchBytesMax = Math.max(found.batchBytesMax, sizeBytes);
        found.sizeBytes += sizeBytes;
        nextOffset = lastOffset + 1;
      }
    }
    times.add(found.largestTimestamp, found.largestTimestampOffset);
    await file.sync();
  });
  for (const [ending, entries] of [
    ['.index', offsets.bytes],
    ['.timeindex', times.bytes],
  ] as const) {
    await writeTarget(disk, path + ending + CLEANED_SUFFIX, async (file) => {
      if (entries.length > 0) await writeAll(file, [entries], 0);
      await file.sync();
    });
  }
  return found;
}

/** Whole sound batches of a segment, from the piece's position on. */
async function readPiece(disk: Disk, source: SourcePiece): Promise<{ bytes: Buffer; wholeBytes: number }> {
  try {
    const file = await disk.open(source.path, 'read');
    try {
      return await readBatches(file, source.position, source.endPosition);
    } finally {
      await file.close();
    }
  } catch (error) {
    throw RewriteFailure.from('source', error);
  }
}

async function readBatches(
  file: DiskFile,
  position: number,
  endPosition: number,
): Promise<{ bytes: Buffer; wholeBytes: number }> {
  let size = Math.min(STEP_BYTES, endPosition - position);
  for (;;) {
    const bytes = Buffer.allocUnsafe(size);
    const readBytes = await file.read(bytes, position);
    let at = 0;
    for (let found = 0; ; at += found) {
      found = checkStoredBatch(bytes, at, readBytes - at);
      if (found < 0) break;
    }
    if (at > 0) return { bytes, wholeBytes: at };
    const declared = readBytes >= BATCH_OVERHEAD_BYTES ? batchSizeBytes(bytes, 0) : 0;
    if (declared <= size || declared > endPosition - position) {
      throw new RewriteFailure('content', `${file.path}: no sound batch at ${position}`);
    }
    size = declared;
  }
}

async function writeTarget(disk: Disk, path: string, write: (file: DiskFile) => Promise<void>): Promise<void> {
  try {
    const file = await disk.open(path, 'write');
    try {
      await write(file);
    } finally {
      await file.close();
    }
  } catch (error) {
    throw RewriteFailure.from('target', error);
  }
}
