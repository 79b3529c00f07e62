/**
 * The codec of AMQP 0-9-1 against bytes made by another implementation (pika 1.3.2: golden.tsv, a method or `properties`, its
 * arguments as JSON, and the bytes), and against any bytes.
 */
import { readFileSync } from 'node:fs';
import test from 'ava';
import fc from 'fast-check';
import { Reader, Writer } from '../../../protocol/bytes.ts';
import { ProtocolError } from '../../../protocol/errors.ts';
import { parseMethods } from '../../../protocol/amqp/definition.ts';
import {
  bodyFrames,
  contentHeaderFrame,
  FRAME_BODY,
  FRAME_HEADER,
  FRAME_METHOD,
  FrameReader,
  HEARTBEAT,
  methodFrame,
  methodOf,
  PROTOCOL_HEADER,
} from '../../../protocol/amqp/frame.ts';
import { generateMethods } from '../../../protocol/amqp/generate.ts';
import { type MethodInit, readMethod, writeMethod } from '../../../protocol/amqp/methods.ts';
import {
  type Properties,
  readContentHeader,
  readProperties,
  writeProperties,
} from '../../../protocol/amqp/properties.ts';
import {
  clippedToShortString,
  type FieldValue,
  fieldOf,
  readTable,
  type Table,
  tableBytes,
  textField,
} from '../../../protocol/amqp/table.ts';

const golden = readFileSync('test/protocol/amqp/golden.tsv', 'utf8')
  .trimEnd()
  .split('\n')
  .map((line) => line.split('\t'))
  .map(([name, fields, hex]) => ({
    name,
    fields: JSON.parse(fields) as Record<string, unknown>,
    bytes: Buffer.from(hex, 'hex'),
  }));

/** What TABLE stands for in golden.tsv. */
const TABLE: Table = [
  ['a', textField('text')],
  ['n', { type: 'I', value: 7 }],
  ['neg', { type: 'I', value: -5 }],
  ['big', { type: 'l', value: 2 ** 40 }],
  ['yes', { type: 't', value: true }],
  ['none', { type: 'V' }],
  [
    'list',
    {
      type: 'A',
      value: [{ type: 'I', value: 1 }, textField('two'), { type: 'A', value: [{ type: 't', value: false }] }],
    },
  ],
  ['in', { type: 'F', value: [['x', { type: 'l', value: 2 ** 33 }]] }],
  ['when', { type: 'T', value: 1_767_323_045 }],
  ['dec', { type: 'D', scale: 2, value: 125 }],
  ['raw', { type: 'x', value: Buffer.from([0, 255]) }],
];

function expected(fields: Record<string, unknown>, longStrings: boolean): Record<string, unknown> {
  return Object.fromEntries(
    Object.entries(fields).map(([name, value]) => {
      if (value === 'TABLE') return [name, TABLE];
      if (typeof value === 'object') return [name, []];
      if (longStrings && typeof value === 'string' && value.startsWith('long ')) return [name, Buffer.from(value)];
      return [name, value];
    }),
  );
}

test('methods.ts is what the generator makes of methods.def', (t) => {
  const text = generateMethods(parseMethods(readFileSync('protocol/amqp/methods.def', 'utf8')));
  t.is(readFileSync('protocol/amqp/methods.ts', 'utf8'), text);
});

test('every method is read and written as another implementation does', (t) => {
  const methods = golden.filter(({ name }) => name !== 'properties');
  t.is(
    new Set(methods.map(({ name }) => name)).size,
    parseMethods(readFileSync('protocol/amqp/methods.def', 'utf8')).length,
  );
  for (const { name, fields, bytes } of methods) {
    const method = { method: name, ...expected(fields, true) };
    const reader = new Reader(bytes);
    t.deepEqual(readMethod(reader) as object, method, name);
    t.is(reader.remaining, 0, name);
    const writer = new Writer();
    writeMethod(writer, method as unknown as MethodInit);
    t.is(writer.finish().toString('hex'), bytes.toString('hex'), name);
  }
});

test('properties are read and written as another implementation does', (t) => {
  for (const { fields, bytes } of golden.filter(({ name }) => name === 'properties')) {
    const properties = expected(fields, false) as Properties;
    t.deepEqual(readProperties(new Reader(bytes)), properties);
    t.is(writeProperties(properties).toString('hex'), bytes.toString('hex'));
  }
});

test('an unknown method is told from a broken one', (t) => {
  t.is(methodOf(Buffer.from('003c0063', 'hex')), undefined);
  t.throws(() => methodOf(Buffer.from('003c', 'hex')), { instanceOf: ProtocolError });
  t.throws(() => methodOf(Buffer.from('005a000a00', 'hex')), {
    instanceOf: ProtocolError,
    message: /after the arguments/,
  });
});

const field: fc.Arbitrary<FieldValue> = fc.letrec<{ field: FieldValue; table: Table }>((tie) => ({
  table: fc.array(fc.tuple(fc.string({ maxLength: 20 }), tie('field')), { maxLength: 4 }),
  field: fc.oneof(
    { depthSize: 'small' },
    fc.record({
      type: fc.constantFrom('S' as const, 'x' as const),
      value: fc.uint8Array({ maxLength: 30 }).map(Buffer.from),
    }),
    fc.record({ type: fc.constant('I' as const), value: fc.integer() }),
    fc.record({ type: fc.constant('i' as const), value: fc.nat(2 ** 32 - 1) }),
    fc.record({ type: fc.constant('s' as const), value: fc.integer({ min: -32_768, max: 32_767 }) }),
    fc.record({ type: fc.constant('u' as const), value: fc.nat(65_535) }),
    fc.record({ type: fc.constant('b' as const), value: fc.integer({ min: -128, max: 127 }) }),
    fc.record({ type: fc.constant('B' as const), value: fc.nat(255) }),
    fc.record({ type: fc.constantFrom('l' as const, 'L' as const), value: fc.bigInt(-(2n ** 63n), 2n ** 63n - 1n) }),
    fc.record({ type: fc.constant('T' as const), value: fc.bigInt(0n, 2n ** 64n - 1n) }),
    fc.record({ type: fc.constant('f' as const), value: fc.float({ noNaN: true }) }),
    fc.record({ type: fc.constant('d' as const), value: fc.double({ noNaN: true }) }),
    fc.record({ type: fc.constant('D' as const), scale: fc.nat(255), value: fc.integer() }),
    fc.record({ type: fc.constant('t' as const), value: fc.boolean() }),
    fc.constant({ type: 'V' as const }),
    fc.record({ type: fc.constant('F' as const), value: tie('table') }),
    fc.record({ type: fc.constant('A' as const), value: fc.array(tie('field'), { maxLength: 4 }) }),
  ) as fc.Arbitrary<FieldValue>,
})).field;

test('a table written again has the same bytes', (t) => {
  fc.assert(
    fc.property(fc.array(fc.tuple(fc.string({ maxLength: 40 }), field), { maxLength: 6 }), (table) => {
      const bytes = tableBytes(table);
      t.deepEqual(tableBytes(readTable(new Reader(bytes))), bytes);
    }),
  );
});

test('of a name that comes twice the last value counts', (t) => {
  t.deepEqual(
    fieldOf(
      [
        ['a', textField('1')],
        ['a', textField('2')],
      ],
      'a',
    ),
    textField('2'),
  );
  t.is(fieldOf([], 'a'), undefined);
});

test('tables nested ten thousand deep are refused, not overflowed by', (t) => {
  let bytes = Buffer.alloc(4);
  for (let depth = 0; depth < 10_000; depth++) {
    const head = Buffer.alloc(5);
    head.write('A', 0);
    head.writeUInt32BE(bytes.length, 1);
    bytes = Buffer.concat([head, bytes]);
  }
  const table = Buffer.concat([Buffer.alloc(4), Buffer.from([1, 0x61]), bytes]);
  table.writeUInt32BE(table.length - 4, 0);
  t.throws(() => readTable(new Reader(table)), { instanceOf: ProtocolError, message: /nested/ });
});

test('any bytes are a value or a ProtocolError', (t) => {
  const attempt = (read: () => unknown): void => {
    try {
      read();
    } catch (error) {
      t.true(error instanceof ProtocolError);
    }
  };
  fc.assert(
    fc.property(fc.nat(golden.length - 1), fc.uint8Array({ maxLength: 6 }), fc.nat(1000), (index, noise, at) => {
      const bytes = Buffer.from(golden[index].bytes);
      bytes.set(noise.subarray(0, Math.max(0, bytes.length - (at % bytes.length))), at % bytes.length);
      attempt(() => methodOf(bytes));
      attempt(() => readProperties(new Reader(bytes)));
      attempt(() => readContentHeader(new Reader(bytes)));
      attempt(() => methodOf(bytes.subarray(0, at % bytes.length)));
    }),
    { numRuns: 2000 },
  );
});

test('a stream of frames may be cut anywhere', (t) => {
  const frames = [
    methodFrame(1, { method: 'basic.publish', exchange: 'e', routingKey: 'k' }),
    contentHeaderFrame(1, 10_000, writeProperties({ deliveryMode: 2 })),
    ...bodyFrames(1, Buffer.alloc(10_000, 7), 4096),
    HEARTBEAT,
    methodFrame(65_535, { method: 'tx.commit' }),
  ];
  const stream = Buffer.concat([PROTOCOL_HEADER, ...frames]);
  fc.assert(
    fc.property(fc.array(fc.integer({ min: 1, max: 5000 }), { minLength: 1, maxLength: 50 }), (sizes) => {
      const reader = new FrameReader(4096);
      const seen: [number, number, number][] = [];
      const body: Buffer[] = [];
      let isStarted = false;
      for (let at = 0, index = 0; at < stream.length; index++) {
        // Copied, and spoiled after use: what the reader keeps must be its own.
        const chunk = Buffer.from(stream.subarray(at, at + sizes[index % sizes.length]));
        at += chunk.length;
        reader.push(chunk);
        isStarted ||= reader.protocolHeader() === true;
        while (isStarted && reader.next()) {
          seen.push([reader.type, reader.channel, reader.payload.length]);
          if (reader.type === FRAME_BODY) body.push(Buffer.from(reader.payload));
        }
        chunk.fill(0);
      }
      t.deepEqual(seen, [
        [FRAME_METHOD, 1, frames[0].length - 8],
        [FRAME_HEADER, 1, frames[1].length - 8],
        [FRAME_BODY, 1, 4088],
        [FRAME_BODY, 1, 4088],
        [FRAME_BODY, 1, 10_000 - 2 * 4088],
        [8, 0, 0],
        [FRAME_METHOD, 65_535, 4],
      ]);
      t.true(Buffer.concat(body).equals(Buffer.alloc(10_000, 7)));
    }),
    { numRuns: 300 },
  );
});

test('another protocol header, a frame too large and a wrong end are refused', (t) => {
  const other = new FrameReader(4096);
  other.push(Buffer.from('GET / HT'));
  t.false(other.protocolHeader());
  const partly = new FrameReader(4096);
  partly.push(PROTOCOL_HEADER.subarray(0, 3));
  t.is(partly.protocolHeader(), undefined);
  partly.push(PROTOCOL_HEADER.subarray(3));
  t.true(partly.protocolHeader());
  const large = new FrameReader(4096);
  large.push(Buffer.from([1, 0, 0, 0, 0, 0x10, 0x00]));
  t.throws(() => large.next(), { instanceOf: ProtocolError, message: /4096/ });
  const bent = new FrameReader(4096);
  bent.push(Buffer.concat([HEARTBEAT.subarray(0, 7), Buffer.from([0])]));
  t.throws(() => bent.next(), { instanceOf: ProtocolError, message: /ends with octet 0/ });
});

test('a frame that drips in byte by byte is copied a few times, not once a byte', (t) => {
  const reader = new FrameReader(0);
  const [frame] = bodyFrames(1, Buffer.alloc(200_000, 1), 0);
  for (let at = 0; at < frame.length - 1; at++) {
    reader.push(frame.subarray(at, at + 1));
    t.false(reader.next());
  }
  reader.push(frame.subarray(frame.length - 1));
  t.true(reader.next());
  t.is(reader.payload.length, 200_000);
  t.true(reader.heldBytes <= 2 * frame.length + 2048);
});

test('text is cut to a short string between characters', (t) => {
  t.is(clippedToShortString('é'.repeat(200)), 'é'.repeat(127));
  t.is(clippedToShortString('short'), 'short');
});
