import test from 'ava';
import fc from 'fast-check';
import { TimerWheel } from '../../broker/timer-wheel.ts';

test('items come out when they are due, the sooner first', (t) => {
  const wheel = new TimerWheel<string>();
  wheel.set('a', 1_000);
  wheel.set('b', 500);
  wheel.set('c', 100_000);
  wheel.set('d', 700.5);
  t.is(wheel.takeDue(499), undefined);
  t.true(wheel.nextMs <= 500);
  t.is(wheel.takeDue(500), 'b');
  wheel.set('a', 2_000);
  t.is(wheel.takeDue(700), undefined);
  t.is(wheel.takeDue(1_999), 'd');
  t.is(wheel.takeDue(1_999), undefined);
  t.is(wheel.takeDue(2_000), 'a');
  wheel.delete('c');
  t.is(wheel.count, 0);
  t.is(wheel.nextMs, Number.POSITIVE_INFINITY);
});

test('an item that was set to the past is due at once', (t) => {
  const wheel = new TimerWheel<string>();
  wheel.set('a', 10_000);
  t.is(wheel.takeDue(20_000), 'a');
  wheel.set('b', 5_000);
  t.true(wheel.nextMs <= 20_001);
  t.is(wheel.takeDue(20_000), 'b');
});

test('it agrees with a list, wherever the clock goes', (t) => {
  const step = fc.oneof(
    fc.record({
      kind: fc.constant('set' as const),
      item: fc.nat(20),
      inMs: fc.oneof(fc.nat(100), fc.nat(1e7), fc.nat(1e12)),
    }),
    fc.record({ kind: fc.constant('delete' as const), item: fc.nat(20), inMs: fc.constant(0) }),
    fc.record({
      kind: fc.constant('go' as const),
      item: fc.constant(0),
      inMs: fc.oneof(fc.integer({ min: -50, max: 200 }), fc.nat(1e8)),
    }),
    fc.record({ kind: fc.constant('jump' as const), item: fc.constant(0), inMs: fc.constant(0) }),
  );
  fc.assert(
    fc.property(fc.array(step, { maxLength: 60 }), fc.constantFrom(0, 1_790_000_000_000), (steps, start) => {
      const wheel = new TimerWheel<number>();
      const list = new Map<number, number>();
      let now: number = start;
      for (const { kind, item, inMs } of steps) {
        if (kind === 'set') {
          wheel.set(item, now + inMs);
          list.set(item, now + inMs);
        } else if (kind === 'delete') {
          wheel.delete(item);
          list.delete(item);
        } else {
          // As the one timer does: it wakes at `nextMs`, over and over.
          now =
            kind === 'go' ? Math.max(0, now + inMs) : Number.isFinite(wheel.nextMs) ? Math.max(now, wheel.nextMs) : now;
          const due = [...list].filter(([, atMs]) => atMs <= now).map(([one]) => one);
          const taken: number[] = [];
          for (let one = wheel.takeDue(now); one !== undefined; one = wheel.takeDue(now)) taken.push(one);
          const inOrder = (one: number, other: number): number => one - other;
          if (taken.sort(inOrder).join() !== due.sort(inOrder).join()) return false;
          for (const one of due) list.delete(one);
        }
        if (wheel.count !== list.size) return false;
        if (wheel.nextMs > Math.max(now + 1, Math.min(...list.values()))) return false;
      }
      return true;
    }),
    { numRuns: 300 },
  );
  t.pass();
});

test('waking at the time it names reaches every item after a few steps', (t) => {
  const wheel = new TimerWheel<string>();
  wheel.set('far', 86_400_000 * 800);
  let wakes = 0;
  for (let now = wheel.nextMs; wheel.takeDue(now) === undefined; now = wheel.nextMs) wakes++;
  t.true(wakes < 50, `${wakes}`);
});
