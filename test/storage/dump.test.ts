import test from 'ava';
import { buildBatch, stampBatch } from '../../protocol/record-batch.ts';
import { dumpBatches, dumpRecords, listSegments, type Problem, verify } from '../../storage/dump.ts';
import { OffsetIndex, TimeIndex } from '../../storage/index-file.ts';
import { ProducerState } from '../../storage/producer-state.ts';
import { SimDisk } from '../support/sim-disk.ts';

async function write(disk: SimDisk, path: string, content: Uint8Array): Promise<void> {
  const file = await disk.open(path, 'write');
  await file.truncate(0);
  await file.write([content], 0);
  await file.close();
}

async function all<T>(items: AsyncIterable<T>): Promise<T[]> {
  const found: T[] = [];
  for await (const item of items) found.push(item);
  return found;
}

const FOLDER = '/data/orders-0';
const first = `${FOLDER}/00000000000000000100`;
const second = `${FOLDER}/00000000000000000110`;

/** Two segments from offset 100 to 115, batches of two records, an index entry for every second batch. */
async function folder(): Promise<SimDisk> {
  const disk = new SimDisk();
  await disk.makeDirectory(FOLDER);
  const producers = new ProducerState({ name: 'x' });
  const segment = async (path: string, baseOffset: number, endOffset: number): Promise<void> => {
    if (producers.count > 0) await write(disk, `${path}.snapshot`, producers.encode());
    const batches: Buffer[] = [];
    const offsets = new OffsetIndex(baseOffset);
    const times = new TimeIndex(baseOffset);
    let position = 0;
    for (let offset = baseOffset; offset < endOffset; offset += 2) {
      const records = [0, 1].map((index) => ({
        key: Buffer.from(`k${offset + index}`),
        value: Buffer.from(`value ${offset + index}`),
        timestamp: 1000 + offset + index,
        headers: [{ key: 'h', value: Buffer.from('v') }],
      }));
      const batch = buildBatch(records, {
        producerId: 7,
        producerEpoch: 0,
        baseSequence: offset,
        compression: offset % 4 === 0 ? 'gzip' : 'none',
      });
      stampBatch(batch, 0, offset, 3);
      producers.apply(batch, 0, 0);
      batches.push(batch);
      if (offset > baseOffset && (offset - baseOffset) % 4 === 0) {
        offsets.add(offset + 1, position);
        times.add(1001 + offset, offset + 1);
      }
      position += batch.length;
    }
    await write(disk, `${path}.log`, Buffer.concat(batches));
    await write(disk, `${path}.index`, offsets.bytes);
    await write(disk, `${path}.timeindex`, times.bytes);
  };
  await segment(first, 100, 110);
  await segment(second, 110, 116);
  await write(disk, `${FOLDER}/leader-epoch-checkpoint`, Buffer.from('0\n1\n3 100\n'));
  await disk.makeDirectory('/data/Orders~00000000000000000000000000000001-0');
  await disk.makeDirectory('/data/old-0.12345678-delete');
  await write(disk, '/data/old-0.12345678-delete/00000000000000000000.log', Buffer.from('deleted'));
  return disk;
}

/** The file as it is, changed by `change`. */
async function damaged(file: string, change: (bytes: Buffer) => Buffer | void): Promise<Problem[]> {
  const disk = await folder();
  const bytes = Buffer.from((await disk.readFile(file)) ?? []);
  await write(disk, file, change(bytes) ?? bytes);
  return all(verify(disk, '/data', { deep: true }));
}

test('a data folder, a partition folder and a file list their segments', async (t) => {
  const disk = await folder();
  const segments = await all(listSegments(disk, '/data'));
  t.is(segments.length, 2);
  t.like(segments[0], {
    folder: 'orders-0',
    file: `${first}.log`,
    baseOffset: 100,
    batchCount: 5,
    recordCount: 10,
    firstOffset: 100,
    lastOffset: 109,
    firstTimestamp: 1100,
    maxTimestamp: 1109,
    badBytes: 0,
  });
  t.deepEqual(await all(listSegments(disk, FOLDER)), segments);
  t.deepEqual(await all(listSegments(disk, `${second}.log`)), [segments[1]]);
  t.deepEqual(await all(listSegments(disk, '/nowhere')), []);
});

test('batches and records are printed with their places', async (t) => {
  const disk = await folder();
  const batches = await all(dumpBatches(disk, `${first}.log`));
  t.is(batches.length, 5);
  t.like(batches[1], {
    kind: 'batch',
    baseOffset: 102,
    lastOffset: 103,
    recordCount: 2,
    leaderEpoch: 3,
    codec: 'none',
  });
  t.like(batches[0], { position: 0, codec: 'gzip', producerId: 7, baseSequence: 100, timestampType: 'CreateTime' });
  const records = await all(dumpRecords(disk, '/data'));
  t.deepEqual(
    records.map((record) => record.kind === 'record' && record.offset),
    Array.from({ length: 16 }, (_, at) => 100 + at),
  );
  const last = records.at(-1);
  t.true(last?.kind === 'record' && last.value?.toString() === 'value 115' && last.timestamp === 1115);
});

test('a sound folder has no problems', async (t) => {
  t.deepEqual(await all(verify(await folder(), '/data', { deep: true })), []);
});

test('no changed byte of a segment or an index goes unnoticed', async (t) => {
  const disk = await folder();
  for (const file of [`${first}.log`, `${first}.index`, `${first}.timeindex`]) {
    const size = (await disk.stat(file))?.sizeBytes ?? 0;
    const batches = file.endsWith('.log') ? await all(dumpBatches(disk, file)) : [];
    t.true(size > 0);
    for (let at = 0; at < size; at += 7) {
      // The leader epoch is the one field of a batch that no checksum covers.
      if (batches.some(({ position }) => at >= position + 12 && at < position + 16)) continue;
      const problems = await damaged(file, (bytes) => {
        bytes[at] ^= 0x41;
      });
      t.true(problems.length > 0, `${file} byte ${at}`);
    }
  }
});

test('a problem says where it is, what was expected and what was found', async (t) => {
  const [crc] = await damaged(`${first}.log`, (bytes) => {
    bytes[100] ^= 1;
  });
  t.like(crc, { severity: 'damage', file: `${first}.log`, position: 0 });
  t.regex(crc.expected, /^CRC32C 0x[0-9a-f]{8}$/);
  t.regex(crc.found, /^0x[0-9a-f]{8}$/);
  const [entry] = await damaged(`${first}.index`, (bytes) => {
    bytes[7]++;
  });
  t.like(entry, { file: `${first}.index`, position: 0 });
  t.regex(entry.expected, /^offset 1\d\d at byte \d+$/);
});

test('an unfinished end of the newest segment is told from damage', async (t) => {
  const [torn] = await damaged(`${second}.log`, (bytes) => bytes.subarray(0, bytes.length - 5));
  t.is(torn.severity, 'unfinished');
  const [zeros] = await damaged(`${second}.log`, (bytes) => Buffer.concat([bytes, Buffer.alloc(300)]));
  t.is(zeros.severity, 'unfinished');
  const inOld = await damaged(`${first}.log`, (bytes) => bytes.subarray(0, bytes.length - 5));
  t.true(inOld.some(({ severity, file }) => severity === 'damage' && file === `${first}.log`));
  const [inside] = await damaged(`${second}.log`, (bytes) => {
    bytes[100] ^= 1;
  });
  t.is(inside.severity, 'damage', 'a good batch follows');
});

test('a missing segment, entries for nothing, damaged snapshots and epochs are found', async (t) => {
  const disk = await folder();
  await disk.rename(`${second}.log`, `${FOLDER}/00000000000000000112.log`);
  const gap = await all(verify(disk, FOLDER));
  t.true(gap.some(({ expected }) => expected === 'a segment that starts at offset 110'));
  const [beyond] = await damaged(`${second}.index`, (bytes) =>
    Buffer.concat([bytes, Buffer.from([0, 0, 0, 50, 0, 1, 0, 0])]),
  );
  t.regex(beyond.expected, /^an entry for a batch below byte \d+$/);
  const [snapshot] = await damaged(`${second}.snapshot`, (bytes) => {
    bytes[20]++;
  });
  t.regex(snapshot.found, /producer snapshot: expected CRC/);
  const [epochs] = await damaged(`${FOLDER}/leader-epoch-checkpoint`, () => Buffer.from('0\n2\n3 100\n'));
  t.like(epochs, { expected: 'a file that can be read' });
});

test('the preallocated index of a Kafka broker that runs is no problem', async (t) => {
  t.deepEqual(await damaged(`${second}.index`, (bytes) => Buffer.concat([bytes, Buffer.alloc(8 * 100)])), []);
  t.deepEqual(await damaged(`${second}.timeindex`, (bytes) => Buffer.concat([bytes, Buffer.alloc(12 * 100)])), []);
});

test('a batch larger than a read is whole', async (t) => {
  const disk = new SimDisk();
  await disk.makeDirectory('/data/big-0');
  const batch = buildBatch([{ key: null, value: Buffer.alloc(3_000_000, 'x'), timestamp: 1 }]);
  const small = buildBatch([{ key: null, value: Buffer.from('y'), timestamp: 2 }], { baseOffset: 1 });
  await write(disk, '/data/big-0/00000000000000000000.log', Buffer.concat([batch, small]));
  t.deepEqual(await all(verify(disk, '/data')), []);
  t.is((await all(dumpBatches(disk, '/data'))).length, 2);
});
