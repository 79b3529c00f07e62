/**
 * awsJson1.0: requests and answers of the JSON protocol by their shapes. Unknown members are ignored and `null` is nothing,
 * as AWS has it; a value of another type is SerializationException, a required member that is not there MissingParameter.
 */
import { missing, SqsError, sqsErrors } from './errors.ts';
import type { Shape, StructureShape, ValueOf } from './shapes.ts';

export const JSON_TYPE = 'application/x-amz-json-1.0';
/** The deepest that any request is, with room to spare. */
const DEPTH_MAX = 32;
const INT32_MAX = 2_147_483_647;
/** Base64 in its usual alphabet; padding may be left out. */
const BASE64 = /^[A-Za-z0-9+/]*={0,2}$/;
/** Errors that the platform answers before a service has seen the request. */
const CORAL: ReadonlySet<string> = new Set(['SerializationException', 'UnknownOperationException', 'InternalFailure']);

export function parseJson(body: Buffer): unknown {
  if (body.length === 0) return {};
  if (isDeep(body))
    throw new SqsError('SerializationException', `The request is nested deeper than ${DEPTH_MAX} levels`);
  try {
    return JSON.parse(body.toString());
  } catch (error) {
    throw new SqsError('SerializationException', 'The body of the request is not JSON', { cause: error });
  }
}

/** Brackets in texts count, too, unless they are closed there: nobody nests by hundreds. */
function isDeep(body: Buffer): boolean {
  let depth = 0;
  let isText = false;
  for (let at = 0; at < body.length; at++) {
    const byte = body[at];
    if (byte === 0x22) isText = !isText;
    else if (byte === 0x5c) at++;
    else if (isText) continue;
    else if (byte === 0x7b || byte === 0x5b) {
      if (++depth > DEPTH_MAX) return true;
    } else if (byte === 0x7d || byte === 0x5d) depth--;
  }
  return false;
}

/** The request as its shape has it. */
export function readJson<S extends StructureShape>(shape: S, json: unknown): ValueOf<S> {
  // The reader builds what the shape says.
  return read(shape, json, '') as ValueOf<S>;
}

function read(shape: Shape, json: unknown, path: string): unknown {
  switch (shape.type) {
    case 'string':
      if (typeof json === 'string') return json;
      throw mismatch(json, 'String');
    case 'integer':
    case 'long': {
      const max = shape.type === 'integer' ? INT32_MAX : Number.MAX_SAFE_INTEGER;
      if (typeof json === 'number' && Number.isInteger(json) && Math.abs(json) <= max) return json;
      throw mismatch(json, shape.type === 'integer' ? 'Integer' : 'Long');
    }
    case 'boolean':
      if (typeof json === 'boolean') return json;
      throw mismatch(json, 'Boolean');
    case 'blob':
      return decodeBlob(json);
    case 'list': {
      if (!Array.isArray(json)) throw mismatch(json, 'List');
      const values: unknown[] = [];
      for (const item of json) {
        if (item !== null) values.push(read(shape.member, item, `${path}${shape.element}.${values.length + 1}.`));
      }
      return values;
    }
    case 'map': {
      if (typeof json !== 'object' || json === null || Array.isArray(json)) throw mismatch(json, 'Map');
      const values = new Map<string, unknown>();
      for (const [key, value] of Object.entries(json)) {
        if (value !== null) values.set(key, read(shape.value, value, `${path}${key}.`));
      }
      return values;
    }
    case 'structure':
      return readStructure(shape, json, path);
  }
}

function readStructure({ members }: StructureShape, json: unknown, path: string): unknown {
  if (typeof json !== 'object' || json === null || Array.isArray(json)) throw mismatch(json, 'Structure');
  const given = json as Readonly<Record<string, unknown>>;
  const value: Record<string, unknown> = {};
  for (const name in members) {
    const { shape, isRequired } = members[name];
    const member = Object.hasOwn(given, name) ? given[name] : undefined;
    if (member !== undefined && member !== null) value[name] = read(shape, member, `${path}${name}.`);
    else if (isRequired) throw missing(path + name);
  }
  return value;
}

function mismatch(json: unknown, wanted: string): SqsError {
  return new SqsError('SerializationException', `${kindOf(json)} can not be converted to ${article(wanted)} ${wanted}`);
}

const article = (word: string): string => (word === 'Integer' ? 'an' : 'a');

function kindOf(json: unknown): string {
  if (json === null) return 'NULL_VALUE';
  if (Array.isArray(json)) return 'START_ARRAY';
  if (typeof json === 'object') return 'START_OBJECT';
  if (typeof json === 'boolean') return json ? 'TRUE_VALUE' : 'FALSE_VALUE';
  if (typeof json === 'number') return Number.isInteger(json) ? 'NUMBER_VALUE' : 'DECIMAL_VALUE';
  return 'STRING_VALUE';
}

export function decodeBlob(text: unknown): Buffer {
  if (typeof text === 'string' && BASE64.test(text) && text.length % 4 !== 1) return Buffer.from(text, 'base64');
  throw new SqsError('SerializationException', 'A binary value must be base64');
}

// --- answers ---

/** Members that are undefined are left out; `value` is what the shape says. */
export function writeJson<S extends StructureShape>(shape: S, value: ValueOf<S>): string {
  return write(shape, value);
}

function write(shape: Shape, value: unknown): string {
  switch (shape.type) {
    case 'string':
      return JSON.stringify(value);
    case 'integer':
    case 'long':
    case 'boolean':
      return String(value);
    case 'blob':
      return `"${(value as Buffer).toString('base64')}"`;
    case 'list': {
      let text = '[';
      for (const item of value as readonly unknown[])
        text += `${text.length > 1 ? ',' : ''}${write(shape.member, item)}`;
      return `${text}]`;
    }
    case 'map': {
      let text = '{';
      for (const [key, item] of value as ReadonlyMap<string, unknown>) {
        text += `${text.length > 1 ? ',' : ''}${JSON.stringify(key)}:${write(shape.value, item)}`;
      }
      return `${text}}`;
    }
    case 'structure': {
      const given = value as Readonly<Record<string, unknown>>;
      let text = '{';
      for (const name in shape.members) {
        const member = given[name];
        if (member === undefined) continue;
        text += `${text.length > 1 ? ',' : ''}"${name}":${write(shape.members[name].shape, member)}`;
      }
      return `${text}}`;
    }
  }
}

export function jsonError({ code, message }: SqsError): string {
  const space = CORAL.has(code) ? 'com.amazon.coral.service' : 'com.amazonaws.sqs';
  return JSON.stringify({ __type: `${space}#${code}`, message });
}

/** Value of the header `x-amzn-query-error`, from which SDKs take the code of before the JSON protocol. */
export function queryErrorHeader({ code, isSenderFault }: SqsError): string {
  return `${sqsErrors[code].query};${isSenderFault ? 'Sender' : 'Receiver'}`;
}
