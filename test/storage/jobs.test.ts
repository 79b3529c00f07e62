import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'ava';
import { buildBatch } from '../../protocol/record-batch.ts';
import { InlineJobs, type Jobs, WorkerJobs } from '../../storage/jobs.ts';
import { KeyMap } from '../../storage/key-map.ts';
import { loadNative } from '../../storage/native.ts';
import { NodeDisk } from '../../storage/node-disk.ts';
import { RewriteFailure } from '../../storage/segment-rewrite.ts';

let folder: string;
test.before(async () => {
  await loadNative();
  folder = await mkdtemp(join(tmpdir(), 'millrace-jobs-'));
});
test.after.always(() => rm(folder, { recursive: true, force: true }));

/** Compacts one file of batches into another, step by step. */
async function compact(jobs: Jobs, name: string): Promise<{ bytes: Buffer; outputs: unknown[] }> {
  const path = join(folder, 'source.log');
  const { length: endPosition } = await readFile(path);
  const source = { path, position: 0, endPosition };
  const map = KeyMap.allocate(100, 1024 * 1024).buffer;
  const outputs: unknown[] = [];
  const mapped = await jobs.run('mapKeys', { source, fromOffset: 0, map });
  outputs.push(mapped, new KeyMap(map).count);
  const rules = {
    keep: { kind: 'keys', map, mappedTo: mapped.mappedTo } as const,
    nowMs: 0,
    deleteHorizonMs: 1000,
    producerEnds: new Float64Array(new SharedArrayBuffer(0)),
  };
  const target = join(folder, name);
  outputs.push(await jobs.run('filterPiece', { source, rules, target: `${target}.log.cleaned`, targetPosition: 0 }));
  const sealed = { path: target, baseOffset: 0, endOffset: mapped.mappedTo, indexIntervalBytes: 100 };
  outputs.push(await jobs.run('sealCleaned', sealed));
  for (const ending of ['.index', '.timeindex']) outputs.push(await readFile(`${target}${ending}.cleaned`));
  return { bytes: await readFile(`${target}.log.cleaned`), outputs };
}

test.serial('a thread does what is done inline', async (t) => {
  const batches = (['none', 'gzip', 'snappy', 'lz4', 'zstd'] as const).flatMap((compression, codec) =>
    [0, 1, 2].map((turn) => {
      const records = Array.from({ length: 10 }, (_, index) => ({
        key: Buffer.from(`key ${(turn + index) % 7}`),
        value: index === 4 ? null : Buffer.alloc(50, index),
        timestamp: 1000 + index,
      }));
      return buildBatch(records, { compression, baseOffset: (codec * 3 + turn) * 10 });
    }),
  );
  await writeFile(join(folder, 'source.log'), Buffer.concat(batches));
  const inline = await compact(new InlineJobs(new NodeDisk()), 'inline');
  const jobs = new WorkerJobs();
  const threaded = await compact(jobs, 'threaded');
  await jobs.close();
  t.deepEqual(threaded, inline);
  t.true(inline.bytes.length > 61 && inline.bytes.length < 1000);
});

test.serial('what fails in a thread says whose fault it was', async (t) => {
  const jobs = new WorkerJobs();
  const map = KeyMap.allocate(1, 1).buffer;
  const missing = { path: join(folder, 'missing'), position: 0, endPosition: 100 };
  const error = await t.throwsAsync(jobs.run('mapKeys', { source: missing, fromOffset: 0, map }));
  t.true(error instanceof RewriteFailure && error.kind === 'source' && error.code === 'ENOENT');
  await writeFile(join(folder, 'nonsense'), Buffer.alloc(100, 1));
  const nonsense = { ...missing, path: join(folder, 'nonsense') };
  const found = await t.throwsAsync(jobs.run('mapKeys', { source: nonsense, fromOffset: 0, map }));
  t.true(found instanceof RewriteFailure && found.kind === 'content');
  const nowhere = { path: join(folder, 'no/where'), baseOffset: 0, endOffset: 1, indexIntervalBytes: 1 };
  const unwritten = await t.throwsAsync(jobs.run('sealCleaned', nowhere));
  t.true(unwritten instanceof RewriteFailure && unwritten.kind === 'target');
  await jobs.close();
  await t.throwsAsync(jobs.run('mapKeys', { source: missing, fromOffset: 0, map }), { message: 'jobs are closed' });
});
