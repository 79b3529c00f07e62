import test from 'ava';
import { Rates, type Reading } from '../../../adapters/management/rates.ts';
import { ManualClock } from '../../support/manual-clock.ts';

function setUp() {
  const clock = new ManualClock();
  const key = {};
  let values: Reading = { publish: 0, ack: 0 };
  let reads = 0;
  const rates = new Rates(clock, () => {
    reads++;
    return [[key, values] as const];
  });
  return {
    clock,
    key,
    rates,
    reads: () => reads,
    count: (next: Reading) => {
      values = next;
    },
  };
}

test('a rate is what was counted between two readings', (t) => {
  const { clock, key, rates, count } = setUp();
  rates.asked();
  t.deepEqual(rates.of(key), {});
  count({ publish: 50, ack: 10 });
  clock.advance(5_000);
  t.deepEqual(rates.of(key), { publish: 10, ack: 2 });
  clock.advance(5_000);
  t.deepEqual(rates.of(key), {});
  rates.close();
});

test('since when nothing has changed is known', (t) => {
  const { clock, key, rates, count } = setUp();
  rates.asked();
  const beginMs = clock.now();
  t.is(rates.idleSinceMs(key), undefined);
  clock.advance(20_000);
  t.is(rates.idleSinceMs(key), beginMs);
  count({ publish: 1, ack: 0 });
  clock.advance(5_000);
  t.is(rates.idleSinceMs(key), undefined);
  clock.advance(5_000);
  t.is(rates.idleSinceMs(key), beginMs + 25_000);
  rates.close();
});

test('nothing is read before somebody asks, nor long after', (t) => {
  const { clock, rates, reads } = setUp();
  clock.advance(60_000);
  t.is(reads(), 0);
  rates.asked();
  clock.advance(1_000_000);
  t.true(reads() > 100);
  t.is(clock.pendingTimers, 0);
  const before = reads();
  clock.advance(60_000);
  t.is(reads(), before);
  rates.asked();
  t.is(reads(), before + 1);
  rates.close();
});
