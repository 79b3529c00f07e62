/**
 * The queues of the broker: declared ones and plain share groups, their durable state, and who is served
 * (docs/queues.md). All doors stand on this: they declare, join consumers, settle; nothing here knows a protocol.
 *
 * Always true: a decision is in memory at once and in the state log at the end of the turn, one commit for everything
 * decided in it; an answer that leans on any of it leaves from `whenDurable`. Declarations are in the metadata log.
 * Errors are `MillraceError`: QUEUE_NOT_FOUND, QUEUE_DIFFERS, INVALID_CONFIG, INVALID_RECORD_STATE and those of topics.
 */
import type { CommitPart, Partition, Position } from './engine.ts';
import type { AcquiredRun, OwnerId, QueueCounts, QueueKind, Settlement } from './queue.ts';
import type { Consumer, ConsumerOptions } from './queue-consumer.ts';
import type { QueueIntake } from './queue-intake.ts';
import type { QueueFamily, QueueSettings, SettingValues } from './queue-settings.ts';
import type { QueueState } from './queue-state.ts';
import type { Topic } from './topics.ts';

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
  /** Configs of the topic that is made. */
  readonly topicConfigs?: ReadonlyMap<string, string>;
}

/** One partition of a queue. */
export interface QueuePartition {
  readonly queue: Queue;
  readonly index: number;
  readonly log: Partition;
  /** For reading: `lockOf`, `epochOf` and the like. Its changes go through the queue. */
  readonly state: QueueState;
  /** False while the state is made (offset by time) or the index of attributes is read: nothing is handed out yet. */
  readonly isReady: boolean;
  /** Everything below is done. */
  readonly startOffset: number;
  /** Nothing from here on was handed out. */
  readonly nextOffset: number;
  counts(): QueueCounts;
}

export interface Queue {
  /** The group id. */
  readonly name: string;
  readonly kind: QueueKind;
  readonly topic: Topic;
  readonly settings: QueueSettings;
  /** Whose words each setting that is not at its default came in. Empty for plain groups. */
  readonly origins: ReadonlyMap<string, QueueFamily>;
  readonly isDeleted: boolean;
  /** Of partitions whose state exists; a plain group has none before somebody joins. */
  partitions(): readonly QueuePartition[];
  partition(index: number): QueuePartition | undefined;
  /** Over all partitions. */
  counts(): QueueCounts;
  /** Consumers that joined. */
  readonly consumerCount: number;
  /** When (wall clock) the oldest message that is not finished was appended; undefined if there is none. */
  oldestMs(): Promise<number | undefined>;
  /**
   * All or nothing. `any`: whoever holds it (a handle was checked instead). INVALID_RECORD_STATE if something is not held.
   * Durable with the next commit; who waits for it asks `QueueRegistry.whenDurable`.
   */
  settle(owner: Consumer | 'any', partition: number, settlements: readonly Settlement[]): void;
  /** Takes up to `messagesMax` outside of any demand, at once: what a redrive does. */
  acquire(owner: OwnerId, partition: number, messagesMax: number): readonly AcquiredRun[];
  /** Everything available (and with `isInFlightToo` what is in flight) is finished. Answers how many messages. */
  purge(options?: { isInFlightToo?: boolean; untilOffset?: number }): number;
  /** Finished messages of the range are available again. Answers how many. */
  replay(partition: number, firstOffset: number, lastOffset: number): number;
  /** Begins anew at this offset; what was in flight is forgotten. Makes the state of the partition if there is none. */
  reset(partition: number, offset: number): void;
}

export interface QueueTotals {
  delivered: number;
  accepted: number;
  released: number;
  rejected: number;
  deadLettered: number;
  expired: number;
}

export interface QueueRegistry {
  /** Declared queues. */
  get(name: string): Queue | undefined;
  all(): readonly Queue[];
  /** The queue of this group over this topic: the declared one, or the plain share group, made on first use. */
  shareQueue(group: string, topic: Topic): Queue;
  /** As `shareQueue`, if it is there; makes nothing. */
  findShareQueue(group: string, topicId: string): Queue | undefined;
  /** Queues with state of this group, declared or not. */
  queuesOf(group: string): readonly Queue[];
  /**
   * Makes the queue, or finds one that is the same in this family's settings. QUEUE_DIFFERS if it is not.
   * Durable when `whenDurable` calls back.
   */
  declare(queue: DeclareQueue): Queue;
  /** Replaces settings of a declared queue; a value of undefined goes back to the default. INVALID_CONFIG. */
  configure(queue: Queue, values: ReadonlyMap<string, string | undefined>, family: QueueFamily): void;
  /** Ends a declared queue (an owned one with its topic) or forgets the state of a plain group over a topic. */
  delete(queue: Queue): void;
  consumer(options: ConsumerOptions): Consumer;
  /** Commits what was decided so far now instead of at the end of the turn, with `others` in the same journal record. */
  commit(urgency: 'waited' | 'lazy', others?: readonly CommitPart[]): Position;
  /** Calls back when everything decided so far is durable; commits it at the end of this turn at the latest. */
  whenDurable(callback: () => void): void;
  /** What appends to this topic go through; undefined: no queue is declared on it. */
  intake(topicId: string): QueueIntake | undefined;
  readonly totals: QueueTotals;
}
