// Writes the reference pages and files that are generated from tables in the code: docs/options.md, docs/protocols.md,
// the table in docs/errors.md, the Kafka messages, and millrace.yaml. With --check it writes nothing and fails when a
// file is stale. Needs a build (MILLRACE_DIST names another build folder than dist).
import { spawnSync } from 'node:child_process';
import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { pathToFileURL } from 'node:url';

const root = resolve(import.meta.dirname, '..');
const dist = resolve(root, process.env.MILLRACE_DIST ?? 'dist');
const isCheck = process.argv.includes('--check');
const load = (path) => import(pathToFileURL(join(dist, path)).href);
const has = (path) => existsSync(join(dist, path));
const stale = [];

const { options } = await load('broker/config.js');
const { errors } = await load('protocol/errors.js');

put('docs/options.md', optionsPage());
put('docs/errors.md', errorsPage());
if (has('clients/cli/config-file.js')) {
  const { exampleConfig } = await load('clients/cli/config-file.js');
  put('millrace.yaml', exampleConfig());
}
if (has('broker/kafka/api-table.js')) put('docs/protocols.md', await protocolsPage());
await kafkaMessages();

if (stale.length > 0) {
  console.error(`Stale: ${stale.join(', ')}. Run 'npm run docs' and commit the result.`);
  process.exit(1);
}

function put(path, text) {
  const file = join(root, path);
  const found = existsSync(file) ? readFileSync(file, 'utf8') : undefined;
  if (found === text) return;
  if (isCheck) stale.push(path);
  else writeFileSync(file, text);
}

function optionsPage() {
  const rows = Object.entries(options).map(([name, option]) => {
    const range =
      option.type === 'number' ? `${number(option.min)} … ${number(option.max)}` : (option.values ?? []).join(', ');
    const value =
      option.default === '' ? '(empty)' : option.type === 'number' ? number(option.default) : option.default;
    const type = option.type === 'boolean' ? 'true, false' : range || 'text';
    return `| \`${name}\` | ${value} | ${type} | ${option.isDynamic ? 'yes' : ''} | ${option.reason} |`;
  });
  return `<!-- Generated from broker/config.ts by scripts/docs.mjs. -->
# Options

Given as \`--set NAME=VALUE\` to \`millrace serve\`, or under \`options:\` in the file named by \`--config\`
([millrace.yaml](../millrace.yaml) is a commented example with all of them). Names are Apache Kafka's where it has the
option. Sizes are bytes and times milliseconds unless the name says otherwise. Options marked *live* can be changed
while the broker runs (\`kafka-configs --entity-type brokers\`, or any admin client).

| option | default | values | live | why |
|---|---|---|---|---|
${rows.join('\n')}
`;
}

/** Whole numbers readable: sizes in powers of 1024 keep their bytes, the largest integers get their names. */
function number(value) {
  if (value === Number.MAX_SAFE_INTEGER) return '2⁵³−1';
  if (value === 2_147_483_647) return '2³¹−1';
  for (const [unit, size] of [
    ['GiB', 2 ** 30],
    ['MiB', 2 ** 20],
    ['KiB', 2 ** 10],
  ]) {
    if (value >= size && value % size === 0) return `${value} (${value / size} ${unit})`;
  }
  return String(value);
}

function errorsPage() {
  const rows = Object.entries(errors).map(([code, row]) => {
    const wire = row.kafka === -1 && code !== 'UNKNOWN_SERVER_ERROR' ? '' : row.kafka;
    return `| \`${code}\` | ${wire} | ${row.isRetriable ? 'yes' : ''} | ${row.text} |`;
  });
  return `<!-- Generated from protocol/errors.ts by scripts/docs.mjs. -->
# Errors

Every failure that the broker expects has one of these codes. *Kafka* is the number in responses of the Kafka door;
codes without one never leave the process: the broker refuses to start with them, and the command line prints them.
*Retry* says whether the same request may succeed later without change; Kafka clients do that by themselves.

| code | Kafka | retry | meaning |
|---|---|---|---|
${rows.join('\n')}
`;
}

async function protocolsPage() {
  const { apiTable } = await load('broker/kafka/api-table.js');
  // Only the rows are of interest; nothing is handled or measured here.
  const table = apiTable({ handle() {} }, { histogram: () => ({ observe() {} }) });
  const served = [...table.values()].sort((a, b) => a.api.key - b.api.key);
  const rows = served.map(
    ({ api, name, minVersion, maxVersion }) => `| ${api.key} | ${name} | ${minVersion} – ${maxVersion} |`,
  );
  return `<!-- Generated from broker/kafka/api-table.ts by scripts/docs.mjs. -->
# Protocols

## Kafka
What the Kafka door answers to ApiVersions. What is not in this table is not served, and not advertised. Produce is
advertised from version 0, as Apache Kafka 4 does, because librdkafka up to 2.11 otherwise sends without compression;
requests below version 3 are refused.

| key | API | versions |
|---|---|---|
${rows.join('\n')}
`;
}

/** The generated Kafka messages have a script of their own; here it is only asked whether they are stale. */
async function kafkaMessages() {
  if (!isCheck) {
    const { status } = spawnSync(process.execPath, [join(root, 'scripts/generate-kafka.mjs')], { stdio: 'inherit' });
    if (status !== 0) process.exit(1);
    return;
  }
  const { parseDefinitions } = await load('protocol/kafka/definition.js');
  const { generateApis, generateMessages } = await load('protocol/kafka/generate.js');
  const folder = join(root, 'protocol/kafka');
  const names = readdirSync(folder).filter((name) => name.endsWith('.def'));
  const definitions = parseDefinitions(...names.sort().map((name) => readFileSync(join(folder, name), 'utf8')));
  put('protocol/kafka/messages.ts', generateMessages(definitions));
  put('protocol/kafka/apis.ts', generateApis(definitions));
}
