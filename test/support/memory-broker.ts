/** The Kafka door on the engine in memory, without sockets: what a test sends and what it gets is bytes. */
import { type Broker, noTraffic } from '../../broker/broker.ts';
import { resolveOptions } from '../../broker/config.ts';
import { apiTable } from '../../broker/kafka/api-table.ts';
import { KafkaConnection, RequestBudget } from '../../broker/kafka/connection.ts';
import { FetchHandler } from '../../broker/kafka/fetch.ts';
import { FetchSessions } from '../../broker/kafka/fetch-sessions.ts';
import { PiecePool } from '../../broker/kafka/piece-pool.ts';
import { openCoordinators } from '../../broker/main.ts';
import { Metrics } from '../../broker/metrics.ts';
import { ProducerIds } from '../../broker/producers.ts';
import { ShareSessions } from '../../broker/kafka/share-sessions.ts';
import type { Transport } from '../../broker/server.ts';
import { Reader } from '../../protocol/bytes.ts';
import { apis } from '../../protocol/kafka/apis.ts';
import { FrameReader, readResponseHeader } from '../../protocol/kafka/frame.ts';
import { MemoryEngine } from './memory-engine.ts';
import { SimClock } from './sim-clock.ts';
import { SimRandom } from './sim-random.ts';

export interface MemoryBroker {
  readonly broker: Broker;
  readonly engine: MemoryEngine;
  readonly clock: SimClock;
  /** What the operator was told. */
  readonly reports: string[];
  connect(): MemoryClient;
}

/** What the peer of a connection sees. Bytes are taken at once unless `isReading` is false. */
export class MemoryClient implements Transport {
  readonly localHost = '127.0.0.1';
  readonly localPort = 9092;
  readonly remoteHost = '127.0.0.1';
  readonly remotePort = 40_000;
  readonly frames: Buffer[] = [];
  isPaused = false;
  isDestroyed = false;
  /** The broker has sent everything and ended the connection. */
  isEnded = false;
  isReading = true;
  connection: KafkaConnection | undefined;
  readonly #reader = new FrameReader(1024 * 1024 * 1024);
  readonly #unread: { buffers: readonly Uint8Array[]; sent: () => void }[] = [];

  send(...frames: Buffer[]): void {
    this.connection?.onBytes(Buffer.concat(frames));
  }
  write(buffers: readonly Uint8Array[], sent: () => void): void {
    this.#unread.push({ buffers, sent });
    if (this.isReading) this.read();
  }
  /** Bytes handed over and not read. */
  get unreadBytes(): number {
    return this.#unread.reduce((sum, { buffers }) => sum + buffers.reduce((bytes, { length }) => bytes + length, 0), 0);
  }
  /** Takes what was handed over so far, or only that many of the writes. */
  read(writesMax = Number.POSITIVE_INFINITY): void {
    for (const { buffers, sent } of this.#unread.splice(0, writesMax)) {
      this.#reader.push(Buffer.concat(buffers));
      for (let frame = this.#reader.next(); frame; frame = this.#reader.next()) this.frames.push(Buffer.from(frame));
      sent();
    }
  }
  pause(): void {
    this.isPaused = true;
  }
  resume(): void {
    this.isPaused = false;
  }
  end(): void {
    this.isEnded = true;
    this.destroy();
  }
  destroy(): void {
    if (this.isDestroyed) return;
    this.isDestroyed = true;
    this.connection?.onClose();
  }

  /** Correlation ids of the answers so far, in order. */
  get answered(): number[] {
    return this.frames.map((frame) => frame.readInt32BE(0));
  }
  /** Decodes one answer. */
  answer<Name extends keyof typeof apis>(
    index: number,
    name: Name,
    version: number,
  ): ReturnType<(typeof apis)[Name]['readResponse']> {
    const reader = new Reader(this.frames[index]);
    readResponseHeader(reader, apis[name], version);
    // `name` picks one codec; the compiler cannot follow that through the union.
    return apis[name].readResponse(reader, version) as ReturnType<(typeof apis)[Name]['readResponse']>;
  }
}

export async function openMemoryBroker(
  values: Record<string, string | number | boolean> = {},
  durability: 'at once' | 'manual' = 'at once',
): Promise<MemoryBroker> {
  const clock = new SimClock();
  const random = new SimRandom(1);
  const options = resolveOptions(values);
  const engine = new MemoryEngine({ durability, clock });
  const reports: string[] = [];
  const report = (message: string, error: unknown): void => void reports.push(`${message}: ${String(error)}`);
  const coordinators = await openCoordinators({ engine, clock, random, options, report });
  if (durability === 'manual') engine.sync();
  const broker: Broker = {
    clock,
    random,
    options,
    clusterId: 'memory',
    dataDir: '/memory',
    engine,
    ...coordinators,
    producerIds: new ProducerIds(1),
    traffic: noTraffic(),
    advertised: ({ localHost, localPort }) => ({ host: localHost, port: localPort }),
  };
  const fetch = new FetchHandler(new FetchSessions(clock, random, 10));
  const apiRows = apiTable({ fetch, shareSessions: new ShareSessions(broker) }, new Metrics());
  const pieces = new PiecePool();
  const requests = new RequestBudget(options['requests.buffered.bytes.max']);
  return {
    broker,
    engine,
    clock,
    reports,
    connect() {
      const client = new MemoryClient();
      client.connection = new KafkaConnection(client, {
        broker,
        apis: apiRows,
        pieces,
        requests,
        report,
      });
      return client;
    },
  };
}
