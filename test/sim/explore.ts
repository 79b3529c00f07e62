/**
 * Crash exploration of the log: a workload is recorded once; at every disk operation the world ends in several ways (power
 * cut with unsynced writes lost, torn or reordered; kill), the log is opened again and must keep its promises; during
 * that recovery the world ends again. Then the same workload with a fault at each operation.
 */
import { verify } from '../../storage/dump.ts';
import { SimClock } from '../support/sim-clock.ts';
import { type DiskFault, SimDisk } from '../support/sim-disk.ts';
import type { CutOptions, SimImage } from '../support/sim-image.ts';
import { SimRandom } from '../support/sim-random.ts';
import { BrokenPromise, checkPartition, checkRetries, type Promises, withPlace } from './log-promises.ts';
import {
  DATA_DIR,
  type Moment,
  openEngine,
  openLog,
  runWorkload,
  type WorkloadEnd,
  type WorldAt,
} from './log-workload.ts';

/** Ways to lose power. */
const cuts: readonly CutOptions[] = [
  { unsynced: 'lost' },
  { unsynced: 'whole' },
  { unsynced: 'torn', tornBytes: 512 },
  { unsynced: 'torn', tornBytes: 4096 },
  { unsynced: 'prefix' },
  { unsynced: 'kept', names: 'lost' },
  { unsynced: 'lost', names: 'kept' },
  { unsynced: 'kept' },
];

export type Ending = { kind: 'kill' } | { kind: 'power cut'; cut: CutOptions };

export interface ExploreOptions {
  seed: number;
  isSynced: boolean;
  /** Of one workload; about six disk operations each. */
  steps: number;
  /** See `WorkloadOptions`. */
  isUniform?: boolean;
  /** Lives: each goes on from one of the ends of the one before. */
  lives: number;
  /** Look at every n-th operation; 1 is all of them. */
  stride: number;
  /** Ways to end at each operation, of those there are. */
  endingsMax: number;
  /** Second ends during one recovery. */
  secondEndsMax: number;
}

export interface Explored {
  /** States that were opened and checked. */
  states: number;
  /** Disk operations of the recorded workloads. */
  operations: number;
}

/** Explores one seed. Throws, with what to run to see it again, if a promise is broken. */
export async function exploreEnds(options: ExploreOptions): Promise<Explored> {
  const { seed, isSynced, steps, lives, stride } = options;
  const random = new SimRandom(`ends ${seed}`);
  const explored: Explored = { states: 0, operations: 0 };
  let image: SimImage | undefined;
  let world: WorldAt | undefined;
  for (let life = 0; life < lives; life++) {
    const moments: Moment[] = [];
    const end = await runWorkload({
      seed: seed * 100 + life,
      isSynced,
      steps,
      isUniform: options.isUniform ?? false,
      ...(image === undefined || world === undefined ? {} : { image, world }),
      // The very first start of a folder has nothing to keep.
      onMoment: (moment) => moments.push(moment),
    });
    moments.push(end.moment);
    explored.operations += end.operations;
    for (let index = life % stride; index < moments.length; index += stride) {
      const endings = endingsAt(index / stride, options, random);
      for (const ending of endings) {
        explored.states += await checkEnd(moments[index], ending, options, random, `life ${life}`);
      }
    }
    if (end.failure !== undefined) throw withPlace(`seed ${seed}, life ${life}`, stopped(end.failure));
    const goesOnAt =
      options.isUniform === true ? moments.length - 1 : random.between(moments.length >>> 1, moments.length - 1);
    const last = moments[goesOnAt];
    const survivor = afterEnd(last.image, isSynced ? random.pick(endingsOf(true)) : { kind: 'kill' }, random);
    [image, world] = await nextLife(survivor, last.world, isSynced);
  }
  return explored;
}

function stopped(failure: Error): BrokenPromise {
  return new BrokenPromise(`the log has stopped by itself: ${failure.message}`, { cause: failure });
}

function endingsOf(isSynced: boolean): Ending[] {
  const powerCuts = cuts.map((cut): Ending => ({ kind: 'power cut', cut }));
  // With `log.flush: written` a power cut keeps no promise; what is left must make sense all the same.
  return isSynced ? [...powerCuts, { kind: 'kill' }] : [{ kind: 'kill' }, ...powerCuts];
}

function endingsAt(turn: number, { isSynced, endingsMax }: ExploreOptions, random: SimRandom): Ending[] {
  const all = endingsOf(isSynced);
  if (endingsMax >= all.length) return all;
  // In turn, so that all come up; for `written`, the kill each time.
  const chosen = isSynced ? [] : all.splice(0, 1);
  const start = Math.floor(turn * endingsMax) + random.below(2);
  for (let index = 0; chosen.length < endingsMax; index++) chosen.push(all[(start + index) % all.length]);
  return chosen;
}

function afterEnd(image: SimImage, ending: Ending, random: SimRandom): SimImage {
  return ending.kind === 'kill' ? image.afterKill(random) : image.afterPowerCut(random, ending.cut);
}

/** What holds after these ends: whether promises are kept, and whether files that nobody syncs may be anything. */
function termsOf(isSynced: boolean, endings: readonly Ending[]): { kept: boolean; isCut: boolean } {
  const isCut = endings.some(({ kind }) => kind === 'power cut');
  return { kept: isSynced || !isCut, isCut };
}

async function checkEnd(
  moment: Moment,
  ending: Ending,
  options: ExploreOptions,
  random: SimRandom,
  where: string,
): Promise<number> {
  const { seed, isSynced, secondEndsMax } = options;
  let states = 0;
  let step = 'recovery';
  try {
    const first = afterEnd(moment.image, ending, random);
    const during = await checkRecovery(
      first,
      moment.world,
      isSynced,
      termsOf(isSynced, [ending]),
      random,
      secondEndsMax,
    );
    states++;
    for (const image of during) {
      step = 'recovery after an end during recovery';
      const second: Ending = isSynced
        ? random.pick(endingsOf(true))
        : ending.kind === 'kill'
          ? ending
          : random.pick(endingsOf(false));
      const terms = termsOf(isSynced, [ending, second]);
      await checkRecovery(afterEnd(image, second, random), moment.world, isSynced, terms, random, 0);
      states++;
    }
    return states;
  } catch (error) {
    const how = ending.kind === 'kill' ? 'kill' : `power cut ${JSON.stringify(ending.cut)}`;
    const text = `seed ${seed}, ${isSynced ? 'synced' : 'written'}, ${where}, operation ${moment.number} (${moment.operation}), ${how}, ${step}`;
    throw withPlace(text, error);
  }
}

/** Opens the log, compares it with what was promised, closes it and verifies its files. Answers images of its recovery. */
async function checkRecovery(
  image: SimImage,
  world: WorldAt,
  isSynced: boolean,
  { kept, isCut }: { kept: boolean; isCut: boolean },
  random: SimRandom,
  imagesMax: number,
): Promise<SimImage[]> {
  const clock = new SimClock();
  const images: SimImage[] = [];
  let isOpen = false;
  const disk = new SimDisk({
    image,
    clock,
    onOperation: () => {
      // Each operation is as likely to be kept as any other, whatever their number.
      if (isOpen || imagesMax === 0) return;
      if (images.length < imagesMax) images.push(disk.image());
      else if (random.chance(0.3)) images[random.below(imagesMax)] = disk.image();
    },
  });
  const warnings: string[] = [];
  let failure: Error | undefined;
  const opening = openEngine(disk, clock, random.fork(), isSynced, (text) => void warnings.push(text));
  const engine = await clock.settle(opening).catch((error: unknown) => {
    throw new BrokenPromise(`the log does not open: ${String(error)}`, { cause: error });
  });
  engine.onFatal((error) => {
    failure = error;
  });
  try {
    const places = new Map<Promises, { start: number; end: number }>();
    for (const at of world.partitions) {
      const log = openLog(engine, at.of);
      await clock.settle(Promise.resolve(log.prepare()));
      const place = await clock.settle(checkPartition(log, at, { isKept: kept }));
      if (place !== undefined) places.set(at.of, place);
      if (place !== undefined) checkRetries(log, at);
    }
    for (const atomic of kept ? world.atomics : []) {
      const known = atomic.filter(({ of }) => places.has(of));
      const there = known.filter(({ of, offset }) => offset < (places.get(of)?.end ?? 0));
      if (there.length > 0 && there.length < known.length) throw new BrokenPromise('an atomic commit is there in part');
    }
    isOpen = true;
    if (!kept) return images;
    await clock.settle(engine.close());
    if (failure !== undefined) throw failure;
    for await (const problem of verify(disk, DATA_DIR)) {
      if (problem.severity === 'unfinished') continue;
      // After a power cut: indexes are not synced, and nonsense in them is noticed and put right when they are used.
      if (isCut && /index$/.test(problem.file)) continue;
      // Files below the start of a log may be left, or back, and not all of them: above it everything was read.
      if (problem.expected.startsWith('a segment that starts') && isBelowStart(problem, places)) continue;
      throw new BrokenPromise(
        `${problem.file} at ${problem.position}: expected ${problem.expected}, found ${problem.found}`,
      );
    }
  } catch (error) {
    if (warnings.length > 0) throw withPlace(`[${warnings.join('; ')}]`, error);
    throw error;
  }
  return images;
}

/** Lets the survivor recover and settles what is true of it: what the next life starts with. */
async function nextLife(image: SimImage, world: WorldAt, isSynced: boolean): Promise<[SimImage, WorldAt]> {
  const clock = new SimClock();
  const disk = new SimDisk({ image: image.fork(), clock });
  const engine = await clock.settle(openEngine(disk, clock, new SimRandom(1), isSynced));
  const partitions = world.partitions.filter((at) => {
    if (at.isDeleted) return false;
    return !at.isDeletionAsked || openLog(engine, at.of).endOffset > 0;
  });
  return [image, { partitions, atomics: [] }];
}

export interface FaultOptions {
  seed: number;
  isSynced: boolean;
  steps: number;
  stride: number;
  faults: readonly DiskFault[];
}

/**
 * Runs the workload again and again, each time with one fault at another operation. An error in a write or sync must stop
 * the log, with nothing answered after it; a short write must not matter; a failed read costs one partition.
 */
export async function exploreFaults(options: FaultOptions): Promise<Explored> {
  const { seed, isSynced, steps, stride } = options;
  const random = new SimRandom(`faults ${seed}`);
  const explored: Explored = { states: 0, operations: 0 };
  const whole = await runWorkload({ seed, isSynced, steps });
  if (whole.failure !== undefined) throw withPlace(`seed ${seed}`, stopped(whole.failure));
  explored.operations = whole.operations;
  for (const fault of options.faults) {
    for (let at = 1 + random.below(stride); at <= whole.operations; at += stride) {
      explored.states += await checkFault(options, { at, of: 'operation', fault }, random);
    }
  }
  for (let at = 1 + random.below(stride); at <= whole.reads; at += stride) {
    explored.states += await checkFault(options, { at, of: 'read', fault: 'EIO' }, random);
  }
  return explored;
}

async function checkFault(
  { seed, isSynced, steps }: FaultOptions,
  fault: { at: number; of: 'operation' | 'read'; fault: DiskFault },
  random: SimRandom,
): Promise<number> {
  const where = `seed ${seed}, ${isSynced ? 'synced' : 'written'}, ${fault.fault} at ${fault.of} ${fault.at}`;
  try {
    const end: WorkloadEnd = await runWorkload({ seed, isSynced, steps, fault });
    if (fault.fault === 'short' && (end.failure !== undefined || end.isRefused))
      throw new BrokenPromise('a short write has stopped the log');
    const endings: Ending[] = [{ kind: 'kill' }];
    if (isSynced) endings.push({ kind: 'power cut', cut: random.pick(cuts) });
    for (const ending of endings) {
      const image = afterEnd(end.moment.image, ending, random);
      await checkRecovery(image, end.moment.world, isSynced, termsOf(isSynced, [ending]), random, 0);
    }
    return endings.length;
  } catch (error) {
    throw withPlace(where, error);
  }
}

/** The same seed must give the same trace. */
export async function checkDeterminism(seed: number, isSynced: boolean, steps: number): Promise<void> {
  const first = await runWorkload({ seed, isSynced, steps });
  const second = await runWorkload({ seed, isSynced, steps });
  if (first.traceHash !== second.traceHash) throw new Error(`seed ${seed} gave two different runs`);
}

/** Whether a gap between segment files ends at or below the start of the log it is in. */
function isBelowStart(
  { file, found }: { file: string; found: string },
  places: ReadonlyMap<Promises, { start: number }>,
): boolean {
  for (const [{ topic, topicId }, { start }] of places) {
    const isIn = file.includes(`/${topic}-0/`) || file.includes(`~${topicId.replaceAll('-', '')}-0/`);
    if (isIn && Number(found) <= start) return true;
  }
  return false;
}
