/** An expected failure in the two fields most admin answers have for it. */
import { errors, MillraceError } from '../../protocol/errors.ts';

/** Messages quote what the client sent; a string of the old versions holds 32,767 bytes, of up to three a character. */
const MESSAGE_LENGTH_MAX = 8_000;

/** Code and message of a `MillraceError`; anything else goes on up. */
export function failureOf(error: unknown): { errorCode: number; errorMessage: string } {
  if (!(error instanceof MillraceError)) throw error;
  const { code, message } = error;
  const errorMessage = message.length <= MESSAGE_LENGTH_MAX ? message : `${message.slice(0, MESSAGE_LENGTH_MAX)}…`;
  return { errorCode: errors[code].kafka, errorMessage };
}
