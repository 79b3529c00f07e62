import net from 'node:net';
import test from 'ava';
import { BodyRefused, type HttpDoor, type HttpHandler, listenHttp } from '../../broker/http-server.ts';

async function withServer(
  work: (door: HttpDoor, failures: unknown[]) => Promise<void>,
  {
    handler,
    ...limits
  }: { handler: HttpHandler; requestMs?: number; bodiesBytesMax?: number; connectionsMax?: number },
): Promise<void> {
  const failures: unknown[] = [];
  const door = await listenHttp({
    host: '127.0.0.1',
    port: 0,
    headersBytesMax: 8 * 1024,
    requestMs: 10_000,
    idleMs: 10_000,
    connectionsMax: 16,
    bodiesBytesMax: 100_000,
    failed: (error) => failures.push(error),
    handler,
    ...limits,
  });
  try {
    await work(door, failures);
  } finally {
    await door.close();
  }
}

/** What a peer that says this is told, until the other side ends. */
function told({ port }: HttpDoor, ...said: readonly string[]): Promise<string> {
  return new Promise((resolve) => {
    let text = '';
    const socket = net.connect(port, '127.0.0.1', () => {
      for (const part of said) socket.write(part);
    });
    socket.on('data', (chunk) => {
      text += chunk.toString();
    });
    socket.on('error', () => {});
    socket.on('close', () => resolve(text));
  });
}

const echo: HttpHandler = async ({ method, path, query, body }) => {
  try {
    return { status: 200, headers: { 'x-method': method }, body: `${path} ${query.get('a')} ${await body(10_000)}` };
  } catch (error) {
    if (error instanceof BodyRefused) return { status: 413, body: error.why };
    throw error;
  }
};

test('a request comes with path, query and body as they were sent', async (t) => {
  await withServer(
    async ({ port }) => {
      const url = `http://127.0.0.1:${port}/a%2Fb?a=1%202`;
      const response = await fetch(url, { method: 'POST', body: 'text' });
      t.is(response.headers.get('x-method'), 'POST');
      t.is(await response.text(), '/a%2Fb 1 2 text');
      const head = await fetch(url, { method: 'HEAD' });
      t.is(head.headers.get('content-length'), String('/a%2Fb 1 2 '.length));
      t.is(await head.text(), '');
    },
    { handler: echo },
  );
});

test('a body that is too long is refused, said beforehand or not, and the connection ends', async (t) => {
  await withServer(
    async (door) => {
      const long = 'x'.repeat(20_000);
      const declared = await told(
        door,
        `POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 20000\r\n\r\n${long.slice(0, 100)}`,
      );
      t.regex(declared, /^HTTP\/1.1 413 .*connection: close.*too-large$/s);
      const chunked = await told(
        door,
        'POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n',
        `4e20\r\n${long}\r\n`,
      );
      t.regex(chunked, /^HTTP\/1.1 413 .*too-large$/s);
    },
    { handler: echo },
  );
});

test('bodies of all requests together are bounded', async (t) => {
  let release = (): void => {};
  const held = new Promise<void>((resolve) => {
    release = resolve;
  });
  let isFirst = true;
  await withServer(
    async ({ port }) => {
      const url = `http://127.0.0.1:${port}/`;
      const first = fetch(url, { method: 'POST', body: 'x'.repeat(700) });
      // The first has its body when the handler waits.
      await arrived;
      const second = await fetch(url, { method: 'POST', body: 'y'.repeat(700) });
      t.is(await second.text(), 'busy');
      release();
      t.is(await (await first).text(), '700');
      const third = await fetch(url, { method: 'POST', body: 'y'.repeat(700) });
      t.is(await third.text(), '700');
    },
    {
      bodiesBytesMax: 1000,
      handler: async ({ body }) => {
        try {
          const bytes = await body(1000);
          if (isFirst) {
            isFirst = false;
            hasArrived();
            await held;
          }
          return { status: 200, body: String(bytes.length) };
        } catch (error) {
          return { status: 503, body: error instanceof BodyRefused ? error.why : 'other' };
        }
      },
    },
  );
});

let hasArrived = (): void => {};
const arrived = new Promise<void>((resolve) => {
  hasArrived = resolve;
});

test('who is answered without being read is not read on', async (t) => {
  await withServer(
    async (door) => {
      const text = await told(door, 'POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000\r\n\r\nabc');
      t.regex(text, /^HTTP\/1.1 401 .*connection: close/s);
    },
    { handler: () => ({ status: 401 }) },
  );
});

test('what is no HTTP, or has too large headers, ends its connection only', async (t) => {
  await withServer(
    async (door) => {
      t.regex(await told(door, 'AMQP\0\0\x09\x01'), /^HTTP\/1.1 400 /);
      t.regex(await told(door, `GET / HTTP/1.1\r\nhost: x\r\nlong: ${'x'.repeat(20_000)}\r\n\r\n`), /^HTTP\/1.1 431 /);
      const response = await fetch(`http://127.0.0.1:${door.port}/`);
      t.is(response.status, 200);
    },
    { handler: echo },
  );
});

test('a request that takes too long to come is ended', async (t) => {
  await withServer(
    async (door) => {
      t.regex(await told(door, 'GET / HTTP/1.1\r\nhost: x\r\n'), /^HTTP\/1.1 408 /);
    },
    { handler: echo, requestMs: 100 },
  );
});

test('a handler that fails answers 500 and is told to the operator', async (t) => {
  await withServer(
    async ({ port }, failures) => {
      const response = await fetch(`http://127.0.0.1:${port}/`);
      t.is(response.status, 500);
      t.deepEqual(failures, [new Error('broken')]);
    },
    {
      handler: () => {
        throw new Error('broken');
      },
    },
  );
});
