/**
 * AMQP: PerfTest and amqplib drive Millrace and RabbitMQ in turn, each case on queues of its own. A message counts when it
 * was delivered (or confirmed, where nobody consumes); CPU is the broker's, by message.
 */
import { once } from 'node:events';
import fs from 'node:fs';
import path from 'node:path';
import { Worker } from 'node:worker_threads';
import amqp, { type Options } from 'amqplib';
import { type Context, rotated } from '../context.ts';
import { nowUs } from '../machine.ts';
import { type PerfTestFigures, perfTest } from '../peers/rabbitmq/perf-test.ts';
import { type Figures, median } from '../results.ts';
import type { AmqpTarget } from '../target.ts';

interface Case {
  readonly name: string;
  /** PerfTest's arguments beside the queue's name; undefined: amqplib. */
  readonly args?: readonly string[];
  /** Nobody consumes. */
  readonly isPublishOnly?: boolean;
  /** Many queues: their number instead of one. */
  readonly queues?: number;
  /** Messages a second; the figures are latencies. */
  readonly isFixedRate?: boolean;
}

const PERSISTENT = ['--flag', 'persistent', '--size', '1000'];
const TAKING = ['--qos', '200'];
const CLASSIC = [...PERSISTENT, ...TAKING, '--auto-delete', 'false'];
const QUORUM = [...PERSISTENT, ...TAKING, '--quorum-queue'];

export const AMQP_CASES: readonly Case[] = [
  { name: 'classic, 100 confirms', args: [...CLASSIC, '--confirm', '100'] },
  { name: 'classic, 1000 confirms', args: [...CLASSIC, '--confirm', '1000'] },
  { name: 'quorum, 100 confirms', args: [...QUORUM, '--confirm', '100'] },
  { name: 'quorum, 1000 confirms', args: [...QUORUM, '--confirm', '1000'] },
  {
    name: 'publish only',
    args: [...PERSISTENT, '--auto-delete', 'false', '--confirm', '1000', '--consumers', '0'],
    isPublishOnly: true,
  },
  { name: 'transient', args: ['--size', '100', '--autoack'] },
  {
    name: '4:4 on 4 queues',
    args: [...CLASSIC, '--confirm', '100', '--producers', '4', '--consumers', '4'],
    queues: 4,
  },
  // PerfTest needs thousands of threads for as many queues.
  { name: '1000 queues', queues: 1000 },
  { name: 'stream', args: [...PERSISTENT, ...TAKING, '--stream-queue', '--confirm', '1000'] },
  { name: 'amqplib, window of 1000' },
  { name: '1000/s', args: [...CLASSIC, '--confirm', '100', '--rate', '1000'], isFixedRate: true },
];

const SECONDS = 30;
const WARM_SECONDS = 6;
const WINDOW = 1000;
const PREFETCH = 200;
const BODY_BYTES = 1000;
const SYNC_SAMPLES = 300;

/** `names`: only cases that contain one of them. */
export async function amqpSection(context: Context, jars: string, names: readonly string[]): Promise<void> {
  const cases = AMQP_CASES.filter(({ name }) => names.length === 0 || names.some((each) => name.includes(each)));
  console.log(syncText(context.dataDir));
  for (const each of cases) {
    const peer = await context.rabbitMq();
    const targets = [...(peer ? [peer] : []), await context.synced()];
    for (let round = 0; round <= context.rounds; round++) {
      for (const target of rotated(targets, round)) {
        const seconds = (round === 0 ? WARM_SECONDS : SECONDS) / (context.isQuick ? 3 : 1);
        const figures = await measured(context, jars, target, each, seconds);
        if (round > 0) context.record({ section: 'f', case: each.name, target: target.name, round }, figures);
      }
    }
  }
}

async function measured(
  context: Context,
  jars: string,
  target: AmqpTarget,
  { name, args, isPublishOnly = false, isFixedRate = false, queues = 1 }: Case,
  seconds: number,
): Promise<Figures> {
  const queue = context.fresh('bench');
  const names = queues === 1 ? [queue] : Array.from({ length: queues }, (_, index) => `${queue}-${index + 1}`);
  // What was measured is known afterwards: the cost of one message is worked out then.
  let messages = 1;
  const cost = await context.cost(target, 1, async () => {
    if (args === undefined) {
      const found = await amqplibWindow(target.amqpPort, names, seconds);
      messages = found.recordsPerSecond * seconds;
      return found;
    }
    const queueArgs =
      queues === 1
        ? ['--queue', queue]
        : ['--queue-pattern', `${queue}-%d`, '--queue-pattern-from', '1', '--queue-pattern-to', `${queues}`];
    const found = await perfTest(jars, { port: target.amqpPort, seconds, args: [...args, ...queueArgs] });
    messages = (isPublishOnly ? found.sent : found.received) * seconds;
    if (messages === 0) throw new Error(`${name}: PerfTest has told no rate`);
    return figuresOf(found, { isPublishOnly, isFixedRate });
  });
  await dropped(target.amqpPort, names);
  return { ...cost, cpuSecondsPerMillion: Math.round(((cost.cpuSecondsPerMillion ?? 0) / messages) * 1000) / 1000 };
}

function figuresOf(
  { sent, received, confirmP50Us, confirmP99Us, endP99Us }: PerfTestFigures,
  { isPublishOnly, isFixedRate }: { isPublishOnly: boolean; isFixedRate: boolean },
): Figures {
  return {
    ...(isFixedRate ? {} : { recordsPerSecond: isPublishOnly ? sent : received }),
    ...(confirmP50Us === undefined ? {} : { p50Us: confirmP50Us }),
    ...(confirmP99Us === undefined ? {} : { p99Us: confirmP99Us }),
    ...(isFixedRate && endP99Us !== undefined ? { endP99Us } : {}),
  };
}

async function dropped(port: number, queues: readonly string[]): Promise<void> {
  const connection = await amqp.connect(`amqp://guest:guest@127.0.0.1:${port}`);
  const channel = await connection.createChannel();
  for (const queue of queues) await channel.deleteQueue(queue);
  await connection.close();
}

/**
 * amqplib publishes to the queues in turn, with at most 1,000 confirms outstanding, and consumes what it has published in a thread of its own
 * (`amqp-consumer.ts`), so that the client is not the limit.
 */
async function amqplibWindow(
  port: number,
  queues: readonly string[],
  seconds: number,
): Promise<{ recordsPerSecond: number }> {
  const url = `amqp://guest:guest@127.0.0.1:${port}`;
  const connection = await amqp.connect(url);
  const channel = await connection.createConfirmChannel();
  for (const queue of queues) await channel.assertQueue(queue);
  const consumer = new Worker(new URL('./amqp-consumer.js', import.meta.url), {
    workerData: { url, queues, PREFETCH },
  });
  await once(consumer, 'message');
  const body = Buffer.alloc(BODY_BYTES, 'x');
  const options: Options.Publish = { persistent: true };
  const startUs = nowUs();
  let isOver = false;
  const timer = setTimeout(() => {
    isOver = true;
  }, seconds * 1000);
  await new Promise<void>((resolve, reject) => {
    let outstanding = 0;
    let next = 0;
    let failed: unknown;
    const publish = (): void => {
      for (; outstanding < WINDOW && !isOver; outstanding++) {
        channel.publish('', queues[next++ % queues.length], body, options, confirmed);
      }
      if (outstanding > 0) return;
      if (failed === undefined) resolve();
      else reject(failed);
    };
    const confirmed = (error: unknown): void => {
      outstanding--;
      if (error !== null && error !== undefined) {
        failed ??= error;
        isOver = true;
      }
      // Half a window at once: one turn of the loop sends many.
      if (outstanding <= WINDOW / 2) publish();
    };
    publish();
  }).finally(() => clearTimeout(timer));
  consumer.postMessage('stop');
  const [received] = (await once(consumer, 'message')) as [number];
  const recordsPerSecond = Math.round(received / ((nowUs() - startUs) / 1e6));
  await consumer.terminate();
  await connection.close();
  return { recordsPerSecond };
}

/** What a sync of a kibibyte costs here: both brokers live off it. */
function syncText(dataDir: string): string {
  const file = path.join(dataDir, 'sync-probe');
  const fd = fs.openSync(file, 'w');
  const page = Buffer.alloc(1024, 1);
  const times: number[] = [];
  for (let sample = 0; sample < SYNC_SAMPLES; sample++) {
    const startUs = nowUs();
    fs.writeSync(fd, page);
    fs.fdatasyncSync(fd);
    times.push(nowUs() - startUs);
  }
  fs.closeSync(fd);
  fs.rmSync(file);
  times.sort((a, b) => a - b);
  const p99 = times[Math.floor(times.length * 0.99)];
  return `Disk: write and fdatasync of 1 KiB, median ${Math.round(median(times))} µs, p99 ${Math.round(p99)} µs. Millrace: log.flush=synced.`;
}
