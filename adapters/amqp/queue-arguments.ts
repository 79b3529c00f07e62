/**
 * Arguments of `queue.declare` as RabbitMQ has them: checked, compared on redeclare, and turned into settings of queues
 * (docs/queues.md). What this version does not serve is refused with 540 rather than ignored.
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
  'x-max-age',
  'x-stream-max-segment-size-bytes',
  'x-stream-filter-size-bytes',
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
const NOT_OF_OTHERS = [
  'x-max-age',
  'x-stream-max-segment-size-bytes',
  'x-stream-filter-size-bytes',
  'x-initial-cluster-size',
];
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

/** Settings by name, in canonical text. 406 for values that RabbitMQ refuses, 540 for what is not served. */
export function settingsOf({
  vhost,
  name,
  isDurable,
  isExclusive,
  isAutoDelete,
  arguments: table,
}: DeclaredQueue): Map<string, string> {
  const settings = new Map<string, string>();
  const invalid = (argument: string, why: string): AmqpError =>
    new AmqpError('PRECONDITION_FAILED', `invalid arg '${argument}' for queue '${name}' in vhost '${vhost}': ${why}`);
  const number = (argument: string, setting: string, min: number, max = Number.MAX_SAFE_INTEGER): void => {
    const field = fieldOf(table, argument);
    if (field === undefined) return;
    if (!isInteger(field)) throw invalid(argument, `"expected integer, got ${erlangType(field)}"`);
    const value = Number(field.value);
    if (value < 0) throw invalid(argument, `{value_negative,${value}}`);
    if (value < min) throw invalid(argument, `{value_zero,${value}}`);
    if (value > max) throw invalid(argument, `{max_value_exceeded,${value}}`);
    settings.set(setting, String(value));
  };
  const type = queueType(table);
  const typeField = fieldOf(table, 'x-queue-type');
  if (typeField !== undefined && (typeField.type !== 'S' || !['classic', 'quorum', 'stream'].includes(type))) {
    throw invalid('x-queue-type', `"unsupported queue type '${type}'"`);
  }
  if (type === 'quorum') {
    const refuse = (property: string): AmqpError =>
      new AmqpError('PRECONDITION_FAILED', `invalid property '${property}' for queue '${name}' in vhost '${vhost}'`);
    if (!isDurable) throw refuse('non-durable');
    if (isExclusive) throw refuse('exclusive-owner');
    if (isAutoDelete) throw refuse('auto-delete');
  }
  const age = fieldOf(table, 'x-max-age');
  if (age !== undefined && age.type !== 'S') throw invalid('x-max-age', `{unacceptable_type,${erlangType(age)}}`);
  if (age !== undefined && ageMs(age.value.toString()) === undefined) throw invalid('x-max-age', 'invalid_max_age');
  const refuseOther = (argument: string): void => {
    if (fieldOf(table, argument) === undefined) return;
    const why = `invalid arg '${argument}' for queue '${name}' in vhost '${vhost}' of queue type rabbit_${type}_queue`;
    throw new AmqpError('PRECONDITION_FAILED', why);
  };
  if (type === 'stream') {
    number('x-max-length-bytes', 'max.bytes', 0);
    number('x-stream-max-segment-size-bytes', 'max.bytes', 0);
    number('x-stream-filter-size-bytes', 'max.bytes', 16, 255);
    number('x-initial-cluster-size', 'max.bytes', 1);
    for (const argument of NOT_OF_STREAMS) refuseOther(argument);
    const refuse = (property: string): AmqpError =>
      new AmqpError('PRECONDITION_FAILED', `invalid property '${property}' for queue '${name}' in vhost '${vhost}'`);
    if (isAutoDelete) throw refuse('auto-delete');
    if (isExclusive) throw refuse('exclusive-owner');
    if (!isDurable) throw refuse('non-durable');
    return new Map();
  }
  for (const argument of NOT_OF_OTHERS) refuseOther(argument);
  const target = fieldOf(table, 'x-dead-letter-exchange');
  if (target !== undefined && target.type !== 'S') {
    const why = `invalid type '${erlangType(target)}' for arg 'x-dead-letter-exchange' in queue '${name}' in vhost '${vhost}'`;
    throw new AmqpError('PRECONDITION_FAILED', why);
  }
  if (target === undefined && fieldOf(table, 'x-dead-letter-routing-key') !== undefined) {
    throw invalid('x-dead-letter-routing-key', 'routing_key_but_no_dlx_defined');
  }
  const mode = fieldOf(table, 'x-queue-mode');
  if (mode !== undefined && (mode.type !== 'S' || !['default', 'lazy'].includes(mode.value.toString()))) {
    throw invalid('x-queue-mode', `"unsupported queue mode '${mode.type === 'S' ? mode.value.toString() : ''}'"`);
  }
  if (target !== undefined) settings.set('dead.letter.exchange', target.value.toString() || DEFAULT_EXCHANGE);
  const key = fieldOf(table, 'x-dead-letter-routing-key');
  if (key?.type === 'S') settings.set('dead.letter.routing.key', key.value.toString());
  else if (key !== undefined) throw invalid('x-dead-letter-routing-key', `{unacceptable_type,${erlangType(key)}}`);
  number('x-message-ttl', 'ttl.ms', 0);
  number('x-expires', 'expires.ms', 1);
  number('x-max-length', 'max.messages', 0);
  number('x-max-length-bytes', 'max.bytes', 0);
  if (type === 'quorum' && fieldOf(table, 'x-max-priority') !== undefined) {
    throw new AmqpError(
      'PRECONDITION_FAILED',
      `invalid arg 'x-max-priority' for queue '${name}' in vhost '${vhost}' of queue type rabbit_quorum_queue`,
    );
  }
  number('x-max-priority', 'priority.max', 0, 255);
  if (type === 'classic' && fieldOf(table, 'x-delivery-limit') !== undefined) {
    throw new AmqpError(
      'PRECONDITION_FAILED',
      `invalid arg 'x-delivery-limit' for queue '${name}' in vhost '${vhost}' of queue type rabbit_classic_queue`,
    );
  }
  number('x-delivery-limit', 'failed.limit', 0);
  if (type === 'quorum' && !settings.has('failed.limit')) settings.set('failed.limit', String(QUORUM_DELIVERY_LIMIT));
  const overflow = fieldOf(table, 'x-overflow');
  if (overflow !== undefined) {
    const value = overflow.type === 'S' ? overflow.value.toString() : '';
    if (value === 'drop-head') settings.set('overflow', 'drop-oldest');
    else if (value === 'reject-publish') settings.set('overflow', 'refuse');
    else if (value === 'reject-publish-dlx') settings.set('overflow', 'refuse-dead-letter');
    else throw invalid('x-overflow', 'invalid_overflow');
  }
  const single = fieldOf(table, 'x-single-active-consumer');
  if (single !== undefined) {
    if (single.type !== 't') throw invalid('x-single-active-consumer', `{unacceptable_type,${erlangType(single)}}`);
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
  for (const name of COMPARED) checkSameArgument('queue', asked, current, name);
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
  // RabbitMQ compares numbers by value, whatever their type.
  if (receivedField && inForceField && isInteger(receivedField) && isInteger(inForceField)) {
    if (Number(receivedField.value) === Number(inForceField.value)) return;
    throw inequivalent(
      what,
      asked,
      name,
      `received '${receivedField.value}' but current is '${inForceField.value}'`,
    );
  }
  const received = shown(receivedField);
  const inForce = shown(inForceField);
  if (received !== inForce)
    throw inequivalent(what, asked, name, `received ${received} but current is ${inForce}`);
}

export function inequivalent(what: 'queue' | 'exchange', { vhost, name }: Named, arg: string, how: string): AmqpError {
  return new AmqpError(
    'PRECONDITION_FAILED',
    `inequivalent arg '${arg}' for ${what} '${name}' in vhost '${vhost}': ${how}`,
  );
}

/** As RabbitMQ prints an argument. */
function shown(field: FieldValue | undefined): string {
  if (field === undefined) return 'none';
  const value = 'value' in field && typeof field.value !== 'object' ? String(field.value) : '';
  const text = field.type === 'S' || field.type === 'x' ? field.value.toString() : value;
  return `the value '${text}' of type '${erlangType(field)}'`;
}
