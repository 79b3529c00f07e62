/**
 * The LZ4 frame format (lz4_Frame_format.md 1.6.4), readable and writable without a package.
 *
 *   frame       04 22 4d 18 | FLG | BD | [content size 8] | [dictionary id 4] | header checksum | blocks | 00 00 00 00
 *               | [content checksum 4]
 *   FLG         version 6–7 (01) | independent blocks 5 | block checksums 4 | content size 3 | content checksum 2 | dictionary 0
 *   BD          largest block 4–6: 4 = 64 KiB, 5 = 256 KiB, 6 = 1 MiB, 7 = 4 MiB
 *   block       uint32 size, the top bit says stored | bytes | [checksum 4]
 *   sequence    token: literal size 4–7, match size − 4 in 0–3; 15 goes on in bytes until one is not 255
 *               | literals | uint16 distance | …; the last one ends after its literals
 *
 * Every valid frame is read but those with a dictionary; written is what the Java client writes: independent blocks of
 * 64 KiB, no checksums but the header's.
 */
import { MillraceError } from './errors.ts';

const FRAME_MAGIC = 0x184d2204;
const SKIPPABLE_MAGIC = 0x184d2a5;
const FLAG_INDEPENDENT = 0x20;
const FLAG_BLOCK_CHECKSUM = 0x10;
const FLAG_CONTENT_SIZE = 0x08;
const FLAG_CONTENT_CHECKSUM = 0x04;
const FLAG_DICTIONARY = 0x01;
const STORED = 0x8000_0000;
/** Writers make one. Thousands of empty ones would cost much and hold nothing. */
const FRAMES_MAX = 100;
const WRITTEN_BLOCK_BYTES = 64 * 1024;
/** A byte of a match size makes 255 bytes: no valid block grows more. */
const GROWTH_MAX = 255;

/** The codec; `compressNative` makes whole frames in place of the compressor here. */
export function lz4Codec(compressNative?: (bytes: Buffer) => Buffer) {
  return {
    compress(bytes: Uint8Array): Buffer {
      const input = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
      return compressNative === undefined ? compressFrame(input) : compressNative(input);
    },
    decompress(bytes: Uint8Array, maxBytes: number): Buffer {
      return decompressFrames(Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength), maxBytes);
    },
  };
}

interface Frame {
  readonly flags: number;
  readonly blockBytesMax: number;
  readonly contentBytes: number | undefined;
  /** Where the first block starts. */
  readonly start: number;
  /** More than this cannot come out of it. */
  readonly boundBytes: number;
}

/** Walks over frames without decompressing: headers are checked, and what can come out at most is known. */
function readFrames(input: Buffer): Frame[] {
  const frames: Frame[] = [];
  let at = 0;
  while (at < input.length) {
    if (input.length - at < 8) throw invalid(`${input.length - at} bytes are not a frame`);
    const magic = input.readUInt32LE(at);
    if (magic >>> 4 === SKIPPABLE_MAGIC) {
      at += 8 + input.readUInt32LE(at + 4);
      if (at > input.length) throw invalid('skippable frame beyond the end');
      continue;
    }
    if (magic !== FRAME_MAGIC) throw invalid(`magic ${magic.toString(16)} at byte ${at}`);
    if (frames.length === FRAMES_MAX) throw invalid(`more than ${FRAMES_MAX} frames`);
    const header = readFrameHeader(input, at + 4);
    let boundBytes = 0;
    at = header.start;
    for (;;) {
      if (input.length - at < 4) throw invalid('frame without its end mark');
      const word = input.readUInt32LE(at);
      at += 4;
      if (word === 0) break;
      const size = word & ~STORED;
      const isStored = word >= STORED;
      if (size === 0 || size > input.length - at || size > header.blockBytesMax)
        throw invalid(`block of ${size} bytes`);
      boundBytes += isStored ? size : Math.min(header.blockBytesMax, size * GROWTH_MAX);
      at += size + (header.flags & FLAG_BLOCK_CHECKSUM ? 4 : 0);
    }
    if (header.flags & FLAG_CONTENT_CHECKSUM) at += 4;
    if (at > input.length) throw invalid('frame without its checksum');
    if (header.contentBytes !== undefined) {
      if (header.contentBytes > boundBytes) throw invalid(`content of ${header.contentBytes} bytes cannot be`);
      boundBytes = header.contentBytes;
    }
    frames.push({ ...header, boundBytes });
  }
  return frames;
}

function readFrameHeader(input: Buffer, descriptorStart: number): Omit<Frame, 'boundBytes'> {
  const flags = input[descriptorStart];
  const blockCode = (input[descriptorStart + 1] >>> 4) & 7;
  if (flags >>> 6 !== 1 || (flags & 0x02) !== 0) throw invalid(`frame flags ${flags}`);
  if (blockCode < 4 || (input[descriptorStart + 1] & 0x8f) !== 0) throw invalid(`block code ${blockCode}`);
  if (flags & FLAG_DICTIONARY) throw invalid('frame with a dictionary');
  let at = descriptorStart + 2;
  let contentBytes: number | undefined;
  if (flags & FLAG_CONTENT_SIZE) {
    if (input.length - at < 9) throw invalid('frame header beyond the end');
    contentBytes = input.readUInt32LE(at) + input.readUInt32LE(at + 4) * 2 ** 32;
    at += 8;
  }
  if (at >= input.length) throw invalid('frame header beyond the end');
  const checksum = (xxh32(input, descriptorStart, at) >>> 8) & 0xff;
  if (checksum !== input[at]) throw invalid(`header checksum ${input[at]}, expected ${checksum}`);
  return { flags, blockBytesMax: 1 << (8 + 2 * blockCode), contentBytes, start: at + 1 };
}

function decompressFrames(input: Buffer, maxBytes: number): Buffer {
  const frames = readFrames(input);
  let boundBytes = 0;
  for (const frame of frames) boundBytes += frame.boundBytes;
  const output = Buffer.allocUnsafe(Math.min(boundBytes, maxBytes));
  let end = 0;
  for (const frame of frames) {
    const frameStart = end;
    let at = frame.start;
    for (let word = input.readUInt32LE(at); word !== 0; word = input.readUInt32LE(at)) {
      at += 4;
      const blockEnd = at + (word & ~STORED);
      const limit = Math.min(output.length, end + frame.blockBytesMax);
      const blockStart = end;
      if (word >= STORED) {
        if (blockEnd - at > limit - end) throw tooLong(boundBytes, maxBytes);
        end += input.copy(output, end, at, blockEnd);
      } else {
        const lowest = frame.flags & FLAG_INDEPENDENT ? blockStart : frameStart;
        end = decompressBlock(input, at, blockEnd, output, end, limit, lowest);
        if (end < 0) throw tooLong(boundBytes, maxBytes);
      }
      at = blockEnd;
      if (frame.flags & FLAG_BLOCK_CHECKSUM) {
        if (input.readUInt32LE(at) !== xxh32(input, at - (word & ~STORED), at)) throw invalid('wrong block checksum');
        at += 4;
      }
    }
    if (frame.contentBytes !== undefined && end - frameStart !== frame.contentBytes) {
      throw invalid(`content of ${end - frameStart} bytes, ${frame.contentBytes} were announced`);
    }
    if (frame.flags & FLAG_CONTENT_CHECKSUM && input.readUInt32LE(at + 4) !== xxh32(output, frameStart, end)) {
      throw invalid('wrong content checksum');
    }
  }
  return output.subarray(0, end);
}

/** A block ran out of room: because of the limit, or because it claims what it must not. */
function tooLong(boundBytes: number, maxBytes: number): MillraceError {
  if (boundBytes <= maxBytes) return invalid('block is longer than its frame allows');
  return new MillraceError('MESSAGE_TOO_LARGE', `lz4 holds more than the ${maxBytes} bytes that are allowed`);
}

/** Decompresses one block into `output` from `outputStart`; answers where it ends, −1 if that is beyond `limit`. */
function decompressBlock(
  input: Buffer,
  start: number,
  stop: number,
  output: Buffer,
  outputStart: number,
  limit: number,
  lowest: number,
): number {
  let at = start;
  let end = outputStart;
  for (;;) {
    if (at >= stop) throw invalid('block ends inside a sequence');
    const token = input[at++];
    let size = token >>> 4;
    if (size === 15) {
      let byte = 255;
      for (; byte === 255 && at < stop; size += byte) byte = input[at++];
    }
    if (size > stop - at) throw invalid(`${size} literals, ${stop - at} bytes left`);
    if (size > limit - end) return -1;
    if (size > 32) input.copy(output, end, at, at + size);
    else for (let index = 0; index < size; index++) output[end + index] = input[at + index];
    at += size;
    end += size;
    if (at === stop) return end;

    if (stop - at < 2) throw invalid('block ends inside a distance');
    const distance = input[at] | (input[at + 1] << 8);
    at += 2;
    if (distance === 0 || distance > end - lowest) throw invalid(`distance ${distance}, ${end - lowest} bytes so far`);
    size = (token & 15) + 4;
    if (size === 19) {
      let byte = 255;
      for (; byte === 255 && at < stop; size += byte) byte = input[at++];
    }
    if (size > limit - end) return -1;
    // Source and target may overlap, which repeats a pattern.
    if (distance >= size && size > 64) {
      output.copyWithin(end, end - distance, end - distance + size);
      end += size;
    } else {
      for (const copyEnd = end + size; end < copyEnd; end++) output[end] = output[end - distance];
    }
  }
}

function compressFrame(input: Buffer): Buffer {
  const blockCount = Math.ceil(input.length / WRITTEN_BLOCK_BYTES);
  const output = Buffer.allocUnsafe(15 + blockCount * 4 + input.length);
  output.writeUInt32LE(FRAME_MAGIC, 0);
  output[4] = (1 << 6) | FLAG_INDEPENDENT;
  output[5] = 4 << 4;
  output[6] = (xxh32(output, 4, 6) >>> 8) & 0xff;
  let end = 7;
  for (let start = 0; start < input.length; start += WRITTEN_BLOCK_BYTES) {
    const stop = Math.min(input.length, start + WRITTEN_BLOCK_BYTES);
    const blockEnd = compressBlock(input, start, stop, output, end + 4, end + 4 + (stop - start));
    if (blockEnd < 0) {
      output.writeUInt32LE((STORED | (stop - start)) >>> 0, end);
      end += 4 + input.copy(output, end + 4, start, stop);
    } else {
      output.writeUInt32LE(blockEnd - end - 4, end);
      end = blockEnd;
    }
  }
  output.writeUInt32LE(0, end);
  return output.subarray(0, end + 4);
}

const HASH_BITS = 14;
const positions = new Uint16Array(1 << HASH_BITS);
/** No match starts in the last 12 bytes of a block or reaches into the last five. */
const MATCH_START_MARGIN = 12;
const MATCH_END_MARGIN = 5;

/** Compresses `input` from `start` to `stop`; answers where the block ends in `output`, −1 if it would reach `limit`. */
function compressBlock(
  input: Buffer,
  start: number,
  stop: number,
  output: Buffer,
  outputStart: number,
  limit: number,
): number {
  let end = outputStart;
  let literalStart = start;
  positions.fill(0);
  // The further from the last match, the larger the steps: data that does not compress is passed over quickly.
  let misses = 64;
  for (let at = start + 1; at <= stop - MATCH_START_MARGIN; ) {
    const word = wordAt(input, at);
    const hash = Math.imul(word, 0x9e3779b1) >>> (32 - HASH_BITS);
    const candidate = start + positions[hash];
    positions[hash] = at - start;
    if (candidate >= at || wordAt(input, candidate) !== word) {
      at += misses++ >>> 6;
      continue;
    }
    let size = 4;
    while (at + size < stop - MATCH_END_MARGIN && input[candidate + size] === input[at + size]) size++;
    end = writeSequence(input, literalStart, at, output, end, limit, size - 4);
    if (end < 0 || end + 2 >= limit) return -1;
    output[end++] = (at - candidate) & 0xff;
    output[end++] = (at - candidate) >>> 8;
    if (size - 4 >= 15) {
      end = writeLongSize(size - 19, output, end, limit);
      if (end < 0) return -1;
    }
    at += size;
    literalStart = at;
    misses = 64;
  }
  return writeSequence(input, literalStart, stop, output, end, limit, 0);
}

/** Token and literals of a sequence; −1 if they do not fit. */
function writeSequence(
  input: Buffer,
  start: number,
  stop: number,
  output: Buffer,
  outputStart: number,
  limit: number,
  matchCode: number,
): number {
  const size = stop - start;
  let end = outputStart;
  if (end + 1 + size >= limit) return -1;
  output[end++] = (Math.min(15, size) << 4) | Math.min(15, matchCode);
  if (size >= 15) {
    end = writeLongSize(size - 15, output, end, limit);
    if (end < 0 || end + size >= limit) return -1;
  }
  input.copy(output, end, start, stop);
  return end + size;
}

function writeLongSize(size: number, output: Buffer, outputStart: number, limit: number): number {
  let end = outputStart;
  if (end + Math.floor(size / 255) + 1 >= limit) return -1;
  let rest = size;
  for (; rest >= 255; rest -= 255) output[end++] = 255;
  output[end++] = rest;
  return end;
}

function wordAt(input: Buffer, at: number): number {
  return input[at] | (input[at + 1] << 8) | (input[at + 2] << 16) | (input[at + 3] << 24);
}

const PRIME_1 = 0x9e3779b1;
const PRIME_2 = 0x85ebca77;
const PRIME_3 = 0xc2b2ae3d;
const PRIME_4 = 0x27d4eb2f;
const PRIME_5 = 0x165667b1;

/** xxHash32 with seed 0 of the bytes from `start` to `stop` (xxhash_spec.md). */
export function xxh32(bytes: Buffer, start: number, stop: number): number {
  let at = start;
  let hash = PRIME_5;
  if (stop - start >= 16) {
    let a = (PRIME_1 + PRIME_2) | 0;
    let b = PRIME_2 | 0;
    let c = 0;
    let d = -PRIME_1 | 0;
    for (; at <= stop - 16; at += 16) {
      a = round(a, wordAt(bytes, at));
      b = round(b, wordAt(bytes, at + 4));
      c = round(c, wordAt(bytes, at + 8));
      d = round(d, wordAt(bytes, at + 12));
    }
    hash = rotate(a, 1) + rotate(b, 7) + rotate(c, 12) + rotate(d, 18);
  }
  hash = (hash + (stop - start)) | 0;
  for (; at <= stop - 4; at += 4) {
    hash = Math.imul(rotate((hash + Math.imul(wordAt(bytes, at), PRIME_3)) | 0, 17), PRIME_4);
  }
  for (; at < stop; at++) hash = Math.imul(rotate((hash + Math.imul(bytes[at], PRIME_5)) | 0, 11), PRIME_1);
  hash = Math.imul(hash ^ (hash >>> 15), PRIME_2);
  hash = Math.imul(hash ^ (hash >>> 13), PRIME_3);
  return (hash ^ (hash >>> 16)) >>> 0;
}

function round(lane: number, word: number): number {
  return Math.imul(rotate((lane + Math.imul(word, PRIME_2)) | 0, 13), PRIME_1);
}

function rotate(value: number, bits: number): number {
  return (value << bits) | (value >>> (32 - bits));
}

function invalid(message: string): MillraceError {
  return new MillraceError('INVALID_RECORD', `lz4: ${message}`);
}
