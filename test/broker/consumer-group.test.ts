/** One consumer group in simulated time: what members are told, step by step, and what survives. */
import test from 'ava';
import { ConsumerGroupBench } from '../support/consumer-group-bench.ts';

function open(partitionCount = 3, values: Record<string, string | number> = {}): ConsumerGroupBench {
  const bench = new ConsumerGroupBench(values);
  bench.createTopic('t', partitionCount);
  return bench;
}

test('the first member gets everything at once', (t) => {
  const bench = open();
  const answer = bench.join('a');
  t.is(answer.memberEpoch, 2);
  t.is(answer.heartbeatIntervalMs, 5_000);
  t.deepEqual(bench.named(answer.assignment), { t: [0, 1, 2] });
  t.is(bench.group.state, 'Stable');
  const next = bench.heartbeat('a', 2);
  t.deepEqual([next.memberEpoch, next.assignment], [2, null]);
});

test('a partition goes to a new member only when the old one has given it up', (t) => {
  const bench = open();
  bench.join('a');
  t.deepEqual(bench.named(bench.join('b').assignment), {});
  t.is(bench.group.state, 'Reconciling');

  t.deepEqual(bench.named(bench.heartbeat('a', 2).assignment), { t: [0, 1] });
  t.is(bench.heartbeat('b', 3).assignment, null);
  const stillOwns = bench.heartbeat('a', 2, { owned: { t: [0, 1, 2] } });
  t.deepEqual([stillOwns.memberEpoch, stillOwns.assignment], [2, null]);

  t.is(bench.heartbeat('a', 2, { owned: { t: [0, 1] } }).memberEpoch, 3);
  t.deepEqual(bench.named(bench.heartbeat('b', 3).assignment), { t: [2] });
  t.is(bench.group.state, 'Stable');
});

test('a member that does not give up its partitions within its rebalance timeout is put out', (t) => {
  const bench = open();
  bench.join('a', { rebalanceTimeoutMs: 10_000 });
  bench.join('b');
  bench.heartbeat('a', 2);
  for (let beat = 0; beat < 3; beat++) {
    bench.advance(3_000);
    bench.heartbeat('a', 2);
    bench.heartbeat('b', 3);
  }
  bench.advance(1_000);
  t.is(
    bench.refusal(() => bench.heartbeat('a', 2)),
    'UNKNOWN_MEMBER_ID',
  );
  t.deepEqual(bench.named(bench.heartbeat('b', 3).assignment), { t: [0, 1, 2] });
});

test('the rebalance timeout starts anew with everything else that a member is to give up', (t) => {
  const bench = open();
  bench.join('a', { rebalanceTimeoutMs: 10_000 });
  bench.join('b', { rebalanceTimeoutMs: 10_000 });
  bench.heartbeat('a', 2);
  bench.advance(9_000);
  bench.join('c', { rebalanceTimeoutMs: 10_000 });
  t.deepEqual(bench.named(bench.heartbeat('a', 2, { owned: { t: [0, 1] } }).assignment), { t: [0] });
  bench.advance(9_000);
  t.true(bench.group.has('a'));
  bench.advance(1_000);
  t.false(bench.group.has('a'));
});

test('a member that is silent for the session timeout is put out', (t) => {
  const bench = open();
  bench.join('a');
  bench.join('b');
  bench.advance(44_999);
  bench.heartbeat('b', 3);
  t.true(bench.group.has('a'));
  bench.advance(1);
  t.false(bench.group.has('a'));
  t.deepEqual(bench.named(bench.heartbeat('b', 3).assignment), { t: [0, 1, 2] });
  bench.advance(45_000);
  t.is(bench.group.state, 'Empty');
});

test('epochs that are not those of the member are fenced, a lost answer is not', (t) => {
  const bench = open();
  bench.join('a');
  t.is(
    bench.refusal(() => bench.heartbeat('a', 9)),
    'FENCED_MEMBER_EPOCH',
  );
  t.is(
    bench.refusal(() => bench.heartbeat('z', 1)),
    'UNKNOWN_MEMBER_ID',
  );
  bench.join('b');
  bench.heartbeat('a', 2);
  bench.heartbeat('a', 2, { owned: { t: [0, 1] } });
  t.is(
    bench.refusal(() => bench.heartbeat('a', 2)),
    'FENCED_MEMBER_EPOCH',
  );
  t.is(
    bench.refusal(() => bench.heartbeat('a', 2, { owned: { t: [2] } })),
    'FENCED_MEMBER_EPOCH',
  );
  t.is(bench.heartbeat('a', 2, { owned: { t: [0] } }).memberEpoch, 3);
  t.is(bench.join('a').memberEpoch, 3);
});

test('a static member that leaves for now keeps its partitions, for itself under any id', (t) => {
  const bench = open();
  bench.join('a', { instanceId: 'i' });
  t.is(
    bench.refusal(() => bench.join('b', { instanceId: 'i' })),
    'UNRELEASED_INSTANCE_ID',
  );
  t.is(
    bench.refusal(() => bench.heartbeat('b', 2, { instanceId: 'i' })),
    'FENCED_INSTANCE_ID',
  );
  t.is(
    bench.refusal(() => bench.heartbeat('b', 2, { instanceId: 'j' })),
    'UNKNOWN_MEMBER_ID',
  );
  t.is(bench.leave('a', -2, 'i').memberEpoch, -2);
  t.is(bench.group.epoch, 2);
  t.is(
    bench.refusal(() => bench.heartbeat('a', 2, { instanceId: 'i' })),
    'FENCED_MEMBER_EPOCH',
  );
  const back = bench.join('b', { instanceId: 'i' });
  t.is(back.memberEpoch, 2);
  t.deepEqual(bench.named(back.assignment), { t: [0, 1, 2] });
  t.is(bench.group.epoch, 2);

  bench.leave('b', -2, 'i');
  bench.advance(45_000);
  t.is(bench.group.state, 'Empty');
});

test('leaving is immediate, and twice is once too often', (t) => {
  const bench = open();
  bench.join('a');
  t.is(bench.leave('a').memberEpoch, -1);
  t.is(
    bench.refusal(() => bench.leave('a')),
    'UNKNOWN_MEMBER_ID',
  );
  t.is(bench.group.state, 'Empty');
  t.is(bench.group.epoch, bench.group.targetEpoch);
});

test('administrators put members out by instance id or member id', (t) => {
  const bench = open();
  bench.join('a', { instanceId: 'i' });
  bench.join('b');
  const leaving = [
    { memberId: '', instanceId: 'i' },
    { memberId: 'b', instanceId: null },
    { memberId: 'z', instanceId: null },
    { memberId: '', instanceId: 'j' },
  ];
  t.deepEqual(bench.group.evict(leaving), ['NONE', 'NONE', 'UNKNOWN_MEMBER_ID', 'UNKNOWN_MEMBER_ID']);
  t.is(bench.group.state, 'Empty');
});

test('topics that come, grow and go are seen with the next heartbeat', (t) => {
  const bench = open();
  bench.join('a', { topics: ['t', 'later'] });
  bench.createTopic('other', 5);
  t.is(bench.heartbeat('a', 2).assignment, null);
  bench.createTopic('later', 1);
  t.deepEqual(bench.named(bench.heartbeat('a', 2).assignment), { later: [0], t: [0, 1, 2] });
  bench.createTopic('t', 4);
  t.deepEqual(bench.named(bench.heartbeat('a', 3).assignment), { later: [0], t: [0, 1, 2, 3] });
  bench.deleteTopic('t');
  t.deepEqual(bench.named(bench.heartbeat('a', 4).assignment), { later: [0] });
});

test('a regular expression subscribes to what matches now and later', (t) => {
  const bench = open();
  bench.createTopic('secret-t', 1);
  const answer = bench.join('a', { topics: null, regex: '(secret-)?t.*' });
  t.deepEqual(bench.named(answer.assignment), { t: [0, 1, 2] });
  t.true(bench.group.isSubscribedTo('t'));
  bench.createTopic('t2', 1);
  t.deepEqual(bench.named(bench.heartbeat('a', 2).assignment), { t: [0, 1, 2], t2: [0] });
  bench.heartbeat('a', 3, { regex: 't2' });
  t.is(bench.heartbeat('a', 3, { owned: { t2: [0] } }).memberEpoch, 4);
  t.false(bench.group.isSubscribedTo('t'));
  t.is(
    bench.refusal(() => bench.heartbeat('a', 4, { regex: '(' })),
    'INVALID_REGULAR_EXPRESSION',
  );
  t.is(bench.heartbeat('a', 4).memberEpoch, 4);
});

test('what a member does not subscribe to any more is taken at once', (t) => {
  const bench = open();
  bench.createTopic('u', 1);
  bench.join('a', { topics: ['t', 'u'] });
  const answer = bench.heartbeat('a', 2, { topics: ['u'] });
  t.deepEqual(bench.named(answer.assignment), { u: [0] });
  t.is(bench.heartbeat('a', 2, { owned: { u: [0] } }).memberEpoch, 3);
});

test('who joins within the assignment interval waits for the next assignment', (t) => {
  const bench = open(4, { 'group.consumer.assignment.interval.ms': 1_000 });
  bench.join('a');
  bench.join('b');
  t.is(bench.group.state, 'Assigning');
  t.is(bench.heartbeat('a', 2).assignment, null);
  bench.advance(1_000);
  t.deepEqual(bench.named(bench.heartbeat('a', 2).assignment), { t: [0, 1] });
});

test('most members choose the assignor, the first of the options if nobody does', (t) => {
  const bench = open(2);
  bench.join('a');
  t.is(bench.group.assignorName, 'uniform');
  bench.join('b', { assignor: 'range' });
  t.is(bench.group.assignorName, 'range');
  bench.join('c', { assignor: 'uniform' });
  bench.join('d', { assignor: 'uniform' });
  t.is(bench.group.assignorName, 'uniform');
});

test('a full group takes nobody else', (t) => {
  const bench = open(3, { 'group.consumer.max.size': 1 });
  bench.join('a');
  t.is(
    bench.refusal(() => bench.join('b')),
    'GROUP_MAX_SIZE_REACHED',
  );
  t.is(bench.join('a').memberEpoch, 2);
});

test('a subscription that the log cannot take is refused', (t) => {
  const bench = open(3, { 'message.max.bytes': 1_000 });
  t.is(
    bench.refusal(() => bench.join('a', { topics: ['x'.repeat(600)] })),
    'INVALID_REQUEST',
  );
  t.is(bench.group.state, 'Empty');
  t.is(bench.events.length, 0);
});

test('commits are accepted from the epoch a partition was assigned at on', (t) => {
  const bench = open();
  bench.join('a');
  bench.join('b');
  bench.heartbeat('a', 2);
  bench.heartbeat('a', 2, { owned: { t: [0, 1] } });
  const topicId = bench.topics.get('t')?.id ?? '';
  const refusal = (memberId: string, generation: number, partition = 0, isOldVersion = false): string | undefined =>
    bench.group.commitRefusal(bench.now, { memberId, generation, isOldVersion, offsets: [{ topicId, partition }] });
  t.is(refusal('a', 3), undefined);
  t.is(refusal('a', 2), undefined);
  t.is(refusal('a', 2, 2), 'STALE_MEMBER_EPOCH');
  t.is(refusal('a', 1), 'STALE_MEMBER_EPOCH');
  t.is(refusal('a', 4), 'STALE_MEMBER_EPOCH');
  t.is(refusal('a', 3, 0, true), 'UNSUPPORTED_VERSION');
  t.is(refusal('z', 3), 'UNKNOWN_MEMBER_ID');
  t.is(refusal('', -1), 'UNKNOWN_MEMBER_ID');
  t.is(bench.group.fetchRefusal('a', 3), undefined);
  t.is(bench.group.fetchRefusal('a', 2), 'STALE_MEMBER_EPOCH');
  t.is(bench.group.fetchRefusal('z', 2), 'UNKNOWN_MEMBER_ID');
  t.is(bench.group.fetchRefusal(null, -1), undefined);
  bench.leave('a');
  bench.leave('b');
  t.is(refusal('', -1), undefined);
});

test('after a restart members carry on with their epochs, and time starts anew', (t) => {
  const bench = open();
  bench.join('a', { rebalanceTimeoutMs: 10_000 });
  bench.join('b', { instanceId: 'i' });
  bench.heartbeat('a', 2);
  const before = ConsumerGroupBench.state(bench.group);
  bench.restart();
  t.deepEqual(ConsumerGroupBench.state(bench.group), before);
  t.is(bench.heartbeat('b', 3, { instanceId: 'i' }).memberEpoch, 3);
  t.is(bench.heartbeat('a', 2, { owned: { t: [0, 1] } }).memberEpoch, 3);
  t.deepEqual(bench.named(bench.heartbeat('b', 3, { instanceId: 'i' }).assignment), { t: [2] });
  bench.restart();
  bench.advance(45_000);
  t.is(bench.group.state, 'Empty');
});

test('a crash between the parts of a change leaves a group that comes to rest', (t) => {
  const bench = open(4);
  bench.join('a');
  bench.join('b');
  const { events } = bench;
  for (let count = 0; count <= events.length; count++) {
    const crashed = open(4);
    crashed.events = events.slice(0, count);
    crashed.restart();
    crashed.join('a');
    crashed.join('b');
    const owned: Record<string, Record<string, number[]>> = { a: { t: [0, 1, 2, 3] }, b: { t: [0, 1, 2, 3] } };
    const epochs: Record<string, number> = { a: 0, b: 0 };
    for (let beat = 0; beat < 6; beat++) {
      for (const id of ['a', 'b']) {
        const isFirst = epochs[id] === 0;
        const answer = isFirst ? crashed.join(id) : crashed.heartbeat(id, epochs[id], { owned: owned[id] });
        epochs[id] = answer.memberEpoch;
        owned[id] = crashed.named(answer.assignment) ?? owned[id];
      }
    }
    t.is(crashed.group.state, 'Stable', `after ${count} events`);
    t.is((owned['a']['t']?.length ?? 0) + (owned['b']['t']?.length ?? 0), 4);
  }
});

test('an expression that costs too much is refused before the group knows of it; one that came to cost too much keeps what it found', (t) => {
  const bench = new ConsumerGroupBench();
  const hostile = '(a?){249}a{249}|t.*';
  for (let index = 0; index < 100; index++) bench.createTopic(`t${index}`, 1);
  bench.join('a', { topics: [], regex: hostile });
  t.is(Object.keys(bench.named(bench.group.target('a')) ?? {}).length, 100);
  for (let index = 0; index < 1_000; index++) bench.createTopic(`${'a'.repeat(240)}${index}`, 1);
  bench.deleteTopic('t7');
  bench.heartbeat('a', 2);
  t.is(Object.keys(bench.named(bench.group.target('a')) ?? {}).length, 99);
  const before = ConsumerGroupBench.state(bench.group);
  t.is(
    bench.refusal(() => bench.join('b', { topics: [], regex: `${hostile}|x` })),
    'INVALID_REGULAR_EXPRESSION',
  );
  t.deepEqual(ConsumerGroupBench.state(bench.group), before);
});
