/** @platformatic/kafka, which needs Node 22.22: installed for a full run only, since it is no dependency of ours. */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'ava';
import { projectRoot } from './java-tools.ts';
import { testScenarios } from './scenarios.ts';
import { isFull, sayMissing } from './target.ts';

/** Another Node may be named for it, as the one that runs the tests may be older. */
const node = process.env['MILLRACE_COMPAT_NODE'] ?? process.execPath;

function isNewEnough(): boolean {
  const { stdout } = spawnSync(node, ['--version'], { encoding: 'utf8' });
  const [major, minor] = stdout.slice(1).split('.').map(Number);
  return major > 22 || (major === 22 && minor >= 22);
}

function install(folder: string): boolean {
  writeFileSync(join(folder, 'package.json'), '{ "private": true }\n');
  const args = ['install', '--no-audit', '--no-fund', '--loglevel=error', '@platformatic/kafka@2.12.1'];
  return spawnSync('npm', args, { cwd: folder, stdio: 'ignore', timeout: 100_000 }).status === 0;
}

const folder = isFull && isNewEnough() ? mkdtempSync(join(tmpdir(), 'millrace-platformatic-')) : undefined;
if (folder !== undefined) test.after.always(() => rmSync(folder, { recursive: true, force: true }));
if (folder !== undefined && install(folder)) {
  testScenarios(['every-codec-in-a-group'], [], async () => ({
    command: node,
    args: [join(projectRoot(), 'test/compat/node/platformatic.mjs'), folder],
  }));
} else {
  if (isFull) sayMissing('@platformatic/kafka, or a Node of 22.22 for it,');
  test('@platformatic/kafka is part of npm run compat', (t) => t.pass());
}
