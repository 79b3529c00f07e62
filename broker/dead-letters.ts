/**
 * Sends off messages that leave a queue without having been accepted: to the dead-letter target that its settings name,
 * or nowhere. A move is one journal record: the copies in the target's log and the end of the originals, or nothing; a
 * message whose move was not durable when the broker ended is found leaving again.
 */
import { type ErrorCode, MillraceError } from '../protocol/errors.ts';
import { buildBatch, type RecordInit } from '../protocol/record-batch.ts';
import type { Clock } from '../storage/clock.ts';
import type { CommitPart, Partition } from './engine.ts';
import { deadLetter, isDeathCycle } from './queue-attributes.ts';
import type { QueuePartition } from './queue-partition.ts';
import type { QueuedRecord, QueueReader } from './queue-reader.ts';
import { deadLetterTarget } from './queue-settings.ts';
import type { LeavingMessage } from './queue-state.ts';
import type { Topic } from './topics.ts';

/** Messages of one move. */
const MOVE_MESSAGES_MAX = 1000;
/** Between attempts, where files or a target fail. */
const RETRY_MS = 1000;
/** Failures that another attempt would meet again. */
const FINAL: ReadonlySet<ErrorCode> = new Set(['STOPPING', 'RECORD_LIST_TOO_LARGE', 'INVALID_RECORD_STATE']);
/** Bytes of one move, if it is not a single message. */
const MOVE_BYTES_MAX = 1024 * 1024;

export interface DeadLetterParts {
  readonly clock: Clock;
  readonly reader: QueueReader;
  /** The topic of a declared queue of this name, or else the topic. */
  targetOf(name: string): Topic | undefined;
  isLive(topic: Topic): boolean;
  commitTogether(others: readonly CommitPart[], change: () => void): void;
  changed(partition: QueuePartition): void;
  /** Batches of the broker's own are about to be appended. */
  appending(appends: readonly { readonly partition: Partition; readonly batch: Buffer }[]): void;
  report(message: string, error: unknown): void;
}

/** Copies for one partition. */
interface Letters {
  readonly target: Partition;
  readonly records: RecordInit[];
}

export class DeadLetters {
  readonly #parts: DeadLetterParts;
  movedCount = 0;
  droppedCount = 0;

  constructor(parts: DeadLetterParts) {
    this.#parts = parts;
  }

  /** Messages of the partition are to leave: before the commit of what made them leave. */
  leaving(partition: QueuePartition): void {
    const { queue, state } = partition;
    const { settings } = queue;
    const hasTarget =
      settings['dead.letter.queue'] !== '' ||
      settings['failed.dead.letter.queue'] !== '' ||
      settings['receive.dead.letter.queue'] !== '';
    if (!hasTarget) {
      while (state.untakenLeavingCount > 0) this.#drop(partition, state.takeLeaving(MOVE_MESSAGES_MAX));
      return;
    }
    if (partition.isMoving) return;
    partition.isMoving = true;
    this.#moveAll(partition).then(
      () => {
        partition.isMoving = false;
      },
      (error: unknown) => {
        // It stays as it is: what was taken is found leaving again by the next start.
        if (!queue.isDeleted) this.#parts.report(`dead letters of queue '${queue.name}' stay where they are`, error);
      },
    );
  }

  #drop({ state }: QueuePartition, leaving: readonly LeavingMessage[]): void {
    this.droppedCount += leaving.length;
    state.left(leaving.map(({ offset }) => offset));
  }

  async #moveAll(partition: QueuePartition): Promise<void> {
    const { state, queue } = partition;
    while (!queue.isDeleted) {
      // Not in the turn that found them: that one is about to be committed.
      await undefined;
      const leaving = state.takeLeaving(MOVE_MESSAGES_MAX);
      if (leaving.length === 0) return;
      await this.#moveSurely(partition, leaving);
    }
  }

  /** Again and again, as long as it may succeed. */
  async #moveSurely(partition: QueuePartition, leaving: readonly LeavingMessage[]): Promise<void> {
    const { clock, report } = this.#parts;
    const { queue, log, state } = partition;
    let rest = leaving;
    for (;;) {
      try {
        await this.#move(partition, rest);
        return;
      } catch (error) {
        const isFinal = queue.isDeleted || log.isFenced || !(error instanceof MillraceError) || FINAL.has(error.code);
        if (isFinal) throw error;
        report(`dead letters of queue '${queue.name}' wait`, error);
      }
      await new Promise<void>((resolve) => clock.after(RETRY_MS, resolve));
      if (queue.isDeleted) return;
      rest = rest.filter(({ offset }) => !state.isDone(offset));
    }
  }

  async #move(partition: QueuePartition, leaving: readonly LeavingMessage[]): Promise<void> {
    const { queue, log } = partition;
    const targets = new Map<string, Topic | undefined>();
    for (const message of leaving) {
      const name = deadLetterTarget(queue.settings, message);
      if (targets.has(name)) continue;
      const topic = name === '' ? undefined : this.#parts.targetOf(name);
      targets.set(name, topic);
      for (const target of topic?.partitions ?? []) await target.prepare();
    }
    const byOffset = leaving.toSorted((a, b) => a.offset - b.offset);
    const { records } = await this.#parts.reader.records(
      log,
      byOffset.map(({ offset }) => ({ firstOffset: offset, lastOffset: offset })),
    );
    const found = new Map(records.map((record) => [record.offset, record]));
    let part: LeavingMessage[] = [];
    let partBytes = 0;
    for (const message of leaving) {
      const record = found.get(message.offset);
      const sizeBytes = (record?.key?.length ?? 0) + (record?.value?.length ?? 0) + 512;
      if (part.length > 0 && partBytes + sizeBytes > MOVE_BYTES_MAX) {
        this.#commit(partition, part, found, targets);
        part = [];
        partBytes = 0;
      }
      part.push(message);
      partBytes += sizeBytes;
    }
    if (part.length > 0) this.#commit(partition, part, found, targets);
  }

  #commit(
    partition: QueuePartition,
    leaving: readonly LeavingMessage[],
    found: ReadonlyMap<number, QueuedRecord>,
    targets: ReadonlyMap<string, Topic | undefined>,
  ): void {
    const { queue, state } = partition;
    if (queue.isDeleted) return;
    const letters = new Map<Partition, Letters>();
    let moved = 0;
    for (const message of leaving) {
      const record = found.get(message.offset);
      const name = deadLetterTarget(queue.settings, message);
      const topic = targets.get(name);
      if (record === undefined || topic === undefined || !this.#parts.isLive(topic)) continue;
      if (this.#write(letters, partition, { message, record, name, topic })) moved++;
    }
    const offsets = leaving.map(({ offset }) => offset);
    if (letters.size === 0) {
      this.#drop(partition, leaving);
      this.#parts.changed(partition);
      return;
    }
    const parts = [...letters.values()].map(({ target, records }) => {
      return { kind: 'append' as const, partition: target, batch: buildBatch(records) };
    });
    this.#parts.commitTogether(parts, () => {
      this.#parts.appending(parts);
      state.left(offsets);
      this.#parts.changed(partition);
    });
    this.movedCount += moved;
    queue.deadLettered += moved;
    this.droppedCount += leaving.length - moved;
  }

  /** Adds the copy of a message; false if it would go in circles or its target has failed. */
  #write(
    letters: Map<Partition, Letters>,
    { queue, index }: QueuePartition,
    { message, record, name, topic }: { message: LeavingMessage; record: QueuedRecord; name: string; topic: Topic },
  ): boolean {
    const target = topic.partitions[index % topic.partitions.length];
    if (target === undefined || target.isFenced) return false;
    const { copy, history } = deadLetter(record, {
      queue: queue.name,
      reason: message.reason,
      timeMs: this.#parts.clock.now(),
      place: { topicId: queue.topic.id, topic: queue.topic.name, partition: index, offset: message.offset },
    });
    if (isDeathCycle(history, name)) return false;
    let letter = letters.get(target);
    if (letter === undefined) {
      letter = { target, records: [] };
      letters.set(target, letter);
    }
    letter.records.push(queue.copiesDeadLetters ? copy : { ...copy, key: null, value: null });
    return true;
  }
}
