import test from 'ava';
import { resolveOptions } from '../../broker/config.ts';
import { openEmbeddedEngine } from '../../broker/embedded-engine.ts';
import { TopicRegistry } from '../../broker/topics.ts';
import { buildBatch } from '../../protocol/record-batch.ts';
import { SimClock } from '../support/sim-clock.ts';
import { SimDisk } from '../support/sim-disk.ts';
import { SimRandom } from '../support/sim-random.ts';

async function opened() {
  const clock = new SimClock();
  const random = new SimRandom(1);
  const disk = new SimDisk({ clock });
  const options = resolveOptions({ 'journal.file.bytes': 1024 * 1024, 'log.disk.reserve.bytes': 0 });
  const engine = await openEmbeddedEngine({ disk, clock, random, dataDir: '/data', options, warn: () => {} });
  const topics = new TopicRegistry({ engine, clock, random, options });
  await topics.load();
  return { clock, engine, topics };
}

test('the disk reserve changes while the broker runs', async (t) => {
  const { clock, engine, topics } = await opened();
  await clock.advance(5000);
  t.false(engine.isFull);
  topics.dynamicOptions.set('cluster', new Map([['log.disk.reserve.bytes', String(2 ** 51)]]));
  await clock.advance(5000);
  t.true(engine.isFull);
  topics.dynamicOptions.set('cluster', new Map());
  await clock.advance(5000);
  t.false(engine.isFull);
});

test('the time after which producers are forgotten changes while the broker runs', async (t) => {
  const { clock, engine, topics } = await opened();
  const retain = (): Promise<unknown> => Promise.all([engine.retain(), clock.advance(1000)]);
  const [partition] = topics.autoCreate('t').partitions;
  const record = { key: null, value: Buffer.from('v'), headers: [], timestamp: 1000 };
  partition.append(buildBatch([record], { producerId: 7, producerEpoch: 0, baseSequence: 0 }), {
    origin: 'client',
    urgency: 'waited',
  });
  await clock.advance(60_000);
  await retain();
  t.is(partition.producerCount, 1);
  topics.dynamicOptions.set('cluster', new Map([['producer.id.expiration.ms', '1000']]));
  await retain();
  t.is(partition.producerCount, 0);
});
