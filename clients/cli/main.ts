#!/usr/bin/env node
/**
 * The `millrace` command line: finds the command, reads its arguments, runs it, and turns whatever goes wrong into one
 * clear line and an exit code (docs/operating.md lists them). A command's own code is loaded only when it is run, so
 * that `serve` does not load the others and none of them load the broker.
 */
import { realpathSync } from 'node:fs';
import { pathToFileURL } from 'node:url';
import { MillraceError } from '../../protocol/errors.ts';
import { CommandFailure, type Command, UsageError, commandHelp, exitCodes, parseCommand } from './command.ts';
import { type Io, OutputClosed, processIo } from './io.ts';
import { version } from './version.ts';

interface Group {
  readonly summary: string;
  /** The command, or the commands below this word by their second word. */
  load(): Promise<Command | Readonly<Record<string, Command>>>;
}

const groups: Readonly<Record<string, Group>> = {
  serve: { summary: 'start a broker', load: async () => (await import('./serve.ts')).serveCommand },
  status: { summary: 'what a cluster holds', load: async () => (await import('./status.ts')).statusCommand },
  topic: {
    summary: 'list, create, describe, alter, delete topics',
    load: async () => (await import('./topic.ts')).topicCommands,
  },
  group: {
    summary: 'list, describe, reset, delete consumer groups',
    load: async () => (await import('./group.ts')).groupCommands,
  },
  queue: {
    summary: 'list, create, inspect, purge, redrive, replay queues',
    load: async () => (await import('./queue.ts')).queueCommands,
  },
  user: {
    summary: 'users, what they may do, and their access keys',
    load: async () => (await import('./user.ts')).userCommands,
  },
  vhost: {
    summary: 'list, make, limit, delete vhosts of AMQP',
    load: async () => (await import('./vhost.ts')).vhostCommands,
  },
  policy: {
    summary: 'list, set, delete policies of queues and exchanges of AMQP',
    load: async () => (await import('./policy.ts')).policyCommands,
  },
  produce: {
    summary: 'write records from standard input',
    load: async () => (await import('./produce.ts')).produceCommand,
  },
  cat: { summary: 'read records by offset or time', load: async () => (await import('./cat.ts')).catCommand },
  segment: {
    summary: 'list, dump, verify the files of a data folder',
    load: async () => (await import('./segment.ts')).segmentCommands,
  },
};

/** Runs one command line; answers the exit code. */
export async function runCommandLine(argv: readonly string[], io: Io): Promise<number> {
  try {
    return await run(argv, io);
  } catch (error) {
    return report(error, io);
  }
}

async function run(argv: readonly string[], io: Io): Promise<number> {
  const [first, ...rest] = argv;
  if (first === undefined || first === '--help' || first === '-h') return print(io, overview());
  if (first === 'help') return run(rest.length > 0 ? [...rest, '--help'] : [], io);
  if (first === '--version' || first === '-V' || first === 'version') return print(io, `millrace ${version()}\n`);
  const group = Object.hasOwn(groups, first) ? groups[first] : undefined;
  if (!group) throw new UsageError(`there is no command '${first}'; 'millrace --help' lists them`);
  const loaded = await group.load();
  if (isCommand(loaded)) return runCommand(loaded, rest, io);
  const [second, ...args] = rest;
  if (second === undefined || second === '--help' || second === '-h') return print(io, groupHelp(first, loaded));
  const command = Object.hasOwn(loaded, second) ? loaded[second] : undefined;
  if (!command)
    throw new UsageError(`there is no command '${first} ${second}'; there are: ${Object.keys(loaded).join(', ')}`);
  return runCommand(command, args, io);
}

async function runCommand(command: Command, argv: readonly string[], io: Io): Promise<number> {
  const end = argv.indexOf('--');
  const flags = end < 0 ? argv : argv.slice(0, end);
  if (flags.includes('--help') || flags.includes('-h')) return print(io, commandHelp(command));
  try {
    return (await command.run(parseCommand(command, argv), io)) ?? exitCodes.ok;
  } catch (error) {
    if (error instanceof UsageError) io.note(`millrace ${command.name}: ${error.message}`);
    else throw error;
    io.note(`'millrace ${command.name} --help' explains it.`);
    return exitCodes.usage;
  }
}

function isCommand(loaded: Command | Readonly<Record<string, Command>>): loaded is Command {
  return typeof loaded.run === 'function';
}

/** One line for what was expected to go wrong sometimes, the stack for what was not. */
function report(error: unknown, io: Io): number {
  if (error instanceof OutputClosed) return exitCodes.ok;
  if (error instanceof UsageError) {
    io.note(`millrace: ${error.message}`);
    return exitCodes.usage;
  }
  if (error instanceof CommandFailure) {
    io.note(`millrace: ${error.message}`);
    return error.exitCode;
  }
  // Loaded with the client, which a broken `serve` has no part in: told by its name.
  if (error instanceof Error && error.name === 'ConnectionError') {
    io.note(`millrace: ${error.message}`);
    io.note(`Start a broker with 'millrace serve', or name another with --bootstrap HOST:PORT.`);
    return exitCodes.unreachable;
  }
  if (error instanceof MillraceError) {
    io.note(`millrace: ${error.message}`);
    if (error.code === 'INVALID_OPTION') return exitCodes.usage;
    if (error.code === 'DATA_DIR_LOCKED') return exitCodes.locked;
    if (error.code.startsWith('DATA_DIR_')) return exitCodes.storage;
    return exitCodes.failed;
  }
  io.note(`millrace: ${error instanceof Error ? (error.stack ?? error.message) : String(error)}`);
  return exitCodes.failed;
}

async function print(io: Io, text: string): Promise<number> {
  await io.write(text);
  return exitCodes.ok;
}

function overview(): string {
  const width = Math.max(...Object.keys(groups).map((name) => name.length));
  const lines = Object.entries(groups).map(([name, { summary }]) => `  ${name.padEnd(width)}  ${summary}`);
  return `Millrace ${version()}: a log-based message broker that Kafka clients can use.

Usage: millrace COMMAND [flags]

Commands:
${lines.join('\n')}

'millrace COMMAND --help' explains one. Start with 'millrace serve'.
`;
}

function groupHelp(name: string, commands: Readonly<Record<string, Command>>): string {
  const width = Math.max(...Object.keys(commands).map((word) => word.length));
  const lines = Object.entries(commands).map(([word, { summary }]) => `  ${word.padEnd(width)}  ${summary}`);
  return `Usage: millrace ${name} COMMAND [flags]\n\nCommands:\n${lines.join('\n')}\n\n'millrace ${name} COMMAND --help' explains one.\n`;
}

// Only when started as a program, under whatever link; tests import this file.
if (process.argv[1] !== undefined && import.meta.url === pathToFileURL(realpathSync(process.argv[1])).href) {
  process.exitCode = await runCommandLine(process.argv.slice(2), processIo());
}
