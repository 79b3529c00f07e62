/**
 * A Kafka broker made of answers: for tests of what a client does when the other side is slow, wrong or gone. Each
 * handler gets a decoded request and answers a response, or does something to the socket and answers nothing.
 */
import { type AddressInfo, type Socket, createServer } from 'node:net';
import { type Chunks, Reader } from '../../../protocol/bytes.ts';
import { apiByKey, apis } from '../../../protocol/kafka/apis.ts';
import { FrameReader, readRequestHeader, responseFrame } from '../../../protocol/kafka/frame.ts';

export interface FakeCall {
  // The request of whatever API it is; tests know which one they answer.
  readonly request: never;
  readonly version: number;
  readonly socket: Socket;
  readonly port: number;
}

export type FakeHandlers = Record<string, (call: FakeCall) => object | undefined>;

export interface FakeBroker {
  readonly port: number;
  /** Names of the APIs that were asked for, in order. */
  readonly asked: string[];
  readonly connectionCount: number;
  close(): Promise<void>;
}

/** `versions` limits what ApiVersions offers, by name; an API that is not in `handlers` is not offered. */
export async function fakeBroker(
  handlers: FakeHandlers,
  versions: Record<string, [number, number]> = {},
): Promise<FakeBroker> {
  const asked: string[] = [];
  const sockets = new Set<Socket>();
  let connectionCount = 0;
  const offered = () =>
    Object.values(apis)
      .filter(({ name }) => name in handlers || name === 'ApiVersions')
      .map(({ key, name, minVersion, maxVersion }) => {
        const [first, last] = versions[name] ?? [minVersion, maxVersion];
        return { apiKey: key, minVersion: first, maxVersion: last };
      });
  const server = createServer((socket) => {
    connectionCount++;
    sockets.add(socket);
    socket.on('close', () => sockets.delete(socket));
    socket.on('error', () => {});
    const frames = new FrameReader(1024 * 1024);
    socket.on('data', (chunk) => {
      frames.push(chunk);
      for (let frame = frames.next(); frame; frame = frames.next()) answer(socket, frame);
    });
  });
  function answer(socket: Socket, frame: Buffer): void {
    const reader = new Reader(frame);
    const header = readRequestHeader(reader);
    const { requestApiVersion: version, correlationId } = header;
    const api = apiByKey(header.requestApiKey);
    if (!api) throw new Error(`unknown API ${header.requestApiKey}`);
    asked.push(api.name);
    const isApiVersions = api.name === 'ApiVersions';
    const last = versions.ApiVersions?.[1] ?? apis.ApiVersions.maxVersion;
    if (isApiVersions && version > last && !handlers.ApiVersions) {
      // Written in version 0, which is what the client has to expect here.
      const response = { errorCode: 35, apiKeys: offered() };
      return write(socket, responseFrame(apis.ApiVersions, 0, correlationId, response));
    }
    const known = handlers[api.name] ?? (isApiVersions ? () => ({ errorCode: 0, apiKeys: offered() }) : undefined);
    const request = api.readRequest(reader, version) as never;
    const response = known?.({ request, version, socket, port: address.port });
    // Any API's codec, and the answer that the test made for it.
    if (response) write(socket, responseFrame(api as never, version, correlationId, response as never));
  }
  await new Promise<void>((done) => server.listen(0, '127.0.0.1', done));
  const address = server.address() as AddressInfo;
  return {
    port: address.port,
    asked,
    get connectionCount() {
      return connectionCount;
    },
    close: () =>
      new Promise((done) => {
        for (const socket of sockets) socket.destroy();
        server.close(() => done());
      }),
  };
}

function write(socket: Socket, frame: Chunks): void {
  for (const chunk of frame) if (chunk instanceof Uint8Array) socket.write(chunk);
}
