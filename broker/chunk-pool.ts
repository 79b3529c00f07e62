/**
 * Memory that batches read from files lie in, used again and again: a fresh megabyte for every read costs the garbage
 * collector more than the read itself. A chunk counts its users and goes back to its pool after the last.
 */

const CHUNK_BYTES = 1024 * 1024;
const KEPT_MAX = 8;

export class Chunk {
  readonly bytes: Buffer;
  readonly #pool: ChunkPool;
  #users = 1;

  /** With one user: whoever takes it. */
  constructor(bytes: Buffer, pool: ChunkPool) {
    this.bytes = bytes;
    this.#pool = pool;
  }

  retain(): void {
    this.#users++;
  }
  /** Once for each user: nothing of it is looked at any more. */
  release(): void {
    this.#users--;
    if (this.#users === 0) this.#pool.give(this.bytes);
    else if (this.#users < 0) throw new Error('a chunk was released too often');
  }
}

export class ChunkPool {
  readonly #free: Buffer[] = [];

  /** At least `sizeBytes`. */
  take(sizeBytes: number): Chunk {
    if (sizeBytes > CHUNK_BYTES) return new Chunk(Buffer.allocUnsafeSlow(sizeBytes), this);
    return new Chunk(this.#free.pop() ?? Buffer.allocUnsafeSlow(CHUNK_BYTES), this);
  }

  give(bytes: Buffer): void {
    if (bytes.length === CHUNK_BYTES && this.#free.length < KEPT_MAX) this.#free.push(bytes);
  }
}
