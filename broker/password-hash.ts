/**
 * How passwords are kept: RabbitMQ's format, so that its definitions move here and back as they are: base64 of four bytes
 * of salt followed by the digest of salt and password. Comparing takes the same time wherever the difference is.
 */
import { createHash, timingSafeEqual } from 'node:crypto';
import type { Random } from '../storage/clock.ts';
import type { HashingAlgorithm } from './directory-state.ts';

const SALT_BYTES = 4;
const DIGESTS: Readonly<Record<HashingAlgorithm, string>> = {
  rabbit_password_hashing_sha256: 'sha256',
  rabbit_password_hashing_sha512: 'sha512',
  rabbit_password_hashing_md5: 'md5',
};

export const DEFAULT_ALGORITHM: HashingAlgorithm = 'rabbit_password_hashing_sha256';

export function hashingAlgorithm(name: string): HashingAlgorithm | undefined {
  // A key of the table, by the check.
  return Object.hasOwn(DIGESTS, name) ? (name as HashingAlgorithm) : undefined;
}

export function passwordHash(password: string, random: Random, algorithm = DEFAULT_ALGORITHM): string {
  const salt = random.fill(new Uint8Array(SALT_BYTES));
  return Buffer.concat([salt, digest(salt, password, algorithm)]).toString('base64');
}

export function passwordMatches(password: string, hash: string, algorithm: HashingAlgorithm): boolean {
  const bytes = Buffer.from(hash, 'base64');
  const actual = digest(bytes.subarray(0, SALT_BYTES), password, algorithm);
  const expected = bytes.subarray(SALT_BYTES);
  return actual.length === expected.length && timingSafeEqual(actual, expected);
}

/** Whether text can be what `passwordHash` makes: base64 of salt and something. */
export function isPasswordHash(hash: string): boolean {
  return /^[A-Za-z0-9+/]*={0,2}$/.test(hash) && Buffer.from(hash, 'base64').length > SALT_BYTES;
}

function digest(salt: Uint8Array, password: string, algorithm: HashingAlgorithm): Buffer {
  return createHash(DIGESTS[algorithm]).update(salt).update(password).digest();
}
