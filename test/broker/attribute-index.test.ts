import test from 'ava';
import fc from 'fast-check';
import { AttributeIndex } from '../../broker/attribute-index.ts';
import type { MessageAttributes } from '../../broker/queue.ts';

const NEVER = Number.POSITIVE_INFINITY;
const NOTHING: MessageAttributes = {
  priority: 0,
  notBeforeMs: 0,
  expiresAtMs: NEVER,
  group: undefined,
  dedupId: undefined,
};

test('it answers what was appended, and links the records of a group', (t) => {
  const record = fc.record({
    gap: fc.oneof(fc.constant(1), fc.integer({ min: 1, max: 5000 }), fc.integer({ min: 1, max: 2 ** 33 })),
    priority: fc.constantFrom(0, 0, 1, 255),
    notBeforeMs: fc.constantFrom(0, 0, 1_790_000_000_123, 1_790_000_500_000),
    expiresAtMs: fc.constantFrom(NEVER, NEVER, 1_790_000_000_001, 1_795_000_000_000),
    group: fc.constantFrom(undefined, 'a', 'b', 'ü'),
  });
  fc.assert(
    fc.property(fc.array(record, { maxLength: 200 }), fc.nat(220), (records, trimmed) => {
      const index = new AttributeIndex();
      const expected = new Map<number, MessageAttributes>();
      let offset = 0;
      for (const { gap, ...attributes } of records) {
        offset += gap;
        const whole = { ...attributes, dedupId: undefined };
        index.append(offset, whole);
        const says = whole.priority > 0 || whole.notBeforeMs > 0 || whole.expiresAtMs < NEVER || whole.group;
        if (says) expected.set(offset, whole);
      }
      if (index.count !== expected.size) return false;
      const offsets = [...expected.keys()];
      const trimTo = offsets[trimmed];
      if (trimTo !== undefined) index.trim(trimTo);
      const newest = new Map<string, number>();
      for (const [at, attributes] of [...expected].reverse()) {
        if (trimTo !== undefined && at < trimTo) {
          if (index.get(at) !== undefined) return false;
          continue;
        }
        const found = index.get(at);
        if (JSON.stringify(found) !== JSON.stringify(attributes)) return false;
        if (index.get(at + 1) !== undefined && !expected.has(at + 1)) return false;
        if (attributes.group === undefined) continue;
        const next = index.nextInGroup(index.find(at));
        const nextOffset = next < 0 ? undefined : index.offsetAt(next);
        if (nextOffset !== newest.get(attributes.group)) return false;
        newest.set(attributes.group, at);
      }
      return true;
    }),
    { numRuns: 200 },
  );
  t.pass();
});

test('a record with all attributes takes at most 24 bytes, one without any takes nothing', (t) => {
  const index = new AttributeIndex();
  const count = 50 * 1024;
  for (let offset = 0; offset < count; offset++) {
    index.append(2 * offset, {
      priority: 3,
      notBeforeMs: 1_790_000_000_000 + offset,
      expiresAtMs: 1_790_000_900_000,
      group: `g${offset % 100}`,
      dedupId: undefined,
    });
    index.append(2 * offset + 1, NOTHING);
  }
  t.is(index.count, count);
  t.true(index.sizeBytes / count <= 24);
  t.is(index.get(1), undefined);
});

test('the id of a group that has no records left is used again', (t) => {
  const index = new AttributeIndex();
  for (let offset = 0; offset < 100_000; offset++) {
    index.append(offset, { ...NOTHING, group: `only ${offset}` });
    if (offset % 5000 === 0) index.trim(offset);
  }
  index.trim(100_000);
  t.true(index.groupIdEnd < 20_000, `${index.groupIdEnd}`);
  t.true(index.count < 2048);
});

test('a chunk does not span more than its offsets can say', (t) => {
  const index = new AttributeIndex();
  const far = 2 ** 40;
  index.append(0, { ...NOTHING, priority: 1 });
  index.append(far, { ...NOTHING, priority: 2 });
  index.append(far + 7, { ...NOTHING, priority: 3 });
  t.deepEqual(
    [0, far, far + 7].map((offset) => index.get(offset)?.priority),
    [1, 2, 3],
  );
  t.is(index.following(index.find(0)), index.find(far));
  t.is(index.firstFrom(far + 1), index.find(far + 7));
  t.is(index.firstFrom(far + 8), -1);
  t.throws(() => index.append(far, { ...NOTHING, priority: 1 }), { instanceOf: RangeError });
});
