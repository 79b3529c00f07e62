/** The codecs as built in and as installed, on a batch of JSON records. */
import { type Codec, compress, decompress, isAvailable } from '../../protocol/compression.ts';
import type { MicroCase } from './measure.ts';

const records = Buffer.from(
  Array.from({ length: 160 }, (_, index) =>
    JSON.stringify({ id: index * 7919, kind: index % 3 === 0 ? 'created' : 'updated', price: (index * 37) % 1000 }),
  ).join(''),
);

/** With whatever is registered when it is called. `kind` names that in the table. */
export function compressionCases(kind: string): MicroCase[] {
  const all: Codec[] = ['gzip', 'snappy', 'lz4', 'zstd'];
  return all.filter(isAvailable).flatMap((codec) => {
    const packed = compress(codec, records);
    const ratio = (records.length / packed.length).toFixed(1);
    const bytes = records.length;
    return [
      { name: `${codec} compress, ${kind}, ${ratio} : 1`, bytes, run: () => compress(codec, records) },
      { name: `${codec} decompress, ${kind}`, bytes, run: () => decompress(codec, packed, bytes) },
    ];
  });
}
