/**
 * Publishes of one connection on their way into the log: those of one read turn for one queue become one batch. A confirm
 * leaves when everything its message went into is durable.
 *
 * Always true: after `flush` nothing of the read buffer is held; confirms of a channel are in the order of their tags, so
 * each may say `multiple`.
 */
import { MillraceError } from '../../protocol/errors.ts';
import { BatchBuilder } from '../../protocol/record-batch.ts';
import type { Clock } from '../../storage/clock.ts';
import type { AppendOptions, Engine, Partition, Position } from '../../broker/engine.ts';
import type { Letter } from '../../broker/dead-letters.ts';
import type { Queue, QueueRegistry } from '../../broker/queues.ts';

/** A message larger than this is a batch of its own. */
export const BATCH_BYTES_MAX = 64 * 1024;
const FREE_BUILDERS_MAX = 64;

/** What a channel in confirm mode is told. */
export interface ConfirmSink {
  /** Tags up to `lastTag` that were not told before. `failed`: those of them that are not safe. */
  confirm(lastTag: number, failed: ReadonlySet<number>): void;
}

/** The confirms of one channel. Tags count its publishes from 1. */
export class Confirms {
  readonly sink: ConfirmSink;
  lastTag = 0;
  /** Of what was appended so far. */
  position: Position = 0;
  failed = new Set<number>();

  constructor(sink: ConfirmSink) {
    this.sink = sink;
  }
}

/**
 * Builders that are used again and again, shared by all connections of the door: the memory of a batch is needed only until
 * it is appended.
 */
export class BatchBuilders {
  readonly #free: BatchBuilder[] = [];

  take(): BatchBuilder {
    return this.#free.pop() ?? new BatchBuilder(BATCH_BYTES_MAX);
  }
  /** It is empty, and nobody looks at its batch any more. */
  give(builder: BatchBuilder): void {
    if (this.#free.length < FREE_BUILDERS_MAX && builder.heldBytes <= 2 * BATCH_BYTES_MAX) this.#free.push(builder);
  }
}

interface OpenBatch {
  readonly builder: BatchBuilder;
  /** Messages that its queue takes after those before it. */
  room: number;
  /** Who waits for it: neighbours of equal index. */
  confirms: Confirms[];
  tags: number[];
  isWaited: boolean;
}

export interface PublisherParts {
  readonly engine: Engine;
  readonly clock: Clock;
  readonly queues: QueueRegistry;
  readonly builders: BatchBuilders;
  /** A message that nobody waits for could not be stored. */
  refused(error: MillraceError): void;
}

export class Publisher {
  readonly #parts: PublisherParts;
  readonly #open = new Map<Partition, OpenBatch>();
  /** Channels with publishes since the last flush. */
  readonly #confirming = new Set<Confirms>();
  /** Of all appends since the last flush: what goes to many queues is the same in each. */
  #timeMs = -1;
  /** Of everything that this connection has published. */
  position: Position = 0;

  constructor(parts: PublisherParts) {
    this.#parts = parts;
  }

  /** `confirms`: its newest tag is that of this message. Copies the record. A queue that is full may refuse it. */
  add(queue: Queue, partition: Partition, record: Letter, confirms: Confirms | undefined): void {
    let open = this.#open.get(partition);
    if (open === undefined) {
      open = { builder: this.#parts.builders.take(), room: 0, confirms: [], tags: [], isWaited: false };
      this.#open.set(partition, open);
      open.room = this.#room(partition);
    }
    if (open.room <= 0) {
      // Quietly where nobody waits, as RabbitMQ's reject-publish does.
      confirms?.failed.add(confirms.lastTag);
      if (queue.settings.overflow === 'refuse-dead-letter') this.#parts.queues.refused(queue, record);
      return;
    }
    if (!open.builder.add(record)) {
      this.#append(partition, open);
      open.builder.add(record);
    }
    open.room--;
    if (confirms === undefined) return;
    open.isWaited = true;
    open.confirms.push(confirms);
    open.tags.push(confirms.lastTag);
  }

  #room(partition: Partition): number {
    return this.#parts.queues.intake(partition.topicId)?.room(partition) ?? Number.POSITIVE_INFINITY;
  }

  /** A message of this channel, whether it went anywhere or not. */
  published(confirms: Confirms): void {
    this.#confirming.add(confirms);
  }

  /** There is something to flush. */
  get isFilled(): boolean {
    return this.#open.size > 0 || this.#confirming.size > 0;
  }

  flush(): void {
    for (const [partition, open] of this.#open) {
      if (open.builder.recordCount > 0) this.#append(partition, open);
      this.#parts.builders.give(open.builder);
    }
    this.#open.clear();
    this.#timeMs = -1;
    for (const confirms of this.#confirming) {
      const { sink, lastTag, failed } = confirms;
      confirms.failed = new Set();
      this.#parts.engine.whenDurable(confirms.position, () => sink.confirm(lastTag, failed));
    }
    this.#confirming.clear();
  }

  #append(partition: Partition, open: OpenBatch): void {
    const { confirms, tags, isWaited } = open;
    open.confirms = [];
    open.tags = [];
    open.isWaited = false;
    const batch = open.builder.buildInPlace();
    try {
      const intake = this.#parts.queues.intake(partition.topicId);
      const pending = intake?.check(partition, batch, 'door');
      if (this.#timeMs < 0) this.#timeMs = this.#parts.clock.now();
      const options: AppendOptions = {
        origin: 'client',
        urgency: isWaited ? 'waited' : 'lazy',
        appendTimeMs: this.#timeMs,
      };
      const appended = partition.append(batch, options);
      if (pending !== undefined) intake?.appended(partition, pending, appended);
      if (appended.position > this.position) this.position = appended.position;
      for (const each of confirms) if (appended.position > each.position) each.position = appended.position;
    } catch (error) {
      if (!(error instanceof MillraceError)) throw error;
      for (let index = 0; index < tags.length; index++) confirms[index].failed.add(tags[index]);
      // A full queue refuses quietly, as RabbitMQ's reject-publish does; a disk that takes nothing must be told.
      if (tags.length === 0 && error.code !== 'POLICY_VIOLATION') this.#parts.refused(error);
    }
  }
}
