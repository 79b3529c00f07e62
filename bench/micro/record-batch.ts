/** What a batch costs on its way through the broker: check, walk, stamp, read, build. */
import {
  BATCH_OVERHEAD_BYTES,
  type RecordInit,
  batchRecordCount,
  buildBatch,
  checkProducedBatch,
  checkStoredBatch,
  findTimestamp,
  readRecords,
  stampAppendTime,
  stampBatch,
} from '../../protocol/record-batch.ts';
import { walkRecords } from '../../protocol/record-walk.ts';
import type { MicroCase } from './measure.ts';

const limits = { maxBytes: 10_000_000 };
const T = 1_700_000_000_000;

function casesOf(count: number, valueBytes: number): MicroCase[] {
  const records: RecordInit[] = Array.from({ length: count }, (_, index) => ({
    key: null,
    value: Buffer.alloc(valueBytes, `value ${index} `),
    timestamp: T + (index >>> 3),
  }));
  const batch = buildBatch(records);
  const size = `${count} × ${valueBytes} B`;
  const span = { minDelta: 0, maxDelta: 0 };
  const both = { bytes: batch.length, records: count };
  return [
    {
      name: `walk records, ${size}`,
      ...both,
      run: () => walkRecords(batch, BATCH_OVERHEAD_BYTES, batch.length, batchRecordCount(batch, 0), span),
    },
    { name: `check as produced, ${size}`, ...both, run: () => checkProducedBatch(batch, 0, batch.length, limits) },
    { name: `check as stored, ${size}`, ...both, run: () => checkStoredBatch(batch, 0, batch.length) },
    { name: `stamp offset, ${size}`, run: () => stampBatch(batch, 0, 1, 1) },
    { name: `find time at the end, ${size}`, ...both, run: () => findTimestamp(batch, 0, T + ((count - 1) >>> 3)) },
    { name: `read into objects, ${size}`, ...both, run: () => readRecords(batch, 0) },
    { name: `build, ${size}`, ...both, run: () => buildBatch(records) },
    // Last: it changes the batch.
    { name: `stamp append time, ${size}`, ...both, run: () => stampAppendTime(batch, 0, T) },
  ];
}

export const recordBatchCases: MicroCase[] = [...casesOf(1, 100), ...casesOf(140, 100), ...casesOf(16, 1000)];
