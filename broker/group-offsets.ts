/** The committed offsets of one group. Plain data: which topics exist and what must be durable is decided elsewhere. */
import type { CommittedOffset } from './group-records.ts';

export interface TopicPartition {
  readonly topic: string;
  readonly partition: number;
}

export class GroupOffsets {
  readonly #topics = new Map<string, Map<number, CommittedOffset>>();
  #count = 0;

  get count(): number {
    return this.#count;
  }

  get(topic: string, partition: number): CommittedOffset | undefined {
    return this.#topics.get(topic)?.get(partition);
  }

  set(topic: string, partition: number, committed: CommittedOffset): void {
    let partitions = this.#topics.get(topic);
    if (partitions === undefined) {
      partitions = new Map();
      this.#topics.set(topic, partitions);
    }
    if (!partitions.has(partition)) this.#count++;
    partitions.set(partition, committed);
  }

  delete(topic: string, partition: number): void {
    const partitions = this.#topics.get(topic);
    if (partitions === undefined || !partitions.delete(partition)) return;
    this.#count--;
    if (partitions.size === 0) this.#topics.delete(topic);
  }

  /** Every topic with its partitions. Not to be changed meanwhile. */
  topics(): Iterable<[topic: string, partitions: ReadonlyMap<number, CommittedOffset>]> {
    return this.#topics;
  }

  partitionsOf(topic: string): ReadonlyMap<number, CommittedOffset> | undefined {
    return this.#topics.get(topic);
  }

  /** Those for which `matches` holds. */
  select(matches: (topic: string, committed: CommittedOffset) => boolean): TopicPartition[] {
    const selected: TopicPartition[] = [];
    for (const [topic, partitions] of this.#topics) {
      for (const [partition, committed] of partitions) {
        if (matches(topic, committed)) selected.push({ topic, partition });
      }
    }
    return selected;
  }
}
