import test from 'ava';
import { buildBatch } from '../../protocol/record-batch.ts';
import { SimClock } from '../support/sim-clock.ts';
import { GatedDisk } from '../support/gated-disk.ts';
import { SimDisk } from '../support/sim-disk.ts';
import { SimRandom } from '../support/sim-random.ts';
import { openLog, openLogEngine, valueBatch, valuesFrom, waited, whenDurable } from '../support/log-engine.ts';

function world(settings = {}) {
  const clock = new SimClock();
  const sim = new SimDisk();
  const disk = new GatedDisk(sim);
  const warnings: string[] = [];
  return { clock, sim, disk, random: new SimRandom(1), settings, warnings };
}

test('a checkpoint waits for a sync of the same segment that a direct write has begun', async (t) => {
  const at = world();
  const { clock, disk, sim } = at;
  const engine = await clock.settle(openLogEngine(at));
  const log = openLog(engine);
  // Journaled, and in the segment, but not synced there.
  for (let producerId = 0; producerId < 500; producerId++) {
    const options = { producerId, producerEpoch: 0, baseSequence: 0 };
    log.append(buildBatch([{ key: null, value: Buffer.from('journaled:'), timestamp: 1000 }], options), waited);
  }
  await clock.settle(whenDurable(engine));
  await clock.advance(100);
  t.is(log.unwrittenBytes, 0);
  // The checkpoint is busy with the producers when a direct write puts its bytes behind them and syncs both.
  const busy = disk.hold('sync', '.snapshot');
  const slow = disk.hold('sync', '.log');
  let isDone = false;
  const checkpoint = engine.checkpoint(false).then(() => {
    isDone = true;
  });
  await clock.settle(busy.arrived);
  log.append(valueBatch('direct', 100_000), waited);
  await clock.advance(1);
  await clock.settle(slow.arrived);
  busy.open();
  await clock.advance(1000);
  t.false(isDone, 'nothing may be taken for synced yet');
  const image = sim.image().afterPowerCut(new SimRandom(2), { unsynced: 'lost' });
  slow.open();
  await clock.settle(checkpoint);
  await clock.settle(engine.close());

  const again = await clock.settle(openLogEngine({ ...at, disk: new SimDisk({ image }) }));
  t.is((await clock.settle(valuesFrom(openLog(again), 0))).length, 500, at.warnings.join());
  await clock.settle(again.close());
});

test('a direct write to a new segment is answered after the end of the one before it is synced', async (t) => {
  const at = world();
  const { clock, disk, sim } = at;
  const engine = await clock.settle(openLogEngine(at));
  const log = openLog(engine, 1, { segmentBytes: 110_000 });
  log.append(valueBatch('journaled', 10_000), waited);
  await clock.settle(whenDurable(engine));
  await clock.advance(100);
  // A checkpoint is about to sync the first segment.
  const gate = disk.hold('sync', `${'0'.repeat(20)}.log`);
  const checkpoint = engine.checkpoint(false);
  await clock.settle(gate.arrived);
  let isAnswered = false;
  engine.whenDurable(log.append(valueBatch('direct', 105_000), waited).position, () => {
    isAnswered = true;
  });
  t.is(log.segments.length, 2);
  await clock.advance(1000);
  const image = sim.image().afterPowerCut(new SimRandom(2), { unsynced: 'lost', names: 'kept' });
  const wasAnswered = isAnswered;
  gate.open();
  await clock.settle(checkpoint);
  await clock.settle(engine.close());

  const again = await clock.settle(openLogEngine({ ...at, disk: new SimDisk({ image }) }));
  const values = await clock.settle(valuesFrom(openLog(again), 0));
  if (wasAnswered) t.deepEqual(values, ['journaled', 'direct'], at.warnings.join());
  else t.is(values[0], 'journaled');
  await clock.settle(again.close());
});

test('the log closes although the journal has no room for the last group', async (t) => {
  const at = world({ journalFileBytes: 20_000, journalFiles: 2, journalSegmentLingerMs: 10_000 });
  const { clock } = at;
  const engine = await clock.settle(openLogEngine(at));
  const log = openLog(engine);
  for (let index = 0; index < 2; index++) {
    log.append(valueBatch(`value-${index}`, 15_000), waited);
    await clock.settle(whenDurable(engine));
  }
  // Both files are full; closing begins before this one is tried.
  const { position } = log.append(valueBatch('value-2', 15_000), waited);
  let isDurable = false;
  engine.whenDurable(position, () => {
    isDurable = true;
  });
  await clock.settle(engine.close());
  t.true(isDurable);
});

test('a reader that never lets go of a deleted partition holds up neither checkpoints nor appends', async (t) => {
  const at = world({ journalSegmentLingerMs: 10_000, journalSegmentBytes: 1_000_000, unwrittenBytesMax: 100_000 });
  const { clock, disk } = at;
  let engine = await clock.settle(openLogEngine(at));
  openLog(engine).append(valueBatch('read from a file', 1000), waited);
  await clock.settle(whenDurable(engine));
  await clock.settle(engine.close());
  engine = await clock.settle(openLogEngine(at));
  const log = openLog(engine);
  const slice = await log.read(0, 100, { wholeFirst: true });
  await clock.settle(Promise.resolve(log.prepare()));
  const others = [2, 3, 4, 5].map((number) => openLog(engine, number));
  for (const other of others) other.append(valueBatch('other'), waited);
  await clock.settle(whenDurable(engine));
  log.append(valueBatch('unwritten', 49_999), waited);
  await clock.settle(whenDurable(engine));
  // A checkpoint is to come to the partition, and is busy with others.
  const gates = others.map((_, index) => disk.hold('sync', `topic-${index + 2}-0/000`));
  const checkpoint = engine.checkpoint(false);
  for (const gate of gates) await clock.settle(gate.arrived);
  for (let index = 0; index < 2; index++) log.append(valueBatch('unwritten', 49_999), waited);
  const { position } = engine.commit([{ kind: 'delete', partition: log }], 'waited');
  await clock.settle(whenDurable(engine, position));
  for (const gate of gates) gate.open();
  await clock.settle(checkpoint);
  t.true(engine.hasRoom);
  slice.release();
  await clock.settle(engine.close());
});

test('with log.flush=written too, positions are called back in their order', async (t) => {
  const at = world({ isSynced: false, journalGroupBytes: 1000 });
  const { clock } = at;
  const engine = await clock.settle(openLogEngine(at));
  const log = openLog(engine);
  log.append(valueBatch('first'), waited);
  await clock.settle(whenDurable(engine));
  const called: number[] = [];
  for (let index = 0; index < 5; index++) {
    const { position } = log.append(valueBatch(`value-${index}`, 1000), waited);
    engine.whenDurable(position, () => called.push(position));
  }
  await clock.settle(whenDurable(engine));
  t.deepEqual(
    called,
    called.toSorted((a, b) => a - b),
  );
  t.is(new Set(called).size, 5);
  await clock.settle(engine.close());
});

test('a mark that comes after its partition was deleted does not bring it back', async (t) => {
  const at = world();
  const { clock, disk, sim } = at;
  const engine = await clock.settle(openLogEngine(at));
  const [gone, other] = [openLog(engine, 1), openLog(engine, 2)];
  const append = async (log: typeof gone, sizeBytes: number): Promise<void> => {
    log.append(valueBatch('value', sizeBytes), waited);
    await clock.settle(whenDurable(engine));
  };
  // The next marks are due in a while.
  await append(other, 100_000);
  await clock.advance(60);
  await append(other, 100);
  // Written directly: the next marks will name it.
  await append(gone, 100_000);
  const gate = disk.hold('rename', '-delete');
  const { position } = engine.commit([{ kind: 'delete', partition: gone }], 'waited');
  await clock.settle(whenDurable(engine, position));
  await clock.settle(gate.arrived);
  await clock.settle(engine.checkpoint(false));
  await clock.advance(60);
  await append(other, 100);
  const image = sim.image().afterPowerCut(new SimRandom(2), { unsynced: 'kept', names: 'lost' });
  gate.open();
  await clock.settle(engine.close());

  const after = new SimDisk({ image });
  const again = await clock.settle(openLogEngine({ ...at, disk: after }));
  t.is(openLog(again, 1).endOffset, 0, at.warnings.join());
  t.is(openLog(again, 2).endOffset, 3);
  t.deepEqual(
    (await after.list('data')).filter((name) => name.startsWith('topic-1')),
    [],
  );
  await clock.settle(again.close());
});
