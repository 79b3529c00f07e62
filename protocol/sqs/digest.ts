/**
 * The digests by which SDKs check what they sent and got: MD5 of the body, and of message attributes as the developer
 * guide ("Calculating the MD5 message digest for message attributes") lays them out:
 *
 *   for each attribute by name:  size int32, name | size int32, data type | 1 (text) or 2 (binary) | size int32, value
 */
import { createHash, hash } from 'node:crypto';
import type { AttributeValue } from './actions.ts';

const TEXT = Buffer.of(1);
const BINARY = Buffer.of(2);

export function md5(content: string | Uint8Array): string {
  return hash('md5', content);
}

/** Undefined: there are none. */
export function md5OfAttributes(attributes: ReadonlyMap<string, AttributeValue> | undefined): string | undefined {
  if (attributes === undefined || attributes.size === 0) return undefined;
  const digest = createHash('md5');
  const size = Buffer.allocUnsafe(4);
  const add = (content: Uint8Array): void => {
    size.writeUInt32BE(content.length);
    digest.update(size).update(content);
  };
  // By bytes of the name: names are ASCII.
  const names = [...attributes.keys()].sort((a, b) => (a < b ? -1 : 1));
  for (const name of names) {
    const value = attributes.get(name);
    if (value === undefined) continue;
    add(Buffer.from(name));
    add(Buffer.from(value.DataType));
    digest.update(value.BinaryValue === undefined ? TEXT : BINARY);
    add(value.BinaryValue ?? Buffer.from(value.StringValue ?? ''));
  }
  return digest.digest('hex');
}
