/**
 * What the results are held against: each bound names a section, whose figure is compared with whose, and the limit.
 * `judge` turns medians into the rows of the table.
 */
import { type Figures, type Line, median, type ResultLine, type RunLine } from './results.ts';

export interface Row {
  section: string;
  what: string;
  /** The figure of Millrace, with its unit. */
  millrace: string;
  /** What it is compared with; empty for an absolute bound. */
  reference: string;
  /** Ratio, or the figure again for an absolute bound. */
  value: string;
  bound: string;
  isMet: boolean;
}

type Figure = keyof Figures;

/** Medians by section, case, target and figure, each from the newest run that measured the section. */
export class Medians {
  readonly #results: ResultLine[];
  /** The runs the results come from, by section. */
  readonly runs = new Map<string, RunLine>();

  constructor(lines: readonly Line[]) {
    const runs = lines.filter((line) => line.kind === 'run');
    const results = lines.filter((line) => line.kind === 'result');
    for (const section of new Set(results.map((result) => result.section))) {
      const ofSection = runs.filter(({ run }) =>
        results.some((result) => result.run === run && result.section === section),
      );
      // A full run says more than a later quick one.
      const chosen = ofSection.findLast(({ isQuick }) => !isQuick) ?? ofSection.at(-1);
      if (chosen) this.runs.set(section, chosen);
    }
    this.#results = results.filter(({ run, section }) => this.runs.get(section)?.run === run);
  }

  cases(section: string): string[] {
    return [...new Set(this.#results.filter((result) => result.section === section).map((result) => result.case))];
  }

  get(section: string, name: string, target: string, figure: Figure): number | undefined {
    const values: number[] = [];
    for (const result of this.#results) {
      const value = result[figure];
      if (result.section !== section || result.case !== name || result.target !== target || value === undefined)
        continue;
      values.push(value);
    }
    return values.length === 0 ? undefined : median(values);
  }

  /** Highest value of a figure in a section, over all cases and rounds. */
  highest(section: string, targets: readonly string[], figure: Figure): number | undefined {
    const values = this.#results
      .filter((result) => result.section === section && targets.includes(result.target))
      .map((result) => result[figure])
      .filter((value) => value !== undefined);
    return values.length === 0 ? undefined : Math.max(...values);
  }

  /** Lowest and highest load average of a section. */
  load(section: string): [number, number] {
    const loads = this.#results.filter((result) => result.section === section).map(({ load }) => load);
    return [Math.min(...loads), Math.max(...loads)];
  }

  /** Measured rounds of a section. */
  rounds(section: string): number {
    return Math.max(...this.#results.filter((result) => result.section === section).map(({ round }) => round));
  }
}

interface RatioBound {
  section: string;
  target: string;
  against: string;
  figure: Figure;
  /** Only this case of the section. */
  case?: string;
  atLeast?: number;
  atMost?: number;
}

const RATIOS: readonly RatioBound[] = [
  { section: 'g', target: 'millrace synced', against: 'kafka', figure: 'recordsPerSecond', atLeast: 0.75 },
  { section: 'g', target: 'millrace synced', against: 'kafka', figure: 'cpuSecondsPerMillion', atMost: 1.15 },
  { section: 'g', target: 'millrace written', against: 'kafka', figure: 'recordsPerSecond', atLeast: 1 },
  { section: 'g', target: 'millrace written', against: 'kafka', figure: 'cpuSecondsPerMillion', atMost: 0.75 },
  { section: 'h', target: 'millrace synced', against: 'kafka fsync', figure: 'recordsPerSecond', atLeast: 4 },
  { section: 'h', target: 'millrace synced', against: 'kafka fsync', figure: 'cpuSecondsPerMillion', atMost: 0.3 },
  { section: 'i', target: 'millrace tail', against: 'kafka', figure: 'recordsPerSecond', atLeast: 1 },
  { section: 'i', target: 'millrace tail', against: 'kafka', figure: 'cpuSecondsPerMillion', atMost: 0.7 },
  { section: 'i', target: 'millrace files', against: 'kafka', figure: 'recordsPerSecond', atLeast: 1 },
  { section: 'i', target: 'millrace files', against: 'kafka', figure: 'cpuSecondsPerMillion', atMost: 1 },
  { section: 's', target: 'millrace synced', against: 'kafka', figure: 'recordsPerSecond', atLeast: 2 },
  { section: 's', target: 'millrace synced', against: 'kafka', figure: 'cpuSecondsPerMillion', atMost: 0.7 },
  ...amqpBounds(),
  {
    section: 'j',
    target: 'millrace synced',
    against: 'kafka fsync',
    figure: 'p99Us',
    case: 'acknowledgement',
    atMost: 1,
  },
];

/** Against RabbitMQ 4.0: rate, CPU of a message, p99 of a confirm, memory. */
function amqpBounds(): RatioBound[] {
  const against = { section: 'f', target: 'millrace synced', against: 'rabbitmq' };
  const rates: readonly (readonly [string, number])[] = [
    ['classic, 100 confirms', 2.5],
    ['classic, 1000 confirms', 2.5],
    ['quorum, 100 confirms', 2.5],
    ['quorum, 1000 confirms', 2.5],
    ['publish only', 2.5],
    ['amqplib, window of 1000', 2.5],
    ['4:4 on 4 queues', 2],
    ['1000 queues', 2],
    ['transient', 1.7],
    ['stream', 1.2],
  ];
  return [
    ...rates.flatMap(([name, atLeast]): RatioBound[] => [
      { ...against, case: name, figure: 'recordsPerSecond', atLeast },
      { ...against, case: name, figure: 'cpuSecondsPerMillion', atMost: name === 'transient' ? 0.35 : 0.3 },
      { ...against, case: name, figure: 'p99Us', atMost: 0.5 },
      { ...against, case: name, figure: 'peakRssMib', atMost: 1.3 },
    ]),
    { ...against, case: '1000/s', figure: 'p50Us', atMost: 0.7 },
  ];
}

interface AbsoluteBound {
  section: string;
  target: string;
  figure: Figure;
  case: string;
  atMost: number;
}

const ABSOLUTES: readonly AbsoluteBound[] = [
  { section: 'a', target: 'millrace', case: 'exec to ready, new folder', figure: 'readyMs', atMost: 400 },
  { section: 'a', target: 'millrace', case: 'exec to ready, again', figure: 'readyMs', atMost: 400 },
  { section: 'a', target: 'millrace', case: 'npm start, built before', figure: 'readyMs', atMost: 1000 },
  { section: 'a', target: 'millrace', case: 'exec to ready, new folder', figure: 'rssMib', atMost: 90 },
  { section: 's', target: 'millrace synced', case: 'first record', figure: 'firstRecordMs', atMost: 1000 },
  { section: 'j', target: 'millrace synced', case: 'acknowledgement', figure: 'p50Us', atMost: 350 },
  { section: 'j', target: 'millrace written', case: 'acknowledgement', figure: 'p50Us', atMost: 120 },
  { section: 'j', target: 'millrace written', case: 'acknowledgement', figure: 'p99Us', atMost: 1200 },
  { section: 'f', target: 'millrace synced', case: '1000/s', figure: 'endP99Us', atMost: 6000 },
];

const END_TO_END_US = 500;
const OUTSTANDING_RATIO = 0.85;
const READY_MS = 1000;
const READY_MS_PER_JOURNAL_GIB = 2000;
const LOADED_RSS_MIB = 200;
const PARTITIONS_RSS_MIB = 30;

const NAMES: Readonly<Record<Figure, string>> = {
  recordsPerSecond: 'records/s',
  mbPerSecond: 'MB/s',
  cpuSecondsPerMillion: 'CPU s per million',
  rssMib: 'idle RSS',
  peakRssMib: 'peak RSS',
  syncs: 'syncs',
  p50Us: 'p50',
  p99Us: 'p99',
  endP99Us: 'end to end p99',
  firstRecordMs: 'first record',
  readyMs: 'time',
  journalMib: 'journal',
  storedGib: 'stored',
};

export function judge(medians: Medians): Row[] {
  const rows: Row[] = [
    ...RATIOS.flatMap((bound) => ratioRows(medians, bound)),
    ...ABSOLUTES.flatMap((bound) => absoluteRows(medians, bound)),
    ...endToEndRows(medians),
    ...outstandingRows(medians),
    ...restartRows(medians),
    ...memoryRows(medians),
  ];
  return rows.sort((a, b) => a.section.localeCompare(b.section));
}

function ratioRows(
  medians: Medians,
  { section, target, against, figure, case: only, atLeast, atMost }: RatioBound,
): Row[] {
  return medians.cases(section).flatMap((name) => {
    if (only !== undefined && name !== only) return [];
    const own = medians.get(section, name, target, figure);
    const other = medians.get(section, name, against, figure);
    if (own === undefined || other === undefined) return [];
    const ratio = own / other;
    const isMet = atLeast === undefined ? ratio <= (atMost ?? 0) : ratio >= atLeast;
    const bound = atLeast === undefined ? `≤ ${atMost} ×` : `≥ ${atLeast} ×`;
    const reference = `${against} ${withUnit(other, figure)}`;
    return [
      {
        section,
        what: `${name}: ${target}, ${NAMES[figure]}`,
        millrace: withUnit(own, figure),
        reference,
        value: `${twoDigits(ratio)} ×`,
        bound,
        isMet,
      },
    ];
  });
}

function absoluteRows(medians: Medians, { section, target, figure, case: name, atMost }: AbsoluteBound): Row[] {
  const own = medians.get(section, name, target, figure);
  if (own === undefined) return [];
  const what = `${name}: ${target}, ${NAMES[figure]}`;
  return [absolute(section, what, own, figure, atMost)];
}

function absolute(section: string, what: string, own: number, figure: Figure, atMost: number): Row {
  const value = withUnit(own, figure);
  return {
    section,
    what,
    millrace: value,
    reference: '',
    value,
    bound: `≤ ${withUnit(atMost, figure)}`,
    isMet: own <= atMost,
  };
}

function endToEndRows(medians: Medians): Row[] {
  return ['millrace synced', 'millrace written'].flatMap((target) => {
    const ack = medians.get('j', 'acknowledgement', target, 'p50Us');
    const end = medians.get('j', 'end to end', target, 'p50Us');
    if (ack === undefined || end === undefined) return [];
    return [
      absolute('j', `end to end: ${target}, p50 (ack ${withUnit(ack, 'p50Us')})`, end, 'p50Us', ack + END_TO_END_US),
    ];
  });
}

function outstandingRows(medians: Medians): Row[] {
  return ['millrace synced', 'millrace written'].flatMap((target) => {
    const one = medians.get('k', '1 partition', target, 'recordsPerSecond');
    const many = medians.get('k', '1000 partitions', target, 'recordsPerSecond');
    if (one === undefined || many === undefined) return [];
    const ratio = many / one;
    return [
      {
        section: 'k',
        what: `1000 partitions against 1: ${target}, records/s`,
        millrace: withUnit(many, 'recordsPerSecond'),
        reference: `1 partition ${withUnit(one, 'recordsPerSecond')}`,
        value: `${twoDigits(ratio)} ×`,
        bound: `≥ ${OUTSTANDING_RATIO} ×`,
        isMet: ratio >= OUTSTANDING_RATIO,
      },
    ];
  });
}

function restartRows(medians: Medians): Row[] {
  return medians.cases('l').flatMap((name) => {
    const readyMs = medians.get('l', name, 'millrace synced', 'readyMs');
    if (readyMs === undefined) return [];
    const journalMib = medians.get('l', name, 'millrace synced', 'journalMib') ?? 0;
    const atMost = Math.round(READY_MS + (READY_MS_PER_JOURNAL_GIB * journalMib) / 1024);
    return [absolute('l', `restart after ${name} (${journalMib} MiB of journal)`, readyMs, 'readyMs', atMost)];
  });
}

function memoryRows(medians: Medians): Row[] {
  const rows: Row[] = [];
  for (const section of ['g', 'i']) {
    const targets = ['millrace synced', 'millrace written', 'millrace files'];
    const highest = medians.highest(section, targets, 'peakRssMib');
    if (highest !== undefined)
      rows.push(absolute('l', `highest RSS under ${section}`, highest, 'peakRssMib', LOADED_RSS_MIB));
  }
  const one = medians.get('l', 'RSS, load on 1 partition', 'millrace synced', 'peakRssMib');
  const many = medians.get('l', 'RSS, the same with 1000 open', 'millrace synced', 'peakRssMib');
  if (one !== undefined && many !== undefined) {
    const what = `RSS that 1000 open partitions add to a load on one (${withUnit(one, 'peakRssMib')})`;
    rows.push(absolute('l', what, Math.round(many - one), 'peakRssMib', PARTITIONS_RSS_MIB));
  }
  return rows;
}

export function withUnit(value: number, figure: Figure): string {
  switch (figure) {
    case 'recordsPerSecond':
      return Math.round(value).toLocaleString('en-US');
    case 'mbPerSecond':
      return `${Math.round(value)} MB/s`;
    case 'cpuSecondsPerMillion':
      return `${twoDigits(value)} s`;
    case 'p50Us':
    case 'p99Us':
    case 'endP99Us':
      return `${twoDigits(value / 1000)} ms`;
    case 'firstRecordMs':
    case 'readyMs':
      return `${Math.round(value)} ms`;
    case 'rssMib':
    case 'peakRssMib':
    case 'journalMib':
      return `${Math.round(value)} MiB`;
    case 'storedGib':
      return `${value} GiB`;
    case 'syncs':
      return `${value}`;
  }
}

function twoDigits(value: number): string {
  return value < 0.1 ? value.toFixed(3) : value.toFixed(2);
}
