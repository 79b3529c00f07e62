import test from 'ava';
import { resolveOptions } from '../../broker/config.ts';
import {
  checkTopicConfigs,
  optionBehind,
  parseTopicConfig,
  toLogConfig,
  topicConfigs,
  topicConfigValue,
} from '../../broker/topic-config.ts';

const options = resolveOptions();
const refused = (name: string, value: string): string => {
  try {
    parseTopicConfig(name, value);
  } catch (error) {
    return (error as Error).message;
  }
  return 'accepted';
};

test('every default passes its own check, and an option behind it has the same one', (t) => {
  for (const [name, config] of Object.entries(topicConfigs)) {
    t.is(parseTopicConfig(name, config.default), config.default, name);
    if (optionBehind(config)) t.is(topicConfigValue(name, new Map(), options), config.default, name);
    t.true(config.documentation.length > 10, name);
  }
});

test('wrong values are refused in the words of Apache Kafka 4.4', (t) => {
  const cases: [string, string, string][] = [
    ['retention.ms', 'abc', 'Invalid value abc for configuration retention.ms: Not a number of type LONG'],
    ['retention.ms', '-5', 'Invalid value -5 for configuration retention.ms: Value must be at least -1'],
    [
      'retention.ms',
      '9223372036854775808',
      'Invalid value 9223372036854775808 for configuration retention.ms: Not a number of type LONG',
    ],
    ['retention.ms', '', 'Invalid value  for configuration retention.ms: Not a number of type LONG'],
    ['retention.ms', '1.5', 'Invalid value 1.5 for configuration retention.ms: Not a number of type LONG'],
    ['retention.ms', '1e3', 'Invalid value 1e3 for configuration retention.ms: Not a number of type LONG'],
    ['segment.bytes', '14', 'Invalid value 14 for configuration segment.bytes: Value must be at least 1048576'],
    [
      'segment.bytes',
      '2147483648',
      'Invalid value 2147483648 for configuration segment.bytes: Not a number of type INT',
    ],
    [
      'preallocate',
      'yes',
      'Invalid value yes for configuration preallocate: Expected value to be either true or false',
    ],
    [
      'compression.type',
      'foo',
      'Invalid value foo for configuration compression.type: String must be one of: uncompressed, zstd, lz4, snappy, gzip, producer',
    ],
    [
      'cleanup.policy',
      'foo',
      'Invalid value foo for configuration cleanup.policy: String must be one of: compact, delete',
    ],
    [
      'message.timestamp.type',
      'x',
      'Invalid value x for configuration message.timestamp.type: String must be one of: CreateTime, LogAppendTime',
    ],
    [
      'min.cleanable.dirty.ratio',
      '2',
      'Invalid value 2.0 for configuration min.cleanable.dirty.ratio: Value must be no more than 1',
    ],
    [
      'min.cleanable.dirty.ratio',
      'x',
      'Invalid value x for configuration min.cleanable.dirty.ratio: Not a number of type DOUBLE',
    ],
    [
      'compression.gzip.level',
      '10',
      'Invalid value 10 for configuration compression.gzip.level: Value must be between 1 and 9 or equal to -1',
    ],
    [
      'leader.replication.throttled.replicas',
      'x',
      "Invalid value [x] for configuration leader.replication.throttled.replicas: leader.replication.throttled.replicas must be the literal '*' or a list of replicas in the following format: [partitionId]:[brokerId],[partitionId]:[brokerId],...",
    ],
    [
      'remote.storage.enable',
      'true',
      'Tiered Storage functionality is disabled in the broker. Topic cannot be configured with remote log storage.',
    ],
    ['foo', '1', 'Unknown topic config name: foo'],
    ['toString', '1', 'Unknown topic config name: toString'],
  ];
  for (const [name, value, message] of cases) t.is(refused(name, value), message);
});

test('what Apache Kafka takes is taken and kept in canonical text', (t) => {
  t.is(parseTopicConfig('retention.ms', ' 5 '), '5');
  t.is(parseTopicConfig('retention.ms', '+5'), '5');
  t.is(parseTopicConfig('retention.ms', '9223372036854775807'), '9223372036854775807');
  t.is(parseTopicConfig('retention.bytes', '-7'), '-7');
  t.is(parseTopicConfig('preallocate', 'TRUE'), 'true');
  t.is(parseTopicConfig('cleanup.policy', 'delete,delete'), 'delete');
  t.is(parseTopicConfig('cleanup.policy', ''), '');
  t.is(parseTopicConfig('cleanup.policy', 'delete, compact'), 'delete,compact');
  t.is(parseTopicConfig('leader.replication.throttled.replicas', '0:1,1:1'), '0:1,1:1');
});

test('what is not served is refused with a reason', (t) => {
  t.regex(refused('compression.type', 'zstd'), /^compression\.type=zstd is not supported: /);
});

test('a value has a limit', (t) => {
  const long = `0:1${',0:1'.repeat(8191)}`;
  t.is(long.length, 32_767);
  t.is(parseTopicConfig('leader.replication.throttled.replicas', long), '0:1');
  t.regex(refused('leader.replication.throttled.replicas', `${long},0:1`), /at most 32767/);
});

test('a set is checked as a whole', (t) => {
  t.throws(() => checkTopicConfigs([['retention.ms', null]]), {
    code: 'INVALID_CONFIG',
    message: 'Null value not supported for topic configs: retention.ms',
  });
  t.throws(
    () =>
      checkTopicConfigs([
        ['min.compaction.lag.ms', '10'],
        ['max.compaction.lag.ms', '5'],
      ]),
    { message: 'conflict topic config setting min.compaction.lag.ms (10) > max.compaction.lag.ms (5)' },
  );
});

test('a log config takes the topic’s value, else the option’s, and cuts longs that no number holds', (t) => {
  const changed = { ...options, 'log.segment.bytes': 2_000_000, 'log.retention.ms': 5 };
  const config = toLogConfig(new Map([['retention.ms', '9223372036854775807']]), changed);
  t.is(config.segmentBytes, 2_000_000);
  t.is(config.retentionMs, Number.MAX_SAFE_INTEGER);
  t.is(config.maxMessageBytes, 1_048_588);
  t.is(config.timestampType, 'CreateTime');
  t.is(toLogConfig(new Map([['retention.bytes', '-7']]), changed).retentionBytes, -1);
});

test('without cleanup.policy=delete nothing is ever deleted', (t) => {
  for (const policy of ['', 'compact']) {
    const config = toLogConfig(
      new Map([
        ['cleanup.policy', policy],
        ['retention.ms', '1'],
        ['retention.bytes', '1'],
      ]),
      options,
    );
    t.is(config.retentionMs, -1);
    t.is(config.retentionBytes, -1);
  }
});

test('with cleanup.policy=compact the log knows how it is to be compacted, unless the broker keeps it short itself', (t) => {
  const overrides = new Map([
    ['cleanup.policy', 'compact,delete'],
    ['min.cleanable.dirty.ratio', '0.25'],
    ['min.compaction.lag.ms', '7'],
    ['max.compaction.lag.ms', '9000'],
    ['retention.ms', '10'],
  ]);
  const config = toLogConfig(overrides, options);
  t.deepEqual(config.compaction, { minDirtyRatio: 0.25, minLagMs: 7, maxLagMs: 9000, deleteRetentionMs: 86_400_000 });
  // A segment that is not sealed cannot be compacted.
  t.is(config.segmentMs, 9000);
  t.is(config.retentionMs, 10);
  t.is(toLogConfig(overrides, options, true).compaction, undefined);
  t.is(toLogConfig(new Map(), options).compaction, undefined);
});
