import test from 'ava';
import { killUnderSqs } from './sqs-kill.ts';

test('nothing that SQS clients were told is undone when the process is killed', async (t) => {
  t.timeout(110_000);
  const result = await killUnderSqs({ rounds: 3, seed: 5 });
  t.deepEqual(result.faults, []);
  t.true(result.sent > 0);
  t.true(result.deleted > 0);
  t.true(result.moved > 0);
});
