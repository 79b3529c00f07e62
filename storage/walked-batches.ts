/**
 * The batches that a recovery has walked in one partition's segments, so that what the journal repeats of them is known
 * without reading the segments again. A batch is the same if offset, leader epoch and CRC are: an offset is given out once
 * in an epoch, and both copies were checked against their CRC.
 */
import { batchCrc, batchLastOffset, batchLeaderEpoch, batchSizeBytes } from '../protocol/record-batch.ts';

export class WalkedBatches {
  /** By position in the log, one entry a batch. */
  #offsets: number[] = [];
  #crcs: number[] = [];
  #epochs: number[] = [];
  /** Where the last question ended: the journal asks in the order of offsets. */
  #cursor = 0;

  /** Notes the batch at `position`, which has `offset` and follows those noted before. */
  note(bytes: Buffer, position: number, offset: number): void {
    this.#offsets.push(offset);
    this.#crcs.push(batchCrc(bytes, position));
    this.#epochs.push(batchLeaderEpoch(bytes, position));
  }

  /** Whether all batches in `bytes`, which begin at `baseOffset`, were walked. False says nothing. */
  hold(bytes: Buffer, baseOffset: number): boolean {
    const offsets = this.#offsets;
    let index = this.#cursor;
    while (index < offsets.length && offsets[index] < baseOffset) index++;
    let offset = baseOffset;
    for (let at = 0; at < bytes.length; at += batchSizeBytes(bytes, at), index++) {
      if (index >= offsets.length || offsets[index] !== offset) return false;
      if (this.#crcs[index] !== batchCrc(bytes, at) || this.#epochs[index] !== batchLeaderEpoch(bytes, at))
        return false;
      offset = batchLastOffset(bytes, at) + 1;
    }
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
