/** The Java consumer with `group.protocol=consumer` (KIP-848), and what Kafka's tools say of its groups. */
import test from 'ava';
import { findToolJars, JavaTools, type RunningTool } from './java-tools.ts';
import { openTarget, sayMissing, type Target } from './target.ts';

const jars = findToolJars();
let tools: JavaTools;
let target: Target;

if (jars) {
  test.before(async () => {
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

const define = jars ? test : (): void => {};
const run = process.pid.toString(36);
const withServer = (words: string): string[] => ['--bootstrap-server', target.bootstrap, ...words.split(' ')];
const GROUPS = 'consumer.group.ConsumerGroupCommand';

define('two consumers share a topic, are described, and carry on from their commits', async (t) => {
  const topic = `shared-${run}`;
  const group = `sharers-${run}`;
  t.is((await tools.run('TopicCommand', withServer(`--create --topic ${topic} --partitions 4`))).code, 0);
  const start = (): Promise<RunningTool> => {
    const words = `--topic ${topic} --group-id ${group} --group-protocol consumer --reset-policy earliest --max-messages 100`;
    return tools.start('VerifiableConsumer', withServer(words));
  };
  const first = await start();
  const second = await start();
  const assigned = /"name":"partitions_assigned","partitions":\[\{/;
  await first.prints(assigned);
  await second.prints(assigned);
  const described = await tools.run(GROUPS, withServer(`--describe --group ${group} --state`));
  t.regex(described.out, /uniform +Stable +2/);
  const members = await tools.run(GROUPS, withServer(`--describe --group ${group} --members --verbose`));
  t.is(members.out.match(new RegExp(`${topic}:\\d,\\d`, 'g'))?.length, 4, members.out);
  t.regex((await tools.run(GROUPS, withServer('--list --type consumer'))).out, new RegExp(`${group} +Consumer`));

  const words = `--topic ${topic} --max-messages 1000 --repeating-keys 20`;
  t.is((await tools.run('VerifiableProducer', withServer(words))).code, 0);
  const ended = await Promise.all([first.result, second.result]);
  t.deepEqual(
    ended.map(({ code }) => code),
    [0, 0],
  );
  for (const { out } of ended) t.regex(out, /"name":"offsets_committed".*"success":true/);

  const reset = `--reset-offsets --to-earliest --topic ${topic} --execute --group ${group}`;
  t.is((await tools.run(GROUPS, withServer(reset))).code, 0);
  const deleted = await tools.run(GROUPS, withServer(`--delete --group ${group}`));
  t.regex(deleted.out, /was successful/);
});

define('a subscription by regular expression is resolved by the broker', async (t) => {
  const group = `matchers-${run}`;
  for (const name of ['matched-a', 'matched-b', 'other']) {
    const topic = `${name}-${run}`;
    await tools.run('TopicCommand', withServer(`--create --topic ${topic} --partitions 1`));
    const value = ['--topic', topic];
    await tools.run('ConsoleProducer', ['--bootstrap-server', target.bootstrap, ...value], `${name}\n`);
  }
  const words = `--include matched-.*-${run} --group ${group} --from-beginning --max-messages 2`;
  const property = ['--command-property', 'group.protocol=consumer'];
  const { out } = await tools.run('consumer.ConsoleConsumer', [...withServer(words), ...property]);
  t.deepEqual(
    out
      .split('\n')
      .filter((line) => line.startsWith('matched'))
      .sort(),
    ['matched-a', 'matched-b'],
  );
});
