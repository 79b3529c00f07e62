/**
 * The smallest Kafka client that can drive a broker: one connection, answers in order, no retries. The generators use
 * its frames and its socket directly; topics are made and deleted with it, which takes milliseconds where the tools
 * start a JVM.
 */
import net from 'node:net';
import { type Chunks, Reader } from '../../protocol/bytes.ts';
import { apis } from '../../protocol/kafka/apis.ts';
import { FrameReader, readResponseHeader, requestFrame } from '../../protocol/kafka/frame.ts';
import { buildBatch } from '../../protocol/record-batch.ts';
import { sleep } from '../machine.ts';

/** Versions that both brokers serve and that name topics by name. */
export const PRODUCE_VERSION = 9;
export const FETCH_VERSION = 12;
const CREATE_TOPICS_VERSION = 5;
const DELETE_TOPICS_VERSION = 5;
const FRAME_BYTES_MAX = 100 * 1024 * 1024;
const TOPIC_READY_MS_MAX = 60_000;
const CLIENT = 'millrace-bench';

interface Api<Request, Response> {
  readonly key: number;
  readonly flexibleFrom: number;
  writeRequest(writer: Parameters<typeof apis.Produce.writeRequest>[0], value: Request, version: number): void;
  readResponse(reader: Reader, version: number): Response;
}

export class Wire {
  readonly socket: net.Socket;
  readonly #frames = new FrameReader(FRAME_BYTES_MAX);
  readonly #waiting: { resolve: (frame: Buffer) => void; reject: (error: Error) => void }[] = [];
  #correlationId = 0;

  /** Takes a connected socket. */
  constructor(socket: net.Socket) {
    this.socket = socket;
    const fail = (error: Error): void => {
      for (const { reject } of this.#waiting.splice(0)) reject(error);
    };
    socket.on('error', fail);
    socket.on('close', () => fail(new Error('the broker closed the connection')));
    socket.on('data', (chunk: Buffer) => {
      this.#frames.push(chunk);
      for (let frame = this.#frames.next(); frame; frame = this.#frames.next()) {
        // Copy: an answer is looked at after its chunk is gone.
        this.#waiting.shift()?.resolve(Buffer.from(frame));
      }
    });
  }

  static async connect(port: number): Promise<Wire> {
    return new Wire(await connect(port));
  }

  async request<Request, Response>(api: Api<Request, Response>, version: number, request: Request): Promise<Response> {
    const correlationId = this.#correlationId++;
    const frame = new Promise<Buffer>((resolve, reject) => this.#waiting.push({ resolve, reject }));
    this.socket.write(joined(requestFrame(api, version, { correlationId, clientId: CLIENT }, request)));
    const reader = new Reader(await frame);
    readResponseHeader(reader, api, version);
    return api.readResponse(reader, version);
  }

  /** Makes a topic and waits until each partition is served. */
  async createTopic(name: string, partitions: number, configs: Readonly<Record<string, string>> = {}): Promise<void> {
    const created = await this.request(apis.CreateTopics, CREATE_TOPICS_VERSION, {
      topics: [
        {
          name,
          numPartitions: partitions,
          replicationFactor: 1,
          assignments: [],
          configs: Object.entries(configs).map(([key, value]) => ({ name: key, value })),
        },
      ],
      timeoutMs: TOPIC_READY_MS_MAX,
    });
    const { errorCode, errorMessage } = created.topics[0];
    if (errorCode !== 0) throw new Error(`CreateTopics ${name}: error ${errorCode}, ${errorMessage}`);
    for (let waitedMs = 0; waitedMs < TOPIC_READY_MS_MAX; waitedMs += 20) {
      if (await this.#isServed(name, partitions)) return;
      await sleep(20);
    }
    throw new Error(`topic ${name} has no leader after a minute`);
  }

  /** Whether every partition answers a fetch; a leader in the metadata may not know yet that it is one. */
  async #isServed(topic: string, count: number): Promise<boolean> {
    const partitions = Array.from({ length: count }, (_, partition) => ({
      partition,
      fetchOffset: 0,
      partitionMaxBytes: 1,
    }));
    const request = { maxWaitMs: 0, minBytes: 0, topics: [{ topic, partitions }] };
    const { errorCode, responses } = await this.request(apis.Fetch, FETCH_VERSION, request);
    const answered = responses[0]?.partitions ?? [];
    return errorCode === 0 && answered.length === count && answered.every(({ errorCode: code }) => code === 0);
  }

  async deleteTopic(name: string): Promise<void> {
    const { responses } = await this.request(apis.DeleteTopics, DELETE_TOPICS_VERSION, {
      topicNames: [name],
      topics: [],
      timeoutMs: TOPIC_READY_MS_MAX,
    });
    const { errorCode } = responses[0];
    if (errorCode !== 0) throw new Error(`DeleteTopics ${name}: error ${errorCode}`);
  }

  /** Writes a batch of `count` small records. */
  async produce(topic: string, index: number, count: number): Promise<void> {
    const record = { key: null, value: Buffer.from('millrace'), timestamp: Date.now() };
    const records = buildBatch(Array.from({ length: count }, () => record));
    const topicData = [{ name: topic, partitionData: [{ index, records }] }];
    const request = { acks: -1, timeoutMs: 30_000, topicData };
    const { responses } = await this.request(apis.Produce, PRODUCE_VERSION, request);
    const { errorCode } = responses[0].partitionResponses[0];
    if (errorCode !== 0) throw new Error(`Produce ${topic}: error ${errorCode}`);
  }

  close(): void {
    this.socket.destroy();
  }
}

/** Opens a connection for one job. */
export async function withWire<Result>(port: number, job: (wire: Wire) => Promise<Result>): Promise<Result> {
  const wire = await Wire.connect(port);
  try {
    return await job(wire);
  } finally {
    wire.close();
  }
}

export function connect(port: number): Promise<net.Socket> {
  return new Promise((resolve, reject) => {
    const socket = net.connect({ port, host: '127.0.0.1', noDelay: true });
    socket.once('error', reject);
    socket.once('connect', () => {
      socket.removeListener('error', reject);
      resolve(socket);
    });
  });
}

/** Where a produce frame has its correlation id: after length, API key and version. */
export const CORRELATION_AT = 8;
/** Never a real partition, so its bytes are found in the frame. */
const PARTITION_MARK = 0x7a6b5c4d;

export interface ProduceFrame {
  bytes: Buffer;
  /** Where the partition's index is, to be overwritten. */
  partitionAt: number;
  /** Where the answer (with its length prefix) has the partition's error code. */
  errorCodeAt: number;
}

/** A produce request with acks=all of one batch with one record of `recordBytes`, to be patched and sent again and again. */
export function produceFrame(topic: string, recordBytes: number, timestamp: number): ProduceFrame {
  const value = Buffer.alloc(recordBytes, 'millrace ');
  const records = buildBatch([{ key: null, value, timestamp }]);
  const request = {
    acks: -1,
    timeoutMs: 30_000,
    topicData: [{ name: topic, partitionData: [{ index: PARTITION_MARK, records }] }],
  };
  const bytes = joined(requestFrame(apis.Produce, PRODUCE_VERSION, { correlationId: 0, clientId: CLIENT }, request));
  const mark = Buffer.alloc(4);
  mark.writeInt32BE(PARTITION_MARK);
  const partitionAt = bytes.indexOf(mark);
  bytes.writeInt32BE(0, partitionAt);
  // length, correlation id, tags, one topic: count, name with its length; one partition: count, index.
  return { bytes, partitionAt, errorCodeAt: 4 + 4 + 1 + 1 + (1 + topic.length) + 1 + 4 };
}

function joined(chunks: Chunks): Buffer {
  const buffers = chunks.map((chunk) => {
    if (chunk instanceof Uint8Array) return chunk;
    throw new TypeError('a request has no splices');
  });
  return buffers.length === 1 ? Buffer.from(buffers[0]) : Buffer.concat(buffers);
}
