/** What `/metrics` shows: read from the parts when somebody looks, so the hot paths carry only plain counters. */
import type { Broker } from './broker.ts';
import type { EmbeddedEngine } from './embedded-engine.ts';
import type { Partition } from './engine.ts';
import type { ApiTable } from './kafka/api-table.ts';
import type { KafkaConnection } from './kafka/connection.ts';
import type { FetchHandler } from './kafka/fetch.ts';
import { labelText, type Metrics } from './metrics.ts';
import type { Queue } from './queues.ts';

export interface Observed {
  broker: Broker;
  engine: EmbeddedEngine;
  fetch: FetchHandler;
  apis: ApiTable;
  connections: ReadonlySet<KafkaConnection>;
}

export function observeBroker(metrics: Metrics, { broker, engine, fetch, apis, connections }: Observed): void {
  observeLog(metrics, engine, broker.options['log.flush'] === 'synced');
  metrics.observed('gauge', 'millrace_kafka_connections', 'Open Kafka connections.', () => connections.size);
  metrics.observed('counter', 'millrace_kafka_requests_total', 'Requests by API.', () =>
    [...apis.values()].map(({ name, requests }): [Record<string, string>, number] => [{ api: name }, requests]),
  );
  const { traffic } = broker;
  for (const [name, help, read] of [
    ['millrace_produced_batches_total', 'Batches appended for producers.', () => traffic.producedBatches],
    ['millrace_produced_records_total', 'Records appended for producers.', () => traffic.producedRecords],
    ['millrace_produced_bytes_total', 'Bytes appended for producers.', () => traffic.producedBytes],
    ['millrace_duplicate_batches_total', 'Batches sent again and not stored again.', () => traffic.duplicateBatches],
    ['millrace_fetched_bytes_total', 'Bytes of batches answered to consumers.', () => traffic.fetchedBytes],
  ] as const) {
    metrics.observed('counter', name, help, read);
  }
  observePartitions(metrics, broker);
  observeQueues(metrics, broker);
  metrics.observed('gauge', 'millrace_fetch_sessions', 'Incremental fetch sessions.', () => fetch.sessions.size);
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

/** Above so many partitions (or committed offsets) a page would take longer to make than it is worth: they are left out. */
const SAMPLES_MAX = 10_000;
const QUEUE_SAMPLES_MAX = 1_000;
type Samples = [Record<string, string> | string, number][];

function observePartitions(metrics: Metrics, broker: Broker): void {
  // Pages are asked for every few seconds, and partitions stay.
  const labels = new WeakMap<Partition, string>();
  const labelsOf = (partition: Partition): string => {
    let text = labels.get(partition);
    if (text === undefined) {
      text = labelText({ topic: partition.topic, partition: `${partition.index}` });
      labels.set(partition, text);
    }
    return text;
  };
  const each = (read: (partition: Partition) => number) => (): Samples => {
    const samples: Samples = [];
    if (broker.topics.partitionCount > SAMPLES_MAX) return samples;
    for (const { partitions } of broker.topics) {
      for (const partition of partitions) samples.push([labelsOf(partition), read(partition)]);
    }
    return samples;
  };
  metrics.observed('gauge', 'millrace_fenced_partitions', 'Partitions that are damaged and not served.', () => {
    let count = 0;
    for (const { partitions } of broker.topics) for (const { isFenced } of partitions) if (isFenced) count++;
    return count;
  });
  metrics.observed(
    'gauge',
    'millrace_partition_end_offset',
    'High watermark; its rate is records a second.',
    each(({ highWatermark }) => highWatermark),
  );
  metrics.observed(
    'gauge',
    'millrace_partition_start_offset',
    'First offset kept.',
    each(({ startOffset }) => startOffset),
  );
  metrics.observed(
    'gauge',
    'millrace_partition_bytes',
    'Size of the segments.',
    each(({ sizeBytes }) => sizeBytes),
  );
  metrics.observed(
    'gauge',
    'millrace_group_lag',
    'Records between the committed offset and the high watermark.',
    () => {
      const samples: Samples = [];
      for (const { group, topic, partition, offset } of broker.groups.committed()) {
        if (samples.length === SAMPLES_MAX) break;
        const end = broker.topics.partition(topic, partition)?.highWatermark;
        if (end !== undefined) samples.push([{ group, topic, partition: `${partition}` }, Math.max(0, end - offset)]);
      }
      return samples;
    },
  );
  metrics.observed('gauge', 'millrace_groups', 'Groups by state.', () => {
    const counts = new Map<string, number>();
    for (const { state } of broker.groups.groups()) counts.set(state, (counts.get(state) ?? 0) + 1);
    return [...counts].map(([state, count]): Samples[number] => [{ state }, count]);
  });
}

function observeQueues(metrics: Metrics, { queues, clock }: Broker): void {
  const { totals } = queues;
  metrics.observed('gauge', 'millrace_queues', 'Declared queues.', () => queues.size);
  metrics.observed('gauge', 'millrace_queue_consumers', 'Consumers of queues.', () => queues.consumerCount);
  for (const [name, help, total] of [
    ['delivered', 'Messages handed out by queues and share groups.', 'delivered'],
    ['settled', 'Messages accepted, released or rejected.', 'settled'],
    ['dead_lettered', 'Messages moved to their dead-letter target.', 'deadLettered'],
    ['dropped', 'Messages that left a queue without being accepted and had nowhere to go.', 'dropped'],
  ] as const satisfies readonly (readonly [string, string, keyof typeof totals])[]) {
    metrics.observed('counter', `millrace_queue_${name}_total`, help, () => queues.totals[total]);
  }
  /** Of declared queues, as long as there are not too many. */
  const each = (samplesOf: (queue: Queue) => Iterable<readonly [Record<string, string>, number]>) => (): Samples => {
    const samples: Samples = [];
    if (queues.size > QUEUE_SAMPLES_MAX) return samples;
    for (const queue of queues.all()) {
      for (const [labels, value] of samplesOf(queue)) samples.push([{ queue: queue.name, ...labels }, value]);
    }
    return samples;
  };
  metrics.observed(
    'gauge',
    'millrace_queue_messages',
    'Messages of declared queues, by what can happen to them next.',
    each((queue) => {
      const { ready, inFlight, delayed, blocked } = queue.counts();
      return [
        [{ state: 'ready' }, ready],
        [{ state: 'in_flight' }, inFlight],
        [{ state: 'delayed' }, delayed],
        [{ state: 'blocked' }, blocked],
      ];
    }),
  );
  metrics.observed(
    'counter',
    'millrace_queue_events_total',
    'What happened to messages of declared queues since the start of the broker.',
    each(({ delivered, settled, deadLettered }) => [
      [{ event: 'delivered' }, delivered],
      [{ event: 'settled' }, settled],
      [{ event: 'dead_lettered' }, deadLettered],
    ]),
  );
  metrics.observed(
    'gauge',
    'millrace_queue_oldest_seconds',
    'Age of the oldest message of a declared queue that is not finished.',
    each((queue) => {
      const timeMs = queue.lastOldestMs();
      return timeMs === undefined ? [] : [[{}, Math.max(0, clock.now() - timeMs) / 1000]];
    }),
  );
}

function observeLog(metrics: Metrics, engine: EmbeddedEngine, isSynced: boolean): void {
  const groupSeconds = metrics.histogram(
    'millrace_log_group_seconds',
    'Time to write a group of appends and, with log.flush synced, to sync it.',
  );
  engine.onGroupMs((ms) => groupSeconds.observe(ms / 1000));
  metrics.observed(
    'counter',
    'millrace_log_syncs_total',
    'Syncs that acknowledgements waited for: journal records and direct segment writes. Those of checkpoints are not counted.',
    () => {
      const { journalRecords, directWrites } = engine.counters;
      return [
        [{ way: 'journal' }, isSynced ? journalRecords : 0],
        [{ way: 'direct' }, isSynced ? directWrites : 0],
      ];
    },
  );
  const counters: readonly (readonly [string, string, () => number])[] = [
    ['millrace_journal_written_bytes_total', 'Bytes written to the journal.', () => engine.counters.journalBytes],
    ['millrace_segment_writes_total', 'Writes to segments.', () => engine.counters.segmentWrites],
    ['millrace_checkpoints_total', 'Checkpoints completed.', () => engine.counters.checkpoints],
  ];
  for (const [name, help, read] of counters) metrics.observed('counter', name, help, read);
  observeCompaction(metrics, engine);
  const gauges: readonly (readonly [string, string, () => number])[] = [
    [
      'millrace_journal_bytes',
      'Journal not covered by a checkpoint: a restart reads it.',
      () => engine.counters.journalHeldBytes,
    ],
    ['millrace_tail_cache_bytes', 'Memory of the tail cache.', () => engine.counters.cacheBytes],
    [
      'millrace_pinned_bytes',
      'Memory beyond the tail cache that unread answers hold.',
      () => engine.counters.pinnedBytes,
    ],
    ['millrace_unwritten_bytes', 'Appended bytes that are not in a segment yet.', () => engine.counters.unwrittenBytes],
    ['millrace_open_files', 'Open segment files.', () => engine.counters.openFiles],
  ];
  for (const [name, help, read] of gauges) metrics.observed('gauge', name, help, read);
}

function observeCompaction(metrics: Metrics, { compactor }: EmbeddedEngine): void {
  for (const [kind, name, help, read] of [
    ['counter', 'millrace_compaction_runs_total', 'Partitions compacted.', () => compactor.counters.runs],
    [
      'counter',
      'millrace_rewritten_bytes_total',
      'Size of segments before they were rewritten, by compaction or for queues.',
      () => compactor.counters.bytesBefore,
    ],
    [
      'counter',
      'millrace_rewrite_freed_bytes_total',
      'What that has freed.',
      () => {
        const { bytesBefore, bytesAfter } = compactor.counters;
        return bytesBefore - bytesAfter;
      },
    ],
    [
      'counter',
      'millrace_rewrite_dropped_records_total',
      'Records taken out of segments.',
      () => compactor.counters.droppedRecords,
    ],
    [
      'gauge',
      'millrace_compaction_max_dirty_ratio',
      'Share of bytes not compacted yet in the dirtiest partition, at the last look.',
      () => compactor.counters.maxDirtyRatio,
    ],
    [
      'gauge',
      'millrace_uncleanable_partitions',
      'Partitions that cannot be compacted until the next start; the log says why.',
      () => compactor.counters.uncleanable,
    ],
  ] as const) {
    metrics.observed(kind, name, help, read);
  }
}
