import test from 'ava';
import fc from 'fast-check';
import { Deadlines } from '../../broker/deadlines.ts';

test('what is due comes out soonest first, whatever the order it went in', (t) => {
  fc.assert(
    fc.property(fc.array(fc.nat(100)), fc.nat(100), (times, nowMs) => {
      const deadlines = new Deadlines<number>();
      times.forEach((atMs, index) => deadlines.add(atMs, index));
      t.is(deadlines.nextMs, Math.min(Number.POSITIVE_INFINITY, ...times));
      deadlines.prune((item) => item % 3 !== 0);
      const due: number[] = [];
      for (let next = deadlines.takeDue(nowMs); next; next = deadlines.takeDue(nowMs)) due.push(next.atMs);
      const expected = times.filter((atMs, index) => atMs <= nowMs && index % 3 !== 0).sort((a, b) => a - b);
      t.deepEqual(due, expected);
      t.is(deadlines.count, times.filter((_atMs, index) => index % 3 !== 0).length - due.length);
    }),
  );
});
