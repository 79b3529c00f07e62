/** What waits: channels for the disk, connections for an alarm, messages for their ack. */
import test from 'ava';
import { bodyFrames, contentHeaderFrame, methodFrame } from '../../../protocol/amqp/frame.ts';
import type { MethodInit } from '../../../protocol/amqp/methods.ts';
import { writeProperties } from '../../../protocol/amqp/properties.ts';
import { type AmqpPeer, handshake, type MemoryAmqp, openMemoryAmqp } from '../../support/amqp-client.ts';

const on = (channel: number, method: MethodInit): Buffer => methodFrame(channel, method);
const openChannel = (channel: number): Buffer => on(channel, { method: 'channel.open' } as MethodInit);
const declare = (channel: number, queue: string): Buffer =>
  on(channel, { method: 'queue.declare', queue, durable: true });

function publish(channel: number, queue: string, text: string): Buffer {
  const body = Buffer.from(text);
  return Buffer.concat([
    on(channel, { method: 'basic.publish', exchange: '', routingKey: queue }),
    contentHeaderFrame(channel, body.length, writeProperties({ deliveryMode: 2 })),
    ...bodyFrames(channel, body, 131_072),
  ]);
}

/** As clients that know of it do: told when it is blocked. */
const startOk = methodFrame(0, {
  method: 'connection.start-ok',
  clientProperties: [['capabilities', { type: 'F', value: [['connection.blocked', { type: 't', value: true }]] }]],
  mechanism: 'PLAIN',
  response: Buffer.from('\0guest\0guest'),
  locale: 'en_US',
});

async function opened(memory: MemoryAmqp): Promise<AmqpPeer> {
  const peer = memory.peer();
  for (const frame of [handshake[0], startOk, ...handshake.slice(2)]) {
    peer.send(frame);
    await memory.clock.advance(1);
  }
  return peer;
}

/** Method and channel of each answer from the first `channel.open-ok` on. */
function answers(peer: AmqpPeer): string[] {
  const all = peer.frames().map(({ channel, method, type }) => `${channel} ${method?.method ?? `type ${type}`}`);
  return all.slice(all.findIndex((name) => name.endsWith('connection.open-ok')) + 1);
}

test('a channel that waits for the disk does not hold up the others, and goes on where it was', async (t) => {
  const memory = await openMemoryAmqp({}, 'manual');
  const { engine, clock } = memory;
  const peer = await opened(memory);
  peer.send(openChannel(1), openChannel(2));
  peer.send(declare(1, 'a'), publish(1, 'a', 'one'), on(1, { method: 'basic.qos', prefetchCount: 1 }));
  peer.send(on(2, { method: 'basic.qos', prefetchCount: 2 }), on(2, { method: 'confirm.select', noWait: false }));
  await clock.advance(5);
  t.deepEqual(answers(peer), ['1 channel.open-ok', '2 channel.open-ok', '2 basic.qos-ok', '2 confirm.select-ok']);
  t.false(peer.isPaused);
  for (let turn = 0; turn < 10; turn++) {
    engine.sync();
    await clock.advance(5);
  }
  t.deepEqual(answers(peer).slice(4), ['1 queue.declare-ok', '1 basic.qos-ok']);
  peer.send(declare(2, 'a'));
  for (let turn = 0; turn < 10; turn++) {
    engine.sync();
    await clock.advance(5);
  }
  const declared = peer.frames().findLast(({ method }) => method?.method === 'queue.declare-ok')?.method;
  t.like(declared, { messageCount: 1 });
});

test('what waits for its channel is bounded: then the connection is not read', async (t) => {
  const memory = await openMemoryAmqp({ 'amqp.parked.bytes.max': 65_536 }, 'manual');
  const { engine, clock } = memory;
  const peer = await opened(memory);
  peer.send(openChannel(1), openChannel(2), declare(1, 'a'));
  for (let count = 0; count < 20; count++) peer.send(publish(1, 'a', 'x'.repeat(8000)));
  peer.send(on(2, { method: 'basic.qos', prefetchCount: 2 }));
  await clock.advance(5);
  t.true(peer.isPaused);
  t.deepEqual(answers(peer), ['1 channel.open-ok', '2 channel.open-ok']);
  for (let turn = 0; turn < 10; turn++) {
    engine.sync();
    await clock.advance(5);
  }
  t.false(peer.isPaused);
  t.deepEqual(answers(peer).slice(2), ['1 queue.declare-ok', '2 basic.qos-ok']);
});

test('a connection that closes while its channels wait is answered after them', async (t) => {
  const memory = await openMemoryAmqp({}, 'manual');
  const { engine, clock, broker } = memory;
  const peer = await opened(memory);
  peer.send(openChannel(1), declare(1, 'a'), publish(1, 'a', 'one'));
  peer.send(on(0, { method: 'connection.close', replyCode: 200, replyText: '' }));
  await clock.advance(5);
  t.deepEqual(answers(peer), ['1 channel.open-ok']);
  for (let turn = 0; turn < 10; turn++) {
    engine.sync();
    await clock.advance(5);
  }
  t.deepEqual(answers(peer).slice(1), ['1 queue.declare-ok', '0 connection.close-ok']);
  t.is(broker.queues.get('a')?.counts().ready, 1);
});

test('an alarm stops a connection at its first publish, which counts when it is over; who only consumes goes on', async (t) => {
  const memory = await openMemoryAmqp();
  const { engine, clock, memoryInUse } = memory;
  const consumer = await opened(memory);
  consumer.send(openChannel(1), declare(1, 'a'), on(1, { method: 'basic.consume', queue: 'a', consumerTag: 'c' }));
  const peer = await opened(memory);
  peer.send(openChannel(1), on(1, { method: 'confirm.select', noWait: false }), publish(1, 'a', 'zero'));
  await clock.advance(10);
  engine.isFull = true;
  peer.send(on(1, { method: 'basic.qos', prefetchCount: 1 }));
  await clock.advance(10);
  t.deepEqual(answers(peer).slice(1), ['1 confirm.select-ok', '1 basic.ack', '1 basic.qos-ok']);
  peer.send(publish(1, 'a', 'one'), publish(1, 'a', 'two'));
  await clock.advance(10);
  t.deepEqual(answers(peer).slice(4), ['0 connection.blocked']);
  t.like(peer.frames().at(-1)?.method, { reason: 'low on disk' });
  t.true(peer.isPaused);
  consumer.send(on(1, { method: 'basic.ack', deliveryTag: 1 }), on(1, { method: 'basic.qos', prefetchCount: 1 }));
  await clock.advance(10);
  t.is(answers(consumer).at(-1), '1 basic.qos-ok');
  t.is(consumer.closeText, undefined);
  engine.isFull = false;
  await clock.advance(1000);
  t.deepEqual(answers(peer).slice(5), ['0 connection.unblocked', '1 basic.ack']);
  t.false(peer.isPaused);
  t.is(peer.closeText, undefined);
  t.is(memoryInUse.bytes, 0);
});

test('so does too much memory, and both', async (t) => {
  const memory = await openMemoryAmqp({ 'amqp.memory.high.bytes': 1000 });
  const { engine, clock, memoryInUse } = memory;
  const peer = await opened(memory);
  peer.send(openChannel(1), declare(1, 'a'));
  await clock.advance(1000);
  memoryInUse.bytes = 1001;
  engine.isFull = true;
  peer.send(publish(1, 'a', 'one'));
  await clock.advance(10);
  t.like(peer.frames().at(-1)?.method, { reason: 'low on disk & memory' });
  engine.isFull = false;
  await clock.advance(1000);
  t.is(answers(peer).at(-1), '0 connection.blocked');
  memoryInUse.bytes = 1000;
  await clock.advance(1000);
  t.is(answers(peer).at(-1), '0 connection.unblocked');
});

test('a channel that keeps a message unacked too long is closed, and the message is another one’s', async (t) => {
  const memory = await openMemoryAmqp({ 'amqp.consumer.timeout.ms': 1000 });
  const { clock, broker } = memory;
  const peer = await opened(memory);
  peer.send(openChannel(1), declare(1, 'a'), on(1, { method: 'basic.consume', queue: 'a', consumerTag: 'c' }));
  peer.send(publish(1, 'a', 'one'), publish(1, 'a', 'two'));
  await clock.advance(600);
  peer.send(on(1, { method: 'basic.ack', deliveryTag: 1 }), publish(1, 'a', 'three'));
  await clock.advance(350);
  peer.send(on(1, { method: 'basic.ack', deliveryTag: 2 }));
  await clock.advance(600);
  t.is(peer.closeText, undefined, 'the third has more time');
  await clock.advance(600);
  t.is(
    peer.closeText,
    '406 PRECONDITION_FAILED - delivery acknowledgement on channel 1 timed out. Timeout value used: 1000 ms. This timeout value can be configured, see consumers doc guide to learn more',
  );
  t.like(peer.frames().at(-1)?.method, { classId: 0, methodId: 0 });
  t.deepEqual(broker.queues.get('a')?.counts(), { ready: 1, inFlight: 0, delayed: 0, blocked: 0 });
});

test('a queue may give more time, and no limit', async (t) => {
  const memory = await openMemoryAmqp({ 'amqp.consumer.timeout.ms': 1000 });
  const { clock } = memory;
  const peer = await opened(memory);
  peer.send(openChannel(1));
  for (const [queue, ms] of [
    ['long', 5000],
    ['ever', 0],
  ] as const) {
    const table = [['x-consumer-timeout', { type: 'I', value: ms }]] as const;
    peer.send(on(1, { method: 'queue.declare', queue, durable: true, arguments: table }));
    peer.send(on(1, { method: 'basic.consume', queue, consumerTag: queue }), publish(1, queue, 'one'));
  }
  await clock.advance(3000);
  t.is(peer.closeText, undefined);
  await clock.advance(5000);
  t.regex(peer.closeText ?? '', /Timeout value used: 5000 ms/);
});
