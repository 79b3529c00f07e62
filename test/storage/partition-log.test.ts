import test from 'ava';
import { buildBatch } from '../../protocol/record-batch.ts';
import { GatedDisk } from '../support/gated-disk.ts';
import { openLog, openLogEngine, valueBatch, valuesFrom, waited, whenDurable } from '../support/log-engine.ts';
import { SimClock } from '../support/sim-clock.ts';
import { SimDisk } from '../support/sim-disk.ts';
import { SimRandom } from '../support/sim-random.ts';

function world(settings = {}) {
  const clock = new SimClock();
  const sim = new SimDisk();
  const disk = new GatedDisk(sim);
  const warnings: string[] = [];
  return { clock, sim, disk, random: new SimRandom(1), settings, warnings };
}

/** One record of an idempotent producer. */
const sentBy = (producerId: number, baseSequence: number, sizeBytes = 0): Buffer =>
  buildBatch(
    [{ key: null, value: Buffer.from(`${producerId}/${baseSequence}:`.padEnd(sizeBytes, '.')), timestamp: 1000 }],
    { producerId, producerEpoch: 0, baseSequence },
  );

test('segments that are dropped while producers are read back leave the partition whole', async (t) => {
  const at = world();
  const { clock, disk } = at;
  let engine = await clock.settle(openLogEngine(at));
  let log = openLog(engine, 1, { segmentBytes: 10_000 });
  for (let sequence = 0; sequence < 8; sequence++) log.append(sentBy(sequence % 4, sequence >> 2, 4000), waited);
  await clock.settle(whenDurable(engine));
  await clock.advance(100);
  // As after kill -9: no snapshot, the producers are in the segments only.
  const image = at.sim.image().afterKill(new SimRandom(2));
  await clock.settle(engine.close());

  const after = { ...at, disk: new GatedDisk(new SimDisk({ image })) };
  engine = await clock.settle(openLogEngine(after));
  log = openLog(engine, 1, { segmentBytes: 10_000 });
  t.is(log.segments.length, 4);
  const gate = after.disk.hold('read', `${'0'.repeat(20)}.log`);
  const preparing = Promise.resolve(log.prepare());
  await clock.settle(gate.arrived);
  // Records are deleted meanwhile.
  const { position } = engine.commit([{ kind: 'start', partition: log, offset: 6 }], 'waited');
  await clock.settle(whenDurable(engine, position));
  await clock.advance(1);
  gate.open();
  await clock.settle(preparing);
  await clock.advance(100);
  t.deepEqual(at.warnings, []);
  t.false(log.isFenced);
  t.is(log.producerCount, 4);
  t.true(log.append(sentBy(0, 1, 4000), waited).isDuplicate);
  t.is(log.segments[0].baseOffset, 6);
  t.deepEqual(
    (await after.disk.list('data/topic-1-0')).filter((name) => name.endsWith('.log')),
    [`${'6'.padStart(20, '0')}.log`],
  );
  await clock.settle(engine.close());
  t.is(disk.openFiles, 0);
});

test('a segment that went after the checkpoint, with its last reader, is not missed', async (t) => {
  const at = world();
  const { clock } = at;
  let engine = await clock.settle(openLogEngine(at));
  let log = openLog(engine, 1, { segmentBytes: 10_000 });
  for (let sequence = 0; sequence < 4; sequence++) log.append(sentBy(1, sequence, 4000), waited);
  await clock.settle(whenDurable(engine));
  await clock.advance(100);
  let image = at.sim.image().afterKill(new SimRandom(2));
  await clock.settle(engine.close());

  let sim = new SimDisk({ image });
  engine = await clock.settle(openLogEngine({ ...at, disk: sim }));
  log = openLog(engine, 1, { segmentBytes: 10_000 });
  const slice = await log.read(0, 100, { wholeFirst: true });
  engine.commit([{ kind: 'start', partition: log, offset: 2 }], 'waited');
  await clock.settle(whenDurable(engine));
  await clock.settle(engine.checkpoint(false));
  slice.release();
  await clock.advance(100);
  image = sim.image().afterKill(new SimRandom(3));
  await clock.settle(engine.close());

  sim = new SimDisk({ image });
  engine = await clock.settle(openLogEngine({ ...at, disk: sim }));
  log = openLog(engine, 1, { segmentBytes: 10_000 });
  await clock.settle(Promise.resolve(log.prepare()));
  t.deepEqual(at.warnings, []);
  t.false(log.isFenced);
  t.is(log.segments.length, 1);
  t.true(log.append(sentBy(1, 3, 4000), waited).isDuplicate);
  await clock.settle(engine.close());
});

test('snapshots of many producers do not pile up from checkpoint to checkpoint', async (t) => {
  const at = world();
  const { clock, disk } = at;
  let engine = await clock.settle(openLogEngine(at));
  let log = openLog(engine);
  for (let round = 0; round < 6; round++) {
    for (let producerId = 0; producerId < 400; producerId++) log.append(sentBy(producerId, round), waited);
    await clock.settle(whenDurable(engine));
    await clock.settle(engine.checkpoint(false));
    const snapshots = (await disk.list('data/topic-1-0')).filter((name) => name.endsWith('.snapshot'));
    t.true(snapshots.length <= 2, snapshots.join());
  }
  const image = at.sim.image().afterKill(new SimRandom(2));
  await clock.settle(engine.close());
  // The one that the checkpoint names is among them.
  engine = await clock.settle(openLogEngine({ ...at, disk: new SimDisk({ image }) }));
  log = openLog(engine);
  await clock.settle(Promise.resolve(log.prepare()));
  t.is(log.producerCount, 400);
  t.true(log.append(sentBy(399, 5), waited).isDuplicate);
  await clock.settle(engine.close());
});

test('a time is found although the last part of the time index was not saved', async (t) => {
  const at = world();
  const { clock, disk } = at;
  const config = { indexIntervalBytes: 100 };
  let engine = await clock.settle(openLogEngine(at));
  let log = openLog(engine, 1, config);
  const times = [10, 20, 30, 1000, 40, 50, 60];
  for (const [index, time] of times.entries()) log.append(valueBatch(`value-${index}`, 500, time), waited);
  await clock.settle(whenDurable(engine));
  await clock.settle(engine.close());
  // A power cut has kept more of the one file than of the other.
  const path = `data/topic-1-0/${'0'.repeat(20)}`;
  for (const [ending, sizeBytes] of [
    ['.index', 4 * 8],
    ['.timeindex', 2 * 12],
  ] as const) {
    const file = await disk.open(path + ending, 'write');
    t.true((await file.size()) > sizeBytes);
    await file.truncate(sizeBytes);
    await file.close();
  }

  engine = await clock.settle(openLogEngine(at));
  log = openLog(engine, 1, config);
  await clock.settle(Promise.resolve(log.prepare()));
  t.is((await clock.settle(log.offsetForTime(500)))?.offset, 3);
  for (const time of [70, 80, 90]) log.append(valueBatch('later', 500, time), waited);
  await clock.settle(whenDurable(engine));
  await clock.settle(engine.close());

  engine = await clock.settle(openLogEngine(at));
  log = openLog(engine, 1, config);
  const found = await clock.settle(log.offsetForTime(500));
  t.is(found?.offset, 3);
  t.is((await clock.settle(log.offsetForTime(35)))?.offset, 3);
  t.is((await clock.settle(log.offsetForTime(1001)))?.offset, undefined);
  await clock.settle(engine.close());
});

test('too many open files fail a read but do not fence the partition', async (t) => {
  const at = world();
  const { clock, disk } = at;
  let engine = await clock.settle(openLogEngine(at));
  openLog(engine).append(valueBatch('value'), waited);
  await clock.settle(whenDurable(engine));
  await clock.settle(engine.close());
  engine = await clock.settle(openLogEngine(at));
  const log = openLog(engine);
  const tooMany = (): Error => Object.assign(new Error('EMFILE: too many open files'), { code: 'EMFILE' });

  disk.hold('open', '.log').open(tooMany());
  await t.throwsAsync(async () => log.read(0, 100, { wholeFirst: true }), { code: 'KAFKA_STORAGE_ERROR' });
  disk.hold('open', '.log').open(tooMany());
  await t.throwsAsync(async () => log.prepare(), { code: 'KAFKA_STORAGE_ERROR' });
  disk.hold('open', '.log').open(tooMany());
  await t.throwsAsync(log.offsetForTime(1), { code: 'KAFKA_STORAGE_ERROR' });
  t.false(log.isFenced);
  t.deepEqual(await valuesFrom(log, 0), ['value']);
  await log.prepare();
  t.is(log.append(valueBatch('next'), waited).baseOffset, 1);
  await clock.settle(engine.close());
});

test('files that were to be removed when the process ended are removed by the next one', async (t) => {
  const at = world();
  const { clock } = at;
  const config = { segmentBytes: 10_000, fileDeleteDelayMs: 60_000 };
  let engine = await clock.settle(openLogEngine(at));
  const log = openLog(engine, 1, config);
  for (let index = 0; index < 6; index++) log.append(valueBatch(`value-${index}`, 4000), waited);
  await clock.settle(whenDurable(engine));
  engine.commit([{ kind: 'start', partition: log, offset: 4 }], 'waited');
  await clock.settle(whenDurable(engine));
  await clock.advance(1000);
  await clock.settle(engine.checkpoint(false));
  const names = await at.disk.list('data/topic-1-0');
  t.true(names.some((name) => name.endsWith('.deleted')));
  const image = at.sim.image().afterKill(new SimRandom(2));
  await clock.settle(engine.close());

  const sim = new SimDisk({ image });
  engine = await clock.settle(openLogEngine({ ...at, disk: sim }));
  const again = openLog(engine, 1, config);
  // Nobody writes to it.
  await clock.advance(1000);
  t.deepEqual(
    (await sim.list('data/topic-1-0')).filter((name) => name.endsWith('.deleted')),
    [],
  );
  t.deepEqual(await valuesFrom(again, 4), ['value-4', 'value-5']);
  await clock.settle(engine.close());
});

test('producers are built again from the log if their snapshot is damaged', async (t) => {
  const at = world();
  const { clock, disk } = at;
  let engine = await clock.settle(openLogEngine(at));
  let log = openLog(engine);
  for (let producerId = 0; producerId < 400; producerId++) log.append(sentBy(producerId, 0), waited);
  await clock.settle(whenDurable(engine));
  await clock.settle(engine.close());
  const names = await disk.list('data/topic-1-0');
  const path = `data/topic-1-0/${names.find((name) => name.endsWith('.snapshot'))}`;
  const file = await disk.open(path, 'write');
  await file.write([Buffer.from('damage')], 100);
  await file.close();
  engine = await clock.settle(openLogEngine(at));
  log = openLog(engine);
  await clock.settle(Promise.resolve(log.prepare()));
  t.is(log.producerCount, 400);
  t.true(log.append(sentBy(399, 0), waited).isDuplicate);
  t.regex(at.warnings.join(), /producer state is built again/);
  await clock.settle(engine.close());
});
