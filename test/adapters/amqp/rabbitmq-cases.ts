/**
 * Cases that are run against this broker and against RabbitMQ, with what a client is told in each. `rabbitmq-4.0.5.txt` is
 * what RabbitMQ said: `node dist/test/adapters/amqp/rabbitmq-cases.js amqp://guest:guest@HOST:PORT` on an empty broker
 * prints it. Names that a server makes are masked.
 */
import amqp, { type Channel, type Message } from 'amqplib';
import { outcome } from './outcome.ts';

type Case = readonly [name: string, work: (ch: Channel) => unknown];

const tagged = (deliveryTag: number): Message => ({ fields: { deliveryTag } }) as Message;

const cases: readonly Case[] = [
  ['passive missing', (ch) => ch.checkQueue('nope')],
  ['passive exch missing', (ch) => ch.checkExchange('nope')],
  ['consume missing', (ch) => ch.consume('nope', () => {})],
  ['get missing', (ch) => ch.get('nope')],
  ['purge missing', (ch) => ch.purgeQueue('nope')],
  ['delete missing', (ch) => ch.deleteQueue('nope')],
  ['delete exch missing', (ch) => ch.deleteExchange('nope')],
  ['bind missing q', (ch) => ch.bindQueue('nope', 'px', 'k')],
  ['bind missing x', (ch) => ch.bindQueue('pq', 'nope', 'k')],
  ['bindx missing src', (ch) => ch.bindExchange('px', 'nope', 'k')],
  ['bindx missing dst', (ch) => ch.bindExchange('nope', 'px', 'k')],
  ['unbind missing', (ch) => ch.unbindQueue('pq', 'px', 'k')],
  ['unbind missing q', (ch) => ch.unbindQueue('nope', 'px', 'k')],
  ['unbind missing x', (ch) => ch.unbindQueue('pq', 'nope', 'k')],
  [
    'publish missing x',
    async (ch) => {
      ch.publish('nope', 'k', Buffer.from('a'));
    },
  ],
  [
    'publish internal',
    async (ch) => {
      ch.publish('pint', 'k', Buffer.from('a'));
    },
  ],
  ['redeclare durable', (ch) => ch.assertQueue('pq', { durable: false })],
  ['redeclare autodel', (ch) => ch.assertQueue('pq', { durable: true, autoDelete: true })],
  ['redeclare excl', (ch) => ch.assertQueue('pq', { durable: true, exclusive: true })],
  ['redeclare ttl', (ch) => ch.assertQueue('pq', { durable: true, arguments: { 'x-message-ttl': 5 } })],
  ['redeclare ttl gone', (ch) => ch.assertQueue('pttl', { durable: true })],
  ['redeclare ttl other', (ch) => ch.assertQueue('pttl', { durable: true, arguments: { 'x-message-ttl': 5 } })],
  ['redeclare qtype', (ch) => ch.assertQueue('pq', { durable: true, arguments: { 'x-queue-type': 'quorum' } })],
  [
    'redeclare qtype classic',
    (ch) => ch.assertQueue('pq', { durable: true, arguments: { 'x-queue-type': 'classic' } }),
  ],
  ['redeclare unknown arg', (ch) => ch.assertQueue('pq', { durable: true, arguments: { 'x-foo': 'quorum' } })],
  ['redecl x type', (ch) => ch.assertExchange('px', 'fanout', { durable: true })],
  ['redecl x durable', (ch) => ch.assertExchange('px', 'direct', { durable: false })],
  ['redecl x autodel', (ch) => ch.assertExchange('px', 'direct', { durable: true, autoDelete: true })],
  ['redecl x internal', (ch) => ch.assertExchange('px', 'direct', { durable: true, internal: true })],
  ['redecl x ae', (ch) => ch.assertExchange('px', 'direct', { durable: true, alternateExchange: 'foo' })],
  ['x unknown type', (ch) => ch.assertExchange('py', 'foo', { durable: true })],
  ['x amq.', (ch) => ch.assertExchange('amq.foo', 'direct', { durable: true })],
  ['q amq.', (ch) => ch.assertQueue('amq.foo', { durable: true })],
  ['x amq.direct', (ch) => ch.assertExchange('amq.direct', 'direct', { durable: true })],
  ['x default declare', (ch) => ch.assertExchange('', 'direct', { durable: true })],
  ['x default passive', (ch) => ch.checkExchange('')],
  ['x default delete', (ch) => ch.deleteExchange('')],
  ['x amq.direct delete', (ch) => ch.deleteExchange('amq.direct')],
  ['bind default', (ch) => ch.bindQueue('pq', '', 'k')],
  ['unbind default', (ch) => ch.unbindQueue('pq', '', 'k')],
  ['bindx default', (ch) => ch.bindExchange('px', '', 'k')],
  ['bindx default dst', (ch) => ch.bindExchange('', 'px', 'k')],
  ['excl other conn declare', (ch) => ch.assertQueue('pexcl', { exclusive: true })],
  ['excl other conn consume', (ch) => ch.consume('pexcl', () => {})],
  ['excl other conn get', (ch) => ch.get('pexcl')],
  ['excl other conn passive', (ch) => ch.checkQueue('pexcl')],
  ['excl other conn delete', (ch) => ch.deleteQueue('pexcl')],
  ['excl other conn bind', (ch) => ch.bindQueue('pexcl', 'px', 'k')],
  ['delete in use', (ch) => ch.deleteQueue('pused', { ifUnused: true })],
  ['delete not empty', (ch) => ch.deleteQueue('pfull', { ifEmpty: true })],
  ['excl consumer conflict', (ch) => ch.consume('pexcons', () => {})],
  ['excl consumer conflict2', (ch) => ch.consume('pused', () => {}, { exclusive: true })],
  ['get from excl consumer', (ch) => ch.get('pexcons')],
  [
    'tag reused',
    async (ch) => {
      await ch.consume('pq', () => {}, { consumerTag: 'a' });
      await ch.consume('pq', () => {}, { consumerTag: 'a' });
    },
  ],
  ['cancel unknown', (ch) => ch.cancel('zzz')],
  [
    'ack unknown',
    async (ch) => {
      ch.ack(tagged(77));
    },
  ],
  [
    'nack unknown',
    async (ch) => {
      ch.nack(tagged(77));
    },
  ],
  [
    'ack 0 multiple',
    async (ch) => {
      ch.ack(tagged(0), true);
    },
  ],
  [
    'ack 5 multiple',
    async (ch) => {
      ch.ack(tagged(5), true);
    },
  ],
  [
    'mandatory',
    async (ch) => {
      ch.publish('px', 'k', Buffer.from('a'), { mandatory: true });
    },
  ],
  [
    'bad expiration',
    async (ch) => {
      ch.publish('', 'pq', Buffer.from('a'), { expiration: 'abc' });
    },
  ],
  [
    'neg expiration',
    async (ch) => {
      ch.publish('', 'pq', Buffer.from('a'), { expiration: '-1' });
    },
  ],
  [
    'bad user',
    async (ch) => {
      ch.publish('', 'pq', Buffer.from('a'), { userId: 'abc' });
    },
  ],
  [
    'bad cc',
    async (ch) => {
      ch.publish('', 'pq', Buffer.from('a'), { headers: { CC: 'abc' } });
    },
  ],
  ['passive diff', (ch) => ch.checkQueue('pttl')],
  ['server named', (ch) => ch.assertQueue('', { exclusive: true })],
  [
    'server named passive',
    async (ch) => {
      await ch.assertQueue('', { exclusive: true });
      return ch.checkQueue('');
    },
  ],
  ['no default q', (ch) => ch.checkQueue('')],
  ['gen consumer tag', (ch) => ch.consume('pq', () => {})],
  ['recover true', (ch) => ch.recover()],
  ['ttl-args exch xmatch', (ch) => ch.bindQueue('pq', 'amq.headers', '', { 'x-match': 'foo' })],
  [
    'delete x in use',
    async (ch) => {
      await ch.assertExchange('pu', 'direct');
      await ch.bindQueue('pq', 'pu', 'k');
      return ch.deleteExchange('pu', { ifUnused: true });
    },
  ],
  ...(
    [
      ['x-message-ttl', -1],
      ['x-message-ttl', 'a'],
      ['x-message-ttl', 1.5],
      ['x-expires', 0],
      ['x-max-length', -1],
      ['x-max-length', 'abc'],
      ['x-max-length-bytes', -1],
      ['x-max-priority', 256],
      ['x-max-priority', -1],
      ['x-overflow', 'foo'],
      ['x-queue-type', 'foo'],
      ['x-queue-mode', 'foo'],
      ['x-single-active-consumer', 'foo'],
      ['x-dead-letter-routing-key', 'foo'],
      ['x-dead-letter-exchange', 5],
      ['x-delivery-limit', 5],
    ] as const
  ).map(
    ([name, value]): Case => [
      `argument ${name}: ${value}`,
      (ch) => ch.assertQueue('pargs', { arguments: { [name]: value } }),
    ],
  ),
  ...[{ durable: false }, { exclusive: true }, { autoDelete: true }, { maxPriority: 3 }].map(
    (options): Case => [
      `quorum queue ${JSON.stringify(options)}`,
      (ch) => ch.assertQueue('pquorum', { ...options, arguments: { 'x-queue-type': 'quorum' } }),
    ],
  ),
];

/** A line for each case: what was answered, returned, and which error ended channel or connection. */
export async function outcomes(url: string): Promise<string[]> {
  const connection = await amqp.connect(url, { noDelay: true });
  const channel = await connection.createConfirmChannel();
  await channel.assertQueue('pq');
  await channel.assertExchange('px', 'direct');
  await channel.assertExchange('pint', 'direct', { internal: true });
  await channel.assertQueue('pexcl', { exclusive: true });
  await channel.assertQueue('pttl', { arguments: { 'x-message-ttl': 1000 } });
  for (const queue of ['pused', 'pexcons', 'pfull']) await channel.assertQueue(queue);
  await channel.consume('pused', () => {});
  await channel.consume('pexcons', () => {}, { exclusive: true });
  channel.sendToQueue('pfull', Buffer.from('x'));
  await channel.waitForConfirms();
  const lines: string[] = [];
  for (const [name, work] of cases) lines.push(`${name} | ${await outcome(url, work)}`);
  await connection.close();
  return lines;
}

if (process.argv[2]?.startsWith('amqp://')) console.log((await outcomes(process.argv[2])).join('\n'));
