/**
 * murmur2 as Kafka's Java client hashes keys, so that a key goes to the same partition whoever sends it.
 * Source: Austin Appleby's MurmurHash2, 32 bit, with Kafka's seed 0x9747b28c.
 */

const SEED = 0x9747b28c;
const MULTIPLIER = 0x5bd1e995;

/** Hash of `bytes` as a signed 32-bit number. */
export function murmur2(bytes: Uint8Array): number {
  const wholeEnd = bytes.length & ~3;
  let hash = SEED ^ bytes.length;
  for (let at = 0; at < wholeEnd; at += 4) {
    let word = bytes[at] | (bytes[at + 1] << 8) | (bytes[at + 2] << 16) | (bytes[at + 3] << 24);
    word = Math.imul(word, MULTIPLIER);
    word = Math.imul(word ^ (word >>> 24), MULTIPLIER);
    hash = Math.imul(hash, MULTIPLIER) ^ word;
  }
  const rest = bytes.length - wholeEnd;
  if (rest > 0) {
    if (rest > 2) hash ^= bytes[wholeEnd + 2] << 16;
    if (rest > 1) hash ^= bytes[wholeEnd + 1] << 8;
    hash = Math.imul(hash ^ bytes[wholeEnd], MULTIPLIER);
  }
  hash = Math.imul(hash ^ (hash >>> 13), MULTIPLIER);
  return hash ^ (hash >>> 15);
}

/** Partition of a record with `key`, of `partitions`, as the Java client's default partitioner chooses it. */
export function partitionForKey(key: Uint8Array, partitions: number): number {
  return (murmur2(key) & 0x7fff_ffff) % partitions;
}
