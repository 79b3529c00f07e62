/**
 * zstd for Node before 22.15, from the WebAssembly file of @bokuweb/zstd-wasm: the zstd library as it is.
 *
 * The package's own JavaScript starts asynchronously, trusts the size that a frame claims and never gives memory back;
 * so only its .wasm is used, through the exports of exactly this version (`storage/native.ts` tries them on known bytes
 * first). It is compiled at first use, and an instance whose memory has grown large is dropped.
 */
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import type { ZstdFrames } from '../protocol/zstd.ts';

/** What of WebAssembly is used here; the types of Node 20 do not have it. */
interface Memory {
  readonly buffer: ArrayBuffer;
  grow(pages: number): number;
}
declare const WebAssembly: {
  Module: new (bytes: Uint8Array) => object;
  Instance: new (module: object, imports: object) => { readonly exports: object };
};

/** The exports have short names given by the compiler. */
interface Exports {
  readonly f: Memory;
  /** Constructors, called once. */
  readonly g: () => void;
  /** ZSTD_isError(result) */
  readonly h: (result: number) => number;
  /** ZSTD_compressBound(sizeBytes) */
  readonly i: (sizeBytes: number) => number;
  /** ZSTD_compress(target, capacityBytes, source, sizeBytes, level) */
  readonly m: (target: number, capacityBytes: number, source: number, sizeBytes: number, level: number) => number;
  /** ZSTD_decompress(target, capacityBytes, source, sizeBytes) */
  readonly r: (target: number, capacityBytes: number, source: number, sizeBytes: number) => number;
  /** malloc(sizeBytes), 0 if there is no room */
  readonly s: (sizeBytes: number) => number;
  /** free(address) */
  readonly t: (address: number) => void;
}

const LEVEL = 3;
/** An instance with more memory than this is dropped after the call; the next one starts with 16 MiB. */
const KEPT_MEMORY_BYTES = 32 * 1024 * 1024;
const MEMORY_BYTES_MAX = 1024 * 1024 * 1024;
const PAGE_BYTES = 64 * 1024;

/** The library in the installed package; throws if it is not there. */
export function wasmZstd(): ZstdFrames {
  const entry = createRequire(import.meta.url).resolve('@bokuweb/zstd-wasm');
  let module: object | undefined;
  let exports: Exports | undefined;

  function run(
    input: Buffer,
    capacityBytes: number,
    work: (e: Exports, target: number, source: number) => number,
  ): Buffer {
    module ??= new WebAssembly.Module(readFileSync(join(dirname(entry), 'zstd.wasm')));
    exports ??= instantiate(module);
    const { f: memory, h: isError, s: malloc, t: free } = exports;
    const source = malloc(Math.max(1, input.length));
    const target = malloc(Math.max(1, capacityBytes));
    try {
      if (source === 0 || target === 0)
        throw new RangeError(`no memory for ${input.length} and ${capacityBytes} bytes`);
      new Uint8Array(memory.buffer).set(input, source);
      const result = work(exports, target, source);
      if (isError(result) !== 0) throw new Error(`zstd error ${-result}`);
      // Copy: the memory of the instance is used again by the next call. It may also have been replaced by a larger one.
      return Buffer.from(new Uint8Array(memory.buffer, target, result));
    } finally {
      if (source !== 0) free(source);
      if (target !== 0) free(target);
      if (memory.buffer.byteLength > KEPT_MEMORY_BYTES) exports = undefined;
    }
  }

  return {
    compress(bytes) {
      // ZSTD_compressBound: what incompressible input can grow to.
      const capacityBytes = bytes.length + (bytes.length >>> 8) + 1024;
      return run(bytes, capacityBytes, (e, target, source) => e.m(target, capacityBytes, source, bytes.length, LEVEL));
    },
    decompress(frame, boundBytes) {
      return run(frame, boundBytes, (e, target, source) => e.r(target, boundBytes, source, frame.length));
    },
  };
}

function instantiate(module: object): Exports {
  // The five imports: exit, keep-alive, abort, interval timer, and the one that is used: room for the heap.
  const unexpected = () => {
    throw new Error('zstd stopped');
  };
  let memory: Memory | undefined;
  const grow = (size: number) => {
    const wantedBytes = size >>> 0;
    if (memory === undefined || wantedBytes > MEMORY_BYTES_MAX) return 0;
    try {
      memory.grow(Math.ceil((wantedBytes - memory.buffer.byteLength) / PAGE_BYTES));
      return 1;
    } catch {
      // Refused by the engine: malloc answers 0.
      return 0;
    }
  };
  const imports = { a: { a: unexpected, b: () => {}, c: unexpected, d: () => 0, e: grow } };
  // The exports of this very version; that they are what they are taken for is proven by known bytes before use.
  const exports = new WebAssembly.Instance(module, imports).exports as Exports;
  memory = exports.f;
  exports.g();
  return exports;
}
