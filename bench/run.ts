/** One run of the benchmarks: its folder, its line in the results, its brokers, and their end, whatever happens. */
import fs from 'node:fs';
import path from 'node:path';
import { Context, type ContextOptions } from './context.ts';
import { checkoutRoot, describeMachine } from './machine.ts';
import { appendLine } from './results.ts';

export interface RunOptions {
  rounds: number;
  isQuick: boolean;
  /** Folder for the brokers' data; a new one inside it is used and removed. */
  dataDir: string;
  resultsFile: string;
}

export async function runSections(
  options: RunOptions & Pick<ContextOptions, 'jars' | 'rabbitMqRoot'> & { sections: readonly string[] },
  work: (context: Context) => Promise<void>,
): Promise<void> {
  const { sections, isQuick, resultsFile } = options;
  const dataDir = fs.mkdtempSync(path.join(options.dataDir, 'millrace-bench-'));
  const at = new Date().toISOString();
  const machine = describeMachine(checkoutRoot(), dataDir);
  appendLine(resultsFile, { kind: 'run', run: at, at, machine, isQuick, sections });
  console.log(
    `${machine.cpu}, ${machine.cores} cores, ${machine.memoryGib} GiB, ${machine.fileSystem}, commit ${machine.commit}`,
  );
  const context = new Context({ ...options, run: at, dataDir });
  const onSignal = (): void => {
    void context.close().then(() => process.exit(130));
  };
  process.once('SIGINT', onSignal);
  process.once('SIGTERM', onSignal);
  try {
    await work(context);
  } finally {
    process.off('SIGINT', onSignal);
    process.off('SIGTERM', onSignal);
    await context.close();
  }
}
