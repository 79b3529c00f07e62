/** FIFO queues and fair queues, in both protocols: developer guide, "FIFO queues" and "Amazon SQS fair queues". */
import { hash } from 'node:crypto';
import { both, type World } from './world.ts';

const group = (MessageGroupId: string, MessageDeduplicationId?: string) => ({
  MessageGroupId,
  ...(MessageDeduplicationId === undefined ? {} : { MessageDeduplicationId }),
});

/** Sends one message each, its text also its deduplication id. */
async function sendAll({ send }: World, url: string, texts: readonly string[]): Promise<void> {
  for (const text of texts) await send(url, text, group(text[0], text));
}

both('a group comes in order, and waits for what is in flight', async (t, world) => {
  const { queue, receive, bodies, sqs } = world;
  const url = await queue('q.fifo');
  await sendAll(world, url, ['a1', 'a2', 'b1', 'a3']);
  const [first] = await receive(url, { MaxNumberOfMessages: 1 });
  t.is(first.Body, 'a1');
  t.deepEqual(await bodies(url), ['b1']);
  t.deepEqual(await bodies(url), []);
  await sqs.call('DeleteMessage', { QueueUrl: url, ReceiptHandle: first.ReceiptHandle });
  t.deepEqual(await bodies(url), ['a2', 'a3']);
});

both('what comes back takes its place again', async (t, world) => {
  const { queue, receive, bodies, sqs, clock } = world;
  const url = await queue('q.fifo', { VisibilityTimeout: '5' });
  await sendAll(world, url, ['a1', 'a2']);
  const [first] = await receive(url, { MaxNumberOfMessages: 1 });
  await sqs.call('ChangeMessageVisibility', {
    QueueUrl: url,
    ReceiptHandle: first.ReceiptHandle,
    VisibilityTimeout: 0,
  });
  t.deepEqual(await bodies(url), ['a1', 'a2']);
  await clock.advance(6000);
  t.deepEqual(await bodies(url), ['a1', 'a2']);
});

both('sequence numbers have 20 digits and rise', async (t, { queue, send, receive }) => {
  const url = await queue('q.fifo');
  const numbers: string[] = [];
  for (const id of ['a', 'b', 'c']) numbers.push((await send(url, id, group('g', id))).SequenceNumber ?? '');
  for (const number of numbers) t.regex(number, /^\d{20}$/);
  t.deepEqual(numbers.toSorted(), numbers);
  const messages = await receive(url, { AttributeNames: ['All'] });
  t.deepEqual(
    messages.map(({ Attributes: all }) => [all?.SequenceNumber, all?.MessageGroupId, all?.MessageDeduplicationId]),
    numbers.map((number, index) => [number, 'g', 'abc'[index]]),
  );
});

both('one deduplication id within five minutes is one message', async (t, { queue, send, bodies, clock }) => {
  const url = await queue('q.fifo');
  const first = await send(url, 'x', group('g', 'd'));
  const second = await send(url, 'y', group('h', 'd'));
  t.deepEqual([second.MessageId, second.SequenceNumber], [first.MessageId, first.SequenceNumber]);
  t.not(second.MD5OfMessageBody, first.MD5OfMessageBody);
  t.deepEqual(await bodies(url, { VisibilityTimeout: 0 }), ['x']);
  await clock.advance(299_000);
  t.is((await send(url, 'z', group('g', 'd'))).MessageId, first.MessageId);
  await clock.advance(2000);
  t.not((await send(url, 'new', group('g', 'd'))).MessageId, first.MessageId);
  t.deepEqual(await bodies(url), ['x', 'new']);
});

both('deduplication by content goes by the body alone', async (t, { queue, send, receive }) => {
  const url = await queue('q.fifo', { ContentBasedDeduplication: 'true' });
  const first = await send(url, 'same', group('g'));
  const attributes = { MessageAttributes: { a: { DataType: 'String', StringValue: 'x' } } };
  t.is((await send(url, 'same', { ...group('g'), ...attributes })).MessageId, first.MessageId);
  t.not((await send(url, 'other', group('g'))).MessageId, first.MessageId);
  // An id that is given wins.
  t.not((await send(url, 'same', group('g', 'd'))).MessageId, first.MessageId);
  const messages = await receive(url, { AttributeNames: ['MessageDeduplicationId'] });
  t.deepEqual(
    messages.map((message) => message.Attributes?.MessageDeduplicationId),
    [hash('sha256', 'same'), hash('sha256', 'other'), 'd'],
  );
});

both('the scope of deduplication is the queue or the group', async (t, { queue, send, bodies, sqs, attributes }) => {
  const url = await queue('q.fifo', { DeduplicationScope: 'messageGroup', FifoThroughputLimit: 'perMessageGroupId' });
  t.like(await attributes(url), { DeduplicationScope: 'messageGroup', FifoThroughputLimit: 'perMessageGroupId' });
  const first = await send(url, 'g', group('g', 'd'));
  t.not((await send(url, 'h', group('h', 'd'))).MessageId, first.MessageId);
  t.is((await send(url, 'g again', group('g', 'd'))).MessageId, first.MessageId);
  t.deepEqual(await bodies(url, { VisibilityTimeout: 0 }), ['g', 'h']);
  await sqs.call('SetQueueAttributes', {
    QueueUrl: url,
    Attributes: { ContentBasedDeduplication: 'true' },
  });
  t.like(await attributes(url), { DeduplicationScope: 'messageGroup', ContentBasedDeduplication: 'true' });
  const content = await send(url, 'content', group('g'));
  t.not((await send(url, 'content', group('h'))).MessageId, content.MessageId);
  t.is((await send(url, 'content', group('g'))).MessageId, content.MessageId);
});

both('a batch keeps its order, and its duplicates are one', async (t, { queue, sqs, bodies }) => {
  const url = await queue('q.fifo');
  const entry = (Id: string, MessageBody: string, id = MessageBody) => ({ Id, MessageBody, ...group('g', id) });
  const { Successful, Failed } = await sqs.call('SendMessageBatch', {
    QueueUrl: url,
    Entries: [entry('a', '1'), entry('b', '2'), entry('c', '1'), entry('d', '3'), { Id: 'e', MessageBody: 'no group' }],
  });
  t.deepEqual(
    Successful.map(({ Id }) => Id),
    ['a', 'b', 'c', 'd'],
  );
  t.is(Successful[2].MessageId, Successful[0].MessageId);
  t.is(Successful[2].SequenceNumber, Successful[0].SequenceNumber);
  t.deepEqual(
    Failed.map(({ Id, Code }) => [Id, Code]),
    [['e', 'MissingParameter']],
  );
  t.deepEqual(await bodies(url), ['1', '2', '3']);
});

both('only the handle that holds the lock deletes', async (t, world) => {
  const { queue, receive, sqs, clock, counts } = world;
  const url = await queue('q.fifo', { VisibilityTimeout: '1' });
  await sendAll(world, url, ['a1']);
  const [old] = await receive(url);
  await clock.advance(1500);
  const remove = (ReceiptHandle?: string) => sqs.ask('DeleteMessage', { QueueUrl: url, ReceiptHandle });
  const expired = await remove(old.ReceiptHandle);
  t.is(expired.error, 'InvalidParameterValue');
  t.regex(expired.message, /The receipt handle has expired/);
  const [current] = await receive(url);
  t.is((await remove(old.ReceiptHandle)).error, 'InvalidParameterValue');
  t.deepEqual(await counts(url), [0, 1, 0]);
  t.is((await remove(current.ReceiptHandle)).error, undefined);
  t.is((await remove(current.ReceiptHandle)).error, undefined);
  t.deepEqual(await counts(url), [0, 0, 0]);
});

both('a receive that is asked for again brings the same messages and handles', async (t, world) => {
  const { queue, receive, clock, sqs } = world;
  const url = await queue('q.fifo', { VisibilityTimeout: '30' });
  await sendAll(world, url, ['a1', 'a2', 'b1']);
  const more = { ReceiveRequestAttemptId: 'attempt-1', AttributeNames: ['All'], MaxNumberOfMessages: 2 };
  const first = await receive(url, more);
  t.is(first.length, 2);
  await clock.advance(20_000);
  t.deepEqual(await receive(url, more), first);
  // The locks begin anew with each.
  await clock.advance(20_000);
  t.deepEqual(await receive(url, more), first);
  const other = await receive(url, { ReceiveRequestAttemptId: 'attempt-2' });
  t.deepEqual(
    other.map(({ Body }) => Body),
    ['b1'],
  );
  // What has changed meanwhile makes it a new receive.
  await sqs.call('DeleteMessage', { QueueUrl: url, ReceiptHandle: first[0].ReceiptHandle });
  t.deepEqual(await receive(url, more), []);
});

both('a FIFO queue has the delay of the queue', async (t, world) => {
  const { queue, bodies, clock } = world;
  const url = await queue('q.fifo', { DelaySeconds: '5' });
  await sendAll(world, url, ['a1']);
  t.deepEqual(await bodies(url), []);
  await clock.advance(5100);
  t.deepEqual(await bodies(url), ['a1']);
});

// --- fair queues ---

both('a tenant with much in flight lets the quiet ones pass', async (t, { queue, sqs, receive }) => {
  const url = await queue('q');
  const send = async (MessageGroupId: string, count: number): Promise<void> => {
    for (let from = 0; from < count; from += 10) {
      const Entries = Array.from({ length: Math.min(10, count - from) }, (_, index) => ({
        Id: `i${index}`,
        MessageBody: `${MessageGroupId}${from + index}`,
        MessageGroupId,
      }));
      await sqs.call('SendMessageBatch', { QueueUrl: url, Entries });
    }
  };
  await send('noisy', 60);
  await send('quiet', 3);
  const groups: (string | undefined)[] = [];
  for (let index = 0; index < 5; index++) {
    const messages = await receive(url, { AttributeNames: ['MessageGroupId'] });
    for (const { Attributes } of messages) groups.push(Attributes?.MessageGroupId);
  }
  // 30 in flight make it noisy: then the others come first, and after them it goes on.
  const firstQuiet = groups.indexOf('quiet');
  t.true(firstQuiet >= 29 && firstQuiet <= 40, String(firstQuiet));
  t.is(groups.filter((each) => each === 'quiet').length, 3);
  t.is(groups.length, 50);
});

both('groups of a standard queue neither order nor lock', async (t, { queue, send, bodies }) => {
  const url = await queue('q');
  await send(url, '1', group('g'));
  await send(url, '2', group('g'));
  await send(url, '3');
  t.deepEqual(await bodies(url, { MaxNumberOfMessages: 1 }), ['1']);
  t.deepEqual(await bodies(url), ['2', '3']);
  // And nothing is a duplicate.
  await send(url, '1', group('g'));
  t.deepEqual(await bodies(url), ['1']);
});
