import test from 'ava';
import fc from 'fast-check';
import { codecs } from '../../protocol/compression.ts';
import {
  batchAttributes,
  batchBaseOffset,
  batchBaseSequence,
  batchBaseTimestamp,
  batchLastOffset,
  batchMaxTimestamp,
  batchProducerEpoch,
  batchProducerId,
  batchRecordCount,
  buildBatch,
  checkStoredBatch,
  readRecords,
  type RecordInit,
} from '../../protocol/record-batch.ts';
import { type BatchRules, filterBatch, KeyFilter, OffsetFilter } from '../../storage/batch-filter.ts';
import { KeyMap } from '../../storage/key-map.ts';
import { loadNative } from '../../storage/native.ts';

test.before(() => loadNative());

const HORIZON = 0x40;
const rulesFor = (filter: BatchRules['filter'], rest: Partial<BatchRules> = {}): BatchRules => ({
  filter,
  deleteHorizonMs: -1,
  isProducersLast: () => false,
  ...rest,
});
const keepOnly = (...offsets: number[]): OffsetFilter =>
  new OffsetFilter(0, Number.MAX_SAFE_INTEGER, Float64Array.from(offsets));
const record = (key: string | null, value: string | null, timestamp = 1000): RecordInit => ({
  key: key === null ? null : Buffer.from(key),
  value: value === null ? null : Buffer.from(value),
  timestamp,
});

const records = fc.array(
  fc.record({
    key: fc.option(fc.uint8Array({ maxLength: 20 }), { nil: null }),
    value: fc.option(fc.uint8Array({ maxLength: 200 }), { nil: null }),
    timestamp: fc.oneof(fc.integer({ min: -1, max: 5000 }), fc.integer({ min: 0, max: 2 ** 45 })),
    headers: fc.array(fc.record({ key: fc.string({ maxLength: 5 }), value: fc.constant(Buffer.from('v')) }), {
      maxLength: 2,
    }),
  }),
  { minLength: 1, maxLength: 30 },
);

test('what is kept is as it was, in every codec, and the batch stays where it was', (t) => {
  fc.assert(
    fc.property(
      records,
      fc.constantFrom(...codecs),
      fc.constantFrom('CreateTime', 'LogAppendTime'),
      fc.func(fc.boolean()),
      fc.constantFrom(-1, 0, 4000, 2 ** 44),
      (given, compression, timestampType, isKept, deleteHorizonMs) => {
        const baseOffset = 5_000_000_000;
        const options = { compression, timestampType, producerId: 7, producerEpoch: 2, baseSequence: 40 } as const;
        const batch = buildBatch(given, { ...options, baseOffset, leaderEpoch: 3 });
        const before = readRecords(batch, 0);
        const keep = before.filter(({ offset }) => isKept(offset));
        const rules = rulesFor(keepOnly(...keep.map(({ offset }) => offset)), {
          deleteHorizonMs,
          isProducersLast: (offset) => offset === baseOffset + given.length - 1,
        });
        const padded = Buffer.concat([Buffer.from('xyz'), batch]);
        const { bytes, isChanged, keptCount, droppedCount } = filterBatch(padded, 3, batch.length, rules);
        if (bytes === undefined) throw new Error('the newest batch of a producer went');
        t.is(checkStoredBatch(bytes, 0, bytes.length), bytes.length);
        t.deepEqual(readRecords(bytes, 0), keep);
        t.deepEqual([keptCount, droppedCount], [keep.length, before.length - keep.length]);
        t.is(batchBaseOffset(bytes, 0), baseOffset);
        t.is(batchLastOffset(bytes, 0), baseOffset + given.length - 1);
        t.deepEqual([batchProducerId(bytes, 0), batchProducerEpoch(bytes, 0), batchBaseSequence(bytes, 0)], [7, 2, 40]);
        const isMarked = (batchAttributes(bytes, 0) & HORIZON) !== 0;
        t.is(isMarked, deleteHorizonMs >= 0 && keep.some(({ value }) => value === null));
        if (isMarked) t.is(batchBaseTimestamp(bytes, 0), deleteHorizonMs);
        if (!isChanged) t.deepEqual(bytes, batch);
        const largest =
          keep.length === 0 || timestampType === 'LogAppendTime'
            ? batchMaxTimestamp(batch, 0)
            : Math.max(...keep.map(({ timestamp }) => timestamp));
        t.is(batchMaxTimestamp(bytes, 0), largest);
        // Once more with the same rules: nothing is left to do.
        t.deepEqual(filterBatch(bytes, 0, bytes.length, rules).bytes, bytes);
      },
    ),
    { numRuns: 300 },
  );
});

test('a batch without records goes, unless a producer is known by it', (t) => {
  const batch = buildBatch([record('a', '1'), record('b', '2')], {
    baseOffset: 10,
    producerId: 1,
    producerEpoch: 0,
    baseSequence: 5,
    compression: 'gzip',
  });
  t.is(filterBatch(batch, 0, batch.length, rulesFor(keepOnly())).bytes, undefined);
  const rules = rulesFor(keepOnly(), { isProducersLast: (offset) => offset === 11 });
  const { bytes } = filterBatch(batch, 0, batch.length, rules);
  t.is(bytes?.length, 61);
  if (bytes === undefined) return;
  t.is(checkStoredBatch(bytes, 0, 61), 61);
  t.deepEqual([batchRecordCount(bytes, 0), batchLastOffset(bytes, 0), batchBaseTimestamp(bytes, 0)], [0, 11, -1]);
  t.is(batchMaxTimestamp(bytes, 0), 1000);
  t.is(batchAttributes(bytes, 0), 0);
  t.deepEqual(readRecords(bytes, 0), []);
  // A newer batch of that producer has come.
  t.is(filterBatch(bytes, 0, 61, rulesFor(keepOnly())).bytes, undefined);
});

test('control batches stay as they are', (t) => {
  const marker = { key: Buffer.from([0, 0, 0, 1]), value: Buffer.alloc(6), timestamp: 1 };
  const batch = buildBatch([marker], { isControl: true, isTransactional: true, producerId: 4, producerEpoch: 0 });
  const { bytes, isChanged } = filterBatch(batch, 0, batch.length, rulesFor(keepOnly()));
  t.deepEqual(bytes, batch);
  t.false(isChanged);
});

test('of each key the newest record stays, and what the map has not seen', (t) => {
  const map = KeyMap.allocate(10, 1024 * 1024);
  for (const [key, offset] of [
    ['a', 3],
    ['b', 11],
  ] as const)
    map.put(Buffer.from(key), offset);
  const keys = ['a', 'b', null, 'a', 'c', 'b', 'a'];
  const batch = buildBatch(keys.map((key, index) => record(key, `${index}`)));
  const kept = (mappedTo: number): string[] => {
    const { bytes } = filterBatch(batch, 0, batch.length, rulesFor(new KeyFilter(map, mappedTo, 0)));
    return bytes === undefined ? [] : readRecords(bytes, 0).map(({ value }) => String(value));
  };
  t.deepEqual(kept(7), ['3', '4', '6']);
  t.deepEqual(kept(2), ['2', '3', '4', '5', '6']);
});

test('a tombstone gets a horizon when it is first seen, and goes when that has passed', (t) => {
  const map = KeyMap.allocate(10, 1024 * 1024);
  map.put(Buffer.from('a'), 0);
  map.put(Buffer.from('b'), 1);
  const batch = buildBatch([record('a', null, 70), record('b', 'x', 90)], { compression: 'snappy' });
  const at = (nowMs: number, bytes: Buffer) =>
    filterBatch(bytes, 0, bytes.length, rulesFor(new KeyFilter(map, 2, nowMs), { deleteHorizonMs: nowMs + 500 }));
  const first = at(10_000, batch);
  if (first.bytes === undefined) return t.fail();
  t.is(batchBaseTimestamp(first.bytes, 0), 10_500);
  t.deepEqual(
    readRecords(first.bytes, 0).map(({ timestamp }) => timestamp),
    [70, 90],
  );
  t.false(at(10_499, first.bytes).isChanged);
  const last = at(10_500, first.bytes);
  if (last.bytes === undefined) return t.fail();
  t.deepEqual(
    readRecords(last.bytes, 0).map(({ offset, timestamp }) => [offset, timestamp]),
    [[1, 90]],
  );
  // As in Apache Kafka, the horizon stays with the batch.
  t.is(batchBaseTimestamp(last.bytes, 0), 10_500);
});

test('the key map knows the newest offset of every key until it is full', (t) => {
  const map = KeyMap.allocate(1000, 24 * 300);
  t.true(map.capacity < 300 && map.capacity > 250);
  const expected = new Map<string, number>();
  for (let offset = 0; !map.isFull; offset++) {
    const key = `key ${(offset * 7919) % 331}`;
    map.put(Buffer.from(key), offset);
    expected.set(key, offset);
  }
  // Another view of the same memory, as a thread has it.
  const seen = new KeyMap(map.buffer);
  t.is(seen.count, expected.size);
  for (const [key, offset] of expected) t.is(seen.get(Buffer.from(key)), offset);
  t.is(seen.get(Buffer.from('never')), -1);
});
