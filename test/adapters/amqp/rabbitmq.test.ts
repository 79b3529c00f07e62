import { readFileSync } from 'node:fs';
import test from 'ava';
import { startTestBroker } from '../../support/broker.ts';
import { outcomes } from './rabbitmq-cases.ts';
import { told } from './rabbitmq-stories.ts';
import { streamOutcomes } from './rabbitmq-streams.ts';

test('clients are told what RabbitMQ 4.0.5 tells them', async (t) => {
  const expected = readFileSync('test/adapters/amqp/rabbitmq-4.0.5.txt', 'utf8').trimEnd().split('\n');
  const broker = await startTestBroker();
  try {
    t.deepEqual(await outcomes(broker.amqp), expected);
  } finally {
    await broker.stop();
  }
});

test('messages go where RabbitMQ 4.0.5 sends them, and look as they do there', async (t) => {
  const expected = readFileSync('test/adapters/amqp/rabbitmq-stories-4.0.5.txt', 'utf8').trimEnd().split('\n');
  const broker = await startTestBroker();
  try {
    t.deepEqual(await told(broker.amqp), expected);
  } finally {
    await broker.stop();
  }
});

test('streams are what they are on RabbitMQ 4.0.5', async (t) => {
  const expected = readFileSync('test/adapters/amqp/rabbitmq-streams-4.0.5.txt', 'utf8').trimEnd().split('\n');
  const broker = await startTestBroker();
  try {
    t.deepEqual(await streamOutcomes(broker.amqp), expected);
  } finally {
    await broker.stop();
  }
});
