/**
 * The topics of the real engine on a simulated disk, which loses power at every operation of a workload that creates,
 * fills, configures, grows, deletes and creates again. After each cut: what was acknowledged is there, what is there was
 * decided in that order, and no topic shows records of another one that had its name.
 */
import test from 'ava';
import { resolveOptions } from '../../broker/config.ts';
import { openEmbeddedEngine, type EmbeddedEngine } from '../../broker/embedded-engine.ts';
import { TopicRegistry } from '../../broker/topics.ts';
import { asBuffer, type Payload } from '../../protocol/bytes.ts';
import { buildBatch, eachBatch, readRecords } from '../../protocol/record-batch.ts';
import type { FileSplice, Partition } from '../../broker/engine.ts';
import { SimClock } from '../support/sim-clock.ts';
import { SimDisk } from '../support/sim-disk.ts';
import type { SimImage } from '../support/sim-image.ts';
import { SimRandom } from '../support/sim-random.ts';

const none: ReadonlyMap<string, string> = new Map();
const values = () => ({
  'journal.file.bytes': 1024 * 1024,
  'journal.files': 2,
  'journal.entry.bytes': 256 * 1024,
  'journal.segment.linger.ms': 5,
  'log.disk.reserve.bytes': 0,
});

interface Opened {
  engine: EmbeddedEngine;
  topics: TopicRegistry;
}

async function open(disk: SimDisk, clock: SimClock, random: SimRandom): Promise<Opened> {
  const options = resolveOptions(values());
  const engine = await openEmbeddedEngine({ disk, clock, random, dataDir: '/data', options, warn: () => {} });
  engine.onFatal((error) => {
    if (!disk.isStopped) throw error;
  });
  const topics = new TopicRegistry({ engine, clock, random, options });
  await topics.load();
  await engine.discardUnopened();
  return { engine, topics };
}

/** Everything clients see of the registry, as text. */
function view(topics: TopicRegistry): string {
  const all = topics.all().map(({ name, id, partitions, overrides }) => ({
    name,
    id,
    partitions: partitions.length,
    overrides: Object.fromEntries(overrides),
  }));
  return JSON.stringify([all, topics.dynamicOptions.options['message.max.bytes']]);
}

async function valuesOf(partition: Partition): Promise<string[]> {
  await partition.prepare();
  const slice = await partition.read(partition.startOffset, 1024 * 1024, { wholeFirst: true });
  const texts: string[] = [];
  const parts: Buffer[] = [];
  for (const chunk of slice.chunks) parts.push(await bytesOf(chunk));
  const bytes = Buffer.concat(parts);
  eachBatch(bytes, (position) => {
    for (const { value } of readRecords(bytes, position)) texts.push(String(value));
  });
  slice.release();
  return texts;
}

async function bytesOf(chunk: Payload): Promise<Buffer> {
  if (chunk instanceof Uint8Array) return asBuffer(chunk);
  const target = Buffer.alloc(chunk.length);
  // What is not in memory here is a range of a file.
  await (chunk as FileSplice).read(target, 0);
  return target;
}

/** The world at one moment: the disk, how much was decided, how much of it was acknowledged. */
interface End {
  image: SimImage;
  decided: number;
  acknowledged: number;
  /** Records acknowledged, by topic id. */
  records: Map<string, number>;
}

async function work(seed: number): Promise<{ ends: End[]; views: string[] }> {
  const clock = new SimClock();
  const random = new SimRandom(seed);
  const ends: End[] = [];
  const views: string[] = [];
  const records = new Map<string, number>();
  let acknowledged = -1;
  const disk = new SimDisk({
    clock,
    latency: { random: random.fork(), minMs: 0.05, maxMs: 1 },
    onOperation: () => {
      if (views.length > 0)
        ends.push({ image: disk.image(), decided: views.length - 1, acknowledged, records: new Map(records) });
    },
  });
  const { engine, topics } = await clock.settle(open(disk, clock, random.fork()));
  const decide = (): void => {
    const step = views.push(view(topics)) - 1;
    topics.whenDurable(() => {
      acknowledged = Math.max(acknowledged, step);
    });
  };
  decide();
  const fill = (name: string): void => {
    for (const partition of topics.get(name)?.partitions ?? []) {
      const batch = buildBatch([{ key: null, value: Buffer.from(partition.topicId), timestamp: 1 }]);
      const { position } = partition.append(batch, { origin: 'client', urgency: 'waited' });
      engine.whenDurable(position, () => records.set(partition.topicId, (records.get(partition.topicId) ?? 0) + 1));
    }
  };
  const steps = [
    () => topics.create({ name: 'a', partitionCount: 2, overrides: none }),
    () => fill('a'),
    () => topics.create({ name: 'b', partitionCount: 1, overrides: new Map([['retention.ms', '5000']]) }),
    () => fill('b'),
    () => topics.addPartitions(topics.all()[0], 3),
    () => fill('a'),
    () => topics.configureOptions('node', new Map([['message.max.bytes', '5000']])),
    () => topics.delete(topics.all()[0]),
    () => topics.create({ name: 'a', partitionCount: 1, overrides: none }),
    () => fill('a'),
    () => topics.configure(topics.all()[1], new Map([['segment.bytes', '2000000']])),
    () => topics.delete(topics.all()[1]),
    () => fill('a'),
    () => topics.create({ name: 'b', partitionCount: 2, overrides: none }),
    () => fill('b'),
  ];
  for (const step of steps) {
    step();
    decide();
    // Sometimes the sync is waited for, sometimes the next change comes while it runs.
    if (random.chance(0.6)) await clock.advance(random.pick([0.2, 1, 20]));
  }
  await clock.advance(50);
  await clock.settle(engine.close());
  return { ends, views };
}

for (const seed of [1, 2]) {
  test(`topics survive a power cut at every operation, seed ${seed}`, async (t) => {
    const { ends, views } = await work(seed);
    t.true(ends.length > 20);
    let recovered = 0;
    for (const [number, end] of ends.entries()) {
      const random = new SimRandom(seed * 1000 + number);
      const unsynced = (['lost', 'torn', 'kept'] as const)[number % 3];
      const image = end.image.afterPowerCut(random, { unsynced });
      const clock = new SimClock();
      const { engine, topics } = await clock.settle(open(new SimDisk({ image }), clock, random.fork()));
      const found = view(topics);
      const fits = views.some((each, step) => each === found && step >= end.acknowledged && step <= end.decided);
      t.true(fits, `operation ${number}, ${unsynced}: ${found}, acknowledged ${views[end.acknowledged]}`);
      for (const { name, id, partitions } of topics) {
        const seen = await Promise.all(partitions.map(valuesOf));
        t.true(
          seen.flat().every((text) => text === id),
          `operation ${number}: topic ${name} shows other records`,
        );
        const expected = end.records.get(id) ?? 0;
        t.true(seen.flat().length >= expected, `operation ${number}: topic ${name} lost records`);
      }
      await clock.settle(engine.close());
      recovered++;
    }
    t.log(`${recovered} power cuts`);
  });
}
