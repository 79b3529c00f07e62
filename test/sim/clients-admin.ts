/**
 * The simulated administrator: creates, deletes and recreates topics, adds partitions, deletes records, changes configs,
 * and looks whether the broker says what it has promised. One at a time, so that the oracle knows what may be.
 */
import { errors } from '../../protocol/errors.ts';
import type { LogOracle, TopicModel, TopicStatus } from './broker-oracle.ts';
import { nameOf } from './broker-oracle.ts';
import { SimClient, type World } from './clients.ts';

const TOPIC_RESOURCE = 2;
const SET = 0;
/** From this version on CreateTopics answers the new topic's id. */
const ID_MIN_VERSION = 7;

/** Of the configs that the admin changes later. */
const CONFIG_DEFAULTS = new Map([['segment.index.bytes', ['10485760']]]);

type Configs = Record<string, string>;

export class SimAdmin {
  readonly client: SimClient;
  readonly #world: World;
  /** Creations whose answer never came, by name. */
  readonly #inDoubt = new Map<string, { partitionCount: number; configs: Configs }>();
  /** By name, what the admin believes to be there. */
  readonly current = new Map<string, TopicModel>();

  constructor(world: World) {
    this.#world = world;
    this.client = new SimClient(world, 'admin');
  }

  async create(name: string, partitionCount: number, configs: Configs): Promise<TopicModel> {
    const { client } = this;
    for (;;) {
      await client.connect(true);
      this.#inDoubt.set(name, { partitionCount, configs });
      const version = client.random.between(5, ID_MIN_VERSION);
      const answer = await client.ask('CreateTopics', version, {
        topics: [
          {
            name,
            numPartitions: partitionCount,
            replicationFactor: 1,
            assignments: [],
            configs: Object.entries(configs).map(([key, value]) => ({ name: key, value })),
          },
        ],
        timeoutMs: 30_000,
      });
      const result = answer?.topics[0];
      if (result !== undefined && this.#isDiskTrouble(result.errorCode)) {
        await this.#world.sleep(100);
        continue;
      }
      if (result?.errorCode === 0 && version === ID_MIN_VERSION) {
        const created = this.#known(this.#world.log, name, result.topicId, partitionCount);
        this.#world.onPromise?.('created');
        if (created !== undefined) return created;
      }
      if (result !== undefined && result.errorCode !== 0 && result.errorCode !== errors.TOPIC_ALREADY_EXISTS.kafka) {
        this.#world.fail(`CreateTopics ${name} answers ${result.errorCode}`);
      }
      if (result !== undefined) await this.look();
      const topic = this.current.get(name);
      if (topic !== undefined) return topic;
      if (result !== undefined && client.isConnected) this.#world.fail(`${name} was created and is not there`);
    }
  }

  async delete(topic: TopicModel): Promise<void> {
    const { client } = this;
    topic.status = 'deleting';
    for (;;) {
      await client.connect(true);
      const answer = await client.ask('DeleteTopics', 6, {
        topics: [{ name: null, topicId: topic.id }],
        timeoutMs: 30_000,
      });
      const errorCode = answer?.responses[0]?.errorCode;
      if (errorCode === undefined) continue;
      if (this.#isDiskTrouble(errorCode)) {
        await this.#world.sleep(100);
        continue;
      }
      if (errorCode !== 0 && errorCode !== errors.UNKNOWN_TOPIC_ID.kafka) {
        this.#world.fail(`DeleteTopics ${topic.name} answers ${errorCode}`);
      }
      topic.status = 'gone';
      this.#world.onPromise?.('deleted');
      this.current.delete(topic.name);
      this.#world.note(`${topic.name} is gone`);
      return;
    }
  }

  async addPartitions(topic: TopicModel): Promise<void> {
    const { client } = this;
    await client.connect(true);
    const count = topic.partitionsMax + client.random.between(1, 2);
    topic.partitionsMax = count;
    const answer = await client.ask('CreatePartitions', 3, {
      topics: [{ name: topic.name, count, assignments: null }],
      timeoutMs: 30_000,
      validateOnly: false,
    });
    const errorCode = answer?.results[0]?.errorCode;
    if (errorCode === 0) topic.partitionsMin = count;
    else if (errorCode !== undefined && !this.#isDiskTrouble(errorCode))
      this.#world.fail(`CreatePartitions ${topic.name} ${count} answers ${errorCode}`);
  }

  async deleteRecords(topic: TopicModel): Promise<void> {
    const { client } = this;
    await client.connect(true);
    const index = client.random.below(topic.partitionsMin);
    const partition = this.#world.log.partition(topic, index);
    if (partition.knownEnd === 0) return;
    const offset = client.random.between(0, partition.knownEnd);
    partition.startMax = Math.max(partition.startMax, offset);
    const answer = await client.ask('DeleteRecords', 2, {
      topics: [{ name: topic.name, partitions: [{ partitionIndex: index, offset }] }],
      timeoutMs: 30_000,
    });
    const result = answer?.topics[0]?.partitions[0];
    if (result === undefined || this.#isDiskTrouble(result.errorCode)) return;
    if (result.errorCode !== 0) {
      if (!this.#world.isLossy)
        this.#world.fail(`DeleteRecords ${nameOf(topic, index)} ${offset} answers ${result.errorCode}`);
      return;
    }
    if (result.lowWatermark < offset)
      this.#world.fail(`DeleteRecords ${nameOf(topic, index)} ${offset} answers ${result.lowWatermark}`);
    partition.startMin = Math.max(partition.startMin, offset);
    this.#world.onPromise?.('records deleted');
  }

  async configure(topic: TopicModel, name: string, value: string): Promise<void> {
    const { client } = this;
    await client.connect(true);
    const allowed = topic.configs.get(name) ?? new Set(CONFIG_DEFAULTS.get(name));
    topic.configs.set(name, new Set([...allowed, value]));
    const answer = await client.ask('IncrementalAlterConfigs', 1, {
      resources: [
        {
          resourceType: TOPIC_RESOURCE,
          resourceName: topic.name,
          configs: [{ name, configOperation: SET, value }],
        },
      ],
      validateOnly: false,
    });
    const errorCode = answer?.responses[0]?.errorCode;
    if (errorCode === 0) {
      topic.configs.set(name, new Set([value]));
      this.#world.onPromise?.('configured');
    } else if (errorCode !== undefined && !this.#isDiskTrouble(errorCode))
      this.#world.fail(`IncrementalAlterConfigs ${topic.name} answers ${errorCode}`);
  }

  /** The disk does not work, and the broker says so. */
  #isDiskTrouble(errorCode: number): boolean {
    return errorCode === errors.KAFKA_STORAGE_ERROR.kafka && this.#world.diskTroubleMs >= 0;
  }

  /** Asks for all topics and their configs, and compares. False if the connection ended. */
  async look(): Promise<boolean> {
    const { client } = this;
    const { log } = this.#world;
    await client.connect(true);
    const answer = await client.ask('Metadata', client.random.between(10, 13), { topics: null });
    if (answer === undefined) return false;
    const found = new Set<string>();
    for (const { name, topicId, partitions, errorCode, isInternal } of answer.topics) {
      if (isInternal || name === null) continue;
      found.add(topicId);
      if (errorCode !== 0) this.#world.fail(`Metadata answers ${errorCode} for ${name}`);
      const topic = this.#known(log, name, topicId, partitions.length);
      if (topic !== undefined) this.#checkTopic(topic, name, partitions.length);
    }
    for (const topic of log.topics.values()) {
      if (topic.status !== 'live' || found.has(topic.id) || this.#world.isLossy) continue;
      this.#world.fail(`topic ${topic.name} (${topic.id}) is not there any more`);
    }
    for (const topic of [...log.topics.values()]) {
      if (topic.status === 'live' && topic.configs.size > 0 && !(await this.#checkConfigs(topic))) return false;
    }
    return true;
  }

  #known(log: LogOracle, name: string, topicId: string, partitionCount: number): TopicModel | undefined {
    const known = log.topics.get(topicId);
    if (known !== undefined) return known;
    const doubt = this.#inDoubt.get(name);
    if (doubt === undefined || doubt.partitionCount !== partitionCount) {
      this.#world.fail(`topic ${name} (${topicId}) with ${partitionCount} partitions: nobody created it`);
      return undefined;
    }
    this.#inDoubt.delete(name);
    const { configs } = doubt;
    const isRetained = 'retention.bytes' in configs || 'retention.ms' in configs;
    const topic = log.topic(topicId, { name, partitionCount, isRetained });
    for (const [key, value] of Object.entries(configs)) topic.configs.set(key, new Set([value]));
    this.current.set(name, topic);
    this.#world.note(`${name} is ${topicId}`);
    return topic;
  }

  #checkTopic(topic: TopicModel, name: string, partitionCount: number): void {
    const status: TopicStatus = topic.status;
    if (name !== topic.name) this.#world.fail(`topic ${topic.id} was ${topic.name}, now ${name}`);
    if (status === 'gone' && !this.#world.isLossy)
      this.#world.fail(`topic ${name} (${topic.id}) was deleted and is back`);
    if ((partitionCount < topic.partitionsMin && !this.#world.isLossy) || partitionCount > topic.partitionsMax) {
      const { partitionsMin, partitionsMax } = topic;
      this.#world.fail(`topic ${name} has ${partitionCount} partitions, not ${partitionsMin} to ${partitionsMax}`);
    }
    // Whoever was told relies on it.
    topic.partitionsMin = Math.max(topic.partitionsMin, partitionCount);
  }

  async #checkConfigs(topic: TopicModel): Promise<boolean> {
    const answer = await this.client.ask('DescribeConfigs', 4, {
      resources: [
        { resourceType: TOPIC_RESOURCE, resourceName: topic.name, configurationKeys: [...topic.configs.keys()] },
      ],
    });
    const result = answer?.results[0];
    if (result === undefined) return false;
    if (topic.status !== 'live') return true;
    if (result.errorCode !== 0 && !this.#world.isLossy) {
      this.#world.fail(`DescribeConfigs ${topic.name} answers ${result.errorCode}`);
    }
    for (const { name, value } of result.configs) {
      const allowed = topic.configs.get(name);
      if (allowed === undefined || allowed.has(value ?? '') || this.#world.isLossy) continue;
      this.#world.fail(`${topic.name}: ${name} is ${value}, not ${[...allowed].join(' or ')}`);
    }
    return true;
  }
}

/** Configs that make segments roll and go. */
export function someConfigs(client: SimClient, isRetained: boolean): Configs {
  const { random } = client;
  const configs: Configs = {};
  if (random.chance(0.7)) configs['segment.index.bytes'] = random.pick(['24', '96', '1000']);
  if (random.chance(0.7)) configs['index.interval.bytes'] = random.pick(['0', '100', '4096']);
  if (random.chance(0.3)) configs['segment.ms'] = random.pick(['500', '5000']);
  if (random.chance(0.3)) configs['file.delete.delay.ms'] = random.pick(['0', '100', '60000']);
  if (random.chance(0.2)) configs['message.timestamp.type'] = 'LogAppendTime';
  if (isRetained) {
    if (random.chance(0.5)) configs['retention.ms'] = random.pick(['1000', '10000']);
    else configs['retention.bytes'] = random.pick(['0', '2000', '20000']);
  }
  return configs;
}

/** Goes on until the world ends. */
export async function administer(world: World, admin: SimAdmin, churnNames: readonly string[]): Promise<void> {
  const { random } = admin.client;
  while (!world.isEnding) {
    await world.sleep(random.between(50, 1500));
    const name = random.pick(churnNames);
    const churn = admin.current.get(name);
    const topic = random.pick([...admin.current.values()]);
    const dice = random.below(10);
    if (churn === undefined)
      await admin.create(name, random.between(1, 3), someConfigs(admin.client, random.chance(0.3)));
    else if (dice < 3) await admin.delete(churn);
    else if (dice < 4 && topic.partitionsMax < 6) await admin.addPartitions(topic);
    else if (dice < 7) await admin.deleteRecords(topic);
    else if (dice < 8) await admin.configure(topic, 'segment.index.bytes', random.pick(['24', '80', '1000']));
    else await admin.look();
  }
}
