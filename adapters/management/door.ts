/**
 * RabbitMQ's management HTTP API over the vhosts of the AMQP door and the directory of users (docs/management.md). A
 * request enters at `answer`, so tests need no socket; `broker/main.ts` listens.
 */
import type { Options } from '../../broker/config.ts';
import { type HttpAnswer, type HttpDoor, type HttpRequest, listenHttp } from '../../broker/http-server.ts';
import { RABBITMQ_VERSION } from '../amqp/door.ts';
import { bindingResources } from './bindings.ts';
import { connectionResources, octetReading } from './connections.ts';
import { definitionResources } from './definitions.ts';
import { exchangeReading, exchangeResources } from './exchanges.ts';
import { healthResources } from './health.ts';
import { limitResources } from './limits.ts';
import { messageResources } from './messages.ts';
import { overviewResources } from './overview.ts';
import { clientConnections, type ManagementParts, vhostsOf } from './parts.ts';
import { policyResources } from './policies.ts';
import { queueReading } from './queue-facts.ts';
import { queueResources } from './queues.ts';
import { Rates, type Reading } from './rates.ts';
import { answerRest, type RestParts } from './rest.ts';
import { Router } from './router.ts';
import { messageReading } from './stats.ts';
import { userResources } from './users.ts';
import { vhostReading, vhostResources } from './vhosts.ts';

const API = '/api';
/** What RabbitMQ calls what a door speaks. */
const PROTOCOLS: Readonly<Record<string, string>> = { management: 'http', http: 'http/prometheus' };
const PRODUCT = 'Millrace';
const HEADERS_BYTES_MAX = 16 * 1024;
/** As RabbitMQ. */
const IDLE_MS = 120_000;

/** What the door is made of; the rest it makes itself. */
export interface ManagementDoorParts
  extends Pick<
    ManagementParts,
    'directory' | 'amqp' | 'queues' | 'clock' | 'random' | 'machine' | 'dataDir' | 'clusterId' | 'productVersion'
  > {
  readonly options: Options;
  /** The doors that are open. */
  readonly listeners: () => readonly { readonly name: string; readonly host: string; readonly port: number }[];
  /** A line for the operator. */
  readonly report: (message: string, error: unknown) => void;
}

export class ManagementDoor {
  readonly #parts: ManagementParts;
  readonly #rest: RestParts;
  readonly #options: Options;
  readonly #report: ManagementDoorParts['report'];

  constructor({ options, report, listeners, ...given }: ManagementDoorParts) {
    this.#options = options;
    this.#report = report;
    const { clock, directory, machine } = given;
    const nodeName = `millrace@${machine.hostName}`;
    const bodyBytesMax = options['management.body.bytes.max'];
    const parts: ManagementParts = {
      ...given,
      listeners: () => listeners().map(({ name, host, port }) => ({ protocol: PROTOCOLS[name] ?? name, host, port })),
      nodeName,
      productName: PRODUCT,
      version: RABBITMQ_VERSION,
      clusterName() {
        const name = directory.parameters.getGlobal('cluster_name')?.value;
        return typeof name === 'string' ? name : nodeName;
      },
      bodyBytesMax,
      consumerTimeoutMs: options['amqp.consumer.timeout.ms'],
      rates: new Rates(clock, () => readings(parts)),
      pause: () =>
        new Promise((resolve) => {
          clock.after(0, resolve);
        }),
    };
    this.#parts = parts;
    const router = new Router({
      ...overviewResources(parts),
      ...definitionResources(parts),
      ...policyResources(parts),
      ...limitResources(parts),
      ...connectionResources(parts),
      ...exchangeResources(parts),
      ...queueResources(parts),
      ...messageResources(parts),
      ...bindingResources(parts),
      ...vhostResources(parts),
      ...userResources(parts),
      ...healthResources(parts),
    });
    this.#rest = { router, directory, bodyBytesMax, report };
  }

  async answer(request: HttpRequest): Promise<HttpAnswer> {
    const { path } = request;
    if (path.startsWith(`${API}/`)) {
      this.#parts.rates.asked();
      return answerRest(request, path.slice(API.length), this.#rest);
    }
    if (path === '/' || path === API) {
      return {
        status: 200,
        headers: { 'content-type': 'text/html; charset=utf-8', 'cache-control': 'no-cache' },
        body: PAGE,
      };
    }
    return { status: 404, headers: { 'content-type': 'text/plain; charset=utf-8' }, body: 'served here: / and /api\n' };
  }

  /** Port 0: the system chooses. */
  async listen(host: string, port: number): Promise<HttpDoor> {
    const options = this.#options;
    const door = await listenHttp({
      host,
      port,
      handler: (request) => this.answer(request),
      headersBytesMax: HEADERS_BYTES_MAX,
      requestMs: options['management.request.ms'],
      idleMs: IDLE_MS,
      connectionsMax: options['management.connections.max'],
      bodiesBytesMax: options['management.bodies.bytes.max'],
      failed: (error) => this.#report('a request of the management API failed', error),
    });
    return {
      port: door.port,
      close: () => {
        this.#parts.rates.close();
        return door.close();
      },
    };
  }
}

/** Everything that rates are kept of. */
function* readings(parts: ManagementParts): IterableIterator<readonly [object, Reading]> {
  for (const vhost of vhostsOf(parts)) {
    yield [vhost, vhostReading(parts, vhost.name)];
    for (const exchange of vhost.exchanges.all()) yield [exchange, exchangeReading(vhost, exchange)];
    for (const queue of vhost.queues()) yield [queue, queueReading(queue)];
  }
  for (const connection of clientConnections(parts)) {
    yield [connection, octetReading(connection)];
    for (const channel of connection.channels()) yield [channel, messageReading(channel.counters)];
  }
}

const PAGE = `<!doctype html>
<meta charset="utf-8">
<title>Millrace</title>
<h1>Millrace</h1>
<p>This port serves RabbitMQ's management HTTP API. It is for programs: <code>rabbitmqadmin</code>, KEDA, Ansible, Terraform.</p>
<ul>
<li><a href="/api/overview">/api/overview</a></li>
<li><a href="/api/queues">/api/queues</a></li>
<li><a href="/api/connections">/api/connections</a></li>
<li><a href="/api/definitions">/api/definitions</a></li>
<li><a href="/api/health/checks/alarms">/api/health/checks/alarms</a></li>
</ul>
`;
