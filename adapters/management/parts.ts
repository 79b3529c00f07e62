/** What all resources stand on, and the few questions that most of them ask. */
import type { Directory } from '../../broker/directory.ts';
import type { PolicySubject } from '../../broker/policies.ts';
import type { QueueRegistry } from '../../broker/queues.ts';
import type { Clock, Random } from '../../storage/clock.ts';
import type { AmqpConnection } from '../amqp/connection.ts';
import type { AmqpDoor } from '../amqp/door.ts';
import type { AmqpQueue, Vhost } from '../amqp/vhost.ts';
import { visibleVhosts } from './authorize.ts';
import type { Fact } from './listing.ts';
import type { Rates } from './rates.ts';
import type { Call } from './resource.ts';

/** What listens, in the words of RabbitMQ's listeners. */
export interface Listener {
  readonly protocol: string;
  readonly host: string;
  readonly port: number;
}

/** The process and the computer under it. */
export interface Machine {
  readonly hostName: string;
  readonly processId: number;
  readonly processors: number;
  readonly memoryBytesMax: number;
  memoryBytes(): number;
  uptimeMs(): number;
}

export interface ManagementParts {
  readonly directory: Directory;
  readonly amqp: AmqpDoor;
  readonly queues: QueueRegistry;
  readonly clock: Clock;
  readonly random: Random;
  readonly machine: Machine;
  readonly dataDir: string;
  readonly nodeName: string;
  readonly productName: string;
  readonly productVersion: string;
  /** RabbitMQ's, whose API this is. */
  readonly version: string;
  readonly clusterId: string;
  readonly clusterName: () => string;
  readonly bodyBytesMax: number;
  /** Where a queue says none of its own. */
  readonly consumerTimeoutMs: number;
  readonly rates: Rates;
  /** Others have their turn. */
  readonly pause: () => Promise<void>;
  readonly listeners: () => readonly Listener[];
}

/** Who RabbitMQ says has made what nobody is known to have made. */
export const INTERNAL_USER = 'rmq-internal';
/** Of a process of Erlang. */
export const GARBAGE_COLLECTION = {
  max_heap_size: -1,
  min_bin_vheap_size: -1,
  min_heap_size: -1,
  fullsweep_after: -1,
  minor_gcs: -1,
};

type Params = Readonly<Record<string, string>>;

/** How paths name the default exchange. */
export const exchangeName = (name: string): string => (name === 'amq.default' ? '' : name);

export function vhostOf({ amqp }: ManagementParts, name: string): Vhost | undefined {
  return amqp.vhosts.get(name);
}

/** One, or all. */
export function* vhostsOf(parts: ManagementParts, name?: string): IterableIterator<Vhost> {
  for (const vhost of parts.amqp.vhosts.values()) if (vhost.name === (name ?? vhost.name)) yield vhost;
}

/** Whether the vhost that the path names is there; a path that names none is about all. */
export function isVhost({ directory }: Pick<ManagementParts, 'directory'>): (call: Call) => boolean {
  return ({ params: { vhost } }) => vhost === undefined || directory.vhosts.get(vhost) !== undefined;
}

/** The vhost that the path names, or all: those that this user sees. */
export function* shownVhosts(parts: ManagementParts, { user, params }: Call): IterableIterator<Vhost> {
  const seen = visibleVhosts(user, parts.directory);
  for (const vhost of vhostsOf(parts, params['vhost'])) if (seen.has(vhost.name)) yield vhost;
}

export function queueOf(parts: ManagementParts, { vhost, queue }: Params): AmqpQueue | undefined {
  return vhostOf(parts, vhost)?.find(queue);
}
export const isQueue = (parts: ManagementParts, params: Params): boolean => queueOf(parts, params) !== undefined;

export function isExchange(parts: ManagementParts, { vhost, exchange }: Params): boolean {
  return vhostOf(parts, vhost)?.exchanges.get(exchangeName(exchange)) !== undefined;
}

/** Those of clients. */
export function clientConnections(parts: ManagementParts): AmqpConnection[] {
  return [...parts.amqp.connections].filter(({ isShown }) => isShown);
}

/** The names of what applies; none if nothing does. */
export function policyNames({ directory }: ManagementParts, subject: PolicySubject): Fact {
  const { policy, operatorPolicy } = directory.policies.effective(subject);
  return {
    ...(policy === undefined ? {} : { policy: policy.name }),
    ...(operatorPolicy === undefined ? {} : { operator_policy: operatorPolicy.name }),
  };
}

/** RFC 3339. */
export const timeText = (timeMs: number): string => new Date(timeMs).toISOString().replace('Z', '+00:00');
