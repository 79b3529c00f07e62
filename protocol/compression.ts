/**
 * The five codecs of record batches behind one table, in the framings that Kafka clients write: gzip (RFC 1952), snappy
 * in xerial's framing, the LZ4 frame format, zstd (RFC 8878).
 *
 * Everything is synchronous and bounded: `decompress` ends with an error before it has produced more than it may.
 * Faster implementations are registered by `storage/native.ts`; the ones here need nothing but Node.
 */
import * as zlib from 'node:zlib';
import { type ErrorCode, MillraceError } from './errors.ts';
import { lz4Codec } from './lz4.ts';
import { pureSnappy, snappyCodec } from './snappy.ts';
import { nodeZstd, zstdCodec } from './zstd.ts';

export type Codec = 'none' | 'gzip' | 'snappy' | 'lz4' | 'zstd';

/** Codecs by the number they have in a batch's attributes. */
export const codecs: readonly Codec[] = ['none', 'gzip', 'snappy', 'lz4', 'zstd'];

export interface CodecImplementation {
  compress(bytes: Uint8Array): Buffer;
  /** Throws a `MillraceError` if the result would be larger than `maxBytes`, any error if `bytes` is not valid. */
  decompress(bytes: Uint8Array, maxBytes: number): Buffer;
}

const gzip: CodecImplementation = {
  compress: (bytes) => zlib.gzipSync(bytes),
  // zlib refuses a limit of 0.
  decompress: (bytes, maxBytes) => zlib.gunzipSync(bytes, { maxOutputLength: Math.max(1, maxBytes) }),
};

const builtInZstd = nodeZstd();

const builtIn: Record<Codec, CodecImplementation | undefined> = {
  none: undefined,
  gzip,
  snappy: snappyCodec(pureSnappy),
  lz4: lz4Codec(),
  zstd: builtInZstd === undefined ? undefined : zstdCodec(builtInZstd),
};

const implementations: Record<Codec, CodecImplementation | undefined> = { ...builtIn };

/** From now on `implementation` serves `codec`; `undefined` returns to the built-in one. */
export function registerCodec(codec: Exclude<Codec, 'none'>, implementation: CodecImplementation | undefined): void {
  implementations[codec] = implementation ?? builtIn[codec];
}

/** Whether batches of this codec can be read and written here; only zstd may be missing. */
export function isAvailable(codec: Codec): boolean {
  return codec === 'none' || implementations[codec] !== undefined;
}

/** `bytes` compressed in the framing of Kafka's clients; for `none` a view of `bytes`. */
export function compress(codec: Codec, bytes: Uint8Array): Buffer {
  if (codec === 'none') return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  return implementationOf(codec).compress(bytes);
}

/**
 * The reverse of `compress`. Errors: MESSAGE_TOO_LARGE beyond `maxBytes`, INVALID_RECORD for bytes that are not what the
 * codec writes, UNSUPPORTED_COMPRESSION_TYPE where the codec is not available.
 */
export function decompress(codec: Codec, bytes: Uint8Array, maxBytes: number): Buffer {
  if (codec === 'none') return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const implementation = implementationOf(codec);
  try {
    return implementation.decompress(bytes, maxBytes);
  } catch (cause) {
    if (cause instanceof MillraceError) throw cause;
    const isTooLarge = cause instanceof RangeError && 'code' in cause && cause.code === 'ERR_BUFFER_TOO_LARGE';
    const code: ErrorCode = isTooLarge ? 'MESSAGE_TOO_LARGE' : 'INVALID_RECORD';
    const what = isTooLarge ? `more than ${maxBytes} bytes when decompressed` : 'not decompressible';
    throw new MillraceError(code, `${bytes.length} bytes of ${codec} are ${what}`, { cause });
  }
}

function implementationOf(codec: Exclude<Codec, 'none'>): CodecImplementation {
  const implementation = implementations[codec];
  if (implementation === undefined) {
    throw new MillraceError('UNSUPPORTED_COMPRESSION_TYPE', `${codec} is not available in this installation`);
  }
  return implementation;
}
