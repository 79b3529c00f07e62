import test, { type ExecutionContext } from 'ava';
import fc from 'fast-check';
import { type Codec, codecs } from '../../protocol/compression.ts';
import {
  batchLastOffset,
  batchRecordCount,
  batchSizeBytes,
  buildBatch,
  type DecodedRecord,
  readRecords,
} from '../../protocol/record-batch.ts';
import { verify } from '../../storage/dump.ts';
import { InlineJobs, type Jobs } from '../../storage/jobs.ts';
import type { LogConfig } from '../../storage/log.ts';
import type { LogEngine } from '../../storage/log-engine.ts';
import { loadNative } from '../../storage/native.ts';
import type { PartitionLog } from '../../storage/partition-log.ts';
import { openLog, openLogEngine, sliceBytes, waited, whenDurable } from '../support/log-engine.ts';
import { SimClock } from '../support/sim-clock.ts';
import { SimDisk } from '../support/sim-disk.ts';
import { SimRandom } from '../support/sim-random.ts';

test.before(() => loadNative());

const DAY_MS = 86_400_000;
const compaction = { minDirtyRatio: 0, minLagMs: 0, maxLagMs: Number.MAX_SAFE_INTEGER, deleteRetentionMs: DAY_MS };
const config: Partial<LogConfig> = { segmentBytes: 2000, indexIntervalBytes: 200, compaction };

interface World {
  clock: SimClock;
  disk: SimDisk;
  random: SimRandom;
  settings: object;
  warnings: string[];
  jobs?: Jobs;
}

function world(disk = new SimDisk(), settings = {}): World {
  return { clock: new SimClock(), disk, random: new SimRandom(1), settings, warnings: [] };
}

interface Sent {
  key: string | null;
  value: string | null;
}

function batchOf(
  sent: readonly Sent[],
  rest: { compression?: Codec; producerId?: number; baseSequence?: number } = {},
) {
  const bytes = (text: string | null) => (text === null ? null : Buffer.from(text));
  const records = sent.map(({ key, value }) => ({ key: bytes(key), value: bytes(value), timestamp: 1000 }));
  return buildBatch(records, rest.producerId === undefined ? rest : { ...rest, producerEpoch: 0 });
}

/** So that nothing of other logs is in memory. */
async function fillCache(at: World, engine: LogEngine): Promise<void> {
  const other = openLog(engine, 2);
  for (let count = 0; count < 40; count++) {
    other.append(batchOf([{ key: 'x', value: '.'.repeat(8000) }]), waited);
    await at.clock.settle(whenDurable(engine));
  }
}

/** Appends one record with each key; the value is the key's number so far. */
async function fill(at: World, engine: LogEngine, log: PartitionLog, keys: readonly string[]): Promise<void> {
  for (const key of keys) {
    log.append(batchOf([{ key, value: `${log.endOffset}:`.padEnd(300, '.') }]), waited);
    await at.clock.settle(whenDurable(engine));
  }
  await at.clock.advance(100);
}

/** All records from `offset` on; what a reader gets, batch by batch. */
async function recordsFrom(log: PartitionLog, offset: number, maxBytes = 1500): Promise<DecodedRecord[]> {
  const found: DecodedRecord[] = [];
  let next = offset;
  while (next < log.highWatermark) {
    const bytes = await sliceBytes(await log.read(next, maxBytes, { wholeFirst: true }));
    const before = next;
    for (let at = 0; at + 61 <= bytes.length && at + batchSizeBytes(bytes, at) <= bytes.length; ) {
      for (const record of readRecords(bytes, at)) if (record.offset >= next) found.push(record);
      next = batchLastOffset(bytes, at) + 1;
      at += batchSizeBytes(bytes, at);
    }
    // Above the last batch that is left nothing comes any more.
    if (next === before) break;
  }
  return found;
}

const shown = (records: readonly DecodedRecord[]): string[] =>
  records.map(
    ({ offset, key, value }) =>
      `${offset} ${key === null ? '' : String(key)} ${value === null ? 'gone' : String(value).split(':')[0]}`,
  );

/** Forces the next reads to the files. */
async function reopened(at: World, engine: LogEngine, number = 1): Promise<[LogEngine, PartitionLog]> {
  await at.clock.settle(engine.close());
  const again = await at.clock.settle(openLogEngine(at));
  return [again, openLog(again, number, config)];
}

async function assertSound(t: ExecutionContext, at: World): Promise<void> {
  for await (const problem of verify(at.disk, 'data')) t.fail(`${problem.file} ${problem.expected}, ${problem.found}`);
}

const cycle = (count: number, keys: number): string[] =>
  Array.from({ length: count }, (_, index) => `key${index % keys}`);

test('segments that have become small are merged into one', async (t) => {
  const at = world();
  let engine = await at.clock.settle(openLogEngine(at));
  let log = openLog(engine, 1, config);
  await fill(at, engine, log, cycle(40, 4));
  await at.clock.settle(engine.compact());
  await at.clock.advance(1000);
  const sealed = log.segments.length - 1;
  await fill(at, engine, log, cycle(40, 4));
  const [segments, before] = [log.segments.length, await at.clock.settle(recordsFrom(log, 0))];
  await at.clock.settle(engine.compact());
  await at.clock.advance(1000);
  t.true(log.segments.length <= segments - sealed + 1);
  t.is(log.segments[0].baseOffset, 0);
  [engine, log] = await reopened(at, engine);
  const after = await at.clock.settle(recordsFrom(log, 0));
  t.deepEqual(shown(after.slice(-4)), shown(before.slice(-4)));
  t.true(after.length < before.length);
  await assertSound(t, at);
});

test('of each key the newest record is left, with its offset', async (t) => {
  const at = world();
  let engine = await at.clock.settle(openLogEngine(at));
  let log = openLog(engine, 1, config);
  await fill(at, engine, log, cycle(40, 4));
  const segmentsBefore = log.segments.length;
  const end = log.segments[segmentsBefore - 1].baseOffset;
  await at.clock.settle(engine.compact());
  await at.clock.advance(1000);
  t.is(engine.compactor.dirtyFrom(log), end);
  const expected: string[] = [];
  for (let offset = 0; offset < 40; offset++)
    if (offset >= end - 4) expected.push(`${offset} key${offset % 4} ${offset}`);
  [engine, log] = await reopened(at, engine);
  t.deepEqual(shown(await at.clock.settle(recordsFrom(log, 0))), expected);
  // From an offset that is gone a reader comes to the next one.
  for (const offset of [0, 5, end - 5, end - 1]) {
    t.is((await at.clock.settle(recordsFrom(log, offset)))[0].offset, Math.max(offset, end - 4));
  }
  const files = await at.disk.list('data/topic-1-0');
  t.deepEqual(
    files.filter((name) => /cleaned|swap/.test(name)),
    [],
  );
  t.is(
    String(Buffer.from((await at.disk.readFile('data/cleaner-offset-checkpoint')) ?? [])),
    `0\n1\ntopic-1 0 ${end}\n`,
  );
  await assertSound(t, at);
  t.deepEqual(at.warnings, []);
  // Nothing is dirty any more.
  await at.clock.settle(engine.compact());
  t.is(engine.compactor.counters.runs, 0);
});

test('times are found in what is left', async (t) => {
  const at = world();
  let engine = await at.clock.settle(openLogEngine(at));
  let log = openLog(engine, 1, config);
  for (let time = 0; time < 30; time++) {
    const record = { key: Buffer.from(`key${time % 3}`), value: Buffer.alloc(300), timestamp: 1000 + time };
    log.append(buildBatch([record]), waited);
    await at.clock.settle(whenDurable(engine));
  }
  await at.clock.advance(100);
  await at.clock.settle(engine.compact());
  await at.clock.advance(1000);
  [engine, log] = await reopened(at, engine);
  const first = (await at.clock.settle(recordsFrom(log, 0)))[0].offset;
  t.true(first > 15);
  t.is((await at.clock.settle(log.offsetForTime(1000)))?.offset, first);
  t.is((await at.clock.settle(log.offsetForTime(1000 + first + 1)))?.offset, first + 1);
  t.is((await at.clock.settle(log.offsetOfMaxTime()))?.offset, 29);
});

test('a log is left alone until enough of it is dirty, and young segments until they are old', async (t) => {
  const at = world();
  const engine = await at.clock.settle(openLogEngine(at));
  const lagged = { ...compaction, minLagMs: at.clock.now() };
  const log = openLog(engine, 1, { ...config, compaction: lagged });
  await fill(at, engine, log, cycle(20, 2));
  await at.clock.settle(engine.compact());
  t.is(engine.compactor.counters.runs, 0);
  await at.clock.advance(2000);
  await at.clock.settle(engine.compact());
  t.is(engine.compactor.counters.runs, 1);
  await at.clock.advance(100);
  await fill(at, engine, log, cycle(20, 20));
  log.config = { ...log.config, compaction: { ...compaction, minDirtyRatio: 0.99 } };
  await at.clock.settle(engine.compact());
  t.is(engine.compactor.counters.runs, 1);
  t.true(engine.compactor.counters.maxDirtyRatio > 0.5);
  // Unless its oldest record has waited too long.
  log.config = { ...log.config, compaction: { ...compaction, minDirtyRatio: 0.99, maxLagMs: 1000 } };
  await at.clock.settle(engine.compact());
  t.is(engine.compactor.counters.runs, 2);
});

test('with little memory for keys a log is compacted piece by piece', async (t) => {
  const at = world();
  // 64 slots: 57 keys.
  let engine = await at.clock.settle(
    openLogEngine({ ...at, settings: { compactor: { dedupeBufferBytes: 1, bytesPerSecond: 2 ** 40 } } }),
  );
  let log = openLog(engine, 1, config);
  await fill(at, engine, log, cycle(200, 100));
  for (let run = 1; run < 8; run++) {
    await at.clock.settle(engine.compact());
    await at.clock.advance(1000);
    t.true(engine.compactor.dirtyFrom(log) >= Math.min(run * 57, log.segments.at(-1)?.baseOffset ?? 0));
  }
  const dirty = engine.compactor.dirtyFrom(log);
  [engine, log] = await reopened(at, engine);
  const records = await at.clock.settle(recordsFrom(log, 0));
  t.true(dirty > 190);
  t.is(records.filter(({ offset }) => offset < dirty).length, 100);
});

test('readers of the old segment finish on it', async (t) => {
  const at = world();
  const engine = await at.clock.settle(openLogEngine({ ...at, settings: { tailCacheBytes: 64 * 1024 } }));
  const log = openLog(engine, 1, config);
  await fill(at, engine, log, cycle(30, 3));
  await fillCache(at, engine);
  await at.clock.advance(100);
  const slice = await at.clock.settle(Promise.resolve(log.read(0, 10_000, { wholeFirst: true })));
  const { sizeBytes } = slice;
  await at.clock.settle(engine.compact());
  await at.clock.advance(1000);
  const files = await at.disk.list('data/topic-1-0');
  t.true(files.some((name) => name.endsWith('.log.swap')));
  // Those who come now read the new one.
  t.true((await at.clock.settle(recordsFrom(log, 0)))[0].offset > 10);
  const bytes = await at.clock.settle(sliceBytes(slice));
  t.is(bytes.length, sizeBytes);
  t.is(readRecords(bytes, 0)[0].offset, 0);
  await at.clock.advance(1000);
  t.deepEqual(
    (await at.disk.list('data/topic-1-0')).filter((name) => /swap|cleaned|deleted/.test(name)),
    [],
  );
  await at.clock.settle(engine.close());
  await assertSound(t, at);
});

test('a new segment goes by its own indexes while those of the old one are still there', async (t) => {
  const at = world();
  const engine = await at.clock.settle(openLogEngine({ ...at, settings: { tailCacheBytes: 64 * 1024 } }));
  // Few entries: those of the old segment are within the new one, too.
  const log = openLog(engine, 1, { ...config, segmentBytes: 10_000, indexIntervalBytes: 1000 });
  await fill(at, engine, log, cycle(60, 60));
  await fillCache(at, engine);
  await at.clock.advance(100);
  const slice = await at.clock.settle(Promise.resolve(log.read(0, 10_000, { wholeFirst: true })));
  const keep = Array.from({ length: 20 }, (_, offset) => offset).filter((offset) => offset !== 1);
  await at.clock.settle(engine.rewrite(log, { from: 0, to: 20, keep: Float64Array.from(keep) }));
  await at.clock.advance(1000);
  const swapped = (await at.disk.list('data/topic-1-0')).filter((name) => name.endsWith('.swap'));
  t.is(swapped.length, 3);
  t.true(((await at.disk.readFile(`data/topic-1-0/${'0'.repeat(20)}.index`))?.length ?? 0) > 0);
  for (let offset = 0; offset < 20; offset++) {
    const [first] = await at.clock.settle(recordsFrom(log, offset));
    t.is(first.offset, offset === 1 ? 2 : offset);
  }
  t.false(log.isFenced);
  slice.release();
  await at.clock.advance(1000);
  t.is((await at.clock.settle(recordsFrom(log, 7)))[0].offset, 7);
  await at.clock.settle(engine.close());
  await assertSound(t, at);
  t.deepEqual(at.warnings, []);
});

test('a partition that is deleted meanwhile goes', async (t) => {
  const at = world();
  const engine = await at.clock.settle(openLogEngine(at));
  const log = openLog(engine, 1, config);
  await fill(at, engine, log, cycle(30, 3));
  const running = engine.compact();
  engine.commit([{ kind: 'delete', partition: log }], 'waited');
  await at.clock.settle(running);
  await at.clock.advance(1000);
  t.deepEqual(
    (await at.disk.list('data')).filter((name) => name.startsWith('topic')),
    [],
  );
  t.deepEqual(at.warnings, []);
  await at.clock.settle(engine.close());
});

test('what retention gives up during a rewrite is gone', async (t) => {
  const at = world();
  const engine = await at.clock.settle(openLogEngine(at));
  const log = openLog(engine, 1, config);
  await fill(at, engine, log, cycle(30, 3));
  await at.clock.settle(engine.checkpoint(false));
  const running = engine.compact();
  engine.commit([{ kind: 'start', partition: log, offset: 25 }], 'waited');
  await at.clock.settle(running);
  await at.clock.advance(1000);
  t.is(log.startOffset, 25);
  t.true(log.segments[0].endOffset > 25);
  await at.clock.settle(engine.close());
  await assertSound(t, at);
});

test('a segment that cannot be read fences its log, nonsense leaves it as it is, a full disk is tried again', async (t) => {
  const at = world();
  const engine = await at.clock.settle(openLogEngine(at));
  const [unreadable, nonsense, whole] = [1, 2, 3].map((number) => openLog(engine, number, config));
  for (const log of [unreadable, nonsense, whole]) await fill(at, engine, log, cycle(20, 2));
  await at.clock.settle(engine.checkpoint(false));
  at.disk.failAt(1, 'EIO', { times: 1e9, of: 'read', path: 'topic-1-0/00000000000000000000.log' });
  const file = await at.disk.open('data/topic-2-0/00000000000000000000.log', 'write');
  await file.write([Buffer.from([0xff])], 90);
  await file.close();
  at.disk.failAt(1, 'ENOSPC', { times: 1e9, path: 'topic-3-0/00000000000000000000.log.cleaned' });
  await at.clock.settle(engine.compact());
  t.true(unreadable.isFenced);
  t.false(nonsense.isFenced);
  t.false(whole.isFenced);
  t.is(engine.compactor.counters.uncleanable, 1);
  t.regex(at.warnings.join('\n'), /topic-2-0 is not compacted until the next start: .*no sound batch at 0/);
  t.regex(at.warnings.join('\n'), /topic-3-0 is not compacted this time: .*ENOSPC/);
  at.disk.heal();
  await at.clock.settle(engine.compact());
  t.is(engine.compactor.counters.runs, 1);
  await at.clock.advance(1000);
  t.true(engine.compactor.dirtyFrom(whole) > 0);
});

test('records are dropped by offset, in whole segments that a checkpoint covers', async (t) => {
  const at = world();
  let engine = await at.clock.settle(openLogEngine(at));
  let log = openLog(engine, 1, { ...config, compaction: undefined });
  await fill(at, engine, log, cycle(40, 40));
  const { rewrittenTo, droppedRecords, freedBytes } = await at.clock.settle(
    engine.rewrite(log, { from: 3, to: 30, keep: Float64Array.of(5, 17, 29) }),
  );
  t.is(rewrittenTo, 30);
  t.is(droppedRecords, 24);
  t.true(freedBytes > 24 * 300);
  // At once again: what is under way is waited for.
  const again = await at.clock.settle(engine.rewrite(log, { from: 0, to: 3, keep: new Float64Array(0) }));
  t.is(again.droppedRecords, 3);
  await at.clock.advance(1000);
  [engine, log] = await reopened(at, engine);
  const offsets = (await at.clock.settle(recordsFrom(log, 0))).map(({ offset }) => offset);
  t.deepEqual(offsets, [5, 17, 29, ...Array.from({ length: 10 }, (_, index) => 30 + index)]);
  await at.clock.settle(engine.close());
  await assertSound(t, at);
});

test('after a rewrite a log still knows the sequence of each producer, from the log alone', async (t) => {
  const at = world();
  let engine = await at.clock.settle(openLogEngine(at));
  let log = openLog(engine, 1, config);
  for (let sequence = 0; sequence < 30; sequence++) {
    log.append(
      batchOf([{ key: 'same', value: '.'.repeat(300) }], {
        producerId: sequence % 3,
        baseSequence: Math.floor(sequence / 3),
      }),
      waited,
    );
    await at.clock.settle(whenDurable(engine));
  }
  await fill(
    at,
    engine,
    log,
    cycle(20, 1).map(() => 'same'),
  );
  await at.clock.settle(engine.compact());
  await at.clock.advance(1000);
  const files = await Promise.all(log.segments.map(({ file }) => at.disk.readFile(file.path)));
  const bytes = Buffer.concat(files.map((file) => file ?? Buffer.alloc(0)));
  const counts: number[] = [];
  for (let position = 0; position < bytes.length; position += batchSizeBytes(bytes, position))
    counts.push(batchRecordCount(bytes, position));
  t.deepEqual(counts.slice(0, 3), [0, 0, 0]);
  [engine, log] = await reopened(at, engine);
  await at.clock.settle(Promise.resolve(log.prepare()));
  for (const producerId of [0, 1, 2]) {
    t.true(
      log.append(batchOf([{ key: 'same', value: '.'.repeat(300) }], { producerId, baseSequence: 9 }), waited)
        .isDuplicate,
    );
  }
});

test('a rewrite keeps to its rate', async (t) => {
  const at = world();
  const settings = { compactor: { dedupeBufferBytes: 64 * 1024, bytesPerSecond: 10_000 } };
  const engine = await at.clock.settle(openLogEngine({ ...at, settings }));
  const log = openLog(engine, 1, config);
  await fill(at, engine, log, cycle(40, 4));
  const startMs = at.clock.monotonic();
  await at.clock.settle(engine.compact());
  const seconds = (at.clock.monotonic() - startMs) / 1000;
  const { processedBytes } = engine.compactor.counters;
  t.true(processedBytes > 20_000);
  t.true(seconds >= (processedBytes / 10_000) * 0.9, `${seconds} s for ${processedBytes} bytes`);
  // It does not hold up a stop.
  await fill(at, engine, log, cycle(40, 4));
  const running = engine.compact();
  await at.clock.advance(10);
  const stopMs = at.clock.monotonic();
  await at.clock.settle(engine.close());
  await at.clock.settle(running);
  t.true(at.clock.monotonic() - stopMs < 100);
});

// --- against a naive model ---

interface ModelBatch {
  records: { offset: number; key: string | null; isTombstone: boolean }[];
  horizonMs: number;
}

/** What compaction up to `mappedTo` leaves of the model. */
function compactModel(batches: readonly ModelBatch[], mappedTo: number, nowMs: number): ModelBatch[] {
  const newest = new Map<string, number>();
  for (const { records } of batches) {
    for (const { key, offset } of records) if (key !== null && offset < mappedTo) newest.set(key, offset);
  }
  return batches.map(({ records, horizonMs }) => {
    const isPast = horizonMs >= 0 && nowMs >= horizonMs;
    const kept = records.filter(({ offset, key, isTombstone }) => {
      if (offset >= mappedTo) return true;
      return key !== null && newest.get(key) === offset && !(isTombstone && isPast);
    });
    const getsHorizon = horizonMs < 0 && kept.some(({ isTombstone, offset }) => isTombstone && offset < mappedTo);
    return { records: kept, horizonMs: getsHorizon ? nowMs + DAY_MS : horizonMs };
  });
}

const key = fc.oneof(
  { weight: 9, arbitrary: fc.integer({ min: 0, max: 6 }).map((n) => `k${n}`) },
  { weight: 1, arbitrary: fc.constant(null) },
);
const sent = fc.record({ key, value: fc.option(fc.string({ minLength: 1, maxLength: 150 }), { nil: null, freq: 4 }) });
const batch = fc.record({
  kind: fc.constant('batch' as const),
  records: fc.array(sent, { minLength: 1, maxLength: 6 }),
  compression: fc.constantFrom(...codecs),
});
const step = fc.oneof(
  { weight: 12, arbitrary: batch },
  {
    weight: 2,
    arbitrary: fc.record({ kind: fc.constant('compact' as const), afterMs: fc.constantFrom(0, DAY_MS / 2, DAY_MS) }),
  },
  { weight: 1, arbitrary: fc.record({ kind: fc.constantFrom('restart' as const, 'kill' as const) }) },
);

test('any keys, tombstones, batches and codecs: what is left is what the model leaves', async (t) => {
  await fc.assert(
    fc.asyncProperty(fc.array(step, { minLength: 20, maxLength: 90 }), async (steps) => {
      let at = world();
      let engine = await at.clock.settle(openLogEngine(at));
      let log = openLog(engine, 1, { ...config, segmentBytes: 1000 });
      let model: ModelBatch[] = [];
      const check = async (): Promise<void> => {
        const found = await at.clock.settle(recordsFrom(log, 0, 700));
        const expected = model.flatMap(({ records }) => records);
        t.deepEqual(
          found.map(({ offset, key, value }) => [offset, key === null ? null : String(key), value === null]),
          expected.map(({ offset, key, isTombstone }) => [offset, key, isTombstone]),
        );
      };
      for (const each of steps) {
        if (each.kind === 'batch') {
          const base = log.endOffset;
          log.append(batchOf(each.records, { compression: each.compression }), waited);

          const records = each.records.map(({ key, value }, index) => ({
            offset: base + index,
            key,
            isTombstone: value === null,
          }));
          model.push({ records, horizonMs: -1 });
          continue;
        }
        await at.clock.settle(whenDurable(engine));
        await at.clock.advance(50);
        if (each.kind === 'compact') {
          at.clock.jump(each.afterMs);
          const nowMs = at.clock.now();
          const before = engine.compactor.counters.runs;
          await at.clock.settle(engine.compact());
          await at.clock.advance(500);
          if (engine.compactor.counters.runs > before)
            model = compactModel(model, engine.compactor.dirtyFrom(log), nowMs);
        } else {
          const image = each.kind === 'kill' ? at.disk.image().afterKill(new SimRandom(3)) : undefined;
          await at.clock.settle(engine.close());
          if (image !== undefined) at = { ...at, disk: new SimDisk({ image }) };
          engine = await at.clock.settle(openLogEngine(at));
          log = openLog(engine, 1, { ...config, segmentBytes: 1000 });
          await at.clock.settle(Promise.resolve(log.prepare()));
          await check();
        }
      }
      await at.clock.advance(100);
      await at.clock.settle(engine.close());
      engine = await at.clock.settle(openLogEngine(at));
      log = openLog(engine, 1, config);
      await check();
      await assertSound(t, at);
      t.deepEqual(at.warnings, []);
    }),
    { numRuns: 25 },
  );
});

test('jobs run inline answer as a thread would', async (t) => {
  const disk = new SimDisk();
  const jobs = new InlineJobs(disk);
  const source = { path: 'nothing', position: 0, endPosition: 100 };
  await t.throwsAsync(jobs.run('mapKeys', { source, fromOffset: 0, map: new SharedArrayBuffer(2000) }), {
    name: 'Error',
    message: /ENOENT/,
  });
});
