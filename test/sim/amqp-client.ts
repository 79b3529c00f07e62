/** An AMQP client without a socket or promises, for simulations: one connection, one channel, answers as they come. */
import {
  bodyFrames,
  contentHeaderFrame,
  FRAME_BODY,
  FRAME_HEADER,
  FRAME_METHOD,
  FrameReader,
  methodFrame,
  methodOf,
} from '../../protocol/amqp/frame.ts';
import type { Method, MethodInit } from '../../protocol/amqp/methods.ts';
import { type Properties, readContentHeader, writeProperties } from '../../protocol/amqp/properties.ts';
import { Reader } from '../../protocol/bytes.ts';
import type { Accept, Transport, TransportHandler } from '../../broker/server.ts';
import { handshake } from '../support/amqp-client.ts';

const FRAME_BYTES = 131_072;

export interface AmqpEvents {
  /** Every method of the channel; that of a message with its body. */
  onMethod(method: Method, body: string): void;
  /** The connection has ended. */
  onEnd?(): void;
}

export class AmqpClient implements Transport {
  readonly localHost = '127.0.0.1';
  readonly localPort = 5672;
  readonly remoteHost = '127.0.0.1';
  readonly remotePort = 40_000;
  isOver = false;
  readonly #events: AmqpEvents;
  readonly #reader = new FrameReader(0);
  readonly #handler: TransportHandler;
  #message: { method: Method; leftBytes: number; pieces: Buffer[] } | undefined;

  constructor(accept: Accept, events: AmqpEvents) {
    this.#events = events;
    this.#handler = accept(this);
    for (const frame of handshake) this.#give(frame);
    this.send({ method: 'channel.open' } as MethodInit);
  }

  #give(frame: Uint8Array): void {
    if (this.isOver) return;
    // Copy: as the read buffer of a socket, this one is used again at once.
    const bytes = Buffer.from(frame);
    this.#handler.onBytes(bytes);
    bytes.fill(0xee);
  }

  send(method: MethodInit): void {
    this.#give(methodFrame(1, method));
  }

  publish(exchange: string, routingKey: string, text: string, properties: Properties = {}): void {
    const body = Buffer.from(text);
    const frames = [
      methodFrame(1, { method: 'basic.publish', exchange, routingKey }),
      contentHeaderFrame(1, body.length, writeProperties({ deliveryMode: 2, ...properties })),
      ...bodyFrames(1, body, FRAME_BYTES),
    ];
    this.#give(Buffer.concat(frames));
  }

  write(buffers: readonly Uint8Array[], sent: () => void): void {
    for (const buffer of buffers) {
      this.#reader.push(buffer);
      while (!this.isOver && this.#reader.next()) this.#frame();
      this.#reader.keep();
    }
    sent();
  }

  #frame(): void {
    const { type, channel, payload } = this.#reader;
    if (type === FRAME_METHOD && channel === 1) {
      const method = methodOf(payload);
      if (method === undefined) throw new Error('a method that nobody knows');
      const hasContent = method.method === 'basic.deliver' || method.method === 'basic.return';
      if (hasContent) this.#message = { method, leftBytes: 0, pieces: [] };
      else this.#events.onMethod(method, '');
    } else if (type === FRAME_HEADER && this.#message !== undefined) {
      this.#message.leftBytes = readContentHeader(new Reader(payload)).bodyBytes;
      this.#finish();
    } else if (type === FRAME_BODY && this.#message !== undefined) {
      this.#message.pieces.push(Buffer.from(payload));
      this.#message.leftBytes -= payload.length;
      this.#finish();
    }
  }

  #finish(): void {
    const message = this.#message;
    if (message === undefined || message.leftBytes > 0) return;
    this.#message = undefined;
    this.#events.onMethod(message.method, Buffer.concat(message.pieces).toString());
  }

  pause(): void {}
  resume(): void {}
  end(): void {
    this.destroy();
  }
  destroy(): void {
    if (this.isOver) return;
    this.isOver = true;
    this.#handler.onClose();
    this.#events.onEnd?.();
  }

  /** Its broker is gone: nothing is told or sent any more. */
  lost(): void {
    this.isOver = true;
  }
}
