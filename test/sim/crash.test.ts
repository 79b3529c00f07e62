/**
 * The bounded part of the crash exploration that runs with every test: some operations of some seeds, those that once
 * found something, and the broken builds that are caught fastest. `npm run sim -- --log` and `--mutants` do all of it.
 */
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import test from 'ava';
import { checkDeterminism, exploreEnds, exploreFaults } from './explore.ts';
import { checkFits, mutants, tryMutant } from './mutants.ts';

const endings = { steps: 120, lives: 2, endingsMax: 2, secondEndsMax: 1 };

for (const isSynced of [true, false]) {
  const mode = isSynced ? 'synced' : 'written';

  test.serial(`${mode}: what was promised is there after any end, also one during recovery`, async (t) => {
    const { states, operations } = await exploreEnds({ ...endings, seed: 1, isSynced, stride: 7 });
    t.log(`${states} states of ${operations} disk operations explored`);
    t.true(operations >= 500);
    t.true(states > 200);
  });

  test.serial(`${mode}: a failed operation stops the log and costs nothing that was promised`, async (t) => {
    const { states } = await exploreFaults({
      seed: 1,
      isSynced,
      steps: 100,
      stride: 23,
      faults: ['EIO', 'ENOSPC', 'short'],
    });
    t.log(`${states} states explored`);
    t.true(states > 30);
  });

  test.serial(`${mode}: the same seed is the same run`, async (t) => {
    await t.notThrowsAsync(checkDeterminism(9, isSynced, 100));
  });
}

/** The output is in a folder of the project, `dist` or below `.build`; broken builds need its packages. */
const project = fileURLToPath(new URL('../..', import.meta.url)).replace(/\/(dist|\.build\/[^/]+)\/$/, '');

/** Caught within a second or two each; the others take longer. */
const FAST = [
  'sync-skipped',
  'journal-not-synced',
  'ack-before-sync',
  'torn-tail-kept',
  'entry-not-synced',
  'cut-not-synced',
  'answer-from-unsynced-state',
];

for (const mutant of mutants.filter(({ name }) => FAST.includes(name))) {
  test.serial(`a build that breaks the rule "${mutant.breaks}" is caught`, async (t) => {
    const { isCaught, text } = await tryMutant(mutant, join(project, '.build/mutants'));
    t.log(text.slice(0, 200));
    t.true(isCaught, text);
  });
}

test('every broken build still fits the code that it breaks', (t) => {
  for (const mutant of mutants) t.notThrows(() => checkFits(mutant), mutant.name);
});
