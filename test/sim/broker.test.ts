/**
 * The whole broker from one seed: the seeds that found something, and a few more for as long as a test may take.
 * `npm run sim` goes on from there.
 */
import test from 'ava';
import { readFileSync } from 'node:fs';
import { brokerMutants } from './broker-mutants.ts';
import { simulate } from './broker-run.ts';
import { checkFits } from './mutants.ts';

/** Beside the sources: the compiled tests run somewhere below the checkout. */
const seedsText = readFileSync('test/sim/seeds.txt', 'utf8');
const RUN_MS = 7_000;

function knownSeeds(): number[] {
  return seedsText.split('\n').flatMap((line) => (/^\d/.test(line) ? [Number.parseInt(line, 10)] : []));
}

test.serial('the same seed gives the same run, to the byte', async (t) => {
  const options = { lengthMs: 1500 };
  const first = await simulate(3, options);
  t.deepEqual(await simulate(3, options), first);
  t.not((await simulate(4, options)).traceHash, first.traceHash);
  t.true(first.acknowledgedRecords > 0);
  t.true(first.seenRecords > 0);
});

test.serial('seeds that once found a mistake hold', async (t) => {
  const untilMs = Date.now() + RUN_MS;
  for (const seed of knownSeeds()) {
    if (Date.now() > untilMs) break;
    await t.notThrowsAsync(simulate(seed));
  }
});

test('the broken builds that the simulation must notice still fit the code', (t) => {
  for (const mutant of brokerMutants) t.notThrows(() => checkFits(mutant), mutant.name);
});

test.serial('nothing that was promised is broken in more seeds', async (t) => {
  const untilMs = Date.now() + RUN_MS;
  let crashes = 0;
  for (let seed = 1001; Date.now() < untilMs; seed++) {
    const result = await simulate(seed);
    crashes += result.deaths;
  }
  t.true(crashes > 0);
});
