/**
 * What surrounds zstd (RFC 8878): frames are walked here before a library opens them, so that what can come out is
 * known and bounded. The library is Node's own from 22.15 on; on older ones `storage/native.ts` registers another.
 *
 *   frame   28 b5 2f fd | descriptor | [window 1] | [dictionary id] | [content size] | blocks | [checksum 4]
 *   descriptor  size of the content size 6–7 | single segment 5 | reserved 3 | checksum 2 | size of the dictionary id 0–1
 *   block   3 bytes: last 0 | type 1–2 (0 raw, 1 repeat, 2 compressed) | size 3–23; then its bytes (one for repeat)
 */
import * as zlib from 'node:zlib';
import { MillraceError } from './errors.ts';

/** A library that does one frame. */
export interface ZstdFrames {
  compress(bytes: Buffer): Buffer;
  /** At most `boundBytes` come out; any error if more would. */
  decompress(frame: Buffer, boundBytes: number): Buffer;
}

const FRAME_MAGIC = 0xfd2fb528;
const SKIPPABLE_MAGIC = 0x184d2a5;
const BLOCK_BYTES_MAX = 128 * 1024;
/** Writers make one. Opening one takes microseconds however little is in it, so thousands would be an attack. */
const FRAMES_MAX = 100;

/** The codec over a library. */
export function zstdCodec(library: ZstdFrames) {
  return {
    compress: (bytes: Uint8Array): Buffer =>
      library.compress(Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)),
    decompress(bytes: Uint8Array, maxBytes: number): Buffer {
      const input = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
      const parts: Buffer[] = [];
      let leftBytes = maxBytes;
      for (let at = 0; at < input.length; ) {
        const frame = readFrame(input, at);
        if (parts.length === FRAMES_MAX) throw invalid(`more than ${FRAMES_MAX} frames`);
        if (!frame.isSkippable) {
          const isKnown = frame.contentBytes !== undefined;
          if (isKnown && frame.boundBytes > leftBytes) throw tooLong(maxBytes);
          const part = open(library, input.subarray(at, frame.end), frame.boundBytes, leftBytes);
          if (isKnown && part.length !== frame.contentBytes) throw invalid(`content of ${part.length} bytes`);
          leftBytes -= part.length;
          parts.push(part);
        }
        at = frame.end;
      }
      return parts.length === 1 ? parts[0] : Buffer.concat(parts);
    },
  };
}

function open(library: ZstdFrames, frame: Buffer, boundBytes: number, leftBytes: number): Buffer {
  try {
    return library.decompress(frame, Math.min(boundBytes, leftBytes));
  } catch (cause) {
    // Where the frame could be within the limit, the frame is at fault.
    if (boundBytes <= leftBytes) throw new MillraceError('INVALID_RECORD', 'zstd: not decompressible', { cause });
    throw new MillraceError('MESSAGE_TOO_LARGE', `zstd holds more than ${leftBytes} bytes, or is not valid`, { cause });
  }
}

interface Frame {
  readonly isSkippable: boolean;
  readonly contentBytes: number | undefined;
  /** More than this cannot come out of it. */
  readonly boundBytes: number;
  readonly end: number;
}

/** Walks over one frame without decompressing. */
function readFrame(input: Buffer, start: number): Frame {
  if (input.length - start < 8) throw invalid(`${input.length - start} bytes are not a frame`);
  const magic = input.readUInt32LE(start);
  if (magic >>> 4 === SKIPPABLE_MAGIC) {
    const end = start + 8 + input.readUInt32LE(start + 4);
    if (end > input.length) throw invalid('skippable frame beyond the end');
    return { isSkippable: true, contentBytes: 0, boundBytes: 0, end };
  }
  if (magic !== FRAME_MAGIC) throw invalid(`magic ${magic.toString(16)}`);
  const descriptor = input[start + 4];
  if ((descriptor & 0x08) !== 0) throw invalid(`frame descriptor ${descriptor}`);
  const isSingleSegment = (descriptor & 0x20) !== 0;
  const sizeCode = descriptor >>> 6;
  const idBytes = [0, 1, 2, 4][descriptor & 3];
  const sizeBytes = sizeCode === 0 ? (isSingleSegment ? 1 : 0) : 1 << sizeCode;
  let at = start + 5;
  let windowBytes = Number.POSITIVE_INFINITY;
  if (!isSingleSegment) {
    const code = input[at++];
    windowBytes = 2 ** (10 + (code >>> 3)) * (1 + (code & 7) / 8);
  }
  at += idBytes;
  if (at + sizeBytes > input.length) throw invalid('frame header beyond the end');
  const contentBytes = readContentBytes(input, at, sizeBytes);
  at += sizeBytes;
  const blockBytesMax = Math.min(BLOCK_BYTES_MAX, isSingleSegment ? (contentBytes ?? 0) : windowBytes);
  let boundBytes = 0;
  for (let isLast = false; !isLast; ) {
    if (input.length - at < 3) throw invalid('frame without its last block');
    const word = input.readUIntLE(at, 3);
    isLast = (word & 1) === 1;
    const type = (word >>> 1) & 3;
    const size = word >>> 3;
    if (type === 3 || size > blockBytesMax) throw invalid(`block of type ${type} and ${size} bytes`);
    boundBytes += type === 2 ? blockBytesMax : size;
    at += 3 + (type === 1 ? 1 : size);
  }
  if ((descriptor & 0x04) !== 0) at += 4;
  if (at > input.length) throw invalid('frame beyond the end');
  if (contentBytes !== undefined) {
    if (contentBytes > boundBytes) throw invalid(`content of ${contentBytes} bytes cannot be`);
    boundBytes = contentBytes;
  }
  return { isSkippable: false, contentBytes, boundBytes, end: at };
}

function readContentBytes(input: Buffer, at: number, sizeBytes: number): number | undefined {
  switch (sizeBytes) {
    case 0:
      return undefined;
    case 1:
      return input[at];
    case 2:
      return input.readUInt16LE(at) + 256;
    case 4:
      return input.readUInt32LE(at);
    default:
      return input.readUInt32LE(at) + input.readUInt32LE(at + 4) * 2 ** 32;
  }
}

/** What Node's zlib has from 22.15 on; its types here are those of Node 20. */
interface NodeZstd {
  zstdCompressSync(bytes: Uint8Array): Buffer;
  zstdDecompressSync(bytes: Uint8Array, options: { maxOutputLength: number }): Buffer;
}

/** Node's own zstd; undefined before 22.15. */
export function nodeZstd(): ZstdFrames | undefined {
  if (!('zstdDecompressSync' in zlib)) return undefined;
  // The check above is what the cast relies on: both functions came with the same release.
  const node = zlib as unknown as NodeZstd;
  return {
    compress: (bytes) => node.zstdCompressSync(bytes),
    // zlib refuses a limit of 0.
    decompress: (frame, boundBytes) => node.zstdDecompressSync(frame, { maxOutputLength: Math.max(1, boundBytes) }),
  };
}

function tooLong(maxBytes: number): MillraceError {
  return new MillraceError('MESSAGE_TOO_LARGE', `zstd holds more than the ${maxBytes} bytes that are allowed`);
}

function invalid(message: string): MillraceError {
  return new MillraceError('INVALID_RECORD', `zstd: ${message}`);
}
