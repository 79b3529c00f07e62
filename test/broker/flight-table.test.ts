import test from 'ava';
import fc from 'fast-check';
import { FlightTable, IN_FLIGHT, READY } from '../../broker/flight-table.ts';

test('it agrees with a map', (t) => {
  const step = fc.record({
    kind: fc.constantFrom('insert', 'insert', 'insert', 'remove', 'own', 'until', 'due', 'shrink'),
    offset: fc.oneof(fc.nat(60), fc.nat(5000), fc.constantFrom(2 ** 40, 2 ** 40 + 1, 2 ** 32, 2 ** 32 + 16)),
    value: fc.nat(5),
  });
  fc.assert(
    fc.property(fc.array(step, { maxLength: 300 }), (steps) => {
      const table = new FlightTable();
      const map = new Map<number, { owner: number; untilMs: number; acquired: number }>();
      for (const { kind, offset, value } of steps) {
        const row = table.find(offset);
        const expected = map.get(offset);
        if ((row !== 0) !== (expected !== undefined)) return false;
        if (expected !== undefined) {
          if (table.owner(row) !== expected.owner || table.untilMs(row) !== expected.untilMs) return false;
          if (table.acquiredCount(row) !== expected.acquired || table.offsetOf(row) !== offset) return false;
        }
        if (kind === 'insert' && expected === undefined) {
          const added = table.insert(offset, IN_FLIGHT, 0);
          table.setAcquiredCount(added, value);
          map.set(offset, { owner: 0, untilMs: Number.POSITIVE_INFINITY, acquired: value });
        } else if (kind === 'remove' && expected !== undefined) {
          table.remove(row);
          map.delete(offset);
        } else if (kind === 'own' && expected !== undefined) {
          table.setOwner(row, value);
          expected.owner = value;
        } else if (kind === 'until' && expected !== undefined) {
          expected.untilMs = value === 0 ? Number.POSITIVE_INFINITY : value * 10;
          table.setUntilMs(row, expected.untilMs);
        } else if (kind === 'due') {
          const due = table.due(value * 10);
          const soonest = Math.min(...[...map.values()].map(({ untilMs }) => untilMs));
          if ((due !== 0) !== soonest <= value * 10) return false;
          if (due !== 0 && table.untilMs(due) !== soonest) return false;
        } else if (kind === 'shrink') table.shrink();
        if (table.count !== map.size) return false;
        const held = [...map.values()].filter(({ owner }) => owner === value).length;
        if (value > 0 && table.countOf(value) !== held) return false;
        if (value > 0 && (table.firstOf(value) !== 0) !== held > 0) return false;
      }
      return true;
    }),
    { numRuns: 200 },
  );
  t.pass();
});

test('a row takes at most 64 bytes, and memory comes back when few are left', (t) => {
  const table = new FlightTable();
  const count = 300_000;
  for (let offset = 0; offset < count; offset++) {
    const row = table.insert(offset * 3, IN_FLIGHT, 0);
    table.setOwner(row, 1 + (offset % 100));
    table.setUntilMs(row, 1000 + Math.floor(offset / 10));
  }
  // Half as much again is in reserve when it has just grown.
  t.true(table.sizeBytes / count < 96, `${table.sizeBytes / count}`);
  for (let offset = 1000; offset < count; offset++) table.remove(table.find(offset * 3));
  table.shrink();
  t.true(table.sizeBytes < 200_000, `${table.sizeBytes}`);
  t.is(table.count, 1000);
  t.is(table.offsetOf(table.find(2997)), 2997);
  t.is(table.nextDeadlineMs, 1000);
});

test('a mark is seen the second time and leaves the status alone', (t) => {
  const table = new FlightTable();
  const row = table.insert(5, READY, 3);
  t.true(table.mark(row));
  t.false(table.mark(row));
  t.is(table.status(row), READY);
  table.unmark(row);
  t.true(table.mark(row));
  t.is(table.details(row), 3);
});

test('failures are counted up to 65,535', (t) => {
  const table = new FlightTable();
  const row = table.insert(5, READY, 0);
  table.setFailedCount(row, 65_535);
  table.setFailedCount(row, table.failedCount(row) + 1);
  t.is(table.failedCount(row), 65_535);
});
