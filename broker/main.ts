/**
 * Wires one broker together. `openBroker` makes everything that has no socket (the simulation runs exactly that);
 * `startBroker` adds the system's clock and disk and opens the doors. Read from here: a request goes from
 * `server.ts` through `kafka/connection.ts` to the handlers in `kafka/`, and from them to the engine.
 */
import { monitorEventLoopDelay } from 'node:perf_hooks';
import os from 'node:os';
import { inspect } from 'node:util';
import { MillraceError } from '../protocol/errors.ts';
import { type Clock, type Random, systemClock, systemRandom } from '../storage/clock.ts';
import type { Disk } from '../storage/disk.ts';
import { type Jobs, WorkerJobs } from '../storage/jobs.ts';
import { loadNative } from '../storage/native.ts';
import { NodeDisk } from '../storage/node-disk.ts';
import { AmqpDoor } from '../adapters/amqp/door.ts';
import { observeAmqp } from '../adapters/amqp/observe.ts';
import { ManagementDoor } from '../adapters/management/door.ts';
import type { Machine } from '../adapters/management/parts.ts';
import { SqsDoor } from '../adapters/sqs/door.ts';
import { DirectoryAccess } from './access.ts';
import { AttributeFiles } from './attribute-files.ts';
import { listenAdmin } from './admin.ts';
import { advertiser } from './advertised.ts';
import { type Broker, noTraffic } from './broker.ts';
import { type Options, resolveOptions } from './config.ts';
import { Directory } from './directory.ts';
import { openEmbeddedEngine } from './embedded-engine.ts';
import { GroupCoordinator } from './groups.ts';
import { apiTable } from './kafka/api-table.ts';
import { KafkaConnection, RequestBudget } from './kafka/connection.ts';
import { FetchHandler } from './kafka/fetch.ts';
import { FetchSessions } from './kafka/fetch-sessions.ts';
import { PiecePool } from './kafka/piece-pool.ts';
import { endStalled } from './kafka/stalled-readers.ts';
import { Metrics } from './metrics.ts';
import { observeBroker } from './observe.ts';
import { ProducerIds } from './producers.ts';
import { ShareSessions } from './kafka/share-sessions.ts';
import { QueueCommands } from './queue-commands.ts';
import { QueueReader } from './queue-reader.ts';
import { QueueRegistry } from './queues.ts';
import { type Accept, type ListenOptions, type Listening, isInUse, listen } from './server.ts';
import { TopicRegistry } from './topics.ts';

export interface Address {
  host: string;
  port: number;
  /** If another program has the port, the door stays shut and `log` says so; else the start fails. Default false. */
  isOptional?: boolean;
}

export interface BrokerConfig {
  /** Folder of the log; made if missing. */
  dataDir: string;
  /** Addresses to listen on; port 0 lets the system choose. A door that is undefined stays shut. */
  doors: {
    kafka?: Address | undefined;
    amqp?: Address | undefined;
    sqs?: Address | undefined;
    management?: Address | undefined;
    http?: Address | undefined;
  };
  /** Over the defaults of `config.ts`. */
  options?: Readonly<Record<string, string | number | boolean>>;
  /** Queues that are made at the start if they are not there: a file as docs/sqs.md has it. */
  sqsQueues?: { readonly fileName: string; readonly text: string };
  /** Allows addresses that other machines can reach although there is no authentication yet. Default false. */
  insecure?: boolean;
  /** Of Millrace, as its doors tell it. */
  version?: string;
  /** One line for the operator. Default: nothing is said. */
  log?: (line: string) => void;
}

export interface RunningBroker {
  /** The doors that listen, with their real ports. */
  readonly doors: readonly { name: string; host: string; port: number }[];
  readonly broker: Broker;
  readonly metrics: Metrics;
  /** Answers what was asked, syncs, checkpoints, closes. */
  stop(): Promise<void>;
  /** Resolves if the broker had to stop because the disk failed; the process must end. */
  readonly fatal: Promise<Error>;
}

/** A broker without doors. */
export interface OpenBroker {
  readonly broker: Broker;
  readonly metrics: Metrics;
  /** What a Kafka door does with a connection. */
  readonly acceptKafka: Accept;
  readonly kafkaConnections: ReadonlySet<KafkaConnection>;
  readonly amqp: AmqpDoor;
  readonly sqs: SqsDoor;
  /** Stops reading requests and waits, at most `shutdown.drain.ms`, until what was asked is answered and sent. */
  drain(): Promise<void>;
  close(): Promise<void>;
}

export interface BrokerParts {
  disk: Disk;
  clock: Clock;
  random: Random;
  /** Default: inline. */
  jobs?: Jobs;
  dataDir: string;
  options: Options;
  log: (line: string) => void;
  /** Memory that the process holds; default: none, which never is too much. */
  memoryBytes?: () => number;
  /** Told to Kafka clients unless `advertised.listeners` says otherwise. Default: the address they connected to. */
  advertisedHost?: string;
  /** Strangers reach the SQS door: it asks for signatures also while there are no access keys. Default false. */
  sqsNeedsKeys?: boolean;
}

const LOOPBACK = new Set(['127.0.0.1', '::1', 'localhost']);
/** Doors that let nobody in without a password or an access key, and guest from loopback only. */
const AUTHENTICATING: ReadonlySet<string> = new Set(['amqp', 'management', 'sqs']);
const WILDCARDS = new Set(['0.0.0.0', '::', '']);
const DRAIN_LOOK_MS = 5;
const STALLED_LOOK_MS = 1000;
/** What unread answers may hold beyond the tail cache, in multiples of its budget. */
const PINNED_CACHES_MAX = 2;

/** Recovers the log, loads all state and readies every handler. */
export async function openBroker({
  disk,
  clock,
  random,
  jobs,
  dataDir,
  options,
  log,
  memoryBytes = () => 0,
  advertisedHost = '',
  sqsNeedsKeys = false,
}: BrokerParts): Promise<OpenBroker> {
  const advertised = advertiser(options['advertised.listeners'], advertisedHost);
  const metrics = new Metrics();
  const engine = await openEmbeddedEngine({
    disk,
    clock,
    random,
    dataDir,
    options,
    warn: log,
    ...(jobs === undefined ? {} : { jobs }),
  });
  const report = (message: string, error: unknown): void => log(`${message}: ${inspect(error)}`);
  const coordinators = await openCoordinators({ engine, clock, random, options, report, files: { disk, dataDir } });
  const { topics, groups, queues, queueCommands, queueReader, directory, access } = coordinators;
  const amqp = new AmqpDoor({
    engine,
    clock,
    random,
    options,
    topics,
    queues,
    directory,
    access,
    reader: queueReader,
    memoryBytes,
    report,
  });
  await amqp.load();
  const sqs = new SqsDoor({
    engine,
    clock,
    random,
    options,
    topics,
    queues,
    access,
    reader: queueReader,
    jobs: queueCommands.jobs,
    keyOf: (id) => directory.users.accessKey(id),
    isOpen: () => !sqsNeedsKeys && directory.table('keys').size === 0,
    report,
  });
  await sqs.load();
  sqs.observe(metrics);
  await engine.discardUnopened();
  const broker: Broker = {
    clock,
    random,
    options,
    clusterId: engine.dataDir.clusterId,
    dataDir,
    engine,
    ...coordinators,
    producerIds: new ProducerIds(engine.leaderEpoch),
    traffic: noTraffic(),
    advertised,
  };
  const fetch = new FetchHandler(
    new FetchSessions(clock, random, options['fetch.sessions.max'], options['fetch.sessions.partitions.max']),
  );
  const apis = apiTable({ fetch, shareSessions: new ShareSessions(broker) }, metrics);
  const pieces = new PiecePool();
  const requests = new RequestBudget(options['requests.buffered.bytes.max']);
  const connections = new Set<KafkaConnection>();
  observeBroker(metrics, { broker, engine, fetch, apis, connections });
  observeAmqp(metrics, amqp);
  let retention = clock.after(options['log.retention.check.interval.ms'], retain);
  function retain(): void {
    const retaining = engine.retain().then(() => queues.retain());
    void retaining.then(
      () => {
        retention = clock.after(options['log.retention.check.interval.ms'], retain);
      },
      // A failed disk has already told the engine's owner.
      () => {},
    );
  }
  let compaction = clock.after(options['log.cleaner.backoff.ms'], compact);
  function compact(): void {
    void engine.compact().then(
      () => {
        compaction = clock.after(options['log.cleaner.backoff.ms'], compact);
      },
      // A failed disk has already told the engine's owner.
      () => {},
    );
  }
  let stalled = clock.after(STALLED_LOOK_MS, lookForStalled);
  function lookForStalled(): void {
    endStalled(connections, {
      pinnedBytes: () => engine.counters.pinnedBytes,
      bytesMax: PINNED_CACHES_MAX * options['log.tail.cache.bytes'],
      nowMs: clock.monotonic(),
    });
    stalled = clock.after(STALLED_LOOK_MS, lookForStalled);
  }
  return {
    broker,
    metrics,
    kafkaConnections: connections,
    acceptKafka(transport) {
      const connection = new KafkaConnection(transport, { broker, apis, pieces, requests, report });
      connections.add(connection);
      connection.onClose(() => connections.delete(connection));
      return connection;
    },
    amqp,
    sqs,
    drain() {
      amqp.drain();
      sqs.drain();
      for (const connection of connections) connection.drain();
      return drain(broker, () => [...connections, ...amqp.connections, sqs]);
    },
    async close() {
      retention.cancel();
      compaction.cancel();
      stalled.cancel();
      // What their clients hold goes back before the queues close.
      amqp.close();
      groups.close();
      queueCommands.close();
      queues.close();
      for (const connection of connections) connection.end();
      await engine.close();
    },
  };
}

/** What decides, with its state read from the log: topics first, groups and queues stand on them. */
export async function openCoordinators({
  engine,
  clock,
  random,
  options,
  report,
  files,
}: Pick<Broker, 'engine' | 'clock' | 'random' | 'options'> & {
  report: (message: string, error: unknown) => void;
  /** Where attribute indexes of queues are kept over a restart. Default: nowhere. */
  files?: { disk: Disk; dataDir: string };
}): Promise<Pick<Broker, 'topics' | 'groups' | 'queues' | 'queueCommands' | 'queueReader' | 'directory' | 'access'>> {
  const directory = new Directory({ engine, clock, random, options, files });
  await directory.load();
  const access = new DirectoryAccess(directory);
  const topics = new TopicRegistry({ engine, clock, random, options });
  await topics.load();
  const groups = new GroupCoordinator({
    engine,
    clock,
    random,
    options,
    topics,
    onShareGroupDeleted: (group) => queues.groupDeleted(group),
  });
  await groups.load();
  const queueReader = new QueueReader({
    openBytesMax: options['queue.open.batches.bytes'],
    decompressedBytesMax: options['decompressed.bytes.max'],
  });
  const queues = new QueueRegistry({
    engine,
    clock,
    options,
    topics,
    reader: queueReader,
    ...(files === undefined ? {} : { attributeFiles: await AttributeFiles.open({ ...files, report }) }),
    topicDeleted: (topic) => groups.topicDeleted(topic),
    report,
  });
  await queues.load();
  const entryBytes = options['journal.entry.bytes'];
  const queueCommands = new QueueCommands({ engine, clock, topics, queues, reader: queueReader, entryBytes, report });
  await queueCommands.load();
  return { topics, groups, queues, queueCommands, queueReader, directory, access };
}

/** Waits until everybody has the answer to what was asked, but not too long. */
function drain({ clock, options }: Broker, peers: () => readonly { readonly isIdle: boolean }[]): Promise<void> {
  const deadline = clock.monotonic() + options['shutdown.drain.ms'];
  return new Promise((resolve) => {
    const look = (): void => {
      const isIdle = peers().every((peer) => peer.isIdle);
      if (isIdle || clock.monotonic() >= deadline) resolve();
      else clock.after(DRAIN_LOOK_MS, look);
    };
    // After what was just answered has left.
    clock.endOfTurn(() => clock.endOfTurn(look));
  });
}

/** Opens the data folder and the doors. Rejects with a `MillraceError` that says what to do. */
export async function startBroker(config: BrokerConfig): Promise<RunningBroker> {
  const log = config.log ?? (() => {});
  const options = resolveOptions(config.options);
  for (const [name, address] of Object.entries(config.doors))
    if (address) checkAddress(name, address, config.insecure === true);
  await loadNative();
  const kafkaHost = config.doors.kafka?.host;
  const opened = await openBroker({
    disk: new NodeDisk(),
    clock: systemClock,
    random: systemRandom,
    jobs: new WorkerJobs(),
    dataDir: config.dataDir,
    options,
    log,
    memoryBytes: thisMachine.memoryBytes,
    // A wildcard is no address for anybody.
    advertisedHost: kafkaHost !== undefined && !WILDCARDS.has(kafkaHost) ? kafkaHost : '',
    sqsNeedsKeys: config.doors.sqs !== undefined && !LOOPBACK.has(config.doors.sqs.host) && config.insecure !== true,
  });
  const { broker, metrics } = opened;
  const delay = monitorEventLoopDelay({ resolution: 10 });
  delay.enable();
  metrics.observed('gauge', 'millrace_event_loop_delay_seconds', 'Delay of the event loop since the last look.', () => {
    const samples = [0.5, 0.99, 1].map((quantile): [Record<string, string>, number] => [
      { quantile: String(quantile) },
      Math.max(0, delay.percentile(quantile * 100 || 1) / 1e9 - 0.01),
    ]);
    delay.reset();
    return samples;
  });

  let isReady = false;
  let failure: Error | undefined;
  const fatal = new Promise<Error>((resolve) =>
    broker.engine.onFatal((error) => {
      failure = error;
      resolve(error);
    }),
  );
  const listeners: Listening[] = [];
  const doors: { name: string; host: string; port: number }[] = [];
  const httpDoors: { port: number; close(): Promise<void> }[] = [];
  const open = async (name: keyof BrokerConfig['doors'], listenAt: (host: string, port: number) => Promise<number>) => {
    const address = config.doors[name];
    if (!address) return;
    const { host, port, isOptional } = address;
    try {
      doors.push({ name, host, port: await listenAt(host, port) });
    } catch (error) {
      if (!isOptional || !isInUse(error)) throw error;
      log(
        `${host}:${port} is in use by another program, so the ${name} door stays shut; --${name} HOST:PORT chooses another address`,
      );
    }
  };
  const keep = (door: { port: number; close(): Promise<void> }): number => {
    httpDoors.push(door);
    return door.port;
  };
  /** 'localhost' is ::1 for many clients. Where the machine has no IPv6, or that port is taken there, so be it. */
  const onLoopback = async (
    host: string,
    port: number,
    rest: Omit<ListenOptions, 'host' | 'port'>,
  ): Promise<Listening> => {
    const first = await listen({ host, port, ...rest });
    listeners.push(first);
    if (host === '127.0.0.1') {
      await listen({ host: '::1', port: first.port, ...rest }).then(
        (listener) => listeners.push(listener),
        () => log(`::1:${first.port} cannot be listened on; clients reach that door at 127.0.0.1:${first.port}`),
      );
    }
    return first;
  };
  const shut = async (): Promise<void> => {
    await Promise.all([...listeners.map((listener) => listener.close()), ...httpDoors.map((door) => door.close())]);
    delay.disable();
    await opened.close();
  };
  try {
    if (config.sqsQueues) {
      // Its parser of YAML would cost every start some 30 ms.
      const { wantedQueues } = await import('../adapters/sqs/startup.ts');
      const place = { region: options['sqs.region'], account: options['sqs.account'] };
      await opened.sqs.makeQueues(wantedQueues(config.sqsQueues.text, config.sqsQueues.fileName, place));
    }
    await open('kafka', async (host, port) => {
      const listener = await onLoopback(host, port, {
        // Of both addresses together.
        hasRoom: () => opened.kafkaConnections.size < options['connections.max'],
        idleMs: options['connections.max.idle.ms'],
        accept: opened.acceptKafka,
      });
      return listener.port;
    });
    await open('amqp', async (host, port) => {
      const listener = await onLoopback(host, port, {
        hasRoom: () => opened.amqp.connections.size < options['connections.max'],
        // Heartbeats find who is gone; who has switched them off may be silent for as long as it likes.
        idleMs: Number.MAX_SAFE_INTEGER,
        accept: opened.amqp.accept,
      });
      return listener.port;
    });
    await open('management', async (host, port) => {
      const { directory, queues, clock, random, dataDir, clusterId } = broker;
      const management = new ManagementDoor({
        directory,
        queues,
        clock,
        random,
        dataDir,
        clusterId,
        options,
        amqp: opened.amqp,
        machine: thisMachine,
        productVersion: config.version ?? 'unknown',
        listeners: () => doors,
        report: (message, error) => log(`${message}: ${inspect(error)}`),
      });
      return keep(await management.listen(host, port));
    });
    await open('sqs', async (host, port) => keep(await opened.sqs.listen({ host, port })));
    await open('http', async (host, port) => {
      const notReady = (): string | undefined => {
        if (failure) return `the disk failed: ${failure.message}`;
        if (broker.engine.isFull) return 'the disk is full';
        return isReady ? undefined : 'starting or stopping';
      };
      const failed = (error: unknown): void => log(`an HTTP request failed: ${inspect(error)}`);
      return keep(await listenAdmin({ metrics, notReady }, { host, port, failed }));
    });
  } catch (error) {
    await shut();
    throw error;
  }
  isReady = true;
  return {
    doors,
    broker,
    metrics,
    fatal,
    async stop() {
      isReady = false;
      for (const listener of listeners) listener.stopAccepting();
      await opened.drain();
      await shut();
    },
  };
}

const thisMachine: Machine = {
  hostName: os.hostname(),
  processId: process.pid,
  processors: os.cpus().length,
  memoryBytesMax: os.totalmem(),
  memoryBytes: () => process.memoryUsage.rss(),
  uptimeMs: () => Math.round(process.uptime() * 1000),
};

function checkAddress(name: string, { host }: Address, isInsecure: boolean): void {
  if (isInsecure || LOOPBACK.has(host) || AUTHENTICATING.has(name)) return;
  throw new MillraceError(
    'INVALID_OPTION',
    `--${name} ${host} can be reached from other machines and this door has no authentication; use 127.0.0.1, or --insecure if that is meant`,
  );
}
