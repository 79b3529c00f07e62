/**
 * All groups as the log knows them: which there are, of which protocol, what they have committed; and the log that keeps
 * it (`__consumer_offsets`, in Kafka's own records). Everything that outlives a restart changes in `#apply`.
 */
import { MillraceError } from '../protocol/errors.ts';
import type { Clock, Random } from '../storage/clock.ts';
import { randomUuid } from '../storage/clock.ts';
import type { Options } from './config.ts';
import { classicValue, upgradeEvents } from './consumer-classic.ts';
import { ConsumerGroup } from './consumer-group.ts';
import type { Engine } from './engine.ts';
import { Group } from './group.ts';
import type { Member } from './group-member.ts';
import type { GroupOffsets } from './group-offsets.ts';
import { decodeGroupEvent, encodeGroupEvent, type GroupEvent, groupEventBytes } from './group-records.ts';
import { ShareGroup, type ShareGroupHost } from './share-group.ts';
import { isShareGroupEvent, type ShareGroupEvent } from './share-group-records.ts';
import { StateLog } from './state-log.ts';
import { findTopics, type TopicCatalog } from './subscriptions.ts';
import type { TopicRegistry } from './topics.ts';

export const GROUPS_TOPIC = '__consumer_offsets';

/** Kept whole and rewritten by its owner; the rest is as for any topic. */
const GROUPS_TOPIC_CONFIGS = new Map([
  ['cleanup.policy', 'compact'],
  ['retention.ms', '-1'],
  ['retention.bytes', '-1'],
  ['segment.bytes', String(64 * 1024 * 1024)],
  ['segment.ms', '9007199254740991'],
  ['file.delete.delay.ms', '0'],
]);

/** Events of one commit are split at this size: one commit is one journal record, which is bounded. */
const COMMIT_BYTES = 1024 * 1024;
const COMMIT_EVENTS = 1000;

export interface GroupParts {
  engine: Engine;
  clock: Clock;
  random: Random;
  options: Options;
  topics: Pick<TopicRegistry, 'get' | 'ensureInternal' | 'version' | 'all' | 'groupConfigs'>;
  /** A share group is gone (DeleteGroups): so is what queues keep of it. */
  onShareGroupDeleted?: (groupId: string) => void;
}

/** A group of any protocol. */
export type AnyGroup = Group | ConsumerGroup | ShareGroup;

export class GroupStore {
  readonly #clock: Clock;
  readonly #random: Random;
  readonly #options: Options;
  readonly #log: StateLog<GroupEvent>;
  readonly #commitBytesMax: number;
  readonly #groups = new Map<string, AnyGroup>();
  readonly #catalog: TopicCatalog;
  readonly #configs: GroupParts['topics']['groupConfigs'];
  #offsetCount = 0;
  #isLoaded = false;

  constructor({ engine, clock, random, options, topics }: GroupParts) {
    this.#clock = clock;
    this.#random = random;
    this.#options = options;
    this.#catalog = catalogOf(topics);
    this.#configs = topics.groupConfigs;
    // Half of it: what events take is only estimated.
    this.#commitBytesMax = options['journal.entry.bytes'] / 2;
    const { partitions } = topics.ensureInternal(GROUPS_TOPIC, 1, GROUPS_TOPIC_CONFIGS);
    this.#log = new StateLog(
      engine,
      partitions[0],
      {
        encode: encodeGroupEvent,
        decode: decodeGroupEvent,
        apply: (event) => this.#apply(event),
        live: () => this.#live(),
      },
      clock,
      this.#commitBytesMax,
    );
  }

  /** Reads the log. Once, before anything else. */
  async load(): Promise<void> {
    await this.#log.load();
    this.#isLoaded = true;
  }

  /** Calls back when everything that has been committed so far is durable. */
  whenDurable(callback: () => void): void {
    this.#log.whenDurable(callback);
  }

  get size(): number {
    return this.#groups.size;
  }
  /** Committed offsets of all groups. */
  get offsetCount(): number {
    return this.#offsetCount;
  }
  get(groupId: string): AnyGroup | undefined {
    return this.#groups.get(groupId);
  }
  all(): IterableIterator<AnyGroup> {
    return this.#groups.values();
  }
  classic(groupId: string): Group | undefined {
    const group = this.#groups.get(groupId);
    return group?.type === 'classic' ? group : undefined;
  }

  /** Throws INVALID_REGULAR_EXPRESSION for one that cannot be subscribed to. */
  checkRegex(regex: string): void {
    findTopics(regex, this.#catalog);
  }

  /** Forgets the group; what the log says of it is ended by events. */
  delete(group: AnyGroup): void {
    this.#groups.delete(group.id);
  }

  /** An empty group goes over to the other protocol; its offsets stay. */
  convert(group: Group | ConsumerGroup, type: 'classic' | 'consumer'): void {
    this.commit(endEvents(group), 'waited');
    this.#put(type, group.id, group.offsets);
  }

  /** Commits the events in their order and applies them; many of them in several commits. */
  commit(events: readonly GroupEvent[], urgency: 'waited' | 'lazy'): void {
    const bytesMax = Math.min(COMMIT_BYTES, this.#commitBytesMax);
    let part: GroupEvent[] = [];
    let partBytes = 0;
    for (const event of events) {
      const eventBytes = groupEventBytes(event);
      if (part.length === COMMIT_EVENTS || (part.length > 0 && partBytes + eventBytes > bytesMax)) {
        this.#log.commit(part, { urgency });
        part = [];
        partBytes = 0;
      }
      part.push(event);
      partBytes += eventBytes;
    }
    if (part.length > 0) this.#log.commit(part, { urgency });
  }

  #apply(event: GroupEvent): void {
    switch (event.kind) {
      case 'offset':
        return this.#countOffsets(this.#groupForOffsets(event.group), ({ offsets }) =>
          offsets.set(event.topic, event.partition, event.committed),
        );
      case 'offset gone': {
        const group = this.#groups.get(event.group);
        if (group === undefined) return;
        this.#countOffsets(group, ({ offsets }) => offsets.delete(event.topic, event.partition));
        if (!this.#isLoaded && group.isBlank) this.#groups.delete(group.id);
        return;
      }
      case 'group': {
        const group = this.classicFor(event.group);
        // While running the group itself has decided this and knows more than the record says.
        if (this.#isLoaded) group.stored = event.value;
        else group.load(event.value);
        return;
      }
      case 'group gone': {
        const group = this.classic(event.group);
        if (group === undefined) return;
        group.stored = undefined;
        if (!this.#isLoaded) this.#forgetMembers(group);
        return;
      }
      default: {
        if (isShareGroupEvent(event)) return this.#applyShare(event);
        const group = event.value === null ? this.#groups.get(event.group) : this.consumerFor(event.group);
        if (group?.type !== 'consumer') return;
        group.apply(event);
        if (!this.#isLoaded && event.kind === 'consumer group' && event.value === null) this.#forgetMembers(group);
        return;
      }
    }
  }

  #applyShare(event: ShareGroupEvent): void {
    const group = event.value === null ? this.#groups.get(event.group) : this.shareFor(event.group);
    if (group?.type !== 'share') return;
    group.apply(event);
    if (!this.#isLoaded && event.kind === 'share group' && event.value === null) this.#groups.delete(group.id);
  }

  /** A group's record is gone, its offsets may follow: what is left is as if only offsets had been committed. */
  #forgetMembers(group: AnyGroup): void {
    this.#groups.delete(group.id);
    if (group.offsets.count > 0) this.#put('classic', group.id, group.offsets);
  }

  #countOffsets(group: AnyGroup, change: (group: AnyGroup) => void): void {
    const before = group.offsets.count;
    change(group);
    this.#offsetCount += group.offsets.count - before;
  }

  *#live(): Iterable<GroupEvent> {
    for (const group of this.#groups.values()) {
      if (group.type !== 'classic') yield* group.live();
      else if (group.stored !== undefined) yield { kind: 'group', group: group.id, value: group.stored };
      for (const [topic, partitions] of group.offsets.topics()) {
        for (const [partition, committed] of partitions) {
          yield { kind: 'offset', group: group.id, topic, partition, committed };
        }
      }
    }
  }

  #host(): ConstructorParameters<typeof Group>[1] {
    return {
      log: {
        commit: (events) => this.commit(events, 'waited'),
        whenDurable: (callback) => this.#log.whenDurable(callback),
      },
      options: this.#options,
      // A client id of any length must leave room in a string of the protocol.
      newMemberId: (prefix) => `${prefix.slice(0, 1000)}-${randomUuid(this.#random)}`,
    };
  }

  #modernHost(
    groupId: string,
  ): ConstructorParameters<typeof ConsumerGroup>[1] & ShareGroupHost & { readonly options: Options } {
    return {
      commit: (events) => this.commit(events, 'waited'),
      becomeClassic: (ending, members, generation, hasToRebalance) =>
        this.#downgrade(groupId, ending, members, generation, hasToRebalance),
      newMemberId: () => randomUuid(this.#random),
      options: this.#options,
      topics: this.#catalog,
      settings: () => this.#configs.get(groupId),
    };
  }

  /** A consumer group in which all speak the classic protocol becomes a classic one, as Kafka's does. */
  #downgrade(
    groupId: string,
    ending: () => readonly GroupEvent[],
    members: readonly Member[],
    generation: number,
    hasToRebalance: boolean,
  ): boolean {
    if (!mayMigrate(this.#options, 'downgrade') || members.length > this.#options['group.max.size']) return false;
    const now = { monotonicMs: this.#clock.monotonic(), wallMs: this.#clock.now() };
    const value = classicValue(members, generation, { wallMs: now.wallMs, hasToRebalance });
    const event: GroupEvent = { kind: 'group', group: groupId, value };
    if (groupEventBytes(event) > Math.min(this.#options['message.max.bytes'], this.#commitBytesMax)) return false;
    this.commit([...ending(), event], 'waited');
    const group = this.classicFor(groupId);
    group.load(value, members);
    group.restartSessions(now);
    return true;
  }

  /**
   * A classic group with members becomes a consumer group of the same members; whoever waited in it asks again. Throws
   * GROUP_ID_NOT_FOUND, in Kafka's words, if that may not be.
   */
  upgrade(group: Group): ConsumerGroup {
    const refused = (why: string): MillraceError =>
      new MillraceError(
        'GROUP_ID_NOT_FOUND',
        `Cannot upgrade classic group ${group.id} to consumer group because ${why}.`,
      );
    if (!mayMigrate(this.#options, 'upgrade')) throw refused('online upgrade is disabled');
    if (group.protocolType !== 'consumer') throw refused('the group does not use the consumer embedded protocol');
    if (group.members.length > this.#options['group.consumer.max.size']) {
      throw refused('the group size exceeds the consumer group maximum size');
    }
    const events = upgradeEvents(group, this.#catalog);
    if (events === undefined) throw refused('the embedded consumer protocol is malformed');
    this.commit([...endEvents(group), ...events], 'waited');
    group.release();
    return this.consumerFor(group.id);
  }

  #groupForOffsets(groupId: string): AnyGroup {
    return this.#groups.get(groupId) ?? this.#put('classic', groupId);
  }

  /** The classic group of this name, made if it is not there; what was there hands over its offsets. */
  classicFor(groupId: string): Group {
    const group = this.#groups.get(groupId);
    if (group?.type === 'classic') return group;
    this.#put('classic', groupId, group?.offsets);
    return this.classicFor(groupId);
  }

  /** As `classicFor`. */
  consumerFor(groupId: string): ConsumerGroup {
    const group = this.#groups.get(groupId);
    if (group?.type === 'consumer') return group;
    this.#put('consumer', groupId, group?.offsets);
    return this.consumerFor(groupId);
  }

  /** The share group of this name, made if there is none. */
  shareFor(groupId: string): ShareGroup {
    const known = this.#groups.get(groupId);
    if (known?.type === 'share') return known;
    const group = new ShareGroup(groupId, this.#modernHost(groupId));
    this.#groups.set(groupId, group);
    return group;
  }

  #put(type: 'classic' | 'consumer', groupId: string, offsets?: GroupOffsets): AnyGroup {
    const group =
      type === 'classic'
        ? new Group(groupId, this.#host(), offsets)
        : new ConsumerGroup(groupId, this.#modernHost(groupId), offsets);
    this.#groups.set(groupId, group);
    return group;
  }
}

/** What ends the group in the log; its offsets are ended apart. */
export function endEvents(group: AnyGroup): GroupEvent[] {
  if (group.type !== 'classic') return group.endEvents();
  return group.stored === undefined ? [] : [{ kind: 'group gone', group: group.id }];
}

/** `group.consumer.migration.policy`: whether a group with members may go over, in this direction. */
function mayMigrate(options: Options, direction: 'upgrade' | 'downgrade'): boolean {
  const policy = options['group.consumer.migration.policy'];
  return policy === 'bidirectional' || policy === direction;
}

function catalogOf(topics: GroupParts['topics']): TopicCatalog {
  return {
    get version() {
      return topics.version;
    },
    get: (name) => {
      const topic = topics.get(name);
      return topic && { id: topic.id, partitionCount: topic.partitions.length };
    },
    *names() {
      for (const { name, isInternal } of topics.all()) if (!isInternal) yield name;
    },
  };
}
