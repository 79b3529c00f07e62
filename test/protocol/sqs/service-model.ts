/**
 * An extract of SQS's service model (service-model.json says of which versions), and a check of a value by it: what
 * an SDK would make of an answer.
 */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';

export interface ModelShape {
  readonly type: string;
  readonly members?: Readonly<Record<string, { shape: string }>>;
  readonly required?: readonly string[];
  readonly member?: { readonly shape: string };
  readonly key?: { readonly shape: string };
  readonly value?: { readonly shape: string };
  readonly enum?: readonly string[];
}

export interface ServiceModel {
  readonly operations: Readonly<Record<string, { input: string; output: string | null; errors: readonly string[] }>>;
  readonly shapes: Readonly<Record<string, ModelShape>>;
  /** Name → code in the query protocol and status. */
  readonly errors: Readonly<Record<string, readonly [string, number]>>;
  /** Of the query protocol: list → element; map → names of key and value; `shape.member` → element of a map. */
  readonly queryNames: Readonly<Record<string, string | readonly [string, string]>>;
}

// The file is an extract of this form.
export const serviceModel = JSON.parse(
  readFileSync(join(process.cwd(), 'test/protocol/sqs/service-model.json'), 'utf8'),
) as ServiceModel;

/** What is wrong with an answer of the JSON protocol, by the model: unknown, null, missing or empty members, wrong types. */
export function faultsOf(json: unknown, shapeName: string, path = shapeName): string[] {
  const shape = serviceModel.shapes[shapeName];
  switch (shape.type) {
    case 'string': {
      if (typeof json !== 'string') return [`${path}: ${JSON.stringify(json)} is no text`];
      return shape.enum === undefined || shape.enum.includes(json) ? [] : [`${path}: '${json}' is not in the model`];
    }
    case 'integer':
    case 'long':
      return Number.isSafeInteger(json) ? [] : [`${path}: ${JSON.stringify(json)} is no whole number`];
    case 'boolean':
      return typeof json === 'boolean' ? [] : [`${path}: ${JSON.stringify(json)} is neither true nor false`];
    case 'blob':
      return typeof json === 'string' ? [] : [`${path}: no base64`];
    case 'list':
      if (!Array.isArray(json)) return [`${path}: no list`];
      return json.flatMap((item, index) => faultsOf(item, shape.member?.shape ?? '', `${path}[${index}]`));
    default:
      break;
  }
  if (typeof json !== 'object' || json === null || Array.isArray(json)) return [`${path}: no object`];
  if (shape.type === 'map') {
    return Object.entries(json).flatMap(([key, value]) => [
      ...faultsOf(key, shape.key?.shape ?? '', `${path} key`),
      ...faultsOf(value, shape.value?.shape ?? '', `${path}.${key}`),
    ]);
  }
  const faults = (shape.required ?? []).filter((name) => !(name in json)).map((name) => `${path}.${name} is missing`);
  for (const [name, value] of Object.entries(json)) {
    const member = shape.members?.[name];
    if (member === undefined) faults.push(`${path}.${name} is not in the model`);
    else {
      faults.push(...faultsOf(value, member.shape, `${path}.${name}`));
      const isOptional = !(shape.required ?? []).includes(name);
      const isEmpty = typeof value === 'object' && value !== null && Object.keys(value).length === 0;
      if (isOptional && isEmpty) faults.push(`${path}.${name} is there and empty`);
    }
  }
  return faults;
}
