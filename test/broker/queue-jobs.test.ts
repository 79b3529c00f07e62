/** Redrive, move and appended replay: what they take, where it goes, at what rate, and that a restart changes nothing. */
import test, { type ExecutionContext } from 'ava';
import type { Job, JobRequest } from '../../broker/queue-jobs.ts';
import { deathHistory, messageId } from '../../broker/queue-attributes.ts';
import type { Queue } from '../../broker/queues.ts';
import { PullDoor, QueueWorld, type WorldEnd } from '../support/queue-world.ts';

/** Dead letters of `orders` in `dead`, rejected. */
async function rejected(world: QueueWorld, values: readonly string[]): Promise<{ orders: Queue; dead: Queue }> {
  const dead = world.queue('dead');
  const orders = world.queue('orders', { 'dead.letter.queue': 'dead' });
  await world.durable();
  await world.publish(
    'orders',
    values.map((value) => ({ value, key: `key-${value}`, headers: { kind: value.slice(0, 1) } })),
  );
  await world.run(1);
  const owner = world.queues.newOwner();
  const runs = orders.acquire(owner, 0, values.length);
  const last = runs.at(-1)?.lastOffset ?? 0;
  orders.settle(owner, 0, [{ firstOffset: runs[0].firstOffset, lastOffset: last, kind: 'reject' }]);
  await world.durable();
  await world.run(50);
  return { orders, dead };
}

async function ended(world: QueueWorld, id: number, ms = 60_000): Promise<Job> {
  for (let waited = 0; waited < ms; waited += 100) {
    const job = world.jobs.get(id);
    if (job === undefined) throw new Error(`no job ${id}`);
    if (job.status !== 'running') return job;
    await world.run(100);
  }
  throw new Error(`job ${id} does not end`);
}

async function start(world: QueueWorld, request: JobRequest): Promise<Job> {
  return ended(world, world.jobs.start(request).id);
}

async function values(world: QueueWorld, queue: Queue): Promise<string[]> {
  const messages = await new PullDoor(world, queue).receive({ max: 10_000 });
  return messages.map(({ value }) => value);
}

const many = (count: number, prefix = 'm'): string[] =>
  Array.from({ length: count }, (_, index) => `${prefix}${index}`);

test('redrive sends dead letters back to where they came from, in order, as new messages', async (t) => {
  const world = await QueueWorld.open();
  const { orders, dead } = await rejected(world, many(5));
  t.is(dead.counts().ready, 5);
  const job = await start(world, { kind: 'redrive', source: 'dead' });
  t.like(job, { status: 'done', scanned: 5, matched: 5, movedCount: 5, moved: { orders: 5 }, left: 0, error: null });
  await world.run(10);
  t.is(dead.counts().ready, 0);
  const messages = await new PullDoor(world, orders).receive({ max: 10 });
  t.deepEqual(
    messages.map(({ value }) => value),
    many(5),
  );
  const { record, offset } = messages[0];
  t.is(offset, 5);
  t.is(record.key?.toString(), 'key-m0');
  t.is(record.timestamp > 0, true);
  const place = { topicId: orders.topic.id, topic: 'orders', partition: 0, offset };
  t.is(messageId(place, record.headers), messageId(place, []), 'its id is that of its new place');
  t.is(deathHistory(record.headers)?.deaths[0].count, 1);
  t.deepEqual(world.reports, []);
  await world.close();
});

test('a filter takes what it describes and leaves the rest', async (t) => {
  const world = await QueueWorld.open();
  const { orders, dead } = await rejected(world, ['a1', 'b1', 'a2', 'b2']);
  const job = await start(world, { kind: 'redrive', source: 'dead', filter: ['header.kind=a', 'reason=rejected'] });
  t.like(job, { scanned: 4, matched: 2, movedCount: 2 });
  await world.run(10);
  t.deepEqual(await values(world, orders), ['a1', 'a2']);
  t.deepEqual(await values(world, dead), ['b1', 'b2']);
  for (const filter of [['key=none'], ['queue!=orders'], ['reason=expired'], ['origin=other'], ['header.none=x']]) {
    t.is((await start(world, { kind: 'redrive', source: 'dead', filter })).matched, 0, filter.join());
  }
  for (const filter of [
    ['kind=a'],
    ['key'],
    ['=x'],
    ['header.=x'],
    ['!=x'],
    Array.from({ length: 33 }, () => 'key=a'),
  ]) {
    t.throws(() => world.jobs.start({ kind: 'redrive', source: 'dead', filter }), { code: 'INVALID_REQUEST' });
  }
  await world.close();
});

test('a dry run counts and moves nothing', async (t) => {
  const world = await QueueWorld.open();
  const { dead } = await rejected(world, many(7));
  const job = await start(world, { kind: 'redrive', source: 'dead', isDryRun: true, filter: ['key!=key-m3'] });
  t.like(job, { status: 'done', scanned: 7, matched: 6, movedCount: 6, moved: { orders: 6 } });
  t.is(dead.counts().ready, 7);
  await world.restart();
  t.is(world.jobs.get(job.id), undefined);
  await world.close();
});

test('messages without an origin, or whose origin is gone, stay', async (t) => {
  const world = await QueueWorld.open();
  const { orders, dead } = await rejected(world, many(2));
  await world.publish('dead', ['straight']);
  await world.run(1);
  world.queues.delete(orders);
  const job = await start(world, { kind: 'redrive', source: 'dead' });
  t.like(job, { status: 'done', matched: 3, movedCount: 0, left: 3 });
  t.is(dead.counts().ready, 3);
  await world.close();
});

test('a move goes elsewhere, up to a number of messages', async (t) => {
  const world = await QueueWorld.open();
  world.queue('from');
  const to = world.queue('to');
  await world.publish('from', many(10));
  await world.run(1);
  const job = await start(world, { kind: 'move', source: 'from', target: 'to', messagesMax: 4 });
  t.like(job, { status: 'done', movedCount: 4, moved: { to: 4 } });
  await world.run(10);
  t.deepEqual(await values(world, to), many(4));
  t.is(world.queues.get('from')?.counts().ready, 6);
  t.throws(() => world.jobs.start({ kind: 'move', source: 'from' }), { code: 'INVALID_REQUEST' });
  t.throws(() => world.jobs.start({ kind: 'move', source: 'from', target: 'from' }), { code: 'INVALID_REQUEST' });
  t.throws(() => world.jobs.start({ kind: 'move', source: 'from', target: 'none' }), {
    code: 'UNKNOWN_TOPIC_OR_PARTITION',
  });
  t.throws(() => world.jobs.start({ kind: 'move', source: 'none', target: 'to' }), { code: 'QUEUE_NOT_FOUND' });
  t.throws(() => world.jobs.start({ kind: 'move', source: 'from', target: 'to', ratePerSecond: 0 }), {
    code: 'INVALID_REQUEST',
  });
  await world.close();
});

test('what is in flight is left alone', async (t) => {
  const world = await QueueWorld.open();
  const from = world.queue('from');
  const to = world.queue('to');
  await world.publish('from', many(4));
  await world.run(1);
  const owner = world.queues.newOwner();
  from.acquire(owner, 0, 2);
  const job = await start(world, { kind: 'move', source: 'from', target: 'to' });
  t.like(job, { scanned: 2, movedCount: 2 });
  await world.run(10);
  t.deepEqual(await values(world, to), ['m2', 'm3']);
  from.settle(owner, 0, [{ firstOffset: 0, lastOffset: 1, kind: 'accept' }]);
  t.deepEqual(from.counts(), { ready: 0, inFlight: 0, delayed: 0, blocked: 0 });
  await world.close();
});

test('a rate is kept, a source has one job, and a cancelled one stops where it is', async (t) => {
  const world = await QueueWorld.open();
  const from = world.queue('from');
  world.queue('to');
  await world.publish('from', many(300));
  await world.run(1);
  const job = world.jobs.start({ kind: 'move', source: 'from', target: 'to', ratePerSecond: 100 });
  t.throws(() => world.jobs.start({ kind: 'move', source: 'from', target: 'to' }), {
    code: 'QUEUE_IN_USE',
    message: /job 1 \(move\)/,
  });
  await world.run(1000);
  t.true(job.movedCount >= 90 && job.movedCount <= 120, `${job.movedCount} in a second`);
  world.jobs.cancel(job.id);
  const { movedCount } = job;
  await world.run(1000);
  t.like(job, { status: 'cancelled', movedCount });
  t.is(from.counts().ready, 300 - movedCount);
  t.is(world.jobs.cancel(job.id), job, 'cancelling it again does nothing');
  t.throws(() => world.jobs.cancel(99), { code: 'RESOURCE_NOT_FOUND' });
  t.like(await start(world, { kind: 'move', source: 'from', target: 'to' }), { movedCount: 300 - movedCount });
  await world.close();
});

test('a job ends when its source or its target is deleted', async (t) => {
  const world = await QueueWorld.open();
  for (const name of ['a', 'b', 'c']) world.queue(name);
  await world.publish('a', many(50));
  await world.publish('b', many(50));
  await world.run(1);
  const lost = (name: string) => world.queues.delete(world.queues.get(name) as Queue);
  const first = world.jobs.start({ kind: 'move', source: 'a', target: 'c', ratePerSecond: 10 });
  const second = world.jobs.start({ kind: 'move', source: 'b', target: 'c', ratePerSecond: 10 });
  await world.run(500);
  lost('a');
  await world.run(500);
  t.like(first, { status: 'failed', error: "queue 'a' was deleted" });
  lost('c');
  await world.run(500);
  t.like(second, { status: 'failed', error: "the target 'c' was deleted" });
  t.is(world.queues.get('b')?.counts().ready, 50 - second.movedCount);
  await world.close();
});

test('replay appends what the topic has kept, without touching the queue', async (t) => {
  const world = await QueueWorld.open();
  const queue = world.queue('q');
  await world.publish('q', many(6));
  await world.run(1);
  const owner = world.queues.newOwner();
  queue.acquire(owner, 0, 6);
  queue.settle(owner, 0, [{ firstOffset: 0, lastOffset: 5, kind: 'accept' }]);
  const ranges = [{ partition: 0, start: 2, end: 5 }];
  t.like(await start(world, { kind: 'replay', source: 'q', ranges }), {
    status: 'done',
    movedCount: 3,
    moved: { q: 3 },
  });
  await world.run(10);
  t.deepEqual(await values(world, queue), ['m2', 'm3', 'm4']);
  t.throws(() => world.jobs.start({ kind: 'replay', source: 'q', ranges: [{ partition: 1, start: 0, end: 1 }] }), {
    code: 'UNKNOWN_TOPIC_OR_PARTITION',
  });
  await world.close();
});

async function checkRestarts(t: ExecutionContext, seed: number, end: WorldEnd): Promise<void> {
  const world = await QueueWorld.open({ kind: 'embedded', seed });
  world.queue('from');
  world.queue('to');
  await world.durable();
  const sent = many(2500);
  for (let at = 0; at < sent.length; at += 500) await world.publish('from', sent.slice(at, at + 500));
  await world.run(1);
  const { id } = world.jobs.start({ kind: 'move', source: 'from', target: 'to', ratePerSecond: 5000 });
  await world.clock.settle(new Promise<void>((resolve) => world.jobs.whenDurable(resolve)));
  for (let restarts = 0; restarts < 4; restarts++) {
    await world.run(world.random.between(1, 150));
    await world.restart(end);
    const job = world.jobs.get(id);
    t.truthy(job);
    const waiting = world.queues.get('from')?.counts().ready ?? 0;
    const arrived = world.topics.get('to')?.partitions[0].highWatermark ?? 0;
    t.is(waiting + arrived, sent.length, 'each message is in one place');
    t.is(job?.movedCount, arrived, 'and the job says how many');
  }
  const job = await ended(world, id);
  t.like(job, { status: 'done', movedCount: sent.length });
  await world.run(10);
  t.deepEqual(await values(world, world.queues.get('to') as Queue), sent);
  t.deepEqual(world.reports, []);
  await world.close();
}

for (const seed of [1, 2, 3]) {
  test(`a job goes on after a restart, seed ${seed}`, (t) => checkRestarts(t, seed, 'stop'));
  test(`a job goes on after a kill, nothing lost or doubled, seed ${seed}`, (t) => checkRestarts(t, seed, 'kill'));
  test(`a job goes on after a power cut, nothing lost or doubled, seed ${seed}`, (t) =>
    checkRestarts(t, seed, { unsynced: 'torn' }));
}

test('a job waits for what its queue has yet to learn of its log', async (t) => {
  const world = await QueueWorld.open();
  const from = world.queue('from');
  world.queue('to');
  await world.publish('from', many(10));
  await world.run(1);
  const state = from.partition(0)?.state;
  if (state === undefined) throw new Error('the queue has no state');
  // As after a start, while the log is being read.
  Object.defineProperties(state, {
    endOffset: { get: () => 0, configurable: true },
    waiting: { value: () => [], configurable: true },
  });
  const job = world.jobs.start({ kind: 'move', source: 'from', target: 'to' });
  await world.run(1000);
  t.like(job, { status: 'running', scanned: 0 });
  Reflect.deleteProperty(state, 'endOffset');
  Reflect.deleteProperty(state, 'waiting');
  t.like(await ended(world, job.id), { status: 'done', movedCount: 10 });
  await world.close();
});

test('a move and a length limit that strikes meanwhile each take their own messages', async (t) => {
  const world = await QueueWorld.open();
  world.queue('dead');
  const from = world.queue('from', { 'dead.letter.queue': 'dead' });
  world.queue('to');
  await world.publish('from', many(3000));
  await world.run(1);
  const { id } = world.jobs.start({ kind: 'move', source: 'from', target: 'to', ratePerSecond: 2000 });
  for (let limit = 2900; limit > 0; limit -= 100) {
    await world.run(world.random.between(1, 20));
    world.queues.configure(from, new Map([['max.messages', String(limit)]]), 'millrace');
  }
  t.like(await ended(world, id), { status: 'done' });
  await world.run(1000);
  const counts = ['from', 'to', 'dead'].map((name) => world.queues.get(name)?.counts().ready ?? 0);
  t.is(
    counts.reduce((sum, count) => sum + count, 0),
    3000,
    counts.join(),
  );
  t.true(counts[1] > 0 && counts[2] > 0);
  t.deepEqual(world.reports, []);
  await world.close();
});
