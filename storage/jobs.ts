/**
 * Work that would hold up the event loop, as a parameter: done by a thread, or inline in tests and in the simulation. A task
 * is a function of a disk and of plain values; large ones go in shared buffers. It is worth its hop (some 20 µs) from about
 * 64 KiB on.
 *
 * The thread is started by the first task and ends when there was none for a while. It never loads what only one thread
 * of a process can (the folder lock's native package).
 */
import type { Piscina } from 'piscina';
import type { Disk } from './disk.ts';
import { filterPiece, mapKeys, RewriteFailure, sealCleaned } from './segment-rewrite.ts';

export const tasks = { mapKeys, filterPiece, sealCleaned };

export type TaskName = keyof typeof tasks;
export type TaskInput<N extends TaskName> = Parameters<(typeof tasks)[N]>[1];
export type TaskOutput<N extends TaskName> = Awaited<ReturnType<(typeof tasks)[N]>>;

export interface Jobs {
  /** @throws RewriteFailure */
  run<N extends TaskName>(name: N, input: TaskInput<N>): Promise<TaskOutput<N>>;
  /** Waits for what is under way; nothing is run afterwards. */
  close(): Promise<void>;
}

/** How a thread answers: classes and codes of errors do not survive the way. */
export type TaskAnswer =
  | { output: unknown }
  | { failure: { kind: RewriteFailure['kind']; message: string; code: string | undefined } };

/** Runs a task where it is called. */
export async function runTask(disk: Disk, name: TaskName, input: unknown): Promise<TaskAnswer> {
  try {
    // The pair of name and input is checked where `run` is called.
    return { output: await tasks[name](disk, input as never) };
  } catch (error) {
    if (!(error instanceof RewriteFailure)) throw error;
    const { kind, message, code } = error;
    return { failure: { kind, message, code } };
  }
}

function unpack<N extends TaskName>(answer: TaskAnswer): TaskOutput<N> {
  // `runTask` has made it of the task's own result.
  if ('output' in answer) return answer.output as TaskOutput<N>;
  const { kind, message, code } = answer.failure;
  throw new RewriteFailure(kind, message, code);
}

/** On the calling thread, over a disk of any kind. */
export class InlineJobs implements Jobs {
  readonly #disk: Disk;

  constructor(disk: Disk) {
    this.#disk = disk;
  }

  async run<N extends TaskName>(name: N, input: TaskInput<N>): Promise<TaskOutput<N>> {
    return unpack<N>(await runTask(this.#disk, name, input));
  }

  async close(): Promise<void> {}
}

const IDLE_MS = 10_000;

/** In a thread of its own, over the machine's files. */
export class WorkerJobs implements Jobs {
  #pool: Promise<Piscina> | undefined;
  #isClosed = false;

  async run<N extends TaskName>(name: N, input: TaskInput<N>): Promise<TaskOutput<N>> {
    if (this.#isClosed) throw new Error('jobs are closed');
    this.#pool ??= startPool();
    const pool = await this.#pool;
    return unpack<N>((await pool.run({ name, input }, { name: 'work' })) as TaskAnswer);
  }

  async close(): Promise<void> {
    this.#isClosed = true;
    await (await this.#pool)?.close();
  }
}

async function startPool(): Promise<Piscina> {
  // Loaded by the first task: most processes never have one.
  const { Piscina: Pool } = await import('piscina');
  const ending = import.meta.url.endsWith('.ts') ? '.ts' : '.js';
  return new Pool({
    filename: new URL(`./jobs-worker${ending}`, import.meta.url).href,
    minThreads: 0,
    maxThreads: 1,
    idleTimeout: IDLE_MS,
    concurrentTasksPerWorker: 1,
  });
}
