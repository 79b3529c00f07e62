/**
 * Bytes on their way to a peer: small things lie one after the other in chunks that all connections of the door share, so
 * that what a turn has to say is a few large buffers and an idle connection holds no memory; large bodies are passed on as
 * they are.
 *
 * Always true: memory that `take` gave is written before anything else is taken; a chunk is used again when everything that
 * was taken of it is sent.
 */

/** What is put together at most: a large body is not worth a copy. */
export const PACK_BYTES_MAX = 16 * 1024;
const CHUNK_BYTES = 64 * 1024;
const NOTHING = Buffer.alloc(0);

/** Free chunks that are kept. */
const FREE_CHUNKS_MAX = 64;

interface OutputChunk {
  readonly bytes: Buffer;
  /** Pieces of it that are not sent, and one while it is being filled. */
  users: number;
}

/** The chunk that is being filled, by whoever has something to say, and those that are free. */
export class OutputChunks {
  current: OutputChunk = { bytes: NOTHING, users: 1 };
  end = 0;
  readonly #free: OutputChunk[] = [];

  /** Memory for `sizeBytes` at `end`. */
  provide(sizeBytes: number): void {
    if (this.current.bytes.length - this.end >= sizeBytes) return;
    this.release(this.current);
    const isCommon = sizeBytes <= CHUNK_BYTES;
    const free = isCommon ? this.#free.pop() : undefined;
    this.current = free ?? { bytes: Buffer.allocUnsafeSlow(Math.max(CHUNK_BYTES, sizeBytes)), users: 0 };
    this.current.users = 1;
    this.end = 0;
  }

  release(chunk: OutputChunk): void {
    chunk.users--;
    if (chunk.users > 0 || chunk.bytes.length !== CHUNK_BYTES || this.#free.length >= FREE_CHUNKS_MAX) return;
    this.#free.push(chunk);
  }
}

export class Output {
  readonly #chunks: OutputChunks;
  #buffers: Buffer[] = [];
  /** The newest bytes are these of a chunk. */
  #chunk: OutputChunk | undefined;
  #start = 0;
  #end = 0;
  #sizeBytes = 0;
  /** What `#buffers` lie in. */
  #held: OutputChunk[] = [];
  /** The same of what is on its way, write by write. */
  readonly #sending: OutputChunk[][] = [];
  /** What `take` is to be written to. */
  bytes: Buffer = NOTHING;

  constructor(chunks: OutputChunks) {
    this.#chunks = chunks;
  }

  get sizeBytes(): number {
    return this.#sizeBytes;
  }

  /** Place for `sizeBytes` in `bytes`; answers where. */
  take(sizeBytes: number): number {
    const chunks = this.#chunks;
    chunks.provide(sizeBytes);
    if (this.#chunk !== chunks.current || this.#end !== chunks.end) {
      this.#seal();
      this.#chunk = chunks.current;
      this.#chunk.users++;
      this.#start = chunks.end;
    }
    const at = chunks.end;
    chunks.end += sizeBytes;
    this.#end = chunks.end;
    this.#sizeBytes += sizeBytes;
    this.bytes = chunks.current.bytes;
    return at;
  }

  /** `buffer` next; it stays as it is until it is sent, or is small and copied. */
  push(buffer: Buffer): void {
    if (buffer.length <= PACK_BYTES_MAX) {
      const at = this.take(buffer.length);
      // Copy: one small write costs more.
      buffer.copy(this.bytes, at);
      return;
    }
    this.#seal();
    this.#buffers.push(buffer);
    this.#sizeBytes += buffer.length;
  }

  #seal(): void {
    const chunk = this.#chunk;
    if (chunk === undefined) return;
    this.#buffers.push(chunk.bytes.subarray(this.#start, this.#end));
    this.#held.push(chunk);
    this.#chunk = undefined;
  }

  /** Everything so far, which the caller sends now; `sent` tells that it is. */
  drain(): Buffer[] {
    this.#seal();
    const buffers = this.#buffers;
    this.#buffers = [];
    this.#sending.push(this.#held);
    this.#held = [];
    this.#sizeBytes = 0;
    this.bytes = NOTHING;
    return buffers;
  }

  /** The oldest of what was drained is sent, and nobody looks at it any more. */
  sent(): void {
    for (const chunk of this.#sending.shift() ?? []) this.#chunks.release(chunk);
  }
}
