import test from 'ava';
import fc from 'fast-check';
import { type Codec, codecs } from '../../protocol/compression.ts';
import { crc32c } from '../../protocol/crc32c.ts';
import { MillraceError } from '../../protocol/errors.ts';
import {
  ATTRIBUTE_CONTROL,
  ATTRIBUTE_DELETE_HORIZON,
  ATTRIBUTE_TIMESTAMP_TYPE,
  BATCH_OVERHEAD_BYTES,
  BatchBuilder,
  type BatchOptions,
  type RecordInit,
  batchAttributes,
  batchBaseOffset,
  batchLastOffset,
  batchLeaderEpoch,
  batchMaxTimestamp,
  batchSizeBytes,
  buildBatch,
  checkCompressedRecords,
  checkProducedBatch,
  checkStoredBatch,
  eachBatch,
  findTimestamp,
  maxTimestampRecord,
  readRecords,
  stampAppendTime,
  stampBatch,
} from '../../protocol/record-batch.ts';
import { loadNative } from '../../storage/native.ts';

await loadNative();

const T = 1_700_000_000_000;
const LIMITS = { maxBytes: 1_000_000 };
const ALL_CODECS: Codec[] = [...codecs];

function records(...timestamps: number[]): RecordInit[] {
  return timestamps.map((timestamp, index) => ({
    key: Buffer.from('key'),
    value: Buffer.from(`value ${index}`),
    timestamp,
  }));
}

/** A batch of three records, changed, with the right CRC after it. */
function changed(change: (batch: Buffer) => void, options: BatchOptions = {}): Buffer {
  const batch = buildBatch(records(T, T + 1, T + 2), options);
  change(batch);
  batch.writeUInt32BE(crc32c(batch, 21, batch.length - 21), 17);
  return batch;
}

function check(batch: Buffer, limits: Parameters<typeof checkProducedBatch>[3] = LIMITS): void {
  checkProducedBatch(batch, 0, batch.length, limits);
  checkCompressedRecords(batch, 0, 1_000_000, limits);
}

const bytesOrNull = fc.option(fc.uint8Array({ maxLength: 200 }), { nil: null });
const anyRecord = fc.record({
  key: bytesOrNull,
  value: bytesOrNull,
  headers: fc.array(fc.record({ key: fc.string({ maxLength: 20, unit: 'binary' }), value: bytesOrNull }), {
    maxLength: 3,
  }),
  timestamp: fc.oneof(
    fc.integer({ min: 0, max: 100 }).map((ms) => T + ms),
    fc.integer({ min: -1, max: 2 ** 52 }),
  ),
});
const anyRecords = fc.array(anyRecord, { minLength: 1, maxLength: 20 });
const anyCodec = fc.constantFrom(...ALL_CODECS);

/** With the Buffers and lone surrogates that come back. */
function asRead(record: RecordInit, offset: number) {
  const buffer = (bytes: Uint8Array | null) => (bytes === null ? null : Buffer.from(bytes));
  const headers = (record.headers ?? []).map(({ key, value }) => ({
    key: Buffer.from(key).toString(),
    value: buffer(value),
  }));
  return { offset, timestamp: record.timestamp, key: buffer(record.key), value: buffer(record.value), headers };
}

test('what is built is accepted, stored and read back, with every codec', (t) => {
  fc.assert(
    fc.property(anyRecords, anyCodec, fc.nat(2 ** 40), (inits, compression, baseOffset) => {
      const batch = buildBatch(inits, { compression, baseOffset });
      check(batch);
      t.is(checkStoredBatch(batch, 0, batch.length), batch.length);
      t.is(batchLastOffset(batch, 0), baseOffset + inits.length - 1);
      t.deepEqual(
        readRecords(batch, 0),
        inits.map((init, index) => asRead(init, baseOffset + index)),
      );
    }),
  );
});

test('a batch stands at any position between other bytes', (t) => {
  for (const compression of ALL_CODECS) {
    const batch = buildBatch(records(T, T + 1), { compression });
    const around = Buffer.concat([Buffer.alloc(13, 0xee), batch, Buffer.alloc(17, 0xee)]);
    checkProducedBatch(around, 13, batch.length, LIMITS);
    checkCompressedRecords(around, 13, 1000);
    t.is(checkStoredBatch(around, 13, batch.length + 17), batch.length);
    t.deepEqual(readRecords(around, 13), readRecords(batch, 0));
  }
});

test('a flipped bit is found, wherever it is, or lies outside the checksum', (t) => {
  const batch = buildBatch(records(T, T + 1, T + 2), { baseOffset: 5 });
  for (let bit = 0; bit < batch.length * 8; bit++) {
    const broken = Buffer.from(batch);
    broken[bit >>> 3] ^= 1 << (bit & 7);
    const isOutside = bit < 8 * 8 || (bit >= 12 * 8 && bit < 16 * 8);
    if (!isOutside) {
      t.throws(() => check(broken), { instanceOf: MillraceError }, `bit ${bit}`);
      t.is(checkStoredBatch(broken, 0, broken.length), -1, `bit ${bit}`);
    }
  }
});

test('a mutated batch with a right checksum is refused or can be read', (t) => {
  const mutation = fc.array(fc.tuple(fc.nat(), fc.nat(255)), { minLength: 1, maxLength: 4 });
  fc.assert(
    fc.property(anyRecords, anyCodec, mutation, (inits, compression, changes) => {
      const batch = buildBatch(inits, { compression });
      for (const [place, value] of changes) batch[21 + (place % (batch.length - 21))] = value;
      batch.writeUInt32BE(crc32c(batch, 21, batch.length - 21), 17);
      try {
        check(batch);
      } catch (error) {
        t.true(error instanceof MillraceError, String(error));
        return;
      }
      const read = readRecords(batch, 0);
      t.deepEqual(
        read.map(({ offset }) => offset),
        read.map((_, index) => index),
      );
      t.is(batchMaxTimestamp(batch, 0), Math.max(...read.map(({ timestamp }) => timestamp)));
      t.is(checkStoredBatch(batch, 0, batch.length), batch.length);
    }),
    { numRuns: 500 },
  );
});

test('random bytes are refused with an error of ours, or are no batch', (t) => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => {
      const batch = Buffer.from(bytes);
      t.throws(() => checkProducedBatch(batch, 0, batch.length, LIMITS), { instanceOf: MillraceError });
      t.is(checkStoredBatch(batch, 0, batch.length), -1);
      try {
        eachBatch(batch, () => true);
      } catch (error) {
        t.true(error instanceof MillraceError);
      }
    }),
  );
});

test('records with random bytes behind a good header are refused or walk to their end', (t) => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 60 }), fc.integer({ min: 1, max: 4 }), anyCodec, (bytes, count, codec) => {
      const batch = Buffer.concat([buildBatch(records(T)).subarray(0, BATCH_OVERHEAD_BYTES), bytes]);
      batch.writeInt32BE(batch.length - 12, 8);
      batch.writeInt16BE(codecs.indexOf(codec), 21);
      batch.writeInt32BE(count - 1, 23);
      batch.writeInt32BE(count, 57);
      batch.writeUInt32BE(crc32c(batch, 21, batch.length - 21), 17);
      for (const work of [() => check(batch), () => readRecords(batch, 0), () => maxTimestampRecord(batch, 0)]) {
        try {
          work();
        } catch (error) {
          t.true(error instanceof MillraceError, String(error));
        }
      }
      t.pass();
    }),
    { numRuns: 500 },
  );
});

/** What Apache Kafka 4.4 answers is the same where it answers an error other than UNKNOWN_SERVER_ERROR. */
const refusals: [string, string, Buffer][] = [
  ['no bytes', 'INVALID_RECORD', Buffer.alloc(0)],
  ['less than a header', 'INVALID_RECORD', buildBatch(records(T)).subarray(0, 40)],
  ['a batch cut short', 'INVALID_RECORD', buildBatch(records(T)).subarray(0, -1)],
  ['two batches', 'INVALID_RECORD', Buffer.concat([buildBatch(records(T)), buildBatch(records(T))])],
  ['bytes after the batch', 'INVALID_RECORD', Buffer.concat([buildBatch(records(T)), Buffer.alloc(1)])],
  ['magic 0', 'INVALID_RECORD', changed((batch) => batch.writeInt8(0, 16))],
  ['magic 1', 'INVALID_RECORD', changed((batch) => batch.writeInt8(1, 16))],
  ['magic 3', 'CORRUPT_MESSAGE', changed((batch) => batch.writeInt8(3, 16))],
  ['a size below the header', 'CORRUPT_MESSAGE', changed((batch) => batch.writeInt32BE(40, 8))],
  ['a negative size', 'CORRUPT_MESSAGE', changed((batch) => batch.writeInt32BE(-5, 8))],
  ['no records', 'INVALID_RECORD', changed((batch) => (batch.writeInt32BE(0, 57), batch.writeInt32BE(-1, 23)))],
  ['fewer records than offsets', 'INVALID_RECORD', changed((batch) => batch.writeInt32BE(2, 57))],
  [
    'more records than there are',
    'INVALID_RECORD',
    changed((batch) => (batch.writeInt32BE(4, 57), batch.writeInt32BE(3, 23))),
  ],
  [
    'fewer records than there are',
    'INVALID_RECORD',
    changed((batch) => (batch.writeInt32BE(2, 57), batch.writeInt32BE(1, 23))),
  ],
  [
    'two billion records',
    'INVALID_RECORD',
    changed((batch) => (batch.writeInt32BE(0x7fffffff, 57), batch.writeInt32BE(0x7ffffffe, 23))),
  ],
  ['a codec that is not known', 'UNSUPPORTED_COMPRESSION_TYPE', changed((batch) => batch.writeInt16BE(5, 21))],
  ['a control batch', 'INVALID_RECORD', changed((batch) => batch.writeInt16BE(ATTRIBUTE_CONTROL, 21))],
  ['a delete horizon', 'INVALID_RECORD', changed((batch) => batch.writeInt16BE(ATTRIBUTE_DELETE_HORIZON, 21))],
  ['a producer id without a sequence', 'INVALID_RECORD', buildBatch(records(T), { producerId: 1, producerEpoch: 0 })],
  ['a transaction without a producer id', 'INVALID_RECORD', buildBatch(records(T), { isTransactional: true })],
  ['a producer id beyond 2^53', 'INVALID_RECORD', changed((batch) => batch.writeInt32BE(0x7fffffff, 43))],
  ['a base timestamp beyond 2^53', 'INVALID_TIMESTAMP', changed((batch) => batch.writeInt32BE(0x7fffffff, 27))],
  ['a max timestamp beyond 2^53', 'INVALID_TIMESTAMP', changed((batch) => batch.writeInt32BE(-0x7fffffff, 35))],
  ['offset deltas out of order', 'INVALID_RECORD', changed((batch) => batch.writeInt8(8, BATCH_OVERHEAD_BYTES + 3))],
  [
    'a record longer than the batch',
    'INVALID_RECORD',
    changed((batch) => batch.fill(0xff, 61, 65).writeInt8(0x0f, 65)),
  ],
  ['a varint that does not end', 'INVALID_RECORD', changed((batch) => batch.fill(0xff, 61))],
  ['a key longer than its record', 'INVALID_RECORD', changed((batch) => batch.writeInt8(100, 65))],
  ['a negative record size', 'INVALID_RECORD', changed((batch) => batch.writeInt8(1, 61))],
  ['gzip that is none', 'INVALID_RECORD', changed((batch) => batch.fill(0x33, 61), { compression: 'gzip' })],
  ['snappy that is none', 'INVALID_RECORD', changed((batch) => batch.fill(0x33, 61), { compression: 'snappy' })],
  ['lz4 that is none', 'INVALID_RECORD', changed((batch) => batch.fill(0x33, 61), { compression: 'lz4' })],
  ['zstd that is none', 'INVALID_RECORD', changed((batch) => batch.fill(0x33, 61), { compression: 'zstd' })],
  [
    'more records than there are in gzip',
    'INVALID_RECORD',
    changed((batch) => (batch.writeInt32BE(4, 57), batch.writeInt32BE(3, 23)), { compression: 'gzip' }),
  ],
  [
    'fewer records than there are in lz4',
    'INVALID_RECORD',
    changed((batch) => (batch.writeInt32BE(2, 57), batch.writeInt32BE(1, 23)), { compression: 'lz4' }),
  ],
];
for (const [what, code, batch] of refusals) {
  test(`a producer's batch is refused: ${what}`, (t) => {
    t.throws(() => check(Buffer.from(batch)), { instanceOf: MillraceError, code });
  });
}

test('a wrong checksum is CORRUPT_MESSAGE, a batch beyond the limit MESSAGE_TOO_LARGE', (t) => {
  const batch = buildBatch(records(T));
  t.throws(() => check(batch, { maxBytes: batch.length - 1 }), { code: 'MESSAGE_TOO_LARGE' });
  batch[70] ^= 1;
  t.throws(() => check(batch), { code: 'CORRUPT_MESSAGE' });
});

test('a decompression bomb is refused before it is unpacked', (t) => {
  const bomb = [{ key: null, value: Buffer.alloc(20_000_000), timestamp: T }];
  for (const compression of ALL_CODECS.slice(1)) {
    const batch = buildBatch(bomb, { compression });
    t.throws(() => check(batch, { maxBytes: 10_000_000 }), { code: 'MESSAGE_TOO_LARGE' }, compression);
    t.throws(() => readRecords(batch, 0, 1_000_000), { code: 'MESSAGE_TOO_LARGE' }, compression);
  }
});

test('a wrong max timestamp is put right, compressed or not', (t) => {
  for (const compression of ALL_CODECS) {
    const batch = changed((bytes) => bytes.writeUInt32BE(5, 39), { compression });
    check(batch);
    t.is(batchMaxTimestamp(batch, 0), T + 2);
    t.is(checkStoredBatch(batch, 0, batch.length), batch.length);
  }
});

test('timestamps outside the limits are refused, absent ones pass', (t) => {
  for (const compression of ALL_CODECS) {
    const batch = () => buildBatch(records(T, T + 10, -1), { compression });
    t.notThrows(() => check(batch(), { ...LIMITS, minTimestamp: T, maxTimestamp: T + 10 }));
    t.throws(() => check(batch(), { ...LIMITS, minTimestamp: T + 1 }), { code: 'INVALID_TIMESTAMP' });
    t.throws(() => check(batch(), { ...LIMITS, maxTimestamp: T + 9 }), { code: 'INVALID_TIMESTAMP' });
  }
});

test('stamping changes offset, epoch and append time, and leaves a batch that is right', (t) => {
  for (const compression of ALL_CODECS) {
    const batch = buildBatch(records(T, T + 1), { compression });
    stampBatch(batch, 0, 2 ** 45 + 3, 12);
    t.is(batchBaseOffset(batch, 0), 2 ** 45 + 3);
    t.is(batchLeaderEpoch(batch, 0), 12);
    t.is(checkStoredBatch(batch, 0, batch.length), batch.length);
    stampAppendTime(batch, 0, T + 500);
    t.is(checkStoredBatch(batch, 0, batch.length), batch.length);
    t.not(batchAttributes(batch, 0) & ATTRIBUTE_TIMESTAMP_TYPE, 0);
    t.deepEqual(
      readRecords(batch, 0).map(({ offset, timestamp }) => [offset, timestamp]),
      [
        [2 ** 45 + 3, T + 500],
        [2 ** 45 + 4, T + 500],
      ],
    );
    t.deepEqual(findTimestamp(batch, 0, T + 500), { offset: 2 ** 45 + 3, timestamp: T + 500 });
  }
});

test('the first record at or after a time is found, and the one with the largest', (t) => {
  for (const compression of ALL_CODECS) {
    const batch = buildBatch(records(T, T + 20, T + 10, T + 20), { compression, baseOffset: 100 });
    t.deepEqual(findTimestamp(batch, 0, 0), { offset: 100, timestamp: T });
    t.deepEqual(findTimestamp(batch, 0, T + 5), { offset: 101, timestamp: T + 20 });
    t.deepEqual(findTimestamp(batch, 0, T + 5, 102), { offset: 102, timestamp: T + 10 });
    t.is(findTimestamp(batch, 0, T + 21), undefined);
    t.is(findTimestamp(batch, 0, T + 20, 104), undefined);
    t.deepEqual(maxTimestampRecord(batch, 0), { offset: 101, timestamp: T + 20 });
  }
});

test('recovery accepts a whole batch only', (t) => {
  const batch = buildBatch(records(T, T + 1), { baseOffset: 7 });
  for (let available = 0; available < batch.length; available++) t.is(checkStoredBatch(batch, 0, available), -1);
  t.is(checkStoredBatch(Buffer.alloc(4096), 0, 4096), -1);
  t.is(checkStoredBatch(batch, 0, batch.length + 100), batch.length);
  t.is(checkStoredBatch(batch.subarray(0, -1), 0, batch.length), -1);
  const negative = Buffer.from(batch);
  negative.writeInt32BE(-1, 0);
  t.is(checkStoredBatch(negative, 0, negative.length), -1);
});

test('batches are visited in order, a partial one at the end is left out', (t) => {
  const batches = [buildBatch(records(T)), buildBatch(records(T, T)), buildBatch(records(T, T, T))];
  const all = Buffer.concat([...batches, batches[0].subarray(0, -1)]);
  const seen: number[] = [];
  const end = eachBatch(all, (position, sizeBytes) => {
    t.is(batchSizeBytes(all, position), sizeBytes);
    seen.push(sizeBytes);
  });
  t.deepEqual(
    seen,
    batches.map(({ length }) => length),
  );
  t.is(end, all.length - batches[0].length + 1);
  t.is(
    eachBatch(all, () => false),
    batches[0].length,
  );
  t.is(
    eachBatch(Buffer.alloc(20), () => t.fail()),
    0,
  );
  t.throws(() => eachBatch(Buffer.alloc(100), () => undefined), { code: 'CORRUPT_MESSAGE' });
});

test('a builder takes records until the batch is full, and starts anew', (t) => {
  const builder = new BatchBuilder(200);
  const [record] = records(T);
  t.throws(() => builder.build(), { instanceOf: RangeError });
  let added = 0;
  for (; builder.add({ ...record, timestamp: T + added }); added++);
  t.true(added > 3);
  t.is(builder.recordCount, added);
  const sizeBytes = builder.sizeBytes;
  const batch = builder.build({ producerId: 3, producerEpoch: 1, baseSequence: 9 });
  t.is(batch.length, sizeBytes);
  t.true(batch.length <= 200);
  check(batch);
  t.is(builder.recordCount, 0);

  const before = Buffer.from(batch);
  t.true(builder.add({ key: null, value: Buffer.alloc(500), timestamp: 5 }), 'the first record always fits');
  t.false(builder.add(record));
  const second = builder.build({ compression: 'lz4' });
  check(second);
  t.is(batchMaxTimestamp(second, 0), 5);
  t.deepEqual(batch, before, 'a batch that was built is not touched again');
});
