/**
 * Receipt handles: which message, in which of its lives, which receive of it and when; authenticated, so that nobody makes
 * one up. Nothing is kept for them but the keys, which outlive restarts and are changed now and then.
 *
 *   version 1 uint8 | key id uint32 | topic id 16 | partition uint32 | offset uint48 | epoch uint32
 *   | receive count uint32 | received at, ms, uint48 | first 16 bytes of HMAC-SHA256 over all of it
 */
import { createHmac, createSecretKey, type KeyObject, timingSafeEqual } from 'node:crypto';
import { SqsError } from '../../protocol/sqs/errors.ts';
import type { Clock, Random } from '../../storage/clock.ts';
import type { Fact, ReceiptKey } from './facts.ts';

const VERSION = 1;
const CONTENT_BYTES = 45;
const MAC_BYTES = 16;
const HANDLE_BYTES = CONTENT_BYTES + MAC_BYTES;
const SECRET_BYTES = 32;
const DAY_MS = 86_400_000;
/** How long handles are made with one key. */
const KEY_MS = 7 * DAY_MS;
/** And how long they are good after that: as long as a message lives, and its last lock. */
const KEPT_MS = 15 * DAY_MS;

export interface Receipt {
  readonly topicId: string;
  readonly partition: number;
  readonly offset: number;
  readonly epoch: number;
  readonly receiveCount: number;
  readonly receivedMs: number;
}

export interface ReceiptsParts {
  readonly clock: Clock;
  readonly random: Random;
  readonly keys: ReadonlyMap<number, ReceiptKey>;
  commit(facts: readonly Fact[]): void;
}

export class Receipts {
  readonly #parts: ReceiptsParts;
  readonly #keyObjects = new Map<number, KeyObject>();
  #current: ReceiptKey | undefined;
  /** Topic ids as bytes; queues are few. */
  readonly #topicBytes = new Map<string, Buffer>();

  constructor(parts: ReceiptsParts) {
    this.#parts = parts;
  }

  seal(receipt: Receipt): string {
    const key = this.#currentKey();
    const bytes = Buffer.allocUnsafe(HANDLE_BYTES);
    bytes[0] = VERSION;
    bytes.writeUInt32BE(key.id, 1);
    this.#bytesOf(receipt.topicId).copy(bytes, 5);
    bytes.writeUInt32BE(receipt.partition, 21);
    bytes.writeUIntBE(receipt.offset, 25, 6);
    bytes.writeUInt32BE(receipt.epoch, 31);
    bytes.writeUInt32BE(receipt.receiveCount, 35);
    bytes.writeUIntBE(receipt.receivedMs, 39, 6);
    this.#mac(key, bytes.subarray(0, CONTENT_BYTES)).copy(bytes, CONTENT_BYTES, 0, MAC_BYTES);
    return bytes.toString('base64');
  }

  /** ReceiptHandleIsInvalid if it was not made here, or so long ago that its message is gone. */
  open(handle: string): Receipt {
    const bytes = Buffer.from(handle, 'base64');
    const key = bytes.length === HANDLE_BYTES ? this.#parts.keys.get(bytes.readUInt32BE(1)) : undefined;
    if (
      key === undefined ||
      bytes[0] !== VERSION ||
      !timingSafeEqual(
        this.#mac(key, bytes.subarray(0, CONTENT_BYTES)).subarray(0, MAC_BYTES),
        bytes.subarray(CONTENT_BYTES),
      )
    ) {
      throw invalidHandle(handle);
    }
    return {
      topicId: textOf(bytes.toString('hex', 5, 21)),
      partition: bytes.readUInt32BE(21),
      offset: bytes.readUIntBE(25, 6),
      epoch: bytes.readUInt32BE(31),
      receiveCount: bytes.readUInt32BE(35),
      receivedMs: bytes.readUIntBE(39, 6),
    };
  }

  #mac(key: ReceiptKey, content: Uint8Array): Buffer {
    let object = this.#keyObjects.get(key.id);
    if (object === undefined) {
      object = createSecretKey(key.secret);
      this.#keyObjects.set(key.id, object);
    }
    return createHmac('sha256', object).update(content).digest();
  }

  /** Made durable with the acquisition that its handles tell of: answers wait for both. */
  #currentKey(): ReceiptKey {
    const { clock, random, keys, commit } = this.#parts;
    const nowMs = clock.now();
    if (this.#current !== undefined && nowMs - this.#current.createdMs < KEY_MS) return this.#current;
    let newest: ReceiptKey | undefined;
    for (const key of keys.values()) if (newest === undefined || key.id > newest.id) newest = key;
    if (newest === undefined || nowMs - newest.createdMs >= KEY_MS) {
      const id = (newest?.id ?? 0) + 1;
      const facts: Fact[] = [];
      for (const key of keys.values()) {
        if (nowMs - key.createdMs < KEY_MS + KEPT_MS) continue;
        facts.push({ kind: 'receiptKeyGone', id: key.id });
        this.#keyObjects.delete(key.id);
      }
      newest = { id, secret: random.fill(new Uint8Array(SECRET_BYTES)), createdMs: nowMs };
      commit([...facts, { kind: 'receiptKey', key: newest }]);
    }
    this.#current = newest;
    return newest;
  }

  #bytesOf(topicId: string): Buffer {
    let bytes = this.#topicBytes.get(topicId);
    if (bytes === undefined) {
      bytes = Buffer.from(topicId.replaceAll('-', ''), 'hex');
      this.#topicBytes.set(topicId, bytes);
    }
    return bytes;
  }
}

function textOf(hex: string): string {
  return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-${hex.slice(12, 16)}-${hex.slice(16, 20)}-${hex.slice(20)}`;
}

export function invalidHandle(handle: string): SqsError {
  return new SqsError(
    'ReceiptHandleIsInvalid',
    `The input receipt handle "${handle.slice(0, 200)}" is not a valid receipt handle.`,
  );
}
