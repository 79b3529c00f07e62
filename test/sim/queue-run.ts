/**
 * A seeded workload on queues over the real log on a simulated disk: publishing with delays and ids, pulling, pushing,
 * accepting, giving back, rejecting, locks that run out, dead letters, configuration; the process dies with some
 * operation of the disk under way, several times. Every delivery is checked against the book (`queue-book.ts`), and at the
 * end all queues are emptied: each message is in exactly one place.
 */
import type { Queue } from '../../broker/queues.ts';
import { type Delivered, PullDoor, PushDoor, QueueWorld } from '../support/queue-world.ts';
import type { CutOptions } from '../support/sim-image.ts';
import { SimRandom } from '../support/sim-random.ts';
import { checkDelivery, checkFound, QueueBook, type Sent } from './queue-book.ts';

const KIB = 1024;

export const cuts: readonly (CutOptions | 'kill')[] = [
  'kill',
  { unsynced: 'lost' },
  { unsynced: 'whole' },
  { unsynced: 'torn', tornBytes: 512 },
  { unsynced: 'prefix' },
  { unsynced: 'kept' },
];

/** Longer than any lock, delay or TTL of the workload. */
const LONG_MS = 20_000;
const LOCK_MS = 400;

export interface QueueRunOptions {
  /** Default 6. */
  lives?: number;
  /** Of each life; default 30. */
  steps?: number;
  onNote?: (line: string) => void;
}

export interface QueueRunResult {
  published: number;
  accepted: number;
  deliveries: number;
  deadLetters: number;
  deaths: number;
  operations: number;
  redrives: number;
}

/** Runs one seed. Throws if a promise is broken. */
export async function runQueues(seed: number, options: QueueRunOptions = {}): Promise<QueueRunResult> {
  const run = new QueueRun(seed, options);
  return run.run();
}

class QueueRun {
  readonly #seed: number;
  readonly #random: SimRandom;
  readonly #options: QueueRunOptions;
  readonly #book = new QueueBook();
  readonly #failures: string[] = [];
  #world!: QueueWorld;
  #deathAt = Number.POSITIVE_INFINITY;
  #death: CutOptions | 'kill' = 'kill';
  #newest = 0;
  /** Pulled, not settled yet. */
  #held: { queue: string; message: Delivered }[] = [];
  #pushes: { queue: string; door: PushDoor }[] = [];
  #result: QueueRunResult = {
    published: 0,
    accepted: 0,
    deliveries: 0,
    deadLetters: 0,
    deaths: 0,
    operations: 0,
    redrives: 0,
  };
  /** Of the life that speaks now. */
  #life = 0;

  constructor(seed: number, options: QueueRunOptions) {
    this.#seed = seed;
    this.#random = new SimRandom(seed);
    this.#options = options;
  }

  #note(line: string): void {
    this.#options.onNote?.(`${this.#world?.clock.monotonic() ?? 0}: ${line}`);
  }
  #fail = (text: string): void => {
    this.#failures.push(text);
  };
  #check(): void {
    if (this.#failures.length > 0) throw new Error(`seed ${this.#seed}: ${this.#failures.join('; ')}`);
  }

  async run(): Promise<QueueRunResult> {
    const random = this.#random;
    this.#world = await QueueWorld.open({
      kind: 'embedded',
      seed: this.#seed,
      tune: (options) => {
        options['journal.file.bytes'] = random.pick([96, 256]) * KIB;
        options['journal.entry.bytes'] = 40 * KIB;
        options['journal.files'] = 2;
        options['journal.direct.bytes'] = random.pick([1, 1024]) * KIB;
        options['journal.segment.bytes'] = random.pick([1, 8]) * KIB;
        options['journal.checkpoint.bytes'] = random.pick([48, 160]) * KIB;
        options['log.tail.cache.bytes'] = random.pick([64, 1024]) * KIB;
        options['log.disk.reserve.bytes'] = 0;
        options['queue.attributes.unsaved.bytes'] = random.pick([1, 2, 20]) * KIB;
        options['queue.delay.memory.ms'] = random.pick([0, 200, 600_000]);
      },
      onOperation: (world, number) => {
        if (number < this.#deathAt || world.isDead) return;
        this.#result.operations += number;
        world.die(this.#death);
      },
    });
    this.#declare();
    await this.#world.durable();
    const { lives = 6, steps = 30 } = this.#options;
    for (let life = 1; life <= lives; life++) {
      this.#life = life;
      const { disk } = this.#world;
      this.#death = random.pick(cuts);
      if (life < lives) this.#deathAt = (disk?.operations ?? 0) + random.between(1, 90);
      for (let step = 0; step < steps && !this.#world.isDead; step++) {
        await this.#step();
        this.#check();
      }
      if (life < lives) await this.#restart();
    }
    this.#deathAt = Number.POSITIVE_INFINITY;
    this.#death = random.pick(cuts);
    await this.#restart();
    await this.#empty();
    this.#check();
    // Cut tails and folders that nobody knows are what a crash leaves.
    const reports = this.#world.reports.filter((line) => !/ is (cut at|set aside) /.test(line));
    if (reports.length > 0) throw new Error(`seed ${this.#seed}: ${reports.join('; ')}`);
    return this.#result;
  }

  async #restart(): Promise<void> {
    this.#deathAt = Number.POSITIVE_INFINITY;
    this.#note(`end ${JSON.stringify(this.#death)}`);
    this.#result.deaths++;
    this.#life++;
    this.#held = [];
    this.#pushes = [];
    this.#book.crashed();
    if (!this.#world.isDead) this.#world.die(this.#death);
    // Power cuts may be followed by another while the broker starts.
    if (this.#random.chance(0.3)) {
      this.#deathAt = this.#random.between(1, 12);
      try {
        await this.#world.restart(this.#death);
      } catch (error) {
        if (!this.#world.isDead) throw error;
      }
      this.#deathAt = Number.POSITIVE_INFINITY;
      if (!this.#world.isDead) return;
    }
    await this.#world.restart(this.#death);
  }

  #declare(): void {
    const world = this.#world;
    world.queue('dead');
    world.queue('work', { 'dead.letter.queue': 'dead', 'receive.limit': 4 });
    world.queue('later', { 'dead.letter.queue': 'dead', 'delay.ms': 100, 'failed.limit': 3 });
    world.queue('once', { 'dedup.window.ms': 3_600_000 });
  }

  #queue(name: string): Queue {
    const queue = this.#world.queues.get(name);
    if (queue === undefined) throw new Error(`seed ${this.#seed}: the queue ${name} is gone`);
    return queue;
  }

  async #step(): Promise<void> {
    const random = this.#random;
    const name = random.pick(['work', 'work', 'later', 'once', 'dead']);
    if (random.chance(0.06)) this.#redrive();
    switch (random.below(9)) {
      case 0:
      case 1:
        await this.#publish(random.pick(['work', 'later', 'once']));
        break;
      case 2:
      case 3:
        await this.#pull(name);
        break;
      case 4:
        this.#push(name);
        break;
      case 5:
      case 6:
        this.#settle();
        break;
      case 7:
        for (const { door } of this.#pushes.splice(0, random.below(2))) door.drop();
        break;
      default:
        await this.#world.run(random.pick([1, 5, 50, 300, 500]));
    }
    if (random.chance(0.7)) await this.#world.run(random.pick([0, 1, 2, 6]));
  }

  async #publish(name: string): Promise<void> {
    const world = this.#world;
    const random = this.#random;
    let isPrepared = false;
    for (const log of this.#queue(name).topic.partitions) {
      const preparing = log.prepare() ?? Promise.resolve();
      preparing.then(
        () => {
          isPrepared = true;
        },
        () => {},
      );
    }
    // It may die while files are read.
    for (let look = 0; look < 20 && !isPrepared; look++) await world.run(1);
    if (!isPrepared || world.isDead) return;
    const sent: Sent[] = [];
    const messages = Array.from({ length: random.between(1, 5) }, () => {
      const value = `${name}-${this.#newest++}-${'x'.repeat(random.pick([0, 50, 900]))}`;
      const headers: Record<string, string> = {};
      const delayMs = name === 'later' ? random.pick([0, 0, 300, 1500]) : 0;
      if (delayMs > 0) headers['millrace.delay.ms'] = String(delayMs);
      const dedupId = name === 'once' ? `id${random.below(12)}` : undefined;
      if (dedupId !== undefined) headers['millrace.dedup.id'] = dedupId;
      const waitMs = name === 'later' ? Math.max(100, delayMs) : 0;
      const notBeforeMs = delayMs > 0 ? world.clock.now() + delayMs : world.clock.now() + (waitMs > 0 ? 100 : 0);
      sent.push(this.#book.send(value, name, { notBeforeMs: waitMs > 0 ? notBeforeMs : 0, dedupId }));
      return { value, headers };
    });
    this.#result.published += sent.length;
    const { position, baseOffset } = world.append(name, messages);
    this.#note(
      `publish ${sent.length} to ${name} at ${baseOffset}: ${JSON.stringify(messages.map(({ headers }) => headers))}`,
    );
    const life = this.#life;
    world.engine.whenDurable(position, () => {
      if (life !== this.#life) return;
      for (const one of sent) one.published = 'answered';
    });
  }

  /** Dead letters go back to where they came from. */
  #redrive(): void {
    const { jobs } = this.#world;
    if (jobs.runningOn('dead') !== undefined) return;
    jobs.start({ kind: 'redrive', source: 'dead', ...(this.#random.chance(0.5) ? { ratePerSecond: 20 } : {}) });
    for (const sent of this.#book.sent.values()) sent.mayReturn = true;
    this.#result.redrives++;
  }

  /** What is pushed may come before that is durable. */
  #saw(queue: string, messages: readonly Delivered[], isPush = false): void {
    const nowMs = this.#world.clock.now();
    for (const { value, acquiredCount, isRedelivery, offset } of messages) {
      this.#note(`saw ${value.slice(0, 20)} in ${queue} at ${offset}, ${acquiredCount}`);
      this.#result.deliveries++;
      if (queue === 'dead') this.#result.deadLetters++;
      checkDelivery(this.#book, { value, queue, acquiredCount, isRedelivery, nowMs }, this.#fail);
      const sent = this.#book.sent.get(value);
      if (sent === undefined) continue;
      const { deliveries } = sent;
      if (!isPush) sent.durableDeliveries = deliveries;
      else if (this.#random.chance(0.2)) this.#whenDurable(() => (sent.durableDeliveries = deliveries));
    }
  }

  #whenDurable(effect: () => void): void {
    const life = this.#life;
    this.#world.queues.whenDurable(() => {
      if (life === this.#life) effect();
    });
  }

  async #pull(name: string): Promise<void> {
    const world = this.#world;
    const receiving = new PullDoor(world, this.#queue(name)).receiving({
      max: this.#random.between(1, 6),
      waitMs: this.#random.pick([1, 40]),
      lockMs: LOCK_MS,
    });
    const life = this.#life;
    receiving.then(
      (messages) => {
        if (life !== this.#life || world.isDead) return;
        this.#saw(name, messages);
        for (const message of messages) this.#held.push({ queue: name, message });
      },
      () => {},
    );
    await world.run(this.#random.pick([0, 2, 10, 50]));
  }

  #push(name: string): void {
    const random = this.#random;
    const queue = this.#queue(name);
    if (random.chance(0.5) || this.#pushes.length === 0) {
      if (this.#pushes.length < 4) {
        const life = this.#life;
        const onArrived = (message: Delivered): void => {
          if (life === this.#life && !this.#world.isDead) this.#saw(name, [message], true);
        };
        const door = new PushDoor(this.#world, queue, { prefetch: random.between(1, 5), onArrived });
        this.#pushes.push({ queue: name, door });
      }
      return;
    }
    const { queue: from, door } = random.pick(this.#pushes);
    for (const message of door.arrived.splice(0)) {
      const kind = random.below(4);
      const sent = this.#book.sent.get(message.value);
      if (sent === undefined) continue;
      if (kind < 2) this.#settled(sent, 'accepted', () => door.ack(message));
      else if (kind === 2 || from === 'dead') door.nack(message, { requeue: true });
      else if (sent.queue === from && from !== 'once') {
        this.#settled(sent, 'rejected', () => door.nack(message, { requeue: false }));
      }
    }
  }

  #settled(sent: Sent, what: 'accepted' | 'rejected', settle: () => void): void {
    settle();
    sent[what] = 'asked';
    if (what === 'accepted') this.#result.accepted++;
    // Half of them are as AMQP's: nobody waits.
    if (this.#random.chance(0.5)) return;
    const { deliveries } = sent;
    this.#whenDurable(() => {
      sent[what] = 'answered';
      sent.durableDeliveries = deliveries;
    });
  }

  #settle(): void {
    const random = this.#random;
    const world = this.#world;
    if (this.#held.length === 0) return;
    const [{ queue: name, message }] = this.#held.splice(random.below(this.#held.length), 1);
    const { partition, offset, acquiredCount } = message;
    const queue = this.#queue(name);
    const lock = queue.partition(partition)?.state.lockOf(offset, world.clock.now());
    // A handle that is out of date, as a door would find.
    if (lock === undefined || lock.acquiredCount !== acquiredCount) return;
    const one = { firstOffset: offset, lastOffset: offset };
    const sent = this.#book.sent.get(message.value);
    if (sent === undefined) return;
    const kind = random.below(4);
    if (kind < 2) {
      this.#settled(sent, 'accepted', () => queue.settle('any', partition, [{ ...one, kind: 'accept' }]));
    } else if (kind === 2) {
      queue.settle('any', partition, [{ ...one, kind: 'release' }]);
    } else {
      queue.settle('any', partition, [{ ...one, kind: 'renew', untilMs: world.clock.now() + 2 * LOCK_MS }]);
    }
  }

  /** Takes everything out of all queues, dead letters last. */
  async #empty(): Promise<void> {
    const world = this.#world;
    await world.run(LONG_MS);
    const found = new Map<string, string[]>();
    for (const name of ['work', 'later', 'once', 'dead']) {
      const queue = this.#queue(name);
      const door = new PullDoor(world, queue);
      for (;;) {
        const messages = await door.receive({ max: 100, waitMs: 10 });
        if (messages.length === 0) break;
        for (const { value } of messages) found.set(value, [...(found.get(value) ?? []), name]);
        this.#saw(name, messages);
        await door.delete(messages);
      }
      await world.run(50);
      const { ready, inFlight, delayed } = queue.counts();
      if (ready + inFlight + delayed > 0) this.#fail(`${name} has ${ready}, ${inFlight}, ${delayed} left`);
    }
    checkFound(this.#book, found, this.#fail);
  }
}
