/**
 * One channel: what a client asks of exchanges and queues, what it publishes, and what it is delivered. Answers that tell
 * of a change leave when the change is durable; until then the channel's later frames are parked.
 *
 * Always true: an error of the channel ends it, with everything that was not acked back in its place; frames that were on
 * their way are then ignored up to the peer's close-ok.
 */
import { FRAME_BODY, FRAME_HEADER } from '../../protocol/amqp/frame.ts';
import type {
  BasicConsume,
  BasicGet,
  BasicPublish,
  ExchangeDeclare,
  Method,
  MethodInit,
  QueueDeclare,
} from '../../protocol/amqp/methods.ts';
import { type Properties, readContentHeader, readProperties, writeProperties } from '../../protocol/amqp/properties.ts';
import { fieldOf, NO_TABLE, type Table, clippedToShortString } from '../../protocol/amqp/table.ts';
import { Reader } from '../../protocol/bytes.ts';
import { MillraceError } from '../../protocol/errors.ts';
import type { AcquiredRun } from '../../broker/queue.ts';
import type { QueuedRecord } from '../../broker/queue-reader.ts';
import type { Queue } from '../../broker/queues.ts';
import { AckTimeout } from './ack-timeout.ts';
import type { AmqpConnection } from './connection.ts';
import { MessageCounters } from './counters.ts';
import { Deliveries, type Subscription } from './deliveries.ts';
import { DeliveryWriter } from './delivery-writer.ts';
import { REPLY_TO, type Reply } from './direct-replies.ts';
import { deliveryOf, type Message, moreKeys, recordOf, withoutBcc } from './properties.ts';
import { Confirms } from './publisher.ts';
import { isInteger } from './argument-fields.ts';
import { queueType } from './queue-arguments.ts';
import { AmqpError } from './reply.ts';
import { type Place, Transaction } from './transaction.ts';
import { type StreamRequest, streamRequestOf } from './stream-arguments.ts';
import { readyCount } from './streams.ts';
import { keptTable } from './topology.ts';
import { type AmqpQueue, BODY_BYTES_MAX, refuseDefaultExchange, refusePredeclared } from './vhost.ts';

const X_MATCHES = new Set(['all', 'any', 'all-with-x', 'any-with-x']);
/** Looks at a queue whose log is being read, until it is known what is there. */
const LOOKS_MAX = 10_000;
const LOOK_MS = 1;
const EXPIRATION_MS_MAX = 10_000_000_000_000;

/** A publish on its way. */
interface Content {
  readonly publish: BasicPublish;
  properties: Buffer | undefined;
  bodyBytes: number;
  receivedBytes: number;
  readonly pieces: Buffer[];
}

export class Channel {
  readonly #connection: AmqpConnection;
  readonly number: number;
  /** Answers that wait for the disk: until then its frames are parked. */
  waits = 0;
  /** Frames that came meanwhile. */
  parked: { readonly type: number; readonly payload: Buffer }[] = [];
  readonly counters = new MessageCounters();
  readonly #deliveries: Deliveries;
  readonly #writer: DeliveryWriter;
  readonly #ackTimeout: AckTimeout;
  #confirms: Confirms | undefined;
  #transaction: Transaction | undefined;
  /** Its consumer of direct replies, and the name that leads there. */
  #replies: { readonly tag: string; readonly name: string } | undefined;
  #content: Content | undefined;
  /** Of later consumers. */
  #prefetch = 0;
  /** What an empty queue name stands for. */
  #lastQueue: string | undefined;
  /** It has failed; the peer's close-ok is awaited. */
  isClosing = false;
  #isEnded = false;
  /** For attached queues: publishes go round their partitions. */
  #turn = 0;

  constructor(connection: AmqpConnection, number: number) {
    this.#connection = connection;
    this.number = number;
    const { queues, reader } = connection.parts;
    this.#writer = new DeliveryWriter(connection.output, number, connection.frameBytesMax);
    this.#deliveries = new Deliveries({
      writer: this.#writer,
      counters: this.counters,
      queues,
      reader,
      get hasRoom() {
        return connection.hasRoom;
      },
      cancelled: (subscription) => this.#queueEnded(subscription),
      schedule: () => connection.schedule(),
    });
    this.#ackTimeout = this.#newAckTimeout();
  }

  #newAckTimeout(): AckTimeout {
    const deliveries = this.#deliveries;
    const { clock, options } = this.#connection.parts;
    const timeoutOf = ({ settings }: Queue): number => {
      const { 'consumer.timeout.ms': ofQueue } = settings;
      return ofQueue < 0 ? options['amqp.consumer.timeout.ms'] : ofQueue;
    };
    return new AckTimeout({
      clock,
      get waitingCount() {
        return deliveries.unackedCount;
      },
      get lastTag() {
        return deliveries.lastTag;
      },
      *waiting() {
        for (const { queue, tag } of deliveries.unackedQueues()) yield { tag, timeoutMs: timeoutOf(queue) };
      },
      timedOut: (timeoutMs) => {
        const text =
          `delivery acknowledgement on channel ${this.number} timed out. Timeout value used: ${timeoutMs} ms. ` +
          'This timeout value can be configured, see consumers doc guide to learn more';
        this.fail(new AmqpError('PRECONDITION_FAILED', text), { classId: 0, methodId: 0 });
      },
    });
  }

  #send(method: MethodInit): void {
    this.#connection.send(this.number, method);
  }

  // --- what is shown of it ---

  get connection(): AmqpConnection {
    return this.#connection;
  }
  get prefetch(): number {
    return this.#prefetch;
  }
  get globalPrefetch(): number {
    return this.#deliveries.globalPrefetch;
  }
  get isConfirming(): boolean {
    return this.#confirms !== undefined;
  }
  get isTransactional(): boolean {
    return this.#transaction !== undefined;
  }
  get unackedCount(): number {
    return this.#deliveries.unackedCount;
  }
  get unconfirmedCount(): number {
    return this.#confirms === undefined ? 0 : this.#confirms.lastTag - this.#confirmedTag;
  }
  subscriptions(): IterableIterator<Subscription> {
    return this.#deliveries.subscriptions();
  }

  // --- the end of it ---

  /** Ends the channel with a reply code. `cause`: what it is about, if not the newest method. */
  fail(error: AmqpError, cause = this.#connection.currentMethod): void {
    if (this.#isEnded) return;
    this.isClosing = true;
    this.end();
    const { replyCode, message } = error;
    const replyText = clippedToShortString(message);
    this.#send({ method: 'channel.close', replyCode, replyText, ...cause });
  }

  closeAsked(): void {
    this.#connection.publisher.flush();
    this.end();
    this.#connection.channelClosed(this);
    this.#send({ method: 'channel.close-ok' });
  }

  /** Gives everything back; says nothing to the peer. */
  end(): void {
    if (this.#isEnded) return;
    this.#isEnded = true;
    this.#content = undefined;
    this.#connection.channelEnded(this);
    this.#vhost.endedCounters.add(this.counters);
    this.#endReplies();
    this.#ackTimeout.close();
    this.#transaction = undefined;
    const subscriptions = [...this.#deliveries.subscriptions()];
    this.#deliveries.close();
    for (const { amqpQueue } of subscriptions) this.#deleteIfUnused(amqpQueue);
  }

  /** Once in a turn: what was decided goes to the queues, and consumers say what they take. */
  endOfTurn(): void {
    if (this.#isEnded) return;
    this.#deliveries.settle();
    this.#deliveries.refill();
    this.#ackTimeout.watch();
  }

  // --- methods ---

  #expectMethod(name: string): void {
    if (this.#content === undefined) return;
    const part = this.#content.properties === undefined ? 'header' : 'body';
    throw new AmqpError('UNEXPECTED_FRAME', `expected content ${part} for class 60, got ${name} instead`);
  }

  /** `basic.ack`. */
  onAck(deliveryTag: number, isMultiple: boolean): void {
    this.#expectMethod('basic.ack');
    this.#acknowledge(deliveryTag, isMultiple, 'accept');
  }

  onMethod(method: Method): void {
    this.#expectMethod(method.method);
    switch (method.method) {
      case 'basic.publish':
        if (method.immediate) throw new AmqpError('NOT_IMPLEMENTED', 'immediate=true');
        this.#content = { publish: method, properties: undefined, bodyBytes: 0, receivedBytes: 0, pieces: [] };
        return;
      case 'basic.nack':
        return this.#acknowledge(method.deliveryTag, method.multiple, method.requeue ? 'release' : 'reject');
      case 'basic.reject':
        return this.#acknowledge(method.deliveryTag, false, method.requeue ? 'release' : 'reject');
      case 'basic.consume':
        return this.#consume(method);
      case 'basic.cancel':
        return this.#cancel(method.consumerTag, method.noWait);
      case 'basic.get':
        return this.#get(method);
      case 'basic.qos':
        if (method.prefetchSize !== 0)
          throw new AmqpError('NOT_IMPLEMENTED', `prefetch_size!=0 (${method.prefetchSize})`);
        if (method.global) this.#deliveries.globalPrefetch = method.prefetchCount;
        else this.#prefetch = method.prefetchCount;
        this.#connection.schedule();
        return this.#send({ method: 'basic.qos-ok' });
      case 'basic.recover':
      case 'basic.recover-async':
        if (!method.requeue) throw new AmqpError('NOT_IMPLEMENTED', 'requeue=false');
        this.#deliveries.recover();
        if (method.method === 'basic.recover') this.#send({ method: 'basic.recover-ok' });
        return;
      case 'queue.declare':
        return this.#declareQueue(method);
      case 'queue.bind':
      case 'queue.unbind':
      case 'exchange.bind':
      case 'exchange.unbind':
        return this.#changeBinding(method);
      case 'queue.purge':
        return this.#purge(this.#readable(method.queue), method.noWait);
      case 'queue.delete':
        return this.#deleteQueue(method);
      case 'exchange.declare':
        return this.#declareExchange(method);
      case 'exchange.delete':
        refuseDefaultExchange(method.exchange);
        refusePredeclared(this.#vhost.name, method.exchange);
        this.#connection.mayUseExchange('configure', method.exchange);
        this.#vhost.deleteExchange(method.exchange, method.ifUnused);
        return this.#answer({ method: 'exchange.delete-ok' }, method.noWait);
      case 'confirm.select':
        if (this.#transaction !== undefined) {
          throw new AmqpError('PRECONDITION_FAILED', 'cannot switch from tx to confirm mode');
        }
        this.#confirms ??= new Confirms({ confirm: (lastTag, failed) => this.#confirm(lastTag, failed) });
        if (!method.noWait) this.#send({ method: 'confirm.select-ok' });
        return;
      case 'channel.flow':
        if (!method.active) throw new AmqpError('NOT_IMPLEMENTED', 'active=false');
        return this.#send({ method: 'channel.flow-ok', active: true });
      case 'access.request':
        return this.#send({ method: 'access.request-ok', ticket: 1 });
      case 'basic.cancel-ok':
      case 'channel.flow-ok':
        return;
      case 'tx.select':
        if (this.#confirms !== undefined) {
          throw new AmqpError('PRECONDITION_FAILED', 'cannot switch from confirm to tx mode');
        }
        this.#transaction ??= new Transaction(this.#connection.parts.options['journal.entry.bytes'] / 2);
        return this.#send({ method: 'tx.select-ok' });
      case 'tx.commit':
        return this.#commit(this.#begun());
      case 'tx.rollback':
        this.#begun().rollback();
        return this.#send({ method: 'tx.rollback-ok' });
      default:
        throw new AmqpError('COMMAND_INVALID', `${method.method} is not a client's to send on a channel`);
    }
  }

  #acknowledge(tag: number, isMultiple: boolean, kind: 'accept' | 'release' | 'reject'): void {
    if (this.#transaction === undefined) this.#deliveries.acknowledge(tag, isMultiple, kind);
    else this.#transaction.acknowledge(this.#deliveries, tag, isMultiple, kind);
  }

  #begun(): Transaction {
    if (this.#transaction !== undefined) return this.#transaction;
    throw new AmqpError('PRECONDITION_FAILED', 'channel is not transactional');
  }

  #commit(transaction: Transaction): void {
    const { queues } = this.#connection.parts;
    const commit = (): void => {
      this.#connection.publisher.flush();
      for (const message of transaction.commit(queues, this.#deliveries)) this.#return(message);
      this.#connection.schedule();
      this.#answer({ method: 'tx.commit-ok' }, false);
    };
    const loading = transaction.loading();
    if (loading.length === 0) return commit();
    this.#connection.wait(this, (done) => {
      void Promise.allSettled(loading).then(() =>
        done(() => {
          if (!this.#isEnded) commit();
        }),
      );
    });
  }

  get #vhost() {
    return this.#connection.vhost;
  }

  /** When everything decided so far is durable. */
  #answer(method: MethodInit, noWait: boolean): void {
    this.#afterDurable(() => {
      if (!noWait) this.#send(method);
    });
  }

  /** Also what this connection has published before; the channel's frames wait. */
  #afterDurable(then: () => void): void {
    const { publisher, parts } = this.#connection;
    publisher.flush();
    this.#connection.wait(this, (done) => {
      parts.engine.whenDurable(publisher.position, () => {
        this.#vhost.whenDurable(() =>
          done(() => {
            if (!this.#isEnded) then();
          }),
        );
      });
    });
  }

  /** As `#afterDurable`, and the queue knows what is in its log. */
  #afterKnown(queue: Queue, then: () => void): void {
    const { publisher, parts } = this.#connection;
    this.#deliveries.settle();
    publisher.flush();
    this.#connection.wait(this, (done) => {
      let looks = 0;
      const look = (): void => {
        const isKnown = queue.isDeleted || queue.partitions().every(({ isReady }) => isReady);
        if (isKnown || ++looks > LOOKS_MAX) {
          done(() => {
            if (!this.#isEnded) then();
          });
        } else parts.clock.after(LOOK_MS, look);
      };
      parts.engine.whenDurable(publisher.position, look);
    });
  }

  #named(name: string): string {
    if (name !== '') return name;
    if (this.#lastQueue === undefined) throw new AmqpError('NOT_FOUND', 'no previously declared queue');
    return this.#lastQueue;
  }
  #queue(name: string): AmqpQueue {
    return this.#vhost.get(this.#named(name), this.#connection);
  }

  /** As `#queue`, for who may take from it. */
  #readable(name: string): AmqpQueue {
    this.#connection.mayUseQueue('read', this.#named(name));
    return this.#queue(name);
  }

  // --- queues ---

  #declareQueue({
    queue: asked,
    passive,
    durable,
    exclusive,
    autoDelete,
    noWait,
    arguments: table,
  }: QueueDeclare): void {
    let queue: AmqpQueue;
    const { replies } = this.#connection.parts;
    if (replies.isName(asked)) {
      if (asked !== REPLY_TO && replies.find(asked) === undefined) {
        throw new AmqpError('NOT_FOUND', `no queue '${asked}' in vhost '${this.#vhost.name}'`);
      }
      if (!noWait) this.#send({ method: 'queue.declare-ok', queue: asked, messageCount: 0, consumerCount: 1 });
      return;
    }
    if (passive) {
      queue = this.#vhost.get(asked, this.#connection);
    } else {
      const name = asked === '' ? this.#vhost.generatedName('amq.gen-') : asked;
      if (asked.startsWith('amq.') && this.#vhost.find(asked) === undefined) {
        throw new AmqpError('ACCESS_REFUSED', `queue name '${asked}' contains reserved prefix 'amq.*'`);
      }
      this.#connection.mayUseQueue('configure', name);
      if (this.#vhost.find(name) === undefined) this.#mayDeadLetter(name, table);
      queue = this.#vhost.declareQueue(
        { name, isDurable: durable, isExclusive: exclusive, isAutoDelete: autoDelete, arguments: table },
        this.#connection,
      );
      if (exclusive) this.#connection.exclusiveQueues.add(queue);
    }
    this.#lastQueue = queue.name;
    const answer = (): void =>
      this.#afterKnown(queue.queue, () => {
        if (noWait) return;
        const ready = readyCount(queue);
        const consumerCount = queue.queue.consumerCount;
        this.#send({ method: 'queue.declare-ok', queue: queue.name, messageCount: ready, consumerCount });
      });
    if (passive) answer();
    else this.#afterDurable(answer);
  }

  /** Who lets a new queue send its dead letters somewhere, or take from a topic, must be allowed to do the same. */
  #mayDeadLetter(name: string, table: Table): void {
    const target = fieldOf(table, 'x-dead-letter-exchange');
    if (target?.type === 'S') {
      this.#connection.mayUseQueue('read', name);
      this.#connection.mayUseExchange('write', target.value.toString());
    }
    const topic = fieldOf(table, 'x-topic');
    if (topic?.type === 'S') this.#connection.mayUseQueue('read', topic.value.toString());
  }

  #purge(amqpQueue: AmqpQueue, noWait: boolean): void {
    const { queue } = amqpQueue;
    if (queue.kind === 'stream') {
      throw new AmqpError('NOT_IMPLEMENTED', `queue.purge not supported by stream queues ${queueIn(amqpQueue)}`);
    }
    this.#afterKnown(queue, () => {
      const messageCount = queue.isDeleted ? 0 : queue.purge();
      this.#answer({ method: 'queue.purge-ok', messageCount }, noWait);
    });
  }

  #deleteQueue({
    queue: asked,
    ifUnused,
    ifEmpty,
    noWait,
  }: {
    queue: string;
    ifUnused: boolean;
    ifEmpty: boolean;
    noWait: boolean;
  }): void {
    const name = this.#named(asked);
    this.#connection.mayUseQueue('configure', name);
    if (this.#vhost.find(name) === undefined) {
      return this.#answer({ method: 'queue.delete-ok', messageCount: 0 }, noWait);
    }
    const queue = this.#vhost.get(name, this.#connection);
    this.#afterKnown(queue.queue, () => {
      const ready = readyCount(queue);
      const refuse = (why: string): AmqpError =>
        new AmqpError('PRECONDITION_FAILED', `queue '${name}' in vhost '${this.#vhost.name}' ${why}`);
      if (ifUnused && queue.queue.consumerCount > 0) throw refuse('in use');
      // A stream is deleted whatever it has, as RabbitMQ does.
      if (ifEmpty && ready > 0 && queue.queue.kind !== 'stream') throw refuse('not empty');
      if (!queue.queue.isDeleted) this.#vhost.deleteQueue(queue);
      this.#connection.exclusiveQueues.delete(queue);
      this.#answer({ method: 'queue.delete-ok', messageCount: ready }, noWait);
    });
  }

  /** Auto-delete: the last consumer has gone. */
  #deleteIfUnused(queue: AmqpQueue): void {
    if (!queue.isAutoDelete || !queue.wasConsumed || queue.queue.isDeleted || queue.queue.consumerCount > 0) return;
    this.#vhost.deleteQueue(queue);
    this.#connection.exclusiveQueues.delete(queue);
  }

  // --- exchanges ---

  #declareExchange({
    exchange: name,
    type,
    passive,
    durable,
    autoDelete,
    internal,
    noWait,
    arguments: table,
  }: ExchangeDeclare): void {
    refuseDefaultExchange(name);
    if (passive) this.#vhost.exchange(name);
    else {
      this.#connection.mayUseExchange('configure', name);
      const alternate = fieldOf(table, 'alternate-exchange');
      if (alternate?.type === 'S' && this.#vhost.exchanges.get(name) === undefined) {
        this.#connection.mayUseExchange('read', name);
        this.#connection.mayUseExchange('write', alternate.value.toString());
      }
      const isDeclared = {
        name,
        type,
        isDurable: durable,
        isAutoDelete: autoDelete,
        isInternal: internal,
        arguments: table,
      };
      this.#vhost.declareExchange(isDeclared);
    }
    this.#answer({ method: 'exchange.declare-ok' }, noWait);
  }

  #changeBinding(
    method: Extract<Method, { method: 'queue.bind' | 'queue.unbind' | 'exchange.bind' | 'exchange.unbind' }>,
  ): void {
    const { routingKey, arguments: table } = method;
    const isToQueue = method.method === 'queue.bind' || method.method === 'queue.unbind';
    const source = isToQueue ? method.exchange : method.source;
    const destination = isToQueue ? this.#named(method.queue) : method.destination;
    refuseDefaultExchange(source);
    if (!isToQueue) refuseDefaultExchange(destination);
    if (isToQueue) this.#connection.mayUseQueue('write', destination);
    else this.#connection.mayUseExchange('write', destination);
    this.#connection.mayUseExchange('read', source);
    if (this.#vhost.exchanges.get(source)?.type === 'topic') this.#connection.mayUseTopic('read', source, routingKey);
    const isBind = method.method === 'queue.bind' || method.method === 'exchange.bind';
    const binding = {
      source,
      destination,
      destinationKind: isToQueue ? ('queue' as const) : ('exchange' as const),
      routingKey,
      arguments: table,
    };
    if (isBind) {
      if (isToQueue) this.#vhost.get(destination, this.#connection);
      else this.#vhost.exchange(destination);
      const { type } = this.#vhost.exchange(source);
      if (type === 'headers') checkMatch(table);
      this.#vhost.bind(binding);
    } else this.#vhost.unbind(binding);
    const noWait = 'noWait' in method ? method.noWait : false;
    this.#answer({ method: `${method.method}-ok` }, noWait);
  }

  // --- publishing ---

  onContent(type: number, payload: Buffer): void {
    const content = this.#content;
    if (content === undefined) {
      const what = type === FRAME_HEADER ? 'content header' : 'content body';
      throw new AmqpError('UNEXPECTED_FRAME', `expected method frame, got ${what} frame instead`);
    }
    if (content.properties === undefined) {
      if (type !== FRAME_HEADER) {
        throw new AmqpError(
          'UNEXPECTED_FRAME',
          'expected content header for class 60, got non content header frame instead',
        );
      }
      const { bodyBytes, properties } = readContentHeader(new Reader(payload));
      if (bodyBytes > BODY_BYTES_MAX) {
        throw new AmqpError(
          'PRECONDITION_FAILED',
          `message size ${bodyBytes} is larger than configured max size ${BODY_BYTES_MAX}`,
        );
      }
      // Copy: the body may come with a later chunk.
      content.properties = Buffer.from(properties);
      content.bodyBytes = bodyBytes;
    } else {
      if (type !== FRAME_BODY) {
        throw new AmqpError('UNEXPECTED_FRAME', 'expected content body, got non content body frame instead');
      }
      content.receivedBytes += payload.length;
      if (content.receivedBytes > content.bodyBytes) {
        throw new AmqpError(
          'FRAME_ERROR',
          `content of ${content.receivedBytes} bytes; its header says ${content.bodyBytes}`,
        );
      }
      const isWhole = content.pieces.length === 0 && content.receivedBytes === content.bodyBytes;
      // Copy: pieces outlive the chunk; a body in one frame does not have to.
      content.pieces.push(isWhole ? payload : Buffer.from(payload));
    }
    if (content.receivedBytes < content.bodyBytes) return;
    this.#content = undefined;
    const { pieces, publish, properties } = content;
    this.#publish(publish, properties ?? Buffer.alloc(2), pieces.length === 1 ? pieces[0] : Buffer.concat(pieces));
  }

  #publish({ exchange: name, routingKey, mandatory }: BasicPublish, propertyBytes: Buffer, body: Buffer): void {
    this.#connection.mayUseExchange('write', name);
    const exchange = this.#vhost.exchange(name);
    if (exchange.isInternal) {
      throw new AmqpError(
        'ACCESS_REFUSED',
        `cannot publish to internal exchange '${name}' in vhost '${this.#vhost.name}'`,
      );
    }
    const properties = readProperties(new Reader(propertyBytes));
    const { headers = NO_TABLE, userId, expiration, replyTo } = properties;
    if (userId !== undefined && userId !== this.#connection.user && !this.#connection.isImpersonator) {
      throw new AmqpError(
        'PRECONDITION_FAILED',
        `user_id property set to '${userId}' but authenticated user was '${this.#connection.user}'`,
      );
    }
    if (expiration !== undefined) checkExpiration(expiration);
    if (replyTo === REPLY_TO && this.#replies === undefined) {
      throw new AmqpError('PRECONDITION_FAILED', 'fast reply consumer does not exist');
    }
    const more = moreKeys(headers);
    if ('invalid' in more) {
      throw new AmqpError(
        'PRECONDITION_FAILED',
        `invalid message: {unacceptable_type_in_header,"${more.invalid}",${more.type}}`,
      );
    }
    if (exchange.type === 'topic') {
      for (const key of [routingKey, ...more.cc, ...more.bcc]) this.#connection.mayUseTopic('write', name, key);
    }
    const message: Message = {
      exchange: name,
      routingKey,
      properties,
      propertyBytes: this.#storedProperties(properties, propertyBytes),
      bccKeys: more.bcc,
      body,
      delayMs: exchange.type === 'x-delayed-message' ? delayOf(headers) : 0,
    };
    const confirms = this.#confirms;
    if (confirms !== undefined) confirms.lastTag++;
    const targets: AmqpQueue[] = [];
    const keys = more.cc.length + more.bcc.length === 0 ? more.cc : [...more.cc, ...more.bcc];
    // The default exchange knows one queue for a key.
    if (name === '' && keys.length === 0) this.#target(routingKey, message, targets);
    else {
      const routed = this.#vhost.exchanges.route({ exchange: name, routingKey, moreKeys: keys, headers });
      for (const queueName of routed) this.#target(queueName, message, targets);
    }
    this.#count(name, targets, mandatory);
    if (this.#transaction !== undefined) return this.#publishAtCommit(this.#transaction, message, targets, mandatory);
    if (targets.length === 0 && mandatory) this.#return(message);
    if (isLoading(targets)) {
      // Copy: the body is of the read buffer, and files are read first. Rare: once after a start.
      return this.#publishLater({ ...message, body: Buffer.from(body) }, targets);
    }
    this.#append(message, targets);
  }

  #target(queueName: string, message: Message, targets: AmqpQueue[]): void {
    const { replies } = this.#connection.parts;
    if (replies.isReply(queueName)) {
      replies.find(queueName)?.reply(message);
      return;
    }
    const found = this.#vhost.find(queueName);
    if (found !== undefined) targets.push(found);
  }

  #count(exchange: string, targets: readonly AmqpQueue[], isMandatory: boolean): void {
    this.counters.publish++;
    const ofExchange = this.#vhost.exchanges.counters(exchange);
    if (ofExchange !== undefined) {
      ofExchange.publishIn++;
      ofExchange.publishOut += targets.length;
    }
    for (const { counters } of targets) counters.publish++;
    if (targets.length > 0) return;
    if (isMandatory) this.counters.returnUnroutable++;
    else this.counters.dropUnroutable++;
  }

  /** As they came, but without BCC, and with the name to which a direct reply goes. */
  #storedProperties(properties: Properties, propertyBytes: Buffer): Buffer {
    const isForReply = properties.replyTo === REPLY_TO && this.#replies !== undefined;
    const hasBcc = properties.headers !== undefined && fieldOf(properties.headers, 'BCC') !== undefined;
    if (!isForReply && !hasBcc) return propertyBytes;
    const stored = isForReply ? { ...properties, replyTo: this.#replies?.name ?? '' } : properties;
    return hasBcc ? withoutBcc(stored) : writeProperties(stored);
  }

  #publishAtCommit(
    transaction: Transaction,
    message: Message,
    targets: readonly AmqpQueue[],
    mandatory: boolean,
  ): void {
    // Copy: the body is of the read buffer.
    const kept = { ...message, body: Buffer.from(message.body) };
    const timeMs = this.#connection.parts.clock.now();
    if (targets.length === 0 && mandatory) transaction.returned(kept);
    else transaction.publish(kept, this.#places(kept, targets, timeMs));
  }

  #publishLater(message: Message, targets: readonly AmqpQueue[]): void {
    const loading = targets.flatMap(({ queue: { topic } }) => topic.partitions.map((partition) => partition.prepare()));
    this.#connection.wait(this, (done) => {
      // A partition that cannot be loaded is fenced: its append says so.
      void Promise.allSettled(loading).then(() => done(() => this.#append(message, targets)));
    });
  }

  #append(message: Message, targets: readonly AmqpQueue[]): void {
    const { publisher, parts } = this.#connection;
    const places = this.#places(message, targets, parts.clock.now());
    for (const { queue, partition, record } of places) publisher.add(queue, partition, record, this.#confirms);
    if (this.#confirms !== undefined) publisher.published(this.#confirms);
  }

  /** Where the message goes, and what it is there. */
  #places(message: Message, targets: readonly AmqpQueue[], timeMs: number): Place[] {
    const places: Place[] = [];
    // Published to the default exchange it may say less where the queue's own name was the key.
    const same = message.exchange === '' ? undefined : recordOf(message, '', timeMs);
    for (const { queue, name, partitionIndex } of targets) {
      if (queue.isDeleted) continue;
      const { partitions } = queue.topic;
      const index = partitionIndex ?? (partitions.length === 1 ? 0 : this.#turn++ % partitions.length);
      places.push({ queue, partition: partitions[index], record: same ?? recordOf(message, name, timeMs) });
    }
    return places;
  }

  #return({ exchange, routingKey, propertyBytes, body }: Message): void {
    this.#send({ method: 'basic.return', replyCode: 312, replyText: 'NO_ROUTE', exchange, routingKey });
    // Copy: it leaves at the end of the turn, and the body is of the read buffer.
    this.#writer.content(propertyBytes, Buffer.from(body));
  }

  #confirmedTag = 0;
  #confirm(lastTag: number, failed: ReadonlySet<number>): void {
    if (this.#isEnded) return;
    const from = this.#confirmedTag + 1;
    this.#confirmedTag = lastTag;
    this.counters.confirm += lastTag + 1 - from;
    // Runs of equal fate; every lower tag is settled, so each run may say `multiple`.
    let first = from;
    for (let tag = failed.size === 0 ? lastTag : from; tag <= lastTag; tag++) {
      const isFailed = failed.has(tag);
      if (tag < lastTag && failed.has(tag + 1) === isFailed) continue;
      const multiple = tag > first;
      if (isFailed) this.#send({ method: 'basic.nack', deliveryTag: tag, multiple, requeue: false });
      else this.#send({ method: 'basic.ack', deliveryTag: tag, multiple });
      first = tag + 1;
    }
  }

  // --- consuming ---

  #consume({ queue: asked, consumerTag, noAck, exclusive, noWait, arguments: table }: BasicConsume): void {
    if (asked === REPLY_TO) return this.#consumeReplies(consumerTag, noAck, noWait);
    const amqpQueue = this.#readable(asked);
    const tag = consumerTag === '' ? this.#vhost.generatedName('amq.ctag-') : consumerTag;
    if (this.#deliveries.get(tag) !== undefined) {
      throw new AmqpError('NOT_ALLOWED', `attempt to reuse consumer tag '${tag}'`);
    }
    const stream = this.#streamRequest(amqpQueue, table, noAck);
    const priority = fieldOf(table, 'x-priority');
    const inUse = new AmqpError('ACCESS_REFUSED', `${queueIn(amqpQueue)} in exclusive use`);
    if (exclusive && amqpQueue.queue.settings['single.active.consumer']) throw inUse;
    try {
      this.#deliveries.subscribe({
        tag,
        amqpQueue,
        isNoAck: noAck,
        prefetch: this.#prefetch,
        isExclusive: exclusive,
        priority: priority !== undefined && isInteger(priority) ? Number(priority.value) : 0,
        stream,
        arguments: keptTable(table),
      });
    } catch (error) {
      if (error instanceof MillraceError && error.code === 'QUEUE_IN_USE') throw inUse;
      throw error;
    }
    if (!noWait) this.#send({ method: 'basic.consume-ok', consumerTag: tag });
    this.#connection.schedule();
  }

  /** How a consumer reads the log of a queue, if that is what it wants: any queue can be read so, a stream only so. */
  #streamRequest(amqpQueue: AmqpQueue, table: Table, isNoAck: boolean): StreamRequest | undefined {
    const owner = queueIn(amqpQueue);
    const nowMs = this.#connection.parts.clock.now();
    const request = streamRequestOf(table, { isStream: amqpQueue.queue.kind === 'stream', nowMs, owner });
    if (request === undefined) return undefined;
    if (isNoAck) {
      throw new AmqpError('NOT_IMPLEMENTED', `automatic acknowledgement not supported by stream ${owner}`);
    }
    if (this.#prefetch === 0) {
      throw new AmqpError('PRECONDITION_FAILED', `consumer prefetch count is not set for stream ${owner}`);
    }
    if (this.#deliveries.globalPrefetch > 0) {
      throw new AmqpError('NOT_IMPLEMENTED', `${owner} does not support global qos`);
    }
    return request;
  }

  #consumeReplies(consumerTag: string, noAck: boolean, noWait: boolean): void {
    const { replies } = this.#connection.parts;
    if (this.#deliveries.get(consumerTag) !== undefined) {
      throw new AmqpError('NOT_ALLOWED', `attempt to reuse consumer tag '${consumerTag}'`);
    }
    if (!noAck) throw new AmqpError('PRECONDITION_FAILED', 'reply consumer cannot acknowledge');
    if (this.#replies !== undefined) throw new AmqpError('PRECONDITION_FAILED', 'reply consumer already set');
    const tag = consumerTag === '' ? this.#vhost.generatedName('amq.ctag-') : consumerTag;
    this.#replies = { tag, name: replies.open(this) };
    if (!noWait) this.#send({ method: 'basic.consume-ok', consumerTag: tag });
  }

  #endReplies(): void {
    if (this.#replies !== undefined) this.#connection.parts.replies.close(this.#replies.name);
    this.#replies = undefined;
  }

  /** A direct reply, from whatever channel. Lost if the peer does not read. */
  reply({ exchange, routingKey, propertyBytes, body }: Reply): void {
    if (this.#isEnded || this.#replies === undefined || !this.#connection.hasRoom) return;
    // As RabbitMQ: it does not count.
    const deliveryTag = this.#deliveries.lastTag + 1;
    const { tag: consumerTag } = this.#replies;
    this.#send({ method: 'basic.deliver', consumerTag, deliveryTag, redelivered: false, exchange, routingKey });
    // Copy: it leaves at the end of the turn, and the body is of the publisher's read buffer.
    this.#writer.content(propertyBytes, Buffer.from(body));
  }

  #cancel(consumerTag: string, noWait: boolean): void {
    if (this.#replies?.tag === consumerTag) this.#endReplies();
    const subscription = this.#deliveries.get(consumerTag);
    if (subscription !== undefined) {
      this.#deliveries.cancel(subscription);
      this.#deleteIfUnused(subscription.amqpQueue);
    }
    this.#answer({ method: 'basic.cancel-ok', consumerTag }, noWait);
  }

  #queueEnded({ tag }: Subscription): void {
    if (this.#isEnded || !this.#connection.can('consumer_cancel_notify')) return;
    this.#send({ method: 'basic.cancel', consumerTag: tag, noWait: true });
  }

  #delivery({ name, arguments: table }: AmqpQueue, record: QueuedRecord, { failedCount }: AcquiredRun) {
    return deliveryOf(record, {
      queueName: name,
      headerBytesMax: this.#writer.propertyBytesMax,
      failedCount: queueType(table) === 'quorum' ? failedCount : 0,
    });
  }

  #get({ queue: asked, noAck }: BasicGet): void {
    const amqpQueue = this.#readable(asked);
    const { queue } = amqpQueue;
    if (queue.kind === 'stream') {
      throw new AmqpError('NOT_IMPLEMENTED', `basic.get not supported by stream queues ${queueIn(amqpQueue)}`);
    }
    this.#afterKnown(queue, () => {
      const taken = queue.isDeleted ? undefined : this.#deliveries.take(queue);
      if (taken === undefined) {
        this.counters.getEmpty++;
        amqpQueue.counters.getEmpty++;
        return this.#send({ method: 'basic.get-empty' } as MethodInit);
      }
      const { partition, run } = taken;
      const { queues, reader } = this.#connection.parts;
      this.#connection.wait(this, (done) => {
        queues.whenDurable(() => {
          void Promise.resolve(reader.records(partition.log, [run])).then(
            ({ records: [record] }) =>
              done(() => {
                if (this.#isEnded) return;
                if (record === undefined) {
                  this.#deliveries.settleGap(taken, amqpQueue.counters);
                  return this.#get({ queue: asked, noAck } as BasicGet);
                }
                const deliveryTag = this.#deliveries.got(taken, { isNoAck: noAck, ofQueue: amqpQueue.counters });
                const { exchange, routingKey, propertyBytes, body } = this.#delivery(amqpQueue, record, run);
                const { ready } = queue.counts();
                const redelivered = partition.state.mark.isRedelivery(run.firstOffset, run.acquiredCount);
                this.#send({
                  method: 'basic.get-ok',
                  deliveryTag,
                  redelivered,
                  exchange,
                  routingKey,
                  messageCount: ready,
                });
                this.#writer.content(propertyBytes, body);
              }),
            (error: unknown) =>
              done(() => {
                throw error;
              }),
          );
        });
      });
    });
  }
}

/** Files of a target must be read before it takes something: once after a start. */
function isLoading(targets: readonly AmqpQueue[]): boolean {
  for (const { queue } of targets) {
    for (const partition of queue.topic.partitions) if (partition.prepare() !== undefined) return true;
  }
  return false;
}

const queueIn = ({ vhost, name }: AmqpQueue): string => `queue '${name}' in vhost '${vhost}'`;

function checkMatch(table: Table): void {
  const field = fieldOf(table, 'x-match');
  if (field === undefined) return;
  const value = field.type === 'S' ? field.value.toString() : '';
  if (X_MATCHES.has(value)) return;
  throw new AmqpError(
    'PRECONDITION_FAILED',
    `Invalid x-match field value <<"${value}">>; expected all, any, all-with-x, or any-with-x`,
  );
}

function checkExpiration(expiration: string): void {
  const invalid = (why: string): AmqpError =>
    new AmqpError('PRECONDITION_FAILED', `invalid expiration '${expiration}': ${why}`);
  if (!/^-?\d+$/.test(expiration)) throw invalid('no_integer');
  if (expiration.startsWith('-')) throw invalid(`{value_negative,${expiration}}`);
  if (Number(expiration) > EXPIRATION_MS_MAX) throw invalid(`{value_too_big,${expiration}}`);
}

/** `x-delay` of the plugin for delayed messages: milliseconds; anything else is no delay. */
function delayOf(headers: Table): number {
  const field = fieldOf(headers, 'x-delay');
  if (field === undefined || !isInteger(field)) return 0;
  return Math.min(EXPIRATION_MS_MAX, Math.max(0, Number(field.value)));
}
