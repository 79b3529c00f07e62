/** What tests of the SQS door share: a door in memory and a client of it for each protocol. */
import test, { type ExecutionContext } from 'ava';
import { type MemorySqs, openMemorySqs } from '../../support/memory-sqs.ts';
import { type Answer, type Protocol, PROTOCOLS, type SqsClient } from '../../support/sqs-client.ts';

export type Received = NonNullable<Answer<'ReceiveMessage'>['Messages']>[number];

export interface World extends MemorySqs {
  readonly sqs: SqsClient;
  /** Makes a queue; answers its URL. A name that ends with `.fifo` is one. */
  queue(name: string, attributes?: Record<string, string>): Promise<string>;
  send(url: string, body: string, more?: object): Promise<Answer<'SendMessage'>>;
  /** Up to ten by default. */
  receive(url: string, more?: object): Promise<readonly Received[]>;
  bodies(url: string, more?: object): Promise<string[]>;
  attributes(url: string): Promise<Readonly<Record<string, string>>>;
  /** Visible, in flight, delayed. */
  counts(url: string): Promise<number[]>;
}

export const urlOf = (name: string): string => `http://localhost:9324/000000000000/${name}`;
export const arnOf = (name: string): string => `arn:aws:sqs:us-east-1:000000000000:${name}`;

export async function openWorld(
  protocol: Protocol,
  options: Record<string, string | number | boolean> = {},
): Promise<World> {
  const memory = await openMemorySqs(options);
  const sqs = memory.client(protocol);
  const receive = async (url: string, more: object = {}): Promise<readonly Received[]> =>
    (await sqs.call('ReceiveMessage', { QueueUrl: url, MaxNumberOfMessages: 10, ...more })).Messages ?? [];
  const attributes = async (url: string): Promise<Readonly<Record<string, string>>> =>
    (await sqs.call('GetQueueAttributes', { QueueUrl: url, AttributeNames: ['All'] })).Attributes ?? {};
  return {
    ...memory,
    sqs,
    receive,
    attributes,
    async queue(name, given = {}) {
      const all = name.endsWith('.fifo') ? { FifoQueue: 'true', ...given } : given;
      const input = { QueueName: name, ...(Object.keys(all).length === 0 ? {} : { Attributes: all }) };
      return (await sqs.call('CreateQueue', input)).QueueUrl ?? '';
    },
    send: (url, body, more = {}) => sqs.call('SendMessage', { QueueUrl: url, MessageBody: body, ...more }),
    bodies: async (url, more) => (await receive(url, more)).map(({ Body }) => Body ?? ''),
    async counts(url) {
      const all = await attributes(url);
      return ['', 'NotVisible', 'Delayed'].map((what) => Number(all[`ApproximateNumberOfMessages${what}`]));
    },
  };
}

/** The test in both protocols, each with a world of its own. */
export function both(
  name: string,
  work: (t: ExecutionContext, world: World) => Promise<void>,
  options: Record<string, string | number | boolean> = {},
): void {
  for (const protocol of PROTOCOLS) {
    test(`${protocol}: ${name}`, async (t) => {
      const world = await openWorld(protocol, options);
      await work(t, world);
      t.deepEqual(world.reports, []);
    });
  }
}
