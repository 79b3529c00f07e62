/**
 * As much of HOCON (ElasticMQ's configuration) as names, objects and plain values take: `a.b = c`, `a { … }`, quotes, comments.
 * Includes and substitutions are passed over.
 */

export type HoconObject = ReadonlyMap<string, HoconValue>;
export type HoconValue = string | HoconObject;

const DEPTH_MAX = 16;

export function parseHocon(text: string): HoconObject {
  const root = new Map<string, HoconValue>();
  const open: Map<string, HoconValue>[] = [root];
  for (const [number, raw] of text.split('\n').entries()) {
    let line = withoutComment(raw).trim();
    while (line !== '') {
      if (line.startsWith('}')) {
        open.pop();
        if (open.length === 0) throw new Error(`line ${number + 1} closes what is not open`);
        line = line.slice(1).replace(/^[\s,]+/, '');
        continue;
      }
      // The braces of the whole.
      if (line.startsWith('{')) {
        open.push(open[open.length - 1]);
        line = line.slice(1).trim();
        continue;
      }
      const [, key, mark, rest] = /^((?:"[^"]*"|[^"={:\s]+)+)\s*([={:])\s*(.*)$/.exec(line) ?? [];
      if (key === undefined) {
        if (/^include\b/.test(line)) break;
        throw new Error(`line ${number + 1} is not understood: ${line}`);
      }
      const isObject = mark === '{' || rest.startsWith('{');
      const target = open[open.length - 1];
      if (isObject) {
        if (open.length > DEPTH_MAX) throw new Error(`line ${number + 1} is nested too deep`);
        open.push(objectAt(target, keysOf(key)));
        line = (mark === '{' ? rest : rest.slice(1)).trim();
        continue;
      }
      const end = rest.search(/[,}](?=(?:[^"]*"[^"]*")*[^"]*$)/);
      const value = (end < 0 ? rest : rest.slice(0, end)).trim();
      const keys = keysOf(key);
      const last = keys.pop() ?? '';
      objectAt(target, keys).set(last, unquoted(value));
      line = end < 0 ? '' : rest.slice(end).replace(/^[\s,]+/, '');
    }
  }
  return root;
}

function keysOf(key: string): string[] {
  return [...key.matchAll(/"([^"]*)"|([^."]+)/g)].map(([, quoted, plain]) => quoted ?? plain);
}

function objectAt(from: Map<string, HoconValue>, keys: readonly string[]): Map<string, HoconValue> {
  let at = from;
  for (const key of keys) {
    const known = at.get(key);
    if (known instanceof Map) at = known;
    else {
      const made = new Map<string, HoconValue>();
      at.set(key, made);
      at = made;
    }
  }
  return at;
}

const unquoted = (text: string): string => (/^".*"$/.test(text) ? text.slice(1, -1) : text);

/** Signs of comments in quotes are none. */
function withoutComment(line: string): string {
  let isQuoted = false;
  for (let at = 0; at < line.length; at++) {
    if (line[at] === '"') isQuoted = !isQuoted;
    else if (!isQuoted && (line[at] === '#' || line.startsWith('//', at))) return line.slice(0, at);
  }
  return line;
}
