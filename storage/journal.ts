/**
 * The shared write-ahead log: one record a group, written with one call to a zero-filled file that is opened O_DSYNC
 * (`log.flush: synced`). A record counts whole or not at all; it is the only atomic write. Layout in docs/formats.md.
 *
 * Files are used in turn. A record belongs to the chain if its sequence is the next one and its salt that of its file; a
 * file continues the chain if it says that it does so from the next sequence on. Of the files of one process that is its
 * own first sequence; the first file of a process leaves a gap and names the sequence at which recovery has stopped, so
 * that what was not read there is never read later. Reading stops at the first thing that does not fit.
 */
import assert from 'node:assert';
import { writeInt64 } from '../protocol/bytes.ts';
import { crc32c } from '../protocol/crc32c.ts';
import type { Random } from './clock.ts';
import { type Disk, type DiskFile, writeAll, writeAllNow, writeAnew } from './disk.ts';
import {
  APPEND_PART_BYTES,
  TWIN_PART_BYTES,
  type AppendPart,
  CRC_AT,
  FILE_HEADER_BYTES,
  FILE_MAGIC,
  FORMAT,
  type OtherPart,
  otherPartBytes,
  RECORD_HEADER_BYTES,
  RECORD_MAGIC,
  SALT_BYTES,
  writeAppendPart,
  writeTwinPart,
  writeOtherPart,
} from './journal-record.ts';
import { twinsOf } from './twin-runs.ts';

/** A file is filled with zeros once it holds this much, this far ahead of its end, in these steps, a little beyond the end. */
const FILL_FROM_BYTES = 64 * 1024;
const FILL_AHEAD_BYTES = 8 * 1024 * 1024;
const FILL_STEP_BYTES = 8 * 1024 * 1024;
const FILL_HEADROOM_BYTES = 2 * 1024 * 1024;

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
  /** What is kept of the chain so far. */
  before: ReadChain;
  /** Filling a file with zeros failed. */
  onError: (error: unknown) => void;
}

/** The chain as a recovery has read it: its files are not reused before a checkpoint covers them. */
export interface ReadChain {
  /** First sequence that was wanted: the head of the checkpoint. */
  firstSequence: number;
  /** The sequence after the last one that was read. */
  endSequence: number;
  /** By path, the last sequence in it. */
  lastSequences: ReadonlyMap<string, number>;
  /** Where the last record is. */
  last: { path: string; position: number; sizeBytes: number } | undefined;
  sizeBytes: number;
}

interface JournalFile {
  readonly file: DiskFile;
  /** Zero-filled or written up to here: writes below change no metadata. */
  allocatedBytes: number;
  /** Largest sequence in it, −1 if none that counts. */
  lastSequence: number;
}

const fileName = (index: number): string => `journal-${String(index).padStart(2, '0')}`;
const fileIndexOf = (path: string): number => Number(path.slice(path.lastIndexOf('-') + 1));

export class Journal {
  readonly #options: JournalOptions;
  readonly #files: JournalFile[] = [];
  readonly #salt = Buffer.alloc(SALT_BYTES);
  #current = 0;
  #position = 0;
  #nextSequence: number;
  /** The sequence that the next file header says it continues. */
  #continues: number;
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
    this.#continues = options.before.endSequence;
    this.#releasedSequence = options.before.firstSequence;
  }

  /** Opens the files for writing; those of the chain that recovery has read are kept until a checkpoint covers them. */
  static async open(options: JournalOptions): Promise<Journal> {
    const journal = new Journal(options);
    const { disk, folder, before } = options;
    await writeLastAnew(disk, before);
    const kept = [...before.lastSequences.keys()];
    const indexes = new Set(kept.map(fileIndexOf));
    for (let index = 0; index < options.fileCount; index++) indexes.add(index);
    // One to begin with; it goes again when a start does not need it.
    if (kept.length === indexes.size) indexes.add(Math.max(...indexes) + 1);
    for (const name of await disk.list(folder)) {
      if (name.startsWith('journal-') && !indexes.has(fileIndexOf(name))) await disk.remove(`${folder}/${name}`);
    }
    for (const index of [...indexes].sort((a, b) => a - b)) await journal.#open(index);
    await disk.syncDirectory(folder);
    journal.#use(journal.#files.findIndex((file) => journal.#isReleased(file)));
    return journal;
  }

  async #open(index: number): Promise<void> {
    const { disk, folder, isSynced, before } = this.#options;
    const path = `${folder}/${fileName(index)}`;
    const file = await disk.open(path, isSynced ? 'synced' : 'write');
    const lastSequence = before.lastSequences.get(path) ?? -1;
    this.#files.push({ file, allocatedBytes: await file.size(), lastSequence });
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

  /** Bytes that the record of these parts takes at most: what is in it twice is written once. */
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

  /** With `log.flush: written`: what was written so far survives a power cut. */
  async sync(): Promise<void> {
    for (const { file, lastSequence } of this.#files) if (lastSequence >= this.#releasedSequence) await file.sync();
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
    this.#continues = this.#nextSequence;
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
  /** The next one in turn that is free, else the next one. */
  #next(): number {
    const count = this.#files.length;
    for (let step = 1; step < count; step++) {
      const index = (this.#current + step) % count;
      if (this.#isReleased(this.#files[index])) return index;
    }
    return (this.#current + 1) % count;
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
    writeInt64(bytes, at + 24, this.#continues);
    bytes.writeUInt32BE(crc32c(bytes, at, 32), at + 32);
    this.#headerSize = FILE_HEADER_BYTES;
  }

  #layRecord(appends: readonly AppendPart[], others: readonly OtherPart[]): Uint8Array[] {
    const start = this.#headerSize;
    const twins = twinsOf(appends);
    let tableBytes = appends.length * APPEND_PART_BYTES;
    for (const part of others) tableBytes += otherPartBytes(part);
    for (const twin of twins ?? []) if (twin >= 0) tableBytes -= APPEND_PART_BYTES - TWIN_PART_BYTES;
    const header = this.#room(start + RECORD_HEADER_BYTES + tableBytes);
    let at = start + RECORD_HEADER_BYTES;
    let payloadBytes = 0;
    for (const part of others) at = writeOtherPart(header, at, part);
    for (let index = 0; index < appends.length; index++) {
      const { key, run } = appends[index];
      const twin = twins === undefined ? -1 : twins[index];
      if (twin >= 0) at = writeTwinPart(header, at, key, run, twin);
      else {
        at = writeAppendPart(header, at, key, run);
        payloadBytes += run.sizeBytes;
      }
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
    gather(appends, twins, buffers);
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

/** The bytes of the runs in order, without those of twins, neighbours in a slab as one piece. */
function gather(appends: readonly AppendPart[], twins: Int32Array | undefined, buffers: Uint8Array[]): void {
  for (let index = 0; index < appends.length; ) {
    if (twins !== undefined && twins[index] >= 0) {
      index++;
      continue;
    }
    const { slab, position } = appends[index].run;
    let end = position;
    for (; index < appends.length; index++) {
      const { run } = appends[index];
      if (run.slab !== slab || run.position !== end || (twins !== undefined && twins[index] >= 0)) break;
      end += run.sizeBytes;
    }
    buffers.push(slab.buffer.subarray(position, end));
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

/**
 * Writes the last record once more: if its sync has failed, and the process before this one has ended because of that, it
 * reads well but is not on the platter, and no sync brings it there.
 */
async function writeLastAnew(disk: Disk, { last }: ReadChain): Promise<void> {
  if (last === undefined) return;
  const file = await disk.open(last.path, 'write');
  try {
    await writeAnew(file, last.position, last.position + last.sizeBytes);
    await file.sync();
  } finally {
    await file.close();
  }
}
