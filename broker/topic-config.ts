/**
 * The configuration of a topic: every name Kafka 4.4 documents for topics, its type, default, range and what it does
 * here. A topic's own values (overrides) are kept as canonical text; a default comes from the broker option that Kafka
 * names as the synonym, so changing that option changes every topic without an override.
 *
 * Always true: overrides that passed `checkTopicConfigs` turn into a `LogConfig`. Names, ranges and messages are those
 * that Apache Kafka 4.4 answers with.
 */
import { MillraceError } from '../protocol/errors.ts';
import { options as optionTable, type OptionName, type Options } from './config.ts';
import type { LogConfig } from './engine.ts';

export type ConfigType = 'boolean' | 'string' | 'int' | 'long' | 'double' | 'list';

export interface TopicConfig {
  readonly type: ConfigType;
  /** Value when neither topic nor broker says otherwise. */
  readonly default: string;
  /** The broker config that gives the default; an option of ours, or a fixed fact shown for Kafka's tools. */
  readonly synonym?: string;
  readonly min?: number;
  readonly max?: number;
  /** The only values allowed. */
  readonly values?: readonly string[];
  /** What is served of the allowed values; the rest is refused, saying why. */
  readonly served?: { readonly values: readonly string[]; readonly otherwise: string };
  /** A check of its own on the canonical value; answers what is wrong, as Kafka words it. */
  readonly check?: (value: string, name: string) => string | undefined;
  /** False: kept and shown, but nothing on one node depends on it. */
  readonly hasEffect: boolean;
  readonly documentation: string;
}

/** As for any string Kafka stores. */
const VALUE_LENGTH_MAX = 32_767;
const LONG_MAX = 2n ** 63n - 1n;
const INT_MAX = 2n ** 31n - 1n;
const LONG_MAX_TEXT = String(LONG_MAX);

type Rest = Partial<Pick<TopicConfig, 'synonym' | 'min' | 'max' | 'values' | 'served' | 'check'>>;
const effective = (type: ConfigType, value: string, documentation: string, rest: Rest = {}): TopicConfig => ({
  type,
  default: value,
  documentation,
  hasEffect: true,
  ...rest,
});
const inert = (type: ConfigType, value: string, documentation: string, rest: Rest = {}): TopicConfig => ({
  ...effective(type, value, `${documentation} Kept and shown, without effect here.`, rest),
  hasEffect: false,
});

function checkReplicas(value: string, name: string): string | undefined {
  if (value === '' || value === '*' || value.split(',').every((part) => /^\d+:\d+$/.test(part))) return undefined;
  return `${name} must be the literal '*' or a list of replicas in the following format: [partitionId]:[brokerId],[partitionId]:[brokerId],...`;
}
function checkGzipLevel(value: string): string | undefined {
  const level = Number(value);
  return level === -1 || (level >= 1 && level <= 9) ? undefined : 'Value must be between 1 and 9 or equal to -1';
}

export const topicConfigs: Readonly<Record<string, TopicConfig>> = {
  'cleanup.policy': effective(
    'list',
    'delete',
    'delete: old segments go by retention. compact: of each key the newest record stays. Both may be given. Empty: nothing goes.',
    { synonym: 'log.cleanup.policy', values: ['compact', 'delete'] },
  ),
  'compression.gzip.level': inert('int', '-1', 'Level for compression.type=gzip.', {
    synonym: 'compression.gzip.level',
    check: checkGzipLevel,
  }),
  'compression.lz4.level': inert('int', '9', 'Level for compression.type=lz4.', {
    synonym: 'compression.lz4.level',
    min: 1,
    max: 17,
  }),
  'compression.type': effective('string', 'producer', 'Batches stay compressed as their producer sent them.', {
    synonym: 'compression.type',
    values: ['uncompressed', 'zstd', 'lz4', 'snappy', 'gzip', 'producer'],
    served: { values: ['producer'], otherwise: 'the broker keeps batches as they were sent and never compresses anew' },
  }),
  'compression.zstd.level': inert('int', '3', 'Level for compression.type=zstd.', {
    synonym: 'compression.zstd.level',
    min: -131_072,
    max: 22,
  }),
  'delete.retention.ms': effective('long', '86400000', 'How long compaction keeps tombstones.', {
    synonym: 'log.cleaner.delete.retention.ms',
    min: 0,
  }),
  'errors.deadletterqueue.group.enable': inert(
    'boolean',
    'false',
    'Whether share groups may use the topic for dead letters.',
  ),
  'file.delete.delay.ms': effective('long', '60000', 'How long files stay on disk after they left the log.', {
    synonym: 'log.segment.delete.delay.ms',
    min: 0,
  }),
  'flush.messages': inert(
    'long',
    LONG_MAX_TEXT,
    'Records between syncs; the option log.flush decides that for all topics.',
    {
      synonym: 'log.flush.interval.messages',
      min: 1,
    },
  ),
  'flush.ms': inert('long', LONG_MAX_TEXT, 'Time between syncs; the option log.flush decides that for all topics.', {
    synonym: 'log.flush.interval.ms',
    min: 0,
  }),
  'follower.replication.throttled.replicas': inert('list', '', 'Followers whose replication is throttled.', {
    check: checkReplicas,
  }),
  'index.interval.bytes': effective('int', '4096', 'Bytes of log between two entries of the offset index.', {
    synonym: 'log.index.interval.bytes',
    min: 0,
  }),
  'leader.replication.throttled.replicas': inert('list', '', 'Leaders whose replication is throttled.', {
    check: checkReplicas,
  }),
  'local.retention.bytes': inert('long', '-2', 'Bytes kept locally with tiered storage.', {
    synonym: 'log.local.retention.bytes',
    min: -2,
  }),
  'local.retention.ms': inert('long', '-2', 'Time kept locally with tiered storage.', {
    synonym: 'log.local.retention.ms',
    min: -2,
  }),
  'max.compaction.lag.ms': effective('long', LONG_MAX_TEXT, 'Longest time a record may stay out of compaction.', {
    synonym: 'log.cleaner.max.compaction.lag.ms',
    min: 1,
  }),
  'max.decompressed.message.bytes': inert(
    'int',
    '2147483639',
    'Limit of an opened batch; the option decompressed.bytes.max sets it for all topics.',
    {
      synonym: 'max.decompressed.message.bytes',
      min: 1,
    },
  ),
  'max.message.bytes': effective('int', '1048588', 'Largest batch that is taken, as sent.', {
    synonym: 'message.max.bytes',
    min: 0,
  }),
  'message.timestamp.after.max.ms': effective('long', '3600000', 'How far ahead of the broker a record may be dated.', {
    synonym: 'log.message.timestamp.after.max.ms',
    min: 0,
  }),
  'message.timestamp.before.max.ms': effective(
    'long',
    LONG_MAX_TEXT,
    'How far behind the broker a record may be dated.',
    {
      synonym: 'log.message.timestamp.before.max.ms',
      min: 0,
    },
  ),
  'message.timestamp.type': effective(
    'string',
    'CreateTime',
    'Whose time records carry: CreateTime the producer’s, LogAppendTime the broker’s.',
    {
      synonym: 'log.message.timestamp.type',
      values: ['CreateTime', 'LogAppendTime'],
    },
  ),
  'min.cleanable.dirty.ratio': effective('double', '0.5', 'Share of uncompacted log at which compaction starts.', {
    synonym: 'log.cleaner.min.cleanable.ratio',
    min: 0,
    max: 1,
  }),
  'min.compaction.lag.ms': effective('long', '0', 'Shortest time a record stays out of compaction.', {
    synonym: 'log.cleaner.min.compaction.lag.ms',
    min: 0,
  }),
  'min.insync.replicas': inert(
    'int',
    '1',
    'Replicas that must have a record before acks=all is answered; there is one.',
    {
      synonym: 'min.insync.replicas',
      min: 1,
    },
  ),
  preallocate: inert('boolean', 'false', 'Whether segment files are allocated in advance.', {
    synonym: 'log.preallocate',
  }),
  'remote.copy.lag.bytes': inert('long', '-1', 'Bytes before a segment is copied to tiered storage.', {
    synonym: 'log.remote.copy.lag.bytes',
    min: -1,
  }),
  'remote.copy.lag.ms': inert('long', '0', 'Time before a segment is copied to tiered storage.', {
    synonym: 'log.remote.copy.lag.ms',
    min: -1,
  }),
  'remote.log.copy.disable': inert('boolean', 'false', 'Whether tiered data is read only.'),
  'remote.log.delete.on.disable': inert('boolean', 'false', 'Whether tiered data goes when tiering ends.'),
  'remote.storage.enable': effective('boolean', 'false', 'Tiered storage; there is none, so only false is taken.', {
    check: (value) =>
      value === 'true'
        ? 'Tiered Storage functionality is disabled in the broker. Topic cannot be configured with remote log storage.'
        : undefined,
  }),
  'retention.bytes': effective('long', '-1', 'Bytes a partition keeps; -1 is no limit.', {
    synonym: 'log.retention.bytes',
  }),
  'retention.ms': effective('long', '604800000', 'Time a partition keeps records; -1 is no limit.', {
    synonym: 'log.retention.ms',
    min: -1,
  }),
  'segment.bytes': effective('int', '1073741824', 'Size at which a segment is closed and a new one begun.', {
    synonym: 'log.segment.bytes',
    min: 1_048_576,
  }),
  'segment.index.bytes': effective('int', '10485760', 'Largest index of a segment; a full one begins a new segment.', {
    synonym: 'log.index.size.max.bytes',
    min: 4,
  }),
  'segment.jitter.ms': inert('long', '0', 'Random part of segment.ms.', { min: 0 }),
  'segment.ms': effective('long', '604800000', 'Age at which a segment is closed and a new one begun.', {
    synonym: 'log.roll.ms',
    min: 1,
  }),
  'unclean.leader.election.enable': inert('boolean', 'false', 'Whether a replica that lags may lead; there is one.', {
    synonym: 'unclean.leader.election.enable',
  }),
};

/** A topic's own values, canonical text by name. */
export type Overrides = ReadonlyMap<string, string>;

const invalid = (message: string): MillraceError => new MillraceError('INVALID_CONFIG', message);

/** The table's row; INVALID_CONFIG for a name Kafka does not know either. */
export function topicConfig(name: string): TopicConfig {
  if (!Object.hasOwn(topicConfigs, name)) throw invalid(`Unknown topic config name: ${name}`);
  return topicConfigs[name];
}

/** The value in its canonical text; INVALID_CONFIG if its type, range or choice is wrong, or it is not served. */
export function parseTopicConfig(name: string, value: string): string {
  const config = topicConfig(name);
  if (value.length > VALUE_LENGTH_MAX)
    throw invalid(`The value of ${name} has ${value.length} characters, at most ${VALUE_LENGTH_MAX} are allowed`);
  const text = value.trim();
  const parsed = parseByType(config, name, text);
  const problem = config.check?.(parsed, name);
  if (problem !== undefined) {
    // Kafka words the refusal of tiered storage without the usual preamble.
    throw invalid(name === 'remote.storage.enable' ? problem : invalidValue(shown(config, parsed), name, problem));
  }
  if (config.served) {
    const missing = listItems(parsed).find((item) => !config.served?.values.includes(item));
    if (missing !== undefined) throw invalid(`${name}=${missing} is not supported: ${config.served.otherwise}`);
  }
  return parsed;
}

const invalidValue = (value: string, name: string, problem: string): string =>
  `Invalid value ${value} for configuration ${name}: ${problem}`;
const shown = (config: TopicConfig, value: string): string =>
  config.type === 'list' ? `[${value.split(',').join(', ')}]` : value;

function parseByType(config: TopicConfig, name: string, text: string): string {
  switch (config.type) {
    case 'boolean': {
      const lower = text.toLowerCase();
      if (lower === 'true' || lower === 'false') return lower;
      throw invalid(invalidValue(text, name, 'Expected value to be either true or false'));
    }
    case 'int':
    case 'long': {
      const limit = config.type === 'int' ? INT_MAX : LONG_MAX;
      const number = /^[+-]?\d{1,20}$/.test(text) ? BigInt(text.replace('+', '')) : undefined;
      if (number === undefined || number > limit || number < -limit - 1n)
        throw invalid(invalidValue(text, name, `Not a number of type ${config.type.toUpperCase()}`));
      checkRange(config, name, Number(number), String(number));
      return String(number);
    }
    case 'double': {
      const number = text === '' ? Number.NaN : Number(text);
      if (!Number.isFinite(number)) throw invalid(invalidValue(text, name, 'Not a number of type DOUBLE'));
      const canonical = Number.isInteger(number) ? number.toFixed(1) : String(number);
      checkRange(config, name, number, canonical);
      return canonical;
    }
    case 'string':
    case 'list': {
      const items = config.type === 'list' ? [...new Set(listItems(text))] : [text];
      const values = config.values;
      const wrong = values ? items.find((item) => !values.includes(item)) : undefined;
      if (wrong !== undefined)
        throw invalid(invalidValue(wrong, name, `String must be one of: ${config.values?.join(', ')}`));
      return items.join(',');
    }
  }
}

function checkRange(config: TopicConfig, name: string, number: number, text: string): void {
  if (config.min !== undefined && number < config.min)
    throw invalid(invalidValue(text, name, `Value must be at least ${config.min}`));
  if (config.max !== undefined && number > config.max)
    throw invalid(invalidValue(text, name, `Value must be no more than ${config.max}`));
}

/** The items of a list value; none for empty text. */
export function listItems(value: string): string[] {
  return value === '' ? [] : value.split(',').map((item) => item.trim());
}

/** Checks a whole set as a client gave it and answers the canonical one. INVALID_CONFIG names the first that is wrong. */
export function checkTopicConfigs(values: Iterable<readonly [string, string | null]>): Map<string, string> {
  const given = [...values];
  for (const [name] of given) topicConfig(name);
  const checked = new Map<string, string>();
  for (const [name, value] of given) {
    if (value === null) throw invalid(`Null value not supported for topic configs: ${name}`);
    checked.set(name, parseTopicConfig(name, value));
  }
  const minLag = BigInt(checked.get('min.compaction.lag.ms') ?? topicConfigs['min.compaction.lag.ms'].default);
  const maxLag = BigInt(checked.get('max.compaction.lag.ms') ?? topicConfigs['max.compaction.lag.ms'].default);
  if (minLag > maxLag) {
    throw invalid(
      `conflict topic config setting min.compaction.lag.ms (${minLag}) > max.compaction.lag.ms (${maxLag})`,
    );
  }
  return checked;
}

/** The broker option behind a topic config, if it is one of ours. */
export function optionBehind(config: TopicConfig): OptionName | undefined {
  const { synonym } = config;
  // hasOwn proves that the name is a key of the table.
  return synonym !== undefined && Object.hasOwn(optionTable, synonym) ? (synonym as OptionName) : undefined;
}

/** An option's value as Kafka writes it: what stands for "no limit" here (2^53-1) is its largest long. */
export function optionText(value: string | number | boolean): string {
  return value === Number.MAX_SAFE_INTEGER ? LONG_MAX_TEXT : String(value);
}

/** The value in force: the topic's own, else the broker's, else Kafka's default. */
export function topicConfigValue(name: string, overrides: Overrides, options: Options): string {
  const own = overrides.get(name);
  if (own !== undefined) return own;
  const config = topicConfig(name);
  const option = optionBehind(config);
  return option === undefined ? config.default : optionText(options[option]);
}

/**
 * What the log of the topic's partitions has to know. Longs beyond 2^53-1 are cut to it: that is as good as never. Logs of
 * the broker itself are kept short by who writes them (`state-log.ts`), never compacted.
 */
export function toLogConfig(overrides: Overrides, options: Options, isInternal = false): LogConfig {
  const text = (name: string): string => topicConfigValue(name, overrides, options);
  const number = (name: string): number => {
    const value = Number(text(name));
    return Math.min(Math.max(value, Number.MIN_SAFE_INTEGER), Number.MAX_SAFE_INTEGER);
  };
  const policies = listItems(text('cleanup.policy'));
  const isDeleting = policies.includes('delete');
  const isCompacted = policies.includes('compact') && !isInternal;
  const maxLagMs = number('max.compaction.lag.ms');
  return {
    segmentBytes: number('segment.bytes'),
    // Only sealed segments are compacted.
    segmentMs: isCompacted ? Math.min(number('segment.ms'), maxLagMs) : number('segment.ms'),
    segmentIndexBytes: number('segment.index.bytes'),
    indexIntervalBytes: number('index.interval.bytes'),
    retentionMs: isDeleting ? number('retention.ms') : -1,
    // Kafka takes any negative number for "no limit".
    retentionBytes: isDeleting ? Math.max(-1, number('retention.bytes')) : -1,
    fileDeleteDelayMs: number('file.delete.delay.ms'),
    timestampType: text('message.timestamp.type') === 'LogAppendTime' ? 'LogAppendTime' : 'CreateTime',
    timestampBeforeMaxMs: number('message.timestamp.before.max.ms'),
    timestampAfterMaxMs: number('message.timestamp.after.max.ms'),
    maxMessageBytes: number('max.message.bytes'),
    compaction: isCompacted
      ? {
          minDirtyRatio: number('min.cleanable.dirty.ratio'),
          minLagMs: number('min.compaction.lag.ms'),
          maxLagMs,
          deleteRetentionMs: number('delete.retention.ms'),
        }
      : undefined,
  };
}
