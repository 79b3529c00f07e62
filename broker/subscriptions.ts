/** What the members of a consumer group subscribe to by name, counted, and what the broker's topics look like to them. */
import { crc32c } from '../protocol/crc32c.ts';

/** The topics, as far as groups care. */
export interface TopicCatalog {
  /** Changes with every topic that comes, goes or gets partitions. */
  readonly version: number;
  get(name: string): { readonly id: string; readonly partitionCount: number } | undefined;
  names(): Iterable<string>;
}

export class Subscriptions {
  /** Name → how many members have it. */
  readonly #counts = new Map<string, number>();

  has(name: string): boolean {
    return this.#counts.has(name);
  }
  names(): Iterable<string> {
    return this.#counts.keys();
  }

  add(names: readonly string[]): void {
    for (const name of names) this.#counts.set(name, (this.#counts.get(name) ?? 0) + 1);
  }
  remove(names: readonly string[]): void {
    for (const name of names) {
      const count = (this.#counts.get(name) ?? 0) - 1;
      if (count > 0) this.#counts.set(name, count);
      else this.#counts.delete(name);
    }
  }
}

/** A number that is another one when any of these topics came, went or got partitions; 0 if none of them exists. */
export function metadataHash(names: ReadonlySet<string>, topics: TopicCatalog): number {
  const lines: string[] = [];
  for (const name of [...names].sort()) {
    const topic = topics.get(name);
    if (topic !== undefined) lines.push(`${name} ${topic.id} ${topic.partitionCount}\n`);
  }
  if (lines.length === 0) return 0;
  const bytes = Buffer.from(lines.join(''));
  // Two checksums: 21 bits of the second keep it a safe integer.
  const sum = crc32c(bytes, 0, bytes.length);
  return sum * 2 ** 21 + (crc32c(bytes, 0, bytes.length, lines.length) >>> 11);
}
