/** What `/metrics` shows: read from the parts when somebody looks, so the hot paths carry only plain counters. */
import type { Broker } from './broker.ts';
import type { EmbeddedEngine } from './embedded-engine.ts';
import type { ApiTable } from './kafka/api-table.ts';
import type { KafkaConnection } from './kafka/connection.ts';
import type { FetchHandler } from './kafka/fetch.ts';
import type { Metrics } from './metrics.ts';

export interface Observed {
  broker: Broker;
  engine: EmbeddedEngine;
  fetch: FetchHandler;
  apis: ApiTable;
  connections: ReadonlySet<KafkaConnection>;
}

export function observeBroker(metrics: Metrics, { broker, fetch, apis, connections }: Observed): void {
  metrics.observed('gauge', 'millrace_kafka_connections', 'Open Kafka connections.', () => connections.size);
  metrics.observed('counter', 'millrace_kafka_requests_total', 'Requests by API.', () =>
    [...apis.values()].map(({ name, requests }): [Record<string, string>, number] => [{ api: name }, requests]),
  );
  metrics.observed('gauge', 'millrace_fetch_sessions', 'Incremental fetch sessions.', () => fetch.sessions.count);
  metrics.observed(
    'counter',
    'millrace_fetch_session_evictions_total',
    'Fetch sessions that lost their slot.',
    () => fetch.sessions.evictions,
  );
  metrics.observed('gauge', 'millrace_topics', 'Topics.', () => broker.topics.size);
  metrics.observed('gauge', 'millrace_partitions', 'Partitions.', () => broker.topics.partitionCount);
  const memory = (): [Record<string, string>, number][] =>
    Object.entries(process.memoryUsage()).map(([kind, bytes]) => [{ kind }, bytes]);
  metrics.observed('gauge', 'millrace_memory_bytes', 'Memory of the process, by kind.', memory);
  metrics.observed('counter', 'millrace_cpu_seconds_total', 'CPU time of the process.', () => {
    const { user, system } = process.cpuUsage();
    return (user + system) / 1e6;
  });
  metrics.observed('gauge', 'millrace_disk_full', '1 while client appends are refused for lack of disk space.', () =>
    broker.engine.isFull ? 1 : 0,
  );
}
