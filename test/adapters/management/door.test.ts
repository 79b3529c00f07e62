import amqp from 'amqplib';
import test from 'ava';
import { startTestBroker, type TestBroker } from '../../support/broker.ts';

const GUEST = { authorization: `Basic ${Buffer.from('guest:guest').toString('base64')}` };

async function withBroker(
  work: (broker: TestBroker) => Promise<void>,
  options: Record<string, string | number | boolean> = {},
): Promise<void> {
  const broker = await startTestBroker(options);
  try {
    await work(broker);
  } finally {
    await broker.stop();
  }
}

function ask(
  { management }: TestBroker,
  request: string,
  body?: unknown,
  headers: Readonly<Record<string, string>> = GUEST,
) {
  const [method, path] = request.split(' ');
  return fetch(`${management}/api${path}`, {
    method,
    headers,
    ...(body === undefined ? {} : { body: typeof body === 'string' ? body : JSON.stringify(body) }),
  });
}

async function json(response: Promise<Response>): Promise<Record<string, never>> {
  return (await (await response).json()) as Record<string, never>;
}

test('the page says what it is, without a password', async (t) => {
  await withBroker(async (broker) => {
    const page = await fetch(`${broker.management}/`);
    t.is(page.status, 200);
    t.regex(await page.text(), /RabbitMQ's management HTTP API/);
    t.is((await fetch(`${broker.management}/favicon.ico`)).status, 404);
  });
});

test('bodies that are too long, no JSON, or nested too deeply are refused', async (t) => {
  await withBroker(
    async (broker) => {
      const long = await ask(broker, 'PUT /queues/%2F/q', 'x'.repeat(5000));
      t.is(long.status, 400);
      t.deepEqual(await long.json(), { error: 'bad_request', reason: 'Exceeded HTTP request body size limit' });
      const deep = `${'{"a":'.repeat(500)}1${'}'.repeat(500)}`;
      const nested = await ask(broker, 'PUT /queues/%2F/q', `{"arguments":${deep}}`);
      t.is(nested.status, 400);
      for (const body of ['\0', '{"a":', '[[[[', '{"arguments":5}', '{"arguments":[1]}', '\ufeff{}x']) {
        t.is((await ask(broker, 'PUT /queues/%2F/q', body)).status, 400, body);
      }
      t.is((await ask(broker, 'GET /queues/%2F/q')).status, 404);
      t.deepEqual(broker.lines, []);
    },
    { 'management.body.bytes.max': 4096 },
  );
});

test('paths that are no percent-encoding, or empty in the middle, name nothing', async (t) => {
  await withBroker(async (broker) => {
    for (const path of ['/queues/%zz/q', '/queues/%ff/q', '/queues//q', '//queues', '/']) {
      t.is((await ask(broker, `GET ${path}`)).status, 404, path);
    }
    t.is((await ask(broker, 'GET /queues/')).status, 200);
  });
});

test('what a user may not do over AMQP is not done over HTTP, by administrators neither', async (t) => {
  await withBroker(async (broker) => {
    await ask(broker, 'PUT /users/chief', { password: 'p', tags: 'administrator' });
    const chief = { authorization: `Basic ${Buffer.from('chief:p').toString('base64')}` };
    t.is((await ask(broker, 'PUT /queues/%2F/q', {}, chief)).status, 401);
    await ask(broker, 'PUT /permissions/%2F/chief', { configure: '^mine', write: '^mine', read: '^mine' });
    t.is((await ask(broker, 'PUT /queues/%2F/q', {}, chief)).status, 401);
    t.is((await ask(broker, 'PUT /queues/%2F/mine', {}, chief)).status, 201);
    const message = { properties: {}, routing_key: 'mine', payload: 'x', payload_encoding: 'string' };
    t.is((await ask(broker, 'POST /exchanges/%2F/amq.default/publish', message, chief)).status, 400);
    t.is((await ask(broker, 'DELETE /users/chief')).status, 204);
    t.is((await ask(broker, 'GET /whoami', undefined, chief)).status, 401);
  });
});

test('connections that act for a user are counted nowhere', async (t) => {
  await withBroker(async (broker) => {
    await ask(
      broker,
      'PUT /vhost-limits/%2F/max-connections',
      { value: 0 },
      {
        ...GUEST,
        'content-type': 'application/json',
      },
    );
    t.is((await ask(broker, 'PUT /queues/%2F/q', {})).status, 201);
    t.deepEqual(await json(ask(broker, 'GET /connections')), [] as never);
    const { object_totals: totals } = await json(ask(broker, 'GET /overview'));
    t.like(totals, { connections: 0, channels: 0, queues: 1 });
    await t.throwsAsync(amqp.connect(broker.amqp));
  });
});

test('counts are those of all doors, and of messages', async (t) => {
  await withBroker(async (broker) => {
    const connection = await amqp.connect(broker.amqp);
    const channel = await connection.createConfirmChannel();
    await channel.assertQueue('q', { durable: true });
    for (let count = 0; count < 10; count++) channel.sendToQueue('q', Buffer.from('m'));
    channel.publish('', 'nowhere', Buffer.from('m'));
    channel.publish('', 'nowhere', Buffer.from('m'), { mandatory: true });
    await channel.waitForConfirms();
    const got = await channel.get('q');
    if (got) channel.ack(got);
    await channel.get('q');
    await channel.checkQueue('q');
    const queue = await json(ask(broker, 'GET /queues/%2F/q'));
    t.like(queue, { messages: 9, messages_ready: 8, messages_unacknowledged: 1, consumers: 0 });
    t.like(queue['message_stats'], { publish: 10, get: 2, ack: 1, deliver_get: 2, redeliver: 0, get_empty: 0 });
    const [shown] = (await json(ask(broker, 'GET /channels'))) as unknown as [Record<string, unknown>];
    t.like(shown, { messages_unacknowledged: 1, confirm: true, messages_unconfirmed: 0 });
    t.like(shown['message_stats'] as object, { publish: 12, confirm: 12, drop_unroutable: 1, return_unroutable: 1 });
    const exchange = await json(ask(broker, 'GET /exchanges/%2F/amq.default'));
    t.like(exchange['message_stats'], { publish_in: 12, publish_out: 10 });
    const page = await (await fetch(`${broker.http}/metrics`)).text();
    t.regex(page, /^millrace_amqp_messages_total\{vhost="\/",event="publish"\} 12$/m);
    t.regex(page, /^millrace_amqp_connections 1$/m);
    // What a channel has done is remembered after its end.
    await connection.close();
    const vhost = await json(ask(broker, 'GET /vhosts/%2F'));
    t.like(vhost['message_stats'], { publish: 12, get: 2, ack: 1 });
  });
});

test('an alarm is told by the checks, and a publish does not wait for its end', async (t) => {
  await withBroker(
    async (broker) => {
      t.is((await ask(broker, 'PUT /queues/%2F/q', {})).status, 201);
      const check = await ask(broker, 'GET /health/checks/alarms');
      t.is(check.status, 503);
      t.like(await check.json(), { status: 'failed', alarms: [{ resource: 'memory' }] });
      const [node] = (await json(ask(broker, 'GET /nodes'))) as unknown as [Record<string, unknown>];
      t.like(node, { mem_alarm: true, disk_free_alarm: false });
      const message = { properties: {}, routing_key: 'q', payload: 'x', payload_encoding: 'string' };
      t.is((await ask(broker, 'POST /exchanges/%2F/amq.default/publish', message)).status, 503);
      t.regex(await (await fetch(`${broker.http}/metrics`)).text(), /^millrace_amqp_alarm\{resource="memory"\} 1$/m);
    },
    { 'amqp.memory.high.bytes': 1_048_576 },
  );
});

test('a list of many queues comes in pages', async (t) => {
  await withBroker(async (broker) => {
    const queues = Array.from({ length: 250 }, (_, index) => ({
      name: `q${String(index).padStart(3, '0')}`,
      vhost: '/',
      durable: true,
      auto_delete: false,
      arguments: {},
    }));
    t.is((await ask(broker, 'POST /definitions', { queues })).status, 204);
    const page = await json(ask(broker, 'GET /queues/%2F?page=3&page_size=100&columns=name'));
    t.like(page, { page: 3, page_count: 3, item_count: 50, filtered_count: 250, total_count: 250 });
    const found = await json(ask(broker, 'GET /queues/%2F?page=1&use_regex=true&name=^q0[12]..?$&columns=name'));
    t.like(found, { filtered_count: 20, total_count: 250 });
    // A pattern that would keep a backtracking engine busy for ever.
    const slow = await ask(
      broker,
      `GET /queues/%2F?page=1&use_regex=true&name=${encodeURIComponent('(q*)*'.repeat(20))}$`,
    );
    t.true([200, 400].includes(slow.status));
    t.is((await ask(broker, 'GET /queues/%2F?page=1&use_regex=true&name=(')).status, 400);
  });
});

test('a message too large for a frame, and bytes that are no text, come back as they were', async (t) => {
  await withBroker(async (broker) => {
    await ask(broker, 'PUT /queues/%2F/q', {});
    const body = Buffer.alloc(300_000, 0xfe);
    const sent = { properties: {}, routing_key: 'q', payload: body.toString('base64'), payload_encoding: 'base64' };
    t.deepEqual(await json(ask(broker, 'POST /exchanges/%2F/amq.default/publish', sent)), { routed: true as never });
    const take = { count: 1, ackmode: 'ack_requeue_false', encoding: 'auto' };
    const [got] = (await json(ask(broker, 'POST /queues/%2F/q/get', take))) as unknown as [Record<string, string>];
    t.is(got['payload_encoding'], 'base64');
    t.true(Buffer.from(got['payload'], 'base64').equals(body));
  });
});
