/**
 * One run of the whole broker, decided by one seed: a machine, clients of every kind, and a nemesis that kills, cuts
 * power and connections, slows, fills and breaks the disk and moves the clock. `simulate` answers what happened, or
 * rejects with what was promised and not kept.
 */
import { crc32 } from 'node:zlib';
import type { Options } from '../../broker/config.ts';
import { SimClock } from '../support/sim-clock.ts';
import type { CutOptions } from '../support/sim-image.ts';
import { SimNetwork } from '../support/sim-network.ts';
import { SimRandom } from '../support/sim-random.ts';
import { GroupOracle } from './broker-groups-oracle.ts';
import { type Death, SimNode, someOptions } from './broker-node.ts';
import { LogOracle, type TopicModel } from './broker-oracle.ts';
import { type PromiseKind, SimClient, type World } from './clients.ts';
import { administer, SimAdmin, someConfigs } from './clients-admin.ts';
import { SimConsumer, verifyTopic } from './clients-consumer.ts';
import { commitAlone, SimMember, verifyCommits } from './clients-member.ts';
import { type ProducerPlan, SimProducer } from './clients-producer.ts';

export interface RunResult {
  /** The same for the same seed, always. */
  traceHash: number;
  simulatedMs: number;
  starts: number;
  deaths: number;
  diskOperations: number;
  acknowledgedRecords: number;
  seenRecords: number;
  acknowledgedCommits: number;
}

export interface RunOptions {
  /** Called with every line of the story. */
  onNote?: (line: string) => void;
  /** How long the nemesis is at work; default: the seed decides, 4 to 15 s of simulated time. */
  lengthMs?: number;
}

const MEMBERS = 3;
const PROMISES: readonly PromiseKind[] = [
  'produced',
  'committed',
  'assigned',
  'created',
  'deleted',
  'records deleted',
  'configured',
];
const CHURN_NAMES = ['churn-a', 'churn-b'];
/** Nothing in a run takes longer. */
const RUN_MS_MAX = 15 * 60_000;

export async function simulate(seed: number, { onNote, lengthMs }: RunOptions = {}): Promise<RunResult> {
  const random = new SimRandom(seed);
  let traceHash = 0;
  let fail: (text: string) => void = () => {};
  const note = (text: string): void => {
    traceHash = crc32(`${world.clock.monotonic()} ${text}`, traceHash);
    onNote?.(`${world.clock.monotonic().toFixed(3)} ${text}`);
  };
  const world = createWorld(random, { note, fail: (text) => fail(text) });
  const { clock, network, node } = world;
  const failed = new Promise<never>((_resolve, reject) => {
    fail = (text) => {
      note(`FAILED: ${text}`);
      reject(new Error(`seed ${seed}, at ${clock.monotonic().toFixed(1)} ms: ${text}`));
    };
  });
  failed.catch(() => {});
  const run = new Run(world, random, lengthMs ?? random.between(4_000, 15_000));
  const timer = clock.after(RUN_MS_MAX, () => fail(`the run does not end; busy: ${[...run.busy].join(', ')}`));
  await clock.settle(Promise.race([run.run(), failed]));
  timer.cancel();
  return {
    traceHash: crc32(`${traceHash} ${network.traceHash} ${node.traceHash}`),
    simulatedMs: clock.monotonic(),
    starts: node.starts,
    deaths: node.deaths,
    diskOperations: node.operations,
    acknowledgedRecords: world.log.acknowledgedRecords,
    seenRecords: world.log.seenRecords,
    acknowledgedCommits: world.groups.acknowledgedCommits,
  };
}

interface Listeners {
  note: (text: string) => void;
  fail: (text: string) => void;
}

/** A machine that is not started yet, and nobody else. */
export function createWorld(random: SimRandom, { note, fail }: Listeners, options?: Options): World {
  const clock = new SimClock();
  const network = new SimNetwork(clock, random.fork());
  const parts = { clock, random: random.fork(), network, note, fail };
  return {
    clock,
    network,
    node: new SimNode(parts, options ?? someOptions(random.fork())),
    log: new LogOracle(fail),
    groups: new GroupOracle(fail),
    isEnding: false,
    isLossy: false,
    diskTroubleMs: -1,
    onPromise: undefined,
    note,
    fail,
    sleep: (ms) => new Promise((resolve) => clock.after(ms, resolve)),
  };
}

class Run {
  readonly #world: World;
  readonly #random: SimRandom;
  readonly #admin: SimAdmin;
  readonly #lengthMs: number;
  #stable: TopicModel[] = [];
  #isDrained = false;
  #isNemesisOver = false;
  #isOver = false;
  /** The next start ends at this operation. */
  #nextDeathAt: number | undefined;
  #producing: Promise<void>[] = [];
  #consuming: Promise<void>[] = [];
  #names = 0;
  /** Clients that have not ended. */
  readonly busy = new Set<string>();

  constructor(world: World, random: SimRandom, lengthMs: number) {
    this.#lengthMs = lengthMs;
    this.#world = world;
    this.#random = random;
    this.#admin = new SimAdmin(world);
  }

  async run(): Promise<void> {
    const world = this.#world;
    const random = this.#random;
    world.node.latency.maxMs = random.pick([0.4, 0.4, 3, 15]);
    if (random.chance(0.1)) this.#nextDeathAt = random.between(1, 120);
    const supervising = this.#supervise();
    for (const name of ['stable-a', 'stable-b']) {
      const isRetained = name === 'stable-b' && random.chance(0.3);
      this.#stable.push(
        await this.#admin.create(name, random.between(1, 3), someConfigs(this.#admin.client, isRetained)),
      );
    }
    for (const topic of this.#stable) this.#startTraffic(topic);
    const groupsOver = [
      ...Array.from({ length: MEMBERS }, (_, index) =>
        this.#watched(`member-${index}`, (name) => new SimMember(world, name, 'group', this.#stable).run()),
      ),
      this.#watched('committer', (name) => commitAlone(world, name, () => this.#churn())),
    ];
    const administering = this.#watched('admin', () => administer(world, this.#admin, CHURN_NAMES));
    const watching = this.#watchTopics();
    await this.#nemesis();
    await this.#calm();

    world.isEnding = true;
    world.note('ending');
    await Promise.all([administering, watching, ...groupsOver]);
    await Promise.all(this.#producing);
    this.#isDrained = true;
    await Promise.all(this.#consuming);
    await this.#verify('at the end');
    await this.#checkLeaks();
    await this.#lastRestart();
    await supervising;
  }

  /** Starts the process again whenever it has ended. */
  async #supervise(): Promise<void> {
    const { node } = this.#world;
    let attempts = 0;
    while (!this.#isOver) {
      if (node.isDown) {
        if (attempts > 0) await this.#world.sleep(this.#random.below(500));
        if (++attempts > 30) this.#world.fail('the broker does not start any more');
        const deathAt = this.#nextDeathAt;
        this.#nextDeathAt = undefined;
        const isUp = await node.start(() => {
          if (deathAt !== undefined) node.dieAfter(deathAt, this.#someDeath());
        });
        if (isUp) attempts = 1;
      }
      await this.#world.sleep(10);
    }
  }

  async #watched(name: string, start: (name: string) => Promise<void>): Promise<void> {
    this.busy.add(name);
    await start(name);
    this.busy.delete(name);
  }

  #churn(): TopicModel | undefined {
    const topics = CHURN_NAMES.flatMap((name) => this.#admin.current.get(name) ?? []);
    const live = topics.filter(({ status }) => status === 'live');
    return live.length === 0 ? undefined : this.#random.pick(live);
  }

  #startTraffic(topic: TopicModel): void {
    const random = this.#random;
    const producers = topic.name.startsWith('churn') ? 1 : 2;
    for (let index = 0; index < producers; index++) {
      const thinkMsMax = random.pick([30, 200, 800]);
      const kind = index === 0 || random.chance(0.4) ? 'idempotent' : 'plain';
      const plan: ProducerPlan = {
        topic,
        partitions: Array.from({ length: topic.partitionsMin }, (_, partition) => partition),
        kind,
        acks: kind === 'idempotent' ? -1 : random.pick([-1, 1, 0] as const),
        thinkMsMax,
        paddingMax: random.pick([1, 100, 100, thinkMsMax < 800 ? 500 : 3000]),
      };
      this.#producing.push(
        this.#watched(`producer-${this.#names++}`, (name) => new SimProducer(this.#world, name, plan).run()),
      );
    }
    this.#consuming.push(
      this.#watched(`consumer-${this.#names++}`, (name) =>
        new SimConsumer(this.#world, name, topic).run(() => this.#isDrained),
      ),
    );
  }

  /** Topics that come and go get a producer and a consumer each. */
  async #watchTopics(): Promise<void> {
    const known = new Set(this.#stable);
    while (!this.#world.isEnding) {
      await this.#world.sleep(100);
      for (const topic of this.#admin.current.values()) {
        if (known.has(topic)) continue;
        known.add(topic);
        this.#startTraffic(topic);
      }
    }
  }

  // --- the nemesis ---

  async #nemesis(): Promise<void> {
    const { clock } = this.#world;
    const endMs = clock.monotonic() + this.#lengthMs;
    const habits = this.#someHabits();
    while (clock.monotonic() < endMs) {
      await this.#world.sleep(this.#random.between(50, 2500));
      await this.#random.pick(habits)();
    }
    this.#isNemesisOver = true;
  }

  /** What this run's nemesis likes to do; not everything in every run, so that things can get far. */
  #someHabits(): (() => Promise<void> | void)[] {
    const random = this.#random;
    const all = [
      () => this.#crash(),
      () => this.#crash(),
      () => this.#crashOnPromise(),
      () => this.#crashOnPromise(),
      () => this.#restart(),
      () => this.#failDisk(),
      () => this.#shortWrite(),
      () => this.#fillDisk(),
      () => this.#slowDisk(),
      () => this.#world.clock.jump(random.between(-1_800_000, 1_800_000)),
      () => this.#disturbNetwork(),
      () => this.#disturbNetwork(),
    ];
    return [all[0], ...all.slice(1).filter(() => random.chance(0.6))];
  }

  #someDeath(): Death {
    const random = this.#random;
    if (!this.#world.node.isSynced || random.chance(0.4)) return { kind: 'kill' };
    const cut: CutOptions = {
      unsynced: random.pick(['lost', 'kept', 'whole', 'torn', 'prefix'] as const),
      tornBytes: random.pick([512, 4096] as const),
      keptProbability: random.pick([0.1, 0.5, 0.9]),
    };
    return { kind: 'power cut', cut };
  }

  async #crash(): Promise<void> {
    const random = this.#random;
    const { node } = this.#world;
    if (random.chance(0.5)) node.die(this.#someDeath());
    else {
      node.dieAfter(random.between(1, 60), this.#someDeath());
      await this.#world.sleep(random.below(3000));
      if (node.isUp) node.die(this.#someDeath());
    }
    if (random.chance(0.3)) this.#nextDeathAt = random.between(1, 80);
    await node.up();
    if (random.chance(0.5)) await this.#verifyGroups();
    if (random.chance(0.3)) await this.#verify('after a crash');
  }

  /** In the moment in which a client is told something. */
  async #crashOnPromise(): Promise<void> {
    const random = this.#random;
    const world = this.#world;
    const wanted = random.pick(PROMISES);
    // On a slow disk what is told too early is told long before it is true.
    const { latency } = world.node;
    const { minMs, maxMs } = latency;
    if (random.chance(0.5)) Object.assign(latency, { minMs: 10, maxMs: 40 });
    const died = new Promise<void>((resolve) => {
      world.onPromise = (what) => {
        if (what !== wanted || !world.node.isUp) return;
        world.onPromise = undefined;
        world.note(`${what}: now`);
        world.node.die(this.#someDeath());
        resolve();
      };
    });
    await Promise.race([died, world.sleep(4000)]);
    Object.assign(latency, { minMs, maxMs });
    world.onPromise = undefined;
    await world.node.up();
    await this.#verifyGroups();
  }

  async #verifyGroups(): Promise<void> {
    const client = new SimClient(this.#world, 'verifier', { isGood: true });
    await client.connect();
    await verifyCommits(this.#world, client, 'group', this.#stable);
    client.close();
  }

  async #restart(): Promise<void> {
    await this.#world.node.stop();
    await this.#world.node.up();
    if (this.#random.chance(0.3)) await this.#verify('after a stop');
  }

  /** A write or sync fails: the broker has to stop, the process is started again. */
  async #failDisk(): Promise<void> {
    const random = this.#random;
    const { node, clock } = this.#world;
    const { disk } = node;
    if (disk === undefined) return;
    this.#world.diskTroubleMs = Number.POSITIVE_INFINITY;
    const isRead = random.chance(0.3);
    const number = (isRead ? disk.reads : disk.operations) + random.between(1, 30);
    disk.failAt(number, 'EIO', { of: isRead ? 'read' : 'operation', path: random.pick(['', '', '.log', 'journal']) });
    await this.#world.sleep(random.below(2000));
    // A fenced partition stays fenced until the next start.
    if (node.isUp && disk.faultsInjected > 0) node.die({ kind: 'kill' });
    disk.heal();
    await node.up();
    this.#world.diskTroubleMs = clock.monotonic();
  }

  #shortWrite(): void {
    const { disk } = this.#world.node;
    disk?.failAt(disk.operations + this.#random.between(1, 20), 'short', { times: this.#random.between(1, 5) });
  }

  async #fillDisk(): Promise<void> {
    const random = this.#random;
    const { node, clock } = this.#world;
    this.#world.diskTroubleMs = Number.POSITIVE_INFINITY;
    // Room for what goes on below the reserve, or next to nothing.
    node.setSpace(node.usedBytes() + random.pick([0, 20_000, 200_000, 230_000, 300_000]));
    await this.#world.sleep(random.between(500, 4000));
    node.setSpace(Number.POSITIVE_INFINITY);
    await node.up();
    // The broker looks at the free space once a second.
    await this.#world.sleep(1500);
    this.#world.diskTroubleMs = clock.monotonic();
  }

  async #slowDisk(): Promise<void> {
    const random = this.#random;
    const { latency } = this.#world.node;
    this.#world.diskTroubleMs = Number.POSITIVE_INFINITY;
    const usualMs = latency.maxMs;
    latency.maxMs = random.pick([5, 30, 150]);
    await this.#world.sleep(random.between(300, 3000));
    if (random.chance(0.4)) this.#world.node.die(this.#someDeath());
    latency.maxMs = usualMs;
    this.#world.diskTroubleMs = this.#world.clock.monotonic() + 1000;
  }

  #disturbNetwork(): void {
    const random = this.#random;
    for (const link of [...this.#world.network.links]) {
      if (!random.chance(0.3)) continue;
      const dice = random.below(4);
      if (dice === 0) link.cut();
      else if (dice === 1) link.cut(random.between(1000, 20_000));
      else if (dice === 2) link.stall(random.between(100, 8000));
      else link.close();
    }
  }

  /** Everything works again. */
  async #calm(): Promise<void> {
    const { node, clock } = this.#world;
    node.disk?.heal();
    await node.up();
    await this.#world.sleep(1500);
    this.#world.diskTroubleMs = this.#world.diskTroubleMs < 0 ? -1 : clock.monotonic();
  }

  // --- checks ---

  async #verify(when: string): Promise<void> {
    const world = this.#world;
    world.note(`verify ${when}`);
    const client = new SimClient(world, 'verifier', { isGood: true });
    const starts = world.node.starts;
    for (const topic of [...world.log.topics.values()]) {
      for (let attempt = 0; topic.status === 'live' && attempt < 3; attempt++) {
        if (world.node.starts !== starts && !this.#isNemesisOver) break;
        await client.connect();
        if (await verifyTopic(world, client, topic)) break;
      }
    }
    await verifyCommits(world, client, 'group', this.#stable);
    client.close();
    if (this.#isNemesisOver) await this.#admin.look();
  }

  /** When everybody has gone, nothing is left of them. */
  async #checkLeaks(): Promise<void> {
    const world = this.#world;
    const { node } = world;
    this.#admin.client.close();
    // Sessions end, long polls time out, sockets notice that their peer is gone.
    await world.sleep(70_000);
    const { broker } = node;
    if (broker === undefined) return world.fail('the broker has ended by itself');
    const { engine, groups } = broker.broker;
    if (broker.kafkaConnections.size > 0) world.fail(`${broker.kafkaConnections.size} connections are left`);
    if (node.waiterCount > 0) world.fail(`${node.waiterCount} readers that wait are left`);
    if (engine.durablePosition !== engine.lastPosition) world.fail('something never became durable');
    if (!engine.hasRoom) world.fail('there is no room although nobody writes');
    for (const group of groups.groups()) {
      if (group.state !== 'Empty') world.fail(`group ${group.id} is ${group.state} although all have gone`);
    }
  }

  async #lastRestart(): Promise<void> {
    const world = this.#world;
    const { node } = world;
    if (!node.isSynced) {
      // Allowed to lose what was acknowledged, but not to be confused by it.
      world.isLossy = true;
      const cut: CutOptions = { unsynced: this.#random.pick(['lost', 'whole', 'torn', 'prefix'] as const) };
      node.die({ kind: 'power cut', cut });
      world.log.forget();
      world.groups.forget();
    } else if (this.#random.chance(0.5)) await node.stop();
    else node.die(this.#someDeath());
    await node.up();
    await this.#verify('after the last restart');
    this.#isOver = true;
    await node.stop();
  }
}
