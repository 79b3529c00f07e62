/**
 * One AMQP client's connection: a state machine without a socket over the `Transport` seam. Frames in, executed in the
 * order they came; answers out, collected and written once at the end of a turn.
 *
 *   header → start → tune → open → open-ok, then channels, until one side says close and the other close-ok
 *
 * Always true: a frame that is no frame, or that does not fit the state, ends the connection with RabbitMQ's reply code,
 * never the process; nothing of the read buffer is held after `onBytes`. While a channel waits for the disk its later
 * frames are parked, and other channels go on; where too much is parked, or the peer does not read, frames wait in the
 * reader and the transport is paused.
 */
import assert from 'node:assert/strict';
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
import { fieldOf, NO_TABLE, type Table, textField, clippedToShortString } from '../../protocol/amqp/table.ts';
import { MillraceError, ProtocolError } from '../../protocol/errors.ts';
import type { Clock, Timer } from '../../storage/clock.ts';
import { type Access, type Operation, principalOf } from '../../broker/access.ts';
import type { Options } from '../../broker/config.ts';
import type { Directory } from '../../broker/directory.ts';
import type { Engine } from '../../broker/engine.ts';
import type { QueueReader } from '../../broker/queue-reader.ts';
import type { QueueRegistry } from '../../broker/queues.ts';
import { isLoopback, type Transport, type TransportHandler } from '../../broker/server.ts';
import type { Alarms } from './alarms.ts';
import { Channel } from './channel.ts';
import { credentialsOf, MECHANISMS } from './login.ts';
import { Output, type OutputChunks } from './output.ts';
import { type BatchBuilders, Publisher } from './publisher.ts';
import type { DirectReplies } from './direct-replies.ts';
import { AmqpError, amqpErrorOf } from './reply.ts';
import { keptTable } from './topology.ts';
import type { AmqpQueue, Vhost } from './vhost.ts';

const CHANNEL_MAX = 2047;
const FRAME_BYTES_MAX = 131_072;
/** What a client may negotiate down to. */
const FRAME_BYTES_MIN = 8192;
/** Seconds. */
const HEARTBEAT_SECONDS = 60;
/** Class and method, delivery tag, multiple: the method that comes most often is read without an object. */
const ACK_BYTES = 13;
/** RabbitMQ's: from the connect to connection.open. */
const HANDSHAKE_MS = 10_000;
/** For the peer's close-ok. */
const CLOSE_MS = 5_000;

/** What a frame that waits costs beside its bytes. */
const PARKED_OVERHEAD_BYTES = 64;

/** What the door shares between its connections. */
export interface DoorParts {
  readonly engine: Engine;
  readonly clock: Clock;
  readonly options: Options;
  readonly queues: QueueRegistry;
  readonly reader: QueueReader;
  readonly directory: Directory;
  readonly access: Access;
  readonly vhosts: ReadonlyMap<string, Vhost>;
  /** All of the door. */
  readonly connections: ReadonlySet<AmqpConnection>;
  readonly replies: DirectReplies;
  readonly alarms: Alarms;
  readonly version: string;
  /** No limit counts it and no list shows it. */
  readonly isInternal: boolean;
  readonly chunks: OutputChunks;
  readonly builders: BatchBuilders;
  /** A line for the operator. */
  readonly report: (message: string, error: unknown) => void;
}

/** RabbitMQ's three. */
type Right = 'configure' | 'write' | 'read';
const OPERATIONS: Readonly<Record<Right, Operation>> = { configure: 'ALTER', write: 'WRITE', read: 'READ' };

type State = 'header' | 'start' | 'tune' | 'open' | 'running' | 'closing' | 'closed';

export class AmqpConnection implements TransportHandler {
  readonly parts: DoorParts;
  readonly publisher: Publisher;
  #user = '';
  #principal = '';
  #vhost: Vhost | undefined;
  /** The exchange that was written to last, and the version of the directory then. */
  #written = { exchange: '', version: -1 };
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
  #mechanism = '';
  #clientProperties: Table = NO_TABLE;
  /** Wall clock. */
  readonly connectedAtMs: number;
  receivedBytes = 0;
  sentBytes = 0;
  receivedFrames = 0;
  sentFrames = 0;
  #isRunning = false;
  /** Waits of all channels. */
  #waits = 0;
  #parkedBytes = 0;
  /** It has published while there was an alarm: it is not read until that is over. */
  isBlocked = false;
  /** The peer has closed it; channels that wait come first. */
  #isFinishing = false;
  #isPaused = false;
  #waitsForRoom = false;
  readonly output: Output;
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
    this.output = new Output(parts.chunks);
    const { engine, clock, queues } = parts;
    this.publisher = new Publisher({
      engine,
      clock,
      queues,
      builders: parts.builders,
      refused: (error) => {
        this.fail(amqpErrorOf(error));
      },
    });
    this.connectedAtMs = clock.now();
    this.#receivedMs = clock.monotonic();
    this.#sentMs = this.#receivedMs;
    this.#timer = clock.after(HANDSHAKE_MS, () => this.#transport.destroy());
  }

  // --- what is shown of it ---

  /** As RabbitMQ names connections. */
  get name(): string {
    const { remoteHost, remotePort, localHost, localPort } = this.#transport;
    return `${remoteHost}:${remotePort} -> ${localHost}:${localPort}`;
  }
  get peer(): Pick<Transport, 'remoteHost' | 'remotePort' | 'localHost' | 'localPort'> {
    return this.#transport;
  }
  get mechanism(): string {
    return this.#mechanism;
  }
  get clientProperties(): Table {
    return this.#clientProperties;
  }
  get channelMax(): number {
    return this.#channelMax;
  }
  get heartbeatMs(): number {
    return this.#heartbeatMs;
  }
  get unsentBytes(): number {
    return this.#unsentBytes;
  }
  /** Empty until it is known. */
  get user(): string {
    return this.#user;
  }
  /** Where the client is; there are no channels before that. */
  get vhost(): Vhost {
    assert(this.#vhost !== undefined, 'the client is in no vhost yet');
    return this.#vhost;
  }
  /** Empty until it is known. */
  get vhostName(): string {
    return this.#vhost?.name ?? '';
  }
  get channelCount(): number {
    return this.#channels.size;
  }
  /** The client is in a vhost. */
  get isOpen(): boolean {
    return this.#state === 'running';
  }
  /** Open and not the broker's own: lists show it, and limits count it. */
  get isShown(): boolean {
    return this.isOpen && !this.parts.isInternal;
  }
  channels(): IterableIterator<Channel> {
    return this.#channels.values();
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
    return this.#unsentBytes + this.output.sizeBytes < this.parts.options['connection.unsent.bytes.max'];
  }
  /** Everything that was asked is answered and sent. */
  get isIdle(): boolean {
    return this.#waits === 0 && this.output.sizeBytes === 0 && this.#unsentBytes === 0;
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
    this.receivedBytes += chunk.length;
    this.#frames.push(chunk);
    this.#run();
  }

  /** The channel's frames wait until `start` has called `done`, which runs what it is given and goes on. */
  wait(channel: Channel, start: (done: (then: () => void) => void) => void): void {
    this.#waits++;
    channel.waits++;
    const methodId = this.#methodId;
    let isDone = false;
    start((then) => {
      if (isDone) throw new Error('a wait has ended twice');
      isDone = true;
      this.#waits--;
      channel.waits--;
      if (this.isClosed) return;
      // An error is about what was waited for, whatever came since then.
      this.#methodId = methodId;
      this.guard(then, channel);
      this.#unpark(channel);
      if (this.#isFinishing && this.#isQuiet) this.#closeAsked();
      this.#run();
    });
  }

  #park(channel: Channel, type: number, payload: Buffer): void {
    // Copy: it outlives the chunk.
    channel.parked.push({ type, payload: Buffer.from(payload) });
    this.#parkedBytes += payload.length + PARKED_OVERHEAD_BYTES;
  }

  /** Everything that came for it meanwhile, up to where it waits again. */
  #unpark(channel: Channel): void {
    const { parked } = channel;
    channel.parked = [];
    let count = 0;
    while (count < parked.length && channel.waits === 0 && this.#channels.get(channel.number) === channel) {
      const { type, payload } = parked[count++];
      this.#parkedBytes -= payload.length + PARKED_OVERHEAD_BYTES;
      this.#executeGuarded(channel.number, channel, type, payload);
    }
    if (count === parked.length) return;
    if (channel.waits > 0) channel.parked = [...channel.parked, ...parked.slice(count)];
    else for (const { payload } of parked.slice(count)) this.#parkedBytes -= payload.length + PARKED_OVERHEAD_BYTES;
  }

  /** Runs what may fail in AMQP's terms: the channel's errors are the channel's, all others end the connection. */
  guard(action: () => void, channel?: Channel): void {
    try {
      action();
    } catch (error) {
      this.#failed(error, channel);
    }
  }

  #failed(error: unknown, channel: Channel | undefined): void {
    const failure = this.#failureOf(error);
    if (channel !== undefined && !failure.isHard) channel.fail(failure);
    else this.fail(failure);
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
      if (this.publisher.isFilled) this.guard(() => this.publisher.flush());
      this.#pause(!isEmpty);
    } finally {
      this.#isRunning = false;
    }
  }

  #mayRead(): boolean {
    if (this.isClosed || this.#isFinishing || this.isBlocked || !this.hasRoom) return false;
    if (this.#parkedBytes > 0 && this.#parkedBytes >= this.parts.options['amqp.parked.bytes.max']) return false;
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
    const { type, channel: number, payload } = this.#frames;
    this.receivedFrames++;
    if (type === FRAME_HEARTBEAT) {
      if (number !== 0) this.fail(new AmqpError('FRAME_ERROR', `heartbeat on channel ${number}`));
      return true;
    }
    if (type < FRAME_METHOD || type > FRAME_BODY) {
      this.fail(new AmqpError('FRAME_ERROR', `type ${type} is no frame of AMQP 0-9-1`));
      return true;
    }
    const channel = this.#channels.get(number);
    if (channel !== undefined && channel.waits > 0 && !channel.isClosing) this.#park(channel, type, payload);
    else this.#executeGuarded(number, channel, type, payload);
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
      mechanisms: Buffer.from(MECHANISMS.join(' ')),
      locales: Buffer.from('en_US'),
    });
    return true;
  }

  /** As `guard`, without a function for each frame. */
  #executeGuarded(number: number, channel: Channel | undefined, type: number, payload: Buffer): void {
    try {
      this.#execute(number, channel, type, payload);
    } catch (error) {
      this.#failed(error, channel);
    }
  }

  #execute(number: number, channel: Channel | undefined, type: number, payload: Buffer): void {
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
    if (channel !== undefined && payload.length === ACK_BYTES && payload.readUInt32BE(0) === methodIds['basic.ack']) {
      this.#methodId = methodIds['basic.ack'];
      const deliveryTag = payload.readUInt32BE(4) * 2 ** 32 + payload.readUInt32BE(8);
      return channel.onAck(deliveryTag, (payload[12] & 1) !== 0);
    }
    const method = this.#method(payload);
    if (channel === undefined) {
      if (method.method !== 'channel.open') throw new AmqpError('CHANNEL_ERROR', "expected 'channel.open'");
      return this.#openChannel(number);
    }
    if (method.method === 'channel.open') throw new AmqpError('CHANNEL_ERROR', "second 'channel.open' seen");
    if (method.method === 'channel.close') return channel.closeAsked();
    if (method.method === 'basic.publish') {
      const { reason } = this.parts.alarms;
      if (reason !== undefined) return this.#block(channel, payload, reason);
    }
    channel.onMethod(method);
  }

  /** The publish, and everything after it, waits until the alarm is over. */
  #block(channel: Channel, payload: Buffer, reason: string): void {
    if (!this.isBlocked && this.can('connection.blocked')) this.send(0, { method: 'connection.blocked', reason });
    this.isBlocked = true;
    this.wait(channel, (done) => {
      this.#park(channel, FRAME_METHOD, payload);
      this.parts.alarms.whenOver(() => {
        if (this.isBlocked && this.can('connection.blocked')) this.send(0, { method: 'connection.unblocked' });
        this.isBlocked = false;
        done(() => {});
      });
    });
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
    this.#checkUserChannels();
    this.#channels.set(number, new Channel(this, number));
    this.send(number, { method: 'channel.open-ok', reserved1: Buffer.alloc(0) } as MethodInit);
  }

  #checkUserChannels(): void {
    const max = this.parts.directory.users.limit(this.#user, 'max-channels');
    if (max === undefined || this.parts.isInternal) return;
    let count = 0;
    for (const { user, channelCount, isShown } of this.parts.connections) {
      if (user === this.#user && isShown) count += channelCount;
    }
    if (count < max) return;
    const why = `number of channels opened for user '${this.#user}' has reached the maximum allowed user limit of (${max})`;
    throw new AmqpError('NOT_ALLOWED', why);
  }

  channelClosed(channel: Channel): void {
    this.#channels.delete(channel.number);
  }
  /** What was parked for it is only read for the end of the channel. */
  channelEnded(channel: Channel): void {
    const { parked } = channel;
    channel.parked = [];
    for (const { type, payload } of parked) {
      this.#parkedBytes -= payload.length + PARKED_OVERHEAD_BYTES;
      if (channel.isClosing) this.#closingChannel(channel.number, channel, type, payload);
    }
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
        this.#isFinishing = true;
        if (this.#isQuiet) this.#closeAsked();
        return;
      case 'connection.close-ok':
        throw new AmqpError('CHANNEL_ERROR', 'connection.close-ok without connection.close');
      case 'connection.update-secret':
        // For secrets that expire. A password does not: it was right when the connection began, as in RabbitMQ.
        this.#expect('running');
        return this.send(0, { method: 'connection.update-secret-ok' });
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
    this.#mechanism = mechanism;
    this.#clientProperties = keptTable(clientProperties);
    const capabilities = fieldOf(clientProperties, 'capabilities');
    if (capabilities?.type === 'F') {
      this.#capabilities = new Set(
        capabilities.value.filter(([, field]) => field.type === 't' && field.value).map(([name]) => name),
      );
    }
    const credentials = credentialsOf(mechanism, response);
    // As RabbitMQ: who cannot say who it is is told nothing.
    if (credentials === undefined) return this.#end();
    const from = { isLoopback: isLoopback(this.#transport.remoteHost) };
    const { users } = this.parts.directory;
    const authenticated = users.authenticate(credentials.user, credentials.password, from);
    if ('refused' in authenticated) {
      this.parts.report(`AMQP login of ${this.name} was refused`, authenticated.refused);
      const refused = new AmqpError(
        'ACCESS_REFUSED',
        `Login was refused using authentication mechanism ${mechanism}. For details see the broker logfile.`,
      );
      // RabbitMQ names no method here.
      this.#methodId = 0;
      if (this.can('authentication_failure_close')) return this.fail(refused);
      return this.#end();
    }
    this.#user = authenticated.user.name;
    this.#principal = principalOf(this.#user);
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
    const vhost = this.parts.vhosts.get(virtualHost);
    if (vhost === undefined) throw new AmqpError('NOT_ALLOWED', `vhost ${virtualHost} not found`);
    this.#checkLimits(virtualHost);
    if (this.parts.directory.users.permission(this.#user, virtualHost) === undefined) {
      throw new AmqpError('NOT_ALLOWED', `access to vhost '${virtualHost}' refused for user '${this.#user}'`);
    }
    this.#vhost = vhost;
    this.#timer.cancel();
    this.#state = 'running';
    this.send(0, { method: 'connection.open-ok', reserved1: '' } as MethodInit);
  }

  /** Limits of the vhost and of the user. 530. */
  #checkLimits(virtualHost: string): void {
    const { vhosts, users } = this.parts.directory;
    if (this.parts.isInternal) return;
    const count = (isCounted: (connection: AmqpConnection) => boolean): number =>
      [...this.parts.connections].filter((other) => other.isShown && isCounted(other)).length;
    const ofVhost = vhosts.limit(virtualHost, 'max-connections');
    if (ofVhost !== undefined && count(({ vhostName }) => vhostName === virtualHost) >= ofVhost) {
      const why = `access to vhost '${virtualHost}' refused for user '${this.#user}': connection limit (${ofVhost}) is reached`;
      throw new AmqpError('NOT_ALLOWED', why);
    }
    const ofUser = users.limit(this.#user, 'max-connections');
    if (ofUser !== undefined && count(({ user }) => user === this.#user) >= ofUser) {
      const why = `connection refused for user '${this.#user}': user connection limit (${ofUser}) is reached`;
      throw new AmqpError('NOT_ALLOWED', why);
    }
  }

  // --- what the user may do; each is 403 if not ---

  mayUseQueue(right: Right, name: string): void {
    if (this.parts.access.authorize(this.#principal, OPERATIONS[right], 'QUEUE', name, this.vhostName)) return;
    throw this.#refused(`${right} access to queue '${name}'`);
  }
  mayUseExchange(right: Right, exchange: string): void {
    // The default exchange has a name only here.
    const name = exchange === '' ? 'amq.default' : exchange;
    const { access, directory } = this.parts;
    const { version } = directory;
    // Most publishes are to the exchange of the one before.
    if (right === 'write' && this.#written.exchange === name && this.#written.version === version) return;
    if (!access.authorize(this.#principal, OPERATIONS[right], 'EXCHANGE', name, this.vhostName)) {
      throw this.#refused(`${right} access to exchange '${name}'`);
    }
    if (right === 'write') this.#written = { exchange: name, version };
  }
  /** Only for topic exchanges. */
  mayUseTopic(right: 'write' | 'read', exchange: string, routingKey: string): void {
    const operation = right === 'write' ? 'WRITE' : 'READ';
    const topic = { vhost: this.vhostName, exchange, routingKey };
    if (this.parts.access.authorizeTopic(this.#principal, operation, topic)) return;
    throw this.#refused(`${right} access to topic '${routingKey}' in exchange '${exchange}'`);
  }
  /** Users with this tag may say that they are somebody else. */
  get isImpersonator(): boolean {
    return this.parts.directory.users.get(this.#user)?.tags.includes('impersonator') === true;
  }
  #refused(what: string): AmqpError {
    return new AmqpError('ACCESS_REFUSED', `${what} in vhost '${this.vhostName}' refused for user '${this.#user}'`);
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
    if (this.#isFinishing) return this.#closeAsked();
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
    this.close("broker forced connection closure with reason 'shutdown'");
  }
  /** Somebody wants it closed: says 320 with the reason. */
  close(reason: string): void {
    this.guard(() => this.publisher.flush());
    this.fail(new AmqpError('CONNECTION_FORCED', reason));
  }
  destroy(): void {
    this.#transport.destroy();
  }

  /** No channel has anything to do. */
  get #isQuiet(): boolean {
    return this.#waits === 0 && this.#parkedBytes === 0;
  }

  #closeAsked(): void {
    this.#isFinishing = false;
    this.send(0, { method: 'connection.close-ok' });
    this.#finish();
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
    const queues = [...this.exclusiveQueues];
    this.exclusiveQueues.clear();
    for (const queue of queues) this.guard(() => this.vhost.deleteQueue(queue));
  }

  #closed(): void {
    if (this.isClosed) return;
    this.#state = 'closed';
    this.#timer.cancel();
    this.#heartbeat?.cancel();
    this.#endChannels();
    this.output.drain();
    for (const callback of this.#closeCallbacks) callback();
  }

  // --- output ---

  send(channel: number, method: MethodInit): void {
    this.write(methodFrame(channel, method));
  }

  /** Leaves at the end of the turn. */
  write(frame: Buffer): void {
    if (this.isClosed) return;
    this.output.push(frame);
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
    const { sizeBytes } = this.output;
    if (sizeBytes === 0 || this.isClosed) return;
    const buffers = this.output.drain();
    this.#unsentBytes += sizeBytes;
    this.sentBytes += sizeBytes;
    this.sentFrames += buffers.length;
    this.#sentMs = this.parts.clock.monotonic();
    this.#transport.write(buffers, () => {
      this.output.sent();
      const hadRoom = this.hasRoom;
      this.#unsentBytes -= sizeBytes;
      if (hadRoom || !this.hasRoom || this.isClosed) return;
      this.schedule();
      this.#run();
    });
  }
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
          ['connection.blocked', yes],
          ['direct_reply_to', yes],
        ],
      },
    ],
    ['cluster_name', textField('millrace')],
    ['platform', textField('Node.js')],
    ['product', textField('Millrace')],
    ['version', textField(version)],
  ];
}
