/**
 * One vhost: its exchanges and bindings, and its queues as AMQP sees them. Queues themselves are the registry's
 * (`broker/queues.ts`); in '/' one that another door declared is there, too, durable and without arguments. What applies
 * to a queue is its arguments and the policies of the vhost, which change while it is there.
 *
 * Always true: what is durable is in the log of `topology.ts` before it is in memory; an answer that tells of it waits
 * for `whenDurable`. A stored queue whose topic is gone or is another one by now is forgotten where it is met.
 */
import { fieldOf, type Table, textField } from '../../protocol/amqp/table.ts';
import { MillraceError } from '../../protocol/errors.ts';
import type { Clock, Random } from '../../storage/clock.ts';
import type { Directory } from '../../broker/directory.ts';
import type { EffectivePolicy } from '../../broker/policies.ts';
import type { Queue, QueueRegistry } from '../../broker/queues.ts';
import type { CommittedTogether, TopicRegistry } from '../../broker/topics.ts';
import { MessageCounters } from './counters.ts';
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
import { policyChanges, settingsInForce, streamConfigsInForce } from './policy-settings.ts';
import { DEFAULT_VHOST, escapedName, registryName } from './queue-names.ts';
import { AmqpError, amqpErrorOf } from './reply.ts';
import { StreamViews } from './streams.ts';
import { keptTable, type TopologyChange, type VhostTopology } from './topology.ts';

/** RabbitMQ's limit of a body; a batch needs a little more. */
export const BODY_BYTES_MAX = 16_777_216;
const TOPIC_MESSAGE_BYTES_MAX = String(BODY_BYTES_MAX + 1024 * 1024);
/** Queues that a change of policies reaches in one turn: some 30 ms. */
const POLICY_QUEUES = 500;
const PREDECLARED_NAMES: ReadonlySet<string> = new Set(PREDECLARED.map(({ name }) => name));

/** Where a vhost keeps what is durable. */
export interface VhostStore {
  readonly kept: VhostTopology;
  commit(changes: readonly TopologyChange[]): void;
  part(changes: readonly TopologyChange[]): CommittedTogether;
  whenDurable(callback: () => void): void;
}

export interface VhostParts {
  readonly clock: Clock;
  readonly random: Random;
  readonly directory: Directory;
  readonly topics: TopicRegistry;
  readonly queues: QueueRegistry;
  /** Which vhost a queue is in, if it is not '/'. */
  readonly vhostOf: WeakMap<Queue, Vhost>;
}

/** A queue as AMQP declared it. */
export interface AmqpQueue extends DeclaredQueue {
  readonly queue: Queue;
  /** The connection that an exclusive queue belongs to. */
  readonly owner: object | undefined;
  /** Auto-delete: it had a consumer. */
  wasConsumed: boolean;
  readonly counters: MessageCounters;
  /** Of a stream that nobody declared: the only partition it is about. */
  readonly partitionIndex?: number;
}

export class Vhost {
  readonly name: string;
  readonly exchanges: Exchanges;
  /** Of the channels that have ended. */
  readonly endedCounters = new MessageCounters();
  readonly #parts: VhostParts;
  readonly #store: VhostStore;
  readonly #queues = new Map<string, AmqpQueue>();
  /** Name in the registry → AMQP's, where they differ. */
  readonly #names = new Map<string, string>();
  readonly #streams: StreamViews;
  /** Of the policies that are being applied. */
  #policyRound = 0;

  constructor(name: string, store: VhostStore, parts: VhostParts) {
    this.name = name;
    this.#store = store;
    this.#parts = parts;
    this.#streams = new StreamViews(parts);
    this.exchanges = new Exchanges((exchange) => this.#alternateByPolicy(exchange));
  }

  /** What the log has of it. Once, after the queues are loaded. */
  load(): void {
    const { exchanges, queues } = this.#store.kept;
    // Of queues whose end this log was not told of: else their bindings would be those of a later queue of that name.
    const gone: TopologyChange[] = [];
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
        vhost: this.name,
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
    for (const binding of this.#store.kept.bindings()) {
      const { destination, destinationKind } = binding;
      const isThere =
        destinationKind === 'queue'
          ? !ended.has(destination) && this.find(destination) !== undefined
          : this.exchanges.get(destination) !== undefined;
      if (isThere && this.exchanges.get(binding.source) !== undefined) this.exchanges.bind(binding);
      else gone.push({ kind: 'unbound', binding });
    }
    this.#commit(gone);
    this.applyPolicies();
  }

  /** Nothing more happens by itself. */
  stop(): void {
    this.#policyRound++;
  }

  /** A topic is gone. */
  topicDeleted(topicName: string): void {
    const known = this.#queues.get(this.#names.get(topicName) ?? topicName);
    if (known?.queue.isDeleted) this.#forget(known);
  }

  /** The vhost is gone: ends everything in it. */
  end(): void {
    this.stop();
    const { kept } = this.#store;
    for (const queue of [...this.#queues.values()]) {
      // What another door declared is not this vhost's to end.
      const isOurs = kept.queues.has(queue.name) || !queue.isDurable || queue.isExclusive;
      if (isOurs) this.#end(queue);
    }
    const events: TopologyChange[] = [];
    for (const exchange of [...this.exchanges.all()]) {
      if (!PREDECLARED_NAMES.has(exchange.name)) this.#deleteExchange(exchange.name, events);
    }
    this.#commit(events);
    // What is left is bindings between exchanges that were there from the start.
    this.#commit([...kept.bindings()].map((binding) => ({ kind: 'unbound', binding })));
  }

  /** Calls back when everything decided so far here and in the registry is durable. */
  whenDurable(callback: () => void): void {
    this.#parts.queues.whenDurable(() => this.#store.whenDurable(callback));
  }

  #commit(changes: readonly TopologyChange[]): void {
    if (changes.length > 0) this.#store.commit(changes);
  }

  // --- policies ---

  /** What is in force for a queue of this type and name. */
  queuePolicy({ name, arguments: table }: Pick<DeclaredQueue, 'name' | 'arguments'>): EffectivePolicy {
    const type = queueType(table);
    const known = type === 'quorum' || type === 'stream' ? type : 'classic';
    return this.#parts.directory.policies.effective({ kind: 'queue', vhost: this.name, name, type: known });
  }
  exchangePolicy({ name }: Pick<Exchange, 'name'>): EffectivePolicy {
    return this.#parts.directory.policies.effective({ kind: 'exchange', vhost: this.name, name });
  }
  #alternateByPolicy(exchange: Exchange): string | undefined {
    const name = this.exchangePolicy(exchange).definition['alternate-exchange'];
    return typeof name === 'string' ? name : undefined;
  }

  /** Policies have changed: gives every queue the settings that are now in force, some at once, others soon. */
  applyPolicies(): void {
    const round = ++this.#policyRound;
    const waiting = [...this.queues()];
    const step = (): void => {
      if (round !== this.#policyRound) return;
      for (const queue of waiting.splice(0, POLICY_QUEUES)) this.#applyPolicy(queue);
      if (waiting.length > 0) this.#parts.clock.after(0, step);
    };
    step();
  }

  #applyPolicy(declared: AmqpQueue): void {
    const { queues, topics } = this.#parts;
    const { queue } = declared;
    if (queue.isDeleted || declared.partitionIndex !== undefined) return;
    const { definition } = this.queuePolicy(declared);
    if (queueType(declared.arguments) === 'stream') {
      const configs = new Map([...queue.topic.overrides, ...streamConfigsInForce(declared.arguments, definition)]);
      const isSame = [...configs].every(([name, value]) => queue.topic.overrides.get(name) === value);
      if (!isSame) topics.configure(queue.topic, configs);
      return;
    }
    const changes = policyChanges(queue, settingsInForce(declared, definition));
    if (changes.size > 0) queues.configure(queue, changes, 'amqp');
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
    // What other doors declare is in '/' only.
    if (this.name !== DEFAULT_VHOST) return undefined;
    const queueName = registryName(this.name, name);
    const queue = this.#parts.queues.get(queueName);
    if (queue === undefined) return this.#streams.find(name, queueName);
    return this.#add({
      vhost: this.name,
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

  /** What AMQP calls a queue of the registry. */
  nameOf(queue: Queue): string {
    return this.#names.get(queue.name) ?? queue.name;
  }

  /** All of them, also those that another door declared. */
  *queues(): IterableIterator<AmqpQueue> {
    if (this.name === DEFAULT_VHOST) {
      for (const queue of this.#parts.queues.all()) {
        if (!this.#parts.vhostOf.has(queue) && !this.#isKnown(queue)) this.find(this.nameOf(queue));
      }
    }
    for (const each of this.#queues.values()) if (!each.queue.isDeleted) yield each;
  }
  #isKnown(queue: Queue): boolean {
    return this.#queues.get(this.nameOf(queue))?.queue === queue;
  }

  /** 404 if it is not there, 405 if it is another connection's. */
  get(name: string, connection: object): AmqpQueue {
    const queue = this.find(name);
    if (queue === undefined) throw new AmqpError('NOT_FOUND', `no queue '${name}' in vhost '${this.name}'`);
    checkOwner(queue, connection);
    return queue;
  }

  declareQueue(from: Omit<DeclaredQueue, 'vhost'>, connection: object): AmqpQueue {
    const asked = this.#withDefaultType({ ...from, vhost: this.name });
    const { name } = asked;
    const known = this.find(name);
    const topicName = attachedTo(asked);
    // A queue may bear the name of the topic that it is attached to.
    if (known !== undefined && (topicName === undefined || known.partitionIndex === undefined)) {
      checkOwner(known, connection);
      if (known.isExclusive !== asked.isExclusive) throw locked(known);
      checkEquivalent(asked, known);
      checkAttached(topicName && registryName(this.name, topicName), known);
      known.queue.used();
      return known;
    }
    settingsOf(asked);
    this.#checkRoom(name);
    const queueName = this.#newName(name);
    const table = keptTable(asked.arguments);
    const { definition } = this.queuePolicy(asked);
    const { isAutoDelete } = asked;
    const isKept = asked.isDurable && !asked.isExclusive;
    try {
      // In one commit: a crash leaves the queue with its arguments, or none.
      const together = (topicId: string): CommittedTogether =>
        isKept
          ? this.#store.part([
              { kind: 'queueDeclared', queue: { name, queueName, topicId, isAutoDelete, arguments: table } },
            ])
          : undefined;
      const queue =
        queueType(table) === 'stream'
          ? this.#makeStream(queueName, streamConfigsInForce(table, definition), together)
          : this.#parts.queues.declare({
              name: queueName,
              ...(topicName === undefined
                ? { kind: 'owned' }
                : { kind: 'attached', topic: registryName(this.name, topicName) }),
              settings: settingsInForce(asked, definition),
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

  /** RabbitMQ's rule: a queue that could be of the vhost's default type is, unless it says another. */
  #withDefaultType(asked: DeclaredQueue): DeclaredQueue {
    const type = this.#parts.directory.vhosts.get(this.name)?.defaultQueueType ?? '';
    const isPlain = asked.isDurable && !asked.isExclusive && !asked.isAutoDelete;
    if (type === '' || type === 'classic' || !isPlain || fieldOf(asked.arguments, 'x-queue-type')) return asked;
    return { ...asked, arguments: [...asked.arguments, ['x-queue-type', textField(type)]] };
  }

  /** 406 if the vhost may not have another queue. */
  #checkRoom(name: string): void {
    const max = this.#parts.directory.vhosts.limit(this.name, 'max-queues');
    if (max === undefined || [...this.queues()].length < max) return;
    const why = `cannot declare queue '${name}': queue limit in vhost '${this.name}' (${max}) is reached`;
    throw new AmqpError('PRECONDITION_FAILED', why);
  }

  /** What a new queue is called in the registry: a topic name may be taken by one that differs only in '.' and '_'. */
  #newName(name: string): string {
    const plain = registryName(this.name, name);
    return this.#parts.topics.collides(plain) ? escapedName(this.name, name) : plain;
  }

  #makeStream(
    queueName: string,
    configs: ReadonlyMap<string, string>,
    together: (topicId: string) => CommittedTogether,
  ): Queue {
    const { topics, queues } = this.#parts;
    const overrides = new Map(configs).set('max.message.bytes', TOPIC_MESSAGE_BYTES_MAX);
    return queues.stream(topics.create({ name: queueName, partitionCount: 1, overrides }, together));
  }

  #add(from: Omit<AmqpQueue, 'counters'>): AmqpQueue {
    const queue = { ...from, counters: new MessageCounters() };
    this.#queues.set(queue.name, queue);
    if (this.name !== DEFAULT_VHOST) this.#parts.vhostOf.set(queue.queue, this);
    if (queue.queue.name !== queue.name) this.#names.set(queue.queue.name, queue.name);
    return queue;
  }

  /** Ends the queue for every door, with its bindings. */
  deleteQueue(queue: AmqpQueue): void {
    if (queue.partitionIndex !== undefined) {
      const why = `queue '${queue.name}' in vhost '${this.name}' is a topic that was not declared here; it is not deleted here, either`;
      throw new AmqpError('ACCESS_REFUSED', why);
    }
    this.#end(queue);
  }

  #end(queue: AmqpQueue): void {
    if (!queue.queue.isDeleted) this.#parts.queues.delete(queue.queue);
    if (this.#queues.get(queue.name) === queue) this.#forget(queue);
  }

  #forget(queue: AmqpQueue): void {
    this.#queues.delete(queue.name);
    this.#names.delete(queue.queue.name);
    const events: TopologyChange[] = [];
    if (this.#store.kept.queues.has(queue.name)) events.push({ kind: 'queueDeleted', name: queue.name });
    this.#unbindAll('queue', queue.name, events);
    this.#commit(events);
  }

  // --- exchanges ---

  /** 404 if it is not there. */
  exchange(name: string): Exchange {
    const exchange = this.exchanges.get(name);
    if (exchange === undefined) throw new AmqpError('NOT_FOUND', `no exchange '${name}' in vhost '${this.name}'`);
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
          throw inequivalent(
            'exchange',
            { vhost: this.name, name },
            what,
            `received '${received}' but current is '${current}'`,
          );
      };
      same('type', type, known.type);
      same('durable', asked.isDurable, known.isDurable);
      same('auto_delete', asked.isAutoDelete, known.isAutoDelete);
      same('internal', asked.isInternal, known.isInternal);
      checkSameArgument('exchange', { ...asked, vhost: this.name }, known, 'alternate-exchange');
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

  /** Not one of those that are there from the start. No effect if it is not there; 406 if it is used and must not be. */
  deleteExchange(name: string, isIfUnused: boolean): void {
    if (this.exchanges.get(name) === undefined) return;
    if (isIfUnused && this.exchanges.isUsed(name)) {
      throw new AmqpError('PRECONDITION_FAILED', `exchange '${name}' in vhost '${this.name}' in use`);
    }
    const events: TopologyChange[] = [];
    this.#deleteExchange(name, events);
    this.#commit(events);
  }

  #deleteExchange(name: string, events: TopologyChange[]): void {
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
    const events: TopologyChange[] = [];
    this.#unbound(binding, events);
    for (const exchange of this.exchanges.unbind(binding)) this.#gone(exchange, events);
    this.#commit(events);
  }

  #unbindAll(destinationKind: Binding['destinationKind'], destination: string, events: TopologyChange[]): void {
    for (const binding of this.exchanges.bindingsTo(destinationKind, destination)) this.#unbound(binding, events);
    for (const exchange of this.exchanges.unbindDestination(destinationKind, destination)) this.#gone(exchange, events);
  }

  /** Told for every binding that goes; one that was not durable is not known to the log, which does no harm. */
  #unbound(binding: Binding, events: TopologyChange[]): void {
    if (this.exchanges.get(binding.source)?.isDurable === true && this.#store.kept.hasBinding(binding)) {
      events.push({ kind: 'unbound', binding });
    }
  }

  #gone(exchange: Exchange, events: TopologyChange[]): void {
    if (!exchange.isDurable) return;
    const { name } = exchange;
    events.push({ kind: 'exchangeDeleted', name });
    // The model has dropped them by now.
    for (const binding of this.#store.kept.bindings()) {
      const isTo = binding.destinationKind === 'exchange' && binding.destination === name;
      if (isTo || binding.source === name) events.push({ kind: 'unbound', binding });
    }
  }

  /** 16 random bytes as RabbitMQ writes them in the names that it makes. */
  generatedName(prefix: string): string {
    return `${prefix}${Buffer.from(this.#parts.random.fill(new Uint8Array(16))).toString('base64url')}`;
  }
}

function locked({ vhost, name }: DeclaredQueue): AmqpError {
  return new AmqpError(
    'RESOURCE_LOCKED',
    `cannot obtain exclusive access to locked queue '${name}' in vhost '${vhost}'. It could be originally declared on another connection or the exclusive property value does not match that of the original declaration.`,
  );
}

function checkOwner(queue: AmqpQueue, connection: object): void {
  if (queue.owner !== undefined && queue.owner !== connection) throw locked(queue);
}

export function refuseDefaultExchange(name: string): void {
  if (name === '') throw new AmqpError('ACCESS_REFUSED', 'operation not permitted on the default exchange');
}

export function refusePredeclared(vhost: string, name: string): void {
  if (!PREDECLARED_NAMES.has(name)) return;
  throw new AmqpError('ACCESS_REFUSED', `deletion of system exchange '${name}' in vhost '${vhost}' not allowed`);
}
