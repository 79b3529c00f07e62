/**
 * What a channel hands to its consumers: credit, messages on their way, and what waits for an ack.
 *
 * Always true: messages leave in the order in which their acquisitions came, each after its acquisition is durable;
 * what a limit of the channel does not allow goes back as if it had never been taken; a message that is not acked is
 * released when the channel ends.
 */
import { MillraceError } from '../../protocol/errors.ts';
import type { AcquiredRun, Acquisition, OwnerId, Settlement, SettleKind } from '../../broker/queue.ts';
import type { Consumer } from '../../broker/queue-consumer.ts';
import type { QueuedRecord, QueuedRecords, QueueReader } from '../../broker/queue-reader.ts';
import type { Queue, QueuePartition, QueueRegistry } from '../../broker/queues.ts';
import { AmqpError } from './reply.ts';
import type { AmqpQueue } from './vhost.ts';

/** Messages on their way to a consumer without a prefetch. */
const CREDIT_MESSAGES = 1000;
/** And their bytes, roughly. */
const CREDIT_BYTES = 512 * 1024;

export interface SubscriptionInit {
  readonly tag: string;
  readonly amqpQueue: AmqpQueue;
  readonly isNoAck: boolean;
  /** 0: no limit. */
  readonly prefetch: number;
  readonly isExclusive: boolean;
  readonly priority: number;
}

/** One consumer of the channel. */
export interface Subscription extends SubscriptionInit {
  readonly consumer: Consumer;
  unacked: number;
  /** Acquired, not delivered yet. */
  pending: number;
  isCancelled: boolean;
}

/** A message that waits for its ack. */
interface Unacked {
  readonly subscription: Subscription | undefined;
  readonly owner: OwnerId;
  readonly queue: Queue;
  readonly partition: number;
  readonly offset: number;
}

/** Messages of one acquisition on their way. */
interface Arrival {
  readonly subscription: Subscription;
  readonly partition: QueuePartition;
  readonly runs: readonly AcquiredRun[];
  readonly count: number;
  found: QueuedRecords | undefined;
  isFailed: boolean;
}

export interface DeliveryHost {
  readonly queues: QueueRegistry;
  readonly reader: QueueReader;
  /** The peer takes more. */
  readonly hasRoom: boolean;
  deliver(subscription: Subscription, tag: number, record: QueuedRecord, run: AcquiredRun): void;
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
  readonly #unacked = new Map<number, Unacked>();
  readonly #arrivals: Arrival[] = [];
  #settlements = new Map<string, { owner: OwnerId; queue: Queue; partition: number; list: Settlement[] }>();
  #lastTag = 0;
  /** Owner of what `basic.get` took. */
  #getOwner: OwnerId | undefined;
  readonly #gotFrom = new Set<Queue>();
  /** Of all consumers of the channel together; 0: no limit. */
  globalPrefetch = 0;
  #isClosed = false;

  constructor(host: DeliveryHost) {
    this.#host = host;
  }

  get(tag: string): Subscription | undefined {
    return this.#subscriptions.get(tag);
  }

  /** MillraceError QUEUE_IN_USE. */
  subscribe(init: SubscriptionInit): Subscription {
    const { queues } = this.#host;
    const subscription: Subscription = {
      ...init,
      unacked: 0,
      pending: 0,
      isCancelled: false,
      consumer: queues.consumer({
        door: 'amqp',
        priority: init.priority,
        isExclusive: init.isExclusive,
        lockMs: 'connection',
        onAcquired: (queue, acquisition) => this.#acquired(subscription, queue, acquisition),
        onServed: () => this.#host.schedule(),
        onLeft: () => {
          if (subscription.isCancelled) return;
          this.#subscriptions.delete(subscription.tag);
          subscription.isCancelled = true;
          this.#host.cancelled(subscription);
        },
      }),
    };
    try {
      subscription.consumer.join(init.amqpQueue.queue);
    } catch (error) {
      subscription.consumer.close({ isFailure: false });
      throw error;
    }
    init.amqpQueue.wasConsumed = true;
    this.#subscriptions.set(init.tag, subscription);
    return subscription;
  }

  /** What it holds stays locked until it is acked or the channel ends. */
  cancel(subscription: Subscription): void {
    this.#subscriptions.delete(subscription.tag);
    subscription.isCancelled = true;
    subscription.consumer.leave(subscription.amqpQueue.queue);
    this.#leaving.add(subscription);
    this.#closeIfDone(subscription);
  }

  #closeIfDone(subscription: Subscription): void {
    if (!subscription.isCancelled || subscription.unacked > 0 || subscription.pending > 0) return;
    if (this.#leaving.delete(subscription)) subscription.consumer.close({ isFailure: false });
  }

  subscriptions(): IterableIterator<Subscription> {
    return this.#subscriptions.values();
  }

  // --- handing out ---

  #acquired(subscription: Subscription, queue: Queue, { partition: index, runs, messageCount }: Acquisition): void {
    const partition = queue.partition(index);
    if (partition === undefined) return;
    let taken = runs;
    let count = messageCount;
    const { globalPrefetch } = this;
    if (globalPrefetch > 0 && !subscription.isNoAck) {
      const room = Math.max(0, globalPrefetch - this.#unackedAndPending());
      if (room < count) {
        const split = splitRuns(runs, room);
        taken = split.first;
        count = room;
        for (const run of split.rest) this.#settle(subscription.consumer.id, partition, run, 'undo');
        this.#host.schedule();
      }
    }
    if (count === 0) return;
    subscription.pending += count;
    const arrival: Arrival = { subscription, partition, runs: taken, count, found: undefined, isFailed: false };
    this.#arrivals.push(arrival);
    this.#host.queues.whenDurable(() => this.#read(arrival));
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
    const ascending = [...runs].sort((a, b) => a.firstOffset - b.firstOffset);
    try {
      const reading = this.#host.reader.records(partition.log, ascending);
      if (!(reading instanceof Promise)) {
        arrival.found = reading;
        return this.#deliver();
      }
      reading.then(
        (found) => {
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
      if (subscription.isCancelled || found === undefined) this.#undo(arrival);
      else this.#hand(arrival, found);
      this.#closeIfDone(subscription);
    }
    if (done > 0) this.#arrivals.splice(0, done);
    this.#host.schedule();
  }

  #undo({ subscription, partition, runs }: Arrival): void {
    for (const run of runs) this.#settle(subscription.consumer.id, partition, run, 'undo');
  }

  #hand({ subscription, partition, runs }: Arrival, { records, gaps }: QueuedRecords): void {
    const owner = subscription.consumer.id;
    for (const gap of gaps) this.#settle(owner, partition, gap, 'gap');
    let next = 0;
    for (const run of runs) {
      for (let offset = run.firstOffset; offset <= run.lastOffset; offset++) {
        // Mostly in order; with priorities the place is searched.
        if (records[next]?.offset !== offset) next = indexOfOffset(records, offset);
        const record = records[next++];
        if (record?.offset !== offset) continue;
        const tag = ++this.#lastTag;
        if (subscription.isNoAck) {
          this.#settle(owner, partition, { firstOffset: offset, lastOffset: offset }, 'accept');
        } else {
          subscription.unacked++;
          this.#unacked.set(tag, { subscription, owner, queue: partition.queue, partition: partition.index, offset });
        }
        this.#host.deliver(subscription, tag, record, run);
      }
    }
  }

  /** `basic.get`: one message now, if there is any. */
  take(queue: Queue): { partition: QueuePartition; run: AcquiredRun; owner: OwnerId } | undefined {
    this.#getOwner ??= this.#host.queues.newOwner();
    for (const partition of queue.partitions()) {
      const [run] = queue.acquire(this.#getOwner, partition.index, 1, 'amqp');
      if (run === undefined) continue;
      this.#gotFrom.add(queue);
      return { partition, run, owner: this.#getOwner };
    }
    return undefined;
  }

  /** Tag of a message that `take` gave. */
  got(
    { partition, run, owner }: { partition: QueuePartition; run: AcquiredRun; owner: OwnerId },
    isNoAck: boolean,
  ): number {
    const tag = ++this.#lastTag;
    if (isNoAck) this.#settle(owner, partition, run, 'accept');
    else {
      const { queue, index } = partition;
      this.#unacked.set(tag, { subscription: undefined, owner, queue, partition: index, offset: run.firstOffset });
    }
    return tag;
  }

  /** What `take` gave has no record. */
  settleGap({ partition, run, owner }: { partition: QueuePartition; run: AcquiredRun; owner: OwnerId }): void {
    this.#settle(owner, partition, run, 'gap');
  }

  // --- settling ---

  /** 406 for a tag that waits for nothing. Tag 0 with `isMultiple`: all. */
  acknowledge(tag: number, isMultiple: boolean, kind: 'accept' | 'release' | 'reject'): void {
    if (!isMultiple) {
      const unacked = this.#unacked.get(tag);
      if (unacked === undefined) throw unknownTag(tag);
      this.#acknowledge(tag, unacked, kind);
    } else {
      if (tag !== 0 && !this.#unacked.has(tag)) throw unknownTag(tag);
      // In the order of tags.
      for (const [each, unacked] of this.#unacked) {
        if (tag !== 0 && each > tag) break;
        this.#acknowledge(each, unacked, kind);
      }
    }
    this.#host.schedule();
  }

  #acknowledge(tag: number, unacked: Unacked, kind: 'accept' | 'release' | 'reject'): void {
    this.#unacked.delete(tag);
    const { subscription, owner, queue, partition: index, offset } = unacked;
    const partition = queue.isDeleted ? undefined : queue.partition(index);
    if (partition !== undefined) this.#settle(owner, partition, { firstOffset: offset, lastOffset: offset }, kind);
    if (subscription !== undefined) {
      subscription.unacked--;
      if (subscription.isCancelled && subscription.unacked === 0) this.settle();
      this.#closeIfDone(subscription);
    }
  }

  /** Everything that is not acked goes back. */
  recover(): void {
    this.acknowledge(0, true, 'release');
  }

  #settle(
    owner: OwnerId,
    { queue, index }: QueuePartition,
    { firstOffset, lastOffset }: { firstOffset: number; lastOffset: number },
    kind: SettleKind,
  ): void {
    const key = `${owner} ${index} ${queue.topic.id}`;
    let settling = this.#settlements.get(key);
    if (settling === undefined) {
      settling = { owner, queue, partition: index, list: [] };
      this.#settlements.set(key, settling);
    }
    const last = settling.list.at(-1);
    if (last !== undefined && last.kind === kind && last.lastOffset + 1 === firstOffset) {
      settling.list[settling.list.length - 1] = { ...last, lastOffset };
    } else settling.list.push({ kind, firstOffset, lastOffset });
  }

  /** Tells the queues what was decided in this turn. */
  settle(): void {
    if (this.#settlements.size === 0) return;
    const settlements = this.#settlements;
    this.#settlements = new Map();
    for (const { owner, queue, partition, list } of settlements.values()) {
      if (queue.isDeleted) continue;
      if (tellQueue(queue, owner, partition, list) || list.length === 1) continue;
      // One that is not held any more (purged by another door) must not keep the others.
      for (const each of list) tellQueue(queue, owner, partition, [each]);
    }
  }

  /** Tells consumers' queues how much they take now. */
  refill(): void {
    if (this.#isClosed) return;
    const { hasRoom } = this.#host;
    const channelRoom =
      this.globalPrefetch === 0 ? Number.POSITIVE_INFINITY : this.globalPrefetch - this.#unackedAndPending();
    for (const { consumer, isNoAck, prefetch, unacked, pending } of this.#subscriptions.values()) {
      let messages = CREDIT_MESSAGES - pending;
      if (!isNoAck) {
        if (prefetch > 0) messages = Math.min(messages, prefetch - unacked - pending);
        messages = Math.min(messages, channelRoom);
      }
      if (!hasRoom) messages = 0;
      consumer.want({ messages: Math.max(0, messages), bytes: CREDIT_BYTES });
    }
  }

  /** The channel has ended: everything that is not acked goes back. */
  close(): void {
    if (this.#isClosed) return;
    this.settle();
    this.#isClosed = true;
    for (const subscription of [...this.#subscriptions.values(), ...this.#leaving]) {
      subscription.isCancelled = true;
      subscription.consumer.close({ isFailure: true });
    }
    if (this.#getOwner !== undefined) {
      for (const queue of this.#gotFrom) if (!queue.isDeleted) queue.release(this.#getOwner, true);
    }
    this.#subscriptions.clear();
    this.#leaving.clear();
    this.#unacked.clear();
    this.#arrivals.length = 0;
  }
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

function unknownTag(tag: number): AmqpError {
  return new AmqpError('PRECONDITION_FAILED', `unknown delivery tag ${tag}`);
}

function indexOfOffset(records: readonly QueuedRecord[], offset: number): number {
  let low = 0;
  let high = records.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (records[middle].offset < offset) low = middle + 1;
    else high = middle;
  }
  return low;
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
