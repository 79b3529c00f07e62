/**
 * Cases about users, vhosts, permissions, limits and policies that are run against this broker and against RabbitMQ, with
 * what a client is told in each. `access-4.0.5.txt` is what RabbitMQ said: `node dist/test/adapters/amqp/access-cases.js
 * HOST:PORT http://guest:guest@HOST:PORT/api` on an empty broker prints it. Names that a server makes are masked.
 */
import net from 'node:net';
import amqp, { type Channel, type ChannelModel } from 'amqplib';
import { FRAME_METHOD, FrameReader, methodFrame, methodOf, PROTOCOL_HEADER } from '../../../protocol/amqp/frame.ts';
import type { Table } from '../../../protocol/amqp/table.ts';

/** What a case asks of whoever runs the broker, in the words of RabbitMQ's HTTP API below `/api/`. */
export type Administer = (
  method: 'PUT' | 'DELETE',
  path: string,
  body?: Readonly<Record<string, unknown>>,
) => Promise<void>;

interface World {
  /** HOST:PORT */
  readonly address: string;
  readonly administer: Administer;
}

const VHOST = 'v';
const USER = 'u';

/** What the user 'u' is told in vhost 'v', where it may configure, write and read what begins with c, w and r. */
const operations: readonly (readonly [name: string, work: (channel: Channel) => unknown])[] = [
  ['declare c', (ch) => ch.assertQueue('c-new')],
  ['declare other', (ch) => ch.assertQueue('x-new')],
  ['declare other that exists', (ch) => ch.assertQueue('wq')],
  ['declare passive other', (ch) => ch.checkQueue('other')],
  ['declare passive missing', (ch) => ch.checkQueue('nope')],
  ['declare server-named', (ch) => ch.assertQueue('', { exclusive: true })],
  ['declare with dead letters', (ch) => ch.assertQueue('c-dlx', { deadLetterExchange: 'wx' })],
  ['declare with dead letters, may read', (ch) => ch.assertQueue('cr', { deadLetterExchange: 'wx' })],
  ['declare with dead letters to other', (ch) => ch.assertQueue('cr2', { deadLetterExchange: 'xx' })],
  ['declare with dead letters to default', (ch) => ch.assertQueue('cr3', { deadLetterExchange: '' })],
  ['declare that exists with dead letters to other', (ch) => ch.assertQueue('crw', { deadLetterExchange: 'xx' })],
  ['delete other', (ch) => ch.deleteQueue('other')],
  ['delete c', (ch) => ch.deleteQueue('c-del')],
  ['delete missing', (ch) => ch.deleteQueue('nope')],
  ['purge r', (ch) => ch.purgeQueue('rq')],
  ['purge other', (ch) => ch.purgeQueue('other')],
  ['get r', (ch) => ch.get('rq')],
  ['get other', (ch) => ch.get('other')],
  ['get missing', (ch) => ch.get('nope')],
  ['consume r', (ch) => ch.consume('rq', () => {}, { consumerTag: 'a' })],
  ['consume other', (ch) => ch.consume('other', () => {})],
  ['bind w to r', (ch) => ch.bindQueue('wq', 'rx', 'k')],
  ['bind w to other', (ch) => ch.bindQueue('wq', 'xx', 'k')],
  ['bind other to r', (ch) => ch.bindQueue('other', 'rx', 'k')],
  ['bind missing', (ch) => ch.bindQueue('nope', 'rx', 'k')],
  ['bind to missing', (ch) => ch.bindQueue('wq', 'nope', 'k')],
  ['bind w to missing r', (ch) => ch.bindQueue('wq', 'rnope', 'k')],
  ['unbind w from r', (ch) => ch.unbindQueue('wq', 'rx', 'k')],
  ['unbind other', (ch) => ch.unbindQueue('other', 'rx', 'k')],
  ['bind exchange w to r', (ch) => ch.bindExchange('wx', 'rx', 'k')],
  ['bind exchange other to r', (ch) => ch.bindExchange('xx', 'rx', 'k')],
  ['bind exchange w to other', (ch) => ch.bindExchange('wx', 'xx', 'k')],
  ['unbind exchange w from other', (ch) => ch.unbindExchange('wx', 'xx', 'k')],
  ['declare exchange c', (ch) => ch.assertExchange('c-x', 'direct')],
  ['declare exchange other', (ch) => ch.assertExchange('x-x', 'direct')],
  ['declare exchange passive other', (ch) => ch.checkExchange('xx')],
  ['declare exchange with alternate', (ch) => ch.assertExchange('c-alt', 'direct', { alternateExchange: 'wx' })],
  [
    'declare exchange with alternate, may read',
    (ch) => ch.assertExchange('cr-alt', 'direct', { alternateExchange: 'wx' }),
  ],
  [
    'declare exchange with alternate other',
    (ch) => ch.assertExchange('cr-alt2', 'direct', { alternateExchange: 'xx' }),
  ],
  ['delete exchange other', (ch) => ch.deleteExchange('xx')],
  ['delete exchange c', (ch) => ch.deleteExchange('c-xdel')],
  ['publish w', (ch) => void ch.publish('wx', 'k', Buffer.from('a'))],
  ['publish other', (ch) => void ch.publish('xx', 'k', Buffer.from('a'))],
  ['publish default', (ch) => void ch.publish('', 'wq', Buffer.from('a'))],
  ['publish missing', (ch) => void ch.publish('nope', 'k', Buffer.from('a'))],
  ['publish missing w', (ch) => void ch.publish('wnope', 'k', Buffer.from('a'))],
  ['publish internal other', (ch) => void ch.publish('xint', 'k', Buffer.from('a'))],
  ['publish own user id', (ch) => void ch.publish('wx', 'k', Buffer.from('a'), { userId: USER })],
  ['publish other user id', (ch) => void ch.publish('wx', 'k', Buffer.from('a'), { userId: 'guest' })],
  ['publish topic allowed', (ch) => void ch.publish('wt', 'wk.1', Buffer.from('a'))],
  ['publish topic other', (ch) => void ch.publish('wt', 'xk.1', Buffer.from('a'))],
  ['publish topic own name', (ch) => void ch.publish('wt', 'u-v', Buffer.from('a'))],
  ['publish topic with CC', (ch) => void ch.publish('wt', 'wk.1', Buffer.from('a'), { CC: 'xk' })],
  ['bind topic allowed', (ch) => ch.bindQueue('wq', 'rt', 'rk.#')],
  ['bind topic other', (ch) => ch.bindQueue('wq', 'rt', 'xk.#')],
  ['bind exchange topic other', (ch) => ch.bindExchange('wx', 'rt', 'xk.#')],
  ['unbind topic other', (ch) => ch.unbindQueue('wq', 'rt', 'xk.#')],
  ['exclusive of another vhost', (ch) => ch.checkQueue('default-queue')],
];

/** Made by guest before each run. */
async function prepare({ address, administer }: World): Promise<void> {
  const all = { configure: '.*', write: '.*', read: '.*' };
  await administer('PUT', `vhosts/${VHOST}`, {});
  await administer('PUT', `permissions/${VHOST}/guest`, all);
  await administer('PUT', `users/${USER}`, { password: 'p', tags: '' });
  await administer('PUT', `permissions/${VHOST}/${USER}`, { configure: '^c', write: '^w', read: '^(r|cr)' });
  const patterns = { exchange: 'wt', write: '^(wk|{username}-{vhost}$)', read: '^rk' };
  await administer('PUT', `topic-permissions/${VHOST}/${USER}`, patterns);
  await administer('PUT', `topic-permissions/${VHOST}/${USER}`, { ...patterns, exchange: 'rt' });
  const connection = await amqp.connect(`amqp://guest:guest@${address}/${VHOST}`, { noDelay: true });
  const channel = await connection.createChannel();
  for (const queue of ['wq', 'rq', 'other', 'c-del', 'crw']) await channel.assertQueue(queue);
  for (const exchange of ['wx', 'rx', 'xx', 'c-xdel']) await channel.assertExchange(exchange, 'direct');
  for (const exchange of ['wt', 'rt']) await channel.assertExchange(exchange, 'topic');
  await channel.assertExchange('xint', 'direct', { internal: true });
  await connection.close();
  const other = await amqp.connect(`amqp://guest:guest@${address}/`, { noDelay: true });
  await (await other.createChannel()).assertQueue('default-queue');
  await other.close();
}

async function told(connection: ChannelModel, work: (channel: Channel) => unknown): Promise<string> {
  const lines: string[] = [];
  connection.on('error', (error: Error) => lines.push(`connection: ${error.message}`));
  try {
    const channel = await connection.createChannel();
    channel.on('error', (error: Error) => lines.push(`channel: ${error.message}`));
    const answer: unknown = await work(channel);
    // What was published is judged by then.
    await channel.checkExchange('amq.direct');
    lines.push(answer === undefined ? 'ok' : JSON.stringify(answer));
  } catch (error) {
    if (lines.length === 0) lines.push(`refused: ${error instanceof Error ? error.message : String(error)}`);
  }
  return masked(lines.join(' || '));
}

const masked = (text: string): string =>
  text.replace(/amq\.(gen|ctag)-[\w-]+/g, 'amq.$1-*').replace(/opened for user '[^']+'/, 'opened for user *');

/** A handshake by hand: what the server answers to the credentials and the vhost, up to the end of the connection. */
async function handshake(
  { address }: World,
  given: {
    user?: string;
    password?: string;
    vhost?: string;
    mechanism?: 'PLAIN' | 'AMQPLAIN' | 'EXTERNAL' | 'FOO';
    response?: Buffer;
    closes?: boolean;
  },
): Promise<string> {
  const { user = USER, password = 'p', vhost = VHOST, mechanism = 'PLAIN', closes = true } = given;
  const [host, port] = address.split(':');
  const socket = net.connect(Number(port), host);
  const frames = new FrameReader(0);
  const lines: string[] = [];
  const capabilities: Table = closes ? [['authentication_failure_close', { type: 't', value: true }]] : [];
  const clientProperties: Table = [['capabilities', { type: 'F', value: capabilities }]];
  const response = given.response ?? (mechanism === 'AMQPLAIN' ? amqplain(user, password) : plain(user, password));
  socket.on('data', (chunk: Buffer) => {
    frames.push(chunk);
    while (frames.next()) {
      const method = frames.type === FRAME_METHOD ? methodOf(frames.payload) : undefined;
      if (method === undefined) continue;
      lines.push(method.method);
      if (method.method === 'connection.start') {
        socket.write(
          methodFrame(0, { method: 'connection.start-ok', clientProperties, mechanism, response, locale: 'en_US' }),
        );
      } else if (method.method === 'connection.tune') {
        const { channelMax, frameMax } = method;
        socket.write(methodFrame(0, { method: 'connection.tune-ok', channelMax, frameMax, heartbeat: 0 }));
        socket.write(methodFrame(0, { method: 'connection.open', virtualHost: vhost }));
      } else if (method.method === 'connection.close') {
        lines.push(`${method.replyCode} ${method.replyText} (${method.classId},${method.methodId})`);
        socket.write(methodFrame(0, { method: 'connection.close-ok' }));
      } else if (method.method === 'connection.open-ok') socket.end();
    }
    frames.keep();
  });
  // How the end comes about does not matter.
  socket.on('error', () => {});
  socket.write(PROTOCOL_HEADER);
  await new Promise((resolve) => socket.once('close', resolve));
  return lines.slice(1).join(' ');
}

const plain = (user: string, password: string): Buffer => Buffer.from(`\0${user}\0${password}`);
function amqplain(user: string, password: string): Buffer {
  const field = (name: string, text: string): Buffer => {
    const bytes = Buffer.from(text);
    const length = Buffer.alloc(4);
    length.writeUInt32BE(bytes.length);
    return Buffer.concat([Buffer.from([name.length]), Buffer.from(`${name}S`), length, bytes]);
  };
  return Buffer.concat([field('LOGIN', user), field('PASSWORD', password)]);
}

const handshakes: readonly (readonly [name: string, given: Parameters<typeof handshake>[1]])[] = [
  ['right', {}],
  ['right, AMQPLAIN', { mechanism: 'AMQPLAIN' }],
  ['wrong password', { password: 'q' }],
  ['wrong password, AMQPLAIN', { password: 'q', mechanism: 'AMQPLAIN' }],
  ['wrong password, no close wanted', { password: 'q', closes: false }],
  ['empty password', { password: '' }],
  ['no such user', { user: 'nobody' }],
  ['unknown mechanism', { mechanism: 'FOO' }],
  ['EXTERNAL', { mechanism: 'EXTERNAL' }],
  ['malformed PLAIN', { response: Buffer.from('abc') }],
  ['malformed AMQPLAIN', { mechanism: 'AMQPLAIN', response: Buffer.from([200, 1, 2]) }],
  ['AMQPLAIN without login', { mechanism: 'AMQPLAIN', response: Buffer.alloc(0) }],
  ['authorization identity', { response: Buffer.from(`x\0${USER}\0p`) }],
  ['no such vhost', { vhost: 'nope' }],
  ['vhost without permissions', { vhost: '/' }],
  ['empty vhost', { vhost: '' }],
];

/** What happens to clients when users, vhosts and limits change; each starts from what `prepare` made. */
const changes: readonly (readonly [name: string, work: (world: World) => Promise<string>])[] = [
  [
    'permissions go while a channel is open',
    async (world) => {
      const connection = await amqp.connect(`amqp://${USER}:p@${world.address}/${VHOST}`, { noDelay: true });
      await world.administer('DELETE', `permissions/${VHOST}/${USER}`);
      const answer = await told(connection, (ch) => ch.get('rq'));
      await connection.close().catch(() => {});
      await world.administer('PUT', `permissions/${VHOST}/${USER}`, { configure: '^c', write: '^w', read: '^(r|cr)' });
      return answer;
    },
  ],
  [
    'a user without password',
    async (world) => {
      await world.administer('PUT', 'users/nopass', { password_hash: '', tags: '' });
      return handshake(world, { user: 'nopass', password: '' });
    },
  ],
  [
    'vhost limit of connections',
    async (world) => {
      await world.administer('PUT', `vhost-limits/${VHOST}/max-connections`, { value: 0 });
      const answer = await handshake(world, {});
      await world.administer('DELETE', `vhost-limits/${VHOST}/max-connections`);
      return answer;
    },
  ],
  [
    'user limit of connections',
    async (world) => {
      await world.administer('PUT', `user-limits/${USER}/max-connections`, { value: 0 });
      const answer = await handshake(world, {});
      await world.administer('DELETE', `user-limits/${USER}/max-connections`);
      return answer;
    },
  ],
  [
    'user limit of channels',
    async (world) => {
      await world.administer('PUT', `user-limits/${USER}/max-channels`, { value: 1 });
      const connection = await amqp.connect(`amqp://${USER}:p@${world.address}/${VHOST}`, { noDelay: true });
      const lines: string[] = [];
      connection.on('error', (error: Error) => lines.push(error.message));
      await connection.createChannel();
      await connection.createChannel().then(
        () => lines.push('ok'),
        () => {},
      );
      await connection.close().catch(() => {});
      await world.administer('DELETE', `user-limits/${USER}/max-channels`);
      return lines.join(' || ');
    },
  ],
  [
    'vhost limit of queues',
    async (world) => {
      await world.administer('PUT', `vhost-limits/${VHOST}/max-queues`, { value: 1 });
      const connection = await amqp.connect(`amqp://guest:guest@${world.address}/${VHOST}`, { noDelay: true });
      const answer = await told(connection, (ch) => ch.assertQueue('one-more'));
      const again = await told(connection, (ch) => ch.assertQueue('wq'));
      await connection.close().catch(() => {});
      await world.administer('DELETE', `vhost-limits/${VHOST}/max-queues`);
      return `${answer} / ${again}`;
    },
  ],
  ['a user is deleted', (world) => ended(world, 'u', () => world.administer('DELETE', `users/${USER}`))],
  [
    'permission is given back',
    async (world) => {
      await prepare(world);
      return handshake(world, {});
    },
  ],
  ['a vhost is deleted', (world) => ended(world, 'both', () => world.administer('DELETE', `vhosts/${VHOST}`))],
];

/** What the connections of `u` and of guest are told when something is taken away that `u` needs, or both. */
async function ended(world: World, who: 'u' | 'both', take: () => Promise<void>): Promise<string> {
  const lines: string[] = [];
  const connected = async (user: string, password: string) => {
    const connection = await amqp.connect(`amqp://${user}:${password}@${world.address}/${VHOST}`, { noDelay: true });
    connection.on('error', () => {});
    const closed = new Promise<void>((done) => {
      connection.once('close', (error?: Error) => {
        lines.push(`${user}: ${error?.message ?? 'closed'}`);
        done();
      });
    });
    return { connection, closed };
  };
  const first = await connected('guest', 'guest');
  const second = await connected(USER, 'p');
  await take();
  await second.closed;
  if (who === 'u') await first.connection.close();
  await first.closed;
  return lines.sort().join(' || ');
}

export async function outcomes(world: World): Promise<string[]> {
  await prepare(world);
  const lines: string[] = [];
  for (const [name, given] of handshakes) lines.push(`${name} | ${await handshake(world, given)}`);
  for (const [name, work] of operations) {
    const connection = await amqp.connect(`amqp://${USER}:p@${world.address}/${VHOST}`, { noDelay: true });
    lines.push(`${name} | ${await told(connection, work)}`);
    await connection.close().catch(() => {});
  }
  for (const [name, work] of changes) lines.push(`${name} | ${masked(await work(world))}`);
  return lines;
}

/** RabbitMQ's HTTP API. */
function overHttp(base: string): Administer {
  const { username, password, origin, pathname } = new URL(base);
  const authorization = `Basic ${Buffer.from(`${username}:${password}`).toString('base64')}`;
  return async (method, path, body) => {
    const response = await fetch(`${origin}${pathname}/${path}`, {
      method,
      headers: { authorization, 'content-type': 'application/json' },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    });
    if (!response.ok) throw new Error(`${method} ${path}: ${response.status} ${await response.text()}`);
  };
}

const [, program = '', address, api] = process.argv;
if (program.endsWith('access-cases.js') && address !== undefined && api !== undefined) {
  for (const line of await outcomes({ address, administer: overHttp(api) })) process.stdout.write(`${line}\n`);
  process.exit(0);
}
