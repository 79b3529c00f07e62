/** AMQP's tables as JSON, and the reverse, by RabbitMQ's rules: whole numbers become `long`, others `double`. */
import type { FieldValue, Table } from '../../protocol/amqp/table.ts';
import { badRequest } from './resource.ts';

/** Deeper ones are refused before they are walked. */
const DEPTH_MAX = 32;

export function tableToJson(table: Table): Record<string, unknown> {
  // Whatever the names are, they are the object's own.
  return Object.fromEntries(table.map(([name, field]) => [name, fieldToJson(field)]));
}

function fieldToJson(field: FieldValue): unknown {
  switch (field.type) {
    case 'S':
    case 'x':
      return field.value.toString();
    case 'F':
      return tableToJson(field.value);
    case 'A':
      return field.value.map(fieldToJson);
    case 'V':
      return null;
    case 'D':
      return field.value / 10 ** field.scale;
    default:
      return typeof field.value === 'bigint' ? Number(field.value) : field.value;
  }
}

/** 400 for what is no object. */
export function jsonToTable(value: unknown, depth = 0): Table {
  if (value === undefined || value === null) return [];
  // An empty list stands for an empty object, as Erlang's JSON has it.
  if (Array.isArray(value) && value.length === 0) return [];
  if (typeof value !== 'object' || Array.isArray(value))
    throw badRequest(`a table is an object, not ${JSON.stringify(value)}`);
  return Object.entries(value).map(([name, each]) => {
    if (Buffer.byteLength(name) > 255) throw badRequest('the name of an argument has more than 255 bytes');
    return [name, jsonToField(each, depth)] as const;
  });
}

function jsonToField(value: unknown, depth: number): FieldValue {
  if (depth > DEPTH_MAX) throw badRequest(`arguments are nested deeper than ${DEPTH_MAX}`);
  if (typeof value === 'string') return { type: 'S', value: Buffer.from(value) };
  if (typeof value === 'boolean') return { type: 't', value };
  if (typeof value === 'number') return Number.isSafeInteger(value) ? { type: 'l', value } : { type: 'd', value };
  if (value === null || value === undefined) throw badRequest('null_not_allowed');
  if (Array.isArray(value)) return { type: 'A', value: value.map((each: unknown) => jsonToField(each, depth + 1)) };
  return { type: 'F', value: jsonToTable(value, depth + 1) };
}
