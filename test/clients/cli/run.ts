/** Runs command lines inside of the test's process and collects what they say. */
import { runCommandLine } from '../../../clients/cli/main.ts';
import type { Io } from '../../../clients/cli/io.ts';
import { foregroundClock } from '../../../storage/clock.ts';

export interface Ran {
  readonly code: number;
  readonly out: string;
  /** Lines to standard error. */
  readonly notes: readonly string[];
}

export type Cli = (line: string | readonly string[], input?: string | AsyncIterable<Buffer>) => Promise<Ran>;

/** A command line that talks to `bootstrap` unless told otherwise. A line is split at spaces. */
export function cliFor(bootstrap: string): Cli {
  return async (line, input = '') => {
    const pieces: (string | Uint8Array)[] = [];
    const notes: string[] = [];
    const io: Io = {
      clock: foregroundClock,
      env: { MILLRACE_BOOTSTRAP: bootstrap },
      stdin: typeof input === 'string' ? oneChunk(input) : input,
      isInteractive: false,
      typedSecret: async () => undefined,
      async write(piece) {
        pieces.push(piece);
      },
      note: (text) => void notes.push(text),
    };
    const code = await runCommandLine(typeof line === 'string' ? line.split(' ') : line, io);
    const out = Buffer.concat(pieces.map((piece) => Buffer.from(piece))).toString('utf8');
    return { code, out, notes };
  };
}

async function* oneChunk(text: string): AsyncGenerator<Buffer> {
  if (text !== '') yield Buffer.from(text);
}
