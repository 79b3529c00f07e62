// @platformatic/kafka, run by `platformatic.test.ts` in a folder where it was installed. Prints what scenarios.ts reads.
import assert from 'node:assert/strict';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';

const [folder, bootstrap] = process.argv.slice(2);
const entry = createRequire(join(folder, 'package.json')).resolve('@platformatic/kafka');
const { Admin, Consumer, Producer, stringDeserializers, stringSerializers } = await import(pathToFileURL(entry));
const bootstrapBrokers = [bootstrap];
const named = (name) => `${name}-${process.pid.toString(36)}`;

async function everyCodec() {
  const topic = named('platformatic');
  const admin = new Admin({ clientId: 'admin', bootstrapBrokers });
  await admin.createTopics({ topics: [topic], partitions: 3, replicas: 1 });
  const sent = [];
  for (const compression of ['none', 'gzip', 'snappy', 'lz4', 'zstd']) {
    for (const idempotent of [false, true]) {
      const settings = { serializers: stringSerializers, compression, idempotent };
      const producer = new Producer({ clientId: 'producer', bootstrapBrokers, ...settings });
      const values = Array.from({ length: 20 }, (_, index) => `${compression} ${idempotent} ${index}`);
      const messages = values.map((value) => ({ topic, key: value, value, headers: { h: 'v' } }));
      await producer.send({ messages });
      await producer.close();
      sent.push(...values);
    }
  }
  const settings = { groupId: topic, deserializers: stringDeserializers };
  const consumer = new Consumer({ clientId: 'consumer', bootstrapBrokers, ...settings });
  const stream = await consumer.consume({ topics: [topic], mode: 'earliest', autocommit: true, maxWaitTime: 200 });
  const found = [];
  for await (const message of stream) {
    found.push(message.value);
    if (found.length === sent.length) break;
  }
  await consumer.close(true);
  assert.deepEqual(new Set(found), new Set(sent));
  assert.ok((await admin.listGroups()).has(topic));
  await admin.deleteTopics({ topics: [topic] });
  assert.ok(!(await admin.listTopics()).includes(topic));
  await admin.close();
}

try {
  await everyCodec();
  console.log('ok every-codec-in-a-group');
} catch (error) {
  console.log(`failed every-codec-in-a-group ${JSON.stringify(String(error.stack))}`);
}
