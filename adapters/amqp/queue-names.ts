/**
 * What a queue of AMQP is called among queues and topics of the broker, where names are `[a-zA-Z0-9._-]{1,249}`.
 *
 *   vhost '/', a name that a topic may bear   the name itself
 *   everything else                           amq.escaped.VHOST.NAME   bytes other than [a-zA-Z0-9.] as -XX, in VHOST '.' too
 *   where that is too long                    amq.hashed.HASH.BEGINNING
 *
 * No client can declare names of these two forms, as AMQP's own prefix is reserved. No `_` is ever made, so that no two of
 * them differ only in '.' and '_', which topics must not. The first form can be read back by this rule; the other is known
 * by the facts that the door keeps of its durable queues.
 */
import { createHash } from 'node:crypto';
import { isReservedName, topicNameProblem } from '../../broker/topic-names.ts';

export const DEFAULT_VHOST = '/';
const ESCAPED = 'amq.escaped.';
const HASHED = 'amq.hashed.';
const NAME_MAX = 249;
const HASH_CHARACTERS = 32;

/** The name itself where it may be, else an escaped one. */
export function registryName(vhost: string, name: string): string {
  const isPlain =
    vhost === DEFAULT_VHOST &&
    topicNameProblem(name) === undefined &&
    !isReservedName(name) &&
    !name.startsWith(ESCAPED) &&
    !name.startsWith(HASHED);
  return isPlain ? name : escapedName(vhost, name);
}

/** Also for a plain name that a topic cannot bear because it differs from another's only in '.' and '_'. */
export function escapedName(vhost: string, name: string): string {
  const escaped = escape(name, /[a-zA-Z0-9.]/);
  const readable = `${ESCAPED}${escape(vhost, /[a-zA-Z0-9]/)}.${escaped}`;
  if (readable.length <= NAME_MAX) return readable;
  const hash = createHash('sha256').update(`${vhost}\0${name}`).digest('hex').slice(0, HASH_CHARACTERS);
  return `${HASHED}${hash}.${escaped}`.slice(0, NAME_MAX);
}

function escape(text: string, plain: RegExp): string {
  let escaped = '';
  for (const byte of Buffer.from(text)) {
    const character = String.fromCharCode(byte);
    escaped += plain.test(character) ? character : `-${byte.toString(16).padStart(2, '0').toUpperCase()}`;
  }
  return escaped;
}
