/**
 * One consumer of one or many queues, of any door: what it has joined, how much it wants, and what it holds locks on.
 *
 * Always true: `onAcquired` and `onServed` run in the serve loop (`queue-serving.ts`), never inside a call of the door;
 * what was acquired may leave when `QueueRegistry.whenLeased` calls back, asked from within `onAcquired`.
 */
import { MillraceError } from '../protocol/errors.ts';
import type { Acquisition, OwnerId, QueueDoor } from './queue.ts';
import type { QueuePartition } from './queue-partition.ts';
import type { Queue } from './queues.ts';

export interface ConsumerOptions {
  readonly door: QueueDoor;
  /** Larger ones are served first. Default 0. */
  readonly priority?: number;
  /** While it is there, nobody else gets anything from the queues it joined. Default false. */
  readonly isExclusive?: boolean;
  /** How long what is handed out stays locked; `connection`: as long as the consumer is there. */
  readonly lockMs: number | 'connection';
  /** Whether the locks end with the consumer, and with the broker. Default: all doors' but SQS's. */
  readonly isBoundToConnection?: boolean;
  /** Some messages are this consumer's now. Read them, and answer when `QueueRegistry.whenLeased` calls back. */
  onAcquired(queue: Queue, acquisition: Acquisition): void;
  /** After the last `onAcquired` of a turn: nothing more comes before the next one. */
  onServed?(): void;
  /** The queue has ended (or its topic): the consumer is not joined any more and holds nothing of it. */
  onLeft?(queue: Queue): void;
}

export interface Wanted {
  /** How many more messages it takes; replaces what it wanted before. 0: nothing for now. */
  readonly messages: number;
  /** Roughly: messages are estimated by the average size of the log. Default: no limit. */
  readonly bytes?: number;
  /** A pull: after the first turn that brings something, nothing more is wanted. Default false: credit. */
  readonly isOnce?: boolean;
  /**
   * Last offset of the batch that holds an offset, if it is known cheaply: an acquisition that reaches the limit inside a
   * batch goes on to its end (KIP-1206 `batch_optimized`).
   */
  readonly batchEnd?: (partition: QueuePartition, offset: number) => number;
}

/** What a consumer needs of the registry. */
export interface ConsumerHost {
  newOwner(consumer: Consumer): OwnerId;
  gone(consumer: Consumer): void;
  /** Somebody may get something from the partition. */
  wake(partition: QueuePartition): void;
  /** Gives back all that the owner holds. */
  release(partition: QueuePartition, owner: OwnerId, isFailure: boolean): void;
}

interface Joined {
  /** Undefined: all. */
  readonly partitions: ReadonlySet<number> | undefined;
  readonly open: Set<QueuePartition>;
}

export class Consumer {
  readonly id: OwnerId;
  readonly door: QueueDoor;
  readonly priority: number;
  readonly isExclusive: boolean;
  readonly isBoundToConnection: boolean;
  /** Of what is handed out from now on. */
  lockMs: number | 'connection';
  readonly #host: ConsumerHost;
  readonly #options: ConsumerOptions;
  readonly #joined = new Map<Queue, Joined>();
  /** Where something was handed to it; perhaps all of it is settled by now. */
  readonly #holding = new Set<QueuePartition>();
  #wanted: Wanted = { messages: 0 };
  #messagesLeft = 0;
  #bytesLeft = Number.POSITIVE_INFINITY;
  /** Which partition is first to be asked. */
  #turn = 0;
  #isClosed = false;
  /** Got something in this turn. */
  isServed = false;

  constructor(host: ConsumerHost, options: ConsumerOptions) {
    this.#host = host;
    this.#options = options;
    this.door = options.door;
    this.priority = options.priority ?? 0;
    this.isExclusive = options.isExclusive === true;
    this.isBoundToConnection = options.isBoundToConnection ?? options.door !== 'sqs';
    this.lockMs = options.lockMs;
    this.id = host.newOwner(this);
  }

  /** Messages that it still takes. */
  get wanted(): number {
    return this.#messagesLeft;
  }
  get isClosed(): boolean {
    return this.#isClosed;
  }
  queues(): IterableIterator<Queue> {
    return this.#joined.keys();
  }

  /**
   * Takes from these partitions of the queue (default: all, also those added later); replaces an earlier join. A plain
   * group's state is made now if there is none. QUEUE_IN_USE if somebody else has the queue for himself, or somebody is
   * there and this consumer wants it for itself.
   */
  join(queue: Queue, partitions?: readonly number[]): void {
    if (this.#isClosed) throw new Error('a closed consumer joins a queue');
    if (queue.isDeleted) throw new MillraceError('QUEUE_NOT_FOUND', `the queue '${queue.name}' does not exist`);
    const before = this.#joined.get(queue);
    const joined: Joined = { partitions: partitions && new Set(partitions), open: before?.open ?? new Set() };
    this.#joined.set(queue, joined);
    queue.joined.add(this);
    for (const partition of joined.open) {
      if (joined.partitions === undefined || joined.partitions.has(partition.index)) continue;
      partition.demand.remove(this.id);
      joined.open.delete(partition);
      this.#host.wake(partition);
    }
    const indexes = partitions ?? queue.topic.partitions.keys();
    for (const index of indexes) {
      const partition = queue.ensure(index);
      if (partition !== undefined && !this.#open(joined, partition)) {
        this.leave(queue);
        throw new MillraceError('QUEUE_IN_USE', `the queue '${queue.name}' has an exclusive consumer`);
      }
    }
  }

  /** The queue has a partition more, or the state of one is ready. */
  opened(partition: QueuePartition): void {
    const joined = this.#joined.get(partition.queue);
    if (joined === undefined || (joined.partitions !== undefined && !joined.partitions.has(partition.index))) return;
    this.#open(joined, partition);
  }

  /** The topic has more partitions than before. */
  partitionsAdded(queue: Queue): void {
    if (this.#joined.get(queue)?.partitions !== undefined) return;
    for (const index of queue.topic.partitions.keys()) queue.ensure(index);
  }

  #open(joined: Joined, partition: QueuePartition): boolean {
    if (joined.open.has(partition)) return true;
    const { id: owner, priority, isExclusive } = this;
    if (!partition.demand.add({ owner, priority, isExclusive })) return false;
    joined.open.add(partition);
    if (this.#messagesLeft > 0) {
      partition.demand.want(owner, this.#messagesLeft);
      this.#host.wake(partition);
    }
    return true;
  }

  /** Takes nothing more from the queue; what it holds stays locked. */
  leave(queue: Queue): void {
    const joined = this.#joined.get(queue);
    if (joined === undefined) return;
    this.#joined.delete(queue);
    queue.joined.delete(this);
    queue.used();
    for (const partition of joined.open) {
      partition.demand.remove(this.id);
      this.#host.wake(partition);
    }
  }

  want(wanted: Wanted): void {
    if (this.#isClosed) return;
    this.#wanted = wanted;
    this.#messagesLeft = Math.max(0, wanted.messages);
    this.#bytesLeft = wanted.bytes ?? Number.POSITIVE_INFINITY;
    this.#spread();
  }

  /** Tells every partition what it may still get; another is first each time, as the first may give all of it. */
  #spread(): void {
    const partitions: QueuePartition[] = [];
    for (const { open } of this.#joined.values()) partitions.push(...open);
    if (this.#messagesLeft > 0) this.#turn = (this.#turn + 1) % Math.max(1, partitions.length);
    for (let index = 0; index < partitions.length; index++) {
      const partition = partitions[(this.#turn + index) % partitions.length];
      partition.demand.want(this.id, this.#messagesLeft);
      if (this.#messagesLeft > 0) this.#host.wake(partition);
    }
  }

  // --- for the serve loop ---

  /** How many messages of this partition it takes now. */
  room(partition: QueuePartition): number {
    if (this.#bytesLeft === Number.POSITIVE_INFINITY) return this.#messagesLeft;
    if (this.#bytesLeft <= 0) return 0;
    const { sizeBytes, startOffset, endOffset } = partition.log;
    const averageBytes = Math.max(1, sizeBytes / Math.max(1, endOffset - startOffset));
    return Math.min(this.#messagesLeft, Math.max(1, Math.floor(this.#bytesLeft / averageBytes)));
  }

  get batchEnd(): Wanted['batchEnd'] {
    return this.#wanted.batchEnd;
  }

  acquired(partition: QueuePartition, acquisition: Acquisition): void {
    const count = acquisition.messageCount;
    this.#messagesLeft = Math.max(0, this.#messagesLeft - count);
    if (this.#bytesLeft !== Number.POSITIVE_INFINITY) {
      const { sizeBytes, startOffset, endOffset } = partition.log;
      this.#bytesLeft -= (count * sizeBytes) / Math.max(1, endOffset - startOffset);
    }
    this.#holding.add(partition);
    partition.queue.delivered += count;
    this.isServed = true;
    this.#options.onAcquired(partition.queue, acquisition);
  }

  /** The turn is over. */
  served(): void {
    this.isServed = false;
    if (this.#isClosed) return;
    if (this.#wanted.isOnce === true) {
      this.#messagesLeft = 0;
      this.#spread();
    }
    this.#options.onServed?.();
  }

  /** The queue has ended. */
  left(queue: Queue): void {
    const joined = this.#joined.get(queue);
    this.#joined.delete(queue);
    for (const partition of this.#holding) if (partition.queue === queue) this.#holding.delete(partition);
    if (joined !== undefined) this.#options.onLeft?.(queue);
  }

  /**
   * The consumer is gone: leaves all queues. If it is bound to its connection, what it holds goes back to its place;
   * `isFailure`: whether that counts as a failed delivery. Else (SQS) the locks stay until they run out.
   */
  close({ isFailure }: { isFailure: boolean }): void {
    if (this.#isClosed) return;
    for (const queue of [...this.#joined.keys()]) this.leave(queue);
    this.#isClosed = true;
    this.#messagesLeft = 0;
    if (this.isBoundToConnection) {
      for (const partition of this.#holding) this.#host.release(partition, this.id, isFailure);
    }
    this.#holding.clear();
    this.#host.gone(this);
  }
}
