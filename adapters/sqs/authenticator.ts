/**
 * Who has signed a request (signature version 4, in the header or presigned). While no access keys are configured, and only
 * where nobody else than this machine can come in, any credentials pass, and none are needed.
 *
 * Always true: nothing of a request is executed before this; the body counts as it was read.
 */
import { createSecretKey, type KeyObject, timingSafeEqual } from 'node:crypto';
import { SqsError } from '../../protocol/sqs/errors.ts';
import {
  canonicalRequest,
  type Claim,
  claimOf,
  type SignableRequest,
  signatureOf,
  signingKey,
  stringToSign,
} from '../../protocol/sqs/signature.ts';
import type { Clock } from '../../storage/clock.ts';

const SERVICE = 'sqs';
/** Of the documentation of signatures. */
const SKEW_MS = 900_000;
const KEYS_MAX = 1000;
/** They decide what is done, so they must be signed if they are there. */
const DECIDING_HEADERS = ['host', 'x-amz-date', 'x-amz-target', 'x-amz-security-token'] as const;

export interface AuthenticatorParts {
  readonly clock: Clock;
  /** Whose key it is and its secret; undefined: there is no such key. */
  keyOf(accessKeyId: string): { readonly user: string; readonly secret: string } | undefined;
  /** No signature is asked for. */
  isOpen(): boolean;
}

export interface Authenticated {
  /** Undefined: anybody. */
  readonly user: string | undefined;
  /** Of the scope that was signed for. */
  readonly region: string | undefined;
}

export class Authenticator {
  readonly #parts: AuthenticatorParts;
  /** By key, secret, day and region. */
  readonly #signingKeys = new Map<string, KeyObject>();

  constructor(parts: AuthenticatorParts) {
    this.#parts = parts;
  }

  /** MissingAuthenticationToken, IncompleteSignature, InvalidClientTokenId, RequestExpired, SignatureDoesNotMatch. */
  check(request: SignableRequest): Authenticated {
    if (this.#parts.isOpen()) return { user: undefined, region: regionOf(request) };
    const claim = claimOf(request);
    if (claim === undefined) {
      throw new SqsError('MissingAuthenticationToken', 'Request is missing Authentication Token');
    }
    const key = this.#parts.keyOf(claim.accessKeyId);
    if (key === undefined) {
      throw new SqsError('InvalidClientTokenId', 'The security token included in the request is invalid.');
    }
    this.#checkTime(claim);
    checkScope(claim);
    checkHeaders(request, claim);
    const text = stringToSign(canonicalRequest(request, claim), claim);
    const expected = signatureOf(this.#signingKey(key.secret, claim), text);
    if (!timingSafeEqual(expected, Buffer.from(claim.signature, 'hex'))) {
      throw mismatch(
        'The request signature we calculated does not match the signature you provided. Check your AWS Secret Access Key and signing method. Consult the service documentation for details.',
      );
    }
    return { user: key.user, region: claim.region };
  }

  #checkTime({ timeMs, timestamp, expiresSeconds }: Claim): void {
    const nowMs = this.#parts.clock.now();
    const lastMs = timeMs + (expiresSeconds === undefined ? SKEW_MS : expiresSeconds * 1000);
    if (nowMs > lastMs) throw new SqsError('RequestExpired', `The request of ${timestamp} has expired.`);
    if (timeMs - nowMs > SKEW_MS)
      throw new SqsError('RequestExpired', `The request of ${timestamp} is not yet current.`);
  }

  #signingKey(secret: string, claim: Claim): KeyObject {
    const id = `${claim.accessKeyId}\0${claim.date}\0${claim.region}\0${secret}`;
    let key = this.#signingKeys.get(id);
    if (key === undefined) {
      key = createSecretKey(signingKey(secret, claim));
      const [oldest] = this.#signingKeys.keys();
      if (this.#signingKeys.size >= KEYS_MAX && oldest !== undefined) this.#signingKeys.delete(oldest);
      this.#signingKeys.set(id, key);
    }
    return key;
  }
}

const mismatch = (message: string): SqsError => new SqsError('SignatureDoesNotMatch', message);

function checkScope({ service, date, timestamp }: Claim): void {
  if (service !== SERVICE) throw mismatch(`Credential should be scoped to correct service: '${SERVICE}'.`);
  if (!timestamp.startsWith(date)) {
    throw mismatch(
      `Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from HTTP: '${timestamp}'`,
    );
  }
}

function checkHeaders(request: SignableRequest, { signedHeaders, expiresSeconds }: Claim): void {
  for (const name of DECIDING_HEADERS) {
    if (request.header(name) === undefined || signedHeaders.includes(name)) continue;
    // A presigned request has its time in the query.
    if (expiresSeconds !== undefined && name === 'x-amz-date') continue;
    throw mismatch(`The header '${name}' must be a signed header in the request.`);
  }
}

/** What an unchecked signature says. */
function regionOf(request: SignableRequest): string | undefined {
  const authorization = request.header('authorization');
  if (authorization === undefined) return undefined;
  return /Credential=[^/,]+\/\d{8}\/([a-z0-9-]+)\/sqs\//.exec(authorization)?.[1];
}
