/** Attribute indexes over a restart: what is read from files and what from the log, and that both say the same. */
import test from 'ava';
import { ArrivalTimes } from '../../broker/arrival-times.ts';
import { AttributeFiles } from '../../broker/attribute-files.ts';
import { type IndexedBatch, type LaneHost, QueueLane } from '../../broker/queue-lane.ts';
import { headerNames } from '../../broker/queue-attributes.ts';
import type { Partition } from '../../broker/engine.ts';
import { buildBatch } from '../../protocol/record-batch.ts';
import { stateLogConfig } from '../../broker/topics.ts';
import { MemoryEngine } from '../support/memory-engine.ts';
import { SimClock } from '../support/sim-clock.ts';
import { SimDisk } from '../support/sim-disk.ts';
import { SimImage } from '../support/sim-image.ts';

const TOPIC_ID = '11111111-2222-4333-8444-555555555555';
const NOW = 1_790_000_000_000;

class Scene {
  readonly clock = new SimClock();
  readonly reports: string[] = [];
  readonly disk: SimDisk;
  readonly engine: MemoryEngine;
  readonly log: Partition;
  /** Lowest offset of the log that was read. */
  readFrom = Number.POSITIVE_INFINITY;

  constructor(engine?: MemoryEngine, image = new SimImage()) {
    this.disk = new SimDisk({ image, clock: this.clock });
    this.engine = engine ?? new MemoryEngine({ durability: 'manual', clock: this.clock });
    this.log = this.engine.openPartition({ topicId: TOPIC_ID, topic: 'jobs', index: 0, config: stateLogConfig });
    const read = this.log.read.bind(this.log);
    this.log.read = (offset, maxBytes, options) => {
      this.readFrom = Math.min(this.readFrom, offset);
      return read(offset, maxBytes, options);
    };
  }

  append(count: number, delayOf: (offset: number) => number, key = 'g'): void {
    for (let sent = 0; sent < count; sent += 10) {
      const base = this.log.endOffset;
      const records = Array.from({ length: 10 }, (_, at) => ({
        key: Buffer.from(`${key}${(base + at) % 7}`),
        value: Buffer.alloc(100),
        headers: [{ key: headerNames.notBeforeMs, value: Buffer.from(String(NOW + delayOf(base + at))) }],
        timestamp: NOW + base,
      }));
      this.log.append(buildBatch(records), { origin: 'internal', urgency: 'lazy' });
    }
    this.engine.sync();
  }

  async files(): Promise<AttributeFiles> {
    const report = (message: string): void => void this.reports.push(message);
    return this.clock.settle(AttributeFiles.open({ disk: this.disk, dataDir: 'data', report }));
  }

  /** A lane that has caught up, with what it told its queues. */
  async lane(files: AttributeFiles | undefined, host: Partial<LaneHost> = {}, prepare?: (lane: QueueLane) => void) {
    const arrivals = new ArrivalTimes();
    const told: { endOffset: number; batches: readonly IndexedBatch[] }[] = [];
    const lane = new QueueLane(this.log, 0, {
      isIndexed: true,
      isGrouped: true,
      needsTimes: true,
      dedupBy: undefined,
      decompressedBytesMax: 1e6,
      files: files?.of(this.log),
      unsavedBytesMax: 10_000,
      turn: () => new Promise((resolve) => this.clock.endOfTurn(resolve)),
      extended: (_, endOffset, batches) => {
        told.push({ endOffset, batches });
        for (const { baseOffset, appendedMs } of batches) arrivals.add(baseOffset, appendedMs);
      },
      failed: (_, error) => void this.reports.push(String(error)),
      ...host,
    });
    prepare?.(lane);
    this.readFrom = Number.POSITIVE_INFINITY;
    lane.advance();
    await this.clock.settle(lane.caughtUp());
    await this.clock.advance(10);
    return { lane, arrivals, told };
  }

  /** A lane that keeps up with what is appended, and keeps it in pieces. */
  async indexed(count: number, delayOf: (offset: number) => number, host: Partial<LaneHost> = {}) {
    const files = await this.files();
    const { lane } = await this.lane(files, host);
    const end = this.log.endOffset + count;
    while (this.log.endOffset < end) {
      this.append(100, delayOf);
      lane.advance();
      await this.clock.settle(lane.caughtUp());
      await this.clock.advance(10);
    }
    return { lane, files };
  }

  async names(): Promise<string[]> {
    return this.clock.settle(this.disk.list(`data/queue-attributes/${TOPIC_ID}-0`));
  }

  /** Another process on the same disk and log. */
  next(): Scene {
    this.disk.stop();
    return new Scene(this.engine.restart(), this.disk.image());
  }
}

function attributesOf(lane: QueueLane, end: number): string[] {
  return Array.from({ length: end }, (_, offset) => JSON.stringify(lane.attributes.get(offset)));
}

test('a start reads the tail of the log only, and knows what the log says', async (t) => {
  const first = new Scene();
  await first.indexed(1000, (offset) => offset * 10);
  t.true((await first.names()).length > 3);

  const scene = first.next();
  scene.append(20, (offset) => offset * 10);
  const { lane, arrivals, told } = await scene.lane(await scene.files());
  t.is(lane.indexedEnd, 1020);
  t.true(scene.readFrom > 700, `read from ${scene.readFrom}`);
  const plain = await scene.lane(undefined);
  t.is(scene.readFrom, 0);
  t.deepEqual(attributesOf(lane, 1020), attributesOf(plain.lane, 1020));
  for (let offset = 0; offset < 1020; offset++) t.is(arrivals.at(offset), plain.arrivals.at(offset));
  const ends = told.map(({ endOffset }) => endOffset);
  t.deepEqual(
    ends,
    ends.toSorted((a, b) => a - b),
  );
  t.deepEqual([...first.reports, ...scene.reports], []);
});

test('what a power cut took from the log and others have replaced is not believed', async (t) => {
  const first = new Scene();
  const { lane: indexed } = await first.indexed(500, () => 0);
  const durable = first.engine.restart();
  first.append(500, () => 5_000);
  indexed.advance();
  await first.clock.settle(indexed.caughtUp());
  await first.clock.advance(10);
  t.true((await first.names()).some((name) => Number(name.split('-')[1]) === 1000));
  first.disk.stop();

  // The log ends at 500 again, and other records come where the files tell of those that are lost.
  const scene = new Scene(durable, first.disk.image());
  scene.append(600, () => 9_000);
  const { lane } = await scene.lane(await scene.files());
  t.is(lane.attributes.get(100)?.notBeforeMs, NOW);
  for (let offset = 500; offset < 1100; offset++) t.is(lane.attributes.get(offset)?.notBeforeMs, NOW + 9_000);
  t.true(scene.readFrom > 0);
});

test('files that are damaged, gone or say too little are made anew from the log', async (t) => {
  const first = new Scene();
  await first.indexed(1000, (offset) => offset, { isGrouped: false, needsTimes: false });
  const plain = await first.lane(undefined);
  for (const break_ of ['cut', 'gone', 'groups', 'nothing'] as const) {
    const scene = first.next();
    const names = await scene.names();
    const path = `data/queue-attributes/${TOPIC_ID}-0/${names[1]}`;
    if (break_ === 'gone') await scene.clock.settle(scene.disk.remove(path));
    if (break_ === 'cut') {
      const file = await scene.clock.settle(scene.disk.open(path, 'write'));
      await scene.clock.settle(file.truncate(50));
    }
    const host = break_ === 'groups' ? {} : { isGrouped: false, needsTimes: false };
    const { lane } = await scene.lane(await scene.files(), host);
    const expected = break_ === 'groups' ? attributesOf(plain.lane, 1000) : undefined;
    if (expected !== undefined) t.deepEqual(attributesOf(lane, 1000), expected, break_);
    for (let offset = 0; offset < 1000; offset++) t.is(lane.attributes.get(offset)?.notBeforeMs, NOW + offset);
    t.is(scene.readFrom < 900, break_ !== 'nothing', `${break_}: read from ${scene.readFrom}`);
  }
});

test('what is to be looked at for ids is read from the log', async (t) => {
  const first = new Scene();
  await first.indexed(1000, () => 0);
  const scene = first.next();
  const { lane, told } = await scene.lane(await scene.files(), { dedupBy: 'content' }, (each) => each.needIds(155));
  t.is(lane.indexedEnd, 1000);
  t.is(scene.readFrom, 155);
  const withIds = told.flatMap(({ batches }) => batches).filter(({ entries }) => entries.length > 0);
  t.is(withIds[0].baseOffset, 150);
  t.is(withIds.at(-1)?.lastOffset, 999);
});

test('nothing is kept of what is done with, and nothing of queues that are gone', async (t) => {
  const scene = new Scene();
  const { lane, files } = await scene.indexed(1000, () => 0);
  const before = await scene.names();
  lane.trim(600);
  await scene.clock.advance(10);
  const after = await scene.names();
  t.true(after.length > 0 && after.length < before.length);
  t.true(after.every((name) => Number(name.split('-')[1]) > 600));
  lane.end();
  files.forget(scene.log);
  await scene.clock.advance(10);
  t.deepEqual(await scene.names(), []);

  const other = new Scene();
  await other.indexed(1000, () => 0);
  const next = other.next();
  t.true((await next.names()).length > 0);
  const again = await next.files();
  await next.clock.settle(again.removeUnused());
  t.deepEqual(await next.names(), []);
});

test('a disk that refuses them costs a report', async (t) => {
  const scene = new Scene();
  scene.append(1000, () => 0);
  const files = await scene.files();
  scene.disk.makeDirectory = () => Promise.reject(new Error('EIO'));
  const { lane } = await scene.lane(files);
  t.is(lane.indexedEnd, 1000);
  t.is(scene.reports.length, 1);
  t.regex(scene.reports[0], /attributes of jobs-0 are not kept/);
});
