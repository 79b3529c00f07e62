/**
 * The batches that a recovery has walked in one partition's segments, so that what the journal repeats of them is known
 * without reading either again. A part of the journal is there if its offsets, leader epoch and fingerprint are: an offset
 * is given out once in an epoch, and both copies were checked against their CRCs.
 */
import { batchCrc, batchLastOffset, batchLeaderEpoch } from '../protocol/record-batch.ts';
import { runDigest } from './tail-cache.ts';

export class WalkedBatches {
  /** By position in the log, one entry a batch. */
  #offsets: number[] = [];
  #crcs: number[] = [];
  #epochs: number[] = [];
  /** After the last of them. */
  #endOffset = -1;
  /** Where the last question ended: the journal asks in the order of offsets. */
  #cursor = 0;

  /** Notes the batch at `position`, which has `offset` and follows those noted before. */
  note(bytes: Buffer, position: number, offset: number): void {
    this.#offsets.push(offset);
    this.#crcs.push(batchCrc(bytes, position));
    this.#epochs.push(batchLeaderEpoch(bytes, position));
    this.#endOffset = batchLastOffset(bytes, position) + 1;
  }

  /** Whether all batches of the part were walked. False says nothing. */
  hold(part: { baseOffset: number; nextOffset: number; leaderEpoch: number; digest: number }): boolean {
    const offsets = this.#offsets;
    let index = this.#cursor;
    while (index < offsets.length && offsets[index] < part.baseOffset) index++;
    let digest = 0;
    let offset = part.baseOffset;
    for (; offset < part.nextOffset; index++) {
      if (index >= offsets.length || offsets[index] !== offset) return false;
      if (this.#epochs[index] !== part.leaderEpoch) return false;
      digest = runDigest(digest, this.#crcs[index]);
      offset = index + 1 < offsets.length ? offsets[index + 1] : this.#endOffset;
    }
    if (offset !== part.nextOffset || digest !== part.digest) return false;
    this.#cursor = index;
    return true;
  }

  /** The segments are about to change below their end. */
  clear(): void {
    this.#offsets = [];
    this.#crcs = [];
    this.#epochs = [];
    this.#cursor = 0;
  }
}
