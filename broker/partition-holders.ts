/**
 * Which member of a consumer group holds which partition: assigned to it, or taken from it but not known to be given up.
 * Always true: a partition has at most one holder; a second one is a broken invariant.
 */
import type { HeldPartitions, MemberProgress } from './consumer-member.ts';

export class PartitionHolders {
  /** Topic id → partition → member id. */
  readonly #holders = new Map<string, Map<number, string>>();
  #count = 0;

  /** Partitions that somebody holds. */
  get count(): number {
    return this.#count;
  }

  has(topicId: string, partition: number): boolean {
    return this.#holders.get(topicId)?.has(partition) ?? false;
  }

  add(memberId: string, { assigned, revoking }: MemberProgress): void {
    for (const held of [assigned, revoking]) this.#add(memberId, held);
  }

  remove(memberId: string, { assigned, revoking }: MemberProgress): void {
    for (const held of [assigned, revoking]) this.#remove(memberId, held);
  }

  #add(memberId: string, held: HeldPartitions): void {
    for (const [topicId, partitions] of held) {
      let holders = this.#holders.get(topicId);
      if (holders === undefined) {
        holders = new Map();
        this.#holders.set(topicId, holders);
      }
      for (const partition of partitions.keys()) {
        const other = holders.get(partition);
        if (other !== undefined && other !== memberId) {
          throw new Error(`partition ${topicId}-${partition} is given to ${memberId} but ${other} holds it`);
        }
        if (other === undefined) this.#count++;
        holders.set(partition, memberId);
      }
    }
  }

  #remove(memberId: string, held: HeldPartitions): void {
    for (const [topicId, partitions] of held) {
      const holders = this.#holders.get(topicId);
      if (holders === undefined) continue;
      for (const partition of partitions.keys()) {
        if (holders.get(partition) !== memberId) continue;
        holders.delete(partition);
        this.#count--;
      }
      if (holders.size === 0) this.#holders.delete(topicId);
    }
  }
}
