/**
 * What the records of one partition say about their own delivery: priority, not-before, expiry, group. The queues of the
 * partition decide from this and never open a batch. One index serves all queues of a partition; it can be rebuilt from
 * the log. At most 24 bytes a record that says anything, nothing for the others.
 *
 * Entries are numbered in the order of their offsets, for good, and kept in chunks. A chunk has a column of offsets (4 bytes an
 * entry, from the first one on) and others once an entry needs them: group and link to the next entry of the group (8),
 * priority (1), not-before and expiry (5 each: 40 bits of milliseconds).
 */
import type { MessageAttributes } from './queue.ts';

const CHUNK_ENTRIES = 1024;
const TWO_32 = 4_294_967_296;
/** Times are stored from 8.7 years before the first one to 26 years after it; others are taken for the nearest of these. */
const TIME_MAX = 2 ** 40 - 1;
const TIME_BEFORE = 2 ** 38;

interface TimeColumn {
  readonly low: Uint32Array;
  readonly high: Uint8Array;
}

interface Chunk {
  readonly firstOffset: number;
  lastOffset: number;
  count: number;
  readonly offsets: Uint32Array;
  groups: Uint32Array | undefined;
  /** Number of the group's next entry minus this one's; 0: there is none yet. */
  links: Uint32Array | undefined;
  priorities: Uint8Array | undefined;
  notBefore: TimeColumn | undefined;
  expires: TimeColumn | undefined;
}

export class AttributeIndex {
  #chunks: Chunk[] = [];
  /** Number of the first chunk since the index began; entry n is in chunk n / 1024. */
  #firstChunk = 0;
  #trimmedTo = 0;
  #count = 0;
  /** Chunk that the last search by offset ended in. */
  #recent = 0;
  #timeBaseMs: number | undefined;
  #expiringCount = 0;

  #groupIds = new Map<string, number>();
  #groupNames: (string | undefined)[] = [undefined];
  /** Entries of the group, and the newest of them. */
  #groupCounts: number[] = [0];
  #groupNewest: number[] = [-1];
  #freeGroups: number[] = [];

  /** How many records have an entry. */
  get count(): number {
    return this.#count;
  }

  /** Memory of the entries, without group names. */
  get sizeBytes(): number {
    let bytes = 0;
    for (const chunk of this.#chunks) {
      bytes += 4 + (chunk.groups ? 8 : 0) + (chunk.priorities ? 1 : 0);
      bytes += (chunk.notBefore ? 5 : 0) + (chunk.expires ? 5 : 0);
    }
    return bytes * CHUNK_ENTRIES;
  }

  /** True if any record expires by itself. */
  get hasExpiry(): boolean {
    return this.#expiringCount > 0;
  }

  /** Group ids are below this. */
  get groupIdEnd(): number {
    return this.#groupNames.length;
  }

  /**
   * Adds the attributes of a record, offsets rising; called before `QueueState.extend` reaches it. A record that says
   * nothing (priority 0, due, never expires, no group) takes no entry.
   */
  append(offset: number, attributes: MessageAttributes): void {
    const { priority, notBeforeMs, expiresAtMs, group } = attributes;
    if (priority === 0 && notBeforeMs <= 0 && expiresAtMs === Number.POSITIVE_INFINITY && group === undefined) return;
    this.add(offset, priority, notBeforeMs, expiresAtMs, group === undefined ? 0 : this.groupId(group));
  }

  /** As `append`, of a record that says something; its group by the id that `groupId` has just given, 0: none. */
  add(offset: number, priority: number, notBeforeMs: number, expiresAtMs: number, group: number): void {
    const chunk = this.#chunkFor(offset);
    const index = chunk.count++;
    const number = (this.#firstChunk + this.#chunks.length - 1) * CHUNK_ENTRIES + index;
    chunk.offsets[index] = offset - chunk.firstOffset;
    chunk.lastOffset = offset;
    this.#count++;
    if (priority !== 0) {
      chunk.priorities ??= new Uint8Array(CHUNK_ENTRIES);
      chunk.priorities[index] = Math.min(priority, 255);
    }
    if (notBeforeMs > 0) {
      chunk.notBefore ??= newTimeColumn();
      this.#writeTime(chunk.notBefore, index, notBeforeMs);
    }
    if (expiresAtMs !== Number.POSITIVE_INFINITY) {
      chunk.expires ??= newTimeColumn();
      this.#writeTime(chunk.expires, index, expiresAtMs);
      this.#expiringCount++;
    }
    if (group !== 0) this.#joinGroup(chunk, index, number, group);
  }

  #chunkFor(offset: number): Chunk {
    const last = this.#chunks.at(-1);
    if (last !== undefined && offset <= last.lastOffset) {
      throw new RangeError(`attributes of offset ${offset} come after those of ${last.lastOffset}`);
    }
    if (last !== undefined && last.count < CHUNK_ENTRIES && offset - last.firstOffset < TWO_32) return last;
    const chunk: Chunk = {
      firstOffset: offset,
      lastOffset: offset,
      count: 0,
      offsets: new Uint32Array(CHUNK_ENTRIES),
      groups: undefined,
      links: undefined,
      priorities: undefined,
      notBefore: undefined,
      expires: undefined,
    };
    this.#chunks.push(chunk);
    return chunk;
  }

  /** The id of a group by its name; a new one must be used at once, else it is never free again. */
  groupId(name: string): number {
    let id = this.#groupIds.get(name);
    if (id === undefined) {
      id = this.#freeGroups.pop() ?? this.#groupNames.length;
      this.#groupIds.set(name, id);
      this.#groupNames[id] = name;
      this.#groupCounts[id] = 0;
      this.#groupNewest[id] = -1;
    }
    return id;
  }
  /** Undefined: no record is of this group now. */
  groupName(id: number): string | undefined {
    return this.#groupNames[id];
  }

  #joinGroup(chunk: Chunk, index: number, number: number, id: number): void {
    chunk.groups ??= new Uint32Array(CHUNK_ENTRIES);
    chunk.links ??= new Uint32Array(CHUNK_ENTRIES);
    chunk.groups[index] = id;
    const newest = this.#groupNewest[id];
    if (newest >= 0) {
      const { links } = this.#chunks[chunkOf(newest) - this.#firstChunk];
      if (links !== undefined) links[newest & (CHUNK_ENTRIES - 1)] = number - newest;
    }
    this.#groupNewest[id] = number;
    this.#groupCounts[id]++;
  }

  /** Forgets what is below `offset`, once no queue of the partition has anything unfinished there. */
  trim(offset: number): void {
    if (offset <= this.#trimmedTo) return;
    this.#trimmedTo = offset;
    let gone = 0;
    while (gone < this.#chunks.length && this.#chunks[gone].lastOffset < offset) this.#forget(this.#chunks[gone++]);
    if (gone === 0) return;
    this.#chunks.splice(0, gone);
    this.#firstChunk += gone;
    this.#recent = 0;
  }

  #forget(chunk: Chunk): void {
    this.#count -= chunk.count;
    if (chunk.expires) {
      for (let i = 0; i < chunk.count; i++) if (hasTime(chunk.expires, i)) this.#expiringCount--;
    }
    if (!chunk.groups) return;
    for (let i = 0; i < chunk.count; i++) {
      const id = chunk.groups[i];
      if (id === 0 || --this.#groupCounts[id] > 0) continue;
      // Set whenever the count is above 0.
      this.#groupIds.delete(this.#groupNames[id] as string);
      this.#groupNames[id] = undefined;
      this.#freeGroups.push(id);
    }
  }

  /** Undefined: the record says nothing. The dedup id is not kept. */
  get(offset: number): MessageAttributes | undefined {
    const number = offset < this.#trimmedTo ? -1 : this.find(offset);
    if (number < 0) return undefined;
    return {
      priority: this.priorityAt(number),
      notBeforeMs: this.notBeforeAt(number),
      expiresAtMs: this.expiresAt(number),
      group: this.#groupNames[this.groupAt(number)],
      dedupId: undefined,
    };
  }

  /** Number of the record's entry, −1 if it has none. */
  find(offset: number): number {
    const number = this.firstFrom(offset);
    return number >= 0 && this.offsetAt(number) === offset ? number : -1;
  }

  /** False if the entry was forgotten. */
  has(number: number): boolean {
    return chunkOf(number) >= this.#firstChunk;
  }

  /** The lowest entry of a group that is still here, −1 if there is none. Looks at all before it. */
  firstOfGroup(group: number): number {
    let entry = this.#chunks.length === 0 ? -1 : this.#firstChunk * CHUNK_ENTRIES;
    while (entry >= 0 && this.groupAt(entry) !== group) entry = this.following(entry);
    return entry;
  }

  /** Number of the first entry at or above `offset`, −1 if there is none. */
  firstFrom(offset: number): number {
    const chunks = this.#chunks;
    if (chunks.length === 0 || offset > chunks[chunks.length - 1].lastOffset) return -1;
    let at = this.#recent;
    if (at >= chunks.length || offset < chunks[at].firstOffset || offset > chunks[at].lastOffset) {
      // What is appended is asked for between what is handed out, far below.
      if (offset >= chunks[chunks.length - 1].firstOffset) at = chunks.length - 1;
      else this.#recent = at = this.#searchChunk(offset);
    }
    const chunk = chunks[at];
    const base = (this.#firstChunk + at) * CHUNK_ENTRIES;
    const target = offset - chunk.firstOffset;
    if (target <= 0) return base;
    const offsets = chunk.offsets;
    // If every record has an entry, it is exactly there; an entry is never further on.
    let high = Math.min(target, chunk.count - 1);
    if (offsets[high] === target) return base + high;
    let low = 0;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (offsets[middle] < target) low = middle + 1;
      else high = middle;
    }
    return base + low;
  }

  /** Index of the first chunk that ends at or above `offset`. */
  #searchChunk(offset: number): number {
    const chunks = this.#chunks;
    const { firstOffset } = chunks[0];
    const span = chunks[chunks.length - 1].lastOffset + 1 - firstOffset;
    // Where it is if entries lie evenly: a look at each step of a search would miss the processor's caches.
    const guess = Math.floor((Math.max(0, offset - firstOffset) / span) * chunks.length);
    if (offset <= chunks[guess].lastOffset && (guess === 0 || chunks[guess - 1].lastOffset < offset)) return guess;
    let low = 0;
    let high = chunks.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (chunks[middle].lastOffset < offset) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  /** The entry after this one, −1 if there is none. */
  following(number: number): number {
    const at = chunkOf(number) - this.#firstChunk;
    if ((number & (CHUNK_ENTRIES - 1)) + 1 < this.#chunks[at].count) return number + 1;
    return at + 1 < this.#chunks.length ? (this.#firstChunk + at + 1) * CHUNK_ENTRIES : -1;
  }

  offsetAt(number: number): number {
    const chunk = this.#chunks[chunkOf(number) - this.#firstChunk];
    return chunk.firstOffset + chunk.offsets[number & (CHUNK_ENTRIES - 1)];
  }

  priorityAt(number: number): number {
    const { priorities } = this.#chunks[chunkOf(number) - this.#firstChunk];
    return priorities === undefined ? 0 : priorities[number & (CHUNK_ENTRIES - 1)];
  }

  /** 0: none. */
  groupAt(number: number): number {
    const { groups } = this.#chunks[chunkOf(number) - this.#firstChunk];
    return groups === undefined ? 0 : groups[number & (CHUNK_ENTRIES - 1)];
  }

  /** The next entry of the same group, −1 if there is none yet. */
  nextInGroup(number: number): number {
    const { links } = this.#chunks[chunkOf(number) - this.#firstChunk];
    const link = links === undefined ? 0 : links[number & (CHUNK_ENTRIES - 1)];
    return link === 0 ? -1 : number + link;
  }

  /** 0: at once. */
  notBeforeAt(number: number): number {
    const { notBefore } = this.#chunks[chunkOf(number) - this.#firstChunk];
    const index = number & (CHUNK_ENTRIES - 1);
    return notBefore !== undefined && hasTime(notBefore, index) ? this.#readTime(notBefore, index) : 0;
  }

  /** Infinity: never. */
  expiresAt(number: number): number {
    const { expires } = this.#chunks[chunkOf(number) - this.#firstChunk];
    const index = number & (CHUNK_ENTRIES - 1);
    return expires !== undefined && hasTime(expires, index) ? this.#readTime(expires, index) : Number.POSITIVE_INFINITY;
  }

  #writeTime(column: TimeColumn, index: number, ms: number): void {
    this.#timeBaseMs ??= Math.floor(ms) - TIME_BEFORE;
    // 0 stands for none. Fractions are rounded up: never early.
    const value = Math.min(TIME_MAX, Math.max(1, Math.ceil(ms) - this.#timeBaseMs));
    column.low[index] = value % TWO_32;
    column.high[index] = Math.floor(value / TWO_32);
  }

  #readTime(column: TimeColumn, index: number): number {
    return column.high[index] * TWO_32 + column.low[index] + (this.#timeBaseMs ?? 0);
  }
}

function newTimeColumn(): TimeColumn {
  return { low: new Uint32Array(CHUNK_ENTRIES), high: new Uint8Array(CHUNK_ENTRIES) };
}

function hasTime(column: TimeColumn, index: number): boolean {
  return column.low[index] !== 0 || column.high[index] !== 0;
}

function chunkOf(number: number): number {
  return Math.floor(number / CHUNK_ENTRIES);
}
