/** Kafka's own performance tools, the client that drives both brokers, and what they print. */
import { spawn } from 'node:child_process';
import type { KafkaJars } from './install.ts';

const TOOL_MS_MAX = 300_000;
const JAVA_ARGS = ['-Xmx512M', '-XX:+UseG1GC', '-XX:MaxGCPauseMillis=20'];

/** Runs a class of the tools' jars and answers what it printed; rejects if it fails. */
export async function runTool(jars: KafkaJars, className: string, args: readonly string[]): Promise<string> {
  const classPath = ['-cp', `${jars.tools}/*`, `-Dlog4j2.configurationFile=${jars.log4jConfig}`];
  const full = `org.apache.kafka.tools.${className}`;
  const child = spawn('java', [...JAVA_ARGS, ...classPath, full, ...args], { stdio: ['ignore', 'pipe', 'pipe'] });
  let text = '';
  child.stdout.on('data', (chunk: Buffer) => {
    text += chunk.toString();
  });
  child.stderr.on('data', (chunk: Buffer) => {
    text += chunk.toString();
  });
  const timer = setTimeout(() => child.kill('SIGKILL'), TOOL_MS_MAX);
  const code = await new Promise<number>((resolve, reject) => {
    child.once('error', reject);
    child.once('close', (status) => resolve(status ?? -1));
  });
  clearTimeout(timer);
  if (code !== 0) throw new Error(`${className} ended with ${code}:\n${text.slice(-4000)}`);
  return text;
}

export interface Throughput {
  recordsPerSecond: number;
  mbPerSecond: number;
  p50Ms?: number;
  p99Ms?: number;
}

export interface ProduceRun {
  port: number;
  topic: string;
  records: number;
  recordBytes: number;
  acks: 'all' | '1';
  /** Records a second; −1: as many as it can. */
  rate?: number;
}

export async function producerPerformance(jars: KafkaJars, run: ProduceRun): Promise<Throughput> {
  const args = ['--bootstrap-server', `127.0.0.1:${run.port}`, '--topic', run.topic];
  args.push(
    '--num-records',
    `${run.records}`,
    '--record-size',
    `${run.recordBytes}`,
    '--throughput',
    `${run.rate ?? -1}`,
  );
  args.push('--command-property', `acks=${run.acks}`);
  const text = await runTool(jars, 'ProducerPerformance', args);
  return parseProducerPerformance(text);
}

/** The last summary line: `N records sent, R records/sec (M MB/sec), … ms 50th, … ms 95th, … ms 99th, …`. */
export function parseProducerPerformance(text: string): Throughput {
  const pattern =
    /([\d.]+) records\/sec \(([\d.]+) MB\/sec\), [\d.]+ ms avg latency, [\d.]+ ms max latency, (\d+) ms 50th, \d+ ms 95th, (\d+) ms 99th/g;
  const last = [...text.matchAll(pattern)].at(-1);
  if (!last) throw new Error(`ProducerPerformance printed no summary:\n${text.slice(-2000)}`);
  return {
    recordsPerSecond: Math.round(Number(last[1])),
    mbPerSecond: Number(last[2]),
    p50Ms: Number(last[3]),
    p99Ms: Number(last[4]),
  };
}

export interface ConsumeRun {
  port: number;
  topic: string;
  records: number;
  group: string;
}

export async function consumerPerformance(jars: KafkaJars, run: ConsumeRun): Promise<Throughput> {
  const args = ['--bootstrap-server', `127.0.0.1:${run.port}`, '--topic', run.topic, '--group', run.group];
  args.push('--num-records', `${run.records}`, '--timeout', '30000');
  return parseConsumerPerformance(await runTool(jars, 'ConsumerPerformance', args));
}

/**
 * The row under the heading: start, end, MB, MB/s, records, records/s, rebalance ms, fetch ms, fetch MB/s, fetch
 * records/s. The fetch figures leave out joining the group.
 */
export function parseConsumerPerformance(text: string): Throughput {
  const row = text
    .split('\n')
    .filter((line) => /^\d{4}-\d\d-\d\d /.test(line))
    .at(-1)
    ?.split(', ');
  if (!row || row.length < 10) throw new Error(`ConsumerPerformance printed no figures:\n${text.slice(-2000)}`);
  return { recordsPerSecond: Math.round(Number(row[9])), mbPerSecond: Number(row[8]) };
}

export async function shareConsumerPerformance(jars: KafkaJars, run: ConsumeRun): Promise<Throughput> {
  const args = ['--bootstrap-server', `127.0.0.1:${run.port}`, '--topic', run.topic, '--group', run.group];
  args.push('--num-records', `${run.records}`, '--timeout', '60000');
  return parseShareConsumerPerformance(await runTool(jars, 'ShareConsumerPerformance', args));
}

/** The row under the heading: start, end, MB, MB/s, records/s, records, ms. All of it counts joining the group. */
export function parseShareConsumerPerformance(text: string): Throughput {
  const row = text
    .split('\n')
    .filter((line) => /^\d{4}-\d\d-\d\d /.test(line))
    .at(-1)
    ?.split(', ');
  if (!row || row.length < 7) throw new Error(`ShareConsumerPerformance printed no figures:\n${text.slice(-2000)}`);
  return { recordsPerSecond: Math.round(Number(row[4])), mbPerSecond: Number(row[3]) };
}

export interface Latencies {
  p50Ms: number;
  p99Ms: number;
}

export async function endToEndLatency(
  jars: KafkaJars,
  { port, topic, records, recordBytes }: { port: number; topic: string; records: number; recordBytes: number },
): Promise<Latencies> {
  const args = ['--bootstrap-server', `127.0.0.1:${port}`, '--topic', topic, '--num-records', `${records}`];
  args.push('--producer-acks', 'all', '--record-size', `${recordBytes}`);
  return parseEndToEndLatency(await runTool(jars, 'EndToEndLatency', args));
}

/** `Percentiles: 50th = 0, 99th = 2, 99.9th = 5`, in whole milliseconds. */
export function parseEndToEndLatency(text: string): Latencies {
  const found = /Percentiles: 50th = (\d+), 99th = (\d+)/.exec(text);
  if (!found) throw new Error(`EndToEndLatency printed no percentiles:\n${text.slice(-2000)}`);
  return { p50Ms: Number(found[1]), p99Ms: Number(found[2]) };
}
