import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { copyFile, mkdir, mkdtemp, readFile, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import test from 'ava';

/** The build that this test is part of. */
const dist = resolve(import.meta.dirname, '../..');

let folder: string;
let launcher: string;

// As installed from a package: the launcher and a build, no sources.
test.before(async () => {
  folder = await mkdtemp(join(tmpdir(), 'millrace package '));
  await mkdir(join(folder, 'scripts'));
  launcher = join(folder, 'scripts/run.mjs');
  await copyFile(join(projectRoot(), 'scripts/run.mjs'), launcher);
  await writeFile(join(folder, 'package.json'), '{"name":"millrace","version":"0.0.0","type":"module"}');
  await symlink(dist, join(folder, 'dist'));
});
test.after.always(() => rm(folder, { recursive: true, force: true }));

function launch(...args: string[]): { child: ChildProcess; out(): string; ended: Promise<unknown> } {
  const child = spawn(process.execPath, [launcher, ...args], { cwd: tmpdir(), stdio: ['ignore', 'pipe', 'pipe'] });
  let out = '';
  for (const stream of [child.stdout, child.stderr]) {
    stream?.on('data', (chunk) => {
      out += chunk;
    });
  }
  return { child, out: () => out, ended: once(child, 'close') };
}

async function serve(name: string): Promise<{ launched: ReturnType<typeof launch>; pid: number }> {
  const shut = ['http', 'amqp', 'management', 'sqs'].flatMap((door) => [`--${door}`, 'off']);
  const flags = ['--kafka', '127.0.0.1:0', ...shut, '--set', 'log.disk.reserve.bytes=0'];
  const launched = launch('serve', '--json', '--data-dir', join(folder, name), ...flags);
  let line: string | undefined;
  while (line === undefined && launched.child.exitCode === null) {
    await pause(5);
    line = launched
      .out()
      .split('\n')
      .find((text) => text.startsWith('{'));
  }
  if (line === undefined) throw new Error(launched.out());
  return { launched, pid: JSON.parse(line).pid };
}

const isAlive = (pid: number) => {
  try {
    return process.kill(pid, 0);
  } catch {
    return false;
  }
};

test('commands run with their arguments and exit codes, from any folder', async (t) => {
  const version = launch('--version');
  await version.ended;
  t.regex(version.out(), /^millrace \S+\n$/);
  t.is(version.child.exitCode, 0);
  const wrong = launch('nonsense');
  await wrong.ended;
  t.is(wrong.child.exitCode, 2);
  t.regex(wrong.out(), /no command 'nonsense'/);
});

test('a signal reaches the broker, and its exit code comes back', async (t) => {
  const { launched, pid } = await serve('signal');
  t.not(pid, launched.child.pid);
  if (existsSync(`/proc/${pid}/environ`)) {
    const environment = await readFile(`/proc/${pid}/environ`, 'utf8');
    t.regex(environment, /UV_THREADPOOL_SIZE=16/);
  }
  launched.child.kill('SIGTERM');
  await launched.ended;
  t.is(launched.child.exitCode, 0);
  t.false(isAlive(pid));
});

test('the broker stops when its launcher is killed', async (t) => {
  const { launched, pid } = await serve('killed');
  launched.child.kill('SIGKILL');
  // The broker has the output's other end: it closes when the broker is gone.
  await launched.ended;
  while (isAlive(pid)) await pause(5);
  t.regex(launched.out(), /launcher is gone/);
});

function projectRoot(): string {
  let up = dist;
  while (!existsSync(join(up, 'package-lock.json'))) up = dirname(up);
  return up;
}
