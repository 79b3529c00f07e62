/**
 * Who may come in: signatures of the SDK's own signer and each way to forge one, users and their permissions, policies of
 * queues. No request that is refused changes anything.
 */
import { createHmac, hash } from 'node:crypto';
import test from 'ava';
import { type MemorySqs, openMemorySqs, type RequestInit } from '../../support/memory-sqs.ts';

const ID = 'AKIDEXAMPLE';
const SECRET = 'wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY';
const HOST = 'localhost:9324';
const URL_OF_Q = 'http://localhost:9324/000000000000/q';

async function openSigned(): Promise<MemorySqs> {
  const world = await openMemorySqs();
  const { client } = world;
  await client('json').call('CreateQueue', { QueueName: 'q' });
  world.keys.set(ID, { user: 'guest', secret: SECRET });
  return world;
}

interface Signing {
  readonly secret?: string;
  readonly id?: string;
  readonly timeMs?: number;
  readonly date?: string;
  readonly service?: string;
  readonly region?: string;
  readonly signedHeaders?: readonly string[];
}

const stamp = (timeMs: number): string => new Date(timeMs).toISOString().replace(/[-:]|\.\d{3}/g, '');

function keyOf(secret: string, ...parts: string[]): Buffer {
  return parts.reduce<Buffer>(
    (key, part) => createHmac('sha256', key).update(part).digest(),
    Buffer.from(`AWS4${secret}`),
  );
}

/** By the documentation, apart from the code that checks it. */
function signed(
  action: string,
  input: object,
  { secret = SECRET, id = ID, timeMs = 0, date, service = 'sqs', region = 'us-east-1', signedHeaders }: Signing,
): RequestInit & { headers: Record<string, string>; body: string } {
  const time = stamp(timeMs);
  const day = date ?? time.slice(0, 8);
  const body = JSON.stringify(input);
  const headers: Record<string, string> = {
    'content-type': 'application/x-amz-json-1.0',
    host: HOST,
    'x-amz-date': time,
    'x-amz-target': `AmazonSQS.${action}`,
  };
  const names = signedHeaders ?? Object.keys(headers);
  const lines = names.map((name) => `${name}:${headers[name] ?? ''}\n`).join('');
  const canonical = ['POST', '/', '', lines, names.join(';'), hash('sha256', body)].join('\n');
  const scope = `${day}/${region}/${service}/aws4_request`;
  const text = `AWS4-HMAC-SHA256\n${time}\n${scope}\n${hash('sha256', canonical)}`;
  const key = keyOf(secret, day, region, service, 'aws4_request');
  const signature = createHmac('sha256', key).update(text).digest('hex');
  headers['authorization'] =
    `AWS4-HMAC-SHA256 Credential=${id}/${scope}, SignedHeaders=${names.join(';')}, Signature=${signature}`;
  return { headers, body };
}

function presigned(query: string, { timeMs = 0, expires = 60 }: { timeMs?: number; expires?: number }): string {
  const time = stamp(timeMs);
  const scope = `${time.slice(0, 8)}/us-east-1/sqs/aws4_request`;
  const all = [
    ...query.split('&'),
    'X-Amz-Algorithm=AWS4-HMAC-SHA256',
    `X-Amz-Credential=${encodeURIComponent(`${ID}/${scope}`)}`,
    `X-Amz-Date=${time}`,
    `X-Amz-Expires=${expires}`,
    'X-Amz-SignedHeaders=host',
  ].sort();
  const canonical = ['GET', '/000000000000/q', all.join('&'), `host:${HOST}\n`, 'host', hash('sha256', '')].join('\n');
  const text = `AWS4-HMAC-SHA256\n${time}\n${scope}\n${hash('sha256', canonical)}`;
  const key = keyOf(SECRET, time.slice(0, 8), 'us-east-1', 'sqs', 'aws4_request');
  return `/000000000000/q?${all.join('&')}&X-Amz-Signature=${createHmac('sha256', key).update(text).digest('hex')}`;
}

/** Error and whether a message got in. */
async function outcome({ request, settle, broker }: MemorySqs, init: RequestInit): Promise<[string, number]> {
  const { body = '' } = await settle(request(init).answer);
  const text = body.toString();
  const error = /"__type":"[^"]*#(\w+)"/.exec(text)?.[1] ?? /<Code>([^<]*)</.exec(text)?.[1] ?? '';
  return [error, broker.queues.get('q')?.counts().ready ?? -1];
}

const send = { QueueUrl: URL_OF_Q, MessageBody: 'x' };

test('a request that is signed as documented passes, in any region', async (t) => {
  const world = await openSigned();
  const timeMs = world.clock.now();
  t.deepEqual(await outcome(world, signed('SendMessage', send, { timeMs })), ['', 1]);
  t.deepEqual(await outcome(world, signed('SendMessage', send, { timeMs, region: 'eu-north-1' })), ['', 2]);
  const { body = '' } = await world.settle(
    world.request(
      signed(
        'GetQueueAttributes',
        { QueueUrl: URL_OF_Q, AttributeNames: ['QueueArn'] },
        { timeMs, region: 'eu-north-1' },
      ),
    ).answer,
  );
  t.is(JSON.parse(body.toString()).Attributes.QueueArn, 'arn:aws:sqs:eu-north-1:000000000000:q');
});

test('a presigned request passes until it has expired', async (t) => {
  const world = await openSigned();
  const timeMs = world.clock.now();
  const target = presigned('Action=SendMessage&MessageBody=x%20y', { timeMs });
  t.deepEqual(await outcome(world, { method: 'GET', target }), ['', 1]);
  t.deepEqual(await outcome(world, { method: 'GET', target: `${target}&DelaySeconds=1` }), [
    'SignatureDoesNotMatch',
    1,
  ]);
  t.deepEqual(await outcome(world, { method: 'GET', target: target.replace('x%20y', 'z') }), [
    'SignatureDoesNotMatch',
    1,
  ]);
  t.deepEqual(await outcome(world, { method: 'GET', target: target.replace('/q?', '/p?') }), [
    'SignatureDoesNotMatch',
    1,
  ]);
  t.deepEqual(await outcome(world, { method: 'POST', target, body: 'MessageBody=forged' }), [
    'SignatureDoesNotMatch',
    1,
  ]);
  await world.clock.advance(61_000);
  t.deepEqual(await outcome(world, { method: 'GET', target }), ['RequestExpired', 1]);
});

test('each way to forge is found, and nothing is done', async (t) => {
  const world = await openSigned();
  const timeMs = world.clock.now();
  const good = signed('SendMessage', send, { timeMs });
  const withHeaders = (headers: Record<string, string>) => ({ ...good, headers: { ...good.headers, ...headers } });
  const without = (name: string) => ({
    ...good,
    headers: Object.fromEntries(Object.entries(good.headers).filter(([other]) => other !== name)),
  });
  const cases: [string, RequestInit, string][] = [
    ['unsigned', without('authorization'), 'MissingAuthenticationToken'],
    ['another body', { ...good, body: JSON.stringify({ ...send, MessageBody: 'y' }) }, 'SignatureDoesNotMatch'],
    ['another action', withHeaders({ 'x-amz-target': 'AmazonSQS.PurgeQueue' }), 'SignatureDoesNotMatch'],
    ['another host', withHeaders({ host: 'elsewhere' }), 'SignatureDoesNotMatch'],
    ['another path', { ...good, target: '/000000000000/q' }, 'SignatureDoesNotMatch'],
    ['another query', { ...good, target: '/?a=b' }, 'SignatureDoesNotMatch'],
    ['another method', { ...good, method: 'PUT' }, 'SignatureDoesNotMatch'],
    ['another time', withHeaders({ 'x-amz-date': stamp(timeMs + 1000) }), 'SignatureDoesNotMatch'],
    ['a wrong secret', signed('SendMessage', send, { timeMs, secret: 'other' }), 'SignatureDoesNotMatch'],
    ['an unknown key', signed('SendMessage', send, { timeMs, id: 'AKIDNOBODY' }), 'InvalidClientTokenId'],
    ['another service', signed('SendMessage', send, { timeMs, service: 's3' }), 'SignatureDoesNotMatch'],
    ['the scope of another day', signed('SendMessage', send, { timeMs, date: '20200101' }), 'SignatureDoesNotMatch'],
    ['sixteen minutes ago', signed('SendMessage', send, { timeMs: timeMs - 960_000 }), 'RequestExpired'],
    ['in sixteen minutes', signed('SendMessage', send, { timeMs: timeMs + 960_000 }), 'RequestExpired'],
    [
      'the action is not signed',
      signed('SendMessage', send, { timeMs, signedHeaders: ['host', 'x-amz-date'] }),
      'SignatureDoesNotMatch',
    ],
    [
      'the host is not signed',
      signed('SendMessage', send, { timeMs, signedHeaders: ['x-amz-date', 'x-amz-target'] }),
      'SignatureDoesNotMatch',
    ],
    ['a token that is not signed', withHeaders({ 'x-amz-security-token': 'x' }), 'SignatureDoesNotMatch'],
    ['no date', without('x-amz-date'), 'IncompleteSignature'],
    ['basic authentication', withHeaders({ authorization: 'Basic Z3Vlc3Q6Z3Vlc3Q=' }), 'IncompleteSignature'],
    [
      'an empty signature',
      withHeaders({ authorization: 'AWS4-HMAC-SHA256 Credential=x, SignedHeaders=x, Signature=' }),
      'IncompleteSignature',
    ],
    [
      'streaming',
      withHeaders({ 'x-amz-content-sha256': 'STREAMING-AWS4-HMAC-SHA256-PAYLOAD', 'content-encoding': 'aws-chunked' }),
      '',
    ],
  ];
  for (const [name, init, error] of cases) {
    if (name === 'streaming') {
      // What is not signed says nothing: the body counts as it came.
      t.deepEqual(await outcome(world, init), ['', 1], name);
      await outcome(world, signed('PurgeQueue', { QueueUrl: URL_OF_Q }, { timeMs }));
      continue;
    }
    t.deepEqual(await outcome(world, init), [error, 0], name);
  }
  // Once more the good one, and when it has become old.
  t.deepEqual(await outcome(world, good), ['', 1]);
  await world.clock.advance(901_000);
  t.deepEqual(await outcome(world, good), ['RequestExpired', 1]);
});

test('without any keys everybody passes, with whatever signature', async (t) => {
  const world = await openSigned();
  world.keys.clear();
  t.deepEqual(await outcome(world, signed('SendMessage', send, { secret: 'any' })), ['', 1]);
  t.deepEqual(
    await outcome(world, { headers: { 'x-amz-target': 'AmazonSQS.SendMessage' }, body: JSON.stringify(send) }),
    ['', 2],
  );
});

test('a user may what its permissions and the policy of the queue say', async (t) => {
  const world = await openSigned();
  const timeMs = world.clock.now();
  // Nobody has given this one any permission.
  world.keys.set('AKIDOTHER', { user: 'other', secret: 'secret' });
  const as = (action: string, input: object) => signed(action, input, { timeMs, id: 'AKIDOTHER', secret: 'secret' });
  const input = { QueueUrl: URL_OF_Q };
  t.deepEqual(await outcome(world, as('SendMessage', send)), ['AccessDenied', 0]);
  t.deepEqual(await outcome(world, as('ReceiveMessage', input)), ['AccessDenied', 0]);
  t.deepEqual(await outcome(world, as('DeleteQueue', input)), ['AccessDenied', 0]);
  t.deepEqual(await outcome(world, as('CreateQueue', { QueueName: 'new' })), ['AccessDenied', 0]);
  const { body = '' } = await world.settle(world.request(as('ListQueues', {})).answer);
  t.is(body, '{}');
  const policy = (statement: object) =>
    outcome(
      world,
      signed(
        'SetQueueAttributes',
        { ...input, Attributes: { Policy: JSON.stringify({ Statement: [statement] }) } },
        { timeMs },
      ),
    );
  const principal = { AWS: 'arn:aws:iam::000000000000:user/other' };
  await policy({ Effect: 'Allow', Principal: principal, Action: 'SQS:SendMessage', Resource: '*' });
  t.deepEqual(await outcome(world, as('SendMessage', send)), ['', 1]);
  t.deepEqual(await outcome(world, as('SendMessageBatch', { ...input, Entries: [{ Id: 'a', MessageBody: 'x' }] })), [
    '',
    2,
  ]);
  t.deepEqual(await outcome(world, as('PurgeQueue', input)), ['AccessDenied', 2]);
  await policy({ Effect: 'Deny', Principal: '*', Action: 'sqs:*' });
  t.deepEqual(await outcome(world, as('SendMessage', send)), ['AccessDenied', 2]);
  t.deepEqual(await outcome(world, signed('SendMessage', send, { timeMs })), ['AccessDenied', 2]);
});
