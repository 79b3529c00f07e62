/**
 * Incremental fetch sessions (KIP-227): the broker remembers which partitions a consumer reads and from where, so that
 * a request names only what changed and an answer only what has news. Slots are limited; a new session may take the
 * slot of one that was idle for two minutes, or that is smaller and old enough, as in Kafka. The partitions of all
 * sessions together are limited too: whoever would go beyond reads without a session.
 */
import type { Clock, Random } from '../../storage/clock.ts';
import { randomUint32 } from '../../storage/clock.ts';

/** One partition a consumer reads. */
export interface FetchTarget {
  /** Topic name, or its id from version 13 on: whatever the session's requests use. */
  readonly topic: string;
  readonly partition: number;
  fetchOffset: number;
  partitionMaxBytes: number;
  currentLeaderEpoch: number;
  lastFetchedEpoch: number;
  /** What the last answer said; −1 and `isAnswered` false before the first. */
  sentHighWatermark: number;
  sentStartOffset: number;
  isAnswered: boolean;
}

export interface FetchSession {
  readonly id: number;
  epoch: number;
  readonly usesIds: boolean;
  /** In the order in which they are served; those that gave data go to the end. */
  readonly targets: Map<string, FetchTarget>;
  /** Size of `targets` as it was last counted. */
  targetCount: number;
  usedMs: number;
  readonly createdMs: number;
}

/** Of a request that stands alone, and of the one that opens a session. */
export const INITIAL_EPOCH = 0;
export const FINAL_EPOCH = -1;

/** min.incremental.fetch.session.eviction.ms of Kafka. */
const EVICTION_MS = 120_000;
const EPOCH_MAX = 2_147_483_647;

export const targetKey = (topic: string, partition: number): string => `${partition} ${topic}`;

/** Session epochs run 1 … 2³¹−1 and start again at 1. */
export const nextEpoch = (epoch: number): number => (epoch === EPOCH_MAX ? 1 : epoch + 1);

export class FetchSessions {
  readonly #clock: Clock;
  readonly #random: Random;
  readonly #slotsMax: number;
  readonly #targetsMax: number;
  #targetCount = 0;
  /** Least recently used first. */
  readonly #sessions = new Map<number, FetchSession>();
  #evictions = 0;

  constructor(clock: Clock, random: Random, slotsMax: number, targetsMax = Number.POSITIVE_INFINITY) {
    this.#clock = clock;
    this.#random = random;
    this.#slotsMax = slotsMax;
    this.#targetsMax = targetsMax;
  }

  get size(): number {
    return this.#sessions.size;
  }
  get evictions(): number {
    return this.#evictions;
  }

  /** The session, moved to the end of the eviction order; undefined if it is gone. */
  use(id: number): FetchSession | undefined {
    const session = this.#sessions.get(id);
    if (!session) return undefined;
    session.usedMs = this.#clock.monotonic();
    this.#sessions.delete(id);
    this.#sessions.set(id, session);
    return session;
  }

  remove(id: number): void {
    const session = this.#sessions.get(id);
    if (!session) return;
    this.#sessions.delete(id);
    this.#targetCount -= session.targetCount;
  }

  /** After the partitions of a session have changed. False: they are too many, and the session is gone. */
  count(session: FetchSession): boolean {
    this.#targetCount += session.targets.size - session.targetCount;
    session.targetCount = session.targets.size;
    if (this.#targetCount <= this.#targetsMax) return true;
    this.remove(session.id);
    return false;
  }

  /** A new session if a slot is or can be made free. */
  open(targets: Map<string, FetchTarget>, usesIds: boolean): FetchSession | undefined {
    if (this.#targetCount + targets.size > this.#targetsMax) return undefined;
    if (this.#sessions.size >= this.#slotsMax && !this.#evictFor(targets.size)) return undefined;
    const now = this.#clock.monotonic();
    let id = 0;
    while (id === 0 || this.#sessions.has(id)) id = randomUint32(this.#random) & EPOCH_MAX;
    const session: FetchSession = {
      id,
      epoch: 1,
      usesIds,
      targets,
      targetCount: targets.size,
      usedMs: now,
      createdMs: now,
    };
    this.#sessions.set(id, session);
    this.#targetCount += targets.size;
    return session;
  }

  #evictFor(size: number): boolean {
    const now = this.#clock.monotonic();
    for (const session of this.#sessions.values()) {
      if (now - session.usedMs > EVICTION_MS) return this.#evict(session);
      break;
    }
    let smallest: FetchSession | undefined;
    for (const session of this.#sessions.values()) {
      if (now - session.createdMs <= EVICTION_MS || session.targets.size >= size) continue;
      if (!smallest || session.targets.size < smallest.targets.size) smallest = session;
    }
    return smallest ? this.#evict(smallest) : false;
  }

  #evict(session: FetchSession): boolean {
    this.#evictions++;
    this.remove(session.id);
    return true;
  }
}
