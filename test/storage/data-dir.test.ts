import test from 'ava';
import { base64ToUuid, DataDir, uuidToBase64 } from '../../storage/data-dir.ts';
import { SimDisk } from '../support/sim-disk.ts';
import { SimRandom } from '../support/sim-random.ts';

const idOf = (number: number): string => `0000000${number}-1111-4222-8333-444444444444`;
const open = (disk: SimDisk, seed = 1): Promise<DataDir> =>
  DataDir.open(disk, '/srv/data', { random: new SimRandom(seed) });

async function write(disk: SimDisk, path: string, content: string): Promise<void> {
  const file = await disk.open(path, 'write');
  await file.write([Buffer.from(content)], 0);
  await file.close();
}
const textOf = async (disk: SimDisk, path: string): Promise<string> =>
  Buffer.from((await disk.readFile(path)) ?? []).toString();

test('a new folder gets its ids once, and they survive a power cut', async (t) => {
  const disk = new SimDisk();
  const first = await open(disk);
  t.regex(first.clusterId, /^[A-Za-z0-9_-]{22}$/);
  t.not(first.clusterId, first.directoryId);
  t.is(first.nodeId, 1);
  const after = new SimDisk({ image: disk.image().afterPowerCut(new SimRandom(1), { unsynced: 'lost' }) });
  const second = await open(after, 2);
  t.is(second.clusterId, first.clusterId);
  t.is(second.directoryId, first.directoryId);
  t.regex(
    await textOf(after, '/srv/data/meta.properties'),
    /^version=1\nmillrace\.format=1\ncluster\.id=.{22}\nnode\.id=1\ndirectory\.id=.{22}\n/m,
  );
});

test('whatever moment of its creation the power goes, the folder can be opened afterwards', async (t) => {
  const whole = new SimDisk();
  const createOne = async (disk: SimDisk): Promise<void> => {
    const dir = await open(disk);
    await dir.createPartition('orders', { topicId: idOf(1), index: 0 });
    await dir.sync();
  };
  await createOne(whole);
  for (let stop = 1; stop <= whole.operations; stop++) {
    for (const unsynced of ['lost', 'whole', 'torn', 'kept'] as const) {
      const disk = new SimDisk();
      disk.stopAt(stop);
      void createOne(disk);
      await new Promise((resolve) => setImmediate(resolve));
      t.true(disk.isStopped);
      const after = new SimDisk({ image: disk.image().afterPowerCut(new SimRandom(stop), { unsynced }) });
      const again = await open(after);
      for (const name of again.folders) {
        const identity = await again.identify(name);
        if (identity === undefined) t.is(await again.setAside(name), undefined);
        else t.deepEqual(identity, { topicId: idOf(1), index: 0 });
      }
      if (again.folders.length === 0) await again.createPartition('orders', { topicId: idOf(1), index: 0 });
      t.deepEqual(again.folders, ['orders-0']);
    }
  }
});

test('folders that are not ours, newer, damaged or locked are refused with what to do', async (t) => {
  const refused = async (
    files: Record<string, string>,
    code: string,
    message: RegExp,
    nodeId?: number,
  ): Promise<void> => {
    const disk = new SimDisk();
    await disk.makeDirectory('/srv/data');
    for (const [name, content] of Object.entries(files)) await write(disk, `/srv/data/${name}`, content);
    const options = { random: new SimRandom(1), ...(nodeId === undefined ? {} : { nodeId }) };
    await t.throwsAsync(DataDir.open(disk, '/srv/data', options), { code, message });
    // The lock was let go: the same error again, not DATA_DIR_LOCKED.
    await t.throwsAsync(DataDir.open(disk, '/srv/data', options), { code, message });
  };
  const id = 'Q43urpfFyuV_ckQ8vONdAg';
  const meta = (format: number) =>
    `version=1\nmillrace.format=${format}\ncluster.id=${id}\nnode.id=7\ndirectory.id=${id}\n`;
  await refused({ 'meta.properties': meta(2) }, 'DATA_DIR_FORMAT', /format 2 .*newer.*reads up to 1/);
  await refused({ 'meta.properties': `version=1\ncluster.id=${id}\nnode.id=1\n` }, 'DATA_DIR_FORMAT', /Apache Kafka/);
  await refused({ 'meta.properties': '' }, 'DATA_DIR_CORRUPT', /expected millrace\.format/);
  await refused({ 'meta.properties': meta(1) }, 'INVALID_OPTION', /node\.id is 3, .* belongs to node 7/, 3);
  await refused({ 'holiday.jpg': 'x', b: 'y' }, 'DATA_DIR_CORRUPT', /holds b and 1 more, but no meta\.properties/);
  const disk = new SimDisk();
  const dir = await open(disk);
  await t.throwsAsync(open(disk), { code: 'DATA_DIR_LOCKED' });
  await dir.close();
  await (await open(disk)).close();
});

test('partition folders say whose they are, in the form Kafka reads', async (t) => {
  const disk = new SimDisk();
  const dir = await open(disk);
  t.is(await dir.createPartition('orders.v2', { topicId: idOf(1), index: 12 }), 'orders.v2-12');
  t.is(
    await textOf(disk, '/srv/data/orders.v2-12/partition.metadata'),
    `version: 0\ntopic_id: ${uuidToBase64(idOf(1))}`,
  );
  t.deepEqual(await dir.identify('orders.v2-12'), { topicId: idOf(1), index: 12 });
  await write(disk, '/srv/data/orders.v2-12/partition.metadata', 'version: 1\ntopic_id: x');
  t.is(await dir.identify('orders.v2-12'), undefined);
  t.is(await dir.identify('missing-1'), undefined);
  t.is(uuidToBase64(base64ToUuid('foMIkxY0Rrm3_bokCzjwTw')), 'foMIkxY0Rrm3_bokCzjwTw');
});

test('names that differ only by case, or are too long, never share or exceed a folder name', async (t) => {
  const disk = new SimDisk();
  const dir = await open(disk);
  const long = 'x'.repeat(249);
  const names = await Promise.all([
    dir.createPartition('orders', { topicId: idOf(1), index: 0 }),
    dir.createPartition('Orders', { topicId: idOf(2), index: 0 }),
    dir.createPartition('ORDERS', { topicId: idOf(3), index: 0 }),
    dir.createPartition(long, { topicId: idOf(4), index: 2_147_483_647 }),
    dir.createPartition(`${long.slice(1)}y`, { topicId: idOf(5), index: 2_147_483_647 }),
  ]);
  t.is(new Set(names.map((name) => name.toLowerCase())).size, names.length);
  t.deepEqual(names.slice(0, 2), ['orders-0', 'Orders~00000002111142228333444444444444-0']);
  const away = await Promise.all(names.map((name) => dir.retire(name)));
  for (const name of [...names, ...away]) t.true(Buffer.byteLength(name) <= 255);
  t.deepEqual(dir.folders, []);
  for (const wrong of ['', '../x', 'a/b', 'a b', 'é', 'x'.repeat(250)]) {
    await t.throwsAsync(dir.createPartition(wrong, { topicId: idOf(6), index: 0 }), { message: /cannot be the name/ });
  }
});

test('a deleted partition is gone once its folder is renamed; the next start removes the rest', async (t) => {
  const disk = new SimDisk();
  const dir = await open(disk);
  const name = await dir.createPartition('a', { topicId: idOf(1), index: 0 });
  await write(disk, `/srv/data/${name}/00000000000000000000.log`, 'old data');
  await dir.sync();
  await dir.retire(name);
  const after = new SimDisk({ image: disk.image().afterPowerCut(new SimRandom(1), { unsynced: 'lost' }) });
  const again = await open(after);
  t.deepEqual(again.folders, []);
  t.is(await again.createPartition('a', { topicId: idOf(2), index: 0 }), 'a-0');
  await again.removeLeftovers();
  t.deepEqual(await after.list('/srv/data'), ['a-0', 'meta.properties']);
  t.deepEqual(await again.identify('a-0'), { topicId: idOf(2), index: 0 });
});

test('a folder that is set aside keeps its files and is not listed again', async (t) => {
  const disk = new SimDisk();
  const dir = await open(disk);
  await dir.createPartition('a', { topicId: idOf(1), index: 0 });
  await write(disk, '/srv/data/a-0/00000000000000000000.log', 'data');
  const away = await dir.setAside('a-0');
  t.regex(away ?? '', /^a-0\.[0-9a-f]{8}-stray$/);
  t.is(await textOf(disk, `/srv/data/${away}/00000000000000000000.log`), 'data');
  await dir.close();
  t.deepEqual((await open(disk)).folders, []);
});

test('many creations share a few syncs of the folder', async (t) => {
  const disk = new SimDisk();
  const dir = await open(disk);
  disk.recordTrace();
  await Promise.all(
    Array.from({ length: 50 }, async (_, index) => {
      await dir.createPartition('a', { topicId: idOf(1), index });
      await dir.sync();
    }),
  );
  const syncs = disk.trace.filter((line) => line.endsWith('syncDirectory /srv/data ')).length;
  t.true(syncs >= 1 && syncs <= 3, `${syncs}`);
  const after = await open(new SimDisk({ image: disk.image().afterPowerCut(new SimRandom(1), { unsynced: 'lost' }) }));
  t.is(after.folders.length, 50);
});
