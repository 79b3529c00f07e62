/**
 * Reads the `.def` files: one definition per Kafka message, covering all its versions (the language is explained at the
 * top of core.def). Used by the generator and by the test that compares the definitions with Kafka's own schemas.
 *
 * Always: every range in the result is within the message's own versions, and a field without a range has its parent's.
 */

/** Both ends included. */
export interface Versions {
  readonly first: number;
  readonly last: number;
}

export interface Structure {
  /** Unique among all messages: the message's name, then its own. */
  readonly name: string;
  readonly versions: Versions;
  readonly fields: readonly Field[];
}

export interface Field {
  readonly name: string;
  /** A primitive's name, or `struct`. */
  readonly type: string;
  readonly isArray: boolean;
  readonly structure: Structure | null;
  readonly versions: Versions;
  /** Where it may be null; null: nowhere. */
  readonly nullable: Versions | null;
  readonly tag: number | null;
  readonly isIgnorable: boolean;
  readonly isPlain: boolean;
  readonly isClipped: boolean;
  /** As written after `=`, without quotes; null: the type's own default. */
  readonly defaultText: string | null;
}

export interface Message extends Structure {
  /** First version with compact lengths and tagged fields; `Infinity`: none. */
  readonly flexibleFrom: number;
}

export interface ApiDefinition {
  readonly key: number;
  readonly name: string;
  readonly versions: Versions;
  /** First version that is not offered to clients; `Infinity`: none. */
  readonly unstableFrom: number;
  readonly flexibleFrom: number;
  readonly request: Message;
  readonly response: Message;
}

export interface Definitions {
  readonly apis: readonly ApiDefinition[];
  /** All messages in the order of the files; an API's request is followed by its response. */
  readonly messages: readonly Message[];
}

const PRIMITIVES = new Set(['bool', 'int8', 'int16', 'int32', 'int64', 'uuid', 'string', 'bytes', 'records']);

interface Line {
  readonly number: number;
  readonly depth: number;
  readonly words: readonly string[];
}

/** Parses the text of one or more `.def` files. A mistake in them is an `Error` that names the line. */
export function parseDefinitions(...texts: readonly string[]): Definitions {
  const apis: ApiDefinition[] = [];
  const messages: Message[] = [];
  for (const text of texts) {
    const lines = linesOf(text);
    let at = 0;
    while (at < lines.length) {
      const head = lines[at];
      const isApi = head.words[0] === 'api';
      if (head.depth !== 0 || !(isApi || head.words[0] === 'data')) throw wrong(head, 'expected api or data');
      const words = head.words.slice(isApi ? 2 : 1);
      const name = words[0];
      const versions = within(words[1], { first: 0, last: 32767 }, head);
      const flexibleFrom = option(words, 'flexible', head);
      const unstableFrom = option(words, 'unstable', head);
      at += 1;
      const body = (messageName: string): Message => {
        const [fields, next] = fieldsAt(lines, at, 1, { messageName, versions });
        at = next;
        const message = { name: messageName, versions, flexibleFrom, fields };
        messages.push(message);
        return message;
      };
      if (!isApi) {
        body(name);
        continue;
      }
      expectWord(lines[at++], 'request');
      const request = body(`${name}Request`);
      expectWord(lines[at++], 'response');
      const response = body(`${name}Response`);
      apis.push({ key: Number(head.words[1]), name, versions, unstableFrom, flexibleFrom, request, response });
    }
  }
  return { apis, messages };
}

function linesOf(text: string): Line[] {
  const lines: Line[] = [];
  text.split('\n').forEach((source, index) => {
    const line = source.replace(/#.*/, '').trimEnd();
    if (line === '') return;
    const indent = line.length - line.trimStart().length;
    lines.push({ number: index + 1, depth: indent / 2, words: line.trim().split(/ +/) });
  });
  return lines;
}

function fieldsAt(
  lines: readonly Line[],
  start: number,
  depth: number,
  scope: { messageName: string; versions: Versions },
): [Field[], number] {
  const fields: Field[] = [];
  let at = start;
  while (at < lines.length && lines[at].depth === depth) {
    const line = lines[at];
    const parts = fieldParts(line, scope.versions);
    at += 1;
    let structure: Structure | null = null;
    let type = parts.type;
    if (/^[A-Z]/.test(type)) {
      const [children, next] = fieldsAt(lines, at, depth + 1, { ...scope, versions: parts.versions });
      if (children.length === 0) throw wrong(line, 'a structure without fields');
      structure = { name: scope.messageName + type, versions: parts.versions, fields: children };
      type = 'struct';
      at = next;
    } else if (!PRIMITIVES.has(type)) {
      throw wrong(line, `unknown type ${type}`);
    }
    fields.push({ ...parts, type, structure });
  }
  if (at < lines.length && lines[at].depth > depth) throw wrong(lines[at], 'indented too far');
  return [fields, at];
}

function fieldParts(line: Line, scope: Versions): Omit<Field, 'structure'> {
  const [name, typeWord, ...rest] = line.words;
  const match = /^(\[\])?(\w+)(?:(\?)(.*))?$/.exec(typeWord ?? '');
  if (match === null) throw wrong(line, 'expected NAME TYPE');
  const versions = rest.length > 0 && /^\d/.test(rest[0]) ? within(rest.shift() ?? '', scope, line) : scope;
  let tag: number | null = null;
  let defaultText: string | null = null;
  const flags = new Set<string>();
  while (rest.length > 0) {
    const word = rest.shift() ?? '';
    if (word === 'tag') tag = Number(rest.shift());
    else if (word === '=') defaultText = (rest.shift() ?? '').replace(/^'(.*)'$/, '$1');
    else if (word === 'ignorable' || word === 'plain' || word === 'clip') flags.add(word);
    else throw wrong(line, `unknown word ${word}`);
  }
  const nullable = match[3] === undefined ? null : match[4] === '' ? versions : within(match[4], versions, line);
  return {
    name,
    type: match[2],
    isArray: match[1] !== undefined,
    versions,
    nullable,
    tag,
    isIgnorable: flags.has('ignorable'),
    isPlain: flags.has('plain'),
    isClipped: flags.has('clip'),
    defaultText,
  };
}

/** `3`, `3-5` or `3+`, which must lie within `scope`. */
function within(text: string | undefined, scope: Versions, line: Line): Versions {
  const match = /^(\d+)(?:(\+)|-(\d+))?$/.exec(text ?? '');
  if (match === null) throw wrong(line, `${text} is not a range of versions`);
  const first = Number(match[1]);
  const last = match[2] === '+' ? scope.last : match[3] === undefined ? first : Number(match[3]);
  if (first < scope.first || last > scope.last || first > last) {
    throw wrong(line, `${text} is not within versions ${scope.first}-${scope.last}`);
  }
  return { first, last };
}

function option(words: readonly string[], name: string, line: Line): number {
  const at = words.indexOf(name);
  if (at < 0) return Number.POSITIVE_INFINITY;
  const value = Number.parseInt(words[at + 1] ?? '', 10);
  if (Number.isNaN(value)) throw wrong(line, `${name} needs a version`);
  return value;
}

function expectWord(line: Line | undefined, word: string): void {
  if (line?.words[0] !== word) throw new Error(`line ${line?.number ?? 'after the last'}: expected ${word}`);
}

function wrong(line: Line, what: string): Error {
  return new Error(`line ${line.number} (${line.words.join(' ')}): ${what}`);
}
