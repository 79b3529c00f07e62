/** Runs small functions under `benchmark` and prints what a call, a byte and a record cost. */
import Benchmark from 'benchmark';

export interface MicroCase {
  /** What is measured, and with what: one line of the table. */
  readonly name: string;
  /** Bytes that one call works on, for a rate in MB/s. */
  readonly bytes?: number;
  /** Records that one call works on, for a rate in millions a second. */
  readonly records?: number;
  run(): unknown;
}

export interface MicroResult {
  readonly name: string;
  readonly nsPerCall: number;
  /** Relative margin of error of the time, in percent. */
  readonly errorPercent: number;
  readonly megabytesPerSecond: number | undefined;
  readonly millionRecordsPerSecond: number | undefined;
}

/** Measures one case for about `seconds`. */
export function measure(micro: MicroCase, seconds: number): MicroResult {
  const benchmark = new Benchmark(micro.name, () => micro.run(), { maxTime: seconds });
  benchmark.run({ async: false });
  const failure: unknown = 'error' in benchmark ? benchmark.error : undefined;
  if (failure !== undefined) throw new Error(`${micro.name} failed`, { cause: failure });
  const secondsPerCall = benchmark.stats.mean;
  return {
    name: micro.name,
    nsPerCall: secondsPerCall * 1e9,
    errorPercent: benchmark.stats.rme,
    megabytesPerSecond: micro.bytes === undefined ? undefined : micro.bytes / secondsPerCall / 1e6,
    millionRecordsPerSecond: micro.records === undefined ? undefined : micro.records / secondsPerCall / 1e6,
  };
}

/** One group of results as lines of a table. */
export function formatResults(title: string, results: readonly MicroResult[]): string {
  const width = Math.max(title.length, ...results.map(({ name }) => name.length));
  const line = (name: string, cells: readonly string[]) =>
    `${name.padEnd(width)}  ${cells.map((cell) => cell.padStart(11)).join('')}`;
  return [
    line(title, ['ns/call', '± %', 'MB/s', 'M records/s']),
    ...results.map((result) =>
      line(result.name, [
        formatNumber(result.nsPerCall),
        result.errorPercent.toFixed(1),
        formatNumber(result.megabytesPerSecond),
        formatNumber(result.millionRecordsPerSecond),
      ]),
    ),
  ].join('\n');
}

function formatNumber(value: number | undefined): string {
  if (value === undefined) return '';
  return value >= 100 ? Math.round(value).toLocaleString('en') : value.toPrecision(3);
}
