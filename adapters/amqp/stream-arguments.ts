/**
 * Arguments of streams as RabbitMQ has them: those of `queue.declare` for `x-queue-type: stream`, and those of
 * `basic.consume` that say where reading begins and what is read.
 */
import { type FieldValue, fieldOf, type Table } from '../../protocol/amqp/table.ts';
import { erlangType, isInteger } from './argument-fields.ts';
import { AmqpError } from './reply.ts';

/** Apache Kafka's range of segment.bytes; RabbitMQ's default segment is larger than what most streams ever hold. */
const SEGMENT_BYTES_MIN = 1024 * 1024;
const SEGMENT_BYTES_MAX = 2_147_483_647;
const SEGMENT_BYTES = 64 * 1024 * 1024;
const DAY_MS = 86_400_000;
/** RabbitMQ's units; a month has 30 days and a year 365. */
const UNIT_MS: Readonly<Record<string, number>> = {
  Y: 365 * DAY_MS,
  M: 30 * DAY_MS,
  D: DAY_MS,
  h: 3_600_000,
  m: 60_000,
  s: 1000,
};
const AGE = /^(\d{1,15})([YMDhms])$/;

/** Milliseconds of an age like `7D` or `1h`; undefined if it is none. */
export function ageMs(text: string): number | undefined {
  const found = AGE.exec(text);
  if (found === null) return undefined;
  return Math.min(Number.MAX_SAFE_INTEGER, Number(found[1]) * UNIT_MS[found[2]]);
}

/** Configs of the topic that a stream is declared with (checked). Nothing goes unless an argument says so. */
export function streamTopicConfigs(table: Table): Map<string, string> {
  const bytes = integerOf(table, 'x-max-length-bytes');
  const segmentBytes = integerOf(table, 'x-stream-max-segment-size-bytes') ?? SEGMENT_BYTES;
  const age = fieldOf(table, 'x-max-age');
  const retentionMs = age?.type === 'S' ? ageMs(age.value.toString()) : undefined;
  return new Map([
    ['message.timestamp.type', 'LogAppendTime'],
    ['retention.bytes', String(bytes ?? -1)],
    ['retention.ms', String(retentionMs ?? -1)],
    ['segment.bytes', String(Math.min(SEGMENT_BYTES_MAX, Math.max(SEGMENT_BYTES_MIN, segmentBytes)))],
  ]);
}

function integerOf(table: Table, name: string): number | undefined {
  const field = fieldOf(table, name);
  return field !== undefined && isInteger(field) ? Number(field.value) : undefined;
}

/** Where a consumer begins. */
export type StreamStart =
  | { readonly kind: 'first' | 'last' | 'next' }
  | { readonly kind: 'offset'; readonly offset: number }
  /** In ms since 1970: the first message that was appended then or later. */
  | { readonly kind: 'time'; readonly ms: number };

export interface StreamFilter {
  readonly values: readonly Buffer[];
  /** Messages without a filter value, too. */
  readonly isUnfilteredToo: boolean;
}

/** What `basic.consume` asks of a log. */
export interface StreamRequest {
  readonly start: StreamStart;
  readonly filter: StreamFilter | undefined;
}

/** Undefined: this consumer takes messages from a queue. 406 for an offset that is none. */
export function streamRequestOf(
  table: Table,
  { isStream, nowMs, owner }: { isStream: boolean; nowMs: number; owner: string },
): StreamRequest | undefined {
  const offset = fieldOf(table, 'x-stream-offset');
  if (offset === undefined && !isStream) return undefined;
  const start: StreamStart | undefined = offset === undefined ? { kind: 'next' } : startOf(offset, nowMs);
  if (start === undefined) {
    const why = `invalid arg 'x-stream-offset' for ${owner}: expected first, last, next, an offset, a timestamp or an interval, got ${erlangType(offset ?? { type: 'V' })}`;
    throw new AmqpError('PRECONDITION_FAILED', why);
  }
  return { start, filter: filterOf(table) };
}

function startOf(field: FieldValue, nowMs: number): StreamStart | undefined {
  if (isInteger(field)) return { kind: 'offset', offset: Math.max(0, Number(field.value)) };
  if (field.type === 'T') return { kind: 'time', ms: Number(field.value) * 1000 };
  if (field.type !== 'S') return undefined;
  const text = field.value.toString();
  if (text === 'first' || text === 'last' || text === 'next') return { kind: text };
  const interval = ageMs(text);
  return interval === undefined ? undefined : { kind: 'time', ms: Math.max(0, nowMs - interval) };
}

function filterOf(table: Table): StreamFilter | undefined {
  const field = fieldOf(table, 'x-stream-filter');
  const values: Buffer[] = [];
  if (field?.type === 'S') values.push(field.value);
  if (field?.type === 'A') for (const each of field.value) if (each.type === 'S') values.push(each.value);
  if (values.length === 0) return undefined;
  const unfiltered = fieldOf(table, 'x-stream-match-unfiltered');
  // Copy: the table lies in the read buffer.
  return {
    values: values.map((value) => Buffer.from(value)),
    isUnfilteredToo: unfiltered?.type === 't' && unfiltered.value,
  };
}
