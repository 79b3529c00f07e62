/**
 * The topics of the broker: `MetadataState` run on the metadata log, and the open partitions that follow from it.
 *
 * Always true: every partition of every topic is open; a change is in the metadata log before it is in memory, and an
 * answer that tells of it leaves when `whenDurable` says so. Deleting a topic is one atomic commit of the event and the
 * end of all its partitions, so neither can come back without the other. Doors call the methods that throw
 * `MillraceError`; its messages are Apache Kafka's where Kafka has the case.
 */
import { MillraceError } from '../protocol/errors.ts';
import { randomUuid, type Clock, type Random } from '../storage/clock.ts';
import type { Options } from './config.ts';
import { DynamicOptions } from './dynamic-options.ts';
import type { CommitPart, Engine, LogConfig, Partition, Position } from './engine.ts';
import { GroupConfigs } from './group-configs.ts';
import {
  MetadataState,
  type ConfigValues,
  type MetadataEvent,
  type OptionScope,
  type QueueDeclaration,
  type TopicState,
} from './metadata-state.ts';
import { StateLog } from './state-log.ts';
import { toLogConfig } from './topic-config.ts';
import { checkNewName } from './topic-names.ts';

/** Name of the metadata log's folder; no door shows it. */
export const METADATA_TOPIC = '__millrace_metadata';
export const METADATA_TOPIC_ID = '00000000-0000-0000-0000-000000000001';
/** Ids up to this one are the broker's own and never given to a topic. */
const RESERVED_ID_PREFIX = '00000000-0000-0000-';

export interface Topic {
  readonly name: string;
  /** UUID text; a topic created again under the same name has another one. */
  readonly id: string;
  /** Visible and readable, but only the broker writes it. */
  readonly isInternal: boolean;
  /** By index. */
  readonly partitions: readonly Partition[];
  /** The topic's own configs, canonical text by name. */
  readonly overrides: ConfigValues;
}

export interface NewTopic {
  readonly name: string;
  readonly partitionCount: number;
  /** Checked by `checkTopicConfigs`. */
  readonly overrides: ConfigValues;
}

/** Told after the change. */
export interface TopicListener {
  deleted(topic: Topic): void;
  partitionsAdded(topic: Topic): void;
}

/** What another state machine commits in the same journal record; `committed` right after it (`StateLog.part`). */
export type CommittedTogether = { part: CommitPart; committed: (position: Position) => void } | undefined;

interface OpenTopic extends Topic {
  readonly partitions: Partition[];
  overrides: ConfigValues;
}

/** Of state logs that rewrite themselves: kept whole, in segments that can go soon. */
export const stateLogConfig: LogConfig = {
  segmentBytes: 64 * 1024 * 1024,
  segmentMs: Number.MAX_SAFE_INTEGER,
  segmentIndexBytes: 1024 * 1024,
  indexIntervalBytes: 4096,
  retentionMs: -1,
  retentionBytes: -1,
  fileDeleteDelayMs: 0,
  timestampType: 'CreateTime',
  timestampBeforeMaxMs: Number.MAX_SAFE_INTEGER,
  timestampAfterMaxMs: Number.MAX_SAFE_INTEGER,
  maxMessageBytes: 2_147_483_647,
};

/**
 * A topic does not come back by itself this soon after it was deleted. Produce requests with the old topic id must have
 * had their answer before a client learns of a new id: a later batch would be the first of the new log, and the earlier
 * ones, sent again, out of order for ever.
 */
const RECREATE_AFTER_MS = 500;

export class TopicRegistry {
  readonly #engine: Engine;
  readonly #clock: Clock;
  readonly #random: Random;
  readonly #state = new MetadataState();
  readonly #log: StateLog<MetadataEvent>;
  readonly #topics = new Map<string, OpenTopic>();
  readonly #byId = new Map<string, OpenTopic>();
  /** Name → when it was deleted, the oldest first; older than `RECREATE_AFTER_MS` they go. */
  readonly #deleted = new Map<string, number>();
  readonly #listeners: TopicListener[] = [];
  /** Undefined after a topic came or went. */
  #sorted: OpenTopic[] | undefined;
  #version = 0;
  /** Where the last start move of a partition stands in the commit order. */
  readonly #starts = new WeakMap<Partition, Position>();
  /** Options with their dynamic changes; its `options` are the broker's. */
  readonly dynamicOptions: DynamicOptions;
  /** Configs of groups; here, as the metadata log keeps them. */
  readonly groupConfigs: GroupConfigs;

  constructor(parts: { engine: Engine; clock: Clock; random: Random; options: Options }) {
    this.#engine = parts.engine;
    this.#clock = parts.clock;
    this.#random = parts.random;
    this.dynamicOptions = new DynamicOptions(parts.options);
    this.groupConfigs = new GroupConfigs(parts.options);
    const partition = parts.engine.openPartition({
      topicId: METADATA_TOPIC_ID,
      topic: METADATA_TOPIC,
      index: 0,
      config: stateLogConfig,
    });
    this.#log = new StateLog(
      parts.engine,
      partition,
      this.#state,
      parts.clock,
      // The rest is for the framing of the commit.
      Math.floor(parts.options['journal.entry.bytes'] / 2),
    );
  }

  /** Reads the metadata log and opens every partition. Once, before anything else. */
  async load(): Promise<void> {
    await this.#log.load();
    for (const scope of ['cluster', 'node'] as const) this.dynamicOptions.set(scope, this.#state.dynamicOptions(scope));
    for (const [group, values] of this.#state.groupConfigs) this.groupConfigs.set(group, values);
    for (const topic of this.#state.topics()) this.#open(topic);
  }

  /** Position of the newest change. */
  get position(): Position {
    return this.#log.position;
  }
  /** Calls back when everything the registry says now is durable. */
  whenDurable(callback: () => void): void {
    this.#log.whenDurable(callback);
  }

  /** Changes with every topic that comes, goes or gets partitions. */
  get version(): number {
    return this.#version;
  }
  get size(): number {
    return this.#topics.size;
  }
  /** Over all topics. */
  get partitionCount(): number {
    return this.#state.partitionCount;
  }
  get(name: string): Topic | undefined {
    return this.#topics.get(name);
  }
  getById(id: string): Topic | undefined {
    return this.#byId.get(id);
  }
  partition(name: string, index: number): Partition | undefined {
    return this.#topics.get(name)?.partitions[index];
  }
  partitionById(id: string, index: number): Partition | undefined {
    return this.#byId.get(id)?.partitions[index];
  }
  /** Sorted by name (by UTF-16 units, as Kafka's tools). */
  all(): readonly Topic[] {
    this.#sorted ??= [...this.#topics.values()].sort((a, b) => (a.name < b.name ? -1 : 1));
    return this.#sorted;
  }
  [Symbol.iterator](): Iterator<Topic> {
    return this.all()[Symbol.iterator]();
  }

  /**
   * Whether `create` would take this name: TOPIC_ALREADY_EXISTS, or INVALID_TOPIC_EXCEPTION for a name that is not
   * allowed, reserved, or differs from another topic's only in '.' and '_'.
   */
  checkName(name: string): void {
    if (this.#topics.has(name)) throw new MillraceError('TOPIC_ALREADY_EXISTS', `Topic '${name}' already exists.`);
    checkNewName(name);
    this.#checkCollision(name);
  }
  /** Whether another topic's name differs only in '.' and '_'. */
  collides(name: string): boolean {
    return this.#state.collision(name) !== undefined;
  }
  #checkCollision(name: string): void {
    const other = this.#state.collision(name);
    if (other !== undefined)
      throw new MillraceError('INVALID_TOPIC_EXCEPTION', `Topic '${name}' collides with existing topic: ${other}`);
  }
  /** Whether there is room for a topic with, or for, this many partitions more. POLICY_VIOLATION. */
  checkRoom(newTopics: number, newPartitions: number): void {
    const { options } = this.dynamicOptions;
    if (this.#state.topicCount + newTopics > options['topics.max']) {
      throw new MillraceError(
        'POLICY_VIOLATION',
        `There are ${this.#state.topicCount} topics; topics.max allows ${options['topics.max']}.`,
      );
    }
    if (this.#state.partitionCount + newPartitions > options['partitions.max']) {
      throw new MillraceError(
        'POLICY_VIOLATION',
        `There are ${this.#state.partitionCount} partitions; partitions.max allows ${options['partitions.max']}.`,
      );
    }
  }

  /**
   * Creates a topic for a client, in one commit with what `together` makes of its id. Throws what `checkName` and
   * `checkRoom` throw.
   */
  create(topic: NewTopic, together?: (topicId: string) => CommittedTogether): Topic {
    this.checkName(topic.name);
    this.checkRoom(1, topic.partitionCount);
    return this.#create({ ...topic, isInternal: false }, undefined, together);
  }

  /** What a client's first use of an unknown topic does. Throws as `create`, UNKNOWN_TOPIC_OR_PARTITION just after it was deleted. */
  autoCreate(name: string): Topic {
    this.#forgetDeleted();
    if (this.#deleted.has(name)) throw new MillraceError('UNKNOWN_TOPIC_OR_PARTITION');
    return this.create({
      name,
      partitionCount: this.dynamicOptions.options['num.partitions'],
      overrides: new Map(),
    });
  }

  /**
   * The broker's own topic of this name, made now if it is not there yet. Clients may read it; nobody but its
   * coordinator writes, configures or deletes it.
   */
  ensureInternal(name: string, partitionCount: number, overrides: ConfigValues): Topic {
    return this.#topics.get(name) ?? this.#create({ name, partitionCount, overrides, isInternal: true });
  }

  #create(
    topic: Omit<TopicState, 'id'>,
    queue?: Omit<QueueDeclaration, 'topicId' | 'isOwned'>,
    together?: (topicId: string) => CommittedTogether,
  ): Topic {
    const id = this.#newId();
    const event = { kind: 'topicCreated' as const, ...topic, id };
    const events: MetadataEvent[] = [event];
    if (queue !== undefined) events.push({ kind: 'queueDeclared', ...queue, isOwned: true, topicId: id });
    const other = together?.(id);
    const position = this.#record(events, topic.isTransient === true, other ? [other.part] : []);
    other?.committed(position);
    return this.#open(event);
  }

  /** Declared queues by name; `QueueRegistry` runs them. */
  get queues(): ReadonlyMap<string, QueueDeclaration> {
    return this.#state.queues;
  }

  /** Declares a queue over a topic that exists, or replaces all that is declared of it. */
  declareQueue(queue: QueueDeclaration, together?: CommittedTogether): void {
    this.#commitTogether({ kind: 'queueDeclared', ...queue }, queue.topicId, together);
  }

  /**
   * Makes a topic and declares the queue that owns it, in one commit, with what `together` makes of the topic's id. Throws
   * as `create`.
   */
  createQueue(
    topic: NewTopic,
    queue: Omit<QueueDeclaration, 'topicId' | 'isOwned'>,
    together?: (topicId: string) => CommittedTogether,
  ): Topic {
    this.checkName(topic.name);
    this.checkRoom(1, topic.partitionCount);
    // In memory only, as what its queue holds.
    const isTransient = queue.settings.get('transient') === 'true';
    const created = { ...topic, isInternal: false };
    return this.#create(isTransient ? { ...created, isTransient } : created, queue, together);
  }

  /** Ends a declared queue; its topic stays. */
  deleteQueue(name: string, together?: CommittedTogether): void {
    this.#commitTogether({ kind: 'queueDeleted', name }, this.#state.queues.get(name)?.topicId ?? '', together);
  }

  #commitTogether(event: MetadataEvent, topicId: string, together: CommittedTogether): void {
    const position = this.#record([event], this.#isTransient(topicId), together ? [together.part] : []);
    together?.committed(position);
  }

  #isTransient(topicId: string): boolean {
    return this.#state.byId(topicId)?.isTransient === true;
  }

  /** What concerns a transient topic is applied without the log. */
  #record(events: readonly MetadataEvent[], isTransient: boolean, others: readonly CommitPart[] = []): Position {
    if (!isTransient) return this.#log.commit(events, { others });
    const position = others.length > 0 ? this.#engine.commit(others, 'lazy').position : this.position;
    for (const event of events) this.#state.apply(event);
    return position;
  }

  /** Calls back after topics were deleted or got partitions. */
  watch(listener: TopicListener): void {
    this.#listeners.push(listener);
  }

  /** Deletes topics' records, configs and name. One commit each, so a crash leaves a topic whole or gone. */
  delete(topic: Topic): void {
    const others: CommitPart[] = topic.partitions.map((partition) => ({ kind: 'delete', partition }));
    this.#record([{ kind: 'topicDeleted', id: topic.id }], this.#isTransient(topic.id), others);
    this.#topics.delete(topic.name);
    this.#byId.delete(topic.id);
    this.#sorted = undefined;
    this.#forgetDeleted();
    this.#deleted.delete(topic.name);
    this.#deleted.set(topic.name, this.#clock.monotonic());
    this.#version++;
    for (const listener of this.#listeners) listener.deleted(topic);
  }

  #forgetDeleted(): void {
    const before = this.#clock.monotonic() - RECREATE_AFTER_MS;
    for (const [name, deletedMs] of this.#deleted) {
      if (deletedMs > before) return;
      this.#deleted.delete(name);
    }
  }

  /** Raises the number of partitions to `partitionCount`. POLICY_VIOLATION when there is no room. */
  addPartitions(topic: Topic, partitionCount: number): void {
    const open = this.#opened(topic);
    this.checkRoom(0, partitionCount - open.partitions.length);
    this.#record([{ kind: 'partitionsAdded', id: open.id, partitionCount }], this.#isTransient(open.id));
    this.#openPartitions(open, partitionCount);
    for (const listener of this.#listeners) listener.partitionsAdded(open);
  }

  /** Replaces the topic's own configs (checked by `checkTopicConfigs`); its partitions obey at once. */
  configure(topic: Topic, overrides: ConfigValues): void {
    const open = this.#opened(topic);
    this.#record([{ kind: 'topicConfigured', id: open.id, overrides }], this.#isTransient(open.id));
    open.overrides = overrides;
    this.#applyConfig(open);
  }

  /** Replaces everything that is dynamic in a scope (checked by `parseOption`); all topics obey at once. */
  configureOptions(scope: OptionScope, values: ConfigValues): void {
    this.#log.commit([{ kind: 'optionsChanged', scope, values }]);
    this.dynamicOptions.set(scope, values);
    for (const topic of this.#topics.values()) this.#applyConfig(topic);
    this.groupConfigs.optionsChanged();
  }

  /**
   * Replaces the configs that a group has of its own (checked by `checkGroupConfigs`). POLICY_VIOLATION when as many
   * groups have some as there may be groups.
   */
  configureGroup(group: string, values: ConfigValues): void {
    const isNew = values.size > 0 && this.groupConfigs.valuesOf(group).size === 0;
    if (isNew && this.groupConfigs.size >= this.dynamicOptions.options['groups.max'])
      throw new MillraceError('POLICY_VIOLATION', 'As many groups have configs as there may be groups.');
    this.#log.commit([{ kind: 'groupConfigured', group, values }]);
    this.groupConfigs.set(group, values);
  }

  /**
   * Moves the start of a partition up to `offset` (no effect if it is there already) and answers the position at which
   * the start that readers see now is durable.
   */
  trim(partition: Partition, offset: number): Position {
    if (offset > partition.startOffset) {
      const { position } = this.#engine.commit([{ kind: 'start', partition, offset }], 'waited');
      this.#starts.set(partition, position);
    }
    return this.#starts.get(partition) ?? 0;
  }

  #applyConfig(topic: OpenTopic): void {
    const config = toLogConfig(topic.overrides, this.dynamicOptions.options, topic.isInternal);
    for (const partition of topic.partitions) partition.config = config;
  }

  #opened(topic: Topic): OpenTopic {
    const open = this.#byId.get(topic.id);
    if (open === undefined)
      throw new MillraceError('UNKNOWN_TOPIC_OR_PARTITION', `The topic '${topic.name}' does not exist.`);
    return open;
  }

  #open(state: TopicState): OpenTopic {
    const { name, id, isInternal, overrides } = state;
    const topic: OpenTopic = { name, id, isInternal, overrides, partitions: [] };
    this.#openPartitions(topic, state.partitionCount);
    this.#topics.set(name, topic);
    this.#byId.set(id, topic);
    this.#sorted = undefined;
    return topic;
  }

  #openPartitions(topic: OpenTopic, partitionCount: number): void {
    const config = toLogConfig(topic.overrides, this.dynamicOptions.options, topic.isInternal);
    const isTransient = this.#isTransient(topic.id);
    for (let index = topic.partitions.length; index < partitionCount; index++) {
      const spec = { topicId: topic.id, topic: topic.name, index, config };
      topic.partitions.push(isTransient ? this.#engine.openTransient(spec) : this.#engine.openPartition(spec));
    }
    this.#version++;
  }

  #newId(): string {
    for (;;) {
      const id = randomUuid(this.#random);
      // Kafka shows ids in base64url and avoids those whose first sign is '-': they look like a flag to its tools.
      const looksLikeFlag = Number.parseInt(id.slice(0, 2), 16) >> 2 === 62;
      if (!looksLikeFlag && !id.startsWith(RESERVED_ID_PREFIX) && !this.#byId.has(id)) return id;
    }
  }
}
