/**
 * Virtual hosts: names that keep exchanges, queues and permissions apart. What is in them is the door's
 * (`adapters/amqp/vhost.ts`), which watches the directory. The vhost '/' is the one whose queues other doors know by name.
 */
import { MillraceError } from '../protocol/errors.ts';
import type { Change, TableName, VhostFacts } from './directory-state.ts';
import type { Directory } from './directory.ts';

export const DEFAULT_VHOST = '/';
const NAME_BYTES_MAX = 255;
const LIMITS: readonly string[] = ['max-connections', 'max-queues'];
const QUEUE_TYPES: readonly string[] = ['', 'classic', 'quorum', 'stream'];
/** Facts that a vhost takes along. */
const OF_VHOST = ['permissions', 'topicPermissions', 'policies', 'operatorPolicies', 'parameters'] as const;

/** What may be said of a vhost beside its name. */
export interface VhostInit {
  readonly description?: string;
  readonly tags?: readonly string[];
  /** `classic`, `quorum` or `stream`. */
  readonly defaultQueueType?: string;
}

export function firstVhost(): Change {
  const fact = { name: DEFAULT_VHOST, description: 'Default virtual host', tags: [], defaultQueueType: '', limits: {} };
  return { table: 'vhosts', key: DEFAULT_VHOST, fact };
}

export class Vhosts {
  readonly #directory: Directory;

  constructor(directory: Directory) {
    this.#directory = directory;
  }

  get #facts(): ReadonlyMap<string, VhostFacts> {
    return this.#directory.table('vhosts');
  }

  get(name: string): VhostFacts | undefined {
    return this.#facts.get(name);
  }
  /** By name. */
  list(): readonly VhostFacts[] {
    return [...this.#facts.values()].sort((a, b) => (a.name < b.name ? -1 : 1));
  }
  /** VHOST_NOT_FOUND. */
  required(name: string): VhostFacts {
    const vhost = this.#facts.get(name);
    if (vhost === undefined) throw new MillraceError('VHOST_NOT_FOUND', `there is no vhost '${name}'`);
    return vhost;
  }

  /** Makes it, or changes what is said of it: what is not given stays. Answers whether it is new. INVALID_REQUEST. */
  async put(name: string, init: VhostInit = {}): Promise<boolean> {
    const known = this.#facts.get(name);
    if (known === undefined) checkName('vhost', name);
    const { description, tags, defaultQueueType } = { ...(known ?? EMPTY), ...init };
    if (!QUEUE_TYPES.includes(defaultQueueType)) {
      throw new MillraceError('INVALID_REQUEST', `unsupported queue type '${defaultQueueType}'`);
    }
    const fact = { name, description, tags, defaultQueueType, limits: known?.limits ?? {} };
    await this.#directory.change([{ table: 'vhosts', key: name, fact }]);
    return known === undefined;
  }

  /** Ends everything in it, too. False: it was not there. INVALID_REQUEST for '/': other doors are in it. */
  async delete(name: string): Promise<boolean> {
    if (!this.#facts.has(name)) return false;
    if (name === DEFAULT_VHOST) {
      throw new MillraceError('INVALID_REQUEST', `the vhost '${name}' cannot be deleted: other doors are in it`);
    }
    const changes: Change[] = OF_VHOST.flatMap((table) => this.#goneOf(table, name));
    await this.#directory.change([{ table: 'vhosts', key: name, fact: undefined }, ...changes]);
    return true;
  }

  #goneOf(table: (typeof OF_VHOST)[number] & TableName, vhost: string): Change[] {
    const gone: Change[] = [];
    for (const [key, fact] of this.#directory.table(table)) {
      if (fact.vhost === vhost) gone.push({ table, key, fact: undefined });
    }
    return gone;
  }

  /** `max-connections` or `max-queues`; undefined: no limit. */
  limit(name: string, limit: string): number | undefined {
    const value = this.#facts.get(name)?.limits[limit];
    return value === undefined || value < 0 ? undefined : value;
  }

  /** Sets or (undefined) clears one limit. VHOST_NOT_FOUND, INVALID_REQUEST. */
  async setLimit(name: string, limit: string, value: number | undefined): Promise<void> {
    const known = this.required(name);
    await this.#directory.change([
      { table: 'vhosts', key: name, fact: { ...known, limits: changedLimits(known.limits, LIMITS, limit, value) } },
    ]);
  }
}

const EMPTY = { description: '', tags: [] as readonly string[], defaultQueueType: '' };

/** Limits with one of them set or cleared. INVALID_REQUEST. */
export function changedLimits(
  limits: Readonly<Record<string, number>>,
  known: readonly string[],
  name: string,
  value: number | undefined,
): Readonly<Record<string, number>> {
  if (!known.includes(name)) {
    throw new MillraceError('INVALID_REQUEST', `there is no limit '${name}'; there are ${known.join(' and ')}`);
  }
  if (value !== undefined && !Number.isSafeInteger(value)) {
    throw new MillraceError('INVALID_REQUEST', `"${name}" should be an integer, actually was ${value}`);
  }
  const { [name]: _, ...others } = limits;
  return value === undefined ? others : { ...others, [name]: value };
}

/** INVALID_REQUEST for names that keys cannot hold or AMQP cannot say. */
export function checkName(what: string, name: string): void {
  if (name === '') throw new MillraceError('INVALID_REQUEST', `the name of a ${what} cannot be empty`);
  if (name.includes('\0')) throw new MillraceError('INVALID_REQUEST', `the name of a ${what} cannot hold a zero byte`);
  if (Buffer.byteLength(name) > NAME_BYTES_MAX) {
    throw new MillraceError('INVALID_REQUEST', `the name of a ${what} cannot be longer than ${NAME_BYTES_MAX} bytes`);
  }
}
