/**
 * `npm run sim -- --queues` and `-- --amqp`: runs of queues over the real log, and of the AMQP door of the whole broker,
 * from seeds.
 *
 *     npm run sim -- --queues --seed 42 --verbose      one run, with its story
 *     npm run sim -- --amqp --seeds 1..500
 */
import { parseArgs } from 'node:util';
import { runAmqp } from './amqp-run.ts';
import { runQueues } from './queue-run.ts';

const { values } = parseArgs({
  options: {
    queues: { type: 'boolean', default: false },
    amqp: { type: 'boolean', default: false },
    seed: { type: 'string' },
    seeds: { type: 'string', default: '1..100' },
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
const [from, to] = (values.seed ?? values.seeds).split(/\.\.|-/).map(Number);
const [run, name] = values.amqp ? [runAmqp, 'amqp'] : [runQueues, 'queues'];
const total = new Map<string, number>();
let runs = 0;
let failures = 0;
for (seed = from; seed <= (to ?? from); seed++) {
  runs++;
  try {
    const result = await run(seed, values.verbose ? { onNote: (line) => console.log(line) } : {});
    for (const [what, count] of Object.entries(result)) total.set(what, (total.get(what) ?? 0) + count);
  } catch (error) {
    failures++;
    console.error(`FAILED ${String(error)}\n  repeat: npm run sim -- --${name} --seed ${seed} --verbose`);
    if (values.verbose) console.error(error);
    if (!values['keep-going']) break;
  }
}
const counts = [...total].map(([what, count]) => `${count} ${what}`).join(', ');
console.log(
  `${runs - failures} seeds held, ${failures} failed, in ${((Date.now() - startedMs) / 1000).toFixed(0)} s: ${counts}`,
);
process.exitCode = failures === 0 ? 0 : 1;
