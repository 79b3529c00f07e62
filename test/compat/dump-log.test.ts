/** Kafka's DumpLogSegments reads a data folder after load, rolls, retention, deleted records, kill -9 and recovery. */
import { mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { BrokerProcess } from './broker-process.ts';
import { findToolJars, JavaTools, type RunningTool, type ToolResult } from './java-tools.ts';
import { isFull, sayMissing } from './target.ts';

const jars = findToolJars();
const define = jars ? test.serial : (): void => {};
const KILLS = isFull ? 25 : 1;
let tools: JavaTools;
let dataDir: string;
let broker: BrokerProcess;

if (jars) {
  test.before(async () => {
    dataDir = await mkdtemp(join(tmpdir(), 'millrace-dump-'));
    tools = new JavaTools(jars);
    broker = new BrokerProcess(dataDir, {
      // Small files, so that a little load meets rolls, checkpoints and reused journal files.
      'log.segment.bytes': 1024 * 1024,
      'journal.file.bytes': 1024 * 1024,
      'journal.checkpoint.bytes': 1024 * 1024,
      'journal.direct.bytes': 64 * 1024,
      'log.retention.check.interval.ms': 200,
      'log.segment.delete.delay.ms': 0,
      'log.index.interval.bytes': 1024,
    });
    await broker.start();
  });
  test.after.always(async () => {
    await tools?.close();
    await broker?.close();
    await rm(dataDir, { recursive: true, force: true });
  });
} else {
  sayMissing("the folder of Kafka's tools, or Java,");
  test('the tools of Kafka are not installed here', (t) => t.pass());
}

async function tool(className: string, words: string, input = ''): Promise<ToolResult> {
  return tools.run(className, ['--bootstrap-server', broker.bootstrap, ...words.split(' ')], input);
}

async function load(topic: string, records: number, sizeBytes: number, codec = 'none'): Promise<void> {
  const words = `--topic ${topic} --num-records ${records} --record-size ${sizeBytes} --throughput -1`;
  const result = await tool('ProducerPerformance', `${words} --command-property compression.type=${codec}`);
  if (result.code !== 0) throw new Error(result.err);
}

/** A producer that goes on until the JVM ends, over kills of the broker. */
async function startLoad(topic: string, codec: string): Promise<RunningTool> {
  const words = `--topic ${topic} --num-records 100000000 --record-size 300 --throughput 5000 --reporting-interval 100`;
  const args = `${words} --command-property compression.type=${codec}`.split(' ');
  return tools.start('ProducerPerformance', ['--bootstrap-server', broker.bootstrap, ...args]);
}

/** Files of partition folders with one of the endings, below the data folder. */
async function filesOf(...endings: string[]): Promise<string[]> {
  const all = await readdir(dataDir, { recursive: true });
  return all
    .filter((name) => /-\d+\//.test(name) && endings.some((ending) => name.endsWith(ending)))
    .map((name) => join(dataDir, name))
    .sort();
}

const COMPLAINT =
  /mismatch|not found|out of order|non-consecutive|non-secutive|invalid|isvalid: false|corrupt|exception|error|warn/i;

async function dump(t: ExecutionContext, files: readonly string[], ...flags: string[]): Promise<string> {
  t.true(files.length > 0);
  const { code, out, err } = await tools.run('DumpLogSegments', ['--files', files.join(','), ...flags]);
  t.is(code, 0, err);
  // Said of every segment but a first one, of Apache Kafka's too: it compares with -1. `judge` looks at the offsets.
  const rest = err.replace(/^Non-consecutive offsets in \S*\/0*(\d+)\.log\n {2}-1 is followed by \1\n/gm, '');
  t.is(rest, '');
  const complaints = out.split('\n').filter((line) => COMPLAINT.test(line) && !line.startsWith('|'));
  t.deepEqual(complaints.slice(0, 5), []);
  return out;
}

/** Everything that DumpLogSegments can look at, and what it must say. */
async function judge(t: ExecutionContext): Promise<void> {
  const logs = await filesOf('.log');
  const out = await dump(t, logs, '--deep-iteration', '--print-data-log');
  /** Folder → ranges of offsets, one a segment. */
  const ranges = new Map<string, { first: number; end: number }[]>();
  let range = { first: -1, end: -1 };
  for (const line of out.split('\n')) {
    const file = /^Dumping (\S*)\/(\d+)\.log$/.exec(line);
    if (file) {
      range = { first: Number(file[2]), end: Number(file[2]) };
      ranges.set(file[1], [...(ranges.get(file[1]) ?? []), range]);
    }
    const record = /^\| offset: (\d+) /.exec(line);
    if (record && Number(record[1]) !== range.end++) t.fail(`offset ${record[1]}, expected ${range.end - 1}`);
  }
  for (const [folder, segments] of ranges) {
    segments.sort((a, b) => a.first - b.first);
    segments.slice(1).forEach(({ first }, index) => t.is(first, segments[index].end, folder));
  }
  const indexes = await filesOf('.index', '.timeindex');
  await dump(t, indexes, '--index-sanity-check');
  await dump(t, indexes, '--verify-index-only');
  // Prints each entry, after comparing it with the log.
  t.regex(await dump(t, indexes), /offset: \d+ position: \d+[^]*timestamp: \d+ offset: \d+/);
  const snapshots = await filesOf('.snapshot');
  t.regex(
    await dump(t, snapshots),
    /producerId: \d+ producerEpoch: 0 coordinatorEpoch: -1 currentTxnFirstOffset: OptionalLong.empty/,
  );
}

define('after load with every codec, rolls, retention and deleted records', async (t) => {
  for (const words of [
    // The load of the kills catches up on what it could not send meanwhile: without a bound the dumps outgrow the heap.
    '--topic load --partitions 3 --config retention.bytes=8388608',
    '--topic short --config retention.bytes=2097152',
    '--topic trimmed --config index.interval.bytes=100',
    '--topic aged --config retention.ms=60000 --config segment.ms=100',
  ]) {
    t.is((await tool('TopicCommand', `--create ${words}`)).code, 0);
  }
  for (const codec of ['none', 'gzip', 'snappy', 'lz4', 'zstd']) await load('load', 4000, 500, codec);
  await load('short', 8000, 1000);
  await load('trimmed', 5000, 500);
  const request = join(dataDir, 'delete-records.json');
  await writeFile(
    request,
    JSON.stringify({ version: 1, partitions: [{ topic: 'trimmed', partition: 0, offset: 2777 }] }),
  );
  t.regex((await tool('DeleteRecordsCommand', `--offset-json-file ${request}`)).out, /low_watermark: 2777/);
  // Timestamps that go back and forth, and rolls by age.
  for (const timestamp of ['1', '5', '3', '9']) {
    await tool('VerifiableProducer', `--topic aged --max-messages 50 --message-create-time ${timestamp}`);
  }
  for (const group of ['readers', 'others']) {
    const words = `--topic load --group-id ${group} --max-messages 20000 --reset-policy earliest`;
    t.is((await tool('VerifiableConsumer', words)).code, 0);
  }
  let start = 0;
  while (start === 0) {
    start = Number((await tool('GetOffsetShell', '--topic short --time earliest')).out.trim().split(':')[2]);
  }
  await broker.end('SIGTERM');
  t.true((await filesOf('.log')).length > 12);
  await judge(t);
});

define('after kill -9 under load and recovery, again and again', async (t) => {
  await broker.start();
  const running = [await startLoad('load', 'lz4'), await startLoad('short', 'none')];
  for (let kill = 0; kill < KILLS; kill++) {
    // Three reports more than before from each: they go on by themselves, with the sequence numbers they had.
    const reports = await Promise.all(
      running.map(async (one) => (await one.prints(/records sent/)).split('\n').length),
    );
    const more = (count: number): RegExp => new RegExp(`^(?:.*\\n){${count + 3}}`);
    await Promise.all(running.map(async (one, index) => one.prints(more(reports[index]))));
    await broker.restart('SIGKILL');
    await broker.end('SIGTERM');
    await judge(t);
    await broker.start();
  }
});

define('the records of __consumer_offsets are those of Kafka', async (t) => {
  await broker.end('SIGTERM');
  const files = (await filesOf('.log')).filter((file) => file.includes('__consumer_offsets-'));
  const out = await dump(t, files, '--offsets-decoder', '--deep-iteration');
  for (const group of ['readers', 'others']) {
    for (const partition of [0, 1, 2]) {
      t.regex(out, new RegExp(`"group":"${group}","topic":"load","partition":${partition}.*"offset":\\d+`));
    }
    t.regex(out, new RegExp(`"type":"2","data":\\{"group":"${group}"\\}.*"protocolType":"consumer"`));
  }
});
