/**
 * ReceiveMessage: what is there at once, or what comes while the request waits. A waiting request is a consumer of its
 * queue, so it costs nothing until it is served, and shares the queue with everybody else's consumers.
 *
 * Always true: messages leave when it is durable that they were handed out; a request whose peer has gone takes none: what
 * it was given goes back as if it had never been taken. Locks outlive the request and the broker.
 */
import { type Input, limits, type Message } from '../../protocol/sqs/actions.ts';
import { invalidValue, SqsError } from '../../protocol/sqs/errors.ts';
import { isId } from '../../protocol/sqs/text.ts';
import { MillraceError } from '../../protocol/errors.ts';
import type { Clock } from '../../storage/clock.ts';
import type { AcquiredRun, OwnerId } from '../../broker/queue.ts';
import type { QueuedRecord, QueueReader } from '../../broker/queue-reader.ts';
import type { QueuePartition, QueueRegistry } from '../../broker/queues.ts';
import type { Call } from './call.ts';
import { attemptKey, type TakenMessage } from './facts.ts';
import { messageOf, type Wanted } from './messages.ts';
import { isAttributeName, unknownAttribute } from './queue-attributes.ts';
import type { QueueBook, SqsQueue } from './queue-book.ts';
import type { Receipts } from './receipts.ts';

/** How long a `ReceiveRequestAttemptId` brings the same messages again. */
const ATTEMPT_MS = 300_000;
const SYSTEM_ATTRIBUTES: ReadonlySet<string> = new Set([
  'All',
  'SenderId',
  'SentTimestamp',
  'ApproximateReceiveCount',
  'ApproximateFirstReceiveTimestamp',
  'SequenceNumber',
  'MessageDeduplicationId',
  'MessageGroupId',
  'AWSTraceHeader',
  'DeadLetterQueueSourceArn',
]);

export interface ReceiverParts {
  readonly clock: Clock;
  readonly queues: QueueRegistry;
  readonly reader: QueueReader;
  readonly book: QueueBook;
  readonly receipts: Receipts;
}

interface Receive {
  readonly target: SqsQueue;
  readonly call: Call;
  readonly wanted: Wanted;
  readonly messagesMax: number;
  readonly lockMs: number;
  readonly attemptId: string | undefined;
  isClosed: boolean;
  /** When its messages were taken: the same messages have the same handles. */
  takenMs: number;
}

/** Messages that are locked for a request. */
interface Taken {
  readonly owner: OwnerId;
  readonly partition: QueuePartition;
  readonly runs: readonly AcquiredRun[];
}

export class Receiver {
  readonly #parts: ReceiverParts;
  /** Of what is taken at once. */
  readonly #owner: OwnerId;
  /** Ends the waits of all requests. */
  readonly #waiting = new Set<() => void>();
  #turn = 0;
  #isDraining = false;

  constructor(parts: ReceiverParts) {
    this.#parts = parts;
    this.#owner = parts.queues.newOwner();
  }

  get waitingCount(): number {
    return this.#waiting.size;
  }

  /** Nobody waits any longer; who does is told that there was nothing. */
  drain(): void {
    this.#isDraining = true;
    for (const end of this.#waiting) end();
  }

  async receive(target: SqsQueue, input: Input<'ReceiveMessage'>, call: Call): Promise<readonly Message[]> {
    const { settings } = target.queue;
    const { MaxNumberOfMessages: messagesMax = 1, WaitTimeSeconds: waitSeconds = target.waitSeconds } = input;
    const lockMs =
      input.VisibilityTimeout === undefined ? settings['lock.duration.ms'] : input.VisibilityTimeout * 1000;
    checkInput(input, messagesMax, waitSeconds, target);
    const receive: Receive = {
      target,
      call,
      wanted: wantedOf(input),
      messagesMax,
      lockMs,
      attemptId: input.ReceiveRequestAttemptId,
      isClosed: false,
      takenMs: 0,
    };
    const withdraw = call.whenClosed(() => {
      receive.isClosed = true;
    });
    try {
      const again = receive.attemptId === undefined ? undefined : this.#again(receive, receive.attemptId);
      return await (again ?? this.#receive(receive, this.#parts.clock.monotonic() + waitSeconds * 1000));
    } finally {
      withdraw();
    }
  }

  async #receive(receive: Receive, untilMs: number): Promise<readonly Message[]> {
    for (;;) {
      const messagesMax = this.#room(receive);
      let taken = messagesMax > 0 ? this.#takeNow(receive, messagesMax) : [];
      const leftMs = untilMs - this.#parts.clock.monotonic();
      if (taken.length === 0 && leftMs > 0 && messagesMax > 0 && !this.#isDraining) {
        taken = await this.#wait(receive, messagesMax, leftMs);
      }
      if (taken.length === 0) return [];
      receive.takenMs = this.#parts.clock.now();
      this.#keepAttempt(receive, taken);
      await this.#parts.book.durable();
      const messages = await this.#read(receive, taken);
      // What was taken had no records: it is not there any more, and there may be others.
      if (messages.length > 0 || receive.isClosed || this.#parts.clock.monotonic() >= untilMs) return messages;
    }
  }

  /** How many more messages of the queue may be in flight through SQS: OverLimit, or for FIFO queues nothing. */
  #room({ target: { queue, isFifo }, messagesMax }: Receive): number {
    let inFlight = 0;
    for (const { state } of queue.partitions()) inFlight += state.inFlightThrough('sqs');
    if (inFlight < limits.inFlightMax || isFifo) return Math.min(messagesMax, limits.inFlightMax - inFlight);
    throw new SqsError(
      'OverLimit',
      `Too many messages in flight; there may be ${limits.inFlightMax} that were received and not deleted.`,
    );
  }

  /** What can be had without waiting. */
  #takeNow({ target: { queue }, lockMs }: Receive, messagesMax: number): Taken[] {
    const partitions = queue.partitions();
    const taken: Taken[] = [];
    let left = messagesMax;
    const first = partitions.length > 1 ? this.#turn++ : 0;
    for (let at = 0; at < partitions.length && left > 0; at++) {
      const partition = partitions[(first + at) % partitions.length];
      const runs = queue.acquire(this.#owner, partition.index, left, 'sqs', lockMs);
      if (runs.length === 0) continue;
      for (const { firstOffset, lastOffset } of runs) left -= lastOffset - firstOffset + 1;
      taken.push({ owner: this.#owner, partition, runs });
    }
    return taken;
  }

  #wait(receive: Receive, messagesMax: number, waitMs: number): Promise<Taken[]> {
    const { clock, queues } = this.#parts;
    const { target, call, lockMs } = receive;
    return new Promise((resolve, reject) => {
      const taken: Taken[] = [];
      const end = (error?: SqsError): void => {
        if (!this.#waiting.delete(end)) return;
        timer.cancel();
        withdraw();
        consumer.close({ isFailure: false });
        if (error === undefined) resolve(taken);
        else reject(error);
      };
      const consumer = queues.consumer({
        door: 'sqs',
        lockMs,
        onAcquired: (queue, { partition: index, runs }) => {
          const partition = queue.partition(index);
          if (partition !== undefined) taken.push({ owner: consumer.id, partition, runs });
        },
        onServed: () => end(),
        onLeft: () => end(new SqsError('QueueDoesNotExist', 'The specified queue does not exist.')),
      });
      const timer = clock.after(waitMs, () => end());
      const withdraw = call.whenClosed(() => end());
      this.#waiting.add(end);
      try {
        consumer.join(target.queue);
        consumer.want({ messages: messagesMax, isOnce: true });
      } catch (error) {
        // Somebody has the queue for himself: there is nothing for others, until they ask again.
        if (!(error instanceof MillraceError) || error.code !== 'QUEUE_IN_USE') throw error;
      }
    });
  }

  // --- what was taken ---

  async #read(receive: Receive, taken: readonly Taken[]): Promise<Message[]> {
    const { reader } = this.#parts;
    const messages: Message[] = [];
    let sizeBytes = 0;
    let isFull = false;
    for (const each of taken) {
      const { partition, runs } = each;
      const ascending = [...runs].sort((a, b) => a.firstOffset - b.firstOffset);
      const reading = reader.records(partition.log, ascending);
      const { records } = reading instanceof Promise ? await reading : reading;
      for (const run of runs) {
        for (let offset = run.firstOffset; offset <= run.lastOffset; offset++) {
          const record = records.find((candidate) => candidate.offset === offset);
          if (record === undefined) {
            this.#settle(each, offset, run.acquiredCount, 'gap');
            continue;
          }
          const recordBytes = sizeOf(record);
          isFull ||= messages.length > 0 && sizeBytes + recordBytes > limits.messageBytesMax;
          if (isFull || receive.isClosed) {
            this.#settle(each, offset, run.acquiredCount, 'undo');
            continue;
          }
          sizeBytes += recordBytes;
          messages.push(this.#message(receive, partition, record, run.acquiredCount));
        }
      }
    }
    return messages;
  }

  #message(receive: Receive, partition: QueuePartition, record: QueuedRecord, receiveCount: number): Message {
    const { target, call, wanted, takenMs: receivedMs } = receive;
    const { offset } = record;
    const receiptHandle = this.#parts.receipts.seal({
      topicId: target.queue.topic.id,
      partition: partition.index,
      offset,
      epoch: partition.state.epochOf(offset),
      receiveCount,
      receivedMs,
    });
    return messageOf(
      {
        target,
        partition: partition.index,
        record,
        receiptHandle,
        receiveCount,
        firstReceivedMs: partition.state.firstTakenMs(offset) ?? receivedMs,
        arnOf: (name) => call.arnOf(name),
        account: call.account,
      },
      wanted,
    );
  }

  /** If it is still what was taken: with a short lock somebody else may have it by now. */
  #settle({ owner, partition }: Taken, offset: number, receiveCount: number, kind: 'undo' | 'gap'): void {
    const { queue, state, index } = partition;
    const lock = queue.isDeleted ? undefined : state.lockOf(offset, this.#parts.clock.now());
    if (lock?.owner !== owner || lock.acquiredCount !== receiveCount) return;
    try {
      queue.settle(owner, index, [{ kind, firstOffset: offset, lastOffset: offset }]);
    } catch (error) {
      // The lock has run out in this very millisecond: the message is back by itself.
      if (!(error instanceof MillraceError) || error.code !== 'INVALID_RECORD_STATE') throw error;
    }
  }

  // --- ReceiveRequestAttemptId ---

  #keepAttempt({ target, attemptId, takenMs }: Receive, taken: readonly Taken[]): void {
    if (attemptId === undefined) return;
    const messages: TakenMessage[] = [];
    for (const { partition, runs } of taken) {
      for (const { firstOffset, lastOffset, acquiredCount } of runs) {
        for (let offset = firstOffset; offset <= lastOffset; offset++) {
          messages.push({
            partition: partition.index,
            offset,
            epoch: partition.state.epochOf(offset),
            receiveCount: acquiredCount,
          });
        }
      }
    }
    this.#forgetAttempts();
    const attempt = { topicId: target.queue.topic.id, attemptId, atMs: takenMs, taken: messages };
    this.#parts.book.commit([{ kind: 'attempt', attempt }]);
  }

  /** The log forgets them when it is written anew. */
  #forgetAttempts(): void {
    const { attempts } = this.#parts.book.facts;
    const nowMs = this.#parts.clock.now();
    for (const [key, { atMs }] of attempts) {
      if (atMs + ATTEMPT_MS > nowMs) return;
      attempts.delete(key);
    }
  }

  /** The same messages once more, locked anew; undefined if one of them is not as it was. */
  #again(receive: Receive, attemptId: string): Promise<readonly Message[]> | undefined {
    const { clock, book } = this.#parts;
    const { queue } = receive.target;
    const attempt = book.facts.attempts.get(attemptKey(queue.topic.id, attemptId));
    const nowMs = clock.now();
    if (attempt === undefined || attempt.atMs + ATTEMPT_MS <= nowMs) return undefined;
    const taken: Taken[] = [];
    for (const { partition: index, offset, epoch, receiveCount } of attempt.taken) {
      const partition = queue.partition(index);
      const lock = partition?.state.lockOf(offset, nowMs);
      const isSame = lock?.door === 'sqs' && lock.acquiredCount === receiveCount;
      if (partition === undefined || lock === undefined || !isSame || partition.state.epochOf(offset) !== epoch) {
        return undefined;
      }
      const run = { firstOffset: offset, lastOffset: offset, acquiredCount: receiveCount, failedCount: 0 };
      taken.push({ owner: lock.owner, partition, runs: [run] });
    }
    receive.takenMs = attempt.atMs;
    if (receive.lockMs > 0) {
      const untilMs = nowMs + receive.lockMs;
      for (const { partition, runs } of taken) {
        const [{ firstOffset, lastOffset }] = runs;
        queue.settle('any', partition.index, [{ kind: 'renew', firstOffset, lastOffset, untilMs }]);
      }
    }
    return book.durable().then(() => this.#read(receive, taken));
  }
}

function sizeOf({ value, headers }: QueuedRecord): number {
  let sizeBytes = value?.length ?? 0;
  for (const header of headers) sizeBytes += header.key.length + (header.value?.length ?? 0);
  return sizeBytes;
}

function checkInput(
  input: Input<'ReceiveMessage'>,
  messagesMax: number,
  waitSeconds: number,
  { isFifo }: SqsQueue,
): void {
  const { receiveMax, waitSecondsMax, visibilitySecondsMax } = limits;
  if (messagesMax < 1 || messagesMax > receiveMax) {
    throw invalidValue('MaxNumberOfMessages', messagesMax, `Must be between 1 and ${receiveMax}, if provided.`);
  }
  if (waitSeconds < 0 || waitSeconds > waitSecondsMax) {
    throw invalidValue('WaitTimeSeconds', waitSeconds, `Must be >= 0 and <= ${waitSecondsMax}, if provided.`);
  }
  const { VisibilityTimeout: lock, ReceiveRequestAttemptId: attemptId } = input;
  if (lock !== undefined && (lock < 0 || lock > visibilitySecondsMax)) {
    throw invalidValue('VisibilityTimeout', lock, `Must be >= 0 and <= ${visibilitySecondsMax}, if provided.`);
  }
  if (attemptId === undefined) return;
  if (!isFifo) {
    const reason = 'The request includes a parameter that is not valid for this queue type.';
    throw invalidValue('ReceiveRequestAttemptId', attemptId, reason);
  }
  if (!isId(attemptId)) {
    const reason =
      'ReceiveRequestAttemptId can only include alphanumeric and punctuation characters. 1 to 128 in length.';
    throw invalidValue('ReceiveRequestAttemptId', attemptId, reason);
  }
}

function wantedOf(input: Input<'ReceiveMessage'>): Wanted {
  const { AttributeNames: old = [], MessageSystemAttributeNames: names = [] } = input;
  const system = new Set<string>();
  for (const name of [...old, ...names]) {
    // The old list also has the names of queue attributes.
    if (!SYSTEM_ATTRIBUTES.has(name) && !(old.includes(name) && isAttributeName(name))) throw unknownAttribute(name);
    system.add(name);
  }
  return { system, attributes: input.MessageAttributeNames ?? NO_NAMES };
}
const NO_NAMES: readonly string[] = [];
