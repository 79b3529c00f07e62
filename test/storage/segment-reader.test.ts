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

test('a batch that says it ends beyond the end of the log fences its partition', async (t) => {
  const clock = new SimClock();
  const disk = new SimDisk();
  const warnings: string[] = [];
  const world = { disk, clock, random: new SimRandom(1), warnings };
  let engine = await clock.settle(openLogEngine(world));
  let log = openLog(engine);
  const sizes = [0, 1, 2].map((index) => {
    const batch = valueBatch(`value-${index}`);
    log.append(batch, waited);
    return batch.length;
  });
  await clock.settle(whenDurable(engine));
  await clock.settle(engine.close());
  const { folder } = log;
  const file = await disk.open(`data/${folder ?? ''}/00000000000000000000.log`, 'write');
  // The last byte of the last batch's last offset delta.
  await file.write([Buffer.from([9])], sizes[0] + sizes[1] + 26);
  await file.close();
  engine = await clock.settle(openLogEngine(world));
  log = openLog(engine);
  await t.throwsAsync(async () => log.read(2, 100_000, { wholeFirst: true }), { code: 'KAFKA_STORAGE_ERROR' });
  t.true(log.isFenced);
  t.regex(warnings.join(), /batch up to offset 11 at \d+, expected the end at 3/);
  await clock.settle(engine.close());
});
