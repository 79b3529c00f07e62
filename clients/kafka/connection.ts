/**
 * One connection to a Kafka broker: requests go out as they are made, answers are matched to them by correlation id.
 * The versions of each API are agreed on when the connection opens (KIP-35, KIP-511).
 *
 * Always: every request settles. When the connection ends, or an answer does not come in time, all that are pending
 * fail with a `ConnectionError` and the connection is closed.
 */
import { connect, type Socket } from 'node:net';
import { type Chunks, Reader } from '../../protocol/bytes.ts';
import { MillraceError, errors } from '../../protocol/errors.ts';
import { apis } from '../../protocol/kafka/apis.ts';
import { FrameReader, type RequestWriter, readResponseHeader, requestFrame } from '../../protocol/kafka/frame.ts';
import type { ApiVersionsResponse } from '../../protocol/kafka/messages.ts';
import type { Clock, Timer } from '../../storage/clock.ts';
import { ConnectionError, kafkaError } from './errors.ts';

/** What a connection needs of a row of `apis`. */
export interface Api<Request, Response> extends RequestWriter<Request> {
  readonly name: string;
  readonly minVersion: number;
  readonly maxVersion: number;
  readResponse(reader: Reader, version: number): Response;
}

export interface Address {
  readonly host: string;
  readonly port: number;
}

export interface ConnectionOptions {
  readonly clock: Clock;
  /** Names this program in the broker's logs and quotas. */
  readonly clientId: string;
  /** Default 10 s. */
  readonly connectTimeoutMs?: number | undefined;
  /** How long an answer may take, default 30 s. */
  readonly requestTimeoutMs?: number | undefined;
  /** Told to the broker (KIP-511). */
  readonly softwareVersion?: string | undefined;
}

export interface SendOptions {
  /** Highest version to use, where a later one means another request (topic ids instead of names). */
  readonly maxVersion?: number;
  readonly timeoutMs?: number;
}

interface Pending {
  readonly name: string;
  readonly timer: Timer;
  resolve(frame: Buffer): void;
  reject(error: Error): void;
}

/** Larger than any answer that a broker sends by default; a longer frame is a sign of another protocol. */
const RESPONSE_BYTES_MAX = 512 * 1024 * 1024;
const SOFTWARE_NAME = 'millrace';

export class KafkaConnection {
  readonly address: Address;
  readonly #socket: Socket;
  readonly #options: ConnectionOptions;
  readonly #frames = new FrameReader(RESPONSE_BYTES_MAX);
  readonly #pending = new Map<number, Pending>();
  readonly #served = new Map<number, { minVersion: number; maxVersion: number }>();
  readonly #features = new Map<string, { minVersion: number; maxVersion: number }>();
  #correlationId = 0;
  #failure: ConnectionError | undefined;

  private constructor(address: Address, socket: Socket, options: ConnectionOptions) {
    this.address = address;
    this.#socket = socket;
    this.#options = options;
    socket.on('data', (chunk) => this.#receive(chunk));
    socket.on('error', (error) => this.#fail(this.#lost(error)));
    socket.on('close', () => this.#fail(this.#lost()));
  }

  /** Connects and agrees on versions. A `ConnectionError` says what did not work. */
  static async open(address: Address, options: ConnectionOptions): Promise<KafkaConnection> {
    const socket = await openSocket(address, options);
    const connection = new KafkaConnection(address, socket, options);
    try {
      // A secured listener's handshake (SASL) has its place between these two lines.
      await connection.#negotiate();
      return connection;
    } catch (error) {
      connection.close();
      throw error;
    }
  }

  get isClosed(): boolean {
    return this.#failure !== undefined;
  }

  /** The version that `send` would use; undefined if the broker and this client have none in common. */
  version<Request, Response>(api: Api<Request, Response>, maxVersion = api.maxVersion): number | undefined {
    const served = this.#served.get(api.key);
    if (!served) return undefined;
    const version = Math.min(api.maxVersion, served.maxVersion, maxVersion);
    return version >= api.minVersion && version >= served.minVersion ? version : undefined;
  }

  /** What the broker says of a feature (KIP-584); undefined if it does not have it. */
  feature(feature: string): { readonly minVersion: number; readonly maxVersion: number } | undefined {
    return this.#features.get(feature);
  }

  /** Sends a request and answers the response. `build` makes the request for the version that was agreed on. */
  async send<Request, Response>(
    api: Api<Request, Response>,
    build: (version: number) => Request,
    options: SendOptions = {},
  ): Promise<Response> {
    const version = this.#versionOrThrow(api, options.maxVersion);
    return this.#exchange(
      api,
      version,
      build(version),
      (frame) => readResponse(api, version, frame),
      options.timeoutMs,
    );
  }

  /** Sends a request that has no answer (Produce with acks=0). */
  async sendUnanswered<Request, Response>(
    api: Api<Request, Response>,
    build: (version: number) => Request,
    options: SendOptions = {},
  ): Promise<void> {
    const version = this.#versionOrThrow(api, options.maxVersion);
    this.#write(requestFrame(api, version, this.#nextHeader(), build(version)));
  }

  /** Pending requests fail. May be called again. */
  close(): void {
    this.#fail(new ConnectionError(`the connection to ${name(this.address)} was closed`));
  }

  async #negotiate(): Promise<void> {
    const { ApiVersions } = apis;
    const softwareVersion = this.#options.softwareVersion ?? '0';
    const request = { clientSoftwareName: SOFTWARE_NAME, clientSoftwareVersion: softwareVersion };
    const read = (version: number) => (frame: Buffer) => {
      // A broker that does not know the version answers in version 0, with error 35 as its first field (KIP-511).
      const isUnknown = frame.readInt16BE(4) === errors.UNSUPPORTED_VERSION.kafka;
      return readResponse(ApiVersions, isUnknown ? 0 : version, frame);
    };
    const ask = (version: number): Promise<ApiVersionsResponse> =>
      this.#exchange(ApiVersions, version, request, read(version));
    let response = await ask(ApiVersions.maxVersion);
    if (response.errorCode === errors.UNSUPPORTED_VERSION.kafka) {
      const own = response.apiKeys.find(({ apiKey }) => apiKey === ApiVersions.key);
      response = await ask(Math.min(own?.maxVersion ?? 0, ApiVersions.maxVersion));
    }
    if (response.errorCode !== 0) throw kafkaError(response.errorCode, `ApiVersions of ${name(this.address)}`);
    for (const { apiKey, minVersion, maxVersion } of response.apiKeys) {
      this.#served.set(apiKey, { minVersion, maxVersion });
    }
    for (const { name: feature, minVersion, maxVersion } of response.supportedFeatures ?? []) {
      this.#features.set(feature, { minVersion, maxVersion });
    }
  }

  #versionOrThrow<Request, Response>(api: Api<Request, Response>, maxVersion?: number): number {
    const version = this.version(api, maxVersion);
    if (version !== undefined) return version;
    const served = this.#served.get(api.key);
    const theirs = served ? `${served.minVersion} to ${served.maxVersion}` : 'none';
    throw new MillraceError(
      'UNSUPPORTED_VERSION',
      `${name(this.address)} serves versions of ${api.name}: ${theirs}; this client knows ${api.minVersion} to ${maxVersion ?? api.maxVersion}`,
    );
  }

  #exchange<Request, Response>(
    api: Api<Request, Response>,
    version: number,
    request: Request,
    read: (frame: Buffer) => Response,
    timeoutMs = this.#options.requestTimeoutMs ?? 30_000,
  ): Promise<Response> {
    const header = this.#nextHeader();
    const frame = requestFrame(api, version, header, request);
    return new Promise<Buffer>((resolve, reject) => {
      const timer = this.#options.clock.after(timeoutMs, () => {
        this.#fail(new ConnectionError(`${name(this.address)} did not answer ${api.name} within ${timeoutMs} ms`));
      });
      this.#pending.set(header.correlationId, { name: api.name, timer, resolve, reject });
      this.#write(frame);
    }).then(read);
  }

  #nextHeader(): { correlationId: number; clientId: string } {
    this.#correlationId = (this.#correlationId + 1) & 0x7fff_ffff;
    return { correlationId: this.#correlationId, clientId: this.#options.clientId };
  }

  #write(frame: Chunks): void {
    if (this.#failure) {
      this.#failPending(this.#failure);
      return;
    }
    this.#socket.cork();
    for (const chunk of frame) if (chunk instanceof Uint8Array) this.#socket.write(chunk);
    this.#socket.uncork();
  }

  #receive(chunk: Buffer): void {
    try {
      this.#frames.push(chunk);
      for (let frame = this.#frames.next(); frame; frame = this.#frames.next()) {
        const correlationId = frame.length >= 4 ? frame.readInt32BE(0) : -1;
        const pending = this.#pending.get(correlationId);
        if (!pending) throw new ConnectionError(`an answer to no request (correlation id ${correlationId})`);
        this.#pending.delete(correlationId);
        pending.timer.cancel();
        pending.resolve(frame);
      }
    } catch (error) {
      this.#fail(
        new ConnectionError(`${name(this.address)} does not answer in Kafka's protocol: ${text(error)}`, {
          cause: error,
        }),
      );
    }
  }

  /** Only the first failure counts. */
  #fail(error: ConnectionError): void {
    if (this.#failure) return;
    this.#failure = error;
    this.#socket.destroy();
    this.#frames.close();
    this.#failPending(error);
  }

  #failPending(error: ConnectionError): void {
    for (const pending of this.#pending.values()) {
      pending.timer.cancel();
      pending.reject(error);
    }
    this.#pending.clear();
  }

  #lost(cause?: Error): ConnectionError {
    const [first] = this.#pending.values();
    const before = first ? ` before it answered ${first.name}` : '';
    const hint = first?.name === 'ApiVersions' ? '; is it a Kafka listener without TLS?' : '';
    const why = cause ? ` (${reason(cause)})` : '';
    return new ConnectionError(`${name(this.address)} closed the connection${before}${why}${hint}`, { cause });
  }
}

function readResponse<Request, Response>(api: Api<Request, Response>, version: number, frame: Buffer): Response {
  const reader = new Reader(frame);
  readResponseHeader(reader, api, version);
  return api.readResponse(reader, version);
}

function openSocket(address: Address, { clock, connectTimeoutMs = 10_000 }: ConnectionOptions): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const socket = connect({ host: address.host, port: address.port, noDelay: true });
    const fail = (why: string, cause?: Error) => {
      timer.cancel();
      socket.destroy();
      reject(new ConnectionError(`cannot connect to ${name(address)}: ${why}`, { cause }));
    };
    const timer = clock.after(connectTimeoutMs, () => fail(`no answer within ${connectTimeoutMs} ms`));
    const onError = (error: Error) => fail(reason(error), error);
    socket.once('error', onError);
    socket.once('connect', () => {
      timer.cancel();
      socket.off('error', onError);
      resolve(socket);
    });
  });
}

/** `host:port`, with brackets around an IPv6 address. */
export function name({ host, port }: Address): string {
  return host.includes(':') ? `[${host}]:${port}` : `${host}:${port}`;
}

const REASONS: Record<string, string> = {
  ECONNREFUSED: 'connection refused',
  ECONNRESET: 'connection reset',
  ENOTFOUND: 'no such host',
  EAI_AGAIN: 'the host name could not be looked up',
  EHOSTUNREACH: 'host unreachable',
  ENETUNREACH: 'network unreachable',
  ETIMEDOUT: 'timed out',
};

/** A host with several addresses fails with an error that collects theirs. */
function reason(error: Error & { code?: string; errors?: readonly Error[] }): string {
  return REASONS[error.code ?? ''] ?? (error.message || (error.errors?.map(text).join(', ') ?? 'failed'));
}

function text(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
