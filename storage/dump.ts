/**
 * Looks into segments without a broker: lists, prints and verifies what a data folder, a partition folder or one `.log`
 * file holds, ours or Apache Kafka's. Only reads; whoever calls holds the shared lock, or accepts that the end of a log in
 * use may be on its way ("unfinished").
 *
 * A path is a data folder, the folder of a partition, or a `.log` file. Everything is streamed: memory is bounded by the
 * largest batch and the indexes of one segment.
 */
import { asBuffer, readInt64 } from '../protocol/bytes.ts';
import { codecs } from '../protocol/compression.ts';
import { crc32c } from '../protocol/crc32c.ts';
import {
  ATTRIBUTE_COMPRESSION,
  ATTRIBUTE_CONTROL,
  ATTRIBUTE_TIMESTAMP_TYPE,
  ATTRIBUTE_TRANSACTIONAL,
  BATCH_OVERHEAD_BYTES,
  batchAttributes,
  batchBaseOffset,
  batchBaseSequence,
  batchBaseTimestamp,
  batchCrc,
  batchLastOffset,
  batchLeaderEpoch,
  batchMagic,
  batchMaxTimestamp,
  batchProducerEpoch,
  batchProducerId,
  batchRecordCount,
  batchSizeBytes,
  checkStoredBatch,
  type DecodedRecord,
  readRecords,
} from '../protocol/record-batch.ts';
import { readCheckpoint } from './checkpoint.ts';
import type { Disk, DiskFile } from './disk.ts';
import { LEADER_EPOCH_FILE, LeaderEpochs } from './leader-epochs.ts';
import { decodeSnapshot } from './producer-state.ts';
import { offsetFileName, type SegmentState } from './segment.ts';
import { folderOf } from './snapshot.ts';

/** Something that is not as it must be. */
export interface Problem {
  kind: 'problem';
  /** `unfinished`: only the end of the newest segment, which recovery completes or cuts. */
  severity: 'damage' | 'unfinished';
  file: string;
  /** Byte at which it was found. */
  position: number;
  expected: string;
  found: string;
}

export interface SegmentSummary {
  kind: 'segment';
  /** Name of the folder: topic and partition. */
  folder: string;
  file: string;
  baseOffset: number;
  sizeBytes: number;
  batchCount: number;
  recordCount: number;
  /** −1 in an empty segment, as are all below. */
  firstOffset: number;
  lastOffset: number;
  /** Smallest base timestamp and largest timestamp of its batches, ms since 1970. */
  firstTimestamp: number;
  maxTimestamp: number;
  modifiedMs: number;
  /** Bytes after the last good batch; 0 in a sound segment. */
  badBytes: number;
}

export interface BatchSummary {
  kind: 'batch';
  file: string;
  position: number;
  sizeBytes: number;
  baseOffset: number;
  lastOffset: number;
  recordCount: number;
  leaderEpoch: number;
  /** 'none', 'gzip' …, or the number of an unknown one. */
  codec: string;
  timestampType: 'CreateTime' | 'LogAppendTime';
  baseTimestamp: number;
  maxTimestamp: number;
  producerId: number;
  producerEpoch: number;
  baseSequence: number;
  isTransactional: boolean;
  isControl: boolean;
  crc: number;
}

export interface RecordEntry extends DecodedRecord {
  kind: 'record';
  file: string;
  /** Of its batch. */
  position: number;
}

/** One entry per segment, partition by partition, oldest first. Reads every batch header and checksum. */
export async function* listSegments(disk: Disk, path: string): AsyncGenerator<SegmentSummary> {
  for (const file of await segmentFiles(disk, path)) {
    const stat = await disk.stat(file);
    if (stat === undefined) continue; // Retention was faster.
    const summary: SegmentSummary = {
      kind: 'segment',
      folder: baseName(folderOf(file)),
      file,
      baseOffset: offsetOf(file),
      sizeBytes: stat.sizeBytes,
      batchCount: 0,
      recordCount: 0,
      firstOffset: -1,
      lastOffset: -1,
      firstTimestamp: -1,
      maxTimestamp: -1,
      modifiedMs: stat.modifiedMs,
      badBytes: 0,
    };
    let end = 0;
    for await (const { bytes, position, sizeBytes } of goodBatches(disk, file)) {
      const baseTimestamp = batchBaseTimestamp(bytes, 0);
      if (summary.batchCount === 0) {
        summary.firstOffset = batchBaseOffset(bytes, 0);
        summary.firstTimestamp = baseTimestamp;
      }
      summary.batchCount++;
      summary.recordCount += batchRecordCount(bytes, 0);
      summary.lastOffset = batchLastOffset(bytes, 0);
      summary.firstTimestamp = Math.min(summary.firstTimestamp, baseTimestamp);
      summary.maxTimestamp = Math.max(summary.maxTimestamp, batchMaxTimestamp(bytes, 0));
      end = position + sizeBytes;
    }
    summary.badBytes = Math.max(0, stat.sizeBytes - end);
    yield summary;
  }
}

/** The header of every batch; ends with a `Problem` where a batch is not sound. */
export async function* dumpBatches(disk: Disk, path: string): AsyncGenerator<BatchSummary | Problem> {
  for (const file of await segmentFiles(disk, path)) {
    let end = 0;
    for await (const { bytes, position, sizeBytes } of goodBatches(disk, file)) {
      yield batchSummary(file, bytes, position);
      end = position + sizeBytes;
    }
    const problem = await problemAfter(disk, file, end, true);
    if (problem !== undefined) yield problem;
  }
}

/** Every record, opened and decompressed; ends with a `Problem` where a batch is not sound. */
export async function* dumpRecords(disk: Disk, path: string): AsyncGenerator<RecordEntry | Problem> {
  for (const file of await segmentFiles(disk, path)) {
    let end = 0;
    for await (const { bytes, position, sizeBytes } of goodBatches(disk, file)) {
      end = position + sizeBytes;
      let records: DecodedRecord[];
      try {
        records = readRecords(bytes, 0);
      } catch (error) {
        yield unreadable(file, position, 'records that can be read', error);
        continue;
      }
      for (const record of records) yield { kind: 'record', file, position, ...record };
    }
    const problem = await problemAfter(disk, file, end, true);
    if (problem !== undefined) yield problem;
  }
}

export interface VerifyOptions {
  /** Also opens and decompresses every batch and walks its records. Default false. */
  deep?: boolean;
}

/**
 * Everything that is wrong: checksums, offsets that are not dense (in a segment and from one to the next; segments that the
 * checkpoint names may have lost records to a rewrite), index entries
 * that point to no batch, time index entries that do not rise or name no batch, producer snapshots and epoch files that
 * cannot be read. Nothing is yielded for a sound path.
 */
export async function* verify(disk: Disk, path: string, options: VerifyOptions = {}): AsyncGenerator<Problem> {
  const files = await segmentFiles(disk, path);
  const sealed = await sealedSegments(disk, path);
  let expectedOffset = -1;
  for (const [index, file] of files.entries()) {
    const folder = folderOf(file);
    const isFirst = index === 0 || folderOf(files[index - 1]) !== folder;
    const isLast = index === files.length - 1 || folderOf(files[index + 1]) !== folder;
    if (isFirst) {
      expectedOffset = offsetOf(file);
      if (!path.endsWith('.log')) yield* verifyStateFiles(disk, folder);
    }
    if (offsetOf(file) !== expectedOffset) {
      yield damage(file, 0, `a segment that starts at offset ${expectedOffset}`, `${offsetOf(file)}`);
    }
    expectedOffset = yield* verifySegment(disk, file, isLast, options.deep ?? false, sealed.get(file));
  }
}

/** By file, what the checkpoint says of segments that get no more bytes. Empty if there is none, or not one of ours. */
async function sealedSegments(disk: Disk, path: string): Promise<Map<string, SegmentState>> {
  const found = new Map<string, SegmentState>();
  // The data folder is the path, the one around it, or the one around that.
  for (let folder = path; ; folder = folderOf(folder)) {
    const checkpoint = await readCheckpoint(disk, `${folder}/checkpoint`).catch(() => undefined);
    for (const partition of checkpoint?.partitions ?? []) {
      for (const segment of partition.segments.slice(0, -1)) {
        found.set(`${folder}/${partition.folder}/${offsetFileName(segment.baseOffset)}.log`, segment);
      }
    }
    const isOutside = folder.length < path.length && !PARTITION_FOLDER.test(folder);
    if (checkpoint !== undefined || isOutside || folderOf(folder) === folder) return found;
  }
}

/** Answers the offset at which the next one starts. */
async function* verifySegment(
  disk: Disk,
  file: string,
  isNewest: boolean,
  isDeep: boolean,
  known: SegmentState | undefined,
): AsyncGenerator<Problem, number> {
  const isSparse = known?.isRewritten === true;
  const baseOffset = offsetOf(file);
  const offsets = new IndexCheck(`${file.slice(0, -4)}.index`, await readIndex(disk, file, 'index'), 8);
  const times = new IndexCheck(`${file.slice(0, -4)}.timeindex`, await readIndex(disk, file, 'timeindex'), 12);
  let nextOffset = baseOffset;
  let largestTimestamp = -1;
  let end = 0;
  for await (const { bytes, position, sizeBytes } of goodBatches(disk, file)) {
    const first = batchBaseOffset(bytes, 0);
    if (isSparse ? first < nextOffset : first !== nextOffset) {
      yield damage(file, position, `base offset ${nextOffset}`, `${first}`);
    }
    const last = batchLastOffset(bytes, 0);
    const countMax = last - first + 1;
    const count = batchRecordCount(bytes, 0);
    const timestamp = count > 0 ? batchMaxTimestamp(bytes, 0) : -1;
    if (isSparse ? count > countMax : count !== countMax) {
      yield damage(file, position, `${countMax} records`, `${count}`);
    }
    if (isDeep) yield* verifyRecords(file, bytes, position, isSparse);
    yield* verifyOffsetEntries(offsets, baseOffset, position, last);
    yield* verifyTimeEntries(times, baseOffset, last, timestamp, largestTimestamp);
    largestTimestamp = Math.max(largestTimestamp, timestamp);
    nextOffset = last + 1;
    end = position + sizeBytes;
  }
  const problem = await problemAfter(disk, file, end, isNewest);
  if (problem !== undefined) yield problem;
  // An entry for what is not there is damage, save where the segment itself could not be read to its end.
  if (problem === undefined) {
    for (const check of [offsets, times]) {
      if (check.hasNext) yield damage(check.file, check.position, `an entry for a batch below byte ${end}`, check.text);
    }
  }
  return isSparse ? Math.max(nextOffset, known.writtenOffset) : nextOffset;
}

function* verifyOffsetEntries(
  check: IndexCheck,
  baseOffset: number,
  position: number,
  last: number,
): Generator<Problem> {
  while (check.hasNext && check.int32(4) <= position) {
    const isRight = check.int32(4) === position && baseOffset + check.int32(0) === last;
    if (!isRight) yield damage(check.file, check.position, `offset ${last} at byte ${position}`, check.text);
    check.next();
  }
}

function* verifyTimeEntries(
  check: IndexCheck,
  baseOffset: number,
  last: number,
  timestamp: number,
  largestBefore: number,
): Generator<Problem> {
  while (check.hasNext && baseOffset + check.int32(8) <= last) {
    const offset = baseOffset + check.int32(8);
    const isRight = offset === last && check.timestamp === timestamp && timestamp >= largestBefore;
    // Kafka closes a segment's time index with an entry that may repeat the last one.
    const isRepeated = check.isRepeated;
    if (!isRight && !isRepeated) {
      const largest = Math.max(timestamp, largestBefore);
      yield damage(check.file, check.position, `largest timestamp so far, ${largest}, at offset ${last}`, check.text);
    }
    check.next();
  }
}

function* verifyRecords(file: string, bytes: Buffer, position: number, isSparse: boolean): Generator<Problem> {
  try {
    let next = batchBaseOffset(bytes, 0);
    for (const { offset } of readRecords(bytes, 0)) {
      const isRight = isSparse ? offset >= next && offset <= batchLastOffset(bytes, 0) : offset === next;
      if (!isRight) {
        yield damage(file, position, `record offset ${next}`, `${offset}`);
        return;
      }
      next = offset + 1;
    }
  } catch (error) {
    yield unreadable(file, position, 'records that can be read', error);
  }
}

async function* verifyStateFiles(disk: Disk, folder: string): AsyncGenerator<Problem> {
  for (const name of await disk.list(folder)) {
    const file = `${folder}/${name}`;
    const isSnapshot = /^[0-9]{20}\.snapshot$/.test(name);
    if (!isSnapshot && name !== LEADER_EPOCH_FILE) continue;
    const bytes = await disk.readFile(file);
    if (bytes === undefined) continue;
    try {
      if (!isSnapshot) LeaderEpochs.decode(bytes, file);
      else {
        for (const { producerId, batch } of decodeSnapshot(bytes, file)) {
          if (batch.lastOffset < offsetOf(file)) continue;
          const found = `${batch.lastOffset} of producer ${producerId}`;
          yield damage(file, 0, `batches below offset ${offsetOf(file)}`, found);
        }
      }
    } catch (error) {
      const problem = unreadable(file, 0, 'a file that can be read', error);
      // Of our epochs the checkpoint has the copy that counts; the file is written anew at the next one.
      if (!isSnapshot) problem.severity = 'unfinished';
      yield problem;
    }
  }
}

/** Entries of an index file, one after the other. */
class IndexCheck {
  readonly file: string;
  readonly #bytes: Buffer;
  readonly #entryBytes: number;
  readonly #endBytes: number;
  position = 0;

  constructor(file: string, bytes: Buffer, entryBytes: number) {
    this.file = file;
    this.#bytes = bytes;
    this.#entryBytes = entryBytes;
    // Apache Kafka preallocates the index of the newest segment: zeros after the last entry.
    let end = bytes.length - (bytes.length % entryBytes);
    while (end > 0 && bytes.readInt32BE(end - 4) === 0 && isZero(bytes, end - entryBytes, end)) end -= entryBytes;
    this.#endBytes = end;
  }

  get hasNext(): boolean {
    return this.position < this.#endBytes;
  }
  next(): void {
    this.position += this.#entryBytes;
  }
  int32(at: number): number {
    return this.#bytes.readInt32BE(this.position + at);
  }
  get timestamp(): number {
    return Number(this.#bytes.readBigInt64BE(this.position));
  }
  get isRepeated(): boolean {
    const { position } = this;
    const size = this.#entryBytes;
    return (
      position >= size && this.#bytes.compare(this.#bytes, position - size, position, position, position + size) === 0
    );
  }
  /** The entry as a person reads it. */
  get text(): string {
    if (this.#entryBytes === 8) return `relative offset ${this.int32(0)} at byte ${this.int32(4)}`;
    return `timestamp ${this.timestamp} at relative offset ${this.int32(8)}`;
  }
}

function isZero(bytes: Buffer, start: number, end: number): boolean {
  for (let at = start; at < end; at++) if (bytes[at] !== 0) return false;
  return true;
}

async function readIndex(disk: Disk, file: string, ending: 'index' | 'timeindex'): Promise<Buffer> {
  return asBuffer((await disk.readFile(`${file.slice(0, -4)}.${ending}`)) ?? new Uint8Array(0));
}

interface FoundBatch {
  /** Exactly the batch; valid until the next one is asked for. */
  bytes: Buffer;
  position: number;
  sizeBytes: number;
}

const WINDOW_BYTES = 1024 * 1024;

/** The batches of a segment from its beginning, as long as they are whole and their checksums right. */
async function* goodBatches(disk: Disk, path: string): AsyncGenerator<FoundBatch> {
  const file = await openIfThere(disk, path);
  if (file === undefined) return;
  try {
    let window = Buffer.allocUnsafe(WINDOW_BYTES);
    let start = 0;
    for (;;) {
      const readBytes = await file.read(window, start);
      let at = 0;
      for (;;) {
        const sizeBytes = checkStoredBatch(window, at, readBytes - at);
        if (sizeBytes < 0) break;
        yield { bytes: window.subarray(at, at + sizeBytes), position: start + at, sizeBytes };
        at += sizeBytes;
      }
      start += at;
      if (at > 0 && readBytes === window.length) continue;
      const declared = readBytes - at >= BATCH_OVERHEAD_BYTES ? batchSizeBytes(window, at) : 0;
      const isLarger = at === 0 && declared > window.length && start + declared <= (await file.size());
      if (!isLarger) return;
      window = Buffer.allocUnsafe(declared);
    }
  } finally {
    await file.close();
  }
}

async function openIfThere(disk: Disk, path: string): Promise<DiskFile | undefined> {
  try {
    return await disk.open(path, 'read');
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return undefined;
    throw error;
  }
}

/** What is wrong with the bytes from `position` on; undefined if there are none. */
async function problemAfter(
  disk: Disk,
  path: string,
  position: number,
  isNewest: boolean,
): Promise<Problem | undefined> {
  const file = await openIfThere(disk, path);
  if (file === undefined) return undefined;
  try {
    const leftBytes = (await file.size()) - position;
    if (leftBytes <= 0) return undefined;
    const head = Buffer.alloc(BATCH_OVERHEAD_BYTES);
    const readBytes = await file.read(head, position);
    const problem = damage(path, position, 'a whole batch', `${leftBytes} bytes`);
    const declared = readBytes < 12 ? 0 : batchSizeBytes(head, 0);
    const isCut = readBytes < BATCH_OVERHEAD_BYTES || declared > leftBytes || isZero(head, 0, BATCH_OVERHEAD_BYTES);
    if (isCut) {
      problem.found = readBytes < BATCH_OVERHEAD_BYTES ? `${leftBytes} bytes` : `${leftBytes} bytes of ${declared}`;
    } else if (declared < BATCH_OVERHEAD_BYTES || batchMagic(head, 0) !== 2) {
      problem.expected = 'a batch of magic 2';
      problem.found = `magic ${batchMagic(head, 0)}, size ${declared}`;
    } else {
      const bytes = Buffer.allocUnsafe(declared);
      await file.read(bytes, position);
      problem.expected = `CRC32C ${hex(crc32c(bytes, 21, declared - 21))}`;
      problem.found = hex(batchCrc(bytes, 0));
    }
    // Only the newest segment is written to, and a write that was cut off is what its end may be. A good batch right
    // after a bad one says that it is not the end.
    const follows = isNewest && !isCut && (await isFollowed(file, position + declared));
    if (isNewest && !follows) problem.severity = 'unfinished';
    return problem;
  } finally {
    await file.close();
  }
}

async function isFollowed(file: DiskFile, position: number): Promise<boolean> {
  const bytes = Buffer.allocUnsafe(WINDOW_BYTES);
  return checkStoredBatch(bytes, 0, await file.read(bytes, position)) > 0;
}

function batchSummary(file: string, bytes: Buffer, position: number): BatchSummary {
  const attributes = batchAttributes(bytes, 0);
  const codec = attributes & ATTRIBUTE_COMPRESSION;
  return {
    kind: 'batch',
    file,
    position,
    sizeBytes: bytes.length,
    baseOffset: batchBaseOffset(bytes, 0),
    lastOffset: batchLastOffset(bytes, 0),
    recordCount: batchRecordCount(bytes, 0),
    leaderEpoch: batchLeaderEpoch(bytes, 0),
    codec: codecs[codec] ?? `${codec}`,
    timestampType: (attributes & ATTRIBUTE_TIMESTAMP_TYPE) === 0 ? 'CreateTime' : 'LogAppendTime',
    baseTimestamp: readInt64(bytes, 27),
    maxTimestamp: batchMaxTimestamp(bytes, 0),
    producerId: batchProducerId(bytes, 0),
    producerEpoch: batchProducerEpoch(bytes, 0),
    baseSequence: batchBaseSequence(bytes, 0),
    isTransactional: (attributes & ATTRIBUTE_TRANSACTIONAL) !== 0,
    isControl: (attributes & ATTRIBUTE_CONTROL) !== 0,
    crc: batchCrc(bytes, 0),
  };
}

const SEGMENT_FILE = /^[0-9]{20}\.log$/;
const PARTITION_FOLDER = /-(0|[1-9][0-9]{0,9})$/;

/** The `.log` files that `path` means, partition by partition, oldest first. */
async function segmentFiles(disk: Disk, path: string): Promise<string[]> {
  if (path.endsWith('.log')) return [path];
  const folder = path.length > 1 && path.endsWith('/') ? path.slice(0, -1) : path;
  const names = await disk.list(folder);
  const own = names.filter((name) => SEGMENT_FILE.test(name)).map((name) => `${folder}/${name}`);
  if (own.length > 0) return own;
  const files: string[] = [];
  for (const name of names.filter((each) => PARTITION_FOLDER.test(each)).sort(byTopicAndPartition)) {
    for (const file of await disk.list(`${folder}/${name}`)) {
      if (SEGMENT_FILE.test(file)) files.push(`${folder}/${name}/${file}`);
    }
  }
  return files;
}

function byTopicAndPartition(a: string, b: string): number {
  const cut = (name: string): [string, number] => {
    const at = name.lastIndexOf('-');
    return [name.slice(0, at), Number(name.slice(at + 1))];
  };
  const [topicA, partitionA] = cut(a);
  const [topicB, partitionB] = cut(b);
  if (topicA !== topicB) return topicA < topicB ? -1 : 1;
  return partitionA - partitionB;
}

function damage(file: string, position: number, expected: string, found: string): Problem {
  return { kind: 'problem', severity: 'damage', file, position, expected, found };
}

function unreadable(file: string, position: number, expected: string, error: unknown): Problem {
  return damage(file, position, expected, error instanceof Error ? error.message : String(error));
}

function offsetOf(file: string): number {
  return Number(baseName(file).slice(0, 20));
}

function baseName(path: string): string {
  return path.slice(path.lastIndexOf('/') + 1);
}

function hex(crc: number): string {
  return `0x${crc.toString(16).padStart(8, '0')}`;
}
