/** The AMQP door of a broker: its vhost, brought back from the log, and its connections. Made by `broker/main.ts`. */
import type { Accept } from '../../broker/server.ts';
import { AmqpConnection, type DoorParts } from './connection.ts';
import { Vhost, type VhostParts } from './vhost.ts';

/** The version of RabbitMQ whose behaviour is meant. */
const VERSION = '4.0.5';

export interface AmqpDoorParts extends VhostParts, Omit<DoorParts, 'vhost' | 'version' | keyof VhostParts> {}

export class AmqpDoor {
  readonly connections = new Set<AmqpConnection>();
  readonly vhost: Vhost;
  readonly #parts: AmqpDoorParts;

  constructor(parts: AmqpDoorParts) {
    this.#parts = parts;
    this.vhost = new Vhost(parts);
  }

  /** Once, after the queues are loaded; also where no AMQP client may come in. */
  load(): Promise<void> {
    return this.vhost.load();
  }

  readonly accept: Accept = (transport) => {
    const { engine, clock, options, queues, reader, report } = this.#parts;
    const shared = { engine, clock, options, queues, reader, report, vhost: this.vhost, version: VERSION };
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
