/**
 * Queues of a whole broker without a socket: what a backlog, a restart, delays and a chain of dead letters cost with log,
 * registry and disk. By hand, each step in a process of its own, so that a kill is one:
 *
 *     node dist/bench/micro/queues.js [CASE …] [--scale 0.1] [--folder PATH]
 */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { monitorEventLoopDelay } from 'node:perf_hooks';
import { parseArgs } from 'node:util';
import { AttributeFiles } from '../../broker/attribute-files.ts';
import { resolveOptions } from '../../broker/config.ts';
import { type EmbeddedEngine, openEmbeddedEngine } from '../../broker/embedded-engine.ts';
import type { Acquisition } from '../../broker/queue.ts';
import type { Consumer } from '../../broker/queue-consumer.ts';
import { QueueReader } from '../../broker/queue-reader.ts';
import { type Queue, QueueRegistry } from '../../broker/queues.ts';
import { TopicRegistry } from '../../broker/topics.ts';
import { buildBatch, type RecordInit } from '../../protocol/record-batch.ts';
import { systemClock, systemRandom } from '../../storage/clock.ts';
import { loadNative } from '../../storage/native.ts';
import { NodeDisk } from '../../storage/node-disk.ts';

const MILLION = 1_000_000;
const GROUPS = 99_999;
const BATCH_RECORDS = 500;
const DAY_MS = 86_400_000;
/** Messages received for one figure. */
const WORK = 200_000;

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { scale: { type: 'string', default: '1' }, folder: { type: 'string', default: tmpdir() } },
});
const scale = Number(values.scale);

interface World {
  readonly engine: EmbeddedEngine;
  readonly queues: QueueRegistry;
  readonly openMs: number;
}

async function open(folder: string): Promise<World> {
  await loadNative();
  const started = performance.now();
  const disk = new NodeDisk();
  const options = resolveOptions({});
  const parts = { clock: systemClock, random: systemRandom, options };
  const report = (message: string, error: unknown): void => console.error(message, error);
  const engine = await openEmbeddedEngine({ ...parts, disk, dataDir: folder, warn: (line) => console.error(line) });
  const topics = new TopicRegistry({ ...parts, engine });
  await topics.load();
  const queues = new QueueRegistry({
    ...parts,
    engine,
    topics,
    reader: new QueueReader({
      openBytesMax: options['queue.open.batches.bytes'],
      decompressedBytesMax: options['decompressed.bytes.max'],
    }),
    attributeFiles: await AttributeFiles.open({ disk, dataDir: folder, report }),
    topicDeleted: () => {},
    report,
  });
  await queues.load();
  return { engine, queues, openMs: performance.now() - started };
}

function queueOf({ queues }: World, name = 'work', settings: Record<string, string> = {}): Queue {
  const known = queues.get(name);
  if (known !== undefined) return known;
  return queues.declare({
    name,
    kind: 'owned',
    settings: new Map(Object.entries(settings)),
    family: 'millrace',
  });
}

type Make = (index: number) => Pick<RecordInit, 'key' | 'headers'>;

async function publish({ engine, queues }: World, queue: Queue, count: number, make: Make): Promise<void> {
  const [log] = queue.topic.partitions;
  await log.prepare();
  const value = Buffer.alloc(60, 'x');
  for (let sent = 0; sent < count; ) {
    const size = Math.min(BATCH_RECORDS, count - sent);
    const timestamp = Date.now();
    const records = Array.from({ length: size }, (_, at) => ({ value, timestamp, ...make(sent + at) }));
    const batch = buildBatch(records);
    const intake = queues.intake(queue.topic.id);
    const pending = intake?.check(log, batch, 'kafka');
    const appended = log.append(batch, { origin: 'client', urgency: 'waited' });
    if (pending !== undefined) intake?.appended(log, pending, appended);
    sent += size;
    if (sent < count && engine.hasRoom && (sent / BATCH_RECORDS) % 8 !== 0) continue;
    await new Promise<void>((resolve) => engine.whenDurable(appended.position, resolve));
    if (!engine.hasRoom) await new Promise<void>((resolve) => engine.whenRoom(resolve));
  }
}

const plain: Make = () => ({ key: null });
const header = (name: string, text: string | number) => ({
  key: null,
  headers: [{ key: name, value: Buffer.from(String(text)) }],
});

/** Resolves when every message of the queue is known. */
async function ready(queue: Queue): Promise<void> {
  while (!queue.partitions().every(({ isReady }) => isReady)) await new Promise((resolve) => setTimeout(resolve, 1));
}

function report(name: string, figures: Readonly<Record<string, number>>): void {
  const texts = Object.entries(figures).map(([what, value]) => {
    return `${what} ${value >= 1000 ? Math.round(value).toLocaleString('en') : value.toPrecision(3)}`;
  });
  console.log(`${name}: ${texts.join(', ')}`);
}

const rssMb = (): number => process.memoryUsage.rss() / 1e6;

interface Received {
  readonly offset: number;
  readonly notBeforeMs: number;
}

/** A consumer that is always given credit; `onMessages` answers what to settle is up to the caller. */
class Taker {
  readonly consumer: Consumer;
  received = 0;
  #waiting: { count: number; resolve: () => void } | undefined;

  constructor(
    { queues }: World,
    queue: Queue,
    credit: number,
    onMessages: (messages: readonly Received[], taker: Taker) => void,
  ) {
    const take = async (acquisition: Acquisition): Promise<void> => {
      const log = queue.topic.partitions[acquisition.partition];
      const { records } = await queues.reader.records(log, acquisition.runs);
      this.received += records.length;
      const messages = records.map(({ offset, headers }) => {
        const due = headers.find(({ key }) => key === 'millrace.not.before.ms');
        return { offset, notBeforeMs: due?.value === undefined ? 0 : Number(due.value) };
      });
      onMessages(messages, this);
      if (this.#waiting !== undefined && this.received >= this.#waiting.count) this.#waiting.resolve();
    };
    this.consumer = queues.consumer({
      door: 'amqp',
      lockMs: 'connection',
      onAcquired: (_, acquisition) => queues.whenLeased(acquisition, () => void take(acquisition)),
    });
    this.consumer.join(queue);
    this.consumer.want({ messages: credit });
  }

  until(count: number): Promise<void> {
    if (this.received >= count) return Promise.resolve();
    return new Promise((resolve) => {
      this.#waiting = { count, resolve };
    });
  }
}

// ------------------------------------------------------------------ a backlog

const makes: Readonly<Record<string, Make>> = {
  plain,
  groups: (index) => ({ key: Buffer.from(`group-${index % GROUPS}`) }),
  'one-group': (index) => ({ key: index % 1000 < 216 ? Buffer.from('the group') : null }),
};
/** What is sent in the place of what was accepted: to groups that nobody holds. */
let sentAgain = 0;
const refills: Readonly<Record<string, Make>> = {
  plain,
  groups: () => ({ key: Buffer.from(`group-${(Math.floor(sentAgain++ / 2) * 3 + 1 + (sentAgain % 2)) % GROUPS}`) }),
  'one-group': plain,
};
const isHeld: Readonly<Record<string, (offset: number, waiting: number) => boolean>> = {
  plain: () => false,
  groups: (offset, waiting) => offset < Math.min(GROUPS, waiting) && offset % 3 === 0,
  'one-group': (offset) => offset === 0,
};

async function fillBacklog(folder: string, kind: string, size: number): Promise<void> {
  const world = await open(folder);
  const queue = queueOf(world, 'work', kind === 'plain' ? {} : { ordered: 'true' });
  await publish(world, queue, size, makes[kind]);
  await new Promise<void>((resolve) => world.queues.whenDurable(resolve));
  process.kill(process.pid, 'SIGKILL');
}

/** Takes and settles in random order: nine of ten are accepted, one is given back. What was accepted is sent anew. */
async function receive(folder: string, kind: string, size: number, isFirst: boolean): Promise<void> {
  const world = await open(folder);
  const queue = queueOf(world);
  const delay = monitorEventLoopDelay({ resolution: 5 });
  delay.enable();
  const started = performance.now();
  await ready(queue);
  const readyMs = performance.now() - started;
  const longestMs = delay.max / 1e6;
  let random = 7;
  const next = (below: number): number => {
    random = (Math.imul(random, 1_664_525) + 1_013_904_223) >>> 0;
    return Math.floor((random / 2 ** 32) * below);
  };
  const held: number[] = [];
  let kept = 0;
  let accepted = 0;
  /** In no order. */
  const settle = (self: Taker, messages: number): void => {
    for (let count = messages; count > 0; count--) {
      const at = next(held.length);
      const offset = held[at];
      held[at] = held[held.length - 1];
      held.pop();
      const isReleased = next(10) === 0;
      const settled = isReleased ? ('release' as const) : ('accept' as const);
      queue.settle(self.consumer, 0, [{ firstOffset: offset, lastOffset: offset, kind: settled, isFailure: false }]);
      if (!isReleased) accepted++;
    }
    self.consumer.want({ messages: 1000 - held.length });
  };
  const taker = new Taker(world, queue, 1000, (messages, self) => {
    for (const { offset } of messages) {
      if (isFirst && isHeld[kind](offset, size)) kept++;
      else held.push(offset);
    }
    settle(self, held.length >> 1);
  });
  const priming = isFirst && kind === 'groups' ? Math.min(GROUPS, size) : 20_000;
  const refill = async (): Promise<void> => {
    // Of an almost empty queue everything is sent anew as soon as it is short of messages, of others as much at a time.
    const isShort = queue.counts().ready <= 100;
    if (!isShort && (size < WORK || accepted < BATCH_RECORDS)) return;
    if (isShort) settle(taker, held.length);
    const count = accepted;
    accepted = 0;
    await publish(world, queue, count, refills[kind]);
  };
  const work = async (count: number): Promise<void> => {
    const to = taker.received + count;
    while (taker.received < to) {
      await Promise.race([taker.until(to), new Promise((resolve) => setImmediate(resolve))]);
      await refill();
    }
  };
  const cpu = process.cpuUsage();
  if (isFirst) await work(priming);
  const rates: number[] = [];
  for (let round = 0; round < (isFirst ? 3 : 1); round++) {
    const from = performance.now();
    const before = taker.received;
    await work(WORK);
    rates.push((taker.received - before) / ((performance.now() - from) / 1000));
  }
  const { user, system } = process.cpuUsage(cpu);
  report(`${kind}, ${size} waiting${isFirst ? '' : ', right after a restart'}`, {
    'ready ms': world.openMs + readyMs,
    'longest turn ms': longestMs,
    'messages/s': rates.toSorted((a, b) => a - b)[rates.length >> 1],
    'CPU us a message': (user + system) / taker.received,
    held: kept,
    'RSS MB': rssMb(),
  });
  process.kill(process.pid, 'SIGKILL');
}

// ------------------------------------------------------------------ delays

async function fillDelayed(folder: string, count: number, isDelayed: boolean): Promise<void> {
  const world = await open(folder);
  const queue = queueOf(world);
  const from = Date.now() + 3_600_000;
  const started = performance.now();
  const make: Make = (index) => header('millrace.not.before.ms', from + ((index * 7919) % DAY_MS));
  const before = rssMb();
  await publish(world, queue, count, isDelayed ? make : plain);
  await ready(queue);
  report(`${count} ${isDelayed ? 'delayed' : 'plain'} messages sent`, {
    'messages/s': count / ((performance.now() - started) / 1000),
    'RSS MB': rssMb(),
    'RSS bytes a message': ((rssMb() - before) * 1e6) / count,
  });
  process.kill(process.pid, 'SIGKILL');
}

async function openDelayed(folder: string, count: number, isDelayed: boolean): Promise<void> {
  const delay = monitorEventLoopDelay({ resolution: 5 });
  delay.enable();
  const world = await open(folder);
  const queue = queueOf(world);
  const started = performance.now();
  await ready(queue);
  const counts = queue.counts();
  report(`${count} ${isDelayed ? 'delayed' : 'plain'} messages and a kill`, {
    'open ms': world.openMs,
    'then all known ms': performance.now() - started,
    'longest turn ms': delay.max / 1e6,
    delayed: counts.delayed,
    ready: counts.ready,
    'RSS MB': rssMb(),
  });
  world.queues.close();
  await world.engine.close();
}

/** How late messages arrive at a consumer that waits. */
async function late(folder: string, count: number, overMs: number): Promise<void> {
  const world = await open(folder);
  const queue = queueOf(world);
  const leadMs = 3000 + count / 100;
  const from = Date.now() + leadMs;
  await publish(world, queue, count, (index) => {
    return header('millrace.not.before.ms', from + Math.floor(((index * 7919) % count) * (overMs / count)));
  });
  const sentMs = Date.now();
  if (sentMs > from) throw new Error('sent too slowly');
  const lateness = new Float64Array(count);
  let early = 0;
  let first = 0;
  const taker = new Taker(world, queue, 1000, (messages, self) => {
    const nowMs = Date.now();
    if (first === 0) first = performance.now();
    const settlements = messages.map(({ offset, notBeforeMs }, at) => {
      lateness[self.received - messages.length + at] = nowMs - notBeforeMs;
      if (nowMs < notBeforeMs) early++;
      return { firstOffset: offset, lastOffset: offset, kind: 'accept' as const };
    });
    queue.settle(self.consumer, 0, settlements);
    self.consumer.want({ messages: 1000 });
  });
  const cpu = process.cpuUsage();
  await taker.until(count);
  const seconds = (performance.now() - first) / 1000;
  lateness.sort();
  const { user, system } = process.cpuUsage(cpu);
  report(`${count} due within ${overMs / 1000} s`, {
    'late p50 ms': lateness[count >> 1],
    'p99 ms': lateness[Math.floor(count * 0.99)],
    'max ms': lateness[count - 1],
    early,
    'messages/s': count / seconds,
    'CPU us a message': (user + system) / count,
  });
  process.kill(process.pid, 'SIGKILL');
}

/** The rate of the same consumer on messages that are not delayed. */
async function undelayed(folder: string, count: number): Promise<void> {
  const world = await open(folder);
  const queue = queueOf(world);
  await publish(world, queue, count, plain);
  await ready(queue);
  const started = performance.now();
  const taker = new Taker(world, queue, 1000, (messages, self) => {
    const accept = messages.map(({ offset }) => ({ firstOffset: offset, lastOffset: offset, kind: 'accept' as const }));
    queue.settle(self.consumer, 0, accept);
    self.consumer.want({ messages: 1000 });
  });
  await taker.until(count);
  report(`${count} that are not delayed`, { 'messages/s': count / ((performance.now() - started) / 1000) });
  process.kill(process.pid, 'SIGKILL');
}

// ------------------------------------------------------------------ dead letters

/** A message expires in five queues one after the other; the last one is looked at. */
async function chain(folder: string, count: number): Promise<void> {
  const world = await open(folder);
  const { queues } = world;
  queueOf(world, 'end');
  for (let number = 5; number >= 1; number--) {
    queueOf(world, `step${number}`, {
      'ttl.ms': '500',
      'dead.letter.queue': number === 5 ? 'end' : `step${number + 1}`,
    });
  }
  const delay = monitorEventLoopDelay({ resolution: 5 });
  delay.enable();
  const started = performance.now();
  const cpu = process.cpuUsage();
  await publish(world, queueOf(world, 'step1'), count, (index) => header('number', index));
  const sentMs = performance.now() - started;
  const end = queueOf(world, 'end');
  while (end.counts().ready < count) {
    await new Promise((resolve) => setTimeout(resolve, 10));
    if (performance.now() - started > 500_000) throw new Error(`${end.counts().ready} have arrived`);
  }
  const seconds = (performance.now() - started) / 1000;
  const { user, system } = process.cpuUsage(cpu);
  let expected = 0;
  const [log] = end.topic.partitions;
  while (expected < count) {
    const run = { firstOffset: expected, lastOffset: Math.min(count, expected + 1000) - 1 };
    const { records } = await queues.reader.records(log, [run]);
    for (const { headers } of records) {
      const number = Number(headers.find(({ key }) => key === 'number')?.value);
      if (number !== expected) throw new Error(`message ${number} is in the place of ${expected}`);
      expected++;
    }
  }
  report(`${count} through five queues, order kept`, {
    'sent in s': sentMs / 1000,
    'all there after s': seconds,
    'moves/s': (5 * count) / seconds,
    'CPU us a move': (user + system) / (5 * count),
    'longest turn ms': delay.max / 1e6,
    'RSS MB': rssMb(),
  });
  process.kill(process.pid, 'SIGKILL');
}

// ------------------------------------------------------------------ steps

type Step = (folder: string, ...rest: string[]) => Promise<void>;
const steps: Readonly<Record<string, Step>> = {
  'fill-backlog': (folder, kind, size) => fillBacklog(folder, kind, Number(size)),
  receive: (folder, kind, size) => receive(folder, kind, Number(size), true),
  'receive-again': (folder, kind, size) => receive(folder, kind, Number(size), false),
  'fill-delayed': (folder, count, kind) => fillDelayed(folder, Number(count), kind === 'delayed'),
  'open-delayed': (folder, count, kind) => openDelayed(folder, Number(count), kind === 'delayed'),
  late: (folder, count, overMs) => late(folder, Number(count), Number(overMs)),
  undelayed: (folder, count) => undelayed(folder, Number(count)),
  chain: (folder, count) => chain(folder, Number(count)),
};

const size = (count: number): string => String(Math.round(count * scale));
const backlog = (kind: string): string[][][] =>
  ['1000', size(MILLION)].map((waiting) => [
    ['fill-backlog', kind, waiting],
    ['receive', kind, waiting],
    ['receive-again', kind, waiting],
  ]);
const restart = (kind: string): string[][] => [
  ['fill-delayed', size(10 * MILLION), kind],
  ['open-delayed', size(10 * MILLION), kind],
];

/** Each list of steps in a folder of its own. */
const cases: Readonly<Record<string, string[][][]>> = {
  'backlog-plain': backlog('plain'),
  'backlog-groups': backlog('groups'),
  'backlog-one-group': backlog('one-group'),
  'restart-plain': [restart('plain')],
  'restart-delayed': [restart('delayed')],
  late: [[['late', size(MILLION), '60000']]],
  'at-once': [[['undelayed', size(MILLION)]], [['late', size(MILLION), '1000']]],
  chain: [[['chain', size(MILLION)]]],
};

const [first, ...rest] = positionals;
if (first === 'step') {
  // The timers of a broker without doors do not keep a process.
  const alive = setInterval(() => {}, 1000);
  await steps[rest[0]](rest[1], ...rest.slice(2));
  clearInterval(alive);
} else {
  for (const name of positionals.length === 0 ? Object.keys(cases) : positionals) {
    for (const list of cases[name]) {
      const folder = mkdtempSync(join(values.folder, 'millrace-queues-'));
      for (const [step, ...args] of list) {
        const command = [import.meta.filename, 'step', step, folder, ...args, '--scale', values.scale];
        spawnSync(process.execPath, command, { stdio: 'inherit' });
      }
      rmSync(folder, { recursive: true, force: true });
    }
  }
}
