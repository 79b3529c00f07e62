/**
 * Memory that batches are read into, used again and again: fresh memory for every read costs the garbage collector more than
 * the read itself. A chunk counts its users and goes back to its pool after the last.
 */

const CHUNK_BYTES_MIN = 1024;
/** Larger ones are not kept. */
const CHUNK_BYTES_MAX = 1024 * 1024;
/** Free chunks of all sizes. */
const FREE_BYTES_MAX = 8 * CHUNK_BYTES_MAX;

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
  /** By the power of two that is their size. */
  readonly #free: Buffer[][] = Array.from({ length: Math.log2(CHUNK_BYTES_MAX) + 1 }, () => []);
  #freeBytes = 0;

  /** At least `sizeBytes`. */
  take(sizeBytes: number): Chunk {
    if (sizeBytes > CHUNK_BYTES_MAX) return new Chunk(Buffer.allocUnsafeSlow(sizeBytes), this);
    const power = powerOf(Math.max(CHUNK_BYTES_MIN, sizeBytes));
    const free = this.#free[power].pop();
    if (free === undefined) return new Chunk(Buffer.allocUnsafeSlow(2 ** power), this);
    this.#freeBytes -= free.length;
    return new Chunk(free, this);
  }

  give(bytes: Buffer): void {
    if (bytes.length > CHUNK_BYTES_MAX || this.#freeBytes + bytes.length > FREE_BYTES_MAX) return;
    this.#freeBytes += bytes.length;
    this.#free[powerOf(bytes.length)].push(bytes);
  }
}

/** Of the smallest power of two that is not smaller. */
const powerOf = (sizeBytes: number): number => 32 - Math.clz32(sizeBytes - 1);
