/**
 * The deduplication window of one queue: the ids of the last `windowMs`, each as 12 bytes of SHA-256 with the place of its
 * first send. For each partition a ring of entries in time order, in chunks; over them a hash table of entry numbers.
 * 21 to 26 B an id. (Of ten million ids two meet once in 10^15 times.)
 *
 *   entry   hash 3 × uint32 | offset since the chunk's first, 16 bits | ms since the chunk began, 16 bits         16 B
 *   table   number of the entry + 1, uint32; 0 is free. Linear probing; 64 parts, so that growing one is short
 *
 * The records of the log carry their ids: the log is the truth and this an index of it. `takeChanges` writes down only
 * what is durable there, so that no id ever speaks for a record that a crash took back; after a restart what the log has
 * from `coveredOffset` on is added again.
 *
 * Always true: an id within the window is found; when there is no room the send is refused (throttled), never passed.
 */
import assert from 'node:assert';
import { hash as digestOf } from 'node:crypto';
import { MillraceError } from '../protocol/errors.ts';

/** Ids of all queues together, against `queue.dedup.max`. */
export class DedupBudget {
  readonly idsMax: number;
  ids = 0;

  constructor(idsMax: number) {
    this.idsMax = idsMax;
  }
}

export interface DedupOptions {
  /** `dedup.window.ms` */
  readonly windowMs: number;
  readonly budget: DedupBudget;
  /**
   * How much longer an id is kept than it counts: so long a record may take from its append to being looked at, where the
   * time of its append decides. Default 0.
   */
  readonly graceMs?: number;
}

/** The first send of an id. */
export interface DedupEntry {
  readonly partition: number;
  readonly offset: number;
  readonly timeMs: number;
}

/** 12 bytes that stand for an id. They are good until the next call. */
export function dedupHash(id: string | Uint8Array): Buffer {
  // A buffer for each of millions of ids costs more memory than the ids.
  newestHash.write(digestOf('sha256', id, 'binary'), 0, HASH_BYTES, 'latin1');
  return newestHash;
}

/** Entries of a chunk: 32 KiB. One that follows a chunk which did not fill up begins small: ids may come one a minute. */
const CHUNK_BITS = 11;
const CHUNK_ENTRIES = 1 << CHUNK_BITS;
const CHUNK_ENTRIES_MIN = 16;
const CHUNK_MASK = CHUNK_ENTRIES - 1;
const ENTRY_WORDS = 4;
const HASH_WORDS = 3;
const HASH_BYTES = 12;
const PLACE_WORD = 3;
const UINT16_MAX = 2 ** 16 - 1;
const PARTS = 64;
const PART_SLOTS_MIN = 16;
/** A part of the table grows when more of its slots than this are taken, and shrinks when fewer than an eighth are. */
const LOAD_MAX = 0.8;
const PIECE_BYTES = 256 * 1024;
const VERSION = 2;
/** Had 16 bytes of each hash. */
const VERSION_16 = 1;
const RESET = 1;
const HEADER_BYTES = 2;
const SECTION_BYTES = 13;
const WRITTEN_BYTES = 24;
const NO_SLOTS = new Uint32Array(0);
const newestHash = Buffer.alloc(HASH_BYTES);

/** Entries of one partition, in order of offset and time. */
class Chunk {
  readonly id: number;
  words: Uint32Array;
  readonly baseOffset: number;
  readonly startMs: number;
  /** Entries from `first` (those before have expired) to `count`; those before `taken` are in the state log. */
  first = 0;
  taken = 0;
  count = 0;

  constructor(id: number, baseOffset: number, startMs: number, entries: number) {
    this.id = id;
    this.baseOffset = baseOffset;
    this.startMs = startMs;
    this.words = new Uint32Array(entries * ENTRY_WORDS);
  }

  /** There is room for one more. */
  takes(offset: number, timeMs: number): boolean {
    const isNear = offset - this.baseOffset <= UINT16_MAX && timeMs - this.startMs <= UINT16_MAX;
    return isNear && this.count < CHUNK_ENTRIES;
  }
  grow(): void {
    const words = new Uint32Array(this.words.length * 2);
    words.set(this.words);
    this.words = words;
  }

  offsetOf(at: number): number {
    return this.baseOffset + (this.words[at * ENTRY_WORDS + PLACE_WORD] >>> 16);
  }
  timeOf(at: number): number {
    return this.startMs + (this.words[at * ENTRY_WORDS + PLACE_WORD] & UINT16_MAX);
  }
}

/** The ids of one partition of the queue. */
interface Ring {
  readonly partition: number;
  /** Oldest first; none is empty. */
  readonly chunks: Chunk[];
  /** What the log has below needs no look after a restart; and how much of that the state log says. */
  covered: number;
  writtenCover: number;
  newestMs: number;
}

export class DedupWindow {
  windowMs: number;
  readonly #budget: DedupBudget;
  readonly #graceMs: number;
  readonly #rings = new Map<number, Ring>();
  /** By id; some ids are free. */
  readonly #chunks: (Chunk | undefined)[] = [];
  readonly #freeIds: number[] = [];
  readonly #ringOfChunk: (Ring | undefined)[] = [];
  #size = 0;
  readonly #parts: Uint32Array[] = new Array<Uint32Array>(PARTS).fill(NO_SLOTS);
  readonly #taken = new Uint32Array(PARTS);
  /** Ids were taken back that the state log may have. */
  #mustReset = false;

  constructor({ windowMs, budget, graceMs = 0 }: DedupOptions) {
    this.windowMs = windowMs;
    this.#budget = budget;
    this.#graceMs = graceMs;
  }

  /** Ids in memory, some of them perhaps expired. */
  get size(): number {
    return this.#size;
  }
  /** Memory of the arrays. */
  get sizeBytes(): number {
    let sizeBytes = 0;
    for (const chunk of this.#chunks) sizeBytes += chunk?.words.byteLength ?? 0;
    for (const part of this.#parts) sizeBytes += part.byteLength;
    return sizeBytes;
  }

  /** The first send of this id, if it is within the window. */
  find(hash: Uint8Array, nowMs: number): DedupEntry | undefined {
    const slot = this.#slotOf(hash);
    if (slot < 0) return undefined;
    const number = this.#parts[partOf(hash[0])][slot] - 1;
    const chunk = this.#chunkOf(number);
    const at = number & CHUNK_MASK;
    const timeMs = chunk.timeOf(at);
    if (timeMs + this.windowMs <= nowMs) return undefined;
    return { partition: this.#ringOfChunk[chunk.id]?.partition ?? 0, offset: chunk.offsetOf(at), timeMs };
  }

  /** Makes room for `count` ids by forgetting expired ones, or throws THROTTLING_QUOTA_EXCEEDED. Before the append. */
  checkRoom(count: number, nowMs: number): void {
    const budget = this.#budget;
    if (budget.ids + count <= budget.idsMax) return;
    this.expire(nowMs, Number.POSITIVE_INFINITY);
    if (budget.ids + count <= budget.idsMax) return;
    throw new MillraceError(
      'THROTTLING_QUOTA_EXCEEDED',
      `${budget.ids} ids are remembered for deduplication and at most ${budget.idsMax} may be (queue.dedup.max): sends are refused until some expire`,
    );
  }

  /**
   * Remembers the first send; takes the place of an expired one of the same id. After `find` found nothing; in order of
   * offsets for each partition.
   */
  add(hash: Uint8Array, { partition, offset, timeMs }: DedupEntry): void {
    const ring = this.#ring(partition);
    // Entries are in time order, whatever the wall clock does.
    ring.newestMs = Math.max(ring.newestMs, timeMs);
    const number = this.#append(ring, hash, offset, ring.newestMs);
    const slot = this.#slotOf(hash);
    if (slot < 0) this.#insert(partOf(hash[0]), number);
    else {
      // After a restart partitions come one after the other: the later send stays.
      const slots = this.#parts[partOf(hash[0])];
      if (this.#timeOf(slots[slot] - 1) <= timeMs) slots[slot] = number + 1;
    }
    if (offset >= ring.covered) ring.covered = offset + 1;
  }

  /** The log of `partition` below `offset` has nothing to add after a restart, once that is durable. */
  cover(partition: number, offset: number): void {
    const ring = this.#ring(partition);
    if (offset > ring.covered) ring.covered = offset;
  }

  /** After `applyChanges`: what the log of this partition has from here on must be added again. */
  coveredOffset(partition: number): number {
    return this.#rings.get(partition)?.covered ?? 0;
  }

  /** Forgets up to `countMax` (default 10,000) ids that have expired and had their grace. Answers how many. */
  expire(nowMs: number, countMax = 10_000): number {
    let count = 0;
    for (const ring of this.#rings.values()) {
      while (count < countMax && ring.chunks.length > 0) {
        const chunk = ring.chunks[0];
        if (chunk.timeOf(chunk.first) + this.windowMs + this.#graceMs > nowMs) break;
        this.#removeOldest(ring, chunk);
        count++;
      }
    }
    return count;
  }

  /** When the oldest id may be forgotten; infinity if there is none. */
  get nextExpiryMs(): number {
    let next = Number.POSITIVE_INFINITY;
    for (const { chunks } of this.#rings.values()) {
      if (chunks.length > 0) next = Math.min(next, chunks[0].timeOf(chunks[0].first) + this.windowMs);
    }
    return next + this.#graceMs;
  }

  /** Forgets everything, for a queue that is deleted. */
  clear(): void {
    this.#budget.ids -= this.#size;
    this.#size = 0;
    this.#rings.clear();
    this.#chunks.length = 0;
    this.#freeIds.length = 0;
    this.#ringOfChunk.length = 0;
    this.#parts.fill(NO_SLOTS);
    this.#taken.fill(0);
  }

  /**
   * What is to be written to the state log: ids whose records have become durable since the last call. All of it, in
   * order, on a fresh window (`applyChanges`) gives the same ids. Ids that wait for their records are left for later.
   * `highWatermark` answers the durable end of a partition's log.
   */
  takeChanges(highWatermark: (partition: number) => number): Buffer | undefined {
    const sections: Buffer[] = [];
    for (const ring of this.#rings.values()) {
      const durableOffset = highWatermark(ring.partition);
      const pieces: EntryRange[] = [];
      let cover = Math.min(ring.covered, durableOffset);
      for (let index = firstUntaken(ring.chunks); index < ring.chunks.length; index++) {
        const chunk = ring.chunks[index];
        let until = chunk.taken;
        while (until < chunk.count && chunk.offsetOf(until) < durableOffset) until++;
        if (until > chunk.taken) pieces.push({ chunk, from: Math.max(chunk.taken, chunk.first), until });
        chunk.taken = until;
        if (until < chunk.count) {
          cover = Math.min(cover, chunk.offsetOf(until));
          break;
        }
      }
      if (pieces.length === 0 && cover <= ring.writtenCover) continue;
      ring.writtenCover = Math.max(cover, ring.writtenCover);
      sections.push(section(ring, pieces));
    }
    if (this.#mustReset) {
      this.#mustReset = false;
      return Buffer.concat([header(RESET), ...this.#takenSections()]);
    }
    return sections.length === 0 ? undefined : Buffer.concat([header(0), ...sections]);
  }

  /** Pieces that rebuild what `takeChanges` has given so far; the first resets. They count together or not at all. */
  *snapshot(): Iterable<Buffer> {
    let sections: Buffer[] = [header(RESET)];
    let sizeBytes = HEADER_BYTES;
    for (const part of this.#takenSections()) {
      if (sizeBytes + part.length > PIECE_BYTES) {
        yield Buffer.concat(sections);
        sections = [header(0)];
        sizeBytes = HEADER_BYTES;
      }
      sections.push(part);
      sizeBytes += part.length;
    }
    yield Buffer.concat(sections);
  }

  *#takenSections(): Iterable<Buffer> {
    for (const ring of this.#rings.values()) {
      // The cover is said even if there are no ids.
      if (ring.chunks.length === 0) yield section(ring, []);
      for (const chunk of ring.chunks) yield section(ring, [{ chunk, from: chunk.first, until: chunk.taken }]);
    }
  }

  /**
   * After the log was loaded: its partition ends at `endOffset`, whatever was remembered. Only where `log.flush` is
   * `written` can a power cut take back what the state log has kept.
   */
  forgetFrom(partition: number, endOffset: number): void {
    const ring = this.#rings.get(partition);
    if (ring === undefined || ring.covered <= endOffset) return;
    for (let chunk = ring.chunks.at(-1); chunk !== undefined; chunk = ring.chunks.at(-1)) {
      while (chunk.count > chunk.first && chunk.offsetOf(chunk.count - 1) >= endOffset) {
        this.#removeSlot(((chunk.id << CHUNK_BITS) | (chunk.count - 1)) >>> 0);
        chunk.count--;
        this.#size--;
        this.#budget.ids--;
      }
      if (chunk.taken > chunk.count) chunk.taken = chunk.count;
      if (chunk.count > chunk.first) break;
      ring.chunks.pop();
      this.#freeChunk(chunk);
    }
    ring.covered = endOffset;
    ring.writtenCover = Math.min(ring.writtenCover, endOffset);
    this.#mustReset = true;
  }

  /** What has expired is taken in as well: a record that is looked at later may lean on it. */
  applyChanges(bytes: Buffer): void {
    assert(bytes[0] === VERSION || bytes[0] === VERSION_16, `version ${bytes[0]} of a deduplication window`);
    const unusedBytes = bytes[0] === VERSION_16 ? 4 : 0;
    const entryBytes = WRITTEN_BYTES + unusedBytes;
    if ((bytes[1] & RESET) !== 0) this.clear();
    for (let at = HEADER_BYTES; at < bytes.length; ) {
      const partition = bytes.readUIntBE(at, 3);
      const cover = bytes.readUIntBE(at + 3, 6);
      const end = at + SECTION_BYTES + bytes.readUInt32BE(at + 9) * entryBytes;
      for (at += SECTION_BYTES; at < end; at += entryBytes) {
        const place = at + HASH_BYTES + unusedBytes;
        const offset = bytes.readUIntBE(place, 6);
        this.add(bytes.subarray(at, place), { partition, offset, timeMs: bytes.readUIntBE(place + 6, 6) });
      }
      const ring = this.#ring(partition);
      ring.covered = cover;
      ring.writtenCover = cover;
      for (const chunk of ring.chunks) chunk.taken = chunk.count;
    }
  }

  #ring(partition: number): Ring {
    let ring = this.#rings.get(partition);
    if (ring === undefined) {
      ring = { partition, chunks: [], covered: 0, writtenCover: 0, newestMs: 0 };
      this.#rings.set(partition, ring);
    }
    return ring;
  }

  #chunkOf(number: number): Chunk {
    const chunk = this.#chunks[number >>> CHUNK_BITS];
    assert(chunk !== undefined);
    return chunk;
  }

  /** Answers the entry's number. */
  #append(ring: Ring, hash: Uint8Array, offset: number, timeMs: number): number {
    let chunk = ring.chunks.at(-1);
    if (chunk === undefined || !chunk.takes(offset, timeMs)) {
      const id = this.#freeIds.pop() ?? this.#chunks.length;
      chunk = new Chunk(id, offset, timeMs, chunk?.count === CHUNK_ENTRIES ? CHUNK_ENTRIES : CHUNK_ENTRIES_MIN);
      this.#chunks[id] = chunk;
      this.#ringOfChunk[id] = ring;
      ring.chunks.push(chunk);
    }
    assert(offset >= chunk.baseOffset, `ids of partition ${ring.partition} in order of offsets`);
    const at = chunk.count++;
    const base = at * ENTRY_WORDS;
    if (base === chunk.words.length) chunk.grow();
    for (let word = 0; word < HASH_WORDS; word++) chunk.words[base + word] = wordOf(hash, word);
    chunk.words[base + PLACE_WORD] = ((offset - chunk.baseOffset) << 16) | (timeMs - chunk.startMs);
    this.#size++;
    this.#budget.ids++;
    return ((chunk.id << CHUNK_BITS) | at) >>> 0;
  }

  #removeOldest(ring: Ring, chunk: Chunk): void {
    const at = chunk.first;
    this.#removeSlot(((chunk.id << CHUNK_BITS) | at) >>> 0);
    chunk.first++;
    if (chunk.taken < chunk.first) chunk.taken = chunk.first;
    this.#size--;
    this.#budget.ids--;
    if (chunk.first < chunk.count) return;
    ring.chunks.shift();
    this.#freeChunk(chunk);
  }

  #freeChunk({ id }: Chunk): void {
    this.#chunks[id] = undefined;
    this.#ringOfChunk[id] = undefined;
    this.#freeIds.push(id);
  }

  /** Where the id is in its part of the table; −1 if it is not. */
  #slotOf(hash: Uint8Array): number {
    const slots = this.#parts[partOf(hash[0])];
    if (slots.length === 0) return -1;
    const mask = slots.length - 1;
    const home = wordOf(hash, 1);
    for (let slot = home & mask; slots[slot] !== 0; slot = (slot + 1) & mask) {
      const number = slots[slot] - 1;
      const { words } = this.#chunkOf(number);
      const base = (number & CHUNK_MASK) * ENTRY_WORDS;
      if (words[base + 1] === home && words[base] === wordOf(hash, 0) && words[base + 2] === wordOf(hash, 2)) {
        return slot;
      }
    }
    return -1;
  }

  #timeOf(number: number): number {
    return this.#chunkOf(number).timeOf(number & CHUNK_MASK);
  }
  #homeOf(number: number): number {
    return this.#chunkOf(number).words[(number & CHUNK_MASK) * ENTRY_WORDS + 1];
  }

  #insert(part: number, number: number): void {
    if (this.#taken[part] + 1 > this.#parts[part].length * LOAD_MAX) {
      this.#resize(part, Math.max(PART_SLOTS_MIN, this.#parts[part].length * 2));
    }
    place(this.#parts[part], this.#homeOf(number), number);
    this.#taken[part]++;
  }

  #resize(part: number, slotCount: number): void {
    const slots = new Uint32Array(slotCount);
    for (const value of this.#parts[part]) if (value !== 0) place(slots, this.#homeOf(value - 1), value - 1);
    this.#parts[part] = slots;
  }

  /** Unless a newer entry of the same id has taken the slot. Later ones of the run move up, so that no mark is left. */
  #removeSlot(number: number): void {
    const part = partOf(this.#chunkOf(number).words[(number & CHUNK_MASK) * ENTRY_WORDS] >>> 24);
    const slots = this.#parts[part];
    const mask = slots.length - 1;
    let hole = this.#homeOf(number) & mask;
    while (slots[hole] !== number + 1) {
      if (slots[hole] === 0) return;
      hole = (hole + 1) & mask;
    }
    for (let next = (hole + 1) & mask; slots[next] !== 0; next = (next + 1) & mask) {
      const home = this.#homeOf(slots[next] - 1) & mask;
      if (((next - home) & mask) < ((next - hole) & mask)) continue;
      slots[hole] = slots[next];
      hole = next;
    }
    slots[hole] = 0;
    this.#taken[part]--;
    if (slots.length > PART_SLOTS_MIN && this.#taken[part] * 8 < slots.length) this.#resize(part, slots.length / 2);
  }
}

/** Of the first byte of a hash. */
function partOf(byte: number): number {
  return byte & (PARTS - 1);
}

function wordOf(hash: Uint8Array, word: number): number {
  const at = word * 4;
  return ((hash[at] << 24) | (hash[at + 1] << 16) | (hash[at + 2] << 8) | hash[at + 3]) >>> 0;
}

function place(slots: Uint32Array, home: number, number: number): void {
  const mask = slots.length - 1;
  let slot = home & mask;
  while (slots[slot] !== 0) slot = (slot + 1) & mask;
  slots[slot] = number + 1;
}

function firstUntaken(chunks: readonly Chunk[]): number {
  let index = chunks.length;
  while (index > 0 && chunks[index - 1].taken < chunks[index - 1].count) index--;
  return index;
}

interface EntryRange {
  readonly chunk: Chunk;
  readonly from: number;
  readonly until: number;
}

/** version int8 | flags int8, then sections. */
function header(flags: number): Buffer {
  return Buffer.from([VERSION, flags]);
}

/** partition uint24 | covered uint48 | count uint32 | of each id: hash 12 B, offset uint48, ms since 1970 uint48 */
function section({ partition, writtenCover }: Ring, ranges: readonly EntryRange[]): Buffer {
  let count = 0;
  for (const { from, until } of ranges) count += until - from;
  const bytes = Buffer.allocUnsafe(SECTION_BYTES + count * WRITTEN_BYTES);
  bytes.writeUIntBE(partition, 0, 3);
  bytes.writeUIntBE(writtenCover, 3, 6);
  bytes.writeUInt32BE(count, 9);
  let at = SECTION_BYTES;
  for (const { chunk, from, until } of ranges) {
    for (let entry = from; entry < until; entry++, at += WRITTEN_BYTES) {
      for (let word = 0; word < HASH_WORDS; word++) {
        bytes.writeUInt32BE(chunk.words[entry * ENTRY_WORDS + word], at + word * 4);
      }
      bytes.writeUIntBE(chunk.offsetOf(entry), at + HASH_BYTES, 6);
      bytes.writeUIntBE(chunk.timeOf(entry), at + HASH_BYTES + 6, 6);
    }
  }
  return bytes;
}
