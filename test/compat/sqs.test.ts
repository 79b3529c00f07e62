/** Clients of SQS that are no packages of ours: boto3, the aws command, Celery, sqs-consumer and sqs-producer. */
import { spawn, spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'ava';
import { startTestBroker } from '../support/broker.ts';
import { projectRoot } from './java-tools.ts';
import { isFull, isInstalled, sayMissing } from './target.ts';

const python = (name: string): string => join(projectRoot(), 'test/compat/python', name);
const environment = {
  ...process.env,
  AWS_ACCESS_KEY_ID: 'any',
  AWS_SECRET_ACCESS_KEY: 'any',
  AWS_DEFAULT_REGION: 'us-east-1',
  AWS_PAGER: '',
};

/** What the program prints; fails with what it complained of. */
function printed(command: string, args: readonly string[]): Promise<string> {
  return new Promise((resolve, reject) => {
    const child = spawn(command, args, { env: environment });
    let text = '';
    let complaints = '';
    child.stdout.on('data', (chunk: Buffer) => {
      text += chunk.toString();
    });
    child.stderr.on('data', (chunk: Buffer) => {
      complaints += chunk.toString();
    });
    child.on('error', reject);
    child.on('close', (status) =>
      status === 0 ? resolve(text) : reject(new Error(`${command} ended with ${status}: ${complaints}`)),
    );
  });
}

async function withBroker(work: (endpoint: string) => Promise<void>): Promise<void> {
  const broker = await startTestBroker();
  try {
    await work(broker.sqs);
  } finally {
    await broker.stop();
  }
}

if (isInstalled('python3', '-c', 'import boto3')) {
  test('boto3: client, resource, paginator, errors', async (t) => {
    t.timeout(60_000);
    await withBroker(async (endpoint) => {
      const lines = (await printed('python3', [python('sqs_boto3.py'), endpoint])).trim().split('\n');
      const checks = lines.map((line) => JSON.parse(line) as { check: string; value: unknown });
      const own = (name: string) => [`AWS.SimpleQueueService.${name}`, 400];
      t.deepEqual(
        checks.map(({ check, value }) => [check, value]),
        [
          ['url', ['000000000000', 'boto']],
          ['body', 'hällo'],
          ['attributes', ['1', [0, 255]]],
          ['count', '1'],
          ['again', '2'],
          ['batch', Array.from({ length: 10 }, (_, index) => `m${index}`)],
          ['attributes of the queue', { VisibilityTimeout: '40', ApproximateNumberOfMessages: '0' }],
          ['tags', { a: 'b' }],
          ['no queue', own('NonExistentQueue')],
          ['no handle', ['ReceiptHandleIsInvalid', 404]],
          ['empty batch', own('EmptyBatchRequest')],
          ['wrong attribute', ['InvalidAttributeValue', 400]],
          ['duplicate', true],
          ['presigned', true],
          ['page', ['boto']],
          ['page', ['boto.fifo']],
          ['deleted', own('NonExistentQueue')],
        ],
      );
    });
  });
} else {
  sayMissing('boto3');
  test('boto3 is not installed here', (t) => t.pass());
}

if (!isFull) {
  test('the aws command, Celery, sqs-consumer and sqs-producer take longer than npm test may', (t) => t.pass());
} else {
  if (isInstalled('aws', '--version')) {
    test('the aws command makes, fills, reads and deletes a queue', async (t) => {
      t.timeout(120_000);
      await withBroker(async (endpoint) => {
        const aws = async (...args: string[]): Promise<unknown> => {
          const text = await printed('aws', ['--endpoint-url', endpoint, 'sqs', ...args, '--output', 'json']);
          return text.trim() === '' ? undefined : JSON.parse(text);
        };
        const { QueueUrl } = (await aws('create-queue', '--queue-name', 'cli')) as { QueueUrl: string };
        const queue = ['--queue-url', QueueUrl];
        const attribute = '{"a":{"DataType":"String","StringValue":"x"}}';
        await aws('send-message', ...queue, '--message-body', 'hello', '--message-attributes', attribute);
        const received = (await aws('receive-message', ...queue, '--message-attribute-names', 'All')) as {
          Messages: { Body: string; ReceiptHandle: string; MessageAttributes: object }[];
        };
        t.is(received.Messages[0].Body, 'hello');
        t.deepEqual(received.Messages[0].MessageAttributes, { a: { DataType: 'String', StringValue: 'x' } });
        await aws('delete-message', ...queue, '--receipt-handle', received.Messages[0].ReceiptHandle);
        await aws('delete-queue', ...queue);
        await t.throwsAsync(aws('get-queue-url', '--queue-name', 'cli'), { message: /NonExistentQueue/ });
      });
    });
  } else sayMissing('the aws command');

  if (isInstalled('python3', '-c', 'import celery, boto3, urllib3')) {
    for (const mode of ['found', 'predefined']) {
      test(`a Celery worker, its queue ${mode}`, async (t) => {
        t.timeout(120_000);
        await withBroker(async (endpoint) => {
          const text = await printed('python3', [python('sqs_celery.py'), endpoint, mode]);
          t.deepEqual(JSON.parse(text.trim().split('\n').at(-1) ?? ''), ['0', '1', '2', '3', '4']);
        });
      });
    }
  } else sayMissing('celery with boto3');

  const folder = mkdtempSync(join(tmpdir(), 'millrace-sqs-consumer-'));
  test.after.always(() => rmSync(folder, { recursive: true, force: true }));
  writeFileSync(join(folder, 'package.json'), '{ "private": true }\n');
  const packages = ['@aws-sdk/client-sqs@3.1175.0', 'sqs-consumer@15.0.3', 'sqs-producer@8.0.4'];
  const install = ['install', '--no-audit', '--no-fund', '--loglevel=error', ...packages];
  if (spawnSync('npm', install, { cwd: folder, stdio: 'ignore', timeout: 100_000 }).status === 0) {
    test('sqs-producer and sqs-consumer', async (t) => {
      t.timeout(60_000);
      await withBroker(async (endpoint) => {
        const script = join(projectRoot(), 'test/compat/node/sqs-consumer.mjs');
        t.deepEqual(JSON.parse(await printed(process.execPath, [script, folder, endpoint])), { bodies: 25, left: 0 });
      });
    });
  } else sayMissing('sqs-consumer and sqs-producer');
}
