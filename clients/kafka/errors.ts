/**
 * What can go wrong between a client and a cluster: the cluster answers an error (a `MillraceError` with the code of
 * Kafka's number), or there is no answer (`ConnectionError`).
 */
import { type ErrorCode, MillraceError, errors } from '../../protocol/errors.ts';

/** No connection, a lost one, or no answer in time. The request may or may not have been carried out. */
export class ConnectionError extends Error {
  override readonly name = 'ConnectionError';
}

const codeByNumber = new Map<number, ErrorCode>();
for (const code of Object.keys(errors) as ErrorCode[]) {
  // The first code of a number is its name on the wire; -1 is shared by codes that never leave a process.
  if (!codeByNumber.has(errors[code].kafka)) codeByNumber.set(errors[code].kafka, code);
}

/** The error for Kafka's `errorCode`; `what` says what was tried and on what, `detail` is what the cluster said. */
export function kafkaError(errorCode: number, what: string, detail?: string | null): MillraceError {
  const code = codeByNumber.get(errorCode);
  if (!code) return new MillraceError('UNKNOWN_SERVER_ERROR', `${what}: ${detail ?? `error ${errorCode}`}`);
  return new MillraceError(code, `${what}: ${detail ?? errors[code].text} (${code})`);
}

/** Throws unless `errorCode` is 0. */
export function throwOnError(errorCode: number, what: string, detail?: string | null): void {
  if (errorCode !== 0) throw kafkaError(errorCode, what, detail);
}

/** Whether the same request may succeed later without change. */
export function isRetriable(error: unknown): boolean {
  if (error instanceof ConnectionError) return true;
  return error instanceof MillraceError && errors[error.code].isRetriable;
}
