/** The AMQP door of a broker: its vhosts, brought back from the log, and its connections. Made by `broker/main.ts`. */
import type { Transport } from '../../broker/server.ts';
import { Alarms } from './alarms.ts';
import { AmqpConnection, type DoorParts } from './connection.ts';
import { DeadLetterExchanges } from './dead-letter-exchange.ts';
import { DirectReplies } from './direct-replies.ts';
import { OutputChunks } from './output.ts';
import type { Vhost } from './vhost.ts';
import { Vhosts, type VhostsParts } from './vhosts.ts';

/** The version of RabbitMQ whose behaviour is meant. */
export const RABBITMQ_VERSION = '4.0.5';

export interface AmqpDoorParts
  extends VhostsParts,
    Omit<DoorParts, 'vhosts' | 'connections' | 'version' | 'chunks' | 'replies' | 'alarms' | keyof VhostsParts> {
  readonly memoryBytes: () => number;
}

export class AmqpDoor {
  readonly connections = new Set<AmqpConnection>();
  readonly #vhosts: Vhosts;
  readonly #parts: AmqpDoorParts;
  readonly #chunks = new OutputChunks();
  readonly #replies: DirectReplies;
  readonly #alarms: Alarms;

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

  readonly accept = (transport: Transport): AmqpConnection => {
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
      replies: this.#replies,
      alarms: this.#alarms,
      vhosts: this.#vhosts.all,
      version: RABBITMQ_VERSION,
    };
    const connection = new AmqpConnection(transport, shared);
    this.connections.add(connection);
    connection.onClose(() => this.connections.delete(connection));
    return connection;
  };

  /** Says 320 to everybody. */
  drain(): void {
    for (const connection of this.connections) connection.stop();
  }
  close(): void {
    for (const connection of this.connections) connection.destroy();
  }
}
