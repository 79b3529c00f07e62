/**
 * URLs and ARNs of queues. A URL is answered with the host that the client used and the account of its path; one that is
 * given may have any host, region and account: what counts is its last part.
 *
 *   http://HOST/ACCOUNT/NAME      http://HOST/queue/REGION/ACCOUNT/NAME      http://REGION.queue.HOST/ACCOUNT/NAME
 *   arn:aws:sqs:REGION:ACCOUNT:NAME
 */
import { SqsError } from '../../protocol/sqs/errors.ts';

const ACCOUNT = /^\d{12}$/;
const REGION = /^[a-z]{2}(-[a-z]+)+-\d+$/;
const ARN = /^arn:[a-z-]+:sqs:([^:]*):([^:]*):([^:/]+)$/;

/** Addresses that are kept, and how long their URLs may be. */
const KNOWN_MAX = 10_000;
const KNOWN_URL_CHARACTERS_MAX = 512;

export interface QueueAddress {
  readonly name: string;
  readonly account: string | undefined;
  readonly region: string | undefined;
}

/** Of the path of a request; undefined: it names no queue. */
export function queueOfPath(path: string): QueueAddress | undefined {
  const parts = path.split('/').filter((part) => part !== '');
  const last = parts.at(-1);
  if (last === undefined) return undefined;
  return {
    name: decoded(last),
    account: parts.find((part) => ACCOUNT.test(part)),
    region: parts.find((part) => REGION.test(part)),
  };
}

/** InvalidAddress if it is no URL of a queue. */
function queueOfUrl(url: string): QueueAddress {
  const match = /^https?:\/\/([^/?#]+)(\/[^?#]*)/i.exec(url);
  const address = match === null ? undefined : queueOfPath(match[2]);
  if (match === null || address === undefined) {
    throw new SqsError('InvalidAddress', `The address ${url} is not valid for this endpoint.`);
  }
  return { ...address, region: address.region ?? regionOfHost(match[1]) };
}

/** `sqs.us-east-1.example.com`, `us-east-1.queue.example.com`. */
export function regionOfHost(host: string): string | undefined {
  return host.split('.', 3).find((part) => REGION.test(part));
}

/** Addresses by URL: clients ask with few of them, again and again. */
export class QueueAddresses {
  readonly #known = new Map<string, QueueAddress>();

  /** InvalidAddress. */
  of(url: string): QueueAddress {
    let address = this.#known.get(url);
    if (address === undefined) {
      address = queueOfUrl(url);
      if (url.length > KNOWN_URL_CHARACTERS_MAX) return address;
      if (this.#known.size >= KNOWN_MAX) this.#known.clear();
      this.#known.set(url, address);
    }
    return address;
  }
}

function decoded(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    // No queue has that name.
    return text;
  }
}

/** The name of the queue; undefined: it is no ARN of SQS. */
export function queueOfArn(arn: string): string | undefined {
  return ARN.exec(arn)?.[3];
}

export function arnOf(name: string, region: string, account: string): string {
  return `arn:aws:sqs:${region}:${account}:${name}`;
}
