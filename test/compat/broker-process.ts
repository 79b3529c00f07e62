/** A broker as a process of its own, so that it can be killed; on a free port that it keeps over restarts. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';

export class BrokerProcess {
  readonly #dataDir: string;
  readonly #options: Record<string, string | number | boolean>;
  #child: ChildProcess | undefined;
  #port = 0;
  /** What it told its operator, the last of it. */
  log = '';

  constructor(dataDir: string, options: Record<string, string | number | boolean> = {}) {
    this.#dataDir = dataDir;
    this.#options = { 'log.disk.reserve.bytes': 0, ...options };
  }

  get bootstrap(): string {
    return `127.0.0.1:${this.#port}`;
  }

  async start(): Promise<void> {
    const doors = { kafka: { host: '127.0.0.1', port: this.#port } };
    const config = { dataDir: this.#dataDir, options: this.#options, doors };
    const main = fileURLToPath(new URL('../crash/serve.js', import.meta.url));
    const child = spawn(process.execPath, [main, JSON.stringify(config)], {
      stdio: ['ignore', 'pipe', 'pipe'],
      env: { ...process.env, UV_THREADPOOL_SIZE: '16' },
    });
    this.#child = child;
    child.stderr.on('data', (chunk: Buffer) => {
      this.log = (this.log + chunk).slice(-20_000);
    });
    const ended = once(child, 'exit').then(([code]) => {
      throw new Error(`the broker ended with ${code} before it was ready:\n${this.log}`);
    });
    ended.catch(() => {});
    for await (const line of createInterface(child.stdout)) {
      if (!line.startsWith('ready ')) continue;
      this.#port = Number(line.slice('ready '.length));
      return;
    }
    await ended;
  }

  /** SIGKILL: at once. SIGTERM: answers, syncs, closes. */
  async end(signal: 'SIGKILL' | 'SIGTERM'): Promise<void> {
    const child = this.#child;
    if (!child || child.exitCode !== null || child.signalCode !== null) {
      throw new Error(`the broker had ended by itself:\n${this.log}`);
    }
    const exit = once(child, 'exit');
    child.kill(signal);
    await exit;
  }

  async restart(signal: 'SIGKILL' | 'SIGTERM'): Promise<void> {
    await this.end(signal);
    await this.start();
  }

  /** For the end of a test, whatever happened. */
  async close(): Promise<void> {
    if (this.#child && this.#child.exitCode === null && this.#child.signalCode === null) await this.end('SIGKILL');
  }
}
