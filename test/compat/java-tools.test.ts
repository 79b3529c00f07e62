/** Kafka's own command-line tools (4.3.1) with their default settings. What they print is what they print on Apache Kafka. */
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import test from 'ava';
import { findToolJars, JavaTools, type RunningTool, type ToolResult } from './java-tools.ts';
import { isFull, openTarget, sayMissing, type Target, withFolder } from './target.ts';

const jars = findToolJars();
let tools: JavaTools;
let target: Target;

if (jars) {
  test.before(async () => {
    // Members of the new protocol hear of a change with their next heartbeat.
    target = await openTarget({ 'group.consumer.heartbeat.interval.ms': 200 });
    tools = new JavaTools(jars);
  });
  test.after.always(async () => {
    await tools?.close();
    await target?.stop();
  });
} else {
  sayMissing("the folder of Kafka's tools, or Java,");
  test('the tools of Kafka are not installed here', (t) => t.pass());
}

/** Names of this run, so that it can be repeated on a broker that keeps its topics. */
const run = process.pid.toString(36);
const named = (name: string): string => `${name}-${run}`;
const define = jars ? test : (): void => {};

const CLASSES = {
  topics: 'TopicCommand',
  configs: 'kafka.admin.ConfigCommand',
  groups: 'consumer.group.ConsumerGroupCommand',
  consume: 'consumer.ConsoleConsumer',
  produce: 'ConsoleProducer',
} as const;

/** `tool('topics', '--list')`: words are split at spaces. */
async function tool(name: string, words: string, input = ''): Promise<ToolResult> {
  if (name !== 'consume') return tools.run(...command(name, words), input);
  // The console consumer counts its messages in a static field: one at a time.
  const result = consoleConsumer.then(() => tools.run(...command(name, words), input));
  consoleConsumer = result.catch(() => {});
  return result;
}

let consoleConsumer: Promise<unknown> = Promise.resolve();

async function startTool(name: string, words: string): Promise<RunningTool> {
  return tools.start(...command(name, words));
}

function command(name: string, words: string): [string, string[]] {
  const className = Object.entries(CLASSES).find(([key]) => key === name)?.[1] ?? name;
  return [className, ['--bootstrap-server', target.bootstrap, ...words.split(' ').filter((word) => word !== '')]];
}

/** Standard output by lines, without the warnings that tools print there and with runs of blanks as one. */
function linesOf({ out }: ToolResult): string[] {
  return out
    .split('\n')
    .map((line) => line.replace(/[ \t]+/g, ' ').trim())
    .filter((line) => line !== '' && !/^(WARNING|WARN|Warn):/.test(line));
}

define('TopicCommand creates, lists, describes, alters and deletes topics', async (t) => {
  const name = named('topics');
  const created = await tool('topics', `--create --topic ${name} --partitions 3 --config retention.ms=100000`);
  t.deepEqual(linesOf(created), [`Created topic ${name}.`]);
  t.is(created.code, 0);
  const again = await tool('topics', `--create --topic ${name}`);
  t.is(again.code, 1);
  t.regex(again.out, new RegExp(`Topic '${name}' already exists`));
  t.is((await tool('topics', `--create --topic ${name} --if-not-exists`)).code, 0);
  t.true(linesOf(await tool('topics', '--list --exclude-internal')).includes(name));
  t.deepEqual(linesOf(await tool('topics', `--describe --topic ${name}`)).slice(1), [
    `Topic: ${name} Partition: 0 Leader: 1 Replicas: 1 Isr: 1 Elr: LastKnownElr:`,
    `Topic: ${name} Partition: 1 Leader: 1 Replicas: 1 Isr: 1 Elr: LastKnownElr:`,
    `Topic: ${name} Partition: 2 Leader: 1 Replicas: 1 Isr: 1 Elr: LastKnownElr:`,
  ]);
  const heading = linesOf(await tool('topics', `--describe --topic ${name}`))[0];
  t.regex(heading, /TopicId: [\w-]{22} PartitionCount: 3 ReplicationFactor: 1 Configs: .*retention.ms=100000/);
  t.deepEqual(linesOf(await tool('topics', '--describe --under-replicated-partitions')), []);
  t.deepEqual(linesOf(await tool('topics', '--describe --unavailable-partitions')), []);
  t.true(linesOf(await tool('topics', '--describe --topics-with-overrides')).some((line) => line.includes(name)));
  t.is((await tool('topics', `--alter --topic ${name} --partitions 5`)).code, 0);
  const fewer = await tool('topics', `--alter --topic ${name} --partitions 2`);
  t.is(fewer.code, 1);
  t.regex(fewer.out, /currently has 5 partition\(s\); 2 would not be an increase/);
  t.is((await tool('topics', `--delete --topic ${name}`)).code, 0);
  t.false(linesOf(await tool('topics', '--list')).includes(name));
});

define('TopicCommand is told what is wrong with a topic', async (t) => {
  const cases: [string, RegExp][] = [
    [
      '--create --topic bad/name',
      /Topic name is invalid: 'bad\/name' contains one or more characters other than ASCII/,
    ],
    ['--create --topic wide --replication-factor 2', /only 1 broker\(s\) are registered/],
    ['--create --topic odd --config nonsense=2', /Unknown topic config name: nonsense/],
    ['--create --topic odd --config retention.ms=-2', /Invalid value -2 for configuration retention.ms/],
    ['--describe --topic not-there', /Topic 'not-there' does not exist as expected/],
    ['--alter --topic not-there --partitions 2', /Topic 'not-there' does not exist as expected/],
    ['--delete --topic not-there', /Topic 'not-there' does not exist as expected/],
  ];
  for (const [words, message] of cases) {
    const result = await tool('topics', words);
    t.is(result.code, 1, words);
    t.regex(result.out, message);
  }
  const [dotted, underscored] = [`${named('col')}.x`, `${named('col')}_x`];
  t.is((await tool('topics', `--create --topic ${dotted} --replica-assignment 1,1`)).code, 0);
  const collision = await tool('topics', `--create --topic ${underscored}`);
  t.is(collision.code, 1);
  t.regex(collision.out, /collides with existing topic/);
});

define('ConfigCommand reads and changes the configuration of topics', async (t) => {
  const name = named('configs');
  await tool('topics', `--create --topic ${name} --config segment.bytes=1048576`);
  const entity = `--entity-type topics --entity-name ${name}`;
  const set = await tool('configs', `--alter ${entity} --add-config max.message.bytes=2000,retention.ms=60000`);
  t.deepEqual(linesOf(set), [`Completed updating config for topic ${name}.`]);
  const described = linesOf(await tool('configs', `--describe ${entity}`));
  t.deepEqual(
    described.map((line) => line.split(' sensitive')[0]),
    [`Dynamic configs for topic ${name} are:`, 'max.message.bytes=2000', 'retention.ms=60000', 'segment.bytes=1048576'],
  );
  t.regex(described[1], /DYNAMIC_TOPIC_CONFIG:max.message.bytes=2000, DEFAULT_CONFIG:message.max.bytes=1048588/);
  t.is((await tool('configs', `--alter ${entity} --delete-config max.message.bytes`)).code, 0);
  t.false((await tool('configs', `--describe ${entity}`)).out.includes('max.message.bytes'));
  const all = linesOf(await tool('configs', `--describe ${entity} --all`));
  // Every topic config of Apache Kafka 4.4 is answered, with its default.
  t.is(all.length, 38);
  t.true(all.some((line) => line.startsWith('max.message.bytes=1048588 ')));
  for (const [words, message] of [
    [`--alter ${entity} --add-config nonsense=2`, /InvalidConfigurationException: Unknown topic config name: nonsense/],
    [
      `--alter ${entity} --add-config retention.ms=-5`,
      /Invalid value -5 for configuration retention.ms: Value must be at/,
    ],
    ['--alter --entity-type topics --entity-name not-there --add-config retention.ms=5', /UnknownTopicOrPartition/],
  ] as const) {
    const result = await tool('configs', words);
    t.is(result.code, 1, words);
    t.regex(result.err, message);
  }
});

define('ConfigCommand changes options of the running broker', async (t) => {
  const broker = '--entity-type brokers --entity-name 1';
  const whole = '--entity-type brokers --entity-default';
  const name = 'log.segment.delete.delay.ms';
  t.is((await tool('configs', `--alter ${broker} --add-config ${name}=71000`)).code, 0);
  t.is((await tool('configs', `--alter ${whole} --add-config ${name}=72000`)).code, 0);
  const described = await tool('configs', `--describe ${broker}`);
  t.regex(
    described.out,
    /delay.ms=71000 sensitive=false synonyms=\{DYNAMIC_BROKER_CONFIG:log.segment.delete.delay.ms=71000, DYNAMIC_DEFAULT_BROKER_CONFIG:log.segment.delete.delay.ms=72000, DEFAULT_CONFIG:log.segment.delete.delay.ms=60000\}/,
  );
  t.is((await tool('configs', `--alter ${broker} --delete-config ${name}`)).code, 0);
  t.regex((await tool('configs', `--describe ${whole}`)).out, /log.segment.delete.delay.ms=72000/);
  t.is((await tool('configs', `--alter ${whole} --delete-config ${name}`)).code, 0);
  t.false((await tool('configs', `--describe ${whole}`)).out.includes('delete.delay'));
  const fixed = await tool('configs', `--alter ${broker} --add-config socket.request.max.bytes=99999999`);
  t.is(fixed.code, 1);
  t.regex(fixed.err, /Cannot update these configs dynamically: \[socket.request.max.bytes\]/);
  t.is((await tool('configs', `--alter ${broker} --add-config log.retention.ms=abc`)).code, 1);
  t.regex((await tool('configs', '--describe --entity-type brokers --entity-name 9')).out, /broker '9' doesn't exist/);
  t.regex((await tool('configs', `--describe ${broker} --all`)).out, /message.max.bytes=1048588/);
});

define('what the console producer sends with any codec the console consumer prints', async (t) => {
  const name = named('console');
  const sent: string[] = [];
  for (const codec of ['none', 'gzip', 'snappy', 'lz4', 'zstd']) {
    const records = Array.from({ length: 50 }, (_, index) => `${codec} ${index} ${'mill'.repeat(100)}`);
    const result = await tool('produce', `--topic ${name} --compression-codec ${codec}`, `${records.join('\n')}\n`);
    t.is(result.code, 0, result.err);
    sent.push(...records);
  }
  const last = await tool(
    'produce',
    `--topic ${name} --command-property acks=1 --reader-property parse.headers=true --reader-property parse.key=true`,
    'h1:v1,h2:v2\tkey\tten\n',
  );
  t.is(last.code, 0);
  const all = await tool('consume', `--topic ${name} --from-beginning --max-messages 251 --timeout-ms 10000`);
  t.deepEqual(all.out.trim().split('\n'), [...sent, 'ten']);
  const properties = ['print.offset', 'print.partition', 'print.headers', 'print.key', 'print.timestamp'];
  const end = await tool(
    'consume',
    `--topic ${name} --partition 0 --offset 250 --max-messages 1 --timeout-ms 10000 ${properties.map((property) => `--formatter-property ${property}=true`).join(' ')}`,
  );
  t.regex(end.out, /^CreateTime:\d{13}\tPartition:0\tOffset:250\th1:v1,h2:v2\tkey\tten\n$/);
});

define('a group of console consumers carries on where it stopped, by pattern and read committed too', async (t) => {
  const name = named('resume');
  await tool('topics', `--create --topic ${name} --partitions 3`);
  const numbers = Array.from({ length: 30 }, (_, index) => `${index}:${index}`);
  const keyed = '--reader-property parse.key=true --reader-property key.separator=:';
  await tool('produce', `--topic ${name} ${keyed}`, `${numbers.join('\n')}\n`);
  const group = `--group g-${name} --timeout-ms 10000`;
  const first = await tool('consume', `--topic ${name} ${group} --from-beginning --max-messages 12`);
  const second = await tool(
    'consume',
    `--include ${name}.* ${group} --max-messages 18 --isolation-level read_committed`,
  );
  const seen = [first, second].flatMap(({ out }) => out.trim().split('\n').map(Number));
  t.deepEqual(
    seen.sort((a, b) => a - b),
    numbers.map((_, index) => index),
  );
  const none = await tool(
    'consume',
    `--topic ${name} --group none-${name} --timeout-ms 5000 --command-property auto.offset.reset=none`,
  );
  t.regex(none.err, /NoOffsetForPartitionException/);
});

define('ConsumerGroupCommand shows members and state, moves offsets and deletes groups', async (t) => {
  const name = named('groups');
  const group = named('group');
  await tool('topics', `--create --topic ${name} --partitions 2`);
  const keyed = '--reader-property parse.key=true --reader-property key.separator=:';
  await tool(
    'produce',
    `--topic ${name} ${keyed}`,
    `${Array.from({ length: 20 }, (_, i) => `k${i}:v${i}`).join('\n')}\n`,
  );
  const consumer = await startTool('VerifiableConsumer', `--topic ${name} --group-id ${group} --reset-policy earliest`);
  await consumer.prints(/"offsets_committed".*"success":true/);
  const total = async (): Promise<number[]> => {
    const rows = linesOf(await tool('groups', `--describe --group ${group}`)).slice(1);
    return rows.map((row) => Number(row.split(' ')[3]));
  };
  // The first commit may cover only what the first poll brought.
  while ((await total()).reduce((sum, offset) => sum + (offset || 0), 0) < 20);
  const members = linesOf(await tool('groups', `--describe --group ${group} --members --verbose`));
  t.regex(
    members[1],
    new RegExp(`^${group} consumer-${group}-\\d+-[0-9a-f-]{36} /127.0.0.1 consumer-${group}-\\d+ 2 `),
  );
  t.regex(members[1], new RegExp(`${name}:0,1`));
  const state = linesOf(await tool('groups', `--describe --group ${group} --state`));
  t.is(state[1], `${group} ${target.bootstrap} (1) range Stable 1`);
  const busy = await tool('groups', `--reset-offsets --group ${group} --topic ${name} --to-earliest --execute`);
  t.regex(
    busy.out + busy.err,
    /Assignments can only be reset if the group '.*' is inactive, but the current state is Stable/,
  );
  t.regex((await tool('groups', `--delete --group ${group}`)).out, /GroupNotEmptyException/);
  const stuck = await tool('groups', `--delete-offsets --group ${group} --topic ${name}`);
  t.regex(stuck.out + stuck.err, /GroupSubscribedToTopicException|Consumer group .* is subscribed|actively subscribed/);
  await consumer.stop();
  t.true(linesOf(await tool('groups', '--list')).includes(group));
  t.true(linesOf(await tool('groups', '--list --state Empty')).includes(`${group} Empty`));
  t.true(linesOf(await tool('groups', '--list --type classic')).includes(`${group} Classic`));
  t.true(linesOf(await tool('GroupsCommand', '--list')).includes(`${group} Classic consumer`));

  const reset = async (words: string): Promise<string[]> =>
    linesOf(await tool('groups', `--reset-offsets --group ${group} ${words} --execute`))
      .slice(1)
      .map((row) => row.split(' ').slice(2).join(':'))
      .sort();
  const end = linesOf(await tool('GetOffsetShell', `--topic ${name}`)).map((row) => Number(row.split(':')[2]));
  t.deepEqual(await reset(`--topic ${name} --to-earliest`), ['0:0', '1:0']);
  t.deepEqual(await total(), [0, 0]);
  t.deepEqual(await reset(`--topic ${name}:1 --to-latest`), [`1:${end[1]}`]);
  t.deepEqual(await reset(`--all-topics --shift-by -1`), ['0:0', `1:${end[1] - 1}`]);
  t.deepEqual(await reset(`--topic ${name} --to-offset 3`), ['0:3', '1:3']);
  t.deepEqual(await reset(`--topic ${name} --to-offset 1000`), [`0:${end[0]}`, `1:${end[1]}`]);
  t.deepEqual(await reset(`--topic ${name} --to-datetime 2020-01-01T00:00:00.000`), ['0:0', '1:0']);
  t.deepEqual(await reset(`--topic ${name} --to-datetime 2199-01-01T00:00:00.000`), [`0:${end[0]}`, `1:${end[1]}`]);
  t.deepEqual(await reset(`--topic ${name} --by-duration PT1H`), ['0:0', '1:0']);
  t.deepEqual(await reset(`--topic ${name} --to-current`), ['0:0', '1:0']);
  const preview = await tool(
    'groups',
    `--reset-offsets --group ${group} --topic ${name} --to-latest --dry-run --export`,
  );
  t.deepEqual(linesOf(preview).sort(), [`${name},0,${end[0]}`, `${name},1,${end[1]}`]);
  await withFolder(async (folder) => {
    const file = join(folder, 'offsets.csv');
    await writeFile(file, `${name},0,2\n${name},1,1\n`);
    t.deepEqual(await reset(`--from-file ${file}`), ['0:2', '1:1']);
  });
  t.deepEqual(await total(), [2, 1]);
  t.regex((await tool('groups', `--delete-offsets --group ${group} --topic ${name}:0`)).out, /Request succeeded/);
  t.deepEqual(await total(), [1]);
  t.regex(
    (await tool('groups', `--delete --group ${group}`)).out,
    /Deletion of requested consumer groups \('.*'\) was successful/,
  );
  t.regex((await tool('groups', `--delete --group ${group}`)).out, /GroupIdNotFoundException/);
  t.regex((await tool('groups', `--describe --group ${group}`)).out, /GroupIdNotFoundException: Group .* not found/);
});

define('DeleteRecordsCommand moves the start, GetOffsetShell knows every special offset', async (t) => {
  const name = named('offsets');
  await tool('produce', `--topic ${name}`, `${Array.from({ length: 10 }, (_, index) => index).join('\n')}\n`);
  const offset = async (words: string): Promise<string[]> =>
    linesOf(await tool('GetOffsetShell', `--topic ${name} ${words}`));
  t.deepEqual(await offset(''), [`${name}:0:10`]);
  await withFolder(async (folder) => {
    const file = join(folder, 'records.json');
    const remove = async (wanted: number): Promise<ToolResult> => {
      const partitions = [{ topic: name, partition: 0, offset: wanted }];
      await writeFile(file, JSON.stringify({ partitions, version: 1 }));
      return tool('DeleteRecordsCommand', `--offset-json-file ${file}`);
    };
    t.regex((await remove(3)).out, new RegExp(`partition: ${name}-0\\s+low_watermark: 3`));
    t.deepEqual(await offset('--time earliest'), [`${name}:0:3`]);
    t.deepEqual(await offset('--time -4'), [`${name}:0:3`]);
    // The records were sent within a millisecond or two.
    t.regex((await offset('--time max-timestamp'))[0], new RegExp(`^${name}:0:[3-9]$`));
    t.deepEqual(await offset('--time -5'), []);
    t.deepEqual(await offset('--time 1000'), [`${name}:0:3`]);
    t.deepEqual(await offset('--time 4000000000000'), []);
    t.regex((await remove(99)).out, /OffsetOutOfRangeException/);
    t.regex((await remove(-7)).out, /OffsetOutOfRangeException/);
    const rest = await tool('consume', `--topic ${name} --from-beginning --max-messages 7 --timeout-ms 10000`);
    t.is(rest.out, '3\n4\n5\n6\n7\n8\n9\n');
    t.regex((await remove(-1)).out, /low_watermark: 10/);
    t.deepEqual(await offset('--time -2'), [`${name}:0:10`]);
  });
  t.deepEqual(linesOf(await tool('GetOffsetShell', `--topic-partitions ${name}:0-3`)), [`${name}:0:10`]);
  t.is((await tool('GetOffsetShell', '--topic not-there')).code, 1);
});

define('LogDirsCommand, BrokerApiVersionsCommand, ClusterTool and FeatureCommand are answered', async (t) => {
  const name = named('dirs');
  await tool('produce', `--topic ${name}`, 'one\n');
  const dirs = await tool('LogDirsCommand', `--describe --topic-list ${name}`);
  const answer = JSON.parse(dirs.out.split('\n')[2]);
  t.is(answer.brokers[0].broker, 1);
  t.is(answer.brokers[0].logDirs[0].error, null);
  const [partition] = answer.brokers[0].logDirs[0].partitions;
  t.like(partition, { partition: `${name}-0`, offsetLag: 0, isFuture: false });
  t.is(partition.size, 71);
  t.is((await tool('LogDirsCommand', '--describe --broker-list 9')).code, 1);
  const versions = await tool('BrokerApiVersionsCommand', '');
  t.is(versions.code, 0);
  t.regex(versions.out, /Produce\(0\): 0 to 13 \[usable: 13\]/);
  t.regex(versions.out, /Fetch\(1\): 4 to 18 \[usable: 18\]/);
  const cluster = await tools.run('ClusterTool', ['cluster-id', '--bootstrap-server', target.bootstrap]);
  t.regex(cluster.out, /^Cluster ID: [\w-]{22}\n$/);
  const endpoints = await tools.run('ClusterTool', ['list-endpoints', '--bootstrap-server', target.bootstrap]);
  t.regex(
    endpoints.out.replace(/ +/g, ' '),
    new RegExp(`1 ${target.bootstrap.replace(':', ' ')} null unfenced broker`),
  );
  t.is((await tool('FeatureCommand', 'describe')).code, 0);
  t.regex((await tool('reassign.ReassignPartitionsCommand', '--list')).out, /No partition reassignments found/);
});

define('commands for what is not served end with a clear error', async (t) => {
  if (!target.isMillrace) return t.pass();
  const cases: [string, string, RegExp][] = [
    ['LeaderElectionCommand', '--election-type preferred --all-topic-partitions', /does not support ELECT_LEADERS/],
    ['MetadataQuorumCommand', 'describe --status', /does not support DESCRIBE_QUORUM/],
    ['TransactionsCommand', 'list', /does not support LIST_TRANSACTIONS/],
    ['AclCommand', '--list', /does not support DESCRIBE_ACLS/],
    ['configs', '--describe --entity-type users', /does not support DESCRIBE_CLIENT_QUOTAS/],
  ];
  for (const [name, words, message] of cases) {
    const result = await tool(name, words);
    t.is(result.code, 1, name);
    t.regex(result.out + result.err, message);
  }
  return undefined;
});

define('VerifiableProducer and VerifiableConsumer count the same records', async (t) => {
  const name = named('verifiable');
  await tool('topics', `--create --topic ${name} --partitions 4`);
  for (const acks of ['-1', '1', '0']) {
    const produced = await tool('VerifiableProducer', `--topic ${name} --max-messages 500 --acks ${acks}`);
    t.is(produced.code, 0);
    t.regex(produced.out, /"name":"tool_data","sent":500,"acked":500/);
  }
  const assignors = ['RangeAssignor', 'RoundRobinAssignor', 'StickyAssignor', 'CooperativeStickyAssignor'];
  for (const assignor of assignors) {
    const consumed = await tool(
      'VerifiableConsumer',
      `--topic ${name} --group-id ${name}-${assignor} --max-messages 1500 --reset-policy earliest --assignment-strategy org.apache.kafka.clients.consumer.${assignor} --group-instance-id static-1`,
    );
    const events = linesOf(consumed).map((line): { name: string; count?: number; success?: boolean } =>
      JSON.parse(line),
    );
    const records = events.filter(({ name: event }) => event === 'records_consumed');
    t.is(
      records.reduce((sum, { count }) => sum + (count ?? 0), 0),
      1500,
      assignor,
    );
    t.true(events.filter(({ name: event }) => event === 'offsets_committed').every(({ success }) => success));
  }
});

define('partitions are shared out again when a member comes and goes', async (t) => {
  const name = named('shared');
  const group = named('sharing');
  await tool('topics', `--create --topic ${name} --partitions 4`);
  const cooperative = '--assignment-strategy org.apache.kafka.clients.consumer.CooperativeStickyAssignor';
  const words = `--topic ${name} --group-id ${group} --reset-policy earliest ${cooperative}`;
  const first = await startTool('VerifiableConsumer', words);
  await first.prints(/"partitions_assigned","partitions":\[\{.*\}\]/);
  const second = await startTool('VerifiableConsumer', words);
  await second.prints(/"partitions_assigned","partitions":\[\{.*\}\]/);
  const sizes = linesOf(await tool('groups', `--describe --group ${group} --members`)).slice(1);
  t.deepEqual(
    sizes.map((row) => row.split(' ').at(4)),
    ['2', '2'],
  );
  await second.stop();
  // Cooperative: the first keeps what it has and is given two more.
  await first.prints(/(?:"partitions_assigned"(?:.|\n)*){3}/);
  await first.stop();
});

define('the ClientCompatibilityTest of Kafka passes', async (t) => {
  if (!target.isMillrace) return t.pass();
  const flags = {
    '--num-cluster-nodes': '1',
    '--offsets-for-times-supported': 'true',
    '--cluster-id-supported': 'true',
    '--expect-record-too-large-exception': 'false',
    '--create-topics-supported': 'true',
    '--describe-acls-supported': 'false',
    '--describe-configs-supported': 'true',
    '--idempotent-producer-supported': 'true',
  };
  const words = Object.entries(flags).map((pair) => pair.join(' '));
  const result = await tool('ClientCompatibilityTest', `--topic ${named('compatible')} ${words.join(' ')}`);
  t.is(result.code, 0, result.out);
  t.regex(result.out, /SUCCESS/);
  return undefined;
});

define('a batch that is too large for the topic is split by the producer and sent again', async (t) => {
  const name = named('split');
  await tool('topics', `--create --topic ${name} --config max.message.bytes=20000`);
  const many = `--topic ${name} --num-records 2000 --record-size 1000 --throughput -1 --command-property batch.size=100000 linger.ms=100`;
  const produced = await tool('ProducerPerformance', many);
  t.regex(produced.err, /splitting and retrying/);
  t.regex(produced.out, /2000 records sent/);
  t.deepEqual(linesOf(await tool('GetOffsetShell', `--topic ${name}`)), [`${name}:0:2000`]);
  const large = await tool(
    'ProducerPerformance',
    `--topic ${name} --num-records 1 --record-size 30000 --throughput -1`,
  );
  t.regex(large.err, /RecordTooLargeException/);
});

define('offsets out of range are reset as auto.offset.reset says', async (t) => {
  const name = named('reset');
  await tool('produce', `--topic ${name}`, 'one\ntwo\nthree\n');
  const at = `--topic ${name} --partition 0 --offset 1000 --max-messages 1`;
  const reset = async (policy: string, words: string): Promise<ToolResult> =>
    tool('consume', `${words} --command-property auto.offset.reset=${policy}`);
  t.is((await reset('earliest', `${at} --timeout-ms 10000`)).out, 'one\n');
  t.is((await reset('latest', `${at} --timeout-ms 2000`)).out, '');
  t.regex((await reset('none', `${at} --timeout-ms 10000`)).err, /OffsetOutOfRangeException/);
  const group = `--topic ${name} --group ${name} --max-messages 1 --timeout-ms 5000`;
  t.is((await reset('by_duration:PT1H', group)).out, 'one\n');
});

define('a topic with LogAppendTime tells when its records were appended', async (t) => {
  const name = named('appended');
  await tool('topics', `--create --topic ${name} --config message.timestamp.type=LogAppendTime`);
  await tool('produce', `--topic ${name} --compression-codec lz4`, 'a\nb\n');
  const printed = '--formatter-property print.timestamp=true';
  const read = await tool('consume', `--topic ${name} --from-beginning --max-messages 2 --timeout-ms 5000 ${printed}`);
  t.regex(read.out, /^LogAppendTime:(\d{13})\ta\nLogAppendTime:\1\tb\n$/);
});

define('groups of the new protocol are shared out by the broker (KIP-848)', async (t) => {
  const name = named('new');
  await tool('topics', `--create --topic ${name} --partitions 4`);
  const keyed = '--reader-property parse.key=true --reader-property key.separator=:';
  await tool(
    'produce',
    `--topic ${name} ${keyed}`,
    `${Array.from({ length: 40 }, (_, i) => `k${i}:v${i}`).join('\n')}\n`,
  );
  for (const assignor of ['uniform', 'range']) {
    const group = named(`new-${assignor}`);
    const words = `--topic ${name} --group-id ${group} --reset-policy earliest --group-protocol consumer --group-remote-assignor ${assignor}`;
    const first = await startTool('VerifiableConsumer', words);
    await first.prints(/"success":true/);
    const second = await startTool('VerifiableConsumer', `${words} --group-instance-id static-1`);
    await second.prints(/"partitions_assigned","partitions":\[\{.*\}\]/);
    const described = async (view: string): Promise<string[]> =>
      linesOf(await tool('groups', `--describe --group ${group} ${view}`)).slice(1);
    while (!(await described('--state'))[0]?.endsWith(`${assignor} Stable 2`));
    const members = await described('--members');
    t.deepEqual(
      members.map((row) => row.split(' ').at(-1)),
      ['2', '2'],
    );
    t.true(linesOf(await tool('groups', '--list --type consumer')).includes(`${group} Consumer`));
    t.true(linesOf(await tool('GroupsCommand', '--list')).includes(`${group} Consumer consumer`));
    const busy = await tool('groups', `--delete --group ${group}`);
    t.regex(busy.out, /GroupNotEmptyException/);
    await second.stop();
    await first.stop();
    const offsets = await described('');
    t.is(
      offsets.reduce((sum, row) => sum + Number(row.split(' ')[3]), 0),
      40,
    );
  }
  const late = await tool(
    'consume',
    `--topic ${name} --group ${named('new-range')} --timeout-ms 2000 --command-property group.protocol=consumer`,
  );
  t.is(late.out, '');
  const fresh = `--topic ${name} --group ${named('new-console')} --from-beginning --max-messages 40 --timeout-ms 10000`;
  t.is(
    (await tool('consume', `${fresh} --command-property group.protocol=consumer`)).out.trim().split('\n').length,
    40,
  );
});

define('the performance tools run, every codec', async (t) => {
  const name = named('performance');
  for (const codec of ['none', 'gzip', 'snappy', 'lz4', 'zstd']) {
    const words = `--topic ${name} --num-records 5000 --record-size 200 --throughput -1 --command-property compression.type=${codec}`;
    const produced = await tool('ProducerPerformance', words);
    t.regex(produced.out, /5000 records sent, [\d.]+ records\/sec/, codec);
    t.false(/error|exception/i.test(produced.err), produced.err);
  }
  const consumed = await tool('ConsumerPerformance', `--topic ${name} --num-records 25000 --timeout 10000`);
  t.is(consumed.out.split('\n').at(-2)?.split(', ')[4], '25000');
  const latency = await tool(
    'EndToEndLatency',
    `--topic ${name}-e2e --num-records 100 --producer-acks all --record-size 100`,
  );
  t.regex(latency.out, /Percentiles: 50th = \d+, 99th = \d+/);
});

if (isFull) {
  define('a consumer of a thousand partitions, and the group tool over them', async (t) => {
    const name = named('wide');
    await tool('topics', `--create --topic ${name} --partitions 1000`);
    const numbers = Array.from({ length: 5000 }, (_, index) => `${index}:${index}`);
    const keyed = '--reader-property parse.key=true --reader-property key.separator=:';
    await tool('produce', `--topic ${name} ${keyed}`, `${numbers.join('\n')}\n`);
    const words = `--topic ${name} --group ${name} --from-beginning --max-messages 5000 --timeout-ms 30000`;
    const seen = (await tool('consume', words)).out.trim().split('\n').map(Number);
    t.deepEqual(
      seen.sort((a, b) => a - b),
      numbers.map((_, index) => index),
    );
    const rows = linesOf(await tool('groups', `--describe --group ${name}`)).slice(1);
    t.is(rows.length, 1000);
    t.is(
      rows.reduce((sum, row) => sum + Number(row.split(' ')[3]), 0),
      5000,
    );
    t.is((await tool('groups', `--reset-offsets --group ${name} --topic ${name} --to-earliest --execute`)).code, 0);
    t.is((await tool('topics', `--delete --topic ${name}`)).code, 0);
  });

  define('a topic that is deleted under a producer and a consumer comes back, and they go on', async (t) => {
    for (let round = 0; round < 8; round++) {
      const name = named(`again-${round}`);
      await tool('topics', `--create --topic ${name}`);
      const words = `--topic ${name} --num-records 40000 --record-size 100 --throughput 15000`;
      const producer = await startTool('ProducerPerformance', words);
      const consumer = await startTool(
        'VerifiableConsumer',
        `--topic ${name} --group-id ${name} --reset-policy earliest`,
      );
      await consumer.prints(/records_consumed/);
      t.is((await tool('topics', `--delete --topic ${name}`)).code, 0);
      t.regex((await producer.result).out, /^40000 records sent/m);
      await consumer.stop();
    }
  });

  define('a hundred thousand records with each codec arrive once each', async (t) => {
    for (const codec of ['none', 'gzip', 'snappy', 'lz4', 'zstd']) {
      const name = named(`load-${codec}`);
      const words = `--topic ${name} --num-records 100000 --record-size 1000 --throughput -1`;
      const produced = await tool('ProducerPerformance', `${words} --command-property compression.type=${codec}`);
      t.regex(produced.out, /^100000 records sent/m, produced.err);
      t.deepEqual(linesOf(await tool('GetOffsetShell', `--topic ${name}`)), [`${name}:0:100000`]);
      const consumed = await tool('ConsumerPerformance', `--topic ${name} --num-records 100000 --timeout 30000`);
      t.is(consumed.out.split('\n').at(-2)?.split(', ')[4], '100000');
    }
  });
}
