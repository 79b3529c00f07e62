/**
 * Patterns over names of queues, exchanges and routing keys, as RabbitMQ's permissions and policies have them: a regular
 * expression that is found anywhere in the name, byte by byte of its UTF-8; the empty one is found nowhere. Matching takes
 * time that is linear in the name (`topic-regex.ts`), so no pattern can make the broker backtrack.
 *
 * What RabbitMQ's PCRE has and this has not is refused: back references, possessive and atomic groups, conditions,
 * recursion, look-behind, and look-ahead anywhere but right after a leading `^`, where policies of RabbitMQ often have it:
 * `^(?!amq\.).*`.
 */
import { MillraceError } from '../protocol/errors.ts';
import { compileRegex, type RegexRefusal, type TopicRegex } from './topic-regex.ts';

const SOMETHING = '[\\s\\S]*';
/** What RabbitMQ makes of the empty pattern. */
const NOTHING = '$^';
/** Names whose outcome is remembered; then all are forgotten. */
const KNOWN_MAX = 1000;

export interface NamePattern {
  matches(name: string): boolean;
}

/** An alternative: everything must hold. */
interface Branch {
  readonly rest: TopicRegex;
  readonly ahead: readonly { readonly regex: TopicRegex; readonly isNegative: boolean }[];
}

/** INVALID_REQUEST in RabbitMQ's words for a policy. */
export function compileNamePattern(pattern: string): NamePattern {
  const refused: RegexRefusal = (reason) =>
    new MillraceError(
      'INVALID_REQUEST',
      `pattern should be regular expression but is invalid: {"${reason}",${JSON.stringify(pattern.slice(0, 200))}}`,
    );
  const branches = alternatives(bytesOf(pattern === '' ? NOTHING : pattern)).map((text) => branchOf(text, refused));
  const known = new Map<string, boolean>();
  return {
    matches(name) {
      let isMatch = known.get(name);
      if (isMatch === undefined) {
        const bytes = bytesOf(name);
        isMatch = branches.some(
          ({ rest, ahead }) =>
            ahead.every(({ regex, isNegative }) => regex.matches(bytes) !== isNegative) && rest.matches(bytes),
        );
        if (known.size >= KNOWN_MAX) known.clear();
        known.set(name, isMatch);
      }
      return isMatch;
    },
  };
}

/** INVALID_REQUEST. */
export function checkNamePattern(pattern: string): void {
  compileNamePattern(pattern);
}

/** A character for each byte. */
const bytesOf = (text: string): string => Buffer.from(text).toString('latin1');

function branchOf(text: string, refused: RegexRefusal): Branch {
  const ahead: { regex: TopicRegex; isNegative: boolean }[] = [];
  let rest = text;
  for (let look = /^\^\(\?([!=])/.exec(rest); look !== null; look = /^\^\(\?([!=])/.exec(rest)) {
    const end = groupEnd(rest, 1);
    if (end < 0) throw refused('missing closing )');
    const inside = rest.slice(look[0].length, end);
    ahead.push({ regex: compileRegex(`^(?:${inside})${SOMETHING}`, refused), isNegative: look[1] === '!' });
    rest = `^${rest.slice(end + 1)}`;
  }
  return { ahead, rest: compileRegex(`${SOMETHING}(?:${rest})${SOMETHING}`, refused) };
}

/** The parts between the `|` that are in no group and no class. */
function alternatives(pattern: string): string[] {
  const parts: string[] = [];
  let start = 0;
  scan(pattern, 0, (at, depth) => {
    if (depth === 0 && pattern[at] === '|') {
      parts.push(pattern.slice(start, at));
      start = at + 1;
    }
    return false;
  });
  return [...parts, pattern.slice(start)];
}

/** Where the group ends that begins at `start`; negative: it does not. */
function groupEnd(pattern: string, start: number): number {
  return scan(pattern, start, (at, depth) => depth === 0 && pattern[at] === ')');
}

/** Visits every character that is neither escaped nor in a class, with the depth of groups after it, until one is it. */
function scan(pattern: string, start: number, isIt: (at: number, depth: number) => boolean): number {
  let depth = 0;
  for (let at = start; at < pattern.length; at++) {
    const character = pattern[at];
    if (character === '\\') {
      // A quotation ends with \E or with the pattern; anything else escapes one character.
      const end = pattern[at + 1] === 'Q' ? pattern.indexOf('\\E', at) : at;
      if (end < 0) return -1;
      at = end + 1;
      continue;
    }
    if (character === '[') {
      at = classEnd(pattern, at);
      continue;
    }
    if (character === '(') depth++;
    if (character === ')') depth--;
    if (isIt(at, depth)) return at;
  }
  return -1;
}

/** Where the class ends that begins at `start`; the end of the pattern if it does not, which compiling refuses. */
function classEnd(pattern: string, start: number): number {
  let at = start + 1;
  if (pattern[at] === '^') at++;
  // A bracket that comes first is a member.
  if (pattern[at] === ']') at++;
  for (; at < pattern.length && pattern[at] !== ']'; at++) {
    if (pattern[at] === '\\') at++;
    else if (pattern.startsWith('[:', at)) {
      const end = pattern.indexOf(':]', at);
      if (end >= 0) at = end + 1;
    }
  }
  return at;
}
