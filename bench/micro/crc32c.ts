/** CRC32C by table and as registered, over sizes from a small record to a large batch. */
import { crc32c, crc32cByTable } from '../../protocol/crc32c.ts';
import type { MicroCase } from './measure.ts';

const sizes = [64, 256, 1024, 16 * 1024, 1024 * 1024];

export const crc32cCases: MicroCase[] = sizes.flatMap((bytes) => {
  const input = Buffer.alloc(bytes, 'The quick brown fox jumps over the lazy dog. ');
  return [
    { name: `table, ${bytes} B`, bytes, run: () => crc32cByTable(input, 0, bytes) },
    { name: `as registered, ${bytes} B`, bytes, run: () => crc32c(input, 0, bytes) },
  ];
});
