/**
 * Share groups (KIP-932): Kafka's ShareConsumerPerformance takes and acknowledges a topic that was written just before, by
 * one member with the client's defaults (500 records a poll). And how long a member waits for its first record: joining and
 * fetching over the wire as the Java client does it, without the JVM's start.
 */
import { apis } from '../../protocol/kafka/apis.ts';
import { type Context, rotated } from '../context.ts';
import { sleep } from '../machine.ts';
import type { KafkaJars } from '../peers/kafka/install.ts';
import { producerPerformance, shareConsumerPerformance } from '../peers/kafka/tools.ts';
import type { Target } from '../target.ts';
import { shapeText } from './produce.ts';
import { type Wire, withWire } from './wire.ts';

const CASES = [
  { recordBytes: 1000, partitions: 1, records: 2_000_000 },
  { recordBytes: 1000, partitions: 6, records: 2_000_000 },
  { recordBytes: 100, partitions: 1, records: 4_000_000 },
  { recordBytes: 100, partitions: 6, records: 4_000_000 },
];
/** Client and broker reach their speed. */
const WARM_RECORDS = 200_000;
const GROUP_RESOURCE = 32;
const WAIT_MS_MAX = 30_000;

export async function shareSection(context: Context): Promise<void> {
  const { jars } = context;
  if (!jars) return console.log('s needs the tools of Apache Kafka.');
  const kafka = await context.kafka();
  const targets = [...(kafka ? [kafka] : []), await context.synced()];
  for (const { recordBytes, partitions, records: all } of CASES) {
    const records = context.scaled(all);
    const topic = context.fresh('share');
    for (const { port } of targets) {
      await withWire(port, (wire) => wire.createTopic(topic, partitions));
      await producerPerformance(jars, { port, topic, records, recordBytes, acks: '1' });
    }
    for (let round = 0; round <= context.rounds; round++) {
      for (const target of rotated(targets, round)) {
        const taken = round === 0 ? Math.min(WARM_RECORDS, records) : records;
        const figures = await context.cost(target, taken, () =>
          take(jars, target, context.fresh('group'), topic, taken),
        );
        if (round === 0) continue;
        const shape = shapeText(recordBytes, partitions);
        context.record({ section: 's', case: shape, target: target.name, round }, figures);
      }
    }
    for (const { port } of targets) await withWire(port, (wire) => wire.deleteTopic(topic));
  }
  for (let round = 1; round <= context.rounds; round++) {
    for (const target of rotated(targets, round)) {
      const firstRecordMs = await withWire(target.port, (wire) => firstRecord(wire, context));
      context.record({ section: 's', case: 'first record', target: target.name, round }, { firstRecordMs });
    }
  }
}

async function take(
  jars: KafkaJars,
  { port }: Target,
  group: string,
  topic: string,
  records: number,
): Promise<{ recordsPerSecond: number; mbPerSecond: number }> {
  await withWire(port, (wire) => beginsEarliest(wire, group));
  return shareConsumerPerformance(jars, { port, topic, group, records });
}

async function beginsEarliest(wire: Wire, group: string): Promise<void> {
  const configs = [{ name: 'share.auto.offset.reset', configOperation: 0, value: 'earliest' }];
  const resources = [{ resourceType: GROUP_RESOURCE, resourceName: group, configs }];
  const { responses } = await wire.request(apis.IncrementalAlterConfigs, 1, { resources, validateOnly: false });
  if (responses[0].errorCode !== 0) throw new Error(`config of ${group}: ${responses[0].errorMessage}`);
}

/** Joins a new group over a topic with some records and answers how long the first of them took. */
async function firstRecord(wire: Wire, context: Context): Promise<number> {
  const topic = context.fresh('first');
  const groupId = context.fresh('group');
  const memberId = context.fresh('member');
  await wire.createTopic(topic, 1);
  await wire.produce(topic, 0, 100);
  await beginsEarliest(wire, groupId);
  const startedMs = performance.now();
  const rackId = null;
  const join = { groupId, memberId, memberEpoch: 0, rackId, subscribedTopicNames: [topic] };
  let told = await wire.request(apis.ShareGroupHeartbeat, 1, join);
  while ((told.assignment?.topicPartitions.length ?? 0) === 0) {
    if (told.errorCode !== 0) throw new Error(`heartbeat: ${told.errorMessage}`);
    if (performance.now() - startedMs > WAIT_MS_MAX) throw new Error('no partitions after half a minute');
    await sleep(told.heartbeatIntervalMs);
    const beat = { groupId, memberId, memberEpoch: told.memberEpoch, rackId, subscribedTopicNames: null };
    told = await wire.request(apis.ShareGroupHeartbeat, 1, beat);
  }
  const topics = (told.assignment?.topicPartitions ?? []).map(({ topicId, partitions }) => ({
    topicId,
    partitions: partitions.map((partitionIndex) => ({ partitionIndex, acknowledgementBatches: [] })),
  }));
  for (let epoch = 0; performance.now() - startedMs < WAIT_MS_MAX; epoch++) {
    const limits = { maxWaitMs: 500, minBytes: 1, maxBytes: 50 * 1024 * 1024, maxRecords: 500, batchSize: 500 };
    const fetch = { groupId, memberId, shareSessionEpoch: epoch, ...limits, forgottenTopicsData: [] };
    const { responses } = await wire.request(apis.ShareFetch, 1, { ...fetch, topics: epoch === 0 ? topics : [] });
    const isThere = responses.some(({ partitions }) => partitions.some((one) => one.acquiredRecords.length > 0));
    if (isThere) return Math.round(performance.now() - startedMs);
  }
  throw new Error('no record after half a minute');
}
