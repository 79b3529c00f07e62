/** Regular expressions that RE2 and JavaScript understand alike, and whose answers can be compared. */
import fc from 'fast-check';

const piece = fc.constantFrom(
  'a',
  'b',
  '.',
  '[ab]',
  '[^a]',
  '(a|b)',
  '(ab|c)',
  '(ab)',
  'a|b',
  '(?:a|)',
  'c',
  '\\w',
  '\\.',
  '^',
  '$',
  '\\b',
);
const part = fc.tuple(piece, fc.constantFrom('', '', '*', '+', '?', '{2}', '{0,2}', '{1,}')).map(([one, count]) =>
  // Anchors may not be repeated in JavaScript.
  ['^', '$', '\\b'].includes(one) ? one : one + count,
);
export const simpleRegex = fc
  .tuple(fc.array(part, { maxLength: 6 }), fc.array(part, { maxLength: 4 }))
  .map(([one, other]) => (other.length === 0 ? one.join('') : `${one.join('')}|${other.join('')}`));
