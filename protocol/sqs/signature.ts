/**
 * AWS Signature Version 4 as a server checks it ("Create a signed AWS API request" in the IAM guide): what a request
 * claims, and the signature that it should have. In a header (`Authorization: AWS4-HMAC-SHA256 …`) or presigned, in the
 * query (`X-Amz-Signature`). The body that was read is what counts, never what a header says of it.
 *
 *   canonical request   method, path, query, signed headers, their names, SHA-256 of the body; a line each
 *   string to sign      algorithm, time, scope (date/region/service/aws4_request), SHA-256 of the canonical request
 *   key                 HMAC chain of the secret over date, region, service, 'aws4_request'
 */
import { createHmac, hash, type KeyObject } from 'node:crypto';
import { SqsError } from './errors.ts';

const ALGORITHM = 'AWS4-HMAC-SHA256';
const TERMINATOR = 'aws4_request';
const TIME = /^(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)(\d\d)Z$/;
const SIGNATURE = /^[0-9a-f]{64}$/;
/** Presigned requests live at most a week. */
const EXPIRES_SECONDS_MAX = 604_800;
const FIELDS = ['Credential', 'SignedHeaders', 'Signature'] as const;

/** A request as far as signatures go. */
export interface SignableRequest {
  readonly method: string;
  /** As it came, up to the question mark. */
  readonly path: string;
  /** As it came, without the question mark. */
  readonly query: string;
  /** By name in small letters, several of one name joined with commas; undefined: it is not there. */
  header(name: string): string | undefined;
  readonly body: Uint8Array;
}

/** What a request says of its signature. */
export interface Claim {
  readonly accessKeyId: string;
  /** yyyymmdd */
  readonly date: string;
  readonly region: string;
  readonly service: string;
  readonly timestamp: string;
  readonly timeMs: number;
  readonly signedHeaders: readonly string[];
  readonly signature: string;
  /** Undefined: it is in the header. */
  readonly expiresSeconds: number | undefined;
}

/** Undefined: the request is not signed. IncompleteSignature if it says so and not all that belongs to it. */
export function claimOf(request: SignableRequest): Claim | undefined {
  const authorization = request.header('authorization');
  if (authorization !== undefined) return headerClaim(request, authorization);
  return request.query.includes('X-Amz-Signature=') ? queryClaim(request) : undefined;
}

const incomplete = (message: string): SqsError => new SqsError('IncompleteSignature', message);

function headerClaim(request: SignableRequest, authorization: string): Claim {
  const space = authorization.indexOf(' ');
  if (space < 0 || authorization.slice(0, space) !== ALGORITHM) {
    throw incomplete(`The Authorization header does not begin with ${ALGORITHM}`);
  }
  const fields = new Map<string, string>();
  for (const part of authorization.slice(space + 1).split(',')) {
    const equals = part.indexOf('=');
    if (equals > 0) fields.set(part.slice(0, equals).trim(), part.slice(equals + 1).trim());
  }
  for (const field of FIELDS) {
    if (!fields.get(field)) throw incomplete(`Authorization header requires '${field}' parameter.`);
  }
  const timestamp = request.header('x-amz-date');
  if (timestamp === undefined) throw incomplete("Authorization header requires existence of an 'X-Amz-Date' header.");
  return claim({
    credential: fields.get('Credential') ?? '',
    timestamp,
    signedHeaders: fields.get('SignedHeaders') ?? '',
    signature: fields.get('Signature') ?? '',
    expiresSeconds: undefined,
  });
}

function queryClaim({ query }: SignableRequest): Claim {
  const values = new Map(pairsOf(query));
  const value = (name: string): string => {
    const found = values.get(name);
    if (!found) throw incomplete(`AWS query-string parameters must include '${name}'`);
    return found;
  };
  if (value('X-Amz-Algorithm') !== ALGORITHM) throw incomplete(`'X-Amz-Algorithm' must be ${ALGORITHM}`);
  const expires = value('X-Amz-Expires');
  if (!/^\d{1,6}$/.test(expires) || Number(expires) < 1 || Number(expires) > EXPIRES_SECONDS_MAX) {
    throw incomplete(`'X-Amz-Expires' must be from 1 to ${EXPIRES_SECONDS_MAX}`);
  }
  return claim({
    credential: value('X-Amz-Credential'),
    timestamp: value('X-Amz-Date'),
    signedHeaders: value('X-Amz-SignedHeaders'),
    signature: value('X-Amz-Signature'),
    expiresSeconds: Number(expires),
  });
}

function claim(parts: {
  credential: string;
  timestamp: string;
  signedHeaders: string;
  signature: string;
  expiresSeconds: number | undefined;
}): Claim {
  const { credential, timestamp, signature, expiresSeconds } = parts;
  const scope = credential.split('/');
  if (scope.length !== 5 || scope.some((part) => part === '') || scope[4] !== TERMINATOR) {
    throw incomplete(`Credential must be KEY-ID/DATE/REGION/SERVICE/${TERMINATOR}, not '${credential}'`);
  }
  const [accessKeyId, date, region, service] = scope;
  const time = TIME.exec(timestamp);
  if (time === null) throw incomplete(`Date must be in ISO-8601 'basic format'. Got '${timestamp}'.`);
  const [year, month, day, hour, minute, second] = time.slice(1).map(Number);
  const signedHeaders = parts.signedHeaders.split(';');
  if (!SIGNATURE.test(signature)) throw incomplete('Signature must be 64 hexadecimal digits');
  return {
    accessKeyId,
    date,
    region,
    service,
    timestamp,
    timeMs: Date.UTC(year, month - 1, day, hour, minute, second),
    signedHeaders,
    signature,
    expiresSeconds,
  };
}

/** As text, for tests and for whoever looks for the difference. */
export function canonicalRequest(request: SignableRequest, { signedHeaders, expiresSeconds }: Claim): string {
  let headers = '';
  for (const name of signedHeaders) {
    headers += `${name}:${(request.header(name) ?? '').trim().replace(/\s+/g, ' ')}\n`;
  }
  const query = canonicalQuery(request.query, expiresSeconds !== undefined);
  return [
    request.method,
    canonicalPath(request.path),
    query,
    headers,
    signedHeaders.join(';'),
    hash('sha256', request.body),
  ].join('\n');
}

export function stringToSign(canonical: string, { timestamp, date, region, service }: Claim): string {
  return `${ALGORITHM}\n${timestamp}\n${date}/${region}/${service}/${TERMINATOR}\n${hash('sha256', canonical)}`;
}

/** Of a day, region and service: worth keeping. */
export function signingKey(secret: string, { date, region, service }: Claim): Buffer {
  const next = (key: string | Buffer, text: string): Buffer => createHmac('sha256', key).update(text).digest();
  return next(next(next(next(`AWS4${secret}`, date), region), service), TERMINATOR);
}

export function signatureOf(key: KeyObject | Buffer, text: string): Buffer {
  return createHmac('sha256', key).update(text).digest();
}

/** Normalised (RFC 3986, section 6), every part percent-encoded once more, as all services but S3 have it. */
function canonicalPath(path: string): string {
  const parts: string[] = [];
  for (const part of path.split('/')) {
    if (part === '' || part === '.') continue;
    if (part === '..') parts.pop();
    else parts.push(encodePart(part));
  }
  const isFolder = parts.length > 0 && /\/\.{0,2}$/.test(path);
  return `/${parts.join('/')}${isFolder ? '/' : ''}`;
}

function canonicalQuery(query: string, isPresigned: boolean): string {
  if (query === '') return '';
  return pairsOf(query)
    .filter(([name]) => !isPresigned || name !== 'X-Amz-Signature')
    .map(([name, value]) => [encodePart(name), encodePart(value)])
    .sort(([a, x], [b, y]) => (a === b ? compare(x, y) : compare(a, b)))
    .map(([name, value]) => `${name}=${value}`)
    .join('&');
}

const compare = (a: string, b: string): number => (a < b ? -1 : a > b ? 1 : 0);

function pairsOf(query: string): [string, string][] {
  return query
    .split('&')
    .filter((pair) => pair !== '')
    .map((pair) => {
      const equals = pair.indexOf('=');
      return equals < 0
        ? [decodePart(pair), '']
        : [decodePart(pair.slice(0, equals)), decodePart(pair.slice(equals + 1))];
    });
}

/** As the form that is executed is decoded: a plus is a space. */
function decodePart(text: string): string {
  try {
    return decodeURIComponent(text.replaceAll('+', ' '));
  } catch {
    // Then it is what it is; the form reader refuses it.
    return text;
  }
}

/** All but letters, digits and `-_.~` (RFC 3986). */
function encodePart(text: string): string {
  return encodeURIComponent(text).replace(
    /[!'()*]/g,
    (character) => `%${character.charCodeAt(0).toString(16).toUpperCase()}`,
  );
}
