/**
 * Latency at a constant rate, open loop: a record's time runs from when it was *due*, so a broker that stalls is
 * charged for every record that had to wait (no coordinated omission). Acknowledgements (acks=all) and delivery to a
 * waiting consumer are measured in the same run.
 */
import { Worker } from 'node:worker_threads';
import { apis } from '../../protocol/kafka/apis.ts';
import { FrameReader } from '../../protocol/kafka/frame.ts';
import { batchBaseOffset, batchLastOffset, eachBatch } from '../../protocol/record-batch.ts';
import { LatencyHistogram } from '../histogram.ts';
import { nowUs } from '../machine.ts';
import type { SenderJob } from './latency-sender.ts';
import { connect, FETCH_VERSION, produceFrame, Wire } from './wire.ts';

export interface LatencyRun {
  port: number;
  /** One partition, empty: its offsets are the numbers of the records. */
  topic: string;
  recordBytes: number;
  recordsPerSecond: number;
  seconds: number;
}

export interface LatencyFigures {
  ack: LatencyHistogram;
  endToEnd: LatencyHistogram;
}

/** Time for both connections to settle before the first record is due. */
const LEAD_US = 300_000;
/** Answers that are later than this after the last send end the run with an error. */
const LATE_MS_MAX = 20_000;

export async function measureLatency(run: LatencyRun): Promise<LatencyFigures> {
  const count = Math.round(run.recordsPerSecond * run.seconds);
  const intervalUs = 1e6 / run.recordsPerSecond;
  const { bytes, errorCodeAt } = produceFrame(run.topic, run.recordBytes, Date.now());
  const producer = await connect(run.port);
  const consumer = await Wire.connect(run.port);
  const figures: LatencyFigures = { ack: new LatencyHistogram(), endToEnd: new LatencyHistogram() };
  const startUs = nowUs() + LEAD_US;
  const timer = setTimeout(
    () => {
      producer.destroy(new Error(`${figures.ack.count} of ${count} records were acknowledged in time`));
      consumer.close();
    },
    run.seconds * 1000 + LATE_MS_MAX,
  );
  try {
    const delivered = consume(consumer, run.topic, count, (offset, timeUs) => {
      figures.endToEnd.record(timeUs - (startUs + offset * intervalUs));
    });
    const acknowledged = new Promise<void>((resolve, reject) => {
      const frames = new FrameReader(1024 * 1024);
      producer.once('error', reject);
      producer.once('close', () => reject(new Error('the broker closed the connection')));
      producer.on('data', (chunk: Buffer) => {
        const timeUs = nowUs();
        frames.push(chunk);
        for (let frame = frames.next(); frame; frame = frames.next()) {
          // The frame comes without its length prefix.
          const errorCode = frame.readInt16BE(errorCodeAt - 4);
          if (errorCode !== 0) return reject(new Error(`Produce answered error ${errorCode}`));
          figures.ack.record(timeUs - (startUs + frame.readInt32BE(0) * intervalUs));
        }
        frames.keep();
        if (figures.ack.count === count) resolve();
      });
    });
    // Not in Node's types: the descriptor under the socket, which the sending thread writes to.
    const { fd } = (producer as unknown as { _handle: { fd: number } })._handle;
    const workerData: SenderJob = { fd, frame: bytes, count, startUs, intervalUs };
    const sender = new Worker(new URL('./latency-sender.js', import.meta.url), { workerData });
    const sent = new Promise<void>((resolve, reject) => {
      sender.once('error', reject);
      sender.once('exit', () => resolve());
    });
    await Promise.all([sent, acknowledged, delivered]);
  } finally {
    clearTimeout(timer);
    producer.destroy();
    consumer.close();
  }
  return figures;
}

/** Long polls until `count` records have come. */
async function consume(
  wire: Wire,
  topic: string,
  count: number,
  seen: (offset: number, timeUs: number) => void,
): Promise<void> {
  let next = 0;
  while (next < count) {
    const partitions = [{ partition: 0, fetchOffset: next, partitionMaxBytes: 1024 * 1024 }];
    const request = { maxWaitMs: 500, minBytes: 1, topics: [{ topic, partitions }] };
    const { errorCode, responses } = await wire.request(apis.Fetch, FETCH_VERSION, request);
    const timeUs = nowUs();
    if (errorCode !== 0) throw new Error(`Fetch answered error ${errorCode}`);
    const partition = responses[0]?.partitions[0];
    if (!partition?.records) continue;
    if (partition.errorCode !== 0) throw new Error(`Fetch answered error ${partition.errorCode}`);
    const { records } = partition;
    eachBatch(records, (position) => {
      const last = batchLastOffset(records, position);
      for (let offset = Math.max(next, batchBaseOffset(records, position)); offset <= last; offset++)
        seen(offset, timeUs);
      next = last + 1;
    });
  }
}
