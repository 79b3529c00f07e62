/** Queue commands as JSON: what they answer, what they refuse and in which words. */
import test from 'ava';
import fc from 'fast-check';
import type { Operation, ResourceType } from '../../broker/access.ts';
import { runText } from '../../broker/command-arguments.ts';
import { QueueCommands } from '../../broker/queue-commands.ts';
import { QueueWorld } from '../support/queue-world.ts';

type Shown = Record<string, unknown>;

/** A world with commands on it, and the answers of their text form. */
class CommandWorld {
  readonly world: QueueWorld;
  readonly commands: QueueCommands;
  /** What is not allowed: `WRITE TOPIC name`. */
  readonly denied = new Set<string>();

  private constructor(world: QueueWorld, commands: QueueCommands) {
    this.world = world;
    this.commands = commands;
  }

  static async open(): Promise<CommandWorld> {
    const world = await QueueWorld.open();
    const { engine, clock, topics, queues } = world;
    // The world has jobs of its own, whose log is taken.
    const jobs = world.jobs;
    const report = (message: string, error: unknown): void => void world.reports.push(`${message}: ${String(error)}`);
    const parts = { engine, clock, topics, queues, reader: queues.reader, entryBytes: 1e6, report };
    return new CommandWorld(world, new QueueCommands(parts, jobs));
  }

  async raw(text: string): Promise<{ answer?: Shown; error?: { code: string; message: string } }> {
    const allows = (operation: Operation, type: ResourceType, name: string): boolean =>
      !this.denied.has(`${operation} ${type} ${name}`);
    const answer = await this.world.clock.settle(
      runText(Buffer.from(text), (request) => this.commands.run(request, allows)),
    );
    return JSON.parse(answer.toString());
  }
  async run(command: Shown): Promise<Shown> {
    const { answer, error } = await this.raw(JSON.stringify(command));
    if (answer === undefined) throw new Error(`${error?.code}: ${error?.message}`);
    return answer;
  }
  async refused(command: Shown): Promise<string> {
    const { error } = await this.raw(JSON.stringify(command));
    return `${error?.code}: ${error?.message}`;
  }
  async close(): Promise<void> {
    this.commands.close();
    await this.world.close();
  }
}

test('a queue is made, shown, changed and deleted', async (t) => {
  const on = await CommandWorld.open();
  const create = { command: 'create', name: 'q', settings: { 'lock.duration.ms': 1000, ordered: true } };
  t.like(await on.run(create), { created: true, queue: { name: 'q', kind: 'owned', topic: 'q', depth: 0 } });
  t.like(await on.run(create), { created: false });
  t.is(
    await on.refused({ ...create, settings: { ordered: false } }),
    "QUEUE_DIFFERS: the queue 'q' exists with another ordered",
  );
  t.like(await on.run({ command: 'list' }), { queues: [{ name: 'q', consumers: 0, ageMs: null }] });
  await on.run({ command: 'alter', name: 'q', settings: { 'ttl.ms': 5000, 'lock.duration.ms': null } });
  const { queue } = (await on.run({ command: 'describe', name: 'q' })) as { queue: Shown };
  const settings = queue.settings as { name: string; value: string; origin: string }[];
  t.deepEqual(
    settings.filter(({ origin }) => origin !== 'default'),
    [
      { name: 'ttl.ms', value: '5000', origin: 'millrace' },
      { name: 'ordered', value: 'true', origin: 'millrace' },
    ],
  );
  t.deepEqual(await on.run({ command: 'delete', name: 'q' }), {});
  t.is(await on.refused({ command: 'describe', name: 'q' }), "QUEUE_NOT_FOUND: there is no queue 'q'");
  t.is(on.world.topics.get('q'), undefined);
  await on.close();
});

test('a queue over a topic leaves it when it is deleted', async (t) => {
  const on = await CommandWorld.open();
  on.world.topic('log', 3);
  t.regex(await on.refused({ command: 'describe', name: 'log' }), /there is a topic of that name/);
  t.like(await on.run({ command: 'create', name: 'q', topic: 'log', from: 'latest' }), {
    queue: { kind: 'attached', topic: 'log', partitionCount: 3 },
  });
  await on.run({ command: 'delete', name: 'q' });
  t.truthy(on.world.topics.get('log'));
  await on.close();
});

test('describe counts what there is, tells ages and rates', async (t) => {
  const on = await CommandWorld.open();
  const queue = on.world.queue('q', { 'dead.letter.queue': '' });
  await on.world.run(10_000);
  await on.world.publish('q', ['a', 'b', { value: 'c', headers: { 'millrace.delay.ms': '100000' } }]);
  await on.world.run(10_000);
  const owner = on.world.queues.newOwner();
  queue.acquire(owner, 0, 1);
  queue.settle(owner, 0, [{ firstOffset: 0, lastOffset: 0, kind: 'accept' }]);
  await on.world.run(10_000);
  const { queue: shown } = (await on.run({ command: 'describe', name: 'q' })) as { queue: Shown };
  t.like(shown, { depth: 2, ready: 1, delayed: 1, inFlight: 0, deadLetterQueue: null });
  t.true((shown.ageMs as number) >= 20_000 && (shown.ageMs as number) < 21_000);
  const rates = shown.ratePerSecond as { in: number; out: number };
  t.true(rates.in > 0 && rates.out > 0 && rates.in >= rates.out);
  t.like(shown, { partitions: [{ partition: 0, start: 1, end: 3, ready: 1 }] });
  await on.close();
});

test('peek shows messages and takes none', async (t) => {
  const on = await CommandWorld.open();
  on.world.queue('q');
  await on.world.publish('q', [
    { value: 'a', key: 'k', headers: { h: 'x' } },
    { value: 'b', headers: { h: 'y' } },
    { value: 'c', headers: { h: 'x' } },
  ]);
  await on.world.run(1);
  const peek = { command: 'peek', name: 'q' };
  const { messages, isMore } = (await on.run(peek)) as { messages: Shown[]; isMore: boolean };
  t.false(isMore);
  t.like(messages[0], { partition: 0, offset: 0, key: { text: 'k' }, value: { text: 'a' }, deaths: [], origin: null });
  t.deepEqual(messages[0].headers, [{ key: 'h', text: 'x' }]);
  t.regex(String(messages[0].id), /^[0-9a-f-]{36}$/);
  const only = async (more: Shown): Promise<unknown[]> =>
    ((await on.run({ ...peek, ...more })) as { messages: Shown[] }).messages.map(({ offset }) => offset);
  t.deepEqual(await only({ filter: ['header.h=x'] }), [0, 2]);
  t.deepEqual(await only({ count: 1, offset: 1 }), [1]);
  t.deepEqual(await only({ partition: 1 }), []);
  t.is(on.world.queues.get('q')?.counts().ready, 3);
  await on.close();
});

test('purge finishes what waits, and what is in flight if asked to', async (t) => {
  const on = await CommandWorld.open();
  const queue = on.world.queue('q');
  await on.world.publish('q', ['a', 'b', 'c', 'd']);
  await on.world.run(1);
  queue.acquire(on.world.queues.newOwner(), 0, 1);
  t.deepEqual(await on.run({ command: 'purge', name: 'q', untilOffset: 2 }), { purged: 1 });
  t.deepEqual(await on.run({ command: 'purge', name: 'q' }), { purged: 2 });
  t.like(queue.counts(), { ready: 0, inFlight: 1 });
  t.regex(await on.refused({ command: 'delete', name: 'q', ifEmpty: true }), /^POLICY_VIOLATION: .*it has 1 messages/);
  t.deepEqual(await on.run({ command: 'purge', name: 'q', inFlight: true }), { purged: 1 });
  t.deepEqual(await on.run({ command: 'delete', name: 'q', ifEmpty: true, ifUnused: true }), {});
  await on.close();
});

test('replay in place by offset and by time, or appended', async (t) => {
  const on = await CommandWorld.open();
  const queue = on.world.queue('q');
  await on.world.publish('q', ['a', 'b']);
  await on.world.run(1000);
  const betweenMs = on.world.clock.now();
  await on.world.publish('q', ['c', 'd']);
  await on.world.run(1);
  await on.run({ command: 'purge', name: 'q' });
  const replay = { command: 'replay', name: 'q' };
  t.deepEqual(await on.run({ ...replay, fromOffset: 0, toOffset: 1 }), { replayed: 1 });
  t.is(queue.counts().ready, 1);
  t.deepEqual(await on.run({ ...replay, fromMs: betweenMs }), { replayed: 2 });
  t.deepEqual(await on.run({ ...replay, fromMs: 0, toMs: betweenMs }), { replayed: 1 });
  const { job } = (await on.run({ ...replay, fromOffset: 1, toOffset: 3, append: true })) as { job: Shown };
  t.like(job, { kind: 'replay', source: 'q', status: 'running', remaining: 2 });
  await on.world.run(100);
  t.like(await on.run({ command: 'job', id: job.id }), { job: { status: 'done', movedCount: 2, remaining: 0 } });
  t.is(on.world.topics.get('q')?.partitions[0].endOffset, 6);
  const refused = async (more: Shown, message: RegExp) => t.regex(await on.refused({ ...replay, ...more }), message);
  await refused({}, /INVALID_REQUEST: replay needs fromOffset or fromMs/);
  await refused({ fromOffset: 0, fromMs: 0 }, /not both/);
  await refused({ fromOffset: 0, toOffset: 1, toMs: 1 }, /not both/);
  await refused({ fromOffset: 0, filter: ['key=a'] }, /in place a whole range comes back/);
  await refused({ fromOffset: 0, dryRun: true }, /append/);
  await refused({ fromOffset: 0, partition: 1 }, /no partition 1/);
  await on.close();
});

test('move and redrive begin jobs, which are listed and cancelled', async (t) => {
  const on = await CommandWorld.open();
  on.world.queue('from');
  on.world.queue('to');
  await on.world.publish(
    'from',
    Array.from({ length: 100 }, (_, index) => `${index}`),
  );
  await on.world.run(1);
  const move = { command: 'move', name: 'from', target: 'to', rate: 10 };
  const { job } = (await on.run(move)) as { job: Shown };
  t.like(job, { kind: 'move', target: 'to', ratePerSecond: 10, remaining: 100 });
  await on.world.run(1000);
  t.regex(await on.refused(move), /^QUEUE_IN_USE: /);
  t.like(await on.run({ command: 'describe', name: 'from' }), { queue: { job: { id: job.id, status: 'running' } } });
  t.like(await on.run({ command: 'cancel', name: 'from' }), { job: { id: job.id, status: 'cancelled' } });
  t.regex(
    await on.refused({ command: 'cancel', name: 'from' }),
    /^RESOURCE_NOT_FOUND: no job is running on queue 'from'/,
  );
  t.regex(await on.refused({ command: 'cancel', id: 7 }), /^RESOURCE_NOT_FOUND: there is no job 7/);
  const { jobs } = (await on.run({ command: 'jobs', name: 'from' })) as { jobs: Shown[] };
  t.is(jobs.length, 1);
  t.regex(await on.refused({ command: 'move', name: 'from' }), /move needs a target/);
  t.like(await on.run({ command: 'redrive', name: 'to', dryRun: true }), { job: { isDryRun: true } });
  await on.close();
});

test('what is not understood is refused in words, and does nothing', async (t) => {
  const on = await CommandWorld.open();
  on.world.queue('q');
  const refused = async (text: string, message: RegExp) => {
    const { error } = await on.raw(text);
    t.regex(`${error?.code}: ${error?.message}`, message);
  };
  await refused('', /^INVALID_REQUEST: a command is not JSON/);
  await refused('{', /not JSON/);
  await refused('3', /a command is an object/);
  await refused('null', /a command is an object/);
  await refused('{}', /there is no command 'undefined'; there are list, create/);
  await refused('{"command":"toString"}', /there is no command 'toString'/);
  await refused('{"command":"purge","name":"q","inflight":true}', /^INVALID_REQUEST: purge has no argument 'inflight'/);
  await refused('{"command":"purge","name":"q","inFlight":1}', /inFlight must be true or false, not 1/);
  await refused('{"command":"purge"}', /name is missing/);
  await refused('{"command":"purge","name":["q"]}', /name must be text/);
  await refused('{"command":"peek","name":"q","count":0}', /count must be a whole number from 1 to 1000, not 0/);
  await refused('{"command":"peek","name":"q","filter":"key=a"}', /filter must be a list of texts/);
  await refused(
    '{"command":"create","name":"n","settings":{"tll.ms":1}}',
    /^INVALID_CONFIG: there is no queue setting 'tll.ms'; there are lock/,
  );
  await refused(
    '{"command":"create","name":"n","settings":{"ttl.ms":"soon"}}',
    /^INVALID_CONFIG: ttl.ms must be a whole number/,
  );
  await refused('{"command":"create","name":"n","settings":{"ttl.ms":[1]}}', /setting 'ttl.ms' must be text/);
  await refused('{"command":"create","name":"n","settings":{"dead.letter.queue":"no"}}', /no queue or topic 'no'/);
  await refused('{"command":"create","name":"n","from":"latest"}', /from is for a queue over a topic/);
  await refused('{"command":"create","name":"n","topic":"none"}', /^UNKNOWN_TOPIC_OR_PARTITION: /);
  await refused(`{"command":"${'x'.repeat(2_000_000)}"}`, /a command of 2000014 bytes/);
  t.is(on.world.queues.all().length, 1);
  await on.close();
});

test('each named target is asked for', async (t) => {
  const on = await CommandWorld.open();
  on.world.queue('q');
  on.world.queue('to');
  const denies = async (denied: string, command: Shown) => {
    on.denied.add(denied);
    t.regex(await on.refused(command), /_AUTHORIZATION_FAILED: /, denied);
    on.denied.clear();
  };
  await denies('DESCRIBE GROUP q', { command: 'describe', name: 'q' });
  await denies('DESCRIBE GROUP none', { command: 'describe', name: 'none' });
  await denies('READ TOPIC q', { command: 'peek', name: 'q' });
  await denies('READ GROUP q', { command: 'purge', name: 'q' });
  await denies('DELETE GROUP q', { command: 'delete', name: 'q' });
  await denies('DELETE TOPIC q', { command: 'delete', name: 'q' });
  await denies('CREATE TOPIC n', { command: 'create', name: 'n' });
  await denies('WRITE TOPIC to', { command: 'create', name: 'n', settings: { 'dead.letter.queue': 'to' } });
  await denies('WRITE TOPIC to', { command: 'alter', name: 'q', settings: { 'dead.letter.queue': 'to' } });
  await denies('WRITE TOPIC to', { command: 'move', name: 'q', target: 'to' });
  await denies('ALTER CLUSTER kafka-cluster', { command: 'redrive', name: 'q' });
  await denies('WRITE TOPIC q', { command: 'replay', name: 'q', fromOffset: 0, append: true });
  on.denied.add('DESCRIBE GROUP q');
  t.like(await on.run({ command: 'list' }), { queues: [{ name: 'to' }] });
  await on.close();
});

test('any bytes and any arguments are answered', async (t) => {
  const on = await CommandWorld.open();
  on.world.topic('log', 2);
  for (const name of ['q', 'to']) {
    on.world.queue(name);
    await on.world.publish(name, ['a', { value: 'b', key: 'k' }]);
  }
  const names = [
    'list',
    'create',
    'alter',
    'describe',
    'peek',
    'purge',
    'move',
    'redrive',
    'replay',
    'jobs',
    'job',
    'cancel',
  ];
  const value = fc.oneof(
    fc.constantFrom('q', 'to', 'log', 'none', 'latest', 0, 1, 2, -1, 1e300, null, true, ['key=k'], ['key!=k', 'x']),
    fc.constantFrom({ 'ttl.ms': 5 }, { ordered: 'maybe' }, { 'dead.letter.queue': 'to' }, { 'max.messages': null }),
    fc.jsonValue(),
  );
  const keys = [
    'name',
    'topic',
    'from',
    'settings',
    'target',
    'filter',
    'rate',
    'limit',
    'dryRun',
    'partition',
    'offset',
  ];
  const more = ['count', 'inFlight', 'untilOffset', 'fromOffset', 'toOffset', 'fromMs', 'toMs', 'append', 'id'];
  const args = fc.dictionary(fc.constantFrom(...keys, ...more), value, { maxKeys: 5, noNullPrototype: true });
  const command = fc
    .tuple(fc.constantFrom(...names), fc.constantFrom('q', 'to', 'log', undefined), args)
    .map(([name, queue, rest]) =>
      JSON.stringify({ ...rest, command: name, ...(queue === undefined ? {} : { name: queue }) }),
    );
  const text = fc.oneof({ weight: 9, arbitrary: command }, { weight: 1, arbitrary: fc.string() });
  await fc.assert(
    fc.asyncProperty(text, async (sent) => {
      const { answer, error } = await on.raw(sent);
      t.true((answer === undefined) !== (error === undefined));
      if (error !== undefined) t.true(error.message.length > 5);
    }),
    { numRuns: 400 },
  );
  await on.world.run(1000);
  t.deepEqual(on.world.reports, []);
  await on.close();
});
