import test from 'ava';
import fc from 'fast-check';
import { Reader, type Splice, Writer, asBuffer, readInt64, writeInt64 } from '../../protocol/bytes.ts';
import { ProtocolError } from '../../protocol/errors.ts';

function written(write: (writer: Writer) => void): Buffer {
  const writer = new Writer();
  write(writer);
  return writer.finish();
}

const refused = { instanceOf: ProtocolError };
const safeInteger = fc.oneof(
  fc.maxSafeInteger(),
  fc.constantFrom(
    0,
    -1,
    1,
    63,
    64,
    -64,
    -65,
    2 ** 31,
    -(2 ** 31),
    -(2 ** 31) - 1,
    2 ** 32 - 1,
    2 ** 32,
    -(2 ** 32),
    -(2 ** 32) - 1,
  ),
  fc.constantFrom(Number.MAX_SAFE_INTEGER, Number.MIN_SAFE_INTEGER, 2 ** 52, -(2 ** 52), 2 ** 34, 2 ** 35 - 1),
);
const int32 = fc.oneof(fc.integer(), fc.constantFrom(-(2 ** 31), 2 ** 31 - 1, 0, -1, 63, 64, -64, -65));

/** Zigzag varint by the definition, with 64-bit arithmetic. */
function zigzag64(value: number): Buffer {
  const wide = BigInt(value);
  let rest = BigInt.asUintN(64, (wide << 1n) ^ (wide >> 63n));
  const bytes: number[] = [];
  for (; rest >= 0x80n; rest >>= 7n) bytes.push(Number(rest & 0x7fn) | 0x80);
  return Buffer.from([...bytes, Number(rest)]);
}

test('int64 is written and read as two’s complement, within 2^53', (t) => {
  fc.assert(
    fc.property(safeInteger, (value) => {
      const bytes = Buffer.alloc(8);
      writeInt64(bytes, 0, value);
      t.is(bytes.readBigInt64BE(0), BigInt(value));
      t.is(readInt64(bytes, 0), value);
      t.deepEqual(
        written((writer) => writer.int64(value)),
        bytes,
      );
      t.is(new Reader(bytes).int64(), value);
      t.is(new Reader(bytes).int64Clipped(), value);
    }),
  );
});

test('int64 beyond 2^53 is refused, or clipped where asked for', (t) => {
  const max = Number.MAX_SAFE_INTEGER;
  for (const value of [2n ** 53n, 2n ** 53n + 1n, 2n ** 63n - 1n, -(2n ** 53n), -(2n ** 53n) - 1n, -(2n ** 63n)]) {
    const bytes = Buffer.alloc(8);
    bytes.writeBigInt64BE(value);
    t.throws(() => new Reader(bytes).int64(), refused);
    t.is(new Reader(bytes).int64Clipped(), value > 0n ? max : -max);
  }
});

test('varlong is the zigzag varint of 64 bits, within 2^53', (t) => {
  fc.assert(
    fc.property(safeInteger, (value) => {
      const bytes = written((writer) => writer.varlong(value));
      t.deepEqual(bytes, zigzag64(value));
      const reader = new Reader(bytes);
      t.is(reader.varlong(), value);
      t.is(reader.remaining, 0);
    }),
  );
  for (const value of [2n ** 53n, 2n ** 63n - 1n, -(2n ** 53n), -(2n ** 63n)]) {
    let rest = BigInt.asUintN(64, (value << 1n) ^ (value >> 63n));
    const bytes: number[] = [];
    for (; rest >= 0x80n; rest >>= 7n) bytes.push(Number(rest & 0x7fn) | 0x80);
    t.throws(() => new Reader(Buffer.from([...bytes, Number(rest)])).varlong(), refused);
  }
  t.throws(() => new Reader(Buffer.alloc(11, 0x80)).varlong(), refused);
  t.throws(() => new Reader(Buffer.alloc(3, 0x80)).varlong(), refused);
});

test('varint is the zigzag varint of 32 bits', (t) => {
  fc.assert(
    fc.property(int32, (value) => {
      const bytes = written((writer) => writer.varint(value));
      t.deepEqual(bytes, zigzag64(value));
      t.is(new Reader(bytes).varint(), value);
    }),
  );
});

test('an unsigned varint has at most 32 bits in five bytes', (t) => {
  for (const value of [0, 1, 127, 128, 16383, 16384, 2 ** 21, 2 ** 28 - 1, 2 ** 28, 2 ** 31, 2 ** 32 - 1]) {
    const bytes = written((writer) => writer.uvarint(value));
    t.is(bytes.length, value === 0 ? 1 : Math.ceil((Math.floor(Math.log2(value)) + 1) / 7));
    t.is(new Reader(bytes).uvarint(), value);
  }
  t.is(new Reader(Buffer.from('8000', 'hex')).uvarint(), 0);
  t.throws(() => new Reader(Buffer.from('ffffffff10', 'hex')).uvarint(), refused);
  t.throws(() => new Reader(Buffer.from('808080808000', 'hex')).uvarint(), refused);
  t.throws(() => new Reader(Buffer.from('80', 'hex')).uvarint(), refused);
});

test('numbers of every size are read back, at the ends of their ranges too', (t) => {
  const bytes = written((writer) => {
    for (const value of [true, false]) writer.bool(value);
    for (const value of [-128, 127]) writer.int8(value);
    writer.uint8(255);
    for (const value of [-32768, 32767]) writer.int16(value);
    writer.uint16(65535);
    for (const value of [-(2 ** 31), 2 ** 31 - 1]) writer.int32(value);
    writer.uint32(2 ** 32 - 1);
    writer.float64(-0.1);
  });
  const reader = new Reader(bytes);
  t.deepEqual([reader.bool(), reader.bool()], [true, false]);
  t.deepEqual([reader.int8(), reader.int8(), reader.uint8()], [-128, 127, 255]);
  t.deepEqual([reader.int16(), reader.int16(), reader.uint16()], [-32768, 32767, 65535]);
  t.deepEqual([reader.int32(), reader.int32(), reader.uint32()], [-(2 ** 31), 2 ** 31 - 1, 2 ** 32 - 1]);
  t.is(reader.float64(), -0.1);
  t.is(reader.remaining, 0);
  t.throws(() => reader.uint8(), refused);
  t.throws(() => written((writer) => writer.int8(128)), { instanceOf: RangeError });
  t.throws(() => written((writer) => writer.int32(2 ** 31)), { instanceOf: RangeError });
});

test('strings and byte arrays are read back, null apart from empty', (t) => {
  const text = fc.option(fc.string({ unit: 'grapheme', maxLength: 300 }), { nil: null });
  const bytes = fc.option(fc.uint8Array({ maxLength: 3000 }), { nil: null });
  fc.assert(
    fc.property(text, bytes, (string, array) => {
      const reader = new Reader(
        written((writer) => {
          writer.nullableString(string);
          writer.compactNullableString(string);
          writer.nullableByteArray(array);
          writer.compactNullableByteArray(array);
          writer.string(string ?? '');
          writer.compactString(string ?? '');
          writer.byteArray(array ?? Buffer.alloc(0));
          writer.compactByteArray(array ?? Buffer.alloc(0));
        }),
      );
      const expected = array && asBuffer(array);
      t.is(reader.nullableString(), string);
      t.is(reader.compactNullableString(), string);
      t.deepEqual(reader.nullableByteArray(), expected);
      t.deepEqual(reader.compactNullableByteArray(), expected);
      t.is(reader.string(), string ?? '');
      t.is(reader.compactString(), string ?? '');
      t.deepEqual(reader.byteArray(), expected ?? Buffer.alloc(0));
      t.deepEqual(reader.compactByteArray(), expected ?? Buffer.alloc(0));
      t.is(reader.remaining, 0);
    }),
  );
});

test('null and sizes beyond the end are refused where a value is required', (t) => {
  const read = (hex: string) => new Reader(Buffer.from(hex, 'hex'));
  t.throws(() => read('ffff').string(), refused);
  t.throws(() => read('00').compactString(), refused);
  t.throws(() => read('ffffffff').byteArray(), refused);
  t.throws(() => read('00').compactByteArray(), refused);
  t.throws(() => read('000161').view(4), refused);
  t.throws(() => read('000261').nullableString(), refused);
  t.throws(() => read('7fffffff00').nullableByteArray(), refused);
  t.throws(() => read('ffffffff0f00').compactNullableByteArray(), refused);
  t.throws(() => new Reader(Buffer.alloc(8), 0, 3).int32(), refused);
  t.throws(() => new Reader(Buffer.alloc(8)).skip(-1), refused);
});

test('a string has at most 32767 bytes, whatever its length prefix could say', (t) => {
  const longest = 'ä'.repeat(16383) + 'x';
  t.is(new Reader(written((writer) => writer.string(longest))).string(), longest);
  t.is(new Reader(written((writer) => writer.compactString(longest))).compactString(), longest);
  t.throws(() => written((writer) => writer.string(`${longest}x`)), { instanceOf: RangeError });
  t.throws(() => written((writer) => writer.compactString(`${longest}x`)), { instanceOf: RangeError });
  t.throws(
    () => new Reader(Buffer.concat([Buffer.from('818002', 'hex'), Buffer.alloc(32768)])).compactString(),
    refused,
  );
});

test('an array may not claim more elements than there are bytes, nor a message more than its limit', (t) => {
  const read = (hex: string) => new Reader(Buffer.from(hex, 'hex'));
  t.is(read('ffffffff').arrayLength(), -1);
  t.is(read('00').compactArrayLength(), -1);
  t.is(read('000000020102').arrayLength(), 2);
  t.is(read('030102').compactArrayLength(), 2);
  t.throws(() => read('000000030102').arrayLength(), refused);
  t.throws(() => read('ffffffff0f0102').compactArrayLength(), refused);
  const reader = read('00000002000000020102');
  reader.elementsLeft = 3;
  t.is(reader.arrayLength(), 2);
  t.throws(() => reader.arrayLength(), refused);
});

test('a UUID is lower-case text with hyphens', (t) => {
  const uuid = '00112233-4455-6677-8899-aabbccddeeff';
  const bytes = written((writer) => writer.uuid(uuid.toUpperCase()));
  t.is(bytes.toString('hex'), '00112233445566778899aabbccddeeff');
  t.is(new Reader(bytes).uuid(), uuid);
  for (const wrong of ['', 'x', uuid.slice(1), `${uuid}0`, uuid.replace('f', 'g')]) {
    t.throws(() => written((writer) => writer.uuid(wrong)), { instanceOf: RangeError });
  }
});

test('what is written comes out in order, large arrays by reference', (t) => {
  const part = fc.oneof(
    fc.uint8Array({ maxLength: 50 }),
    fc.integer({ min: 1000, max: 1100 }).map((size) => Buffer.alloc(size, size)),
  );
  fc.assert(
    fc.property(fc.array(part), fc.array(part), (first, second) => {
      const writer = new Writer(16);
      for (const parts of [first, second]) {
        for (const bytes of parts) {
          writer.uint8(0xaa);
          writer.raw(bytes);
        }
        const expected = Buffer.concat(parts.flatMap((bytes) => [Buffer.from([0xaa]), bytes]));
        t.is(writer.length, expected.length);
        const chunks = writer.chunks();
        t.is(writer.length, 0);
        for (const bytes of parts) t.is(chunks.includes(bytes), bytes.length >= 1024);
        t.deepEqual(Buffer.concat(chunks as Uint8Array[]), expected);
      }
    }),
  );
});

test('a splice counts in the length and is handed on; bytes in one piece cannot hold it', (t) => {
  const splice: Splice = { isSplice: true, length: 10 };
  const writer = new Writer();
  writer.int16(1);
  writer.nullableByteArray(splice);
  writer.int16(2);
  t.is(writer.length, 18);
  const chunks = writer.chunks();
  t.deepEqual(
    chunks.map((chunk) => chunk.length),
    [6, 10, 2],
  );
  t.is(chunks[1], splice);
  writer.raw(splice);
  t.throws(() => writer.finish(), { instanceOf: TypeError });
});

test('any bytes read as any type give a value or are refused', (t) => {
  const names = [
    'bool',
    'int64',
    'uvarint',
    'varint',
    'varlong',
    'uuid',
    'string',
    'nullableString',
    'compactString',
  ] as const;
  const more = [
    'byteArray',
    'compactNullableByteArray',
    'arrayLength',
    'compactArrayLength',
    'float64',
    'uint32',
  ] as const;
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 40 }), fc.array(fc.constantFrom(...names, ...more)), (bytes, types) => {
      const reader = new Reader(bytes);
      try {
        for (const type of types) reader[type]();
      } catch (error) {
        if (!(error instanceof ProtocolError)) throw error;
      }
      t.true(reader.offset <= reader.end);
    }),
    { numRuns: 500 },
  );
});
