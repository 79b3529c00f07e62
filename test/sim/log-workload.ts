/**
 * A seeded workload on the log alone, over a simulated disk: appends on both ways of committing, atomic commits, rolls,
 * retention, moved starts, compaction and rewrites, partitions deleted and created again under the same name, idempotent producers with retries,
 * and readers. It keeps the book of promises, and tells at every disk operation what was promised by then.
 */
import { DataDir } from '../../storage/data-dir.ts';
import type { LogConfig } from '../../storage/log.ts';
import { type LogCommitPart, LogEngine, type LogEngineSettings } from '../../storage/log-engine.ts';
import type { PartitionLog } from '../../storage/partition-log.ts';
import { SimClock } from '../support/sim-clock.ts';
import { type DiskFault, SimDisk } from '../support/sim-disk.ts';
import type { SimImage } from '../support/sim-image.ts';
import { SimRandom } from '../support/sim-random.ts';
import {
  type AtomicCommit,
  BrokenPromise,
  goneIn,
  plainBatch,
  producerBatch,
  Promises,
  type PromisesAt,
  readRecordsOf,
} from './log-promises.ts';

const KIB = 1024;
export const DATA_DIR = 'data';

/** Small enough that everything happens often: journal files change, checkpoints, rolls, direct writes. */
export function settingsFor(isSynced: boolean): LogEngineSettings {
  return {
    isSynced,
    flushLingerMs: 1,
    journalFileBytes: 24 * KIB,
    journalFiles: 3,
    journalEntryBytes: 64 * KIB,
    journalGroupBytes: 16 * KIB,
    journalDirectBytes: 3 * KIB,
    journalSegmentBytes: 2 * KIB,
    journalSegmentLingerMs: 20,
    journalCheckpointBytes: 20 * KIB,
    tailCacheBytes: 256 * KIB,
    unwrittenBytesMax: 64 * KIB,
    openFilesMax: 100,
    diskReserveBytes: 0,
    producerExpirationMs: 86_400_000,
    producersMax: 100,
    transientBytesMax: 1024 * 1024,
    compactor: { dedupeBufferBytes: 64 * KIB, bytesPerSecond: 2 ** 40 },
  };
}

export const logConfig: LogConfig = {
  segmentBytes: 8 * KIB,
  segmentMs: 7 * 86_400_000,
  segmentIndexBytes: 10 * KIB,
  indexIntervalBytes: 512,
  retentionMs: -1,
  retentionBytes: 20 * KIB,
  fileDeleteDelayMs: 5,
  timestampType: 'CreateTime',
  timestampBeforeMaxMs: Number.MAX_SAFE_INTEGER,
  timestampAfterMaxMs: Number.MAX_SAFE_INTEGER,
  maxMessageBytes: 2 ** 21,
};

/** By topic: one is compacted, one rewritten for somebody else, one neither. */
const COMPACTED = 'topic2';
const REWRITTEN = 'topic1';
const compactedConfig: LogConfig = {
  ...logConfig,
  compaction: {
    minDirtyRatio: 0,
    minLagMs: 0,
    maxLagMs: Number.MAX_SAFE_INTEGER,
    deleteRetentionMs: 86_400_000,
  },
};

/** Everything that was promised up to a moment. */
export interface WorldAt {
  readonly partitions: readonly PromisesAt[];
  readonly atomics: readonly AtomicCommit[];
}

/** A moment at which the world may end. */
export interface Moment {
  readonly number: number;
  readonly operation: string;
  readonly image: SimImage;
  readonly world: WorldAt;
}

export interface WorkloadOptions {
  seed: number;
  isSynced: boolean;
  steps: number;
  /** All batches alike and one at a time: journal records then lie where records of an earlier use of the file lay. */
  isUniform?: boolean;
  /** What the disk holds and what was promised of it; default: nothing. */
  image?: SimImage;
  world?: WorldAt;
  /** Called at every disk operation. */
  onMoment?: (moment: Moment) => void;
  /** Fault at one operation of the disk. */
  fault?: { at: number; of: 'operation' | 'read'; fault: DiskFault };
}

export interface WorkloadEnd {
  moment: Moment;
  operations: number;
  reads: number;
  traceHash: number;
  /** Why the log has stopped, if it has. Without a fault it must not. */
  failure: Error | undefined;
  /** It was not even opened. */
  isRefused: boolean;
}

let topicCount = 0;
const nextTopicId = (): string => `00000000-0000-4000-8000-${String(++topicCount).padStart(12, '0')}`;

/** Runs the workload to its end, or to the stop of the log. */
export async function runWorkload(options: WorkloadOptions): Promise<WorkloadEnd> {
  // Ids must not depend on how many workloads ran before: the same seed gives the same trace.
  topicCount = options.seed * 1000;
  const workload = new Workload(options);
  return workload.run();
}

class Workload {
  readonly #options: WorkloadOptions;
  readonly #random: SimRandom;
  readonly #clock = new SimClock();
  readonly #disk: SimDisk;
  readonly #partitions: Promises[] = [];
  readonly #atomics: AtomicCommit[] = [];
  readonly #logs: PartitionLog[] = [];
  readonly #sequences = new Map<string, number>();
  #engine: LogEngine | undefined;
  #failure: Error | undefined;
  /** The turn in which the log has stopped is over: what was durable before may still be answered within it. */
  #isOver = false;
  #hasAnsweredLate = false;
  #valueCount = 0;

  constructor(options: WorkloadOptions) {
    this.#options = options;
    this.#random = new SimRandom(options.seed);
    this.#disk = new SimDisk({
      clock: this.#clock,
      latency: { random: this.#random.fork(), minMs: 0.05, maxMs: 1, slowMs: 15 },
      ...(options.image === undefined ? {} : { image: options.image }),
      onOperation: (number, operation) => {
        if (options.onMoment !== undefined) options.onMoment(this.#moment(number, operation));
      },
    });
    const { fault } = options;
    if (fault !== undefined) this.#disk.failAt(fault.at, fault.fault, { of: fault.of });
    for (const at of options.world?.partitions ?? []) this.#partitions.push(carriedOver(at));
  }

  async run(): Promise<WorkloadEnd> {
    try {
      await this.#clock.settle(this.#open());
    } catch (error) {
      if (this.#options.fault === undefined) throw error;
      return this.#end(true);
    }
    for (let step = 0; step < this.#options.steps && this.#failure === undefined; step++) {
      try {
        await this.#step();
      } catch (error) {
        if (this.#failure === undefined && this.#options.fault === undefined) throw error;
      }
      this.#noteWatermarks();
    }
    await this.#clock.advance(60);
    if (this.#hasAnsweredLate) throw new BrokenPromise('something was acknowledged after the log had stopped');
    return this.#end(false);
  }

  #end(isRefused: boolean): WorkloadEnd {
    const { operations, reads, traceHash } = this.#disk;
    const moment = this.#moment(operations, 'the end');
    return { moment, operations, reads, traceHash, failure: this.#failure, isRefused };
  }

  #world(): WorldAt {
    return { partitions: this.#partitions.map((each) => each.now()), atomics: this.#atomics.slice() };
  }

  #moment(number: number, operation: string): Moment {
    return { number, operation, image: this.#disk.image(), world: this.#world() };
  }

  async #open(): Promise<void> {
    const engine = await openEngine(this.#disk, this.#clock, this.#random.fork(), this.#options.isSynced);
    this.#engine = engine;
    engine.onFatal((error) => {
      this.#failure = error;
      this.#clock.endOfTurn(() => {
        this.#isOver = true;
      });
    });
    for (const promises of this.#partitions) {
      const log = openLog(engine, promises);
      await log.prepare();
      if (log.isFenced) throw new BrokenPromise(`${log.name} is fenced`);
      // What was never acknowledged is gone or there; from here on it is what counts.
      promises.values.length = log.endOffset;
      promises.sent.splice(
        0,
        Number.POSITIVE_INFINITY,
        ...promises.sent.filter((each) => each.baseOffset < log.endOffset),
      );
      promises.droppable.splice(0, Number.POSITIVE_INFINITY, ...promises.droppable.filter((at) => at < log.endOffset));
      promises.isDeletionAsked = false;
      promises.safeEnd = log.endOffset;
      promises.safeStart = log.startOffset;
      promises.startMax = log.startOffset;
      this.#logs.push(log);
      // At once: before the first checkpoint lets go of the journal that this start has read.
      if (this.#options.isUniform !== true && this.#random.chance(0.7)) this.#append(log);
    }
    await engine.discardUnopened();
    while (this.#logs.length < (this.#options.isUniform === true ? 1 : 3)) this.#create(`topic${this.#logs.length}`);
  }

  #create(topic: string): void {
    const { engine } = this;
    const promises = new Promises(nextTopicId(), topic);
    this.#partitions.push(promises);
    this.#logs.push(openLog(engine, promises));
  }

  get engine(): LogEngine {
    if (this.#engine === undefined) throw new Error('not open');
    return this.#engine;
  }

  async #step(): Promise<void> {
    const random = this.#random;
    if (this.#options.isUniform === true) return this.#appendAlike();
    const log = random.pick(this.#logs);
    const dice = random.below(100);
    if (dice < 35) this.#append(log);
    else if (dice < 60) this.#appendAsProducer(log);
    else if (dice < 70) this.#commitAtomically();
    else if (dice < 76) this.#moveStart(log);
    else if (dice < 79) this.#recreate(log);
    else if (dice < 81) this.#retain();
    else if (dice < 85) this.#compact();
    else if (dice < 88) this.#rewrite();
    else if (dice < 92) await this.#read(log);
    else await this.#clock.advance(random.below(30));
    if (random.chance(0.4)) await this.#clock.advance(random.below(3));
  }

  #values(log: PartitionLog): string[] {
    const random = this.#random;
    const size = random.chance(0.2) ? random.between(800, 2500) : random.between(10, 200);
    const make = (): string =>
      `${log.topicId.slice(-6)}:${this.#options.seed}:${this.#valueCount++}:`.padEnd(size, '.');
    return Array.from({ length: random.between(1, 3) }, make);
  }

  #promisesOf(log: PartitionLog): Promises {
    const found = this.#partitions.find(({ topicId }) => topicId === log.topicId);
    if (found === undefined) throw new Error(`${log.name} has no promises`);
    return found;
  }

  #whenDurable(position: number, effect: () => void): void {
    this.engine.whenDurable(position, () => {
      if (this.#isOver) this.#hasAnsweredLate = true;
      effect();
    });
  }

  #append(log: PartitionLog): void {
    const random = this.#random;
    const promises = this.#promisesOf(log);
    for (let repeat = random.chance(0.2) ? random.between(4, 12) : 1; repeat > 0; repeat--) {
      const values = this.#values(log);
      const urgency = random.chance(0.8) ? 'waited' : 'lazy';
      const { position, lastOffset } = log.append(plainBatch(values), { origin: 'client', urgency });
      promises.values.push(...values);
      this.#whenDurable(position, () => promises.acknowledged(lastOffset));
    }
  }

  async #appendAlike(): Promise<void> {
    // A partition whose first record is in the second file of the journal, deleted early in the next life: when that
    // comes to the end of the first file, the second one still holds records that would bring it back.
    if (this.#options.world === undefined && this.#valueCount === 85) this.#create('later');
    if (this.#options.world !== undefined && this.#valueCount === 2) this.#recreate(this.#logs[this.#logs.length - 1]);
    const log = this.#logs[this.#logs.length - 1];
    const promises = this.#promisesOf(log);
    const value = `${this.#options.seed}:${this.#valueCount++}:`.padEnd(150, '.');
    const { position, lastOffset } = log.append(plainBatch([value]), { origin: 'client', urgency: 'waited' });
    promises.values.push(value);
    this.#whenDurable(position, () => promises.acknowledged(lastOffset));
    await this.#clock.advance(2);
  }

  #appendAsProducer(log: PartitionLog): void {
    const random = this.#random;
    const promises = this.#promisesOf(log);
    const producerId = random.between(1, 3) + this.#options.seed * 10;
    const key = `${log.keyText} ${producerId}`;
    for (let repeat = random.between(1, 3); repeat > 0; repeat--) {
      const sequence = this.#sequences.get(key) ?? 0;
      const values = this.#values(log);
      const sent = { producerId, sequence, values, baseOffset: log.endOffset };
      const { position, lastOffset } = log.append(producerBatch(sent), { origin: 'client', urgency: 'waited' });
      this.#sequences.set(key, sequence + values.length);
      promises.values.push(...values);
      promises.sent.push(sent);
      this.#whenDurable(position, () => promises.acknowledged(lastOffset));
    }
    if (!random.chance(0.5)) return;
    // A retry of something that may not be durable yet: its answer says that it is.
    const batch = promises.sent.findLast((each) => each.producerId === producerId);
    if (batch === undefined) return;
    const again = log.append(producerBatch(batch), { origin: 'client', urgency: 'waited' });
    if (!again.isDuplicate || again.baseOffset !== batch.baseOffset)
      throw new BrokenPromise('a retry was taken for a new batch');
    this.#whenDurable(again.position, () => promises.acknowledged(again.lastOffset));
  }

  #commitAtomically(): void {
    const parts: LogCommitPart[] = [];
    const written: { of: Promises; values: string[] }[] = [];
    // Half of them are what a fan-out is: the same for all.
    const isAlike = this.#valueCount % 2 === 0;
    for (const log of this.#logs.slice(0, this.#random.between(1, this.#logs.length))) {
      const own = this.#values(log);
      const values = isAlike ? (written[0]?.values ?? own) : own;
      written.push({ of: this.#promisesOf(log), values });
      parts.push({ kind: 'append', partition: log, batch: plainBatch(values) });
    }
    // It is refused if one of them is fenced: then nothing was sent to any.
    const { position, appended } = this.engine.commit(parts, 'waited');
    const places = written.map(({ of }) => ({ of, offset: of.values.length }));
    for (const { of, values } of written) of.values.push(...values);
    this.#atomics.push(places);
    this.#whenDurable(position, () => {
      places.forEach(({ of }, index) => {
        of.acknowledged(appended[index].lastOffset);
      });
    });
  }

  #moveStart(log: PartitionLog): void {
    const promises = this.#promisesOf(log);
    const offset = this.#random.between(log.startOffset, log.endOffset);
    promises.startMax = Math.max(promises.startMax, offset);
    const { position } = this.engine.commit([{ kind: 'start', partition: log, offset }], 'waited');
    this.#whenDurable(position, () => {
      promises.safeStart = Math.max(promises.safeStart, offset);
    });
  }

  #recreate(log: PartitionLog): void {
    const promises = this.#promisesOf(log);
    promises.isDeletionAsked = true;
    const { position } = this.engine.commit([{ kind: 'delete', partition: log }], 'waited');
    this.#whenDurable(position, () => {
      promises.isDeleted = true;
    });
    this.#logs.splice(this.#logs.indexOf(log), 1);
    this.#create(promises.topic);
  }

  #retain(): void {
    for (const log of this.#logs) {
      const promises = this.#promisesOf(log);
      promises.startMax = Math.max(promises.startMax, log.highWatermark);
    }
    // A failure stops the log, which is told elsewhere.
    this.engine.retain().catch(() => {});
  }

  #compact(): void {
    // A failure stops the log, which is told elsewhere.
    this.engine.compact().catch(() => {});
  }

  /** Drops about half of the older records. */
  #rewrite(): void {
    const log = this.#logs.find(({ topic }) => topic === REWRITTEN);
    if (log === undefined || log.isFenced) return;
    const promises = this.#promisesOf(log);
    const [from, to] = [log.startOffset, log.highWatermark - this.#random.below(20)];
    const keep: number[] = [];
    for (let offset = from; offset < to; offset++) {
      if (this.#random.chance(0.5)) keep.push(offset);
      else promises.droppable.push(offset);
    }
    this.engine.rewrite(log, { from, to, keep: Float64Array.from(keep) }).catch(() => {});
  }

  async #read(log: PartitionLog): Promise<void> {
    const promises = this.#promisesOf(log);
    const from = this.#random.between(log.startOffset, log.highWatermark);
    const end = log.highWatermark;
    let records: Map<number, string>;
    try {
      records = await this.#clock.settle(readRecordsOf(log, from, this.#random.between(100, 4000)));
    } catch (error) {
      // The start may move past the reader, the partition may end, or a read fault fences it.
      if (log.isDeleted || from < log.startOffset || this.#options.fault !== undefined) return;
      throw new BrokenPromise(`${log.name} cannot be read from ${from} to ${end}: ${String(error)}`, { cause: error });
    }
    const mayBeGone = goneIn(log, promises, log.highWatermark, promises.droppable.length);
    for (let offset = from; offset < end; offset++) {
      const value = records.get(offset);
      if (value === undefined ? mayBeGone(offset) : value === promises.values[offset]) continue;
      throw new BrokenPromise(`${log.name}: a reader saw another record at ${offset}`);
    }
    promises.acknowledged(end - 1);
  }

  /** A reader may have seen everything below a high watermark. */
  #noteWatermarks(): void {
    if (this.#failure !== undefined) return;
    for (const log of this.#logs) this.#promisesOf(log).acknowledged(log.highWatermark - 1);
  }
}

/** The same partition in the next life: its lists are copied, for earlier moments still look at the old ones. */
function carriedOver(at: PromisesAt): Promises {
  const { of, safeEnd, safeStart, startMax, isDeletionAsked } = at;
  const promises = new Promises(
    of.topicId,
    of.topic,
    of.values.slice(0, at.appended),
    of.sent.slice(0, at.sent),
    of.droppable.slice(0, at.dropped),
  );
  return Object.assign(promises, { safeEnd, safeStart, startMax, isDeletionAsked });
}

export function openLog(engine: LogEngine, { topicId, topic }: { topicId: string; topic: string }): PartitionLog {
  return engine.openPartition({ topicId, topic, index: 0, config: topic === COMPACTED ? compactedConfig : logConfig });
}

export async function openEngine(
  disk: SimDisk,
  clock: SimClock,
  random: SimRandom,
  isSynced: boolean,
  warn: (message: string) => void = () => {},
): Promise<LogEngine> {
  const dataDir = await DataDir.open(disk, DATA_DIR, { random });
  return LogEngine.open({ disk, clock, random, dataDir, settings: settingsFor(isSynced), warn });
}
