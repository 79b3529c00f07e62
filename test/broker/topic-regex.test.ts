/** Regular expressions of subscriptions: RE2's syntax, whole names, and no expression that takes long. */
import test from 'ava';
import fc from 'fast-check';
import { compileTopicRegex } from '../../broker/topic-regex.ts';
import { MillraceError } from '../../protocol/errors.ts';
import { simpleRegex } from '../support/simple-regex.ts';

const matches = (pattern: string, name: string): boolean => compileTopicRegex(pattern).matches(name);

test('a name matches as a whole', (t) => {
  t.true(matches('foo', 'foo'));
  t.false(matches('foo', 'foobar'));
  t.false(matches('oo', 'foo'));
  t.true(matches('foo.*', 'foobar'));
  t.true(matches('', ''));
  t.false(matches('', 'a'));
  t.true(matches('a||b', ''));
});

test('what RE2 knows is understood', (t) => {
  for (const [pattern, yes, no] of [
    ['a|b|cd', 'cd', 'c'],
    ['(a|b)+c?', 'abba', 'abcc'],
    ['a{2}', 'aa', 'a'],
    ['a{2,}', 'aaaa', 'a'],
    ['a{1,2}', 'aa', 'aaa'],
    ['a{,2}', 'a{,2}', 'aa'],
    ['a+?b*?c??', 'aabbc', 'bc'],
    ['[a-c_.-]+', 'a-b_c.', 'd'],
    ['[^a-c]', 'd', 'b'],
    ['[]a]', ']', 'b'],
    ['[[:alpha:][:^word:]]', '.', '1'],
    ['\\d\\D\\w\\W', '1aa.', '1a.a'],
    ['[\\d.]+', '1.2', 'a'],
    ['\\Qa.b\\E+', 'a.bbb', 'axb'],
    ['\\x41\\x{42}\\103\\.', 'ABC.', 'ABCD'],
    ['\\pL\\p{Lu}\\P{Nd}\\p{^L}\\p{Greek}?', 'aBc1', 'abc1'],
    ['(?i)aB[c-d]', 'AbD', 'Abe'],
    ['(?i:a)b', 'Ab', 'AB'],
    ['(?i)a(?-i)b', 'Ab', 'AB'],
    ['(?P<name>a)(?<other>b)(?:c)', 'abc', 'ab'],
    ['^a$', 'a', 'b'],
    ['a\\b.c\\Bd', 'a.cd', 'ab.cd'],
    ['\\Aa\\z', 'a', 'ab'],
    ['(a*)*b', 'aab', 'aa'],
    ['(|a)+', 'aaa', 'b'],
    ['ü|a', 'a', 'u'],
  ]) {
    t.true(matches(pattern, yes), `${pattern} ${yes}`);
    t.false(matches(pattern, no), `${pattern} ${no}`);
  }
});

test('what RE2 refuses is refused, and so is what is too large', (t) => {
  for (const pattern of [
    '(',
    ')',
    'a)',
    '[',
    '[a',
    '[b-a]',
    '*',
    'a**',
    'a+*',
    'a{2}{3}',
    'a{1001}',
    'a{3,2}',
    '(?=a)',
    '(?!a)',
    '(?<=a)',
    '(a)\\1x'.replace('\\1x', '\\8'),
    '\\',
    '\\y',
    '(?',
    '(?z)',
    '[[:nope:]]',
    '\\p{Nope}',
    '\\pz',
    '(?<1>a)',
    '((a{100}){100}){100}',
    '((){1000}){1000}',
    '(a{1000}){2}',
    'a'.repeat(1001),
  ]) {
    const error = t.throws(() => compileTopicRegex(pattern), { instanceOf: MillraceError }, pattern);
    t.is(error?.code, 'INVALID_REGULAR_EXPRESSION');
  }
});

test('an expression that makes others backtrack takes linear time', (t) => {
  const name = `${'a'.repeat(248)}!`;
  for (const pattern of ['(a+)+b', '(a|a)*b', '(a|aa)+b', '(.*a){50}b', '((a*)*)*b', '(a?){200}a{200}b']) {
    t.false(matches(pattern, name));
  }
});

test('the answer is that of the expressions everybody knows', (t) => {
  const name = fc.string({ unit: fc.constantFrom('a', 'b', 'c', '.', '-'), maxLength: 8 });
  t.notThrows(() =>
    fc.assert(
      fc.property(
        simpleRegex,
        name,
        (source, text) => matches(source, text) === new RegExp(`^(?:${source})$`).test(text),
      ),
      { numRuns: 2_000 },
    ),
  );
});

test('any text is an expression or is refused', (t) => {
  const text = fc.string({ unit: fc.constantFrom(...'ab()[]{}*+?|^$\\.-,:<>P=!0123dDwpQEx'.split('')), maxLength: 30 });
  fc.assert(
    fc.property(text, (source) => {
      try {
        matches(source, 'ab.0-');
      } catch (error) {
        if (!(error instanceof MillraceError)) throw error;
      }
    }),
    { numRuns: 3_000 },
  );
  t.pass();
});

test('the names that match are found, sorted, with a bound on what that may cost', (t) => {
  const orders = compileTopicRegex('orders-.*');
  t.deepEqual(orders.select(['orders-b', 'payments', 'orders-a']), ['orders-a', 'orders-b']);
  const refused = { instanceOf: MillraceError, message: /takes too long over the topics that there are/ };
  t.throws(() => orders.select(['orders-b', 'orders-a'], 20), refused);
  // Ten thousand of the longest names: usual expressions are far from the bound, the worst ones do not hold the broker.
  const names = Array.from({ length: 10_000 }, (_value, index) => `${'a'.repeat(244)}${index}`);
  t.is(compileTopicRegex('.*7').select(names).length, 1_000);
  t.is(compileTopicRegex('a+[0-9]+').select(names).length, 10_000);
  const error = t.throws(() => compileTopicRegex('(a?){249}a{249}').select(names), refused);
  t.is(error instanceof MillraceError && error.code, 'INVALID_REGULAR_EXPRESSION');
});
