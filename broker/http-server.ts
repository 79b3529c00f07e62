/**
 * HTTP for every door that speaks it, behind `node:http`: a handler takes a request and gives an answer, and knows no
 * socket. What a stranger may cost is bounded here: bytes of headers, time to send a request, bytes of a body and of all
 * bodies together, connections, time in which nothing moves.
 */
import http from 'node:http';
import type { AddressInfo } from 'node:net';
import { listenError } from './server.ts';

export interface HttpRequest {
  /** In capitals. */
  readonly method: string;
  /** Percent-encoded as it came, without the query. */
  readonly path: string;
  readonly query: URLSearchParams;
  /** The query as it came, without the question mark. */
  readonly queryText: string;
  /** By name in small letters. */
  readonly headers: Readonly<Record<string, string | string[] | undefined>>;
  readonly remoteHost: string;
  /** The address that was connected to. */
  readonly localHost: string;
  readonly localPort: number;
  /** The whole body; asked for once. Rejects with `BodyRefused`. */
  body(bytesMax: number): Promise<Buffer>;
  /** Calls back once if the peer goes away before it has an answer; answers how to withdraw. */
  whenClosed(callback: () => void): () => void;
}

export interface HttpAnswer {
  readonly status: number;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: string | Buffer;
}

export type HttpHandler = (request: HttpRequest) => HttpAnswer | Promise<HttpAnswer>;

/** `too-large`: more than the handler takes. `busy`: other bodies take all the room. `cut`: the peer went away. */
export class BodyRefused extends Error {
  override readonly name = 'BodyRefused';
  readonly why: 'too-large' | 'busy' | 'cut';

  constructor(why: 'too-large' | 'busy' | 'cut', message: string) {
    super(message);
    this.why = why;
  }
}

export interface HttpServerOptions {
  readonly host: string;
  /** 0: the system chooses. */
  readonly port: number;
  readonly handler: HttpHandler;
  readonly headersBytesMax: number;
  /** From the first byte of a request to the last of its body. */
  readonly requestMs: number;
  /** A connection on which nothing moves for this long is closed; longer than any answer may take. */
  readonly idleMs: number;
  readonly connectionsMax: number;
  /** Of all requests that are being read or answered together. */
  readonly bodiesBytesMax: number;
  /** The handler failed in a way that it does not know; the peer is told 500. */
  readonly failed: (error: unknown) => void;
}

export interface HttpDoor {
  readonly port: number;
  close(): Promise<void>;
}

/** Headers come in one piece or soon. */
const HEADERS_MS = 10_000;
/** Node looks at its timeouts this often. */
const TIMEOUT_LOOK_MS = 1_000;

export async function listenHttp(options: HttpServerOptions): Promise<HttpDoor> {
  const { host, port, headersBytesMax, requestMs, idleMs } = options;
  const bodies = { bytes: 0 };
  const server = http.createServer(
    {
      maxHeaderSize: headersBytesMax,
      requestTimeout: requestMs,
      headersTimeout: Math.min(requestMs, HEADERS_MS),
      keepAliveTimeout: idleMs,
      connectionsCheckingInterval: TIMEOUT_LOOK_MS,
      noDelay: true,
    },
    (request, response) => void serve(request, response, options, bodies),
  );
  server.timeout = idleMs;
  server.maxConnections = options.connectionsMax;
  await new Promise<void>((resolve, reject) => {
    server.once('error', (error: NodeJS.ErrnoException) => reject(listenError(error, { host, port })));
    server.listen(port, host, resolve);
  });
  // `address()` is only a string for pipes.
  const { port: listeningPort } = server.address() as AddressInfo;
  return {
    port: listeningPort,
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}

async function serve(
  incoming: http.IncomingMessage,
  response: http.ServerResponse,
  { handler, bodiesBytesMax, failed }: HttpServerOptions,
  bodies: { bytes: number },
): Promise<void> {
  const [path, query = ''] = splitOnce(incoming.url ?? '/', '?');
  const { remoteAddress = '', localAddress = '', localPort = 0 } = incoming.socket;
  let held = 0;
  const hold = (bytes: number): boolean => {
    if (bodies.bytes + bytes > bodiesBytesMax) return false;
    bodies.bytes += bytes;
    held += bytes;
    return true;
  };
  const request: HttpRequest = {
    method: incoming.method ?? 'GET',
    path,
    get query() {
      return new URLSearchParams(query);
    },
    queryText: query,
    headers: incoming.headers,
    remoteHost: remoteAddress,
    localHost: localAddress,
    localPort,
    body: (bytesMax) => readBody(incoming, bytesMax, hold),
    whenClosed(callback) {
      const { socket } = incoming;
      if (socket.destroyed) {
        callback();
        return () => {};
      }
      socket.once('close', callback);
      return () => socket.off('close', callback);
    },
  };
  let answer: HttpAnswer;
  try {
    answer = await handler(request);
  } catch (error) {
    if (!(error instanceof BodyRefused)) failed(error);
    answer = { status: 500 };
  } finally {
    bodies.bytes -= held;
  }
  send(incoming, response, answer);
}

function send(
  incoming: http.IncomingMessage,
  response: http.ServerResponse,
  { status, headers, body = '' }: HttpAnswer,
): void {
  if (response.destroyed) return;
  const hasBody = status >= 200 && status !== 204 && status !== 304;
  response.writeHead(status, {
    ...headers,
    ...(hasBody ? { 'content-length': Buffer.byteLength(body) } : {}),
    // What was not read of the request is not waited for.
    ...(incoming.complete ? {} : { connection: 'close' }),
  });
  response.end(hasBody && incoming.method !== 'HEAD' ? body : undefined);
}

function readBody(incoming: http.IncomingMessage, bytesMax: number, hold: (bytes: number) => boolean): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    const chunks: Buffer[] = [];
    let sizeBytes = 0;
    const refuse = (why: 'too-large' | 'busy' | 'cut', message: string): void => {
      incoming.removeAllListeners('data');
      incoming.pause();
      chunks.length = 0;
      reject(new BodyRefused(why, message));
    };
    if (Number(incoming.headers['content-length'] ?? 0) > bytesMax) {
      return refuse('too-large', `a body of ${incoming.headers['content-length']} bytes; ${bytesMax} are allowed`);
    }
    incoming.on('data', (chunk: Buffer) => {
      sizeBytes += chunk.length;
      if (sizeBytes > bytesMax) return refuse('too-large', `a body of more than ${bytesMax} bytes`);
      if (!hold(chunk.length)) return refuse('busy', 'other requests hold all the memory there is for bodies');
      chunks.push(chunk);
    });
    incoming.once('end', () => resolve(chunks.length === 1 ? chunks[0] : Buffer.concat(chunks)));
    incoming.once('close', () => {
      // Comes after the end, too: an error for nobody would cost as much as all the rest.
      if (!incoming.complete) reject(new BodyRefused('cut', 'the request has ended before its body'));
    });
  });
}

function splitOnce(text: string, separator: string): [string, string?] {
  const at = text.indexOf(separator);
  return at < 0 ? [text] : [text.slice(0, at), text.slice(at + separator.length)];
}
