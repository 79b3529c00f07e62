/**
 * What a record says to queues, in headers: a few that producers may set (`producerHeaders`), and reserved ones by which
 * the broker keeps a message's id, origin and history when it moves on (dead letters, redrive). Everything else under
 * `millrace.` is refused from clients on topics with a declared queue.
 *
 *   millrace.delay.ms        not handed out for so long after it was appended      decimal text, 0 … 10^13
 *   millrace.not.before.ms   not handed out before this time (ms since 1970)       "; of both the later counts
 *   millrace.ttl.ms          not handed out from so long after it was appended     "
 *   millrace.expires.at.ms   not handed out from this time on                      "; of both the earlier counts
 *   millrace.priority        larger first                                          0 … 255
 *   millrace.group           ordered or fair group                                 UTF-8, 1 … 256 bytes; default: the key
 *   millrace.dedup.id        sends with one id within the window are one           1 … 256 bytes
 *
 *   millrace.id              the message id, where it is not derived from its place: it came from elsewhere
 *   millrace.death           JSON, see `DeathHistory`
 *   millrace.origin.topic, .partition, .offset, .time, .dedup.id       where and when it was first appended
 */
import type { RecordHeader, RecordInit } from '../protocol/record-batch.ts';
import type { LeaveReason, MessageAttributes } from './queue.ts';
import type { QueuedRecord } from './queue-reader.ts';

export interface AttributeOptions {
  /**
   * Delay and TTL count from here. Default: the record's timestamp, which for a batch read back from the log is the
   * append time if the topic keeps append times.
   */
  readonly appendTimeMs?: number;
  /** Headers a client may not set are refused; the broker's own batches carry them. */
  readonly isFromClient: boolean;
  /** The queue is ordered or fair: without `millrace.group` the record's key is its group. */
  readonly isGrouped: boolean;
  /** What makes two messages the same for deduplication; undefined: the ids are not needed. */
  readonly dedupBy: 'id' | 'content' | undefined;
}

/** One record that says anything. */
export interface AttributeEntry {
  readonly offsetDelta: number;
  readonly attributes: MessageAttributes;
}

export interface BatchAttributes {
  readonly recordCount: number;
  /** In order; records without attributes have none. */
  readonly entries: readonly AttributeEntry[];
}

/**
 * The attributes of all records of a batch; for intake (before it is appended) and for rebuilding the index from the log.
 * Errors: INVALID_RECORD, naming record and header; those of opening a compressed batch. Never an error for batches of
 * the log (`isFromClient` false): what cannot be read there says nothing.
 */
export function batchAttributes(
  batch: Buffer,
  position: number,
  decompressedBytesMax: number,
  options: AttributeOptions,
): BatchAttributes {
  throw new Error(`${batch.length} ${position} ${decompressedBytesMax} ${options.isGrouped}`);
}

/** The attributes of one record, as `batchAttributes`; undefined if it says nothing. */
export function recordAttributes(
  record: Omit<QueuedRecord, 'offset'>,
  options: AttributeOptions,
): MessageAttributes | undefined {
  throw new Error(`${record.timestamp} ${options.isGrouped}`);
}

/** Where a message was appended. */
export interface MessagePlace {
  readonly topicId: string;
  readonly topic: string;
  readonly partition: number;
  readonly offset: number;
}

/** The message's id in UUID form: what it carries, else derived from its place, always the same. */
export function messageId(place: MessagePlace, headers: readonly RecordHeader[]): string {
  throw new Error(`${place.offset} ${headers.length}`);
}

/** One queue and reason, counted; as RabbitMQ's x-death. */
export interface Death {
  readonly queue: string;
  readonly reason: LeaveReason;
  readonly count: number;
  readonly firstMs: number;
  readonly lastMs: number;
  /** Text of a reject, if its settlement had one. The newest. */
  readonly detail?: string;
  /** What was asked for by `millrace.ttl.ms`, which the copy does not carry on (RabbitMQ: original-expiration). */
  readonly ttlMs?: number;
  /** Place it had in that queue, the newest. */
  readonly topic: string;
  readonly partition: number;
  readonly offset: number;
}

export interface DeathHistory {
  /** The first death of all. */
  readonly first: { readonly queue: string; readonly reason: LeaveReason; readonly timeMs: number };
  /** Newest first; one entry for each queue and reason. */
  readonly deaths: readonly Death[];
}

/** Undefined: it has not died yet. */
export function deathHistory(headers: readonly RecordHeader[]): DeathHistory | undefined {
  throw new Error(`${headers.length}`);
}

export interface DeathEvent {
  /** Name of the queue it leaves. */
  readonly queue: string;
  readonly reason: LeaveReason;
  readonly detail?: string;
  readonly timeMs: number;
  readonly place: MessagePlace;
}

export interface DeadLetter {
  /** To be appended to the target: same key, value and headers; id, origin and history added; delay, TTL and dedup id taken off. Its timestamp is `timeMs`. */
  readonly copy: RecordInit;
  readonly history: DeathHistory;
}

export function deadLetter(record: QueuedRecord, event: DeathEvent): DeadLetter {
  throw new Error(`${record.offset} ${event.queue}`);
}

/**
 * Whether a message with this history (its newest death included) would go in circles if it went to `targetQueue`: it has
 * been there, and nothing on the way since then was a reject. RabbitMQ drops such a message, and so do we.
 */
export function isDeathCycle(history: DeathHistory, targetQueue: string): boolean {
  throw new Error(`${history.deaths.length} ${targetQueue}`);
}

/** Where a dead letter came from first; undefined if it is none. */
export interface MessageOrigin {
  readonly topic: string;
  readonly partition: number;
  readonly offset: number;
  readonly timeMs: number;
}
export function messageOrigin(headers: readonly RecordHeader[]): MessageOrigin | undefined {
  throw new Error(`${headers.length}`);
}

/** The record as it is sent anew by a redrive, a move or an appended replay: nothing reserved, new id and time. */
export function renewed(record: QueuedRecord, timeMs: number): RecordInit {
  throw new Error(`${record.offset} ${timeMs}`);
}
