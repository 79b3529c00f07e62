/** Records and batches by offset, against a plain list of records: in memory, from files, compressed, compacted. */
import test from 'ava';
import { QueueReader, type OffsetRun, type QueuedBatches, type QueuedRecord } from '../../broker/queue-reader.ts';
import { OpenBatch } from '../../broker/open-batches.ts';
import type { Partition } from '../../broker/engine.ts';
import {
  batchAttributes,
  batchBaseOffset,
  batchLastOffset,
  batchProducerId,
  batchRecordCount,
  buildBatch,
  checkStoredBatch,
  eachBatch,
  readRecords,
  subsetBatch,
} from '../../protocol/record-batch.ts';
import { openLog, openLogEngine, plainConfig, waited, whenDurable } from '../support/log-engine.ts';
import { MemoryEngine, type MemoryPartition } from '../support/memory-engine.ts';
import { SimClock } from '../support/sim-clock.ts';
import { SimDisk } from '../support/sim-disk.ts';
import { SimRandom } from '../support/sim-random.ts';

interface Plain {
  readonly offset: number;
  readonly timestamp: number;
  readonly key: string | undefined;
  readonly value: string | undefined;
  readonly headers: string;
}

const plain = (record: QueuedRecord): Plain => ({
  offset: record.offset,
  timestamp: record.timestamp,
  key: record.key?.toString(),
  value: record.value?.toString(),
  headers: record.headers.map(({ key, value }) => `${key}=${value}`).join(),
});

const codecs = ['none', 'none', 'gzip', 'snappy', 'lz4'] as const;

function randomBatch(random: SimRandom, options: { timestampType?: 'LogAppendTime' } = {}): Buffer {
  const records = Array.from({ length: random.pick([1, 1, 2, 5, 40]) }, (_, index) => ({
    key: random.chance(0.3) ? null : Buffer.from(`key-${index}`),
    value: random.chance(0.1) ? null : Buffer.from('v'.repeat(random.between(0, 300))),
    headers: random.chance(0.3) ? [{ key: 'h', value: Buffer.from(String(index)) }] : [],
    timestamp: 1000 + random.between(0, 100),
  }));
  return buildBatch(records, {
    compression: random.pick(codecs),
    ...(random.chance(0.3) ? { producerId: 7, producerEpoch: 0, baseSequence: 0 } : {}),
    ...options,
  });
}

/** Ascending runs between the offsets, of every density. */
function randomRuns(random: SimRandom, first: number, last: number): OffsetRun[] {
  const runs: OffsetRun[] = [];
  const [length, hole] = random.pick([
    [1, 1],
    [1, 60],
    [30, 3],
    [200, 1],
    [5, 5],
  ]);
  for (let offset = first + random.between(0, hole); offset <= last; ) {
    const lastOffset = Math.min(last, offset + random.between(0, length));
    runs.push({ firstOffset: offset, lastOffset });
    offset = lastOffset + 1 + random.between(0, hole);
  }
  return runs;
}

const offsetsOf = (runs: readonly OffsetRun[]): number[] =>
  runs.flatMap(({ firstOffset, lastOffset }) =>
    Array.from({ length: lastOffset - firstOffset + 1 }, (_, index) => firstOffset + index),
  );

/** Every chunk of it whole batches with the right checksums. */
function batchesOf({ chunks }: QueuedBatches): { bytes: Buffer; at: number; sizeBytes: number }[] {
  return chunks.flatMap((chunk) => {
    const bytes = Buffer.from(chunk as Uint8Array);
    const found: { bytes: Buffer; at: number; sizeBytes: number }[] = [];
    const end = eachBatch(bytes, (at, sizeBytes) => void found.push({ bytes, at, sizeBytes }));
    if (end !== bytes.length) throw new Error('a chunk ends inside a batch');
    for (const { at, sizeBytes } of found) {
      if (checkStoredBatch(bytes, at, sizeBytes) !== sizeBytes) throw new Error('a batch fails its check');
    }
    return found;
  });
}

async function checkReads(
  t: { deepEqual(a: unknown, b: unknown, message?: string): void; true(a: boolean, message?: string): void },
  reader: QueueReader,
  partition: Partition,
  expected: ReadonlyMap<number, Plain>,
  stored: ReadonlyMap<number, number>,
  runs: readonly OffsetRun[],
  random: SimRandom,
): Promise<void> {
  const wanted = offsetsOf(runs);
  const isWanted = new Set(wanted);
  const { records, gaps } = await reader.records(partition, runs);
  t.deepEqual(
    records.map(plain),
    wanted.flatMap((offset) => expected.get(offset) ?? []),
  );
  t.deepEqual(
    offsetsOf(gaps),
    wanted.filter((offset) => !expected.has(offset)),
  );

  let rest = runs;
  const got = new Map<number, Plain>();
  const missing: number[] = [];
  while (rest.length > 0) {
    const bytesMax = random.pick([1, 500, 4000, 1_000_000]);
    const answer = await reader.batches(partition, rest, bytesMax);
    let sizeBytes = 0;
    const batches = batchesOf(answer);
    for (const { bytes, at, sizeBytes: batchBytes } of batches) {
      sizeBytes += batchBytes;
      const found = readRecords(bytes, at);
      const wantedHere = found.filter(({ offset }) => isWanted.has(offset)).length;
      t.true(wantedHere > 0, 'no batch for nothing');
      const count = stored.get(batchBaseOffset(bytes, at)) ?? 0;
      if (batchProducerId(bytes, at) === -1 && (batchAttributes(bytes, at) & 7) === 0 && count !== found.length) {
        t.true(wantedHere * 2 < count, 'only what is less than half is built anew');
        t.true(wantedHere === found.length, 'and has what was asked for');
      }
      for (const record of found) got.set(record.offset, plain(record));
    }
    t.true(sizeBytes === answer.sizeBytes);
    t.true(sizeBytes <= bytesMax || batches.length === 1, `${sizeBytes} bytes of ${bytesMax}`);
    missing.push(...offsetsOf(answer.gaps));
    answer.release();
    rest = rest
      .filter(({ lastOffset }) => lastOffset >= answer.restFrom)
      .map((run) => ({ firstOffset: Math.max(run.firstOffset, answer.restFrom), lastOffset: run.lastOffset }));
  }
  const isMissing = new Set(missing);
  t.deepEqual(
    wanted.flatMap((offset) => (isMissing.has(offset) ? [] : (got.get(offset) ?? []))),
    wanted.flatMap((offset) => expected.get(offset) ?? []),
  );
  t.deepEqual(
    missing,
    wanted.filter((offset) => !expected.has(offset)),
  );
}

function remember(bytes: Buffer, expected: Map<number, Plain>, stored: Map<number, number>): void {
  const records = readRecords(bytes, 0);
  for (const record of records) expected.set(record.offset, plain(record));
  stored.set(batchBaseOffset(bytes, 0), records.length);
}

/** Takes records out of a batch as compaction does: the others keep their offsets. */
function compacted(bytes: Buffer, random: SimRandom): Buffer {
  const kept = readRecords(bytes, 0).filter(() => random.chance(0.4));
  if (kept.length === 0) return bytes;
  const base = Number(bytes.readBigInt64BE(0));
  const whole = new OpenBatch({ topic: 't', index: 0 } as Partition, bytes, 1e6);
  const pieces = kept.map(({ offset }) => ({
    start: whole.positionOf(offset - base),
    end: whole.positionOf(offset - base + 1),
    lastOffsetDelta: batchLastOffset(bytes, 0) - base,
  }));
  return subsetBatch(bytes, whole.records, pieces, kept.length);
}

for (const seed of [1, 2, 3, 4]) {
  test(`any runs give their records and gaps, from memory, seed ${seed}`, async (t) => {
    const random = new SimRandom(seed);
    const engine = new MemoryEngine();
    const partition = engine.openPartition({
      topicId: '00000000-0000-4000-8000-000000000001',
      topic: 't',
      index: 0,
      config: plainConfig,
    });
    for (let count = 0; count < 60; count++) {
      const isControl = random.chance(0.1);
      const batch = isControl
        ? buildBatch([{ key: Buffer.from('commit'), value: null, timestamp: 1 }], { isControl })
        : randomBatch(random, random.chance(0.3) ? { timestampType: 'LogAppendTime' } : {});
      partition.append(batch, { origin: 'internal', urgency: 'waited' });
    }
    const end = partition.endOffset;
    compactSome(partition, random);
    engine.commit([{ kind: 'start', partition, offset: random.between(0, 50) }], 'waited');
    const expected = new Map<number, Plain>();
    const stored = new Map<number, number>();
    for (const batch of partition.batches) {
      if ((batchAttributes(batch, 0) & 0x20) === 0) remember(batch, expected, stored);
    }
    for (const offset of [...expected.keys()]) if (offset < partition.startOffset) expected.delete(offset);
    const reader = new QueueReader({ openBytesMax: random.pick([0, 20_000, 1e6]), decompressedBytesMax: 1e6 });
    const last = batchLastOffset(partition.batches.at(-1) ?? Buffer.alloc(0), 0);
    t.true(last < end);
    for (let round = 0; round < 20; round++) {
      await checkReads(t, reader, partition, expected, stored, randomRuns(random, 0, last), random);
    }
  });
}

function compactSome(partition: MemoryPartition, random: SimRandom): void {
  const { batches } = partition;
  for (let index = batches.length - 2; index >= 0; index--) {
    if (random.chance(0.1)) batches.splice(index, 1);
    else if (random.chance(0.3)) batches[index] = compacted(batches[index], random);
  }
}

for (const seed of [1, 2]) {
  test(`any runs give their records from files and the tail cache, seed ${seed}`, async (t) => {
    const random = new SimRandom(seed);
    const clock = new SimClock();
    const disk = new SimDisk();
    const settings = { tailCacheBytes: 256 * 1024 };
    let engine = await clock.settle(openLogEngine({ disk, clock, random, settings }));
    let log = openLog(engine, 1, { segmentBytes: 300_000 });
    const expected = new Map<number, Plain>();
    const stored = new Map<number, number>();
    const fill = async (count: number): Promise<void> => {
      for (let each = 0; each < count; each++) {
        const batch = randomBatch(random);
        batch.writeBigInt64BE(-1n, 43);
        const { baseOffset } = log.append(
          buildBatch(readRecords(batch, 0), { compression: random.pick(codecs) }),
          waited,
        );
        batch.writeBigInt64BE(BigInt(baseOffset), 0);
        remember(batch, expected, stored);
        if (each % 20 === 0) await clock.settle(whenDurable(engine));
      }
      await clock.settle(whenDurable(engine));
    };
    await fill(300);
    await clock.settle(engine.close());
    engine = await clock.settle(openLogEngine({ disk, clock, random, settings }));
    log = openLog(engine, 1, { segmentBytes: 300_000 });
    await clock.settle(Promise.resolve(log.prepare()));
    await fill(100);
    const reader = new QueueReader({ openBytesMax: 200_000, decompressedBytesMax: 1e6 });
    const held: QueuedRecord[] = [];
    for (let round = 0; round < 12; round++) {
      const first = random.between(0, log.highWatermark - 1);
      const runs = randomRuns(random, first, Math.min(log.highWatermark - 1, first + 600));
      await clock.settle(checkReads(t, reader, log, expected, stored, runs, random));
      t.true(reader.openBytes <= 200_000);
      held.push(...(await clock.settle(Promise.resolve(reader.records(log, runs)))).records);
    }
    t.true(held.length > 100);
    for (const record of held) t.deepEqual(plain(record), expected.get(record.offset), 'views stay what they were');
    await clock.settle(engine.close());
  });
}

test('whole neighbouring batches in memory are one view, held until it is released', async (t) => {
  const clock = new SimClock();
  const engine = await clock.settle(openLogEngine({ disk: new SimDisk(), clock, random: new SimRandom(1) }));
  const log = openLog(engine);
  for (let count = 0; count < 10; count++) {
    log.append(buildBatch([{ key: null, value: Buffer.alloc(100), timestamp: 1 }]), waited);
  }
  await clock.settle(whenDurable(engine));
  const reader = new QueueReader({ openBytesMax: 1e6, decompressedBytesMax: 1e6 });
  const answer = reader.batches(log, [{ firstOffset: 2, lastOffset: 7 }], 1e6);
  t.false(answer instanceof Promise);
  const { chunks, restFrom } = answer as QueuedBatches;
  t.is(chunks.length, 1);
  t.is(restFrom, Number.POSITIVE_INFINITY);
  t.is(batchRecordCount(chunks[0] as Buffer, 0), 1);
  (answer as QueuedBatches).release();
  t.is(reader.openBytes, 0, 'nothing was opened');
  await clock.settle(engine.close());
});

test('a batch that is handed out message by message is opened once', (t) => {
  const engine = new MemoryEngine();
  const partition = engine.openPartition({ topicId: 'a', topic: 't', index: 0, config: plainConfig });
  const records = Array.from({ length: 100 }, (_, index) => ({
    key: null,
    value: Buffer.from(`v${index}`),
    timestamp: 1,
  }));
  partition.append(buildBatch(records, { compression: 'gzip' }), { origin: 'internal', urgency: 'waited' });
  let reads = 0;
  const read = partition.read.bind(partition);
  partition.read = (...args) => {
    reads++;
    return read(...args);
  };
  const reader = new QueueReader({ openBytesMax: 1e6, decompressedBytesMax: 1e6 });
  for (let offset = 99; offset >= 0; offset--) {
    const answer = reader.records(partition, [{ firstOffset: offset, lastOffset: offset }]);
    t.is(answer instanceof Promise ? '' : answer.records[0].value?.toString(), `v${offset}`);
  }
  t.is(reads, 1);
  reader.forget(partition);
  t.is(reader.openBytes, 0);
});

test('bytes that are not what was written are an error that names them', (t) => {
  const engine = new MemoryEngine();
  const partition = engine.openPartition({ topicId: 'a', topic: 't', index: 3, config: plainConfig });
  const batch = buildBatch([{ key: null, value: Buffer.from('abc'), timestamp: 1 }]);
  partition.append(batch, { origin: 'internal', urgency: 'waited' });
  partition.batches[0][batch.length - 2] ^= 1;
  const reader = new QueueReader({ openBytesMax: 1e6, decompressedBytesMax: 1e6 });
  t.throws(() => reader.records(partition, [{ firstOffset: 0, lastOffset: 0 }]), {
    code: 'KAFKA_STORAGE_ERROR',
    message: /t-3: the batch at offset 0 fails its checksum/,
  });
});

test('the end of a batch is told where that costs nothing', async (t) => {
  const clock = new SimClock();
  const engine = await clock.settle(openLogEngine({ disk: new SimDisk(), clock, random: new SimRandom(1) }));
  const log = openLog(engine);
  const records = Array.from({ length: 10 }, () => ({ key: null, value: Buffer.from('v'), timestamp: 1 }));
  for (let count = 0; count < 3; count++) log.append(buildBatch(records), waited);
  await clock.settle(whenDurable(engine));
  const reader = new QueueReader({ openBytesMax: 1e6, decompressedBytesMax: 1e6 });
  for (const [offset, last] of [
    [0, 9],
    [9, 9],
    [10, 19],
    [25, 29],
    [30, 30],
    [99, 99],
  ]) {
    t.is(reader.batchEnd(log, offset), last);
  }
  await reader.records(log, [{ firstOffset: 12, lastOffset: 12 }]);
  t.is(reader.batchEnd(log, 12), 19, 'from the cache, too');
  await clock.settle(engine.close());
});
