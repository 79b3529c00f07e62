/**
 * Policies: settings for the queues and exchanges of a vhost whose names match, given by whoever runs them rather than
 * by who declares. Of the policies that match the one with the highest priority applies, and of the operator's policies
 * one beside it. Doors ask what is in force, and watch the directory for changes.
 */
import { MillraceError } from '../protocol/errors.ts';
import { type Change, type JsonObject, keyOf, type Policy, type PolicyTarget } from './directory-state.ts';
import type { Directory } from './directory.ts';
import { checkNamePattern, compileNamePattern, type NamePattern } from './name-pattern.ts';
import { appliesTo, checkDefinition, erlangText, mergedDefinitions, type QueueType } from './policy-definitions.ts';
import { checkName } from './vhosts.ts';

export type { Policy, PolicyTarget } from './directory-state.ts';

/** `operator`: limits that no policy of a user gets past. */
export type PolicyKind = 'user' | 'operator';

/** What a policy may apply to. */
export type PolicySubject = { readonly vhost: string; readonly name: string } & (
  | { readonly kind: 'exchange' }
  | { readonly kind: 'queue'; readonly type: QueueType }
);

/** The policies in force for one queue or exchange. */
export interface EffectivePolicy {
  readonly policy: Policy | undefined;
  readonly operatorPolicy: Policy | undefined;
  /** Both together: where they say different things the stricter limit, else the operator's word. */
  readonly definition: JsonObject;
}

const TARGETS: readonly PolicyTarget[] = ['queues', 'classic_queues', 'quorum_queues', 'streams', 'exchanges', 'all'];
const TABLES = { user: 'policies', operator: 'operatorPolicies' } as const;
const TYPE_TARGETS: Readonly<Record<QueueType, PolicyTarget>> = {
  classic: 'classic_queues',
  quorum: 'quorum_queues',
  stream: 'streams',
};
const NONE: EffectivePolicy = { policy: undefined, operatorPolicy: undefined, definition: {} };

interface CompiledPolicy {
  readonly policy: Policy;
  readonly pattern: NamePattern;
}

export class Policies {
  readonly #directory: Directory;
  /** Kind and vhost → policies in the order in which they are tried. Forgotten when one changes. */
  readonly #ordered = new Map<string, readonly CompiledPolicy[]>();

  constructor(directory: Directory) {
    this.#directory = directory;
    directory.watch((changes) => {
      if (changes.some(({ table }) => table === 'policies' || table === 'operatorPolicies')) this.#ordered.clear();
    });
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
  /**
   * Makes or replaces one. Answers whether it is new. VHOST_NOT_FOUND; INVALID_REQUEST in RabbitMQ's words, which its HTTP
   * API puts after `Validation failed`.
   */
  async put(kind: PolicyKind, policy: Policy): Promise<boolean> {
    const { vhost, name, pattern, applyTo, priority, definition } = policy;
    this.#directory.vhosts.required(vhost);
    checkName('policy', name);
    checkNamePattern(pattern);
    if (typeof priority !== 'number' || !Number.isFinite(priority)) {
      throw new MillraceError('INVALID_REQUEST', `priority should be a number, actually was ${erlangText(priority)}`);
    }
    if (!TARGETS.includes(applyTo)) {
      throw new MillraceError(
        'INVALID_REQUEST',
        `apply-to '${applyTo}' unrecognised; should be one of: 'queues', 'classic_queues',  'quorum_queues', 'streams', 'exchanges', or 'all'`,
      );
    }
    checkDefinition(definition, kind === 'operator');
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
    const policy = this.#match('user', subject);
    const operatorPolicy = this.#match('operator', subject);
    if (policy === undefined && operatorPolicy === undefined) return NONE;
    const definition = mergedDefinitions(policy?.definition, operatorPolicy?.definition);
    return { policy, operatorPolicy, definition };
  }

  #match(kind: PolicyKind, subject: PolicySubject): Policy | undefined {
    const found = this.#inOrder(kind, subject.vhost).find(
      ({ policy, pattern }) => isFor(policy, subject) && pattern.matches(subject.name),
    );
    return found?.policy;
  }

  #inOrder(kind: PolicyKind, vhost: string): readonly CompiledPolicy[] {
    const key = keyOf(kind, vhost);
    let ordered = this.#ordered.get(key);
    if (ordered === undefined) {
      // Of equal priority the last by name, as RabbitMQ has it.
      ordered = this.list(kind, vhost)
        .map((policy) => ({ policy, pattern: compileNamePattern(policy.pattern) }))
        .reverse()
        .sort((a, b) => b.policy.priority - a.policy.priority);
      this.#ordered.set(key, ordered);
    }
    return ordered;
  }
}

function isFor({ applyTo, definition }: Policy, subject: PolicySubject): boolean {
  if (subject.kind === 'exchange') return applyTo === 'all' || applyTo === 'exchanges';
  if (applyTo !== 'all' && applyTo !== 'queues' && applyTo !== TYPE_TARGETS[subject.type]) return false;
  return appliesTo(definition, subject.type);
}
