/** Prints the table of bounds from the results, and puts it into docs/benchmarks.md between its two marks. */
import fs from 'node:fs';
import path from 'node:path';
import { judge, Medians, type Row, withUnit } from './bounds.ts';
import { checkoutRoot } from './machine.ts';
import { readLines } from './results.ts';

const START = '<!-- bench: start -->';
const END = '<!-- bench: end -->';

export function compare(resultsFile: string, { isWritten }: { isWritten: boolean }): void {
  const medians = new Medians(readLines(resultsFile));
  const rows = judge(medians);
  if (rows.length === 0) {
    console.log(`${resultsFile} has nothing that a bound is set for.`);
    return;
  }
  const text = `${runsText(medians)}\n\n${table(rows)}\n`;
  console.log(`\n${text}`);
  if (!isWritten) return;
  const page = path.join(checkoutRoot(), 'docs/benchmarks.md');
  fs.writeFileSync(page, replaceBetweenMarks(fs.readFileSync(page, 'utf8'), `${text}\n${syncText(medians)}`));
  console.log(`Written into ${page}.`);
}

/** Which machine, commit and day each section is from. */
function runsText(medians: Medians): string {
  const byRun = new Map<string, string[]>();
  for (const [section, { run }] of medians.runs) byRun.set(run, [...(byRun.get(run) ?? []), section]);
  const texts: string[] = [];
  for (const sections of byRun.values()) {
    const found = medians.runs.get(sections[0]);
    if (!found) continue;
    const { at, machine, isQuick } = found;
    const { cpu, cores, memoryGib, kernel, node, java, fileSystem, commit } = machine;
    const rounds = Math.max(...sections.map((section) => medians.rounds(section)));
    const loads = sections.map((section) => medians.load(section));
    const load = `${Math.min(...loads.map(([low]) => low))} to ${Math.max(...loads.map(([, high]) => high))}`;
    texts.push(
      `${sections.toSorted().join(', ')}: ${at.slice(0, 16).replace('T', ' ')} UTC, commit ${commit}, ${cores} cores (${cpu}), ${memoryGib} GiB, ${kernel}, Node ${node}, Java ${java}, ${fileSystem}; ` +
        `medians of ${rounds} rounds${isQuick ? ', quick' : ''}, load average ${load} (the clients included).`,
    );
  }
  return texts.map((text) => `- ${text}`).join('\n');
}

/** A Markdown table. */
export function table(rows: readonly Row[]): string {
  const lines = ['| | what | Millrace | against | result | bound | |', '|---|---|---|---|---|---|---|'];
  for (const { section, what, millrace, reference, value, bound, isMet } of rows) {
    lines.push(
      `| ${section} | ${what} | ${millrace} | ${reference} | ${value} | ${bound} | ${isMet ? 'met' : '**missed**'} |`,
    );
  }
  return lines.join('\n');
}

/** The proof that 'synced' was synced: syncs during the median round. */
function syncText(medians: Medians): string {
  const lines = ['| produce case | syncs, Millrace synced | syncs, Millrace written |', '|---|---|---|'];
  for (const name of medians.cases('g')) {
    const synced = medians.get('g', name, 'millrace synced', 'syncs');
    const written = medians.get('g', name, 'millrace written', 'syncs');
    if (synced !== undefined && written !== undefined) {
      lines.push(`| ${name} | ${withUnit(synced, 'syncs')} | ${withUnit(written, 'syncs')} |`);
    }
  }
  return lines.length === 2 ? '' : `${lines.join('\n')}\n`;
}

export function replaceBetweenMarks(page: string, text: string): string {
  const start = page.indexOf(START);
  const end = page.indexOf(END);
  if (start < 0 || end < start) throw new Error(`the page needs the marks ${START} and ${END}`);
  return `${page.slice(0, start + START.length)}\n${text}\n${page.slice(end)}`;
}
