/** Queues at the start, out of files of three kinds; the same file twice changes nothing. */
import test from 'ava';
import { parseHocon } from '../../../adapters/sqs/hocon.ts';
import { wantedQueues } from '../../../adapters/sqs/startup.ts';
import { openWorld, urlOf } from './world.ts';

const PLACE = { region: 'eu-west-1', account: '123456789012' };
const arn = (name: string): string => `arn:aws:sqs:eu-west-1:123456789012:${name}`;
const read = (text: string, fileName: string) =>
  wantedQueues(text, fileName, PLACE).map(({ name, attributes, tags }) => [
    name,
    Object.fromEntries(attributes),
    Object.fromEntries(tags),
  ]);

const LIST = `
queues:
  - name: orders
    attributes:
      VisibilityTimeout: 60
      RedrivePolicy: { deadLetterTargetArn: '${arn('dead')}', maxReceiveCount: 5 }
    tags: { team: shop }
  - name: dead
  - name: steps.fifo
    attributes: { ContentBasedDeduplication: true }
`;

test('a list of ours', (t) => {
  const policy = JSON.stringify({ deadLetterTargetArn: arn('dead'), maxReceiveCount: 5 });
  t.deepEqual(read(LIST, 'queues.yaml'), [
    ['orders', { VisibilityTimeout: '60', RedrivePolicy: policy }, { team: 'shop' }],
    ['dead', {}, {}],
    ['steps.fifo', { ContentBasedDeduplication: 'true', FifoQueue: 'true' }, {}],
  ]);
});

test('the queues of an elasticmq.conf', (t) => {
  const conf = `
include classpath("application.conf")
node-address { protocol = http, host = "localhost", port = 9324 }
queues {
  // the first
  queue1 {
    defaultVisibilityTimeout = 10 seconds
    delay = 5 seconds # soon
    receiveMessageWait = 0 seconds
    deadLettersQueue {
      name = "queue1-dead-letters"
      maxReceiveCount = 3 // from 1 to 1000
    }
    fifo = false
    tags { tag1 = "tagged1", tag2 = "a # b" }
  }
  queue1-dead-letters { }
  "queue2" { fifo = true, contentBasedDeduplication = true }
}
`;
  const policy = JSON.stringify({ deadLetterTargetArn: arn('queue1-dead-letters'), maxReceiveCount: 3 });
  t.deepEqual(read(conf, 'elasticmq.conf'), [
    [
      'queue1',
      { VisibilityTimeout: '10', DelaySeconds: '5', ReceiveMessageWaitTimeSeconds: '0', RedrivePolicy: policy },
      { tag1: 'tagged1', tag2: 'a # b' },
    ],
    ['queue1-dead-letters', {}, {}],
    ['queue2.fifo', { ContentBasedDeduplication: 'true', FifoQueue: 'true' }, {}],
  ]);
  t.deepEqual(
    parseHocon('a.b = 1\na.c { d: "x" }').get('a'),
    new Map<string, unknown>([
      ['b', '1'],
      ['c', new Map([['d', 'x']])],
    ]),
  );
});

test('the queues of a CloudFormation template', (t) => {
  const template = `
Parameters:
  Stage: { Type: String, Default: dev }
Resources:
  Topic: { Type: 'AWS::SNS::Topic' }
  Dead:
    Type: AWS::SQS::Queue
  Orders:
    Type: AWS::SQS::Queue
    Properties:
      QueueName: !Sub '\${Stage}-orders'
      VisibilityTimeout: 30
      RedrivePolicy:
        deadLetterTargetArn: !GetAtt Dead.Arn
        maxReceiveCount: 4
      Tags: [{ Key: stage, Value: !Ref Stage }]
  Steps:
    Type: AWS::SQS::Queue
    Properties: { FifoQueue: true, DeduplicationScope: messageGroup }
`;
  const policy = JSON.stringify({ deadLetterTargetArn: arn('Dead'), maxReceiveCount: 4 });
  t.deepEqual(read(template, 'template.yaml'), [
    ['Dead', {}, {}],
    ['dev-orders', { VisibilityTimeout: '30', RedrivePolicy: policy }, { stage: 'dev' }],
    ['Steps.fifo', { FifoQueue: 'true', DeduplicationScope: 'messageGroup' }, {}],
  ]);
  const json = JSON.stringify({ Resources: { Q: { Type: 'AWS::SQS::Queue', Properties: { DelaySeconds: 3 } } } });
  t.deepEqual(read(json, 'template.json'), [['Q', { DelaySeconds: '3' }, {}]]);
});

test('files that are neither say what is wrong', (t) => {
  for (const [text, fileName] of [
    ['a: 1', 'x.yaml'],
    ['queues: [{ attributes: {} }]', 'x.yaml'],
    ['queues: [{ name: a, colour: red }]', 'x.yaml'],
    ['{', 'x.yaml'],
    ['queues { a { delay = soon } }', 'x.conf'],
    ['}', 'x.conf'],
    ['other { }', 'x.conf'],
  ]) {
    t.throws(() => wantedQueues(text, fileName, PLACE), {
      code: 'INVALID_OPTION',
      message: new RegExp(`^${fileName}: `),
    });
  }
});

test('they are made once, dead-letter queues in any order', async (t) => {
  const world = await openWorld('json');
  const wanted = wantedQueues(LIST, 'queues.yaml', { region: 'us-east-1', account: '000000000000' });
  await world.settle(world.door.makeQueues(wanted));
  t.deepEqual((await world.sqs.call('ListQueues')).QueueUrls, ['dead', 'orders', 'steps.fifo'].map(urlOf));
  t.like(await world.attributes(urlOf('orders')), { VisibilityTimeout: '60' });
  t.regex((await world.attributes(urlOf('orders')))['RedrivePolicy'], /:dead","maxReceiveCount":5/);
  t.deepEqual((await world.sqs.call('ListQueueTags', { QueueUrl: urlOf('orders') })).Tags, { team: 'shop' });
  await world.sqs.call('SetQueueAttributes', { QueueUrl: urlOf('orders'), Attributes: { VisibilityTimeout: '61' } });
  await world.settle(world.door.makeQueues(wanted));
  t.like(await world.attributes(urlOf('orders')), { VisibilityTimeout: '61' });
  t.is(world.reports.length, 1);
  t.regex(world.reports[0], /'orders' is there with other attributes/);
  const cannot = [{ name: 'bad name', attributes: new Map(), tags: new Map() }];
  await t.throwsAsync(world.settle(world.door.makeQueues(cannot)), { code: 'INVALID_OPTION' });
});
