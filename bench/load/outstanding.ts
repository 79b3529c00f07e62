/**
 * Closed loop: a fixed number of one-record batches is outstanding over some connections; each acknowledgement sends
 * the next batch, to the next partition in turn. Shows what a commit costs when it touches one partition or a thousand.
 */
import type net from 'node:net';
import { FrameReader } from '../../protocol/kafka/frame.ts';
import { LatencyHistogram } from '../histogram.ts';
import { nowUs, sleep } from '../machine.ts';
import { CORRELATION_AT, connect, type ProduceFrame, produceFrame } from './wire.ts';

export interface OutstandingRun {
  port: number;
  topic: string;
  partitions: number;
  recordBytes: number;
  connections: number;
  /** Batches outstanding, all connections together. */
  outstanding: number;
  warmupSeconds: number;
  seconds: number;
}

export interface OutstandingFigures {
  recordsPerSecond: number;
  latency: LatencyHistogram;
  /** All acknowledged batches, those of the warm-up too. */
  acknowledged: number;
}

export async function measureOutstanding(run: OutstandingRun): Promise<OutstandingFigures> {
  const frame = produceFrame(run.topic, run.recordBytes, Date.now());
  const shared = {
    partition: 0,
    acknowledged: 0,
    latency: new LatencyHistogram(),
    isEnding: false,
    error: undefined as Error | undefined,
  };
  const sockets: net.Socket[] = [];
  const perConnection = Math.floor(run.outstanding / run.connections);
  for (let index = 0; index < run.connections; index++) sockets.push(await connect(run.port));
  try {
    for (const socket of sockets) drive(socket, frame, perConnection, run.partitions, shared);
    await sleep(run.warmupSeconds * 1000);
    shared.latency = new LatencyHistogram();
    const before = shared.acknowledged;
    const startUs = nowUs();
    await sleep(run.seconds * 1000);
    const recordsPerSecond = Math.round(((shared.acknowledged - before) * 1e6) / (nowUs() - startUs));
    shared.isEnding = true;
    if (shared.error) throw shared.error;
    return { recordsPerSecond, latency: shared.latency, acknowledged: shared.acknowledged };
  } finally {
    shared.isEnding = true;
    for (const socket of sockets) socket.destroy();
  }
}

interface Shared {
  /** Whose turn it is. */
  partition: number;
  acknowledged: number;
  latency: LatencyHistogram;
  isEnding: boolean;
  error: Error | undefined;
}

/** Keeps `outstanding` batches on their way over one connection. */
function drive(
  socket: net.Socket,
  { bytes, partitionAt, errorCodeAt }: ProduceFrame,
  outstanding: number,
  partitions: number,
  shared: Shared,
): void {
  const frames = new FrameReader(1024 * 1024);
  /** When each was sent; answers come in order, correlation ids go round. */
  const sentUs = new Float64Array(outstanding);
  let nextSlot = 0;
  const send = (count: number): void => {
    const buffer = Buffer.allocUnsafe(count * bytes.length);
    const timeUs = nowUs();
    for (let index = 0; index < count; index++) {
      const start = index * bytes.length;
      bytes.copy(buffer, start);
      buffer.writeInt32BE(nextSlot, start + CORRELATION_AT);
      buffer.writeInt32BE(shared.partition, start + partitionAt);
      shared.partition = (shared.partition + 1) % partitions;
      sentUs[nextSlot] = timeUs;
      nextSlot = (nextSlot + 1) % outstanding;
    }
    socket.write(buffer);
  };
  const fail = (error: Error): void => {
    if (!shared.isEnding) shared.error ??= error;
  };
  socket.on('error', fail);
  socket.on('close', () => fail(new Error('the broker closed the connection')));
  socket.on('data', (chunk: Buffer) => {
    const timeUs = nowUs();
    frames.push(chunk);
    let count = 0;
    for (let frame = frames.next(); frame; frame = frames.next()) {
      const errorCode = frame.readInt16BE(errorCodeAt - 4);
      if (errorCode !== 0) return fail(new Error(`Produce answered error ${errorCode}`));
      shared.latency.record(timeUs - sentUs[frame.readInt32BE(0)]);
      count++;
    }
    frames.keep();
    shared.acknowledged += count;
    if (count > 0 && !shared.isEnding) send(count);
  });
  send(outstanding);
}
