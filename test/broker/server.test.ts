import { once } from 'node:events';
import net from 'node:net';
import test, { type ExecutionContext } from 'ava';
import { type Accept, type ListenOptions, type Listening, type Transport, listen } from '../../broker/server.ts';

/** What a handler was told, in order, and the transport it was given. */
interface Seen {
  transport: Transport;
  bytes: Buffer[];
  events: string[];
}

async function opened(
  t: ExecutionContext,
  options: Partial<ListenOptions> = {},
): Promise<{ listening: Listening; seen: Seen[]; connect(): Promise<net.Socket> }> {
  const seen: Seen[] = [];
  const accept: Accept = (transport) => {
    const one: Seen = { transport, bytes: [], events: [] };
    seen.push(one);
    return {
      // Copy: the read buffer is everybody's.
      onBytes: (chunk) => void one.bytes.push(Buffer.from(chunk)),
      onEnd: () => void one.events.push('end'),
      onClose: () => void one.events.push('close'),
    };
  };
  const listening = await listen({
    host: '127.0.0.1',
    port: 0,
    hasRoom: () => true,
    idleMs: 60_000,
    accept,
    ...options,
  });
  t.teardown(() => listening.close());
  return {
    listening,
    seen,
    async connect() {
      const socket = net.connect({ host: '127.0.0.1', port: listening.port });
      t.teardown(() => void socket.destroy());
      socket.on('error', () => {});
      await once(socket, 'connect');
      return socket;
    },
  };
}

/** Looks again after each turn, until it is so; the test's own timeout ends what never comes. */
async function until(condition: () => boolean): Promise<void> {
  while (!condition()) await new Promise((resolve) => setImmediate(resolve));
}

const ways = [
  ['with the shared read buffer', {}],
  ["with 'data' events", { usesSharedBuffer: false }],
] as const;

for (const [way, options] of ways) {
  test(`bytes go in and out, ${way}`, async (t) => {
    const { seen, connect } = await opened(t, options);
    const client = await connect();
    client.write('hello');
    await until(() => seen[0]?.bytes.length > 0);
    t.is(Buffer.concat(seen[0].bytes).toString(), 'hello');
    let isSent = false;
    seen[0].transport.write([Buffer.from('wor'), Buffer.from('ld')], () => {
      isSent = true;
    });
    const [answer] = await once(client, 'data');
    t.is(String(answer), 'world');
    await until(() => isSent);
  });

  test(`a client that has shut down its side is still answered, ${way}`, async (t) => {
    const { seen, connect, listening } = await opened(t, options);
    const client = await connect();
    client.end('question');
    await until(() => seen[0]?.events.includes('end'));
    t.is(Buffer.concat(seen[0].bytes).toString(), 'question');
    const answered = once(client, 'data');
    seen[0].transport.write([Buffer.from('answer')], () => seen[0].transport.end());
    t.is(String((await answered)[0]), 'answer');
    await once(client, 'end');
    await until(() => seen[0].events.includes('close'));
    t.deepEqual(seen[0].events, ['end', 'close']);
    t.is(listening.connectionCount, 0);
  });

  test(`a paused connection is not read until it goes on, ${way}`, async (t) => {
    const { seen, connect } = await opened(t, options);
    const client = await connect();
    await until(() => seen.length === 1);
    seen[0].transport.pause();
    client.write(Buffer.alloc(32 * 1024 * 1024));
    // The kernel's buffers are full long before: what is left stays with the client.
    for (let turn = 0; turn < 200; turn++) await new Promise((resolve) => setImmediate(resolve));
    const received = (): number => seen[0].bytes.reduce((sum, { length }) => sum + length, 0);
    t.true(received() <= 1024 * 1024);
    seen[0].transport.resume();
    await until(() => received() === 32 * 1024 * 1024);
    t.pass();
  });

  test(`a reset ends the connection once, ${way}`, async (t) => {
    const { seen, connect } = await opened(t, options);
    const client = await connect();
    client.write('x');
    await until(() => seen[0]?.bytes.length === 1);
    client.resetAndDestroy();
    await until(() => seen[0].events.includes('close'));
    let isSent = false;
    seen[0].transport.write([Buffer.from('too late')], () => {
      isSent = true;
    });
    await new Promise((resolve) => setImmediate(resolve));
    t.false(isSent);
    t.deepEqual(
      seen[0].events.filter((event) => event === 'close'),
      ['close'],
    );
  });
}

test('what comes when there is no room is closed at once, and later ones are served', async (t) => {
  let hasRoom = false;
  const { seen, connect, listening } = await opened(t, { hasRoom: () => hasRoom });
  const refused = await connect();
  refused.resume();
  await once(refused, 'close');
  t.deepEqual([seen.length, listening.connectionCount], [0, 0]);
  hasRoom = true;
  await connect();
  await until(() => seen.length === 1);
  t.is(listening.connectionCount, 1);
});

test('an idle connection is closed', async (t) => {
  const { connect } = await opened(t, { idleMs: 50 });
  const client = await connect();
  client.resume();
  await once(client, 'close');
  t.pass();
});

test('closing ends the connections and frees the port', async (t) => {
  const { listening, seen, connect } = await opened(t);
  const client = await connect();
  client.resume();
  await until(() => seen.length === 1);
  await listening.close();
  await once(client, 'close');
  const { listening: next } = await opened(t, { port: listening.port });
  t.is(next.port, listening.port);
});

test('after accepting has stopped, open connections go on', async (t) => {
  const { listening, seen, connect } = await opened(t);
  const client = await connect();
  await until(() => seen.length === 1);
  listening.stopAccepting();
  await t.throwsAsync(async () => {
    const socket = net.connect(listening.port, '127.0.0.1');
    await once(socket, 'connect');
  });
  client.write('still here');
  await until(() => seen[0].bytes.length === 1);
  t.pass();
});

test('an address that cannot be listened on is told in a line', async (t) => {
  const { listening } = await opened(t);
  const rest = { hasRoom: () => true, idleMs: 1, accept: () => t.fail() as never };
  const taken = listen({ host: '127.0.0.1', port: listening.port, ...rest });
  await t.throwsAsync(taken, { code: 'INVALID_OPTION', message: /already in use/ });
  // A documentation address (RFC 5737): no machine has it.
  const foreign = listen({ host: '192.0.2.1', port: 0, ...rest });
  await t.throwsAsync(foreign, { code: 'INVALID_OPTION', message: /^cannot listen on 192\.0\.2\.1:0 / });
});
