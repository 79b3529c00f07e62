/** Queues over the real log, from seeds: crashes at operations of the disk, and builds that are broken on purpose. */
import test from 'ava';
import { checkFits } from './mutants.ts';
import { queueMutants } from './queue-mutants.ts';
import { runQueues } from './queue-run.ts';

const RUN_MS = 6_000;

test.serial('the same seed gives the same run', async (t) => {
  const first = await runQueues(1);
  t.deepEqual(await runQueues(1), first);
  t.true(first.deadLetters > 0 || first.deliveries > 0);
});

test.serial('no settled message comes back, none is lost, none is doubled, none is early', async (t) => {
  const untilMs = Date.now() + RUN_MS;
  const total = { deaths: 0, deliveries: 0, deadLetters: 0 };
  for (let seed = 1; Date.now() < untilMs; seed++) {
    const { deaths, deliveries, deadLetters } = await runQueues(seed);
    total.deaths += deaths;
    total.deliveries += deliveries;
    total.deadLetters += deadLetters;
  }
  t.true(total.deaths > 0);
  t.true(total.deliveries > 0);
  t.true(total.deadLetters > 0);
});

test('the broken builds that the simulation must notice still fit the code', (t) => {
  for (const mutant of queueMutants) t.notThrows(() => checkFits(mutant), mutant.name);
});
