/**
 * What a transactional channel (`tx.select`) has published and acked since its last commit. Nothing of it happens before
 * the commit, and then all of it in one journal record, over any number of queues: RabbitMQ promises that for one queue.
 *
 * Always true: what is acked here waits for the commit as a message that is not acked (it counts for the prefetch, and goes
 * back when the channel ends); a commit that fails has done nothing.
 */
import { MillraceError } from '../../protocol/errors.ts';
import { BatchBuilder } from '../../protocol/record-batch.ts';
import type { Letter } from '../../broker/dead-letters.ts';
import type { Partition } from '../../broker/engine.ts';
import type { Queue, QueueRegistry } from '../../broker/queues.ts';
import type { Deliveries } from './deliveries.ts';
import type { Message } from './properties.ts';
import { BATCH_BYTES_MAX } from './publisher.ts';
import { AmqpError, unknownTag } from './reply.ts';

type AckKind = 'accept' | 'release' | 'reject';

/** One queue of a message, with its record there. */
export interface Place {
  readonly queue: Queue;
  readonly partition: Partition;
  readonly record: Letter;
}

/** What a message costs beside its body. */
const MESSAGE_OVERHEAD_BYTES = 512;

export class Transaction {
  readonly #bytesMax: number;
  #published: Place[] = [];
  /** Mandatory, and nowhere to go. */
  #unroutable: Message[] = [];
  #sizeBytes = 0;
  #acks: { readonly tag: number; readonly isMultiple: boolean; readonly kind: AckKind }[] = [];
  readonly #acked = new Set<number>();
  /** Up to here all tags are acked. */
  #ackedTo = 0;

  /** `bytesMax`: of its messages. */
  constructor(bytesMax: number) {
    this.#bytesMax = bytesMax;
  }

  /** `places`: the queues of the message with its record for each. 406 if the transaction has become too large. */
  publish(message: Message, places: readonly Place[]): void {
    this.#sizeBytes += (message.body.length + MESSAGE_OVERHEAD_BYTES) * Math.max(1, places.length);
    if (this.#sizeBytes > this.#bytesMax) {
      throw new AmqpError('PRECONDITION_FAILED', `a transaction may hold ${this.#bytesMax} bytes of messages`);
    }
    this.#published.push(...places);
  }

  returned(message: Message): void {
    this.publish(message, []);
    this.#unroutable.push(message);
  }

  /** As `Deliveries.acknowledge`, at the commit. */
  acknowledge(deliveries: Deliveries, tag: number, isMultiple: boolean, kind: AckKind): void {
    if (!(isMultiple && tag === 0) && !this.#waits(deliveries, tag)) throw unknownTag(tag);
    const last = isMultiple && tag === 0 ? deliveries.lastTag : tag;
    if (last === 0) return;
    this.#acks.push({ tag: last, isMultiple, kind });
    if (isMultiple) this.#ackedTo = Math.max(this.#ackedTo, last);
    else this.#acked.add(last);
  }

  #waits(deliveries: Deliveries, tag: number): boolean {
    return deliveries.awaits(tag) && tag > this.#ackedTo && !this.#acked.has(tag);
  }

  /** Files that must be read before `commit`. */
  loading(): Promise<void>[] {
    const partitions = new Set(this.#published.map(({ partition }) => partition));
    return [...partitions].map((partition) => partition.prepare()).filter((loading) => loading !== undefined);
  }

  /** Answers the messages that have nowhere to go. 406 if a queue takes its message not: then nothing has happened. */
  commit(queues: QueueRegistry, deliveries: Deliveries): readonly Message[] {
    const unroutable = this.#unroutable;
    const acks = this.#acks;
    const appends = this.#batches();
    if (appends.length > 0 || acks.length > 0) {
      try {
        queues.publishTogether(appends, () => {
          for (const { tag, isMultiple, kind } of acks) deliveries.acknowledgeAny(tag, isMultiple, kind);
          deliveries.settle();
        });
      } catch (error) {
        if (!(error instanceof MillraceError) || error.code !== 'POLICY_VIOLATION') throw error;
        throw new AmqpError('PRECONDITION_FAILED', 'partial tx completion');
      }
    }
    this.rollback();
    return unroutable;
  }

  #batches(): { partition: Partition; batch: Buffer }[] {
    const builders = new Map<Partition, BatchBuilder>();
    const batches: { partition: Partition; batch: Buffer }[] = [];
    for (const { queue, partition, record } of this.#published) {
      if (queue.isDeleted) continue;
      if (partition.isFenced) throw new MillraceError('KAFKA_STORAGE_ERROR', `queue '${queue.name}' cannot be written`);
      let builder = builders.get(partition);
      if (builder === undefined) {
        builder = new BatchBuilder(BATCH_BYTES_MAX);
        builders.set(partition, builder);
      }
      if (builder.add(record)) continue;
      batches.push({ partition, batch: builder.build({ timestampType: partition.config.timestampType }) });
      builder.add(record);
    }
    for (const [partition, builder] of builders) {
      batches.push({ partition, batch: builder.build({ timestampType: partition.config.timestampType }) });
    }
    return batches;
  }

  /** Forgets everything; what was acked waits again. */
  rollback(): void {
    this.#published = [];
    this.#unroutable = [];
    this.#sizeBytes = 0;
    this.#acks = [];
    this.#acked.clear();
    this.#ackedTo = 0;
  }
}
