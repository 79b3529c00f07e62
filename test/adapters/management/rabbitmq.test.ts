import { readFileSync } from 'node:fs';
import test from 'ava';
import { startTestBroker } from '../../support/broker.ts';
import { outcomes } from './rabbitmq-cases.ts';

test('requests are answered as RabbitMQ 4.0.5 answers them', async (t) => {
  const expected = readFileSync('test/adapters/management/rabbitmq-4.0.5.txt', 'utf8').trimEnd().split('\n');
  const broker = await startTestBroker();
  try {
    const actual: string[] = [];
    for await (const line of outcomes({ http: broker.management, amqp: broker.amqp })) actual.push(line);
    t.deepEqual(actual, expected);
    t.deepEqual(broker.lines, []);
  } finally {
    await broker.stop();
  }
});
