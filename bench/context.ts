/** What every section works with: the brokers, started when first asked for, and where results go. */
import fs from 'node:fs';
import path from 'node:path';
import { cpuSeconds, loadAverage, memory, resetPeak, sleep } from './machine.ts';
import { type Millrace, startMillrace } from './millrace.ts';
import { startKafka } from './peers/kafka/broker.ts';
import type { KafkaJars } from './peers/kafka/install.ts';
import { startRabbitMq } from './peers/rabbitmq/broker.ts';
import { appendLine, type Figures } from './results.ts';
import type { AmqpTarget, Target } from './target.ts';

/** After a measurement the broker finishes what it owes (segments, checkpoints); that CPU belongs to it. */
const SETTLE_MS = 1000;

export interface ContextOptions {
  run: string;
  /** Of Kafka; undefined: only Millrace. */
  jars?: KafkaJars | undefined;
  /** Root of the system that has RabbitMQ; undefined: only Millrace. */
  rabbitMqRoot?: string | undefined;
  dataDir: string;
  resultsFile: string;
  rounds: number;
  isQuick: boolean;
}

export class Context {
  readonly jars: KafkaJars | undefined;
  readonly dataDir: string;
  readonly rounds: number;
  readonly isQuick: boolean;
  readonly #rabbitMqRoot: string | undefined;
  readonly #run: string;
  readonly #resultsFile: string;
  readonly #shared = new Map<string, Promise<Target>>();
  readonly #stops: (() => Promise<void>)[] = [];
  #serial = 0;

  constructor({ run, jars, rabbitMqRoot, dataDir, resultsFile, rounds, isQuick }: ContextOptions) {
    this.#run = run;
    this.jars = jars;
    this.#rabbitMqRoot = rabbitMqRoot;
    this.dataDir = dataDir;
    this.#resultsFile = resultsFile;
    this.rounds = rounds;
    this.isQuick = isQuick;
  }

  /** `count`, or a fifth of it in a quick run. */
  scaled(count: number): number {
    return this.isQuick ? Math.round(count / 5) : count;
  }

  /** A name that no earlier topic, group or folder of this run had. */
  fresh(prefix: string): string {
    return `${prefix}-${this.#run.replaceAll(/[^\w]/g, '')}-${this.#serial++}`;
  }

  kafka(): Promise<Target> | undefined {
    const { jars } = this;
    return jars && this.#share('kafka', () => startKafka(jars, path.join(this.dataDir, this.fresh('kafka'))));
  }
  rabbitMq(): Promise<AmqpTarget> | undefined {
    const root = this.#rabbitMqRoot;
    return root === undefined ? undefined : this.#share('rabbitmq', () => startRabbitMq(root, this.fresh('rabbit')));
  }
  synced(): Promise<Millrace> {
    return this.#share('synced', () => this.millrace('millrace synced', {}));
  }
  written(): Promise<Millrace> {
    return this.#share('written', () => this.millrace('millrace written', { 'log.flush': 'written' }));
  }

  /** A Millrace of the caller's own, over `dataDir` or a new folder; stopped with the context if not before. */
  async millrace(
    name: string,
    settings: Readonly<Record<string, string | number>>,
    dataDir?: string,
  ): Promise<Millrace> {
    const folder = dataDir ?? path.join(this.dataDir, this.fresh(name.replaceAll(' ', '-')));
    const target = await startMillrace({ name, dataDir: folder, settings });
    this.#stops.push(() => target.stop());
    return target;
  }

  #share<T extends Target>(name: string, start: () => Promise<T>): Promise<T> {
    // A name always goes with the same `start`.
    const known = this.#shared.get(name) as Promise<T> | undefined;
    if (known) return known;
    const target = start();
    this.#shared.set(name, target);
    this.#stops.push(async () => (await target).stop());
    return target;
  }

  /** Runs `work`, which handles `records` records, and answers its figures with what it cost the broker. */
  async cost(target: Target, records: number, work: () => Promise<Figures>): Promise<Figures> {
    resetPeak(target.pid);
    const syncsBefore = syncCount(await target.metrics());
    const before = cpuSeconds(target.pid);
    const figures = await work();
    await sleep(SETTLE_MS);
    const seconds = cpuSeconds(target.pid) - before;
    const { rssMib, peakMib } = memory(target.pid);
    const syncs = syncCount(await target.metrics());
    return {
      ...figures,
      cpuSecondsPerMillion: Math.round((seconds / records) * 1e9) / 1000,
      rssMib,
      peakRssMib: peakMib,
      ...(syncs === undefined || syncsBefore === undefined ? {} : { syncs: syncs - syncsBefore }),
    };
  }

  record(place: { section: string; case: string; target: string; round: number }, figures: Figures): void {
    const line = {
      kind: 'result' as const,
      run: this.#run,
      at: new Date().toISOString(),
      ...place,
      ...figures,
      load: loadAverage(),
    };
    appendLine(this.#resultsFile, line);
    const texts = Object.entries(figures).map(([name, value]) => `${name} ${value}`);
    console.log(
      `${place.section} · ${place.case} · ${place.target} · ${place.round}: ${texts.join(', ')}, load ${line.load}`,
    );
  }

  /** Stops every broker and removes their files. */
  async close(): Promise<void> {
    for (const stop of this.#stops.splice(0)) {
      // One that does not stop must not keep the others running.
      await stop().catch((error: unknown) => console.error(error));
    }
    fs.rmSync(this.dataDir, { recursive: true, force: true });
  }
}

/** Syncs that Millrace counts; undefined for a peer. */
export function syncCount(metrics: Map<string, number>): number | undefined {
  const journal = metrics.get('millrace_log_syncs_total{way="journal"}');
  const direct = metrics.get('millrace_log_syncs_total{way="direct"}');
  return journal === undefined || direct === undefined ? undefined : journal + direct;
}

/** In each round another target goes first, so that none always runs on a machine that the last one left hot. */
export function rotated<Item>(items: readonly Item[], round: number): Item[] {
  const first = round % items.length;
  return [...items.slice(first), ...items.slice(0, first)];
}
