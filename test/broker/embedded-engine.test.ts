import test, { type ExecutionContext } from 'ava';
import * as fs from 'node:fs';
import * as os from 'node:os';
import * as path from 'node:path';
import { type Options, resolveOptions } from '../../broker/config.ts';
import { type EmbeddedEngine, openEmbeddedEngine } from '../../broker/embedded-engine.ts';
import type { Appended, FileSplice, LogConfig, LogSlice, Partition } from '../../broker/engine.ts';
import { batchBaseOffset, batchSizeBytes, buildBatch, readRecords } from '../../protocol/record-batch.ts';
import { systemClock, systemRandom } from '../../storage/clock.ts';
import { NodeDisk } from '../../storage/node-disk.ts';

const TOPIC_ID = '11111111-2222-4333-8444-555555555555';

const config: LogConfig = {
  segmentBytes: 2 ** 30,
  segmentMs: 7 * 86_400_000,
  segmentIndexBytes: 10 * 1024 * 1024,
  indexIntervalBytes: 4096,
  retentionMs: -1,
  retentionBytes: -1,
  fileDeleteDelayMs: 0,
  timestampType: 'CreateTime',
  timestampBeforeMaxMs: Number.MAX_SAFE_INTEGER,
  timestampAfterMaxMs: Number.MAX_SAFE_INTEGER,
  maxMessageBytes: 2 ** 21,
};

function folder(t: ExecutionContext): string {
  const path_ = fs.mkdtempSync(path.join(os.tmpdir(), 'millrace-engine-'));
  t.teardown(() => fs.rmSync(path_, { recursive: true, force: true }));
  return path_;
}

async function open(
  dataDir: string,
  values: Record<string, string | number> = {},
  warnings: string[] = [],
): Promise<EmbeddedEngine> {
  const options: Options = resolveOptions({ 'log.disk.reserve.bytes': 0, ...values });
  const warn = (message: string): void => void warnings.push(message);
  const engine = await openEmbeddedEngine({
    disk: new NodeDisk(),
    clock: systemClock,
    random: systemRandom,
    dataDir,
    options,
    warn,
  });
  engine.onFatal((error) => {
    throw error;
  });
  return engine;
}

async function partition(engine: EmbeddedEngine, overrides: Partial<LogConfig> = {}, index = 0): Promise<Partition> {
  const spec = { topicId: TOPIC_ID, topic: 'orders', index, config: { ...config, ...overrides } };
  const opened = engine.openPartition(spec);
  await opened.prepare();
  return opened;
}

const batchOf = (values: readonly string[], timestamp = 1_000): Buffer =>
  buildBatch(values.map((value) => ({ key: null, value: Buffer.from(value), timestamp })));

const durable = (engine: EmbeddedEngine, position: number): Promise<void> =>
  new Promise((resolve) => engine.whenDurable(position, resolve));

async function bytesOf(slice: LogSlice): Promise<Buffer> {
  const pieces: Buffer[] = [];
  for (const chunk of slice.chunks) {
    if (chunk instanceof Uint8Array) pieces.push(Buffer.from(chunk));
    else {
      const piece = Buffer.alloc(chunk.length);
      // A read of the log has no other splices.
      await (chunk as FileSplice).read(piece, 0);
      pieces.push(piece);
    }
  }
  slice.release();
  return Buffer.concat(pieces);
}

/** All values from `offset` on, read in portions. */
async function valuesFrom(log: Partition, offset: number, maxBytes = 2 ** 20): Promise<string[]> {
  const values: string[] = [];
  let next = offset;
  while (next < log.highWatermark) {
    const bytes = await bytesOf(await log.read(next, maxBytes, { wholeFirst: true }));
    for (let at = 0; at + 61 <= bytes.length; at += batchSizeBytes(bytes, at)) {
      if (at + batchSizeBytes(bytes, at) > bytes.length) break;
      for (const record of readRecords(bytes, at)) {
        if (record.offset < next) continue;
        if (record.offset !== next) throw new Error(`offset ${record.offset}, expected ${next}`);
        values.push(String(record.value));
        next++;
      }
    }
  }
  return values;
}

const numbered = (from: number, count: number): string[] =>
  Array.from({ length: count }, (_, index) => `value-${from + index}`);

const waited = { origin: 'client', urgency: 'waited' } as const;

for (const flush of ['synced', 'written'] as const) {
  test(`what was appended is read from memory, and from files after a restart (${flush})`, async (t) => {
    const dir = folder(t);
    let engine = await open(dir, { 'log.flush': flush });
    let log = await partition(engine);
    const expected: string[] = [];
    for (let round = 0; round < 20; round++) {
      const values = numbered(round * 10, 10);
      const appended = log.append(batchOf(values), waited);
      t.is(appended.baseOffset, round * 10);
      expected.push(...values);
      if (round % 3 === 0) await durable(engine, appended.position);
    }
    await durable(engine, engine.lastPosition);
    t.is(log.highWatermark, 200);
    t.deepEqual(await valuesFrom(log, 0), expected);
    t.deepEqual(await valuesFrom(log, 55, 300), expected.slice(55));
    await engine.close();

    engine = await open(dir, { 'log.flush': flush });
    log = await partition(engine);
    t.is(log.endOffset, 200);
    t.is(log.highWatermark, 200);
    t.deepEqual(await valuesFrom(log, 0), expected);
    t.deepEqual(await valuesFrom(log, 55, 300), expected.slice(55));
    t.is(log.append(batchOf(['next']), waited).baseOffset, 200);
    await engine.close();
  });

  test(`a direct write is found after a stop without close (${flush})`, async (t) => {
    const dir = folder(t);
    const values = { 'log.flush': flush, 'journal.direct.bytes': 2000 };
    let engine = await open(dir, values);
    let log = await partition(engine, { segmentBytes: 20_000 });
    const expected: string[] = [];
    for (let round = 0; round < 100; round++) {
      const some = numbered(round * 10, 10);
      // Large and small groups in turn: both ways of committing.
      for (const value of some) log.append(batchOf([value.padEnd(round % 2 === 0 ? 400 : 20, '.')]), waited);
      expected.push(...some);
      await durable(engine, engine.lastPosition);
    }
    t.true(engine.counters.directWrites > 20);
    const copy = folder(t);
    fs.cpSync(dir, copy, { recursive: true });
    await engine.close();

    const warnings: string[] = [];
    engine = await open(copy, values, warnings);
    log = await partition(engine, { segmentBytes: 20_000 });
    t.deepEqual(warnings, []);
    t.is(log.endOffset, 1000);
    t.deepEqual(
      (await valuesFrom(log, 0)).map((value) => value.replace(/\.+$/, '')),
      expected,
    );
    await engine.close();
  });
}

test('a commit is found whole after a stop without close', async (t) => {
  const dir = folder(t);
  let engine = await open(dir);
  let first = await partition(engine);
  let second = await partition(engine, {}, 1);
  const { position, appended } = engine.commit(
    [
      { kind: 'append', partition: first, batch: batchOf(['a', 'b']) },
      { kind: 'append', partition: second, batch: batchOf(['c']) },
      { kind: 'start', partition: first, offset: 1 },
    ],
    'waited',
  );
  t.deepEqual(
    appended.map(({ baseOffset, lastOffset }) => [baseOffset, lastOffset]),
    [
      [0, 1],
      [0, 0],
    ],
  );
  await durable(engine, position);
  const copy = folder(t);
  fs.cpSync(dir, copy, { recursive: true });
  await engine.close();
  engine = await open(copy);
  first = await partition(engine);
  second = await partition(engine, {}, 1);
  t.is(first.startOffset, 1);
  t.deepEqual(await valuesFrom(first, 1), ['b']);
  t.deepEqual(await valuesFrom(second, 0), ['c']);
  t.is(batchBaseOffset(await bytesOf(await first.read(1, 1000, { wholeFirst: true })), 0), 0);
  await engine.close();
});

test('after a stop without close every producer is known by its last batch, wherever that lies', async (t) => {
  const dir = folder(t);
  let engine = await open(dir);
  let log = await partition(engine);
  const send = (producerId: number, baseSequence: number): Appended =>
    log.append(
      buildBatch([{ key: null, value: Buffer.from(`${producerId}/${baseSequence}`), timestamp: 1_000 }], {
        producerId,
        producerEpoch: 0,
        baseSequence,
      }),
      { origin: 'client', urgency: 'waited' },
    );
  let last = 0;
  for (let sequence = 0; sequence < 50; sequence++) {
    for (const producerId of [7, 8, 9]) last = send(producerId, sequence).position;
  }
  await durable(engine, last);
  const copy = folder(t);
  fs.cpSync(dir, copy, { recursive: true });
  await engine.close();
  engine = await open(copy);
  log = await partition(engine);
  for (const producerId of [7, 8, 9]) {
    const again = send(producerId, 49);
    t.true(again.isDuplicate);
    t.is(again.baseOffset, 49 * 3 + producerId - 7);
    t.throws(() => send(producerId, 51), { code: 'OUT_OF_ORDER_SEQUENCE_NUMBER' });
    t.false(send(producerId, 50).isDuplicate);
  }
  await engine.close();
});

for (const where of ['memory', 'files'] as const) {
  test(`the record with the largest timestamp is one that is still there (${where})`, async (t) => {
    const dir = folder(t);
    const batchAt = (...times: number[]): Buffer =>
      buildBatch(times.map((timestamp) => ({ key: null, value: Buffer.from(String(timestamp)), timestamp })));
    let engine = await open(dir);
    let log = await partition(engine, { segmentBytes: 200 });
    for (const batch of [batchAt(10, 90, 20), batchAt(50), batchAt(30, 60, 60), batchAt(40)]) log.append(batch, waited);
    await durable(engine, engine.lastPosition);
    if (where === 'files') {
      await engine.close();
      engine = await open(dir);
      log = await partition(engine, { segmentBytes: 200 });
    }
    const largest = async (startOffset: number): Promise<unknown> => {
      const { position } = engine.commit([{ kind: 'start', partition: log, offset: startOffset }], 'waited');
      await durable(engine, position);
      const found = await log.offsetOfMaxTime();
      return found && [found.offset, found.timestamp];
    };
    t.deepEqual(await largest(0), [1, 90]);
    t.deepEqual(await largest(1), [1, 90]);
    t.deepEqual(await largest(2), [5, 60]);
    t.deepEqual(await largest(6), [6, 60]);
    t.deepEqual(await largest(7), [7, 40]);
    t.is(await largest(8), undefined);
    await engine.close();
  });
}
