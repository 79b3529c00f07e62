/**
 * The exchanges of one vhost and where they send a message: a plain synchronous model without I/O. Exchanges only decide
 * into which queues a publish goes; whether a queue is there, and what it does, is not known here.
 *
 * Always true: every binding's source is an exchange that exists; a destination that goes takes its bindings along. The
 * default exchange binds every queue under its own name and has no bindings that could be listed here.
 */
import { type FieldValue, fieldOf, type Table, tableBytes } from '../../protocol/amqp/table.ts';
import { ExchangeCounters } from './counters.ts';
import { TopicPatterns } from './topic-patterns.ts';

export const EXCHANGE_TYPES = [
  'direct',
  'fanout',
  'topic',
  'headers',
  'x-consistent-hash',
  'x-delayed-message',
] as const;
export type ExchangeType = (typeof EXCHANGE_TYPES)[number];

export interface Exchange {
  readonly name: string;
  readonly type: ExchangeType;
  readonly isDurable: boolean;
  readonly isAutoDelete: boolean;
  /** Takes nothing from publishers, only from other exchanges. */
  readonly isInternal: boolean;
  readonly arguments: Table;
}

export interface Binding {
  readonly source: string;
  readonly destination: string;
  readonly destinationKind: 'queue' | 'exchange';
  readonly routingKey: string;
  readonly arguments: Table;
}

/** What routing looks at. */
export interface Routed {
  readonly exchange: string;
  readonly routingKey: string;
  /** CC and BCC (RabbitMQ's sender-selected distribution): routed like the routing key. */
  readonly moreKeys?: readonly string[];
  readonly headers: Table;
}

interface Source {
  readonly exchange: Exchange;
  readonly counters: ExchangeCounters;
  /** By identity text. */
  readonly bindings: Map<string, Binding>;
  readonly byKey: Map<string, Set<Binding>>;
  readonly patterns: TopicPatterns<Binding>;
}

/** What the default exchange, whose name is empty, is called where a name must be given. */
export const DEFAULT_EXCHANGE = 'amq.default';

/** The exchanges every vhost has from the start; nobody may declare them otherwise or delete them. */
export const PREDECLARED: readonly Exchange[] = (
  [
    ['', 'direct'],
    ['amq.direct', 'direct'],
    ['amq.fanout', 'fanout'],
    ['amq.topic', 'topic'],
    ['amq.headers', 'headers'],
    ['amq.match', 'headers'],
    ['amq.rabbitmq.trace', 'topic'],
  ] as const
).map(([name, type]) => ({
  name,
  type,
  isDurable: true,
  isAutoDelete: false,
  isInternal: name === 'amq.rabbitmq.trace',
  arguments: [],
}));

export class Exchanges {
  readonly #sources = new Map<string, Source>();
  /** Kind and name of a destination → identities of its bindings, by source. */
  readonly #destinations = new Map<string, Map<string, Binding>>();
  readonly #alternateOf: (exchange: Exchange) => string | undefined;

  /** `alternateOf` answers the alternate exchange of a policy, if one applies; the exchange's own argument wins. */
  constructor(alternateOf: (exchange: Exchange) => string | undefined = () => undefined) {
    this.#alternateOf = alternateOf;
    for (const exchange of PREDECLARED) this.declare(exchange);
  }

  get(name: string): Exchange | undefined {
    return this.#sources.get(name)?.exchange;
  }

  counters(name: string): ExchangeCounters | undefined {
    return this.#sources.get(name)?.counters;
  }

  *all(): IterableIterator<Exchange> {
    for (const { exchange } of this.#sources.values()) yield exchange;
  }

  *bindings(): IterableIterator<Binding> {
    for (const { bindings } of this.#sources.values()) yield* bindings.values();
  }

  bindingsTo(destinationKind: Binding['destinationKind'], destination: string): readonly Binding[] {
    return [...(this.#destinations.get(destinationKey(destinationKind, destination))?.values() ?? [])];
  }

  /** The caller has checked that there is none of this name. */
  declare(exchange: Exchange): void {
    this.#sources.set(exchange.name, {
      exchange,
      counters: new ExchangeCounters(),
      bindings: new Map(),
      byKey: new Map(),
      patterns: new TopicPatterns(),
    });
  }

  /** True if the exchange is the source of a binding: `if-unused` looks at that. */
  isUsed(name: string): boolean {
    return (this.#sources.get(name)?.bindings.size ?? 0) > 0;
  }

  /** Answers the exchanges that were deleted with it because they delete themselves and lost their last binding. */
  delete(name: string): Exchange[] {
    const source = this.#sources.get(name);
    if (source === undefined) return [];
    for (const binding of [...source.bindings.values()]) this.#remove(source, binding);
    this.#sources.delete(name);
    return this.unbindDestination('exchange', name);
  }

  /** A queue or exchange is gone. Answers the exchanges that deleted themselves after it. */
  unbindDestination(destinationKind: Binding['destinationKind'], destination: string): Exchange[] {
    const gone: Exchange[] = [];
    for (const binding of this.bindingsTo(destinationKind, destination)) gone.push(...this.unbind(binding));
    return gone;
  }

  /** False: it was there already. */
  bind(binding: Binding): boolean {
    const source = this.#sources.get(binding.source);
    if (source === undefined) throw new Error(`binding of exchange '${binding.source}', which does not exist`);
    const identity = bindingIdentity(binding);
    if (source.bindings.has(identity)) return false;
    source.bindings.set(identity, binding);
    const key = destinationKey(binding.destinationKind, binding.destination);
    const ofDestination = this.#destinations.get(key) ?? new Map<string, Binding>();
    this.#destinations.set(key, ofDestination.set(`${binding.source}\0${identity}`, binding));
    const sameKey = source.byKey.get(binding.routingKey) ?? new Set<Binding>();
    source.byKey.set(binding.routingKey, sameKey.add(binding));
    if (routesAs(source.exchange) === 'topic') source.patterns.add(binding.routingKey, binding);
    return true;
  }

  /** Answers the exchanges that deleted themselves because it was their last binding. No effect if it is not there. */
  unbind(binding: Binding): Exchange[] {
    const source = this.#sources.get(binding.source);
    const known = source?.bindings.get(bindingIdentity(binding));
    if (source === undefined || known === undefined) return [];
    this.#remove(source, known);
    if (!source.exchange.isAutoDelete || source.bindings.size > 0) return [];
    return [source.exchange, ...this.delete(source.exchange.name)];
  }

  #remove(source: Source, binding: Binding): void {
    const identity = bindingIdentity(binding);
    source.bindings.delete(identity);
    const sameKey = source.byKey.get(binding.routingKey);
    sameKey?.delete(binding);
    if (sameKey?.size === 0) source.byKey.delete(binding.routingKey);
    if (routesAs(source.exchange) === 'topic') source.patterns.delete(binding.routingKey, binding);
    const key = destinationKey(binding.destinationKind, binding.destination);
    const ofDestination = this.#destinations.get(key);
    ofDestination?.delete(`${binding.source}\0${identity}`);
    if (ofDestination?.size === 0) this.#destinations.delete(key);
  }

  /**
   * The names of the queues that a message goes to, each once; for the default exchange whatever the keys are. Exchanges
   * pass it on to other exchanges, each of which sees it once; one that sends it nowhere gives it to its alternate.
   */
  route(message: Routed): Set<string> {
    const queues = new Set<string>();
    const seen = new Set<string>([message.exchange]);
    const waiting = [message.exchange];
    for (let name = waiting.pop(); name !== undefined; name = waiting.pop()) {
      const source = this.#sources.get(name);
      if (source === undefined) continue;
      let isRouted = false;
      const found = (binding: Binding): void => {
        isRouted = true;
        if (binding.destinationKind === 'queue') queues.add(binding.destination);
        else if (!seen.has(binding.destination)) {
          seen.add(binding.destination);
          waiting.push(binding.destination);
        }
      };
      if (name === '') {
        isRouted = true;
        queues.add(message.routingKey);
        for (const key of message.moreKeys ?? []) queues.add(key);
      } else {
        match(source, message.routingKey, message.headers, found);
        for (const key of message.moreKeys ?? []) match(source, key, message.headers, found);
      }
      if (isRouted) continue;
      const alternate =
        textOf(fieldOf(source.exchange.arguments, 'alternate-exchange')) ?? this.#alternateOf(source.exchange);
      if (alternate !== undefined && !seen.has(alternate)) {
        seen.add(alternate);
        waiting.push(alternate);
      }
    }
    return queues;
  }
}

/** Two bindings are one if everything but the order of their arguments is equal. */
function bindingIdentity({ destination, destinationKind, routingKey, arguments: table }: Binding): string {
  const sorted = [...table].sort(([one], [other]) => (one < other ? -1 : one > other ? 1 : 0));
  return `${destinationKind}\0${destination}\0${routingKey}\0${table.length === 0 ? '' : tableBytes(sorted).toString('latin1')}`;
}

const destinationKey = (kind: Binding['destinationKind'], name: string): string => `${kind}\0${name}`;

/** Text of a string argument. */
function textOf(field: FieldValue | undefined): string | undefined {
  return field?.type === 'S' ? field.value.toString() : undefined;
}

/** `x-delayed-message` routes as the type in its argument `x-delayed-type`. */
function routesAs(exchange: Exchange): ExchangeType {
  if (exchange.type !== 'x-delayed-message') return exchange.type;
  const name = textOf(fieldOf(exchange.arguments, 'x-delayed-type'));
  return EXCHANGE_TYPES.find((type) => type === name && type !== 'x-delayed-message') ?? 'direct';
}

function match(source: Source, routingKey: string, headers: Table, found: (binding: Binding) => void): void {
  switch (routesAs(source.exchange)) {
    case 'direct':
    case 'x-delayed-message':
      source.byKey.get(routingKey)?.forEach(found);
      return;
    case 'fanout':
      source.bindings.forEach(found);
      return;
    case 'topic':
      source.patterns.match(routingKey, found);
      return;
    case 'headers':
      for (const binding of source.bindings.values()) if (headersMatch(binding.arguments, headers)) found(binding);
      return;
    case 'x-consistent-hash': {
      const binding = weighted(source, hashedText(source.exchange, routingKey, headers));
      if (binding !== undefined) found(binding);
      return;
    }
  }
}

/**
 * RabbitMQ's rules for `x-match`: `all` (default) and `any` leave out arguments that start with 'x-', the `-with-x` forms
 * only `x-match` itself. An argument without value asks for presence; else type and value are compared.
 */
function headersMatch(pattern: Table, headers: Table): boolean {
  const mode = textOf(fieldOf(pattern, 'x-match')) ?? 'all';
  const withX = mode.endsWith('-with-x');
  const isAny = mode.startsWith('any');
  for (const [name, expected] of pattern) {
    if (withX ? name === 'x-match' : name.startsWith('x-')) continue;
    const actual = fieldOf(headers, name);
    const isEqual = actual !== undefined && (expected.type === 'V' || sameField(expected, actual));
    if (isEqual && isAny) return true;
    if (!isEqual && !isAny) return false;
  }
  return !isAny;
}

const INTEGERS = new Set(['I', 'i', 's', 'u', 'b', 'B', 'l', 'L']);

function sameField(one: FieldValue, other: FieldValue): boolean {
  // RabbitMQ reads all integers as one type.
  if (INTEGERS.has(one.type) && INTEGERS.has(other.type)) {
    return 'value' in one && 'value' in other && Number(one.value) === Number(other.value);
  }
  return one.type === other.type && tableBytes([['', one]]).equals(tableBytes([['', other]]));
}

/** What the message is spread by: `hash-header`, or the routing key. */
function hashedText(exchange: Exchange, routingKey: string, headers: Table): string {
  const header = textOf(fieldOf(exchange.arguments, 'hash-header'));
  if (header === undefined) return routingKey;
  const value = fieldOf(headers, header);
  return value === undefined ? '' : tableBytes([['', value]]).toString('latin1');
}

/**
 * The binding that the text belongs to: highest random weight (rendezvous) hashing, so that a binding that comes or goes
 * moves only its own share. A binding's routing key is its weight.
 */
function weighted(source: Source, text: string): Binding | undefined {
  let best: Binding | undefined;
  let bestScore = Number.NEGATIVE_INFINITY;
  for (const [identity, binding] of source.bindings) {
    const weight = Number(binding.routingKey);
    if (!(weight > 0)) continue;
    const uniform = (fnv1a(`${text}\0${identity}`) + 0.5) / 2 ** 32;
    const score = -weight / Math.log(uniform);
    if (score > bestScore) {
      best = binding;
      bestScore = score;
    }
  }
  return best;
}

/** FNV-1a with the finishing steps of murmur3, which spread its weak low bits. */
function fnv1a(text: string): number {
  let hash = 0x811c9dc5;
  for (let index = 0; index < text.length; index++) hash = Math.imul(hash ^ text.charCodeAt(index), 0x01000193);
  hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b);
  hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35);
  return (hash ^ (hash >>> 16)) >>> 0;
}
