/** Dead-letter queues and move tasks, in both protocols: developer guide, "Dead-letter queues" and "Redrive". */
import { arnOf, both, urlOf, type World } from './world.ts';

const redrive = (target: string, maxReceiveCount: number) => ({
  RedrivePolicy: JSON.stringify({ deadLetterTargetArn: arnOf(target), maxReceiveCount }),
});

/** Receives until all of it has left, and waits for the move. */
async function kill({ receive, clock }: World, url: string, receives: number): Promise<void> {
  for (let index = 0; index < receives; index++) {
    await receive(url, { VisibilityTimeout: 0 });
    await clock.advance(10);
  }
  await receive(url);
  await clock.advance(2000);
}

both('a message leaves at the receive that would be one too many', async (t, world) => {
  const { queue, send, receive, bodies, counts } = world;
  const dead = await queue('dead');
  const url = await queue('q', redrive('dead', 2));
  const sent = await send(url, 'x', { MessageAttributes: { a: { DataType: 'Number', StringValue: '1' } } });
  const [first] = await receive(url, { AttributeNames: ['SentTimestamp'], VisibilityTimeout: 0 });
  t.deepEqual(await bodies(url, { VisibilityTimeout: 0 }), ['x']);
  t.deepEqual(await counts(dead), [0, 0, 0]);
  t.deepEqual(await bodies(url), []);
  await world.clock.advance(2000);
  t.deepEqual(await counts(url), [0, 0, 0]);
  const [message] = await receive(dead, { AttributeNames: ['All'], MessageAttributeNames: ['All'] });
  t.is(message.Body, 'x');
  t.is(message.MessageId, sent.MessageId);
  t.deepEqual(message.MessageAttributes, { a: { DataType: 'Number', StringValue: '1' } });
  t.is(message.Attributes?.DeadLetterQueueSourceArn, arnOf('q'));
  t.is(message.Attributes?.SentTimestamp, first.Attributes?.SentTimestamp);
});

both('the policy is told as it was set, and can be taken back', async (t, { queue, attributes, sqs }) => {
  await queue('dead');
  const url = await queue('q', redrive('dead', 7));
  t.deepEqual(JSON.parse((await attributes(url))['RedrivePolicy']), {
    deadLetterTargetArn: arnOf('dead'),
    maxReceiveCount: 7,
  });
  t.is(await queue('q', redrive('dead', 7)), url);
  t.is((await sqs.ask('CreateQueue', { QueueName: 'q', Attributes: redrive('dead', 8) })).error, 'QueueNameExists');
  await sqs.call('SetQueueAttributes', { QueueUrl: url, Attributes: { RedrivePolicy: '' } });
  t.false('RedrivePolicy' in (await attributes(url)));
});

both('sources of a dead-letter queue are listed in pages', async (t, { queue, sqs }) => {
  const dead = await queue('dead');
  t.deepEqual(await sqs.call('ListDeadLetterSourceQueues', { QueueUrl: dead }), { queueUrls: [] });
  for (const name of ['c', 'a', 'b']) await queue(name, redrive('dead', 1));
  const all = await sqs.call('ListDeadLetterSourceQueues', { QueueUrl: dead });
  t.deepEqual(all, { queueUrls: ['a', 'b', 'c'].map(urlOf) });
  const page = await sqs.call('ListDeadLetterSourceQueues', { QueueUrl: dead, MaxResults: 2 });
  t.deepEqual(page.queueUrls, ['a', 'b'].map(urlOf));
  const next = { QueueUrl: dead, MaxResults: 2, NextToken: page.NextToken };
  t.deepEqual(await sqs.call('ListDeadLetterSourceQueues', next), { queueUrls: [urlOf('c')] });
});

both('a dead-letter queue says whose letters it takes', async (t, { queue, sqs, attributes }) => {
  const allow = (policy: object) => ({ RedriveAllowPolicy: JSON.stringify(policy) });
  const dead = await queue('dead', allow({ redrivePermission: 'byQueue', sourceQueueArns: [arnOf('good')] }));
  t.is(
    (await attributes(dead))['RedriveAllowPolicy'],
    JSON.stringify({ redrivePermission: 'byQueue', sourceQueueArns: [arnOf('good')] }),
  );
  await queue('good', redrive('dead', 1));
  const bad = { QueueName: 'bad', Attributes: redrive('dead', 1) };
  t.is((await sqs.ask('CreateQueue', bad)).error, 'InvalidParameterValue');
  await sqs.call('SetQueueAttributes', { QueueUrl: dead, Attributes: allow({ redrivePermission: 'denyAll' }) });
  t.is((await sqs.ask('CreateQueue', bad)).error, 'InvalidParameterValue');
  await sqs.call('SetQueueAttributes', { QueueUrl: dead, Attributes: allow({ redrivePermission: 'allowAll' }) });
  t.is((await sqs.ask('CreateQueue', bad)).error, undefined);
});

both('a task moves letters back to where they came from', async (t, world) => {
  const { queue, send, sqs, receive, counts, clock, bodies } = world;
  const dead = await queue('dead');
  const [a, b] = [await queue('a', redrive('dead', 1)), await queue('b', redrive('dead', 1))];
  const sent = await send(a, 'from a');
  await send(b, 'from b');
  for (const url of [a, b]) await kill(world, url, 1);
  t.deepEqual(await counts(dead), [2, 0, 0]);
  const { TaskHandle } = await sqs.call('StartMessageMoveTask', { SourceArn: arnOf('dead') });
  t.truthy(TaskHandle);
  await clock.advance(2000);
  t.deepEqual(await bodies(b), ['from b']);
  const [message] = await receive(a, { AttributeNames: ['All'] });
  t.is(message.Body, 'from a');
  // A new id and count, as the developer guide has it.
  t.not(message.MessageId, sent.MessageId);
  t.is(message.Attributes?.ApproximateReceiveCount, '1');
  t.deepEqual(await counts(dead), [0, 0, 0]);
  const { Results = [] } = await sqs.call('ListMessageMoveTasks', { SourceArn: arnOf('dead') });
  t.like(Results[0], { Status: 'COMPLETED', SourceArn: arnOf('dead'), ApproximateNumberOfMessagesMoved: 2 });
  t.false('TaskHandle' in Results[0]);
  t.is((await sqs.ask('CancelMessageMoveTask', { TaskHandle })).error, 'UnsupportedOperation');
});

both('a task has a rate, is cancelled, and is the only one of its queue', async (t, world) => {
  const { queue, send, sqs, counts, clock } = world;
  const dead = await queue('dead');
  await queue('q', redrive('dead', 1));
  const other = await queue('other');
  for (let index = 0; index < 20; index++) await send(dead, `m${index}`);
  const start = { SourceArn: arnOf('dead'), DestinationArn: arnOf('other'), MaxNumberOfMessagesPerSecond: 1 };
  const { TaskHandle } = await sqs.call('StartMessageMoveTask', start);
  t.is((await sqs.ask('StartMessageMoveTask', start)).error, 'UnsupportedOperation');
  await clock.advance(3000);
  const { Results = [] } = await sqs.call('ListMessageMoveTasks', { SourceArn: arnOf('dead'), MaxResults: 10 });
  t.like(Results[0], {
    Status: 'RUNNING',
    DestinationArn: arnOf('other'),
    MaxNumberOfMessagesPerSecond: 1,
    TaskHandle,
  });
  const { ApproximateNumberOfMessagesMoved: moved = 0 } = await sqs.call('CancelMessageMoveTask', { TaskHandle });
  t.true(moved > 0 && moved < 20, String(moved));
  await clock.advance(5000);
  t.deepEqual(await counts(other), [moved, 0, 0]);
  t.deepEqual(await counts(dead), [20 - moved, 0, 0]);
  const after = await sqs.call('ListMessageMoveTasks', { SourceArn: arnOf('dead') });
  t.is(after.Results?.[0].Status, 'CANCELLED');
});

both('no tasks are no list', async (t, { queue, sqs }) => {
  await queue('dead');
  t.deepEqual(await sqs.call('ListMessageMoveTasks', { SourceArn: arnOf('dead') }), {});
});

both('letters of FIFO queues keep their group and order', async (t, world) => {
  const { queue, send, receive } = world;
  const dead = await queue('dead.fifo');
  const url = await queue('q.fifo', redrive('dead.fifo', 1));
  for (const id of ['1', '2']) await send(url, id, { MessageGroupId: 'g', MessageDeduplicationId: id });
  await kill(world, url, 1);
  const messages = await receive(dead, { AttributeNames: ['All'] });
  t.deepEqual(
    messages.map(({ Body, Attributes: all }) => [Body, all?.MessageGroupId, all?.MessageDeduplicationId]),
    [
      ['1', 'g', '1'],
      ['2', 'g', '2'],
    ],
  );
});
