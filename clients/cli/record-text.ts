/**
 * Records as text, both ways: one JSON object a line (what `cat -o ndjson` writes `produce --ndjson` reads), a table
 * line for people, raw values.
 */
import type { DecodedRecord, RecordInit } from '../../protocol/record-batch.ts';
import type { TopicPartition } from '../kafka/records.ts';
import { timeText } from './output.ts';

/** The bytes if they are valid UTF-8, as text; else undefined. */
function utf8(bytes: Buffer): string | undefined {
  const text = bytes.toString('utf8');
  // A replacement character may have been there; only then are the bytes compared.
  return !text.includes('\ufffd') || Buffer.from(text, 'utf8').equals(bytes) ? text : undefined;
}

/** `key` or, where the bytes are not UTF-8, `keyBase64`; likewise for values and headers. */
export function recordJson({ topic, partition }: TopicPartition, record: DecodedRecord): object {
  return {
    topic,
    partition,
    offset: record.offset,
    timestamp: record.timestamp,
    ...field('key', record.key),
    ...field('value', record.value),
    ...(record.headers.length > 0
      ? { headers: record.headers.map(({ key, value }) => ({ key, ...field('value', value) })) }
      : {}),
  };
}

function field(name: string, bytes: Buffer | null): object {
  if (bytes === null) return { [name]: null };
  const text = utf8(bytes);
  return text === undefined ? { [`${name}Base64`]: bytes.toString('base64') } : { [name]: text };
}

/** partition offset time key value [headers], with what would disturb a terminal escaped. */
export function recordLine({ topic, partition }: TopicPartition, record: DecodedRecord, withHeaders: boolean): string {
  const place = `${topic}:${partition}`.padEnd(14);
  const headers = withHeaders
    ? `  [${record.headers.map(({ key, value }) => `${safe(key)}=${shown(value)}`).join(', ')}]`
    : '';
  return `${place} ${String(record.offset).padStart(8)}  ${timeText(record.timestamp)}  ${shown(record.key)}  ${shown(record.value)}${headers}\n`;
}

function shown(bytes: Buffer | null): string {
  if (bytes === null) return '(null)';
  const text = utf8(bytes);
  return text === undefined ? `base64:${bytes.toString('base64')}` : safe(text);
}

export function safe(text: string): string {
  // Control characters, C1 included: a record must not be able to move a terminal's cursor.
  return text.replaceAll(/[\p{Cc}\u2028\u2029]/gu, (character) => {
    const short = { '\n': '\\n', '\r': '\\r', '\t': '\\t' }[character];
    return short ?? `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`;
  });
}

export interface ParsedRecord extends RecordInit {
  /** Where the line asks for one. */
  readonly partition?: number;
}

/** Reads one line of NDJSON. A value that is not text is sent as JSON. Throws an `Error` that says what is wrong. */
export function parseRecordJson(line: string, nowMs: number): ParsedRecord {
  const content: unknown = JSON.parse(line);
  if (typeof content !== 'object' || content === null || Array.isArray(content))
    throw new Error('a record is a JSON object');
  const given = content as Record<string, unknown>;
  const timestamp = given.timestamp ?? nowMs;
  if (typeof timestamp !== 'number' || !Number.isSafeInteger(timestamp))
    throw new Error('timestamp takes ms since 1970');
  const { partition } = given;
  if (partition !== undefined && !(typeof partition === 'number' && Number.isInteger(partition) && partition >= 0)) {
    throw new Error('partition takes a whole number');
  }
  return {
    key: fieldBytes('key', given),
    value: fieldBytes('value', given),
    headers: headerList(given.headers),
    timestamp,
    ...(partition === undefined ? {} : { partition }),
  };
}

function headerList(given: unknown): { key: string; value: Buffer | null }[] {
  if (given === undefined || given === null) return [];
  if (Array.isArray(given)) {
    return given.map((header: unknown) => {
      if (typeof header !== 'object' || header === null || !('key' in header))
        throw new Error('a header is {"key":…,"value":…}');
      return { key: String(header.key), value: fieldBytes('value', header as Record<string, unknown>) };
    });
  }
  if (typeof given !== 'object') throw new Error('headers take a list or an object');
  return Object.entries(given).map(([key, value]) => ({ key, value: fieldBytes('value', { value }) }));
}

function fieldBytes(name: string, given: Record<string, unknown>): Buffer | null {
  const encoded = given[`${name}Base64`];
  if (typeof encoded === 'string') return Buffer.from(encoded, 'base64');
  const value = given[name];
  if (value === undefined || value === null) return null;
  return Buffer.from(typeof value === 'string' ? value : JSON.stringify(value));
}
