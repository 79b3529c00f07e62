/**
 * The checkpoint: what is known to be synced, and where in the journal recovery starts. One file, replaced as a whole, so
 * that a start reads this and not the folders.
 *
 *   uint32 magic 'MLCP' | uint16 format | uint32 CRC32C of the rest | uint32 size + head | (uint32 size + partition)*
 *
 * Head and partitions are MessagePack arrays (docs/formats.md). A partition's piece is made when its bytes were synced
 * and kept, so that a checkpoint costs nothing for partitions that nobody touched.
 */
import { pack, unpack } from 'msgpackr';
import { asBuffer } from '../protocol/bytes.ts';
import { crc32c } from '../protocol/crc32c.ts';
import { MillraceError } from '../protocol/errors.ts';
import type { Disk } from './disk.ts';
import type { EpochStart } from './leader-epochs.ts';
import type { SegmentState } from './segment.ts';
import { readSnapshot, writeSnapshot } from './snapshot.ts';

const MAGIC = 0x4d_4c_43_50;
const FORMAT = 1;
const HEAD_BYTES = 10;

export interface CheckpointHead {
  /** First journal record that must be replayed. */
  sequence: number;
  /** Of the process that wrote it; the next start takes a larger one. */
  leaderEpoch: number;
}

/** What is known synced of a partition. */
export interface PartitionState {
  topicId: string;
  index: number;
  topic: string;
  folder: string;
  startOffset: number;
  isFenced: boolean;
  epochs: readonly EpochStart[];
  /** Producer state up to `producersOffset`; undefined: that of the `.snapshot` file of that offset, or of the whole log. */
  producers: Uint8Array | undefined;
  producersOffset: number;
  segments: readonly SegmentState[];
}

export interface Checkpoint {
  head: CheckpointHead;
  partitions: PartitionState[];
  /** The same as they are stored. */
  pieces: readonly Buffer[];
}

export function encodePartition(state: PartitionState): Buffer {
  return pack([
    state.topicId,
    state.index,
    state.topic,
    state.folder,
    state.startOffset,
    state.isFenced,
    state.epochs.map(({ epoch, startOffset }) => [epoch, startOffset]),
    state.producers ?? null,
    state.producersOffset,
    state.segments.map((segment) => [
      segment.baseOffset,
      segment.writtenBytes,
      segment.writtenOffset,
      segment.createdMs,
      segment.firstTimestamp,
      segment.largestTimestamp,
      segment.largestTimestampOffset,
      segment.batchBytesMax,
      ...flagsOf(segment),
    ]),
  ]);
}

const SWAP_PENDING = 1;
const REWRITTEN = 2;

/** Nothing for those that have none. */
function flagsOf({ isSwapPending, isRewritten }: SegmentState): number[] {
  const flags = (isSwapPending === true ? SWAP_PENDING : 0) | (isRewritten === true ? REWRITTEN : 0);
  return flags === 0 ? [] : [flags];
}

function decodePartition(bytes: Buffer): PartitionState {
  // The shape is the one that `encodePartition` wrote: the CRC of the file holds.
  const row = unpack(bytes) as [
    string,
    number,
    string,
    string,
    number,
    boolean,
    [number, number][],
    Uint8Array | null,
    number,
    number[][],
  ];
  return {
    topicId: row[0],
    index: row[1],
    topic: row[2],
    folder: row[3],
    startOffset: row[4],
    isFenced: row[5],
    epochs: row[6].map(([epoch, startOffset]) => ({ epoch, startOffset })),
    producers: row[7] === null ? undefined : new Uint8Array(row[7]),
    producersOffset: row[8],
    segments: row[9].map((fields) => ({
      baseOffset: fields[0],
      writtenBytes: fields[1],
      writtenOffset: fields[2],
      createdMs: fields[3],
      firstTimestamp: fields[4],
      largestTimestamp: fields[5],
      largestTimestampOffset: fields[6],
      batchBytesMax: fields[7],
      ...((fields[8] & SWAP_PENDING) !== 0 ? { isSwapPending: true } : {}),
      ...((fields[8] & REWRITTEN) !== 0 ? { isRewritten: true } : {}),
    })),
  };
}

/** Replaces the checkpoint; durable when the promise resolves. `partitions`: pieces from `encodePartition`. */
export function writeCheckpoint(
  disk: Disk,
  path: string,
  { sequence, leaderEpoch }: CheckpointHead,
  partitions: readonly Buffer[],
): Promise<void> {
  const pieces = [pack([sequence, leaderEpoch]), ...partitions];
  let size = HEAD_BYTES;
  for (const piece of pieces) size += 4 + piece.length;
  const bytes = Buffer.allocUnsafe(size);
  bytes.writeUInt32BE(MAGIC, 0);
  bytes.writeUInt16BE(FORMAT, 4);
  let at = HEAD_BYTES;
  for (const piece of pieces) {
    at = bytes.writeUInt32BE(piece.length, at);
    at += piece.copy(bytes, at);
  }
  bytes.writeUInt32BE(crc32c(bytes, HEAD_BYTES, size - HEAD_BYTES), 6);
  return writeSnapshot(disk, path, bytes);
}

/**
 * The checkpoint of a data folder, undefined if there is none yet.
 * @throws MillraceError DATA_DIR_CORRUPT
 */
export async function readCheckpoint(disk: Disk, path: string): Promise<Checkpoint | undefined> {
  const stored = await readSnapshot(disk, path);
  if (stored === undefined) return undefined;
  const bytes = asBuffer(stored);
  const isWhole =
    bytes.length > HEAD_BYTES &&
    bytes.readUInt32BE(0) === MAGIC &&
    bytes.readUInt32BE(6) === crc32c(bytes, HEAD_BYTES, bytes.length - HEAD_BYTES);
  if (!isWhole) throw new MillraceError('DATA_DIR_CORRUPT', `${path} is not a checkpoint or damaged`);
  if (bytes.readUInt16BE(4) !== FORMAT) {
    throw new MillraceError('DATA_DIR_FORMAT', `${path} has format ${bytes.readUInt16BE(4)}, expected ${FORMAT}`);
  }
  const pieces: Buffer[] = [];
  for (let at = HEAD_BYTES; at < bytes.length; ) {
    const size = bytes.readUInt32BE(at);
    pieces.push(bytes.subarray(at + 4, at + 4 + size));
    at += 4 + size;
  }
  const [sequence, leaderEpoch] = unpack(pieces[0]) as [number, number];
  return { head: { sequence, leaderEpoch }, partitions: pieces.slice(1).map(decodePartition), pieces: pieces.slice(1) };
}
