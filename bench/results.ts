/**
 * Results: one JSON object a line in `bench/results.jsonl`, appended, never rewritten. A run starts with a line about
 * the machine; its measurements carry the run's id.
 */
import fs from 'node:fs';
import type { Machine } from './machine.ts';

export interface RunLine {
  kind: 'run';
  run: string;
  at: string;
  machine: Machine;
  isQuick: boolean;
  sections: readonly string[];
}

/** What one measurement found; only what applies is there. */
export interface Figures {
  recordsPerSecond?: number;
  mbPerSecond?: number;
  /** CPU seconds of the broker, all threads, for a million records. */
  cpuSecondsPerMillion?: number;
  rssMib?: number;
  /** Highest RSS during the measurement. */
  peakRssMib?: number;
  /** Syncs of journal and segments during the measurement (Millrace). */
  syncs?: number;
  p50Us?: number;
  p99Us?: number;
  /** From publish to delivery. */
  endP99Us?: number;
  /** From joining a group to the first record. */
  firstRecordMs?: number;
  /** Time to the ready line. */
  readyMs?: number;
  /** Journal bytes that the start had to read again. */
  journalMib?: number;
  storedGib?: number;
}

export interface ResultLine extends Figures {
  kind: 'result';
  run: string;
  at: string;
  section: string;
  /** What was done, for instance `1000 B, 6 partitions`. */
  case: string;
  /** To whom: `kafka`, `kafka fsync`, `millrace synced`, … */
  target: string;
  round: number;
  /** 1-minute load average afterwards. */
  load: number;
}

export type Line = RunLine | ResultLine;

export function appendLine(file: string, line: Line): void {
  fs.appendFileSync(file, `${JSON.stringify(line)}\n`);
}

export function readLines(file: string): Line[] {
  if (!fs.existsSync(file)) return [];
  const lines = fs.readFileSync(file, 'utf8').split('\n');
  // Written by appendLine.
  return lines.filter((line) => line !== '').map((line) => JSON.parse(line) as Line);
}

export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = Math.floor(sorted.length / 2);
  return sorted.length % 2 === 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}
