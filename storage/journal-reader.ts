/**
 * Reading the journal back: from the headers of its files the chain, and along it every record that counts. Called by
 * recovery, before the journal is opened for writing.
 *
 * A record belongs to the chain if its sequence is the next one and its salt that of its file; a file continues the chain
 * if it says that it does so from the next sequence on. Reading stops at the first thing that does not fit.
 */
import { readInt64 } from '../protocol/bytes.ts';
import { crc32c } from '../protocol/crc32c.ts';
import { MillraceError } from '../protocol/errors.ts';
import type { Disk, DiskFile } from './disk.ts';
import {
  CRC_AT,
  FILE_HEADER_BYTES,
  FILE_MAGIC,
  FORMAT,
  type ReadPart,
  readParts,
  RECORD_HEADER_BYTES,
  RECORD_MAGIC,
} from './journal-record.ts';

/** A recovery skips this many sequences, more than a file can hold records: what an unread rest of the old chain says never fits the new one. */
export const SEQUENCE_GAP = 2 ** 25;

/** One record of the chain. */
export interface JournalRecord {
  sequence: number;
  isSynced: boolean;
  parts: ReadPart[];
  /** Where it is. */
  path: string;
  position: number;
  sizeBytes: number;
}

interface FileStart {
  path: string;
  salt: Buffer;
  firstSequence: number;
  /** The sequence from which on it continues the chain. */
  continues: number;
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
  if (bytes.readUInt32BE(0) !== FILE_MAGIC || bytes.readUInt32BE(32) !== crc32c(bytes, 0, 32)) return undefined;
  const format = bytes.readUInt16BE(4);
  // Passing over it would lose what it holds.
  if (format !== FORMAT) throw new MillraceError('DATA_DIR_FORMAT', `${path} has format ${format}, expected ${FORMAT}`);
  return {
    path,
    salt: Buffer.from(bytes.subarray(8, 16)),
    firstSequence: readInt64(bytes, 16),
    continues: readInt64(bytes, 24),
    isSynced: bytes[6] === 1,
  };
}

/** All records of the chain from `sequence` on, in order, each checked completely. */
export async function* readJournal(disk: Disk, chain: JournalChain, sequence: number): AsyncGenerator<JournalRecord> {
  let next = sequence;
  let start: FileStart | undefined =
    chain.files.findLast((file) => file.firstSequence <= sequence) ?? continuationAt(chain, sequence);
  while (start !== undefined) {
    const current: FileStart = start;
    const file = await disk.open(current.path, 'read');
    try {
      const window = new FileWindow(file, await file.size());
      let expected = current.firstSequence;
      for (let at = FILE_HEADER_BYTES; ; ) {
        // A recovery has stopped here: what comes after it in this file was never read.
        if (isCutOff(chain, current, expected)) break;
        const record = await readRecord(window, at, current, expected);
        if (record === undefined) break;
        at += record.sizeBytes;
        expected++;
        if (record.sequence < next) continue;
        next = record.sequence + 1;
        yield record;
      }
    } finally {
      await file.close();
    }
    const after = continuationAt(chain, next);
    start = after !== undefined && after.firstSequence > current.firstSequence ? after : undefined;
  }
}

/** The file that goes on from `sequence`. Of several the last: those before it were begun and had nothing that counts. */
function continuationAt(chain: JournalChain, sequence: number): FileStart | undefined {
  return chain.files.findLast((file) => file.continues === sequence);
}

function isCutOff(chain: JournalChain, current: FileStart, sequence: number): boolean {
  return chain.files.some((file) => file.continues === sequence && file.firstSequence > current.firstSequence);
}

/** A sliding view of a file: whole records are asked for, few reads are made. */
class FileWindow {
  readonly #file: DiskFile;
  readonly #fileBytes: number;
  /** Used again for each read. */
  #room = Buffer.alloc(0);
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
      if (this.#room.length < wanted) this.#room = Buffer.allocUnsafeSlow(wanted);
      const bytes = this.#room.subarray(0, wanted);
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
): Promise<JournalRecord | undefined> {
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
  const parts = readParts(bytes, headerBytes);
  return parts && { sequence, isSynced: start.isSynced, parts, path: start.path, position, sizeBytes };
}
