/**
 * Streams, told against this broker and against RabbitMQ. `rabbitmq-streams-4.0.5.txt` is what RabbitMQ said:
 * `node .build/…/test/adapters/amqp/rabbitmq-streams.js amqp://guest:guest@HOST:PORT` on an empty broker prints it.
 */
import amqp, { type Channel, type ConsumeMessage } from 'amqplib';
import { outcome } from './outcome.ts';

type Case = readonly [name: string, work: (channel: Channel, queue: string) => unknown];

const MESSAGES = 8;
/** Of a consumer that may have got all it gets. */
const QUIET_MS = 250;
/** amqplib's word for the table type `l`, RabbitMQ's own for integers from clients. */
const long = (value: number): object => ({ '!': 'int64', value });
const stream = (name: string, value: unknown): object => ({ 'x-queue-type': 'stream', [name]: value });

/** What a consumer gets until nothing more comes. */
function read(from: unknown, options: { prefetch?: number; arguments?: object; isAcked?: boolean } = {}): Case[1] {
  return async (channel, queue) => {
    const { prefetch = 100, isAcked = true } = options;
    await channel.prefetch(prefetch);
    const messages: ConsumeMessage[] = [];
    let timer: NodeJS.Timeout | undefined;
    const quiet = new Promise<void>((done) => {
      const wait = (): void => {
        clearTimeout(timer);
        timer = setTimeout(done, QUIET_MS);
      };
      wait();
      const start = from === undefined ? {} : { 'x-stream-offset': from };
      void channel
        .consume(
          queue,
          (message) => {
            if (message === null) return;
            messages.push(message);
            if (isAcked) channel.ack(message);
            wait();
          },
          { arguments: { ...start, ...options.arguments } },
        )
        .catch(() => {});
    });
    await quiet;
    return messages.map(
      ({ content, fields: { redelivered }, properties: { headers } }) =>
        `${content} ${redelivered} ${JSON.stringify(headers)}`,
    );
  };
}

const cases: readonly Case[] = [
  ['redeclare', (c, q) => c.assertQueue(q, { arguments: { 'x-queue-type': 'stream' } })],
  ['redeclare as classic', (c, q) => c.assertQueue(q)],
  ['redeclare with age', (c, q) => c.assertQueue(q, { arguments: stream('x-max-age', '1h') })],
  ['passive', (c, q) => c.checkQueue(q)],
  ...[{ durable: false }, { exclusive: true }, { autoDelete: true }, { maxPriority: 3 }, { messageTtl: 5 }].map(
    (options): Case => [
      `stream ${JSON.stringify(options)}`,
      (c) => c.assertQueue('pstream', { ...options, arguments: { 'x-queue-type': 'stream' } }),
    ],
  ),
  ...(
    [
      ['x-max-age', '7D'],
      ['x-max-age', '7'],
      ['x-max-age', '1d'],
      ['x-max-age', 5],
      ['x-max-length-bytes', 5000],
      ['x-max-length-bytes', -1],
      ['x-max-length-bytes', 'a'],
      ['x-stream-max-segment-size-bytes', 1_000_000],
      ['x-stream-max-segment-size-bytes', -1],
      ['x-stream-max-segment-size-bytes', 'a'],
      ['x-stream-max-segment-size-bytes', 5_000_000_000],
      ['x-stream-filter-size-bytes', 32],
      ['x-stream-filter-size-bytes', 3],
      ['x-stream-filter-size-bytes', 300],
      ['x-initial-cluster-size', 1],
      ['x-initial-cluster-size', 0],
      ['x-initial-cluster-size', 'a'],
      ['x-queue-leader-locator', 'client-local'],
      ['x-queue-leader-locator', 'nonsense'],
      ['x-max-length', 5],
      ['x-message-ttl', 5],
      ['x-expires', 5],
      ['x-overflow', 'drop-head'],
      ['x-dead-letter-exchange', 'a'],
      ['x-single-active-consumer', true],
      ['x-delivery-limit', 3],
      ['x-max-priority', 3],
      ['x-queue-mode', 'lazy'],
      ['x-quorum-initial-group-size', 1],
      ['x-unknown', 1],
    ] as const
  ).map(
    ([name, value]): Case => [
      `stream ${name}: ${value}`,
      async (c) => {
        const answer = await c.assertQueue('pargs', { arguments: stream(name, value) });
        await c.deleteQueue('pargs');
        return answer;
      },
    ],
  ),
  ...(
    ['x-max-age', 'x-stream-max-segment-size-bytes', 'x-stream-filter-size-bytes', 'x-initial-cluster-size'] as const
  ).map(
    (name): Case => [
      `classic ${name}`,
      (c) => c.assertQueue('pclassic', { arguments: { [name]: name === 'x-max-age' ? '1h' : 20 } }),
    ],
  ),
  ['get', (c, q) => c.get(q)],
  ['get without ack', (c, q) => c.get(q, { noAck: true })],
  ['purge', (c, q) => c.purgeQueue(q)],
  ['consume without prefetch', (c, q) => c.consume(q, () => {})],
  [
    'consume without ack',
    async (c, q) => {
      await c.prefetch(5);
      await c.consume(q, () => {}, { noAck: true });
    },
  ],
  [
    'consume with global prefetch',
    async (c, q) => {
      await c.prefetch(5, true);
      await c.consume(q, () => {});
    },
  ],
  [
    'exclusive consumer',
    async (c, q) => {
      await c.prefetch(5);
      await c.consume(q, () => {}, { exclusive: true, consumerTag: 'a' });
      await c.consume(q, () => {}, { exclusive: true, consumerTag: 'b' });
      return c.checkQueue(q);
    },
  ],
  [
    'consumers are counted',
    async (c, q) => {
      await c.prefetch(5);
      await c.consume(q, () => {}, { consumerTag: 'a' });
      return c.checkQueue(q);
    },
  ],
  ['no offset', read(undefined)],
  ['first', read('first')],
  ['next', read('next')],
  ['offset 0', read(long(0))],
  ['offset 3', read(long(3))],
  ['offset 7', read(long(7))],
  ['offset 8', read(long(8))],
  ['offset 100', read(long(100))],
  ['offset of another integer type', read(5)],
  ['an hour ago', read('1h')],
  ['a timestamp of the past', read({ '!': 'timestamp', value: 1_000_000_000 })],
  ['a timestamp of the future', read({ '!': 'timestamp', value: 4_000_000_000 })],
  ['prefetch 2 without acks', read('first', { prefetch: 2, isAcked: false })],
  [
    'negative acks make room',
    async (c, q) => {
      await c.prefetch(2);
      const seen: string[] = [];
      let isDone = (): void => {};
      const done = new Promise<void>((resolve) => {
        isDone = resolve;
      });
      await c.consume(
        q,
        (message) => {
          if (message === null) return;
          seen.push(`${message.content} ${message.fields.redelivered}`);
          if (seen.length % 2 === 0) c.nack(message, false, true);
          else c.reject(message, false);
          if (seen.length === MESSAGES) isDone();
        },
        { arguments: { 'x-stream-offset': 'first' } },
      );
      await done;
      return seen;
    },
  ],
  [
    'ack twice',
    async (c, q) => {
      await c.prefetch(2);
      await new Promise<void>((resolve) => {
        void c.consume(
          q,
          (message) => {
            if (message === null) return;
            c.ack(message);
            c.ack(message);
            resolve();
          },
          { arguments: { 'x-stream-offset': long(7) } },
        );
      });
    },
  ],
  [
    'bound to an exchange',
    async (c, q) => {
      await c.assertExchange('pfan', 'fanout');
      await c.bindQueue(q, 'pfan', '');
      c.publish('pfan', 'some.key', Buffer.from('bound'), {
        messageId: 'm',
        contentType: 'text/plain',
        headers: { own: 1, 'x-stream-offset': 77 },
        expiration: '1',
        persistent: false,
      });
      await c.checkQueue(q);
      return new Promise((resolve) => {
        void c.prefetch(1).then(() =>
          c.consume(
            q,
            (message) => {
              if (message === null) return;
              const { properties, fields } = message;
              const given = Object.entries(properties).filter(([, value]) => value !== undefined);
              resolve([fields.exchange, fields.routingKey, Object.fromEntries(given)]);
            },
            { arguments: { 'x-stream-offset': long(MESSAGES) } },
          ),
        );
      });
    },
  ],
  ['delete if unused', (c, q) => c.deleteQueue(q, { ifUnused: true })],
  [
    'delete if empty',
    async (c, q) => {
      await c.assertQueue(q, { arguments: { 'x-queue-type': 'stream' } });
      c.sendToQueue(q, Buffer.from('a'));
      return c.deleteQueue(q, { ifEmpty: true });
    },
  ],
  ['delete', (c, q) => c.deleteQueue(q)],
];

/** A line for each case. */
export async function streamOutcomes(url: string): Promise<string[]> {
  const queue = 'pstreams';
  const connection = await amqp.connect(url, { noDelay: true });
  const channel = await connection.createConfirmChannel();
  await channel.assertQueue(queue, { arguments: { 'x-queue-type': 'stream' } });
  for (let index = 0; index < MESSAGES; index++) {
    channel.sendToQueue(queue, Buffer.from(`m${index}`), { headers: { number: index } });
    await channel.waitForConfirms();
  }
  await connection.close();
  const lines: string[] = [];
  for (const [name, work] of cases) {
    const told = await outcome(url, (ch) => work(ch, queue));
    // RabbitMQ counts messages and consumers of a stream late or never.
    lines.push(`${name} | ${told.replace(/"(messageCount|consumerCount)":\d+/g, '"$1":…')}`);
  }
  return lines;
}

if (process.argv[2]?.startsWith('amqp://')) console.log((await streamOutcomes(process.argv[2])).join('\n'));
