/**
 * The attribute indexes of logs over a restart: a folder for each partition that needs one, in it pieces of its index
 * (`attribute-piece.ts`), each a file that is written once, whole, and removed when no queue asks for its range any more.
 *
 *   DATA/queue-attributes/TOPICID-PARTITION/FROM-END-EPOCH     offsets (20 digits) and leader epoch of the last record
 *
 * Always true: a piece tells of records that are durable; whether the log still has these records is told by the epoch: a
 * start that cuts a log gives what is appended from there on a higher one. The files are an index of the log and never
 * needed: what cannot be read, or fails to be written, costs time at the next start and nothing else.
 */
import type { Disk } from '../storage/disk.ts';
import { TEMPORARY_SUFFIX, readSnapshot, writeSnapshot } from '../storage/snapshot.ts';
import { AttributePiece } from './attribute-piece.ts';
import type { Partition } from './engine.ts';

const FOLDER = 'queue-attributes';
const FOLDER_NAME = /^([0-9a-f-]{36})-\d+$/;
const PIECE_NAME = /^(\d{20})-(\d{20})-(\d+)$/;
const OFFSET_DIGITS = 20;

export interface PieceName {
  readonly from: number;
  readonly endOffset: number;
  readonly epoch: number;
}

export interface AttributeFilesParts {
  readonly disk: Disk;
  /** The data folder. */
  readonly dataDir: string;
  readonly report: (message: string, error: unknown) => void;
}

export class AttributeFiles {
  readonly #disk: Disk;
  readonly #folder: string;
  readonly #report: (message: string, error: unknown) => void;
  /** Of an earlier life, not asked for yet. */
  readonly #found = new Set<string>();
  readonly #open = new Map<string, PartitionAttributes>();
  #isClosed = false;

  private constructor({ disk, dataDir, report }: AttributeFilesParts) {
    this.#disk = disk;
    this.#folder = `${dataDir}/${FOLDER}`;
    this.#report = report;
  }

  static async open(parts: AttributeFilesParts): Promise<AttributeFiles> {
    const files = new AttributeFiles(parts);
    for (const name of await parts.disk.list(files.#folder)) if (FOLDER_NAME.test(name)) files.#found.add(name);
    return files;
  }

  of(log: Partition): PartitionAttributes {
    const name = `${log.topicId}-${log.index}`;
    let files = this.#open.get(name);
    if (files === undefined) {
      const isNew = !this.#found.delete(name);
      const folder = `${this.#folder}/${name}`;
      files = new PartitionAttributes({ disk: this.#disk, folder, isNew, failed: (error) => this.#failed(log, error) });
      this.#open.set(name, files);
    }
    return files;
  }

  #failed({ topic, index }: Partition, error: unknown): void {
    if (this.#isClosed) return;
    this.#report(`the attributes of ${topic}-${index} are not kept; the next start reads them from the log`, error);
  }

  /** No queue looks at the partition any more. */
  forget(log: Partition): void {
    const name = `${log.topicId}-${log.index}`;
    this.#open.get(name)?.removeAll();
    this.#open.delete(name);
  }

  /** What nobody has asked for belongs to queues that are gone. After all queues are loaded. */
  async removeUnused(): Promise<void> {
    for (const name of this.#found) await this.#disk.removeDirectory(`${this.#folder}/${name}`);
    this.#found.clear();
  }

  close(): void {
    this.#isClosed = true;
    for (const files of this.#open.values()) files.close();
  }
}

/** The pieces of one partition. */
export class PartitionAttributes {
  readonly #disk: Disk;
  readonly #folder: string;
  readonly #failed: (error: unknown) => void;
  /** Rising, none reaches into the next. */
  #pieces: PieceName[] = [];
  #isLoaded: boolean;
  #isFolderThere: boolean;
  #isSaving = false;
  /** After a failure nothing more is written until the next start. */
  #isStopped = false;
  #owner: { readonly isEnded: boolean } | undefined;
  /** The piece after the one that was read last is read meanwhile. */
  #ahead: { readonly piece: PieceName; readonly bytes: Promise<Uint8Array | undefined> } | undefined;
  /** What is done to the folder is done in turn. */
  #last: Promise<void> = Promise.resolve();

  constructor(parts: { disk: Disk; folder: string; isNew: boolean; failed: (error: unknown) => void }) {
    this.#disk = parts.disk;
    this.#folder = parts.folder;
    this.#failed = parts.failed;
    this.#isLoaded = parts.isNew;
    this.#isFolderThere = !parts.isNew;
  }

  /** Whose index is written here: that of the first who asks, until it has ended. */
  claim(owner: { readonly isEnded: boolean }): boolean {
    if (this.#owner === undefined || this.#owner.isEnded) this.#owner = owner;
    return this.#owner === owner;
  }

  /** False while pieces of an earlier life may be there that nobody has looked at, while one is being written, and after a failure. */
  get maySave(): boolean {
    return this.#isLoaded && !this.#isSaving && !this.#isStopped;
  }

  /** Everything below, down to the first piece, is in pieces or asked for by nobody. */
  get endOffset(): number {
    return this.#pieces.at(-1)?.endOffset ?? 0;
  }

  /** Looks at what an earlier life has left; pieces that the log does not bear out are removed. */
  async load(log: Partition): Promise<void> {
    if (this.#isLoaded) return;
    const names = await this.#disk.list(this.#folder);
    if (this.#isLoaded) return;
    this.#isLoaded = true;
    const end = log.highWatermark;
    for (const name of names) {
      const match = PIECE_NAME.exec(name);
      const [from, endOffset, epoch] = match === null ? [0, 0, 0] : match.slice(1).map(Number);
      const known = from < Math.min(endOffset, end) ? log.epochForOffset(Math.min(endOffset, end) - 1) : -1;
      const isTrue = match !== null && known >= 0 && known <= epoch && endOffset > log.startOffset;
      if (isTrue && from >= this.endOffset) this.#pieces.push({ from, endOffset, epoch });
      else if (match !== null || name.endsWith(TEMPORARY_SUFFIX)) this.#remove(name);
    }
  }

  /** The lowest piece that ends above `offset`. */
  above(offset: number): PieceName | undefined {
    return this.#pieces.find(({ endOffset }) => endOffset > offset);
  }

  /** Undefined if it cannot be read: then it is gone. */
  async read(piece: PieceName): Promise<AttributePiece | undefined> {
    const reading = this.#ahead?.piece === piece ? this.#ahead.bytes : this.#bytesOf(piece);
    const following = this.above(piece.endOffset);
    this.#ahead = following && { piece: following, bytes: this.#bytesOf(following) };
    const bytes = await reading;
    const content = bytes === undefined ? undefined : AttributePiece.decode(bytes);
    if (content?.from === piece.from && content.endOffset === piece.endOffset) return content;
    this.discard(piece);
    return undefined;
  }

  #bytesOf(piece: PieceName): Promise<Uint8Array | undefined> {
    return readSnapshot(this.#disk, `${this.#folder}/${nameOf(piece)}`).catch((error: unknown) => {
      if (!this.#isStopped) this.#failed(error);
      return undefined;
    });
  }

  /** It is damaged, or does not say what is needed now. */
  discard(piece: PieceName): void {
    if (!this.#pieces.includes(piece)) return;
    this.#pieces = this.#pieces.filter((other) => other !== piece);
    this.#remove(nameOf(piece));
  }

  /** `piece` begins at `endOffset` or above. Returns at once; nobody waits for it. */
  save(piece: PieceName, bytes: Buffer): void {
    this.#isSaving = true;
    this.#next(async () => {
      if (!this.#isFolderThere) await this.#disk.makeDirectory(this.#folder);
      this.#isFolderThere = true;
      await writeSnapshot(this.#disk, `${this.#folder}/${nameOf(piece)}`, bytes);
      this.#pieces.push(piece);
      this.#isSaving = false;
    });
  }

  /** Nobody asks for what is below. */
  trim(offset: number): void {
    while (this.#pieces.length > 0 && this.#pieces[0].endOffset <= offset) {
      const [gone] = this.#pieces.splice(0, 1);
      this.#remove(nameOf(gone));
    }
  }

  removeAll(): void {
    const hadFolder = this.#isFolderThere;
    if (hadFolder || this.#isSaving) this.#next(() => this.#disk.removeDirectory(this.#folder));
    this.#isStopped = true;
    this.#pieces = [];
  }

  close(): void {
    this.#isStopped = true;
  }

  #remove(name: string): void {
    this.#next(() => this.#disk.remove(`${this.#folder}/${name}`));
  }

  #next(task: () => Promise<void>): void {
    this.#last = this.#last.then(task).catch((error: unknown) => {
      if (this.#isStopped) return;
      this.#isStopped = true;
      this.#failed(error);
    });
  }
}

function nameOf({ from, endOffset, epoch }: PieceName): string {
  const text = (offset: number): string => String(offset).padStart(OFFSET_DIGITS, '0');
  return `${text(from)}-${text(endOffset)}-${epoch}`;
}
