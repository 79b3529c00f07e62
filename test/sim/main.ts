/**
 * `npm run sim`: runs of the whole broker from seeds, until the seeds or the minutes are used up.
 *
 *     npm run sim -- --seed 42 --verbose      one run, with its story
 *     npm run sim -- --seeds 1..500
 *     npm run sim -- --minutes 10             new seeds, from the clock
 */
import { parseArgs } from 'node:util';
import { type RunResult, simulate } from './broker-run.ts';

const { values } = parseArgs({
  options: {
    seed: { type: 'string' },
    seeds: { type: 'string' },
    minutes: { type: 'string' },
    verbose: { type: 'boolean', default: false },
    'keep-going': { type: 'boolean', default: false },
  },
});

let seed = 0;
process.on('unhandledRejection', (error) => {
  console.error(`unhandled rejection in seed ${seed}:`, error);
  process.exit(1);
});

const startedMs = Date.now();
const [from, to] = range();
const untilMs = values.minutes === undefined ? Number.POSITIVE_INFINITY : startedMs + Number(values.minutes) * 60_000;
const total = { runs: 0, failures: 0, simulatedMs: 0, starts: 0, deaths: 0, operations: 0, records: 0, commits: 0 };
for (seed = from; seed <= to && Date.now() < untilMs; seed++) {
  try {
    count(await simulate(seed, values.verbose ? { onNote: (line) => console.log(line) } : {}));
  } catch (error) {
    total.failures++;
    console.error(`FAILED ${String(error)}\n  repeat: npm run sim -- --seed ${seed} --verbose`);
    if (values.verbose) console.error(error);
    if (!values['keep-going']) break;
  }
}
const { runs, failures, simulatedMs, starts, deaths, operations, records, commits } = total;
const hours = (simulatedMs / 3_600_000).toFixed(1);
const seconds = ((Date.now() - startedMs) / 1000).toFixed(0);
console.log(
  `${runs} seeds held, ${failures} failed: ${hours} simulated hours in ${seconds} s, ${starts} starts, ${deaths} crashes, ` +
    `${operations} disk operations, ${records} records and ${commits} commits acknowledged`,
);
process.exitCode = failures === 0 ? 0 : 1;

function range(): [number, number] {
  if (values.seed !== undefined) return [Number(values.seed), Number(values.seed)];
  if (values.seeds !== undefined) {
    const [first, last] = values.seeds.split(/\.\.|-/).map(Number);
    return [first, last];
  }
  const first = values.minutes === undefined ? 1 : startedMs % 1_000_000_000;
  return [first, values.minutes === undefined ? 100 : Number.MAX_SAFE_INTEGER];
}

function count(result: RunResult): void {
  total.runs++;
  total.simulatedMs += result.simulatedMs;
  total.starts += result.starts;
  total.deaths += result.deaths;
  total.operations += result.diskOperations;
  total.records += result.acknowledgedRecords;
  total.commits += result.acknowledgedCommits;
}
