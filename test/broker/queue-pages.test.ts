/** docs/queues.md says of every setting and header what the code does. */
import { readFileSync } from 'node:fs';
import test from 'ava';
import { producerHeaders } from '../../broker/queue-attributes.ts';
import { queueSettingTable } from '../../broker/queue-settings.ts';

const page = readFileSync('docs/queues.md', 'utf8');
const rows = page.split('\n').filter((line) => line.startsWith('| '));

test('every setting of queues has a row with its default, and no row is of another', (t) => {
  const begin = rows.findIndex((row) => row.startsWith('| setting '));
  const documented = new Map<string, string>();
  for (const row of rows.slice(begin + 1)) {
    const [, names, defaults] = row.split('|').map((cell) => cell.trim());
    if (names === 'header') break;
    const values = defaults.split(', ');
    for (const [index, name] of names.split(', ').entries()) {
      documented.set(name.replaceAll('`', ''), values.length > 1 ? values[index] : defaults);
    }
  }
  const defaults = Object.entries(queueSettingTable).map(([name, setting]) => [name, String(setting.default)] as const);
  const byName = ([a]: readonly [string, string], [b]: readonly [string, string]): number => (a < b ? -1 : 1);
  t.deepEqual([...documented].sort(byName), [...defaults].sort(byName));
});

test('every header that producers may set has a row', (t) => {
  for (const header of producerHeaders) t.true(page.includes(`| \`${header}\` |`), header);
});
