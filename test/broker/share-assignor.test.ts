import test from 'ava';
import fc from 'fast-check';
import type { Partitions } from '../../broker/consumer-assignors.ts';
import { assignShares } from '../../broker/share-assignor.ts';

const NONE: Partitions = new Map();
const descending = (a: number, b: number): number => b - a;
const sizesOf = (assignment: ReadonlyMap<string, Partitions>): number[] =>
  [...assignment.values()].map((topics) => [...topics.values()].reduce((sum, { size }) => sum + size, 0));
const alike = (count: number, topics: readonly string[]) =>
  Array.from({ length: count }, (_one, index) => ({ id: `m${index}`, topics: new Set(topics), current: NONE }));

test('partitions and members are shared evenly, as Kafka’s simple assignor does', (t) => {
  // Members, partitions, and how many each member gets of Kafka 4.4.
  const cases: [number, number, number[]][] = [
    [1, 3, [3]],
    [2, 3, [2, 1]],
    [3, 3, [1, 1, 1]],
    [5, 2, [2, 1, 1, 1, 1]],
    [5, 3, [2, 1, 1, 1, 1]],
    [7, 3, [2, 1, 1, 1, 2, 1, 1]],
  ];
  for (const [memberCount, partitionCount, sizes] of cases) {
    const assignment = assignShares(alike(memberCount, ['t']), new Map([['t', partitionCount]]));
    t.deepEqual(
      sizesOf(assignment).sort(descending),
      [...sizes].sort(descending),
      `${memberCount} members, ${partitionCount} partitions`,
    );
  }
});

test('nobody is without partitions, no partition without a member, and all have equally many', (t) => {
  const members = fc.array(fc.subarray(['a', 'b', 'c'], { minLength: 1 }), { minLength: 1, maxLength: 12 });
  const counts = fc.record({
    a: fc.integer({ min: 1, max: 7 }),
    b: fc.integer({ min: 1, max: 7 }),
    c: fc.integer({ min: 1, max: 7 }),
  });
  fc.assert(
    fc.property(members, counts, fc.infiniteStream(fc.nat(6)), (subscriptions, partitions, chance) => {
      const current = (topics: readonly string[]): Partitions =>
        new Map(topics.map((topic) => [topic, new Set([chance.next().value ?? 0, chance.next().value ?? 0])]));
      const list = subscriptions.map((topics, index) => {
        return { id: `m${index}`, topics: new Set(topics), current: current(topics) };
      });
      const partitionCounts = new Map(Object.entries(partitions));
      const assignment = assignShares(list, partitionCounts);
      for (const { id, topics } of list) {
        const own = assignment.get(id) ?? NONE;
        t.true([...own.keys()].every((topic) => topics.has(topic)));
        t.true(own.size > 0, `${id} has nothing`);
      }
      for (const topic of new Set(subscriptions.flat())) {
        const held = [...assignment.values()].map((own) => own.get(topic) ?? new Set<number>());
        for (let partition = 0; partition < (partitionCounts.get(topic) ?? 0); partition++) {
          t.true(
            held.some((own) => own.has(partition)),
            `${topic}-${partition} has nobody`,
          );
        }
        t.true(held.every((own) => [...own].every((index) => index < (partitionCounts.get(topic) ?? 0))));
      }
    }),
    { numRuns: 300 },
  );
});

test('members keep what they had where that is even', (t) => {
  const counts = new Map([['t', 4]]);
  const first = assignShares(alike(1, ['t']), counts);
  const again = (count: number, before: ReadonlyMap<string, Partitions>) =>
    assignShares(
      alike(count, ['t']).map((member) => ({ ...member, current: before.get(member.id) ?? NONE })),
      counts,
    );
  const second = again(2, first);
  t.deepEqual(sizesOf(second), [2, 2]);
  t.deepEqual(again(2, second), second);
  const kept = [...(second.get('m1')?.get('t') ?? [])];
  const third = again(4, second);
  t.deepEqual(sizesOf(third), [1, 1, 1, 1]);
  t.true([...(third.get('m1')?.get('t') ?? [])].every((partition) => kept.includes(partition)));
});
