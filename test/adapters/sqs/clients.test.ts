/** The AWS SDK for JavaScript against a real broker over HTTP: with nothing set but the endpoint. Restarts, kept state, other doors. */
import {
  ChangeMessageVisibilityBatchCommand,
  ChangeMessageVisibilityCommand,
  CreateQueueCommand,
  DeleteMessageBatchCommand,
  DeleteMessageCommand,
  DeleteQueueCommand,
  GetQueueAttributesCommand,
  GetQueueUrlCommand,
  ListQueuesCommand,
  ListQueueTagsCommand,
  type Message,
  paginateListQueues,
  PurgeQueueCommand,
  QueueDoesNotExist,
  ReceiptHandleIsInvalid,
  ReceiveMessageCommand,
  SendMessageBatchCommand,
  SendMessageCommand,
  SQSClient,
} from '@aws-sdk/client-sqs';
import amqp from 'amqplib';
import test from 'ava';
import { Kafka, logLevel } from 'kafkajs';
import { startTestBroker, type TestBroker } from '../../support/broker.ts';

let broker: TestBroker;
let sqs: SQSClient;
test.before(async () => {
  broker = await startTestBroker();
  sqs = new SQSClient({
    endpoint: broker.sqs,
    region: 'us-east-1',
    credentials: { accessKeyId: 'any', secretAccessKey: 'any' },
    maxAttempts: 1,
  });
});
test.after.always(async () => {
  sqs.destroy();
  await broker.stop();
});

let count = 0;
async function newQueue(attributes: Record<string, string> = {}, suffix = ''): Promise<string> {
  const QueueName = `q${++count}${suffix}`;
  const { QueueUrl = '' } = await sqs.send(new CreateQueueCommand({ QueueName, Attributes: attributes }));
  return QueueUrl;
}
const newFifo = (): Promise<string> => newQueue({ FifoQueue: 'true', ContentBasedDeduplication: 'true' }, '.fifo');
const nameOf = (url: string): string => url.slice(url.lastIndexOf('/') + 1);

async function receive(QueueUrl: string, more: object = {}): Promise<Message[]> {
  const command = new ReceiveMessageCommand({
    QueueUrl,
    MaxNumberOfMessages: 10,
    WaitTimeSeconds: 5,
    MessageAttributeNames: ['All'],
    MessageSystemAttributeNames: ['All'],
    ...more,
  });
  return (await sqs.send(command)).Messages ?? [];
}

test('send, receive, delete; the SDK checks the digests', async (t) => {
  const QueueUrl = await newQueue();
  await sqs.send(
    new SendMessageCommand({
      QueueUrl,
      MessageBody: 'hällo',
      MessageAttributes: {
        n: { DataType: 'Number', StringValue: '7' },
        b: { DataType: 'Binary', BinaryValue: Buffer.from([0, 255]) },
      },
    }),
  );
  const [message] = await receive(QueueUrl);
  t.is(message.Body, 'hällo');
  t.deepEqual([...(message.MessageAttributes?.['b'].BinaryValue ?? [])], [0, 255]);
  await sqs.send(
    new ChangeMessageVisibilityCommand({ QueueUrl, ReceiptHandle: message.ReceiptHandle, VisibilityTimeout: 0 }),
  );
  const [again] = await receive(QueueUrl);
  t.is(again.Attributes?.ApproximateReceiveCount, '2');
  await sqs.send(new DeleteMessageCommand({ QueueUrl, ReceiptHandle: again.ReceiptHandle }));
  t.deepEqual(await receive(QueueUrl, { WaitTimeSeconds: 0 }), []);
});

test('batches of ten', async (t) => {
  const QueueUrl = await newQueue();
  const Entries = Array.from({ length: 10 }, (_, index) => ({ Id: `i${index}`, MessageBody: `m${index}` }));
  const sent = await sqs.send(new SendMessageBatchCommand({ QueueUrl, Entries }));
  t.is(sent.Successful?.length, 10);
  const messages = await receive(QueueUrl);
  t.deepEqual(
    messages.map(({ Body = '' }) => Body).toSorted((a, b) => (a < b ? -1 : 1)),
    Entries.map(({ MessageBody }) => MessageBody),
  );
  const handles = messages.map(({ ReceiptHandle }, index) => ({ Id: `h${index}`, ReceiptHandle }));
  await sqs.send(
    new ChangeMessageVisibilityBatchCommand({
      QueueUrl,
      Entries: handles.map((each) => ({ ...each, VisibilityTimeout: 60 })),
    }),
  );
  const deleted = await sqs.send(new DeleteMessageBatchCommand({ QueueUrl, Entries: handles }));
  t.deepEqual(deleted.Failed, []);
});

test('errors are the classes of the SDK', async (t) => {
  await t.throwsAsync(sqs.send(new GetQueueUrlCommand({ QueueName: 'none' })), { instanceOf: QueueDoesNotExist });
  const QueueUrl = await newQueue();
  await t.throwsAsync(sqs.send(new DeleteMessageCommand({ QueueUrl, ReceiptHandle: 'x' })), {
    instanceOf: ReceiptHandleIsInvalid,
  });
});

test('lists page by themselves; tags', async (t) => {
  const prefix = `page${++count}-`;
  for (let index = 0; index < 5; index++) {
    await sqs.send(new CreateQueueCommand({ QueueName: `${prefix}${index}`, tags: { index: String(index) } }));
  }
  const urls: string[] = [];
  for await (const page of paginateListQueues({ client: sqs, pageSize: 2 }, { QueueNamePrefix: prefix })) {
    urls.push(...(page.QueueUrls ?? []));
  }
  t.is(urls.length, 5);
  t.deepEqual((await sqs.send(new ListQueueTagsCommand({ QueueUrl: urls[3] }))).Tags, { index: '3' });
  await sqs.send(new PurgeQueueCommand({ QueueUrl: urls[0] }));
  await sqs.send(new DeleteQueueCommand({ QueueUrl: urls[0] }));
  t.is((await sqs.send(new ListQueuesCommand({ QueueNamePrefix: prefix }))).QueueUrls?.length, 4);
});

test('a long poll that is given up takes nothing', async (t) => {
  const QueueUrl = await newQueue();
  const abort = new AbortController();
  const poll = sqs.send(new ReceiveMessageCommand({ QueueUrl, WaitTimeSeconds: 20 }), { abortSignal: abort.signal });
  const door = broker.running;
  t.truthy(door);
  // Until the broker has it.
  const url = `${broker.sqs}/?Action=GetQueueAttributes&QueueUrl=${encodeURIComponent(QueueUrl)}`;
  for (let index = 0; index < 3; index++) await (await fetch(url)).text();
  abort.abort();
  await t.throwsAsync(poll);
  for (let index = 0; index < 3; index++) await (await fetch(url)).text();
  await sqs.send(new SendMessageCommand({ QueueUrl, MessageBody: 'x' }));
  const [message] = await receive(QueueUrl);
  t.is(message.Attributes?.ApproximateReceiveCount, '1');
});

test.serial('messages, locks, handles, attributes and deduplication outlive the broker', async (t) => {
  const QueueUrl = await newQueue({ VisibilityTimeout: '600', ReceiveMessageWaitTimeSeconds: '1' });
  const fifo = await newFifo();
  await sqs.send(new SendMessageCommand({ QueueUrl, MessageBody: 'held' }));
  const [held] = await receive(QueueUrl);
  await sqs.send(new SendMessageCommand({ QueueUrl, MessageBody: 'waiting', MessageGroupId: 'g' }));
  const first = await sqs.send(new SendMessageCommand({ QueueUrl: fifo, MessageBody: 'one', MessageGroupId: 'g' }));
  const attempt = { ReceiveRequestAttemptId: 'attempt' };
  const taken = await receive(fifo, attempt);
  await broker.restart();
  const { Attributes } = await sqs.send(new GetQueueAttributesCommand({ QueueUrl, AttributeNames: ['All'] }));
  t.like(Attributes, {
    VisibilityTimeout: '600',
    ReceiveMessageWaitTimeSeconds: '1',
    ApproximateNumberOfMessages: '1',
    ApproximateNumberOfMessagesNotVisible: '1',
  });
  t.deepEqual(
    (await receive(QueueUrl)).map(({ Body }) => Body),
    ['waiting'],
  );
  await sqs.send(new DeleteMessageCommand({ QueueUrl, ReceiptHandle: held.ReceiptHandle }));
  const again = await sqs.send(new SendMessageCommand({ QueueUrl: fifo, MessageBody: 'one', MessageGroupId: 'g' }));
  t.is(again.MessageId, first.MessageId);
  const same = await receive(fifo, attempt);
  t.deepEqual(
    same.map(({ ReceiptHandle }) => ReceiptHandle),
    taken.map(({ ReceiptHandle }) => ReceiptHandle),
  );
  await sqs.send(new DeleteMessageCommand({ QueueUrl: fifo, ReceiptHandle: same[0].ReceiptHandle }));
  const after = await sqs.send(
    new GetQueueAttributesCommand({
      QueueUrl: fifo,
      AttributeNames: ['ApproximateNumberOfMessages', 'ApproximateNumberOfMessagesNotVisible'],
    }),
  );
  t.deepEqual(after.Attributes, { ApproximateNumberOfMessages: '0', ApproximateNumberOfMessagesNotVisible: '0' });
});

test('a queue of SQS is the same queue for AMQP and a topic for Kafka', async (t) => {
  const QueueUrl = await newQueue();
  const name = nameOf(QueueUrl);
  await sqs.send(
    new SendMessageCommand({
      QueueUrl,
      MessageBody: 'from sqs',
      MessageGroupId: 'tenant',
      MessageAttributes: { colour: { DataType: 'String', StringValue: 'red' } },
    }),
  );
  const connection = await amqp.connect(broker.amqp);
  const channel = await connection.createConfirmChannel();
  const got = await channel.get(name, { noAck: false });
  t.true(
    got !== false && got.content.toString() === 'from sqs' && got.properties.headers?.['colour'].toString() === 'red',
  );
  // What AMQP holds is not visible here.
  t.deepEqual(await receive(QueueUrl, { WaitTimeSeconds: 0 }), []);
  if (got) channel.nack(got, false, true);
  channel.sendToQueue(name, Buffer.from('from amqp'), { headers: { size: 7, shape: 'round' } });
  channel.sendToQueue(name, Buffer.from([0, 1, 2]));
  await channel.waitForConfirms();
  await connection.close();
  const kafka = new Kafka({ brokers: [broker.bootstrap], logLevel: logLevel.NOTHING });
  const producer = kafka.producer();
  await producer.connect();
  await producer.send({ topic: name, messages: [{ key: 'k', value: 'from kafka', headers: { h: 'v' } }] });
  await producer.disconnect();
  const messages: Message[] = [];
  while (messages.length < 4) messages.push(...(await receive(QueueUrl)));
  const byBody = new Map(messages.map((message) => [message.Body, message]));
  t.deepEqual(byBody.get('from sqs')?.MessageAttributes, { colour: { DataType: 'String', StringValue: 'red' } });
  t.is(byBody.get('from sqs')?.Attributes?.MessageGroupId, 'tenant');
  t.is(byBody.get('from amqp')?.MessageAttributes?.['shape'].StringValue, 'round');
  t.is(byBody.get('from amqp')?.MessageAttributes?.['size'].StringValue, '7');
  t.is(byBody.get('from kafka')?.MessageAttributes?.['h'].StringValue, 'v');
  t.is(byBody.get('from kafka')?.Attributes?.MessageGroupId, 'k');
  const bytes = byBody.get('AAEC');
  t.is(bytes?.MessageAttributes?.['millrace.encoding'].StringValue, 'base64');
});

test('a topic that a Kafka client made is opened as a queue', async (t) => {
  const topic = `topic${++count}`;
  const kafka = new Kafka({ brokers: [broker.bootstrap], logLevel: logLevel.NOTHING });
  const admin = kafka.admin();
  await admin.connect();
  await admin.createTopics({ topics: [{ topic, numPartitions: 3 }] });
  await admin.disconnect();
  const producer = kafka.producer();
  await producer.connect();
  await producer.send({ topic, messages: Array.from({ length: 9 }, (_, index) => ({ value: `m${index}` })) });
  await t.throwsAsync(sqs.send(new GetQueueUrlCommand({ QueueName: topic })), { instanceOf: QueueDoesNotExist });
  const { QueueUrl = '' } = await sqs.send(new CreateQueueCommand({ QueueName: topic }));
  const bodies: (string | undefined)[] = [];
  while (bodies.length < 9) bodies.push(...(await receive(QueueUrl)).map(({ Body }) => Body));
  t.deepEqual(
    bodies.toSorted((a = '', b = '') => (a < b ? -1 : 1)),
    Array.from({ length: 9 }, (_, index) => `m${index}`),
  );
  await sqs.send(new SendMessageCommand({ QueueUrl, MessageBody: 'back' }));
  t.deepEqual(
    (await receive(QueueUrl)).map(({ Body }) => Body),
    ['back'],
  );
  await producer.disconnect();
});
