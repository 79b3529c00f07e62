/** aiokafka, the client of asyncio programs. */
import { join } from 'node:path';
import test from 'ava';
import { projectRoot } from './java-tools.ts';
import { testScenarios } from './scenarios.ts';
import { isInstalled, sayMissing } from './target.ts';

if (isInstalled('python3', '-c', 'import aiokafka')) {
  testScenarios(['every-codec', 'group-carries-on', 'offsets-by-time-and-place', 'admin-calls'], [], async () => ({
    command: 'python3',
    args: [join(projectRoot(), 'test/compat/python/aio_kafka.py')],
  }));
} else {
  sayMissing('aiokafka');
  test('aiokafka is not installed here', (t) => t.pass());
}
