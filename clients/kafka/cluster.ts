/**
 * A Kafka cluster as one thing to talk to: finds the brokers from a bootstrap list, knows who leads which partition and
 * who coordinates which group, keeps a connection to each, and repeats what may be repeated.
 *
 * Always: at most one connection to a broker; what is known is forgotten when an answer says that it is wrong.
 */
import { MillraceError } from '../../protocol/errors.ts';
import { apis } from '../../protocol/kafka/apis.ts';
import type { Clock } from '../../storage/clock.ts';
import { type Address, type ConnectionOptions, KafkaConnection, name } from './connection.ts';
import { ConnectionError, isRetriable, kafkaError, throwOnError } from './errors.ts';

export interface ClusterOptions extends ConnectionOptions {
  /** Asked in turn for the rest of the cluster. At least one. */
  readonly bootstrap: readonly Address[];
  /** How long a call goes on repeating what failed, default 30 s. */
  readonly retryTimeoutMs?: number | undefined;
}

export interface PartitionInfo {
  readonly index: number;
  /** −1: none now. */
  readonly leaderId: number;
  readonly replicaIds: readonly number[];
  readonly inSyncReplicaIds: readonly number[];
}

export interface TopicInfo {
  readonly name: string;
  /** UUID text; all zeros from a broker without topic ids. */
  readonly topicId: string;
  readonly isInternal: boolean;
  /** In order of their indexes. */
  readonly partitions: readonly PartitionInfo[];
}

export interface BrokerInfo extends Address {
  readonly id: number;
}

/** First and longest pause before something is repeated. */
const BACKOFF_MIN_MS = 20;
const BACKOFF_MAX_MS = 1_000;
const GROUP_KEY = 0;

export class KafkaCluster {
  readonly clock: Clock;
  readonly #options: ClusterOptions;
  readonly #connections = new Map<string, Promise<KafkaConnection>>();
  readonly #brokers = new Map<number, BrokerInfo>();
  readonly #topics = new Map<string, TopicInfo>();
  readonly #coordinators = new Map<string, Address>();
  #clusterId: string | null = null;
  #controllerId = -1;
  #isClosed = false;

  constructor(options: ClusterOptions) {
    if (options.bootstrap.length === 0) throw new RangeError('at least one bootstrap address is needed');
    this.clock = options.clock;
    this.#options = options;
  }

  /** Null before the first metadata, and from brokers that have none. */
  get clusterId(): string | null {
    return this.#clusterId;
  }

  close(): void {
    this.#isClosed = true;
    for (const connection of this.#connections.values()) {
      // One that cannot be opened has nothing to close, and its opener was told.
      connection.then((opened) => opened.close()).catch(() => {});
    }
    this.#connections.clear();
  }

  /** A connection to any broker. When none can be reached the error names the last one tried. */
  async any(): Promise<KafkaConnection> {
    let failure: unknown;
    for (const address of [...this.#options.bootstrap, ...this.#brokers.values()]) {
      try {
        return await this.#connection(address);
      } catch (error) {
        failure = error;
      }
    }
    throw failure;
  }

  /** A connection to the broker with this id. */
  async node(id: number): Promise<KafkaConnection> {
    const broker = this.#brokers.get(id) ?? (await this.brokers()).find((known) => known.id === id);
    if (!broker) throw new MillraceError('LEADER_NOT_AVAILABLE', `broker ${id} is not in the cluster's metadata`);
    return this.#connection(broker);
  }

  /** The controller, who carries out changes of topics; any broker where there is none to be known. */
  async controller(): Promise<KafkaConnection> {
    if (this.#controllerId < 0) await this.brokers();
    return this.#controllerId < 0 ? this.any() : this.node(this.#controllerId);
  }

  /** All brokers, asked anew. */
  async brokers(): Promise<BrokerInfo[]> {
    await this.#loadMetadata([]);
    return [...this.#brokers.values()];
  }

  /**
   * The topics, asked anew; all of them without `names`. A name that does not exist is missing in the answer, unless
   * `mayCreate` is set and the broker makes topics that are asked for.
   */
  async topics(names?: readonly string[], { mayCreate = false } = {}): Promise<TopicInfo[]> {
    return this.#loadMetadata(names ?? null, mayCreate);
  }

  /** The topic, from what is known or asked anew. UNKNOWN_TOPIC_OR_PARTITION if there is none. */
  async topic(topic: string): Promise<TopicInfo> {
    const known = this.#topics.get(topic) ?? (await this.#loadMetadata([topic]))[0];
    if (!known) throw new MillraceError('UNKNOWN_TOPIC_OR_PARTITION', `there is no topic '${topic}'`);
    return known;
  }

  /** A connection to the leader of a partition. */
  async leader(topic: string, partition: number): Promise<KafkaConnection> {
    return this.node(await this.leaderId(topic, partition));
  }

  async leaderId(topic: string, partition: number): Promise<number> {
    const info = await this.topic(topic);
    const found = info.partitions[partition];
    if (!found) {
      throw new MillraceError(
        'UNKNOWN_TOPIC_OR_PARTITION',
        `topic '${topic}' has no partition ${partition}, only 0 to ${info.partitions.length - 1}`,
      );
    }
    if (found.leaderId < 0) {
      this.#topics.delete(topic);
      throw new MillraceError('LEADER_NOT_AVAILABLE', `partition ${topic}-${partition} has no leader now`);
    }
    return found.leaderId;
  }

  /** A connection to the coordinator of a group. */
  async coordinator(groupId: string): Promise<KafkaConnection> {
    const known = this.#coordinators.get(groupId);
    if (known) return this.#connection(known);
    const connection = await this.any();
    const response = await connection.send(apis.FindCoordinator, (version) => {
      if (version >= 4) return { keyType: GROUP_KEY, coordinatorKeys: [groupId] };
      return version >= 1 ? { key: groupId, keyType: GROUP_KEY } : { key: groupId };
    });
    const found = response.coordinators?.[0] ?? response;
    throwOnError(found.errorCode, `coordinator of group '${groupId}'`, found.errorMessage);
    const address = { host: found.host, port: found.port };
    this.#coordinators.set(groupId, address);
    return this.#connection(address);
  }

  /**
   * Runs `operation` until it succeeds, fails for good, or `retryTimeoutMs` have passed. What is known of leaders and
   * coordinators is asked anew before each repetition. When no broker can be reached at the first try, that is final.
   */
  async retry<T>(operation: () => Promise<T>): Promise<T> {
    const deadline = this.clock.monotonic() + (this.#options.retryTimeoutMs ?? 30_000);
    let backoffMs = BACKOFF_MIN_MS;
    for (;;) {
      try {
        return await operation();
      } catch (error) {
        const hasTime = this.clock.monotonic() + backoffMs < deadline;
        if (this.#isClosed || !isRetriable(error) || !hasTime || !this.#wasReached()) throw error;
        this.forget();
        await new Promise<void>((resolve) => this.clock.after(backoffMs, resolve));
        backoffMs = Math.min(backoffMs * 2, BACKOFF_MAX_MS);
      }
    }
  }

  /** Drops what is known of leaders and coordinators. */
  forget(): void {
    this.#topics.clear();
    this.#coordinators.clear();
    this.#controllerId = -1;
  }

  #wasReached(): boolean {
    return this.#brokers.size > 0 || this.#connections.size > 0;
  }

  async #loadMetadata(names: readonly string[] | null, mayCreate = false): Promise<TopicInfo[]> {
    const connection = await this.any();
    const response = await connection.send(apis.Metadata, (version) => ({
      // Version 0 has no null: there an empty list means all topics.
      topics: names === null && version === 0 ? [] : (names?.map((topic) => ({ name: topic })) ?? null),
      // Asking about a topic must not make it; before version 4 the broker's own setting decides.
      ...(version >= 4 ? { allowAutoTopicCreation: mayCreate } : {}),
    }));
    if (response.errorCode) throw kafkaError(response.errorCode, 'metadata');
    this.#clusterId = response.clusterId ?? null;
    this.#controllerId = response.controllerId ?? -1;
    this.#brokers.clear();
    for (const { nodeId, host, port } of response.brokers) this.#brokers.set(nodeId, { id: nodeId, host, port });
    const found: TopicInfo[] = [];
    for (const topic of response.topics) {
      if (topic.name === null) continue;
      const error = topic.errorCode === 0 ? undefined : kafkaError(topic.errorCode, `topic '${topic.name}'`);
      if (error?.code === 'UNKNOWN_TOPIC_OR_PARTITION') continue;
      if (error) throw error;
      const info = {
        name: topic.name,
        topicId: topic.topicId ?? '',
        isInternal: topic.isInternal ?? false,
        partitions: topic.partitions
          .map(({ partitionIndex, leaderId, replicaNodes, isrNodes }) => ({
            index: partitionIndex,
            leaderId,
            replicaIds: replicaNodes,
            inSyncReplicaIds: isrNodes,
          }))
          .sort((a, b) => a.index - b.index),
      };
      this.#topics.set(info.name, info);
      found.push(info);
    }
    return found;
  }

  async #connection(address: Address): Promise<KafkaConnection> {
    if (this.#isClosed) throw new ConnectionError('the client was closed');
    const key = name(address);
    const known = this.#connections.get(key);
    if (known) {
      const connection = await known;
      if (!connection.isClosed) return connection;
      // Others may have waited with us and opened a new one already.
      if (this.#connections.get(key) !== known) return this.#connection(address);
    }
    const opening = KafkaConnection.open(address, this.#options);
    this.#connections.set(key, opening);
    try {
      return await opening;
    } catch (error) {
      if (this.#connections.get(key) === opening) this.#connections.delete(key);
      throw error;
    }
  }
}

/** Reads `host:port,host:port`; the port is 9092 where none is given. An IPv6 address has brackets. */
export function parseAddresses(list: string): Address[] {
  return list
    .split(',')
    .map((part) => part.trim())
    .filter((part) => part !== '')
    .map((part) => {
      const match = /^(?:\[([^\]]+)\]|([^:[\]]+))(?::(\d{1,5}))?$/.exec(part);
      const port = Number(match?.[3] ?? 9092);
      const host = match?.[1] ?? match?.[2];
      if (!host || port > 65_535) throw new RangeError(`'${part}' is not HOST:PORT`);
      return { host, port };
    });
}
