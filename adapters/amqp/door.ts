/** The AMQP door of a broker: its vhosts, brought back from the log, and its connections. Made by `broker/main.ts`. */
import type { Transport } from '../../broker/server.ts';
import { Alarms } from './alarms.ts';
import { AmqpConnection, type DoorParts } from './connection.ts';
import { MessageCounters } from './counters.ts';
import { DeadLetterExchanges } from './dead-letter-exchange.ts';
import { DirectReplies } from './direct-replies.ts';
import { OutputChunks } from './output.ts';
import { BatchBuilders } from './publisher.ts';
import type { Vhost } from './vhost.ts';
import { Vhosts, type VhostsParts } from './vhosts.ts';

/** The version of RabbitMQ whose behaviour is meant. */
export const RABBITMQ_VERSION = '4.0.5';

export interface AmqpDoorParts
  extends VhostsParts,
    Omit<
      DoorParts,
      | 'vhosts'
      | 'connections'
      | 'version'
      | 'isInternal'
      | 'chunks'
      | 'builders'
      | 'replies'
      | 'alarms'
      | keyof VhostsParts
    > {
  readonly memoryBytes: () => number;
}

export class AmqpDoor {
  readonly connections = new Set<AmqpConnection>();
  readonly #vhosts: Vhosts;
  readonly #parts: AmqpDoorParts;
  readonly #chunks = new OutputChunks();
  readonly #builders = new BatchBuilders();
  readonly #replies: DirectReplies;
  readonly #alarms: Alarms;
  /** Bytes of the connections that have ended. */
  readonly #ended = { received: 0, sent: 0 };

  constructor(parts: AmqpDoorParts) {
    this.#parts = parts;
    this.#replies = new DirectReplies(parts.random);
    this.#alarms = new Alarms(parts);
    this.#vhosts = new Vhosts(parts);
  }

  /** Once, after the queues are loaded; also where no AMQP client may come in. */
  async load(): Promise<void> {
    await this.#vhosts.load();
    const { queues, directory } = this.#parts;
    queues.useExchanges(new DeadLetterExchanges((queue) => this.#vhosts.of(queue)));
    this.#vhosts.onDeleted((name) => {
      this.#closeAll(`vhost '${name}' is down`, ({ vhostName }) => vhostName === name);
    });
    directory.watch((changes) => {
      for (const { table, key, fact } of changes) {
        if (table === 'users' && fact === undefined) {
          this.#closeAll(`user '${key}' is deleted`, ({ user }) => user === key);
        }
      }
    });
  }

  #closeAll(reason: string, isMeant: (connection: AmqpConnection) => boolean): void {
    for (const connection of [...this.connections].filter(isMeant)) connection.close(reason);
  }

  /** By name. */
  get vhosts(): ReadonlyMap<string, Vhost> {
    return this.#vhosts.all;
  }

  /** Of all channels of a vhost that there are and were. */
  counters(vhost: string): MessageCounters {
    const sum = new MessageCounters();
    const ended = this.vhosts.get(vhost)?.endedCounters;
    if (ended !== undefined) sum.add(ended);
    for (const connection of this.connections) {
      if (connection.isOpen && connection.vhostName === vhost)
        for (const channel of connection.channels()) sum.add(channel.counters);
    }
    return sum;
  }
  /** Bytes of all connections that there are and were. */
  octets(): { received: number; sent: number } {
    const sum = { ...this.#ended };
    for (const { receivedBytes, sentBytes } of this.connections) {
      sum.received += receivedBytes;
      sum.sent += sentBytes;
    }
    return sum;
  }

  /** What there is too little of: while that is so nobody may publish. */
  get alarms(): readonly ('disk' | 'memory')[] {
    return this.#alarms.reason === undefined ? [] : this.#alarms.lowOn;
  }

  /** `isInternal`: of the broker's own, acting for a user; no limit counts it and no list shows it. */
  readonly accept = (transport: Transport, isInternal = false): AmqpConnection => {
    const { engine, clock, options, queues, reader, report, directory, access } = this.#parts;
    const shared = {
      directory,
      access,
      connections: this.connections,
      engine,
      clock,
      options,
      queues,
      reader,
      report,
      chunks: this.#chunks,
      builders: this.#builders,
      replies: this.#replies,
      alarms: this.#alarms,
      vhosts: this.#vhosts.all,
      version: RABBITMQ_VERSION,
      isInternal,
    };
    const connection = new AmqpConnection(transport, shared);
    this.connections.add(connection);
    connection.onClose(() => {
      this.connections.delete(connection);
      this.#ended.received += connection.receivedBytes;
      this.#ended.sent += connection.sentBytes;
    });
    return connection;
  };

  /** Says 320 to everybody. */
  drain(): void {
    for (const connection of this.connections) connection.stop();
  }
  close(): void {
    this.#vhosts.close();
    for (const connection of this.connections) connection.destroy();
  }
}
