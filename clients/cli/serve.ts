/**
 * `millrace serve`: starts a broker, says where its doors are, and ends it on a signal. The first SIGTERM or SIGINT
 * answers what was asked and syncs; a second one ends at once, which is safe too.
 */
import { resolve } from 'node:path';
import { setFlagsFromString } from 'node:v8';
import { type BrokerConfig, type RunningBroker, startBroker } from '../../broker/main.ts';
import { MillraceError } from '../../protocol/errors.ts';
import { type Args, type Command, CommandFailure, type Flag, UsageError, exitCodes, keyValue } from './command.ts';
import {
  DATA_DIR_DEFAULT,
  type FileConfig,
  doorDefaults,
  exampleConfig,
  readConfigFile,
  readNamed,
} from './config-file.ts';
import type { Io } from './io.ts';
import { version } from './version.ts';

/** Signals that come within this time are one: npm and the terminal both deliver a Ctrl-C. */
const SAME_SIGNAL_MS = 250;
const SIGNAL_NUMBERS = { SIGHUP: 1, SIGINT: 2, SIGTERM: 15 } as const;
/** What the file system says when the data folder cannot be used. */
const DISK_ERRORS = new Set([
  'EACCES',
  'EPERM',
  'EROFS',
  'ENOSPC',
  'EDQUOT',
  'EIO',
  'ENOTDIR',
  'EEXIST',
  'ENAMETOOLONG',
]);

const DOOR_NOTES: Readonly<Record<string, string>> = {
  amqp: '; AMQP 0-9-1 as RabbitMQ speaks it, see docs/amqp.md',
  management: "; RabbitMQ's management HTTP API, see docs/management.md",
  sqs: '; Amazon SQS, see docs/sqs.md',
};

const doorFlags = Object.fromEntries(
  Object.entries(doorDefaults).map(([door, address]): [string, Flag] => [
    door,
    {
      value: 'HOST:PORT',
      help: `where the ${door} door listens, or 'off' (default ${address}; port 0: any)${DOOR_NOTES[door] ?? ''}`,
    },
  ]),
);

export const serveCommand: Command = {
  name: 'serve',
  usage: '[flags]',
  summary: 'Starts a broker and prints a line that starts with "ready" when all its doors listen',
  details: `SIGTERM or Ctrl-C stops it after everything that was asked is answered and synced; a second one stops it at once.
Exit codes: 0 stopped, 1 failed, 2 wrong flags or options, 3 the data folder is in use, 4 the disk failed.`,
  arity: [0, 0],
  flags: {
    'data-dir': { value: 'FOLDER', help: `where the log is kept; made if missing (default ${DATA_DIR_DEFAULT})` },
    ...doorFlags,
    'sqs-queues': {
      value: 'FILE',
      help: 'queues to make at the start: YAML, elasticmq.conf or CloudFormation (docs/sqs.md)',
    },
    config: { value: 'FILE', help: 'YAML with these flags and options; flags win' },
    set: { value: 'NAME=VALUE', isRepeatable: true, help: 'any option of docs/options.md' },
    insecure: { help: 'listen on other addresses than loopback also with doors that have no authentication' },
    json: { help: 'print the ready line as a JSON object' },
    'print-config': { help: 'print a commented configuration file and end' },
  },
  async run(args, io) {
    if (args.has('print-config')) return io.write(exampleConfig());
    const file = args.text('config');
    const config = brokerConfig(args, file === undefined ? undefined : await readConfigFile(file), (line) =>
      io.note(line),
    );
    const queues = args.text('sqs-queues');
    if (queues !== undefined) config.sqsQueues = { fileName: queues, text: await readNamed('--sqs-queues', queues) };
    const signals = catchSignals(io);
    try {
      const running = await start(config);
      // A signal before the doors were open is obeyed now.
      await io.write(args.has('json') ? readyJson(running, config) : readyText(running, config));
      const end = await Promise.race([signals.first, running.fatal]);
      if (end instanceof Error) {
        io.note(`millrace: storage failed, stopping: ${end.message}`);
        // Nothing that waits for the disk may be waited for. What was answered is safe; the next start recovers.
        process.exit(exitCodes.storage);
      }
      io.note(`millrace: ${end}, stopping`);
      const failure = await Promise.race([running.stop().then(() => undefined, asError), running.fatal]);
      if (!failure) return;
      io.note(`millrace: storage failed while stopping: ${failure.message}`);
      process.exit(exitCodes.storage);
    } finally {
      signals.release();
    }
  },
};

function brokerConfig(args: Args, file: FileConfig | undefined, log: (line: string) => void): BrokerConfig {
  const options: Record<string, string | number | boolean> = { ...file?.options };
  for (const text of args.texts('set')) {
    const [name, value] = keyValue('--set', text);
    options[name] = value;
  }
  // Who has another program at a default address gets the other doors; who asked for the address is told.
  const address = (door: string) => {
    const asked = args.text(door) ?? file?.doors[door];
    const parsed = parseDoor(door, asked ?? doorDefaults[door]);
    return parsed && { ...parsed, isOptional: asked === undefined && door !== 'kafka' };
  };
  const doors: BrokerConfig['doors'] = Object.fromEntries(
    Object.keys(doorDefaults).map((door) => [door, address(door)]),
  );
  if (Object.values(doors).every((door) => door === undefined))
    throw new UsageError('all doors are off; open at least one');
  return {
    dataDir: resolve(args.text('data-dir') ?? file?.dataDir ?? DATA_DIR_DEFAULT),
    doors,
    options,
    insecure: args.has('insecure') || file?.insecure === true,
    version: version(),
    log,
  };
}

/** `HOST:PORT`, `:PORT`, `PORT`, `[IPV6]:PORT` or `off`. */
export function parseDoor(door: string, text: string): { host: string; port: number } | undefined {
  if (text === 'off') return undefined;
  const match = /^(?:(?:\[([^\]]+)\]|([^:[\]]*)):)?(\d{1,5})$/.exec(text);
  const port = Number(match?.[3]);
  if (!match || port > 65_535) throw new UsageError(`--${door} takes HOST:PORT or 'off', not '${text}'`);
  return { host: match[1] ?? (match[2] || '127.0.0.1'), port };
}

/**
 * The old generation of V8's heap is collected when it has grown by half of what lived after the last time; by itself V8
 * waits for up to four times as much. What outlives a young collection here is mostly the bookkeeping of the tail cache,
 * which dies in order of age, and a broker with 1,000 busy partitions would hold 30 MiB of it for nothing.
 */
const HEAP_GROWTH = '--heap-growing-percent=50';

async function start(config: BrokerConfig): Promise<RunningBroker> {
  setFlagsFromString(HEAP_GROWTH);
  try {
    return await startBroker(config);
  } catch (error) {
    const cause = error instanceof MillraceError ? (error.cause as NodeJS.ErrnoException | undefined) : undefined;
    if (cause?.code === 'EADDRINUSE') throw new UsageError(portInUse(cause, config));
    const code = (error as NodeJS.ErrnoException).code ?? '';
    if (DISK_ERRORS.has(code)) {
      throw new CommandFailure(
        `the data folder ${config.dataDir} cannot be used: ${asError(error).message}; --data-dir names another`,
        exitCodes.storage,
        { cause: error },
      );
    }
    throw error;
  }
}

function asError(error: unknown): Error {
  return error instanceof Error ? error : new Error(String(error));
}

function portInUse(
  cause: NodeJS.ErrnoException & { port?: number; address?: string },
  { doors }: BrokerConfig,
): string {
  const door = Object.entries(doors).find(([, address]) => address?.port === cause.port)?.[0] ?? 'kafka';
  const where = `${cause.address}:${cause.port}`;
  return `${where} is in use by another program; choose another address with --${door} HOST:PORT (port 0: any), or --${door} off`;
}

function readyText({ doors }: RunningBroker, { dataDir }: BrokerConfig): string {
  const list = doors.map((door) => `${door.name} ${addressText(door)}`).join(', ');
  const lines = [`ready: ${list}, data in ${dataDir}`];
  const kafka = doors.find(({ name }) => name === 'kafka');
  if (kafka) {
    const bootstrap = addressText(kafka) === doorDefaults.kafka ? '' : ` --bootstrap ${addressText(kafka)}`;
    lines.push(
      'Next, in another terminal:',
      `  echo 'hello, log' | npx millrace produce greetings${bootstrap}`,
      `  npx millrace cat greetings${bootstrap}`,
    );
  }
  const http = doors.find(({ name }) => name === 'http');
  if (http) lines.push(`Metrics: http://${addressText(http)}/metrics`);
  return `${lines.join('\n')}\n`;
}

function readyJson({ doors }: RunningBroker, { dataDir }: BrokerConfig): string {
  return `${JSON.stringify({ ready: true, pid: process.pid, dataDir, doors })}\n`;
}

function addressText({ host, port }: { host: string; port: number }): string {
  return host.includes(':') ? `[${host}]:${port}` : `${host}:${port}`;
}

/** `first` resolves with the name of the first signal; a later one ends the process. */
function catchSignals(io: Io): { first: Promise<string>; release(): void } {
  const names = Object.keys(SIGNAL_NUMBERS) as (keyof typeof SIGNAL_NUMBERS)[];
  let firstAt: number | undefined;
  let seen: (name: string) => void;
  const first = new Promise<string>((done) => {
    seen = done;
  });
  const onSignal = (name: keyof typeof SIGNAL_NUMBERS): void => {
    const now = io.clock.monotonic();
    if (firstAt === undefined) {
      firstAt = now;
      seen(name);
    } else if (now - firstAt > SAME_SIGNAL_MS) {
      io.note(`millrace: ${name} again, ending at once`);
      process.exit(128 + SIGNAL_NUMBERS[name]);
    }
  };
  // The launcher is gone (scripts/run.mjs was killed): nobody is left to pass signals on.
  const onDisconnect = (): void => {
    firstAt ??= io.clock.monotonic();
    seen('the launcher is gone');
  };
  for (const name of names) process.on(name, onSignal);
  process.on('disconnect', onDisconnect);
  return {
    first,
    release() {
      for (const name of names) process.off(name, onSignal);
      process.off('disconnect', onDisconnect);
      // The channel to the launcher would keep this process alive.
      if (process.connected) process.disconnect();
    },
  };
}
