/**
 * One simulated machine with the whole broker on it: a disk that survives the broker's lives, a process that is started,
 * killed, cut from its power, or stopped in order. Only what sockets, files and clocks would be is simulated.
 */
import { inspect } from 'node:util';
import { type Options, resolveOptions } from '../../broker/config.ts';
import { type OpenBroker, openBroker } from '../../broker/main.ts';
import { PartitionLog } from '../../storage/partition-log.ts';
import { LifeClock } from '../support/life-clock.ts';
import type { SimClock } from '../support/sim-clock.ts';
import { SimDisk } from '../support/sim-disk.ts';
import { type CutOptions, SimImage } from '../support/sim-image.ts';
import type { SimNetwork } from '../support/sim-network.ts';
import type { SimRandom } from '../support/sim-random.ts';

const KIB = 1024;
const DATA_DIR = 'data';

export type Death = { kind: 'kill' } | { kind: 'power cut'; cut: CutOptions };

interface Life {
  readonly clock: LifeClock;
  readonly disk: SimDisk;
  /** Undefined while it starts. */
  broker: OpenBroker | undefined;
  /** Why the broker itself gave up. */
  fatal: Error | undefined;
  isStopping: boolean;
}

interface NodeParts {
  clock: SimClock;
  random: SimRandom;
  network: SimNetwork;
  note: (text: string) => void;
  fail: (text: string) => void;
}

/** Options that make everything happen soon and often. */
export function someOptions(random: SimRandom): Options {
  const options = resolveOptions({
    'log.flush': random.chance(0.85) ? 'synced' : 'written',
    'auto.create.topics.enable': false,
    'log.flush.linger.ms': random.pick([0, 1, 5]),
    'log.retention.check.interval.ms': random.pick([500, 3000]),
    'group.min.session.timeout.ms': 100,
    'group.initial.rebalance.delay.ms': random.pick([0, 0, 50]),
    'fetch.sessions.max': random.pick([2, 10, 1000]),
    'requests.in.flight.max': random.pick([1, 3, 32]),
    'connection.unsent.bytes.max': random.pick([64 * KIB, 1024 * KIB]),
    'journal.segment.linger.ms': random.pick([5, 50, 500]),
    'offset.metadata.max.bytes': 40 * KIB,
    'shutdown.drain.ms': 500,
    'log.segment.delete.delay.ms': random.pick([0, 50]),
    'log.disk.reserve.bytes': 256 * KIB,
    'log.open.files.max': random.pick([16, 1000]),
  });
  // Below what an operator may choose, so that files fill up and checkpoints come within seconds.
  options['journal.file.bytes'] = random.pick([96, 256]) * KIB;
  options['journal.files'] = random.pick([2, 3]);
  options['journal.entry.bytes'] = 128 * KIB;
  options['journal.group.bytes'] = random.pick([8, 32]) * KIB;
  options['journal.direct.bytes'] = random.pick([0, 2, 16, 1024]) * KIB;
  options['journal.segment.bytes'] = random.pick([1, 8]) * KIB;
  options['journal.checkpoint.bytes'] = random.pick([48, 160]) * KIB;
  options['log.tail.cache.bytes'] = random.pick([64, 1024]) * KIB;
  options['log.unwritten.bytes.max'] = random.pick([64, 512]) * KIB;
  if (options['journal.file.bytes'] < 2 * options['journal.entry.bytes']) options['journal.entry.bytes'] = 40 * KIB;
  return options;
}

export class SimNode {
  readonly options: Options;
  /** How long disk operations take; may be changed at any time. */
  readonly latency: { random: SimRandom; minMs: number; maxMs: number };
  /** Over all lives. */
  traceHash = 0;
  starts = 0;
  deaths = 0;
  operations = 0;
  /** Wall time of the last start or death: sessions start anew, requests get lost. */
  disturbedMs = 0;
  spaceBytes = Number.POSITIVE_INFINITY;
  readonly #parts: NodeParts;
  #image = new SimImage();
  #life: Life | undefined;
  #upWaiters: (() => void)[] = [];
  /** Dies with this numbered operation of the present life under way. */
  #deathAt: { operation: number; death: Death } | undefined;

  constructor(parts: NodeParts, options: Options) {
    this.#parts = parts;
    this.options = options;
    this.latency = { random: parts.random.fork(), minMs: 0.05, maxMs: 0.4 };
    watchWaiters();
  }

  /** Takes connections. */
  get isUp(): boolean {
    return this.#life?.broker !== undefined && !this.#life.isStopping;
  }
  /** There is no process. */
  get isDown(): boolean {
    return this.#life === undefined;
  }
  get isSynced(): boolean {
    return this.options['log.flush'] === 'synced';
  }
  get broker(): OpenBroker | undefined {
    return this.#life?.broker;
  }
  get disk(): SimDisk | undefined {
    return this.#life?.disk;
  }

  /** Resolves when the broker answers connections. */
  async up(): Promise<void> {
    while (!this.isUp) await new Promise<void>((resolve) => this.#upWaiters.push(resolve));
  }

  /** Starts the process; true if it is up, false if it ended on the way (and may be started again). */
  async start(prepare: (disk: SimDisk) => void = () => {}): Promise<boolean> {
    const { clock, random, note, fail } = this.#parts;
    this.starts++;
    outstandingWaiters.clear();
    const life: Life = {
      clock: new LifeClock(clock),
      disk: new SimDisk({
        image: this.#image,
        clock,
        latency: this.latency,
        spaceBytes: this.spaceBytes,
        onOperation: (number) => {
          if (this.#deathAt !== undefined && number >= this.#deathAt.operation) this.die(this.#deathAt.death);
        },
      }),
      broker: undefined,
      fatal: undefined,
      isStopping: false,
    };
    this.#life = life;
    this.disturbedMs = clock.monotonic();
    prepare(life.disk);
    note(`start ${this.starts}`);
    const opening = openBroker({
      disk: life.disk,
      clock: life.clock,
      random: random.fork(),
      dataDir: DATA_DIR,
      options: { ...this.options },
      log: (line) => this.#logged(life, line),
    });
    const died = new Promise<'died'>((resolve) => {
      this.#onDeath = () => resolve('died');
    });
    let opened: OpenBroker | 'died';
    try {
      opened = await Promise.race([opening, died]);
    } catch (error) {
      if (this.#life !== life) return false;
      const isExcused = life.disk.faultsInjected > 0 || this.spaceBytes !== Number.POSITIVE_INFINITY;
      if (!isExcused) fail(`the broker does not start: ${inspect(error)}`);
      note(`start ${this.starts} failed: ${String(error)}`);
      this.die({ kind: 'kill' });
      return false;
    }
    if (opened === 'died' || this.#life !== life) {
      opening.catch(() => {});
      return false;
    }
    life.broker = opened;
    this.disturbedMs = clock.monotonic();
    note(`up ${this.starts} after ${life.disk.operations} operations`);
    opened.broker.engine.onFatal((error) => {
      life.fatal = error;
      note(`fatal: ${error.message}`);
      const isExcused = life.disk.faultsInjected > 0 || this.spaceBytes !== Number.POSITIVE_INFINITY;
      if (!isExcused && !life.clock.isDead) fail(`the log stopped although the disk is well: ${inspect(error)}`);
      // The process ends soon, not at once.
      life.clock.after(random.below(20), () => this.#dieIf(life, { kind: 'kill' }));
    });
    for (const resolve of this.#upWaiters.splice(0)) resolve();
    return true;
  }
  #onDeath: () => void = () => {};

  #dieIf(life: Life, death: Death): void {
    if (this.#life === life) this.die(death);
  }

  /** The process ends now, in the middle of whatever it does. */
  die(death: Death): void {
    const life = this.#life;
    if (life === undefined) return;
    const { random, network, note, clock } = this.#parts;
    this.#life = undefined;
    this.#deathAt = undefined;
    life.clock.isDead = true;
    life.disk.stop();
    this.deaths++;
    this.disturbedMs = clock.monotonic();
    note(`${death.kind === 'kill' ? 'kill' : `power cut ${JSON.stringify(death.cut)}`} at ${life.disk.operations}`);
    const image = life.disk.image();
    this.#image = death.kind === 'kill' ? image.afterKill(random) : image.afterPowerCut(random, death.cut);
    this.#retire(life);
    for (const link of [...network.links]) link.die();
    this.#onDeath();
  }

  /** As `die`, with the operation after `operations` more under way. */
  dieAfter(operations: number, death: Death): void {
    if (this.#life !== undefined) this.#deathAt = { operation: this.#life.disk.operations + operations, death };
  }

  /** SIGTERM. */
  async stop(): Promise<void> {
    const life = this.#life;
    if (life?.broker === undefined) return;
    const { note, network, clock } = this.#parts;
    note('stop');
    life.isStopping = true;
    const died = new Promise<void>((resolve) => {
      this.#onDeath = resolve;
    });
    const { broker } = life;
    const stopping = (async () => {
      await broker.drain();
      await broker.close();
    })();
    await Promise.race([stopping, died]);
    if (this.#life !== life) {
      stopping.catch(() => {});
      return;
    }
    this.disturbedMs = clock.monotonic();
    this.#life = undefined;
    this.#deathAt = undefined;
    life.clock.isDead = true;
    life.disk.stop();
    this.#image = life.disk.image();
    this.#retire(life);
    for (const link of [...network.links]) link.die();
    note('stopped');
  }

  setSpace(bytes: number): void {
    this.spaceBytes = bytes;
    this.#life?.disk.setSpace(bytes);
  }

  usedBytes(): number {
    return (this.#life?.disk.image() ?? this.#image).usedBytes();
  }

  #retire(life: Life): void {
    this.operations += life.disk.operations;
    this.traceHash = (Math.imul(this.traceHash, 31) + life.disk.traceHash) >>> 0;
  }

  #logged(life: Life, line: string): void {
    if (life.clock.isDead) return;
    this.#parts.note(`log: ${line.split('\n', 1)[0]}`);
    // A refusal of acks=0 is told by ending the connection, and an operator may know of it.
    if (!line.includes('failed') || line.includes('acks=0')) return;
    if (life.fatal !== undefined || life.disk.faultsInjected > 0) return;
    this.#parts.fail(`the broker reports: ${line}`);
  }

  /** Readers that wait for a higher watermark, in the present life. */
  get waiterCount(): number {
    return outstandingWaiters.size;
  }
}

/** Every registration of `whenAbove` that was neither called nor withdrawn. */
const outstandingWaiters = new Set<object>();
let isWatching = false;

function watchWaiters(): void {
  if (isWatching) return;
  isWatching = true;
  const { whenAbove } = PartitionLog.prototype;
  PartitionLog.prototype.whenAbove = function (offset, callback) {
    const token = {};
    outstandingWaiters.add(token);
    const withdraw = whenAbove.call(this, offset, () => {
      outstandingWaiters.delete(token);
      callback();
    });
    return () => {
      outstandingWaiters.delete(token);
      withdraw();
    };
  };
}
