/**
 * kill -9 under clients of SQS: senders, receivers, deletes, visibility changes, dead letters with move tasks, and FIFO groups
 * whose sender tries each message until it is told that it is there. Then what they were told is looked up:
 * nothing that was acknowledged is lost, nothing that was deleted comes back, order and deduplication hold.
 *
 *   node dist/test/crash/sqs-kill.js [--rounds 100] [--seed N]
 */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { BrokerProcess, dice, pause } from './kill.ts';

export interface SqsKillResult {
  readonly sent: number;
  readonly deleted: number;
  readonly moved: number;
  readonly faults: string[];
}

interface Message {
  readonly Body: string;
  readonly ReceiptHandle: string;
  readonly Attributes?: Readonly<Record<string, string>>;
}

/** What is looked at of any answer. */
interface Answer {
  readonly Successful?: readonly { readonly Id: string }[];
  readonly Messages?: readonly Message[];
  readonly MessageId?: string;
  readonly __type?: string;
  readonly message?: string;
}

const ACCOUNT = '000000000000';
const GROUPS = 4;
/** Of everything here: so long what a lost answer held stays away. */
const LOCK_SECONDS = 2;

class Load {
  readonly faults: string[] = [];
  /** Bodies of standard messages that were acknowledged, and of those whose delete was; a delete without an answer is open. */
  readonly sent = new Set<string>();
  readonly deleted = new Set<string>();
  readonly open = new Set<string>();
  /** Of the queue whose letters move. */
  readonly risked = new Set<string>();
  /** Of each group: what its sender was told is there, and what is deleted. */
  readonly groups = Array.from({ length: GROUPS }, () => ({ sent: 0, next: 0 }));
  readonly ids = new Map<string, string>();
  isStopped = false;
  count = 0;
  readonly #random: () => number;
  readonly #port: () => number;

  constructor(random: () => number, port: () => number) {
    this.#random = random;
    this.#port = port;
  }

  url(queue: string): string {
    return `http://127.0.0.1:${this.#port()}/${ACCOUNT}/${queue}`;
  }

  /** Undefined: nobody knows whether it was done. */
  async ask(action: string, input: object): Promise<Answer | undefined> {
    try {
      const response = await fetch(`http://127.0.0.1:${this.#port()}/`, {
        method: 'POST',
        headers: { 'x-amz-target': `AmazonSQS.${action}` },
        body: JSON.stringify(input),
      });
      const text = await response.text();
      if (response.status >= 500) return undefined;
      // Of that form, or it shows where it is used.
      return text === '' ? {} : (JSON.parse(text) as Answer);
    } catch {
      // The broker was killed.
      await pause(10);
      return undefined;
    }
  }

  async send(queue: string, told: Set<string>): Promise<void> {
    while (!this.isStopped) {
      const bodies = Array.from({ length: 1 + Math.floor(this.#random() * 10) }, () => `${queue}-${++this.count}`);
      const Entries = bodies.map((MessageBody, index) => ({ Id: `i${index}`, MessageBody }));
      const answer = await this.ask('SendMessageBatch', { QueueUrl: this.url(queue), Entries });
      for (const { Id } of answer?.Successful ?? []) told.add(bodies[Number(Id.slice(1))]);
      await pause(this.#random() * 20);
    }
  }

  async receive(queue: string, more: object = {}): Promise<readonly Message[]> {
    const input = { QueueUrl: this.url(queue), MaxNumberOfMessages: 10, WaitTimeSeconds: 1, ...more };
    return (await this.ask('ReceiveMessage', input))?.Messages ?? [];
  }

  /** Takes standard messages: some are deleted, some given back, some forgotten. */
  async consume(queue: string): Promise<void> {
    while (!this.isStopped) {
      const before = new Set(this.deleted);
      for (const { Body, ReceiptHandle } of await this.receive(queue)) {
        if (before.has(Body)) this.faults.push(`${Body} was deleted and is back`);
        const choice = this.#random();
        if (choice < 0.6) await this.remove(queue, Body, ReceiptHandle);
        else if (choice < 0.8) {
          const input = { QueueUrl: this.url(queue), ReceiptHandle, VisibilityTimeout: choice < 0.7 ? 0 : 1 };
          await this.ask('ChangeMessageVisibility', input);
        }
      }
    }
  }

  async remove(queue: string, body: string, ReceiptHandle: string): Promise<boolean> {
    this.open.add(body);
    const answer = await this.ask('DeleteMessage', { QueueUrl: this.url(queue), ReceiptHandle });
    if (answer === undefined) return false;
    if (answer.__type !== undefined) {
      // Of a FIFO queue: its lock has run out.
      if (!String(answer.message).includes('expired')) this.faults.push(`${body}: ${JSON.stringify(answer)}`);
      this.open.delete(body);
      return false;
    }
    this.deleted.add(body);
    return true;
  }

  async sendGroup(group: number): Promise<void> {
    const state = this.groups[group];
    while (!this.isStopped) {
      const body = `g${group}-${state.sent}`;
      const input = { MessageBody: body, MessageGroupId: `g${group}`, MessageDeduplicationId: body };
      const answer = await this.ask('SendMessage', { QueueUrl: this.url('f.fifo'), ...input });
      const id = answer?.MessageId;
      if (id === undefined) continue;
      this.ids.set(body, id);
      state.sent++;
      await pause(this.#random() * 10);
    }
  }

  /** Takes each group in order; whatever comes must be the lowest that is not deleted. */
  async consumeGroups(): Promise<void> {
    while (!this.isStopped || this.groups.some(({ sent, next }) => next < sent)) {
      const messages = await this.receive('f.fifo', { AttributeNames: ['All'] });
      for (const { Body, ReceiptHandle, Attributes } of messages) {
        const [, group, number] = /^g(\d+)-(\d+)$/.exec(Body) ?? [];
        const state = this.groups[Number(group)];
        if (Number(number) < state.next && !this.open.has(Body)) this.faults.push(`${Body} comes after ${state.next}`);
        if (Number(number) > state.next) this.faults.push(`${Body} comes before ${state.next}`);
        if (Attributes?.['MessageGroupId'] !== `g${group}`)
          this.faults.push(`${Body} is of ${JSON.stringify(Attributes)}`);
        const isRemoved = await this.remove('f.fifo', Body, ReceiptHandle);
        if (isRemoved && Number(number) === state.next) {
          state.next++;
          this.open.delete(Body);
        } else if (!isRemoved) {
          // Perhaps it is deleted: asked again by the same handle, which says so either way.
          while (this.open.has(Body)) if (await this.remove('f.fifo', Body, ReceiptHandle)) break;
          if (this.deleted.has(Body) && Number(number) === state.next) state.next++;
          break;
        }
      }
    }
  }

  /** Receives of the risky queue until its messages leave, and tasks that move them on. */
  async bury(): Promise<void> {
    const arn = (name: string): string => `arn:aws:sqs:us-east-1:${ACCOUNT}:${name}`;
    while (!this.isStopped) {
      await this.receive('risky', { VisibilityTimeout: 0, WaitTimeSeconds: 0 });
      if (this.#random() < 0.2) {
        await this.ask('StartMessageMoveTask', { SourceArn: arn('dead'), DestinationArn: arn('landed') });
      }
      await pause(this.#random() * 30);
    }
  }

  /** Everything that is left in a queue; deleted. */
  async drain(queue: string): Promise<string[]> {
    const bodies: string[] = [];
    for (let quiet = 0; quiet < LOCK_SECONDS + 2; ) {
      const messages = await this.receive(queue, { VisibilityTimeout: 600 });
      quiet = messages.length === 0 ? quiet + 1 : 0;
      for (const { Body, ReceiptHandle } of messages) {
        bodies.push(Body);
        await this.ask('DeleteMessage', { QueueUrl: this.url(queue), ReceiptHandle });
      }
    }
    return bodies;
  }
}

export async function killUnderSqs({ rounds, seed }: { rounds: number; seed: number }): Promise<SqsKillResult> {
  const dataDir = await mkdtemp(join(tmpdir(), 'millrace-sqs-kill-'));
  const options = {
    'journal.file.bytes': 1024 * 1024,
    'journal.checkpoint.bytes': 1024 * 1024,
    'log.disk.reserve.bytes': 0,
  };
  const broker = new BrokerProcess({ dataDir, options }, 'sqs');
  await broker.start();
  const random = dice(seed);
  const load = new Load(random, () => broker.port);
  const lock = { VisibilityTimeout: String(LOCK_SECONDS) };
  const policy = { deadLetterTargetArn: `arn:aws:sqs:us-east-1:${ACCOUNT}:dead`, maxReceiveCount: 1 };
  for (const [QueueName, Attributes] of [
    ['std', lock],
    ['dead', lock],
    ['landed', lock],
    ['risky', { ...lock, RedrivePolicy: JSON.stringify(policy) }],
    ['f.fifo', { ...lock, FifoQueue: 'true' }],
  ] as const) {
    await load.ask('CreateQueue', { QueueName, Attributes });
  }
  const workers = [
    load.send('std', load.sent),
    load.send('risky', load.risked),
    load.consume('std'),
    load.consume('std'),
    load.bury(),
    load.consumeGroups(),
    ...load.groups.map((_, group) => load.sendGroup(group)),
  ];
  for (let round = 0; round < rounds; round++) {
    await pause(200 + random() * 600);
    await broker.end('SIGKILL');
    await broker.start();
  }
  load.isStopped = true;
  await Promise.all(workers);
  await broker.end('SIGKILL');
  await broker.start();
  await judge(load);
  await broker.end('SIGTERM');
  if (load.faults.length === 0) await rm(dataDir, { recursive: true, force: true });
  return {
    sent: load.sent.size + load.risked.size,
    deleted: load.deleted.size,
    moved: load.risked.size,
    faults: load.faults,
  };
}

async function judge(load: Load): Promise<void> {
  const { faults } = load;
  // An acknowledged send of a FIFO message that is repeated is the same message.
  for (const [group, { sent }] of load.groups.entries()) {
    const body = `g${group}-${sent - 1}`;
    const input = { MessageBody: body, MessageGroupId: `g${group}`, MessageDeduplicationId: body };
    const answer = await load.ask('SendMessage', { QueueUrl: load.url('f.fifo'), ...input });
    if (answer?.MessageId !== load.ids.get(body)) faults.push(`${body} was sent again and is another message`);
  }
  const [left, risky, dead, landed, fifo] = await Promise.all(
    ['std', 'risky', 'dead', 'landed', 'f.fifo'].map((queue) => load.drain(queue)),
  );
  for (const body of left) if (load.deleted.has(body)) faults.push(`${body} was deleted and is there`);
  const found = new Set(left);
  for (const body of load.sent) {
    if (!found.has(body) && !load.deleted.has(body) && !load.open.has(body)) faults.push(`${body} is lost`);
  }
  const places = [...risky, ...dead, ...landed];
  if (new Set(places).size !== places.length) faults.push('a message was moved twice');
  for (const body of load.risked) if (!places.includes(body)) faults.push(`${body} is lost on its way`);
  for (const body of fifo) if (load.deleted.has(body)) faults.push(`${body} was deleted and is there`);
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const option = (name: string, fallback: string): string => {
    const at = process.argv.indexOf(`--${name}`);
    return at < 0 ? fallback : process.argv[at + 1];
  };
  const result = await killUnderSqs({ rounds: Number(option('rounds', '100')), seed: Number(option('seed', '1')) });
  for (const fault of result.faults.slice(0, 20)) console.log(`FAULT ${fault}`);
  console.log(JSON.stringify({ ...result, faults: result.faults.length }));
  process.exit(result.faults.length === 0 ? 0 : 1);
}
