/** Fields of argument tables: which are integers, and what RabbitMQ's messages call their types. */
import type { FieldValue } from '../../protocol/amqp/table.ts';

const INTEGERS = new Set(['I', 'i', 's', 'u', 'b', 'B', 'l', 'L']);

export const isInteger = (field: FieldValue): field is FieldValue & { value: number | bigint } =>
  INTEGERS.has(field.type) && 'value' in field;

const ERLANG_TYPES: Readonly<Record<string, string>> = {
  S: 'longstr',
  x: 'binary',
  I: 'signedint',
  i: 'unsignedint',
  l: 'long',
  L: 'long',
  s: 'short',
  u: 'unsignedshort',
  b: 'byte',
  B: 'unsignedbyte',
  t: 'bool',
  f: 'float',
  d: 'double',
  D: 'decimal',
  T: 'timestamp',
  F: 'table',
  A: 'array',
  V: 'void',
};

export const erlangType = (field: FieldValue): string => ERLANG_TYPES[field.type] ?? field.type;
