/** `millrace status`: one look at a cluster. Its exit code tells scripts whether a broker answers. */
import { listGroups, partitionSizes } from '../kafka/admin.ts';
import { name } from '../kafka/connection.ts';
import { clusterFlags, jsonFlag, withCluster } from './cluster-flags.ts';
import type { Command } from './command.ts';
import { jsonLine, plural, sizeText } from './output.ts';

export const statusCommand: Command = {
  name: 'status',
  usage: '[flags]',
  summary: 'Shows the brokers of a cluster and what they hold',
  details: 'Exit code 5 if no broker answers.',
  arity: [0, 0],
  flags: { ...clusterFlags, ...jsonFlag },
  run: (args, io) =>
    withCluster(args, io, async (cluster) => {
      const brokers = await cluster.retry(() => cluster.brokers());
      const topics = await cluster.retry(() => cluster.topics());
      const [groups, sizes] = await Promise.all([listGroups(cluster), partitionSizes(cluster)]);
      const partitionCount = topics.reduce((sum, { partitions }) => sum + partitions.length, 0);
      const sizeBytes = sizes.reduce((sum, size) => sum + size.sizeBytes, 0);
      const leaderless = topics.flatMap((topic) =>
        topic.partitions.filter(({ leaderId }) => leaderId < 0).map(({ index }) => `${topic.name}-${index}`),
      );
      if (args.has('json')) {
        const counts = { topics: topics.length, partitions: partitionCount, groups: groups.length, sizeBytes };
        return io.write(jsonLine({ clusterId: cluster.clusterId, brokers, ...counts, leaderless }));
      }
      const nodes = brokers.map((broker) => `${broker.id} at ${name(broker)}`).join(', ');
      const lines = [
        `cluster ${cluster.clusterId ?? '(no id)'}`,
        `brokers: ${nodes}`,
        `${plural(topics.length, 'topic')} (internal ones included), ${plural(partitionCount, 'partition')}, ${plural(groups.length, 'group')}, ${sizeText(sizeBytes)} on disk`,
        ...(leaderless.length > 0 ? [`without a leader: ${leaderless.join(', ')}`] : []),
      ];
      await io.write(`${lines.join('\n')}\n`);
    }),
};
