/**
 * One AMQP client's connection: a state machine without a socket over the `Transport` seam. Frames in, executed in the
 * order they came; answers out, collected and written once at the end of a turn.
 *
 *   header → start → tune → open → open-ok, then channels, until one side says close and the other close-ok
 *
 * Always true: a frame that is no frame, or that does not fit the state, ends the connection with RabbitMQ's reply code,
 * never the process; nothing of the read buffer is held after `onBytes`. While an answer waits for the disk, or the peer
 * does not read, later frames wait in the reader and the transport is paused.
 */
import {
  FRAME_BODY,
  FRAME_HEARTBEAT,
  FRAME_METHOD,
  FrameReader,
  HEARTBEAT,
  methodFrame,
  methodOf,
  PROTOCOL_HEADER,
} from '../../protocol/amqp/frame.ts';
import { type Method, type MethodInit, methodIds } from '../../protocol/amqp/methods.ts';
import { fieldOf, readTable, type Table, textField, clippedToShortString } from '../../protocol/amqp/table.ts';
import { Reader } from '../../protocol/bytes.ts';
import { MillraceError, ProtocolError } from '../../protocol/errors.ts';
import type { Clock, Timer } from '../../storage/clock.ts';
import type { Options } from '../../broker/config.ts';
import type { Engine } from '../../broker/engine.ts';
import type { QueueReader } from '../../broker/queue-reader.ts';
import type { QueueRegistry } from '../../broker/queues.ts';
import type { Transport, TransportHandler } from '../../broker/server.ts';
import { Channel } from './channel.ts';
import { Publisher } from './publisher.ts';
import { AmqpError, amqpErrorOf } from './reply.ts';
import type { AmqpQueue, Vhost } from './vhost.ts';

const CHANNEL_MAX = 2047;
export const FRAME_BYTES_MAX = 131_072;
/** What a client may negotiate down to. */
const FRAME_BYTES_MIN = 8192;
/** Seconds. */
const HEARTBEAT_SECONDS = 60;
/** RabbitMQ's: from the connect to connection.open. */
const HANDSHAKE_MS = 10_000;
/** For the peer's close-ok. */
const CLOSE_MS = 5_000;
const USER = 'guest';
const PASSWORD = 'guest';
/** Answers up to this size are put together: one small write costs more than the copy. */
const PACK_BYTES_MAX = 16 * 1024;

/** What the door shares between its connections. */
export interface DoorParts {
  readonly engine: Engine;
  readonly clock: Clock;
  readonly options: Options;
  readonly queues: QueueRegistry;
  readonly reader: QueueReader;
  readonly vhost: Vhost;
  readonly version: string;
  /** A line for the operator. */
  readonly report: (message: string, error: unknown) => void;
}

type State = 'header' | 'start' | 'tune' | 'open' | 'running' | 'closing' | 'closed';

export class AmqpConnection implements TransportHandler {
  readonly parts: DoorParts;
  readonly publisher: Publisher;
  readonly user = USER;
  readonly #transport: Transport;
  readonly #frames = new FrameReader(FRAME_BYTES_MAX);
  readonly #channels = new Map<number, Channel>();
  readonly #closeCallbacks: (() => void)[] = [];
  /** Exclusive queues that end with it. */
  readonly exclusiveQueues = new Set<AmqpQueue>();
  #state: State = 'header';
  /** Names of the capabilities that the client says it has. */
  #capabilities: ReadonlySet<string> = new Set();
  #frameBytesMax = FRAME_BYTES_MAX;
  #channelMax = CHANNEL_MAX;
  #heartbeatMs = 0;
  #isRunning = false;
  #parks = 0;
  #isPaused = false;
  #waitsForRoom = false;
  #out: Buffer[] = [];
  #outBytes = 0;
  #isScheduled = false;
  #unsentBytes = 0;
  /** Class and method that were executed last: an error names them. */
  #methodId = 0;
  #receivedMs: number;
  #sentMs: number;
  #timer: Timer;
  #heartbeat: Timer | undefined;

  constructor(transport: Transport, parts: DoorParts) {
    this.#transport = transport;
    this.parts = parts;
    const { engine, clock, queues } = parts;
    this.publisher = new Publisher({
      engine,
      queues,
      refused: (error) => {
        this.fail(amqpErrorOf(error));
      },
    });
    this.#receivedMs = clock.monotonic();
    this.#sentMs = this.#receivedMs;
    this.#timer = clock.after(HANDSHAKE_MS, () => this.#transport.destroy());
  }

  get isClosed(): boolean {
    return this.#state === 'closed';
  }
  /** What an error is about. */
  get currentMethod(): { classId: number; methodId: number } {
    return { classId: this.#methodId >>> 16, methodId: this.#methodId & 0xffff };
  }
  /** Of a whole frame. */
  get frameBytesMax(): number {
    return this.#frameBytesMax;
  }
  can(capability: string): boolean {
    return this.#capabilities.has(capability);
  }
  /** The peer takes more. */
  get hasRoom(): boolean {
    return this.#unsentBytes + this.#outBytes < this.parts.options['connection.unsent.bytes.max'];
  }
  /** Everything that was asked is answered and sent. */
  get isIdle(): boolean {
    return this.#parks === 0 && this.#outBytes === 0 && this.#unsentBytes === 0;
  }

  onClose(): void;
  onClose(callback: () => void): void;
  // One name, two roles: the transport says that it ended, the door asks to be told.
  onClose(callback?: () => void): void {
    if (callback) this.#closeCallbacks.push(callback);
    else this.#closed();
  }

  onEnd(): void {
    this.#transport.end();
  }

  onBytes(chunk: Buffer): void {
    if (this.isClosed) return;
    this.#receivedMs = this.parts.clock.monotonic();
    this.#frames.push(chunk);
    this.#run();
  }

  /** Frames wait until `start` has called `done`, which runs what it is given and goes on. */
  wait(start: (done: (then: () => void) => void) => void): void {
    this.#parks++;
    let isDone = false;
    start((then) => {
      if (isDone) throw new Error('a wait has ended twice');
      isDone = true;
      this.#parks--;
      if (this.isClosed) return;
      this.guard(then);
      this.#run();
    });
  }

  /** Runs what may fail in AMQP's terms: the channel's errors are the channel's, all others end the connection. */
  guard(action: () => void, channel?: Channel): void {
    try {
      action();
    } catch (error) {
      const failure = this.#failureOf(error);
      if (channel !== undefined && !failure.isHard) channel.fail(failure);
      else this.fail(failure);
    }
  }

  #failureOf(error: unknown): AmqpError {
    if (error instanceof AmqpError) return error;
    if (error instanceof ProtocolError) return new AmqpError('SYNTAX_ERROR', error.message);
    if (error instanceof MillraceError) return amqpErrorOf(error);
    this.parts.report('an AMQP connection failed', error);
    return new AmqpError('INTERNAL_ERROR', 'the broker failed in a way it did not expect; its log says more');
  }

  #run(): void {
    if (this.#isRunning || this.isClosed) return;
    this.#isRunning = true;
    try {
      let isEmpty = false;
      while (!isEmpty && this.#mayRead()) isEmpty = !this.#readFrame();
      if (this.isClosed) return;
      // The rest of the chunk is only valid in this call.
      if (!isEmpty) this.#frames.keep();
      this.guard(() => this.publisher.flush());
      this.#pause(!isEmpty);
    } finally {
      this.#isRunning = false;
    }
  }

  #mayRead(): boolean {
    if (this.isClosed || this.#parks > 0 || !this.hasRoom) return false;
    const { engine } = this.parts;
    if (engine.hasRoom) return true;
    if (!this.#waitsForRoom) {
      this.#waitsForRoom = true;
      engine.whenRoom(() => {
        this.#waitsForRoom = false;
        this.#run();
      });
    }
    return false;
  }

  #pause(isPaused: boolean): void {
    if (this.#isPaused === isPaused || this.isClosed) return;
    this.#isPaused = isPaused;
    if (isPaused) this.#transport.pause();
    else this.#transport.resume();
  }

  /** False: more bytes are needed. */
  #readFrame(): boolean {
    if (this.#state === 'header') return this.#readHeader();
    try {
      if (!this.#frames.next()) return false;
    } catch (error) {
      // What follows cannot be told apart any more.
      this.fail(new AmqpError('FRAME_ERROR', error instanceof Error ? error.message : String(error)));
      this.#flush();
      this.#end();
      return false;
    }
    const { type, channel: number } = this.#frames;
    if (type === FRAME_HEARTBEAT) {
      if (number !== 0) this.fail(new AmqpError('FRAME_ERROR', `heartbeat on channel ${number}`));
      return true;
    }
    if (type < FRAME_METHOD || type > FRAME_BODY) {
      this.fail(new AmqpError('FRAME_ERROR', `type ${type} is no frame of AMQP 0-9-1`));
      return true;
    }
    const channel = this.#channels.get(number);
    this.guard(() => this.#execute(number, channel), channel);
    return true;
  }

  #readHeader(): boolean {
    const isRight = this.#frames.protocolHeader();
    if (isRight === undefined) return false;
    if (!isRight) {
      this.write(PROTOCOL_HEADER);
      this.#flush();
      this.#end();
      return false;
    }
    this.#state = 'start';
    this.send(0, {
      method: 'connection.start',
      versionMajor: 0,
      versionMinor: 9,
      serverProperties: serverProperties(this.parts.version),
      mechanisms: Buffer.from('PLAIN AMQPLAIN'),
      locales: Buffer.from('en_US'),
    });
    return true;
  }

  #execute(number: number, channel: Channel | undefined): void {
    const { type, payload } = this.#frames;
    if (this.#state === 'closing') {
      // Nothing counts any more but the end of it.
      if (number !== 0 || type !== FRAME_METHOD) return;
      const id = payload.length >= 4 ? payload.readUInt32BE(0) : 0;
      if (id === methodIds['connection.close']) this.send(0, { method: 'connection.close-ok' });
      if (id === methodIds['connection.close'] || id === methodIds['connection.close-ok']) this.#finish();
      return;
    }
    if (number === 0) {
      if (type !== FRAME_METHOD) throw new AmqpError('UNEXPECTED_FRAME', `frame of type ${type} on channel 0`);
      return this.#onMethod(this.#method(payload));
    }
    if (this.#state !== 'running') throw new AmqpError('CHANNEL_ERROR', 'the connection is not open yet');
    if (channel?.isClosing === true) return this.#closingChannel(number, channel, type, payload);
    if (type !== FRAME_METHOD) {
      if (channel === undefined) throw new AmqpError('CHANNEL_ERROR', "expected 'channel.open'");
      return channel.onContent(type, payload);
    }
    const method = this.#method(payload);
    if (channel === undefined) {
      if (method.method !== 'channel.open') throw new AmqpError('CHANNEL_ERROR', "expected 'channel.open'");
      return this.#openChannel(number);
    }
    if (method.method === 'channel.open') throw new AmqpError('CHANNEL_ERROR', "second 'channel.open' seen");
    if (method.method === 'channel.close') return channel.closeAsked();
    channel.onMethod(method);
  }

  #method(payload: Buffer): Method {
    this.#methodId = payload.length >= 4 ? payload.readUInt32BE(0) : 0;
    const method = methodOf(payload);
    if (method === undefined) {
      const { classId, methodId } = this.currentMethod;
      throw new AmqpError('NOT_IMPLEMENTED', `there is no method ${methodId} of class ${classId}`);
    }
    return method;
  }

  #closingChannel(number: number, channel: Channel, type: number, payload: Buffer): void {
    if (type !== FRAME_METHOD || payload.length < 4) return;
    const id = payload.readUInt32BE(0);
    if (id === methodIds['channel.close']) this.send(number, { method: 'channel.close-ok' });
    if (id === methodIds['channel.close-ok'] && this.#channels.get(number) === channel) this.#channels.delete(number);
  }

  #openChannel(number: number): void {
    if (this.#channels.size >= this.#channelMax || number > this.#channelMax) {
      throw new AmqpError(
        'NOT_ALLOWED',
        `number of channels opened (${this.#channels.size}) has reached the negotiated channel_max (${this.#channelMax})`,
      );
    }
    this.#channels.set(number, new Channel(this, number));
    this.send(number, { method: 'channel.open-ok', reserved1: Buffer.alloc(0) } as MethodInit);
  }

  channelClosed(number: number): void {
    this.#channels.delete(number);
  }

  // --- the connection's own methods ---

  #onMethod(method: Method): void {
    switch (method.method) {
      case 'connection.start-ok':
        this.#expect('start');
        return this.#startOk(method);
      case 'connection.tune-ok':
        this.#expect('tune');
        return this.#tuneOk(method);
      case 'connection.open':
        this.#expect('open');
        return this.#open(method.virtualHost);
      case 'connection.close':
        this.send(0, { method: 'connection.close-ok' });
        return this.#finish();
      case 'connection.close-ok':
        throw new AmqpError('CHANNEL_ERROR', 'connection.close-ok without connection.close');
      case 'connection.update-secret':
        throw new AmqpError('NOT_IMPLEMENTED', 'connection.update-secret is not served yet');
      default:
        throw new AmqpError('COMMAND_INVALID', `${method.method} on channel 0, or from a client`);
    }
  }

  #expect(state: State): void {
    if (this.#state !== state) throw new AmqpError('COMMAND_INVALID', 'this method was not expected now');
  }

  #startOk({
    mechanism,
    response,
    clientProperties,
  }: {
    mechanism: string;
    response: Buffer;
    clientProperties: Table;
  }): void {
    const capabilities = fieldOf(clientProperties, 'capabilities');
    if (capabilities?.type === 'F') {
      this.#capabilities = new Set(
        capabilities.value.filter(([, field]) => field.type === 't' && field.value).map(([name]) => name),
      );
    }
    if (mechanism !== 'PLAIN' && mechanism !== 'AMQPLAIN') {
      throw new AmqpError('COMMAND_INVALID', `unknown authentication mechanism '${mechanism}'`);
    }
    const credentials = mechanism === 'PLAIN' ? plain(response) : amqplain(response);
    const isKnown = credentials?.user === USER && credentials.password === PASSWORD;
    if (!isKnown || !isLoopback(this.#transport.remoteHost)) {
      const refused = new AmqpError(
        'ACCESS_REFUSED',
        `Login was refused using authentication mechanism ${mechanism}. For details see the broker logfile.`,
      );
      if (this.can('authentication_failure_close')) return this.fail(refused);
      return this.#end();
    }
    this.#state = 'tune';
    this.send(0, {
      method: 'connection.tune',
      channelMax: CHANNEL_MAX,
      frameMax: FRAME_BYTES_MAX,
      heartbeat: HEARTBEAT_SECONDS,
    });
  }

  #tuneOk({ channelMax, frameMax, heartbeat }: { channelMax: number; frameMax: number; heartbeat: number }): void {
    const refuse = (name: string, value: number, how: string, limit: number): AmqpError =>
      new AmqpError('NOT_ALLOWED', `negotiated ${name} = ${value} is ${how} allowed value (${limit})`);
    if (frameMax > FRAME_BYTES_MAX) throw refuse('frame_max', frameMax, 'higher than the maximum', FRAME_BYTES_MAX);
    if (frameMax !== 0 && frameMax < FRAME_BYTES_MIN) {
      throw refuse('frame_max', frameMax, 'lower than the minimum', FRAME_BYTES_MIN);
    }
    if (channelMax > CHANNEL_MAX) throw refuse('channel_max', channelMax, 'higher than the maximum', CHANNEL_MAX);
    this.#frameBytesMax = frameMax === 0 ? FRAME_BYTES_MAX : frameMax;
    this.#frames.frameBytesMax = this.#frameBytesMax;
    this.#channelMax = channelMax === 0 ? CHANNEL_MAX : channelMax;
    this.#heartbeatMs = heartbeat * 1000;
    this.#state = 'open';
    if (heartbeat > 0) this.#watchHeartbeat();
  }

  #open(virtualHost: string): void {
    if (virtualHost !== '/') throw new AmqpError('NOT_ALLOWED', `vhost ${virtualHost} not found`);
    this.#timer.cancel();
    this.#state = 'running';
    this.send(0, { method: 'connection.open-ok', reserved1: '' } as MethodInit);
  }

  /** Sends one when nothing was sent for half an interval; the peer is gone when nothing came for two. */
  #watchHeartbeat(): void {
    const halfMs = this.#heartbeatMs / 2;
    this.#heartbeat = this.parts.clock.after(halfMs, () => {
      if (this.isClosed) return;
      const nowMs = this.parts.clock.monotonic();
      // Nothing can come while we do not read.
      if (this.#isPaused) this.#receivedMs = nowMs;
      if (nowMs - this.#receivedMs > 2 * this.#heartbeatMs) return this.#transport.destroy();
      if (nowMs - this.#sentMs >= halfMs && this.#unsentBytes === 0) this.write(HEARTBEAT);
      this.#watchHeartbeat();
    });
  }

  // --- the end ---

  /** Ends the connection with a reply code; what the peer sends from now on is only read for its close-ok. */
  fail(error: AmqpError): void {
    if (this.#state === 'closing' || this.isClosed) return;
    if (this.#state === 'header') return this.#end();
    this.#state = 'closing';
    this.#endChannels();
    this.send(0, {
      method: 'connection.close',
      replyCode: error.replyCode,
      replyText: clippedToShortString(error.message),
      ...this.currentMethod,
    });
    this.#timer.cancel();
    this.#timer = this.parts.clock.after(CLOSE_MS, () => this.#transport.destroy());
  }

  /** The broker stops. */
  stop(): void {
    this.guard(() => this.publisher.flush());
    this.fail(new AmqpError('CONNECTION_FORCED', "broker forced connection closure with reason 'shutdown'"));
  }
  destroy(): void {
    this.#transport.destroy();
  }

  #finish(): void {
    this.guard(() => this.publisher.flush());
    this.#endChannels();
    this.#flush();
    this.#end();
  }

  #end(): void {
    this.#state = 'closing';
    this.#timer.cancel();
    this.#timer = this.parts.clock.after(CLOSE_MS, () => this.#transport.destroy());
    this.#transport.end();
  }

  #endChannels(): void {
    for (const channel of this.#channels.values()) channel.end();
    this.#channels.clear();
    const { vhost } = this.parts;
    const queues = [...this.exclusiveQueues];
    this.exclusiveQueues.clear();
    for (const queue of queues) this.guard(() => vhost.deleteQueue(queue));
  }

  #closed(): void {
    if (this.isClosed) return;
    this.#state = 'closed';
    this.#timer.cancel();
    this.#heartbeat?.cancel();
    this.#endChannels();
    this.#out = [];
    for (const callback of this.#closeCallbacks) callback();
  }

  // --- output ---

  send(channel: number, method: MethodInit): void {
    this.write(methodFrame(channel, method));
  }

  /** Leaves at the end of the turn. */
  write(frame: Buffer): void {
    if (this.isClosed) return;
    this.#out.push(frame);
    this.#outBytes += frame.length;
    this.schedule();
  }

  schedule(): void {
    if (this.#isScheduled || this.isClosed) return;
    this.#isScheduled = true;
    this.parts.clock.endOfTurn(() => {
      this.#isScheduled = false;
      this.#turn();
    });
  }

  #turn(): void {
    if (this.isClosed) return;
    for (const channel of this.#channels.values()) this.guard(() => channel.endOfTurn(), channel);
    this.#flush();
  }

  #flush(): void {
    if (this.#out.length === 0 || this.isClosed) return;
    const buffers = packed(this.#out);
    const sizeBytes = this.#outBytes;
    this.#out = [];
    this.#outBytes = 0;
    this.#unsentBytes += sizeBytes;
    this.#sentMs = this.parts.clock.monotonic();
    this.#transport.write(buffers, () => {
      const hadRoom = this.hasRoom;
      this.#unsentBytes -= sizeBytes;
      if (hadRoom || !this.hasRoom || this.isClosed) return;
      this.schedule();
      this.#run();
    });
  }
}

/** Neighbours that are small in one buffer. */
function packed(buffers: readonly Buffer[]): Buffer[] {
  const result: Buffer[] = [];
  let small: Buffer[] = [];
  const pack = (): void => {
    if (small.length > 0) result.push(small.length === 1 ? small[0] : Buffer.concat(small));
    small = [];
  };
  for (const buffer of buffers) {
    if (buffer.length <= PACK_BYTES_MAX) small.push(buffer);
    else {
      pack();
      result.push(buffer);
    }
  }
  pack();
  return result;
}

function serverProperties(version: string): Table {
  const yes = { type: 't', value: true } as const;
  return [
    [
      'capabilities',
      {
        type: 'F',
        value: [
          ['publisher_confirms', yes],
          ['exchange_exchange_bindings', yes],
          ['basic.nack', yes],
          ['consumer_cancel_notify', yes],
          ['consumer_priorities', yes],
          ['authentication_failure_close', yes],
          ['per_consumer_qos', yes],
        ],
      },
    ],
    ['cluster_name', textField('millrace')],
    ['platform', textField('Node.js')],
    ['product', textField('Millrace')],
    ['version', textField(version)],
  ];
}

/** RFC 4616: authorization identity, user, password. */
function plain(response: Buffer): { user: string; password: string } | undefined {
  const parts = response.toString().split('\0');
  return parts.length === 3 ? { user: parts[1], password: parts[2] } : undefined;
}

/** A table without its length. */
function amqplain(response: Buffer): { user: string; password: string } | undefined {
  const length = Buffer.alloc(4);
  length.writeUInt32BE(response.length);
  const table = readTable(new Reader(Buffer.concat([length, response])));
  const text = (name: string): string | undefined => {
    const field = fieldOf(table, name);
    return field?.type === 'S' ? field.value.toString() : undefined;
  };
  const user = text('LOGIN');
  const password = text('PASSWORD');
  return user === undefined || password === undefined ? undefined : { user, password };
}

function isLoopback(host: string): boolean {
  return host === '::1' || host === 'localhost' || /^(::ffff:)?127\./.test(host);
}
