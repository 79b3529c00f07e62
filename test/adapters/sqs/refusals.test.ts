/**
 * What SQS refuses, by code, status and text, in both protocols. Codes and statuses are those of the service model (the
 * client holds every answer against it) or of "Common Errors" in the API reference; limits are those of the API reference of
 * the action and of the developer guide's quota pages. `text` is matched where AWS's own words are known.
 */
import test from 'ava';
import { openWorld, urlOf } from './world.ts';
import { PROTOCOLS } from '../../support/sqs-client.ts';

const MIB = 1_048_576;
const Q = urlOf('q');
const F = urlOf('f.fifo');
const attribute = (value: object) => ({ QueueUrl: Q, MessageBody: 'x', MessageAttributes: { a: value } });
const text = (value: string) => ({ DataType: 'String', StringValue: value });
const entries = (count: number) => Array.from({ length: count }, (_, index) => ({ Id: `i${index}`, MessageBody: 'x' }));
const create = (Attributes: object, QueueName = 'new') => ({ QueueName, Attributes });
const redrive = (policy: unknown) => create({ RedrivePolicy: JSON.stringify(policy) });

type Case = readonly [name: string, action: string, input: object, error: string, text?: RegExp];

const cases: readonly Case[] = [
  // Queues.
  ['a name of 81 characters', 'CreateQueue', create({}, 'a'.repeat(81)), 'InvalidParameterValue', /1 to 80 in length/],
  ['a name with a blank', 'CreateQueue', create({}, 'a b'), 'InvalidParameterValue'],
  ['a name with a period', 'CreateQueue', create({}, 'a.b'), 'InvalidParameterValue'],
  ['a name that is a path', 'CreateQueue', create({}, '../../etc'), 'InvalidParameterValue'],
  ['no name', 'CreateQueue', {}, 'MissingParameter', /must contain the parameter QueueName/],
  ['.fifo without FifoQueue', 'CreateQueue', create({}, 'x.fifo'), 'InvalidParameterValue'],
  ['FifoQueue without .fifo', 'CreateQueue', create({ FifoQueue: 'true' }), 'InvalidParameterValue', /\.fifo suffix/],
  [
    'FifoQueue false',
    'CreateQueue',
    create({ FifoQueue: 'false' }),
    'InvalidAttributeName',
    /Unknown Attribute FifoQueue/,
  ],
  [
    'an unknown attribute',
    'CreateQueue',
    create({ Colour: 'red' }),
    'InvalidAttributeName',
    /Unknown Attribute Colour/,
  ],
  ['a read-only attribute', 'CreateQueue', create({ QueueArn: 'x' }), 'InvalidAttributeName'],
  [
    'a FIFO attribute on a standard queue',
    'CreateQueue',
    create({ DeduplicationScope: 'queue' }),
    'InvalidAttributeName',
  ],
  ...[
    ['DelaySeconds', '901'],
    ['DelaySeconds', '-1'],
    ['DelaySeconds', 'soon'],
    ['MaximumMessageSize', '1023'],
    ['MaximumMessageSize', String(MIB + 1)],
    ['MessageRetentionPeriod', '59'],
    ['MessageRetentionPeriod', '1209601'],
    ['ReceiveMessageWaitTimeSeconds', '21'],
    ['VisibilityTimeout', '43201'],
    ['VisibilityTimeout', ''],
    ['KmsDataKeyReusePeriodSeconds', '59'],
    ['SqsManagedSseEnabled', 'yes'],
    ['Policy', '{'],
  ].map(
    ([name, value]): Case => [
      `${name} of '${value}'`,
      'CreateQueue',
      create({ [name]: value }),
      'InvalidAttributeValue',
      new RegExp(`Invalid value for the parameter ${name}`),
    ],
  ),
  [
    'both ways of encryption',
    'CreateQueue',
    create({ SqsManagedSseEnabled: 'true', KmsMasterKeyId: 'alias/aws/sqs' }),
    'InvalidAttributeValue',
  ],
  [
    'perMessageGroupId with another scope',
    'CreateQueue',
    create({ FifoQueue: 'true', FifoThroughputLimit: 'perMessageGroupId' }, 'x.fifo'),
    'InvalidAttributeValue',
    /allowed only when the value for DeduplicationScope is messageGroup/,
  ],
  [
    'RedrivePolicy without a target',
    'CreateQueue',
    redrive({ maxReceiveCount: 1 }),
    'InvalidParameterValue',
    /deadLetterTargetArn/,
  ],
  [
    'RedrivePolicy without a count',
    'CreateQueue',
    redrive({ deadLetterTargetArn: 'arn:aws:sqs:us-east-1:000000000000:q' }),
    'InvalidParameterValue',
    /does not contain mandatory attribute: maxReceiveCount/,
  ],
  [
    'maxReceiveCount of 0',
    'CreateQueue',
    redrive({ deadLetterTargetArn: 'arn:aws:sqs:us-east-1:000000000000:q', maxReceiveCount: 0 }),
    'InvalidParameterValue',
    /valid values are from 1 to 1000/,
  ],
  [
    'maxReceiveCount of 1001',
    'CreateQueue',
    redrive({ deadLetterTargetArn: 'arn:aws:sqs:us-east-1:000000000000:q', maxReceiveCount: '1001' }),
    'InvalidParameterValue',
  ],
  [
    'a dead-letter queue that is not there',
    'CreateQueue',
    redrive({ deadLetterTargetArn: 'arn:aws:sqs:us-east-1:000000000000:none', maxReceiveCount: 1 }),
    'InvalidParameterValue',
    /Dead letter target does not exist/,
  ],
  [
    'a dead-letter queue of another type',
    'CreateQueue',
    redrive({ deadLetterTargetArn: 'arn:aws:sqs:us-east-1:000000000000:f.fifo', maxReceiveCount: 1 }),
    'InvalidParameterValue',
    /same type of queue/,
  ],
  [
    'RedrivePolicy that is no JSON',
    'CreateQueue',
    create({ RedrivePolicy: 'x' }),
    'InvalidParameterValue',
    /not a valid JSON map/,
  ],
  [
    'RedriveAllowPolicy of another word',
    'CreateQueue',
    create({ RedriveAllowPolicy: '{"redrivePermission":"some"}' }),
    'InvalidParameterValue',
  ],
  [
    'RedriveAllowPolicy byQueue without queues',
    'CreateQueue',
    create({ RedriveAllowPolicy: '{"redrivePermission":"byQueue"}' }),
    'InvalidParameterValue',
  ],
  [
    'the same name, another attribute',
    'CreateQueue',
    create({ DelaySeconds: '5' }, 'q'),
    'QueueNameExists',
    /different value for attribute DelaySeconds/,
  ],
  ['a tag without a key', 'CreateQueue', { QueueName: 'new', tags: { '': 'x' } }, 'InvalidParameterValue'],
  [
    'a queue that is not there',
    'GetQueueUrl',
    { QueueName: 'none' },
    'QueueDoesNotExist',
    /The specified queue does not exist/,
  ],
  [
    'an address that is none',
    'GetQueueAttributes',
    { QueueUrl: 'nowhere' },
    'InvalidAddress',
    /is not valid for this endpoint/,
  ],
  [
    'an unknown attribute asked for',
    'GetQueueAttributes',
    { QueueUrl: Q, AttributeNames: ['Colour'] },
    'InvalidAttributeName',
  ],
  ['attributes of no queue', 'GetQueueAttributes', { QueueUrl: urlOf('none') }, 'QueueDoesNotExist'],
  [
    'a queue made a FIFO queue',
    'SetQueueAttributes',
    { QueueUrl: Q, Attributes: { FifoQueue: 'true' } },
    'InvalidAttributeValue',
    /Modifying queue type/,
  ],
  ['deleting no queue', 'DeleteQueue', { QueueUrl: urlOf('none') }, 'QueueDoesNotExist'],
  ['purging no queue', 'PurgeQueue', { QueueUrl: urlOf('none') }, 'QueueDoesNotExist'],
  ['pages of 1001', 'ListQueues', { MaxResults: 1001 }, 'InvalidParameterValue'],
  ['pages of 0', 'ListQueues', { MaxResults: 0 }, 'InvalidParameterValue'],
  ['a token of nobody', 'ListQueues', { MaxResults: 1, NextToken: '%%%' }, 'InvalidParameterValue'],
  [
    '51 tags',
    'TagQueue',
    { QueueUrl: Q, Tags: Object.fromEntries(Array.from({ length: 51 }, (_, i) => [`k${i}`, 'v'])) },
    'InvalidParameterValue',
  ],
  ['a tag of AWS', 'TagQueue', { QueueUrl: Q, Tags: { 'aws:x': 'v' } }, 'InvalidParameterValue'],
  ['a tag value of 257 characters', 'TagQueue', { QueueUrl: Q, Tags: { a: 'v'.repeat(257) } }, 'InvalidParameterValue'],
  ['no tags', 'TagQueue', { QueueUrl: Q }, 'MissingParameter'],
  [
    'a permission for no account',
    'AddPermission',
    { QueueUrl: Q, Label: 'l', AWSAccountIds: ['me'], Actions: ['SendMessage'] },
    'InvalidParameterValue',
  ],
  [
    "the owner's action",
    'AddPermission',
    { QueueUrl: Q, Label: 'l', AWSAccountIds: ['123456789012'], Actions: ['DeleteQueue'] },
    'InvalidParameterValue',
    /Only the queue owner/,
  ],
  ['no such permission', 'RemovePermission', { QueueUrl: Q, Label: 'l' }, 'InvalidParameterValue', /can't find label/],

  // Sends.
  [
    'an empty body',
    'SendMessage',
    { QueueUrl: Q, MessageBody: '' },
    'MissingParameter',
    /must contain the parameter MessageBody/,
  ],
  ['no body', 'SendMessage', { QueueUrl: Q }, 'MissingParameter'],
  ['a character that XML has not', 'SendMessage', { QueueUrl: Q, MessageBody: 'a\u0000b' }, 'InvalidMessageContents'],
  ['a noncharacter', 'SendMessage', { QueueUrl: Q, MessageBody: 'a\uFFFE' }, 'InvalidMessageContents'],
  [
    'a body over 1 MiB',
    'SendMessage',
    { QueueUrl: Q, MessageBody: 'x'.repeat(MIB + 1) },
    'InvalidParameterValue',
    /Message must be shorter than 1048576 bytes/,
  ],
  [
    'attributes count towards the size',
    'SendMessage',
    { ...attribute(text('x')), MessageBody: 'x'.repeat(MIB) },
    'InvalidParameterValue',
  ],
  ['a delay of 901', 'SendMessage', { QueueUrl: Q, MessageBody: 'x', DelaySeconds: 901 }, 'InvalidParameterValue'],
  ['a delay of -1', 'SendMessage', { QueueUrl: Q, MessageBody: 'x', DelaySeconds: -1 }, 'InvalidParameterValue'],
  [
    'a deduplication id on a standard queue',
    'SendMessage',
    { QueueUrl: Q, MessageBody: 'x', MessageDeduplicationId: 'd' },
    'InvalidParameterValue',
    /not valid for this queue type/,
  ],
  [
    'a group of 129 characters',
    'SendMessage',
    { QueueUrl: Q, MessageBody: 'x', MessageGroupId: 'g'.repeat(129) },
    'InvalidParameterValue',
    /1 to 128 in length/,
  ],
  [
    'a group with a blank',
    'SendMessage',
    { QueueUrl: Q, MessageBody: 'x', MessageGroupId: 'a b' },
    'InvalidParameterValue',
  ],
  [
    'eleven attributes',
    'SendMessage',
    {
      QueueUrl: Q,
      MessageBody: 'x',
      MessageAttributes: Object.fromEntries(Array.from({ length: 11 }, (_, i) => [`a${i}`, text('x')])),
    },
    'InvalidParameterValue',
    /\[11\] exceeds the allowed maximum \[10\]/,
  ],
  [
    'an attribute without a value',
    'SendMessage',
    attribute({ DataType: 'String' }),
    'InvalidParameterValue',
    /non-empty message attribute value/,
  ],
  ['an attribute with an empty value', 'SendMessage', attribute(text('')), 'InvalidParameterValue'],
  [
    'an attribute of no type',
    'SendMessage',
    attribute({ DataType: '', StringValue: 'x' }),
    'InvalidParameterValue',
    /non-empty message attribute type/,
  ],
  [
    'an attribute of an unknown type',
    'SendMessage',
    attribute({ DataType: 'Text', StringValue: 'x' }),
    'InvalidParameterValue',
    /supported type prefixes is Binary, Number, and String/,
  ],
  ['an attribute without DataType', 'SendMessage', attribute({ StringValue: 'x' }), 'MissingParameter'],
  [
    'a number that is none',
    'SendMessage',
    attribute({ DataType: 'Number', StringValue: 'x' }),
    'InvalidParameterValue',
    /Can't cast the value/,
  ],
  [
    'an attribute with two values',
    'SendMessage',
    attribute({ DataType: 'String', StringValue: 'x', BinaryValue: 'eA==' }),
    'InvalidParameterValue',
  ],
  [
    'a list of values',
    'SendMessage',
    attribute({ DataType: 'String', StringListValues: ['x'] }),
    'UnsupportedOperation',
  ],
  ['an attribute text with a bad character', 'SendMessage', attribute(text('a\u0001')), 'InvalidParameterValue'],
  ...['a b', 'AWS.x', '.a', 'a..b', 'ä', 'a'.repeat(257)].map(
    (name): Case => [
      `an attribute named '${name.slice(0, 10)}'`,
      'SendMessage',
      { QueueUrl: Q, MessageBody: 'x', MessageAttributes: { [name]: text('x') } },
      'InvalidParameterValue',
    ],
  ),
  [
    'a reserved attribute',
    'SendMessage',
    { QueueUrl: Q, MessageBody: 'x', MessageAttributes: { 'millrace.id': text('x') } },
    'InvalidParameterValue',
    /reserved/,
  ],
  [
    'an extension that cannot be',
    'SendMessage',
    { QueueUrl: Q, MessageBody: 'x', MessageAttributes: { 'millrace.delay.ms': text('soon') } },
    'InvalidParameterValue',
    /whole number/,
  ],
  [
    'an unknown system attribute',
    'SendMessage',
    { QueueUrl: Q, MessageBody: 'x', MessageSystemAttributes: { Other: text('x') } },
    'InvalidParameterValue',
  ],
  ['a send to no queue', 'SendMessage', { QueueUrl: urlOf('none'), MessageBody: 'x' }, 'QueueDoesNotExist'],
  [
    'FIFO without a group',
    'SendMessage',
    { QueueUrl: F, MessageBody: 'x', MessageDeduplicationId: 'd' },
    'MissingParameter',
    /must contain the parameter MessageGroupId/,
  ],
  [
    'FIFO without a deduplication id',
    'SendMessage',
    { QueueUrl: F, MessageBody: 'x', MessageGroupId: 'g' },
    'InvalidParameterValue',
    /ContentBasedDeduplication enabled or MessageDeduplicationId provided/,
  ],
  [
    'FIFO with a delay of its own',
    'SendMessage',
    { QueueUrl: F, MessageBody: 'x', MessageGroupId: 'g', MessageDeduplicationId: 'd', DelaySeconds: 1 },
    'InvalidParameterValue',
  ],
  [
    'a deduplication id with a blank',
    'SendMessage',
    { QueueUrl: F, MessageBody: 'x', MessageGroupId: 'g', MessageDeduplicationId: 'a b' },
    'InvalidParameterValue',
  ],
  [
    'an empty batch',
    'SendMessageBatch',
    { QueueUrl: Q, Entries: [] },
    'EmptyBatchRequest',
    /at least one SendMessageBatchRequestEntry/,
  ],
  [
    'a batch of eleven',
    'SendMessageBatch',
    { QueueUrl: Q, Entries: entries(11) },
    'TooManyEntriesInBatchRequest',
    /entries per request are 10\. You have sent 11/,
  ],
  [
    'equal ids in a batch',
    'SendMessageBatch',
    { QueueUrl: Q, Entries: [...entries(1), ...entries(1)] },
    'BatchEntryIdsNotDistinct',
    /Id i0 repeated/,
  ],
  [
    'an id with a period',
    'SendMessageBatch',
    { QueueUrl: Q, Entries: [{ Id: 'a.b', MessageBody: 'x' }] },
    'InvalidBatchEntryId',
  ],
  [
    'an id of 81 characters',
    'SendMessageBatch',
    { QueueUrl: Q, Entries: [{ Id: 'a'.repeat(81), MessageBody: 'x' }] },
    'InvalidBatchEntryId',
  ],
  [
    'a batch over 1 MiB',
    'SendMessageBatch',
    { QueueUrl: Q, Entries: [1, 2].map((i) => ({ Id: `i${i}`, MessageBody: 'x'.repeat(MIB / 2 + 1) })) },
    'BatchRequestTooLong',
    /cannot be longer than 1048576 bytes/,
  ],

  // Receives.
  [
    'eleven messages',
    'ReceiveMessage',
    { QueueUrl: Q, MaxNumberOfMessages: 11 },
    'InvalidParameterValue',
    /Must be between 1 and 10, if provided/,
  ],
  ['no messages', 'ReceiveMessage', { QueueUrl: Q, MaxNumberOfMessages: 0 }, 'InvalidParameterValue'],
  [
    'a wait of 21 seconds',
    'ReceiveMessage',
    { QueueUrl: Q, WaitTimeSeconds: 21 },
    'InvalidParameterValue',
    /Must be >= 0 and <= 20, if provided/,
  ],
  ['a lock of 43201 seconds', 'ReceiveMessage', { QueueUrl: Q, VisibilityTimeout: 43_201 }, 'InvalidParameterValue'],
  [
    'an unknown system attribute asked for',
    'ReceiveMessage',
    { QueueUrl: Q, MessageSystemAttributeNames: ['Colour'] },
    'InvalidAttributeName',
  ],
  [
    'an attempt id on a standard queue',
    'ReceiveMessage',
    { QueueUrl: Q, ReceiveRequestAttemptId: 'a' },
    'InvalidParameterValue',
  ],
  [
    'an attempt id with a blank',
    'ReceiveMessage',
    { QueueUrl: F, ReceiveRequestAttemptId: 'a b' },
    'InvalidParameterValue',
  ],
  ['a receive from no queue', 'ReceiveMessage', { QueueUrl: urlOf('none') }, 'QueueDoesNotExist'],
  [
    'a handle that was never given',
    'DeleteMessage',
    { QueueUrl: Q, ReceiptHandle: 'AQAAAAE=' },
    'ReceiptHandleIsInvalid',
  ],
  ['a handle that is no base64', 'DeleteMessage', { QueueUrl: Q, ReceiptHandle: '!' }, 'ReceiptHandleIsInvalid'],
  [
    'visibility by a handle of nobody',
    'ChangeMessageVisibility',
    { QueueUrl: Q, ReceiptHandle: 'x', VisibilityTimeout: 1 },
    'ReceiptHandleIsInvalid',
  ],
  [
    'a visibility of 43201',
    'ChangeMessageVisibility',
    { QueueUrl: Q, ReceiptHandle: 'x', VisibilityTimeout: 43_201 },
    'InvalidParameterValue',
  ],
  ['a visibility of nothing', 'ChangeMessageVisibility', { QueueUrl: Q, ReceiptHandle: 'x' }, 'MissingParameter'],
  ['an empty batch of deletes', 'DeleteMessageBatch', { QueueUrl: Q, Entries: [] }, 'EmptyBatchRequest'],
  ['an empty batch of visibilities', 'ChangeMessageVisibilityBatch', { QueueUrl: Q, Entries: [] }, 'EmptyBatchRequest'],

  // Move tasks.
  [
    'a task for no queue',
    'StartMessageMoveTask',
    { SourceArn: 'arn:aws:sqs:us-east-1:000000000000:none' },
    'ResourceNotFoundException',
    /SourceArn parameter doesn't exist/,
  ],
  [
    'a task for what is no dead-letter queue',
    'StartMessageMoveTask',
    { SourceArn: 'arn:aws:sqs:us-east-1:000000000000:q' },
    'InvalidParameterValue',
    /configured as a Dead Letter Queue/,
  ],
  ['a task for no ARN', 'StartMessageMoveTask', { SourceArn: 'q' }, 'InvalidParameterValue'],
  [
    'a task that is not there',
    'CancelMessageMoveTask',
    { TaskHandle: 'eA==' },
    'ResourceNotFoundException',
    /Task does not exist/,
  ],
  [
    'tasks of no queue',
    'ListMessageMoveTasks',
    { SourceArn: 'arn:aws:sqs:us-east-1:000000000000:none' },
    'ResourceNotFoundException',
  ],
  [
    'eleven tasks',
    'ListMessageMoveTasks',
    { SourceArn: 'arn:aws:sqs:us-east-1:000000000000:q', MaxResults: 11 },
    'InvalidParameterValue',
  ],
];

for (const protocol of PROTOCOLS) {
  for (const [name, action, input, error, text] of cases) {
    test(`${protocol}: ${action} refuses ${name}`, async (t) => {
      const { sqs, queue, reports, broker } = await openWorld(protocol);
      await queue('q');
      await queue('f.fifo');
      const answer = await sqs.ask(action, input);
      t.is(answer.error, error, answer.message);
      if (text !== undefined) t.regex(answer.message, text);
      // Nothing came of it.
      t.deepEqual(
        broker.queues.all().map((each) => [each.name, each.counts().ready]),
        [
          ['f.fifo', 0],
          ['q', 0],
        ],
      );
      t.deepEqual(reports, []);
    });
  }
  test(`${protocol}: an unknown action is refused`, async (t) => {
    const { sqs } = await openWorld(protocol);
    const answer = await sqs.ask('EatMessage');
    t.is(answer.error, protocol === 'json' ? 'UnknownOperationException' : 'InvalidAction');
  });
}
