import * as fs from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { type Disk, writeAll, writeAllNow } from '../../storage/disk.ts';
import { NodeDisk } from '../../storage/node-disk.ts';
import { SimDisk } from '../support/sim-disk.ts';

/** Runs `body` on every implementation of `Disk`: what one answers, all answer. */
function onEveryDisk(title: string, body: (t: ExecutionContext, disk: Disk, folder: string) => Promise<void>): void {
  const withFolder = (disk: Disk) => async (t: ExecutionContext) => {
    const folder = fs.mkdtempSync(join(tmpdir(), 'millrace-'));
    t.teardown(() => fs.rmSync(folder, { recursive: true, force: true }));
    await body(t, disk, folder);
  };
  test(`NodeDisk: ${title}`, withFolder(new NodeDisk()));
  test(`NodeDisk without O_DSYNC: ${title}`, withFolder(new NodeDisk({ useSynchronousFlag: false })));
  test(`SimDisk: ${title}`, async (t) => {
    const disk = new SimDisk();
    await disk.makeDirectory('/data');
    await body(t, disk, '/data');
  });
}

const text = (value: string): Buffer => Buffer.from(value);

onEveryDisk('what was written is read, at any place', async (t, disk, folder) => {
  const file = await disk.open(join(folder, 'a'), 'write');
  t.is(await file.write([text('hello '), text(''), text('world')], 0), 11);
  t.is(file.writeNow([text('W')], 6), 1);
  t.is(await file.write([], 0), 0);
  await file.sync();
  const target = Buffer.alloc(20);
  t.is(await file.read(target, 4), 7);
  t.is(target.toString('latin1', 0, 7), 'o World');
  t.is(await file.read(target, 11), 0);
  t.is(await file.read(target, 1000), 0);
  t.is(await file.size(), 11);
  await file.close();
  t.is(Buffer.from((await disk.readFile(join(folder, 'a'))) ?? []).toString(), 'hello World');
});

onEveryDisk('a hole reads as zeros, truncate cuts and extends', async (t, disk, folder) => {
  const file = await disk.open(join(folder, 'a'), 'write');
  await file.write([text('xyz')], 5000);
  const target = Buffer.alloc(5003, 1);
  t.is(await file.read(target, 0), 5003);
  t.deepEqual(target, Buffer.concat([Buffer.alloc(5000), text('xyz')]));
  await file.truncate(5001);
  await file.truncate(5003);
  await file.read(target, 0);
  t.deepEqual(target.subarray(5000), Buffer.from([120, 0, 0]));
  await file.close();
});

onEveryDisk('more buffers than one call takes are written in order', async (t, disk, folder) => {
  const buffers = Array.from({ length: 2500 }, (_, index) => Buffer.from([index % 251, index % 7]));
  const file = await disk.open(join(folder, 'a'), 'write');
  await writeAll(file, buffers, 10);
  writeAllNow(file, buffers, 5010);
  const target = Buffer.alloc(10_010);
  t.is(await file.read(target, 0), 10_010);
  const whole = Buffer.concat(buffers);
  t.deepEqual(target, Buffer.concat([Buffer.alloc(10), whole, whole]));
  await file.close();
});

onEveryDisk('a synced file keeps what it holds and is read and written', async (t, disk, folder) => {
  const path = join(folder, 'a');
  const first = await disk.open(path, 'synced');
  await first.write([text('abc'), text('def')], 0);
  first.writeNow([text('XY')], 1);
  await first.close();
  const again = await disk.open(path, 'synced');
  const target = Buffer.alloc(6);
  await again.read(target, 0);
  t.is(target.toString(), 'aXYdef');
  await again.close();
});

onEveryDisk('errors have the codes Node gives them', async (t, disk, folder) => {
  const missing = join(folder, 'no', 'such');
  const hasCode = (code: string) => (error: unknown) => (error as NodeJS.ErrnoException).code === code;
  await t.throwsAsync(disk.open(missing, 'read'), { message: /ENOENT/ });
  t.true(await disk.open(missing, 'write').then(() => false, hasCode('ENOENT')));
  t.true(await disk.rename(missing, join(folder, 'b')).then(() => false, hasCode('ENOENT')));
  t.is(await disk.readFile(missing), undefined);
  t.is(await disk.stat(missing), undefined);
  t.deepEqual(await disk.list(missing), []);
  await disk.remove(join(folder, 'none'));
  await disk.removeDirectory(join(folder, 'none'));
  const written = await disk.open(join(folder, 'a'), 'write');
  await written.close();
  const file = await disk.open(join(folder, 'a'), 'read');
  t.true(await file.write([text('x')], 0).then(() => false, hasCode('EBADF')));
  await file.close();
  await file.close();
  await t.throwsAsync(file.read(Buffer.alloc(1), 0), { message: /closed/ });
  t.throws(() => written.writeNow([text('x')], 0), { message: /closed/ });
});

onEveryDisk('folders are made, listed, renamed and removed with all in them', async (t, disk, folder) => {
  const inner = join(folder, 'x', 'y');
  await disk.makeDirectory(inner);
  await disk.makeDirectory(inner);
  for (const name of ['b', 'a', 'c']) await (await disk.open(join(inner, name), 'write')).close();
  t.deepEqual(await disk.list(inner), ['a', 'b', 'c']);
  await disk.rename(join(inner, 'a'), join(inner, 'b'));
  t.deepEqual(await disk.list(inner), ['b', 'c']);
  await disk.rename(join(folder, 'x'), join(folder, 'z'));
  t.deepEqual(await disk.list(folder), ['z']);
  t.like(await disk.stat(join(folder, 'z')), { isDirectory: true });
  t.like(await disk.stat(join(folder, 'z', 'y', 'b')), { isDirectory: false, sizeBytes: 0 });
  await disk.remove(join(folder, 'z', 'y', 'b'));
  t.deepEqual(await disk.list(join(folder, 'z', 'y')), ['c']);
  await disk.syncDirectory(folder);
  await disk.removeDirectory(join(folder, 'z'));
  t.deepEqual(await disk.list(folder), []);
  t.true((await disk.freeBytes(folder)) > 0);
});

onEveryDisk('a removed file is still read by who has it open', async (t, disk, folder) => {
  const file = await disk.open(join(folder, 'a'), 'write');
  await file.write([text('still here')], 0);
  await disk.remove(join(folder, 'a'));
  const target = Buffer.alloc(10);
  t.is(await file.read(target, 0), 10);
  t.is(target.toString(), 'still here');
  await file.close();
});

onEveryDisk('close waits for what is under way', async (t, disk, folder) => {
  const file = await disk.open(join(folder, 'a'), 'write');
  const bytes = Buffer.alloc(1 << 20, 7);
  const writing = file.write([bytes], 0);
  const syncing = file.sync();
  await file.close();
  t.is(await writing, bytes.length);
  await syncing;
});

onEveryDisk('the folder lock excludes, shares and lets go', async (t, disk, folder) => {
  const code = { code: 'DATA_DIR_LOCKED', message: /in use by process \d+/ };
  const first = await disk.lock(folder, 'exclusive');
  await t.throwsAsync(disk.lock(folder, 'exclusive'), code);
  await t.throwsAsync(disk.lock(folder, 'shared'), code);
  await first.release();
  await first.release();
  const readers = [await disk.lock(folder, 'shared'), await disk.lock(folder, 'shared')];
  await t.throwsAsync(disk.lock(folder, 'exclusive'), code);
  await readers[0].release();
  await t.throwsAsync(disk.lock(folder, 'exclusive'), code);
  await readers[1].release();
  await (await disk.lock(folder, 'exclusive')).release();
});
