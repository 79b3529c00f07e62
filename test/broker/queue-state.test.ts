import test from 'ava';
import { AttributeIndex } from '../../broker/attribute-index.ts';
import type { MessageAttributes } from '../../broker/queue.ts';
import {
  type AcquireOptions,
  DEFAULT_STATE_SETTINGS,
  QueueState,
  type QueueStateSettings,
} from '../../broker/queue-state.ts';

const NEVER = Number.POSITIVE_INFINITY;

/** A queue with these messages, from offset 0 on. */
function queueOf(
  messages: number | readonly Partial<MessageAttributes>[],
  settings: Partial<QueueStateSettings> = {},
): QueueState {
  const attributes = new AttributeIndex();
  const state = new QueueState({ startOffset: 0, settings: { ...DEFAULT_STATE_SETTINGS, ...settings }, attributes });
  const list = typeof messages === 'number' ? Array.from({ length: messages }, () => ({})) : messages;
  list.forEach((message, offset) => {
    const none = { priority: 0, notBeforeMs: 0, expiresAtMs: NEVER, group: undefined, dedupId: undefined };
    attributes.append(offset, { ...none, ...message });
  });
  state.extend(list.length, 0, 0);
  return state;
}

function take(state: QueueState, messagesMax: number, options: Partial<AcquireOptions> = {}): number[] {
  const runs = state.acquire({
    owner: 1,
    door: 'kafka',
    messagesMax,
    lockedUntilMs: NEVER,
    isBoundToConnection: true,
    nowMs: 0,
    ...options,
  });
  const offsets: number[] = [];
  for (const { firstOffset, lastOffset } of runs) {
    for (let offset = firstOffset; offset <= lastOffset; offset++) offsets.push(offset);
  }
  return offsets;
}

function one(offset: number) {
  return { firstOffset: offset, lastOffset: offset };
}

test('messages come lowest offset first, and a released one takes its place again', (t) => {
  const state = queueOf(5);
  t.deepEqual(take(state, 3), [0, 1, 2]);
  state.settle(1, [{ ...one(1), kind: 'release' }], 0);
  const [again, fresh] = state.acquire({
    owner: 2,
    door: 'kafka',
    messagesMax: 2,
    lockedUntilMs: NEVER,
    isBoundToConnection: true,
    nowMs: 0,
  });
  t.deepEqual(again, { firstOffset: 1, lastOffset: 1, acquiredCount: 2, failedCount: 1 });
  t.deepEqual(fresh, { firstOffset: 3, lastOffset: 3, acquiredCount: 1, failedCount: 0 });
  t.deepEqual(state.counts, { ready: 1, inFlight: 4, delayed: 0, blocked: 0 });
});

test('the start moves over what is done, in whatever order it was done', (t) => {
  const state = queueOf(40_000);
  take(state, 40_000);
  for (let offset = 39_999; offset > 0; offset--) state.settle(1, [{ ...one(offset), kind: 'accept' }], 0);
  t.is(state.startOffset, 0);
  state.settle(1, [{ ...one(0), kind: 'accept' }], 0);
  t.is(state.startOffset, 40_000);
  t.true(state.sizeBytes < 700_000);
});

test('a settlement is refused as a whole if one of its messages is not held', (t) => {
  const state = queueOf(4);
  take(state, 3);
  const settlements = [
    { ...one(0), kind: 'accept' as const },
    { firstOffset: 2, lastOffset: 3, kind: 'accept' as const },
  ];
  t.throws(() => state.settle(1, settlements, 0), { code: 'INVALID_RECORD_STATE' });
  t.throws(() => state.settle(2, [{ ...one(0), kind: 'accept' }], 0), { code: 'INVALID_RECORD_STATE' });
  t.is(state.counts.inFlight, 3);
  state.settle('any', [{ ...one(0), kind: 'accept' }], 0);
  t.throws(() => state.settle('any', [{ ...one(0), kind: 'accept' }], 0), { code: 'INVALID_RECORD_STATE' });
});

test('one message named twice in a settlement refuses it', (t) => {
  const state = queueOf(4);
  take(state, 4);
  const twice = [
    { firstOffset: 0, lastOffset: 2, kind: 'renew' as const },
    { firstOffset: 2, lastOffset: 3, kind: 'accept' as const },
  ];
  t.throws(() => state.settle(1, twice, 0), { code: 'INVALID_RECORD_STATE' });
  state.settle(1, [{ firstOffset: 0, lastOffset: 3, kind: 'accept' }], 0);
  t.is(state.startOffset, 4);
});

test('a lock that has run out settles nothing, and advance gives its message back', (t) => {
  const state = queueOf(1);
  take(state, 1, { lockedUntilMs: 100 });
  t.is(state.nextDeadlineMs, 100);
  t.throws(() => state.settle(1, [{ ...one(0), kind: 'accept' }], 100), { code: 'INVALID_RECORD_STATE' });
  t.is(state.lockOf(0, 100), undefined);
  t.deepEqual(take(state, 1, { nowMs: 100 }), []);
  t.false(state.advance(100));
  t.deepEqual(take(state, 1, { nowMs: 100 }), [0]);
});

test('a group hands out nothing while one of its messages is in flight, but several in one acquisition', (t) => {
  const state = queueOf([{ group: 'a' }, { group: 'b' }, { group: 'a' }, {}, { group: 'a' }], { isOrdered: true });
  t.deepEqual(take(state, 3), [0, 1, 2]);
  t.deepEqual(take(state, 9, { owner: 2 }), [3]);
  t.deepEqual(state.counts, { ready: 0, inFlight: 4, delayed: 0, blocked: 1 });
  state.settle(1, [{ ...one(0), kind: 'accept' }], 0);
  t.deepEqual(take(state, 9, { owner: 2 }), []);
  state.settle(1, [{ ...one(2), kind: 'release' }], 0);
  t.deepEqual(take(state, 9, { owner: 2 }), [2, 4]);
});

test('a released message with a delay holds its group', (t) => {
  const state = queueOf([{ group: 'a' }, { group: 'a' }], { isOrdered: true });
  take(state, 1);
  state.settle(1, [{ ...one(0), kind: 'release', untilMs: 50 }], 0);
  t.deepEqual(state.counts, { ready: 0, inFlight: 0, delayed: 1, blocked: 1 });
  t.deepEqual(take(state, 2, { nowMs: 49 }), []);
  state.advance(50);
  t.deepEqual(take(state, 2, { nowMs: 50 }), [0, 1]);
});

test('a group is still held after a restart by a lock with a deadline, not by one of a connection', (t) => {
  for (const isBoundToConnection of [true, false]) {
    const attributes = new AttributeIndex();
    const settings = { ...DEFAULT_STATE_SETTINGS, isOrdered: true };
    const none = { priority: 0, notBeforeMs: 0, expiresAtMs: NEVER, dedupId: undefined };
    for (let offset = 0; offset < 3; offset++) attributes.append(offset, { ...none, group: 'a' });
    const state = new QueueState({ startOffset: 0, settings, attributes });
    state.extend(3, 0, 0);
    take(state, 1, { lockedUntilMs: 100, isBoundToConnection });
    const again = new QueueState({ startOffset: 0, settings, attributes });
    again.applyChanges(state.takeChanges() ?? Buffer.alloc(0));
    again.extend(3, 0, 0);
    t.is(again.counts.inFlight, isBoundToConnection ? 0 : 1);
    t.is(again.counts.blocked, isBoundToConnection ? 0 : 2);
    t.deepEqual(take(again, 3), isBoundToConnection ? [0, 1, 2] : []);
  }
});

test('a noisy tenant comes after all others', (t) => {
  const messages = Array.from({ length: 100 }, (_, offset) => ({ group: offset < 90 ? 'noisy' : 'quiet' }));
  const state = queueOf(messages, { isFair: true });
  t.is(take(state, 30).length, 30);
  t.deepEqual(take(state, 11), [90, 91, 92, 93, 94, 95, 96, 97, 98, 99, 30]);
});

test('a tenant that was passed over is found again after the index has forgotten where that began', (t) => {
  const attributes = new AttributeIndex();
  const state = new QueueState({
    startOffset: 0,
    settings: { ...DEFAULT_STATE_SETTINGS, isFair: true },
    attributes,
  });
  for (let offset = 0; offset < 2510; offset++) {
    const group = offset < 2500 ? 'noisy' : 'quiet';
    attributes.append(offset, { priority: 0, notBeforeMs: 0, expiresAtMs: NEVER, group, dedupId: undefined });
  }
  state.extend(2510, 0, 0);
  t.is(take(state, 30).length, 30);
  t.is(take(state, 10)[0], 2500);
  t.is(state.discard(Array.from({ length: 1471 }, (_, index) => 30 + index)), 1471);
  state.settle(1, [{ firstOffset: 0, lastOffset: 29, kind: 'accept' }], 0);
  t.is(state.startOffset, 1501);
  attributes.trim(1501);
  t.deepEqual(take(state, 2), [1501, 1502]);
});

test('the highest priority comes first, then the lowest offset', (t) => {
  const state = queueOf([{}, { priority: 5 }, { priority: 9 }, { priority: 5 }, {}], { priorityMax: 10 });
  t.deepEqual(take(state, 4), [2, 1, 3, 0]);
  state.settle(1, [{ ...one(1), kind: 'release' }], 0);
  t.deepEqual(take(state, 4), [1, 4]);
});

test('a priority above the highest counts as that', (t) => {
  const state = queueOf([{ priority: 3 }, { priority: 2 }, { priority: 9 }], { priorityMax: 3 });
  t.deepEqual(take(state, 3), [0, 2, 1]);
});

test('a delayed message comes when it is due, not earlier', (t) => {
  const state = queueOf([{ notBeforeMs: 50 }, {}, { notBeforeMs: 20 }]);
  t.deepEqual(state.counts, { ready: 1, inFlight: 0, delayed: 2, blocked: 0 });
  t.deepEqual(take(state, 3), [1]);
  t.is(state.nextDeadlineMs, 20);
  state.advance(49);
  t.deepEqual(take(state, 3, { nowMs: 49 }), [2]);
  state.advance(50);
  t.deepEqual(take(state, 3, { nowMs: 50 }), [0]);
});

test('the delay of the queue counts from the append', (t) => {
  const state = new QueueState({ startOffset: 0, settings: { ...DEFAULT_STATE_SETTINGS, delayMs: 100 } });
  state.extend(2, 1000, 1010);
  state.extend(4, 1005, 1010);
  t.is(state.counts.delayed, 4);
  state.advance(1100);
  t.deepEqual(take(state, 9, { nowMs: 1100 }), [0, 1]);
});

test('many that are due at once are handled in slices', (t) => {
  const state = new QueueState({ startOffset: 0, settings: { ...DEFAULT_STATE_SETTINGS, delayMs: 100 } });
  state.extend(1000, 0, 0);
  let slices = 1;
  while (state.advance(100, 64)) slices++;
  t.is(slices, 16);
  t.is(state.counts.ready, 1000);
});

test('an expired message is not delivered, and leaves by itself once it is first in its lane', (t) => {
  const state = queueOf([{}, { expiresAtMs: 10 }, { expiresAtMs: 30 }]);
  t.false(state.advance(20));
  t.is(state.leavingCount, 0);
  t.deepEqual(take(state, 1, { nowMs: 20 }), [0]);
  t.is(state.nextDeadlineMs, 10);
  state.advance(20);
  t.deepEqual(state.takeLeaving(9), [
    { offset: 1, reason: 'expired', acquiredCount: 0, failedCount: 0, limitDoor: undefined },
  ]);
  t.deepEqual(take(state, 1, { nowMs: 40 }), []);
  t.is(state.takeLeaving(9)[0].offset, 2);
});

test('the lower of the queue TTL and the message’s own holds', (t) => {
  const state = queueOf([{ expiresAtMs: 500 }, { expiresAtMs: 20 }], { ttlMs: 100 });
  t.is(state.nextDeadlineMs, 100);
  state.advance(100);
  t.is(state.leavingCount, 2);
});

test('limits strike as their families count: SQS at the receive, Kafka and AMQP at the return', (t) => {
  const sqs = queueOf(1, { limits: [{ door: 'sqs', counter: 'acquired', max: 1 }] });
  take(sqs, 1);
  sqs.settle(1, [{ ...one(0), kind: 'release' }], 0);
  t.is(sqs.counts.ready, 1);
  t.deepEqual(take(sqs, 1), []);
  t.like(sqs.takeLeaving(1)[0], { reason: 'delivery_limit', acquiredCount: 1, limitDoor: 'sqs' });

  const kafka = queueOf(1, { limits: [{ door: 'kafka', counter: 'acquired', max: 1 }] });
  take(kafka, 1);
  kafka.settle(1, [{ ...one(0), kind: 'release', isFailure: false }], 0);
  t.like(kafka.takeLeaving(1)[0], { reason: 'delivery_limit', failedCount: 0, limitDoor: 'kafka' });

  const amqp = queueOf(1, { limits: [{ door: 'amqp', counter: 'failed', max: 1 }] });
  for (const isFailure of [true, false, true]) {
    t.is(amqp.leavingCount, 0);
    t.deepEqual(take(amqp, 1), [0]);
    amqp.settle(1, [{ ...one(0), kind: 'release', isFailure }], 0);
  }
  t.like(amqp.takeLeaving(1)[0], { reason: 'delivery_limit', acquiredCount: 3, failedCount: 2, limitDoor: 'amqp' });
});

test('what leaves is found leaving again until it has left', (t) => {
  const state = queueOf(2);
  take(state, 2);
  state.settle(1, [{ ...one(1), kind: 'reject' }], 0);
  t.is(state.takeLeaving(9)[0].reason, 'rejected');
  t.deepEqual(state.takeLeaving(9), []);
  const again = new QueueState({ startOffset: 0, settings: DEFAULT_STATE_SETTINGS });
  again.applyChanges(state.takeChanges() ?? Buffer.alloc(0));
  again.extend(2, 0, 0);
  t.is(again.takeLeaving(9)[0].offset, 1);
  t.throws(() => again.left([0]), { code: 'INVALID_RECORD_STATE' });
  again.left([1]);
  t.is(again.leavingCount, 0);
  t.true(again.isDone(1));
});

test('undone means as if it had not been handed out', (t) => {
  const state = queueOf(2);
  take(state, 1);
  state.settle(1, [{ ...one(0), kind: 'undo' }], 0);
  t.deepEqual(
    state.acquire({
      owner: 1,
      door: 'amqp',
      messagesMax: 2,
      lockedUntilMs: NEVER,
      isBoundToConnection: true,
      nowMs: 0,
    }),
    [{ firstOffset: 0, lastOffset: 1, acquiredCount: 1, failedCount: 0 }],
  );
});

test('an acquisition may go on to the end of its batch', (t) => {
  const state = queueOf(20);
  t.deepEqual(take(state, 3, { batchEnd: () => 4 }), [0, 1, 2, 3, 4]);
});

test('a purge leaves what is in flight, unless it is to go too', (t) => {
  const state = queueOf([{}, {}, { notBeforeMs: 100 }, {}]);
  take(state, 1);
  t.is(state.purge({ untilOffset: 3, takeInFlight: false }), 2);
  t.deepEqual(state.counts, { ready: 1, inFlight: 1, delayed: 0, blocked: 0 });
  t.is(state.purge({ takeInFlight: true }), 2);
  t.is(state.startOffset, 4);
  t.throws(() => state.settle(1, [{ ...one(0), kind: 'accept' }], 0), { code: 'INVALID_RECORD_STATE' });
});

test('a replay brings finished messages back, with counts of 0 and a new epoch, and an ordered group takes them first', (t) => {
  const state = queueOf([{ group: 'a' }, { group: 'a' }, { group: 'a' }], { isOrdered: true });
  take(state, 2);
  state.settle(1, [{ firstOffset: 0, lastOffset: 1, kind: 'accept' }], 0);
  t.is(state.startOffset, 2);
  t.is(state.replay(0, 2, 0), 2);
  t.is(state.startOffset, 0);
  t.is(state.epochOf(1), 1);
  t.deepEqual(take(state, 9), [0, 1, 2]);
  t.is(state.lockOf(0, 0)?.acquiredCount, 1);
});

test('what is below the start of the log is done, also what was in flight', (t) => {
  const state = queueOf(6);
  take(state, 2);
  t.is(state.trim(4), 4);
  t.is(state.startOffset, 4);
  t.deepEqual(take(state, 9), [4, 5]);
  t.is(state.trim(10), 2);
  t.is(state.endOffset, 10);
});

test('the oldest are dropped in the order in which they would be handed out', (t) => {
  const state = queueOf(5);
  take(state, 1);
  t.is(state.dropOldest(2), 2);
  t.deepEqual(
    state.takeLeaving(9).map(({ offset, reason }) => [offset, reason]),
    [
      [1, 'maxlen'],
      [2, 'maxlen'],
    ],
  );
});

test('an owner that is gone gives everything back', (t) => {
  const state = queueOf(5);
  take(state, 2, { owner: 7 });
  take(state, 1, { owner: 8 });
  t.is(state.heldBy(7), 2);
  t.is(state.releaseOwner(7, 0, { isFailure: false }), 2);
  t.is(state.heldBy(7), 0);
  t.deepEqual(take(state, 9), [0, 1, 3, 4]);
});

test('a search that passes over too much gives up and goes on the next time', (t) => {
  const messages = Array.from({ length: 10 }, (_, offset) => (offset < 8 ? { group: 'a' } : {}));
  const state = queueOf(messages, { isOrdered: true, lookaheadMax: 5 });
  take(state, 1);
  t.deepEqual(take(state, 1), []);
  t.true(state.isSearchPending);
  t.deepEqual(take(state, 1), [8]);
  t.false(state.isSearchPending);
});

test('a snapshot comes in pieces and gives the same state', (t) => {
  const state = new QueueState({ startOffset: 0, settings: DEFAULT_STATE_SETTINGS });
  state.extend(300_000, 0, 0);
  for (let round = 0; round < 30_000; round++) {
    const [first] = take(state, 3, { lockedUntilMs: 1000 + round, isBoundToConnection: false, owner: 1 + (round % 9) });
    state.settle('any', [{ ...one(first + 1), kind: round % 2 ? 'accept' : 'release', untilMs: 500 }], 0);
  }
  const pieces = [...state.snapshot()];
  t.true(pieces.length > 1);
  t.true(pieces.every(({ length }) => length <= 256 * 1024));
  t.is(state.takeChanges(), undefined);
  const again = new QueueState({ startOffset: 7, settings: DEFAULT_STATE_SETTINGS });
  for (const piece of pieces) again.applyChanges(piece);
  again.extend(300_000, 0, 0);
  t.deepEqual(again.counts, state.counts);
  t.is(again.nextDeadlineMs, state.nextDeadlineMs);
});

test('locks run out although the log has lost its end', (t) => {
  const state = queueOf(10);
  take(state, 10, { lockedUntilMs: 100, isBoundToConnection: false });
  const again = new QueueState({ startOffset: 0, settings: DEFAULT_STATE_SETTINGS });
  again.applyChanges(state.takeChanges() ?? Buffer.alloc(0));
  again.extend(6, 0, 0);
  t.false(again.advance(100));
  t.deepEqual(take(again, 9, { nowMs: 100 }), [0, 1, 2, 3, 4, 5]);
  again.extend(10, 0, 0);
  again.advance(1100);
  t.deepEqual(take(again, 9, { nowMs: 1100 }), [6, 7, 8, 9]);
});

test('bytes of another version are refused', (t) => {
  const state = new QueueState({ startOffset: 0, settings: DEFAULT_STATE_SETTINGS });
  t.throws(() => state.applyChanges(Buffer.from([9, 1])), { code: 'CORRUPT_MESSAGE' });
});
