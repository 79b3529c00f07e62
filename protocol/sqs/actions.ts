/**
 * The 23 actions of Amazon SQS, API version 2012-11-05: members of requests and answers. Facts from the service model that
 * the AWS SDKs are generated from; a test compares every name, type and requirement with an extract of it. Names in the
 * query protocol are those of its last model (before 2023-11).
 */
import { blob, boolean, integer, list, long, map, string, structure, type ValueOf } from './shapes.ts';

/** Prefix of `X-Amz-Target`. */
export const TARGET_PREFIX = 'AmazonSQS.';

const attributeNames = list(string, 'AttributeName');
const queueAttributes = map(string, 'Attribute', 'Name');
const queueUrls = list(string, 'QueueUrl');
const tags = map(string, 'Tag', 'Key');
const attributeValue = structure(
  { DataType: string },
  {
    StringValue: string,
    BinaryValue: blob,
    StringListValues: list(string, 'StringListValue'),
    BinaryListValues: list(blob, 'BinaryListValue'),
  },
);
const messageAttributes = map(attributeValue, 'MessageAttribute', 'Name');
const messageSystemAttributes = map(attributeValue, 'MessageSystemAttribute', 'Name');
const failed = list(
  structure({ Id: string, SenderFault: boolean, Code: string }, { Message: string }),
  'BatchResultErrorEntry',
);

const message = structure(
  {},
  {
    MessageId: string,
    ReceiptHandle: string,
    MD5OfBody: string,
    Body: string,
    Attributes: map(string, 'Attribute', 'Name'),
    MD5OfMessageAttributes: string,
    MessageAttributes: messageAttributes,
  },
);

const sendOptions = {
  DelaySeconds: integer,
  MessageAttributes: messageAttributes,
  MessageSystemAttributes: messageSystemAttributes,
  MessageDeduplicationId: string,
  MessageGroupId: string,
} as const;
const sendEntry = structure({ Id: string, MessageBody: string }, sendOptions);
const visibilityEntry = structure({ Id: string, ReceiptHandle: string }, { VisibilityTimeout: integer });
const deleteEntry = structure({ Id: string, ReceiptHandle: string }, {});
const idEntry = structure({ Id: string }, {});

const moveTask = structure(
  {},
  {
    TaskHandle: string,
    Status: string,
    SourceArn: string,
    DestinationArn: string,
    MaxNumberOfMessagesPerSecond: integer,
    ApproximateNumberOfMessagesMoved: long,
    ApproximateNumberOfMessagesToMove: long,
    FailureReason: string,
    StartedTimestamp: long,
  },
);

const nothing = structure({}, {});
const queueOnly = structure({ QueueUrl: string }, {});

/** Action → what goes in and what comes out; `hasOutput` false: the answer has no content. */
export const actions = {
  AddPermission: {
    input: structure(
      {
        QueueUrl: string,
        Label: string,
        AWSAccountIds: list(string, 'AWSAccountId'),
        Actions: list(string, 'ActionName'),
      },
      {},
    ),
    output: nothing,
    hasOutput: false,
  },
  CancelMessageMoveTask: {
    input: structure({ TaskHandle: string }, {}),
    output: structure({}, { ApproximateNumberOfMessagesMoved: long }),
    hasOutput: true,
  },
  ChangeMessageVisibility: {
    input: structure({ QueueUrl: string, ReceiptHandle: string, VisibilityTimeout: integer }, {}),
    output: nothing,
    hasOutput: false,
  },
  ChangeMessageVisibilityBatch: {
    input: structure(
      { QueueUrl: string, Entries: list(visibilityEntry, 'ChangeMessageVisibilityBatchRequestEntry') },
      {},
    ),
    output: structure({ Successful: list(idEntry, 'ChangeMessageVisibilityBatchResultEntry'), Failed: failed }, {}),
    hasOutput: true,
  },
  CreateQueue: {
    input: structure({ QueueName: string }, { Attributes: queueAttributes, tags }),
    output: structure({}, { QueueUrl: string }),
    hasOutput: true,
  },
  DeleteMessage: {
    input: structure({ QueueUrl: string, ReceiptHandle: string }, {}),
    output: nothing,
    hasOutput: false,
  },
  DeleteMessageBatch: {
    input: structure({ QueueUrl: string, Entries: list(deleteEntry, 'DeleteMessageBatchRequestEntry') }, {}),
    output: structure({ Successful: list(idEntry, 'DeleteMessageBatchResultEntry'), Failed: failed }, {}),
    hasOutput: true,
  },
  DeleteQueue: { input: queueOnly, output: nothing, hasOutput: false },
  GetQueueAttributes: {
    input: structure({ QueueUrl: string }, { AttributeNames: attributeNames }),
    output: structure({}, { Attributes: queueAttributes }),
    hasOutput: true,
  },
  GetQueueUrl: {
    input: structure({ QueueName: string }, { QueueOwnerAWSAccountId: string }),
    output: structure({}, { QueueUrl: string }),
    hasOutput: true,
  },
  ListDeadLetterSourceQueues: {
    input: structure({ QueueUrl: string }, { NextToken: string, MaxResults: integer }),
    output: structure({ queueUrls }, { NextToken: string }),
    hasOutput: true,
  },
  ListMessageMoveTasks: {
    input: structure({ SourceArn: string }, { MaxResults: integer }),
    output: structure({}, { Results: list(moveTask, 'ListMessageMoveTasksResultEntry') }),
    hasOutput: true,
  },
  ListQueueTags: { input: queueOnly, output: structure({}, { Tags: tags }), hasOutput: true },
  ListQueues: {
    input: structure({}, { QueueNamePrefix: string, NextToken: string, MaxResults: integer }),
    output: structure({}, { QueueUrls: queueUrls, NextToken: string }),
    hasOutput: true,
  },
  PurgeQueue: { input: queueOnly, output: nothing, hasOutput: false },
  ReceiveMessage: {
    input: structure(
      { QueueUrl: string },
      {
        AttributeNames: attributeNames,
        MessageSystemAttributeNames: list(string, 'MessageSystemAttributeName'),
        MessageAttributeNames: list(string, 'MessageAttributeName'),
        MaxNumberOfMessages: integer,
        VisibilityTimeout: integer,
        WaitTimeSeconds: integer,
        ReceiveRequestAttemptId: string,
      },
    ),
    output: structure({}, { Messages: list(message, 'Message') }),
    hasOutput: true,
  },
  RemovePermission: { input: structure({ QueueUrl: string, Label: string }, {}), output: nothing, hasOutput: false },
  SendMessage: {
    input: structure({ QueueUrl: string, MessageBody: string }, sendOptions),
    output: structure(
      {},
      {
        MD5OfMessageBody: string,
        MD5OfMessageAttributes: string,
        MD5OfMessageSystemAttributes: string,
        MessageId: string,
        SequenceNumber: string,
      },
    ),
    hasOutput: true,
  },
  SendMessageBatch: {
    input: structure({ QueueUrl: string, Entries: list(sendEntry, 'SendMessageBatchRequestEntry') }, {}),
    output: structure(
      {
        Successful: list(
          structure(
            { Id: string, MessageId: string, MD5OfMessageBody: string },
            { MD5OfMessageAttributes: string, MD5OfMessageSystemAttributes: string, SequenceNumber: string },
          ),
          'SendMessageBatchResultEntry',
        ),
        Failed: failed,
      },
      {},
    ),
    hasOutput: true,
  },
  SetQueueAttributes: {
    input: structure({ QueueUrl: string, Attributes: queueAttributes }, {}),
    output: nothing,
    hasOutput: false,
  },
  StartMessageMoveTask: {
    input: structure({ SourceArn: string }, { DestinationArn: string, MaxNumberOfMessagesPerSecond: integer }),
    output: structure({}, { TaskHandle: string }),
    hasOutput: true,
  },
  TagQueue: { input: structure({ QueueUrl: string, Tags: tags }, {}), output: nothing, hasOutput: false },
  UntagQueue: {
    input: structure({ QueueUrl: string, TagKeys: list(string, 'TagKey') }, {}),
    output: nothing,
    hasOutput: false,
  },
} as const;

export type ActionName = keyof typeof actions;
export type Input<Name extends ActionName> = ValueOf<(typeof actions)[Name]['input']>;
export type Output<Name extends ActionName> = ValueOf<(typeof actions)[Name]['output']>;
export type AttributeValue = ValueOf<typeof attributeValue>;
export type Message = ValueOf<typeof message>;
export type FailedEntry = ValueOf<typeof failed>[number];
export type SendOptions = Omit<ValueOf<typeof sendEntry>, 'Id'>;
export type MoveTask = ValueOf<typeof moveTask>;

export const isAction = (name: string): name is ActionName => Object.hasOwn(actions, name);

/** Limits of requests, from the developer guide's quota pages (2025) and the API reference. */
export const limits = {
  /** Of a message, its attributes included, and of all entries of a batch together. */
  messageBytesMax: 1_048_576,
  batchEntriesMax: 10,
  batchIdCharactersMax: 80,
  messageAttributesMax: 10,
  attributeNameCharactersMax: 256,
  attributeTypeCharactersMax: 256,
  queueNameCharactersMax: 80,
  idCharactersMax: 128,
  delaySecondsMax: 900,
  visibilitySecondsMax: 43_200,
  waitSecondsMax: 20,
  receiveMax: 10,
  listMax: 1000,
  moveTasksListed: 10,
  moveRateMax: 500,
  tagsMax: 50,
  permissionsMax: 20,
  inFlightMax: 120_000,
} as const;
