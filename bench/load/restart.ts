/**
 * Rows a and l: how long a start takes and what the broker weighs. After kill -9 the page cache is still there, so this
 * is the time of recovery, not of a cold disk.
 */
import path from 'node:path';
import type { Context } from '../context.ts';
import { checkoutRoot, memory, sleep } from '../machine.ts';
import { folderBytes, type Millrace } from '../millrace.ts';
import { producerPerformance } from '../peers/kafka/tools.ts';
import { end, freePort, launch } from '../target.ts';
import { measureOutstanding } from './outstanding.ts';
import { MANY_PARTITIONS, outstandingOnce, partitionsText } from './steady.ts';
import { withWire } from './wire.ts';

const IDLE_MS = 3000;
const STORED_RECORDS = 5_200_000;
const RECORD_BYTES = 1000;
const RESTART_PARTITIONS = 2000;
/** A kill comes when the journal is this full, or after the time below. */
const JOURNAL_FULL = 0.9;
/** The journal gets this full and no fuller: a checkpoint is due after as much is written to segments, at the latest. */
const JOURNAL_BYTES_MAX = 256 * 1024 * 1024;
const LOAD_MS_MAX = 20_000;
const POLL_MS = 20;
const MIB = 1024 * 1024;
const GIB = 1024 * MIB;

export async function startSection(context: Context): Promise<void> {
  for (let round = 0; round <= context.rounds; round++) {
    const folder = path.join(context.dataDir, context.fresh('start'));
    for (const [text, isMeasuredIdle] of [
      ['exec to ready, new folder', true],
      ['exec to ready, again', false],
    ] as const) {
      const millrace = await context.millrace('millrace', {}, folder);
      if (isMeasuredIdle) await sleep(IDLE_MS);
      const { rssMib } = memory(millrace.pid);
      await millrace.stop();
      const figures = { readyMs: millrace.readyMs, ...(isMeasuredIdle ? { rssMib } : {}) };
      if (round > 0) context.record({ section: 'a', case: text, target: 'millrace', round }, figures);
    }
    const readyMs = await npmStart(path.join(folder, 'npm'));
    if (round > 0)
      context.record({ section: 'a', case: 'npm start, built before', target: 'millrace', round }, { readyMs });
  }
}

/** `npm start` in the checkout, as a user types it. */
async function npmStart(folder: string): Promise<number> {
  const kafka = `127.0.0.1:${await freePort()}`;
  const http = `127.0.0.1:${await freePort()}`;
  const { child, pid, readyMs } = await launch({
    command: 'npm',
    args: [
      'start',
      '--prefix',
      checkoutRoot(),
      '--',
      '--data-dir',
      path.join(folder, 'data'),
      '--kafka',
      kafka,
      '--http',
      http,
    ],
    logFile: path.join(folder, 'server.log'),
    ready: /^ready.*$/m,
    isGroup: true,
  });
  // npm, the launcher and the broker: the signal is meant for all of the group that `launch` made.
  process.kill(-pid, 'SIGTERM');
  await end(child, 'SIGTERM');
  return readyMs;
}

export async function restartSection(context: Context): Promise<void> {
  await restartWithData(context);
  await restartWithPartitions(context);
  await openPartitions(context);
}

async function restartWithData(context: Context): Promise<void> {
  const { jars } = context;
  if (!jars) return console.log('The restart with 5 GB needs the tools of Apache Kafka.');
  const folder = path.join(context.dataDir, context.fresh('restart'));
  const settings = { 'journal.checkpoint.bytes': JOURNAL_BYTES_MAX };
  let millrace = await context.millrace('millrace synced', settings, folder);
  const topic = context.fresh('restart');
  await withWire(millrace.port, (wire) => wire.createTopic(topic, 6));
  const records = context.scaled(STORED_RECORDS);
  await producerPerformance(jars, { port: millrace.port, topic, records, recordBytes: RECORD_BYTES, acks: '1' });
  for (let round = 1; round <= context.rounds; round++) {
    const journalMib = await killUnderLoad(millrace, topic, 6, JOURNAL_BYTES_MAX);
    const storedGib = Math.round(((await folderBytes(folder)) / GIB) * 10) / 10;
    millrace = await context.millrace('millrace synced', settings, folder);
    const { readyMs, pid } = millrace;
    const figures = { readyMs, journalMib, storedGib, ...memory(pid) };
    context.record(
      { section: 'l', case: 'kill -9, 5 GB, full journal', target: 'millrace synced', round },
      peak(figures),
    );
  }
  await millrace.stop();
}

async function restartWithPartitions(context: Context): Promise<void> {
  const folder = path.join(context.dataDir, context.fresh('restart'));
  let millrace = await context.millrace('millrace synced', {}, folder);
  const topic = context.fresh('restart');
  await withWire(millrace.port, (wire) => wire.createTopic(topic, RESTART_PARTITIONS));
  for (let round = 1; round <= context.rounds; round++) {
    const journalMib = await killUnderLoad(millrace, topic, RESTART_PARTITIONS);
    millrace = await context.millrace('millrace synced', {}, folder);
    const { readyMs, pid } = millrace;
    const figures = { readyMs, journalMib, ...memory(pid) };
    const text = `kill -9, ${partitionsText(RESTART_PARTITIONS)}`;
    context.record({ section: 'l', case: text, target: 'millrace synced', round }, peak(figures));
  }
  await millrace.stop();
}

const peak = <T extends { peakMib: number }>({ peakMib, ...rest }: T): Omit<T, 'peakMib'> & { peakRssMib: number } => ({
  ...rest,
  peakRssMib: peakMib,
});

/**
 * Writes until the journal is about as full as it gets (`fullBytes`; by default as it was before), then kill -9 in the middle
 * of it. Answers MiB in the journal.
 */
async function killUnderLoad(
  millrace: Millrace,
  topic: string,
  partitions: number,
  fullBytes?: number,
): Promise<number> {
  const { port } = millrace;
  const load = measureOutstanding({
    port,
    topic,
    partitions,
    recordBytes: RECORD_BYTES,
    connections: 16,
    outstanding: 256,
    warmupSeconds: 0,
    seconds: LOAD_MS_MAX / 1000,
  }).catch(() => undefined); // It ends with the broker.
  let highest = 0;
  let journal = 0;
  const waitedMsMax = fullBytes === undefined ? LOAD_MS_MAX / 2 : LOAD_MS_MAX;
  for (let waitedMs = 0; waitedMs < waitedMsMax; waitedMs += POLL_MS) {
    await sleep(POLL_MS);
    journal = journalBytes(await millrace.metrics());
    // In the first half of the time learn how far it goes.
    const isLearnt = fullBytes !== undefined || waitedMs > LOAD_MS_MAX / 4;
    if (isLearnt && journal >= (fullBytes ?? highest) * JOURNAL_FULL) break;
    highest = Math.max(highest, journal);
  }
  await millrace.kill();
  await load;
  return Math.round(journal / MIB);
}

/** Journal written and not yet covered by a checkpoint. */
function journalBytes(metrics: Map<string, number>): number {
  return metrics.get('millrace_journal_bytes') ?? 0;
}

/** What a thousand open partitions add to a load on one; and, for comparison, what a load on all of them does. */
async function openPartitions(context: Context): Promise<void> {
  for (let round = 1; round <= context.rounds; round++) {
    for (const others of [0, MANY_PARTITIONS]) {
      const millrace = await context.millrace('millrace synced', {});
      const figures = others === 0 ? undefined : await outstandingOnce(context, millrace, others, true);
      const loaded = await outstandingOnce(context, millrace, 1, true);
      await millrace.stop();
      const place = { section: 'l', target: 'millrace synced', round };
      context.record(
        { ...place, case: others === 0 ? 'RSS, load on 1 partition' : 'RSS, the same with 1000 open' },
        loaded,
      );
      if (figures) context.record({ ...place, case: 'RSS, load on 1000 partitions' }, figures);
    }
  }
}
