/** `millrace topic`: list, create, describe, alter, delete. */
import { MillraceError } from '../../protocol/errors.ts';
import {
  addPartitions,
  alterTopicConfigs,
  createTopic,
  deleteTopic,
  partitionSizes,
  topicConfigs,
} from '../kafka/admin.ts';
import type { KafkaCluster, TopicInfo } from '../kafka/cluster.ts';
import { clusterFlags, jsonFlag, withCluster } from './cluster-flags.ts';
import { type Args, type Command, CommandFailure, UsageError, keyValue, wholeNumber } from './command.ts';
import type { Io } from './io.ts';
import { jsonLine, sizeText, table } from './output.ts';
import { partitionRanges } from './places.ts';

const list: Command = {
  name: 'topic list',
  usage: '[flags]',
  summary: 'Lists the topics',
  arity: [0, 0],
  flags: { ...clusterFlags, ...jsonFlag, internal: { help: 'also internal topics' } },
  run: (args, io) =>
    withCluster(args, io, async (cluster) => {
      const all = await cluster.retry(() => cluster.topics());
      const topics = all.filter(({ isInternal }) => !isInternal || args.has('internal')).sort(byName);
      if (args.has('json')) {
        for (const topic of topics) {
          await io.write(
            jsonLine({
              name: topic.name,
              topicId: topic.topicId,
              partitions: topic.partitions.length,
              internal: topic.isInternal,
            }),
          );
        }
      } else if (topics.length === 0) io.note("There are no topics; 'millrace topic create NAME' makes one.");
      else
        await io.write(
          table(
            ['TOPIC', 'PARTITIONS'],
            topics.map((topic) => [topic.name, topic.partitions.length]),
          ),
        );
    }),
};

const create: Command = {
  name: 'topic create',
  usage: 'NAME… [flags]',
  summary: 'Makes topics',
  arity: [1, Number.POSITIVE_INFINITY],
  flags: {
    ...clusterFlags,
    partitions: { value: 'N', short: 'p', help: "default: the broker's num.partitions" },
    'replication-factor': { value: 'N', help: "default: the broker's" },
    config: {
      value: 'NAME=VALUE',
      isRepeatable: true,
      short: 'c',
      help: 'a topic config, such as retention.ms=3600000',
    },
    'if-not-exists': { help: 'no error for a topic that is there' },
  },
  run: (args, io) =>
    withCluster(args, io, async (cluster) => {
      const count = (flag: string) => {
        const text = args.text(flag);
        return text === undefined ? undefined : wholeNumber(`--${flag}`, text, 1);
      };
      const partitionCount = count('partitions');
      const replicationFactor = count('replication-factor');
      const configs = Object.fromEntries(args.texts('config').map((text) => keyValue('--config', text)));
      for (const name of args.positionals) {
        try {
          await createTopic(cluster, { name, partitionCount, replicationFactor, configs });
          io.note(`created topic ${name}`);
        } catch (error) {
          if (!(isCode(error, 'TOPIC_ALREADY_EXISTS') && args.has('if-not-exists'))) throw error;
          io.note(`topic ${name} exists already`);
        }
      }
    }),
};

const describe: Command = {
  name: 'topic describe',
  usage: 'NAME… [flags]',
  summary: 'Shows partitions, offsets, sizes and configs of topics',
  arity: [1, Number.POSITIVE_INFINITY],
  flags: { ...clusterFlags, ...jsonFlag, 'all-configs': { help: 'also configs that have their default' } },
  run: (args, io) =>
    withCluster(args, io, async (cluster) => {
      const topics = await existing(cluster, args.positionals);
      const sizes = await partitionSizes(cluster);
      for (const topic of topics) await describeTopic(cluster, topic, sizes, args, io);
    }),
};

async function describeTopic(
  cluster: KafkaCluster,
  topic: TopicInfo,
  sizes: Awaited<ReturnType<typeof partitionSizes>>,
  args: Args,
  io: Io,
): Promise<void> {
  const { name } = topic;
  const targets = topic.partitions.map(({ index }) => ({ topic: name, partition: index }));
  const ranges = await partitionRanges(cluster, targets, { readUncommitted: true });
  const partitions = topic.partitions.map(({ index, leaderId, replicaIds, inSyncReplicaIds }, at) => ({
    partition: index,
    leader: leaderId,
    replicas: replicaIds,
    inSync: inSyncReplicaIds,
    earliest: ranges[at].earliest,
    latest: ranges[at].latest,
    // Of the largest replica, where there are several.
    sizeBytes: Math.max(
      0,
      ...sizes.filter((size) => size.topic === name && size.partition === index).map((size) => size.sizeBytes),
    ),
  }));
  const configs = (await topicConfigs(cluster, name))
    .filter(({ isOwn }) => isOwn || args.has('all-configs'))
    .sort((a, b) => (a.name < b.name ? -1 : 1));
  if (args.has('json')) {
    const own = Object.fromEntries(configs.map(({ name: config, value }) => [config, value]));
    return io.write(jsonLine({ name, topicId: topic.topicId, internal: topic.isInternal, partitions, configs: own }));
  }
  const records = partitions.reduce((sum, { earliest, latest }) => sum + latest - earliest, 0);
  const bytes = partitions.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0);
  const head = ['PARTITION', 'LEADER', 'REPLICAS', 'IN SYNC', 'EARLIEST', 'LATEST', 'SIZE'];
  const rows = partitions.map((row) => [
    row.partition,
    row.leader,
    row.replicas.join(','),
    row.inSync.join(','),
    row.earliest,
    row.latest,
    sizeText(row.sizeBytes),
  ]);
  const settings = configs.map((config) => `  ${config.name}=${config.value ?? '(hidden)'}\n`).join('');
  await io.write(
    `${name}  id ${topic.topicId}, offsets ${records}, ${sizeText(bytes)}\n${settings}${table(head, rows)}`,
  );
}

const alter: Command = {
  name: 'topic alter',
  usage: 'NAME [flags]',
  summary: 'Changes configs of a topic, or adds partitions',
  arity: [1, 1],
  flags: {
    ...clusterFlags,
    config: { value: 'NAME=VALUE', isRepeatable: true, short: 'c', help: 'set a config' },
    'delete-config': { value: 'NAME', isRepeatable: true, help: 'take a config back to its default' },
    partitions: {
      value: 'N',
      short: 'p',
      help: 'the new, larger number of partitions. Keys then go to other partitions\nthan before, as with Apache Kafka',
    },
  },
  run: (args, io) =>
    withCluster(args, io, async (cluster) => {
      const [name] = args.positionals;
      const changes: Record<string, string | null> = Object.fromEntries(
        args.texts('config').map((text) => keyValue('--config', text)),
      );
      for (const config of args.texts('delete-config')) changes[config] = null;
      const partitions = args.text('partitions');
      const count = partitions === undefined ? undefined : wholeNumber('--partitions', partitions, 1);
      const hasConfigs = Object.keys(changes).length > 0;
      if (!hasConfigs && count === undefined)
        throw new UsageError('nothing to change: give --config, --delete-config or --partitions');
      await existing(cluster, [name]);
      if (hasConfigs) await alterTopicConfigs(cluster, name, changes);
      if (count !== undefined) await addPartitions(cluster, name, count);
      io.note(`changed topic ${name}`);
    }),
};

const remove: Command = {
  name: 'topic delete',
  usage: 'NAME… [flags]',
  summary: 'Deletes topics and all their records',
  arity: [1, Number.POSITIVE_INFINITY],
  flags: { ...clusterFlags, 'if-exists': { help: 'no error for a topic that is not there' } },
  run: (args, io) =>
    withCluster(args, io, async (cluster) => {
      for (const name of args.positionals) {
        try {
          await deleteTopic(cluster, name);
          io.note(`deleted topic ${name}`);
        } catch (error) {
          if (!isCode(error, 'UNKNOWN_TOPIC_OR_PARTITION')) throw error;
          if (!args.has('if-exists')) throw noTopic(name);
          io.note(`there is no topic ${name}`);
        }
      }
    }),
};

export const topicCommands: Readonly<Record<string, Command>> = { list, create, describe, alter, delete: remove };

/** The topics with these names; fails for the first that is not there. */
export async function existing(cluster: KafkaCluster, names: readonly string[]): Promise<TopicInfo[]> {
  const found = await cluster.retry(() => cluster.topics(names));
  return names.map((name) => {
    const topic = found.find((candidate) => candidate.name === name);
    if (!topic) throw noTopic(name);
    return topic;
  });
}

function noTopic(name: string): CommandFailure {
  return new CommandFailure(`there is no topic '${name}'; 'millrace topic list' shows those that are`);
}

function isCode(error: unknown, code: MillraceError['code']): boolean {
  return error instanceof MillraceError && error.code === code;
}

function byName(a: TopicInfo, b: TopicInfo): number {
  return a.name < b.name ? -1 : 1;
}
