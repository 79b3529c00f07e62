/** Which texts SQS allows where. */
import { limits } from './actions.ts';

const BATCH_ID = /^[A-Za-z0-9_-]{1,80}$/;
/** Of deduplication and group ids: letters, digits and the punctuation of ASCII. */
const ID = /^[A-Za-z0-9!"#$%&'()*+,\-./:;<=>?@[\\\]^_`{|}~]{1,128}$/;
const QUEUE_NAME = /^[A-Za-z0-9_-]{1,80}$/;
export const FIFO_SUFFIX = '.fifo';
const ATTRIBUTE_NAME = /^[A-Za-z0-9_.-]+$/;
const RESERVED_PREFIX = /^(aws|amazon)\./i;
const ATTRIBUTE_TYPE = /^(String|Number|Binary)(\.[^\s]+)?$/;
const NUMBER = /^\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*$/;

/**
 * The character rule of bodies and text attributes (that of XML 1.0): #x9, #xA, #xD, #x20–#xD7FF, #xE000–#xFFFD,
 * #x10000–#x10FFFF.
 */
export function isAllowedText(text: string): boolean {
  for (let at = 0; at < text.length; at++) {
    const code = text.charCodeAt(at);
    if (code >= 0x20 && code < 0xd800) continue;
    if (code < 0x20) {
      if (code !== 0x9 && code !== 0xa && code !== 0xd) return false;
    } else if (code < 0xdc00) {
      const low = text.charCodeAt(++at);
      if (!(low >= 0xdc00 && low <= 0xdfff)) return false;
    } else if (code < 0xe000 || code > 0xfffd) return false;
  }
  return true;
}

export const isBatchId = (id: string): boolean => BATCH_ID.test(id);
/** Of `MessageDeduplicationId`, `MessageGroupId` and `ReceiveRequestAttemptId`. */
export const isId = (id: string): boolean => ID.test(id);

/** The suffix `.fifo` counts. */
export function isQueueName(name: string): boolean {
  if (name.length > limits.queueNameCharactersMax) return false;
  return QUEUE_NAME.test(name.endsWith(FIFO_SUFFIX) ? name.slice(0, -FIFO_SUFFIX.length) : name);
}

/** Undefined: the name of a message attribute is allowed. */
export function attributeNameProblem(name: string): string | undefined {
  if (name.length > limits.attributeNameCharactersMax) return 'is longer than 256 characters';
  if (!ATTRIBUTE_NAME.test(name)) return 'may have letters, digits, underscore, hyphen and period only';
  if (name.startsWith('.') || name.endsWith('.') || name.includes('..')) return 'has a period in the wrong place';
  if (RESERVED_PREFIX.test(name)) return "begins with a reserved prefix ('AWS.' or 'Amazon.')";
  return undefined;
}

export const isAttributeType = (type: string): boolean =>
  type.length <= limits.attributeTypeCharactersMax && ATTRIBUTE_TYPE.test(type);

/** Up to 38 digits between 10^-128 and 10^126, which nobody has seen refused: only what is no number is. */
export const isNumberText = (text: string): boolean => NUMBER.test(text);
