/**
 * Sends on their way into the log: those of one turn for one queue become one batch, whatever requests they came in.
 * A message that was sent before, within the deduplication interval of a FIFO queue, is not appended again: it is
 * answered with the place of the first.
 *
 * Always true: who is told of a place may answer when `QueueRegistry.whenDurable` has called back after that.
 */
import { MillraceError } from '../../protocol/errors.ts';
import { BatchBuilder } from '../../protocol/record-batch.ts';
import type { Clock } from '../../storage/clock.ts';
import type { AppendOptions, Engine, Partition, Position } from '../../broker/engine.ts';
import type { QueueRegistry } from '../../broker/queues.ts';
import type { CheckedMessage } from './messages.ts';
import type { SqsQueue } from './queue-book.ts';

/** A message larger than this is a batch of its own. */
const BATCH_BYTES_MAX = 64 * 1024;
const WAITED: AppendOptions = { origin: 'client', urgency: 'waited' };

/** Where a message is now, or why it is nowhere. */
export type Sent = { readonly partition: number; readonly offset: number } | { readonly error: MillraceError };

/** Messages of one request, in order. */
export interface SendRequest {
  readonly target: SqsQueue;
  readonly messages: readonly CheckedMessage[];
  /** All of them have places, and what was appended is durable. */
  done(sent: readonly Sent[]): void;
}

export interface SenderParts {
  readonly engine: Engine;
  readonly clock: Clock;
  readonly queues: QueueRegistry;
}

/** Where the answer for a message goes, and for those that are the same. */
interface Slot {
  readonly sent: Sent[];
  readonly index: number;
  readonly repeats: { readonly sent: Sent[]; readonly index: number }[];
}

interface OpenBatch {
  readonly builder: BatchBuilder;
  readonly slots: Slot[];
  /** Of messages that may be repeated. */
  readonly keys: Map<string, Slot>;
}

export class Sender {
  readonly #parts: SenderParts;
  #waiting: SendRequest[] = [];
  /** Which partition of an attached queue's topic is next. */
  #turn = 0;

  constructor(parts: SenderParts) {
    this.#parts = parts;
  }

  send(request: SendRequest): void {
    this.#waiting.push(request);
    if (this.#waiting.length === 1) this.#parts.clock.endOfTurn(() => this.#flush());
  }

  #flush(): void {
    const requests = this.#waiting;
    this.#waiting = [];
    const { engine } = this.#parts;
    let position: Position = 0;
    const answers: { request: SendRequest; sent: Sent[] }[] = [];
    for (const [partition, each] of this.#byPartition(requests)) {
      if (each.length === 0) continue;
      if (partition.isFenced) {
        const error = new MillraceError('KAFKA_STORAGE_ERROR', `the log of ${partition.topic} cannot be written`);
        for (const request of each) answers.push({ request, sent: request.messages.map(() => ({ error })) });
        continue;
      }
      position = Math.max(position, this.#append(partition, each, answers));
    }
    engine.whenDurable(position, () => {
      for (const { request, sent } of answers) request.done(sent);
    });
  }

  #byPartition(requests: readonly SendRequest[]): Map<Partition, SendRequest[]> {
    const partitions = new Map<Partition, SendRequest[]>();
    for (const request of requests) {
      const all = request.target.queue.topic.partitions;
      // One group stays on one partition.
      const index = all.length === 1 ? 0 : this.#indexFor(request, all.length);
      const partition = all[index];
      const known = partitions.get(partition);
      if (known === undefined) partitions.set(partition, [request]);
      else known.push(request);
    }
    return partitions;
  }

  #indexFor({ messages, target }: SendRequest, count: number): number {
    if (target.isFifo) return 0;
    const [first] = messages;
    if (first?.group === undefined) return (this.#turn = (this.#turn + 1) % count);
    let hash = 0;
    for (const byte of Buffer.from(first.group)) hash = (Math.imul(hash, 31) + byte) >>> 0;
    return hash % count;
  }

  #append(
    partition: Partition,
    requests: readonly SendRequest[],
    answers: { request: SendRequest; sent: Sent[] }[],
  ): Position {
    const { clock, queues, engine } = this.#parts;
    const timestamp = clock.now();
    const intake = queues.intake(partition.topicId);
    const open: OpenBatch = { builder: new BatchBuilder(BATCH_BYTES_MAX), slots: [], keys: new Map() };
    let position: Position = 0;
    const flush = (): void => {
      position = Math.max(position, this.#appendBatch(partition, open));
    };
    for (const request of requests) {
      const sent: Sent[] = new Array(request.messages.length);
      answers.push({ request, sent });
      for (const [index, { record, group, dedupId, body }] of request.messages.entries()) {
        const key = intake?.dedupKey({ id: dedupId, group, value: body });
        if (key !== undefined) {
          const first = intake?.firstSend(key);
          const same = open.keys.get(key);
          if (first !== undefined) {
            sent[index] = first;
            // The first may not be durable yet.
            position = Math.max(position, engine.lastPosition);
            continue;
          }
          if (same !== undefined) {
            same.repeats.push({ sent, index });
            continue;
          }
        }
        const init = { ...record, timestamp };
        if (!open.builder.add(init)) {
          flush();
          open.builder.add(init);
        }
        const slot: Slot = { sent, index, repeats: [] };
        open.slots.push(slot);
        if (key !== undefined) open.keys.set(key, slot);
      }
    }
    if (open.builder.recordCount > 0) flush();
    return position;
  }

  #appendBatch(partition: Partition, { builder, slots, keys }: OpenBatch): Position {
    const batch = builder.build();
    const placed = slots.splice(0);
    keys.clear();
    const put = ({ sent, index, repeats }: Slot, place: Sent): void => {
      sent[index] = place;
      for (const repeat of repeats) repeat.sent[repeat.index] = place;
    };
    try {
      const intake = this.#parts.queues.intake(partition.topicId);
      const pending = intake?.check(partition, batch, 'door');
      const appended = partition.append(batch, WAITED);
      if (pending !== undefined) intake?.appended(partition, pending, appended);
      for (const [delta, slot] of placed.entries()) {
        put(slot, { partition: partition.index, offset: appended.baseOffset + delta });
      }
      return appended.position;
    } catch (error) {
      if (!(error instanceof MillraceError)) throw error;
      for (const slot of placed) put(slot, { error });
      return 0;
    }
  }
}
