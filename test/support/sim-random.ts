/**
 * Random from a seed: xoshiro128** (Blackman, Vigna), its state filled by splitmix32. The same seed gives the same
 * numbers on every machine. Not for secrets.
 */
import type { Random } from '../../storage/clock.ts';

export class SimRandom implements Random {
  readonly #state = new Uint32Array(4);

  constructor(seed: number | string) {
    let mixed = typeof seed === 'number' ? seed >>> 0 : hashText(seed);
    for (let index = 0; index < 4; index++) {
      mixed = (mixed + 0x9e3779b9) >>> 0;
      let value = mixed;
      value = Math.imul(value ^ (value >>> 16), 0x21f0aaad);
      value = Math.imul(value ^ (value >>> 15), 0x735a2d97);
      this.#state[index] = value ^ (value >>> 15);
    }
  }

  uint32(): number {
    const state = this.#state;
    const result = Math.imul(rotate(Math.imul(state[1], 5), 7), 9) >>> 0;
    const shifted = state[1] << 9;
    state[2] ^= state[0];
    state[3] ^= state[1];
    state[1] ^= state[2];
    state[0] ^= state[3];
    state[2] ^= shifted;
    state[3] = rotate(state[3], 11);
    return result;
  }

  /** A whole number from 0 to `limit` − 1. */
  below(limit: number): number {
    return Math.floor((this.uint32() / 4_294_967_296) * limit);
  }

  /** A whole number from `low` to `high`, both included. */
  between(low: number, high: number): number {
    return low + this.below(high - low + 1);
  }

  chance(probability: number): boolean {
    return this.uint32() < probability * 4_294_967_296;
  }

  pick<T>(from: readonly T[]): T {
    return from[this.below(from.length)];
  }

  fill<T extends Uint8Array>(target: T): T {
    for (let index = 0; index < target.length; index += 4) {
      const value = this.uint32();
      for (let byte = 0; byte < 4 && index + byte < target.length; byte++) target[index + byte] = value >>> (byte * 8);
    }
    return target;
  }

  /** Another generator whose numbers do not depend on how many are drawn from this one afterwards. */
  fork(): SimRandom {
    return new SimRandom(this.uint32());
  }
}

function rotate(value: number, bits: number): number {
  return (value << bits) | (value >>> (32 - bits));
}

/** FNV-1a. */
export function hashText(text: string, start = 0x811c9dc5): number {
  let hash = start;
  for (let index = 0; index < text.length; index++) hash = Math.imul(hash ^ text.charCodeAt(index), 0x01000193);
  return hash >>> 0;
}
