/** What a start does with segments whose swap a stop has interrupted. */
import test from 'ava';
import { finishSwaps } from '../../storage/segment-swap.ts';
import { SimDisk } from '../support/sim-disk.ts';
import { SimRandom } from '../support/sim-random.ts';

const NAME = '00000000000000000000';
const state = {
  folder: 'topic-0',
  segments: [
    {
      baseOffset: 0,
      writtenBytes: 3,
      writtenOffset: 9,
      createdMs: 0,
      firstTimestamp: 0,
      largestTimestamp: 0,
      largestTimestampOffset: 0,
      batchBytesMax: 3,
      isSwapPending: true,
    },
  ],
};

/** A folder in which the old segment has its name and the new one `.swap`, all of it stable. */
async function interrupted(): Promise<SimDisk> {
  const disk = new SimDisk();
  await disk.makeDirectory('/d/topic-0');
  for (const [name, content] of [
    [`${NAME}.log`, 'older'],
    [`${NAME}.log.swap`, 'new'],
    [`${NAME}.index.swap`, 'index'],
  ]) {
    const file = await disk.open(`/d/topic-0/${name}`, 'write');
    await file.write([Buffer.from(content)], 0);
    await file.sync();
    await file.close();
  }
  for (const folder of ['/d/topic-0', '/d', '/']) await disk.syncDirectory(folder);
  return disk;
}

async function afterPowerCut(disk: SimDisk, name: string): Promise<string | undefined> {
  const image = disk.image().afterPowerCut(new SimRandom(1), { unsynced: 'lost', names: 'lost' });
  const bytes = await new SimDisk({ image }).readFile(`/d/topic-0/${name}`);
  return bytes === undefined ? undefined : Buffer.from(bytes).toString();
}

test('names that a start gives to a rewritten segment outlast a power cut', async (t) => {
  const disk = await interrupted();
  await finishSwaps(disk, '/d', [{ state }]);
  t.is(await afterPowerCut(disk, `${NAME}.log`), 'new');
  t.is(await afterPowerCut(disk, `${NAME}.index`), 'index');
  t.is(await afterPowerCut(disk, `${NAME}.log.swap`), undefined);
});

test('so do names that a process gave which was killed before it could sync them', async (t) => {
  const disk = await interrupted();
  for (const ending of ['log', 'index']) {
    await disk.rename(`/d/topic-0/${NAME}.${ending}.swap`, `/d/topic-0/${NAME}.${ending}`);
  }
  t.is(await afterPowerCut(disk, `${NAME}.log`), 'older');
  await finishSwaps(disk, '/d', [{ state }]);
  t.is(await afterPowerCut(disk, `${NAME}.log`), 'new');
  t.is(await afterPowerCut(disk, `${NAME}.log.swap`), undefined);
});

test('a file of another rewrite is not taken for the one that the checkpoint names', async (t) => {
  const disk = await interrupted();
  const file = await disk.open(`/d/topic-0/${NAME}.log.swap`, 'write');
  await file.write([Buffer.from('longer than it')], 0);
  await file.close();
  await finishSwaps(disk, '/d', [{ state }]);
  t.is(Buffer.from((await disk.readFile(`/d/topic-0/${NAME}.log`)) ?? []).toString(), 'older');
  t.is(await disk.stat(`/d/topic-0/${NAME}.log.swap`), undefined);
});
