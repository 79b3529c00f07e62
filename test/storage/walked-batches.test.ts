import test from 'ava';
import { batchCrc, batchLeaderEpoch, batchSizeBytes, buildBatch, stampBatch } from '../../protocol/record-batch.ts';
import { runDigest } from '../../storage/tail-cache.ts';
import { WalkedBatches } from '../../storage/walked-batches.ts';

/** Batches of two records each, from offset 0 on. */
function log(values: readonly string[], epoch = 0): Buffer {
  const batches = values.map((value, index) => {
    const record = { key: null, value: Buffer.from(value), timestamp: 1000 };
    const batch = buildBatch([record, record]);
    stampBatch(batch, 0, index * 2, epoch);
    return batch;
  });
  return Buffer.concat(batches);
}

function walk(bytes: Buffer): WalkedBatches {
  const walked = new WalkedBatches();
  let offset = 0;
  for (let at = 0; at < bytes.length; at += batchSizeBytes(bytes, at), offset += 2) walked.note(bytes, at, offset);
  return walked;
}

/** What the journal says of these batches. */
function part(bytes: Buffer, baseOffset: number) {
  let digest = 0;
  let nextOffset = baseOffset;
  for (let at = 0; at < bytes.length; at += batchSizeBytes(bytes, at), nextOffset += 2) {
    digest = runDigest(digest, batchCrc(bytes, at));
  }
  return { baseOffset, nextOffset, leaderEpoch: batchLeaderEpoch(bytes, 0), digest };
}

test('what was walked is held, piece by piece and as a whole', (t) => {
  const bytes = log(['a', 'b', 'c', 'd']);
  const size = bytes.length / 4;
  const walked = walk(bytes);
  t.true(walked.hold(part(bytes.subarray(0, size), 0)));
  t.true(walked.hold(part(bytes.subarray(size, 3 * size), 2)));
  t.true(walked.hold(part(bytes.subarray(3 * size), 6)));
  t.true(walk(bytes).hold(part(bytes, 0)));
});

test('parts in between may be left out', (t) => {
  const bytes = log(['a', 'b', 'c', 'd']);
  t.true(walk(bytes).hold(part(bytes.subarray((bytes.length / 4) * 2), 4)));
});

test('a batch that differs, has another epoch, or goes beyond the end is not held', (t) => {
  const walked = walk(log(['a', 'b']));
  t.false(walked.hold(part(log(['a', 'x']), 0)));
  t.false(walked.hold(part(log(['a', 'b'], 1), 0)));
  t.false(walked.hold(part(log(['a', 'b', 'c']), 0)));
  t.true(walked.hold(part(log(['a', 'b']), 0)), 'a question that was answered with no changes nothing');
});

test('an offset inside a batch is not held', (t) => {
  const bytes = log(['a', 'b']);
  t.false(walk(bytes).hold(part(bytes.subarray(bytes.length / 2), 1)));
});

test('a part that ends inside a batch is not held', (t) => {
  const bytes = log(['a', 'b']);
  t.false(walk(bytes).hold({ ...part(bytes, 0), nextOffset: 3 }));
});

test('nothing is held after the log was cut', (t) => {
  const bytes = log(['a']);
  const walked = walk(bytes);
  walked.clear();
  t.false(walked.hold(part(bytes, 0)));
});
