/**
 * What a command is: a name, its flags, and a function that runs it. Reading the arguments and printing the help come
 * from this description, so that the two always agree.
 */
import { parseArgs } from 'node:util';
import type { Io } from './io.ts';

export interface Flag {
  /** What stands for the value in the help; absent for a flag without one. */
  readonly value?: string;
  /** May be given more than once. */
  readonly isRepeatable?: boolean;
  readonly short?: string;
  readonly help: string;
}

export interface Args {
  readonly positionals: readonly string[];
  /** Value of a flag that is given once. */
  text(flag: string): string | undefined;
  texts(flag: string): readonly string[];
  has(flag: string): boolean;
}

export interface Command {
  /** As typed: `topic create`. */
  readonly name: string;
  /** What follows the name: `NAME [flags]`. */
  readonly usage: string;
  readonly summary: string;
  readonly details?: string;
  readonly flags: Readonly<Record<string, Flag>>;
  /** Smallest and largest number of positional arguments. */
  readonly arity: readonly [number, number];
  /** Answers the exit code; 0 if nothing. */
  run(args: Args, io: Io): Promise<number | void>;
}

/** Documented in docs/operating.md. */
export const exitCodes = {
  ok: 0,
  /** The command could not do what it was asked; the message says why. */
  failed: 1,
  /** Flags, options or the configuration file are wrong. */
  usage: 2,
  /** Another process uses the data folder. */
  locked: 3,
  /** The disk failed, or the data folder cannot be read. */
  storage: 4,
  /** No broker could be reached. */
  unreachable: 5,
} as const;

/** The command did not do all that it was asked, and the message says it all. */
export class CommandFailure extends Error {
  override readonly name = 'CommandFailure';
  readonly exitCode: number;

  constructor(message: string, exitCode: number = exitCodes.failed, options?: ErrorOptions) {
    super(message, options);
    this.exitCode = exitCode;
  }
}

/** What was typed is not understood. The message says what would be. */
export class UsageError extends Error {
  override readonly name = 'UsageError';
}

/** Reads `argv` as the arguments of `command`. `UsageError` if they do not fit it. */
export function parseCommand(command: Command, argv: readonly string[]): Args {
  const options: Record<string, { type: 'string' | 'boolean'; multiple: boolean; short?: string }> = {};
  for (const [name, { value, short }] of Object.entries(command.flags)) {
    options[name] = { type: value ? 'string' : 'boolean', multiple: true, ...(short ? { short } : {}) };
  }
  let parsed: ReturnType<typeof parseArgs>;
  try {
    parsed = parseArgs({ args: joinNegatives(command, argv), options, allowPositionals: true, strict: true });
  } catch (error) {
    throw new UsageError(unknownFlag(command, error));
  }
  const values = parsed.values as Record<string, (string | boolean)[] | undefined>;
  for (const [name, given] of Object.entries(values)) {
    if ((given?.length ?? 0) > 1 && !command.flags[name].isRepeatable && command.flags[name].value) {
      throw new UsageError(`--${name} was given more than once`);
    }
  }
  const [fewest, most] = command.arity;
  const { positionals } = parsed;
  if (positionals.length < fewest)
    throw new UsageError(`something is missing: millrace ${command.name} ${command.usage}`);
  if (positionals.length > most) throw new UsageError(`'${positionals[most]}' is one argument too many`);
  const texts = (flag: string) => (values[flag] ?? []).filter((value) => typeof value === 'string');
  return {
    positionals,
    text: (flag) => texts(flag).at(-1),
    texts,
    has: (flag) => values[flag] !== undefined,
  };
}

/** `--shift-by -5` as `--shift-by=-5`: a value may be a negative number. */
function joinNegatives({ flags }: Command, argv: readonly string[]): string[] {
  const joined: string[] = [];
  for (let index = 0; index < argv.length; index++) {
    const arg = argv[index];
    const next = argv[index + 1];
    const takesValue = arg.startsWith('--') && flags[arg.slice(2)]?.value !== undefined;
    if (takesValue && next !== undefined && /^-\d/.test(next)) {
      joined.push(`${arg}=${next}`);
      index++;
    } else joined.push(arg);
  }
  return joined;
}

function unknownFlag({ flags }: Command, error: unknown): string {
  const message = error instanceof Error ? error.message : String(error);
  const unknown = /Unknown option '-*([^']*)'/.exec(message)?.[1];
  if (unknown === undefined) return message.split('\n')[0];
  const close = Object.keys(flags).find((flag) => flag.startsWith(unknown) || unknown.startsWith(flag));
  return `there is no flag '--${unknown}' here${close ? `; did you mean --${close}?` : ''}`;
}

/** A whole number from `min` on, from a flag. */
export function wholeNumber(flag: string, text: string, min = 0): number {
  const number = Number(text);
  if (!/^[-+]?\d+$/.test(text) || !Number.isSafeInteger(number) || number < min) {
    throw new UsageError(`${flag} takes a whole number from ${min} on, not '${text}'`);
  }
  return number;
}

/** `KEY=VALUE`; the value may be empty and may have more '=' in it. */
export function keyValue(flag: string, text: string): [string, string] {
  const at = text.indexOf('=');
  if (at < 1) throw new UsageError(`${flag} takes NAME=VALUE, not '${text}'`);
  return [text.slice(0, at), text.slice(at + 1)];
}

/** The page that `--help` prints. */
export function commandHelp(command: Command): string {
  const flags = Object.entries(command.flags).map(([name, { value, short, help }]): [string, string] => {
    const long = `--${name}${value ? ` ${value}` : ''}`;
    return [`${short ? `-${short}, ` : '    '}${long}`, help];
  });
  flags.push(['-h, --help', 'print this page']);
  const width = Math.max(...flags.map(([left]) => left.length));
  const lines = flags.map(
    ([left, help]) => `  ${left.padEnd(width)}  ${help.replaceAll('\n', `\n${' '.repeat(width + 4)}`)}`,
  );
  const details = command.details ? `\n${command.details.trim()}\n` : '';
  return `Usage: millrace ${command.name} ${command.usage}\n\n${command.summary}.\n${details}\nFlags:\n${lines.join('\n')}\n`;
}
