/** Reusable buffers for file ranges on their way to a socket: a fresh megabyte costs eight times the read itself. */

const LARGE_BYTES = 1024 * 1024;
const SMALL_BYTES_MAX = 128 * 1024;
const KEPT_MAX = 8;

export class PiecePool {
  readonly #free: Buffer[] = [];

  /** At least part of `sizeBytes`: exactly that many, or a whole megabyte's view cut to it. */
  take(sizeBytes: number): Buffer {
    if (sizeBytes <= SMALL_BYTES_MAX) return Buffer.allocUnsafe(sizeBytes);
    const large = this.#free.pop() ?? Buffer.allocUnsafeSlow(LARGE_BYTES);
    return large.subarray(0, Math.min(sizeBytes, LARGE_BYTES));
  }

  /** The caller does not use `piece` again. */
  give(piece: Buffer): void {
    if (piece.buffer.byteLength !== LARGE_BYTES || this.#free.length >= KEPT_MAX) return;
    this.#free.push(Buffer.from(piece.buffer, 0, LARGE_BYTES));
  }
}
