/**
 * Who is who and what is asked of whom, as facts in tables: users, permissions, access keys, vhosts, policies, parameters.
 * Pure: no log, no clock, no dice; `directory.ts` runs it on a log. What follows from a change (a user who goes takes the
 * permissions along) is decided by who makes it and is in the same commit, so applying needs no rules and facts may come twice.
 *
 * A change is one record without key; its value is msgpack of `[version, table, key, fact]`, without a fact for one that
 * went. A table of a later version ends the start of this one: skipping it could let somebody in.
 */
import { pack, unpack } from 'msgpackr';
import { MillraceError } from '../protocol/errors.ts';
import type { DecodedRecord, RecordInit } from '../protocol/record-batch.ts';
import type { StateMachine } from './state-log.ts';

/** How RabbitMQ names the ways in which a password is kept: base64 of four bytes of salt and the digest of salt and password. */
export type HashingAlgorithm =
  | 'rabbit_password_hashing_sha256'
  | 'rabbit_password_hashing_sha512'
  | 'rabbit_password_hashing_md5';

/** Text, number, truth value, list or object, as JSON has them. */
export type Json = null | boolean | number | string | readonly Json[] | { readonly [name: string]: Json };
export type JsonObject = { readonly [name: string]: Json };

export interface StoredUser {
  readonly name: string;
  /** `administrator`, `monitoring`, `policymaker`, `management`, or anything else. */
  readonly tags: readonly string[];
  /** Empty: nobody gets in with a password. */
  readonly passwordHash: string;
  readonly hashingAlgorithm: HashingAlgorithm;
  /** `max-connections`, `max-channels`. */
  readonly limits: Readonly<Record<string, number>>;
}

/** What a user may do in a vhost: patterns over names of queues and exchanges (`name-pattern.ts`). */
export interface Permission {
  readonly user: string;
  readonly vhost: string;
  readonly configure: string;
  readonly write: string;
  readonly read: string;
}

/** Patterns over the routing keys of one topic exchange. */
export interface TopicPermission {
  readonly user: string;
  readonly vhost: string;
  readonly exchange: string;
  readonly write: string;
  readonly read: string;
}

/** An access key as SQS has them. */
export interface StoredKey {
  readonly id: string;
  readonly user: string;
  /** Can only be read with the key file of the broker (`sealed-secrets.ts`). */
  readonly sealedSecret: Uint8Array;
  readonly createdMs: number;
}

export interface VhostFacts {
  readonly name: string;
  readonly description: string;
  readonly tags: readonly string[];
  /** `classic`, `quorum` or `stream`; empty: classic. */
  readonly defaultQueueType: string;
  /** `max-connections`, `max-queues`. */
  readonly limits: Readonly<Record<string, number>>;
}

export type PolicyTarget = 'all' | 'queues' | 'classic_queues' | 'quorum_queues' | 'streams' | 'exchanges';

export interface Policy {
  readonly vhost: string;
  readonly name: string;
  /** Over names of queues and exchanges. */
  readonly pattern: string;
  readonly applyTo: PolicyTarget;
  /** Of those that match, the one with the highest applies. */
  readonly priority: number;
  readonly definition: JsonObject;
}

/** What a plugin of RabbitMQ would act on; kept as it is. */
export interface Parameter {
  readonly component: string;
  readonly vhost: string;
  readonly name: string;
  readonly value: Json;
}

export interface GlobalParameter {
  readonly name: string;
  readonly value: Json;
}

/** Table → its facts. */
export interface Tables {
  readonly users: StoredUser;
  readonly permissions: Permission;
  readonly topicPermissions: TopicPermission;
  readonly keys: StoredKey;
  readonly vhosts: VhostFacts;
  readonly policies: Policy;
  readonly operatorPolicies: Policy;
  readonly parameters: Parameter;
  readonly globalParameters: GlobalParameter;
}
export type TableName = keyof Tables;

/** Parts of a key cannot hold it: names that come from clients are refused if they do. */
const SEPARATOR = '\0';
export const keyOf = (...parts: readonly string[]): string => parts.join(SEPARATOR);

/** A fact that is there from now on, or is gone. */
export type Change = {
  [Name in TableName]: { readonly table: Name; readonly key: string; readonly fact: Tables[Name] | undefined };
}[TableName];

const VERSION = 1;

export class DirectoryState implements StateMachine<Change> {
  readonly #tables: { readonly [Name in TableName]: Map<string, Tables[Name]> } = {
    users: new Map(),
    permissions: new Map(),
    topicPermissions: new Map(),
    keys: new Map(),
    vhosts: new Map(),
    policies: new Map(),
    operatorPolicies: new Map(),
    parameters: new Map(),
    globalParameters: new Map(),
  };

  /** Facts by key. */
  table<Name extends TableName>(name: Name): ReadonlyMap<string, Tables[Name]> {
    return this.#tables[name];
  }
  /** Facts of all tables. */
  get size(): number {
    return Object.values(this.#tables).reduce((sum, table) => sum + table.size, 0);
  }

  apply({ table: name, key, fact }: Change): void {
    // `Change` pairs each table with its own facts; the compiler does not see it through the union.
    const table = this.#tables[name] as Map<string, Tables[TableName]>;
    if (fact === undefined) table.delete(key);
    else table.set(key, fact);
  }

  *live(): Iterable<Change> {
    for (const [name, table] of Object.entries(this.#tables)) {
      // Names and facts of one and the same table.
      for (const [key, fact] of table) yield { table: name, key, fact } as Change;
    }
  }

  encode({ table, key, fact }: Change, nowMs: number): RecordInit {
    const value = pack(fact === undefined ? [VERSION, table, key] : [VERSION, table, key, fact]);
    return { key: null, value, timestamp: nowMs };
  }

  decode(record: DecodedRecord): Change {
    const decoded: unknown = record.value === null ? undefined : unpack(record.value);
    if (Array.isArray(decoded) && decoded[0] === VERSION && Object.hasOwn(this.#tables, String(decoded[1]))) {
      // The shapes are ours: the record's checksum and version vouch for them.
      const [, table, key, fact] = decoded as [number, TableName, string, Tables[TableName] | undefined];
      return { table, key, fact } as Change;
    }
    throw new MillraceError(
      'DATA_DIR_FORMAT',
      `the log of users and policies has an event at offset ${record.offset} that this version does not know`,
    );
  }
}
