import test from 'ava';
import fc from 'fast-check';
import { DeliveryWriter } from '../../../adapters/amqp/delivery-writer.ts';
import { Output, OutputChunks } from '../../../adapters/amqp/output.ts';
import { recordOf } from '../../../adapters/amqp/properties.ts';
import { FRAME_BODY, FRAME_HEADER, FRAME_METHOD, FrameReader, methodOf } from '../../../protocol/amqp/frame.ts';
import {
  type Properties,
  readContentHeader,
  readProperties,
  writeProperties,
} from '../../../protocol/amqp/properties.ts';
import { fieldOf, NO_TABLE, type Table, textField } from '../../../protocol/amqp/table.ts';
import { Reader } from '../../../protocol/bytes.ts';
import { BATCH_OVERHEAD_BYTES, BatchBuilder, type RecordInit } from '../../../protocol/record-batch.ts';
import { RecordCursor } from '../../../protocol/record-walk.ts';

const FRAME_BYTES_MAX = 8192;

function cursorOf(record: RecordInit): RecordCursor {
  const builder = new BatchBuilder(1024);
  builder.add(record);
  const batch = builder.build();
  const cursor = new RecordCursor(batch, BATCH_OVERHEAD_BYTES, batch.length);
  cursor.next();
  return cursor;
}

function delivered(
  cursor: RecordCursor,
  options: { queue?: string; streamOffset?: number; failedCount?: number } = {},
) {
  const { queue = 'queue', streamOffset = -1, failedCount = 0 } = options;
  const output = new Output(new OutputChunks());
  const writer = new DeliveryWriter(output, 7, FRAME_BYTES_MAX);
  const target = {
    consumerTag: Buffer.from('tag-ü'),
    queueName: queue,
    queueNameBytes: Buffer.from(queue),
    isQuorum: true,
  };
  writer.deliver(target, 2 ** 40 + 5, true, failedCount, cursor, streamOffset);
  const { sizeBytes } = output;
  const bytes = Buffer.concat(output.drain());
  if (bytes.length !== sizeBytes) throw new Error(`${bytes.length} bytes, ${sizeBytes} were counted`);
  const frames = new FrameReader(FRAME_BYTES_MAX);
  frames.push(bytes);
  const next = (type: number): Buffer => {
    if (!frames.next() || frames.type !== type || frames.channel !== 7) throw new Error(`no frame of type ${type}`);
    return Buffer.from(frames.payload);
  };
  const method = methodOf(next(FRAME_METHOD));
  const { bodyBytes, properties } = readContentHeader(new Reader(next(FRAME_HEADER)));
  let body = Buffer.alloc(0);
  while (body.length < bodyBytes) body = Buffer.concat([body, next(FRAME_BODY)]);
  if (frames.next()) throw new Error('a frame too many');
  return { method, properties: Buffer.from(properties), body };
}

const text = fc.string({ unit: 'grapheme', maxLength: 20 });
const message = fc.record({
  exchange: text,
  routingKey: text,
  body: fc.oneof(
    fc.uint8Array({ maxLength: 300 }),
    fc.integer({ min: 0, max: 60_000 }).map((size) => Buffer.alloc(size, 7)),
  ),
  properties: fc.record(
    {
      contentType: text,
      contentEncoding: text,
      headers: fc.array(fc.tuple(text, text.map(textField)), { maxLength: 5 }),
      deliveryMode: fc.nat(255),
      priority: fc.nat(255),
      correlationId: text,
      replyTo: text,
      messageId: text,
      timestamp: fc.maxSafeNat(),
      type: text,
      userId: text,
      appId: text,
      clusterId: text,
    },
    { requiredKeys: [] },
  ),
});

test('a delivery has the bytes of the publish, in frames of the size that was negotiated', (t) => {
  fc.assert(
    fc.property(message, fc.boolean(), ({ exchange, routingKey, body, properties }, isStream) => {
      const propertyBytes = writeProperties(properties);
      const published = {
        exchange,
        routingKey,
        properties,
        propertyBytes,
        body: Buffer.from(body),
        bccKeys: [],
        delayMs: 0,
      };
      const streamOffset = isStream ? 2 ** 33 + 1 : -1;
      const seen = delivered(cursorOf(recordOf(published, 'queue', 1)), { streamOffset });
      t.deepEqual(seen.method, {
        method: 'basic.deliver',
        consumerTag: 'tag-ü',
        deliveryTag: 2 ** 40 + 5,
        redelivered: true,
        exchange,
        routingKey,
      } as unknown as typeof seen.method);
      t.true(seen.body.equals(body));
      if (!isStream) return t.true(seen.properties.equals(propertyBytes));
      const { headers = NO_TABLE, ...others } = readProperties(new Reader(seen.properties));
      const { headers: before = NO_TABLE, ...othersBefore } = readProperties(new Reader(propertyBytes));
      t.deepEqual(others, othersBefore);
      t.deepEqual(headers, [...before, ['x-stream-offset', { type: 'l', value: streamOffset }]] as Table);
      return true;
    }),
    { numRuns: 200 },
  );
});

test('a record of a Kafka client, failed deliveries and headers that fit no frame are built anew', (t) => {
  const headers = [{ key: 'h', value: Buffer.from('v') }];
  const fromKafka = cursorOf({ key: Buffer.from('k'), value: null, headers, timestamp: 1 });
  const seen = delivered(fromKafka, { streamOffset: 3 });
  t.like(seen.method, { exchange: '', routingKey: 'queue' });
  t.is(seen.body.length, 0);
  const table = readProperties(new Reader(seen.properties)).headers ?? NO_TABLE;
  t.deepEqual(fieldOf(table, 'h'), textField('v'));
  t.deepEqual(fieldOf(table, 'x-stream-offset'), { type: 'l', value: 3 });

  const properties: Properties = { headers: [['x-delivery-count', { type: 'l', value: 9 }]], deliveryMode: 2 };
  const published = {
    exchange: 'x',
    routingKey: 'k',
    properties,
    propertyBytes: writeProperties(properties),
    body: Buffer.alloc(1),
    bccKeys: [],
    delayMs: 0,
  };
  const failed = delivered(cursorOf(recordOf(published, 'queue', 1)), { failedCount: 2 });
  t.deepEqual(readProperties(new Reader(failed.properties)).headers, [['x-delivery-count', { type: 'l', value: 2 }]]);

  const large = cursorOf({ key: null, value: null, headers: [{ key: 'h', value: Buffer.alloc(9000) }], timestamp: 1 });
  t.deepEqual(readProperties(new Reader(delivered(large).properties)), { deliveryMode: 2 } as Properties);
});

test('memory is used again when it was sent, and not before, whoever took it', (t) => {
  let comparedBytes = 0;
  fc.assert(
    fc.property(
      fc.array(fc.record({ who: fc.nat(2), kind: fc.nat(3), size: fc.integer({ min: 1, max: 30_000 }) }), {
        maxLength: 200,
      }),
      (steps) => {
        const chunks = new OutputChunks();
        const peers = [0, 1, 2].map(() => ({
          output: new Output(chunks),
          sending: [] as Buffer[][],
          told: '',
          got: '',
        }));
        const send = (peer: (typeof peers)[number]): void => {
          const buffers = peer.sending.shift();
          if (buffers === undefined) return;
          // What the kernel reads now, after everybody has written more.
          peer.got += Buffer.concat(buffers).toString('latin1');
          peer.output.sent();
        };
        steps.forEach(({ who, kind, size }, step) => {
          const peer = peers[who];
          if (kind === 0) send(peer);
          else if (kind === 1) peer.sending.push(peer.output.drain());
          else {
            const bytes = Buffer.alloc(size, `${step}|`);
            peer.output.push(bytes);
            peer.told += bytes.toString('latin1');
          }
        });
        for (const peer of peers) {
          peer.sending.push(peer.output.drain());
          while (peer.sending.length > 0) send(peer);
          if (peer.got !== peer.told) return false;
          comparedBytes += peer.told.length;
        }
        return true;
      },
    ),
    { numRuns: 200 },
  );
  t.true(comparedBytes > 1_000_000, `${comparedBytes} bytes were compared`);
});

test('small frames of many connections share a chunk; a large body is passed on as it is', (t) => {
  const chunks = new OutputChunks();
  const [one, other] = [new Output(chunks), new Output(chunks)];
  for (let count = 0; count < 3; count++) {
    one.push(Buffer.from('a'));
    other.push(Buffer.from('b'));
  }
  const large = Buffer.alloc(20_000, 'c');
  one.push(large);
  one.push(Buffer.from('d'));
  one.push(Buffer.from('e'));
  t.is(one.sizeBytes, 20_005);
  const sent = one.drain();
  t.deepEqual(
    sent.map((buffer) => (buffer === large ? 'large' : buffer.toString())),
    ['a', 'a', 'a', 'large', 'de'],
  );
  t.is(Buffer.concat(other.drain()).toString(), 'bbb');
  t.is(one.sizeBytes, 0);
  t.deepEqual(one.drain(), []);
});
