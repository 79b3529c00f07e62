/** Groups of type share beside the others: one id is one group of one type, whoever comes second is refused. */
import test from 'ava';
import { resolveOptions } from '../../broker/config.ts';
import { GroupOffsets } from '../../broker/group-offsets.ts';
import { GroupCoordinator } from '../../broker/groups.ts';
import type { ShareGroupHost, ShareMembership } from '../../broker/share-membership.ts';
import { TopicRegistry } from '../../broker/topics.ts';
import { MillraceError } from '../../protocol/errors.ts';
import { ZERO_UUID } from '../../protocol/kafka/fields.ts';
import { joinRequest } from '../support/group-bench.ts';
import { ManualClock } from '../support/manual-clock.ts';
import { MemoryEngine } from '../support/memory-engine.ts';
import { SimRandom } from '../support/sim-random.ts';

/** As little as the coordinator needs. */
class Sharers implements ShareMembership {
  readonly type = 'share';
  readonly protocolType = 'share';
  readonly offsets = new GroupOffsets();
  readonly id: string;
  readonly host: ShareGroupHost;
  readonly members: { readonly id: string }[] = [];
  nextDeadlineMs = Number.POSITIVE_INFINITY;

  constructor(id: string, host: ShareGroupHost) {
    this.id = id;
    this.host = host;
  }
  get state(): 'Empty' | 'Stable' {
    return this.members.length === 0 ? 'Empty' : 'Stable';
  }
  get isVacant(): boolean {
    return this.members.length === 0;
  }
  get isBlank(): boolean {
    return false;
  }
  get membersBytes(): number {
    return 100 * this.members.length;
  }
  isSubscribedTo(): boolean {
    return false;
  }
  retentionStart(): undefined {}
  restartSessions(): void {}
  tick(): void {
    this.members.length = 0;
    this.nextDeadlineMs = Number.POSITIVE_INFINITY;
  }
  apply(): void {}
  *live(): Generator<never> {}
  endEvents(): never[] {
    return [];
  }
}

async function open(values: Record<string, number> = {}) {
  const clock = new ManualClock();
  const engine = new MemoryEngine({ clock });
  const parts = { clock, engine, random: new SimRandom(1), options: resolveOptions(values) };
  const topics = new TopicRegistry(parts);
  await topics.load();
  const deleted: string[] = [];
  const shareGroups = {
    create: (id: string, host: ShareGroupHost) => new Sharers(id, host),
    deleted: (id: string) => deleted.push(id),
  };
  const groups = new GroupCoordinator({ ...parts, topics, shareGroups });
  await groups.load();
  const share = (groupId: string, memberId: string) =>
    groups.share(groupId, true, (group) => {
      if (!(group instanceof Sharers)) throw new Error('not one of ours');
      group.members.push({ id: memberId });
      group.nextDeadlineMs = clock.monotonic() + 1000;
    });
  return { groups, share, deleted, topics };
}

function code(act: () => unknown): string {
  try {
    act();
    return 'NONE';
  } catch (error) {
    return error instanceof MillraceError ? `${error.code} ${error.message}` : String(error);
  }
}
const consumer = (groupId: string) => ({
  groupId,
  memberId: 'm',
  memberEpoch: 0,
  clientId: 'c',
  clientHost: '/h',
  instanceId: null,
  rackId: null,
  rebalanceTimeoutMs: 1000,
  topicNames: ['t'],
  topicRegex: null,
  assignor: null,
  owned: new Map(),
  canSee: () => true,
});
const commit = (groupId: string) => ({
  groupId,
  memberId: '',
  instanceId: null,
  generation: -1,
  retentionMs: -1,
  isOldVersion: false,
  unknownGroupError: 'ILLEGAL_GENERATION' as const,
  offsets: [{ topic: 't', topicId: ZERO_UUID, partition: 0, offset: 1, leaderEpoch: -1, metadata: '' }],
});

test('consumers of either protocol and commits are refused by a share group, also by an empty one', async (t) => {
  const { groups, share, deleted } = await open();
  share('g', 'one');
  for (const state of ['Stable', 'Empty'] as const) {
    t.is(groups.get('g')?.state, state);
    groups.join(joinRequest('g'), ({ error, memberId }) =>
      t.deepEqual([error, memberId], ['INCONSISTENT_GROUP_PROTOCOL', '']),
    );
    t.is(
      code(() => groups.consumerHeartbeat(consumer('g'))),
      'GROUP_ID_NOT_FOUND Group g is not a consumer group.',
    );
    groups.commit(commit('g'), (errors) => t.deepEqual(errors, ['GROUP_ID_NOT_FOUND']));
    t.deepEqual(groups.leave('g', [{ memberId: 'one', instanceId: null }]), ['UNKNOWN_MEMBER_ID']);
    t.is(groups.heartbeat({ groupId: 'g', generation: 1, memberId: 'one', instanceId: null }), 'UNKNOWN_MEMBER_ID');
    t.is(groups.deleteOffsets('g', []), 'GROUP_ID_NOT_FOUND');
    if (state === 'Stable') {
      t.is(groups.deleteGroup('g'), 'NON_EMPTY_GROUP');
      groups.share('g', false, (group) => group.tick({ monotonicMs: 0, wallMs: 0 }));
    }
  }
  t.is(groups.membersBytes, 0);
  t.is(groups.deleteGroup('g'), 'NONE');
  t.deepEqual(deleted, ['g']);
  t.is(groups.get('g'), undefined);
});

test('share members are refused by a group of another kind, also by one that only has offsets', async (t) => {
  const { groups, share } = await open();
  groups.consumerHeartbeat(consumer('consumers'));
  groups.commit(commit('offsets'), () => {});
  for (const id of ['consumers', 'offsets']) {
    t.is(
      code(() => share(id, 'm')),
      `GROUP_ID_NOT_FOUND Group ${id} is not a share group.`,
    );
  }
  t.is(
    code(() => groups.share('none', false, () => {})),
    'GROUP_ID_NOT_FOUND Share group none not found.',
  );
});

test('share groups count among the groups, and where they are not served there are none', async (t) => {
  const { share, topics } = await open({ 'groups.max': 1 });
  share('a', 'm');
  t.regex(
    code(() => share('b', 'm')),
    /^POLICY_VIOLATION/,
  );
  const parts = { clock: new ManualClock(), random: new SimRandom(1), options: resolveOptions() };
  const engine = new MemoryEngine({ clock: parts.clock });
  const without = new GroupCoordinator({ ...parts, engine, topics });
  t.regex(
    code(() => without.share('a', true, () => {})),
    /^GROUP_ID_NOT_FOUND/,
  );
});
