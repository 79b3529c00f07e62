/**
 * The users of all doors: passwords, tags, limits, access keys, and what each may do in which vhost. The one store that
 * decides who comes in; `access.ts` decides what they may do then.
 *
 * Always true: no answer and no error holds a password, a hash or a secret beyond what is asked for by name; who comes in
 * is found out in the same time whether the user exists or not.
 */
import { MillraceError } from '../protocol/errors.ts';
import type { Clock, Random } from '../storage/clock.ts';
import { ANONYMOUS, principalOf } from './access.ts';
import {
  type Change,
  type HashingAlgorithm,
  keyOf,
  type Permission,
  type StoredKey,
  type StoredUser,
  type TopicPermission,
} from './directory-state.ts';
import type { Directory } from './directory.ts';
import type { SealedSecrets } from './sealed-secrets.ts';
import { checkNamePattern } from './name-pattern.ts';
import { DEFAULT_ALGORITHM, hashingAlgorithm, isPasswordHash, passwordHash, passwordMatches } from './password-hash.ts';
import { changedLimits, checkName } from './vhosts.ts';

export type { HashingAlgorithm, Permission, TopicPermission } from './directory-state.ts';
/** A user without what must not be shown by accident: hashes are in `credentials`. */
export type User = Omit<StoredUser, 'passwordHash' | 'hashingAlgorithm'>;

/** What is changed of a user; what is not given stays. */
export interface UserInit {
  readonly tags?: readonly string[];
  readonly password?: string;
  /** As RabbitMQ exports it; empty text: no password opens anything. Not together with `password`. */
  readonly passwordHash?: string;
  /** Of `passwordHash` or for `password`. Default: sha256. */
  readonly hashingAlgorithm?: string;
}

/** Who came in, or why not: for the log, never for the peer. */
export type Authenticated =
  | { readonly user: User }
  /** `loopback`: right, but this user may not come from there. */
  | { readonly refused: 'credentials' | 'loopback' };

/** An access key without its secret. */
export interface AccessKey {
  readonly id: string;
  readonly user: string;
  readonly createdMs: number;
}

const KEY_PREFIX = 'AKIA';
const KEY_LETTERS = 16;
const LETTERS = 'ABCDEFGHIJKLMNOPQRSTUVWXYZ234567';
const KEY_ID = /^\w{4,128}$/;
const SECRET_BYTES = 30;
const SECRET_CHARACTERS_MAX = 256;
const LIMITS: readonly string[] = ['max-connections', 'max-channels'];
/** RabbitMQ's `loopback_users`. */
const LOOPBACK_USERS: ReadonlySet<string> = new Set(['guest']);
const FIRST_USER = 'guest';
/** What a password is compared with when there is no such user. */
const NOBODY: StoredUser = {
  name: '',
  tags: [],
  passwordHash: Buffer.alloc(4 + 32).toString('base64'),
  hashingAlgorithm: DEFAULT_ALGORITHM,
  limits: {},
};

/** `guest`, password `guest`, an administrator with all permissions in the vhost. */
export function firstUser(random: Random, vhost: string): Change[] {
  const name = FIRST_USER;
  const stored: StoredUser = {
    name,
    tags: ['administrator'],
    passwordHash: passwordHash(FIRST_USER, random),
    hashingAlgorithm: DEFAULT_ALGORITHM,
    limits: {},
  };
  const all = { user: name, vhost, configure: '.*', write: '.*', read: '.*' };
  return [
    { table: 'users', key: name, fact: stored },
    { table: 'permissions', key: keyOf(name, vhost), fact: all },
  ];
}

export class Users {
  readonly #directory: Directory;
  readonly #random: Random;
  readonly #clock: Clock;
  readonly #secrets: SealedSecrets;

  constructor(
    directory: Directory,
    parts: { readonly random: Random; readonly clock: Clock; readonly secrets: SealedSecrets },
  ) {
    this.#directory = directory;
    this.#random = parts.random;
    this.#clock = parts.clock;
    this.#secrets = parts.secrets;
  }

  /** Once, after the facts: what is sealed can be opened. */
  async load(): Promise<void> {
    if (this.#directory.table('keys').size > 0) await this.#secrets.load();
  }

  // --- who there is ---

  get(name: string): User | undefined {
    const stored = this.#directory.table('users').get(name);
    return stored && shown(stored);
  }
  /** By name. */
  list(): readonly User[] {
    return [...this.#directory.table('users').values()].map(shown).sort((a, b) => (a.name < b.name ? -1 : 1));
  }
  /** USER_NOT_FOUND. */
  required(name: string): User {
    return shown(this.#stored(name));
  }
  #stored(name: string): StoredUser {
    const stored = this.#directory.table('users').get(name);
    if (stored === undefined) throw new MillraceError('USER_NOT_FOUND', `there is no user '${name}'`);
    return stored;
  }
  /** The hash of the password, for exports that an administrator asks for. USER_NOT_FOUND. */
  credentials(name: string): { readonly passwordHash: string; readonly hashingAlgorithm: HashingAlgorithm } {
    const { passwordHash: hash, hashingAlgorithm: algorithm } = this.#stored(name);
    return { passwordHash: hash, hashingAlgorithm: algorithm };
  }

  /** Makes the user, without a password unless one is given, or changes one. Answers whether it is new. INVALID_REQUEST. */
  async put(name: string, init: UserInit): Promise<boolean> {
    const known = this.#directory.table('users').get(name);
    checkName('user', name);
    // What Kafka calls those who do not say who they are.
    if (principalOf(name) === ANONYMOUS) {
      throw new MillraceError('INVALID_REQUEST', `'${name}' is nobody's name: it stands for who has not said`);
    }
    const algorithm = hashingAlgorithm(init.hashingAlgorithm ?? DEFAULT_ALGORITHM);
    if (algorithm === undefined) {
      throw new MillraceError('INVALID_REQUEST', `there is no hashing algorithm '${init.hashingAlgorithm}'`);
    }
    let { passwordHash: hash, hashingAlgorithm: kept } = known ?? { ...NOBODY, passwordHash: '' };
    if (init.password !== undefined) {
      if (init.password === '') throw new MillraceError('INVALID_REQUEST', 'a password cannot be empty');
      hash = passwordHash(init.password, this.#random, algorithm);
      kept = algorithm;
    } else if (init.passwordHash !== undefined) {
      if (init.passwordHash !== '' && !isPasswordHash(init.passwordHash)) {
        throw new MillraceError('INVALID_REQUEST', 'a password hash is base64 of salt and digest');
      }
      hash = init.passwordHash;
      kept = algorithm;
    }
    const fact = {
      name,
      tags: init.tags ?? known?.tags ?? [],
      passwordHash: hash,
      hashingAlgorithm: kept,
      limits: known?.limits ?? {},
    };
    await this.#directory.change([{ table: 'users', key: name, fact }]);
    return known === undefined;
  }

  /** With all permissions and keys. False: there was none. */
  async delete(name: string): Promise<boolean> {
    if (!this.#directory.table('users').has(name)) return false;
    const changes: Change[] = [{ table: 'users', key: name, fact: undefined }];
    for (const table of ['permissions', 'topicPermissions', 'keys'] as const) {
      for (const [key, fact] of this.#directory.table(table)) {
        if (fact.user === name) changes.push({ table, key, fact: undefined });
      }
    }
    await this.#directory.change(changes);
    return true;
  }

  /** Whether the password is the user's, and may be used from there. */
  authenticate(name: string, password: string, from: { readonly isLoopback: boolean }): Authenticated {
    const stored = this.#directory.table('users').get(name);
    const { passwordHash: hash, hashingAlgorithm: algorithm } = stored ?? NOBODY;
    const isRight = passwordMatches(password, hash, algorithm);
    if (stored === undefined || !isRight || hash === '' || password === '') return { refused: 'credentials' };
    if (LOOPBACK_USERS.has(name) && !from.isLoopback) return { refused: 'loopback' };
    return { user: shown(stored) };
  }

  /** `max-connections` or `max-channels`; undefined: no limit. */
  limit(name: string, limit: string): number | undefined {
    const value = this.#directory.table('users').get(name)?.limits[limit];
    return value === undefined || value < 0 ? undefined : value;
  }
  /** Sets or (undefined) clears one limit. USER_NOT_FOUND, INVALID_REQUEST. */
  async setLimit(name: string, limit: string, value: number | undefined): Promise<void> {
    const stored = this.#stored(name);
    const limits = changedLimits(stored.limits, LIMITS, limit, value);
    await this.#directory.change([{ table: 'users', key: name, fact: { ...stored, limits } }]);
  }

  // --- what they may do ---

  /** Of one user, in one vhost, or all. */
  permissions(of: { user?: string; vhost?: string } = {}): readonly Permission[] {
    return selected(this.#directory.table('permissions'), of);
  }
  permission(user: string, vhost: string): Permission | undefined {
    return this.#directory.table('permissions').get(keyOf(user, vhost));
  }
  /** USER_NOT_FOUND, VHOST_NOT_FOUND, INVALID_REQUEST for a pattern that is none. Answers whether it is new. */
  async permit(permission: Permission): Promise<boolean> {
    const { user, vhost, configure, write, read } = permission;
    this.required(user);
    this.#directory.vhosts.required(vhost);
    for (const pattern of [configure, write, read]) checkNamePattern(pattern);
    const key = keyOf(user, vhost);
    const isNew = !this.#directory.table('permissions').has(key);
    await this.#directory.change([{ table: 'permissions', key, fact: { user, vhost, configure, write, read } }]);
    return isNew;
  }
  /** False: there was none. */
  async forbid(user: string, vhost: string): Promise<boolean> {
    if (this.permission(user, vhost) === undefined) return false;
    await this.#directory.change([{ table: 'permissions', key: keyOf(user, vhost), fact: undefined }]);
    return true;
  }

  topicPermissions(of: { user?: string; vhost?: string } = {}): readonly TopicPermission[] {
    return selected(this.#directory.table('topicPermissions'), of);
  }
  topicPermission(user: string, vhost: string, exchange: string): TopicPermission | undefined {
    return this.#directory.table('topicPermissions').get(keyOf(user, vhost, exchange));
  }
  /** As `permit`. */
  async permitTopic(permission: TopicPermission): Promise<boolean> {
    const { user, vhost, exchange, write, read } = permission;
    this.required(user);
    this.#directory.vhosts.required(vhost);
    for (const pattern of [write, read]) checkNamePattern(pattern);
    const key = keyOf(user, vhost, exchange);
    const isNew = !this.#directory.table('topicPermissions').has(key);
    await this.#directory.change([{ table: 'topicPermissions', key, fact: { user, vhost, exchange, write, read } }]);
    return isNew;
  }
  /** Of one exchange, or all of them in the vhost. False: there were none. */
  async forbidTopic(user: string, vhost: string, exchange?: string): Promise<boolean> {
    const gone = this.topicPermissions({ user, vhost }).filter((each) => each.exchange === (exchange ?? each.exchange));
    await this.#directory.change(
      gone.map((each) => ({
        table: 'topicPermissions' as const,
        key: keyOf(user, vhost, each.exchange),
        fact: undefined,
      })),
    );
    return gone.length > 0;
  }

  // --- access keys ---

  /** The key with its secret, for checking a signature; undefined if there is none of this id. */
  accessKey(id: string): (AccessKey & { readonly secret: string }) | undefined {
    const key = this.#directory.table('keys').get(id);
    const secret = key && this.#secrets.open(key.sealedSecret);
    return key && secret !== undefined ? { ...shownKey(key), secret } : undefined;
  }
  /** Of one user or all, without their secrets. */
  accessKeys(user?: string): readonly AccessKey[] {
    return [...this.#directory.table('keys').values()]
      .filter((key) => key.user === (user ?? key.user))
      .map(shownKey)
      .sort((a, b) => (a.id < b.id ? -1 : 1));
  }
  /** Makes one, or takes one that was made elsewhere. The answer is the only one that tells the secret. USER_NOT_FOUND, INVALID_REQUEST. */
  async createAccessKey(
    user: string,
    given?: { readonly id: string; readonly secret: string },
  ): Promise<AccessKey & { readonly secret: string }> {
    this.required(user);
    const id = given?.id ?? `${KEY_PREFIX}${this.#letters(KEY_LETTERS)}`;
    const secret = given?.secret ?? Buffer.from(this.#random.fill(new Uint8Array(SECRET_BYTES))).toString('base64');
    if (!KEY_ID.test(id)) {
      throw new MillraceError('INVALID_REQUEST', 'the id of an access key has 4 to 128 letters, digits or underscores');
    }
    if (secret === '' || secret.length > SECRET_CHARACTERS_MAX) {
      throw new MillraceError('INVALID_REQUEST', `a secret has 1 to ${SECRET_CHARACTERS_MAX} characters`);
    }
    await this.#secrets.ready();
    // Looked at again: others went on meanwhile.
    this.required(user);
    if (this.#directory.table('keys').has(id)) {
      throw new MillraceError('INVALID_REQUEST', `there is an access key '${id}' already`);
    }
    const fact = { id, user, sealedSecret: this.#secrets.seal(secret), createdMs: this.#clock.now() };
    await this.#directory.change([{ table: 'keys', key: id, fact }]);
    return { ...shownKey(fact), secret };
  }

  /** As AWS writes ids: 32 of them, so that none is likelier than another. */
  #letters(count: number): string {
    return Array.from(this.#random.fill(new Uint8Array(count)), (byte) => LETTERS[byte % LETTERS.length]).join('');
  }

  /** False: there was none. */
  async deleteAccessKey(id: string): Promise<boolean> {
    if (!this.#directory.table('keys').has(id)) return false;
    await this.#directory.change([{ table: 'keys', key: id, fact: undefined }]);
    return true;
  }
}

function shown({ name, tags, limits }: StoredUser): User {
  return { name, tags, limits };
}

function shownKey({ id, user, createdMs }: StoredKey): AccessKey {
  return { id, user, createdMs };
}

function selected<Fact extends { readonly user: string; readonly vhost: string }>(
  facts: ReadonlyMap<string, Fact>,
  of: { user?: string; vhost?: string },
): readonly Fact[] {
  return [...facts]
    .filter(([, { user, vhost }]) => user === (of.user ?? user) && vhost === (of.vhost ?? vhost))
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .map(([, fact]) => fact);
}
