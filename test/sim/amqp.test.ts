/** The AMQP door of the whole broker, from seeds: crashes at operations of the disk. */
import test from 'ava';
import { runAmqp } from './amqp-run.ts';

const RUN_MS = 4_000;

test.serial('the same seed gives the same run', async (t) => {
  const first = await runAmqp(1);
  t.deepEqual(await runAmqp(1), first);
});

test.serial(
  'nothing confirmed is lost, nothing acked comes back, transactions and dead letters are whole',
  async (t) => {
    const untilMs = Date.now() + RUN_MS;
    const total = { deaths: 0, confirmed: 0, acked: 0, deadLetters: 0, transactions: 0 };
    for (let seed = 1; Date.now() < untilMs; seed++) {
      const result = await runAmqp(seed);
      for (const name of Object.keys(total) as (keyof typeof total)[]) total[name] += result[name];
    }
    for (const [name, count] of Object.entries(total)) t.true(count > 0, name);
  },
);
