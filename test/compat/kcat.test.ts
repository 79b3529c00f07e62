/** kcat 1.7 on librdkafka 2.0: the tool in many shell scripts. It is older than topic ids and most flexible versions. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import test from 'ava';
import { isInstalled, openTarget, sayMissing, type Target } from './target.ts';

const isHere = isInstalled('kcat', '-V');
const define = isHere ? test : (): void => {};
let target: Target;

if (isHere) {
  test.before(async () => {
    target = await openTarget();
  });
  test.after.always(async () => target?.stop());
} else {
  sayMissing('kcat');
  test('kcat is not installed here', (t) => t.pass());
}

const run = process.pid.toString(36);
const named = (name: string): string => `kcat-${name}-${run}`;

interface Result {
  code: number;
  out: string;
  err: string;
}

async function kcat(words: string, input = '', ...more: string[]): Promise<Result> {
  const child = spawn('kcat', ['-b', target.bootstrap, ...words.split(' '), ...more]);
  const result = { code: -1, out: '', err: '' };
  child.stdout.on('data', (chunk: Buffer) => {
    result.out += chunk;
  });
  child.stderr.on('data', (chunk: Buffer) => {
    result.err += chunk;
  });
  child.stdin.end(input);
  [result.code] = await once(child, 'close');
  return result;
}

define('every codec is written and read', async (t) => {
  const topic = named('codecs');
  const sent: string[] = [];
  for (const codec of ['none', 'gzip', 'snappy', 'lz4', 'zstd']) {
    const lines = Array.from({ length: 200 }, (_, index) => `${codec} ${index} ${'mill'.repeat(50)}`);
    const { code, err } = await kcat(`-P -t ${topic} -z ${codec}`, `${lines.join('\n')}\n`);
    t.is(code, 0, err);
    sent.push(...lines);
  }
  const { out, code } = await kcat(`-C -t ${topic} -o beginning -e -q`);
  t.is(code, 0);
  t.deepEqual(out.trim().split('\n'), sent);
});

define('metadata is listed, as JSON too', async (t) => {
  const topic = named('listed');
  await kcat(`-P -t ${topic}`, 'one\n');
  const text = await kcat(`-L -t ${topic}`);
  t.regex(text.out, new RegExp(`broker 1 at ${target.bootstrap}`));
  t.regex(
    text.out,
    new RegExp(`topic "${topic}" with 1 partitions:\\n {4}partition 0, leader 1, replicas: 1, isrs: 1`),
  );
  const metadata = JSON.parse((await kcat('-L -J')).out);
  t.is(metadata.brokers[0].name, target.bootstrap);
  t.true(metadata.topics.some((entry: { topic: string }) => entry.topic === topic));
});

define('records are read by offset, from the end, by time and with their headers', async (t) => {
  const topic = named('places');
  for (const word of ['one', 'two', 'three']) {
    t.is((await kcat(`-P -t ${topic} -K : -H h=${word} -H empty=`, `key:${word}\n`)).code, 0);
  }
  t.is((await kcat(`-C -t ${topic} -o 1 -c 1 -q`)).out, 'two\n');
  t.is((await kcat(`-C -t ${topic} -o -1 -e -q`)).out, 'three\n');
  t.is((await kcat(`-C -t ${topic} -o s@1000 -e -q`)).out, 'one\ntwo\nthree\n');
  const formatted = await kcat(`-C -t ${topic} -o 0 -c 1 -q`, '', '-f', '%t %p %o %k %s %h %S\\n');
  t.is(formatted.out, `${topic} 0 0 key one h=one,empty= 3\n`);
  const json = JSON.parse((await kcat(`-C -t ${topic} -o 2 -c 1 -q -J`)).out);
  t.like(json, { topic, partition: 0, offset: 2, tstype: 'create', key: 'key', payload: 'three' });
  t.regex((await kcat(`-Q -t ${topic}:0:1000`)).out, new RegExp(`${topic} \\[0\\] offset 0`));
  t.regex((await kcat(`-Q -t ${topic}:0:-1`)).out, new RegExp(`${topic} \\[0\\] offset 3`));
});

define('a balanced consumer commits and carries on', async (t) => {
  const topic = named('group');
  await kcat(`-P -t ${topic}`, Array.from({ length: 10 }, (_, index) => `${index}\n`).join(''));
  const read = async (count: number): Promise<string> =>
    (await kcat(`-G ${topic} -q -c ${count} -X auto.offset.reset=earliest ${topic}`)).out;
  t.is(await read(4), '0\n1\n2\n3\n');
  t.is(await read(6), '4\n5\n6\n7\n8\n9\n');
});

define('an idempotent producer, acks and an unknown topic', async (t) => {
  const topic = named('idempotent');
  t.is((await kcat(`-P -t ${topic} -X enable.idempotence=true`, 'a\nb\n')).code, 0);
  t.is((await kcat(`-P -t ${topic} -X acks=1`, 'c\n')).code, 0);
  t.is((await kcat(`-P -t ${topic} -X acks=0`, 'd\n')).code, 0);
  t.is((await kcat(`-C -t ${topic} -o beginning -c 4 -q`)).out, 'a\nb\nc\nd\n');
  const unknown = await kcat(`-C -t ${named('unknown')} -e -q`);
  t.is(unknown.code, 1);
  t.regex(unknown.err, /Unknown topic or partition/);
});

define('without auto-creation an unknown topic stays unknown', async (t) => {
  if (!target.isMillrace) return t.pass();
  const strict = await openTarget({ 'auto.create.topics.enable': false });
  t.teardown(async () => strict.stop());
  const topic = named('never');
  const words = `-t ${topic} -X topic.metadata.propagation.max.ms=200 -X message.timeout.ms=2000`;
  const sent = await kcat(`-P ${words}`, 'one\n', '-b', strict.bootstrap);
  t.is(sent.code, 1);
  t.regex(sent.err, /Unknown topic/);
  const read = await kcat(`-C -e ${words}`, '', '-b', strict.bootstrap);
  t.is(read.code, 1);
  t.false((await kcat('-L', '', '-b', strict.bootstrap)).out.includes(topic));
  return undefined;
});
