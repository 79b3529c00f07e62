/**
 * The house rules of CONTRIBUTING.md that a machine can check: who may import whom, where time, randomness and files
 * come from, how files are named and opened, and that the written pages fit the code.
 */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { dirname, join, posix } from 'node:path';
import test from 'ava';

const root = projectRoot();
const FOLDERS = ['protocol', 'storage', 'broker', 'adapters', 'clients', 'bench', 'test', 'examples'];
const PRODUCT = ['protocol', 'storage', 'broker', 'adapters', 'clients'];

interface Source {
  /** Relative to the project, with '/'. */
  path: string;
  text: string;
  /** The text with comments and the content of strings blanked, line by line. */
  code: string;
}

const sources: Source[] = FOLDERS.flatMap((folder) => filesBelow(folder))
  .filter((path) => path.endsWith('.ts'))
  .map((path) => {
    const text = readFileSync(join(root, path), 'utf8');
    return { path, text, code: blankCommentsAndStrings(text) };
  });
const product = sources.filter(({ path }) => PRODUCT.some((folder) => path.startsWith(`${folder}/`)));
const isTest = ({ path }: Source) => path.endsWith('.test.ts');
const isGenerated = ({ text }: Source) => text.startsWith('// Generated');

/** What the files under the first path may import from the project, apart from their own folder: path prefixes. */
const IMPORTS: readonly (readonly [string, readonly string[]])[] = [
  ['protocol/', []],
  ['storage/', ['protocol/']],
  ['broker/main.ts', ['storage/', 'protocol/', 'broker/', 'adapters/']],
  ['broker/', ['storage/', 'protocol/']],
  [
    'adapters/cluster/',
    [...adapterImports(), 'broker/queues', 'broker/queue-state', 'broker/state-log', 'clients/kafka/'],
  ],
  // Doors to queues stand on the queue seam, and keep state of their own on a state log.
  [
    'adapters/amqp/',
    [
      ...adapterImports(),
      'broker/queue',
      'broker/state-log',
      'broker/topics',
      'broker/topic-names',
      'broker/dead-letters',
      'broker/directory',
      'broker/policies',
    ],
  ],
  ['adapters/sqs/', [...adapterImports(), 'broker/queue', 'broker/state-log', 'broker/topics', 'broker/http-server']],
  // Shows what the AMQP door has and what the directory has.
  [
    'adapters/management/',
    [
      ...adapterImports(),
      'adapters/amqp/',
      'broker/http-server',
      'broker/queues',
      'broker/directory',
      'broker/users',
      'broker/policies',
      'broker/password-hash',
      'broker/name-pattern',
    ],
  ],
  ['adapters/', adapterImports()],
  ['clients/kafka/', ['protocol/', 'storage/clock']],
  ['clients/sdk/', ['protocol/', 'clients/kafka/', 'storage/clock']],
  [
    'clients/cli/',
    // `serve` starts the broker, names its options, and offline inspection opens the disk.
    [
      'clients/',
      'protocol/',
      'storage/dump',
      'storage/disk',
      'storage/clock',
      'storage/node-disk',
      'storage/native',
      'broker/main',
      'broker/config',
    ],
  ],
];

function adapterImports(): string[] {
  const seams = ['engine', 'server', 'access', 'quotas', 'metrics', 'config'];
  return ['protocol/', 'storage/clock', ...seams.map((name) => `broker/${name}`)];
}

test('a folder imports only from the layers below it', (t) => {
  const wrong: string[] = [];
  for (const source of product) {
    const rule = IMPORTS.find(([prefix]) => source.path.startsWith(prefix));
    if (!rule) continue;
    const [prefix, allowed] = rule;
    const own = prefix.endsWith('/') ? prefix : `${posix.dirname(prefix)}/`;
    for (const { target } of importsOf(source)) {
      if (target.startsWith(own) || allowed.some((other) => target.startsWith(other))) continue;
      wrong.push(`${source.path} imports ${target}`);
    }
  }
  t.deepEqual(wrong, []);
});

test('protocol imports nothing but the buffers of Node', (t) => {
  const wrong = product
    .filter(({ path }) => path.startsWith('protocol/'))
    .flatMap((source) => packagesOf(source).map((name) => `${source.path} imports ${name}`))
    // Pure computation: synchronous gzip and zstd, hashes and HMAC are in Node itself.
    .filter((line) => !/ imports node:(buffer|crypto|zlib)$/.test(line));
  t.deepEqual(wrong, []);
});

test('imports carry their extension', (t) => {
  const wrong = sources.flatMap(({ path, text }) =>
    [...text.matchAll(/(?:from|import\()\s*'(\.[^']*)'/g)]
      .map((match) => match[1])
      .filter((name) => !/\.(ts|js|mjs|json)$/.test(name))
      .map((name) => `${path} imports ${name}`),
  );
  t.deepEqual(wrong, []);
});

/** What only the implementations of the seams may touch. */
const BANNED: readonly { what: RegExp; name: string; allowed: readonly string[] }[] = [
  { what: /\bDate\.now\b|\bnew Date\(\s*\)/, name: 'the wall clock', allowed: ['storage/clock.ts'] },
  { what: /\bMath\.random\b/, name: 'Math.random', allowed: [] },
  { what: /(?<![.\w])set(Timeout|Immediate|Interval)\b/, name: 'timers', allowed: ['storage/clock.ts'] },
  { what: /\bprocess\.(nextTick|hrtime)\b/, name: 'process.nextTick and hrtime', allowed: [] },
  {
    what: /\bperformance\.|\bmonitorEventLoopDelay\b/,
    name: 'performance',
    allowed: ['storage/clock.ts', 'broker/main.ts'],
  },
  { what: /\brandom(Bytes|UUID|Int|Fill|FillSync)\b\s*\(/, name: 'random bytes', allowed: ['storage/clock.ts'] },
];

test('time and randomness come from Clock and Random', (t) => {
  const wrong: string[] = [];
  for (const { path, code } of product) {
    code.split('\n').forEach((line, index) => {
      for (const { what, name, allowed } of BANNED) {
        if (what.test(line) && !allowed.includes(path)) wrong.push(`${path}:${index + 1} uses ${name}`);
      }
    });
  }
  t.deepEqual(wrong, []);
});

/** Files that may open files, beside those that implement `Disk`. The command line reads what its user names. */
const FILE_USERS = ['storage/node-disk.ts', 'storage/folder-lock.ts', 'storage/zstd-wasm.ts', 'clients/cli/'];
const SOCKET_USERS = ['broker/', 'adapters/', 'clients/'];

test('files are opened through Disk and sockets by doors and clients', (t) => {
  const wrong: string[] = [];
  for (const source of product) {
    for (const name of packagesOf(source)) {
      if (/^node:fs(\/|$)/.test(name) && !FILE_USERS.some((prefix) => source.path.startsWith(prefix))) {
        wrong.push(`${source.path} imports ${name}`);
      }
      if (/^node:(net|tls|http|https)$/.test(name) && !SOCKET_USERS.some((prefix) => source.path.startsWith(prefix))) {
        wrong.push(`${source.path} imports ${name}`);
      }
    }
  }
  t.deepEqual(wrong, []);
});

test('files are named in kebab case and start with what they are for', (t) => {
  const wrong: string[] = [];
  for (const source of sources) {
    const name = posix.basename(source.path);
    if (!/^[a-z0-9]+(-[a-z0-9]+)*(\.test|\.d)?\.ts$/.test(name)) wrong.push(`${source.path}: not kebab-case`);
    if (!isTest(source) && !/^(\/\*\*|\/\/ \S)/.test(source.text.replace(/^#!.*\n/, '')))
      wrong.push(`${source.path}: no opening comment`);
    if (/(^|-)(helpers?|utils?|managers?|impl|misc|common)(-|\.)/.test(name))
      wrong.push(`${source.path}: says nothing`);
  }
  t.deepEqual(wrong, []);
});

test('only language that types can be erased from, and named exports', (t) => {
  const rules: readonly (readonly [RegExp, string])[] = [
    [/^\s*export default\b/, 'default export'],
    [/^\s*(export\s+)?(declare\s+)?(const\s+)?enum\s/, 'enum'],
    [/^\s*(export\s+)?(declare\s+)?namespace\s/, 'namespace'],
    [/\bconstructor\((?:[^)]*,)?\s*(?:private|public|protected|readonly)\s+\w/, 'parameter property'],
    [/^\s*(private|public|protected)\s(?!constructor\()/, 'access modifier instead of #private'],
    [/\bclass \w+(<.*>)? extends (?!\w*Error\b)/, 'inheritance'],
    [/\binterface I[A-Z][a-z]/, 'I prefix'],
    [/^\s*export \* from/, 'barrel export'],
  ];
  const wrong: string[] = [];
  for (const { path, code } of sources) {
    // The SDK's one entry point collects its parts.
    const isEntry = path === 'clients/sdk/index.ts';
    code.split('\n').forEach((line, index) => {
      for (const [pattern, name] of rules) {
        if (pattern.test(line) && !(isEntry && name === 'barrel export')) wrong.push(`${path}:${index + 1} ${name}`);
      }
    });
  }
  t.deepEqual(wrong, []);
});

test('no file is too long to keep in the head', (t) => {
  const long = sources
    .filter((source) => !isGenerated(source) && !source.path.startsWith('test/'))
    .map(({ path, text }) => ({ path, lines: text.split('\n').length }))
    .filter(({ lines }) => lines > 1000);
  t.deepEqual(long, []);
});

test('open ends carry an issue number and nothing names the machine it was written on', (t) => {
  const rules: readonly (readonly [RegExp, string])[] = [
    [/\bTODO\b(?!\(#\d+\)| #\d+)/, 'TODO without an issue number'],
    [/\bFIXME\b|\bXXX\b/, 'FIXME'],
    [/\/(work|root|home\/\w+)\//, 'a path of one machine'],
    [/registry\.npmjs|repo1?\.maven/, 'a package registry'],
  ];
  const texts = [
    ...sources.filter(({ path }) => path !== 'test/tidy.test.ts'),
    ...['README.md', 'CONTRIBUTING.md', 'CHANGELOG.md', ...filesBelow('docs'), ...filesBelow('scripts')]
      .filter((path) => /\.(md|mjs|yaml)$/.test(path) && existsSync(join(root, path)))
      .map((path) => ({ path, text: readFileSync(join(root, path), 'utf8') })),
  ];
  const wrong: string[] = [];
  for (const { path, text } of texts) {
    text.split('\n').forEach((line, index) => {
      for (const [pattern, name] of rules) if (pattern.test(line)) wrong.push(`${path}:${index + 1} ${name}`);
    });
  }
  t.deepEqual(wrong, []);
});

test('each source folder has a page of at most 60 lines', (t) => {
  const wrong: string[] = [];
  const folders = new Set(product.map(({ path }) => posix.dirname(path)));
  for (const folder of folders) {
    const page = join(root, folder, 'README.md');
    if (!existsSync(page)) wrong.push(`${folder}/README.md is missing`);
    else if (readFileSync(page, 'utf8').trimEnd().split('\n').length > 60)
      wrong.push(`${folder}/README.md is too long`);
  }
  t.deepEqual(wrong, []);
});

test('decision pages are numbered once and say what was decided', (t) => {
  const wrong: string[] = [];
  const seen = new Set<string>();
  for (const path of filesBelow('docs/decisions')) {
    const name = posix.basename(path);
    if (name === 'README.md') continue;
    const number = /^(\d{4})-[a-z0-9-]+\.md$/.exec(name)?.[1];
    if (!number || seen.has(number)) wrong.push(`${path}: not a number of its own and a title`);
    else seen.add(number);
    const text = readFileSync(join(root, path), 'utf8');
    if (number && !text.startsWith(`# ${number} `)) wrong.push(`${path}: does not start with '# ${number} '`);
    if (!/\*\*(Decision|Decided)|## Decision/.test(text)) wrong.push(`${path}: no decision in it`);
    if (text.split('\n').length > 80) wrong.push(`${path}: more than a page`);
  }
  t.deepEqual(wrong, []);
});

test('links between pages lead somewhere', (t) => {
  const pages = [
    'README.md',
    'CONTRIBUTING.md',
    ...filesBelow('docs'),
    ...sources.map(({ path }) => join(dirname(path), 'README.md')),
  ];
  const wrong: string[] = [];
  for (const page of new Set(pages)) {
    if (!page.endsWith('.md') || !existsSync(join(root, page))) continue;
    const text = readFileSync(join(root, page), 'utf8').replace(/```[\s\S]*?```/g, '');
    for (const [, target] of text.matchAll(/\]\(([^)#\s]+)[^)]*\)/g)) {
      if (/^[a-z]+:/.test(target)) continue;
      if (!existsSync(join(root, dirname(page), target))) wrong.push(`${page} links to ${target}`);
    }
  }
  t.deepEqual(wrong, []);
});

/** Relative imports (types too), as project paths without extension. */
function importsOf({ path, text }: Source): { target: string }[] {
  return [...text.matchAll(/(?:\bfrom|\bimport\(|^import)\s*'(\.[^']*)'/gm)].map((match) => ({
    target: posix.join(posix.dirname(path), match[1]).replace(/\.(ts|js)$/, ''),
  }));
}

function packagesOf({ text }: Source): string[] {
  return [...text.matchAll(/(?:\bfrom|\bimport\(|^import|\brequire\()\s*'([^.'][^']*)'/gm)].map((match) => match[1]);
}

function filesBelow(folder: string): string[] {
  if (!existsSync(join(root, folder))) return [];
  return readdirSync(join(root, folder), { withFileTypes: true })
    .flatMap((entry) => {
      const path = `${folder}/${entry.name}`;
      if (entry.isDirectory()) return entry.name === 'node_modules' ? [] : filesBelow(path);
      return [path];
    })
    .sort();
}

/** Keeps line numbers. Good enough for the code we write: nested templates are blanked only in part. */
function blankCommentsAndStrings(text: string): string {
  const blank = (match: string) => match.replace(/[^\n]/g, ' ');
  return text
    .replace(/\/\*[\s\S]*?\*\//g, blank)
    .replace(/(^|[^:'"`\\])\/\/.*$/gm, blank)
    .replace(/'(?:[^'\\\n]|\\.)*'/g, blank);
}

/** The tests run from a build folder at any depth of the project. */
function projectRoot(): string {
  let folder = import.meta.dirname;
  while (!existsSync(join(folder, 'package-lock.json'))) folder = dirname(folder);
  return folder;
}
