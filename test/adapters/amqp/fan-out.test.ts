/** Costs that must not grow with what they do not need: bodies of a fan-out in the journal, queues of direct replies. */
import amqp from 'amqplib';
import test from 'ava';
import { startTestBroker } from '../../support/broker.ts';

const QUEUES = 300;
const CHANNELS = 50;
const BODY_BYTES = 1024;
const REQUESTS = 2000;

test('a message for many durable queues is in the journal once', async (t) => {
  t.timeout(60_000);
  const broker = await startTestBroker({ 'queues.max': 10_000 });
  try {
    const connection = await amqp.connect(broker.amqp, { noDelay: true });
    const channel = await connection.createConfirmChannel();
    await channel.assertExchange('fan', 'fanout');
    // Many at a time: each waits for the disk.
    const declaring = Array.from({ length: CHANNELS }, async (_, first) => {
      const own = await connection.createChannel();
      for (let index = first; index < QUEUES; index += CHANNELS) {
        await own.assertQueue(`fan-${index}`);
        await own.bindQueue(`fan-${index}`, 'fan', '');
      }
      await own.close();
    });
    await Promise.all(declaring);
    const publish = async (): Promise<void> => {
      channel.publish('fan', '', Buffer.alloc(BODY_BYTES, 'x'), { persistent: true });
      await channel.waitForConfirms();
    };
    // The journal learns of each partition at its first append, and this process the code.
    for (let count = 0; count < 3; count++) await publish();
    const { engine } = broker.running.broker;
    const journaled = (): number => (engine as unknown as { counters: { journalBytes: number } }).counters.journalBytes;
    const before = journaled();
    await publish();
    const bytes = journaled() - before;
    t.true(bytes <= 1.2 * BODY_BYTES + 64 * QUEUES, `${bytes} bytes`);
    t.is((await channel.checkQueue('fan-299')).messageCount, 4);
    await connection.close();
  } finally {
    await broker.stop();
  }
});

test('requests and their direct replies make no queue and no log', async (t) => {
  t.timeout(60_000);
  const broker = await startTestBroker();
  try {
    const connection = await amqp.connect(broker.amqp, { noDelay: true });
    const server = await connection.createChannel();
    const { queue } = await server.assertQueue('', { exclusive: true });
    await server.consume(
      queue,
      (message) => {
        if (message === null) return;
        const { replyTo, correlationId } = message.properties as { replyTo: string; correlationId: string };
        server.publish('', replyTo, message.content, { correlationId });
      },
      { noAck: true },
    );
    const topics = broker.running.broker.topics.size;
    const startedMs = performance.now();
    let replies = 0;
    await new Promise<void>((resolve, reject) => {
      const work = async (): Promise<void> => {
        // A client for each 50 requests, as those that ask once and go.
        for (let client = 0; client < REQUESTS / 50; client++) {
          const channel = await connection.createChannel();
          const answered = new Promise<void>((done) => {
            let left = 50;
            void channel.consume(
              'amq.rabbitmq.reply-to',
              () => {
                replies++;
                if (--left === 0) done();
              },
              { noAck: true },
            );
          });
          for (let number = 0; number < 50; number++) {
            const properties = { replyTo: 'amq.rabbitmq.reply-to', correlationId: String(number) };
            channel.publish('', queue, Buffer.from(`${client} ${number}`), properties);
          }
          await answered;
          await channel.close();
        }
      };
      work().then(resolve, reject);
    });
    t.is(replies, REQUESTS);
    t.log(`${Math.round((REQUESTS * 1000) / (performance.now() - startedMs))} requests a second`);
    t.is(broker.running.broker.topics.size, topics);
    await connection.close();
  } finally {
    await broker.stop();
  }
});
