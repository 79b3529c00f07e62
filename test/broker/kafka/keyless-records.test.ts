import test from 'ava';
import { buildBatch } from '../../../protocol/record-batch.ts';
import { openMemoryBroker } from '../../support/memory-broker.ts';
import { frameOf } from '../../support/raw-client.ts';

const record = (key: string | null) => ({
  key: key === null ? null : Buffer.from(key),
  value: Buffer.from('v'),
  timestamp: 1000,
});

test('records without a key are refused where a topic is compacted, as Apache Kafka 4.4 refuses them', async (t) => {
  const { broker, clock, connect } = await openMemoryBroker();
  broker.topics.create({ name: 'c', partitionCount: 1, overrides: new Map([['cleanup.policy', 'compact']]) });
  broker.topics.create({ name: 'd', partitionCount: 1, overrides: new Map() });
  const client = connect();
  const produce = async (topic: string, keys: readonly (string | null)[], codec: 'none' | 'gzip', version = 9) => {
    const records = buildBatch(keys.map(record), { compression: codec });
    const data = { name: topic, partitionData: [{ index: 0, records }] };
    client.send(frameOf('Produce', version, { acks: -1, timeoutMs: 1000, topicData: [data] }, 1));
    await clock.advance(1);
    return client.answer(client.frames.length - 1, 'Produce', version).responses[0].partitionResponses[0];
  };
  for (const codec of ['none', 'gzip'] as const) {
    const { errorCode, baseOffset, logStartOffset, recordErrors, errorMessage } = await produce(
      'c',
      ['a', null, 'b', null, null, null, null],
      codec,
    );
    t.deepEqual([errorCode, baseOffset, logStartOffset], [87, -1, 0]);
    const text = 'Compacted topic cannot accept message without key in topic partition c-0';
    t.deepEqual(
      recordErrors.map(({ batchIndex, batchIndexErrorMessage }) => [batchIndex, batchIndexErrorMessage]),
      [1, 3, 4, 5, 6].map((index) => [index, text]),
    );
    t.is(
      errorMessage,
      `One or more records have been rejected due to 5 record errors in total, and only showing the first three errors at most: [RecordError(batchIndex=1, message='${text}'), RecordError(batchIndex=3, message='${text}'), RecordError(batchIndex=4, message='${text}')]`,
    );
  }
  t.is((await produce('c', [null], 'none', 7)).errorCode, 87);
  t.is(broker.topics.get('c')?.partitions[0].endOffset, 0);
  // An empty key is one.
  t.is((await produce('c', ['', 'a'], 'gzip')).errorCode, 0);
  t.is((await produce('d', [null], 'none')).errorCode, 0);
});
