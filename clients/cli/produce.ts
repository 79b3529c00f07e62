/**
 * `millrace produce`: each line of standard input becomes a record. What has arrived is sent at once, batch by batch, so
 * that it works for a person typing, for `tail -f`, and for a file of gigabytes.
 *
 * Always: the records of a partition are sent in the order of their lines, one batch at a time.
 */
import { type Codec, codecs } from '../../protocol/compression.ts';
import { partitionForKey } from '../../protocol/murmur2.ts';
import { randomUint32, systemRandom } from '../../storage/clock.ts';
import { loadNative } from '../../storage/native.ts';
import type { KafkaCluster, TopicInfo } from '../kafka/cluster.ts';
import { produce } from '../kafka/records.ts';
import { clusterFlags, topicAndPartition, withCluster } from './cluster-flags.ts';
import { type Args, type Command, CommandFailure, UsageError, keyValue } from './command.ts';
import type { Io } from './io.ts';
import { plural } from './output.ts';
import { type ParsedRecord, parseRecordJson } from './record-text.ts';

const ACKS: Readonly<Record<string, -1 | 0 | 1>> = { all: -1, '-1': -1, '1': 1, '0': 0 };
/** Below every broker's default limit of a batch (1 MiB), with room for its framing. */
const BATCH_BYTES_MAX = 512 * 1024;
const BATCH_RECORDS_MAX = 10_000;
/** Longest line that is held while its end has not come. */
const LINE_BYTES_MAX = 64 * 1024 * 1024;
const NEWLINE = 10;

export const produceCommand: Command = {
  name: 'produce',
  usage: 'TOPIC[:PARTITION] [flags]',
  summary: 'Writes each line of standard input as a record',
  details: `Records with a key go to the partition that Kafka's own clients choose for it. A topic that does not exist is made if
the broker does that (auto.create.topics.enable).
With --ndjson a line is {"key":…,"value":…,"headers":[{"key":…,"value":…}],"timestamp":MS,"partition":N}, all optional;
keyBase64 and valueBase64 carry bytes that are not text. It is what 'millrace cat -o ndjson' prints, but for the
partition, which --keep-partition takes from it.`,
  arity: [1, 1],
  flags: {
    ...clusterFlags,
    key: { value: 'KEY', short: 'k', help: 'key of all records' },
    'key-separator': { value: 'TEXT', short: 'K', help: 'a line is KEY, this text, VALUE (\\t is a tab)' },
    header: { value: 'NAME=VALUE', isRepeatable: true, short: 'H', help: 'header of all records' },
    ndjson: { help: 'lines are JSON objects' },
    'keep-partition': { help: 'with --ndjson: the partition is that of the line' },
    compression: { value: 'CODEC', short: 'z', help: `one of ${codecs.join(', ')} (default none)` },
    acks: { value: 'all|1|0', help: 'what to wait for: synced, written, nothing (default all)' },
    quiet: { short: 'q', help: 'do not say how many were written' },
  },
  async run(args, io) {
    const { topic: name, partition: fixed } = topicAndPartition(args.positionals[0]);
    const compression = args.text('compression') ?? 'none';
    if (!isCodec(compression))
      throw new UsageError(`--compression takes one of ${codecs.join(', ')}, not '${compression}'`);
    const acks = ACKS[args.text('acks') ?? 'all'];
    if (acks === undefined) throw new UsageError(`--acks takes all, 1 or 0, not '${args.text('acks')}'`);
    const parse = lineParser(args, io);
    if (compression !== 'none') await loadNative();
    await withCluster(args, io, async (cluster) => {
      const topic = await topicForWriting(cluster, name);
      if (fixed !== undefined && fixed >= topic.partitions.length) {
        throw new CommandFailure(`topic '${name}' has no partition ${fixed}, only 0 to ${topic.partitions.length - 1}`);
      }
      const isKept = args.has('keep-partition');
      if (io.isInteractive) io.note('Each line becomes a record. Ctrl-D ends.');
      let count = 0;
      let keyless = randomUint32(systemRandom);
      for await (const lines of chunksOfLines(io.stdin)) {
        const byPartition = new Map<number, ParsedRecord[]>();
        // Records without a key stay together in a batch and take turns by batch.
        keyless = (keyless + 1) % topic.partitions.length;
        for (const line of lines) {
          count++;
          const record = parse(line, count);
          const asked = isKept ? record.partition : undefined;
          const partition =
            fixed ?? asked ?? (record.key === null ? keyless : partitionForKey(record.key, topic.partitions.length));
          const records = byPartition.get(partition);
          if (records) records.push(record);
          else byPartition.set(partition, [record]);
        }
        const sent = [...byPartition].map(([partition, records]) =>
          sendAll(cluster, { topic: name, partition }, records, { acks, compression }),
        );
        await Promise.all(sent);
      }
      if (!args.has('quiet')) io.note(`${acks === 0 ? 'sent' : 'wrote'} ${plural(count, 'record')} to ${name}`);
    });
  },
};

async function sendAll(
  cluster: KafkaCluster,
  target: { topic: string; partition: number },
  records: readonly ParsedRecord[],
  options: { acks: -1 | 0 | 1; compression: Codec },
): Promise<void> {
  let start = 0;
  let sizeBytes = 0;
  for (let index = 0; index < records.length; index++) {
    const { key, value } = records[index];
    const bytes = 32 + (key?.length ?? 0) + (value?.length ?? 0);
    if (index > start && (sizeBytes + bytes > BATCH_BYTES_MAX || index - start >= BATCH_RECORDS_MAX)) {
      await produce(cluster, target, records.slice(start, index), options);
      start = index;
      sizeBytes = 0;
    }
    sizeBytes += bytes;
  }
  if (start < records.length) await produce(cluster, target, records.slice(start), options);
}

function lineParser(args: Args, io: Io): (line: Buffer, number: number) => ParsedRecord {
  const headers = args.texts('header').map((text) => {
    const [key, value] = keyValue('--header', text);
    return { key, value: Buffer.from(value) };
  });
  const fixedKey = args.text('key');
  const separator = args.text('key-separator')?.replaceAll('\\t', '\t');
  if (separator === '') throw new UsageError('--key-separator takes some text');
  if (args.has('ndjson')) {
    if (separator !== undefined) throw new UsageError('--key-separator and --ndjson exclude each other');
    return (line, number) => {
      try {
        const record = parseRecordJson(line.toString('utf8'), io.clock.now());
        const key = record.key ?? (fixedKey === undefined ? null : Buffer.from(fixedKey));
        return { ...record, key, headers: [...(record.headers ?? []), ...headers] };
      } catch (error) {
        throw new CommandFailure(
          `line ${number} is no record: ${error instanceof Error ? error.message : String(error)}`,
        );
      }
    };
  }
  if (args.has('keep-partition')) throw new UsageError('--keep-partition needs --ndjson');
  return (line, number) => {
    const timestamp = io.clock.now();
    if (separator === undefined)
      return { key: fixedKey === undefined ? null : Buffer.from(fixedKey), value: line, headers, timestamp };
    const at = line.indexOf(separator);
    if (at < 0) throw new CommandFailure(`line ${number} has no key: '${separator}' is not in it`);
    return { key: line.subarray(0, at), value: line.subarray(at + Buffer.byteLength(separator)), headers, timestamp };
  };
}

/** The lines that are complete after each piece of input; the last one needs no newline. A CR before it is dropped. */
async function* chunksOfLines(input: AsyncIterable<Buffer>): AsyncGenerator<Buffer[]> {
  let pieces: Buffer[] = [];
  let heldBytes = 0;
  for await (const chunk of input) {
    const last = chunk.lastIndexOf(NEWLINE);
    if (last < 0) {
      pieces.push(chunk);
      heldBytes += chunk.length;
      if (heldBytes > LINE_BYTES_MAX) throw new CommandFailure(`a line is longer than ${LINE_BYTES_MAX} bytes`);
      continue;
    }
    const bytes = pieces.length === 0 ? chunk.subarray(0, last) : Buffer.concat([...pieces, chunk.subarray(0, last)]);
    pieces = last + 1 < chunk.length ? [chunk.subarray(last + 1)] : [];
    heldBytes = chunk.length - last - 1;
    yield linesOf(bytes);
  }
  if (heldBytes > 0) yield linesOf(Buffer.concat(pieces));
}

function linesOf(bytes: Buffer): Buffer[] {
  const lines: Buffer[] = [];
  let start = 0;
  for (;;) {
    const end = bytes.indexOf(NEWLINE, start);
    const line = bytes.subarray(start, end < 0 ? bytes.length : end);
    lines.push(line.at(-1) === 13 ? line.subarray(0, -1) : line);
    if (end < 0) return lines;
    start = end + 1;
  }
}

async function topicForWriting(cluster: KafkaCluster, name: string): Promise<TopicInfo> {
  return cluster.retry(async () => {
    const [known] = await cluster.topics([name]);
    const topic = known ?? (await cluster.topics([name], { mayCreate: true }))[0];
    if (topic && topic.partitions.length > 0) return topic;
    // Where the broker makes it, it may take another look; where it does not, this says what to do.
    const [again] = await cluster.topics([name], { mayCreate: true });
    if (again && again.partitions.length > 0) return again;
    throw new CommandFailure(
      `there is no topic '${name}' and the broker does not make it; use 'millrace topic create ${name}'`,
    );
  });
}

function isCodec(text: string): text is Codec {
  return (codecs as readonly string[]).includes(text);
}
