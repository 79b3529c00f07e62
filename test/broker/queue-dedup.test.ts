/** Deduplication of a queue in time: ids that are forgotten, and duplicates that are found late. */
import test from 'ava';
import { DedupBudget } from '../../broker/dedup.ts';
import { QueueDedup } from '../../broker/queue-dedup.ts';
import { PullDoor, QueueWorld } from '../support/queue-world.ts';

test('ids are forgotten by time, once the log was read', (t) => {
  const budget = new DedupBudget(1e9);
  let isCaughtUp = false;
  const parts = { windowMs: 1000, budget, highWatermark: () => 0, isCaughtUp: () => isCaughtUp };
  const dedup = new QueueDedup(parts);
  t.is(dedup.nextDeadlineMs, Number.POSITIVE_INFINITY);
  const entries = Array.from({ length: 25_000 }, (_, offsetDelta) => ({
    offsetDelta,
    attributes: {
      priority: 0,
      notBeforeMs: 0,
      expiresAtMs: Number.POSITIVE_INFINITY,
      group: undefined,
      dedupId: `${offsetDelta}`,
    },
  }));
  dedup.add(0, { baseOffset: 0, lastOffset: 24_999, appendedMs: 5000, entries });
  const dueMs = dedup.nextDeadlineMs;
  t.true(dueMs >= 6000);
  dedup.due(dueMs);
  t.is(budget.ids, 25_000, 'a record that is yet to be looked at may lean on them');
  isCaughtUp = true;
  let nowMs = dedup.nextDeadlineMs;
  t.true(nowMs > dueMs, 'not at once again');
  for (let turns = 0; dedup.nextDeadlineMs <= nowMs && turns < 10; turns++) dedup.due(nowMs);
  t.is(budget.ids, 0);
  nowMs = dedup.nextDeadlineMs;
  t.is(nowMs, Number.POSITIVE_INFINITY);
});

for (const late of [false, true]) {
  test(`a duplicate that a kill left in the log is found by the next start${late ? ', long after the window' : ''}`, async (t) => {
    const world = await QueueWorld.open({ kind: 'embedded' });
    const queue = world.queue('q', { 'dedup.window.ms': 10_000 });
    await world.durable();
    const message = (value: string) => ({ value, headers: { 'millrace.dedup.id': 'x' } });
    await world.publish('q', [message('first'), 'other']);
    await world.run(5000);
    await world.publish('q', [message('second')]);
    if (late) world.clock.jump(1_000_000);
    await world.restart('kill');
    const again = world.queues.get('q') ?? queue;
    const messages = await new PullDoor(world, again).receive({ max: 10 });
    t.deepEqual(
      messages.map(({ value }) => value),
      ['first', 'other'],
    );
    await world.publish('q', [message('third')]);
    await world.run(1);
    const more = await new PullDoor(world, again).receive({ max: 10 });
    t.is(more.length, late ? 1 : 0);
    await world.close();
  });
}
