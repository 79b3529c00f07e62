/**
 * Groups of Java consumers under load whose members join, leave and die, and that change their protocol meanwhile
 * (KIP-848): no record is missed, none handled after it was committed, every partition has exactly one member again
 * soon. In `npm test` a few members in one JVM; in `npm run compat` twenty in five, with kill -9 of members and broker.
 */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { BrokerProcess } from './broker-process.ts';
import { GroupMembers } from './group-members.ts';
import { findToolJars } from './java-tools.ts';
import { isFull, openTarget, sayMissing, type Target } from './target.ts';

const jars = findToolJars();
const run = process.pid.toString(36);
/** As set for classic members in `GroupMembers.java`, and for the others here. */
const SESSION_MS = 6_000;
const OPTIONS = {
  'group.consumer.heartbeat.interval.ms': 300,
  'group.consumer.session.timeout.ms': SESSION_MS,
  'group.min.session.timeout.ms': 1_000,
};

function openMembers(bootstrap: string, name: string, partitionCount: number): GroupMembers {
  if (!jars) throw new Error('unreachable');
  const topic = `${name}-${run}`;
  return new GroupMembers({ jars, bootstrap, topic, group: topic, partitionCount });
}

function checkNothingMissed(t: ExecutionContext, members: GroupMembers): void {
  t.deepEqual(members.problems(), []);
  t.deepEqual(members.failures, []);
  t.log({ handled: members.handledCount, refusedCommits: members.refusedCommits });
}

if (jars) {
  let target: Target;
  test.before(async () => {
    target = await openTarget(OPTIONS);
  });
  test.after.always(async () => target?.stop());

  test.serial('a group is upgraded and downgraded under load, member by member, and misses nothing', async (t) => {
    const members = openMembers(target.bootstrap, 'migrating', 6);
    t.teardown(async () => members.close());
    // Of a foreign broker it is not known; its group is of the type that it should be, or the rest would fail.
    const isType = (type: string): boolean =>
      !target.broker || target.broker.running.broker.groups.get(`migrating-${run}`)?.type === type;
    await members.open('one');
    await members.create('one');
    members.start('one', 'a1', 'classic', 'CooperativeStickyAssignor');
    members.start('one', 'a2', 'classic', 'CooperativeStickyAssignor');
    members.produce('one', 500);
    await members.balanced(30_000);
    members.start('one', 'b1', 'consumer');
    await members.balanced(30_000);
    t.true(isType('consumer'));
    members.leave('a1');
    members.start('one', 'b2', 'consumer');
    await members.balanced(30_000);
    members.drop('b1');
    await members.balanced(30_000);
    members.leave('b2');
    await members.balanced(30_000);
    t.true(isType('classic'));
    await members.halt('one');
    await members.drained(30_000);
    checkNothingMissed(t, members);
  });
} else {
  sayMissing("the folder of Kafka's tools, or Java,");
  test('the tools of Kafka are not installed here', (t) => t.pass());
}

/** Twenty members in five JVMs, and the times that the group took to be whole again. */
class Twenty {
  readonly members: GroupMembers;
  readonly #slowest = new Map<string, number>();
  #started = 0;

  constructor(members: GroupMembers) {
    this.members = members;
  }

  async open(): Promise<void> {
    for (const host of ['p', 'h0', 'h1', 'h2', 'h3', 'h4']) await this.members.open(host);
    await this.members.create('p');
    this.members.produce('p', 2_000);
  }

  start(host: number, protocol: 'classic' | 'consumer', assignor = 'CooperativeStickyAssignor'): string {
    const name = `${protocol}-${host}-${this.#started++}`;
    this.members.start(`h${host}`, name, protocol, assignor);
    return name;
  }

  /** Waits until every partition has one member again. */
  async settle(change: string, limitMs: number): Promise<void> {
    const startNs = process.hrtime.bigint();
    await this.members.balanced(limitMs);
    const tookMs = Number(process.hrtime.bigint() - startNs) / 1e6;
    this.#slowest.set(change, Math.round(Math.max(tookMs, this.#slowest.get(change) ?? 0)));
  }

  async killHost(host: number): Promise<void> {
    await this.members.kill(`h${host}`);
    await this.settle('killed', 2 * SESSION_MS + 5_000);
    await this.members.open(`h${host}`);
  }

  async end(t: ExecutionContext): Promise<void> {
    await this.members.halt('p');
    await this.members.drained(60_000);
    checkNothingMissed(t, this.members);
    t.log('slowest, ms:', Object.fromEntries(this.#slowest));
  }
}

async function withTwenty(
  t: ExecutionContext,
  name: string,
): Promise<{ twenty: Twenty; broker: BrokerProcess | undefined }> {
  const foreign = process.env['MILLRACE_COMPAT_BOOTSTRAP'];
  let broker: BrokerProcess | undefined;
  if (!foreign) {
    const folder = await mkdtemp(join(tmpdir(), 'millrace-groups-'));
    const started = new BrokerProcess(join(folder, 'data'), OPTIONS);
    t.teardown(async () => {
      await started.close();
      await rm(folder, { recursive: true, force: true });
    });
    await started.start();
    broker = started;
  }
  const twenty = new Twenty(openMembers(foreign ?? broker?.bootstrap ?? '', name, 40));
  t.teardown(async () => twenty.members.close());
  await twenty.open();
  return { twenty, broker };
}

if (jars && isFull) {
  test.serial('twenty consumers join, leave and die under load', async (t) => {
    const { twenty } = await withTwenty(t, 'twenty');
    const { members } = twenty;
    for (let host = 0; host < 5; host++) {
      for (let count = 0; count < 4; count++) twenty.start(host, 'consumer');
      await twenty.settle('joined', SESSION_MS + 10_000);
    }
    for (let round = 0; round < 6; round++) {
      const [first, second, third] = members.names;
      members.leave(first);
      members.leave(second);
      await twenty.settle('left', SESSION_MS + 5_000);
      members.drop(third);
      await twenty.settle('dropped', 2 * SESSION_MS + 5_000);
      const host = round % 5;
      for (let count = 0; count < 3; count++) twenty.start((host + 1) % 5, 'consumer');
      await twenty.settle('joined', SESSION_MS + 5_000);
      await twenty.killHost(host);
      while (members.names.length < 20) twenty.start(host, 'consumer');
      await twenty.settle('joined', SESSION_MS + 10_000);
    }
    await twenty.end(t);
  });

  for (const assignor of ['CooperativeStickyAssignor', 'RangeAssignor']) {
    test.serial(
      `twenty members go over to the other protocol and back, and die on the way (${assignor})`,
      async (t) => {
        const { twenty, broker } = await withTwenty(t, `over-${assignor.slice(0, 5).toLowerCase()}`);
        const { members } = twenty;
        for (let count = 0; count < 20; count++) twenty.start(count % 5, 'classic', assignor);
        await twenty.settle('started', 60_000);
        /** As a rolling restart does, a JVM at a time; one of them dies, and once the broker does. */
        const roll = async (to: 'classic' | 'consumer'): Promise<void> => {
          for (let host = 0; host < 5; host++) {
            if (host === 2) await twenty.killHost(host);
            else {
              for (const name of members.names.filter((one) => one.split('-')[1] === String(host))) members.leave(name);
              await twenty.settle('left', SESSION_MS + 10_000);
            }
            for (let count = 0; count < 4; count++) twenty.start(host, to, assignor);
            if (host === 3) await broker?.restart('SIGKILL');
            await twenty.settle('joined', 2 * SESSION_MS + 10_000);
          }
        };
        await roll('consumer');
        await roll('classic');
        await twenty.end(t);
      },
    );
  }
}
