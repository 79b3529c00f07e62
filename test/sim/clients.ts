/**
 * A simulated client's connection: requests out, answers in, in order, over a `SimLink`. What all kinds of clients share:
 * they connect again, give up on requests after a while, and complain about a broker that leaves one unanswered.
 */
import { Reader } from '../../protocol/bytes.ts';
import { apis } from '../../protocol/kafka/apis.ts';
import { FrameReader, readResponseHeader } from '../../protocol/kafka/frame.ts';
import { frameOf } from '../support/raw-client.ts';
import type { SimClock } from '../support/sim-clock.ts';
import type { LinkHabits, SimLink, SimNetwork } from '../support/sim-network.ts';
import type { SimRandom } from '../support/sim-random.ts';
import type { GroupOracle } from './broker-groups-oracle.ts';
import type { SimNode } from './broker-node.ts';
import type { LogOracle } from './broker-oracle.ts';

type Apis = typeof apis;
export type ApiName = keyof Apis;
export type RequestOf<Name extends ApiName> = Parameters<Apis[Name]['writeRequest']>[1];
export type ResponseOf<Name extends ApiName> = ReturnType<Apis[Name]['readResponse']>;

export type PromiseKind =
  | 'produced'
  | 'committed'
  | 'assigned'
  | 'created'
  | 'deleted'
  | 'records deleted'
  | 'configured';

/** What every simulated client can reach. */
export interface World {
  readonly clock: SimClock;
  readonly network: SimNetwork;
  readonly node: SimNode;
  readonly log: LogOracle;
  readonly groups: GroupOracle;
  /** Clients finish what they do and return. */
  isEnding: boolean;
  /** Promises were broken as documented (`log.flush: written` and a power cut): only what holds even then is checked. */
  isLossy: boolean;
  /** When the disk was last slow, full or failing. */
  diskTroubleMs: number;
  /** Called when a client has been told something that must hold from now on: the best moment to pull the plug. */
  onPromise: ((what: PromiseKind) => void) | undefined;
  note(text: string): void;
  fail(text: string): void;
  sleep(ms: number): Promise<void>;
}

interface Waiting {
  name: ApiName;
  version: number;
  correlationId: number;
  sentMs: number;
  resolve: (response: unknown) => void;
}

/** What nobody waits longer for, beyond what the request itself asks to wait. */
const PATIENCE_MS = 30_000;
const GOOD_HABITS: LinkHabits = { delayMsMax: 0.2, pieceBytesMax: 65_536, windowBytes: 1_048_576 };

export class SimClient {
  readonly world: World;
  readonly name: string;
  readonly random: SimRandom;
  #link: SimLink | undefined;
  #frames = new FrameReader(64 * 1024 * 1024);
  #waiting: Waiting[] = [];
  #correlationId = 0;
  #receivedMs = 0;
  /** A connection without any trouble of its own. */
  readonly #isGood: boolean;

  constructor(world: World, name: string, options: { isGood?: boolean } = {}) {
    this.world = world;
    this.name = name;
    this.random = world.network.random.fork();
    this.#isGood = options.isGood === true;
  }

  get isConnected(): boolean {
    return this.#link !== undefined;
  }
  get link(): SimLink | undefined {
    return this.#link;
  }

  /** Waits until there is a connection. `isSure`: also until the broker knows that the last one has ended. */
  async connect(isSure = false): Promise<void> {
    const { world } = this;
    if (this.#link !== undefined) return;
    if (isSure) await this.#last?.serverClosed();
    for (;;) {
      await world.node.up();
      const { broker } = world.node;
      if (broker === undefined) continue;
      const link = world.network.connect(broker.acceptKafka, this.#isGood ? GOOD_HABITS : undefined);
      world.note(`${this.name} connects as ${link.port}`);
      this.#frames = new FrameReader(64 * 1024 * 1024);
      link.onBytes = (bytes) => this.#received(bytes);
      link.onClose = () => this.#closed(link);
      this.#link = link;
      this.#last = link;
      return;
    }
  }
  #last: SimLink | undefined;

  close(): void {
    this.#link?.close();
  }
  cut(unnoticedMs = 0): void {
    this.#link?.cut(unnoticedMs);
  }

  /** Sends without waiting for an answer (Produce with acks=0). */
  tell<Name extends ApiName>(name: Name, version: number, request: RequestOf<Name>): void {
    this.#link?.write(frameOf(name, version, request, ++this.#correlationId));
  }

  /** The answer; undefined if the connection ended first. `waitMs`: how long the request itself may take. */
  async ask<Name extends ApiName>(
    name: Name,
    version: number,
    request: RequestOf<Name>,
    waitMs = 0,
  ): Promise<ResponseOf<Name> | undefined> {
    const link = this.#link;
    if (link === undefined) return undefined;
    const { clock } = this.world;
    const correlationId = ++this.#correlationId;
    const answer = new Promise<unknown>((resolve) => {
      this.#waiting.push({ name, version, correlationId, sentMs: clock.monotonic(), resolve });
    });
    link.write(frameOf(name, version, request, correlationId));
    const timer = clock.after(waitMs + PATIENCE_MS, () => this.#givesUp(link, `${name} ${version}`, waitMs));
    const response = await answer;
    timer.cancel();
    // `name` picks one codec; the compiler cannot follow that through the union.
    return response as ResponseOf<Name> | undefined;
  }

  #givesUp(link: SimLink, what: string, waitMs: number): void {
    const { world, name } = this;
    const sinceMs = world.clock.monotonic() - waitMs - PATIENCE_MS;
    const isExcused =
      link.isClosed ||
      link.isServerClosed ||
      // Answers come, if slowly.
      this.#receivedMs >= sinceMs ||
      link.disturbedMs >= sinceMs ||
      world.diskTroubleMs >= sinceMs ||
      world.node.disturbedMs >= sinceMs;
    if (!isExcused) {
      world.fail(`${name}: ${what} was not answered within ${waitMs + PATIENCE_MS} ms; ${link.describe()}`);
    }
    link.cut();
  }

  #received(bytes: Buffer): void {
    this.#receivedMs = this.world.clock.monotonic();
    this.#frames.push(bytes);
    for (let frame = this.#frames.next(); frame; frame = this.#frames.next()) {
      const waiting = this.#waiting.shift();
      if (waiting === undefined) {
        this.world.fail(`${this.name} got an answer to nothing`);
        return;
      }
      const reader = new Reader(Buffer.from(frame));
      const answered = readResponseHeader(reader, apis[waiting.name], waiting.version);
      if (answered !== waiting.correlationId) {
        this.world.fail(`${this.name}: answer to ${answered} where ${waiting.correlationId} was next`);
        return;
      }
      waiting.resolve(apis[waiting.name].readResponse(reader, waiting.version));
    }
    this.#frames.keep();
  }

  #closed(link: SimLink): void {
    if (this.#link !== link) return;
    this.#link = undefined;
    for (const { resolve } of this.#waiting.splice(0)) resolve(undefined);
  }
}
