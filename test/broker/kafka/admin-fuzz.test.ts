/**
 * Whatever a client asks of topics, configs and logs, every handler answers once, in a form that its version can say,
 * and the registry stays as it would be after a restart.
 */
import test from 'ava';
import fc from 'fast-check';
import {
  alterConfigs,
  describeConfigs,
  incrementalAlterConfigs,
  listConfigResources,
} from '../../../broker/kafka/configs.ts';
import {
  deleteRecords,
  describeLogDirs,
  listPartitionReassignments,
  offsetForLeaderEpoch,
} from '../../../broker/kafka/log-admin.ts';
import { describeCluster, describeTopicPartitions, metadata } from '../../../broker/kafka/metadata.ts';
import { createPartitions, createTopics, deleteTopics } from '../../../broker/kafka/topic-admin.ts';
import { apis } from '../../../protocol/kafka/apis.ts';
import { ZERO_UUID } from '../../../protocol/kafka/fields.ts';
import type {
  DeleteTopicsRequestInit,
  ListConfigResourcesRequestInit,
  MetadataRequestInit,
} from '../../../protocol/kafka/messages.ts';
import { ask } from '../../support/kafka-call.ts';
import { openTopicsBroker, type TopicsBroker } from '../../support/topics-broker.ts';

const name = fc.oneof(
  { weight: 6, arbitrary: fc.constantFrom('a', 'b', 'a.b', 'a_b', '__consumer_offsets') },
  { weight: 1, arbitrary: fc.constantFrom('', '.', '..', '__x', 'a b', 'ü', 'x'.repeat(250), 'y'.repeat(30_000)) },
  { weight: 1, arbitrary: fc.string({ maxLength: 20 }) },
);
const int = fc.oneof(fc.integer({ min: -3, max: 5 }), fc.integer());
const small = fc.integer({ min: -3, max: 6 });
const int16 = fc.oneof(fc.constantFrom(-1, 0, 1, 2), fc.integer({ min: -32_768, max: 32_767 }));
const int8 = fc.oneof(fc.constantFrom(0, 1, 2, 3, 4, 8, 16, 32), fc.integer({ min: -128, max: 127 }));
const int64 = fc.oneof(fc.integer({ min: -3, max: 5 }), fc.maxSafeInteger());
const uuid = fc.oneof(fc.constant(ZERO_UUID), fc.constant('00000000-0000-0000-0000-000000000001'), fc.uuid());
const list = <T>(item: fc.Arbitrary<T>) => fc.array(item, { maxLength: 4 });
const key = fc.oneof(
  fc.constantFrom(
    'retention.ms',
    'cleanup.policy',
    'log.retention.ms',
    'message.max.bytes',
    'node.id',
    'segment.bytes',
  ),
  fc.constantFrom('__proto__', 'constructor', 'leader.replication.throttled.replicas'),
  fc.string({ maxLength: 8 }),
);
const value = fc.oneof(
  fc.constantFrom('1', '-1', '9223372036854775807', 'delete', 'compact', '', 'x'.repeat(30_000)),
  fc.constant(null),
  fc.string({ maxLength: 8 }),
);
const resource = { resourceType: int8, resourceName: fc.oneof(name, fc.constantFrom('1', '2', '-1')) };

type Step = (broker: TopicsBroker) => { response: unknown };

/** A step of each version of an API, with a request that the version can say. */
function steps<Request, Init, Response, ResponseInit>(
  api: Parameters<typeof ask<Request, Init, Response, ResponseInit>>[1] & { minVersion: number; maxVersion: number },
  handler: Parameters<typeof ask<Request, Init, Response, ResponseInit>>[2],
  request: (version: number) => fc.Arbitrary<Init>,
): fc.Arbitrary<Step> {
  return fc.integer({ min: api.minVersion, max: api.maxVersion }).chain((version) =>
    request(version).map(
      (init): Step =>
        (broker) =>
          ask(broker, api, handler, init, { version }),
    ),
  );
}

const anyStep: fc.Arbitrary<Step> = fc.oneof(
  steps(apis.CreateTopics, createTopics, () =>
    fc.record({
      topics: list(
        fc.record({
          name,
          numPartitions: small,
          replicationFactor: int16,
          assignments: list(fc.record({ partitionIndex: small, brokerIds: list(small) })),
          configs: list(fc.record({ name: key, value })),
        }),
      ),
      validateOnly: fc.boolean(),
    }),
  ),
  steps(
    apis.DeleteTopics,
    deleteTopics,
    (version): fc.Arbitrary<DeleteTopicsRequestInit> =>
      version >= 6
        ? fc.record({ topics: list(fc.record({ name: fc.option(name), topicId: uuid })), timeoutMs: int })
        : fc.record({ topicNames: list(name), timeoutMs: int }),
  ),
  steps(apis.CreatePartitions, createPartitions, () =>
    fc.record({
      topics: list(
        fc.record({
          name,
          count: fc.oneof(small, int),
          assignments: fc.option(list(fc.record({ brokerIds: list(small) }))),
        }),
      ),
      timeoutMs: int,
      validateOnly: fc.boolean(),
    }),
  ),
  steps(apis.Metadata, metadata, (version): fc.Arbitrary<MetadataRequestInit> => {
    const topic: fc.Arbitrary<{ name: string | null; topicId?: string }> =
      version >= 10 ? fc.record({ name: fc.option(name), topicId: uuid }) : fc.record({ name });
    return fc.record({
      topics: version === 0 ? list(topic) : fc.option(list(topic)),
      ...(version >= 4 ? { allowAutoTopicCreation: fc.boolean() } : {}),
      ...(version >= 8 ? { includeTopicAuthorizedOperations: fc.boolean() } : {}),
      ...(version >= 8 && version <= 10 ? { includeClusterAuthorizedOperations: fc.boolean() } : {}),
    });
  }),
  steps(apis.DescribeTopicPartitions, describeTopicPartitions, () =>
    fc.record({
      topics: list(fc.record({ name })),
      responsePartitionLimit: int,
      cursor: fc.option(fc.record({ topicName: name, partitionIndex: int })),
    }),
  ),
  steps(apis.DescribeCluster, describeCluster, (version) =>
    fc.record({
      includeClusterAuthorizedOperations: fc.boolean(),
      ...(version >= 1 ? { endpointType: int8 } : {}),
    }),
  ),
  steps(apis.DescribeConfigs, describeConfigs, (version) =>
    fc.record({
      resources: list(fc.record({ ...resource, configurationKeys: fc.option(list(key)) })),
      includeSynonyms: fc.boolean(),
      ...(version >= 3 ? { includeDocumentation: fc.boolean() } : {}),
    }),
  ),
  steps(apis.AlterConfigs, alterConfigs, () =>
    fc.record({
      resources: list(fc.record({ ...resource, configs: list(fc.record({ name: key, value })) })),
      validateOnly: fc.boolean(),
    }),
  ),
  steps(apis.IncrementalAlterConfigs, incrementalAlterConfigs, () =>
    fc.record({
      resources: list(
        fc.record({ ...resource, configs: list(fc.record({ name: key, configOperation: int8, value })) }),
      ),
      validateOnly: fc.boolean(),
    }),
  ),
  steps(
    apis.ListConfigResources,
    listConfigResources,
    (version): fc.Arbitrary<ListConfigResourcesRequestInit> =>
      version >= 1 ? fc.record({ resourceTypes: list(int8) }) : fc.constant({}),
  ),
  steps(apis.DescribeLogDirs, describeLogDirs, () =>
    fc.record({ topics: fc.option(list(fc.record({ topic: name, partitions: list(int) }))) }),
  ),
  steps(apis.DeleteRecords, deleteRecords, () =>
    fc.record({
      topics: list(fc.record({ name, partitions: list(fc.record({ partitionIndex: int, offset: int64 })) })),
      timeoutMs: int,
    }),
  ),
  steps(apis.OffsetForLeaderEpoch, offsetForLeaderEpoch, () =>
    fc.record({
      topics: list(
        fc.record({
          topic: name,
          partitions: list(fc.record({ partition: int, currentLeaderEpoch: int, leaderEpoch: int })),
        }),
      ),
    }),
  ),
  steps(apis.ListPartitionReassignments, listPartitionReassignments, () =>
    fc.record({ topics: fc.option(list(fc.record({ name, partitionIndexes: list(int) }))) }),
  ),
);

function view({ topics, options }: TopicsBroker) {
  return {
    options,
    topics: topics.all().map(({ name, id, overrides, partitions }) => ({
      name,
      id,
      overrides: Object.fromEntries(overrides),
      configs: partitions.map(({ config }) => config),
    })),
  };
}

test('every request is answered once, and leaves a state that a restart finds again', async (t) => {
  await fc.assert(
    fc.asyncProperty(fc.array(anyStep, { minLength: 1, maxLength: 12 }), async (sequence) => {
      const broker = await openTopicsBroker();
      broker.topics.ensureInternal('__consumer_offsets', 1, new Map([['cleanup.policy', 'compact']]));
      for (const step of sequence) t.not(step(broker).response, undefined);
      t.truthy(broker.topics.get('__consumer_offsets'));
      const again = await openTopicsBroker({ engine: broker.engine.restart() });
      t.deepEqual(view(again), view(broker));
    }),
    { numRuns: 200 },
  );
});
