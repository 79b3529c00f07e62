/** `millrace group`: list, describe with lag, reset, delete. */
import { MillraceError } from '../../protocol/errors.ts';
import {
  type CommittedOffset,
  type GroupInfo,
  commitOffsets,
  committedOffsets,
  deleteGroup,
  describeGroup,
  listGroups,
} from '../kafka/admin.ts';
import type { KafkaCluster } from '../kafka/cluster.ts';
import type { TopicPartition } from '../kafka/records.ts';
import { clusterFlags, jsonFlag, topicAndPartition, withCluster } from './cluster-flags.ts';
import { type Args, type Command, CommandFailure, UsageError, wholeNumber } from './command.ts';
import { jsonLine, plural, table } from './output.ts';
import { type PartitionRange, type Place, parseDuration, parseTime, partitionRanges, resolvePlaces } from './places.ts';
import { existing } from './topic.ts';

const list: Command = {
  name: 'group list',
  usage: '[flags]',
  summary: 'Lists the consumer groups',
  arity: [0, 0],
  flags: { ...clusterFlags, ...jsonFlag },
  run: (args, io) =>
    withCluster(args, io, async (cluster) => {
      const groups = await listGroups(cluster);
      if (args.has('json')) {
        for (const { groupId, state, protocolType } of groups)
          await io.write(jsonLine({ group: groupId, state, protocolType }));
      } else if (groups.length === 0) io.note('There are no groups; one is made when a consumer joins it or commits.');
      else
        await io.write(
          table(
            ['GROUP', 'STATE', 'PROTOCOL'],
            groups.map(({ groupId, state, protocolType }) => [groupId, state, protocolType]),
          ),
        );
    }),
};

interface Row extends TopicPartition {
  readonly committed: number | null;
  readonly end: number;
  readonly lag: number | null;
  readonly memberId: string | null;
  readonly clientId: string | null;
  readonly host: string | null;
}

const describe: Command = {
  name: 'group describe',
  usage: 'GROUP… [flags]',
  summary: 'Shows the members of groups, what they have committed, and how far they are behind',
  details: 'LAG is the number of offsets between what is committed and the end of the partition.',
  arity: [1, Number.POSITIVE_INFINITY],
  flags: { ...clusterFlags, ...jsonFlag },
  run: (args, io) =>
    withCluster(args, io, async (cluster) => {
      for (const groupId of args.positionals) {
        const { group, offsets } = await known(cluster, groupId);
        const rows = await lagRows(cluster, group, offsets);
        const lag = rows.reduce((sum, row) => sum + (row.lag ?? 0), 0);
        if (args.has('json')) {
          await io.write(
            jsonLine({
              group: groupId,
              state: group.state,
              protocol: group.protocol,
              members: group.members,
              lag,
              partitions: rows,
            }),
          );
          continue;
        }
        await io.write(`${groupId}  ${group.state}, ${plural(group.members.length, 'member')}, lag ${lag}\n`);
        const head = ['TOPIC', 'PARTITION', 'COMMITTED', 'END', 'LAG', 'MEMBER', 'CLIENT', 'HOST'];
        const cells = rows.map((row) => [
          row.topic,
          row.partition,
          row.committed,
          row.end,
          row.lag,
          row.memberId,
          row.clientId,
          row.host,
        ]);
        if (rows.length > 0) await io.write(table(head, cells));
      }
    }),
};

async function lagRows(cluster: KafkaCluster, group: GroupInfo, offsets: readonly CommittedOffset[]): Promise<Row[]> {
  const key = ({ topic, partition }: TopicPartition) => `${topic}-${partition}`;
  const owners = new Map(group.members.flatMap((member) => member.partitions.map((owned) => [key(owned), member])));
  const committed = new Map(offsets.map((found) => [key(found), found.offset]));
  const targets = new Map<string, TopicPartition>();
  for (const target of [...offsets, ...group.members.flatMap(({ partitions }) => partitions)])
    targets.set(key(target), target);
  const ranges = await rangesOfLiving(cluster, [...targets.values()]);
  return ranges.map((range) => {
    const offset = committed.get(key(range));
    const owner = owners.get(key(range));
    return {
      topic: range.topic,
      partition: range.partition,
      committed: offset ?? null,
      end: range.latest,
      lag: offset === undefined ? null : Math.max(0, range.latest - offset),
      memberId: owner?.memberId ?? null,
      clientId: owner?.clientId ?? null,
      host: owner?.clientHost ?? null,
    };
  });
}

/** A group may have committed offsets of topics that are gone; those have no end and are left out. */
async function rangesOfLiving(cluster: KafkaCluster, targets: readonly TopicPartition[]): Promise<PartitionRange[]> {
  if (targets.length === 0) return [];
  const topics = new Map(
    (await cluster.retry(() => cluster.topics([...new Set(targets.map(({ topic }) => topic))]))).map((topic) => [
      topic.name,
      topic,
    ]),
  );
  const living = targets.filter(({ topic, partition }) => topics.get(topic)?.partitions[partition]);
  living.sort((a, b) => (a.topic === b.topic ? a.partition - b.partition : a.topic < b.topic ? -1 : 1));
  return partitionRanges(cluster, living);
}

const TO_FLAGS = ['to-earliest', 'to-latest', 'to-current', 'to-offset', 'to-datetime', 'by-duration', 'shift-by'];

const reset: Command = {
  name: 'group reset',
  usage: 'GROUP --topic TOPIC[:PARTITION] --to-… [--execute]',
  summary: 'Moves the committed offsets of a group that has no members',
  details: `Shows what would change; --execute does it. The group must be stopped, or its members would commit over it. A group
that does not exist yet is made. Offsets outside of a partition are moved to its start or end.`,
  arity: [1, 1],
  flags: {
    ...clusterFlags,
    ...jsonFlag,
    topic: { value: 'TOPIC[:PARTITION]', isRepeatable: true, short: 't', help: 'what to reset' },
    'all-topics': { help: 'all topics that the group has committed offsets of' },
    'to-earliest': { help: 'to the start of each partition' },
    'to-latest': { help: 'to the end of each partition' },
    'to-current': { help: 'to what is committed now; within the partition' },
    'to-offset': { value: 'N', help: 'to this offset' },
    'to-datetime': { value: 'TIME', help: 'to the first record at or after 2026-01-31T10:00:00Z (UTC without a zone)' },
    'by-duration': { value: 'DURATION', help: 'to the first record since 90s, 15m, 2h, 1d or PT1H ago' },
    'shift-by': { value: 'N', help: 'so many records on, or back if negative' },
    execute: { help: 'do it' },
  },
  run: (args, io) => {
    const target = resetTarget(args, io.clock.now());
    return withCluster(args, io, async (cluster) => {
      const [groupId] = args.positionals;
      const offsets = await committedOffsets(cluster, groupId);
      const ranges = await partitionRanges(cluster, await resetScope(cluster, args, groupId, offsets));
      const current = new Map(offsets.map(({ topic, partition, offset }) => [`${topic}-${partition}`, offset]));
      const places = target.kind === 'shift' ? undefined : await resolvePlaces(cluster, ranges, target);
      const changes = ranges.map(({ topic, partition, earliest, latest }) => {
        const key = `${topic}-${partition}`;
        const from = current.get(key) ?? null;
        const wanted = places
          ? (places.get(key) ?? latest)
          : (from ?? earliest) + (target.kind === 'shift' ? target.by : 0);
        const to = Math.min(Math.max(wanted, earliest), latest);
        return { topic, partition, from, to, lag: latest - to };
      });
      if (args.has('execute')) {
        await refuseWhileActive(cluster, groupId);
        await commitOffsets(
          cluster,
          groupId,
          changes.map(({ topic, partition, to }) => ({ topic, partition, offset: to })),
        );
      }
      if (args.has('json')) {
        for (const change of changes)
          await io.write(jsonLine({ group: groupId, ...change, executed: args.has('execute') }));
      } else {
        const rows = changes.map(({ topic, partition, from, to, lag }) => [topic, partition, from, to, lag]);
        await io.write(table(['TOPIC', 'PARTITION', 'COMMITTED', 'NEW', 'LAG'], rows));
      }
      if (!args.has('execute')) io.note('Nothing was changed. Add --execute to do it.');
    });
  },
};

type ResetTarget = Place | { readonly kind: 'shift'; readonly by: number };

function resetTarget(args: Args, nowMs: number): ResetTarget {
  const given = TO_FLAGS.filter((flag) => args.has(flag));
  if (given.length !== 1)
    throw new UsageError(`say where to, with one of ${TO_FLAGS.map((flag) => `--${flag}`).join(', ')}`);
  const [flag] = given;
  const text = args.text(flag) ?? '';
  switch (flag) {
    case 'to-earliest':
      return { kind: 'earliest' };
    case 'to-latest':
      return { kind: 'latest' };
    case 'to-current':
      return { kind: 'shift', by: 0 };
    case 'to-offset':
      return { kind: 'offset', offset: wholeNumber('--to-offset', text) };
    case 'shift-by':
      return { kind: 'shift', by: wholeNumber('--shift-by', text, Number.MIN_SAFE_INTEGER) };
    case 'by-duration': {
      const agoMs = parseDuration(text);
      if (agoMs === undefined) throw new UsageError(`--by-duration takes 90s, 15m, 2h, 1d or PT1H, not '${text}'`);
      return { kind: 'time', timestamp: Math.max(0, nowMs - agoMs) };
    }
    default: {
      const timestamp = parseTime(text);
      if (timestamp === undefined)
        throw new UsageError(`--to-datetime takes a time such as 2026-01-31T10:00:00Z, not '${text}'`);
      return { kind: 'time', timestamp };
    }
  }
}

async function resetScope(
  cluster: KafkaCluster,
  args: Args,
  groupId: string,
  offsets: readonly CommittedOffset[],
): Promise<TopicPartition[]> {
  const named = args.texts('topic').map(topicAndPartition);
  if (named.length > 0 === args.has('all-topics'))
    throw new UsageError('say what to reset, with --topic or --all-topics');
  if (args.has('all-topics')) {
    const living = await rangesOfLiving(cluster, offsets);
    if (living.length === 0)
      throw new CommandFailure(`group '${groupId}' has committed nothing; name topics with --topic`);
    return living;
  }
  const topics = await existing(cluster, [...new Set(named.map(({ topic }) => topic))]);
  const scope = new Map<string, TopicPartition>();
  for (const { topic, partition } of named) {
    const indexes = topics.find(({ name }) => name === topic)?.partitions.map(({ index }) => index) ?? [];
    if (partition !== undefined && !indexes.includes(partition)) {
      throw new CommandFailure(`topic '${topic}' has no partition ${partition}, only 0 to ${indexes.length - 1}`);
    }
    for (const index of partition === undefined ? indexes : [partition])
      scope.set(`${topic}-${index}`, { topic, partition: index });
  }
  return [...scope.values()];
}

/** The coordinator refuses as well; this says it in words that help. */
async function refuseWhileActive(cluster: KafkaCluster, groupId: string): Promise<void> {
  const group = await describeGroup(cluster, groupId).catch((error: unknown) => {
    if (error instanceof MillraceError && error.code === 'GROUP_ID_NOT_FOUND') return undefined;
    throw error;
  });
  if (!group || group.members.length === 0) return;
  throw new CommandFailure(
    `group '${groupId}' has ${plural(group.members.length, 'member')}; stop its consumers first (millrace group describe ${groupId})`,
  );
}

const remove: Command = {
  name: 'group delete',
  usage: 'GROUP… [flags]',
  summary: 'Deletes groups that have no members, and their committed offsets',
  arity: [1, Number.POSITIVE_INFINITY],
  flags: { ...clusterFlags, 'if-exists': { help: 'no error for a group that is not there' } },
  run: (args, io) =>
    withCluster(args, io, async (cluster) => {
      for (const groupId of args.positionals) {
        try {
          await deleteGroup(cluster, groupId);
          io.note(`deleted group ${groupId}`);
        } catch (error) {
          const isMissing = error instanceof MillraceError && error.code === 'GROUP_ID_NOT_FOUND';
          if (!isMissing || !args.has('if-exists')) throw error;
          io.note(`there is no group ${groupId}`);
        }
      }
    }),
};

export const groupCommands: Readonly<Record<string, Command>> = { list, describe, reset, delete: remove };

/** The group and what it has committed; fails if there is neither. */
async function known(
  cluster: KafkaCluster,
  groupId: string,
): Promise<{ group: GroupInfo; offsets: CommittedOffset[] }> {
  const offsets = await committedOffsets(cluster, groupId);
  try {
    const group = await describeGroup(cluster, groupId);
    if (group.state !== 'Dead' || offsets.length > 0) return { group, offsets };
  } catch (error) {
    if (!(error instanceof MillraceError && error.code === 'GROUP_ID_NOT_FOUND')) throw error;
  }
  throw new CommandFailure(`there is no group '${groupId}'; 'millrace group list' shows those that are`);
}
