/**
 * One Kafka client's connection: frames in, requests executed in the order they came, answers out in that order.
 *
 * Requests are executed without waiting for the syncs of earlier ones (design of the write path), at most
 * `requests.in.flight.max` of them; then, and while the broker has no room or the peer does not read its answers, the
 * transport is paused. Answers are streamed: file ranges are read piece by piece as the socket drains, so a connection
 * holds at most about `connection.unsent.bytes.max`. A malformed frame ends the connection, as in Kafka.
 */
import type { Payload } from '../../protocol/bytes.ts';
import { Reader } from '../../protocol/bytes.ts';
import { MillraceError, ProtocolError } from '../../protocol/errors.ts';
import { FrameReader, readRequestHeader, responseFrame } from '../../protocol/kafka/frame.ts';
import type { RequestHeader } from '../../protocol/kafka/messages.ts';
import type { Operation, ResourceType } from '../access.ts';
import type { Broker } from '../broker.ts';
import type { FileSplice } from '../engine.ts';
import type { Transport, TransportHandler } from '../server.ts';
import type { ApiRow, ApiTable } from './api-table.ts';
import type { Call, ClientConnection } from './call.ts';
import type { ChunksSplice } from './fetch.ts';
import type { PiecePool } from './piece-pool.ts';

const PRODUCE = 0;
const JOIN_GROUP = 11;
const SYNC_GROUP = 14;
const API_VERSIONS = 18;
/** Their answers wait for other clients: a broker that stops does not wait for those. */
const WAITING_FOR_OTHERS: ReadonlySet<number> = new Set([JOIN_GROUP, SYNC_GROUP]);
/** Responses up to this size that leave together are copied into one buffer: one small write costs more than the copy. */
const PACK_BYTES_MAX = 16 * 1024;
/** A file range is read and sent in pieces of at most this size. */
const PIECE_BYTES = 1024 * 1024;

/** One request and its place in the order of answers. */
class Slot implements Call<unknown, unknown> {
  readonly request: unknown;
  readonly version: number;
  readonly clientId: string;
  readonly connection: KafkaConnection;
  readonly #row: ApiRow;
  readonly #correlationId: number;
  readonly #startedMs: number;
  /** Memory of the request, until the slot is flushed. */
  readonly heldBytes: number;
  chunks: Payload[] | undefined;
  release: (() => void) | undefined;
  isDone = false;

  constructor(
    connection: KafkaConnection,
    row: ApiRow,
    header: RequestHeader,
    request: unknown,
    startedMs: number,
    heldBytes: number,
  ) {
    this.heldBytes = heldBytes;
    this.connection = connection;
    this.#row = row;
    this.request = request;
    this.version = header.requestApiVersion;
    this.clientId = header.clientId ?? '';
    this.#correlationId = header.correlationId;
    this.#startedMs = startedMs;
  }

  allows(operation: Operation, type: ResourceType, name: string): boolean {
    return this.connection.broker.access.authorize(this.connection.principal, operation, type, name);
  }

  reply(response: unknown, release?: () => void): void {
    if (this.isDone) throw new Error(`${this.#row.name} was answered twice`);
    this.isDone = true;
    if (this.connection.isClosed) return release?.();
    this.release = release;
    try {
      this.chunks = responseFrame(this.#row.api, this.version, this.#correlationId, response);
    } catch (error) {
      return this.fail(error);
    }
    this.#row.observe(this.connection.broker.clock.monotonic() - this.#startedMs);
    this.connection.answered();
  }

  /** Whether its answer may come as late as other clients like. */
  get waitsForOthers(): boolean {
    return WAITING_FOR_OTHERS.has(this.#row.api.key);
  }

  replyNothing(): void {
    if (this.isDone) throw new Error(`${this.#row.name} was answered twice`);
    this.isDone = true;
    this.#row.observe(this.connection.broker.clock.monotonic() - this.#startedMs);
    this.connection.answered();
  }

  fail(error: unknown): void {
    this.connection.fail(new Error(`${this.#row.name} version ${this.version}`, { cause: error }));
  }
}

/** An answer on its way out. */
interface Outgoing {
  chunks: readonly Payload[];
  index: number;
  release: (() => void) | undefined;
}

/** Memory that requests of all connections hold: `requests.buffered.bytes.max`. */
export class RequestBudget {
  readonly bytesMax: number;
  heldBytes = 0;

  constructor(bytesMax: number) {
    this.bytesMax = bytesMax;
  }
}

export interface KafkaConnectionOptions {
  broker: Broker;
  apis: ApiTable;
  pieces: PiecePool;
  requests: RequestBudget;
  /** Told of what only an operator can act on: a handler that failed. */
  report: (message: string, error: unknown) => void;
}

export class KafkaConnection implements ClientConnection, TransportHandler {
  readonly broker: Broker;
  readonly principal = 'User:ANONYMOUS';
  readonly localHost: string;
  readonly localPort: number;
  readonly remoteHost: string;
  clientSoftwareName = '';
  clientSoftwareVersion = '';
  isClosed = false;
  isEnding = false;
  readonly #transport: Transport;
  readonly #apis: ApiTable;
  readonly #pieces: PiecePool;
  readonly #requests: RequestBudget;
  readonly #report: (message: string, error: unknown) => void;
  readonly #frames: FrameReader;
  /** Requests not yet handed to the output, oldest first. */
  readonly #slots: Slot[] = [];
  readonly #outgoing: Outgoing[] = [];
  readonly #closeCallbacks = new Set<() => void>();
  readonly #endingCallbacks = new Set<() => void>();
  /** In memory, in answers not yet handed to the transport. */
  #queuedBytes = 0;
  /** Handed to the transport and not yet taken by the peer's side of it. */
  #unsentBytes = 0;
  /** What of the budget this connection holds: bytes of a frame in progress and of requests without an answer. */
  #budgetBytes = 0;
  #waitingBytes = 0;
  #isExecuting = false;
  #isPaused = false;
  #isDraining = false;
  /** The peer has shut down its side. */
  #isHalfClosed = false;
  #isFlushScheduled = false;
  #isReadingFile = false;
  /** When the peer last took something, or had nothing to take. */
  #progressMs = 0;
  #waitsForRoom = false;

  constructor(transport: Transport, { broker, apis, pieces, requests, report }: KafkaConnectionOptions) {
    this.#transport = transport;
    this.broker = broker;
    this.#apis = apis;
    this.#pieces = pieces;
    this.#requests = requests;
    this.#report = report;
    this.localHost = transport.localHost;
    this.localPort = transport.localPort;
    this.remoteHost = transport.remoteHost;
    this.#frames = new FrameReader(broker.options['socket.request.max.bytes']);
  }

  onClose(): void;
  onClose(callback: () => void): () => void;
  // One name, two roles: the transport says that it ended, handlers ask to be told.
  onClose(callback?: () => void): (() => void) | undefined {
    if (callback) {
      this.#closeCallbacks.add(callback);
      return () => this.#closeCallbacks.delete(callback);
    }
    this.#closed();
    return undefined;
  }

  onBytes(chunk: Buffer): void {
    if (this.isClosed) return;
    try {
      this.#frames.push(chunk);
      this.#run();
      this.#holdBytes(this.#frames.heldBytes + this.#waitingBytes);
    } catch (error) {
      this.fail(error);
    }
  }

  /** The peer sends nothing more. It still gets its answers, those that would wait for more data at once; then the end. */
  onEnd(): void {
    this.#isHalfClosed = true;
    this.#end();
    this.#endIfAnswered();
  }

  onEnding(callback: () => void): () => void {
    this.#endingCallbacks.add(callback);
    return () => this.#endingCallbacks.delete(callback);
  }

  /** Reads nothing more; what was asked is still answered. */
  drain(): void {
    this.#isDraining = true;
    this.#pause();
    this.#end();
  }

  /** Everything is answered and sent, but for what waits for other clients. */
  get isIdle(): boolean {
    return this.#isSent && this.#slots.every(({ isDone, waitsForOthers }) => !isDone && waitsForOthers);
  }
  get #isSent(): boolean {
    return this.#unsentBytes === 0 && this.#outgoing.length === 0;
  }

  /** Since when an answer waits of which the peer takes nothing; infinity if none does. */
  get stalledSinceMs(): number {
    return this.#isSent ? Number.POSITIVE_INFINITY : this.#progressMs;
  }

  #end(): void {
    this.isEnding = true;
    const callbacks = [...this.#endingCallbacks];
    this.#endingCallbacks.clear();
    for (const callback of callbacks) callback();
  }

  #endIfAnswered(): void {
    if (!this.#isHalfClosed || this.#isExecuting || this.isClosed) return;
    if (this.#slots.length === 0 && this.#isSent) this.#transport.end();
  }

  end(): void {
    this.#transport.destroy();
  }

  #holdBytes(bytes: number): void {
    const grown = bytes - this.#budgetBytes;
    if (grown === 0 || this.isClosed) return;
    this.#budgetBytes = bytes;
    this.#requests.heldBytes += grown;
    if (grown <= 0 || this.#requests.heldBytes <= this.#requests.bytesMax) return;
    const message = `requests hold ${this.#requests.heldBytes} bytes, requests.buffered.bytes.max is ${this.#requests.bytesMax}`;
    this.fail(new MillraceError('POLICY_VIOLATION', message));
  }

  #run(): void {
    while (!this.isClosed && this.#mayExecute()) {
      const frame = this.#frames.next();
      if (!frame) return this.#resume();
      this.#execute(frame);
    }
    // The rest of the chunk is only valid in this call.
    this.#frames.keep();
    this.#pause();
  }

  #mayExecute(): boolean {
    const { options, engine } = this.broker;
    if (this.#isExecuting || this.#isDraining) return false;
    if (this.#slots.length + this.#outgoing.length >= options['requests.in.flight.max']) return false;
    if (this.#unsentBytes + this.#queuedBytes >= options['connection.unsent.bytes.max']) return false;
    if (engine.hasRoom) return true;
    if (!this.#waitsForRoom) {
      this.#waitsForRoom = true;
      engine.whenRoom(() => {
        this.#waitsForRoom = false;
        this.#continue();
      });
    }
    return false;
  }

  #execute(bytes: Buffer): void {
    const apiKey = bytes.length >= 4 ? bytes.readInt16BE(0) : -1;
    // Copy: whatever a handler keeps must outlive the shared read buffer; only Produce copies its batches itself.
    const frame = apiKey === PRODUCE ? bytes : Buffer.from(bytes);
    const reader = new Reader(frame);
    const header = readRequestHeader(reader);
    const row = this.#apis.get(header.requestApiKey);
    if (!row) throw new ProtocolError(`API key ${header.requestApiKey} is not served`);
    let version = header.requestApiVersion;
    if (version < row.minVersion || version > row.maxVersion) {
      if (apiKey !== API_VERSIONS) {
        throw new ProtocolError(
          `${row.name} version ${version} is not served (${row.minVersion} to ${row.maxVersion} are)`,
        );
      }
      // KIP-511: an unknown version of ApiVersions is answered in version 0, so that the client can choose another.
      version = -1;
    }
    const request = version < 0 ? undefined : row.api.readRequest(reader, version);
    // Produce does not keep its frame; batches it has to keep while files are loaded are few and short-lived.
    const heldBytes = apiKey === PRODUCE ? 0 : frame.length;
    this.#waitingBytes += heldBytes;
    const slot = new Slot(this, row, header, request, this.broker.clock.monotonic(), heldBytes);
    this.#slots.push(slot);
    row.requests++;
    const executing = row.handle(this.broker, slot);
    if (!executing) return;
    this.#isExecuting = true;
    executing.then(
      () => {
        this.#isExecuting = false;
        this.#continue();
        this.#endIfAnswered();
      },
      (error: unknown) => this.fail(error),
    );
  }

  /** Executes what arrived meanwhile. */
  #continue(): void {
    if (this.isClosed || !this.#isPaused) return;
    try {
      this.#run();
    } catch (error) {
      this.fail(error);
    }
  }

  #pause(): void {
    if (this.#isPaused || this.isClosed) return;
    this.#isPaused = true;
    this.#transport.pause();
  }
  #resume(): void {
    if (!this.#isPaused || this.#isDraining) return;
    this.#isPaused = false;
    this.#transport.resume();
  }

  /** A slot has its answer: everything that is now in order leaves at the end of the turn. */
  answered(): void {
    if (this.#isFlushScheduled || this.isClosed) return;
    this.#isFlushScheduled = true;
    this.broker.clock.endOfTurn(this.#flush);
  }

  readonly #flush = (): void => {
    this.#isFlushScheduled = false;
    if (this.isClosed) return;
    if (this.#isSent) this.#progressMs = this.broker.clock.monotonic();
    let done = 0;
    while (done < this.#slots.length && this.#slots[done].isDone) {
      const { chunks, release, heldBytes } = this.#slots[done++];
      this.#waitingBytes -= heldBytes;
      if (!chunks) continue;
      this.#outgoing.push({ chunks: this.#queued(chunks), index: 0, release });
    }
    this.#slots.splice(0, done);
    this.#holdBytes(this.#frames.heldBytes + this.#waitingBytes);
    this.#pump();
    this.#continue();
    this.#endIfAnswered();
  };

  /** Counts the bytes that are in memory (what is read from files while it is sent is not) and puts the parts of splices in their places. */
  #queued(chunks: readonly Payload[]): readonly Payload[] {
    let isFlat = true;
    for (const chunk of chunks) {
      if (chunk instanceof Uint8Array) this.#queuedBytes += chunk.length;
      else if ('chunks' in chunk) isFlat = false;
    }
    if (isFlat) return chunks;
    const flat: Payload[] = [];
    for (const chunk of chunks) {
      if (chunk instanceof Uint8Array || !('chunks' in chunk)) flat.push(chunk);
      else {
        for (const part of (chunk as ChunksSplice).chunks) {
          if (part instanceof Uint8Array) this.#queuedBytes += part.length;
          flat.push(part);
        }
      }
    }
    return flat;
  }

  /** Hands answers to the transport until enough bytes are on their way or a file has to be read. */
  #pump(): void {
    const unsentMax = this.broker.options['connection.unsent.bytes.max'];
    const buffers: Uint8Array[] = [];
    const releases: (() => void)[] = [];
    let bytes = 0;
    while (this.#outgoing.length > 0 && !this.#isReadingFile && this.#unsentBytes + bytes < unsentMax) {
      const head = this.#outgoing[0];
      if (head.index < head.chunks.length) {
        const chunk = head.chunks[head.index++];
        if (!(chunk instanceof Uint8Array)) {
          // Every splice that is left comes from `Partition.read`.
          this.#isReadingFile = true;
          void this.#sendFile(chunk as FileSplice);
          continue;
        }
        buffers.push(chunk);
        bytes += chunk.length;
        this.#queuedBytes -= chunk.length;
        if (head.index < head.chunks.length) continue;
      }
      // With its last bytes: what they lie in is let go when the transport has taken these, not before.
      if (head.release) releases.push(head.release);
      this.#outgoing.shift();
    }
    this.#write(buffers, bytes, releases);
  }

  #write(buffers: Uint8Array[], bytes: number, releases: (() => void)[]): void {
    if (buffers.length === 0) {
      for (const release of releases) release();
      return;
    }
    this.#unsentBytes += bytes;
    const packed = buffers.length > 1 && bytes <= PACK_BYTES_MAX ? [Buffer.concat(buffers, bytes)] : buffers;
    this.#pendingReleases.add(releases);
    this.#transport.write(packed, () => {
      // The connection has ended, and with it everything was let go.
      if (!this.#pendingReleases.delete(releases)) return;
      for (const release of releases) release();
      this.#sent(bytes);
    });
  }
  /** Releases of answers that were handed to the transport; run at the latest when the connection ends. */
  readonly #pendingReleases = new Set<(() => void)[]>();

  #sent(bytes: number): void {
    this.#unsentBytes -= bytes;
    this.#progressMs = this.broker.clock.monotonic();
    if (this.isClosed) return;
    this.#pump();
    this.#continue();
    this.#endIfAnswered();
  }

  async #sendFile(splice: FileSplice): Promise<void> {
    let offset = 0;
    while (offset < splice.length && !this.isClosed) {
      const piece = this.#pieces.take(Math.min(PIECE_BYTES, splice.length - offset));
      try {
        const size = await splice.read(piece, offset);
        if (size <= 0) throw new Error(`a file range ended ${splice.length - offset} bytes early`);
        offset += size;
        await this.#writePiece(piece, size);
      } catch (error) {
        // The answer's length is already on the wire: the connection cannot be used any more.
        this.#pieces.give(piece);
        return this.fail(error);
      }
    }
    this.#isReadingFile = false;
    if (this.isClosed) return;
    this.#pump();
    // Its answer may have been the last of as many as may wait.
    this.#continue();
  }

  /** Resolves when the transport has taken the piece, or the connection has ended. */
  #writePiece(piece: Buffer, size: number): Promise<void> {
    if (this.isClosed) {
      this.#pieces.give(piece);
      return Promise.resolve();
    }
    return new Promise((resolve) => {
      const done = [
        () => {
          this.#pieces.give(piece);
          resolve();
        },
      ];
      this.#write([piece.subarray(0, size)], size, done);
    });
  }

  /** Ends the connection; only the peer's own mistakes go without a word to the operator. */
  fail(error: unknown): void {
    if (this.isClosed) return;
    const isPeersMistake = error instanceof ProtocolError;
    if (!isPeersMistake) this.#report(`request from ${this.remoteHost} failed`, error);
    this.#transport.destroy();
    this.#closed();
  }

  #closed(): void {
    if (this.isClosed) return;
    this.isClosed = true;
    this.#frames.close();
    this.#requests.heldBytes -= this.#budgetBytes;
    this.#end();
    const callbacks = [...this.#closeCallbacks];
    this.#closeCallbacks.clear();
    for (const callback of callbacks) callback();
    for (const { release } of this.#slots) release?.();
    for (const { release } of this.#outgoing) release?.();
    for (const releases of this.#pendingReleases) for (const release of releases) release();
    this.#pendingReleases.clear();
    this.#slots.length = 0;
    this.#outgoing.length = 0;
  }
}
