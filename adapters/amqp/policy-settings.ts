/**
 * What is in force for a queue: its arguments and what policies say, as settings of queues (docs/queues.md). RabbitMQ's
 * rule: of limits and times the smaller one, in everything else the argument of who declared.
 */
import type { JsonObject } from '../../broker/directory-state.ts';
import type { Queue } from '../../broker/queues.ts';
import { type Table, textField } from '../../protocol/amqp/table.ts';
import { DEFAULT_EXCHANGE } from './exchanges.ts';
import { type DeclaredQueue, OVERFLOWS, settingsOf } from './queue-arguments.ts';
import { streamTopicConfigs } from './stream-arguments.ts';

/** Key of a policy → setting, for limits. */
const LIMITS = [
  ['message-ttl', 'ttl.ms'],
  ['expires', 'expires.ms'],
  ['max-length', 'max.messages'],
  ['max-length-bytes', 'max.bytes'],
  ['consumer-timeout', 'consumer.timeout.ms'],
] as const;
/** Everything that a policy may set. */
const NAMES = [
  ...LIMITS.map(([, setting]) => setting),
  'failed.limit',
  'overflow',
  'dead.letter.exchange',
  'dead.letter.routing.key',
];

/** Settings by name, in canonical text. Throws as `settingsOf`. */
export function settingsInForce(declared: DeclaredQueue, definition: JsonObject): Map<string, string> {
  const settings = settingsOf(declared);
  for (const [key, setting] of LIMITS) {
    const value = definition[key];
    if (typeof value !== 'number') continue;
    const argument = settings.get(setting);
    settings.set(setting, String(argument === undefined ? value : Math.min(value, Number(argument))));
  }
  const limit = definition['delivery-limit'];
  if (typeof limit === 'number') {
    // Who says nothing has RabbitMQ's 20, which a policy may raise.
    const hasArgument = declared.arguments.some(([name]) => name === 'x-delivery-limit');
    const argument = hasArgument ? Number(settings.get('failed.limit')) : limit;
    const inForce = limit < 0 || argument < 0 ? Math.max(limit, argument) : Math.min(limit, argument);
    settings.set('failed.limit', String(Math.max(-1, inForce)));
  }
  const text = (key: string, setting: string, of: (value: string) => string | undefined): void => {
    const value = definition[key];
    const known = typeof value === 'string' ? of(value) : undefined;
    if (known !== undefined && !settings.has(setting)) settings.set(setting, known);
  };
  text('overflow', 'overflow', (value) => OVERFLOWS.get(value));
  text('dead-letter-exchange', 'dead.letter.exchange', (value) => value || DEFAULT_EXCHANGE);
  // Without an exchange there is nothing that it could be the key of.
  if (settings.has('dead.letter.exchange')) {
    text('dead-letter-routing-key', 'dead.letter.routing.key', (value) => value);
  }
  return settings;
}

/** What is to change so that a queue has these settings. What another door has set stays: it is not AMQP's. */
export function policyChanges(
  { settings: current, origins }: Queue,
  inForce: ReadonlyMap<string, string>,
): Map<string, string | undefined> {
  const changes = new Map<string, string | undefined>();
  const values: Readonly<Record<string, unknown>> = current;
  for (const name of NAMES) {
    const origin = origins.get(name);
    if (origin !== undefined && origin !== 'amqp') continue;
    const value = inForce.get(name);
    const isSame = value === undefined ? origin === undefined : origin !== undefined && String(values[name]) === value;
    if (!isSame) changes.set(name, value);
  }
  return changes;
}

/** Configs of a stream's topic. */
export function streamConfigsInForce(declared: Table, definition: JsonObject): Map<string, string> {
  const table = [...declared];
  const has = (name: string): boolean => table.some(([each]) => each === name);
  const age = definition['max-age'];
  if (typeof age === 'string' && !has('x-max-age')) table.push(['x-max-age', textField(age)]);
  const bytes = definition['max-length-bytes'];
  const segment = definition['stream-max-segment-size-bytes'];
  const configs = streamTopicConfigs(
    typeof segment === 'number' && !has('x-stream-max-segment-size-bytes')
      ? [...table, ['x-stream-max-segment-size-bytes', { type: 'l', value: BigInt(segment) }]]
      : table,
  );
  const retained = Number(configs.get('retention.bytes'));
  if (typeof bytes === 'number') {
    configs.set('retention.bytes', String(retained < 0 ? bytes : Math.min(bytes, retained)));
  }
  return configs;
}
