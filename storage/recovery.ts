/**
 * Brings the log back after a stop of any kind, before anything is served:
 *
 *   checkpoint → journal, once: which partitions, which starts, which deletions, how far is known synced, where what is
 *   → partitions that the journal tells completely are ready; their segments are looked at when they are used, or by the
 *     engine's first checkpoint (`PendingLog`)
 *   → of the others each is compared with its folder here (`PartitionRecovery`)
 *
 * A bad batch or a missing file below what was known synced fences the partition. Nothing of the journal or the checkpoint
 * is changed here, and what is done to segments is done again in the same way: a crash at any moment is harmless. What the
 * journal holds is not synced here: the journal stays until the engine's first checkpoint covers it, and every start before
 * that reads it again.
 */
import assert from 'node:assert';
import { MillraceError } from '../protocol/errors.ts';
import { type Checkpoint, type PartitionState, readCheckpoint } from './checkpoint.ts';
import type { Clock } from './clock.ts';
import type { DataDir, PartitionIdentity } from './data-dir.ts';
import type { Disk } from './disk.ts';
import { type JournalRecord, openChain, readJournal, SEQUENCE_GAP } from './journal-reader.ts';
import type { ReadChain } from './journal.ts';
import { keyText, partitionKey, type ReadPart } from './journal-record.ts';
import { JournalBytes, JournaledParts } from './journaled-parts.ts';
import { LeaderEpochs } from './leader-epochs.ts';
import type { OpenFiles } from './open-files.ts';
import {
  type JournalNews,
  journaledTo,
  PartitionRecovery,
  type RecoveredLog,
  type RecoveryContext,
  startOf,
  type Unsynced,
} from './partition-recovery.ts';
import { finishSwaps } from './segment-swap.ts';

export interface RecoveryOptions {
  disk: Disk;
  clock: Clock;
  dataDir: DataDir;
  checkpointPath: string;
  journalFolder: string;
  files: OpenFiles;
  warn: (message: string) => void;
}

/** A partition that the journal tells completely, from where the checkpoint ends. Its segments may not have it all. */
export interface PendingLog {
  /** All that was acknowledged ends here, and nothing else counts. */
  readonly endOffset: number;
  readonly sizeBytes: number;
  /** Brings its segments in line with that. Before it is used, and before a checkpoint lets the journal go. */
  recover(): Promise<RecoveredLog>;
}

/** The folder of a partition may not have been made. */
export type KnownState = Omit<PartitionState, 'folder'> & { folder: string | undefined };

/** What the checkpoint has of it still holds, or something is not synced, or its segments were not looked at. */
export type RecoveredPartition =
  | { state: PartitionState; piece: Buffer }
  | { state: PartitionState; unsynced: Unsynced }
  | { state: KnownState; pending: PendingLog };

export interface Recovered {
  partitions: RecoveredPartition[];
  /** The checkpoint that was read, and its pieces as they are stored. */
  sequence: number;
  pieces: readonly Buffer[];
  chain: ReadChain;
  /** Of this start: larger than all before. */
  leaderEpoch: number;
  /** First sequence of the new journal chain: larger than any written before. */
  nextSequence: number;
  /** What pending partitions read from: closed before the journal is written over. */
  journal: JournalBytes;
}

export async function recover(options: RecoveryOptions): Promise<Recovered> {
  const { disk, dataDir, files, checkpointPath, journalFolder } = options;
  // After a kill, names may be in the page cache only, that of the newest checkpoint too: a power cut from here on must not
  // bring back the older one, whose journal is about to be written over.
  await disk.syncDirectory(dataDir.path);
  await disk.syncDirectory(journalFolder);
  const stored = await readCheckpoint(disk, checkpointPath);
  if (stored === undefined && dataDir.folders.length > 0) {
    // It is written before the first partition is made: without it nothing here can be told from leftovers.
    throw new MillraceError(
      'DATA_DIR_CORRUPT',
      `${checkpointPath} is missing, but there are partition folders; restore it from a backup`,
    );
  }
  const checkpoint: Checkpoint = stored ?? { head: { sequence: 1, leaderEpoch: -1 }, partitions: [], pieces: [] };
  const chain = await openChain(disk, journalFolder);
  const { sequence } = checkpoint.head;
  const journal = new JournalBytes(files);
  const { news, read } = await readNews(readJournal(disk, chain, sequence), sequence, journal);

  const known = new Map<string, { state: PartitionState; piece: Buffer }>();
  checkpoint.partitions.forEach((state, index) => {
    known.set(keyText(partitionKey(state.topicId, state.index)), { state, piece: checkpoint.pieces[index] });
  });
  // A deleted partition's folder may bear the name of a newer one by now: who it belongs to is looked up like that of any.
  for (const [key, item] of news) if (item.isDeleted) known.delete(key);
  await finishSwaps(disk, dataDir.path, known.values());
  const folders = await identifyFolders(options, known, news, chain.files.at(-1)?.isSynced ?? true);

  const context: RecoveryContext = { ...options, journal };
  const partitions = new Map<string, RecoveredPartition>(known);
  const others = new Map<string, PartitionRecovery>();
  for (const [key, item] of news) {
    const state = known.get(key)?.state;
    if (!isThere(item, state)) continue;
    const folder = folders.get(key);
    if (isTold(item, state)) partitions.set(key, pendingPartition(context, item, state, folder));
    else others.set(key, new PartitionRecovery(context, item, state, folder));
  }
  await inParallel(others, async ([key, recovery]) => {
    const recovered = await recovery.recover();
    partitions.delete(key);
    if (recovered === undefined) return;
    for (const segment of recovered.segments) await segment.close();
    partitions.set(key, recovered);
  });
  // Those that were synced here are in no checkpoint yet.
  if ([...others.values()].some((recovery) => recovery.needsFolderSync)) await dataDir.sync();
  return {
    partitions: [...partitions.values()],
    sequence,
    pieces: checkpoint.pieces,
    chain: { ...read, firstSequence: sequence },
    leaderEpoch: checkpoint.head.leaderEpoch + 1,
    nextSequence: Math.max(read.endSequence - 1, chain.largestFirstSequence) + SEQUENCE_GAP,
    journal,
  };
}

/** Reads the journal to its end: what it says of each partition, and what was read. */
async function readNews(
  records: AsyncIterable<JournalRecord>,
  sequence: number,
  journal: JournalBytes,
): Promise<{ news: Map<string, JournalNews>; read: Omit<ReadChain, 'firstSequence'> }> {
  const news = new Map<string, JournalNews>();
  const lastSequences = new Map<string, number>();
  let endSequence = sequence;
  let last: ReadChain['last'];
  let sizeBytes = 0;
  for await (const record of records) {
    endSequence = record.sequence + 1;
    lastSequences.set(record.path, record.sequence);
    last = { path: record.path, position: record.position, sizeBytes: record.sizeBytes };
    sizeBytes += record.sizeBytes;
    const file = journal.numberOf(record.path);
    for (const part of record.parts) notePart(newsOf(news, part.key), part, record, file);
  }
  return { news, read: { endSequence, lastSequences, last, sizeBytes } };
}

function newsOf(news: Map<string, JournalNews>, key: string): JournalNews {
  let item = news.get(key);
  if (item === undefined) {
    item = {
      ...identityOf(key),
      topic: undefined,
      startOffset: 0,
      isDeleted: false,
      isMarked: false,
      markBase: 0,
      markBytes: 0,
      isSynced: true,
      parts: new JournaledParts(),
    };
    news.set(key, item);
  }
  return item;
}

function identityOf(key: string): { topicId: string; index: number } {
  const topicId = [key.slice(0, 8), key.slice(8, 12), key.slice(12, 16), key.slice(16, 20), key.slice(20, 32)].join(
    '-',
  );
  return { topicId, index: Number.parseInt(key.slice(32), 16) };
}

function notePart(item: JournalNews, part: ReadPart, record: JournalRecord, file: number): void {
  if (!record.isSynced) item.isSynced = false;
  switch (part.kind) {
    case 'append':
      item.parts.add(part, file, record.position);
      return;
    case 'start':
      item.startOffset = Math.max(item.startOffset, part.offset);
      return;
    case 'delete':
      item.isDeleted = true;
      item.parts = new JournaledParts();
      return;
    case 'open':
      item.topic = part.topic;
      return;
    case 'mark':
      item.isMarked = true;
      item.markBase = part.segmentBase;
      item.markBytes = part.syncedBytes;
      return;
  }
}

/**
 * Whether the journal tells the partition completely, from where the checkpoint ends. A direct write would be told by a
 * mark only, and a start that has moved may have taken segments with it.
 */
function isTold(item: JournalNews, state: PartitionState | undefined): boolean {
  if (!item.isSynced || item.isMarked || item.startOffset > 0 || state?.isFenced === true) return false;
  const { parts } = item;
  const endOffset = journaledTo(item, state);
  return parts.count > 0 && endOffset >= parts.at(parts.count - 1).nextOffset && endOffset >= startOf(item, state);
}

function pendingPartition(
  context: RecoveryContext,
  item: JournalNews,
  state: PartitionState | undefined,
  folder: string | undefined,
): RecoveredPartition {
  const { topicId, index, topic, parts } = item;
  const endOffset = journaledTo(item, state);
  const knownOffset = state?.segments.at(-1)?.writtenOffset ?? 0;
  const epochs = new LeaderEpochs(state?.epochs);
  for (let number = 0; number < parts.count; number++) {
    const { leaderEpoch, baseOffset } = parts.at(number);
    if (baseOffset >= knownOffset) epochs.assign(leaderEpoch, baseOffset);
  }
  const before = state ?? {
    topicId,
    index,
    topic: topic ?? '',
    startOffset: 0,
    isFenced: false,
    producers: undefined,
    producersOffset: 0,
    segments: [],
  };
  let sizeBytes = parts.sizeBytes;
  for (const segment of before.segments) sizeBytes += segment.writtenBytes;
  const recover = async (): Promise<RecoveredLog> => {
    const recovered = await new PartitionRecovery(context, item, state, folder, endOffset).recover();
    assert(recovered !== undefined);
    return recovered;
  };
  return {
    state: { ...before, folder: state?.folder ?? folder, epochs: epochs.entries },
    pending: { endOffset, sizeBytes, recover },
  };
}

/**
 * Whether a partition that the journal names is there. One that neither the checkpoint nor the journal opens was deleted
 * before the checkpoint: nothing is appended after that, but a mark may have come later, and its files may not be gone.
 */
function isThere(item: JournalNews, state: PartitionState | undefined): boolean {
  if (item.isDeleted) return false;
  return state !== undefined || item.topic !== undefined || item.parts.count > 0;
}

/**
 * Folders that the checkpoint does not know: by partition key those of partitions that the journal names. Others were made
 * for what was never acknowledged, or belong to deleted partitions, and go; with `log.flush: written` the journal may have
 * lost their mention, so they are set aside.
 */
async function identifyFolders(
  options: RecoveryOptions,
  states: ReadonlyMap<string, { state: PartitionState }>,
  news: ReadonlyMap<string, JournalNews>,
  isSynced: boolean,
): Promise<Map<string, string>> {
  const { dataDir, warn } = options;
  const known = new Set<string>();
  for (const { state } of states.values()) known.add(state.folder);
  const unknown = dataDir.folders.filter((folder) => !known.has(folder));
  const identities = new Map<string, PartitionIdentity | undefined>();
  await inParallel(unknown, async (folder) => {
    identities.set(folder, await dataDir.identify(folder));
  });
  const found = new Map<string, string>();
  const gone: string[] = [];
  for (const folder of unknown) {
    const identity = identities.get(folder);
    const key = identity && keyText(partitionKey(identity.topicId, identity.index));
    const item = key === undefined ? undefined : news.get(key);
    const isMissed = key !== undefined && item !== undefined && !states.has(key) && !found.has(key);
    if (isMissed && isThere(item, undefined)) found.set(key, folder);
    else if (item?.isDeleted === true || (isSynced && (identity !== undefined || (await dataDir.isAnonymous(folder)))))
      gone.push(folder);
    else {
      const aside = await dataDir.setAside(folder);
      const what = aside === undefined ? 'held nothing and is removed' : `is set aside as ${aside}`;
      warn(`${folder} ${what}: the journal does not know it`);
    }
  }
  // Their files are removed when the broker is ready.
  await inParallel(gone, async (folder) => {
    await dataDir.retire(folder);
  });
  return found;
}

/** Work on so many partitions at a time: as many as libuv has threads. */
const PARALLEL = 16;

async function inParallel<T>(items: Iterable<T>, task: (item: T) => Promise<void>): Promise<void> {
  const iterator = items[Symbol.iterator]();
  const lane = async (): Promise<void> => {
    for (let next = iterator.next(); next.done !== true; next = iterator.next()) await task(next.value);
  };
  await Promise.all(Array.from({ length: PARALLEL }, lane));
}
