/**
 * Time and randomness as parameters. The broker never reads the system's clock or dice itself: it is given a
 * `Clock` and a `Random`, so that the simulation can run the same code from one seed.
 *
 * Always true: `monotonic()` never goes back; callbacks never run inside the call that set them.
 */
import { randomFillSync } from 'node:crypto';

/** A pending callback. `cancel` may be called any number of times, also after it ran. */
export interface Timer {
  cancel(): void;
}

export interface Clock {
  /** Wall clock in whole milliseconds since the Unix epoch. May jump. */
  now(): number;
  /** Milliseconds (with fraction) since an arbitrary start. Never goes back. */
  monotonic(): number;
  /** Runs `callback` once, at least `delayMs` from now. Does not keep the process alive. */
  after(delayMs: number, callback: () => void): Timer;
  /** Runs `callback` once, after everything that is already readable in this turn of the loop was handled. */
  endOfTurn(callback: () => void): void;
}

export interface Random {
  /** Fills `target` with random bytes (cryptographically strong outside the simulation) and returns it. */
  fill<T extends Uint8Array>(target: T): T;
}

const noTimer: Timer = { cancel() {} };

/** What runs at the end of this turn. */
let turnEnds: (() => void)[] = [];
let isEndingTurn = false;
/**
 * What is asked for at the end of a turn has its place in the same one: an answer leaves in the turn in which its group
 * was written. But not again and again, or nothing would be read.
 */
const TURN_END_PASSES = 3;

function endTurn(): void {
  let callbacks: (() => void)[] = [];
  let index = 0;
  isEndingTurn = true;
  try {
    for (let pass = 0; pass < TURN_END_PASSES && turnEnds.length > 0; pass++) {
      callbacks = turnEnds;
      turnEnds = [];
      for (index = 0; index < callbacks.length; ) callbacks[index++]();
    }
  } finally {
    isEndingTurn = false;
    // If one has failed, that is no concern of the others.
    if (index < callbacks.length) turnEnds.unshift(...callbacks.slice(index));
    if (turnEnds.length > 0) setImmediate(endTurn);
  }
}

/** The machine's own clock. */
export const systemClock: Clock = {
  now: () => Date.now(),
  monotonic: () => performance.now(),
  after(delayMs, callback) {
    if (delayMs === Number.POSITIVE_INFINITY) return noTimer;
    // setTimeout takes 31 bits; a longer wait is cut short and its caller looks at the clock again anyway.
    const handle = setTimeout(callback, Math.min(Math.max(0, delayMs), 2_147_483_647));
    handle.unref();
    return { cancel: () => clearTimeout(handle) };
  },
  endOfTurn(callback) {
    if (turnEnds.length === 0 && !isEndingTurn) setImmediate(endTurn);
    turnEnds.push(callback);
  },
};

/** As `systemClock`, for programs that end when nothing is left to do: a timer of theirs keeps the process alive. */
export const foregroundClock: Clock = {
  ...systemClock,
  after(delayMs, callback) {
    if (delayMs === Number.POSITIVE_INFINITY) return noTimer;
    const handle = setTimeout(callback, Math.min(Math.max(0, delayMs), 2_147_483_647));
    return { cancel: () => clearTimeout(handle) };
  },
};

/** The machine's own randomness. */
export const systemRandom: Random = {
  fill: (target) => randomFillSync(target),
};

/** A non-negative integer below 2³², from `random`. */
export function randomUint32(random: Random): number {
  const bytes = random.fill(new Uint8Array(4));
  return ((bytes[0] << 24) | (bytes[1] << 16) | (bytes[2] << 8) | bytes[3]) >>> 0;
}

/** A random (version 4) UUID in its usual lower-case text form. */
export function randomUuid(random: Random): string {
  const bytes = random.fill(new Uint8Array(16));
  bytes[6] = (bytes[6] & 0x0f) | 0x40;
  bytes[8] = (bytes[8] & 0x3f) | 0x80;
  const hex = Buffer.from(bytes.buffer, bytes.byteOffset, 16).toString('hex');
  return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-${hex.slice(12, 16)}-${hex.slice(16, 20)}-${hex.slice(20)}`;
}
