/** franz-go (the highest versions), sarama (oldest to newest) and kafka-go (old versions): programs in `go/`. */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'ava';
import { projectRoot } from './java-tools.ts';
import { testScenarios } from './scenarios.ts';
import { isInstalled, sayMissing } from './target.ts';

const names = [
  'franz-go-codecs',
  'franz-go-group',
  'franz-go-admin',
  'franz-go-out-of-range',
  'franz-go-too-large',
  'franz-go-topic-deleted',
  'sarama-oldest',
  'sarama-default',
  'sarama-newest',
  'sarama-group',
  'sarama-admin',
  'sarama-too-large',
  'kafka-go-codecs',
  'kafka-go-group',
  'kafka-go-admin',
];

const cwd = join(projectRoot(), 'test/compat/go');
const env = { ...process.env, GOFLAGS: '-mod=mod -buildvcs=false' };

/** Whether Go is here and the modules of the clients are, or can be fetched. */
function hasModules(): boolean {
  if (!isInstalled('go', 'version')) return false;
  return spawnSync('go', ['mod', 'download'], { cwd, env, stdio: 'ignore', timeout: 100_000 }).status === 0;
}

function build(folder: string): string {
  const program = join(folder, 'compat');
  const { status, stderr } = spawnSync('go', ['build', '-o', program, '.'], { cwd, env, encoding: 'utf8' });
  if (status !== 0) throw new Error(`go build failed:\n${stderr}`);
  return program;
}

if (hasModules()) {
  const folder = mkdtempSync(join(tmpdir(), 'millrace-go-'));
  test.after.always(() => rmSync(folder, { recursive: true, force: true }));
  testScenarios(names, [], async () => ({ command: build(folder), args: [] }));
} else {
  sayMissing('Go with the modules of the clients');
  test('the Go clients are not installed here', (t) => t.pass());
}
