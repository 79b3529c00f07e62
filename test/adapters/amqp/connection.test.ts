import test from 'ava';
import fc from 'fast-check';
import {
  bodyFrames,
  contentHeaderFrame,
  HEARTBEAT,
  methodFrame,
  PROTOCOL_HEADER,
} from '../../../protocol/amqp/frame.ts';
import type { MethodInit } from '../../../protocol/amqp/methods.ts';
import { writeProperties } from '../../../protocol/amqp/properties.ts';
import { tableBytes, textField } from '../../../protocol/amqp/table.ts';
import { type AmqpPeer, handshake, type MemoryAmqp, openMemoryAmqp } from '../../support/amqp-client.ts';

const run = (memory: MemoryAmqp, ms = 5): Promise<void> => memory.clock.advance(ms);

async function opened(memory: MemoryAmqp): Promise<AmqpPeer> {
  const peer = memory.peer();
  for (const frame of handshake) {
    peer.send(frame);
    await run(memory, 1);
  }
  return peer;
}

const body = (text: string): Buffer =>
  Buffer.concat([Buffer.from([3, 0, 1, 0, 0, 0, text.length]), Buffer.from(text), Buffer.from([0xce])]);
const on = (channel: number, method: MethodInit): Buffer => methodFrame(channel, method);

/** A session that uses most of what there is. */
const session: readonly Buffer[] = [
  on(1, { method: 'channel.open' } as MethodInit),
  on(1, { method: 'confirm.select', noWait: false }),
  on(1, {
    method: 'exchange.declare',
    exchange: 'x',
    type: 'topic',
    durable: true,
    arguments: [['a', textField('b')]],
  }),
  on(1, { method: 'queue.declare', queue: 'q', durable: true }),
  on(1, { method: 'queue.bind', queue: 'q', exchange: 'x', routingKey: 'a.*' }),
  on(1, { method: 'basic.publish', exchange: 'x', routingKey: 'a.b', mandatory: true }),
  contentHeaderFrame(1, 10, writeProperties({ headers: [['h', textField('v')]], deliveryMode: 2 })),
  body('hello'),
  body('world'),
  on(1, { method: 'basic.publish', exchange: 'x', routingKey: 'nowhere', mandatory: true }),
  contentHeaderFrame(1, 0, writeProperties({})),
  on(1, { method: 'basic.qos', prefetchCount: 10 }),
  on(1, { method: 'basic.consume', queue: 'q', consumerTag: 'c' }),
  HEARTBEAT,
  on(1, { method: 'basic.get', queue: 'q' }),
  on(1, { method: 'basic.cancel', consumerTag: 'c' }),
  on(1, { method: 'queue.delete', queue: 'q' }),
  on(1, { method: 'exchange.delete', exchange: 'x' }),
  on(1, { method: 'channel.close', replyCode: 200, replyText: '' }),
  on(0, { method: 'connection.close', replyCode: 200, replyText: '' }),
];
const ANSWERS = [
  ...['connection.start', 'connection.tune', 'connection.open-ok', 'channel.open-ok', 'confirm.select-ok'],
  ...[
    'exchange.declare-ok',
    'queue.declare-ok',
    'queue.bind-ok',
    'basic.ack',
    'basic.return',
    'type 2',
    'basic.ack',
    'basic.qos-ok',
  ],
  ...['basic.consume-ok', 'basic.deliver', 'type 2', 'type 3', 'basic.get-empty', 'basic.cancel-ok'],
  ...['queue.delete-ok', 'exchange.delete-ok', 'channel.close-ok', 'connection.close-ok'],
];

test('a session is answered in order, however its bytes are cut', async (t) => {
  for (const size of [1, 7, 100]) {
    const memory = await openMemoryAmqp();
    const peer = memory.peer();
    for (const frame of [...handshake, ...session]) {
      for (let at = 0; at < frame.length; at += size) peer.send(frame.subarray(at, at + size));
      await run(memory);
    }
    t.deepEqual(peer.methods(), ANSWERS);
    t.true(peer.isEnded);
    t.deepEqual(memory.reports, []);
    t.is(memory.door.connections.size, 0);
  }
});

test('a session in one chunk is answered as well', async (t) => {
  const memory = await openMemoryAmqp();
  const peer = memory.peer();
  peer.send(Buffer.concat([...handshake, ...session]));
  await run(memory, 100);
  // What is delivered depends on the time that consumers are there.
  const without = (names: readonly string[]): string[] =>
    names.filter((name) => !/^type|deliver|get-|basic\.ack|return/.test(name));
  t.deepEqual(without(peer.methods()), without(ANSWERS));
  t.deepEqual(memory.reports, []);
});

test('another protocol is told ours', async (t) => {
  const memory = await openMemoryAmqp();
  const peer = memory.peer();
  peer.send(Buffer.from('GET / HTTP/1.1\r\n\r\n'));
  await run(memory);
  t.deepEqual(peer.received, PROTOCOL_HEADER);
  t.true(peer.isEnded);
});

test('who does not open a connection in time is dropped', async (t) => {
  const memory = await openMemoryAmqp();
  const peer = memory.peer();
  peer.send(...handshake.slice(0, 2));
  await run(memory, 10_001);
  t.true(peer.isDestroyed);
});

test('guest comes from loopback only, and with its password', async (t) => {
  const memory = await openMemoryAmqp();
  const startOk = (mechanism: string, response: Buffer): Buffer =>
    on(0, {
      method: 'connection.start-ok',
      clientProperties: [
        ['capabilities', { type: 'F', value: [['authentication_failure_close', { type: 't', value: true }]] }],
      ],
      mechanism,
      response,
      locale: 'en_US',
    });
  const right = Buffer.from('\0guest\0guest');
  const cases: [string, Buffer, string, string | undefined][] = [
    ['PLAIN', right, '127.0.0.1', undefined],
    ['PLAIN', right, '::ffff:127.0.0.1', undefined],
    ['PLAIN', right, '10.0.0.1', '403 ACCESS_REFUSED'],
    ['PLAIN', Buffer.from('\0guest\0no'), '127.0.0.1', '403 ACCESS_REFUSED'],
    // Who does not say who it is is told nothing.
    ['PLAIN', Buffer.from('guest'), '127.0.0.1', 'ended'],
    [
      'AMQPLAIN',
      tableBytes([
        ['LOGIN', textField('guest')],
        ['PASSWORD', textField('guest')],
      ]).subarray(4),
      '::1',
      undefined,
    ],
    ['AMQPLAIN', Buffer.from('nonsense'), '::1', 'ended'],
    ['EXTERNAL', right, '::1', 'ended'],
  ];
  for (const [mechanism, response, host, refused] of cases) {
    const peer = memory.peer(host);
    peer.send(PROTOCOL_HEADER, startOk(mechanism, response));
    await run(memory);
    t.is(peer.closeText?.split(' - ')[0] ?? (peer.isEnded ? 'ended' : undefined), refused);
  }
});

test('limits that are negotiated are kept', async (t) => {
  const memory = await openMemoryAmqp();
  const tuned = async (channelMax: number, frameMax: number): Promise<AmqpPeer> => {
    const peer = memory.peer();
    peer.send(
      handshake[0],
      handshake[1],
      on(0, { method: 'connection.tune-ok', channelMax, frameMax, heartbeat: 0 }),
      handshake[3],
    );
    await run(memory);
    return peer;
  };
  t.regex((await tuned(2047, 131_073)).closeText ?? '', /^530 NOT_ALLOWED - negotiated frame_max = 131073 is higher/);
  t.regex((await tuned(2047, 100)).closeText ?? '', /^530 NOT_ALLOWED - negotiated frame_max = 100 is lower/);
  const peer = await tuned(2, 8192);
  for (const channel of [1, 2]) peer.send(on(channel, { method: 'channel.open' } as MethodInit));
  await run(memory);
  t.is(peer.closeText, undefined);
  const frame = Buffer.alloc(9000);
  frame.set([3, 0, 1, 0, 0, 0x23, 0]);
  peer.send(frame);
  await run(memory);
  t.regex(peer.closeText ?? '', /^501 FRAME_ERROR/);
  const other = await tuned(1, 8192);
  other.send(on(1, { method: 'channel.open' } as MethodInit), on(2, { method: 'channel.open' } as MethodInit));
  await run(memory);
  t.regex(other.closeText ?? '', /^530 NOT_ALLOWED - number of channels/);
});

test('heartbeats go both ways', async (t) => {
  const memory = await openMemoryAmqp();
  const peer = memory.peer();
  peer.send(
    handshake[0],
    handshake[1],
    on(0, { method: 'connection.tune-ok', channelMax: 0, frameMax: 0, heartbeat: 2 }),
    handshake[3],
  );
  await run(memory, 3_000);
  t.true(peer.methods().includes('type 8'));
  for (let second = 0; second < 10; second++) {
    peer.send(HEARTBEAT);
    await run(memory, 1_000);
  }
  t.false(peer.isDestroyed);
  await run(memory, 6_000);
  t.true(peer.isDestroyed);
});

test('what does not fit the state has the code of RabbitMQ', async (t) => {
  const open: Buffer = session[0];
  const publish = on(1, { method: 'basic.publish' });
  const cases: [readonly Uint8Array[], RegExp][] = [
    [[on(1, { method: 'basic.qos' })], /^504 CHANNEL_ERROR - expected 'channel.open'/],
    [[open, open], /^504 CHANNEL_ERROR - second/],
    [[open, body('x')], /^505 UNEXPECTED_FRAME/],
    [[open, publish, on(1, { method: 'basic.qos' })], /^505 UNEXPECTED_FRAME - expected content header/],
    [[open, publish, body('x')], /^505 UNEXPECTED_FRAME - expected content header/],
    [[open, publish, contentHeaderFrame(1, 1, writeProperties({})), body('xy')], /^501 FRAME_ERROR/],
    [
      [open, publish, contentHeaderFrame(1, 20_000_000, writeProperties({}))],
      /^406 PRECONDITION_FAILED - message size 20000000/,
    ],
    [[open, publish, contentHeaderFrame(1, 0, Buffer.from([0xff, 0xff]))], /^502 SYNTAX_ERROR/],
    [[open, on(1, { method: 'basic.publish', immediate: true })], /^540 NOT_IMPLEMENTED - immediate=true/],
    [[open, on(1, { method: 'channel.flow', active: false })], /^540 NOT_IMPLEMENTED - active=false/],
    [[open, on(1, { method: 'basic.qos-ok' })], /^503 COMMAND_INVALID/],
    [[Buffer.from([1, 0, 0, 0, 0, 0, 4, 0, 99, 0, 99, 0xce])], /^540 NOT_IMPLEMENTED/],
    [[Buffer.from([1, 0, 0, 0, 0, 0, 2, 0, 10, 0xce])], /^502 SYNTAX_ERROR/],
    [[Buffer.from([1, 0, 0, 0, 0, 0, 0, 0])], /^501 FRAME_ERROR/],
    [[Buffer.from([7, 0, 0, 0, 0, 0, 0, 0xce])], /^501 FRAME_ERROR/],
    [[on(0, { method: 'connection.open', virtualHost: '/' })], /^503 COMMAND_INVALID/],
  ];
  const memory = await openMemoryAmqp();
  for (const [frames, expected] of cases) {
    const peer = await opened(memory);
    peer.send(...frames);
    await run(memory);
    t.regex(peer.closeText ?? '', expected);
    peer.destroy();
  }
  t.deepEqual(memory.reports, []);
  t.is(memory.door.connections.size, 0);
});

test('a consumer that does not read is sent a bounded amount, and the rest when it reads', async (t) => {
  const memory = await openMemoryAmqp();
  const peer = await opened(memory);
  peer.send(session[0], on(1, { method: 'queue.declare', queue: 'q', durable: true }));
  await run(memory);
  const publish = Buffer.concat([
    on(1, { method: 'basic.publish', routingKey: 'q' }),
    contentHeaderFrame(1, 10_000, writeProperties({})),
    ...bodyFrames(1, Buffer.alloc(10_000), 131_072),
  ]);
  for (let count = 0; count < 1000; count++) peer.send(publish);
  await run(memory, 50);
  const slow = await opened(memory);
  slow.isReading = false;
  slow.send(session[0], on(1, { method: 'basic.consume', queue: 'q', noAck: true, consumerTag: 'c' }));
  await run(memory, 1000);
  t.true(slow.received.length < 3_000_000, `${slow.received.length} bytes`);
  t.true(slow.received.length > 500_000);
  for (let count = 0; count < 20; count++) {
    slow.read();
    await run(memory, 100);
  }
  t.is(slow.methods().filter((name) => name === 'basic.deliver').length, 1000);
});

test('a publisher that does not read its confirms is not read either', async (t) => {
  const memory = await openMemoryAmqp({ 'connection.unsent.bytes.max': 65_536 });
  const peer = await opened(memory);
  peer.send(session[0], session[1]);
  await run(memory);
  peer.isReading = false;
  const returned = Buffer.concat([
    on(1, { method: 'basic.publish', routingKey: 'nowhere', mandatory: true }),
    contentHeaderFrame(1, 10_000, writeProperties({})),
    ...bodyFrames(1, Buffer.alloc(10_000), 131_072),
  ]);
  for (let count = 0; count < 100 && !peer.isPaused; count++) {
    peer.send(returned);
    await run(memory, 1);
  }
  t.true(peer.isPaused);
  t.true(peer.received.length < 200_000);
  peer.read();
  await run(memory);
  t.false(peer.isPaused);
});

test('any bytes at any state end the connection or are answered, and others go on', async (t) => {
  const memory = await openMemoryAmqp();
  const frames = [...handshake, ...session];
  const whole = Buffer.concat(frames);
  await fc.assert(
    fc.asyncProperty(
      fc.nat(frames.length),
      fc.oneof(
        fc.uint8Array({ maxLength: 200 }),
        fc.record({ at: fc.nat(whole.length - 1), value: fc.nat(255) }),
        fc.array(fc.nat(frames.length - 1), { maxLength: 20 }),
      ),
      async (prefix, garbage) => {
        const peer = memory.peer();
        if (garbage instanceof Uint8Array) peer.send(...frames.slice(0, prefix), garbage);
        else if (Array.isArray(garbage)) peer.send(...frames.slice(0, 4), ...garbage.map((index) => frames[index]));
        else {
          const changed = Buffer.from(whole);
          changed[garbage.at] = garbage.value;
          peer.send(changed);
        }
        await run(memory, 20);
        peer.destroy();
        await run(memory, 1);
      },
    ),
    { numRuns: 300 },
  );
  // A login may be among the bytes.
  t.deepEqual(
    memory.reports.filter((line) => !line.startsWith('AMQP login')),
    [],
  );
  const peer = await opened(memory);
  t.is(peer.methods().at(-1), 'connection.open-ok');
});
