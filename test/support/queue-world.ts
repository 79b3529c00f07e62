/**
 * Queues without a protocol: a registry on the engine in memory, or on the real one over a simulated disk, which can be
 * stopped, killed and cut from its power; and two doors in the two shapes that doors have, pull and push with credit.
 */
import type { Options } from '../../broker/config.ts';
import { AttributeFiles } from '../../broker/attribute-files.ts';
import { resolveOptions } from '../../broker/config.ts';
import { openEmbeddedEngine, type EmbeddedEngine } from '../../broker/embedded-engine.ts';
import type { Engine } from '../../broker/engine.ts';
import type { Acquisition, QueueDoor } from '../../broker/queue.ts';
import type { Consumer } from '../../broker/queue-consumer.ts';
import { QueueJobs } from '../../broker/queue-jobs.ts';
import { type QueuedRecord, QueueReader } from '../../broker/queue-reader.ts';
import { type Queue, QueueRegistry } from '../../broker/queues.ts';
import { TopicRegistry } from '../../broker/topics.ts';
import { buildBatch, type RecordInit } from '../../protocol/record-batch.ts';
import { LifeClock } from './life-clock.ts';
import { MemoryEngine } from './memory-engine.ts';
import { SimClock } from './sim-clock.ts';
import { SimDisk } from './sim-disk.ts';
import { type CutOptions, SimImage } from './sim-image.ts';
import { SimRandom } from './sim-random.ts';

export type WorldKind = 'memory' | 'embedded';
export type WorldEnd = 'stop' | 'kill' | CutOptions;
export type Publishable =
  | string
  | Partial<RecordInit>
  | { value: string; headers?: Record<string, string>; key?: string };

export interface WorldOptions {
  /** Below what an operator may choose, for files that fill up soon. */
  tune?: (options: Options) => void;
  /** What the disk holds at first. */
  image?: SimImage;
  /** Called when each operation on the disk is under way. */
  onOperation?: (world: QueueWorld, number: number) => void;
  clock?: SimClock;
  kind?: WorldKind;
  options?: Readonly<Record<string, string | number | boolean>>;
  seed?: number;
}

export class QueueWorld {
  readonly kind: WorldKind;
  readonly clock: SimClock;
  readonly options: Options;
  readonly random: SimRandom;
  /** What the operator was told. */
  readonly reports: string[] = [];
  engine!: Engine;
  topics!: TopicRegistry;
  queues!: QueueRegistry;
  jobs!: QueueJobs;
  disk: SimDisk | undefined;
  #image: SimImage;
  #life: LifeClock | undefined;
  readonly #onOperation: WorldOptions['onOperation'];
  #memory: MemoryEngine | undefined;
  #deleted: string[] = [];

  private constructor(from: WorldOptions) {
    const { kind = 'memory', options = {}, seed = 1 } = from;
    this.kind = kind;
    this.clock = from.clock ?? new SimClock();
    this.random = new SimRandom(seed);
    this.options = resolveOptions(options);
    from.tune?.(this.options);
    this.#image = from.image ?? new SimImage();
    this.#onOperation = from.onOperation;
  }

  static async open(options: WorldOptions = {}): Promise<QueueWorld> {
    const world = new QueueWorld(options);
    await world.start();
    return world;
  }

  /** Names of topics that went with their queue. */
  get deletedTopics(): readonly string[] {
    return this.#deleted;
  }

  async start(): Promise<void> {
    await this.clock.settle(this.#start());
  }
  async #start(): Promise<void> {
    const { random, options } = this;
    const clock = new LifeClock(this.clock);
    this.#life = clock;
    if (this.kind === 'memory') {
      this.#memory = this.#memory?.restart() ?? new MemoryEngine({ clock });
      this.engine = this.#memory;
    } else {
      const onOperation = (number: number): void => this.#onOperation?.(this, number);
      this.disk = new SimDisk({ image: this.#image, clock, onOperation });
      const warn = (line: string): void => void this.reports.push(line);
      this.engine = await openEmbeddedEngine({ disk: this.disk, clock, random, dataDir: 'data', options, warn });
    }
    this.topics = new TopicRegistry({ engine: this.engine, clock, random, options });
    await this.topics.load();
    const { engine, topics } = this;
    const reader = new QueueReader({
      openBytesMax: options['queue.open.batches.bytes'],
      decompressedBytesMax: options['decompressed.bytes.max'],
    });
    const report = (message: string, error: unknown): void => void this.reports.push(`${message}: ${String(error)}`);
    const { disk } = this;
    const attributeFiles = disk && (await AttributeFiles.open({ disk, dataDir: 'data', report }));
    this.queues = new QueueRegistry({
      engine,
      clock,
      options,
      topics,
      reader,
      ...(attributeFiles ? { attributeFiles } : {}),
      topicDeleted: (topic) => void this.#deleted.push(topic.name),
      report,
    });
    await this.queues.load();
    const { queues } = this;
    this.jobs = new QueueJobs({
      engine,
      clock,
      topics,
      queues,
      reader,
      entryBytes: options['journal.entry.bytes'],
      report,
    });
    await this.jobs.load();
    await this.engine.discardUnopened();
  }

  /** Ends and starts again; answers when the queues are back. */
  async restart(end: WorldEnd = 'stop'): Promise<void> {
    this.jobs.close();
    if (this.disk === undefined) this.queues.close();
    else if (end === 'stop') {
      this.queues.close();
      await this.clock.settle((this.engine as EmbeddedEngine).close());
      this.disk.stop();
      this.#image = this.disk.image();
    } else this.die(end);
    if (this.#life !== undefined) this.#life.isDead = true;
    await this.start();
    await this.run(1);
  }

  /** The process ends now, in the middle of whatever it does; `restart` brings it back. */
  die(end: 'kill' | CutOptions): void {
    if (this.disk === undefined || this.#life === undefined) throw new Error('only a world with a disk dies');
    this.queues?.close();
    this.disk.stop();
    this.#life.isDead = true;
    const image = this.disk.image();
    this.#image = end === 'kill' ? image.afterKill(this.random) : image.afterPowerCut(this.random, end);
  }
  get isDead(): boolean {
    return this.#life?.isDead === true;
  }

  async close(): Promise<void> {
    this.jobs.close();
    this.queues.close();
    if (this.kind === 'embedded') await this.clock.settle((this.engine as EmbeddedEngine).close());
  }

  /** Lets everything happen that happens within so many milliseconds. */
  async run(ms = 0): Promise<void> {
    await this.clock.advance(ms);
  }

  /** Everything decided so far is durable. */
  async durable(): Promise<void> {
    await this.clock.settle(new Promise<void>((resolve) => this.queues.whenDurable(resolve)));
  }

  topic(name: string, partitionCount = 1) {
    return this.topics.create({ name, partitionCount, overrides: new Map() });
  }

  /** An owned queue. */
  queue(name: string, settings: Record<string, string | number | boolean> = {}): Queue {
    const text = new Map(Object.entries(settings).map(([setting, value]) => [setting, String(value)]));
    return this.queues.declare({ name, kind: 'owned', settings: text, family: 'millrace' });
  }

  /** One batch, durable. Answers its base offset. */
  async publish(topicName: string, messages: readonly Publishable[], partitionIndex = 0): Promise<number> {
    await this.clock.settle(Promise.resolve(this.topics.get(topicName)?.partitions[partitionIndex].prepare()));
    const appended = this.append(topicName, messages, partitionIndex);
    await this.clock.settle(new Promise<void>((resolve) => this.engine.whenDurable(appended.position, resolve)));
    // Readers are woken after answers have left.
    await this.run(0);
    return appended.baseOffset;
  }

  /** As `publish`, without waiting. */
  append(topicName: string, messages: readonly Publishable[], partitionIndex = 0) {
    const topic = this.topics.get(topicName);
    if (topic === undefined) throw new Error(`no topic ${topicName}`);
    const partition = topic.partitions[partitionIndex];
    const records = messages.map((message) => recordOf(message, this.clock.now()));
    const batch = buildBatch(records);
    const intake = this.queues.intake(topic.id);
    const pending = intake?.check(partition, batch, 'kafka');
    const appended = partition.append(batch, { origin: 'client', urgency: 'waited' });
    if (pending !== undefined) intake?.appended(partition, pending, appended);
    return appended;
  }
}

function recordOf(message: Publishable, timestamp: number): RecordInit {
  if (typeof message === 'string') return { key: null, value: Buffer.from(message), timestamp };
  const { key, value, headers } = message as { key?: string; value?: string; headers?: Record<string, string> };
  return {
    key: key === undefined ? null : Buffer.from(key),
    value: value === undefined ? null : Buffer.from(value),
    headers: Object.entries(headers ?? {}).map(([name, text]) => ({ key: name, value: Buffer.from(text) })),
    timestamp,
  };
}

/** One message as a door hands it out. */
export interface Delivered {
  readonly value: string;
  readonly partition: number;
  readonly offset: number;
  readonly acquiredCount: number;
  readonly failedCount: number;
  readonly epoch: number;
  /** It may have been handed out before. */
  readonly isRedelivery: boolean;
  readonly record: QueuedRecord;
}

async function read(world: QueueWorld, queue: Queue, { partition, runs }: Acquisition): Promise<Delivered[]> {
  const log = queue.topic.partitions[partition];
  const ascending = runs.toSorted((a, b) => a.firstOffset - b.firstOffset);
  const { records } = await world.queues.reader.records(log, ascending);
  const state = queue.partition(partition)?.state;
  return records.map((record) => {
    const run = runs.find(({ firstOffset, lastOffset }) => firstOffset <= record.offset && record.offset <= lastOffset);
    return {
      value: record.value?.toString() ?? '',
      partition,
      offset: record.offset,
      acquiredCount: run?.acquiredCount ?? 0,
      failedCount: run?.failedCount ?? 0,
      epoch: state?.epochOf(record.offset) ?? 0,
      isRedelivery: state?.mark.isRedelivery(record.offset, run?.acquiredCount ?? 0) ?? false,
      record,
    };
  });
}

/** In the order of the acquisition, which priority and fairness decide. */
function ordered(messages: readonly Delivered[], { runs }: Acquisition): Delivered[] {
  const byOffset = new Map(messages.map((message) => [message.offset, message]));
  const result: Delivered[] = [];
  for (const { firstOffset, lastOffset } of runs) {
    for (let offset = firstOffset; offset <= lastOffset; offset++) {
      const message = byOffset.get(offset);
      if (message !== undefined) result.push(message);
    }
  }
  return result;
}

/** Pull: each receive takes a batch with a deadline, and what it took is settled by handle, by whoever has it. */
export class PullDoor {
  readonly #world: QueueWorld;
  readonly #queue: Queue;
  readonly door: QueueDoor;

  constructor(world: QueueWorld, queue: Queue, door: QueueDoor = 'sqs') {
    this.#world = world;
    this.#queue = queue;
    this.door = door;
  }

  /** Waits up to `waitMs` for the first message. What it answers is durable. */
  async receive({ max = 10, waitMs = 0, lockMs = 30_000 } = {}): Promise<Delivered[]> {
    return this.#world.clock.settle(this.receiving({ max, waitMs, lockMs }));
  }
  receiving({ max = 10, waitMs = 0, lockMs = 30_000 }): Promise<Delivered[]> {
    const { clock, queues } = this.#world;
    return new Promise((resolve, reject) => {
      const got: Promise<Delivered[]>[] = [];
      const answer = (): void => {
        timer.cancel();
        consumer.close({ isFailure: false });
        Promise.all(got).then((parts) => resolve(parts.flat()), reject);
      };
      const consumer = queues.consumer({
        door: this.door,
        lockMs,
        isBoundToConnection: false,
        onAcquired: (queue, acquisition) => {
          const leased = new Promise<void>((isLeased) => queues.whenLeased(acquisition, isLeased));
          const reading = read(this.#world, queue, acquisition);
          got.push(leased.then(() => reading).then((messages) => ordered(messages, acquisition)));
        },
        onServed: answer,
        onLeft: answer,
      });
      const timer = clock.after(Math.max(1, waitMs), answer);
      consumer.join(this.#queue);
      consumer.want({ messages: max, isOnce: true });
    });
  }

  /** DeleteMessage: the handle is good as long as the message was not handed out or replayed since. */
  async delete(messages: readonly Delivered[]): Promise<void> {
    for (const { partition, offset } of messages) {
      this.#check(messages);
      this.#queue.settle('any', partition, [{ firstOffset: offset, lastOffset: offset, kind: 'accept' }]);
    }
    await this.#world.durable();
  }

  /** ChangeMessageVisibility; 0 gives it back. */
  async change(messages: readonly Delivered[], lockMs: number): Promise<void> {
    const untilMs = this.#world.clock.now() + lockMs;
    for (const { partition, offset } of messages) {
      const one = { firstOffset: offset, lastOffset: offset };
      this.#queue.settle('any', partition, [
        lockMs === 0 ? { ...one, kind: 'release', isFailure: false } : { ...one, kind: 'renew', untilMs },
      ]);
    }
    await this.#world.durable();
  }

  #check(messages: readonly Delivered[]): void {
    for (const { partition, offset, epoch } of messages) {
      const state = this.#queue.partition(partition)?.state;
      if (state === undefined || state.epochOf(offset) !== epoch) throw new Error(`the handle of ${offset} is void`);
    }
  }
}

/** Push: messages arrive while there is credit; tags are settled one by one; the connection may break. */
export class PushDoor {
  readonly #world: QueueWorld;
  readonly #queue: Queue;
  readonly consumer: Consumer;
  readonly #prefetch: number;
  readonly #onArrived: ((message: Delivered) => void) | undefined;
  /** Arrived, in order. */
  readonly arrived: Delivered[] = [];
  readonly #unsettled = new Map<number, Delivered>();
  #pending = 0;
  isEnded = false;

  constructor(
    world: QueueWorld,
    queue: Queue,
    {
      prefetch = 10,
      priority = 0,
      isExclusive = false,
      onArrived,
    }: { prefetch?: number; priority?: number; isExclusive?: boolean; onArrived?: (message: Delivered) => void } = {},
  ) {
    this.#world = world;
    this.#queue = queue;
    this.#prefetch = prefetch;
    this.#onArrived = onArrived;
    this.consumer = world.queues.consumer({
      door: 'amqp',
      lockMs: 'connection',
      priority,
      isExclusive,
      onAcquired: (from, acquisition) => this.#acquired(from, acquisition),
      onLeft: () => {
        this.isEnded = true;
      },
    });
    this.consumer.join(queue);
    this.consumer.want({ messages: prefetch });
  }

  get unsettled(): number {
    return this.#unsettled.size;
  }

  #acquired(queue: Queue, acquisition: Acquisition): void {
    this.#pending += acquisition.messageCount;
    const reading = read(this.#world, queue, acquisition);
    this.#world.queues.whenLeased(acquisition, () => {
      reading.then(
        (messages) => {
          this.#pending -= acquisition.messageCount;
          for (const message of ordered(messages, acquisition)) {
            this.arrived.push(message);
            this.#unsettled.set(message.offset, message);
            this.#onArrived?.(message);
          }
        },
        (error: unknown) => void this.#world.reports.push(String(error)),
      );
    });
  }

  /** The values that arrived since the last look. */
  take(): string[] {
    return this.arrived.splice(0).map(({ value }) => value);
  }

  #settle(message: Delivered, kind: 'accept' | 'release' | 'reject', isFailure = true): void {
    const one = { firstOffset: message.offset, lastOffset: message.offset };
    this.#queue.settle(this.consumer, message.partition, [{ ...one, kind, isFailure }]);
    this.#unsettled.delete(message.offset);
    this.consumer.want({ messages: this.#prefetch - this.#unsettled.size - this.#pending });
  }
  ack(message: Delivered): void {
    this.#settle(message, 'accept');
  }
  nack(message: Delivered, { requeue }: { requeue: boolean }): void {
    this.#settle(message, requeue ? 'release' : 'reject');
  }
  ackAll(): void {
    for (const message of [...this.#unsettled.values()]) this.ack(message);
  }
  /** The connection is gone. */
  drop(): void {
    this.consumer.close({ isFailure: true });
    this.isEnded = true;
  }
}
