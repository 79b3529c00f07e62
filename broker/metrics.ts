/**
 * Counters, gauges and histograms in Prometheus's text format (exposition format 0.0.4). Counters are plain fields that
 * hot paths add to; gauges are asked only when somebody looks.
 */

type Labels = Readonly<Record<string, string>>;
/** Labels that are asked for often may come as `labelText` made them. */
type Sample = readonly [Labels | string, number];

export class Counter {
  value = 0;
  add(amount = 1): void {
    this.value += amount;
  }
}

/** Counts values in fixed buckets; `bounds` are upper limits, ascending, in the metric's unit. */
export class Histogram {
  readonly bounds: readonly number[];
  readonly counts: Float64Array;
  sum = 0;
  count = 0;

  constructor(bounds: readonly number[]) {
    this.bounds = bounds;
    this.counts = new Float64Array(bounds.length + 1);
  }

  observe(value: number): void {
    this.sum += value;
    this.count++;
    let index = 0;
    while (index < this.bounds.length && value > this.bounds[index]) index++;
    this.counts[index]++;
  }
}

/** Seconds from 50 µs to 10 s. */
export const SECONDS_BOUNDS = [
  0.00005, 0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10,
] as const;

interface Family {
  readonly name: string;
  readonly type: 'counter' | 'gauge' | 'histogram';
  readonly help: string;
  lines(): Iterable<string>;
}

export class Metrics {
  readonly #families: Family[] = [];

  counter(name: string, help: string): Counter {
    const counter = new Counter();
    this.#families.push({ name, type: 'counter', help, lines: () => [`${name} ${counter.value}`] });
    return counter;
  }

  histogram(name: string, help: string, bounds: readonly number[] = SECONDS_BOUNDS): Histogram {
    const histogram = new Histogram(bounds);
    this.#families.push({ name, type: 'histogram', help, lines: () => histogramLines(name, histogram) });
    return histogram;
  }

  /** Asked at each scrape; one number, or one for each set of labels. */
  observed(type: 'counter' | 'gauge', name: string, help: string, read: () => number | Iterable<Sample>): void {
    this.#families.push({
      name,
      type,
      help,
      *lines() {
        const value = read();
        if (typeof value === 'number') yield `${name} ${value}`;
        else {
          for (const [labels, number] of value)
            yield `${name}${typeof labels === 'string' ? labels : labelText(labels)} ${number}`;
        }
      },
    });
  }

  render(): string {
    let page = '';
    for (const { name, type, help, lines } of this.#families) {
      page += `# HELP ${name} ${help}\n# TYPE ${name} ${type}\n`;
      for (const line of lines()) page += `${line}\n`;
    }
    return page;
  }
}

function* histogramLines(name: string, histogram: Histogram): Iterable<string> {
  let total = 0;
  for (let index = 0; index < histogram.bounds.length; index++) {
    total += histogram.counts[index];
    yield `${name}_bucket{le="${histogram.bounds[index]}"} ${total}`;
  }
  yield `${name}_bucket{le="+Inf"} ${histogram.count}`;
  yield `${name}_sum ${histogram.sum}`;
  yield `${name}_count ${histogram.count}`;
}

export function labelText(labels: Labels): string {
  const pairs = Object.entries(labels).map(([key, value]) => `${key}="${escapeLabel(value)}"`);
  return pairs.length === 0 ? '' : `{${pairs.join(',')}}`;
}

const escapeLabel = (value: string): string =>
  value.replaceAll('\\', '\\\\').replaceAll('"', '\\"').replaceAll('\n', '\\n');
