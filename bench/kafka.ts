/** `npm run bench -- kafka`: the rows of the table in docs/benchmarks.md, section by section. */
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { Context } from './context.ts';
import { consumeSection } from './load/consume.ts';
import { produceSections } from './load/produce.ts';
import { restartSection, startSection } from './load/restart.ts';
import { shareSection } from './load/share.ts';
import { latencySection, outstandingSection } from './load/steady.ts';
import { checkoutRoot, describeMachine } from './machine.ts';
import { installKafka } from './peers/kafka/install.ts';
import { appendLine } from './results.ts';

export const SECTIONS = ['a', 'g', 'h', 'i', 'j', 'k', 'l', 's'] as const;
export type Section = (typeof SECTIONS)[number];

export interface KafkaBenchOptions {
  sections: readonly Section[];
  rounds: number;
  isQuick: boolean;
  /** Folder for the brokers' data; a new one inside it is used and removed. */
  dataDir: string;
  withPeer: boolean;
  resultsFile: string;
}

export const defaultDataDir = os.tmpdir();
export const defaultResultsFile = path.join(checkoutRoot(), 'bench/results.jsonl');

export async function benchKafka(options: KafkaBenchOptions): Promise<void> {
  const { sections, rounds, isQuick, withPeer, resultsFile } = options;
  const dataDir = fs.mkdtempSync(path.join(options.dataDir, 'millrace-bench-'));
  const at = new Date().toISOString();
  const machine = describeMachine(checkoutRoot(), dataDir);
  const jars = withPeer ? installKafka() : undefined;
  appendLine(resultsFile, { kind: 'run', run: at, at, machine, isQuick, sections });
  console.log(
    `${machine.cpu}, ${machine.cores} cores, ${machine.memoryGib} GiB, ${machine.fileSystem}, commit ${machine.commit}`,
  );
  const context = new Context({ run: at, jars, dataDir, resultsFile, rounds, isQuick });
  const onSignal = (): void => {
    void context.close().then(() => process.exit(130));
  };
  process.once('SIGINT', onSignal);
  process.once('SIGTERM', onSignal);
  try {
    const chosen = new Set<string>(sections);
    if (chosen.has('a')) await startSection(context);
    if (chosen.has('g') || chosen.has('h')) await produceSections(context, chosen);
    if (chosen.has('i')) await consumeSection(context);
    if (chosen.has('j')) await latencySection(context);
    if (chosen.has('k')) await outstandingSection(context);
    if (chosen.has('l')) await restartSection(context);
    if (chosen.has('s')) await shareSection(context);
  } finally {
    process.off('SIGINT', onSignal);
    process.off('SIGTERM', onSignal);
    await context.close();
  }
}
