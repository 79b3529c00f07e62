/**
 * Secrets that must be read again, such as those of access keys, sealed with a key that is not in the log:
 *
 *     DATA/secret.key      32 bytes as hex, readable by its owner only, made when the first secret is sealed
 *     sealed               12 bytes of nonce, AES-256-GCM of the text, 16 bytes of tag
 *
 * A copy of the log alone opens nothing; who loses the file must make the keys anew.
 */
import { createCipheriv, createDecipheriv } from 'node:crypto';
import { MillraceError } from '../protocol/errors.ts';
import type { Random } from '../storage/clock.ts';
import type { Disk } from '../storage/disk.ts';
import { readSnapshot, writeSnapshot } from '../storage/snapshot.ts';

const FILE = 'secret.key';
const CIPHER = 'aes-256-gcm';
const KEY_BYTES = 32;
const NONCE_BYTES = 12;
const TAG_BYTES = 16;

export class SealedSecrets {
  readonly #files: { disk: Disk; dataDir: string } | undefined;
  readonly #random: Random;
  #key: Buffer | undefined;
  /** Requests ask for the same ones again and again. What nobody keeps sealed any more is forgotten by itself. */
  readonly #opened = new WeakMap<Uint8Array, string>();

  /** Without files the key lives as long as this does. */
  constructor(files: { disk: Disk; dataDir: string } | undefined, random: Random) {
    this.#files = files;
    this.#random = random;
  }

  get #path(): string {
    return `${this.#files?.dataDir ?? ''}/${FILE}`;
  }

  /** Reads the key if there is one. DATA_DIR_CORRUPT. */
  async load(): Promise<void> {
    if (this.#files === undefined || this.#key !== undefined) return;
    const bytes = await readSnapshot(this.#files.disk, this.#path);
    if (bytes === undefined) return;
    const key = Buffer.from(Buffer.from(bytes).toString('latin1').trim(), 'hex');
    if (key.length !== KEY_BYTES) {
      throw new MillraceError('DATA_DIR_CORRUPT', `${this.#path} does not hold ${KEY_BYTES} bytes as hex`);
    }
    this.#key = key;
  }

  /** Makes the key if there is none; before `seal`. */
  async ready(): Promise<void> {
    await this.load();
    if (this.#key !== undefined) return;
    const key = Buffer.from(this.#random.fill(new Uint8Array(KEY_BYTES)));
    if (this.#files !== undefined) {
      await writeSnapshot(this.#files.disk, this.#path, Buffer.from(`${key.toString('hex')}\n`), 'private');
    }
    // Two that asked at once: the first one's key is in use.
    this.#key ??= key;
  }

  seal(text: string): Uint8Array {
    if (this.#key === undefined) throw new Error('the key that seals secrets is not there yet');
    const nonce = this.#random.fill(new Uint8Array(NONCE_BYTES));
    const cipher = createCipheriv(CIPHER, this.#key, nonce);
    return Buffer.concat([nonce, cipher.update(text, 'utf8'), cipher.final(), cipher.getAuthTag()]);
  }

  /** Undefined if it was sealed with another key. The bytes must not change afterwards. */
  open(sealed: Uint8Array): string | undefined {
    const known = this.#opened.get(sealed);
    if (known !== undefined) return known;
    if (this.#key === undefined || sealed.length < NONCE_BYTES + TAG_BYTES) return undefined;
    const end = sealed.length - TAG_BYTES;
    const decipher = createDecipheriv(CIPHER, this.#key, sealed.subarray(0, NONCE_BYTES));
    decipher.setAuthTag(sealed.subarray(end));
    try {
      const text = Buffer.concat([decipher.update(sealed.subarray(NONCE_BYTES, end)), decipher.final()]).toString();
      this.#opened.set(sealed, text);
      return text;
    } catch {
      // The tag does not fit: not this key's.
      return undefined;
    }
  }
}
