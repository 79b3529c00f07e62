/**
 * Snappy as Kafka clients write it, readable and writable without a package.
 *
 *   xerial stream  82 'SNAPPY' 00 | int32 version | int32 compatible version | { int32 size | raw block }*
 *   raw block      uvarint uncompressed size | { literal or copy }*    (google/snappy, format_description.txt)
 *
 * The Java client writes the stream in blocks of 32 KiB; some clients write one bare raw block. Both are read, and the
 * stream is written. The framing is the same whoever compresses the blocks: see `snappyCodec`.
 */
import { MillraceError } from './errors.ts';

/** Compresses and decompresses raw blocks. */
export interface SnappyBlocks {
  compress(bytes: Buffer): Buffer;
  /** `sizeBytes` is what the block says it holds; it has been checked against the limit. */
  decompress(block: Buffer, sizeBytes: number): Buffer;
}

const STREAM_HEADER = Buffer.from('82534e41505059000000000100000001', 'hex');
const STREAM_MAGIC_BYTES = 8;
const STREAM_BLOCK_BYTES = 32 * 1024;
/** Writers fill blocks (Java: 1 KiB at least). Many blocks with next to nothing in them would cost much and hold nothing. */
const SMALL_BLOCKS_MAX = 100;
const SMALL_BLOCK_BYTES = 32;
/** A copy of three bytes makes 64: no valid block grows more. */
const GROWTH_MAX = 22;

/** The codec over `blocks`. */
export function snappyCodec(blocks: SnappyBlocks) {
  return {
    compress(bytes: Uint8Array): Buffer {
      const input = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
      const parts: Buffer[] = [STREAM_HEADER];
      for (let at = 0; at < input.length; at += STREAM_BLOCK_BYTES) {
        const block = blocks.compress(input.subarray(at, at + STREAM_BLOCK_BYTES));
        const size = Buffer.allocUnsafe(4);
        size.writeInt32BE(block.length);
        parts.push(size, block);
      }
      return Buffer.concat(parts);
    },
    decompress(bytes: Uint8Array, maxBytes: number): Buffer {
      const input = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
      if (!startsStream(input, 0)) return blocks.decompress(input, blockSizeBytes(input, maxBytes));
      const parts: Buffer[] = [];
      let leftBytes = maxBytes;
      for (const block of streamBlocks(input)) {
        const sizeBytes = blockSizeBytes(block, leftBytes);
        leftBytes -= sizeBytes;
        parts.push(blocks.decompress(block, sizeBytes));
      }
      return parts.length === 1 ? parts[0] : Buffer.concat(parts);
    },
  };
}

/** Snappy in TypeScript. */
export const pureSnappy: SnappyBlocks = { compress: compressBlock, decompress: decompressBlock };

function startsStream(input: Buffer, at: number): boolean {
  return (
    input.length - at >= STREAM_HEADER.length &&
    input.compare(STREAM_HEADER, 0, STREAM_MAGIC_BYTES, at, at + STREAM_MAGIC_BYTES) === 0
  );
}

function* streamBlocks(input: Buffer): Generator<Buffer> {
  let smallBlocks = 0;
  let at = 0;
  while (at < input.length) {
    // Streams may follow each other, each with its header.
    if (startsStream(input, at)) {
      at += STREAM_HEADER.length;
      continue;
    }
    if (input.length - at < 4) throw invalid(`${input.length - at} bytes after the last block`);
    const size = input.readInt32BE(at);
    if (size < 0 || size > input.length - at - 4) throw invalid(`block of ${size} bytes at byte ${at}`);
    if (size < SMALL_BLOCK_BYTES && ++smallBlocks > SMALL_BLOCKS_MAX) throw invalid('too many blocks of a few bytes');
    yield input.subarray(at + 4, at + 4 + size);
    at += 4 + size;
  }
}

/** What the block says it holds, if that is allowed and possible. */
function blockSizeBytes(block: Buffer, maxBytes: number): number {
  let size = 0;
  let at = 0;
  for (let shift = 0; ; shift += 7) {
    if (at >= block.length || shift > 28) throw invalid('block without a size');
    const byte = block[at++];
    size += (byte & 0x7f) * 2 ** shift;
    if (byte < 0x80) break;
  }
  if (size > (block.length - at) * GROWTH_MAX) throw invalid(`${block.length} bytes cannot hold ${size}`);
  if (size > maxBytes) {
    throw new MillraceError('MESSAGE_TOO_LARGE', `snappy holds ${size} bytes more, at most ${maxBytes} are allowed`);
  }
  return size;
}

function decompressBlock(block: Buffer, sizeBytes: number): Buffer {
  const output = Buffer.allocUnsafe(sizeBytes);
  let at = 0;
  while (block[at] >= 0x80) at++;
  at++;
  let end = 0;
  while (at < block.length) {
    const tag = block[at++];
    if ((tag & 3) === 0) {
      let size = tag >>> 2;
      if (size >= 60) {
        const extra = size - 59;
        if (at + extra > block.length) throw invalid('literal without its size');
        size = block.readUIntLE(at, extra);
        at += extra;
      }
      size++;
      if (size > block.length - at || size > sizeBytes - end) throw invalid(`literal of ${size} bytes`);
      if (size > 32) block.copy(output, end, at, at + size);
      else for (let index = 0; index < size; index++) output[end + index] = block[at + index];
      at += size;
      end += size;
      continue;
    }
    let size = 0;
    let distance = 0;
    if ((tag & 3) === 1) {
      if (at + 1 > block.length) throw invalid('copy without its distance');
      size = ((tag >>> 2) & 7) + 4;
      distance = ((tag >>> 5) << 8) | block[at];
      at += 1;
    } else if ((tag & 3) === 2) {
      if (at + 2 > block.length) throw invalid('copy without its distance');
      size = (tag >>> 2) + 1;
      distance = block[at] | (block[at + 1] << 8);
      at += 2;
    } else {
      if (at + 4 > block.length) throw invalid('copy without its distance');
      size = (tag >>> 2) + 1;
      distance = block.readUInt32LE(at);
      at += 4;
    }
    if (distance === 0 || distance > end || size > sizeBytes - end) throw invalid(`copy of ${size} from ${distance}`);
    // Byte by byte: source and target may overlap, which repeats a pattern.
    for (const copyEnd = end + size; end < copyEnd; end++) output[end] = output[end - distance];
  }
  if (end !== sizeBytes) throw invalid(`block of ${end} bytes says it has ${sizeBytes}`);
  return output;
}

/** Matches are searched in pieces of this size, so that positions fit 16 bits. */
const FRAGMENT_BYTES = 64 * 1024;
const HASH_BITS = 14;
const positions = new Uint16Array(1 << HASH_BITS);

function compressBlock(input: Buffer): Buffer {
  const output = Buffer.allocUnsafe(32 + input.length + Math.floor(input.length / 6));
  let end = 0;
  let rest = input.length;
  for (; rest >= 0x80; rest = Math.floor(rest / 0x80)) output[end++] = (rest % 0x80) | 0x80;
  output[end++] = rest;
  for (let start = 0; start < input.length; start += FRAGMENT_BYTES) {
    end = compressFragment(input, start, Math.min(input.length, start + FRAGMENT_BYTES), output, end);
  }
  return output.subarray(0, end);
}

function compressFragment(input: Buffer, start: number, stop: number, output: Buffer, outputEnd: number): number {
  let end = outputEnd;
  let literalStart = start;
  const matchStop = stop - 15;
  if (matchStop > start) {
    positions.fill(0);
    // The further from the last match, the larger the steps: data that does not compress is passed over quickly.
    let misses = 32;
    for (let at = start + 1; at < matchStop; ) {
      const word = wordAt(input, at);
      const hash = Math.imul(word, 0x1e35a7bd) >>> (32 - HASH_BITS);
      const candidate = start + positions[hash];
      positions[hash] = at - start;
      if (candidate >= at || wordAt(input, candidate) !== word) {
        at += misses++ >>> 5;
        continue;
      }
      end = writeLiteral(input, literalStart, at, output, end);
      let size = 4;
      while (at + size < stop && input[candidate + size] === input[at + size]) size++;
      end = writeCopy(at - candidate, size, output, end);
      at += size;
      literalStart = at;
      misses = 32;
    }
  }
  return writeLiteral(input, literalStart, stop, output, end);
}

function wordAt(input: Buffer, at: number): number {
  return input[at] | (input[at + 1] << 8) | (input[at + 2] << 16) | (input[at + 3] << 24);
}

function writeLiteral(input: Buffer, start: number, stop: number, output: Buffer, outputEnd: number): number {
  const size = stop - start;
  let end = outputEnd;
  if (size === 0) return end;
  if (size <= 60) {
    output[end++] = (size - 1) << 2;
  } else if (size <= 0x100) {
    output[end++] = 60 << 2;
    output[end++] = size - 1;
  } else {
    output[end++] = 61 << 2;
    end = output.writeUInt16LE(size - 1, end);
  }
  input.copy(output, end, start, stop);
  return end + size;
}

function writeCopy(distance: number, sizeBytes: number, output: Buffer, outputEnd: number): number {
  let end = outputEnd;
  let size = sizeBytes;
  while (size > 0) {
    // What is left over must not be shorter than four bytes, the shortest copy of the short form.
    const part = size >= 68 ? 64 : size > 64 ? 60 : size;
    if (part >= 12 || distance >= 2048) {
      output[end++] = ((part - 1) << 2) | 2;
      output[end++] = distance & 0xff;
      output[end++] = distance >>> 8;
    } else {
      output[end++] = ((distance >>> 8) << 5) | ((part - 4) << 2) | 1;
      output[end++] = distance & 0xff;
    }
    size -= part;
  }
  return end;
}

function invalid(message: string): MillraceError {
  return new MillraceError('INVALID_RECORD', `snappy: ${message}`);
}
