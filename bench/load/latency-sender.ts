/**
 * The sending half of the latency generator, in a thread of its own: record `i` leaves `i × interval` after the start,
 * whatever happened to those before it. It sleeps until shortly before its time and spins the rest, because a timer
 * alone is tens of microseconds late; nothing else runs in this thread, so reading answers does not delay a send.
 */
import fs from 'node:fs';
import { workerData } from 'node:worker_threads';
import { nowUs } from '../machine.ts';
import { CORRELATION_AT } from './wire.ts';

export interface SenderJob {
  /** The connected socket of the other thread. */
  fd: number;
  frame: Uint8Array;
  count: number;
  startUs: number;
  intervalUs: number;
}

/** Wake up this long before a send is due. */
const EARLY_US = 150;

const job = workerData as SenderJob; // The thread is only started with this.
send(job);

function send({ fd, frame, count, startUs, intervalUs }: SenderJob): void {
  const bytes = Buffer.from(frame);
  const nobody = new Int32Array(new SharedArrayBuffer(4));
  for (let index = 0; index < count; index++) {
    const dueUs = startUs + index * intervalUs;
    const sleepUs = dueUs - nowUs() - EARLY_US;
    if (sleepUs > 0) Atomics.wait(nobody, 0, 0, sleepUs / 1000);
    while (nowUs() < dueUs);
    bytes.writeInt32BE(index, CORRELATION_AT);
    writeAll(fd, bytes);
  }
}

function writeAll(fd: number, bytes: Buffer): void {
  let offset = 0;
  while (offset < bytes.length) {
    try {
      offset += fs.writeSync(fd, bytes, offset);
    } catch (error) {
      // The socket's buffer is full: the broker has stopped reading. Its delay is measured, so go on trying.
      if ((error as NodeJS.ErrnoException).code !== 'EAGAIN') throw error;
    }
  }
}
