/** A Kafka connection for tests that send what no proper client would: raw frames out, raw frames in. */
import net from 'node:net';
import { once } from 'node:events';
import { Reader, type Chunks } from '../../protocol/bytes.ts';
import { apis } from '../../protocol/kafka/apis.ts';
import { FrameReader, readResponseHeader, requestFrame } from '../../protocol/kafka/frame.ts';

type Apis = typeof apis;
type RequestOf<Name extends keyof Apis> = Parameters<Apis[Name]['writeRequest']>[1];
type ResponseOf<Name extends keyof Apis> = ReturnType<Apis[Name]['readResponse']>;

export class RawClient {
  readonly socket: net.Socket;
  readonly #frames = new FrameReader(1024 * 1024 * 1024);
  readonly #arrived: Buffer[] = [];
  readonly #waiting: ((frame: Buffer | undefined) => void)[] = [];
  isClosed = false;
  #correlationId = 0;

  private constructor(socket: net.Socket) {
    this.socket = socket;
    socket.on('data', (chunk: Buffer) => {
      this.#frames.push(chunk);
      for (let frame = this.#frames.next(); frame; frame = this.#frames.next()) {
        const copy = Buffer.from(frame);
        const waiting = this.#waiting.shift();
        if (waiting) waiting(copy);
        else this.#arrived.push(copy);
      }
    });
    // A reset is one of the answers these tests ask for.
    socket.on('error', () => {});
    socket.on('close', () => {
      this.isClosed = true;
      for (const waiting of this.#waiting.splice(0)) waiting(undefined);
    });
  }

  static async connect(bootstrap: string): Promise<RawClient> {
    const [host, port] = bootstrap.split(':');
    const socket = net.connect({ host, port: Number(port), noDelay: true });
    await once(socket, 'connect');
    return new RawClient(socket);
  }

  send(bytes: Uint8Array): void {
    this.socket.write(bytes);
  }

  /** The next frame's content; undefined when the broker closed the connection instead. */
  frame(): Promise<Buffer | undefined> {
    const frame = this.#arrived.shift();
    if (frame) return Promise.resolve(frame);
    if (this.isClosed) return Promise.resolve(undefined);
    return new Promise((resolve) => this.#waiting.push(resolve));
  }

  /** Sends a request and reads its answer; answers must come in order. */
  async ask<Name extends keyof Apis>(name: Name, version: number, request: RequestOf<Name>): Promise<ResponseOf<Name>> {
    const correlationId = ++this.#correlationId;
    this.send(frameOf(name, version, request, correlationId));
    const frame = await this.frame();
    if (!frame) throw new Error(`the broker closed the connection instead of answering ${name} ${version}`);
    const reader = new Reader(frame);
    const answered = readResponseHeader(reader, apis[name], version);
    if (answered !== correlationId)
      throw new Error(`answer to request ${answered} where ${correlationId} was expected`);
    // `name` picks one codec; the compiler cannot follow that through the union.
    return apis[name].readResponse(reader, version) as ResponseOf<Name>;
  }

  close(): void {
    this.socket.destroy();
  }
}

/** A whole request frame as bytes. */
export function frameOf<Name extends keyof Apis>(
  name: Name,
  version: number,
  request: RequestOf<Name>,
  correlationId = 1,
): Buffer {
  // As above: one codec, picked by name.
  const api = apis[name] as unknown as Parameters<typeof requestFrame<unknown>>[0];
  const chunks: Chunks = requestFrame<unknown>(api, version, { correlationId, clientId: 'raw' }, request);
  return Buffer.concat(chunks.map((chunk) => (chunk instanceof Uint8Array ? chunk : Buffer.alloc(0))));
}
