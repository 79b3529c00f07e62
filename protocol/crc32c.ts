/**
 * CRC32C (Castagnoli, RFC 3720 appendix B.4), the checksum of record batches, journal records and checkpoints.
 *
 * The table version (slice by 8) is always here and is the faster one for small inputs; `storage/native.ts` registers a
 * native one for the larger. Both continue from a seed: the checksum of the bytes before.
 */

/** Checksum of `bytes`, continuing from `seed` (0 for a fresh start). */
export type Crc32c = (bytes: Uint8Array, seed: number) => number;

/** Below this size a call out of JavaScript costs more than it saves (bench/micro: about 180 ns against 0.8 ns a byte). */
const NATIVE_BYTES_MIN = 256;

let native: Crc32c | undefined;

/** From now on `implementation` does the inputs of 256 bytes and more; `undefined` returns to the table. */
export function registerCrc32c(implementation: Crc32c | undefined): void {
  native = implementation;
}

/** CRC32C of `sizeBytes` bytes from `offset`, as uint32. `seed` is the checksum of what came before, 0 by default. */
export function crc32c(bytes: Uint8Array, offset: number, sizeBytes: number, seed = 0): number {
  if (native !== undefined && sizeBytes >= NATIVE_BYTES_MIN) {
    return native(bytes.subarray(offset, offset + sizeBytes), seed);
  }
  return crc32cByTable(bytes, offset, sizeBytes, seed);
}

const POLYNOMIAL_REVERSED = 0x82f63b78;

/** Eight tables of 256: table k advances a byte's remainder by k further zero bytes. */
const tables = ((): Uint32Array => {
  const table = new Uint32Array(8 * 256);
  for (let byte = 0; byte < 256; byte++) {
    let crc = byte;
    for (let bit = 0; bit < 8; bit++) crc = (crc & 1) === 1 ? (crc >>> 1) ^ POLYNOMIAL_REVERSED : crc >>> 1;
    table[byte] = crc;
  }
  for (let index = 256; index < 8 * 256; index++) {
    const before = table[index - 256];
    table[index] = table[before & 0xff] ^ (before >>> 8);
  }
  return table;
})();

/** The same as `crc32c` without the native implementation. */
export function crc32cByTable(bytes: Uint8Array, offset: number, sizeBytes: number, seed = 0): number {
  const t = tables;
  let crc = ~seed;
  let at = offset;
  const end = offset + sizeBytes;
  for (const wholeEnd = end - 7; at < wholeEnd; at += 8) {
    crc ^= bytes[at] | (bytes[at + 1] << 8) | (bytes[at + 2] << 16) | (bytes[at + 3] << 24);
    crc =
      t[1792 + (crc & 0xff)] ^
      t[1536 + ((crc >>> 8) & 0xff)] ^
      t[1280 + ((crc >>> 16) & 0xff)] ^
      t[1024 + (crc >>> 24)] ^
      t[768 + bytes[at + 4]] ^
      t[512 + bytes[at + 5]] ^
      t[256 + bytes[at + 6]] ^
      t[bytes[at + 7]];
  }
  for (; at < end; at++) crc = t[(crc ^ bytes[at]) & 0xff] ^ (crc >>> 8);
  return ~crc >>> 0;
}
