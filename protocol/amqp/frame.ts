/**
 * Frames of AMQP 0-9-1 (section 2.3 of the specification), after the eight bytes of the protocol header:
 *
 *   type octet (1 method, 2 content header, 3 body, 8 heartbeat) | channel short | size long | payload | end octet 0xCE
 *
 * `FrameReader` takes a stream cut anywhere. A frame within one chunk is a view of it; what is left of a chunk is copied.
 */
import { Reader, Writer, asBuffer } from '../bytes.ts';
import { ProtocolError } from '../errors.ts';
import { type Method, type MethodInit, readMethod, writeMethod } from './methods.ts';
import { writeContentHeader } from './properties.ts';

export const FRAME_METHOD = 1;
export const FRAME_HEADER = 2;
export const FRAME_BODY = 3;
export const FRAME_HEARTBEAT = 8;
export const FRAME_END = 0xce;
/** In front of the payload; one more octet follows it. */
const HEAD_BYTES = 7;
/** What a frame is longer than its payload. */
export const FRAME_OVERHEAD_BYTES = HEAD_BYTES + 1;
/** Nobody may ask for less (frame-min-size). */
export const FRAME_BYTES_MIN = 4096;

/** What a client sends first: 'AMQP', 0, and the version. */
export const PROTOCOL_HEADER = Buffer.from([0x41, 0x4d, 0x51, 0x50, 0, 0, 9, 1]);
export const HEARTBEAT = Buffer.from([FRAME_HEARTBEAT, 0, 0, 0, 0, 0, 0, FRAME_END]);

/**
 * Cuts a byte stream into frames. Use: `push` a chunk, take frames with `next` until it answers false; the frame is in
 * `type`, `channel` and `payload`, valid until the next call. The chunk's memory may be reused after the last `next`.
 */
export class FrameReader {
  /** Of whole frames, FRAME_OVERHEAD_BYTES included; changed when it was negotiated. 0: no limit. */
  frameBytesMax: number;
  type = 0;
  channel = 0;
  payload: Buffer = Buffer.alloc(0);
  #bytes: Buffer = Buffer.alloc(0);
  #offset = 0;
  #end = 0;
  /** Our own memory for what chunks leave over; `#bytes` is this or the chunk. */
  #held: Buffer = Buffer.alloc(0);

  constructor(frameBytesMax: number) {
    this.frameBytesMax = frameBytesMax;
  }

  /** Memory held between calls. */
  get heldBytes(): number {
    return this.#held.length;
  }

  push(chunk: Uint8Array): void {
    const left = this.#end - this.#offset;
    if (left === 0) {
      this.#bytes = asBuffer(chunk);
      this.#offset = 0;
      this.#end = chunk.length;
      return;
    }
    // Copy: the frame spans chunks. `next` has moved what was left to the front of `#held`.
    const size = left + chunk.length;
    if (size > this.#held.length) {
      const grown = Buffer.allocUnsafeSlow(Math.max(1024, size * 2));
      this.#held.copy(grown, 0, 0, left);
      this.#held = grown;
    }
    this.#held.set(chunk, left);
    this.#bytes = this.#held;
    this.#offset = 0;
    this.#end = size;
  }

  /** The protocol header, which comes before all frames: undefined if it is not there yet; false if it is another. */
  protocolHeader(): boolean | undefined {
    const available = Math.min(this.#end - this.#offset, PROTOCOL_HEADER.length);
    const isEqual = this.#bytes.compare(PROTOCOL_HEADER, 0, available, this.#offset, this.#offset + available) === 0;
    if (!isEqual) return false;
    if (available < PROTOCOL_HEADER.length) {
      this.#keep();
      return undefined;
    }
    this.#offset += available;
    return true;
  }

  /** False: more bytes are needed. ProtocolError: no frame, or one that is too large; nothing can be read after it. */
  next(): boolean {
    const bytes = this.#bytes;
    const start = this.#offset;
    const available = this.#end - start;
    if (available < HEAD_BYTES) return this.#keep();
    const sizeBytes = bytes.readUInt32BE(start + 3);
    if (this.frameBytesMax > 0 && sizeBytes > this.frameBytesMax - FRAME_OVERHEAD_BYTES) {
      throw new ProtocolError(
        `frame with ${sizeBytes} bytes of payload; frames are at most ${this.frameBytesMax} bytes`,
      );
    }
    if (available < sizeBytes + FRAME_OVERHEAD_BYTES) return this.#keep();
    const end = start + HEAD_BYTES + sizeBytes;
    if (bytes[end] !== FRAME_END)
      throw new ProtocolError(`frame ends with octet ${bytes[end]} instead of ${FRAME_END}`);
    this.type = bytes[start];
    this.channel = bytes.readUInt16BE(start + 1);
    this.payload = bytes.subarray(start + HEAD_BYTES, end);
    this.#offset = end + 1;
    return true;
  }

  /** Moves what is left into our own memory, also whole frames: for who stops before `next` answers false. */
  keep(): void {
    this.#keep();
  }

  #keep(): false {
    const left = this.#end - this.#offset;
    if (left === 0) {
      if (this.#held.length > 0 && this.#bytes === this.#held) this.#held = Buffer.alloc(0);
      this.#bytes = this.#held;
    } else if (this.#bytes === this.#held) {
      if (this.#offset > 0) this.#held.copyWithin(0, this.#offset, this.#end);
    } else {
      // Copy: the chunk is about to be reused.
      if (this.#held.length < left) this.#held = Buffer.allocUnsafeSlow(Math.max(1024, left * 2));
      this.#bytes.copy(this.#held, 0, this.#offset, this.#end);
      this.#bytes = this.#held;
    }
    this.#offset = 0;
    this.#end = left;
    return false;
  }
}

/** The method in a payload; undefined: class and method are unknown. ProtocolError: cut, or bytes left over. */
export function methodOf(payload: Buffer): Method | undefined {
  const reader = new Reader(payload);
  const method = readMethod(reader);
  if (method !== undefined && reader.remaining > 0) {
    throw new ProtocolError(`${reader.remaining} bytes after the arguments of ${method.method}`);
  }
  return method;
}

export function methodFrame(channel: number, method: MethodInit): Buffer {
  const writer = startFrame(FRAME_METHOD, channel);
  writeMethod(writer, method);
  return endFrame(writer);
}

export function contentHeaderFrame(channel: number, bodyBytes: number, properties: Uint8Array): Buffer {
  const writer = startFrame(FRAME_HEADER, channel);
  writeContentHeader(writer, bodyBytes, properties);
  return endFrame(writer);
}

/** The body in frames of at most `frameBytesMax` (0: one frame), ready to be sent after its header. Copy: bodies are small or sent in pieces. */
export function bodyFrames(channel: number, body: Buffer, frameBytesMax: number): Buffer[] {
  const frames: Buffer[] = [];
  const pieceBytes = frameBytesMax > 0 ? frameBytesMax - FRAME_OVERHEAD_BYTES : Math.max(1, body.length);
  for (let at = 0; at < body.length; at += pieceBytes) {
    const writer = startFrame(FRAME_BODY, channel);
    writer.raw(body.subarray(at, at + pieceBytes));
    frames.push(endFrame(writer));
  }
  return frames;
}

function startFrame(type: number, channel: number): Writer {
  const writer = new Writer();
  writer.uint8(type);
  writer.uint16(channel);
  writer.uint32(0);
  return writer;
}

function endFrame(writer: Writer): Buffer {
  const sizeBytes = writer.length - HEAD_BYTES;
  writer.uint8(FRAME_END);
  const frame = writer.finish();
  frame.writeUInt32BE(sizeBytes, 3);
  return frame;
}
