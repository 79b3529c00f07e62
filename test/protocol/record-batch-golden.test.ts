/** Batches of Kafka's own Java client, made by golden-batches/GoldenBatches.java. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import test from 'ava';
import type { Codec } from '../../protocol/compression.ts';
import {
  ATTRIBUTE_TIMESTAMP_TYPE,
  type BatchOptions,
  type RecordInit,
  batchAttributes,
  batchBaseOffset,
  batchBaseSequence,
  batchCodec,
  batchLastOffset,
  batchLeaderEpoch,
  batchMaxTimestamp,
  batchProducerEpoch,
  batchProducerId,
  batchRecordCount,
  batchSizeBytes,
  buildBatch,
  checkCompressedRecords,
  checkProducedBatch,
  checkStoredBatch,
  readRecords,
  stampAppendTime,
} from '../../protocol/record-batch.ts';
import { loadNative } from '../../storage/native.ts';

interface Vectors {
  batches: { name: string; codec: Codec; batch: string }[];
  markers: { name: string; batch: string }[];
}
const vectors = JSON.parse(
  readFileSync(join(process.cwd(), 'test/protocol/golden-batches/vectors.json'), 'utf8'),
) as Vectors;

const T = 1_700_000_000_000;

function record(
  timestamp: number,
  key: string | null,
  value: string | null,
  headers?: RecordInit['headers'],
): RecordInit {
  const bytes = (text: string | null) => (text === null ? null : Buffer.from(text));
  return { timestamp, key: bytes(key), value: bytes(value), ...(headers && { headers }) };
}

const plain = [record(T, 'k1', 'first'), record(T + 5, 'k2', 'second'), record(T + 9, 'k1', 'third')];
const odd = [
  record(T, null, 'no key'),
  record(T - 70_000, 'no value', null),
  record(T + 100_000_000_000, null, null),
  record(T, '', ''),
  record(-1, 'no time', 'x'),
  record(T, 'h', 'headers', [
    { key: 'a', value: Buffer.from('1') },
    { key: '', value: null },
    { key: 'ü', value: Buffer.alloc(0) },
  ]),
  record(T + 1, 'long', 'y'.repeat(300), [{ key: 'b', value: Buffer.from('z'.repeat(200)) }]),
];
const large = Array.from({ length: 300 }, (_, i) => record(T + i * 10, `key-${i % 7}`, `value-${i}-`.repeat(40)));
const atAppendTime = plain.map((each) => ({ ...each, timestamp: T + 77 }));

/** What each golden batch holds, by its name. */
const contents: Record<string, { records: RecordInit[]; options: BatchOptions }> = {
  plain: { records: plain, options: {} },
  odd: { records: odd, options: { baseOffset: 1_234_567_890_123, leaderEpoch: 7 } },
  idempotent: {
    records: plain,
    options: { baseOffset: 42, producerId: 9007, producerEpoch: 3, baseSequence: 2_147_483_646, leaderEpoch: 0 },
  },
  transactional: {
    records: plain,
    options: {
      baseOffset: 42,
      producerId: 9007,
      producerEpoch: 3,
      baseSequence: 11,
      isTransactional: true,
      leaderEpoch: 0,
    },
  },
  'append time': { records: atAppendTime, options: { baseOffset: 5, timestampType: 'LogAppendTime', leaderEpoch: 1 } },
  large: { records: large, options: {} },
};

for (const { name, codec, batch } of vectors.batches) {
  const bytes = Buffer.from(batch, 'base64');
  const { records, options } = contents[name];

  // Serial: which implementation serves is a matter of the whole process.
  test.serial(`Kafka's ${codec} batch '${name}' reads as it was written`, async (t) => {
    for (const pure of [false, true]) {
      await loadNative({ pure });
      t.is(checkStoredBatch(bytes, 0, bytes.length), bytes.length);
      t.is(batchSizeBytes(bytes, 0), bytes.length);
      t.is(batchCodec(bytes, 0), codec);
      t.is(batchBaseOffset(bytes, 0), options.baseOffset ?? 0);
      t.is(batchLastOffset(bytes, 0), (options.baseOffset ?? 0) + records.length - 1);
      t.is(batchRecordCount(bytes, 0), records.length);
      t.is(batchProducerId(bytes, 0), options.producerId ?? -1);
      t.is(batchProducerEpoch(bytes, 0), options.producerEpoch ?? -1);
      t.is(batchBaseSequence(bytes, 0), options.baseSequence ?? -1);
      t.is(batchLeaderEpoch(bytes, 0), options.leaderEpoch ?? -1);
      t.is(batchMaxTimestamp(bytes, 0), Math.max(...records.map(({ timestamp }) => timestamp)));
      t.deepEqual(
        readRecords(bytes, 0).map(({ timestamp, key, value, headers }) => ({ timestamp, key, value, headers })),
        records.map(({ timestamp, key, value, headers }) => ({
          timestamp,
          key: key as Buffer | null,
          value: value as Buffer | null,
          headers: (headers ?? []).map((header) => ({ key: header.key, value: header.value as Buffer | null })),
        })),
      );
    }
  });

  test(`Kafka's ${codec} batch '${name}' is accepted from a producer`, (t) => {
    const limits = { maxBytes: bytes.length };
    const sent = Buffer.from(bytes);
    t.notThrows(() => checkProducedBatch(sent, 0, sent.length, limits));
    t.notThrows(() => checkCompressedRecords(sent, 0, 1_000_000));
    t.is(checkStoredBatch(sent, 0, sent.length), sent.length);
    if (name === 'append time') {
      // Only the broker writes append time: its mark is taken off, as Apache Kafka does, and the producer's times count.
      t.is(batchAttributes(sent, 0) & ATTRIBUTE_TIMESTAMP_TYPE, 0);
      t.deepEqual(
        readRecords(sent, 0).map(({ timestamp }) => timestamp),
        plain.map(({ timestamp }) => timestamp),
      );
    } else {
      t.deepEqual(sent, bytes);
    }
  });

  if (codec === 'none') {
    test(`'${name}' is built byte for byte as Kafka's`, (t) => {
      if (name === 'append time') {
        // The records keep the producer's timestamps beneath the broker's.
        const built = buildBatch(plain, { baseOffset: 5, leaderEpoch: 1 });
        stampAppendTime(built, 0, T + 77);
        t.deepEqual(built, bytes);
      } else {
        t.deepEqual(buildBatch(records, options), bytes);
      }
    });
  }
}

for (const { name, batch } of vectors.markers) {
  test(`Kafka's ${name} marker is a control batch that is built the same and that clients may not send`, (t) => {
    const bytes = Buffer.from(batch, 'base64');
    t.is(batchAttributes(bytes, 0), 0x30);
    const [{ key, value, offset, timestamp }] = readRecords(bytes, 0);
    t.is(offset, 8);
    t.deepEqual(key, Buffer.from([0, 0, 0, name === 'commit' ? 1 : 0]));
    const options = {
      baseOffset: 8,
      producerId: 9007,
      producerEpoch: 3,
      isTransactional: true,
      isControl: true,
      leaderEpoch: 2,
    };
    t.deepEqual(buildBatch([{ key, value, timestamp }], options), bytes);
    t.throws(() => checkProducedBatch(bytes, 0, bytes.length, { maxBytes: 1000 }), { code: 'INVALID_RECORD' });
  });
}
