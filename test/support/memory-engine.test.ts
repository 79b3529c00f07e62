import test from 'ava';
import type { LogConfig } from '../../broker/engine.ts';
import { buildBatch } from '../../protocol/record-batch.ts';
import { MemoryEngine } from './memory-engine.ts';

const config: LogConfig = {
  segmentBytes: 1 << 30,
  segmentMs: 1,
  segmentIndexBytes: 1,
  indexIntervalBytes: 1,
  retentionMs: -1,
  retentionBytes: -1,
  fileDeleteDelayMs: 0,
  timestampType: 'CreateTime',
  timestampBeforeMaxMs: 1,
  timestampAfterMaxMs: 1,
  maxMessageBytes: 1 << 20,
};
const spec = { topicId: 'a', topic: 'a', index: 0, config };
const batch = (count: number): Buffer =>
  buildBatch(Array.from({ length: count }, (_, i) => ({ key: null, value: Buffer.from([i]), timestamp: i })));

test('nothing is readable or durable before a manual sync', (t) => {
  const engine = new MemoryEngine({ durability: 'manual' });
  const partition = engine.openPartition(spec);
  const { position, lastOffset } = partition.append(batch(3), { origin: 'client', urgency: 'waited' });
  let durable = 0;
  let above = 0;
  engine.whenDurable(position, () => durable++);
  partition.whenAbove(0, () => above++);
  t.is(lastOffset, 2);
  t.is(partition.endOffset, 3);
  t.is(partition.highWatermark, 0);
  t.is(partition.read(0, 1000, { wholeFirst: true }).sizeBytes, 0);
  t.is(engine.restart().openPartition(spec).endOffset, 0);
  engine.sync();
  t.is(durable, 1);
  t.is(above, 1);
  t.true(partition.read(0, 1, { wholeFirst: true }).sizeBytes > 0);
  t.is(engine.restart().openPartition(spec).endOffset, 3);
});

test('a commit moves starts and deletes partitions together', (t) => {
  const engine = new MemoryEngine();
  const first = engine.openPartition(spec);
  const second = engine.openPartition({ ...spec, index: 1 });
  first.append(batch(3), { origin: 'internal', urgency: 'waited' });
  second.append(batch(1), { origin: 'internal', urgency: 'waited' });
  engine.commit(
    [
      { kind: 'append', partition: first, batch: batch(2) },
      { kind: 'start', partition: first, offset: 3 },
      { kind: 'delete', partition: second },
    ],
    'waited',
  );
  t.is(first.startOffset, 3);
  t.is(first.highWatermark, 5);
  t.throws(() => first.read(2, 10, { wholeFirst: true }), { code: 'OFFSET_OUT_OF_RANGE' });
  t.throws(() => second.append(batch(1), { origin: 'client', urgency: 'waited' }), {
    code: 'UNKNOWN_TOPIC_OR_PARTITION',
  });
  t.deepEqual(engine.storedKeys, ['a:0']);
});
