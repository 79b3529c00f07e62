/** The consuming thread of `amqp.ts`: says when it consumes, and how much it has got when it is told to stop. */
import { parentPort, workerData } from 'node:worker_threads';
import amqp from 'amqplib';

// What `amqp.ts` hands over.
const { url, queues, PREFETCH } = workerData as { url: string; queues: readonly string[]; PREFETCH: number };
const connection = await amqp.connect(url);
const channel = await connection.createChannel();
await channel.prefetch(PREFETCH);
let received = 0;
for (const queue of queues) {
  await channel.consume(queue, (message) => {
    if (message === null) return;
    received++;
    channel.ack(message);
  });
}
parentPort?.once('message', () => parentPort?.postMessage(received));
parentPort?.postMessage('ready');
