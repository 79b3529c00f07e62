/**
 * `millrace cat`: prints the records of topics from one place to another. Without `--follow` it stops by itself at what
 * was the end when it began.
 *
 * Always: within a partition records come in the order of their offsets; partitions take turns.
 */
import { MillraceError } from '../../protocol/errors.ts';
import type { DecodedRecord } from '../../protocol/record-batch.ts';
import { loadNative } from '../../storage/native.ts';
import type { KafkaCluster } from '../kafka/cluster.ts';
import { type TopicPartition, fetchRecords } from '../kafka/records.ts';
import { clusterFlags, topicAndPartition, withCluster } from './cluster-flags.ts';
import { type Args, type Command, CommandFailure, UsageError, wholeNumber } from './command.ts';
import type { Io } from './io.ts';
import { PLACE_HELP, type PartitionRange, parsePlace, partitionRanges, resolvePlaces } from './places.ts';
import { recordJson, recordLine } from './record-text.ts';
import { existing } from './topic.ts';

const FORMATS = ['table', 'ndjson', 'raw'] as const;
type Format = (typeof FORMATS)[number];

/** Output is collected into pieces of about this size. */
const WRITE_BYTES = 64 * 1024;
const PARTITION_BYTES_MAX = 1024 * 1024;

interface Position extends TopicPartition {
  offset: number;
  /** Where to stop; infinite when following. */
  readonly end: number;
}

export const catCommand: Command = {
  name: 'cat',
  usage: 'TOPIC[:PARTITION]… [flags]',
  summary: 'Prints records by offset or by time',
  details: `A place is ${PLACE_HELP}.
Output: 'table' is for people, with control characters escaped; 'ndjson' has everything, one JSON object a line (values
that are not text as valueBase64); 'raw' is the values alone, one a line.`,
  arity: [1, Number.POSITIVE_INFINITY],
  flags: {
    ...clusterFlags,
    from: { value: 'PLACE', help: 'where to begin (default earliest; with --follow latest)' },
    to: { value: 'PLACE', help: 'where to stop, itself not included (default latest)' },
    count: { value: 'N', short: 'n', help: 'stop after N records' },
    follow: { short: 'f', help: 'go on with what comes' },
    output: { value: 'FORMAT', short: 'o', help: `${FORMATS.join(', ')} (default table)` },
    headers: { help: 'show headers in the table' },
    'read-uncommitted': { help: 'also records of open and aborted transactions' },
  },
  async run(args, io) {
    const format = args.text('output') ?? 'table';
    if (!isFormat(format)) throw new UsageError(`--output takes ${FORMATS.join(', ')}, not '${format}'`);
    const follows = args.has('follow');
    if (follows && args.has('to')) throw new UsageError('--follow and --to exclude each other');
    const from = parsePlace('--from', args.text('from') ?? (follows ? 'latest' : 'earliest'), io.clock.now());
    const to = parsePlace('--to', args.text('to') ?? 'latest', io.clock.now());
    const count = args.text('count');
    const limit = count === undefined ? Number.POSITIVE_INFINITY : wholeNumber('--count', count);
    await loadNative();
    await withCluster(args, io, async (cluster) => {
      const readUncommitted = args.has('read-uncommitted');
      const ranges = await partitionRanges(cluster, await targetsOf(cluster, args.positionals), { readUncommitted });
      const starts = await resolvePlaces(cluster, ranges, from);
      const ends = follows ? undefined : await resolvePlaces(cluster, ranges, to);
      const positions = ranges.map((range) => position(range, starts, ends, io));
      const printer = new Printer(io, format, args);
      await print(cluster, { positions, printer, io, limit, follows, readUncommitted });
    });
  },
};

function position(
  range: PartitionRange,
  starts: ReadonlyMap<string, number>,
  ends: ReadonlyMap<string, number> | undefined,
  io: Io,
): Position {
  const { topic, partition, earliest, latest } = range;
  const key = `${topic}-${partition}`;
  const start = starts.get(key) ?? earliest;
  if (start > latest) io.note(`${key} ends at ${latest}; offset ${start} does not exist yet`);
  if (start < earliest) io.note(`${key} begins at ${earliest}; what was before is gone`);
  const end = ends ? Math.min(ends.get(key) ?? latest, latest) : Number.POSITIVE_INFINITY;
  return { topic, partition, offset: Math.max(start, earliest), end };
}

interface Work {
  positions: Position[];
  readonly printer: Printer;
  readonly io: Io;
  readonly limit: number;
  readonly follows: boolean;
  readonly readUncommitted: boolean;
}

async function print(cluster: KafkaCluster, work: Work): Promise<void> {
  const { printer, limit, follows, readUncommitted } = work;
  let left = limit;
  for (;;) {
    work.positions = work.positions.filter(({ offset, end }) => offset < end);
    if (work.positions.length === 0 || left === 0) break;
    const fetched = await fetchWithin(cluster, work, { readUncommitted, partitionBytesMax: PARTITION_BYTES_MAX });
    for (const { topic, partition, records, nextOffset } of fetched) {
      const at = work.positions.find((candidate) => candidate.topic === topic && candidate.partition === partition);
      if (!at) continue;
      for (const record of records) {
        if (left === 0 || record.offset >= at.end) break;
        left--;
        await printer.print(at, record);
      }
      at.offset = nextOffset;
    }
    // People who follow want each record when it comes.
    if (follows) await printer.flush();
  }
  await printer.flush();
}

/** A fetch; where retention has overtaken us, what is left begins at the new start. */
async function fetchWithin(
  cluster: KafkaCluster,
  work: Work,
  options: Parameters<typeof fetchRecords>[2],
): ReturnType<typeof fetchRecords> {
  try {
    return await cluster.retry(() => fetchRecords(cluster, work.positions, options));
  } catch (error) {
    if (!(error instanceof MillraceError && error.code === 'OFFSET_OUT_OF_RANGE')) throw error;
    const ranges = await partitionRanges(cluster, work.positions, { readUncommitted: true });
    let hasMoved = false;
    work.positions.forEach((at, index) => {
      const { earliest } = ranges[index];
      if (at.offset >= earliest) return;
      work.io.note(`${at.topic}-${at.partition}: offsets ${at.offset} to ${earliest - 1} are gone`);
      at.offset = earliest;
      hasMoved = true;
    });
    // Above the end: waiting would not help a reader whose log was cut or made anew.
    if (!hasMoved) throw error;
    return [];
  }
}

class Printer {
  readonly #io: Io;
  readonly #format: Format;
  readonly #withHeaders: boolean;
  #pieces: (string | Uint8Array)[] = [];
  #bytes = 0;

  constructor(io: Io, format: Format, args: Args) {
    this.#io = io;
    this.#format = format;
    this.#withHeaders = args.has('headers');
  }

  async print(target: TopicPartition, record: DecodedRecord): Promise<void> {
    const piece = this.#piece(target, record);
    this.#pieces.push(piece);
    this.#bytes += piece.length;
    if (this.#bytes >= WRITE_BYTES) await this.flush();
  }

  async flush(): Promise<void> {
    if (this.#pieces.length === 0) return;
    const bytes = Buffer.concat(this.#pieces.map((piece) => (typeof piece === 'string' ? Buffer.from(piece) : piece)));
    this.#pieces = [];
    this.#bytes = 0;
    await this.#io.write(bytes);
  }

  #piece(target: TopicPartition, record: DecodedRecord): string | Uint8Array {
    switch (this.#format) {
      case 'table':
        return recordLine(target, record, this.#withHeaders);
      case 'ndjson':
        return `${JSON.stringify(recordJson(target, record))}\n`;
      case 'raw':
        return Buffer.concat([record.value ?? Buffer.alloc(0), Buffer.from('\n')]);
    }
  }
}

async function targetsOf(cluster: KafkaCluster, names: readonly string[]): Promise<TopicPartition[]> {
  const asked = names.map(topicAndPartition);
  const topics = await existing(cluster, [...new Set(asked.map(({ topic }) => topic))]);
  const targets = new Map<string, TopicPartition>();
  for (const { topic, partition } of asked) {
    const indexes = topics.find(({ name }) => name === topic)?.partitions.map(({ index }) => index) ?? [];
    if (partition !== undefined && !indexes.includes(partition)) {
      throw new CommandFailure(`topic '${topic}' has no partition ${partition}, only 0 to ${indexes.length - 1}`);
    }
    for (const index of partition === undefined ? indexes : [partition]) {
      targets.set(`${topic}-${index}`, { topic, partition: index });
    }
  }
  return [...targets.values()];
}

function isFormat(text: string): text is Format {
  return (FORMATS as readonly string[]).includes(text);
}
