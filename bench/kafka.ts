/** `npm run bench -- kafka`: the rows of the table in docs/benchmarks.md, section by section. */
import os from 'node:os';
import path from 'node:path';
import { consumeSection } from './load/consume.ts';
import { produceSections } from './load/produce.ts';
import { restartSection, startSection } from './load/restart.ts';
import { shareSection } from './load/share.ts';
import { latencySection, outstandingSection } from './load/steady.ts';
import { checkoutRoot } from './machine.ts';
import { installKafka } from './peers/kafka/install.ts';
import { type RunOptions, runSections } from './run.ts';

export const SECTIONS = ['a', 'g', 'h', 'i', 'j', 'k', 'l', 's'] as const;
export type Section = (typeof SECTIONS)[number];

export interface KafkaBenchOptions extends RunOptions {
  sections: readonly Section[];
  withPeer: boolean;
}

export const defaultDataDir = os.tmpdir();
export const defaultResultsFile = path.join(checkoutRoot(), 'bench/results.jsonl');

export async function benchKafka({ withPeer, ...options }: KafkaBenchOptions): Promise<void> {
  const jars = withPeer ? installKafka() : undefined;
  await runSections({ ...options, jars }, async (context) => {
    const chosen = new Set<string>(options.sections);
    if (chosen.has('a')) await startSection(context);
    if (chosen.has('g') || chosen.has('h')) await produceSections(context, chosen);
    if (chosen.has('i')) await consumeSection(context);
    if (chosen.has('j')) await latencySection(context);
    if (chosen.has('k')) await outstandingSection(context);
    if (chosen.has('l')) await restartSection(context);
    if (chosen.has('s')) await shareSection(context);
  });
}
