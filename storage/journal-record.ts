/**
 * The bytes of the journal: what its writer and its reader agree on (docs/formats.md).
 *
 *   file    512-byte header: magic, format, flush mode, salt of this use, first sequence, the one it continues, CRC; then records
 *   record  40-byte header: magic, header size, payload size, sequence, salt, leader epoch, part count, CRC32C of header and
 *           table; table of parts; payload: the batches of the append parts, in their order, those that several parts
 *           have in common once
 *
 * The CRC does not cover the payload. Each append part carries a fingerprint of its batches' own CRCs instead, so that the
 * payload is not read again here; `readJournal` checks those CRCs and the fingerprint.
 *
 * A partition is named by its key, never by its name: topic id and index.
 */
import assert from 'node:assert';
import { readInt64, writeInt64 } from '../protocol/bytes.ts';
import {
  batchBaseOffset,
  batchCrc,
  batchLastOffset,
  batchLeaderEpoch,
  checkStoredBatch,
} from '../protocol/record-batch.ts';
import { type Run, runDigest } from './tail-cache.ts';

export const FILE_MAGIC = 0x4d_4c_4a_46; // MLJF
export const RECORD_MAGIC = 0x4d_4c_4a_52; // MLJR
export const FORMAT = 1;
export const FILE_HEADER_BYTES = 512;
export const RECORD_HEADER_BYTES = 40;
export const SALT_BYTES = 8;
/** Where in a record its CRC stands: the last field of the header. */
export const CRC_AT = 36;
export const KEY_BYTES = 20;
/** kind, key, base offset, size, batch count, digest */
export const APPEND_PART_BYTES = 1 + KEY_BYTES + 8 + 4 + 4 + 4;

/** kind, key, base offset, number of the append part that has the batches */
export const TWIN_PART_BYTES = 1 + KEY_BYTES + 8 + 4;

export const partKinds = {
  append: 1,
  /** As append; the first batch starts a new segment. */
  appendToNewSegment: 2,
  start: 3,
  delete: 4,
  /** First mention of a partition: its topic's name. The folder is found by its `partition.metadata`. */
  open: 5,
  /** How far its newest segment is known to be synced. */
  mark: 6,
  /** As the two of `append`, with the batches of an earlier append part of the record at offsets of their own. */
  twin: 7,
  twinToNewSegment: 8,
} as const;

/** A partition as the journal names it: 16 bytes of topic id and 4 of index, made once. */
export type PartitionKey = Buffer;

/** A part other than an append. */
export type OtherPart =
  | { kind: 'start'; key: PartitionKey; offset: number }
  | { kind: 'delete'; key: PartitionKey }
  | { kind: 'open'; key: PartitionKey; topic: string }
  | { kind: 'mark'; key: PartitionKey; segmentBase: number; syncedBytes: number };

/** An append part as the writer takes it. */
export interface AppendPart {
  key: PartitionKey;
  run: Run;
}

/** A part as it is read back. `key` is hex text: topic id and index. */
export type ReadPart =
  | {
      kind: 'append';
      key: string;
      baseOffset: number;
      nextOffset: number;
      leaderEpoch: number;
      startsSegment: boolean;
      digest: number;
      /** Where in the record its batches are; those of a twin have the offsets of another part. */
      position: number;
      sizeBytes: number;
    }
  | { kind: 'start'; key: string; offset: number }
  | { kind: 'delete'; key: string }
  | { kind: 'open'; key: string; topic: string }
  | { kind: 'mark'; key: string; segmentBase: number; syncedBytes: number };

type AppendedPart = Extract<ReadPart, { kind: 'append' }>;

export function writeAppendPart(header: Buffer, position: number, key: PartitionKey, run: Run): number {
  let at = header.writeUInt8(run.startsSegment ? partKinds.appendToNewSegment : partKinds.append, position);
  header.set(key, at);
  at += KEY_BYTES;
  writeInt64(header, at, run.baseOffset);
  at = header.writeUInt32BE(run.sizeBytes, at + 8);
  at = header.writeUInt32BE(run.batchCount, at);
  return header.writeUInt32BE(run.digest, at);
}

/** `twin`: number of the append part with the same batches. */
export function writeTwinPart(header: Buffer, position: number, key: PartitionKey, run: Run, twin: number): number {
  let at = header.writeUInt8(run.startsSegment ? partKinds.twinToNewSegment : partKinds.twin, position);
  header.set(key, at);
  at += KEY_BYTES;
  writeInt64(header, at, run.baseOffset);
  return header.writeUInt32BE(twin, at + 8);
}

export function otherPartBytes(part: OtherPart): number {
  switch (part.kind) {
    case 'start':
      return 1 + KEY_BYTES + 8;
    case 'delete':
      return 1 + KEY_BYTES;
    case 'open':
      return 1 + KEY_BYTES + 2 + Buffer.byteLength(part.topic);
    case 'mark':
      return 1 + KEY_BYTES + 16;
  }
}

export function writeOtherPart(header: Buffer, position: number, part: OtherPart): number {
  let at = header.writeUInt8(partKinds[part.kind], position);
  header.set(part.key, at);
  at += KEY_BYTES;
  switch (part.kind) {
    case 'start':
      writeInt64(header, at, part.offset);
      return at + 8;
    case 'delete':
      return at;
    case 'open':
      at = header.writeUInt16BE(Buffer.byteLength(part.topic), at);
      return at + header.write(part.topic, at);
    case 'mark':
      writeInt64(header, at, part.segmentBase);
      writeInt64(header, at + 8, part.syncedBytes);
      return at + 16;
  }
}

/** The parts of a record whose header CRC is right; undefined if a batch is not what the table says. */
export function readParts(bytes: Buffer, headerBytes: number): ReadPart[] | undefined {
  const parts: ReadPart[] = [];
  const appended: AppendedPart[] = [];
  const leaderEpoch = bytes.readInt32BE(28);
  const count = bytes.readUInt32BE(32);
  let at = RECORD_HEADER_BYTES;
  let payloadAt = headerBytes;
  for (let index = 0; index < count; index++) {
    const kind = bytes[at];
    const key = bytes.toString('hex', at + 1, at + 1 + KEY_BYTES);
    at += 1 + KEY_BYTES;
    switch (kind) {
      case partKinds.append:
      case partKinds.appendToNewSegment: {
        const baseOffset = readInt64(bytes, at);
        const sizeBytes = bytes.readUInt32BE(at + 8);
        const digest = bytes.readUInt32BE(at + 16);
        const position = payloadAt;
        payloadAt += sizeBytes;
        const batches = {
          position,
          end: payloadAt,
          baseOffset,
          leaderEpoch,
          count: bytes.readUInt32BE(at + 12),
          digest,
        };
        const nextOffset = checkBatches(bytes, batches);
        if (nextOffset < 0) return undefined;
        const startsSegment = kind === partKinds.appendToNewSegment;
        const part: AppendedPart = {
          kind: 'append',
          key,
          baseOffset,
          nextOffset,
          leaderEpoch,
          startsSegment,
          digest,
          position,
          sizeBytes,
        };
        parts.push(part);
        appended.push(part);
        at += APPEND_PART_BYTES - 1 - KEY_BYTES;
        break;
      }
      case partKinds.twin:
      case partKinds.twinToNewSegment: {
        const baseOffset = readInt64(bytes, at);
        const twin = appended[bytes.readUInt32BE(at + 8)];
        assert(twin !== undefined);
        const nextOffset = baseOffset + (twin.nextOffset - twin.baseOffset);
        const part = { ...twin, key, baseOffset, nextOffset, startsSegment: kind === partKinds.twinToNewSegment };
        parts.push(part);
        appended.push(part);
        at += TWIN_PART_BYTES - 1 - KEY_BYTES;
        break;
      }
      case partKinds.start:
        parts.push({ kind: 'start', key, offset: readInt64(bytes, at) });
        at += 8;
        break;
      case partKinds.delete:
        parts.push({ kind: 'delete', key });
        break;
      case partKinds.open: {
        const topicEnd = at + 2 + bytes.readUInt16BE(at);
        parts.push({ kind: 'open', key, topic: bytes.toString('utf8', at + 2, topicEnd) });
        at = topicEnd;
        break;
      }
      case partKinds.mark:
        parts.push({
          kind: 'mark',
          key,
          segmentBase: readInt64(bytes, at),
          syncedBytes: readInt64(bytes, at + 8),
        });
        at += 16;
        break;
      default:
        assert.fail(`journal part of kind ${kind}`);
    }
  }
  assert(at === headerBytes);
  return parts;
}

/** What the table says of the batches of an append part. */
interface ExpectedBatches {
  position: number;
  end: number;
  baseOffset: number;
  leaderEpoch: number;
  count: number;
  digest: number;
}

/** The offset after the batches, −1 if they are not exactly those that were written. */
function checkBatches(bytes: Buffer, expected: ExpectedBatches): number {
  const { position, end, baseOffset, leaderEpoch } = expected;
  let offset = baseOffset;
  let digest = 0;
  let count = 0;
  for (let at = position; at < end; count++) {
    const size = checkStoredBatch(bytes, at, end - at);
    if (size < 0) return -1;
    if (batchBaseOffset(bytes, at) !== offset || batchLeaderEpoch(bytes, at) !== leaderEpoch) return -1;
    digest = runDigest(digest, batchCrc(bytes, at));
    offset = batchLastOffset(bytes, at) + 1;
    at += size;
  }
  return count === expected.count && digest === expected.digest ? offset : -1;
}

/** Hex text of a partition key, as `ReadPart` has it. */
export function keyText(key: PartitionKey): string {
  return key.toString('hex');
}

/** The key of a partition: topic id and index. */
export function partitionKey(topicId: string, index: number): PartitionKey {
  const key = Buffer.alloc(KEY_BYTES);
  const written = key.write(topicId.replaceAll('-', ''), 0, 16, 'hex');
  assert(written === 16, `topic id ${topicId} is not a UUID`);
  key.writeUInt32BE(index, 16);
  return key;
}
