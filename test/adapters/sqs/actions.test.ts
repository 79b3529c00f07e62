/**
 * What the actions do, in both protocols: behaviour as the API reference of each action and the developer guide have it. Every
 * answer is held against the service model by the client.
 */
import test from 'ava';
import { arnOf, both, openWorld, urlOf } from './world.ts';

const MIB = 1_048_576;
const TYPES = {
  text: { DataType: 'String', StringValue: 'ä <b> & "c"\r\n' },
  number: { DataType: 'Number.int', StringValue: '-1.5e3' },
  bytes: { DataType: 'Binary.png', BinaryValue: 'AAEC/w==' },
};

// --- queues ---

both('a queue has the documented defaults', async (t, { queue, attributes }) => {
  const url = await queue('q');
  t.is(url, urlOf('q'));
  t.like(await attributes(url), {
    VisibilityTimeout: '30',
    MaximumMessageSize: '1048576',
    MessageRetentionPeriod: '345600',
    DelaySeconds: '0',
    ReceiveMessageWaitTimeSeconds: '0',
    SqsManagedSseEnabled: 'true',
    QueueArn: arnOf('q'),
    ApproximateNumberOfMessages: '0',
  });
  t.false('FifoQueue' in (await attributes(url)));
});

both('a FIFO queue has its own attributes', async (t, { queue, attributes }) => {
  const url = await queue('q.fifo');
  t.like(await attributes(url), {
    FifoQueue: 'true',
    ContentBasedDeduplication: 'false',
    DeduplicationScope: 'queue',
    FifoThroughputLimit: 'perQueue',
  });
});

both('attributes are set, told and taken back', async (t, { queue, attributes, sqs, clock }) => {
  const url = await queue('q', { DelaySeconds: '3', KmsMasterKeyId: 'alias/mine' });
  t.like(await attributes(url), {
    KmsMasterKeyId: 'alias/mine',
    KmsDataKeyReusePeriodSeconds: '300',
    SqsManagedSseEnabled: 'false',
  });
  const { LastModifiedTimestamp, CreatedTimestamp } = await attributes(url);
  t.is(LastModifiedTimestamp, CreatedTimestamp);
  await clock.advance(5000);
  const policy = '{"Version":"2012-10-17","Statement":[]}';
  await sqs.call('SetQueueAttributes', {
    QueueUrl: url,
    Attributes: { VisibilityTimeout: '60', MaximumMessageSize: '2048', Policy: policy, KmsMasterKeyId: '' },
  });
  const after = await attributes(url);
  t.like(after, { VisibilityTimeout: '60', MaximumMessageSize: '2048', Policy: policy, DelaySeconds: '3' });
  t.false('KmsMasterKeyId' in after);
  t.true(Number(after['LastModifiedTimestamp']) >= Number(CreatedTimestamp) + 5);
  t.is(after['CreatedTimestamp'], CreatedTimestamp);
  const { Attributes } = await sqs.call('GetQueueAttributes', {
    QueueUrl: url,
    AttributeNames: ['DelaySeconds', 'Policy'],
  });
  t.deepEqual(Attributes, { DelaySeconds: '3', Policy: policy });
  t.deepEqual(await sqs.call('GetQueueAttributes', { QueueUrl: url }), {});
});

both('making a queue again finds it', async (t, { queue, sqs }) => {
  const url = await queue('q', { VisibilityTimeout: '5' });
  t.is(await queue('q'), url);
  t.is(await queue('q', { VisibilityTimeout: '5' }), url);
  t.is((await sqs.call('GetQueueUrl', { QueueName: 'q' })).QueueUrl, url);
  t.is(
    (await sqs.ask('CreateQueue', { QueueName: 'q', Attributes: { VisibilityTimeout: '6' } })).error,
    'QueueNameExists',
  );
});

both('a deleted queue is gone, and one made again is another', async (t, { queue, sqs, send, bodies, receive }) => {
  const url = await queue('q');
  await send(url, 'old');
  const [{ ReceiptHandle }] = await receive(url);
  t.deepEqual(await sqs.call('DeleteQueue', { QueueUrl: url }), {});
  t.is((await sqs.ask('SendMessage', { QueueUrl: url, MessageBody: 'x' })).error, 'QueueDoesNotExist');
  await queue('q');
  t.deepEqual(await bodies(url), []);
  t.is((await sqs.ask('DeleteMessage', { QueueUrl: url, ReceiptHandle })).error, 'ReceiptHandleIsInvalid');
});

both('lists have prefixes and pages', async (t, { queue, sqs }) => {
  t.deepEqual(await sqs.call('ListQueues'), {});
  for (const name of ['b2', 'a1', 'b1', 'b3.fifo']) await queue(name);
  t.deepEqual(await sqs.call('ListQueues'), { QueueUrls: ['a1', 'b1', 'b2', 'b3.fifo'].map(urlOf) });
  const first = await sqs.call('ListQueues', { QueueNamePrefix: 'b', MaxResults: 2 });
  t.deepEqual(first.QueueUrls, [urlOf('b1'), urlOf('b2')]);
  const second = await sqs.call('ListQueues', { QueueNamePrefix: 'b', MaxResults: 2, NextToken: first.NextToken });
  t.deepEqual(second, { QueueUrls: [urlOf('b3.fifo')] });
});

both('tags come and go', async (t, { queue, sqs }) => {
  const url = await queue('q');
  t.deepEqual(await sqs.call('ListQueueTags', { QueueUrl: url }), {});
  await sqs.call('TagQueue', { QueueUrl: url, Tags: { a: '1', b: '' } });
  await sqs.call('TagQueue', { QueueUrl: url, Tags: { a: '2', 'c d': 'e' } });
  t.deepEqual((await sqs.call('ListQueueTags', { QueueUrl: url })).Tags, { a: '2', b: '', 'c d': 'e' });
  await sqs.call('UntagQueue', { QueueUrl: url, TagKeys: ['a', 'none', 'c d'] });
  t.deepEqual((await sqs.call('ListQueueTags', { QueueUrl: url })).Tags, { b: '' });
  await sqs.call('CreateQueue', { QueueName: 'tagged', tags: { x: 'y' } });
  t.deepEqual((await sqs.call('ListQueueTags', { QueueUrl: urlOf('tagged') })).Tags, { x: 'y' });
});

both('permissions are statements of the policy', async (t, { queue, sqs, attributes }) => {
  const url = await queue('q');
  const input = {
    QueueUrl: url,
    Label: 'l1',
    AWSAccountIds: ['123456789012'],
    Actions: ['SendMessage', 'ReceiveMessage'],
  };
  await sqs.call('AddPermission', input);
  const policy = JSON.parse((await attributes(url))['Policy']);
  t.deepEqual(policy.Statement, [
    {
      Sid: 'l1',
      Effect: 'Allow',
      Principal: { AWS: 'arn:aws:iam::123456789012:root' },
      Action: ['SQS:SendMessage', 'SQS:ReceiveMessage'],
      Resource: arnOf('q'),
    },
  ]);
  t.is((await sqs.ask('AddPermission', input)).error, 'InvalidParameterValue');
  await sqs.call('RemovePermission', { QueueUrl: url, Label: 'l1' });
  t.false('Policy' in (await attributes(url)));
});

both(
  'a purge takes what waits, what is delayed and what is in flight',
  async (t, { queue, send, receive, sqs, counts }) => {
    const url = await queue('q');
    await send(url, 'a');
    await receive(url);
    await send(url, 'b');
    await send(url, 'c', { DelaySeconds: 100 });
    t.deepEqual(await counts(url), [1, 1, 1]);
    t.deepEqual(await sqs.call('PurgeQueue', { QueueUrl: url }), {});
    t.deepEqual(await counts(url), [0, 0, 0]);
  },
);

both(
  'in strict mode purges and names need 60 seconds',
  async (t, { queue, sqs, clock }) => {
    const url = await queue('q');
    await sqs.call('PurgeQueue', { QueueUrl: url });
    const again = await sqs.ask('PurgeQueue', { QueueUrl: url });
    t.is(again.error, 'PurgeQueueInProgress');
    t.is(again.status, 403);
    await clock.advance(60_000);
    t.is((await sqs.ask('PurgeQueue', { QueueUrl: url })).error, undefined);
    await sqs.call('DeleteQueue', { QueueUrl: url });
    t.is((await sqs.ask('CreateQueue', { QueueName: 'q' })).error, 'QueueDeletedRecently');
    await clock.advance(60_000);
    t.is(await queue('q'), url);
  },
  { 'sqs.strict': true },
);

// --- messages ---

both('what is sent comes back as it was', async (t, { queue, sqs, receive }) => {
  const url = await queue('q');
  const body = 'ä <b> & "c" \'d\'\t\r\n😀';
  const sent = await sqs.call('SendMessage', {
    QueueUrl: url,
    MessageBody: body,
    MessageAttributes: TYPES,
    MessageSystemAttributes: { AWSTraceHeader: { DataType: 'String', StringValue: 'Root=1-5759e988' } },
  });
  const [message, ...rest] = await receive(url, {
    MessageAttributeNames: ['All'],
    MessageSystemAttributeNames: ['All'],
  });
  t.deepEqual(rest, []);
  t.is(message.Body, body);
  t.is(message.MessageId, sent.MessageId);
  t.regex(message.MessageId ?? '', /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/);
  t.is(message.MD5OfBody, sent.MD5OfMessageBody);
  t.is(message.MD5OfMessageAttributes, sent.MD5OfMessageAttributes);
  t.deepEqual(message.MessageAttributes, TYPES);
  const { SentTimestamp, ApproximateFirstReceiveTimestamp, ...system } = message.Attributes ?? {};
  t.deepEqual(system, { SenderId: '000000000000', ApproximateReceiveCount: '1', AWSTraceHeader: 'Root=1-5759e988' });
  t.true(Number(SentTimestamp) <= Number(ApproximateFirstReceiveTimestamp));
});

both('attributes are told as they are asked for', async (t, { queue, sqs, receive }) => {
  const url = await queue('q');
  const attribute = { DataType: 'String', StringValue: 'x' };
  const given = { 'a.one': attribute, 'a.two': attribute, b: attribute };
  await sqs.call('SendMessage', { QueueUrl: url, MessageBody: 'x', MessageAttributes: given });
  const names = async (MessageAttributeNames?: string[]): Promise<string[]> => {
    const [message] = await receive(url, {
      VisibilityTimeout: 0,
      ...(MessageAttributeNames ? { MessageAttributeNames } : {}),
    });
    t.is(message.MD5OfMessageAttributes === undefined, message.MessageAttributes === undefined);
    return Object.keys(message.MessageAttributes ?? {}).sort();
  };
  t.deepEqual(await names(), []);
  t.deepEqual(await names(['All']), ['a.one', 'a.two', 'b']);
  t.deepEqual(await names(['.*']), ['a.one', 'a.two', 'b']);
  t.deepEqual(await names(['a.*']), ['a.one', 'a.two']);
  t.deepEqual(await names(['b', 'none']), ['b']);
});

both('system attributes go by the old and the new name', async (t, { queue, send, receive }) => {
  const url = await queue('q');
  await send(url, 'x');
  const old = await receive(url, { AttributeNames: ['SenderId'], VisibilityTimeout: 0 });
  t.deepEqual(old[0].Attributes, { SenderId: '000000000000' });
  const both = await receive(url, {
    AttributeNames: ['SenderId'],
    MessageSystemAttributeNames: ['ApproximateReceiveCount'],
  });
  t.deepEqual(both[0].Attributes, { SenderId: '000000000000', ApproximateReceiveCount: '2' });
});

both('a lock runs out and counts', async (t, { queue, send, receive, bodies, clock }) => {
  const url = await queue('q', { VisibilityTimeout: '5' });
  await send(url, 'x');
  t.deepEqual(await bodies(url), ['x']);
  await clock.advance(4900);
  t.deepEqual(await bodies(url), []);
  await clock.advance(200);
  const [message] = await receive(url, { AttributeNames: ['All'], VisibilityTimeout: 1 });
  t.is(message.Attributes?.ApproximateReceiveCount, '2');
  await clock.advance(1100);
  t.deepEqual(await bodies(url), ['x']);
});

both(
  'a deleted message stays deleted, also when it is deleted twice',
  async (t, { queue, send, receive, sqs, counts, clock }) => {
    const url = await queue('q', { VisibilityTimeout: '1' });
    await send(url, 'x');
    const [{ ReceiptHandle }] = await receive(url);
    t.deepEqual(await sqs.call('DeleteMessage', { QueueUrl: url, ReceiptHandle }), {});
    t.deepEqual(await sqs.call('DeleteMessage', { QueueUrl: url, ReceiptHandle }), {});
    await clock.advance(5000);
    t.deepEqual(await counts(url), [0, 0, 0]);
  },
);

both(
  'an old handle of a standard queue deletes, also after another receive',
  async (t, { queue, send, receive, sqs, counts, clock }) => {
    const url = await queue('q', { VisibilityTimeout: '1' });
    await send(url, 'a');
    await send(url, 'b');
    const [first, second] = await receive(url);
    await clock.advance(1500);
    await sqs.call('DeleteMessage', { QueueUrl: url, ReceiptHandle: first.ReceiptHandle });
    await receive(url);
    t.deepEqual(await counts(url), [0, 1, 0]);
    await sqs.call('DeleteMessage', { QueueUrl: url, ReceiptHandle: second.ReceiptHandle });
    t.deepEqual(await counts(url), [0, 0, 0]);
  },
);

both('a handle opens its own queue only', async (t, { queue, send, receive, sqs }) => {
  const [a, b] = [await queue('a'), await queue('b')];
  await send(a, 'x');
  const [{ ReceiptHandle = '' }] = await receive(a);
  const elsewhere = await sqs.ask('DeleteMessage', { QueueUrl: b, ReceiptHandle });
  t.is(elsewhere.error, 'ReceiptHandleIsInvalid');
  t.is(elsewhere.status, 404);
  const bytes = Buffer.from(ReceiptHandle, 'base64');
  for (let at = 0; at < bytes.length; at++) {
    const forged = Buffer.from(bytes);
    forged[at] ^= 1;
    const answer = await sqs.ask('DeleteMessage', { QueueUrl: a, ReceiptHandle: forged.toString('base64') });
    t.is(answer.error, 'ReceiptHandleIsInvalid', `byte ${at}`);
  }
});

both('visibility is changed: longer, shorter, at once', async (t, { queue, send, receive, bodies, sqs, clock }) => {
  const url = await queue('q', { VisibilityTimeout: '10' });
  await send(url, 'x');
  const [{ ReceiptHandle }] = await receive(url);
  const change = (VisibilityTimeout: number) =>
    sqs.call('ChangeMessageVisibility', { QueueUrl: url, ReceiptHandle, VisibilityTimeout });
  await change(20);
  await clock.advance(15_000);
  t.deepEqual(await bodies(url), []);
  await change(1);
  await clock.advance(1500);
  const [again] = await receive(url);
  t.is(again.Body, 'x');
  await sqs.call('ChangeMessageVisibility', {
    QueueUrl: url,
    ReceiptHandle: again.ReceiptHandle,
    VisibilityTimeout: 0,
  });
  t.deepEqual(await bodies(url), ['x']);
});

both('visibility is changed by who holds the lock only', async (t, { queue, send, receive, sqs, clock }) => {
  const url = await queue('q', { VisibilityTimeout: '1' });
  await send(url, 'x');
  const [{ ReceiptHandle }] = await receive(url);
  const error = async (VisibilityTimeout = 5) =>
    (await sqs.ask('ChangeMessageVisibility', { QueueUrl: url, ReceiptHandle, VisibilityTimeout })).error;
  await clock.advance(1500);
  t.is(await error(), 'MessageNotInflight');
  await receive(url);
  t.is(await error(), 'MessageNotInflight');
  await sqs.call('DeleteMessage', { QueueUrl: url, ReceiptHandle });
  t.is(await error(), 'InvalidParameterValue');
});

both('no lock is longer than twelve hours in all', async (t, { queue, send, receive, sqs, clock }) => {
  const url = await queue('q', { VisibilityTimeout: '43200' });
  await send(url, 'x');
  const [{ ReceiptHandle }] = await receive(url);
  await clock.advance(10_000);
  const change = (VisibilityTimeout: number) =>
    sqs.ask('ChangeMessageVisibility', { QueueUrl: url, ReceiptHandle, VisibilityTimeout });
  t.regex(
    (await change(43_200)).message,
    /Total VisibilityTimeout for the message is beyond the limit \[43200 seconds\]/,
  );
  t.is((await change(43_000)).error, undefined);
});

both('batches answer each entry', async (t, { queue, receive, sqs, counts }) => {
  const url = await queue('q');
  const sent = await sqs.call('SendMessageBatch', {
    QueueUrl: url,
    Entries: [
      { Id: 'good', MessageBody: 'a', MessageAttributes: TYPES },
      { Id: 'bad', MessageBody: '\u0000' },
      { Id: 'late', MessageBody: 'b', DelaySeconds: 900 },
      { Id: 'worse', MessageBody: 'c', DelaySeconds: 901 },
    ],
  });
  t.deepEqual(
    sent.Successful.map(({ Id }) => Id),
    ['good', 'late'],
  );
  t.deepEqual(
    sent.Failed.map(({ Id, Code, SenderFault }) => [Id, Code, SenderFault]),
    [
      ['bad', 'InvalidMessageContents', true],
      ['worse', 'InvalidParameterValue', true],
    ],
  );
  t.deepEqual(await counts(url), [1, 0, 1]);
  const [{ ReceiptHandle }] = await receive(url);
  const visibility = await sqs.call('ChangeMessageVisibilityBatch', {
    QueueUrl: url,
    Entries: [
      { Id: 'a', ReceiptHandle, VisibilityTimeout: 60 },
      { Id: 'b', ReceiptHandle: 'x', VisibilityTimeout: 60 },
      { Id: 'c', ReceiptHandle, VisibilityTimeout: 99_999 },
    ],
  });
  t.deepEqual(visibility.Successful, [{ Id: 'a' }]);
  t.deepEqual(
    visibility.Failed.map(({ Id, Code }) => [Id, Code]),
    [
      ['b', 'ReceiptHandleIsInvalid'],
      ['c', 'InvalidParameterValue'],
    ],
  );
  const deleted = await sqs.call('DeleteMessageBatch', {
    QueueUrl: url,
    Entries: [
      { Id: 'a', ReceiptHandle },
      { Id: 'b', ReceiptHandle: 'x' },
    ],
  });
  t.deepEqual(deleted.Successful, [{ Id: 'a' }]);
  t.deepEqual(
    deleted.Failed.map(({ Id, Code }) => [Id, Code]),
    [['b', 'ReceiptHandleIsInvalid']],
  );
  t.deepEqual(await counts(url), [0, 0, 1]);
});

both('delays: of the queue, of a message, none', async (t, { queue, send, bodies, clock, counts }) => {
  const url = await queue('q', { DelaySeconds: '10' });
  await send(url, 'queue');
  await send(url, 'now', { DelaySeconds: 0 });
  await send(url, 'soon', { DelaySeconds: 2 });
  t.deepEqual(await counts(url), [1, 0, 2]);
  t.deepEqual(await bodies(url), ['now']);
  await clock.advance(2100);
  t.deepEqual(await bodies(url), ['soon']);
  await clock.advance(8000);
  t.deepEqual(await bodies(url), ['queue']);
});

both('a delay of any length is asked for by a message attribute', async (t, { queue, send, bodies, clock }) => {
  const url = await queue('q');
  const MessageAttributes = { 'millrace.delay.ms': { DataType: 'Number', StringValue: String(3_600_000) } };
  await send(url, 'in an hour', { MessageAttributes });
  await clock.advance(3_599_000);
  t.deepEqual(await bodies(url), []);
  await clock.advance(2000);
  t.deepEqual(await bodies(url, { MessageAttributeNames: ['All'] }), ['in an hour']);
});

both('messages live as long as the queue says', async (t, { queue, send, counts, clock }) => {
  const url = await queue('q', { MessageRetentionPeriod: '60' });
  await send(url, 'x');
  await clock.advance(59_000);
  t.deepEqual(await counts(url), [1, 0, 0]);
  await clock.advance(3000);
  t.deepEqual(await counts(url), [0, 0, 0]);
});

both('a message of 1 MiB passes, and comes alone', async (t, { queue, send, receive, sqs }) => {
  const url = await queue('q');
  await send(url, 'x'.repeat(MIB));
  await send(url, 'small');
  const first = await receive(url);
  t.deepEqual(
    first.map(({ Body }) => Body?.length),
    [MIB],
  );
  const [second] = await receive(url, { AttributeNames: ['All'] });
  t.is(second.Body, 'small');
  // What did not fit has not been received.
  t.is(second.Attributes?.ApproximateReceiveCount, '1');
  t.is(
    (await sqs.ask('SetQueueAttributes', { QueueUrl: url, Attributes: { MaximumMessageSize: '1024' } })).error,
    undefined,
  );
  t.is((await sqs.ask('SendMessage', { QueueUrl: url, MessageBody: 'x'.repeat(1025) })).error, 'InvalidParameterValue');
});

// --- long polls ---

both('a long poll ends with what comes', async (t, { queue, sqs, settle, request, door, clock, send }) => {
  const url = await queue('q');
  const body = JSON.stringify({ QueueUrl: url, WaitTimeSeconds: 20 });
  const waiting = request({ headers: { 'x-amz-target': 'AmazonSQS.ReceiveMessage' }, body });
  await clock.advance(5000);
  t.is(door.waitingCount, 1);
  await send(url, 'late');
  const { body: text = '' } = await settle(waiting.answer);
  t.is(JSON.parse(text.toString()).Messages[0].Body, 'late');
  t.is(door.waitingCount, 0);
  const before = clock.monotonic();
  t.deepEqual(await sqs.call('ReceiveMessage', { QueueUrl: url, WaitTimeSeconds: 2 }), {});
  t.true(clock.monotonic() - before >= 2000);
});

both("the queue's wait time is the default", async (t, { queue, sqs, clock }) => {
  const url = await queue('q', { ReceiveMessageWaitTimeSeconds: '3' });
  const before = clock.monotonic();
  await sqs.call('ReceiveMessage', { QueueUrl: url });
  t.true(clock.monotonic() - before >= 3000);
  const then = clock.monotonic();
  await sqs.call('ReceiveMessage', { QueueUrl: url, WaitTimeSeconds: 0 });
  t.true(clock.monotonic() - then < 1000);
});

const longPoll = (url: string) => ({
  headers: { 'x-amz-target': 'AmazonSQS.ReceiveMessage' },
  body: JSON.stringify({ QueueUrl: url, WaitTimeSeconds: 20, AttributeNames: ['All'] }),
});

test('a long poll whose peer has gone takes no message', async (t) => {
  const { queue, request, clock, door, send, receive, settle } = await openWorld('json');
  const url = await queue('q');
  const gone = request(longPoll(url));
  const there = request(longPoll(url));
  await clock.advance(1000);
  gone.close();
  t.is(door.waitingCount, 1);
  await send(url, 'x');
  const { body = '' } = await settle(there.answer);
  t.is(JSON.parse(body.toString()).Messages[0].Body, 'x');
  t.deepEqual(await receive(url), []);
});

test('a peer that goes while its message is on the way gives it back, not counted', async (t) => {
  const { queue, request, clock, receive, counts, engine } = await openWorld('json');
  const url = await queue('q');
  const poll = request(longPoll(url));
  await clock.advance(1000);
  const sending = request({
    headers: { 'x-amz-target': 'AmazonSQS.SendMessage' },
    body: JSON.stringify({ QueueUrl: url, MessageBody: 'x' }),
  });
  // It is handed out in this time, and its peer goes as soon as somebody could notice.
  const done = sending.answer.then(() => poll.close());
  await clock.settle(done);
  const { body = '' } = await clock.settle(poll.answer);
  const answered = JSON.parse(body.toString()).Messages !== undefined;
  t.deepEqual(await counts(url), answered ? [0, 1, 0] : [1, 0, 0]);
  if (!answered) {
    const [message] = await receive(url, { AttributeNames: ['All'] });
    t.is(message.Attributes?.ApproximateReceiveCount, '1');
  }
  t.true(engine.lastPosition > 0);
});

test('long polls are served in turn, one message each', async (t) => {
  const { queue, request, clock, send, settle } = await openWorld('json');
  const url = await queue('q');
  const polls = Array.from({ length: 5 }, () => request(longPoll(url)));
  await clock.advance(1000);
  for (let index = 0; index < 5; index++) await send(url, `m${index}`);
  const bodies: string[] = [];
  for (const poll of polls) {
    const { body = '' } = await settle(poll.answer);
    bodies.push(...JSON.parse(body.toString()).Messages.map(({ Body }: { Body: string }) => Body));
  }
  t.deepEqual(bodies, ['m0', 'm1', 'm2', 'm3', 'm4']);
});

test('a stop ends long polls with nothing; a deleted queue says so', async (t) => {
  const { queue, request, clock, door, settle, sqs } = await openWorld('json');
  const [a, b] = [await queue('a'), await queue('b')];
  const onDeleted = request(longPoll(b));
  await clock.advance(100);
  await sqs.call('DeleteQueue', { QueueUrl: b });
  t.is((await settle(onDeleted.answer)).status, 400);
  const poll = request(longPoll(a));
  await clock.advance(100);
  door.drain();
  t.is((await settle(poll.answer)).body, '{}');
  t.true(door.isIdle);
});

// --- limits in flight ---

test('a standard queue has 120,000 messages in flight, a FIFO queue says nothing of it', async (t) => {
  const { queue, sqs, broker, settle, send, receive } = await openWorld('json');
  const url = await queue('q');
  const found = broker.queues.get('q');
  const { BatchBuilder } = await import('../../../protocol/record-batch.ts');
  const builder = new BatchBuilder(64 * 1024 * 1024);
  for (let index = 0; index < 120_001; index++) builder.add({ key: null, value: Buffer.from('x'), timestamp: 0 });
  const batch = builder.build();
  const [partition] = found?.topic.partitions ?? [];
  const intake = broker.queues.intake(partition.topicId);
  const pending = intake?.check(partition, batch, 'door');
  const appended = partition.append(batch, { origin: 'client', urgency: 'waited' });
  if (pending !== undefined) intake?.appended(partition, pending, appended);
  await settle(new Promise<void>((resolve) => broker.queues.whenDurable(resolve)));
  t.is(found?.acquire(broker.queues.newOwner(), 0, 119_995, 'sqs', 3_600_000).at(-1)?.lastOffset, 119_994);
  // What other doors hold does not count.
  found?.acquire(broker.queues.newOwner(), 0, 1, 'amqp');
  t.is((await receive(url)).length, 5);
  const full = await sqs.ask('ReceiveMessage', { QueueUrl: url });
  t.is(full.error, 'OverLimit');
  t.is(full.status, 403);
  await sqs.call('PurgeQueue', { QueueUrl: url });
  await send(url, 'after');
  t.is((await receive(url)).length, 1);
});

// --- restarts ---

test('the path names the queue, the host of the client comes back', async (t) => {
  const { sqs, queue, request, settle } = await openWorld('query');
  await queue('q');
  const ask = async (target: string, host: string) =>
    (await settle(request({ method: 'GET', target, headers: { host } }).answer)).body?.toString() ?? '';
  t.regex(
    await ask('/?Action=GetQueueUrl&QueueName=q', 'sqs.example:80'),
    /<QueueUrl>http:\/\/sqs\.example:80\/000000000000\/q</,
  );
  t.regex(
    await ask('/123456789012/q?Action=GetQueueAttributes&AttributeName.1=QueueArn', 'h'),
    /arn:aws:sqs:us-east-1:123456789012:q/,
  );
  t.regex(
    await ask('/queue/eu-west-1/123456789012/q?Action=GetQueueAttributes&AttributeName.1=QueueArn', 'h'),
    /arn:aws:sqs:eu-west-1:123456789012:q/,
  );
  t.regex(
    await ask('/123456789012/q?Action=GetQueueAttributes&AttributeName.1=QueueArn', 'ap-south-1.queue.example'),
    /arn:aws:sqs:ap-south-1:123456789012:q/,
  );
  t.is((await sqs.ask('SendMessage', { MessageBody: 'x' }, { path: '/000000000000/q' })).error, undefined);
  t.regex(await ask('/', 'h'), /<Code>MissingAction</);
  t.regex(await ask('/?Action=Nonsense', 'h'), /<Code>InvalidAction</);
  const put = await settle(request({ method: 'PUT', target: '/?Action=ListQueues' }).answer);
  t.is(put.status, 400);
});

test('a fixed public address', async (t) => {
  const { queue } = await openWorld('json', {
    'sqs.public.url': 'https://sqs.example/',
    'sqs.account': '123456789012',
  });
  t.is(await queue('q'), 'https://sqs.example/123456789012/q');
});

test('requests are counted by action and outcome, and long polls while they wait', async (t) => {
  const { sqs, queue, door, request, clock } = await openWorld('json');
  const { Metrics } = await import('../../../broker/metrics.ts');
  const metrics = new Metrics();
  door.observe(metrics);
  const url = await queue('q');
  await sqs.ask('SendMessage', { QueueUrl: url, MessageBody: '' });
  await sqs.ask('Nonsense', {});
  const poll = request(longPoll(url));
  await clock.advance(10);
  const text = metrics.render();
  t.true(text.includes('millrace_sqs_requests_total{action="CreateQueue",code="ok"} 1'), text);
  t.true(text.includes('millrace_sqs_requests_total{action="SendMessage",code="MissingParameter"} 1'));
  t.true(text.includes('millrace_sqs_requests_total{action="",code="UnknownOperationException"} 1'));
  t.true(text.includes('millrace_sqs_long_polls 1'));
  poll.close();
});
