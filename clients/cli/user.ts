/**
 * `millrace user`: who may come in, what each may do, and access keys. A password is read from a file, from standard input
 * or typed; it is never an argument, where other processes could read it.
 */
import { readFile } from 'node:fs/promises';
import { runBrokerCommand } from '../kafka/queues.ts';
import { clusterFlags, withCluster } from './cluster-flags.ts';
import { type Args, type Command, CommandFailure, type Flag, UsageError } from './command.ts';
import type { Io } from './io.ts';
import { done, limitsText, listed, setLimit, vhostFlag } from './directory-args.ts';
import { jsonLine, timeText } from './output.ts';
import { isJson, outputFlag } from './queue-args.ts';

interface User {
  readonly name: string;
  readonly tags: readonly string[];
  readonly limits: Readonly<Record<string, number>>;
  readonly hasPassword: boolean;
}
interface Permission {
  readonly user: string;
  readonly vhost: string;
  readonly exchange?: string;
  readonly configure?: string;
  readonly write: string;
  readonly read: string;
}
interface AccessKey {
  readonly id: string;
  readonly user: string;
  readonly createdMs: number;
}

const passwordFlag = {
  'password-file': {
    value: 'PATH',
    help: 'file with the password; - is standard input (default: it is typed, or standard input)',
  },
} as const satisfies Record<string, Flag>;
const TAGS = 'administrator (everything), monitoring (sees everything), policymaker, management (sees what it may use)';

/** The first line; without it nobody could come in. */
async function password(args: Args, io: Io, user: string): Promise<string> {
  const path = args.text('password-file');
  let text: string | undefined;
  if (path === undefined && io.isInteractive) {
    text = await io.typedSecret(`Password of ${user}: `);
    if (text !== undefined && text !== (await io.typedSecret('Once more: '))) {
      throw new CommandFailure('the two are not the same');
    }
  } else if (path === undefined || path === '-') {
    const pieces: Buffer[] = [];
    for await (const piece of io.stdin) pieces.push(piece);
    text = Buffer.concat(pieces).toString();
  } else {
    text = await readFile(path, 'utf8').catch((error: NodeJS.ErrnoException) => {
      throw new CommandFailure(`the password cannot be read from ${path} (${error.code})`);
    });
  }
  const [line = ''] = (text ?? '').split(/\r?\n/);
  if (line === '') throw new CommandFailure(`there is no password for ${user}`);
  return line;
}

const tagsOf = (text: string): string[] =>
  text
    .split(',')
    .map((tag) => tag.trim())
    .filter((tag) => tag !== '');

const list: Command = {
  name: 'user list',
  usage: '[flags]',
  summary: 'Lists the users',
  arity: [0, 0],
  flags: { ...clusterFlags, ...outputFlag },
  run: (args, io) =>
    listed<User>(args, io, {
      command: { command: 'user.list' },
      fields: ['users'],
      head: ['USER', 'TAGS', 'PASSWORD', 'LIMITS'],
      row: ({ name, tags, limits, hasPassword }) => [
        name,
        tags.join(', '),
        hasPassword ? 'yes' : 'no',
        limitsText(limits),
      ],
      none: 'There are no users.',
    }),
};

const add: Command = {
  name: 'user add',
  usage: 'NAME [flags]',
  summary: 'Makes a user, who may do nothing yet',
  details: `What the user may do is said by 'millrace user permit'. Tags are ${TAGS}.
Examples:
  millrace user add shop --password-file shop.password
  pass show shop | millrace user add shop`,
  arity: [1, 1],
  flags: {
    ...clusterFlags,
    ...passwordFlag,
    'no-password': { help: 'nobody comes in with a password: for users with access keys only' },
    tags: { value: 'TAG,…', help: 'what the user is beside its permissions' },
  },
  async run(args, io) {
    const [name] = args.positionals;
    if (args.has('no-password') && args.has('password-file')) {
      throw new UsageError('--no-password and --password-file contradict each other');
    }
    const tags = tagsOf(args.text('tags') ?? '');
    const given = args.has('no-password') ? {} : { password: await password(args, io, name) };
    return done(args, io, { command: 'user.put', name, isNew: true, tags, ...given }, `made user ${name}`);
  },
};

const changePassword: Command = {
  name: 'user password',
  usage: 'NAME [flags]',
  summary: 'Changes the password of a user',
  arity: [1, 1],
  flags: { ...clusterFlags, ...passwordFlag },
  async run(args, io) {
    const [name] = args.positionals;
    const command = { command: 'user.put', name, isNew: false, password: await password(args, io, name) };
    return done(args, io, command, `changed the password of ${name}`);
  },
};

const tags: Command = {
  name: 'user tags',
  usage: 'NAME [TAG…] [flags]',
  summary: 'Says what a user is; without tags, nothing special',
  details: `Tags are ${TAGS}; others mean nothing here.`,
  arity: [1, Number.POSITIVE_INFINITY],
  flags: { ...clusterFlags },
  run(args, io) {
    const [name, ...given] = args.positionals;
    const all = given.flatMap(tagsOf);
    const note = all.length === 0 ? `user ${name} has no tags` : `user ${name} has tags ${all.join(', ')}`;
    return done(args, io, { command: 'user.put', name, isNew: false, tags: all }, note);
  },
};

const remove: Command = {
  name: 'user delete',
  usage: 'NAME… [flags]',
  summary: 'Deletes users with their permissions and keys; their connections end',
  arity: [1, Number.POSITIVE_INFINITY],
  flags: { ...clusterFlags },
  async run(args, io) {
    for (const name of args.positionals) {
      await done(args, io, { command: 'user.delete', name }, `deleted user ${name}`);
    }
  },
};

const limit: Command = {
  name: 'user limit',
  usage: 'NAME LIMIT [N] [flags]',
  summary: 'Limits connections (max-connections) or channels (max-channels) of a user; without N, no longer',
  arity: [2, 3],
  flags: { ...clusterFlags },
  run: (args, io) => setLimit(args, io, 'user.limit'),
};

const permit: Command = {
  name: 'user permit',
  usage: 'NAME [flags]',
  summary: 'Says what a user may do in a vhost, in place of what was said before',
  details: `Each of --configure, --write and --read is a pattern over names of queues and exchanges, found anywhere in the name:
use ^ and $. One that is not given matches nothing. docs/security.md tells what needs which.
With --exchange it is about the routing keys that go through that topic exchange (--write), or are bound to it (--read).
Examples:
  millrace user permit shop --configure '^shop\\.' --write '^(shop\\..*|amq\\.default)$' --read '^shop\\.'
  millrace user permit guest --vhost staging --all`,
  arity: [1, 1],
  flags: {
    ...clusterFlags,
    ...vhostFlag,
    configure: { value: 'PATTERN', help: 'what the user may declare and delete' },
    write: { value: 'PATTERN', help: 'what it may publish or bind to' },
    read: { value: 'PATTERN', help: 'what it may consume, purge, or bind from' },
    all: { help: 'everything' },
    exchange: { value: 'NAME', help: 'only routing keys of this topic exchange' },
  },
  run(args, io) {
    const [user] = args.positionals;
    const vhost = args.text('vhost') ?? '/';
    const isAll = args.has('all');
    const given = ['configure', 'write', 'read'].filter((name) => args.has(name));
    if (isAll && given.length > 0) throw new UsageError(`--all and --${given[0]} contradict each other`);
    if (!isAll && given.length === 0) throw new UsageError('permit needs --configure, --write, --read or --all');
    const pattern = (name: string): string => (isAll ? '.*' : (args.text(name) ?? ''));
    const [write, read] = [pattern('write'), pattern('read')];
    const exchange = args.text('exchange');
    if (exchange !== undefined) {
      if (args.has('configure')) throw new UsageError('--configure says nothing of routing keys');
      const command = { command: 'user.permitTopic', user, vhost, exchange, write, read };
      return done(args, io, command, `routing keys of ${user} in ${exchange} of vhost ${vhost} are limited`);
    }
    const command = { command: 'user.permit', user, vhost, configure: pattern('configure'), write, read };
    return done(args, io, command, `permitted in vhost ${vhost} to ${user}`);
  },
};

const forbid: Command = {
  name: 'user forbid',
  usage: 'NAME [flags]',
  summary: 'Takes back what a user may do in a vhost: it cannot come in there any more',
  arity: [1, 1],
  flags: {
    ...clusterFlags,
    ...vhostFlag,
    exchange: { value: 'NAME', help: 'only what was said of routing keys of this topic exchange' },
  },
  run(args, io) {
    const [user] = args.positionals;
    const vhost = args.text('vhost') ?? '/';
    const exchange = args.text('exchange');
    const command =
      exchange === undefined
        ? { command: 'user.forbid', user, vhost }
        : { command: 'user.forbidTopic', user, vhost, exchange };
    return done(args, io, command, `taken back in vhost ${vhost} from ${user}`);
  },
};

const permissions: Command = {
  name: 'user permissions',
  usage: '[NAME] [flags]',
  summary: 'Shows what users may do',
  arity: [0, 1],
  flags: { ...clusterFlags, ...outputFlag, vhost: { ...vhostFlag.vhost, help: 'only in this vhost' } },
  run: (args, io) =>
    listed<Permission>(args, io, {
      command: { command: 'user.permissions', user: args.positionals.at(0), vhost: args.text('vhost') },
      fields: ['permissions', 'topicPermissions'],
      head: ['USER', 'VHOST', 'TOPIC EXCHANGE', 'CONFIGURE', 'WRITE', 'READ'],
      row: ({ user, vhost, exchange, configure, write, read }) => [user, vhost, exchange, configure, write, read],
      none: 'Nothing is permitted.',
    }),
};

const keys: Command = {
  name: 'user keys',
  usage: '[NAME] [flags]',
  summary: 'Lists access keys, without their secrets',
  arity: [0, 1],
  flags: { ...clusterFlags, ...outputFlag },
  run: (args, io) =>
    listed<AccessKey>(args, io, {
      command: { command: 'key.list', user: args.positionals.at(0) },
      fields: ['keys'],
      head: ['KEY', 'USER', 'CREATED'],
      row: ({ id, user, createdMs }) => [id, user, timeText(createdMs)],
      none: "There are no access keys; 'millrace user key NAME' makes one.",
    }),
};

const key: Command = {
  name: 'user key',
  usage: 'NAME [flags]',
  summary: 'Makes an access key for SQS clients, and shows its secret this once; or deletes one',
  arity: [1, 1],
  flags: {
    ...clusterFlags,
    ...outputFlag,
    id: { value: 'ID', help: 'a key that was made elsewhere; its secret comes as a password does' },
    ...passwordFlag,
    delete: { value: 'ID', help: 'deletes this key instead' },
  },
  async run(args, io) {
    const [user] = args.positionals;
    const isForPrograms = isJson(args);
    const gone = args.text('delete');
    if (gone !== undefined) return done(args, io, { command: 'key.delete', id: gone }, `deleted access key ${gone}`);
    const id = args.text('id');
    const given = id === undefined ? {} : { id, secret: await password(args, io, `access key ${id}`) };
    return withCluster(args, io, async (cluster) => {
      const command = { command: 'key.create', user, ...given };
      const answer = await runBrokerCommand<{ key: AccessKey & { secret: string } }>(cluster, command);
      if (isForPrograms) return io.write(jsonLine(answer.key));
      io.note(`made an access key for ${user}; the secret is not shown again`);
      await io.write(`aws_access_key_id = ${answer.key.id}\naws_secret_access_key = ${answer.key.secret}\n`);
    });
  },
};

export const userCommands: Readonly<Record<string, Command>> = {
  list,
  add,
  password: changePassword,
  tags,
  permit,
  forbid,
  permissions,
  limit,
  key,
  keys,
  delete: remove,
};
