/**
 * What a batch goes through on its way into a topic with a declared queue, from whatever door: reserved headers, length
 * limits, deduplication, attributes. `check` before the append (it may refuse), `appended` right after it.
 */
import { MillraceError } from '../protocol/errors.ts';
import { batchRecordCount } from '../protocol/record-batch.ts';
import type { Clock } from '../storage/clock.ts';
import { dedupHash } from './dedup.ts';
import type { Appended, Partition } from './engine.ts';
import { type AttributeEntry, batchAttributes, type DedupBy, dedupKey } from './queue-attributes.ts';
import type { QueueDedup } from './queue-dedup.ts';
import type { QueueLane } from './queue-lane.ts';
import type { Queue } from './queues.ts';

/**
 * Whose batch it is. `kafka`: only documented producer headers are allowed; `door`: built by another door, with reserved
 * headers; `broker`: dead letters and other moves, which no limit stops.
 */
export type IntakeOrigin = 'kafka' | 'door' | 'broker';

/** What `check` found, for `appended`. */
export interface PendingIntake {
  readonly recordCount: number;
  readonly timeMs: number;
  readonly entries: readonly AttributeEntry[];
}

export interface IntakeHost {
  readonly clock: Clock;
  readonly decompressedBytesMax: number;
  /** Declared queues over the topic. */
  queues(): Iterable<Queue>;
  readonly isGrouped: boolean;
  readonly dedupBy: DedupBy | undefined;
  /** Windows of those queues that have one. */
  windows(): Iterable<QueueDedup>;
  lanes(partition: Partition): Iterable<QueueLane>;
}

export class QueueIntake {
  readonly #host: IntakeHost;

  constructor(host: IntakeHost) {
    this.#host = host;
  }

  /**
   * Looks into a batch that passed the produce checks. Throws INVALID_RECORD for headers that are not allowed, POLICY_VIOLATION when a queue is full and its overflow is `refuse`,
   * THROTTLING_QUOTA_EXCEEDED when there is no room for ids of messages.
   */
  check(partition: Partition, batch: Buffer, origin: IntakeOrigin): PendingIntake {
    const { clock, decompressedBytesMax, isGrouped, dedupBy } = this.#host;
    const timeMs = clock.now();
    const recordCount = batchRecordCount(batch, 0);
    if (origin !== 'broker') for (const queue of this.#host.queues()) checkLength(queue, partition, recordCount);
    const { entries } = batchAttributes(batch, 0, decompressedBytesMax, {
      appendTimeMs: timeMs,
      isFromClient: origin === 'kafka',
      isGrouped,
      dedupBy,
    });
    if (dedupBy !== undefined && origin !== 'broker') {
      let ids = 0;
      for (const { attributes } of entries) if (attributes.dedupId !== undefined) ids++;
      if (ids > 0) for (const { window } of this.#host.windows()) window.checkRoom(ids, timeMs);
    }
    return { recordCount, timeMs, entries };
  }

  /** How many more messages its queues take now: less than infinity where one of them refuses what is too much. */
  room(partition: Partition): number {
    let room = Number.POSITIVE_INFINITY;
    for (const queue of this.#host.queues()) room = Math.min(room, roomOf(queue, partition));
    return room;
  }

  /** The batch has its offsets. Nothing to do for one that was sent twice. */
  appended(partition: Partition, pending: PendingIntake, appended: Appended): void {
    if (appended.isDuplicate) return;
    this.#seen(partition, pending, appended.baseOffset);
  }

  /** The batch is about to be appended, and to begin at `baseOffset`. */
  begins(partition: Partition, pending: PendingIntake, baseOffset: number): void {
    this.#seen(partition, pending, baseOffset);
  }

  /** As both, for a batch of the broker's own that is about to be appended; default: where the partition ends now. */
  appending(partition: Partition, batch: Buffer, baseOffset: number = partition.endOffset): void {
    this.#seen(partition, this.check(partition, batch, 'broker'), baseOffset);
  }

  /** Messages of equal keys are one; undefined: no queue compares it with others. */
  dedupKey(message: Parameters<typeof dedupKey>[1]): string | undefined {
    const { dedupBy } = this.#host;
    return dedupBy === undefined ? undefined : dedupKey(dedupBy, message);
  }

  /** Where a message of this key was sent first, within the window of a queue. */
  firstSend(key: string): { readonly partition: number; readonly offset: number } | undefined {
    const hash = dedupHash(key);
    const nowMs = this.#host.clock.now();
    for (const { window } of this.#host.windows()) {
      const found = window.find(hash, nowMs);
      if (found !== undefined) return found;
    }
    return undefined;
  }

  #seen(partition: Partition, { recordCount, timeMs, entries }: PendingIntake, baseOffset: number): void {
    const batch = { baseOffset, lastOffset: baseOffset + recordCount - 1, appendedMs: timeMs, entries };
    for (const dedup of this.#host.windows()) dedup.add(partition.index, batch);
    for (const lane of this.#host.lanes(partition)) lane.seen(batch);
  }
}

/** Messages that the queue takes before it refuses any. What was appended and is not durable yet counts, too. */
function roomOf(queue: Queue, partition: Partition): number {
  const { overflow, 'max.messages': messagesMax, 'max.bytes': bytesMax } = queue.settings;
  if (overflow === 'drop-oldest' || (messagesMax < 0 && bytesMax < 0)) return Number.POSITIVE_INFINITY;
  const { ready, delayed, blocked } = queue.counts();
  let waiting = ready + delayed + blocked;
  for (const { log, state } of queue.partitions()) waiting += Math.max(0, log.endOffset - state.endOffset);
  let room = messagesMax < 0 ? Number.POSITIVE_INFINITY : messagesMax - waiting;
  if (bytesMax >= 0) {
    const { sizeBytes, startOffset, endOffset } = partition;
    const averageBytes = sizeBytes / Math.max(1, endOffset - startOffset);
    // Nothing is known before the first one.
    if (averageBytes > 0) room = Math.min(room, Math.floor(bytesMax / averageBytes) - waiting);
  }
  return room;
}

function checkLength(queue: Queue, partition: Partition, recordCount: number): void {
  if (recordCount > roomOf(queue, partition)) {
    throw new MillraceError('POLICY_VIOLATION', `the queue '${queue.name}' is full`);
  }
}
