/**
 * The vhost '/': its exchanges and bindings, and its queues as AMQP sees them. Queues themselves are the registry's
 * (`broker/queues.ts`): one that another door declared is there, too, durable and without arguments.
 *
 * Always true: what is durable is in the log of `topology.ts` before it is in memory; an answer that tells of it waits
 * for `whenDurable`. A stored queue whose topic is gone or is another one by now is forgotten where it is met.
 */
import { createHash } from 'node:crypto';
import { fieldOf, type Table } from '../../protocol/amqp/table.ts';
import { MillraceError } from '../../protocol/errors.ts';
import { type Clock, type Random } from '../../storage/clock.ts';
import type { Options } from '../../broker/config.ts';
import type { Engine } from '../../broker/engine.ts';
import type { Queue, QueueRegistry } from '../../broker/queues.ts';
import { StateLog } from '../../broker/state-log.ts';
import { type CommittedTogether, stateLogConfig, type TopicRegistry } from '../../broker/topics.ts';
import { topicNameProblem } from '../../broker/topic-names.ts';
import { type Binding, type Exchange, EXCHANGE_TYPES, Exchanges, PREDECLARED } from './exchanges.ts';
import {
  attachedTo,
  checkAttached,
  checkEquivalent,
  checkSameArgument,
  type DeclaredQueue,
  inequivalent,
  queueType,
  settingsOf,
} from './queue-arguments.ts';
import { AmqpError, amqpErrorOf } from './reply.ts';
import { streamTopicConfigs } from './stream-arguments.ts';
import { StreamViews } from './streams.ts';
import { keptTable, Topology, type TopologyEvent } from './topology.ts';

const TOPIC = '__millrace_amqp';
const TOPIC_ID = '00000000-0000-0000-0000-000000000004';
/** RabbitMQ's limit of a body; a batch needs a little more. */
export const BODY_BYTES_MAX = 16_777_216;
const TOPIC_MESSAGE_BYTES_MAX = String(BODY_BYTES_MAX + 1024 * 1024);
/** Names that topics cannot have begin so: no client can declare one, as AMQP's own prefix is reserved. */
const ESCAPED_PREFIX = 'amq.escaped.';
const ESCAPED_CHARACTERS_MAX = 64;
const PREDECLARED_NAMES: ReadonlySet<string> = new Set(PREDECLARED.map(({ name }) => name));

export interface VhostParts {
  readonly engine: Engine;
  readonly clock: Clock;
  readonly random: Random;
  readonly options: Options;
  readonly topics: TopicRegistry;
  readonly queues: QueueRegistry;
}

/** A queue as AMQP declared it. */
export interface AmqpQueue extends DeclaredQueue {
  readonly queue: Queue;
  /** The connection that an exclusive queue belongs to. */
  readonly owner: object | undefined;
  /** Auto-delete: it had a consumer. */
  wasConsumed: boolean;
  /** Of a stream that nobody declared: the only partition it is about. */
  readonly partitionIndex?: number;
}

export class Vhost {
  readonly exchanges = new Exchanges();
  readonly #parts: VhostParts;
  readonly #topology = new Topology();
  readonly #log: StateLog<TopologyEvent>;
  readonly #queues = new Map<string, AmqpQueue>();
  /** Name in the registry → AMQP's, where they differ. */
  readonly #names = new Map<string, string>();
  readonly #streams: StreamViews;

  constructor(parts: VhostParts) {
    this.#parts = parts;
    const partition = parts.engine.openPartition({ topicId: TOPIC_ID, topic: TOPIC, index: 0, config: stateLogConfig });
    const commitBytesMax = Math.floor(parts.options['journal.entry.bytes'] / 2);
    this.#log = new StateLog(parts.engine, partition, this.#topology, parts.clock, commitBytesMax);
    this.#streams = new StreamViews(parts);
  }

  /** Once, after the queues are loaded. */
  async load(): Promise<void> {
    await this.#log.load();
    const { exchanges, queues } = this.#topology;
    // Of queues whose end this log was not told of: else their bindings would be those of a later queue of that name.
    const gone: TopologyEvent[] = [];
    const ended = new Set<string>();
    for (const exchange of exchanges.values()) this.exchanges.declare(exchange);
    for (const { name, queueName, topicId, isAutoDelete, arguments: table } of queues.values()) {
      const queue = this.#kept(queueName, topicId, table);
      if (queue === undefined) {
        gone.push({ kind: 'queueDeleted', name });
        ended.add(name);
        continue;
      }
      this.#add({
        name,
        isDurable: true,
        isExclusive: false,
        isAutoDelete,
        arguments: table,
        queue,
        owner: undefined,
        wasConsumed: false,
      });
    }
    for (const binding of this.#topology.bindings()) {
      const { destination, destinationKind } = binding;
      const isThere =
        destinationKind === 'queue'
          ? !ended.has(destination) && this.find(destination) !== undefined
          : this.exchanges.get(destination) !== undefined;
      if (isThere && this.exchanges.get(binding.source) !== undefined) this.exchanges.bind(binding);
      else gone.push({ kind: 'unbound', binding });
    }
    this.#commit(gone);
    this.#parts.topics.watch({
      deleted: ({ name }) => {
        const known = this.#queues.get(this.#names.get(name) ?? name);
        if (known?.queue.isDeleted) this.#forget(known);
      },
      partitionsAdded: () => {},
    });
  }

  /** Calls back when everything decided so far here and in the registry is durable. */
  whenDurable(callback: () => void): void {
    this.#parts.queues.whenDurable(() => this.#log.whenDurable(callback));
  }

  #commit(events: readonly TopologyEvent[]): void {
    if (events.length > 0) this.#log.commit(events);
  }

  // --- queues ---

  /** What a declaration of the log was about, if it is still that. */
  #kept(queueName: string, topicId: string, table: Table): Queue | undefined {
    const { queues, topics } = this.#parts;
    const topic = topics.getById(topicId);
    if (queueType(table) === 'stream') return topic && queues.stream(topic);
    const queue = queues.get(queueName);
    return queue?.topic === topic ? queue : undefined;
  }

  /**
   * As it is now; one of another door is taken as durable, without arguments, and a topic that nobody has declared as a
   * stream.
   */
  find(name: string): AmqpQueue | undefined {
    const known = this.#queues.get(name);
    if (known !== undefined) {
      if (!known.queue.isDeleted) return known;
      this.#forget(known);
    }
    const queueName = registryName(name);
    const queue = this.#parts.queues.get(queueName);
    if (queue === undefined) return this.#streams.find(name, queueName);
    return this.#add({
      name,
      isDurable: true,
      isExclusive: false,
      isAutoDelete: false,
      arguments: [],
      queue,
      owner: undefined,
      wasConsumed: false,
    });
  }

  /** 404 if it is not there, 405 if it is another connection's. */
  get(name: string, connection: object): AmqpQueue {
    const queue = this.find(name);
    if (queue === undefined) throw new AmqpError('NOT_FOUND', `no queue '${name}' in vhost '/'`);
    checkOwner(queue, connection);
    return queue;
  }

  declareQueue(asked: DeclaredQueue, connection: object): AmqpQueue {
    const { name } = asked;
    const known = this.find(name);
    const topicName = attachedTo(asked);
    // A queue may bear the name of the topic that it is attached to.
    if (known !== undefined && (topicName === undefined || known.partitionIndex === undefined)) {
      checkOwner(known, connection);
      if (known.isExclusive !== asked.isExclusive) throw locked(name);
      checkEquivalent(asked, known);
      checkAttached(topicName, known);
      known.queue.used();
      return known;
    }
    const settings = settingsOf(asked);
    const queueName = registryName(name);
    const table = keptTable(asked.arguments);
    const { isAutoDelete } = asked;
    const isKept = asked.isDurable && !asked.isExclusive;
    try {
      // In one commit: a crash leaves the queue with its arguments, or none.
      const together = (topicId: string): CommittedTogether =>
        isKept
          ? this.#log.part([
              { kind: 'queueDeclared', queue: { name, queueName, topicId, isAutoDelete, arguments: table } },
            ])
          : undefined;
      const queue =
        queueType(table) === 'stream'
          ? this.#makeStream(queueName, table, together)
          : this.#parts.queues.declare({
              name: queueName,
              ...(topicName === undefined ? { kind: 'owned' } : { kind: 'attached', topic: registryName(topicName) }),
              settings,
              family: 'amqp',
              topicConfigs: new Map([['max.message.bytes', TOPIC_MESSAGE_BYTES_MAX]]),
              together,
            });
      return this.#add({
        ...asked,
        arguments: table,
        queue,
        owner: asked.isExclusive ? connection : undefined,
        wasConsumed: false,
      });
    } catch (error) {
      if (error instanceof MillraceError) throw amqpErrorOf(error);
      throw error;
    }
  }

  #makeStream(queueName: string, table: Table, together: (topicId: string) => CommittedTogether): Queue {
    const { topics, queues } = this.#parts;
    const overrides = streamTopicConfigs(table).set('max.message.bytes', TOPIC_MESSAGE_BYTES_MAX);
    return queues.stream(topics.create({ name: queueName, partitionCount: 1, overrides }, together));
  }

  #add(queue: AmqpQueue): AmqpQueue {
    this.#queues.set(queue.name, queue);
    if (queue.queue.name !== queue.name) this.#names.set(queue.queue.name, queue.name);
    return queue;
  }

  /** Ends the queue for every door, with its bindings. */
  deleteQueue(queue: AmqpQueue): void {
    if (queue.partitionIndex !== undefined) {
      const why = `queue '${queue.name}' in vhost '/' is a topic that was not declared here; it is not deleted here, either`;
      throw new AmqpError('ACCESS_REFUSED', why);
    }
    if (!queue.queue.isDeleted) this.#parts.queues.delete(queue.queue);
    if (this.#queues.get(queue.name) === queue) this.#forget(queue);
  }

  #forget(queue: AmqpQueue): void {
    this.#queues.delete(queue.name);
    this.#names.delete(queue.queue.name);
    const events: TopologyEvent[] = [];
    if (this.#topology.queues.has(queue.name)) events.push({ kind: 'queueDeleted', name: queue.name });
    this.#unbindAll('queue', queue.name, events);
    this.#commit(events);
  }

  // --- exchanges ---

  /** 404 if it is not there. */
  exchange(name: string): Exchange {
    const exchange = this.exchanges.get(name);
    if (exchange === undefined) throw new AmqpError('NOT_FOUND', `no exchange '${name}' in vhost '/'`);
    return exchange;
  }

  declareExchange(asked: Omit<Exchange, 'type'> & { readonly type: string }): void {
    const { name } = asked;
    const type = EXCHANGE_TYPES.find((each) => each === asked.type);
    if (type === undefined) throw new AmqpError('PRECONDITION_FAILED', `invalid exchange type '${asked.type}'`);
    const known = this.exchanges.get(name);
    if (known !== undefined) {
      const same = (what: string, received: unknown, current: unknown): void => {
        if (received !== current)
          throw inequivalent('exchange', name, what, `received '${received}' but current is '${current}'`);
      };
      same('type', type, known.type);
      same('durable', asked.isDurable, known.isDurable);
      same('auto_delete', asked.isAutoDelete, known.isAutoDelete);
      same('internal', asked.isInternal, known.isInternal);
      checkSameArgument('exchange', asked, known, 'alternate-exchange');
      return;
    }
    if (name.startsWith('amq.')) {
      throw new AmqpError('ACCESS_REFUSED', `exchange name '${name}' contains reserved prefix 'amq.*'`);
    }
    if (type === 'x-delayed-message' && fieldOf(asked.arguments, 'x-delayed-type') === undefined) {
      throw new AmqpError(
        'PRECONDITION_FAILED',
        "Invalid argument, 'x-delayed-type' must be an existing exchange type",
      );
    }
    const exchange: Exchange = { ...asked, type, arguments: keptTable(asked.arguments) };
    if (exchange.isDurable) this.#commit([{ kind: 'exchangeDeclared', exchange }]);
    this.exchanges.declare(exchange);
  }

  /** No effect if it is not there. 403 for those that are there from the start, 406 if it is used and must not be. */
  deleteExchange(name: string, isIfUnused: boolean): void {
    if (PREDECLARED_NAMES.has(name)) {
      throw new AmqpError('ACCESS_REFUSED', `deletion of system exchange '${name}' in vhost '/' not allowed`);
    }
    if (this.exchanges.get(name) === undefined) return;
    if (isIfUnused && this.exchanges.isUsed(name)) {
      throw new AmqpError('PRECONDITION_FAILED', `exchange '${name}' in vhost '/' in use`);
    }
    const events: TopologyEvent[] = [];
    this.#deleteExchange(name, events);
    this.#commit(events);
  }

  #deleteExchange(name: string, events: TopologyEvent[]): void {
    const exchange = this.exchanges.get(name);
    const gone = this.exchanges.delete(name);
    for (const each of [...(exchange === undefined ? [] : [exchange]), ...gone]) this.#gone(each, events);
  }

  bind(binding: Binding): void {
    const { source, destination, destinationKind } = binding;
    const kept: Binding = { ...binding, arguments: keptTable(binding.arguments) };
    if (!this.exchanges.bind(kept)) return;
    const isDurable =
      this.exchanges.get(source)?.isDurable === true &&
      (destinationKind === 'queue' ? this.#isKept(destination) : this.exchanges.get(destination)?.isDurable === true);
    if (isDurable) this.#commit([{ kind: 'bound', binding: kept }]);
  }

  #isKept(name: string): boolean {
    const queue = this.find(name);
    return queue !== undefined && queue.isDurable && !queue.isExclusive;
  }

  unbind(binding: Binding): void {
    const events: TopologyEvent[] = [];
    this.#unbound(binding, events);
    for (const exchange of this.exchanges.unbind(binding)) this.#gone(exchange, events);
    this.#commit(events);
  }

  #unbindAll(destinationKind: Binding['destinationKind'], destination: string, events: TopologyEvent[]): void {
    for (const binding of this.exchanges.bindingsTo(destinationKind, destination)) this.#unbound(binding, events);
    for (const exchange of this.exchanges.unbindDestination(destinationKind, destination)) this.#gone(exchange, events);
  }

  /** Told for every binding that goes; one that was not durable is not known to the log, which does no harm. */
  #unbound(binding: Binding, events: TopologyEvent[]): void {
    if (this.exchanges.get(binding.source)?.isDurable === true && this.#topology.hasBinding(binding)) {
      events.push({ kind: 'unbound', binding });
    }
  }

  #gone(exchange: Exchange, events: TopologyEvent[]): void {
    if (!exchange.isDurable) return;
    const { name } = exchange;
    events.push({ kind: 'exchangeDeleted', name });
    // The model has dropped them by now.
    for (const binding of this.#topology.bindings()) {
      const isTo = binding.destinationKind === 'exchange' && binding.destination === name;
      if (isTo || binding.source === name) events.push({ kind: 'unbound', binding });
    }
  }

  /** 16 random bytes as RabbitMQ writes them in the names that it makes. */
  generatedName(prefix: string): string {
    return `${prefix}${Buffer.from(this.#parts.random.fill(new Uint8Array(16))).toString('base64url')}`;
  }
}

function locked(name: string): AmqpError {
  return new AmqpError(
    'RESOURCE_LOCKED',
    `cannot obtain exclusive access to locked queue '${name}' in vhost '/'. It could be originally declared on another connection or the exclusive property value does not match that of the original declaration.`,
  );
}

function checkOwner({ name, owner }: AmqpQueue, connection: object): void {
  if (owner !== undefined && owner !== connection) throw locked(name);
}

/** A name that a topic may have is the topic's; others are escaped, with a hash of the whole that keeps them apart. */
function registryName(name: string): string {
  if (topicNameProblem(name) === undefined && !name.startsWith('__') && !name.startsWith(ESCAPED_PREFIX)) return name;
  const hash = createHash('sha256').update(name).digest('hex').slice(0, 32);
  const readable = name.slice(0, ESCAPED_CHARACTERS_MAX).replace(/[^a-zA-Z0-9._-]/g, '_');
  return `${ESCAPED_PREFIX}${readable}-${hash}`;
}

export function refuseDefaultExchange(name: string): void {
  if (name === '') throw new AmqpError('ACCESS_REFUSED', 'operation not permitted on the default exchange');
}
