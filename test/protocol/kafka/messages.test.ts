import { readFileSync } from 'node:fs';
import test from 'ava';
import { Reader, type Splice, Writer } from '../../../protocol/bytes.ts';
import { ProtocolError } from '../../../protocol/errors.ts';
import { apiByKey, apis } from '../../../protocol/kafka/apis.ts';
import { generateApis, generateMessages } from '../../../protocol/kafka/generate.ts';
import {
  readFetchResponse,
  readMetadataRequest,
  readProduceRequest,
  writeFetchRequest,
  writeFetchResponse,
  writeMetadataRequest,
  writeProduceRequest,
} from '../../../protocol/kafka/messages.ts';
import { codec, readDefinitions, readVectors, withoutOwnFields } from './vectors.ts';

const definitions = readDefinitions();
const vectors = readVectors();

test('the committed messages and API table are what the definitions generate', (t) => {
  t.true(readFileSync('protocol/kafka/messages.ts', 'utf8') === generateMessages(definitions), 'messages.ts is stale');
  t.true(readFileSync('protocol/kafka/apis.ts', 'utf8') === generateApis(definitions), 'apis.ts is stale');
});

test('there are golden vectors for every version of every message', (t) => {
  const seen = new Set(vectors.map(({ name, version }) => `${name} ${version}`));
  for (const { name, versions } of definitions.messages) {
    for (let version = versions.first; version <= versions.last; version++) {
      t.true(seen.delete(`${name} ${version}`), `${name} ${version}`);
    }
  }
  t.deepEqual([...seen], []);
});

for (const name of new Set(vectors.map((vector) => vector.name))) {
  test(`${name} reads what Kafka wrote as Kafka reads it, and writes the same bytes`, (t) => {
    const { read, write } = codec(name);
    const fields = definitions.messages.find((message) => message.name === name)?.fields ?? [];
    for (const { version, bytes, value } of vectors.filter((vector) => vector.name === name)) {
      const reader = new Reader(bytes);
      const found = read(reader, version);
      t.deepEqual(withoutOwnFields(found, fields), value, `version ${version}`);
      t.is(reader.remaining, 0, `version ${version}`);
      const writer = new Writer();
      write(writer, found, version);
      t.deepEqual(writer.finish(), bytes, `version ${version}`);
    }
  });

  test(`${name} cut short is refused at every length`, (t) => {
    const { read } = codec(name);
    for (const { version, bytes } of vectors.filter((vector) => vector.name === name)) {
      let refused = 0;
      for (let length = 0; length < bytes.length; length++) {
        try {
          read(new Reader(bytes, 0, length), version);
        } catch (error) {
          if (error instanceof ProtocolError) refused += 1;
          else throw error;
        }
      }
      t.is(refused, bytes.length, `version ${version}`);
    }
  });
}

test('an API is found by its key, and unstable versions are not offered', (t) => {
  for (const api of Object.values(apis)) t.is(apiByKey(api.key), api);
  t.is(apiByKey(-1), undefined);
  t.is(apiByKey(9999), undefined);
  t.is(apis.Produce.minVersion, 3);
  t.is(apis.Produce.maxVersion, 13);
  t.is(apis.InitProducerId.maxVersion, 5);
});

test('versions that a message does not have are refused', (t) => {
  t.throws(() => readMetadataRequest(new Reader(Buffer.alloc(64)), 14), {
    instanceOf: ProtocolError,
    message: /MetadataRequest has no version 14/,
  });
  t.throws(() => readProduceRequest(new Reader(Buffer.alloc(64)), 2), { instanceOf: ProtocolError });
  t.throws(() => readProduceRequest(new Reader(Buffer.alloc(64)), Number.NaN), { instanceOf: ProtocolError });
  t.throws(() => writeMetadataRequest(new Writer(), { topics: null }, -1), { instanceOf: RangeError });
});

test('a value that the version cannot say is refused, unless it may be ignored', (t) => {
  const fetch = { maxWaitMs: 1, minBytes: 1, topics: [] };
  t.throws(() => writeFetchRequest(new Writer(), { ...fetch, replicaId: 3 }, 15), {
    instanceOf: RangeError,
    message: 'FetchRequest.replicaId has a value, but version 15 does not have the field',
  });
  t.throws(() => writeFetchRequest(new Writer(), { ...fetch, replicaState: { replicaId: 1 } }, 14), {
    instanceOf: RangeError,
  });
  t.throws(() => writeMetadataRequest(new Writer(), { topics: null }, 0), {
    message: 'MetadataRequest.topics must not be null in version 0',
  });
  t.notThrows(() => writeFetchRequest(new Writer(), { ...fetch, replicaId: -1, rackId: 'r', sessionEpoch: 7 }, 4));
  t.notThrows(() => writeFetchRequest(new Writer(), { ...fetch, replicaState: { replicaId: -1 } }, 4));
});

test('null where a version does not allow it is refused when read', (t) => {
  t.throws(() => readMetadataRequest(new Reader(Buffer.from('ffffffff', 'hex')), 0), {
    instanceOf: ProtocolError,
    message: /null before byte 4/,
  });
  t.is(readMetadataRequest(new Reader(Buffer.from('ffffffff', 'hex')), 1).topics, null);
});

test('unknown tagged fields are skipped, and known ones must have the size they claim', (t) => {
  // Metadata 9 without topics: null array, three booleans; then the tagged fields.
  const start = '00010000';
  const read = (tags: string) => readMetadataRequest(new Reader(Buffer.from(start + tags, 'hex')), 9);
  t.is(read('00').topics, null);
  t.is(read('020503aabbcc7f00').allowAutoTopicCreation, true);
  t.throws(() => read('010504aabbcc'), { instanceOf: ProtocolError });
  t.throws(() => read('ffffffff0f'), { instanceOf: ProtocolError });

  const writer = new Writer();
  writeFetchRequest(writer, { clusterId: 'abc', maxWaitMs: 1, minBytes: 1, topics: [] }, 12);
  const bytes = writer.finish();
  const at = bytes.indexOf('abc') - 2;
  t.is(bytes[at], 4, 'the size of the tagged cluster id');
  for (const size of [3, 5, 120]) {
    bytes[at] = size;
    t.throws(() => codec('FetchRequest').read(new Reader(bytes), 12), { instanceOf: ProtocolError });
  }
});

test('the tagged fields of our own pass through, and Kafka skips them', (t) => {
  const batch = { firstOffset: 3, lastOffset: 4, acknowledgeTypes: [2], releaseDelayMs: 1500, rejectReason: 'bad' };
  const topicId = '00000000-0000-0000-0000-000000000000';
  const partitions = [{ partitionIndex: 0, acknowledgementBatches: [batch] }];
  const request = { groupId: 'g', memberId: 'm', shareSessionEpoch: 1, topics: [{ topicId, partitions }] };
  const writer = new Writer();
  codec('ShareAcknowledgeRequest').write(writer, request, 1);
  const bytes = writer.finish();
  const found = codec('ShareAcknowledgeRequest').read(new Reader(bytes), 1) as typeof request;
  t.deepEqual(found.topics[0].partitions[0].acknowledgementBatches, [batch]);
  // Two tags (10000 as a varint: 90 4e) after the acknowledge types.
  t.true(bytes.includes(Buffer.from('02904e0800000000000005dc914e04', 'hex')));

  const command = { groupId: '', topics: [], queueCommand: Buffer.from('{"list":{}}') };
  codec('AlterShareGroupOffsetsRequest').write(writer, command, 0);
  t.deepEqual(codec('AlterShareGroupOffsetsRequest').read(new Reader(writer.finish()), 0), command);
});

test('records are views when read, and taken by reference or spliced in when written', (t) => {
  const records = Buffer.alloc(5000, 7);
  const produce = { acks: -1, timeoutMs: 1000, topicData: [{ name: 't', partitionData: [{ index: 0, records }] }] };
  const writer = new Writer();
  writeProduceRequest(writer, produce, 9);
  const chunks = writer.chunks();
  t.true(chunks.includes(records));
  const frame = Buffer.concat(chunks as Buffer[]);
  const found = readProduceRequest(new Reader(frame), 9).topicData[0].partitionData[0].records;
  t.deepEqual(found, records);
  t.is(found?.buffer, frame.buffer);

  const splice: Splice = { isSplice: true, length: 1 << 20 };
  const partition = { partitionIndex: 0, errorCode: 0, highWatermark: 9, abortedTransactions: null, records: splice };
  writeFetchResponse(writer, { responses: [{ topic: 't', partitions: [partition] }] }, 12);
  const total = writer.length;
  const pieces = writer.chunks();
  t.is(pieces.length, 3);
  t.is(pieces[1], splice);
  t.is(
    pieces.reduce((sum, { length }) => sum + length, 0),
    total,
  );
  const bytes = Buffer.concat(
    pieces.map((piece) => (piece instanceof Uint8Array ? piece : Buffer.alloc(piece.length))),
  );
  t.is(readFetchResponse(new Reader(bytes), 12).responses[0].partitions[0].records?.length, 1 << 20);
});

test('int64 beyond 2^53 is clipped where it means beyond everything, else refused', (t) => {
  const vector = (name: string, version: number) => vectors.find((one) => one.name === name && one.version === version);
  const request = vector('DeleteRecordsRequest', 0);
  if (!request) return t.fail();
  const { topics } = request.value as { topics: { partitions: { offset: number }[] }[] };
  const offset = Buffer.alloc(8);
  offset.writeBigInt64BE(BigInt(topics[0].partitions[0].offset));
  const bytes = Buffer.from(request.bytes);
  bytes.writeBigInt64BE(2n ** 63n - 1n, bytes.indexOf(offset));
  const clipped = codec('DeleteRecordsRequest').read(new Reader(bytes), 0) as typeof request.value;
  t.is((clipped as { topics: typeof topics }).topics[0].partitions[0].offset, Number.MAX_SAFE_INTEGER);

  const commit = Buffer.alloc(64);
  commit.writeBigInt64BE(2n ** 53n, 0);
  t.throws(() => codec('OffsetCommitValue').read(new Reader(commit), 0), {
    instanceOf: ProtocolError,
    message: /beyond 2\^53/,
  });
});
