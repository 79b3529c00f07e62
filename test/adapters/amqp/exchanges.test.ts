/** Routing of AMQP's exchanges, topic patterns against a naive matcher. */
import test from 'ava';
import fc from 'fast-check';
import { type Binding, type Exchange, Exchanges } from '../../../adapters/amqp/exchanges.ts';
import { TopicPatterns } from '../../../adapters/amqp/topic-patterns.ts';
import { type Table, textField } from '../../../protocol/amqp/table.ts';

const exchange = (name: string, type: Exchange['type'], more: Partial<Exchange> = {}): Exchange => ({
  name,
  type,
  isDurable: true,
  isAutoDelete: false,
  isInternal: false,
  arguments: [],
  ...more,
});
const binding = (source: string, destination: string, routingKey: string, more: Partial<Binding> = {}): Binding => ({
  source,
  destination,
  destinationKind: 'queue',
  routingKey,
  arguments: [],
  ...more,
});
const routed = (exchanges: Exchanges, name: string, routingKey: string, headers: Table = []): string[] =>
  [...exchanges.route({ exchange: name, routingKey, headers })].sort();

function naive(pattern: readonly string[], words: readonly string[]): boolean {
  if (pattern.length === 0) return words.length === 0;
  const [first, ...rest] = pattern;
  if (first === '#') return naive(rest, words) || (words.length > 0 && naive(pattern, words.slice(1)));
  return words.length > 0 && (first === '*' || first === words[0]) && naive(rest, words.slice(1));
}

test('topic patterns match as written in the specification, also after some were removed', (t) => {
  const word = fc.constantFrom('a', 'b', '', 'long');
  const pattern = fc.array(fc.oneof(word, fc.constantFrom('*', '#')), { minLength: 1, maxLength: 6 });
  const key = fc.array(word, { minLength: 1, maxLength: 7 });
  fc.assert(
    fc.property(
      fc.array(pattern, { maxLength: 12 }),
      fc.array(fc.nat(11), { maxLength: 4 }),
      key,
      (all, gone, words) => {
        const patterns = new TopicPatterns<number>();
        all.forEach((one, index) => patterns.add(one.join('.'), index));
        for (const index of gone) if (index < all.length) patterns.delete(all[index].join('.'), index);
        const found = new Set<number>();
        patterns.match(words.join('.'), (value) => found.add(value));
        const expected = all.flatMap((one, index) => (!gone.includes(index) && naive(one, words) ? [index] : []));
        t.deepEqual(
          [...found].sort((a, b) => a - b),
          expected.sort((a, b) => a - b),
        );
      },
    ),
    { numRuns: 2000 },
  );
});

test('a pattern of many # does not take exponential time', (t) => {
  const patterns = new TopicPatterns<string>();
  patterns.add(`${'#.a.'.repeat(60)}b`, 'never');
  patterns.add('#.a.#', 'always');
  const found: string[] = [];
  patterns.match(Array.from({ length: 120 }, () => 'a').join('.'), (value) => found.push(value));
  t.deepEqual([...new Set(found)], ['always']);
});

test('each type of exchange routes its own way', (t) => {
  const exchanges = new Exchanges();
  t.deepEqual(routed(exchanges, '', 'any queue'), ['any queue']);
  exchanges.bind(binding('amq.direct', 'q1', 'k'));
  exchanges.bind(binding('amq.direct', 'q2', 'k'));
  exchanges.bind(binding('amq.direct', 'q3', 'other'));
  t.deepEqual(routed(exchanges, 'amq.direct', 'k'), ['q1', 'q2']);
  exchanges.bind(binding('amq.fanout', 'q1', 'ignored'));
  t.deepEqual(routed(exchanges, 'amq.fanout', ''), ['q1']);
  exchanges.bind(binding('amq.topic', 'q1', 'a.*.c'));
  t.deepEqual(routed(exchanges, 'amq.topic', 'a.b.c'), ['q1']);
  t.deepEqual(routed(exchanges, 'amq.topic', 'a.b.d'), []);
  t.deepEqual(routed(exchanges, 'nowhere', 'k'), []);
});

test('headers exchanges compare type and value, presence where there is none', (t) => {
  const exchanges = new Exchanges();
  const bind = (queue: string, table: Table): boolean =>
    exchanges.bind(binding('amq.headers', queue, '', { arguments: table }));
  bind('all', [
    ['x-match', textField('all')],
    ['a', textField('1')],
    ['b', { type: 'V' }],
  ]);
  bind('any', [
    ['x-match', textField('any')],
    ['a', textField('1')],
    ['n', { type: 'I', value: 5 }],
  ]);
  bind('with-x', [
    ['x-match', textField('any-with-x')],
    ['x-a', textField('1')],
  ]);
  bind('without', [
    ['x-match', textField('any')],
    ['x-a', textField('1')],
  ]);
  bind('empty', []);
  t.deepEqual(
    routed(exchanges, 'amq.headers', '', [
      ['a', textField('1')],
      ['b', textField('?')],
    ]),
    ['all', 'any', 'empty'],
  );
  t.deepEqual(routed(exchanges, 'amq.headers', '', [['n', { type: 'l', value: 5 }]]), ['any', 'empty']);
  t.deepEqual(
    routed(exchanges, 'amq.headers', '', [
      ['n', textField('5')],
      ['x-a', textField('1')],
    ]),
    ['empty', 'with-x'],
  );
});

test('exchanges pass on to exchanges, in a ring too, and to alternates what nobody takes', (t) => {
  const exchanges = new Exchanges();
  exchanges.declare(exchange('one', 'fanout'));
  exchanges.declare(exchange('two', 'direct', { arguments: [['alternate-exchange', textField('rest')]] }));
  exchanges.declare(exchange('rest', 'fanout'));
  exchanges.bind(binding('one', 'two', '', { destinationKind: 'exchange' }));
  exchanges.bind(binding('two', 'one', 'k', { destinationKind: 'exchange' }));
  exchanges.bind(binding('one', 'q', ''));
  exchanges.bind(binding('rest', 'unrouted', ''));
  t.deepEqual(routed(exchanges, 'two', 'k'), ['q']);
  t.deepEqual(routed(exchanges, 'one', 'x'), ['q', 'unrouted']);
  t.deepEqual([...exchanges.route({ exchange: 'two', routingKey: 'x', moreKeys: ['k'], headers: [] })], ['q']);
});

test('a binding is one with its equal, and goes with its ends', (t) => {
  const exchanges = new Exchanges();
  exchanges.declare(exchange('source', 'topic', { isAutoDelete: true }));
  exchanges.declare(exchange('middle', 'fanout', { isAutoDelete: true }));
  const first = binding('source', 'middle', 'k.#', {
    destinationKind: 'exchange',
    arguments: [
      ['a', textField('1')],
      ['b', textField('2')],
    ],
  });
  t.true(exchanges.bind(first));
  t.false(exchanges.bind({ ...first, arguments: [...first.arguments].reverse() }));
  t.true(exchanges.bind({ ...first, arguments: [] }));
  exchanges.bind(binding('middle', 'q', ''));
  t.deepEqual(routed(exchanges, 'source', 'k'), ['q']);
  t.is(exchanges.unbind({ ...first, arguments: [] }).length, 0);
  t.deepEqual(routed(exchanges, 'source', 'k.x'), ['q']);
  t.true(exchanges.isUsed('source'));
  // The queue goes: its exchange deletes itself, and so does the one in front of that.
  t.deepEqual(
    exchanges.unbindDestination('queue', 'q').map(({ name }) => name),
    ['middle', 'source'],
  );
  t.is(exchanges.get('middle'), undefined);
  t.deepEqual([...exchanges.bindings()], []);
});

test('x-delayed-message routes as its inner type, x-consistent-hash spreads by weight and moves little', (t) => {
  const exchanges = new Exchanges();
  exchanges.declare(exchange('late', 'x-delayed-message', { arguments: [['x-delayed-type', textField('topic')]] }));
  exchanges.bind(binding('late', 'q', 'a.#'));
  t.deepEqual(routed(exchanges, 'late', 'a.b'), ['q']);
  exchanges.declare(exchange('spread', 'x-consistent-hash'));
  exchanges.bind(binding('spread', 'one', '1'));
  exchanges.bind(binding('spread', 'three', '3'));
  const keys = Array.from({ length: 4000 }, (_, index) => `key ${index}`);
  const before = keys.map((key) => routed(exchanges, 'spread', key)[0]);
  const share = before.filter((queue) => queue === 'three').length / keys.length;
  t.true(share > 0.7 && share < 0.8, `three quarters were expected, ${share} went there`);
  exchanges.bind(binding('spread', 'new', '1'));
  const after = keys.map((key) => routed(exchanges, 'spread', key)[0]);
  t.true(after.every((queue, index) => queue === before[index] || queue === 'new'));
});
