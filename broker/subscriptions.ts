/**
 * What the members of a consumer group subscribe to, by name and by regular expression, and what the broker's topics look
 * like to them. Which topics an expression finds is stored: a restart must not need the member that may see them.
 */
import { crc32c } from '../protocol/crc32c.ts';
import { MillraceError } from '../protocol/errors.ts';
import type { ConsumerGroupEvent, ResolvedRegex } from './consumer-group-records.ts';
import { isSameNames } from './consumer-member.ts';
import { compileTopicRegex } from './topic-regex.ts';

/** What an expression finds among the topics, whoever may see them. Throws INVALID_REGULAR_EXPRESSION. */
export function findTopics(regex: string, topics: TopicCatalog): string[] {
  return compileTopicRegex(regex).select(topics.names());
}

/** The topics, as far as groups care. */
export interface TopicCatalog {
  /** Changes with every topic that comes, goes or gets partitions. */
  readonly version: number;
  get(name: string): { readonly id: string; readonly partitionCount: number } | undefined;
  names(): Iterable<string>;
}

/** What a member subscribes to. */
export interface Subscriber {
  readonly topicNames: readonly string[];
  /** Null or empty: none. */
  readonly topicRegex: string | null;
}

export class Subscriptions {
  readonly #groupId: string;
  readonly #topics: TopicCatalog;
  /** Name → how many members have it. */
  readonly #nameCounts = new Map<string, number>();
  readonly #regexCounts = new Map<string, number>();
  readonly #resolved = new Map<string, ResolvedRegex>();
  /** The last that was checked. */
  #searched: { readonly regex: string; readonly version: number; readonly topics: readonly string[] } | undefined;
  /** Version of the topics that the expressions were last compared with. */
  #version = -1;

  constructor(groupId: string, topics: TopicCatalog) {
    this.#groupId = groupId;
    this.#topics = topics;
  }

  /** Whether topics came, went or grew since `resolve`. */
  get isStale(): boolean {
    return this.#version !== this.#topics.version;
  }
  get hasRegex(): boolean {
    return this.#regexCounts.size > 0;
  }
  /** Expressions with what they found. */
  get resolved(): ReadonlyMap<string, ResolvedRegex> {
    return this.#resolved;
  }
  has(topic: string): boolean {
    if (this.#nameCounts.has(topic)) return true;
    for (const { topics } of this.#resolved.values()) if (topics.includes(topic)) return true;
    return false;
  }

  add(profile: Subscriber): void {
    this.#count(profile, 1);
  }
  remove(profile: Subscriber): void {
    this.#count(profile, -1);
  }
  set(regex: string, resolved: ResolvedRegex | null): void {
    if (resolved === null) this.#resolved.delete(regex);
    else this.#resolved.set(regex, resolved);
  }

  /**
   * Whether the expression is one, and can be resolved among the topics that there are; throws
   * INVALID_REGULAR_EXPRESSION if not. What it finds is kept for `resolve`.
   */
  check(regex: string): void {
    this.#searched = { regex, version: this.#topics.version, topics: findTopics(regex, this.#topics) };
  }

  /** Looks at the topics: what expressions find now that is not what is known, and those that nobody has any more. */
  resolve(wallMs: number, canSee: (topic: string) => boolean): ConsumerGroupEvent[] {
    const events: ConsumerGroupEvent[] = [];
    const { version } = this.#topics;
    for (const regex of this.#regexCounts.keys()) {
      const known = this.#resolved.get(regex);
      if (known !== undefined && !this.isStale) continue;
      const topics = this.#search(regex, known?.topics ?? []).filter(canSee);
      if (known !== undefined && isSameNames(known.topics, topics)) continue;
      events.push(this.#event(regex, { topics, version, timeMs: wallMs }));
    }
    this.#version = version;
    return [...events, ...this.unused([])];
  }

  /** What the expression finds; what it found before if there are too many topics by now. */
  #search(regex: string, before: readonly string[]): readonly string[] {
    const searched = this.#searched;
    if (searched?.regex === regex && searched.version === this.#topics.version) return searched.topics;
    try {
      return findTopics(regex, this.#topics);
    } catch (error) {
      if (error instanceof MillraceError) return before.filter((name) => this.#topics.get(name) !== undefined);
      throw error;
    }
  }

  /** The end of expressions that nobody has when `leaving` are gone. */
  unused(leaving: readonly Subscriber[]): ConsumerGroupEvent[] {
    const events: ConsumerGroupEvent[] = [];
    for (const regex of this.#resolved.keys()) {
      const leavingCount = leaving.filter(({ topicRegex }) => topicRegex === regex).length;
      if ((this.#regexCounts.get(regex) ?? 0) <= leavingCount) events.push(this.#event(regex, null));
    }
    return events;
  }

  /** Ids of the topics that a member subscribes to. */
  idsOf({ topicNames, topicRegex }: Subscriber): Set<string> {
    const ids = new Set<string>();
    const found = topicRegex === null ? undefined : this.#resolved.get(topicRegex)?.topics;
    for (const names of [topicNames, found ?? []]) {
      for (const name of names) {
        const topic = this.#topics.get(name);
        if (topic !== undefined) ids.add(topic.id);
      }
    }
    return ids;
  }

  /** Topic id → partitions, of all that any member subscribes to. */
  partitionCounts(): Map<string, number> {
    const counts = new Map<string, number>();
    for (const name of this.#names()) {
      const topic = this.#topics.get(name);
      if (topic !== undefined) counts.set(topic.id, topic.partitionCount);
    }
    return counts;
  }

  /** A number that is another one when any of these topics came, went or got partitions; 0 if none of them exists. */
  hash(): number {
    const lines: string[] = [];
    for (const name of [...this.#names()].sort()) {
      const topic = this.#topics.get(name);
      if (topic !== undefined) lines.push(`${name} ${topic.id} ${topic.partitionCount}\n`);
    }
    if (lines.length === 0) return 0;
    const bytes = Buffer.from(lines.join(''));
    // Two checksums: 21 bits of the second keep it a safe integer.
    const sum = crc32c(bytes, 0, bytes.length);
    return sum * 2 ** 21 + (crc32c(bytes, 0, bytes.length, lines.length) >>> 11);
  }

  #names(): Set<string> {
    const names = new Set(this.#nameCounts.keys());
    for (const { topics } of this.#resolved.values()) for (const name of topics) names.add(name);
    return names;
  }

  #event(regex: string, value: ResolvedRegex | null): ConsumerGroupEvent {
    return { kind: 'consumer regex', group: this.#groupId, regex, value };
  }

  #count({ topicNames, topicRegex }: Subscriber, step: 1 | -1): void {
    for (const name of topicNames) countIn(this.#nameCounts, name, step);
    if (topicRegex) countIn(this.#regexCounts, topicRegex, step);
  }
}

function countIn(counts: Map<string, number>, key: string, step: 1 | -1): void {
  const count = (counts.get(key) ?? 0) + step;
  if (count > 0) counts.set(key, count);
  else counts.delete(key);
}
