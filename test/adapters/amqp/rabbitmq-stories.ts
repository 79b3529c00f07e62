/**
 * What becomes of messages, told step by step against this broker and against RabbitMQ: dead letters, limits, transactions,
 * replies. `rabbitmq-stories-4.0.5.txt` is what RabbitMQ said:
 * `node .build/…/test/adapters/amqp/rabbitmq-stories.js amqp://guest:guest@HOST:PORT` on an empty broker prints it. Times and
 * names that a server makes are masked.
 */
import amqp, { type Channel, type ChannelModel, type ConfirmChannel, type ConsumeMessage, type Options } from 'amqplib';

/** One story: a channel of its own, and what it has to say. */
interface Stage {
  readonly channel: Channel;
  readonly connection: ChannelModel;
  readonly url: string;
  say(line: string): void;
}

type Story = readonly [name: string, tell: (stage: Stage) => Promise<void>];

const text = (value: string): Buffer => Buffer.from(value);

/** The message as a client sees it, in the order of its own fields. */
function shown({
  content,
  fields,
  properties,
}: Pick<ConsumeMessage, 'content' | 'properties'> & { fields: object }): string {
  const { consumerTag: _, ...place } = fields as Record<string, unknown>;
  const given = Object.fromEntries(Object.entries(properties).filter(([, value]) => value !== undefined));
  const body = content.length > 40 ? `${content.length} bytes` : content.toString();
  return `${body} ${JSON.stringify(place)} ${JSON.stringify(given)}`.replace(/"value":\d{10}\b/g, '"value":TIME');
}

/** The next messages of a queue, as they come. */
async function taken(channel: Channel, queue: string, count: number): Promise<ConsumeMessage[]> {
  const messages: ConsumeMessage[] = [];
  if (count === 0) return messages;
  const { consumerTag } = await new Promise<{ consumerTag: string }>((resolve, reject) => {
    let tag: { consumerTag: string } | undefined;
    const done = (): void => {
      if (tag !== undefined && messages.length === count) resolve(tag);
    };
    channel
      .consume(
        queue,
        (message) => {
          if (message === null || messages.length === count) return;
          messages.push(message);
          done();
        },
        { noAck: true },
      )
      .then((started) => {
        tag = started;
        done();
      }, reject);
  });
  await channel.cancel(consumerTag);
  return messages;
}

async function sayAll({ channel, say }: Stage, queue: string, count: number): Promise<void> {
  for (const message of await taken(channel, queue, count)) say(`${queue}: ${shown(message)}`);
}

/** One message, taken and refused. */
async function reject(channel: Channel, queue: string): Promise<void> {
  for (;;) {
    const message = await channel.get(queue);
    if (message === false) continue;
    channel.nack(message, false, false);
    return;
  }
}

async function queues(channel: Channel, declared: Record<string, Options.AssertQueue>): Promise<void> {
  for (const [name, options] of Object.entries(declared)) await channel.assertQueue(name, options);
}

/** The methods of `tx`, which amqplib has no function for. */
function tx(channel: Channel, method: 'Select' | 'Commit' | 'Rollback'): Promise<unknown> {
  return call(channel, (90 << 16) | { Select: 10, Commit: 20, Rollback: 30 }[method], {});
}

/** A method by the numbers of its class and itself. */
function call(channel: Channel, id: number, fields: object): Promise<unknown> {
  // Not in its types: one method and its answer.
  const { rpc } = channel as unknown as { rpc(id: number, fields: object, answer: number): Promise<unknown> };
  return rpc.call(channel, id, fields, id + 1);
}

/** What ends the channel. */
async function refused({ connection, say }: Stage, work: (channel: Channel) => unknown): Promise<void> {
  const channel = await connection.createChannel();
  const failed = new Promise<void>((resolve) => {
    channel.once('error', (error: Error) => {
      say(`refused: ${/"(.*)"$/s.exec(error.message)?.[1] ?? error.message}`);
      resolve();
    });
  });
  const passed = (async () => {
    await work(channel);
    await channel.checkExchange('amq.direct');
    say('not refused');
    await channel.close();
  })().catch(() => failed);
  await passed;
}

async function depths({ channel, say }: Stage, ...names: string[]): Promise<void> {
  for (const name of names) say(`${name}: ${(await channel.checkQueue(name)).messageCount}`);
}

/** Publishes with confirms on a channel of its own: what each was answered. */
async function confirmed(
  { connection, say }: Stage,
  publish: (channel: ConfirmChannel, told: (error: unknown) => void) => number,
): Promise<void> {
  const channel = await connection.createConfirmChannel();
  const told: string[] = [];
  await new Promise<void>((resolve) => {
    let count = Number.POSITIVE_INFINITY;
    count = publish(channel, (error) => {
      told.push(error ? 'nack' : 'ack');
      if (told.length === count) resolve();
    });
    if (told.length === count) resolve();
  });
  say(`confirms: ${told.join(' ')}`);
  await channel.close();
}

const stories: readonly Story[] = [
  [
    'a reject goes to the queue that the default exchange knows',
    async (stage) => {
      const { channel } = stage;
      await queues(channel, { 'd1.dead': {}, d1: { deadLetterExchange: '', deadLetterRoutingKey: 'd1.dead' } });
      channel.publish('', 'd1', text('a'), {
        persistent: true,
        contentType: 'text/plain',
        priority: 3,
        correlationId: 'c',
        headers: { one: 1, two: 'zwei', three: [1, 'a'] },
      });
      await reject(channel, 'd1');
      await sayAll(stage, 'd1.dead', 1);
    },
  ],
  [
    'without a routing key of the queue the keys stay, those of CC and BCC too',
    async (stage) => {
      const { channel } = stage;
      await channel.assertExchange('d2.x', 'direct');
      await channel.assertExchange('d2.dlx', 'direct');
      await queues(channel, {
        d2: { deadLetterExchange: 'd2.dlx' },
        'd2.k': {},
        'd2.cc': {},
        'd2.bcc': {},
        'd2.other': {},
      });
      await channel.bindQueue('d2', 'd2.x', 'k');
      for (const key of ['k', 'cc', 'bcc', 'other']) await channel.bindQueue(`d2.${key}`, 'd2.dlx', key);
      channel.publish('d2.x', 'k', text('a'), { CC: ['cc'], BCC: ['bcc'] });
      await reject(channel, 'd2');
      for (const key of ['k', 'cc', 'bcc']) await sayAll(stage, `d2.${key}`, 1);
      stage.say(`other: ${(await channel.checkQueue('d2.other')).messageCount}`);
    },
  ],
  [
    'with a routing key of the queue CC and BCC do not count',
    async (stage) => {
      const { channel } = stage;
      await channel.assertExchange('d3.dlx', 'direct');
      await queues(channel, {
        d3: { deadLetterExchange: 'd3.dlx', deadLetterRoutingKey: 'new' },
        'd3.new': {},
        'd3.cc': {},
      });
      await channel.bindQueue('d3.new', 'd3.dlx', 'new');
      await channel.bindQueue('d3.cc', 'd3.dlx', 'cc');
      channel.publish('', 'd3', text('a'), { CC: ['cc'], BCC: ['bcc'] });
      await reject(channel, 'd3');
      await sayAll(stage, 'd3.new', 1);
      stage.say(`cc: ${(await channel.checkQueue('d3.cc')).messageCount}`);
    },
  ],
  [
    'an expiration is taken off and told of',
    async (stage) => {
      const { channel } = stage;
      await queues(channel, { 'd4.dead': {}, d4: { deadLetterExchange: '', deadLetterRoutingKey: 'd4.dead' } });
      channel.publish('', 'd4', text('a'), { expiration: '20', headers: { h: 'x' } });
      await sayAll(stage, 'd4.dead', 1);
      channel.publish('', 'd4', text('b'), { expiration: '0' });
      await sayAll(stage, 'd4.dead', 1);
    },
  ],
  [
    'a rejected message loses its expiration, too',
    async (stage) => {
      const { channel } = stage;
      await queues(channel, { 'd5.dead': {}, d5: { deadLetterExchange: '', deadLetterRoutingKey: 'd5.dead' } });
      channel.publish('', 'd5', text('a'), { expiration: '60000' });
      await reject(channel, 'd5');
      await sayAll(stage, 'd5.dead', 1);
    },
  ],
  [
    'messages expire by the time of their queue, in order',
    async (stage) => {
      const { channel } = stage;
      await queues(channel, {
        'd6.dead': {},
        d6: { messageTtl: 30, deadLetterExchange: '', deadLetterRoutingKey: 'd6.dead' },
      });
      for (const body of ['a', 'b', 'c']) channel.publish('', 'd6', text(body));
      await sayAll(stage, 'd6.dead', 3);
    },
  ],
  [
    'the oldest leave a queue that is full',
    async (stage) => {
      const { channel } = stage;
      await queues(channel, {
        'd7.dead': {},
        d7: { maxLength: 2, deadLetterExchange: '', deadLetterRoutingKey: 'd7.dead' },
      });
      for (const body of ['a', 'b', 'c', 'd']) channel.publish('', 'd7', text(body));
      await sayAll(stage, 'd7.dead', 2);
      await sayAll(stage, 'd7', 2);
    },
  ],
  [
    'a full queue that refuses: with and without dead letters',
    async (stage) => {
      const { channel } = stage;
      await queues(channel, {
        'd8.dead': {},
        'd8.a': { maxLength: 2, arguments: { 'x-overflow': 'reject-publish' } },
        'd8.b': {
          maxLength: 2,
          deadLetterExchange: '',
          deadLetterRoutingKey: 'd8.dead',
          arguments: { 'x-overflow': 'reject-publish-dlx' },
        },
        'd8.c': {
          maxLength: 0,
          deadLetterExchange: '',
          deadLetterRoutingKey: 'd8.dead',
          arguments: { 'x-overflow': 'reject-publish' },
        },
      });
      for (const queue of ['d8.a', 'd8.b', 'd8.c']) {
        for (const body of ['1', '2', '3']) {
          await confirmed(stage, (confirms, told) => {
            confirms.publish('', queue, text(body), { headers: { h: body } }, told);
            return 1;
          });
        }
      }
      await sayAll(stage, 'd8.dead', 1);
      for (const queue of ['d8.a', 'd8.b', 'd8.c', 'd8.dead']) {
        stage.say(`${queue}: ${(await channel.checkQueue(queue)).messageCount}`);
      }
    },
  ],
  [
    'one of two queues refuses',
    async (stage) => {
      const { channel } = stage;
      await channel.assertExchange('d9.x', 'fanout');
      await queues(channel, { 'd9.a': { maxLength: 1, arguments: { 'x-overflow': 'reject-publish' } }, 'd9.b': {} });
      for (const queue of ['d9.a', 'd9.b']) await channel.bindQueue(queue, 'd9.x', '');
      for (const body of ['1', '2']) {
        await confirmed(stage, (confirms, told) => {
          confirms.publish('d9.x', '', text(body), {}, told);
          return 1;
        });
      }
      for (const queue of ['d9.a', 'd9.b']) {
        stage.say(`${queue}: ${(await channel.checkQueue(queue)).messageCount}`);
      }
    },
  ],
  [
    'a quorum queue gives up after its delivery limit',
    async (stage) => {
      const { channel } = stage;
      await queues(channel, {
        'd10.dead': {},
        d10: {
          deadLetterExchange: '',
          deadLetterRoutingKey: 'd10.dead',
          arguments: { 'x-queue-type': 'quorum', 'x-delivery-limit': 2 },
        },
      });
      channel.publish('', 'd10', text('a'), { persistent: true });
      await channel.prefetch(1);
      const { consumerTag } = await channel.consume('d10', (message) => {
        if (message === null) return;
        stage.say(`d10: ${shown(message)}`);
        channel.nack(message, false, true);
      });
      await sayAll(stage, 'd10.dead', 1);
      await channel.cancel(consumerTag);
    },
  ],
  [
    'a quorum queue: rejected after it came back once',
    async (stage) => {
      const { channel } = stage;
      await queues(channel, {
        'd11.dead': {},
        d11: {
          deadLetterExchange: '',
          deadLetterRoutingKey: 'd11.dead',
          arguments: { 'x-queue-type': 'quorum', 'x-dead-letter-strategy': 'at-most-once' },
        },
      });
      channel.publish('', 'd11', text('a'), { persistent: true });
      let count = 0;
      const { consumerTag } = await channel.consume('d11', (message) => {
        if (message !== null) channel.nack(message, false, count++ === 0);
      });
      await sayAll(stage, 'd11.dead', 1);
      await channel.cancel(consumerTag);
    },
  ],
  [
    'deaths of one queue and reason are counted, others listed, the newest first',
    async (stage) => {
      const { channel } = stage;
      await channel.assertExchange('d12.x', 'topic');
      await queues(channel, {
        'd12.a': { deadLetterExchange: 'd12.x', deadLetterRoutingKey: 'b' },
        'd12.b': { deadLetterExchange: '', deadLetterRoutingKey: 'd12.c' },
        'd12.c': { deadLetterExchange: '', deadLetterRoutingKey: 'd12.a' },
      });
      await channel.bindQueue('d12.b', 'd12.x', 'b');
      channel.publish('', 'd12.a', text('a'), { expiration: '5' });
      await reject(channel, 'd12.b');
      await reject(channel, 'd12.c');
      await reject(channel, 'd12.a');
      await reject(channel, 'd12.b');
      await sayAll(stage, 'd12.c', 1);
    },
  ],
  [
    'a message that would go in circles is dropped, one that was rejected is not',
    async (stage) => {
      const { channel } = stage;
      await queues(channel, {
        'd13.a': { messageTtl: 10, deadLetterExchange: '', deadLetterRoutingKey: 'd13.b' },
        'd13.b': { messageTtl: 10, deadLetterExchange: '', deadLetterRoutingKey: 'd13.a' },
        'd13.self': { deadLetterExchange: '', deadLetterRoutingKey: 'd13.self' },
        'd13.ttl': { deadLetterExchange: '', deadLetterRoutingKey: 'd13.ttl' },
        'd13.once': { messageTtl: 10, deadLetterExchange: '', deadLetterRoutingKey: 'd13.end' },
        'd13.end': {},
      });
      channel.publish('', 'd13.a', text('a'));
      channel.publish('', 'd13.self', text('b'));
      channel.publish('', 'd13.ttl', text('c'), { expiration: '1' });
      await reject(channel, 'd13.self');
      await reject(channel, 'd13.self');
      await sayAll(stage, 'd13.self', 1);
      // Whatever these two would do has happened by then.
      for (let index = 0; index < 5; index++) {
        channel.publish('', 'd13.once', text('tick'));
        await taken(channel, 'd13.end', 1);
      }
      for (const queue of ['d13.a', 'd13.b', 'd13.self', 'd13.ttl']) {
        stage.say(`${queue}: ${(await channel.checkQueue(queue)).messageCount}`);
      }
    },
  ],
  [
    'a fanout of dead letters; an exchange that knows nobody, with and without an alternate; one that is not there',
    async (stage) => {
      const { channel } = stage;
      await channel.assertExchange('d14.fan', 'fanout');
      await channel.assertExchange('d14.alt', 'direct', { alternateExchange: 'd14.fan' });
      await channel.assertExchange('d14.none', 'direct');
      await queues(channel, {
        'd14.1': {},
        'd14.2': {},
        'd14.a': { deadLetterExchange: 'd14.fan' },
        'd14.b': { deadLetterExchange: 'd14.alt' },
        'd14.c': { deadLetterExchange: 'd14.none' },
        'd14.d': { deadLetterExchange: 'd14.missing' },
      });
      for (const queue of ['d14.1', 'd14.2']) await channel.bindQueue(queue, 'd14.fan', '');
      for (const queue of ['d14.c', 'd14.d', 'd14.a', 'd14.b']) {
        channel.publish('', queue, text(queue));
        await reject(channel, queue);
      }
      for (const queue of ['d14.1', 'd14.2']) await sayAll(stage, queue, 2);
      for (const queue of ['d14.a', 'd14.b', 'd14.c', 'd14.d']) {
        stage.say(`${queue}: ${(await channel.checkQueue(queue)).messageCount}`);
      }
    },
  ],
  [
    'what a client writes in the place of a history',
    async (stage) => {
      const { channel } = stage;
      await queues(channel, { 'd15.dead': {}, d15: { deadLetterExchange: '', deadLetterRoutingKey: 'd15.dead' } });
      const headers = {
        'x-death': [{ queue: 'd15', reason: 'rejected', count: 7 }],
        'x-first-death-queue': 'mine',
        'x-last-death-reason': 'mine',
      };
      channel.publish('', 'd15', text('a'), { headers });
      const first = await channel.get('d15');
      if (first !== false) {
        stage.say(`d15: ${shown(first)}`);
        channel.reject(first, false);
      }
      await sayAll(stage, 'd15.dead', 1);
    },
  ],
  [
    'a dead letter that a client sends on',
    async (stage) => {
      const { channel } = stage;
      await queues(channel, { 'd16.dead': {}, d16: { deadLetterExchange: '', deadLetterRoutingKey: 'd16.dead' } });
      channel.publish('', 'd16', text('a'));
      await reject(channel, 'd16');
      const [letter] = await taken(channel, 'd16.dead', 1);
      channel.publish('', 'd16', letter.content, { ...letter.properties });
      await reject(channel, 'd16');
      await sayAll(stage, 'd16.dead', 1);
    },
  ],
  [
    'an exchange of dead letters may go by headers',
    async (stage) => {
      const { channel } = stage;
      await channel.assertExchange('d17.x', 'headers');
      await queues(channel, { 'd17.one': {}, 'd17.reason': {}, d17: { deadLetterExchange: 'd17.x' } });
      await channel.bindQueue('d17.one', 'd17.x', '', { 'x-match': 'all', one: 1 });
      await channel.bindQueue('d17.reason', 'd17.x', '', {
        'x-match': 'all-with-x',
        'x-first-death-reason': 'rejected',
      });
      channel.publish('', 'd17', text('a'), { headers: { one: 1 } });
      await reject(channel, 'd17');
      await sayAll(stage, 'd17.one', 1);
      stage.say(`reason: ${(await channel.checkQueue('d17.reason')).messageCount}`);
    },
  ],
  [
    'a purge and the end of a queue make no dead letters',
    async (stage) => {
      const { channel } = stage;
      await queues(channel, { 'd18.dead': {}, d18: { deadLetterExchange: '', deadLetterRoutingKey: 'd18.dead' } });
      channel.publish('', 'd18', text('a'));
      stage.say(`purged: ${(await channel.purgeQueue('d18')).messageCount}`);
      channel.publish('', 'd18', text('b'));
      stage.say(`deleted: ${(await channel.deleteQueue('d18')).messageCount}`);
      stage.say(`dead: ${(await channel.checkQueue('d18.dead')).messageCount}`);
    },
  ],
  [
    'several are refused with one nack',
    async (stage) => {
      const { channel } = stage;
      await queues(channel, { 'd19.dead': {}, d19: { deadLetterExchange: '', deadLetterRoutingKey: 'd19.dead' } });
      for (const body of ['a', 'b', 'c']) channel.publish('', 'd19', text(body));
      const got: ConsumeMessage[] = [];
      await new Promise<void>((resolve) => {
        void channel.consume('d19', (message) => {
          if (message === null) return;
          got.push(message);
          if (got.length === 3) resolve();
        });
      });
      channel.nack(got[2], true, false);
      await sayAll(stage, 'd19.dead', 3);
    },
  ],
  [
    'arguments of dead letters',
    async (stage) => {
      const declare = (options: Options.AssertQueue): Promise<void> =>
        refused(stage, (channel) => channel.assertQueue('a1', options));
      await declare({ arguments: { 'x-dead-letter-exchange': 'x', 'x-dead-letter-routing-key': 5 } });
      await declare({ arguments: { 'x-dead-letter-strategy': 'at-least-once' } });
      await declare({ arguments: { 'x-queue-type': 'quorum', 'x-dead-letter-strategy': 'sometimes' } });
      await declare({ arguments: { 'x-queue-type': 'quorum', 'x-overflow': 'reject-publish-dlx' } });
      const { channel, say } = stage;
      await channel.assertQueue('a2', { deadLetterExchange: 'x', deadLetterRoutingKey: 'k' });
      await refused(stage, (other) => other.assertQueue('a2', { deadLetterExchange: 'y', deadLetterRoutingKey: 'k' }));
      await refused(stage, (other) => other.assertQueue('a2', { deadLetterExchange: 'x' }));
      await channel.assertQueue('a3', { arguments: { 'x-overflow': 'drop-head' } });
      await refused(stage, (other) => other.assertQueue('a3', { arguments: { 'x-overflow': 'reject-publish' } }));
      const atLeastOnce = {
        'x-queue-type': 'quorum',
        'x-dead-letter-strategy': 'at-least-once',
        'x-overflow': 'reject-publish',
      };
      say(JSON.stringify(await channel.assertQueue('a4', { deadLetterExchange: '', arguments: atLeastOnce })));
    },
  ],
  [
    'a transaction publishes at its commit, or not at all',
    async (stage) => {
      const { connection } = stage;
      await queues(stage.channel, { 't1.a': {}, 't1.b': {} });
      const channel = await connection.createChannel();
      await tx(channel, 'Select');
      await tx(channel, 'Select');
      for (const queue of ['t1.a', 't1.b', 't1.a']) channel.sendToQueue(queue, text(queue), { persistent: true });
      await channel.checkExchange('amq.direct');
      await depths(stage, 't1.a', 't1.b');
      await tx(channel, 'Commit');
      await depths(stage, 't1.a', 't1.b');
      channel.sendToQueue('t1.a', text('no'));
      await tx(channel, 'Rollback');
      await tx(channel, 'Commit');
      await depths(stage, 't1.a', 't1.b');
      channel.sendToQueue('t1.a', text('lost'));
      await channel.checkExchange('amq.direct');
      await channel.close();
      await sayAll(stage, 't1.a', 2);
      await sayAll(stage, 't1.b', 1);
      await depths(stage, 't1.a', 't1.b');
    },
  ],
  [
    'acks of a transaction count at its commit; rolled back, the messages wait again',
    async (stage) => {
      const { connection } = stage;
      await queues(stage.channel, {
        t2: {},
        't2.dead': {},
        't2.d': { deadLetterExchange: '', deadLetterRoutingKey: 't2.dead' },
      });
      for (const body of ['a', 'b', 'c', 'd']) stage.channel.sendToQueue('t2', text(body));
      stage.channel.sendToQueue('t2.d', text('x'));
      await stage.channel.checkQueue('t2');
      const channel = await connection.createChannel();
      await tx(channel, 'Select');
      const got: ConsumeMessage[] = [];
      for (const queue of ['t2', 't2', 't2', 't2', 't2.d']) {
        const message = await channel.get(queue);
        if (message !== false) got.push(message as unknown as ConsumeMessage);
      }
      channel.ack(got[0]);
      channel.nack(got[1], false, true);
      await tx(channel, 'Rollback');
      await depths(stage, 't2');
      channel.ack(got[0]);
      channel.nack(got[1], false, true);
      channel.reject(got[4], false);
      await channel.checkExchange('amq.direct');
      await depths(stage, 't2', 't2.dead');
      await tx(channel, 'Commit');
      await depths(stage, 't2');
      await sayAll(stage, 't2.dead', 1);
      channel.ack(got[3], true);
      channel.sendToQueue('t2.dead', text('with an ack'));
      await tx(channel, 'Commit');
      await sayAll(stage, 't2.dead', 1);
      await channel.close();
      await sayAll(stage, 't2', 1);
      await depths(stage, 't2');
    },
  ],
  [
    'what a transaction refuses',
    async (stage) => {
      await queues(stage.channel, {
        t3: {},
        't3.full': { maxLength: 0, arguments: { 'x-overflow': 'reject-publish' } },
      });
      stage.channel.sendToQueue('t3', text('a'));
      await stage.channel.checkQueue('t3');
      await refused(stage, (channel) => tx(channel, 'Commit'));
      await refused(stage, (channel) => tx(channel, 'Rollback'));
      await refused(stage, async (channel) => {
        await tx(channel, 'Select');
        const message = await channel.get('t3');
        if (message === false) return;
        channel.ack(message);
        channel.ack(message);
      });
      await refused(stage, async (channel) => {
        await tx(channel, 'Select');
        channel.publish('nope', '', text('a'));
      });
      await refused(stage, async (channel) => {
        await tx(channel, 'Select');
        channel.sendToQueue('t3.full', text('a'));
        await tx(channel, 'Commit');
      });
      await refused(stage, async (channel) => {
        await tx(channel, 'Select');
        await call(channel, (85 << 16) | 10, { nowait: false });
      });
      const confirms = await stage.connection.createConfirmChannel();
      const failed = new Promise<void>((resolve) => {
        confirms.once('error', (error: Error) => {
          stage.say(`refused: ${/"(.*)"$/s.exec(error.message)?.[1] ?? error.message}`);
          resolve();
        });
      });
      await tx(confirms, 'Select').catch(() => {});
      await failed;
      await depths(stage, 't3', 't3.full');
    },
  ],
  [
    'a mandatory message of a transaction comes back at its commit',
    async (stage) => {
      const channel = await stage.connection.createChannel();
      channel.on('return', (message) => stage.say(`returned: ${shown(message as ConsumeMessage)}`));
      await tx(channel, 'Select');
      channel.publish('', 't4.nobody', text('a'), { mandatory: true });
      await channel.checkExchange('amq.direct');
      stage.say('before the commit');
      await tx(channel, 'Commit');
      stage.say('after the commit');
    },
  ],
  [
    'direct replies',
    async (stage) => {
      const { channel, connection, say } = stage;
      await queues(channel, { r1: {} });
      const inbox: ConsumeMessage[] = [];
      let wake = (): void => {};
      const next = async (): Promise<ConsumeMessage> => {
        while (inbox.length === 0) await new Promise<void>((resolve) => (wake = resolve));
        return inbox.shift() as ConsumeMessage;
      };
      const client = await connection.createChannel();
      const { consumerTag } = await client.consume(
        'amq.rabbitmq.reply-to',
        (message) => {
          if (message !== null) inbox.push(message);
          wake();
        },
        { noAck: true },
      );
      client.sendToQueue('r1', text('question'), { replyTo: 'amq.rabbitmq.reply-to', correlationId: '7' });
      const [question] = await taken(channel, 'r1', 1);
      say(`r1: ${shown(question)}`);
      const { replyTo } = question.properties as { replyTo: string };
      channel.publish('', replyTo, text('answer'), { correlationId: '7', headers: { h: 1 } });
      say(`reply: ${shown(await next())}`);
      channel.publish('', replyTo, text('mandatory'), { mandatory: true });
      say(`reply: ${shown(await next())}`);
      await channel.checkExchange('amq.direct');
      channel.publish('', 'r1', text('by CC'), { CC: [replyTo] });
      say(`reply: ${shown(await next())}`);
      channel.publish('', replyTo, Buffer.alloc(200_000, 'x'));
      say(`reply: ${shown(await next())}`);
      say(JSON.stringify(await channel.checkQueue(replyTo)));
      say(JSON.stringify(await channel.assertQueue('amq.rabbitmq.reply-to')));
      await client.cancel(consumerTag);
      channel.publish('', replyTo, text('nobody'), { mandatory: true });
      await channel.checkExchange('amq.direct');
      await refused(stage, (other) => other.checkQueue(replyTo));
      const failed = new Promise<void>((resolve) => {
        client.once('error', (error: Error) => {
          say(`refused: ${error.message}`);
          resolve();
        });
      });
      client.sendToQueue('r1', text('a'), { replyTo: 'amq.rabbitmq.reply-to' });
      await failed;
    },
  ],
  [
    'what direct replies refuse',
    async (stage) => {
      await refused(stage, (channel) => channel.consume('amq.rabbitmq.reply-to', () => {}));
      await refused(stage, async (channel) => {
        await channel.consume('amq.rabbitmq.reply-to', () => {}, { noAck: true });
        await channel.consume('amq.rabbitmq.reply-to', () => {}, { noAck: true });
      });
      await refused(stage, (channel) => channel.sendToQueue('r1', text('a'), { replyTo: 'amq.rabbitmq.reply-to' }));
      await refused(stage, (channel) => channel.get('amq.rabbitmq.reply-to', { noAck: true }));
      await refused(stage, (channel) => channel.deleteQueue('amq.rabbitmq.reply-to'));
      await refused(stage, (channel) => channel.purgeQueue('amq.rabbitmq.reply-to'));
      await refused(stage, (channel) => channel.bindQueue('amq.rabbitmq.reply-to', 'amq.direct', 'k'));
      await refused(stage, (channel) => channel.checkQueue('amq.rabbitmq.reply-to.nobody'));
    },
  ],
  [
    'a new secret',
    async ({ connection, say }) => {
      // Not in its types yet.
      const renewed = connection as unknown as { updateSecret(secret: Buffer, reason: string): Promise<unknown> };
      await renewed.updateSecret(Buffer.from('guest'), 'why not');
      say('taken');
    },
  ],
];

/** A line for everything that was said, behind the name of its story. */
export async function told(url: string, only = ''): Promise<string[]> {
  const lines: string[] = [];
  for (const [name, tell] of stories) {
    if (!name.includes(only)) continue;
    lines.push(`# ${name}`);
    const connection = await amqp.connect(url, { noDelay: true });
    connection.on('error', (error: Error) => lines.push(`connection: ${error.message}`));
    const channel = await connection.createChannel();
    channel.on('error', (error: Error) => lines.push(`channel: ${error.message}`));
    channel.on('return', (message) => lines.push(`returned: ${shown(message as ConsumeMessage)}`));
    try {
      await tell({ channel, connection, url, say: (line) => lines.push(line) });
    } catch (error) {
      lines.push(`refused: ${error instanceof Error ? error.message : String(error)}`);
    }
    await connection.close().catch(() => {});
  }
  return lines.map((line) =>
    line
      .replace(/amq\.(gen|ctag)-[A-Za-z0-9_-]{22}/g, 'amq.$1-…')
      .replace(/amq\.rabbitmq\.reply-to\.(?!nobody)[^"']+/g, 'amq.rabbitmq.reply-to.…'),
  );
}

if (process.argv[2]?.startsWith('amqp://')) console.log((await told(process.argv[2], process.argv[3])).join('\n'));
