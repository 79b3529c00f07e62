/** `millrace vhost`: list, add, limit, delete. */
import { clusterFlags } from './cluster-flags.ts';
import type { Command } from './command.ts';
import { done, limitsText, listed, setLimit } from './directory-args.ts';
import { outputFlag } from './queue-args.ts';

interface ShownVhost {
  readonly name: string;
  readonly description: string;
  readonly defaultQueueType: string;
  readonly limits: Readonly<Record<string, number>>;
}

const list: Command = {
  name: 'vhost list',
  usage: '[flags]',
  summary: 'Lists the vhosts',
  arity: [0, 0],
  flags: { ...clusterFlags, ...outputFlag },
  run: (args, io) =>
    listed<ShownVhost>(args, io, {
      command: { command: 'vhost.list' },
      fields: ['vhosts'],
      head: ['VHOST', 'QUEUE TYPE', 'LIMITS', 'DESCRIPTION'],
      row: ({ name, defaultQueueType, limits, description }) => [
        name,
        defaultQueueType || 'classic',
        limitsText(limits),
        description,
      ],
      none: 'There are no vhosts.',
    }),
};

const add: Command = {
  name: 'vhost add',
  usage: 'NAME [flags]',
  summary: "Makes a vhost; 'millrace user permit' lets users in",
  arity: [1, 1],
  flags: {
    ...clusterFlags,
    description: { value: 'TEXT', help: 'what it is for' },
    'queue-type': { value: 'TYPE', help: 'classic, quorum or stream: of queues that do not say (default classic)' },
  },
  run(args, io) {
    const [name] = args.positionals;
    const said = { description: args.text('description'), defaultQueueType: args.text('queue-type') };
    return done(args, io, { command: 'vhost.put', name, isNew: true, ...said }, `made vhost ${name}`);
  },
};

const limit: Command = {
  name: 'vhost limit',
  usage: 'NAME LIMIT [N] [flags]',
  summary: 'Limits connections (max-connections) or queues (max-queues) of a vhost; without N, no longer',
  arity: [2, 3],
  flags: { ...clusterFlags },
  run: (args, io) => setLimit(args, io, 'vhost.limit'),
};

const remove: Command = {
  name: 'vhost delete',
  usage: 'NAME… [flags]',
  summary: 'Deletes vhosts with all queues, exchanges, permissions and policies in them',
  arity: [1, Number.POSITIVE_INFINITY],
  flags: { ...clusterFlags },
  async run(args, io) {
    for (const name of args.positionals) {
      await done(args, io, { command: 'vhost.delete', name }, `deleted vhost ${name}`);
    }
  },
};

export const vhostCommands: Readonly<Record<string, Command>> = { list, add, limit, delete: remove };
