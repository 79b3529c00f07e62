/**
 * One member of the group of the earthquake example. Tells its parent about each record, and only then commits it; so
 * whoever goes on after it was killed may see a record twice, but never misses one.
 */
import { createHash } from 'node:crypto';
import { setTimeout as pause } from 'node:timers/promises';
import { Kafka, logLevel } from 'kafkajs';

export interface Seen {
  readonly partition: number;
  readonly offset: string;
  readonly checksum: string;
}

const [bootstrap, topic] = process.argv.slice(2);
// Work that takes a moment, so that there is a middle in which to be killed.
const WORK_MS = 2;

const kafka = new Kafka({ clientId: 'earthquake-consumer', brokers: [bootstrap], logLevel: logLevel.NOTHING });
// A killed member is missed after its session timeout.
const consumer = kafka.consumer({ groupId: 'earthquake-readers', sessionTimeout: 6_000, heartbeatInterval: 1_000 });
await consumer.connect();
await consumer.subscribe({ topics: [topic], fromBeginning: true });
await consumer.run({
  autoCommitThreshold: 20,
  eachMessage: async ({ partition, message }) => {
    await pause(WORK_MS);
    const checksum = createHash('sha256')
      .update(message.value ?? '')
      .digest('hex');
    await tell({ partition, offset: message.offset, checksum });
  },
});

function tell(seen: Seen): Promise<void> {
  return new Promise((resolve, reject) => {
    process.send?.(seen, (error: Error | null) => (error ? reject(error) : resolve()));
  });
}
