/**
 * The HTTP door: `/health/live`, `/health/ready` and `/metrics`. Requests enter at `answer` (method and path in, status and text
 * out), behind `node:http`, so that the simulation can ask without a socket.
 */
import http from 'node:http';
import type { AddressInfo } from 'node:net';
import type { Metrics } from './metrics.ts';
import { listenError } from './server.ts';

export interface AdminState {
  readonly metrics: Metrics;
  /** Why the broker cannot serve at the moment; undefined when it can. */
  notReady(): string | undefined;
}

export interface AdminAnswer {
  readonly status: number;
  readonly type: string;
  readonly body: string;
}

const TEXT = 'text/plain; charset=utf-8';
const METRICS_TYPE = 'text/plain; version=0.0.4; charset=utf-8';
/** The requests served here have no body and short paths; these bound what anything else may cost. */
const HEADERS_MAX_BYTES = 16 * 1024;
const REQUEST_TIMEOUT_MS = 10_000;
const CONNECTIONS_MAX = 256;

export function answer(state: AdminState, method: string, path: string): AdminAnswer {
  if (method !== 'GET' && method !== 'HEAD') return { status: 405, type: TEXT, body: 'only GET is served here\n' };
  switch (path) {
    case '/health/live':
      return { status: 200, type: TEXT, body: 'live\n' };
    case '/health/ready': {
      const reason = state.notReady();
      return reason === undefined
        ? { status: 200, type: TEXT, body: 'ready\n' }
        : { status: 503, type: TEXT, body: `not ready: ${reason}\n` };
    }
    case '/metrics':
      return { status: 200, type: METRICS_TYPE, body: state.metrics.render() };
    case '/':
      return { status: 200, type: TEXT, body: 'Millrace\n\n/health/live\n/health/ready\n/metrics\n' };
    default:
      return { status: 404, type: TEXT, body: 'served here: /health/live, /health/ready, /metrics\n' };
  }
}

export interface HttpDoor {
  readonly port: number;
  close(): Promise<void>;
}

export async function listenHttp(state: AdminState, host: string, port: number): Promise<HttpDoor> {
  const server = http.createServer(
    { maxHeaderSize: HEADERS_MAX_BYTES, requestTimeout: REQUEST_TIMEOUT_MS },
    (request, response) => {
      const { status, type, body } = answer(state, request.method ?? 'GET', (request.url ?? '/').split('?', 1)[0]);
      response.writeHead(status, {
        'content-type': type,
        'content-length': Buffer.byteLength(body),
        'cache-control': 'no-store',
      });
      response.end(request.method === 'HEAD' ? undefined : body);
    },
  );
  server.maxConnections = CONNECTIONS_MAX;
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
