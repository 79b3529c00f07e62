import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { type AddressInfo, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import test from 'ava';
import { startBroker } from '../../../broker/main.ts';
import { cliFor } from './run.ts';

/** The compiled command line beside this compiled test. */
const main = resolve(import.meta.dirname, '../../../clients/cli/main.js');

interface Served {
  readonly child: ChildProcess;
  /** The first line it prints; undefined if it ends before. */
  readonly ready: Promise<string | undefined>;
  readonly ended: Promise<{ code: number | null; signal: string | null }>;
  /** What it said to standard error so far. */
  notes(): string;
}

function serve(...args: string[]): Served {
  // Doors at their default ports would meet those of other tests.
  const shut = ['--amqp', '--management', '--sqs'].flatMap((door) => (args.includes(door) ? [] : [door, 'off']));
  const child = spawn(process.execPath, [main, 'serve', ...args, ...shut], { stdio: ['ignore', 'pipe', 'pipe'] });
  let out = '';
  let err = '';
  child.stderr?.on('data', (chunk) => {
    err += chunk;
  });
  const ended = once(child, 'close').then(([code, signal]) => ({ code, signal }));
  const ready = new Promise<string | undefined>((done) => {
    child.stdout?.on('data', (chunk) => {
      out += chunk;
      if (out.includes('\n')) done(out.slice(0, out.indexOf('\n')));
    });
    void ended.then(() => done(undefined));
  });
  return { child, ready, ended, notes: () => err };
}

async function withFolder<T>(work: (folder: string) => Promise<T>): Promise<T> {
  const folder = await mkdtemp(join(tmpdir(), 'millrace serve '));
  try {
    return await work(folder);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

const anyPort = ['--kafka', '127.0.0.1:0', '--http', '127.0.0.1:0', '--set', 'log.disk.reserve.bytes=0'];

test('serve says where it listens, keeps what it was given, and stops on SIGTERM', async (t) => {
  await withFolder(async (folder) => {
    const first = serve('--data-dir', folder, '--json', ...anyPort);
    const line = await first.ready;
    t.truthy(line, first.notes());
    const { ready, pid, doors, dataDir } = JSON.parse(line ?? '{}');
    t.true(ready);
    t.is(pid, first.child.pid);
    t.is(dataDir, folder);
    t.deepEqual(
      doors.map(({ name }: { name: string }) => name),
      ['kafka', 'http'],
    );
    const cli = cliFor(`127.0.0.1:${doors[0].port}`);
    t.is((await cli('produce kept', 'a record\n')).code, 0);
    first.child.kill('SIGTERM');
    t.deepEqual(await first.ended, { code: 0, signal: null });

    const second = serve(
      '--data-dir',
      folder,
      '--kafka',
      '127.0.0.1:0',
      '--http',
      'off',
      '--set',
      'log.disk.reserve.bytes=0',
    );
    const text = await second.ready;
    t.regex(text ?? second.notes(), /^ready: kafka 127\.0\.0\.1:\d+, data in /);
    const port = /kafka 127\.0\.0\.1:(\d+)/.exec(text ?? '')?.[1];
    t.is((await cliFor(`127.0.0.1:${port}`)('cat kept -o raw')).out, 'a record\n');
    second.child.kill('SIGINT');
    t.deepEqual(await second.ended, { code: 0, signal: null });
  });
});

test('a data folder in use is refused with its own exit code', async (t) => {
  await withFolder(async (folder) => {
    const first = serve('--data-dir', folder, ...anyPort);
    t.truthy(await first.ready, first.notes());
    const second = serve('--data-dir', folder, ...anyPort);
    t.is(await second.ready, undefined);
    t.is((await second.ended).code, 3);
    t.regex(second.notes(), /--data-dir/);
    // Nothing of the first one's is left behind by kill -9 that would keep the next one out.
    first.child.kill('SIGKILL');
    await first.ended;
    const third = serve('--data-dir', folder, ...anyPort);
    t.truthy(await third.ready, third.notes());
    third.child.kill('SIGTERM');
    t.is((await third.ended).code, 0);
  });
});

test('a taken port is one line that says which flag to use', async (t) => {
  await withFolder(async (folder) => {
    const server = createServer().listen(0, '127.0.0.1');
    await once(server, 'listening');
    const { port } = server.address() as AddressInfo;
    for (const [flags, flag] of [
      [['--kafka', `127.0.0.1:${port}`, '--http', 'off'], '--kafka'],
      [['--kafka', '127.0.0.1:0', '--http', `127.0.0.1:${port}`], '--http'],
    ] as const) {
      const served = serve('--data-dir', folder, ...flags);
      t.is((await served.ended).code, 2, served.notes());
      const lines = served
        .notes()
        .split('\n')
        .filter((line) => line.includes(String(port)));
      t.true(
        lines.some((line) => line.includes(`${flag} HOST:PORT`)),
        served.notes(),
      );
      t.false(served.notes().includes('    at '), served.notes());
    }
    await new Promise((done) => server.close(done));
  });
});

test('a door that nobody asked for stays shut if its port is taken; the others open', async (t) => {
  await withFolder(async (dataDir) => {
    const server = createServer().listen(0, '127.0.0.1');
    await once(server, 'listening');
    const { port } = server.address() as AddressInfo;
    const lines: string[] = [];
    const running = await startBroker({
      dataDir,
      doors: { kafka: { host: '127.0.0.1', port: 0 }, amqp: { host: '127.0.0.1', port, isOptional: true } },
      options: { 'log.disk.reserve.bytes': 0 },
      log: (line) => lines.push(line),
    });
    t.deepEqual(
      running.doors.map(({ name }) => name),
      ['kafka'],
    );
    t.true(
      lines.some((line) => line.includes(`127.0.0.1:${port} is in use`) && line.includes('--amqp HOST:PORT')),
      lines.join(),
    );
    await running.stop();
    await new Promise((done) => server.close(done));
  });
});

test('wrong flags and options end with exit code 2 before anything is made', async (t) => {
  await withFolder(async (folder) => {
    const data = join(folder, 'data');
    const cases: [string[], RegExp][] = [
      [['--kafka', '0.0.0.0:0'], /--insecure/],
      [['--set', 'no.such.option=1'], /no\.such\.option/],
      [['--set', 'num.partitions=many'], /num\.partitions/],
      [['--set', 'num.partitions'], /NAME=VALUE/],
      [['--kafka', 'here'], /HOST:PORT/],
      [['--kafka', 'off', '--http', 'off'], /at least one/],
      [['--sqs-queues', join(folder, 'missing.yaml')], /cannot be read/],
      [['--config', join(folder, 'missing.yaml')], /cannot be read/],
      [['--colour'], /no flag '--colour'/],
    ];
    for (const [flags, message] of cases) {
      const served = serve('--data-dir', data, ...(flags.includes('--http') ? [] : ['--http', 'off']), ...flags);
      t.is((await served.ended).code, 2, served.notes());
      t.regex(served.notes(), message);
    }
  });
});

test('a folder that cannot be used is told with its own exit code', async (t) => {
  await withFolder(async (folder) => {
    const file = join(folder, 'file');
    await writeFile(file, 'not a folder');
    const served = serve('--data-dir', join(file, 'data'), ...anyPort);
    t.is((await served.ended).code, 4, served.notes());
    t.regex(served.notes(), /--data-dir/);
  });
});

test('a configuration file sets what the flags do not', async (t) => {
  await withFolder(async (folder) => {
    const config = join(folder, 'millrace.yaml');
    const data = join(folder, 'data');
    await writeFile(
      config,
      `data-dir: ${JSON.stringify(data)}\nkafka: 127.0.0.1:0\nhttp: 127.0.0.1:1\noptions:\n  num.partitions: 5\n  log.disk.reserve.bytes: 0\n`,
    );
    const served = serve('--config', config, '--http', 'off', '--json');
    const line = await served.ready;
    t.truthy(line, served.notes());
    const { doors, dataDir } = JSON.parse(line ?? '{}');
    t.is(dataDir, data);
    t.is(doors.length, 1);
    const cli = cliFor(`127.0.0.1:${doors[0].port}`);
    await cli('topic create five');
    t.regex((await cli('topic list')).out, /^five +5$/m);
    served.child.kill('SIGTERM');
    t.is((await served.ended).code, 0);
  });
});

test('the printed configuration is the one in the repository', async (t) => {
  const { out, code } = await cliFor('')('serve --print-config');
  t.is(code, 0);
  let folder = import.meta.dirname;
  while (!folder.endsWith('/dist') && !folder.includes('/.build/') && folder !== '/') folder = resolve(folder, '..');
  const root = folder.includes('/.build/') ? folder.slice(0, folder.indexOf('/.build/')) : resolve(folder, '..');
  t.is(out, await readFile(join(root, 'millrace.yaml'), 'utf8'));
});
