/**
 * The broker that the tests of this folder talk to: a Millrace of its own for each file, or, to see that a test expects
 * what Apache Kafka does, the broker that MILLRACE_COMPAT_BOOTSTRAP names (HOST:PORT; its topics are then not removed).
 * MILLRACE_COMPAT=full adds what takes longer than `npm test` may; `npm run compat` sets it.
 */
import { spawnSync } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { startTestBroker, type TestBroker } from '../support/broker.ts';

export const isFull = process.env['MILLRACE_COMPAT'] === 'full';

export interface Target {
  /** HOST:PORT of the Kafka door. */
  readonly bootstrap: string;
  /** False: a foreign broker, to check the tests themselves. */
  readonly isMillrace: boolean;
  /** Undefined for a foreign broker. */
  readonly broker: TestBroker | undefined;
  stop(): Promise<void>;
}

export async function openTarget(options: Record<string, string | number | boolean> = {}): Promise<Target> {
  const foreign = process.env['MILLRACE_COMPAT_BOOTSTRAP'];
  if (foreign) return { bootstrap: foreign, isMillrace: false, broker: undefined, stop: async () => {} };
  const broker = await startTestBroker(options);
  return { bootstrap: broker.bootstrap, isMillrace: true, broker, stop: async () => broker.stop() };
}

/** Whether a program can be run at all: `isInstalled('kcat', '-V')`. */
export function isInstalled(command: string, ...args: string[]): boolean {
  return spawnSync(command, args, { stdio: 'ignore' }).status === 0;
}

/** A test file says once why it has nothing to run here. */
export function sayMissing(what: string): void {
  process.stdout.write(`    compat: ${what} is not installed here, its tests are left out\n`);
}

/** Runs `work` with a temporary folder that is removed afterwards. */
export async function withFolder<Result>(work: (folder: string) => Promise<Result>): Promise<Result> {
  const folder = await mkdtemp(join(tmpdir(), 'millrace-compat-'));
  try {
    return await work(folder);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}
