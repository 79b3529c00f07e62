/**
 * Dead-letter exchanges for the broker's dead letters (`broker/dead-letters.ts`): how a message was published, and where
 * the exchange that its queue names sends it. As RabbitMQ: under the routing keys that it has, CC and BCC included, unless
 * the queue says another; an exchange that is not there takes nothing.
 */
import { readProperties } from '../../protocol/amqp/properties.ts';
import { NO_TABLE } from '../../protocol/amqp/table.ts';
import { Reader } from '../../protocol/bytes.ts';
import type { ExchangeRouter, Letter, RoutedTarget } from '../../broker/dead-letters.ts';
import type { Publication } from '../../broker/queue-attributes.ts';
import type { Queue } from '../../broker/queues.ts';
import { DEFAULT_EXCHANGE } from './exchanges.ts';
import { addressed, addressOf, ccKeysOf, deliveryOf, unaddressed } from './properties.ts';
import type { Vhost } from './vhost.ts';

export class DeadLetterExchanges implements ExchangeRouter {
  readonly #vhostOf: (queue: Queue) => Vhost;

  constructor(vhostOf: (queue: Queue) => Vhost) {
    this.#vhostOf = vhostOf;
  }

  published(queue: Queue, { headers }: Letter): Publication {
    const name = this.#vhostOf(queue).nameOf(queue);
    const { exchange, routingKey, propertyBytes } = addressOf(headers, name);
    const routingKeys = [routingKey, ...ccKeysOf(propertyBytes)];
    return { exchange, routingKeys, ...(name === queue.name ? {} : { alias: name }) };
  }

  unaddressed(letter: Letter): Letter {
    return { ...letter, headers: unaddressed(letter.headers) };
  }

  route(queue: Queue, letter: Letter): { targets: readonly RoutedTarget[]; letter: Letter } | undefined {
    const vhost = this.#vhostOf(queue);
    const { settings, origins } = queue;
    const named = settings['dead.letter.exchange'];
    const exchange = named === DEFAULT_EXCHANGE ? '' : named;
    if (vhost.exchanges.get(exchange) === undefined) return undefined;
    const before = addressOf(letter.headers, vhost.nameOf(queue));
    const isRenamed = origins.has('dead.letter.routing.key');
    const routingKey = isRenamed ? settings['dead.letter.routing.key'] : before.routingKey;
    const moreKeys = isRenamed ? [] : [...ccKeysOf(before.propertyBytes), ...before.bccKeys];
    const readdressed = { ...letter, headers: addressed(letter.headers, { exchange, routingKey, isRenamed }) };
    // What it looks like now: an exchange may go by headers.
    const { propertyBytes } = deliveryOf(
      { key: null, value: null, headers: readdressed.headers },
      { queueName: '', headerBytesMax: Number.POSITIVE_INFINITY, failedCount: 0 },
    );
    const { headers = NO_TABLE } = readProperties(new Reader(propertyBytes));
    const targets: RoutedTarget[] = [];
    for (const name of vhost.exchanges.route({ exchange, routingKey, moreKeys, headers })) {
      const found = vhost.find(name);
      if (found !== undefined) targets.push({ queue: found.queue, partition: found.partitionIndex });
    }
    return { targets, letter: readdressed };
  }
}
