/** A broker that is measured: Millrace or its peer, as a process of its own on loopback. */
import { type ChildProcess, spawn } from 'node:child_process';
import fs from 'node:fs';
import net from 'node:net';
import path from 'node:path';
import { nowUs } from './machine.ts';

export interface Target {
  /** As the results name it: `kafka`, `kafka fsync`, `rabbitmq`, `millrace synced`, `millrace written`. */
  readonly name: string;
  readonly port: number;
  readonly pid: number;
  /** Values of Millrace's `/metrics` by name and labels; empty for a peer. */
  metrics(): Promise<Map<string, number>>;
  /** Ends it in order and waits. */
  stop(): Promise<void>;
  /** kill -9, and waits. */
  kill(): Promise<void>;
}

export interface AmqpTarget extends Target {
  readonly amqpPort: number;
}

export interface Started {
  child: ChildProcess;
  pid: number;
  /** From exec to the line that says it serves. */
  readyMs: number;
  /** That line. */
  line: string;
}

const START_MS_MAX = 60_000;
const STOP_MS_MAX = 30_000;
const LOG_TAIL_BYTES = 4000;
const TEXT_MAX = 64 * 1024;

export interface Launch {
  command: string;
  args: readonly string[];
  env?: NodeJS.ProcessEnv;
  /** stdout and stderr are kept here. */
  logFile: string;
  /** What the line that ends the start looks like. */
  ready: RegExp;
  /** Leads a process group of its own, so that `kill` reaches what it starts. */
  isGroup?: boolean;
}

/** Starts a process and waits for its ready line; rejects with the end of its log if it dies or is silent for a minute. */
export async function launch({ command, args, env, logFile, ready, isGroup }: Launch): Promise<Started> {
  fs.mkdirSync(path.dirname(logFile), { recursive: true });
  const log = fs.createWriteStream(logFile);
  const startUs = nowUs();
  const child = spawn(command, args, {
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { ...process.env, ...env },
    detached: isGroup ?? false,
  });
  const line = await new Promise<string>((resolve, reject) => {
    let text = '';
    let isReady = false;
    const fail = (what: string): void => {
      clearTimeout(timer);
      reject(new Error(`${command} ${args.join(' ')}\n${what}:\n${text.slice(-LOG_TAIL_BYTES)}`));
    };
    const timer = setTimeout(() => {
      child.kill('SIGKILL');
      fail('did not get ready');
    }, START_MS_MAX);
    const take = (chunk: Buffer): void => {
      log.write(chunk);
      text = (text + chunk.toString()).slice(-TEXT_MAX);
      if (isReady) return;
      const found = ready.exec(text);
      if (!found) return;
      isReady = true;
      clearTimeout(timer);
      resolve(found[0]);
    };
    child.stdout.on('data', take);
    child.stderr.on('data', take);
    child.once('error', (error) => fail(String(error)));
    child.once('exit', (code, signal) => {
      fail(`ended with ${code ?? signal}`);
      // Nothing here was asked to end this way.
      if (isReady && !ending.has(child))
        console.error(`${command} ended with ${code ?? signal}:\n${text.slice(-LOG_TAIL_BYTES)}`);
    });
  });
  const readyMs = (nowUs() - startUs) / 1000;
  child.once('exit', () => log.end());
  if (child.pid === undefined) throw new Error('a process that is ready has a pid');
  return { child, pid: child.pid, readyMs: Math.round(readyMs), line };
}

/** Processes that `end` was asked to end. */
const ending = new WeakSet<ChildProcess>();

/** Sends `signal` and waits for the end; kill -9 after half a minute. */
export async function end(child: ChildProcess, signal: NodeJS.Signals): Promise<void> {
  ending.add(child);
  if (child.exitCode !== null || child.signalCode !== null) return;
  const exited = new Promise<void>((resolve) => child.once('exit', () => resolve()));
  child.kill(signal);
  const timer = setTimeout(() => child.kill('SIGKILL'), STOP_MS_MAX);
  await exited;
  clearTimeout(timer);
}

/** A port of loopback that was free a moment ago. */
export async function freePort(): Promise<number> {
  const server = net.createServer();
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen(0, '127.0.0.1', resolve);
  });
  const address = server.address();
  if (address === null || typeof address === 'string') throw new Error('a TCP server has an address');
  await new Promise((resolve) => server.close(resolve));
  return address.port;
}
