import fc from 'fast-check';
import test from 'ava';
import { checkNamePattern, compileNamePattern } from '../../broker/name-pattern.ts';
import { simpleRegex } from '../support/simple-regex.ts';

const matches = (pattern: string, name: string): boolean => compileNamePattern(pattern).matches(name);

test('a pattern is found anywhere in a name, the empty one in none', (t) => {
  t.true(matches('ord', 'my.orders'));
  t.false(matches('^ord', 'my.orders'));
  t.true(matches('^(amq\\.gen.*|orders)$', 'amq.gen-x'));
  t.true(matches('.*', ''));
  t.true(matches('^$', ''));
  t.false(matches('^$', 'a'));
  t.false(matches('', 'a'));
  t.true(matches('a|b', 'xbx'));
  t.true(matches('x\\|y', 'x|y'));
  t.true(matches('[|]', '|'));
  t.true(matches('\\Qa|b\\E', 'xa|by'));
});

test('a look ahead after the beginning is understood', (t) => {
  const notReserved = '^(?!amq\\.).*';
  t.true(matches(notReserved, 'orders'));
  t.true(matches(notReserved, 'x.amq.y'));
  t.false(matches(notReserved, 'amq.topic'));
  t.true(matches('^(?!a|b)(?=.*z$)c', 'cz'));
  t.false(matches('^(?!a|b)(?=.*z$)c', 'cy'));
  t.false(matches('^(?!a|b)x', 'bx'));
  t.true(matches('^(?!a)b|^a$', 'a'));
  t.false(matches('^(?![)(]x)', '(x'));
});

test('names are matched by their bytes', (t) => {
  t.true(matches('^käse$', 'käse'));
  t.true(matches('^k..se$', 'käse'));
  t.false(matches('^k.se$', 'käse'));
  t.true(matches('^[^a-z]+$', 'ÄÖ'));
  t.true(matches('(?i)^KÄSE$', 'kÄse'));
  t.true(matches('a', 'b\na'));
});

test('what takes more than linear time is refused with a reason', (t) => {
  for (const pattern of [
    '(a)\\1',
    '(?<=a)b',
    '(?<!a)b',
    '(?>a)b',
    'x(?!y)',
    '(',
    '[a',
    '*',
    'a{2,1}',
    '^(?!a',
    'a++',
  ]) {
    t.throws(
      () => checkNamePattern(pattern),
      { code: 'INVALID_REQUEST', message: /^pattern should be regular/ },
      pattern,
    );
  }
});

test('answers are those of JavaScript for what both understand', (t) => {
  const name = fc.stringMatching(/^[ab.c]{0,8}$/);
  t.notThrows(() =>
    fc.assert(
      fc.property(simpleRegex, name, (pattern, text) => {
        fc.pre(pattern !== '');
        return matches(pattern, text) === new RegExp(pattern, 's').test(text);
      }),
      { numRuns: 2000 },
    ),
  );
});
