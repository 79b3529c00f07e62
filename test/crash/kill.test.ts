import test from 'ava';
import { killRepeatedly } from './kill.ts';

test('nothing acknowledged is lost when the process is killed under load', async (t) => {
  t.timeout(110_000);
  const result = await killRepeatedly({ rounds: 3, seed: 7, flush: 'synced', say: (line) => t.log(line) });
  t.deepEqual(result.faults, []);
  t.true(result.sent > 0);
  t.true(result.seen > 0);
});
