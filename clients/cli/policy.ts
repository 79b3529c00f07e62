/** `millrace policy`: list, set, delete; of users and, with `--operator`, of operators. */
import { clusterFlags } from './cluster-flags.ts';
import { type Command, type Flag, UsageError, keyValue, wholeNumber } from './command.ts';
import { done, listed, vhostFlag } from './directory-args.ts';
import { outputFlag } from './queue-args.ts';

interface ShownPolicy {
  readonly vhost: string;
  readonly name: string;
  readonly pattern: string;
  readonly applyTo: string;
  readonly priority: number;
  readonly definition: Readonly<Record<string, unknown>>;
}

const operatorFlag = {
  operator: { help: 'a policy of the operator: a limit that no other policy gets past' },
} as const satisfies Record<string, Flag>;

const list: Command = {
  name: 'policy list',
  usage: '[flags]',
  summary: 'Lists the policies',
  arity: [0, 0],
  flags: { ...clusterFlags, ...outputFlag, ...operatorFlag, vhost: { ...vhostFlag.vhost, help: 'only of this vhost' } },
  run: (args, io) =>
    listed<ShownPolicy>(args, io, {
      command: { command: 'policy.list', vhost: args.text('vhost'), isOperators: args.has('operator') },
      fields: ['policies'],
      head: ['VHOST', 'POLICY', 'PATTERN', 'APPLIES TO', 'PRIORITY', 'SAYS'],
      row: ({ vhost, name, pattern, applyTo, priority, definition }) => [
        vhost,
        name,
        pattern,
        applyTo,
        priority,
        Object.entries(definition)
          .map(([key, value]) => `${key}=${String(value)}`)
          .join(', '),
      ],
      none: 'There are no policies.',
    }),
};

const set: Command = {
  name: 'policy set',
  usage: 'NAME PATTERN KEY=VALUE… [flags]',
  summary: 'Makes or replaces a policy; it applies at once to what is there',
  details: `PATTERN is found anywhere in names of queues and exchanges. Keys are RabbitMQ's: message-ttl, expires, max-length,
max-length-bytes, overflow, dead-letter-exchange, dead-letter-routing-key, delivery-limit, alternate-exchange, max-age …
Example:
  millrace policy set limits '^shop\\.' max-length=100000 overflow=reject-publish --apply-to queues`,
  arity: [3, Number.POSITIVE_INFINITY],
  flags: {
    ...clusterFlags,
    ...vhostFlag,
    ...operatorFlag,
    'apply-to': {
      value: 'WHAT',
      help: 'all, queues, classic_queues, quorum_queues, streams or exchanges (default all)',
    },
    priority: { value: 'N', help: 'of those that match the highest applies (default 0)' },
  },
  run(args, io) {
    const [name, pattern, ...said] = args.positionals;
    const definition: Record<string, unknown> = {};
    for (const text of said) {
      const [key, value] = keyValue('a policy', text);
      if (Object.hasOwn(definition, key)) throw new UsageError(`${key} is said twice`);
      // Numbers are numbers in a policy.
      definition[key] = /^-?\d+$/.test(value) ? Number(value) : value;
    }
    const priority = args.text('priority');
    const command = {
      command: 'policy.put',
      vhost: args.text('vhost') ?? '/',
      name,
      pattern,
      definition,
      applyTo: args.text('apply-to'),
      priority: priority === undefined ? undefined : wholeNumber('--priority', priority, 0),
      isOperators: args.has('operator'),
    };
    return done(args, io, command, `policy ${name} applies`);
  },
};

const remove: Command = {
  name: 'policy delete',
  usage: 'NAME [flags]',
  summary: 'Deletes a policy; what it said stops to apply',
  arity: [1, 1],
  flags: { ...clusterFlags, ...vhostFlag, ...operatorFlag },
  run(args, io) {
    const [name] = args.positionals;
    const vhost = args.text('vhost') ?? '/';
    const command = { command: 'policy.delete', vhost, name, isOperators: args.has('operator') };
    return done(args, io, command, `deleted policy ${name}`);
  },
};

export const policyCommands: Readonly<Record<string, Command>> = { list, set, delete: remove };
