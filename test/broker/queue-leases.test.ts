/** When what a queue hands out leaves, and what a crash forgets of it (docs/decisions/0033-handing-out-does-not-wait.md). */
import test from 'ava';
import type { EmbeddedEngine } from '../../broker/embedded-engine.ts';
import { PullDoor, PushDoor, QueueWorld } from '../support/queue-world.ts';

/** Waits until the partition's mark is durable: what follows is below it. */
async function warm(world: QueueWorld, name: string): Promise<PushDoor> {
  const queue = world.queue(name);
  const door = new PushDoor(world, queue, { prefetch: 50 });
  await world.publish(name, ['first']);
  await world.run(20);
  await world.durable();
  door.ackAll();
  await world.durable();
  door.take();
  return door;
}

const groups = (world: QueueWorld): number => (world.engine as EmbeddedEngine).counters.groups;

test('a delivery on a connection waits for no write, and many share one', async (t) => {
  const world = await QueueWorld.open({ kind: 'embedded' });
  const door = await warm(world, 'fast');
  await world.publish(
    'fast',
    Array.from({ length: 30 }, (_message, index) => String(index)),
  );
  const before = groups(world);
  await world.run(0);
  t.is(door.arrived.length, 30);
  for (const message of door.arrived.splice(0)) {
    door.ack(message);
    await world.run(0);
  }
  await world.run(20);
  t.true(groups(world) - before <= 6, `${groups(world) - before} groups`);
  await world.close();
});

test('with queue.leases synced a delivery is counted over any crash', async (t) => {
  const world = await QueueWorld.open({ kind: 'embedded', options: { 'queue.leases': 'synced' } });
  const door = await warm(world, 'careful');
  await world.publish('careful', ['a']);
  while (door.arrived.length === 0) await world.run(0);
  await world.restart({ unsynced: 'lost' });
  const again = new PushDoor(world, world.queues.get('careful') ?? t.fail(), { prefetch: 1 });
  await world.run(20);
  t.is(again.arrived[0].acquiredCount, 2);
  await world.close();
});

test('a delivery that a crash forgets comes again, as a redelivery with the older count', async (t) => {
  const world = await QueueWorld.open({ kind: 'embedded' });
  const door = await warm(world, 'known');
  await world.publish('known', ['a', 'b']);
  await world.run(0);
  t.deepEqual(
    door.arrived.map(({ value, isRedelivery }) => [value, isRedelivery]),
    [
      ['a', false],
      ['b', false],
    ],
  );
  await world.restart({ unsynced: 'lost' });
  await world.publish('known', ['new']);
  const again = new PushDoor(world, world.queues.get('known') ?? t.fail());
  await world.run(20);
  t.deepEqual(
    again.arrived.map(({ value, isRedelivery, acquiredCount }) => [value, isRedelivery, acquiredCount]),
    [
      ['a', true, 1],
      ['b', true, 1],
      ['new', false, 1],
    ],
  );
  await world.close();
});

test('after an orderly stop only what was handed out is a redelivery', async (t) => {
  const world = await QueueWorld.open({ kind: 'embedded' });
  const door = await warm(world, 'calm');
  door.consumer.want({ messages: 1 });
  await world.publish('calm', ['a', 'b']);
  await world.run(0);
  t.deepEqual(door.take(), ['a']);
  await world.restart('stop');
  const again = new PushDoor(world, world.queues.get('calm') ?? t.fail());
  await world.run(20);
  t.deepEqual(
    again.arrived.map(({ value, isRedelivery, acquiredCount }) => [value, isRedelivery, acquiredCount]),
    [
      ['a', true, 2],
      ['b', false, 1],
    ],
  );
  await world.close();
});

test('a lock that outlives its connection is durable before its message leaves', async (t) => {
  const world = await QueueWorld.open({ kind: 'embedded' });
  await warm(world, 'kept');
  world.queues.get('kept')?.joined.forEach((consumer) => consumer.close({ isFailure: false }));
  await world.publish('kept', ['a']);
  const queue = world.queues.get('kept') ?? t.fail();
  t.deepEqual(
    (await new PullDoor(world, queue).receive()).map(({ value }) => value),
    ['a'],
  );
  await world.restart({ unsynced: 'lost' });
  t.like(world.queues.get('kept')?.counts(), { ready: 0, inFlight: 1 });
  await world.close();
});

test('a group that begins at the end begins there after a crash, too, if it has handed out anything', async (t) => {
  const world = await QueueWorld.open({ kind: 'embedded' });
  const topic = world.topic('log');
  await world.publish('log', ['before']);
  const queue = world.queues.shareQueue('late', topic);
  const door = new PushDoor(world, queue);
  await world.publish('log', ['after']);
  await world.run(20);
  t.deepEqual(door.take(), ['after']);
  await world.publish('log', ['more']);
  await world.restart({ unsynced: 'lost' });
  const again = new PushDoor(world, world.queues.shareQueue('late', world.topics.get('log') ?? t.fail()));
  await world.run(20);
  t.deepEqual(again.take(), ['after', 'more']);
  await world.close();
});
