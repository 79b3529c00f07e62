/**
 * An AMQP client inside the broker: what a request of the API does to queues, exchanges and messages it does as its user
 * over a connection of the AMQP door, so permissions, checks and texts are those of the door. One channel, one request at
 * a time.
 */
import {
  bodyFrames,
  contentHeaderFrame,
  FRAME_BODY,
  FRAME_HEADER,
  FRAME_METHOD,
  FrameReader,
  methodFrame,
  methodOf,
  PROTOCOL_HEADER,
} from '../../protocol/amqp/frame.ts';
import type { Method, MethodInit } from '../../protocol/amqp/methods.ts';
import { readContentHeader, writeProperties, type Properties } from '../../protocol/amqp/properties.ts';
import { Reader } from '../../protocol/bytes.ts';
import type { Clock, Timer } from '../../storage/clock.ts';
import type { Accept, Transport, TransportHandler } from '../../broker/server.ts';

const CHANNEL = 1;
/** An answer that has not come by then does not come: the queue waits for something. */
const ANSWER_MS = 30_000;

/** The door has closed the channel or the connection. */
export class DirectRefusal extends Error {
  override readonly name = 'DirectRefusal';
  readonly replyCode: number;
  /** Without the name of the code. */
  readonly explanation: string;

  constructor(replyCode: number, replyText: string) {
    super(`${replyCode} ${replyText}`);
    this.replyCode = replyCode;
    this.explanation = replyText.replace(/^[A-Z_]+ - /, '');
  }
}

export interface DirectOptions {
  readonly accept: Accept;
  readonly clock: Clock;
  readonly user: string;
  readonly password: string;
  readonly vhost: string;
  /** Of who asks. */
  readonly remoteHost: string;
}

/** An answer, with what it carries. */
export interface Answer {
  readonly method: Method;
  readonly properties: Buffer;
  readonly body: Buffer;
}

const NOTHING = Buffer.alloc(0);

export class DirectClient {
  readonly #clock: Clock;
  readonly #handler: TransportHandler;
  readonly #frames = new FrameReader(0);
  #frameBytesMax = 0;
  #waiting: { resolve: (answer: Answer) => void; reject: (error: Error) => void; timer: Timer } | undefined;
  /** What came while nobody waited. */
  readonly #early: Answer[] = [];
  #failure: Error | undefined;
  /** A method whose content is on its way. */
  #content:
    | { method: Method; properties: Buffer | undefined; bodyBytes: number; pieces: Buffer[]; receivedBytes: number }
    | undefined;

  private constructor({ accept, clock, remoteHost }: DirectOptions) {
    this.#clock = clock;
    const transport: Transport = {
      localHost: 'localhost',
      localPort: 0,
      remoteHost,
      remotePort: 0,
      write: (buffers, sent) => {
        for (const buffer of buffers) this.#receive(buffer);
        clock.endOfTurn(sent);
      },
      // One request at a time needs no holding back.
      pause: () => {},
      resume: () => {},
      end: () => this.#ended(),
      destroy: () => this.#ended(),
    };
    this.#handler = accept(transport);
  }

  /** Connection and channel, opened. `DirectRefusal` if the door does not want this user in this vhost. */
  static async open(options: DirectOptions): Promise<DirectClient> {
    const client = new DirectClient(options);
    const { user, password, vhost } = options;
    client.#handler.onBytes(PROTOCOL_HEADER);
    await client.#next();
    const response = Buffer.from(`\0${user}\0${password}`);
    const yes = { type: 't', value: true } as const;
    const clientProperties = [['capabilities', { type: 'F', value: [['authentication_failure_close', yes]] }]] as const;
    const { method: tune } = await client.#ask(0, {
      method: 'connection.start-ok',
      clientProperties,
      mechanism: 'PLAIN',
      response,
      locale: 'en_US',
    });
    if (tune.method !== 'connection.tune') throw new Error(`connection.tune was expected, not ${tune.method}`);
    const { channelMax, frameMax } = tune;
    client.#frameBytesMax = frameMax;
    client.#send(0, { method: 'connection.tune-ok', channelMax, frameMax, heartbeat: 0 });
    await client.#ask(0, { method: 'connection.open', virtualHost: vhost });
    await client.call({ method: 'channel.open' });
    return client;
  }

  /** Resolves with the answer. `DirectRefusal`. */
  call(method: MethodInit): Promise<Answer> {
    return this.#ask(CHANNEL, method);
  }

  /** Sends; nothing answers. */
  tell(method: MethodInit): void {
    this.#send(CHANNEL, method);
  }

  /** In confirm mode; resolves when the message is safe. */
  async publish(
    to: { exchange: string; routingKey: string },
    properties: Properties,
    body: Buffer,
  ): Promise<{ isConfirmed: boolean; isRouted: boolean }> {
    await this.call({ method: 'confirm.select' });
    const bytes = writeProperties(properties);
    this.#send(CHANNEL, { method: 'basic.publish', ...to, mandatory: true });
    this.#handler.onBytes(contentHeaderFrame(CHANNEL, body.length, bytes));
    for (const frame of bodyFrames(CHANNEL, body, this.#frameBytesMax)) this.#handler.onBytes(frame);
    let isRouted = true;
    for (;;) {
      const { method } = await this.#next();
      if (method.method === 'basic.return') isRouted = false;
      if (method.method === 'basic.ack') return { isConfirmed: true, isRouted };
      if (method.method === 'basic.nack') return { isConfirmed: false, isRouted };
    }
  }

  /** Ends the connection; what it holds goes back. */
  async close(): Promise<void> {
    if (this.#failure !== undefined) return;
    await this.#ask(0, { method: 'connection.close', replyCode: 200, replyText: 'done', classId: 0, methodId: 0 });
    this.#failure = new Error('the connection is closed');
    this.#handler.onClose();
  }

  #ask(channel: number, method: MethodInit): Promise<Answer> {
    this.#send(channel, method);
    return this.#next();
  }

  #send(channel: number, method: MethodInit): void {
    if (this.#failure === undefined) this.#handler.onBytes(methodFrame(channel, method));
  }

  #next(): Promise<Answer> {
    const early = this.#early.shift();
    if (early !== undefined) return Promise.resolve(early);
    if (this.#failure !== undefined) return Promise.reject(this.#failure);
    return new Promise((resolve, reject) => {
      const timer = this.#clock.after(ANSWER_MS, () =>
        this.#fail(new DirectRefusal(541, 'INTERNAL_ERROR - no answer in time')),
      );
      this.#waiting = { resolve, reject, timer };
    });
  }

  #ended(): void {
    this.#fail(new DirectRefusal(320, 'CONNECTION_FORCED - the connection has ended'));
  }

  #fail(error: Error): void {
    if (this.#failure !== undefined) return;
    this.#failure = error;
    this.#clock.endOfTurn(() => this.#handler.onClose());
    this.#waiting?.timer.cancel();
    this.#waiting?.reject(error);
    this.#waiting = undefined;
  }

  #receive(bytes: Uint8Array): void {
    this.#frames.push(bytes);
    while (this.#failure === undefined && this.#frames.next()) {
      const { type, payload } = this.#frames;
      // Copy: what is answered outlives the buffer.
      if (type === FRAME_METHOD) this.#onMethod(methodOf(Buffer.from(payload)));
      else if (type === FRAME_HEADER || type === FRAME_BODY) this.#onContent(type, Buffer.from(payload));
    }
  }

  #onMethod(method: Method | undefined): void {
    if (method === undefined) return;
    switch (method.method) {
      case 'connection.blocked':
      case 'connection.unblocked':
        return;
      case 'basic.get-ok':
      case 'basic.return':
        this.#content = { method, properties: undefined, bodyBytes: 0, pieces: [], receivedBytes: 0 };
        return;
      case 'channel.close':
      case 'connection.close':
        return this.#fail(new DirectRefusal(method.replyCode, method.replyText));
      default:
        return this.#answered({ method, properties: NOTHING, body: NOTHING });
    }
  }

  #onContent(type: number, payload: Buffer): void {
    const content = this.#content;
    if (content === undefined) return;
    if (type === FRAME_HEADER) {
      const { properties, bodyBytes } = readContentHeader(new Reader(payload));
      content.properties = properties;
      content.bodyBytes = bodyBytes;
    } else {
      content.pieces.push(payload);
      content.receivedBytes += payload.length;
    }
    if (content.receivedBytes < content.bodyBytes) return;
    this.#content = undefined;
    const { method, properties, pieces } = content;
    this.#answered({ method, properties: properties ?? NOTHING, body: Buffer.concat(pieces) });
  }

  #answered(answer: Answer): void {
    const waiting = this.#waiting;
    if (waiting === undefined) {
      this.#early.push(answer);
      return;
    }
    this.#waiting = undefined;
    waiting.timer.cancel();
    waiting.resolve(answer);
  }
}
