/**
 * Regular expressions over topic names in RE2's syntax, for consumer groups that subscribe by one (KIP-848), and over other
 * names (`name-pattern.ts`). The time is linear in the length of the name: the expression becomes a small automaton of
 * which all states advance together, so no expression of a client can make the broker backtrack. What all names together
 * may cost is bounded, too (docs/decisions/0021-regular-expressions.md).
 *
 * Always true: a name matches as a whole; characters of names are below 256, and topic names ASCII. What RE2 does not
 * know either (back references, look-around, possessive repetition) is refused. Whether a repetition is greedy does not
 * matter for a whole match.
 */
import { MillraceError } from '../protocol/errors.ts';

const PATTERN_LENGTH_MAX = 1_000;
/** States of the automaton; bounds the work a character can cost. */
const PROGRAM_SIZE_MAX = 1_000;
/** Steps that finding the names of one expression may take: about a tenth of a second. */
const STEPS_MAX = 10_000_000;
/** As RE2. */
const REPEAT_MAX = 1_000;
const CODES = 256;
const ASCII = 128;

/** Which characters are in it: 0 or 1 each. */
type CharSet = Uint8Array;
type Anchor = 'start' | 'end' | 'word' | 'not word';
type Node =
  | { readonly kind: 'set'; readonly set: CharSet }
  | { readonly kind: 'anchor'; readonly anchor: Anchor }
  | { readonly kind: 'all'; readonly parts: readonly Node[] }
  | { readonly kind: 'any'; readonly parts: readonly Node[] }
  | { readonly kind: 'repeat'; readonly part: Node; readonly min: number; readonly max: number };
type State =
  | { readonly kind: 'set'; readonly set: CharSet; readonly next: number }
  | { readonly kind: 'anchor'; readonly anchor: Anchor; readonly next: number }
  | { readonly kind: 'split'; next: number; other: number }
  | { readonly kind: 'match' };

export interface TopicRegex {
  matches(name: string): boolean;
  /**
   * The names that match, sorted. Throws INVALID_REGULAR_EXPRESSION if the search takes more than `stepsMax` steps (a
   * state of the automaton looked at for a character of a name); default 10 million.
   */
  select(names: Iterable<string>, stepsMax?: number): string[];
}

/** Makes the error that says why an expression is refused. */
export type RegexRefusal = (reason: string) => MillraceError;

/** Throws INVALID_REGULAR_EXPRESSION. */
export function compileTopicRegex(pattern: string): TopicRegex {
  return compileRegex(
    pattern,
    (reason) =>
      new MillraceError(
        'INVALID_REGULAR_EXPRESSION',
        `SubscribedTopicRegex \`${pattern.slice(0, 200)}\` is not a valid regular expression: ${reason}.`,
      ),
  );
}

/** As `compileTopicRegex`; what it throws is `refused`'s. */
export function compileRegex(pattern: string, refused: RegexRefusal): TopicRegex {
  if (pattern.length > PATTERN_LENGTH_MAX) throw refused(`it is longer than ${PATTERN_LENGTH_MAX} characters`);
  const program = new Program(new Parser(pattern, refused).parse(), refused);
  return {
    matches: (name) => program.matches(name),
    select(names, stepsMax = STEPS_MAX) {
      const endSteps = program.steps + stepsMax;
      const selected: string[] = [];
      for (const name of names) {
        if (program.matches(name)) selected.push(name);
        if (program.steps > endSteps) throw refused('it takes too long over the topics that there are');
      }
      return selected.sort();
    },
  };
}

function setOf(isIn: (code: number) => boolean): CharSet {
  const set = new Uint8Array(CODES);
  for (let code = 0; code < CODES; code++) if (isIn(code)) set[code] = 1;
  return set;
}
const rangesSet = (ranges: string): CharSet =>
  setOf((code) => {
    for (let at = 0; at < ranges.length; at += 2) {
      if (code >= ranges.charCodeAt(at) && code <= ranges.charCodeAt(at + 1)) return true;
    }
    return false;
  });
const not = (set: CharSet): CharSet => setOf((code) => set[code] === 0);

const DIGIT = rangesSet('09');
const WORD = rangesSet('09AZ__az');
const SPACE = rangesSet('\t\n\f\r  ');
const ANY = setOf((code) => code !== 10);
const NAMED: Readonly<Record<string, CharSet>> = {
  alnum: rangesSet('09AZaz'),
  alpha: rangesSet('AZaz'),
  ascii: rangesSet('\0\x7f'),
  blank: rangesSet('\t\t  '),
  cntrl: rangesSet('\0\x1f\x7f\x7f'),
  digit: DIGIT,
  graph: rangesSet('!~'),
  lower: rangesSet('az'),
  print: rangesSet(' ~'),
  punct: rangesSet('!/:@[`{~'),
  space: rangesSet('\t\r  '),
  upper: rangesSet('AZ'),
  word: WORD,
  xdigit: rangesSet('09AFaf'),
};
const ESCAPED: Readonly<Record<string, CharSet>> = {
  d: DIGIT,
  D: not(DIGIT),
  w: WORD,
  W: not(WORD),
  s: SPACE,
  S: not(SPACE),
};
const CONTROL: Readonly<Record<string, number>> = { a: 7, f: 12, t: 9, n: 10, r: 13, v: 11 };
const ANCHORS: Readonly<Record<string, Anchor>> = { A: 'start', z: 'end', b: 'word', B: 'not word' };

class Parser {
  readonly #pattern: string;
  readonly #refusal: RegexRefusal;
  #at = 0;
  #ignoresCase = false;

  constructor(pattern: string, refusal: RegexRefusal) {
    this.#pattern = pattern;
    this.#refusal = refusal;
  }

  parse(): Node {
    const node = this.#alternatives();
    if (this.#at < this.#pattern.length) throw this.#refused('unexpected )');
    return node;
  }

  #refused(reason: string): MillraceError {
    return this.#refusal(`${reason} at character ${this.#at}`);
  }

  #take(text: string): boolean {
    if (!this.#pattern.startsWith(text, this.#at)) return false;
    this.#at += text.length;
    return true;
  }

  #takeMatch(expression: RegExp): RegExpExecArray | null {
    expression.lastIndex = this.#at;
    const match = expression.exec(this.#pattern);
    if (match !== null) this.#at = expression.lastIndex;
    return match;
  }

  #next(): string {
    const point = this.#pattern.codePointAt(this.#at);
    if (point === undefined) throw this.#refused('unexpected end');
    const character = String.fromCodePoint(point);
    this.#at += character.length;
    return character;
  }

  /** Up to a closing parenthesis or the end. */
  #alternatives(): Node {
    const parts: Node[] = [];
    do parts.push(this.#sequence());
    while (this.#take('|'));
    return parts.length === 1 ? parts[0] : { kind: 'any', parts };
  }

  #sequence(): Node {
    const parts: Node[] = [];
    while (this.#at < this.#pattern.length && !'|)'.includes(this.#pattern[this.#at])) {
      // Of a quotation only the last character is repeated.
      const atoms = this.#take('\\Q') ? this.#quoted() : [this.#atom()];
      const last = atoms.pop();
      for (const atom of atoms) if (atom !== undefined) parts.push(atom);
      if (last !== undefined) parts.push(this.#repeated(last));
    }
    return { kind: 'all', parts };
  }

  #repeated(part: Node): Node {
    const range = this.#range();
    if (range === undefined) return part;
    this.#take('?');
    if (this.#range() !== undefined) throw this.#refused('repetition of a repetition');
    return { kind: 'repeat', part, ...range };
  }

  #range(): { min: number; max: number } | undefined {
    if (this.#take('*')) return { min: 0, max: Number.POSITIVE_INFINITY };
    if (this.#take('+')) return { min: 1, max: Number.POSITIVE_INFINITY };
    if (this.#take('?')) return { min: 0, max: 1 };
    const match = this.#takeMatch(/\{(\d+)(,(\d*))?\}/y);
    if (match === null) return undefined;
    const min = Number(match[1]);
    let max = min;
    if (match[2] !== undefined) max = match[3] === '' ? Number.POSITIVE_INFINITY : Number(match[3]);
    const isTooOften = min > REPEAT_MAX || (Number.isFinite(max) && max > REPEAT_MAX);
    if (isTooOften || max < min) throw this.#refused('invalid repetition');
    return { min, max };
  }

  /** Undefined for what only sets flags. */
  #atom(): Node | undefined {
    if (this.#take('(')) return this.#group();
    if (this.#take('[')) return { kind: 'set', set: this.#class() };
    if (this.#take('.')) return { kind: 'set', set: ANY };
    if (this.#take('^')) return { kind: 'anchor', anchor: 'start' };
    if (this.#take('$')) return { kind: 'anchor', anchor: 'end' };
    if (this.#take('\\')) {
      const anchor = ANCHORS[this.#pattern[this.#at] ?? ''];
      if (anchor === undefined) return { kind: 'set', set: this.#escape() };
      this.#at++;
      return { kind: 'anchor', anchor };
    }
    if ('*+?'.includes(this.#pattern[this.#at])) throw this.#refused('nothing to repeat');
    return { kind: 'set', set: this.#literal(this.#next()) };
  }

  #group(): Node | undefined {
    const ignoredCase = this.#ignoresCase;
    if (this.#take('?')) {
      const name = this.#takeMatch(/P?<[A-Za-z_]\w*>/y);
      if (name === null) {
        const flags = this.#takeMatch(/([imsU]*)(?:-([imsU]+))?([:)])/y);
        if (flags === null) throw this.#refused('this kind of group is not supported');
        if (flags[1].includes('i')) this.#ignoresCase = true;
        if (flags[2]?.includes('i')) this.#ignoresCase = false;
        if (flags[3] === ')') return undefined;
      }
    }
    const node = this.#alternatives();
    if (!this.#take(')')) throw this.#refusal('missing closing )');
    this.#ignoresCase = ignoredCase;
    return node;
  }

  #quoted(): (Node | undefined)[] {
    const end = this.#pattern.indexOf('\\E', this.#at);
    const text = this.#pattern.slice(this.#at, end < 0 ? undefined : end);
    this.#at = end < 0 ? this.#pattern.length : end + 2;
    return Array.from(text).map((character) => ({ kind: 'set', set: this.#literal(character) }));
  }

  #literal(character: string): CharSet {
    return this.#codes(character.codePointAt(0) ?? 0);
  }

  #codes(first: number, last = first): CharSet {
    const isIn = (code: number): boolean => code >= first && code <= last;
    if (!this.#ignoresCase) return setOf(isIn);
    return setOf((code) => {
      // Only ASCII has case: other names are matched byte by byte.
      if (code >= ASCII) return isIn(code);
      const character = String.fromCharCode(code);
      return isIn(character.toLowerCase().charCodeAt(0)) || isIn(character.toUpperCase().charCodeAt(0));
    });
  }

  /** After a backslash. */
  #escape(): CharSet {
    const property = this.#takeMatch(/([pP])(?:\{(\^?)(\w+)\}|([A-Z]))/y);
    if (property !== null) {
      const set = this.#property(property[3] ?? property[4]);
      return (property[1] === 'P') !== (property[2] === '^') ? not(set) : set;
    }
    const known = ESCAPED[this.#pattern[this.#at] ?? ''];
    if (known !== undefined) {
      this.#at++;
      return known;
    }
    return this.#codes(this.#escapedCode());
  }

  #escapedCode(): number {
    const hex = this.#takeMatch(/x(?:([0-9A-Fa-f]{2})|\{([0-9A-Fa-f]{1,6})\})/y);
    if (hex !== null) return Number.parseInt(hex[1] ?? hex[2], 16);
    const octal = this.#takeMatch(/0[0-7]{0,2}|[1-7][0-7]{1,2}/y);
    if (octal !== null) return Number.parseInt(octal[0], 8);
    const character = this.#next();
    const control = CONTROL[character];
    if (control !== undefined) return control;
    if (/[0-9A-Za-z]/.test(character)) throw this.#refused('invalid escape sequence');
    return character.codePointAt(0) ?? 0;
  }

  #property(name: string): CharSet {
    for (const property of name === 'Any' ? ['Any'] : [name, `Script=${name}`]) {
      try {
        // One character is tested at a time: nothing to backtrack.
        const expression = new RegExp(`^\\p{${property}}$`, 'u');
        return setOf((code) => expression.test(String.fromCharCode(code)));
      } catch {
        // Not a category: perhaps a script.
      }
    }
    throw this.#refused('invalid character class');
  }

  /** After the opening bracket. */
  #class(): CharSet {
    const isNegated = this.#take('^');
    const set = new Uint8Array(CODES);
    const add = (other: CharSet): void => {
      for (let code = 0; code < CODES; code++) if (other[code] === 1) set[code] = 1;
    };
    for (let isFirst = true; isFirst || this.#pattern[this.#at] !== ']'; isFirst = false) {
      const named = this.#takeMatch(/\[:(\^?)(\w+):\]/y);
      if (named !== null) {
        if (!Object.hasOwn(NAMED, named[2])) throw this.#refused('invalid character class');
        add(named[1] === '^' ? not(NAMED[named[2]]) : NAMED[named[2]]);
        continue;
      }
      if (/^\\[pPdDwWsS]/.test(this.#pattern.slice(this.#at, this.#at + 2))) {
        this.#at++;
        add(this.#escape());
        continue;
      }
      const first = this.#classCode();
      let last = first;
      if (this.#pattern[this.#at] === '-' && this.#pattern[this.#at + 1] !== ']') {
        this.#at++;
        last = this.#classCode();
        if (last < first) throw this.#refused('invalid character class range');
      }
      add(this.#codes(first, last));
    }
    this.#at++;
    return isNegated ? not(set) : set;
  }

  #classCode(): number {
    if (this.#take('\\')) return this.#escapedCode();
    return this.#next().codePointAt(0) ?? 0;
  }
}

const KINDS = { set: 0, anchor: 1, split: 2, match: 3 } as const;

class Program {
  readonly #refusal: RegexRefusal;
  readonly #states: State[] = [{ kind: 'match' }];
  readonly #first: number;
  /** The states once more, as numbers: they are looked at for every character of every name. */
  readonly #kinds: Uint8Array;
  readonly #next: Int32Array;
  readonly #other: Int32Array;
  /** Of each state, which characters it takes. */
  readonly #sets: Uint8Array;
  /** State → round in which it was reached last. */
  readonly #reached: Float64Array;
  readonly #stack: Int32Array;
  #current: Int32Array;
  #following: Int32Array;
  #round = 0;
  /** States looked at so far. */
  steps = 0;
  #visits = 0;

  constructor(node: Node, refusal: RegexRefusal) {
    this.#refusal = refusal;
    this.#first = this.#compile(node, 0);
    const size = this.#states.length;
    this.#kinds = new Uint8Array(size);
    this.#next = new Int32Array(size);
    this.#other = new Int32Array(size);
    this.#sets = new Uint8Array(size * CODES);
    this.#states.forEach((state, index) => {
      this.#kinds[index] = KINDS[state.kind];
      if (state.kind !== 'match') this.#next[index] = state.next;
      if (state.kind === 'split') this.#other[index] = state.other;
      if (state.kind === 'set') this.#sets.set(state.set, index * CODES);
    });
    this.#reached = new Float64Array(size);
    // Each state is left once a round, to two others at most.
    this.#stack = new Int32Array(2 * size + 1);
    this.#current = new Int32Array(size);
    this.#following = new Int32Array(size);
  }

  matches(name: string): boolean {
    this.#round++;
    let count = this.#reach(this.#first, this.#current, 0, name, 0);
    for (let at = 0; at < name.length && count > 0; at++) {
      const code = name.charCodeAt(at);
      this.#round++;
      let following = 0;
      for (let index = 0; index < count; index++) {
        const state = this.#current[index];
        if (this.#kinds[state] !== KINDS.set || this.#sets[state * CODES + code] !== 1) continue;
        following = this.#reach(this.#next[state], this.#following, following, name, at + 1);
      }
      [this.#current, this.#following] = [this.#following, this.#current];
      count = following;
    }
    for (let index = 0; index < count; index++) if (this.#current[index] === 0) return true;
    return false;
  }

  /** Adds to `list` everything that is reached from `from` without taking a character; how many there are then. */
  #reach(from: number, list: Int32Array, before: number, name: string, at: number): number {
    const stack = this.#stack;
    let count = before;
    let top = 0;
    stack[top++] = from;
    while (top > 0) {
      const state = stack[--top];
      this.steps++;
      if (this.#reached[state] === this.#round) continue;
      this.#reached[state] = this.#round;
      const kind = this.#kinds[state];
      if (kind === KINDS.split) {
        stack[top++] = this.#next[state];
        stack[top++] = this.#other[state];
      } else if (kind === KINDS.anchor) {
        const anchored = this.#states[state];
        if (anchored.kind === 'anchor' && holds(anchored.anchor, name, at)) stack[top++] = this.#next[state];
      } else list[count++] = state;
    }
    return count;
  }

  /** Where `node` begins if `next` follows it. */
  #compile(node: Node, next: number): number {
    if (++this.#visits > 10 * PROGRAM_SIZE_MAX) throw this.#refusal('it is too large');
    switch (node.kind) {
      case 'set':
        return this.#add({ kind: 'set', set: node.set, next });
      case 'anchor':
        return this.#add({ kind: 'anchor', anchor: node.anchor, next });
      case 'all':
        return node.parts.reduceRight((after, part) => this.#compile(part, after), next);
      case 'any':
        return node.parts.reduceRight((other, part, index) => {
          const start = this.#compile(part, next);
          return index === node.parts.length - 1 ? start : this.#add({ kind: 'split', next: start, other });
        }, next);
      case 'repeat':
        return this.#repeat(node.part, node.min, node.max, next);
    }
  }

  #repeat(part: Node, min: number, max: number, next: number): number {
    let start = next;
    if (max === Number.POSITIVE_INFINITY) {
      const split: State = { kind: 'split', next, other: next };
      start = this.#add(split);
      split.other = this.#compile(part, start);
    } else {
      for (let count = min; count < max; count++) {
        start = this.#add({ kind: 'split', next, other: this.#compile(part, start) });
      }
    }
    for (let count = 0; count < min; count++) start = this.#compile(part, start);
    return start;
  }

  #add(state: State): number {
    if (this.#states.length > PROGRAM_SIZE_MAX) throw this.#refusal('it is too large');
    return this.#states.push(state) - 1;
  }
}

function holds(anchor: Anchor, name: string, at: number): boolean {
  if (anchor === 'start') return at === 0;
  if (anchor === 'end') return at === name.length;
  const isWord = (index: number): boolean => index >= 0 && index < name.length && WORD[name.charCodeAt(index)] === 1;
  return (isWord(at - 1) !== isWord(at)) === (anchor === 'word');
}
