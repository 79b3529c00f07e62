/**
 * One record, three views (docs/amqp.md has the table), and queues that one door has set and others use: AMQP arguments,
 * `millrace queue create`, configs of a Kafka group; taken by amqplib and by members of a share group.
 */
import amqp, { type Channel, type ChannelModel, type ConsumeMessage, type GetMessage } from 'amqplib';
import test from 'ava';
import { Kafka, logLevel, type KafkaMessage } from 'kafkajs';
import { contentHeaderFrame, FRAME_HEADER, FrameReader, methodFrame } from '../../../protocol/amqp/frame.ts';
import { readContentHeader, writeProperties } from '../../../protocol/amqp/properties.ts';
import { NO_TABLE, type Table, textField } from '../../../protocol/amqp/table.ts';
import { Reader } from '../../../protocol/bytes.ts';
import { handshake, type MemoryAmqp, openMemoryAmqp } from '../../support/amqp-client.ts';
import { startTestBroker, type TestBroker } from '../../support/broker.ts';
import { RawClient } from '../../support/raw-client.ts';
import { ShareConsumer } from '../../support/share-consumer.ts';

let broker: TestBroker;
let kafka: Kafka;
let connection: ChannelModel;
test.before(async () => {
  broker = await startTestBroker();
  kafka = new Kafka({ brokers: [broker.bootstrap], logLevel: logLevel.NOTHING });
  connection = await amqp.connect(broker.amqp);
});
test.after.always(async () => {
  await connection.close();
  await broker.stop();
});

let count = 0;
const unique = (what: string): string => `${what}${++count}`;

async function withChannel(work: (channel: Channel) => Promise<void>): Promise<void> {
  const channel = await connection.createConfirmChannel();
  await work(channel);
  await channel.close();
}

async function published(
  queue: string,
  messages: readonly (readonly [string, amqp.Options.Publish?])[],
): Promise<void> {
  const channel = await connection.createConfirmChannel();
  for (const [text, options] of messages) channel.sendToQueue(queue, Buffer.from(text), options ?? {});
  await channel.waitForConfirms();
  await channel.close();
}

async function produced(topic: string, messages: Parameters<ReturnType<Kafka['producer']>['send']>[0]['messages']) {
  const producer = kafka.producer();
  await producer.connect();
  await producer.send({ topic, messages });
  await producer.disconnect();
}

/** The first records of a topic, as a consumer group sees them. */
async function readLog(topic: string, size: number): Promise<KafkaMessage[]> {
  const consumer = kafka.consumer({ groupId: unique('log') });
  const seen: KafkaMessage[] = [];
  await consumer.connect();
  await consumer.subscribe({ topic, fromBeginning: true });
  await new Promise<void>((done) => {
    void consumer.run({
      eachMessage: async ({ message }) => {
        if (seen.push(message) === size) done();
      },
    });
  });
  await consumer.disconnect();
  return seen;
}

/** A message that is there, or comes soon. */
async function got(channel: Channel, queue: string, isAcked = true): Promise<GetMessage> {
  for (;;) {
    const message = await channel.get(queue, { noAck: isAcked });
    if (message !== false) return message;
  }
}

/** The newest entry of its history. */
function lastDeath({ properties }: GetMessage): object {
  const [death = {}] = (properties.headers?.['x-death'] ?? []) as object[];
  return death;
}

async function command(command: string, rest: object): Promise<Record<string, unknown>> {
  const client = await RawClient.connect(broker.bootstrap);
  const queueCommand = Buffer.from(JSON.stringify({ command, ...rest }));
  const { queueAnswer } = await client.ask('AlterShareGroupOffsets', 0, { groupId: '', topics: [], queueCommand });
  client.close();
  const { answer, error } = JSON.parse(String(queueAnswer)) as Record<string, Record<string, unknown>>;
  if (error !== undefined) throw new Error(JSON.stringify(error));
  return answer;
}

const everyType: Table = [
  ['S', textField('text ü')],
  ['x', { type: 'x', value: Buffer.from([0, 255, 1]) }],
  ['I', { type: 'I', value: -2_000_000_000 }],
  ['i', { type: 'i', value: 4_000_000_000 }],
  ['l', { type: 'l', value: -9_223_372_036_854_775_807n }],
  ['L', { type: 'L', value: 5 }],
  ['s', { type: 's', value: -3 }],
  ['u', { type: 'u', value: 65_535 }],
  ['b', { type: 'b', value: -128 }],
  ['B', { type: 'B', value: 255 }],
  ['t', { type: 't', value: true }],
  ['no', { type: 't', value: false }],
  ['f', { type: 'f', value: 0.5 }],
  ['d', { type: 'd', value: -1e300 }],
  ['D', { type: 'D', scale: 2, value: 314 }],
  ['T', { type: 'T', value: 1_700_000_000 }],
  ['F', { type: 'F', value: [['in', { type: 'A', value: [{ type: 'V' }, textField('x')] }]] }],
  ['A', { type: 'A', value: [] }],
  ['V', { type: 'V' }],
  ['twice', textField('a')],
  ['twice', textField('b')],
  ['x-group-id', textField('group')],
];
const everyProperty = writeProperties({
  contentType: 'application/json',
  contentEncoding: 'gzip',
  headers: everyType,
  deliveryMode: 1,
  priority: 7,
  correlationId: 'c',
  replyTo: 'r',
  expiration: '3600000',
  messageId: 'm',
  timestamp: 18_446_744_073_709_551_615n,
  type: 't',
  userId: 'guest',
  appId: 'a',
  clusterId: 'k',
});

async function run(memory: MemoryAmqp): Promise<void> {
  for (let step = 0; step < 50; step++) await memory.clock.advance(1);
}

test('properties of every type come out of a queue bit for bit, and out of its log with the offset added', async (t) => {
  const memory = await openMemoryAmqp();
  const peer = memory.peer();
  const queue = { queue: 'q', exclusive: false, autoDelete: false, noWait: false, arguments: NO_TABLE };
  const consume = { noLocal: false, noAck: false, exclusive: false, noWait: false };
  peer.send(...handshake, methodFrame(1, { method: 'channel.open', reserved1: '' } as never));
  peer.send(
    { method: 'queue.declare', passive: false, durable: true, ...queue },
    { method: 'basic.publish', exchange: '', routingKey: 'q', mandatory: false, immediate: false },
    contentHeaderFrame(1, 0, everyProperty),
    { method: 'basic.qos', prefetchSize: 0, prefetchCount: 5, global: false },
    { method: 'basic.consume', queue: 'q', consumerTag: 'a', ...consume, arguments: NO_TABLE },
    {
      method: 'basic.consume',
      queue: 'q',
      consumerTag: 'b',
      ...consume,
      arguments: [['x-stream-offset', textField('first')]],
    },
  );
  await run(memory);
  const frames = new FrameReader(131_072);
  frames.push(peer.received);
  const seen: Buffer[] = [];
  while (frames.next()) {
    if (frames.type === FRAME_HEADER) seen.push(Buffer.from(readContentHeader(new Reader(frames.payload)).properties));
  }
  const entry = Buffer.from([15, ...Buffer.from('x-stream-offset'), 0x6c, 0, 0, 0, 0, 0, 0, 0, 0]);
  t.is(seen.length, 2);
  const [taken, read] = seen.sort((a, b) => a.length - b.length);
  t.true(taken.equals(everyProperty));
  t.is(read.length, everyProperty.length + entry.length);
  t.true(read.includes(entry));
});

test('what amqplib publishes is a record as the table says', async (t) => {
  const queue = unique('from-amqp');
  await withChannel(async (channel) => {
    await channel.assertQueue(queue);
  });
  const headers = {
    text: 'ü',
    bytes: Buffer.from([1, 255]),
    number: 7,
    fraction: 0.5,
    yes: true,
    no: false,
    nothing: null,
    when: { '!': 'timestamp', value: 1_700_000_000 },
    table: { a: 1 },
    list: [1],
    decimal: { '!': 'decimal', value: { digits: 314, places: 2 } },
    'x-group-id': 'group',
    'millrace.ttl.ms': '1',
  };
  await published(queue, [['body', { headers, expiration: '3600000', priority: 3, timestamp: 1, messageId: 'm' }]]);
  const [{ key, value, headers: seen = {}, timestamp }] = await readLog(queue, 1);
  const { 'millrace.amqp.properties': stored, ...others } = seen;
  t.is(String(key), 'group');
  t.is(String(value), 'body');
  t.true(Date.now() - Number(timestamp) < 60_000);
  t.true(Buffer.isBuffer(stored));
  t.deepEqual(
    Object.fromEntries(Object.entries(others).map(([name, bytes]) => [name, bytes === null ? null : String(bytes)])),
    {
      text: 'ü',
      bytes: String(Buffer.from([1, 255])),
      number: '7',
      fraction: '0.5',
      yes: 'true',
      no: 'false',
      nothing: null,
      when: '1700000000',
      'millrace.ttl.ms': '3600000',
      'millrace.priority': '3',
    },
  );
});

test('what kafkajs produces is a message as the table says', async (t) => {
  const queue = unique('from-kafka');
  await withChannel(async (channel) => {
    await channel.assertQueue(queue, { maxPriority: 9 });
    await produced(queue, [
      { key: 'k', value: 'v', headers: { text: 'ü', bytes: Buffer.from([1, 255]), many: ['a', 'b'], empty: '' } },
      { key: null, value: null },
      {
        value: 'urgent',
        headers: { 'millrace.priority': '5', 'millrace.ttl.ms': '3600000' },
      },
    ]);
    const urgent = await got(channel, queue);
    t.is(urgent.content.toString(), 'urgent');
    t.like(urgent.properties, { priority: 5, expiration: '3600000', headers: {}, deliveryMode: 2 });
    const first = await got(channel, queue);
    t.is(first.content.toString(), 'v');
    t.like(first.fields, { exchange: '', routingKey: queue, redelivered: false });
    t.deepEqual(
      { ...first.properties.headers, bytes: 0 },
      { text: 'ü', bytes: 0, many: 'b', empty: '', 'x-group-id': 'k' },
    );
    t.is(first.properties.timestamp, undefined);
    const nothing = await got(channel, queue);
    t.is(nothing.content.length, 0);
    t.deepEqual(nothing.properties.headers, {});
  });
});

test('AMQP arguments count for members of the share group', async (t) => {
  const queue = unique('arguments');
  const dead = unique('dead');
  await withChannel(async (channel) => {
    await channel.assertQueue(dead);
    await channel.assertQueue(queue, {
      maxPriority: 5,
      maxLength: 3,
      deadLetterExchange: '',
      deadLetterRoutingKey: dead,
    });
    await published(queue, [['oldest'], ['low', { priority: 1 }], ['high', { priority: 4 }], ['newest']]);
    const overflown = await got(channel, dead);
    // As in RabbitMQ the head goes, which is of the highest priority.
    t.is(overflown.content.toString(), 'high');
    t.like(lastDeath(overflown), { reason: 'maxlen', queue });
    const member = await ShareConsumer.join(broker.bootstrap, queue, queue);
    const order: string[] = [];
    for (let taken = 0; taken < 3; taken++) {
      const [record] = await member.fetch(1);
      order.push(record.value);
      await member.settle([record], taken === 0 ? 'reject' : 'accept');
    }
    t.deepEqual(order, ['low', 'oldest', 'newest']);
    const rejected = await got(channel, dead);
    t.is(rejected.content.toString(), 'low');
    t.like(lastDeath(rejected), { reason: 'rejected', queue, count: 1 });
    t.is((await channel.checkQueue(queue)).messageCount, 0);
    member.close();
  });
});

test('while AMQP has one active or exclusive consumer, members of the share group get nothing', async (t) => {
  for (const kind of ['single', 'exclusive']) {
    const queue = unique(kind);
    await withChannel(async (channel) => {
      await channel.assertQueue(queue, { arguments: { 'x-single-active-consumer': kind === 'single' } });
      const seen: string[] = [];
      let wake = (): void => {};
      const { consumerTag } = await channel.consume(
        queue,
        (message) => {
          if (message === null) return;
          seen.push(message.content.toString());
          channel.ack(message);
          wake();
        },
        { exclusive: kind === 'exclusive' },
      );
      if (kind === 'single') {
        const member = await ShareConsumer.join(broker.bootstrap, queue, queue);
        const arrived = new Promise<void>((done) => {
          wake = done;
        });
        const fetching = member.fetch();
        await published(queue, [['for AMQP']]);
        await arrived;
        t.deepEqual(await fetching, []);
        await channel.cancel(consumerTag);
        await published(queue, [['for Kafka']]);
        let records = await member.fetch();
        while (records.length === 0) records = await member.fetch();
        t.deepEqual(
          records.map(({ value }) => value),
          ['for Kafka'],
        );
        member.close();
      } else {
        await published(queue, [['for AMQP']]);
        t.is((await channel.checkQueue(queue)).consumerCount, 1);
        await channel.cancel(consumerTag);
      }
      t.true(seen.every((text) => text === 'for AMQP'));
    });
  }
});

test('a queue that `queue create` has set is one for AMQP: groups, ids, delays, limits', async (t) => {
  const ordered = unique('ordered');
  const unlike = unique('unlike');
  const delayed = unique('delayed');
  await command('create', { name: ordered, settings: { ordered: 'true' } });
  await command('create', {
    name: unlike,
    settings: { 'dedup.window.ms': '60000', 'max.messages': '2', overflow: 'refuse' },
  });
  await command('create', { name: delayed, settings: { 'delay.ms': '3600000' } });
  await withChannel(async (channel) => {
    const group = (id: string) => ({ headers: { 'x-group-id': id } });
    await published(ordered, [
      ['a1', group('a')],
      ['a2', group('a')],
      ['b1', group('b')],
    ]);
    const first = await got(channel, ordered, false);
    const second = await got(channel, ordered, false);
    t.deepEqual([first.content.toString(), second.content.toString()], ['a1', 'b1']);
    t.false(await channel.get(ordered));
    channel.ack(first);
    t.is((await got(channel, ordered)).content.toString(), 'a2');
    channel.ack(second);
    const headers = { 'millrace.dedup.id': 'same' };
    await produced(unlike, [{ value: 'one', headers }]);
    await produced(unlike, [{ value: 'again', headers }]);
    await published(unlike, [['two']]);
    await t.throwsAsync(published(unlike, [['three']]));
    t.is((await got(channel, unlike)).content.toString(), 'one');
    t.is((await got(channel, unlike)).content.toString(), 'two');
    t.false(await channel.get(unlike));
    await published(delayed, [['later']]);
    t.is((await channel.checkQueue(delayed)).messageCount, 0);
    t.false(await channel.get(delayed));
    const { queue } = await command('describe', { name: delayed });
    t.is((queue as { delayed: number }).delayed, 1);
    // AMQP has said nothing of these settings, so it may declare the queue in its own words.
    await channel.assertQueue(delayed);
  });
});

test('configs of the group count for a queue that AMQP has declared', async (t) => {
  const queue = unique('configured');
  const dead = unique('dead');
  await withChannel(async (channel) => {
    await channel.assertQueue(queue);
    await channel.assertQueue(dead);
    await ShareConsumer.configure(broker.bootstrap, queue, {
      'share.delivery.count.limit': '2',
      'errors.deadletterqueue.topic.name': dead,
    });
    await published(queue, [['tried']]);
    const member = await ShareConsumer.join(broker.bootstrap, queue, queue);
    for (const deliveryCount of [1, 2]) {
      const records = await member.fetch();
      t.like(records[0], { value: 'tried', deliveryCount });
      await member.settle(records, 'release');
    }
    const letter = await got(channel, dead);
    t.is(letter.content.toString(), 'tried');
    t.like(lastDeath(letter), { reason: 'delivery_limit', queue });
    t.is((await channel.checkQueue(queue)).messageCount, 0);
    const { queue: described } = await command('describe', { name: queue });
    const { settings } = described as { settings: { name: string; value: unknown; origin: unknown }[] };
    t.like(settings.find(({ name }) => name === 'delivery.limit') ?? {}, { value: '2', origin: 'kafka' });
    member.close();
  });
});

test('amqplib and a share group compete for a queue: each message is settled once; its log has them all', async (t) => {
  const queue = unique('shared');
  const total = 400;
  const texts = Array.from({ length: total }, (_, index) => `m${index}`);
  await withChannel(async (channel) => {
    await channel.assertQueue(queue);
    await channel.prefetch(5);
    const byAmqp: string[] = [];
    const byKafka: string[] = [];
    const member = await ShareConsumer.join(broker.bootstrap, queue, queue);
    await channel.consume(queue, (message: ConsumeMessage | null) => {
      if (message === null) return;
      byAmqp.push(message.content.toString());
      setImmediate(() => channel.ack(message));
    });
    let isOver = false;
    const taking = (async () => {
      while (!isOver) {
        const records = await member.fetch(5);
        byKafka.push(...records.map(({ value }) => value));
        await member.settle(records, 'accept');
        isOver = byAmqp.length + byKafka.length >= total;
      }
    })();
    for (let from = 0; from < total; from += 40) {
      await published(
        queue,
        texts.slice(from, from + 20).map((text) => [text] as const),
      );
      await produced(
        queue,
        texts.slice(from + 20, from + 40).map((value) => ({ value })),
      );
    }
    await taking;
    const log = await readLog(queue, total);
    t.deepEqual(
      log.map(({ value }) => String(value)),
      texts,
    );
    t.deepEqual([...byAmqp, ...byKafka].sort(), [...texts].sort());
    t.true(byAmqp.length > 0);
    t.true(byKafka.length > 0);
    t.is((await channel.checkQueue(queue)).messageCount, 0);
    const { queue: described } = await command('describe', { name: queue });
    t.like(described as object, { depth: 0 });
    member.close();
  });
});
