import { once } from 'node:events';
import { createServer, type AddressInfo } from 'node:net';
import test from 'ava';
import { type TestBroker, startTestBroker } from '../../support/broker.ts';
import { RawClient } from '../../support/raw-client.ts';
import { type Cli, cliFor } from './run.ts';

let broker: TestBroker;
let cli: Cli;

test.before(async () => {
  broker = await startTestBroker();
  cli = cliFor(broker.bootstrap);
});
test.after.always(() => broker?.stop());

/** Objects of NDJSON output. */
const objects = (out: string) =>
  out
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => JSON.parse(line));

test('a topic is made, shown, changed and deleted', async (t) => {
  t.is((await cli('topic create life --partitions 3 --config retention.ms=60000')).code, 0);
  const twice = await cli('topic create life');
  t.is(twice.code, 1);
  t.regex(twice.notes[0], /'life'.*TOPIC_ALREADY_EXISTS/);
  t.is((await cli('topic create life --if-not-exists')).code, 0);
  const [listed] = objects((await cli('topic list --json')).out).filter(({ name }) => name === 'life');
  t.like(listed, { name: 'life', partitions: 3, internal: false });
  t.regex((await cli('topic list')).out, /^life +3$/m);
  t.is(
    (await cli('topic alter life --partitions 4 --config segment.bytes=2000000 --delete-config retention.ms')).code,
    0,
  );
  const [described] = objects((await cli('topic describe life --json')).out);
  t.deepEqual(described.configs, { 'segment.bytes': '2000000' });
  t.deepEqual(
    described.partitions.map(({ partition, earliest, latest }: Record<string, number>) => [
      partition,
      earliest,
      latest,
    ]),
    [0, 1, 2, 3].map((partition) => [partition, 0, 0]),
  );
  t.regex((await cli('topic describe life')).out, /segment\.bytes=2000000/);
  t.is((await cli('topic delete life')).code, 0);
  const gone = await cli('topic delete life');
  t.is(gone.code, 1);
  t.regex(gone.notes[0], /no topic 'life'/);
  t.is((await cli('topic delete life --if-exists')).code, 0);
});

test('what the broker refuses is told in its own words', async (t) => {
  const cases = ['topic create a/b', 'topic create ok --config no.such=1', 'topic create ok --replication-factor 3'];
  for (const line of cases) {
    const { code, notes } = await cli(line);
    t.is(code, 1, line);
    t.regex(notes[0], /^millrace: create topic/, line);
  }
  t.is((await cli('topic alter nope --partitions 3')).code, 1);
  t.is((await cli('topic alter nope')).code, 2);
});

test('lines become records and records become lines', async (t) => {
  await cli('topic create lines --partitions 1');
  const wrote = await cli('produce lines', 'one\ntwo\r\n\nlast without a newline');
  t.is(wrote.code, 0);
  t.deepEqual(wrote.notes, ['wrote 4 records to lines']);
  t.is((await cli('cat lines -o raw')).out, 'one\ntwo\n\nlast without a newline\n');
  t.is((await cli('cat lines -o raw --from 1 --to 3')).out, 'two\n\n');
  t.is((await cli('cat lines -o raw --from -1')).out, 'last without a newline\n');
  t.is((await cli('cat lines -o raw --count 2')).out, 'one\ntwo\n');
  t.is((await cli('cat lines -o raw --from latest')).out, '');
  t.regex((await cli('cat lines:0 --count 1')).out, /^lines:0 +0 {2}\d{4}-.*Z {2}\(null\) {2}one\n$/);
});

test('lines that arrive in pieces are put together', async (t) => {
  await cli('topic create pieces --partitions 1');
  async function* input() {
    for (const piece of ['a', 'b\nc', '', 'd\n', 'e\nf\n', 'g']) yield Buffer.from(piece);
  }
  t.is((await cli('produce pieces', input())).code, 0);
  t.is((await cli('cat pieces -o raw')).out, 'ab\ncd\ne\nf\ng\n');
});

test('keys, headers, compression and partitions go with the records', async (t) => {
  await cli('topic create rich --partitions 4');
  for (const codec of ['none', 'gzip', 'snappy', 'lz4', 'zstd']) {
    const ran = await cli(
      ['produce', 'rich', '-K', '\\t', '-H', 'codec=' + codec, '-z', codec],
      `k1\t${codec}\nk2\tx\n`,
    );
    t.is(ran.code, 0, ran.notes.join());
  }
  const records = objects((await cli('cat rich -o ndjson')).out);
  t.is(records.length, 10);
  const first = records.filter(({ key }) => key === 'k1');
  t.deepEqual(
    first.map(({ value }) => value),
    ['none', 'gzip', 'snappy', 'lz4', 'zstd'],
  );
  t.deepEqual(first[4].headers, [{ key: 'codec', value: 'zstd' }]);
  t.is(new Set(first.map(({ partition }) => partition)).size, 1);
  await cli('produce rich:2 --key fixed', 'x\n');
  t.like(objects((await cli('cat rich:2 -o ndjson --from -1')).out)[0], { partition: 2, key: 'fixed', value: 'x' });
  t.is((await cli('produce rich:9', 'x\n')).code, 1);
  t.is((await cli('produce rich -z brotli', 'x\n')).code, 2);
  t.is((await cli(['produce', 'rich', '-K', ':'], 'no separator\n')).code, 1);
});

test('a copy through NDJSON is the same log', async (t) => {
  await cli('topic create source --partitions 2');
  await cli('topic create target --partitions 2');
  const lines = [
    '{"key":"a","value":"1","timestamp":1000,"partition":0,"headers":[{"key":"h","value":null}]}',
    '{"key":null,"valueBase64":"/wA=","timestamp":3000,"partition":1}',
    '{"key":"b","value":null,"timestamp":2000,"partition":1}',
  ];
  t.is((await cli('produce source --ndjson --keep-partition', lines.join('\n'))).code, 0);
  const { out } = await cli('cat source -o ndjson');
  t.is((await cli('produce target --ndjson --keep-partition', out)).code, 0);
  t.is((await cli('cat target -o ndjson')).out, out.replaceAll('"source"', '"target"'));
  const bad = await cli('produce target --ndjson', '{"value":"ok"}\n{');
  t.is(bad.code, 1);
  t.regex(bad.notes[0], /line 2 is no record/);
});

test('records are read from a time to a time', async (t) => {
  await cli('topic create times --partitions 1');
  const at = (hour: number) => Date.UTC(2026, 0, 31, hour);
  const lines = [8, 9, 10, 11].map((hour) => JSON.stringify({ value: String(hour), timestamp: at(hour) }));
  // One batch each: the second lookup has to find the right one.
  for (const line of lines) await cli('produce times --ndjson', line);
  t.is((await cli('cat times -o raw --from 2026-01-31T09:00:00Z')).out, '9\n10\n11\n');
  t.is((await cli('cat times -o raw --from 2026-01-31T08:30 --to 2026-01-31T10:30')).out, '9\n10\n');
  t.is((await cli(`cat times -o raw --from @${at(11)}`)).out, '11\n');
  t.is((await cli('cat times -o raw --from 2026-02-01')).out, '');
});

test('following shows what comes', async (t) => {
  await cli('topic create stream --partitions 2');
  await cli('produce stream', 'before\n');
  const following = cli('cat stream -o raw --follow --count 2');
  // The follower begins at the end as of its start; write until it has seen two.
  let isDone = false;
  const ended = following.then(() => {
    isDone = true;
  });
  while (!isDone) {
    await cli('produce stream', 'later\n');
    await Promise.race([ended, new Promise((done) => setImmediate(done))]);
  }
  t.is((await following).out, 'later\nlater\n');
});

test('a topic that does not exist is made by produce and not by cat', async (t) => {
  t.is((await cli('cat fresh')).code, 1);
  t.is((await cli('produce fresh', 'a\n')).code, 0);
  t.is((await cli('cat fresh -o raw')).out, 'a\n');
  t.is((await cli('cat fresh:7')).code, 1);
});

test('a group of the consumer protocol is described with its members and what they have', async (t) => {
  await cli('topic create newer --partitions 2');
  const client = await RawClient.connect(broker.bootstrap);
  const joined = await client.ask('ConsumerGroupHeartbeat', 1, {
    groupId: 'newcomers',
    memberId: 'm1',
    memberEpoch: 0,
    rebalanceTimeoutMs: 1_000,
    subscribedTopicNames: ['newer'],
    topicPartitions: [],
  });
  t.is(joined.errorCode, 0);
  t.regex((await cli('group list')).out, /^newcomers +Stable +consumer$/m);
  const [described] = objects((await cli('group describe newcomers --json')).out);
  t.like(described, { group: 'newcomers', state: 'Stable' });
  t.is(described.members.length, 1);
  t.regex((await cli('group describe newcomers')).out, /newer/);
  t.is((await cli('group reset newcomers --topic newer --to-earliest --execute')).code, 1);
  t.is((await cli('group delete newcomers')).code, 1);
  client.close();
});

test('a group is described with its lag, reset after a preview, and deleted', async (t) => {
  await cli('topic create lagging --partitions 2');
  await cli('produce lagging:0', 'a\nb\nc\n');
  const preview = await cli('group reset readers --topic lagging --to-offset 1');
  t.is(preview.code, 0);
  t.regex(preview.notes.join(), /Nothing was changed/);
  t.is((await cli('group describe readers')).code, 1);
  const done = await cli('group reset readers --topic lagging --to-offset 1 --execute --json');
  t.deepEqual(objects(done.out), [
    { group: 'readers', topic: 'lagging', partition: 0, from: null, to: 1, lag: 2, executed: true },
    { group: 'readers', topic: 'lagging', partition: 1, from: null, to: 0, lag: 0, executed: true },
  ]);
  const [described] = objects((await cli('group describe readers --json')).out);
  t.like(described, { group: 'readers', state: 'Empty', lag: 2, members: [] });
  t.regex((await cli('group describe readers')).out, /lagging +0 +1 +3 +2/);
  t.regex((await cli('group list')).out, /^readers +Empty/m);
  const moves: [string, number][] = [
    ['--shift-by 1', 2],
    ['--shift-by -5', 0],
    ['--to-latest', 3],
    ['--to-earliest', 0],
    ['--by-duration 1h', 0],
    ['--to-datetime 2100-01-01', 3],
    ['--to-current', 3],
  ];
  for (const [flags, to] of moves) {
    const moved = await cli(`group reset readers --topic lagging:0 ${flags} --execute --json`);
    t.is(objects(moved.out)[0].to, to, flags);
  }
  t.is(objects((await cli('group reset readers --all-topics --to-latest --json')).out).length, 2);
  for (const wrong of [
    '',
    '--topic lagging',
    '--to-latest',
    '--topic lagging --all-topics --to-latest',
    '--topic lagging --to-latest --to-earliest',
  ]) {
    t.is((await cli(`group reset readers ${wrong}`.trim())).code, 2, wrong);
  }
  t.is((await cli('group delete readers')).code, 0);
  t.is((await cli('group delete readers')).code, 1);
  t.is((await cli('group delete readers --if-exists')).code, 0);
});

test('status tells whether a broker answers', async (t) => {
  const [status] = objects((await cli('status --json')).out);
  t.is(status.brokers.length, 1);
  t.truthy(status.clusterId);
  t.regex((await cli('status')).out, /^brokers: 1 at 127\.0\.0\.1:\d+$/m);
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  await new Promise((done) => server.close(done));
  const nobody = await cli(`status --bootstrap 127.0.0.1:${port}`);
  t.is(nobody.code, 5);
  t.regex(nobody.notes.join('\n'), /connection refused\nStart a broker with 'millrace serve'/);
});

test('a command line that is not understood says what would be', async (t) => {
  t.regex((await cli('nonsense')).notes[0], /'millrace --help'/);
  t.regex((await cli('topic nonsense')).notes[0], /there are: list, create/);
  t.is((await cli('cat')).code, 2);
  t.is((await cli('cat a --follow --to 5')).code, 2);
  t.is((await cli('cat a -o xml')).code, 2);
  t.is((await cli('status --bootstrap a:b:c')).code, 2);
  for (const line of ['--help', 'topic', 'topic list --help', 'cat -h', 'help produce', 'serve --help', '--version']) {
    const { code, out } = await cli(line);
    t.is(code, 0, line);
    t.true(out.length > 10, line);
  }
});
