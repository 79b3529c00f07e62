#!/usr/bin/env node
// Starts everything in a checkout: `node scripts/run.mjs COMMAND …`. Installs when the lock file changed, builds when
// the sources did, then runs the command: a developer task below, or the command line of Millrace itself (the default
// is `serve`). In an installed package there are no sources and nothing to install, and this is the `millrace` command.
//
// Plain JavaScript with no import beyond Node, because it runs before anything is installed.
import { spawn, spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, readdirSync, readFileSync, rmSync, statSync, watch, writeFileSync } from 'node:fs';
import { join, relative, resolve } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';

const root = fileURLToPath(new URL('..', import.meta.url));
const isCheckout = existsSync(join(root, 'tsconfig.json'));
const SOURCES = ['protocol', 'storage', 'broker', 'adapters', 'clients', 'bench', 'test', 'examples'];
// Threads of libuv's pool: disk calls of the journal, of segments and of readers run side by side. libuv reads the
// number when the pool is first used, which is before any line of ours, so it has to be there when Node starts.
const POOL_THREADS = '16';

const tasks = { build: async () => 0, test, check, dev, sim, bench, ci, format, docs, example };

checkNode();
const [command, ...rest] = process.argv.slice(2);
if (isCheckout) {
  install();
  if (command !== 'format' && command !== 'dev') build();
}
if (isCheckout && Object.hasOwn(tasks, command)) process.exitCode = await tasks[command](rest);
else await millrace(process.argv.slice(2));

function checkNode() {
  const [major, minor] = process.versions.node.split('.').map(Number);
  if (major > 20 || (major === 20 && minor >= 19)) return;
  console.error(`Millrace needs Node.js 20.19 or newer; this is ${process.versions.node} (${process.execPath}).`);
  process.exit(1);
}

/** Runs npm unless node_modules already holds what package-lock.json asks for, built for this Node. */
function install() {
  const lockFile = join(root, 'package-lock.json');
  const stampFile = join(root, 'node_modules/.millrace-installed');
  const hash = createHash('sha256').update(readFileSync(lockFile)).digest('hex');
  const stamp = `${hash} ${process.platform}-${process.arch}-${process.versions.modules}\n`;
  const found = readIfThere(stampFile);
  if (found === stamp) return;
  // Somebody ran npm by hand after the lock file changed: npm's own copy of it is at least as new (a slack of 5 s,
  // because npm writes the two one after the other).
  const npmCopy = modifiedMs(join(root, 'node_modules/.package-lock.json'));
  const isForThisNode = found === '' || found.split(' ')[1] === stamp.split(' ')[1];
  if (isForThisNode && npmCopy > 0 && npmCopy + 5000 >= modifiedMs(lockFile)) {
    writeFileSync(stampFile, stamp);
    return;
  }
  console.error('Installing the packages that package-lock.json lists (once; the native ones are optional) …');
  // Windows has npm as a .cmd file, which only a shell can start.
  const isWindows = process.platform === 'win32';
  const options = { cwd: root, stdio: ['ignore', 2, 2], shell: isWindows, env: withoutNpmConfig(process.env) };
  const { status } = spawnSync('npm', ['install', '--no-save', '--no-audit', '--no-fund', '--loglevel=error'], options);
  if (status !== 0) fail(`npm install failed (see above). Start again once the cause is gone.`);
  writeFileSync(stampFile, stamp);
}

/** npm tells its scripts how it was called (`npm test --offline`); most of that is not meant for the npm inside. */
function withoutNpmConfig(env) {
  const kept =
    /^npm_config_(registry|cache|userconfig|globalconfig|https?_proxy|noproxy|cafile|offline|prefer_offline)$/i;
  const isKept = ([name]) => !/^npm_/i.test(name) || kept.test(name);
  return Object.fromEntries(Object.entries(env).filter(isKept));
}

/** Compiles when a source file was added, changed or removed since the last build. */
function build() {
  const stampFile = join(root, 'dist/.built');
  const files = SOURCES.flatMap((folder) => filesBelow(join(root, folder))).filter((file) => file.endsWith('.ts'));
  const hash = createHash('sha256');
  for (const file of [...files, join(root, 'tsconfig.json'), join(root, 'package-lock.json')]) {
    const { mtimeMs, size } = statSync(file);
    hash.update(`${relative(root, file)} ${mtimeMs} ${size}\n`);
  }
  const stamp = hash.digest('hex');
  if (readIfThere(stampFile) === stamp) return;
  console.error('Building …');
  // Without its output a build info file would make the compiler think that nothing is to be done.
  if (!existsSync(join(root, 'dist/clients'))) rmSync(join(root, 'dist'), { recursive: true, force: true });
  const { status } = spawnSync(process.execPath, [tool('typescript', 'tsc')], { cwd: root, stdio: ['ignore', 2, 2] });
  if (status !== 0) fail('The build failed (see above).');
  removeOrphans();
  writeFileSync(stampFile, stamp);
}

/** Deletes compiled files whose source is gone, so that no deleted test goes on running. */
function removeOrphans() {
  for (const file of filesBelow(join(root, 'dist'))) {
    if (!file.endsWith('.js')) continue;
    const source = join(root, relative(join(root, 'dist'), file).replace(/\.js$/, '.ts'));
    if (!existsSync(source)) rmSync(file);
  }
}

/**
 * The command line itself. `serve` gets a process of its own, with libuv's pool sized before it starts; its channel to
 * this one tells it when this one was killed, so that no broker is left behind. Everything else runs right here.
 */
async function millrace(args) {
  const main = join(root, 'dist/clients/cli/main.js');
  if (!existsSync(main)) fail(`${main} is missing; the build is not complete.`);
  const isServe = args.length === 0 || args[0] === 'serve' || (args[0].startsWith('-') && !isQuestion(args[0]));
  if (!isServe || args.some(isQuestion)) {
    process.argv = [process.argv[0], main, ...args];
    await import(pathToFileURL(main).href);
    return;
  }
  const serveArgs = args[0] === 'serve' ? args : ['serve', ...args];
  process.exitCode = await run([main, ...serveArgs], { cwd: process.cwd(), stdio: [0, 1, 2, 'ipc'] });
}

function isQuestion(arg) {
  return arg === '--help' || arg === '-h' || arg === '--version' || arg === '-V';
}

/** All tests, or those of the given files (`npm test -- test/storage/segment.test.ts`). Ends with the counts. */
async function test(args) {
  const files = args.map((arg) =>
    arg.endsWith('.ts') ? join('dist', relative(root, resolve(arg))).replace(/ts$/, 'js') : arg,
  );
  const counts = await runAva(files);
  console.log(`${counts.passed} passed, ${counts.failed} failed`);
  return counts.failed === 0 ? 0 : 1;
}

/** AVA with its output passed on and its closing counts read. A run that ended badly counts as one failure at least. */
async function runAva(files, env = {}) {
  const color = process.stdout.isTTY ? '--color' : '--no-color';
  const child = spawn(process.execPath, [tool('ava', 'ava'), color, ...files], {
    cwd: root,
    stdio: ['ignore', 'pipe', 2],
    env: { ...process.env, UV_THREADPOOL_SIZE: POOL_THREADS, ...env },
  });
  forwardSignals(child);
  let tail = '';
  let passed = 0;
  let line = '';
  child.stdout.setEncoding('utf8');
  child.stdout.on('data', (text) => {
    process.stdout.write(text);
    tail = (tail + text).slice(-100_000);
    // AVA's closing lines leave out what passed as soon as something failed: each passed test has a line with a tick.
    const lines = (line + text).split('\n');
    line = lines.pop() ?? '';
    passed += lines.filter((whole) => /^\s*[✔√] /.test(withoutColors(whole))).length;
  });
  const code = await exited(child);
  const plain = withoutColors(tail);
  const count = (pattern) => Number([...plain.matchAll(pattern)].at(-1)?.[1] ?? 0);
  const failures = [/(\d+) tests? failed/gm, /(\d+) uncaught exceptions?/gm, /(\d+) unhandled rejections?/gm];
  const failed = failures.reduce((sum, pattern) => sum + count(pattern), 0);
  return { passed, failed: code === 0 ? failed : Math.max(1, failed) };
}

function withoutColors(text) {
  // The ESC of terminal colours, built so that this file stays plain text.
  return text.replaceAll(new RegExp(`${String.fromCharCode(27)}\\[[0-9;]*m`, 'g'), '');
}

/** Format, lint, types (the build did those), house rules, generated files. */
async function check() {
  const steps = [
    ['format', [tool('@biomejs/biome', 'biome'), 'format', '.']],
    ['lint', [tool('oxlint', 'oxlint'), '--type-aware', '--deny-warnings']],
    ['generated files', [join(root, 'scripts/docs.mjs'), '--check']],
  ];
  let failed = 0;
  for (const [name, args] of steps) {
    const code = await run(args, { cwd: root });
    if (code !== 0) failed++;
    console.log(`${code === 0 ? 'ok' : 'FAILED'}: ${name}`);
  }
  const rules = await runAva(['dist/test/tidy.test.js']);
  if (rules.failed > 0) failed++;
  console.log(`${rules.failed === 0 ? 'ok' : 'FAILED'}: house rules`);
  return failed === 0 ? 0 : 1;
}

/** The broker, built and started again after each change of a source file. */
async function dev(args) {
  const serve = () => spawn(process.execPath, [fileURLToPath(import.meta.url), 'serve', ...args], { stdio: 'inherit' });
  let child = serve();
  let timer;
  const restart = async () => {
    const ended = exited(child);
    child.kill('SIGTERM');
    await ended;
    child = serve();
  };
  for (const folder of SOURCES) {
    if (!existsSync(join(root, folder))) continue;
    watch(join(root, folder), { recursive: true }, () => {
      clearTimeout(timer);
      timer = setTimeout(restart, 200);
    });
  }
  return new Promise((done) => {
    for (const signal of ['SIGINT', 'SIGTERM']) {
      process.once(signal, async () => {
        const ended = exited(child);
        child.kill(signal);
        done(await ended);
        process.exit();
      });
    }
  });
}

/** The whole broker on a simulated disk, clock and network, from seeds. */
async function sim(args) {
  const isOfLog = args.includes('--log') || args.includes('--mutants');
  const program = args.includes('--queues') || args.includes('--amqp') ? 'queue-main' : isOfLog ? 'log-main' : 'main';
  return run([join(root, `dist/test/sim/${program}.js`), ...args], { cwd: root });
}

async function bench(args) {
  return run([join(root, 'dist/bench/main.js'), ...args], { cwd: root });
}

/** What the project's CI runs. */
async function ci() {
  const child = spawn('bash', [join(root, '.ci/run')], { cwd: root, stdio: 'inherit' });
  forwardSignals(child);
  return exited(child);
}

async function format(args) {
  return run([tool('@biomejs/biome', 'biome'), 'format', '--write', ...(args.length > 0 ? args : ['.'])], {
    cwd: root,
  });
}

/** Writes the generated files. */
async function docs(args) {
  return run([join(root, 'scripts/docs.mjs'), ...args], { cwd: root });
}

async function example(args) {
  const [name = 'earthquakes', ...more] = args;
  return run([join(root, 'dist/examples', name, 'main.js'), ...more], { cwd: root });
}

/** Runs Node with `args` until it ends; answers its exit code. */
function run(args, options) {
  const env = { ...process.env, UV_THREADPOOL_SIZE: process.env.UV_THREADPOOL_SIZE ?? POOL_THREADS };
  const child = spawn(process.execPath, args, { stdio: 'inherit', env, ...options });
  forwardSignals(child);
  if (process.env.npm_lifecycle_event) endWithParent(child);
  return exited(child);
}

/** A signal to npm ends the shell between npm and us, which does not pass it on: we notice that our parent changed. */
function endWithParent(child) {
  const parent = process.ppid;
  const timer = setInterval(() => {
    if (process.ppid === parent) return;
    clearInterval(timer);
    child.kill('SIGTERM');
  }, 100);
  child.once('exit', () => clearInterval(timer));
}

/**
 * Ctrl-C reaches the child directly and once more from here (and from npm): the broker takes signals that come
 * together as one.
 */
function forwardSignals(child) {
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) {
    const forward = () => child.kill(signal);
    process.on(signal, forward);
    child.once('exit', () => process.off(signal, forward));
  }
}

function exited(child) {
  return new Promise((done, failed) => {
    child.once('error', failed);
    child.once('exit', (code, signal) => {
      // A process that was killed ends as shells report it: 128 and the number of the signal.
      const numbers = { SIGHUP: 1, SIGINT: 2, SIGKILL: 9, SIGTERM: 15 };
      done(code ?? 128 + (numbers[signal] ?? 0));
    });
  });
}

/** The file behind a package's command. */
function tool(packageName, commandName) {
  const folder = join(root, 'node_modules', packageName);
  const { bin } = JSON.parse(readFileSync(join(folder, 'package.json'), 'utf8'));
  return join(folder, typeof bin === 'string' ? bin : bin[commandName]);
}

function filesBelow(folder) {
  if (!existsSync(folder)) return [];
  return readdirSync(folder, { withFileTypes: true })
    .flatMap((entry) => {
      const path = join(folder, entry.name);
      return entry.isDirectory() ? filesBelow(path) : [path];
    })
    .sort();
}

function readIfThere(file) {
  return existsSync(file) ? readFileSync(file, 'utf8') : '';
}

function modifiedMs(file) {
  return existsSync(file) ? statSync(file).mtimeMs : 0;
}

function fail(message) {
  console.error(message);
  process.exit(1);
}
