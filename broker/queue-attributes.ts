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
 *   millrace.dedup.id        sends with one id within the window are one           UTF-8, 1 … 256 bytes
 *
 *   millrace.id              the message id, where it is not derived from its place: it came from elsewhere
 *   millrace.death           JSON, see `DeathHistory`
 *   millrace.origin.topic, .partition, .offset, .time, .dedup.id       where and when it was first appended
 */
import { createHash } from 'node:crypto';
import { isUtf8 } from 'node:buffer';
import { MillraceError } from '../protocol/errors.ts';
import type { RecordCursor } from '../protocol/record-walk.ts';
import { openRecords, type RecordHeader, type RecordInit, recordTimes } from '../protocol/record-batch.ts';
import type { LeaveReason, MessageAttributes } from './queue.ts';
import type { QueuedRecord } from './queue-reader.ts';

export const headerNames = {
  delayMs: 'millrace.delay.ms',
  notBeforeMs: 'millrace.not.before.ms',
  ttlMs: 'millrace.ttl.ms',
  expiresAtMs: 'millrace.expires.at.ms',
  priority: 'millrace.priority',
  group: 'millrace.group',
  dedupId: 'millrace.dedup.id',
  id: 'millrace.id',
  death: 'millrace.death',
  originTopic: 'millrace.origin.topic',
  originPartition: 'millrace.origin.partition',
  originOffset: 'millrace.origin.offset',
  originTime: 'millrace.origin.time',
  originDedupId: 'millrace.origin.dedup.id',
} as const;

/** What producers may set; every other `millrace.*` is the broker's. */
export const producerHeaders: readonly string[] = [
  headerNames.delayMs,
  headerNames.notBeforeMs,
  headerNames.ttlMs,
  headerNames.expiresAtMs,
  headerNames.priority,
  headerNames.group,
  headerNames.dedupId,
];

/** What headers of the broker and its doors begin with. */
export const RESERVED = 'millrace.';
const RESERVED_BYTES = Buffer.from(RESERVED);
/** Of delays and times: some three centuries, so that sums with the time of day stay exact. */
const MS_MAX = 10_000_000_000_000;
const PRIORITY_MAX = 255;
const NO_DIGITS = Buffer.alloc(0);
/** As in SQS, twice over. */
const ID_BYTES_MAX = 256;
/** Entries of a history: beyond it the oldest are forgotten, so that headers stay bounded. */
const DEATHS_MAX = 64;
/** Longer keys stand for their hash. */
const GROUP_KEY_BYTES_MAX = 256;

/**
 * What makes two messages the same for deduplication: the id that the producer gave, or without one the content;
 * `group-…`: within a group only.
 */
export type DedupBy = 'id' | 'content' | 'group-id' | 'group-content';

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
  /** Undefined: the ids are not needed. */
  readonly dedupBy: DedupBy | undefined;
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
 * Errors: INVALID_RECORD, naming record and header; those of opening a compressed batch. Never an error for what the log
 * has already (`isFromClient` false): what cannot be read there says nothing.
 */
export function batchAttributes(
  batch: Buffer,
  position: number,
  decompressedBytesMax: number,
  options: AttributeOptions,
): BatchAttributes {
  const cursor = openRecords(batch, position, decompressedBytesMax);
  const { recordCount, baseTimestamp, appendTime } = recordTimes(batch, position);
  const { bytes } = cursor;
  const entries: AttributeEntry[] = [];
  const looksAtContent = options.dedupBy !== undefined && isByContent(options.dedupBy);
  const looksAtAll = options.isGrouped || looksAtContent;
  // Where the next reserved header may be: records before it need no look at their headers, and often there is none.
  let nearest = nextReserved(bytes, cursor.position);
  if (nearest >= cursor.end && !looksAtAll) return { recordCount, entries };
  for (let index = 0; index < recordCount; index++) {
    if (nearest < cursor.position) nearest = nextReserved(bytes, cursor.position);
    if (nearest >= cursor.end && !looksAtAll) break;
    cursor.next();
    const mayHave = nearest < cursor.position && cursor.headerCount > 0;
    // What other doors keep of a message is reserved, too, and says nothing.
    const hasReserved = mayHave && (options.isFromClient || hasProducerHeader(cursor));
    if (!hasReserved && !looksAtAll) continue;
    const { keyStart, keySize, valueStart, valueSize } = cursor;
    try {
      const attributes = recordAttributes(
        {
          timestamp: appendTime ?? baseTimestamp + cursor.timestampDelta,
          // Views cost as much as all the rest: none that is not looked into.
          key: keySize < 0 || !options.isGrouped ? null : bytes.subarray(keyStart, keyStart + keySize),
          value: valueSize < 0 || !looksAtContent ? null : bytes.subarray(valueStart, valueStart + valueSize),
          headers: hasReserved ? cursor.headers(reservedKey) : NO_HEADERS,
        },
        options,
      );
      if (attributes !== undefined) entries.push({ offsetDelta: cursor.offsetDelta, attributes });
    } catch (error) {
      if (!(error instanceof MillraceError)) throw error;
      throw new MillraceError(error.code, `record ${index} of the batch: ${error.message}`);
    }
  }
  return { recordCount, entries };
}

const NO_HEADERS: readonly RecordHeader[] = [];
/** Producer headers by their size, as bytes: their names need not be decoded. */
const producerKeys = Array.from({ length: Math.max(...producerHeaders.map(({ length }) => length)) + 1 }, (_, size) =>
  producerHeaders.filter((name) => name.length === size).map((name) => ({ name, bytes: Buffer.from(name) })),
);

/** Whether one of the record's headers is a producer's, found without an object. */
function hasProducerHeader(cursor: RecordCursor): boolean {
  const { bytes } = cursor;
  cursor.rewindHeaders();
  while (cursor.nextHeader()) {
    const { headerKeyStart: start, headerKeyEnd: end } = cursor;
    for (const { bytes: key } of producerKeys[end - start] ?? []) if (isAtEnd(bytes, start, key)) return true;
  }
  return false;
}

/** The key of a header; empty for one that is not reserved. */
function reservedKey(bytes: Buffer, start: number, end: number): string {
  if (end - start < RESERVED_BYTES.length || !isAt(bytes, start, RESERVED_BYTES)) return '';
  for (const { name, bytes: key } of producerKeys[end - start] ?? []) if (isAt(bytes, start, key)) return name;
  return bytes.toString('utf8', start, end);
}

function isAt(bytes: Buffer, start: number, expected: Buffer): boolean {
  for (let at = 0; at < expected.length; at++) if (bytes[start + at] !== expected[at]) return false;
  return true;
}

/** The same for names that are alike at their beginning. */
function isAtEnd(bytes: Buffer, start: number, expected: Buffer): boolean {
  for (let at = expected.length - 1; at >= 0; at--) if (bytes[start + at] !== expected[at]) return false;
  return true;
}

function nextReserved(bytes: Buffer, from: number): number {
  const at = bytes.indexOf(RESERVED_BYTES, from);
  return at < 0 ? Number.POSITIVE_INFINITY : at;
}

/** The attributes of one record, as `batchAttributes`; undefined if it says nothing. */
export function recordAttributes(
  record: Omit<QueuedRecord, 'offset'>,
  options: AttributeOptions,
): MessageAttributes | undefined {
  const { isFromClient, isGrouped, dedupBy } = options;
  const baseMs = options.appendTimeMs ?? record.timestamp;
  let priority = 0;
  let notBeforeMs = 0;
  let expiresAtMs = Number.POSITIVE_INFINITY;
  let group: string | undefined;
  let dedupId: string | undefined;
  let seen = 0;
  for (const { key, value } of record.headers) {
    if (!key.startsWith(RESERVED)) continue;
    const place = producerHeaders.indexOf(key);
    if (isFromClient) {
      if (place < 0) {
        throw invalid(`header '${key}' is reserved; producers may set ${producerHeaders.join(', ')}`);
      }
      if ((seen & (1 << place)) !== 0) throw invalid(`header '${key}' is given twice`);
      seen |= 1 << place;
    }
    switch (key) {
      case headerNames.delayMs:
        notBeforeMs = Math.max(notBeforeMs, baseMs + (wholeNumber(key, value, MS_MAX, isFromClient) ?? 0));
        break;
      case headerNames.notBeforeMs:
        notBeforeMs = Math.max(notBeforeMs, wholeNumber(key, value, MS_MAX, isFromClient) ?? 0);
        break;
      case headerNames.ttlMs: {
        const ttlMs = wholeNumber(key, value, MS_MAX, isFromClient);
        if (ttlMs !== undefined) expiresAtMs = Math.min(expiresAtMs, baseMs + ttlMs);
        break;
      }
      case headerNames.expiresAtMs: {
        const atMs = wholeNumber(key, value, MS_MAX, isFromClient);
        if (atMs !== undefined) expiresAtMs = Math.min(expiresAtMs, atMs);
        break;
      }
      case headerNames.priority:
        priority = wholeNumber(key, value, PRIORITY_MAX, isFromClient) ?? priority;
        break;
      case headerNames.group:
        group = identifier(key, value, isFromClient) ?? group;
        break;
      case headerNames.dedupId:
        dedupId = identifier(key, value, isFromClient) ?? dedupId;
        break;
    }
  }
  if (isGrouped && group === undefined && record.key !== null) group = groupOfKey(record.key);
  dedupId = dedupBy === undefined ? undefined : dedupKey(dedupBy, { id: dedupId, group, value: record.value });
  const saysNothing =
    priority === 0 &&
    notBeforeMs === 0 &&
    expiresAtMs === Number.POSITIVE_INFINITY &&
    group === undefined &&
    dedupId === undefined;
  return saysNothing ? undefined : { priority, notBeforeMs, expiresAtMs, group, dedupId };
}

/** Undefined: it is not one, which only a client is told. */
function wholeNumber(key: string, value: Buffer | null, max: number, isFromClient: boolean): number | undefined {
  // At most 14 digits are a safe integer.
  const digits = value !== null && value.length > 0 && value.length <= 14 ? value : NO_DIGITS;
  let number = digits.length === 0 ? -1 : 0;
  for (let at = 0; at < digits.length; at++) {
    const digit = digits[at] - 48;
    if (digit < 0 || digit > 9) {
      number = -1;
      break;
    }
    number = number * 10 + digit;
  }
  if (number >= 0 && number <= max) return number;
  if (!isFromClient) return undefined;
  throw invalid(`header '${key}' must be a whole number from 0 to ${max} in decimal digits, not ${shown(value)}`);
}

function identifier(key: string, value: Buffer | null, isFromClient: boolean): string | undefined {
  if (value !== null && value.length > 0 && value.length <= ID_BYTES_MAX && isUtf8(value)) return value.toString();
  if (!isFromClient) return undefined;
  throw invalid(`header '${key}' must be 1 to ${ID_BYTES_MAX} bytes of UTF-8, not ${shown(value)}`);
}

function shown(value: Buffer | null): string {
  if (value === null) return 'null';
  if (value.length > 40) return `${value.length} bytes`;
  return isUtf8(value) ? `'${value.toString()}'` : `bytes ${value.toString('hex')}`;
}

/** Text as it is; other bytes and long keys so that they meet no text and not each other. */
function groupOfKey(key: Buffer): string {
  if (key.length > GROUP_KEY_BYTES_MAX) return `\0${createHash('sha256').update(key).digest('base64')}`;
  return isUtf8(key) ? key.toString() : `\0${key.toString('latin1')}`;
}

const isByContent = (by: DedupBy): boolean => by === 'content' || by === 'group-content';

/** Messages of equal keys are one; undefined: it is like no other. */
export function dedupKey(
  by: DedupBy,
  { id, group = '', value }: { id: string | undefined; group: string | undefined; value: Uint8Array | null },
): string | undefined {
  const key = id ?? (isByContent(by) ? contentId(value) : undefined);
  const isWithinGroup = by === 'group-id' || by === 'group-content';
  return key === undefined || !isWithinGroup ? key : `${group}\0${key}`;
}

/** No id that a producer gives begins with a zero byte and is that long. */
function contentId(value: Uint8Array | null): string {
  return `\0${createHash('sha256')
    .update(value ?? '')
    .digest('base64')}`;
}

/** Where a message was appended. */
export interface MessagePlace {
  readonly topicId: string;
  readonly topic: string;
  readonly partition: number;
  readonly offset: number;
}

/**
 * The message's id in UUID form: what it carries, else derived from its place, always the same. A derived one is a
 * version 8 UUID (RFC 9562): 60 bits of the random topic id, 14 of the partition, 48 of the offset.
 */
export function messageId(place: MessagePlace, headers: readonly RecordHeader[]): string {
  const carried = headerText(headers, headerNames.id);
  if (carried !== undefined) return carried;
  const { topicId, partition, offset } = place;
  const variant = (0x8000 | (partition & 0x3fff)).toString(16);
  return `${topicId.slice(0, 8)}-${topicId.slice(9, 13)}-8${topicId.slice(15, 18)}-${variant}-${offset.toString(16).padStart(12, '0')}`;
}

function headerText(headers: readonly RecordHeader[], name: string): string | undefined {
  const value = headers.findLast(({ key }) => key === name)?.value;
  return value === undefined || value === null ? undefined : value.toString();
}

/** How a message had been published when it died, in the words of a door with exchanges. */
export interface Publication {
  readonly exchange: string;
  readonly routingKeys: readonly string[];
  /** What the queue is called there, if that is another name. */
  readonly alias?: string;
}

/** One queue and reason, counted; as RabbitMQ's x-death. */
export interface Death {
  readonly queue: string;
  readonly reason: LeaveReason;
  readonly count: number;
  /** At the first of these deaths. */
  readonly published?: Publication;
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
  readonly first: {
    readonly queue: string;
    readonly reason: LeaveReason;
    readonly timeMs: number;
    readonly published?: Publication;
  };
  /** Exchange of the message at its newest death. */
  readonly lastExchange?: string;
  /** Newest first; one entry for each queue and reason. */
  readonly deaths: readonly Death[];
}

/** Undefined: it has not died yet. */
export function deathHistory(headers: readonly RecordHeader[]): DeathHistory | undefined {
  const text = headerText(headers, headerNames.death);
  if (text === undefined) return undefined;
  try {
    const history: unknown = JSON.parse(text);
    return isHistory(history) ? history : undefined;
  } catch {
    // Only the broker writes this header on topics with a queue; what a log had before that says nothing.
    return undefined;
  }
}

function isHistory(history: unknown): history is DeathHistory {
  if (typeof history !== 'object' || history === null) return false;
  // Looked at field by field.
  const { first, deaths } = history as Partial<DeathHistory>;
  if (typeof first?.queue !== 'string' || !Array.isArray(deaths) || deaths.length === 0) return false;
  return deaths.every(
    (death: Partial<Death> | null) =>
      typeof death?.queue === 'string' && typeof death.reason === 'string' && Number.isSafeInteger(death.count),
  );
}

export interface DeathEvent {
  /** Name of the queue it leaves. */
  readonly queue: string;
  readonly reason: LeaveReason;
  readonly detail?: string;
  readonly timeMs: number;
  /** Undefined: the queue refused it, it has no place there. */
  readonly place: MessagePlace | undefined;
  readonly published?: Publication;
}

export interface DeadLetter {
  /**
   * To be appended to the target: same key, value and headers; id, origin and history added; delay, TTL and dedup id
   * taken off. Its timestamp is `timeMs`.
   */
  readonly copy: Omit<QueuedRecord, 'offset'>;
  readonly history: DeathHistory;
}

/** What a dead letter does not carry on. */
const takenOff: ReadonlySet<string> = new Set([
  headerNames.delayMs,
  headerNames.notBeforeMs,
  headerNames.ttlMs,
  headerNames.expiresAtMs,
  headerNames.dedupId,
  headerNames.id,
  headerNames.death,
]);

export function deadLetter(record: Omit<QueuedRecord, 'offset'>, event: DeathEvent): DeadLetter {
  const { key, value, headers } = record;
  const { place } = event;
  const history = continued(deathHistory(headers), record, event);
  const kept: RecordHeader[] = headers.filter((header) => !takenOff.has(header.key));
  if (place !== undefined) kept.push(textHeader(headerNames.id, messageId(place, headers)));
  if (place !== undefined && headerText(headers, headerNames.originTopic) === undefined) {
    kept.push(
      textHeader(headerNames.originTopic, place.topic),
      textHeader(headerNames.originPartition, String(place.partition)),
      textHeader(headerNames.originOffset, String(place.offset)),
      textHeader(headerNames.originTime, String(record.timestamp)),
    );
    const dedupId = headers.find((header) => header.key === headerNames.dedupId);
    if (dedupId !== undefined) kept.push({ key: headerNames.originDedupId, value: dedupId.value });
  }
  kept.push(textHeader(headerNames.death, JSON.stringify(history)));
  return { copy: { key, value, headers: kept, timestamp: event.timeMs }, history };
}

/** The history with this death: a queue and reason that is there already is counted and comes first again. */
function continued(
  history: DeathHistory | undefined,
  record: Pick<QueuedRecord, 'headers'>,
  event: DeathEvent,
): DeathHistory {
  const { queue, reason, detail, timeMs, place, published } = event;
  const publishedThen = published === undefined ? {} : { published };
  const before = history?.deaths ?? [];
  const same = before.find((death) => death.queue === queue && death.reason === reason);
  const ttl = record.headers.find(({ key }) => key === headerNames.ttlMs);
  const ttlMs = same?.ttlMs ?? (ttl === undefined ? undefined : wholeNumber(ttl.key, ttl.value, MS_MAX, false));
  const death: Death = {
    queue,
    reason,
    count: (same?.count ?? 0) + 1,
    firstMs: same?.firstMs ?? timeMs,
    lastMs: timeMs,
    ...(detail === undefined ? {} : { detail }),
    ...(ttlMs === undefined ? {} : { ttlMs }),
    ...(same === undefined ? publishedThen : same.published && { published: same.published }),
    topic: place?.topic ?? '',
    partition: place?.partition ?? -1,
    offset: place?.offset ?? -1,
  };
  return {
    first: history?.first ?? { queue, reason, timeMs, ...publishedThen },
    ...(published === undefined ? {} : { lastExchange: published.exchange }),
    deaths: [death, ...before.filter((other) => other !== same)].slice(0, DEATHS_MAX),
  };
}

function textHeader(key: string, value: string): RecordHeader {
  return { key, value: Buffer.from(value) };
}

/**
 * Whether a message with this history (its newest death included) would go in circles if it went to `targetQueue`: it has
 * been there, and nothing on the way since then was a reject. RabbitMQ drops such a message, and so do we.
 */
export function isDeathCycle(history: DeathHistory, targetQueue: string): boolean {
  for (const { queue, reason } of history.deaths) {
    if (reason === 'rejected') return false;
    if (queue === targetQueue) return true;
  }
  return false;
}

/** Where a dead letter was first appended. */
export interface MessageOrigin {
  readonly topic: string;
  readonly partition: number;
  readonly offset: number;
  readonly timeMs: number;
}

/** Undefined: it is where it was first appended. */
export function messageOrigin(headers: readonly RecordHeader[]): MessageOrigin | undefined {
  const topic = headerText(headers, headerNames.originTopic);
  if (topic === undefined) return undefined;
  return {
    topic,
    partition: Number(headerText(headers, headerNames.originPartition) ?? 0),
    offset: Number(headerText(headers, headerNames.originOffset) ?? -1),
    timeMs: Number(headerText(headers, headerNames.originTime) ?? -1),
  };
}

/** What a message that is sent anew leaves behind: its old place and times. A TTL of its own counts anew. */
const notRenewed: ReadonlySet<string> = new Set([
  headerNames.delayMs,
  headerNames.notBeforeMs,
  headerNames.expiresAtMs,
  headerNames.dedupId,
  headerNames.id,
  headerNames.originTopic,
  headerNames.originPartition,
  headerNames.originOffset,
  headerNames.originTime,
  headerNames.originDedupId,
]);

/**
 * The record as a redrive, a move or an appended replay sends it anew: new id (of its new place) and time, no delay, no
 * deduplication. Its history stays, so that the next death is counted on.
 */
export function renewed(record: QueuedRecord, timeMs: number): RecordInit {
  const { key, value, headers } = record;
  return { key, value, headers: headers.filter((header) => !notRenewed.has(header.key)), timestamp: timeMs };
}

function invalid(message: string): MillraceError {
  return new MillraceError('INVALID_RECORD', message);
}
