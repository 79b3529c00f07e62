/**
 * Arguments of `queue.declare` as RabbitMQ has them: checked, compared on redeclare, and turned into settings of queues
 * (docs/queues.md). What RabbitMQ refuses is refused with 406 in its words; what it does not know, it takes and ignores.
 */
import { type FieldValue, fieldOf, type Table } from '../../protocol/amqp/table.ts';
import { erlangType, isInteger } from './argument-fields.ts';
import type { Queue } from '../../broker/queues.ts';
import { DEFAULT_EXCHANGE } from './exchanges.ts';
import { AmqpError } from './reply.ts';
import { ageMs } from './stream-arguments.ts';

/** Compared on redeclare; arguments that RabbitMQ does not know are not. */
const COMPARED = [
  'x-message-ttl',
  'x-expires',
  'x-max-length',
  'x-max-length-bytes',
  'x-overflow',
  'x-dead-letter-exchange',
  'x-dead-letter-routing-key',
  'x-max-priority',
  'x-single-active-consumer',
  'x-delivery-limit',
];
const COMPARED_OF_STREAMS = [
  'x-max-length-bytes',
  'x-max-age',
  'x-stream-max-segment-size-bytes',
  'x-stream-filter-size-bytes',
  'x-initial-cluster-size',
  'x-queue-leader-locator',
];
/** Those of `COMPARED` and others that streams do not have. */
const NOT_OF_STREAMS = [
  'x-expires',
  'x-message-ttl',
  'x-dead-letter-exchange',
  'x-dead-letter-routing-key',
  'x-dead-letter-strategy',
  'x-max-length',
  'x-max-in-memory-length',
  'x-max-in-memory-bytes',
  'x-max-priority',
  'x-overflow',
  'x-queue-mode',
  'x-queue-version',
  'x-single-active-consumer',
  'x-delivery-limit',
  'x-quorum-initial-group-size',
];
/** RabbitMQ takes the others of streams for any queue. */
const OF_STREAMS_ONLY = ['x-max-age', 'x-stream-max-segment-size-bytes'];
/** RabbitMQ's range of a segment's size, and of its filters. */
const STREAM_SEGMENT_BYTES_MAX = 3_000_000_000;
const FILTER_BYTES_MIN = 16;
const FILTER_BYTES_MAX = 255;
const LEADER_LOCATORS = new Set(['client-local', 'balanced', 'least-leaders', 'random', 'min-masters']);
const DEAD_LETTER_STRATEGIES: ReadonlySet<string> = new Set(['at-most-once', 'at-least-once']);
/** RabbitMQ's word → the setting. */
export const OVERFLOWS: ReadonlyMap<string, string> = new Map([
  ['drop-head', 'drop-oldest'],
  ['reject-publish', 'refuse'],
  ['reject-publish-dlx', 'refuse-dead-letter'],
]);
/** RabbitMQ 4.0 gives quorum queues a limit of their own. */
const QUORUM_DELIVERY_LIMIT = 20;

/** A queue or an exchange. */
interface Named {
  readonly vhost: string;
  readonly name: string;
}

export interface DeclaredQueue {
  readonly vhost: string;
  readonly name: string;
  readonly isDurable: boolean;
  readonly isExclusive: boolean;
  readonly isAutoDelete: boolean;
  readonly arguments: Table;
}

export function queueType(table: Table): string {
  const field = fieldOf(table, 'x-queue-type');
  return field?.type === 'S' ? field.value.toString() : 'classic';
}

function invalid({ vhost, name }: Named, argument: string, why: string): AmqpError {
  return new AmqpError(
    'PRECONDITION_FAILED',
    `invalid arg '${argument}' for queue '${name}' in vhost '${vhost}': ${why}`,
  );
}
function notOfType({ vhost, name }: Named, argument: string, type: string): AmqpError {
  return new AmqpError(
    'PRECONDITION_FAILED',
    `invalid arg '${argument}' for queue '${name}' in vhost '${vhost}' of queue type rabbit_${type}_queue`,
  );
}

/** An argument that is a whole number; undefined: it is not there. 406. */
function whole(queue: DeclaredQueue, argument: string, min: number, max = Number.MAX_SAFE_INTEGER): number | undefined {
  const field = fieldOf(queue.arguments, argument);
  if (field === undefined) return undefined;
  if (!isInteger(field)) throw invalid(queue, argument, `"expected integer, got ${erlangType(field)}"`);
  const value = Number(field.value);
  if (value < 0) throw invalid(queue, argument, `{value_negative,${value}}`);
  if (value < min) throw invalid(queue, argument, `{value_zero,${value}}`);
  if (value > max) throw invalid(queue, argument, `{max_value_exceeded,${value}}`);
  return value;
}

/** Queues of quorum type and streams are neither transient, nor exclusive, nor deleted by themselves. 406. */
function checkLasting({ vhost, name, isDurable, isExclusive, isAutoDelete }: DeclaredQueue): void {
  const refuse = (property: string): AmqpError =>
    new AmqpError('PRECONDITION_FAILED', `invalid property '${property}' for queue '${name}' in vhost '${vhost}'`);
  if (isAutoDelete) throw refuse('auto-delete');
  if (isExclusive) throw refuse('exclusive-owner');
  if (!isDurable) throw refuse('non-durable');
}

/** Arguments that say something of streams only. 406. */
function checkStream(queue: DeclaredQueue): void {
  whole(queue, 'x-max-length-bytes', 0);
  const segmentBytes = whole(queue, 'x-stream-max-segment-size-bytes', 0);
  const filterBytes = whole(queue, 'x-stream-filter-size-bytes', 0);
  whole(queue, 'x-initial-cluster-size', 1);
  const locator = fieldOf(queue.arguments, 'x-queue-leader-locator');
  if (locator !== undefined && (locator.type !== 'S' || !LEADER_LOCATORS.has(locator.value.toString()))) {
    throw invalid(queue, 'x-queue-leader-locator', 'invalid_queue_locator_arg');
  }
  for (const argument of NOT_OF_STREAMS) {
    if (fieldOf(queue.arguments, argument) !== undefined) throw notOfType(queue, argument, 'stream');
  }
  if (segmentBytes !== undefined && segmentBytes > STREAM_SEGMENT_BYTES_MAX) {
    throw new AmqpError('PRECONDITION_FAILED', 'Exceeded max value for x-stream-max-segment-size-bytes');
  }
  if (filterBytes !== undefined && (filterBytes < FILTER_BYTES_MIN || filterBytes > FILTER_BYTES_MAX)) {
    // The two spaces are RabbitMQ's.
    throw new AmqpError('PRECONDITION_FAILED', 'Invalid value for  x-stream-filter-size-bytes');
  }
  checkLasting(queue);
}

/** Settings by name, in canonical text; of a stream there are none. 406 for values that RabbitMQ refuses. */
export function settingsOf(queue: DeclaredQueue): Map<string, string> {
  const { vhost, name, isDurable, isExclusive, arguments: table } = queue;
  const settings = new Map<string, string>();
  const number = (argument: string, setting: string, min: number, max?: number): void => {
    const value = whole(queue, argument, min, max);
    if (value !== undefined) settings.set(setting, String(value));
  };
  const type = queueType(table);
  const typeField = fieldOf(table, 'x-queue-type');
  if (typeField !== undefined && (typeField.type !== 'S' || !['classic', 'quorum', 'stream'].includes(type))) {
    throw invalid(queue, 'x-queue-type', `"unsupported queue type '${type}'"`);
  }
  const age = fieldOf(table, 'x-max-age');
  if (age !== undefined && age.type !== 'S')
    throw invalid(queue, 'x-max-age', `{unacceptable_type,${erlangType(age)}}`);
  if (age !== undefined && ageMs(age.value.toString()) === undefined)
    throw invalid(queue, 'x-max-age', 'invalid_max_age');
  if (type === 'stream') {
    checkStream(queue);
    return settings;
  }
  for (const argument of OF_STREAMS_ONLY) {
    if (fieldOf(table, argument) !== undefined) throw notOfType(queue, argument, type);
  }
  if (type === 'quorum') checkLasting(queue);
  const target = fieldOf(table, 'x-dead-letter-exchange');
  if (target !== undefined && target.type !== 'S') {
    const why = `invalid type '${erlangType(target)}' for arg 'x-dead-letter-exchange' in queue '${name}' in vhost '${vhost}'`;
    throw new AmqpError('PRECONDITION_FAILED', why);
  }
  if (target === undefined && fieldOf(table, 'x-dead-letter-routing-key') !== undefined) {
    throw invalid(queue, 'x-dead-letter-routing-key', 'routing_key_but_no_dlx_defined');
  }
  const mode = fieldOf(table, 'x-queue-mode');
  if (mode !== undefined && (mode.type !== 'S' || !['default', 'lazy'].includes(mode.value.toString()))) {
    throw invalid(
      queue,
      'x-queue-mode',
      `"unsupported queue mode '${mode.type === 'S' ? mode.value.toString() : ''}'"`,
    );
  }
  if (target !== undefined) settings.set('dead.letter.exchange', target.value.toString() || DEFAULT_EXCHANGE);
  const key = fieldOf(table, 'x-dead-letter-routing-key');
  if (key?.type === 'S') settings.set('dead.letter.routing.key', key.value.toString());
  else if (key !== undefined)
    throw invalid(queue, 'x-dead-letter-routing-key', `{unacceptable_type,${erlangType(key)}}`);
  number('x-message-ttl', 'ttl.ms', 0);
  number('x-expires', 'expires.ms', 1);
  number('x-consumer-timeout', 'consumer.timeout.ms', 0);
  number('x-max-length', 'max.messages', 0);
  number('x-max-length-bytes', 'max.bytes', 0);
  if (type === 'quorum' && fieldOf(table, 'x-max-priority') !== undefined) {
    throw notOfType(queue, 'x-max-priority', 'quorum');
  }
  number('x-max-priority', 'priority.max', 0, 255);
  if (type === 'classic' && fieldOf(table, 'x-delivery-limit') !== undefined) {
    throw notOfType(queue, 'x-delivery-limit', 'classic');
  }
  number('x-delivery-limit', 'failed.limit', 0);
  if (type === 'quorum' && !settings.has('failed.limit')) settings.set('failed.limit', String(QUORUM_DELIVERY_LIMIT));
  // Dead letters are moved in one commit: both strategies are kept by that.
  const strategy = fieldOf(table, 'x-dead-letter-strategy');
  if (strategy !== undefined) {
    if (type === 'classic') throw notOfType(queue, 'x-dead-letter-strategy', 'classic');
    if (strategy.type !== 'S' || !DEAD_LETTER_STRATEGIES.has(strategy.value.toString())) {
      throw invalid(queue, 'x-dead-letter-strategy', 'invalid_dlx_strategy');
    }
  }
  const overflow = fieldOf(table, 'x-overflow');
  if (overflow !== undefined) {
    const setting = overflow.type === 'S' ? OVERFLOWS.get(overflow.value.toString()) : undefined;
    if (setting === undefined) throw invalid(queue, 'x-overflow', 'invalid_overflow');
    settings.set('overflow', setting);
  }
  const single = fieldOf(table, 'x-single-active-consumer');
  if (single !== undefined) {
    if (single.type !== 't')
      throw invalid(queue, 'x-single-active-consumer', `{unacceptable_type,${erlangType(single)}}`);
    settings.set('single.active.consumer', String(single.value));
  }
  if (!isDurable || isExclusive) settings.set('transient', 'true');
  return settings;
}

/** The topic that a queue is asked to be attached to. 406 for one that is none. */
export function attachedTo({ vhost, name, arguments: table }: DeclaredQueue): string | undefined {
  const field = fieldOf(table, 'x-topic');
  if (field === undefined) return undefined;
  if (field.type === 'S' && queueType(table) !== 'stream') return field.value.toString();
  const what = field.type === 'S' ? 'a stream is a topic itself' : `{unacceptable_type,${erlangType(field)}}`;
  throw new AmqpError('PRECONDITION_FAILED', `invalid arg 'x-topic' for queue '${name}' in vhost '${vhost}': ${what}`);
}

/** Who asks for a topic means that one; who asks for none is content with any. 406. */
export function checkAttached(topic: string | undefined, queue: DeclaredQueue & { queue: Queue }): void {
  const current = queue.queue.topic.name;
  if (topic === undefined || current === topic) return;
  const how = `received the value '${topic}' of type 'longstr' but current is '${current}'`;
  throw inequivalent('queue', queue, 'x-topic', how);
}

/** 406 in RabbitMQ's words if the queue exists with another property or argument. */
export function checkEquivalent(asked: DeclaredQueue, current: DeclaredQueue): void {
  const flag = (name: string, received: boolean, inForce: boolean): void => {
    if (received !== inForce)
      throw inequivalent('queue', asked, name, `received '${received}' but current is '${inForce}'`);
  };
  flag('durable', asked.isDurable, current.isDurable);
  flag('auto_delete', asked.isAutoDelete, current.isAutoDelete);
  const types = [queueType(asked.arguments), queueType(current.arguments)];
  if (types[0] !== types[1]) {
    throw inequivalent('queue', asked, 'x-queue-type', `received '${types[0]}' but current is '${types[1]}'`);
  }
  const compared = types[0] === 'stream' ? COMPARED_OF_STREAMS : COMPARED;
  for (const name of compared) checkSameArgument('queue', asked, current, name);
}

/** One argument of a queue or exchange. 406. */
export function checkSameArgument(
  what: 'queue' | 'exchange',
  asked: Named & { arguments: Table },
  current: { arguments: Table },
  name: string,
): void {
  const receivedField = fieldOf(asked.arguments, name);
  const inForceField = fieldOf(current.arguments, name);
  if (receivedField && inForceField) {
    // RabbitMQ compares numbers by value, whatever their type.
    const [receivedText, currentText] = [textOf(receivedField), textOf(inForceField)];
    if (receivedText === currentText && isInteger(receivedField) === isInteger(inForceField)) return;
    throw inequivalent(what, asked, name, `received '${receivedText}' but current is '${currentText}'`);
  }
  const received = shown(receivedField);
  const inForce = shown(inForceField);
  if (received !== inForce) throw inequivalent(what, asked, name, `received ${received} but current is ${inForce}`);
}

export function inequivalent(what: 'queue' | 'exchange', { vhost, name }: Named, arg: string, how: string): AmqpError {
  return new AmqpError(
    'PRECONDITION_FAILED',
    `inequivalent arg '${arg}' for ${what} '${name}' in vhost '${vhost}': ${how}`,
  );
}

/** As RabbitMQ prints an argument that only one of the two has. */
function shown(field: FieldValue | undefined): string {
  return field === undefined ? 'none' : `the value '${textOf(field)}' of type '${erlangType(field)}'`;
}

function textOf(field: FieldValue): string {
  if (field.type === 'S' || field.type === 'x') return field.value.toString();
  return 'value' in field && typeof field.value !== 'object' ? String(field.value) : '';
}
