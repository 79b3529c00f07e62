/** Batches that many partitions take in one instant are in the journal once. */
import test from 'ava';
import type { LogEngine } from '../../storage/log-engine.ts';
import type { PartitionLog } from '../../storage/partition-log.ts';
import { openLog, openLogEngine, valueBatch, valuesFrom, waited, whenDurable } from '../support/log-engine.ts';
import { SimClock } from '../support/sim-clock.ts';
import { SimDisk } from '../support/sim-disk.ts';
import { SimRandom } from '../support/sim-random.ts';

const PARTITIONS = 1000;
const BODY_BYTES = 1024;

interface World {
  disk: SimDisk;
  clock: SimClock;
  random: SimRandom;
}

function newWorld(): World {
  return { disk: new SimDisk(), clock: new SimClock(), random: new SimRandom(1) };
}

const journaled = (engine: LogEngine): number => engine.counters.journalBytes;

/** As it is found after a power cut that takes everything that was not synced. */
async function afterPowerCut(world: World, engine: LogEngine): Promise<LogEngine> {
  const image = world.disk.image().afterPowerCut(new SimRandom(2), { unsynced: 'lost' });
  await world.clock.settle(engine.close());
  return world.clock.settle(openLogEngine({ ...world, disk: new SimDisk({ image }) }));
}

test('a message for 1,000 partitions costs the journal its body once and a little for each', async (t) => {
  const world = newWorld();
  const { clock } = world;
  const settings = {
    journalFileBytes: 4 * 1024 * 1024,
    journalGroupBytes: 4 * 1024 * 1024,
    journalDirectBytes: 1024 * 1024,
  };
  const engine = await clock.settle(openLogEngine({ ...world, settings }));
  const logs = Array.from({ length: PARTITIONS }, (_, index) => openLog(engine, index + 1));
  // Each is somewhere else, and known to the journal.
  logs.forEach((log, index) => {
    for (let count = index % 4; count >= 0; count--) log.append(valueBatch(`first-${index}-${count}`), waited);
  });
  await clock.settle(whenDurable(engine));
  const before = journaled(engine);
  for (const log of logs) log.append(valueBatch('everywhere', BODY_BYTES), waited);
  await clock.settle(whenDurable(engine));
  const bytes = journaled(engine) - before;
  t.true(bytes <= 1.2 * BODY_BYTES + 64 * PARTITIONS, `${bytes} bytes`);
  const again = await afterPowerCut(world, engine);
  for (const index of [0, 1, 2, 3, 500, PARTITIONS - 1]) {
    const values = await clock.settle(valuesFrom(openLog(again, index + 1), 0));
    const expected = Array.from({ length: (index % 4) + 1 }, (_, count) => `first-${index}-${(index % 4) - count}`);
    t.deepEqual(values, [...expected, 'everywhere']);
  }
  await clock.settle(again.close());
});

test('what is the same is found again at its own offsets, also twice in one partition', async (t) => {
  const world = newWorld();
  const { clock } = world;
  const engine = await clock.settle(openLogEngine(world));
  const logs = [1, 2, 3].map((number) => openLog(engine, number));
  const expected: string[][] = [[], [], []];
  const append = (log: PartitionLog, value: string): void => {
    log.append(valueBatch(value, 300), waited);
    expected[logs.indexOf(log)].push(value);
  };
  for (let round = 0; round < 5; round++) {
    append(logs[0], 'same');
    append(logs[1], 'same');
    append(logs[0], 'same');
    append(logs[2], `other-${round}`);
    append(logs[2], 'same');
    append(logs[1], 'same');
    await clock.settle(whenDurable(engine));
  }
  const again = await afterPowerCut(world, engine);
  for (const [index, values] of expected.entries()) {
    const log = openLog(again, index + 1);
    t.deepEqual(await clock.settle(valuesFrom(log, 0)), values);
    t.is(log.endOffset, values.length);
  }
  await clock.settle(again.close());
});
