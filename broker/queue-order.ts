/**
 * Which message of a queue comes next. Knows nothing that must survive: all of it is made again from the states, the flight
 * table and the attribute index.
 *
 * Each priority level is a lane: a cursor that has passed everything below it once, and a heap of what lies below the cursor and
 * can be had (again). Ordered groups: only the lowest waiting message of a group can be had, and only while no other
 * of the group is in flight; the cursor passes over the others, and the links of the attribute index lead back to them, so
 * that what is passed costs nothing. Fair groups: what a noisy tenant has is passed over too, and comes when nothing else does.
 *
 * `QueueState` changes states and table first and then says so here (`moved`, `taken`).
 */
import type { AttributeIndex } from './attribute-index.ts';
import { type FlightTable, IN_FLIGHT, READY, WAITING } from './flight-table.ts';
import { DELAYED, DONE, FRESH, type MessageStates, TRACKED } from './message-states.ts';
import { OffsetFifo } from './offset-fifo.ts';
import { OffsetHeap } from './offset-heap.ts';

/** Finished, leaving, or not there. */
export const GONE = 0;
/** Waits and is due. */
export const DUE = 1;
/** Waits and is not due. */
export const NOT_DUE = 2;
export const HELD = 3;
export type Whereabouts = 0 | 1 | 2 | 3;

/** A tenant is noisy with at least this many messages in flight that are more than this share of all (as SQS fair queues). */
const NOISY_MESSAGES = 30;
const NOISY_SHARE = 0.1;

export interface OrderSettings {
  readonly isOrdered: boolean;
  readonly isFair: boolean;
  readonly priorityMax: number;
  readonly lookaheadMax: number;
}

interface Lane {
  readonly level: number;
  /** Below it everything was taken, passed over, or is in the heap. */
  cursor: number;
  /** Of lanes above level 0: their messages from the cursor on. Level 0 has all that has no other lane. */
  readonly fifo: OffsetFifo | undefined;
  readonly heap: OffsetHeap;
  /** Fair groups that were passed over as noisy: the lowest entry of theirs that may still wait. */
  readonly parked: Map<number, number>;
  /** Fair groups that are quiet again and still have passed-over messages; one of each is in the heap. */
  readonly chained: Set<number>;
}

const FROM_HEAP = 1;
const FROM_CURSOR = 2;
const FROM_PARKED = 3;

export class QueueOrder {
  readonly #states: MessageStates;
  readonly #flights: FlightTable;
  readonly #attributes: AttributeIndex;
  readonly #hasGroups: boolean;
  readonly #isOrdered: boolean;
  readonly #hasPriority: boolean;
  readonly #priorityMax: number;
  readonly #lookaheadMax: number;
  #end: number;
  /** Nothing that `extend` met in the flight table is at or above. */
  #rowsEnd = 0;

  /** Highest level first. */
  #lanes: Lane[];
  readonly #lowest: Lane;
  #heldCount = 0;
  #blockedCount = 0;

  // Of each group, by its id in the index.
  #inFlight = new Uint32Array(16);
  /** Ordered: waiting and due; entry of the lowest that waits, −1 if none; whether that is not due. */
  #dueCount = new Uint32Array(16);
  #head = new Float64Array(16).fill(-1);
  #isHeadDelayed = new Uint8Array(16);
  /** Search in which the group was first taken from: it goes on being available in that one. */
  #heldSince = new Uint32Array(16);

  #search = 0;
  #isAcquiring = false;
  #passedCount = 0;
  #isPending = false;

  #foundLane: Lane;
  #foundFrom = 0;
  #foundOffset = -1;
  #foundEntry = -1;
  #foundGroup = 0;

  constructor(
    startOffset: number,
    { isOrdered, isFair, priorityMax, lookaheadMax }: OrderSettings,
    states: MessageStates,
    flights: FlightTable,
    attributes: AttributeIndex,
  ) {
    this.#states = states;
    this.#flights = flights;
    this.#attributes = attributes;
    this.#hasGroups = isOrdered || isFair;
    this.#isOrdered = isOrdered;
    this.#priorityMax = priorityMax;
    this.#hasPriority = priorityMax > 0;
    this.#lookaheadMax = lookaheadMax;
    this.#end = startOffset;
    this.#lowest = newLane(0, startOffset);
    this.#lanes = [this.#lowest];
    this.#foundLane = this.#lowest;
  }

  /** Messages that are due and wait for another of their ordered group. */
  get blockedCount(): number {
    return this.#blockedCount;
  }

  /** True if the last search ended at `lookaheadMax`. */
  get isPending(): boolean {
    return this.#isPending;
  }

  /** True if the next messages may be taken without a look at each: no groups, one lane. */
  get isPlain(): boolean {
    return !this.#hasGroups && !this.#hasPriority;
  }

  /** True if there are groups, so that messages may have to be passed over. */
  get hasGroups(): boolean {
    return this.#hasGroups;
  }

  /** What `extend` was last called with. */
  get endOffset(): number {
    return this.#end;
  }

  get lanes(): number {
    return this.#lanes.length;
  }

  // ------------------------------------------------------------------ what there is

  /** Takes in the messages up to `endOffset`, whose states are set. `hasRows`: some may be in the flight table already. */
  extend(endOffset: number, hasRows: boolean): void {
    const from = this.#end;
    this.#end = endOffset;
    const attributes = this.#attributes;
    if (this.#hasPriority || this.#isOrdered) {
      let entry = attributes.firstFrom(from);
      for (; entry >= 0; entry = attributes.following(entry)) {
        const offset = attributes.offsetAt(entry);
        if (offset >= endOffset) break;
        this.#enter(entry, offset);
      }
    }
    if (!hasRows) return;
    const states = this.#states;
    let offset = states.next(TRACKED, from, endOffset);
    for (; offset < endOffset; offset = states.next(TRACKED, offset + 1, endOffset)) this.#enterRow(offset);
  }

  #enter(entry: number, offset: number): void {
    const attributes = this.#attributes;
    // Also what is in flight: if it was never handed out after all, the cursor will meet it.
    if (this.#hasPriority && this.#states.get(offset) !== DONE) {
      const level = this.#levelOfEntry(entry);
      if (level > 0) this.#lane(level).fifo?.push(offset);
    }
    if (!this.#isOrdered) return;
    const group = attributes.groupAt(entry);
    if (group === 0) return;
    const place = this.#whereabouts(offset);
    if (place === GONE || place === HELD) return;
    this.#ensureGroup(group);
    this.#regroup(entry, group, GONE, place);
  }

  #enterRow(offset: number): void {
    this.#rowsEnd = offset + 1;
    const place = this.#whereabouts(offset);
    if (place === HELD) this.#heldCount++;
    const entry = this.#hasGroups ? this.#entryOf(offset) : -1;
    const group = entry < 0 ? 0 : this.#groupOf(entry);
    if (group === 0) {
      if (place === DUE) this.#laneOf(offset).heap.push(offset);
      return;
    }
    this.#ensureGroup(group);
    if (!this.#isOrdered) {
      if (place === HELD) this.#inFlight[group]++;
      else if (place === DUE) this.#laneOf(offset).heap.push(offset);
    } else if (place === HELD) this.#regroup(entry, group, GONE, HELD);
    else if (place === DUE && entry === this.#head[group]) this.#laneOf(offset).heap.push(offset);
  }

  #whereabouts(offset: number): Whereabouts {
    switch (this.#states.get(offset)) {
      case FRESH:
        return DUE;
      case DELAYED:
        return NOT_DUE;
      case TRACKED:
        switch (this.#flights.status(this.#flights.find(offset))) {
          case IN_FLIGHT:
            return HELD;
          case READY:
            return DUE;
          case WAITING:
            return NOT_DUE;
          default:
            return GONE;
        }
      default:
        return GONE;
    }
  }

  // ------------------------------------------------------------------ what happens

  /** The message was somewhere else before; states and table say already where it is now. */
  moved(offset: number, from: Whereabouts, to: Whereabouts): void {
    if (from === HELD) this.#heldCount--;
    else if (to === HELD) this.#heldCount++;
    if (this.#hasGroups) {
      const entry = this.#entryOf(offset);
      const group = entry < 0 ? 0 : this.#groupOf(entry);
      if (group !== 0 && this.#isOrdered) {
        this.#regroup(entry, group, from, to);
        return;
      }
      if (group !== 0) {
        if (from === HELD) this.#inFlight[group]--;
        else if (to === HELD) this.#inFlight[group]++;
        else if (to === GONE) this.#mendChain(this.#laneOf(offset), group, entry);
      }
    }
    if (to === DUE) this.#makeAvailable(offset);
  }

  /** Messages side by side that were in flight are done. */
  finished(offset: number, count: number): void {
    if (!this.#hasGroups) this.#heldCount -= count;
    else for (let at = 0; at < count; at++) this.moved(offset + at, HELD, GONE);
  }

  #makeAvailable(offset: number): void {
    const lane = this.#laneOf(offset);
    // At or above the cursor it will be met by it, if it was never handed out.
    if (offset < lane.cursor || this.#states.get(offset) === TRACKED) lane.heap.push(offset);
  }

  /** A message of an ordered group moved: counts, the group's head, and whether the group is blocked. A new head becomes available. */
  #regroup(entry: number, group: number, from: Whereabouts, to: Whereabouts): void {
    const due = this.#dueCount;
    const availableBefore = this.#isBlocked(group) ? -1 : this.#head[group];
    if (this.#inFlight[group] > 0 || this.#isHeadDelayed[group] !== 0) this.#blockedCount -= due[group];
    if (from === DUE) due[group]--;
    else if (from === HELD) this.#inFlight[group]--;
    if (to === DUE) due[group]++;
    else if (to === HELD && this.#inFlight[group]++ === 0)
      this.#heldSince[group] = this.#isAcquiring ? this.#search : 0;
    const head = this.#head[group];
    if (to === DUE || to === NOT_DUE) {
      if (head < 0 || entry <= head) {
        this.#head[group] = entry;
        this.#isHeadDelayed[group] = to === NOT_DUE ? 1 : 0;
      }
    } else if (entry === head) this.#moveHead(group, entry);
    if (this.#inFlight[group] > 0 || this.#isHeadDelayed[group] !== 0) this.#blockedCount += due[group];
    const available = this.#isBlocked(group) ? -1 : this.#head[group];
    if (available >= 0 && available !== availableBefore) this.#makeAvailable(this.#attributes.offsetAt(available));
  }

  /** The head does not wait any more: the next one of the group that does. */
  #moveHead(group: number, from: number): void {
    const attributes = this.#attributes;
    let entry = from;
    for (;;) {
      entry = attributes.nextInGroup(entry);
      const offset = entry < 0 ? this.#end : attributes.offsetAt(entry);
      if (offset >= this.#end) {
        this.#head[group] = -1;
        this.#isHeadDelayed[group] = 0;
        return;
      }
      const place = this.#whereabouts(offset);
      if (place !== DUE && place !== NOT_DUE) continue;
      this.#head[group] = entry;
      this.#isHeadDelayed[group] = place === NOT_DUE ? 1 : 0;
      return;
    }
  }

  #isBlocked(group: number): boolean {
    if (this.#isHeadDelayed[group] !== 0) return true;
    return this.#inFlight[group] > 0 && !(this.#isAcquiring && this.#heldSince[group] === this.#search);
  }

  // ------------------------------------------------------------------ what is next

  /** `isAcquiring`: groups that are taken from stay available until `endSearch`. */
  beginSearch(isAcquiring: boolean): void {
    this.#search = this.#search === 0xffff_ffff ? 1 : this.#search + 1;
    this.#isAcquiring = isAcquiring;
    this.#passedCount = 0;
    this.#isPending = false;
  }

  endSearch(): void {
    this.#isAcquiring = false;
  }

  /** The message that comes next; −1: there is none, or the search is pending. */
  next(): number {
    const lanes = this.#lanes;
    for (let i = 0; i < lanes.length; i++) {
      const offset = this.#nextOf(lanes[i]);
      if (offset >= 0 || this.#isPending) return offset;
    }
    return -1;
  }

  /** The message that comes next in one lane. */
  nextOfLane(index: number): number {
    return this.#nextOf(this.#lanes[index]);
  }

  /**
   * How many messages from `offset` on, which `next` has just found at the cursor of a plain queue, are fresh and follow each other,
   * up to `max`; 0 if it came from elsewhere.
   */
  freshRun(offset: number, max: number): number {
    if (this.#foundFrom !== FROM_CURSOR) return 0;
    const { heap } = this.#lowest;
    let end = Math.min(offset + max, this.#end);
    if (heap.count > 0 && heap.top < end) end = Math.max(heap.top, offset + 1);
    return this.#states.nextNot(FRESH, offset, end) - offset;
  }

  /** The messages of a `freshRun` were taken. */
  runTaken(endOffset: number): void {
    this.#heldCount += endOffset - this.#lowest.cursor;
    this.#lowest.cursor = endOffset;
  }

  /** What `next` has found went there. */
  taken(to: typeof HELD | typeof GONE): void {
    const lane = this.#foundLane;
    const offset = this.#foundOffset;
    if (this.#foundFrom === FROM_HEAP) lane.heap.pop();
    else if (this.#foundFrom === FROM_CURSOR) this.#pass(lane, offset);
    if (to === HELD) this.#heldCount++;
    const group = this.#foundGroup;
    if (group === 0) return;
    const entry = this.#foundEntry;
    if (this.#isOrdered) {
      this.#regroup(entry, group, DUE, to);
      return;
    }
    if (to === HELD) this.#inFlight[group]++;
    if (this.#foundFrom === FROM_PARKED) this.#movePark(lane, group, this.#nextPassed(lane, entry));
    else this.#followChain(lane, group, entry);
  }

  #nextOf(lane: Lane): number {
    if (lane.parked.size > 0) this.#unpark(lane);
    const heap = lane.heap;
    for (;;) {
      while (heap.count > 0 && !this.#isAvailable(heap.top)) heap.pop();
      let offset = heap.count > 0 ? heap.top : Number.POSITIVE_INFINITY;
      this.#foundFrom = FROM_HEAP;
      if (offset >= lane.cursor) {
        const atCursor = this.#atCursor(lane);
        if (atCursor < offset) {
          offset = atCursor;
          this.#foundFrom = FROM_CURSOR;
        }
      }
      if (offset === Number.POSITIVE_INFINITY) return this.#nextParked(lane);
      this.#foundLane = lane;
      this.#foundOffset = offset;
      this.#foundGroup = 0;
      if (!this.#hasGroups) return offset;
      const entry = this.#entryOf(offset);
      const group = entry < 0 ? 0 : this.#groupOf(entry);
      this.#foundEntry = entry;
      this.#foundGroup = group;
      if (group === 0) return offset;
      this.#ensureGroup(group);
      if (this.#isOrdered) {
        if (this.#head[group] === entry && !this.#isBlocked(group)) return offset;
      } else {
        if (!this.#isNoisy(group)) return offset;
        const parked = lane.parked.get(group);
        if (parked === undefined || entry < parked) lane.parked.set(group, entry);
        lane.chained.delete(group);
      }
      if (this.#foundFrom === FROM_HEAP) heap.pop();
      else {
        this.#pass(lane, offset);
        if (++this.#passedCount > this.#lookaheadMax) {
          this.#isPending = true;
          return -1;
        }
      }
    }
  }

  #isAvailable(offset: number): boolean {
    const state = this.#states.get(offset);
    return state === FRESH || (state === TRACKED && this.#flights.status(this.#flights.find(offset)) === READY);
  }

  /** The first message of the lane from its cursor on that was never handed out and is due; infinity if there is none. */
  #atCursor(lane: Lane): number {
    const states = this.#states;
    const fifo = lane.fifo;
    if (fifo !== undefined) {
      while (fifo.count > 0 && states.get(fifo.top) !== FRESH) lane.cursor = fifo.shift() + 1;
      return fifo.count > 0 ? fifo.top : Number.POSITIVE_INFINITY;
    }
    let offset = states.next(FRESH, lane.cursor, this.#end);
    if (this.#hasPriority) {
      while (offset < this.#end && this.#levelOf(offset) > 0) offset = states.next(FRESH, offset + 1, this.#end);
    }
    lane.cursor = offset;
    return offset < this.#end ? offset : Number.POSITIVE_INFINITY;
  }

  #pass(lane: Lane, offset: number): void {
    if (lane.fifo !== undefined) lane.fifo.shift();
    lane.cursor = offset + 1;
  }

  // ------------------------------------------------------------------ fair groups

  #isNoisy(group: number): boolean {
    const own = this.#inFlight[group];
    return own >= NOISY_MESSAGES && own > this.#heldCount * NOISY_SHARE;
  }

  /** Passed-over groups that are quiet by now: the first of each becomes available, the others follow it one by one. */
  #unpark(lane: Lane): void {
    for (const [group, parked] of lane.parked) {
      if (this.#isNoisy(group)) continue;
      lane.parked.delete(group);
      const entry = this.#firstParked(lane, group, parked);
      if (entry < 0) continue;
      lane.chained.add(group);
      lane.heap.push(this.#attributes.offsetAt(entry));
    }
  }

  /** Of a chained group, the next of its passed-over messages becomes available after this one, the lowest. */
  #followChain(lane: Lane, group: number, after: number): void {
    if (!lane.chained.has(group)) return;
    const next = this.#nextPassed(lane, after);
    if (next < 0) lane.chained.delete(group);
    else lane.heap.push(this.#attributes.offsetAt(next));
  }

  /** This one, which may have been the one in the heap, went out of turn. */
  #mendChain(lane: Lane, group: number, gone: number): void {
    if (!lane.chained.has(group)) return;
    const next = this.#nextPassed(lane, gone);
    if (next >= 0) lane.heap.push(this.#attributes.offsetAt(next));
  }

  /** Nothing but noisy groups is left: their lowest message. */
  #nextParked(lane: Lane): number {
    let lowest = -1;
    for (const [group, parked] of lane.parked) {
      const entry = this.#firstParked(lane, group, parked);
      this.#movePark(lane, group, entry);
      if (entry < 0 || (lowest >= 0 && entry > lowest)) continue;
      lowest = entry;
      this.#foundGroup = group;
    }
    if (lowest < 0) return -1;
    this.#foundLane = lane;
    this.#foundFrom = FROM_PARKED;
    this.#foundEntry = lowest;
    this.#foundOffset = this.#attributes.offsetAt(lowest);
    return this.#foundOffset;
  }

  #movePark(lane: Lane, group: number, entry: number): void {
    if (entry < 0) lane.parked.delete(group);
    else lane.parked.set(group, entry);
  }

  /** Like `#firstPassed`, from an entry that the index may have forgotten because its message is done. */
  #firstParked(lane: Lane, group: number, parked: number): number {
    const attributes = this.#attributes;
    return this.#firstPassed(lane, attributes.has(parked) ? parked : attributes.firstOfGroup(group));
  }

  /** This entry or the next of its group that lies behind the lane's cursor and is available; −1: none. */
  #firstPassed(lane: Lane, from: number): number {
    const attributes = this.#attributes;
    const end = Math.min(this.#end, Math.max(lane.cursor, this.#rowsEnd));
    for (let entry = from; entry >= 0; entry = attributes.nextInGroup(entry)) {
      const offset = attributes.offsetAt(entry);
      if (offset >= end) return -1;
      if (this.#hasPriority && this.#levelOfEntry(entry) !== lane.level) continue;
      if (!this.#isAvailable(offset)) continue;
      if (offset < lane.cursor || this.#states.get(offset) === TRACKED) return entry;
    }
    return -1;
  }

  #nextPassed(lane: Lane, after: number): number {
    return this.#firstPassed(lane, this.#attributes.nextInGroup(after));
  }

  // ------------------------------------------------------------------ look-ups

  #entryOf(offset: number): number {
    return this.#attributes.find(offset);
  }

  #groupOf(entry: number): number {
    return this.#attributes.groupAt(entry);
  }

  #levelOf(offset: number): number {
    const entry = this.#entryOf(offset);
    return entry < 0 ? 0 : this.#levelOfEntry(entry);
  }

  #levelOfEntry(entry: number): number {
    return Math.min(this.#attributes.priorityAt(entry), this.#priorityMax);
  }

  #laneOf(offset: number): Lane {
    return this.#hasPriority ? this.#lane(this.#levelOf(offset)) : this.#lowest;
  }

  #lane(level: number): Lane {
    const lanes = this.#lanes;
    // Few levels are in use; the lowest is always there.
    let at = 0;
    while (lanes[at].level > level) at++;
    if (lanes[at].level !== level) lanes.splice(at, 0, newLane(level, 0));
    return lanes[at];
  }

  #ensureGroup(group: number): void {
    if (group < this.#inFlight.length) return;
    const size = Math.max(this.#inFlight.length * 2, group + 1);
    this.#inFlight = copied(this.#inFlight, new Uint32Array(size));
    this.#dueCount = copied(this.#dueCount, new Uint32Array(size));
    this.#heldSince = copied(this.#heldSince, new Uint32Array(size));
    this.#isHeadDelayed = copied(this.#isHeadDelayed, new Uint8Array(size));
    const heads = new Float64Array(size).fill(-1);
    heads.set(this.#head);
    this.#head = heads;
  }
}

function newLane(level: number, cursor: number): Lane {
  return {
    level,
    cursor,
    fifo: level > 0 ? new OffsetFifo() : undefined,
    heap: new OffsetHeap(),
    parked: new Map(),
    chained: new Set(),
  };
}

function copied<Column extends { set(source: Column): void }>(from: Column, to: Column): Column {
  to.set(from);
  return to;
}
