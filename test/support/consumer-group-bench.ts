/** One consumer group without a broker: its log is a list of records, topics and time are what the test says. */
import { ConsumerGroup, type ConsumerHeartbeatAnswer } from '../../broker/consumer-group.ts';
import type { Partitions } from '../../broker/consumer-assignors.ts';
import { type ConsumerGroupEvent, isConsumerGroupEvent } from '../../broker/consumer-group-records.ts';
import { resolveOptions } from '../../broker/config.ts';
import type { Instant } from '../../broker/group.ts';
import { GroupConfigs } from '../../broker/group-configs.ts';
import type { Member } from '../../broker/group-member.ts';
import { decodeGroupEvent, encodeGroupEvent } from '../../broker/group-records.ts';
import { MillraceError } from '../../protocol/errors.ts';

export type Owned = Readonly<Record<string, readonly number[]>>;

export interface HeartbeatOptions {
  readonly instanceId?: string | null;
  readonly topics?: readonly string[] | null;
  readonly regex?: string | null;
  readonly assignor?: string | null;
  readonly owned?: Owned | null;
  readonly rebalanceTimeoutMs?: number;
}

export class ConsumerGroupBench {
  readonly values: Record<string, string | number>;
  readonly topics = new Map<string, { id: string; partitionCount: number }>();
  topicsVersion = 0;
  /** Every event, as the log holds it. */
  events: ConsumerGroupEvent[] = [];
  nowMs = 1_000_000;
  /** Whether the group may become a classic one; how often it wanted to. */
  mayDowngrade = false;
  readonly downgrades: { ending: ConsumerGroupEvent[]; members: readonly Member[]; generation: number }[] = [];
  #ids = 0;
  group: ConsumerGroup;

  constructor(values: Record<string, string | number> = {}) {
    this.values = { 'group.consumer.assignment.interval.ms': 0, ...values };
    this.group = this.#open();
  }

  get now(): Instant {
    return { monotonicMs: this.nowMs, wallMs: 1_700_000_000_000 + this.nowMs };
  }

  createTopic(name: string, partitionCount: number): void {
    const number = String(this.topics.size + 1 + this.topicsVersion).padStart(12, '0');
    this.topics.set(name, {
      id: this.topics.get(name)?.id ?? `00000000-0000-4000-8000-${number}`,
      partitionCount,
    });
    this.topicsVersion++;
  }
  deleteTopic(name: string): void {
    this.topics.delete(name);
    this.topicsVersion++;
  }

  advance(ms: number): void {
    const endMs = this.nowMs + ms;
    while (this.group.nextDeadlineMs <= endMs) {
      this.nowMs = Math.max(this.nowMs, this.group.nextDeadlineMs);
      this.group.tick(this.now);
    }
    this.nowMs = endMs;
  }

  /** Joins with a full request. */
  join(memberId: string, options: HeartbeatOptions = {}): ConsumerHeartbeatAnswer {
    return this.heartbeat(memberId, 0, { topics: ['t'], rebalanceTimeoutMs: 10_000, owned: {}, ...options });
  }
  heartbeat(memberId: string, memberEpoch: number, options: HeartbeatOptions = {}): ConsumerHeartbeatAnswer {
    return this.group.heartbeat(this.now, {
      groupId: this.group.id,
      memberId,
      memberEpoch,
      clientId: 'client',
      clientHost: '/127.0.0.1',
      instanceId: options.instanceId ?? null,
      rackId: null,
      rebalanceTimeoutMs: options.rebalanceTimeoutMs ?? -1,
      topicNames: options.topics ?? null,
      topicRegex: options.regex ?? null,
      assignor: options.assignor ?? null,
      owned: options.owned === undefined || options.owned === null ? null : this.partitions(options.owned),
      canSee: (name) => !name.startsWith('secret'),
    });
  }
  leave(memberId: string, memberEpoch = -1, instanceId: string | null = null): ConsumerHeartbeatAnswer {
    return this.group.leave({ memberId, instanceId, memberEpoch });
  }

  /** The code of what `act` throws; NONE if it does not. */
  refusal(act: () => unknown): string {
    try {
      act();
      return 'NONE';
    } catch (error) {
      if (error instanceof MillraceError) return error.code;
      throw error;
    }
  }

  partitions(owned: Owned): Partitions {
    return new Map(
      Object.entries(owned).map(([name, indexes]) => [this.topics.get(name)?.id ?? name, new Set(indexes)]),
    );
  }
  /** By name, sorted; null stays null. */
  named(partitions: Partitions | null): Record<string, number[]> | null {
    if (partitions === null) return null;
    const names = new Map([...this.topics].map(([name, { id }]) => [id, name]));
    const entries = [...partitions].map(([id, indexes]): [string, number[]] => [
      names.get(id) ?? 'gone',
      [...indexes].sort((a, b) => a - b),
    ]);
    return Object.fromEntries(entries.sort(([a], [b]) => (a < b ? -1 : 1)));
  }

  /** The group as a restarted broker reads it; every event goes through its record. */
  reload(events: Iterable<ConsumerGroupEvent> = this.events): ConsumerGroup {
    const group = this.#open();
    for (const event of events) {
      const { key, value } = encodeGroupEvent(event, 0);
      const bytes = (part: Uint8Array | null | undefined): Buffer | null => (part ? Buffer.from(part) : null);
      const decoded = decodeGroupEvent({ offset: 0, timestamp: 0, headers: [], key: bytes(key), value: bytes(value) });
      if (decoded === undefined || !isConsumerGroupEvent(decoded)) throw new Error(`${event.kind} was not read again`);
      group.apply(decoded);
    }
    return group;
  }
  restart(): void {
    this.group = this.reload();
    this.group.restartSessions(this.now);
  }

  /** Everything that outlives a restart. */
  static state(group: ConsumerGroup): unknown {
    const live = [...group.live()].map((event) => encodeGroupEvent(event, 0));
    return live
      .map(({ key, value }) => [key, value].map((part) => Buffer.from(part ?? []).toString('hex')).join())
      .sort();
  }

  #open(): ConsumerGroup {
    const options = resolveOptions(this.values);
    const configs = new GroupConfigs(options);
    const version = (): number => this.topicsVersion;
    return new ConsumerGroup('g', {
      commit: (events) => {
        this.events.push(...events);
        for (const event of events) this.group.apply(event);
      },
      becomeClassic: (ending, members, generation) => {
        this.downgrades.push({ ending: ending(), members, generation });
        return this.mayDowngrade;
      },
      newMemberId: () => `member-${++this.#ids}`,
      options,
      settings: () => configs.get('g'),
      topics: {
        get version() {
          return version();
        },
        get: (name) => this.topics.get(name),
        names: () => this.topics.keys(),
      },
    });
  }
}
