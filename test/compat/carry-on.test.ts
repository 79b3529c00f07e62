/** The broker is killed with -9 under running clients, and started again: they carry on by themselves and miss nothing. */
import { type ChildProcess, spawn } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import test from 'ava';
import { BrokerProcess } from './broker-process.ts';
import { buildGoClients, hasGoClients } from './go-clients.ts';
import { findToolJars, JavaTools } from './java-tools.ts';
import { isFull, sayMissing } from './target.ts';

const jars = isFull ? findToolJars() : undefined;
const hasGo = isFull && hasGoClients();
const KILLS = 5;
let folder: string;
let broker: BrokerProcess;

test.beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'millrace-carry-'));
  broker = new BrokerProcess(join(folder, 'data'), { 'group.min.session.timeout.ms': 1000 });
  await broker.start();
});
test.afterEach.always(async () => {
  await broker?.close();
  await rm(folder, { recursive: true, force: true });
});

if (hasGo) {
  const names = ['franz-go-carries-on', 'sarama-carries-on', 'kafka-go-carries-on'];
  test.serial('franz-go, sarama and kafka-go carry on', async (t) => {
    const results = new Map<string, string>();
    const progress = new Map(names.map((name) => [name, 0]));
    let kills = 0;
    let killing: Promise<void> | undefined;
    const child: ChildProcess = spawn(buildGoClients(folder), [broker.bootstrap, 'carry-on'], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    t.teardown(() => child.kill('SIGKILL'));
    if (!child.stdout) throw new Error('the program has no standard output');
    for await (const line of createInterface(child.stdout)) {
      const [kind, name, text = ''] = line.split(/ (.*?)(?: |$)(.*)/);
      if (kind === 'ok' || kind === 'failed') results.set(name, `${kind}${text}`);
      if (kind !== 'progress') continue;
      progress.set(name, Number(text));
      // The next kill comes when all of them have read on since the last.
      if (killing || kills >= KILLS || Math.min(...progress.values()) < (kills + 1) * 100) continue;
      kills++;
      killing = broker.restart('SIGKILL').finally(() => {
        killing = undefined;
      });
    }
    await killing;
    t.is(kills, KILLS);
    t.deepEqual(
      names.map((name) => results.get(name)),
      names.map(() => 'ok'),
    );
  });
} else if (isFull) {
  sayMissing('Go with the modules of the clients');
}

for (const protocol of jars ? ['classic', 'consumer'] : []) {
  test.serial(`Kafka's own producer and consumer carry on (${protocol} protocol)`, async (t) => {
    if (!jars) throw new Error('unreachable');
    const tools = new JavaTools(jars);
    t.teardown(async () => tools.close());
    const args = (words: string): string[] => ['--bootstrap-server', broker.bootstrap, ...words.split(' ')];
    const perf = '--topic carried --num-records 20000 --record-size 100 --throughput 500 --reporting-interval 200';
    const consumer = await tools.start(
      'VerifiableConsumer',
      args(`--topic carried --group-id carried --reset-policy earliest --group-protocol ${protocol}`),
    );
    await consumer.prints(/startup_complete/);
    const producer = await tools.start('ProducerPerformance', args(perf));
    const count = (out: string): number =>
      [...out.matchAll(/"records_consumed","count":(\d+)/g)].reduce((sum, match) => sum + Number(match[1]), 0);
    for (let kill = 0; kill < KILLS; kill++) {
      const before = (await producer.prints(/records sent/)).length;
      await producer.prints(new RegExp(`^[^]{${before + 100},}`));
      const read = (await consumer.prints(/records_consumed/)).length;
      await broker.restart('SIGKILL');
      await consumer.prints(new RegExp(`^[^]{${read}}[^]*"records_consumed"`));
    }
    t.regex((await producer.result).out, /^20000 records sent, .*99.9th\.$/m);
    // Read twice is allowed: what a killed broker had acknowledged and the consumer not yet committed.
    await consumer.prints(/"offset":20000\}\],"success":true/);
    const { out } = await consumer.stop();
    t.true(count(out) >= 20000);
  });
}
if (isFull && !jars) {
  sayMissing("the folder of Kafka's tools, or Java,");
}

// kafkajs and librdkafka carry on in `test/crash/kill.test.ts`, also in a quick run.
if (!hasGo && !jars) test('clients that carry on are part of npm run compat', (t) => t.pass());
