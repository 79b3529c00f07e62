/** Users, permissions and topic permissions. Hashes are shown to administrators only, as RabbitMQ shows them. */
import type { Directory } from '../../broker/directory.ts';
import { DEFAULT_ALGORITHM } from '../../broker/password-hash.ts';
import type { Permission, TopicPermission } from '../../broker/users.ts';
import { objectField, tagsField, textField } from './fields.ts';
import { type Fact, listed } from './listing.ts';
import { isVhost, type ManagementParts } from './parts.ts';
import { badRequest, type Call, type Resource, type Resources } from './resource.ts';

const BY_VHOST_AND_USER = { sorts: ['vhost', 'user'] };

export function userResources({ directory }: ManagementParts): Resources {
  const { users } = directory;
  const isUser = ({ params }: Call): boolean => users.get(params['user']) !== undefined;
  const listOf = (facts: (call: Call) => readonly Fact[], exists?: (call: Call) => boolean): Resource => ({
    allowed: 'admin',
    ...(exists === undefined ? {} : { exists }),
    get: (call) => listed(facts(call), call.request.query, BY_VHOST_AND_USER),
  });
  return {
    '/users/bulk-delete': {
      allowed: 'admin',
      async post(call) {
        const { users: names } = await call.json(['users']);
        if (!Array.isArray(names)) throw badRequest('users should be a list');
        for (const name of names) await users.delete(String(name));
        return undefined;
      },
    },
    '/users/without-permissions': {
      allowed: 'admin',
      get({ request }) {
        const without = users.list().filter(({ name }) => users.permissions({ user: name }).length === 0);
        return listed(
          without.map(({ name }) => userFact(directory, name)),
          request.query,
          { sorts: ['name'], isPaged: true },
        );
      },
    },
    '/users': {
      allowed: 'admin',
      get: ({ request }) => listed(userFacts(directory), request.query, { sorts: ['name'], isPaged: true }),
    },
    '/users/:user': {
      allowed: 'admin',
      exists: isUser,
      get: ({ params }) => userFact(directory, params['user']),
      async put(call) {
        await putUser(directory, call.params['user'], await call.json());
      },
      async remove({ params }) {
        await users.delete(params['user']);
      },
    },
    '/users/:user/permissions': listOf(({ params }) => facts(users.permissions({ user: params['user'] })), isUser),
    '/users/:user/topic-permissions': listOf(
      ({ params }) => facts(users.topicPermissions({ user: params['user'] })),
      isUser,
    ),
    '/vhosts/:vhost/permissions': listOf(
      ({ params }) => facts(users.permissions({ vhost: params['vhost'] })),
      isVhost({ directory }),
    ),
    '/vhosts/:vhost/topic-permissions': listOf(
      ({ params }) => facts(users.topicPermissions({ vhost: params['vhost'] })),
      isVhost({ directory }),
    ),
    '/permissions': listOf(() => facts(users.permissions())),
    '/permissions/:vhost/:user': {
      allowed: 'admin',
      exists: ({ params }) => users.permission(params['user'], params['vhost']) !== undefined,
      get: ({ params }) => ({ ...users.permission(params['user'], params['vhost']) }),
      async put(call) {
        const { user, vhost } = ofUserAndVhost(directory, call);
        const body = await call.json(['configure', 'write', 'read']);
        await users.permit({ user, vhost, ...patterns(body), configure: textField(body, 'configure') });
      },
      async remove({ params }) {
        await users.forbid(params['user'], params['vhost']);
      },
    },
    '/topic-permissions': listOf(() => facts(users.topicPermissions())),
    '/topic-permissions/:vhost/:user': {
      ...topicPermission(directory),
      async put(call) {
        const { user, vhost } = ofUserAndVhost(directory, call);
        const body = await call.json(['exchange', 'write', 'read']);
        await users.permitTopic({ user, vhost, exchange: textField(body, 'exchange'), ...patterns(body) });
      },
    },
    '/topic-permissions/:vhost/:user/:exchange': topicPermission(directory),
  };
}

function topicPermission({ users }: Directory): Resource {
  const found = ({ params }: Call): readonly TopicPermission[] =>
    users.topicPermissions({ user: params['user'], vhost: params['vhost'] });
  return {
    allowed: 'admin',
    exists: (call) => found(call).length > 0,
    get: (call) => facts(found(call)),
    async remove({ params }) {
      await users.forbidTopic(params['user'], params['vhost'], params['exchange']);
    },
  };
}

const patterns = (body: Readonly<Record<string, unknown>>): { write: string; read: string } => ({
  write: textField(body, 'write'),
  read: textField(body, 'read'),
});

function ofUserAndVhost({ users, vhosts }: Directory, { params }: Call): { user: string; vhost: string } {
  const { user, vhost } = params;
  if (users.get(user) === undefined || vhosts.get(vhost) === undefined) throw badRequest('vhost_or_user_not_found');
  return { user, vhost };
}

const facts = (list: readonly (Permission | TopicPermission)[]): Fact[] => list.map((each) => ({ ...each }));

export function userFacts(directory: Directory): Fact[] {
  return directory.users.list().map(({ name }) => userFact(directory, name));
}

function userFact({ users }: Directory, name: string): Fact {
  const { tags, limits } = users.required(name);
  const { passwordHash, hashingAlgorithm } = users.credentials(name);
  return { name, password_hash: passwordHash, hashing_algorithm: hashingAlgorithm, tags, limits };
}

/** A user as a PUT or a definitions file tells of one. 400 for what RabbitMQ refuses. */
export async function putUser(
  { users }: Directory,
  name: string,
  body: Readonly<Record<string, unknown>>,
): Promise<void> {
  const { password, password_hash: hash, tags, administrator } = body;
  if (tags === undefined && administrator === undefined) throw badRequest('tags_not_present');
  if (password !== undefined && hash !== undefined) throw badRequest('both_password_and_password_hash_are_provided');
  const isAdministrator = administrator === true || administrator === 'true';
  await users.put(name, {
    tags: tags === undefined ? (isAdministrator ? ['administrator'] : []) : tagsField(tags),
    // Without either the user keeps no password. The algorithm is that of a hash, whatever is said with a password.
    ...(password === undefined
      ? {
          passwordHash: textField(body, 'password_hash'),
          hashingAlgorithm: textField(body, 'hashing_algorithm', DEFAULT_ALGORITHM),
        }
      : { password: String(password) }),
  });
  for (const [limit, value] of Object.entries(objectField(body, 'limits')))
    await users.setLimit(name, limit, Number(value));
}
