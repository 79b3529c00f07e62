/**
 * What a channel hands to its consumers: credit, messages on their way, and what waits for an ack.
 *
 * Always true: messages leave in the order in which their acquisitions came, each after its acquisition may be told;
 * what a limit of the channel does not allow goes back as if it had never been taken; a message that is not acked is
 * released when the channel ends. Readers of a log take nothing: an ack only makes room for more. Nothing here makes an
 * object for each message.
 */
import type { Table } from '../../protocol/amqp/table.ts';
import { MillraceError } from '../../protocol/errors.ts';
import type { AcquiredRun, Acquisition, OwnerId, Settlement, SettleKind } from '../../broker/queue.ts';
import type { Consumer } from '../../broker/queue-consumer.ts';
import type { OffsetRun, QueuedSpans, QueueReader, RecordSpan } from '../../broker/queue-reader.ts';
import type { Queue, QueuePartition, QueueRegistry } from '../../broker/queues.ts';
import type { MessageCounters } from './counters.ts';
import type { DeliveryTarget, DeliveryWriter } from './delivery-writer.ts';
import { queueType } from './queue-arguments.ts';
import { unknownTag } from './reply.ts';
import type { StreamRequest } from './stream-arguments.ts';
import { StreamReading } from './stream-reading.ts';
import { Unacked } from './unacked.ts';
import type { AmqpQueue } from './vhost.ts';

/** Messages on their way to a consumer without a prefetch. */
const CREDIT_MESSAGES = 1000;
/** And their bytes, roughly. */
const CREDIT_BYTES = 512 * 1024;
const NO_OFFSET = -1;

export interface SubscriptionInit {
  readonly tag: string;
  readonly amqpQueue: AmqpQueue;
  readonly isNoAck: boolean;
  /** 0: no limit. */
  readonly prefetch: number;
  readonly isExclusive: boolean;
  readonly priority: number;
  /** It reads the log and takes nothing. */
  readonly stream?: StreamRequest | undefined;
  /** Of `basic.consume`. */
  readonly arguments: Table;
}

/** One consumer of the channel. */
export interface Subscription extends SubscriptionInit {
  /** Undefined: a reader of the log. */
  readonly consumer: Consumer | undefined;
  readonly reading: StreamReading | undefined;
  readonly target: DeliveryTarget;
  unacked: number;
  /** Acquired, not delivered yet. */
  pending: number;
  isCancelled: boolean;
  /** By partition; there is mostly one. */
  readonly holdings: Map<QueuePartition, Holding>;
  /** Of a reader. */
  readHolding: Holding | undefined;
}

interface MutableSettlement extends Settlement {
  lastOffset: number;
}

/** What one owner holds of a partition, and what was decided about it in this turn. */
interface Holding {
  readonly subscription: Subscription | undefined;
  /** Undefined: read from a log. */
  readonly owner: OwnerId | undefined;
  readonly queue: Queue;
  readonly partition: number;
  /** Of the queue. */
  readonly counters: MessageCounters;
  settlements: MutableSettlement[];
}

/** Messages of one acquisition on their way. */
interface Arrival {
  readonly subscription: Subscription;
  readonly partition: QueuePartition;
  readonly runs: readonly AcquiredRun[];
  readonly count: number;
  found: QueuedSpans | undefined;
  isFailed: boolean;
}

export interface DeliveryHost {
  readonly queues: QueueRegistry;
  readonly reader: QueueReader;
  readonly writer: DeliveryWriter;
  /** Of the channel. */
  readonly counters: MessageCounters;
  /** The peer takes more. */
  readonly hasRoom: boolean;
  /** The queue of a consumer has ended. */
  cancelled(subscription: Subscription): void;
  /** Calls `refill` and `settle` at the end of the turn. */
  schedule(): void;
}

export class Deliveries {
  readonly #host: DeliveryHost;
  readonly #subscriptions = new Map<string, Subscription>();
  /** Cancelled, with messages that are not acked. */
  readonly #leaving = new Set<Subscription>();
  readonly #unacked = new Unacked<Holding>();
  readonly #arrivals: Arrival[] = [];
  /** With settlements that the queues were not told of. */
  #decided: Holding[] = [];
  #lastTag = 0;
  /** Owner of what `basic.get` took. */
  #getOwner: OwnerId | undefined;
  readonly #gotFrom = new Map<QueuePartition, Holding>();
  /** Whose room has changed since it was told. */
  #touched = new Set<Subscription>();
  /** Empty; the two take turns. */
  #untouched = new Set<Subscription>();
  /** That of all has. */
  #isAllTouched = false;
  /** The peer took more when the room was last told. */
  #hadRoom = true;
  #globalPrefetch = 0;
  #isClosed = false;
  /** What `#acknowledged` does with the messages it is called for. */
  #kind: 'accept' | 'release' | 'reject' = 'accept';
  #isAnyDone = false;

  constructor(host: DeliveryHost) {
    this.#host = host;
  }

  /** Of all consumers of the channel together; 0: no limit. */
  get globalPrefetch(): number {
    return this.#globalPrefetch;
  }
  set globalPrefetch(messages: number) {
    this.#globalPrefetch = messages;
    this.#isAllTouched = true;
  }

  get(tag: string): Subscription | undefined {
    return this.#subscriptions.get(tag);
  }

  /** MillraceError QUEUE_IN_USE. */
  subscribe(init: SubscriptionInit): Subscription {
    const { amqpQueue, stream } = init;
    const subscription: Subscription = {
      ...init,
      target: {
        consumerTag: Buffer.from(init.tag),
        queueName: amqpQueue.name,
        queueNameBytes: Buffer.from(amqpQueue.name),
        isQuorum: queueType(amqpQueue.arguments) === 'quorum',
      },
      unacked: 0,
      pending: 0,
      isCancelled: false,
      holdings: new Map(),
      readHolding: undefined,
      consumer: stream === undefined ? this.#consumer(init, () => subscription) : undefined,
      reading: stream && this.#reading(amqpQueue, stream, () => subscription),
    };
    try {
      subscription.consumer?.join(amqpQueue.queue);
    } catch (error) {
      subscription.consumer?.close({ isFailure: false });
      throw error;
    }
    amqpQueue.wasConsumed = true;
    this.#subscriptions.set(init.tag, subscription);
    this.#touched.add(subscription);
    return subscription;
  }

  #consumer({ priority, isExclusive }: SubscriptionInit, subscription: () => Subscription): Consumer {
    return this.#host.queues.consumer({
      door: 'amqp',
      priority,
      isExclusive,
      lockMs: 'connection',
      onAcquired: (queue, acquisition) => this.#acquired(subscription(), queue, acquisition),
      onServed: () => this.#host.schedule(),
      onLeft: () => this.#queueEnded(subscription()),
    });
  }

  #reading(
    { queue, partitionIndex = 0 }: AmqpQueue,
    request: StreamRequest,
    subscription: () => Subscription,
  ): StreamReading {
    const { reader } = this.#host;
    return new StreamReading(queue, queue.topic.partitions[partitionIndex], request, {
      reader,
      arrived: ({ spans }) => this.#handStream(subscription(), spans),
      ended: () => this.#queueEnded(subscription()),
      schedule: () => {
        this.#touched.add(subscription());
        this.#host.schedule();
      },
    });
  }

  #queueEnded(subscription: Subscription): void {
    if (subscription.isCancelled) return;
    this.#subscriptions.delete(subscription.tag);
    subscription.isCancelled = true;
    this.#host.cancelled(subscription);
  }

  /** What it holds stays locked until it is acked or the channel ends. */
  cancel(subscription: Subscription): void {
    this.#subscriptions.delete(subscription.tag);
    subscription.isCancelled = true;
    subscription.reading?.close();
    subscription.consumer?.leave(subscription.amqpQueue.queue);
    this.#leaving.add(subscription);
    this.#closeIfDone(subscription);
  }

  #closeIfDone(subscription: Subscription): void {
    if (!subscription.isCancelled || subscription.unacked > 0 || subscription.pending > 0) return;
    if (!this.#leaving.delete(subscription)) return;
    // A consumer that closes gives back what its queues were not told of.
    this.settle();
    subscription.consumer?.close({ isFailure: false });
  }

  /** Messages that wait for their ack. */
  get unackedCount(): number {
    return this.#unacked.size;
  }

  subscriptions(): IterableIterator<Subscription> {
    return this.#subscriptions.values();
  }

  // --- handing out ---

  #acquired(subscription: Subscription, queue: Queue, acquisition: Acquisition): void {
    const { partition: index, runs, messageCount } = acquisition;
    const partition = queue.partition(index);
    if (partition === undefined) return;
    this.#touched.add(subscription);
    let taken = runs;
    let count = messageCount;
    const { globalPrefetch } = this;
    if (globalPrefetch > 0 && !subscription.isNoAck) {
      const room = Math.max(0, globalPrefetch - this.#unackedAndPending());
      if (room < count) {
        const split = splitRuns(runs, room);
        taken = split.first;
        count = room;
        const holding = holdingOf(subscription, partition);
        for (const run of split.rest) this.#settle(holding, 'undo', run.firstOffset, run.lastOffset);
        this.#host.schedule();
      }
    }
    if (count === 0) return;
    subscription.pending += count;
    const arrival: Arrival = { subscription, partition, runs: taken, count, found: undefined, isFailed: false };
    this.#arrivals.push(arrival);
    this.#host.queues.whenLeased(acquisition, () => this.#read(arrival));
  }

  /** Of consumers that ack. */
  #unackedAndPending(): number {
    let pending = 0;
    for (const { subscription, count } of this.#arrivals) if (!subscription.isNoAck) pending += count;
    return this.#unacked.size + pending;
  }

  #read(arrival: Arrival): void {
    if (this.#isClosed) return;
    const { partition, runs } = arrival;
    try {
      const reading = this.#host.reader.spans(partition.log, inOrderOfOffsets(runs));
      if (!(reading instanceof Promise)) {
        arrival.found = reading;
        return this.#deliver();
      }
      reading.then(
        (found) => {
          if (this.#isClosed) return found.release();
          arrival.found = found;
          this.#deliver();
        },
        (error: unknown) => this.#failed(arrival, error),
      );
    } catch (error) {
      this.#failed(arrival, error);
    }
  }

  #failed(arrival: Arrival, error: unknown): void {
    // A partition that cannot be read is fenced: nothing more of it is handed out.
    if (!(error instanceof MillraceError)) throw error;
    arrival.isFailed = true;
    this.#deliver();
  }

  /** Everything at the head of the line that is ready. */
  #deliver(): void {
    if (this.#isClosed) return;
    let done = 0;
    for (const arrival of this.#arrivals) {
      if (arrival.found === undefined && !arrival.isFailed) break;
      done++;
      const { subscription, count, found } = arrival;
      subscription.pending -= count;
      this.#touched.add(subscription);
      if (subscription.isCancelled || found === undefined) this.#undo(arrival);
      else this.#hand(arrival, found);
      found?.release();
      this.#closeIfDone(subscription);
    }
    if (done > 0) this.#arrivals.splice(0, done);
    this.#host.schedule();
  }

  #undo({ subscription, partition, runs }: Arrival): void {
    const holding = holdingOf(subscription, partition);
    for (const run of runs) this.#settle(holding, 'undo', run.firstOffset, run.lastOffset);
  }

  #hand({ subscription, partition, runs }: Arrival, { spans, gaps }: QueuedSpans): void {
    const holding = holdingOf(subscription, partition);
    for (const gap of gaps) this.#settle(holding, 'gap', gap.firstOffset, gap.lastOffset);
    // Spans are in the order of offsets, runs in the order of delivery: the same, unless there are priorities.
    let from = 0;
    for (const run of runs) {
      if (from >= spans.length || firstOffsetOf(spans[from]) > run.firstOffset)
        from = spanIndex(spans, run.firstOffset);
      for (; from < spans.length && firstOffsetOf(spans[from]) <= run.lastOffset; from++) {
        this.#handSpan(subscription, holding, partition, spans[from], run);
        // The next run goes on in it.
        if (lastOffsetOf(spans[from]) > run.lastOffset) break;
      }
    }
  }

  /** What of the span is in the run. */
  #handSpan(
    subscription: Subscription,
    holding: Holding,
    { state: { mark } }: QueuePartition,
    { batch, index, count }: RecordSpan,
    { firstOffset, lastOffset, acquiredCount, failedCount }: AcquiredRun,
  ): void {
    const { writer, counters } = this.#host;
    const { target, isNoAck } = subscription;
    const ofQueue = holding.counters;
    const first = Math.max(index, batch.indexFrom(firstOffset));
    const end = index + count;
    const cursor = batch.cursorAt(first);
    for (let at = first; at < end; at++) {
      cursor.next();
      const offset = batch.baseOffset + cursor.offsetDelta;
      if (offset > lastOffset) return;
      const tag = ++this.#lastTag;
      if (isNoAck) {
        counters.deliverNoAck++;
        ofQueue.deliverNoAck++;
        this.#settle(holding, 'accept', offset, offset);
      } else {
        counters.deliver++;
        ofQueue.deliver++;
        subscription.unacked++;
        this.#unacked.add(tag, holding, offset);
      }
      const isRedelivery = mark.isRedelivery(offset, acquiredCount);
      if (isRedelivery) {
        counters.redeliver++;
        ofQueue.redeliver++;
      }
      writer.deliver(target, tag, isRedelivery, failedCount, cursor, NO_OFFSET);
    }
  }

  #handStream(subscription: Subscription, spans: readonly RecordSpan[]): void {
    const { writer, counters } = this.#host;
    const { reading, target } = subscription;
    if (reading === undefined || subscription.isCancelled) return;
    const holding = readHolding(subscription);
    const room = this.#roomOf(subscription, this.#channelRoom());
    let handed = 0;
    for (const { batch, index, count } of spans) {
      const cursor = batch.cursorAt(index);
      for (let at = 0; at < count; at++) {
        cursor.next();
        if (!reading.wants(cursor)) continue;
        const offset = batch.baseOffset + cursor.offsetDelta;
        if (handed === room) return reading.stoppedAt(offset);
        handed++;
        counters.deliver++;
        holding.counters.deliver++;
        subscription.unacked++;
        this.#unacked.add(++this.#lastTag, holding, offset);
        writer.deliver(target, this.#lastTag, false, 0, cursor, offset);
      }
    }
  }

  /** `basic.get`: one message now, if there is any. */
  take(queue: Queue): { partition: QueuePartition; run: AcquiredRun } | undefined {
    this.#getOwner ??= this.#host.queues.newOwner();
    for (const partition of queue.partitions()) {
      const [run] = queue.acquire(this.#getOwner, partition.index, 1, 'amqp');
      if (run !== undefined) return { partition, run };
    }
    return undefined;
  }

  /** Tag of a message that `take` gave. */
  got(
    { partition, run }: { partition: QueuePartition; run: AcquiredRun },
    { isNoAck, ofQueue }: { isNoAck: boolean; ofQueue: MessageCounters },
  ): number {
    const tag = ++this.#lastTag;
    const holding = this.#gotHolding(partition, ofQueue);
    for (const each of [this.#host.counters, ofQueue]) {
      if (isNoAck) each.getNoAck++;
      else each.get++;
      if (run.acquiredCount > 1) each.redeliver++;
    }
    if (isNoAck) this.#settle(holding, 'accept', run.firstOffset, run.lastOffset);
    else this.#unacked.add(tag, holding, run.firstOffset);
    return tag;
  }

  #gotHolding(partition: QueuePartition, counters: MessageCounters): Holding {
    let holding = this.#gotFrom.get(partition);
    if (holding === undefined) {
      const { queue, index } = partition;
      holding = { subscription: undefined, owner: this.#getOwner, queue, partition: index, counters, settlements: [] };
      this.#gotFrom.set(partition, holding);
    }
    return holding;
  }

  /** What `take` gave has no record. */
  settleGap({ partition, run }: { partition: QueuePartition; run: AcquiredRun }, ofQueue: MessageCounters): void {
    this.#settle(this.#gotHolding(partition, ofQueue), 'gap', run.firstOffset, run.lastOffset);
  }

  // --- settling ---

  /** 406 for a tag that waits for nothing. Tag 0 with `isMultiple`: all. */
  acknowledge(tag: number, isMultiple: boolean, kind: 'accept' | 'release' | 'reject'): void {
    if (!(isMultiple && tag === 0) && !this.#unacked.has(tag)) throw unknownTag(tag);
    this.acknowledgeAny(tag === 0 ? Number.MAX_SAFE_INTEGER : tag, isMultiple, kind);
  }

  /** Messages that wait for their ack: the oldest tag of each piece of the line, and its queue. */
  *unackedQueues(): Iterable<{ readonly queue: Queue; readonly tag: number }> {
    for (const { holder, tag } of this.#unacked.lowest()) yield { queue: holder.queue, tag };
  }

  /** Whether a message with this tag waits for its ack. */
  awaits(tag: number): boolean {
    return this.#unacked.has(tag);
  }
  get lastTag(): number {
    return this.#lastTag;
  }

  /** As `acknowledge`, of those that wait. */
  acknowledgeAny(tag: number, isMultiple: boolean, kind: 'accept' | 'release' | 'reject'): void {
    this.#kind = kind;
    if (isMultiple) this.#unacked.takeTo(tag, this.#acknowledged);
    else this.#unacked.take(tag, this.#acknowledged);
    if (this.#isAnyDone) this.#closeDone();
    this.#host.schedule();
  }

  readonly #acknowledged = (holding: Holding, firstOffset: number, lastOffset: number): void => {
    const { subscription, owner, counters } = holding;
    if (this.#kind === 'accept') {
      this.#host.counters.ack += lastOffset - firstOffset + 1;
      counters.ack += lastOffset - firstOffset + 1;
    }
    if (owner !== undefined) this.#settle(holding, this.#kind, firstOffset, lastOffset);
    if (subscription === undefined) return;
    subscription.unacked -= lastOffset - firstOffset + 1;
    this.#touched.add(subscription);
    if (subscription.isCancelled && subscription.unacked === 0) this.#isAnyDone = true;
  };

  #closeDone(): void {
    this.#isAnyDone = false;
    for (const subscription of this.#leaving) this.#closeIfDone(subscription);
  }

  /** Everything that is not acked goes back. */
  recover(): void {
    this.acknowledge(0, true, 'release');
  }

  #settle(holding: Holding, kind: SettleKind, firstOffset: number, lastOffset: number): void {
    const { settlements } = holding;
    if (settlements.length === 0) this.#decided.push(holding);
    else {
      const last = settlements[settlements.length - 1];
      if (last.kind === kind && last.lastOffset + 1 === firstOffset) {
        last.lastOffset = lastOffset;
        return;
      }
    }
    settlements.push({ kind, firstOffset, lastOffset });
  }

  /** Tells the queues what was decided in this turn. */
  settle(): void {
    if (this.#decided.length === 0) return;
    const decided = this.#decided;
    this.#decided = [];
    for (const holding of decided) {
      const { queue, owner, partition, settlements } = holding;
      holding.settlements = [];
      if (owner === undefined || queue.isDeleted) continue;
      if (tellQueue(queue, owner, partition, settlements) || settlements.length === 1) continue;
      // One that is not held any more (purged by another door) must not keep the others.
      for (const each of settlements) tellQueue(queue, owner, partition, [each]);
    }
  }

  /** Tells consumers' queues how much they take now. */
  refill(): void {
    if (this.#isClosed) return;
    const { hasRoom } = this.#host;
    // A limit of the channel, and a peer that takes no more, concern all of them.
    const isForAll = this.#isAllTouched || this.globalPrefetch > 0 || hasRoom !== this.#hadRoom;
    this.#hadRoom = hasRoom;
    this.#isAllTouched = false;
    if (!isForAll && this.#touched.size === 0) return;
    const channelRoom = this.#channelRoom();
    const touched = this.#touched;
    // A reader that is told may have messages at once, and is touched again.
    this.#touched = this.#untouched;
    for (const subscription of isForAll ? this.#subscriptions.values() : touched) {
      if (subscription.isCancelled) continue;
      const messages = this.#roomOf(subscription, channelRoom);
      subscription.consumer?.want({ messages, bytes: CREDIT_BYTES });
      subscription.reading?.want(messages);
    }
    touched.clear();
    this.#untouched = touched;
  }

  #channelRoom(): number {
    const { globalPrefetch } = this;
    return globalPrefetch === 0 ? Number.POSITIVE_INFINITY : globalPrefetch - this.#unackedAndPending();
  }

  #roomOf({ isNoAck, prefetch, unacked, pending }: Subscription, channelRoom: number): number {
    if (!this.#host.hasRoom) return 0;
    let messages = CREDIT_MESSAGES - pending;
    if (!isNoAck) {
      if (prefetch > 0) messages = Math.min(messages, prefetch - unacked - pending);
      messages = Math.min(messages, channelRoom);
    }
    return Math.max(0, messages);
  }

  /** The channel has ended: everything that is not acked goes back. */
  close(): void {
    if (this.#isClosed) return;
    this.settle();
    this.#isClosed = true;
    for (const subscription of [...this.#subscriptions.values(), ...this.#leaving]) {
      subscription.isCancelled = true;
      subscription.reading?.close();
      subscription.consumer?.close({ isFailure: true });
    }
    if (this.#getOwner !== undefined) {
      for (const { queue } of this.#gotFrom.values()) if (!queue.isDeleted) queue.release(this.#getOwner, true);
    }
    this.#subscriptions.clear();
    this.#touched.clear();
    this.#leaving.clear();
    this.#unacked.clear();
    for (const { found } of this.#arrivals) found?.release();
    this.#arrivals.length = 0;
  }
}

function holdingOf(subscription: Subscription, partition: QueuePartition): Holding {
  let holding = subscription.holdings.get(partition);
  if (holding === undefined) {
    holding = newHolding(subscription, partition.queue, partition.index);
    subscription.holdings.set(partition, holding);
  }
  return holding;
}

function readHolding(subscription: Subscription): Holding {
  const { queue, partitionIndex = 0 } = subscription.amqpQueue;
  subscription.readHolding ??= newHolding(subscription, queue, partitionIndex);
  return subscription.readHolding;
}

function newHolding(subscription: Subscription, queue: Queue, partition: number): Holding {
  const { consumer, amqpQueue } = subscription;
  return { subscription, owner: consumer?.id, queue, partition, counters: amqpQueue.counters, settlements: [] };
}

/** False: something of it is not held. */
function tellQueue(queue: Queue, owner: OwnerId, partition: number, list: readonly Settlement[]): boolean {
  try {
    queue.settle(owner, partition, list);
    return true;
  } catch (error) {
    if (error instanceof MillraceError) return false;
    throw error;
  }
}

const firstOffsetOf = ({ batch, index }: RecordSpan): number => batch.offsetOf(index);
const lastOffsetOf = ({ batch, index, count }: RecordSpan): number => batch.offsetOf(index + count - 1);

/** Index of the first span that ends at or above `offset`. */
function spanIndex(spans: readonly RecordSpan[], offset: number): number {
  let low = 0;
  let high = spans.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (lastOffsetOf(spans[middle]) < offset) low = middle + 1;
    else high = middle;
  }
  return low;
}

function inOrderOfOffsets(runs: readonly AcquiredRun[]): readonly OffsetRun[] {
  for (let index = 1; index < runs.length; index++) {
    if (runs[index].firstOffset < runs[index - 1].firstOffset) {
      return [...runs].sort((a, b) => a.firstOffset - b.firstOffset);
    }
  }
  return runs;
}

/** The first `count` messages, and the rest. */
function splitRuns(runs: readonly AcquiredRun[], count: number): { first: AcquiredRun[]; rest: AcquiredRun[] } {
  const first: AcquiredRun[] = [];
  const rest: AcquiredRun[] = [];
  let left = count;
  for (const run of runs) {
    const size = run.lastOffset - run.firstOffset + 1;
    if (left >= size) first.push(run);
    else if (left <= 0) rest.push(run);
    else {
      first.push({ ...run, lastOffset: run.firstOffset + left - 1 });
      rest.push({ ...run, firstOffset: run.firstOffset + left });
    }
    left -= size;
  }
  return { first, rest };
}
