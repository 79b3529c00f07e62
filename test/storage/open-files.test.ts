import test from 'ava';
import { GatedDisk } from '../support/gated-disk.ts';
import { openLog, openLogEngine, valueBatch, valuesFrom, waited, whenDurable } from '../support/log-engine.ts';
import { SimClock } from '../support/sim-clock.ts';
import { SimDisk } from '../support/sim-disk.ts';
import { SimRandom } from '../support/sim-random.ts';

test('many partitions written at once do not keep all their files open', async (t) => {
  const clock = new SimClock();
  const disk = new GatedDisk(new SimDisk({ clock, latency: { random: new SimRandom(2), minMs: 0.05, maxMs: 0.2 } }));
  const openFilesMax = 16;
  const engine = await clock.settle(
    openLogEngine({ disk, clock, random: new SimRandom(1), settings: { openFilesMax } }),
  );
  const logs = Array.from({ length: 300 }, (_, number) => openLog(engine, number));
  let most = 0;
  for (let round = 0; round < 3; round++) {
    for (const log of logs) log.append(valueBatch(`round-${round}`), waited);
    await clock.settle(whenDurable(engine));
    while (engine.counters.unwrittenBytes > 0) {
      await clock.advance(1);
      most = Math.max(most, disk.openFiles);
    }
  }
  t.true(most < 100, `${most} files were open`);
  for (const log of logs) t.deepEqual(await valuesFrom(log, 0), ['round-0', 'round-1', 'round-2']);
  await clock.settle(engine.close());
  t.is(disk.openFiles, 0);
});
