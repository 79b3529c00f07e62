/**
 * Frames of the Kafka protocol: an int32 length, a header, a message.
 *
 *   request   length | api key int16 | version int16 | correlation id int32 | client id string? | [tags] | message
 *   response  length | correlation id int32 | [tags] | message
 *
 * Tagged fields are in the header when the message's version is flexible (KIP-482), save for the response of ApiVersions,
 * which must be readable before the client knows what the broker speaks (KIP-511). A frame's buffer grows with what has
 * arrived, never with what the length claims.
 */
import { type Chunks, type Reader, Writer, asBuffer } from '../bytes.ts';
import { ProtocolError, errors } from '../errors.ts';
import { apiByKey, apis } from './apis.ts';
import {
  type ApiVersionsResponseInit,
  type RequestHeader,
  readRequestHeader as readRequestHeaderMessage,
  readResponseHeader as readResponseHeaderMessage,
  writeRequestHeader,
  writeResponseHeader,
} from './messages.ts';

const LENGTH_BYTES = 4;
/** A buffer that collects a frame is at most this many times as large as what has arrived of it. */
const GROWTH = 4;
const COLLECT_BYTES_MIN = 1024;

/** What framing needs of a row of `apis`. */
export interface RequestWriter<Request> {
  readonly key: number;
  readonly flexibleFrom: number;
  writeRequest(writer: Writer, value: Request, version: number): void;
}
export interface ResponseWriter<Response> {
  readonly key: number;
  readonly flexibleFrom: number;
  writeResponse(writer: Writer, value: Response, version: number): void;
}

/** Version of the header in front of a request; 1 for an API that is not known. */
export function requestHeaderVersion(apiKey: number, apiVersion: number): 1 | 2 {
  const api = apiByKey(apiKey);
  return api !== undefined && apiVersion >= api.flexibleFrom ? 2 : 1;
}

/** Version of the header in front of a response. */
export function responseHeaderVersion(api: { key: number; flexibleFrom: number }, apiVersion: number): 0 | 1 {
  return api.key !== apis.ApiVersions.key && apiVersion >= api.flexibleFrom ? 1 : 0;
}

/** Reads a request's header, whichever of its versions the API and version in it ask for. */
export function readRequestHeader(reader: Reader): RequestHeader {
  const start = reader.offset;
  const headerVersion = requestHeaderVersion(reader.int16(), reader.int16());
  reader.offset = start;
  return readRequestHeaderMessage(reader, headerVersion);
}

/**
 * Reads a response's header and answers its correlation id. The reader then takes arrays of any length that the bytes
 * hold: unlike a request, a response about every partition of a cluster may be long, and we asked for it.
 */
export function readResponseHeader(
  reader: Reader,
  api: { key: number; flexibleFrom: number },
  apiVersion: number,
): number {
  reader.elementsLeft = Number.POSITIVE_INFINITY;
  return readResponseHeaderMessage(reader, responseHeaderVersion(api, apiVersion)).correlationId;
}

/** A request with its header and length, ready to be sent. */
export function requestFrame<Request>(
  api: RequestWriter<Request>,
  version: number,
  { correlationId, clientId }: { correlationId: number; clientId: string | null },
  request: Request,
): Chunks {
  const writer = new Writer();
  writer.int32(0);
  const header = { requestApiKey: api.key, requestApiVersion: version, correlationId, clientId };
  writeRequestHeader(writer, header, version >= api.flexibleFrom ? 2 : 1);
  api.writeRequest(writer, request, version);
  return withLength(writer);
}

/**
 * A response with its header and length, ready to be sent; splices count with their length. ApiVersions of a version that
 * does not exist is answered in version 0, which every client can read (KIP-511).
 */
export function responseFrame<Response>(
  api: ResponseWriter<Response>,
  version: number,
  correlationId: number,
  response: Response,
): Chunks {
  const { ApiVersions } = apis;
  const isUnknown = api.key === ApiVersions.key && !(version >= 0 && version <= ApiVersions.maxVersion);
  const writer = new Writer();
  writer.int32(0);
  writeResponseHeader(writer, { correlationId }, responseHeaderVersion(api, version));
  api.writeResponse(writer, response, isUnknown ? 0 : version);
  return withLength(writer);
}

/** What to answer to ApiVersions of a version that is not served: only what versions of ApiVersions are (KIP-511). */
export function unsupportedApiVersions(minVersion: number, maxVersion: number): ApiVersionsResponseInit {
  return {
    errorCode: errors.UNSUPPORTED_VERSION.kafka,
    apiKeys: [{ apiKey: apis.ApiVersions.key, minVersion, maxVersion }],
  };
}

/** The placeholder for the length is in the first chunk, which is never one taken by reference. */
function withLength(writer: Writer): Chunks {
  const sizeBytes = writer.length - LENGTH_BYTES;
  const chunks = writer.chunks();
  const first = chunks[0];
  if (!(first instanceof Uint8Array)) throw new TypeError('a frame starts with its length');
  asBuffer(first).writeInt32BE(sizeBytes, 0);
  return chunks;
}

/**
 * Cuts a byte stream into frames. A frame within one chunk is a view of it; one that spans chunks is collected in a buffer
 * of its own. Use: `push` a chunk, take frames with `next` until it answers undefined. Whoever stops before that, because
 * it cannot take more now, calls `keep` before the chunk's memory is reused, and goes on later with `next`.
 */
export class FrameReader {
  readonly #frameBytesMax: number;
  #chunk: Buffer = Buffer.alloc(0);
  /** Start of what was not read yet in `#chunk`. */
  #offset = 0;
  /** Whether `#chunk` is a copy of ours. */
  #isKept = true;
  #lengthBytes = 0;
  /** Of the frame in progress; complete when `#lengthBytes` is 4. */
  #sizeBytes = 0;
  #frame: Buffer | null = null;
  #collectedBytes = 0;

  /** A frame larger than `frameBytesMax` (its length prefix not counted) is a `ProtocolError`. */
  constructor(frameBytesMax: number) {
    this.#frameBytesMax = frameBytesMax;
  }

  /** Memory held between calls. */
  get heldBytes(): number {
    return (this.#frame?.length ?? 0) + (this.#isKept ? this.#chunk.length : 0);
  }

  push(chunk: Uint8Array): void {
    if (this.#offset === this.#chunk.length) {
      this.#chunk = asBuffer(chunk);
      this.#isKept = false;
    } else {
      // Copy: the peer was already sending when its reader stopped taking.
      this.#chunk = Buffer.concat([this.#chunk.subarray(this.#offset), chunk]);
      this.#isKept = true;
    }
    this.#offset = 0;
  }

  /** The next frame without its length prefix, valid as long as the memory of its chunk; undefined: more bytes needed. */
  next(): Buffer | undefined {
    if (!this.#readLength()) return undefined;
    const size = this.#sizeBytes;
    const available = this.#chunk.length - this.#offset;
    if (this.#frame === null && available >= size) {
      const frame = this.#chunk.subarray(this.#offset, this.#offset + size);
      this.#offset += size;
      this.#lengthBytes = 0;
      return frame;
    }
    if (available === 0) return undefined;
    // Copy: the frame spans chunks.
    const more = Math.min(available, size - this.#collectedBytes);
    const target = this.#roomFor(this.#collectedBytes + more);
    this.#chunk.copy(target, this.#collectedBytes, this.#offset, this.#offset + more);
    this.#offset += more;
    this.#collectedBytes += more;
    if (this.#collectedBytes < size) return undefined;
    this.#frame = null;
    this.#collectedBytes = 0;
    this.#lengthBytes = 0;
    return target.subarray(0, size);
  }

  /** Makes what was pushed and not yet taken independent of the chunk's memory. */
  keep(): void {
    if (this.#isKept) return;
    // Copy: the chunk is about to be reused. Nothing left is the usual case.
    this.#chunk = Buffer.from(this.#chunk.subarray(this.#offset));
    this.#offset = 0;
    this.#isKept = true;
  }

  /** Drops what is held. */
  close(): void {
    this.#chunk = Buffer.alloc(0);
    this.#offset = 0;
    this.#isKept = true;
    this.#frame = null;
    this.#collectedBytes = 0;
    this.#lengthBytes = 0;
  }

  /** Whether the length of the frame in progress is known, after reading what there is of it. */
  #readLength(): boolean {
    if (this.#lengthBytes === LENGTH_BYTES) return true;
    if (this.#lengthBytes === 0 && this.#chunk.length - this.#offset >= LENGTH_BYTES) {
      this.#sizeBytes = this.#chunk.readInt32BE(this.#offset);
      this.#offset += LENGTH_BYTES;
    } else {
      if (this.#lengthBytes === 0) this.#sizeBytes = 0;
      while (this.#lengthBytes < LENGTH_BYTES) {
        if (this.#offset === this.#chunk.length) return false;
        this.#sizeBytes = (this.#sizeBytes << 8) | this.#chunk[this.#offset++];
        this.#lengthBytes += 1;
      }
    }
    this.#lengthBytes = LENGTH_BYTES;
    if (this.#sizeBytes < 0 || this.#sizeBytes > this.#frameBytesMax) {
      throw new ProtocolError(`frame of ${this.#sizeBytes} bytes; 0 to ${this.#frameBytesMax} are allowed`);
    }
    return true;
  }

  /** The collecting buffer with room for `sizeBytes`, all of which have arrived. */
  #roomFor(sizeBytes: number): Buffer {
    const frame = this.#frame;
    if (frame !== null && frame.length >= sizeBytes) return frame;
    const capacity = Math.min(this.#sizeBytes, Math.max(COLLECT_BYTES_MIN, sizeBytes * GROWTH));
    const grown = Buffer.allocUnsafeSlow(capacity);
    frame?.copy(grown, 0, 0, this.#collectedBytes);
    this.#frame = grown;
    return grown;
  }
}
