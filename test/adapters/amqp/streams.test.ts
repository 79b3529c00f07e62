/** Streams: the log of a topic or queue read by AMQP consumers, which take nothing from it. */
import { once } from 'node:events';
import amqp, { type Channel, type ChannelModel, type ConsumeMessage, type Options } from 'amqplib';
import test from 'ava';
import { Kafka, logLevel } from 'kafkajs';
import { startTestBroker, type TestBroker } from '../../support/broker.ts';

let broker: TestBroker;
let kafka: Kafka;
test.before(async () => {
  broker = await startTestBroker();
  kafka = new Kafka({ brokers: [broker.bootstrap], logLevel: logLevel.NOTHING });
});
test.after.always(() => broker.stop());

let count = 0;
const unique = (what: string): string => `${what}${++count}`;
const stream = { arguments: { 'x-queue-type': 'stream' } } as const;

async function connected(work: (channel: Channel, connection: ChannelModel) => Promise<void>): Promise<void> {
  const connection = await amqp.connect(broker.amqp);
  connection.on('error', () => {});
  const channel = await connection.createChannel();
  await channel.prefetch(100);
  try {
    await work(channel, connection);
  } finally {
    await connection.close().catch(() => {});
  }
}

/** Messages of one consumer. */
class Reading {
  readonly messages: ConsumeMessage[] = [];
  isCancelled = false;
  #waiting: (() => void)[] = [];
  readonly #channel: Channel;
  readonly #isAcked: boolean;
  constructor(channel: Channel, isAcked = true) {
    this.#channel = channel;
    this.#isAcked = isAcked;
  }
  readonly take = (message: ConsumeMessage | null): void => {
    if (message === null) this.isCancelled = true;
    else {
      this.messages.push(message);
      if (this.#isAcked) this.#channel.ack(message);
    }
    for (const wake of this.#waiting.splice(0)) wake();
  };
  async until(isDone: () => boolean): Promise<void> {
    while (!isDone()) await new Promise<void>((wake) => this.#waiting.push(wake));
  }
  get texts(): string[] {
    return this.messages.map(({ content }) => content.toString());
  }
  async last(text: string): Promise<string[]> {
    await this.until(() => this.texts.at(-1) === text);
    return this.texts;
  }
}

async function read(channel: Channel, queue: string, offset: unknown, last: string, args = {}): Promise<Reading> {
  const reading = new Reading(channel);
  const options: Options.Consume = {
    arguments: { ...(offset === undefined ? {} : { 'x-stream-offset': offset }), ...args },
  };
  const { consumerTag } = await channel.consume(queue, reading.take, options);
  await reading.last(last);
  await channel.cancel(consumerTag);
  return reading;
}

async function published(queue: string, texts: readonly string[], options: Options.Publish = {}): Promise<void> {
  const connection = await amqp.connect(broker.amqp);
  const channel = await connection.createConfirmChannel();
  for (const text of texts) channel.sendToQueue(queue, Buffer.from(text), { persistent: true, ...options });
  await channel.waitForConfirms();
  await connection.close();
}

const numbers = (from: number, to: number): string[] =>
  Array.from({ length: to - from }, (_, index) => String(from + index));
const offsets = ({ messages }: Reading): unknown[] =>
  messages.map(({ properties }) => properties.headers?.['x-stream-offset']);

async function refused(work: (channel: Channel) => unknown): Promise<string> {
  const connection = await amqp.connect(broker.amqp);
  const channel = await connection.createChannel();
  const failed = Promise.race([once(channel, 'error'), once(connection, 'error')]);
  await Promise.resolve(work(channel)).catch(() => {});
  const [error] = (await failed) as [Error];
  await connection.close().catch(() => {});
  return /message "(.*)"$/s.exec(error.message)?.[1] ?? error.message;
}

test('a stream is read from where its consumer says, as often as one likes, and nothing is taken', async (t) => {
  await connected(async (channel) => {
    const queue = unique('stream');
    await channel.assertQueue(queue, stream);
    await channel.assertQueue(queue, stream);
    await published(queue, numbers(0, 500));
    t.is((await channel.checkQueue(queue)).messageCount, 500);
    for (const from of [0, 1, 123, 499]) {
      const reading = await read(channel, queue, from, '499');
      t.deepEqual(reading.texts, numbers(from, 500));
      t.deepEqual(offsets(reading), numbers(from, 500).map(Number));
    }
    t.deepEqual((await read(channel, queue, 'first', '499')).texts, numbers(0, 500));
    t.deepEqual((await read(channel, queue, 'last', '499')).texts, ['499']);
    t.deepEqual((await read(channel, queue, '1h', '499')).texts, numbers(0, 500));
    const longAgo = { '!': 'timestamp', value: 1_000_000_000 };
    t.deepEqual((await read(channel, queue, longAgo, '499')).texts, numbers(0, 500));
    const next = new Reading(channel);
    await channel.consume(queue, next.take, { arguments: { 'x-stream-offset': 'next' } });
    const without = new Reading(channel);
    await channel.consume(queue, without.take);
    const later = new Reading(channel);
    await channel.consume(queue, later.take, { arguments: { 'x-stream-offset': 501 } });
    t.is((await channel.checkQueue(queue)).consumerCount, 3);
    await published(queue, ['500', '501']);
    t.deepEqual(await next.last('501'), ['500', '501']);
    t.deepEqual(await without.last('501'), ['500', '501']);
    t.deepEqual(await later.last('501'), ['501']);
    t.is((await channel.checkQueue(queue)).messageCount, 502);
  });
});

test('a reader gets as many as it has room for; acks, also negative ones, only make room', async (t) => {
  await connected(async (channel) => {
    const queue = unique('stream');
    await channel.assertQueue(queue, stream);
    await published(queue, numbers(0, 20));
    await channel.prefetch(3);
    const reading = new Reading(channel, false);
    await channel.consume(queue, reading.take, { arguments: { 'x-stream-offset': 'first' } });
    await reading.last('2');
    await channel.checkQueue(queue);
    t.is(reading.messages.length, 3);
    channel.ack(reading.messages[1]);
    await reading.last('3');
    channel.nack(reading.messages[0], false, true);
    channel.reject(reading.messages[2], false);
    t.deepEqual(await reading.last('5'), numbers(0, 6));
    channel.ackAll();
    t.deepEqual(await reading.last('8'), numbers(0, 9));
    t.true(reading.messages.every(({ fields }) => !fields.redelivered));
  });
});

test('a filter lets through what has one of its values', async (t) => {
  await connected(async (channel) => {
    const queue = unique('stream');
    await channel.assertQueue(queue, stream);
    for (let round = 0; round < 30; round++) {
      for (const value of ['a', 'b', 'c']) {
        channel.sendToQueue(queue, Buffer.from(`${value}${round}`), { headers: { 'x-stream-filter-value': value } });
      }
      channel.sendToQueue(queue, Buffer.from(`-${round}`));
    }
    await channel.prefetch(2);
    const read30 = async (args: object, last: string) => (await read(channel, queue, 'first', last, args)).texts;
    const rounds = (values: string[]) => numbers(0, 30).flatMap((round) => values.map((value) => `${value}${round}`));
    t.deepEqual(await read30({ 'x-stream-filter': 'b' }, 'b29'), rounds(['b']));
    t.deepEqual(await read30({ 'x-stream-filter': ['a', 'c'] }, 'c29'), rounds(['a', 'c']));
    const unfiltered = { 'x-stream-filter': ['c'], 'x-stream-match-unfiltered': true };
    t.deepEqual(await read30(unfiltered, '-29'), rounds(['c', '-']));
  });
});

test('every topic is a stream: its partitions by number, one of a single partition by its own name', async (t) => {
  const many = unique('many');
  const single = unique('single');
  const admin = kafka.admin();
  await admin.connect();
  await admin.createTopics({
    topics: [
      { topic: many, numPartitions: 3 },
      { topic: single, numPartitions: 1 },
    ],
  });
  const producer = kafka.producer();
  await producer.connect();
  for (const partition of [0, 1, 2]) {
    const messages = numbers(0, 50).map((text) => ({
      key: `k${text}`,
      value: `${partition}:${text}`,
      partition,
      headers: { h: text },
    }));
    await producer.send({ topic: many, messages });
  }
  await producer.send({ topic: single, messages: [{ value: 'one' }] });
  await connected(async (channel) => {
    t.is((await channel.checkQueue(single)).messageCount, 1);
    t.is((await channel.checkQueue(`${many}-1`)).messageCount, 50);
    t.deepEqual(await channel.assertQueue(single, stream), { queue: single, messageCount: 1, consumerCount: 0 });
    const reading = await read(channel, `${many}-1`, 20, '1:49');
    t.deepEqual(
      reading.texts,
      numbers(20, 50).map((text) => `1:${text}`),
    );
    const [{ fields, properties }] = reading.messages;
    t.like(fields, { exchange: '', routingKey: `${many}-1`, redelivered: false });
    t.deepEqual(properties.headers, { h: '20', 'x-group-id': 'k20', 'x-stream-offset': 20 });
    channel.sendToQueue(`${many}-2`, Buffer.from('from amqp'));
    t.is((await read(channel, `${many}-2`, 'first', 'from amqp')).messages.length, 51);
    t.deepEqual((await read(channel, `${single}-0`, 'first', 'one')).texts, ['one']);
    const exchange = unique('exchange');
    await channel.assertExchange(exchange, 'fanout');
    await channel.bindQueue(single, exchange, '');
    await channel.bindQueue(`${many}-0`, exchange, '');
    channel.publish(exchange, 'key', Buffer.from('both'));
    t.is((await read(channel, single, 'first', 'both')).messages.at(-1)?.fields.routingKey, 'key');
    await read(channel, `${many}-0`, 'last', 'both');
  });
  t.is(await refused((c) => c.checkQueue(many)), `NOT_FOUND - no queue '${many}' in vhost '/'`);
  t.is(await refused((c) => c.checkQueue(`${many}-3`)), `NOT_FOUND - no queue '${many}-3' in vhost '/'`);
  t.is(
    await refused((c) => c.checkQueue('__consumer_offsets-0')),
    "NOT_FOUND - no queue '__consumer_offsets-0' in vhost '/'",
  );
  t.regex(
    await refused((c) => c.deleteQueue(single)),
    /^ACCESS_REFUSED - queue '.*' in vhost '\/' is a topic that was not/,
  );
  t.regex(await refused((c) => c.assertQueue(single)), /inequivalent arg 'x-queue-type'/);
  await admin.deleteTopics({ topics: [single] });
  t.regex(await refused((c) => c.checkQueue(single)), /^NOT_FOUND/);
  await producer.disconnect();
  await admin.disconnect();
});

test('any queue can be replayed: reading its log takes nothing and shows what was taken', async (t) => {
  await connected(async (channel) => {
    const queue = unique('queue');
    await channel.assertQueue(queue);
    await published(queue, numbers(0, 300));
    for (let taken = 0; taken < 10; taken++) await channel.get(queue, { noAck: true });
    const reading = await read(channel, queue, 4, '299');
    t.deepEqual(reading.texts, numbers(4, 300));
    t.deepEqual(offsets(reading), numbers(4, 300).map(Number));
    t.is((await channel.checkQueue(queue)).messageCount, 290);
    const own = new Reading(channel);
    await channel.consume(queue, own.take);
    t.deepEqual(await own.last('299'), numbers(10, 300));
    t.true(own.messages.every(({ properties }) => properties.headers?.['x-stream-offset'] === undefined));
    const ending = new Reading(channel);
    await channel.consume(queue, ending.take, { arguments: { 'x-stream-offset': 'next' } });
    await channel.deleteQueue(queue);
    await ending.until(() => ending.isCancelled);
    t.deepEqual(ending.messages, []);
  });
});

test('a queue over a topic hands out what Kafka clients produce, as tasks', async (t) => {
  const topic = unique('topic');
  const queue = unique('tasks');
  const admin = kafka.admin();
  await admin.connect();
  await admin.createTopics({ topics: [{ topic, numPartitions: 3 }] });
  await admin.disconnect();
  const producer = kafka.producer();
  await producer.connect();
  await producer.send({ topic, messages: numbers(0, 60).map((value) => ({ value, partition: Number(value) % 3 })) });
  await connected(async (channel) => {
    const args = { arguments: { 'x-topic': topic, 'x-queue-type': 'quorum' } };
    await channel.assertQueue(queue, args);
    await channel.assertQueue(queue, args);
    t.is((await channel.checkQueue(queue)).messageCount, 60);
    const reading = new Reading(channel);
    const { consumerTag } = await channel.consume(queue, reading.take);
    await reading.until(() => reading.messages.length === 60);
    t.deepEqual(
      reading.texts.map(Number).sort((a, b) => a - b),
      numbers(0, 60).map(Number),
    );
    t.is((await channel.checkQueue(queue)).messageCount, 0);
    await producer.send({ topic, messages: [{ value: 'later' }] });
    await reading.last('later');
    await channel.cancel(consumerTag);
    channel.sendToQueue(queue, Buffer.from('by amqp'));
    const got = await channel.get(queue, { noAck: true });
    t.is(got && got.content.toString(), 'by amqp');
    await channel.assertQueue(topic, { arguments: { 'x-topic': topic } });
    t.is((await channel.checkQueue(topic)).messageCount, 62);
    t.is((await channel.deleteQueue(topic)).messageCount, 62);
    await channel.deleteQueue(queue);
    t.is((await channel.checkQueue(`${topic}-0`)).messageCount > 0, true);
  });
  t.regex(await refused((c) => c.assertQueue('q', { arguments: { 'x-topic': 'none' } })), /^NOT_FOUND|^PRECONDITION/);
  await producer.disconnect();
});

test('streams and what is attached are there after a restart', async (t) => {
  const own = await startTestBroker();
  try {
    const connection = await amqp.connect(own.amqp);
    connection.on('error', () => {});
    const channel = await connection.createConfirmChannel();
    await channel.assertQueue('log', {
      arguments: { 'x-queue-type': 'stream', 'x-max-age': '7D', 'x-max-length-bytes': 1e9 },
    });
    await channel.assertQueue('tasks', { arguments: { 'x-topic': 'log' } });
    channel.sendToQueue('log', Buffer.from('kept'));
    await channel.waitForConfirms();
    const closed = once(connection, 'close');
    await own.restart();
    await closed;
    const again = await amqp.connect(own.amqp);
    const after = await again.createChannel();
    await after.assertQueue('log', {
      arguments: { 'x-queue-type': 'stream', 'x-max-age': '7D', 'x-max-length-bytes': 1e9 },
    });
    await after.prefetch(1);
    const reading = new Reading(after);
    await after.consume('log', reading.take, { arguments: { 'x-stream-offset': 'first' } });
    await reading.last('kept');
    const got = await after.get('tasks', { noAck: true });
    t.is(got && got.content.toString(), 'kept');
    t.is((await after.deleteQueue('log')).messageCount, 1);
    await again.close();
  } finally {
    await own.stop();
  }
});
