/**
 * The SQS door against HTTP as nobody should write it, over sockets: the right error or an end of the connection, in bounded
 * time and memory, and the next client is served.
 */
import net from 'node:net';
import test from 'ava';
import { startTestBroker, type TestBroker } from '../../support/broker.ts';
import { overHttp, SqsClient } from '../../support/sqs-client.ts';

let broker: TestBroker;
let port: number;
test.before(async () => {
  broker = await startTestBroker();
  port = Number(new URL(broker.sqs).port);
  await new SqsClient(overHttp(broker.sqs), 'json').call('CreateQueue', { QueueName: 'q' });
});
test.after.always(() => broker.stop());

/** Everything that comes back until the connection ends, or `isEnough` says so. */
function exchange(
  parts: readonly (string | Buffer)[],
  isEnough: (text: string) => boolean = () => false,
): Promise<string> {
  return new Promise((resolve) => {
    const socket = net.connect(port, '127.0.0.1');
    let text = '';
    socket.on('data', (chunk: Buffer) => {
      text += chunk.toString('latin1');
      if (isEnough(text)) socket.destroy();
    });
    // A reset while more is written is an end, too.
    socket.on('error', () => {});
    socket.on('close', () => resolve(text));
    for (const part of parts) socket.write(part);
  });
}

const body = JSON.stringify({ QueueUrl: 'http://h/0/q', MessageBody: 'x' });
const head = (...lines: string[]): string =>
  ['POST / HTTP/1.1', 'Host: h', 'X-Amz-Target: AmazonSQS.SendMessage', ...lines, '', ''].join('\r\n');
const isAnswered = (text: string): boolean => text.includes('\r\n\r\n');
const statusOf = (text: string): string => text.slice(9, 12);

async function isUntouched(): Promise<boolean> {
  const client = new SqsClient(overHttp(broker.sqs), 'json');
  const url = `${broker.sqs}/000000000000/q`;
  const { Attributes = {} } = await client.call('GetQueueAttributes', { QueueUrl: url, AttributeNames: ['All'] });
  return Attributes['ApproximateNumberOfMessages'] === '0';
}

const refused: readonly [name: string, parts: readonly string[]][] = [
  [
    'length and chunks at once',
    [head(`Content-Length: ${body.length}`, 'Transfer-Encoding: chunked'), `0\r\n\r\n${body}`],
  ],
  ['two lengths', [head('Content-Length: 1', `Content-Length: ${body.length}`), body]],
  ['a negative length', [head('Content-Length: -1'), body]],
  ['a length that is none', [head('Content-Length: 1e2'), body]],
  ['an encoding that hides chunks', [head('Transfer-Encoding: xchunked'), body]],
  ['chunked not last', [head('Transfer-Encoding: chunked, identity'), '0\r\n\r\n']],
  ['a blank before the colon', [head('Content-Length : 5'), body]],
  ['a folded header', [head('X-Fold: a\r\n b: c', 'Content-Length: 0')]],
  ['a bare line feed', [`POST / HTTP/1.1\nHost: h\nContent-Length : 1\n\n${body}`]],
  ['a zero byte', [head('X-Zero: a\u0000b', 'Content-Length: 0')]],
  ['a chunk size that is none', [head('Transfer-Encoding: chunked'), 'zz\r\nabc\r\n0\r\n\r\n']],
  ['a chunk that is longer than it says', [head('Transfer-Encoding: chunked'), '1\r\nabcdef\r\n0\r\n\r\n']],
  ['no HTTP', ['\u0016\u0003\u0001\u0002\u0000\u0001\u0000\u0001\u00fc\u0003\u0003']],
  ['another protocol', ['PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n']],
  ['huge headers', [head(`X-Large: ${'x'.repeat(100_000)}`, 'Content-Length: 0')]],
  ['many headers', [head(...Array.from({ length: 20_000 }, (_, index) => `X-${index}: y`), 'Content-Length: 0')]],
  ['a huge first line', [`GET /?${'a'.repeat(200_000)} HTTP/1.1\r\nHost: h\r\n\r\n`]],
];

for (const [name, parts] of refused) {
  test(`refused: ${name}`, async (t) => {
    const text = await exchange(parts, isAnswered);
    t.true(text === '' || /^HTTP\/1\.1 4\d\d /.test(text), text.slice(0, 200));
    t.true(await isUntouched());
  });
}

test('a body that is larger than allowed is refused by its length alone', async (t) => {
  const text = await exchange([head('Content-Length: 99999999999')], isAnswered);
  t.is(statusOf(text), '413');
});

test('chunks beyond what is allowed end the request', async (t) => {
  const chunk = `100000\r\n${'x'.repeat(0x10_00_00)}\r\n`;
  const text = await exchange(
    [head('Transfer-Encoding: chunked'), ...Array.from({ length: 12 }, () => chunk)],
    isAnswered,
  );
  t.true(text === '' || statusOf(text) === '413', text.slice(0, 100));
});

test('a peer that goes in the middle of its body leaves nothing', async (t) => {
  await new Promise<void>((resolve) => {
    const socket = net.connect(port, '127.0.0.1', () => {
      socket.write(head('Content-Length: 1000') + body.slice(0, 10), () => socket.destroy());
    });
    socket.on('close', () => resolve());
  });
  t.true(await isUntouched());
  t.deepEqual(broker.lines, []);
});

test('requests in a row on one connection are answered in order', async (t) => {
  const ask = (action: string, content: string): string =>
    `POST / HTTP/1.1\r\nHost: h\r\nX-Amz-Target: AmazonSQS.${action}\r\nContent-Length: ${content.length}\r\n\r\n${content}`;
  const text = await exchange(
    [ask('ListQueues', '{}') + ask('GetQueueUrl', '{"QueueName":"none"}') + ask('GetQueueUrl', '{"QueueName":"q"}')],
    (all) => (all.match(/HTTP\/1\.1/g) ?? []).length === 3 && all.endsWith('}'),
  );
  t.deepEqual(
    [...text.matchAll(/HTTP\/1\.1 (\d+)/g)].map(([, status]) => status),
    ['200', '400', '200'],
  );
});

test('names are never paths', async (t) => {
  const client = new SqsClient(overHttp(broker.sqs), 'json');
  for (const name of ['../q', '..', '/etc/passwd', 'a/../../b', 'a\u0000b', '__millrace_queues', '%2e%2e%2fq']) {
    const answer = await client.ask('GetQueueUrl', { QueueName: name });
    t.is(answer.error, 'QueueDoesNotExist', name);
    const made = await client.ask('CreateQueue', { QueueName: name });
    t.not(made.error, undefined, name);
  }
});

test('bombs are refused with the right error', async (t) => {
  const post = async (content: string, headers: Record<string, string>): Promise<string> => {
    const response = await fetch(broker.sqs, { method: 'POST', body: content, headers });
    return `${response.status} ${(await response.text()).slice(0, 400)}`;
  };
  const json = { 'x-amz-target': 'AmazonSQS.SendMessage' };
  t.regex(await post('['.repeat(1_000_000), json), /^400 .*SerializationException/);
  t.regex(await post(`{"a":`.repeat(100_000), json), /^400 .*SerializationException/);
  t.regex(await post('a=1&'.repeat(100_000), {}), /^404 .*MalformedQueryString/);
  t.regex(await post('%ff=%ff', {}), /^404 .*MalformedQueryString/);
  t.regex(await post('x'.repeat(9 * 1024 * 1024), json), /^413 /);
  t.deepEqual(broker.lines, []);
});
