/**
 * What a command sees of the world: its input and output, environment and clock. A test gives it others.
 *
 * Results go to `write`, everything meant for people only to `note`, so that a pipe gets results and nothing else.
 */
import type { Readable, Writable } from 'node:stream';
import { type Clock, foregroundClock } from '../../storage/clock.ts';

export interface Io {
  readonly clock: Clock;
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly stdin: AsyncIterable<Buffer>;
  /** Whether somebody types the input. */
  readonly isInteractive: boolean;
  /** One line that is typed and not shown; undefined if nobody types, or it was broken off. */
  typedSecret(prompt: string): Promise<string | undefined>;
  /** To standard output; resolves when there is room for more. Rejects with `OutputClosed` when nobody reads any more. */
  write(text: string | Uint8Array): Promise<void>;
  /** One line to standard error. */
  note(line: string): void;
}

/** The reader of our output went away (`millrace cat … | head`): the command ends, and that is fine. */
export class OutputClosed extends Error {
  override readonly name = 'OutputClosed';
}

/** The process's own streams. */
export function processIo(): Io {
  const { stdin, stdout, stderr } = process;
  let failure: Error | undefined;
  stdout.on('error', (error: NodeJS.ErrnoException) => {
    failure = error.code === 'EPIPE' ? new OutputClosed('standard output was closed', { cause: error }) : error;
  });
  // Nowhere left to say it.
  stderr.on('error', () => {});
  return {
    clock: foregroundClock,
    env: process.env,
    get stdin(): Readable {
      return stdin;
    },
    isInteractive: stdin.isTTY === true,
    typedSecret: async (prompt) => (stdin.isTTY === true ? typedUnseen(stdin, stderr, prompt) : undefined),
    write: (text) => written(stdout, text, () => failure),
    note: (line) => void stderr.write(`${line}\n`),
  };
}

/** Reads keys one by one up to the end of the line, so that the terminal shows none of them. */
async function typedUnseen(stdin: typeof process.stdin, stderr: Writable, prompt: string): Promise<string | undefined> {
  stderr.write(prompt);
  stdin.setRawMode(true);
  let typed = '';
  try {
    for await (const chunk of stdin) {
      for (const key of String(chunk)) {
        if (key === '\r' || key === '\n') return typed;
        // Ctrl-C and Ctrl-D.
        if (key === '\u0003' || key === '\u0004') return undefined;
        if (key === '\u007f' || key === '\b') typed = typed.slice(0, -1);
        else typed += key;
      }
    }
    return undefined;
  } finally {
    stdin.setRawMode(false);
    stderr.write('\n');
  }
}

async function written(stream: Writable, text: string | Uint8Array, failed: () => Error | undefined): Promise<void> {
  const before = failed();
  if (before) throw before;
  if (stream.write(text)) return;
  await new Promise<void>((resolve) => {
    const done = () => {
      stream.off('drain', done);
      stream.off('error', done);
      stream.off('close', done);
      resolve();
    };
    stream.on('drain', done);
    stream.on('error', done);
    stream.on('close', done);
  });
  const after = failed();
  if (after) throw after;
}
