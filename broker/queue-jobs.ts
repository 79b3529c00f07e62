/**
 * Work on queues that takes a while: *redrive* (messages of a dead-letter queue go back to where they were first appended,
 * or elsewhere), *move* (messages of any queue go elsewhere) and *replay* (what a topic has kept is appended to it again).
 *
 * A job goes once through what its source had when it began, in steps of at most 1,000 messages. A step is one journal
 * record: the copies, the end of the originals, and how far the job has come. So a restart goes on where it was, and no
 * message is lost or doubled. What is in flight is left alone. One job a source at a time.
 *
 *   state log record   value: a job whole, as JSON; the newest of an id counts. Without a value: the job is forgotten
 */
import { MillraceError } from '../protocol/errors.ts';
import { buildBatch, type RecordInit } from '../protocol/record-batch.ts';
import type { Clock } from '../storage/clock.ts';
import type { CommitPart, Engine, Partition } from './engine.ts';
import { messageOrigin, renewed } from './queue-attributes.ts';
import { type MessageFilter, messageFilter } from './queue-filter.ts';
import type { QueuedRecord, QueueReader } from './queue-reader.ts';
import type { Queue, QueueRegistry } from './queues.ts';
import { StateLog } from './state-log.ts';
import { stateLogConfig, type Topic, type TopicRegistry } from './topics.ts';

/** Name of the log's folder; no door shows it. */
export const JOBS_TOPIC = '__millrace_jobs';
export const JOBS_TOPIC_ID = '00000000-0000-0000-0000-000000000003';

/** Messages of a step; of one journal record. */
const STEP_MESSAGES_MAX = 1000;
/** Bytes of a step, if it is not a single message. */
const STEP_BYTES_MAX = 1024 * 1024;
/** Of a batch that a step appends, so that it stays below the smallest usual `max.message.bytes`. */
const BATCH_BYTES_MAX = 512 * 1024;
/** Framing of a record, with room to spare. */
const RECORD_OVERHEAD_BYTES = 512;
/** With a rate, a step has what is due in so long. */
const STEP_MS = 100;
/** How long a job waits for room on the disk before it looks again. */
const FULL_WAIT_MS = 1000;
/** The same for a queue that does not know yet what its log has. */
const LEARN_WAIT_MS = 20;
/** Jobs that have ended and are remembered, for their results. */
const ENDED_MAX = 100;

export type JobKind = 'redrive' | 'move' | 'replay';
export type JobStatus = 'running' | 'done' | 'cancelled' | 'failed';

/** What is asked for. */
export interface JobRequest {
  readonly kind: JobKind;
  /** Name of a declared queue. */
  readonly source: string;
  /** Queue or topic. Undefined: where each message came from (`redrive`), the queue's own topic (`replay`). */
  readonly target?: string | undefined;
  readonly filter?: readonly string[] | undefined;
  /** Messages a second at most. Default: as fast as it goes. */
  readonly ratePerSecond?: number | undefined;
  /** Ends after so many messages. Default: all. */
  readonly messagesMax?: number | undefined;
  /** Counts and moves nothing. Does not outlive a restart. */
  readonly isDryRun?: boolean | undefined;
  /** `replay`: offsets of each partition, the end exclusive. Default: all that a queue has. */
  readonly ranges?: readonly { readonly partition: number; readonly start: number; readonly end: number }[] | undefined;
}

/** How far a job has come on a partition of its source. */
interface JobRange {
  readonly partition: number;
  next: number;
  readonly end: number;
}

/** A job as it is shown and kept. */
export interface Job {
  readonly id: number;
  readonly kind: JobKind;
  readonly source: string;
  readonly sourceTopicId: string;
  readonly target: string | null;
  readonly filter: readonly string[];
  readonly ratePerSecond: number | null;
  readonly messagesMax: number | null;
  readonly isDryRun: boolean;
  readonly startedMs: number;
  endedMs: number | null;
  status: JobStatus;
  /** Why it failed. */
  error: string | null;
  /** Messages looked at. */
  scanned: number;
  /** Of those, that the filter let pass. */
  matched: number;
  /** Moved, or in a dry run: that would be. By topic. */
  moved: Record<string, number>;
  movedCount: number;
  /** Matched, but left where they are: they say of no origin, or their origin is gone. */
  left: number;
  readonly ranges: JobRange[];
}

export interface QueueJobsParts {
  readonly engine: Engine;
  readonly clock: Clock;
  readonly topics: TopicRegistry;
  readonly queues: QueueRegistry;
  readonly reader: QueueReader;
  /** `journal.entry.bytes` */
  readonly entryBytes: number;
  /** A line for the operator. */
  readonly report: (message: string, error: unknown) => void;
}

interface JobEvent {
  readonly id: number;
  /** Undefined: forgotten. */
  readonly job: Job | undefined;
}

/** Copies for one partition. */
interface Copies {
  readonly target: Partition;
  readonly records: RecordInit[];
}

export class QueueJobs {
  readonly #parts: QueueJobsParts;
  readonly #log: StateLog<JobEvent>;
  readonly #jobs = new Map<number, Job>();
  readonly #filters = new Map<number, MessageFilter>();
  /** Ends the pause of a job. */
  readonly #wakers = new Map<number, () => void>();
  #newestId = 0;
  #isClosed = false;

  /** Before the engine discards what nobody opened. */
  constructor(parts: QueueJobsParts) {
    this.#parts = parts;
    const { engine, clock, entryBytes } = parts;
    const partition = engine.openPartition({
      topicId: JOBS_TOPIC_ID,
      topic: JOBS_TOPIC,
      index: 0,
      config: stateLogConfig,
    });
    const apply = (event: JobEvent): void => this.#apply(event);
    const live = (): Iterable<JobEvent> => this.#live();
    this.#log = new StateLog(engine, partition, { encode, decode, apply, live }, clock, Math.floor(entryBytes / 2));
  }

  /** Reads the log and goes on with what was running. After the queues. */
  async load(): Promise<void> {
    await this.#log.load();
    for (const job of this.#jobs.values()) {
      this.#newestId = Math.max(this.#newestId, job.id);
      if (job.status === 'running') this.#begin(job);
    }
  }

  close(): void {
    this.#isClosed = true;
    for (const wake of this.#wakers.values()) wake();
  }

  /** Newest first. */
  all(): readonly Job[] {
    return [...this.#jobs.values()].sort((a, b) => b.id - a.id);
  }
  get(id: number): Job | undefined {
    return this.#jobs.get(id);
  }
  /** The job that has this source. */
  runningOn(source: string): Job | undefined {
    for (const job of this.#jobs.values()) if (job.source === source && job.status === 'running') return job;
    return undefined;
  }
  /** Calls back when what was decided so far is durable. */
  whenDurable(callback: () => void): void {
    this.#log.whenDurable(callback);
  }

  /** Errors: QUEUE_NOT_FOUND, QUEUE_IN_USE if a job has this source already, INVALID_REQUEST, UNKNOWN_TOPIC_OR_PARTITION. */
  start(request: JobRequest): Job {
    const { kind, source, target, ratePerSecond, messagesMax } = request;
    const queue = this.#parts.queues.get(source);
    if (queue === undefined) throw new MillraceError('QUEUE_NOT_FOUND', `there is no queue '${source}'`);
    const running = this.runningOn(source);
    if (running !== undefined) {
      throw new MillraceError(
        'QUEUE_IN_USE',
        `queue '${source}' is the source of job ${running.id} (${running.kind}), which is running; cancel it or wait for its end`,
      );
    }
    this.#checkTarget(queue, request);
    for (const [name, value] of [
      ['rate', ratePerSecond],
      ['number of messages', messagesMax],
    ] as const) {
      if (value !== undefined && (!Number.isSafeInteger(value) || value < 1)) {
        throw new MillraceError('INVALID_REQUEST', `the ${name} of a job is a whole number from 1 on, not ${value}`);
      }
    }
    const filter = request.filter ?? [];
    messageFilter(filter);
    const job: Job = {
      id: ++this.#newestId,
      kind,
      source,
      sourceTopicId: queue.topic.id,
      target: target ?? null,
      filter,
      ratePerSecond: ratePerSecond ?? null,
      messagesMax: messagesMax ?? null,
      isDryRun: request.isDryRun === true,
      startedMs: this.#parts.clock.now(),
      endedMs: null,
      status: 'running',
      error: null,
      scanned: 0,
      matched: 0,
      moved: {},
      movedCount: 0,
      left: 0,
      ranges: rangesOf(queue, request),
    };
    this.#forgetOld();
    this.#save(job);
    this.#begin(job);
    return job;
  }

  #checkTarget(queue: Queue, { kind, target }: JobRequest): void {
    if (target === undefined) {
      if (kind === 'move') throw new MillraceError('INVALID_REQUEST', 'a move needs a target');
      return;
    }
    const topic = this.#targetOf(target);
    if (topic === undefined || topic.isInternal) {
      throw new MillraceError('UNKNOWN_TOPIC_OR_PARTITION', `there is no queue or topic '${target}'`);
    }
    if (topic === queue.topic && kind !== 'replay') {
      throw new MillraceError('INVALID_REQUEST', `'${target}' is where the messages of queue '${queue.name}' are`);
    }
  }

  /** Ends the job after the step it is at. Answers the job; nothing happens to one that has ended. */
  cancel(id: number): Job {
    const job = this.#jobs.get(id);
    if (job === undefined) throw new MillraceError('RESOURCE_NOT_FOUND', `there is no job ${id}`);
    if (job.status !== 'running') return job;
    this.#end(job, 'cancelled');
    this.#wakers.get(id)?.();
    return job;
  }

  // --- running ---

  #begin(job: Job): void {
    this.#filters.set(job.id, messageFilter(job.filter));
    this.#run(job).catch((error: unknown) => {
      if (this.#isClosed || job.status !== 'running') return;
      this.#parts.report(`job ${job.id} (${job.kind} of queue '${job.source}')`, error);
      this.#end(job, 'failed', error instanceof MillraceError ? error.message : 'it met an error it did not expect');
    });
  }

  async #run(job: Job): Promise<void> {
    const { engine } = this.#parts;
    // Not in the turn that made it.
    await this.#pause(job, 0);
    while (this.#isRunning(job)) {
      if (engine.isFull && !job.isDryRun) {
        await this.#pause(job, FULL_WAIT_MS);
        continue;
      }
      if (!engine.hasRoom) await new Promise<void>((resolve) => engine.whenRoom(resolve));
      const range = job.ranges.find(({ next, end }) => next < end);
      const isEnough = job.messagesMax !== null && job.movedCount >= job.messagesMax;
      if (range === undefined || isEnough) return this.#end(job, 'done');
      const before = job.movedCount;
      await this.#step(job, range);
      const { ratePerSecond } = job;
      const moved = job.movedCount - before;
      await this.#pause(job, ratePerSecond === null || job.isDryRun ? 0 : (moved * 1000) / ratePerSecond);
    }
  }

  #isRunning(job: Job): boolean {
    return !this.#isClosed && job.status === 'running';
  }

  #pause(job: Job, ms: number): Promise<void> {
    return new Promise((resolve) => {
      const timer = this.#parts.clock.after(ms, () => {
        this.#wakers.delete(job.id);
        resolve();
      });
      this.#wakers.set(job.id, () => {
        timer.cancel();
        this.#wakers.delete(job.id);
        resolve();
      });
    });
  }

  async #step(job: Job, range: JobRange): Promise<void> {
    const { reader, clock } = this.#parts;
    const queue = this.#sourceOf(job);
    const partition = queue.topic.partitions[range.partition];
    if (job.kind !== 'replay' && (queue.partition(range.partition)?.state.endOffset ?? 0) < range.end) {
      // After a start a queue learns bit by bit what the log has: what it does not know yet is not nothing.
      if (partition.isFenced) throw new MillraceError('KAFKA_STORAGE_ERROR', `${partition.topic} cannot be read`);
      return this.#pause(job, LEARN_WAIT_MS);
    }
    const offsets = this.#candidates(job, queue, range);
    if (offsets.length === 0) {
      range.next = range.end;
      return;
    }
    const { records } = await reader.records(
      partition,
      offsets.map((offset) => ({ firstOffset: offset, lastOffset: offset })),
    );
    const targets = new Map<string, Topic | undefined>();
    for (const record of records) {
      const name = job.target ?? this.#originOf(job, queue, record);
      if (name === undefined || targets.has(name)) continue;
      const topic = this.#targetOf(name);
      if (topic === undefined && name === job.target) {
        throw new MillraceError('UNKNOWN_TOPIC_OR_PARTITION', `the target '${name}' was deleted`);
      }
      targets.set(name, topic);
      for (const target of topic?.partitions ?? []) await target.prepare();
    }
    if (!this.#isRunning(job) || this.#sourceOf(job) !== queue) return;
    // What a commit still makes of the queue (too many messages, say) comes first: from here to the step's own commit its
    // state stays as it is. Files were read meanwhile: what is in flight now is left alone.
    this.#parts.queues.commit('lazy');
    const available = new Set(this.#candidates(job, queue, range));
    this.#take(job, queue, range, { offsets, records, available, targets, nowMs: clock.now() });
  }

  /** Offsets that the job may take next. */
  #candidates(job: Job, queue: Queue, range: JobRange): number[] {
    const count = STEP_MESSAGES_MAX;
    if (job.kind === 'replay') {
      const from = Math.max(range.next, queue.topic.partitions[range.partition].startOffset);
      return Array.from({ length: Math.max(0, Math.min(count, range.end - from)) }, (_, index) => from + index);
    }
    const state = queue.partition(range.partition)?.state;
    return state?.waiting(range.next, count).filter((offset) => offset < range.end) ?? [];
  }

  #take(
    job: Job,
    queue: Queue,
    range: JobRange,
    found: {
      offsets: readonly number[];
      records: readonly QueuedRecord[];
      available: ReadonlySet<number>;
      targets: ReadonlyMap<string, Topic | undefined>;
      nowMs: number;
    },
  ): void {
    const { offsets, records, available, targets, nowMs } = found;
    const filter = this.#filters.get(job.id) ?? messageFilter(job.filter);
    const copies = new Map<Partition, Copies>();
    const taken: number[] = [];
    let sizeBytes = 0;
    let next = offsets[offsets.length - 1] + 1;
    const takenMax = stepMessages(job);
    for (const record of records) {
      const recordBytes = (record.key?.length ?? 0) + (record.value?.length ?? 0) + RECORD_OVERHEAD_BYTES;
      if (taken.length >= takenMax || (taken.length > 0 && sizeBytes + recordBytes > STEP_BYTES_MAX)) {
        next = record.offset;
        break;
      }
      if (!available.has(record.offset)) continue;
      job.scanned++;
      if (!filter.matches(record)) continue;
      job.matched++;
      const name = job.target ?? this.#originOf(job, queue, record);
      const topic = name === undefined ? undefined : targets.get(name);
      const target = topic === undefined ? undefined : targetPartition(topic, record, range.partition, job);
      if (topic === undefined || target === undefined || !this.#canTake(topic, target)) {
        job.left++;
        continue;
      }
      sizeBytes += recordBytes;
      taken.push(record.offset);
      job.moved[topic.name] = (job.moved[topic.name] ?? 0) + 1;
      let copy = copies.get(target);
      if (copy === undefined) {
        copy = { target, records: [] };
        copies.set(target, copy);
      }
      copy.records.push(renewed(record, nowMs));
    }
    range.next = next;
    job.movedCount += taken.length;
    // A step that moves nothing is not written down: after a restart it is looked at again.
    if (job.isDryRun || taken.length === 0) return;
    this.#commit(job, queue, range.partition, taken, copies);
  }

  #commit(
    job: Job,
    queue: Queue,
    index: number,
    taken: readonly number[],
    copies: ReadonlyMap<Partition, Copies>,
  ): void {
    const { engine, queues } = this.#parts;
    const appends = [...copies.values()].flatMap(({ target, records }) =>
      batchesOf(records, target).map((batch) => ({ kind: 'append' as const, partition: target, batch })),
    );
    const { part, committed } = this.#log.part([{ id: job.id, job }]);
    const parts: CommitPart[] = [...appends, part];
    const appending = (): void => queues.appending(appends);
    if (job.kind === 'replay') {
      appending();
      committed(engine.commit(parts, 'waited').position);
    } else {
      committed(
        queues.commitTogether(parts, () => {
          appending();
          queue.discard(index, taken);
        }),
      );
    }
  }

  #canTake(topic: Topic, target: Partition): boolean {
    return !topic.isInternal && !target.isFenced && this.#parts.topics.getById(topic.id) === topic;
  }

  #originOf(job: Job, queue: Queue, record: QueuedRecord): string | undefined {
    return job.kind === 'replay' ? queue.topic.name : messageOrigin(record.headers)?.topic;
  }

  /** The topic of a declared queue of this name, or else the topic. */
  #targetOf(name: string): Topic | undefined {
    return this.#parts.queues.get(name)?.topic ?? this.#parts.topics.get(name);
  }

  #sourceOf(job: Job): Queue {
    const queue = this.#parts.queues.get(job.source);
    if (queue === undefined || queue.topic.id !== job.sourceTopicId) {
      throw new MillraceError('QUEUE_NOT_FOUND', `queue '${job.source}' was deleted`);
    }
    return queue;
  }

  // --- what is kept ---

  #end(job: Job, status: JobStatus, error: string | null = null): void {
    job.status = status;
    job.error = error;
    job.endedMs = this.#parts.clock.now();
    this.#filters.delete(job.id);
    this.#save(job);
  }

  #save(job: Job): void {
    if (job.isDryRun) this.#jobs.set(job.id, job);
    else this.#log.commit([{ id: job.id, job }]);
  }

  #forgetOld(): void {
    const ended = this.all().filter(({ status }) => status !== 'running');
    for (const { id, isDryRun } of ended.slice(ENDED_MAX - 1)) {
      if (isDryRun) this.#jobs.delete(id);
      else this.#log.commit([{ id, job: undefined }], { urgency: 'lazy' });
    }
  }

  #apply({ id, job }: JobEvent): void {
    if (job === undefined) this.#jobs.delete(id);
    // While running it is the same object.
    else this.#jobs.set(id, job);
  }

  *#live(): Iterable<JobEvent> {
    for (const job of this.#jobs.values()) if (!job.isDryRun) yield { id: job.id, job };
  }
}

/** How many messages the next step takes. */
function stepMessages({ ratePerSecond, messagesMax, movedCount }: Job): number {
  const due = ratePerSecond === null ? STEP_MESSAGES_MAX : Math.max(1, Math.ceil((ratePerSecond * STEP_MS) / 1000));
  return Math.min(STEP_MESSAGES_MAX, due, messagesMax === null ? due : messagesMax - movedCount);
}

function rangesOf(queue: Queue, { kind, ranges }: JobRequest): JobRange[] {
  const all = queue.topic.partitions.map(({ index, startOffset, highWatermark }) => {
    const start = kind === 'replay' ? startOffset : (queue.partition(index)?.state.startOffset ?? startOffset);
    return { partition: index, next: start, end: highWatermark };
  });
  if (ranges === undefined) return all;
  return ranges.map(({ partition, start, end }) => {
    const whole = all[partition];
    if (whole === undefined) {
      throw new MillraceError('UNKNOWN_TOPIC_OR_PARTITION', `queue '${queue.name}' has no partition ${partition}`);
    }
    return { partition, next: Math.max(start, whole.next), end: Math.min(end, whole.end) };
  });
}

/** The partition a message came from or has now, if the target has as many. */
function targetPartition(topic: Topic, record: QueuedRecord, partition: number, job: Job): Partition | undefined {
  const wanted = job.target === null ? (messageOrigin(record.headers)?.partition ?? partition) : partition;
  return topic.partitions[wanted % topic.partitions.length];
}

/** All with the same time, as if they had been sent now. */
function batchesOf(records: readonly RecordInit[], { config }: Partition): Buffer[] {
  const batches: Buffer[] = [];
  const bytesMax = Math.min(BATCH_BYTES_MAX, config.maxMessageBytes);
  let part: RecordInit[] = [];
  let partBytes = 0;
  const flush = (): void => {
    if (part.length > 0) batches.push(buildBatch(part, { timestampType: config.timestampType }));
    part = [];
    partBytes = 0;
  };
  for (const record of records) {
    let recordBytes = RECORD_OVERHEAD_BYTES + (record.key?.length ?? 0) + (record.value?.length ?? 0);
    for (const { key, value } of record.headers ?? []) recordBytes += key.length + (value?.length ?? 0);
    if (partBytes + recordBytes > bytesMax) flush();
    part.push(record);
    partBytes += recordBytes;
  }
  flush();
  return batches;
}

function encode({ id, job }: JobEvent, nowMs: number): RecordInit {
  const value = job === undefined ? null : Buffer.from(JSON.stringify(job));
  return { key: Buffer.from(String(id)), value, timestamp: nowMs };
}

/** The shape is ours: the record's checksum vouches for it. */
function decode({ key, value, offset }: { key: Buffer | null; value: Buffer | null; offset: number }): JobEvent {
  if (key === null) throw new MillraceError('DATA_DIR_FORMAT', `the job log has an event without an id at ${offset}`);
  return { id: Number(key), job: value === null ? undefined : (JSON.parse(value.toString()) as Job) };
}
