/**
 * What of a queue's state outlives the broker: which messages are done, the flight table, the epochs. Changes and snapshots
 * (`queue-changes.ts`) are read into it and snapshots written from it; everything else is worked out from it and the log.
 */
import { FlightTable, IN_FLIGHT, LEAVING, READY, type RowStatus, TAKEN, WAITING } from './flight-table.ts';
import { CHUNK_MESSAGES, DONE, FRESH, MessageStates, TRACKED } from './message-states.ts';
import { CHANGE, type Change, ChangeWriter, PIECE_BYTES_MAX, readChanges } from './queue-changes.ts';
import { QueueEpochs } from './queue-epochs.ts';

/** Details of a message in flight: two bits of door, and this one. */
export const IS_BOUND = 4;
/** Detail of a `leaving` change beside reason and door. */
export const CAME_BACK_AS_FAILURE = 16;

const NEVER = Number.POSITIVE_INFINITY;
/** Longest run of rows in a snapshot. */
const ROWS_RUN_MAX = 100_000;

export interface QueueImage {
  states: MessageStates;
  flights: FlightTable;
  epochs: QueueEpochs;
  /** Everything below is done. */
  startOffset: number;
  /** Nothing at or above was handed out. */
  nextOffset: number;
  /** Nothing at or above is told of. */
  endOffset: number;
  /** What is below may have been handed out without being told of. */
  markOffset: number;
}

export function newImage(startOffset: number): QueueImage {
  return {
    states: new MessageStates(startOffset),
    flights: new FlightTable(),
    epochs: new QueueEpochs(),
    startOffset,
    nextOffset: startOffset,
    endOffset: startOffset,
    markOffset: startOffset,
  };
}

/**
 * Takes in what was written. Locks bound to a connection are given back, others have owner 0 from then on.
 * Throws CORRUPT_MESSAGE on bytes that cannot be read.
 */
export function applyChanges(image: QueueImage, bytes: Buffer): void {
  readChanges(bytes, (change) => applyChange(image, change));
  image.startOffset = image.states.nextNot(DONE, image.startOffset, Math.max(image.startOffset, image.endOffset));
  image.states.dropBelow(image.startOffset);
}

function applyChange(image: QueueImage, change: Change): void {
  const { kind, offset, endOffset } = change;
  if (kind !== CHANGE.start && kind !== CHANGE.reset && kind !== CHANGE.doneBits && kind !== CHANGE.mark) {
    image.endOffset = Math.max(image.endOffset, endOffset);
  }
  switch (kind) {
    case CHANGE.reset:
      Object.assign(image, newImage(offset));
      image.epochs.reset(change.epoch, change.acquiredCount);
      break;
    case CHANGE.start:
      finish(image, image.startOffset, offset);
      image.startOffset = Math.max(image.startOffset, offset);
      image.endOffset = Math.max(image.endOffset, offset);
      break;
    case CHANGE.done:
      finish(image, offset, endOffset);
      break;
    case CHANGE.replayed:
      image.states.lowerFloor(offset);
      for (let at = image.states.next(DONE, offset, endOffset); at < endOffset; ) {
        const end = image.states.nextNot(DONE, at, endOffset);
        image.states.setRange(at, end, FRESH);
        at = image.states.next(DONE, end, endOffset);
      }
      image.startOffset = Math.min(image.startOffset, offset);
      image.epochs.add({ offset, endOffset, epoch: change.epoch, atMs: change.atMs });
      break;
    case CHANGE.epoch:
      image.epochs.add({ offset, endOffset, epoch: change.epoch, atMs: change.atMs });
      break;
    case CHANGE.mark:
      image.markOffset = offset;
      break;
    case CHANGE.doneBits:
      for (let at = 0; at < change.bits.length * 8; at++) {
        if (((change.bits[at >>> 3] >>> (at & 7)) & 1) === 0) continue;
        image.states.set(offset + at, DONE);
        image.endOffset = Math.max(image.endOffset, offset + at + 1);
      }
      break;
    default:
      for (let at = offset; at < endOffset; at++) applyRow(image, change, at);
  }
}

/** All of the range is done: its rows go. Counts are the caller's. */
export function finish(
  { states, flights }: Pick<QueueImage, 'states' | 'flights'>,
  offset: number,
  endOffset: number,
): void {
  for (let at = states.next(TRACKED, offset, endOffset); at < endOffset; at = states.next(TRACKED, at + 1, endOffset)) {
    flights.remove(flights.find(at));
  }
  states.setRange(Math.max(offset, states.floorOffset), endOffset, DONE);
}

function applyRow(image: QueueImage, change: Change, offset: number): void {
  const flights = image.flights;
  let row = flights.find(offset);
  if (row === 0) {
    row = flights.insert(offset, READY, 0);
    image.states.set(offset, TRACKED);
  }
  if (offset >= image.nextOffset) image.nextOffset = offset + 1;
  switch (change.kind) {
    case CHANGE.acquiredBound:
      flights.setAcquiredCount(row, flights.acquiredCount(row) + 1);
      restore(flights, row, READY, 0, NEVER);
      break;
    case CHANGE.acquired:
      flights.setAcquiredCount(row, flights.acquiredCount(row) + 1);
      restore(flights, row, IN_FLIGHT, change.detail, change.atMs);
      break;
    case CHANGE.returnedFailed:
      flights.setFailedCount(row, flights.failedCount(row) + 1);
      restore(flights, row, READY, 0, NEVER);
      break;
    case CHANGE.returned:
      restore(flights, row, READY, 0, NEVER);
      break;
    case CHANGE.returnedFailedUntil:
      flights.setFailedCount(row, flights.failedCount(row) + 1);
      restore(flights, row, WAITING, 0, change.atMs);
      break;
    case CHANGE.returnedUntil:
      restore(flights, row, WAITING, 0, change.atMs);
      break;
    case CHANGE.undone:
      flights.setAcquiredCount(row, flights.acquiredCount(row) - 1);
      restore(flights, row, READY, 0, NEVER);
      if (flights.acquiredCount(row) > 0) break;
      flights.remove(row);
      image.states.set(offset, FRESH);
      break;
    case CHANGE.renewed:
      if (flights.status(row) === IN_FLIGHT) flights.setUntilMs(row, change.atMs);
      break;
    case CHANGE.leaving:
      if (change.detail & CAME_BACK_AS_FAILURE) flights.setFailedCount(row, flights.failedCount(row) + 1);
      restore(flights, row, LEAVING, change.detail & ~CAME_BACK_AS_FAILURE, NEVER);
      break;
    case CHANGE.rows:
      // Written by `snapshotRows`.
      flights.setAcquiredCount(row, change.acquiredCount);
      flights.setFailedCount(row, change.failedCount);
      restore(flights, row, (change.detail & 7) as RowStatus, change.detail >>> 3, change.atMs);
      break;
    default:
  }
}

function restore(flights: FlightTable, row: number, status: RowStatus, details: number, untilMs: number): void {
  flights.setStatus(row, status, details);
  flights.setUntilMs(row, untilMs);
}

/** Pieces of at most 256 KiB; the first resets. The image must not change until the last was taken. */
export function* snapshotOf(image: QueueImage): Generator<Buffer> {
  const { states, epochs, startOffset, endOffset: end } = image;
  const writer = new ChangeWriter();
  writer.noteReset(startOffset, epochs.base, epochs.newest);
  if (image.markOffset > startOffset) writer.noteMark(image.markOffset);
  for (const { offset, endOffset, epoch, atMs } of epochs.ranges) {
    writer.noteEpoch(CHANGE.epoch, offset, endOffset - offset, epoch, atMs);
  }
  for (let offset = states.floorOffset; offset < end; offset += CHUNK_MESSAGES) {
    const bits = states.doneBits(offset);
    if (bits === 'all') writer.note(CHANGE.done, offset, CHUNK_MESSAGES, 0, 0);
    else if (bits !== 'none') writer.noteDoneBits(offset, bits);
    if (writer.sizeBytes > PIECE_BYTES_MAX - 4096) yield* takeFrom(writer);
  }
  yield* snapshotRows(image, writer);
  yield* takeFrom(writer);
}

function* snapshotRows(image: QueueImage, writer: ChangeWriter): Generator<Buffer> {
  const { states, flights, endOffset: end } = image;
  let first = -1;
  let last = -1;
  let detail = 0;
  let acquiredCount = 0;
  let failedCount = 0;
  let untilMs = 0;
  for (let offset = states.next(TRACKED, image.startOffset, end); ; offset = states.next(TRACKED, offset + 1, end)) {
    const row = offset < end ? flights.find(offset) : 0;
    const rowDetail = row === 0 ? 0 : durableDetail(flights.status(row), flights.details(row));
    const rowUntilMs = (rowDetail & 7) === READY ? NEVER : flights.untilMs(row);
    const isAlike =
      row !== 0 &&
      offset === last + 1 &&
      offset - first < ROWS_RUN_MAX &&
      rowDetail === detail &&
      flights.acquiredCount(row) === acquiredCount &&
      flights.failedCount(row) === failedCount &&
      rowUntilMs === untilMs;
    if (!isAlike && first >= 0) {
      writer.noteRows(first, last - first + 1, detail, acquiredCount, failedCount, untilMs);
      if (writer.sizeBytes > PIECE_BYTES_MAX - 4096) yield* takeFrom(writer);
    }
    if (row === 0) return;
    if (!isAlike) first = offset;
    last = offset;
    detail = rowDetail;
    acquiredCount = flights.acquiredCount(row);
    failedCount = flights.failedCount(row);
    untilMs = rowUntilMs;
  }
}

function* takeFrom(writer: ChangeWriter): Generator<Buffer> {
  const piece = writer.take();
  if (piece !== undefined) yield piece;
}

/** Status and details of a row as a start would find them. */
function durableDetail(status: number, details: number): number {
  if (status === IN_FLIGHT && details & IS_BOUND) return READY;
  return (status === TAKEN ? LEAVING : status) | (details << 3);
}
