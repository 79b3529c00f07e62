/**
 * Crash exploration of the log alone: a seeded workload on a simulated disk; at every disk operation the world ends, in
 * one of several ways; the log is opened again (and again after an end during that) and must hold what was promised.
 * `MILLRACE_SEEDS=FROM-TO` explores other seeds, `MILLRACE_STATES` more ends per seed.
 */
import test from 'ava';
import { batchSizeBytes, buildBatch, readRecords } from '../../protocol/record-batch.ts';
import { DataDir } from '../../storage/data-dir.ts';
import type { FileSplice, LogConfig, LogSlice } from '../../storage/log.ts';
import { type LogCommitPart, LogEngine, type LogEngineSettings } from '../../storage/log-engine.ts';
import type { PartitionLog } from '../../storage/partition-log.ts';
import { SimClock } from '../support/sim-clock.ts';
import { type DiskFault, SimDisk } from '../support/sim-disk.ts';
import type { CutOptions, SimImage } from '../support/sim-image.ts';
import { SimRandom } from '../support/sim-random.ts';

const KIB = 1024;
const DIR = 'data';

const settingsFor = (isSynced: boolean): LogEngineSettings => ({
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
  compactor: { dedupeBufferBytes: 64 * 1024, bytesPerSecond: 2 ** 40 },
});

const config: LogConfig = {
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

/** What was promised of one partition. */
interface Expected {
  topicId: string;
  topic: string;
  /** By offset: what every record holds; never shortened. */
  values: string[];
  /** Offsets below this were acknowledged or seen by a reader. */
  safeEnd: number;
  safeStart: number;
  startMax: number;
  isDeleteBegun: boolean;
  isDeleted: boolean;
}

/** Atomic commits: where their parts are. */
interface Atomic {
  parts: { topicId: string; offset: number }[];
}

interface World {
  partitions: Map<string, Expected>;
  atomics: Atomic[];
}

interface End {
  image: SimImage;
  world: World;
  operation: string;
}

const copyWorld = (world: World): World => ({
  partitions: new Map(
    [...world.partitions].map(([id, expected]) => [id, { ...expected, values: expected.values.slice() }]),
  ),
  atomics: world.atomics.slice(),
});

let topicCount = 0;
const newTopicId = (): string => `00000000-0000-4000-8000-${String(++topicCount).padStart(12, '0')}`;

async function openEngine(disk: SimDisk, clock: SimClock, random: SimRandom, isSynced: boolean, warnings: string[]) {
  const dataDir = await DataDir.open(disk, DIR, { random });
  const engine = await LogEngine.open({
    disk,
    clock,
    random,
    dataDir,
    settings: settingsFor(isSynced),
    warn: (message) => void warnings.push(message),
  });
  engine.onFatal((error) => {
    if (!disk.isStopped) throw error;
  });
  return engine;
}

function open(engine: LogEngine, { topicId, topic }: { topicId: string; topic: string }): PartitionLog {
  return engine.openPartition({ topicId, topic, index: 0, config });
}

const batchOf = (values: readonly string[]): Buffer =>
  buildBatch(values.map((value) => ({ key: null, value: Buffer.from(value), timestamp: 1000 })));

/** Runs a workload; `onEnd` is told of every moment at which the world may end. */
async function work(
  seed: number,
  isSynced: boolean,
  image: SimImage | undefined,
  world: World,
  steps: number,
  fault?: { at: number; kind: DiskFault },
): Promise<End[]> {
  const random = new SimRandom(seed);
  const clock = new SimClock();
  const ends: End[] = [];
  const disk = new SimDisk({
    clock,
    latency: { random: random.fork(), minMs: 0.05, maxMs: 1 },
    onOperation: (_, operation) => {
      if (started && fault === undefined) ends.push({ image: disk.image(), world: copyWorld(world), operation });
    },
    ...(image ? { image } : {}),
  });
  let started = image !== undefined;
  const engine = await clock.settle(openEngine(disk, clock, random.fork(), isSynced, []));
  started = true;
  let failures = 0;
  if (fault !== undefined) {
    disk.failAt(disk.operations + fault.at, fault.kind);
    engine.onFatal(() => void failures++);
  }
  const logs: PartitionLog[] = [];
  for (const expected of world.partitions.values()) {
    if (expected.isDeleted) continue;
    const log = open(engine, expected);
    await clock.settle(Promise.resolve(log.prepare()));
    if (expected.isDeleteBegun && log.endOffset === 0) expected.isDeleted = true;
    // The last run's unacknowledged end may be gone or there: from now on what is there counts.
    expected.values.length = log.endOffset;
    expected.safeEnd = log.endOffset;
    expected.safeStart = log.startOffset;
    expected.startMax = log.startOffset;
    expected.isDeleteBegun = false;
    logs.push(log);
  }
  await clock.settle(engine.discardUnopened());
  const create = (topic: string): void => {
    const topicId = newTopicId();
    world.partitions.set(topicId, {
      topicId,
      topic,
      values: [],
      safeEnd: 0,
      safeStart: 0,
      startMax: 0,
      isDeleteBegun: false,
      isDeleted: false,
    });
    logs.push(open(engine, { topicId, topic }));
  };
  while (logs.length < 3) create(`topic${logs.length}`);

  const expectedOf = (log: PartitionLog): Expected => {
    const expected = world.partitions.get(log.topicId);
    if (expected === undefined) throw new Error('unknown');
    return expected;
  };
  let count = 0;
  const valuesFor = (log: PartitionLog): string[] => {
    const size = random.chance(0.2) ? random.between(800, 2500) : random.between(10, 200);
    return Array.from({ length: random.between(1, 3) }, () => `${log.topicId}:${seed}:${count++}:`.padEnd(size, '.'));
  };
  const acknowledge = (position: number, effect: () => void): void => {
    engine.whenDurable(position, () => {
      if (failures > 0) throw new Error('acknowledged after a failure');
      if (!disk.isStopped) effect();
    });
  };

  for (let step = 0; step < steps && failures === 0; step++) {
    const log = random.pick(logs);
    const expected = expectedOf(log);
    const dice = random.below(100);
    if (dice < 60) {
      for (let repeat = random.chance(0.2) ? random.between(4, 12) : 1; repeat > 0; repeat--) {
        const values = valuesFor(log);
        const urgency = random.chance(0.8) ? 'waited' : 'lazy';
        const { position, lastOffset } = log.append(batchOf(values), { origin: 'client', urgency });
        expected.values.push(...values);
        acknowledge(position, () => {
          expected.safeEnd = Math.max(expected.safeEnd, lastOffset + 1);
        });
      }
    } else if (dice < 75) {
      const parts: LogCommitPart[] = [];
      const atomic: Atomic = { parts: [] };
      const others: Expected[] = [];
      for (const other of logs.slice(0, random.between(1, logs.length))) {
        const values = valuesFor(other);
        parts.push({ kind: 'append', partition: other, batch: batchOf(values) });
        const otherExpected = expectedOf(other);
        atomic.parts.push({ topicId: other.topicId, offset: otherExpected.values.length });
        otherExpected.values.push(...values);
        others.push(otherExpected);
      }
      world.atomics.push(atomic);
      const { position, appended } = engine.commit(parts, 'waited');
      acknowledge(position, () => {
        others.forEach((each, index) => {
          each.safeEnd = Math.max(each.safeEnd, appended[index].lastOffset + 1);
        });
      });
    } else if (dice < 82) {
      const offset = random.between(log.startOffset, log.endOffset);
      expected.startMax = Math.max(expected.startMax, offset);
      const { position } = engine.commit([{ kind: 'start', partition: log, offset }], 'waited');
      acknowledge(position, () => {
        expected.safeStart = Math.max(expected.safeStart, offset);
      });
    } else if (dice < 85) {
      expected.isDeleteBegun = true;
      const { position } = engine.commit([{ kind: 'delete', partition: log }], 'waited');
      acknowledge(position, () => {
        expected.isDeleted = true;
      });
      logs.splice(logs.indexOf(log), 1);
      create(expected.topic);
    } else if (dice < 90) {
      for (const each of logs) expectedOf(each).startMax = Math.max(expectedOf(each).startMax, each.highWatermark);
      engine.retain().then(
        () => {
          for (const each of logs) {
            const its = expectedOf(each);
            if (!disk.isStopped) its.safeStart = Math.max(its.safeStart, Math.min(its.safeStart, each.startOffset));
          }
        },
        () => {},
      );
    } else await clock.advance(random.below(30));
    if (random.chance(0.4)) await clock.advance(random.below(3));
  }
  await clock.advance(50);
  if (failures > 1) throw new Error(`${failures} fatal errors`);
  ends.push({ image: disk.image(), world: copyWorld(world), operation: 'the end' });
  return ends;
}

async function bytesOf(slice: LogSlice): Promise<Buffer> {
  const pieces: Buffer[] = [];
  for (const chunk of slice.chunks) {
    if (chunk instanceof Uint8Array) pieces.push(Buffer.from(chunk));
    else {
      const piece = Buffer.alloc(chunk.length);
      await (chunk as FileSplice).read(piece, 0);
      pieces.push(piece);
    }
  }
  slice.release();
  return Buffer.concat(pieces);
}

async function valuesFrom(log: PartitionLog): Promise<string[]> {
  const values: string[] = [];
  let next = log.startOffset;
  while (next < log.highWatermark) {
    const before = next;
    const bytes = await bytesOf(await log.read(next, 3000, { wholeFirst: true }));
    for (
      let at = 0;
      at + 61 <= bytes.length && at + batchSizeBytes(bytes, at) <= bytes.length;
      at += batchSizeBytes(bytes, at)
    ) {
      for (const record of readRecords(bytes, at)) {
        if (record.offset < next) continue;
        if (record.offset !== next) throw new Error(`${log.name}: offset ${record.offset}, expected ${next}`);
        values.push(String(record.value));
        next++;
      }
    }
    if (next === before) throw new Error(`${log.name}: nothing at ${next}, high watermark ${log.highWatermark}`);
  }
  return values;
}

/** Opens what the image holds and compares it with what was promised. */
async function check(image: SimImage, world: World, isSynced: boolean, seed: number): Promise<SimImage[]> {
  const clock = new SimClock();
  const random = new SimRandom(seed);
  const images: SimImage[] = [];
  const disk = new SimDisk({
    image,
    clock,
    onOperation: () => {
      if (random.chance(0.15) && images.length < 4) images.push(disk.image());
    },
  });
  const warnings: string[] = [];
  const engine = await clock.settle(openEngine(disk, clock, new SimRandom(seed + 1), isSynced, warnings));
  const ends = new Map<string, { start: number; end: number }>();
  for (const expected of world.partitions.values()) {
    if (expected.isDeleted) {
      const log = open(engine, expected);
      if (log.endOffset !== 0)
        throw new Error(`deleted ${expected.topic} ${expected.topicId} is back: ${log.endOffset}`);
      continue;
    }
    const log = open(engine, expected);
    await clock.settle(Promise.resolve(log.prepare()));
    if (log.isFenced) throw new Error(`${log.name} ${log.topicId} is fenced: ${warnings.join('; ')}`);
    if (expected.isDeleteBegun && log.endOffset === 0) continue;
    if (log.endOffset < expected.safeEnd) {
      throw new Error(
        `${log.name} ${log.topicId} ends at ${log.endOffset}, ${expected.safeEnd} was acknowledged; ${warnings.join('; ')}`,
      );
    }
    if (log.endOffset > expected.values.length) throw new Error(`${log.name}: invented up to ${log.endOffset}`);
    if (log.startOffset < expected.safeStart || log.startOffset > expected.startMax) {
      throw new Error(
        `${log.name} starts at ${log.startOffset}, expected ${expected.safeStart} to ${expected.startMax}`,
      );
    }
    const values = await clock.settle(valuesFrom(log));
    values.forEach((value, index) => {
      const offset = log.startOffset + index;
      if (value !== expected.values[offset]) {
        throw new Error(
          `${log.name} at ${offset}: '${value.slice(0, 60)}', expected '${expected.values[offset].slice(0, 60)}'`,
        );
      }
    });
    ends.set(expected.topicId, { start: log.startOffset, end: log.endOffset });
  }
  for (const { parts } of isSynced ? world.atomics : []) {
    // Of a partition that is being deleted nothing can be said.
    const known = parts.filter(({ topicId }) => ends.has(topicId));
    const there = known.filter(({ topicId, offset }) => (ends.get(topicId)?.end ?? 0) > offset);
    if (there.length > 0 && there.length < known.length) throw new Error('an atomic commit is there in part');
  }
  return images;
}

const cuts: CutOptions[] = [
  { unsynced: 'lost' },
  { unsynced: 'kept' },
  { unsynced: 'whole' },
  { unsynced: 'torn', tornBytes: 512 },
  { unsynced: 'torn', tornBytes: 4096 },
  { unsynced: 'prefix' },
  { unsynced: 'lost', names: 'kept' },
  { unsynced: 'kept', names: 'lost' },
];

async function explore(seed: number, isSynced: boolean, statesMax: number): Promise<number> {
  let states = 0;
  let image: SimImage | undefined;
  let world: World = { partitions: new Map(), atomics: [] };
  const random = new SimRandom(seed * 7919);
  for (let round = 0; round < 3; round++) {
    const ends = await work(seed * 100 + round, isSynced, image, world, 60);
    const every = Math.max(1, Math.floor(ends.length / statesMax));
    for (let index = round % every; index < ends.length; index += every) {
      const end = ends[index];
      const cut = random.pick(cuts);
      const isKill = !isSynced || random.chance(0.2);
      const name = `seed ${seed} round ${round} end ${index} (${end.operation}), ${isKill ? 'kill' : JSON.stringify(cut)}`;
      try {
        const after = isKill ? end.image.afterKill(random) : end.image.afterPowerCut(random, cut);
        const again = await check(after.fork(), end.world, isSynced, seed);
        states++;
        for (const during of again) {
          const second = isKill ? during.afterKill(random) : during.afterPowerCut(random, random.pick(cuts));
          await check(second, end.world, isSynced, seed);
          states++;
        }
      } catch (error) {
        throw new Error(`${name}: ${error instanceof Error ? error.stack : String(error)}`);
      }
    }
    // The next round goes on from one of the ends.
    const end = ends[random.below(ends.length)];
    image = isSynced ? end.image.afterPowerCut(random, random.pick(cuts)) : end.image.afterKill(random);
    world = end.world;
    for (const expected of world.partitions.values()) {
      // An unfinished deletion may have happened: such a partition is left alone from here on.
      if (expected.isDeleteBegun) expected.isDeleted = true;
    }
    for (const [id, expected] of world.partitions) if (expected.isDeleted) world.partitions.delete(id);
    world.atomics = [];
  }
  return states;
}

const [from, to] = (process.env.MILLRACE_SEEDS ?? '1-2').split('-').map(Number);
const statesMax = Number(process.env.MILLRACE_STATES ?? 40);

for (const isSynced of [true, false]) {
  test.serial(
    `what was promised is there after any end (${isSynced ? 'synced, power cuts' : 'written, kills'})`,
    async (t) => {
      let states = 0;
      for (let seed = from; seed <= (to ?? from); seed++) states += await explore(seed, isSynced, statesMax);
      t.log(`${states} states`);
      t.true(states > 100);
    },
  );
}

test.serial('after a failed write or sync nothing more is acknowledged, and what was is there', async (t) => {
  let states = 0;
  for (let seed = from; seed <= (to ?? from); seed++) {
    const random = new SimRandom(seed);
    for (let number = 0; number < statesMax; number++) {
      const isSynced = random.chance(0.7);
      const fault = { at: random.between(1, 150), kind: random.pick(['EIO', 'ENOSPC', 'short'] as const) };
      const world: World = { partitions: new Map(), atomics: [] };
      const [end] = await work(seed * 31, isSynced, undefined, world, 40, fault);
      const image = isSynced ? end.image.afterPowerCut(random, random.pick(cuts)) : end.image.afterKill(random);
      try {
        await check(image, end.world, isSynced, seed);
      } catch (error) {
        throw new Error(
          `seed ${seed}, ${JSON.stringify(fault)}: ${error instanceof Error ? error.stack : String(error)}`,
        );
      }
      states++;
    }
  }
  t.log(`${states} states`);
  t.pass();
});
