/** Logs in memory: what was appended is read, what is done with goes, and what is too much goes to the scratch file. */
import test from 'ava';
import { batchBaseOffset, batchLastOffset, batchSizeBytes, buildBatch } from '../../protocol/record-batch.ts';
import { MemoryLog, type MemoryLogContext } from '../../storage/memory-log.ts';
import type { LogConfig, LogSlice } from '../../storage/log.ts';
import { ScratchFile } from '../../storage/scratch-file.ts';
import { SimClock } from '../support/sim-clock.ts';
import { SimDisk } from '../support/sim-disk.ts';
import { SimRandom } from '../support/sim-random.ts';

const config: LogConfig = {
  segmentBytes: 2 ** 30,
  segmentMs: Number.MAX_SAFE_INTEGER,
  segmentIndexBytes: 1024,
  indexIntervalBytes: 4096,
  retentionMs: -1,
  retentionBytes: -1,
  fileDeleteDelayMs: 0,
  timestampType: 'LogAppendTime',
  timestampBeforeMaxMs: Number.MAX_SAFE_INTEGER,
  timestampAfterMaxMs: Number.MAX_SAFE_INTEGER,
  maxMessageBytes: 1_000_000,
};

class Scene {
  readonly clock = new SimClock();
  readonly disk = new SimDisk();
  readonly context: MemoryLogContext;

  constructor(bytesMax: number) {
    const scratch = new ScratchFile(this.disk, 'scratch');
    const memoryBudget = { bytesMax, bytes: 0 };
    this.context = { clock: this.clock, leaderEpoch: 3, producersMax: 100, memoryBudget, scratch };
  }

  log(name = 'log'): MemoryLog {
    return new MemoryLog(this.context, { topicId: `id of ${name}`, topic: name, index: 0, config });
  }

  async values(log: MemoryLog, offset: number, maxBytes = 1e9): Promise<string[]> {
    const slice: LogSlice = await this.clock.settle(Promise.resolve(log.read(offset, maxBytes, { wholeFirst: true })));
    // The log answers nothing but bytes.
    const bytes = Buffer.concat(slice.chunks as Buffer[]);
    if (bytes.length !== slice.sizeBytes) throw new Error(`${bytes.length} bytes are not ${slice.sizeBytes}`);
    const values: string[] = [];
    for (let at = 0; at < bytes.length; at += batchSizeBytes(bytes, at)) {
      values.push(`${batchBaseOffset(bytes, at)}-${batchLastOffset(bytes, at)}`);
    }
    return values;
  }
}

const batchOf = (records: number, sizeBytes: number): Buffer =>
  buildBatch(Array.from({ length: records }, () => ({ key: null, value: Buffer.alloc(sizeBytes), timestamp: 5 })));
const client = { origin: 'client', urgency: 'waited' } as const;

test('what was appended is read back, and who waits is called in another turn', async (t) => {
  const scene = new Scene(1e6);
  const log = scene.log();
  let calls = 0;
  log.whenAbove(0, () => calls++);
  t.like(log.append(batchOf(3, 10), client), { baseOffset: 0, lastOffset: 2, position: 0, isDuplicate: false });
  t.is(log.append(batchOf(2, 10), client).baseOffset, 3);
  t.is(calls, 0);
  await scene.clock.advance(1);
  t.is(calls, 1);
  t.deepEqual(await scene.values(log, 0), ['0-2', '3-4']);
  t.deepEqual(await scene.values(log, 4), ['3-4']);
  t.deepEqual(await scene.values(log, 0, 1), ['0-2']);
  t.deepEqual(await scene.values(log, 5), []);
  t.throws(() => log.read(6, 100, { wholeFirst: true }), { message: /offset 6, have 0 to 5/ });
  t.like(await log.offsetForTime(0), { offset: 0, leaderEpoch: 3 });
  t.is((await log.offsetOfMaxTime())?.timestamp, scene.clock.now() - 1);
});

test('a producer that sends twice is told so', (t) => {
  const log = new Scene(1e6).log();
  const records = [{ key: null, value: Buffer.from('v'), timestamp: 5 }];
  const batch = (sequence: number) => buildBatch(records, { producerId: 7, producerEpoch: 0, baseSequence: sequence });
  t.is(log.append(batch(0), client).baseOffset, 0);
  t.is(log.append(batch(1), client).baseOffset, 1);
  t.like(log.append(batch(1), client), { baseOffset: 1, isDuplicate: true });
  t.throws(() => log.append(batch(5), client), { message: /sequence/ });
  t.is(log.endOffset, 2);
});

test('what no queue needs goes with the next append, and all memory with the log', (t) => {
  const scene = new Scene(1e9);
  const { memoryBudget } = scene.context;
  const log = scene.log();
  let done = 0;
  log.retentionLimit = () => done;
  for (let sent = 0; sent < 5000; sent++) {
    log.append(batchOf(1, 1000), client);
    done = Math.max(0, sent - 20);
    t.true(log.startOffset <= done);
  }
  t.true(memoryBudget.bytes < 300_000, `${memoryBudget.bytes} bytes`);
  t.true(log.sizeBytes < 30_000);
  t.is(log.startOffset, 4978);
  const other = scene.log('other');
  other.append(batchOf(1, 100_000), client);
  other.delete();
  log.delete();
  t.is(memoryBudget.bytes, 0);
  t.throws(() => log.append(batchOf(1, 1), client), { message: /is deleted/ });
});

test('beyond the budget bytes go to the scratch file and come from there', async (t) => {
  for (let seed = 1; seed <= 8; seed++) {
    const random = new SimRandom(seed);
    const scene = new Scene(200_000);
    const { memoryBudget, scratch } = scene.context;
    const logs = ['a', 'b'].map((name) => ({ log: scene.log(name), sent: [] as string[], done: 0 }));
    for (const each of logs) each.log.retentionLimit = () => each.done;
    let mostScratch = 0;
    for (let step = 0; step < 400; step++) {
      const each = random.pick(logs);
      const { log, sent } = each;
      if (random.chance(0.7)) {
        const { baseOffset, lastOffset } = log.append(
          batchOf(random.between(1, 5), random.pick([10, 2000, 9000])),
          client,
        );
        sent.push(`${baseOffset}-${lastOffset}`);
      } else if (log.startOffset < log.endOffset) {
        const from = random.between(log.startOffset, log.endOffset - 1);
        const reading = scene.values(log, from, random.pick([1, 50_000, 1e9]));
        // What is being read may go meanwhile.
        if (random.chance(0.3)) each.done = random.between(from, log.endOffset);
        log.retain();
        const read = await reading;
        const first = sent.findIndex((range) => Number(range.split('-')[1]) >= from);
        t.deepEqual(read, sent.slice(first, first + read.length));
        t.true(read.length > 0);
      }
      if (random.chance(0.5)) await scene.clock.advance(1);
      mostScratch = Math.max(mostScratch, scratch.usedBytes);
      t.true(memoryBudget.bytes < 400_000);
    }
    t.true(mostScratch > 0);
    for (const { log } of logs) log.delete();
    await scene.clock.advance(5);
    t.is(memoryBudget.bytes, 0);
    t.is(scratch.usedBytes, 0);
  }
});

test('where the disk takes nothing, sends are refused beyond twice the budget', async (t) => {
  const scene = new Scene(100_000);
  scene.disk.open = () => Promise.reject(new Error('ENOSPC'));
  const log = scene.log();
  const send = async (): Promise<void> => {
    for (let sent = 0; sent < 100; sent++) {
      log.append(batchOf(1, 10_000), client);
      await scene.clock.advance(1);
    }
  };
  await t.throwsAsync(send, { message: /log.transient.bytes.max/ });
  t.true(log.endOffset >= 10);
  t.is((await scene.values(log, 0)).length, log.endOffset);
});

test('a scratch file that could not be opened is tried again', async (t) => {
  const scene = new Scene(200_000);
  const { memoryBudget, scratch } = scene.context;
  const { disk } = scene;
  const open = disk.open.bind(disk);
  disk.open = () => Promise.reject(new Error('EMFILE'));
  const log = scene.log();
  const send = async (): Promise<void> => {
    log.append(batchOf(1, 10_000), client);
    await scene.clock.advance(1);
  };
  while (memoryBudget.bytes < 250_000) await send();
  t.is(scratch.usedBytes, 0);
  disk.open = open;
  for (let sent = 0; sent < 50; sent++) await send();
  t.true(scratch.usedBytes > 0);
  t.true(memoryBudget.bytes <= 400_000);
  t.is((await scene.values(log, 0)).length, log.endOffset);
});
