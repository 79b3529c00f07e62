/**
 * Rows g and h: Kafka's ProducerPerformance with acks=all against Kafka as it comes (unsynced), Kafka with
 * flush.messages=1, Millrace synced and Millrace written.
 */
import { type Context, rotated } from '../context.ts';
import type { KafkaJars } from '../peers/kafka/install.ts';
import { producerPerformance } from '../peers/kafka/tools.ts';
import type { Target } from '../target.ts';
import { withWire } from './wire.ts';

interface Candidate {
  name: string;
  target: Target;
  sections: readonly string[];
  topicConfigs: Readonly<Record<string, string>>;
  /** Of the full number of records. */
  share: number;
}

const CASES = [
  { recordBytes: 100, partitions: 1, records: 3_000_000 },
  { recordBytes: 100, partitions: 6, records: 3_000_000 },
  { recordBytes: 1000, partitions: 1, records: 500_000 },
  { recordBytes: 1000, partitions: 6, records: 500_000 },
];
/** A Kafka that syncs every batch would take minutes for what the others do in seconds. */
const FSYNC_SHARE = 0.15;

export async function produceSections(context: Context, sections: ReadonlySet<string>): Promise<void> {
  const { jars } = context;
  if (!jars) return console.log('g and h need the tools of Apache Kafka.');
  const kafka = await context.kafka();
  const candidates: Candidate[] = [];
  const add = (candidate: Pick<Candidate, 'name' | 'target' | 'sections'>, topicConfigs = {}, share = 1): void => {
    const chosen = candidate.sections.filter((section) => sections.has(section));
    if (chosen.length > 0) candidates.push({ ...candidate, sections: chosen, topicConfigs, share });
  };
  const isG = sections.has('g');
  if (kafka) add({ name: 'kafka', target: kafka, sections: ['g'] });
  add({ name: 'millrace synced', target: await context.synced(), sections: ['g', 'h'] });
  if (kafka) add({ name: 'kafka fsync', target: kafka, sections: ['h'] }, { 'flush.messages': '1' }, FSYNC_SHARE);
  if (isG) add({ name: 'millrace written', target: await context.written(), sections: ['g'] });

  // Round 0 warms up and does not count.
  for (let round = 0; round <= context.rounds; round++) {
    for (const shape of CASES) {
      for (const candidate of rotated(candidates, round)) await once(context, jars, candidate, shape, round);
    }
  }
}

async function once(
  context: Context,
  jars: KafkaJars,
  { name, target, sections, topicConfigs, share }: Candidate,
  { recordBytes, partitions, records: all }: (typeof CASES)[number],
  round: number,
): Promise<void> {
  const records = Math.round(context.scaled(all) * share);
  const topic = context.fresh('produce');
  const { port } = target;
  await withWire(port, (wire) => wire.createTopic(topic, partitions, topicConfigs));
  const figures = await context.cost(target, records, async () => {
    const { recordsPerSecond, mbPerSecond } = await producerPerformance(jars, {
      port,
      topic,
      records,
      recordBytes,
      acks: 'all',
    });
    return { recordsPerSecond, mbPerSecond };
  });
  await withWire(port, (wire) => wire.deleteTopic(topic));
  if (round === 0) return;
  const place = { case: shapeText(recordBytes, partitions), target: name, round };
  for (const section of sections) context.record({ section, ...place }, figures);
}

export function shapeText(recordBytes: number, partitions: number): string {
  return `${recordBytes} B, ${partitions} partition${partitions === 1 ? '' : 's'}`;
}
