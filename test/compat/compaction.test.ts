/** Compacted topics, as clients and Apache Kafka's tools see them. */
import { mkdtemp, readdir, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import test from 'ava';
import { Kafka, logLevel } from 'kafkajs';
import { BrokerProcess } from './broker-process.ts';
import { findToolJars, JavaTools } from './java-tools.ts';

const jars = findToolJars();
const TOPIC = 'compacted';
let dataDir: string;
let broker: BrokerProcess;
let tools: JavaTools | undefined;
/** What was sent: offset by key, and the value (null: a tombstone). */
const newest = new Map<string, { offset: string; value: string | null }>();
let endOffset = 0;

test.before(async () => {
  dataDir = await mkdtemp(join(tmpdir(), 'millrace-compaction-'));
  if (jars) tools = new JavaTools(jars);
  broker = new BrokerProcess(dataDir, {
    'log.cleaner.backoff.ms': 100,
    'log.segment.delete.delay.ms': 0,
    'log.index.interval.bytes': 1024,
    // So that consumers read from the files.
    'log.tail.cache.bytes': 4 * 1024 * 1024,
  });
  await broker.start();
});
test.after.always(async () => {
  await tools?.close();
  await broker?.close();
  await rm(dataDir, { recursive: true, force: true });
});

const kafka = (): Kafka =>
  new Kafka({ brokers: [broker.bootstrap], logLevel: logLevel.NOTHING, retry: { retries: 8 } });

async function send(): Promise<void> {
  const producers = [kafka().producer({ idempotent: true, maxInFlightRequests: 1 }), kafka().producer()];
  for (const producer of producers) await producer.connect();
  for (let round = 0; round < 60; round++) {
    const messages = Array.from({ length: 100 }, (_, index) => {
      const key = `key ${(round * 37 + index * 7) % 250}`;
      return { key, value: index % 10 === 3 ? null : `${round}/${index} `.padEnd(700, String(index)) };
    });
    const acks = round < 5 ? producers[0] : producers[1];
    const [{ baseOffset }] = await acks.send({ topic: TOPIC, messages });
    messages.forEach(({ key, value }, index) => newest.set(key, { offset: `${Number(baseOffset) + index}`, value }));
    endOffset = Number(baseOffset) + messages.length;
  }
  for (const producer of producers) await producer.disconnect();
}

/** Everything that a new consumer group reads. */
async function readAll(groupId: string): Promise<{ offset: string; key: string; value: string | null }[]> {
  const consumer = kafka().consumer({ groupId });
  await consumer.connect();
  await consumer.subscribe({ topics: [TOPIC], fromBeginning: true });
  const records: { offset: string; key: string; value: string | null }[] = [];
  await new Promise<void>((resolve, reject) => {
    consumer
      .run({
        eachMessage: async ({ message: { offset, key, value } }) => {
          records.push({ offset, key: String(key), value: value === null ? null : String(value) });
          if (Number(offset) >= endOffset - 1) resolve();
        },
      })
      .catch(reject);
  });
  await consumer.disconnect();
  return records;
}

/** Waits until all but the active segment is compacted. */
async function compacted(): Promise<number> {
  const folder = join(dataDir, `${TOPIC}-0`);
  for (;;) {
    const logs = (await readdir(folder)).filter((name) => name.endsWith('.log'));
    const active = Number(logs[logs.length - 1].slice(0, 20));
    const text = await readFile(join(dataDir, 'cleaner-offset-checkpoint'), 'latin1').catch(() => '');
    if (active > 0 && text === `0\n1\n${TOPIC} 0 ${active}\n`) return active;
    await delay(50);
  }
}

test.serial('kafkajs reads the newest value of each key, at its offset', async (t) => {
  const admin = kafka().admin();
  await admin.connect();
  const configEntries = [
    { name: 'cleanup.policy', value: 'compact' },
    { name: 'segment.bytes', value: '1048576' },
    { name: 'min.cleanable.dirty.ratio', value: '0.01' },
  ];
  await admin.createTopics({ topics: [{ topic: TOPIC, configEntries }] });
  await admin.disconnect();
  await send();
  const active = await compacted();
  // Nothing is in memory any more.
  await broker.restart('SIGTERM');
  const records = await readAll('first');
  const last = new Map(records.map(({ offset, key, value }) => [key, { offset, value }]));
  t.deepEqual(byKey(last), byKey(newest));
  t.true(records.length < 250 + (endOffset - active) + 1);
  t.true(active > endOffset / 2);
  const offsets = records.map(({ offset }) => Number(offset));
  t.deepEqual(
    offsets,
    [...offsets].sort((a, b) => a - b),
  );
});

test.serial('after kill -9 right after more was compacted', async (t) => {
  await send();
  await compacted();
  await broker.restart('SIGKILL');
  const records = await readAll('second');
  const last = new Map(records.map(({ offset, key, value }) => [key, { offset, value }]));
  t.deepEqual(byKey(last), byKey(newest));
});

if (jars) {
  test.serial('Java consumers read the same', async (t) => {
    if (tools === undefined) return t.fail();
    const words = `--topic ${TOPIC} --from-beginning --timeout-ms 5000 --formatter-property print.key=true --formatter-property print.offset=true --formatter-property print.value=false`;
    const { out, err } = await tools.run('consumer.ConsoleConsumer', [
      '--bootstrap-server',
      broker.bootstrap,
      ...words.split(' '),
    ]);
    const last = new Map([...out.matchAll(/^Offset:(\d+)\t(key \d+)$/gm)].map(([, offset, key]) => [key, offset]));
    t.deepEqual(
      byKey(last),
      byKey(new Map([...newest].map(([key, { offset }]): [string, string] => [key, offset]))),
      err,
    );
  });

  test.serial("Kafka's DumpLogSegments reads rewritten segments without complaint", async (t) => {
    if (tools === undefined) return t.fail();
    await broker.end('SIGTERM');
    const folder = join(dataDir, `${TOPIC}-0`);
    const names = await readdir(folder);
    t.deepEqual(
      names.filter((name) => /cleaned|swap|deleted/.test(name)),
      [],
    );
    const files = (ending: string): string[] =>
      names.filter((name) => name.endsWith(ending)).map((name) => join(folder, name));
    for (const args of [
      [...files('.log').flatMap((file) => file), '--deep-iteration', '--print-data-log'],
      [...files('index'), '--index-sanity-check'],
      [...files('index'), '--verify-index-only'],
      files('index'),
    ]) {
      const paths = args.filter((arg) => !arg.startsWith('--'));
      const flags = args.filter((arg) => arg.startsWith('--'));
      const { code, out, err } = await tools.run('DumpLogSegments', ['--files', paths.join(','), ...flags]);
      t.is(code, 0, err);
      // Of any segment but a first one it compares the first offset with -1; gaps between batches are said of Kafka's, too.
      const rest = err.replace(/^Non-consecutive offsets in .*\n(?: {2}-?\d+ is followed by \d+\n)+/gm, '');
      t.is(rest, '');
      const complaints = out
        .split('\n')
        .filter((line) => /mismatch|not found|out of order|invalid|isvalid: false|corrupt|exception|error/i.test(line))
        .filter((line) => !line.startsWith('|'));
      t.deepEqual(complaints.slice(0, 5), []);
      if (flags.includes('--deep-iteration')) {
        t.regex(out, /deleteHorizonMs: OptionalLong\[\d+\]/);
        t.regex(out, /count: 0 /);
      }
    }
  });
}

/** In one order, so that two can be compared. */
function byKey<Value>(values: ReadonlyMap<string, Value>): [string, Value][] {
  return [...values].sort(([a], [b]) => (a < b ? -1 : 1));
}
