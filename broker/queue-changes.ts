/**
 * What of a queue's state must become durable, as bytes: a list of operations on runs of offsets, written by `ChangeWriter` as
 * they happen (neighbours that are alike become one run), read back by `readChanges`. Decisions are in it, not their reasons:
 * reading needs no settings.
 *
 *   version (1 byte)
 *   operation*: kind (1 byte)
 *               first offset minus the end of the operation before (zigzag varint; 0 at the beginning)
 *               count − 1 (varint)
 *               arguments, by kind
 *
 * Times are zigzag varints of the difference to the time before (0 at the beginning); +1 shifted so that 0 is infinity.
 */
import { MillraceError } from '../protocol/errors.ts';
import type { LeaveReason, QueueDoor } from './queue.ts';

const VERSION = 1;
/** Longest run of what is kept message by message: so many are read into memory at most for an operation. */
const RUN_MAX = 1_000_000;
/** Pieces of a snapshot; an operation is never split. */
export const PIECE_BYTES_MAX = 256 * 1024;

export const CHANGE = {
  /** Forget everything; the queue starts at the first offset. Arguments: epoch of all messages, newest epoch. */
  reset: 1,
  /** Everything below the first offset is done. */
  start: 2,
  done: 3,
  /** Handed out once more, under a lock that ends with its connection. */
  acquiredBound: 4,
  /** Handed out once more; detail: door; argument: until when it is locked. */
  acquired: 5,
  /** Came back; available at once. */
  returned: 6,
  /** Came back as a failure. */
  returnedFailed: 7,
  /** Came back; argument: available then. */
  returnedUntil: 8,
  returnedFailedUntil: 9,
  /** Was not handed out after all. */
  undone: 10,
  /** Argument: the new end of the lock. */
  renewed: 11,
  /** Is to leave; detail: reason, limit's door, and whether it came back as a failure at that. */
  leaving: 12,
  /** Finished messages are available again; arguments: epoch, time. */
  replayed: 13,
  /** Epoch of a range, from a snapshot; arguments: epoch, time. */
  epoch: 14,
  /** Rows of a snapshot; detail: status and details; arguments: acquired, failed, until. */
  rows: 15,
  /** Which messages are done, a bit each; count is a multiple of 8. */
  doneBits: 16,
  /** What is below the first offset may have been handed out, whatever else is told. */
  mark: 17,
} as const;

export type ChangeKind = (typeof CHANGE)[keyof typeof CHANGE];

const REASONS: readonly LeaveReason[] = ['expired', 'rejected', 'delivery_limit', 'maxlen'];
const DOORS: readonly (QueueDoor | undefined)[] = [undefined, 'kafka', 'amqp', 'sqs'];

/** Two bits of reason, two of the limit's door. */
export function leavingDetails(reason: LeaveReason, limitDoor: QueueDoor | undefined): number {
  return REASONS.indexOf(reason) | (DOORS.indexOf(limitDoor) << 2);
}
export function reasonOf(details: number): LeaveReason {
  return REASONS[details & 3];
}
export function doorOf(code: number): QueueDoor | undefined {
  return DOORS[code & 3];
}
export function doorCode(door: QueueDoor | undefined): number {
  return DOORS.indexOf(door);
}

/** Collects operations; the one that is still open grows by what follows it directly and is alike. */
export class ChangeWriter {
  #bytes: Buffer = Buffer.allocUnsafeSlow(256);
  #size = 0;
  #previousEnd = 0;
  #previousMs = 0;

  #kind: ChangeKind | 0 = 0;
  #first = 0;
  #end = 0;
  #detail = 0;
  #atMs = 0;

  get isEmpty(): boolean {
    return this.#size === 0 && this.#kind === 0;
  }

  /** Bytes so far, about. */
  get sizeBytes(): number {
    return this.#size;
  }

  /** `count` messages from `offset`. What the detail and the time mean is up to the kind; 0 if it has none. */
  note(kind: ChangeKind, offset: number, count: number, detail: number, atMs: number): void {
    if (this.#kind === kind && this.#detail === detail && this.#atMs === atMs && this.#extend(offset, count)) return;
    if (count > RUN_MAX && !isBulk(kind)) {
      this.note(kind, offset, RUN_MAX, detail, atMs);
      this.note(kind, offset + RUN_MAX, count - RUN_MAX, detail, atMs);
      return;
    }
    this.#close();
    this.#kind = kind;
    this.#first = offset;
    this.#end = offset + count;
    this.#detail = detail;
    this.#atMs = atMs;
  }

  /** The members of a run have nothing to do with each other: it may grow at either end. */
  #extend(offset: number, count: number): boolean {
    if (this.#end - this.#first + count > RUN_MAX) return false;
    if (this.#end === offset) this.#end += count;
    else if (this.#first === offset + count) this.#first = offset;
    else return false;
    return true;
  }

  /** Rows of a snapshot. Not merged: the caller merges. */
  noteRows(
    offset: number,
    count: number,
    detail: number,
    acquiredCount: number,
    failedCount: number,
    untilMs: number,
  ): void {
    this.#close();
    this.#begin(CHANGE.rows, offset, count);
    this.#bytes[this.#size++] = detail;
    this.#unsigned(acquiredCount);
    this.#unsigned(failedCount);
    this.#time(untilMs);
  }

  noteStart(offset: number): void {
    this.#close();
    this.#begin(CHANGE.start, offset, 1);
  }

  noteMark(offset: number): void {
    this.#close();
    this.#begin(CHANGE.mark, offset, 1);
  }

  noteReset(offset: number, baseEpoch: number, newestEpoch: number): void {
    this.#close();
    this.#begin(CHANGE.reset, offset, 1);
    this.#unsigned(baseEpoch);
    this.#unsigned(newestEpoch);
  }

  /** A range that was replayed. */
  noteEpoch(kind: ChangeKind, offset: number, count: number, epoch: number, atMs: number): void {
    this.#close();
    this.#begin(kind, offset, count);
    this.#unsigned(epoch);
    this.#time(atMs);
  }

  noteDoneBits(offset: number, bits: Uint8Array): void {
    this.#close();
    this.#begin(CHANGE.doneBits, offset, bits.length * 8);
    this.#room(bits.length);
    this.#bytes.set(bits, this.#size);
    this.#size += bits.length;
  }

  /** Everything noted since the last call; undefined: nothing. */
  take(): Buffer | undefined {
    this.#close();
    if (this.#size === 0) return undefined;
    const taken = this.#bytes.subarray(0, this.#size);
    // Copy: small lists are the rule, and a new buffer for each would cost more than they weigh.
    const bytes = taken.length < 2048 ? Buffer.from(taken) : taken;
    if (bytes === taken) this.#bytes = Buffer.allocUnsafeSlow(256);
    this.#size = 0;
    this.#previousEnd = 0;
    this.#previousMs = 0;
    return bytes;
  }

  drop(): void {
    this.#kind = 0;
    this.#end = 0;
    this.take();
  }

  #close(): void {
    const kind = this.#kind;
    if (kind === 0) return;
    this.#kind = 0;
    this.#begin(kind, this.#first, this.#end - this.#first);
    switch (kind) {
      case CHANGE.acquired:
        this.#bytes[this.#size++] = this.#detail;
        this.#time(this.#atMs);
        break;
      case CHANGE.returnedUntil:
      case CHANGE.returnedFailedUntil:
      case CHANGE.renewed:
        this.#time(this.#atMs);
        break;
      case CHANGE.leaving:
        this.#bytes[this.#size++] = this.#detail;
        break;
      default:
    }
    this.#end = -1;
  }

  #begin(kind: ChangeKind, offset: number, count: number): void {
    this.#room(64);
    if (this.#size === 0) this.#bytes[this.#size++] = VERSION;
    this.#bytes[this.#size++] = kind;
    this.#signed(offset - this.#previousEnd);
    this.#unsigned(count - 1);
    this.#previousEnd = offset + count;
  }

  #time(ms: number): void {
    if (ms === Number.POSITIVE_INFINITY) {
      this.#bytes[this.#size++] = 0;
      return;
    }
    // Never early: fractions are rounded up.
    const whole = Math.ceil(ms);
    const difference = whole - this.#previousMs;
    this.#unsigned((difference < 0 ? -2 * difference - 1 : 2 * difference) + 1);
    this.#previousMs = whole;
  }

  #signed(value: number): void {
    this.#unsigned(value < 0 ? -2 * value - 1 : 2 * value);
  }

  #unsigned(value: number): void {
    let rest = value;
    while (rest >= 0x80) {
      this.#bytes[this.#size++] = (rest % 0x80) | 0x80;
      rest = Math.floor(rest / 0x80);
    }
    this.#bytes[this.#size++] = rest;
  }

  #room(sizeBytes: number): void {
    if (this.#size + sizeBytes <= this.#bytes.length) return;
    const larger = Buffer.allocUnsafeSlow(Math.max(this.#bytes.length * 2, this.#size + sizeBytes));
    this.#bytes.copy(larger, 0, 0, this.#size);
    this.#bytes = larger;
  }
}

/** One operation, reused for all: what is said of `note` and its sisters. */
export interface Change {
  kind: ChangeKind;
  offset: number;
  endOffset: number;
  detail: number;
  atMs: number;
  epoch: number;
  acquiredCount: number;
  failedCount: number;
  bits: Uint8Array;
}

const NO_BITS = new Uint8Array(0);

/** Calls back for each operation, always with the same object. Throws CORRUPT_MESSAGE on what it cannot read. */
export function readChanges(bytes: Buffer, apply: (change: Change) => void): void {
  const reader = new ChangeReader(bytes);
  while (reader.next()) apply(reader.change);
}

class ChangeReader {
  readonly change: Change = {
    kind: CHANGE.reset,
    offset: 0,
    endOffset: 0,
    detail: 0,
    atMs: 0,
    epoch: 0,
    acquiredCount: 0,
    failedCount: 0,
    bits: NO_BITS,
  };
  readonly #bytes: Buffer;
  #at = 1;
  #previousMs = 0;

  constructor(bytes: Buffer) {
    this.#bytes = bytes;
    if (bytes.length === 0 || bytes[0] !== VERSION) throw corrupt(`version ${bytes[0]} instead of ${VERSION}`);
  }

  next(): boolean {
    if (this.#at >= this.#bytes.length) return false;
    const change = this.change;
    const kind = this.#byte();
    const difference = this.#unsigned();
    change.offset = change.endOffset + (difference % 2 === 0 ? difference / 2 : -(difference + 1) / 2);
    const count = this.#unsigned() + 1;
    change.endOffset = change.offset + count;
    if (change.offset < 0) throw corrupt(`offset ${change.offset}`);
    if (!Number.isSafeInteger(change.endOffset)) throw corrupt(`offset ${change.endOffset}`);
    if (count > RUN_MAX && !isBulk(kind)) throw corrupt(`a run of ${count} messages`);
    switch (kind) {
      case CHANGE.reset:
        change.epoch = this.#unsigned();
        change.acquiredCount = this.#unsigned();
        break;
      case CHANGE.start:
      case CHANGE.done:
      case CHANGE.acquiredBound:
      case CHANGE.returned:
      case CHANGE.returnedFailed:
      case CHANGE.undone:
      case CHANGE.mark:
        break;
      case CHANGE.acquired:
        change.detail = this.#byte();
        change.atMs = this.#time();
        break;
      case CHANGE.returnedUntil:
      case CHANGE.returnedFailedUntil:
      case CHANGE.renewed:
        change.atMs = this.#time();
        break;
      case CHANGE.leaving:
        change.detail = this.#byte();
        break;
      case CHANGE.replayed:
      case CHANGE.epoch:
        change.epoch = this.#unsigned();
        change.atMs = this.#time();
        break;
      case CHANGE.rows:
        change.detail = this.#byte();
        change.acquiredCount = this.#unsigned();
        change.failedCount = this.#unsigned();
        change.atMs = this.#time();
        break;
      case CHANGE.doneBits: {
        const size = count / 8;
        if (!Number.isInteger(size)) throw corrupt(`${count} bits`);
        if (this.#at + size > this.#bytes.length) throw corrupt(`${size} bytes expected at byte ${this.#at}`);
        change.bits = this.#bytes.subarray(this.#at, this.#at + size);
        this.#at += size;
        break;
      }
      default:
        throw corrupt(`kind ${kind}`);
    }
    // One of the kinds: the switch has looked.
    change.kind = kind as ChangeKind;
    return true;
  }

  #time(): number {
    const value = this.#unsigned();
    if (value === 0) return Number.POSITIVE_INFINITY;
    const zigzag = value - 1;
    this.#previousMs += zigzag % 2 === 0 ? zigzag / 2 : -(zigzag + 1) / 2;
    return this.#previousMs;
  }

  #byte(): number {
    if (this.#at >= this.#bytes.length) throw corrupt('it ends too early');
    return this.#bytes[this.#at++];
  }

  #unsigned(): number {
    let value = 0;
    let factor = 1;
    for (;;) {
      const byte = this.#byte();
      value += (byte & 0x7f) * factor;
      if (byte < 0x80) break;
      factor *= 0x80;
      if (factor > 2 ** 56) throw corrupt('a number is too long');
    }
    if (!Number.isSafeInteger(value)) throw corrupt('a number is too large');
    return value;
  }
}

/** Kinds that are not kept message by message. */
function isBulk(kind: number): boolean {
  return kind === CHANGE.done || kind === CHANGE.replayed || kind === CHANGE.epoch;
}

function corrupt(what: string): MillraceError {
  return new MillraceError('CORRUPT_MESSAGE', `changes of a queue cannot be read: ${what}`);
}
