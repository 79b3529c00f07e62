/**
 * Sends off messages that leave a queue without having been accepted: to the queue that its settings name, to the queues
 * that an exchange sends them to, or nowhere. A move is one journal record: the copies in the logs of the targets and the
 * end of the originals, or nothing; a message whose move was not durable when the broker ended is found leaving again.
 *
 * What an exchange is, a door knows that has them (`ExchangeRouter`).
 */
import { type ErrorCode, MillraceError } from '../protocol/errors.ts';
import { buildBatch } from '../protocol/record-batch.ts';
import type { Clock } from '../storage/clock.ts';
import type { CommitPart, Engine, Partition } from './engine.ts';
import type { LeaveReason, QueueDoor } from './queue.ts';
import { deadLetter, isDeathCycle, type MessagePlace, type Publication } from './queue-attributes.ts';
import type { Queue } from './queue-handle.ts';
import type { QueuePartition } from './queue-partition.ts';
import type { QueuedRecord, QueueReader } from './queue-reader.ts';
import { deadLetterTarget, hasDeadLetterTarget } from './queue-settings.ts';
import type { LeavingMessage } from './queue-state.ts';
import { hasKafkaTarget, withKafkaDeath } from './share-dead-letter.ts';
import type { Topic } from './topics.ts';

/** Messages of one move. */
const MOVE_MESSAGES_MAX = 1000;
/** Between attempts, where files or a target fail. */
const RETRY_MS = 1000;
/** Failures that another attempt would meet again. */
const FINAL: ReadonlySet<ErrorCode> = new Set(['STOPPING', 'RECORD_LIST_TOO_LARGE', 'INVALID_RECORD_STATE']);
/** Bytes of one move, if it is not a single message. */
const MOVE_BYTES_MAX = 1024 * 1024;

/** A message as it lies in a log, or would. */
export type Letter = Omit<QueuedRecord, 'offset'>;

/** `partition`: of a stream, the only one that is meant. */
export interface RoutedTarget {
  readonly queue: Queue;
  readonly partition: number | undefined;
}

/** What a door with exchanges knows. */
export interface ExchangeRouter {
  /** How a message of the queue was published; for its history. */
  published(queue: Queue, letter: Letter): Publication;
  /** The same message with headers that say: published to the queue where it is. */
  unaddressed(letter: Letter): Letter;
  /**
   * Where the dead-letter exchange of `queue` sends the message, and the message with headers that say how it was published
   * now. Undefined: there is no such exchange.
   */
  route(
    queue: Queue,
    letter: Letter,
  ): { readonly targets: readonly RoutedTarget[]; readonly letter: Letter } | undefined;
}

export interface DeadLetterParts {
  readonly engine: Engine;
  readonly clock: Clock;
  readonly reader: QueueReader;
  /** `journal.entry.bytes` */
  readonly entryBytes: number;
  /** The topic of a declared queue of this name, or else the topic. */
  targetOf(name: string): Topic | undefined;
  isLive(partition: Partition): boolean;
  commitTogether(others: readonly CommitPart[], change: () => void): void;
  changed(partition: QueuePartition): void;
  /** Batches of the broker's own are about to be appended. */
  appending(appends: readonly { readonly partition: Partition; readonly batch: Buffer }[]): void;
  report(message: string, error: unknown): void;
}

/** One message that leaves, and where it goes. */
interface Departure {
  readonly offset: number;
  readonly copy: Letter;
  readonly targets: readonly Partition[];
  readonly sizeBytes: number;
}

/** Why and from where. */
interface Death {
  readonly reason: LeaveReason;
  readonly limitDoor: QueueDoor | undefined;
  readonly acquiredCount: number;
  readonly place: MessagePlace | undefined;
  /** Partition of the queue: that of a target which has several. */
  readonly index: number;
}

export class DeadLetters {
  readonly #parts: DeadLetterParts;
  #router: ExchangeRouter | undefined;
  /** Moves that wait for it. */
  #waiting: (() => void)[] = [];
  movedCount = 0;
  droppedCount = 0;

  constructor(parts: DeadLetterParts) {
    this.#parts = parts;
  }

  /** Until then messages for an exchange stay. */
  useExchanges(router: ExchangeRouter): void {
    this.#router = router;
    for (const wake of this.#waiting.splice(0)) wake();
  }

  /** Messages of the partition are to leave: before the commit of what made them leave. */
  leaving(partition: QueuePartition): void {
    const { queue, state } = partition;
    if (!hasDeadLetterTarget(queue.settings)) {
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

  /** The queue has refused this message: its copies go where its dead letters go, unwaited and at most once. */
  refused(queue: Queue, letter: Letter): void {
    const death: Death = { reason: 'maxlen', limitDoor: undefined, acquiredCount: 0, place: undefined, index: 0 };
    const departure = this.#departure(queue, letter, { ...death, offset: -1 });
    if (departure === undefined) return;
    const loading = departure.targets.map((target) => target.prepare()).filter((promise) => promise !== undefined);
    if (loading.length === 0) return this.#send(queue, departure);
    void Promise.allSettled(loading).then(() => this.#send(queue, departure));
  }

  #send(queue: Queue, departure: Departure): void {
    const parts = this.#appends([departure]);
    if (parts.length === 0) return;
    try {
      this.#parts.appending(parts);
      this.#parts.engine.commit(parts, 'lazy');
      this.movedCount++;
      queue.deadLettered++;
    } catch (error) {
      if (!(error instanceof MillraceError)) throw error;
      this.#parts.report(`a message that queue '${queue.name}' refused has not become a dead letter`, error);
    }
  }

  #drop({ state }: QueuePartition, leaving: readonly { readonly offset: number }[]): void {
    this.droppedCount += leaving.length;
    state.left(leaving.map(({ offset }) => offset));
  }

  async #moveAll(partition: QueuePartition): Promise<void> {
    const { state, queue } = partition;
    const { clock } = this.#parts;
    while (!queue.isDeleted) {
      // Not in the turn that found them: that one is about to be committed. And others have their turn.
      await new Promise<void>((resolve) => clock.endOfTurn(resolve));
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
    const { queue, log, index } = partition;
    if (queue.settings['dead.letter.exchange'] !== '' && this.#router === undefined) {
      await new Promise<void>((resolve) => this.#waiting.push(resolve));
    }
    const byOffset = leaving.toSorted((a, b) => a.offset - b.offset);
    const { records } = await this.#parts.reader.records(
      log,
      byOffset.map(({ offset }) => ({ firstOffset: offset, lastOffset: offset })),
    );
    const found = new Map(records.map((record) => [record.offset, record]));
    const departures: Departure[] = [];
    const loading = new Set<Partition>();
    for (const { offset, reason, limitDoor, acquiredCount } of leaving) {
      const record = found.get(offset);
      const place = { topicId: queue.topic.id, topic: queue.topic.name, partition: index, offset };
      const departure =
        record === undefined
          ? undefined
          : this.#departure(queue, record, { offset, reason, limitDoor, acquiredCount, place, index });
      departures.push(departure ?? { offset, copy: NO_COPY, targets: [], sizeBytes: 0 });
      for (const target of departure?.targets ?? []) loading.add(target);
    }
    for (const target of loading) await target.prepare();
    let part: Departure[] = [];
    let partBytes = 0;
    for (const departure of departures) {
      if (part.length > 0 && partBytes + departure.sizeBytes > MOVE_BYTES_MAX) {
        this.#commit(partition, part);
        part = [];
        partBytes = 0;
      }
      part.push(departure);
      partBytes += departure.sizeBytes;
    }
    if (part.length > 0) this.#commit(partition, part);
  }

  /** The copy of a message and where it goes; undefined: nowhere. */
  #departure(queue: Queue, letter: Letter, death: Death & { readonly offset: number }): Departure | undefined {
    const router = this.#router;
    const { clock } = this.#parts;
    const { reason, place, index, offset } = death;
    const target = deadLetterTarget(queue.settings, death);
    if (target === undefined) return undefined;
    const { copy: plain, history } = deadLetter(letter, {
      queue: queue.name,
      reason,
      timeMs: clock.now(),
      place,
      ...(router === undefined ? {} : { published: router.published(queue, letter) }),
    });
    const copy =
      place === undefined || !hasKafkaTarget(queue)
        ? plain
        : { ...plain, headers: withKafkaDeath(plain.headers, { ...death, group: queue.name, place }) };
    const addressed = target.kind === 'exchange' ? this.#routed(queue, copy) : this.#sentTo(target.name, copy);
    const targets: Partition[] = [];
    for (const { name, topic, partition: number } of addressed?.places ?? []) {
      const partition = topic.partitions[number ?? index % topic.partitions.length];
      if (partition === undefined || partition.isFenced || isDeathCycle(history, name)) continue;
      targets.push(partition);
    }
    if (addressed === undefined || targets.length === 0) return undefined;
    const whole = queue.copiesDeadLetters ? addressed.copy : { ...addressed.copy, key: null, value: null };
    return { offset, copy: whole, targets, sizeBytes: sizeOf(whole) * targets.length };
  }

  #sentTo(name: string, copy: Letter): Addressed | undefined {
    const topic = this.#parts.targetOf(name);
    if (topic === undefined) return undefined;
    return { copy: this.#router?.unaddressed(copy) ?? copy, places: [{ name, topic, partition: undefined }] };
  }

  #routed(queue: Queue, copy: Letter): Addressed | undefined {
    const routed = this.#router?.route(queue, copy);
    if (routed === undefined) return undefined;
    const { letter, targets } = routed;
    const places = targets.map(({ queue: { name, topic }, partition }) => ({ name, topic, partition }));
    return { copy: letter, places };
  }

  #commit(partition: QueuePartition, departures: readonly Departure[]): void {
    const { queue, state } = partition;
    if (queue.isDeleted) return;
    const parts = this.#appends(departures);
    if (parts.length === 0) {
      this.#drop(partition, departures);
      this.#parts.changed(partition);
      return;
    }
    const last = this.#sendTooMany(parts);
    this.#parts.commitTogether(last, () => {
      this.#parts.appending(last);
      state.left(departures.map(({ offset }) => offset));
      this.#parts.changed(partition);
    });
    const moved = departures.filter(({ targets }) => targets.length > 0).length;
    this.movedCount += moved;
    queue.deadLettered += moved;
    this.droppedCount += departures.length - moved;
  }

  /**
   * A message that goes to so many queues that one commit cannot take it goes in several, of which the last ends it: a crash
   * in between sends it to some of them twice. Answers what is left for the last.
   */
  #sendTooMany(parts: readonly AppendCommitPart[]): readonly AppendCommitPart[] {
    const { engine, entryBytes } = this.#parts;
    // The rest is for what the queue itself has to say.
    const bytesMax = entryBytes / 2;
    let rest: AppendCommitPart[] = [];
    let restBytes = 0;
    for (const part of parts) {
      if (rest.length > 0 && restBytes + part.batch.length > bytesMax) {
        this.#parts.appending(rest);
        engine.commit(rest, 'lazy');
        rest = [];
        restBytes = 0;
      }
      rest.push(part);
      restBytes += part.batch.length;
    }
    return rest;
  }

  /** One batch for each target that is still there. */
  #appends(departures: readonly Departure[]): AppendCommitPart[] {
    const letters = new Map<Partition, Letter[]>();
    for (const { copy, targets } of departures) {
      for (const target of targets) {
        if (target.isFenced || !this.#parts.isLive(target)) continue;
        const records = letters.get(target);
        if (records === undefined) letters.set(target, [copy]);
        else records.push(copy);
      }
    }
    const parts: AppendCommitPart[] = [];
    for (const [partition, records] of letters) parts.push({ kind: 'append', partition, batch: buildBatch(records) });
    return parts;
  }
}

type AppendCommitPart = Extract<CommitPart, { kind: 'append' }>;

/** A copy and the logs it is meant for, by the name of the queue or topic. */
interface Addressed {
  readonly copy: Letter;
  readonly places: readonly {
    readonly name: string;
    readonly topic: Topic;
    readonly partition: number | undefined;
  }[];
}

const NO_COPY: Letter = { key: null, value: null, headers: [], timestamp: 0 };

function sizeOf({ key, value, headers }: Letter): number {
  let sizeBytes = 64 + (key?.length ?? 0) + (value?.length ?? 0);
  for (const header of headers) sizeBytes += header.key.length + (header.value?.length ?? 0) + 4;
  return sizeBytes;
}
