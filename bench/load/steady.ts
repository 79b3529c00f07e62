/**
 * Rows j and k: what is measured with the generators of this folder instead of Kafka's tools. Latency at 1,000 records
 * a second of 1 KB (and, for a second opinion in whole milliseconds, Kafka's EndToEndLatency), and acknowledgements
 * with 256 batches outstanding over one partition and over a thousand.
 */
import { type Context, rotated } from '../context.ts';
import { endToEndLatency } from '../peers/kafka/tools.ts';
import type { Figures } from '../results.ts';
import type { Target } from '../target.ts';
import { measureLatency } from './latency.ts';
import { measureOutstanding } from './outstanding.ts';
import { withWire } from './wire.ts';

const RECORD_BYTES = 1000;
const RECORDS_PER_SECOND = 1000;
const END_TO_END_RECORDS = 3000;
const CONNECTIONS = 16;
const OUTSTANDING = 256;
export const MANY_PARTITIONS = 1000;

interface Candidate {
  name: string;
  target: Target;
  topicConfigs?: Readonly<Record<string, string>>;
}

async function candidatesOf(context: Context, withFsync: boolean): Promise<Candidate[]> {
  const candidates: Candidate[] = [
    { name: 'millrace synced', target: await context.synced() },
    { name: 'millrace written', target: await context.written() },
  ];
  const kafka = await context.kafka();
  if (kafka) candidates.push({ name: 'kafka', target: kafka });
  if (kafka && withFsync)
    candidates.push({ name: 'kafka fsync', target: kafka, topicConfigs: { 'flush.messages': '1' } });
  return candidates;
}

export async function latencySection(context: Context): Promise<void> {
  const candidates = await candidatesOf(context, true);
  for (let round = 0; round <= context.rounds; round++) {
    // At this rate it takes as long until the code of a broker, Kafka's too, is compiled: CPU a record falls to the half.
    const fullSeconds = round === 0 ? 30 : 8;
    const seconds = context.isQuick ? Math.ceil(fullSeconds / 3) : fullSeconds;
    for (const { name, target, topicConfigs } of rotated(candidates, round)) {
      const topic = context.fresh('latency');
      const { port } = target;
      await withWire(port, (wire) => wire.createTopic(topic, 1, topicConfigs));
      const ends: Figures = {};
      const acks = await context.cost(target, RECORDS_PER_SECOND * seconds, async () => {
        const { ack, endToEnd } = await measureLatency({
          port,
          topic,
          recordBytes: RECORD_BYTES,
          recordsPerSecond: RECORDS_PER_SECOND,
          seconds,
        });
        ends.p50Us = endToEnd.percentileUs(50);
        ends.p99Us = endToEnd.percentileUs(99);
        return { p50Us: ack.percentileUs(50), p99Us: ack.percentileUs(99) };
      });
      await withWire(port, (wire) => wire.deleteTopic(topic));
      if (round === 0) continue;
      context.record({ section: 'j', case: 'acknowledgement', target: name, round }, acks);
      context.record({ section: 'j', case: 'end to end', target: name, round }, ends);
    }
  }
  await javaLatency(context, candidates);
}

async function javaLatency(context: Context, candidates: readonly Candidate[]): Promise<void> {
  const { jars } = context;
  if (!jars) return;
  for (let round = 1; round <= context.rounds; round++) {
    for (const { name, target, topicConfigs } of rotated(candidates, round)) {
      const topic = context.fresh('java-latency');
      const { port } = target;
      await withWire(port, (wire) => wire.createTopic(topic, 1, topicConfigs));
      const records = context.scaled(END_TO_END_RECORDS);
      const figures = await context.cost(target, records, async () => {
        const { p50Ms, p99Ms } = await endToEndLatency(jars, { port, topic, records, recordBytes: RECORD_BYTES });
        return { p50Us: p50Ms * 1000, p99Us: p99Ms * 1000 };
      });
      await withWire(port, (wire) => wire.deleteTopic(topic));
      context.record({ section: 'j', case: 'EndToEndLatency tool', target: name, round }, figures);
    }
  }
}

export async function outstandingSection(context: Context): Promise<void> {
  const candidates = await candidatesOf(context, false);
  for (let round = 0; round <= context.rounds; round++) {
    for (const { name, target } of rotated(candidates, round)) {
      // For orientation only, and it makes and removes a thousand partitions slowly.
      if (name === 'kafka' && round !== context.rounds) continue;
      for (const partitions of [1, MANY_PARTITIONS]) {
        const figures = await outstandingOnce(context, target, partitions);
        if (round > 0) context.record({ section: 'k', case: partitionsText(partitions), target: name, round }, figures);
      }
    }
  }
}

export function partitionsText(partitions: number): string {
  return partitions === 1 ? '1 partition' : `${partitions} partitions`;
}

/** One measurement over a topic of its own, which is deleted afterwards unless it is to be kept. */
export async function outstandingOnce(
  context: Context,
  target: Target,
  partitions: number,
  isKept = false,
): Promise<Figures> {
  const topic = context.fresh('outstanding');
  const { port } = target;
  await withWire(port, (wire) => wire.createTopic(topic, partitions));
  let records = 0;
  const figures = await context.cost(target, 1, async () => {
    const measured = await measureOutstanding({
      port,
      topic,
      partitions,
      recordBytes: RECORD_BYTES,
      connections: CONNECTIONS,
      outstanding: OUTSTANDING,
      // In this time every partition gets its folder, which costs more than a record.
      warmupSeconds: context.isQuick ? 2 : 5,
      seconds: context.isQuick ? 2 : 6,
    });
    records = measured.acknowledged;
    const { recordsPerSecond, latency } = measured;
    return { recordsPerSecond, p50Us: latency.percentileUs(50), p99Us: latency.percentileUs(99) };
  });
  if (!isKept) await withWire(port, (wire) => wire.deleteTopic(topic));
  // The number of records is only known now.
  const { cpuSecondsPerMillion = 0 } = figures;
  return { ...figures, cpuSecondsPerMillion: Math.round((cpuSecondsPerMillion / records) * 1000) / 1000 };
}
