/**
 * What the tests of the Kafka messages share: the definitions, the readers and writers by name, and the golden vectors
 * (golden.tsv, made by golden/Golden.java with Kafka's own serializers).
 */
import { readFileSync, readdirSync } from 'node:fs';
import type { Reader, Writer } from '../../../protocol/bytes.ts';
import { type Definitions, type Field, parseDefinitions } from '../../../protocol/kafka/definition.ts';
import * as messages from '../../../protocol/kafka/messages.ts';

const DEFINITIONS = 'protocol/kafka';

/** All `.def` files, in the order of their names. */
export function readDefinitions(): Definitions {
  const names = readdirSync(DEFINITIONS).filter((name) => name.endsWith('.def'));
  return parseDefinitions(...names.sort().map((name) => readFileSync(`${DEFINITIONS}/${name}`, 'utf8')));
}

/** Tags from here on are ours: Kafka's schemas and vectors know nothing of them. */
export const OWN_TAGS_MIN = 10_000;

/** The value without the fields that Kafka does not have; whoever reads Kafka's bytes finds their defaults there. */
export function withoutOwnFields(value: unknown, fields: readonly Field[]): unknown {
  if (Array.isArray(value)) return value.map((element) => withoutOwnFields(element, fields));
  if (typeof value !== 'object' || value === null || value instanceof Uint8Array) return value;
  const entries = Object.entries(value).flatMap(([name, content]) => {
    const field = fields.find((one) => one.name === name);
    if (field?.tag !== undefined && field.tag !== null && field.tag >= OWN_TAGS_MIN) return [];
    return [[name, withoutOwnFields(content, field?.structure?.fields ?? [])]];
  });
  return Object.fromEntries(entries);
}

export interface Codec {
  read(reader: Reader, version: number): unknown;
  write(writer: Writer, value: unknown, version: number): void;
}

// The names are put together at run time, which the type of the module cannot follow.
const byName = messages as unknown as Record<string, ((...args: unknown[]) => unknown) | undefined>;

/** Reader and writer of a message, by the message's name. */
export function codec(name: string): Codec {
  const read = byName[`read${name}`];
  const write = byName[`write${name}`];
  if (!read || !write) throw new Error(`no message ${name}`);
  return { read, write };
}

export interface Vector {
  readonly name: string;
  readonly version: number;
  readonly bytes: Buffer;
  /** What Kafka reads from the bytes, in the form that our readers answer. */
  readonly value: unknown;
}

export function readVectors(): Vector[] {
  const lines = readFileSync('test/protocol/kafka/golden.tsv', 'utf8').trimEnd().split('\n');
  return lines.map((line) => {
    const [name, version, base64, json] = line.split('\t');
    return { name, version: Number(version), bytes: Buffer.from(base64, 'base64'), value: JSON.parse(json, revive) };
  });
}

function revive(_key: string, value: unknown): unknown {
  if (typeof value === 'string' && value.startsWith('b:')) return Buffer.from(value.slice(2), 'base64');
  // The largest int64 is a default that means "unknown"; ours is the largest safe integer.
  if (typeof value === 'number' && value > Number.MAX_SAFE_INTEGER) return Number.MAX_SAFE_INTEGER;
  return value;
}
