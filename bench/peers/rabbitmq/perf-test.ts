/** PerfTest, RabbitMQ's load generator, which drives both brokers, and what it prints. */
import { spawn } from 'node:child_process';

const JAVA_ARGS = ['-Xmx768M', '-XX:+UseG1GC', '-XX:MaxGCPauseMillis=20'];
/** Beyond the time of the load: start of the JVM, topology, end. */
const EXTRA_MS_MAX = 120_000;

export interface PerfTestFigures {
  /** Messages a second over the whole run. */
  sent: number;
  received: number;
  confirmP50Us?: number;
  confirmP99Us?: number;
  /** From publish to delivery. */
  endP50Us?: number;
  endP99Us?: number;
}

/** Runs PerfTest for `seconds`; rejects if it fails. */
export async function perfTest(
  jars: string,
  { port, seconds, args }: { port: number; seconds: number; args: readonly string[] },
): Promise<PerfTestFigures> {
  const all = [...JAVA_ARGS, '-cp', `${jars}/*`, 'com.rabbitmq.perf.PerfTest'];
  all.push('--uri', `amqp://guest:guest@127.0.0.1:${port}`, '--time', `${seconds}`, '--id', 'bench');
  const child = spawn('java', [...all, ...args], { stdio: ['ignore', 'pipe', 'pipe'] });
  let text = '';
  const take = (chunk: Buffer): void => {
    text += chunk.toString();
  };
  child.stdout.on('data', take);
  child.stderr.on('data', take);
  const timer = setTimeout(() => child.kill('SIGKILL'), seconds * 1000 + EXTRA_MS_MAX);
  const code = await new Promise<number>((resolve, reject) => {
    child.once('error', reject);
    child.once('close', (status) => resolve(status ?? -1));
  });
  clearTimeout(timer);
  if (code !== 0) throw new Error(`PerfTest ${args.join(' ')} ended with ${code}:\n${text.slice(-4000)}`);
  return parsePerfTest(text);
}

/** The lines at the end: average rates, and percentiles of latencies in µs (min/median/75th/95th/99th). */
export function parsePerfTest(text: string): PerfTestFigures {
  const rate = (name: string): number => {
    const found = new RegExp(`${name} rate avg: (\\d+) msg/s`).exec(text);
    return found === null ? 0 : Number(found[1]);
  };
  const latency = (name: string): { p50: number; p99: number } | undefined => {
    const found = new RegExp(`${name} latency min/median/75th/95th/99th ([\\d/]+) (\\S+)\\s*$`, 'm').exec(text);
    if (found === null) return undefined;
    const values = found[1].split('/').map(Number);
    const unitUs = found[2] === 'ms' ? 1000 : 1;
    return { p50: values[1] * unitUs, p99: values[4] * unitUs };
  };
  const confirm = latency('confirm');
  const end = latency('consumer');
  return {
    sent: rate('sending'),
    received: rate('receiving'),
    ...(confirm === undefined ? {} : { confirmP50Us: confirm.p50, confirmP99Us: confirm.p99 }),
    ...(end === undefined ? {} : { endP50Us: end.p50, endP99Us: end.p99 }),
  };
}
