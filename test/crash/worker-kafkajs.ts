/**
 * Load from kafkajs for the kill tests. Prints one line for each thing the broker acknowledged:
 * `sent PARTITION OFFSET VALUE` and `committed PARTITION OFFSET`; `seen PARTITION OFFSET VALUE` for what a consumer read. Ends when stdin does.
 */
import { Kafka, logLevel } from 'kafkajs';

const [bootstrap, topic, groupId] = process.argv.slice(2);
const kafka = new Kafka({
  clientId: 'kill',
  brokers: [bootstrap],
  logLevel: logLevel.NOTHING,
  connectionTimeout: 1000,
  requestTimeout: 5000,
  retry: { initialRetryTime: 30, maxRetryTime: 150, retries: 1000 },
});
let isStopping = false;
process.stdin.on('end', () => {
  isStopping = true;
});
process.stdin.resume();
const say = (line: string): boolean => process.stdout.write(`${line}\n`);

async function produce(name: string, acks: number, idempotent: boolean): Promise<void> {
  const producer = kafka.producer({
    idempotent,
    ...(idempotent ? { maxInFlightRequests: 1 } : {}),
    allowAutoTopicCreation: false,
  });
  await producer.connect();
  for (let sequence = 0; !isStopping; sequence++) {
    // Several messages in one request, over all partitions: a request is acknowledged as a whole.
    const messages = Array.from({ length: 5 }, (_, index) => ({
      key: `${name}-${index}`,
      value: `${name}/${sequence * 5 + index}`,
      partition: (sequence + index) % 6,
    }));
    try {
      const answers = await producer.send({ topic, acks, messages });
      for (const { partition, baseOffset } of answers) {
        const values = messages.filter((message) => message.partition === partition).map(({ value }) => value);
        for (const [index, value] of values.entries()) say(`sent ${partition} ${Number(baseOffset) + index} ${value}`);
      }
    } catch {
      // Not acknowledged: it may or may not be there.
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  }
  await producer.disconnect().catch(() => {});
}

async function consume(): Promise<void> {
  const consumer = kafka.consumer({
    groupId,
    maxWaitTimeInMs: 100,
    sessionTimeout: 10_000,
    heartbeatInterval: 500,
    allowAutoTopicCreation: false,
  });
  await consumer.connect();
  await consumer.subscribe({ topic, fromBeginning: true });
  await consumer.run({
    autoCommit: false,
    eachBatch: async ({ batch, resolveOffset, heartbeat }) => {
      for (const { offset, value } of batch.messages) {
        say(`seen ${batch.partition} ${offset} ${value}`);
        resolveOffset(offset);
      }
      const next = Number(batch.lastOffset()) + 1;
      try {
        await consumer.commitOffsets([{ topic, partition: batch.partition, offset: String(next) }]);
        say(`committed ${batch.partition} ${next}`);
      } catch {
        // Not acknowledged.
      }
      await heartbeat();
    },
  });
  while (!isStopping) await new Promise((resolve) => setTimeout(resolve, 50));
  await consumer.disconnect().catch(() => {});
}

await Promise.all([produce('js-all', -1, false), produce('js-one', 1, false), produce('js-idem', -1, true), consume()]);
process.exit(0);
