/**
 * Ids of idempotent producers. An id is the broker's start epoch and a counter, so ids never repeat although nothing is
 * written for them: the engine makes each start's epoch durable before anything is served
 * (docs/decisions/0020-producer-ids-from-the-start-epoch.md).
 */

/** 2³¹ ids a start; the epoch has 22 bits before an id passes 2⁵³. */
const IDS_PER_EPOCH = 2_147_483_648;

export class ProducerIds {
  #next: number;
  readonly #end: number;

  constructor(startEpoch: number) {
    this.#next = startEpoch * IDS_PER_EPOCH;
    this.#end = this.#next + IDS_PER_EPOCH;
  }

  /** A producer id that no producer ever had. */
  next(): number {
    if (this.#next === this.#end) throw new Error('all producer ids of this start are used up; restart the broker');
    return this.#next++;
  }
}
