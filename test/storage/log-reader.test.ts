/** What is read and looked up, by offset and by time, against a plain list of records: in memory, in files, over restarts. */
import test from 'ava';
import { batchBaseOffset, batchLastOffset, batchSizeBytes, buildBatch } from '../../protocol/record-batch.ts';
import type { LogEngine } from '../../storage/log-engine.ts';
import type { PartitionLog } from '../../storage/partition-log.ts';
import { openLog, openLogEngine, sliceBytes, waited, whenDurable } from '../support/log-engine.ts';
import { SimClock } from '../support/sim-clock.ts';
import { SimDisk } from '../support/sim-disk.ts';
import { SimRandom } from '../support/sim-random.ts';

interface Batch {
  baseOffset: number;
  times: number[];
}

/** First offset at or after `time`, and the earliest of the largest times. */
function lookUp(
  batches: readonly Batch[],
  start: number,
  time: number,
): { at: number | undefined; max: number | undefined } {
  let at: number | undefined;
  let max: number | undefined;
  let maxTime = Number.NEGATIVE_INFINITY;
  for (const { baseOffset, times } of batches) {
    for (const [index, each] of times.entries()) {
      const offset = baseOffset + index;
      if (offset < start) continue;
      if (each >= time) at ??= offset;
      if (each > maxTime) {
        maxTime = each;
        max = offset;
      }
    }
  }
  return { at, max };
}

class Checked {
  readonly #random: SimRandom;
  readonly #isAppendTime: boolean;
  readonly batches: Batch[] = [];
  #time = 1000;

  constructor(random: SimRandom, isAppendTime: boolean) {
    this.#random = random;
    this.#isAppendTime = isAppendTime;
  }

  append(log: PartitionLog, clock: SimClock): void {
    const random = this.#random;
    const count = random.between(1, 4);
    const times = Array.from({ length: count }, () => {
      this.#time += random.between(-30, 40);
      return random.chance(0.02) ? this.#time + 500 : Math.max(0, this.#time);
    });
    const value = Buffer.alloc(random.chance(0.1) ? random.between(1000, 4000) : random.between(0, 200), 'x');
    const batch = buildBatch(
      times.map((timestamp) => ({ key: null, value, timestamp })),
      { compression: random.pick(['none', 'gzip'] as const) },
    );
    const { baseOffset } = log.append(batch, waited);
    this.batches.push({ baseOffset, times: this.#isAppendTime ? times.map(() => clock.now()) : times });
  }

  async check(log: PartitionLog): Promise<void> {
    const random = this.#random;
    const { startOffset, highWatermark } = log;
    const visible = this.batches.filter(({ baseOffset }) => baseOffset < highWatermark);
    const all = visible.flatMap(({ times }) => times);
    const time = all.length === 0 ? 0 : random.pick(all) + random.between(-1, 1);
    const expected = lookUp(visible, startOffset, time);
    const found = await log.offsetForTime(time);
    same(found?.offset, expected.at, `offset for time ${time}, start ${startOffset}`);
    const max = await log.offsetOfMaxTime();
    same(max?.offset, expected.max, `offset of the largest time, start ${startOffset}`);
    if (startOffset === highWatermark) return;
    await this.#checkRead(log, random.between(startOffset, highWatermark - 1), random.between(1, 6000));
    // To the end, as a consumer reads.
    let next = startOffset;
    while (next < highWatermark && random.chance(0.9))
      next = await this.#checkRead(log, next, random.between(100, 3000));
  }

  /** Answers the offset after what was read. */
  async #checkRead(log: PartitionLog, offset: number, maxBytes: number): Promise<number> {
    const random = this.#random;
    const wholeFirst = random.chance(0.7);
    const limitOffset = random.chance(0.2) ? random.between(offset, log.highWatermark) : log.highWatermark;
    const slice = await log.read(offset, maxBytes, { wholeFirst, limitOffset });
    const bytes = await sliceBytes(slice, random.between(1, 5000));
    const what = `read from ${offset}, ${maxBytes} bytes, limit ${limitOffset}, whole first ${wholeFirst}`;
    const first = this.batches.findLast(({ baseOffset }) => baseOffset <= offset);
    let next = first?.baseOffset ?? 0;
    let at = 0;
    while (at + 61 <= bytes.length && at + batchSizeBytes(bytes, at) <= bytes.length) {
      same(batchBaseOffset(bytes, at), next, `${what}: base offset`);
      next = batchLastOffset(bytes, at) + 1;
      if (next > limitOffset) throw new Error(`${what}: has ${next - 1}`);
      at += batchSizeBytes(bytes, at);
    }
    const firstEnd = (first?.baseOffset ?? 0) + (first?.times.length ?? 0);
    if (wholeFirst && firstEnd <= limitOffset && at === 0) throw new Error(`${what}: nothing`);
    if (bytes.length > maxBytes && (!wholeFirst || at !== bytes.length))
      throw new Error(`${what}: ${bytes.length} bytes`);
    return Math.max(next, offset + (at === 0 ? firstEnd - offset : 0));
  }
}

function same(found: unknown, expected: unknown, what: string): void {
  if (found !== expected) throw new Error(`${what}: ${String(found)}, expected ${String(expected)}`);
}

async function run(seed: number): Promise<void> {
  const random = new SimRandom(seed);
  const clock = new SimClock();
  const isAppendTime = random.chance(0.3);
  let disk = new SimDisk();
  const config = {
    segmentBytes: random.pick([17_000, 60_000]),
    indexIntervalBytes: random.pick([0, 300, 4096]),
    segmentIndexBytes: random.pick([200, 10_000]),
    timestampType: isAppendTime ? ('LogAppendTime' as const) : ('CreateTime' as const),
  };
  const settings = {
    isSynced: random.chance(0.6),
    journalDirectBytes: 3000,
    journalSegmentBytes: 2000,
    journalCheckpointBytes: 30_000,
    journalFileBytes: 40_000,
    tailCacheBytes: 4096,
    openFilesMax: 3,
  };
  const warnings: string[] = [];
  const open = (): Promise<LogEngine> =>
    clock.settle(openLogEngine({ disk, clock, random: new SimRandom(seed + 1), settings, warnings }));
  let engine = await open();
  let log = openLog(engine, 1, config);
  const checked = new Checked(random, isAppendTime);
  for (let step = 0; step < 150; step++) {
    for (let count = random.between(1, 8); count > 0; count--) checked.append(log, clock);
    if (random.chance(0.3)) clock.jump(random.between(-50, 50));
    if (random.chance(0.7)) await clock.settle(whenDurable(engine));
    if (random.chance(0.3)) await clock.advance(random.between(1, 40));
    if (random.chance(0.03)) {
      const offset = random.between(log.startOffset, log.highWatermark);
      engine.commit([{ kind: 'start', partition: log, offset }], 'waited');
    }
    if (random.chance(0.4)) await clock.settle(checked.check(log));
    if (!random.chance(0.04)) continue;
    await clock.settle(whenDurable(engine));
    if (random.chance(0.5)) {
      disk = new SimDisk({ image: disk.image().afterKill(random) });
    } else await clock.settle(engine.close());
    engine = await open();
    log = openLog(engine, 1, config);
    if (random.chance(0.5)) await clock.settle(checked.check(log));
    await clock.settle(Promise.resolve(log.prepare()));
  }
  await clock.settle(whenDurable(engine));
  await clock.settle(checked.check(log));
  await clock.settle(engine.close());
  if (warnings.length > 0) throw new Error(warnings.join('; '));
}

const [from, to] = (process.env.MILLRACE_SEEDS ?? '1-8').split('-').map(Number);

test('offsets and times lead to the records that a list of them has', async (t) => {
  t.timeout(600_000);
  for (let seed = from; seed <= to; seed++) {
    try {
      await run(seed);
    } catch (error) {
      throw new Error(`seed ${seed}: ${error instanceof Error ? error.stack : String(error)}`);
    }
  }
  t.pass();
});
