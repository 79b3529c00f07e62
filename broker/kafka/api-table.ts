/**
 * One row for each Kafka API that is served: its versions and its handler. What is not here is not advertised;
 * docs/protocols.md is generated from it.
 */
import { apis } from '../../protocol/kafka/apis.ts';
import type { Reader, Writer } from '../../protocol/bytes.ts';
import { unsupportedApiVersions } from '../../protocol/kafka/frame.ts';
import type { ApiVersionsRequest, ApiVersionsResponseInit } from '../../protocol/kafka/messages.ts';
import { type ErrorCode, errors } from '../../protocol/errors.ts';
import type { Broker } from '../broker.ts';
import type { Metrics } from '../metrics.ts';
import type { Call, Handler } from './call.ts';
import type { FetchHandler } from './fetch.ts';
import { alterConfigs, describeConfigs, incrementalAlterConfigs, listConfigResources } from './configs.ts';
import { consumerGroupDescribe, consumerGroupHeartbeat } from './consumer-groups.ts';
import { offsetCommit, offsetDelete, offsetFetch } from './group-offsets.ts';
import {
  deleteGroups,
  describeGroups,
  findCoordinator,
  heartbeat,
  joinGroup,
  leaveGroup,
  listGroups,
  syncGroup,
} from './groups.ts';
import { deleteRecords, describeLogDirs, listPartitionReassignments, offsetForLeaderEpoch } from './log-admin.ts';
import { describeCluster, describeTopicPartitions, metadata } from './metadata.ts';
import { QUEUES_FEATURE } from './queue-command.ts';
import { shareAcknowledge } from './share-acknowledge.ts';
import { shareFetch } from './share-fetch.ts';
import { shareGroupDescribe, shareGroupHeartbeat } from './share-groups.ts';
import { alterShareGroupOffsets, deleteShareGroupOffsets, describeShareGroupOffsets } from './share-offsets.ts';
import type { ShareSessions } from './share-sessions.ts';
import { createPartitions, createTopics, deleteTopics } from './topic-admin.ts';
import { listOffsets } from './list-offsets.ts';
import { initProducerId, produce } from './produce.ts';

/** What the table needs of a message's codec. */
interface Codec<Request, Response> {
  readonly key: number;
  readonly name: string;
  readonly minVersion: number;
  readonly maxVersion: number;
  readonly flexibleFrom: number;
  readRequest(reader: Reader, version: number): Request;
  writeResponse(writer: Writer, value: Response, version: number): void;
}

export interface ApiRow {
  readonly api: Codec<unknown, unknown>;
  readonly name: string;
  /** What ApiVersions says; the versions below the codec's own are advertised but not read. */
  readonly advertisedMinVersion: number;
  readonly minVersion: number;
  readonly maxVersion: number;
  readonly handle: Handler<unknown, unknown>;
  requests: number;
  observe(durationMs: number): void;
}

/**
 * Features that are served (KIP-584): `group.version` 1 is the consumer group protocol (KIP-848), `share.version` 1 are
 * share groups (KIP-932), 2 their dead letters (KIP-1191); `millrace.queues` 1 are queue commands.
 */
const FEATURES: Pick<ApiVersionsResponseInit, 'supportedFeatures' | 'finalizedFeatures' | 'finalizedFeaturesEpoch'> = {
  supportedFeatures: [
    { name: 'group.version', minVersion: 0, maxVersion: 1 },
    { name: 'share.version', minVersion: 0, maxVersion: 2 },
    QUEUES_FEATURE,
  ],
  finalizedFeaturesEpoch: 1,
  finalizedFeatures: [
    { name: 'group.version', maxVersionLevel: 1, minVersionLevel: 1 },
    { name: 'share.version', maxVersionLevel: 2, minVersionLevel: 2 },
  ],
};

export type ApiTable = ReadonlyMap<number, ApiRow>;

/** Software names and versions that ApiVersions accepts (KIP-511). */
const SOFTWARE = /^[a-zA-Z0-9](?:[a-zA-Z0-9\-.]*[a-zA-Z0-9])?$/;

/** Handlers with a memory of their own. */
export interface Handlers {
  readonly fetch: FetchHandler;
  readonly shareSessions: ShareSessions;
}

export function apiTable({ fetch, shareSessions }: Handlers, metrics: Metrics): ApiTable {
  const rows = new Map<number, ApiRow>();
  function serve<Request, Response>(
    api: Codec<Request, Response>,
    handle: Handler<Request, Response>,
    versions: { min?: number; max?: number; advertisedMin?: number } = {},
  ): void {
    const histogram = metrics.histogram(
      `millrace_kafka_${api.name}_seconds`,
      `Time from a ${api.name} request to its answer.`,
    );
    const minVersion = versions.min ?? api.minVersion;
    rows.set(api.key, {
      // The row only ever gives a handler what its own codec read, and its codec what its own handler answered.
      api: api as unknown as Codec<unknown, unknown>,
      name: api.name,
      advertisedMinVersion: versions.advertisedMin ?? minVersion,
      minVersion,
      maxVersion: versions.max ?? api.maxVersion,
      handle: handle as unknown as Handler<unknown, unknown>,
      requests: 0,
      observe: (durationMs) => histogram.observe(durationMs / 1000),
    });
  }

  // Produce 0 to 2 cannot be read, yet Kafka advertises them: librdkafka up to 2.11 sends uncompressed otherwise (KIP-896).
  serve(apis.Produce, produce, { advertisedMin: 0 });
  serve(apis.Fetch, (broker, call) => fetch.handle(broker, call));
  serve(apis.ListOffsets, listOffsets);
  serve(apis.InitProducerId, initProducerId);
  serve(apis.OffsetForLeaderEpoch, offsetForLeaderEpoch);

  serve(apis.Metadata, metadata);
  serve(apis.DescribeTopicPartitions, describeTopicPartitions);
  serve(apis.DescribeCluster, describeCluster);
  serve(apis.CreateTopics, createTopics);
  serve(apis.DeleteTopics, deleteTopics);
  serve(apis.CreatePartitions, createPartitions);
  serve(apis.DeleteRecords, deleteRecords);
  serve(apis.DescribeConfigs, describeConfigs);
  serve(apis.AlterConfigs, alterConfigs);
  serve(apis.IncrementalAlterConfigs, incrementalAlterConfigs);
  serve(apis.ListConfigResources, listConfigResources);
  serve(apis.DescribeLogDirs, describeLogDirs);
  serve(apis.ListPartitionReassignments, listPartitionReassignments);

  serve(apis.FindCoordinator, findCoordinator);
  serve(apis.JoinGroup, joinGroup);
  serve(apis.SyncGroup, syncGroup);
  serve(apis.Heartbeat, heartbeat);
  serve(apis.LeaveGroup, leaveGroup);
  serve(apis.ConsumerGroupHeartbeat, consumerGroupHeartbeat);
  serve(apis.ConsumerGroupDescribe, consumerGroupDescribe);
  serve(apis.ShareGroupHeartbeat, shareGroupHeartbeat);
  serve(apis.ShareGroupDescribe, shareGroupDescribe);
  serve(apis.ShareFetch, (broker, call) => shareFetch(broker, call, shareSessions));
  serve(apis.ShareAcknowledge, (broker, call) => shareAcknowledge(broker, call, shareSessions));
  serve(apis.DescribeShareGroupOffsets, describeShareGroupOffsets);
  serve(apis.AlterShareGroupOffsets, alterShareGroupOffsets);
  serve(apis.DeleteShareGroupOffsets, deleteShareGroupOffsets);
  serve(apis.OffsetCommit, offsetCommit);
  serve(apis.OffsetFetch, offsetFetch);
  serve(apis.OffsetDelete, offsetDelete);
  serve(apis.DescribeGroups, describeGroups);
  serve(apis.ListGroups, listGroups);
  serve(apis.DeleteGroups, deleteGroups);

  serve(apis.ApiVersions, (broker: Broker, call: Call<ApiVersionsRequest | undefined, ApiVersionsResponseInit>) =>
    apiVersions(rows, broker, call),
  );
  return rows;
}

/** ApiVersions: what is served; `request` is undefined when the asked version is not. */
function apiVersions(
  rows: ApiTable,
  broker: Broker,
  call: Call<ApiVersionsRequest | undefined, ApiVersionsResponseInit>,
): void {
  const { request, version, connection } = call;
  if (!request) {
    const { minVersion, maxVersion } = apis.ApiVersions;
    return call.reply(unsupportedApiVersions(minVersion, maxVersion));
  }
  if (version >= 3) {
    const { clientSoftwareName, clientSoftwareVersion } = request;
    if (!SOFTWARE.test(clientSoftwareName) || !SOFTWARE.test(clientSoftwareVersion)) {
      return call.reply({ errorCode: errors.INVALID_REQUEST.kafka, apiKeys: [] });
    }
    connection.clientSoftwareName = clientSoftwareName;
    connection.clientSoftwareVersion = clientSoftwareVersion;
  }
  const misrouted = misroutedError(broker, request);
  if (misrouted !== 'NONE') return call.reply({ errorCode: errors[misrouted].kafka, apiKeys: [] });
  const apiKeys = [...rows.values()]
    .map(({ api, advertisedMinVersion, maxVersion }) => ({
      apiKey: api.key,
      minVersion: advertisedMinVersion,
      maxVersion,
    }))
    .sort((a, b) => a.apiKey - b.apiKey);
  call.reply({ errorCode: 0, apiKeys, ...FEATURES });
}

/** Whether the client meant another node or cluster, whose address this one has now (KIP-1242). */
function misroutedError(broker: Broker, { clusterId, nodeId }: ApiVersionsRequest): ErrorCode {
  if (clusterId === null && nodeId === -1) return 'NONE';
  // Both or none.
  if (clusterId === null || nodeId === -1) return 'INVALID_REQUEST';
  const isThis = clusterId === broker.clusterId && nodeId === broker.options['node.id'];
  return isThis ? 'NONE' : 'REBOOTSTRAP_REQUIRED';
}
