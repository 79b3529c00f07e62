/** Vhosts and policies of a real broker, through amqplib. */
import { once } from 'node:events';
import amqp, { type Channel, type ChannelModel, type ConfirmChannel } from 'amqplib';
import test from 'ava';
import type { JsonObject } from '../../../broker/directory-state.ts';
import type { Policy } from '../../../broker/policies.ts';
import { startTestBroker, type TestBroker } from '../../support/broker.ts';

let broker: TestBroker;
test.before(async () => {
  broker = await startTestBroker();
});
test.after.always(() => broker.stop());

const directory = () => broker.running.broker.directory;

async function inVhost(vhost: string, work: (channel: ConfirmChannel, connection: ChannelModel) => Promise<void>) {
  const connection = await amqp.connect(`${broker.amqp}/${encodeURIComponent(vhost)}`);
  connection.on('error', () => {});
  try {
    await work(await connection.createConfirmChannel(), connection);
  } finally {
    await connection.close().catch(() => {});
  }
}

async function makeVhost(name: string): Promise<void> {
  await directory().vhosts.put(name);
  await directory().users.permit({ user: 'guest', vhost: name, configure: '.*', write: '.*', read: '.*' });
}

async function setPolicy(vhost: string, definition: JsonObject, more: Partial<Policy> = {}): Promise<void> {
  const policy: Policy = { vhost, name: 'p', pattern: '.*', applyTo: 'all', priority: 0, definition };
  await directory().policies.put('user', { ...policy, ...more });
}

async function send(channel: ConfirmChannel, queue: string, ...texts: string[]): Promise<void> {
  for (const text of texts) channel.sendToQueue(queue, Buffer.from(text));
  await channel.waitForConfirms();
}

async function ready(channel: Channel, queue: string): Promise<number> {
  return (await channel.checkQueue(queue)).messageCount;
}

function isThere(vhost: string, name: string): boolean {
  return broker.running.broker.queues.get(`amq.escaped.${vhost}.${name}`) !== undefined;
}

/** The text of the next message, when there is one. */
async function taken(channel: Channel, queue: string): Promise<string> {
  for (;;) {
    const message = await channel.get(queue, { noAck: true });
    if (message !== false) return message.content.toString();
  }
}

test.serial('queues of one name in two vhosts are two queues, and outlive a restart as such', async (t) => {
  await makeVhost('shop');
  await inVhost('/', async (channel) => {
    await channel.assertQueue('same');
    await send(channel, 'same', 'default');
  });
  await inVhost('shop', async (channel) => {
    await channel.assertQueue('same');
    await channel.assertQueue('with space');
    await channel.assertExchange('x', 'fanout');
    await channel.bindQueue('same', 'x', '');
    channel.publish('x', '', Buffer.from('shop'));
    await channel.waitForConfirms();
    t.is(await ready(channel, 'same'), 1);
  });
  const names = () =>
    broker.running.broker.queues
      .all()
      .map(({ name }) => name)
      .filter((name) => /same|space/.test(name));
  t.deepEqual(names(), ['amq.escaped.shop.same', 'amq.escaped.shop.with-20space', 'same']);
  await broker.restart();
  await inVhost('shop', async (channel) => {
    t.is(await taken(channel, 'same'), 'shop');
    channel.publish('x', '', Buffer.from('again'));
    await channel.waitForConfirms();
    t.is(await taken(channel, 'same'), 'again');
  });
  await inVhost('/', async (channel) => {
    t.is(await taken(channel, 'same'), 'default');
  });
  await inVhost('shop', async (_channel, connection) => {
    const closed = once(connection, 'close');
    await directory().vhosts.delete('shop');
    await closed;
  });
  t.deepEqual(names(), ['same']);
  await makeVhost('shop');
  await inVhost('shop', async (channel) => {
    await channel.assertExchange('x', 'direct');
    await channel.assertQueue('same', { arguments: { 'x-max-length': 5 } });
    t.is(await ready(channel, 'same'), 0);
  });
});

test.serial("names that differ only in '.' and '_' are two queues", async (t) => {
  await inVhost('/', async (channel) => {
    await channel.assertQueue('flat.name');
    await channel.assertQueue('flat_name');
    await send(channel, 'flat_name', 'one');
    t.is(await ready(channel, 'flat.name'), 0);
  });
  await broker.restart();
  await inVhost('/', async (channel) => {
    t.is(await taken(channel, 'flat_name'), 'one');
    t.is(await ready(channel, 'flat.name'), 0);
  });
});

test.serial('a policy applies to queues that are there, and stops when it goes', async (t) => {
  await makeVhost('lengths');
  await inVhost('lengths', async (channel) => {
    await channel.assertQueue('free');
    await channel.assertQueue('short', { arguments: { 'x-max-length': 1 } });
    await send(channel, 'free', 'a', 'b', 'c', 'd');
    await setPolicy('lengths', { 'max-length': 2 });
    t.is(await ready(channel, 'free'), 2);
    await send(channel, 'free', 'e');
    await send(channel, 'short', 'a', 'b');
    t.is(await taken(channel, 'free'), 'd');
    t.is(await ready(channel, 'short'), 1);
    // What was asked for is what was asked for, whatever applies.
    await channel.assertQueue('free');
    await channel.assertQueue('short', { arguments: { 'x-max-length': 1 } });
    await directory().policies.delete('user', 'lengths', 'p');
    await send(channel, 'free', 'f', 'g', 'h');
    t.is(await ready(channel, 'free'), 4);
    await send(channel, 'short', 'c');
    t.is(await ready(channel, 'short'), 1);
    await setPolicy('lengths', { 'message-ttl': 1 });
    while ((await ready(channel, 'free')) > 0);
    await setPolicy('lengths', { expires: 1 });
    for (const name of ['free', 'short']) while (isThere('lengths', name)) await channel.checkExchange('amq.direct');
  });
});

test.serial('dead letters, overflow and times by policy; in force after a restart', async (t) => {
  await makeVhost('letters');
  await setPolicy('letters', { 'dead-letter-exchange': '', 'dead-letter-routing-key': 'dead' }, { pattern: '^work$' });
  await setPolicy('letters', { 'message-ttl': 1 }, { pattern: '^brief$', name: 'q' });
  await setPolicy('letters', { 'max-length': 1, overflow: 'reject-publish' }, { pattern: '^full$', name: 'r' });
  const check = async (): Promise<void> => {
    await inVhost('letters', async (channel) => {
      await send(channel, 'work', 'x');
      const message = await channel.get('work');
      if (message === false) return t.fail('nothing in work');
      channel.nack(message, false, false);
      t.is(await taken(channel, 'dead'), 'x');
      await send(channel, 'brief', 'y');
      while ((await ready(channel, 'brief')) > 0);
      await send(channel, 'full', 'z');
      await t.throwsAsync(send(channel, 'full', 'zz'));
      await taken(channel, 'full');
    });
  };
  await inVhost('letters', async (channel) => {
    for (const queue of ['work', 'dead', 'brief', 'full']) await channel.assertQueue(queue);
  });
  await check();
  await broker.restart();
  await check();
});

test.serial('an alternate exchange by policy takes what goes nowhere', async (t) => {
  await makeVhost('alternate');
  await inVhost('alternate', async (channel) => {
    await channel.assertExchange('first', 'direct');
    await channel.assertExchange('second', 'fanout');
    await channel.assertQueue('lost');
    await channel.bindQueue('lost', 'second', '');
    channel.publish('first', 'nowhere', Buffer.from('a'));
    await channel.waitForConfirms();
    await setPolicy('alternate', { 'alternate-exchange': 'second' }, { applyTo: 'exchanges' });
    channel.publish('first', 'nowhere', Buffer.from('b'));
    await channel.waitForConfirms();
    t.is(await taken(channel, 'lost'), 'b');
  });
});

test.serial('streams keep what their policy says', async (t) => {
  await makeVhost('streams');
  await setPolicy('streams', { 'max-age': '2h' }, { applyTo: 'streams' });
  await inVhost('streams', async (channel) => {
    await channel.assertQueue('s', { arguments: { 'x-queue-type': 'stream' } });
    await channel.assertQueue('t', { arguments: { 'x-queue-type': 'stream', 'x-max-age': '1h' } });
  });
  const retentionMs = (name: string) =>
    broker.running.broker.topics.get(`amq.escaped.streams.${name}`)?.overrides.get('retention.ms');
  t.deepEqual([retentionMs('s'), retentionMs('t')], ['7200000', '3600000']);
  await setPolicy('streams', { 'max-age': '3h' }, { applyTo: 'streams' });
  t.deepEqual([retentionMs('s'), retentionMs('t')], ['10800000', '3600000']);
  await directory().policies.delete('user', 'streams', 'p');
  t.deepEqual([retentionMs('s'), retentionMs('t')], ['-1', '3600000']);
});

test.serial("the vhost's default type is that of queues that could have it", async (t) => {
  await makeVhost('typed');
  await directory().vhosts.put('typed', { defaultQueueType: 'quorum' });
  await inVhost('typed', async (channel) => {
    await channel.assertQueue('plain');
    await channel.assertQueue('plain', { arguments: { 'x-queue-type': 'quorum' } });
    await channel.assertQueue('own', { exclusive: true });
    await t.throwsAsync(channel.assertQueue('plain', { arguments: { 'x-queue-type': 'classic' } }));
  });
});
