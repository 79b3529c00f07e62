/**
 * The records inside a batch, written: sizes first, then bytes into a buffer that has the room. The layout is drawn in
 * `record-walk.ts`; `record-batch.ts` calls it.
 */

export interface RecordInit {
  readonly key: Uint8Array | null;
  readonly value: Uint8Array | null;
  readonly headers?: readonly { readonly key: string; readonly value: Uint8Array | null }[];
  /** In ms since 1970. */
  readonly timestamp: number;
}

/** Size of the record without its own size field. */
export function recordBodyBytes(record: RecordInit, offsetDelta: number, baseTimestamp: number): number {
  const headers = record.headers ?? [];
  let size = 1 + varlongSizeBytes(record.timestamp - baseTimestamp) + varintSizeBytes(offsetDelta);
  size += fieldBytes(record.key) + fieldBytes(record.value) + varintSizeBytes(headers.length);
  for (const header of headers) {
    const keyBytes = Buffer.byteLength(header.key);
    size += varintSizeBytes(keyBytes) + keyBytes + fieldBytes(header.value);
  }
  return size;
}

function fieldBytes(field: Uint8Array | null): number {
  return field === null ? 1 : varintSizeBytes(field.length) + field.length;
}

/** Writes what `recordBodyBytes` has sized, from `start`. */
export function writeRecordBody(
  bytes: Buffer,
  start: number,
  record: RecordInit,
  offsetDelta: number,
  timestampDelta: number,
): void {
  const headers = record.headers ?? [];
  bytes[start] = 0;
  let at = writeVarlong(bytes, start + 1, timestampDelta);
  at = writeVarint(bytes, at, offsetDelta);
  at = writeField(bytes, at, record.key);
  at = writeField(bytes, at, record.value);
  at = writeVarint(bytes, at, headers.length);
  for (const header of headers) {
    at = writeVarint(bytes, at, Buffer.byteLength(header.key));
    at = writeText(bytes, at, header.key);
    at = writeField(bytes, at, header.value);
  }
}

function writeField(bytes: Buffer, position: number, field: Uint8Array | null): number {
  if (field === null) return writeVarint(bytes, position, -1);
  const at = writeVarint(bytes, position, field.length);
  if (field.length > LOOP_MAX) bytes.set(field, at);
  else for (let index = 0; index < field.length; index++) bytes[at + index] = field[index];
  return at + field.length;
}

/** Below this a loop beats the call. */
const LOOP_MAX = 32;

/** Names of headers are short and mostly ASCII. */
function writeText(bytes: Buffer, at: number, text: string): number {
  if (text.length > LOOP_MAX) return at + bytes.write(text, at);
  for (let index = 0; index < text.length; index++) {
    const code = text.charCodeAt(index);
    if (code >= 0x80) return at + bytes.write(text, at);
    bytes[at + index] = code;
  }
  return at + text.length;
}

/** Bytes that the zigzag varint of an int32 takes. */
export function varintSizeBytes(value: number): number {
  const raw = (value << 1) ^ (value >> 31);
  return raw >>> 7 === 0 ? 1 : raw >>> 14 === 0 ? 2 : raw >>> 21 === 0 ? 3 : raw >>> 28 === 0 ? 4 : 5;
}

/** Bytes that the zigzag varlong of a safe integer takes. */
export function varlongSizeBytes(value: number): number {
  if (value === (value | 0)) return varintSizeBytes(value);
  let rest = Math.floor((value >= 0 ? value : -value - 1) / 64);
  let size = 1;
  for (; rest > 0; rest = Math.floor(rest / 128)) size++;
  return size;
}

/** Writes the zigzag varint of an int32; answers the position after it. */
export function writeVarint(bytes: Buffer, position: number, value: number): number {
  let raw = ((value << 1) ^ (value >> 31)) >>> 0;
  let at = position;
  for (; raw >= 0x80; raw >>>= 7) bytes[at++] = (raw & 0x7f) | 0x80;
  bytes[at++] = raw;
  return at;
}

/** Writes the zigzag varlong of a safe integer; answers the position after it. */
export function writeVarlong(bytes: Buffer, position: number, value: number): number {
  if (value === (value | 0)) return writeVarint(bytes, position, value);
  const half = value >= 0 ? value : -value - 1;
  let at = position;
  let part = (half % 64) * 2 + (value >= 0 ? 0 : 1);
  let rest = Math.floor(half / 64);
  for (; rest > 0; rest = Math.floor(rest / 128)) {
    bytes[at++] = part | 0x80;
    part = rest % 128;
  }
  bytes[at++] = part;
  return at;
}
