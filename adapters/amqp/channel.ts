/**
 * One channel: what a client asks of exchanges and queues, what it publishes, and what it is delivered. Answers that tell
 * of a change leave when the change is durable; until then the connection's later frames wait.
 *
 * Always true: an error of the channel ends it, with everything that was not acked back in its place; frames that were on
 * their way are then ignored up to the peer's close-ok.
 */
import {
  bodyFrames,
  contentHeaderFrame,
  FRAME_BODY,
  FRAME_HEADER,
  FRAME_OVERHEAD_BYTES,
} from '../../protocol/amqp/frame.ts';
import type {
  BasicConsume,
  BasicGet,
  BasicPublish,
  ExchangeDeclare,
  Method,
  MethodInit,
  QueueDeclare,
} from '../../protocol/amqp/methods.ts';
import { readContentHeader, readProperties } from '../../protocol/amqp/properties.ts';
import { fieldOf, NO_TABLE, type Table, clippedToShortString } from '../../protocol/amqp/table.ts';
import { Reader } from '../../protocol/bytes.ts';
import { MillraceError } from '../../protocol/errors.ts';
import type { AcquiredRun } from '../../broker/queue.ts';
import type { QueuedRecord } from '../../broker/queue-reader.ts';
import type { Queue } from '../../broker/queues.ts';
import type { AmqpConnection } from './connection.ts';
import { Deliveries, type Subscription } from './deliveries.ts';
import { deliveryOf, type Message, moreKeys, recordOf, withoutBcc } from './properties.ts';
import { Confirms } from './publisher.ts';
import { isInteger } from './argument-fields.ts';
import { queueType } from './queue-arguments.ts';
import { AmqpError } from './reply.ts';
import { type AmqpQueue, BODY_BYTES_MAX, refuseDefaultExchange } from './vhost.ts';

const REPLY_TO = 'amq.rabbitmq.reply-to';
const X_MATCHES = new Set(['all', 'any', 'all-with-x', 'any-with-x']);
/** Class, weight, size and flags of a content header, beside the properties. */
const CONTENT_HEADER_BYTES = 12;
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
  readonly #number: number;
  readonly #deliveries: Deliveries;
  #confirms: Confirms | undefined;
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
    this.#number = number;
    const { queues, reader } = connection.parts;
    this.#deliveries = new Deliveries({
      queues,
      reader,
      get hasRoom() {
        return connection.hasRoom;
      },
      deliver: (subscription, tag, record, run) => this.#deliver(subscription, tag, record, run),
      cancelled: (subscription) => this.#queueEnded(subscription),
      schedule: () => connection.schedule(),
    });
  }

  #send(method: MethodInit): void {
    this.#connection.send(this.#number, method);
  }

  // --- the end of it ---

  /** Ends the channel with a reply code. */
  fail(error: AmqpError): void {
    if (this.#isEnded) return;
    this.isClosing = true;
    this.end();
    const { replyCode, message } = error;
    const replyText = clippedToShortString(message);
    this.#send({ method: 'channel.close', replyCode, replyText, ...this.#connection.currentMethod });
  }

  closeAsked(): void {
    this.#connection.publisher.flush();
    this.end();
    this.#connection.channelClosed(this.#number);
    this.#send({ method: 'channel.close-ok' });
  }

  /** Gives everything back; says nothing to the peer. */
  end(): void {
    if (this.#isEnded) return;
    this.#isEnded = true;
    this.#content = undefined;
    const subscriptions = [...this.#deliveries.subscriptions()];
    this.#deliveries.close();
    for (const { amqpQueue } of subscriptions) this.#deleteIfUnused(amqpQueue);
  }

  /** Once in a turn: what was decided goes to the queues, and consumers say what they take. */
  endOfTurn(): void {
    if (this.#isEnded) return;
    this.#deliveries.settle();
    this.#deliveries.refill();
  }

  // --- methods ---

  onMethod(method: Method): void {
    if (this.#content !== undefined) {
      throw new AmqpError(
        'UNEXPECTED_FRAME',
        `expected content ${this.#content.properties === undefined ? 'header' : 'body'} for class 60, got ${method.method} instead`,
      );
    }
    switch (method.method) {
      case 'basic.publish':
        if (method.immediate) throw new AmqpError('NOT_IMPLEMENTED', 'immediate=true');
        this.#content = { publish: method, properties: undefined, bodyBytes: 0, receivedBytes: 0, pieces: [] };
        return;
      case 'basic.ack':
        return this.#deliveries.acknowledge(method.deliveryTag, method.multiple, 'accept');
      case 'basic.nack':
        return this.#deliveries.acknowledge(method.deliveryTag, method.multiple, method.requeue ? 'release' : 'reject');
      case 'basic.reject':
        return this.#deliveries.acknowledge(method.deliveryTag, false, method.requeue ? 'release' : 'reject');
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
        return this.#purge(this.#queue(method.queue), method.noWait);
      case 'queue.delete':
        return this.#deleteQueue(method);
      case 'exchange.declare':
        return this.#declareExchange(method);
      case 'exchange.delete':
        refuseDefaultExchange(method.exchange);
        this.#vhost.deleteExchange(method.exchange, method.ifUnused);
        return this.#answer({ method: 'exchange.delete-ok' }, method.noWait);
      case 'confirm.select':
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
        throw new AmqpError('NOT_IMPLEMENTED', 'tx.select is not served yet');
      case 'tx.commit':
      case 'tx.rollback':
        throw new AmqpError('PRECONDITION_FAILED', 'channel is not transactional');
      default:
        throw new AmqpError('COMMAND_INVALID', `${method.method} is not a client's to send on a channel`);
    }
  }

  get #vhost() {
    return this.#connection.parts.vhost;
  }

  /** When everything decided so far is durable. */
  #answer(method: MethodInit, noWait: boolean): void {
    this.#afterDurable(() => {
      if (!noWait) this.#send(method);
    });
  }

  /** Also what this connection has published before; the connection's frames wait. */
  #afterDurable(then: () => void): void {
    const { publisher, parts } = this.#connection;
    publisher.flush();
    this.#connection.wait((done) => {
      parts.engine.whenDurable(publisher.position, () => {
        this.#vhost.whenDurable(() =>
          done(() => {
            if (!this.#isEnded) this.#connection.guard(then, this);
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
    this.#connection.wait((done) => {
      let looks = 0;
      const look = (): void => {
        const isKnown = queue.isDeleted || queue.partitions().every(({ isReady }) => isReady);
        if (isKnown || ++looks > LOOKS_MAX) {
          done(() => {
            if (!this.#isEnded) this.#connection.guard(then, this);
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
    if (passive) {
      queue = this.#vhost.get(asked, this.#connection);
    } else {
      const name = asked === '' ? this.#vhost.generatedName('amq.gen-') : asked;
      if (asked.startsWith('amq.') && this.#vhost.find(asked) === undefined) {
        throw new AmqpError('ACCESS_REFUSED', `queue name '${asked}' contains reserved prefix 'amq.*'`);
      }
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
        const { ready } = queue.queue.counts();
        const consumerCount = queue.queue.consumerCount;
        this.#send({ method: 'queue.declare-ok', queue: queue.name, messageCount: ready, consumerCount });
      });
    if (passive) answer();
    else this.#afterDurable(answer);
  }

  #purge({ queue }: AmqpQueue, noWait: boolean): void {
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
    if (this.#vhost.find(name) === undefined) {
      return this.#answer({ method: 'queue.delete-ok', messageCount: 0 }, noWait);
    }
    const queue = this.#vhost.get(name, this.#connection);
    this.#afterKnown(queue.queue, () => {
      const { ready } = queue.queue.counts();
      const refuse = (why: string): AmqpError =>
        new AmqpError('PRECONDITION_FAILED', `queue '${name}' in vhost '/' ${why}`);
      if (ifUnused && queue.queue.consumerCount > 0) throw refuse('in use');
      if (ifEmpty && ready > 0) throw refuse('not empty');
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
    const exchange = this.#vhost.exchange(name);
    if (exchange.isInternal) {
      throw new AmqpError('ACCESS_REFUSED', `cannot publish to internal exchange '${name}' in vhost '/'`);
    }
    const properties = readProperties(new Reader(propertyBytes));
    const { headers = NO_TABLE, userId, expiration, replyTo } = properties;
    if (userId !== undefined && userId !== this.#connection.user) {
      throw new AmqpError(
        'PRECONDITION_FAILED',
        `user_id property set to '${userId}' but authenticated user was '${this.#connection.user}'`,
      );
    }
    if (expiration !== undefined) checkExpiration(expiration);
    if (replyTo === REPLY_TO) throw new AmqpError('PRECONDITION_FAILED', 'fast reply consumer does not exist');
    const more = moreKeys(headers);
    if ('invalid' in more) {
      throw new AmqpError(
        'PRECONDITION_FAILED',
        `invalid message: {unacceptable_type_in_header,"${more.invalid}",${more.type}}`,
      );
    }
    const message: Message = {
      exchange: name,
      routingKey,
      properties,
      propertyBytes: more.hasBcc ? withoutBcc(properties) : propertyBytes,
      body,
      delayMs: exchange.type === 'x-delayed-message' ? delayOf(headers) : 0,
    };
    const confirms = this.#confirms;
    if (confirms !== undefined) confirms.lastTag++;
    const targets: Queue[] = [];
    const names: string[] = [];
    for (const queueName of this.#vhost.exchanges.route({ exchange: name, routingKey, moreKeys: more.keys, headers })) {
      const found = this.#vhost.find(queueName);
      if (found === undefined) continue;
      targets.push(found.queue);
      names.push(queueName);
    }
    if (targets.length === 0 && mandatory) this.#return(message);
    if (targets.some(({ topic }) => topic.partitions.some((partition) => partition.prepare() !== undefined))) {
      // Copy: the body is of the read buffer, and files are read first. Rare: once after a start.
      return this.#publishLater({ ...message, body: Buffer.from(body) }, targets, names);
    }
    this.#append(message, targets, names);
  }

  #publishLater(message: Message, targets: readonly Queue[], names: readonly string[]): void {
    const loading = targets.flatMap(({ topic }) => topic.partitions.map((partition) => partition.prepare()));
    this.#connection.wait((done) => {
      // A partition that cannot be loaded is fenced: its append says so.
      void Promise.allSettled(loading).then(() => done(() => this.#append(message, targets, names)));
    });
  }

  #append(message: Message, targets: readonly Queue[], names: readonly string[]): void {
    const { publisher, parts } = this.#connection;
    const timeMs = parts.clock.now();
    targets.forEach((queue, index) => {
      if (queue.isDeleted) return;
      const { partitions } = queue.topic;
      const partition = partitions.length === 1 ? partitions[0] : partitions[this.#turn++ % partitions.length];
      publisher.add(partition, recordOf(message, names[index], timeMs), this.#confirms);
    });
    if (this.#confirms !== undefined) publisher.published(this.#confirms);
  }

  #return({ exchange, routingKey, propertyBytes, body }: Message): void {
    this.#send({ method: 'basic.return', replyCode: 312, replyText: 'NO_ROUTE', exchange, routingKey });
    this.#writeContent(propertyBytes, body);
  }

  #writeContent(propertyBytes: Buffer, body: Buffer): void {
    const { frameBytesMax } = this.#connection;
    this.#connection.write(contentHeaderFrame(this.#number, body.length, propertyBytes));
    for (const frame of bodyFrames(this.#number, body, frameBytesMax)) this.#connection.write(frame);
  }

  #confirmedTag = 0;
  #confirm(lastTag: number, failed: ReadonlySet<number>): void {
    if (this.#isEnded) return;
    const from = this.#confirmedTag + 1;
    this.#confirmedTag = lastTag;
    // Runs of equal fate; every lower tag is settled, so each run may say `multiple`.
    let first = from;
    for (let tag = from; tag <= lastTag; tag++) {
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
    if (asked === REPLY_TO) throw new AmqpError('NOT_IMPLEMENTED', 'direct reply-to is not served yet');
    if (fieldOf(table, 'x-stream-offset') !== undefined) {
      throw new AmqpError('NOT_IMPLEMENTED', 'stream consumers are not served yet');
    }
    const amqpQueue = this.#queue(asked);
    const tag = consumerTag === '' ? this.#vhost.generatedName('amq.ctag-') : consumerTag;
    if (this.#deliveries.get(tag) !== undefined) {
      throw new AmqpError('NOT_ALLOWED', `attempt to reuse consumer tag '${tag}'`);
    }
    const priority = fieldOf(table, 'x-priority');
    const inUse = new AmqpError('ACCESS_REFUSED', `queue '${amqpQueue.name}' in vhost '/' in exclusive use`);
    if (exclusive && amqpQueue.queue.settings['single.active.consumer']) throw inUse;
    try {
      this.#deliveries.subscribe({
        tag,
        amqpQueue,
        isNoAck: noAck,
        prefetch: this.#prefetch,
        isExclusive: exclusive,
        priority: priority !== undefined && isInteger(priority) ? Number(priority.value) : 0,
      });
    } catch (error) {
      if (error instanceof MillraceError && error.code === 'QUEUE_IN_USE') throw inUse;
      throw error;
    }
    if (!noWait) this.#send({ method: 'basic.consume-ok', consumerTag: tag });
    this.#connection.schedule();
  }

  #cancel(consumerTag: string, noWait: boolean): void {
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

  #deliver(
    { tag: consumerTag, amqpQueue }: Subscription,
    deliveryTag: number,
    record: QueuedRecord,
    run: AcquiredRun,
  ): void {
    const delivery = this.#delivery(amqpQueue, record, run);
    const { exchange, routingKey, propertyBytes, body } = delivery;
    const redelivered = run.acquiredCount > 1;
    this.#send({ method: 'basic.deliver', consumerTag, deliveryTag, redelivered, exchange, routingKey });
    this.#writeContent(propertyBytes, body);
  }

  #delivery({ name, arguments: table }: AmqpQueue, record: QueuedRecord, { failedCount }: AcquiredRun) {
    return deliveryOf(record, {
      queueName: name,
      headerBytesMax: this.#connection.frameBytesMax - FRAME_OVERHEAD_BYTES - CONTENT_HEADER_BYTES,
      failedCount: queueType(table) === 'quorum' ? failedCount : 0,
    });
  }

  #get({ queue: asked, noAck }: BasicGet): void {
    const amqpQueue = this.#queue(asked);
    const { queue } = amqpQueue;
    this.#afterKnown(queue, () => {
      const taken = queue.isDeleted ? undefined : this.#deliveries.take(queue);
      if (taken === undefined) return this.#send({ method: 'basic.get-empty' } as MethodInit);
      const { partition, run } = taken;
      const { queues, reader } = this.#connection.parts;
      this.#connection.wait((done) => {
        queues.whenDurable(() => {
          void Promise.resolve(reader.records(partition.log, [run])).then(
            ({ records: [record] }) =>
              done(() => {
                if (this.#isEnded) return;
                if (record === undefined) {
                  this.#deliveries.settleGap(taken);
                  return this.#connection.guard(() => this.#get({ queue: asked, noAck } as BasicGet), this);
                }
                const deliveryTag = this.#deliveries.got(taken, noAck);
                const { exchange, routingKey, propertyBytes, body } = this.#delivery(amqpQueue, record, run);
                const { ready } = queue.counts();
                const redelivered = run.acquiredCount > 1;
                this.#send({
                  method: 'basic.get-ok',
                  deliveryTag,
                  redelivered,
                  exchange,
                  routingKey,
                  messageCount: ready,
                });
                this.#writeContent(propertyBytes, body);
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
