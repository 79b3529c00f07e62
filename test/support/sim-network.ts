/**
 * A network in memory: byte streams between simulated clients and the broker's connections, from one seed. Streams are
 * split and delayed at random, hold only so much (then the writer waits), stall, and are cut with what was on its way.
 *
 * As with a real socket: bytes given to the broker are overwritten after the call, what it writes is read when it is
 * taken (so a buffer that is used again before `sent` shows), and the end of a connection is told later, never inside
 * the call that caused it. Everything that arrives anywhere goes into `traceHash`.
 */
import { crc32 } from 'node:zlib';
import type { Accept, Transport, TransportHandler } from '../../broker/server.ts';
import type { Clock } from '../../storage/clock.ts';
import type { SimRandom } from './sim-random.ts';

/** How one connection behaves. */
export interface LinkHabits {
  delayMsMax: number;
  /** Bytes that arrive at once, at most. */
  pieceBytesMax: number;
  /** Bytes on their way to the client, at most. */
  windowBytes: number;
}

const SHARED_BYTES = 64 * 1024;
/** After this a socket that nobody reads or writes notices that its peer is gone. */
const UNNOTICED_MS = 60_000;

export class SimNetwork {
  readonly clock: Clock;
  readonly random: SimRandom;
  /** As the read buffer that all sockets of the broker share. */
  readonly shared = Buffer.alloc(SHARED_BYTES);
  readonly links = new Set<SimLink>();
  traceHash = 0;
  #nextPort = 10_000;

  constructor(clock: Clock, random: SimRandom) {
    this.clock = clock;
    this.random = random;
  }

  connect(accept: Accept, habits: LinkHabits = this.someHabits()): SimLink {
    const link = new SimLink(this, this.#nextPort++, habits, accept);
    this.links.add(link);
    return link;
  }

  someHabits(): LinkHabits {
    const { random } = this;
    const delayMsMax = random.pick([0, 1, 1, 5, 40]);
    return {
      delayMsMax,
      pieceBytesMax: random.pick([delayMsMax > 1 ? 4_096 : 200, 1500, 16_384, SHARED_BYTES]),
      windowBytes: random.pick([delayMsMax > 1 ? 8_192 : 512, 8_192, 65_536, 1_048_576]),
    };
  }

  note(what: string, bytes?: Uint8Array): void {
    const hash = crc32(`${this.clock.monotonic()} ${what}`, this.traceHash);
    this.traceHash = bytes === undefined ? hash : crc32(bytes, hash);
  }
}

interface Written {
  buffers: readonly Uint8Array[];
  index: number;
  offset: number;
  sent: () => void;
}

/** Both ends of one connection; the client's is the public one. */
export class SimLink {
  readonly port: number;
  /** The client's: bytes that arrived, and the end. */
  onBytes: (bytes: Buffer) => void = () => {};
  onClose: () => void = () => {};
  /** The client's end is closed. */
  isClosed = false;
  /** The broker knows that it ended. */
  isServerClosed = false;
  /** When something last happened to it that a client cannot tell from a broker that does not answer. */
  disturbedMs = -1;
  readonly #network: SimNetwork;
  readonly #habits: LinkHabits;
  readonly #handler: TransportHandler;
  #toServer: Buffer[] = [];
  #toServerBytes = 0;
  #isPaused = false;
  #isDelivering = false;
  #hasFinished = false;
  readonly #toClient: Written[] = [];
  #arriving: Buffer[] = [];
  #arrivingBytes = 0;
  #isTaking = false;
  #isArriving = false;
  #isStalled = false;
  #isDead = false;
  #isDestroyed = false;
  #serverClosedWaiters: (() => void)[] = [];

  constructor(network: SimNetwork, port: number, habits: LinkHabits, accept: Accept) {
    this.#network = network;
    this.#habits = habits;
    this.port = port;
    const transport: Transport = {
      localHost: 'broker',
      localPort: 9092,
      remoteHost: 'client',
      remotePort: port,
      write: (buffers, sent) => this.#written(buffers, sent),
      pause: () => {
        this.#isPaused = true;
      },
      resume: () => {
        this.#isPaused = false;
        this.#deliverSoon();
      },
      end: () => this.#destroyed(),
      destroy: () => this.#destroyed(),
    };
    this.#handler = accept(transport);
  }

  // --- the client's side ---

  write(bytes: Buffer): void {
    if (this.isClosed) return;
    this.#toServer.push(bytes);
    this.#toServerBytes += bytes.length;
    this.#deliverSoon();
  }

  /** What was written still arrives, then the connection ends. */
  close(): void {
    if (this.isClosed) return;
    this.#closeClient();
    this.#hasFinished = true;
    this.#deliverSoon();
    this.#later(UNNOTICED_MS, () => this.#closeServer());
  }

  /** Ends it in the middle: what is on its way has arrived or never does. `unnoticedMs`: how long the broker does not know. */
  cut(unnoticedMs = 0): void {
    if (this.#network.random.chance(0.5)) this.#deliverRest();
    this.#toServer = [];
    this.#toServerBytes = 0;
    this.#toClient.length = 0;
    this.#closeClient();
    this.#later(unnoticedMs + this.#delayMs(), () => this.#closeServer());
  }

  /** The client reads nothing for a while. */
  stall(ms: number): void {
    this.#isStalled = true;
    this.disturbedMs = this.#network.clock.monotonic() + ms;
    this.#later(ms, () => {
      this.#isStalled = false;
      this.#arriveSoon();
    });
  }

  /** The broker's process is gone: nothing it wrote and the network had not taken arrives. */
  die(): void {
    this.#isDead = true;
    this.#toClient.length = 0;
    this.#noteServerClosed();
    const delayMs = this.#delayMs() * this.#network.random.below(10);
    this.#laterEvenIfDead(delayMs, () => this.#closeClient());
  }

  /** For failures: what is where. */
  describe(): string {
    const { delayMsMax, pieceBytesMax, windowBytes } = this.#habits;
    const towards = `${this.#toServerBytes} bytes towards the broker${this.#isPaused ? ' (paused)' : ''}`;
    const back = `${this.#toClient.length} writes and ${this.#arrivingBytes} bytes back${this.#isStalled ? ' (stalled)' : ''}`;
    return `connection ${this.port} (${delayMsMax} ms, ${pieceBytesMax} B, window ${windowBytes} B): ${towards}, ${back}`;
  }

  /** Resolves when the broker knows of the end. */
  serverClosed(): Promise<void> {
    if (this.isServerClosed) return Promise.resolve();
    return new Promise((resolve) => this.#serverClosedWaiters.push(resolve));
  }

  #closeClient(): void {
    if (this.isClosed) return;
    this.isClosed = true;
    this.#arriving = [];
    this.#arrivingBytes = 0;
    this.#network.note(`${this.port} ended for the client`);
    this.onClose();
  }

  // --- towards the broker ---

  #deliverSoon(): void {
    if (this.#isDelivering || this.#isPaused || this.isServerClosed) return;
    if (this.#toServerBytes === 0 && !this.#hasFinished) return;
    this.#isDelivering = true;
    this.#later(this.#delayMs(), () => {
      this.#isDelivering = false;
      // Bytes already on their way arrive after a pause.
      if (this.#toServerBytes > 0) this.#deliver(this.#pieceBytes());
      else if (this.#hasFinished && !this.#isPaused) this.#closeServer();
      this.#deliverSoon();
    });
  }

  #deliver(pieceBytes: number): void {
    if (this.isServerClosed || this.#isDestroyed) return;
    const size = Math.min(pieceBytes, this.#toServerBytes, SHARED_BYTES);
    const target = this.#network.shared.subarray(0, size);
    takeInto(this.#toServer, target);
    this.#toServerBytes -= size;
    this.#network.note(`${this.port} to broker ${size}`, target);
    this.#handler.onBytes(target);
    target.fill(0xdb);
  }

  #deliverRest(): void {
    while (this.#toServerBytes > 0 && !this.#isPaused && !this.isServerClosed && !this.#isDestroyed) {
      this.#deliver(this.#pieceBytes());
    }
  }

  // --- towards the client ---

  #written(buffers: readonly Uint8Array[], sent: () => void): void {
    if (this.#isDead || this.isServerClosed || this.#isDestroyed) return;
    if (this.isClosed) {
      // Writing to a peer that is gone is answered with a reset.
      this.#later(this.#delayMs(), () => this.#closeServer());
      return;
    }
    this.#toClient.push({ buffers, index: 0, offset: 0, sent });
    this.#takeSoon();
  }

  #takeSoon(): void {
    if (this.#isTaking || this.#toClient.length === 0 || this.#arrivingBytes >= this.#habits.windowBytes) return;
    this.#isTaking = true;
    this.#later(this.#delayMs() / 4, () => {
      this.#isTaking = false;
      this.#take();
      this.#takeSoon();
    });
  }

  #take(): void {
    while (!this.isClosed && this.#toClient.length > 0 && this.#arrivingBytes < this.#habits.windowBytes) {
      const head = this.#toClient[0];
      const buffer = head.buffers[head.index];
      const room = this.#habits.windowBytes - this.#arrivingBytes;
      const piece = Buffer.from(buffer.subarray(head.offset, head.offset + room));
      this.#arriving.push(piece);
      this.#arrivingBytes += piece.length;
      head.offset += piece.length;
      if (head.offset < buffer.length) continue;
      head.index++;
      head.offset = 0;
      if (head.index < head.buffers.length) continue;
      this.#toClient.shift();
      head.sent();
    }
    this.#arriveSoon();
  }

  #arriveSoon(): void {
    if (this.#isArriving || this.#isStalled || this.isClosed || this.#arrivingBytes === 0) return;
    this.#isArriving = true;
    this.#laterEvenIfDead(this.#delayMs(), () => {
      this.#isArriving = false;
      if (this.isClosed || this.#isStalled) return;
      const piece = Buffer.alloc(Math.min(this.#pieceBytes(), this.#arrivingBytes));
      takeInto(this.#arriving, piece);
      this.#arrivingBytes -= piece.length;
      this.#network.note(`${this.port} to client ${piece.length}`, piece);
      this.onBytes(piece);
      this.#takeSoon();
      this.#arriveSoon();
    });
  }

  // --- the broker's end ---

  #destroyed(): void {
    if (this.#isDestroyed) return;
    this.#isDestroyed = true;
    this.#toClient.length = 0;
    this.#later(this.#delayMs(), () => this.#closeServer());
    this.#laterEvenIfDead(this.#delayMs() * 2, () => this.#closeClient());
  }

  #closeServer(): void {
    if (this.isServerClosed || this.#isDead) return;
    this.#noteServerClosed();
    this.#network.note(`${this.port} ended for the broker`);
    this.#handler.onClose();
    this.#closeClient();
  }

  #noteServerClosed(): void {
    this.isServerClosed = true;
    this.#network.links.delete(this);
    for (const resolve of this.#serverClosedWaiters.splice(0)) resolve();
  }

  #pieceBytes(): number {
    const { random } = this.#network;
    return random.chance(0.05) ? random.between(1, 8) : random.between(1, this.#habits.pieceBytesMax);
  }

  #delayMs(): number {
    return (this.#habits.delayMsMax * this.#network.random.below(1000)) / 1000;
  }

  #later(ms: number, callback: () => void): void {
    this.#network.clock.after(ms, () => {
      if (!this.#isDead) callback();
    });
  }
  #laterEvenIfDead(ms: number, callback: () => void): void {
    this.#network.clock.after(ms, callback);
  }
}

/** Fills `target` from the front of `chunks`, which hold at least as much. */
function takeInto(chunks: Buffer[], target: Buffer): void {
  let at = 0;
  let used = 0;
  while (at < target.length) {
    const chunk = chunks[used];
    const size = Math.min(chunk.length, target.length - at);
    chunk.copy(target, at, 0, size);
    at += size;
    if (size === chunk.length) used++;
    else chunks[used] = chunk.subarray(size);
  }
  if (used > 0) chunks.splice(0, used);
}
