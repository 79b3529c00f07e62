/**
 * Where the journal has the batches of one partition: noted by a recovery that reads the journal once, so that it can
 * tell later what the segments lack, and read just that.
 *
 * An entry a part takes 32 bytes; a part takes at least 112 in the journal.
 */
import { batchBaseOffset, checkStoredBatch, stampBatch } from '../protocol/record-batch.ts';
import type { ReadPart } from './journal-record.ts';
import { LazyFile, type OpenFiles } from './open-files.ts';

export interface JournaledPart {
  readonly baseOffset: number;
  readonly nextOffset: number;
  readonly leaderEpoch: number;
  /** Fingerprint of the CRCs of its batches, see `runDigest`. */
  readonly digest: number;
  readonly startsSegment: boolean;
  /** Number of the journal file, see `JournalBytes`. */
  readonly file: number;
  readonly position: number;
  readonly sizeBytes: number;
}

const WORDS = 6;

export class JournaledParts {
  #bases = new Float64Array(1);
  /** By entry: offset count, leader epoch, digest, file and whether it starts a segment, position, size. */
  #words = new Uint32Array(WORDS);
  count = 0;
  sizeBytes = 0;

  /** `file`: number of the journal file; `recordPosition`: where in it the record is that the part is of. */
  add(part: Extract<ReadPart, { kind: 'append' }>, file: number, recordPosition: number): void {
    if (this.count === this.#bases.length) this.#grow();
    const at = this.count * WORDS;
    const words = this.#words;
    this.#bases[this.count] = part.baseOffset;
    words[at] = part.nextOffset - part.baseOffset;
    words[at + 1] = part.leaderEpoch;
    words[at + 2] = part.digest;
    words[at + 3] = file * 2 + (part.startsSegment ? 1 : 0);
    words[at + 4] = recordPosition + part.position;
    words[at + 5] = part.sizeBytes;
    this.count++;
    this.sizeBytes += part.sizeBytes;
  }

  at(index: number): JournaledPart {
    const at = index * WORDS;
    const words = this.#words;
    const baseOffset = this.#bases[index];
    return {
      baseOffset,
      nextOffset: baseOffset + words[at],
      leaderEpoch: words[at + 1] | 0,
      digest: words[at + 2],
      startsSegment: words[at + 3] % 2 === 1,
      file: words[at + 3] >>> 1,
      position: words[at + 4],
      sizeBytes: words[at + 5],
    };
  }

  #grow(): void {
    const count = Math.ceil(this.count * 1.5) + 1;
    const [bases, words] = [new Float64Array(count), new Uint32Array(count * WORDS)];
    bases.set(this.#bases);
    words.set(this.#words);
    this.#bases = bases;
    this.#words = words;
  }
}

/** Parts that are at most so far apart in the journal are read together: reading this much costs less than a call. */
const GAP_BYTES_MAX = 64 * 1024;
const WINDOW_BYTES = 1024 * 1024;

/** The journal files of a recovery, for what has to be read again. */
export class JournalBytes {
  readonly #files: OpenFiles;
  readonly #opened: LazyFile[] = [];
  readonly #numbers = new Map<string, number>();

  constructor(files: OpenFiles) {
    this.#files = files;
  }

  /** The number under which parts name the file. */
  numberOf(path: string): number {
    let number = this.#numbers.get(path);
    if (number === undefined) {
      number = this.#opened.length;
      this.#numbers.set(path, number);
      this.#opened.push(new LazyFile(this.#files, path));
    }
    return number;
  }

  /** Bytes of the file from `position` on. */
  async read(number: number, position: number, sizeBytes: number): Promise<Buffer<ArrayBuffer>> {
    const lazy = this.#opened[number];
    const bytes = Buffer.allocUnsafe(sizeBytes);
    const file = await lazy.use('read');
    try {
      const readBytes = await file.read(bytes, position);
      if (readBytes < sizeBytes) throw new Error(`${lazy.path} ends at ${position + readBytes}, it was longer`);
    } finally {
      lazy.done();
    }
    return bytes;
  }

  /** The files may be written again. */
  async close(): Promise<void> {
    for (const file of this.#opened) await file.close();
  }
}

/** Reads parts of one partition, in their order, each with those that come soon after it. */
export class PartReader {
  readonly #parts: JournaledParts;
  readonly #journal: JournalBytes;
  #window = Buffer.alloc(0);
  #file = -1;
  #start = 0;

  constructor(parts: JournaledParts, journal: JournalBytes) {
    this.#parts = parts;
    this.#journal = journal;
  }

  /** The batches of the part; checked again. The bytes stay as they are. */
  async bytesOf(index: number): Promise<Buffer> {
    const part = this.#parts.at(index);
    const { file, position, sizeBytes } = part;
    const isInside =
      file === this.#file && position >= this.#start && position + sizeBytes <= this.#start + this.#window.length;
    if (!isInside) {
      this.#window = await this.#journal.read(file, position, this.#windowEnd(index) - position);
      this.#file = file;
      this.#start = position;
    }
    let bytes = this.#window.subarray(position - this.#start, position - this.#start + sizeBytes);
    const shift = part.baseOffset - batchBaseOffset(bytes, 0);
    // Copy: it has these batches from another part, whose offsets they bear.
    if (shift !== 0) bytes = Buffer.from(bytes);
    for (let at = 0; at < sizeBytes; ) {
      const batchBytes = checkStoredBatch(bytes, at, sizeBytes - at);
      if (batchBytes < 0) throw new Error(`the journal does not read as before at offset ${part.baseOffset}`);
      if (shift !== 0) stampBatch(bytes, at, batchBaseOffset(bytes, at) + shift, part.leaderEpoch);
      at += batchBytes;
    }
    return bytes;
  }

  /** Where a window that begins with the part ends. */
  #windowEnd(index: number): number {
    const first = this.#parts.at(index);
    let end = first.position + first.sizeBytes;
    for (let next = index + 1; next < this.#parts.count; next++) {
      const { file, position, sizeBytes } = this.#parts.at(next);
      if (file !== first.file || position < end || position - end > GAP_BYTES_MAX) break;
      if (position + sizeBytes - first.position > WINDOW_BYTES) break;
      end = position + sizeBytes;
    }
    return end;
  }
}
