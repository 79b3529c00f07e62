/** What the commands about queues have in common: how they print, and what they say of a queue that is not there. */
import { MillraceError } from '../../protocol/errors.ts';
import { type Args, CommandFailure, type Flag, UsageError, wholeNumber } from './command.ts';

export const outputFlag = {
  output: { value: 'FORMAT', short: 'o', help: 'table, or json: one JSON object a line (default table)' },
} as const satisfies Record<string, Flag>;

/** Whether programs read the output. */
export function isJson(args: Args): boolean {
  const format = args.text('output') ?? 'table';
  if (format !== 'table' && format !== 'json') throw new UsageError(`--output takes table or json, not '${format}'`);
  return format === 'json';
}

export function optionalNumber(args: Args, flag: string, min: number): number | undefined {
  const text = args.text(flag);
  return text === undefined ? undefined : wholeNumber(`--${flag}`, text, min);
}

/** Runs `work`; says where queues are listed if there is none of this name. */
export async function onQueue<T>(work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    if (isCode(error, 'QUEUE_NOT_FOUND')) throw noQueue(error);
    throw error;
  }
}

/** Says where queues are listed. */
export function noQueue(error: Error): CommandFailure {
  return new CommandFailure(`${error.message}; 'millrace queue list' shows those that are`);
}

export function isCode(error: unknown, code: MillraceError['code']): error is MillraceError {
  return error instanceof MillraceError && error.code === code;
}
