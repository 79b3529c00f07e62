/**
 * What a policy may say: which keys there are, what each takes, to which types of queues it applies, and what becomes of
 * two policies that say different things. Keys, rules and words are RabbitMQ's (4.0).
 */
import { MillraceError } from '../protocol/errors.ts';
import type { Json, JsonObject } from './directory-state.ts';

export type QueueType = 'classic' | 'quorum' | 'stream';

interface PolicyKey {
  /** In words: `VALUE is not a valid WHAT`. */
  readonly what: string;
  readonly isValid: (value: Json) => boolean;
  /** A policy with this key does not apply to queues of these types at all. */
  readonly notOf?: readonly QueueType[];
  /** Operators may say it, too: what is in force when both do. */
  readonly merged?: (user: Json, operator: Json) => Json;
}

const isText = (value: Json): boolean => typeof value === 'string';
const isWhole = (value: Json): value is number => typeof value === 'number' && Number.isInteger(value);
const isCount = (value: Json): boolean => isWhole(value) && value >= 0;
const isOneOf =
  (...values: readonly Json[]) =>
  (value: Json): boolean =>
    values.includes(value);
const AGE = /^\d{1,15}[YMDhms]$/;

// Both are numbers: they were valid.
const smaller = (user: Json, operator: Json): Json => Math.min(Number(user), Number(operator));
const larger = (user: Json, operator: Json): Json => Math.max(Number(user), Number(operator));
/** A negative one is none. */
const stricter = (user: Json, operator: Json): Json =>
  Number(user) < 0 || Number(operator) < 0 ? larger(user, operator) : smaller(user, operator);
const operators = (_user: Json, operator: Json): Json => operator;

const KEYS: Readonly<Record<string, PolicyKey>> = {
  'message-ttl': { what: 'message TTL', isValid: isCount, notOf: ['stream'], merged: smaller },
  expires: {
    what: 'queue expiry',
    isValid: (value) => isWhole(value) && value > 0,
    notOf: ['stream'],
    merged: smaller,
  },
  'max-length': { what: 'maximum length', isValid: isCount, notOf: ['stream'], merged: smaller },
  'max-length-bytes': { what: 'maximum length in bytes', isValid: isCount, merged: smaller },
  overflow: {
    what: 'overflow value',
    isValid: isOneOf('drop-head', 'reject-publish', 'reject-publish-dlx'),
    notOf: ['stream'],
    merged: operators,
  },
  'delivery-limit': {
    what: 'delivery limit',
    isValid: isWhole,
    notOf: ['classic', 'stream'],
    merged: stricter,
  },
  'dead-letter-exchange': { what: 'dead letter exchange name', isValid: isText, notOf: ['stream'] },
  'dead-letter-routing-key': { what: 'dead letter routing key', isValid: isText, notOf: ['stream'] },
  'dead-letter-strategy': {
    what: 'dead letter strategy',
    isValid: isOneOf('at-most-once', 'at-least-once'),
    notOf: ['classic', 'stream'],
  },
  'alternate-exchange': { what: 'alternate exchange name', isValid: isText },
  'max-age': {
    what: 'max age',
    isValid: (value) => typeof value === 'string' && AGE.test(value),
    notOf: ['classic', 'quorum'],
  },
  'stream-max-segment-size-bytes': { what: 'segment size', isValid: isCount, notOf: ['classic', 'quorum'] },
  'stream-filter-size-bytes': {
    what: 'filter size. Valid range is 16-255',
    isValid: (value) => isWhole(value) && value >= 16 && value <= 255,
  },
  'initial-cluster-size': {
    what: 'cluster size',
    isValid: (value) => isWhole(value) && value > 0,
    notOf: ['classic', 'quorum'],
  },
  'target-group-size': {
    what: 'target group size',
    isValid: (value) => isWhole(value) && value > 0,
    notOf: ['classic', 'stream'],
    merged: larger,
  },
  'max-in-memory-length': {
    what: 'maximum memory in bytes',
    isValid: isCount,
    notOf: ['classic', 'stream'],
    merged: smaller,
  },
  'max-in-memory-bytes': {
    what: 'maximum memory in bytes',
    isValid: isCount,
    notOf: ['classic', 'stream'],
    merged: smaller,
  },
  'consumer-timeout': { what: 'consumer timeout', isValid: isCount },
  'queue-mode': {
    what: 'queue-mode value',
    isValid: isOneOf('default', 'lazy'),
    notOf: ['quorum', 'stream'],
  },
  'queue-version': { what: 'queue-version value', isValid: isOneOf(1, 2), merged: operators },
  'queue-master-locator': { what: 'queue leader locator value', isValid: isText },
  'queue-leader-locator': {
    what: 'queue leader locator value',
    isValid: isOneOf('client-local', 'balanced', 'random', 'least-leaders'),
  },
  // Of the federation plugin, and of RabbitMQ 3's mirrored queues: definitions come with them, and nothing acts on them.
  'federation-upstream': { what: 'upstream name', isValid: isText },
  'federation-upstream-set': { what: 'upstream set name', isValid: isText },
  'federation-upstream-pattern': { what: 'upstream pattern', isValid: isText },
  'ha-mode': { what: 'ha-mode', isValid: isOneOf('all', 'exactly', 'nodes') },
  'ha-params': { what: 'ha-params', isValid: () => true },
  'ha-sync-mode': { what: 'ha-sync-mode', isValid: isOneOf('manual', 'automatic') },
  'ha-sync-batch-size': { what: 'ha-sync-batch-size', isValid: isCount },
  'ha-promote-on-shutdown': { what: 'ha-promote-on-shutdown', isValid: isOneOf('always', 'when-synced') },
  'ha-promote-on-failure': { what: 'ha-promote-on-failure', isValid: isOneOf('always', 'when-synced') },
};

/** INVALID_REQUEST in RabbitMQ's words, which its HTTP API puts after `Validation failed`. */
export function checkDefinition(definition: JsonObject, isOperators: boolean): void {
  const entries = Object.entries(definition);
  if (entries.length === 0) throw new MillraceError('INVALID_REQUEST', 'no policy provided');
  const unknown = entries.filter(([name]) => !Object.hasOwn(KEYS, name) || (isOperators && !KEYS[name].merged));
  if (unknown.length > 0) {
    const shown = unknown.map(([name, value]) => `{${erlangText(name)},${erlangText(value)}}`).join(',');
    throw new MillraceError('INVALID_REQUEST', `[${shown}] are not recognised policy settings`);
  }
  for (const [name, value] of entries) {
    const { what, isValid } = KEYS[name];
    if (!isValid(value)) throw new MillraceError('INVALID_REQUEST', `${erlangText(value)} is not a valid ${what}`);
  }
}

/** Whether a policy that says this applies to queues of the type. */
export function appliesTo(definition: JsonObject, type: QueueType): boolean {
  return Object.keys(definition).every((name) => KEYS[name]?.notOf?.includes(type) !== true);
}

/** What is in force when both are. */
export function mergedDefinitions(user: JsonObject = {}, operator: JsonObject = {}): JsonObject {
  const merged: Record<string, Json> = { ...user };
  for (const [name, value] of Object.entries(operator)) {
    merged[name] = Object.hasOwn(user, name) ? (KEYS[name].merged ?? operators)(user[name], value) : value;
  }
  return merged;
}

/** A value as Erlang prints it in RabbitMQ's errors. */
export function erlangText(value: Json): string {
  if (typeof value === 'string') return `<<"${value}">>`;
  if (Array.isArray(value)) return `[${value.map((each: Json) => erlangText(each)).join(',')}]`;
  if (typeof value === 'object' && value !== null) {
    const entries = Object.entries(value).map(([name, each]) => `${erlangText(name)} => ${erlangText(each as Json)}`);
    return `#{${entries.join(',')}}`;
  }
  return String(value);
}
