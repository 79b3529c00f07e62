/**
 * `millrace segment`: looks into the files of a log without a broker. Only reads. While it does, it holds the shared lock
 * of the data folder, so that no broker starts on it; files of Apache Kafka are read just the same, without a lock.
 */
import { dirname, resolve } from 'node:path';
import type { Disk, DiskLock } from '../../storage/disk.ts';
import { type BatchSummary, type Problem, dumpBatches, dumpRecords, listSegments, verify } from '../../storage/dump.ts';
import { loadNative } from '../../storage/native.ts';
import { NodeDisk } from '../../storage/node-disk.ts';
import { jsonFlag } from './cluster-flags.ts';
import { type Args, type Command, CommandFailure, type Flag } from './command.ts';
import type { Io } from './io.ts';
import { jsonLine, plural, sizeText, table, timeText } from './output.ts';
import { recordJson, recordLine } from './record-text.ts';

const segmentFlags = {
  ...jsonFlag,
  live: { help: 'also while a broker uses the folder; the end of a log may then be unfinished' },
} as const satisfies Record<string, Flag>;

const PATH_DETAILS =
  'PATH is a data folder, the folder of a partition, or a .log file, of Millrace or of Apache Kafka.';

const list: Command = {
  name: 'segment list',
  usage: 'PATH [flags]',
  summary: 'Lists segments with their offsets, times and sizes',
  details: PATH_DETAILS,
  arity: [1, 1],
  flags: segmentFlags,
  run: (args, io) =>
    withFolder(args, io, async (disk, path) => {
      const rows: (string | number)[][] = [];
      for await (const segment of listSegments(disk, path)) {
        if (args.has('json')) await io.write(jsonLine(segment));
        const { folder, baseOffset, batchCount, recordCount, lastOffset, badBytes } = segment;
        const times = [timeText(segment.firstTimestamp), timeText(segment.maxTimestamp)];
        rows.push([
          folder,
          baseOffset,
          lastOffset,
          batchCount,
          recordCount,
          ...times,
          sizeText(segment.sizeBytes),
          badBytes,
        ]);
      }
      if (rows.length === 0) throw nothingThere(path);
      const head = ['PARTITION', 'BASE', 'LAST', 'BATCHES', 'RECORDS', 'FROM', 'TO', 'SIZE', 'BAD BYTES'];
      if (!args.has('json')) await io.write(table(head, rows));
    }),
};

const dump: Command = {
  name: 'segment dump',
  usage: 'PATH [flags]',
  summary: 'Prints batches, or their records, up to the first that is not sound',
  details: PATH_DETAILS,
  arity: [1, 1],
  flags: { ...segmentFlags, records: { help: 'the records instead of the batches' } },
  run: (args, io) =>
    withFolder(args, io, async (disk, path) => {
      let problems = 0;
      const entries = args.has('records') ? dumpRecords(disk, path) : dumpBatches(disk, path);
      let count = 0;
      for await (const entry of entries) {
        count++;
        switch (entry.kind) {
          case 'problem':
            if (entry.severity === 'damage') problems++;
            await tell(entry, args, io);
            break;
          case 'batch':
            await io.write(args.has('json') ? jsonLine(entry) : batchLine(entry));
            break;
          case 'record': {
            const target = partitionOf(entry.file);
            await io.write(args.has('json') ? jsonLine(recordJson(target, entry)) : recordLine(target, entry, true));
            break;
          }
        }
      }
      if (count === 0) io.note(`nothing is stored in ${path}`);
      if (problems > 0) throw new CommandFailure(`${plural(problems, 'problem')} found`);
    }),
};

const check: Command = {
  name: 'segment verify',
  usage: 'PATH [flags]',
  summary: 'Checks checksums, offsets, indexes and state files',
  details: `${PATH_DETAILS}
Exit code 1 if anything is damaged. The end of a partition's newest segment may be unfinished after a crash: the next
start completes it from the journal, so that is told but is no damage.`,
  arity: [1, 1],
  flags: { ...segmentFlags, deep: { help: 'also open every batch and walk its records' } },
  run: (args, io) =>
    withFolder(args, io, async (disk, path) => {
      let damaged = 0;
      for await (const problem of verify(disk, path, { deep: args.has('deep') })) {
        if (problem.severity === 'damage') damaged++;
        await tell(problem, args, io);
      }
      if (damaged > 0) throw new CommandFailure(`${plural(damaged, 'problem')} found in ${path}`);
      io.note(`${path} is sound`);
    }),
};

export const segmentCommands: Readonly<Record<string, Command>> = { list, dump, verify: check };

async function withFolder(args: Args, io: Io, work: (disk: Disk, path: string) => Promise<void>): Promise<void> {
  const disk = new NodeDisk();
  const path = resolve(args.positionals[0]);
  if ((await disk.stat(path)) === undefined) throw new CommandFailure(`there is no ${path}`);
  const lock = args.has('live') ? undefined : await lockDataFolder(disk, path, io);
  try {
    await loadNative();
    await work(disk, path);
  } finally {
    await lock?.release();
  }
}

/** The data folder that `path` is or lies in, locked; nothing for the files of another program. */
async function lockDataFolder(disk: Disk, path: string, io: Io): Promise<DiskLock | undefined> {
  for (const folder of [path, dirname(path), dirname(dirname(path))]) {
    const isOurs =
      (await disk.stat(`${folder}/meta.properties`)) && (await disk.stat(`${folder}/journal`))?.isDirectory;
    if (!isOurs) continue;
    try {
      return await disk.lock(folder, 'shared');
    } catch (error) {
      io.note('A broker uses this folder. Stop it, or add --live to read while it runs.');
      throw error;
    }
  }
  return undefined;
}

async function tell(problem: Problem, args: Args, io: Io): Promise<void> {
  if (args.has('json')) return io.write(jsonLine(problem));
  const { severity, file, position, expected, found } = problem;
  await io.write(`${severity}: ${file}, byte ${position}: expected ${expected}, found ${found}\n`);
}

function batchLine(batch: BatchSummary): string {
  const { topic, partition } = partitionOf(batch.file);
  const marks = [
    batch.codec === 'none' ? '' : batch.codec,
    batch.timestampType === 'LogAppendTime' ? 'append time' : '',
    batch.isTransactional ? 'transactional' : '',
    batch.isControl ? 'control' : '',
    batch.producerId >= 0
      ? `producer ${batch.producerId} epoch ${batch.producerEpoch} sequence ${batch.baseSequence}`
      : '',
  ].filter((mark) => mark !== '');
  const offsets = `${batch.baseOffset}–${batch.lastOffset}`;
  const parts = [
    `${topic}:${partition}`,
    offsets,
    plural(batch.recordCount, 'record'),
    `${batch.sizeBytes} B at ${batch.position}`,
    timeText(batch.maxTimestamp),
    `epoch ${batch.leaderEpoch}`,
    ...marks,
  ];
  return `${parts.join('  ')}\n`;
}

/** From the name of the folder: `TOPIC-PARTITION`. */
function partitionOf(file: string): { topic: string; partition: number } {
  const folder = dirname(file).split('/').at(-1) ?? '';
  const at = folder.lastIndexOf('-');
  return { topic: folder.slice(0, at), partition: Number(folder.slice(at + 1)) };
}

function nothingThere(path: string): CommandFailure {
  return new CommandFailure(
    `there are no segments in ${path}; a data folder, the folder of a partition, or a .log file has some (what was written last may still be in the journal)`,
  );
}
