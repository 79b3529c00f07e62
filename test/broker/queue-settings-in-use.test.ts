/** Every setting of a queue through both shapes of door. */
import test from 'ava';
import type { EmbeddedEngine } from '../../broker/embedded-engine.ts';
import { deathHistory } from '../../broker/queue-attributes.ts';
import { PullDoor, PushDoor, QueueWorld, type WorldKind } from '../support/queue-world.ts';

const kinds: readonly WorldKind[] = ['memory', 'embedded'];
const values = (messages: readonly { value: string }[]): string[] => messages.map(({ value }) => value);

for (const kind of kinds) {
  const open = (options = {}) => QueueWorld.open({ kind, options });

  test(`${kind}: an AMQP reject goes to the dead-letter queue, with its history, in one piece`, async (t) => {
    const world = await open();
    world.queue('dead');
    const queue = world.queue('work', { 'dead.letter.queue': 'dead' });
    const door = new PushDoor(world, queue);
    await world.publish('work', [{ value: 'bad', headers: { h: '1' }, key: 'k' }, 'good']);
    await world.run(20);
    door.nack(door.arrived[0], { requeue: false });
    door.ack(door.arrived[1]);
    await world.run(50);
    t.deepEqual(queue.counts(), { ready: 0, inFlight: 0, delayed: 0, blocked: 0 });
    const dead = new PullDoor(world, world.queues.get('dead') ?? queue);
    const [letter, ...rest] = await dead.receive();
    t.deepEqual(rest, []);
    t.is(letter.value, 'bad');
    t.is(letter.record.key?.toString(), 'k');
    t.is(letter.record.headers.find(({ key }) => key === 'h')?.value?.toString(), '1');
    t.like(deathHistory(letter.record.headers)?.first, { queue: 'work', reason: 'rejected' });
    t.like(world.queues.totals, { deadLettered: 1, dropped: 0 });
    await world.restart('kill');
    t.like(world.queues.get('work')?.counts(), { ready: 0, inFlight: 0 });
    t.like(world.queues.get('dead')?.counts(), { ready: 0, inFlight: 1 });
    await world.close();
  });

  test(`${kind}: each family's limit strikes when it does, and goes to its own target`, async (t) => {
    const world = await open();
    for (const name of ['dead-sqs', 'dead-amqp', 'dead']) world.queue(name);
    const limits = {
      'receive.limit': 2,
      'receive.dead.letter.queue': 'dead-sqs',
      'failed.limit': 1,
      'failed.dead.letter.queue': 'dead-amqp',
      'dead.letter.queue': 'dead',
    };
    const pulled = world.queue('pulled', { ...limits, 'failed.limit': -1 });
    await world.publish('pulled', ['p']);
    const pull = new PullDoor(world, pulled);
    for (let receive = 1; receive <= 2; receive++) {
      t.deepEqual(values(await pull.receive({ lockMs: 1000 })), ['p']);
      await world.run(1001);
    }
    // The third receive would exceed the limit.
    t.deepEqual(await pull.receive(), []);
    await world.run(20);
    const pushed = world.queue('pushed', { ...limits, 'receive.limit': 0 });
    await world.publish('pushed', ['q']);
    const push = new PushDoor(world, pushed);
    await world.run(20);
    push.nack(push.arrived[0], { requeue: true });
    await world.run(20);
    t.deepEqual(values(push.arrived), ['q', 'q']);
    push.nack(push.arrived[1], { requeue: true });
    await world.run(20);
    const counts = (name: string) => world.queues.get(name)?.counts().ready;
    t.deepEqual([counts('dead-sqs'), counts('dead-amqp'), counts('dead')], [1, 1, 0]);
    await world.close();
  });

  test(`${kind}: delays of queue and message, never early, over a restart`, async (t) => {
    const world = await open();
    let queue = world.queue('later', { 'delay.ms': 5000 });
    await world.publish('later', ['five', { value: 'ten', headers: { 'millrace.delay.ms': '10000' } }]);
    t.like(queue.counts(), { ready: 0, delayed: 2 });
    const early = new PushDoor(world, queue);
    await world.run(4000);
    t.deepEqual(early.take(), []);
    await world.restart('kill');
    queue = world.queues.get('later') ?? queue;
    t.like(queue.counts(), { ready: 0, delayed: 2 });
    const door = new PushDoor(world, queue);
    await world.run(900);
    t.deepEqual(door.take(), []);
    await world.run(150);
    t.deepEqual(door.take(), ['five']);
    await world.run(4900);
    t.deepEqual(door.take(), []);
    await world.run(200);
    t.deepEqual(door.take(), ['ten']);
    await world.close();
  });

  test(`${kind}: what expires is never delivered and goes to the dead letters by itself, in order`, async (t) => {
    const world = await open();
    const dead = world.queue('dead');
    const queue = world.queue('short', { 'ttl.ms': 1000, 'dead.letter.queue': 'dead' });
    await world.publish('short', ['a', { value: 'b', headers: { 'millrace.ttl.ms': '200' } }, 'c']);
    t.like(queue.counts(), { ready: 3 });
    await world.run(1200);
    t.like(queue.counts(), { ready: 0 });
    t.deepEqual(await new PullDoor(world, queue).receive(), []);
    const letters = await new PullDoor(world, dead).receive();
    t.deepEqual(values(letters), ['a', 'b', 'c']);
    t.is(deathHistory(letters[1].record.headers)?.first.reason, 'expired');
    await world.close();
  });

  test(`${kind}: messages go through a chain of queues that expire`, async (t) => {
    const world = await open();
    const last = world.queue('hop5');
    for (let hop = 4; hop >= 0; hop--)
      world.queue(`hop${hop}`, { 'ttl.ms': 100, 'dead.letter.queue': `hop${hop + 1}` });
    const sent = Array.from({ length: 50 }, (_, index) => `m${index}`);
    await world.publish('hop0', sent);
    await world.run(1000);
    t.like(last.counts(), { ready: 50 });
    const letters = await new PullDoor(world, last).receive({ max: 100 });
    t.deepEqual(values(letters), sent);
    t.is(deathHistory(letters[0].record.headers)?.deaths.length, 5);
    await world.close();
  });

  test(`${kind}: higher priority first, then order`, async (t) => {
    const world = await open();
    const queue = world.queue('urgent', { 'priority.max': 10 });
    const at = (value: string, priority: number) => ({ value, headers: { 'millrace.priority': String(priority) } });
    await world.publish('urgent', ['plain', at('low', 1), at('high', 9), at('high2', 9)]);
    t.deepEqual(values(await new PullDoor(world, queue).receive({ max: 3 })), ['high', 'high2', 'low']);
    await world.close();
  });

  test(`${kind}: groups of an ordered queue wait for their turn; keys are groups`, async (t) => {
    const world = await open();
    const queue = world.queue('ordered', { ordered: true });
    const of = (key: string, value: string) => ({ key, value });
    await world.publish('ordered', [of('a', 'a1'), of('b', 'b1'), of('a', 'a2'), 'free', of('b', 'b2')]);
    const first = new PullDoor(world, queue);
    const got = await first.receive({ max: 1 });
    t.deepEqual(values(got), ['a1']);
    t.deepEqual(values(await first.receive({ max: 2 })), ['b1', 'free']);
    t.deepEqual(values(await first.receive()), []);
    t.like(queue.counts(), { blocked: 2, inFlight: 3 });
    await first.delete(got);
    t.deepEqual(values(await first.receive()), ['a2']);
    await world.close();
  });

  test(`${kind}: a message sent twice within the window is there once, also over a restart and within a batch`, async (t) => {
    const world = await open();
    let queue = world.queue('once', { 'dedup.window.ms': 60_000 });
    const id = (value: string, dedup: string) => ({ value, headers: { 'millrace.dedup.id': dedup } });
    await world.publish('once', [id('1', 'x'), id('2', 'x'), id('3', 'y')]);
    await world.publish('once', [id('4', 'y'), '5']);
    t.deepEqual(values(await new PullDoor(world, queue).receive()), ['1', '3', '5']);
    await world.restart('kill');
    queue = world.queues.get('once') ?? queue;
    await world.publish('once', [id('6', 'x'), id('7', 'z')]);
    t.deepEqual(values(await new PullDoor(world, queue).receive()), ['7']);
    await world.run(60_000);
    await world.publish('once', [id('8', 'x')]);
    await new PullDoor(world, queue).receive();
    t.like(queue.counts(), { inFlight: 5 });
    await world.close();
  });

  test(`${kind}: too long a queue drops its oldest or refuses`, async (t) => {
    const world = await open();
    const dropping = world.queue('dropping', { 'max.messages': 2 });
    await world.publish('dropping', ['1', '2', '3', '4']);
    await world.run(20);
    t.deepEqual(values(await new PullDoor(world, dropping).receive()), ['3', '4']);
    world.queue('refusing', { 'max.messages': 2, overflow: 'refuse' });
    await world.publish('refusing', ['1', '2']);
    t.throws(() => world.append('refusing', ['3']), { message: /full/ });
    await world.close();
  });

  test(`${kind}: one active consumer at a time; the next when it goes`, async (t) => {
    const world = await open();
    const queue = world.queue('single', { 'single.active.consumer': true });
    const first = new PushDoor(world, queue, { prefetch: 1 });
    const second = new PushDoor(world, queue, { prefetch: 10 });
    await world.publish('single', ['1', '2', '3']);
    await world.run(20);
    t.deepEqual([first.take(), second.take()], [['1'], []]);
    first.drop();
    await world.run(20);
    t.deepEqual(second.take(), ['1', '2', '3']);
    await world.close();
  });

  test(`${kind}: an exclusive consumer is alone; priorities go first`, async (t) => {
    const world = await open();
    const queue = world.queue('mine');
    const alone = new PushDoor(world, queue, { isExclusive: true });
    t.throws(() => new PushDoor(world, queue), { code: 'QUEUE_IN_USE' });
    alone.drop();
    const low = new PushDoor(world, queue, { prefetch: 5 });
    t.throws(() => new PushDoor(world, queue, { isExclusive: true }), { code: 'QUEUE_IN_USE' });
    const high = new PushDoor(world, queue, { prefetch: 2, priority: 5 });
    await world.publish('mine', ['1', '2', '3']);
    await world.run(20);
    t.deepEqual([high.take(), low.take()], [['1', '2'], ['3']]);
    await world.close();
  });

  test(`${kind}: purge, and replay of what was finished`, async (t) => {
    const world = await open();
    const queue = world.queue('again');
    await world.publish('again', ['1', '2', '3', '4']);
    const door = new PullDoor(world, queue);
    const got = await door.receive({ max: 2 });
    await door.delete([got[0]]);
    t.is(queue.purge(), 2);
    t.like(queue.counts(), { ready: 0, inFlight: 1 });
    await world.durable();
    t.is(await queue.replay(0, 0, 3), 3);
    await world.durable();
    const replayed = await door.receive();
    t.deepEqual(values(replayed), ['1', '3', '4']);
    t.deepEqual(
      replayed.map(({ acquiredCount }) => acquiredCount),
      [1, 1, 1],
    );
    // What was handed out before the replay settles nothing.
    await t.throwsAsync(door.delete([got[0]]));
    await world.close();
  });

  test(`${kind}: a queue nobody uses is deleted with its topic`, async (t) => {
    const world = await open();
    const queue = world.queue('idle', { 'expires.ms': 5000 });
    const door = new PushDoor(world, queue);
    await world.run(10_000);
    t.truthy(world.queues.get('idle'));
    door.drop();
    await world.run(4000);
    t.truthy(world.queues.get('idle'));
    await world.run(1100);
    t.is(world.queues.get('idle'), undefined);
    t.is(world.topics.get('idle'), undefined);
    t.deepEqual(world.deletedTopics, ['idle']);
    await world.close();
  });

  test(`${kind}: a transient queue does not outlive a restart`, async (t) => {
    const world = await open();
    world.queue('passing', { transient: true });
    world.queue('staying');
    await world.publish('passing', ['1']);
    await world.restart('stop');
    t.is(world.queues.get('passing'), undefined);
    t.is(world.topics.get('passing'), undefined);
    t.truthy(world.queues.get('staying'));
    await world.close();
  });

  test(`${kind}: what is replayed from long ago still says what it said, and so does what comes in meanwhile`, async (t) => {
    const world = await open();
    const queue = world.queue('long', { 'priority.max': 10 });
    const at = (value: string, priority: number) => ({ value, headers: { 'millrace.priority': String(priority) } });
    const filler = Array.from({ length: 500 }, () => at('x', 1));
    await world.publish('long', ['0', '1', at('2', 9), '3']);
    for (let batch = 0; batch < 10; batch++) await world.publish('long', filler);
    const door = new PushDoor(world, queue, { prefetch: 10_000 });
    await world.run(50);
    t.is(door.take().length, 5004);
    door.ackAll();
    await world.durable();
    const replaying = Promise.resolve(queue.replay(0, 0, 3));
    await world.publish('long', ['new', at('new high', 10)]);
    t.is(await world.clock.settle(replaying), 4);
    await world.run(50);
    const replayed = door.take();
    t.deepEqual(replayed.toSorted(), ['0', '1', '2', '3', 'new', 'new high']);
    t.true(replayed.indexOf('2') < replayed.indexOf('0'));
    queue.moveTo(0, 2);
    await world.run(50);
    const anew = door.take();
    t.deepEqual(anew.slice(0, 2), ['new high', '2']);
    t.is(anew.length, 5004);
    await world.close();
  });
}

test('what happens in transient queues costs no byte of the journal', async (t) => {
  const world = await QueueWorld.open({ kind: 'embedded' });
  world.queue('kept', { 'dead.letter.queue': '' });
  await world.durable();
  await world.run(100);
  // A world with a disk has the engine with counters.
  const { counters } = world.engine as EmbeddedEngine;
  const before = { ...counters, files: world.disk?.operations };
  for (let round = 0; round < 20; round++) {
    const queue = world.queue(`reply-${round}`, { transient: true, 'dedup.window.ms': 60_000 });
    await world.publish(`reply-${round}`, ['a', { value: 'b', headers: { 'millrace.dedup.id': 'x' } }]);
    await world.publish(`reply-${round}`, [{ value: 'again', headers: { 'millrace.dedup.id': 'x' } }]);
    const door = new PullDoor(world, queue);
    const messages = await door.receive({ max: 10, waitMs: 10 });
    t.deepEqual(
      messages.map(({ value }) => value),
      ['a', 'b'],
    );
    await door.delete(messages);
    world.queues.delete(queue);
    await world.durable();
  }
  await world.run(100);
  const after = (world.engine as EmbeddedEngine).counters;
  t.is(after.journalBytes, before.journalBytes);
  t.is(world.disk?.operations, before.files);
  t.is(after.transientBytes, 0);
  t.deepEqual(world.reports, []);
  await world.close();
});

test('dead letters go between transient queues and kept ones', async (t) => {
  const world = await QueueWorld.open({ kind: 'embedded' });
  const kept = world.queue('kept');
  world.queue('passing', { transient: true });
  const from = world.queue('from', { 'dead.letter.queue': 'passing', 'ttl.ms': 50 });
  const back = world.queue('back', { transient: true, 'dead.letter.queue': 'kept', 'ttl.ms': 50 });
  await world.publish('from', ['one']);
  await world.publish('back', ['two']);
  await world.run(500);
  t.deepEqual(
    (await new PullDoor(world, world.queues.get('passing') ?? from).receive({ waitMs: 10 })).map(({ value }) => value),
    ['one'],
  );
  t.is(back.counts().ready, 0);
  await world.restart('kill');
  t.is(world.queues.get('passing'), undefined);
  t.is(world.topics.get('back'), undefined);
  t.deepEqual(
    (await new PullDoor(world, world.queues.get('kept') ?? kept).receive({ waitMs: 10 })).map(({ value }) => value),
    ['two'],
  );
  // Their names are free.
  world.queue('passing', { transient: true });
  await world.publish('passing', ['three']);
  await world.run(5);
  t.is(world.queues.get('passing')?.counts().ready, 1);
  await world.close();
});
