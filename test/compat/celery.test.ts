/** Celery with quorum queues over the AMQP door: tasks now, later and again, through its 28 levels of dead-lettered delays. */
import { spawn } from 'node:child_process';
import { join } from 'node:path';
import test from 'ava';
import { startTestBroker } from '../support/broker.ts';
import { projectRoot } from './java-tools.ts';
import { isFull, isInstalled, sayMissing } from './target.ts';

const LEVELS = 28;

if (!isFull) {
  test('Celery takes longer than npm test may', (t) => t.pass());
} else if (isInstalled('python3', '-c', 'import celery')) {
  test('tasks of Celery run now, after a countdown, at a time and again', async (t) => {
    t.timeout(120_000);
    const broker = await startTestBroker();
    try {
      const lines = await printed([join(projectRoot(), 'test/compat/python/celery_app.py'), broker.amqp]);
      const results = lines.map((line) => JSON.parse(line) as { task: string; sum: number; seconds: number });
      t.deepEqual(
        results.map(({ task, sum }) => [task, sum]),
        [
          ['now', 3],
          ['countdown', 7],
          ['eta', 11],
          ['retries', 2],
        ],
      );
      const [now, countdown, eta, retries] = results.map(({ seconds }) => seconds);
      t.true(now < 2, `now: ${now}`);
      // Celery's levels count whole seconds.
      t.true(countdown >= 1.9, `countdown: ${countdown}`);
      t.true(eta >= 1.9, `eta: ${eta}`);
      t.true(retries >= 1.9, `retries: ${retries}`);
      const levels = [...broker.running.broker.queues.all()].filter(({ name }) => name.startsWith('celery_delayed_'));
      t.is(levels.length, LEVELS);
      t.true(levels.every(({ settings }) => settings['dead.letter.exchange'] !== ''));
    } finally {
      await broker.stop();
    }
  });
} else {
  sayMissing('celery');
  test('Celery is not installed here', (t) => t.pass());
}

/** What a Python program prints. */
function printed(args: readonly string[]): Promise<string[]> {
  return new Promise((resolve, reject) => {
    const child = spawn('python3', args, { stdio: ['ignore', 'pipe', 'pipe'] });
    let output = '';
    let errors = '';
    child.stdout.on('data', (chunk: Buffer) => (output += chunk.toString()));
    child.stderr.on('data', (chunk: Buffer) => (errors += chunk.toString()));
    child.once('error', reject);
    child.once('exit', (code) => {
      if (code === 0) resolve(output.trimEnd().split('\n'));
      else reject(new Error(`it ended with ${code}: ${errors.slice(-2000)}`));
    });
  });
}
