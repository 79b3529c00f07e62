/**
 * Which messages a job takes: a list of simple predicates, all of which must hold. `FIELD=VALUE` or `FIELD!=VALUE` with
 *
 *   key             the record's key              header.NAME   a header's value, as text
 *   reason, queue   of the newest death           origin        topic where a dead letter was first appended
 */
import { MillraceError } from '../protocol/errors.ts';
import { deathHistory, messageOrigin } from './queue-attributes.ts';
import type { QueuedRecord } from './queue-reader.ts';

/** More would be a program. */
const PREDICATES_MAX = 32;
const HEADER = 'header.';
const FIELDS: readonly string[] = ['key', 'reason', 'queue', 'origin'];

interface Predicate {
  readonly field: string;
  readonly isEqual: boolean;
  readonly value: string;
}

export interface MessageFilter {
  /** As given. */
  readonly texts: readonly string[];
  matches(record: QueuedRecord): boolean;
}

/** INVALID_REQUEST for a predicate that is not understood. */
export function messageFilter(texts: readonly string[]): MessageFilter {
  if (texts.length > PREDICATES_MAX) {
    throw new MillraceError('INVALID_REQUEST', `${texts.length} predicates in a filter, at most ${PREDICATES_MAX}`);
  }
  const predicates = texts.map(parse);
  return { texts, matches: (record) => predicates.every((predicate) => holds(predicate, record)) };
}

function parse(text: string): Predicate {
  // A header's name may have '=' in it only after the sign that ends it, which is the first.
  const at = text.indexOf('=');
  const isEqual = at > 0 && text[at - 1] !== '!';
  const field = text.slice(0, isEqual ? at : at - 1);
  const isKnown = FIELDS.includes(field) || (field.startsWith(HEADER) && field.length > HEADER.length);
  if (at > 0 && isKnown) return { field, isEqual, value: text.slice(at + 1) };
  throw new MillraceError(
    'INVALID_REQUEST',
    `filter '${text}' is not FIELD=VALUE or FIELD!=VALUE with a field of ${FIELDS.join(', ')}, header.NAME`,
  );
}

function holds({ field, isEqual, value }: Predicate, record: QueuedRecord): boolean {
  return (valueOf(field, record) === value) === isEqual;
}

function valueOf(field: string, record: QueuedRecord): string | undefined {
  switch (field) {
    case 'key':
      return record.key?.toString();
    case 'reason':
      return deathHistory(record.headers)?.deaths[0].reason;
    case 'queue':
      return deathHistory(record.headers)?.deaths[0].queue;
    case 'origin':
      return messageOrigin(record.headers)?.topic;
    default:
      return record.headers.findLast(({ key }) => key === field.slice(HEADER.length))?.value?.toString();
  }
}
