// sqs-producer and sqs-consumer against the SQS door: `node sqs-consumer.mjs FOLDER ENDPOINT`, the packages in FOLDER.
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';

const [folder, endpoint] = process.argv.slice(2);
const require = createRequire(join(folder, 'package.json'));
const load = (name) => import(pathToFileURL(require.resolve(name)).href);
const { SQSClient, CreateQueueCommand } = await load('@aws-sdk/client-sqs');
const { Consumer } = await load('sqs-consumer');
const { Producer } = await load('sqs-producer');

const sqs = new SQSClient({ endpoint, region: 'us-east-1', credentials: { accessKeyId: 'a', secretAccessKey: 'b' } });
const { QueueUrl: queueUrl } = await sqs.send(new CreateQueueCommand({ QueueName: 'consumed' }));
const producer = Producer.create({ queueUrl, region: 'us-east-1', sqs });
await producer.send(
  Array.from({ length: 25 }, (_, index) => ({ id: `i${index}`, body: `m${index}`, delaySeconds: 0 })),
);
const bodies = [];
await new Promise((resolve, reject) => {
  const consumer = Consumer.create({
    queueUrl,
    sqs,
    batchSize: 10,
    waitTimeSeconds: 2,
    handleMessageBatch: async (messages) => {
      bodies.push(...messages.map(({ Body }) => Body));
      if (bodies.length >= 25) {
        consumer.stop();
        resolve();
      }
      return messages;
    },
  });
  consumer.on('error', reject);
  consumer.on('processing_error', reject);
  consumer.start();
});
process.stdout.write(`${JSON.stringify({ bodies: bodies.length, left: await producer.queueSize() })}\n`);
process.exit(0);
