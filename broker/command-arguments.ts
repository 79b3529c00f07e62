/**
 * Commands of operators as JSON (`queue-commands.ts`, `directory-commands.ts`): an object with `command` and its arguments,
 * answered by an object. Unknown arguments are refused, so that a typing error does nothing.
 */
import { MillraceError } from '../protocol/errors.ts';
import type { Operation, ResourceType } from './access.ts';

/** Whether whoever asks may do this. */
export type Allows = (operation: Operation, type: ResourceType, name: string) => boolean;
export type Answer = Readonly<Record<string, unknown>>;
export type Arguments = Readonly<Record<string, unknown>>;

/** Of a command as text: a filter and settings at their longest are far below. */
const COMMAND_BYTES_MAX = 1024 * 1024;

/** Runs a command that is text: `{"answer":…}` or `{"error":{"code":…,"message":…}}`. Fails only for what nobody expected. */
export async function runText(text: Uint8Array, run: (request: unknown) => Promise<Answer>): Promise<Buffer> {
  try {
    if (text.length > COMMAND_BYTES_MAX) throw invalid(`a command of ${text.length} bytes`);
    return Buffer.from(JSON.stringify({ answer: await run(parse(text)) }));
  } catch (error) {
    if (!(error instanceof MillraceError)) throw error;
    return Buffer.from(JSON.stringify({ error: { code: error.code, message: error.message } }));
  }
}

function parse(text: Uint8Array): unknown {
  try {
    return JSON.parse(Buffer.from(text.buffer, text.byteOffset, text.length).toString());
  } catch (cause) {
    throw new MillraceError('INVALID_REQUEST', 'a command is not JSON', { cause });
  }
}

/** Name and arguments of a command of the table, which has the arguments of each. INVALID_REQUEST. */
export function checkedCommand<Name extends string>(
  request: unknown,
  table: Readonly<Record<Name, readonly string[]>>,
): { readonly name: Name; readonly args: Arguments } {
  if (typeof request !== 'object' || request === null) throw invalid('a command is an object');
  // Looked at argument by argument.
  const args = request as Arguments;
  const { command } = args;
  const isKnown = typeof command === 'string' && Object.hasOwn(table, command);
  if (!isKnown) throw invalid(`there is no command '${String(command)}'; there are ${Object.keys(table).join(', ')}`);
  // A key of the table, by the check before it.
  const name = command as Name;
  for (const key of Object.keys(args)) {
    if (key !== 'command' && !table[name].includes(key)) throw invalid(`${name} has no argument '${key}'`);
  }
  return { name, args };
}

export function optionalText(args: Arguments, name: string): string | undefined {
  const value = args[name];
  if (value === undefined || value === null) return undefined;
  if (typeof value !== 'string' || value === '') throw invalid(`${name} must be text, not ${JSON.stringify(value)}`);
  return value;
}
export function requiredText(args: Arguments, name: string): string {
  const value = optionalText(args, name);
  if (value === undefined) throw invalid(`${name} is missing`);
  return value;
}
export function texts(args: Arguments, name: string): string[] | undefined {
  const value = args[name];
  if (value === undefined || value === null) return undefined;
  if (!Array.isArray(value) || value.some((text) => typeof text !== 'string'))
    throw invalid(`${name} must be a list of texts`);
  return value;
}
export function wholeNumber(args: Arguments, name: string, min: number, max: number): number | undefined {
  const value = args[name];
  if (value === undefined || value === null) return undefined;
  if (typeof value === 'number' && Number.isSafeInteger(value) && value >= min && value <= max) return value;
  throw invalid(`${name} must be a whole number from ${min} to ${max}, not ${JSON.stringify(value)}`);
}
export function flag(args: Arguments, name: string): boolean {
  const value = args[name] ?? false;
  if (typeof value !== 'boolean') throw invalid(`${name} must be true or false, not ${JSON.stringify(value)}`);
  return value;
}

export function invalid(message: string): MillraceError {
  return new MillraceError('INVALID_REQUEST', message);
}
