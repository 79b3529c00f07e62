/**
 * Who may ask what: Basic authentication against the users of the broker, and the tags as RabbitMQ checks them. Refusals
 * are RabbitMQ's, with its two spellings.
 */
import type { Directory } from '../../broker/directory.ts';
import type { HttpRequest } from '../../broker/http-server.ts';
import { isLoopback } from '../../broker/server.ts';
import type { User } from '../../broker/users.ts';
import { ApiError, notAuthorised, Raw, type Allowed } from './resource.ts';

const CHALLENGE = { 'www-authenticate': 'Basic realm="RabbitMQ Management"' };
const NOT_AUTHENTICATED = new ApiError(401, 'not_authorized', 'Not_Authorized');
const MANAGEMENT_TAGS = ['administrator', 'monitoring', 'policymaker', 'management'];

const isAdmin = ({ tags }: User): boolean => tags.includes('administrator');
export const isMonitor = (user: User): boolean => isAdmin(user) || user.tags.includes('monitoring');
const isPolicymaker = (user: User): boolean => isAdmin(user) || user.tags.includes('policymaker');

/** The user and the password, or the challenge; 401 if they are wrong or may not come from there. */
export function authenticated(request: HttpRequest, { users }: Directory): { user: User; password: string } | Raw {
  const header = request.headers['authorization'];
  if (typeof header !== 'string') return new Raw(401, 'application/json', '', CHALLENGE);
  // Tokens are OAuth's, which there is none of.
  if (/^bearer\s/i.test(header)) throw NOT_AUTHENTICATED;
  const credentials = basicCredentials(header);
  if (credentials === undefined) return new Raw(400, 'application/json', '');
  const { name, password } = credentials;
  const found = users.authenticate(name, password, { isLoopback: isLoopback(request.remoteHost) });
  if ('user' in found) return { user: found.user, password };
  if (found.refused === 'loopback') throw notAuthorised('User can only log in via localhost');
  throw NOT_AUTHENTICATED;
}

/** RFC 7617. */
function basicCredentials(header: string): { name: string; password: string } | undefined {
  const match = /^basic\s+([A-Za-z0-9+/=]+)$/i.exec(header.trim());
  if (match === null) return undefined;
  const text = Buffer.from(match[1], 'base64').toString();
  const at = text.indexOf(':');
  return at < 0 ? undefined : { name: text.slice(0, at), password: text.slice(at + 1) };
}

/** 401 if this user may not. */
export function checkAllowed(
  allowed: Exclude<Allowed, 'anybody'>,
  { user, params, method }: { user: User; params: Readonly<Record<string, string>>; method: string },
  directory: Directory,
): void {
  if (!user.tags.some((tag) => MANAGEMENT_TAGS.includes(tag))) throw notAuthorised('Not management user');
  const require = (isRight: boolean, why: string): void => {
    if (!isRight) throw notAuthorised(why);
  };
  if (typeof allowed === 'function') {
    const seesAll = method === 'DELETE' ? isAdmin(user) : isMonitor(user);
    return require(seesAll || allowed(params) === user.name, 'User not authorised to access object');
  }
  switch (allowed) {
    case 'user':
      return;
    case 'admin':
      return require(isAdmin(user), 'Not administrator user');
    case 'monitor':
      return require(isMonitor(user), 'Not monitor user');
    case 'global':
      return require(isPolicymaker(user), 'User not authorised to access object');
    case 'policymaker':
      return require(isAdmin(user) ||
        (isPolicymaker(user) && mayEnter(user, params['vhost'], directory)), 'User not authorised to access object');
    case 'vhost':
      return require(isAdmin(user) ||
        mayEnter(user, params['vhost'], directory), 'User not authorised to access virtual host');
    case 'visible-vhost':
      return require(isMonitor(user) ||
        mayEnter(user, params['vhost'], directory), 'User not authorised to access virtual host');
  }
}

/** A vhost that is not there is found missing later. */
function mayEnter(user: User, vhost: string | undefined, { users, vhosts }: Directory): boolean {
  if (vhost === undefined || vhosts.get(vhost) === undefined) return true;
  return users.permission(user.name, vhost) !== undefined;
}

/** Names of the vhosts whose things a list shows to this user. */
export function visibleVhosts(user: User, directory: Directory, seesAll = isAdmin(user)): ReadonlySet<string> {
  const names = directory.vhosts.list().map(({ name }) => name);
  return new Set(seesAll ? names : names.filter((name) => directory.users.permission(user.name, name) !== undefined));
}
