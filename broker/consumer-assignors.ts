/**
 * The assignors of consumer groups (KIP-848): who should have which partition. Pure functions of the members, what they
 * subscribe to, what they should have had so far, and how many partitions each topic has.
 *
 * `uniform` spreads partitions so that no two members differ by more than one where subscriptions allow it, and moves as
 * few as it can. `range` gives each member the same range of every topic, so that topics with equally many partitions
 * are assigned alike; it does not look at what members had.
 */

/** Topic id → partitions. */
export type Partitions = ReadonlyMap<string, ReadonlySet<number>>;
type OwnPartitions = Map<string, Set<number>>;

export interface AssignorMember {
  readonly id: string;
  readonly instanceId: string | null;
  /** Ids of the topics it subscribes to that exist. */
  readonly topics: ReadonlySet<string>;
  /** What the last assignment gave it. */
  readonly current: Partitions;
}

/** Member id → partitions; every member is in it. Only topics in `partitionCounts` are assigned. */
export type Assignor = (
  members: readonly AssignorMember[],
  partitionCounts: ReadonlyMap<string, number>,
) => Map<string, Partitions>;

/** By Kafka's names. */
export const assignors: Readonly<Record<string, Assignor>> = { uniform, range };

function uniform(
  members: readonly AssignorMember[],
  partitionCounts: ReadonlyMap<string, number>,
): Map<string, Partitions> {
  if (members.length === 0) return new Map();
  const isAlike = members.every(({ topics }) => isSameSet(topics, members[0].topics));
  return isAlike ? spreadEvenly(members, partitionCounts) : balance(members, partitionCounts);
}

function isSameSet(a: ReadonlySet<string>, b: ReadonlySet<string>): boolean {
  if (a.size !== b.size) return false;
  for (const item of a) if (!b.has(item)) return false;
  return true;
}

/** All members subscribe to the same: each keeps what it had up to its share, the rest goes to who has less. */
function spreadEvenly(
  members: readonly AssignorMember[],
  partitionCounts: ReadonlyMap<string, number>,
): Map<string, Partitions> {
  const free: { topicId: string; partition: number }[] = [];
  const taken = new Map<string, Set<number>>();
  let partitionCount = 0;
  for (const topicId of members[0].topics) partitionCount += partitionCounts.get(topicId) ?? 0;
  const shareMin = Math.floor(partitionCount / members.length);
  let largerShares = partitionCount % members.length;

  const assignment = new Map<string, OwnPartitions>();
  const shares = new Map<string, number>();
  for (const member of members) {
    let room = shareMin + (largerShares > 0 ? 1 : 0);
    const own: OwnPartitions = new Map();
    for (const [topicId, partitions] of member.current) {
      const topicPartitions = member.topics.has(topicId) ? (partitionCounts.get(topicId) ?? 0) : 0;
      for (const partition of partitions) {
        if (room === 0 || partition >= topicPartitions || taken.get(topicId)?.has(partition)) continue;
        add(own, topicId, partition);
        add(taken, topicId, partition);
        room--;
      }
    }
    // The larger shares first go to who has one partition more already; who has fewer may still need one.
    if (largerShares > 0 && room === 0) largerShares--;
    assignment.set(member.id, own);
    shares.set(member.id, countOf(own));
  }
  for (const topicId of members[0].topics) {
    for (let partition = 0; partition < (partitionCounts.get(topicId) ?? 0); partition++) {
      if (!taken.get(topicId)?.has(partition)) free.push({ topicId, partition });
    }
  }
  let at = 0;
  for (const member of members) {
    const own = assignment.get(member.id);
    if (own === undefined) continue;
    let room = shareMin - (shares.get(member.id) ?? 0);
    if (room >= 0 && largerShares > 0) {
      room++;
      largerShares--;
    }
    for (; room > 0 && at < free.length; room--, at++) add(own, free[at].topicId, free[at].partition);
  }
  return assignment;
}

/** Subscriptions differ: everything kept that may be, the rest to whoever has least, then moved until it is even. */
function balance(
  members: readonly AssignorMember[],
  partitionCounts: ReadonlyMap<string, number>,
): Map<string, Partitions> {
  const assignment = new Map<string, OwnPartitions>(members.map(({ id }) => [id, new Map()]));
  const loads = new Map<string, number>(members.map(({ id }) => [id, 0]));
  const subscribers = new Map<string, AssignorMember[]>();
  for (const member of members) {
    for (const topicId of member.topics) {
      const others = subscribers.get(topicId);
      if (others === undefined) subscribers.set(topicId, [member]);
      else others.push(member);
    }
  }
  // Topics with the fewest takers first: the others can make up for it.
  const topicIds = [...subscribers.keys()].sort(
    (a, b) => (subscribers.get(a)?.length ?? 0) - (subscribers.get(b)?.length ?? 0),
  );
  const loadOf = (id: string): number => loads.get(id) ?? 0;
  const owners = new Map<string, string[]>();
  for (const topicId of topicIds) {
    const takers = subscribers.get(topicId) ?? [];
    const topicOwners: string[] = [];
    const partitionCount = partitionCounts.get(topicId) ?? 0;
    for (const { id, current } of takers) {
      for (const partition of current.get(topicId) ?? []) {
        if (partition >= partitionCount || topicOwners[partition] !== undefined) continue;
        topicOwners[partition] = id;
        loads.set(id, loadOf(id) + 1);
      }
    }
    owners.set(topicId, topicOwners);
  }
  for (const topicId of topicIds) {
    const topicOwners = owners.get(topicId) ?? [];
    const takers = (subscribers.get(topicId) ?? []).map(({ id }) => id);
    const lightest = new LoadHeap(takers, loadOf);
    for (let partition = 0; partition < (partitionCounts.get(topicId) ?? 0); partition++) {
      if (topicOwners[partition] !== undefined) continue;
      const id = lightest.first;
      topicOwners[partition] = id;
      loads.set(id, loadOf(id) + 1);
      lightest.sinkFirst();
    }
  }
  // A move narrows the gap between two members by two, so the sum of squared loads falls: this ends. What a member has
  // only got in this round goes first.
  const byId = new Map(members.map((member) => [member.id, member]));
  for (const mayTakeAway of [false, true]) {
    for (let hasMoved = true; hasMoved; ) {
      hasMoved = false;
      for (const topicId of topicIds) {
        const topicOwners = owners.get(topicId) ?? [];
        const takers = (subscribers.get(topicId) ?? []).map(({ id }) => id);
        const lightest = new LoadHeap(takers, loadOf);
        for (let partition = topicOwners.length - 1; partition >= 0; partition--) {
          const from = topicOwners[partition];
          const to = lightest.first;
          if (loadOf(from) - loadOf(to) < 2) continue;
          if (!mayTakeAway && byId.get(from)?.current.get(topicId)?.has(partition)) continue;
          topicOwners[partition] = to;
          loads.set(from, loadOf(from) - 1);
          loads.set(to, loadOf(to) + 1);
          lightest.rebuild();
          hasMoved = true;
        }
      }
    }
  }
  levelOut({ members, owners, subscribers, loads });
  for (const [topicId, topicOwners] of owners) {
    topicOwners.forEach((id, partition) => {
      const own = assignment.get(id);
      if (own !== undefined) add(own, topicId, partition);
    });
  }
  return assignment;
}

/** Steps that looking for chains may take: beyond, shares are as even as they are. */
const LEVEL_STEPS_MAX = 5_000_000;

interface Balance {
  readonly members: readonly AssignorMember[];
  /** Topic id → partition → member id. */
  readonly owners: ReadonlyMap<string, string[]>;
  readonly subscribers: ReadonlyMap<string, readonly AssignorMember[]>;
  readonly loads: Map<string, number>;
}

/**
 * Where two members who differ by two or more have no topic in common, others may stand between them: each gives one
 * partition to the next. When there is no such chain left the shares are as even as they can be.
 */
function levelOut({ members, owners, subscribers, loads }: Balance): void {
  const loadOf = (id: string): number => loads.get(id) ?? 0;
  const byId = new Map(members.map((member) => [member.id, member]));
  let steps = 0;
  const sources = members.map(({ id }) => id).sort((a, b) => loadOf(b) - loadOf(a));
  for (const source of sources) {
    for (;;) {
      const givers = new Map<string, { from: string; topicId: string }>();
      const seenTopics = new Set<string>();
      let lightest: string | undefined;
      const queue = [source];
      for (let at = 0; at < queue.length && lightest === undefined; at++) {
        const from = queue[at];
        for (const topicId of byId.get(from)?.topics ?? []) {
          const topicOwners = owners.get(topicId) ?? [];
          steps += topicOwners.length;
          if (seenTopics.has(topicId) || !topicOwners.includes(from)) continue;
          seenTopics.add(topicId);
          for (const { id } of subscribers.get(topicId) ?? []) {
            steps++;
            if (id === source || givers.has(id)) continue;
            givers.set(id, { from, topicId });
            queue.push(id);
            if (loadOf(id) > loadOf(source) - 2) continue;
            if (lightest === undefined || loadOf(id) < loadOf(lightest)) lightest = id;
          }
        }
        if (steps > LEVEL_STEPS_MAX) return;
      }
      if (lightest === undefined) break;
      loads.set(source, loadOf(source) - 1);
      loads.set(lightest, loadOf(lightest) + 1);
      for (let to = lightest; to !== source; ) {
        const giver = givers.get(to);
        if (giver === undefined) return;
        const topicOwners = owners.get(giver.topicId) ?? [];
        // What the giver has only got in this round, if there is such a one.
        const before = byId.get(giver.from)?.current.get(giver.topicId);
        const isNew = (id: string, partition: number): boolean => id === giver.from && !before?.has(partition);
        const fresh = topicOwners.findLastIndex(isNew);
        topicOwners[fresh === -1 ? topicOwners.lastIndexOf(giver.from) : fresh] = to;
        to = giver.from;
      }
    }
  }
}

/** Members by load, the one with least first; on a tie the one that came first. */
class LoadHeap {
  readonly #heap: { readonly id: string; readonly order: number }[];
  readonly #loadOf: (id: string) => number;

  constructor(ids: readonly string[], loadOf: (id: string) => number) {
    this.#heap = ids.map((id, order) => ({ id, order }));
    this.#loadOf = loadOf;
    this.rebuild();
  }

  get first(): string {
    return this.#heap[0].id;
  }

  rebuild(): void {
    for (let at = (this.#heap.length >> 1) - 1; at >= 0; at--) this.#sink(at);
  }
  sinkFirst(): void {
    this.#sink(0);
  }

  #isBefore(a: number, b: number): boolean {
    const difference = this.#loadOf(this.#heap[a].id) - this.#loadOf(this.#heap[b].id);
    return difference === 0 ? this.#heap[a].order < this.#heap[b].order : difference < 0;
  }

  #sink(start: number): void {
    let at = start;
    for (;;) {
      let child = 2 * at + 1;
      if (child >= this.#heap.length) return;
      if (child + 1 < this.#heap.length && this.#isBefore(child + 1, child)) child++;
      if (!this.#isBefore(child, at)) return;
      const entry = this.#heap[at];
      this.#heap[at] = this.#heap[child];
      this.#heap[child] = entry;
      at = child;
    }
  }
}

/** Members in the order of their instance ids, then those without in the order of their ids. */
function range(
  members: readonly AssignorMember[],
  partitionCounts: ReadonlyMap<string, number>,
): Map<string, Partitions> {
  const ordered = [...members].sort((a, b) => {
    if (a.instanceId !== null && b.instanceId !== null) return compare(a.instanceId, b.instanceId);
    if (a.instanceId !== null) return -1;
    if (b.instanceId !== null) return 1;
    return compare(a.id, b.id);
  });
  const takerCounts = new Map<string, number>();
  for (const { topics } of ordered) {
    for (const topicId of topics) takerCounts.set(topicId, (takerCounts.get(topicId) ?? 0) + 1);
  }
  const nextPartitions = new Map<string, { partition: number; largerShares: number }>();
  const assignment = new Map<string, Partitions>();
  for (const { id, topics } of ordered) {
    const own: OwnPartitions = new Map();
    for (const topicId of topics) {
      const partitionCount = partitionCounts.get(topicId) ?? 0;
      const takerCount = takerCounts.get(topicId) ?? 1;
      const next = nextPartitions.get(topicId) ?? { partition: 0, largerShares: partitionCount % takerCount };
      nextPartitions.set(topicId, next);
      const share = Math.floor(partitionCount / takerCount) + (next.largerShares > 0 ? 1 : 0);
      next.largerShares--;
      for (let count = 0; count < share; count++) add(own, topicId, next.partition++);
    }
    assignment.set(id, own);
  }
  return assignment;
}

function compare(a: string, b: string): number {
  if (a === b) return 0;
  return a < b ? -1 : 1;
}

function add(partitions: OwnPartitions, topicId: string, partition: number): void {
  const own = partitions.get(topicId);
  if (own === undefined) partitions.set(topicId, new Set([partition]));
  else own.add(partition);
}

function countOf(partitions: Partitions): number {
  let count = 0;
  for (const { size } of partitions.values()) count += size;
  return count;
}
