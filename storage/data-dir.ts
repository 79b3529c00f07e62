/**
 * The data folder: who may use it, who it belongs to, and the folders of partitions in it.
 *
 *     DATA/.lock, .locks/                 folder lock (folder-lock.ts)
 *     DATA/meta.properties                cluster id, node id, folder id, format (Kafka's file with one line more)
 *     DATA/journal/, checkpoint …         journal and checkpoint; no partition folder can have such a name
 *     DATA/TOPIC-PARTITION/               one partition, Kafka's layout, `partition.metadata` says whose
 *     DATA/TOPIC~TOPICID-PARTITION/       the same, where the plain name cannot be
 *     DATA/NAME.XXXXXXXX-delete/          deleted for good, only the removal of its files is not finished
 *     DATA/NAME.XXXXXXXX-stray/           set aside: not what it should be; never read, never removed
 *
 * The plain name cannot be where it is taken by another topic's folder, also one that differs only by case (file systems
 * that ignore case would mix the two), or where it is too long to leave room for the suffixes within 255 bytes. `~` is
 * not allowed in topic names, so the escaped name of one topic is never the plain name of another. Who a folder belongs
 * to is never read from its name, only from its `partition.metadata`.
 *
 * Names are in `#names` from the moment they are chosen, so that two partitions created at once do not choose the same.
 */
import { type ErrorCode, MillraceError } from '../protocol/errors.ts';
import type { Random } from './clock.ts';
import { type Disk, type DiskLock, writeAll } from './disk.ts';
import { folderOf, readSnapshot, TEMPORARY_SUFFIX, writeSnapshot } from './snapshot.ts';

/** Version of the layout of the whole folder. A folder with a larger one is refused. */
export const FORMAT_VERSION = 1;

const META_FILE = 'meta.properties';
const PARTITION_METADATA_FILE = 'partition.metadata';
const DELETE_SUFFIX = '-delete';
const STRAY_SUFFIX = '-stray';
/** With topic id, partition and the longest suffix that is still below 255 bytes. */
const PLAIN_TOPIC_MAX = 180;
const TOPIC_NAME = /^[a-zA-Z0-9._-]{1,249}$/;

export interface DataDirOptions {
  random: Random;
  /** Must be that of the folder if it has one already. Default 1 for a new folder. */
  nodeId?: number;
}

/** Whose a partition folder is. */
export interface PartitionIdentity {
  /** UUID text. */
  readonly topicId: string;
  readonly index: number;
}

export class DataDir {
  readonly path: string;
  /** 22 characters, base64url of a UUID, as Kafka's. */
  readonly clusterId: string;
  readonly nodeId: number;
  /** Of this folder; same form as the cluster id. */
  readonly directoryId: string;
  readonly #disk: Disk;
  readonly #random: Random;
  readonly #lock: DiskLock;
  /** Lower case of every name in the folder. */
  readonly #names: Set<string>;
  #folders: string[];
  #leftovers: string[];
  #syncing: Promise<void> | undefined;
  #nextSync: Promise<void> | undefined;

  private constructor(disk: Disk, path: string, random: Random, lock: DiskLock, meta: Meta, names: readonly string[]) {
    this.path = path;
    this.clusterId = meta.clusterId;
    this.nodeId = meta.nodeId;
    this.directoryId = meta.directoryId;
    this.#disk = disk;
    this.#random = random;
    this.#lock = lock;
    this.#names = new Set(names.map((name) => name.toLowerCase()));
    this.#folders = names.filter((name) => partitionIndexOf(name) !== undefined);
    this.#leftovers = names.filter((name) => name.endsWith(DELETE_SUFFIX));
  }

  /**
   * Locks the folder, makes it and its `meta.properties` if they are not there.
   * @throws MillraceError DATA_DIR_LOCKED, DATA_DIR_FORMAT (newer, or somebody else's), DATA_DIR_CORRUPT, INVALID_OPTION (node id)
   */
  static async open(disk: Disk, path: string, options: DataDirOptions): Promise<DataDir> {
    await makeDurably(disk, path);
    const lock = await disk.lock(path, 'exclusive');
    try {
      const names = await disk.list(path);
      const stored = await readSnapshot(disk, `${path}/${META_FILE}`);
      let meta: Meta;
      if (stored === undefined) {
        refuseForeign(path, names);
        meta = {
          clusterId: randomId(options.random),
          nodeId: options.nodeId ?? 1,
          directoryId: randomId(options.random),
        };
        await writeSnapshot(disk, `${path}/${META_FILE}`, encodeMeta(meta));
      } else meta = decodeMeta(stored, `${path}/${META_FILE}`);
      if (options.nodeId !== undefined && options.nodeId !== meta.nodeId) {
        throw new MillraceError(
          'INVALID_OPTION',
          `node.id is ${options.nodeId}, but the data folder ${path} belongs to node ${meta.nodeId}; use that id or another folder`,
        );
      }
      return new DataDir(disk, path, options.random, lock, meta, names);
    } catch (error) {
      await lock.release();
      throw error;
    }
  }

  /** Names of the partition folders that are there, neither deleted nor set aside. */
  get folders(): readonly string[] {
    return this.#folders;
  }

  /** Whose folder `name` is; undefined if it does not say so, or not in a way that can be read. */
  async identify(name: string): Promise<PartitionIdentity | undefined> {
    const index = partitionIndexOf(name);
    const bytes = await readSnapshot(this.#disk, `${this.path}/${name}/${PARTITION_METADATA_FILE}`);
    const topicId = bytes === undefined ? undefined : decodePartitionMetadata(bytes);
    return topicId === undefined || index === undefined ? undefined : { topicId, index };
  }

  /**
   * Makes the folder of a partition with its `partition.metadata` and answers its name. Nothing is synced: it survives a
   * power cut only after `syncPartition` and `sync`, which many creations can share.
   */
  async createPartition(topic: string, identity: PartitionIdentity): Promise<string> {
    const name = this.#chooseName(topic, identity);
    this.#names.add(name.toLowerCase());
    const folder = `${this.path}/${name}`;
    await this.#disk.makeDirectory(folder);
    const file = await this.#disk.open(`${folder}/${PARTITION_METADATA_FILE}`, 'write');
    try {
      await writeAll(file, [encodePartitionMetadata(identity.topicId)], 0);
    } finally {
      await file.close();
    }
    this.#folders.push(name);
    return name;
  }

  /** Makes what says whose folder it is survive a power cut; the folder's own name does with `sync`. */
  async syncPartition(name: string): Promise<void> {
    const folder = `${this.path}/${name}`;
    const file = await this.#disk.open(`${folder}/${PARTITION_METADATA_FILE}`, 'write');
    try {
      await file.sync();
    } finally {
      await file.close();
    }
    await this.#disk.syncDirectory(folder);
  }

  /** Writes `partition.metadata` again if a power cut has taken it. */
  async restoreIdentity(name: string, identity: PartitionIdentity): Promise<void> {
    if ((await this.identify(name)) !== undefined) return;
    const path = `${this.path}/${name}/${PARTITION_METADATA_FILE}`;
    await writeSnapshot(this.#disk, path, encodePartitionMetadata(identity.topicId));
  }

  /** Whether a folder says nothing of whose it is: its creation was cut off, or a power cut came before its first sync. */
  async isAnonymous(name: string): Promise<boolean> {
    const bytes = await this.#disk.readFile(`${this.path}/${name}/${PARTITION_METADATA_FILE}`);
    return bytes === undefined || bytes.every((byte) => byte === 0);
  }

  /** Makes creations and renames of partition folders survive a power cut. Calls during a running sync share the next one. */
  async sync(): Promise<void> {
    if (this.#syncing === undefined) {
      this.#syncing = this.#disk.syncDirectory(this.path).finally(() => {
        this.#syncing = undefined;
      });
      return this.#syncing;
    }
    this.#nextSync ??= this.#syncing
      .catch(() => {}) // Who started that one is told.
      .then(() => {
        this.#nextSync = undefined;
        return this.sync();
      });
    return this.#nextSync;
  }

  /**
   * First step of a deletion: once this has ended the partition is gone for good, whatever happens. Answers the name
   * for `remove`.
   */
  async retire(name: string): Promise<string> {
    // With `log.flush: written` a power cut may keep this step and lose what it was for: then it comes again.
    const isThere = (await this.#disk.stat(`${this.path}/${name}`)) !== undefined;
    const retired = isThere ? await this.#renameAway(name, DELETE_SUFFIX) : name + DELETE_SUFFIX;
    this.#leftovers.push(retired);
    return retired;
  }

  /** Second step of a deletion: removes the files. Interrupted, the next start goes on with `removeLeftovers`. */
  async remove(retired: string): Promise<void> {
    if (!retired.endsWith(DELETE_SUFFIX)) throw new Error(`${retired} was not retired`);
    await this.#disk.removeDirectory(`${this.path}/${retired}`);
    this.#names.delete(retired.toLowerCase());
    this.#leftovers = this.#leftovers.filter((each) => each !== retired);
  }

  /** Finishes the deletions that earlier runs began. */
  async removeLeftovers(): Promise<void> {
    for (const retired of this.#leftovers.slice()) await this.remove(retired);
  }

  /**
   * Takes a folder that is not what it should be out of the way, keeping its files for a person. Answers its new name;
   * undefined if it held nothing (its creation was cut off) and was removed.
   */
  async setAside(name: string): Promise<string | undefined> {
    if (await this.#holdsData(name)) return this.#renameAway(name, STRAY_SUFFIX);
    await this.remove(await this.retire(name));
    return undefined;
  }

  /** Lets go of the lock; idempotent. */
  close(): Promise<void> {
    return this.#lock.release();
  }

  async #holdsData(name: string): Promise<boolean> {
    for (const file of await this.#disk.list(`${this.path}/${name}`)) {
      if (file.startsWith(PARTITION_METADATA_FILE)) continue;
      const stat = await this.#disk.stat(`${this.path}/${name}/${file}`);
      if (stat !== undefined && stat.sizeBytes > 0) return true;
    }
    return false;
  }

  async #renameAway(name: string, suffix: string): Promise<string> {
    let away: string;
    do {
      const mark = Buffer.from(this.#random.fill(new Uint8Array(4))).toString('hex');
      away = `${name}.${mark}${suffix}`;
    } while (this.#names.has(away.toLowerCase()));
    this.#names.add(away.toLowerCase());
    await this.#disk.rename(`${this.path}/${name}`, `${this.path}/${away}`);
    this.#names.delete(name.toLowerCase());
    this.#folders = this.#folders.filter((each) => each !== name);
    await this.sync();
    return away;
  }

  #chooseName(topic: string, { topicId, index }: PartitionIdentity): string {
    if (!TOPIC_NAME.test(topic)) throw new Error(`'${topic}' cannot be the name of a topic`);
    const plain = `${topic}-${index}`;
    if (topic.length <= PLAIN_TOPIC_MAX && !this.#names.has(plain.toLowerCase())) return plain;
    const escaped = `${topic.slice(0, PLAIN_TOPIC_MAX)}~${topicId.replaceAll('-', '')}-${index}`;
    if (!this.#names.has(escaped.toLowerCase())) return escaped;
    throw new MillraceError(
      'DATA_DIR_CORRUPT',
      `${this.path}: partition ${index} of topic ${topicId} has a folder already`,
    );
  }
}

interface Meta {
  clusterId: string;
  nodeId: number;
  directoryId: string;
}

function encodeMeta({ clusterId, nodeId, directoryId }: Meta): Buffer {
  const lines = [
    '# Written by Millrace. Do not edit: the ids name the contents of this folder.',
    'version=1',
    `millrace.format=${FORMAT_VERSION}`,
    `cluster.id=${clusterId}`,
    `node.id=${nodeId}`,
    `directory.id=${directoryId}`,
  ];
  return Buffer.from(`${lines.join('\n')}\n`);
}

function decodeMeta(bytes: Uint8Array, path: string): Meta {
  const values = new Map<string, string>();
  for (const line of Buffer.from(bytes).toString('utf8').split(/\r?\n/)) {
    const at = line.indexOf('=');
    if (at > 0 && !line.startsWith('#')) values.set(line.slice(0, at).trim(), line.slice(at + 1).trim());
  }
  const refuse = (code: ErrorCode, why: string): MillraceError => new MillraceError(code, `${path}: ${why}`);
  const format = values.get('millrace.format');
  if (format === undefined && values.has('cluster.id')) {
    throw refuse(
      'DATA_DIR_FORMAT',
      'this folder belongs to Apache Kafka; give Millrace a folder of its own (--data-dir)',
    );
  }
  if (Number(format) > FORMAT_VERSION) {
    throw refuse(
      'DATA_DIR_FORMAT',
      `format ${format} was written by a newer Millrace, this one reads up to ${FORMAT_VERSION}; use that version or a later one`,
    );
  }
  const clusterId = values.get('cluster.id') ?? '';
  const directoryId = values.get('directory.id') ?? '';
  const nodeId = Number(values.get('node.id') || Number.NaN);
  const isWhole =
    Number(format) >= 1 && isId(clusterId) && isId(directoryId) && Number.isSafeInteger(nodeId) && nodeId >= 0;
  if (!isWhole) {
    throw refuse(
      'DATA_DIR_CORRUPT',
      'expected millrace.format, cluster.id, node.id and directory.id; restore it from a backup',
    );
  }
  return { clusterId, nodeId, directoryId };
}

/** A folder with something in it that is not ours is not taken over: it may be a home folder, or have lost its `meta.properties`. */
function refuseForeign(path: string, names: readonly string[]): void {
  const foreign = names.filter(
    (name) => !name.startsWith('.') && name !== 'lost+found' && name !== META_FILE + TEMPORARY_SUFFIX,
  );
  if (foreign.length === 0) return;
  throw new MillraceError(
    'DATA_DIR_CORRUPT',
    `${path} holds ${foreign[0]}${foreign.length > 1 ? ` and ${foreign.length - 1} more` : ''}, but no ${META_FILE}; give an empty folder or one of Millrace's (--data-dir)`,
  );
}

/** Makes a folder with its parents and has the names of all that are new survive a power cut. */
async function makeDurably(disk: Disk, path: string): Promise<void> {
  const stat = await disk.stat(path);
  if (stat?.isDirectory) return;
  if (stat !== undefined) throw new MillraceError('INVALID_OPTION', `${path} is a file, expected a folder`);
  const parent = folderOf(path);
  if (parent !== path) await makeDurably(disk, parent);
  await disk.makeDirectory(path);
  await disk.syncDirectory(parent);
}

/** The number at the end of a partition folder's name; undefined for any other name. */
function partitionIndexOf(name: string): number | undefined {
  const match = /^[a-zA-Z0-9._~-]+-(0|[1-9][0-9]{0,9})$/.exec(name);
  return match === null ? undefined : Number(match[1]);
}

function encodePartitionMetadata(topicId: string): Buffer {
  return Buffer.from(`version: 0\ntopic_id: ${uuidToBase64(topicId)}`);
}

/** The topic id, undefined if the content is not what Kafka or we write. */
function decodePartitionMetadata(bytes: Uint8Array): string | undefined {
  const match = /^version: 0\r?\ntopic_id: ([A-Za-z0-9_-]{22})\s*$/.exec(Buffer.from(bytes).toString('latin1'));
  return match === null ? undefined : base64ToUuid(match[1]);
}

function randomId(random: Random): string {
  return Buffer.from(random.fill(new Uint8Array(16))).toString('base64url');
}

function isId(text: string): boolean {
  return /^[A-Za-z0-9_-]{22}$/.test(text);
}

/** UUID text in the form in which Kafka prints ids: 22 characters of base64url. */
export function uuidToBase64(uuid: string): string {
  return Buffer.from(uuid.replaceAll('-', ''), 'hex').toString('base64url');
}

export function base64ToUuid(text: string): string {
  const hex = Buffer.from(text, 'base64url').toString('hex');
  return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-${hex.slice(12, 16)}-${hex.slice(16, 20)}-${hex.slice(20)}`;
}
