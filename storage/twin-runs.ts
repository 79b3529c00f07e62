/**
 * Finds runs of one journal record that hold the same batches: a message that goes to many queues lies in each of their
 * logs, and once in the journal. Only offsets may differ, which the table of the record tells; everything else is compared.
 */
import { batchSizeBytes } from '../protocol/record-batch.ts';
import type { AppendPart } from './journal-record.ts';
import type { Run } from './tail-cache.ts';

/** The base offset in front of a batch. */
const OFFSET_BYTES = 8;

/** By part: the number of an earlier part with equal batches, −1 if there is none. Undefined: there are no twins at all. */
export function twinsOf(appends: readonly AppendPart[]): Int32Array | undefined {
  if (appends.length < 2) return undefined;
  const seen = new Map<number, number>();
  let twins: Int32Array | undefined;
  for (let index = 0; index < appends.length; index++) {
    const { run } = appends[index];
    const earlier = seen.get(run.digest);
    if (earlier === undefined) seen.set(run.digest, index);
    else if (isTwin(appends[earlier].run, run)) {
      twins ??= new Int32Array(appends.length).fill(-1);
      twins[index] = earlier;
    }
  }
  return twins;
}

function isTwin(one: Run, other: Run): boolean {
  if (one.sizeBytes !== other.sizeBytes || one.batchCount !== other.batchCount) return false;
  const [bytes, otherBytes] = [one.slab.buffer, other.slab.buffer];
  const shift = other.position - one.position;
  const end = one.position + one.sizeBytes;
  for (let at = one.position; at < end; ) {
    const size = batchSizeBytes(bytes, at);
    const from = at + OFFSET_BYTES;
    if (bytes.compare(otherBytes, from + shift, at + size + shift, from, at + size) !== 0) return false;
    at += size;
  }
  return true;
}
