import test from 'ava';
import fc from 'fast-check';
import { Unacked } from '../../../adapters/amqp/unacked.ts';

/** The obvious way. */
class Model {
  readonly waiting = new Map<number, string>();
  take(tag: number): string[] {
    const found = this.waiting.get(tag);
    this.waiting.delete(tag);
    return found === undefined ? [] : [found];
  }
  takeTo(lastTag: number): string[] {
    const taken: string[] = [];
    for (const [tag, message] of this.waiting) {
      if (tag > lastTag) break;
      taken.push(message);
      this.waiting.delete(tag);
    }
    return taken;
  }
}

const step = fc.oneof(
  {
    weight: 4,
    arbitrary: fc.record({ kind: fc.constant('add' as const), holder: fc.nat(1), jump: fc.nat(3), count: fc.nat(40) }),
  },
  { weight: 4, arbitrary: fc.record({ kind: fc.constant('take' as const), pick: fc.nat() }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('takeTo' as const), pick: fc.nat() }) },
);

test('acks in any order settle what a map of tags would settle, in the order of tags', (t) => {
  let settledCount = 0;
  fc.assert(
    fc.property(fc.array(step, { maxLength: 120, size: 'max' }), (steps) => {
      const unacked = new Unacked<string>();
      const model = new Model();
      let tag = 0;
      let offset = 0;
      const seen: string[] = [];
      const visit = (holder: string, first: number, last: number): void => {
        for (let each = first; each <= last; each++) seen.push(`${holder} ${each}`);
      };
      for (const each of steps) {
        seen.length = 0;
        if (each.kind === 'add') {
          offset += each.jump === 3 ? 5 : 0;
          for (let index = 0; index <= each.count; index++) {
            unacked.add(++tag, `h${each.holder}`, offset);
            model.waiting.set(tag, `h${each.holder} ${offset}`);
            offset++;
          }
        } else if (each.kind === 'take') {
          const picked = 1 + (each.pick % (tag + 2));
          const expected = model.take(picked);
          if (unacked.has(picked) !== expected.length > 0) return false;
          if (unacked.take(picked, visit) !== expected.length > 0) return false;
          if (seen.join() !== expected.join()) return false;
        } else {
          const picked = each.pick % (tag + 2);
          unacked.takeTo(picked, visit);
          if (seen.join() !== model.takeTo(picked).join()) return false;
        }
        if (unacked.size !== model.waiting.size) return false;
        settledCount += seen.length;
      }
      return true;
    }),
    { numRuns: 300 },
  );
  t.true(settledCount > 10_000, `${settledCount} settled messages were compared`);
});

test('a consumer that acks the newest first, or never the oldest, costs no search through all of them', (t) => {
  const unacked = new Unacked<string>();
  const visit = (): void => {};
  for (let tag = 1; tag <= 300_000; tag++) unacked.add(tag, 'h', tag);
  for (let tag = 300_000; tag > 1; tag--) unacked.take(tag, visit);
  t.is(unacked.size, 1);
  for (let tag = 300_001; tag <= 600_000; tag++) {
    unacked.add(tag, 'h', tag);
    unacked.take(tag, visit);
  }
  t.is(unacked.size, 1);
  t.true(unacked.take(1, visit));
  t.is(unacked.size, 0);
});
