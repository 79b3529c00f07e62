import { type ChildProcess, spawn } from 'node:child_process';
import * as fs from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { NodeDisk } from '../../storage/node-disk.ts';

const nodeDiskUrl = new URL('../../storage/node-disk.js', import.meta.url).href;

function temporaryFolder(t: ExecutionContext): string {
  const folder = fs.mkdtempSync(join(tmpdir(), 'millrace-'));
  t.teardown(() => fs.rmSync(folder, { recursive: true, force: true }));
  return folder;
}

/** A process that takes the lock and keeps it; answers once it has it or was refused. */
async function lockingProcess(
  t: ExecutionContext,
  folder: string,
  useFlock: boolean,
  kind: string,
): Promise<[ChildProcess, string]> {
  const script = `
    const { NodeDisk } = await import(${JSON.stringify(nodeDiskUrl)});
    try {
      await new NodeDisk({ useFlock: ${useFlock} }).lock(${JSON.stringify(folder)}, ${JSON.stringify(kind)});
      console.log('held');
      setInterval(() => {}, 1000);
    } catch (error) { console.log(error.code); }`;
  const child = spawn(process.execPath, ['--input-type=module', '-e', script], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  t.teardown(() => child.kill('SIGKILL'));
  const said = await new Promise<string>((resolve) => {
    child.stdout?.once('data', (data) => resolve(String(data).trim()));
    // Not 'exit': what it has said may still be in the pipe.
    child.once('close', () => resolve('nothing'));
  });
  return [child, said];
}

const killed = (child: ChildProcess): Promise<void> =>
  new Promise((resolve) => {
    child.once('exit', () => resolve());
    child.kill('SIGKILL');
  });

for (const useFlock of [true, false]) {
  const name = useFlock ? 'with flock' : 'without flock';
  test(`${name}, the holder is named and a killed holder needs no repair`, async (t) => {
    const folder = temporaryFolder(t);
    const disk = new NodeDisk({ useFlock });
    const [child, said] = await lockingProcess(t, folder, useFlock, 'exclusive');
    t.is(said, 'held');
    for (const kind of ['exclusive', 'shared'] as const) {
      await t.throwsAsync(disk.lock(folder, kind), {
        code: 'DATA_DIR_LOCKED',
        message: new RegExp(`${folder} is in use by process ${child.pid}\\. .+`),
      });
    }
    await killed(child);
    const lock = await disk.lock(folder, 'exclusive');
    const [, refused] = await lockingProcess(t, folder, useFlock, 'shared');
    t.is(refused, 'DATA_DIR_LOCKED');
    await lock.release();
    const [, again] = await lockingProcess(t, folder, useFlock, 'shared');
    t.is(again, 'held');
    await (await disk.lock(folder, 'shared')).release();
  });
}

test('a process with flock and one without exclude each other', async (t) => {
  const folder = temporaryFolder(t);
  const lock = await new NodeDisk({ useFlock: true }).lock(folder, 'exclusive');
  await t.throwsAsync(new NodeDisk({ useFlock: false }).lock(folder, 'exclusive'), { code: 'DATA_DIR_LOCKED' });
  await lock.release();
  const other = await new NodeDisk({ useFlock: false }).lock(folder, 'exclusive');
  await t.throwsAsync(new NodeDisk({ useFlock: true }).lock(folder, 'exclusive'), { code: 'DATA_DIR_LOCKED' });
  await other.release();
});

test('of many that ask at once without flock, exactly one gets the folder', async (t) => {
  const folder = temporaryFolder(t);
  const asked = await Promise.all(Array.from({ length: 4 }, () => lockingProcess(t, folder, false, 'exclusive')));
  const said = asked.map(([, word]) => word);
  t.deepEqual(said.sort(), ['DATA_DIR_LOCKED', 'DATA_DIR_LOCKED', 'DATA_DIR_LOCKED', 'held']);
});

/** Leaves the claim of a holder that is not there any more, changed by `change`. */
async function leaveClaim(folder: string, change: (claim: Record<string, unknown>) => void): Promise<string> {
  const lock = await new NodeDisk({ useFlock: false }).lock(folder, 'exclusive');
  const [name] = fs.readdirSync(join(folder, '.locks'));
  const claim = JSON.parse(fs.readFileSync(join(folder, '.locks', name), 'utf8'));
  await lock.release();
  change(claim);
  const path = join(folder, '.locks', `${claim.pid}-left`);
  fs.writeFileSync(path, JSON.stringify(claim));
  return path;
}

test('a pid that was given to another process is not taken for the holder', async (t) => {
  const folder = temporaryFolder(t);
  await leaveClaim(folder, (claim) => {
    claim.started = '1';
  });
  await (await new NodeDisk({ useFlock: false }).lock(folder, 'exclusive')).release();
  t.deepEqual(fs.readdirSync(join(folder, '.locks')), []);
});

test('a holder from before the machine was started again is gone', async (t) => {
  const folder = temporaryFolder(t);
  await leaveClaim(folder, (claim) => {
    claim.boot = '00000000-0000-4000-8000-000000000000';
  });
  await (await new NodeDisk({ useFlock: false }).lock(folder, 'exclusive')).release();
  t.pass();
});

test('a holder in another container is respected without flock, and its file is named', async (t) => {
  const folder = temporaryFolder(t);
  const path = await leaveClaim(folder, (claim) => {
    claim.namespace = 'pid:[1]';
    claim.hasFlock = true;
  });
  const error = await t.throwsAsync(new NodeDisk({ useFlock: false }).lock(folder, 'exclusive'), {
    code: 'DATA_DIR_LOCKED',
  });
  t.true(error?.message.includes(path));
  // Whoever gets the flock knows better: the kernel has seen the holder go.
  await (await new NodeDisk({ useFlock: true }).lock(folder, 'exclusive')).release();
});

test('a claim that was cut off counts by the pid in its name', async (t) => {
  const folder = temporaryFolder(t);
  fs.mkdirSync(join(folder, '.locks'));
  fs.writeFileSync(join(folder, '.locks', '999999999-5-0-0'), '{"pid":');
  await (await new NodeDisk({ useFlock: false }).lock(folder, 'exclusive')).release();
  t.pass();
});
