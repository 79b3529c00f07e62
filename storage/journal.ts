/**
 * The shared write-ahead log: one record a group, written with one call to a zero-filled file that is opened O_DSYNC
 * (`log.flush: synced`). A record counts whole or not at all; it is the only atomic write. Layout in docs/formats.md.
 *
 *   file    512-byte header: magic, format, flush mode, salt of this use, first sequence, CRC; then records
 *   record  40-byte header: magic, header size, payload size, sequence, salt, leader epoch, part count, CRC32C of header and
 *           table; table of parts; payload: the batches of the append parts, in their order
 *
 * The CRC does not cover the payload. Each append part carries a fingerprint of its batches' own CRCs instead, so that the
 * payload is not read again here; `readJournal` checks those CRCs and the fingerprint.
 *
 * Files are used in turn. A record belongs to the chain if its sequence is the next one and its salt that of its file; a
 * file continues the chain if its first sequence is the next one. Reading stops at the first thing that does not fit.
 */
import assert from 'node:assert';
import { readInt64, writeInt64 } from '../protocol/bytes.ts';
import { crc32c } from '../protocol/crc32c.ts';
import { MillraceError } from '../protocol/errors.ts';
import {
  batchBaseOffset,
  batchCrc,
  batchLastOffset,
  batchLeaderEpoch,
  batchSizeBytes,
  checkStoredBatch,
} from '../protocol/record-batch.ts';
import type { Random } from './clock.ts';
import { type Disk, type DiskFile, writeAll, writeAllNow } from './disk.ts';
import { type Run, runDigest } from './tail-cache.ts';

const FILE_MAGIC = 0x4d_4c_4a_46; // MLJF
const RECORD_MAGIC = 0x4d_4c_4a_52; // MLJR
const FORMAT = 1;
const FILE_HEADER_BYTES = 512;
const RECORD_HEADER_BYTES = 40;
const SALT_BYTES = 8;
/** Where in a record its CRC stands: the last field of the header. */
const CRC_AT = 36;
const KEY_BYTES = 20;
/** kind, key, base offset, size, batch count, digest */
const APPEND_PART_BYTES = 1 + KEY_BYTES + 8 + 4 + 4 + 4;
/** A file is filled with zeros once it holds this much, this far ahead of its end, in these steps, a little beyond the end. */
const FILL_FROM_BYTES = 64 * 1024;
const FILL_AHEAD_BYTES = 8 * 1024 * 1024;
const FILL_STEP_BYTES = 8 * 1024 * 1024;
const FILL_HEADROOM_BYTES = 2 * 1024 * 1024;
/** A recovery skips this many sequences, more than a file can hold records: what an unread rest of the old chain says never fits the new one. */
export const SEQUENCE_GAP = 2 ** 25;

export const partKinds = {
  append: 1,
  /** As append; the first batch starts a new segment. */
  appendToNewSegment: 2,
  start: 3,
  delete: 4,
  /** First mention of a partition: its topic's name. The folder is found by its `partition.metadata`. */
  open: 5,
  /** How far its newest segment is known to be synced. */
  mark: 6,
} as const;

/** A partition as the journal names it: 16 bytes of topic id and 4 of index, made once. */
export type PartitionKey = Buffer;

/** A part other than an append. */
export type OtherPart =
  | { kind: 'start'; key: PartitionKey; offset: number }
  | { kind: 'delete'; key: PartitionKey }
  | { kind: 'open'; key: PartitionKey; topic: string }
  | { kind: 'mark'; key: PartitionKey; segmentBase: number; syncedBytes: number };

/** An append part as the writer takes it. */
export interface AppendPart {
  key: PartitionKey;
  run: Run;
}

/** A part as it is read back. `key` is hex text: topic id and index. */
export type ReadPart =
  | { kind: 'append'; key: string; baseOffset: number; nextOffset: number; startsSegment: boolean; bytes: Buffer }
  | { kind: 'start'; key: string; offset: number }
  | { kind: 'delete'; key: string }
  | { kind: 'open'; key: string; topic: string }
  | { kind: 'mark'; key: string; segmentBase: number; syncedBytes: number };

export interface JournalOptions {
  disk: Disk;
  random: Random;
  /** Folder of the journal files. */
  folder: string;
  /** `journal.files` */
  fileCount: number;
  /** `journal.file.bytes` */
  fileBytes: number;
  isSynced: boolean;
  leaderEpoch: number;
  firstSequence: number;
  /** Filling a file with zeros failed. */
  onError: (error: unknown) => void;
}

interface JournalFile {
  readonly file: DiskFile;
  /** Zero-filled or written up to here: writes below change no metadata. */
  allocatedBytes: number;
  /** Largest sequence in it, −1 if none that counts. */
  lastSequence: number;
}

const fileName = (index: number): string => `journal-${String(index).padStart(2, '0')}`;

export class Journal {
  readonly #options: JournalOptions;
  readonly #files: JournalFile[] = [];
  readonly #salt = Buffer.alloc(SALT_BYTES);
  #current = 0;
  #position = 0;
  #nextSequence: number;
  /** Records below this sequence are not needed any more. */
  #releasedSequence: number;
  #header = Buffer.alloc(4096);
  #headerSize = 0;
  #filling: Promise<void> | undefined;
  #fillFrom = 0;
  #isClosed = false;
  /** Bytes of records written since the start. */
  writtenBytes = 0;

  private constructor(options: JournalOptions) {
    this.#options = options;
    this.#nextSequence = options.firstSequence;
    this.#releasedSequence = options.firstSequence;
  }

  /** Opens the files for writing; what they hold is forgotten (recovery has read it). */
  static async open(options: JournalOptions): Promise<Journal> {
    const journal = new Journal(options);
    const { disk, folder, fileCount, isSynced } = options;
    for (let index = 0; index < fileCount; index++) {
      const file = await disk.open(`${folder}/${fileName(index)}`, isSynced ? 'synced' : 'write');
      journal.#files.push({ file, allocatedBytes: await file.size(), lastSequence: -1 });
    }
    await disk.syncDirectory(folder);
    journal.#use(0);
    return journal;
  }

  get nextSequence(): number {
    return this.#nextSequence;
  }

  /** Records below `sequence` are covered by a checkpoint: their files may be reused. */
  release(sequence: number): void {
    assert(sequence >= this.#releasedSequence);
    assert(sequence <= this.#nextSequence);
    this.#releasedSequence = sequence;
  }

  /** Whether a record of `sizeBytes` can be written without a checkpoint first. */
  hasRoomFor(sizeBytes: number): boolean {
    return this.#fits(sizeBytes) || this.#isReleased(this.#files[this.#next()]);
  }

  /** Bytes that the record of these parts takes. */
  static recordBytes(appends: readonly AppendPart[], others: readonly OtherPart[]): number {
    let size = RECORD_HEADER_BYTES + appends.length * APPEND_PART_BYTES;
    for (const { run } of appends) size += run.sizeBytes;
    for (const part of others) size += otherPartBytes(part);
    return size;
  }

  /** Writes one record; it is durable when the promise resolves (`isSynced`). One at a time. Answers its size. */
  async write(appends: readonly AppendPart[], others: readonly OtherPart[]): Promise<number> {
    const size = Journal.recordBytes(appends, others);
    // The zeros of a fill under way must not land on top of this record.
    if (this.#filling !== undefined && this.#endAfter(size) > this.#fillFrom) await this.#filling;
    const buffers = this.#lay(appends, others, size);
    const { file } = this.#files[this.#current];
    await writeAll(file, buffers, this.#position);
    return this.#advance(buffers);
  }

  /** As `write`, on the calling thread: for small records with `log.flush: written`. */
  writeNow(appends: readonly AppendPart[], others: readonly OtherPart[]): number {
    assert(!this.#options.isSynced);
    const buffers = this.#lay(appends, others, Journal.recordBytes(appends, others));
    writeAllNow(this.#files[this.#current].file, buffers, this.#position);
    return this.#advance(buffers);
  }

  async close(): Promise<void> {
    this.#isClosed = true;
    await this.#filling;
    for (const { file } of this.#files) await file.close();
  }

  /** Chooses the file and lays the record out; a file header that is not written yet goes with the first record. */
  #lay(appends: readonly AppendPart[], others: readonly OtherPart[], size: number): Uint8Array[] {
    if (!this.#fits(size)) {
      const next = this.#next();
      assert(this.#isReleased(this.#files[next]), 'the next journal file is still needed');
      this.#use(next);
    }
    this.#headerSize = 0;
    if (this.#position === 0) this.#layFileHeader();
    return this.#layRecord(appends, others);
  }

  #advance(buffers: readonly Uint8Array[]): number {
    let size = 0;
    for (const buffer of buffers) size += buffer.length;
    const current = this.#files[this.#current];
    current.lastSequence = this.#nextSequence;
    this.#position += size;
    current.allocatedBytes = Math.max(current.allocatedBytes, this.#position);
    this.#nextSequence++;
    this.writtenBytes += size;
    this.#fillAhead();
    return size;
  }

  #endAfter(size: number): number {
    return this.#fits(size) ? this.#position + FILE_HEADER_BYTES + size : 0;
  }
  #fits(size: number): boolean {
    // A record larger than a file gets one of its own.
    if (this.#position === 0) return true;
    return this.#position + size <= this.#options.fileBytes;
  }
  #next(): number {
    return (this.#current + 1) % this.#files.length;
  }
  #isReleased(file: JournalFile): boolean {
    return file.lastSequence < this.#releasedSequence;
  }

  #use(index: number): void {
    this.#current = index;
    this.#position = 0;
    this.#files[index].lastSequence = -1;
    this.#options.random.fill(this.#salt);
    this.#fillAhead();
  }

  /** Keeps the file zero-filled ahead of its end, in the background: an overwrite syncs faster than an extension. */
  #fillAhead(): void {
    const current = this.#files[this.#current];
    const { fileBytes, disk, isSynced, onError } = this.#options;
    if (!isSynced || this.#filling !== undefined || this.#isClosed) return;
    // A broker that hardly writes does not fill its disk with zeros.
    if (this.#position < FILL_FROM_BYTES) return;
    if (current.allocatedBytes - this.#position >= FILL_AHEAD_BYTES) return;
    const from = Math.max(current.allocatedBytes, this.#position + FILL_HEADROOM_BYTES);
    const size = Math.min(FILL_STEP_BYTES, fileBytes - from);
    if (size <= 0) return;
    this.#fillFrom = from;
    this.#filling = fillWithZeros(disk, current.file.path, from, size)
      .then(() => {
        current.allocatedBytes = Math.max(current.allocatedBytes, from + size);
      }, onError)
      .finally(() => {
        this.#filling = undefined;
      });
  }

  #layFileHeader(): void {
    const bytes = this.#room(FILE_HEADER_BYTES);
    const at = 0;
    bytes.fill(0, at, FILE_HEADER_BYTES);
    bytes.writeUInt32BE(FILE_MAGIC, at);
    bytes.writeUInt16BE(FORMAT, at + 4);
    bytes.writeUInt8(this.#options.isSynced ? 1 : 0, at + 6);
    this.#salt.copy(bytes, at + 8);
    writeInt64(bytes, at + 16, this.#nextSequence);
    bytes.writeUInt32BE(crc32c(bytes, at, 24), at + 24);
    this.#headerSize = FILE_HEADER_BYTES;
  }

  #layRecord(appends: readonly AppendPart[], others: readonly OtherPart[]): Uint8Array[] {
    const start = this.#headerSize;
    let tableBytes = appends.length * APPEND_PART_BYTES;
    for (const part of others) tableBytes += otherPartBytes(part);
    const header = this.#room(start + RECORD_HEADER_BYTES + tableBytes);
    let at = start + RECORD_HEADER_BYTES;
    let payloadBytes = 0;
    for (const part of others) at = writeOtherPart(header, at, part);
    for (const { key, run } of appends) {
      at = writeAppendPart(header, at, key, run);
      payloadBytes += run.sizeBytes;
    }
    header.writeUInt32BE(RECORD_MAGIC, start);
    header.writeUInt32BE(RECORD_HEADER_BYTES + tableBytes, start + 4);
    header.writeUInt32BE(payloadBytes, start + 8);
    writeInt64(header, start + 12, this.#nextSequence);
    this.#salt.copy(header, start + 20);
    header.writeInt32BE(this.#options.leaderEpoch, start + 28);
    header.writeUInt32BE(appends.length + others.length, start + 32);
    let crc = crc32c(header, start, CRC_AT);
    crc = crc32c(header, start + RECORD_HEADER_BYTES, tableBytes, crc);
    header.writeUInt32BE(crc, start + CRC_AT);
    const buffers: Uint8Array[] = [header.subarray(0, at)];
    gather(appends, buffers);
    return buffers;
  }

  #room(size: number): Buffer {
    if (this.#header.length < size) {
      const grown = Buffer.alloc(Math.max(size, this.#header.length * 2));
      this.#header.copy(grown, 0, 0, this.#headerSize);
      this.#header = grown;
    }
    return this.#header;
  }
}

/** The bytes of the runs in order, neighbours in a slab as one piece. */
function gather(appends: readonly AppendPart[], buffers: Uint8Array[]): void {
  for (let index = 0; index < appends.length; ) {
    const { slab, position } = appends[index].run;
    let end = position;
    for (; index < appends.length; index++) {
      const { run } = appends[index];
      if (run.slab !== slab || run.position !== end) break;
      end += run.sizeBytes;
    }
    buffers.push(slab.buffer.subarray(position, end));
  }
}

function writeAppendPart(header: Buffer, position: number, key: PartitionKey, run: Run): number {
  let at = header.writeUInt8(run.startsSegment ? partKinds.appendToNewSegment : partKinds.append, position);
  header.set(key, at);
  at += KEY_BYTES;
  writeInt64(header, at, run.baseOffset);
  at = header.writeUInt32BE(run.sizeBytes, at + 8);
  at = header.writeUInt32BE(run.batchCount, at);
  return header.writeUInt32BE(run.digest, at);
}

function otherPartBytes(part: OtherPart): number {
  switch (part.kind) {
    case 'start':
      return 1 + KEY_BYTES + 8;
    case 'delete':
      return 1 + KEY_BYTES;
    case 'open':
      return 1 + KEY_BYTES + 2 + Buffer.byteLength(part.topic);
    case 'mark':
      return 1 + KEY_BYTES + 16;
  }
}

function writeOtherPart(header: Buffer, position: number, part: OtherPart): number {
  let at = header.writeUInt8(partKinds[part.kind], position);
  header.set(part.key, at);
  at += KEY_BYTES;
  switch (part.kind) {
    case 'start':
      writeInt64(header, at, part.offset);
      return at + 8;
    case 'delete':
      return at;
    case 'open':
      at = header.writeUInt16BE(Buffer.byteLength(part.topic), at);
      return at + header.write(part.topic, at);
    case 'mark':
      writeInt64(header, at, part.segmentBase);
      writeInt64(header, at + 8, part.syncedBytes);
      return at + 16;
  }
}

const zeros = Buffer.alloc(1024 * 1024);

async function fillWithZeros(disk: Disk, path: string, position: number, size: number): Promise<void> {
  const file = await disk.open(path, 'write');
  try {
    for (let at = 0; at < size; at += zeros.length) {
      await writeAll(file, [zeros.subarray(0, Math.min(zeros.length, size - at))], position + at);
    }
    await file.sync();
  } finally {
    await file.close();
  }
}

/** One record of the chain. Its bytes are valid until the next one is asked for. */
export interface JournalRecord {
  sequence: number;
  isSynced: boolean;
  parts: ReadPart[];
}

interface FileStart {
  path: string;
  salt: Buffer;
  firstSequence: number;
  isSynced: boolean;
}

/** What the journal folder holds: where its chain begins, and the largest sequence that a file header names. */
export interface JournalChain {
  files: FileStart[];
  largestFirstSequence: number;
}

/**
 * Reads the headers of all journal files.
 * @throws MillraceError DATA_DIR_FORMAT
 */
export async function openChain(disk: Disk, folder: string): Promise<JournalChain> {
  const files: FileStart[] = [];
  for (const name of await disk.list(folder)) {
    if (!name.startsWith('journal-')) continue;
    const path = `${folder}/${name}`;
    const file = await disk.open(path, 'write');
    try {
      // After a kill the last record may be in the page cache only: what is done because of it must not outlive it.
      await file.sync();
      const bytes = Buffer.alloc(FILE_HEADER_BYTES);
      const readBytes = await file.read(bytes, 0);
      const start = readBytes === FILE_HEADER_BYTES ? parseFileHeader(path, bytes) : undefined;
      if (start !== undefined) files.push(start);
    } finally {
      await file.close();
    }
  }
  files.sort((a, b) => a.firstSequence - b.firstSequence);
  return { files, largestFirstSequence: files.at(-1)?.firstSequence ?? 0 };
}

function parseFileHeader(path: string, bytes: Buffer): FileStart | undefined {
  if (bytes.readUInt32BE(0) !== FILE_MAGIC || bytes.readUInt32BE(24) !== crc32c(bytes, 0, 24)) return undefined;
  const format = bytes.readUInt16BE(4);
  // Passing over it would lose what it holds.
  if (format !== FORMAT) throw new MillraceError('DATA_DIR_FORMAT', `${path} has format ${format}, expected ${FORMAT}`);
  return {
    path,
    salt: Buffer.from(bytes.subarray(8, 16)),
    firstSequence: readInt64(bytes, 16),
    isSynced: bytes[6] === 1,
  };
}

/**
 * All records of the chain from `sequence` on, in order, each checked completely. A second reading may end at
 * `checkedSequence`, which the first has found to be the last: then payloads are not checked again.
 */
export async function* readJournal(
  disk: Disk,
  chain: JournalChain,
  sequence: number,
  checkedSequence?: number,
): AsyncGenerator<JournalRecord> {
  let next = sequence;
  let start = chain.files.findLast((file) => file.firstSequence <= sequence);
  while (start !== undefined) {
    const file = await disk.open(start.path, 'read');
    try {
      const window = new FileWindow(file, await file.size());
      let expected = start.firstSequence;
      for (let at = FILE_HEADER_BYTES; ; ) {
        if (checkedSequence !== undefined && expected > checkedSequence) return;
        const record = await readRecord(window, at, start, expected, checkedSequence === undefined);
        if (record === undefined) break;
        at += record.sizeBytes;
        expected++;
        if (record.record.sequence < next) continue;
        next = record.record.sequence + 1;
        yield record.record;
      }
      if (expected < next) return;
    } finally {
      await file.close();
    }
    const before: FileStart = start;
    start = chain.files.find((candidate) => candidate !== before && candidate.firstSequence === next);
  }
}

/** A sliding view of a file: whole records are asked for, few reads are made. */
class FileWindow {
  readonly #file: DiskFile;
  readonly #fileBytes: number;
  #buffer = Buffer.alloc(0);
  #start = 0;

  constructor(file: DiskFile, fileBytes: number) {
    this.#file = file;
    this.#fileBytes = fileBytes;
  }

  /** A view of `size` bytes at `position`; undefined if the file ends before. */
  async view(position: number, size: number): Promise<Buffer | undefined> {
    if (position + size > this.#fileBytes) return undefined;
    if (position < this.#start || position + size > this.#start + this.#buffer.length) {
      const wanted = Math.min(Math.max(size, WINDOW_BYTES), this.#fileBytes - position);
      const bytes = Buffer.allocUnsafe(wanted);
      const readBytes = await this.#file.read(bytes, position);
      this.#buffer = bytes.subarray(0, readBytes);
      this.#start = position;
      if (readBytes < size) return undefined;
    }
    const at = position - this.#start;
    return this.#buffer.subarray(at, at + size);
  }
}

const WINDOW_BYTES = 4 * 1024 * 1024;

async function readRecord(
  window: FileWindow,
  position: number,
  start: FileStart,
  sequence: number,
  isChecking: boolean,
): Promise<{ record: JournalRecord; sizeBytes: number } | undefined> {
  const head = await window.view(position, RECORD_HEADER_BYTES);
  if (head === undefined || head.readUInt32BE(0) !== RECORD_MAGIC) return undefined;
  const headerBytes = head.readUInt32BE(4);
  const sizeBytes = headerBytes + head.readUInt32BE(8);
  if (headerBytes < RECORD_HEADER_BYTES) return undefined;
  if (!head.subarray(20, 28).equals(start.salt)) return undefined;
  const table = await window.view(position, headerBytes);
  if (table === undefined) return undefined;
  let crc = crc32c(table, 0, CRC_AT);
  crc = crc32c(table, RECORD_HEADER_BYTES, headerBytes - RECORD_HEADER_BYTES, crc);
  // The CRC holds from here on: what follows was written like this.
  if (crc !== table.readUInt32BE(CRC_AT) || readInt64(table, 12) !== sequence) return undefined;
  const bytes = await window.view(position, sizeBytes);
  if (bytes === undefined) return undefined;
  const parts = readParts(bytes, headerBytes, isChecking);
  return parts && { record: { sequence, isSynced: start.isSynced, parts }, sizeBytes };
}

/** The parts of a record whose header CRC is right; undefined if a batch is not what the table says. */
function readParts(bytes: Buffer, headerBytes: number, isChecking: boolean): ReadPart[] | undefined {
  const parts: ReadPart[] = [];
  const leaderEpoch = bytes.readInt32BE(28);
  const count = bytes.readUInt32BE(32);
  let at = RECORD_HEADER_BYTES;
  let payloadAt = headerBytes;
  for (let index = 0; index < count; index++) {
    const kind = bytes[at];
    const key = bytes.toString('hex', at + 1, at + 1 + KEY_BYTES);
    at += 1 + KEY_BYTES;
    switch (kind) {
      case partKinds.append:
      case partKinds.appendToNewSegment: {
        const baseOffset = readInt64(bytes, at);
        const payload = bytes.subarray(payloadAt, payloadAt + bytes.readUInt32BE(at + 8));
        const batchCount = bytes.readUInt32BE(at + 12);
        const nextOffset = isChecking
          ? checkPayload(payload, baseOffset, leaderEpoch, batchCount, bytes.readUInt32BE(at + 16))
          : endOf(payload, baseOffset);
        if (nextOffset < 0) return undefined;
        const startsSegment = kind === partKinds.appendToNewSegment;
        parts.push({ kind: 'append', key, baseOffset, nextOffset, startsSegment, bytes: payload });
        payloadAt += payload.length;
        at += APPEND_PART_BYTES - 1 - KEY_BYTES;
        break;
      }
      case partKinds.start:
        parts.push({ kind: 'start', key, offset: readInt64(bytes, at) });
        at += 8;
        break;
      case partKinds.delete:
        parts.push({ kind: 'delete', key });
        break;
      case partKinds.open: {
        const topicEnd = at + 2 + bytes.readUInt16BE(at);
        parts.push({ kind: 'open', key, topic: bytes.toString('utf8', at + 2, topicEnd) });
        at = topicEnd;
        break;
      }
      case partKinds.mark:
        parts.push({
          kind: 'mark',
          key,
          segmentBase: readInt64(bytes, at),
          syncedBytes: readInt64(bytes, at + 8),
        });
        at += 16;
        break;
      default:
        assert.fail(`journal part of kind ${kind}`);
    }
  }
  assert(at === headerBytes);
  return parts;
}

/** The offset after the batches of an append part, −1 if they are not exactly those that were written. */
function checkPayload(
  payload: Buffer,
  baseOffset: number,
  leaderEpoch: number,
  batchCount: number,
  expectedDigest: number,
): number {
  let offset = baseOffset;
  let digest = 0;
  let count = 0;
  for (let at = 0; at < payload.length; count++) {
    const size = checkStoredBatch(payload, at, payload.length - at);
    if (size < 0) return -1;
    if (batchBaseOffset(payload, at) !== offset || batchLeaderEpoch(payload, at) !== leaderEpoch) return -1;
    digest = runDigest(digest, batchCrc(payload, at));
    offset = batchLastOffset(payload, at) + 1;
    at += size;
  }
  return count === batchCount && digest === expectedDigest ? offset : -1;
}

/** The offset after the batches of a payload that was checked before. */
function endOf(payload: Buffer, baseOffset: number): number {
  let offset = baseOffset;
  for (let at = 0; at < payload.length; at += batchSizeBytes(payload, at)) offset = batchLastOffset(payload, at) + 1;
  return offset;
}

/** Hex text of a partition key, as `ReadPart` has it. */
export function keyText(key: PartitionKey): string {
  return key.toString('hex');
}

/** The key of a partition: topic id and index. */
export function partitionKey(topicId: string, index: number): PartitionKey {
  const key = Buffer.alloc(KEY_BYTES);
  const written = key.write(topicId.replaceAll('-', ''), 0, 16, 'hex');
  assert(written === 16, `topic id ${topicId} is not a UUID`);
  key.writeUInt32BE(index, 16);
  return key;
}
