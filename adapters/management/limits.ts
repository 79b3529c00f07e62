/** Limits of vhosts and users. */
import type { Directory } from '../../broker/directory.ts';
import type { VhostFacts } from '../../broker/directory-state.ts';
import { visibleVhosts, isMonitor } from './authorize.ts';
import { erlangTerm } from './fields.ts';
import { type Fact, listed } from './listing.ts';
import { isVhost, type ManagementParts } from './parts.ts';
import { type ApiError, badRequest, type Call, notFound, type Resource, type Resources } from './resource.ts';

export function limitResources({ directory }: ManagementParts): Resources {
  return {
    '/vhost-limits': vhostLimits(directory),
    '/vhost-limits/:vhost': vhostLimits(directory),
    '/vhost-limits/:vhost/:name': {
      allowed: 'admin',
      exists: () => true,
      async put(call) {
        const { vhost, name } = call.params;
        if (directory.vhosts.get(vhost) === undefined) throw notFound('vhost_not_found');
        await directory.vhosts.setLimit(vhost, name, await limitOf(call, VHOST_LIMITS));
      },
      async remove({ params }) {
        const { vhost, name } = params;
        if (directory.vhosts.get(vhost) === undefined) throw notFound('vhost_not_found');
        await directory.vhosts.setLimit(vhost, name, undefined);
      },
    },
    '/user-limits': userLimits(directory),
    '/user-limits/:user': userLimits(directory),
    '/user-limits/:user/:name': {
      allowed: 'admin',
      exists: () => true,
      async put(call) {
        const { user, name } = call.params;
        if (directory.users.get(user) === undefined) throw notFound('user_not_found');
        await directory.users.setLimit(user, name, await limitOf(call, USER_LIMITS));
      },
      async remove({ params }) {
        const { user, name } = params;
        const known = directory.users.get(user);
        if (known === undefined) throw notFound('user_not_found');
        for (const limit of name === 'all' ? Object.keys(known.limits) : [name]) {
          await directory.users.setLimit(user, limit, undefined);
        }
      },
    },
  };
}

function vhostLimits(directory: Directory): Resource {
  return {
    allowed: 'visible-vhost',
    exists: isVhost({ directory }),
    get({ params, request, user }) {
      const seen = visibleVhosts(user, directory, isMonitor(user));
      const vhosts = directory.vhosts.list().filter(({ name }) => name === (params['vhost'] ?? name) && seen.has(name));
      return listed(
        vhosts.map(limitsFact).filter((fact) => fact !== undefined),
        request.query,
        { sorts: [] },
      );
    },
  };
}

/** The vhost and its limits; undefined if it has none. */
export function limitsFact({ name, limits }: VhostFacts): Fact | undefined {
  return Object.keys(limits).length === 0 ? undefined : { vhost: name, value: limits };
}

function userLimits(directory: Directory): Resource {
  return {
    allowed: 'visible-vhost',
    exists: ({ params }) => params['user'] === undefined || directory.users.get(params['user']) !== undefined,
    get({ params, request }) {
      const limited = directory.users
        .list()
        .filter(({ name, limits }) => name === (params['user'] ?? name) && Object.keys(limits).length > 0);
      return listed(
        limited.map(({ name, limits }) => ({ user: name, value: limits })),
        request.query,
        { sorts: [] },
      );
    },
  };
}

/** Which there are, and what they are called where one is not understood. */
const VHOST_LIMITS = { names: ['max-connections', 'max-queues'], place: 'limits' };
const USER_LIMITS = { names: ['max-connections', 'max-channels'], place: 'user-limits' };

async function limitOf(call: Call, { names, place }: typeof VHOST_LIMITS): Promise<number> {
  const { name } = call.params;
  const { value } = await call.json(['value']);
  const invalid = (text: string): ApiError =>
    badRequest(place === USER_LIMITS.place ? text : `Validation failed\n\n${text}\n`);
  if (!names.includes(name))
    throw invalid(`Unrecognised terms [{${erlangTerm(name)},${erlangTerm(value)}}] in ${place}`);
  if (typeof value === 'number' && Number.isSafeInteger(value)) return value;
  throw invalid(`${name} should be a number, actually was ${erlangTerm(value)}`);
}
