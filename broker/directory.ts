/**
 * Users, vhosts, policies and parameters of the broker, of all doors: facts on a log of their own
 * (`__millrace_directory`, shown to nobody), and who is told when one changes.
 *
 * Always true: a change is in memory at once and durable when its promise resolves; listeners are told in the turn of the
 * change. The first start makes vhost '/' and user guest, who is an administrator there and comes in from loopback only.
 */
import { MillraceError } from '../protocol/errors.ts';
import type { Clock, Random } from '../storage/clock.ts';
import type { Disk } from '../storage/disk.ts';
import type { Options } from './config.ts';
import { type Change, DirectoryState, type TableName, type Tables } from './directory-state.ts';
import type { Engine } from './engine.ts';
import { Parameters } from './parameters.ts';
import { Policies } from './policies.ts';
import { SealedSecrets } from './sealed-secrets.ts';
import { StateLog } from './state-log.ts';
import { stateLogConfig } from './topics.ts';
import { firstUser, Users } from './users.ts';
import { DEFAULT_VHOST, firstVhost, Vhosts } from './vhosts.ts';

const TOPIC = '__millrace_directory';
const TOPIC_ID = '00000000-0000-0000-0000-000000000005';

export interface DirectoryParts {
  readonly engine: Engine;
  readonly clock: Clock;
  readonly random: Random;
  readonly options: Options;
  /** Where the key lies that seals secrets. Default: nowhere, and it is another one with each start. */
  readonly files?: { readonly disk: Disk; readonly dataDir: string } | undefined;
}

export class Directory {
  readonly #parts: DirectoryParts;
  readonly #state = new DirectoryState();
  readonly #log: StateLog<Change>;
  readonly #listeners: ((changes: readonly Change[]) => void)[] = [];
  #version = 0;
  readonly users: Users;
  readonly vhosts: Vhosts;
  readonly policies: Policies;
  readonly parameters: Parameters;

  constructor(parts: DirectoryParts) {
    this.#parts = parts;
    const { engine, clock, options } = parts;
    const partition = engine.openPartition({ topicId: TOPIC_ID, topic: TOPIC, index: 0, config: stateLogConfig });
    // The rest is for the framing of the commit.
    const commitBytesMax = Math.floor(options['journal.entry.bytes'] / 2);
    this.#log = new StateLog(engine, partition, this.#state, clock, commitBytesMax);
    this.vhosts = new Vhosts(this);
    this.users = new Users(this, { ...parts, secrets: new SealedSecrets(parts.files, parts.random) });
    this.policies = new Policies(this);
    this.parameters = new Parameters(this);
  }

  /** Once, before anybody is let in. */
  async load(): Promise<void> {
    await this.#log.load();
    await this.users.load();
    if (this.#state.size > 0) return;
    this.#log.commit([firstVhost(), ...firstUser(this.#parts.random, DEFAULT_VHOST)]);
  }

  /** Rises with each change. */
  get version(): number {
    return this.#version;
  }

  /** Facts by key. */
  table<Name extends TableName>(name: Name): ReadonlyMap<string, Tables[Name]> {
    return this.#state.table(name);
  }

  /** All of it or nothing; resolves when it is durable. POLICY_VIOLATION when there are as many facts as there may be. */
  async change(changes: readonly Change[]): Promise<void> {
    const max = this.#parts.options['directory.facts.max'];
    const more = changes.filter(({ table, key, fact }) => fact !== undefined && !this.table(table).has(key)).length;
    if (more > 0 && this.#state.size + more > max) {
      throw new MillraceError('POLICY_VIOLATION', `directory.facts.max allows ${max} users, permissions, policies …`);
    }
    if (changes.length > 0) {
      this.#log.commit(changes);
      this.#version++;
      for (const listener of this.#listeners) listener(changes);
    }
    return this.durable();
  }

  /** Resolves when everything that can be read here is durable. */
  durable(): Promise<void> {
    return new Promise((resolve) => this.#log.whenDurable(resolve));
  }

  /** Called after each change, in the turn of it. */
  watch(listener: (changes: readonly Change[]) => void): void {
    this.#listeners.push(listener);
  }
}
