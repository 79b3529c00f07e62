/**
 * Plugs faster implementations of CRC32C and the codecs into `protocol/`, where they are installed. All are optional:
 * without them the ones in TypeScript serve, and the tests run both ways. A binding is used only after it has done known
 * bytes right. Called once at the start of every process that handles batches, and never needed for correctness.
 */
import { createRequire } from 'node:module';
import { type CodecImplementation, registerCodec } from '../protocol/compression.ts';
import { crc32cByTable, registerCrc32c } from '../protocol/crc32c.ts';
import { lz4Codec } from '../protocol/lz4.ts';
import { pureSnappy, snappyCodec } from '../protocol/snappy.ts';
import { nodeZstd, zstdCodec } from '../protocol/zstd.ts';
import { wasmZstd } from './zstd-wasm.ts';

export interface NativeOptions {
  /** Use nothing that is installed, except for zstd on Node before 22.15. Default: whether MILLRACE_PURE=1 is set. */
  readonly pure?: boolean;
}

/** What serves from now on. A codec that is 'native' or 'wasm' is opened at its first use. */
export interface NativeReport {
  readonly crc32c: 'native' | 'pure';
  readonly snappy: 'native' | 'pure';
  readonly lz4: 'native' | 'pure';
  readonly zstd: 'node' | 'wasm' | 'missing';
}

interface Crc32Package {
  readonly crc32c: (bytes: Uint8Array, seed: number) => number;
}
interface SnappyPackage {
  readonly compressSync: (bytes: Uint8Array, options: { copyOutputData: boolean }) => Buffer;
  readonly uncompressSync: (bytes: Uint8Array, options: { copyOutputData: boolean }) => Buffer;
}
interface Lz4Package {
  readonly compressFrameSync: (bytes: Buffer) => Buffer;
}

const require = createRequire(import.meta.url);

/** Registers what is installed and answers what serves; calling it again with other options changes it. */
export async function loadNative(options: NativeOptions = {}): Promise<NativeReport> {
  const isPure = options.pure ?? process.env.MILLRACE_PURE === '1';
  const nativeCrc32c = isPure ? undefined : openCrc32c();
  registerCrc32c(nativeCrc32c);
  const hasSnappy = !isPure && isInstalled('snappy');
  registerCodec('snappy', hasSnappy ? openedAtFirstUse(openSnappy) : undefined);
  const hasLz4 = !isPure && isInstalled('lz4-napi');
  registerCodec('lz4', hasLz4 ? openedAtFirstUse(openLz4) : undefined);
  const hasNodeZstd = nodeZstd() !== undefined;
  const hasWasmZstd = !hasNodeZstd && isInstalled('@bokuweb/zstd-wasm');
  registerCodec('zstd', hasWasmZstd ? openedAtFirstUse(openZstd) : undefined);
  return {
    crc32c: nativeCrc32c === undefined ? 'pure' : 'native',
    snappy: hasSnappy ? 'native' : 'pure',
    lz4: hasLz4 ? 'native' : 'pure',
    zstd: hasNodeZstd ? 'node' : hasWasmZstd ? 'wasm' : 'missing',
  };
}

function isInstalled(name: string): boolean {
  try {
    require.resolve(name);
    return true;
  } catch {
    // Not installed: an optional dependency.
    return false;
  }
}

/** Opening a binding takes 2–5 ms and memory; most processes never see most codecs. */
function openedAtFirstUse(open: () => CodecImplementation): CodecImplementation {
  let opened: CodecImplementation | undefined;
  return {
    compress(bytes) {
      opened ??= open();
      return opened.compress(bytes);
    },
    decompress(bytes, maxBytes) {
      opened ??= open();
      return opened.decompress(bytes, maxBytes);
    },
  };
}

/** Repeats, so that there is something to compress, and bytes of every value. */
const known = Buffer.from(Array.from({ length: 3000 }, (_, index) => (index * index) >>> 3));

function openCrc32c(): ((bytes: Uint8Array, seed: number) => number) | undefined {
  try {
    // The package's own declaration says the same.
    const { crc32c } = require('@node-rs/crc32') as Crc32Package;
    const part = crc32c(known.subarray(0, 1000), 0);
    const isRight = crc32c(known.subarray(1000), part) === crc32cByTable(known, 0, known.length);
    return isRight ? crc32c : undefined;
  } catch {
    // Not installed, or not for this platform: the table serves.
    return undefined;
  }
}

function openSnappy(): CodecImplementation {
  const pure = snappyCodec(pureSnappy);
  return verified(pure, () => {
    const snappy = require('snappy') as SnappyPackage;
    // Copy: V8 takes over foreign memory so slowly that copying out of it is 3 to 6 times faster.
    const options = { copyOutputData: true };
    return snappyCodec({
      compress: (bytes) => snappy.compressSync(bytes, options),
      decompress: (block) => snappy.uncompressSync(block, options),
    });
  });
}

function openLz4(): CodecImplementation {
  return verified(lz4Codec(), () => {
    const lz4 = require('lz4-napi') as Lz4Package;
    // Only to compress: its results are foreign memory, which costs more than decompressing in TypeScript.
    return lz4Codec((bytes) => lz4.compressFrameSync(bytes));
  });
}

/** `open()` if it understands `pure` and the reverse, else `pure`. */
function verified(pure: CodecImplementation, open: () => CodecImplementation): CodecImplementation {
  try {
    const native = open();
    const there = pure.decompress(native.compress(known), known.length);
    const back = native.decompress(pure.compress(known), known.length);
    return there.equals(known) && back.equals(known) ? native : pure;
  } catch {
    // Not for this platform, or not what it was: the one in TypeScript serves.
    return pure;
  }
}

/** A zstd frame of 'millrace millrace millrace', made by the zstd command. */
const KNOWN_FRAME = Buffer.from('28b52ffd04587d0000486d696c6c726163652001009ccb11af35f474', 'hex');

function openZstd(): CodecImplementation {
  const codec = zstdCodec(wasmZstd());
  if (codec.decompress(KNOWN_FRAME, 100).toString() !== 'millrace millrace millrace') {
    throw new Error('@bokuweb/zstd-wasm is not the version that was expected');
  }
  return codec;
}
