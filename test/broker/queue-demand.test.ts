import test from 'ava';
import { QueueDemand } from '../../broker/queue-demand.ts';

function demandOf(...consumers: readonly [owner: number, priority: number, wanted: number][]): QueueDemand {
  const demand = new QueueDemand();
  for (const [owner, priority, wanted] of consumers) {
    demand.add({ owner, priority, isExclusive: false });
    demand.want(owner, wanted);
  }
  return demand;
}

/** Who gets how many, as long as the queue has messages. */
function served(demand: QueueDemand, messages: number): [number, number][] {
  const portions: [number, number][] = [];
  let left = messages;
  for (let turn = demand.next(); turn !== undefined && left > 0; turn = demand.next()) {
    const count = Math.min(left, turn.messages);
    portions.push([turn.owner, count]);
    demand.served(turn.owner, count);
    left -= count;
  }
  return portions;
}

test('consumers of one priority take turns in portions of 32', (t) => {
  const demand = demandOf([1, 0, 50], [2, 0, 40], [3, 0, 10]);
  t.deepEqual(served(demand, 1000), [
    [1, 32],
    [2, 32],
    [3, 10],
    [1, 18],
    [2, 8],
  ]);
  t.is(demand.next(), undefined);
});

test('a consumer that waits alone gets all it wants', (t) => {
  t.deepEqual(served(demandOf([1, 0, 500], [2, 0, 0]), 1000), [[1, 500]]);
});

test('consumers of higher priority come first, as long as they want something', (t) => {
  const demand = demandOf([1, 0, 5], [2, 10, 5], [3, -1, 5]);
  t.deepEqual(served(demand, 12), [
    [2, 5],
    [1, 5],
    [3, 2],
  ]);
  demand.want(2, 1);
  t.is(demand.next()?.owner, 2);
});

test('the turn is kept when a demand is renewed, and lost when it is served with nothing', (t) => {
  const demand = demandOf([1, 0, 5], [2, 0, 5]);
  demand.want(1, 7);
  t.deepEqual(demand.next(), { owner: 1, messages: 7 });
  demand.served(1, 0);
  t.deepEqual(demand.next(), { owner: 2, messages: 5 });
  t.is(demand.wanted(1), 7);
});

test('an exclusive consumer is alone', (t) => {
  const demand = new QueueDemand();
  t.true(demand.add({ owner: 1, priority: 0, isExclusive: true }));
  t.false(demand.add({ owner: 2, priority: 9, isExclusive: false }));
  t.is(demand.activeOwner, 1);
  demand.remove(1);
  t.true(demand.add({ owner: 2, priority: 9, isExclusive: false }));
  t.false(demand.add({ owner: 1, priority: 0, isExclusive: true }));
  t.is(demand.activeOwner, undefined);
});

test('of a single-active queue only one consumer is served, then the next by priority and age', (t) => {
  const demand = new QueueDemand({ isSingleActive: true });
  for (const [owner, priority] of [
    [1, 0],
    [2, 5],
    [3, 5],
  ]) {
    demand.add({ owner, priority, isExclusive: false });
    demand.want(owner, 100);
  }
  t.is(demand.activeOwner, 1);
  t.deepEqual(served(demand, 1000), [[1, 100]]);
  t.is(demand.next(), undefined);
  demand.remove(1);
  t.is(demand.activeOwner, 2);
  demand.isSingleActive = false;
  t.is(demand.activeOwner, undefined);
  t.deepEqual(demand.next(), { owner: 2, messages: 32 });
});

test('removing whose turn it is passes the turn on', (t) => {
  const demand = demandOf([1, 0, 5], [2, 0, 5], [3, 0, 5]);
  demand.remove(1);
  t.is(demand.next()?.owner, 2);
  demand.remove(3);
  t.deepEqual(demand.next(), { owner: 2, messages: 5 });
  demand.remove(2);
  t.is(demand.next(), undefined);
  t.is(demand.consumerCount, 0);
});
