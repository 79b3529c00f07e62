/** confluent-kafka for Python, which is librdkafka 2.x, with its default settings. */
import { join } from 'node:path';
import test from 'ava';
import { projectRoot } from './java-tools.ts';
import { testScenarios } from './scenarios.ts';
import { isInstalled, sayMissing } from './target.ts';

if (isInstalled('python3', '-c', 'import confluent_kafka')) {
  const names = [
    'every-codec',
    'keys-headers-and-timestamps',
    'idempotent-producer',
    'large-batches',
    'too-large-a-message',
    'group-is-shared-and-carries-on',
    'committed-offsets',
    'static-member-comes-back',
    'offsets-by-time-and-place',
    'offset-out-of-range',
    'admin-calls',
    'topic-deleted-while-it-is-read',
    'unknown-topics',
    'transactions-are-refused',
    'hundreds-of-partitions',
    'a-member-that-does-not-poll-loses-its-partitions',
    'the-new-group-protocol',
    'a-share-group-takes-and-gives-back',
  ];
  const full = ['a-group-changes-its-protocol-cooperative', 'a-group-changes-its-protocol-eager', 'many-clients'];
  testScenarios(names, full, async () => ({
    command: 'python3',
    args: [join(projectRoot(), 'test/compat/python/confluent.py')],
  }));
} else {
  sayMissing('confluent-kafka for Python');
  test('confluent-kafka is not installed here', (t) => t.pass());
}
