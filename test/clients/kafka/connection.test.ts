import { createServer, type AddressInfo } from 'node:net';
import test from 'ava';
import { KafkaConnection } from '../../../clients/kafka/connection.ts';
import { ConnectionError } from '../../../clients/kafka/errors.ts';
import { apis } from '../../../protocol/kafka/apis.ts';
import { systemClock } from '../../../storage/clock.ts';
import { fakeBroker } from './fake-broker.ts';

const options = { clock: systemClock, clientId: 'test' };
const metadata = { brokers: [], topics: [], clusterId: 'c', controllerId: 1 };
const address = (port: number) => ({ host: '127.0.0.1', port });

test('the highest version that both sides know is used', async (t) => {
  const versions: number[] = [];
  const broker = await fakeBroker(
    { Metadata: ({ version }) => (versions.push(version), metadata) },
    { Metadata: [1, 7] },
  );
  const connection = await KafkaConnection.open(address(broker.port), options);
  await connection.send(apis.Metadata, () => ({ topics: null }));
  await connection.send(apis.Metadata, () => ({ topics: null }), { maxVersion: 4 });
  t.deepEqual(versions, [7, 4]);
  connection.close();
  await broker.close();
});

test('a broker that knows only old versions of ApiVersions is asked again in one of those', async (t) => {
  const broker = await fakeBroker({ Metadata: () => metadata }, { ApiVersions: [0, 1] });
  const connection = await KafkaConnection.open(address(broker.port), options);
  t.deepEqual(broker.asked, ['ApiVersions', 'ApiVersions']);
  t.is((await connection.send(apis.Metadata, () => ({ topics: null }))).clusterId, 'c');
  connection.close();
  await broker.close();
});

test('an API that the broker does not serve is refused before anything is sent', async (t) => {
  const broker = await fakeBroker({});
  const connection = await KafkaConnection.open(address(broker.port), options);
  await t.throwsAsync(
    connection.send(apis.Metadata, () => ({ topics: null })),
    {
      code: 'UNSUPPORTED_VERSION',
      message: /serves versions of Metadata: none/,
    },
  );
  t.deepEqual(broker.asked, ['ApiVersions']);
  connection.close();
  await broker.close();
});

test('requests are pipelined and every answer finds its request', async (t) => {
  let count = 0;
  const broker = await fakeBroker({ Metadata: () => ({ ...metadata, clusterId: `c${count++}` }) });
  const connection = await KafkaConnection.open(address(broker.port), options);
  const answers = await Promise.all(
    Array.from({ length: 50 }, () => connection.send(apis.Metadata, () => ({ topics: null }))),
  );
  t.deepEqual(
    answers.map(({ clusterId }) => clusterId),
    Array.from({ length: 50 }, (_, index) => `c${index}`),
  );
  connection.close();
  await broker.close();
});

test('all pending requests fail when the broker closes the connection', async (t) => {
  const broker = await fakeBroker({ Metadata: ({ socket }) => void socket.destroy() });
  const connection = await KafkaConnection.open(address(broker.port), options);
  const [first, second] = await Promise.allSettled([
    connection.send(apis.Metadata, () => ({ topics: null })),
    connection.send(apis.Metadata, () => ({ topics: null })),
  ]);
  for (const result of [first, second]) {
    t.true(result.status === 'rejected' && result.reason instanceof ConnectionError);
  }
  t.true(connection.isClosed);
  await t.throwsAsync(
    connection.send(apis.Metadata, () => ({ topics: null })),
    { instanceOf: ConnectionError },
  );
  await broker.close();
});

test('a request without an answer fails when its time is up', async (t) => {
  const broker = await fakeBroker({ Metadata: () => undefined });
  const connection = await KafkaConnection.open(address(broker.port), options);
  // The system's timers do not keep a process alive; the socket does.
  await t.throwsAsync(
    connection.send(apis.Metadata, () => ({ topics: null }), { timeoutMs: 20 }),
    {
      instanceOf: ConnectionError,
      message: /did not answer Metadata within 20 ms/,
    },
  );
  t.true(connection.isClosed);
  await broker.close();
});

test('a port that nobody listens on is said to be so', async (t) => {
  const server = createServer();
  await new Promise<void>((done) => server.listen(0, '127.0.0.1', done));
  const { port } = server.address() as AddressInfo;
  await new Promise((done) => server.close(done));
  await t.throwsAsync(KafkaConnection.open(address(port), options), {
    instanceOf: ConnectionError,
    message: `cannot connect to 127.0.0.1:${port}: connection refused`,
  });
});

for (const [name, bytes] of [
  ['HTTP', Buffer.from('HTTP/1.1 400 Bad Request\r\n\r\n')],
  ['an answer to another request', Buffer.from('0000000800000063000000000000', 'hex')],
  ['a frame that is too short', Buffer.from('000000020000', 'hex')],
  ['a truncated answer', Buffer.from('000000050000000100', 'hex')],
] as const) {
  test(`a peer that answers ${name} is not taken for a broker`, async (t) => {
    const server = createServer((socket) => {
      socket.on('error', () => {});
      socket.once('data', () => socket.end(bytes));
    });
    await new Promise<void>((done) => server.listen(0, '127.0.0.1', done));
    const { port } = server.address() as AddressInfo;
    await t.throwsAsync(KafkaConnection.open(address(port), options));
    await new Promise((done) => server.close(done));
  });
}
