/**
 * What goes wrong in AMQP's own terms (section 1.2 of the specification and RabbitMQ's use of it): a reply code and whether
 * the channel or the whole connection ends. Texts are RabbitMQ's where it has the case.
 */
import type { MillraceError } from '../../protocol/errors.ts';

/** Soft errors end the channel, hard ones the connection. */
const softReplies = {
  CONTENT_TOO_LARGE: 311,
  NO_ROUTE: 312,
  NO_CONSUMERS: 313,
  ACCESS_REFUSED: 403,
  NOT_FOUND: 404,
  RESOURCE_LOCKED: 405,
  PRECONDITION_FAILED: 406,
} as const;
const hardReplies = {
  CONNECTION_FORCED: 320,
  INVALID_PATH: 402,
  FRAME_ERROR: 501,
  SYNTAX_ERROR: 502,
  COMMAND_INVALID: 503,
  CHANNEL_ERROR: 504,
  UNEXPECTED_FRAME: 505,
  RESOURCE_ERROR: 506,
  NOT_ALLOWED: 530,
  NOT_IMPLEMENTED: 540,
  INTERNAL_ERROR: 541,
} as const;

export type SoftReply = keyof typeof softReplies;
export type HardReply = keyof typeof hardReplies;

/** Ends a channel, or the connection. `message` is the reply text: the name of the code and what was wrong. */
export class AmqpError extends Error {
  override readonly name = 'AmqpError';
  readonly replyCode: number;
  readonly isHard: boolean;

  constructor(reply: SoftReply | HardReply, text: string) {
    super(`${reply} - ${text}`);
    this.isHard = reply in hardReplies;
    // One of the two tables has it, by the type of `reply`.
    this.replyCode = this.isHard ? hardReplies[reply as HardReply] : softReplies[reply as SoftReply];
  }
}

/** What an expected failure of the broker is to an AMQP client. */
export function amqpErrorOf(error: MillraceError): AmqpError {
  switch (error.code) {
    case 'QUEUE_NOT_FOUND':
    case 'UNKNOWN_TOPIC_OR_PARTITION':
      return new AmqpError('NOT_FOUND', error.message);
    case 'KAFKA_STORAGE_ERROR':
    case 'STOPPING':
      return new AmqpError('RESOURCE_ERROR', error.message);
    case 'UNKNOWN_SERVER_ERROR':
      return new AmqpError('INTERNAL_ERROR', error.message);
    default:
      return new AmqpError('PRECONDITION_FAILED', error.message);
  }
}

/** An ack of a message that waits for none. */
export function unknownTag(tag: number): AmqpError {
  return new AmqpError('PRECONDITION_FAILED', `unknown delivery tag ${tag}`);
}
