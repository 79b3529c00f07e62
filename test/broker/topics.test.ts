import test from 'ava';
import fc from 'fast-check';
import { resolveOptions } from '../../broker/config.ts';
import type { AppendOptions } from '../../broker/engine.ts';
import { METADATA_TOPIC_ID, TopicRegistry } from '../../broker/topics.ts';
import { buildBatch } from '../../protocol/record-batch.ts';
import { ManualClock } from '../support/manual-clock.ts';
import { MemoryEngine } from '../support/memory-engine.ts';
import { SimRandom } from '../support/sim-random.ts';

const none: ReadonlyMap<string, string> = new Map();
const CLIENT: AppendOptions = { origin: 'client', urgency: 'waited' };
const batch = (text: string): Buffer => buildBatch([{ key: null, value: Buffer.from(text), timestamp: 1 }]);

async function openRegistry(
  engine: MemoryEngine,
  options: Record<string, string | number> = {},
  seed = 1,
): Promise<TopicRegistry> {
  const registry = new TopicRegistry({
    engine,
    clock: new ManualClock(),
    random: new SimRandom(seed),
    options: resolveOptions(options),
  });
  await registry.load();
  await engine.discardUnopened();
  return registry;
}

function view(registry: TopicRegistry) {
  return registry.all().map(({ name, id, isInternal, partitions, overrides }) => ({
    name,
    id,
    isInternal,
    overrides: Object.fromEntries(overrides),
    partitions: partitions.map(({ index, topicId, topic, config, endOffset }) => ({
      index,
      topicId,
      topic,
      config,
      endOffset,
    })),
  }));
}

test('a created topic is open at once, listed in order, and durable when the engine says so', async (t) => {
  const engine = new MemoryEngine({ durability: 'manual' });
  const topics = await openRegistry(engine);
  const topic = topics.create({ name: 'orders', partitionCount: 3, overrides: none });
  topics.create({ name: 'alpha', partitionCount: 1, overrides: none });
  let isDurable = false;
  topics.whenDurable(() => (isDurable = true));
  t.is(topics.get('orders'), topic);
  t.is(topics.getById(topic.id), topic);
  t.deepEqual(
    [...topics].map(({ name }) => name),
    ['alpha', 'orders'],
  );
  t.deepEqual(
    topic.partitions.map(({ index }) => index),
    [0, 1, 2],
  );
  t.is(topics.partition('orders', 2), topic.partitions[2]);
  t.is(topics.partition('orders', 3), undefined);
  t.is(topics.partitionById(topic.id, 0), topic.partitions[0]);
  t.is(topics.partitionCount, 4);
  t.false(isDurable);
  t.is((await openRegistry(engine.restart())).size, 0);
  engine.sync();
  t.true(isDurable);
  t.deepEqual(view(await openRegistry(engine.restart())), view(topics));
});

test('the metadata log is seen by nobody', async (t) => {
  const topics = await openRegistry(new MemoryEngine());
  t.is(topics.size, 0);
  t.is(topics.get('__millrace_metadata'), undefined);
  t.is(topics.getById(METADATA_TOPIC_ID), undefined);
});

test('a deleted topic takes its records along, in one step, and a new one of its name starts empty', async (t) => {
  const engine = new MemoryEngine({ durability: 'manual' });
  const topics = await openRegistry(engine);
  const old = topics.create({ name: 'orders', partitionCount: 2, overrides: none });
  for (const partition of old.partitions) partition.append(batch('old'), CLIENT);
  engine.sync();
  topics.delete(old);
  t.is(topics.get('orders'), undefined);
  t.is(topics.getById(old.id), undefined);
  t.throws(() => old.partitions[0].append(batch('late'), CLIENT), { code: 'UNKNOWN_TOPIC_OR_PARTITION' });
  t.throws(() => topics.configure(old, none), { code: 'UNKNOWN_TOPIC_OR_PARTITION' });
  // A crash before the sync: the topic is whole.
  const before = await openRegistry(engine.restart());
  t.deepEqual(
    before.get('orders')?.partitions.map(({ endOffset }) => endOffset),
    [1, 1],
  );
  const fresh = topics.create({ name: 'orders', partitionCount: 1, overrides: none });
  t.not(fresh.id, old.id);
  t.is(fresh.partitions[0].endOffset, 0);
  engine.sync();
  const restarted = engine.restart();
  const after = await openRegistry(restarted);
  t.deepEqual(
    after.get('orders')?.partitions.map(({ endOffset }) => endOffset),
    [0],
  );
  t.false(restarted.storedKeys.some((key) => key.startsWith(old.id)));
});

test('names: duplicates, collisions, what Kafka forbids and what is the broker’s', async (t) => {
  const topics = await openRegistry(new MemoryEngine());
  const create = (name: string) => () => topics.create({ name, partitionCount: 1, overrides: none });
  create('a.b')();
  t.throws(create('a.b'), { code: 'TOPIC_ALREADY_EXISTS', message: "Topic 'a.b' already exists." });
  t.throws(create('a_b'), {
    code: 'INVALID_TOPIC_EXCEPTION',
    message: "Topic 'a_b' collides with existing topic: a.b",
  });
  create('a-b')();
  create('A.b')();
  for (const name of ['', '.', '..', 'a b', 'x'.repeat(250), 'ä', '../x', '__x', '__consumer_offsets'])
    t.throws(create(name), { code: 'INVALID_TOPIC_EXCEPTION', message: /^Topic name is invalid: / }, name);
  create('_schemas')();
  create('x'.repeat(249))();
});

test('an internal topic is made once and found again after a restart', async (t) => {
  const engine = new MemoryEngine();
  const topics = await openRegistry(engine);
  const overrides = new Map([['cleanup.policy', 'compact']]);
  const topic = topics.ensureInternal('__consumer_offsets', 1, overrides);
  t.true(topic.isInternal);
  t.is(topic.partitions[0].config.retentionMs, -1);
  t.is(topics.ensureInternal('__consumer_offsets', 1, overrides), topic);
  const again = (await openRegistry(engine.restart(), {}, 2)).ensureInternal('__consumer_offsets', 1, overrides);
  t.is(again.id, topic.id);
});

test('auto-creation takes num.partitions', async (t) => {
  const topics = await openRegistry(new MemoryEngine(), { 'num.partitions': 4 });
  t.is(topics.autoCreate('events').partitions.length, 4);
});

test('there is a limit to topics and to partitions', async (t) => {
  const topics = await openRegistry(new MemoryEngine(), { 'topics.max': 2, 'partitions.max': 5 });
  const first = topics.create({ name: 'a', partitionCount: 3, overrides: none });
  t.throws(() => topics.create({ name: 'b', partitionCount: 3, overrides: none }), { code: 'POLICY_VIOLATION' });
  t.throws(() => topics.addPartitions(first, 6), { code: 'POLICY_VIOLATION' });
  topics.create({ name: 'b', partitionCount: 1, overrides: none });
  t.throws(() => topics.create({ name: 'c', partitionCount: 1, overrides: none }), { code: 'POLICY_VIOLATION' });
});

test('configs reach open partitions at once and partitions added later', async (t) => {
  const engine = new MemoryEngine();
  const topics = await openRegistry(engine);
  const topic = topics.create({ name: 'a', partitionCount: 1, overrides: none });
  const other = topics.create({ name: 'b', partitionCount: 1, overrides: new Map([['max.message.bytes', '7']]) });
  topics.configure(topic, new Map([['retention.ms', '1234']]));
  topics.addPartitions(topic, 3);
  t.deepEqual(
    topic.partitions.map(({ config }) => config.retentionMs),
    [1234, 1234, 1234],
  );
  topics.configureOptions('node', new Map([['message.max.bytes', '99']]));
  topics.configureOptions(
    'cluster',
    new Map([
      ['message.max.bytes', '55'],
      ['log.retention.ms', '1'],
    ]),
  );
  t.is(topics.dynamicOptions.options['message.max.bytes'], 99);
  t.is(topic.partitions[2].config.maxMessageBytes, 99);
  t.is(topic.partitions[2].config.retentionMs, 1234);
  t.is(other.partitions[0].config.maxMessageBytes, 7);
  t.is(other.partitions[0].config.retentionMs, 1);
  const again = await openRegistry(engine.restart());
  t.deepEqual(view(again), view(topics));
  t.is(again.dynamicOptions.options['message.max.bytes'], 99);
  again.configureOptions('node', none);
  t.is(again.dynamicOptions.options['message.max.bytes'], 55);
  again.configureOptions('cluster', none);
  t.is(again.dynamicOptions.options['message.max.bytes'], 1_048_588);
});

test('values an option has are told in the order in which they win', async (t) => {
  const topics = await openRegistry(new MemoryEngine(), { 'log.retention.ms': 5 });
  topics.configureOptions('cluster', new Map([['log.retention.ms', '6']]));
  topics.configureOptions('node', new Map([['log.retention.ms', '7']]));
  t.deepEqual(topics.dynamicOptions.chain('log.retention.ms'), [
    { value: 7, source: 'DYNAMIC_BROKER_CONFIG' },
    { value: 6, source: 'DYNAMIC_DEFAULT_BROKER_CONFIG' },
    { value: 5, source: 'STATIC_BROKER_CONFIG' },
    { value: 604_800_000, source: 'DEFAULT_CONFIG' },
  ]);
});

test('topic ids are random, never reserved, and never look like a flag in base64', async (t) => {
  let calls = 0;
  const topics = new TopicRegistry({
    engine: new MemoryEngine(),
    clock: new ManualClock(),
    // The first draw would begin with '-' in base64url.
    random: { fill: (target) => (calls++ === 0 ? target.fill(0xf9) : target.fill(0x11 * calls)) },
    options: resolveOptions(),
  });
  await topics.load();
  const { id } = topics.create({ name: 'a', partitionCount: 1, overrides: none });
  t.is(calls, 2);
  t.not(Buffer.from(id.replaceAll('-', ''), 'hex').toString('base64url')[0], '-');
});

test('trimming moves the start once and names the position that covers it', async (t) => {
  const engine = new MemoryEngine({ durability: 'manual' });
  const topics = await openRegistry(engine);
  const [partition] = topics.create({ name: 'a', partitionCount: 1, overrides: none }).partitions;
  for (const text of ['1', '2', '3']) partition.append(batch(text), CLIENT);
  engine.sync();
  t.is(topics.trim(partition, 0), 0);
  const position = topics.trim(partition, 2);
  t.is(partition.startOffset, 2);
  t.is(topics.trim(partition, 1), position);
  t.true(position > engine.durablePosition);
});

test('whatever was done, a restart finds what was durable', async (t) => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.record({ act: fc.nat(5), name: fc.constantFrom('a', 'b', 'c.d', 'c_d'), n: fc.nat(3) }), {
        maxLength: 40,
      }),
      async (steps) => {
        let engine = new MemoryEngine({ durability: 'manual' });
        let topics = await openRegistry(engine);
        let durable = view(topics);
        let seed = 2;
        for (const { act, name, n } of steps) {
          const topic = topics.get(name);
          try {
            if (act === 0) topics.create({ name, partitionCount: n + 1, overrides: none });
            else if (act === 1 && topic) topics.delete(topic);
            else if (act === 2 && topic) topics.addPartitions(topic, topic.partitions.length + n + 1);
            else if (act === 3 && topic) topics.configure(topic, new Map([['retention.ms', String(n)]]));
            else if (act === 4) {
              engine.sync();
              durable = view(topics);
            } else if (act === 5) {
              engine = engine.restart();
              topics = await openRegistry(engine, {}, seed++);
              t.deepEqual(view(topics), durable);
            }
          } catch (error) {
            // A refused change (a collision, a duplicate) must not leave a trace either.
            t.regex((error as { code: string }).code, /^(TOPIC_ALREADY_EXISTS|INVALID_TOPIC_EXCEPTION)$/);
          }
        }
      },
    ),
    { numRuns: 100 },
  );
});

test('the metadata log stays bounded, and a rewritten one says the same', async (t) => {
  const engine = new MemoryEngine({ durability: 'manual' });
  const topics = await openRegistry(engine);
  const topic = topics.create({ name: 'a', partitionCount: 2, overrides: none });
  topics.create({ name: 'b', partitionCount: 1, overrides: none });
  const long = `0:1${',0:1'.repeat(5000)}`;
  for (let round = 0; round < 300; round++)
    topics.configure(topic, new Map([['leader.replication.throttled.replicas', `${round}:1,${long}`]]));
  engine.sync();
  const restarted = engine.restart();
  t.deepEqual(view(await openRegistry(restarted)), view(topics));
  // 300 events of 20 kB each were written; what is kept is a small multiple of the least that is ever rewritten.
  t.true(restarted.sizeBytes < 2_500_000, String(restarted.sizeBytes));
});
