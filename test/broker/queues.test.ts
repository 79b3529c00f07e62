import test from 'ava';
import { PullDoor, PushDoor, QueueWorld, type WorldKind } from '../support/queue-world.ts';

const kinds: readonly WorldKind[] = ['memory', 'embedded'];
const values = (messages: readonly { value: string }[]): string[] => messages.map(({ value }) => value);

for (const kind of kinds) {
  test(`${kind}: what is published is pulled in order, deleted, and stays deleted over a restart`, async (t) => {
    const world = await QueueWorld.open({ kind });
    let queue = world.queue('orders');
    await world.publish('orders', ['a', 'b', 'c']);
    let door = new PullDoor(world, queue);
    const got = await door.receive({ max: 2 });
    t.deepEqual(values(got), ['a', 'b']);
    await door.delete([got[0]]);
    t.like(queue.counts(), { ready: 1, inFlight: 1 });
    await world.restart('kill');
    queue = world.queues.get('orders') ?? (t.fail('the queue is gone') as never);
    t.is(queue.kind, 'owned');
    t.like(queue.counts(), { ready: 1, inFlight: 1 });
    door = new PullDoor(world, queue);
    const rest = await door.receive();
    t.deepEqual(values(rest), ['c']);
    await door.delete(rest);
    await world.run(30_001);
    const again = await door.receive();
    t.deepEqual(values(again), ['b']);
    t.is(again[0].acquiredCount, 2);
    await door.delete(again);
    await world.close();
  });

  test(`${kind}: push with credit: prefetch bounds what arrives, acks refill it, a broken connection gives back`, async (t) => {
    const world = await QueueWorld.open({ kind });
    const queue = world.queue('work');
    const first = new PushDoor(world, queue, { prefetch: 2 });
    await world.publish('work', ['1', '2', '3', '4', '5']);
    await world.run(20);
    t.deepEqual(values(first.arrived), ['1', '2']);
    first.ack(first.arrived[0]);
    await world.run(20);
    t.deepEqual(values(first.arrived), ['1', '2', '3']);
    first.drop();
    const second = new PushDoor(world, queue, { prefetch: 10 });
    await world.run(20);
    t.deepEqual(values(second.arrived), ['2', '3', '4', '5']);
    t.deepEqual(
      second.arrived.map(({ acquiredCount, failedCount }) => [acquiredCount, failedCount]),
      [
        [2, 1],
        [2, 1],
        [1, 0],
        [1, 0],
      ],
    );
    second.ackAll();
    await world.durable();
    t.deepEqual(queue.counts(), { ready: 0, inFlight: 0, delayed: 0, blocked: 0 });
    await world.close();
  });
}

test('retention takes nothing that an owned queue has not finished, and what it has, as its history says', async (t) => {
  const world = await QueueWorld.open({ kind: 'embedded' });
  const queue = world.queues.declare({
    name: 'kept',
    kind: 'owned',
    family: 'millrace',
    settings: new Map([['replay.retention.ms', '1000']]),
    topicConfigs: new Map([['segment.bytes', '1048576']]),
  });
  const [log] = queue.topic.partitions;
  const big = 'x'.repeat(600_000);
  for (let index = 0; index < 5; index++) await world.publish('kept', [`${index}${big}`]);
  await world.run(5000);
  await world.clock.settle(world.engine.retain());
  t.is(log.startOffset, 0);
  const door = new PullDoor(world, queue);
  const got = await door.receive({ max: 3 });
  await door.delete(got.slice(0, 2));
  await world.run(5000);
  await world.clock.settle(world.engine.retain());
  t.true(log.startOffset > 0 && log.startOffset <= 2);
  t.is(queue.partition(0)?.startOffset, 2);
  await door.delete(got.slice(2));
  world.queues.configure(queue, new Map([['replay.retention.ms', '9000']]), 'millrace');
  t.is(log.config.retentionMs, 9000);
  await world.close();
});

test('a forgotten message does not keep what follows it', async (t) => {
  const world = await QueueWorld.open({ kind: 'embedded' });
  const queue = world.queues.declare({
    name: 'forgotten',
    kind: 'owned',
    family: 'millrace',
    settings: new Map([['replay.retention.ms', '1000']]),
    topicConfigs: new Map([['segment.bytes', '1048576']]),
  });
  const [log] = queue.topic.partitions;
  const value = 'x'.repeat(200);
  for (let batch = 0; batch < 25; batch++)
    await world.publish(
      'forgotten',
      Array.from({ length: 1000 }, () => value),
    );
  const door = new PushDoor(world, queue, { prefetch: 30_000 });
  await world.run(20);
  const [first, ...rest] = door.take();
  t.is(rest.length, 24_999);
  t.is(first, value);
  queue.settle(door.consumer, 0, [{ firstOffset: 1, lastOffset: 24_999, kind: 'accept' }]);
  await world.durable();
  const sizeBytes = log.sizeBytes;
  await world.run(5000);
  await world.clock.settle(world.engine.retain());
  t.is(log.startOffset, 0);
  await world.clock.settle(world.queues.retain());
  t.true(log.sizeBytes < sizeBytes / 2, `${log.sizeBytes} of ${sizeBytes}`);
  await world.restart('kill');
  const again = world.queues.get('forgotten') ?? queue;
  await world.publish('forgotten', ['new']);
  const found = await new PullDoor(world, again).receive();
  t.deepEqual(
    found.map(({ offset }) => offset),
    [0, 25_000],
  );
  await world.close();
});

test('an orderly stop keeps what nobody has waited for', async (t) => {
  const world = await QueueWorld.open({ kind: 'embedded' });
  const queue = world.queue('stopped');
  await world.publish('stopped', ['1', '2']);
  const door = new PushDoor(world, queue);
  await world.run(20);
  door.ack(door.arrived[0]);
  await world.restart('stop');
  t.like(world.queues.get('stopped')?.counts(), { ready: 1, inFlight: 0 });
  await world.close();
});
