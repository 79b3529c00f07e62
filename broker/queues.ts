/**
 * The queues of the broker: declared ones and plain share groups, their durable state, and who is served
 * (docs/queues.md). All doors stand on this: they declare, join consumers, settle; nothing here knows a protocol.
 *
 * Always true: a decision is in memory at once, and in the state log at the end of the turn or, if nobody waits for it,
 * soon after, one commit for everything decided; an answer that leans on any of it leaves from `whenDurable`, messages
 * from `whenLeased`. Declarations are in the metadata log.
 * Errors are `MillraceError`: QUEUE_NOT_FOUND, QUEUE_DIFFERS, QUEUE_IN_USE, INVALID_CONFIG, INVALID_RECORD_STATE and
 * those of topics.
 */
import { MillraceError } from '../protocol/errors.ts';
import { batchRecordCount } from '../protocol/record-batch.ts';
import type { Clock } from '../storage/clock.ts';
import type { AttributeFiles } from './attribute-files.ts';
import type { Options } from './config.ts';
import { DeadLetters, type ExchangeRouter, type Letter } from './dead-letters.ts';
import type { CommitPart, Engine, Partition, Position } from './engine.ts';
import type { QueueDeclaration } from './metadata-state.ts';
import type { Acquisition, OwnerId, QueueKey } from './queue.ts';
import type { Consumer, ConsumerOptions } from './queue-consumer.ts';
import { QueueDedup } from './queue-dedup.ts';
import { Queue, type QueueHost, type QueueValues } from './queue-handle.ts';
import { limitHistory } from './queue-history.ts';
import type { QueueIntake } from './queue-intake.ts';
import { type LogEntry, type LoggedState, QueueLog, WINDOW } from './queue-log.ts';
import { QueuePartition } from './queue-partition.ts';
import type { QueueReader } from './queue-reader.ts';
import { QueueServing } from './queue-serving.ts';
import {
  checkQueueSettings,
  groupSettings,
  ownedTopicConfigs,
  type QueueFamily,
  queueSettings,
  type SettingValues,
  settingsOfGroupConfigs,
  stateSettings,
} from './queue-settings.ts';
import { QueueState } from './queue-state.ts';
import { QueueStragglers } from './queue-stragglers.ts';
import { QueueTopics } from './queue-topics.ts';
import { checkTopicConfigs } from './topic-config.ts';
import { checkNewName } from './topic-names.ts';
import type { CommittedTogether, Topic, TopicRegistry } from './topics.ts';

export { Queue } from './queue-handle.ts';
export type { QueuePartition } from './queue-partition.ts';

export interface DeclareQueue {
  /** Also the group id of its share members. A topic name; names starting with `__` are the broker's. */
  readonly name: string;
  /** `owned` makes the topic (one partition); `attached` goes over one that exists. */
  readonly kind: 'owned' | 'attached';
  /** Default: the name. */
  readonly topic?: string;
  /** Text by name, as `queue-settings.ts` has them. */
  readonly settings?: SettingValues;
  /** Whose words these are: a redeclaration is compared in the settings of this family only. */
  readonly family: QueueFamily;
  /** Configs of the topic that is made, over those that the settings ask for. */
  readonly topicConfigs?: SettingValues;
  /** A queue that is made (unless it begins at `latest`): what a door keeps of it, in the same commit. */
  readonly together?: (topicId: string) => CommittedTogether;
  /** Where an attached queue begins on each partition. Default: the earliest message. */
  readonly from?: 'earliest' | 'latest';
}

/** Since the start of the broker, over all queues. */
export interface QueueTotals {
  readonly delivered: number;
  readonly settled: number;
  readonly deadLettered: number;
  /** Left without a dead-letter target. */
  readonly dropped: number;
}

export interface QueueParts {
  readonly engine: Engine;
  readonly clock: Clock;
  readonly options: Options;
  readonly topics: TopicRegistry;
  readonly reader: QueueReader;
  /** Where attribute indexes are kept over a restart. Default: nowhere. */
  readonly attributeFiles?: AttributeFiles;
  /** An owned queue was deleted and its topic with it. */
  readonly topicDeleted: (topic: Topic) => void;
  /** A line for the operator. */
  readonly report: (message: string, error: unknown) => void;
}

/** Messages that leave one turn for being too many. */
const OVERFLOW_MAX = 10_000;

export class QueueRegistry {
  readonly #parts: QueueParts;
  readonly #log: QueueLog<LoggedState>;
  readonly #serving: QueueServing;
  readonly #deadLetters: DeadLetters;
  readonly #declared = new Map<string, Queue>();
  /** Plain groups: group → topic id → queue. */
  readonly #plain = new Map<string, Map<string, Queue>>();
  /** Topics as streams, by topic id. */
  readonly #streams = new Map<string, Queue>();
  readonly #topics: QueueTopics;
  /** States that are made in a while: their offset depends on a time. */
  readonly #opening = new Set<string>();
  readonly #stragglers: QueueStragglers;
  readonly #host: QueueHost;
  #isClosed = false;
  #settled = 0;

  constructor(parts: QueueParts) {
    this.#parts = parts;
    const { engine, clock, options, topics } = parts;
    this.#log = new QueueLog({
      engine,
      clock,
      entryBytes: options['journal.entry.bytes'],
      open: (key, startOffset) => this.#restore(key, startOffset),
    });
    this.#serving = new QueueServing({
      engine,
      clock,
      log: this.#log,
      areLeasesSynced: options['queue.leases'] === 'synced',
      commitLingerMs: options['queue.commit.linger.ms'],
      metadataPosition: () => topics.position,
      changed: (partition) => this.#changed(partition),
      failed: (error) => {
        if (!this.#isClosed) parts.report('queues have stopped', error);
      },
    });
    this.#topics = new QueueTopics({
      clock,
      options,
      log: this.#log,
      serving: this.#serving,
      files: parts.attributeFiles,
      report: parts.report,
    });
    this.#deadLetters = new DeadLetters({
      engine,
      clock,
      reader: parts.reader,
      entryBytes: options['journal.entry.bytes'],
      targetOf: (name) => this.#declared.get(name)?.topic ?? topics.get(name),
      isLive: ({ topicId }) => topics.getById(topicId) !== undefined,
      commitTogether: (others, change) => this.#serving.commitTogether(others, change),
      changed: (partition) => this.#serving.change(partition),
      appending: (appends) => this.#topics.appending(appends),
      report: parts.report,
    });
    this.#stragglers = new QueueStragglers({
      engine,
      clock,
      whenDurable: (callback) => this.#serving.whenDurable(callback),
    });
    this.#host = {
      clock,
      serving: this.#serving,
      ensure: (queue, index) => this.#ensure(queue, index),
      reach: (partition, offset) => this.#topics.reach(partition, offset),
      rebase: (partition, offset) => this.#topics.rebase(partition, offset),
      expired: (queue) => this.delete(queue),
      timeOf: async ({ log }, offset) => {
        const { records } = await parts.reader.records(log, [{ firstOffset: offset, lastOffset: offset }]);
        return records[0]?.timestamp;
      },
      settled: (messages) => {
        this.#settled += messages;
      },
    };
  }

  /** Brings back declarations and states. Once, after the topics are loaded. */
  async load(): Promise<void> {
    const { topics } = this.#parts;
    const transient: QueueDeclaration[] = [];
    for (const declaration of topics.queues.values()) {
      if (declaration.settings.get('transient') === 'true') transient.push(declaration);
      else this.#open(declaration);
    }
    // What cannot outlive a restart has not.
    for (const { name, topicId, isOwned } of transient) {
      const topic = topics.getById(topicId);
      if (isOwned && topic !== undefined) topics.delete(topic);
      else topics.deleteQueue(name);
    }
    await this.#log.load();
    this.#adoptRestored();
    this.#topics.loaded();
    topics.watch({
      deleted: (topic) => this.#topicDeleted(topic),
      partitionsAdded: (topic) => this.#partitionsAdded(topic),
    });
    topics.groupConfigs.onChange((group) => this.#groupConfigured(group));
    // A state is missing if the broker ended right after its queue was declared or its partition was added.
    for (const queue of this.#declared.values()) this.#complete(queue);
    this.#topics.begin();
  }

  close(): void {
    this.#isClosed = true;
    this.#topics.close();
    for (const entry of this.#log.entries()) {
      const { state } = entry;
      if (state instanceof QueueState && state.mark.end(state.startOffset)) this.#serving.dirty(entry);
    }
    this.#serving.close();
  }

  // --- which queues there are ---

  /** Declared queues. */
  get(name: string): Queue | undefined {
    return this.#declared.get(name);
  }
  /** Declared queues by name. */
  all(): readonly Queue[] {
    return [...this.#declared.values()].sort((a, b) => (a.name < b.name ? -1 : 1));
  }
  get size(): number {
    return this.#declared.size;
  }
  get consumerCount(): number {
    return this.#serving.consumerCount;
  }
  get totals(): QueueTotals {
    return {
      delivered: this.#serving.delivered,
      settled: this.#settled,
      deadLettered: this.#deadLetters.movedCount,
      dropped: this.#deadLetters.droppedCount,
    };
  }

  /** The queue of this group over this topic: the declared one, or the plain share group, made on first use. */
  shareQueue(group: string, topic: Topic): Queue {
    const known = this.findShareQueue(group, topic.id);
    if (known !== undefined) return known;
    const queue = new Queue(this.#host, { name: group, kind: 'plain', topic, values: this.#plainValues(group) });
    let topicsOfGroup = this.#plain.get(group);
    if (topicsOfGroup === undefined) {
      topicsOfGroup = new Map();
      this.#plain.set(group, topicsOfGroup);
    }
    topicsOfGroup.set(topic.id, queue);
    this.#topics.of(topic.id).queues.add(queue);
    return queue;
  }
  /** As `shareQueue`, if it is there; makes nothing. */
  findShareQueue(group: string, topicId: string): Queue | undefined {
    const declared = this.#declared.get(group);
    return declared?.topic.id === topicId ? declared : this.#plain.get(group)?.get(topicId);
  }
  /**
   * The topic as a stream: a queue without a book, which is only read as a log and from which nothing is taken. The same
   * object for everybody who asks; it ends with the topic.
   */
  stream(topic: Topic): Queue {
    let queue = this.#streams.get(topic.id);
    if (queue === undefined) {
      const values = this.#declaredValues(new Map(), new Map());
      queue = new Queue(this.#host, { name: topic.name, kind: 'stream', topic, values });
      this.#streams.set(topic.id, queue);
    }
    return queue;
  }
  /** Queues of this group, declared or not. */
  queuesOf(group: string): readonly Queue[] {
    const declared = this.#declared.get(group);
    const plain = this.#plain.get(group)?.values() ?? [];
    return declared === undefined ? [...plain] : [declared, ...plain];
  }

  // --- declarations ---

  /**
   * Makes the queue, or finds one that is the same in this family's settings. QUEUE_DIFFERS if it is not. Durable when
   * `whenDurable` calls back.
   */
  declare(from: DeclareQueue): Queue {
    const { name, kind, family } = from;
    const { topics, options } = this.#parts;
    const settings = checkQueueSettings(from.settings ?? new Map());
    const known = this.#declared.get(name);
    if (known !== undefined) {
      this.#compare(known, from, settings);
      known.used();
      return known;
    }
    if (this.#declared.size >= options['queues.max']) {
      throw new MillraceError(
        'POLICY_VIOLATION',
        `There are ${this.#declared.size} queues; queues.max allows no more.`,
      );
    }
    const topicName = from.topic ?? name;
    const origins = new Map([...settings.keys()].map((setting) => [setting, family as string]));
    this.#checkTargets(settings);
    checkNewName(name);
    if (kind === 'owned') {
      const configs = new Map([...ownedTopicConfigs(queueSettings(settings)), ...(from.topicConfigs ?? [])]);
      const topic = topics.createQueue(
        { name: topicName, partitionCount: 1, overrides: checkTopicConfigs(configs) },
        { name, settings, origins },
        from.together,
      );
      return this.#declareOpen({ name, isOwned: true, topicId: topic.id, settings, origins });
    }
    const topic = topics.get(topicName);
    if (topic === undefined || topic.isInternal) {
      throw new MillraceError('UNKNOWN_TOPIC_OR_PARTITION', `There is no topic '${topicName}' to attach '${name}' to.`);
    }
    const declaration: QueueDeclaration = { name, isOwned: false, topicId: topic.id, settings, origins };
    if (from.from !== 'latest') {
      topics.declareQueue(declaration, from.together?.(topic.id));
      return this.#declareOpen(declaration);
    }
    // Where it begins is decided once, so it is in the same commit.
    let together: CommittedTogether;
    const entries = topic.partitions.map(({ highWatermark }, partition) => {
      const key = { group: name, topicId: topic.id, partition };
      return { key, startOffset: highWatermark, id: this.#log.newId() };
    });
    const events = entries.map((entry) => ({ kind: 'opened' as const, ...entry }));
    if (this.findShareQueue(name, topic.id) === undefined) together = this.#log.part(events);
    topics.declareQueue(declaration, together);
    const queue = this.#open(declaration);
    if (together !== undefined) for (const entry of entries) this.#adopt(queue, entry);
    this.#complete(queue);
    return queue;
  }

  #declareOpen(declaration: QueueDeclaration): Queue {
    const queue = this.#open(declaration);
    this.#complete(queue);
    return queue;
  }

  #compare(known: Queue, { name, kind, topic, family }: DeclareQueue, settings: SettingValues): void {
    const differs = (what: string): never => {
      throw new MillraceError('QUEUE_DIFFERS', `the queue '${name}' exists with another ${what}`);
    };
    if (known.kind !== kind) differs('kind');
    if ((topic ?? name) !== known.topic.name) differs('topic');
    const asked: Readonly<Record<string, unknown>> = queueSettings(settings);
    const inForce: Readonly<Record<string, unknown>> = known.settings;
    const names = new Set(settings.keys());
    for (const [setting, origin] of known.origins) if (origin === family) names.add(setting);
    for (const setting of names) {
      const origin = known.origins.get(setting);
      // What another family has set is not this one's to compare.
      if (origin !== undefined && origin !== family) continue;
      if (asked[setting] !== inForce[setting]) differs(setting);
    }
  }

  /** A dead-letter target that is named must be there. */
  #checkTargets(settings: SettingValues): void {
    for (const name of ['dead.letter.queue', 'failed.dead.letter.queue', 'receive.dead.letter.queue']) {
      const target = settings.get(name);
      if (target === undefined || target === '') continue;
      const topic = this.#declared.get(target)?.topic ?? this.#parts.topics.get(target);
      if (topic === undefined || topic.isInternal) {
        throw new MillraceError('INVALID_CONFIG', `${name}: there is no queue or topic '${target}'`);
      }
    }
  }

  /** Replaces settings of a declared queue; a value of undefined goes back to the default. INVALID_CONFIG. */
  configure(queue: Queue, changes: ReadonlyMap<string, string | undefined>, family: QueueFamily): void {
    const { topics } = this.#parts;
    const before = topics.queues.get(queue.name);
    if (before === undefined || queue.isDeleted) {
      throw new MillraceError('QUEUE_NOT_FOUND', `the queue '${queue.name}' does not exist`);
    }
    const values = new Map(before.settings);
    const origins = new Map(before.origins);
    for (const [name, value] of changes) {
      if (value === undefined) {
        values.delete(name);
        origins.delete(name);
      } else {
        values.set(name, value);
        origins.set(name, family);
      }
    }
    const settings = checkQueueSettings(values);
    const after = queueSettings(settings);
    for (const name of ['ordered', 'fair', 'transient'] as const) {
      if (after[name] !== queue.settings[name]) {
        throw new MillraceError('INVALID_CONFIG', `${name} of queue '${queue.name}' cannot be changed`);
      }
    }
    this.#checkTargets(settings);
    topics.declareQueue({ ...before, settings, origins });
    this.#apply(queue, this.#declaredValues(settings, origins));
    if (before.isOwned) this.#retain(queue);
    this.#topics.declared(queue);
  }

  /** The history of an owned queue is that of its topic. */
  #retain({ topic, settings }: Queue): void {
    const { topics } = this.#parts;
    const wanted = ownedTopicConfigs(settings);
    const overrides = new Map(topic.overrides);
    let isSame = true;
    for (const name of ['retention.ms', 'retention.bytes']) {
      const value = wanted.get(name) ?? '';
      if (overrides.get(name) === value) continue;
      overrides.set(name, value);
      isSame = false;
    }
    if (!isSame) topics.configure(topic, overrides);
  }

  #apply(queue: Queue, values: QueueValues): void {
    queue.configure(values);
    const nowMs = this.#parts.clock.now();
    for (const partition of queue.partitions()) {
      partition.state.configure(this.#stateSettings(values), nowMs);
      partition.demand.isSingleActive = values.settings['single.active.consumer'];
      this.#serving.change(partition);
    }
  }

  #groupConfigured(group: string | undefined): void {
    const groups = group === undefined ? [...this.#plain.keys()] : [group];
    for (const name of groups) {
      for (const queue of this.#plain.get(name)?.values() ?? []) this.#apply(queue, this.#plainValues(name));
    }
    const declared = group === undefined ? undefined : this.#declared.get(group);
    if (group === undefined || declared === undefined) return;
    const changes = new Map<string, string | undefined>();
    for (const [name, origin] of declared.origins) if (origin === 'kafka') changes.set(name, undefined);
    for (const [name, value] of settingsOfGroupConfigs(this.#parts.topics.groupConfigs.valuesOf(group))) {
      changes.set(name, value);
    }
    if (changes.size > 0) this.configure(declared, changes, 'kafka');
  }

  #plainValues(group: string): QueueValues {
    const configs = this.#parts.topics.groupConfigs.get(group);
    return {
      settings: groupSettings(configs),
      origins: new Map(),
      locksMax: configs.sharePartitionMaxRecordLocks,
      reset: configs.shareAutoOffsetReset,
      copiesDeadLetters: configs.copiesDeadLetters,
    };
  }

  #declaredValues(settings: SettingValues, origins: ReadonlyMap<string, string>): QueueValues {
    return {
      settings: queueSettings(settings),
      // Only `QueueFamily` is ever written there.
      origins: origins as ReadonlyMap<string, QueueFamily>,
      locksMax: Number.POSITIVE_INFINITY,
      reset: 'earliest',
      copiesDeadLetters: true,
    };
  }

  #stateSettings({ settings }: { settings: QueueValues['settings'] }) {
    return stateSettings(settings, this.#parts.options);
  }

  /** Ends a declared queue (an owned one, and a stream, with its topic), or forgets the state of a plain group over a topic. */
  delete(queue: Queue): void {
    if (queue.isDeleted) return;
    const { topics, topicDeleted } = this.#parts;
    if (queue.kind === 'owned' || queue.kind === 'stream') {
      const { topic } = queue;
      topics.delete(topic);
      topicDeleted(topic);
      return;
    }
    const events = this.#entriesOf(queue).map(({ id }) => ({ kind: 'dropped' as const, id }));
    if (queue.kind === 'plain') for (const event of events) this.#serving.event(event);
    else topics.deleteQueue(queue.name, events.length > 0 ? this.#log.part(events) : undefined);
    this.#end(queue);
  }

  /** A share group was deleted: so is what was kept of it. Declared queues stay. */
  groupDeleted(group: string): void {
    for (const queue of [...(this.#plain.get(group)?.values() ?? [])]) this.delete(queue);
  }

  #entriesOf(queue: Queue): LogEntry<LoggedState>[] {
    const entries: LogEntry<LoggedState>[] = queue.partitions().map(({ entry }) => entry);
    const window = this.#topics.find(queue.topic.id)?.windows.get(queue.name)?.entry;
    if (window !== undefined) entries.push(window);
    return entries;
  }

  /** What the log says of it has ended or ends with its topic. */
  #end(queue: Queue): void {
    for (const entry of this.#entriesOf(queue)) {
      this.#log.remove(entry);
      this.#serving.forgetEntry(entry);
    }
    for (const partition of queue.partitions()) this.#serving.forget(partition);
    if (queue.kind === 'plain') {
      const topicsOfGroup = this.#plain.get(queue.name);
      topicsOfGroup?.delete(queue.topic.id);
      if (topicsOfGroup?.size === 0) this.#plain.delete(queue.name);
    } else this.#declared.delete(queue.name);
    queue.end();
    this.#topics.remove(queue);
  }

  #topicDeleted(topic: Topic): void {
    const queues = [...(this.#topics.find(topic.id)?.queues ?? [])];
    const entries = queues.flatMap((queue) => this.#entriesOf(queue));
    const ids = entries.filter((entry) => this.#log.has(entry)).map(({ id }) => id);
    for (const queue of queues) this.#end(queue);
    this.#streams.get(topic.id)?.end();
    this.#streams.delete(topic.id);
    for (const partition of topic.partitions) this.#parts.reader.forget(partition);
    for (const id of ids) this.#serving.event({ kind: 'dropped', id });
  }

  #partitionsAdded(topic: Topic): void {
    for (const queue of this.#topics.find(topic.id)?.queues ?? []) {
      if (queue.kind !== 'plain') this.#complete(queue);
      else {
        for (const consumer of queue.joined) consumer.partitionsAdded(queue);
      }
    }
  }

  // --- states ---

  /** The queue of a declaration; a plain queue of the same group and topic goes over to it with its states. */
  #open({ name, isOwned, topicId, settings, origins }: QueueDeclaration): Queue {
    const topic = this.#parts.topics.getById(topicId);
    if (topic === undefined) throw new Error(`queue '${name}' is declared over a topic that is not there`);
    const values = this.#declaredValues(settings, origins);
    const plain = this.#plain.get(name)?.get(topicId);
    const queue = new Queue(this.#host, { name, kind: isOwned ? 'owned' : 'attached', topic, values });
    this.#declared.set(name, queue);
    this.#topics.of(topicId).queues.add(queue);
    if (plain !== undefined) this.#takeOver(plain, queue);
    this.#topics.declared(queue);
    return queue;
  }

  #takeOver(plain: Queue, queue: Queue): void {
    const entries = plain.partitions().map(({ entry }) => entry);
    for (const entry of entries) this.#log.remove(entry);
    this.#end(plain);
    for (const { id, key, startOffset, state } of entries) {
      // A state of the log that is a partition's is a `QueueState`.
      (state as QueueState).configure(this.#stateSettings(queue), this.#parts.clock.now());
      this.#adopt(queue, { id, key, startOffset }, state as QueueState);
    }
  }

  /** States for all partitions of a declared queue that have none. */
  #complete(queue: Queue): void {
    for (const index of queue.topic.partitions.keys()) this.#ensure(queue, index);
  }

  #ensure(queue: Queue, index: number): QueuePartition | undefined {
    const known = queue.partition(index);
    const log = queue.topic.partitions[index];
    if (known !== undefined || log === undefined || queue.isDeleted || queue.kind === 'stream') return known;
    const { reset } = queue;
    if (queue.kind === 'owned') return this.#make(queue, index, 0);
    if (reset === 'earliest') return this.#make(queue, index, log.startOffset);
    if (reset === 'latest') return this.#make(queue, index, log.highWatermark);
    const id = `${index} ${queue.topic.id} ${queue.name}`;
    if (this.#opening.has(id)) return undefined;
    this.#opening.add(id);
    log.offsetForTime(this.#parts.clock.now() - reset.beforeMs).then(
      (found) => {
        this.#opening.delete(id);
        if (!this.#isClosed && !queue.isDeleted && queue.partition(index) === undefined) {
          this.#make(queue, index, found?.offset ?? log.highWatermark);
        }
      },
      (error: unknown) => {
        this.#opening.delete(id);
        this.#parts.report(`queue '${queue.name}' cannot begin on ${log.topic}-${index}`, error);
      },
    );
    return undefined;
  }

  /** A new state. */
  #make(queue: Queue, index: number, startOffset: number): QueuePartition {
    const key = { group: queue.name, topicId: queue.topic.id, partition: index };
    const id = this.#log.newId();
    const partition = this.#adopt(queue, { id, key, startOffset });
    if (!queue.isInMemory) this.#serving.event({ kind: 'opened', id, key, startOffset });
    return partition;
  }

  /** While loading: the state that the log is about to fill. */
  #restore(key: QueueKey, startOffset: number): LoggedState | undefined {
    const topic = this.#parts.topics.getById(key.topicId);
    const declared = this.#declared.get(key.group);
    if (topic === undefined) return undefined;
    if (key.partition === WINDOW) return this.#topics.find(key.topicId)?.windows.get(key.group);
    const log = topic.partitions[key.partition];
    if (log === undefined) return undefined;
    const settings = declared?.topic === topic ? declared : this.#plainValues(key.group);
    const { attributes } = this.#topics.firstLane(log);
    return new QueueState({ startOffset, settings: this.#stateSettings(settings), attributes });
  }

  /** After loading: what the log has filled becomes partitions of queues. */
  #adoptRestored(): void {
    for (const entry of this.#log.entries()) {
      const { key, state } = entry;
      const topic = this.#parts.topics.getById(key.topicId);
      if (topic === undefined) throw new Error(`a state of topic ${key.topicId}, which is not there`);
      if (state instanceof QueueDedup) {
        state.entry = entry;
        for (const log of topic.partitions) {
          // With `log.flush: written` a power cut may have taken what the window has kept.
          state.window.forgetFrom(log.index, log.endOffset);
          const covered = state.window.coveredOffset(log.index);
          for (const lane of this.#topics.lanesOf(log)) {
            lane.reach(covered);
            lane.needIds(covered);
          }
        }
        continue;
      }
      const log = topic.partitions[key.partition];
      const lane = this.#topics.firstLane(log);
      // Everything else that `#restore` makes is a `QueueState`.
      const restored = entry as LogEntry<QueueState>;
      restored.state.mark.doubtBelow(log.endOffset);
      lane.reach(restored.state.startOffset);
      const queue = this.shareQueue(key.group, topic);
      queue.add(this.#attach(queue, key.partition, { log, lane, entry: restored }));
    }
  }

  /** The state, new if none is given, becomes a partition of the queue and has its place in the log. */
  #adopt(
    queue: Queue,
    { id, key, startOffset }: { id: number; key: QueueKey; startOffset: number },
    from?: QueueState,
  ): QueuePartition {
    const log = queue.topic.partitions[key.partition];
    const lane = this.#topics.laneFor(queue, log, startOffset);
    const settings = this.#stateSettings(queue);
    const state = from ?? new QueueState({ startOffset, settings, attributes: lane.attributes });
    from?.useAttributes(lane.attributes);
    const entry: LogEntry<QueueState> = { id, key, startOffset, state };
    if (!queue.isInMemory) this.#log.add(entry);
    const partition = this.#attach(queue, key.partition, { log, lane, entry });
    const nowMs = this.#parts.clock.now();
    if (lane.indexedEnd > state.endOffset) state.extend(lane.indexedEnd, nowMs, nowMs);
    queue.add(partition);
    this.#serving.change(partition);
    this.#topics.follow(lane);
    return partition;
  }

  #attach(queue: Queue, index: number, parts: ConstructorParameters<typeof QueuePartition>[2]): QueuePartition {
    const partition = new QueuePartition(queue, index, parts);
    // What is unfinished outlives the topic's retention.
    if (queue.kind === 'owned') parts.log.retentionLimit = () => partition.state.startOffset;
    return partition;
  }

  /** What appends to this topic go through; undefined: no queue is declared on it. */
  intake(topicId: string): QueueIntake | undefined {
    return this.#topics.find(topicId)?.intake;
  }
  /** Batches of the broker's own are about to be appended in this order: dead letters and other moves. */
  appending(appends: readonly { readonly partition: Partition; readonly batch: Buffer }[]): void {
    this.#topics.appending(appends);
  }

  /** Of the door that has exchanges; until then messages that go to one stay where they are. */
  useExchanges(router: ExchangeRouter): void {
    this.#deadLetters.useExchanges(router);
  }
  /** A door could not publish this message because the queue refused it (`refuse-dead-letter`). */
  refused(queue: Queue, letter: Letter): void {
    this.#deadLetters.refused(queue, letter);
  }

  // --- after every change of a state, before its commit ---

  #changed(partition: QueuePartition): void {
    const { queue, state, log } = partition;
    if (queue.isDeleted) return;
    if (log.startOffset > state.startOffset) state.trim(log.startOffset);
    this.#limitLength(partition);
    if (state.untakenLeavingCount > 0) this.#deadLetters.leaving(partition);
    this.#topics.trim(partition);
  }

  #limitLength({ queue, state, log }: QueuePartition): void {
    const { overflow, 'max.messages': messagesMax, 'max.bytes': bytesMax } = queue.settings;
    if ((messagesMax < 0 && bytesMax < 0) || overflow !== 'drop-oldest') return;
    const { ready } = state.counts;
    let allowed = messagesMax < 0 ? Number.POSITIVE_INFINITY : messagesMax;
    if (bytesMax >= 0) {
      const averageBytes = log.sizeBytes / Math.max(1, log.endOffset - log.startOffset);
      allowed = Math.min(allowed, Math.floor(bytesMax / Math.max(1, averageBytes)));
    }
    if (ready > allowed) state.dropOldest(Math.min(OVERFLOW_MAX, ready - allowed));
  }

  /** After retention has taken what it can: frees what finished messages hold beyond one that is not. Never rejects. */
  async retain(): Promise<void> {
    const { engine, options, topics } = this.#parts;
    const bytesMax = options['queue.replay.total.bytes'];
    await limitHistory(this.all(), { engine, bytesMax, trim: (log, offset) => topics.trim(log, offset) });
    for (const queue of this.all()) {
      if (queue.kind !== 'owned' || queue.isInMemory) continue;
      for (const partition of queue.partitions()) {
        if (this.#isClosed) return;
        try {
          await this.#stragglers.release(partition);
        } catch (error) {
          if (!this.#isClosed && !queue.isDeleted) this.#parts.report(`queue '${queue.name}' is not rewritten`, error);
        }
      }
    }
  }

  // --- for doors ---

  consumer(options: ConsumerOptions): Consumer {
    return this.#serving.consumer(options);
  }
  /** An owner for `Queue.acquire`. */
  newOwner(): OwnerId {
    return this.#serving.nextOwner();
  }
  /** Reads records by offset; shared by all doors. */
  get reader(): QueueReader {
    return this.#parts.reader;
  }

  /**
   * Batches of a door and what `change` does to queues as one journal record. Throws what `QueueIntake.check` says of one of
   * them, or RECORD_LIST_TOO_LARGE, before anything has happened.
   */
  publishTogether(
    appends: readonly { readonly partition: Partition; readonly batch: Buffer }[],
    change: () => void,
  ): Position {
    let sizeBytes = 0;
    const checked = appends.map(({ partition, batch }) => {
      sizeBytes += batch.length;
      const intake = this.intake(partition.topicId);
      return { intake, pending: intake?.check(partition, batch, 'door'), recordCount: batchRecordCount(batch, 0) };
    });
    // The rest is for what the queues have to say.
    const bytesMax = this.#parts.options['journal.entry.bytes'] * 0.75;
    if (sizeBytes > bytesMax) {
      throw new MillraceError('RECORD_LIST_TOO_LARGE', `${sizeBytes} bytes in one commit; ${bytesMax} are allowed`);
    }
    return this.#serving.commitTogether(
      appends.map(({ partition, batch }) => ({ kind: 'append', partition, batch })),
      () => {
        const ends = new Map<Partition, number>();
        appends.forEach(({ partition }, index) => {
          const { intake, pending, recordCount } = checked[index];
          const baseOffset = ends.get(partition) ?? partition.endOffset;
          ends.set(partition, baseOffset + recordCount);
          if (intake !== undefined && pending !== undefined) intake.begins(partition, pending, baseOffset);
        });
        change();
      },
    );
  }

  /** Commits what was decided so far now instead of at the end of the turn. */
  commit(urgency: 'waited' | 'lazy'): Position {
    return this.#serving.commit(urgency);
  }
  /** What `change` does to queues and `others` are one journal record. */
  commitTogether(others: readonly CommitPart[], change: () => void): Position {
    return this.#serving.commitTogether(others, change);
  }
  /** Calls back when everything decided so far is durable; commits it at the end of this turn at the latest. */
  whenDurable(callback: () => void): void {
    this.#serving.whenDurable(callback);
  }
  /** Calls back when what a consumer was given may leave (`queue.leases`): in this turn, or when it is durable. From within `onAcquired`. */
  whenLeased(acquisition: Acquisition, callback: () => void): void {
    this.#serving.whenLeased(acquisition, callback);
  }
}
