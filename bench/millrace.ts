/** Millrace as a target: the compiled command line, `serve`, in a process of its own. */
import { execFile } from 'node:child_process';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { end, freePort, launch, type Target } from './target.ts';

/** The command line next to this file in the same build. */
const CLI = fileURLToPath(new URL('../clients/cli/main.js', import.meta.url));
/** As scripts/run.mjs sizes libuv's pool. */
const POOL_THREADS = '16';

export interface MillraceOptions {
  name: string;
  dataDir: string;
  /** Options by name, as `--set` takes them. */
  settings?: Readonly<Record<string, string | number>>;
  /** Flags for Node, for instance `--cpu-prof`. */
  nodeArgs?: readonly string[];
}

export interface Millrace extends Target {
  /** From exec to the ready line. */
  readonly readyMs: number;
  /** Of the AMQP door. */
  readonly amqpPort: number;
}

export async function startMillrace({ name, dataDir, settings, nodeArgs }: MillraceOptions): Promise<Millrace> {
  const port = await freePort();
  const httpPort = await freePort();
  const args = ['serve', '--data-dir', path.join(dataDir, 'data')];
  const amqpPort = await freePort();
  args.push('--kafka', `127.0.0.1:${port}`, '--http', `127.0.0.1:${httpPort}`, '--amqp', `127.0.0.1:${amqpPort}`);
  args.push('--management', '127.0.0.1:0', '--sqs', '127.0.0.1:0');
  for (const [key, value] of Object.entries({ 'log.segment.delete.delay.ms': 1000, ...settings })) {
    args.push('--set', `${key}=${value}`);
  }
  const { child, pid, readyMs } = await launch({
    command: process.execPath,
    args: [...(nodeArgs ?? profilerArgs(dataDir)), CLI, ...args],
    env: { UV_THREADPOOL_SIZE: POOL_THREADS },
    logFile: path.join(dataDir, 'server.log'),
    ready: /^ready.*$/m,
  });
  return {
    name,
    port,
    amqpPort,
    pid,
    readyMs,
    metrics: async () => parseMetrics(await httpGet(`http://127.0.0.1:${httpPort}/metrics`)),
    stop: () => end(child, 'SIGTERM'),
    kill: () => end(child, 'SIGKILL'),
  };
}

/** With MILLRACE_BENCH_PROFILE set to a folder every broker leaves a CPU profile there when it stops. */
function profilerArgs(dataDir: string): string[] {
  const folder = process.env.MILLRACE_BENCH_PROFILE;
  if (!folder) return [];
  return [
    '--cpu-prof',
    `--cpu-prof-dir=${folder}`,
    `--cpu-prof-name=${path.basename(dataDir)}.${process.hrtime()[1]}.cpuprofile`,
  ];
}

/** Lines `name{labels} value` of Prometheus's text format. */
export function parseMetrics(page: string): Map<string, number> {
  const values = new Map<string, number>();
  for (const line of page.split('\n')) {
    if (line === '' || line.startsWith('#')) continue;
    const space = line.lastIndexOf(' ');
    values.set(line.slice(0, space), Number(line.slice(space + 1)));
  }
  return values;
}

async function httpGet(url: string): Promise<string> {
  const response = await fetch(url);
  if (!response.ok) throw new Error(`${url} answered ${response.status}`);
  return response.text();
}

/** `du -s`: bytes that the files below `folder` take on disk. */
export function folderBytes(folder: string): Promise<number> {
  return new Promise((resolve, reject) => {
    // Files may go while du looks; what it printed is still right enough.
    execFile('du', ['-s', '--block-size=1', folder], (error, stdout) => {
      const bytes = Number(stdout.split('\t', 1)[0]);
      if (stdout === '' && error) reject(error);
      else resolve(bytes);
    });
  });
}
