/**
 * What operators ask of users, vhosts and policies, as JSON (`command-arguments.ts`): what the command line sends over the
 * Kafka port. Who asks must be allowed to see (DESCRIBE) or change (ALTER) the cluster. What is changed is durable when
 * the answer comes; no answer holds a password or its hash, and a secret only that which made it.
 *
 *   user.list {}                                         → { users }
 *   user.put { name, isNew?, password?, tags? }          → { created }       user.delete { name } → {}
 *   user.limit { name, limit, value? }                   → {}                without a value: none
 *   user.permissions { user?, vhost? }                   → { permissions, topicPermissions }
 *   user.permit { user, vhost, configure, write, read }  → {}                user.forbid { user, vhost } → {}
 *   user.permitTopic { user, vhost, exchange, write, read } → {}             user.forbidTopic { user, vhost, exchange? } → {}
 *   key.list { user? }                                   → { keys }          key.delete { id } → {}
 *   key.create { user, id?, secret? }                    → { key }
 *   vhost.list {}                                        → { vhosts }        vhost.delete { name } → {}
 *   vhost.put { name, isNew?, description?, tags?, defaultQueueType? } → { created }
 *   vhost.limit { name, limit, value? }                  → {}
 *   policy.list { vhost?, isOperators? }                 → { policies }      policy.delete { vhost, name, isOperators? } → {}
 *   policy.put { vhost, name, pattern, definition, applyTo?, priority?, isOperators? } → { created }
 */
import { MillraceError } from '../protocol/errors.ts';
import {
  type Allows,
  type Answer,
  type Arguments,
  checkedCommand,
  flag,
  invalid,
  optionalText,
  requiredText,
  texts,
  wholeNumber,
} from './command-arguments.ts';
import type { JsonObject } from './directory-state.ts';
import type { Directory } from './directory.ts';
import type { PolicyTarget } from './policies.ts';

const argumentsOf = {
  'user.list': [],
  'user.put': ['name', 'isNew', 'password', 'tags'],
  'user.delete': ['name'],
  'user.limit': ['name', 'limit', 'value'],
  'user.permissions': ['user', 'vhost'],
  'user.permit': ['user', 'vhost', 'configure', 'write', 'read'],
  'user.forbid': ['user', 'vhost'],
  'user.permitTopic': ['user', 'vhost', 'exchange', 'write', 'read'],
  'user.forbidTopic': ['user', 'vhost', 'exchange'],
  'key.list': ['user'],
  'key.create': ['user', 'id', 'secret'],
  'key.delete': ['id'],
  'vhost.list': [],
  'vhost.put': ['name', 'isNew', 'description', 'tags', 'defaultQueueType'],
  'vhost.delete': ['name'],
  'vhost.limit': ['name', 'limit', 'value'],
  'policy.list': ['vhost', 'isOperators'],
  'policy.put': ['vhost', 'name', 'pattern', 'definition', 'applyTo', 'priority', 'isOperators'],
  'policy.delete': ['vhost', 'name', 'isOperators'],
} as const satisfies Record<string, readonly string[]>;
type CommandName = keyof typeof argumentsOf;

const SEEING: ReadonlySet<string> = new Set(['user.list', 'user.permissions', 'key.list', 'vhost.list', 'policy.list']);
const CLUSTER = 'kafka-cluster';

export class DirectoryCommands {
  readonly #directory: Directory;

  constructor(directory: Directory) {
    this.#directory = directory;
  }

  /** Whether it is one of these commands, by its name. */
  has(request: unknown): boolean {
    const command = typeof request === 'object' && request !== null && 'command' in request ? request.command : '';
    return typeof command === 'string' && Object.hasOwn(argumentsOf, command);
  }

  /** INVALID_REQUEST, CLUSTER_AUTHORIZATION_FAILED, USER_NOT_FOUND, VHOST_NOT_FOUND. */
  run(request: unknown, allows: Allows): Promise<Answer> {
    const { name, args } = checkedCommand(request, argumentsOf);
    if (!allows(SEEING.has(name) ? 'DESCRIBE' : 'ALTER', 'CLUSTER', CLUSTER)) {
      throw new MillraceError('CLUSTER_AUTHORIZATION_FAILED', `${name} is denied`);
    }
    return this.#run(name, args);
  }

  async #run(name: CommandName, args: Arguments): Promise<Answer> {
    switch (name) {
      case 'user.list':
      case 'user.put':
      case 'user.delete':
      case 'user.limit':
        return this.#user(name, args);
      case 'user.permissions':
      case 'user.permit':
      case 'user.forbid':
      case 'user.permitTopic':
      case 'user.forbidTopic':
        return this.#permission(name, args);
      case 'key.list':
      case 'key.create':
      case 'key.delete':
        return this.#key(name, args);
      case 'vhost.list':
      case 'vhost.put':
      case 'vhost.delete':
      case 'vhost.limit':
        return this.#vhost(name, args);
      case 'policy.list':
      case 'policy.put':
      case 'policy.delete':
        return this.#policy(name, args);
    }
  }

  async #user(command: CommandName & `user.${string}`, args: Arguments): Promise<Answer> {
    const { users } = this.#directory;
    if (command === 'user.list') {
      const shown = users
        .list()
        .map((user) => ({ ...user, hasPassword: users.credentials(user.name).passwordHash !== '' }));
      return { users: shown };
    }
    const name = requiredText(args, 'name');
    if (command === 'user.limit') {
      await users.setLimit(name, requiredText(args, 'limit'), wholeNumber(args, 'value', 0, Number.MAX_SAFE_INTEGER));
      return {};
    }
    if (command === 'user.delete') {
      users.required(name);
      await users.delete(name);
      return {};
    }
    const isNew = args['isNew'] === undefined ? undefined : flag(args, 'isNew');
    if (isNew === true && users.get(name) !== undefined) throw invalid(`there is a user '${name}' already`);
    if (isNew === false) users.required(name);
    const password = optionalText(args, 'password');
    const tags = texts(args, 'tags');
    const created = await users.put(name, {
      ...(password === undefined ? {} : { password }),
      ...(tags === undefined ? {} : { tags }),
    });
    return { created };
  }

  async #permission(command: CommandName & `user.${string}`, args: Arguments): Promise<Answer> {
    const { users } = this.#directory;
    if (command === 'user.permissions') {
      const user = optionalText(args, 'user');
      const vhost = optionalText(args, 'vhost');
      if (user !== undefined) users.required(user);
      const of = { ...(user === undefined ? {} : { user }), ...(vhost === undefined ? {} : { vhost }) };
      return { permissions: users.permissions(of), topicPermissions: users.topicPermissions(of) };
    }
    const user = requiredText(args, 'user');
    const vhost = requiredText(args, 'vhost');
    // The empty pattern is one: it matches nothing.
    const pattern = (name: string): string => {
      const value = args[name] ?? '';
      if (typeof value !== 'string') throw invalid(`${name} must be text, not ${JSON.stringify(value)}`);
      return value;
    };
    const [write, read] = [pattern('write'), pattern('read')];
    if (command === 'user.permit') await users.permit({ user, vhost, configure: pattern('configure'), write, read });
    else if (command === 'user.permitTopic') {
      await users.permitTopic({ user, vhost, exchange: requiredText(args, 'exchange'), write, read });
    } else {
      users.required(user);
      const isGone =
        command === 'user.forbid'
          ? await users.forbid(user, vhost)
          : await users.forbidTopic(user, vhost, optionalText(args, 'exchange'));
      if (!isGone) throw invalid(`the user '${user}' has no such permissions in vhost '${vhost}'`);
    }
    return {};
  }

  async #key(command: CommandName & `key.${string}`, args: Arguments): Promise<Answer> {
    const { users } = this.#directory;
    if (command === 'key.list') return { keys: users.accessKeys(optionalText(args, 'user')) };
    if (command === 'key.delete') {
      const id = requiredText(args, 'id');
      if (!(await users.deleteAccessKey(id))) throw invalid(`there is no access key '${id}'`);
      return {};
    }
    const id = optionalText(args, 'id');
    const secret = optionalText(args, 'secret');
    if ((id === undefined) !== (secret === undefined)) throw invalid('id and secret come together, or neither does');
    const given = id === undefined || secret === undefined ? undefined : { id, secret };
    return { key: await users.createAccessKey(requiredText(args, 'user'), given) };
  }

  async #vhost(command: CommandName & `vhost.${string}`, args: Arguments): Promise<Answer> {
    const { vhosts } = this.#directory;
    if (command === 'vhost.list') return { vhosts: vhosts.list() };
    const name = requiredText(args, 'name');
    if (command === 'vhost.limit') {
      await vhosts.setLimit(name, requiredText(args, 'limit'), wholeNumber(args, 'value', 0, Number.MAX_SAFE_INTEGER));
      return {};
    }
    if (command === 'vhost.delete') {
      vhosts.required(name);
      await vhosts.delete(name);
      return {};
    }
    if (flag(args, 'isNew') && vhosts.get(name) !== undefined) throw invalid(`there is a vhost '${name}' already`);
    const description = optionalText(args, 'description');
    const defaultQueueType = optionalText(args, 'defaultQueueType');
    const tags = texts(args, 'tags');
    const created = await vhosts.put(name, {
      ...(description === undefined ? {} : { description }),
      ...(defaultQueueType === undefined ? {} : { defaultQueueType }),
      ...(tags === undefined ? {} : { tags }),
    });
    return { created };
  }

  async #policy(command: CommandName & `policy.${string}`, args: Arguments): Promise<Answer> {
    const { policies } = this.#directory;
    const kind = flag(args, 'isOperators') ? 'operator' : 'user';
    if (command === 'policy.list') return { policies: policies.list(kind, optionalText(args, 'vhost')) };
    const vhost = requiredText(args, 'vhost');
    const name = requiredText(args, 'name');
    if (command === 'policy.delete') {
      if (!(await policies.delete(kind, vhost, name)))
        throw invalid(`there is no policy '${name}' in vhost '${vhost}'`);
      return {};
    }
    const { definition } = args;
    if (typeof definition !== 'object' || definition === null || Array.isArray(definition)) {
      throw invalid('definition must be an object');
    }
    const created = await policies.put(kind, {
      vhost,
      name,
      pattern: requiredText(args, 'pattern'),
      // Checked there, as is what the definition says.
      applyTo: (optionalText(args, 'applyTo') ?? 'all') as PolicyTarget,
      priority: wholeNumber(args, 'priority', Number.MIN_SAFE_INTEGER, Number.MAX_SAFE_INTEGER) ?? 0,
      definition: definition as JsonObject,
    });
    return { created };
  }
}
