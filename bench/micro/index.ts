/**
 * Micro benchmarks: `node dist/bench/micro/index.js [word]` measures the cases whose name or group contains the word,
 * half a second each (MICRO_SECONDS for another time), and prints a table. A speed claim in a commit is a number from
 * here, before and after, on the same machine.
 */
import { loadNative } from '../../storage/native.ts';
import { compressionCases } from './compression.ts';
import { crc32cCases } from './crc32c.ts';
import { type MicroCase, formatResults, measure } from './measure.ts';
import { recordBatchCases } from './record-batch.ts';

const word = process.argv[2] ?? '';
const seconds = Number(process.env.MICRO_SECONDS ?? 0.5);

function runGroup(title: string, cases: readonly MicroCase[]): void {
  const wanted = cases.filter(({ name }) => `${title} ${name}`.includes(word));
  if (wanted.length === 0) return;
  const results = wanted.map((each) => measure(each, seconds));
  console.log(`${formatResults(title, results)}\n`);
}

const report = await loadNative();
console.log(
  `Node ${process.version}, ${process.arch}; CRC32C ${report.crc32c}, snappy ${report.snappy}, lz4 ${report.lz4}, zstd ${report.zstd}\n`,
);
runGroup('CRC32C', crc32cCases);
runGroup('record batch', recordBatchCases);
runGroup('codecs', compressionCases('installed'));
await loadNative({ pure: true });
runGroup(
  'codecs',
  compressionCases('pure').filter(({ name }) => /^(snappy|lz4)/.test(name)),
);
