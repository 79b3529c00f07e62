/**
 * Who of a share group takes from which partition (KIP-932): the `simple` assignor. A partition may have many members and
 * a member many partitions; every partition has as many as any other, and members keep what they had where that is even.
 * Pure functions.
 *
 * With n members and p partitions each partition gets ⌈n ÷ p⌉ members, and members get the places in equal numbers, the
 * first ones the larger. When all subscribe alike their topics are one pool, otherwise each topic is a pool of its own.
 */
import type { Partitions } from './consumer-assignors.ts';

export interface ShareAssignorMember {
  readonly id: string;
  /** Ids of the topics it subscribes to that exist. */
  readonly topics: ReadonlySet<string>;
  /** What the last assignment gave it. */
  readonly current: Partitions;
}

interface Place {
  readonly topicId: string;
  readonly partition: number;
  /** How many members have it. */
  count: number;
}

/** Member id → partitions; every member is in it. Only topics in `partitionCounts` are assigned. */
export function assignShares(
  members: readonly ShareAssignorMember[],
  partitionCounts: ReadonlyMap<string, number>,
): Map<string, Partitions> {
  const assignment = new Map<string, Map<string, Set<number>>>(members.map(({ id }) => [id, new Map()]));
  if (members.length === 0) return assignment;
  const first = members[0].topics;
  const isAlike = members.every(({ topics }) => isSameSet(topics, first));
  const pools = isAlike ? [[...first]] : [...new Set(members.flatMap(({ topics }) => [...topics]))].map((id) => [id]);
  for (const topicIds of pools) {
    const takers = isAlike ? members : members.filter(({ topics }) => topics.has(topicIds[0]));
    spread(takers, placesOf(topicIds, partitionCounts), assignment);
  }
  return assignment;
}

function placesOf(topicIds: readonly string[], partitionCounts: ReadonlyMap<string, number>): Place[] {
  const places: Place[] = [];
  for (const topicId of topicIds) {
    const partitionCount = partitionCounts.get(topicId) ?? 0;
    for (let partition = 0; partition < partitionCount; partition++) places.push({ topicId, partition, count: 0 });
  }
  return places;
}

function spread(
  takers: readonly ShareAssignorMember[],
  places: readonly Place[],
  assignment: ReadonlyMap<string, Map<string, Set<number>>>,
): void {
  if (places.length === 0) return;
  const sharing = Math.ceil(takers.length / places.length);
  const each = (sharing * places.length) / takers.length;
  const rooms = takers.map((_taker, index) => Math.ceil(each * (index + 1)) - Math.ceil(each * index));
  const give = (index: number, place: Place): void => {
    const own = assignment.get(takers[index].id);
    const partitions = own?.get(place.topicId);
    if (partitions === undefined) own?.set(place.topicId, new Set([place.partition]));
    else partitions.add(place.partition);
    place.count++;
    rooms[index]--;
  };
  // What they have, the partitions with fewest members first: those would have nobody else.
  const before = (place: Place): number => takers.filter((taker) => has(taker.current, place)).length;
  const kept = places.map((place) => ({ place, holders: before(place) })).filter(({ holders }) => holders > 0);
  kept.sort((a, b) => a.holders - b.holders);
  for (const { place } of kept) {
    for (let index = 0; index < takers.length && place.count < sharing; index++) {
      if (rooms[index] > 0 && has(takers[index].current, place)) give(index, place);
    }
  }
  let at = 0;
  const fill = (place: Place, count: number): void => {
    for (let tried = 0; tried < takers.length && place.count < count; tried++, at = (at + 1) % takers.length) {
      const own = assignment.get(takers[at].id);
      if (rooms[at] > 0 && own !== undefined && !has(own, place)) give(at, place);
    }
  };
  // There is room for it: the places of an empty partition are nobody's.
  for (const place of places) fill(place, 1);
  for (const place of places) fill(place, sharing);
}

function has(partitions: Partitions, { topicId, partition }: Place): boolean {
  return partitions.get(topicId)?.has(partition) ?? false;
}

function isSameSet(a: ReadonlySet<string>, b: ReadonlySet<string>): boolean {
  if (a.size !== b.size) return false;
  for (const item of a) if (!b.has(item)) return false;
  return true;
}
