/**
 * Direct reply-to (RabbitMQ's extension): a client that consumes from `amq.rabbitmq.reply-to` gets the replies to its
 * requests straight from the channel that publishes them. There is no queue and no log: a reply to a channel that has ended,
 * or whose client does not read, is lost.
 */
import type { Random } from '../../storage/clock.ts';

/** What requests name and consumers consume from. */
export const REPLY_TO = 'amq.rabbitmq.reply-to';
const PREFIX = `${REPLY_TO}.`;

/** A reply on its way. Its bytes are valid during the call. */
export interface Reply {
  readonly exchange: string;
  readonly routingKey: string;
  readonly propertyBytes: Buffer;
  readonly body: Buffer;
}

export interface ReplyReceiver {
  reply(reply: Reply): void;
}

/** The receivers of a door. */
export class DirectReplies {
  readonly #random: Random;
  readonly #receivers = new Map<string, ReplyReceiver>();

  constructor(random: Random) {
    this.#random = random;
  }

  /** Answers the name that leads to this receiver: who knows it may reply. */
  open(receiver: ReplyReceiver): string {
    const name = `${PREFIX}${Buffer.from(this.#random.fill(new Uint8Array(16))).toString('base64url')}`;
    this.#receivers.set(name, receiver);
    return name;
  }
  close(name: string): void {
    this.#receivers.delete(name);
  }

  /** Whether a declaration of this name is about a receiver, and not a queue. */
  isName(name: string): boolean {
    return name === REPLY_TO || name.startsWith(PREFIX);
  }
  find(name: string): ReplyReceiver | undefined {
    return this.#receivers.get(name);
  }
  /** A queue name of the default exchange that leads to a channel. */
  isReply(name: string): boolean {
    return name.startsWith(PREFIX);
  }
}
