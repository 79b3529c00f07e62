/**
 * `npm run sim -- --queues`: runs of queues over the real log, from seeds.
 *
 *     npm run sim -- --queues --seed 42 --verbose      one run, with its story
 *     npm run sim -- --queues --seeds 1..500
 */
import { parseArgs } from 'node:util';
import { type QueueRunResult, runQueues } from './queue-run.ts';

const { values } = parseArgs({
  options: {
    queues: { type: 'boolean', default: false },
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
const total: QueueRunResult = {
  published: 0,
  accepted: 0,
  deliveries: 0,
  deadLetters: 0,
  deaths: 0,
  operations: 0,
  redrives: 0,
};
let runs = 0;
let failures = 0;
for (seed = from; seed <= (to ?? from); seed++) {
  runs++;
  try {
    const result = await runQueues(seed, values.verbose ? { onNote: (line) => console.log(line) } : {});
    for (const name of Object.keys(total) as (keyof QueueRunResult)[]) total[name] += result[name];
  } catch (error) {
    failures++;
    console.error(`FAILED ${String(error)}\n  repeat: npm run sim -- --queues --seed ${seed} --verbose`);
    if (values.verbose) console.error(error);
    if (!values['keep-going']) break;
  }
}
console.log(
  `${runs - failures} seeds held, ${failures} failed, in ${((Date.now() - startedMs) / 1000).toFixed(0)} s: ${total.deaths} crashes, ` +
    `${total.published} messages published, ${total.deliveries} deliveries, ${total.accepted} accepted, ${total.deadLetters} dead letters seen`,
);
process.exitCode = failures === 0 ? 0 : 1;
