/** Dead letters between doors: whoever rejects, and whoever says where they go, it is one mechanism with one history. */
import amqp, { type Channel, type GetMessage } from 'amqplib';
import test from 'ava';
import type { Queue } from '../../../broker/queues.ts';
import { startTestBroker, type TestBroker } from '../../support/broker.ts';

let broker: TestBroker;
test.before(async () => {
  broker = await startTestBroker();
});
test.after.always(() => broker.stop());

async function connected(work: (channel: Channel) => Promise<void>, to = broker): Promise<void> {
  const connection = await amqp.connect(to.amqp, { noDelay: true });
  try {
    await work(await connection.createChannel());
  } finally {
    await connection.close();
  }
}

const queues = () => broker.running.broker.queues;

/** Another door takes the oldest message of the queue and refuses it. */
async function rejectElsewhere(queue: Queue, door: 'kafka' | 'sqs'): Promise<void> {
  const owner = queues().newOwner();
  for (;;) {
    const [run] = queue.acquire(owner, 0, 1, door);
    if (run !== undefined) {
      queue.settle(owner, 0, [{ firstOffset: run.firstOffset, lastOffset: run.lastOffset, kind: 'reject' }]);
      return;
    }
    await new Promise((resolve) => setImmediate(resolve));
  }
}

async function next(channel: Channel, queue: string): Promise<GetMessage> {
  for (;;) {
    const message = await channel.get(queue, { noAck: true });
    if (message !== false) return message;
  }
}

/** Whatever the time is. */
function deathsOf({ properties }: GetMessage): unknown {
  const { 'x-death': deaths, ...others } = properties.headers as Record<string, unknown>;
  return { ...others, deaths: (deaths as Record<string, unknown>[]).map((death) => ({ ...death, time: 'then' })) };
}

test('a queue that another door declared, rejected there: AMQP shows its history', async (t) => {
  queues().declare({ name: 'other.dead', kind: 'owned', family: 'sqs' });
  const settings = new Map([['dead.letter.queue', 'other.dead']]);
  const queue = queues().declare({ name: 'other', kind: 'owned', family: 'sqs', settings });
  await connected(async (channel) => {
    channel.publish('', 'other', Buffer.from('a'), { headers: { one: 1 } });
    await rejectElsewhere(queue, 'sqs');
    const letter = await next(channel, 'other.dead');
    t.like(letter.fields, { exchange: '', routingKey: 'other.dead' });
    t.deepEqual(deathsOf(letter), {
      one: 1,
      deaths: [{ count: 1, reason: 'rejected', queue: 'other', time: 'then', exchange: '', 'routing-keys': ['other'] }],
      'x-first-death-exchange': '',
      'x-first-death-queue': 'other',
      'x-first-death-reason': 'rejected',
      'x-last-death-exchange': '',
      'x-last-death-queue': 'other',
      'x-last-death-reason': 'rejected',
    });
  });
});

test('a queue with a dead-letter exchange, rejected through another door: it goes where the exchange says', async (t) => {
  await connected(async (channel) => {
    await channel.assertExchange('x.dlx', 'topic');
    await channel.assertQueue('x.work', { deadLetterExchange: 'x.dlx' });
    for (const [queue, pattern] of [
      ['x.all', '#'],
      ['x.some', 'x.*'],
      ['x.none', 'y.*'],
    ]) {
      await channel.assertQueue(queue);
      await channel.bindQueue(queue, 'x.dlx', pattern);
    }
    channel.sendToQueue('x.work', Buffer.from('a'));
    await channel.checkQueue('x.work');
    const queue = queues().get('x.work');
    if (queue === undefined) throw new Error('x.work is not there');
    await rejectElsewhere(queue, 'kafka');
    for (const name of ['x.all', 'x.some']) {
      const letter = await next(channel, name);
      t.like(letter.fields, { exchange: 'x.dlx', routingKey: 'x.work' });
      t.like(deathsOf(letter), { 'x-first-death-queue': 'x.work', 'x-first-death-reason': 'rejected' });
    }
    t.is((await channel.checkQueue('x.none')).messageCount, 0);
  });
});

test('a partition of a topic can be a target, and only that partition', async (t) => {
  const { topics } = broker.running.broker;
  const topic = topics.create({ name: 'parts', partitionCount: 3, overrides: new Map() });
  await connected(async (channel) => {
    await channel.assertExchange('p.dlx', 'fanout');
    await channel.assertQueue('p.work', { deadLetterExchange: 'p.dlx' });
    await channel.bindQueue('parts-2', 'p.dlx', '');
    channel.sendToQueue('p.work', Buffer.from('a'), { expiration: '1' });
    await new Promise<void>((resolve) => topic.partitions[2].whenAbove(0, resolve));
    t.deepEqual(
      topic.partitions.map(({ endOffset }) => endOffset),
      [0, 0, 1],
    );
  });
});

test('queues whose names topics cannot have are told by the names that they have in AMQP', async (t) => {
  await connected(async (channel) => {
    await channel.assertQueue('späte Ziele');
    await channel.assertQueue('mit Leerzeichen', { deadLetterExchange: '', deadLetterRoutingKey: 'späte Ziele' });
    channel.sendToQueue('mit Leerzeichen', Buffer.from('a'));
    const message = await next(channel, 'mit Leerzeichen');
    t.is(message.content.toString(), 'a');
    channel.sendToQueue('mit Leerzeichen', Buffer.from('b'), { expiration: '1' });
    const letter = await next(channel, 'späte Ziele');
    t.like(deathsOf(letter), { 'x-last-death-queue': 'mit Leerzeichen' });
  });
});

test('dead letters that wait for a target are sent after a restart', async (t) => {
  const own = await startTestBroker();
  t.teardown(() => own.stop());
  await connected(async (channel) => {
    await channel.assertExchange('r.dlx', 'fanout');
    await channel.assertQueue('r.dead');
    await channel.bindQueue('r.dead', 'r.dlx', '');
    await channel.assertQueue('r.work', { deadLetterExchange: 'r.dlx', messageTtl: 50 });
    for (let count = 0; count < 20; count++)
      channel.sendToQueue('r.work', Buffer.from(`${count}`), { persistent: true });
    await channel.checkQueue('r.work');
  }, own);
  await own.restart();
  await connected(async (channel) => {
    const found: string[] = [];
    while (found.length < 20) found.push((await next(channel, 'r.dead')).content.toString());
    t.deepEqual(
      found,
      Array.from({ length: 20 }, (_, count) => `${count}`),
    );
    t.is((await channel.checkQueue('r.dead')).messageCount, 0);
  }, own);
});
