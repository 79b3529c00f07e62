/**
 * Simulated producers. An idempotent one sends bursts of pipelined requests and repeats what was not acknowledged, in
 * order and as often as needed; a plain one (acks all, 1 or 0) never repeats anything.
 */
import { errors } from '../../protocol/errors.ts';
import { buildBatch } from '../../protocol/record-batch.ts';
import type { Era, TopicModel } from './broker-oracle.ts';
import { nameOf } from './broker-oracle.ts';
import { SimClient, type World } from './clients.ts';

export interface ProducerPlan {
  topic: TopicModel;
  partitions: readonly number[];
  kind: 'idempotent' | 'plain';
  acks: -1 | 0 | 1;
  /** Between bursts, at most. */
  thinkMsMax: number;
  /** Of one record's padding, at most. */
  paddingMax: number;
}

/** What goes to one partition, in order. */
interface Lane {
  readonly partition: number;
  era: Era;
  lastOffset: number;
}

interface Batch {
  readonly lane: Lane;
  readonly era: Era;
  readonly from: number;
  readonly to: number;
  readonly bytes: Buffer;
  /** The broker had no room for it once. */
  wasRefused: boolean;
}

interface Identity {
  producerId: number;
  producerEpoch: number;
}

const IN_FLIGHT_MAX = 5;
const BY_ID_VERSION = 13;

export class SimProducer {
  readonly #world: World;
  readonly #client: SimClient;
  readonly #plan: ProducerPlan;
  readonly #lanes: Lane[];
  #identity: Identity | undefined;
  /** Sent and perhaps not taken, oldest first; each is one request. */
  #pending: Batch[][] = [];
  /** The topic has gone, or the producer cannot go on. */
  #isDone = false;

  constructor(world: World, name: string, plan: ProducerPlan) {
    this.#world = world;
    this.#client = new SimClient(world, name);
    this.#plan = plan;
    this.#lanes = plan.partitions.map((partition) => ({
      partition,
      era: world.log.era(plan.topic, partition, plan.kind === 'idempotent'),
      lastOffset: -1,
    }));
  }

  async run(): Promise<void> {
    const { random } = this.#client;
    while (!this.#isDone && (!this.#world.isEnding || this.#pending.length > 0)) {
      // As a process that is started anew: it gets another id and begins at 0.
      if (this.#pending.length === 0 && random.chance(0.03)) this.#forget();
      await this.#ready();
      const room = this.#world.isEnding ? 0 : random.between(1, IN_FLIGHT_MAX) - this.#pending.length;
      for (let count = 0; count < room; count++) this.#pending.push(this.#newRequest());
      await this.#burst();
      await this.#world.sleep(random.below(this.#plan.thinkMsMax));
    }
    this.#client.close();
  }

  #forget(): void {
    if (this.#plan.kind === 'plain') return;
    this.#identity = undefined;
    for (const lane of this.#lanes) lane.era = this.#world.log.era(this.#plan.topic, lane.partition, true);
  }

  /** A connection, and for idempotent producers an id. */
  async #ready(): Promise<void> {
    const client = this.#client;
    const { kind, topic } = this.#plan;
    for (;;) {
      if (!client.isConnected) {
        await client.connect();
        // What was sent before may still arrive, and be overtaken by what is sent now.
        if (kind === 'plain')
          for (const lane of this.#lanes) lane.era = this.#world.log.era(topic, lane.partition, false);
      }
      if (kind === 'plain' || this.#identity !== undefined) return;
      const answer = await client.ask('InitProducerId', 4, { transactionalId: null, transactionTimeoutMs: 60_000 });
      if (answer === undefined) continue;
      if (answer.errorCode !== 0) this.#world.fail(`${client.name}: InitProducerId answers ${answer.errorCode}`);
      this.#identity = { producerId: answer.producerId, producerEpoch: answer.producerEpoch };
      return;
    }
  }

  #newRequest(): Batch[] {
    const { random } = this.#client;
    const lanes = this.#lanes.filter(() => random.chance(0.6));
    return (lanes.length > 0 ? lanes : [random.pick(this.#lanes)]).map((lane) => this.#newBatch(lane));
  }

  #newBatch(lane: Lane): Batch {
    const { random } = this.#client;
    const { clock, log } = this.#world;
    const { era } = lane;
    const from = era.values.length;
    const count = random.chance(0.8) ? random.between(1, 5) : random.between(1, 40);
    const records = Array.from({ length: count }, () => {
      const padding = 'x'.repeat(random.below(this.#plan.paddingMax));
      return { key: null, value: Buffer.from(log.record(era, padding), 'latin1'), timestamp: clock.now() };
    });
    const identity = this.#identity === undefined ? {} : { ...this.#identity, baseSequence: from };
    const compression = random.chance(0.1) ? random.pick(['gzip', 'lz4', 'snappy'] as const) : 'none';
    const bytes = buildBatch(records, { ...identity, compression });
    return { lane, era, from, to: from + count, bytes, wasRefused: false };
  }

  /** Sends everything that is pending, one request after the other, and takes the answers. */
  async #burst(): Promise<void> {
    const { topic, acks } = this.#plan;
    const client = this.#client;
    const isById = topic.name.startsWith('churn') || client.random.chance(0.5);
    const version = isById ? BY_ID_VERSION : client.random.between(3, BY_ID_VERSION - 1);
    const requests = this.#pending;
    this.#pending = [];
    const sent = requests.map((batches) => {
      const topicData = [
        {
          ...(isById ? { topicId: topic.id } : { name: topic.name }),
          partitionData: batches.map(({ lane, bytes }) => ({ index: lane.partition, records: bytes })),
        },
      ];
      const request = { transactionalId: null, acks, timeoutMs: 30_000, topicData };
      if (acks === 0) client.tell('Produce', version, request);
      return acks === 0 ? undefined : client.ask('Produce', version, request);
    });
    if (acks === 0) return;
    const answers = await Promise.all(sent);
    const refusedLanes = new Set<Lane>();
    requests.forEach((batches, index) => {
      const results = answers[index]?.responses[0]?.partitionResponses;
      const rest = batches.filter((batch) => {
        const result = results?.find((one) => one.index === batch.lane.partition);
        return result === undefined ? this.#unanswered() : this.#answered(batch, result, refusedLanes);
      });
      if (rest.length > 0) this.#pending.push(rest);
    });
  }

  /** Whether to send it again. */
  #unanswered(): boolean {
    return this.#plan.kind === 'idempotent';
  }

  #answered(batch: Batch, result: { errorCode: number; baseOffset: number }, refusedLanes: Set<Lane>): boolean {
    const { lane, era, from, to } = batch;
    const { log } = this.#world;
    const { kind, topic } = this.#plan;
    const { errorCode, baseOffset } = result;
    const name = `${this.#client.name}: records ${era.id}|${from} to ${to - 1} to ${nameOf(topic, lane.partition)}`;
    if (errorCode === 0) {
      if (baseOffset <= lane.lastOffset && kind === 'idempotent' && !this.#world.isLossy) {
        this.#world.fail(`${name} were put at ${baseOffset}, the ones before them at ${lane.lastOffset}`);
      }
      lane.lastOffset = baseOffset;
      log.acknowledged(era, from, to, baseOffset);
      this.#world.onPromise?.('produced');
      return false;
    }
    const isFirst = !refusedLanes.has(lane);
    refusedLanes.add(lane);
    if (errorCode === errors.UNKNOWN_TOPIC_ID.kafka || errorCode === errors.UNKNOWN_TOPIC_OR_PARTITION.kafka) {
      if (topic.status === 'live') this.#world.fail(`${name}: the topic is unknown (${errorCode})`);
      this.#isDone = true;
      return false;
    }
    const isGap = errorCode === errors.OUT_OF_ORDER_SEQUENCE_NUMBER.kafka;
    // As in Apache Kafka: of a producer that is not known any sequence is taken, so a later batch may have got in first.
    if (isGap && batch.wasRefused) {
      this.#isDone = true;
      return false;
    }
    if (errorCode === errors.KAFKA_STORAGE_ERROR.kafka) batch.wasRefused = true;
    if (
      !(errorCode === errors.KAFKA_STORAGE_ERROR.kafka || (isGap && !isFirst) || errorCode === errors.STOPPING.kafka)
    ) {
      if (!this.#world.isLossy) this.#world.fail(`${name} were refused with ${errorCode}`);
      this.#isDone = true;
      return false;
    }
    if (kind === 'plain') log.refused(era, from, to);
    return kind === 'idempotent';
  }
}
