/**
 * The HTTP door: `/health/live`, `/health/ready` and `/metrics`. Requests enter at `answer` (method and path in, status and text
 * out), so that the simulation can ask without a socket.
 */
import { type HttpDoor, listenHttp } from './http-server.ts';
import type { Metrics } from './metrics.ts';

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
const IDLE_MS = 60_000;
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

export function listenAdmin(
  state: AdminState,
  { host, port, failed }: { host: string; port: number; failed: (error: unknown) => void },
): Promise<HttpDoor> {
  return listenHttp({
    host,
    port,
    headersBytesMax: HEADERS_MAX_BYTES,
    requestMs: REQUEST_TIMEOUT_MS,
    idleMs: IDLE_MS,
    connectionsMax: CONNECTIONS_MAX,
    bodiesBytesMax: 0,
    failed,
    handler: ({ method, path }) => {
      const { status, type, body } = answer(state, method, path);
      return { status, headers: { 'content-type': type, 'cache-control': 'no-store' }, body };
    },
  });
}
