import test from 'ava';
import { NEW_MEMBER_JOIN_TIMEOUT_MS } from '../../broker/group.ts';
import { Asked, GroupBench, joinRequest, subscription } from '../support/group-bench.ts';

const protocol = (name: string, ...topics: string[]) => ({ name, metadata: subscription(...topics) });

test('a first member is given an id, joins with it, leads and gets its assignment', (t) => {
  const bench = new GroupBench();
  const first = bench.join({ clientId: 'me' }).answer;
  t.is(first.error, 'MEMBER_ID_REQUIRED');
  t.is(first.memberId, 'me-1');
  t.is(bench.group.state, 'Empty');
  const asked = bench.join({ memberId: 'me-1' });
  t.false(asked.isAnswered, 'an empty group waits for its initial delay, here 0 ms');
  bench.advance(0);
  t.like(asked.answer, {
    error: 'NONE',
    memberId: 'me-1',
    generation: 1,
    leaderId: 'me-1',
    protocolType: 'consumer',
    protocolName: 'range',
    skipAssignment: false,
  });
  t.deepEqual(asked.answer.members, [{ memberId: 'me-1', groupInstanceId: null, metadata: subscription('t1') }]);
  t.is(bench.group.state, 'CompletingRebalance');
  const sync = bench.syncGroup('me-1', { 'me-1': 'all', ghost: 'nothing' });
  t.like(sync.answer, { error: 'NONE', protocolType: 'consumer', protocolName: 'range' });
  t.is(sync.answer.assignment.toString(), 'all');
  t.is(bench.group.state, 'Stable');
  t.is(bench.heartbeat('me-1'), 'NONE');
});

test('before JoinGroup 4 a member joins without being given an id first', (t) => {
  const bench = new GroupBench();
  const asked = bench.join({ version: 3 });
  bench.advance(0);
  t.is(asked.answer.error, 'NONE');
  t.is(asked.answer.memberId, 'client-1');
});

test('the answer to the leader waits until the assignment is durable, those of the others too', (t) => {
  const bench = new GroupBench();
  bench.isDurableAtOnce = false;
  const [one, two] = [bench.join().answer.memberId, bench.join().answer.memberId];
  bench.join({ memberId: one });
  bench.join({ memberId: two });
  bench.advance(0);
  const follower = bench.syncGroup(two);
  const leader = bench.syncGroup(one, { [one]: 'a', [two]: 'b' });
  const late = bench.syncGroup(two);
  t.deepEqual([leader.answers, follower.answers, late.answers], [[], [], []]);
  t.is(bench.events.length, 1);
  bench.sync();
  t.is(leader.answer.assignment.toString(), 'a');
  t.is(follower.answer.assignment.toString(), 'b');
  t.is(late.answer.assignment.toString(), 'b');
});

test('a second member makes the first join again; both are in the next generation', (t) => {
  const bench = new GroupBench();
  const [one] = bench.stable(1);
  const { memberId: two, asked: second } = bench.joinDynamic();
  t.is(bench.group.state, 'PreparingRebalance');
  t.is(bench.heartbeat(one), 'REBALANCE_IN_PROGRESS');
  t.false(second.isAnswered);
  const first = bench.join({ memberId: one });
  t.like(first.answer, { generation: 2, leaderId: one });
  t.is(first.answer.members.length, 2);
  t.like(second.answer, { generation: 2, leaderId: one, members: [] });
  const follower = bench.syncGroup(two);
  t.false(follower.isAnswered, 'waits for the leader');
  bench.syncGroup(one, { [one]: 'a', [two]: 'b' });
  t.is(follower.answer.assignment.toString(), 'b');
});

test('a member that does not join again within the rebalance timeout is removed, whatever its heartbeats', (t) => {
  const bench = new GroupBench();
  const [one] = bench.stable(1, { rebalanceTimeoutMs: 5_000 });
  const { asked, memberId: two } = bench.joinDynamic({ rebalanceTimeoutMs: 5_000 });
  bench.advance(4_000);
  t.is(bench.heartbeat(one), 'REBALANCE_IN_PROGRESS');
  bench.advance(1_000);
  t.like(asked.answer, { generation: 2, leaderId: two });
  t.is(asked.answer.members.length, 1);
  t.is(bench.heartbeat(one), 'UNKNOWN_MEMBER_ID');
});

test('a silent member is removed after its session timeout and the others rebalance', (t) => {
  const bench = new GroupBench();
  const [one, two] = bench.stable(2);
  bench.advance(9_999);
  t.is(bench.heartbeat(one), 'NONE');
  bench.advance(1);
  t.is(bench.group.state, 'PreparingRebalance');
  t.is(bench.heartbeat(two), 'UNKNOWN_MEMBER_ID');
  const again = bench.join({ memberId: one });
  t.like(again.answer, { error: 'NONE', generation: 2 });
  t.is(again.answer.members.length, 1);
});

test('a leader that dies between join and sync is replaced and the waiting follower told to join again', (t) => {
  const bench = new GroupBench();
  const [one, two] = [bench.join().answer.memberId, bench.join().answer.memberId];
  bench.join({ memberId: one });
  bench.join({ memberId: two });
  bench.advance(0);
  const follower = bench.syncGroup(two);
  bench.advance(10_000);
  t.is(follower.answer.error, 'REBALANCE_IN_PROGRESS');
  t.is(bench.group.state, 'PreparingRebalance');
  t.is(bench.group.leaderId, two);
  const again = bench.join({ memberId: two });
  t.like(again.answer, { generation: 2, leaderId: two });
});

test('members that never send SyncGroup are removed after the rebalance timeout', (t) => {
  const bench = new GroupBench();
  const options = { rebalanceTimeoutMs: 3_000, sessionTimeoutMs: 30_000 };
  const [one, two] = [bench.join(options).answer.memberId, bench.join(options).answer.memberId];
  bench.join({ ...options, memberId: one });
  bench.join({ ...options, memberId: two });
  bench.advance(0);
  bench.syncGroup(one, { [one]: 'a' });
  t.is(bench.group.state, 'Stable');
  bench.advance(3_000);
  t.is(bench.group.state, 'PreparingRebalance');
  t.is(bench.heartbeat(two), 'UNKNOWN_MEMBER_ID');
  t.is(bench.heartbeat(one), 'REBALANCE_IN_PROGRESS');
});

test('waiting for others does not count as silence', (t) => {
  const bench = new GroupBench();
  const options = { rebalanceTimeoutMs: 60_000, sessionTimeoutMs: 10_000 };
  const [one] = bench.stable(1, options);
  const { memberId: two, asked: second } = bench.joinDynamic({ ...options });
  bench.advance(8_000);
  bench.heartbeat(one);
  bench.advance(8_000);
  const first = bench.join({ ...options, memberId: one });
  t.like(second.answer, { generation: 2 });
  t.is(first.answer.error, 'NONE');
  const follower = bench.syncGroup(two);
  bench.advance(9_000);
  bench.heartbeat(one);
  bench.advance(9_000);
  t.false(follower.isAnswered);
  bench.syncGroup(one, { [two]: 'x' });
  t.is(follower.answer.assignment.toString(), 'x');
  bench.advance(9_999);
  t.is(bench.heartbeat(two), 'NONE', 'its session started anew with the answer');
});

test('a new member whose JoinGroup waits for too long is removed and told so', (t) => {
  const bench = new GroupBench();
  const options = { rebalanceTimeoutMs: 3_600_000, sessionTimeoutMs: 1_800_000 };
  bench.stable(1, options);
  const { asked } = bench.joinDynamic(options);
  bench.advance(NEW_MEMBER_JOIN_TIMEOUT_MS - 1);
  t.false(asked.isAnswered);
  bench.advance(1);
  t.is(asked.answer.error, 'UNKNOWN_MEMBER_ID');
});

test('an id that is not used within its session timeout lapses; until then a rebalance waits for it', (t) => {
  const bench = new GroupBench();
  const [one] = bench.stable(1);
  const pending = bench.join({ sessionTimeoutMs: 6_000 }).answer.memberId;
  const { asked: third } = bench.joinDynamic();
  const first = bench.join({ memberId: one });
  t.false(first.isAnswered, 'somebody else is about to join');
  bench.advance(6_000);
  t.is(first.answer.members.length, 2);
  t.is(third.answer.error, 'NONE');
  t.is(bench.join({ memberId: pending }).answer.error, 'UNKNOWN_MEMBER_ID');
});

test('an id that was handed out may be given back', (t) => {
  const bench = new GroupBench();
  const id = bench.join().answer.memberId;
  t.false(bench.group.isBlank);
  t.deepEqual(bench.leave(id, 'other'), ['NONE', 'UNKNOWN_MEMBER_ID']);
  t.true(bench.group.isBlank);
});

test('the initial delay is extended while members keep coming, up to the rebalance timeout', (t) => {
  const bench = new GroupBench({ 'group.initial.rebalance.delay.ms': 3_000 });
  const options = { rebalanceTimeoutMs: 5_000 };
  const { asked: first } = bench.joinDynamic(options);
  bench.advance(2_000);
  const { asked: second } = bench.joinDynamic(options);
  bench.advance(1_500);
  t.false(first.isAnswered);
  const { asked: third } = bench.joinDynamic(options);
  bench.advance(1_500);
  t.deepEqual(
    [first, second, third].map(({ answer }) => answer.generation),
    [1, 1, 1],
  );
  t.is(first.answer.members.length, 3);
});

test('the protocol that most members prefer wins among those that all have', (t) => {
  const bench = new GroupBench();
  const a = { protocols: [protocol('sticky'), protocol('range'), protocol('rr')] };
  const b = { protocols: [protocol('rr'), protocol('range')] };
  const joins = [bench.joinDynamic(a), bench.joinDynamic(b), bench.joinDynamic(b)].map(({ asked }) => asked);
  bench.advance(0);
  t.deepEqual(
    joins.map(({ answer }) => answer.protocolName),
    ['rr', 'rr', 'rr'],
  );
});

test('a member without a protocol in common, or of another type, is refused', (t) => {
  const bench = new GroupBench();
  bench.stable(1);
  t.is(bench.join({ protocols: [protocol('other')] }).answer.error, 'INCONSISTENT_GROUP_PROTOCOL');
  t.is(bench.join({ protocolType: 'connect' }).answer.error, 'INCONSISTENT_GROUP_PROTOCOL');
  const empty = new GroupBench();
  t.is(empty.join({ protocols: [] }).answer.error, 'INCONSISTENT_GROUP_PROTOCOL');
  t.is(empty.join({ protocolType: '' }).answer.error, 'INCONSISTENT_GROUP_PROTOCOL');
});

test('a follower that joins a stable group again with the same metadata is told the generation it is in', (t) => {
  const bench = new GroupBench();
  const [one, two] = bench.stable(2);
  t.like(bench.join({ memberId: two }).answer, { error: 'NONE', generation: 1, leaderId: one, members: [] });
  t.is(bench.group.state, 'Stable');
  t.false(bench.join({ memberId: one }).isAnswered, 'from the leader it means: assign anew');
  t.is(bench.group.state, 'PreparingRebalance');
});

test('changed metadata of a follower starts a rebalance', (t) => {
  const bench = new GroupBench();
  const [, two] = bench.stable(2);
  bench.join({ memberId: two, protocols: [protocol('range', 't1', 't2')] });
  t.is(bench.group.state, 'PreparingRebalance');
});

test('JoinGroup while completing: a retry is answered again, changed metadata starts over', (t) => {
  const bench = new GroupBench();
  const [one, two] = [bench.join().answer.memberId, bench.join().answer.memberId];
  bench.join({ memberId: one });
  bench.join({ memberId: two });
  bench.advance(0);
  const retry = bench.join({ memberId: one });
  t.is(retry.answer.generation, 1);
  t.is(retry.answer.members.length, 2);
  t.is(bench.group.state, 'CompletingRebalance');
  const sync = bench.syncGroup(one);
  const changed = bench.join({ memberId: two, protocols: [protocol('range', 't9')] });
  t.is(sync.isAnswered, true, 'the leader had sent its assignment: the group was stable');
  t.false(changed.isAnswered);
  t.is(bench.group.state, 'PreparingRebalance');
});

test('a JoinGroup sent twice is answered twice, alike', (t) => {
  const bench = new GroupBench();
  const [one] = bench.stable(1);
  const { memberId: two, asked } = bench.joinDynamic();
  const retry = bench.join({ memberId: two });
  bench.join({ memberId: one });
  t.deepEqual(asked.answer, retry.answer);
});

test('SyncGroup is checked: member, instance, generation, protocol, state', (t) => {
  const bench = new GroupBench();
  const [one] = bench.stable(1);
  t.is(bench.syncGroup('nobody').answer.error, 'UNKNOWN_MEMBER_ID');
  t.is(bench.syncGroup(one, {}, { instanceId: 'i' }).answer.error, 'UNKNOWN_MEMBER_ID');
  t.is(bench.syncGroup(one, {}, { generation: 7 }).answer.error, 'ILLEGAL_GENERATION');
  t.is(bench.syncGroup(one, {}, { protocolType: 'connect' }).answer.error, 'INCONSISTENT_GROUP_PROTOCOL');
  t.is(bench.syncGroup(one, {}, { protocolName: 'rr' }).answer.error, 'INCONSISTENT_GROUP_PROTOCOL');
  t.is(bench.syncGroup(one, {}, { protocolType: 'consumer', protocolName: 'range' }).answer.error, 'NONE');
  bench.joinDynamic();
  t.is(bench.syncGroup(one).answer.error, 'REBALANCE_IN_PROGRESS');
});

test('a wrong generation is told from an unknown member', (t) => {
  const bench = new GroupBench();
  const [one] = bench.stable(1);
  t.is(bench.heartbeat(one, { generation: 0 }), 'ILLEGAL_GENERATION');
  t.is(bench.heartbeat('nobody'), 'UNKNOWN_MEMBER_ID');
  t.is(bench.heartbeat(one, { instanceId: 'i' }), 'UNKNOWN_MEMBER_ID');
});

test('an assignment that does not fit a record fails the sync and starts over', (t) => {
  const bench = new GroupBench({ 'message.max.bytes': 1_000 });
  const { memberId } = bench.joinDynamic();
  bench.advance(0);
  const sync = bench.syncGroup(memberId, { [memberId]: 'x'.repeat(1_000) });
  t.is(sync.answer.error, 'UNKNOWN_SERVER_ERROR');
  t.is(bench.group.state, 'PreparingRebalance');
  t.is(bench.events.length, 0);
});

test('the last member leaves: the group is empty, in a new generation, and says so in the log', (t) => {
  const bench = new GroupBench();
  const [one, two] = bench.stable(2);
  t.deepEqual(bench.leave(one), ['NONE']);
  t.is(bench.group.state, 'PreparingRebalance');
  t.deepEqual(bench.leave(two), ['NONE']);
  t.is(bench.group.state, 'Empty');
  t.is(bench.group.generation, 2);
  t.like(bench.events.at(-1), {
    kind: 'group',
    value: { generation: 2, protocolType: 'consumer', protocol: null, leader: null, members: [] },
  });
});

test('members leave together: one error each, one rebalance', (t) => {
  const bench = new GroupBench();
  const [one, two, three] = bench.stable(3);
  t.deepEqual(bench.leave(one, 'nobody', two, two, { instanceId: 'i' }), [
    'NONE',
    'UNKNOWN_MEMBER_ID',
    'NONE',
    'UNKNOWN_MEMBER_ID',
    'UNKNOWN_MEMBER_ID',
  ]);
  t.is(bench.join({ memberId: three }).answer.generation, 2);
});

test('who leaves while waiting is answered', (t) => {
  const bench = new GroupBench();
  bench.stable(1);
  const { memberId, asked } = bench.joinDynamic();
  bench.leave(memberId);
  t.is(asked.answer.error, 'UNKNOWN_MEMBER_ID');
  const other = new GroupBench();
  const [a, b] = [other.join().answer.memberId, other.join().answer.memberId];
  other.join({ memberId: a });
  other.join({ memberId: b });
  other.advance(0);
  const sync = other.syncGroup(b);
  other.leave(b);
  t.is(sync.answer.error, 'UNKNOWN_MEMBER_ID');
});

test('a group that is full refuses new members and keeps those it has', (t) => {
  const bench = new GroupBench({ 'group.max.size': 2 });
  const [one, two] = bench.stable(2);
  t.like(bench.join().answer, { error: 'GROUP_MAX_SIZE_REACHED', memberId: '' });
  t.is(bench.group.state, 'Stable');
  bench.join({ memberId: one });
  const late = bench.joinDynamic();
  t.is(late.asked.isAnswered, false, 'there is a place until the others came back');
  t.is(bench.join({ memberId: two }).answer.error, 'GROUP_MAX_SIZE_REACHED');
  t.is(late.asked.answer.members.length, 0);
});

test('a static member needs no id first and comes back under a new id without a rebalance', (t) => {
  const bench = new GroupBench();
  const first = bench.join({ instanceId: 'i1', clientId: 'a' });
  bench.advance(0);
  const old = first.answer.memberId;
  t.is(old, 'i1-1');
  bench.syncGroup(old, { [old]: 'mine' }, { instanceId: 'i1' });
  bench.isDurableAtOnce = false;
  const again = bench.join({ instanceId: 'i1', clientId: 'b' });
  t.false(again.isAnswered, 'not before its new id is durable');
  bench.sync();
  const { memberId } = again.answer;
  t.not(memberId, old);
  t.like(again.answer, { error: 'NONE', generation: 1, leaderId: memberId, skipAssignment: true });
  t.is(again.answer.members.length, 1);
  t.is(bench.group.state, 'Stable');
  t.is(bench.heartbeat(old, { instanceId: 'i1' }), 'FENCED_INSTANCE_ID');
  t.is(bench.heartbeat(old), 'UNKNOWN_MEMBER_ID');
  t.is(bench.syncGroup(old, {}, { instanceId: 'i1' }).answer.error, 'FENCED_INSTANCE_ID');
  t.is(bench.join({ memberId: old, instanceId: 'i1' }).answer.error, 'FENCED_INSTANCE_ID');
  t.deepEqual(bench.leave({ instanceId: 'i1', memberId: old }), ['FENCED_INSTANCE_ID']);
  const sync = bench.syncGroup(memberId, {}, { instanceId: 'i1' });
  bench.sync();
  t.is(sync.answer.assignment.toString(), 'mine');
  t.is(bench.group.members[0].clientId, 'a', 'as in Apache Kafka, it keeps what it first said of itself');
});

test('before JoinGroup 9 a static leader that comes back is not told that it leads', (t) => {
  const bench = new GroupBench();
  const first = bench.join({ instanceId: 'i1', version: 5 });
  bench.advance(0);
  const old = first.answer.memberId;
  bench.syncGroup(old, { [old]: 'mine' });
  const again = bench.join({ instanceId: 'i1', version: 8 }).answer;
  t.like(again, { error: 'NONE', leaderId: old, members: [], skipAssignment: false });
});

test('a static member that comes back with other protocols starts a rebalance if the choice changes', (t) => {
  const bench = new GroupBench();
  const both = [protocol('range'), protocol('rr')];
  const first = bench.join({ instanceId: 'i1', protocols: both });
  bench.advance(0);
  bench.syncGroup(first.answer.memberId, {});
  t.true(bench.join({ instanceId: 'i1', protocols: [protocol('range')] }).isAnswered);
  t.is(bench.join({ instanceId: 'i1', protocols: [protocol('rr')] }).answer.error, 'INCONSISTENT_GROUP_PROTOCOL');
  bench.join({ instanceId: 'i1', protocols: both });
  const changed = bench.join({ instanceId: 'i1', protocols: [protocol('rr'), protocol('range')] });
  t.is(changed.answer.generation, 2);
  t.is(changed.answer.protocolName, 'rr');
});

test('a static member that comes back while completing starts over; the one it replaces is fenced at once', (t) => {
  const bench = new GroupBench();
  const first = bench.join({ instanceId: 'i1' });
  const second = bench.join({ instanceId: 'i2' });
  bench.advance(0);
  const sync = bench.syncGroup(second.answer.memberId, {}, { instanceId: 'i2' });
  const again = bench.join({ instanceId: 'i2' });
  t.is(sync.answer.error, 'FENCED_INSTANCE_ID');
  t.is(bench.group.state, 'PreparingRebalance');
  const third = bench.join({ instanceId: 'i2' });
  t.like(again.answer, { error: 'FENCED_INSTANCE_ID' });
  bench.join({ instanceId: 'i1', memberId: first.answer.memberId });
  t.is(third.answer.generation, 2);
});

test('a static member that is away keeps its place through a rebalance until its session ends', (t) => {
  const bench = new GroupBench();
  const options = { rebalanceTimeoutMs: 3_000, sessionTimeoutMs: 20_000 };
  const first = bench.join({ ...options, instanceId: 'i1' });
  const second = bench.join({ ...options, instanceId: 'i2' });
  bench.advance(0);
  const one = first.answer.memberId;
  bench.syncGroup(second.answer.memberId);
  bench.syncGroup(one);
  const again = bench.join({ ...options, instanceId: 'i1', memberId: one });
  bench.advance(3_000);
  t.is(again.answer.generation, 2);
  t.is(again.answer.members.length, 2);
});

test('a leader that is static and away does not keep the others from going on', (t) => {
  const bench = new GroupBench();
  const options = { rebalanceTimeoutMs: 3_000, sessionTimeoutMs: 20_000 };
  const first = bench.join({ ...options, instanceId: 'i1' });
  const second = bench.join({ ...options, instanceId: 'i2' });
  bench.advance(0);
  const two = second.answer.memberId;
  bench.syncGroup(two);
  bench.syncGroup(first.answer.memberId);
  const again = bench.join({ ...options, instanceId: 'i2', memberId: two, protocols: [protocol('range', 'new')] });
  bench.advance(3_000);
  t.like(again.answer, { error: 'NONE', leaderId: two, generation: 2 });
});

test('when all that are left are static and away, the group waits until their sessions end', (t) => {
  const bench = new GroupBench();
  const options = { rebalanceTimeoutMs: 1_000, sessionTimeoutMs: 20_000 };
  const first = bench.join({ ...options, instanceId: 'i1' });
  bench.advance(0);
  const one = first.answer.memberId;
  bench.syncGroup(one, { [one]: 'x' });
  const other = bench.joinDynamic(options);
  bench.leave(other.memberId);
  bench.advance(10_000);
  t.is(bench.group.state, 'PreparingRebalance');
  bench.advance(10_000);
  t.is(bench.group.state, 'Empty');
});

test('static members leave by their instance id alone', (t) => {
  const bench = new GroupBench();
  bench.join({ instanceId: 'i1' });
  bench.advance(0);
  t.deepEqual(bench.leave({ instanceId: 'i1' }, { instanceId: 'i1' }), ['NONE', 'UNKNOWN_MEMBER_ID']);
});

test('commits are checked: who, which generation, and not while an assignment is awaited', (t) => {
  const bench = new GroupBench();
  const commit = (memberId: string, generation: number, instanceId: string | null = null) =>
    bench.group.commitRefusal(bench.now, { memberId, generation, instanceId });
  t.is(commit('', -1), undefined);
  t.is(commit('somebody', -1), undefined, 'an empty group takes commits from outside');
  t.is(commit('somebody', 1), 'UNKNOWN_MEMBER_ID');
  const { memberId } = bench.joinDynamic();
  bench.advance(0);
  t.is(commit(memberId, 1), 'REBALANCE_IN_PROGRESS');
  bench.syncGroup(memberId);
  t.is(commit(memberId, 1), undefined);
  t.is(commit(memberId, 2), 'ILLEGAL_GENERATION');
  t.is(commit(memberId, -1), 'ILLEGAL_GENERATION');
  t.is(commit('', -1), 'UNKNOWN_MEMBER_ID');
  t.is(commit('', 1), 'UNKNOWN_MEMBER_ID');
  t.is(commit(memberId, 1, 'i'), 'UNKNOWN_MEMBER_ID');
  bench.advance(9_000);
  t.is(commit(memberId, 1), undefined);
  bench.advance(9_000);
  t.is(bench.heartbeat(memberId), 'NONE', 'a commit keeps the session alive');
  bench.joinDynamic();
  t.is(commit(memberId, 1), undefined, 'members commit while they prepare to rebalance');
});

test('what is loaded goes on with members, generation, leader and assignments', (t) => {
  const before = new GroupBench();
  const [one, two] = before.stable(2);
  before.join({ memberId: one });
  const after = new GroupBench({}, before);
  t.is(after.group.state, 'Stable');
  t.is(after.group.leaderId, one);
  t.is(after.heartbeat(one, { generation: 1 }), 'NONE');
  t.is(after.syncGroup(two, {}, { generation: 1 }).answer.assignment.toString(), `of ${two}`);
  t.true(after.group.isSubscribedTo('t1'));
  t.false(after.group.isSubscribedTo('t2'));
  after.advance(9_999);
  t.is(after.group.members.length, 2);
  after.advance(1);
  t.is(after.group.state, 'Empty');
});

test('a loaded group that is larger than allowed now rebalances', (t) => {
  const before = new GroupBench();
  before.stable(3);
  const after = new GroupBench({ 'group.max.size': 2 }, before);
  t.is(after.group.state, 'PreparingRebalance');
});

test('memory is given back: members, pending ids, assignments', (t) => {
  const bench = new GroupBench();
  bench.join();
  t.true(bench.group.membersBytes > 0);
  const ids = bench.stable(3);
  bench.join({ memberId: ids[0], protocols: [protocol('range', 'x'), protocol('rr', 'y')] });
  bench.leave(...ids);
  bench.advance(20_000);
  t.is(bench.group.membersBytes, 0);
});

test('what a member says of itself is kept as a copy', (t) => {
  const bench = new GroupBench();
  const request = joinRequest('g', { version: 3 });
  const asked = new Asked<Parameters<typeof answer>[0]>();
  const answer = (value: { members: readonly { metadata: Buffer }[] }): void => asked.reply(value);
  bench.group.join(bench.now, request, answer);
  request.protocols[0].metadata.fill(0xff);
  bench.advance(0);
  t.deepEqual(asked.answer.members[0].metadata, subscription('t1'));
});

test('a rebalance of many members takes steps in proportion to them', (t) => {
  const bench = new GroupBench();
  const ids = bench.stable(2_000);
  for (const memberId of ids) bench.join({ memberId });
  t.is(bench.group.generation, 2);
});
