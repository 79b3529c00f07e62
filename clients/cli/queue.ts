/** `millrace queue`: list, create, alter, describe, peek, purge, delete. Those that take a while are in `queue-jobs.ts`. */
import {
  type PeekedBytes,
  type PeekedMessage,
  type QueueDescription,
  type QueueSummary,
  runBrokerCommand,
} from '../kafka/queues.ts';
import { clusterFlags, withCluster } from './cluster-flags.ts';
import { type Args, type Command, CommandFailure, type Flag, UsageError, keyValue, wholeNumber } from './command.ts';
import { jsonLine, plural, sizeText, table, timeText } from './output.ts';
import { parseDuration } from './places.ts';
import { isCode, isJson, noQueue, onQueue, optionalNumber, outputFlag } from './queue-args.ts';
import { jobLine, queueJobCommands } from './queue-jobs.ts';
import { safe } from './record-text.ts';

/** Settings with a flag of their own, and how its value becomes theirs. */
const settingFlags: Readonly<Record<string, { setting: string; flag: Flag; kind: 'text' | 'ms' | 'count' | 'true' }>> =
  {
    'dead-letter': {
      setting: 'dead.letter.queue',
      kind: 'text',
      flag: { value: 'QUEUE', help: 'queue or topic for messages that leave without being accepted' },
    },
    'delivery-limit': {
      setting: 'delivery.limit',
      kind: 'count',
      flag: { value: 'N', help: 'deliveries after which a released message is a dead letter (0: no limit)' },
    },
    lock: {
      setting: 'lock.duration.ms',
      kind: 'ms',
      flag: { value: 'TIME', help: 'how long a message stays with who took it (30s, 5m; default 30s)' },
    },
    ttl: {
      setting: 'ttl.ms',
      kind: 'ms',
      flag: { value: 'TIME', help: 'how long a message is worth delivering; then it is a dead letter' },
    },
    delay: {
      setting: 'delay.ms',
      kind: 'ms',
      flag: { value: 'TIME', help: 'how long a message waits after it was sent' },
    },
    ordered: {
      setting: 'ordered',
      kind: 'true',
      flag: { help: 'messages with one key (or group) one after the other' },
    },
    fair: { setting: 'fair', kind: 'true', flag: { help: 'keys (or groups) take turns; none waits for another' } },
    priority: {
      setting: 'priority.max',
      kind: 'count',
      flag: { value: 'N', help: 'priorities from 0 to N, larger first' },
    },
    dedup: {
      setting: 'dedup.window.ms',
      kind: 'ms',
      flag: { value: 'TIME', help: 'sends with one millrace.dedup.id within this time are one message' },
    },
    'max-messages': {
      setting: 'max.messages',
      kind: 'count',
      flag: { value: 'N', help: 'messages that may wait; beyond it the oldest goes (see --set overflow)' },
    },
    'single-active': {
      setting: 'single.active.consumer',
      kind: 'true',
      flag: { help: 'one consumer gets everything; another takes over when it goes' },
    },
  };

const settingFlagHelp = {
  ...Object.fromEntries(Object.entries(settingFlags).map(([name, { flag }]) => [name, flag])),
  set: {
    value: 'NAME=VALUE',
    short: 's',
    isRepeatable: true,
    help: 'any setting; docs/queues.md lists them, and so does describe',
  },
} satisfies Record<string, Flag>;

function settingsOf(args: Args): Record<string, string> {
  const settings: Record<string, string> = {};
  for (const [name, { setting, kind }] of Object.entries(settingFlags)) {
    if (!args.has(name)) continue;
    const text = args.text(name) ?? '';
    if (kind === 'true') settings[setting] = 'true';
    else if (kind === 'ms') settings[setting] = String(durationMs(`--${name}`, text));
    else if (kind === 'count') settings[setting] = String(wholeNumber(`--${name}`, text));
    else settings[setting] = text;
  }
  for (const text of args.texts('set')) {
    const [name, value] = keyValue('--set', text);
    if (settings[name] !== undefined) throw new UsageError(`${name} is set twice`);
    settings[name] = value;
  }
  return settings;
}

function durationMs(flag: string, text: string): number {
  const ms = /^\d+$/.test(text) ? Number(text) : parseDuration(text);
  if (ms !== undefined && Number.isSafeInteger(ms)) return ms;
  throw new UsageError(`${flag} takes a time such as 500ms, 30s, 5m, 2h or 1d, not '${text}'`);
}

const list: Command = {
  name: 'queue list',
  usage: '[flags]',
  summary: 'Lists the queues: how much waits, how old it is, how fast it moves',
  arity: [0, 0],
  flags: { ...clusterFlags, ...outputFlag },
  run: (args, io) =>
    withCluster(args, io, async (cluster) => {
      const isForPrograms = isJson(args);
      const { queues } = await runBrokerCommand<{ queues: QueueSummary[] }>(cluster, { command: 'list' });
      if (isForPrograms) for (const queue of queues) await io.write(jsonLine(queue));
      else if (queues.length === 0) io.note("There are no queues; 'millrace queue create NAME' makes one.");
      else await io.write(table(HEAD, queues.map(summaryRow)));
    }),
};

const HEAD = [
  'QUEUE',
  'TOPIC',
  'READY',
  'IN FLIGHT',
  'DELAYED',
  'BLOCKED',
  'DEAD',
  'OLDEST',
  'IN/S',
  'OUT/S',
  'CONSUMERS',
];

function summaryRow(queue: QueueSummary): (string | number | null)[] {
  return [
    queue.name,
    queue.topic === queue.name ? null : queue.topic,
    queue.ready,
    queue.inFlight,
    queue.delayed,
    queue.blocked,
    queue.deadLettered,
    queue.ageMs === null ? null : ageText(queue.ageMs),
    queue.ratePerSecond?.in ?? null,
    queue.ratePerSecond?.out ?? null,
    queue.consumers,
  ];
}

/** 93784000 → '1d2h'. */
export function ageText(ms: number): string {
  const seconds = Math.floor(ms / 1000);
  const [days, hours, minutes] = [
    Math.floor(seconds / 86_400),
    Math.floor(seconds / 3600) % 24,
    Math.floor(seconds / 60) % 60,
  ];
  if (days > 0) return `${days}d${hours}h`;
  if (hours > 0) return `${hours}h${minutes}m`;
  return minutes > 0 ? `${minutes}m${seconds % 60}s` : `${seconds}s`;
}

const create: Command = {
  name: 'queue create',
  usage: 'NAME… [flags]',
  summary: 'Makes queues, each with a topic of its name, or over a topic that exists',
  details: `A queue that is there already with the same settings is fine; one that differs is an error.
Kafka clients read it as a share group of this name, and send to the topic.
Examples:
  millrace queue create orders --dead-letter orders.dead --delivery-limit 5
  millrace queue create billing --topic orders --from latest`,
  arity: [1, Number.POSITIVE_INFINITY],
  flags: {
    ...clusterFlags,
    ...settingFlagHelp,
    topic: {
      value: 'TOPIC',
      help: 'a topic that exists: the queue takes its messages, and leaves it when it is deleted',
    },
    from: { value: 'PLACE', help: 'with --topic: earliest or latest (default earliest)' },
  },
  run: (args, io) =>
    withCluster(args, io, async (cluster) => {
      const settings = settingsOf(args);
      const topic = args.text('topic');
      const from = args.text('from');
      if (from !== undefined && topic === undefined)
        throw new UsageError('--from goes with --topic: a new topic is empty');
      if (topic !== undefined && args.positionals.length > 1) {
        throw new UsageError('--topic goes with one queue: give each its own command');
      }
      for (const name of args.positionals) {
        const command = { command: 'create', name, topic, from, settings };
        try {
          const { created } = await runBrokerCommand<{ created: boolean }>(cluster, command);
          io.note(created ? `created queue ${name}` : `queue ${name} exists already, with these settings`);
        } catch (error) {
          if (!isCode(error, 'QUEUE_DIFFERS')) throw error;
          throw new CommandFailure(
            `${error.message}; 'millrace queue describe ${name}' shows them, 'millrace queue alter' changes them`,
          );
        }
      }
    }),
};

const alter: Command = {
  name: 'queue alter',
  usage: 'NAME [flags]',
  summary: 'Changes settings of a queue, at once and for what is in it',
  arity: [1, 1],
  flags: {
    ...clusterFlags,
    ...settingFlagHelp,
    unset: { value: 'NAME', isRepeatable: true, help: 'takes a setting back to its default' },
  },
  run: (args, io) =>
    withCluster(args, io, async (cluster) => {
      const [name] = args.positionals;
      const settings: Record<string, string | null> = settingsOf(args);
      for (const setting of args.texts('unset')) settings[setting] = null;
      if (Object.keys(settings).length === 0)
        throw new UsageError('nothing to change: give --set, --unset or a setting');
      await onQueue(() => runBrokerCommand(cluster, { command: 'alter', name, settings }));
      io.note(`changed queue ${name}`);
    }),
};

const describe: Command = {
  name: 'queue describe',
  usage: 'NAME… [flags]',
  summary: 'Shows what is in a queue, its partitions, and its settings with whose words they are',
  arity: [1, Number.POSITIVE_INFINITY],
  flags: { ...clusterFlags, ...outputFlag, 'all-settings': { help: 'also settings that have their default' } },
  run: (args, io) =>
    withCluster(args, io, async (cluster) => {
      const isForPrograms = isJson(args);
      for (const name of args.positionals) {
        const { queue } = await onQueue(() =>
          runBrokerCommand<{ queue: QueueDescription }>(cluster, { command: 'describe', name }),
        );
        if (isForPrograms) await io.write(jsonLine(queue));
        else await io.write(descriptionText(queue, args.has('all-settings')));
      }
    }),
};

function descriptionText(queue: QueueDescription, isAll: boolean): string {
  const { kind, topic, depth, ready, inFlight, delayed, blocked, ratePerSecond: rate } = queue;
  const bytes = queue.partitions.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0);
  const lines: [string, string][] = [
    ['kind', kind === 'owned' ? 'owned: its topic goes with it' : `over topic ${topic}`],
    ['depth', `${depth}: ready ${ready}, in flight ${inFlight}, delayed ${delayed}, blocked ${blocked}`],
    ['oldest', queue.ageMs === null ? '-' : `${ageText(queue.ageMs)} (${timeText(queue.oldestMs ?? -1)})`],
    ['rates', rate === null ? '-' : `in ${rate.in}/s, out ${rate.out}/s, over the last minute`],
    ['dead', `${queue.deadLettered} to ${queue.deadLetterQueue ?? 'nowhere'}, since the broker started`],
    ['consumers', String(queue.consumers)],
    ['size', `${sizeText(bytes)}, with what is kept for replay`],
  ];
  if (queue.job !== null) lines.push(['job', jobLine(queue.job)]);
  const settings = queue.settings.filter(({ origin }) => isAll || origin !== 'default');
  const head = ['PARTITION', 'START', 'NEXT', 'END', 'READY', 'IN FLIGHT', 'DELAYED', 'BLOCKED', 'SIZE'];
  const rows = queue.partitions.map((row) => [
    row.partition,
    row.start,
    row.next,
    row.end,
    row.ready,
    row.inFlight,
    row.delayed,
    row.blocked,
    sizeText(row.sizeBytes),
  ]);
  const facts = lines.map(([name, value]) => `  ${name.padEnd(10)} ${value}\n`).join('');
  const settingTable = table(
    ['SETTING', 'VALUE', 'ORIGIN'],
    settings.map(({ name, value, origin }) => [name, value, origin]),
  );
  return `${queue.name}\n${facts}\n${table(head, rows)}\n${settings.length === 0 ? 'All settings have their default (--all-settings shows them).\n' : settingTable}`;
}

const peek: Command = {
  name: 'queue peek',
  usage: 'NAME [flags]',
  summary: 'Shows messages that wait in a queue, and takes none',
  details: `A filter is FIELD=VALUE or FIELD!=VALUE; fields are key, header.NAME, and of dead letters reason, queue (that they
died in) and origin (topic they came from).`,
  arity: [1, 1],
  flags: {
    ...clusterFlags,
    ...outputFlag,
    count: { value: 'N', short: 'n', help: 'how many at most (default 10, up to 1000)' },
    partition: { value: 'P', help: 'only of this partition' },
    offset: { value: 'N', help: 'from this offset on' },
    filter: { value: 'FIELD=VALUE', short: 'f', isRepeatable: true, help: 'only messages for which all of these hold' },
  },
  run: (args, io) =>
    withCluster(args, io, async (cluster) => {
      const isForPrograms = isJson(args);
      const [name] = args.positionals;
      const number = (flag: string, min: number) => optionalNumber(args, flag, min);
      const command = {
        command: 'peek',
        name,
        count: number('count', 1),
        partition: number('partition', 0),
        offset: number('offset', 0),
        filter: args.texts('filter'),
      };
      const { messages, isMore } = await onQueue(() =>
        runBrokerCommand<{ messages: PeekedMessage[]; isMore: boolean }>(cluster, command),
      );
      for (const message of messages) await io.write(isForPrograms ? jsonLine(message) : messageText(message));
      if (isForPrograms) return;
      const last = messages.at(-1);
      if (last === undefined)
        io.note(isMore ? 'nothing among the first messages matches' : 'nothing waits that matches');
      else if (isMore) io.note(`${plural(messages.length, 'message')}; more with --offset ${last.offset + 1}`);
    }),
};

function messageText({ partition, offset, timestamp, key, value, headers, origin, deaths }: PeekedMessage): string {
  const lines = [`${partition}:${offset}  ${timeText(timestamp)}  ${bytesText(key)}  ${bytesText(value)}`];
  const shown = headers.filter((header) => !header.key.startsWith('millrace.'));
  if (shown.length > 0) {
    lines.push(`    ${shown.map((header) => `${safe(header.key)}=${bytesText(headerBytes(header))}`).join(', ')}`);
  }
  for (const death of deaths) lines.push(`    died in ${death.queue}: ${death.reason}, ${plural(death.count, 'time')}`);
  if (origin !== null) lines.push(`    came from ${origin.topic}:${origin.partition} offset ${origin.offset}`);
  return `${lines.join('\n')}\n`;
}

function headerBytes({ text, base64 }: PeekedMessage['headers'][number]): PeekedBytes {
  if (text !== undefined) return { text };
  return base64 === undefined ? null : { base64 };
}

function bytesText(bytes: PeekedBytes): string {
  if (bytes === null) return '(null)';
  return 'text' in bytes ? safe(bytes.text) : `base64:${bytes.base64}`;
}

const purge: Command = {
  name: 'queue purge',
  usage: 'NAME [flags]',
  summary: 'Finishes everything that waits in a queue. What it has kept can be replayed',
  arity: [1, 1],
  flags: {
    ...clusterFlags,
    ...outputFlag,
    'in-flight': { help: 'also what consumers hold: their settlements then fail' },
    'until-offset': { value: 'N', help: 'only what is below this offset' },
  },
  run: (args, io) =>
    withCluster(args, io, async (cluster) => {
      const [name] = args.positionals;
      const untilOffset = optionalNumber(args, 'until-offset', 0);
      const command = { command: 'purge', name, inFlight: args.has('in-flight'), untilOffset };
      const isForPrograms = isJson(args);
      const answer = await onQueue(() => runBrokerCommand<{ purged: number }>(cluster, command));
      if (isForPrograms) await io.write(jsonLine(answer));
      else io.note(`purged ${plural(answer.purged, 'message')} of queue ${name}`);
    }),
};

const remove: Command = {
  name: 'queue delete',
  usage: 'NAME… [flags]',
  summary: 'Deletes queues; a queue that made its topic takes it with it',
  arity: [1, Number.POSITIVE_INFINITY],
  flags: {
    ...clusterFlags,
    'if-exists': { help: 'no error for a queue that is not there' },
    'if-empty': { help: 'only if it has no messages' },
    'if-unused': { help: 'only if it has no consumers' },
  },
  run: (args, io) =>
    withCluster(args, io, async (cluster) => {
      const conditions = { ifEmpty: args.has('if-empty'), ifUnused: args.has('if-unused') };
      for (const name of args.positionals) {
        try {
          await runBrokerCommand(cluster, { command: 'delete', name, ...conditions });
          io.note(`deleted queue ${name}`);
        } catch (error) {
          if (!isCode(error, 'QUEUE_NOT_FOUND')) throw error;
          if (!args.has('if-exists')) throw noQueue(error);
          io.note(`there is no queue ${name}`);
        }
      }
    }),
};

export const queueCommands: Readonly<Record<string, Command>> = {
  list,
  create,
  alter,
  describe,
  peek,
  purge,
  delete: remove,
  ...queueJobCommands,
};
