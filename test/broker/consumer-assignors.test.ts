/** What the assignors promise: each partition once, shares that differ by at most one, and as few moves as that takes. */
import { readFileSync } from 'node:fs';
import { isDeepStrictEqual } from 'node:util';
import test from 'ava';
import fc from 'fast-check';
import { type AssignorMember, assignors, type Partitions } from '../../broker/consumer-assignors.ts';

function member(id: string, topics: readonly string[], current: Record<string, number[]> = {}): AssignorMember {
  return {
    id,
    instanceId: null,
    topics: new Set(topics),
    current: new Map(Object.entries(current).map(([topic, partitions]) => [topic, new Set(partitions)])),
  };
}
const plain = (assignment: Map<string, Partitions>): Record<string, Record<string, number[]>> =>
  Object.fromEntries(
    [...assignment].map(([id, partitions]) => [
      id,
      Object.fromEntries([...partitions].map(([topic, indexes]) => [topic, [...indexes]])),
    ]),
  );
const sizeOf = (partitions: Partitions | undefined): number =>
  [...(partitions ?? [])].reduce((sum, [, { size }]) => sum + size, 0);

test('range gives each member the same range of every topic', (t) => {
  const members = [
    { ...member('z', ['a', 'b']), instanceId: 'i1' },
    member('m2', ['a', 'b']),
    member('m1', ['a', 'b', 'c']),
  ];
  const counts = new Map([
    ['a', 4],
    ['b', 2],
    ['c', 1],
  ]);
  t.deepEqual(plain(assignors['range'](members, counts)), {
    z: { a: [0, 1], b: [0] },
    m1: { a: [2], b: [1], c: [0] },
    m2: { a: [3] },
  });
});

test('uniform moves only what it must', (t) => {
  const counts = new Map([['a', 6]]);
  const two = assignors['uniform']([member('x', ['a'], { a: [0, 1, 2, 3, 4, 5] }), member('y', ['a'])], counts);
  t.deepEqual(plain(two), { x: { a: [0, 1, 2] }, y: { a: [3, 4, 5] } });
  const grown = assignors['uniform'](
    [member('x', ['a'], { a: [0, 1, 2] }), member('y', ['a'], { a: [3, 4, 5] })],
    new Map([['a', 8]]),
  );
  t.deepEqual(plain(grown), { x: { a: [0, 1, 2, 6] }, y: { a: [3, 4, 5, 7] } });
});

test('nobody, nothing and unknown topics are fine', (t) => {
  for (const assign of Object.values(assignors)) {
    t.is(assign([], new Map([['a', 1]])).size, 0);
    t.deepEqual(plain(assign([member('x', [])], new Map())), { x: {} });
    t.deepEqual(plain(assign([member('x', ['gone'], { gone: [0] })], new Map())), { x: {} });
  }
});

const topics = ['a', 'b', 'c', 'd'];
const counts = fc.record(Object.fromEntries(topics.map((topic) => [topic, fc.nat(7)])));
const subscription = fc.subarray(topics);

test('every partition that somebody subscribes to has one owner, who subscribes to it', (t) => {
  const current = fc.array(fc.tuple(fc.constantFrom(...topics), fc.nat(8)), { maxLength: 10 });
  fc.assert(
    fc.property(counts, fc.array(fc.tuple(subscription, current), { minLength: 1, maxLength: 6 }), (sizes, specs) => {
      const members = specs.map(([subscribed, had], index) => {
        const own: Record<string, number[]> = {};
        for (const [topic, partition] of had) own[topic] = [...(own[topic] ?? []), partition];
        return member(`m${index}`, subscribed, own);
      });
      for (const assign of Object.values(assignors)) {
        const assignment = assign(members, new Map(Object.entries(sizes)));
        const owners = new Map<string, string>();
        for (const { id, topics: subscribed } of members) {
          for (const [topic, partitions] of assignment.get(id) ?? []) {
            for (const partition of partitions) {
              if (!subscribed.has(topic) || partition >= sizes[topic]) return false;
              if (owners.has(`${topic}-${partition}`)) return false;
              owners.set(`${topic}-${partition}`, id);
            }
          }
        }
        const wanted = topics.filter((topic) => members.some((one) => one.topics.has(topic)));
        if (owners.size !== wanted.reduce((sum, topic) => sum + sizes[topic], 0)) return false;
      }
      return true;
    }),
  );
  t.pass();
});

test('uniform: alike members differ by at most one, an assignment at rest stays, a leaving member moves only its own', (t) => {
  fc.assert(
    fc.property(counts, fc.integer({ min: 2, max: 6 }), subscription, (sizes, memberCount, subscribed) => {
      const partitionCounts = new Map(Object.entries(sizes));
      const first = Array.from({ length: memberCount }, (_value, index) => member(`m${index}`, subscribed));
      const assigned = assignors['uniform'](first, partitionCounts);
      const loads = [...assigned.values()].map(sizeOf);
      if (Math.max(...loads) - Math.min(...loads) > 1) return false;

      const settled = first.map((one) => ({ ...one, current: assigned.get(one.id) ?? new Map() }));
      const again = assignors['uniform'](settled, partitionCounts);
      const rest = assignors['uniform'](settled.slice(1), partitionCounts);
      return settled.every((one) => {
        const before = [...one.current].flatMap(([topic, indexes]) => [...indexes].map((index) => `${topic}-${index}`));
        const keeps = (assignment: Map<string, Partitions>): boolean =>
          before.every((name) =>
            assignment
              .get(one.id)
              ?.get(name[0])
              ?.has(Number(name.slice(2))),
          );
        return keeps(again) && (one === settled[0] || keeps(rest));
      });
    }),
  );
  t.pass();
});

test('uniform: no move between two members who could both have a partition would make different subscriptions more even', (t) => {
  fc.assert(
    fc.property(counts, fc.array(subscription, { minLength: 2, maxLength: 6 }), (sizes, subscriptions) => {
      const members = subscriptions.map((subscribed, index) => member(`m${index}`, subscribed));
      const assignment = assignors['uniform'](members, new Map(Object.entries(sizes)));
      return members.every((from) =>
        [...(assignment.get(from.id) ?? [])].every(([topic]) =>
          members.every(
            (to) => !to.topics.has(topic) || sizeOf(assignment.get(from.id)) - sizeOf(assignment.get(to.id)) < 2,
          ),
        ),
      );
    }),
  );
  t.pass();
});

interface Round {
  readonly partitions: Record<string, number>;
  readonly members: readonly { id: string; instanceId: string | null; topics: string[] }[];
  /** What Kafka's own assignor answered (golden/AssignorVectors.java). */
  readonly assignment: Record<string, Record<string, number[]>>;
}
interface Vector {
  readonly assignor: string;
  readonly rounds: readonly Round[];
}
const vectors = readFileSync('test/broker/golden/consumer-assignors.jsonl', 'utf8')
  .trimEnd()
  .split('\n')
  .map((line): Vector => JSON.parse(line));

/** Each round with what members had before it, and what this assignor makes of it. */
function* playedRounds(
  name: string,
): Generator<{ round: Round; before: Round['assignment']; own: Round['assignment'] }> {
  for (const { assignor, rounds } of vectors) {
    if (assignor !== name) continue;
    let before: Round['assignment'] = {};
    for (const round of rounds) {
      const members = round.members.map(({ id, instanceId, topics }) => ({
        ...member(id, topics, before[id]),
        instanceId,
      }));
      const assigned = plain(assignors[name](members, new Map(Object.entries(round.partitions))));
      const own = Object.entries(assigned).map(([id, partitions]) => [id, sortedPartitions(partitions)]);
      yield { round, before, own: Object.fromEntries(own) };
      before = round.assignment;
    }
  }
}

function sortedPartitions(partitions: Record<string, number[]>): Record<string, number[]> {
  const entries = Object.entries(partitions).filter(([, indexes]) => indexes.length > 0);
  return Object.fromEntries(
    entries.sort(([a], [b]) => (a < b ? -1 : 1)).map(([topic, indexes]) => [topic, indexes.toSorted((a, b) => a - b)]),
  );
}

const isAlike = ({ members }: Round): boolean =>
  members.every(({ topics }) => String(topics) === String(members[0].topics));
const loadsOf = (assignment: Round['assignment']): number[] =>
  Object.values(assignment)
    .map((partitions) => Object.values(partitions).flat().length)
    .sort((a, b) => a - b);
const sumOfSquares = (assignment: Round['assignment']): number =>
  loadsOf(assignment).reduce((sum, load) => sum + load * load, 0);

/** Partitions that a member who is still there had before and has no more. */
function lostCount(before: Round['assignment'], after: Round['assignment']): number {
  let count = 0;
  for (const [id, partitions] of Object.entries(before)) {
    const now = after[id];
    if (now === undefined) continue;
    for (const [topic, indexes] of Object.entries(partitions)) {
      count += indexes.filter((index) => !now[topic]?.includes(index)).length;
    }
  }
  return count;
}

test('range assigns as Apache Kafka does, partition by partition', (t) => {
  for (const { round, own } of playedRounds('range')) t.deepEqual(own, round.assignment);
});

test('uniform is as even as Apache Kafka’s, and takes no more away from members that subscribe alike', (t) => {
  let rounds = 0;
  let same = 0;
  let ownLost = 0;
  let kafkaLost = 0;
  for (const { round, before, own } of playedRounds('uniform')) {
    rounds++;
    if (round.members.every(({ id }) => isDeepStrictEqual(own[id], round.assignment[id]))) same++;
    if (isAlike(round)) t.deepEqual(loadsOf(own), loadsOf(round.assignment));
    t.true(sumOfSquares(own) <= sumOfSquares(round.assignment), JSON.stringify({ round, own }));
    if (isAlike(round)) t.true(lostCount(before, own) <= lostCount(before, round.assignment));
    ownLost += lostCount(before, own);
    kafkaLost += lostCount(before, round.assignment);
  }
  t.log({ rounds, same, ownLost, kafkaLost });
  // Where subscriptions differ evenness comes first; a few more partitions may move.
  t.true(ownLost <= kafkaLost * 1.1);
});
