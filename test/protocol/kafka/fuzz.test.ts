/** Any bytes give a value or a `ProtocolError`, for every message in every version, in bounded time and memory. */
import test from 'ava';
import fc from 'fast-check';
import { Reader, Writer } from '../../../protocol/bytes.ts';
import { ProtocolError } from '../../../protocol/errors.ts';
import { FrameReader, readRequestHeader } from '../../../protocol/kafka/frame.ts';
import { codec, readDefinitions, readVectors } from './vectors.ts';

const definitions = readDefinitions();
const vectors = readVectors();

/** The value, or undefined if the bytes were refused as they should be. */
function readOrRefuse(name: string, bytes: Uint8Array, version: number): unknown {
  try {
    return codec(name).read(new Reader(bytes), version);
  } catch (error) {
    if (error instanceof ProtocolError) return undefined;
    throw error;
  }
}

/** Mostly zeros, small numbers and ends of ranges: random bytes alone seldom get past the first length. */
const hostileBytes = fc
  .array(
    fc.oneof(
      { weight: 3, arbitrary: fc.constantFrom('00', '01', '02', '7f', 'ff', '80', '0000', 'ffff', '7fff', '00000000') },
      {
        weight: 2,
        arbitrary: fc.constantFrom('00000001', '00000003', 'ffffffff', '7fffffff', '80000000', 'ffffffff0f'),
      },
      { weight: 1, arbitrary: fc.constantFrom('ffffffffffffffffff01', '8080808008', '80808080808000', '0002c3a9') },
      { weight: 1, arbitrary: fc.uint8Array({ maxLength: 9 }).map((bytes) => Buffer.from(bytes).toString('hex')) },
    ),
    { maxLength: 60 },
  )
  .map((parts) => Buffer.from(parts.join(''), 'hex'));

test('hostile bytes give a value that can be written again, or are refused', (t) => {
  for (const { name, versions } of definitions.messages) {
    for (let version = versions.first; version <= versions.last; version++) {
      fc.assert(
        fc.property(hostileBytes, (bytes) => {
          const value = readOrRefuse(name, bytes, version);
          if (value === undefined) return;
          const writer = new Writer();
          codec(name).write(writer, value, version);
          const again = codec(name).read(new Reader(writer.finish()), version);
          t.deepEqual(again, value);
        }),
        { numRuns: 40 },
      );
    }
  }
  t.pass();
});

test('valid messages with changed, missing or added bytes give a value, or are refused', (t) => {
  const change = fc.record({
    at: fc.nat(),
    with: fc.constantFrom('', '00', '7f', 'ff', '80', 'ffffffff', '7fffffff', 'ffffffff07', '0000000000000000'),
    isInsert: fc.boolean(),
  });
  for (const { name, version, bytes } of vectors) {
    fc.assert(
      fc.property(fc.array(change, { minLength: 1, maxLength: 3 }), (changes) => {
        let changed: Buffer = bytes;
        for (const { at, with: hex, isInsert } of changes) {
          const inserted = Buffer.from(hex, 'hex');
          const start = at % (changed.length + 1);
          const end = isInsert ? start : start + inserted.length;
          changed = Buffer.concat([changed.subarray(0, start), inserted, changed.subarray(end)]);
        }
        readOrRefuse(name, changed, version);
      }),
      { numRuns: 40 },
    );
  }
  t.pass();
});

test('a count of as many elements as there are bytes costs no more than the limit of elements', (t) => {
  // An array of empty structures or strings, each one or two bytes, is the most that few bytes can ask for.
  const body = Buffer.alloc(16 * 1024 * 1024);
  for (const lead of ['', '00', '0000', '000000000000', '000000000000000000000000']) {
    for (const count of ['00ffffff', '8080800701']) {
      const bytes = Buffer.concat([Buffer.from(lead + count, 'hex'), body]);
      for (const { name, versions } of definitions.messages) {
        const before = process.memoryUsage().heapUsed;
        readOrRefuse(name, bytes, versions.last);
        const grownBytes = process.memoryUsage().heapUsed - before;
        t.true(grownBytes < 100e6, `${name}: ${grownBytes} bytes`);
      }
    }
  }
});

test('any chunks give frames with headers, or are refused', (t) => {
  fc.assert(
    fc.property(fc.array(hostileBytes, { maxLength: 8 }), (chunks) => {
      const frames = new FrameReader(1000);
      try {
        for (const chunk of chunks) {
          frames.push(chunk);
          for (let frame = frames.next(); frame !== undefined; frame = frames.next())
            readRequestHeader(new Reader(frame));
        }
      } catch (error) {
        if (!(error instanceof ProtocolError)) throw error;
      }
      t.true(frames.heldBytes <= 5000);
    }),
    { numRuns: 500 },
  );
});
