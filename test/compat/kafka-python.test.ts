/** kafka-python 3, a client in pure Python that many scripts and Airflow use. */
import { join } from 'node:path';
import test from 'ava';
import { projectRoot } from './java-tools.ts';
import { testScenarios } from './scenarios.ts';
import { isInstalled, sayMissing } from './target.ts';

if (isInstalled('python3', '-c', 'import kafka')) {
  testScenarios(
    ['every-codec', 'group-carries-on', 'offsets-by-time-and-place', 'admin-calls', 'too-large-a-message'],
    [],
    async () => ({
      command: 'python3',
      args: [join(projectRoot(), 'test/compat/python/kafka_python.py')],
    }),
  );
} else {
  sayMissing('kafka-python');
  test('kafka-python is not installed here', (t) => t.pass());
}
