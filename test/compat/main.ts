/**
 * All tests with foreign clients, also those that take too long for `npm test`:
 *
 *   npm run compat [-- --against HOST:PORT] [NAME ...]
 *
 * With `--against` the clients talk to that broker (an Apache Kafka, to see that the tests expect what it does; start it
 * with group.min.session.timeout.ms=1000). A NAME is that of a test file, like `kcat`.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { join, relative } from 'node:path';
import { parseArgs } from 'node:util';
import { projectRoot } from './java-tools.ts';

const { values, positionals } = parseArgs({ options: { against: { type: 'string' } }, allowPositionals: true });
const root = projectRoot();
const folder = relative(root, import.meta.dirname);
const files = positionals.length > 0 ? positionals.map((name) => `${name}.test.js`) : ['*.test.js'];
const env: NodeJS.ProcessEnv = {
  ...process.env,
  MILLRACE_COMPAT: 'full',
  MILLRACE_DIST: folder.split(/[\\/]test[\\/]/)[0],
  UV_THREADPOOL_SIZE: '16',
};
if (values.against) env['MILLRACE_COMPAT_BOOTSTRAP'] = values.against;
const ava = join(root, 'node_modules/ava/entrypoints/cli.mjs');
const args = ['--timeout=600s', ...files.map((file) => join(folder, file))];
const child = spawn(process.execPath, [ava, ...args], { cwd: root, env, stdio: 'inherit' });
const [code] = await once(child, 'exit');
process.exitCode = code ?? 1;
