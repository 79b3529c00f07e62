/** Consumer groups as kafkajs 2.2 runs them: several members, coming and going, committing and resuming. */
import test from 'ava';
import kafkajs from 'kafkajs';
import type { Admin, Consumer, ConsumerGroupJoinEvent, Kafka as Client } from 'kafkajs';
import { startTestBroker, type TestBroker } from '../support/broker.ts';

const { Kafka, logLevel } = kafkajs;
let broker: TestBroker;

function client(retries = 10): Client {
  return new Kafka({
    clientId: 'groups',
    brokers: [broker.bootstrap],
    logLevel: logLevel.NOTHING,
    retry: { initialRetryTime: 50, retries },
  });
}

test.before(async () => {
  broker = await startTestBroker({ 'group.min.session.timeout.ms': 1_000 });
});
function newAdmin(retries?: number): Admin {
  const admin = client(retries).admin();
  clients.push(admin);
  return admin;
}

const clients: { disconnect(): Promise<void> }[] = [];
// Also after a failure, or the process would not end.
test.after.always(async () => {
  for (const connected of clients) await connected.disconnect();
  await broker?.stop();
});

/** Conditions that events of clients make true. */
class Watch {
  #waiting: { isMet: () => boolean; resolve: () => void }[] = [];

  /** Something has happened. */
  poke(): void {
    for (const waiting of this.#waiting) if (waiting.isMet()) waiting.resolve();
    this.#waiting = this.#waiting.filter(({ isMet }) => !isMet());
  }
  until(isMet: () => boolean): Promise<void> {
    if (isMet()) return Promise.resolve();
    return new Promise((resolve) => this.#waiting.push({ isMet, resolve }));
  }
}

interface Member {
  consumer: Consumer;
  /** Of the newest generation. */
  partitions: number[];
  joins: number;
  memberId: string;
}

/** Starts a member; `seen` gets `partition:offset` of each record. */
async function start(
  groupId: string,
  topic: string,
  watch: Watch,
  options: {
    seen?: string[];
    autoCommit?: boolean;
    sessionTimeout?: number;
    onMessage?: () => Promise<void>;
  } = {},
): Promise<Member> {
  const consumer = client().consumer({
    groupId,
    maxWaitTimeInMs: 50,
    heartbeatInterval: 100,
    sessionTimeout: options.sessionTimeout ?? 10_000,
    rebalanceTimeout: options.sessionTimeout ?? 10_000,
  });
  clients.push(consumer);
  const member: Member = { consumer, partitions: [], joins: 0, memberId: '' };
  consumer.on(consumer.events.GROUP_JOIN, ({ payload }: ConsumerGroupJoinEvent) => {
    member.partitions = [...(payload.memberAssignment[topic] ?? [])].sort((a, b) => a - b);
    member.memberId = payload.memberId;
    member.joins++;
    watch.poke();
  });
  await consumer.connect();
  await consumer.subscribe({ topic, fromBeginning: true });
  await consumer.run({
    autoCommit: options.autoCommit ?? true,
    eachMessage: async ({ partition, message }) => {
      options.seen?.push(`${partition}:${message.offset}`);
      watch.poke();
      await options.onMessage?.();
    },
  });
  return member;
}

async function createTopic(topic: string, numPartitions: number): Promise<void> {
  const admin = newAdmin();
  await admin.connect();
  await admin.createTopics({ topics: [{ topic, numPartitions }], waitForLeaders: true });
  await admin.disconnect();
}

/** `count` records, in turn over all partitions. */
async function produce(topic: string, count: number, partitions: number): Promise<void> {
  const producer = client().producer();
  await producer.connect();
  const messages = Array.from({ length: count }, (_value, index) => ({
    partition: index % partitions,
    value: String(index),
  }));
  await producer.send({ topic, messages });
  await producer.disconnect();
}

const all = (members: Member[]): string =>
  members
    .flatMap(({ partitions }) => partitions)
    .sort((a, b) => a - b)
    .join();

test.serial('members share the partitions, whoever comes and goes', async (t) => {
  await createTopic('share', 6);
  const watch = new Watch();
  const members: Member[] = [];
  for (const size of [1, 2, 3]) {
    members.push(await start('share', 'share', watch));
    await watch.until(() => all(members) === '0,1,2,3,4,5');
    t.deepEqual(
      members.map(({ partitions }) => partitions.length),
      members.map(() => 6 / size),
    );
  }
  const admin = newAdmin();
  await admin.connect();
  const described = (await admin.describeGroups(['share'])).groups[0];
  t.is(described.state, 'Stable');
  t.is(described.protocol, 'RoundRobinAssigner');
  t.deepEqual(described.members.map(({ memberId }) => memberId).sort(), members.map(({ memberId }) => memberId).sort());
  await members[0].consumer.disconnect();
  members.shift();
  await watch.until(() => all(members) === '0,1,2,3,4,5');
  for (const { consumer } of members) await consumer.disconnect();
  t.is((await admin.describeGroups(['share'])).groups[0].state, 'Empty');
  await admin.disconnect();
});

test.serial(
  'every record is consumed once while members come and go, and a new member resumes where they stopped',
  async (t) => {
    await createTopic('resume', 4);
    const watch = new Watch();
    const seen: string[] = [];
    await produce('resume', 400, 4);
    const first = await start('resume', 'resume', watch, { seen });
    await watch.until(() => seen.length >= 100);
    const second = await start('resume', 'resume', watch, { seen });
    await watch.until(() => new Set(seen).size === 400 && second.joins > 0);
    await first.consumer.disconnect();
    await second.consumer.disconnect();
    await produce('resume', 40, 4);
    const later: string[] = [];
    const third = await start('resume', 'resume', watch, { seen: later });
    await watch.until(() => later.length === 40);
    t.deepEqual(
      later.filter((place) => seen.includes(place)),
      [],
      'nothing that was committed is read again',
    );
    t.is(new Set([...seen, ...later]).size, 440);
    await third.consumer.disconnect();
  },
);

test.serial('offsets that were committed by hand are where the next member starts', async (t) => {
  await createTopic('manual', 1);
  await produce('manual', 10, 1);
  const watch = new Watch();
  const seen: string[] = [];
  const first = await start('manual', 'manual', watch, { seen, autoCommit: false });
  await watch.until(() => seen.length === 10);
  await first.consumer.commitOffsets([{ topic: 'manual', partition: 0, offset: '4', metadata: 'by hand' }]);
  await first.consumer.disconnect();
  const later: string[] = [];
  const second = await start('manual', 'manual', watch, { seen: later });
  await watch.until(() => later.length === 6);
  t.is(later[0], '0:4');
  await second.consumer.disconnect();
});

test.serial('a member that falls silent loses its partitions after its session', async (t) => {
  await createTopic('silent', 1);
  await produce('silent', 1, 1);
  const watch = new Watch();
  let wake = (): void => {};
  const sleeping = new Promise<void>((resolve) => {
    wake = resolve;
  });
  const read: string[] = [];
  // kafkajs sends heartbeats between messages: a handler that does not end silences its member.
  const lost = await start('silent', 'silent', watch, {
    sessionTimeout: 1_000,
    onMessage: async () => {
      read.push('lost');
      watch.poke();
      await sleeping;
    },
  });
  await watch.until(() => read.length === 1);
  const other = await start('silent', 'silent', watch, {
    sessionTimeout: 1_000,
    onMessage: async () => {
      read.push('other');
      watch.poke();
    },
  });
  await watch.until(() => read.length === 2);
  t.deepEqual(read, ['lost', 'other'], 'what was not committed is read again');
  t.deepEqual(
    broker.running.broker.groups.get('silent')?.members.map(({ id }) => id),
    [other.memberId],
  );
  wake();
  await other.consumer.disconnect();
  await lost.consumer.disconnect();
});

test.serial('a group goes on over a restart of the broker', async (t) => {
  await createTopic('restart', 2);
  const watch = new Watch();
  const seen: string[] = [];
  await produce('restart', 20, 2);
  const member = await start('restart', 'restart', watch, { seen });
  await watch.until(() => seen.length === 20);
  await member.consumer.commitOffsets(
    [0, 1].map((partition) => ({ topic: 'restart', partition, offset: '10', metadata: 'before' })),
  );
  await broker.restart();
  const admin = newAdmin();
  await admin.connect();
  const [offsets] = await admin.fetchOffsets({ groupId: 'restart', topics: ['restart'] });
  t.deepEqual(
    offsets.partitions.map(({ offset }) => offset),
    ['10', '10'],
  );
  await admin.disconnect();
  await produce('restart', 20, 2);
  await watch.until(() => new Set(seen).size === 40);
  await member.consumer.disconnect();
  t.pass();
});

test.serial('administration: listing, resetting and deleting', async (t) => {
  await createTopic('admin', 2);
  await produce('admin', 10, 2);
  const watch = new Watch();
  const seen: string[] = [];
  const member = await start('admin', 'admin', watch, { seen });
  await watch.until(() => seen.length === 10);
  const admin = newAdmin();
  await admin.connect();
  const listed = (await admin.listGroups()).groups.find(({ groupId }) => groupId === 'admin');
  t.is(listed?.protocolType, 'consumer');
  // kafkajs tries again what it is refused.
  const impatient = newAdmin(0);
  await impatient.connect();
  const error = await t.throwsAsync(impatient.deleteGroups(['admin']));
  t.is(error?.name, 'KafkaJSDeleteGroupsError');
  await member.consumer.disconnect();
  // Takes kafkajs the 5 s of a fetch, with any broker.
  await admin.setOffsets({ groupId: 'admin', topic: 'admin', partitions: [{ partition: 0, offset: '3' }] });
  const [set] = await admin.fetchOffsets({ groupId: 'admin', topics: ['admin'] });
  t.is(set.partitions.find(({ partition }) => partition === 0)?.offset, '3');
  await admin.deleteGroups(['admin']);
  t.false((await admin.listGroups()).groups.some(({ groupId }) => groupId === 'admin'));
  await admin.disconnect();
});
