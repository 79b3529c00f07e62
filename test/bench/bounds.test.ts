import test from 'ava';
import { judge, Medians } from '../../bench/bounds.ts';
import { replaceBetweenMarks, table } from '../../bench/compare.ts';
import { type Figures, type Line, median } from '../../bench/results.ts';

const machine = { cpu: 'c', cores: 2, memoryGib: 4, kernel: 'k', node: 'n', java: 'j', fileSystem: 'f', commit: 'x' };
const run = (id: string, isQuick = false): Line => ({ kind: 'run', run: id, at: id, machine, isQuick, sections: [] });
const result = (id: string, section: string, name: string, target: string, figures: Figures, round = 1): Line => ({
  kind: 'result',
  run: id,
  at: id,
  section,
  case: name,
  target,
  round,
  load: 1,
  ...figures,
});

test('the median of an even number of rounds lies between the two in the middle', (t) => {
  t.is(median([3, 1, 2]), 2);
  t.is(median([4, 1, 2, 3]), 2.5);
});

test('a ratio is that of the medians', (t) => {
  const lines = [run('1')];
  for (const [round, rate] of [100, 300, 200].entries()) {
    lines.push(result('1', 'g', '1000 B', 'millrace synced', { recordsPerSecond: rate }, round + 1));
    lines.push(result('1', 'g', '1000 B', 'kafka', { recordsPerSecond: rate * 2 }, round + 1));
  }
  const rows = judge(new Medians(lines));
  t.is(rows.length, 1);
  t.like(rows[0], { millrace: '200', reference: 'kafka 400', value: '0.50 ×', bound: '≥ 0.75 ×', isMet: false });
});

test('the newest full run of a section counts, and a quick one only when there is no other', (t) => {
  const rate = (value: number): Figures => ({ recordsPerSecond: value });
  const lines = [
    run('1'),
    result('1', 'k', '1 partition', 'millrace synced', rate(10)),
    run('2'),
    result('2', 'k', '1 partition', 'millrace synced', rate(20)),
    run('3', true),
    result('3', 'k', '1 partition', 'millrace synced', rate(30)),
    result('3', 'g', 'c', 'kafka', rate(40)),
  ];
  const medians = new Medians(lines);
  t.is(medians.get('k', '1 partition', 'millrace synced', 'recordsPerSecond'), 20);
  t.is(medians.get('g', 'c', 'kafka', 'recordsPerSecond'), 40);
});

test('a restart may take longer the more journal it has to read', (t) => {
  const figures = { readyMs: 1300, journalMib: 192 };
  const rows = judge(new Medians([run('1'), result('1', 'l', 'kill -9', 'millrace synced', figures)]));
  t.like(rows[0], { value: '1300 ms', bound: '≤ 1375 ms', isMet: true });
});

test('end to end is held against the acknowledgement', (t) => {
  const lines = [
    run('1'),
    result('1', 'j', 'acknowledgement', 'millrace synced', { p50Us: 200 }),
    result('1', 'j', 'end to end', 'millrace synced', { p50Us: 800 }),
  ];
  const rows = judge(new Medians(lines));
  t.deepEqual(
    rows.map(({ bound, isMet }) => [bound, isMet]),
    [
      ['≤ 0.35 ms', true],
      ['≤ 0.70 ms', false],
    ],
  );
});

test('the table goes between the marks and leaves the rest of the page', (t) => {
  const rows = judge(new Medians([run('1'), result('1', 'a', 'exec to ready, again', 'millrace', { readyMs: 250 })]));
  const text = table(rows);
  t.true(text.includes('| a | exec to ready, again: millrace, time | 250 ms |  | 250 ms | ≤ 400 ms | met |'));
  const page = replaceBetweenMarks('above\n<!-- bench: start -->\nold\n<!-- bench: end -->\nbelow\n', text);
  t.is(page, `above\n<!-- bench: start -->\n${text}\n<!-- bench: end -->\nbelow\n`);
  t.throws(() => replaceBetweenMarks('no marks', text), { message: /marks/ });
});
