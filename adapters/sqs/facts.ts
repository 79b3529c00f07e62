/**
 * What the SQS door keeps beyond the settings of queues, as a state machine on a log of its own: attributes and tags of
 * queues, keys of receipt handles, and receives that may be asked for again. Pure; `queue-book.ts` runs it. An event says
 * how one thing is now, so events may come twice.
 */
import { pack, unpack } from 'msgpackr';
import { MillraceError } from '../../protocol/errors.ts';
import type { DecodedRecord, RecordInit } from '../../protocol/record-batch.ts';
import type { StateMachine } from '../../broker/state-log.ts';

export interface QueueFacts {
  readonly name: string;
  /** A queue made again under the name has another one. */
  readonly topicId: string;
  /** Attributes that are no settings of the broker's queue, as SQS has them. */
  readonly attributes: ReadonlyMap<string, string>;
  readonly tags: ReadonlyMap<string, string>;
  readonly createdMs: number;
  readonly modifiedMs: number;
}

/** What receipt handles are authenticated with. */
export interface ReceiptKey {
  readonly id: number;
  readonly secret: Uint8Array;
  readonly createdMs: number;
}

/** A receive with a `ReceiveRequestAttemptId`: its messages are given again to who asks again. */
export interface ReceiveAttempt {
  readonly topicId: string;
  readonly attemptId: string;
  readonly atMs: number;
  /** In the order in which they were given. */
  readonly taken: readonly TakenMessage[];
}
export interface TakenMessage {
  readonly partition: number;
  readonly offset: number;
  readonly epoch: number;
  /** Which receive of the message it was. */
  readonly receiveCount: number;
}

export type Fact =
  | { readonly kind: 'queue'; readonly queue: QueueFacts }
  | { readonly kind: 'queueGone'; readonly name: string }
  | { readonly kind: 'receiptKey'; readonly key: ReceiptKey }
  | { readonly kind: 'receiptKeyGone'; readonly id: number }
  | { readonly kind: 'attempt'; readonly attempt: ReceiveAttempt };

const VERSION = 1;

export const attemptKey = (topicId: string, attemptId: string): string => `${topicId} ${attemptId}`;

export class SqsFacts implements StateMachine<Fact> {
  readonly queues = new Map<string, QueueFacts>();
  readonly receiptKeys = new Map<number, ReceiptKey>();
  /** Oldest first. */
  readonly attempts = new Map<string, ReceiveAttempt>();

  apply(fact: Fact): void {
    switch (fact.kind) {
      case 'queue':
        this.queues.set(fact.queue.name, fact.queue);
        break;
      case 'queueGone':
        this.queues.delete(fact.name);
        break;
      case 'receiptKey':
        this.receiptKeys.set(fact.key.id, fact.key);
        break;
      case 'receiptKeyGone':
        this.receiptKeys.delete(fact.id);
        break;
      case 'attempt': {
        const key = attemptKey(fact.attempt.topicId, fact.attempt.attemptId);
        this.attempts.delete(key);
        this.attempts.set(key, fact.attempt);
        break;
      }
    }
  }

  *live(): Iterable<Fact> {
    for (const queue of this.queues.values()) yield { kind: 'queue', queue };
    for (const key of this.receiptKeys.values()) yield { kind: 'receiptKey', key };
    for (const attempt of this.attempts.values()) yield { kind: 'attempt', attempt };
  }

  encode(fact: Fact, nowMs: number): RecordInit {
    return { key: null, value: pack([VERSION, fact.kind, ...fieldsOf(fact)]), timestamp: nowMs };
  }

  decode(record: DecodedRecord): Fact {
    const decoded: unknown = record.value === null ? undefined : unpack(record.value);
    const fact = Array.isArray(decoded) && decoded[0] === VERSION ? factOf(decoded[1], decoded.slice(2)) : undefined;
    if (fact !== undefined) return fact;
    throw new MillraceError(
      'DATA_DIR_FORMAT',
      `the log of the SQS door has an event at offset ${record.offset} that this version does not know`,
    );
  }
}

function fieldsOf(fact: Fact): unknown[] {
  switch (fact.kind) {
    case 'queue': {
      const { name, topicId, attributes, tags, createdMs, modifiedMs } = fact.queue;
      return [name, topicId, [...attributes], [...tags], createdMs, modifiedMs];
    }
    case 'queueGone':
      return [fact.name];
    case 'receiptKey':
      return [fact.key.id, fact.key.secret, fact.key.createdMs];
    case 'receiptKeyGone':
      return [fact.id];
    case 'attempt': {
      const { topicId, attemptId, atMs, taken } = fact.attempt;
      return [
        topicId,
        attemptId,
        atMs,
        taken.map((each) => [each.partition, each.offset, each.epoch, each.receiveCount]),
      ];
    }
  }
}

/** The reverse of `fieldsOf`. The shapes are ours: the record's checksum and version vouch for them. */
function factOf(kind: unknown, fields: unknown[]): Fact | undefined {
  switch (kind as Fact['kind']) {
    case 'queue': {
      const [name, topicId, attributes, tags, createdMs, modifiedMs] = fields as [
        string,
        string,
        [string, string][],
        [string, string][],
        number,
        number,
      ];
      const queue = { name, topicId, attributes: new Map(attributes), tags: new Map(tags), createdMs, modifiedMs };
      return { kind: 'queue', queue };
    }
    case 'queueGone':
      return { kind: 'queueGone', name: fields[0] as string };
    case 'receiptKey': {
      const [id, secret, createdMs] = fields as [number, Uint8Array, number];
      // Copy: what msgpack gives is a view of the record.
      return { kind: 'receiptKey', key: { id, secret: Uint8Array.from(secret), createdMs } };
    }
    case 'receiptKeyGone':
      return { kind: 'receiptKeyGone', id: fields[0] as number };
    case 'attempt': {
      const [topicId, attemptId, atMs, rows] = fields as [string, string, number, [number, number, number, number][]];
      const taken = rows.map(([partition, offset, epoch, receiveCount]) => ({
        partition,
        offset,
        epoch,
        receiveCount,
      }));
      return { kind: 'attempt', attempt: { topicId, attemptId, atMs, taken } };
    }
    default:
      return undefined;
  }
}
