/**
 * A week of earthquakes through a log: published with kafkajs, consumed by a group of three that is killed and resumed,
 * and read again from a time in the middle with `millrace cat`. Ends with an error if anything is lost or different.
 *
 * Run it with `npm run example -- earthquakes`. It starts a broker of its own on free ports, with its data in a
 * temporary folder. The data (U.S. Geological Survey, 1,707 events of 2018) come from the package vega-datasets.
 */
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { Kafka, logLevel } from 'kafkajs';
import type { Seen } from './consumer.ts';

const TOPIC = 'earthquakes';
const PARTITION_COUNT = 6;
const GROUP_SIZE = 3;
const MIDDLE = '2018-02-03T12:00:00Z';

interface Earthquake {
  readonly properties: { readonly time: number; readonly net: string; readonly title: string };
}

const cli = join(import.meta.dirname, '../../clients/cli/main.js');
const started = performance.now();
const say = (text: string) =>
  console.log(`${((performance.now() - started) / 1000).toFixed(1).padStart(5)} s  ${text}`);

const folder = await mkdtemp(join(tmpdir(), 'millrace-earthquakes-'));
const broker = await startBroker();
try {
  const earthquakes = await readEarthquakes();
  await millrace('topic', 'create', TOPIC, '--partitions', String(PARTITION_COUNT), '--config', 'retention.ms=-1');
  await publish(earthquakes);
  say(`published ${earthquakes.length} earthquakes to ${PARTITION_COUNT} partitions with kafkajs, keyed by network`);
  await consume(earthquakes);
  await readFromTheMiddle(earthquakes);
  say('nothing lost, nothing changed');
} finally {
  broker.child.kill('SIGTERM');
  await once(broker.child, 'exit');
  await rm(folder, { recursive: true, force: true });
}

async function startBroker(): Promise<{ child: ChildProcess; bootstrap: string }> {
  const address = [
    '--kafka',
    '127.0.0.1:0',
    ...['http', 'amqp', 'management', 'sqs'].flatMap((door) => [`--${door}`, 'off']),
  ];
  const child = spawn(process.execPath, [cli, 'serve', '--json', '--data-dir', join(folder, 'data'), ...address], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const { value: line } = await createInterface({ input: child.stdout })[Symbol.asyncIterator]().next();
  assert.ok(line, 'the broker did not start');
  const { doors } = JSON.parse(line);
  say(`broker on ${doors[0].host}:${doors[0].port}`);
  return { child, bootstrap: `${doors[0].host}:${doors[0].port}` };
}

/** In the order of their time, which becomes the time of their records. */
async function readEarthquakes(): Promise<Earthquake[]> {
  let up = import.meta.dirname;
  const file = 'node_modules/vega-datasets/data/earthquakes.json';
  for (;;) {
    const text = await readFile(join(up, file), 'utf8').catch(() => undefined);
    if (text)
      return JSON.parse(text).features.sort((a: Earthquake, b: Earthquake) => a.properties.time - b.properties.time);
    assert.notEqual(up, join(up, '..'), `${file} is not installed`);
    up = join(up, '..');
  }
}

async function publish(earthquakes: readonly Earthquake[]): Promise<void> {
  const kafka = new Kafka({ clientId: 'earthquakes', brokers: [broker.bootstrap], logLevel: logLevel.ERROR });
  const producer = kafka.producer({ idempotent: true });
  await producer.connect();
  for (let at = 0; at < earthquakes.length; at += 100) {
    const messages = earthquakes.slice(at, at + 100).map((earthquake) => ({
      key: earthquake.properties.net,
      value: JSON.stringify(earthquake),
      timestamp: String(earthquake.properties.time),
      headers: { title: earthquake.properties.title },
    }));
    await producer.send({ topic: TOPIC, messages, acks: -1 });
  }
  await producer.disconnect();
}

/** A group of three processes; half-way they are killed (SIGKILL) and three others go on from what was committed. */
async function consume(earthquakes: readonly Earthquake[]): Promise<void> {
  const half = Math.floor(earthquakes.length / 2);
  const first = await runGroup((seen) => seen.size >= half);
  say(`killed a group of ${GROUP_SIZE} after ${first.size} records`);
  assert.ok(first.size < earthquakes.length, 'the first group must not have seen everything');
  const all = new Map(first);
  const second = await runGroup((seen) => {
    for (const [place, checksum] of seen) {
      const before = all.get(place);
      assert.ok(before === undefined || before === checksum, `the record at ${place} changed`);
      all.set(place, checksum);
    }
    return all.size >= earthquakes.length;
  });
  const twice = first.size + second.size - all.size;
  say(`a second group went on: ${second.size} records, ${twice} of them seen before`);
  assert.ok(twice < half, 'the second group must go on from what the first one committed');
  assert.equal(all.size, earthquakes.length, 'records consumed');
  assert.equal(
    checksumOf(all.values()),
    checksumOf(earthquakes.map((earthquake) => checksum(JSON.stringify(earthquake)))),
  );
}

/** Runs a group until `isEnough`, then kills it. Answers place ("partition:offset") → checksum. */
async function runGroup(isEnough: (seen: ReadonlyMap<string, string>) => boolean): Promise<Map<string, string>> {
  const seen = new Map<string, string>();
  const members = Array.from({ length: GROUP_SIZE }, () =>
    spawn(process.execPath, [join(import.meta.dirname, 'consumer.js'), broker.bootstrap, TOPIC], {
      stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
    }),
  );
  const enough = new Promise<void>((resolve, reject) => {
    for (const member of members) {
      member.on('message', (message) => {
        const { partition, offset, checksum: sum } = message as Seen;
        seen.set(`${partition}:${offset}`, sum);
        try {
          if (isEnough(seen)) resolve();
        } catch (error) {
          reject(error);
        }
      });
      member.once('exit', (code) => reject(new Error(`a consumer ended by itself with code ${code}`)));
    }
  });
  try {
    await enough;
  } finally {
    for (const member of members) member.kill('SIGKILL');
    // What a member reported before it was killed may still be on its way.
    await Promise.all(members.map((member) => once(member, 'close')));
  }
  return seen;
}

async function readFromTheMiddle(earthquakes: readonly Earthquake[]): Promise<void> {
  const expected = earthquakes.filter(({ properties }) => properties.time >= Date.parse(MIDDLE));
  const output = await millrace('cat', TOPIC, '--from', MIDDLE, '-o', 'ndjson');
  const records: { key: string; value: string; timestamp: number }[] = output
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line));
  say(`millrace cat --from ${MIDDLE}: ${records.length} records`);
  assert.equal(records.length, expected.length, 'records from the middle');
  const sums = (values: readonly string[]) => checksumOf(values.map(checksum));
  assert.equal(sums(records.map(({ value }) => value)), sums(expected.map((earthquake) => JSON.stringify(earthquake))));
  for (const { key, value, timestamp } of records) {
    const { properties }: Earthquake = JSON.parse(value);
    assert.deepEqual([key, timestamp], [properties.net, properties.time]);
  }
}

/** Runs a command of the command line and answers what it printed. */
async function millrace(...args: string[]): Promise<string> {
  const child = spawn(process.execPath, [cli, ...args, '--bootstrap', broker.bootstrap], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const pieces: Buffer[] = [];
  child.stdout.on('data', (piece: Buffer) => pieces.push(piece));
  const [code] = await once(child, 'close');
  assert.equal(code, 0, `millrace ${args.join(' ')}`);
  return Buffer.concat(pieces).toString('utf8');
}

function checksum(text: string): string {
  return createHash('sha256').update(text).digest('hex');
}

/** The same for the same set of checksums in any order. */
function checksumOf(checksums: Iterable<string>): string {
  return checksum([...checksums].sort().join());
}
