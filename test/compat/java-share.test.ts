/**
 * Share groups (KIP-932) with Kafka's own share consumer and tools. The expectations are what they say of Apache Kafka 4.4:
 * start one with `group.share.min.record.lock.duration.ms=1000` and name it in MILLRACE_COMPAT_BOOTSTRAP.
 */
import test from 'ava';
import { findToolJars, JavaTools, type ToolResult } from './java-tools.ts';
import { ShareMembers } from './share-members.ts';
import { isFull, openTarget, sayMissing, type Target } from './target.ts';

const jars = findToolJars();
let target: Target;
let members: ShareMembers;
let tools: JavaTools;

if (jars) {
  test.before(async () => {
    target = await openTarget({ 'group.share.min.record.lock.duration.ms': 1000 });
    members = new ShareMembers(jars, target.bootstrap);
    tools = new JavaTools(jars);
  });
  test.after.always(async () => {
    await members?.kill();
    await tools?.close();
    await target?.stop();
  });
} else {
  sayMissing("the folder of Kafka's tools, or Java,");
  test('the tools of Kafka are not installed here', (t) => t.pass());
}

// One after the other: locks of a second or two run out on a machine that is busy with all of them.
const define = jars ? test.serial : (): void => {};
const defineSlow = isFull ? define : (): void => {};
const run = process.pid.toString(36);
const scenario = (name: string, number?: number): Promise<string> =>
  members.run(name, `${name}-${number ?? 0}-${run}`, `${name}-group-${number ?? 0}-${run}`, number);
const tool = (name: string, words: string, input = ''): Promise<ToolResult> =>
  tools.run(name, ['--bootstrap-server', target.bootstrap, ...words.split(' ')], input);
const GROUPS = 'consumer.group.ShareGroupCommand';

defineSlow(
  'what was polled is acknowledged by the next poll, and what was not comes again after a close',
  async (t) => {
    // The first member closes right after its first poll: what it polled was never acknowledged.
    t.regex(await scenario('implicit'), /^20 then (20|0)$/);
    t.is(await scenario('close'), '10 2222222222');
  },
);

define('accepted and rejected records do not come again, released ones do', async (t) => {
  t.is(await scenario('explicit'), '{0=1, 1=12, 2=1, 3=1, 4=12, 5=1, 6=1, 7=12, 8=1} ok ok 0');
});

defineSlow('a renewed lock holds as long as it is renewed', async (t) => {
  t.is(await scenario('renew'), 'held 5 count 1 stolen 0 lock 2000 okokokokok');
});

define('a record that is released again and again is given up at the delivery limit', async (t) => {
  // Three deliveries of the one that is released, one of the other.
  t.is(await scenario('limit'), '4');
});

define('a lock that ran out is another member’s, and a late acknowledgement is refused', async (t) => {
  t.regex(await scenario('expiry'), /^5 (22222|33333) InvalidRecordStateException ok$/);
});

define('record_limit mode gives no more than max.poll.records', async (t) => {
  t.is(await scenario('limit-mode'), '7 7 7 7 2');
});

for (const count of isFull ? [2, 10] : [2]) {
  define(`${count} members share the records of a topic, each record once`, async (t) => {
    t.is(await scenario('compete', count), 'missed 0 twice 0 idle 0');
  });
}

define('what a killed member held comes again at once', async (t) => {
  const [topic, group] = [`killed-${run}`, `killed-group-${run}`];
  const doomed = new ShareMembers(jars ?? '', target.bootstrap);
  t.is(await doomed.run('hold', topic, group, 10), '10');
  await doomed.kill();
  t.is(await members.run('drain', topic, group, 10), '2222222222');
});

define('kafka-share-groups and the console consumer', async (t) => {
  const [topic, group] = [`tools-${run}`, `tools-group-${run}`];
  await tool('TopicCommand', `--create --topic ${topic} --partitions 1`);
  await tool('ConsoleProducer', `--topic ${topic}`, 'one\ntwo\nthree\n');
  const earliest = '--add-config share.auto.offset.reset=earliest';
  await tool('kafka.admin.ConfigCommand', `--alter --entity-type groups --entity-name ${group} ${earliest}`);
  const consumed = await tool('consumer.ConsoleShareConsumer', `--topic ${topic} --group ${group} --max-messages 3`);
  t.is(consumed.out.trim(), 'one\ntwo\nthree', consumed.err);
  t.regex((await tool(GROUPS, '--list --state')).out, new RegExp(`${group} +Empty`));

  const words = ['--bootstrap-server', target.bootstrap, '--topic', topic, '--group', group];
  const running = await tools.start('consumer.ConsoleShareConsumer', words);
  await tool('ConsoleProducer', `--topic ${topic}`, 'four\n');
  await running.prints(/four/);
  t.regex((await tool(GROUPS, `--describe --group ${group} --state`)).out, new RegExp(`${group} .*Stable +1`));
  const { out } = await tool(GROUPS, `--describe --group ${group} --members --verbose`);
  t.regex(out, new RegExp(`${group} .*console-share-consumer 1 +\\d+ +${topic}:0`));
  t.regex((await tool(GROUPS, `--delete --group ${group}`)).out, /is not EMPTY/);
  await running.stop();

  const reset = `--reset-offsets --group ${group} --topic ${topic}`;
  t.regex((await tool(GROUPS, `${reset} --to-earliest --execute`)).out, new RegExp(`${topic} +0 +0`));
  t.regex((await tool(GROUPS, `--describe --group ${group}`)).out, new RegExp(`${topic} +0 +0 +4`));
  await tool(GROUPS, `${reset} --to-latest --execute`);
  t.regex((await tool(GROUPS, `--describe --group ${group}`)).out, new RegExp(`${topic} +0 +4 +0`));
  t.regex((await tool(GROUPS, `--delete-offsets --group ${group} --topic ${topic}`)).out, /Successful/);
  t.regex((await tool(GROUPS, `--delete --group ${group}`)).out, /was successful/);
  t.notRegex((await tool(GROUPS, '--list')).out, new RegExp(group));
});

defineSlow('kafka-share-consumer-perf and the verifiable share consumer', async (t) => {
  const topic = `perf-${run}`;
  await tool('TopicCommand', `--create --topic ${topic} --partitions 3`);
  await tool('VerifiableProducer', `--topic ${topic} --max-messages 3000`);
  const group = `perf-group-${run}`;
  const earliest = '--add-config share.auto.offset.reset=earliest';
  await tool('kafka.admin.ConfigCommand', `--alter --entity-type groups --entity-name ${group} ${earliest}`);
  const perf = await tool('ShareConsumerPerformance', `--topic ${topic} --group ${group} --num-records 3000`);
  t.regex(perf.out, /, 3000, \d+\s*$/, perf.err);
  const verifiable = `--topic ${topic} --group-id verifiable-${run} --max-messages 3000 --offset-reset-strategy earliest`;
  const { out } = await tool('VerifiableShareConsumer', verifiable);
  t.regex(out, /"offsets_acknowledged".*"success":true/);
  t.notRegex(out, /"success":false/);
});
