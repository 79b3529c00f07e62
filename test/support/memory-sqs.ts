/** The SQS door on the engine in memory, without sockets: what a test sends and what it gets are requests and answers. */
import { SqsDoor } from '../../adapters/sqs/door.ts';
import { BodyRefused, type HttpAnswer, type HttpRequest } from '../../broker/http-server.ts';
import { type MemoryBroker, openMemoryBroker } from './memory-broker.ts';
import { type Protocol, SqsClient } from './sqs-client.ts';

export interface MemorySqs extends MemoryBroker {
  readonly door: SqsDoor;
  /** Access keys; while there are none, nobody has to sign. */
  readonly keys: Map<string, { user: string; secret: string }>;
  request(init: RequestInit): MemoryRequest;
  /** Runs the clock until the answer is there. */
  client(protocol: Protocol): SqsClient;
  /** Runs the clock until `promise` is settled. */
  settle<T>(promise: Promise<T>): Promise<T>;
}

export interface RequestInit {
  readonly method?: string;
  /** With the query. */
  readonly target?: string;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: string | Buffer;
}

/** A request whose peer can go away. */
export class MemoryRequest implements HttpRequest {
  readonly method: string;
  readonly path: string;
  readonly query: URLSearchParams;
  readonly queryText: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly remoteHost = '127.0.0.1';
  readonly localHost = '127.0.0.1';
  readonly localPort = 9324;
  readonly answer: Promise<HttpAnswer>;
  readonly #body: Buffer;
  readonly #callbacks = new Set<() => void>();

  constructor(door: SqsDoor, { method = 'POST', target = '/', headers = {}, body = '' }: RequestInit) {
    const mark = target.indexOf('?');
    this.method = method;
    this.path = mark < 0 ? target : target.slice(0, mark);
    this.queryText = mark < 0 ? '' : target.slice(mark + 1);
    this.query = new URLSearchParams(this.queryText);
    this.headers = { host: 'localhost:9324', ...headers };
    this.#body = Buffer.from(body);
    this.answer = door.handle(this);
  }

  async body(bytesMax: number): Promise<Buffer> {
    if (this.#body.length > bytesMax) throw new BodyRefused('too-large', `a body of ${this.#body.length} bytes`);
    return this.#body;
  }
  whenClosed(callback: () => void): () => void {
    this.#callbacks.add(callback);
    return () => this.#callbacks.delete(callback);
  }
  /** The peer goes away. */
  close(): void {
    for (const callback of [...this.#callbacks]) callback();
  }
}

export async function openMemorySqs(values: Record<string, string | number | boolean> = {}): Promise<MemorySqs> {
  const memory = await openMemoryBroker(values);
  const { engine, clock, reports, broker } = memory;
  const { random, options, topics, queues, queueReader: reader, queueCommands, access } = broker;
  const keys = new Map<string, { user: string; secret: string }>();
  const door = new SqsDoor({
    engine,
    clock,
    random,
    options,
    topics,
    queues,
    access,
    reader,
    jobs: queueCommands.jobs,
    keyOf: (id) => keys.get(id),
    isOpen: () => keys.size === 0,
    report: (message, error) => void reports.push(`${message}: ${String(error)}`),
  });
  await door.load();
  const request = (init: RequestInit): MemoryRequest => new MemoryRequest(door, init);
  return {
    ...memory,
    door,
    keys,
    request,
    settle: (promise) => clock.settle(promise),
    client: (protocol) =>
      new SqsClient(async ({ path, headers, body }) => {
        const {
          status,
          headers: answered = {},
          body: text = '',
        } = await clock.settle(request({ target: path, headers, body }).answer);
        return { status, headers: new Headers(answered), text: text.toString() };
      }, protocol),
  };
}
