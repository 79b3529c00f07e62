/**
 * Latencies in microseconds, counted in buckets: exact below 256 µs, above that to better than 1 %. Recording
 * does not allocate.
 */

/** Buckets to a power of two above the exact range. */
const STEPS = 128;
const EXACT = 2 * STEPS;
const POWERS = 24;

export class LatencyHistogram {
  readonly #counts = new Float64Array(EXACT + POWERS * STEPS);
  count = 0;
  maxUs = 0;

  record(us: number): void {
    const value = us < 0 ? 0 : Math.round(us);
    this.#counts[bucketOf(value)]++;
    this.count++;
    if (value > this.maxUs) this.maxUs = value;
  }

  /** Smallest value that at least `percent` of the recorded ones do not exceed (upper end of its bucket); 0 if empty. */
  percentileUs(percent: number): number {
    const wanted = Math.max(1, Math.ceil((this.count * percent) / 100));
    let seen = 0;
    // The last bucket has no upper end: what is in it reads as the largest.
    for (let bucket = 0; bucket < this.#counts.length - 1; bucket++) {
      seen += this.#counts[bucket];
      if (seen >= wanted) return Math.min(upperEnd(bucket), this.maxUs);
    }
    return this.maxUs;
  }
}

function bucketOf(value: number): number {
  if (value < EXACT) return value;
  const power = Math.floor(Math.log2(value)) - Math.log2(EXACT);
  const bucket = EXACT + power * STEPS + Math.floor(value / 2 ** (power + 1)) - STEPS;
  return Math.min(bucket, EXACT + POWERS * STEPS - 1);
}

function upperEnd(bucket: number): number {
  if (bucket < EXACT) return bucket;
  const power = Math.floor((bucket - EXACT) / STEPS);
  const step = ((bucket - EXACT) % STEPS) + STEPS;
  return (step + 1) * 2 ** (power + 1) - 1;
}
