/**
 * Keeps the number of open files bounded: a `LazyFile` is opened when it is used, and the one that was used longest ago
 * is closed when there are too many. Files in use or with unsynced bytes stay open, so the bound is a soft one: far
 * beyond it the engine writes no more until a checkpoint has synced them.
 */
import assert from 'node:assert';
import { type Disk, type DiskFile, writeAnew } from './disk.ts';

/** Holds the indexes of a sealed segment in memory until they are forgotten; then they are read again when needed. */
export interface IndexHolder {
  readonly indexBytes: number;
  forgetIndexes(): void;
}

/** Memory for the indexes of sealed segments: those of about three full segments of 1 GiB. */
const INDEX_BYTES_MAX = 16 * 1024 * 1024;
/** Looked at in one go for some that can be closed; those that cannot go to the end of the line. */
const TRIES_MAX = 16;

export class OpenFiles {
  readonly disk: Disk;
  readonly #max: number;
  /** In order of their last use. */
  readonly #open = new Set<LazyFile>();
  readonly #indexed = new Set<IndexHolder>();
  #indexBytes = 0;

  /** `max`: `log.open.files.max` */
  constructor(disk: Disk, max: number) {
    this.disk = disk;
    this.#max = max;
  }

  get count(): number {
    return this.#open.size;
  }
  /** Twice as many are open as may be: most of them must have unsynced bytes. */
  get areTooMany(): boolean {
    return this.#open.size > 2 * this.#max;
  }

  used(file: LazyFile): void {
    this.#open.delete(file);
    this.#open.add(file);
    if (this.#open.size > this.#max) this.#closeIdle(TRIES_MAX);
  }
  closed(file: LazyFile): void {
    this.#open.delete(file);
  }

  /** The indexes of a sealed segment were used: others may have to go. */
  indexUsed(holder: IndexHolder): void {
    if (this.#indexed.delete(holder)) {
      this.#indexed.add(holder);
      return;
    }
    this.#indexed.add(holder);
    this.#indexBytes += holder.indexBytes;
    for (const oldest of this.#indexed) {
      if (this.#indexBytes <= INDEX_BYTES_MAX || oldest === holder) return;
      this.indexGone(oldest);
      oldest.forgetIndexes();
    }
  }
  indexGone(holder: IndexHolder): void {
    if (this.#indexed.delete(holder)) this.#indexBytes -= holder.indexBytes;
  }

  /** After a checkpoint: closes as many as can be until the bound is kept. */
  relieve(): void {
    if (this.#open.size > this.#max) this.#closeIdle(this.#open.size);
  }

  #closeIdle(triesMax: number): void {
    let tries = triesMax;
    for (const file of this.#open) {
      if (this.#open.size <= this.#max || tries-- === 0) return;
      this.#open.delete(file);
      if (file.isIdle) file.closeSoon();
      else this.#open.add(file);
    }
  }
}

export class LazyFile {
  path: string;
  readonly #files: OpenFiles;
  #file: DiskFile | undefined;
  #canWrite = false;
  #opening: Promise<DiskFile> | undefined;
  /** Was open for reading only, and may still be read from. */
  #before: DiskFile | undefined;
  #users = 0;
  /** Has bytes that are not synced: kept open. */
  isDirty = false;

  constructor(files: OpenFiles, path: string) {
    this.#files = files;
    this.path = path;
  }

  get isIdle(): boolean {
    return this.#users === 0 && !this.isDirty && this.#opening === undefined;
  }

  /** The file if it is open for writing: for calls that cannot wait. */
  get writable(): DiskFile | undefined {
    return this.#canWrite ? this.#file : undefined;
  }

  /** The open file; `done` is owed. 'read' fails if it does not exist, 'write' makes it. */
  async use(mode: 'read' | 'write'): Promise<DiskFile> {
    this.#users++;
    try {
      while (this.#opening !== undefined) await this.#opening;
      if (this.#file === undefined || (mode === 'write' && !this.#canWrite)) await this.#open(mode);
      assert(this.#file !== undefined);
      this.#files.used(this);
      return this.#file;
    } catch (error) {
      this.#users--;
      throw error;
    }
  }

  done(): void {
    assert(this.#users > 0);
    this.#users--;
    if (this.#users > 0 || this.#before === undefined) return;
    this.#before.close().catch(() => {}); // Nothing was written through it.
    this.#before = undefined;
  }

  /** Syncs what was written to it so far; what is in `anew` is written once more before. */
  async sync(anew?: { from: number; to: number }): Promise<void> {
    const file = await this.use('write');
    try {
      if (anew !== undefined) await writeAnew(file, anew.from, anew.to);
      await file.sync();
    } finally {
      this.done();
    }
  }

  async #open(mode: 'read' | 'write'): Promise<void> {
    this.#opening = this.#files.disk.open(this.path, mode);
    try {
      const file = await this.#opening;
      this.#before = this.#file;
      this.#file = file;
      this.#canWrite = mode === 'write';
    } finally {
      this.#opening = undefined;
    }
  }

  /** Closes an idle file without waiting; a failing close of a file without unsynced bytes loses nothing. */
  closeSoon(): void {
    this.close().catch(() => {});
  }

  async close(): Promise<void> {
    const file = this.#file;
    this.#file = undefined;
    this.#canWrite = false;
    this.#files.closed(this);
    await file?.close();
  }
}
