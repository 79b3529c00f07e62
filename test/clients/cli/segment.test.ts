import { cp, mkdtemp, open, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'ava';
import { startTestBroker } from '../../support/broker.ts';
import { cliFor } from './run.ts';

const objects = (out: string) =>
  out
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => JSON.parse(line));

test('segments are listed, dumped and verified, under the lock of the folder', async (t) => {
  const broker = await startTestBroker();
  const cli = cliFor(broker.bootstrap);
  let isRunning = true;
  const copy = await mkdtemp(join(tmpdir(), 'millrace-segments-'));
  try {
    await cli('topic create kept --partitions 1');
    await cli('produce kept -z gzip -H a=b', 'one\ntwo\n');
    await cli('produce kept --key k', 'three\n');
    for (const command of ['list', 'dump', 'verify']) {
      const locked = await cli(`segment ${command} ${broker.dataDir}`);
      t.is(locked.code, 3, command);
      t.regex(locked.notes[0], /--live/);
    }
    t.is((await cli(`segment verify ${broker.dataDir} --live`)).code, 0);
    await broker.running.stop();
    isRunning = false;

    const listed = objects((await cli(`segment list ${broker.dataDir} --json`)).out);
    t.like(
      listed.find(({ folder }) => folder === 'kept-0'),
      { baseOffset: 0, lastOffset: 2, batchCount: 2, recordCount: 3, badBytes: 0 },
    );
    t.regex((await cli(`segment list ${broker.dataDir}`)).out, /^kept-0 +0 +2 +2 +3 /m);
    const partition = join(broker.dataDir, 'kept-0');
    const dumped = await cli(`segment dump ${partition} --json`);
    t.deepEqual(
      objects(dumped.out).map(({ baseOffset, codec }) => [baseOffset, codec]),
      [
        [0, 'gzip'],
        [2, 'none'],
      ],
    );
    t.regex((await cli(`segment dump ${partition}`)).out, /^kept:0 {2}0–1 {2}2 records .* gzip$/m);
    const records = objects((await cli(`segment dump ${partition} --records --json`)).out);
    t.deepEqual(
      records.map(({ offset, key, value }) => [offset, key, value]),
      [
        [0, null, 'one'],
        [1, null, 'two'],
        [2, 'k', 'three'],
      ],
    );
    t.is((await cli(`segment verify ${broker.dataDir} --deep`)).code, 0);

    // The first batch is damaged: more than the end of the log, which a crash may leave unfinished.
    await cp(partition, join(copy, 'kept-0'), { recursive: true });
    const [log] = (await readdir(partition)).filter((name) => name.endsWith('.log'));
    const file = await open(join(copy, 'kept-0', log), 'r+');
    await file.write('X', 70);
    await file.close();
    const verified = await cli(`segment verify ${join(copy, 'kept-0')}`);
    t.is(verified.code, 1);
    t.regex(verified.out, /^damage: .*\.log, byte 0: expected /m);
    t.is((await cli(`segment dump ${join(copy, 'kept-0')}`)).code, 1);
    t.is((await cli(`segment list ${copy}/nothing`)).code, 1);
  } finally {
    if (isRunning) await broker.running.stop();
    await rm(copy, { recursive: true, force: true });
    await rm(broker.dataDir, { recursive: true, force: true });
  }
});
