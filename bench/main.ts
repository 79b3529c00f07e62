/**
 * The benchmarks' command line:
 *
 *   npm run bench -- kafka [a g h i j k l s] [--rounds N] [--quick] [--data-dir DIR] [--no-peer] [--results FILE]
 *   npm run bench -- amqp [PART OF A CASE'S NAME …] [the same]
 *   npm run bench -- compare [--results FILE] [--write]
 *
 * `amqp` is RabbitMQ's turn. `kafka` measures Millrace and Apache Kafka in turn and prints the table; `compare` prints it from earlier results and,
 * with --write, puts it into docs/benchmarks.md. QUICK=1 is --quick: a fifth of the records.
 */
import { parseArgs } from 'node:util';
import { benchAmqp } from './amqp.ts';
import { compare } from './compare.ts';
import { benchKafka, defaultDataDir, defaultResultsFile, SECTIONS, type Section } from './kafka.ts';

const USAGE = `usage: npm run bench -- kafka [${SECTIONS.join(' ')}] [--rounds N] [--quick] [--data-dir DIR] [--no-peer] [--results FILE]
       npm run bench -- amqp [PART OF A CASE'S NAME …] [the same]
       npm run bench -- compare [--results FILE] [--write]`;

process.exitCode = await main(process.argv.slice(2));

async function main(args: string[]): Promise<number> {
  const { values, positionals } = parseArgs({
    args,
    allowPositionals: true,
    options: {
      rounds: { type: 'string', default: '3' },
      quick: { type: 'boolean', default: Boolean(process.env.QUICK) },
      'data-dir': { type: 'string', default: defaultDataDir },
      'no-peer': { type: 'boolean', default: false },
      results: { type: 'string', default: defaultResultsFile },
      write: { type: 'boolean', default: false },
    },
  });
  const [command, ...names] = positionals;
  const shared = {
    rounds: Number(values.rounds),
    isQuick: values.quick,
    dataDir: values['data-dir'],
    withPeer: !values['no-peer'],
    resultsFile: values.results,
  };
  switch (command) {
    case 'kafka': {
      const unknown = names.filter((name) => !isSection(name));
      if (unknown.length > 0 || !(shared.rounds >= 1)) return usage();
      const sections = names.length === 0 ? SECTIONS : names.filter(isSection);
      await benchKafka({ sections, ...shared });
      compare(values.results, { isWritten: false });
      return 0;
    }
    case 'amqp': {
      if (!(shared.rounds >= 1)) return usage();
      await benchAmqp({ cases: names, ...shared });
      compare(values.results, { isWritten: false });
      return 0;
    }
    case 'compare':
      compare(values.results, { isWritten: values.write });
      return 0;
    default:
      return usage();
  }
}

function isSection(name: string): name is Section {
  return SECTIONS.some((section) => section === name);
}

function usage(): number {
  console.error(USAGE);
  return 2;
}
