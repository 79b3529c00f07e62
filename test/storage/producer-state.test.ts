import test from 'ava';
import fc from 'fast-check';
import { buildBatch } from '../../protocol/record-batch.ts';
import { decodeSnapshot, ProducerState } from '../../storage/producer-state.ts';

const SEQUENCE_MAX = 0x7fff_ffff;

interface Sent {
  id?: number;
  epoch?: number;
  sequence: number;
  count?: number;
  offset?: number;
  timestamp?: number;
  isTransactional?: boolean;
}

function batchOf({
  id = 7,
  epoch = 0,
  sequence,
  count = 1,
  offset = 0,
  timestamp = 1000,
  isTransactional = false,
}: Sent): Buffer {
  const records = Array.from({ length: count }, () => ({ key: null, value: null, timestamp }));
  return buildBatch(records, {
    producerId: id,
    producerEpoch: epoch,
    baseSequence: sequence,
    baseOffset: offset,
    isTransactional,
  });
}

/** Checks and, if it may, applies; answers 'append', the original's base offset, or the error's code. */
function send(state: ProducerState, sent: Sent, nowMs = 0): string | number {
  const { id = 7, epoch = 0, sequence, count = 1 } = sent;
  try {
    const verdict = state.check(id, epoch, sequence, count);
    if (verdict !== 'append') return verdict.duplicateOf.baseOffset;
    state.apply(batchOf(sent), 0, nowMs);
    return 'append';
  } catch (error) {
    return (error as { code: string }).code;
  }
}

const fresh = (options: { expirationMs?: number; producersMax?: number } = {}): ProducerState =>
  new ProducerState({ name: 'a-0', ...options });

test('what a 4.4 broker answers to the same sends', (t) => {
  const state = fresh();
  t.is(send(state, { sequence: 0, count: 3, offset: 34 }), 'append');
  t.is(send(state, { sequence: 3, offset: 37 }), 'append');
  t.is(send(state, { sequence: 0, count: 3 }), 34);
  t.is(send(state, { sequence: 0, count: 1 }), 'OUT_OF_ORDER_SEQUENCE_NUMBER', 'another range');
  t.is(send(state, { sequence: 10 }), 'OUT_OF_ORDER_SEQUENCE_NUMBER', 'a gap');
  for (let sequence = 4; sequence < 10; sequence++) t.is(send(state, { sequence, offset: 34 + sequence }), 'append');
  t.is(send(state, { sequence: 0, count: 3 }), 'OUT_OF_ORDER_SEQUENCE_NUMBER', 'older than the last five');
  t.is(send(state, { sequence: 5 }), 39, 'the oldest of the last five');
  t.is(send(state, { epoch: 1, sequence: 5 }), 'OUT_OF_ORDER_SEQUENCE_NUMBER', 'a new epoch starts at 0');
  t.is(send(state, { epoch: 1, sequence: 0, offset: 44 }), 'append');
  t.is(send(state, { epoch: 0, sequence: 10 }), 'INVALID_PRODUCER_EPOCH');
  t.is(send(state, { epoch: 0, sequence: 9 }), 'INVALID_PRODUCER_EPOCH', 'not even as a duplicate');
  t.is(send(state, { epoch: 5, sequence: 0 }), 'append', 'epochs may skip');
  t.is(send(state, { id: 8, epoch: 3, sequence: 42 }), 'append', 'an unknown producer may start anywhere');
  t.is(send(state, { id: 8, epoch: 3, sequence: 45 }), 'OUT_OF_ORDER_SEQUENCE_NUMBER');
});

test('sequences start again at 0 after 2^31-1, also within a batch', (t) => {
  const state = fresh();
  t.is(send(state, { sequence: SEQUENCE_MAX - 1, count: 2, offset: 5 }), 'append');
  t.is(send(state, { sequence: 0 }), 'append');
  t.is(send(state, { id: 8, sequence: SEQUENCE_MAX, count: 3, offset: 29 }), 'append');
  t.is(send(state, { id: 8, sequence: 2, offset: 32 }), 'append');
  t.is(send(state, { id: 8, sequence: SEQUENCE_MAX, count: 3 }), 29);
});

test('a refusal says who sent what, where, and what was expected', (t) => {
  const state = fresh();
  send(state, { sequence: 0, count: 3 });
  t.throws(() => state.check(7, 0, 9, 1), {
    message: 'a-0: producer 7 at epoch 0 sent sequence 9, expected 3 at epoch 0',
  });
});

test('a duplicate is answered with the range and time of the original', (t) => {
  const state = fresh();
  send(state, { sequence: 0, count: 3, offset: 100, timestamp: 5000 });
  t.deepEqual(state.check(7, 0, 0, 3), { duplicateOf: { baseOffset: 100, lastOffset: 102, timestamp: 5000 } });
});

test('a silent producer is forgotten after its time, one with an open transaction is not', (t) => {
  const state = fresh({ expirationMs: 100 });
  send(state, { id: 1, sequence: 0 }, 0);
  send(state, { id: 2, sequence: 0, isTransactional: true, offset: 50 }, 10);
  send(state, { id: 3, sequence: 0 }, 60);
  send(state, { id: 1, sequence: 1 }, 50);
  t.is(state.expire(99), 0);
  t.is(state.expire(155), 0, 'ordered by last append, not by timestamps');
  t.is(state.expire(160), 2);
  t.deepEqual(
    [...state.describe()].map(({ producerId }) => producerId),
    [2],
  );
  t.is(state.firstTransactionOffset(), 50);
  t.is(send(state, { id: 1, sequence: 77 }), 'append');
});

test('at the cap the longest silent producer makes room', (t) => {
  const state = fresh({ producersMax: 2 });
  send(state, { id: 1, sequence: 0 });
  send(state, { id: 2, sequence: 0 });
  send(state, { id: 1, sequence: 1 });
  send(state, { id: 3, sequence: 0 });
  t.is(state.count, 2);
  t.deepEqual(
    [...state.describe()].map(({ producerId }) => producerId),
    [1, 3],
  );
});

test('a cut of the log forgets what was above it', (t) => {
  const state = fresh();
  send(state, { id: 1, sequence: 0, offset: 0 });
  send(state, { id: 1, sequence: 1, offset: 1 });
  send(state, { id: 2, sequence: 0, offset: 2 });
  state.truncate(1);
  t.is(state.count, 1);
  t.is(send(state, { id: 1, sequence: 1, offset: 1 }), 'append');
});

/** An end-of-transaction marker: key version 0, type commit; value version 0, coordinator epoch. */
function marker(epoch: number, coordinatorEpoch: number): Buffer {
  const value = Buffer.alloc(6);
  value.writeInt32BE(coordinatorEpoch, 2);
  return buildBatch([{ key: Buffer.from([0, 0, 0, 1]), value, timestamp: 2000 }], {
    producerId: 7,
    producerEpoch: epoch,
    isControl: true,
    isTransactional: true,
  });
}

test('a marker ends the transaction; one of a new epoch fences the old one', (t) => {
  const state = fresh();
  send(state, { sequence: 0, offset: 10, isTransactional: true });
  send(state, { sequence: 1, offset: 11, isTransactional: true });
  t.is(state.firstTransactionOffset(), 10);
  state.apply(marker(0, 3), 0, 0);
  t.is(state.firstTransactionOffset(), undefined);
  t.is(send(state, { sequence: 2, offset: 13 }), 'append', 'the same epoch carries on');
  state.apply(marker(1, 4), 0, 0);
  t.is(send(state, { sequence: 3 }), 'INVALID_PRODUCER_EPOCH');
  t.is(send(state, { epoch: 1, sequence: 3 }), 'OUT_OF_ORDER_SEQUENCE_NUMBER');
  t.like([...state.describe()][0], { epoch: 1, lastSequence: -1, coordinatorEpoch: 4, timestamp: 2000 });
  const loaded = fresh();
  loaded.load(state.encode(), 0);
  t.deepEqual([...loaded.describe()], [...state.describe()]);
});

test('a batch without a producer id leaves no state', (t) => {
  const state = fresh();
  state.apply(buildBatch([{ key: null, value: null, timestamp: 1 }]), 0, 0);
  t.is(state.count, 0);
});

/** Written by Apache Kafka 4.4.0; its DumpLogSegments prints it as below. */
const kafkaSnapshot = Buffer.from(
  '00013c88a7f20000000500000000000bde33000000000002000000000000002000000000000001a20cd3666affffffffffffffffffffffff' +
    '00000000000bde32000000000000000000000000001c00000000000001a20cd36662ffffffffffffffffffffffff' +
    '00000000000bde3100030000002b000000000000001900000000000001a20cd36649ffffffffffffffffffffffff' +
    '00000000000bde35ffff00000000000000000000002100000000000001a20cd3668bffffffffffffffffffffffff' +
    '000000000000173f000500000000000000000000002d00000000000001a20cd3b419ffffffffffffffffffffffff',
  'hex',
);

test("Kafka's own snapshot is read and written back byte for byte", (t) => {
  const state = fresh();
  state.load(kafkaSnapshot, 0);
  const described = [...state.describe()].map(({ producerId, epoch, lastSequence }) => [
    producerId,
    epoch,
    lastSequence,
  ]);
  t.deepEqual(described, [
    [777779, 0, 2],
    [777778, 0, 0],
    [777777, 3, 43],
    [777781, -1, 0],
    [5951, 5, 0],
  ]);
  t.deepEqual(state.encode(), kafkaSnapshot);
  t.like(decodeSnapshot(kafkaSnapshot, 'x')[2].batch, { lastOffset: 25, offsetDelta: 0, timestamp: 1795511510601 });
});

test('a damaged snapshot is refused and leaves nothing behind', (t) => {
  const state = fresh();
  for (let at = 0; at < kafkaSnapshot.length; at++) {
    const damaged = Buffer.from(kafkaSnapshot);
    damaged[at] ^= 0x10;
    t.throws(() => state.load(damaged, 0), { code: 'DATA_DIR_CORRUPT' });
  }
  for (const size of [0, 5, 10, 55, kafkaSnapshot.length - 1]) {
    t.throws(() => state.load(kafkaSnapshot.subarray(0, size), 0), { code: 'DATA_DIR_CORRUPT' });
  }
  t.is(state.count, 0);
});

test('after a restart all of the last five batches are still recognised', (t) => {
  const state = fresh();
  for (let index = 0; index < 8; index++) send(state, { sequence: index * 10, count: 10, offset: index * 10 });
  const loaded = fresh();
  loaded.load(state.encode(), 0);
  for (let index = 3; index < 8; index++) t.is(send(loaded, { sequence: index * 10, count: 10 }), index * 10);
  t.is(send(loaded, { sequence: 20, count: 10 }), 'OUT_OF_ORDER_SEQUENCE_NUMBER');
  t.is(send(loaded, { sequence: 80, offset: 80 }), 'append');
});

const anySent = fc.record({
  id: fc.integer({ min: 1, max: 4 }),
  epoch: fc.integer({ min: 0, max: 2 }),
  sequence: fc.integer({ min: 0, max: 8 }),
  count: fc.integer({ min: 1, max: 3 }),
});

test('snapshot plus the batches since is the same as all batches', (t) => {
  fc.assert(
    fc.property(fc.array(anySent, { maxLength: 40 }), fc.nat(), (sends, cut) => {
      const live = fresh();
      const at = sends.length === 0 ? 0 : cut % (sends.length + 1);
      let snapshot = live.encode();
      const since: Buffer[] = [];
      let offset = 0;
      sends.forEach((sent, index) => {
        if (index === at) {
          snapshot = live.encode();
          since.length = 0;
        }
        if (send(live, { ...sent, offset }) !== 'append') return;
        since.push(batchOf({ ...sent, offset }));
        offset += sent.count;
      });
      const rebuilt = fresh();
      rebuilt.load(snapshot, 0);
      for (const batch of since) rebuilt.apply(batch, 0, 0);
      t.deepEqual(rebuilt.encode(), live.encode());
    }),
  );
});
