/**
 * The two sparse indexes of a segment, in Kafka's file formats (big-endian, no header):
 *
 *   .index      int32 last offset of a batch − base offset of the segment | int32 position of that batch
 *   .timeindex  int64 largest record timestamp so far | int32 last offset of its batch − base offset of the segment
 *
 * Offsets and timestamps rise strictly. Entries are made in memory when batches reach the segment file and saved when
 * the segment is sealed or checkpointed; what was not saved is rebuilt from the segment.
 */
import { readInt64, writeInt64 } from '../protocol/bytes.ts';

const OFFSET_ENTRY_BYTES = 8;
const TIME_ENTRY_BYTES = 12;

const noBytes = Buffer.alloc(0);

/** Common part: a growing array of fixed-size entries as they are in the file. */
class Entries {
  readonly #entryBytes: number;
  bytes: Buffer;
  count = 0;

  constructor(entryBytes: number, bytes?: Buffer) {
    this.#entryBytes = entryBytes;
    this.bytes = bytes ?? noBytes;
    this.count = Math.floor(this.bytes.length / entryBytes);
  }

  /** Position of a new last entry. */
  add(): number {
    const at = this.count * this.#entryBytes;
    if (at + this.#entryBytes > this.bytes.length) {
      // Not from the pool: a few bytes that stay would keep a whole piece of it, in each of a thousand partitions.
      const grown = Buffer.allocUnsafeSlow(Math.max(16 * this.#entryBytes, this.bytes.length * 2));
      this.bytes.copy(grown, 0, 0, at);
      this.bytes = grown;
    }
    this.count++;
    return at;
  }

  saved(): Buffer {
    return this.bytes.subarray(0, this.count * this.#entryBytes);
  }
}

export class OffsetIndex {
  readonly baseOffset: number;
  readonly #entries: Entries;

  /** Over the bytes of an index file, or empty. */
  constructor(baseOffset: number, bytes?: Buffer) {
    this.baseOffset = baseOffset;
    this.#entries = new Entries(OFFSET_ENTRY_BYTES, bytes);
  }

  get count(): number {
    return this.#entries.count;
  }
  get sizeBytes(): number {
    return this.#entries.bytes.length;
  }
  /** The file's content; valid until the next `add`. */
  get bytes(): Buffer {
    return this.#entries.saved();
  }

  add(lastOffset: number, position: number): void {
    const at = this.#entries.add();
    this.#entries.bytes.writeInt32BE(lastOffset - this.baseOffset, at);
    this.#entries.bytes.writeInt32BE(position, at + 4);
  }

  /** Position of the last indexed batch that ends at or before `offset`; 0 if there is none. */
  positionFor(offset: number): number {
    const { bytes, count } = this.#entries;
    const relative = offset - this.baseOffset;
    let low = 0;
    let high = count;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (bytes.readInt32BE(middle * OFFSET_ENTRY_BYTES) <= relative) low = middle + 1;
      else high = middle;
    }
    return low === 0 ? 0 : bytes.readInt32BE((low - 1) * OFFSET_ENTRY_BYTES + 4);
  }

  /** Position of the last indexed batch, 0 if there is none. */
  get lastPosition(): number {
    const { bytes, count } = this.#entries;
    return count === 0 ? 0 : bytes.readInt32BE((count - 1) * OFFSET_ENTRY_BYTES + 4);
  }

  /** Drops the entries of batches at or beyond `position`. */
  cut(position: number): void {
    const { bytes } = this.#entries;
    while (
      this.#entries.count > 0 &&
      bytes.readInt32BE((this.#entries.count - 1) * OFFSET_ENTRY_BYTES + 4) >= position
    ) {
      this.#entries.count--;
    }
  }

  /** Whether the entries can be those of a segment of `segmentBytes` that ends before `endOffset`. */
  isPlausible(segmentBytes: number, endOffset: number): boolean {
    const { bytes, count } = this.#entries;
    // No entry is for the first batch: zeros at the beginning are what a power cut has left, in one half or both.
    let offset = 0;
    let position = 0;
    for (let at = 0; at < count * OFFSET_ENTRY_BYTES; at += OFFSET_ENTRY_BYTES) {
      const nextOffset = bytes.readInt32BE(at);
      const nextPosition = bytes.readInt32BE(at + 4);
      if (nextOffset <= offset || nextPosition <= position) return false;
      offset = nextOffset;
      position = nextPosition;
    }
    return count === 0 || (offset + this.baseOffset < endOffset && position < segmentBytes);
  }
}

export class TimeIndex {
  readonly baseOffset: number;
  readonly #entries: Entries;

  constructor(baseOffset: number, bytes?: Buffer) {
    this.baseOffset = baseOffset;
    this.#entries = new Entries(TIME_ENTRY_BYTES, bytes);
  }

  get count(): number {
    return this.#entries.count;
  }
  get sizeBytes(): number {
    return this.#entries.bytes.length;
  }
  get bytes(): Buffer {
    return this.#entries.saved();
  }

  /** −1 if there is no entry. */
  get lastTimestamp(): number {
    const { bytes, count } = this.#entries;
    return count === 0 ? -1 : readInt64(bytes, (count - 1) * TIME_ENTRY_BYTES);
  }
  /** The base offset if there is no entry. */
  get lastOffset(): number {
    const { bytes, count } = this.#entries;
    return count === 0 ? this.baseOffset : this.baseOffset + bytes.readInt32BE((count - 1) * TIME_ENTRY_BYTES + 8);
  }

  /** Adds an entry unless the timestamp does not rise. */
  add(timestamp: number, lastOffset: number): void {
    const { count } = this.#entries;
    if (timestamp < 0) return;
    if (count > 0 && timestamp <= readInt64(this.#entries.bytes, (count - 1) * TIME_ENTRY_BYTES)) return;
    const at = this.#entries.add();
    writeInt64(this.#entries.bytes, at, timestamp);
    this.#entries.bytes.writeInt32BE(lastOffset - this.baseOffset, at + 8);
  }

  /** An offset below which every record is older than `timestamp`: where to begin to look for it. */
  offsetBefore(timestamp: number): number {
    const { bytes, count } = this.#entries;
    let low = 0;
    let high = count;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (readInt64(bytes, middle * TIME_ENTRY_BYTES) < timestamp) low = middle + 1;
      else high = middle;
    }
    return low === 0 ? this.baseOffset : this.baseOffset + bytes.readInt32BE((low - 1) * TIME_ENTRY_BYTES + 8);
  }

  /** Drops the entries of batches that end at or beyond `offset`. */
  cut(offset: number): void {
    const { bytes } = this.#entries;
    while (
      this.#entries.count > 0 &&
      this.baseOffset + bytes.readInt32BE((this.#entries.count - 1) * TIME_ENTRY_BYTES + 8) >= offset
    ) {
      this.#entries.count--;
    }
  }

  isPlausible(endOffset: number): boolean {
    const { bytes, count } = this.#entries;
    let timestamp = -1;
    let offset = -1;
    for (let at = 0; at < count * TIME_ENTRY_BYTES; at += TIME_ENTRY_BYTES) {
      const high = bytes.readInt32BE(at);
      if (high < 0 || high >= 0x20_0000) return false;
      if (at === 0 && bytes.readInt32BE(4) === 0 && high === 0) return false;
      const nextTimestamp = readInt64(bytes, at);
      const nextOffset = bytes.readInt32BE(at + 8);
      // Kafka's offsets may repeat here; ours rise with the timestamps.
      if (nextTimestamp <= timestamp || nextOffset <= offset) return false;
      timestamp = nextTimestamp;
      offset = nextOffset;
    }
    return offset + this.baseOffset < endOffset;
  }
}
