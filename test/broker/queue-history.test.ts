/** What all queues together keep of what they have finished. */
import test from 'ava';
import fc from 'fast-check';
import { levelOf } from '../../broker/queue-history.ts';
import { PullDoor, QueueWorld } from '../support/queue-world.ts';

test('small histories stay whole, large ones become alike', (t) => {
  t.is(levelOf([1, 5, 100, 100], 66), 30);
  t.is(levelOf([10, 10], 30), Number.POSITIVE_INFINITY);
  t.is(levelOf([], 0), Number.POSITIVE_INFINITY);
  fc.assert(
    fc.property(fc.array(fc.nat(1000), { minLength: 1 }), fc.nat(2000), (sizes, allowed) => {
      const level = levelOf(sizes, allowed);
      const kept = sizes.reduce((sum, size) => sum + Math.min(size, level), 0);
      const total = sizes.reduce((sum, size) => sum + size, 0);
      return Math.abs(kept - Math.min(total, allowed)) < 1e-6;
    }),
  );
});

test('beyond the total the largest histories give up their oldest part, and nothing that is not finished goes', async (t) => {
  const world = await QueueWorld.open({
    kind: 'embedded',
    tune: (options) => {
      options['queue.replay.total.bytes'] = 100_000;
    },
  });
  const value = 'x'.repeat(1000);
  for (const [name, messages] of [
    ['large', 400],
    ['small', 20],
  ] as const) {
    const queue = world.queue(name);
    const [log] = queue.topic.partitions;
    log.config = { ...log.config, segmentBytes: 20_000 };
    for (let sent = 0; sent < messages; sent += 10) await world.publish(name, new Array(10).fill(value));
    const door = new PullDoor(world, queue);
    for (let taken = 0; taken < messages - 10; ) {
      const received = await door.receive({ max: 50, waitMs: 5 });
      await door.delete(received.slice(0, messages - 10 - taken));
      taken += received.length;
    }
  }
  await world.clock.settle(world.queues.retain());
  await world.durable();
  await world.run(10);
  const [large] = world.topics.get('large')?.partitions ?? [];
  const [small] = world.topics.get('small')?.partitions ?? [];
  t.is(small.startOffset, 0);
  t.true(large.startOffset > 270 && large.startOffset <= 330, `starts at ${large.startOffset}`);
  t.is(world.queues.get('large')?.partition(0)?.startOffset, 390);
  await world.clock.settle(world.queues.retain());
  t.true(large.startOffset <= 350, `starts at ${large.startOffset}`);
  t.deepEqual(world.reports, []);
  await world.close();
});
