/** franz-go (the highest versions), sarama (oldest to newest) and kafka-go (old versions): programs in `go/`. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'ava';
import { buildGoClients, hasGoClients } from './go-clients.ts';
import { testScenarios } from './scenarios.ts';
import { sayMissing } from './target.ts';

const names = [
  'franz-go-codecs',
  'franz-go-group',
  'franz-go-admin',
  'franz-go-share-group',
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

if (hasGoClients()) {
  const folder = mkdtempSync(join(tmpdir(), 'millrace-go-'));
  test.after.always(() => rmSync(folder, { recursive: true, force: true }));
  testScenarios(names, [], async () => ({ command: buildGoClients(folder), args: [] }));
} else {
  sayMissing('Go with the modules of the clients');
  test('the Go clients are not installed here', (t) => t.pass());
}
