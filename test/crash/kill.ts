/**
 * kill -9 of the real process under load, again and again, then everything that was acknowledged is looked up. The page
 * cache survives a kill, so this proves the process, not the platter: power cuts are explored in `test/sim`.
 *
 *   node dist/test/crash/kill.js [--rounds 200] [--seed N] [--flush synced|written]
 *
 * The load comes from kafkajs and, where python3 has confluent_kafka, from librdkafka: acks=all, acks=1 and idempotent
 * producers, and a committing consumer group each.
 */
import { spawn, spawnSync, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { Kafka, logLevel } from 'kafkajs';

export interface KillOptions {
  rounds: number;
  seed: number;
  flush: 'synced' | 'written';
  say: (line: string) => void;
}

export interface KillResult {
  kills: number;
  sent: number;
  committed: number;
  seen: number;
  families: string[];
  /** What is wrong, in words; empty when nothing is. */
  faults: string[];
  slowestStartMs: number;
}

const TOPIC = 'kill';
const GROUP = 'kill-group';
const here = (name: string): string => fileURLToPath(new URL(name, import.meta.url));

/** What the clients were told. */
class Ledger {
  /** `partition offset` → value, from acknowledgements and from consumers. */
  readonly values = new Map<string, string>();
  readonly committed = new Map<string, number>();
  readonly faults: string[] = [];
  sent = 0;
  seen = 0;
  commits = 0;

  note(line: string): void {
    const [kind, partition, offset, value] = line.split(' ');
    if (kind === 'sent' || kind === 'seen') {
      if (kind === 'sent') this.sent++;
      else this.seen++;
      const key = `${partition} ${offset}`;
      const before = this.values.get(key);
      if (before !== undefined && before !== value)
        this.faults.push(`${kind} ${value} at ${key}, where ${before} was before`);
      this.values.set(key, value);
    } else if (kind === 'committed' || kind === 'committed-rd') {
      this.commits++;
      const key = `${kind === 'committed' ? GROUP : `${GROUP}-rd`} ${partition}`;
      this.committed.set(key, Math.max(this.committed.get(key) ?? 0, Number(offset)));
    }
  }
}

export class BrokerProcess {
  readonly #config: object;
  readonly #door: string;
  #child: ChildProcess | undefined;
  slowestStartMs = 0;
  port = 0;
  stderr = '';

  constructor(config: object, door = 'kafka') {
    this.#config = config;
    this.#door = door;
  }

  async start(): Promise<void> {
    const config = { ...this.#config, doors: { [this.#door]: { host: '127.0.0.1', port: this.port } } };
    const started = performance.now();
    const child = spawn(process.execPath, [here('serve.js'), JSON.stringify(config)], {
      stdio: ['ignore', 'pipe', 'pipe'],
      env: { ...process.env, UV_THREADPOOL_SIZE: '16' },
    });
    this.#child = child;
    child.stderr.on('data', (chunk: Buffer) => {
      this.stderr = (this.stderr + chunk).slice(-10_000);
    });
    const ready = new Promise<void>((resolve) => {
      createInterface(child.stdout).on('line', (line) => {
        if (!line.startsWith('ready ')) return;
        this.port = Number(line.slice(6));
        resolve();
      });
    });
    const ended = once(child, 'exit').then(([code]) => {
      throw new Error(`the broker ended with ${code} before it was ready:\n${this.stderr}`);
    });
    await Promise.race([ready, ended]);
    ended.catch(() => {});
    this.slowestStartMs = Math.max(this.slowestStartMs, performance.now() - started);
  }

  async end(signal: 'SIGKILL' | 'SIGTERM'): Promise<void> {
    const child = this.#child;
    if (!child || child.exitCode !== null || child.signalCode !== null)
      throw new Error(`the broker had ended by itself:\n${this.stderr}`);
    const exit = once(child, 'exit');
    child.kill(signal);
    await exit;
  }
}

export async function killRepeatedly({ rounds, seed, flush, say }: KillOptions): Promise<KillResult> {
  const dataDir = await mkdtemp(join(tmpdir(), 'millrace-kill-'));
  // Small files, so that kills meet rolls, checkpoints and reused journal files.
  const options = {
    'log.flush': flush,
    'journal.file.bytes': 1024 * 1024,
    'journal.checkpoint.bytes': 1024 * 1024,
    'log.segment.bytes': 1024 * 1024,
    'log.disk.reserve.bytes': 0,
  };
  const broker = new BrokerProcess({ dataDir, options });
  await broker.start();
  const bootstrap = `127.0.0.1:${broker.port}`;
  const kafka = new Kafka({ clientId: 'judge', brokers: [bootstrap], logLevel: logLevel.NOTHING });
  const admin = kafka.admin();
  await admin.connect();
  await admin.createTopics({ topics: [{ topic: TOPIC, numPartitions: 6 }] });
  await admin.disconnect();

  const ledger = new Ledger();
  const workers = startWorkers(bootstrap, ledger);
  const random = dice(seed);
  for (let round = 1; round <= rounds; round++) {
    await pause(100 + random() * 900);
    await broker.end('SIGKILL');
    await broker.start();
    if (round % 20 === 0)
      say(`${round} kills, ${ledger.sent} acknowledged, ${ledger.commits} commits, ${ledger.faults.length} faults`);
  }
  await pause(1500);
  await Promise.all(workers.map(({ child }) => stopWorker(child)));
  await broker.end('SIGKILL');
  await broker.start();
  await judge(kafka, ledger);
  await broker.end('SIGTERM');
  // Evidence stays.
  if (ledger.faults.length === 0) await rm(dataDir, { recursive: true, force: true });
  else say(`data folder kept: ${dataDir}`);
  return {
    kills: rounds,
    sent: ledger.sent,
    committed: ledger.commits,
    seen: ledger.seen,
    families: workers.map(({ name }) => name),
    faults: ledger.faults,
    slowestStartMs: Math.round(broker.slowestStartMs),
  };
}

function startWorkers(bootstrap: string, ledger: Ledger): { name: string; child: ChildProcess }[] {
  const workers = [{ name: 'kafkajs', command: process.execPath, script: here('worker-kafkajs.js') }];
  if (spawnSync('python3', ['-c', 'import confluent_kafka']).status === 0) {
    // Python is not compiled: the script lies beside the source.
    const script = here('worker-librdkafka.py').replace(/[/\\](?:dist|\.build[/\\][^/\\]+)[/\\]/, '/');
    workers.push({ name: 'librdkafka', command: 'python3', script });
  }
  return workers.map(({ name, command, script }) => {
    const child = spawn(command, [script, bootstrap, TOPIC, GROUP], { stdio: ['pipe', 'pipe', 'ignore'] });
    createInterface(child.stdout).on('line', (line) => ledger.note(line));
    return { name, child };
  });
}

async function stopWorker(child: ChildProcess): Promise<void> {
  const exit = child.exitCode === null ? once(child, 'exit') : undefined;
  child.stdin?.end();
  const timer = setTimeout(() => child.kill('SIGKILL'), 20_000);
  await exit;
  clearTimeout(timer);
}

/** Reads the whole topic and all committed offsets and compares them with what the clients were told. */
async function judge(kafka: Kafka, ledger: Ledger): Promise<void> {
  const admin = kafka.admin();
  await admin.connect();
  const ends = new Map((await admin.fetchTopicOffsets(TOPIC)).map(({ partition, high }) => [partition, Number(high)]));
  const total = [...ends.values()].reduce((sum, end) => sum + end, 0);
  for (const groupId of [GROUP, `${GROUP}-rd`]) {
    const [answer] = await admin.fetchOffsets({ groupId, topics: [TOPIC] });
    for (const { partition, offset } of answer?.partitions ?? []) {
      const told = ledger.committed.get(`${groupId} ${partition}`);
      if (told !== undefined && Number(offset) < told)
        ledger.faults.push(`${groupId} is at ${offset} of partition ${partition}, ${told} was acknowledged`);
    }
  }
  await admin.disconnect();

  const found = new Map<string, string>();
  const next = new Map<number, number>();
  const idempotent = new Map<string, string>();
  const consumer = kafka.consumer({ groupId: `judge-${process.pid}`, maxWaitTimeInMs: 100 });
  await consumer.connect();
  await consumer.subscribe({ topic: TOPIC, fromBeginning: true });
  await new Promise<void>((resolve, reject) => {
    if (total === 0) resolve();
    consumer
      .run({
        eachBatch: async ({ batch }) => {
          for (const { offset, value } of batch.messages) {
            const expected = next.get(batch.partition) ?? 0;
            if (Number(offset) !== expected)
              ledger.faults.push(`offset ${offset} after ${expected - 1} in partition ${batch.partition}`);
            next.set(batch.partition, Number(offset) + 1);
            const text = String(value);
            found.set(`${batch.partition} ${offset}`, text);
            if (!text.includes('-idem/')) continue;
            const first = idempotent.get(text);
            if (first) ledger.faults.push(`${text} is there twice: at ${first} and ${batch.partition} ${offset}`);
            idempotent.set(text, `${batch.partition} ${offset}`);
          }
          if (found.size >= total) resolve();
        },
      })
      .catch(reject);
  });
  await consumer.disconnect();
  for (const [key, value] of ledger.values) {
    const stored = found.get(key);
    if (stored !== value)
      ledger.faults.push(`${value} was acknowledged or read at ${key}; there is ${stored ?? 'nothing'}`);
  }
}

/** Mulberry32: the same kills for the same seed, as far as a real process can repeat them. */
export function dice(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4_294_967_296;
  };
}

export const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const option = (name: string, fallback: string): string => {
    const at = process.argv.indexOf(`--${name}`);
    return at < 0 ? fallback : process.argv[at + 1];
  };
  const result = await killRepeatedly({
    rounds: Number(option('rounds', '200')),
    seed: Number(option('seed', '1')),
    flush: option('flush', 'synced') === 'written' ? 'written' : 'synced',
    say: (line) => console.log(line),
  });
  for (const fault of result.faults.slice(0, 20)) console.log(`FAULT ${fault}`);
  console.log(JSON.stringify({ ...result, faults: result.faults.length }));
  process.exit(result.faults.length === 0 ? 0 : 1);
}
