/**
 * What the attribute index says of a range of offsets, as it is kept on the disk between two starts of the broker: an
 * index of the log, so whatever is missing or damaged is read from the log again. The header is little-endian; magic and
 * columns are in the byte order of the machine (one of the other order finds a wrong magic), each aligned to its size:
 *
 *   0  uint32 magic 'MLAT' | uint32 CRC32C of all that follows
 *   8  uint16 format 1 | uint16 flags: 1 groups of all records are in it, 2 times of all batches are
 *  12  uint32 entries n | uint32 groups g | uint32 times t | float64 first offset | float64 end offset
 *  40  uint32 × n  offset − first offset
 *      uint32 × n  group, from 1 on; 0: none
 *      uint32 × n  not-before, lower half; 0: none          uint32 × n  expiry, lower half; 0: never
 *      uint32 × t  offset − first offset of the first record appended then
 *      uint32 × t  time of the append + 1, lower half
 *      uint16 × n, × n, × t  upper halves (16 bits) of these times in the same order
 *      uint16 × g  bytes of the group's name
 *      uint8 × n   priority
 *      the names of the groups, UTF-8
 */
import { asBuffer } from '../protocol/bytes.ts';
import { crc32c } from '../protocol/crc32c.ts';
import type { ArrivalTimes } from './arrival-times.ts';
import type { AttributeIndex } from './attribute-index.ts';

const MAGIC = 0x4d_4c_41_54;
const FORMAT = 1;
const GROUPS = 1;
const TIMES = 2;
const CRC_FROM = 8;
const HEADER_BYTES = 40;
const TWO_32 = 4_294_967_296;
const NEVER = Number.POSITIVE_INFINITY;
/** Offsets of a piece are below this from its first. */
export const PIECE_OFFSETS_MAX = TWO_32;

interface Columns {
  readonly offsets: Uint32Array;
  readonly groups: Uint32Array;
  readonly notBefore: Uint32Array;
  readonly expires: Uint32Array;
  readonly timeOffsets: Uint32Array;
  readonly times: Uint32Array;
  readonly notBeforeUpper: Uint16Array;
  readonly expiresUpper: Uint16Array;
  readonly timesUpper: Uint16Array;
  readonly nameSizes: Uint16Array;
  readonly priorities: Uint8Array;
  readonly namesAt: number;
}

function columnsOf(bytes: Buffer, entries: number, groups: number, times: number): Columns {
  const { buffer } = bytes;
  let at = bytes.byteOffset + HEADER_BYTES;
  const wide = (count: number): Uint32Array => new Uint32Array(buffer, (at += count * 4) - count * 4, count);
  const narrow = (count: number): Uint16Array => new Uint16Array(buffer, (at += count * 2) - count * 2, count);
  return {
    offsets: wide(entries),
    groups: wide(entries),
    notBefore: wide(entries),
    expires: wide(entries),
    timeOffsets: wide(times),
    times: wide(times),
    notBeforeUpper: narrow(entries),
    expiresUpper: narrow(entries),
    timesUpper: narrow(times),
    nameSizes: narrow(groups),
    priorities: new Uint8Array(buffer, (at += entries) - entries, entries),
    namesAt: at - bytes.byteOffset,
  };
}

function columnBytes(entries: number, groups: number, times: number): number {
  return HEADER_BYTES + entries * 21 + times * 10 + groups * 2;
}

export interface PieceRange {
  readonly from: number;
  readonly endOffset: number;
  /** Records were looked at for groups. */
  readonly hasGroups: boolean;
  /** When what lies in the range was appended, if that is known of all of it. */
  readonly times: ArrivalTimes | undefined;
}

/** What the index says of the range, which spans less than `PIECE_OFFSETS_MAX`. */
export function encodePiece(index: AttributeIndex, { from, endOffset, hasGroups, times }: PieceRange): Buffer {
  const groupNumbers = new Map<number, number>();
  const names: Buffer[] = [];
  let entries = 0;
  let nameBytes = 0;
  for (let entry = index.firstFrom(from); entry >= 0; entry = index.following(entry)) {
    if (index.offsetAt(entry) >= endOffset) break;
    entries++;
    const group = index.groupAt(entry);
    if (group === 0 || groupNumbers.has(group)) continue;
    const name = Buffer.from(index.groupName(group) ?? '');
    groupNumbers.set(group, names.push(name));
    nameBytes += name.length;
  }
  const arrivals = times === undefined ? [] : [...times.between(from, endOffset)];
  const sizeBytes = columnBytes(entries, names.length, arrivals.length);
  // Not of the pool: columns are aligned from its start.
  const bytes = Buffer.from(new ArrayBuffer(sizeBytes + nameBytes));
  const header = new DataView(bytes.buffer);
  const columns = columnsOf(bytes, entries, names.length, arrivals.length);
  let at = 0;
  for (let entry = index.firstFrom(from); at < entries; entry = index.following(entry), at++) {
    columns.offsets[at] = index.offsetAt(entry) - from;
    columns.groups[at] = groupNumbers.get(index.groupAt(entry)) ?? 0;
    columns.priorities[at] = index.priorityAt(entry);
    const notBeforeMs = index.notBeforeAt(entry);
    columns.notBefore[at] = notBeforeMs % TWO_32;
    columns.notBeforeUpper[at] = Math.floor(notBeforeMs / TWO_32);
    const expiresAtMs = index.expiresAt(entry);
    if (expiresAtMs === NEVER) continue;
    columns.expires[at] = Math.max(1, expiresAtMs) % TWO_32;
    columns.expiresUpper[at] = Math.floor(Math.max(1, expiresAtMs) / TWO_32);
  }
  for (const [number, { offset, atMs }] of arrivals.entries()) {
    columns.timeOffsets[number] = offset - from;
    columns.times[number] = (atMs + 1) % TWO_32;
    columns.timesUpper[number] = Math.floor((atMs + 1) / TWO_32);
  }
  let nameAt = columns.namesAt;
  for (const [number, name] of names.entries()) {
    columns.nameSizes[number] = name.length;
    nameAt += name.copy(bytes, nameAt);
  }
  new Uint32Array(bytes.buffer, 0, 1)[0] = MAGIC;
  const flags = (hasGroups ? GROUPS : 0) | (times === undefined ? 0 : TIMES);
  header.setUint16(8, FORMAT, true);
  header.setUint16(10, flags, true);
  header.setUint32(12, entries, true);
  header.setUint32(16, names.length, true);
  header.setUint32(20, arrivals.length, true);
  header.setFloat64(24, from, true);
  header.setFloat64(32, endOffset, true);
  header.setUint32(4, crc32c(bytes, CRC_FROM, bytes.length - CRC_FROM), true);
  return bytes;
}

/** What was known of a range before the broker ended. */
export class AttributePiece {
  readonly from: number;
  readonly endOffset: number;
  readonly hasGroups: boolean;
  readonly hasTimes: boolean;
  readonly #columns: Columns;
  readonly #names: readonly string[];
  /** What a group was called by the index when it was last met; its number may be another's by now. */
  readonly #ids: Uint32Array;
  /** Where the last call of `addTo` ended. */
  #at = 0;

  private constructor(bytes: Buffer, header: DataView) {
    const flags = header.getUint16(10, true);
    const groupCount = header.getUint32(16, true);
    this.from = header.getFloat64(24, true);
    this.endOffset = header.getFloat64(32, true);
    this.hasGroups = (flags & GROUPS) !== 0;
    this.hasTimes = (flags & TIMES) !== 0;
    this.#columns = columnsOf(bytes, header.getUint32(12, true), groupCount, header.getUint32(20, true));
    const names: string[] = [];
    let at = this.#columns.namesAt;
    for (const size of this.#columns.nameSizes) names.push(bytes.toString('utf8', at, (at += size)));
    this.#names = names;
    this.#ids = new Uint32Array(groupCount);
  }

  /** Undefined: these are not the bytes of a piece, or not all of them. */
  static decode(stored: Uint8Array): AttributePiece | undefined {
    // Copy: only where the disk answers bytes that are not aligned.
    const bytes = asBuffer(stored.byteOffset % 4 === 0 ? stored : new Uint8Array(stored));
    if (bytes.length < HEADER_BYTES) return undefined;
    const header = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
    if (new Uint32Array(bytes.buffer, bytes.byteOffset, 1)[0] !== MAGIC) return undefined;
    if (header.getUint16(8, true) !== FORMAT) return undefined;
    if (header.getUint32(4, true) !== crc32c(bytes, CRC_FROM, bytes.length - CRC_FROM)) return undefined;
    const sizes = [header.getUint32(12, true), header.getUint32(16, true), header.getUint32(20, true)] as const;
    return columnBytes(...sizes) > bytes.length ? undefined : new AttributePiece(bytes, header);
  }

  /** Adds the entries from `offset` up to `endOffset` to the index. Ranges of one piece in order. */
  addTo(index: AttributeIndex, offset: number, endOffset: number): void {
    const { offsets, groups, priorities, notBefore, notBeforeUpper, expires, expiresUpper } = this.#columns;
    const first = offset - this.from;
    const end = endOffset - this.from;
    let at = this.#at;
    while (at < offsets.length && offsets[at] < first) at++;
    for (; at < offsets.length && offsets[at] < end; at++) {
      const expiresAtMs = expiresUpper[at] * TWO_32 + expires[at];
      index.add(
        this.from + offsets[at],
        priorities[at],
        notBeforeUpper[at] * TWO_32 + notBefore[at],
        expiresAtMs === 0 ? NEVER : expiresAtMs,
        groups[at] === 0 ? 0 : this.#idOf(index, groups[at] - 1),
      );
    }
    this.#at = at;
  }

  #idOf(index: AttributeIndex, group: number): number {
    const name = this.#names[group];
    const known = this.#ids[group];
    if (known !== 0 && index.groupName(known) === name) return known;
    const id = index.groupId(name);
    this.#ids[group] = id;
    return id;
  }

  /** Tells `arrivals` when what lies from `offset` up to `endOffset` was appended. */
  *arrivals(offset: number, endOffset: number): Iterable<{ offset: number; endOffset: number; atMs: number }> {
    const { timeOffsets, times, timesUpper } = this.#columns;
    let low = 0;
    let high = timeOffsets.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (this.from + timeOffsets[middle] <= offset) low = middle + 1;
      else high = middle;
    }
    for (let at = Math.max(0, low - 1); at < timeOffsets.length; at++) {
      const from = Math.max(offset, this.from + timeOffsets[at]);
      if (from >= endOffset) return;
      const next = at + 1 < timeOffsets.length ? this.from + timeOffsets[at + 1] : this.endOffset;
      const end = Math.min(endOffset, next);
      if (from < end) yield { offset: from, endOffset: end, atMs: timesUpper[at] * TWO_32 + times[at] - 1 };
    }
  }
}
