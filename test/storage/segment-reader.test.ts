import test from 'ava';
import { SimClock } from '../support/sim-clock.ts';
import { SimDisk } from '../support/sim-disk.ts';
import { SimRandom } from '../support/sim-random.ts';
import { openLog, openLogEngine, sliceBytes, valueBatch, waited, whenDurable } from '../support/log-engine.ts';

test('a range of a file that ends in the middle of a batch is read in pieces smaller than that batch', async (t) => {
  const clock = new SimClock();
  const disk = new SimDisk();
  const world = { disk, clock, random: new SimRandom(1) };
  let engine = await clock.settle(openLogEngine(world));
  let log = openLog(engine);
  for (let index = 0; index < 3; index++) log.append(valueBatch(`value-${index}`, 10_000), waited);
  await clock.settle(whenDurable(engine));
  await clock.settle(engine.close());
  // Nothing is in memory any more.
  engine = await clock.settle(openLogEngine(world));
  log = openLog(engine);
  const whole = await sliceBytes(await log.read(0, 100_000, { wholeFirst: true }));
  for (const maxBytes of [15_000, 19_990, 25_000]) {
    for (const pieceBytes of [100, 1000, 1024, 4000, 9000]) {
      const slice = await log.read(0, maxBytes, { wholeFirst: true });
      t.deepEqual(await sliceBytes(slice, pieceBytes), whole.subarray(0, maxBytes), `${maxBytes} by ${pieceBytes}`);
    }
  }
  await clock.settle(engine.close());
});
