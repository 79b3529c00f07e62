/** Actions that are about messages, single and in batches. */
import { type FailedEntry, limits, type Output } from '../../protocol/sqs/actions.ts';
import { SqsError } from '../../protocol/sqs/errors.ts';
import { isBatchId } from '../../protocol/sqs/text.ts';
import type { Engine } from '../../broker/engine.ts';
import { messageId } from '../../broker/queue-attributes.ts';
import { sqsErrorOf } from './failure.ts';
import type { Gate } from './gate.ts';
import type { Handlers } from './handlers.ts';
import { type CheckedMessage, checkMessage, sequenceNumber } from './messages.ts';
import type { QueueBook, SqsQueue } from './queue-book.ts';
import type { Receiver } from './receiver.ts';
import type { Sender, Sent } from './sender.ts';
import type { Settling } from './settling.ts';

export interface MessageActionsParts {
  readonly engine: Engine;
  readonly book: QueueBook;
  readonly gate: Gate;
  readonly sender: Sender;
  readonly receiver: Receiver;
  readonly settling: Settling;
}

type MessageHandlers = Pick<
  Handlers,
  | 'ChangeMessageVisibility'
  | 'ChangeMessageVisibilityBatch'
  | 'DeleteMessage'
  | 'DeleteMessageBatch'
  | 'ReceiveMessage'
  | 'SendMessage'
  | 'SendMessageBatch'
>;

interface Entry {
  readonly Id: string;
}

export function messageActions(parts: MessageActionsParts): MessageHandlers {
  const { engine, book, gate, sender, receiver, settling } = parts;

  /** Places of the messages, in order, when they are durable. */
  async function send(target: SqsQueue, messages: readonly CheckedMessage[]): Promise<readonly Sent[]> {
    // As with sockets of other doors: nothing more is taken while the log has no room.
    if (!engine.hasRoom) await new Promise<void>((resolve) => engine.whenRoom(resolve));
    for (const partition of target.queue.topic.partitions) {
      const loading = partition.prepare();
      if (loading !== undefined) await loading;
    }
    return new Promise((done) => sender.send({ target, messages, done }));
  }

  /** Each entry by itself; what fails does not keep the others. */
  async function settleEach<E extends Entry>(
    entries: readonly E[],
    settle: (entry: E) => void,
  ): Promise<{ Successful: Entry[]; Failed: FailedEntry[] }> {
    const Successful: Entry[] = [];
    const Failed: FailedEntry[] = [];
    for (const entry of entries) {
      const failure = failureOf(() => settle(entry));
      if (failure === undefined) Successful.push({ Id: entry.Id });
      else Failed.push(failedEntry(entry.Id, failure));
    }
    await book.durable();
    return { Successful, Failed };
  }

  return {
    async SendMessage(input, call) {
      const target = gate.queue(call, 'SendMessage');
      const message = checkMessage(input, target, call.user);
      const [sent] = await send(target, [message]);
      return sentOutput(target, message, sent);
    },

    async SendMessageBatch({ Entries }, call) {
      const target = gate.queue(call, 'SendMessageBatch');
      checkBatch(Entries, 'SendMessageBatchRequestEntry');
      const Successful: Output<'SendMessageBatch'>['Successful'][number][] = [];
      const Failed: FailedEntry[] = [];
      const ids: string[] = [];
      const messages: CheckedMessage[] = [];
      let sizeBytes = 0;
      for (const entry of Entries) {
        const failure = failureOf(() => {
          const message = checkMessage(entry, target, call.user);
          sizeBytes += message.sizeBytes;
          messages.push(message);
          ids.push(entry.Id);
        });
        if (failure !== undefined) Failed.push(failedEntry(entry.Id, failure));
      }
      if (sizeBytes > limits.messageBytesMax) {
        throw new SqsError(
          'BatchRequestTooLong',
          `Batch requests cannot be longer than ${limits.messageBytesMax} bytes. You have sent ${sizeBytes} bytes.`,
        );
      }
      const sent = messages.length === 0 ? [] : await send(target, messages);
      for (const [index, Id] of ids.entries()) {
        const failure = failureOf(() => {
          Successful.push({ Id, ...sentOutput(target, messages[index], sent[index]) });
        });
        if (failure !== undefined) Failed.push(failedEntry(Id, failure));
      }
      return { Successful, Failed };
    },

    async ReceiveMessage(input, call) {
      const target = gate.queue(call, 'ReceiveMessage');
      const messages = await receiver.receive(target, input, call);
      return messages.length === 0 ? {} : { Messages: messages };
    },

    async DeleteMessage({ ReceiptHandle }, call) {
      settling.delete(gate.queue(call, 'DeleteMessage'), ReceiptHandle);
      await book.durable();
      return {};
    },

    DeleteMessageBatch({ Entries }, call) {
      const target = gate.queue(call, 'DeleteMessageBatch');
      checkBatch(Entries, 'DeleteMessageBatchRequestEntry');
      return settleEach(Entries, ({ ReceiptHandle }) => settling.delete(target, ReceiptHandle));
    },

    async ChangeMessageVisibility({ ReceiptHandle, VisibilityTimeout }, call) {
      const target = gate.queue(call, 'ChangeMessageVisibility');
      settling.changeVisibility(target, ReceiptHandle, VisibilityTimeout);
      await book.durable();
      return {};
    },

    ChangeMessageVisibilityBatch({ Entries }, call) {
      const target = gate.queue(call, 'ChangeMessageVisibilityBatch');
      checkBatch(Entries, 'ChangeMessageVisibilityBatchRequestEntry');
      return settleEach(Entries, ({ ReceiptHandle, VisibilityTimeout = 0 }) =>
        settling.changeVisibility(target, ReceiptHandle, VisibilityTimeout),
      );
    },
  };
}

function sentOutput({ queue, isFifo }: SqsQueue, { digests }: CheckedMessage, sent: Sent) {
  if ('error' in sent) throw sent.error;
  const { id: topicId, name: topic } = queue.topic;
  return {
    ...digests,
    MessageId: messageId({ topicId, topic, partition: sent.partition, offset: sent.offset }, NO_HEADERS),
    ...(isFifo ? { SequenceNumber: sequenceNumber(sent.offset) } : {}),
  };
}
const NO_HEADERS: readonly never[] = [];

/** What a client is told; anything that cannot be expected goes on. */
function failureOf(work: () => void): SqsError | undefined {
  try {
    work();
    return undefined;
  } catch (error) {
    const failure = sqsErrorOf(error);
    if (failure === undefined) throw error;
    return failure;
  }
}

function failedEntry(Id: string, { queryCode, message, isSenderFault }: SqsError): FailedEntry {
  return { Id, SenderFault: isSenderFault, Code: queryCode, Message: message };
}

function checkBatch(entries: readonly Entry[], element: string): void {
  if (entries.length === 0) {
    throw new SqsError('EmptyBatchRequest', `There should be at least one ${element} in the request.`);
  }
  if (entries.length > limits.batchEntriesMax) {
    throw new SqsError(
      'TooManyEntriesInBatchRequest',
      `Maximum number of entries per request are ${limits.batchEntriesMax}. You have sent ${entries.length}.`,
    );
  }
  const ids = new Set<string>();
  for (const { Id } of entries) {
    if (!isBatchId(Id)) {
      throw new SqsError(
        'InvalidBatchEntryId',
        `A batch entry id can only contain alphanumeric characters, hyphens and underscores. It can be at most ${limits.batchIdCharactersMax} letters long.`,
      );
    }
    if (ids.has(Id)) throw new SqsError('BatchEntryIdsNotDistinct', `Id ${Id} repeated.`);
    ids.add(Id);
  }
}
