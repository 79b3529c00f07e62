/**
 * Key → offset of its newest record, for compaction: open addressing over one shared buffer of fixed size, so that a worker
 * fills it without copies. Keys are known by half of their SHA-256: two that differ never meet, also if somebody tries.
 *
 *     int32 count, 12 bytes of padding | float64 offset + 1 (0: free) × slots | 16 bytes of hash × slots
 *
 * 24 bytes a slot, as Apache Kafka's offset map; at most nine slots of ten are used.
 */
import { hash } from 'node:crypto';

const HEAD_BYTES = 16;
const SLOT_BYTES = 24;
const LOAD = 0.9;
const SLOTS_MIN = 64;

export class KeyMap {
  readonly buffer: SharedArrayBuffer;
  readonly capacity: number;
  readonly #slots: number;
  readonly #counts: Int32Array;
  readonly #offsets: Float64Array;
  readonly #hashes: Uint32Array;
  readonly #wanted = new Uint32Array(4);

  /** Over the buffer of another one, or of `allocate`. */
  constructor(buffer: SharedArrayBuffer) {
    this.buffer = buffer;
    this.#slots = Math.floor((buffer.byteLength - HEAD_BYTES) / SLOT_BYTES);
    this.capacity = Math.floor(this.#slots * LOAD);
    this.#counts = new Int32Array(buffer, 0, 1);
    this.#offsets = new Float64Array(buffer, HEAD_BYTES, this.#slots);
    this.#hashes = new Uint32Array(buffer, HEAD_BYTES + this.#slots * 8, this.#slots * 4);
  }

  /** Empty, with room for `keyCount` keys or for what fits into `bytesMax`. */
  static allocate(keyCount: number, bytesMax: number): KeyMap {
    const slots = Math.max(SLOTS_MIN, Math.ceil(keyCount / LOAD) + 1);
    const fitting = Math.max(SLOTS_MIN, Math.floor((bytesMax - HEAD_BYTES) / SLOT_BYTES));
    return new KeyMap(new SharedArrayBuffer(HEAD_BYTES + Math.min(slots, fitting) * SLOT_BYTES));
  }

  get count(): number {
    return this.#counts[0];
  }
  get isFull(): boolean {
    return this.#counts[0] >= this.capacity;
  }

  /** A later offset of the same key replaces the earlier one. Not when it is full. */
  put(key: Uint8Array, offset: number): void {
    const slot = this.#find(key);
    if (this.#offsets[slot] === 0) {
      this.#counts[0]++;
      this.#hashes.set(this.#wanted, slot * 4);
    }
    this.#offsets[slot] = offset + 1;
  }

  /** −1 if the key is not there. */
  get(key: Uint8Array): number {
    return this.#offsets[this.#find(key)] - 1;
  }

  /** Its slot, or the free one where it would be. */
  #find(key: Uint8Array): number {
    const wanted = this.#wanted;
    const digest = hash('sha256', key, 'binary');
    for (let word = 0; word < 4; word++) {
      const at = word * 4;
      wanted[word] =
        (digest.charCodeAt(at) << 24) |
        (digest.charCodeAt(at + 1) << 16) |
        (digest.charCodeAt(at + 2) << 8) |
        digest.charCodeAt(at + 3);
    }
    const hashes = this.#hashes;
    for (let slot = wanted[0] % this.#slots; ; slot = slot + 1 === this.#slots ? 0 : slot + 1) {
      if (this.#offsets[slot] === 0) return slot;
      const at = slot * 4;
      if (
        hashes[at] === wanted[0] &&
        hashes[at + 1] === wanted[1] &&
        hashes[at + 2] === wanted[2] &&
        hashes[at + 3] === wanted[3]
      ) {
        return slot;
      }
    }
  }
}
