import test from 'ava';
import fc from 'fast-check';
import { type Chunks, Reader, type Splice } from '../../../protocol/bytes.ts';
import { ProtocolError } from '../../../protocol/errors.ts';
import { apis } from '../../../protocol/kafka/apis.ts';
import {
  FrameReader,
  readRequestHeader,
  readResponseHeader,
  requestFrame,
  requestHeaderVersion,
  responseFrame,
  unsupportedApiVersions,
} from '../../../protocol/kafka/frame.ts';

function join(chunks: Chunks): Buffer {
  return Buffer.concat(chunks.map((chunk) => (chunk instanceof Uint8Array ? chunk : Buffer.alloc(chunk.length))));
}

function framed(...bodies: readonly Uint8Array[]): Buffer {
  return Buffer.concat(
    bodies.flatMap((body) => {
      const length = Buffer.alloc(4);
      length.writeInt32BE(body.length);
      return [length, body];
    }),
  );
}

test('a request of every API and version is read back with its header', (t) => {
  for (const api of Object.values(apis)) {
    for (let version = api.minVersion; version <= api.maxVersion; version++) {
      const bytes = join(
        requestFrame(
          { ...api, writeRequest: (writer) => writer.int32(77) },
          version,
          { correlationId: -5, clientId: 'ä' },
          null,
        ),
      );
      t.is(bytes.readInt32BE(0), bytes.length - 4);
      const reader = new Reader(bytes, 4);
      const header = readRequestHeader(reader);
      t.deepEqual(header, { requestApiKey: api.key, requestApiVersion: version, correlationId: -5, clientId: 'ä' });
      t.is(reader.int32(), 77);
      t.is(reader.remaining, 0);
    }
  }
});

test('a response of every API and version is read back with its header', (t) => {
  for (const api of Object.values(apis)) {
    for (let version = api.minVersion; version <= api.maxVersion; version++) {
      const bytes = join(responseFrame({ ...api, writeResponse: (writer) => writer.int32(77) }, version, 9, null));
      t.is(bytes.readInt32BE(0), bytes.length - 4);
      const reader = new Reader(bytes, 4);
      t.is(readResponseHeader(reader, api, version), 9);
      t.is(reader.int32(), 77);
      t.is(reader.remaining, 0);
    }
  }
});

test('headers are the bytes that the protocol asks for', (t) => {
  const request = { groupId: 'g', generationId: 1, memberId: 'm' };
  const header = { correlationId: 7, clientId: null };
  const hex = (chunks: Chunks): string => join(chunks).toString('hex');
  // Length, key, version, correlation id, client id, [tags]; group, generation, member, instance, [tags].
  const plain = ['00000016', '000c', '0003', '00000007', 'ffff', '000167', '00000001', '00016d', 'ffff'];
  const flexible = ['00000015', '000c', '0004', '00000007', 'ffff', '00', '0267', '00000001', '026d', '00', '00'];
  t.is(hex(requestFrame(apis.Heartbeat, 3, header, request)), plain.join(''));
  t.is(hex(requestFrame(apis.Heartbeat, 4, header, request)), flexible.join(''));
  // Length, correlation id, [tags]; throttle time, error, [tags].
  const plainAnswer = ['0000000a', '00000007', '00000000', '0000'];
  const flexibleAnswer = ['0000000c', '00000007', '00', '00000000', '0000', '00'];
  t.is(hex(responseFrame(apis.Heartbeat, 3, 7, { errorCode: 0 })), plainAnswer.join(''));
  t.is(hex(responseFrame(apis.Heartbeat, 4, 7, { errorCode: 0 })), flexibleAnswer.join(''));
});

test('ApiVersions has no tagged fields in its response header, and an unknown version is answered in version 0', (t) => {
  const served = { errorCode: 0, apiKeys: [] };
  t.is(
    join(responseFrame(apis.ApiVersions, 3, 7, served)).toString('hex'),
    '0000000c' + '00000007' + '0000' + '01' + '00000000' + '00',
  );
  const answer = responseFrame(apis.ApiVersions, 99, 7, unsupportedApiVersions(0, 5));
  t.is(join(answer).toString('hex'), '00000010' + '00000007' + '0023' + '00000001' + '0012' + '0000' + '0005');
});

test('the header of an API that is not known is read as version 1', (t) => {
  t.is(requestHeaderVersion(12345, 7), 1);
  t.is(requestHeaderVersion(apis.ApiVersions.key, 99), 2);
  const bytes = Buffer.from('3039' + '0007' + '00000001' + '000161', 'hex');
  t.is(readRequestHeader(new Reader(bytes)).clientId, 'a');
  t.throws(() => readRequestHeader(new Reader(bytes, 0, 3)), { instanceOf: ProtocolError });
  t.throws(() => readRequestHeader(new Reader(bytes, 0, 10)), { instanceOf: ProtocolError });
});

test('a splice counts in the length and stays in its place', (t) => {
  const records: Splice = { isSplice: true, length: 1_000_000 };
  const partition = { partitionIndex: 0, errorCode: 0, highWatermark: 0, abortedTransactions: null, records };
  const chunks = responseFrame(apis.Fetch, 18, 1, { responses: [{ partitions: [partition, partition] }] });
  t.is(chunks.filter((chunk) => chunk === records).length, 2);
  const bytes = join(chunks);
  t.is(bytes.readInt32BE(0), bytes.length - 4);
  t.true(bytes.length > 2_000_000);
});

test('frames come out whole however the stream is cut', (t) => {
  const bodies = fc.array(fc.uint8Array({ maxLength: 40 }), { maxLength: 8 });
  fc.assert(
    fc.property(
      bodies,
      fc.array(fc.nat({ max: 30 }), { minLength: 1 }),
      fc.array(fc.boolean(), { minLength: 1 }),
      (sent, cuts, keeps) => {
        const stream = framed(...sent);
        const frames = new FrameReader(40);
        const found: Buffer[] = [];
        for (let at = 0, turn = 0; at < stream.length; turn++) {
          const chunk = Buffer.from(stream.subarray(at, at + cuts[turn % cuts.length] + 1));
          at += chunk.length;
          frames.push(chunk);
          // Now and then only one frame is taken, the rest kept, and the chunk's memory reused.
          const isKept = keeps[turn % keeps.length];
          for (let frame = frames.next(); frame !== undefined; frame = isKept ? undefined : frames.next()) {
            found.push(Buffer.from(frame));
          }
          frames.keep();
          chunk.fill(0xee);
        }
        for (let frame = frames.next(); frame !== undefined; frame = frames.next()) found.push(Buffer.from(frame));
        t.deepEqual(
          found,
          sent.map((body) => Buffer.from(body)),
        );
      },
    ),
  );
});

test('a frame within one chunk is a view, one across chunks a copy', (t) => {
  const chunk = framed(Buffer.from('one'), Buffer.from('two'));
  const frames = new FrameReader(100);
  frames.push(chunk);
  t.is(frames.next()?.buffer, chunk.buffer);
  t.is(frames.next()?.toString(), 'two');
  t.is(frames.next(), undefined);
  frames.push(chunk.subarray(0, 5));
  t.is(frames.next(), undefined);
  const rest = Buffer.from(chunk.subarray(5, 7));
  frames.push(rest);
  const frame = frames.next();
  t.is(frame?.toString(), 'one');
  rest.fill(0);
  t.is(frame?.toString(), 'one');
});

test('a negative or too large length is refused', (t) => {
  for (const hex of ['ffffffff', '80000000', '00000065', '47455420']) {
    const whole = new FrameReader(100);
    whole.push(Buffer.from(hex, 'hex'));
    t.throws(() => whole.next(), { instanceOf: ProtocolError, message: /0 to 100 are allowed/ });
    const cut = new FrameReader(100);
    cut.push(Buffer.from(hex.slice(0, 2), 'hex'));
    t.is(cut.next(), undefined);
    cut.push(Buffer.from(hex.slice(2), 'hex'));
    t.throws(() => cut.next(), { instanceOf: ProtocolError });
  }
});

test('the memory held grows with what arrives, not with what the length claims', (t) => {
  const frames = new FrameReader(100_000_000);
  frames.push(Buffer.from('05f5e100', 'hex'));
  t.is(frames.next(), undefined);
  frames.keep();
  t.is(frames.heldBytes, 0);
  for (let arrivedBytes = 10_000; arrivedBytes <= 1_000_000; arrivedBytes += 10_000) {
    frames.push(Buffer.alloc(10_000));
    t.is(frames.next(), undefined);
    frames.keep();
    t.true(frames.heldBytes <= 4 * arrivedBytes);
  }
  frames.close();
  t.is(frames.heldBytes, 0);
});
