/**
 * What a queue has to know of single messages: those in flight, those that came back (with their counts), those that are
 * to leave. One row each, its columns in typed arrays: 48 bytes, and 8 to 16 for the table that finds a row by its offset.
 *
 * Rows are linked three ways: by offset (open addressing), by owner, and by deadline (`deadline-buckets.ts`). Row numbers are
 * good until `shrink` is called; 0 is no row.
 */
import { DeadlineBuckets } from './deadline-buckets.ts';
import type { OwnerId } from './queue.ts';

export const IN_FLIGHT = 1;
/** Came back, available again. */
export const READY = 2;
/** Came back with a delay; `untilMs` is its end. */
export const WAITING = 3;
/** Is to leave the queue; nobody has been told yet. */
export const LEAVING = 4;
/** Is to leave; the registry is about to. */
export const TAKEN = 5;
export type RowStatus = 1 | 2 | 3 | 4 | 5;

/** Bit of a status: marked by whoever walks over rows to notice those it meets twice. */
const MARK = 0x80;
const SMALLEST = 64;
/** Offsets that lie side by side find their rows side by side, in groups of this many. */
const CLUSTER_BITS = 4;
const FAILED_MAX = 0xffff;
/** Of the details of a row in flight: who took it (`queue-changes.ts`). */
const DOOR = 3;

/** How a message is in flight. */
export interface Flight {
  readonly owner: OwnerId;
  readonly details: number;
  readonly untilMs: number;
  readonly nowMs: number;
}

interface OwnerRows {
  readonly owner: OwnerId;
  first: number;
  count: number;
}

export class FlightTable {
  #capacity = SMALLEST;
  /** Rows ever used; those freed since are in a list that `#free` begins, linked by `#ownerNext`. */
  #used = 1;
  #free = 0;
  #count = 0;

  #offsets = new Float64Array(SMALLEST);
  #owners = new Uint32Array(SMALLEST);
  #acquired = new Uint32Array(SMALLEST);
  #failed = new Uint16Array(SMALLEST);
  #status = new Uint8Array(SMALLEST);
  #details = new Uint8Array(SMALLEST);
  /** When it was handed out for the first time; 0: not since the broker started. */
  #firstTakenMs = new Float64Array(SMALLEST);
  #ownerPrevious = new Uint32Array(SMALLEST);
  #ownerNext = new Uint32Array(SMALLEST);
  #deadlines = new DeadlineBuckets(SMALLEST);

  #slots = new Uint32Array(SMALLEST * 2);
  #ownerRows = new Map<OwnerId, OwnerRows>();
  /** One of them: who was looked for last is mostly looked for next. */
  #latestOwner: OwnerRows | undefined;
  /** Rows in flight, by door. */
  readonly #inFlight = new Uint32Array(DOOR + 1);

  get count(): number {
    return this.#count;
  }

  /** Memory of all columns and tables, used or not. */
  get sizeBytes(): number {
    return this.#capacity * (8 + 4 + 4 + 2 + 1 + 1 + 8 + 4 + 4) + this.#slots.byteLength + this.#deadlines.sizeBytes;
  }

  /** 0: there is none. */
  find(offset: number): number {
    const slots = this.#slots;
    const mask = slots.length - 1;
    let at = slotOf(offset, mask);
    for (;;) {
      const row = slots[at];
      if (row === 0 || this.#offsets[row] === offset) return row;
      at = (at + 1) & mask;
    }
  }

  /** As `find`, mostly without a search if `row` is that of the message before. */
  findAfter(row: number, offset: number): number {
    const next = row + 1;
    if (next < this.#used && this.#offsets[next] === offset && this.#status[next] !== 0) return next;
    return this.find(offset);
  }

  /** A new row without owner, deadline and counts. There must be none for this offset. */
  insert(offset: number, status: RowStatus, details: number): number {
    const row = this.#newRow();
    this.#offsets[row] = offset;
    this.#owners[row] = 0;
    this.#acquired[row] = 0;
    this.#failed[row] = 0;
    this.#status[row] = status;
    this.#details[row] = details;
    this.#firstTakenMs[row] = 0;
    this.#ownerNext[row] = 0;
    if (status === IN_FLIGHT) this.#inFlight[details & DOOR]++;
    if (this.#count * 2 > this.#slots.length) this.#rehash(this.#slots.length * 2);
    else this.#enter(row, offset);
    return row;
  }

  /** New rows of messages side by side that are handed out for the first time. There must be none for these offsets. */
  insertRun(offset: number, count: number, { owner, details, untilMs, nowMs }: Flight): void {
    while ((this.#count + count) * 2 > this.#slots.length) this.#rehash(this.#slots.length * 2);
    const rows = this.#rowsOf(owner) ?? this.#newOwner(owner);
    for (let at = 0; at < count; at++) {
      const row = this.#newRow();
      this.#offsets[row] = offset + at;
      this.#owners[row] = owner;
      this.#acquired[row] = 1;
      this.#failed[row] = 0;
      this.#status[row] = IN_FLIGHT;
      this.#details[row] = details;
      this.#firstTakenMs[row] = nowMs;
      this.#linkOwner(row, rows);
      this.#deadlines.set(row, untilMs);
      this.#enter(row, offset + at);
    }
    this.#inFlight[details & DOOR] += count;
  }

  #newRow(): number {
    let row = this.#free;
    if (row !== 0) this.#free = this.#ownerNext[row];
    else {
      if (this.#used === this.#capacity) this.#grow();
      row = this.#used++;
    }
    this.#count++;
    return row;
  }

  remove(row: number): void {
    this.setOwner(row, 0);
    this.#deadlines.set(row, Number.POSITIVE_INFINITY);
    this.#leaveSlot(row);
    if (this.status(row) === IN_FLIGHT) this.#inFlight[this.#details[row] & DOOR]--;
    this.#status[row] = 0;
    this.#ownerNext[row] = this.#free;
    this.#free = row;
    this.#count--;
  }

  offsetOf(row: number): number {
    return this.#offsets[row];
  }

  acquiredCount(row: number): number {
    return this.#acquired[row];
  }
  setAcquiredCount(row: number, count: number): void {
    this.#acquired[row] = count;
  }

  failedCount(row: number): number {
    return this.#failed[row];
  }
  /** Counts above 65,535 stay there. */
  setFailedCount(row: number, count: number): void {
    this.#failed[row] = count > FAILED_MAX ? FAILED_MAX : count;
  }

  status(row: number): number {
    return this.#status[row] & ~MARK;
  }
  /** What the bits of `details` mean is up to the caller. Takes the mark off. */
  setStatus(row: number, status: RowStatus, details: number): void {
    if (this.status(row) === IN_FLIGHT) this.#inFlight[this.#details[row] & DOOR]--;
    if (status === IN_FLIGHT) this.#inFlight[details & DOOR]++;
    this.#status[row] = status;
    this.#details[row] = details;
  }
  details(row: number): number {
    return this.#details[row];
  }

  /** How many are in flight through this door. */
  inFlightOf(door: number): number {
    return this.#inFlight[door];
  }

  firstTakenMs(row: number): number {
    return this.#firstTakenMs[row];
  }
  setFirstTakenMs(row: number, timeMs: number): void {
    this.#firstTakenMs[row] = timeMs;
  }

  /** False if it was marked before. */
  mark(row: number): boolean {
    const status = this.#status[row];
    this.#status[row] = status | MARK;
    return (status & MARK) === 0;
  }
  unmark(row: number): void {
    this.#status[row] &= ~MARK;
  }

  /** 0: nobody. */
  owner(row: number): OwnerId {
    return this.#owners[row];
  }

  setOwner(row: number, owner: OwnerId): void {
    const old = this.#owners[row];
    if (old === owner) return;
    if (old !== 0) this.#unlinkOwner(row, old);
    this.#owners[row] = owner;
    if (owner !== 0) this.#linkOwner(row, this.#rowsOf(owner) ?? this.#newOwner(owner));
  }

  #rowsOf(owner: OwnerId): OwnerRows | undefined {
    if (this.#latestOwner?.owner !== owner) this.#latestOwner = this.#ownerRows.get(owner);
    return this.#latestOwner;
  }

  #newOwner(owner: OwnerId): OwnerRows {
    const rows = { owner, first: 0, count: 0 };
    this.#ownerRows.set(owner, rows);
    this.#latestOwner = rows;
    return rows;
  }

  #linkOwner(row: number, rows: OwnerRows): void {
    this.#ownerPrevious[row] = 0;
    this.#ownerNext[row] = rows.first;
    if (rows.first !== 0) this.#ownerPrevious[rows.first] = row;
    rows.first = row;
    rows.count++;
  }

  #unlinkOwner(row: number, owner: OwnerId): void {
    const rows = this.#rowsOf(owner);
    if (rows === undefined) throw new Error(`row ${row} names owner ${owner}, who has none`);
    const previous = this.#ownerPrevious[row];
    const next = this.#ownerNext[row];
    if (previous === 0) rows.first = next;
    else this.#ownerNext[previous] = next;
    if (next !== 0) this.#ownerPrevious[next] = previous;
    if (--rows.count > 0) return;
    this.#ownerRows.delete(owner);
    this.#latestOwner = undefined;
  }

  /** One of the owner's rows, 0 if it has none. */
  firstOf(owner: OwnerId): number {
    return this.#ownerRows.get(owner)?.first ?? 0;
  }
  countOf(owner: OwnerId): number {
    return this.#ownerRows.get(owner)?.count ?? 0;
  }

  /** Infinity: none. */
  untilMs(row: number): number {
    return this.#deadlines.get(row);
  }
  setUntilMs(row: number, untilMs: number): void {
    this.#deadlines.set(row, untilMs);
  }
  get nextDeadlineMs(): number {
    return this.#deadlines.nextMs;
  }
  /** A row whose deadline is not after `nowMs`, the soonest first, 0 if there is none. It stays until its deadline is moved. */
  due(nowMs: number): number {
    return this.#deadlines.nextMs <= nowMs ? this.#deadlines.first : 0;
  }

  /** Every row, in no order. The table must not change meanwhile. */
  *rows(): Generator<number> {
    for (let row = 1; row < this.#used; row++) if (this.#status[row] !== 0) yield row;
  }

  /** Gives memory back if only little of it is used. Row numbers change. */
  shrink(): void {
    if (this.#capacity <= 8192 || this.#count * 8 > this.#capacity) return;
    const smaller = new FlightTable();
    for (const row of this.rows()) {
      const copy = smaller.insert(this.#offsets[row], IN_FLIGHT, this.#details[row]);
      smaller.#status[copy] = this.#status[row];
      smaller.#acquired[copy] = this.#acquired[row];
      smaller.#failed[copy] = this.#failed[row];
      smaller.#firstTakenMs[copy] = this.#firstTakenMs[row];
      smaller.setOwner(copy, this.#owners[row]);
      smaller.#deadlines.set(copy, this.#deadlines.get(row));
    }
    this.#capacity = smaller.#capacity;
    this.#used = smaller.#used;
    this.#free = 0;
    this.#offsets = smaller.#offsets;
    this.#owners = smaller.#owners;
    this.#acquired = smaller.#acquired;
    this.#failed = smaller.#failed;
    this.#status = smaller.#status;
    this.#details = smaller.#details;
    this.#firstTakenMs = smaller.#firstTakenMs;
    this.#ownerPrevious = smaller.#ownerPrevious;
    this.#ownerNext = smaller.#ownerNext;
    this.#deadlines = smaller.#deadlines;
    this.#slots = smaller.#slots;
    this.#ownerRows = smaller.#ownerRows;
    this.#latestOwner = undefined;
  }

  #grow(): void {
    // Half as much again: half a million rows more would take 20 MB at once if it doubled.
    const capacity = this.#capacity + Math.max(SMALLEST, this.#capacity >>> (this.#capacity < 65_536 ? 0 : 1));
    this.#offsets = copied(this.#offsets, new Float64Array(capacity));
    this.#owners = copied(this.#owners, new Uint32Array(capacity));
    this.#acquired = copied(this.#acquired, new Uint32Array(capacity));
    this.#failed = copied(this.#failed, new Uint16Array(capacity));
    this.#status = copied(this.#status, new Uint8Array(capacity));
    this.#details = copied(this.#details, new Uint8Array(capacity));
    this.#firstTakenMs = copied(this.#firstTakenMs, new Float64Array(capacity));
    this.#ownerPrevious = copied(this.#ownerPrevious, new Uint32Array(capacity));
    this.#ownerNext = copied(this.#ownerNext, new Uint32Array(capacity));
    this.#deadlines.grow(capacity);
    this.#capacity = capacity;
  }

  #enter(row: number, offset: number): void {
    const slots = this.#slots;
    const mask = slots.length - 1;
    let at = slotOf(offset, mask);
    while (slots[at] !== 0) at = (at + 1) & mask;
    slots[at] = row;
  }

  /** Moves back what had to pass over the slot, so that searches find no hole. */
  #leaveSlot(row: number): void {
    const slots = this.#slots;
    const mask = slots.length - 1;
    let hole = slotOf(this.#offsets[row], mask);
    while (slots[hole] !== row) hole = (hole + 1) & mask;
    for (let at = (hole + 1) & mask; slots[at] !== 0; at = (at + 1) & mask) {
      const home = slotOf(this.#offsets[slots[at]], mask);
      if (((at - home) & mask) >= ((at - hole) & mask)) {
        slots[hole] = slots[at];
        hole = at;
      }
    }
    slots[hole] = 0;
  }

  #rehash(slotCount: number): void {
    this.#slots = new Uint32Array(slotCount);
    for (let row = 1; row < this.#used; row++) if (this.#status[row] !== 0) this.#enter(row, this.#offsets[row]);
  }
}

/** Groups of neighbours are spread over the table (Fibonacci hashing), the neighbours of a group stay together. */
function slotOf(offset: number, mask: number): number {
  const cluster = Math.imul(Math.floor(offset / (1 << CLUSTER_BITS)), 0x9e37_79b1);
  return (((cluster ^ (cluster >>> 15)) << CLUSTER_BITS) | (offset & ((1 << CLUSTER_BITS) - 1))) & mask;
}

function copied<Column extends { set(source: Column): void }>(from: Column, to: Column): Column {
  to.set(from);
  return to;
}
