import { readFileSync } from 'node:fs';
import amqp from 'amqplib';
import test, { type ExecutionContext } from 'ava';
import { startTestBroker, type TestBroker } from '../../support/broker.ts';

/** What RabbitMQ 4.0.5 exported: of everything, and of the vhost 'orders' of it. */
const WHOLE = JSON.parse(readFileSync('test/adapters/management/definitions-4.0.5.json', 'utf8')) as Definitions;
const OF_VHOST = JSON.parse(
  readFileSync('test/adapters/management/definitions-vhost-4.0.5.json', 'utf8'),
) as Definitions;

type Definitions = Readonly<Record<string, unknown>>;

async function withBroker(work: (broker: TestBroker) => Promise<void>): Promise<void> {
  const broker = await startTestBroker();
  try {
    await work(broker);
  } finally {
    await broker.stop();
  }
}

const AS_GUEST = { authorization: `Basic ${Buffer.from('guest:guest').toString('base64')}` };

async function exported({ management }: TestBroker, path = '/definitions', headers = AS_GUEST): Promise<Definitions> {
  const response = await fetch(`${management}/api${path}`, { headers });
  return (await response.json()) as Definitions;
}

function imported(broker: TestBroker, body: unknown, path = '/definitions', headers = AS_GUEST): Promise<Response> {
  return fetch(`${broker.management}/api${path}`, {
    method: 'POST',
    headers: { 'content-type': 'application/json', ...headers },
    body: JSON.stringify(body),
  });
}

/** Without order, and without what tells which broker wrote it. */
function normalised(definitions: Definitions): unknown {
  const { product_name: _, product_version: __, explanation: ___, ...rest } = definitions;
  return Object.fromEntries(
    Object.entries(rest).map(([name, value]) => [
      name,
      Array.isArray(value) ? value.map((each) => JSON.stringify(inOrder(each))).sort() : inOrder(value),
    ]),
  );
}

function inOrder(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(inOrder);
  if (typeof value !== 'object' || value === null) return value;
  const entries = Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1));
  return Object.fromEntries(entries.map(([name, each]) => [name, inOrder(each)]));
}

test('what RabbitMQ exports comes in and is exported the same, also after a restart', async (t) => {
  await withBroker(async (broker) => {
    const response = await imported(broker, WHOLE);
    t.is(response.status, 204, await response.text());
    // The password of guest is that of the file now.
    t.deepEqual(normalised(await exported(broker)), normalised(WHOLE));
    const ofVhost = { ...OF_VHOST };
    t.deepEqual(normalised(await exported(broker, '/definitions/orders')), normalised(ofVhost));
    await topologyWorks(t, broker);
    await broker.restart();
    // What is not durable has gone, with its bindings.
    t.deepEqual(normalised(await exported(broker)), normalised(durable(WHOLE)));
    // Once more changes nothing.
    t.is((await imported(broker, WHOLE)).status, 204);
    t.deepEqual(normalised(await exported(broker)), normalised(WHOLE));
    t.deepEqual(broker.lines, []);
  });
});

function durable(definitions: Definitions): Definitions {
  const list = (name: string): Definitions[] => definitions[name] as Definitions[];
  const isKept = ({ durable: kept }: Definitions): boolean => kept === true;
  return {
    ...definitions,
    queues: list('queues').filter(isKept),
    exchanges: list('exchanges').filter(isKept),
    bindings: list('bindings').filter(({ destination }) => destination !== 'transient'),
  };
}

async function topologyWorks(t: ExecutionContext, { amqp: url, management }: TestBroker): Promise<void> {
  const vhost = `${url.replace('guest:guest', 'alice:wonder')}/orders`;
  const connection = await amqp.connect(vhost);
  const channel = await connection.createConfirmChannel();
  const publish = (exchange: string, key: string, options: amqp.Options.Publish = {}): void => {
    channel.publish(exchange, key, Buffer.from(`${exchange} ${key}`), options);
  };
  publish('events', 'order.7.created');
  publish('events', 'ä.ö');
  publish('events', 'audit.x');
  publish('direct.one', 'a b/c~d');
  publish('direct.one', 'nowhere');
  publish('by header', '', { headers: { kind: 'small' } });
  publish('hashed', 'k', { headers: { h: 'one' } });
  publish('dlx', 'dead.letters');
  await channel.waitForConfirms();
  const counts: Record<string, number> = {};
  const names = ['classic', 'ümlaut/queue name', 'prio', 'long', 'single', 'dead.letters', 'q.quorum', 'q.limits'];
  for (const name of names) counts[name] = (await channel.checkQueue(name)).messageCount;
  t.is(counts['q.quorum'] + counts['q.limits'], 1);
  const { 'q.quorum': _, 'q.limits': __, ...others } = counts;
  t.deepEqual(others, { classic: 1, 'ümlaut/queue name': 1, prio: 1, long: 1, single: 1, 'dead.letters': 1 });
  await connection.close();
  // bob may only what his permissions say.
  const bob = await amqp.connect(`${url.replace('guest:guest', 'bob:builder')}/orders`);
  const refused = await bob.createChannel();
  refused.on('error', () => {});
  await t.throwsAsync(refused.assertQueue('forbidden'), { message: /ACCESS_REFUSED/ });
  await bob.close();
  // The policies apply.
  const answer = await fetch(`${management}/api/queues/orders/long`, { headers: AS_GUEST });
  const { policy, operator_policy: operator } = (await answer.json()) as Definitions;
  t.deepEqual([policy, operator], ['lengths', 'op']);
}

test('definitions of one vhost come into another one', async (t) => {
  await withBroker(async (broker) => {
    await fetch(`${broker.management}/api/vhosts/copy`, { method: 'PUT', headers: AS_GUEST });
    const response = await imported(broker, OF_VHOST, '/definitions/copy');
    t.is(response.status, 204, await response.text());
    const copy = (await exported(broker, '/definitions/copy')) as Record<string, unknown>;
    for (const name of ['queues', 'exchanges', 'bindings', 'policies', 'parameters']) {
      t.deepEqual(normalised({ [name]: copy[name] }), normalised({ [name]: OF_VHOST[name] }), name);
    }
  });
});

test('a file comes in by a form', async (t) => {
  await withBroker(async (broker) => {
    const form = new FormData();
    form.set('file', new Blob([JSON.stringify({ vhosts: [{ name: 'by form' }] })]), 'definitions.json');
    const response = await fetch(`${broker.management}/api/definitions`, {
      method: 'POST',
      headers: AS_GUEST,
      body: form,
      redirect: 'manual',
    });
    t.is(response.status, 204);
    const definitions = await exported(broker);
    t.true((definitions['vhosts'] as Definitions[]).some(({ name }) => name === 'by form'));
    // Who brings a vhost may use it.
    const mine = (definitions['permissions'] as Definitions[]).find(({ vhost }) => vhost === 'by form');
    t.like(mine, { user: 'guest', configure: '.*', write: '.*', read: '.*' });
  });
});

test('what is refused says why, and what came before it stays', async (t) => {
  await withBroker(async (broker) => {
    const exchange = { name: 'x', vhost: 'nowhere', type: 'direct', durable: true, auto_delete: false, arguments: {} };
    const response = await imported(broker, { vhosts: [{ name: 'before' }], exchanges: [exchange] });
    t.is(response.status, 400);
    t.deepEqual(await response.json(), {
      error: 'bad_request',
      reason: 'Please create virtual host "nowhere" prior to importing definitions.',
    });
    const { vhosts } = await exported(broker);
    t.true((vhosts as Definitions[]).some(({ name }) => name === 'before'));
    for (const body of ['[]', '"text"', '{', '5']) {
      const answer = await fetch(`${broker.management}/api/definitions`, { method: 'POST', headers: AS_GUEST, body });
      t.deepEqual(
        [answer.status, await answer.json()],
        [400, { error: 'bad_request', reason: 'failed_to_parse_json' }],
      );
    }
  });
});
