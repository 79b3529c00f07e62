import test from 'ava';
import { crc32c } from '../../protocol/crc32c.ts';
import { openLog, openLogEngine, valueBatch, valuesFrom, waited, whenDurable } from '../support/log-engine.ts';
import { SimClock } from '../support/sim-clock.ts';
import { SimDisk } from '../support/sim-disk.ts';
import { SimRandom } from '../support/sim-random.ts';

test('a journal file of another format is not passed over', async (t) => {
  const clock = new SimClock();
  const disk = new SimDisk();
  const world = { disk, clock, random: new SimRandom(1) };
  const engine = await clock.settle(openLogEngine(world));
  openLog(engine).append(valueBatch('value'), waited);
  await clock.settle(whenDurable(engine));
  const image = disk.image().afterKill(new SimRandom(2));
  await clock.settle(engine.close());

  const after = new SimDisk({ image });
  const header = Buffer.alloc(512);
  const file = await after.open('data/journal/journal-00', 'write');
  await file.read(header, 0);
  header.writeUInt16BE(2, 4);
  header.writeUInt32BE(crc32c(header, 0, 32), 32);
  await file.write([header], 0);
  await file.close();
  await t.throwsAsync(clock.settle(openLogEngine({ ...world, disk: after })), { code: 'DATA_DIR_FORMAT' });
});

test('batches larger than a journal file, a group and a slab are stored and found again', async (t) => {
  const clock = new SimClock();
  const disk = new SimDisk();
  const world = {
    disk,
    clock,
    random: new SimRandom(1),
    settings: {
      journalFileBytes: 50_000,
      journalGroupBytes: 20_000,
      journalDirectBytes: 300_000,
      tailCacheBytes: 512 * 1024,
    },
  };
  const engine = await clock.settle(openLogEngine(world));
  const logs = [1, 2, 3, 4].map((number) => openLog(engine, number));
  const expected: string[] = [];
  for (let round = 0; round < 6; round++) {
    // Smaller than what goes direct, larger than anything else; and some that go direct, more than may in one group.
    for (const log of logs) {
      log.append(valueBatch(`value-${round}`, round % 2 === 0 ? 200_000 : 400_000), waited);
      log.append(valueBatch(`small-${round}`), waited);
    }
    expected.push(`value-${round}`, `small-${round}`);
    await clock.settle(whenDurable(engine));
  }
  for (const log of logs) t.deepEqual(await clock.settle(valuesFrom(log, 0, 1000)), expected);
  const image = disk.image().afterPowerCut(new SimRandom(2), { unsynced: 'lost' });
  await clock.settle(engine.close());
  const again = await clock.settle(openLogEngine({ ...world, disk: new SimDisk({ image }) }));
  for (const number of [1, 2, 3, 4]) {
    t.deepEqual(await clock.settle(valuesFrom(openLog(again, number), 0, 1000)), expected);
  }
  await clock.settle(again.close());
});
