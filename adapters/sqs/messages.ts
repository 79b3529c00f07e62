/**
 * A message as SQS has it and as the log keeps it (docs/sqs.md, "One record, three views"). Attributes become headers that a
 * Kafka or AMQP client understands; their types, where they are not plain text, are kept beside them. A record that came in
 * elsewhere has its headers as attributes, as far as SQS can name them.
 *
 *   key                          MessageGroupId
 *   millrace.sqs.types           JSON: attribute → data type, where that is not `String`
 *   millrace.sqs.trace           AWSTraceHeader
 *   millrace.sqs.sender          SenderId of a user
 *   millrace.dedup.id, millrace.delay.ms and other producer headers (docs/queues.md)
 */
import { hash } from 'node:crypto';
import { isUtf8 } from 'node:buffer';
import type { AttributeValue, Message, SendOptions } from '../../protocol/sqs/actions.ts';
import { limits } from '../../protocol/sqs/actions.ts';
import { md5, md5OfAttributes } from '../../protocol/sqs/digest.ts';
import { invalidValue, missing, SqsError } from '../../protocol/sqs/errors.ts';
import { attributeNameProblem, isAllowedText, isAttributeType, isId, isNumberText } from '../../protocol/sqs/text.ts';
import type { RecordHeader, RecordInit } from '../../protocol/record-batch.ts';
import {
  deathHistory,
  headerNames,
  messageId,
  messageOrigin,
  producerHeaders,
  RESERVED,
  recordAttributes,
} from '../../broker/queue-attributes.ts';
import type { QueuedRecord } from '../../broker/queue-reader.ts';
import type { SqsQueue } from './queue-book.ts';

const TYPES = 'millrace.sqs.types';
const TRACE = 'millrace.sqs.trace';
const SENDER = 'millrace.sqs.sender';
/** Of a body that SQS's characters cannot say. */
const ENCODING = 'millrace.encoding';
const TRACE_HEADER = 'AWSTraceHeader';
const CHARACTERS = '#x9 | #xA | #xD | [#x20 to #xD7FF] | [#xE000 to #xFFFD] | [#x10000 to #x10FFFF]';

/** What a message attribute may ask of the queue beyond SQS (docs/queues.md); group and id have parameters of their own. */
const EXTENSIONS: readonly string[] = producerHeaders.filter(
  (name) => name !== headerNames.group && name !== headerNames.dedupId,
);
const FROM_CLIENT = { isFromClient: true, isGrouped: false, dedupBy: undefined } as const;

/** A send that passed all rules. */
export interface CheckedMessage {
  readonly body: Buffer;
  readonly record: Omit<RecordInit, 'timestamp'>;
  readonly group: string | undefined;
  readonly dedupId: string | undefined;
  /** Of body and attributes, as limits count. */
  readonly sizeBytes: number;
  readonly digests: {
    readonly MD5OfMessageBody: string;
    readonly MD5OfMessageAttributes?: string;
    readonly MD5OfMessageSystemAttributes?: string;
  };
}

const parameter = (message: string): SqsError => new SqsError('InvalidParameterValue', message);

/** The rules of one message, in SQS's words. */
export function checkMessage(options: SendOptions, target: SqsQueue, sender: string | undefined): CheckedMessage {
  const { MessageBody, MessageAttributes, MessageSystemAttributes, MessageGroupId: group } = options;
  if (MessageBody === '') throw missing('MessageBody');
  if (!isAllowedText(MessageBody)) {
    throw new SqsError(
      'InvalidMessageContents',
      `Invalid binary character was found in the message body, the set of allowed characters is ${CHARACTERS}`,
    );
  }
  const body = Buffer.from(MessageBody);
  const headers: { key: string; value: Uint8Array }[] = [];
  let sizeBytes = body.length;
  if (MessageAttributes !== undefined) sizeBytes += addAttributes(headers, MessageAttributes);
  checkSystemAttributes(headers, MessageSystemAttributes);
  if (sizeBytes > target.messageBytesMax) {
    throw parameter(
      `One or more parameters are invalid. Reason: Message must be shorter than ${target.messageBytesMax} bytes.`,
    );
  }
  checkGroup(target, options);
  addDelay(headers, target, options);
  const { MessageDeduplicationId: dedupId } = options;
  if (dedupId !== undefined) headers.push(text(headerNames.dedupId, dedupId));
  if (sender !== undefined) headers.push(text(SENDER, sender));
  const ofAttributes = md5OfAttributes(MessageAttributes);
  const ofSystem = md5OfAttributes(MessageSystemAttributes);
  return {
    body,
    record: { key: group === undefined ? null : Buffer.from(group), value: body, headers },
    group,
    dedupId,
    sizeBytes,
    digests: {
      MD5OfMessageBody: md5(body),
      ...(ofAttributes === undefined ? {} : { MD5OfMessageAttributes: ofAttributes }),
      ...(ofSystem === undefined ? {} : { MD5OfMessageSystemAttributes: ofSystem }),
    },
  };
}

const text = (key: string, value: string) => ({ key, value: Buffer.from(value) });

function checkGroup({ isFifo, isContentBased }: SqsQueue, options: SendOptions): void {
  const { MessageGroupId: group, MessageDeduplicationId: dedupId } = options;
  for (const [name, id] of [
    ['MessageGroupId', group],
    ['MessageDeduplicationId', dedupId],
  ] as const) {
    if (id !== undefined && !isId(id)) {
      throw invalidValue(
        name,
        id,
        `${name} can only include alphanumeric and punctuation characters. 1 to 128 in length.`,
      );
    }
  }
  if (!isFifo) {
    if (dedupId === undefined) return;
    const reason = 'The request includes a parameter that is not valid for this queue type.';
    throw invalidValue('MessageDeduplicationId', dedupId, reason);
  }
  if (group === undefined) throw missing('MessageGroupId');
  if (dedupId === undefined && !isContentBased) {
    throw parameter(
      'The queue should either have ContentBasedDeduplication enabled or MessageDeduplicationId provided explicitly',
    );
  }
}

function addDelay(
  headers: { key: string; value: Uint8Array }[],
  { queue, isFifo }: SqsQueue,
  { DelaySeconds: delay }: SendOptions,
): void {
  if (delay === undefined) return;
  if (delay < 0 || delay > limits.delaySecondsMax) {
    throw invalidValue('DelaySeconds', delay, `DelaySeconds must be >= 0 and <= ${limits.delaySecondsMax}.`);
  }
  if (isFifo && delay !== 0) {
    const reason = 'The request include parameter that is not valid for this queue type.';
    throw invalidValue('DelaySeconds', delay, reason);
  }
  // What is asked for wins over the queue's delay, also nothing.
  if (delay > 0 || (!isFifo && queue.settings['delay.ms'] > 0)) {
    if (!headers.some(({ key }) => key === headerNames.delayMs)) {
      headers.push(text(headerNames.delayMs, String(delay * 1000)));
    }
  }
}

/** Adds them as headers; answers their size as limits count it. */
function addAttributes(
  headers: { key: string; value: Uint8Array }[],
  attributes: ReadonlyMap<string, AttributeValue>,
): number {
  if (attributes.size > limits.messageAttributesMax) {
    throw parameter(
      `Number of message attributes [${attributes.size}] exceeds the allowed maximum [${limits.messageAttributesMax}].`,
    );
  }
  let sizeBytes = 0;
  let types: Record<string, string> | undefined;
  for (const [name, value] of attributes) {
    const bytes = checkAttribute(name, value);
    sizeBytes += name.length + value.DataType.length + bytes.length;
    headers.push({ key: name, value: bytes });
    if (value.DataType === 'String' || name.startsWith(RESERVED)) continue;
    types ??= {};
    types[name] = value.DataType;
  }
  if (types !== undefined) headers.push(text(TYPES, JSON.stringify(types)));
  return sizeBytes;
}

/** Its value as bytes. */
function checkAttribute(name: string, value: AttributeValue): Buffer {
  const problem = attributeNameProblem(name);
  if (problem !== undefined) throw parameter(`The name of message attribute '${name.slice(0, 256)}' ${problem}.`);
  const bytes = valueOf(name, value);
  if (!name.startsWith(RESERVED)) return bytes;
  if (!EXTENSIONS.includes(name)) {
    throw parameter(`The message attribute '${name}' is reserved; producers may set ${EXTENSIONS.join(', ')}.`);
  }
  // INVALID_RECORD for what it cannot be.
  recordAttributes({ key: null, value: null, timestamp: 0, headers: [{ key: name, value: bytes }] }, FROM_CLIENT);
  return bytes;
}

function valueOf(name: string, value: AttributeValue): Buffer {
  const { DataType: type, StringValue: string, BinaryValue: binary } = value;
  if (value.StringListValues !== undefined || value.BinaryListValues !== undefined) {
    throw new SqsError(
      'UnsupportedOperation',
      'Message attribute list values in SendMessage operation are not supported.',
    );
  }
  if (type === '') throw parameter(`The message attribute '${name}' must contain non-empty message attribute type.`);
  if (!isAttributeType(type)) {
    throw parameter(
      `The message attribute '${name}' has an invalid message attribute type, the set of supported type prefixes is Binary, Number, and String.`,
    );
  }
  const wanted = type.startsWith('Binary') ? binary : string;
  if (wanted === undefined || wanted.length === 0) {
    throw parameter(
      `The message attribute '${name}' must contain non-empty message attribute value for message attribute type '${type}'.`,
    );
  }
  if (string !== undefined && binary !== undefined) {
    throw parameter(`The message attribute '${name}' has more than one value.`);
  }
  if (typeof wanted !== 'string') return wanted;
  if (!isAllowedText(wanted)) {
    throw parameter(
      `Invalid binary character was found in the message attribute '${name}' value, the set of allowed characters is ${CHARACTERS}`,
    );
  }
  if (type.startsWith('Number') && !isNumberText(wanted)) {
    throw parameter(`Can't cast the value of message attribute '${name}' to a number.`);
  }
  return Buffer.from(wanted);
}

function checkSystemAttributes(
  headers: { key: string; value: Uint8Array }[],
  attributes: ReadonlyMap<string, AttributeValue> | undefined,
): void {
  for (const [name, value] of attributes ?? []) {
    if (name !== TRACE_HEADER) {
      throw parameter(`Message system attribute name '${name}' is invalid. The only one supported is ${TRACE_HEADER}.`);
    }
    if (value.DataType !== 'String') {
      throw parameter(`The message system attribute '${name}' must be of type String.`);
    }
    headers.push({ key: TRACE, value: valueOf(name, value) });
  }
}

// --- on the way out ---

/** What a receive asks to be told of each message. */
export interface Wanted {
  /** System attributes by name; `All` is all. */
  readonly system: ReadonlySet<string>;
  /** Names of message attributes, `All`, or a prefix that ends with `.*`. */
  readonly attributes: readonly string[];
}

/** A message that was acquired. */
export interface Received {
  readonly target: SqsQueue;
  readonly partition: number;
  readonly record: QueuedRecord;
  readonly receiptHandle: string;
  readonly receiveCount: number;
  readonly firstReceivedMs: number;
  /** ARN of a queue by its name. */
  arnOf(name: string): string;
  /** What SenderId is where nobody has signed. */
  readonly account: string;
}

export function messageOf(received: Received, wanted: Wanted): Message {
  const { record, receiptHandle, target } = received;
  const { topic } = target.queue;
  const place = { topicId: topic.id, topic: topic.name, partition: received.partition, offset: record.offset };
  const value = record.value ?? NO_BYTES;
  const body = textOf(value);
  const shown = body ?? value.toString('base64');
  const attributes = attributesOf(record.headers, wanted.attributes);
  if (body === undefined) attributes.set(ENCODING, { DataType: 'String', StringValue: 'base64' });
  const system = systemAttributes(received, wanted.system);
  const digest = md5OfAttributes(attributes);
  return {
    MessageId: messageId(place, record.headers),
    ReceiptHandle: receiptHandle,
    MD5OfBody: md5(body === undefined ? shown : value),
    Body: shown,
    ...(system.size === 0 ? {} : { Attributes: system }),
    ...(digest === undefined ? {} : { MD5OfMessageAttributes: digest, MessageAttributes: attributes }),
  };
}

const NO_BYTES = Buffer.alloc(0);

/** Undefined: SQS's characters cannot say it. */
function textOf(value: Buffer): string | undefined {
  if (!isUtf8(value)) return undefined;
  const string = value.toString();
  return isAllowedText(string) ? string : undefined;
}

function attributesOf(headers: readonly RecordHeader[], wanted: readonly string[]): Map<string, AttributeValue> {
  const attributes = new Map<string, AttributeValue>();
  if (wanted.length === 0 || headers.length === 0) return attributes;
  const isAll = wanted.includes('All') || wanted.includes('.*');
  const types = typesOf(headers);
  for (const { key: name, value } of headers) {
    if (value === null || value.length === 0 || name.startsWith(RESERVED)) continue;
    if (attributeNameProblem(name) !== undefined) continue;
    if (!isAll && !wanted.some((each) => isMatch(each, name))) continue;
    const type = types.get(name) ?? 'String';
    const string = type.startsWith('Binary') ? undefined : textOf(value);
    if (string !== undefined) attributes.set(name, { DataType: type, StringValue: string });
    else attributes.set(name, { DataType: type.startsWith('Binary') ? type : 'Binary', BinaryValue: value });
  }
  return attributes;
}

const isMatch = (wanted: string, name: string): boolean =>
  wanted === name || (wanted.endsWith('.*') && name.startsWith(wanted.slice(0, -2)));

function typesOf(headers: readonly RecordHeader[]): ReadonlyMap<string, string> {
  const json = headers.find(({ key }) => key === TYPES)?.value;
  if (json === undefined || json === null) return NO_TYPES;
  try {
    // Only this door writes the header.
    return new Map(Object.entries(JSON.parse(json.toString()) as Record<string, string>));
  } catch {
    // But for what a log had before a queue was declared over it.
    return NO_TYPES;
  }
}
const NO_TYPES: ReadonlyMap<string, string> = new Map();

const headerOf = (headers: readonly RecordHeader[], name: string): string | undefined =>
  headers.findLast(({ key }) => key === name)?.value?.toString();

function systemAttributes(received: Received, wanted: ReadonlySet<string>): Map<string, string> {
  const attributes = new Map<string, string>();
  if (wanted.size === 0) return attributes;
  const { record, target } = received;
  const { headers } = record;
  const isAll = wanted.has('All');
  const add = (name: string, value: () => string | undefined): void => {
    if (!isAll && !wanted.has(name)) return;
    const known = value();
    if (known !== undefined) attributes.set(name, known);
  };
  add('SenderId', () => headerOf(headers, SENDER) ?? received.account);
  add('SentTimestamp', () => String(sentMs(record)));
  add('ApproximateReceiveCount', () => String(received.receiveCount));
  add('ApproximateFirstReceiveTimestamp', () => String(received.firstReceivedMs));
  add('MessageGroupId', () => groupOf(record));
  add(TRACE_HEADER, () => headerOf(headers, TRACE));
  add('DeadLetterQueueSourceArn', () => {
    const source = deathHistory(headers)?.deaths[0].queue;
    return source === undefined ? undefined : received.arnOf(source);
  });
  if (target.isFifo) {
    add('SequenceNumber', () => sequenceNumber(record.offset));
    add('MessageDeduplicationId', () => dedupIdOf(record, target));
  }
  return attributes;
}

/** A dead letter keeps the time of its send. */
function sentMs({ headers, timestamp }: QueuedRecord): number {
  return messageOrigin(headers)?.timeMs ?? timestamp;
}

function groupOf({ key, headers }: QueuedRecord): string | undefined {
  const group = headerOf(headers, headerNames.group) ?? (key === null ? undefined : key.toString());
  return group !== undefined && isId(group) ? group : undefined;
}

function dedupIdOf({ headers, value }: QueuedRecord, { isContentBased }: SqsQueue): string | undefined {
  const given = headerOf(headers, headerNames.dedupId) ?? headerOf(headers, headerNames.originDedupId);
  return given ?? (isContentBased ? hash('sha256', value ?? NO_BYTES) : undefined);
}

/** 20 digits that rise with the offset, as SQS's have 20 digits and rise. */
export function sequenceNumber(offset: number): string {
  return `1${String(offset).padStart(19, '0')}`;
}
