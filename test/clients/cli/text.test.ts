import test from 'ava';
import fc from 'fast-check';
import {
  type Command,
  UsageError,
  commandHelp,
  keyValue,
  parseCommand,
  wholeNumber,
} from '../../../clients/cli/command.ts';
import { exampleConfig, parseConfig } from '../../../clients/cli/config-file.ts';
import { sizeText, table } from '../../../clients/cli/output.ts';
import { parseDuration, parsePlace, parseTime } from '../../../clients/cli/places.ts';
import { parseRecordJson, recordJson, recordLine } from '../../../clients/cli/record-text.ts';
import { parseDoor } from '../../../clients/cli/serve.ts';
import { topicAndPartition } from '../../../clients/cli/cluster-flags.ts';
import { options } from '../../../broker/config.ts';

const NOW = Date.UTC(2026, 0, 31, 12);

test('places in a log are read as people write them', (t) => {
  const place = (text: string) => parsePlace('--from', text, NOW);
  t.deepEqual(place('earliest'), { kind: 'earliest' });
  t.deepEqual(place('42'), { kind: 'offset', offset: 42 });
  t.deepEqual(place('-10'), { kind: 'before-end', count: 10 });
  t.deepEqual(place('@1500'), { kind: 'time', timestamp: 1500 });
  t.deepEqual(place('2026-01-31'), { kind: 'time', timestamp: Date.UTC(2026, 0, 31) });
  t.deepEqual(place('2026-01-31T10:00'), { kind: 'time', timestamp: Date.UTC(2026, 0, 31, 10) });
  t.deepEqual(place('2026-01-31T10:00:00.5+02:00'), { kind: 'time', timestamp: Date.UTC(2026, 0, 31, 8, 0, 0, 500) });
  t.deepEqual(place('2h'), { kind: 'time', timestamp: NOW - 7_200_000 });
  t.deepEqual(place('-90s'), { kind: 'time', timestamp: NOW - 90_000 });
  t.deepEqual(place('PT1H30M'), { kind: 'time', timestamp: NOW - 5_400_000 });
  for (const text of ['', 'now', '1.5', 'PT', '2026-13-01', '99999999999999999999', '-']) {
    t.throws(() => place(text), { instanceOf: UsageError }, text);
  }
});

test('durations add up', (t) => {
  t.is(parseDuration('1d2h3m4s5ms'), 93_784_005);
  t.is(parseDuration('1.5h'), 5_400_000);
  t.is(parseDuration('P1W2DT3H'), 604_800_000 + 2 * 86_400_000 + 3 * 3_600_000);
  for (const text of ['', 'h', '5', '5y', 'P', '5m ago']) t.is(parseDuration(text), undefined, text);
  t.is(parseTime('yesterday'), undefined);
});

const command: Command = {
  name: 'test',
  usage: 'NAME [flags]',
  summary: 'Tests',
  arity: [1, 2],
  flags: {
    count: { value: 'N', short: 'n', help: 'how many' },
    set: { value: 'K=V', isRepeatable: true, help: 'some' },
    force: { help: 'do it' },
  },
  async run() {},
};

test('flags and arguments are read, and what does not fit is told', (t) => {
  const args = parseCommand(command, ['a', '--count', '-5', '--set=a=1', '--set', 'b=', '--force', 'b']);
  t.deepEqual(args.positionals, ['a', 'b']);
  t.is(args.text('count'), '-5');
  t.deepEqual(args.texts('set'), ['a=1', 'b=']);
  t.true(args.has('force'));
  t.false(args.has('nothing'));
  const wrong = (...argv: string[]) => t.throws(() => parseCommand(command, argv), { instanceOf: UsageError })?.message;
  t.is(wrong('a', '--coun', '1'), "there is no flag '--coun' here; did you mean --count?");
  t.is(wrong('a', '--count', '1', '-n', '2'), '--count was given more than once');
  t.regex(wrong() ?? '', /something is missing/);
  t.regex(wrong('a', 'b', 'c') ?? '', /'c' is one argument too many/);
  t.truthy(wrong('a', '--count'));
  t.truthy(wrong('a', '--force=yes'));
});

test('the help shows every flag', (t) => {
  const help = commandHelp(command);
  for (const text of ['millrace test NAME', '-n, --count N', '--set K=V', '--force', '--help'])
    t.true(help.includes(text), text);
});

test('values of flags are checked', (t) => {
  t.is(wholeNumber('--n', '12'), 12);
  for (const text of ['', '1.5', 'a', '-1', '9007199254740993'])
    t.throws(() => wholeNumber('--n', text), { instanceOf: UsageError });
  t.deepEqual(keyValue('--set', 'a=b=c'), ['a', 'b=c']);
  for (const text of ['', 'a', '=b']) t.throws(() => keyValue('--set', text), { instanceOf: UsageError });
  t.deepEqual(topicAndPartition('a.b:3'), { topic: 'a.b', partition: 3 });
  t.throws(() => topicAndPartition('a:x'), { instanceOf: UsageError });
});

test('a door is an address or off', (t) => {
  t.deepEqual(parseDoor('kafka', '0.0.0.0:9092'), { host: '0.0.0.0', port: 9092 });
  t.deepEqual(parseDoor('kafka', ':0'), { host: '127.0.0.1', port: 0 });
  t.deepEqual(parseDoor('kafka', '9093'), { host: '127.0.0.1', port: 9093 });
  t.deepEqual(parseDoor('kafka', '[::1]:1'), { host: '::1', port: 1 });
  t.is(parseDoor('kafka', 'off'), undefined);
  for (const text of ['', 'on', 'a:b', '::1:9092', 'host', 'a:70000']) {
    t.throws(() => parseDoor('kafka', text), { instanceOf: UsageError }, text);
  }
});

test('the example configuration holds every option and changes nothing', async (t) => {
  const text = exampleConfig();
  t.deepEqual(await parseConfig(text.replace('options:', 'options: {}'), 'f'), { doors: {}, options: {} });
  for (const name of Object.keys(options)) t.true(text.includes(`\n  #${name}: `), name);
  // With every comment sign in front of a setting taken away it is what the broker does by default.
  const all = await parseConfig(text.replaceAll(/^( *)#(?=[a-z.-]+: )/gm, '$1'), 'f');
  t.deepEqual(all.options, Object.fromEntries(Object.entries(options).map(([name, option]) => [name, option.default])));
});

test('a configuration file that is not understood is refused by name', async (t) => {
  const cases: [string, RegExp][] = [
    ['kafka: [', /f: /],
    ['- a', /must be a mapping/],
    ['kafka-port: 1', /'kafka-port: 1' is not understood/],
    ['options: 3', /options must be a mapping/],
    ['options: {a: [1]}', /option a takes one value/],
    ['data-dir: 5', /not understood/],
  ];
  for (const [text, message] of cases) {
    await t.throwsAsync(parseConfig(text, 'f'), { instanceOf: UsageError, message }, text);
  }
  t.deepEqual(await parseConfig('kafka: off\nhttp: false\ninsecure: true\noptions:\n  num.partitions: 3\n', 'f'), {
    doors: { kafka: 'off', http: 'off' },
    insecure: true,
    options: { 'num.partitions': 3 },
  });
  t.deepEqual(await parseConfig('', 'f'), { doors: {}, options: {} });
});

test('a table lines up its columns', (t) => {
  t.is(
    table(
      ['NAME', 'N'],
      [
        ['a', 1],
        ['long', 100],
      ],
    ),
    'NAME    N\na       1\nlong  100\n',
  );
  t.is(table(['NAME', 'N'], [['a', null]]), 'NAME  N\na     -\n');
  t.deepEqual([0, 1023, 1536, 10 * 1024 ** 2].map(sizeText), ['0 B', '1023 B', '1.5 KiB', '10 MiB']);
});

const target = { topic: 't', partition: 1 };

test('a record survives the way through NDJSON, whatever its bytes', (t) => {
  const bytes = fc.option(
    fc.oneof(
      fc.string().map((text) => Buffer.from(text)),
      fc.uint8Array().map(Buffer.from),
    ),
    { nil: null },
  );
  const record = fc.record({
    offset: fc.nat(),
    timestamp: fc.nat(),
    key: bytes,
    value: bytes,
    headers: fc.array(fc.record({ key: fc.string(), value: bytes }), { maxLength: 3 }),
  });
  fc.assert(
    fc.property(record, (original) => {
      const line = JSON.stringify(recordJson(target, original));
      const { key, value, headers, timestamp, partition } = parseRecordJson(line, 0);
      t.deepEqual(
        { key, value, headers, timestamp, partition },
        {
          key: original.key,
          value: original.value,
          headers: original.headers,
          timestamp: original.timestamp,
          partition: 1,
        },
      );
    }),
  );
});

test('a line of NDJSON that is no record is refused', (t) => {
  for (const line of [
    '',
    '[]',
    '"a"',
    'null',
    '{"timestamp":"x"}',
    '{"partition":-1}',
    '{"headers":5}',
    '{"headers":[1]}',
  ]) {
    t.throws(() => parseRecordJson(line, 0), undefined, line);
  }
  t.deepEqual(parseRecordJson('{"value":{"a":1},"headers":{"h":"1"}}', 7), {
    key: null,
    value: Buffer.from('{"a":1}'),
    headers: [{ key: 'h', value: Buffer.from('1') }],
    timestamp: 7,
  });
});

test('a record cannot send control characters to a terminal', (t) => {
  const value = Buffer.from('a\u001b[31m\nb\u009b\tc');
  const record = { offset: 5, timestamp: 0, key: null, value, headers: [{ key: 'h\n', value: Buffer.from([0xff]) }] };
  const line = recordLine(target, record, true);
  t.is(line.split('\n').length, 2);
  t.true(line.includes('a\\u001b[31m\\nb\\u009b\\tc'));
  t.true(line.includes('h\\n=base64:/w=='));
});
