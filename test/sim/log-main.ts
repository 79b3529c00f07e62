/**
 * `npm run sim -- --log`: crash exploration of the log. `npm run sim -- --mutants [NAME …]`: the same on deliberately
 * broken builds, each of which must be caught.
 *
 *     npm run sim -- --log --seeds 1..20            every operation of 20 seeds, both flush modes
 *     npm run sim -- --log --seeds 7 --written      one of them again
 *     npm run sim -- --mutants torn-tail-kept
 */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { checkDeterminism, exploreEnds, exploreFaults, type Explored } from './explore.ts';
import { brokerMutants } from './broker-mutants.ts';
import { mutants, tryMutant } from './mutants.ts';
import { queueMutants } from './queue-mutants.ts';

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    log: { type: 'boolean' },
    mutants: { type: 'boolean', default: false },
    seeds: { type: 'string' },
    synced: { type: 'boolean', default: false },
    written: { type: 'boolean', default: false },
    uniform: { type: 'boolean', default: false },
    stride: { type: 'string', default: '1' },
    endings: { type: 'string', default: '3' },
    'no-faults': { type: 'boolean', default: false },
  },
});

process.exitCode = values.mutants ? await runMutants() : await runLog();

async function runLog(): Promise<number> {
  const both = values.synced === values.written;
  const modes = [true, false].filter((isSynced) => both || isSynced === values.synced);
  const stride = Number(values.stride);
  const startedMs = performance.now();
  const total: Explored = { states: 0, operations: 0 };
  for (const seed of chosenSeeds()) {
    for (const isSynced of modes) {
      try {
        await checkDeterminism(seed, isSynced, 60);
        const endings = {
          seed,
          isSynced,
          steps: 120,
          lives: 2,
          stride,
          endingsMax: Number(values.endings),
          secondEndsMax: 1,
        };
        add(total, await exploreEnds({ ...endings, isUniform: values.uniform }));
        if (values['no-faults']) continue;
        add(total, await exploreFaults({ seed, isSynced, steps: 100, stride, faults: ['EIO', 'ENOSPC', 'short'] }));
      } catch (error) {
        console.error(String(error));
        console.error(
          `repeat: npm run sim -- --log --seeds ${seed} --${isSynced ? 'synced' : 'written'} --stride ${stride}`,
        );
        return 1;
      }
    }
    const seconds = ((performance.now() - startedMs) / 1000).toFixed(0);
    console.log(
      `seed ${seed}: ${total.states} states explored, ${total.operations} disk operations recorded, ${seconds} s`,
    );
  }
  console.log(`${total.states} states explored; every promise was kept in all of them`);
  return 0;
}

/** Those asked for; else a few and all that once found something. */
function chosenSeeds(): number[] {
  if (values.seeds === undefined) {
    const lines = readFileSync(join(process.cwd(), 'test/sim/log-seeds.txt'), 'utf8').split('\n');
    const known = lines.map((line) => Number.parseInt(line, 10)).filter((seed) => seed > 0);
    return [...new Set([1, 3, 4, ...known])];
  }
  const [from, to = from] = values.seeds.split(/\.\.|-/).map(Number);
  return Array.from({ length: to - from + 1 }, (_, index) => from + index);
}

function add(total: Explored, { states, operations }: Explored): void {
  total.states += states;
  total.operations += operations;
}

async function runMutants(): Promise<number> {
  const chosen = [...mutants, ...brokerMutants, ...queueMutants].filter(
    ({ name }) => positionals.length === 0 || positionals.includes(name),
  );
  let survivors = 0;
  for (const mutant of chosen) {
    const { isCaught, text, seconds } = await tryMutant(mutant, join(process.cwd(), '.build/mutants'));
    if (!isCaught) survivors++;
    console.log(`${isCaught ? 'caught  ' : 'SURVIVED'} ${mutant.name} (${seconds.toFixed(1)} s): ${text}`);
  }
  console.log(`${chosen.length - survivors} of ${chosen.length} broken builds were caught`);
  return survivors === 0 && chosen.length > 0 ? 0 : 1;
}
