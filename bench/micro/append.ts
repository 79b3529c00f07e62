/**
 * Appends batches to the embedded engine as fast as it takes them and says what that costs: rate, CPU, groups, syncs.
 *
 *   node .build/…/bench/micro/append.js [--batch 16384] [--partitions 6] [--mib 2000] [--flush synced] [--dir DIR] [--outstanding 4194304] [--warm 200]
 */
import * as fs from 'node:fs';
import * as os from 'node:os';
import * as path from 'node:path';
import { parseArgs } from 'node:util';
import { resolveOptions } from '../../broker/config.ts';
import { openEmbeddedEngine } from '../../broker/embedded-engine.ts';
import type { LogConfig } from '../../broker/engine.ts';
import { buildBatch } from '../../protocol/record-batch.ts';
import { systemClock, systemRandom } from '../../storage/clock.ts';
import { NodeDisk } from '../../storage/node-disk.ts';

const { values } = parseArgs({
  options: {
    batch: { type: 'string', default: '16384' },
    partitions: { type: 'string', default: '6' },
    mib: { type: 'string', default: '1000' },
    flush: { type: 'string', default: 'synced' },
    dir: { type: 'string' },
    /** Bytes that wait for their sync at a time, as producers with 5 requests in flight do. */
    outstanding: { type: 'string', default: String(2 * 1024 * 1024) },
    /** MiB before it counts: folders are made, code is compiled. */
    warm: { type: 'string', default: '0' },
    set: { type: 'string', multiple: true, default: [] },
  },
});
const batchBytes = Number(values.batch);
const partitionCount = Number(values.partitions);
const warmBytes = Number(values.warm) * 1024 * 1024;
const totalBytes = warmBytes + Number(values.mib) * 1024 * 1024;
const outstandingMax = Number(values.outstanding);
const dir = values.dir ?? fs.mkdtempSync(path.join(os.tmpdir(), 'millrace-append-'));

const config: LogConfig = {
  segmentBytes: 2 ** 30,
  segmentMs: 7 * 86_400_000,
  segmentIndexBytes: 10 * 1024 * 1024,
  indexIntervalBytes: 4096,
  retentionMs: -1,
  retentionBytes: -1,
  fileDeleteDelayMs: 0,
  timestampType: 'CreateTime',
  timestampBeforeMaxMs: Number.MAX_SAFE_INTEGER,
  timestampAfterMaxMs: Number.MAX_SAFE_INTEGER,
  maxMessageBytes: 2 ** 26,
};

const options = resolveOptions({
  'log.flush': values.flush,
  'log.disk.reserve.bytes': 0,
  ...Object.fromEntries(values.set.map((pair) => pair.split('=', 2))),
});
const startedMs = performance.now();
const engine = await openEmbeddedEngine({
  disk: new NodeDisk(),
  clock: systemClock,
  random: systemRandom,
  dataDir: dir,
  options,
  warn: (message) => console.error(message),
});
engine.onFatal((error) => {
  throw error;
});
const openedMs = performance.now();
const groupsMs: number[] = [];
engine.onGroupMs((ms) => groupsMs.push(ms));
const partitions = Array.from({ length: partitionCount }, (_, index) => {
  const topicId = '11111111-2222-4333-8444-555555555555';
  return engine.openPartition({ topicId, topic: 'bench', index, config });
});
for (const partition of partitions) await partition.prepare();
const batch = buildBatch([
  { key: null, value: Buffer.alloc(Math.max(1, batchBytes - 70), 'x'), timestamp: Date.now() },
]);

let cpuBefore = process.cpuUsage();
let runMs = performance.now();
let isWarm = warmBytes === 0;
let appended = 0;
let acknowledged = 0;
let turn = 0;
await new Promise<void>((resolve) => {
  const more = (): void => {
    let position = 0;
    let size = 0;
    while (appended < totalBytes && appended - acknowledged < outstandingMax && engine.hasRoom) {
      const partition = partitions[turn++ % partitions.length];
      position = partition.append(batch, { origin: 'client', urgency: 'waited' }).position;
      appended += batch.length;
      size += batch.length;
      // One acknowledgement for what one request would carry.
      if (size >= 64 * 1024) break;
    }
    if (size > 0) {
      const bytes = size;
      engine.whenDurable(position, () => {
        acknowledged += bytes;
        if (!isWarm && acknowledged >= warmBytes) {
          isWarm = true;
          cpuBefore = process.cpuUsage();
          runMs = performance.now();
          groupsMs.length = 0;
        }
        if (acknowledged >= totalBytes) resolve();
        else schedule();
      });
      if (appended < totalBytes && appended - acknowledged < outstandingMax) schedule();
    } else if (!engine.hasRoom) engine.whenRoom(schedule);
  };
  let isScheduled = false;
  const schedule = (): void => {
    if (isScheduled) return;
    isScheduled = true;
    setImmediate(() => {
      isScheduled = false;
      more();
    });
  };
  more();
});
const seconds = (performance.now() - runMs) / 1000;
const cpu = process.cpuUsage(cpuBefore);
const mib = (appended - warmBytes) / 1024 / 1024;
groupsMs.sort((a, b) => a - b);
const cpuSeconds = (cpu.user + cpu.system) / 1e6;
const at = (share: number): string => (groupsMs[Math.floor(groupsMs.length * share)] ?? 0).toFixed(2);
console.log(
  `${values.flush} ${batchBytes} B × ${partitionCount}: ${(mib / seconds).toFixed(0)} MiB/s, ` +
    `${((cpuSeconds * 1000) / mib).toFixed(2)} ms CPU/MiB (user ${(cpu.user / 1000 / mib).toFixed(2)}), ` +
    `${Math.round((mib * 1024 * 1024) / batch.length / seconds)} batches/s, group p50 ${at(0.5)} p99 ${at(0.99)} ms, ` +
    `open ${(openedMs - startedMs).toFixed(0)} ms, rss ${(process.memoryUsage.rss() / 1024 / 1024).toFixed(0)} MiB`,
);
console.log(JSON.stringify(engine.counters));
const closeMs = performance.now();
await engine.close();
console.log(`close ${(performance.now() - closeMs).toFixed(0)} ms`);
if (values.dir === undefined) fs.rmSync(dir, { recursive: true, force: true });
