/** The simulation itself: what a crash may take and what not, and that one seed gives one run. */
import test from 'ava';
import type { Disk } from '../../storage/disk.ts';
import { SimClock } from '../support/sim-clock.ts';
import { SimDisk } from '../support/sim-disk.ts';
import type { CutOptions, SimImage } from '../support/sim-image.ts';
import { SimRandom } from '../support/sim-random.ts';

const text = (value: string): Buffer => Buffer.from(value);

async function contentOf(image: SimImage, path: string): Promise<string | undefined> {
  const bytes = await new SimDisk({ image }).readFile(path);
  return bytes === undefined ? undefined : Buffer.from(bytes).toString('latin1');
}

/** All contents that `path` has after 300 power cuts with different dice. */
async function outcomes(disk: SimDisk, path: string, options: CutOptions): Promise<string[]> {
  const found = new Set<string>();
  for (let seed = 0; seed < 300; seed++) {
    found.add((await contentOf(disk.image().afterPowerCut(new SimRandom(seed), options), path)) ?? 'none');
  }
  return [...found].sort();
}

async function withFile(path: string, mode: 'write' | 'synced' = 'write') {
  const disk = new SimDisk();
  const file = await disk.open(path, mode);
  await disk.syncDirectory('/');
  return { disk, file };
}

test('a power cut takes any subset of unsynced writes and nothing else', async (t) => {
  const { disk, file } = await withFile('/a');
  await file.write([text('1111')], 0);
  await file.sync();
  await file.write([text('22')], 0);
  await file.write([text('33')], 1);
  t.deepEqual(await outcomes(disk, '/a', { unsynced: 'whole' }), ['1111', '2211', '1331', '2331'].sort());
  t.deepEqual(await outcomes(disk, '/a', { unsynced: 'lost' }), ['1111'].sort());
  t.deepEqual(await outcomes(disk, '/a', { unsynced: 'kept' }), ['2331'].sort());
});

test('unsynced writes are torn at the given size, and a grown file may read as zeros', async (t) => {
  const { disk, file } = await withFile('/a');
  await file.write([Buffer.alloc(8192, 'x')], 0);
  const at512 = await outcomes(disk, '/a', { unsynced: 'torn' });
  t.true(at512.length > 200);
  const at4096 = await outcomes(disk, '/a', { unsynced: 'torn', tornBytes: 4096 });
  const x = 'x'.repeat(4096);
  const zero = '\0'.repeat(4096);
  t.deepEqual(at4096, ['', zero + zero, x, x + zero, zero + x, x + x].sort());
  const prefixes = await outcomes(disk, '/a', { unsynced: 'prefix', tornBytes: 4096, sizeKept: 0 });
  t.deepEqual(prefixes, ['', x, x + x].sort());
});

test('a write to a synced file is there when it has ended, and only that write', async (t) => {
  const { disk, file } = await withFile('/a', 'synced');
  const plain = await disk.open('/a', 'write');
  await plain.write([text('....')], 0);
  await file.write([text('ab')], 1);
  t.deepEqual(await outcomes(disk, '/a', { unsynced: 'whole', sizeKept: 0 }), ['\0ab', '.ab.'].sort());
});

test('a cut that was not synced may be undone, what was written after it may stay', async (t) => {
  const { disk, file } = await withFile('/a');
  await file.write([text('123456')], 0);
  await file.sync();
  await file.truncate(2);
  await file.write([text('x')], 2);
  t.deepEqual(await outcomes(disk, '/a', { unsynced: 'whole', sizeKept: 0 }), ['123456', '12x456', '12', '12x'].sort());
  await file.sync();
  t.deepEqual(await outcomes(disk, '/a', { unsynced: 'whole' }), ['12x'].sort());
});

test('names need a sync of their folder: creation, rename, removal', async (t) => {
  const disk = new SimDisk();
  await disk.makeDirectory('/d');
  await disk.syncDirectory('/');
  const file = await disk.open('/d/a', 'write');
  await file.write([text('data')], 0);
  await file.sync();
  t.deepEqual(await outcomes(disk, '/d/a', { unsynced: 'whole' }), ['none', 'data'].sort());
  await disk.syncDirectory('/d');
  t.deepEqual(await outcomes(disk, '/d/a', { unsynced: 'whole' }), ['data'].sort());
  await disk.rename('/d/a', '/d/b');
  t.deepEqual(await outcomes(disk, '/d/b', { unsynced: 'whole' }), ['none', 'data'].sort());
  t.deepEqual(await outcomes(disk, '/d/b', { unsynced: 'whole', names: 'lost' }), ['none'].sort());
  await disk.syncDirectory('/d');
  await disk.remove('/d/b');
  t.deepEqual(await outcomes(disk, '/d/b', { unsynced: 'whole' }), ['none', 'data'].sort());
  await disk.syncDirectory('/d');
  t.deepEqual(await outcomes(disk, '/d/b', { unsynced: 'kept' }), ['none'].sort());
});

test('a folder whose name is not stable is lost with all in it', async (t) => {
  const disk = new SimDisk();
  await disk.makeDirectory('/d/e');
  const file = await disk.open('/d/e/a', 'synced');
  await file.write([text('data')], 0);
  await disk.syncDirectory('/d/e');
  await disk.syncDirectory('/d');
  t.is(await contentOf(disk.image().afterPowerCut(new SimRandom(1), { unsynced: 'lost' }), '/d/e/a'), undefined);
  await disk.syncDirectory('/');
  t.is(await contentOf(disk.image().afterPowerCut(new SimRandom(1), { unsynced: 'lost' }), '/d/e/a'), 'data');
});

test('a kill keeps what was written, and a later power cut may still take it', async (t) => {
  const { disk, file } = await withFile('/a');
  await file.write([text('old')], 0);
  await file.sync();
  await file.write([text('new')], 0);
  const killed = disk.image().afterKill(new SimRandom(1));
  t.is(await contentOf(killed.fork(), '/a'), 'new');
  t.is(await contentOf(killed.afterPowerCut(new SimRandom(1), { unsynced: 'lost' }), '/a'), 'old');
});

test('a sync covers what had been written when it began, not what was written since', async (t) => {
  const clock = new SimClock();
  const disk = new SimDisk({ clock, latency: { random: new SimRandom(1), minMs: 1, maxMs: 1 } });
  const file = await clock.settle(disk.open('/a', 'write'));
  await clock.settle(disk.syncDirectory('/'));
  await clock.settle(file.write([text('1')], 0));
  const syncing = file.sync();
  const writing = file.write([text('2')], 1);
  await clock.settle(Promise.all([syncing, writing]));
  t.deepEqual(await outcomes(disk, '/a', { unsynced: 'whole', sizeKept: 0 }), ['1', '12'].sort());
});

test('after a failed sync no later one makes those bytes stable', async (t) => {
  const { disk, file } = await withFile('/a');
  await file.write([text('lost')], 0);
  disk.failAt(disk.operations + 1, 'EIO');
  await t.throwsAsync(file.sync(), { message: /EIO/ });
  await file.sync();
  t.is(await contentOf(disk.image(), '/a'), 'lost');
  t.is(await contentOf(disk.image().afterPowerCut(new SimRandom(1), { unsynced: 'lost' }), '/a'), '');
});

test('faults happen where they are asked for: short writes, errors, a full disk', async (t) => {
  const { disk, file } = await withFile('/a');
  disk.failAt(disk.operations + 1, 'short');
  t.is(await file.write([text('123456')], 0), 3);
  disk.failAt(disk.operations + 1, 'ENOSPC', { path: '/a' });
  await t.throwsAsync(file.write([text('x')], 3), { message: /ENOSPC/ });
  disk.failAt(disk.reads + 1, 'EIO', { of: 'read' });
  await t.throwsAsync(file.read(Buffer.alloc(1), 0), { message: /EIO/ });
  t.is(await file.read(Buffer.alloc(1), 0), 1);
  disk.setSpace(8192);
  t.is(await file.write([Buffer.alloc(10_000, 'y')], 0), 8192);
  await t.throwsAsync(file.write([text('x')], 8192), { message: /ENOSPC/ });
  t.is(await disk.freeBytes('/'), 0);
  t.is(await file.write([text('inside')], 100), 6);
});

test('a stopped world never answers, and its last operation may or may not have happened', async (t) => {
  const { disk, file } = await withFile('/a');
  disk.stopAt(disk.operations + 2);
  await file.write([text('1')], 0);
  let isAnswered = false;
  const answered = () => {
    isAnswered = true;
  };
  file.write([text('2')], 1).then(answered, answered);
  file.sync().then(answered, answered);
  disk.readFile('/a').then(answered, answered);
  await new Promise((resolve) => setImmediate(resolve));
  t.false(isAnswered);
  t.true(disk.isStopped);
  t.deepEqual(await outcomes(disk, '/a', { unsynced: 'whole', sizeKept: 0 }), ['', '1', '\u00002', '12'].sort());
});

test('timers run in order of time, then of setting; ends of turns come before them', async (t) => {
  const clock = new SimClock(1000);
  const ran: string[] = [];
  clock.after(5, () => ran.push('b'));
  clock.after(1, () => {
    ran.push('a');
    clock.endOfTurn(() => ran.push('end'));
    clock.after(0, () => ran.push('a0'));
  });
  clock.after(5, () => ran.push('c'));
  clock.after(2, () => ran.push('cancelled')).cancel();
  await clock.advance(4);
  t.deepEqual(ran, ['a', 'end', 'a0']);
  t.is(clock.now(), 1004);
  clock.jump(-500);
  t.is(clock.now(), 504);
  await clock.runUntilIdle();
  t.deepEqual(ran.slice(3), ['b', 'c']);
  t.is(clock.monotonic(), 5);
  await t.throwsAsync(clock.settle(new Promise(() => {})), { message: /nothing can settle/ });
});

/** A few writers that race on a slow disk. */
async function race(seed: number): Promise<number> {
  const clock = new SimClock();
  const random = new SimRandom(seed);
  const disk: Disk & SimDisk = new SimDisk({ clock, latency: { random: random.fork(), minMs: 0.1, maxMs: 3 } });
  const writer = async (name: string): Promise<void> => {
    const file = await disk.open(`/${name}`, 'write');
    for (let round = 0; round < 20; round++) {
      await file.write([random.fill(Buffer.alloc(random.between(1, 100)))], round * 50);
      if (random.chance(0.3)) await file.sync();
    }
  };
  await clock.settle(Promise.all(['a', 'b', 'c'].map(writer)));
  return disk.traceHash;
}

test('the same seed gives the same trace twice, another seed another one', async (t) => {
  t.is(await race(42), await race(42));
  t.not(await race(42), await race(43));
});
