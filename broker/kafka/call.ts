/**
 * What a handler of a Kafka API is given and what it owes (docs/architecture.md, "Connections").
 *
 * A handler runs in the order in which its connection's requests arrived. If it returns a promise, the connection's
 * next request is not started before that settles: use this only for what must be loaded to *execute*. The answer is
 * separate: `reply` is called exactly once, now or later (when a position is durable, when a fetch has enough); the
 * connection sends answers in request order. A handler that throws ends its connection: expected failures are answered.
 */
import type { Access, Operation, ResourceType } from '../access.ts';
import type { Broker } from '../broker.ts';

/** The connection as handlers see it. */
export interface ClientConnection {
  /** Who is there: `User:ANONYMOUS` until authentication exists. */
  readonly principal: string;
  /** Address and port the client connected to, for what is advertised. */
  readonly localHost: string;
  readonly localPort: number;
  readonly remoteHost: string;
  /** KIP-511: told by ApiVersions ≥ 3; empty before. */
  clientSoftwareName: string;
  clientSoftwareVersion: string;
  readonly isClosed: boolean;
  /** It will not stay for long: the client has shut down its side, or the broker stops. Nobody waits for more data then. */
  readonly isEnding: boolean;
  /** Called when the connection ends, so that waiters are dropped. Returns a function that withdraws it. */
  onClose(callback: () => void): () => void;
  /** Called once when `isEnding` or `isClosed` becomes true. Returns a function that withdraws it. */
  onEnding(callback: () => void): () => void;
}

export interface Call<Request, Response> {
  readonly request: Request;
  readonly version: number;
  readonly clientId: string;
  readonly connection: ClientConnection;
  /** Whether the principal may do this; asked for every named target. */
  allows(operation: Operation, type: ResourceType, name: string): boolean;
  /** `release` runs when the bytes were sent or the connection is gone. */
  reply(response: Response, release?: () => void): void;
  /** No answer at all (Produce with acks=0). */
  replyNothing(): void;
  /** Something failed that should not: tells the operator and ends the connection. For handlers that go on after they returned. */
  fail(error: unknown): void;
}

export type Handler<Request, Response> = (broker: Broker, call: Call<Request, Response>) => void | Promise<void>;

export type { Access, Operation, ResourceType };
