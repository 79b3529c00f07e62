/** `millrace queue` on a real broker, through its Kafka port. */
import { once } from 'node:events';
import { createServer, type AddressInfo } from 'node:net';
import test from 'ava';
import { type TestBroker, startTestBroker } from '../../support/broker.ts';
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

const send = async (topic: string, ...values: string[]) =>
  cli(`produce ${topic}`, values.map((value) => `${value}\n`).join(''));

test('a queue is made, listed, described, changed and deleted', async (t) => {
  const made = await cli('queue create life --lock 1m --ttl 2h --ordered --set max.messages=1000');
  t.deepEqual([made.code, made.notes], [0, ['created queue life']]);
  const again = await cli('queue create life --lock 60000 --ttl 2h --ordered --max-messages 1000');
  t.deepEqual([again.code, again.notes], [0, ['queue life exists already, with these settings']]);
  const other = await cli('queue create life --lock 2m');
  t.is(other.code, 1);
  t.regex(other.notes[0], /'life' exists with another .*'millrace queue describe life' shows them/);
  await send('life', 'a', 'b');
  const listed = await cli('queue list');
  t.regex(listed.out, /^QUEUE +TOPIC +READY/);
  t.regex(listed.out, /^life +- +2 +0 +0 +0 +0 +\d+s/m);
  const [shown] = objects((await cli('queue list -o json')).out).filter(({ name }) => name === 'life');
  t.like(shown, { depth: 2, ready: 2, kind: 'owned', consumers: 0 });
  t.is((await cli('queue alter life --unset max.messages --set ttl.ms=1000000')).code, 0);
  const described = (await cli('queue describe life')).out;
  t.regex(described, /depth +2: ready 2, in flight 0/);
  t.regex(described, /^lock\.duration\.ms +60000 +millrace$/m);
  t.regex(described, /^ttl\.ms +1000000 +millrace$/m);
  t.notRegex(described, /max\.messages/);
  t.regex((await cli('queue describe life --all-settings')).out, /^max\.messages +-1 +default$/m);
  t.is((await cli('queue delete life --if-empty')).code, 1);
  t.is((await cli('queue delete life')).code, 0);
  const gone = await cli('queue describe life');
  t.deepEqual([gone.code, gone.notes.length], [1, 1]);
  t.regex(gone.notes[0], /no queue 'life'; 'millrace queue list' shows those that are/);
  t.is((await cli('queue delete life')).code, 1);
  t.is((await cli('queue delete life --if-exists')).code, 0);
});

test('a queue over a topic begins where it is told to', async (t) => {
  await cli('topic create log --partitions 2');
  await send('log', 'old');
  t.is((await cli('queue create all --topic log')).code, 0);
  t.is((await cli('queue create new --topic log --from latest')).code, 0);
  const depths = Object.fromEntries(
    objects((await cli('queue list -o json')).out).map(({ name, depth }) => [name, depth]),
  );
  t.like(depths, { all: 1, new: 0 });
  t.regex((await cli('queue describe all')).out, /over topic log/);
  t.is((await cli('queue delete all new')).code, 0);
  t.regex((await cli('topic list')).out, /^log +2$/m);
});

test('peek shows messages as they are, and takes none', async (t) => {
  await cli('queue create peeked');
  await cli(
    ['produce', 'peeked', '--ndjson'],
    `${JSON.stringify({ key: 'k', value: 'one\u0007', headers: [{ key: 'h', value: 'x' }] })}\n`,
  );
  await send('peeked', 'two');
  const { out } = await cli('queue peek peeked');
  t.regex(out, /^0:0 {2}\d{4}-\S+ {2}k {2}one\\u0007$/m);
  t.regex(out, /^ {4}h=x$/m);
  const one = await cli('queue peek peeked -n 1');
  t.regex(one.notes[0], /1 message; more with --offset 1/);
  const [message] = objects((await cli('queue peek peeked --filter header.h!=x -o json')).out);
  t.like(message, { offset: 1, value: { text: 'two' } });
  t.regex((await cli('queue peek peeked --filter key=none')).notes[0], /nothing waits that matches/);
  const bad = await cli('queue peek peeked --filter colour=red');
  t.deepEqual([bad.code, /fields|field of key/.test(bad.notes[0])], [1, true]);
  t.is(objects((await cli('queue list -o json')).out).find(({ name }) => name === 'peeked').ready, 2);
});

test('purge, and replay in place and appended', async (t) => {
  await cli('queue create again');
  await send('again', 'a', 'b', 'c');
  t.regex((await cli('queue purge again')).notes[0], /^purged 3 messages of queue again$/);
  t.deepEqual(objects((await cli('queue purge again -o json')).out), [{ purged: 0 }]);
  t.regex((await cli('queue replay again --from 1')).notes[0], /^2 messages of queue again can be taken again$/);
  t.regex((await cli('queue replay again --from 1h --to 1')).notes[0], /^1 message /);
  t.regex(
    (await cli('queue replay again --from 0 --to 2 --append')).notes[0],
    /^replay of again sent again 2 messages of 2 looked at: 2 to again$/,
  );
  const cat = await cli('cat again -o raw');
  t.is(cat.out, 'a\nb\nc\na\nb\n', 'its topic is a log');
  for (const line of ['queue replay again', 'queue replay again --from -5', 'queue replay again --from 0 --rate 5']) {
    t.is((await cli(line)).code, 2, line);
  }
});

test('move, redrive and jobs', async (t) => {
  await cli('queue create source target');
  await send('source', 'a', 'b', 'c');
  const dry = await cli('queue move source target --dry-run');
  t.deepEqual([dry.code, dry.notes], [0, ['move of source would move 3 messages of 3 looked at: 3 to target']]);
  const moved = await cli('queue move source target --limit 2 -o json');
  t.like(objects(moved.out)[0], { status: 'done', movedCount: 2, moved: { target: 2 } });
  const back = await cli('queue redrive target');
  t.is(back.code, 0);
  t.regex(back.notes[0], /^redrive of target moved 0 messages of 2 looked at$/);
  t.regex(back.notes[1], /^2 messages stayed: not known where they came from/);
  t.is((await cli('queue redrive target --to source --filter key!=x')).code, 0);
  const detached = await cli('queue move source target --rate 1 --detach');
  t.regex(detached.notes[0], /^job \d+ is running; 'millrace queue jobs' shows it/);
  const second = await cli('queue move source target');
  t.deepEqual([second.code, /job \d+ \(move\), which is running/.test(second.notes[0])], [1, true]);
  t.regex((await cli('queue describe source')).out, /job +\d+: move to target running/);
  t.regex((await cli('queue redrive source --cancel')).notes[0], /move to target cancelled/);
  const jobs = await cli('queue jobs source');
  t.regex(jobs.out, /^JOB +KIND/);
  t.regex(jobs.out, /^ *\d+ +move +source +target +cancelled/m);
  const none = await cli('queue jobs --cancel 999');
  t.deepEqual([none.code, none.notes], [1, ['millrace: there is no job 999']]);
  t.is((await cli('queue move source nowhere')).code, 1);
});

test('a job that runs goes on after a restart of the broker', async (t) => {
  const own = await startTestBroker();
  const run = cliFor(own.bootstrap);
  try {
    await run('queue create from to');
    await run('produce from', Array.from({ length: 200 }, (_, index) => `${index}\n`).join(''));
    await run('queue move from to --rate 1000 --detach');
    await own.restart();
    for (let depth = 1; depth > 0; ) [{ depth }] = objects((await run('queue describe from -o json')).out);
    const [{ depth }] = objects((await run('queue describe to -o json')).out);
    t.is(depth, 200);
  } finally {
    await own.stop();
  }
});

test('what is typed wrong is told with exit code 2, and every command has its help', async (t) => {
  const wrong = [
    'queue',
    'queue frobnicate',
    'queue create',
    'queue create a --lock soon',
    'queue create a --from latest',
    'queue create a --lock 1 --set lock.duration.ms=2',
    'queue create a b --topic c',
    'queue alter a',
    'queue list -o xml',
    'queue move a',
    'queue peek a -n 0',
  ];
  for (const line of wrong.slice(1)) t.is((await cli(line)).code, 2, line);
  const overview = (await cli('queue')).out;
  for (const word of [
    'list',
    'create',
    'alter',
    'describe',
    'peek',
    'purge',
    'delete',
    'move',
    'redrive',
    'replay',
    'jobs',
  ]) {
    t.regex(overview, new RegExp(`^  ${word} `, 'm'));
    const { code, out } = await cli(`queue ${word} --help`);
    t.is(code, 0);
    t.regex(out, new RegExp(`^Usage: millrace queue ${word} `));
  }
});

test('a setting that is not there, or cannot be, is refused in words', async (t) => {
  const unknown = await cli('queue create bad --set tll.ms=5');
  t.is(unknown.code, 1);
  t.regex(unknown.notes[0], /no queue setting 'tll.ms'; there are lock\.duration\.ms/);
  t.regex((await cli('queue create bad --set ttl.ms=soon')).notes[0], /ttl\.ms must be a whole number/);
  t.regex((await cli('queue create bad --dead-letter nowhere')).notes[0], /no queue or topic 'nowhere'/);
  t.regex((await cli('queue create bad --topic nowhere')).notes[0], /no topic 'nowhere'/);
});

test('nobody there is exit code 5', async (t) => {
  const server = createServer();
  await once(server.listen(0, '127.0.0.1'), 'listening');
  const { port } = server.address() as AddressInfo;
  server.close();
  await once(server, 'close');
  t.is((await cliFor(`127.0.0.1:${port}`)('queue list --timeout 500')).code, 5);
});
