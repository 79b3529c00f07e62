/**
 * Scenarios written in the language of a client. The program gets HOST:PORT as its first argument and `full` as its
 * second for those that take long, and prints a line for each scenario: `ok NAME`, or `failed NAME` and what was wrong
 * as a JSON string. Each becomes a test of its own.
 */
import { spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import test from 'ava';
import { isFull, openTarget, type Target } from './target.ts';

const RUN_MS_MAX = 300_000;

export interface Program {
  command: string;
  args: readonly string[];
  cwd?: string;
  env?: NodeJS.ProcessEnv;
}

/** Declares a test for each of `names`; the program runs once and prints all of them. */
export function testScenarios(
  names: readonly string[],
  full: readonly string[],
  program: () => Promise<Program>,
): void {
  const results = new Map<string, string>();
  let rest = '';
  let target: Target | undefined;
  test.before(async () => {
    target = await openTarget({ 'group.min.session.timeout.ms': 1000, 'group.consumer.heartbeat.interval.ms': 200 });
    rest = await run(await program(), target.bootstrap, results);
  });
  test.after.always(async () => target?.stop());
  for (const name of isFull ? [...names, ...full] : names) {
    test(name, (t) => {
      t.is(results.get(name), 'ok', rest);
    });
  }
}

/** Answers what the program said beside its results. */
async function run(program: Program, bootstrap: string, results: Map<string, string>): Promise<string> {
  let rest = '';
  const child = spawn(program.command, [...program.args, bootstrap, ...(isFull ? ['full'] : [])], {
    stdio: ['ignore', 'pipe', 'pipe'],
    cwd: program.cwd,
    env: { ...process.env, ...program.env },
  });
  const timer = setTimeout(() => child.kill('SIGKILL'), RUN_MS_MAX);
  child.stderr.on('data', (chunk: Buffer) => {
    rest = (rest + chunk).slice(-4000);
  });
  createInterface(child.stdout).on('line', (line) => {
    const [kind, name, text] = /^(ok|failed) (\S+) ?(.*)$/.exec(line)?.slice(1) ?? [];
    if (kind === 'ok') results.set(name, 'ok');
    else if (kind === 'failed') results.set(name, JSON.parse(text));
    else rest = `${rest}${line}\n`.slice(-4000);
  });
  const code = await new Promise((resolve, reject) => {
    child.once('error', reject);
    child.once('close', resolve);
  });
  clearTimeout(timer);
  return `${rest}\nended with ${String(code)}`;
}
