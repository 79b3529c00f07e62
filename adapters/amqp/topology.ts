/**
 * The durable part of all vhosts as a state machine on a log of its own: exchanges, bindings and what AMQP knows of queues
 * beyond their settings. Pure; `vhosts.ts` runs it. Events tell of one thing each, what follows from it (an exchange that
 * deletes itself) is an event of its own, so applying needs no rules and events may come twice.
 */
import { pack, unpack } from 'msgpackr';
import { NO_TABLE, readTable, type Table, tableBytes } from '../../protocol/amqp/table.ts';
import { Reader } from '../../protocol/bytes.ts';
import { MillraceError } from '../../protocol/errors.ts';
import type { DecodedRecord, RecordInit } from '../../protocol/record-batch.ts';
import type { StateMachine } from '../../broker/state-log.ts';
import { type Binding, type Exchange, EXCHANGE_TYPES, type ExchangeType } from './exchanges.ts';

/** A durable queue that AMQP declared. */
export interface StoredQueue {
  /** In AMQP's words. */
  readonly name: string;
  /** Name of the queue in the registry, and of its topic. */
  readonly queueName: string;
  readonly topicId: string;
  readonly isAutoDelete: boolean;
  readonly arguments: Table;
}

/** In one vhost. */
export type TopologyChange =
  | { readonly kind: 'exchangeDeclared'; readonly exchange: Exchange }
  | { readonly kind: 'exchangeDeleted'; readonly name: string }
  | { readonly kind: 'bound' | 'unbound'; readonly binding: Binding }
  | { readonly kind: 'queueDeclared'; readonly queue: StoredQueue }
  | { readonly kind: 'queueDeleted'; readonly name: string };

export type TopologyEvent = TopologyChange & { readonly vhost: string };

const VERSION = 2;

/** What is kept of one vhost. */
export class VhostTopology {
  readonly exchanges = new Map<string, Exchange>();
  readonly queues = new Map<string, StoredQueue>();
  readonly #bindings = new Map<string, Binding>();

  hasBinding(binding: Binding): boolean {
    return this.#bindings.has(bindingKey(binding));
  }
  bindings(): IterableIterator<Binding> {
    return this.#bindings.values();
  }

  apply(event: TopologyChange): void {
    switch (event.kind) {
      case 'exchangeDeclared':
        this.exchanges.set(event.exchange.name, event.exchange);
        break;
      case 'exchangeDeleted':
        this.exchanges.delete(event.name);
        break;
      case 'bound':
        this.#bindings.set(bindingKey(event.binding), event.binding);
        break;
      case 'unbound':
        this.#bindings.delete(bindingKey(event.binding));
        break;
      case 'queueDeclared':
        this.queues.set(event.queue.name, event.queue);
        break;
      case 'queueDeleted':
        this.queues.delete(event.name);
        break;
    }
  }

  *live(): Iterable<TopologyChange> {
    for (const exchange of this.exchanges.values()) yield { kind: 'exchangeDeclared', exchange };
    for (const queue of this.queues.values()) yield { kind: 'queueDeclared', queue };
    for (const binding of this.#bindings.values()) yield { kind: 'bound', binding };
  }

  get isEmpty(): boolean {
    return this.exchanges.size + this.queues.size + this.#bindings.size === 0;
  }
}

export class Topology implements StateMachine<TopologyEvent> {
  readonly #vhosts = new Map<string, VhostTopology>();

  /** Vhosts of which something is kept. */
  get vhosts(): readonly string[] {
    return [...this.#vhosts].filter(([, kept]) => !kept.isEmpty).map(([name]) => name);
  }
  of(vhost: string): VhostTopology {
    let kept = this.#vhosts.get(vhost);
    if (kept === undefined) {
      kept = new VhostTopology();
      this.#vhosts.set(vhost, kept);
    }
    return kept;
  }
  /** The vhost is gone, and everything in it before that. */
  forget(vhost: string): void {
    this.#vhosts.delete(vhost);
  }

  apply(event: TopologyEvent): void {
    this.of(event.vhost).apply(event);
  }

  *live(): Iterable<TopologyEvent> {
    for (const [vhost, kept] of this.#vhosts) for (const change of kept.live()) yield { ...change, vhost };
  }

  encode(event: TopologyEvent, nowMs: number): RecordInit {
    return { key: null, value: pack([VERSION, event.vhost, event.kind, ...fieldsOf(event)]), timestamp: nowMs };
  }

  decode(record: DecodedRecord): TopologyEvent {
    const decoded: unknown = record.value === null ? undefined : unpack(record.value);
    if (Array.isArray(decoded) && decoded[0] === VERSION && typeof decoded[1] === 'string') {
      const change = changeOf(decoded[2], decoded.slice(3));
      if (change !== undefined) return { ...change, vhost: decoded[1] };
    }
    throw new MillraceError(
      'DATA_DIR_FORMAT',
      `the log of exchanges has an event at offset ${record.offset} that this version does not know`,
    );
  }
}

function bindingKey({ source, destination, destinationKind, routingKey, arguments: table }: Binding): string {
  const sorted = [...table].sort(([one], [other]) => (one < other ? -1 : one > other ? 1 : 0));
  return [source, destinationKind, destination, routingKey, tableBytes(sorted).toString('latin1')].join('\0');
}

function fieldsOf(event: TopologyChange): unknown[] {
  switch (event.kind) {
    case 'exchangeDeclared': {
      const { name, type, isAutoDelete, isInternal, arguments: table } = event.exchange;
      return [name, type, isAutoDelete, isInternal, tableBytes(table)];
    }
    case 'exchangeDeleted':
    case 'queueDeleted':
      return [event.name];
    case 'bound':
    case 'unbound': {
      const { source, destination, destinationKind, routingKey, arguments: table } = event.binding;
      return [source, destination, destinationKind, routingKey, tableBytes(table)];
    }
    case 'queueDeclared': {
      const { name, queueName, topicId, isAutoDelete, arguments: table } = event.queue;
      return [name, queueName, topicId, isAutoDelete, tableBytes(table)];
    }
  }
}

/** The reverse of `fieldsOf`. The shapes are ours: the record's checksum and version vouch for them. */
function changeOf(kind: unknown, fields: unknown[]): TopologyChange | undefined {
  switch (kind as TopologyChange['kind']) {
    case 'exchangeDeclared': {
      const [name, type, isAutoDelete, isInternal, table] = fields as [string, string, boolean, boolean, Uint8Array];
      const known: ExchangeType | undefined = EXCHANGE_TYPES.find((each) => each === type);
      if (known === undefined) return undefined;
      const exchange = { name, type: known, isDurable: true, isAutoDelete, isInternal, arguments: tableOf(table) };
      return { kind: 'exchangeDeclared', exchange };
    }
    case 'exchangeDeleted':
      return { kind: 'exchangeDeleted', name: fields[0] as string };
    case 'queueDeleted':
      return { kind: 'queueDeleted', name: fields[0] as string };
    case 'bound':
    case 'unbound': {
      const [source, destination, destinationKind, routingKey, table] = fields as [
        string,
        string,
        Binding['destinationKind'],
        string,
        Uint8Array,
      ];
      const binding = { source, destination, destinationKind, routingKey, arguments: tableOf(table) };
      return { kind: kind as 'bound' | 'unbound', binding };
    }
    case 'queueDeclared': {
      const [name, queueName, topicId, isAutoDelete, table] = fields as [string, string, string, boolean, Uint8Array];
      return { kind: 'queueDeclared', queue: { name, queueName, topicId, isAutoDelete, arguments: tableOf(table) } };
    }
    default:
      return undefined;
  }
}

/** Copy: what msgpack gives is a view of the record, and so would the strings of the table be. */
function tableOf(bytes: Uint8Array): Table {
  return bytes.length === 0 ? NO_TABLE : readTable(new Reader(Buffer.from(bytes)));
}

/** The table without views of the frame that it came in. */
export const keptTable = (table: Table): Table => (table.length === 0 ? NO_TABLE : tableOf(tableBytes(table)));
