/** The AMQP door on the engine in memory, without sockets: what a test sends and what it gets is bytes and methods. */
import { AmqpDoor } from '../../adapters/amqp/door.ts';
import type { Transport, TransportHandler } from '../../broker/server.ts';
import { FRAME_METHOD, FrameReader, methodFrame, methodOf, PROTOCOL_HEADER } from '../../protocol/amqp/frame.ts';
import type { Method, MethodInit } from '../../protocol/amqp/methods.ts';
import { NO_TABLE } from '../../protocol/amqp/table.ts';
import { type MemoryBroker, openMemoryBroker } from './memory-broker.ts';

export interface MemoryAmqp extends MemoryBroker {
  readonly door: AmqpDoor;
  /** What the alarm of memory looks at. */
  readonly memoryInUse: { bytes: number };
  /** A peer whose connection has sent nothing yet. */
  peer(remoteHost?: string): AmqpPeer;
}

export async function openMemoryAmqp(
  values: Record<string, string | number | boolean> = {},
  durability: 'at once' | 'manual' = 'at once',
): Promise<MemoryAmqp> {
  const memory = await openMemoryBroker(values, durability);
  const { engine, clock, reports, broker } = memory;
  const { random, options, topics, queues, queueReader: reader, directory, access } = broker;
  const report = (message: string, error: unknown): void => void reports.push(`${message}: ${String(error)}`);
  const memoryInUse = { bytes: 0 };
  const memoryBytes = (): number => memoryInUse.bytes;
  const parts = { engine, clock, random, options, topics, queues, directory, access, reader, memoryBytes, report };
  const door = new AmqpDoor(parts);
  await door.load();
  if (durability === 'manual') engine.sync();
  return { ...memory, door, memoryInUse, peer: (remoteHost) => new AmqpPeer(door, remoteHost) };
}

/** What a client sends to open a connection. */
export const handshake: readonly Buffer[] = [
  PROTOCOL_HEADER,
  methodFrame(0, {
    method: 'connection.start-ok',
    clientProperties: NO_TABLE,
    mechanism: 'PLAIN',
    response: Buffer.from('\0guest\0guest'),
    locale: 'en_US',
  }),
  methodFrame(0, { method: 'connection.tune-ok', channelMax: 2047, frameMax: 131_072, heartbeat: 0 }),
  methodFrame(0, { method: 'connection.open', virtualHost: '/' }),
];

export class AmqpPeer implements Transport {
  readonly localHost = '127.0.0.1';
  readonly localPort = 5672;
  readonly remoteHost: string;
  readonly remotePort = 40_000;
  isPaused = false;
  isEnded = false;
  isDestroyed = false;
  /** False: what is sent to it is taken by nobody until `read`. */
  isReading = true;
  readonly #unread: (() => void)[] = [];
  /** Everything that was sent to it. */
  received = Buffer.alloc(0);
  readonly #handler: TransportHandler;

  constructor(door: AmqpDoor, remoteHost = '127.0.0.1') {
    this.remoteHost = remoteHost;
    this.#handler = door.accept(this);
  }

  send(...frames: (Uint8Array | MethodInit)[]): void {
    for (const frame of frames) {
      if (this.isDestroyed) return;
      // Copy: as the read buffer of a socket, this one is used again at once.
      const bytes = Buffer.from(
        frame instanceof Uint8Array ? frame : methodFrame(frame.method.startsWith('connection.') ? 0 : 1, frame),
      );
      this.#handler.onBytes(bytes);
      bytes.fill(0xee);
    }
  }
  write(buffers: readonly Uint8Array[], sent: () => void): void {
    this.received = Buffer.concat([this.received, ...buffers]);
    if (this.isReading) sent();
    else this.#unread.push(sent);
  }
  /** Takes everything, from now on at once. */
  read(): void {
    this.isReading = true;
    for (const sent of this.#unread.splice(0)) sent();
  }
  pause(): void {
    this.isPaused = true;
  }
  resume(): void {
    this.isPaused = false;
  }
  end(): void {
    this.isEnded = true;
    this.destroy();
  }
  destroy(): void {
    if (this.isDestroyed) return;
    this.isDestroyed = true;
    this.#handler.onClose();
  }

  /** Frames so far: methods, or the type of what is none. */
  frames(): { channel: number; method: Method | undefined; type: number; payload: Buffer }[] {
    const reader = new FrameReader(0);
    reader.push(this.received);
    const frames: { channel: number; method: Method | undefined; type: number; payload: Buffer }[] = [];
    while (reader.next()) {
      const { type, channel, payload } = reader;
      frames.push({ channel, type, payload, method: type === FRAME_METHOD ? methodOf(payload) : undefined });
    }
    return frames;
  }
  methods(): string[] {
    return this.frames().map(({ method, type }) => method?.method ?? `type ${type}`);
  }
  /** Code and text of the close that it was told, of a channel or the connection. */
  get closeText(): string | undefined {
    for (const { method } of this.frames()) {
      if (method?.method === 'connection.close' || method?.method === 'channel.close') {
        return `${method.replyCode} ${method.replyText}`;
      }
    }
    return undefined;
  }
}
