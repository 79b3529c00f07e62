/** What every handler can reach: the parts of one broker. Made by `broker/main.ts`, or by the simulation. */
import type { Clock, Random } from '../storage/clock.ts';
import type { Access } from './access.ts';
import type { Options } from './config.ts';
import type { Directory } from './directory.ts';
import type { Engine } from './engine.ts';
import type { GroupCoordinator } from './groups.ts';
import type { ProducerIds } from './producers.ts';
import type { QueueCommands } from './queue-commands.ts';
import type { QueueReader } from './queue-reader.ts';
import type { QueueRegistry } from './queues.ts';
import type { TopicRegistry } from './topics.ts';

/** What went through the broker since its start; hot paths add to it, `/metrics` shows it. */
export interface Traffic {
  producedBatches: number;
  producedRecords: number;
  producedBytes: number;
  /** Batches that a producer sent again and the log had already. */
  duplicateBatches: number;
  fetchedBytes: number;
}

export const noTraffic = (): Traffic => ({
  producedBatches: 0,
  producedRecords: 0,
  producedBytes: 0,
  duplicateBatches: 0,
  fetchedBytes: 0,
});

export interface Broker {
  readonly clock: Clock;
  readonly random: Random;
  /** Current values; changed in place by a dynamic config change. */
  readonly options: Options;
  readonly clusterId: string;
  /** The data folder, as DescribeLogDirs names it. */
  readonly dataDir: string;
  readonly engine: Engine;
  readonly topics: TopicRegistry;
  readonly groups: GroupCoordinator;
  readonly queues: QueueRegistry;
  readonly queueCommands: QueueCommands;
  /** Of all doors, as is its cache. */
  readonly queueReader: QueueReader;
  readonly producerIds: ProducerIds;
  readonly access: Access;
  /** Users, vhosts, policies and parameters of all doors. */
  readonly directory: Directory;
  readonly traffic: Traffic;
  /** Where Kafka clients that came through `connection` find this node. */
  advertised(connection: { localHost: string; localPort: number }): { host: string; port: number };
}
