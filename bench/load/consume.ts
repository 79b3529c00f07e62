/**
 * Row i: Kafka's ConsumerPerformance reads a topic that was written just before, so that it is in memory at both
 * brokers: in the page cache (Kafka; Millrace "files", whose own tail cache holds only the last megabytes), or in
 * Millrace's tail cache, made large enough for this ("tail").
 */
import { type Context, rotated } from '../context.ts';
import type { KafkaJars } from '../peers/kafka/install.ts';
import { consumerPerformance, producerPerformance } from '../peers/kafka/tools.ts';
import type { Target } from '../target.ts';
import { shapeText } from './produce.ts';
import { withWire } from './wire.ts';

const CASES = [
  { recordBytes: 100, partitions: 1, records: 4_000_000 },
  { recordBytes: 100, partitions: 6, records: 4_000_000 },
  { recordBytes: 1000, partitions: 1, records: 800_000 },
  { recordBytes: 1000, partitions: 6, records: 800_000 },
];
const TAIL_CACHE_BYTES = 2 * 1024 ** 3;

export async function consumeSection(context: Context): Promise<void> {
  const { jars } = context;
  if (!jars) return console.log('i needs the tools of Apache Kafka.');
  const targets: { name: string; target: Target }[] = [];
  const kafka = await context.kafka();
  if (kafka) targets.push({ name: 'kafka', target: kafka });
  const tail = await context.millrace('millrace tail', { 'log.tail.cache.bytes': TAIL_CACHE_BYTES });
  targets.push({ name: 'millrace tail', target: tail });
  targets.push({ name: 'millrace files', target: await context.synced() });
  for (const { recordBytes, partitions, records: all } of CASES) {
    const records = context.scaled(all);
    const topic = context.fresh('consume');
    for (const { target } of targets) await fill(jars, target, { topic, partitions, records, recordBytes });
    for (let round = 0; round <= context.rounds; round++) {
      for (const { name, target } of rotated(targets, round)) {
        const { port } = target;
        const figures = await context.cost(target, records, () =>
          consumerPerformance(jars, { port, topic, records, group: context.fresh('group') }),
        );
        if (round > 0)
          context.record({ section: 'i', case: shapeText(recordBytes, partitions), target: name, round }, figures);
      }
    }
    for (const { target } of targets) await withWire(target.port, (wire) => wire.deleteTopic(topic));
  }
  await tail.stop();
}

async function fill(
  jars: KafkaJars,
  { port }: Target,
  {
    topic,
    partitions,
    records,
    recordBytes,
  }: { topic: string; partitions: number; records: number; recordBytes: number },
): Promise<void> {
  await withWire(port, (wire) => wire.createTopic(topic, partitions));
  await producerPerformance(jars, { port, topic, records, recordBytes, acks: '1' });
}
