import test from 'ava';
import type { LogEngine } from '../../storage/log-engine.ts';
import { GatedDisk } from '../support/gated-disk.ts';
import { openLog, openLogEngine, valueBatch, valuesFrom, waited, whenDurable } from '../support/log-engine.ts';
import { SimClock } from '../support/sim-clock.ts';
import { SimDisk } from '../support/sim-disk.ts';
import type { SimImage } from '../support/sim-image.ts';
import { SimRandom } from '../support/sim-random.ts';

function world(sim = new SimDisk(), settings = {}) {
  return { clock: new SimClock(), sim, disk: new GatedDisk(sim), random: new SimRandom(1), settings, warnings: [] };
}

/** Appends journaled values to partitions `numbers`; answers when they are durable. */
async function append(engine: LogEngine, clock: SimClock, numbers: readonly number[], values: readonly string[]) {
  for (const number of numbers) {
    const log = openedLog(engine, number);
    for (const value of values) log.append(valueBatch(value, 200), waited);
  }
  await clock.settle(whenDurable(engine));
}

const opened = new WeakMap<LogEngine, Map<number, ReturnType<typeof openLog>>>();
function openedLog(engine: LogEngine, number: number) {
  const logs = opened.get(engine) ?? new Map<number, ReturnType<typeof openLog>>();
  opened.set(engine, logs);
  const log = logs.get(number) ?? openLog(engine, number);
  logs.set(number, log);
  return log;
}

/** What a kill leaves of a log whose journal has 'a', 'b' and 'c' for each of `numbers`, and a checkpoint only 'a'. */
async function killed(numbers: readonly number[], lingerMs: number): Promise<SimImage> {
  const at = world(undefined, { journalSegmentLingerMs: 1 });
  const engine = await at.clock.settle(openLogEngine(at));
  await append(engine, at.clock, numbers, ['a']);
  await at.clock.settle(engine.checkpoint(false));
  await append(engine, at.clock, numbers, ['b', 'c']);
  await at.clock.advance(lingerMs);
  const image = at.sim.image().afterKill(new SimRandom(2));
  await at.clock.settle(engine.close());
  return image;
}

const three = [1, 2, 3];

test('a start is ready before it has looked at the partitions that the journal tells', async (t) => {
  const at = world(new SimDisk({ image: await killed(three, 100) }));
  const gates = three.map((number) => at.disk.hold('open', `topic-${number}-0/`));
  const engine = await at.clock.settle(openLogEngine(at));
  for (const number of three) t.is(openedLog(engine, number).highWatermark, 3);
  for (const gate of gates) gate.open();
  await at.clock.settle(engine.close());
});

for (const [what, lingerMs] of [
  ['has reached its segment', 100],
  ['is only in the journal', 0],
] as const) {
  test(`a read of what ${what} waits until the segment is looked at`, async (t) => {
    const at = world(new SimDisk({ image: await killed(three, lingerMs) }));
    const engine = await at.clock.settle(openLogEngine(at));
    for (const number of three) {
      t.deepEqual(await at.clock.settle(valuesFrom(openedLog(engine, number), 0)), ['a', 'b', 'c']);
    }
    t.is((await at.clock.settle(openedLog(engine, 1).offsetForTime(0)))?.offset, 0);
    await at.clock.settle(engine.close());
  });
}

test('a kill before anything was looked at loses nothing, nor does one after the next appends', async (t) => {
  const first = world(new SimDisk({ image: await killed(three, 0) }));
  const gate = first.disk.hold('open', 'topic-2-0/');
  const engine = await first.clock.settle(openLogEngine(first));
  const log = openedLog(engine, 1);
  await first.clock.settle(Promise.resolve(log.prepare()));
  await append(engine, first.clock, [1], ['d']);
  const image = first.sim.image().afterKill(new SimRandom(3));
  gate.open();
  await first.clock.settle(engine.close());

  const second = world(new SimDisk({ image }));
  const again = await second.clock.settle(openLogEngine(second));
  t.deepEqual(await second.clock.settle(valuesFrom(openedLog(again, 1), 0)), ['a', 'b', 'c', 'd']);
  t.deepEqual(await second.clock.settle(valuesFrom(openedLog(again, 2), 0)), ['a', 'b', 'c']);
  await second.clock.settle(again.close());
});

test('a direct write that was never acknowledged is cut before anything takes its place', async (t) => {
  const at = world();
  const engine = await at.clock.settle(openLogEngine(at));
  await append(engine, at.clock, [1], ['a', 'b']);
  await at.clock.advance(100);
  // Its batch is in the segment, its record is not in the journal.
  const gate = at.disk.hold('write', 'journal');
  openedLog(engine, 1).append(valueBatch('unacknowledged', 100_000), waited);
  await at.clock.settle(gate.arrived);
  await at.clock.advance(100);
  const image = at.sim.image().afterKill(new SimRandom(2));
  gate.open();
  await at.clock.settle(engine.close());

  const next = world(new SimDisk({ image }));
  const again = await next.clock.settle(openLogEngine(next));
  const log = openedLog(again, 1);
  t.is(log.highWatermark, 2);
  await next.clock.settle(Promise.resolve(log.prepare()));
  t.is(log.endOffset, 2);
  await append(again, next.clock, [1], ['c']);
  t.deepEqual(await next.clock.settle(valuesFrom(log, 0)), ['a', 'b', 'c']);
  t.true(log.sizeBytes < 10_000);
  await next.clock.settle(again.close());
});

const unreadable = (): Error => Object.assign(new Error('EIO: i/o error, read'), { code: 'EIO' });

test('a segment that cannot be read after a start is written again from the journal', async (t) => {
  const at = world(new SimDisk({ image: await killed(three, 100) }));
  at.disk.hold('read', 'topic-1-0/').open(unreadable());
  const engine = await at.clock.settle(openLogEngine(at));
  for (const number of three) {
    const log = openedLog(engine, number);
    await at.clock.settle(Promise.resolve(log.prepare()));
    await append(engine, at.clock, [number], ['d']);
    t.deepEqual(await at.clock.settle(valuesFrom(log, 0)), ['a', 'b', 'c', 'd']);
  }
  t.regex(at.warnings.join(), /topic-1-0 is written again from the journal: .*EIO/);
  await at.clock.settle(engine.close());
  const again = await at.clock.settle(openLogEngine({ ...at, disk: new GatedDisk(at.sim) }));
  t.deepEqual(await at.clock.settle(valuesFrom(openedLog(again, 1), 0)), ['a', 'b', 'c', 'd']);
  await at.clock.settle(again.close());
});

test('a segment that cannot be read at all costs its partition until the next start, and nothing that was acknowledged', async (t) => {
  const at = world(new SimDisk({ image: await killed(three, 100) }));
  for (let count = 0; count < 100; count++) at.disk.hold('read', 'topic-1-0/').open(unreadable());
  const engine = await at.clock.settle(openLogEngine(at));
  await at.clock.settle(engine.checkpoint(false));
  await t.throwsAsync(at.clock.settle(valuesFrom(openedLog(engine, 1), 0)), { code: 'KAFKA_STORAGE_ERROR' });
  t.true(openedLog(engine, 1).isFenced);
  await at.clock.settle(Promise.resolve(openedLog(engine, 2).prepare()));
  await append(engine, at.clock, [2], ['d']);
  t.deepEqual(await at.clock.settle(valuesFrom(openedLog(engine, 2), 0)), ['a', 'b', 'c', 'd']);
  await at.clock.settle(engine.close());
  const again = await at.clock.settle(openLogEngine({ ...at, disk: new GatedDisk(at.sim) }));
  t.deepEqual(await at.clock.settle(valuesFrom(openedLog(again, 1), 0)), ['a', 'b', 'c']);
  await at.clock.settle(again.close());
});

test('a segment that was written directly and cannot be read at the start fences its partition, and no other', async (t) => {
  const at = world();
  const engine = await at.clock.settle(openLogEngine(at));
  await append(engine, at.clock, three, ['a']);
  openedLog(engine, 1).append(valueBatch('direct', 100_000), waited);
  await at.clock.settle(whenDurable(engine));
  const image = at.sim.image().afterKill(new SimRandom(2));
  await at.clock.settle(engine.close());

  const next = world(new SimDisk({ image }));
  next.disk.hold('read', 'topic-1-0/').open(unreadable());
  const again = await next.clock.settle(openLogEngine(next));
  t.true(openedLog(again, 1).isFenced);
  t.throws(() => openedLog(again, 1).append(valueBatch('b'), waited), { code: 'KAFKA_STORAGE_ERROR' });
  t.deepEqual(await next.clock.settle(valuesFrom(openedLog(again, 2), 0)), ['a']);
  await next.clock.settle(again.close());
});

test('a partition that was deleted before it was looked at takes its folder with it', async (t) => {
  const at = world(new SimDisk({ image: await killed(three, 0) }));
  const engine = await at.clock.settle(openLogEngine(at));
  const { position } = engine.commit([{ kind: 'delete', partition: openedLog(engine, 2) }], 'waited');
  await at.clock.settle(whenDurable(engine, position));
  await at.clock.settle(engine.close());
  t.deepEqual(
    (await at.sim.list('data')).filter((name) => name.startsWith('topic')),
    ['topic-1-0', 'topic-3-0'],
  );
});

test('with log.flush=written, a folder that nothing names is set aside, and removed if it holds nothing', async (t) => {
  const at = world(undefined, { isSynced: false });
  const engine = await at.clock.settle(openLogEngine(at));
  await append(engine, at.clock, [1], ['a']);
  await at.clock.settle(engine.close());
  const warnings: string[] = [];
  for (const [name, bytes] of [
    ['empty-0', ''],
    ['full-0', 'something'],
  ]) {
    await at.sim.makeDirectory(`data/${name}`);
    const file = await at.sim.open(`data/${name}/00000000000000000000.log`, 'write');
    if (bytes !== '') await file.write([Buffer.from(bytes)], 0);
    await file.close();
  }
  const again = await at.clock.settle(openLogEngine({ ...at, warnings }));
  t.is(warnings.length, 2);
  const told = warnings.toSorted();
  t.is(told[0], 'empty-0 held nothing and is removed: the journal does not know it');
  t.regex(told[1], /^full-0 is set aside as full-0\.[0-9a-f]{8}-stray: the journal does not know it$/);
  await at.clock.settle(again.close());
});
