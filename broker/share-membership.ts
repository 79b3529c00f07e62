/**
 * The seam for share groups (KIP-932) in the group coordinator: what it must know of a group of type `share` to list,
 * describe, delete, expire and time it beside the groups of the other protocols. One id is one group of one type: as
 * with Apache Kafka a group that exists, empty or not, is never joined by members of the other kind. Share members get
 * GROUP_ID_NOT_FOUND, consumers of the consumer protocol and commits too, JoinGroup INCONSISTENT_GROUP_PROTOCOL.
 *
 * How it is used:
 *   - the class of share groups implements `ShareMembership`; `groups.ts` gets a `ShareGroups` in its parts, which makes
 *     them. Once that class exists the type can be replaced by it.
 *   - `GroupCoordinator.share(groupId, isJoining, (group, now) => …)` finds the group, or makes it for a member that
 *     joins, runs the heartbeat or goodbye, and then sees to timers and memory; it throws what the answer says. Answers
 *     leave with `GroupCoordinator.whenDurable`.
 *   - what the group decides goes through `ShareGroupHost.commit` as events of `group-records.ts` (rows to add there:
 *     Kafka's keys for share groups) and comes back through `apply`, on a restart too: a row in `GroupStore.#apply`
 *     with `shareFor(event.group)`.
 *   - configs in force: `ShareGroupHost.settings()`, typed (group-configs.ts).
 */
import type { Options } from './config.ts';
import type { Instant } from './group.ts';
import type { GroupSettings } from './group-configs.ts';
import type { GroupOffsets } from './group-offsets.ts';
import type { GroupEvent } from './group-records.ts';
import type { TopicCatalog } from './subscriptions.ts';

/** As DescribeGroups and ListGroups show it. */
export type ShareGroupState = 'Empty' | 'Stable' | 'Dead';

export interface ShareMembership {
  readonly type: 'share';
  readonly protocolType: 'share';
  readonly id: string;
  /** Always empty: how far share groups are is kept elsewhere. */
  readonly offsets: GroupOffsets;
  readonly state: ShareGroupState;
  /** Without members. */
  readonly isVacant: boolean;
  /** In the order in which they came. */
  readonly members: readonly { readonly id: string }[];
  /** Whether there is nothing to remember: the coordinator forgets it. */
  readonly isBlank: boolean;
  /** `tick` has work at this time (monotonic); never later than the soonest deadline. */
  readonly nextDeadlineMs: number;
  /** About the memory that members take. */
  readonly membersBytes: number;
  isSubscribedTo(topic: string): boolean;
  /** Undefined: an empty share group does not expire. */
  retentionStart(): undefined;
  /** After a restart: sessions start anew. */
  restartSessions(now: Instant): void;
  /** Puts out whoever has been silent for too long. */
  tick(now: Instant): void;
  apply(event: GroupEvent): void;
  /** What the log must hold for this group to be read again. */
  live(): Iterable<GroupEvent>;
  /** What ends a group without members in the log. */
  endEvents(): GroupEvent[];
}

export interface ShareGroupHost {
  /** Gives the events their place in the commit order and applies them. */
  commit(events: readonly GroupEvent[]): void;
  readonly options: Options;
  readonly topics: TopicCatalog;
  /** The group's configs in force. */
  settings(): GroupSettings;
}

export interface ShareGroups {
  create(groupId: string, host: ShareGroupHost): ShareMembership;
  /** The group is gone (DeleteGroups): so is what was kept of its partitions. */
  deleted(groupId: string): void;
}
