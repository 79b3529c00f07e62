/** A member of a share group over the wire, as far as tests need one: joins, fetches, and acknowledges what it got. */
import { batchSizeBytes, openRecords } from '../../protocol/record-batch.ts';
import { RawClient } from './raw-client.ts';

const GROUP_RESOURCE = 32;
const HEARTBEATS_MAX = 100;
const LIMITS = { maxWaitMs: 200, minBytes: 1, maxBytes: 1 << 20, batchSize: 500 };
const [ACCEPT, RELEASE, REJECT] = [1, 2, 3];
const TYPES = { accept: ACCEPT, release: RELEASE, reject: REJECT } as const;

export interface SharedRecord {
  readonly topicId: string;
  readonly partition: number;
  readonly offset: number;
  readonly deliveryCount: number;
  readonly value: string;
}

export class ShareConsumer {
  readonly #client: RawClient;
  readonly #group: string;
  readonly #memberId: string;
  #epoch = 0;
  #topics: { topicId: string; partitions: { partitionIndex: number; acknowledgementBatches: never[] }[] }[] = [];

  private constructor(client: RawClient, group: string, memberId: string) {
    this.#client = client;
    this.#group = group;
    this.#memberId = memberId;
  }

  static async join(bootstrap: string, group: string, topic: string, memberId = 'member'): Promise<ShareConsumer> {
    const client = await RawClient.connect(bootstrap);
    const consumer = new ShareConsumer(client, group, memberId);
    const join = { groupId: group, memberId, rackId: null };
    let beat = await client.ask('ShareGroupHeartbeat', 1, { ...join, memberEpoch: 0, subscribedTopicNames: [topic] });
    for (let tries = 0; tries < HEARTBEATS_MAX && (beat.assignment?.topicPartitions.length ?? 0) === 0; tries++) {
      const { memberEpoch } = beat;
      beat = await client.ask('ShareGroupHeartbeat', 1, { ...join, memberEpoch, subscribedTopicNames: null });
    }
    if (beat.errorCode !== 0) throw new Error(`heartbeat: ${beat.errorCode} ${beat.errorMessage}`);
    consumer.#topics = (beat.assignment?.topicPartitions ?? []).map(({ topicId, partitions }) => ({
      topicId,
      partitions: partitions.map((partitionIndex) => ({ partitionIndex, acknowledgementBatches: [] })),
    }));
    return consumer;
  }

  /** Configs of a group. */
  static async configure(bootstrap: string, group: string, configs: Readonly<Record<string, string>>): Promise<void> {
    const client = await RawClient.connect(bootstrap);
    const set = Object.entries(configs).map(([name, value]) => ({ name, configOperation: 0, value }));
    const resources = [{ resourceType: GROUP_RESOURCE, resourceName: group, configs: set }];
    const { responses } = await client.ask('IncrementalAlterConfigs', 1, { resources, validateOnly: false });
    client.close();
    if (responses[0].errorCode !== 0) throw new Error(`configs: ${responses[0].errorMessage}`);
  }

  /** Up to so many records, of which there may be none. */
  async fetch(maxRecords = 10): Promise<SharedRecord[]> {
    const epoch = this.#epoch++;
    const answer = await this.#client.ask('ShareFetch', 1, {
      groupId: this.#group,
      memberId: this.#memberId,
      shareSessionEpoch: epoch,
      ...LIMITS,
      maxRecords,
      topics: epoch === 0 ? this.#topics : [],
      forgottenTopicsData: [],
    });
    if (answer.errorCode !== 0) throw new Error(`fetch: ${answer.errorCode} ${answer.errorMessage}`);
    const found: SharedRecord[] = [];
    for (const { topicId, partitions } of answer.responses) {
      for (const { partitionIndex: partition, records, acquiredRecords } of partitions) {
        const values = valuesOf(records);
        for (const { firstOffset, lastOffset, deliveryCount } of acquiredRecords) {
          for (let offset = firstOffset; offset <= lastOffset; offset++) {
            const value = values.get(offset);
            if (value !== undefined) found.push({ topicId, partition, offset, deliveryCount, value });
          }
        }
      }
    }
    return found;
  }

  async settle(records: readonly SharedRecord[], kind: keyof typeof TYPES): Promise<void> {
    const topics = records.map(({ topicId, partition, offset }) => ({
      topicId,
      partitions: [
        {
          partitionIndex: partition,
          acknowledgementBatches: [{ firstOffset: offset, lastOffset: offset, acknowledgeTypes: [TYPES[kind]] }],
        },
      ],
    }));
    for (const topic of topics) {
      const answer = await this.#client.ask('ShareAcknowledge', 1, {
        groupId: this.#group,
        memberId: this.#memberId,
        shareSessionEpoch: this.#epoch++,
        topics: [topic],
      });
      const codes = [
        answer.errorCode,
        ...answer.responses.flatMap(({ partitions }) => partitions.map((p) => p.errorCode)),
      ];
      if (codes.some((code) => code !== 0)) throw new Error(`acknowledge: ${codes.join(' ')}`);
    }
  }

  close(): void {
    this.#client.close();
  }
}

function valuesOf(records: Uint8Array | null): Map<number, string> {
  const values = new Map<number, string>();
  if (records === null) return values;
  const bytes = Buffer.from(records);
  for (let at = 0; at < bytes.length; at += batchSizeBytes(bytes, at)) {
    const cursor = openRecords(bytes, at, 1e8);
    const baseOffset = Number(bytes.readBigInt64BE(at));
    const count = bytes.readInt32BE(at + 57);
    for (let index = 0; index < count; index++) {
      cursor.next();
      const { valueStart, valueSize } = cursor;
      values.set(baseOffset + cursor.offsetDelta, cursor.bytes.toString('utf8', valueStart, valueStart + valueSize));
    }
  }
  return values;
}
