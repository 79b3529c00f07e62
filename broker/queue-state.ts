/**
 * One queue's state on one partition: which messages are done, which are in flight and for whom, which come next. A plain
 * synchronous state machine without I/O, clock or randomness: the registry (`queues.ts`) calls it, makes its changes
 * durable and answers afterwards.
 *
 * Order: highest priority first, then lowest offset; a message that came back takes its place again. Every mutation
 * also writes what it decided to a list of changes (`queue-changes.ts`), which on a fresh state give the same state
 * again. Times are milliseconds of the wall clock, offsets safe integers, ranges inclusive at both ends unless an end is
 * called `endOffset`.
 */
import { MillraceError } from '../protocol/errors.ts';
import { ArrivalTimes } from './arrival-times.ts';
import { AttemptLimits } from './attempt-limits.ts';
import { AttributeIndex } from './attribute-index.ts';
import { FlightTable, IN_FLIGHT, LEAVING, READY, TAKEN, WAITING } from './flight-table.ts';
import { addToRuns, areApart, type MutableRun } from './message-runs.ts';
import { DELAYED, DONE, FRESH, MessageStates, TRACKED } from './message-states.ts';
import { HandOutMark } from './hand-out-mark.ts';
import { OffsetHeap } from './offset-heap.ts';
import type { AcquiredRun, LeaveReason, OwnerId, QueueCounts, QueueDoor, Settlement } from './queue.ts';
import { CHANGE, ChangeWriter, doorCode, doorOf, leavingDetails, reasonOf } from './queue-changes.ts';
import { BLOCK_COST, QueueDelays } from './queue-delays.ts';
import { QueueEpochs } from './queue-epochs.ts';
import { applyChanges, CAME_BACK_AS_FAILURE, finish, IS_BOUND, type QueueImage, snapshotOf } from './queue-image.ts';
import { DUE, GONE, HELD, NOT_DUE, QueueOrder } from './queue-order.ts';
import type {
  AcquireOptions,
  LeavingMessage,
  MessageLock,
  PurgeOptions,
  QueueStateOptions,
  QueueStateSettings,
} from './queue-state-types.ts';

export {
  type AcquireOptions,
  type AttemptLimit,
  DEFAULT_STATE_SETTINGS,
  type LeavingMessage,
  type MessageLock,
  type PurgeOptions,
  type QueueStateOptions,
  type QueueStateSettings,
} from './queue-state-types.ts';

/** How many messages one `advance` looks at by default: about two milliseconds. */
export const ADVANCE_MESSAGES_MAX = 5_000;

const NEVER = Number.POSITIVE_INFINITY;
/** When a lock whose message cannot be read yet is looked at again. */
const UNREAD_RETRY_MS = 1000;

export class QueueState {
  #settings: QueueStateSettings;
  #attributes: AttributeIndex;
  #states: MessageStates;
  #flights = new FlightTable();
  #order: QueueOrder;
  #epochs = new QueueEpochs();
  #arrivals = new ArrivalTimes();
  #delays: QueueDelays;
  readonly #leavingOffsets = new OffsetHeap();
  readonly #changes = new ChangeWriter();
  /** How far messages may leave before it is durable that they were handed out. */
  readonly mark: HandOutMark;

  #start: number;
  #end: number;
  #next: number;
  /** Nothing that `applyChanges` told of is at or above. */
  #recoveredEnd: number;
  /** Done, from the start on. */
  #doneCount = 0;
  #inFlightCount = 0;
  #delayedCount = 0;
  #leavingCount = 0;
  #untakenCount = 0;

  #limits: AttemptLimits;
  #isSearchPending = false;
  /** Rows of the settlements that are being checked. */
  #rows = new Uint32Array(64);

  constructor({ startOffset, settings, attributes = new AttributeIndex() }: QueueStateOptions) {
    this.#settings = settings;
    this.#attributes = attributes;
    this.#states = new MessageStates(startOffset);
    this.#start = startOffset;
    this.#end = startOffset;
    this.#next = startOffset;
    this.mark = new HandOutMark(this.#changes, startOffset);
    this.#recoveredEnd = startOffset;
    this.#order = this.#newOrder();
    this.#delays = this.#newDelays();
    this.#limits = new AttemptLimits(settings.limits);
  }

  /** All below are done; nothing above `endOffset` exists yet. */
  get startOffset(): number {
    return this.#start;
  }

  /** Nothing at or above was ever handed out. */
  get nextOffset(): number {
    return Math.max(this.#next, this.#start);
  }

  /** What `extend` was last called with. */
  get endOffset(): number {
    return this.#end;
  }

  /** The lowest message that is not done (ready, in flight, delayed, leaving); `endOffset` if there is none. */
  get oldestUnfinished(): number {
    return this.#start;
  }

  /** Exact at all times. Leaving messages count nowhere here. */
  get counts(): QueueCounts {
    const blocked = this.#order.blockedCount;
    const unfinished = this.#end - this.#start - this.#doneCount;
    const waiting = unfinished - this.#inFlightCount - this.#leavingCount;
    return {
      ready: waiting - this.#delayedCount - blocked,
      inFlight: this.#inFlightCount,
      delayed: this.#delayedCount,
      blocked,
    };
  }

  /** Messages that wait for `left`. */
  get leavingCount(): number {
    return this.#leavingCount;
  }

  /** Leaving messages that `takeLeaving` has not given yet. */
  get untakenLeavingCount(): number {
    return this.#untakenCount;
  }

  /** When `advance` has something to do: a lock runs out, a delay ends, a message expires. Infinity: nothing is due ever. */
  get nextDeadlineMs(): number {
    let soonest = Math.min(this.#flights.nextDeadlineMs, this.#delays.nextMs);
    if (!this.#hasExpiry) return soonest;
    const order = this.#order;
    order.beginSearch(false);
    for (let lane = 0; lane < order.lanes; lane++) {
      const offset = order.nextOfLane(lane);
      if (offset >= 0) soonest = Math.min(soonest, this.#expiresAtMs(offset));
    }
    return soonest;
  }

  /** The last search gave up at `lookaheadMax`: calling `acquire` again may find something. */
  get isSearchPending(): boolean {
    return this.#isSearchPending;
  }

  /** True if there is something for `takeChanges`. */
  get hasChanges(): boolean {
    return !this.#changes.isEmpty;
  }

  get settings(): QueueStateSettings {
    return this.#settings;
  }

  /** Memory of the state, without the attribute index; for metrics. */
  get sizeBytes(): number {
    return this.#states.sizeBytes + this.#flights.sizeBytes + this.#delays.sizeBytes;
  }

  // ------------------------------------------------------------------ the log moves

  /** New settings. What is delayed already stays so; a queue TTL that begins here counts from now for what is there. */
  configure(settings: QueueStateSettings, nowMs: number): void {
    const old = this.#settings;
    this.#settings = settings;
    this.#limits = new AttemptLimits(settings.limits);
    this.#delays.memoryMs = settings.delayMemoryMs;
    if (settings.ttlMs < 0) this.#arrivals.clear();
    else if (old.ttlMs < 0) this.#arrivals.add(this.#start, nowMs);
    if (isOtherOrder(old, settings)) this.#reorder();
  }

  /**
   * The log is readable up to here. `appendedMs`: when those messages were appended; queue TTL and delay count from it. At
   * a start, after `applyChanges`, it is called batch by batch with the times of the log (once is enough without either).
   */
  extend(endOffset: number, appendedMs: number, nowMs: number): void {
    const from = this.#end;
    if (endOffset <= from) return;
    this.#end = endOffset;
    const { ttlMs, delayMs } = this.#settings;
    if (ttlMs >= 0) {
      this.#arrivals.trim(this.#start);
      this.#arrivals.add(from, appendedMs);
    }
    this.#delayedCount += this.#delays.delay(from, endOffset, delayMs > 0 ? appendedMs + delayMs : 0, nowMs);
    const hasRows = from < this.#recoveredEnd;
    if (hasRows) this.#countRecovered(from, Math.min(endOffset, this.#recoveredEnd));
    this.#order.extend(endOffset, hasRows);
    if (hasRows) this.#advanceStart();
    if (this.#order.hasGroups) {
      // What must be passed over is passed over now: after a start that is all of it, and consumers would wait for it.
      this.#order.beginSearch(false);
      this.#order.next();
    }
  }

  #countRecovered(from: number, endOffset: number): void {
    const states = this.#states;
    const flights = this.#flights;
    this.#doneCount += states.countDone(from, endOffset);
    let offset = states.next(TRACKED, from, endOffset);
    for (; offset < endOffset; offset = states.next(TRACKED, offset + 1, endOffset)) {
      switch (flights.status(flights.find(offset))) {
        case IN_FLIGHT:
          this.#inFlightCount++;
          break;
        case WAITING:
          this.#delayedCount++;
          break;
        case LEAVING:
          this.#leavingCount++;
          this.#untakenCount++;
          this.#leavingOffsets.push(offset);
          break;
        default:
      }
    }
  }

  /** Retention or DeleteRecords took what is below: whatever it was doing, it is done. Answers how many were unfinished. */
  trim(logStartOffset: number): number {
    this.#epochs.trim(logStartOffset);
    let count = 0;
    if (logStartOffset > this.#start) {
      count = this.#finishBelow(this.#start, Math.min(logStartOffset, this.#end), true, true);
      this.#changes.noteStart(logStartOffset);
      if (logStartOffset > this.#end) {
        finish({ states: this.#states, flights: this.#flights }, this.#end, logStartOffset);
        this.#doneCount += logStartOffset - this.#end;
        this.#end = logStartOffset;
      }
      this.#advanceStart();
      if (count > 0 || this.#order.endOffset < this.#end) this.#reorder();
    }
    return count;
  }

  /** Makes everything in the range done, also what is in flight or leaving if asked to. Answers how many became so. Notes nothing. */
  #finishBelow(from: number, endOffset: number, takesInFlight: boolean, takesLeaving: boolean): number {
    const states = this.#states;
    let count = 0;
    let offset = states.nextNot(DONE, from, endOffset);
    while (offset < endOffset) {
      const state = states.get(offset);
      let end = states.nextNot(state, offset, endOffset);
      if (state === TRACKED) {
        end = offset + 1;
        if (!this.#dropRow(offset, takesInFlight, takesLeaving)) {
          offset = states.nextNot(DONE, end, endOffset);
          continue;
        }
      } else if (state === DELAYED) this.#delayedCount -= end - offset;
      states.setRange(offset, end, DONE);
      this.#doneCount += end - offset;
      count += end - offset;
      offset = states.nextNot(DONE, end, endOffset);
    }
    return count;
  }

  #dropRow(offset: number, takesInFlight: boolean, takesLeaving: boolean): boolean {
    const flights = this.#flights;
    const row = flights.find(offset);
    switch (flights.status(row)) {
      case IN_FLIGHT:
        if (!takesInFlight) return false;
        this.#inFlightCount--;
        break;
      case WAITING:
        this.#delayedCount--;
        break;
      case LEAVING:
        if (!takesLeaving) return false;
        this.#untakenCount--;
        this.#leavingCount--;
        break;
      case TAKEN:
        if (!takesLeaving) return false;
        this.#leavingCount--;
        break;
      default:
    }
    flights.remove(row);
    return true;
  }

  /** Moves the start over what is done. */
  #advanceStart(): void {
    const start = this.#states.nextNot(DONE, this.#start, this.#end);
    if (start === this.#start) return;
    this.#doneCount -= start - this.#start;
    this.#start = start;
    this.#states.dropBelow(start);
  }

  #newOrder(): QueueOrder {
    return new QueueOrder(this.#start, this.#settings, this.#states, this.#flights, this.#attributes);
  }

  #newDelays(): QueueDelays {
    const parts = { states: this.#states, attributes: this.#attributes, epochs: this.#epochs };
    return new QueueDelays(this.#settings.delayMemoryMs, parts);
  }

  /** What comes next is worked out anew. */
  #reorder(): void {
    this.#flights.shrink();
    this.#order = this.#newOrder();
    this.#order.extend(this.#end, true);
  }

  // ------------------------------------------------------------------ handing out

  /**
   * Locks up to `messagesMax` messages for `owner`, in the order in which they should be delivered: ascending, unless the
   * queue has priorities or fair groups. Expired messages and those at an SQS limit leave instead. Call `advance` first.
   */
  acquire(options: AcquireOptions): AcquiredRun[] {
    const runs: MutableRun[] = [];
    const order = this.#order;
    const { nowMs, messagesMax } = options;
    const hasExpiry = this.#hasExpiry;
    const isPlain = order.isPlain && !hasExpiry;
    order.beginSearch(true);
    let left = messagesMax;
    let last = -1;
    while (left > 0) {
      const offset = order.next();
      if (offset < 0) break;
      if (isPlain) {
        const count = order.freshRun(offset, left);
        if (count > 1) {
          this.#takeRun(offset, count, options, runs);
          left -= count;
          last = offset + count - 1;
          continue;
        }
      }
      const row = this.#states.get(offset) === TRACKED ? this.#flights.find(offset) : 0;
      if (hasExpiry && this.#expiresAtMs(offset) <= nowMs) {
        this.#leaveWaiting(offset, row, 'expired', undefined);
        continue;
      }
      if (row !== 0 && this.#flights.acquiredCount(row) >= this.#limits.receivesMax) {
        this.#leaveWaiting(offset, row, 'delivery_limit', 'sqs');
        continue;
      }
      this.#take(offset, row, options, runs);
      left--;
      last = offset;
    }
    if (left <= 0 && last >= 0 && options.batchEnd !== undefined)
      this.#takeRest(last, options.batchEnd(last), options, runs);
    order.endSearch();
    this.#isSearchPending = order.isPending;
    return runs;
  }

  /** Goes on to the end of the batch, as far as its messages are what comes next. */
  #takeRest(last: number, batchLast: number, options: AcquireOptions, runs: MutableRun[]): void {
    const isPlain = this.#order.isPlain && !this.#hasExpiry;
    for (let offset = last + 1; offset <= batchLast; offset++) {
      if (this.#order.next() !== offset) return;
      const count = isPlain ? this.#order.freshRun(offset, batchLast - offset + 1) : 0;
      if (count > 1) {
        this.#takeRun(offset, count, options, runs);
        offset += count - 1;
        continue;
      }
      const row = this.#states.get(offset) === TRACKED ? this.#flights.find(offset) : 0;
      if (this.#hasExpiry && this.#expiresAtMs(offset) <= options.nowMs) return;
      if (row !== 0 && this.#flights.acquiredCount(row) >= this.#limits.receivesMax) return;
      this.#take(offset, row, options, runs);
    }
  }

  #take(offset: number, found: number, options: AcquireOptions, runs: MutableRun[]): void {
    const flights = this.#flights;
    const details = doorCode(options.door) | (options.isBoundToConnection ? IS_BOUND : 0);
    let row = found;
    if (row === 0) {
      row = flights.insert(offset, IN_FLIGHT, details);
      this.#states.set(offset, TRACKED);
    } else flights.setStatus(row, IN_FLIGHT, details);
    const acquiredCount = flights.acquiredCount(row) + 1;
    const failedCount = flights.failedCount(row);
    flights.setAcquiredCount(row, acquiredCount);
    if (flights.firstTakenMs(row) === 0) flights.setFirstTakenMs(row, options.nowMs);
    flights.setOwner(row, options.owner);
    flights.setUntilMs(row, options.lockedUntilMs);
    this.#inFlightCount++;
    if (offset >= this.#next) this.#next = offset + 1;
    this.#order.taken(HELD);
    this.#noteAcquired(offset, 1, options, details);
    addToRuns(runs, offset, 1, acquiredCount, failedCount);
  }

  /** Messages side by side that were never handed out, on a queue where that is all there is to know. */
  #takeRun(offset: number, count: number, options: AcquireOptions, runs: MutableRun[]): void {
    const details = doorCode(options.door) | (options.isBoundToConnection ? IS_BOUND : 0);
    const { owner, lockedUntilMs: untilMs, nowMs } = options;
    const end = offset + count;
    this.#flights.insertRun(offset, count, { owner, details, untilMs, nowMs });
    this.#states.setRange(offset, end, TRACKED);
    this.#inFlightCount += count;
    if (end > this.#next) this.#next = end;
    this.#order.runTaken(end);
    this.#noteAcquired(offset, count, options, details);
    addToRuns(runs, offset, count, 1, 0);
  }

  #noteAcquired(offset: number, count: number, options: AcquireOptions, details: number): void {
    if (options.isBoundToConnection) this.#changes.note(CHANGE.acquiredBound, offset, count, 0, 0);
    else this.#changes.note(CHANGE.acquired, offset, count, details, options.lockedUntilMs);
  }

  /** The message that the order has just found leaves instead of being handed out. */
  #leaveWaiting(offset: number, found: number, reason: LeaveReason, limitDoor: QueueDoor | undefined): void {
    const details = leavingDetails(reason, limitDoor);
    if (found === 0) {
      this.#flights.insert(offset, LEAVING, details);
      this.#states.set(offset, TRACKED);
    } else this.#flights.setStatus(found, LEAVING, details);
    this.#order.taken(GONE);
    this.#noteLeaving(offset, details, false);
  }

  #noteLeaving(offset: number, details: number, isFailure: boolean): void {
    this.#leavingCount++;
    this.#untakenCount++;
    this.#leavingOffsets.push(offset);
    this.#changes.note(CHANGE.leaving, offset, 1, details | (isFailure ? CAME_BACK_AS_FAILURE : 0), 0);
  }

  get #hasExpiry(): boolean {
    return this.#settings.ttlMs >= 0 || this.#attributes.hasExpiry;
  }

  #expiresAtMs(offset: number): number {
    const { ttlMs } = this.#settings;
    const replay = this.#epochs.find(offset);
    if (replay !== undefined) return ttlMs >= 0 ? replay.atMs + ttlMs : NEVER;
    const entry = this.#attributes.find(offset);
    const ownMs = entry < 0 ? NEVER : this.#attributes.expiresAt(entry);
    const arrivedMs = ttlMs >= 0 ? this.#arrivals.at(offset) : undefined;
    return arrivedMs === undefined ? ownMs : Math.min(ownMs, arrivedMs + ttlMs);
  }

  // ------------------------------------------------------------------ settling

  /**
   * All or nothing. Throws INVALID_RECORD_STATE if any of the messages is not in flight, its lock has run out, it is not
   * `owner`'s (`any`: whoever holds it), or two settlements name the same message.
   */
  settle(owner: OwnerId | 'any', settlements: readonly Settlement[], nowMs: number): void {
    const count = this.#check(owner, settlements, nowMs);
    let at = 0;
    let mayAdvance = false;
    for (const settlement of settlements) {
      const { firstOffset, lastOffset, kind } = settlement;
      const end = at + (lastOffset - firstOffset) + 1;
      switch (kind) {
        case 'accept':
        case 'gap':
          this.#acceptRows(firstOffset, at, end);
          mayAdvance ||= firstOffset <= this.#start;
          break;
        case 'reject':
          for (; at < end; at++) this.#rejectRow(this.#rows[at]);
          break;
        case 'release': {
          const { isFailure = true, untilMs = 0 } = settlement;
          for (; at < end; at++) this.#giveBack(this.#rows[at], isFailure, untilMs, nowMs);
          break;
        }
        case 'renew': {
          const { untilMs = NEVER } = settlement;
          for (; at < end; at++) this.#flights.setUntilMs(this.#rows[at], untilMs);
          this.#changes.note(CHANGE.renewed, firstOffset, lastOffset - firstOffset + 1, 0, untilMs);
          break;
        }
        case 'undo':
          for (; at < end; at++) this.#undoRow(this.#rows[at]);
          break;
        default:
          kind satisfies never;
      }
      at = end;
    }
    if (mayAdvance) this.#advanceStart();
    if (count > 0) this.#flights.shrink();
  }

  /** Looks up the rows of all settlements and marks them, so that none is named twice. Takes the marks off again. */
  #check(owner: OwnerId | 'any', settlements: readonly Settlement[], nowMs: number): number {
    const flights = this.#flights;
    const mayRepeat = !areApart(settlements);
    let count = 0;
    let offender = -1;
    let row = 0;
    for (const { firstOffset, lastOffset } of settlements) {
      for (let offset = firstOffset; offset <= lastOffset && offender < 0; offset++) {
        row = flights.findAfter(row, offset);
        const isHeld = row !== 0 && offset < this.#end && this.#isHeld(row, owner, nowMs);
        if (!isHeld || (mayRepeat && !flights.mark(row))) {
          offender = offset;
          break;
        }
        if (count === this.#rows.length) this.#growRows();
        this.#rows[count++] = row;
      }
    }
    if (mayRepeat) for (let at = 0; at < count; at++) flights.unmark(this.#rows[at]);
    if (offender >= 0) {
      throw new MillraceError('INVALID_RECORD_STATE', `message ${offender} is not in flight for consumer ${owner}`);
    }
    return count;
  }

  #isHeld(row: number, owner: OwnerId | 'any', nowMs: number): boolean {
    const flights = this.#flights;
    if (flights.status(row) !== IN_FLIGHT || flights.untilMs(row) <= nowMs) return false;
    return owner === 'any' || flights.owner(row) === owner;
  }

  #growRows(): void {
    const rows = new Uint32Array(this.#rows.length * 2);
    rows.set(this.#rows);
    this.#rows = rows;
  }

  #acceptRows(firstOffset: number, at: number, end: number): void {
    const count = end - at;
    // The last one first: what comes after it in the table is gone already and need not move up.
    for (let i = end - 1; i >= at; i--) this.#flights.remove(this.#rows[i]);
    this.#states.setRange(firstOffset, firstOffset + count, DONE);
    this.#doneCount += count;
    this.#inFlightCount -= count;
    this.#order.finished(firstOffset, count);
    this.#changes.note(CHANGE.done, firstOffset, count, 0, 0);
  }

  #rejectRow(row: number): void {
    this.#leaveFlight(row, leavingDetails('rejected', undefined), false);
  }

  #leaveFlight(row: number, details: number, isFailure: boolean): void {
    const flights = this.#flights;
    const offset = flights.offsetOf(row);
    flights.setOwner(row, 0);
    flights.setUntilMs(row, NEVER);
    flights.setStatus(row, LEAVING, details);
    this.#inFlightCount--;
    this.#order.moved(offset, HELD, GONE);
    this.#noteLeaving(offset, details, isFailure);
  }

  /** Back to its place, or out of the queue if that was one time too many. */
  #giveBack(row: number, isFailure: boolean, untilMs: number, nowMs: number): void {
    const flights = this.#flights;
    if (isFailure) flights.setFailedCount(row, flights.failedCount(row) + 1);
    const limit = this.#limits.reached(flights.acquiredCount(row), flights.failedCount(row));
    if (limit !== undefined) {
      this.#leaveFlight(row, leavingDetails('delivery_limit', limit.door), isFailure);
      return;
    }
    const offset = flights.offsetOf(row);
    flights.setOwner(row, 0);
    this.#inFlightCount--;
    if (untilMs > nowMs) {
      flights.setStatus(row, WAITING, 0);
      flights.setUntilMs(row, untilMs);
      this.#delayedCount++;
      this.#order.moved(offset, HELD, NOT_DUE);
      this.#changes.note(isFailure ? CHANGE.returnedFailedUntil : CHANGE.returnedUntil, offset, 1, 0, untilMs);
    } else {
      flights.setStatus(row, READY, 0);
      flights.setUntilMs(row, NEVER);
      this.#order.moved(offset, HELD, DUE);
      this.#changes.note(isFailure ? CHANGE.returnedFailed : CHANGE.returned, offset, 1, 0, 0);
    }
  }

  #undoRow(row: number): void {
    const flights = this.#flights;
    const offset = flights.offsetOf(row);
    const acquiredCount = flights.acquiredCount(row) - 1;
    this.#inFlightCount--;
    if (acquiredCount === 0) {
      flights.remove(row);
      this.#states.set(offset, FRESH);
    } else {
      flights.setAcquiredCount(row, acquiredCount);
      flights.setOwner(row, 0);
      flights.setUntilMs(row, NEVER);
      flights.setStatus(row, READY, 0);
    }
    this.#order.moved(offset, HELD, DUE);
    this.#changes.note(CHANGE.undone, offset, 1, 0, 0);
  }

  /**
   * Gives back what the owner holds, all or `messagesMax` of it (in no order: nobody should be served before it is all).
   * `isFailure`: counts as a failed attempt. Answers how many.
   */
  releaseOwner(owner: OwnerId, nowMs: number, options: { isFailure: boolean; messagesMax?: number }): number {
    const flights = this.#flights;
    const { isFailure, messagesMax = Number.POSITIVE_INFINITY } = options;
    const count = Math.min(messagesMax, flights.countOf(owner));
    for (let left = count; left > 0; left--) this.#giveBack(flights.firstOf(owner), isFailure, 0, nowMs);
    return count;
  }

  /** How many messages the owner holds. */
  heldBy(owner: OwnerId): number {
    return this.#flights.countOf(owner);
  }

  // ------------------------------------------------------------------ time passes

  /**
   * Locks that ran out (which counts as a failure), delays that ended, messages that expired while first in their lane. Looks at no more than
   * `messagesMax`; true if more is due now: call it again in another turn.
   */
  advance(nowMs: number, messagesMax: number = ADVANCE_MESSAGES_MAX): boolean {
    let left = messagesMax;
    const flights = this.#flights;
    for (let row = flights.due(nowMs); row !== 0 && left > 0; row = flights.due(nowMs), left--) {
      // The log has not been read so far since the start, or lost its end in a power cut.
      if (flights.offsetOf(row) >= this.#end) flights.setUntilMs(row, nowMs + UNREAD_RETRY_MS);
      else if (flights.status(row) === IN_FLIGHT) this.#giveBack(row, true, 0, nowMs);
      else {
        flights.setStatus(row, READY, 0);
        flights.setUntilMs(row, NEVER);
        this.#delayedCount--;
        this.#order.moved(flights.offsetOf(row), NOT_DUE, DUE);
      }
    }
    while (left > 0 && this.#delays.approach(nowMs)) left -= BLOCK_COST;
    for (; left > 0; left--) {
      const offset = this.#delays.takeDue(nowMs);
      if (offset < 0) break;
      this.#delayedCount--;
      this.#order.moved(offset, NOT_DUE, DUE);
    }
    if (this.#hasExpiry) this.#expire(nowMs, left);
    return this.nextDeadlineMs <= nowMs;
  }

  #expire(nowMs: number, messagesMax: number): void {
    const order = this.#order;
    let left = messagesMax;
    let lane = 0;
    order.beginSearch(false);
    while (lane < order.lanes && left > 0) {
      const offset = order.nextOfLane(lane);
      if (offset < 0 || this.#expiresAtMs(offset) > nowMs) {
        lane++;
        continue;
      }
      const row = this.#states.get(offset) === TRACKED ? this.#flights.find(offset) : 0;
      this.#leaveWaiting(offset, row, 'expired', undefined);
      left--;
      // It may have made way for one of its group in a higher lane.
      if (this.#settings.isOrdered) lane = 0;
    }
  }

  // ------------------------------------------------------------------ leaving

  /** Messages that are to leave and were not taken yet, lowest offset first. */
  takeLeaving(max: number): LeavingMessage[] {
    const flights = this.#flights;
    const taken: LeavingMessage[] = [];
    while (taken.length < max && this.#leavingOffsets.count > 0) {
      const offset = this.#leavingOffsets.pop();
      const row = flights.find(offset);
      if (row === 0 || flights.status(row) !== LEAVING) continue;
      const details = flights.details(row);
      flights.setStatus(row, TAKEN, details);
      this.#untakenCount--;
      taken.push({
        offset,
        reason: reasonOf(details),
        acquiredCount: flights.acquiredCount(row),
        failedCount: flights.failedCount(row),
        limitDoor: doorOf(details >>> 2),
      });
    }
    return taken;
  }

  /** These have left, in the same commit as what was made of them. Throws INVALID_RECORD_STATE if one was not leaving. */
  left(offsets: readonly number[]): void {
    const flights = this.#flights;
    for (const offset of offsets) {
      if (flights.status(flights.find(offset)) < LEAVING) {
        throw new MillraceError('INVALID_RECORD_STATE', `message ${offset} is not leaving`);
      }
    }
    for (const offset of offsets) {
      const row = flights.find(offset);
      if (row === 0) continue;
      if (flights.status(row) === LEAVING) this.#untakenCount--;
      flights.remove(row);
      this.#states.set(offset, DONE);
      this.#leavingCount--;
      this.#doneCount++;
      this.#changes.note(CHANGE.done, offset, 1, 0, 0);
    }
    this.#advanceStart();
    flights.shrink();
  }

  /** Up to `count` ready messages leave with reason `maxlen`, the next in turn first (as RabbitMQ drops from the head). Answers how many. */
  dropOldest(count: number): number {
    const order = this.#order;
    let dropped = 0;
    order.beginSearch(false);
    while (dropped < count) {
      const offset = order.next();
      if (offset < 0) break;
      const row = this.#states.get(offset) === TRACKED ? this.#flights.find(offset) : 0;
      this.#leaveWaiting(offset, row, 'maxlen', undefined);
      dropped++;
    }
    return dropped;
  }

  // ------------------------------------------------------------------ all at once

  /**
   * Of these messages, those that wait (ready, delayed or blocked) are done at once: duplicates of earlier sends. Others are
   * left as they are. Called by the registry right after the `extend` that showed them. Answers how many.
   */
  discard(offsets: readonly number[]): number {
    const states = this.#states;
    let count = 0;
    for (const offset of offsets) {
      if (offset < this.#start || offset >= this.#end) continue;
      const state = states.get(offset);
      const row = state === TRACKED ? this.#flights.find(offset) : 0;
      const isDelayed = state === DELAYED || this.#flights.status(row) === WAITING;
      if (state === DONE || (row !== 0 && !isDelayed && this.#flights.status(row) !== READY)) continue;
      if (row !== 0) this.#flights.remove(row);
      states.set(offset, DONE);
      if (isDelayed) this.#delayedCount--;
      this.#doneCount++;
      this.#order.moved(offset, isDelayed ? NOT_DUE : DUE, GONE);
      this.#changes.note(CHANGE.done, offset, 1, 0, 0);
      count++;
    }
    if (count > 0) this.#advanceStart();
    return count;
  }

  /** Everything that waits is done, delayed or not. Leaving messages stay. Answers how many. */
  purge({ untilOffset = this.#end, takeInFlight }: PurgeOptions): number {
    const end = Math.min(untilOffset, this.#end);
    const states = this.#states;
    const changes = this.#changes;
    const from = this.#start;
    const purged = this.#finishBelow(from, end, takeInFlight, false);
    if (purged === 0) return 0;
    // What was done before is done again: it costs less than to tell the two apart.
    for (let offset = states.next(DONE, from, end); offset < end; ) {
      const runEnd = states.nextNot(DONE, offset, end);
      changes.note(CHANGE.done, offset, runEnd - offset, 0, 0);
      offset = states.next(DONE, runEnd, end);
    }
    this.#advanceStart();
    this.#delays.prune();
    this.#reorder();
    return purged;
  }

  /**
   * Makes finished messages available again, as if never handed out. What waits, is in flight or leaving stays as it is. The
   * whole range gets a new epoch, the queue's TTL from now (instead of their own), and the queue's delay ends; a
   * not-before of their own still holds. `firstOffset` may be below the start; then `attributes` is an index that
   * reaches down to it (default: the one there is). Answers how many came back; if none, nothing changes.
   */
  replay(firstOffset: number, lastOffset: number, nowMs: number, attributes?: AttributeIndex): number {
    if (attributes !== undefined) this.#setAttributes(attributes);
    const states = this.#states;
    const first = Math.max(0, firstOffset);
    const end = Math.min(lastOffset + 1, this.#end);
    if (first < this.#start) states.lowerFloor(first);
    const count = first < end ? states.countDone(first, end) : 0;
    if (count > 0) {
      this.#delays.prune();
      this.#revive(first, end, nowMs);
      const epoch = this.#epochs.newest + 1;
      this.#epochs.add({ offset: first, endOffset: end, epoch, atMs: nowMs });
      this.#changes.noteEpoch(CHANGE.replayed, first, end - first, epoch, nowMs);
      this.#start = Math.min(this.#start, states.nextNot(DONE, first, end));
      this.#doneCount = states.countDone(this.#start, this.#end);
    }
    states.dropBelow(this.#start);
    if (count > 0 || attributes !== undefined) this.#reorder();
    return count;
  }

  #revive(first: number, end: number, nowMs: number): void {
    const states = this.#states;
    for (let offset = states.next(DONE, first, end); offset < end; ) {
      const runEnd = states.nextNot(DONE, offset, end);
      states.setRange(offset, runEnd, FRESH);
      this.#delayedCount += this.#delays.delay(offset, runEnd, 0, nowMs);
      offset = states.next(DONE, runEnd, end);
    }
    if (this.#delayedCount > 0) this.#delayedCount -= this.#delays.endDefaults(first, end);
  }

  /** The partition's index was made anew, reaching further down: another queue of the partition replays. */
  useAttributes(attributes: AttributeIndex): void {
    this.#setAttributes(attributes);
    this.#reorder();
  }

  #setAttributes(attributes: AttributeIndex): void {
    this.#attributes = attributes;
    this.#delays.useAttributes(attributes);
  }

  /** Forgets everything and starts at `startOffset`, above or below (AlterShareGroupOffsets); handles of before are void. Call `extend` afterwards. */
  reset(startOffset: number, attributes?: AttributeIndex): void {
    if (attributes !== undefined) this.#attributes = attributes;
    const epoch = this.#epochs.newest + 1;
    this.#changes.noteReset(startOffset, epoch, epoch);
    this.mark.reset(startOffset);
    this.#clear(startOffset, epoch, epoch);
  }

  #clear(startOffset: number, baseEpoch: number, newestEpoch: number): void {
    this.#states = new MessageStates(startOffset);
    this.#flights = new FlightTable();
    this.#epochs.reset(baseEpoch, newestEpoch);
    this.#arrivals.clear();
    this.#delays = this.#newDelays();
    this.#leavingOffsets.clear();
    this.#start = startOffset;
    this.#end = startOffset;
    this.#next = startOffset;
    this.#recoveredEnd = startOffset;
    this.#doneCount = 0;
    this.#inFlightCount = 0;
    this.#delayedCount = 0;
    this.#leavingCount = 0;
    this.#untakenCount = 0;
    this.#order = this.#newOrder();
  }

  // ------------------------------------------------------------------ questions

  /** Rises with each replay of the message; a delivery handle of another epoch is void. */
  epochOf(offset: number): number {
    return this.#epochs.at(offset);
  }

  /** Undefined: not in flight (or its lock has run out by `nowMs`). */
  lockOf(offset: number, nowMs: number): MessageLock | undefined {
    const flights = this.#flights;
    const row = flights.find(offset);
    if (row === 0 || !this.#isHeld(row, 'any', nowMs)) return undefined;
    return {
      owner: flights.owner(row),
      door: doorOf(flights.details(row)) ?? 'kafka',
      lockedUntilMs: flights.untilMs(row),
      acquiredCount: flights.acquiredCount(row),
      failedCount: flights.failedCount(row),
    };
  }

  /** Messages in flight through this door. */
  inFlightThrough(door: QueueDoor): number {
    return this.#flights.inFlightOf(doorCode(door));
  }

  /** When the message was handed out for the first time since the broker started; undefined: it was not, or it is done. */
  firstTakenMs(offset: number): number | undefined {
    const row = this.#flights.find(offset);
    return row === 0 ? undefined : this.#flights.firstTakenMs(row) || undefined;
  }

  /** Unfinished offsets from `fromOffset` up that are not in flight and not leaving, ready or not, for peek. At most `max`. */
  waiting(fromOffset: number, max: number): number[] {
    const states = this.#states;
    const flights = this.#flights;
    const offsets: number[] = [];
    let offset = states.nextNot(DONE, Math.max(fromOffset, this.#start), this.#end);
    while (offset < this.#end && offsets.length < max) {
      const status = states.get(offset) === TRACKED ? flights.status(flights.find(offset)) : READY;
      if (status === READY || status === WAITING) offsets.push(offset);
      offset = states.nextNot(DONE, offset + 1, this.#end);
    }
    return offsets;
  }

  /** True if the message is finished (or below the start). */
  isDone(offset: number): boolean {
    return offset < this.#start || this.#states.get(offset) === DONE;
  }

  // ------------------------------------------------------------------ durable form

  /** What must become durable since the last call; undefined: nothing. */
  takeChanges(): Buffer | undefined {
    return this.#changes.take();
  }

  /**
   * Takes in what `takeChanges` or `snapshot` gave, in order, before the first `extend`. Locks bound to a connection are
   * given back (acquired count kept), others stay with owner 0. Throws MillraceError CORRUPT_MESSAGE on bytes it cannot read.
   */
  applyChanges(bytes: Buffer): void {
    const image = this.#image(this.#recoveredEnd);
    applyChanges(image, bytes);
    this.#states = image.states;
    this.#flights = image.flights;
    this.#epochs = image.epochs;
    this.#start = image.startOffset;
    this.#next = image.nextOffset;
    this.mark.recovered(image.markOffset);
    this.#recoveredEnd = image.endOffset;
    this.#end = this.#start;
    this.#order = this.#newOrder();
    this.#delays = this.#newDelays();
  }

  /**
   * Pieces of at most 256 KiB that rebuild the state; the first resets what was applied before. They include pending changes, which
   * are dropped. The state must not change until the last piece was taken.
   */
  snapshot(): Iterable<Buffer> {
    this.#changes.drop();
    // Above the end nothing has happened yet, unless the log has not been read so far after a start.
    return snapshotOf(this.#image(Math.max(this.#end, this.#recoveredEnd)));
  }

  #image(endOffset: number): QueueImage {
    return {
      states: this.#states,
      flights: this.#flights,
      epochs: this.#epochs,
      startOffset: this.#start,
      nextOffset: this.#next,
      endOffset,
      markOffset: this.mark.offset,
    };
  }
}

/** Whether what comes next is another with these settings. */
function isOtherOrder(old: QueueStateSettings, settings: QueueStateSettings): boolean {
  return (
    old.isOrdered !== settings.isOrdered ||
    old.isFair !== settings.isFair ||
    old.priorityMax !== settings.priorityMax ||
    old.lookaheadMax !== settings.lookaheadMax
  );
}
