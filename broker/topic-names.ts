/** Which names a topic may have: Kafka's rule, and ours that names starting with `__` belong to the broker. */
import { MillraceError } from '../protocol/errors.ts';

const NAME_MAX = 249;
const ALLOWED = /^[a-zA-Z0-9._-]+$/;

/** Names that only the broker gives to topics. */
export function isReservedName(name: string): boolean {
  return name.startsWith('__');
}

/** What is wrong with the name by Kafka's rule, in Kafka's words; undefined if nothing. */
export function topicNameProblem(name: string): string | undefined {
  if (name === '') return 'Topic name is invalid: the empty string is not allowed';
  if (name === '.' || name === '..') return `Topic name is invalid: '${name}' is not allowed`;
  if (name.length > NAME_MAX)
    return `Topic name is invalid: the length of '${name}' is longer than the max allowed length ${NAME_MAX}`;
  if (!ALLOWED.test(name))
    return `Topic name is invalid: '${name}' contains one or more characters other than ASCII alphanumerics, '.', '_' and '-'`;
  return undefined;
}

/** INVALID_TOPIC_EXCEPTION if a client may not create a topic of this name. */
export function checkNewName(name: string): void {
  const problem = topicNameProblem(name);
  if (problem !== undefined) throw new MillraceError('INVALID_TOPIC_EXCEPTION', problem);
  if (isReservedName(name)) {
    throw new MillraceError(
      'INVALID_TOPIC_EXCEPTION',
      `Topic name is invalid: names that start with '__', as '${name}' does, belong to the broker`,
    );
  }
}
