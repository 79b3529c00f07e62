/** Values of JSON bodies as the API takes them: truth values and numbers may come as text. 400 for what is neither. */
import { badRequest } from './resource.ts';

type Body = Readonly<Record<string, unknown>>;

export function textField(body: Body, name: string, otherwise = ''): string {
  const value = body[name];
  if (value === undefined || value === null) return otherwise;
  if (typeof value !== 'string') throw badRequest(`${name} should be binary, actually was ${JSON.stringify(value)}`);
  return value;
}

export function truthField(body: Body, name: string, otherwise = false): boolean {
  const value = body[name];
  if (value === undefined) return otherwise;
  if (value === true || value === 'true') return true;
  if (value === false || value === 'false') return false;
  throw badRequest(['not_boolean', value]);
}

export function wholeField(body: Body, name: string): number {
  const value = body[name];
  const number = typeof value === 'string' && /^-?\d+$/.test(value) ? Number(value) : value;
  if (typeof number === 'number' && Number.isSafeInteger(number)) return number;
  throw badRequest(['not_integer', value]);
}

/** A list, or text with commas between. */
export function tagsField(value: unknown): string[] {
  const list = typeof value === 'string' ? value.split(',') : Array.isArray(value) ? value.map(String) : [];
  return list.map((tag) => tag.trim()).filter((tag) => tag !== '');
}

export function objectField(body: Body, name: string): Body {
  const value = body[name];
  if (value === undefined || value === null) return {};
  if (Array.isArray(value) && value.length === 0) return {};
  if (typeof value !== 'object' || Array.isArray(value)) throw badRequest(`${name} should be an object`);
  return value as Body;
}

/** JSON as Erlang prints it. */
export function erlangTerm(value: unknown): string {
  if (typeof value === 'string') return `<<"${value}">>`;
  if (Array.isArray(value)) return `[${value.map(erlangTerm).join(',')}]`;
  if (typeof value !== 'object' || value === null) return String(value);
  return `#{${Object.entries(value)
    .map(([name, each]) => `${erlangTerm(name)} => ${erlangTerm(each)}`)
    .join(',')}}`;
}
