/** amqplib against a real broker: declarations, publishes, deliveries, restarts, and the same messages through kafkajs. */
import { once } from 'node:events';
import amqp, { type Channel, type ChannelModel, type ConsumeMessage, type Message } from 'amqplib';
import test from 'ava';
import { Kafka, logLevel } from 'kafkajs';
import { startTestBroker, type TestBroker } from '../../support/broker.ts';

let broker: TestBroker;
test.before(async () => {
  broker = await startTestBroker();
});
test.after.always(() => broker.stop());

let count = 0;
/** A name of its own for each test. */
const unique = (what: string): string => `${what}-${++count}`;

async function connected(work: (channel: Channel, connection: ChannelModel) => Promise<void>): Promise<void> {
  const connection = await amqp.connect(broker.amqp);
  // An error of the connection is what some tests are about.
  connection.on('error', () => {});
  const channel = await connection.createChannel();
  try {
    await work(channel, connection);
  } finally {
    await connection.close().catch(() => {});
  }
}

/** The next messages of a consumer. */
class Inbox {
  readonly messages: ConsumeMessage[] = [];
  isCancelled = false;
  #waiting: (() => void)[] = [];
  readonly take = (message: ConsumeMessage | null): void => {
    if (message === null) this.isCancelled = true;
    else this.messages.push(message);
    for (const wake of this.#waiting.splice(0)) wake();
  };
  async until(isDone: () => boolean): Promise<void> {
    while (!isDone()) await new Promise<void>((wake) => this.#waiting.push(wake));
  }
  async first(size: number): Promise<string[]> {
    await this.until(() => this.messages.length >= size);
    return this.messages.slice(0, size).map(({ content }) => content.toString());
  }
}

async function published(queue: string, texts: readonly string[]): Promise<void> {
  const connection = await amqp.connect(broker.amqp);
  const channel = await connection.createConfirmChannel();
  for (const text of texts) channel.sendToQueue(queue, Buffer.from(text), { persistent: true });
  await channel.waitForConfirms();
  await connection.close();
}

/** Code and text of the error that ends the channel. */
async function channelError(work: (channel: Channel) => unknown): Promise<string> {
  const connection = await amqp.connect(broker.amqp);
  try {
    const channel = await connection.createChannel();
    const failed = once(channel, 'error');
    await Promise.resolve(work(channel)).catch(() => {});
    const [error] = (await failed) as [Error & { code: number }];
    return /message "(.*)"$/s.exec(error.message)?.[1] ?? error.message;
  } finally {
    await connection.close();
  }
}

async function connectionError(work: (channel: Channel) => unknown): Promise<string> {
  const connection = await amqp.connect(broker.amqp);
  const failed = once(connection, 'error');
  const channel = await connection.createChannel();
  await Promise.resolve(work(channel)).catch(() => {});
  const [error] = (await failed) as [Error];
  return /message "(.*)"$/s.exec(error.message)?.[1] ?? error.message;
}

test('what is published with confirms is delivered in order and settled by acks', async (t) => {
  await connected(async (channel) => {
    const queue = unique('orders');
    t.deepEqual(await channel.assertQueue(queue), { queue, messageCount: 0, consumerCount: 0 });
    const texts = Array.from({ length: 500 }, (_, index) => `m${index}`);
    await published(queue, texts);
    t.is((await channel.checkQueue(queue)).messageCount, 500);
    const inbox = new Inbox();
    await channel.prefetch(50);
    await channel.consume(queue, (message) => {
      inbox.take(message);
      if (message) channel.ack(message);
    });
    t.deepEqual(await inbox.first(500), texts);
    t.true(
      inbox.messages.every(
        ({ fields }) => !fields.redelivered && fields.exchange === '' && fields.routingKey === queue,
      ),
    );
    t.deepEqual(await channel.checkQueue(queue), { queue, messageCount: 0, consumerCount: 1 });
  });
});

test('a prefetch bounds what waits for acks, one message at a time and over the channel', async (t) => {
  await connected(async (channel) => {
    const queue = unique('bounded');
    await channel.assertQueue(queue);
    await published(queue, ['1', '2', '3', '4', '5', '6', '7', '8']);
    const inbox = new Inbox();
    await channel.prefetch(3);
    await channel.prefetch(4, true);
    await channel.consume(queue, inbox.take);
    await channel.consume(queue, inbox.take);
    await inbox.first(4);
    t.is((await channel.checkQueue(queue)).messageCount, 4);
    t.is(inbox.messages.length, 4);
    channel.ack(inbox.messages[0]);
    await inbox.first(5);
    t.is((await channel.checkQueue(queue)).messageCount, 3);
    channel.ackAll();
    t.is((await inbox.first(8)).length, 8);
  });
});

test('a message that is sent back returns to its place, redelivered', async (t) => {
  await connected(async (channel) => {
    const queue = unique('requeue');
    await channel.assertQueue(queue);
    await published(queue, ['a', 'b', 'c']);
    const first = (await channel.get(queue)) as Message;
    t.is(first.content.toString(), 'a');
    t.is((first.fields as unknown as { messageCount: number }).messageCount, 2);
    channel.nack(first, false, true);
    const again = (await channel.get(queue)) as Message;
    t.deepEqual([again.content.toString(), again.fields.redelivered], ['a', true]);
    channel.nack(again, false, false);
    const next = (await channel.get(queue, { noAck: true })) as Message;
    t.deepEqual([next.content.toString(), next.fields.redelivered], ['b', false]);
    const last = (await channel.get(queue)) as Message;
    await channel.recover();
    const recovered = (await channel.get(queue)) as Message;
    t.deepEqual(
      [last.content.toString(), recovered.content.toString(), recovered.fields.redelivered],
      ['c', 'c', true],
    );
    channel.ack(recovered);
    t.is(await channel.get(queue), false);
  });
});

test('an ack counts, although its consumer is cancelled with the next frame', async (t) => {
  await connected(async (channel) => {
    const queue = unique('last-ack');
    await channel.assertQueue(queue);
    await published(queue, ['1', '2']);
    const inbox = new Inbox();
    const { consumerTag } = await channel.consume(queue, inbox.take);
    await inbox.first(2);
    channel.ack(inbox.messages[1], true);
    await channel.cancel(consumerTag);
    t.false(await channel.get(queue));
  });
});

test('what a lost connection held is delivered to the next, redelivered', async (t) => {
  const queue = unique('lost');
  await connected((channel) => channel.assertQueue(queue).then(() => {}));
  await published(queue, ['a', 'b']);
  const doomed = await amqp.connect(broker.amqp);
  doomed.on('error', () => {});
  const inbox = new Inbox();
  await (await doomed.createChannel()).consume(queue, inbox.take);
  await inbox.first(2);
  (doomed.connection as unknown as { stream: { destroy(error: Error): void } }).stream.destroy(new Error('cut'));
  await connected(async (channel) => {
    const next = new Inbox();
    await channel.consume(queue, next.take);
    t.deepEqual(await next.first(2), ['a', 'b']);
    t.true(next.messages.every(({ fields }) => fields.redelivered));
    channel.ackAll();
  });
});

test('properties and headers arrive as they were sent', async (t) => {
  await connected(async (channel) => {
    const queue = unique('properties');
    await channel.assertQueue(queue);
    const headers = {
      text: 'ü',
      number: 42,
      big: 2 ** 40,
      yes: true,
      nothing: null,
      list: [1, 'two'],
      table: { a: { b: 1.5 } },
    };
    const sent = {
      contentType: 'application/json',
      contentEncoding: 'utf-8',
      headers,
      deliveryMode: 2,
      priority: 3,
      correlationId: 'c',
      replyTo: 'r',
      expiration: '600000',
      messageId: 'm',
      timestamp: 1_700_000_000,
      type: 't',
      userId: 'guest',
      appId: 'a',
    };
    channel.sendToQueue(queue, Buffer.from('{}'), sent);
    channel.sendToQueue(queue, Buffer.alloc(0));
    const inbox = new Inbox();
    await channel.consume(queue, inbox.take, { noAck: true });
    await inbox.first(2);
    t.like(inbox.messages[0].properties, sent);
    t.is(inbox.messages[1].properties.deliveryMode, undefined);
    t.is(inbox.messages[1].content.length, 0);
  });
});

test('bodies of many frames are whole', async (t) => {
  await connected(async (channel) => {
    const queue = unique('large');
    await channel.assertQueue(queue);
    const body = Buffer.alloc(3_000_000, 'abcdefg');
    channel.sendToQueue(queue, body);
    const inbox = new Inbox();
    await channel.consume(queue, inbox.take, { noAck: true });
    await inbox.first(1);
    t.true(inbox.messages[0].content.equals(body));
  });
});

test('exchanges route, also through each other; CC and BCC add keys', async (t) => {
  await connected(async (channel) => {
    const [direct, topic, one, two, three] = ['direct', 'topic', 'one', 'two', 'three'].map(unique);
    await channel.assertExchange(direct, 'direct');
    await channel.assertExchange(topic, 'topic');
    for (const queue of [one, two, three]) await channel.assertQueue(queue);
    await channel.bindQueue(one, direct, 'k');
    await channel.bindExchange(topic, direct, 'a.b');
    await channel.bindQueue(two, topic, 'a.*');
    await channel.bindQueue(three, topic, '#');
    channel.publish(direct, 'k', Buffer.from('1'), { CC: ['a.b'], BCC: ['hidden'] });
    channel.publish(direct, 'nowhere', Buffer.from('2'));
    for (const queue of [one, two, three]) {
      const message = (await channel.get(queue, { noAck: true })) as Message;
      t.is(message.content.toString(), '1');
      t.is(message.fields.exchange, direct);
      t.deepEqual(message.properties.headers, { CC: ['a.b'] });
      t.is(await channel.get(queue), false);
    }
    await channel.unbindQueue(two, topic, 'a.*');
    channel.publish(topic, 'a.b', Buffer.from('3'));
    t.is(await channel.get(two), false);
    t.is(((await channel.get(three, { noAck: true })) as Message).content.toString(), '3');
  });
});

test('a mandatory message that goes nowhere comes back before its confirm', async (t) => {
  const connection = await amqp.connect(broker.amqp);
  const channel = await connection.createConfirmChannel();
  const events: string[] = [];
  channel.on('return', ({ fields, content }) => {
    events.push(`return ${(fields as unknown as { replyCode: number }).replyCode} ${content.toString()}`);
  });
  await new Promise<void>((done) => {
    channel.publish('', unique('nowhere'), Buffer.from('x'), { mandatory: true }, () => {
      events.push('confirm');
      done();
    });
  });
  t.deepEqual(events, ['return 312 x', 'confirm']);
  await connection.close();
});

test('a full queue that refuses is a nack, and the others are acks', async (t) => {
  const queue = unique('full');
  const connection = await amqp.connect(broker.amqp);
  const channel = await connection.createConfirmChannel();
  await channel.assertQueue(queue, { arguments: { 'x-max-length': 1, 'x-overflow': 'reject-publish' } });
  const fate: string[] = [];
  for (const text of ['a', 'b', 'c']) {
    await new Promise<void>((done) => {
      channel.sendToQueue(queue, Buffer.from(text), {}, (error) => {
        fate.push(error ? 'nack' : 'ack');
        done();
      });
    });
  }
  t.deepEqual(fate, ['ack', 'nack', 'nack']);
  await connection.close();
});

test('priorities, lengths, one active consumer, attempts: settings of queues in AMQP words', async (t) => {
  await connected(async (channel) => {
    const taken = async (queue: string): Promise<string[]> => {
      const texts: string[] = [];
      for (;;) {
        const message = await channel.get(queue, { noAck: true });
        if (message === false) return texts;
        texts.push(message.content.toString());
      }
    };
    const [priorities, short, single, quorum] = ['priorities', 'short', 'single', 'quorum'].map(unique);
    await channel.assertQueue(priorities, { maxPriority: 5 });
    for (const priority of [1, 5, 3, 9, 0]) {
      channel.sendToQueue(priorities, Buffer.from(String(priority)), { priority });
    }
    t.deepEqual(await taken(priorities), ['5', '9', '3', '1', '0']);
    await channel.assertQueue(short, { maxLength: 2 });
    await published(short, ['1', '2', '3']);
    t.is((await channel.checkQueue(short)).messageCount, 2);
    t.deepEqual(await taken(short), ['2', '3']);
    await channel.assertQueue(single, { arguments: { 'x-single-active-consumer': true } });
    const [one, two] = [new Inbox(), new Inbox()];
    const { consumerTag } = await channel.consume(single, one.take, { noAck: true });
    await channel.consume(single, two.take, { noAck: true });
    await published(single, ['a', 'b']);
    await one.first(2);
    await channel.cancel(consumerTag);
    await published(single, ['c']);
    t.deepEqual(await two.first(1), ['c']);
    await channel.assertQueue(quorum, { arguments: { 'x-queue-type': 'quorum', 'x-delivery-limit': 1 } });
    await published(quorum, ['x']);
    for (const headers of [{}, { 'x-delivery-count': 1 }]) {
      const message = (await channel.get(quorum)) as Message;
      t.deepEqual(message.properties.headers, headers);
      channel.nack(message);
    }
    t.is(await channel.get(quorum), false);
  });
});

test('a purge takes what waits, not what waits for an ack', async (t) => {
  await connected(async (channel) => {
    const queue = unique('purge');
    await channel.assertQueue(queue);
    await published(queue, ['1', '2', '3']);
    const held = (await channel.get(queue)) as Message;
    t.deepEqual(await channel.purgeQueue(queue), { messageCount: 2 });
    channel.nack(held);
    t.is(((await channel.get(queue)) as Message).content.toString(), '1');
    channel.ackAll();
    t.deepEqual(await channel.deleteQueue(queue, { ifEmpty: true }), { messageCount: 0 });
  });
});

test('durable queues, exchanges, bindings and messages outlive a restart; others do not', async (t) => {
  const own = await startTestBroker();
  try {
    let connection = await amqp.connect(own.amqp);
    connection.on('error', () => {});
    let channel = await connection.createConfirmChannel();
    await channel.assertExchange('kept', 'topic', { alternateExchange: 'amq.fanout' });
    await channel.assertExchange('lost', 'fanout', { durable: false });
    await channel.assertQueue('kept queue/ü', { arguments: { 'x-message-ttl': 3_600_000 } });
    await channel.assertQueue('lost-queue', { durable: false });
    await channel.bindQueue('kept queue/ü', 'kept', 'a.#');
    await channel.bindQueue('kept queue/ü', 'kept', 'gone');
    await channel.unbindQueue('kept queue/ü', 'kept', 'gone');
    channel.publish('kept', 'a.b', Buffer.from('1'), { persistent: true });
    await channel.waitForConfirms();
    const closed = once(connection, 'close');
    await own.restart();
    await closed;
    connection = await amqp.connect(own.amqp);
    connection.on('error', () => {});
    channel = await connection.createConfirmChannel();
    await channel.assertExchange('kept', 'topic', { alternateExchange: 'amq.fanout' });
    t.is((await channel.assertQueue('kept queue/ü', { arguments: { 'x-message-ttl': 3_600_000 } })).messageCount, 1);
    channel.publish('kept', 'a.c', Buffer.from('2'), { persistent: true });
    channel.publish('kept', 'gone', Buffer.from('3'), { persistent: true });
    await channel.waitForConfirms();
    const texts = [
      await channel.get('kept queue/ü'),
      await channel.get('kept queue/ü'),
      await channel.get('kept queue/ü'),
    ];
    t.deepEqual(
      texts.map((message) => (message ? message.content.toString() : message)),
      ['1', '2', false],
    );
    for (const [check, name] of [
      ['checkExchange', 'lost'],
      ['checkQueue', 'lost-queue'],
    ] as const) {
      const other = await connection.createChannel();
      other.on('error', () => {});
      await t.throwsAsync(other[check](name), { message: /404/ });
    }
    await connection.close();
  } finally {
    await own.stop();
  }
});

test('a queue with a backlog is counted and given from right after a restart', async (t) => {
  const own = await startTestBroker();
  try {
    let connection = await amqp.connect(own.amqp);
    connection.on('error', () => {});
    const channel = await connection.createConfirmChannel();
    await channel.assertQueue('backlog');
    for (let count = 0; count < 20_000; count++) channel.sendToQueue('backlog', Buffer.from(String(count)));
    await channel.waitForConfirms();
    const closed = new Promise<void>((done) => connection.once('close', () => done()));
    await own.restart();
    await closed;
    connection = await amqp.connect(own.amqp);
    const after = await connection.createChannel();
    const first = await after.get('backlog');
    t.is(first && first.content.toString(), '0');
    t.is((await after.checkQueue('backlog')).messageCount, 19_999);
    await connection.close();
  } finally {
    await own.stop();
  }
});

test('what amqplib publishes kafkajs reads with its headers, and the other way round', async (t) => {
  const kafka = new Kafka({ brokers: [broker.bootstrap], logLevel: logLevel.NOTHING });
  const producer = kafka.producer();
  const consumer = kafka.consumer({ groupId: unique('reader') });
  await connected(async (channel) => {
    const queue = unique('both');
    await channel.assertQueue(queue);
    channel.sendToQueue(queue, Buffer.from('from amqp'), { headers: { text: 'ü', number: 7, 'x-group-id': 'g' } });
    await producer.connect();
    const traceparent = '00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01';
    await channel.checkQueue(queue);
    await producer.send({ topic: queue, messages: [{ key: 'k', value: 'from kafka', headers: { traceparent } }] });
    const seen: { value?: string; key?: string; headers: Record<string, string> }[] = [];
    await consumer.connect();
    await consumer.subscribe({ topic: queue, fromBeginning: true });
    await new Promise<void>((done) => {
      void consumer.run({
        eachMessage: async ({ message }) => {
          const headers = Object.entries(message.headers ?? {}).filter(([name]) => !name.startsWith('millrace.'));
          seen.push({
            ...(message.value ? { value: message.value.toString() } : {}),
            ...(message.key ? { key: message.key.toString() } : {}),
            headers: Object.fromEntries(headers.map(([name, value]) => [name, String(value)])),
          });
          if (seen.length === 2) done();
        },
      });
    });
    t.deepEqual(seen, [
      { value: 'from amqp', key: 'g', headers: { text: 'ü', number: '7' } },
      { value: 'from kafka', key: 'k', headers: { traceparent } },
    ]);
    const inbox = new Inbox();
    await channel.consume(queue, inbox.take, { noAck: true });
    t.deepEqual(await inbox.first(2), ['from amqp', 'from kafka']);
    t.deepEqual(inbox.messages[0].properties.headers, { text: 'ü', number: 7, 'x-group-id': 'g' });
    const { fields, properties } = inbox.messages[1];
    t.like(fields, { exchange: '', routingKey: queue });
    t.deepEqual(properties.headers, { traceparent, 'x-group-id': 'k' });
  });
  await consumer.disconnect();
  await producer.disconnect();
});

test('consumers hear that their queue is gone; auto-delete and exclusive queues go by themselves', async (t) => {
  await connected(async (channel, connection) => {
    const queue = unique('ending');
    await channel.assertQueue(queue);
    const inbox = new Inbox();
    await channel.consume(queue, inbox.take);
    await channel.deleteQueue(queue);
    await inbox.until(() => inbox.isCancelled);
    const auto = unique('auto');
    await channel.assertQueue(auto, { autoDelete: true });
    const { consumerTag } = await channel.consume(auto, () => {});
    t.regex(consumerTag, /^amq\.ctag-[A-Za-z0-9_-]{22}$/);
    await channel.cancel(consumerTag);
    t.regex(await channelError((other) => other.checkQueue(auto)), /^NOT_FOUND/);
    const own = await amqp.connect(broker.amqp);
    const { queue: exclusive } = await (await own.createChannel()).assertQueue('', { exclusive: true });
    t.regex(exclusive, /^amq\.gen-[A-Za-z0-9_-]{22}$/);
    t.regex(await channelError((other) => other.checkQueue(exclusive)), /^RESOURCE_LOCKED - cannot obtain/);
    await own.close();
    t.regex(await channelError((other) => other.checkQueue(exclusive)), /^NOT_FOUND/);
    t.truthy(connection);
  });
});

test('mistakes end the channel with the code and text of RabbitMQ 4.0', async (t) => {
  const queue = unique('strict');
  const exchange = unique('strict-exchange');
  const held = await amqp.connect(broker.amqp);
  const holder = await held.createChannel();
  await holder.assertQueue(queue);
  await holder.assertExchange(exchange, 'direct');
  await holder.consume(queue, () => {}, { exclusive: true });
  const cases: [(channel: Channel) => unknown, string][] = [
    [(c) => c.checkQueue('no'), "NOT_FOUND - no queue 'no' in vhost '/'"],
    [(c) => c.consume('no', () => {}), "NOT_FOUND - no queue 'no' in vhost '/'"],
    [(c) => c.bindQueue(queue, 'no', ''), "NOT_FOUND - no exchange 'no' in vhost '/'"],
    [(c) => c.publish('no', '', Buffer.alloc(1)), "NOT_FOUND - no exchange 'no' in vhost '/'"],
    [
      (c) => c.assertQueue(queue, { durable: false }),
      `PRECONDITION_FAILED - inequivalent arg 'durable' for queue '${queue}' in vhost '/': received 'false' but current is 'true'`,
    ],
    [
      (c) => c.assertQueue(queue, { arguments: { 'x-message-ttl': 5 } }),
      `PRECONDITION_FAILED - inequivalent arg 'x-message-ttl' for queue '${queue}' in vhost '/': received the value '5' of type 'byte' but current is none`,
    ],
    [
      (c) => c.assertExchange(exchange, 'fanout'),
      `PRECONDITION_FAILED - inequivalent arg 'type' for exchange '${exchange}' in vhost '/': received 'fanout' but current is 'direct'`,
    ],
    [(c) => c.assertExchange('x', 'nonsense'), "PRECONDITION_FAILED - invalid exchange type 'nonsense'"],
    [(c) => c.assertQueue('amq.x'), "ACCESS_REFUSED - queue name 'amq.x' contains reserved prefix 'amq.*'"],
    [(c) => c.bindQueue(queue, '', 'k'), 'ACCESS_REFUSED - operation not permitted on the default exchange'],
    [(c) => c.consume(queue, () => {}), `ACCESS_REFUSED - queue '${queue}' in vhost '/' in exclusive use`],
    [(c) => c.deleteQueue(queue, { ifUnused: true }), `PRECONDITION_FAILED - queue '${queue}' in vhost '/' in use`],
    [(c) => c.ack({ fields: { deliveryTag: 77 } } as Message), 'PRECONDITION_FAILED - unknown delivery tag 77'],
    [
      (c) => c.sendToQueue(queue, Buffer.alloc(1), { expiration: 'x' }),
      "PRECONDITION_FAILED - invalid expiration 'x': no_integer",
    ],
    [
      (c) => c.sendToQueue(queue, Buffer.alloc(1), { userId: 'x' }),
      "PRECONDITION_FAILED - user_id property set to 'x' but authenticated user was 'guest'",
    ],
  ];
  for (const [work, text] of cases) t.is(await channelError(work), text);
  await held.close();
});

test('graver mistakes end the connection', async (t) => {
  const queue = unique('grave');
  await connected((channel) => channel.assertQueue(queue).then(() => {}));
  const twice = async (c: Channel): Promise<void> => {
    await c.consume(queue, () => {}, { consumerTag: 'a' });
    await c.consume(queue, () => {}, { consumerTag: 'a' });
  };
  t.is(await connectionError(twice), "NOT_ALLOWED - attempt to reuse consumer tag 'a'");
  await t.throwsAsync(amqp.connect(broker.amqp.replace('guest:guest', 'guest:wrong')), { message: /403 .*PLAIN/ });
  await t.throwsAsync(amqp.connect(`${broker.amqp}/other`));
});
