/**
 * Bytes on their way to a peer: small things lie one after the other in chunks that all connections of the door share, so
 * that what a turn has to say is a few large buffers and an idle connection holds no memory; large bodies are passed on as
 * they are.
 *
 * Always true: memory that `take` gave is written before anything else is taken; a chunk is never used again for other
 * bytes, so what was taken can be sent at any time.
 */

/** What is put together at most: a large body is not worth a copy. */
export const PACK_BYTES_MAX = 16 * 1024;
const CHUNK_BYTES = 64 * 1024;
const NOTHING = Buffer.alloc(0);

/** The chunk that is being filled, by whoever has something to say. */
export class OutputChunks {
  bytes: Buffer = NOTHING;
  end = 0;

  /** Memory for `sizeBytes` at `end`. */
  provide(sizeBytes: number): void {
    if (this.bytes.length - this.end >= sizeBytes) return;
    this.bytes = Buffer.allocUnsafeSlow(Math.max(CHUNK_BYTES, sizeBytes));
    this.end = 0;
  }
}

export class Output {
  readonly #chunks: OutputChunks;
  #buffers: Buffer[] = [];
  /** The newest bytes are these of a chunk. */
  #chunk: Buffer | undefined;
  #start = 0;
  #end = 0;
  #sizeBytes = 0;
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
    if (this.#chunk !== chunks.bytes || this.#end !== chunks.end) {
      this.#seal();
      this.#chunk = chunks.bytes;
      this.#start = chunks.end;
    }
    const at = chunks.end;
    chunks.end += sizeBytes;
    this.#end = chunks.end;
    this.#sizeBytes += sizeBytes;
    this.bytes = chunks.bytes;
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
    if (this.#chunk !== undefined) this.#buffers.push(this.#chunk.subarray(this.#start, this.#end));
    this.#chunk = undefined;
  }

  /** Everything so far, which the caller sends now. */
  drain(): Buffer[] {
    this.#seal();
    const buffers = this.#buffers;
    this.#buffers = [];
    this.#sizeBytes = 0;
    this.bytes = NOTHING;
    return buffers;
  }
}
